//! The recovery sidecar: what a reader accepts, and that a dump with its tail is the dump that was cut off.

mod made;

use alloc_dump::layout::{FRAME_HEADER_LEN, MAX_PAYLOAD, StackId, TAIL_HEADER_LEN};
use alloc_dump::read::Loss;
use alloc_dump::record::Record;
use alloc_dump::tail::{self, LEN_OFFSET, PAYLOAD_OFFSET, PID_OFFSET, SEQ_OFFSET, STATE_OFFSET, Tail};
use alloc_dump::write::Encoder;

use made::{Dump, SESSION, one_of_each, payload, read, texts};

#[test]
fn the_payload_is_what_the_length_says() {
    let records = payload(&one_of_each());
    let mut bytes = sidecar(&records, 5);
    set(&mut bytes, STATE_OFFSET, 28);
    set(&mut bytes, PID_OFFSET, 4242);
    bytes.extend_from_slice(b"the rest of the mapping");
    let expected = Tail { seq: 5, stopped_errno: 28, pid: 4242, payload: &records };
    assert_eq!(Tail::parse(&bytes, &SESSION), Some(expected));

    set(&mut bytes, LEN_OFFSET, 2);
    assert_eq!(Tail::parse(&bytes, &SESSION), Some(Tail { payload: &records[..2], ..expected }));
    set(&mut bytes, LEN_OFFSET, 0);
    assert_eq!(Tail::parse(&bytes, &SESSION), Some(Tail { payload: b"", ..expected }));
}

#[test]
fn a_foreign_or_damaged_sidecar_is_none() {
    let bytes = sidecar(&payload(&one_of_each()), 0);
    assert!(Tail::parse(&bytes, &SESSION).is_some());
    assert_eq!(Tail::parse(&bytes, b"another session."), None);
    for at in 0..28 {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        assert_eq!(Tail::parse(&bytes, &SESSION), None, "byte {at}");
    }
    // Zeros, the rest of the page and the room for the frame header say nothing.
    for at in (28..32).chain(64..PAYLOAD_OFFSET) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        assert!(Tail::parse(&bytes, &SESSION).is_some(), "byte {at}");
    }
}

#[test]
fn a_sidecar_cut_short_is_none() {
    let records = payload(&one_of_each());
    let bytes = sidecar(&records, 0);
    for len in 0..bytes.len() {
        assert_eq!(Tail::parse(&bytes[..len], &SESSION), None, "{len} bytes");
    }
    assert!(Tail::parse(&bytes, &SESSION).is_some());
}

#[test]
fn numbers_that_cannot_be_are_none() {
    let bytes = sidecar(&payload(&one_of_each()), 0);
    let payload_len = (bytes.len() - PAYLOAD_OFFSET) as u64;
    let bad = [
        (LEN_OFFSET, payload_len + 1),
        (LEN_OFFSET, MAX_PAYLOAD as u64 + 1),
        (LEN_OFFSET, u64::MAX),
        (LEN_OFFSET, u64::MAX - PAYLOAD_OFFSET as u64 + 1),
        (SEQ_OFFSET, 1 << 32),
        (STATE_OFFSET, 1 << 31),
        (STATE_OFFSET, u64::MAX),
        (PID_OFFSET, 1 << 32),
    ];
    for (offset, value) in bad {
        let mut bytes = bytes.clone();
        set(&mut bytes, offset, value);
        assert_eq!(Tail::parse(&bytes, &SESSION), None, "{value:#x} at {offset}");
    }
    let good =
        [(SEQ_OFFSET, u64::from(u32::MAX)), (STATE_OFFSET, (1 << 31) - 1), (PID_OFFSET, u64::from(u32::MAX))];
    for (offset, value) in good {
        let mut bytes = bytes.clone();
        set(&mut bytes, offset, value);
        assert!(Tail::parse(&bytes, &SESSION).is_some(), "{value:#x} at {offset}");
    }
}

#[test]
fn a_killed_recording_loses_nothing_at_any_instant() {
    let records = one_of_each();
    let mut dump = Dump::new();
    let mut mapping = vec![0; TAIL_HEADER_LEN + FRAME_HEADER_LEN + 64];
    mapping[..tail::LEN_OFFSET].copy_from_slice(&tail::encode_identity(&SESSION));
    let mut encoder = Encoder::new();
    for (index, record) in records.iter().enumerate() {
        if encoder.push(&mut mapping[TAIL_HEADER_LEN..], record).is_err() {
            let len = encoder.seal(&mut mapping[TAIL_HEADER_LEN..], dump.next_seq());
            // Half of the frame is written, then all of it, then the length changes, then the number.
            for part in 0..len {
                let mut cut = dump.clone();
                cut.bytes.extend_from_slice(&mapping[TAIL_HEADER_LEN..][..part]);
                assert_eq!(recovered(&cut, &mapping), texts(&records[..index]));
            }
            dump.append(&mapping[TAIL_HEADER_LEN..][..len], 0);
            assert_eq!(recovered(&dump, &mapping), texts(&records[..index]));
            set(&mut mapping, LEN_OFFSET, 0);
            assert_eq!(recovered(&dump, &mapping), texts(&records[..index]));
            let seq = u64::from(dump.next_seq());
            set(&mut mapping, SEQ_OFFSET, seq);
            assert_eq!(recovered(&dump, &mapping), texts(&records[..index]));
            encoder.push(&mut mapping[TAIL_HEADER_LEN..], record).unwrap();
        }
        assert_eq!(recovered(&dump, &mapping), texts(&records[..index]));
        set(&mut mapping, LEN_OFFSET, encoder.len() as u64);
        assert_eq!(recovered(&dump, &mapping), texts(&records[..=index]));
    }
    assert!(dump.frames.len() > 3);
}

#[test]
fn frames_between_the_dump_and_its_tail_are_missing() {
    let late = [Record::Dealloc { addr: 1, size: Some(2), stack: StackId::NONE }];
    let mut dump = Dump::of(&one_of_each(), 4096);
    let bytes = sidecar(&payload(&late), 4);
    dump.bytes.extend(Tail::parse(&bytes, &SESSION).unwrap().to_frame());
    let outcome = read(dump.bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&[&one_of_each()[..], &late].concat()));
    assert_eq!(outcome.loss, Loss { missing_frames: 3, ..Loss::default() });
    assert!(!outcome.complete);
}

/// What docs/FORMAT.md tells a reader to do.
fn recovered(dump: &Dump, mapping: &[u8]) -> Vec<String> {
    let outcome = read(dump.bytes.as_slice()).unwrap();
    let tail = Tail::parse(mapping, &SESSION).unwrap();
    let mut bytes = dump.bytes[..outcome.end_of_whole_frames as usize].to_vec();
    if tail.seq >= outcome.next_seq {
        bytes.extend(tail.to_frame());
    }
    let outcome = read(bytes.as_slice()).unwrap();
    assert_eq!(outcome.loss, Loss::default());
    assert!(!outcome.complete);
    outcome.records
}

fn sidecar(payload: &[u8], seq: u32) -> Vec<u8> {
    let mut bytes = vec![0; PAYLOAD_OFFSET];
    bytes[..LEN_OFFSET].copy_from_slice(&tail::encode_identity(&SESSION));
    set(&mut bytes, LEN_OFFSET, payload.len() as u64);
    set(&mut bytes, SEQ_OFFSET, u64::from(seq));
    bytes.extend_from_slice(payload);
    bytes
}

fn set(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}
