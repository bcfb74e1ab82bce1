//! Replays of hand-made records whose live blocks follow from arithmetic.

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::Record;

use super::*;
use crate::load::made_records::{alloc, free, realloc};
use crate::load::replay::{Replay, ReplayScope};
use crate::pattern::Pattern;

const MAIN: StackId = StackId(3);
const LEAF: StackId = StackId(4);

fn replay(keep: KeepBlocks, selected: Option<&[u32]>, records: &[Record<'_>]) -> Profile {
    let selected = selected.map(|ids| ids.iter().copied().collect());
    let mut replay = Replay::new(
        &Header { session: [0; 16], created_unix_ns: 0 },
        ReplayScope { selected, keep, ..ReplayScope::default() },
    );
    for (id, parent) in [(MAIN, StackId::ROOT), (LEAF, MAIN)] {
        replay.record(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record(record));
    replay.finish(None, Damage::default())
}

fn block(address: u64, size: u64, stack: StackId, born_us: u64) -> HeapBlock {
    HeapBlock { address, size, stack, born_us, is_in_event: false }
}

fn at_marks(pattern: &str) -> KeepBlocks {
    KeepBlocks::AtEndAndMarks(Pattern::new(pattern))
}

#[test]
fn the_blocks_at_the_end_are_those_that_nobody_freed() {
    let records = [
        Record::Thread { id: 1 },
        Record::Time { us: 5 },
        alloc(0x30, 10, LEAF),
        alloc(0x20, 20, MAIN),
        Record::Time { us: 9 },
        alloc(0x10, 30, LEAF),
        free(0x20),
        // The block keeps the time of its birth, and belongs to the stack of its last realloc.
        realloc(0x30, 0x40, 11, MAIN),
    ];
    let kept = replay(KeepBlocks::AtEnd, None, &records).blocks.unwrap();
    assert_eq!(kept.at_end, [block(0x10, 30, LEAF, 9), block(0x40, 11, MAIN, 5)]);
    assert!(kept.at_marks.is_empty());
    assert_eq!(replay(KeepBlocks::Nothing, None, &records).blocks, None);
}

#[test]
fn a_block_in_the_middle_of_a_realloc_is_live_at_its_old_address() {
    let records = [
        Record::Thread { id: 1 },
        alloc(0x10, 10, LEAF),
        Record::ReallocBegin { old: 0x10, old_size: None },
        // The dump has no allocation of this block.
        Record::ReallocBegin { old: 0x50, old_size: Some(7) },
    ];
    let kept = replay(KeepBlocks::AtEnd, None, &records).blocks.unwrap();
    assert_eq!(kept.at_end, [block(0x10, 10, LEAF, 0)]);
}

#[test]
fn marks_whose_name_matches_have_the_blocks_of_their_moment() {
    let records = [
        Record::MarkName { id: 1, name: b"round" },
        Record::MarkName { id: 2, name: b"other" },
        Record::Thread { id: 1 },
        Record::Mark { id: 1 },
        alloc(0x10, 10, LEAF),
        Record::Mark { id: 2 },
        Record::Time { us: 3 },
        Record::Mark { id: 1 },
        alloc(0x20, 20, MAIN),
        free(0x10),
        Record::Mark { id: 1 },
    ];
    let kept = replay(at_marks("rou"), None, &records).blocks.unwrap();
    let shown: Vec<_> =
        kept.at_marks.iter().map(|at| (at.mark.us, at.mark.live_bytes, at.blocks.as_slice())).collect();
    let (first, second) = ([block(0x10, 10, LEAF, 0)], [block(0x20, 20, MAIN, 3)]);
    assert_eq!(shown, [(0, 0, &[][..]), (3, 10, &first[..]), (3, 20, &second[..])]);
    assert!(kept.at_marks.iter().all(|at| at.mark.name == "round" && at.mark.thread == 1));
    assert_eq!((kept.at_end.as_slice(), kept.marks_dropped), (&second[..], 0));
}

#[test]
fn blocks_of_threads_that_are_not_selected_are_left_out() {
    let records = [
        Record::Thread { id: 1 },
        alloc(0x10, 10, LEAF),
        alloc(0x18, 1, LEAF),
        Record::Thread { id: 2 },
        alloc(0x20, 20, LEAF),
        // From now on this block belongs to the second thread.
        realloc(0x18, 0x28, 2, MAIN),
    ];
    let kept = |ids: &[u32]| replay(KeepBlocks::AtEnd, Some(ids), &records).blocks.unwrap().at_end;
    assert_eq!(kept(&[1]), [block(0x10, 10, LEAF, 0)]);
    assert_eq!(kept(&[2]), [block(0x20, 20, LEAF, 0), block(0x28, 2, MAIN, 0)]);
}

#[test]
fn too_many_marks_are_counted_and_not_kept() {
    let mut records = vec![Record::MarkName { id: 1, name: b"round" }, Record::Thread { id: 1 }];
    records.extend(std::iter::repeat_n(Record::Mark { id: 1 }, MAX_MARKS + 2));
    let kept = replay(at_marks("round"), None, &records).blocks.unwrap();
    assert_eq!((kept.at_marks.len(), kept.marks_dropped), (MAX_MARKS, 2));
}

#[test]
fn snapshots_have_the_blocks_of_all_threads_and_those_that_are_moved() {
    let records = [
        Record::Thread { id: 1 },
        alloc(0x10, 10, LEAF),
        alloc(0x30, 30, MAIN),
        Record::Thread { id: 2 },
        alloc(0x20, 20, LEAF),
        Record::ReallocBegin { old: 0x30, old_size: None },
        // A block that took the place of the one that is moved, before that has a new place.
        alloc(0x30, 5, LEAF),
        Record::Time { us: 7 },
        Record::Snapshot { id: 4, copying_us: 3, name: b"warm" },
        free(0x20),
        // Nobody asked for this one, and the other has its blocks already.
        Record::Snapshot { id: 5, copying_us: 3, name: b"warm" },
        Record::Snapshot { id: 4, copying_us: 3, name: b"warm" },
    ];
    let keep = || KeepBlocks::AtEndAndSnapshots(vec![4, 6]);
    let kept = replay(keep(), Some(&[1]), &records).blocks.unwrap();
    let moved = HeapBlock { is_in_event: true, ..block(0x30, 30, MAIN, 0) };
    let blocks = vec![block(0x10, 10, LEAF, 0), block(0x20, 20, UNSELECTED, 0), moved];
    assert_eq!(kept.at_snapshots, [SnapshotBlocks { id: 4, us: 7, begun_us: 4, blocks }]);
    assert_eq!(kept.at_end.len(), 2, "those of the selected thread");
    let all = replay(keep(), None, &records).blocks.unwrap();
    assert_eq!(all.at_snapshots[0].blocks[1], block(0x20, 20, LEAF, 0));
}
