use std::collections::BTreeSet;

use super::*;
use crate::analyze::site::SiteKey;
use crate::names::evidence::{LineHash, SiteEvidence};

/// A site with a function, a line, its text, and bytes for each run, in blocks of 16 KiB.
fn site(function: &str, ordinal: u32, text: &str, bytes: &[u64]) -> TabledSite {
    let evidence = SiteEvidence { relative_line: Some(ordinal + 1), text: LineHash::of(text) };
    TabledSite {
        key: SiteKey { function: function.to_owned(), ordinal },
        file: Some("src/lib.rs".to_owned()),
        line: Some(10 + ordinal),
        evidence: (!text.is_empty()).then_some(evidence),
        callers: BTreeSet::new(),
        is_own: true,
        runs: bytes.iter().map(|bytes| figures(*bytes)).collect(),
        stack: Vec::new(),
    }
}

fn figures(bytes: u64) -> SiteFigures {
    SiteFigures { allocated_bytes: bytes, allocations: bytes >> 14, ..SiteFigures::default() }
}

/// A side whose totals are the sums of its sites.
fn side(mut sites: Vec<TabledSite>) -> SideTable {
    sites.sort_by(|one, other| one.key.cmp(&other.key));
    let runs = sites.first().map_or(1, |site| site.runs.len());
    let total = |run: usize| {
        let mut total = SiteFigures::default();
        sites.iter().for_each(|site| total.add_all(&site.runs[run]));
        total
    };
    SideTable { totals: (0..runs).map(total).collect(), sites, is_exact: true, ..SideTable::default() }
}

/// Returns what each changed site did: function, ordinal, status, base and new bytes.
fn changes(base: Vec<TabledSite>, new: Vec<TabledSite>) -> Vec<(String, SiteStatus, u64, u64)> {
    let compared = diff(&side(base), &side(new), DiffOptions::default());
    let row = |site: &SiteChange| {
        let bytes = site.figures.allocated_bytes;
        (format!("{}#{}", site.function, site.ordinal), site.status, bytes.base, bytes.new)
    };
    compared.sites.iter().map(row).collect()
}

const MIB: u64 = 1 << 20;

#[test]
fn a_call_added_above_is_new_and_shifts_no_other() {
    let base = vec![site("app::f", 0, "a();", &[MIB]), site("app::f", 1, "b();", &[2 * MIB])];
    let new = vec![
        site("app::f", 0, "log();", &[5 * MIB]),
        site("app::f", 1, "a();", &[MIB]),
        site("app::f", 2, "b();", &[2 * MIB]),
    ];
    assert_eq!(changes(base.clone(), new.clone()), [("app::f#0".to_owned(), SiteStatus::New, 0, 5 * MIB)]);
    assert_eq!(changes(new, base), [("app::f#0".to_owned(), SiteStatus::Gone, 5 * MIB, 0)]);
}

#[test]
fn an_edited_line_is_the_same_site() {
    let base = vec![site("app::f", 0, "a();", &[MIB]), site("app::f", 1, "vec![0; n]", &[2 * MIB])];
    let new = vec![site("app::f", 0, "a();", &[MIB]), site("app::f", 1, "vec![0; 2 * n]", &[4 * MIB])];
    assert_eq!(changes(base, new), [("app::f#1".to_owned(), SiteStatus::Grown, 2 * MIB, 4 * MIB)]);
}

#[test]
fn without_sources_sites_pair_by_their_rank_and_their_allocations() {
    let base = vec![site("app::f", 0, "", &[MIB]), site("app::f", 1, "", &[50 * MIB])];
    let new = vec![
        site("app::f", 0, "", &[MIB]),
        site("app::f", 1, "", &[9 * MIB]),
        site("app::f", 2, "", &[50 * MIB]),
    ];
    assert_eq!(changes(base, new), [("app::f#1".to_owned(), SiteStatus::New, 0, 9 * MIB)]);
}

