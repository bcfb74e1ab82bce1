//! Whether recordings keep within their budgets. In: budgets, a baseline, and for each run what
//! [`measure`] found. Out: [`Check`].
//!
//! Every run must pass: the largest figure of all runs counts. Without budgets, each site and each
//! total may be above the baseline by 1 %, or by 4 KiB or 10 allocations if that is more.

mod measure;
mod to_review;

use serde::Serialize;

pub use self::measure::{Measured, RunFigures, Unmeasured, measure, measure_lost, program_name};
use super::baseline::{Baseline, comparable_sites, most};
use super::budgets::{Budget, BudgetBound, BudgetMetric, BudgetScope, label_of};
use super::column::FigureKind;
use super::diff::pair_sites;
use super::review::{ReviewFrame, ReviewTotal};
use super::site_figures::{FIGURES, SiteFigure, SiteFigures};
use super::site_table::{SideTable, TabledSite};

/// The verdict on one or several runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Check {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Whether every figure is within its bound, every budget matched something, and the recordings
    /// are exact.
    pub passed: bool,
    /// Command line of the program.
    pub command: String,
    /// Number of runs.
    pub runs: u64,
    /// The budget file. Null if the baseline alone bounds the figures.
    pub budget_file: Option<String>,
    /// Number of bounds that were compared with a figure.
    pub bounds: u64,
    /// The figures above their bounds: in the order of the budget file, then sites, the largest
    /// excess first.
    pub violations: Vec<Violation>,
    /// The budgets that matched nothing.
    pub unmatched: Vec<Unmatched>,
    /// Why the recordings do not allow a pass; one sentence for each such recording.
    pub recordings: Vec<String>,
    /// The figures of the process, for reviewers.
    #[serde(skip)]
    pub totals: Vec<ReviewTotal>,
}

/// A figure above its bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Violation {
    /// What the bound is about.
    pub scope: BudgetScope,
    /// The pattern of the budget; the function of a site. Empty for the whole process.
    pub name: String,
    /// The figure: `peak_bytes`, `live_bytes`, `allocated_bytes`, `allocations`, `temporary`,
    /// `rss_peak_bytes` or `lost_bytes`.
    pub metric: &'static str,
    /// The most that it may be.
    pub bound: u64,
    /// The largest figure of all runs.
    pub found: u64,
    /// By how much it is above the bound.
    pub excess: u64,
    /// The figure of the baseline. Null if the bound is not relative to it.
    pub base: Option<u64>,
    /// The site with the largest part of the figure; of a thread, the thread's name. Null if there
    /// is none.
    pub site: Option<String>,
    /// Source file of the site. Null if it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Line of the budget file that sets the bound. Null for a bound by the baseline alone.
    pub budget_line: Option<u32>,
    #[serde(skip)]
    pub(super) kind: Option<BudgetMetric>,
    #[serde(skip)]
    pub(super) stack: Vec<ReviewFrame>,
}

/// A budget that matched nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unmatched {
    /// What the bound is about.
    pub scope: BudgetScope,
    /// The pattern of the budget. Empty for the whole process.
    pub name: String,
    /// The figure.
    pub metric: &'static str,
    /// Line of the budget file.
    pub budget_line: u32,
    /// What is missing, in one sentence.
    pub reason: String,
}

/// A budget is relative, and the baseline does not have its figure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: the baseline has no figure for {metric} of {label}: add it with --update")]
pub struct NotInBaseline {
    /// Line of the budget file.
    pub line: u32,
    /// Key of the figure.
    pub metric: &'static str,
    /// What the budget is about.
    pub label: String,
}

/// The runs that are judged.
#[derive(Clone, Debug, Default)]
pub struct CheckedRuns {
    /// The sites of all runs.
    pub side: SideTable,
    /// What was measured for the budgets, one for each run.
    pub figures: Vec<RunFigures>,
    /// Why recordings do not allow a pass.
    pub recordings: Vec<String>,
}

