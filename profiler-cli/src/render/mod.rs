//! Renderers: pure functions from an analysis to text, JSON, HTML or SVG. One file for each output format.

mod escape;
pub mod flame_svg;
mod html;
pub mod json;
pub mod leaks_text;
pub mod lines_csv;
pub mod lines_html;
pub mod lines_memory_profiler;
pub mod lines_text;
pub mod plot;
pub mod summary_text;
pub mod timeline_csv;
pub mod timeline_svg;
pub mod timeline_text;

use std::io;

use anstyle::{AnsiColor, Style};

use crate::analyze::lines::Lines;

/// Headings.
const HEADING: Style = Style::new().bold();
/// Growth, and what somebody should look at.
const GROWTH: Style = AnsiColor::Red.on_default();
/// Release, and what is well.
const RELEASE: Style = AnsiColor::Green.on_default();
/// What only gives context.
const FAINT: Style = Style::new().dimmed();

/// What stands below the first so many of all marks: nothing if there are no more.
fn marks_left_out(shown: usize, all: usize, dropped: u64) -> Option<String> {
    let left_out = all.saturating_sub(shown) as u64 + dropped;
    let where_they_are = if dropped > 0 { "; the last ones are not kept" } else { "; --json has all" };
    (left_out > 0).then(|| format!("  … {}{where_they_are}", crate::units::more(left_out, "mark")))
}

/// Why there is no table.
fn no_function(lines: &Lines) -> &'static str {
    if lines.filtered {
        "No function that the filter lets through has heap events."
    } else {
        "No function of the program's own has heap events."
    }
}

/// `file.rs:12`, or the function's module where there is no file.
fn place(file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!("{}:{line}", shortened(file)),
        (Some(file), None) => shortened(file).to_owned(),
        (None, _) => String::new(),
    }
}

/// A source path without what is the same for everybody: the registry's folder, the compiler's.
fn shortened(file: &str) -> &str {
    if let Some(at) = file.find("/registry/src/") {
        let rest = &file[at + "/registry/src/".len()..];
        return rest.split_once('/').map_or(rest, |(_, path)| path);
    }
    if let Some(rest) = file.strip_prefix("/rustc/") {
        return rest.split_once('/').map_or(rest, |(_, path)| path);
    }
    file
}

/// What went wrong below, so that a reader that has gone away is known as one.
fn csv_cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_everybody_knows() {
        assert_eq!(
            shortened("/home/a/.cargo/registry/src/index-1/syn-3.0.1/src/lib.rs"),
            "syn-3.0.1/src/lib.rs"
        );
        assert_eq!(shortened("/rustc/0123/library/alloc/src/vec/mod.rs"), "library/alloc/src/vec/mod.rs");
        assert_eq!(place(Some("/srv/app/main.rs"), Some(3)), "/srv/app/main.rs:3");
    }
}
