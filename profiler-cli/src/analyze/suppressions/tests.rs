use super::*;
use crate::analyze::filter::Filter;
use crate::analyze::leaks::{LeakSelection, Leaks, leaks};
use crate::profile::{CallNode, GrownBlocks, Module, StackStats};
use crate::source::{SourceText, SourcesInMemory};
use std::sync::Arc;

const SOURCE: &str = "\
fn keep() {
    // leak: ok because the table lives as long as the process
    TABLE.set(vec![1]);
    LIST.set(vec![1]); // leak: ok
    vec![1].leak();
}
";

fn own(function: &str, line: u32) -> NamedFrame {
    NamedFrame {
        function: function.into(),
        file: Some("/w/src/main.rs".into()),
        line: Some(line),
        is_inlined: false,
        owner: CodeOwner::Own,
        module: "app".into(),
    }
}

fn runtime(function: &str) -> NamedFrame {
    NamedFrame { file: None, line: None, owner: CodeOwner::Runtime, ..own(function, 0) }
}

/// A recording in which the stack at index i holds one block of 2 to the power of i bytes, so that
/// every sum says which stacks it counts. All code is in the module `/lib/app`.
fn recording(stacks: &[Vec<NamedFrame>]) -> (Profile, Stacks) {
    let first = StackId::FIRST.0 as usize;
    let mut profile = Profile {
        modules: vec![Module { path: "/lib/app".into(), ..Module::default() }],
        nodes: vec![CallNode { module: Some(0), ..CallNode::default() }; first + stacks.len()],
        stacks: vec![StackStats::default(); first],
        ..Profile::default()
    };
    profile.stacks.extend((0..stacks.len()).map(|at| StackStats {
        allocations: 1,
        live_bytes: 1 << at,
        live_blocks: 1,
        ..StackStats::default()
    }));
    profile.process.cwd = "/w".into();
    (profile, Stacks::from_frames(stacks))
}

fn sources() -> SourcesInMemory {
    SourcesInMemory::from_texts([("/w/src/main.rs", SOURCE)])
}

fn report(
    (profile, stacks): &(Profile, Stacks),
    file: &str,
    with_defaults: bool,
    files: &dyn Sources,
) -> Leaks {
    let mut suppressions = Suppressions { with_defaults, ..Suppressions::default() };
    suppressions.add_file("leaks.supp", file).unwrap();
    let found = suppressions.apply(profile, stacks, files);
    let selection = LeakSelection { suppressed: Some(&found), ..LeakSelection::default() };
    leaks(profile, stacks, &Filter::default(), selection)
}

/// Returns for each suppression its text and the bytes that it matched.
fn matched(leaks: &Leaks) -> Vec<(&str, u64)> {
    leaks.suppressed.patterns.iter().map(|pattern| (&*pattern.pattern, pattern.bytes)).collect()
}

#[test]
fn a_pattern_matches_function_file_or_module_of_any_frame() {
    let recording = recording(&[
        vec![own("app::leaf", 5), own("app::cache", 8), own("app::main", 9)],
        vec![own("app::other", 5), own("app::main", 9)],
        vec![NamedFrame { file: Some("/v/zlib/deflate.c".into()), ..own("deflate", 7) }, own("app::main", 9)],
    ]);
    for (pattern, bytes) in [
        ("cache", 1),
        ("app::main", 7),
        ("^app::other$", 2),
        ("deflate.c", 4),
        ("zlib/*.c$", 4),
        ("^zlib", 0),
        ("/lib/app", 7),
        ("lib/app$", 7),
        ("Cache", 0),
    ] {
        let report = report(&recording, &format!("leak:{pattern}\n"), false, &SourcesInMemory::default());
        assert_eq!(report.suppressed.bytes, bytes, "{pattern}");
        assert_eq!(report.suppressed.blocks, u64::from(bytes.count_ones()), "{pattern}");
        assert_eq!(report.total_bytes, 7 - bytes, "{pattern}");
        let rows: u64 = report.leaks.iter().map(|leak| leak.bytes).sum();
        assert_eq!(rows, report.total_bytes, "{pattern}");
    }
}

#[test]
fn the_innermost_frame_decides_and_then_the_first_pattern() {
    let recording = recording(&[
        vec![own("app::leaf", 5), own("app::main", 9)],
        vec![own("app::main", 9)],
        // Its file is main.rs. The function of a frame is compared first, then its file.
        vec![own("app::start", 1)],
    ]);
    let report = report(&recording, "leak:main\nleak:leaf\nleak:app::l\nleak:nothing\n", false, &sources());
    let expected = [("leak:main", 2 + 4), ("leak:leaf", 1), ("leak:app::l", 0), ("leak:nothing", 0)];
    assert_eq!(matched(&report), expected);
    let sources: Vec<&str> = report.suppressed.patterns.iter().map(|pattern| &*pattern.source).collect();
    assert_eq!(sources, ["leaks.supp:1", "leaks.supp:2", "leaks.supp:3", "leaks.supp:4"]);
}

