//! The report of a copy: what the copy tells of itself. In: threads, then mappings. Out: the words
//! of [`alloc_dump::exchange::CopyReport`], in memory that the copy shares with the drain process.
//! Never allocates.

use std::sync::atomic::{AtomicU64, Ordering};

use alloc_dump::exchange::{
    CopiedThread, MAX_REPORT_MAPPINGS, MAX_REPORT_THREADS, REPORT_HEAD_WORDS, REPORT_MAGIC, REPORT_MAPPINGS,
    REPORT_MISSING, REPORT_SESSION, REPORT_THREADS, REPORT_WHOLE,
};

/// Writes a report of a copy.
pub(super) struct ReportWriter<'a> {
    report: &'a [AtomicU64],
    /// Index of the next word.
    at: usize,
    threads: usize,
    mappings: usize,
    misses_mappings: bool,
}

impl<'a> ReportWriter<'a> {
    pub(super) fn new(report: &'a [AtomicU64]) -> ReportWriter<'a> {
        ReportWriter { report, at: REPORT_HEAD_WORDS, threads: 0, mappings: 0, misses_mappings: false }
    }

    /// Adds a thread, if there is room for it. Threads come before mappings.
    pub(super) fn push_thread(&mut self, thread: &CopiedThread) {
        if self.threads < MAX_REPORT_THREADS {
            self.put(&thread.words());
            self.threads += 1;
        }
    }

    /// Adds a mapping of the tracker. If there is no room for it, the report says that some are
    /// missing.
    pub(super) fn push_mapping(&mut self, start: u64, len: u64) {
        if self.mappings < MAX_REPORT_MAPPINGS {
            self.put(&[start, len]);
            self.mappings += 1;
        } else {
            self.misses_mappings = true;
        }
    }

    /// Notes that the tracker has a mapping whose place is not known.
    pub(super) fn note_missing_mapping(&mut self) {
        self.misses_mappings = true;
    }

    /// Writes the head. From now on the report is whole.
    pub(super) fn finish(self, session: [u64; 2]) {
        let set = |index: usize, value: u64| self.report[index].store(value, Ordering::Relaxed);
        set(REPORT_THREADS, self.threads as u64);
        set(REPORT_MAPPINGS, self.mappings as u64);
        set(REPORT_MISSING, self.misses_mappings.into());
        set(REPORT_SESSION, session[0]);
        set(REPORT_SESSION + 1, session[1]);
        set(0, REPORT_MAGIC);
        self.report[REPORT_WHOLE].store(1, Ordering::Release);
    }

    fn put(&mut self, words: &[u64]) {
        for word in words {
            if let Some(slot) = self.report.get(self.at) {
                slot.store(*word, Ordering::Relaxed);
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc_dump::exchange::{CopyReport, MAX_REPORT_WORDS};

    fn report_of(threads: u32, mappings: usize) -> CopyReport {
        let report: Vec<AtomicU64> = (0..MAX_REPORT_WORDS).map(|_| AtomicU64::new(0)).collect();
        let mut writer = ReportWriter::new(&report);
        for tid in 0..threads {
            writer.push_thread(&CopiedThread { tid, ..CopiedThread::default() });
        }
        for at in 0..mappings as u64 {
            writer.push_mapping(at << 12, 4096);
        }
        let half = |text: &[u8; 8]| u64::from_le_bytes(*text);
        writer.finish([half(b"01234567"), half(b"89abcdef")]);
        let words: Vec<u64> = report.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        CopyReport::parse(&words).unwrap()
    }

    #[test]
    fn a_report_with_too_many_mappings_says_that_some_are_missing() {
        let fitting = report_of(3, MAX_REPORT_MAPPINGS);
        assert_eq!((fitting.threads.len(), fitting.tracker_mappings.len()), (3, MAX_REPORT_MAPPINGS));
        assert!(fitting.has_all_mappings);
        assert_eq!(&fitting.session, b"0123456789abcdef");
        let full = report_of(3, MAX_REPORT_MAPPINGS + 1);
        assert_eq!((full.threads, full.tracker_mappings), (fitting.threads, fitting.tracker_mappings));
        assert!(!full.has_all_mappings);
    }
}
