//! Names of code that are kept in a dump, so that it can be read when the program is gone. In:
//! functions, files and lines of addresses. Out: payloads of frames of the kind
//! [`FRAME_SYMBOLS`](crate::layout::FRAME_SYMBOLS), and the same names from them.
//!
//! A tool that has found the names adds these frames when the program has ended; the recorder never
//! does. Each frame is decoded without the others. What is read is not trusted: two bounds limit
//! the memory, [`MAX_SYMBOLS_BYTES`] and [`MAX_SYMBOLS_LISTED`].

mod encode;

pub use encode::SymbolsEncoder;

use crate::frame::FrameHeader;
use crate::layout::{CODEC_RAW, CODEC_ZSTD, MAX_SYMBOLS_BYTES, MAX_SYMBOLS_LISTED};
use crate::varint;

/// The names of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    texts: String,
    /// Start and end of each text in `texts`.
    text_ranges: Vec<(u32, u32)>,
    functions: Vec<StoredFunction>,
    /// The functions of all addresses, one address after the other, by their index.
    lists: Vec<u32>,
    modules: Vec<ModuleSymbols>,
}

/// The names of a part of a module's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSymbols {
    /// Number of the module in the dump.
    pub id: u32,
    /// Addresses at which the kernel's signal return trampoline starts, as the file counts them.
    pub trampolines: Vec<u64>,
    /// Each address with the range of its functions in `lists`.
    addresses: Vec<(u64, u32, u32)>,
}

/// One function at an address: the function that contains the address, or a function that was
/// inlined there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FunctionSymbol<'a> {
    /// The readable name.
    pub function: &'a str,
    /// The types of an instance of a generic function, if `function` lacks them.
    pub generics: Option<&'a str>,
    /// The source file, if known.
    pub file: Option<&'a str>,
    /// The line, from 1, if known.
    pub line: Option<u32>,
    /// The column in bytes, from 1, if known.
    pub column: Option<u32>,
    /// Whether the function was inlined into the next function of the address.
    pub is_inlined: bool,
    /// Whether `function` is a name. If not, it is the module and the address.
    pub is_named: bool,
}

/// The payload of a frame, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedSymbols {
    pub(crate) payload: Vec<u8>,
    pub(crate) decoded_len: u32,
}

/// A function as it stands in a frame: texts by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StoredFunction {
    function: u32,
    generics: Option<u32>,
    file: Option<u32>,
    line: Option<u32>,
    column: Option<u32>,
    flags: u8,
}

/// Bit of the flags of a function: it was inlined.
const INLINED: u8 = 1;
/// Bit of the flags of a function: it has a name.
const NAMED: u8 = 2;

impl Symbols {
    /// Returns the modules, in the order in which they stand in the frame. A module may be in
    /// several frames.
    pub fn modules(&self) -> &[ModuleSymbols] {
        &self.modules
    }

    /// Returns the addresses of a module of this frame, ascending, each with its functions,
    /// innermost first. Addresses are as the file counts them, and those that were looked up: for a
    /// return address the address before it.
    pub fn addresses<'a>(
        &'a self,
        module: &'a ModuleSymbols,
    ) -> impl Iterator<Item = (u64, impl ExactSizeIterator<Item = FunctionSymbol<'a>>)> {
        module.addresses.iter().map(|&(address, start, end)| {
            let list = self.lists.get(start as usize..end as usize).unwrap_or_default();
            (address, list.iter().map(|&index| self.function(index)))
        })
    }

    fn function(&self, index: u32) -> FunctionSymbol<'_> {
        let Some(stored) = self.functions.get(index as usize) else { return FunctionSymbol::default() };
        FunctionSymbol {
            function: self.text(stored.function),
            generics: stored.generics.map(|text| self.text(text)),
            file: stored.file.map(|text| self.text(text)),
            line: stored.line,
            column: stored.column,
            is_inlined: stored.flags & INLINED != 0,
            is_named: stored.flags & NAMED != 0,
        }
    }

    fn text(&self, index: u32) -> &str {
        let range = self.text_ranges.get(index as usize);
        range.and_then(|&(start, end)| self.texts.get(start as usize..end as usize)).unwrap_or_default()
    }
}

/// Decodes the frames of one dump, within the bounds of a whole dump.
#[derive(Debug)]
pub(crate) struct SymbolsDecoder {
    bytes_left: usize,
    listed_left: usize,
    frames: Vec<Symbols>,
}

