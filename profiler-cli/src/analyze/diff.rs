//! What changed between two recordings, or between several runs of two builds. In: a [`SideTable`]
//! for each side. Out: [`Diff`].
//!
//! A figure has changed if all of these hold; anything else is noise:
//!
//! | condition | why |
//! | --- | --- |
//! | the ranges of its runs are disjoint | a program may differ from run to run |
//! | the gap is more than 1 % of the base, and than 4 KiB or 10 allocations | less matters to nobody |
//! | it varies on no side, or chance is below 5 % | few runs may be disjoint by chance |
//!
//! Chance: of m runs of the base and n runs now, in random order, all of one side lie below all of
//! the other with a probability of `2 / (m + n over m)`. That is multiplied by the number of
//! figures that vary from run to run (Bonferroni), since each of them may do so.

mod pairing;
mod to_review;

use serde::Serialize;

use self::pairing::SitePair;
pub(super) use self::pairing::pair_sites;
use super::site_figures::{FIGURES, SiteFigure, SiteFigures};
use super::site_table::{SideTable, TabledSite};

/// What changed between two sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diff {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Command line of the program in the base.
    pub base_command: String,
    /// Command line of the program now.
    pub new_command: String,
    /// Whether both sides are moments of one recording.
    pub one_recording: bool,
    /// Number of runs of the base.
    pub base_runs: u64,
    /// Number of runs now.
    pub new_runs: u64,
    /// Whether no event of any run is missing.
    pub exact: bool,
    /// Whether any of the totals or sites has changed.
    pub changed: bool,
    /// The figures of the whole process, or of what the filter lets through.
    pub totals: ChangedFigures,
    /// The sites that have changed: those that got worse first, the largest change first.
    pub sites: Vec<SiteChange>,
    /// Number of changed sites by what they did, whatever `--top` has left out.
    pub counts: StatusCounts,
    /// Number of changed sites that `--top` has left out.
    pub omitted: u64,
    /// Sites that have another function, file or crate than in the base. They are in `sites` too if
    /// their figures have changed.
    pub moved: Vec<MovedSite>,
    /// Number of sites whose figures are the same, but for less than what matters.
    pub unchanged: u64,
    /// Number of sites whose figures differ, but not clearly: their ranges overlap, or it may be
    /// chance.
    pub noise: u64,
    /// Names of the totals that vary from run to run.
    pub varying: Vec<&'static str>,
    /// What is wrong with the recordings; one sentence each.
    pub warnings: Vec<String>,
}

/// The figures of a site, or of the process, on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangedFigures {
    /// Bytes at the first instant of the process's peak.
    pub peak_bytes: ChangedFigure,
    /// Bytes that are live at the end.
    pub live_bytes: ChangedFigure,
    /// Bytes of allocations, and the new sizes of reallocations.
    pub allocated_bytes: ChangedFigure,
    /// Number of allocations; reallocations do not count.
    pub allocations: ChangedFigure,
    /// Number of blocks that the next heap event of their thread freed.
    pub temporary: ChangedFigure,
}

/// A figure on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangedFigure {
    /// The median of the base; of an even number of runs the lower one.
    pub base: u64,
    /// The median now.
    pub new: u64,
    /// The least and the most of the runs of the base.
    pub base_range: [u64; 2],
    /// The least and the most of the runs now.
    pub new_range: [u64; 2],
    /// Whether it has changed by more than noise.
    pub changed: bool,
}

/// What a site did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SiteStatus {
    /// The base does not have it.
    New,
    /// The first of its figures that has changed is larger.
    Grown,
    /// The first of its figures that has changed is smaller.
    Shrunk,
    /// Only the base has it.
    Gone,
}

/// Number of changed sites by what they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusCounts {
    /// Number of new sites.
    pub new: u64,
    /// Number of sites that have grown.
    pub grown: u64,
    /// Number of sites that have shrunk.
    pub shrunk: u64,
    /// Number of sites that are gone.
    pub gone: u64,
}

