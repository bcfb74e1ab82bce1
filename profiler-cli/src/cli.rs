//! The command line. Definitions only: help, completions and the man page come from here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::analyze::column::{OptionalColumn, TableOrder};
use crate::analyze::flame::Metric;
use crate::pattern::Pattern;
use crate::render::plot::Series;
use crate::source::PathMap;
use crate::units::{Unit, parse_bytes};

/// Memory profiler for programs that link alloc-tracker.
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
    before_help = MAIN_EXAMPLES,
    after_help = EXIT_STATUS,
    propagate_version = true
)]
pub struct Cli {
    /// When to use colours.
    #[arg(long, value_enum, default_value_t = ColorWhen::Auto, global = true, env = "PROFILER_COLOR")]
    pub color: ColorWhen,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What the definitions cannot say: options that the chosen shape would leave unheard.
    ///
    /// # Errors
    /// One for a person, as those of the definitions are.
    pub fn check(&self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let (Command::Lines(args), Some(matches)) = (&self.command, matches.subcommand_matches("lines"))
        else {
            return Ok(());
        };
        let unheard: &[&str] = match args.format() {
            LinesFormat::Text => &[],
            LinesFormat::Csv => &SHAPE_TEXT,
            LinesFormat::MemoryProfiler => &["columns", "unit", "callers"],
        };
        let given = |option: &&&str| matches.value_source(option) == Some(ValueSource::CommandLine);
        let Some(option) = unheard.iter().find(given) else { return Ok(()) };
        let format =
            args.format().to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let said = format!("the argument '--{option}' cannot be used with '--format {format}'");
        Err(Cli::command().error(ErrorKind::ArgumentConflict, said))
    }
}

/// Options of `lines` that say how its text looks.
pub const SHAPE_TEXT: [&str; 4] = ["columns", "unit", "precision", "callers"];

const MAIN_EXAMPLES: &str = "\
Examples:
  profiler-cli run -- ./server --port 80        profile a program, then print the report
  profiler-cli cargo --release --bin server     build it with debug info first
  profiler-cli leaks server.4711.alloc          what is live at the end, by stack
  profiler-cli lines server.4711.alloc --function handle
  profiler-cli flamegraph server.4711.alloc -o peak.svg --metric peak
  profiler-cli timeline server.4711.alloc      live heap and RSS over time
";

