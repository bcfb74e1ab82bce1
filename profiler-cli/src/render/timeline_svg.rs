//! A timeline as SVG. In: [`Timeline`]. Out: one picture for light and dark pages.
//!
//! The picture must not load anything from elsewhere, and every text in it must be escaped.

use std::fmt::Write as _;
use std::io::{self, Write};

use foldhash::HashSet;

use super::escape::Xml;
use super::plot::{Axis, Panel, Series, panels};
use super::timeline_groups_svg::{self, GROUPS};
use crate::analyze::timeline::{FunctionSpans, Timeline};
use crate::names::rust_path::last_name;
use crate::units::{bytes_exactly, more, time};

/// Draws the timeline with these series.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, timeline: &Timeline, series: &[Series]) -> io::Result<()> {
    out.write_all(draw(timeline, series).as_bytes())
}

/// Width of the picture. Like all lengths here it is in user units of SVG, which are pixels unless
/// the picture is scaled.
const WIDTH: f64 = 1200.0;
pub(super) const LEFT: f64 = 100.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const PANEL: f64 = 320.0;
const SMALL_PANEL: f64 = 130.0;
const GAP: f64 = 44.0;
const BAR: f64 = 18.0;
const MAX_FUNCTIONS: usize = 16;
const MAX_SPANS: usize = 2000;
const MAX_MARKS: usize = 2000;
/// More marks than this are drawn as short lines, each name once.
const MANY_MARKS: usize = 24;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #1f2328; } .title { font-size: 17px; }
.paper { fill: #ffffff; } .grid { stroke: #d8dee4; }
.area { fill: #2f6fdb; fill-opacity: 0.55; stroke: #2f6fdb; }
.line { fill: none; stroke-width: 1.6; } .s0 { stroke: #2f6fdb; } .s1 { stroke: #d1480f; } .s2 { stroke: #8250df; }
.k0 { fill: #2f6fdb; } .k1 { fill: #d1480f; } .k2 { fill: #8250df; }
.mark { stroke: #116329; stroke-dasharray: 4 3; } .tick { stroke: #116329; } .name { fill: #116329; }
.call { fill: #8250df; fill-opacity: 0.75; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .paper { fill: #0d1117; } .grid { stroke: #30363d; }
.area { fill: #58a6ff; stroke: #58a6ff; } .s0 { stroke: #58a6ff; } .s1 { stroke: #ff9b5e; } .s2 { stroke: #d2a8ff; }
.k0 { fill: #58a6ff; } .k1 { fill: #ff9b5e; } .k2 { fill: #d2a8ff; }
.mark, .tick { stroke: #56d364; } .name { fill: #56d364; } .call { fill: #d2a8ff; }
}
.end { text-anchor: end; } .middle { text-anchor: middle; }
";

/// The horizontal scale, which turns times into positions.
struct TimeScale {
    axis: Axis,
}

impl TimeScale {
    /// Returns the horizontal position of a time.
    fn x(&self, ns: u64) -> f64 {
        LEFT + self.axis.position(ns as f64) * (WIDTH - LEFT - RIGHT)
    }
}

fn draw(timeline: &Timeline, series: &[Series]) -> String {
    let panels = if timeline.groups.is_some() { Vec::new() } else { panels(timeline, series) };
    let scale = TimeScale { axis: Axis::of_time(timeline.period_ns()) };
    let functions = timeline.functions.len().min(MAX_FUNCTIONS);
    let heights: Vec<f64> =
        (0..panels.len()).map(|number| if number == 0 { PANEL } else { SMALL_PANEL }).collect();
    let stacked =
        timeline.groups.as_ref().map_or(0.0, |groups| PANEL + GAP + timeline_groups_svg::legend(groups));
    let plots = TOP + stacked + heights.iter().map(|height| height + GAP).sum::<f64>();
    let height = plots + functions as f64 * (BAR + 6.0) + 16.0;
    let mut svg = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"{0}\">\n<title>{0}</title>\n<style>{STYLE}{GROUPS}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        Xml(&format!("Memory of {} over time", timeline.command))
    );
    text(&mut svg, (LEFT, 24.0), "title", &timeline.command.chars().take(110).collect::<String>());
    let interval = timeline.interval.as_ref().map(|interval| format!(" · {}", interval.name()));
    let peak = format!(
        "pid {} · {}{} · peak of the live heap {} at {}{}",
        timeline.pid,
        time(timeline.duration_ns),
        interval.unwrap_or_default(),
        bytes_exactly(timeline.peak_bytes),
        time(timeline.peak_ns),
        if timeline.exact { "" } else { " · the recording is not complete or not exact" }
    );
    text(&mut svg, (LEFT, 42.0), "", &peak);
    if let Some(groups) = &timeline.groups {
        let axis = Axis::of_bytes(groups.points.iter().map(|point| point.max).max().unwrap_or(0));
        let plot = (TOP + 14.0, PANEL - 14.0);
        draw_axes(&mut svg, &axis, &scale, plot);
        timeline_groups_svg::draw(&mut svg, groups, &axis, |ns| scale.x(ns), plot);
    }
    let mut top = TOP;
    for (panel, height) in panels.iter().zip(&heights) {
        draw_panel(&mut svg, timeline, panel, &scale, (top + 14.0, height - 14.0));
        top += height + GAP;
    }
    let legend = timeline.groups.as_ref().map_or(0.0, timeline_groups_svg::legend);
    draw_marks(&mut svg, timeline, &scale, (TOP + 14.0, plots - GAP - legend));
    for (at, function) in timeline.functions.iter().take(functions).enumerate() {
        draw_calls(&mut svg, function, &scale, plots + at as f64 * (BAR + 6.0));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws a panel. `(top, height)` are the position and the height of the plot inside the panel.
fn draw_panel(
    svg: &mut String,
    timeline: &Timeline,
    panel: &Panel,
    scale: &TimeScale,
    (top, height): (f64, f64),
) {
    let bottom = top + height;
    let y = |value: f64| bottom - panel.axis.position(value) * height;
    draw_axes(svg, &panel.axis, scale, (top, height));
    let mut legend = LEFT + 8.0;
    for (number, series) in panel.series.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<rect class=\"k{number}\" x=\"{legend:.1}\" y=\"{:.1}\" width=\"12\" height=\"6\"/>",
            top - 8.0
        );
        text(svg, (legend + 18.0, top - 1.0), "", series.title());
        legend += 40.0 + 7.0 * series.title().len() as f64;
        if *series == Series::Heap {
            let _ = writeln!(
                svg,
                "<path class=\"area\" d=\"{}\"><title>live heap, exact</title></path>",
                heap_path(timeline, scale, &y)
            );
        } else {
            let _ = writeln!(
                svg,
                "<path class=\"line s{number}\" d=\"{}\"><title>{}</title></path>",
                sample_path(timeline, *series, scale, &y),
                series.title()
            );
        }
    }
}

/// Draws the grid and the labels of a plot.
fn draw_axes(svg: &mut String, axis: &Axis, scale: &TimeScale, (top, height): (f64, f64)) {
    let bottom = top + height;
    for (value, label) in &axis.ticks {
        let y = bottom - axis.position(*value) * height;
        line(svg, "grid", (LEFT, y), (WIDTH - RIGHT, y));
        text(svg, (LEFT - 8.0, y + 4.0), "end", label);
    }
    for (value, label) in &scale.axis.ticks {
        let x = scale.x(*value as u64);
        line(svg, "grid", (x, bottom), (x, bottom + 5.0));
        text(svg, (x, bottom + 18.0), "middle", label);
    }
}

/// Returns the path of the live heap: the most live bytes of each interval from left to right, then
/// back along the axis. Intervals narrower than a pixel are joined.
fn heap_path(timeline: &Timeline, scale: &TimeScale, y: &impl Fn(f64) -> f64) -> String {
    let mut steps: Vec<(i64, i64, u64)> = Vec::new();
    for point in &timeline.heap {
        let (first, last) = (scale.x(point.start_ns).floor() as i64, scale.x(point.end_ns).ceil() as i64);
        match steps.last_mut() {
            Some((start, end, most)) if *start == first || *most == point.max => {
                (*end, *most) = (last.max(*end), point.max.max(*most));
            }
            _ => steps.push((first, last, point.max)),
        }
    }
    let mut path = format!("M{LEFT:.1} {:.1}", y(0.0));
    for (first, last, most) in steps {
        let y = y(most as f64);
        let _ = write!(path, "L{first} {y:.1}H{last}");
    }
    let _ = write!(path, "V{:.1}Z", y(0.0));
    path
}

fn sample_path(timeline: &Timeline, series: Series, scale: &TimeScale, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (ns, value) in series.values(timeline) {
        let (x, y) = (scale.x(ns), y(value as f64));
        if path.is_empty() {
            let _ = write!(path, "M{x:.1} {y:.1}");
        } else {
            // A value holds until the next sample.
            let _ = write!(path, "H{x:.1}V{y:.1}");
        }
    }
    if !path.is_empty() {
        let _ = write!(path, "H{:.1}", WIDTH - RIGHT);
    }
    path
}

/// Draws the marks as lines from `top` to `bottom`, or, if there are many, as short lines at the
/// top, which do not hide the heap.
fn draw_marks(svg: &mut String, timeline: &Timeline, scale: &TimeScale, (top, bottom): (f64, f64)) {
    let is_crowded = timeline.marks.len() > MANY_MARKS;
    let (class, bottom) = if is_crowded { ("tick", top + 6.0) } else { ("mark", bottom) };
    let mut free = 0.0;
    let mut names: HashSet<&str> = HashSet::default();
    for mark in timeline.marks.iter().take(MAX_MARKS) {
        let x = scale.x(mark.ns);
        let about = format!(
            "{} · {} live · {} · {}",
            mark.name,
            bytes_exactly(mark.live_bytes),
            time(mark.ns),
            mark.thread
        );
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"><title>{}</title></line>",
            top,
            bottom,
            Xml(&about)
        );
        let name: String = mark.name.chars().take(24).collect();
        // A name that would cover the name before it is left out. The title of the line still has
        // it.
        let is_new = !is_crowded || names.insert(&mark.name);
        if x >= free && is_new {
            let width = 7.0 * name.chars().count() as f64;
            let (at, class) = if x + width > WIDTH { (x - 4.0, "name end") } else { (x + 4.0, "name") };
            text(svg, (at, top + if is_crowded { 18.0 } else { 12.0 }), class, &name);
            free = x + width + 12.0;
        }
    }
    let left_out = timeline.marks.len().saturating_sub(MAX_MARKS) as u64 + timeline.marks_dropped;
    if left_out > 0 {
        text(svg, (WIDTH - RIGHT, top + 18.0), "name end", &more(left_out, "mark"));
    }
}

fn draw_calls(svg: &mut String, function: &FunctionSpans, scale: &TimeScale, top: f64) {
    let last = last_name(&function.function);
    let name: String = last.chars().take(14).collect();
    let calls = function.how_often();
    let about = format!("{} · {calls} · {}", function.function, time(function.total_ns));
    let _ = writeln!(svg, "<g><title>{}</title>", Xml(&about));
    text(svg, (LEFT - 8.0, top + 13.0), "end", &name);
    let mut longest: Vec<_> = function.spans.iter().collect();
    longest.sort_by_key(|span| std::cmp::Reverse(span.end_ns.saturating_sub(span.start_ns)));
    longest.truncate(MAX_SPANS);
    for span in longest {
        let (x, end) = (scale.x(span.start_ns), scale.x(span.end_ns));
        let _ = writeln!(
            svg,
            "<rect class=\"call\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\"><title>{} · {} to {} · {}</title></rect>",
            (end - x).max(0.5),
            Xml(&function.function),
            time(span.start_ns),
            time(span.end_ns),
            Xml(&span.thread)
        );
    }
    svg.push_str("</g>\n");
}

/// Adds a straight line.
fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// Adds a text, escaped.
pub(super) fn text(svg: &mut String, at: (f64, f64), class: &str, content: &str) {
    let _ =
        writeln!(svg, "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", at.0, at.1, Xml(content));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::timeline::{HeapPoint, MarkPoint, SamplePoint, SpanPoint};

    fn timeline(name: &str) -> Timeline {
        let point = |start_ns, end_ns, max| HeapPoint { start_ns, end_ns, min: 0, max, last: max };
        let sample = |ns, rss| SamplePoint {
            ns,
            rss,
            vsz: 0,
            swap: 0,
            minor_faults: 0,
            major_faults: 0,
            tracker_bytes: 0,
        };
        let span = SpanPoint { thread: name.to_owned(), start_ns: 250, end_ns: 750, resumed: false };
        let function = FunctionSpans {
            function: name.to_owned(),
            file: String::new(),
            start_line: 1,
            total_ns: 500,
            calls: 1,
            spans: vec![span],
        };
        Timeline {
            schema: "",
            command: name.to_owned(),
            pid: 1,
            complete: true,
            exact: true,
            duration_ns: 1000,
            interval: None,
            peak_bytes: 100,
            peak_ns: 500,
            heap: vec![point(0, 500, 50), point(500, 1000, 100)],
            groups: None,
            samples: vec![sample(0, 20), sample(500, 40)],
            marks: vec![MarkPoint {
                ns: 500,
                name: name.to_owned(),
                thread: name.to_owned(),
                live_bytes: 100,
                rss: None,
                rss_sample_ns: None,
            }],
            functions: vec![function],
            spans_dropped: 0,
            marks_dropped: 0,
        }
    }

    #[test]
    fn heights_and_widths_are_in_proportion() {
        let svg = draw(&timeline("app"), &[Series::Heap, Series::Rss]);
        // The plot is from 100 to 1176 horizontally. Vertically, 0 bytes are at 376 and 100 bytes
        // at 70.
        assert!(svg.contains("d=\"M100.0 376.0L100 223.0H638L638 70.0H1176V376.0Z\""), "{svg}");
        assert!(svg.contains("d=\"M100.0 314.8H638.0V253.6H1176.0\""), "{svg}");
        assert!(svg.contains("x=\"369.0\" y=\"420.0\" width=\"538.0\""), "{svg}");
    }

    #[test]
    fn many_marks_are_short_lines_and_each_name_stands_once() {
        let mut timeline = timeline("app");
        let mark = |at: u64| MarkPoint { ns: at * 10, name: "request".to_owned(), ..MarkPoint::default() };
        let counts = |timeline: &Timeline| {
            let svg = draw(timeline, &[Series::Heap]);
            ["class=\"mark\"", "class=\"tick\"", ">request<"].map(|part| svg.matches(part).count())
        };
        timeline.marks = (0..MANY_MARKS as u64).map(mark).collect();
        let [long, short, _] = counts(&timeline);
        assert_eq!([long, short], [MANY_MARKS, 0]);
        timeline.marks.push(mark(99));
        assert_eq!(counts(&timeline), [0, MANY_MARKS + 1, 1]);
    }

    #[test]
    fn nothing_in_a_dump_becomes_markup() {
        let svg = draw(&timeline("</title><script>\u{1}&\"'"), &[Series::Heap]);
        assert!(!svg.contains("<script") && !svg.contains('\u{1}'));
        assert!(svg.contains("&lt;/title&gt;&lt;script&gt;\u{fffd}&amp;&quot;&#39;"));
    }
}
