//! The input of the commands that read a dump: the options they share, and how a dump is opened,
//! loaded and symbolized.
//!
//! In: the options. Out: a [`LoadedDump`] and a [`Filter`]. Progress bars and notes about a
//! recovered dump are printed to stderr. Nothing here may write to stdout.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::{FalseyValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use super::print_message;
use super::progress::ProgressLine;
use crate::analyze::filter::Filter;
use crate::analyze::summary::{warnings, warnings_of_recording};
use crate::dumps::place::resolve;
use crate::load::{LoadOptions, load};
use crate::names::stacks::Stacks;
use crate::names::symbolize::SymbolizeOptions;
use crate::pattern::Pattern;
use crate::profile::{Annotated, Profile};
use crate::units::Safe;

/// The dump to read.
#[derive(Debug, Args)]
pub struct DumpArg {
    /// Dump to read, as written by `profiler-cli run`; @last is the newest one of this workspace.
    #[arg(id = "dump", value_name = "DUMP", value_parser = dump_path(), value_hint = ValueHint::FilePath)]
    pub path: PathBuf,
}

/// Parses the path of a dump, which may be `@last`.
pub(super) fn dump_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| resolve(path).map_err(|error| format!("{error:#}")))
}

/// The dump to read, which part of it, and where names come from.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// The dump.
    #[command(flatten)]
    pub dump: DumpArg,
    /// Only stacks with a function that matches: part of its name, or the whole name with * and ?.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub function: Option<Pattern>,
    /// Only stacks with a source file that matches.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub file: Option<Pattern>,
    /// Only events of threads with a name that matches.
    ///
    /// Live bytes belong to the thread that gave the block its present size.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub thread: Option<Pattern>,
    /// Only stacks with a function of a crate that matches.
    #[arg(long = "crate", value_name = "PATTERN", help_heading = "Filters")]
    pub krate: Option<Pattern>,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// Where names come from.
#[derive(Clone, Debug, Args)]
pub struct SymbolArgs {
    /// Folder with copies of the recorded binaries or their debug files; may be given several
    /// times.
    #[arg(long, value_name = "DIR", env = "PROFILER_SYMBOLS", value_delimiter = ':', value_hint = ValueHint::DirPath, help_heading = "Symbols")]
    pub symbols: Vec<PathBuf>,
    /// Neither read nor write the symbol cache ($XDG_CACHE_HOME/alloc-tracker).
    #[arg(long, env = "PROFILER_NO_CACHE", value_parser = FalseyValueParser::new(), help_heading = "Symbols")]
    pub no_cache: bool,
}

impl InputArgs {
    /// Loads the dump, names its stacks, and makes the filter.
    ///
    /// # Errors
    /// If the dump cannot be read or symbolized, or if the filter accepts nothing.
    pub fn load(&self) -> anyhow::Result<(LoadedDump, Filter)> {
        let dump = LoadedDump::open(&self.dump.path, self.thread.as_ref(), self.symbols.options())?;
        let filter = self.filter_for(&dump, &[])?;
        Ok((dump, filter))
    }

    /// Makes the filter that the options ask for.
    ///
    /// # Errors
    /// If the filter accepts nothing: no frame of the dump, and none of these annotated functions.
    pub fn filter_for(&self, dump: &LoadedDump, annotated: &[Annotated]) -> anyhow::Result<Filter> {
        let filter =
            Filter { function: self.function.clone(), file: self.file.clone(), krate: self.krate.clone() };
        filter.check(&dump.stacks, annotated).with_context(|| self.dump.path.display().to_string())?;
        Ok(filter)
    }
}

impl SymbolArgs {
    /// Returns the options of the symbolizer: the folders that it searches, and its cache folder.
    pub fn options(&self) -> SymbolizeOptions {
        SymbolizeOptions {
            symbol_dirs: self.symbols.clone(),
            cache_dir: if self.no_cache { None } else { cache_dir() },
            ..SymbolizeOptions::default()
        }
    }
}

/// `$XDG_CACHE_HOME/alloc-tracker`, or `~/.cache/alloc-tracker` if that variable is not set.
fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("alloc-tracker"))
}

/// A dump, loaded and symbolized.
pub struct LoadedDump {
    /// The recording.
    pub profile: Profile,
    /// The stacks of the profile, with names.
    pub stacks: Stacks,
}

impl LoadedDump {
    /// Loads a dump and names its stacks.
    ///
    /// # Errors
    /// If the file is not a readable dump, or if the recorded program was rebuilt since.
    pub fn open(
        dump: &Path,
        thread: Option<&Pattern>,
        options: SymbolizeOptions,
    ) -> anyhow::Result<LoadedDump> {
        let profile = load_profile(dump, thread)?;
        let progress = ProgressLine::of_items("naming");
        let stacks =
            Stacks::resolve(&profile, options, &|done, total| progress.update(done as u64, total as u64))
                .with_context(|| dump.display().to_string())?;
        Ok(LoadedDump { profile, stacks })
    }

    /// Prints to stderr the warnings that the summary shows beside its figures. For the commands
    /// that show other figures.
    pub fn print_warnings(&self) {
        print_each(warnings(&self.profile, &self.stacks));
    }
}

/// Loads a dump without naming its stacks. Prints a note if the sidecar gave the last records.
///
/// # Errors
/// If the file is not a readable dump.
pub fn load_profile(dump: &Path, thread: Option<&Pattern>) -> anyhow::Result<Profile> {
    let progress = ProgressLine::of_bytes("reading");
    let options = LoadOptions { threads: thread.cloned(), ..LoadOptions::default() };
    let profile = load(dump, &options, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    if profile.trust.end.is_none() && profile.trust.recovered_bytes > 0 {
        print_message(format_args!(
            "{}: recovered {} bytes of the last records from {}",
            Safe(&dump.to_string_lossy()),
            profile.trust.recovered_bytes,
            Safe(&crate::dumps::sidecar::sidecar_path(dump).to_string_lossy())
        ));
    }
    Ok(profile)
}

/// Prints to stderr the warnings about a recording whose stacks were not named.
pub fn print_recording_warnings(profile: &Profile) {
    print_each(warnings_of_recording(profile));
}

fn print_each(warnings: Vec<String>) {
    for warning in warnings {
        print_message(Safe(&warning));
    }
}
