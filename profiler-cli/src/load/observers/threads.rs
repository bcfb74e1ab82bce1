//! Events and bytes of each thread, its name, and when it ran. In: heap events and records of
//! threads. Out: a [`RecordedThread`] for each thread, selected or not.

use alloc_dump::record::Record;
use foldhash::HashMap;

use super::{Moment, Observer, ReplayEnd, add_to};
use crate::load::heap::{EventKind, Heap, HeapEvent, ThreadRef};
use crate::profile::{Profile, RecordedThread};

/// Counts events by thread.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct ThreadsObserver {
    /// By [`ThreadRef::index`].
    threads: Vec<RecordedThread>,
    index_of: HashMap<u32, usize>,
}

impl ThreadsObserver {
    fn thread(&mut self, id: u32) -> Option<&mut RecordedThread> {
        self.index_of.get(&id).and_then(|index| self.threads.get_mut(*index))
    }
}

impl Observer for ThreadsObserver {
    fn thread_begins(&mut self, thread: ThreadRef, us: u64) {
        self.index_of.insert(thread.id, self.threads.len());
        self.threads.push(RecordedThread { id: thread.id, start_us: us, ..RecordedThread::default() });
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        let Some(thread) = self.threads.get_mut(event.origin.thread.index) else { return };
        match event.kind {
            EventKind::Alloc => thread.allocations += 1,
            EventKind::Dealloc => thread.deallocations += 1,
            EventKind::Realloc => thread.reallocations += 1,
        }
        add_to(&mut thread.allocated, event.allocated);
        add_to(&mut thread.freed, event.freed);
    }

    #[inline]
    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        match *record {
            Record::ThreadStart { id, os_tid } => {
                if let Some(thread) = self.thread(id) {
                    thread.os_tid = os_tid;
                }
            }
            Record::ThreadName { id, name } => {
                if let Some(thread) = self.thread(id) {
                    thread.name = String::from_utf8_lossy(name).into_owned();
                }
            }
            Record::ThreadEnd { id } => {
                if let Some(thread) = self.thread(id) {
                    thread.end_us = Some(moment.us);
                }
            }
            _ => {}
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.threads = self.threads;
    }
}
