//! What a person wants first. In: a profile and its stacks. Out: [`Summary`].

use alloc_dump::layout::StackId;
use alloc_dump::trailer::EndReason;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::timeline::{self, MarkPoint};
use crate::names::stacks::{NamedFrame, Stacks};
use crate::profile::{Profile, StackStats};
use crate::units::plural;

/// The profile at a glance. The words are those of ARCHITECTURE.md; bytes are those that were asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// Process id.
    pub pid: u32,
    /// Length of the recording.
    pub duration_ns: u64,
    /// `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// `dealloc` events.
    pub deallocations: u64,
    /// `realloc` events.
    pub reallocations: u64,
    /// Bytes of allocations and the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes of deallocations and the old sizes of reallocations.
    pub freed_bytes: u64,
    /// The most bytes that were ever live.
    pub peak_bytes: u64,
    /// Blocks live at the first instant of that.
    pub peak_blocks: u64,
    /// That instant.
    pub peak_ns: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
    /// Blocks live at the end.
    pub live_blocks: u64,
    /// Blocks whose free was the next heap event of the thread that had allocated them.
    pub temporary_allocations: u64,
    /// Frees and reallocs of blocks that are older than the recording.
    pub foreign_frees: u64,
    /// Bytes of those blocks.
    pub foreign_freed_bytes: u64,
    /// Threads that had any heap event.
    pub threads: usize,
    /// Distinct stacks that had any heap event.
    pub stacks: u64,
    /// Events that reached the recorder and were not recorded.
    pub lost_events: u64,
    /// Events whose stack does not reach a known root.
    pub truncated_stacks: u64,
    /// Stacks that the recorder compared with an independent full walk (`ALLOC_TRACKER_CHECK=1`).
    pub checked_stacks: u64,
    /// How many of these differed.
    pub different_stacks: u64,
    /// Distinct code addresses that have no name.
    pub unresolved_frames: u64,
    /// Whether the recorder was built with debug assertions, very likely without optimization, which makes the program slower.
    pub recorder_debug_assertions: bool,
    /// Whether the recording was read to its end.
    pub complete: bool,
    /// Whether every figure is exact: complete, and nothing lost.
    pub exact: bool,
    /// Frames that were damaged or missing.
    pub dropped_frames: u64,
    /// Bytes that were recovered from the sidecar.
    pub recovered_bytes: u64,
    /// How the recording ended.
    pub end: String,
    /// Sentences about what is wrong with the profile; empty if nothing is.
    pub warnings: Vec<String>,
    /// The kernel's figures for the process at their highest.
    pub process: ProcessPeaks,
    /// Moments that the program gave a name, in their order.
    pub marks: Vec<MarkPoint>,
    /// Those that came after these, because there were too many.
    pub marks_dropped: u64,
    /// How many allocations asked for how much.
    pub sizes: Vec<SizeClass>,
    /// Sites by their share of the peak.
    pub top_peak: Vec<Site>,
    /// Sites by bytes allocated.
    pub top_allocated: Vec<Site>,
    /// Sites by number of allocations.
    pub top_allocations: Vec<Site>,
    /// Threads, in the order of their first event.
    pub thread_list: Vec<ThreadRow>,
}

/// The kernel's figures for the process at their highest. Sizes in bytes. Virtual size and resident set are the
/// kernel's own high-water marks, the rest the highest of the samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessPeaks {
    /// Samples taken.
    pub samples: u64,
    /// Virtual size.
    pub vsz: u64,
    /// Resident set.
    pub rss: u64,
    /// Swapped-out memory.
    pub swap: u64,
    /// Minor page faults, at the end.
    pub minor_faults: u64,
    /// Major page faults, at the end.
    pub major_faults: u64,
    /// Memory that the tracker itself had mapped, contained in the sizes above.
    pub tracker_bytes: u64,
}

