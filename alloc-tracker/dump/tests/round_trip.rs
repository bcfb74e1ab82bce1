//! All records come back equal, however they are split into frames and however the input arrives.

mod made;

use std::io::{self, Read};

use alloc_dump::layout::{FRAME_HEADER_LEN, MAX_PAYLOAD, MAX_TEXT};
use alloc_dump::read::Reader;
use alloc_dump::record::{Module, Process, Record};
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::varint;
use alloc_dump::write::{Encoder, FrameFull, seal_trailer};
use proptest::collection::vec;
use proptest::prelude::*;

use made::drafts::{draft, edges};
use made::{Dump, one_of_each, read, texts, trailer};

#[test]
fn a_record_of_each_kind_comes_back_equal() {
    for buffer_len in [FRAME_HEADER_LEN + 80, FRAME_HEADER_LEN + 200, 1 << 16] {
        let dump = Dump::of(&one_of_each(), buffer_len).with_trailer(&trailer());
        let outcome = read(dump.bytes.as_slice()).unwrap();
        assert_eq!(outcome.records, texts(&one_of_each()));
        assert_eq!(outcome.trailer, Some(trailer()));
        assert!(outcome.complete);
        assert_eq!(outcome.end_of_whole_frames, dump.bytes.len() as u64);
        assert_eq!(outcome.next_seq, dump.next_seq());
    }
}

#[test]
fn the_longest_texts_come_back_and_longer_ones_are_cut() {
    let long = vec![b'x'; MAX_TEXT + 1];
    let records = [
        Record::Process(Process { exe: &long, args: &long, cwd: &long, run: &long, ..Process::default() }),
        Record::Module(Module { build_id: &[], path: &long[..MAX_TEXT], ..Module::default() }),
        Record::ThreadName { id: u32::MAX, name: &long[..MAX_TEXT] },
    ];
    let cut = &long[..MAX_TEXT];
    let expected = [
        Record::Process(Process { exe: cut, args: cut, cwd: cut, run: cut, ..Process::default() }),
        records[1],
        records[2],
    ];
    let outcome = read(Dump::of(&records, 1 << 19).bytes.as_slice()).unwrap();
    assert_eq!(outcome.records, texts(&expected));
}

#[test]
fn a_frame_never_outgrows_what_readers_accept() {
    let mut buffer = vec![0; FRAME_HEADER_LEN + MAX_PAYLOAD + 100];
    let name = vec![b'n'; MAX_TEXT];
    let mut encoder = Encoder::new();
    let mut pushed = 0;
    while encoder.push(&mut buffer, &Record::ThreadName { id: 1, name: &name }).is_ok() {
        pushed += 1;
    }
    while encoder.push(&mut buffer, &Record::ReallocFailed).is_ok() {
        pushed += 1;
    }
    assert_eq!(encoder.len(), MAX_PAYLOAD);
    let len = encoder.seal(&mut buffer, 0);
    let mut dump = Dump::new();
    dump.append(&buffer[..len], pushed);
    let outcome = read(dump.bytes.as_slice()).unwrap();
    assert_eq!((outcome.records.len(), outcome.damage), (pushed, Default::default()));
}

#[test]
fn a_record_that_does_not_fit_leaves_the_frame_as_it_was() {
    for record in one_of_each() {
        let whole = made::payload(&[Record::ReallocFailed, record]).len();
        for room in 0..FRAME_HEADER_LEN + whole {
            let mut buffer = vec![0xEE; room];
            let mut encoder = Encoder::new();
            let first = encoder.push(&mut buffer, &Record::ReallocFailed);
            assert_eq!(first.is_ok(), room > FRAME_HEADER_LEN);
            assert_eq!(encoder.push(&mut buffer, &record), Err(FrameFull), "{record:?} in {room} bytes");
            let len = encoder.seal(&mut buffer, 0);
            assert_eq!(
                len,
                if room < FRAME_HEADER_LEN { 0 } else { FRAME_HEADER_LEN + usize::from(first.is_ok()) }
            );
            assert!(encoder.is_empty());
        }
    }
}

#[test]
fn a_clock_that_goes_back_costs_no_record() {
    let records = [Record::Time { us: 9 }, Record::Time { us: 3 }, Record::Time { us: 10 }];
    let outcome = read(Dump::of(&records, 4096).bytes.as_slice()).unwrap();
    let expected = [Record::Time { us: 9 }, Record::Time { us: 9 }, Record::Time { us: 10 }];
    assert_eq!((outcome.records, outcome.damage), (texts(&expected), Default::default()));
}

#[test]
fn a_trailer_that_does_not_fit_is_not_written() {
    let mut whole = [0; 256];
    let len = seal_trailer(&mut whole, 7, &trailer()).unwrap();
    for room in 0..len {
        assert_eq!(seal_trailer(&mut vec![0; room], 7, &trailer()), None);
    }
    assert_eq!(seal_trailer(&mut vec![0; len], 7, &trailer()), Some(len));
}

