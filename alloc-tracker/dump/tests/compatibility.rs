//! Compatibility: this reader skips what newer minor versions may add, and counts or refuses what
//! it cannot understand.

mod made;

use alloc_dump::layout::{
    FRAME_RECORDS, FRAME_TRAILER, HEADER_LEN, MAJOR, MAX_HEADER_LEN, MAX_TEXT, MINOR, StackId,
};
use alloc_dump::read::{Damage, ReadError};
use alloc_dump::record::{FIRST_COLD_TAG, MemoryLimit, Record};
use alloc_dump::trailer::{EndReason, Trailer};
use alloc_dump::varint;

use made::{Dump, one_of_each, payload, read, texts, trailer};

const MALFORMED: Damage =
    Damage { malformed_frames: 1, dropped_frames: 0, dropped_bytes: 0, missing_frames: 0 };

#[test]
fn a_newer_minor_version_is_read_and_a_newer_major_version_refused() {
    let dump = Dump::small();
    for minor in [MINOR, MINOR + 1, u16::MAX] {
        let outcome = read(with_version(&dump, MAJOR, minor).as_slice()).unwrap();
        assert!(outcome.complete);
    }
    for major in [MAJOR + 1, u16::MAX] {
        match read(with_version(&dump, major, 3).as_slice()) {
            Err(ReadError::NewerVersion { major: seen, minor: 3 }) => assert_eq!(seen, major),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(read(with_version(&dump, 0, 9).as_slice()), Err(ReadError::DamagedHeader)));
}

#[test]
fn errors_say_what_is_wrong() {
    let of = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(of(b""), "the file is empty");
    assert_eq!(of(b"\x7fELF"), "not an alloc-tracker dump");
    assert_eq!(
        of(&Dump::new().bytes[..63]),
        "the file header (bytes 0 to 63) is damaged or cut short; copy the dump again from where it was written"
    );
    assert_eq!(
        of(&with_version(&Dump::new(), 2, 5)),
        "written in format 2.5 by a newer release; this release reads formats up to 1.x"
    );
}

#[test]
fn the_rest_of_a_longer_file_header_is_skipped() {
    let dump = Dump::small();
    for len in [HEADER_LEN, HEADER_LEN + 1, 100, MAX_HEADER_LEN] {
        let bytes = with_header_len(&dump, len);
        let outcome = read(bytes.as_slice()).unwrap();
        assert!(outcome.complete, "{len}");
        assert_eq!(outcome.end_of_whole_frames, bytes.len() as u64);
        assert!(len == HEADER_LEN || matches!(read(&bytes[..len - 1]), Err(ReadError::DamagedHeader)));
    }
    for len in [0, HEADER_LEN - 1, MAX_HEADER_LEN + 1, u32::MAX as usize] {
        assert!(matches!(read(with_header_len(&dump, len).as_slice()), Err(ReadError::DamagedHeader)));
    }
}

#[test]
fn frames_of_unknown_kinds_are_skipped() {
    for kind in (0..=u8::MAX).filter(|kind| !matches!(*kind, FRAME_RECORDS | FRAME_TRAILER)) {
        let dump = Dump::of(&one_of_each(), 4096)
            .with_frame(kind, 0, b"anything")
            .with_frame(kind, 9, b"in any codec")
            .with_trailer(&trailer())
            .with_frame(kind, 0, b"even here");
        let outcome = read(dump.bytes.as_slice()).unwrap();
        assert_eq!(outcome.records, texts(&one_of_each()));
        assert!(outcome.complete);
    }
}

#[test]
fn frames_in_unknown_codecs_are_counted() {
    for codec in 1..=u8::MAX {
        let dump = Dump::of(&one_of_each(), 4096)
            .with_frame(FRAME_RECORDS, codec, &payload(&one_of_each()))
            .with_trailer(&trailer());
        let outcome = read(dump.bytes.as_slice()).unwrap();
        assert_eq!((outcome.records, outcome.damage), (texts(&one_of_each()), MALFORMED));
        assert!(!outcome.complete);

        let outcome =
            read(Dump::new().with_frame(FRAME_TRAILER, codec, b"\0\0\0\0").bytes.as_slice()).unwrap();
        assert_eq!((outcome.trailer, outcome.damage), (None, MALFORMED));
    }
}

#[test]
fn unknown_cold_records_are_skipped() {
    let [before, after] = [Record::Time { us: 5 }, Record::Time { us: 8 }];
    let frame = payload(&[before, after]);
    let middle = payload(&[before]).len();
    for tag in FIRST_COLD_TAG + 28..=u8::MAX {
        let mut frame = frame.clone();
        frame.splice(middle..middle, [tag, 0, tag, 0x83, 0x80, 0, 0xFF, 0x00, 0x01]);
        let outcome = read(Dump::new().with_frame(FRAME_RECORDS, 0, &frame).bytes.as_slice()).unwrap();
        assert_eq!(
            (outcome.records, outcome.damage),
            (texts(&[before, after]), Damage::default()),
            "{tag:#x}"
        );
    }
}

#[test]
fn unknown_hot_records_end_their_frame_and_are_counted() {
    let before = [Record::Time { us: 5 }, Record::Thread { id: 7 }];
    for tag in [0].into_iter().chain(19..FIRST_COLD_TAG) {
        let frame = [payload(&before), vec![tag], payload(&before)].concat();
        let dump =
            Dump::new().with_frame(FRAME_RECORDS, 0, &frame).with_frame(FRAME_RECORDS, 0, &payload(&before));
        let outcome = read(dump.bytes.as_slice()).unwrap();
        assert_eq!(
            (outcome.records, outcome.damage),
            (texts(&[before, before].concat()), MALFORMED),
            "{tag:#x}"
        );
    }
}

#[test]
fn fields_added_to_cold_records_are_ignored() {
    for record in one_of_each() {
        let mut frame = payload(&[record]);
        // A limit of memory without its last field is one of version 1.5.
        let is_older = matches!(record, Record::MemoryLimit(MemoryLimit { used: None, .. }));
        if frame[0] < FIRST_COLD_TAG || is_older {
            continue;
        }
        let mut at = 1;
        let len = varint::get(&frame, &mut at).unwrap();
        assert_eq!((at, len as usize), (4, frame.len() - 4));
        frame.extend_from_slice(b"new fields");
        frame.splice(1..4, [len as u8 + 10]);
        let outcome = read(Dump::new().with_frame(FRAME_RECORDS, 0, &frame).bytes.as_slice()).unwrap();
        assert_eq!((outcome.records, outcome.damage), (texts(&[record]), Damage::default()));
    }
}

#[test]
fn a_record_cut_short_inside_a_whole_frame_is_counted() {
    for record in one_of_each() {
        let whole = payload(&[record]);
        for len in 1..whole.len() {
            let frame = [&payload(&[Record::ReallocFailed]), &whole[..len]].concat();
            let outcome = read(Dump::new().with_frame(FRAME_RECORDS, 0, &frame).bytes.as_slice()).unwrap();
            assert_eq!((outcome.records, outcome.damage), (texts(&[Record::ReallocFailed]), MALFORMED));
            // The same record, with a length that states the cut.
            if whole[0] >= FIRST_COLD_TAG && len >= 4 {
                let mut cold = whole[..len].to_vec();
                cold[1] = (len - 4) as u8 | 0x80;
                let outcome = read(Dump::new().with_frame(FRAME_RECORDS, 0, &cold).bytes.as_slice()).unwrap();
                // Without their last fields, these records are of versions 1.4 and 1.5.
                let is_older = match record {
                    Record::MemoryLimit(MemoryLimit { used: Some(0x20_0000..0x1000_0000), .. }) => {
                        len == whole.len() - 4
                    }
                    Record::Snapshot { copying_us: 0..128, .. } => len == whole.len() - 1,
                    Record::Snapshot { copying_us: 128..16384, .. } => len == whole.len() - 2,
                    _ => false,
                };
                let expected = if is_older { (1, Damage::default()) } else { (0, MALFORMED) };
                assert_eq!((outcome.records.len(), outcome.damage), expected, "{record:?} {len}");
            }
        }
    }
}

#[test]
fn numbers_out_of_range_are_counted() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    let too_long = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
    let mut text = vec![0x44];
    for number in [MAX_TEXT as u64 + 4, 1, MAX_TEXT as u64 + 1] {
        let mut buffer = [0; 10];
        let mut at = 0;
        varint::put(&mut buffer, &mut at, number).unwrap();
        text.extend_from_slice(&buffer[..at]);
    }
    text.extend(vec![b'x'; MAX_TEXT + 1]);
    let frames: [&[u8]; 7] = [
        &[&[0x01][..], &huge].concat(),          // a thread number of 64 bits
        &[&[0x02][..], &too_long].concat(),      // a number of 65 bits
        &[&[0x02][..], &huge, &[2, 1]].concat(), // a time beyond the largest one
        &[&[0x04, 0, 0][..], &huge].concat(),    // stack -2^63
        &[&[0x04, 0, 0][..], &[0x01]].concat(),  // stack -1
        &[&[0x47][..], &huge].concat(),          // a cold record longer than all memory
        &text,                                   // a text longer than MAX_TEXT
    ];
    for frame in frames {
        let outcome = read(Dump::new().with_frame(FRAME_RECORDS, 0, frame).bytes.as_slice()).unwrap();
        assert_eq!(outcome.damage, MALFORMED, "{:?}", &frame[..frame.len().min(20)]);
    }
}

