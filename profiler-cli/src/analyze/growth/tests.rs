//! The verdicts of hand-made curves, and of generated programs.

mod simulated;
mod streams;

use super::*;

/// A site with 100 births in each of twelve windows.
fn site(floors: [u64; 12], survivors: [u64; 12], age_99_us: u64) -> SiteCurve {
    SiteCurve {
        floors: floors.to_vec(),
        births: vec![100; 12],
        survivors: survivors.to_vec(),
        left: 1,
        age_99_us,
    }
}

/// Judges sites that were followed for 1,500 seconds: windows of 100 seconds from 300 s on.
fn judged(sites: &[SiteCurve]) -> Vec<SiteGrowth> {
    let borders_us = (3..=15).map(|border| border * 100_000_000).collect();
    let curves = GrowthCurves { borders_us, end_us: 1_500_000_000, sites: sites.to_vec() };
    judge_all(&curves, &Profile::default()).0
}

fn rising(step: u64) -> [u64; 12] {
    std::array::from_fn(|window| 1000 + step * window as u64)
}

const SECOND: u64 = 1_000_000;

#[test]
fn a_leak_grows_by_its_floor() {
    let growth = &judged(&[site(rising(100 << 10), [1; 12], SECOND)])[0];
    assert_eq!(growth.verdict, GrowthVerdict::Growing);
    // 11 steps of 100 KiB in 11 windows of 100 s.
    assert_eq!(growth.bytes, 11 * (100 << 10));
    assert_eq!(growth.bytes_per_hour, (100 << 10) * 36);
    assert_eq!(growth.bytes_per_allocation, Some(1024.0), "the size of each block");
    assert!(!growth.small);
    // The youngest blocks of the last window may be younger than a second.
    let [low, high] = growth.kept_share.unwrap();
    assert!(low < 0.01 && 0.01 < high);
    assert_eq!(
        growth.sentence,
        "its least use rose in 11 of 11 later windows from 1000 B to 1.1 MiB; of the blocks born in each \
         of 11 windows that are old enough to tell some are still there; 1.0 % are kept; +3.5 MiB/h; \
         1024.0 B for each allocation"
    );
}

#[test]
fn a_rise_that_slows_down_is_slowing_and_one_that_has_just_begun_is_growing() {
    let filling = [0, 100, 190, 270, 340, 400, 440, 470, 490, 500, 505, 506];
    let late = [0, 0, 0, 0, 0, 0, 10, 20, 30, 40, 50, 60];
    let sites = judged(&[site(filling, [1; 12], SECOND), site(late, [1; 12], SECOND)]);
    assert_eq!(sites[0].verdict, GrowthVerdict::Slowing, "506 - 440 is less than half of 400");
    assert!(sites[0].sentence.contains("it rose by 400 B in the first half of the windows and by 66 B"));
    assert_eq!(sites[1].verdict, GrowthVerdict::Growing);
    assert!(sites.iter().all(|site| site.small));
}

#[test]
fn of_a_cache_at_its_limit_old_blocks_are_gone() {
    let mut survivors = [0; 12];
    survivors[8..].fill(50);
    let cache = &judged(&[site(rising(1), survivors, SECOND)])[0];
    assert_eq!(cache.verdict, GrowthVerdict::Steady);
    assert!(
        cache.sentence.ends_with(
            "but of 11 windows that are old enough to tell only 3 have blocks that are still there"
        )
    );
    let warm_up = std::array::from_fn(|window| u64::from(window == 0));
    let warm_up = &judged(&[site(rising(1), warm_up, SECOND)])[0];
    assert!(warm_up.sentence.ends_with("only 1 has blocks that are still there"), "{}", warm_up.sentence);
}

#[test]
fn eight_of_ten_windows_with_survivors_suffice_and_seven_do_not() {
    // The last two windows end less than 200 s before the end, so 11 - 1 windows are old enough.
    let age = 150 * SECOND;
    let mut survivors = [1; 12];
    survivors[..2].fill(0);
    assert_eq!(judged(&[site(rising(1), survivors, age)])[0].verdict, GrowthVerdict::Growing);
    survivors[2] = 0;
    assert_eq!(judged(&[site(rising(1), survivors, age)])[0].verdict, GrowthVerdict::Steady);
}

#[test]
fn blocks_that_live_long_need_a_longer_recording() {
    // Three windows end at least 900 s before the end.
    let long = &judged(&[site(rising(1), [1; 12], 900 * SECOND)])[0];
    assert_eq!(long.verdict, GrowthVerdict::RunLonger);
    // The fourth window ends 800 s before the end; for 900 s all has to be 9/8 as long: 1,688 s.
    let expected = "but its one freed block had lived for about 15 min, and 3 of the windows are older; \
                    record for 28 min or more";
    assert!(long.sentence.ends_with(expected), "{}", long.sentence);
    assert_eq!(judged(&[site(rising(1), [1; 12], 800 * SECOND)])[0].verdict, GrowthVerdict::Growing);
}

