//! `profiler-cli retained`: loads a dump and a snapshot, and prints what the blocks of each site
//! retain, and what holds them, as text or JSON.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::input::InputArgs;
use super::judged::{ListedBlocks, NO_SNAPSHOT, SnapshotChoice};
use super::output::{Audience, DEFAULT_TOP, JsonArg, Target, text_width};
use crate::analyze::retained::retained;
use crate::render::{json, retained_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli retained server.4711.alloc
  profiler-cli retained server.4711.alloc --snapshot warm --top 30
  profiler-cli flamegraph server.4711.alloc --metric retained     the same as a picture
";

/// Options of `retained`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct RetainedArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// The snapshot that tells what holds the blocks.
    #[command(flatten)]
    pub snapshot: SnapshotChoice,
    /// At most this many sites. [default: 10, with --json 10000]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
}

/// Runs `profiler-cli retained`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &RetainedArgs) -> Result<ExitCode, Failure> {
    let (dump, snapshot, filter) = args.snapshot.load(&args.input, args.input.load_options())?;
    let top = args.top.unwrap_or(if args.output.json { JSON_TOP } else { DEFAULT_TOP });
    let symbols = args.input.symbols.options();
    let retained =
        args.snapshot.judge(&dump, snapshot.as_ref(), symbols, ListedBlocks::AtSnapshot, |judged| {
            judged.map(|judged| retained(&dump.profile, &dump.stacks, &filter, judged, top))
        })?;
    let Some(retained) = retained else {
        let dump = args.input.dump.path.display();
        return Err(anyhow::anyhow!("{dump}: {NO_SNAPSHOT}").into());
    };
    match args.output.json {
        true => Target::Stdout.write(Audience::Programs, |out| json::write(out, &retained))?,
        false => Target::Stdout.write(Audience::People, |out| {
            retained_text::write(out, &retained, text_width(std::io::stdout()))
        })?,
    }
    dump.print_warnings();
    Ok(ExitCode::SUCCESS)
}

/// The most sites in JSON unless the user asks for more.
const JSON_TOP: usize = 10_000;
