//! The table. In: a report. Out: text for a terminal, or Markdown.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::figures::{self, Figures};
use crate::instructions::Instructions;
use crate::loading::Loading;
use crate::measure::{Measured, UnderTool};
use crate::memory::describe;
use crate::report::Report;
use crate::tools::{ANNOTATED, OFF, TRACE, UNTRACKED};

/// Renders a report: a line about the machine, the table, and how long it takes to load a dump.
pub(crate) fn render(report: &Report, markdown: bool) -> String {
    let mut text = String::new();
    if !report.workloads.is_empty() {
        let mut table = Table::new();
        table.load_style(if markdown { ASCII_MARKDOWN } else { PLAIN });
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(HEADER);
        for measured in &report.workloads {
            table.add_row(untracked_row(measured));
            for under in &measured.tools {
                table.add_row(tool_row(under, measured, report));
            }
        }
        for index in 2..HEADER.len() - 1 {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let work = if report.quick { "an eighth of the work" } else { "all of the work" };
        let Report { processor, cores, rounds, memory, .. } = report;
        text += &format!("{processor}, {cores} cores, {rounds} rounds of {work}; {}\n\n", describe(memory));
        text += &format!("{table}\n");
    }
    if let Some(loading) = &report.loading {
        text += &loading_line(loading);
    }
    text
}

const HEADER: [&str; 11] = [
    "workload",
    "tool",
    "wall, x untracked",
    "+ns/event",
    "+CPU ns/event",
    "in its threads",
    "elsewhere",
    "dump B/event",
    "+peak MiB",
    "instructions",
    "",
];

const PLAIN: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-'));

fn untracked_row(measured: &Measured) -> Vec<String> {
    let median = |figure: &dyn Fn(&figures::Run) -> u64| {
        figures::median(measured.untracked.iter().map(|run| figure(run) as f64).collect()).unwrap_or(0.0)
    };
    let mut row = vec![measured.workload.name.clone(), UNTRACKED.name.to_owned()];
    row.push(format!("{:.0} ms", median(&|run| run.usage.wall_ns) / 1e6));
    row.push(String::new());
    row.push(format!("{:.0} ms", median(&|run| run.usage.cpu_ns) / 1e6));
    row.extend([String::new(), String::new(), String::new()]);
    row.push(mebibytes(median(&|run| run.usage.peak_bytes)));
    row.push(measured.instructions_trouble.clone().unwrap_or_default());
    let mut remarks = format!("{} events", thousands(measured.events));
    if is_busy(median(&|run| run.usage.wall_ns), median(&|run| run.usage.cpu_ns)) {
        remarks += "; the machine was busy, so look at CPU times";
    }
    row.push(remarks);
    row
}

fn tool_row(under: &UnderTool, measured: &Measured, report: &Report) -> Vec<String> {
    let mut row = vec![String::new(), under.tool.to_owned()];
    match figures::figures(&under.pairs, under.events) {
        None => row.resize(9, String::new()),
        Some(figures) => row.extend([
            format!(
                "{} ({}-{})",
                digits(figures.ratio),
                digits(figures.lowest_ratio),
                digits(figures.highest_ratio)
            ),
            digits(figures.ns_per_event),
            digits(figures.cpu_ns_per_event),
            digits(figures.application_cpu_ns_per_event),
            digits(figures.other_cpu_ns_per_event),
            if figures.output_bytes_per_event > 0.0 {
                format!("{:.2}", figures.output_bytes_per_event)
            } else {
                String::new()
            },
            mebibytes(figures.peak_bytes),
        ]),
    }
    row.push(measured.instructions.as_ref().map(|counted| instructions(under, counted)).unwrap_or_default());
    row.push(remarks(under, measured, report));
    row
}

fn instructions(under: &UnderTool, counted: &Instructions) -> String {
    if under.tool == OFF.name {
        format!("{:+.2} % ({:.1} /event)", 100.0 * counted.off_share(), counted.off_per_event())
    } else if under.tool == TRACE.name {
        format!("{:.0} /event", counted.trace_per_event())
    } else {
        String::new()
    }
}

fn remarks(under: &UnderTool, measured: &Measured, report: &Report) -> String {
    let mut remarks: Vec<String> = under.trouble.iter().cloned().collect();
    if under.fraction > measured.fraction {
        remarks.push(format!("1/{} of the work", under.fraction / measured.fraction));
    }
    if under.rare && under.pairs.len() < measured.untracked.len() {
        remarks.push(format!("{} rounds", under.pairs.len()));
    }
    if let Some(dump) = &under.dump {
        if dump.checked_stacks > 0 {
            let checked = thousands(dump.checked_stacks);
            remarks.push(format!("{} of {checked} stacks differ", dump.different_stacks));
        }
        if !dump.exact {
            remarks.push(format!("not exact: {} lost, {} cut off", dump.lost_events, dump.truncated_stacks));
        }
        // A hash table with a random seed changes the number by a few events.
        if dump.events().abs_diff(under.events) > under.events / 100 {
            remarks.push(format!("{} events instead of {}", dump.events(), under.events));
        }
    }
    remarks.extend(against_one_thread(under, measured, report));
    remarks.extend(against_trace(under, measured));
    remarks.join("; ")
}

/// Compares the CPU time that an event adds in the application's threads with that of the same work
/// on one thread.
fn against_one_thread(under: &UnderTool, measured: &Measured, report: &Report) -> Option<String> {
    let name = measured.workload.one_thread.as_ref()?;
    let other = report.workloads.iter().find(|other| other.workload.name == *name)?;
    let other = other.tools.iter().find(|other| other.tool == under.tool)?;
    let added = |under: &UnderTool| {
        let figures: Figures = figures::figures(&under.pairs, under.events)?;
        Some(figures.application_cpu_ns_per_event)
    };
    let (two, one) = (added(under)?, added(other)?);
    // Below 10 ns the added time is mostly noise.
    (one >= 10.0).then(|| format!("in its threads {:.2} x {name}", two / one))
}

/// Compares the wall time of the annotated program with that of the recorded program in the same
/// round.
fn against_trace(under: &UnderTool, measured: &Measured) -> Option<String> {
    let recorded =
        measured.tools.iter().find(|other| under.tool == ANNOTATED.name && other.tool == TRACE.name)?;
    let walls = under.pairs.iter().zip(&recorded.pairs).map(|(annotated, recorded)| {
        annotated.tool.usage.wall_ns as f64 / recorded.tool.usage.wall_ns.max(1) as f64
    });
    Some(format!("{} x trace", digits(figures::median(walls.collect())?)))
}

fn loading_line(loading: &Loading) -> String {
    format!(
        "\nprofiler-cli summary of {} events ({}) on one core: {:.1} million events/s, {:.2} s, \
         {} at the peak (generated dump)\n",
        thousands(loading.events),
        format_args!("{} MiB", mebibytes(loading.dump_bytes as f64)),
        loading.events_per_second() / 1e6,
        loading.usage.wall_ns as f64 / 1e9,
        format_args!("{} MiB", mebibytes(loading.usage.peak_bytes as f64)),
    )
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / f64::from(1 << 20))
}

