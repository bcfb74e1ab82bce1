//! The most important figures of a profile. In: a profile and its named stacks. Out: [`Summary`].

use std::collections::BTreeMap;

use alloc_dump::layout::StackId;
use alloc_dump::record::RecordingLimit;
use alloc_dump::trailer::EndReason;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::groups::GroupTable;
use crate::analyze::interval::CountedInterval;
use crate::analyze::other_code::{name_of_installation, warnings_of_other_code};
use crate::analyze::site_location::{NO_STACK, SiteLocation, location_of};
use crate::analyze::slow::{SlowCause, slow_causes};
use crate::analyze::source_paths::SourcePaths;
use crate::analyze::timeline::{self, MarkPoint};
use crate::names::stacks::{NamedFrame, Stacks};
use crate::profile::{Lifetimes, Profile, RecordedThread, StackStats};
use crate::units::signals::{ended_by_signal, ended_with_status};
use crate::units::{bytes_exactly, plural, time};

/// The most important figures of a profile. ARCHITECTURE.md defines the terms. Bytes of blocks are
/// the sizes that the program asked for; times are nanoseconds since the recording began.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Command line of the recorded program.
    pub command: String,
    /// Process id of the recorded program.
    pub pid: u32,
    /// Wall-clock time when the recording began, in nanoseconds since 1970; 0 if it is not known.
    pub recorded_unix_ns: u64,
    /// What is known about the recording: `host`, `commit`, and what the user has given.
    pub labels: BTreeMap<String, String>,
    /// The limit that has ended the recording before the program. Null if none has.
    pub limit: Option<LimitRow>,
    /// Length of the whole recording, in nanoseconds.
    pub duration_ns: u64,
    /// The interval that all figures count, except those of trust. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Whether a filter or a selection of threads left stacks out. Then `selected` and the tables
    /// of sites have the figures of the stacks that are left; all other figures are those of the
    /// whole process.
    pub filtered: bool,
    /// The figures of the stacks that the filter lets through. Null without a filter.
    pub selected: Option<SelectedTotals>,
    /// Number of `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// Number of `dealloc` events.
    pub deallocations: u64,
    /// Number of `realloc` events.
    pub reallocations: u64,
    /// Bytes of allocations and the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes of deallocations and the old sizes of reallocations.
    pub freed_bytes: u64,
    /// The most bytes that were live at one time.
    pub peak_bytes: u64,
    /// Number of blocks that were live when the peak was first reached.
    pub peak_blocks: u64,
    /// When the peak was first reached.
    pub peak_ns: u64,
    /// Bytes of the blocks that are live at the end.
    pub live_bytes: u64,
    /// Number of blocks that are live at the end.
    pub live_blocks: u64,
    /// Number of blocks whose free was the next heap event of the thread that had allocated them.
    pub temporary_allocations: u64,
    /// Number of blocks that were freed within `short_lived_within` after their allocation.
    pub short_lived_allocations: u64,
    /// What short-lived means: a number of heap events of the thread that allocated the block, such
    /// as `1000events`, or a time, such as `10ms`. Null if it was not counted.
    pub short_lived_within: Option<String>,
    /// Number of frees and reallocs of blocks that are older than the recording.
    pub foreign_frees: u64,
    /// Bytes of the blocks that `foreign_frees` counts.
    pub foreign_freed_bytes: u64,
    /// Number of frees and reallocs of blocks that code without the recorder has allocated. Live
    /// bytes never contain these blocks.
    pub blocks_allocated_elsewhere: u64,
    /// Number of blocks that code without the recorder has freed, as far as their addresses were
    /// handed out again. Until then live bytes contain such blocks.
    pub blocks_freed_elsewhere: u64,
    /// How much of the program's Rust code the recorder served: `complete`, `partial` or `missing`.
    /// Null if the dump does not say, as those of earlier versions.
    pub installation: Option<&'static str>,
    /// Number of threads in the dump: each had a heap event, a mark or a probe of an annotated
    /// function. In an interval, the threads that had a heap event in it.
    pub threads: usize,
    /// Number of distinct stacks that had any heap event.
    pub stacks: u64,
    /// Number of events that reached the hook and could not be recorded.
    pub lost_events: u64,
    /// Number of events whose stack does not reach a known root.
    pub truncated_stacks: u64,
    /// Number of events of very deep stacks (more than 8,192 frames) whose stack was verified in
    /// part: of the frames in the middle, a few are compared at each event.
    pub partly_verified_stacks: u64,
    /// Number of stacks that the recorder compared with an independent full walk
    /// (`ALLOC_TRACKER_CHECK=1`); 0 if it was not asked to compare.
    pub checked_stacks: u64,
    /// Number of compared stacks that differed from the full walk.
    pub different_stacks: u64,
    /// Number of distinct code addresses that have no name.
    pub unresolved_frames: u64,
    /// Whether the recorder was built with debug assertions. Such a build is very likely not
    /// optimized, which makes the program slower.
    pub recorder_debug_assertions: bool,
    /// What made the recording slower than usual; empty if nothing did.
    pub slowed_by: Vec<SlowCause>,
    /// Whether the recording was read to its end.
    pub complete: bool,
    /// Whether every figure is exact: complete, and nothing lost.
    pub exact: bool,
    /// Number of dump frames that were damaged or missing.
    pub dropped_frames: u64,
    /// Bytes of records that were found in the sidecar and not in the dump.
    pub recovered_bytes: u64,
    /// How the recording ended, in words.
    pub ending: String,
    /// One sentence for each problem of the profile; empty if there is none.
    pub warnings: Vec<String>,
    /// The highest figures of the kernel for the process.
    pub process: ProcessPeaks,
    /// Moments that the program named (`alloc_tracker::mark`), in the order of time.
    pub marks: Vec<MarkPoint>,
    /// Number of later marks that are not kept, because there were too many.
    pub marks_dropped: u64,
    /// Number of allocations by size.
    pub sizes: Vec<SizeClass>,
    /// The folder that paths of own source files are relative to. Null if it is not known.
    pub source_root: Option<String>,
    /// The sites with the most live bytes at the peak.
    pub top_peak: Vec<SiteRow>,
    /// The sites with the most bytes allocated.
    pub top_allocated: Vec<SiteRow>,
    /// The sites with the most allocations.
    pub top_allocations: Vec<SiteRow>,
    /// The threads, in the order of their first record.
    pub thread_list: Vec<ThreadRow>,
    /// Figures by crate, module, file, function or thread. Null unless they were asked for.
    pub groups: Option<GroupTable>,
}

