//! A timeline as a plot of characters. In: [`Timeline`]. Out: text with the live heap as an area,
//! the other series as lines, and calls as bars.

use std::io::{self, Write};

use super::plot::{Axis, Panel, Series, panels};
use super::{FAINT, GROWTH, HEADING, RELEASE, marks_left_out, marks_text, timeline_groups_text};
use crate::analyze::timeline::{FunctionSpans, Timeline};
use crate::names::rust_path::last_name;
use crate::units::{Safe, bytes, bytes_exactly, count, plural, time};

/// Size of the plot in characters.
#[derive(Clone, Copy, Debug)]
pub struct PlotSize {
    /// Columns of the whole plot, including the labels.
    pub width: usize,
    /// Rows of the first panel; the other panels have half as many.
    pub height: usize,
}

/// Draws the timeline with these series.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, timeline: &Timeline, series: &[Series], size: PlotSize) -> io::Result<()> {
    writeln!(
        out,
        "{HEADING}{}{HEADING:#}  {FAINT}pid {}, {}, {}{FAINT:#}",
        Safe(&timeline.command),
        timeline.pid,
        time(timeline.duration_ns),
        plural(timeline.samples.len() as u64, "sample")
    )?;
    if let Some(interval) = &timeline.interval {
        writeln!(out, "Interval: {}", Safe(&interval.name()))?;
    }
    let columns = size.width.saturating_sub(LABEL + 2).clamp(10, 1000);
    if let Some(groups) = &timeline.groups {
        timeline_groups_text::write(out, timeline, groups, (columns, size.height.clamp(3, 200)))?;
    }
    let series = if timeline.groups.is_some() { &[] } else { series };
    for (number, panel) in panels(timeline, series).iter().enumerate() {
        let rows = if number == 0 { size.height } else { size.height / 2 };
        write_panel(out, timeline, panel, columns, rows.clamp(3, 200))?;
    }
    write_time_axis(out, timeline, columns)?;
    if let Some(groups) = &timeline.groups {
        timeline_groups_text::write_legend(out, groups, size.width)?;
    }
    write_marks(out, timeline, columns)?;
    write_functions(out, timeline, columns)?;
    writeln!(
        out,
        "Peak of the live heap: {} at {}",
        bytes_exactly(timeline.peak_bytes),
        time(timeline.peak_ns)
    )?;
    if !timeline.complete {
        writeln!(out, "The recording is not complete: see the summary.")?;
    } else if !timeline.exact {
        writeln!(out, "The live heap is not exact: see the summary.")?;
    }
    Ok(())
}

/// Width of the labels on the left, in columns.
pub(super) const LABEL: usize = 12;
/// Characters for the upper end of an area, in eighths of a row.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Characters of the lines, in the order of a panel's series.
const POINTS: [char; 3] = ['•', '×', '+'];

fn write_panel(
    out: &mut dyn Write,
    timeline: &Timeline,
    panel: &Panel,
    columns: usize,
    rows: usize,
) -> io::Result<()> {
    let mut points = POINTS.into_iter();
    let mut legend = Vec::new();
    let mut area = vec![None; columns];
    let mut lines = Vec::new();
    for series in &panel.series {
        if *series == Series::Heap {
            legend.push(format!("█ {}", series.title()));
            area = heap_columns(timeline, columns);
        } else {
            let point = points.next().unwrap_or('•');
            legend.push(format!("{point} {}", series.title()));
            lines.push((point, sample_columns(timeline, *series, columns)));
        }
    }
    writeln!(out, "\n{:LABEL$}  {}", "", legend.join("   "))?;
    // Height above the axis in eighths of a row.
    let height = |value: u64| (panel.axis.position(value as f64) * (rows * 8) as f64).round() as usize;
    for row in (0..rows).rev() {
        let label = label_of_row(&panel.axis, row, rows);
        write!(out, "{label:>LABEL$} {}", if label.is_empty() { '│' } else { '┤' })?;
        for column in 0..columns {
            let hit = lines.iter().find(|(_, values)| {
                values[column].is_some_and(|value| (height(value).max(1) - 1) / 8 == row)
            });
            let filled = area[column].map_or(0, |value: u64| {
                // A heap that is not empty is visible, however small it is.
                let height = height(value).max(usize::from(value > 0));
                height.saturating_sub(row * 8).min(8)
            });
            match hit {
                Some((point, _)) => write!(out, "{GROWTH}{point}{GROWTH:#}")?,
                None => write!(out, "{}", EIGHTHS[filled])?,
            }
        }
        writeln!(out)?;
    }
    let zero = panel.axis.ticks.first().map_or("", |(_, label)| label);
    writeln!(out, "{zero:>LABEL$} ┼{}", "─".repeat(columns))
}