#[test]
fn a_renamed_function_module_or_crate_has_only_moved() {
    let base = vec![site("app::a::f", 0, "x();", &[MIB]), site("app::g", 0, "y();", &[MIB])];
    for new in [
        vec![site("app::b::f", 0, "x();", &[MIB]), site("app::g", 0, "y();", &[MIB])],
        vec![site("shop::a::f", 0, "x();", &[MIB]), site("shop::g", 0, "y();", &[MIB])],
        vec![site("app::a::f2", 0, "x();", &[MIB]), site("app::g2", 0, "y();", &[MIB])],
    ] {
        let compared = diff(&side(base.clone()), &side(new.clone()), DiffOptions::default());
        assert!(compared.sites.is_empty() && !compared.changed, "{:?}", compared.sites);
        let renamed = new.iter().filter(|site| !base.iter().any(|old| old.key == site.key)).count();
        assert_eq!((compared.moved.len(), compared.unchanged), (renamed, 2));
    }
    // A moved site that has grown is one change.
    let grown = vec![site("app::b::f", 0, "x();", &[3 * MIB]), site("app::g", 0, "y();", &[MIB])];
    assert_eq!(changes(base, grown), [("app::b::f#0".to_owned(), SiteStatus::Grown, MIB, 3 * MIB)]);
}

#[test]
fn a_change_needs_disjoint_ranges_and_a_gap_that_matters() {
    let one = |bytes: &[u64]| vec![site("app::f", 0, "x();", bytes)];
    assert!(changes(one(&[MIB]), one(&[MIB + 4096])).is_empty(), "4 KiB is no more than 4 KiB");
    // 1 % of 1 MiB is 10,485.76 bytes.
    assert!(changes(one(&[MIB]), one(&[MIB + 10_485])).is_empty());
    assert_eq!(changes(one(&[MIB]), one(&[MIB + 10_486])).len(), 1);
    let many = |from: u64| (0..20).map(|run| from + run * 1000).collect::<Vec<u64>>();
    assert_eq!(changes(one(&many(MIB)), one(&many(2 * MIB))).len(), 1);
    assert!(changes(one(&many(MIB)), one(&many(MIB + 18_000))).is_empty(), "they overlap");
}

#[test]
fn few_runs_that_vary_may_be_chance() {
    let one = |bytes: &[u64]| vec![site("app::f", 0, "x();", bytes)];
    // 3 and 3 runs are separate by chance in 2 of 20 orders.
    assert_eq!(chance_of_separation(3, 3), 0.1);
    assert!((chance_of_separation(5, 5) - 2.0 / 252.0).abs() < 1e-12);
    assert_eq!(chance_of_separation(1, 1), 1.0);
    let varies =
        diff(&side(one(&[MIB, MIB + (1 << 14), MIB])), &side(one(&[2 * MIB; 3])), DiffOptions::default());
    assert_eq!(
        (varies.sites.len(), varies.noise, varies.varying.as_slice()),
        (0, 1, &["allocated_bytes", "allocations"][..])
    );
    // The same figures in all runs are no chance.
    assert_eq!(changes(one(&[MIB; 3]), one(&[2 * MIB; 3])).len(), 1);
    // One run each: the program counts as one that does not vary.
    let single = diff(&side(one(&[MIB])), &side(one(&[2 * MIB])), DiffOptions::default());
    assert!(single.is_of_single_runs() && single.sites.len() == 1);
    assert!(single.notes()[0].starts_with("Each side is a single run"), "{:?}", single.notes());
}

#[test]
fn what_got_worse_comes_first_and_the_review_says_so() {
    let base = vec![site("app::f", 0, "x();", &[9 * MIB]), site("app::g", 0, "y();", &[MIB])];
    let new = vec![site("app::f", 0, "x();", &[MIB]), site("app::g", 0, "y();", &[2 * MIB])];
    let compared = diff(&side(base.clone()), &side(new.clone()), DiffOptions::default());
    let order: Vec<SiteStatus> = compared.sites.iter().map(|site| site.status).collect();
    assert_eq!(order, [SiteStatus::Grown, SiteStatus::Shrunk]);
    let first = DiffOptions { top: Some(1), ..DiffOptions::default() };
    let cut = diff(&side(base.clone()), &side(new.clone()), first);
    assert_eq!((cut.sites.len(), cut.omitted, cut.counts), (1, 1, compared.counts));
    assert_eq!((cut.counts.grown, cut.counts.shrunk), (1, 1));
    let review = compared.review();
    assert_eq!(review.verdict, "1 site allocates or holds more than in the base, and 1 less.");
    assert!(review.findings[0].message.starts_with("Allocated 1.0 MiB -> 2.0 MiB; Allocations"));
    let named = Diff { new_command: "/w/target/shop --port 80".to_owned(), ..compared.clone() };
    assert_eq!(named.review().title, "Heap of shop");
    assert_eq!(review.totals[2].base.unwrap() - review.totals[2].new, 7 * MIB);
}