/// The figures of the stacks that a filter lets through, for the selected threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SelectedTotals {
    /// Number of distinct stacks that had any heap event.
    pub stacks: u64,
    /// Number of `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// Number of `dealloc` events.
    pub deallocations: u64,
    /// Number of `realloc` events.
    pub reallocations: u64,
    /// Bytes of allocations and the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes of deallocations and the old sizes of reallocations.
    pub freed_bytes: u64,
    /// Number of blocks whose free was the next heap event of the thread that had allocated them.
    pub temporary_allocations: u64,
    /// Bytes of the blocks that got their size at these stacks and were live at the peak of the
    /// whole process.
    pub peak_bytes: u64,
    /// Number of the blocks that `peak_bytes` counts.
    pub peak_blocks: u64,
    /// Bytes of the blocks that got their size at these stacks and are live at the end.
    pub live_bytes: u64,
    /// Number of the blocks that `live_bytes` counts.
    pub live_blocks: u64,
}

impl SelectedTotals {
    fn add(&mut self, stats: &StackStats) {
        self.stacks += u64::from(stats.events() > 0);
        self.allocations += stats.allocations;
        self.deallocations += stats.deallocations;
        self.reallocations += stats.reallocations;
        self.allocated_bytes += stats.allocated;
        self.freed_bytes += stats.freed;
        self.temporary_allocations += stats.temporary;
        self.peak_bytes += stats.peak_bytes;
        self.peak_blocks += stats.peak_blocks;
        self.live_bytes += stats.live_bytes;
        self.live_blocks += stats.live_blocks;
    }
}

/// A limit that has ended a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum LimitRow {
    /// The size of the dump.
    DumpSize {
        /// The limit in bytes.
        bytes: u64,
    },
    /// The duration of the recording.
    Duration {
        /// The limit in nanoseconds.
        ns: u64,
    },
}

impl LimitRow {
    fn of(limit: RecordingLimit) -> Option<LimitRow> {
        match limit {
            RecordingLimit::DumpSize { bytes } => Some(LimitRow::DumpSize { bytes }),
            RecordingLimit::Duration { us } => Some(LimitRow::Duration { ns: us.saturating_mul(1000) }),
            _ => None,
        }
    }

