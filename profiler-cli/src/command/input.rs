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
use crate::load::{LoadOptions, MomentSpec, Period, load, parse_short_lived};
use crate::names::stacks::Stacks;
use crate::names::symbolize::SymbolizeOptions;
use crate::pattern::Pattern;
use crate::profile::{Annotated, Profile, ShortLivedWithin};
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
    /// Only stacks with a source file that matches; of yours, unless none of them matches.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub file: Option<Pattern>,
    /// Only events of threads with a name that matches, of the thread `tid:N`, or of all threads
    /// without a name (`unnamed:`).
    ///
    /// The kernel keeps the first 15 bytes of a name. Live bytes belong to the thread that gave the
    /// block its present size.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub thread: Option<Pattern>,
    /// Only stacks with a function of a crate that matches.
    #[arg(long = "crate", value_name = "PATTERN", help_heading = "Filters")]
    pub krate: Option<Pattern>,
    /// Leave out stacks with a function, source file or crate that matches; may be given several
    /// times.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub exclude: Vec<Pattern>,
    /// Which part of the recording.
    #[command(flatten)]
    pub time: TimeArgs,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// The interval of the recording that a report is about.
#[derive(Clone, Debug, Default, Args)]
pub struct IntervalArgs {
    /// Only what happened after this moment: 30s, -30s, mark:NAME, mark:NAME#2, event:N, peak.
    ///
    /// `30s`, `1.5ms` and `2m` count from the start of the recording, `-30s` counts back from its
    /// end. `mark:ready` is the first time that the program set the mark, `mark:ready#2` the
    /// second. `event:N` is the moment after the N-th heap event of the process. `teardown` is the
    /// moment when the program began to free its memory at its end. The moment itself does not
    /// belong to the interval: events after --from and up to --to count.
    ///
    /// Live then means: born in the interval and still live at its end. The peak is that of the
    /// interval, with all blocks that were live then.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, help_heading = "Time")]
    pub from: Option<MomentSpec>,
    /// Only what happened up to this moment; a moment as for --from, or end.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, help_heading = "Time")]
    pub to: Option<MomentSpec>,
}

/// What short-lived means.
#[derive(Clone, Debug, Default, Args)]
pub struct ShortLivedArg {
    /// How soon a block has to be freed to count as short-lived: 1000events, 10ms. [default:
    /// 1000events]
    ///
    /// Events are the heap events of the thread that allocated the block.
    #[arg(long, value_name = "SPAN", value_parser = parse_short_lived, help_heading = "Figures")]
    pub short_lived_within: Option<ShortLivedWithin>,
}

impl ShortLivedArg {
    /// Returns what the user asked for, or the default.
    pub fn within(&self) -> ShortLivedWithin {
        self.short_lived_within.unwrap_or_default()
    }
}

/// The moment, or the interval, of the recording that a report is about.
#[derive(Clone, Debug, Default, Args)]
pub struct TimeArgs {
    /// What was live at this moment: 30s, -30s, mark:NAME, mark:NAME#2, event:N, peak, end.
    ///
    /// The report is that of a recording that ends there. For the moments, see --from.
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, conflicts_with_all = ["from", "to"], help_heading = "Time")]
    pub at: Option<MomentSpec>,
    /// The interval.
    #[command(flatten)]
    pub interval: IntervalArgs,
}

impl IntervalArgs {
    /// Returns the period that the options name; `None` for the whole recording.
    pub fn period(&self) -> Option<Period> {
        let is_given = self.from.is_some() || self.to.is_some();
        let to = || self.to.clone().unwrap_or_else(MomentSpec::end);
        is_given.then(|| Period { from: self.from.clone(), to: to() })
    }
}

impl TimeArgs {
    /// Returns the period that the options name; `None` for the whole recording.
    pub fn period(&self) -> Option<Period> {
        let at = self.at.clone().map(|at| Period { from: None, to: at });
        at.or_else(|| self.interval.period())
    }
}

/// Where names come from.
#[derive(Clone, Debug, Args)]
pub struct SymbolArgs {
    /// Copy of a recorded binary, its debug file, or a folder with such files; may be given several
    /// times.
    #[arg(long, value_name = "PATH", env = "PROFILER_SYMBOLS", value_delimiter = ':', value_hint = ValueHint::AnyPath, help_heading = "Symbols")]
    pub symbols: Vec<PathBuf>,
    /// Treat crates that match as your own code too; may be given several times.
    ///
    /// Your own code is that of the packages of your workspace. Packages from a registry, from git
    /// or in a folder such as vendor are dependencies.
    #[arg(long, value_name = "CRATE", env = "PROFILER_OWN", value_delimiter = ',', help_heading = "Symbols")]
    pub own: Vec<Pattern>,
    /// Neither read nor write the symbol cache ($XDG_CACHE_HOME/alloc-tracker).
    #[arg(long, env = "PROFILER_NO_CACHE", value_parser = FalseyValueParser::new(), help_heading = "Symbols")]
    pub no_cache: bool,
}

