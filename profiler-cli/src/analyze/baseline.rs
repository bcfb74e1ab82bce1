//! The baseline of a program: its figures in a text file that is kept in the repository. In: the
//! sites of some runs, or the text. Out: the text, or [`Baseline`]. The same runs always give the
//! same bytes.
//!
//! ```text
//! alloc-tracker baseline 1
//! program shop
//! total peak_bytes=1048576 live_bytes=0 allocated_bytes=2097152 allocations=12 temporary=3
//! budget 1000 allocations function 'app::parse*'
//! site app::load #0 peak_bytes=1048576 allocated_bytes=1048576 allocations=1
//! ```
//!
//! There are no addresses and no paths, so that the file is the same on each machine. Names of
//! functions may have blanks, so a line is read from its end.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt::Write;

use super::budgets::{Budget, BudgetMetric, BudgetScope};
use super::site::SiteKey;
use super::site_figures::{FIGURES, SiteFigures};
use super::site_table::{SideTable, TabledSite};
use crate::units::harmless;

/// The figures of a program that later runs are compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// File name of the program.
    pub program: String,
    /// The figures of the whole process.
    pub totals: SiteFigures,
    /// The figures that budgets are relative to, by their label and metric, sorted.
    pub budgets: Vec<(String, BudgetMetric, u64)>,
    /// The sites that matter, sorted.
    pub sites: Vec<(SiteKey, SiteFigures)>,
}

/// What is wrong with the text of a baseline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// The first line is that of no baseline.
    #[error("this is no baseline: the first line is not '{HEAD} {VERSION}'")]
    NoBaseline,
    /// A newer program has written it.
    #[error(
        "this baseline has version {0}, and {VERSION} is the newest that this program can read: use a newer profiler-cli"
    )]
    Newer(u32),
    /// A line cannot be read.
    #[error("line {0}: this is no line of a baseline: make it anew with --update")]
    Line(usize),
    /// A total, a budget or a site has two lines, perhaps after a merge.
    #[error("line {0}: this is there twice: make it anew with --update")]
    Twice(usize),
    /// The line of the process is missing.
    #[error("there is no line that begins with 'total': make it anew with --update")]
    NoTotal,
}

impl Baseline {
    /// Takes the largest figures of all runs.
    pub fn of(program: &str, side: &SideTable, budgets: Vec<(String, BudgetMetric, u64)>) -> Baseline {
        let sites = comparable_sites(side).into_iter().map(|site| (site.key, most(&site.runs))).collect();
        let mut budgets = budgets;
        budgets.sort();
        budgets.dedup();
        Baseline { program: program.to_owned(), totals: most(&side.totals), budgets, sites }
    }

