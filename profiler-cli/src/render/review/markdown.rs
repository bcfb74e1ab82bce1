//! A review as Markdown of GitHub and GitLab, for a comment or a job summary.
//!
//! In: a review and the most that the page may have. Out: one screen with the verdict, the totals
//! and the worst findings; everything else is folded. The first line is a hidden marker, by which a
//! program finds the comment again to update it.

mod escaped;
mod page;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Write};

use self::escaped::{at_most, code, linked_code, prose};
use self::page::LimitedPage;
pub use self::page::MarkdownLimit;
use super::change::{amount, amount_now, change, change_in_percent, main_figure};
use super::place::RepositoryPlace;
use crate::analyze::review::{Finding, Review, ReviewTotal, Severity};
use crate::render::escape::Html;
use crate::render::source_position;
use crate::units::{more, plural};

/// The first line of every page.
pub const MARKER: &str = "<!-- alloc-tracker -->";

/// Number of findings and of notes that are not folded.
const MOST_FINDINGS: usize = 10;
const MOST_NOTES: usize = 3;

/// The most characters of a sentence, and of a name.
const SENTENCE: usize = 1000;
const NAME: usize = 200;

/// The most frames of a stack that are shown.
const MOST_FRAMES: usize = 50;

/// Writes a page that has at most the characters or bytes of `limit`. Writes nothing if not even
/// the verdict fits.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(
    out: &mut dyn Write,
    review: &Review,
    place: &RepositoryPlace,
    limit: MarkdownLimit,
) -> io::Result<()> {
    out.write_all(page_of(review, place, limit).as_bytes())
}

fn page_of(review: &Review, place: &RepositoryPlace, limit: MarkdownLimit) -> String {
    let mut page = LimitedPage::new(limit);
    // Without its marker a page could not be found again.
    if !page.push(&format!("{MARKER}\n{}", heading(review))) {
        return String::new();
    }
    push_totals(&mut page, &review.totals);
    let mut findings: Vec<&Finding> = review.findings.iter().collect();
    findings.sort_by_key(|finding| finding.severity);
    let findings: Vec<Numbered> =
        findings.into_iter().zip(1..).map(|(finding, number)| Numbered { number, finding }).collect();
    let (first, rest) = findings.split_at(findings.len().min(MOST_FINDINGS));
    push_findings(&mut page, first, place, "", "");
    let (first_notes, other_notes) = review.notes.split_at(review.notes.len().min(MOST_NOTES));
    push_notes(&mut page, first_notes, "", "");
    if !rest.is_empty() {
        let summary = more(rest.len() as u64, "finding");
        push_findings(&mut page, rest, place, &fold(&summary), UNFOLD);
    }
    if !other_notes.is_empty() {
        push_notes(&mut page, other_notes, &fold(&more(other_notes.len() as u64, "note")), UNFOLD);
    }
    if !findings.is_empty() {
        let open = fold(&format!("Figures and call stacks of {}", plural(findings.len() as u64, "finding")));
        let details = findings.iter().map(|finding| finding.details(place));
        page.push_section(&open, details, "finding", UNFOLD);
    }
    page.into_text()
}

/// A finding with its number in the page, from 1.
#[derive(Clone, Copy)]
struct Numbered<'a> {
    number: usize,
    finding: &'a Finding,
}

/// Returns the beginning of a folded part. The blank line makes Markdown of what follows.
fn fold(summary: &str) -> String {
    format!("\n<details>\n<summary>{summary}</summary>\n\n")
}

/// The end of a folded part.
const UNFOLD: &str = "\n</details>\n";

fn heading(review: &Review) -> String {
    let result = match review.passed {
        Some(true) => "Passed: ",
        Some(false) => "Failed: ",
        None => "",
    };
    let title = prose(&at_most(&review.title, SENTENCE));
    let verdict = prose(&at_most(&review.verdict, SENTENCE));
    format!("### {title}\n\n<strong>{result}{verdict}</strong>\n")
}

fn push_totals(page: &mut LimitedPage, totals: &[ReviewTotal]) {
    if totals.is_empty() {
        return;
    }
    let rows = totals.iter().map(|total| figure_row(total, has_base(totals)));
    page.push_section(&figure_header("Total", has_base(totals)), rows, "total", "");
}

fn has_base(figures: &[ReviewTotal]) -> bool {
    figures.iter().any(|figure| figure.base.is_some())
}