    fn describe(self) -> String {
        match self {
            LimitRow::DumpSize { bytes } => {
                format!("the dump has reached its limit of {}", bytes_exactly(bytes))
            }
            LimitRow::Duration { ns } => format!("the recording has reached its limit of {}", time(ns)),
        }
    }
}

/// The highest figures of the kernel for the process. Sizes are bytes. Virtual size and resident
/// set are the kernel's own high-water marks where it has them, all other figures the highest of
/// the samples. In an interval, all are of the samples in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessPeaks {
    /// Number of samples that were taken; the other figures are 0 without any.
    pub samples: u64,
    /// Highest virtual size of the process: addresses that it could use.
    pub vsz: u64,
    /// Highest resident set of the process.
    pub rss: u64,
    /// Resident set of the last sample. Null without samples.
    pub rss_at_end: Option<u64>,
    /// The most memory that was swapped out.
    pub swap: u64,
    /// Number of minor page faults, from the beginning of the process, or the last sample before
    /// the interval, to the last sample.
    pub minor_faults: u64,
    /// Number of major page faults, over the same time.
    pub major_faults: u64,
    /// The most bytes that the tracker itself had mapped. Virtual size contains them; the resident
    /// set contains at most these.
    pub tracker_bytes: u64,
}

/// The allocations of one class of sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SizeClass {
    /// Largest size of the class in bytes: a power of two, or the largest number there is. The
    /// class begins above half of it.
    pub up_to_bytes: u64,
    /// Number of allocations with such a size.
    pub allocations: u64,
}

/// The figures of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SiteRow {
    /// Function of the site; `(no stack)` for events without a stack.
    pub function: String,
    /// Source file of the site. Null if it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Bytes of the blocks that had got their size here and were live at the peak.
    pub peak_bytes: u64,
    /// Number of the blocks that had got their size here and were live at the peak.
    pub peak_blocks: u64,
    /// Bytes allocated, new sizes of reallocations included.
    pub allocated_bytes: u64,
    /// Number of allocations.
    pub allocations: u64,
    /// Number of reallocations.
    pub reallocations: u64,
    /// Number of allocations whose block was freed by the next heap event of the thread.
    pub temporary_allocations: u64,
    /// Number of blocks that got their last size here and were short-lived.
    pub short_lived_allocations: u64,
    /// Number of blocks that got their last size here and were freed. The next two figures are of
    /// these blocks.
    pub freed_blocks: u64,
    /// Mean time from allocation to free. Null if no block was freed.
    pub mean_lifetime_ns: Option<u64>,
    /// Median time from allocation to free, estimated: it is off by at most a sixteenth. Null if no
    /// block was freed.
    pub median_lifetime_ns: Option<u64>,
    /// The most bytes of blocks with a size from here that were live at one time. If
    /// `max_live_is_exact` is false, the true figure may be lower.
    pub max_live_bytes: u64,
    /// Number of these blocks when that was first so; for several stacks the sum over them.
    pub max_live_blocks: u64,
    /// Whether `max_live_bytes` is exact: the site has one stack. Otherwise it is the sum of what
    /// each of its stacks held at most, and these times may differ.
    pub max_live_is_exact: bool,
    /// Bytes of the blocks that got their size here and are live at the end.
    pub live_bytes: u64,
}

/// The figures of one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ThreadRow {
    /// Thread id of the operating system.
    pub tid: u32,
    /// Last known name of the thread.
    pub name: String,
    /// Number of allocations.
    pub allocations: u64,
    /// Number of reallocations.
    pub reallocations: u64,
    /// Number of deallocations.
    pub deallocations: u64,
    /// Bytes allocated, new sizes of reallocations included.
    pub allocated_bytes: u64,
    /// Bytes freed, old sizes of reallocations included.
    pub freed_bytes: u64,
    /// When the first record of the thread was made.
    pub start_ns: u64,
    /// When the thread ended. Null if it was alive at the end of the recording.
    pub end_ns: Option<u64>,
}

