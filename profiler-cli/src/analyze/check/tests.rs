use super::*;
use crate::analyze::budgets::parse_budgets;
use crate::analyze::site::SiteKey;
use crate::names::code_owner::CodeOwner;
use crate::names::stacks::{NamedFrame, Stacks};
use crate::profile::{
    ActivationSpan, Annotated, AnnotatedLine, HeapTotals, Profile, RecordedThread, StackStats,
};
use alloc_dump::layout::StackId;
use alloc_dump::record::Sample;

/// Two sites of `app::parse` with 3 and 5 allocations of 1000 bytes, the second in a dependency
/// that it calls, and one of `app::draw` with one allocation of 64 bytes that is live.
fn recording() -> (Profile, Stacks) {
    let frame = |function: &str, file: &str, line, owner| NamedFrame {
        function: function.into(),
        file: Some(file.into()),
        line: Some(line),
        is_inlined: false,
        owner,
        module: "app".into(),
    };
    let own = |function: &str, line| frame(function, "/w/src/main.rs", line, CodeOwner::Own);
    let package = "/c/registry/src/index-1/serde-1.0.0/src/ser.rs";
    let stacks = Stacks::from_frames(&[
        vec![own("app::parse", 3), own("app::main", 20)],
        vec![
            frame("serde::to_vec", package, 9, CodeOwner::Dependency),
            own("app::parse", 4),
            own("app::main", 20),
        ],
        vec![own("app::draw", 7), own("app::main", 21)],
    ]);
    let stats = |allocations, size: u64| StackStats {
        allocations,
        allocated: allocations * size,
        ..StackStats::default()
    };
    let mut profile = Profile {
        stacks: vec![StackStats::default(); StackId::FIRST.0 as usize],
        totals: HeapTotals {
            allocations: 9,
            allocated_bytes: 8064,
            live_bytes: 64,
            peak_bytes: 1064,
            ..HeapTotals::default()
        },
        ..Profile::default()
    };
    let kept = StackStats { live_bytes: 64, live_blocks: 1, ..stats(1, 64) };
    profile.stacks.extend([stats(3, 1000), stats(5, 1000), kept]);
    profile.process.cwd = "/w".into();
    profile.process.exe = "/w/target/debug/deps/app-0123456789abcdef".into();
    let thread = |id, name: &str, allocated| RecordedThread {
        id,
        name: name.into(),
        allocated,
        ..RecordedThread::default()
    };
    profile.threads = vec![thread(1, "app", 10), thread(2, "pool-1", 4000), thread(3, "pool-2", 4054)];
    profile.timeline = vec![(1, Sample { rss: 5 << 20, ..Sample::default() })];
    profile.sample_count = 1;
    let line = |occurrences, allocated, allocations| AnnotatedLine {
        occurrences,
        allocated,
        allocations,
        ..AnnotatedLine::default()
    };
    profile.annotated = vec![Annotated {
        name: "app::parse".into(),
        file: "src/main.rs".into(),
        start_line: 2,
        end_line: 5,
        lines: [(3, line(90, 3000, 3)), (4, line(2, 5001, 5))].into(),
    }];
    // Two calls, of which the second was interrupted by an await.
    let span = |is_resumed| ActivationSpan { function: 0, thread: 1, start_us: 0, end_us: 1, is_resumed };
    profile.spans = vec![span(false), span(false), span(true)];
    (profile, stacks)
}

fn checked(text: &str, baseline: Option<&Baseline>) -> Result<Check, NotInBaseline> {
    let (profile, stacks) = recording();
    let budgets = parse_budgets(text).unwrap();
    let side = SideTable { totals: vec![SiteFigures::of_process(&profile.totals)], ..SideTable::default() };
    let figures = vec![measure(&budgets, &profile, &stacks, None)];
    check(&CheckedRuns { side, figures, recordings: Vec::new() }, &budgets, baseline)
}

/// Returns what a bound of 1 finds: the figure, and the site with file and line.
fn found(table: &str, key: &str) -> (u64, String) {
    let check = checked(&format!("{table}\n{key} = 1\n"), None).unwrap();
    let [violation] = check.violations.as_slice() else { panic!("{check:?}") };
    assert_eq!((violation.bound, violation.excess), (1, violation.found - 1));
    let file = violation.file.clone().unwrap_or_default();
    (
        violation.found,
        format!("{} {file}:{}", violation.site.clone().unwrap_or_default(), violation.line.unwrap_or(0)),
    )
}

#[test]
fn each_scope_counts_what_it_is_about() {
    let at = |value, place: &str| (value, place.to_owned());
    assert_eq!(found("[total]", "allocated"), at(8064, "app::parse src/main.rs:4"));
    assert_eq!(found("[total]", "rss_peak"), at(5 << 20, " :0"));
    assert_eq!(found("[[function]]\nname = 'app::pa*'", "allocations"), at(8, "app::parse src/main.rs:4"));
    assert_eq!(found("[[function]]\nname = 'draw'", "live"), at(64, "app::draw src/main.rs:7"));
    assert_eq!(found("[[crate]]\nname = 'serde'", "allocated"), at(5000, "app::parse src/main.rs:4"));
    assert_eq!(found("[[file]]\nname = 'main.rs'", "allocations"), at(9, "app::parse src/main.rs:4"));
    // Of the threads, the one with the most.
    assert_eq!(found("[[thread]]\nname = 'pool'", "allocated"), at(4054, "pool-2 :0"));
    // 8001 bytes in two calls.
    assert_eq!(found("[[per_call]]\nfunction = 'parse'", "allocated"), at(4001, "app::parse src/main.rs:2"));
}