#[test]
fn files_are_parsed_as_by_leak_sanitizer() {
    let mut suppressions = Suppressions::default();
    suppressions.add_file("a", "# a comment\n\n  leak:one two  \r\n\t# another\nleak:x # y\n").unwrap();
    let texts: Vec<&str> = suppressions.patterns.iter().map(|(pattern, _)| pattern.text()).collect();
    assert_eq!(texts, ["one two", "x # y"]);
    let sources: Vec<&str> = suppressions.patterns.iter().map(|(_, rule)| &*rule.source).collect();
    assert_eq!(sources, ["a:3", "a:5"]);
}

#[test]
fn a_bad_line_is_named() {
    let problem = |text: &str| Suppressions::default().add_file("my.supp", text).unwrap_err().to_string();
    let expected = "my.supp:2: this is no suppression: give leak:PATTERN, or a # comment";
    for text in ["leak:a\nrace:b\n", "\nleak\n", "#\n{\n", "leak:a\nLEAK:a", "\nleak :a"] {
        assert_eq!(problem(text), expected, "{text}");
    }
    assert!(problem("leak:").starts_with("my.supp:1: there is no pattern after leak:"));
    let long = format!("leak:{}", "*".repeat(LONGEST_PATTERN + 1));
    assert!(problem(&long).ends_with("longer than 1,000 bytes"));
    let many = "leak:a\n".repeat(MAX_PATTERNS + 1);
    assert_eq!(problem(&many), "my.supp:2001: there are more than 2,000 suppressions");
}

#[test]
fn a_comment_with_a_reason_suppresses_its_site() {
    let alloc = || runtime("alloc::vec::Vec<T>::new");
    let recording = recording(&[
        vec![alloc(), own("app::keep", 3), own("app::main", 9)],
        vec![alloc(), own("app::keep", 4), own("app::main", 9)],
        vec![alloc(), own("app::keep", 5), own("app::main", 9)],
        // The comment is at a caller of the site.
        vec![alloc(), own("app::make", 6), own("app::keep", 3), own("app::main", 9)],
    ]);
    let report = report(&recording, "", false, &sources());
    assert_eq!(matched(&report), [("leak: ok because the table lives as long as the process", 1)]);
    assert_eq!(report.suppressed.patterns[0].source, "src/main.rs:3");
    assert_eq!((report.total_bytes, report.total_blocks), (2 + 4 + 8, 3));
    let warning = "src/main.rs:4: the comment 'leak: ok' does not count without a reason: write // leak: ok because ...";
    assert_eq!(report.suppressed.warnings, [warning]);
    let json = serde_json::to_value(&report.suppressed).unwrap();
    assert_eq!(json["patterns"][0]["kind"], "comment");
}

/// A file that is newer than the program may have its comments at other sites.
struct ChangedFile;

impl Sources for ChangedFile {
    fn file(&self, _path: &str) -> Arc<SourceText> {
        Arc::new(SourceText::parse(SOURCE).with_newer_than_program(true))
    }
}

#[test]
fn a_comment_of_a_changed_file_does_not_count() {
    let recording = recording(&[vec![own("app::keep", 3)]]);
    let changed = report(&recording, "", false, &ChangedFile);
    assert_eq!((changed.total_bytes, changed.suppressed.blocks), (1, 0));
    let warning = &changed.suppressed.warnings[0];
    assert!(
        warning.starts_with(
            "src/main.rs:3: the comment 'leak: ok' does not count, because the file was changed"
        )
    );
    let missing = report(&recording, "", false, &SourcesInMemory::default());
    assert_eq!((missing.total_bytes, missing.suppressed.warnings.len()), (1, 0));
}

