//! The marks of the program. In: records of marks and their names. Out: each mark with its thread,
//! its time and the live bytes. Their number is bounded.

use alloc_dump::record::Record;
use foldhash::HashMap;

use super::{Moment, Observer, ReplayEnd};
use crate::profile::{Mark, Profile};

/// The marks so far.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct MarksObserver {
    names: HashMap<u32, String>,
    marks: Vec<Mark>,
    /// Bytes of the names of `marks`.
    name_bytes: usize,
    /// Number of marks that came after `marks` was full.
    dropped: u64,
    /// Number of marks whose name the dump does not have.
    contradictions: u64,
}

impl Observer for MarksObserver {
    #[inline]
    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        match *record {
            Record::MarkName { id, name } if self.names.len() < MAX_MARKS => {
                self.names.insert(id, String::from_utf8_lossy(name).into_owned());
            }
            Record::Mark { id } if !moment.is_before => self.add(id, moment),
            _ => {}
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        (profile.marks, profile.marks_dropped) = (self.marks, self.dropped);
        profile.trust.inconsistent_events += self.contradictions;
    }
}

impl MarksObserver {
    fn add(&mut self, id: u32, moment: &Moment<'_>) {
        match self.names.get(&id) {
            Some(name) if self.marks.len() < MAX_MARKS && self.name_bytes + name.len() <= MAX_NAME_BYTES => {
                self.name_bytes += name.len();
                self.marks.push(mark_at(name.clone(), moment));
            }
            // If there were too many names, the name of this mark may be among those that were not
            // kept.
            None if self.names.len() < MAX_MARKS => self.contradictions += 1,
            _ => self.dropped += 1,
        }
    }
}

/// Returns the mark with this name at a moment.
pub(in crate::load) fn mark_at(name: String, moment: &Moment<'_>) -> Mark {
    let (live_bytes, events) = (moment.heap.live_bytes(), moment.heap.events());
    Mark { name, thread: moment.thread_id, us: moment.us, live_bytes, events }
}

/// The most marks that are kept. A damaged or forged dump may have any number of them.
pub(in crate::load) const MAX_MARKS: usize = 1 << 16;
const MAX_NAME_BYTES: usize = 64 << 20;