    /// Returns the text of the file.
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD} {VERSION}\nprogram {}\n", escaped(&self.program));
        let _ = writeln!(text, "total{}", figures_text(&self.totals));
        for (label, metric, value) in &self.budgets {
            let _ = writeln!(text, "budget {value} {} {}", metric.key(), escaped(label));
        }
        for (key, figures) in &self.sites {
            let name = escaped(&key.function);
            let _ = writeln!(text, "site {name} #{}{}", key.ordinal, figures_text(figures));
        }
        text
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// See [`BaselineError`].
    pub fn parse(text: &str) -> Result<Baseline, BaselineError> {
        let mut lines = (1..).zip(text.lines());
        let (_, head) = lines.next().unwrap_or((1, ""));
        let version = head.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix(' '));
        match version.and_then(|version| version.trim().parse().ok()) {
            None | Some(0) => return Err(BaselineError::NoBaseline),
            Some(VERSION) => {}
            Some(newer) => return Err(BaselineError::Newer(newer)),
        }
        let mut baseline = Baseline::default();
        let (mut has_totals, mut known) = (false, BTreeSet::new());
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let read = match kind {
                "program" => unescaped(rest).map(|program| {
                    baseline.program = program;
                    String::new()
                }),
                "total" => parse_figures(rest).filter(|(name, _)| name.is_empty()).map(|(_, figures)| {
                    has_totals = true;
                    baseline.totals = figures;
                    String::new()
                }),
                "budget" => parse_budget(rest).map(|budget| {
                    let identity = format!("{} {}", budget.1.key(), budget.0);
                    baseline.budgets.push(budget);
                    identity
                }),
                "site" => parse_site(rest).map(|site| {
                    let identity = format!("{} #{}", site.0.function, site.0.ordinal);
                    baseline.sites.push(site);
                    identity
                }),
                _ => None,
            };
            let identity = read.ok_or(BaselineError::Line(number))?;
            if !known.insert((kind, identity)) {
                return Err(BaselineError::Twice(number));
            }
        }
        if !has_totals {
            return Err(BaselineError::NoTotal);
        }
        // A merge may have put lines in another order.
        baseline.sites.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(baseline)
    }

    /// Returns the figure that a budget is relative to; `None` if the baseline does not have it.
    pub fn figure_of(&self, budget: &Budget) -> Option<u64> {
        let label = budget.label();
        let known = self.budgets.iter().find(|(name, metric, _)| *name == label && *metric == budget.metric);
        let of_total = || {
            let is_total = budget.scope == BudgetScope::Total && budget.metric.figure().is_some();
            is_total.then(|| budget.metric.of(&self.totals))
        };
        known.map(|(_, _, value)| *value).or_else(of_total)
    }

    /// Returns the sites as one run of a side of a comparison.
    pub(super) fn tabled_sites(&self) -> Vec<TabledSite> {
        let tabled = |(key, figures): &(SiteKey, SiteFigures)| TabledSite {
            key: key.clone(),
            file: None,
            line: None,
            evidence: None,
            callers: BTreeSet::new(),
            is_own: false,
            runs: vec![*figures],
            stack: Vec::new(),
        };
        self.sites.iter().map(tabled).collect()
    }
}

/// Returns the largest of each figure.
pub(super) fn most(runs: &[SiteFigures]) -> SiteFigures {
    let max = |of: fn(&SiteFigures) -> u64| runs.iter().map(of).max().unwrap_or(0);
    SiteFigures {
        peak_bytes: max(|run| run.peak_bytes),
        live_bytes: max(|run| run.live_bytes),
        allocated_bytes: max(|run| run.allocated_bytes),
        allocations: max(|run| run.allocations),
        temporary: max(|run| run.temporary),
    }
}

/// Returns the sites that a baseline has or is compared with, sorted by their keys: without those
/// that are too small to matter. Code without names would differ by its addresses from build to
/// build, so all of it in a module is one site.
pub(super) fn comparable_sites(side: &SideTable) -> Vec<TabledSite> {
    let mut sites: Vec<TabledSite> = Vec::new();
    let mut of_modules: BTreeMap<String, TabledSite> = BTreeMap::new();
    for site in &side.sites {
        let Some(module) = module_of_address(&site.key.function) else {
            sites.push(site.clone());
            continue;
        };
        let function = format!("(no name in {module})");
        match of_modules.entry(function) {
            Entry::Occupied(mut known) => {
                let runs = known.get_mut().runs.iter_mut().zip(&site.runs);
                runs.for_each(|(sum, run)| sum.add_all(run));
            }
            Entry::Vacant(vacant) => {
                let key = SiteKey { function: vacant.key().clone(), ordinal: 0 };
                vacant.insert(TabledSite { key, ..site.clone() });
            }
        }
    }
    sites.extend(of_modules.into_values());
    sites.retain(|site| matters(&most(&site.runs)));
    sites.sort_by(|one, other| one.key.cmp(&other.key));
    sites
}

