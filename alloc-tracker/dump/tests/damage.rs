//! Damage costs the frames that it hits, is counted, and is never taken for a whole recording.

mod made;

use std::ops::Range;
use std::time::{Duration, Instant};

use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{FRAME_HEADER_LEN, FRAME_RECORDS, HEADER_LEN, MAX_PAYLOAD};
use alloc_dump::read::{Damage, ReadError};
use alloc_dump::record::Record;
use alloc_dump::trailer::{EndReason, Trailer};

use made::{Dump, one_of_each, payload, read, texts, trailer};

#[test]
fn a_dump_cut_short_anywhere_keeps_every_whole_frame() {
    let dump = Dump::small();
    let bounds = dump.bounds();
    let all = texts(&one_of_each());
    for len in 0..dump.bytes.len() {
        let result = read(&dump.bytes[..len]);
        if len < HEADER_LEN {
            match result {
                Err(ReadError::Empty) => assert_eq!(len, 0),
                Err(ReadError::DamagedHeader) => assert_ne!(len, 0),
                other => panic!("{len} bytes: {other:?}"),
            }
            continue;
        }
        let outcome = result.unwrap();
        let whole = bounds[1..].iter().filter(|end| **end <= len).count();
        let end = bounds[whole];
        let records = whole.checked_sub(1).map_or(0, |last| dump.records[last]);
        assert_eq!(outcome.records, all[..records], "{len} bytes");
        assert!(!outcome.complete, "{len} bytes");
        assert_eq!(outcome.end_of_whole_frames, end as u64);
        assert_eq!(outcome.next_seq, whole as u32);
        let rest = (len - end) as u64;
        let damage = Damage { dropped_frames: rest.min(1), dropped_bytes: rest, ..Damage::default() };
        assert_eq!(outcome.damage, damage, "{len} bytes");
    }
}

#[test]
fn no_changed_byte_goes_unnoticed_and_the_other_frames_come_back() {
    let dump = Dump::small();
    let bounds = dump.bounds();
    for at in 0..dump.bytes.len() {
        for mask in [0x01, 0x80, 0x55, 0xFF] {
            let mut bytes = dump.bytes.clone();
            bytes[at] ^= mask;
            if at < HEADER_LEN {
                match read(bytes.as_slice()) {
                    Err(ReadError::NotADump) => assert!(at < 8),
                    Err(ReadError::DamagedHeader) => assert!(at >= 8),
                    other => panic!("byte {at} ^ {mask:#x}: {other:?}"),
                }
                continue;
            }
            let hit = bounds.iter().rposition(|start| *start <= at).unwrap();
            assert_lost(&dump, &bytes, hit..hit + 1, &format!("byte {at} ^ {mask:#x}"));
        }
    }
}

#[test]
fn a_missing_frame_is_counted() {
    let dump = Dump::small();
    let bounds = dump.bounds();
    for lost in 0..dump.frames.len() {
        let mut bytes = dump.bytes.clone();
        bytes.drain(bounds[lost]..bounds[lost + 1]);
        let outcome = read(bytes.as_slice()).unwrap();
        assert_eq!(outcome.records, remaining(&dump, lost..lost + 1));
        assert!(!outcome.complete);
        let last = lost + 1 == dump.frames.len();
        assert_eq!(outcome.damage, Damage { missing_frames: u64::from(!last), ..Damage::default() });
    }
}

#[test]
fn bytes_between_frames_are_skipped_and_counted() {
    let dump = Dump::small();
    let mut junk = b"\xF7ADF\xF7AD\xF7".repeat(3);
    junk.extend_from_slice(&dump.bytes[dump.frames[0]..dump.frames[0] + 20]);
    for start in dump.bounds() {
        let mut bytes = dump.bytes.clone();
        bytes.splice(start..start, junk.iter().copied());
        let outcome = read(bytes.as_slice()).unwrap();
        assert_eq!(outcome.records, texts(&one_of_each()));
        assert!(!outcome.complete);
        let damage = Damage { dropped_frames: 1, dropped_bytes: junk.len() as u64, ..Damage::default() };
        assert_eq!(outcome.damage, damage);
    }
}

#[test]
fn a_frame_that_was_cut_short_does_not_take_the_next_ones_with_it() {
    let dump = Dump::small();
    let bounds = dump.bounds();
    for hit in 0..dump.frames.len() - 1 {
        for keep in 0..bounds[hit + 1] - bounds[hit] {
            let mut bytes = dump.bytes.clone();
            bytes.drain(bounds[hit] + keep..bounds[hit + 1]);
            let outcome = read(bytes.as_slice()).unwrap();
            assert_eq!(outcome.records, remaining(&dump, hit..hit + 1), "frame {hit}, {keep} bytes kept");
            assert!(!outcome.complete);
            assert_eq!(outcome.damage.missing_frames, 1);
            assert_eq!(outcome.damage.dropped_bytes, keep as u64);
        }
    }
}

#[test]
fn a_frame_that_comes_twice_is_used_once() {
    let dump = Dump::small();
    let bounds = dump.bounds();
    for twice in 0..dump.frames.len() {
        for at in twice + 1..bounds.len() {
            let mut bytes = dump.bytes.clone();
            let frame = bytes[bounds[twice]..bounds[twice + 1]].to_vec();
            bytes.splice(bounds[at]..bounds[at], frame);
            let outcome = read(bytes.as_slice()).unwrap();
            assert_eq!(outcome.records, texts(&one_of_each()));
            assert_eq!(outcome.damage, Damage { malformed_frames: 1, ..Damage::default() });
            assert!(!outcome.complete);
        }
    }
}

