//! Replays of hand-made records.

use super::*;
use alloc_dump::trailer::EndReason;

const MAIN: StackId = StackId(3);
const LEAF: StackId = StackId(4);
const OTHER: StackId = StackId(5);

fn replay(from_first_event: bool, records: &[Record<'_>]) -> Profile {
    replay_of(None, from_first_event, records)
}

fn replay_of(selected: Option<&[u32]>, from_first_event: bool, records: &[Record<'_>]) -> Profile {
    let selected = selected.map(|ids| ids.iter().copied().collect());
    let mut replay = Replay::new(Header { session: [0; 16], created_unix_ns: 0 }, selected);
    replay.record(&Record::Process(record::Process { from_first_event, ..record::Process::default() }));
    for (id, parent) in [(MAIN, StackId::ROOT), (LEAF, MAIN), (OTHER, MAIN)] {
        replay.record(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record(record));
    replay.finish(Some(&Trailer::new(EndReason::Finished, 0)), Damage::default())
}

fn alloc(addr: u64, size: u64, stack: StackId) -> Record<'static> {
    Record::Alloc { addr, size, stack, zeroed: false }
}

fn free(addr: u64, stack: StackId) -> Record<'static> {
    Record::Dealloc { addr, size: None, stack }
}

fn stats(profile: &Profile, stack: StackId) -> StackStats {
    profile.stacks[stack.0 as usize]
}

#[test]
fn a_realloc_is_one_event_and_moves_the_bytes_to_its_stack() {
    let profile = replay(
        true,
        &[
            Record::Time { us: 10 },
            alloc(1, 100, LEAF),
            Record::Time { us: 20 },
            Record::Realloc { old: 1, old_size: None, new: 2, size: 250, stack: OTHER },
        ],
    );
    let totals = profile.totals;
    assert_eq!((totals.allocations, totals.reallocations, totals.deallocations), (1, 1, 0));
    assert_eq!((totals.allocated_bytes, totals.freed_bytes), (350, 100));
    // Never 350: live changes by the difference, in one step.
    assert_eq!((totals.peak_bytes, totals.peak_blocks, totals.peak_us), (250, 1, 20));
    let (leaf, other) = (stats(&profile, LEAF), stats(&profile, OTHER));
    assert_eq!((leaf.live_bytes, leaf.allocated, leaf.freed), (0, 100, 0));
    assert_eq!((other.live_bytes, other.allocated, other.freed), (250, 250, 100));
    // The block keeps the time of its birth.
    assert_eq!((other.live_first_us, other.live_last_us), (10, 10));
}

#[test]
fn an_address_may_be_reused_in_the_middle_of_a_realloc() {
    let profile = replay(
        true,
        &[
            Record::Thread { id: 1 },
            alloc(1, 100, LEAF),
            Record::ReallocBegin { old: 1, old_size: None },
            Record::Thread { id: 2 },
            alloc(1, 7, OTHER),
            Record::Thread { id: 1 },
            Record::ReallocEnd { new: 9, size: 200, stack: LEAF },
            free(9, LEAF),
            Record::Thread { id: 2 },
            Record::ReallocBegin { old: 1, old_size: None },
            Record::ReallocFailed,
        ],
    );
    assert_eq!((profile.totals.live_bytes, profile.totals.peak_bytes), (7, 207));
    assert_eq!((profile.totals.reallocations, profile.trust.inconsistent_events), (1, 0));
    assert!(profile.trust.exact());
}

#[test]
fn temporary_means_freed_by_the_threads_next_event() {
    let profile = replay(
        true,
        &[
            Record::Thread { id: 1 },
            alloc(1, 10, LEAF),
            // Another thread's events do not count.
            Record::Thread { id: 2 },
            alloc(2, 20, LEAF),
            Record::Thread { id: 1 },
            free(1, MAIN),
            // Not the next event: something was allocated in between.
            alloc(3, 30, LEAF),
            alloc(4, 40, OTHER),
            free(3, MAIN),
            // Not an allocation's next event: a realloc is one.
            Record::Realloc { old: 4, old_size: None, new: 5, size: 50, stack: OTHER },
            free(5, MAIN),
            // Freed by another thread: it is not the next event of its own.
            Record::Thread { id: 2 },
            alloc(6, 60, LEAF),
            Record::Thread { id: 1 },
            free(6, MAIN),
        ],
    );
    assert_eq!(profile.totals.temporary, 1);
    assert_eq!((stats(&profile, LEAF).temporary, stats(&profile, LEAF).temporary_bytes), (1, 10));
}

#[test]
fn stacks_hold_what_the_selected_threads_allocated_and_totals_are_the_processs() {
    let records = [
        Record::Thread { id: 1 },
        alloc(1, 100, LEAF),
        alloc(2, 7, OTHER),
        Record::Thread { id: 2 },
        alloc(3, 1000, LEAF),
        Record::Realloc { old: 1, old_size: None, new: 4, size: 130, stack: MAIN },
        free(2, MAIN),
        alloc(5, 10, LEAF),
    ];
    let of = |ids: &[u32]| replay_of(Some(ids), true, &records);
    let (first, second, all) = (of(&[1]), of(&[2]), replay(true, &records));
    for profile in [&first, &second] {
        assert_eq!(profile.totals, all.totals);
        assert!(profile.trust.exact());
    }
    // 107, 1107, 1137, 1130, 1140: the maximum is the last one, which only the second thread has blocks at.
    assert_eq!((all.totals.peak_bytes, all.totals.stacks), (1140, 3));
    let held = |profile: &Profile, stack| {
        let stats = stats(profile, stack);
        (stats.peak_bytes, stats.live_bytes, stats.live_blocks, stats.allocated, stats.freed)
    };
    assert_eq!(held(&first, LEAF), (0, 0, 0, 100, 0));
    assert_eq!(held(&second, LEAF), (1010, 1010, 2, 1010, 0));
    assert_eq!(held(&second, MAIN), (130, 130, 1, 130, 107));
    // What the second thread freed is not the first one's any more, and never was the second's.
    assert_eq!((held(&first, OTHER), held(&second, OTHER)), ((0, 0, 0, 7, 0), (0, 0, 0, 0, 0)));
}

#[test]
fn another_threads_block_at_an_address_whose_free_was_lost() {
    let records = [
        Record::Thread { id: 1 },
        alloc(1, 100, LEAF),
        Record::Thread { id: 2 },
        alloc(1, 50, OTHER),
        Record::Thread { id: 1 },
        free(1, MAIN),
    ];
    let (first, all) = (replay_of(Some(&[1]), true, &records), replay(true, &records));
    // It is not the block that this thread has allocated just before.
    assert_eq!((first.totals, first.totals.temporary), (all.totals, 0));
    assert_eq!((stats(&first, LEAF).live_bytes, stats(&first, MAIN).freed), (0, 50));
}

/// The worker gets the address again that it has just freed; for the thread that allocated there before it is another block.
#[test]
fn temporary_is_a_block_and_not_an_address() {
    let profile = replay(
        true,
        &[
            Record::Thread { id: 1 },
            alloc(1, 10, LEAF),
            Record::Thread { id: 2 },
            free(1, MAIN),
            alloc(1, 10, OTHER),
            Record::Thread { id: 1 },
            free(1, MAIN),
        ],
    );
    assert_eq!((profile.totals.temporary, stats(&profile, OTHER).temporary), (0, 0));
}

#[test]
fn a_block_that_is_being_moved_at_the_end_hides_no_other() {
    let records = [
        Record::Time { us: 5 },
        Record::Thread { id: 1 },
        alloc(1, 100, LEAF),
        Record::ReallocBegin { old: 1, old_size: None },
        Record::Time { us: 9 },
        Record::Thread { id: 2 },
        alloc(1, 7, OTHER),
    ];
    let profile = replay(true, &records);
    let times = |stack| (stats(&profile, stack).live_first_us, stats(&profile, stack).live_last_us);
    assert_eq!((times(LEAF), times(OTHER)), ((5, 5), (9, 9)));
    assert_eq!((stats(&profile, LEAF).live_bytes, profile.totals.live_bytes), (100, 107));
}

#[test]
fn frames_belong_to_the_module_that_came_next_at_their_address() {
    let module =
        |id, start, end| Record::Module(record::Module { id, start, end, ..record::Module::default() });
    let node = |id, pc| Record::Node { id: StackId(id), parent: MAIN, pc };
    let records = [
        node(6, 150),
        module(1, 100, 200),
        node(7, 160),
        // Another one takes its place, which may be said before the first is said to have gone.
        module(2, 100, 200),
        Record::ModuleEnd { id: 1 },
        node(8, 160),
        Record::ModuleEnd { id: 2 },
        node(9, 170),
    ];
    let profile = replay(true, &records);
    let modules: Vec<Option<u32>> = (6..10).map(|at| profile.nodes[at].module).collect();
    assert_eq!(modules, [Some(0), Some(0), Some(1), None]);
}

#[test]
fn what_is_older_than_the_recording_is_counted_apart() {
    let records = [
        Record::Dealloc { addr: 1, size: Some(100), stack: LEAF },
        Record::Realloc { old: 2, old_size: Some(30), new: 3, size: 50, stack: LEAF },
    ];
    let late = replay(false, &records);
    assert_eq!((late.totals.foreign_frees, late.totals.foreign_bytes), (2, 130));
    assert_eq!((late.totals.freed_bytes, late.totals.live_bytes), (130, 50));
    assert!(late.trust.exact());
    // In a recording that saw everything from the start this cannot be.
    let whole = replay(true, &records);
    assert_eq!((whole.trust.inconsistent_events, whole.trust.exact()), (2, false));
}

#[test]
fn contradictions_are_counted_and_survived() {
    let profile = replay(
        true,
        &[
            alloc(1, 10, LEAF),
            alloc(1, 20, OTHER),
            free(99, LEAF),
            alloc(2, 5, StackId(4_000_000_000)),
            Record::Node { id: StackId(4_000_000_000), parent: MAIN, pc: 1 },
            Record::Node { id: MAIN, parent: MAIN, pc: 1 },
            Record::ReallocEnd { new: 7, size: 1, stack: LEAF },
        ],
    );
    assert_eq!(profile.totals.live_bytes, 20 + 5 + 1);
    // The block under the reused address, the unknown free, two impossible nodes, the realloc of nothing.
    assert_eq!(profile.trust.inconsistent_events, 5);
    assert_eq!(profile.nodes.len(), 6, "a number that was not paid for makes no room");
    assert_eq!(stats(&profile, StackId::NONE).live_bytes, 5);
}

#[test]
fn stacks_that_were_cut_off_are_counted_by_event() {
    let cut = StackId(6);
    let profile = replay(
        true,
        &[
            Record::Node { id: cut, parent: StackId::TRUNCATED, pc: 6 },
            Record::Node { id: StackId(7), parent: cut, pc: 7 },
            alloc(1, 1, StackId(7)),
            free(1, cut),
            alloc(2, 1, LEAF),
        ],
    );
    assert_eq!(profile.trust.truncated_stacks, 2);
}

#[test]
fn marks_that_are_too_many_are_no_contradiction() {
    let mut records = vec![Record::MarkName { id: 1, name: b"round" }];
    records.extend(std::iter::repeat_n(Record::Mark { id: 1 }, MOST_MARKS + 3));
    let profile = replay(true, &records);
    assert_eq!((profile.marks.len(), profile.marks_dropped), (MOST_MARKS, 3));
    assert!(profile.trust.exact());
    assert_eq!(replay(true, &[Record::Mark { id: 7 }]).trust.inconsistent_events, 1);
}

#[test]
fn sizes_fall_into_powers_of_two() {
    for (size, class) in
        [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11), (u64::MAX, 64)]
    {
        assert_eq!(size_class(size), class, "{size}");
    }
}
