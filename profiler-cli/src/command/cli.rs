//! The command line: the list of commands and the options that all of them share.
//!
//! In: the definitions of each command's options, which stand in the command's own file. Out: the
//! whole command line, from which help, completions and the manual page are made. Nothing here does
//! any work.

use clap::{ArgMatches, Parser, Subcommand, ValueEnum};

use crate::command::cargo::CargoArgs;
use crate::command::completions::CompletionsArgs;
use crate::command::compress::CompressArgs;
use crate::command::flamegraph::FlamegraphArgs;
use crate::command::leaks::LeaksArgs;
use crate::command::lines::LinesArgs;
use crate::command::man::ManArgs;
use crate::command::peaks::PeaksArgs;
use crate::command::run::RunArgs;
use crate::command::summary::SummaryArgs;
use crate::command::symbols::SymbolsArgs;
use crate::command::timeline::TimelineArgs;
use crate::command::tree::TreeArgs;

/// Memory profiler for programs that link alloc-tracker.
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
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
  profiler-cli cargo --release --bin server     build it with debug info first
  profiler-cli leaks server.4711.alloc          what is live at the end, by stack
  profiler-cli lines server.4711.alloc --function handle
  profiler-cli flamegraph server.4711.alloc -o peak.svg --metric peak
  profiler-cli timeline server.4711.alloc       live heap and RSS over time
";

const EXIT_STATUS: &str = "\
The nearest profiler.toml, from the working directory upwards, can set defaults for options.
Exit status: 0 success, 1 a check failed, 2 wrong usage or unreadable input. `run` and `cargo` pass
on the exit status of the program, or 128+N if signal N killed it.";

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
    /// Build a program with cargo and debug info, then profile it
    Cargo(CargoArgs),
    /// Show totals, peak, sizes, top sites, threads, and whether the profile can be trusted
    Summary(SummaryArgs),
    /// Show memory line by line, for each function
    Lines(LinesArgs),
    /// Show what is live at the end, by stack, largest first
    Leaks(LeaksArgs),
    /// Show the call tree with figures, from callers to callees or the other way
    Tree(TreeArgs),
    /// Draw a flamegraph
    Flamegraph(FlamegraphArgs),
    /// List the highest local peaks of the live heap
    Peaks(PeaksArgs),
    /// Show the process over time: live heap, RSS, VSZ, swap, page faults, marks, calls
    Timeline(TimelineArgs),
    /// Make dumps smaller; every command reads them as before
    Compress(CompressArgs),
    /// Put the names of their code into dumps, so that they outlive the program's build
    Symbols(SymbolsArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command into a folder
    Man(ManArgs),
}