#[test]
fn no_frame_follows_the_largest_sequence_number() {
    let records = payload(&[Record::Lost { events: 1 }]);
    let frame = [&FrameHeader::raw(FRAME_RECORDS, u32::MAX, &records).encode()[..], &records].concat();
    let mut dump = Dump::new();
    dump.append(&frame, 1);
    dump.append(&frame, 0);
    let outcome = read(dump.bytes.as_slice()).unwrap();
    assert_eq!(outcome.records.len(), 1);
    let damage = Damage { missing_frames: u64::from(u32::MAX), malformed_frames: 1, ..Damage::default() };
    assert_eq!((outcome.damage, outcome.next_seq), (damage, u32::MAX));
}

#[test]
fn frames_behind_the_trailer_are_used_and_counted() {
    let late = [Record::Lost { events: 1 }];
    let dump = Dump::small().with_frame(FRAME_RECORDS, 0, &payload(&late));
    let outcome = read(dump.bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&[&one_of_each()[..], &late].concat()));
    assert_eq!(outcome.damage, Damage { malformed_frames: 1, ..Damage::default() });
    assert!(!outcome.complete);

    let second = Trailer::new(EndReason::Signalled(9), 77);
    let outcome = read(Dump::small().with_trailer(&second).bytes.as_slice()).unwrap();
    assert_eq!(outcome.trailer, Some(second));
    assert!(!outcome.complete);
}

#[test]
fn reading_on_at_the_end_changes_nothing() {
    let mut bytes = Dump::small().bytes;
    bytes.extend_from_slice(b"junk");
    let mut reader = alloc_dump::read::Reader::new(bytes.as_slice()).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    let (damage, position) = (reader.damage(), reader.position());
    assert_eq!((damage.dropped_frames, damage.dropped_bytes, position), (1, 4, bytes.len() as u64));
    for _ in 0..3 {
        assert!(reader.next_frame().unwrap().is_none());
        assert_eq!((reader.damage(), reader.position()), (damage, position));
    }
}

#[test]
fn many_damaged_frames_lose_only_themselves() {
    let records = vec![Record::Alloc { addr: 1, size: 2, stack: Default::default(), zeroed: false }; 9000];
    let mut dump = Dump::of(&records, FRAME_HEADER_LEN + 100).with_trailer(&trailer());
    let odd: Vec<usize> = dump.frames.iter().copied().skip(1).step_by(2).collect();
    assert!(odd.len() > 80);
    for start in &odd {
        dump.bytes[start + FRAME_HEADER_LEN + 5] ^= 1;
    }
    let outcome = read(dump.bytes.as_slice()).unwrap();
    let mut kept = 0;
    for frame in (0..dump.frames.len()).step_by(2) {
        kept += dump.records[frame] - frame.checked_sub(1).map_or(0, |before| dump.records[before]);
    }
    assert_eq!(outcome.records.len(), kept);
    assert_eq!(outcome.damage.dropped_frames, odd.len() as u64);
}

/// With each of these files, a reader that starts again at every header would do millions of times
/// too much work and take minutes, not seconds.
#[test]
fn files_made_to_be_slow_take_linear_time() {
    let start = Instant::now();
    for claim in [MAX_PAYLOAD as u32, 1 << 20, 4096, 33] {
        // Every header is inside the payload that the ones before it claim.
        let mut fake = FrameHeader::raw(FRAME_RECORDS, 0, b"");
        (fake.len, fake.decoded_len, fake.crc) = (claim, claim, 0xBAD);
        let mut dump = Dump::new();
        dump.bytes.extend(fake.encode().repeat((4 << 20) / FRAME_HEADER_LEN));
        assert_eq!(read(dump.bytes.as_slice()).unwrap().records.len(), 0);
    }
    for filler in [&b"\xF7"[..], b"\xF7A", b"\xF7AD", b"\xF7ADF"] {
        let mut dump = Dump::new();
        dump.bytes.extend(filler.repeat((4 << 20) / filler.len()));
        assert_eq!(
            read(dump.bytes.as_slice()).unwrap().damage.dropped_bytes,
            (4 << 20) / filler.len() as u64 * filler.len() as u64
        );
    }
    // Whole frames with empty payloads.
    let mut dump = Dump::new();
    for _ in 0..50_000 {
        let empty = FrameHeader::raw(FRAME_RECORDS, dump.next_seq(), b"").encode();
        dump.append(&empty, 0);
    }
    assert_eq!(read(dump.bytes.as_slice()).unwrap().damage, Damage::default());
    assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
}

/// Asserts that exactly these frames are lost, and that the reader counts their bytes as damage.
fn assert_lost(dump: &Dump, bytes: &[u8], lost: Range<usize>, what: &str) {
    let outcome = read(bytes).unwrap();
    assert_eq!(outcome.records, remaining(dump, lost.clone()), "{what}");
    assert!(!outcome.complete, "{what}");
    let bounds = dump.bounds();
    let len = (bounds[lost.end] - bounds[lost.start]) as u64;
    assert_eq!((outcome.damage.dropped_frames, outcome.damage.dropped_bytes), (1, len), "{what}");
}

/// Returns the records of all frames but these.
fn remaining(dump: &Dump, lost: Range<usize>) -> Vec<String> {
    let before = lost.start.checked_sub(1).map_or(0, |last| dump.records[last]);
    let mut all = texts(&one_of_each());
    all.drain(before..dump.records[lost.end - 1]);
    all
}