impl StatusCounts {
    fn of(sites: &[SiteChange]) -> StatusCounts {
        let count = |status| sites.iter().filter(|site| site.status == status).count() as u64;
        StatusCounts {
            new: count(SiteStatus::New),
            grown: count(SiteStatus::Grown),
            shrunk: count(SiteStatus::Shrunk),
            gone: count(SiteStatus::Gone),
        }
    }

    /// Returns the number of sites that did this.
    pub fn get(&self, status: SiteStatus) -> u64 {
        match status {
            SiteStatus::New => self.new,
            SiteStatus::Grown => self.grown,
            SiteStatus::Shrunk => self.shrunk,
            SiteStatus::Gone => self.gone,
        }
    }
}

/// A site that has changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SiteChange {
    /// What it did.
    pub status: SiteStatus,
    /// Its function, without hashes and generic arguments; of a site that is gone, that of the
    /// base.
    pub function: String,
    /// Its rank among the sites of the function, in the order of their lines.
    pub ordinal: u32,
    /// Its source file. Null if it is not known.
    pub file: Option<String>,
    /// Its line. Null if it is not known.
    pub line: Option<u32>,
    /// Whether it is the user's own code.
    pub own: bool,
    /// Its figures.
    #[serde(flatten)]
    pub figures: ChangedFigures,
    /// The call stack that allocates most, from the site outwards, without the runtime.
    pub stack: Vec<DiffFrame>,
}

/// A frame of a call stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffFrame {
    /// The function.
    pub function: String,
    /// Its source file. Null if it is not known.
    pub file: Option<String>,
    /// The line. Null if it is not known.
    pub line: Option<u32>,
}

/// A site with another function, file or crate than in the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MovedSite {
    /// Where it was.
    pub from: DiffFrame,
    /// Where it is.
    pub to: DiffFrame,
}

/// How two sides are compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiffOptions {
    /// The most changed sites that are listed; `None` for all.
    pub top: Option<usize>,
    /// Whether both sides are moments of one recording.
    pub is_one_recording: bool,
}

/// Compares two sides.
pub fn diff(base: &SideTable, new: &SideTable, options: DiffOptions) -> Diff {
    let pairs = pair_sites(&base.sites, &new.sites);
    let compared: Vec<(SitePair, Compared)> =
        pairs.into_iter().map(|pair| (pair, Compared::of_pair(pair, base, new))).collect();
    let totals = Compared::of(&base.totals, &new.totals);
    let varying_figures = compared.iter().map(|(_, site)| site.varying()).sum::<usize>() + totals.varying();
    let chance = chance_of_separation(base.totals.len(), new.totals.len()) * varying_figures.max(1) as f64;
    let may_be_chance = chance >= SIGNIFICANT;
    let (mut sites, mut moved, mut unchanged, mut noise) = (Vec::new(), Vec::new(), 0, 0);
    for (pair, site) in &compared {
        let figures = site.figures(may_be_chance);
        if let (Some(from), Some(to), true) = (pair.base, pair.new, pair.is_moved) {
            moved.push(MovedSite { from: place_of(&base.sites[from]), to: place_of(&new.sites[to]) });
        }
        match status_of(&figures) {
            Some(status) => {
                let shown = match pair.new {
                    Some(at) => &new.sites[at],
                    None => &base.sites[pair.base.unwrap_or_default()],
                };
                sites.push(site_change(status, shown, figures));
            }
            None if site.differs_clearly() || site.varying() > 0 => noise += 1,
            None => unchanged += 1,
        }
    }
    sites.sort_by(|one, other| {
        let order = |site: &SiteChange| {
            let got_better = matches!(site.status, SiteStatus::Gone | SiteStatus::Shrunk);
            (got_better, !site.own)
        };
        order(one)
            .cmp(&order(other))
            .then_with(|| weight(other).cmp(&weight(one)))
            .then_with(|| (&one.function, one.ordinal).cmp(&(&other.function, other.ordinal)))
    });
    moved.sort_by(|one, other| (&one.to.function, one.to.line).cmp(&(&other.to.function, other.to.line)));
    let totals_changed = totals.figures(may_be_chance);
    let changed = !sites.is_empty() || FIGURES.iter().any(|figure| totals_changed.get(figure).changed);
    let counts = StatusCounts::of(&sites);
    let top = options.top.unwrap_or(usize::MAX);
    let omitted = sites.len().saturating_sub(top);
    sites.truncate(top);
    let mut warnings = base.warnings.clone();
    warnings.extend(new.warnings.iter().filter(|warning| !base.warnings.contains(warning)).cloned());
    Diff {
        schema: "alloc-tracker/diff/1",
        base_command: base.command.clone(),
        new_command: new.command.clone(),
        one_recording: options.is_one_recording,
        base_runs: base.totals.len() as u64,
        new_runs: new.totals.len() as u64,
        exact: base.is_exact && new.is_exact,
        changed,
        totals: totals_changed,
        sites,
        counts,
        omitted: omitted as u64,
        moved,
        unchanged,
        noise,
        varying: FIGURES.iter().zip(&totals.0).filter(|(_, two)| two.varies()).map(|(f, _)| f.name).collect(),
        warnings,
    }
}

