use super::*;
use crate::load::made_records::{alloc, free, realloc};
use crate::load::replay::{Replay, ReplayScope};
use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::Record;

const FIRST: StackId = StackId(3);
const SECOND: StackId = StackId(4);
const OTHER: StackId = StackId(5);

/// Replays records of three stacks: the first two are site 0, the third is site 1.
fn curves(borders_us: &[u64], records: &[Record<'_>]) -> GrowthCurves {
    let mut site_of_stack = vec![NO_SITE; 6];
    site_of_stack[FIRST.0 as usize] = 0;
    site_of_stack[SECOND.0 as usize] = 0;
    site_of_stack[OTHER.0 as usize] = 1;
    let request = GrowthRequest { site_of_stack, sites: 2, borders_us: borders_us.to_vec() };
    let header = Header { session: [0; 16], created_unix_ns: 0 };
    let mut replay = Replay::new(&header, ReplayScope { growth: Some(request), ..ReplayScope::default() });
    for id in [FIRST, SECOND, OTHER] {
        replay.record(&Record::Node { id, parent: StackId::ROOT, pc: u64::from(id.0) });
    }
    records.iter().for_each(|record| replay.record(record));
    replay.finish(None, Damage::default()).growth.unwrap()
}

fn at(us: u64) -> Record<'static> {
    Record::Time { us }
}

#[test]
fn the_floor_of_a_site_is_not_the_sum_of_the_floors_of_its_stacks() {
    // The second stack takes over within the window. Each stack alone falls to 0.
    let records = [at(1), alloc(1, 100, FIRST), at(12), alloc(2, 90, SECOND), at(14), free(1)];
    let curves = curves(&[10, 20, 30], &records);
    assert_eq!(curves.sites[0].floors, [90, 90]);
    assert_eq!(curves.sites[1].floors, [0, 0]);
}

#[test]
fn a_floor_begins_with_what_was_live_at_the_border() {
    let records = [
        at(5),
        alloc(1, 40, FIRST),
        at(15),
        alloc(2, 60, FIRST),
        at(25),
        free(1),
        free(2),
        alloc(3, 7, FIRST),
    ];
    let curves = curves(&[10, 20, 30, 40], &records);
    assert_eq!(curves.sites[0].floors, [40, 0, 7], "a moment without blocks is the floor");
    assert_eq!(curves.sites[0].births, [1, 1, 0], "the block of 5 us is older than the windows");
    assert_eq!(curves.sites[0].survivors, [0, 1, 0]);
}

#[test]
fn a_realloc_makes_no_floor_and_a_move_keeps_the_birth() {
    let records = [
        at(11),
        alloc(1, 100, FIRST),
        at(21),
        realloc(1, 2, 150, SECOND), // within the site: neither a birth nor an end
        at(25),
        realloc(2, 3, 400, OTHER), // leaves the site at the age of 14 us
    ];
    let curves = curves(&[10, 20, 30, 40], &records);
    let [first, other] = &curves.sites[..] else { panic!() };
    assert_eq!((&first.floors[..], &other.floors[..]), (&[0, 0, 0][..], &[0, 0, 400][..]));
    assert_eq!((&first.births[..], &first.survivors[..]), (&[1, 0, 0][..], &[0, 0, 0][..]));
    assert_eq!((&other.births[..], &other.survivors[..]), (&[1, 0, 0][..], &[1, 0, 0][..]));
    assert_eq!((first.left, first.age_99_us, other.left), (1, 14, 0), "ages below 16 us are exact");
}

#[test]
fn bytes_between_two_borders_without_events_stay() {
    let curves = curves(&[0, 10, 20, 30], &[at(0), alloc(1, 9, OTHER), at(30)]);
    assert_eq!(curves.sites[1].floors, [0, 9, 9], "nothing was live when the first window began");
}

#[test]
fn the_age_of_99_percent_is_never_too_low_and_hardly_too_high() {
    let mut ages = AgeCounts::default();
    (1..=10_000).for_each(|us| ages.add(us));
    // The lowest age that 99 % have not passed is 9,900.
    let age = ages.percentile_99();
    assert!((9_900..=9_900 + 9_900 / 8).contains(&age), "{age}");
    for us in (0..2000).chain([1 << 20, (1 << 40) + 12_345, u64::MAX / 1000]) {
        let last = last_of(class_of(us));
        assert!(last >= us && last - us <= us / 8, "{us}: {last}");
        assert_eq!(class_of(last), class_of(us));
        assert_eq!(class_of(last + 1), class_of(us) + 1);
    }
    assert_eq!(AgeCounts::default().percentile_99(), 0);
}
