//! The process over time. In: a profile, without names of stacks. Out: [`Timeline`].

use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::heap_groups::TimelineGroups;
use crate::analyze::interval::CountedInterval;
use crate::pattern::Pattern;
use crate::profile::{Annotated, Mark, Profile};
use crate::units::plural;

/// The process over time. Times are nanoseconds since the recording began, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timeline {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Command line of the recorded program.
    pub command: String,
    /// Process id of the recorded program.
    pub pid: u32,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether every figure of the live heap is exact.
    pub exact: bool,
    /// Length of the whole recording.
    pub duration_ns: u64,
    /// The interval that is shown. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// The most bytes that were live at one time.
    pub peak_bytes: u64,
    /// When the peak was first reached.
    pub peak_ns: u64,
    /// The exact live heap, in intervals that follow one another without a gap.
    pub heap: Vec<HeapPoint>,
    /// Who makes up the live heap over time. Null if that was not asked for.
    pub groups: Option<TimelineGroups>,
    /// The samples of the process, in the order of time.
    pub samples: Vec<SamplePoint>,
    /// Moments that the program named (`alloc_tracker::mark`), in the order of time.
    pub marks: Vec<MarkPoint>,
    /// Number of later marks that are not kept, because there were too many.
    pub marks_dropped: u64,
    /// Annotated functions that ran. The functions that ran longest in total come first.
    pub functions: Vec<FunctionSpans>,
    /// Number of calls that `functions` leaves out, because there were too many. Each is shorter
    /// than every call that is kept.
    pub spans_dropped: u64,
}

impl Timeline {
    /// Returns the times between which the timeline lies.
    pub fn period_ns(&self) -> (u64, u64) {
        self.interval.as_ref().map_or((0, self.duration_ns), |interval| (interval.from_ns, interval.to_ns))
    }
}

/// The live heap during one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapPoint {
    /// Beginning of the interval.
    pub start_ns: u64,
    /// End of the interval.
    pub end_ns: u64,
    /// The least live bytes at any instant of the interval.
    pub min: u64,
    /// The most live bytes at any instant of the interval.
    pub max: u64,
    /// Live bytes at the end of the interval.
    pub last: u64,
}

/// One sample: the kernel's figures for the process at one moment. Page faults are counted from the
/// beginning of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SamplePoint {
    /// When the sample was taken.
    pub ns: u64,
    /// Resident set: bytes that are in physical memory.
    pub rss: u64,
    /// Virtual size: bytes of addresses that the process could use.
    pub vsz: u64,
    /// Bytes that are swapped out.
    pub swap: u64,
    /// Number of minor page faults: those that needed no disk.
    pub minor_faults: u64,
    /// Number of major page faults: those that had to wait for a disk.
    pub major_faults: u64,
    /// Bytes of `vsz` that the tracker itself has mapped.
    pub tracker_bytes: u64,
}

/// A moment that the program named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MarkPoint {
    /// When the mark was set.
    pub ns: u64,
    /// Name of the mark.
    pub name: String,
    /// Name of the thread that set the mark; `#7` if the dump does not name thread 7.
    pub thread: String,
    /// Live bytes of the process at that moment.
    pub live_bytes: u64,
    /// Resident set of the process, of the sample that is nearest in time. Null without samples.
    pub rss: Option<u64>,
    /// When that sample was taken. Null without samples.
    pub rss_sample_ns: Option<u64>,
}

/// When one annotated function ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FunctionSpans {
    /// Path of the function, such as `app::load`.
    pub function: String,
    /// Source file of the function, by the path that was given to the compiler: mostly relative to
    /// the workspace.
    pub file: String,
    /// First line of the function.
    pub start_line: u32,
    /// Sum of the lengths of all calls, on all threads.
    pub total_ns: u64,
    /// Number of calls in `spans`. A call of an async function has several spans if it awaits.
    pub calls: u64,
    /// The outermost calls, in the order in which they began; of an async function, its polls.
    pub spans: Vec<SpanPoint>,
}

impl FunctionSpans {
    /// Returns the number of calls, and that of polls if a future was polled more than once.
    pub fn how_often(&self) -> String {
        let (calls, spans) = (plural(self.calls, "call"), self.spans.len() as u64);
        if spans > self.calls { format!("{calls}, {}", plural(spans, "poll")) } else { calls }
    }
}

