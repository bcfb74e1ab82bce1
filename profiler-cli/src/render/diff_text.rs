//! What changed between two sides, as text for people. In: [`Diff`]. Out: totals first, then the
//! sites that have changed.

use std::io::{self, Write};

use super::text_width::{TextWidth, fitting_names, write_paragraph};
use super::{FAINT, GROWTH, HEADING, RELEASE, source_position};
use crate::analyze::diff::{ChangedFigure, Diff, MovedSite, SiteChange, SiteStatus};
use crate::analyze::site_figures::{FIGURES, SiteFigure};
use crate::units::{Safe, count, more, plural};

/// Writes the comparison, with lines of at most `width` columns where names can be cut.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, diff: &Diff, width: TextWidth) -> io::Result<()> {
    let side = |command: &str, runs: u64| format!("{command} ({})", plural(runs, "run"));
    writeln!(out, "{FAINT}base  {}{FAINT:#}", Safe(&side(&diff.base_command, diff.base_runs)))?;
    writeln!(out, "{FAINT}new   {}{FAINT:#}\n", Safe(&side(&diff.new_command, diff.new_runs)))?;
    writeln!(out, "{HEADING}{:<12} {:>12} {:>12}   change{HEADING:#}", "", "base", "new")?;
    for figure in FIGURES {
        write_total(out, &figure, &diff.totals.get(&figure))?;
    }
    writeln!(out, "\n{HEADING}{}{HEADING:#}", counts(diff))?;
    for site in &diff.sites {
        write_site(out, site, width)?;
    }
    if diff.omitted > 0 {
        let all = diff.sites.len() as u64 + diff.omitted;
        writeln!(out, "\n{}; --top {all} shows all.", more(diff.omitted, "site"))?;
    }
    write_moved(out, &diff.moved, width)?;
    for note in diff.notes() {
        writeln!(out)?;
        write_paragraph(out, "", &Safe(&note).to_string(), width)?;
    }
    Ok(())
}

fn write_total(out: &mut dyn Write, figure: &SiteFigure, value: &ChangedFigure) -> io::Result<()> {
    let show = |value: u64| figure.kind.show(i128::from(value));
    let style = match value.change() {
        1.. if value.changed => GROWTH,
        ..=-1 if value.changed => RELEASE,
        _ => FAINT,
    };
    writeln!(
        out,
        "{:<12} {:>12} {:>12}   {style}{}{style:#}",
        figure.title,
        show(value.base),
        show(value.new),
        change_text(figure, value)
    )
}

/// Returns by how much a figure differs: `+1.0 MiB (+50.0 %)`, `+9.0 MiB (x 10)` from ten times on,
/// `same`, or the difference as noise.
fn change_text(figure: &SiteFigure, value: &ChangedFigure) -> String {
    let change = value.change();
    if change == 0 {
        return "same".to_owned();
    }
    let sign = if change > 0 { "+" } else { "-" };
    let amount = figure.kind.show(change.abs());
    let share = match value.base {
        0 => String::new(),
        base if value.new / 10 >= base => format!(" (x {:.0})", value.new as f64 / base as f64),
        base => format!(" ({sign}{:.1} %)", change.unsigned_abs() as f64 * 100.0 / base as f64),
    };
    let noise = if value.changed { "" } else { ", not more than noise" };
    format!("{sign}{amount}{share}{noise}")
}

/// Returns a sentence with the number of sites of each kind.
fn counts(diff: &Diff) -> String {
    let mut parts = Vec::new();
    for (status, word) in WORDS {
        let sites = diff.counts.get(status);
        if sites > 0 {
            parts.push(format!("{} {word}", count(sites)));
        }
    }
    if parts.is_empty() {
        parts.push("none changed".to_owned());
    }
    if !diff.moved.is_empty() {
        parts.push(format!("{} moved", count(diff.moved.len() as u64)));
    }
    if diff.noise > 0 {
        parts.push(format!("{} not more than noise", count(diff.noise)));
    }
    parts.push(format!("{} unchanged", count(diff.unchanged)));
    format!("Sites: {}.", parts.join(", "))
}

fn write_site(out: &mut dyn Write, site: &SiteChange, width: TextWidth) -> io::Result<()> {
    let word = WORDS.iter().find(|(status, _)| *status == site.status).map_or("", |(_, word)| word);
    let style = if matches!(site.status, SiteStatus::New | SiteStatus::Grown) { GROWTH } else { RELEASE };
    let position = source_position(site.file.as_deref(), site.line);
    let room = width.columns().saturating_sub(MARGIN + 1);
    let (function, position) = fitting_names(&site.function, &position, room);
    writeln!(out, "\n{style}{word:<6}{style:#}  {} {FAINT}{}{FAINT:#}", Safe(&function), Safe(&position))?;
    for figure in FIGURES {
        let value = site.figures.get(&figure);
        if value.changed {
            let show = |value: u64| figure.kind.show(i128::from(value));
            writeln!(
                out,
                "{:MARGIN$}{:<12} {:>10} -> {:<10} {}",
                "",
                figure.title,
                show(value.base),
                show(value.new),
                change_text(&figure, &value)
            )?;
        }
    }
    Ok(())
}

fn write_moved(out: &mut dyn Write, moved: &[MovedSite], width: TextWidth) -> io::Result<()> {
    if moved.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let room = width.columns().saturating_sub(MARGIN + 1);
    for site in moved.iter().take(MOST_MOVED) {
        let position = source_position(site.to.file.as_deref(), site.to.line);
        let (function, position) = fitting_names(&site.to.function, &position, room);
        writeln!(out, "{:<6}  {} {FAINT}{}{FAINT:#}", "moved", Safe(&function), Safe(&position))?;
        let position = source_position(site.from.file.as_deref(), site.from.line);
        let (function, position) = fitting_names(&site.from.function, &position, room - 5);
        writeln!(out, "{:MARGIN$}{FAINT}from {} {}{FAINT:#}", "", Safe(&function), Safe(&position))?;
    }
    match moved.len().saturating_sub(MOST_MOVED) {
        0 => Ok(()),
        rest => writeln!(out, "{:MARGIN$}… {}; --json has all", "", more(rest as u64, "moved site")),
    }
}

const WORDS: [(SiteStatus, &str); 4] = [
    (SiteStatus::New, "new"),
    (SiteStatus::Grown, "grown"),
    (SiteStatus::Shrunk, "shrunk"),
    (SiteStatus::Gone, "gone"),
];
/// Columns before the name of a site.
const MARGIN: usize = 8;
/// The most moved sites that the text lists.
const MOST_MOVED: usize = 10;
