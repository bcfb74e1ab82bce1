//! The sites of a recording with their figures, in a form that outlives the recording: several runs
//! of one program, and several builds of it, are compared by these tables. In: a profile, its
//! stacks, the keys of its sites and their evidence. Out: [`RunTable`], and [`SideTable`] for
//! several runs.

use std::collections::{BTreeMap, BTreeSet};

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use super::canonical_name::canonical_function;
use super::filter::Filter;
use super::review::ReviewFrame;
use super::site::{SiteKey, SiteKeys};
use super::site_figures::SiteFigures;
use super::site_location::NO_STACK;
use super::source_paths::SourcePaths;
use super::summary::{warnings, with_ids};
use crate::names::evidence::SiteEvidence;
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::Profile;

/// Where a site is in one build: its canonical function, line and file. The order is that in which
/// the sites of a function rank: those without a line come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SitePlace {
    function: String,
    has_no_line: bool,
    line: Option<u32>,
    file: Option<String>,
}

/// The sites of one recording.
#[derive(Clone, Debug, Default)]
pub struct RunTable {
    /// Command line of the program.
    pub command: String,
    /// The figures of the whole process, or of the stacks that a filter lets through.
    pub totals: SiteFigures,
    /// What is wrong with the recording; one sentence each.
    pub warnings: Vec<String>,
    /// Whether no event is missing and nothing is damaged.
    pub is_exact: bool,
    sites: BTreeMap<SitePlace, RunSite>,
}

#[derive(Clone, Debug, Default)]
struct RunSite {
    figures: SiteFigures,
    evidence: Option<SiteEvidence>,
    /// Last parts of the names of the functions that call the site's function.
    callers: BTreeSet<String>,
    stack: Vec<ReviewFrame>,
    is_own: bool,
}

/// A site of one side of a comparison: of all runs of one build.
#[derive(Clone, Debug)]
pub struct TabledSite {
    /// Its identity.
    pub key: SiteKey,
    /// Source file as reports show it.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// Facts that identify the site after its source was edited.
    pub evidence: Option<SiteEvidence>,
    /// Last parts of the names of the functions that call the site's function.
    pub callers: BTreeSet<String>,
    /// Whether the site is the user's own code.
    pub is_own: bool,
    /// Its figures in each run; 0 in a run that does not have the site.
    pub runs: Vec<SiteFigures>,
    /// A call stack, innermost first.
    pub stack: Vec<ReviewFrame>,
}

/// One side of a comparison.
#[derive(Clone, Debug, Default)]
pub struct SideTable {
    /// Command line of the program.
    pub command: String,
    /// The figures of the whole process in each run.
    pub totals: Vec<SiteFigures>,
    /// All sites that any run has, sorted by function and line.
    pub sites: Vec<TabledSite>,
    /// What is wrong with the recordings.
    pub warnings: Vec<String>,
    /// Whether no event of any run is missing.
    pub is_exact: bool,
}

impl RunTable {
    /// Makes the table of a recording: of all sites of the stacks that the filter accepts.
    pub fn of(
        profile: &Profile,
        stacks: &Stacks,
        filter: &Filter,
        keys: &SiteKeys,
        evidence: &BTreeMap<SiteKey, SiteEvidence>,
    ) -> RunTable {
        let accepted = filter.accepted(stacks);
        let paths = SourcePaths::of(profile, stacks);
        let mut by_frame: HashMap<Option<FrameId>, FrameSite> = HashMap::default();
        let mut selected = SiteFigures::default();
        for (stack, stats) in with_ids(profile) {
            if !accepted.accepts(stack) {
                continue;
            }
            selected.add(stats);
            if !stats.gave_blocks_a_size() {
                continue;
            }
            let site = stacks.site(stack);
            let known = by_frame.entry(site).or_insert_with(|| FrameSite::new(stack));
            known.figures.add(stats);
            if stats.allocated > known.most {
                (known.most, known.stack) = (stats.allocated, stack);
            }
            known.callers.extend(site.and_then(|site| caller_of(stacks, stack, site)));
        }
        let mut sites: BTreeMap<SitePlace, RunSite> = BTreeMap::new();
        for (frame, known) in by_frame {
            let named = frame.map(|frame| stacks.frame(frame));
            let row = sites.entry(SitePlace::of(named, &paths)).or_default();
            row.figures.add_all(&known.figures);
            row.is_own |= named.is_some_and(NamedFrame::is_own);
            row.evidence =
                row.evidence.or_else(|| frame.and_then(|frame| evidence.get(keys.key(frame)?)).copied());
            row.callers.extend(known.callers.iter().map(|caller| last_part(&stacks.frame(*caller).function)));
            if row.stack.is_empty() {
                row.stack = frames_of(stacks, known.stack, frame, &paths);
            }
        }
        let is_whole = filter.is_empty() && !profile.counts_only_selected_threads;
        RunTable {
            command: profile.process.command(),
            totals: if is_whole { SiteFigures::of_process(&profile.totals) } else { selected },
            warnings: warnings(profile, stacks),
            is_exact: profile.trust.is_exact(),
            sites,
        }
    }
}

