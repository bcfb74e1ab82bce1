//! A compressed dump has the records of the original, and a damaged one does no harm.
#![cfg(feature = "compression")]

#[path = "../fuzz/harness.rs"]
#[allow(dead_code)]
mod harness;
mod made;

use alloc_dump::compress::{CompressError, Compressed, Fingerprint, LEVEL, compress};
use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{
    CODEC_COLUMNS, CODEC_RAW, COLUMNS, FRAME_HEADER_LEN, FRAME_RECORDS, HEADER_LEN, MAX_PAYLOAD, StackId,
};
use alloc_dump::read::{Damage, Reader};
use alloc_dump::record::Record;
use proptest::collection::vec;
use proptest::prelude::*;

use made::drafts::{Draft, draft, repetitive_draft};
use made::{Dump, Random, one_of_each, payload, read, texts, trailer};

#[test]
fn a_record_of_each_kind_comes_back_equal() {
    for buffer_len in [FRAME_HEADER_LEN + 96, FRAME_HEADER_LEN + 200, 1 << 16] {
        let dump = Dump::of(&one_of_each(), buffer_len).with_trailer(&trailer());
        let (done, bytes) = compressed(&dump.bytes);
        assert_eq!(done.frames, dump.frames.len() as u64 - 1);
        assert_eq!((done.bytes, done.fingerprint.records), (bytes.len() as u64, one_of_each().len() as u64));
        let outcome = read(bytes.as_slice()).unwrap();
        assert_eq!(outcome.records, texts(&one_of_each()));
        assert_eq!(outcome.trailer, Some(trailer()));
        assert!(outcome.complete);
        // One frame of records, however many there were before, and the trailer.
        assert_eq!(outcome.next_seq, 2);
    }
}

#[test]
fn repeated_behaviour_takes_less_than_a_tenth_of_a_byte_per_event() {
    let (records, events) = program(2000);
    let dump = Dump::of(&records, 256 << 10).with_trailer(&trailer());
    let (_, bytes) = compressed(&dump.bytes);
    assert!(bytes.len() * 10 < events, "{} bytes for {events} events", bytes.len());
    assert_eq!(read(bytes.as_slice()).unwrap().records, texts(&records));
}

#[test]
fn many_frames_become_few_and_none_is_too_large() {
    let alloc = |index: u64| Record::Alloc {
        addr: index.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        size: index,
        stack: StackId((index % 1000) as u32 + 3),
        zeroed: false,
    };
    let records: Vec<Record<'_>> = (0..1_200_000).map(alloc).collect();
    let dump = Dump::of(&records, 256 << 10).with_trailer(&trailer());
    let (done, bytes) = compressed(&dump.bytes);
    let sequence: Vec<u32> = headers(&bytes).iter().map(|header| header.seq).collect();
    assert_eq!(sequence, (0..sequence.len() as u32).collect::<Vec<_>>());
    assert!(sequence.len() < 6 && done.frames > 50, "{sequence:?}");
    assert!(headers(&bytes).iter().all(|header| header.decoded_len as usize <= MAX_PAYLOAD));
    assert_eq!(Fingerprint::of(dump.bytes.as_slice()).unwrap(), Some(done.fingerprint));
}

#[test]
fn compressing_twice_changes_nothing() {
    let (_, once) = compressed(&Dump::small().bytes);
    let (done, twice) = compressed(&once);
    assert_eq!((done.frames, &twice), (0, &once));
}

#[test]
fn frames_that_cannot_be_compressed_are_copied() {
    let records = [Record::Time { us: 5 }, Record::Thread { id: 7 }];
    let too_large = vec![0x0D; (1 << 20) + 1];
    let dump = Dump::new()
        .with_frame(FRAME_RECORDS, CODEC_RAW, &payload(&records))
        .with_frame(77, 9, b"anything")
        .with_frame(FRAME_RECORDS, CODEC_RAW, b"")
        .with_frame(FRAME_RECORDS, CODEC_RAW, &too_large)
        .with_frame(FRAME_RECORDS, CODEC_RAW, &payload(&records))
        .with_trailer(&trailer());
    let (done, bytes) = compressed(&dump.bytes);
    let codecs: Vec<(u8, u8)> = headers(&bytes).iter().map(|header| (header.kind, header.codec)).collect();
    assert_eq!(codecs, [(1, 1), (77, 9), (1, 0), (1, 1), (2, 0)]);
    assert_eq!(done.fingerprint.records, 4 + too_large.len() as u64);
}

