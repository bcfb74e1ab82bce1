//! A dump of every released version stays in tests/golden and keeps loading.
//!
//! For a new minor version add a file and a writer below; never change an old file. With
//! `ALLOC_DUMP_MAKE_GOLDEN` set, the test writes a missing file. It never touches a file that
//! exists, because a released version wrote that.

mod made;

use std::fs;
use std::path::PathBuf;

use alloc_dump::header::Header;
use alloc_dump::layout::{CODEC_RAW, FRAME_HEADER_LEN, FRAME_SYMBOLS, StackId};
use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use alloc_dump::sidecar::{
    self, COMMIT_OFFSETS, COMMITS_OFFSET, IDENTITY_LEN, PAYLOAD_OFFSET, PID_OFFSET, Sidecar,
};

use made::{
    Dump, SESSION, one_of_each, one_of_each_1_0, one_of_each_1_4, one_of_each_1_5, one_of_each_up_to_1_2,
    one_of_each_up_to_1_3, one_of_each_up_to_snapshots, payload, read, texts, trailer,
};

#[test]
fn version_1_0_loads() {
    let bytes = golden("v1.0.alloc", Vec::new);
    let reader = Reader::new(bytes.as_slice()).unwrap();
    let header = Header { session: SESSION, created_unix_ns: 1_700_000_000_000_000_000 };
    assert_eq!(*reader.header(), header);

    let outcome = read(bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_1_0()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

#[test]
fn version_1_1_loads() {
    let outcome = read(golden("v1.1.alloc", Vec::new).as_slice()).unwrap();
    let mut records = one_of_each_1_0();
    set_debug_assertions(&mut records);
    assert_eq!(outcome.records, texts(&records));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

#[test]
fn version_1_2_loads() {
    let outcome = read(golden("v1.2.alloc", Vec::new).as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_1_2()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// This version brought frames of symbols, which readers of the versions before skip.
#[test]
fn version_1_3_loads() {
    let bytes = golden("v1.3.alloc", Vec::new);
    let outcome = read(bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_1_2()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
    #[cfg(feature = "compression")]
    {
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        reader.keep_symbols();
        while reader.next_frame().unwrap().is_some() {}
        let frames = reader.take_symbols();
        let [frame] = frames.as_slice() else { panic!("one frame of symbols, not {}", frames.len()) };
        let [module] = frame.modules() else { panic!("one module") };
        assert_eq!((module.id, &module.trampolines[..]), (1, &[0x500][..]));
        let names: Vec<String> = frame
            .addresses(module)
            .map(|(address, functions)| format!("{address:#x} {:?}", functions.collect::<Vec<_>>()))
            .collect();
        let inner = "FunctionSymbol { function: \"push\", generics: Some(\"<u8>\"), file: Some(\"/vec.rs\"), \
            line: Some(300), column: None, is_inlined: true, is_named: true }";
        let outer = "FunctionSymbol { function: \"demo::main\", generics: None, file: Some(\"src/main.rs\"), \
            line: Some(7), column: Some(5), is_inlined: false, is_named: true }";
        assert_eq!(names, [format!("0x233 [{inner}, {outer}]"), format!("0x1233 [{outer}]")]);
    }
}

/// This version brought labels and limits.
#[test]
fn records_of_version_1_3_load() {
    let outcome = read(golden("v1.3.records.alloc", Vec::new).as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_up_to_1_3()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// This version brought snapshots.
#[test]
fn version_1_4_loads() {
    let outcome = read(golden("v1.4.alloc", Vec::new).as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_up_to_snapshots()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// Version 1.4 with the records of limits of memory.
#[test]
fn memory_limits_of_version_1_4_load() {
    let outcome = read(golden("v1.4.limits.alloc", Vec::new).as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_1_4()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// This version brought the time at which the copy for a snapshot was begun.
#[test]
fn version_1_5_loads() {
    let outcome = read(golden("v1.5.alloc", Vec::new).as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each_1_5()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// This version brought the address space, failed allocations, alignments, and memory that is in
/// use.
#[test]
fn version_1_6_loads() {
    let outcome = read(golden("v1.6.alloc", version_1_6).as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&one_of_each()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// The bytes are not compared with the output of this compressor, because each version of Zstandard
/// makes other bytes.
#[test]
#[cfg(feature = "compression")]
fn a_compressed_dump_of_version_1_0_loads() {
    let bytes = golden("v1.0.compressed.alloc", Vec::new);
    let outcome = read(bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&again_and_again()));
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
}

/// Readers without the feature count the frame that they cannot use.
#[test]
#[cfg(not(feature = "compression"))]
fn a_compressed_dump_counts_as_malformed_without_the_feature() {
    use alloc_dump::read::Damage;

    let bytes = golden("v1.0.compressed.alloc", Vec::new);
    let outcome = read(bytes.as_slice()).unwrap();
    assert_eq!((outcome.records.len(), outcome.trailer), (0, Some(trailer())));
    assert_eq!(outcome.damage, Damage { malformed_frames: 1, ..Damage::default() });
}

#[test]
fn the_sidecar_of_version_1_0_loads() {
    assert_loads_late(&golden("v1.0.alloc.tail", Vec::new));
}

/// The first sidecars with rings of more than 4096 entries, which state their size.
#[test]
fn the_sidecar_of_version_1_1_loads() {
    assert_loads_late(&golden("v1.1.alloc.tail", sidecar_1_1));
}

fn assert_loads_late(bytes: &[u8]) {
    let records = payload(&late());
    let sidecar = Sidecar::parse(bytes, &SESSION).unwrap();
    assert_eq!(
        (sidecar.seq(), sidecar.stopped_errno, sidecar.pid, sidecar.payload()),
        (7, None, 4242, &records[..])
    );
}

/// A writer need not make the same bytes for ever. But as long as the version is the same, it does.
#[test]
fn this_writer_still_makes_version_1_6() {
    assert_eq!(golden("v1.6.alloc", version_1_6), version_1_6());
    assert_eq!(golden("v1.1.alloc.tail", sidecar_1_1), sidecar_1_1());
}

/// The symbols are stored as they are, so that the bytes do not depend on the version of Zstandard.
fn version_1_6() -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    let texts = ["push", "<u8>", "/vec.rs", "demo::main", "src/main.rs"].map(text).concat();
    let symbols = [
        &[5][..],
        &texts,
        // Two functions: name, types, file, line, column, flags.
        &[2],
        &[0, 2, 3, 0xAC, 0x02, 0, 3],
        &[3, 0, 5, 7, 5, 2],
        // One module with the number 1, one trampoline, two addresses with two functions and one.
        &[1, 1, 1, 0x80, 0x0A, 2],
        &[0xB3, 0x04, 2, 0, 1],
        &[0x80, 0x20, 1, 1],
    ]
    .concat();
    let records = Dump::of(&one_of_each(), FRAME_HEADER_LEN + 128);
    records.with_frame(FRAME_SYMBOLS, CODEC_RAW, &symbols).with_trailer(&trailer()).bytes
}

fn one_of_each_1_2() -> Vec<Record<'static>> {
    let mut records = one_of_each_up_to_1_2();
    set_debug_assertions(&mut records);
    records
}

/// Sets the flag that version 1.1 brought.
fn set_debug_assertions(records: &mut [Record<'_>]) {
    for record in records {
        if let Record::Process(process) = record {
            process.debug_assertions = true;
        }
    }
}

/// Repeats the records, because the compressor predicts only what it has seen before. Time never
/// goes back.
#[cfg(feature = "compression")]
fn again_and_again() -> Vec<Record<'static>> {
    let mut again = one_of_each_1_0();
    again.retain(|record| !matches!(record, Record::Time { .. }));
    [one_of_each_1_0(), again.repeat(30)].concat()
}

fn sidecar_1_1() -> Vec<u8> {
    let records = payload(&late());
    let mut bytes = vec![0; PAYLOAD_OFFSET];
    bytes[..IDENTITY_LEN].copy_from_slice(&sidecar::encode_identity(&SESSION));
    let commit = COMMIT_OFFSETS[1];
    let words = [(commit, records.len() as u64), (commit + 8, 7), (COMMITS_OFFSET, 1), (PID_OFFSET, 4242)];
    for (offset, word) in words {
        bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
    }
    bytes.extend(records);
    bytes
}

fn late() -> [Record<'static>; 3] {
    [
        Record::Thread { id: 1 },
        Record::Time { us: 2000 },
        Record::Dealloc { addr: 0xA000, size: None, stack: StackId(4) },
    ]
}

fn golden(name: &str, make: fn() -> Vec<u8>) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
    if !path.exists() && std::env::var_os("ALLOC_DUMP_MAKE_GOLDEN").is_some() {
        fs::write(&path, make()).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
