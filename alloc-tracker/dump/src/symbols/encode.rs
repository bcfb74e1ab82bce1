//! Names to payloads. In: modules, their addresses and the functions there. Out: as many payloads
//! as they need. Memory follows the names that are kept.

use std::io;

use foldhash::HashMap;

use super::{EncodedSymbols, FunctionSymbol, INLINED, NAMED, StoredFunction};
use crate::layout::{MAX_PAYLOAD, MAX_SYMBOLS_BYTES, MAX_SYMBOLS_LISTED, MAX_TEXT};
use crate::varint;

/// A payload with so many bytes before Zstandard is written, and another one begun.
const TARGET_BYTES: usize = 2 << 20;

/// Makes payloads of names.
///
/// ```
/// use alloc_dump::symbols::{FunctionSymbol, SymbolsEncoder};
///
/// let mut encoder = SymbolsEncoder::new(3);
/// encoder.begin_module(1, &[]);
/// let none = FunctionSymbol::default();
/// let main = FunctionSymbol { function: "app::main", line: Some(7), is_named: true, ..none };
/// encoder.push(0x1233, [main]);
/// assert_eq!(encoder.finish()?.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SymbolsEncoder {
    level: i32,
    done: Vec<EncodedSymbols>,
    bytes_left: usize,
    listed_left: usize,
    payload: PayloadParts,
    module: (u32, Vec<u64>),
    error: Option<io::Error>,
}

/// The three parts of a payload, each with its count.
#[derive(Debug, Default)]
struct PayloadParts {
    texts: CountedBytes,
    functions: CountedBytes,
    modules: CountedBytes,
    /// The addresses of the module that was begun last.
    addresses: CountedBytes,
    last_address: u64,
    text_index: HashMap<Box<str>, u32>,
    function_index: HashMap<StoredFunction, u32>,
}

#[derive(Debug, Default)]
struct CountedBytes {
    count: u32,
    bytes: Vec<u8>,
}

impl SymbolsEncoder {
    /// Returns an encoder that has nothing yet. `level` is that of Zstandard.
    pub fn new(level: i32) -> SymbolsEncoder {
        SymbolsEncoder {
            level,
            done: Vec::new(),
            bytes_left: MAX_SYMBOLS_BYTES,
            listed_left: MAX_SYMBOLS_LISTED,
            payload: PayloadParts::default(),
            module: (0, Vec::new()),
            error: None,
        }
    }

    /// Begins the addresses of the module with this number. `trampolines` are the addresses, in
    /// ascending order, at which the signal return trampoline starts.
    pub fn begin_module(&mut self, id: u32, trampolines: &[u64]) {
        self.payload.end_module(&self.module);
        self.module = (id, trampolines.to_vec());
    }

    /// Adds an address of the module that was begun last, larger than those before, with its
    /// functions, innermost first. Names beyond the bounds of a dump are left out.
    pub fn push<'a>(&mut self, address: u64, functions: impl IntoIterator<Item = FunctionSymbol<'a>>) {
        if self.payload.len() > TARGET_BYTES {
            self.seal();
        }
        let functions: Vec<u32> =
            functions.into_iter().map(|function| self.payload.function(&function)).collect();
        let Some(left) = self.listed_left.checked_sub(functions.len()) else { return };
        self.listed_left = left;
        self.payload.push(address, &functions);
    }

    /// Returns the payloads.
    ///
    /// # Errors
    /// If Zstandard fails, which means that there is no memory.
    pub fn finish(mut self) -> io::Result<Vec<EncodedSymbols>> {
        self.seal();
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.done),
        }
    }

    /// Makes a payload of what there is, and begins another one in the same module.
    fn seal(&mut self) {
        self.payload.end_module(&self.module);
        let payload = std::mem::take(&mut self.payload);
        let bytes = payload.into_bytes();
        let Some(left) = self.bytes_left.checked_sub(bytes.len()) else { return };
        if payload_is_empty(&bytes) || bytes.len() > MAX_PAYLOAD {
            return;
        }
        self.bytes_left = left;
        match zstd::bulk::compress(&bytes, self.level) {
            Ok(payload) if payload.len() > MAX_PAYLOAD => {}
            Ok(payload) => self.done.push(EncodedSymbols { payload, decoded_len: bytes.len() as u32 }),
            Err(error) => self.error = Some(error),
        }
    }
}

/// Whether a payload has no texts, and so no names.
fn payload_is_empty(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0)
}

impl PayloadParts {
    fn len(&self) -> usize {
        [&self.texts, &self.functions, &self.modules, &self.addresses]
            .iter()
            .map(|part| part.bytes.len())
            .sum()
    }

    fn push(&mut self, address: u64, functions: &[u32]) {
        self.addresses.count += 1;
        self.addresses.put(address.wrapping_sub(self.last_address));
        self.addresses.put(functions.len() as u64);
        functions.iter().for_each(|&function| self.addresses.put(u64::from(function)));
        self.last_address = address;
    }

    /// Ends the module that was begun last. A module without addresses is left out.
    fn end_module(&mut self, (id, trampolines): &(u32, Vec<u64>)) {
        let addresses = std::mem::take(&mut self.addresses);
        self.last_address = 0;
        if addresses.count == 0 {
            return;
        }
        self.modules.count += 1;
        self.modules.put(u64::from(*id));
        self.modules.put(trampolines.len() as u64);
        let mut before = 0;
        for &trampoline in trampolines {
            self.modules.put(trampoline.wrapping_sub(before));
            before = trampoline;
        }
        self.modules.append(&addresses);
    }

    fn function(&mut self, function: &FunctionSymbol<'_>) -> u32 {
        let stored = StoredFunction {
            function: self.text(function.function),
            generics: function.generics.map(|generics| self.text(generics)),
            file: function.file.map(|file| self.text(file)),
            line: function.line.filter(|line| *line != 0),
            column: function.column.filter(|column| *column != 0),
            flags: (u8::from(function.is_inlined) * INLINED) | (u8::from(function.is_named) * NAMED),
        };
        let part = &mut self.functions;
        *self.function_index.entry(stored).or_insert_with(|| {
            let one_more = |index: Option<u32>| index.map_or(0, |index| u64::from(index) + 1);
            part.put(u64::from(stored.function));
            part.put(one_more(stored.generics));
            part.put(one_more(stored.file));
            part.put(stored.line.map_or(0, u64::from));
            part.put(stored.column.map_or(0, u64::from));
            part.put(u64::from(stored.flags));
            part.count += 1;
            part.count - 1
        })
    }

    fn text(&mut self, text: &str) -> u32 {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        if let Some(&index) = self.text_index.get(text) {
            return index;
        }
        let part = &mut self.texts;
        part.put(text.len() as u64);
        part.bytes.extend_from_slice(text.as_bytes());
        part.count += 1;
        self.text_index.insert(text.into(), part.count - 1);
        part.count - 1
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut all = CountedBytes::default();
        [&self.texts, &self.functions, &self.modules].iter().for_each(|part| all.append(part));
        all.bytes
    }
}

impl CountedBytes {
    fn put(&mut self, number: u64) {
        let (mut bytes, mut len) = ([0; varint::MAX_LEN], 0);
        varint::put(&mut bytes, &mut len, number).expect("the buffer holds the longest number");
        self.bytes.extend_from_slice(&bytes[..len]);
    }

    /// Appends a part, after its count.
    fn append(&mut self, part: &CountedBytes) {
        self.put(u64::from(part.count));
        self.bytes.extend_from_slice(&part.bytes);
    }
}