/// Makes the summary, with `top` rows in each table of sites. The filter applies to the sites and
/// to [`Summary::selected`]; the other figures are those of the whole process.
pub fn summary(profile: &Profile, stacks: &Stacks, filter: &Filter, top: usize) -> Summary {
    let totals = &profile.totals;
    let trust = &profile.trust;
    let paths = SourcePaths::of(profile, stacks);
    let sites = site_rows(profile, stacks, filter, &paths);
    let filtered = !filter.is_empty() || profile.counts_only_selected_threads;
    Summary {
        schema: "alloc-tracker/summary/2",
        command: profile.process.command(),
        pid: profile.process.pid,
        recorded_unix_ns: profile.process.started_unix_ns,
        labels: profile.process.labels.clone(),
        limit: trust.limit.and_then(LimitRow::of),
        duration_ns: profile.duration_us * 1000,
        interval: CountedInterval::of(profile),
        filtered,
        selected: filtered.then(|| selected_totals(profile, stacks, filter)),
        allocations: totals.allocations,
        deallocations: totals.deallocations,
        reallocations: totals.reallocations,
        allocated_bytes: totals.allocated_bytes,
        freed_bytes: totals.freed_bytes,
        peak_bytes: totals.peak_bytes,
        peak_blocks: totals.peak_blocks,
        peak_ns: totals.peak_us * 1000,
        live_bytes: totals.live_bytes,
        live_blocks: totals.live_blocks,
        temporary_allocations: totals.temporary,
        short_lived_allocations: totals.short_lived,
        short_lived_within: profile.short_lived_within.map(|within| within.to_string()),
        foreign_frees: totals.foreign_frees,
        foreign_freed_bytes: totals.foreign_bytes,
        blocks_allocated_elsewhere: trust.allocated_elsewhere,
        blocks_freed_elsewhere: trust.freed_elsewhere,
        installation: trust.installation.and_then(name_of_installation),
        threads: threads(profile).count(),
        stacks: totals.stacks,
        lost_events: trust.lost_events,
        truncated_stacks: trust.truncated_stacks,
        partly_verified_stacks: trust.partly_verified_stacks,
        checked_stacks: trust.checked_stacks,
        different_stacks: trust.different_stacks,
        unresolved_frames: stacks.unresolved,
        recorder_debug_assertions: profile.process.debug_assertions,
        slowed_by: slow_causes(profile),
        complete: trust.is_complete(),
        exact: trust.is_exact(),
        dropped_frames: trust.loss.dropped_frames + trust.loss.malformed_frames + trust.loss.missing_frames,
        recovered_bytes: trust.recovered_bytes,
        ending: describe_end(trust.end),
        warnings: warnings(profile, stacks),
        process: process_peaks(profile),
        marks: timeline::marks(profile),
        marks_dropped: profile.marks_dropped,
        sizes: size_classes(&profile.sizes),
        source_root: paths.root(),
        top_peak: top_by(&sites, top, |site| site.peak_bytes),
        top_allocated: top_by(&sites, top, |site| site.allocated_bytes),
        top_allocations: top_by(&sites, top, |site| site.allocations),
        thread_list: threads(profile).map(ThreadRow::from).collect(),
        groups: None,
    }
}

/// Returns the threads of a profile; in an interval, those with events in it.
fn threads(profile: &Profile) -> impl Iterator<Item = &RecordedThread> {
    let counts = |thread: &&RecordedThread| {
        profile.interval.is_none() || thread.allocations + thread.deallocations + thread.reallocations > 0
    };
    profile.threads.iter().filter(counts)
}

/// Returns every stack of a profile with its figures.
pub(crate) fn with_ids(profile: &Profile) -> impl Iterator<Item = (StackId, &StackStats)> {
    profile.stacks.iter().enumerate().map(|(at, stats)| (StackId(at as u32), stats))
}

impl From<&RecordedThread> for ThreadRow {
    fn from(thread: &RecordedThread) -> ThreadRow {
        ThreadRow {
            tid: thread.os_tid,
            name: thread.name.clone(),
            allocations: thread.allocations,
            reallocations: thread.reallocations,
            deallocations: thread.deallocations,
            allocated_bytes: thread.allocated,
            freed_bytes: thread.freed,
            start_ns: thread.start_us * 1000,
            end_ns: thread.end_us.map(|us| us * 1000),
        }
    }
}

