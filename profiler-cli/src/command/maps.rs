//! `profiler-cli maps`: loads a dump and shows the address space of the process at an instant, as
//! text, SVG or JSON. Symbols are not needed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};

use super::Failure;
use super::input::{DumpArg, load_profile, print_recording_warnings};
use super::output::{Audience, JsonArg, Target, format_of_output};
use crate::analyze::address_space::{Maps, SpaceAtInstant, maps};
use crate::load::LoadOptions;
use crate::render::maps_text::MapsDetail;
use crate::render::{json, maps_svg, maps_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli maps server.4711.alloc                    segments, and who has the memory
  profiler-cli maps server.4711.alloc --at end --all     every mapping at the end
  profiler-cli maps server.4711.alloc --picture
  profiler-cli maps server.4711.alloc -o space.svg
  profiler-cli maps server.4711.alloc --json | jq '.instants[].heap'
";

/// Options of `maps`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct MapsArgs {
    /// The dump.
    #[command(flatten)]
    pub dump: DumpArg,
    /// JSON instead of `format`.
    #[command(flatten)]
    pub json: JsonArg,
    /// The instant: start, peak (most live bytes of the heap), rss-peak, end, or mark:NAME.
    ///
    /// The recorder looks at the address space at the start and the end, when the process has grown
    /// by an eighth, and soon after a mark. JSON has all instants.
    #[arg(long, value_name = "INSTANT", default_value = "rss-peak")]
    pub at: String,
    /// Draw the address space, from the highest address down.
    #[arg(long)]
    pub picture: bool,
    /// List every mapping instead of the kinds of segments.
    #[arg(long, conflicts_with = "picture")]
    pub all: bool,
    /// Format of the output. [default: text; with --output by its extension: .svg, .json, .txt]
    #[arg(long, value_enum, conflicts_with = "json")]
    pub format: Option<MapsFormat>,
    /// File for the output; - is stdout.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// How `maps` shows the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MapsFormat {
    /// Tables
    Text,
    /// A picture
    Svg,
    /// The same as --json
    Json,
}

/// Runs `profiler-cli maps`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &MapsArgs) -> Result<ExitCode, Failure> {
    let options = LoadOptions { layouts: true, ..LoadOptions::default() };
    let profile = load_profile(&args.dump.path, &options)?;
    let maps = maps(&profile);
    let shown = chosen(&maps, &args.at).with_context(|| args.dump.path.display().to_string())?;
    let by_option = if args.json.json { Some(MapsFormat::Json) } else { args.format };
    let format = format_of_output(by_option, args.output.as_deref(), &ENDINGS)?;
    let detail = match (args.picture, args.all) {
        (true, _) => MapsDetail::Picture,
        (_, true) => MapsDetail::Mappings,
        _ => MapsDetail::Kinds,
    };
    let audience = if format == MapsFormat::Text { Audience::People } else { Audience::Programs };
    Target::of_option(args.output.as_deref(), &args.dump.path).write(audience, |out| match format {
        MapsFormat::Text => maps_text::write(out, &maps, shown, detail),
        MapsFormat::Svg => maps_svg::write(out, &maps, shown),
        MapsFormat::Json => json::write(out, &maps),
    })?;
    print_recording_warnings(&profile);
    Ok(ExitCode::SUCCESS)
}

/// Returns the instant with this name.
fn chosen<'a>(maps: &'a Maps, name: &str) -> anyhow::Result<&'a SpaceAtInstant> {
    if maps.instants.is_empty() {
        anyhow::bail!(
            "the dump has no list of mappings: it is of a version before 1.6, it was cut before the first list, or \
             the recorder could not read /proc/self/smaps"
        );
    }
    // A recording that was killed has no end; its last instant stands for it.
    let named = |wanted: &str| maps.instants.iter().find(|instant| instant.name == wanted);
    let found = named(name).or_else(|| if name == "end" { named("last") } else { None });
    found.with_context(|| {
        let names: Vec<&str> = maps.instants.iter().map(|instant| instant.name.as_str()).collect();
        format!("there is no instant {name:?}; there are {}", names.join(", "))
    })
}

const ENDINGS: [(&str, MapsFormat); 3] =
    [("txt", MapsFormat::Text), ("svg", MapsFormat::Svg), ("json", MapsFormat::Json)];