/// Returns the label of the tick at the upper end of a row; empty if there is none.
pub(super) fn label_of_row(axis: &Axis, row: usize, rows: usize) -> &str {
    let tick = axis.ticks.iter().skip(1).find(|(value, _)| {
        let at = (axis.position(*value) * rows as f64).round() as usize;
        at == row + 1
    });
    tick.map_or("", |(_, label)| label)
}

/// Returns for each column the most bytes that were live at any instant that it covers.
fn heap_columns(timeline: &Timeline, columns: usize) -> Vec<Option<u64>> {
    let mut most = vec![None; columns];
    for point in &timeline.heap {
        let first = column_of(timeline, point.start_ns, columns);
        let last = column_of(timeline, point.end_ns.saturating_sub(1).max(point.start_ns), columns);
        for column in &mut most[first..=last] {
            *column = (*column).max(Some(point.max));
        }
    }
    most
}

/// Returns for each column the largest sample in it; without a sample, the value of the column
/// before.
fn sample_columns(timeline: &Timeline, series: Series, columns: usize) -> Vec<Option<u64>> {
    let mut most = vec![None; columns];
    for (ns, value) in series.values(timeline) {
        let column = &mut most[column_of(timeline, ns, columns)];
        *column = (*column).max(Some(value));
    }
    let mut before = None;
    for column in &mut most {
        *column = column.or(before);
        before = *column;
    }
    most
}

/// Returns the column of a time.
pub(super) fn column_of(timeline: &Timeline, ns: u64, columns: usize) -> usize {
    let (from, to) = timeline.period_ns();
    let length = to.saturating_sub(from).max(1);
    let column = u128::from(ns.saturating_sub(from)) * columns as u128 / u128::from(length);
    usize::try_from(column).unwrap_or(usize::MAX).min(columns - 1)
}

fn write_time_axis(out: &mut dyn Write, timeline: &Timeline, columns: usize) -> io::Result<()> {
    let axis = Axis::of_time(timeline.period_ns());
    let mut text = vec![' '; columns];
    let mut free = 0;
    for (value, label) in &axis.ticks {
        let length = label.chars().count();
        let column = column_of(timeline, *value as u64, columns).min(columns.saturating_sub(length));
        if column >= free && column + length <= columns {
            text.splice(column..column + length, label.chars());
            free = column + length + 2;
        }
    }
    let text: String = text.into_iter().collect();
    writeln!(out, "{:LABEL$}  {}", "", text.trim_end())
}

