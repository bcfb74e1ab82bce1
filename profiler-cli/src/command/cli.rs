//! The command line: the list of commands and the options that all of them share.
//!
//! In: the definitions of each command's options, which stand in the command's own file. Out: the
//! whole command line, from which help, completions and the manual page are made. Nothing here does
//! any work.

use clap::{ArgMatches, Parser, Subcommand, ValueEnum};

use crate::command::cargo::CargoArgs;
use crate::command::check::CheckArgs;
use crate::command::completions::CompletionsArgs;
use crate::command::compress::CompressArgs;
use crate::command::diff::DiffArgs;
use crate::command::flamegraph::FlamegraphArgs;
use crate::command::leaks::LeaksArgs;
use crate::command::lines::LinesArgs;
use crate::command::man::ManArgs;
use crate::command::maps::MapsArgs;
use crate::command::peaks::PeaksArgs;
use crate::command::retained::RetainedArgs;
use crate::command::run::RunArgs;
use crate::command::snapshot::SnapshotArgs;
use crate::command::summary::SummaryArgs;
use crate::command::symbols::SymbolsArgs;
use crate::command::timeline::TimelineArgs;
use crate::command::tree::TreeArgs;

/// Memory profiler for programs that link alloc-tracker.
#[derive(Debug, Parser)]
#[command(
    version,
    before_help = EXAMPLES,
    after_help = EXIT_STATUS,
    propagate_version = true
)]
pub struct Cli {
    /// When to use colours.
    #[arg(long, value_enum, default_value_t = ColorWhen::Auto, global = true, env = "PROFILER_COLOR")]
    pub color: ColorWhen,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  profiler-cli run -- ./server --port 80        profile a program, then print the report
  profiler-cli cargo run --release              build it with debug info first
  profiler-cli cargo test                       profile tests, each program into its own dump
  profiler-cli leaks @last                      what is live at the end, by stack
  profiler-cli lines @last --function handle
  profiler-cli flamegraph server.4711.alloc -o peak.svg --metric peak
  profiler-cli timeline server.4711.alloc       live heap and RSS over time
";

/// One line for each paragraph: the terminal's width decides where lines break.
const EXIT_STATUS: &str = "\
@last is the newest dump of this workspace. Dumps go into target/alloc-tracker, or outside of a \
workspace into the working directory.
The nearest profiler.toml, from the working directory upwards, can set defaults for options.
Exit status: 0 success, 1 a check failed, 2 wrong usage or unreadable input. `run` passes on the \
exit status of the program, or 128+N if signal N killed it, and `cargo` passes on cargo's.";

impl Cli {
    /// Rejects options that the chosen output format would ignore. The definitions of the options
    /// cannot express this rule, because it depends on the value of another option.
    ///
    /// # Errors
    /// An error like those for the definitions, ready to be printed.
    pub fn reject_ignored_options(&self, matches: &ArgMatches) -> Result<(), clap::Error> {
        match (&self.command, matches.subcommand_matches("lines")) {
            (Command::Lines(args), Some(matches)) => args.reject_ignored_options(matches),
            _ => Ok(()),
        }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Profile a program that links alloc-tracker
    Run(RunArgs),
    /// Profile what cargo runs: run, test, bench, nextest; all of cargo's options are passed on
    Cargo(CargoArgs),
    /// Show totals, peak, sizes, top sites, threads, and whether the profile can be trusted
    Summary(SummaryArgs),
    /// Show memory line by line, for each function
    Lines(LinesArgs),
    /// Show what is live at the end, by stack, largest first
    Leaks(LeaksArgs),
    /// Show what the blocks of each site retain, and what holds them, by a snapshot
    Retained(RetainedArgs),
    /// Show what changed between two recordings, or between several runs of two builds
    Diff(DiffArgs),
    /// Fail if figures are above their budgets, or above a baseline
    Check(CheckArgs),
    /// Show the call tree with figures, from callers to callees or the other way
    Tree(TreeArgs),
    /// Take a snapshot of a program that is being recorded, to find out what holds its memory
    Snapshot(SnapshotArgs),
    /// Draw a flamegraph
    Flamegraph(FlamegraphArgs),
    /// List the highest local peaks of the live heap
    Peaks(PeaksArgs),
    /// Show the process over time: live heap, RSS, VSZ, swap, page faults, marks, calls
    Timeline(TimelineArgs),
    /// Show the address space: its segments, and who has the resident memory
    Maps(MapsArgs),
    /// Make dumps smaller; every command reads them as before
    Compress(CompressArgs),
    /// Put the names of their code into dumps, so that they outlive the program's build
    Symbols(SymbolsArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command into a folder
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;
    use crate::command::cargo::split;
    use crate::command::start::of_cargo_alloc;

    /// Parses an example as a shell would give it to this program. Returns the error, if any.
    fn refusal(line: &str) -> Option<String> {
        // What stands behind several spaces explains the example.
        let command = line.split("   ").next().unwrap_or_default();
        let command = command.split(['|', '>']).next().unwrap_or_default();
        let words = command.split_whitespace().map(|word| word.trim_matches('\''));
        // There need not be a dump, nor a folder with sources.
        let words = words.map(|word| match word {
            "@last" => OsString::from("last.alloc"),
            "../vendor" => OsString::from("."),
            other => OsString::from(other),
        });
        let mut words: Vec<OsString> = words.collect();
        if words[0] == "cargo" {
            words = of_cargo_alloc(words);
        }
        let words = split(&Cli::command(), words);
        Cli::command().try_get_matches_from(words).err().map(|error| format!("{line}: {error}"))
    }

    fn examples_of(text: &str) -> impl Iterator<Item = &str> {
        let lines = text.lines().map(|line| line.trim_start().trim_start_matches("$ "));
        lines.filter(|line| line.starts_with("profiler-cli ") || line.starts_with("cargo alloc "))
    }

    #[test]
    fn the_examples_of_every_help_are_valid() {
        let mut cli = Cli::command();
        cli.build();
        let commands = cli.get_subcommands().chain([&cli]);
        let helps = commands.filter_map(|command| command.get_before_help());
        let helps: Vec<String> = helps.map(ToString::to_string).collect();
        assert!(helps.len() > 9, "{helps:?}");
        for line in helps.iter().flat_map(|help| examples_of(help)) {
            assert_eq!(refusal(line), None);
        }
    }

    /// Code blocks only: a line of a console, or one that is indented.
    #[test]
    fn the_commands_of_the_documentation_are_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut count = 0;
        for page in
            ["README", "docs/LINES", "docs/LIMITS", "docs/PERFORMANCE", "docs/TIME", "examples/README"]
        {
            let text = std::fs::read_to_string(root.join(format!("{page}.md"))).unwrap();
            for line in examples_of(&text) {
                let line = line.split(" #").next().unwrap_or_default();
                assert_eq!(refusal(line), None, "{page}");
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn help_is_also_a_command() {
        for line in ["profiler-cli help run", "profiler-cli help"] {
            let error = Cli::command().try_get_matches_from(line.split(' ')).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}");
        }
    }
}
