//! Names that are kept in a dump come back equal, whatever else the dump has. Damage and lies cost
//! names, and nothing else.
#![cfg(feature = "compression")]

#[path = "../fuzz/harness.rs"]
#[allow(dead_code)]
mod harness;
mod made;

use alloc_dump::compress::{Fingerprint, LEVEL, compress, compress_with_symbols};
use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{
    CODEC_ZSTD, FRAME_HEADER_LEN, FRAME_SYMBOLS, FRAME_TRAILER, HEADER_LEN, MAX_PAYLOAD, MAX_SYMBOLS_BYTES,
};
use alloc_dump::read::Reader;
use alloc_dump::symbols::{EncodedSymbols, FunctionSymbol, SymbolsEncoder};

use made::{Dump, Random, read};

/// The names of an address, as text: module, address, functions.
type Names = Vec<(u32, u64, Vec<String>)>;

fn names_in(dump: &[u8]) -> Names {
    let mut reader = Reader::new(dump).unwrap();
    reader.keep_symbols();
    while reader.next_frame().unwrap().is_some() {}
    let mut names = Names::new();
    for frame in reader.take_symbols() {
        for module in frame.modules() {
            for (address, functions) in frame.addresses(module) {
                let functions = functions.map(|function| format!("{function:?}")).collect();
                names.push((module.id, address, functions));
            }
        }
    }
    names
}

fn main_function() -> FunctionSymbol<'static> {
    FunctionSymbol {
        function: "app::main",
        file: Some("src/main.rs"),
        line: Some(7),
        column: Some(5),
        is_named: true,
        ..FunctionSymbol::default()
    }
}

fn pushed() -> FunctionSymbol<'static> {
    FunctionSymbol {
        function: "push",
        generics: Some("<u8>"),
        file: Some("/rustc/1/vec.rs"),
        line: Some(u32::MAX),
        is_inlined: true,
        is_named: true,
        ..FunctionSymbol::default()
    }
}

fn nameless() -> FunctionSymbol<'static> {
    FunctionSymbol { function: "libx.so+0x9", ..FunctionSymbol::default() }
}

fn encoded() -> Vec<EncodedSymbols> {
    let mut encoder = SymbolsEncoder::new(LEVEL);
    encoder.begin_module(1, &[0x20, 0x90]);
    encoder.push(0x10, [pushed(), main_function()]);
    encoder.push(u64::MAX, [main_function()]);
    encoder.begin_module(2, &[7]);
    encoder.begin_module(u32::MAX, &[]);
    encoder.push(0, [nameless()]);
    encoder.finish().unwrap()
}