/// Judges runs by budgets, or by the baseline alone if there are none.
///
/// # Errors
/// If the baseline lacks a figure that a budget is relative to.
pub fn check(
    runs: &CheckedRuns,
    budgets: &[Budget],
    baseline: Option<&Baseline>,
) -> Result<Check, NotInBaseline> {
    let mut check = Check {
        schema: "alloc-tracker/check/1",
        command: runs.side.command.clone(),
        runs: runs.side.totals.len() as u64,
        recordings: runs.recordings.clone(),
        ..Check::default()
    };
    for (at, budget) in budgets.iter().enumerate() {
        check.judge(at, budget, runs, baseline)?;
    }
    if let (true, Some(baseline)) = (budgets.is_empty(), baseline) {
        check.compare(&runs.side, baseline);
    }
    check.totals = totals(&runs.side, baseline, &check.violations);
    check.passed = check.violations.is_empty() && check.unmatched.is_empty() && check.recordings.is_empty();
    Ok(check)
}

impl CheckedRuns {
    /// Returns the largest figure that was measured for a budget; `None` if it matched nothing, or
    /// if it is about the whole process and a run does not have the figure.
    fn worst(&self, at: usize, scope: BudgetScope) -> Option<&Measured> {
        let of_runs = || self.figures.iter().filter_map(|run| run.budgets.get(at));
        if scope == BudgetScope::Total && of_runs().any(Result::is_err) {
            return None;
        }
        of_runs().filter_map(|measured| measured.as_ref().ok()).max_by_key(|measured| measured.value)
    }

    /// Returns the figures that relative budgets need in a baseline.
    pub fn figures_for_baseline(&self, budgets: &[Budget]) -> Vec<(String, BudgetMetric, u64)> {
        let relative = budgets.iter().enumerate().filter(|(_, budget)| budget.bound.is_relative());
        let row = |(at, budget): (usize, &Budget)| {
            Some((budget.label(), budget.metric, self.worst(at, budget.scope)?.value))
        };
        relative.filter_map(row).collect()
    }
}

impl Check {
    /// Judges one budget.
    fn judge(
        &mut self,
        at: usize,
        budget: &Budget,
        runs: &CheckedRuns,
        baseline: Option<&Baseline>,
    ) -> Result<(), NotInBaseline> {
        let Some(worst) = runs.worst(at, budget.scope) else {
            let reason = runs.figures.iter().find_map(|run| run.budgets.get(at)?.as_ref().err());
            self.unmatched.push(Unmatched {
                scope: budget.scope,
                name: budget.name.to_string(),
                metric: budget.metric.name(),
                budget_line: budget.line,
                reason: reason.map_or_else(|| "there is no run".to_owned(), |reason| reason.0.clone()),
            });
            return Ok(());
        };
        let base = match budget.bound.is_relative() {
            false => None,
            true => {
                let base = baseline.and_then(|baseline| baseline.figure_of(budget));
                Some(base.ok_or_else(|| NotInBaseline {
                    line: budget.line,
                    metric: budget.metric.key(),
                    label: budget.label(),
                })?)
            }
        };
        self.bounds += 1;
        let bound = budget.bound.limit(base.unwrap_or(0));
        if worst.value > bound {
            self.violations.push(Violation {
                scope: budget.scope,
                name: budget.name.to_string(),
                metric: budget.metric.name(),
                bound,
                found: worst.value,
                excess: worst.value - bound,
                base,
                site: worst.site.clone(),
                file: worst.file.clone(),
                line: worst.line,
                budget_line: Some(budget.line),
                kind: Some(budget.metric),
                stack: Vec::new(),
            });
        }
        Ok(())
    }

