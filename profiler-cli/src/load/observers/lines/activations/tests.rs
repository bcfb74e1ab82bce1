//! Hand-made probes and heap events.

use alloc_dump::record::{PageFaults, ResidentBytes};

use super::*;
use crate::profile::AnnotatedLine;

fn two_functions() -> Activations {
    let mut all = Activations::default();
    for id in [1, 2] {
        let function = Function { id, name: b"f", file: b"f.rs", start_line: 10 * id, end_line: 10 * id + 9 };
        assert!(all.define(&function));
    }
    all
}

fn at(us: u64, live: u64) -> ProbeMoment {
    ProbeMoment { thread_id: 1, us, live, counts: true }
}

fn change(allocated: u64, freed: u64) -> HeapChange {
    let blocks = i64::from(allocated > 0) - i64::from(freed > 0);
    HeapChange { allocated, freed, blocks, allocations: u64::from(allocated > 0) }
}

#[test]
fn an_event_counts_once_for_each_function_on_its_innermost_activation() {
    let mut all = two_functions();
    assert!(all.enter(at(0, 0), 1, 100) && all.reach(at(0, 0), 100, 11));
    all.count_event(1, change(5, 0));
    // The first function calls itself, and that call calls the other function.
    assert!(all.enter(at(10, 5), 1, 101) && all.reach(at(10, 5), 101, 12));
    assert!(all.enter(at(20, 5), 2, 102) && all.reach(at(20, 5), 102, 21));
    all.count_event(1, change(7, 0));
    all.count_event(9, change(1000, 0));
    assert!(all.leave(at(50, 12), 102, true) && all.leave(at(60, 12), 101, true));
    all.count_event(1, change(0, 5));
    assert!(all.reach(at(70, 7), 100, 13) && all.leave(at(75, 7), 100, true));
    assert!(!all.reach(at(75, 7), 100, 13), "it is over");
    // The inner call of the first function is part of its outer call, so it has no span.
    let span = |function, start_us, end_us| ActivationSpan {
        function,
        thread: 1,
        start_us,
        end_us,
        is_resumed: false,
    };
    assert_eq!(all.take_spans(80), (vec![span(0, 0, 75), span(1, 20, 50)], 0));
    let functions = all.finish(80, 7, false);
    let rows = |at: usize| -> Vec<(u32, u64, u64, u64, u64, u64)> {
        let rows = functions[at].lines.iter();
        rows.map(|(n, l)| (*n, l.occurrences, l.allocated, l.freed, l.time_us, l.mem_usage)).collect()
    };
    // Line 11 has the time from 0 to 10 and, after the inner call, from 60 to 70.
    assert_eq!(rows(0), [(11, 1, 5, 5, 20, 7), (12, 1, 7, 0, 50, 12), (13, 1, 0, 0, 5, 7)]);
    assert_eq!(rows(1), [(21, 1, 7, 0, 30, 12)]);
}

#[test]
fn a_future_goes_on_at_its_line_on_any_thread() {
    let mut all = two_functions();
    assert!(all.enter(at(0, 0), 1, 7) && all.reach(at(0, 0), 7, 12) && all.leave(at(4, 0), 7, false));
    all.count_event(1, change(100, 0));
    let other = |us| ProbeMoment { thread_id: 2, us, live: 0, counts: true };
    assert!(all.enter(other(50), 1, 7));
    all.count_event(2, change(3, 0));
    assert!(all.leave(other(56), 7, true));
    let line = &all.finish(60, 0, false)[0].lines[&12];
    assert_eq!((line.occurrences, line.allocated, line.time_us), (1, 3, 4 + 6));
}