impl Diff {
    /// Whether each side is a single run of its own, so that a difference may be one from run to
    /// run.
    pub fn is_of_single_runs(&self) -> bool {
        self.base_runs == 1 && self.new_runs == 1 && !self.one_recording
    }
}

impl ChangedFigures {
    /// Returns one of the figures.
    pub fn get(&self, figure: &SiteFigure) -> ChangedFigure {
        let part = |part: fn(&ChangedFigure) -> u64| SiteFigures {
            peak_bytes: part(&self.peak_bytes),
            allocated_bytes: part(&self.allocated_bytes),
            allocations: part(&self.allocations),
            temporary: part(&self.temporary),
            live_bytes: part(&self.live_bytes),
        };
        let value = |values: fn(&ChangedFigure) -> u64| (figure.of)(&part(values));
        ChangedFigure {
            base: value(|figure| figure.base),
            new: value(|figure| figure.new),
            base_range: [value(|figure| figure.base_range[0]), value(|figure| figure.base_range[1])],
            new_range: [value(|figure| figure.new_range[0]), value(|figure| figure.new_range[1])],
            changed: value(|figure| u64::from(figure.changed)) > 0,
        }
    }
}

impl ChangedFigure {
    /// Returns by how much the median differs.
    pub fn change(&self) -> i128 {
        i128::from(self.new) - i128::from(self.base)
    }
}

/// The figures of a site on both sides, in the order of [`FIGURES`].
struct Compared([BothSides; FIGURES.len()]);

/// One figure on both sides: the least, the median and the most of the runs.
#[derive(Clone, Copy)]
struct BothSides {
    base: [u64; 3],
    new: [u64; 3],
    least_gap: u64,
}

impl Compared {
    fn of_pair(pair: SitePair, base: &SideTable, new: &SideTable) -> Compared {
        let none = |side: &SideTable| vec![SiteFigures::default(); side.totals.len()];
        let in_base = pair.base.map_or_else(|| none(base), |at| base.sites[at].runs.clone());
        let in_new = pair.new.map_or_else(|| none(new), |at| new.sites[at].runs.clone());
        Compared::of(&in_base, &in_new)
    }

    fn of(base: &[SiteFigures], new: &[SiteFigures]) -> Compared {
        Compared(FIGURES.map(|figure| BothSides {
            base: spread(base.iter().map(figure.of)),
            new: spread(new.iter().map(figure.of)),
            least_gap: figure.least_gap(),
        }))
    }

    /// Number of the figures that vary from run to run.
    fn varying(&self) -> usize {
        self.0.iter().filter(|figure| figure.varies()).count()
    }

    /// Whether any figure differs by more than what matters, be it by chance or not.
    fn differs_clearly(&self) -> bool {
        self.0.iter().any(|figure| figure.is_separate())
    }