impl SymbolsDecoder {
    pub(crate) fn new() -> SymbolsDecoder {
        SymbolsDecoder { bytes_left: MAX_SYMBOLS_BYTES, listed_left: MAX_SYMBOLS_LISTED, frames: Vec::new() }
    }

    /// Decodes a frame. A frame that cannot be decoded, or goes beyond the bounds, is left out.
    pub(crate) fn add(&mut self, header: &FrameHeader, payload: &[u8]) {
        let decoded_len = header.decoded_len as usize;
        let Some(bytes_left) = self.bytes_left.checked_sub(decoded_len.max(payload.len())) else { return };
        self.bytes_left = bytes_left;
        let decompressed;
        let bytes = match header.codec {
            CODEC_RAW => payload,
            CODEC_ZSTD => match zstd::bulk::decompress(payload, decoded_len) {
                Ok(bytes) if bytes.len() == decoded_len => {
                    decompressed = bytes;
                    &decompressed
                }
                _ => return,
            },
            _ => return,
        };
        let reader = FieldReader { bytes, at: 0 };
        if let Some(symbols) = reader.symbols(&mut self.listed_left) {
            self.frames.push(symbols);
        }
    }

    pub(crate) fn into_frames(self) -> Vec<Symbols> {
        self.frames
    }
}

/// Reads the fields of a decoded payload. Every count in it is bounded by the bytes that follow.
struct FieldReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl FieldReader<'_> {
    /// Reads everything; `None` if a field is missing, or an index names nothing. `listed_left` is
    /// how many functions of addresses may still be listed.
    fn symbols(mut self, listed_left: &mut usize) -> Option<Symbols> {
        let mut symbols = Symbols::default();
        for _ in 0..self.number()? {
            let len = usize::try_from(self.number()?).ok()?;
            let end = self.at.checked_add(len)?;
            let text = String::from_utf8_lossy(self.bytes.get(self.at..end)?);
            self.at = end;
            let start = u32::try_from(symbols.texts.len()).ok()?;
            symbols.texts.push_str(&text);
            symbols.text_ranges.push((start, u32::try_from(symbols.texts.len()).ok()?));
        }
        let texts = symbols.text_ranges.len() as u64;
        for _ in 0..self.number()? {
            let function = StoredFunction {
                function: self.index(texts)?,
                generics: self.optional(texts)?,
                file: self.optional(texts)?,
                line: self.optional(u64::from(u32::MAX))?.map(|line| line + 1),
                column: self.optional(u64::from(u32::MAX))?.map(|column| column + 1),
                flags: self.number()? as u8,
            };
            symbols.functions.push(function);
        }
        for _ in 0..self.number()? {
            let module = self.module(&mut symbols, listed_left)?;
            symbols.modules.push(module);
        }
        Some(symbols)
    }

    fn module(&mut self, symbols: &mut Symbols, listed_left: &mut usize) -> Option<ModuleSymbols> {
        let functions = symbols.functions.len() as u64;
        let mut module = ModuleSymbols { id: self.index(1 << 32)?, ..ModuleSymbols::default() };
        let mut address = 0u64;
        for _ in 0..self.number()? {
            address = address.checked_add(self.number()?)?;
            module.trampolines.push(address);
        }
        address = 0;
        for _ in 0..self.number()? {
            address = address.checked_add(self.number()?)?;
            let start = symbols.lists.len() as u32;
            for _ in 0..self.number()? {
                *listed_left = listed_left.checked_sub(1)?;
                symbols.lists.push(self.index(functions)?);
            }
            module.addresses.push((address, start, symbols.lists.len() as u32));
        }
        Some(module)
    }

    fn number(&mut self) -> Option<u64> {
        varint::get(self.bytes, &mut self.at)
    }

    /// Reads a number below `bound`.
    fn index(&mut self, bound: u64) -> Option<u32> {
        let number = self.number().filter(|number| *number < bound)?;
        u32::try_from(number).ok()
    }

    /// Reads a number that is one more than a number below `bound`, or 0 for none.
    fn optional(&mut self, bound: u64) -> Option<Option<u32>> {
        let number = self.number()?;
        match number.checked_sub(1) {
            None => Some(None),
            Some(index) if index < bound => Some(u32::try_from(index).ok()),
            Some(_) => None,
        }
    }
}