/// A class of allocation sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeClass {
    /// Larger than the class before and at most this many bytes.
    pub up_to_bytes: u64,
    /// Allocations.
    pub allocations: u64,
}

/// What happened at one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Site {
    /// The function.
    pub function: String,
    /// Its source file.
    pub file: Option<String>,
    /// The line.
    pub line: Option<u32>,
    /// Bytes that were live at the peak.
    pub peak_bytes: u64,
    /// Blocks that were live at the peak.
    pub peak_blocks: u64,
    /// Bytes allocated, new sizes of reallocations included.
    pub allocated_bytes: u64,
    /// Allocations.
    pub allocations: u64,
    /// Reallocations.
    pub reallocations: u64,
    /// Allocations that were temporary.
    pub temporary_allocations: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
}

/// What one thread did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadRow {
    /// The system's thread id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Allocations.
    pub allocations: u64,
    /// Reallocations.
    pub reallocations: u64,
    /// Deallocations.
    pub deallocations: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// When its first event happened.
    pub start_ns: u64,
    /// When it ended; null if it was alive at the end.
    pub end_ns: Option<u64>,
}

/// Makes the summary. The filter applies to the sites; totals are always those of the whole process.
pub fn summary(profile: &Profile, stacks: &Stacks, filter: &Filter, top: usize) -> Summary {
    let totals = &profile.totals;
    let trust = &profile.trust;
    let sites = sites(profile, stacks, filter);
    Summary {
        schema: "alloc-tracker/summary/1",
        command: profile.process.command(),
        pid: profile.process.pid,
        duration_ns: profile.duration_us * 1000,
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
        foreign_frees: totals.foreign_frees,
        foreign_freed_bytes: totals.foreign_bytes,
        threads: profile.threads.len(),
        stacks: totals.stacks,
        lost_events: trust.lost_events,
        truncated_stacks: trust.truncated_stacks,
        checked_stacks: trust.checked_stacks,
        different_stacks: trust.different_stacks,
        unresolved_frames: stacks.unresolved,
        recorder_debug_assertions: profile.process.debug_assertions,
        complete: trust.complete(),
        exact: trust.exact(),
        dropped_frames: trust.loss.dropped_frames + trust.loss.malformed_frames + trust.loss.missing_frames,
        recovered_bytes: trust.recovered_bytes,
        end: describe_end(trust.end),
        warnings: warnings(profile, stacks),
        process: process_peaks(profile),
        marks: timeline::marks(profile),
        marks_dropped: profile.marks_dropped,
        sizes: size_classes(&profile.sizes),
        top_peak: top_by(&sites, top, |site| site.peak_bytes),
        top_allocated: top_by(&sites, top, |site| site.allocated_bytes),
        top_allocations: top_by(&sites, top, |site| site.allocations),
        thread_list: profile.threads.iter().map(ThreadRow::from).collect(),
    }
}

/// Every stack that a profile has statistics of.
pub(crate) fn with_ids(profile: &Profile) -> impl Iterator<Item = (StackId, &StackStats)> {
    profile.stacks.iter().enumerate().map(|(at, stats)| (StackId(at as u32), stats))
}

