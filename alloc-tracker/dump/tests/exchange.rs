//! Reports of copies and names in the sidecar: what one side writes the other reads, and nothing
//! that a damaged recorder may write is taken for a report.

use alloc_dump::exchange::{
    CopiedThread, CopyReport, MAX_NAME, MAX_REPORT_MAPPINGS, MAX_REPORT_THREADS, REPORT_HEAD_WORDS,
    REPORT_MAGIC, decode_name, encode_name,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn words_of(report: &CopyReport) -> Vec<u64> {
    let (threads, mappings) = (report.threads.len() as u64, report.tracker_mappings.len() as u64);
    let missing = u64::from(!report.has_all_mappings);
    let half = |at: usize| u64::from_le_bytes(report.session[at..at + 8].try_into().unwrap());
    let mut words = vec![REPORT_MAGIC, 1, threads, mappings, missing, half(0), half(8), 0];
    assert_eq!(words.len(), REPORT_HEAD_WORDS);
    words.extend(report.threads.iter().flat_map(CopiedThread::words));
    words.extend(report.tracker_mappings.iter().flat_map(|(start, len)| [*start, *len]));
    words
}

fn thread() -> impl Strategy<Value = CopiedThread> {
    any::<(u32, u32, u32, u64, u64, u64)>().prop_map(
        |(id, tid, ring, stored, ring_address, thread_pointer)| CopiedThread {
            id,
            tid,
            ring,
            stored,
            ring_address,
            thread_pointer,
        },
    )
}

proptest! {
    #[test]
    fn a_report_is_read_as_it_was_written(
        threads in vec(thread(), 0..20),
        tracker_mappings in vec(any::<(u64, u64)>(), 0..20),
        has_all_mappings: bool,
        session: [u8; 16],
        rest in vec(any::<u64>(), 0..5),
    ) {
        let report = CopyReport { threads, tracker_mappings, has_all_mappings, session };
        let mut words = words_of(&report);
        let len = words.len();
        // The memory is larger than the report.
        words.extend(rest);
        prop_assert_eq!(CopyReport::parse(&words), Some(report));
        prop_assert_eq!(CopyReport::parse(&words[..len - 1]), None);
    }

    #[test]
    fn any_words_are_read_without_a_panic(mut words in vec(any::<u64>(), 0..200), whole: bool) {
        if whole && words.len() >= 2 {
            (words[0], words[1]) = (REPORT_MAGIC, 1);
        }
        let _ = CopyReport::parse(&words);
    }

    #[test]
    fn names_are_read_as_they_were_written_up_to_the_limit(name in vec(any::<u8>(), 0..400)) {
        let mut room = [0; MAX_NAME];
        let kept = &name[..name.len().min(MAX_NAME)];
        prop_assert_eq!(decode_name(&encode_name(&name), &mut room), kept);
    }
}

#[test]
fn a_report_that_is_not_whole_or_too_large_is_none() {
    let whole = words_of(&CopyReport::default());
    assert!(CopyReport::parse(&whole).is_some());
    let changed = |index: usize, value: u64| {
        let mut words = whole.clone();
        words[index] = value;
        words.resize(1 << 20, 0);
        CopyReport::parse(&words)
    };
    assert_eq!(changed(0, 0), None);
    assert_eq!(changed(1, 0), None);
    assert_eq!(changed(2, MAX_REPORT_THREADS as u64 + 1), None);
    assert_eq!(changed(2, u64::MAX), None);
    assert_eq!(changed(3, MAX_REPORT_MAPPINGS as u64 + 1), None);
    assert!(changed(2, MAX_REPORT_THREADS as u64).is_some());
    assert_eq!(changed(4, 1).map(|report| report.has_all_mappings), Some(false));
}

#[test]
fn a_length_that_is_out_of_bounds_is_cut() {
    let mut words = encode_name(b"warm");
    words[0] = u64::MAX;
    let mut room = [0; MAX_NAME];
    assert_eq!(decode_name(&words, &mut room).len(), MAX_NAME);
}