/// One outermost call of a function, or one poll of a future.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SpanPoint {
    /// Name of the thread; `#7` if the dump does not name thread 7.
    pub thread: String,
    /// Beginning of the call.
    pub start_ns: u64,
    /// End of the call.
    pub end_ns: u64,
    /// Whether the span is a poll that continues a call after an await.
    pub resumed: bool,
}

/// Makes the timeline, with all annotated functions or with those whose names match.
pub fn timeline(profile: &Profile, function: Option<&Pattern>) -> Timeline {
    let duration_us = profile.duration_us;
    let until_us = profile.interval.as_ref().map_or(duration_us, |interval| interval.to_us);
    let heap = profile.heap.intervals.iter().enumerate().map(|(at, interval)| {
        let start_us = profile.heap.start_us + at as u64 * profile.heap.width_us;
        let end_us = (start_us + profile.heap.width_us).min(until_us.max(start_us));
        let (start_ns, end_ns) = (start_us * 1000, end_us * 1000);
        HeapPoint { start_ns, end_ns, min: interval.min, max: interval.max, last: interval.last }
    });
    let samples = profile.timeline.iter().map(|(us, sample)| SamplePoint {
        ns: us * 1000,
        rss: sample.rss,
        vsz: sample.vsz,
        swap: sample.swap,
        minor_faults: sample.minor_faults,
        major_faults: sample.major_faults,
        tracker_bytes: sample.tracker_bytes,
    });
    Timeline {
        schema: "alloc-tracker/timeline/1",
        command: profile.process.command(),
        pid: profile.process.pid,
        complete: profile.trust.is_complete(),
        exact: profile.trust.is_exact(),
        duration_ns: duration_us * 1000,
        interval: CountedInterval::of(profile),
        peak_bytes: profile.totals.peak_bytes,
        peak_ns: profile.totals.peak_us * 1000,
        heap: heap.collect(),
        groups: None,
        samples: samples.collect(),
        marks: marks(profile),
        marks_dropped: profile.marks_dropped,
        functions: functions(profile, function),
        spans_dropped: profile.spans_dropped,
    }
}

/// Returns the marks of the program, in the order of time.
pub fn marks(profile: &Profile) -> Vec<MarkPoint> {
    let names = ThreadNames::of(profile);
    let point = |mark: &Mark| {
        let after = profile.timeline.partition_point(|(us, _)| *us < mark.us);
        let around = &profile.timeline[after.saturating_sub(1)..profile.timeline.len().min(after + 1)];
        let sample = around.iter().min_by_key(|(us, _)| us.abs_diff(mark.us));
        MarkPoint {
            ns: mark.us * 1000,
            name: mark.name.clone(),
            thread: names.name_of(mark.thread),
            live_bytes: mark.live_bytes,
            rss: sample.map(|(_, sample)| sample.rss),
            rss_sample_ns: sample.map(|(us, _)| us * 1000),
        }
    };
    profile.marks.iter().map(point).collect()
}

/// Checks that an annotated function ran whose name matches the pattern.
///
/// # Errors
/// If no annotated function matches. The error is a sentence for people, with the names that look
/// like the pattern.
pub fn check(profile: &Profile, pattern: &Pattern) -> Result<(), String> {
    let names: Vec<&str> = profile.annotated.iter().map(|function| function.name.as_str()).collect();
    if names.iter().any(|name| pattern.matches(name)) {
        return Ok(());
    }
    if names.is_empty() {
        return Err(
            "no function has #[alloc_tracker::profile], so --function has nothing to choose from".to_owned()
        );
    }
    let nearest = pattern.nearest(names.into_iter(), 3).join(", ");
    Err(format!("no annotated function matches '{pattern}'; the nearest: {nearest}"))
}

fn functions(profile: &Profile, pattern: Option<&Pattern>) -> Vec<FunctionSpans> {
    // Instances of a generic function are one function, as in every other table.
    let mut indices = HashMap::default();
    let names = ThreadNames::of(profile);
    let mut functions: Vec<FunctionSpans> = Vec::new();
    for span in &profile.spans {
        let Some(function) = profile.annotated.get(span.function) else { continue };
        if pattern.is_some_and(|pattern| !pattern.matches(&function.name)) {
            continue;
        }
        let at = *indices.entry((&function.name, &function.file, function.start_line)).or_insert_with(|| {
            functions.push(without_spans(function));
            functions.len() - 1
        });
        functions[at].total_ns += span.end_us.saturating_sub(span.start_us) * 1000;
        let (start_ns, end_ns, resumed) = (span.start_us * 1000, span.end_us * 1000, span.is_resumed);
        functions[at].calls += u64::from(!resumed);
        functions[at].spans.push(SpanPoint { thread: names.name_of(span.thread), start_ns, end_ns, resumed });
    }
    functions.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then_with(|| a.function.cmp(&b.function)));
    functions
}

