//! Replays of hand-made records, up to an interval and beyond it.

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::{Process, Record};

use crate::load::gate::Gate;
use crate::load::made_records::{alloc, free, realloc};
use crate::load::options::Period;
use crate::load::replay::{Replay, ReplayScope};
use crate::profile::{GrownBlocks, Profile};

const MAIN: StackId = StackId(3);
const LEAF: StackId = StackId(4);
const OTHER: StackId = StackId(5);

fn replay(scope: ReplayScope, records: &[Record<'_>]) -> Replay {
    let mut replay = Replay::new(&Header { session: [0; 16], created_unix_ns: 0 }, scope);
    replay.record_of_interval(&Record::Process(Process { from_first_event: true, ..Process::default() }));
    for (id, parent) in [(MAIN, StackId::ROOT), (LEAF, MAIN), (OTHER, MAIN)] {
        replay.record_of_interval(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record_of_interval(record));
    replay
}

/// Returns the profile of what was born from `from` to `to` and is live at the end of the records.
fn still_live(selected: Option<&[u32]>, from: Option<&str>, to: &str, records: &[Record<'_>]) -> Profile {
    let whole = replay(ReplayScope::default(), records).finish(None, Damage::default());
    let period = Period { from: from.map(|from| from.parse().unwrap()), to: to.parse().unwrap() };
    let gate = Some(Gate::of(&period, &whole).unwrap().with_still_live(true));
    let selected = selected.map(|ids| ids.iter().copied().collect());
    let scope = ReplayScope { gate, selected, resizes: true, ..ReplayScope::default() };
    replay(scope, records).finish_interval(whole, (from.map(str::to_owned), to.to_owned()))
}

/// Returns bytes and blocks that are live at a stack.
fn live(profile: &Profile, stack: StackId) -> (u64, u64) {
    let stats = profile.stacks[stack.0 as usize];
    (stats.live_bytes, stats.live_blocks)
}

#[test]
fn only_blocks_of_the_interval_that_nobody_frees_later_are_still_live() {
    let records = [
        Record::Thread { id: 1 },
        alloc(1, 1, LEAF),
        Record::Time { us: 10 },
        // The interval: after 10 us, up to 20 us.
        Record::Time { us: 20 },
        alloc(2, 2, LEAF),
        alloc(3, 4, LEAF),
        alloc(4, 8, OTHER),
        Record::Thread { id: 2 },
        alloc(5, 16, OTHER),
        // After it, on the same threads, on another one, and at an address that was used before.
        Record::Time { us: 30 },
        free(3),
        alloc(3, 32, LEAF),
        Record::Thread { id: 3 },
        alloc(6, 64, LEAF),
        Record::Thread { id: 1 },
        alloc(7, 128, OTHER),
        free(1),
    ];
    let profile = still_live(None, Some("10us"), "20us", &records);
    assert_eq!((profile.totals.live_bytes, profile.totals.live_blocks), (2 + 8 + 16, 3));
    assert_eq!((live(&profile, LEAF), live(&profile, OTHER)), ((2, 1), (8 + 16, 2)));
    // All other figures are those of the interval.
    let interval = profile.interval.as_ref().unwrap();
    assert!(interval.still_live);
    assert_eq!((interval.heap_before.bytes, interval.heap_after.bytes), (1, 1 + 2 + 4 + 8 + 16));
    assert_eq!((profile.totals.allocations, profile.totals.allocated_bytes), (4, 2 + 4 + 8 + 16));
    assert_eq!((profile.totals.deallocations, profile.totals.peak_bytes), (0, 1 + 2 + 4 + 8 + 16));
    assert_eq!((profile.stacks[LEAF.0 as usize].live_first_us, profile.threads.len()), (20, 2));
    // Up to a moment: all that was born before it.
    let profile = still_live(None, None, "20us", &records);
    assert_eq!((profile.totals.live_bytes, profile.totals.live_blocks), (2 + 8 + 16, 3));
    // Up to the end: as without the option.
    let profile = still_live(None, Some("10us"), "end", &records);
    assert_eq!(profile.totals.live_bytes, 2 + 8 + 16 + 32 + 64 + 128);
    // Of one thread.
    let profile = still_live(Some(&[1]), Some("10us"), "20us", &records);
    assert_eq!((live(&profile, LEAF), live(&profile, OTHER)), ((2, 1), (8, 1)));
}

#[test]
fn a_block_has_the_size_and_the_stack_that_it_has_at_the_end() {
    let records = [
        Record::Thread { id: 1 },
        alloc(1, 100, MAIN),
        alloc(2, 100, MAIN),
        alloc(3, 100, MAIN),
        Record::Time { us: 10 },
        // The interval: after 10 us, up to 20 us.
        Record::Time { us: 20 },
        alloc(4, 10, LEAF),
        realloc(1, 1, 150, LEAF),
        realloc(2, 2, 180, LEAF),
        // After it.
        Record::Time { us: 30 },
        realloc(4, 4, 40, OTHER),
        realloc(1, 1, 1000, OTHER),
        realloc(2, 2, 120, OTHER),
        realloc(3, 3, 300, OTHER),
    ];
    let profile = still_live(None, Some("10us"), "20us", &records);
    assert_eq!((live(&profile, LEAF), live(&profile, OTHER)), ((0, 0), (40, 1)));
    assert_eq!(profile.totals.live_bytes, 40);
    let stats = profile.stacks[OTHER.0 as usize];
    assert_eq!((stats.live_first_us, stats.live_last_us), (20, 30));
    // Older blocks count with what they grew in the interval and still have: 50 of block 1, and 20
    // of block 2, which shrank later. Block 3 grew only after the interval.
    let grown = GrownBlocks { bytes: 50 + 20, blocks: 2, last_us: 30 };
    assert_eq!(profile.grown.into_iter().collect::<Vec<_>>(), [(OTHER, grown)]);
}
