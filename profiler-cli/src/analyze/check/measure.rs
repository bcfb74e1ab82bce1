//! The figures of one run that budgets bound. In: budgets, a profile, its named stacks, and what
//! the snapshot says is lost. Out: [`RunFigures`].

use std::collections::BTreeMap;

use foldhash::HashMap;

use crate::analyze::budgets::{Budget, BudgetMetric, BudgetScope};
use crate::analyze::canonical_name::canonical_function;
use crate::analyze::filter::Filter;
use crate::analyze::gate::{Undecided, lost_bytes};
use crate::analyze::held::Verdict;
use crate::analyze::leaks::Leaks;
use crate::analyze::site_figures::SiteFigures;
use crate::analyze::source_paths::SourcePaths;
use crate::analyze::summary::{process_peaks, with_ids};
use crate::names::stacks::{FrameId, Stacks};
use crate::pattern::Pattern;
use crate::profile::{Annotated, AnnotatedLine, Profile};

/// What was measured in one run.
#[derive(Clone, Debug, Default)]
pub struct RunFigures {
    /// One for each budget, in their order.
    pub budgets: Vec<Result<Measured, Unmeasured>>,
}

/// The figure of a budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The figure.
    pub value: u64,
    /// The site with the largest part of it, the thread, or the annotated function.
    pub site: Option<String>,
    /// Source file of the site, as reports show it.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
}

/// Why a budget has no figure in a run; one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeasured(pub String);

/// Measures what budgets bound. Without `lost`, a budget for what is lost has no figure.
pub fn measure(
    budgets: &[Budget],
    profile: &Profile,
    stacks: &Stacks,
    lost: Option<&Result<Measured, Unmeasured>>,
) -> RunFigures {
    let run = MeasuredRun { profile, stacks, paths: SourcePaths::of(profile, stacks), lost };
    RunFigures { budgets: budgets.iter().map(|budget| run.measure(budget)).collect() }
}

/// Returns the bytes that are lost by a report with verdicts, and the site with the most of them.
///
/// # Errors
/// If there is no snapshot, or if it does not tell whether a block is lost.
pub fn measure_lost(leaks: &Leaks) -> Result<Measured, Unmeasured> {
    let value = lost_bytes(leaks).map_err(|undecided| {
        Unmeasured(match undecided {
            Undecided::NothingIsLost(reason) => format!("it is not known what is lost: {reason}"),
            _ => NO_SNAPSHOT.to_owned(),
        })
    })?;
    let most = leaks.leaks.iter().find(|row| row.verdict == Verdict::Lost);
    Ok(Measured {
        value,
        site: most.map(|row| row.function.clone()),
        file: most.and_then(|row| row.file.clone()),
        line: most.and_then(|row| row.line),
    })
}

/// What is to be done if there is no snapshot.
const NO_SNAPSHOT: &str =
    "without a snapshot it is not known what is lost: take one with `profiler-cli run --snapshot-at-end`";

/// Returns the file name of the recorded program, without the hash that cargo gives to test
/// programs: `parse` of `target/debug/deps/parse-0123456789abcdef`.
pub fn program_name(profile: &Profile) -> String {
    let exe = profile.process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match exe.rsplit_once('-') {
        Some((name, hash)) if is_hash(hash) => name.to_owned(),
        _ => exe,
    }
}

/// Function, file and line of a site.
type Place = (Option<String>, Option<String>, Option<u32>);

struct MeasuredRun<'a> {
    profile: &'a Profile,
    stacks: &'a Stacks,
    paths: SourcePaths,
    lost: Option<&'a Result<Measured, Unmeasured>>,
}

