//! The live blocks themselves, at the end, at marks and at snapshots, if the caller of the loader
//! asked for them. In: marks, records of snapshots, and the live set. Out: copies of the live
//! blocks.
//!
//! Does nothing for events: the live set has the blocks anyway, and this observer copies them at
//! the moments that the caller asked for. Its memory grows with the number of live blocks. For all
//! marks together there is a bound.

use alloc_dump::record::Record;
use foldhash::HashMap;

use super::marks::{MAX_MARKS, mark_at};
use super::{Moment, Observer, ReplayEnd};
use crate::load::heap::{Heap, LiveBlock, UNSELECTED};
use crate::load::options::KeepBlocks;
use crate::profile::{HeapBlock, KeptBlocks, MarkedBlocks, Profile, SnapshotBlocks};

/// Copies live blocks.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct BlocksObserver {
    keep: KeepBlocks,
    /// Names of the marks at which blocks are kept, by their number in the dump.
    names: HashMap<u32, String>,
    at_marks: Vec<MarkedBlocks>,
    /// Number of all blocks in `at_marks`.
    count: usize,
    marks_dropped: u64,
    /// Number of marks in the dump so far.
    marks_seen: u64,
    at_snapshots: Vec<SnapshotBlocks>,
}

impl BlocksObserver {
    pub(in crate::load) fn new(keep: KeepBlocks) -> BlocksObserver {
        BlocksObserver { keep, ..BlocksObserver::default() }
    }

    #[cold]
    fn keep_at_mark(&mut self, name: String, moment: &Moment<'_>) {
        // This number includes the blocks of unselected threads, which are not copied. So the
        // copies may stay below the bound, but never exceed it.
        let count = usize::try_from(moment.heap.live_blocks()).unwrap_or(usize::MAX);
        if self.at_marks.len() == MAX_MARKS || self.count.saturating_add(count) > MAX_MARK_BLOCKS {
            self.marks_dropped += 1;
            return;
        }
        let blocks = blocks_of(moment.heap);
        self.count += blocks.len();
        self.at_marks.push(MarkedBlocks { mark: mark_at(name, self.marks_seen, moment), blocks });
    }
}

impl Observer for BlocksObserver {
    #[inline]
    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        let keep = &self.keep;
        if let (Record::Snapshot { id, copying_us, .. }, KeepBlocks::AtEndAndSnapshots(ids)) = (record, keep)
        {
            // Nobody asks for many; a forged dump may have the record of one any number of times.
            if ids.contains(id) && self.at_snapshots.iter().all(|snapshot| snapshot.id != *id) {
                self.at_snapshots.push(snapshot_blocks(*id, *copying_us, moment));
            }
            return;
        }
        let KeepBlocks::AtEndAndMarks(pattern) = &self.keep else { return };
        match *record {
            Record::MarkName { id, name } if self.names.len() < MAX_MARKS => {
                let name = String::from_utf8_lossy(name);
                if pattern.matches(&name) {
                    self.names.insert(id, name.into_owned());
                }
            }
            Record::Mark { id } => {
                self.marks_seen += 1;
                if moment.is_before {
                    return;
                }
                if let Some(name) = self.names.get(&id) {
                    self.keep_at_mark(name.clone(), moment);
                }
            }
            _ => {}
        }
    }

    fn finish(self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        if matches!(self.keep, KeepBlocks::Nothing) {
            return;
        }
        profile.blocks = Some(KeptBlocks {
            at_end: blocks_of(end.heap),
            at_marks: self.at_marks,
            marks_dropped: self.marks_dropped,
            at_snapshots: self.at_snapshots,
        });
    }
}

/// Returns all live blocks, whichever thread and interval they are of: any block may hold any
/// other.
#[cold]
fn snapshot_blocks(id: u32, copying_us: u64, moment: &Moment<'_>) -> SnapshotBlocks {
    let mut blocks: Vec<HeapBlock> = moment.heap.blocks().map(heap_block).collect();
    for (address, block) in moment.heap.moving_blocks() {
        blocks.push(HeapBlock { is_in_event: true, ..heap_block((address, block)) });
    }
    blocks.sort_unstable_by_key(|block| (block.address, !block.is_in_event, block.born_us, block.size));
    // A block in the middle of a realloc is there twice. Its address may be that of a new block.
    blocks.dedup_by_key(|block| block.address);
    SnapshotBlocks { id, us: moment.us, begun_us: moment.us.saturating_sub(copying_us), blocks }
}

/// Returns the live blocks of selected threads in the order of their addresses, without those that
/// are older than the interval.
pub(in crate::load) fn blocks_of(heap: &Heap) -> Vec<HeapBlock> {
    let counts = |block: &LiveBlock| block.stack != UNSELECTED && !block.birth.is_older();
    let selected = heap.blocks().filter(|(_, block)| counts(block));
    let mut blocks: Vec<HeapBlock> = selected.map(heap_block).collect();
    // Two blocks have one address only while one of them is in the middle of a realloc.
    blocks.sort_unstable_by_key(|block| (block.address, block.born_us, block.size, block.stack));
    blocks
}

fn heap_block((address, block): (u64, &LiveBlock)) -> HeapBlock {
    HeapBlock { address, size: block.size, stack: block.stack, born_us: block.birth.us(), is_in_event: false }
}

/// The most blocks that are kept for all marks together: half a gigabyte.
const MAX_MARK_BLOCKS: usize = 1 << 24;

#[cfg(test)]
mod tests;