/// Whether the machine was busy with other programs. A workload waits for nothing but a processor,
/// so on an idle machine its CPU time is at least its wall time.
fn is_busy(wall_ns: f64, cpu_ns: f64) -> bool {
    cpu_ns < 0.85 * wall_ns
}

/// Formats a figure with three significant digits, but never more than two behind the point.
fn digits(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Pair, Run};
    use crate::launch::Usage;
    use crate::workloads::Workload;

    #[test]
    fn numbers_have_few_digits() {
        assert_eq!(
            [digits(4.256), digits(-0.5), digits(42.56), digits(425.6)],
            ["4.26", "-0.50", "42.6", "426"]
        );
        assert_eq!([thousands(0), thousands(999), thousands(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!(mebibytes(1_572_864.0), "1.5");
    }

    #[test]
    fn a_busy_machine_shows_in_less_cpu_time_than_wall_time() {
        assert!(is_busy(110.0, 52.0));
        assert!(!is_busy(100.0, 99.0));
        assert!(!is_busy(55.0, 100.0), "two threads");
    }

    #[test]
    fn a_row_has_a_cell_for_each_heading_with_runs_and_without() {
        let run = |wall_ns, application_cpu_ns| Run {
            usage: Usage { wall_ns, cpu_ns: wall_ns, peak_bytes: 1 << 20 },
            application_cpu_ns,
            output_bytes: 0,
        };
        let measured = |name: &str, one_thread: Option<&str>, application| Measured {
            workload: Workload {
                name: name.to_owned(),
                about: String::new(),
                rounds: 1,
                one_thread: one_thread.map(str::to_owned),
            },
            fraction: 1,
            untracked: vec![run(1_000_000, 500)],
            events: 10,
            tools: vec![
                UnderTool {
                    tool: TRACE.name,
                    fraction: 8,
                    events: 10,
                    pairs: vec![Pair { untracked: run(1_000_000, 500), tool: run(3_000_000, application) }],
                    rare: false,
                    dump: None,
                    trouble: None,
                },
                UnderTool {
                    tool: "heaptrack",
                    fraction: 1,
                    events: 10,
                    pairs: Vec::new(),
                    rare: false,
                    dump: None,
                    trouble: Some("skipped: heaptrack missing".to_owned()),
                },
            ],
            instructions: Some(Instructions { events: 10, untracked: 100, off: 101, trace: 400 }),
            instructions_trouble: None,
        };
        let mut report = Report::default();
        report.workloads.push(measured("one", None, 1500));
        report.workloads.push(measured("two", Some("one"), 2000));

        let text = render(&report, true);
        let rows: Vec<Vec<&str>> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.split('|').collect()).collect();
        assert_eq!(rows.len(), 2 + 6, "{text}");
        assert!(rows.iter().all(|row| row.len() == HEADER.len() + 2), "{text}");
        let cell = |row: usize, column: usize| rows[row][column].trim().to_owned();
        assert_eq!((cell(2, 1), cell(2, 3), cell(2, 11)), ("one".into(), "1 ms".into(), "10 events".into()));
        assert_eq!(cell(3, 3), "3.00 (3.00-3.00)");
        // For ten events the tool adds 2,000,000 ns, of which 1000 ns in the application's threads,
        // and 300 instructions.
        assert_eq!(
            (cell(3, 4), cell(3, 6), cell(3, 10)),
            ("200000".into(), "100".into(), "30 /event".into())
        );
        assert_eq!(cell(4, 11), "skipped: heaptrack missing");
        assert_eq!(cell(6, 11), "1/8 of the work; in its threads 1.50 x one");
    }
}