fn expected() -> Names {
    let texts = |functions: &[FunctionSymbol<'_>]| functions.iter().map(|f| format!("{f:?}")).collect();
    vec![
        (1, 0x10, texts(&[pushed(), main_function()])),
        (1, u64::MAX, texts(&[main_function()])),
        (u32::MAX, 0, texts(&[nameless()])),
    ]
}

fn with_symbols(dump: &[u8], symbols: &[EncodedSymbols]) -> Vec<u8> {
    let mut out = Vec::new();
    compress_with_symbols(dump, &mut out, LEVEL, Some(symbols)).unwrap();
    out
}

fn kinds(dump: &[u8]) -> Vec<u8> {
    let (mut at, mut kinds) = (HEADER_LEN, Vec::new());
    while let Some(header) = dump.get(at..).and_then(FrameHeader::decode) {
        kinds.push(header.kind);
        at += FRAME_HEADER_LEN + header.len as usize;
    }
    kinds
}

#[test]
fn names_come_back_and_the_records_stay() {
    let plain = Dump::small().bytes;
    let dump = with_symbols(&plain, &encoded());
    assert_eq!(names_in(&dump), expected());
    assert_eq!(kinds(&dump).split_last_chunk(), Some((&[1][..], &[FRAME_SYMBOLS, FRAME_TRAILER])));
    let (before, after) = (read(plain.as_slice()).unwrap(), read(dump.as_slice()).unwrap());
    assert_eq!((after.records, after.trailer, after.complete), (before.records, before.trailer, true));
    // A module without addresses is not kept, and so not its trampolines.
    let mut reader = Reader::new(dump.as_slice()).unwrap();
    reader.keep_symbols();
    while reader.next_frame().unwrap().is_some() {}
    let frames = reader.take_symbols();
    let modules: Vec<_> =
        frames[0].modules().iter().map(|module| (module.id, module.trampolines.clone())).collect();
    assert_eq!(modules, [(1, vec![0x20, 0x90]), (u32::MAX, vec![])]);
}

#[test]
fn other_names_replace_those_of_before_and_compressing_keeps_them() {
    let dump = with_symbols(&Dump::small().bytes, &encoded());
    let mut again = Vec::new();
    let done = compress(dump.as_slice(), &mut again, LEVEL).unwrap();
    assert_eq!((done.frames, &again), (0, &dump));
    let mut encoder = SymbolsEncoder::new(LEVEL);
    encoder.begin_module(3, &[]);
    encoder.push(5, [main_function()]);
    let other = with_symbols(&dump, &encoder.finish().unwrap());
    assert_eq!(names_in(&other), [(3, 5, vec![format!("{:?}", main_function())])]);
    assert_eq!(kinds(&with_symbols(&dump, &[])), [1, FRAME_TRAILER]);
    assert_eq!(Fingerprint::of(other.as_slice()).unwrap(), Fingerprint::of(dump.as_slice()).unwrap());
}

#[test]
fn many_names_take_several_frames_and_come_back_in_order() {
    // A text of 1000 bytes for each of 10,000 functions, of which no frame holds more than a few
    // megabytes.
    let name = |number: u64| format!("app::f{number}::{}", "x".repeat(1000));
    let mut encoder = SymbolsEncoder::new(LEVEL);
    encoder.begin_module(4, &[1]);
    for number in 0..10_000 {
        encoder.push(number * 3, [FunctionSymbol { function: &name(number), ..FunctionSymbol::default() }]);
    }
    let frames = encoder.finish().unwrap();
    assert!((4..20).contains(&frames.len()), "{}", frames.len());
    let names = names_in(&with_symbols(&Dump::small().bytes, &frames));
    assert_eq!(names.len(), 10_000);
    for (number, (module, address, functions)) in (0..).zip(&names) {
        assert_eq!((*module, *address), (4, number * 3));
        assert!(functions[0].contains(&name(number)));
    }
}

#[test]
fn damage_costs_names_and_nothing_else() {
    let dump = with_symbols(&Dump::small().bytes, &encoded());
    let symbols_at = |bytes: &[u8]| {
        let mut at = HEADER_LEN;
        loop {
            let header = FrameHeader::decode(&bytes[at..]).unwrap();
            if header.kind == FRAME_SYMBOLS {
                return (at, header);
            }
            at += FRAME_HEADER_LEN + header.len as usize;
        }
    };
    let (at, header) = symbols_at(&dump);
    let records = read(dump.as_slice()).unwrap().records;
    let payload = at + FRAME_HEADER_LEN..at + FRAME_HEADER_LEN + header.len as usize;
    for index in payload.clone() {
        let mut bytes = dump.clone();
        bytes[index] ^= 0x41;
        // The frame claims to be whole.
        let crc = crc32fast_of(&bytes[payload.clone()]);
        bytes[at..at + FRAME_HEADER_LEN].copy_from_slice(&FrameHeader { crc, ..header }.encode());
        let outcome = read(bytes.as_slice()).unwrap();
        assert_eq!((&outcome.records, outcome.complete), (&records, true));
        names_in(&bytes);
    }
}

/// Returns the CRC-32 of a payload, which the header of any frame has.
fn crc32fast_of(payload: &[u8]) -> u32 {
    FrameHeader::raw(FRAME_SYMBOLS, 0, payload).crc
}

#[test]
fn mutated_symbols_break_nothing() {
    let EncodedFrame(seed) = EncodedFrame::of(&with_symbols(&Dump::small().bytes, &encoded()));
    let mut random = Random(5);
    harness::symbols(&seed);
    for _ in 0..20_000 {
        let mut bytes = seed.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = 0xFF,
                2 => bytes[at] = random.next() as u8,
                _ => bytes.insert(at, random.next() as u8),
            }
        }
        harness::symbols(&bytes);
    }
}

/// The decoded bytes of the frame of symbols of a dump.
struct EncodedFrame(Vec<u8>);

impl EncodedFrame {
    fn of(dump: &[u8]) -> EncodedFrame {
        let mut at = HEADER_LEN;
        loop {
            let header = FrameHeader::decode(&dump[at..]).unwrap();
            let payload = &dump[at + FRAME_HEADER_LEN..][..header.len as usize];
            if header.kind == FRAME_SYMBOLS {
                return EncodedFrame(zstd::bulk::decompress(payload, header.decoded_len as usize).unwrap());
            }
            at += FRAME_HEADER_LEN + header.len as usize;
        }
    }
}

/// A dump of a few kilobytes may claim any number of names.
#[test]
fn what_a_small_dump_may_claim_is_bounded() {
    let varint = |mut number: u64| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let frame = |bytes: &[u8]| {
        let payload = zstd::bulk::compress(bytes, 3).unwrap();
        let raw = FrameHeader::raw(FRAME_SYMBOLS, 0, &payload);
        (FrameHeader { codec: CODEC_ZSTD, decoded_len: bytes.len() as u32, ..raw }, payload)
    };
    // One text, one function, and one address that lists it as often as a frame has room for.
    let listed = (MAX_PAYLOAD - 100) as u64;
    let head = [&[1, 1, b'f', 1, 0, 0, 0, 0, 0, 0, 1, 9, 0, 1, 5][..], &varint(listed)].concat();
    let lists = [head, vec![0; listed as usize]].concat();
    let mut dump = Dump::new();
    for seq in 0..20 {
        let (header, payload) = frame(&lists);
        assert!(payload.len() < 10_000);
        dump.bytes.extend([&FrameHeader { seq, ..header }.encode()[..], &payload].concat());
    }
    let mut reader = Reader::new(dump.bytes.as_slice()).unwrap();
    reader.keep_symbols();
    while reader.next_frame().unwrap().is_some() {}
    let frames = reader.take_symbols();
    let listed: usize = frames
        .iter()
        .flat_map(|frame| frame.modules().iter().flat_map(|module| frame.addresses(module)))
        .map(|(_, functions)| functions.len())
        .sum();
    assert!(listed <= 1 << 24 && frames.len() * lists.len() <= MAX_SYMBOLS_BYTES, "{listed}");
}
