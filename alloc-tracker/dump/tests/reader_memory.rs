//! The reader's memory follows the bytes that come, not what a header claims: counted, in a process of its own.

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

/// One test in all: peaks of tests that run side by side would add up.
#[test]
fn memory_follows_the_bytes_that_come() {
    // A claim of 16 MiB with nothing behind it, alone and many times.
    for times in [1, 1000] {
        let mut dump = Dump::new();
        let mut claim = FrameHeader::raw(FRAME_RECORDS, 0, b"");
        (claim.len, claim.decoded_len) = (MAX_PAYLOAD as u32, MAX_PAYLOAD as u32);
        dump.bytes.extend(claim.encode().repeat(times));
        assert_bounded(&dump.bytes, 1 << 20);
    }

    // Two thousand frames need no more than a few.
    let mut dump = Dump::new();
    for _ in 0..2000 {
        dump = dump.with_frame(FRAME_RECORDS, 0, &[0x0D; 10_000]);
    }
    assert_bounded(&dump.bytes, 1 << 20);

    // The largest frame needs its own size, and what a growing vector has to spare.
    let largest = Dump::new().with_frame(FRAME_RECORDS, 0, &vec![0x0D; MAX_PAYLOAD]);
    assert_bounded(&largest.bytes, 3 * MAX_PAYLOAD as u64);

    // A long input that is no dump is not read, and one that is damaged from here on is not kept.
    assert!(Reader::new(Endless).is_err());
    let header = Dump::new().bytes;
    assert_bounded_source(header.as_slice().chain(Endless.take(64 << 20)), 1 << 20);
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
    // The peak is the one of the whole process: tight where no larger case ran before, never too small.
    let peak = snapshot().peak_bytes.saturating_sub(before.peak_bytes);
    assert!(peak <= bound, "peak grew by {peak} bytes");
}

/// Bytes without end.
struct Endless;

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        into.fill(0xF7);
        Ok(into.len())
    }
}