fn figure_header(title: &str, has_base: bool) -> String {
    if has_base {
        format!("\n| {title} | Base | Now | Change |\n| :--- | ---: | ---: | ---: |\n")
    } else {
        format!("\n| {title} | Now |\n| :--- | ---: |\n")
    }
}

fn figure_row(figure: &ReviewTotal, has_base: bool) -> String {
    let (title, now) = (prose(figure.title), amount_now(figure));
    if !has_base {
        return format!("| {title} | {now} |\n");
    }
    let base = figure.base.map_or_else(String::new, |base| amount(figure, base));
    let change = change_in_percent(figure).unwrap_or_default().replace('<', "&lt;");
    let change = if figure.is_changed && !change.is_empty() { format!("**{change}**") } else { change };
    format!("| {title} | {base} | {now} | {change} |\n")
}

fn push_findings(
    page: &mut LimitedPage,
    findings: &[Numbered],
    place: &RepositoryPlace,
    open: &str,
    close: &str,
) {
    if findings.is_empty() {
        return;
    }
    let header = "\n| | Function | Where | Change | Finding |\n| :--- | :--- | :--- | ---: | :--- |\n";
    // A folded part already ends in the blank line that a table needs before it.
    let header = if open.is_empty() { header.to_owned() } else { format!("{open}{}", &header[1..]) };
    page.push_section(&header, findings.iter().map(|finding| finding.row(place)), "finding", close);
}

fn push_notes(page: &mut LimitedPage, notes: &[String], open: &str, close: &str) {
    if notes.is_empty() {
        return;
    }
    let open = if open.is_empty() { "\n" } else { open };
    let rows = notes.iter().map(|note| format!("- {}\n", prose(&at_most(note, SENTENCE))));
    page.push_section(open, rows, "note", close);
}

impl Numbered<'_> {
    fn row(self, place: &RepositoryPlace) -> String {
        let finding = self.finding;
        let severity = match finding.severity {
            Severity::Error => "**error**",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let change = main_figure(&finding.figures).and_then(change).unwrap_or_default();
        format!(
            "| {severity} | {} | {} | {} | {} |\n",
            code(&at_most(&finding.function, NAME)),
            self.position(place),
            change.replace('<', "&lt;"),
            prose(&at_most(&finding.message, SENTENCE)),
        )
    }

    /// Returns the file and the line, with a link if there is one.
    fn position(self, place: &RepositoryPlace) -> String {
        let Finding { file, line, .. } = self.finding;
        let inside = place.line_at(file.as_deref(), *line);
        let shown = match &inside {
            Some(inside) => source_position(Some(&inside.path), inside.line),
            None => source_position(file.as_deref(), *line),
        };
        if shown.is_empty() {
            return String::new();
        }
        let link = inside.and_then(|inside| place.link(&inside));
        linked_code(&last_characters(&shown, NAME), link.as_deref())
    }

    fn details(self, place: &RepositoryPlace) -> String {
        let Finding { function, message, figures, stack, .. } = self.finding;
        let position = self.position(place);
        let mut text = format!("**{}.** {} {position}", self.number, code(&at_most(function, NAME)));
        let _ = writeln!(text, "<br>{}", prose(&at_most(message, SENTENCE)));
        if !figures.is_empty() {
            text.push_str(&figure_header("Figure", has_base(figures)));
            text.extend(figures.iter().map(|figure| figure_row(figure, has_base(figures))));
        }
        if !stack.is_empty() {
            text.push_str("\n<pre>\n");
            for frame in stack.iter().take(MOST_FRAMES) {
                let relative = frame.file.as_deref().and_then(|file| place.relative(file));
                let position = source_position(relative.as_deref().or(frame.file.as_deref()), frame.line);
                let (name, position) = (at_most(&frame.function, NAME), last_characters(&position, NAME));
                let _ = writeln!(text, "{}", Html(format!("{name}  {position}").trim_end()));
            }
            if let Some(hidden) = stack.len().checked_sub(MOST_FRAMES).filter(|hidden| *hidden > 0) {
                let _ = writeln!(text, "… {}", more(hidden as u64, "frame"));
            }
            text.push_str("</pre>\n");
        }
        text.push('\n');
        text
    }
}

/// Returns at most this many characters of a path: its end says more than its beginning.
fn last_characters(path: &str, characters: usize) -> String {
    let all = path.chars().count();
    if all <= characters {
        return path.to_owned();
    }
    std::iter::once('…').chain(path.chars().skip(all - characters + 1)).collect()
}