impl From<&crate::profile::RecordedThread> for ThreadRow {
    fn from(thread: &crate::profile::RecordedThread) -> ThreadRow {
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

fn sites(profile: &Profile, stacks: &Stacks, filter: &Filter) -> Vec<Site> {
    // Not by frame: one place is several frames if it is inlined here and not there.
    let mut sites: HashMap<Option<Place<'_>>, Site> = HashMap::default();
    let accepted = filter.accepted(stacks);
    for (stack, stats) in with_ids(profile) {
        let silent = stats.events() == 0 && stats.peak_blocks == 0 && stats.live_blocks == 0;
        if silent || !accepted.has(stack) {
            continue;
        }
        let frame = stacks.site(stack).map(|id| stacks.frame(id));
        let place = frame.map(|frame| (&*frame.function, frame.file.as_deref(), frame.line));
        let site = sites.entry(place).or_insert_with(|| name_site(frame));
        site.peak_bytes += stats.peak_bytes;
        site.peak_blocks += stats.peak_blocks;
        site.allocated_bytes += stats.allocated;
        site.allocations += stats.allocations;
        site.reallocations += stats.reallocations;
        site.temporary_allocations += stats.temporary;
        site.live_bytes += stats.live_bytes;
    }
    let mut sites: Vec<Site> = sites.into_values().collect();
    sites.sort_by(|a, b| (&a.function, &a.file, a.line).cmp(&(&b.function, &b.file, b.line)));
    sites
}

/// A function, its file and a line.
type Place<'a> = (&'a str, Option<&'a str>, Option<u32>);

fn name_site(frame: Option<&NamedFrame>) -> Site {
    Site {
        function: frame.map_or_else(|| "(no stack)".to_owned(), |frame| frame.function.to_string()),
        file: frame.and_then(|frame| frame.file.as_deref()).map(str::to_owned),
        line: frame.and_then(|frame| frame.line),
        ..Site::default()
    }
}

fn top_by(sites: &[Site], top: usize, figure: impl Fn(&Site) -> u64) -> Vec<Site> {
    let mut sorted: Vec<&Site> = sites.iter().filter(|site| figure(site) > 0).collect();
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

fn process_peaks(profile: &Profile) -> ProcessPeaks {
    let mut peaks = ProcessPeaks { samples: profile.samples, ..ProcessPeaks::default() };
    for (_, sample) in &profile.timeline {
        peaks.vsz = peaks.vsz.max(sample.vsz).max(sample.peak_vsz);
        peaks.rss = peaks.rss.max(sample.rss).max(sample.peak_rss);
        peaks.swap = peaks.swap.max(sample.swap);
        peaks.minor_faults = peaks.minor_faults.max(sample.minor_faults);
        peaks.major_faults = peaks.major_faults.max(sample.major_faults);
        peaks.tracker_bytes = peaks.tracker_bytes.max(sample.tracker_bytes);
    }
    peaks
}

fn describe_end(end: Option<EndReason>) -> String {
    match end {
        Some(EndReason::Finished) => "finished".to_owned(),
        Some(EndReason::Exited(code)) => format!("the process ended with status {code} without finishing it"),
        Some(EndReason::Signalled(signal)) => format!("the process was killed by signal {signal}"),
        Some(EndReason::Vanished) => "the process is gone without having finished it".to_owned(),
        _ => "unknown: the end of the dump is missing".to_owned(),
    }
}

/// What is wrong with a profile or with its names, one sentence each; empty if nothing is.
pub fn warnings(profile: &Profile, stacks: &Stacks) -> Vec<String> {
    let mut warnings = warnings_of_recording(profile);
    warnings.extend(stacks.hints.iter().cloned());
    warnings
}

/// What is wrong with a profile, names aside.
pub fn warnings_of_recording(profile: &Profile) -> Vec<String> {
    let trust = &profile.trust;
    let mut warnings = Vec::new();
    if let Some(reason) = &trust.stopped {
        warnings.push(format!("the recording stopped before the program did: {reason}"));
    } else if trust.end.is_none() && trust.recovered_bytes > 0 {
        warnings.push("the recording has no end: the program was killed, or is still running".to_owned());
    } else if trust.end.is_none() {
        warnings.push("the recording has no end: what happened after the last frame is missing".to_owned());
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
    if trust.inconsistent_events > 0 {
        warnings.push(format!(
            "{} in contradiction to the ones before",
            plural(trust.inconsistent_events, "event")
        ));
    }
    if let Some(own) = &trust.disagreement {
        warnings.push(format!(
            "the recorder counted {} allocations, {} deallocations and {} reallocations",
            own.allocations, own.deallocations, own.reallocations
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
