//! The flags. In: the command line. Out: [`Options`], and the list of workloads and tools.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Parser;
use wildmatch::WildMatch;

use crate::tools;
use crate::workloads::Workload;

/// Measure what tracking costs, beside what other heap profilers cost, and print one table.
#[derive(Debug, Parser)]
#[command(name = "benchmarks", before_help = EXAMPLES, after_help = COLUMNS, version)]
pub(crate) struct Options {
    /// Number of rounds; each runs every tool once, in another order [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Run only workloads with this name: a part of the name, or a whole name with * and ?
    #[arg(long, value_name = "PATTERN")]
    workload: Vec<String>,

    /// Run only tools with this name: a part of the name, or a whole name with * and ?
    #[arg(long, value_name = "PATTERN")]
    tool: Vec<String>,

    /// Write every single run to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Print the table in Markdown
    #[arg(long)]
    pub(crate) markdown: bool,

    /// Do an eighth of the work, and load a tenth of the dump; one-time costs of a tool weigh more
    /// then
    #[arg(long)]
    pub(crate) quick: bool,

    /// List the workloads and tools, and run nothing
    #[arg(long)]
    pub(crate) list: bool,
}

impl Options {
    /// Returns the number of rounds.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// Returns the number of events in the dump that is loaded.
    pub(crate) fn loading_events(&self) -> u64 {
        if self.quick { 10_000_000 } else { 100_000_000 }
    }

    /// Whether the flags choose the workload of this name.
    pub(crate) fn wants_workload(&self, name: &str) -> bool {
        matches_any(&self.workload, name)
    }

    /// Whether the flags choose the tool of this name.
    pub(crate) fn wants_tool(&self, name: &str) -> bool {
        matches_any(&self.tool, name)
    }
}

/// Returns what `--list` prints.
pub(crate) fn list(workloads: &[Workload]) -> String {
    let mut text = String::from("Workloads\n");
    let mut line = |name: &str, about: &str| {
        let _ = writeln!(text, "  {name:16} {about}");
    };
    workloads.iter().for_each(|workload| line(&workload.name, &workload.about));
    line("loading", "profiler-cli summary reads a large dump");
    text.push_str("\nTools\n");
    for tool in tools::ALL {
        let _ = writeln!(text, "  {:16} {}", tool.name, tool.about);
    }
    text
}

/// Whether a name matches any of the patterns, or there are none.
fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| {
            let whole = pattern.contains(['*', '?']);
            if whole { WildMatch::new(pattern).matches(name) } else { name.contains(pattern.as_str()) }
        })
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p benchmarks                           all measurements; takes half an hour
  cargo run --release -p benchmarks -- --quick --tool trace   the cost of recording, in a minute
  cargo run --release -p benchmarks -- --workload depth --json depth.json
  cargo run --release -p benchmarks -- --markdown > table.md";

const COLUMNS: &str = "\
Each figure is a median over the rounds. In each round, a tool's run is compared with the untracked run of the same \
work. An event is an allocation, a reallocation or a free. The figures of the untracked rows are absolute.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_part_of_a_name_or_a_whole_name_with_wildcards() {
        let wants = |patterns: &[&str], name| {
            matches_any(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>(), name)
        };
        assert!(wants(&[], "json"));
        assert!(wants(&["dep"], "depth-10"));
        assert!(wants(&["json", "depth-?0"], "depth-10"));
        assert!(!wants(&["depth-?0"], "depth-200"));
        assert!(!wants(&["pth*"], "depth-10"));
    }

    #[test]
    fn the_flags_are_consistent_and_help_begins_with_examples() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let help = Options::command().render_help().to_string();
        assert!(help.starts_with("Examples:\n  cargo run "), "{help}");
    }
}