#[test]
fn a_figure_at_its_bound_is_within_it() {
    let check = checked("[total]\nallocations = 9\nallocated = 8063\n", None).unwrap();
    assert_eq!((check.passed, check.bounds), (false, 2));
    let [violation] = check.violations.as_slice() else { panic!("{check:?}") };
    assert_eq!((violation.metric, violation.excess, violation.budget_line), ("allocated_bytes", 1, Some(3)));
    assert_eq!(violation.sentence(), "Allocated 8,064 B, at most 8,063 B: 1 B too much");
    let review = check.review();
    assert_eq!((review.passed, review.findings.len(), review.findings[0].line), (Some(false), 1, Some(4)));
    assert!(checked("[total]\nallocations = 9\n", None).unwrap().passed);
}

#[test]
fn a_budget_that_matches_nothing_is_no_pass_and_names_the_nearest() {
    for (table, reason) in [
        (
            "[[function]]\nname = 'app::prase'\npeak = 1",
            "no function matches 'app::prase'; the nearest: app::parse",
        ),
        ("[[thread]]\nname = 'pol'\nallocated = 1", "no thread matches 'pol'; the nearest: pool-1, pool-2"),
        (
            "[[per_call]]\nfunction = 'draw'\nallocated = 1",
            "no annotated function matches 'draw'; the nearest: app::parse",
        ),
    ] {
        let check = checked(table, None).unwrap();
        assert!(!check.passed && check.violations.is_empty());
        assert!(check.unmatched[0].reason.starts_with(reason), "{check:?}");
    }
}

#[test]
fn a_relative_bound_needs_its_figure_in_the_baseline() {
    let text = "[total]\nlive = '+10 %'\n";
    let with = |value| Baseline {
        budgets: vec![("total".into(), BudgetMetric::Live, value)],
        ..Baseline::default()
    };
    // 59 + 5 and 58 + 5.
    assert!(checked(text, Some(&with(59))).unwrap().passed);
    let check = checked(text, Some(&with(58))).unwrap();
    assert_eq!((check.violations[0].bound, check.violations[0].base), (63, Some(58)));
    // The line of totals has it, too.
    let totals = SiteFigures { live_bytes: 58, ..SiteFigures::default() };
    let check = checked(text, Some(&Baseline { totals, ..Baseline::default() })).unwrap();
    assert_eq!((check.violations[0].bound, check.violations[0].base), (63, Some(58)));
    let of_function = "[[function]]\nname = 'app::parse'\nlive = '+10 %'\n";
    let error = checked(of_function, Some(&Baseline::default())).unwrap_err();
    let said = "3: the baseline has no figure for live of function 'app::parse': add it with --update";
    assert_eq!(error.to_string(), said);
}

/// A site: function, ordinal, and bytes and allocations of each run.
type Row<'a> = (&'a str, u32, &'a [(u64, u64)]);

fn side(sites: &[Row<'_>]) -> SideTable {
    let figures = |(allocated_bytes, allocations)| SiteFigures {
        allocated_bytes,
        allocations,
        ..SiteFigures::default()
    };
    let tabled = |(function, ordinal, runs): &Row<'_>| {
        let key = SiteKey { function: (*function).to_owned(), ordinal: *ordinal };
        let one = Baseline { sites: vec![(key, SiteFigures::default())], ..Baseline::default() };
        TabledSite { runs: runs.iter().copied().map(figures).collect(), ..one.tabled_sites().remove(0) }
    };
    let sites: Vec<TabledSite> = sites.iter().map(tabled).collect();
    let runs = sites.first().map_or(1, |site| site.runs.len());
    let total = |run: usize| {
        let mut sum = SiteFigures::default();
        sites.iter().for_each(|site| sum.add_all(&site.runs[run]));
        sum
    };
    SideTable { totals: (0..runs).map(total).collect(), sites, ..SideTable::default() }
}

#[test]
fn without_budgets_sites_and_totals_are_compared_with_the_baseline() {
    let base = side(&[
        ("app::a", 0, &[(1_000_000, 100)]),
        ("app::b", 0, &[(9000, 1)]),
        ("app::gone", 0, &[(8192, 1)]),
    ]);
    let baseline = Baseline::of("app", &base, Vec::new());
    let against = |side: SideTable| {
        let runs = CheckedRuns { side, ..CheckedRuns::default() };
        let check = check(&runs, &[], Some(&baseline)).unwrap();
        assert_eq!(check.passed, check.violations.is_empty());
        check.violations.iter().map(|v| (v.label(), v.metric, v.bound, v.found)).collect::<Vec<_>>()
    };
    assert_eq!(against(base.clone()), []);
    // 1 % of a million, and 10 allocations; a new site below 4 KiB; a site that is gone.
    let within = side(&[
        ("app::a", 0, &[(1_010_000, 110)]),
        ("app::b", 0, &[(9000 + 4096, 1)]),
        ("app::new", 0, &[(4095, 1)]),
    ]);
    assert_eq!(against(within), []);
    // The second of three runs is too large, by one byte and by one allocation.
    let above = side(&[
        ("app::a", 0, &[(5, 1), (1_010_001, 111), (5, 1)]),
        ("app::new", 0, &[(0, 0), (4097, 0), (0, 0)]),
    ]);
    assert_eq!(
        against(above),
        [
            ("app::a".to_owned(), "allocated_bytes", 1_010_000, 1_010_001),
            ("app::new".to_owned(), "allocated_bytes", 4096, 4097),
            ("app::a".to_owned(), "allocations", 110, 111),
        ]
    );
}
