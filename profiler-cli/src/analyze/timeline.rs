//! The process over time. In: a profile. Out: [`Timeline`]. Needs no symbols.

use foldhash::HashMap;
use serde::Serialize;

use crate::pattern::Pattern;
use crate::profile::{Annotated, Mark, Profile};

/// The process over time. Times are nanoseconds since the recording began, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// Process id.
    pub pid: u32,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether every figure of the live heap is exact.
    pub exact: bool,
    /// Length of the recording.
    pub duration_ns: u64,
    /// The most bytes that were ever live.
    pub peak_bytes: u64,
    /// The first instant of that.
    pub peak_ns: u64,
    /// The exact live heap, in intervals that follow one another.
    pub heap: Vec<HeapPoint>,
    /// The state of the process, when it was looked at.
    pub samples: Vec<SamplePoint>,
    /// Places that the program gave a name, in order.
    pub marks: Vec<MarkPoint>,
    /// Those that came after these, because there were too many.
    pub marks_dropped: u64,
    /// Annotated functions that ran, those first that ran longest.
    pub functions: Vec<FunctionSpans>,
    /// Calls that are not among `functions`, because there were too many; each is shorter than those that are.
    pub spans_dropped: u64,
}

/// The live heap during one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeapPoint {
    /// Its beginning.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// The least at any instant of it.
    pub min: u64,
    /// The most at any instant of it.
    pub max: u64,
    /// At its end.
    pub last: u64,
}

/// What the kernel says about the process. Faults are counted from the process's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SamplePoint {
    /// When.
    pub ns: u64,
    /// Resident set: memory that is really there.
    pub rss: u64,
    /// Virtual size: addresses that could be used.
    pub vsz: u64,
    /// Swapped-out memory.
    pub swap: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that had to wait for a disk.
    pub major_faults: u64,
    /// What of `vsz` the tracker itself has mapped.
    pub tracker_bytes: u64,
}

/// A named moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkPoint {
    /// When.
    pub ns: u64,
    /// Its name.
    pub name: String,
    /// Name of the thread that came there.
    pub thread: String,
    /// Live bytes of the process then.
    pub live_bytes: u64,
}

/// When a function ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionSpans {
    /// Its path.
    pub function: String,
    /// Its source file, as the compiler was told of it.
    pub file: String,
    /// Its first line.
    pub start_line: u32,
    /// Sum of the calls' lengths, over all threads.
    pub total_ns: u64,
    /// Its outermost calls, in the order in which they began.
    pub spans: Vec<SpanPoint>,
}

/// One outermost call; of a future, one poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpanPoint {
    /// Name of the thread.
    pub thread: String,
    /// Its beginning.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
}

/// The timeline with the functions whose names match, or all.
pub fn timeline(profile: &Profile, function: Option<&Pattern>) -> Timeline {
    let duration_us = profile.duration_us;
    let heap = profile.heap.intervals.iter().enumerate().map(|(at, interval)| {
        let start_us = at as u64 * profile.heap.width_us;
        let end_us = (start_us + profile.heap.width_us).min(duration_us.max(start_us));
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
        complete: profile.trust.complete(),
        exact: profile.trust.exact(),
        duration_ns: duration_us * 1000,
        peak_bytes: profile.totals.peak_bytes,
        peak_ns: profile.totals.peak_us * 1000,
        heap: heap.collect(),
        samples: samples.collect(),
        marks: marks(profile),
        marks_dropped: profile.marks_dropped,
        functions: functions(profile, function),
        spans_dropped: profile.spans_dropped,
    }
}

/// Places that the program gave a name, in order.
pub fn marks(profile: &Profile) -> Vec<MarkPoint> {
    let names = Names::of(profile);
    let point = |mark: &Mark| MarkPoint {
        ns: mark.us * 1000,
        name: mark.name.clone(),
        thread: names.get(mark.thread),
        live_bytes: mark.live_bytes,
    };
    profile.marks.iter().map(point).collect()
}

/// Fails with names that look like the pattern if no annotated function ran that matches it.
///
/// # Errors
/// What there is instead, for people.
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
    // Instances of a generic function are one function in every other table too.
    let mut numbers = HashMap::default();
    let names = Names::of(profile);
    let mut functions: Vec<FunctionSpans> = Vec::new();
    for span in &profile.spans {
        let Some(function) = profile.annotated.get(span.function) else { continue };
        if pattern.is_some_and(|pattern| !pattern.matches(&function.name)) {
            continue;
        }
        let at = *numbers.entry((&function.name, &function.file, function.start_line)).or_insert_with(|| {
            functions.push(of_function(function));
            functions.len() - 1
        });
        functions[at].total_ns += span.end_us.saturating_sub(span.start_us) * 1000;
        let (start_ns, end_ns) = (span.start_us * 1000, span.end_us * 1000);
        functions[at].spans.push(SpanPoint { thread: names.get(span.thread), start_ns, end_ns });
    }
    functions.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then_with(|| a.function.cmp(&b.function)));
    functions
}

fn of_function(function: &Annotated) -> FunctionSpans {
    FunctionSpans {
        function: function.name.clone(),
        file: function.file.clone(),
        start_line: function.start_line,
        total_ns: 0,
        spans: Vec::new(),
    }
}

/// What threads are called.
struct Names<'a>(HashMap<u32, &'a str>);

impl Names<'_> {
    fn of(profile: &Profile) -> Names<'_> {
        Names(profile.threads.iter().map(|thread| (thread.id, thread.name.as_str())).collect())
    }

    fn get(&self, id: u32) -> String {
        self.0.get(&id).map_or_else(|| format!("#{id}"), |name| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{ActivationSpan, HeapCurve, HeapInterval, RecordedThread};

    fn profile() -> Profile {
        let interval = |min, max, last| HeapInterval { min, max, last };
        let annotated = |name: &str| Annotated { name: name.to_owned(), ..Annotated::default() };
        let span = |function, thread, start_us, end_us| ActivationSpan { function, thread, start_us, end_us };
        Profile {
            heap: HeapCurve { width_us: 4, intervals: vec![interval(0, 9, 5), interval(2, 5, 2)] },
            duration_us: 7,
            annotated: vec![annotated("app::short"), annotated("app::long"), annotated("app::short")],
            spans: vec![span(0, 1, 0, 1), span(1, 2, 1, 7), span(2, 9, 3, 5)],
            threads: vec![
                RecordedThread { id: 1, name: "main".to_owned(), ..RecordedThread::default() },
                RecordedThread { id: 2, name: "worker".to_owned(), ..RecordedThread::default() },
            ],
            marks: vec![Mark { name: "loaded".to_owned(), thread: 2, us: 3, live_bytes: 9 }],
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
    fn the_longest_function_comes_first_and_instances_are_one() {
        let all = timeline(&profile(), None).functions;
        let shown: Vec<_> = all.iter().map(|f| (f.function.as_str(), f.total_ns, f.spans.len())).collect();
        assert_eq!(shown, [("app::long", 6000, 1), ("app::short", 3000, 2)]);
        assert_eq!(all[1].spans[1].thread, "#9", "a thread that the dump does not tell of");
        let one = timeline(&profile(), Some(&Pattern::new("long"))).functions;
        assert_eq!(one.len(), 1);
        assert!(check(&profile(), &Pattern::new("lonk")).unwrap_err().contains("app::long"));
    }
}