/// Adds the stacks up by site. The rows are sorted by location, so that rows with equal figures
/// have a fixed order.
fn site_rows(profile: &Profile, stacks: &Stacks, filter: &Filter, paths: &SourcePaths) -> Vec<SiteRow> {
    let mut sites: HashMap<SiteLocation<'_>, (SiteRow, Lifetimes)> = HashMap::default();
    let accepted = filter.accepted(stacks);
    for (stack, stats) in with_ids(profile) {
        let silent = stats.events() == 0 && stats.peak_blocks == 0 && stats.live_blocks == 0;
        if silent || !accepted.accepts(stack) {
            continue;
        }
        let frame = stacks.site(stack).map(|id| stacks.frame(id));
        let (site, lifetimes) = sites
            .entry(location_of(stacks, stack))
            .or_insert_with(|| (empty_row(frame, paths), Lifetimes::default()));
        site.peak_bytes += stats.peak_bytes;
        site.peak_blocks += stats.peak_blocks;
        site.allocated_bytes += stats.allocated;
        site.allocations += stats.allocations;
        site.reallocations += stats.reallocations;
        site.temporary_allocations += stats.temporary;
        site.live_bytes += stats.live_bytes;
        if stats.max_live_blocks > 0 {
            site.max_live_is_exact = site.max_live_bytes == 0;
            site.max_live_bytes += stats.max_live_bytes;
            site.max_live_blocks += stats.max_live_blocks;
        }
        if let Some(more) = profile.lifetimes.get(stack) {
            lifetimes.merge(more);
        }
    }
    let with_lifetimes = |(site, lifetimes): (SiteRow, Lifetimes)| SiteRow {
        short_lived_allocations: lifetimes.short_lived,
        freed_blocks: lifetimes.freed_blocks,
        mean_lifetime_ns: lifetimes.mean_ns(),
        median_lifetime_ns: lifetimes.median_ns(),
        ..site
    };
    let mut sites: Vec<SiteRow> = sites.into_values().map(with_lifetimes).collect();
    sites.sort_by(|a, b| (&a.function, &a.file, a.line).cmp(&(&b.function, &b.file, b.line)));
    sites
}

/// Returns the row of a site without figures.
fn empty_row(frame: Option<&NamedFrame>, paths: &SourcePaths) -> SiteRow {
    SiteRow {
        function: frame.map_or_else(|| NO_STACK.to_owned(), |frame| frame.function.to_string()),
        file: frame.and_then(|frame| frame.file.as_deref()).map(|file| paths.shown(file).to_owned()),
        line: frame.and_then(|frame| frame.line),
        // As long as there is no second stack.
        max_live_is_exact: true,
        ..SiteRow::default()
    }
}

fn selected_totals(profile: &Profile, stacks: &Stacks, filter: &Filter) -> SelectedTotals {
    let accepted = filter.accepted(stacks);
    let mut selected = SelectedTotals::default();
    with_ids(profile)
        .filter(|(stack, _)| accepted.accepts(*stack))
        .for_each(|(_, stats)| selected.add(stats));
    selected
}

/// Returns the rows with the largest figures; rows with the figure 0 are left out.
fn top_by(sites: &[SiteRow], top: usize, figure: impl Fn(&SiteRow) -> u64) -> Vec<SiteRow> {
    let mut sorted: Vec<&SiteRow> = sites.iter().filter(|site| figure(site) > 0).collect();
    sorted.sort_by_key(|site| std::cmp::Reverse(figure(site)));
    sorted.into_iter().take(top).cloned().collect()
}

fn size_classes(counts: &[u64]) -> Vec<SizeClass> {
    let bound = |class: usize| 1u64.checked_shl(class as u32).unwrap_or(u64::MAX);
    let classes = counts.iter().enumerate().filter(|(_, allocations)| **allocations > 0);
    classes
        .map(|(class, allocations)| SizeClass { up_to_bytes: bound(class), allocations: *allocations })
        .collect()
}

pub(super) fn process_peaks(profile: &Profile) -> ProcessPeaks {
    let mut peaks = ProcessPeaks { samples: profile.sample_count, ..ProcessPeaks::default() };
    peaks.rss_at_end = profile.timeline.last().map(|(_, sample)| sample.rss);
    // The kernel's own high-water marks are those of the whole life of the process.
    let is_whole = profile.interval.is_none();
    for (_, sample) in &profile.timeline {
        peaks.vsz = peaks.vsz.max(sample.vsz).max(if is_whole { sample.peak_vsz } else { 0 });
        peaks.rss = peaks.rss.max(sample.rss).max(if is_whole { sample.peak_rss } else { 0 });
        peaks.swap = peaks.swap.max(sample.swap);
        peaks.minor_faults = peaks.minor_faults.max(sample.minor_faults);
        peaks.major_faults = peaks.major_faults.max(sample.major_faults);
        peaks.tracker_bytes = peaks.tracker_bytes.max(sample.tracker_bytes);
    }
    if let Some(before) = &profile.sample_before {
        peaks.minor_faults = peaks.minor_faults.saturating_sub(before.minor_faults);
        peaks.major_faults = peaks.major_faults.saturating_sub(before.major_faults);
    }
    peaks
}