#[test]
fn the_default_list_suppresses_the_runtime_and_nobody_else() {
    let start = || runtime("std::rt::lang_start_internal");
    let recording = recording(&[
        // 1: the runtime alone.
        vec![
            runtime("alloc::alloc::alloc"),
            runtime("std::sys::pal::unix::stack_overflow::imp::init"),
            start(),
        ],
        // 2: the program below `lang_start`.
        vec![runtime("alloc::alloc::alloc"), own("app::main", 9), start()],
        // 4: what an own `Display` allocates below `stdout`.
        vec![own("app::show", 3), runtime("std::io::stdio::stdout"), own("app::main", 9), start()],
        // 8: the buffer of `stdout`, below code of the user.
        vec![runtime("std::io::stdio::stdout"), own("app::main", 9), start()],
        // 16: a function of the user with such a name.
        vec![own("std::io::stdio::stdout", 3), own("app::main", 9), start()],
        // 32: the runtime, in a function that is not on the list.
        vec![runtime("std::ffi::os_str::OsString::push"), own("app::main", 9), start()],
    ]);
    let none = SourcesInMemory::default();
    let with = report(&recording, "", true, &none);
    assert_eq!((with.suppressed.bytes, with.total_bytes), (1 + 8, 2 + 4 + 16 + 32));
    assert!(
        with.suppressed.patterns.iter().all(|pattern| pattern.source == "default" && !pattern.is_unused())
    );
    let without = report(&recording, "", false, &none);
    assert_eq!((without.suppressed.bytes, without.total_bytes), (0, 63));
    // A pattern of a file comes first.
    let both = report(&recording, "leak:app::main\n", true, &none);
    let expected = [("leak:app::main", 62), ("leak:^std::sys::*stack_overflow::", 1)];
    assert_eq!(matched(&both), expected);
}

#[test]
fn code_of_the_user_that_was_inlined_into_the_runtime_is_not_the_runtime() {
    let begin = || runtime("std::sys::backtrace::__rust_begin_short_backtrace");
    let recording = recording(&[
        // 1: `main` has no frame, because the program has no debug info.
        vec![runtime("alloc::alloc::alloc"), begin(), runtime("std::rt::lang_start::{closure}")],
        // 2: the same for a test.
        vec![runtime("alloc::alloc::alloc"), begin(), runtime("test::run_test")],
    ]);
    let report = report(&recording, "", true, &SourcesInMemory::default());
    assert_eq!((report.suppressed.bytes, report.total_bytes), (0, 3));
}

#[test]
fn packages_in_std_belong_to_it_only_where_it_reads_symbols() {
    let package = || NamedFrame { owner: CodeOwner::Dependency, ..runtime("gimli::read::abbrev::insert") };
    let cache = || runtime("<std::backtrace_rs::symbolize::gimli::Cache>::mapping_for_lib");
    let recording = recording(&[
        vec![runtime("alloc::alloc::alloc"), package(), cache(), own("app::main", 9)],
        vec![runtime("alloc::alloc::alloc"), package(), own("app::main", 9)],
        vec![
            runtime("alloc::alloc::alloc"),
            package(),
            runtime("std::io::stdio::stdout"),
            own("app::main", 9),
        ],
        vec![own("app::hook", 3), cache(), own("app::main", 9)],
    ]);
    let report = report(&recording, "", true, &SourcesInMemory::default());
    assert_eq!((report.suppressed.bytes, report.total_bytes), (1, 2 + 4 + 8));
}

#[test]
fn symbols_that_a_failed_check_has_read_are_suppressed() {
    let package = || NamedFrame { owner: CodeOwner::Dependency, ..runtime("gimli::read::abbrev::insert") };
    let report_of =
        |name| vec![runtime("alloc::alloc::alloc"), package(), own(name, 7), own("app::tests::t", 9)];
    let recording = recording(&[
        report_of("<alloc_tracker::api::leak_report::LeakReport>::of"),
        report_of("alloc_tracker::api::leak_check::assert_no_leaks"),
    ]);
    let report = report(&recording, "", true, &SourcesInMemory::default());
    assert_eq!((report.suppressed.bytes, report.total_bytes), (1, 2));
}

#[test]
fn growth_of_older_blocks_is_suppressed_as_well() {
    let mut recording = recording(&[vec![own("app::cache", 8)], vec![own("app::main", 9)]]);
    for (at, bytes) in [(0, 100), (1, 50)] {
        let stack = StackId(StackId::FIRST.0 + at);
        recording.0.grown.insert(stack, GrownBlocks { bytes, blocks: 1, ..GrownBlocks::default() });
    }
    let report = report(&recording, "leak:cache\n", true, &SourcesInMemory::default());
    assert_eq!((report.suppressed.grown_bytes, report.suppressed.grown_blocks), (100, 1));
    assert_eq!((report.grown_bytes, report.grown_blocks), (50, 1));
}

/// The share of a row is its part of what all rows and the runtime hold.
#[test]
fn shares_are_parts_of_what_is_not_suppressed() {
    let recording = recording(&[vec![own("app::a", 1)], vec![own("app::b", 2)], vec![own("app::c", 3)]]);
    let shares = |file: &str| {
        let report = report(&recording, file, false, &SourcesInMemory::default());
        report.leaks.iter().map(|leak| leak.share).collect::<Vec<f64>>()
    };
    assert_eq!(shares(""), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0]);
    assert_eq!(shares("leak:app::c"), [2.0 / 3.0, 1.0 / 3.0]);
    assert_eq!(shares("leak:app"), [0.0; 0]);
}