#[test]
fn numbers_may_be_padded() {
    let frame = [0x01, 0x87, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
    let outcome = read(Dump::new().with_frame(FRAME_RECORDS, 0, &frame).bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&[Record::Thread { id: 7 }]));
}

#[test]
fn a_trailer_may_grow_but_not_shrink() {
    let mut buffer = [0; 128];
    let len = trailer().encode(&mut buffer).unwrap();
    for cut in 0..len {
        let dump = Dump::new().with_frame(FRAME_TRAILER, 0, &buffer[..cut]);
        let outcome = read(dump.bytes.as_slice()).unwrap();
        assert_eq!((outcome.trailer, outcome.damage), (None, MALFORMED));
    }
    let grown = [&buffer[..len], b"new fields"].concat();
    let outcome = read(Dump::new().with_frame(FRAME_TRAILER, 0, &grown).bytes.as_slice()).unwrap();
    assert_eq!(outcome.trailer, Some(trailer()));
    assert!(outcome.complete);
    let ends = [
        ([0, 0, 5, 0], EndReason::Finished),
        ([1, 3, 5, 0], EndReason::Exited(3)),
        ([2, 9, 5, 0], EndReason::Signalled(9)),
        ([3, 0, 5, 0], EndReason::Vanished),
    ];
    for (bytes, end) in ends {
        assert_eq!(Trailer::decode(&bytes), Some(Trailer::new(end, 5)));
    }
    // The reason of a later version, and an exit status of 256.
    assert_eq!(Trailer::decode(&[4, 0, 5, 0]), None);
    assert_eq!(Trailer::decode(&[1, 0x80, 0x02, 5, 0]), None);
}