#[test]
fn usage_readings_add_up_through_recursion() {
    let mut all = two_functions();
    let used =
        |rss, minor| UsageReading::new(ResidentBytes::new(rss), PageFaults::new(minor), PageFaults::new(0));
    assert!(!all.read_usage(1, used(1, 1)), "no line record came before");
    assert!(all.enter(at(0, 0), 1, 100) && all.read_usage(1, used(1000, 7)));
    assert!(all.reach(at(0, 0), 100, 11) && all.read_usage(1, used(1000, 7)));
    assert!(all.reach(at(0, 0), 100, 12) && all.read_usage(1, used(1500, 9)));
    // Recursion: the usage of the inner activation does not count for the outer one.
    assert!(all.enter(at(0, 0), 1, 101) && all.read_usage(1, used(1600, 9)));
    assert!(all.reach(at(0, 0), 101, 11) && all.read_usage(1, used(1600, 9)));
    assert!(all.leave(at(0, 0), 101, true) && all.read_usage(1, used(900, 19)));
    assert!(all.reach(at(0, 0), 100, 13) && all.read_usage(1, used(1000, 20)));
    assert!(all.leave(at(0, 0), 100, true) && all.read_usage(1, used(1000, 20)));
    let functions = all.finish(0, 0, false);
    let rows: Vec<_> =
        functions[0].lines.iter().map(|(n, l)| (*n, l.rss, l.minor_faults, l.major_faults)).collect();
    let row = |line, rss, minor| (line, Some(rss), Some(minor), Some(0));
    // Line 11 has 500 and -700, line 12 has 100 and 100, line 13 nothing. The sum is 0, which is
    // also the difference between the last reading and the first.
    assert_eq!(rows, [row(11, -200, 12), row(12, 200, 1), row(13, 0, 0)]);
}

#[test]
fn a_block_belongs_to_the_line_of_every_function_that_its_thread_ran() {
    let mut all = two_functions();
    assert_eq!(all.context_of(1), ContextId::NONE);
    assert!(all.enter(at(0, 0), 1, 100) && all.reach(at(0, 0), 100, 11));
    let outer = all.context_of(1);
    assert!(all.enter(at(0, 0), 2, 101) && all.reach(at(0, 0), 101, 21));
    let both = all.context_of(1);
    all.contexts.add(outer, 100);
    all.contexts.add(both, 10);
    all.contexts.note_peak();
    all.contexts.remove(outer, 100);
    assert_eq!(all.context_of(9), ContextId::NONE, "another thread");
    let functions = all.finish(0, 0, false);
    let held = |function: usize, line| {
        let line: &AnnotatedLine = &functions[function].lines[&line];
        (line.peak, line.live)
    };
    assert_eq!((held(0, 11), held(1, 21)), ((Some(110), Some(10)), (Some(10), Some(10))));
}

#[test]
fn an_activation_that_was_never_left_ends_with_its_caller_and_unknown_ones_are_refused() {
    let mut all = two_functions();
    assert!(!all.enter(at(0, 0), 3, 1) && !all.reach(at(0, 0), 1, 1) && !all.leave(at(0, 0), 1, true));
    assert!(all.enter(at(0, 0), 1, 1) && all.enter(at(0, 0), 2, 2) && all.enter(at(0, 0), 2, 3));
    assert!(all.leave(at(9, 0), 1, true));
    assert!(!all.leave(at(9, 0), 3, true) && !all.leave(at(9, 0), 2, true));
    all.count_event(1, change(1, 0));
    assert!(all.finish(9, 0, false).iter().all(|function| function.lines.is_empty()));
}

#[test]
fn a_poll_that_continues_a_future_is_no_new_call() {
    let mut all = two_functions();
    for (us, ended) in [(0, false), (10, false), (20, true)] {
        assert!(all.enter(at(us, 0), 1, 7) && all.leave(at(us + 1, 0), 7, ended));
    }
    assert!(all.enter(at(30, 0), 1, 8) && all.leave(at(31, 0), 8, true));
    let (spans, _) = all.take_spans(40);
    let resumed: Vec<(u64, bool)> = spans.iter().map(|span| (span.start_us, span.is_resumed)).collect();
    assert_eq!(resumed, [(0, false), (10, true), (20, true), (30, false)]);
}