#[test]
fn an_incomplete_or_newer_dump_is_refused() {
    let dump = Dump::small();
    let error = |bytes: &[u8]| compress(bytes, Vec::new(), LEVEL).unwrap_err();
    let last = dump.frames[dump.frames.len() - 1];
    let mut changed = dump.bytes.clone();
    changed[dump.frames[1] + FRAME_HEADER_LEN] ^= 1;
    let mut without = dump.bytes.clone();
    without.drain(dump.frames[1]..dump.frames[2]);
    let malformed = Dump::new().with_frame(FRAME_RECORDS, CODEC_RAW, &[0x3F]).with_trailer(&trailer());
    for bytes in [&dump.bytes[..last], &changed, &without, &malformed.bytes] {
        assert!(matches!(error(bytes), CompressError::Incomplete), "{:?}", error(bytes));
    }
    assert!(matches!(error(b"something else"), CompressError::Read(_)));
    let mut newer = dump.bytes.clone();
    newer[10] += 1;
    let crc = crc32fast::hash(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(error(&newer), CompressError::NewerVersion));
}

#[test]
fn a_damaged_frame_costs_only_itself() {
    let (records, _) = program(300);
    let whole = Dump::of(&records, 1 << 20);
    let (_, one) = compressed(&whole.clone().with_trailer(&trailer()).bytes);
    let frame = headers(&one)[0];
    let payload = &one[HEADER_LEN + FRAME_HEADER_LEN..][..frame.len as usize];
    let mut dump = Dump::new();
    for seq in 0..3 {
        dump.append(&[&FrameHeader { seq, ..frame }.encode(), payload].concat(), records.len());
    }
    let dump = dump.with_trailer(&trailer());
    assert!(read(dump.bytes.as_slice()).unwrap().complete);
    for at in (dump.frames[1]..dump.frames[2]).step_by(7) {
        let mut bytes = dump.bytes.clone();
        bytes[at] ^= 0x55;
        let outcome = read(bytes.as_slice()).unwrap();
        assert_eq!(outcome.records.len(), 2 * records.len());
        let lost = u64::from(frame.len) + FRAME_HEADER_LEN as u64;
        let damage =
            Damage { dropped_frames: 1, dropped_bytes: lost, missing_frames: 1, malformed_frames: 0 };
        assert_eq!(outcome.damage, damage);
    }
}

#[test]
fn false_claims_of_a_frame_are_counted() {
    let (_, bytes) = compressed(&Dump::of(&one_of_each(), 4096).with_trailer(&trailer()).bytes);
    let frame = headers(&bytes)[0];
    let payload = &bytes[HEADER_LEN + FRAME_HEADER_LEN..][..frame.len as usize];
    let malformed = Damage { malformed_frames: 1, ..Damage::default() };
    for decoded_len in [0, 1, frame.decoded_len - 1, frame.decoded_len + 1, MAX_PAYLOAD as u32] {
        let header = FrameHeader { decoded_len, ..frame }.encode();
        let dump = [&bytes[..HEADER_LEN], &header, payload].concat();
        let outcome = read(dump.as_slice()).unwrap();
        assert_eq!((outcome.records.len(), outcome.damage), (0, malformed), "{decoded_len}");
    }
    // As many records as a frame may hold, and one more. Each is a realloc that failed.
    for (records, damage) in [(1 << 20, Damage::default()), ((1 << 20) + 1, malformed)] {
        let mut columns = vec![0x80 | (records & 0x7F) as u8, 0x80 | (records >> 7 & 0x7F) as u8];
        columns.push((records >> 14) as u8);
        columns.extend([0; COLUMNS - 1]);
        columns.extend(vec![0x23; records]);
        let outcome = read(harness::one_columns_frame(&columns).as_slice()).unwrap();
        assert_eq!(outcome.damage, damage);
        assert_eq!(outcome.records.len(), if damage == malformed { 0 } else { records });
    }
}

#[test]
fn truncated_and_changed_columns_break_nothing() {
    let columns = columns_of(&one_of_each());
    harness::columns(&columns);
    for at in 0..columns.len() {
        harness::columns(&columns[..at]);
        for mask in [0x01, 0x04, 0x80, 0x55, 0xFF] {
            let mut changed = columns.clone();
            changed[at] ^= mask;
            harness::columns(&changed);
        }
    }
}