impl InputArgs {
    /// Loads the dump, names its stacks, and makes the filter. With `short_lived`, the profile has
    /// lifetimes.
    ///
    /// # Errors
    /// If the dump cannot be read or symbolized, or if the filter accepts nothing.
    pub fn load(&self, short_lived: Option<ShortLivedWithin>) -> anyhow::Result<(LoadedDump, Filter)> {
        let dump = self.open(short_lived, self.symbols.options())?;
        let filter = self.filter_for(&dump, &[])?;
        Ok((dump, filter))
    }

    /// Loads another dump than that of the command line with these options, and names its stacks.
    ///
    /// # Errors
    /// If the dump cannot be read or symbolized, or if it has no such thread or moment.
    pub fn open_another(&self, dump: &Path, loading: LoadOptions) -> anyhow::Result<LoadedDump> {
        LoadedDump::open(dump, loading, self.symbols.options())
    }

    /// Loads the dump and names its stacks. With `short_lived`, the profile has lifetimes.
    ///
    /// # Errors
    /// If the dump cannot be read or symbolized, or if it has no such thread or moment.
    pub fn open(
        &self,
        short_lived: Option<ShortLivedWithin>,
        options: SymbolizeOptions,
    ) -> anyhow::Result<LoadedDump> {
        let loading = LoadOptions { short_lived, ..self.load_options() };
        LoadedDump::open(&self.dump.path, loading, options)
    }

    /// Returns the options of loading that choose threads and events.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { threads: self.thread.clone(), period: self.time.period(), ..LoadOptions::default() }
    }

    /// Makes the filter that the options ask for.
    ///
    /// # Errors
    /// If the filter accepts nothing: no frame of the dump, and none of these annotated functions.
    pub fn filter_for(&self, dump: &LoadedDump, annotated: &[Annotated]) -> anyhow::Result<Filter> {
        let filter = self.unchecked_filter(dump);
        filter.check(&dump.stacks, annotated).with_context(|| self.dump.path.display().to_string())?;
        Ok(filter)
    }

    /// Makes the filter that the options ask for. It may accept nothing.
    pub fn unchecked_filter(&self, dump: &LoadedDump) -> Filter {
        let mut filter = Filter {
            function: self.function.clone(),
            file: self.file.clone(),
            own_files_only: false,
            krate: self.krate.clone(),
            exclude: self.exclude.clone(),
        };
        filter.prefer_own_files(&dump.stacks);
        filter
    }

    /// Returns the options of the filter as a user gives them; empty if there are none.
    pub fn filter_options(&self) -> String {
        let given = [
            ("--function", &self.function),
            ("--file", &self.file),
            ("--thread", &self.thread),
            ("--crate", &self.krate),
        ];
        let given = given.into_iter().filter_map(|(name, pattern)| Some((name, pattern.as_ref()?)));
        let all = given.chain(self.exclude.iter().map(|pattern| ("--exclude", pattern)));
        all.map(|(name, pattern)| format!("{name} {pattern}")).collect::<Vec<_>>().join(" ")
    }
}

impl SymbolArgs {
    /// Returns the options of the symbolizer: the paths that it searches, and its cache folder.
    pub fn options(&self) -> SymbolizeOptions {
        SymbolizeOptions {
            symbol_dirs: self.symbols.clone(),
            own_crates: self.own.clone(),
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
    /// If the file is not a readable dump, or if a path with symbols cannot be read. Another build
    /// of the recorded program is no error: its code has kept names or addresses.
    pub fn open(dump: &Path, loading: LoadOptions, options: SymbolizeOptions) -> anyhow::Result<LoadedDump> {
        let profile = load_profile(dump, &loading)?;
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
pub fn load_profile(dump: &Path, options: &LoadOptions) -> anyhow::Result<Profile> {
    let progress = ProgressLine::of_bytes("reading");
    let profile = load(dump, options, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    // While the program runs, the sidecar always has the last records.
    let has_ended = profile.trust.end.is_none() && !profile.trust.is_being_written;
    if has_ended && profile.trust.recovered_bytes > 0 {
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