/// Returns the module of a function that has an address instead of a name: `libz.so` of
/// `libz.so+0x1f`, and `memory` of an address in no module.
fn module_of_address(function: &str) -> Option<&str> {
    let (module, address) = function.rsplit_once("0x")?;
    let is_address = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit());
    match module {
        _ if !is_address => None,
        "" => Some("memory"),
        _ => module.strip_suffix('+'),
    }
}

/// Whether a site has a figure that a comparison would look at: 4 KiB, or 10 allocations.
fn matters(figures: &SiteFigures) -> bool {
    FIGURES.iter().any(|figure| (figure.of)(figures) >= figure.least_gap())
}

/// Returns the figures that are not 0, each with a blank before it.
fn figures_text(figures: &SiteFigures) -> String {
    let mut text = String::new();
    for figure in FIGURES {
        let value = (figure.of)(figures);
        if value > 0 {
            let _ = write!(text, " {}={value}", figure.name);
        }
    }
    text
}

/// Takes the figures off the end of a line. Returns what is before them.
fn parse_figures(line: &str) -> Option<(&str, SiteFigures)> {
    let mut figures = SiteFigures::default();
    let mut rest = line.trim_end();
    loop {
        let (before, word) = rest.rsplit_once(' ').unwrap_or(("", rest));
        let Some((name, value)) = word.split_once('=') else { return Some((rest, figures)) };
        let value: u64 = value.parse().ok()?;
        let place = match name {
            "peak_bytes" => &mut figures.peak_bytes,
            "live_bytes" => &mut figures.live_bytes,
            "allocated_bytes" => &mut figures.allocated_bytes,
            "allocations" => &mut figures.allocations,
            "temporary" => &mut figures.temporary,
            _ => return None,
        };
        *place = value;
        rest = before.trim_end();
    }
}

fn parse_site(line: &str) -> Option<(SiteKey, SiteFigures)> {
    let (name, figures) = parse_figures(line)?;
    let (function, ordinal) = name.rsplit_once(" #")?;
    Some((SiteKey { function: unescaped(function)?, ordinal: ordinal.parse().ok()? }, figures))
}

fn parse_budget(line: &str) -> Option<(String, BudgetMetric, u64)> {
    let (value, rest) = line.split_once(' ')?;
    let (key, label) = rest.split_once(' ')?;
    let metric = BudgetMetric::ALL.into_iter().find(|metric| metric.key() == key)?;
    Some((unescaped(label)?, metric, value.parse().ok()?))
}

/// Returns a name on one line, in which every character is visible.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            _ if harmless(c) != c => text.extend(c.escape_unicode()),
            _ => text.push(c),
        }
    }
    text
}

/// Returns the name that [`escaped`] has written.
fn unescaped(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        name.push_str(before);
        if let Some(after) = escape.strip_prefix('\\') {
            name.push('\\');
            rest = after;
            continue;
        }
        let (digits, after) = escape.strip_prefix("u{")?.split_once('}')?;
        name.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    Some(name + rest)
}

