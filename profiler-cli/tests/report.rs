//! The analyses and their text output, on one hand-made profile of this program:
//!
//! ```text
//! 10 fn main() {                11     work(3);                12     work(1);
//! 20 fn work(n: u32) {          21     let a = vec![..];       24     work(n - 1);       26 }
//! ```
//!
//! All expected figures are arithmetic on the profile that `recording` makes.

use alloc_dump::layout::StackId;
use anstream::StripStream;
use clap::ValueEnum;
use profiler_cli::analyze::column::{OptionalColumn, TableOrder};
use profiler_cli::analyze::filter::Filter;
use profiler_cli::analyze::leaks::LeakSelection;
use profiler_cli::analyze::shown::Folding;
use profiler_cli::analyze::{flame, leaks, lines, summary};
use profiler_cli::names::code_owner::CodeOwner;
use profiler_cli::names::stacks::{NamedFrame, Stacks};
use profiler_cli::pattern::Pattern;
use profiler_cli::profile::{
    Annotated, AnnotatedLine, HeapTotals, Process, Profile, RecordedThread, StackStats, Trust,
};
use profiler_cli::render::leaks_text::{self, LeaksShape};
use profiler_cli::render::text_width::TextWidth;
use profiler_cli::render::{lines_text, summary_text};
use profiler_cli::source::SourcesInMemory;
use profiler_cli::units::SizeUnit;

const SOURCE: &str = r"// A program of two functions.








fn main() {
    work(3);
    work(1);
}






fn work(n: u32) {
    let a = vec![0u8; 1000];

    if n > 0 {
        work(n - 1);
    }
} // end
";

/// Returns a frame of the program, or of the standard library by its name.
fn frame(function: &str, line: u32) -> NamedFrame {
    let is_runtime = function.starts_with("alloc::") || function.starts_with("std::");
    let file = if is_runtime { "/rustc/0/library/alloc/src/vec.rs" } else { "/app/src/main.rs" };
    NamedFrame {
        function: function.into(),
        file: Some(file.into()),
        line: Some(line),
        is_inlined: false,
        owner: CodeOwner::runtime_if(is_runtime),
        module: "app".into(),
    }
}

/// Makes the profile and its four stacks, innermost frame first. Event 1 allocates 1000 bytes in
/// `work` called by `main`. Events 2 and 3 allocate 1000 bytes each in `work` called by `work`; one
/// of the two blocks is temporary. Event 4 frees a block at the closing brace of the inner `work`.
/// The fourth stack, outside of `main`, has two live blocks of 48 bytes in all.
fn recording() -> (Profile, Stacks) {
    let vec = || frame("alloc::vec::from_elem", 5);
    let outer = || vec![frame("app::main", 11), frame("std::rt::lang_start", 1)];
    let with = |inner: Vec<NamedFrame>| inner.into_iter().chain(outer()).collect::<Vec<_>>();
    let stacks = Stacks::from_frames(&[
        with(vec![vec(), frame("app::work", 21)]),
        with(vec![vec(), frame("app::work", 21), frame("app::work", 24)]),
        with(vec![frame("app::work", 26), frame("app::work", 24)]),
        vec![frame("alloc::vec::from_elem", 5), frame("std::thread::start", 2)],
    ]);
    let first = StackId::FIRST.0 as usize;
    let mut profile = Profile {
        nodes: vec![Default::default(); first + 4],
        stacks: vec![StackStats::default(); first + 4],
        sizes: vec![0; 65],
        duration_us: 2_500_000,
        process: Process { args: vec!["/app/bin/app".into(), "a b".into()], pid: 7, ..Process::default() },
        threads: vec![RecordedThread { id: 1, os_tid: 7, name: "app".into(), ..RecordedThread::default() }],
        trust: Trust { end: Some(alloc_dump::trailer::EndReason::Finished), ..Trust::default() },
        ..Profile::default()
    };
    profile.sizes[10] = 3;
    let allocated = |n: u64, live: u64| StackStats {
        allocations: n,
        allocated: n * 1000,
        live_bytes: live * 1000,
        live_blocks: live,
        live_first_us: if live > 0 { 100 } else { 0 },
        live_last_us: if live > 0 { 1_500_000 } else { 0 },
        peak_bytes: n * 1000,
        peak_blocks: n,
        ..StackStats::default()
    };
    profile.stacks[first] = StackStats { last_event: 1, live_after_last: 1000, ..allocated(1, 1) };
    profile.stacks[first + 1] =
        StackStats { last_event: 3, live_after_last: 3000, temporary: 1, ..allocated(2, 1) };
    profile.stacks[first + 2] = StackStats {
        deallocations: 1,
        freed: 1000,
        last_event: 4,
        live_after_last: 2000,
        ..StackStats::default()
    };
    profile.stacks[first + 3] = StackStats { live_bytes: 48, live_blocks: 2, ..StackStats::default() };
    profile.totals = HeapTotals {
        allocations: 3,
        deallocations: 1,
        allocated_bytes: 3000,
        freed_bytes: 1000,
        live_bytes: 2048,
        live_blocks: 4,
        peak_bytes: 3000,
        peak_blocks: 3,
        peak_us: 2_000_000,
        temporary: 1,
        stacks: 3,
        ..HeapTotals::default()
    };
    (profile, stacks)
}