impl MeasuredRun<'_> {
    fn measure(&self, budget: &Budget) -> Result<Measured, Unmeasured> {
        let pattern = Some(budget.name.clone());
        let filter = match budget.scope {
            BudgetScope::Total if budget.metric == BudgetMetric::RssPeak => return self.rss(),
            BudgetScope::Total if budget.metric == BudgetMetric::Lost => {
                return self.lost.cloned().unwrap_or_else(|| Err(Unmeasured(NO_SNAPSHOT.to_owned())));
            }
            BudgetScope::Thread => return self.thread(budget),
            BudgetScope::PerCall => return self.per_call(budget),
            BudgetScope::Total | BudgetScope::Site => Filter::default(),
            BudgetScope::Function => Filter { function: pattern, ..Filter::default() },
            BudgetScope::Crate => Filter { krate: pattern, ..Filter::default() },
            BudgetScope::File => Filter { file: pattern, ..Filter::default() },
        };
        self.of_stacks(filter, budget.metric)
    }

    /// Adds up the figure of all stacks that a filter accepts, and finds the site with the most.
    fn of_stacks(&self, mut filter: Filter, metric: BudgetMetric) -> Result<Measured, Unmeasured> {
        filter.prefer_own_files(self.stacks);
        filter.check(self.stacks, &[]).map_err(|no_match| Unmeasured(no_match.to_string()))?;
        let accepted = filter.accepted(self.stacks);
        let mut by_site: HashMap<Option<FrameId>, u64> = HashMap::default();
        let mut sum = SiteFigures::default();
        for (stack, stats) in with_ids(self.profile).filter(|(stack, _)| accepted.accepts(*stack)) {
            let mut figures = SiteFigures::default();
            figures.add(stats);
            sum.add_all(&figures);
            let value = metric.of(&figures);
            if value > 0 {
                *by_site.entry(self.stacks.site(stack)).or_default() += value;
            }
        }
        // The totals of the process are those of the recorder, which knows more than its stacks.
        let is_whole = filter.is_empty();
        let sum = if is_whole { SiteFigures::of_process(&self.profile.totals) } else { sum };
        // Code that is inlined at one call and not at another has several frames at one place.
        let mut by_place: BTreeMap<Place, u64> = BTreeMap::new();
        for (site, value) in by_site {
            *by_place.entry(self.place(site)).or_default() += value;
        }
        // Of equal places, the first one.
        let largest = by_place.into_iter().rev().max_by_key(|(_, value)| *value);
        let (site, file, line) = largest.map(|(place, _)| place).unwrap_or_default();
        Ok(Measured { value: metric.of(&sum), site, file, line })
    }

    fn place(&self, site: Option<FrameId>) -> Place {
        let Some(frame) = site.map(|site| self.stacks.frame(site)) else { return Place::default() };
        let file = frame.file.as_deref().map(|file| self.paths.shown(file).to_owned());
        (Some(canonical_function(&frame.function)), file, frame.line)
    }

    fn rss(&self) -> Result<Measured, Unmeasured> {
        let peaks = process_peaks(self.profile);
        match peaks.samples {
            0 => Err(Unmeasured("the recording has no sample of the resident memory".to_owned())),
            _ => Ok(Measured { value: peaks.rss, ..Measured::default() }),
        }
    }

    /// Returns the figure of the thread that has the most of it.
    fn thread(&self, budget: &Budget) -> Result<Measured, Unmeasured> {
        let of = |thread: &crate::profile::RecordedThread| match budget.metric {
            BudgetMetric::Allocated => thread.allocated,
            _ => thread.allocations,
        };
        let matching = self.profile.threads.iter().filter(|thread| budget.name.matches(&thread.name));
        let most = matching.max_by_key(|thread| (of(thread), std::cmp::Reverse(thread.id)));
        let names = self.profile.threads.iter().map(|thread| thread.name.as_str());
        most.map(|thread| Measured {
            value: of(thread),
            site: Some(thread.name.clone()),
            ..Measured::default()
        })
        .ok_or_else(|| no_name("thread", &budget.name, names))
    }

    /// Returns the average of the annotated function that has the most for each call, rounded up.
    fn per_call(&self, budget: &Budget) -> Result<Measured, Unmeasured> {
        let annotated = || self.profile.annotated.iter().filter(|function| !function.lines.is_empty());
        let matching = self
            .profile
            .annotated
            .iter()
            .enumerate()
            .filter(|(_, function)| !function.lines.is_empty() && budget.name.matches(&function.name));
        let per_call = |(at, function): (usize, &Annotated)| {
            let figure = |line: &AnnotatedLine| match budget.metric {
                BudgetMetric::Allocated => line.allocated,
                _ => line.allocations,
            };
            let sum = function.lines.values().map(figure).fold(0, u64::saturating_add);
            let value = sum.div_ceil(self.calls(at, function).max(1));
            let file = Some(self.paths.shown(&function.file).to_owned());
            Measured { value, site: Some(function.name.clone()), file, line: Some(function.start_line) }
        };
        let most = matching
            .map(per_call)
            .max_by(|one, other| one.value.cmp(&other.value).then_with(|| other.site.cmp(&one.site)));
        most.ok_or_else(|| {
            no_name("annotated function", &budget.name, annotated().map(|function| function.name.as_str()))
        })
    }

    /// Returns how often a function was called, without calls from within itself. If the recording
    /// has too many calls to keep them all, returns how often its first line was reached.
    fn calls(&self, at: usize, function: &Annotated) -> u64 {
        if self.profile.spans_dropped == 0 {
            let begins = self.profile.spans.iter().filter(|span| span.function == at && !span.is_resumed);
            return begins.count() as u64;
        }
        function.lines.values().next().map_or(0, |line| line.occurrences)
    }
}

fn no_name<'n>(kind: &str, pattern: &Pattern, names: impl Iterator<Item = &'n str>) -> Unmeasured {
    let nearest = pattern.nearest(names.filter(|name| !name.is_empty()), 3);
    let nearest =
        if nearest.is_empty() { String::new() } else { format!("; the nearest: {}", nearest.join(", ")) };
    Unmeasured(format!("no {kind} matches '{pattern}'{nearest}"))
}