#[test]
fn every_frame_begins_with_an_empty_context() {
    let alloc = Record::Alloc { addr: 1000, size: 1, stack: StackId(9), zeroed: false };
    let one = payload(&[alloc]);
    let dump = Dump::new().with_frame(FRAME_RECORDS, 0, &one).with_frame(FRAME_RECORDS, 0, &one);
    assert_eq!(read(dump.bytes.as_slice()).unwrap().records, texts(&[alloc, alloc]));
}

fn with_version(dump: &Dump, major: u16, minor: u16) -> Vec<u8> {
    let mut bytes = dump.bytes.clone();
    bytes[8..10].copy_from_slice(&major.to_le_bytes());
    bytes[10..12].copy_from_slice(&minor.to_le_bytes());
    sign(bytes)
}

fn with_header_len(dump: &Dump, len: usize) -> Vec<u8> {
    let mut bytes = dump.bytes.clone();
    bytes[12..16].copy_from_slice(&(len as u32).to_le_bytes());
    let more = len.clamp(HEADER_LEN, 2 * MAX_HEADER_LEN) - HEADER_LEN;
    bytes.splice(HEADER_LEN..HEADER_LEN, vec![0xF7; more]);
    sign(bytes)
}

/// Writes the checksum of the file header.
fn sign(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}