/// Returns what `write` prints, without colours.
fn plain(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut out = StripStream::new(Vec::new());
    write(&mut out).unwrap();
    String::from_utf8(out.into_inner()).unwrap()
}

/// A closure of an annotated function may run while no activation of the function does. Its events
/// are on the function's stacks and not in the rows of the annotated table. A note under the table
/// gives their bytes.
#[test]
fn a_note_gives_the_bytes_outside_of_an_annotated_functions_activations() {
    let (mut profile, stacks) = recording();
    let line = AnnotatedLine { occurrences: 1, allocated: 1000, ..AnnotatedLine::default() };
    let annotated = |allocated| Annotated {
        name: "app::work".into(),
        file: "/app/src/main.rs".into(),
        start_line: 20,
        end_line: 26,
        lines: [(21, AnnotatedLine { allocated, ..line })].into(),
    };
    let sources = SourcesInMemory::from_texts([("/app/src/main.rs", SOURCE)]);
    let mut note = |allocated| {
        profile.annotated = vec![annotated(allocated)];
        let all = lines::LineSelection::default();
        let tables = lines::lines(&profile, &stacks, &sources, &Filter::default(), &all);
        let work = tables.functions.iter().find(|table| table.function == "app::work").unwrap();
        assert_eq!(work.source, "annotation");
        work.note.clone()
    };
    // The stacks of `work` have allocated 1000 + 2000 bytes. With 1000 bytes in the rows, 2000 are
    // missing.
    assert_eq!(note(3000), None);
    assert!(note(1000).unwrap().contains("not in these rows: 2.0 KiB (2,000 B)"));
}

#[test]
fn an_event_counts_for_the_innermost_activation_of_a_function() {
    let (profile, stacks) = recording();
    let sources = SourcesInMemory::from_texts([("/app/src/main.rs", SOURCE)]);
    let tables =
        lines::lines(&profile, &stacks, &sources, &Filter::default(), &lines::LineSelection::default());
    let names: Vec<&str> = tables.functions.iter().map(|table| table.function.as_str()).collect();
    // `work` allocates itself. `main` allocates only through `work`, so it comes second.
    assert_eq!(names, ["app::work", "app::main"]);
    let row =
        |table: &lines::FunctionLines, line| table.lines.iter().find(|row| row.line == line).unwrap().clone();
    let work = &tables.functions[0];
    assert_eq!((work.start_line, work.end_line), (20, 26));
    // The allocations of both depths are on line 21. Line 24 belongs to the outer activation and
    // has no event of its own. The closing brace frees.
    let (alloc, call, brace) = (row(work, 21), row(work, 24), row(work, 26));
    assert_eq!((alloc.increment, alloc.occurrences, alloc.blocks), (Some(3000), Some(3), Some(3)));
    assert_eq!(alloc.mem_usage, Some(3000), "the live bytes after the line's last event, which is event 3");
    assert_eq!((call.increment, call.occurrences, call.mem_usage), (None, None, None));
    assert_eq!((brace.increment, brace.freed, brace.mem_usage), (Some(-1000), Some(1000), Some(2000)));
    assert_eq!(work.increment, 2000);
    let main = &tables.functions[1];
    assert_eq!((row(main, 11).increment, main.increment), (Some(2000), 2000));
}

