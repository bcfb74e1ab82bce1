//! Outputs are written in folders of their own, with the variables of a made job.

use clap::Parser;

use super::*;
use crate::analyze::review::{Finding, Rule, Severity};

#[derive(Debug, Parser)]
struct AnyCommand {
    #[command(flatten)]
    emit: EmitArgs,
}

fn parse(options: &[&str]) -> Result<EmitArgs, String> {
    let options = std::iter::once("profiler").chain(options.iter().copied());
    AnyCommand::try_parse_from(options).map(|parsed| parsed.emit).map_err(|error| error.to_string())
}

fn emit(format: &str, file: &std::path::Path) -> EmitArgs {
    parse(&["--emit", &format!("{format}={}", file.display())]).unwrap()
}

fn review(functions: usize) -> Review {
    let finding = |number: usize| Finding {
        severity: Severity::Warning,
        rule: Rule::Grown,
        function: format!("app::f{number}"),
        file: Some("src/lib.rs".to_owned()),
        line: Some(7),
        message: "Peak 1 B -> 2 B".to_owned(),
        figures: Vec::new(),
        stack: Vec::new(),
    };
    Review { title: "Heap".to_owned(), findings: (0..functions).map(finding).collect(), ..Review::default() }
}

fn error(result: Result<(), Failure>) -> String {
    match result {
        Err(Failure::Input(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_format_is_parsed_with_a_file_and_without() {
    for format in EmittedFormat::ALL {
        let args = parse(&["--emit", format.name(), "--emit", &format!("{format}=a=b")]).unwrap();
        let expected = [None, Some(PathBuf::from("a=b"))].map(|file| EmittedOutput { format, file });
        assert_eq!(args.emit, expected);
    }
    assert_eq!(parse(&["--emit", "junit=-"]).unwrap().emit[0].file, None);
}

#[test]
fn mistakes_are_named_with_the_way_out() {
    let message = |options: &[&str]| parse(options).unwrap_err();
    assert!(message(&["--emit", "mardown"]).contains("did you mean markdown?"));
    assert!(message(&["--emit", "sarfi=x"]).contains("did you mean sarif?"));
    assert!(message(&["--emit", "markdown="]).contains("no file after markdown="));
    assert!(message(&["--emit", ""]).contains("give one of the formats markdown, "));
    assert!(message(&["--emit", "junit", "--link-base", "example.org"]).contains("begins with https://"));
    assert!(message(&["--link-base", "https://example.org"]).contains("--emit"));
}

#[test]
fn each_format_has_its_own_contents() {
    let folder = tempfile::tempdir().unwrap();
    let beginnings = [
        "<!-- alloc-tracker -->",
        "::warning file=src/lib.rs,line=7,",
        "<?xml ",
        "{\n  \"$schema\": ",
        "[\n  {\n    \"name\": \"Heap: ",
        "{\n  \"Heap\": {",
        "[\n  {\n    \"description\": ",
    ];
    for (format, beginning) in EmittedFormat::ALL.into_iter().zip(beginnings) {
        let file = folder.path().join("new").join(format.name());
        emit(format.name(), &file).write_in(&review(1), &JobVariables::default()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(beginning), "{format}: {text}");
    }
}

#[test]
fn lines_are_linked_with_the_option_before_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out");
    let job =
        JobVariables { link_base: Some("https://job.org/blob/1".to_owned()), ..JobVariables::default() };
    let text = |args: EmitArgs| {
        args.write_in(&review(1), &job).unwrap();
        std::fs::read_to_string(&file).unwrap()
    };
    assert!(text(emit("markdown", &file)).contains("(<https://job.org/blob/1/src/lib.rs#L7>)"));
    let mut with_option = emit("markdown", &file);
    with_option.link_base = Some("https://option.org/".to_owned());
    assert!(text(with_option).contains("(<https://option.org/src/lib.rs#L7>)"));
}

#[test]
fn only_markdown_is_added_to_the_job_summary() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary");
    std::fs::write(&file, "another step").unwrap();
    let job = JobVariables { summary: Some(folder.path().join("./summary")), ..JobVariables::default() };
    for pages in 1..=2 {
        emit("markdown", &file).write_in(&review(1), &job).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("another step\n<!-- alloc-tracker -->\n"), "{text}");
        assert_eq!(text.matches("<!-- alloc-tracker -->\n").count(), pages);
    }
    // Another file is replaced, by a page as large as a comment.
    let other = folder.path().join("comment");
    std::fs::write(&other, "old").unwrap();
    emit("markdown", &other).write_in(&review(2000), &job).unwrap();
    let text = std::fs::read_to_string(&other).unwrap();
    assert!(text.starts_with("<!--") && text.contains("a comment may have 65,536 characters"));
    emit("junit", &file).write_in(&review(1), &job).unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("<?xml "));
}

#[test]
fn a_job_summary_never_becomes_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary");
    let job = JobVariables { summary: Some(file.clone()), ..JobVariables::default() };
    for used in [0, 900_000, 999_990, 2_000_000] {
        std::fs::write(&file, "x".repeat(used)).unwrap();
        emit("markdown", &file).write_in(&review(20_000), &job).unwrap();
        let size = std::fs::metadata(&file).unwrap().len();
        assert!(size <= 1_000_000.max(used as u64), "{used}: {size}");
        // Only a page without room for its first line is left out.
        assert_eq!(size > used as u64, used < 999_990, "{used}: {size}");
    }
}

#[test]
fn dumps_are_never_replaced_and_no_file_gets_two_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("a.alloc");
    std::fs::write(&dump, [&alloc_dump::layout::MAGIC[..], b"rest"].concat()).unwrap();
    let text = error(emit("sarif", &dump).write_in(&review(1), &JobVariables::default()));
    assert!(text.contains("it is a dump"), "{text}");
    assert!(std::fs::read(&dump).unwrap().ends_with(b"rest"));
    let twice =
        EmitArgs { emit: vec![emit("junit", "x".as_ref()).emit[0].clone(); 2], ..EmitArgs::default() };
    assert!(error(twice.check()).contains("two outputs have the file x"));
}

#[test]
fn an_output_that_fails_does_not_keep_the_others_back() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let mut args = emit("sarif", folder.path());
    args.emit.extend(emit("junit", &good).emit);
    let text = error(args.write_in(&review(1), &JobVariables::default()));
    assert!(text.contains("cannot write"), "{text}");
    assert!(good.exists());
}
