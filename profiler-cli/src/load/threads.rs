//! The threads of a dump, in the order in which they appear, and which of them are selected. In:
//! the number of a thread in the dump. Out: a [`ThreadRef`].

use foldhash::{HashMap, HashSet};

use super::heap::ThreadRef;

/// Index of each thread by its number in the dump.
#[derive(Clone, Debug, Default)]
pub(super) struct ThreadTable {
    index_of: HashMap<u32, usize>,
    /// Numbers of the threads that are selected; `None` if all are.
    selected: Option<HashSet<u32>>,
}

impl ThreadTable {
    pub(super) fn new(selected: Option<HashSet<u32>>) -> ThreadTable {
        ThreadTable { index_of: HashMap::default(), selected }
    }

    /// Whether a part of the threads is selected, rather than all of them.
    pub(super) fn is_selective(&self) -> bool {
        self.selected.is_some()
    }

    /// Whether stacks and lines count the events of this thread.
    pub(super) fn is_selected(&self, id: u32) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected.contains(&id))
    }

    /// Returns the thread with this number, and whether it is new.
    pub(super) fn find_or_add(&mut self, id: u32) -> (ThreadRef, bool) {
        let count = self.index_of.len();
        let index = *self.index_of.entry(id).or_insert(count);
        (ThreadRef { id, index, is_selected: self.is_selected(id) }, index == count)
    }
}