fn write_marks(out: &mut dyn Write, timeline: &Timeline, columns: usize) -> io::Result<()> {
    if timeline.marks.is_empty() {
        return Ok(());
    }
    let mut text = vec![' '; columns];
    for (number, mark) in timeline.marks.iter().enumerate() {
        let column = &mut text[column_of(timeline, mark.ns, columns)];
        // Of several marks in one column, only the first mark is shown.
        if *column == ' ' {
            *column = if timeline.marks.len() > MAX_MARKS { '╵' } else { mark_sign(number) };
        }
    }
    let text: String = text.into_iter().collect();
    writeln!(out, "{:>LABEL$}  {RELEASE}{}{RELEASE:#}", "marks", text.trim_end())?;
    writeln!(out, "\nMarks:")?;
    if timeline.marks.len() > MAX_MARKS {
        return marks_text::write_by_name(out, &timeline.marks, timeline.marks_dropped);
    }
    for (number, mark) in timeline.marks.iter().enumerate().take(MAX_MARKS) {
        writeln!(
            out,
            "  {RELEASE}{}{RELEASE:#} {:>12}  {:>10} live  {}  {FAINT}{}{FAINT:#}",
            mark_sign(number),
            time(mark.ns),
            bytes(mark.live_bytes),
            Safe(&mark.name),
            Safe(&mark.thread)
        )?;
    }
    if let Some(text) = marks_left_out(MAX_MARKS, timeline.marks.len(), timeline.marks_dropped) {
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// The most marks that are listed: as many as have a sign of their own.
const MAX_MARKS: usize = 35;
/// The most functions that are shown.
const MAX_FUNCTIONS: usize = 12;

/// Returns the sign of a mark: 1 to 9, a to z, and `*` for all later ones.
fn mark_sign(number: usize) -> char {
    u32::try_from(number + 1).ok().and_then(|number| char::from_digit(number, 36)).unwrap_or('*')
}

fn write_functions(out: &mut dyn Write, timeline: &Timeline, columns: usize) -> io::Result<()> {
    if timeline.functions.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nAnnotated functions, when they ran:")?;
    let shown = timeline.functions.iter().take(MAX_FUNCTIONS);
    for function in shown.clone() {
        let name = Safe(&label(&function.function)).to_string();
        writeln!(out, "{name:>LABEL$} │{}", bar(timeline, function, columns).trim_end())?;
    }
    for function in shown {
        let calls = function.how_often();
        let total = time(function.total_ns);
        writeln!(out, "  {total:>12} in {calls:<12} {}", Safe(&function.function))?;
    }
    if timeline.functions.len() > MAX_FUNCTIONS {
        writeln!(out, "  … {} more; --function picks", timeline.functions.len() - MAX_FUNCTIONS)?;
    }
    if timeline.spans_dropped > 0 {
        writeln!(out, "  {} shorter calls are left out", count(timeline.spans_dropped))?;
    }
    writeln!(out)
}

fn bar(timeline: &Timeline, function: &FunctionSpans, columns: usize) -> String {
    let mut bar = vec![' '; columns];
    for span in &function.spans {
        let first = column_of(timeline, span.start_ns, columns);
        let last = column_of(timeline, span.end_ns.saturating_sub(1).max(span.start_ns), columns);
        bar[first..=last].fill('▬');
    }
    bar.into_iter().collect()
}

/// Returns the name of a function without its path, cut to the width of the labels.
fn label(function: &str) -> String {
    let last = last_name(function);
    if last.chars().count() <= LABEL {
        last.to_owned()
    } else {
        last.chars().take(LABEL - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::timeline::{HeapPoint, MarkPoint, SamplePoint, SpanPoint};

    /// Returns a timeline of ten milliseconds: 0 B live, then 8 B, then 4 B; RSS 2 B; one call in
    /// the middle.
    fn timeline() -> Timeline {
        let point = |start_ns, end_ns, max| HeapPoint { start_ns, end_ns, min: 0, max, last: max };
        let sample = SamplePoint {
            ns: 0,
            rss: 2,
            vsz: 1 << 30,
            swap: 0,
            minor_faults: 7,
            major_faults: 0,
            tracker_bytes: 0,
        };
        let span =
            SpanPoint { thread: "main".to_owned(), start_ns: 4_000_000, end_ns: 6_000_000, resumed: false };
        let function = FunctionSpans {
            function: "app::work".to_owned(),
            file: "main.rs".to_owned(),
            start_line: 1,
            total_ns: 2_000_000,
            calls: 1,
            spans: vec![span],
        };
        Timeline {
            schema: "",
            command: "app".to_owned(),
            pid: 1,
            complete: true,
            exact: true,
            duration_ns: 10_000_000,
            interval: None,
            peak_bytes: 8,
            peak_ns: 4_000_000,
            heap: vec![
                point(0, 4_000_000, 0),
                point(4_000_000, 8_000_000, 8),
                point(8_000_000, 10_000_000, 4),
            ],
            groups: None,
            samples: vec![sample],
            marks: vec![MarkPoint {
                ns: 5_000_000,
                name: "half\x1b[2J".to_owned(),
                thread: "main".to_owned(),
                live_bytes: 8,
                rss: None,
                rss_sample_ns: None,
            }],
            functions: vec![function],
            spans_dropped: 0,
            marks_dropped: 0,
        }
    }

    fn drawn(series: &[Series]) -> Vec<String> {
        let mut out = Vec::new();
        // Ten columns of one millisecond each, and four rows of two bytes each.
        write(&mut out, &timeline(), series, PlotSize { width: LABEL + 2 + 10, height: 4 }).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        text.lines().map(str::to_owned).collect()
    }

    fn of_rows(lines: &[String]) -> Vec<&str> {
        let rows = lines.iter().filter(|line| line.chars().nth(LABEL + 1).is_some_and(|c| "│┤".contains(c)));
        rows.map(|line| line.split_once(['│', '┤']).unwrap().1).collect()
    }

    #[test]
    fn columns_are_as_high_as_the_heap_was_large() {
        let lines = drawn(&[Series::Heap]);
        assert_eq!(of_rows(&lines)[..4], ["    ████  ", "    ████  ", "    ██████", "    ██████"]);
        assert!(lines.iter().any(|line| line.starts_with("         8 B ┤")), "{lines:#?}");
        assert!(lines.iter().any(|line| line == "Peak of the live heap: 8 B at 4.000 ms"), "{lines:#?}");
    }

    #[test]
    fn samples_cover_the_heap_and_hold_until_the_next_sample() {
        let lines = drawn(&[Series::Rss, Series::Heap]);
        assert_eq!(of_rows(&lines)[3], "••••••••••");
    }

    #[test]
    fn marks_and_calls_are_below_their_time() {
        let lines = drawn(&[Series::Heap]);
        assert!(lines.contains(&"       marks       1".to_owned()), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("half\u{fffd}[2J")), "{lines:#?}");
        let bar = lines.iter().find(|line| line.contains("app::work")).unwrap();
        assert_eq!(bar, "      2.000 ms in 1 call       app::work");
        assert!(lines.contains(&"        work │    ▬▬".to_owned()), "{lines:#?}");
    }

    #[test]
    fn each_scale_has_its_own_panel() {
        let lines = drawn(&[Series::Heap, Series::Vsz, Series::MinorFaults]);
        let legends = lines.iter().filter(|line| line.contains("(sampled)") || line.contains("(exact)"));
        assert_eq!(legends.count(), 3);
    }
}