    /// Compares every total and every site with the baseline.
    fn compare(&mut self, side: &SideTable, baseline: &Baseline) {
        self.compare_figures(&baseline.totals, &most(&side.totals), BudgetScope::Total, None);
        let new = comparable_sites(side);
        let first_of_sites = self.violations.len();
        let base = baseline.tabled_sites();
        for pair in pair_sites(&base, &new) {
            // A site that is gone is no violation.
            let Some(site) = pair.new.map(|at| &new[at]) else { continue };
            let base = pair.base.map_or_else(SiteFigures::default, |at| most(&base[at].runs));
            self.compare_figures(&base, &most(&site.runs), BudgetScope::Site, Some(site));
        }
        self.violations[first_of_sites..].sort_by(|one, other| {
            let order = |of: &Violation| (!of.counts_bytes(), std::cmp::Reverse(of.excess));
            order(one).cmp(&order(other)).then_with(|| (&one.name, one.line).cmp(&(&other.name, other.line)))
        });
    }

    fn compare_figures(
        &mut self,
        base: &SiteFigures,
        new: &SiteFigures,
        scope: BudgetScope,
        site: Option<&TabledSite>,
    ) {
        for metric in BudgetMetric::OF_SITES {
            self.bounds += 1;
            let least_gap = metric.figure().map_or(0, |figure| figure.least_gap());
            let (base, found) = (metric.of(base), metric.of(new));
            let bound = BudgetBound::Share(ONE_PERCENT).limit(base).max(base.saturating_add(least_gap));
            if found > bound {
                self.violations.push(Violation {
                    scope,
                    name: site.map_or_else(String::new, |site| site.key.function.clone()),
                    metric: metric.name(),
                    bound,
                    found,
                    excess: found - bound,
                    base: Some(base),
                    site: site.map(|site| site.key.function.clone()),
                    file: site.and_then(|site| site.file.clone()),
                    line: site.and_then(|site| site.line),
                    budget_line: None,
                    kind: Some(metric),
                    stack: site.map_or_else(Vec::new, |site| site.stack.clone()),
                });
            }
        }
    }
}

impl Violation {
    /// Returns what the bound is about: `function 'app::parse*'`, or `total`.
    pub fn label(&self) -> String {
        match self.scope {
            BudgetScope::Site => self.name.clone(),
            scope => label_of(scope, &self.name),
        }
    }

    /// Whether the figure counts bytes.
    pub fn counts_bytes(&self) -> bool {
        self.kind.is_none_or(|metric| metric.kind() == FigureKind::Bytes)
    }

    /// Returns figure, bound and excess: `Peak 2.0 MiB, at most 1.0 MiB: 1.0 MiB too much`.
    pub fn sentence(&self) -> String {
        let metric = self.kind.unwrap_or(BudgetMetric::Peak);
        let show = |value: u64| metric.kind().show(i128::from(value));
        let title = metric.title();
        let (found, bound) = match (show(self.found), show(self.bound)) {
            // Both are rounded to the same text.
            (found, bound) if found == bound => {
                let exactly =
                    |value: u64| metric.kind().show_exactly(i128::from(value)).unwrap_or(found.clone());
                (exactly(self.found), exactly(self.bound))
            }
            both => both,
        };
        let too = if self.counts_bytes() { "too much" } else { "too many" };
        let base = self.base.map_or_else(String::new, |base| format!(" (baseline {})", show(base)));
        format!("{title} {found}, at most {bound}{base}: {} {too}", show(self.excess))
    }
}

fn totals(side: &SideTable, baseline: Option<&Baseline>, violations: &[Violation]) -> Vec<ReviewTotal> {
    let row = |figure: &SiteFigure| {
        let values = || side.totals.iter().map(figure.of);
        let is_violated = |one: &Violation| one.scope == BudgetScope::Total && one.metric == figure.name;
        ReviewTotal {
            name: figure.name,
            title: figure.title,
            is_bytes: figure.is_bytes(),
            base: baseline.map(|baseline| (figure.of)(&baseline.totals)),
            new: values().max().unwrap_or(0),
            range: [values().min().unwrap_or(0), values().max().unwrap_or(0)],
            is_changed: violations.iter().any(is_violated),
        }
    };
    FIGURES.iter().map(row).collect()
}

/// 1 %, in thousandths of a percent.
const ONE_PERCENT: u64 = 1000;

#[cfg(test)]
mod tests;
