//! Renderers. In: the result of an analysis. Out: text, JSON, CSV, HTML or SVG, one file for each
//! format.
//!
//! Renderers are pure: the same input gives the same bytes. None may read files or print.

pub mod check_text;
pub mod diff_svg;
pub mod diff_text;
mod escape;
pub mod flame_folded;
pub mod flame_svg;
mod frame_text;
mod group_table_text;
mod growth_text;
pub mod holders_text;
mod html;
pub mod json;
pub mod leaks_text;
pub mod lines_csv;
pub mod lines_html;
pub mod lines_memory_profiler;
pub mod lines_text;
pub mod maps_svg;
pub mod maps_text;
mod marks_text;
pub mod peaks_text;
pub mod plot;
pub mod retained_text;
pub mod review;
pub mod summary_text;
mod suppressed_text;
pub mod text_width;
pub mod timeline_csv;
mod timeline_groups_svg;
mod timeline_groups_text;
pub mod timeline_svg;
pub mod timeline_text;
pub mod tree_text;

use std::io;

use anstyle::{AnsiColor, Style};

use crate::analyze::lines::Lines;

/// Style of headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// Style of growth, and of text that needs attention.
pub(crate) const GROWTH: Style = AnsiColor::Red.on_default();
/// Style of released memory, and of good results.
const RELEASE: Style = AnsiColor::Green.on_default();
/// Style of the user's own functions among those of others.
const OWN: Style = AnsiColor::Cyan.on_default();
/// Style of text that only gives context.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Returns the line below a list of the first `shown` of `all` marks. It says how many more there
/// are. `None` if all marks are shown, and `dropped`, the number of marks that the profile lacks,
/// is 0.
fn marks_left_out(shown: usize, all: usize, dropped: u64) -> Option<String> {
    let left_out = all.saturating_sub(shown) as u64 + dropped;
    let where_they_are = if dropped > 0 { "; the last ones are not kept" } else { "; --json has all" };
    (left_out > 0).then(|| format!("  … {}{where_they_are}", crate::units::more(left_out, "mark")))
}

/// Returns a sentence with the reason why there is no table.
fn no_function(lines: &Lines) -> &'static str {
    if lines.filtered {
        "No function that the filter lets through has heap events."
    } else {
        "No function of the program's own has heap events."
    }
}

/// Returns a part of a whole in percent, such as `12.5 %`; `0.0 %` of nothing. What is more than
/// nothing never reads as `0.0 %`.
fn percent(part: u64, whole: u64) -> String {
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    if part > 0 && percent < 0.05 { "<0.1 %".to_owned() } else { format!("{percent:.1} %") }
}

/// Returns `file.rs:12`; empty if the file is not known.
fn source_position(file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.to_owned(),
        (None, _) => String::new(),
    }
}

/// Returns the I/O error that a CSV error contains, so that a closed pipe is still recognised as
/// one.
fn csv_cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