const EXIT_STATUS: &str = "\
Defaults for options may stand in the nearest profiler.toml from the working directory upwards.
Exit status: 0 fine, 1 a check failed, 2 wrong usage or unreadable input. `run` and `cargo` pass on
that of the program, 128+N if signal N killed it.";

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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Profile a program that links alloc-tracker
    #[command(
        before_help = "Examples:\n  profiler-cli run -- ./server --port 80\n  profiler-cli run -o %p.alloc --report none -- ./run-tests.sh\n"
    )]
    Run(RunArgs),
    /// Build with cargo, with debug info, and profile the result
    #[command(
        before_help = "Examples:\n  profiler-cli cargo --release --bin server -- --port 80\n  profiler-cli cargo -p parser --test roundtrip\n"
    )]
    Cargo(CargoArgs),
    /// Totals, peak, sizes, top sites, threads, and whether the profile can be trusted
    #[command(
        before_help = "Examples:\n  profiler-cli summary server.4711.alloc\n  profiler-cli summary server.4711.alloc --json | jq .peak_bytes\n"
    )]
    Summary(SummaryArgs),
    /// Memory line by line, for each function
    #[command(
        before_help = "Examples:\n  profiler-cli lines server.4711.alloc\n  profiler-cli lines server.4711.alloc --function 'server::handle*'\n  profiler-cli lines server.4711.alloc --file src/cache.rs --json\n  profiler-cli lines server.4711.alloc --columns peak,live,time --unit KiB\n  profiler-cli lines server.4711.alloc --sort live --min-increment 64KiB --callers\n  profiler-cli lines server.4711.alloc --path-map /build/app=.\n  profiler-cli lines server.4711.alloc --csv > lines.csv\n  profiler-cli lines server.4711.alloc --html lines.html\n"
    )]
    Lines(LinesArgs),
    /// What is live at the end, by stack, largest first
    #[command(
        before_help = "Examples:\n  profiler-cli leaks server.4711.alloc\n  profiler-cli leaks server.4711.alloc --fail-on-leak 1000000\n"
    )]
    Leaks(LeaksArgs),
    /// Draw a flamegraph
    #[command(
        before_help = "Examples:\n  profiler-cli flamegraph server.4711.alloc -o peak.svg\n  profiler-cli flamegraph server.4711.alloc -o leaks.svg --metric live --full\n"
    )]
    Flamegraph(FlamegraphArgs),
    /// The process over time: live heap, RSS, VSZ, swap, page faults, marks, calls
    #[command(
        before_help = "Examples:\n  profiler-cli timeline server.4711.alloc\n  profiler-cli timeline server.4711.alloc -o memory.svg\n  profiler-cli timeline server.4711.alloc --series heap,rss,vsz,minor-faults\n  profiler-cli timeline server.4711.alloc --csv > memory.csv\n"
    )]
    Timeline(TimelineArgs),
    /// Make dumps smaller; every command reads them as before
    #[command(
        before_help = "Examples:\n  profiler-cli compress server.4711.alloc\n  profiler-cli compress *.alloc\n",
        after_help = "`run` and `cargo` have done so already; this is for programs that were started without them.\nA dump that is not complete stays as it is."
    )]
    Compress(CompressArgs),
    /// Print a completion script for a shell
    #[command(
        before_help = "Examples:\n  profiler-cli completions bash > /etc/bash_completion.d/profiler-cli\n"
    )]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    #[command(
        before_help = "Examples:\n  profiler-cli man | man -l -\n  profiler-cli man -o /usr/local/share/man/man1\n"
    )]
    Man {
        /// A folder for the pages of all commands.
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<PathBuf>,
    },
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Recording and report.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// Where the recording goes and what is said about it.
#[derive(Debug, Args)]
pub struct RecordingArgs {
    /// The dump; %p is the process id. [default: PROGRAM.%p.alloc]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// What to print to stderr when the program has ended.
    #[arg(long, value_enum, default_value_t = Report::Full)]
    pub report: Report,
    /// When events come faster than they can be written: wait, or count them as lost.
    #[arg(long, value_enum, default_value_t = OnFull::Block, env = "PROFILER_ON_FULL")]
    pub on_full: OnFull,
    /// Record forked children too, each into a dump of its own; the dump's name needs %p.
    #[arg(long)]
    pub follow_forks: bool,
    /// What annotated functions note at each line besides: costs some microseconds a line.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT", env = "PROFILER_LINES")]
    pub lines: Vec<LineUsage>,
    /// Leave the dump as the program wrote it, several times as large.
    #[arg(long, env = "PROFILER_NO_COMPRESS", value_parser = FalseyValueParser::new())]
    pub no_compress: bool,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// What a thread does that records faster than can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// It waits: nothing is lost
    Block,
    /// Its events are counted as lost
    Drop,
}

/// What annotated functions note at each line besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineUsage {
    /// Resident memory of the process
    Rss,
    /// Minor and major page faults of the thread
    Faults,
}

/// What to print when the program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// Summary, line table of the function that allocates most, leaks; and a flamegraph beside the dump
    Full,
    /// The summary
    Summary,
    /// Only where the dump is
    None,
}