/// The first words of a baseline.
const HEAD: &str = "alloc-tracker baseline";
/// The version that this program reads and writes.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(function: &str, ordinal: u32) -> SiteKey {
        SiteKey { function: function.to_owned(), ordinal }
    }

    fn figures(allocated_bytes: u64, allocations: u64) -> SiteFigures {
        SiteFigures { allocated_bytes, allocations, ..SiteFigures::default() }
    }

    fn baseline() -> Baseline {
        Baseline {
            program: "shop".to_owned(),
            totals: SiteFigures { peak_bytes: 5000, ..figures(9000, 12) },
            budgets: vec![("function 'a b'".to_owned(), BudgetMetric::Peak, 77)],
            sites: vec![
                (key("<app::A as app::B>::go #1", 0), figures(4096, 0)),
                (key("app::odd\\name\n=3", 2), figures(0, 10)),
            ],
        }
    }

    #[test]
    fn the_text_gives_the_same_baseline() {
        let text = "alloc-tracker baseline 1\nprogram shop\n\
                    total peak_bytes=5000 allocated_bytes=9000 allocations=12\n\
                    budget 77 peak function 'a b'\n\
                    site <app::A as app::B>::go #1 #0 allocated_bytes=4096\n\
                    site app::odd\\\\name\\u{a}=3 #2 allocations=10\n";
        assert_eq!(baseline().text(), text);
        assert_eq!(Baseline::parse(text), Ok(baseline()));
    }

    #[test]
    fn small_sites_are_left_out_and_the_worst_run_counts() {
        let site = |function: &str, runs: &[SiteFigures]| TabledSite {
            runs: runs.to_vec(),
            ..Baseline { sites: vec![(key(function, 0), runs[0])], ..Baseline::default() }
                .tabled_sites()
                .remove(0)
        };
        let side = SideTable {
            totals: vec![figures(10, 3), figures(20, 1)],
            sites: vec![
                site("app::b", &[figures(4095, 9), figures(4096, 2)]),
                site("app::a", &[figures(4095, 9), figures(0, 0)]),
                site("app::A", &[figures(1, 10), figures(7, 0)]),
            ],
            ..SideTable::default()
        };
        let baseline = Baseline::of("shop", &side, Vec::new());
        assert_eq!(baseline.totals, figures(20, 3));
        assert_eq!(
            baseline.sites,
            [(key("app::A", 0), figures(7, 10)), (key("app::b", 0), figures(4096, 9))]
        );

        let unnamed = SideTable {
            sites: vec![
                site("0x7f00", &[figures(5000, 1)]),
                site("app::f0x1", &[figures(6000, 1)]),
                site("libz.so+0x1f", &[figures(3000, 1)]),
                site("libz.so+0x2a", &[figures(2000, 1)]),
            ],
            ..SideTable::default()
        };
        let sites = Baseline::of("shop", &unnamed, Vec::new()).sites;
        let expected = [
            (key("(no name in libz.so)", 0), figures(5000, 2)),
            (key("(no name in memory)", 0), figures(5000, 1)),
            (key("app::f0x1", 0), figures(6000, 1)),
        ];
        assert_eq!(sites, expected);
    }

    #[test]
    fn other_texts_are_refused() {
        let parse = |text: &str| Baseline::parse(text).unwrap_err();
        assert_eq!(parse(""), BaselineError::NoBaseline);
        assert_eq!(parse("fn main() {}\n"), BaselineError::NoBaseline);
        assert_eq!(parse("alloc-tracker baseline x"), BaselineError::NoBaseline);
        assert_eq!(parse("alloc-tracker baseline 2\nanything"), BaselineError::Newer(2));
        let head = "alloc-tracker baseline 1\nprogram shop\ntotal\n";
        for line in ["site app::f", "site app::f #x", "site app::f #0 peak=1", "<<<<<<< HEAD", "site a\\x #0"]
        {
            assert_eq!(parse(&format!("{head}{line}\n")), BaselineError::Line(4), "{line}");
        }
        assert_eq!(parse("alloc-tracker baseline 1\nprogram shop\n"), BaselineError::NoTotal, "cut off");
        let twice = ["program shop", "total peak_bytes=1"];
        for line in twice {
            assert_eq!(parse(&format!("{head}{line}\n")), BaselineError::Twice(4), "{line}");
        }
        for [one, other] in [
            ["site app::f #0 allocations=20", "site app::f #0 allocations=30"],
            ["budget 1 peak function 'f'", "budget 2 peak function 'f'"],
        ] {
            assert_eq!(parse(&format!("{head}{one}\n{other}\n")), BaselineError::Twice(5), "{one}");
        }
        let different = "site app::f #0 allocations=20\nsite app::f #1 allocations=20\n\
                         budget 1 peak function 'f'\nbudget 1 live function 'f'\n";
        assert!(Baseline::parse(&format!("{head}{different}")).is_ok());
    }
}