fn describe_end(end: Option<EndReason>) -> String {
    match end {
        Some(EndReason::Finished) => "finished".to_owned(),
        Some(EndReason::Exited(code)) => {
            format!("the process {} without finishing it", ended_with_status(i32::from(code)))
        }
        Some(EndReason::Signalled(signal)) => {
            format!("the process was {}", ended_by_signal(i32::from(signal)))
        }
        Some(EndReason::Vanished) => "the process is gone without having finished it".to_owned(),
        _ => "unknown: the end of the dump is missing".to_owned(),
    }
}

/// Returns one sentence for each problem of a profile or of its names; empty if there is none.
pub fn warnings(profile: &Profile, stacks: &Stacks) -> Vec<String> {
    let mut warnings = warnings_of_recording(profile);
    warnings.extend(stacks.hints.iter().cloned());
    warnings
}

/// Returns one sentence for each problem of a profile. Does not look at names.
pub fn warnings_of_recording(profile: &Profile) -> Vec<String> {
    let trust = &profile.trust;
    let mut warnings = Vec::new();
    if let Some(reason) = &trust.stopped {
        warnings.push(format!("the recording stopped before the program did: {reason}"));
    } else if trust.end.is_none() && trust.is_being_written {
        warnings.push("the dump is still being written: figures are those of this moment".to_owned());
    } else if trust.end.is_none() && trust.has_sidecar && trust.loss.missing_frames == 0 {
        warnings.push(
            "the recording has no end: the program was killed, or the dump was copied while it ran; \
             `profiler-cli compress --close` completes the dump"
                .to_owned(),
        );
    } else if trust.end.is_none() {
        warnings.push("the recording has no end: what happened after the last frame is missing".to_owned());
    }
    if let Some(limit) = trust.limit.and_then(LimitRow::of) {
        let reached = limit.describe();
        warnings.push(format!("{reached}: the program went on, and what it did then is not in the dump"));
    }
    if let Some(sidecar) = &trust.unread_sidecar {
        warnings.push(format!("the last records are in {sidecar}; make it readable and read the dump again"));
    }
    if trust.sidecar_gone {
        warnings.push(
            "the last records were in memory, in /dev/shm of the machine that recorded, and are not there any more".to_owned(),
        );
    }
    let loss = trust.loss;
    let dropped = loss.dropped_frames + loss.malformed_frames + loss.missing_frames;
    if dropped > 0 {
        warnings.push(format!(
            "the dump is damaged: {} could not be used; figures are too low",
            plural(dropped, "frame")
        ));
    }
    if trust.lost_events > 0 {
        warnings.push(format!("{} lost; figures are not exact", plural(trust.lost_events, "event")));
    }
    warnings.extend(warnings_of_other_code(trust));
    if trust.inconsistent_events > 0 {
        warnings.push(format!(
            "{} in contradiction to the ones before",
            plural(trust.inconsistent_events, "event")
        ));
    }
    if let Some(own) = &trust.disagreement {
        warnings.push(format!(
            "the recorder counted {} allocations, {} deallocations and {} reallocations, {} bytes allocated and {} freed",
            own.allocations, own.deallocations, own.reallocations, own.allocated_bytes, own.freed_bytes
        ));
    }
    if trust.truncated_stacks > 0 {
        warnings.push(format!("the stacks of {} are cut off", plural(trust.truncated_stacks, "event")));
    }
    if trust.different_stacks > 0 {
        warnings.push(format!(
            "{} of {} stacks differ from an independent walk: please report this",
            trust.different_stacks, trust.checked_stacks
        ));
    }
    if profile.totals.foreign_frees > 0 {
        warnings.push(format!(
            "the recording began late: it saw {} of blocks that it had not seen allocated",
            plural(profile.totals.foreign_frees, "free")
        ));
    }
    warnings
}