/// Options of `cargo`.
#[derive(Debug, Args)]
pub struct CargoArgs {
    /// Recording and report.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Package with the target.
    #[arg(short, long, value_name = "SPEC", help_heading = "Cargo's own options")]
    pub package: Option<String>,
    /// Profile this binary.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = "Cargo's own options")]
    pub bin: Option<String>,
    /// Profile this example.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = "Cargo's own options")]
    pub example: Option<String>,
    /// Profile this integration test.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = "Cargo's own options")]
    pub test: Option<String>,
    /// Profile this benchmark.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = "Cargo's own options")]
    pub bench: Option<String>,
    /// Profile the unit tests of the library.
    #[arg(long, group = "target_kind", help_heading = "Cargo's own options")]
    pub lib: bool,
    /// Build with optimizations.
    #[arg(short, long, conflicts_with = "profile", help_heading = "Cargo's own options")]
    pub release: bool,
    /// Build with this profile.
    #[arg(long, value_name = "PROFILE", help_heading = "Cargo's own options")]
    pub profile: Option<String>,
    /// Features to switch on.
    #[arg(short = 'F', long, value_name = "FEATURES", help_heading = "Cargo's own options")]
    pub features: Vec<String>,
    /// Switch all features on.
    #[arg(long, help_heading = "Cargo's own options")]
    pub all_features: bool,
    /// Leave the default features off.
    #[arg(long, help_heading = "Cargo's own options")]
    pub no_default_features: bool,
    /// Path of Cargo.toml.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Cargo's own options")]
    pub manifest_path: Option<PathBuf>,
    /// Folder for what is built.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Cargo's own options")]
    pub target_dir: Option<PathBuf>,
    /// Require that Cargo.lock is up to date.
    #[arg(long, help_heading = "Cargo's own options")]
    pub locked: bool,
    /// Do not use the network.
    #[arg(long, help_heading = "Cargo's own options")]
    pub offline: bool,
    /// Arguments for the program.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// Options of `compress`.
#[derive(Debug, Args)]
pub struct CompressArgs {
    /// The dumps.
    #[arg(required = true, value_name = "DUMP", value_hint = ValueHint::FilePath)]
    pub dumps: Vec<PathBuf>,
}

/// A dump to read, and what of it.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The dump that `profiler-cli run` has written.
    #[arg(value_name = "DUMP", value_hint = ValueHint::FilePath)]
    pub dump: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Only stacks with a function like this: part of its name, or a whole one with * and ?.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub function: Option<Pattern>,
    /// Only stacks with a source file like this.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub file: Option<Pattern>,
    /// Only events of threads with a name like this; what is live counts for the thread that gave it its size.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub thread: Option<Pattern>,
    /// Only stacks with a function of a crate like this.
    #[arg(long = "crate", value_name = "PATTERN", help_heading = "Filters")]
    pub krate: Option<Pattern>,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// Where names come from.
#[derive(Clone, Debug, Args)]
pub struct SymbolArgs {
    /// Folder with copies of the recorded binaries or their debug files; may be given several times.
    #[arg(long, value_name = "DIR", env = "PROFILER_SYMBOLS", value_delimiter = ':', value_hint = ValueHint::DirPath, help_heading = "Symbols")]
    pub symbols: Vec<PathBuf>,
    /// Neither use nor fill the symbol cache ($XDG_CACHE_HOME/alloc-tracker).
    #[arg(long, env = "PROFILER_NO_CACHE", value_parser = FalseyValueParser::new(), help_heading = "Symbols")]
    pub no_cache: bool,
}

/// Options of `summary`.
#[derive(Debug, Args)]
pub struct SummaryArgs {
    /// What to read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Rows in each table of sites.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
}

/// Options of `lines`.
#[derive(Debug, Args)]
pub struct LinesArgs {
    /// What to read; here --function, --file and --crate choose the functions that are shown.
    #[command(flatten)]
    pub read: ReadArgs,
    /// At most this many functions. [default: 10, with --html 50, with --json, --csv or a filter all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Show functions of the runtime as well.
    #[arg(long)]
    pub full: bool,
    /// Print one table for a spreadsheet, all columns, sizes in bytes: the same as --format csv.
    #[arg(long, conflicts_with_all = ["json", "html", "format"])]
    pub csv: bool,
    /// The shape of what is printed.
    #[arg(long, value_enum, default_value_t = LinesFormat::Text, conflicts_with = "json")]
    pub format: LinesFormat,
    /// Write one self-contained page with the annotated source instead; - is stdout.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["json", "format"])]
    pub html: Option<PathBuf>,
    /// More columns of the text; the other shapes have them all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "COLUMN", conflicts_with_all = ["json", "html", "csv"])]
    pub columns: Vec<OptionalColumn>,
    /// The unit of sizes in the text. [default: what fits each column]
    #[arg(long, value_enum, ignore_case = true, conflicts_with_all = ["json", "html", "csv"], help_heading = "Figures")]
    pub unit: Option<Unit>,
    /// Digits behind the point of sizes in the text.
    #[arg(long, value_name = "DIGITS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=9), conflicts_with_all = ["json", "html", "csv"], help_heading = "Figures")]
    pub precision: u8,
    /// Order of the functions. [default: annotated ones, then your own, then those of packages, by what they allocate]
    #[arg(long, value_enum)]
    pub sort: Option<TableOrder>,
    /// Only functions of which some line has changed the heap by this much, such as 4096, 64KiB or 1.5MiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Filters")]
    pub min_increment: Option<u64>,
    /// A table for each instance of a generic function: its types come from the debug info, or from symbols that name them.
    /// Annotated functions stay together.
    #[arg(long)]
    pub split_generics: bool,
    /// Below each table, from where the function was called when the heap changed; in the text and in JSON.
    #[arg(long, conflicts_with_all = ["html", "csv"])]
    pub callers: bool,
    /// Folder with sources that are not where they were compiled; the longest end of a path that is below it counts. May be
    /// given several times.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = parse_folder, help_heading = "Sources")]
    pub source_root: Vec<PathBuf>,
    /// Look for sources below NEW that were compiled below OLD; may be given several times.
    #[arg(long, value_name = "OLD=NEW", help_heading = "Sources")]
    pub path_map: Vec<PathMap>,
}

fn parse_folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(path) } else { Err("there is no such folder".to_owned()) }
}