#[test]
fn the_input_may_arrive_in_any_pieces() {
    let dump = Dump::small();
    let expected = read(dump.bytes.as_slice()).unwrap();
    for piece in [1, 2, 3, 31, 33, 1000] {
        assert_eq!(read(Pieces { bytes: &dump.bytes, piece, calls: 0 }).unwrap(), expected);
    }
}

#[test]
fn an_input_error_is_returned_and_the_call_can_be_repeated() {
    let dump = Dump::small();
    let mut reader = Reader::new(Failing { bytes: &dump.bytes, next_fails: false }).unwrap();
    let (mut records, mut errors) = (Vec::new(), 0);
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => records.extend(frame.map(|record| format!("{record:?}"))),
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                errors += 1;
            }
        }
    }
    assert!(errors > 5);
    assert_eq!(records, texts(&one_of_each()));
    assert!(reader.complete());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back_equal(
        drafts in vec(draft(), 0..60),
        room in 0usize..500,
        end in trailers(),
    ) {
        let mut us = 0u64;
        let records: Vec<Record<'_>> = drafts.iter().map(|draft| draft.record(&mut us)).collect();
        let largest = records.iter().map(|record| made::payload(&[*record]).len()).max().unwrap_or(0);
        let dump = Dump::of(&records, FRAME_HEADER_LEN + largest + room).with_trailer(&end);

        let mut reader = Reader::new(dump.bytes.as_slice()).unwrap();
        let mut expected = records.iter();
        while let Some(frame) = reader.next_frame().unwrap() {
            for record in frame {
                prop_assert_eq!(Some(&record), expected.next());
            }
        }
        prop_assert_eq!(expected.next(), None);
        prop_assert_eq!(reader.trailer(), Some(&end));
        prop_assert!(reader.complete());
        prop_assert_eq!(reader.position(), dump.bytes.len() as u64);
    }

    #[test]
    fn any_number_comes_back_from_one_byte_for_each_seven_bits(value in edges(), before in edges(), lead in 0usize..4) {
        let mut buffer = [0xEE; 20];
        let mut at = lead;
        varint::put(&mut buffer, &mut at, value).unwrap();
        let bits = (64 - value.leading_zeros() as usize).max(1);
        prop_assert_eq!(at - lead, bits.div_ceil(7));
        let end = at;
        at = lead;
        prop_assert_eq!(varint::get(&buffer[..end], &mut at), Some(value));
        prop_assert_eq!(at, end);
        // A number that is cut short anywhere is refused, and the offset stays where it was.
        for cut in lead..end {
            let mut at = lead;
            prop_assert_eq!((varint::get(&buffer[..cut], &mut at), at), (None, lead));
            prop_assert_eq!((varint::put(&mut buffer[..cut], &mut at, value), at), (None, lead));
        }
        prop_assert_eq!(varint::undelta(before, varint::delta(before, value)), value);
        prop_assert_eq!(varint::unzigzag(varint::zigzag(value as i64)), value as i64);
    }

    #[test]
    fn any_bytes_are_a_number_or_refused(bytes in vec(prop_oneof![Just(0x80u8), Just(0xFF), any::<u8>()], 0..14)) {
        let mut at = 0;
        let end = bytes.iter().position(|byte| *byte < 0x80);
        let value = bytes.iter().take(10).enumerate().map(|(index, byte)| u128::from(byte & 0x7F) << (7 * index)).sum::<u128>();
        let expected = end.filter(|end| *end < 10).and_then(|end| {
            let mask = (1u128 << (7 * (end + 1))) - 1;
            u64::try_from(value & mask).ok()
        });
        prop_assert_eq!(varint::get(&bytes, &mut at), expected);
        prop_assert_eq!(at, if expected.is_some() { end.unwrap() + 1 } else { 0 });
    }
}

/// Any trailer.
fn trailers() -> impl Strategy<Value = Trailer> {
    let end = prop_oneof![
        Just(EndReason::Finished),
        Just(EndReason::Vanished),
        any::<u8>().prop_map(EndReason::Exited),
        any::<u8>().prop_map(EndReason::Signalled),
    ];
    (end, edges(), any::<bool>(), [edges(), edges(), edges(), edges(), edges(), edges(), edges()]).prop_map(
        |(end, duration_us, has_totals, [a, b, c, d, e, f, g])| {
            let totals = Totals {
                allocations: a,
                deallocations: b,
                reallocations: c,
                allocated_bytes: d,
                freed_bytes: e,
                lost_events: f,
                truncated_stacks: g,
            };
            Trailer { end, duration_us, totals: has_totals.then_some(totals) }
        },
    )
}

/// An input that returns a few bytes at a time, and is interrupted now and then.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
    calls: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.piece.min(into.len());
        self.bytes.read(&mut into[..len])
    }
}

/// An input whose every second call fails; the others return a few bytes.
struct Failing<'a> {
    bytes: &'a [u8],
    next_fails: bool,
}

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.next_fails, false) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.next_fails = true;
        let len = into.len().min(64);
        self.bytes.read(&mut into[..len])
    }
}