    fn figures(&self, may_be_chance: bool) -> ChangedFigures {
        let [peak_bytes, live_bytes, allocated_bytes, allocations, temporary] =
            self.0.map(|figure| figure.changed(may_be_chance));
        ChangedFigures { peak_bytes, live_bytes, allocated_bytes, allocations, temporary }
    }
}

impl BothSides {
    fn varies(&self) -> bool {
        self.base[0] != self.base[2] || self.new[0] != self.new[2]
    }

    /// Whether the ranges are disjoint, and far enough from each other to matter.
    fn is_separate(&self) -> bool {
        let gap = match self.new[0] > self.base[2] {
            true => self.new[0] - self.base[2],
            false => self.base[0].saturating_sub(self.new[2]),
        };
        gap > self.least_gap.max(self.base[1] / 100)
    }

    fn changed(self, may_be_chance: bool) -> ChangedFigure {
        ChangedFigure {
            base: self.base[1],
            new: self.new[1],
            base_range: [self.base[0], self.base[2]],
            new_range: [self.new[0], self.new[2]],
            changed: self.is_separate() && !(self.varies() && may_be_chance),
        }
    }
}

/// Returns the least, the median and the most of some values; zeros if there are none.
fn spread(values: impl Iterator<Item = u64>) -> [u64; 3] {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    let at = |at: usize| sorted.get(at).copied().unwrap_or(0);
    [at(0), at(sorted.len().saturating_sub(1) / 2), at(sorted.len().saturating_sub(1))]
}

/// Returns the median; of an even number of values the lower one.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    spread(values)[1]
}

/// Returns the probability that all of so many runs lie below all of so many others, or above, if
/// their order is random.
fn chance_of_separation(base: usize, new: usize) -> f64 {
    // (m + n over m), as a product that stays exact enough: each factor is (n + i) / i.
    let ways: f64 = (1..=base).map(|i| (new + i) as f64 / i as f64).product();
    (2.0 / ways).min(1.0)
}

/// Returns what a site did, by the first of its figures that has changed.
fn status_of(figures: &ChangedFigures) -> Option<SiteStatus> {
    let first = FIGURES.iter().map(|figure| figures.get(figure)).find(|figure| figure.changed)?;
    let exists =
        |side: fn(&ChangedFigure) -> u64| FIGURES.iter().any(|figure| side(&figures.get(figure)) > 0);
    Some(match (exists(|figure| figure.base_range[1]), exists(|figure| figure.new_range[1])) {
        (false, _) => SiteStatus::New,
        (_, false) => SiteStatus::Gone,
        _ if first.change() > 0 => SiteStatus::Grown,
        _ => SiteStatus::Shrunk,
    })
}

/// How much a site's change matters: its largest change of bytes.
fn weight(site: &SiteChange) -> (i128, i128) {
    let of = |is_bytes: bool| {
        let chosen = FIGURES.iter().filter(|figure| figure.is_bytes() == is_bytes);
        let changes = chosen.map(|figure| site.figures.get(figure)).filter(|figure| figure.changed);
        changes.map(|figure| figure.change().abs()).max().unwrap_or(0)
    };
    (of(true), of(false))
}

fn site_change(status: SiteStatus, site: &TabledSite, figures: ChangedFigures) -> SiteChange {
    let stack = site.stack.iter().map(|frame| DiffFrame {
        function: frame.function.clone(),
        file: frame.file.clone(),
        line: frame.line,
    });
    SiteChange {
        status,
        function: site.key.function.clone(),
        ordinal: site.key.ordinal,
        file: site.file.clone(),
        line: site.line,
        own: site.is_own,
        figures,
        stack: stack.collect(),
    }
}

fn place_of(site: &TabledSite) -> DiffFrame {
    DiffFrame { function: site.key.function.clone(), file: site.file.clone(), line: site.line }
}

/// A chance below this is none.
const SIGNIFICANT: f64 = 0.05;

#[cfg(test)]
mod tests;