impl LinesArgs {
    /// The shape that was asked for, by either option.
    pub fn format(&self) -> LinesFormat {
        if self.csv { LinesFormat::Csv } else { self.format }
    }
}

/// How `lines` prints its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LinesFormat {
    /// For people
    #[default]
    Text,
    /// One table for a spreadsheet, all columns, sizes in bytes
    Csv,
    /// Byte for byte the shape of Python's memory_profiler
    #[value(name = "memory_profiler")]
    MemoryProfiler,
}

/// Options of `leaks`.
#[derive(Debug, Args)]
pub struct LeaksArgs {
    /// What to read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// At most this many stacks. [default: 10, with --json all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Show the frames of the runtime as well.
    #[arg(long)]
    pub full: bool,
    /// Exit with 1 if more than this many bytes are live at the end, or if nobody can tell. The standard library itself
    /// keeps a few hundred bytes; with --crate the filters' own are counted.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub fail_on_leak: Option<u64>,
}

/// Options of `flamegraph`.
#[derive(Debug, Args)]
pub struct FlamegraphArgs {
    /// What to read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// The picture; - is stdout. [default: the dump's name with .svg]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// What the width of a frame stands for.
    #[arg(long, value_enum, default_value_t = Metric::Peak)]
    pub metric: Metric,
    /// Draw only this many stacks, the widest; the others become one. [default: all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Show the frames of the runtime as well.
    #[arg(long)]
    pub full: bool,
}

/// Options of `timeline`.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    /// The dump that `profiler-cli run` has written.
    #[arg(value_name = "DUMP", value_hint = ValueHint::FilePath)]
    pub dump: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// One table for a spreadsheet: the same as --format csv.
    #[arg(long, conflicts_with_all = ["json", "format"])]
    pub csv: bool,
    /// The shape of the picture. [default: text, with --output by the end of its name: .svg, .csv, .json, .txt]
    #[arg(long, value_enum, conflicts_with = "json")]
    pub format: Option<TimelineFormat>,
    /// Write it here; - is stdout.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// What the picture shows; CSV and JSON have everything.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SERIES", default_values_t = [Series::Heap, Series::Rss])]
    pub series: Vec<Series>,
    /// Only calls of annotated functions with a name like this.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub function: Option<Pattern>,
    /// Only calls on threads with a name like this; the heap is always that of the process.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub thread: Option<Pattern>,
    /// Columns of the text. [default: those of the terminal, else 100]
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(30..=1000))]
    pub width: Option<u16>,
    /// Rows of the text's first panel.
    #[arg(long, value_name = "ROWS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(4..=200))]
    pub height: u16,
}

/// How `timeline` shows the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    /// A plot of characters
    Text,
    /// A picture
    Svg,
    /// One table for a spreadsheet
    Csv,
    /// The same as --json
    Json,
}