fn without_spans(function: &Annotated) -> FunctionSpans {
    FunctionSpans {
        function: function.name.clone(),
        file: function.file.clone(),
        start_line: function.start_line,
        total_ns: 0,
        calls: 0,
        spans: Vec::new(),
    }
}

/// Names of threads by their number in the dump.
struct ThreadNames<'a>(HashMap<u32, &'a str>);

impl ThreadNames<'_> {
    fn of(profile: &Profile) -> ThreadNames<'_> {
        ThreadNames(profile.threads.iter().map(|thread| (thread.id, thread.name.as_str())).collect())
    }

    fn name_of(&self, id: u32) -> String {
        self.0.get(&id).map_or_else(|| format!("#{id}"), |name| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc_dump::record::Sample;

    use crate::profile::{ActivationSpan, HeapCurve, HeapInterval, RecordedThread};

    fn profile() -> Profile {
        let interval = |min, max, last| HeapInterval { min, max, last };
        let annotated = |name: &str| Annotated { name: name.to_owned(), ..Annotated::default() };
        let span = |function, thread, start_us, end_us| {
            let is_resumed = (function, start_us) == (2, 3);
            ActivationSpan { function, thread, start_us, end_us, is_resumed }
        };
        Profile {
            heap: HeapCurve {
                start_us: 0,
                width_us: 4,
                intervals: vec![interval(0, 9, 5), interval(2, 5, 2)],
            },
            duration_us: 7,
            annotated: vec![annotated("app::short"), annotated("app::long"), annotated("app::short")],
            spans: vec![span(0, 1, 0, 1), span(1, 2, 1, 7), span(2, 9, 3, 5)],
            threads: vec![
                RecordedThread { id: 1, name: "main".to_owned(), ..RecordedThread::default() },
                RecordedThread { id: 2, name: "worker".to_owned(), ..RecordedThread::default() },
            ],
            marks: vec![Mark {
                name: "loaded".to_owned(),
                thread: 2,
                us: 3,
                live_bytes: 9,
                events: 0,
                number: 1,
            }],
            ..Profile::default()
        }
    }

    #[test]
    fn intervals_lie_side_by_side_and_end_with_the_recording() {
        let timeline = timeline(&profile(), None);
        let spans: Vec<(u64, u64)> =
            timeline.heap.iter().map(|point| (point.start_ns, point.end_ns)).collect();
        assert_eq!(spans, [(0, 4000), (4000, 7000)]);
        let mark = &timeline.marks[0];
        assert_eq!((mark.ns, mark.thread.as_str(), mark.live_bytes), (3000, "worker", 9));
    }

    #[test]
    fn a_mark_has_the_rss_of_the_nearest_sample() {
        let mut profile = profile();
        let rss = |profile: &Profile| (marks(profile)[0].rss, marks(profile)[0].rss_sample_ns);
        assert_eq!(rss(&profile), (None, None));
        // The mark is at 3 us.
        for (times, expected) in [(&[0, 2, 5][..], 2), (&[0, 4], 4), (&[0, 1], 1), (&[9], 9), (&[3, 4], 3)] {
            let sample = |us: &u64| (*us, Sample { rss: *us, ..Sample::default() });
            profile.timeline = times.iter().map(sample).collect();
            assert_eq!(rss(&profile), (Some(expected), Some(expected * 1000)));
        }
    }

    #[test]
    fn the_longest_function_comes_first_and_instances_are_one() {
        let all = timeline(&profile(), None).functions;
        let shown: Vec<_> = all.iter().map(|f| (f.function.as_str(), f.total_ns, f.spans.len())).collect();
        assert_eq!(shown, [("app::long", 6000, 1), ("app::short", 3000, 2)]);
        assert_eq!((all[1].calls, all[1].how_often()), (1, "1 call, 2 polls".to_owned()));
        assert_eq!(all[0].how_often(), "1 call");
        assert_eq!(all[1].spans[1].thread, "#9", "a thread that the dump does not tell of");
        let one = timeline(&profile(), Some(&Pattern::new("long"))).functions;
        assert_eq!(one.len(), 1);
        assert!(check(&profile(), &Pattern::new("lonk")).unwrap_err().contains("app::long"));
    }
}