/// A site of one recording, by its frame.
struct FrameSite {
    figures: SiteFigures,
    callers: BTreeSet<FrameId>,
    /// The stack that allocates most, and how much.
    stack: StackId,
    most: u64,
}

impl FrameSite {
    fn new(stack: StackId) -> FrameSite {
        FrameSite { figures: SiteFigures::default(), callers: BTreeSet::new(), stack, most: 0 }
    }
}

impl SitePlace {
    fn of(frame: Option<&NamedFrame>, paths: &SourcePaths) -> SitePlace {
        let Some(frame) = frame else {
            return SitePlace { function: NO_STACK.to_owned(), has_no_line: true, line: None, file: None };
        };
        SitePlace {
            function: canonical_function(&frame.function),
            has_no_line: frame.line.is_none(),
            line: frame.line,
            file: frame.file.as_deref().map(|file| paths.shown(file).to_owned()),
        }
    }
}

impl SideTable {
    /// Joins the tables of several runs of one build.
    pub fn of(runs: Vec<RunTable>) -> SideTable {
        let count = runs.len();
        let mut side = SideTable { is_exact: true, ..SideTable::default() };
        let mut by_place: BTreeMap<SitePlace, TabledSite> = BTreeMap::new();
        for (at, run) in runs.into_iter().enumerate() {
            side.totals.push(run.totals);
            side.is_exact &= run.is_exact;
            let new: Vec<String> =
                run.warnings.into_iter().filter(|warning| !side.warnings.contains(warning)).collect();
            side.warnings.extend(new);
            if at > 0 && run.command.split(' ').next() != side.command.split(' ').next() {
                side.warnings.push(format!(
                    "The runs of one side are of several programs: '{}' and '{}'.",
                    side.command, run.command
                ));
            }
            side.command = run.command;
            for (place, site) in run.sites {
                let known = by_place.entry(place).or_insert_with_key(|place| TabledSite {
                    key: SiteKey { function: place.function.clone(), ordinal: 0 },
                    file: place.file.clone(),
                    line: place.line,
                    evidence: None,
                    callers: BTreeSet::new(),
                    is_own: false,
                    runs: vec![SiteFigures::default(); count],
                    stack: Vec::new(),
                });
                known.runs[at] = site.figures;
                known.evidence = known.evidence.or(site.evidence);
                known.callers.extend(site.callers);
                known.is_own |= site.is_own;
                if known.stack.is_empty() {
                    known.stack = site.stack;
                }
            }
        }
        side.sites = by_place.into_values().collect();
        number_within_functions(&mut side.sites);
        side
    }
}

/// Gives each site its rank within its function. The sites are sorted by function.
fn number_within_functions(sites: &mut [TabledSite]) {
    for function in sites.chunk_by_mut(|one, other| one.key.function == other.key.function) {
        for (ordinal, site) in (0..).zip(function) {
            site.key.ordinal = ordinal;
        }
    }
}

/// Returns the frame that calls the site's function: the next one outwards that is the user's own.
fn caller_of(stacks: &Stacks, stack: StackId, site: FrameId) -> Option<FrameId> {
    let outside = stacks.frames(stack).skip_while(|frame| *frame != site).skip(1);
    outside.take(MOST_FRAMES).find(|frame| stacks.frame(*frame).is_own())
}

/// Returns the frames of a stack from its site outwards.
fn frames_of(
    stacks: &Stacks,
    stack: StackId,
    site: Option<FrameId>,
    paths: &SourcePaths,
) -> Vec<ReviewFrame> {
    let frames = stacks.frames(stack).skip_while(|frame| site.is_some_and(|site| *frame != site));
    let shown = |frame: FrameId| {
        let frame = stacks.frame(frame);
        ReviewFrame {
            function: canonical_function(&frame.function),
            file: frame.file.as_deref().map(|file| paths.shown(file).to_owned()),
            line: frame.line,
        }
    };
    frames.filter(|frame| !stacks.frame(*frame).is_runtime()).take(MOST_FRAMES).map(shown).collect()
}

/// Returns the last part of a function's canonical name, which stays if a module or a crate is
/// renamed: `push` of `app::list::push`, `go::{closure}` of `app::go::{closure}`.
pub(super) fn last_part(function: &str) -> String {
    let name = canonical_function(function);
    let closures = name.find("::{closure}").unwrap_or(name.len());
    let start = name[..closures].rfind("::").map_or(0, |at| at + 2);
    name[start..].to_owned()
}

/// The most frames of a stack that are looked at, or kept.
const MOST_FRAMES: usize = 64;