#[test]
fn lines_have_peak_and_live_bytes_and_tables_have_callers() {
    let (profile, stacks) = recording();
    let sources = SourcesInMemory::from_texts([("/app/src/main.rs", SOURCE)]);
    let tables = |selection: &lines::LineSelection| {
        lines::lines(&profile, &stacks, &sources, &Filter::default(), selection).functions
    };
    let with_callers = tables(&lines::LineSelection { callers: true, ..lines::LineSelection::default() });
    let alloc = with_callers[0].lines.iter().find(|row| row.line == 21).unwrap();
    assert_eq!((alloc.peak, alloc.live, alloc.temporary), (Some(3000), Some(2000), Some(1)));
    let callers: Vec<_> = with_callers[0].callers.as_ref().unwrap().iter().collect();
    let shown: Vec<_> =
        callers.iter().map(|c| (c.function.as_str(), c.line, c.events, c.allocated, c.freed)).collect();
    // `work` is called by itself, with two allocations and one free, and by `main`. No function of
    // the user's code calls `main`.
    let expected = [("app::work", Some(24), 3, 2000, 1000), ("app::main", Some(11), 1, 1000, 0)];
    assert_eq!(shown, expected);
    assert_eq!(with_callers[1].callers.as_deref(), Some(&[][..]));
    assert!(tables(&lines::LineSelection::default())[0].callers.is_none());
    let text = plain(|out| lines_text::write_function(out, &with_callers[0], &lines_text::Shape::default()));
    assert!(text.contains("2.0 KiB allocated,       1000 B increment  app::work  src/main.rs:24"), "{text}");
}

#[test]
fn tables_are_in_the_requested_order_without_the_small_ones() {
    let (profile, stacks) = recording();
    let names = |selection: lines::LineSelection| {
        let tables =
            lines::lines(&profile, &stacks, &SourcesInMemory::default(), &Filter::default(), &selection);
        let names = tables.functions.iter().map(|table| table.function.clone()).collect::<Vec<_>>();
        (names.join(" "), tables.omitted)
    };
    let default = lines::LineSelection::default;
    assert_eq!(names(default()).0, "app::work app::main");
    let by = |sort| lines::LineSelection { sort: Some(sort), ..default() };
    assert_eq!(names(by(TableOrder::FunctionName)).0, "app::main app::work");
    assert_eq!(
        names(lines::LineSelection { top: Some(1), ..by(TableOrder::FunctionName) }),
        ("app::main".to_owned(), 1)
    );
    // The largest increment of a line is 3000 in `work` and 2000 in `main`.
    let least = |min_increment| names(lines::LineSelection { min_increment, ..default() });
    assert_eq!(least(3000), ("app::work".to_owned(), 0));
    assert_eq!(least(3001), (String::new(), 0));
}

#[test]
fn a_requested_unit_and_precision_apply_to_all_sizes() {
    let (profile, stacks) = recording();
    let sources = SourcesInMemory::from_texts([("/app/src/main.rs", SOURCE)]);
    let only = Filter { function: Some(Pattern::new("app::work")), ..Filter::default() };
    let tables = lines::lines(&profile, &stacks, &sources, &only, &lines::LineSelection::default());
    let columns = vec![OptionalColumn::from_str("live", false).unwrap()];
    let shape = lines_text::Shape { columns, unit: Some(SizeUnit::KiB), precision: 3, ..Default::default() };
    let text = plain(|out| lines_text::write(out, &tables, &shape));
    // 3000 bytes are 2.9296875 KiB, and 2000 bytes are 1.953125 KiB.
    let line = text.lines().find(|line| line.contains("vec![")).unwrap();
    assert!(line.contains("    2.930 KiB    2.930 KiB            3    1.953 KiB   "), "{line}");
}

