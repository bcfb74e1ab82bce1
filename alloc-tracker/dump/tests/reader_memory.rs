//! The reader's memory follows the bytes that arrive, not the lengths that headers claim. A
//! counting allocator measures it in a process of its own.

mod made;

use std::alloc::System;
use std::io::{self, Read};

use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{FRAME_RECORDS, MAX_PAYLOAD};
use alloc_dump::read::Reader;
use alloc_oracle::{Counting, snapshot};

use made::Dump;

#[global_allocator]
static ALLOC: Counting<System> = Counting::new(System);

/// All checks are in one test, because the peaks of tests that run side by side would add up.
#[test]
fn memory_is_bounded_by_the_bytes_that_arrive() {
    // A claim of 16 MiB with nothing behind it, alone and many times.
    for times in [1, 1000] {
        let mut dump = Dump::new();
        let mut claim = FrameHeader::raw(FRAME_RECORDS, 0, b"");
        (claim.len, claim.decoded_len) = (MAX_PAYLOAD as u32, MAX_PAYLOAD as u32);
        dump.bytes.extend(claim.encode().repeat(times));
        assert_bounded(&dump.bytes, 1 << 20);
    }

    // Two thousand frames need no more memory than a few.
    let mut dump = Dump::new();
    for _ in 0..2000 {
        dump = dump.with_frame(FRAME_RECORDS, 0, &[0x0D; 10_000]);
    }
    assert_bounded(&dump.bytes, 1 << 20);

    // The largest frame needs its own size, and the spare room of a growing vector.
    let largest = Dump::new().with_frame(FRAME_RECORDS, 0, &vec![0x0D; MAX_PAYLOAD]);
    assert_bounded(&largest.bytes, 3 * MAX_PAYLOAD as u64);

    #[cfg(feature = "compression")]
    columns();

    // A long input that is no dump is not read. A dump with a long run of damage is not kept.
    assert!(Reader::new(Endless).is_err());
    let header = Dump::new().bytes;
    assert_bounded_source(header.as_slice().chain(Endless.take(64 << 20)), 1 << 20);
}

/// A file of a few kilobytes holds as many records as a frame may have. The memory that a reader
/// needs for them is bounded.
#[cfg(feature = "compression")]
fn columns() {
    use alloc_dump::layout::{CODEC_COLUMNS, COLUMNS, MAX_COLUMNS_RECORDS};

    let most = MAX_COLUMNS_RECORDS;
    let number = |value: usize| vec![value as u8 | 0x80, (value >> 7) as u8 | 0x80, (value >> 14) as u8];
    let frame = |columns: &[(usize, Vec<u8>)]| {
        let column = |index: usize| columns.iter().find(|(at, _)| *at == index).map(|(_, bytes)| bytes);
        let mut bytes: Vec<u8> =
            (0..COLUMNS).flat_map(|index| number(column(index).map_or(0, Vec::len))).collect();
        (0..COLUMNS).filter_map(column).for_each(|column| bytes.extend_from_slice(column));
        let payload = zstd::bulk::compress(&bytes, 3).unwrap();
        assert!(payload.len() < 10_000);
        let raw = FrameHeader::raw(FRAME_RECORDS, 0, &payload);
        let header = FrameHeader { codec: CODEC_COLUMNS, decoded_len: bytes.len() as u32, ..raw };
        [&Dump::new().bytes[..], &header.encode(), &payload].concat()
    };
    // Blocks of new origins; nodes with new return addresses; records of threads.
    let blocks =
        frame(&[(0, vec![0x12; most]), (1, vec![0x04; most]), (3, vec![2; most]), (8, vec![1; most])]);
    let nodes = frame(&[(0, vec![0x29; most]), (14, vec![0; most]), (15, vec![2; most])]);
    let threads = frame(&[(0, vec![0x21; most]), (10, vec![9; most])]);
    for dump in [blocks, nodes, threads] {
        assert_eq!(made::read(dump.as_slice()).unwrap().damage, Default::default());
        assert_bounded(&dump, 100 << 20);
    }
    // Many claims of 16 MiB with nothing behind them cost 16 MiB once.
    let payload = zstd::bulk::compress(b"", 3).unwrap();
    let mut dump = Dump::new();
    for seq in 0..100 {
        let raw = FrameHeader::raw(FRAME_RECORDS, seq, &payload);
        let claim = FrameHeader { codec: CODEC_COLUMNS, decoded_len: MAX_PAYLOAD as u32, ..raw };
        dump.bytes.extend([&claim.encode()[..], &payload].concat());
    }
    assert_bounded(&dump.bytes, 2 * MAX_PAYLOAD as u64);
}

fn assert_bounded(bytes: &[u8], bound: u64) {
    assert_bounded_source(bytes, bound);
}

fn assert_bounded_source(source: impl Read, bound: u64) {
    let before = snapshot();
    let mut reader = Reader::new(source).unwrap();
    let mut most = 0;
    loop {
        let more = reader.next_frame().unwrap().map(Iterator::count);
        most = most.max(snapshot().live_bytes.saturating_sub(before.live_bytes));
        if more.is_none() {
            break;
        }
    }
    assert!(most <= bound, "{most} bytes held");
    // This is the peak of the whole process. The check is tight if no larger case ran before;
    // otherwise it is lenient.
    let peak = snapshot().peak_bytes.saturating_sub(before.peak_bytes);
    assert!(peak <= bound, "peak grew by {peak} bytes");
}

/// An input that never ends.
struct Endless;

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        into.fill(0xF7);
        Ok(into.len())
    }
}
