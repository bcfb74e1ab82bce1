//! Replays of hand-made records.

use super::*;
use crate::load::made_records::{alloc, free_at, realloc};
use crate::load::observers::marks::MAX_MARKS;
use crate::load::options::Period;
use crate::profile::{GrownBlocks, ShortLivedWithin, StackStats};
use alloc_dump::trailer::EndReason;

const MAIN: StackId = StackId(3);
const LEAF: StackId = StackId(4);
const OTHER: StackId = StackId(5);

const HEADER: Header = Header { session: [0; 16], created_unix_ns: 0 };

fn replay(from_first_event: bool, records: &[Record<'_>]) -> Profile {
    replay_of(None, from_first_event, records)
}

fn replay_of(selected: Option<&[u32]>, from_first_event: bool, records: &[Record<'_>]) -> Profile {
    replay_with(selected, from_first_event, records, None)
}

fn replay_with(
    selected: Option<&[u32]>,
    from_first_event: bool,
    records: &[Record<'_>],
    totals: Option<Totals>,
) -> Profile {
    let selected = selected.map(|ids| ids.iter().copied().collect());
    let mut replay = Replay::new(&HEADER, ReplayScope { selected, ..ReplayScope::default() });
    replay.record(&Record::Process(record::Process { from_first_event, ..record::Process::default() }));
    for (id, parent) in [(MAIN, StackId::ROOT), (LEAF, MAIN), (OTHER, MAIN)] {
        replay.record(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record(record));
    replay.finish(Some(&Trailer { totals, ..Trailer::new(EndReason::Finished, 0) }), Damage::default())
}

fn stats(profile: &Profile, stack: StackId) -> StackStats {
    profile.stacks[stack.0 as usize]
}

#[test]
fn a_realloc_is_one_event_and_moves_the_bytes_to_its_stack() {
    let profile = replay(
        true,
        &[Record::Time { us: 10 }, alloc(1, 100, LEAF), Record::Time { us: 20 }, realloc(1, 2, 250, OTHER)],
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
            free_at(9, LEAF),
            Record::Thread { id: 2 },
            Record::ReallocBegin { old: 1, old_size: None },
            Record::ReallocFailed,
        ],
    );
    assert_eq!((profile.totals.live_bytes, profile.totals.peak_bytes), (7, 207));
    assert_eq!((profile.totals.reallocations, profile.trust.inconsistent_events), (1, 0));
    assert!(profile.trust.is_exact());
}

#[test]
fn a_block_is_temporary_if_the_next_event_of_its_thread_frees_it() {
    let profile = replay(
        true,
        &[
            Record::Thread { id: 1 },
            alloc(1, 10, LEAF),
            // Events of another thread do not count.
            Record::Thread { id: 2 },
            alloc(2, 20, LEAF),
            Record::Thread { id: 1 },
            free_at(1, MAIN),
            // Not temporary: the thread has allocated another block in between.
            alloc(3, 30, LEAF),
            alloc(4, 40, OTHER),
            free_at(3, MAIN),
            // Not temporary: the event before is a realloc, not an allocation.
            realloc(4, 5, 50, OTHER),
            free_at(5, MAIN),
            // Not temporary: another thread frees the block.
            Record::Thread { id: 2 },
            alloc(6, 60, LEAF),
            Record::Thread { id: 1 },
            free_at(6, MAIN),
        ],
    );
    assert_eq!(profile.totals.temporary, 1);
    assert_eq!((stats(&profile, LEAF).temporary, stats(&profile, LEAF).temporary_bytes), (1, 10));
}

#[test]
fn stacks_hold_the_blocks_of_selected_threads_and_totals_those_of_the_process() {
    let records = [
        Record::Thread { id: 1 },
        alloc(1, 100, LEAF),
        alloc(2, 7, OTHER),
        Record::Thread { id: 2 },
        alloc(3, 1000, LEAF),
        realloc(1, 4, 130, MAIN),
        free_at(2, MAIN),
        alloc(5, 10, LEAF),
    ];
    let of = |ids: &[u32]| replay_of(Some(ids), true, &records);
    let (first, second, all) = (of(&[1]), of(&[2]), replay(true, &records));
    for profile in [&first, &second] {
        assert_eq!(profile.totals, all.totals);
        assert!(profile.trust.is_exact());
    }
    // Live: 100, 107, 1107, 1137, 1130, 1140. At the peak, the last value, only the second thread
    // has blocks.
    assert_eq!((all.totals.peak_bytes, all.totals.stacks), (1140, 3));
    let held = |profile: &Profile, stack| {
        let stats = stats(profile, stack);
        (stats.peak_bytes, stats.live_bytes, stats.live_blocks, stats.allocated, stats.freed)
    };
    assert_eq!(held(&first, LEAF), (0, 0, 0, 100, 0));
    assert_eq!(held(&second, LEAF), (1010, 1010, 2, 1010, 0));
    assert_eq!(held(&second, MAIN), (130, 130, 1, 130, 107));
    // The block that the second thread freed belonged to the first thread.
    assert_eq!((held(&first, OTHER), held(&second, OTHER)), ((0, 0, 0, 7, 0), (0, 0, 0, 0, 0)));
}

#[test]
fn a_block_at_an_address_whose_free_was_lost_is_not_temporary() {
    let records = [
        Record::Thread { id: 1 },
        alloc(1, 100, LEAF),
        Record::Thread { id: 2 },
        alloc(1, 50, OTHER),
        Record::Thread { id: 1 },
        free_at(1, MAIN),
    ];
    let (first, all) = (replay_of(Some(&[1]), true, &records), replay(true, &records));
    // The freed block is not the one that this thread has just allocated.
    assert_eq!((first.totals, first.totals.temporary), (all.totals, 0));
    assert_eq!((stats(&first, LEAF).live_bytes, stats(&first, MAIN).freed), (0, 50));
}

/// Thread 2 frees the block of thread 1 and gets its address again. So the block that thread 1 then
/// frees is not the block that it has allocated.
#[test]
fn a_block_of_another_thread_at_the_same_address_is_not_temporary() {
    let profile = replay(
        true,
        &[
            Record::Thread { id: 1 },
            alloc(1, 10, LEAF),
            Record::Thread { id: 2 },
            free_at(1, MAIN),
            alloc(1, 10, OTHER),
            Record::Thread { id: 1 },
            free_at(1, MAIN),
        ],
    );
    assert_eq!((profile.totals.temporary, stats(&profile, OTHER).temporary), (0, 0));
}

#[test]
fn a_block_in_the_middle_of_a_realloc_at_the_end_hides_no_other() {
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
fn a_node_belongs_to_the_module_that_came_next_at_its_address() {
    let module =
        |id, start, end| Record::Module(record::Module { id, start, end, ..record::Module::default() });
    let node = |id, pc| Record::Node { id: StackId(id), parent: MAIN, pc };
    let records = [
        node(6, 150),
        module(1, 100, 200),
        node(7, 160),
        // Another module gets the addresses of the first. The dump may record that before it
        // records that the first was unmapped.
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
fn blocks_older_than_the_recording_are_counted_apart() {
    let records = [
        Record::Dealloc { addr: 1, size: Some(100), stack: LEAF },
        Record::Realloc { old: 2, old_size: Some(30), new: 3, size: 50, stack: LEAF },
    ];
    let late = replay(false, &records);
    assert_eq!((late.totals.foreign_frees, late.totals.foreign_bytes), (2, 130));
    assert_eq!((late.totals.freed_bytes, late.totals.live_bytes), (130, 50));
    assert!(late.trust.is_exact());
    // In a recording that began with the first event no block is older.
    let whole = replay(true, &records);
    assert_eq!((whole.trust.inconsistent_events, whole.trust.allocated_elsewhere), (0, 2));
    assert_eq!((whole.totals.foreign_frees, whole.totals.freed_bytes), (0, 130));
    assert!(!whole.trust.is_exact());
}

/// The records of frees have no sizes where the recorder expects that readers have seen every
/// allocation. The recorder's own sum has the sizes.
#[test]
fn bytes_of_blocks_that_were_allocated_elsewhere_are_those_of_the_recorder() {
    let mut recorded = Totals { allocations: 1, deallocations: 2, ..Totals::default() };
    (recorded.allocated_bytes, recorded.freed_bytes) = (100, 100 + 30);
    let records = |elsewhere| [alloc(1, 100, LEAF), free_at(elsewhere, LEAF), free_at(1, LEAF)];
    let profile = replay_with(None, true, &records(9), Some(recorded));
    assert_eq!((profile.totals.freed_bytes, profile.totals.live_bytes), (130, 0));
    assert_eq!((profile.trust.allocated_elsewhere, profile.trust.disagreement), (1, None));
    // Another number of events is a disagreement all the same.
    recorded.deallocations = 3;
    let profile = replay_with(None, true, &records(9), Some(recorded));
    assert_eq!(profile.trust.disagreement, Some(recorded));
}

#[test]
fn a_recording_without_events_proves_nothing_unless_all_code_was_served() {
    let of = |installation: Option<Installation>, records: &[Record<'_>]| {
        let said = installation.map(Record::Installation);
        let all: Vec<Record<'_>> = said.iter().chain(records).copied().collect();
        replay(true, &all).trust
    };
    assert!(of(None, &[]).is_unproven && !of(None, &[]).is_exact());
    assert!(of(None, &[alloc(1, 1, LEAF)]).is_exact());
    assert!(of(Some(Installation::Complete), &[]).is_exact());
    for some in [Installation::Partial, Installation::Missing] {
        assert!(!of(Some(some), &[]).is_exact() && !of(Some(some), &[alloc(1, 1, LEAF)]).is_exact());
    }
    // The last statement counts.
    let complete = [Record::Installation(Installation::Complete)];
    assert!(of(Some(Installation::Partial), &complete).is_exact());
}

#[test]
fn contradictions_are_counted_and_survived() {
    let profile = replay(
        true,
        &[
            alloc(1, 10, LEAF),
            alloc(1, 20, OTHER),
            free_at(99, LEAF),
            alloc(2, 5, StackId(4_000_000_000)),
            Record::Node { id: StackId(4_000_000_000), parent: MAIN, pc: 1 },
            Record::Node { id: MAIN, parent: MAIN, pc: 1 },
            Record::ReallocEnd { new: 7, size: 1, stack: LEAF },
        ],
    );
    assert_eq!(profile.totals.live_bytes, 20 + 5 + 1);
    // The three contradictions: two impossible nodes, and a realloc without a begin.
    assert_eq!(profile.trust.inconsistent_events, 3);
    // The unknown free, and the block at the reused address.
    assert_eq!((profile.trust.allocated_elsewhere, profile.trust.freed_elsewhere), (1, 1));
    assert_eq!(profile.nodes.len(), 6, "an id whose nodes are not in the file makes no room");
    assert_eq!(stats(&profile, StackId::NONE).live_bytes, 5);
}

#[test]
fn truncated_stacks_are_counted_by_event() {
    let cut = StackId(6);
    let profile = replay(
        true,
        &[
            Record::Node { id: cut, parent: StackId::TRUNCATED, pc: 6 },
            Record::Node { id: StackId(7), parent: cut, pc: 7 },
            alloc(1, 1, StackId(7)),
            free_at(1, cut),
            alloc(2, 1, LEAF),
        ],
    );
    assert_eq!(profile.trust.truncated_stacks, 2);
}

#[test]
fn too_many_marks_are_no_contradiction() {
    let mut records = vec![alloc(1, 1, LEAF), Record::MarkName { id: 1, name: b"round" }];
    records.extend(std::iter::repeat_n(Record::Mark { id: 1 }, MAX_MARKS + 3));
    let profile = replay(true, &records);
    assert_eq!((profile.marks.len(), profile.marks_dropped), (MAX_MARKS, 3));
    assert!(profile.trust.is_exact());
    assert_eq!(replay(true, &[Record::Mark { id: 7 }]).trust.inconsistent_events, 1);
}

/// Replays the records of an interval, as `load` does: a first pass tells its moments.
fn replay_interval(from: Option<&str>, to: &str, records: &[Record<'_>]) -> Profile {
    replay_interval_of(None, from, to, records)
}

fn replay_interval_of(
    selected: Option<&[u32]>,
    from: Option<&str>,
    to: &str,
    records: &[Record<'_>],
) -> Profile {
    let whole = replay(true, records);
    let period = Period { from: from.map(|from| from.parse().unwrap()), to: to.parse().unwrap() };
    let gate = Some(Gate::of(&period, &whole).unwrap());
    let selected = selected.map(|ids| ids.iter().copied().collect());
    let short_lived = Some(ShortLivedWithin::default());
    let scope = ReplayScope { selected, gate, short_lived, resizes: true, ..ReplayScope::default() };
    let mut replay = Replay::new(&HEADER, scope);
    let process = record::Process { from_first_event: true, ..record::Process::default() };
    replay.record_of_interval(&Record::Process(process));
    for (id, parent) in [(MAIN, StackId::ROOT), (LEAF, MAIN), (OTHER, MAIN)] {
        replay.record_of_interval(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record_of_interval(record));
    replay.finish_interval(whole, (from.map(str::to_owned), to.to_owned()))
}

/// Seven events of one thread, with two marks between them:
///
/// ```text
/// us    event                      live   blocks
/// 10    1  LEAF  allocates 100 at 1  100  1
/// 10       mark "a"
/// 10    2  LEAF  allocates 20 at 2   120  1 2
/// 20    3  OTHER allocates 300 at 3  420  1 2 3
/// 20    4  MAIN  frees 2             400  1 3
/// 30    5  LEAF  grows 1 to 150      450  1 3
/// 30       mark "b"
/// 40    6  MAIN  frees 3             150  1
/// 50    7  OTHER allocates 5 at 4    155  1 4
/// ```
fn two_marks() -> Vec<Record<'static>> {
    vec![
        Record::Thread { id: 1 },
        Record::MarkName { id: 1, name: b"a" },
        Record::MarkName { id: 2, name: b"b" },
        Record::Time { us: 10 },
        alloc(1, 100, LEAF),
        Record::Mark { id: 1 },
        alloc(2, 20, LEAF),
        Record::Time { us: 20 },
        alloc(3, 300, OTHER),
        free_at(2, MAIN),
        Record::Time { us: 30 },
        realloc(1, 1, 150, LEAF),
        Record::Mark { id: 2 },
        Record::Time { us: 40 },
        free_at(3, MAIN),
        Record::Time { us: 50 },
        alloc(4, 5, OTHER),
    ]
}

#[test]
fn an_interval_counts_the_events_after_its_beginning_up_to_its_end() {
    let profile = replay_interval(Some("mark:a"), "mark:b", &two_marks());
    let (totals, interval) = (profile.totals, profile.interval.unwrap());
    // Events 2 to 5, although event 1 has the time of the mark too.
    assert_eq!((totals.allocations, totals.deallocations, totals.reallocations), (2, 1, 1));
    assert_eq!((totals.allocated_bytes, totals.freed_bytes), (20 + 300 + 150, 20 + 100));
    assert_eq!((interval.from_us, interval.to_us), (10, 30));
    assert_eq!((interval.heap_before.bytes, interval.heap_after.bytes), (100, 450));
    assert_eq!(
        interval.heap_before.bytes + totals.allocated_bytes - totals.freed_bytes,
        interval.heap_after.bytes
    );
    // Block 1 is older than the interval, so only block 3 counts as live. It has grown here, and so
    // the peak of the interval is at its end.
    assert_eq!((totals.live_bytes, totals.live_blocks), (300, 1));
    assert_eq!((totals.peak_bytes, totals.peak_blocks, totals.peak_us), (450, 2, 30));
    let stacks = &profile.stacks;
    let of = |stack: StackId| stacks[stack.0 as usize];
    assert_eq!((of(LEAF).allocations, of(LEAF).live_bytes, of(LEAF).peak_bytes), (1, 0, 150));
    assert_eq!((of(OTHER).live_bytes, of(OTHER).live_blocks, of(OTHER).peak_bytes), (300, 1, 300));
    assert_eq!((of(OTHER).live_first_us, of(LEAF).live_first_us), (20, 0));
    let grown = GrownBlocks { bytes: 150 - 100, blocks: 1, last_us: 30 };
    assert_eq!(profile.grown.into_iter().collect::<Vec<_>>(), [(LEAF, grown)]);
    assert_eq!(profile.threads[0].allocations, 2);
    assert_eq!(profile.sizes.iter().sum::<u64>(), 2);
    let marks: Vec<&str> = profile.marks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(marks, ["b"]);
    assert!(profile.trust.is_exact() && profile.duration_us == 50);
}

#[test]
fn the_heap_at_a_moment_is_that_of_a_recording_that_ends_there() {
    let records = two_marks();
    for (moment, live, blocks) in [
        ("9us", 0, 0),
        ("10us", 120, 2),
        ("mark:a", 100, 1),
        ("event:3", 420, 3),
        ("20us", 400, 2),
        ("peak", 450, 2),
        ("-1us", 150, 1),
        ("end", 155, 2),
    ] {
        let profile = replay_interval(None, moment, &records);
        let totals = profile.totals;
        assert_eq!((totals.live_bytes, totals.live_blocks), (live, blocks), "{moment}");
        assert_eq!(profile.stacks.iter().map(|stats| stats.live_bytes).sum::<u64>(), live, "{moment}");
        assert_eq!(totals.allocated_bytes - totals.freed_bytes, live, "{moment}");
        let interval = profile.interval.unwrap();
        assert_eq!((interval.heap_before.bytes, interval.heap_after.bytes), (0, live), "{moment}");
    }
    let all = replay_lifetimes(ShortLivedWithin::default(), &records);
    let until_end = replay_interval(None, "end", &records);
    assert_eq!((all.stacks, all.totals, all.sizes), (until_end.stacks, until_end.totals, until_end.sizes));
}

#[test]
fn the_peak_of_an_interval_may_be_its_beginning() {
    let profile = replay_interval(Some("30us"), "end", &two_marks());
    let totals = profile.totals;
    assert_eq!((totals.peak_bytes, totals.peak_blocks, totals.peak_us), (450, 2, 30));
    // The blocks that made it are older than the interval.
    assert_eq!(profile.stacks.iter().map(|stats| stats.peak_bytes).sum::<u64>(), 450);
    assert_eq!((totals.live_bytes, totals.allocations, totals.deallocations), (5, 1, 1));
    let (start, most) = (profile.heap.start_us, profile.heap.intervals.iter().map(|i| i.max).max());
    assert_eq!((start, most), (30, Some(450)));
    assert_eq!(profile.heap.intervals.last().unwrap().last, 155);
}

#[test]
fn every_cut_adds_up() {
    let records = two_marks();
    let moments = ["9us", "mark:a", "event:2", "20us", "event:5", "40us", "end"];
    for (at, from) in moments.iter().enumerate() {
        for to in &moments[at..] {
            let profile = replay_interval(Some(from), to, &records);
            let (totals, interval) = (profile.totals, profile.interval.unwrap());
            let live_at = |moment: &str| replay_interval(None, moment, &records).totals.live_bytes;
            let (before, after) = (interval.heap_before.bytes, interval.heap_after.bytes);
            assert_eq!((before, after), (live_at(from), live_at(to)), "{from} to {to}");
            assert_eq!(before + totals.allocated_bytes, after + totals.freed_bytes, "{from} to {to}");
            let live: u64 = profile.stacks.iter().map(|stats| stats.live_bytes).sum();
            assert_eq!(live, totals.live_bytes, "{from} to {to}");
            let peak: u64 = profile.stacks.iter().map(|stats| stats.peak_bytes).sum();
            assert_eq!(peak, totals.peak_bytes, "{from} to {to}");
        }
    }
}

#[test]
fn a_temporary_block_counts_in_the_interval_of_its_allocation_and_its_free() {
    let records = [
        Record::Time { us: 1 },
        alloc(1, 8, LEAF),
        Record::Time { us: 2 },
        free_at(1, MAIN),
        alloc(2, 8, LEAF),
    ];
    let temporary = |from: Option<&str>, to: &str| {
        let profile = replay_interval(from, to, &records);
        assert_eq!(stats(&profile, LEAF).temporary, profile.totals.temporary);
        profile.totals.temporary
    };
    assert_eq!((temporary(None, "2us"), temporary(None, "1us"), temporary(Some("1us"), "end")), (1, 0, 0));
}

#[test]
fn an_interval_of_selected_threads_has_the_totals_of_all() {
    let records = [
        Record::Thread { id: 1 },
        Record::Time { us: 1 },
        alloc(1, 10, LEAF),
        Record::Thread { id: 2 },
        alloc(2, 20, LEAF),
        Record::Time { us: 2 },
        alloc(3, 40, OTHER),
        Record::Thread { id: 1 },
        alloc(4, 80, OTHER),
    ];
    let profile = replay_interval_of(Some(&[2]), Some("1us"), "end", &records);
    assert_eq!((profile.totals.live_bytes, profile.totals.peak_bytes), (120, 150));
    assert_eq!((stats(&profile, OTHER).live_bytes, stats(&profile, OTHER).peak_bytes), (40, 40));
    assert_eq!((stats(&profile, LEAF).live_bytes, stats(&profile, LEAF).peak_bytes), (0, 20));
}

#[test]
fn lines_and_calls_are_cut_to_the_interval() {
    let function = record::Function { id: 1, start_line: 1, end_line: 9, name: b"f", file: b"f.rs" };
    let records = [
        Record::Thread { id: 1 },
        Record::Function(function),
        Record::Time { us: 10 },
        Record::Enter { function: 1, activation: 1 },
        Record::Line { activation: 1, line: 2 },
        alloc(1, 100, LEAF),
        Record::Time { us: 30 },
        alloc(2, 7, LEAF),
        Record::Line { activation: 1, line: 3 },
        Record::Time { us: 40 },
        free_at(1, LEAF),
        Record::Time { us: 60 },
        alloc(3, 9, LEAF),
        Record::Leave { activation: 1, ended: true },
    ];
    let profile = replay_interval(Some("20us"), "50us", &records);
    let lines = &profile.annotated[0].lines;
    // Line 2 was reached before the interval, and was left in it at 30 us.
    let (two, three) = (&lines[&2], &lines[&3]);
    assert_eq!((two.occurrences, two.allocated, two.time_us, two.live), (0, 7, 10, Some(7)));
    assert_eq!((three.occurrences, three.freed, three.time_us), (1, 100, 20));
    // The peak of the interval, 107 bytes, has the block of before.
    assert_eq!((two.peak, three.peak), (Some(107), Some(0)));
    let spans: Vec<(u64, u64)> = profile.spans.iter().map(|span| (span.start_us, span.end_us)).collect();
    assert_eq!(spans, [(20, 50)]);
}

/// Replays records with lifetimes.
fn replay_lifetimes(within: ShortLivedWithin, records: &[Record<'_>]) -> Profile {
    let mut replay = Replay::new(
        &HEADER,
        ReplayScope { resizes: true, short_lived: Some(within), ..ReplayScope::default() },
    );
    for (id, parent) in [(MAIN, StackId::ROOT), (LEAF, MAIN), (OTHER, MAIN)] {
        replay.record(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record(record));
    replay.finish(None, Damage::default())
}

/// The blocks of LEAF live 0, 10 and 50 microseconds and 1, 3 and 5 events of their thread.
fn three_lives() -> Vec<Record<'static>> {
    vec![
        Record::Thread { id: 1 },
        Record::Time { us: 100 },
        alloc(1, 10, LEAF),
        free_at(1, MAIN),
        alloc(2, 10, LEAF),
        alloc(3, 10, LEAF),
        alloc(4, 7, OTHER),
        Record::Time { us: 110 },
        free_at(2, MAIN),
        // The events of another thread do not count.
        Record::Thread { id: 2 },
        alloc(8, 1, OTHER),
        free_at(8, OTHER),
        Record::Thread { id: 1 },
        realloc(4, 4, 9, OTHER),
        Record::Time { us: 150 },
        alloc(5, 1, OTHER),
        free_at(5, OTHER),
        // Thread 2 frees it: five events of thread 1 came after its allocation.
        Record::Thread { id: 2 },
        free_at(3, MAIN),
    ]
}

#[test]
fn lifetimes_are_those_of_the_freed_blocks() {
    for (within, short) in [
        (ShortLivedWithin::Events(1), 1),
        (ShortLivedWithin::Events(2), 1),
        (ShortLivedWithin::Events(3), 2),
        (ShortLivedWithin::Events(4), 2),
        (ShortLivedWithin::Events(5), 3),
        (ShortLivedWithin::Time(0), 1),
        (ShortLivedWithin::Time(49), 2),
        (ShortLivedWithin::Time(50), 3),
    ] {
        let profile = replay_lifetimes(within, &three_lives());
        let leaf = profile.lifetimes.get(LEAF).unwrap();
        assert_eq!((leaf.freed_blocks, leaf.short_lived), (3, short), "{within}");
        // (0 + 10 + 50) / 3 microseconds; the second of three is 10.
        assert_eq!((leaf.mean_ns(), leaf.median_ns()), (Some(20_000), Some(10_000)));
        // The two blocks of OTHER that are freed live for one event and no time.
        assert_eq!(profile.totals.short_lived, short + 2);
        assert_eq!(stats(&profile, LEAF).temporary, 1, "its definition stays");
    }
    assert_eq!(replay(true, &three_lives()).lifetimes.get(LEAF), None, "only on request");
}

#[test]
fn a_stack_knows_the_most_that_it_held() {
    let profile = replay_lifetimes(ShortLivedWithin::default(), &three_lives());
    // LEAF holds 10, then twice 10. OTHER holds 7, then 7 and 1, then 9, then 9 and 1.
    let most = |profile: &Profile, stack| {
        (stats(profile, stack).max_live_bytes, stats(profile, stack).max_live_blocks)
    };
    let of = |stack| most(&profile, stack);
    assert_eq!((of(LEAF), of(OTHER), of(MAIN)), ((20, 2), (10, 2), (0, 0)));
    // In an interval the blocks of before count too, as for the peak.
    let late = replay_interval(Some("110us"), "end", &three_lives());
    assert_eq!((most(&late, LEAF), most(&late, OTHER)), ((10, 1), (10, 2)));
}

#[test]
fn annotated_lines_know_allocations_short_lives_and_the_most_that_they_held() {
    let function = record::Function { id: 1, start_line: 1, end_line: 9, name: b"f", file: b"f.rs" };
    let records = [
        Record::Thread { id: 1 },
        Record::Function(function),
        Record::Enter { function: 1, activation: 1 },
        Record::Line { activation: 1, line: 2 },
        alloc(1, 100, LEAF),
        alloc(2, 50, LEAF),
        free_at(1, LEAF),
        Record::Line { activation: 1, line: 3 },
        alloc(3, 120, LEAF),
        free_at(3, LEAF),
        free_at(2, LEAF),
        Record::Leave { activation: 1, ended: true },
    ];
    let profile = replay_lifetimes(ShortLivedWithin::Events(2), &records);
    let line = |number| profile.annotated[0].lines[&number];
    let figures = |number| (line(number).allocations, line(number).short_lived, line(number).max_live);
    // Block 1 lives for two events, block 2 for four, block 3 for one.
    assert_eq!(figures(2), (2, Some(1), Some(150)));
    assert_eq!(figures(3), (1, Some(1), Some(120)));
    let without = replay(true, &records);
    let line = without.annotated[0].lines[&2];
    assert_eq!((line.allocations, line.short_lived, line.max_live), (2, None, None));
}

#[test]
fn what_has_the_time_of_a_mark_lies_before_or_after_it_as_it_happened() {
    let function = record::Function { id: 1, start_line: 1, end_line: 9, name: b"f", file: b"f.rs" };
    let records = [
        Record::Thread { id: 1 },
        Record::MarkName { id: 1, name: b"m" },
        Record::Function(function),
        Record::Time { us: 10 },
        Record::Enter { function: 1, activation: 1 },
        Record::Line { activation: 1, line: 2 },
        Record::Leave { activation: 1, ended: true },
        Record::Mark { id: 1 },
        Record::Enter { function: 1, activation: 2 },
        Record::Line { activation: 2, line: 2 },
        Record::Mark { id: 1 },
        Record::Leave { activation: 2, ended: true },
    ];
    let counts = |from: Option<&str>, to: &str| {
        let profile = replay_interval(from, to, &records);
        let reached = profile.annotated[0].lines.get(&2).map_or(0, |line| line.occurrences);
        (profile.spans.len(), reached, profile.marks.len())
    };
    assert_eq!(counts(None, "mark:m"), (1, 1, 1));
    assert_eq!(counts(Some("mark:m"), "mark:m#2"), (1, 1, 1));
    assert_eq!(counts(None, "end"), (2, 2, 2));
    assert_eq!(counts(Some("mark:m#2"), "end"), (1, 0, 0));
}