#[test]
fn line_tables_have_the_columns_of_memory_profiler() {
    let (profile, stacks) = recording();
    let sources = SourcesInMemory::from_texts([("/app/src/main.rs", SOURCE)]);
    let only = Filter { function: Some(Pattern::new("app::work")), ..Filter::default() };
    let tables = lines::lines(&profile, &stacks, &sources, &only, &lines::LineSelection::default());
    insta::assert_snapshot!(plain(|out| lines_text::write(out, &tables, &lines_text::Shape::default())), @r"
    Filename: src/main.rs
    Function: app::work
    Source:   recorded stacks (Occurrences counts heap events, not executions)

    Line #    Mem usage    Increment  Occurrences   Line Contents
    =============================================================
        20                                          fn work(n: u32) {
        21      2.9 KiB      2.9 KiB            3       let a = vec![0u8; 1000];
        22
        23                                              if n > 0 {
        24                                                  work(n - 1);
        25                                              }
        26      2.0 KiB     -1.0 KiB            1   } // end
                             2.0 KiB                sum: 3,000 B allocated, 1,000 B freed
    ");
}

#[test]
fn a_table_notes_that_other_code_freed_what_the_function_allocated() {
    let (mut profile, stacks) = recording();
    let first = StackId::FIRST.0 as usize;
    profile.stacks[first].allocated = 200_000;
    let sources = SourcesInMemory::from_texts([("/app/src/main.rs", SOURCE)]);
    let only = Filter { function: Some(Pattern::new("app::work")), ..Filter::default() };
    let tables = lines::lines(&profile, &stacks, &sources, &only, &lines::LineSelection::default());
    let text = plain(|out| lines_text::write(out, &tables, &lines_text::Shape::default()));
    // 200,000 + 2,000 - 1,000 bytes are 196.29 KiB; two blocks of 1,000 bytes are live.
    let note = "Note:     of the increment of 196.3 KiB, 2.0 KiB are live at the end; other code freed or reallocated the rest\n";
    assert!(text.contains(note), "{text}");
}

#[test]
fn leaks_are_merged_by_the_users_own_frames() {
    let (profile, stacks) = recording();
    let report = leaks::leaks(&profile, &stacks, &Filter::default(), LeakSelection::default());
    assert_eq!((report.total_bytes, report.total_blocks, report.leaks.len()), (2048, 4, 1));
    assert_eq!((report.runtime_bytes, report.runtime_blocks), (48, 2));
    assert_eq!((&*report.leaks[0].function, report.source_root.as_deref()), ("app::work", Some("/app")));
    insta::assert_snapshot!(plain(|out| leaks_text::write(out, &report, &LeaksShape::default())), @r"
    Live at the end: 2.0 KiB (2,048 B) in 4 blocks

      1. 2.0 KiB (2,000 B), 97.7 %, in 2 blocks at src/main.rs:21
         first after 0.100 ms, last after 1.500 s
         1000 B in 1 block:
           app::work  src/main.rs:21
           app::main  src/main.rs:11
         1000 B in 1 block:
           app::work  src/main.rs:21
           app::work  src/main.rs:24
           app::main  src/main.rs:11

    The runtime keeps 48 B in 2 blocks; --full lists them.

    Without a snapshot it is not known what holds these blocks, or whether anything does: `run --snapshot-at-end` or `profiler-cli snapshot PID` takes one.
    ");
    let full = LeakSelection { folding: Folding::None, top: Some(1), ..LeakSelection::default() };
    let top = leaks::leaks(&profile, &stacks, &Filter::default(), full);
    assert_eq!((top.total_bytes, top.runtime_bytes, top.leaks.len(), top.omitted), (2048, 0, 1, 1));
    let only = Filter { function: Some(Pattern::new("std::thread*")), ..Filter::default() };
    let of_runtime = leaks::leaks(&profile, &stacks, &only, LeakSelection::default());
    assert_eq!((of_runtime.total_bytes, of_runtime.leaks.len()), (48, 0));
    assert_eq!(
        plain(|out| leaks_text::write(out, &of_runtime, &LeaksShape::default())),
        "Nothing of the program's own is live at the end. The runtime keeps 48 B in 2 blocks; --full lists them.\n"
    );
}

#[test]
fn the_summary_shows_totals_and_top_sites_and_warns_of_losses() {
    let (profile, stacks) = recording();
    let summary = summary::summary(&profile, &stacks, &Filter::default(), 3);
    insta::assert_snapshot!(plain(|out| summary_text::write(out, &summary, TextWidth::default())), @r"
    app 'a b'  pid 7
    complete and exact: no event lost, no stack cut off

      duration       2.500 s
      peak           2.9 KiB (3,000 B) in 3 blocks after 2.000 s
      live at end    2.0 KiB (2,048 B) in 4 blocks
      allocations    3 (2.9 KiB with reallocations)
      reallocations  0
      deallocations  1 (1000 B)
      temporary      1 (33.3 % of allocations were freed at once)
      threads        1, 3 distinct stacks
      trust          0 events lost, 0 stacks truncated, 0 frames unresolved; finished

    Top sites by live bytes at the peak
         2.9 KiB  100.0 %        3 blocks  app::work  src/main.rs:21

    Top sites by bytes allocated
         2.9 KiB  100.0 %         3 times  app::work  src/main.rs:21

    Top sites by allocations
               3  100.0 %          1 temporary  app::work  src/main.rs:21

    Allocation sizes
      up to    1.0 KiB             3  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇
    ");
    let mut broken = profile;
    broken.trust.lost_events = 2;
    let summary = summary::summary(&broken, &stacks, &Filter::default(), 3);
    assert!(summary.complete && !summary.exact && summary.warnings[0].starts_with("2 events lost"));
    broken.trust.end = None;
    let text = plain(|out| {
        summary_text::write(
            out,
            &summary::summary(&broken, &stacks, &Filter::default(), 3),
            TextWidth::default(),
        )
    });
    assert!(text.contains("NOT COMPLETE") && text.contains("the recording has no end"), "{text}");
}

#[test]
fn flames_have_the_weights_of_their_metric() {
    let (profile, stacks) = recording();
    let weigh = |metric, folding| flame::flame(&profile, &stacks, &Filter::default(), metric, folding, None);
    let live = weigh(flame::Metric::Live, Folding::Runtime);
    let rows: Vec<(String, u64)> = live
        .stacks
        .iter()
        .map(|(frames, weight)| (live.labels_of(frames).collect::<Vec<_>>().join(" < "), *weight))
        .collect();
    assert_eq!(
        rows,
        [
            ("app::main (main.rs:11) < app::work (main.rs:21)".to_owned(), 1000),
            ("app::main (main.rs:11) < app::work (main.rs:24) < app::work (main.rs:21)".to_owned(), 1000),
            ("std::thread::start (vec.rs:2)".to_owned(), 48),
        ]
    );
    let widest =
        flame::flame(&profile, &stacks, &Filter::default(), flame::Metric::Live, Folding::Runtime, Some(1));
    let (others, weight) = widest.stacks.last().unwrap();
    assert_eq!(widest.labels_of(others).collect::<Vec<_>>(), ["(2 other stacks)"]);
    assert_eq!((widest.total, *weight), (2048, 1048));
    assert_eq!((live.total, weigh(flame::Metric::Allocated, Folding::Runtime).total), (2048, 3000));
    assert_eq!(weigh(flame::Metric::Temporary, Folding::Runtime).total, 1);
    let full = weigh(flame::Metric::Peak, Folding::None);
    let outermost =
        |(frames, _): &(Vec<u32>, u64)| full.labels_of(frames).next().unwrap().starts_with("std::rt");
    assert!(full.stacks.iter().all(outermost));
    // A recursion of 5000 frames is shown once. With all frames it is cut, since no picture could
    // show it: 80 outer and 80 inner frames stay, and one frame between them stands for the rest.
    let mut deep: Vec<NamedFrame> = (0..5000).map(|_| frame("app::work", 24)).collect();
    deep.push(frame("app::main", 11));
    let mut profile = profile;
    profile.stacks.truncate(StackId::FIRST.0 as usize + 1);
    let stacks = Stacks::from_frames(&[deep]);
    let weigh =
        |folding| flame::flame(&profile, &stacks, &Filter::default(), flame::Metric::Live, folding, None);
    let once = weigh(Folding::Runtime);
    let labels: Vec<&str> = once.labels_of(&once.stacks[0].0).collect();
    assert_eq!(labels, ["app::main (main.rs:11)", "app::work (main.rs:24) (recursive)"]);
    let cut = weigh(Folding::None);
    let labels: Vec<&str> = cut.labels_of(&cut.stacks[0].0).collect();
    assert_eq!((labels.len(), labels[0], labels[80]), (161, "app::main (main.rs:11)", "(… more frames …)"));
}

/// Each of 100,000 stacks has all frames of the stack before it and one more call. An analysis that
/// made the stacks one by one would handle 5,000,000,000 frames and not end in the time of a test.
#[test]
fn a_recursion_of_a_hundred_thousand_frames_is_analyzed_exactly() {
    const DEPTH: u32 = 100_000;
    let first = StackId::FIRST.0;
    // The calls at line 24 are nested in each other, and each has an allocation at line 21.
    let nodes = (0..DEPTH).flat_map(|at| {
        let caller = if at == 0 { StackId::ROOT } else { StackId(first + 2 * (at - 1)) };
        [(caller, vec![frame("app::work", 24)]), (StackId(first + 2 * at), vec![frame("app::work", 21)])]
    });
    let stacks = Stacks::from_tree(nodes);
    let mut stats = vec![StackStats::default(); (first + 2 * DEPTH) as usize];
    for at in 0..DEPTH {
        let bytes = u64::from(at) + 1;
        stats[(first + 2 * at) as usize + 1] = StackStats {
            allocations: 1,
            allocated: bytes,
            live_bytes: bytes,
            live_blocks: 1,
            ..StackStats::default()
        };
    }
    let profile = Profile { stacks: stats, ..Profile::default() };
    let sum = u64::from(DEPTH) * (u64::from(DEPTH) + 1) / 2;

    let tables = lines::lines(
        &profile,
        &stacks,
        &SourcesInMemory::default(),
        &Filter::default(),
        &lines::LineSelection::default(),
    );
    let [table] = &tables.functions[..] else { panic!("one function: {tables:?}") };
    let with_events: Vec<_> = table.lines.iter().filter(|row| row.occurrences.is_some()).collect();
    assert_eq!(with_events.len(), 1);
    let row = with_events[0];
    assert_eq!((row.line, row.occurrences, row.allocated), (21, Some(u64::from(DEPTH)), Some(sum)));

    let only = Filter { function: Some(Pattern::new("app::work")), ..Filter::default() };
    let leaks = |folding, whole_stacks| {
        let selection = LeakSelection {
            folding,
            top: Some(2),
            stacks: Some(2),
            whole_stacks,
            ..LeakSelection::default()
        };
        leaks::leaks(&profile, &stacks, &only, selection)
    };
    let report = leaks(Folding::None, false);
    assert_eq!((report.total_bytes, report.leaks.len(), report.omitted), (sum, 1, 0));
    let site = &report.leaks[0];
    assert_eq!((site.bytes, site.stack_count, site.stacks.len()), (sum, u64::from(DEPTH), 2));
    let deepest = &site.stacks[0];
    assert_eq!((deepest.bytes, deepest.frames.len()), (u64::from(DEPTH), 1000));
    assert_eq!(deepest.omitted_frames, DEPTH as usize + 1 - 1000);
    let text = |report: &leaks::Leaks, whole_stacks| {
        let shape = LeaksShape { whole_stacks, ..LeaksShape::default() };
        let text = plain(|out| leaks_text::write(out, report, &shape));
        (text.matches("       app::").count(), text.contains("between"))
    };
    // 20 frames of the leaf end and 4 of the root end, of two stacks.
    assert_eq!(text(&report, false), (2 * 24, true));
    // The two deepest stacks, whole: with `main` they have one frame more than calls.
    let whole = leaks(Folding::None, true);
    assert_eq!(
        (whole.leaks[0].stacks[0].frames.len(), whole.leaks[0].stacks[0].omitted_frames),
        (DEPTH as usize + 1, 0)
    );
    assert_eq!(text(&whole, true), (2 * DEPTH as usize + 1, false));
    // If the recursion is shown once, all stacks are alike.
    let report = leaks(Folding::Runtime, false);
    let [stack] = &report.leaks[0].stacks[..] else { panic!("one stack: {report:?}") };
    assert_eq!((stack.bytes, &stack.fewest[..], &stack.times[..]), (sum, &[1, 1][..], &[1, DEPTH][..]));
    assert_eq!(report.frames.len(), 2);

    let flame = flame::flame(&profile, &stacks, &only, flame::Metric::Live, Folding::None, None);
    assert_eq!(flame.total, sum);
    // Stacks of 2 to 160 frames stay separate. All longer ones become equal when they are cut.
    assert_eq!(flame.stacks.len(), 160);
    let flame = flame::flame(&profile, &stacks, &only, flame::Metric::Live, Folding::Runtime, None);
    assert_eq!((flame.total, flame.stacks.len()), (sum, 1));
}

/// A thousand stacks with a block each: none of them is large, and their site is.
#[test]
fn a_site_whose_stacks_are_all_small_is_shown() {
    const STACKS: u32 = 1000;
    let first = StackId::FIRST.0;
    // Each stack has a caller at another line.
    let stack = |at: u32| vec![frame("app::leaf", 3), frame("app::fork", 100 + at), frame("app::main", 11)];
    let stacks = Stacks::from_frames(&(0..STACKS).map(stack).collect::<Vec<_>>());
    let mut profile = Profile {
        nodes: vec![Default::default(); (first + STACKS) as usize],
        stacks: vec![StackStats::default(); (first + STACKS) as usize],
        ..recording().0
    };
    for stats in &mut profile.stacks[first as usize..] {
        *stats = StackStats { live_bytes: 16, live_blocks: 1, ..StackStats::default() };
    }
    let selection = LeakSelection { stacks: Some(3), ..LeakSelection::default() };
    let report = leaks::leaks(&profile, &stacks, &Filter::default(), selection);
    let [site] = &report.leaks[..] else { panic!("one site: {report:?}") };
    assert_eq!((&*site.function, site.line), ("app::leaf", Some(3)));
    assert_eq!((site.bytes, site.blocks, site.stack_count, site.stacks.len()), (16_000, 1000, 1000, 3));
    let text = plain(|out| leaks_text::write(out, &report, &LeaksShape::default()));
    assert!(text.contains("1. 15.6 KiB (16,000 B), 100.0 %, in 1,000 blocks at src/main.rs:3"), "{text}");
    // The other stacks have 997 times 16 bytes.
    assert!(text.contains("997 more stacks with 15.6 KiB"), "{text}");
}

#[test]
fn the_summary_tells_of_stacks_that_were_verified_in_part() {
    let (mut profile, stacks) = recording();
    let text = |profile: &Profile| {
        let summary = summary::summary(profile, &stacks, &Filter::default(), 5);
        assert_eq!(summary.partly_verified_stacks, profile.trust.partly_verified_stacks);
        plain(|out| summary_text::write(out, &summary, TextWidth::default()))
    };
    assert!(!text(&profile).contains("in part"));
    profile.trust.partly_verified_stacks = 92_000;
    assert!(text(&profile).contains("92,000 very deep stacks in part only"), "{}", text(&profile));
}