#[test]
fn mutated_columns_break_nothing() {
    let seeds = [columns_of(&one_of_each()), columns_of(&program(20).0)];
    let mut random = Random(7);
    for round in 0..10_000 {
        let mut columns = seeds[round % 2].clone();
        for _ in 0..=random.below(6) {
            // Behind the lengths of the columns.
            let at = COLUMNS + random.below(columns.len() - COLUMNS);
            columns[at] = match random.below(3) {
                0 => columns[at] ^ 1 << random.below(8),
                1 => random.next() as u8,
                _ => [0, 1, 2, 0x1F, 0x20, 0x21, 0x22, 0x23, 0x28, 0x40, 0x7F, 0xFF][random.below(12)],
            };
        }
        harness::columns(&columns);
    }
    for _ in 0..10_000 {
        let len = random.below(150);
        let bytes: Vec<u8> = (0..len).map(|_| (random.next() >> (56 + random.next() % 8)) as u8).collect();
        harness::columns(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_records_come_back_equal(drafts in vec(draft(), 0..80), frame in 0usize..3) {
        assert_comes_back_equal(&drafts, [1 << 20, 400 << 10, 300 << 10][frame]);
    }

    #[test]
    fn repetitive_records_come_back_equal(drafts in vec(repetitive_draft(), 0..600), frame in 0usize..3) {
        assert_comes_back_equal(&drafts, [1 << 20, 1000, 200][frame]);
    }
}

fn assert_comes_back_equal(drafts: &[Draft], buffer_len: usize) {
    let mut us = 0;
    let records: Vec<Record<'_>> = drafts.iter().map(|draft| draft.record(&mut us)).collect();
    let dump = Dump::of(&records, buffer_len).with_trailer(&trailer());
    let (done, bytes) = compressed(&dump.bytes);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    let mut expected = records.iter();
    while let Some(frame) = reader.next_frame().unwrap() {
        for record in frame {
            assert_eq!(Some(&record), expected.next());
        }
    }
    assert_eq!(expected.next(), None);
    assert_eq!(reader.trailer(), Some(&trailer()));
    assert!(reader.complete());
    assert_eq!(done.fingerprint.records, records.len() as u64);
    for dump in [&dump.bytes, &bytes] {
        assert_eq!(Fingerprint::of(dump.as_slice()).unwrap(), Some(done.fingerprint));
    }
}

/// Compresses a dump.
fn compressed(dump: &[u8]) -> (Compressed, Vec<u8>) {
    let mut bytes = Vec::new();
    let done = compress(dump, &mut bytes, LEVEL).unwrap();
    (done, bytes)
}

/// Returns the columns of a frame with these records, as they are before Zstandard.
fn columns_of(records: &[Record<'_>]) -> Vec<u8> {
    let (_, bytes) = compressed(&Dump::of(records, 1 << 20).with_trailer(&trailer()).bytes);
    let frame = headers(&bytes)[0];
    assert_eq!(frame.codec, CODEC_COLUMNS);
    let payload = &bytes[HEADER_LEN + FRAME_HEADER_LEN..][..frame.len as usize];
    zstd::bulk::decompress(payload, frame.decoded_len as usize).unwrap()
}

/// Returns the headers of all frames.
fn headers(dump: &[u8]) -> Vec<FrameHeader> {
    let mut at = HEADER_LEN;
    let mut headers = Vec::new();
    while let Some(header) = FrameHeader::decode(&dump[at..]) {
        at += FRAME_HEADER_LEN + header.len as usize;
        headers.push(header);
    }
    assert_eq!(at, dump.len());
    headers
}

/// Returns the records of a program that repeats the same actions, and how many of them are events.
fn program(rounds: u64) -> (Vec<Record<'static>>, usize) {
    let mut records = vec![Record::Thread { id: 1 }];
    let first = StackId::FIRST.0;
    let node = |index: u32| Record::Node {
        id: StackId(first + index),
        parent: StackId(if index == 0 { 0 } else { first + index - 1 }),
        pc: 0x5555_0000_1000 + u64::from(index) * 16,
    };
    records.extend((0..4).map(node));
    let stack = |index: u32| StackId(first + index);
    for round in 0..rounds {
        let kept = 0x7000_0000 + round * 64;
        records.extend([
            Record::Time { us: round * 3 },
            Record::Alloc { addr: kept, size: 50, stack: stack(0), zeroed: false },
            Record::Alloc { addr: 0x1000, size: 24, stack: stack(1), zeroed: false },
            Record::Alloc { addr: 0x2000, size: 100, stack: stack(1), zeroed: true },
            Record::Realloc { old: 0x2000, old_size: None, new: 0x3000, size: 200, stack: stack(2) },
            Record::Dealloc { addr: 0x3000, size: None, stack: stack(3) },
            Record::Dealloc { addr: 0x1000, size: None, stack: stack(3) },
        ]);
    }
    (records, 6 * rounds as usize)
}