#[test]
fn what_has_lived_long_is_one_percent_only_of_a_hundred_blocks() {
    let said_of = |left| {
        let sites = [SiteCurve { left, ..site(rising(1), [1; 12], 900 * SECOND) }];
        judged(&sites).remove(0).sentence
    };
    for (left, expected) in [
        (2, ", but the oldest of its 2 freed blocks had lived for about 15 min, and"),
        (99, ", but the oldest of its 99 freed blocks had lived for about 15 min, and"),
        (100, ", but 1 % of its freed blocks had lived for about 15 min, and"),
    ] {
        assert!(said_of(left).contains(expected), "{}", said_of(left));
    }
}

/// Judges one site with these floors and windows of 100 seconds, of which none is left out.
fn judged_alone(floors: &[u64], age_99_us: u64) -> SiteGrowth {
    let windows = floors.len();
    let site = SiteCurve {
        floors: floors.to_vec(),
        births: vec![100; windows],
        survivors: vec![1; windows],
        left: 1,
        age_99_us,
    };
    let borders_us: Vec<u64> = (0..=windows as u64).map(|border| border * 100 * SECOND).collect();
    let curves = GrowthCurves { end_us: borders_us[windows], borders_us, sites: vec![site] };
    judge_all(&curves, &Profile::default()).0.remove(0)
}

#[test]
fn an_odd_number_of_windows_has_the_middle_one_in_both_halves() {
    // 160 - 0 and 210 - 160: without the middle one in both, 100 - 0 and 210 - 160.
    let slowing = judged_alone(&[0, 100_000, 160_000, 190_000, 210_000], 0);
    assert_eq!(slowing.verdict, GrowthVerdict::Slowing);
    // Half as much suffices.
    assert_eq!(judged_alone(&[0, 90, 160, 200, 240], 0).verdict, GrowthVerdict::Growing);
    assert_eq!(judged_alone(&[0, 90, 160, 200, 239], 0).verdict, GrowthVerdict::Slowing);
    // What rises evenly grows, however many windows there are.
    for windows in 4..=12 {
        let even: Vec<u64> = (0..windows).map(|window| window * 1000).collect();
        assert_eq!(judged_alone(&even, 0).verdict, GrowthVerdict::Growing, "{windows}");
    }
    // An even number: 10 - 0 and 30 - 25.
    assert_eq!(judged_alone(&[0, 10, 25, 30], 0).verdict, GrowthVerdict::Growing);
    assert_eq!(judged_alone(&[0, 11, 25, 30], 0).verdict, GrowthVerdict::Slowing);
}

#[test]
fn fewer_than_twelve_windows_stay_where_they_are() {
    // The fourth of six windows ends after 400 s, and the blocks live for 900 s.
    let long = judged_alone(&[0, 1, 2, 3, 4, 5], 900 * SECOND);
    assert_eq!(long.verdict, GrowthVerdict::RunLonger);
    assert!(long.sentence.ends_with("; record for 22 min or more"), "{}", long.sentence);
}

#[test]
fn the_more_sites_rise_the_clearer_a_rise_has_to_be() {
    // Rather rising, with some pairs in falling order.
    let row = [3, 1, 2, 5, 4, 9, 6, 8, 7, 5, 9, 10];
    let p = p_rising(&row);
    assert!(p < 0.05 && p * 300.0 > 0.05, "{p}");
    let alone = judged(&[site(row, [1; 12], SECOND)]);
    assert_ne!(alone[0].verdict, GrowthVerdict::Steady);
    let among_300 = judged(&vec![site(row, [1; 12], SECOND); 300]);
    assert!(among_300.iter().all(|site| site.verdict == GrowthVerdict::Steady));
    assert!(among_300[0].sentence.ends_with("which may be chance"));
    // Sites that do not change are no tests.
    let mut with_flat = vec![site([7; 12], [1; 12], SECOND); 300];
    with_flat.push(site(row, [1; 12], SECOND));
    assert_eq!(judged(&with_flat)[300].verdict, alone[0].verdict);
    assert_eq!(judged(&with_flat)[0].sentence, "its least use did not change");
}

#[test]
fn too_few_windows_tell_nothing() {
    let curve = SiteCurve {
        floors: vec![1, 2, 3],
        births: vec![1; 3],
        survivors: vec![1; 3],
        ..SiteCurve::default()
    };
    let curves = GrowthCurves { borders_us: vec![0, 10, 20, 30], end_us: 30, sites: vec![curve] };
    let (sites, summary) = judge_all(&curves, &Profile::default());
    // Three values have 6 orders, and 1/6 is more than 0.05.
    assert_eq!(sites[0].verdict, GrowthVerdict::RunLonger);
    // 4 values have 24 orders, and 1/24 is less.
    assert_eq!(
        sites[0].sentence,
        "3 windows cannot tell growth from chance among 1 site; record for 4 windows or more"
    );
    assert_eq!((summary.windows.len(), summary.run_longer, summary.sites_tested), (3, 1, 1));
    assert_eq!(summary.windows[2], GrowthWindow { from_ns: 20_000, to_ns: 30_000 });
}
