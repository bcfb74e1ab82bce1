//! Replays of hand-made records, with groups of stacks or threads.

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::Record;

use super::*;
use crate::load::made_records::{alloc, free, realloc};
use crate::load::replay::{Replay, ReplayScope};

const A: StackId = StackId(3);
const B: StackId = StackId(4);
const C: StackId = StackId(5);

/// Two threads; A and C belong to thread 1, B to thread 2.
fn records() -> Vec<Record<'static>> {
    vec![
        Record::Thread { id: 1 },
        Record::Time { us: 1 },
        alloc(1, 10, A),
        Record::Thread { id: 2 },
        alloc(2, 100, B),
        free(1),
        Record::Time { us: 3 },
        Record::Thread { id: 1 },
        alloc(3, 7, C),
        free(3),
        Record::Time { us: 4 },
        realloc(2, 2, 50, A),
    ]
}

fn curve(key: GroupKey, groups: usize, to_us: u64) -> GroupCurve {
    let grouping = HeapGrouping { key, groups, from_us: 0, to_us };
    let scope = ReplayScope { groups: Some(grouping), ..ReplayScope::default() };
    let mut replay = Replay::new(&Header { session: [0; 16], created_unix_ns: 0 }, scope);
    for (id, parent) in [(A, StackId::ROOT), (B, A), (C, A)] {
        replay.record(&Record::Node { id, parent, pc: u64::from(id.0) });
    }
    records().iter().for_each(|record| replay.record(record));
    replay.finish(None, Damage::default()).groups.unwrap()
}

fn points(curve: &GroupCurve) -> Vec<(u64, &[u64])> {
    curve.points.iter().map(|point| (point.max, point.bytes.as_slice())).collect()
}

#[test]
fn groups_add_up_to_the_maximum_of_each_part() {
    // Group 0 has A, group 1 has B, and C is not named.
    let stacks = GroupKey::Stacks(vec![2, 2, 2, 0, 1]);
    let curve = curve(stacks, 3, 5);
    let expected: [(u64, &[u64]); 6] = [
        (0, &[0, 0, 0]),
        // Before A frees its block, both are live. The part before it ends with 100.
        (110, &[10, 100, 0]),
        (100, &[0, 100, 0]),
        (107, &[0, 100, 7]),
        // At its beginning B still holds 100, which the realloc gives to A as 50.
        (100, &[0, 100, 0]),
        (50, &[50, 0, 0]),
    ];
    assert_eq!((curve.width_us, points(&curve)), (1, expected.to_vec()));
    let most: Vec<(u64, u64)> = curve.most.iter().map(|most| (most.bytes, most.blocks)).collect();
    assert_eq!(most, [(50, 1), (100, 1), (7, 1)]);
}

#[test]
fn a_block_belongs_to_the_thread_that_allocated_it() {
    let curve = curve(GroupKey::Threads(vec![0, 1]), 3, 5);
    let last = curve.points.last().unwrap();
    assert_eq!((last.max, last.bytes.as_slice()), (50, &[0, 50, 0][..]), "a realloc does not change that");
}

#[test]
fn a_long_time_has_a_bounded_number_of_parts() {
    let curve = curve(GroupKey::Threads(vec![0, 1]), 3, 1_000_000);
    assert!(curve.points.len() as u64 <= MAX_POINTS && curve.width_us == 1954);
    assert_eq!(curve.points[0].max, 110);
    assert!(curve.points[1..].iter().all(|point| point.max == 50));
}
