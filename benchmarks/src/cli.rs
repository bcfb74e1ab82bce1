//! The flags. In: the command line. Out: [`Options`], and the list of what can be chosen.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Parser;
use wildmatch::WildMatch;

use crate::tools;
use crate::workloads::Workload;

/// What tracking costs, beside what other heap profilers cost, as one table.
#[derive(Debug, Parser)]
#[command(name = "benchmarks", before_help = EXAMPLES, after_help = COLUMNS, version)]
pub(crate) struct Options {
    /// Rounds; each runs every tool once, in an order of its own [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Only workloads of this name: a part of it, or a whole one with * and ?
    #[arg(long, value_name = "PATTERN")]
    workload: Vec<String>,

    /// Only tools of this name: a part of it, or a whole one with * and ?
    #[arg(long, value_name = "PATTERN")]
    tool: Vec<String>,

    /// Write every single run to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Print the table in Markdown
    #[arg(long)]
    pub(crate) markdown: bool,

    /// An eighth of the work, and a tenth of the dump that is loaded; what a tool does once weighs more
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only name the workloads and tools
    #[arg(long)]
    pub(crate) list: bool,
}

impl Options {
    /// How many rounds.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// Events in the dump that is loaded.
    pub(crate) fn loading_events(&self) -> u64 {
        if self.quick { 10_000_000 } else { 100_000_000 }
    }

    /// Whether the workload of this name is wanted.
    pub(crate) fn wants_workload(&self, name: &str) -> bool {
        wanted(&self.workload, name)
    }

    /// Whether the tool of this name is wanted.
    pub(crate) fn wants_tool(&self, name: &str) -> bool {
        wanted(&self.tool, name)
    }
}

/// What `--list` prints.
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

fn wanted(patterns: &[String], name: &str) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| {
            let whole = pattern.contains(['*', '?']);
            if whole { WildMatch::new(pattern).matches(name) } else { name.contains(pattern.as_str()) }
        })
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p benchmarks                           everything; takes half an hour
  cargo run --release -p benchmarks -- --quick --tool trace   the cost of recording, in a minute
  cargo run --release -p benchmarks -- --workload depth --json depth.json
  cargo run --release -p benchmarks -- --markdown > table.md";

const COLUMNS: &str = "\
Each figure is the median over the rounds of what a round gives, against the untracked run of the same work in the \
same round. An event is an allocation, a reallocation or a free. The untracked rows are absolute.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_part_or_a_whole_with_wildcards() {
        let wants = |patterns: &[&str], name| {
            wanted(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>(), name)
        };
        assert!(wants(&[], "json"));
        assert!(wants(&["dep"], "depth-10"));
        assert!(wants(&["json", "depth-?0"], "depth-10"));
        assert!(!wants(&["depth-?0"], "depth-200"));
        assert!(!wants(&["pth*"], "depth-10"));
    }

    #[test]
    fn the_flags_hold_together() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let help = Options::command().render_help().to_string();
        assert!(help.starts_with("Examples:\n  cargo run "), "{help}");
    }
}
