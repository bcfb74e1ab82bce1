//! The addresses of the tracker's own mappings, so that a snapshot can leave them out: they hold
//! addresses of blocks that the program may have forgotten.
//!
//! In: mappings that are made and given up. Out: their starts and lengths. Lock-free; never
//! allocates. If there are more mappings than the table has room for, the table says so.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The most mappings that are known.
const ROOM: usize = alloc_dump::exchange::MAX_REPORT_MAPPINGS;

/// A mapping: its start, 0 if the slot is free, and its length.
struct MappingSlot {
    start: AtomicU64,
    len: AtomicU64,
}

static SLOTS: [MappingSlot; ROOM] =
    [const { MappingSlot { start: AtomicU64::new(0), len: AtomicU64::new(0) } }; ROOM];
/// No slot from this one on was ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Whether a mapping found no slot.
static IS_FULL: AtomicBool = AtomicBool::new(false);

/// Notes a mapping.
pub(super) fn add(start: u64, len: usize) {
    for (index, slot) in SLOTS.iter().enumerate() {
        if slot.start.load(Ordering::Relaxed) == 0
            && slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            slot.len.store(len as u64, Ordering::Release);
            USED.fetch_max(index + 1, Ordering::AcqRel);
            return;
        }
    }
    IS_FULL.store(true, Ordering::Relaxed);
}

/// Forgets the mapping that begins at `start`.
pub(super) fn remove(start: u64) {
    let used = USED.load(Ordering::Acquire);
    if let Some(slot) = SLOTS[..used].iter().find(|slot| slot.start.load(Ordering::Relaxed) == start) {
        // The length comes first: a slot that gets another mapping begins with a length of 0.
        slot.len.store(0, Ordering::Release);
        slot.start.store(0, Ordering::Release);
    }
}

/// Calls `f` with the start and the length of each mapping. Returns whether these are all.
pub(crate) fn for_each_own_mapping(mut f: impl FnMut(u64, u64)) -> bool {
    for slot in &SLOTS[..USED.load(Ordering::Acquire)] {
        let (start, len) = (slot.start.load(Ordering::Acquire), slot.len.load(Ordering::Acquire));
        if start != 0 && len != 0 {
            f(start, len);
        }
    }
    !IS_FULL.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sys::Mapping;

    fn is_known(start: u64) -> bool {
        let mut found = false;
        for_each_own_mapping(|at, _| found |= at == start);
        found
    }

    #[test]
    fn a_mapping_is_known_as_long_as_it_is_mapped() {
        let mapping = Mapping::anonymous(4096).unwrap();
        let start = mapping.start().addr() as u64;
        assert!(is_known(start));
        drop(mapping);
        assert!(!is_known(start));
        let huge = Mapping::of_huge_pages(3 << 20).unwrap();
        let (start, mut len) = (huge.start().addr() as u64, 0);
        for_each_own_mapping(|at, of| len += if at == start { of } else { 0 });
        assert_eq!(len, 4 << 20);
    }
}
