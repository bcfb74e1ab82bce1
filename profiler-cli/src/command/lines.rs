//! `profiler-cli lines`: loads a dump, computes memory line by line, and prints tables in one of
//! five formats: text, JSON, CSV, HTML, and the format of Python's memory_profiler.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, ValueEnum, ValueHint};

use super::Failure;
use super::input::{InputArgs, ShortLivedArg};
use super::output::{Audience, DEFAULT_TOP, JsonArg, Target, text_width};
use super::sources::SourceFiles;
use crate::analyze::column::{OptionalColumn, TableOrder};
use crate::analyze::lines::{LineSelection, lines};
use crate::command::cli::Cli;
use crate::names::symbolize::SymbolizeOptions;
use crate::render::lines_text::Shape;
use crate::render::{json, lines_csv, lines_html, lines_memory_profiler, lines_text};
use crate::source::{PathMap, SourceSearch};
use crate::units::{SizeUnit, parse_bytes};

const EXAMPLES: &str = "\
Examples:
  profiler-cli lines server.4711.alloc
  profiler-cli lines server.4711.alloc --function 'server::handle*'
  profiler-cli lines server.4711.alloc --file src/cache.rs --json
  profiler-cli lines server.4711.alloc --from mark:warm --to peak
  profiler-cli lines server.4711.alloc --columns peak,live,time --unit KiB
  profiler-cli lines server.4711.alloc --sort live --min-increment 64KiB --callers
  profiler-cli lines server.4711.alloc --path-map /build/app=.
  profiler-cli lines server.4711.alloc --csv > lines.csv
  profiler-cli lines server.4711.alloc --html lines.html
";

/// Options of `lines`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct LinesArgs {
    /// What to read. For `lines` the options --function, --file and --crate choose the functions
    /// that are shown.
    #[command(flatten)]
    pub input: InputArgs,
    /// JSON instead of `format`.
    #[command(flatten)]
    pub json: JsonArg,
    /// At most this many functions. [default: 10, with --html 50, with --json, --csv or a filter
    /// all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Show functions of the runtime too.
    #[arg(long)]
    pub full: bool,
    /// Print one CSV table with all columns and sizes in bytes; the same as --format csv.
    #[arg(long, conflicts_with_all = ["json", "html", "format"])]
    pub csv: bool,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = LinesFormat::Text, conflicts_with = "json")]
    pub format: LinesFormat,
    /// Write one self-contained HTML page with the annotated source; - is stdout.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["json", "format"])]
    pub html: Option<PathBuf>,
    /// Columns to add to the text; the other formats have all columns.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "COLUMN", conflicts_with_all = ["json", "html", "csv"])]
    pub columns: Vec<OptionalColumn>,
    /// Unit of sizes in the text. [default: the unit that fits each column]
    #[arg(long, value_enum, ignore_case = true, conflicts_with_all = ["json", "html", "csv"], help_heading = "Figures")]
    pub unit: Option<SizeUnit>,
    /// Digits after the decimal point of sizes in the text.
    #[arg(long, value_name = "DIGITS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=9), conflicts_with_all = ["json", "html", "csv"], help_heading = "Figures")]
    pub precision: u8,
    /// What short-lived means.
    #[command(flatten)]
    pub short_lived: ShortLivedArg,
    /// Order of the functions. [default: annotated, then your own, then those of packages; each by
    /// bytes allocated]
    #[arg(long, value_enum)]
    pub sort: Option<TableOrder>,
    /// Only functions with a line that changed the heap by this much, such as 4096, 64KiB or
    /// 1.5MiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Filters")]
    pub min_increment: Option<u64>,
    /// Print one table for each instance of a generic function.
    ///
    /// The types come from the debug info, or from symbols that name them. The instances of an
    /// annotated function stay together.
    #[arg(long)]
    pub split_generics: bool,
    /// Show below each table where the function was called from when the heap changed; text and
    /// JSON only.
    #[arg(long, conflicts_with_all = ["html", "csv"])]
    pub callers: bool,
    /// Folder with sources that were moved since the build; may be given several times.
    ///
    /// A recorded path is searched below DIR by its end: the longest end that exists there is used.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = parse_folder, help_heading = "Sources")]
    pub source_root: Vec<PathBuf>,
    /// Search below NEW for sources that were compiled below OLD; may be given several times.
    #[arg(long, value_name = "OLD=NEW", help_heading = "Sources")]
    pub path_map: Vec<PathMap>,
}

fn parse_folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(path) } else { Err("there is no such folder".to_owned()) }
}

/// How `lines` prints its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LinesFormat {
    /// Tables for people
    #[default]
    Text,
    /// One table with all columns and sizes in bytes
    Csv,
    /// The format of Python's memory_profiler, byte for byte
    #[value(name = "memory_profiler")]
    MemoryProfiler,
    /// Chosen by `--json` alone.
    #[value(skip)]
    Json,
    /// Chosen by `--html` alone.
    #[value(skip)]
    Html,
}

/// Options of `lines` that only the text uses.
pub const TEXT_OPTIONS: [&str; 4] = ["columns", "unit", "precision", "callers"];

impl LinesArgs {
    /// Returns the format that the options `--html`, `--json`, `--csv` and `--format` ask for.
    pub fn chosen_format(&self) -> LinesFormat {
        match (&self.html, self.json.json, self.csv) {
            (Some(_), _, _) => LinesFormat::Html,
            (None, true, _) => LinesFormat::Json,
            (None, false, true) => LinesFormat::Csv,
            (None, false, false) => self.format,
        }
    }

    /// Rejects options of the text that were given together with `--format` of another format.
    ///
    /// # Errors
    /// An error like those for the definitions, ready to be printed.
    pub(crate) fn reject_ignored_options(&self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let ignored: &[&str] = match self.chosen_format() {
            // The definitions reject what `--json` and `--html` would ignore.
            LinesFormat::Text | LinesFormat::Json | LinesFormat::Html => &[],
            LinesFormat::Csv => &TEXT_OPTIONS,
            LinesFormat::MemoryProfiler => &["columns", "unit", "callers"],
        };
        let given = |option: &&&str| matches.value_source(option) == Some(ValueSource::CommandLine);
        let Some(option) = ignored.iter().find(given) else { return Ok(()) };
        let format = self
            .chosen_format()
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        let text = format!("the argument '--{option}' cannot be used with '--format {format}'");
        Err(Cli::command().error(ErrorKind::ArgumentConflict, text))
    }

    /// Returns the number of functions that are shown at most; `None` for all functions.
    fn limit(&self, filtered: bool) -> Option<usize> {
        let shows_all = self.json.json || self.csv || self.format == LinesFormat::Csv || filtered;
        let default = if self.html.is_some() { DEFAULT_TOP_OF_PAGE } else { DEFAULT_TOP };
        self.top.or((!shows_all).then_some(default))
    }
}

/// Number of functions on an HTML page by default: more than in the text, because the page has
/// links and a search box.
const DEFAULT_TOP_OF_PAGE: usize = 50;

/// Runs `profiler-cli lines`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &LinesArgs) -> Result<ExitCode, Failure> {
    let input = &args.input;
    let options = SymbolizeOptions { name_instances: args.split_generics, ..input.symbols.options() };
    let dump = input.open(Some(args.short_lived.within()), options)?;
    let filter = input.filter_for(&dump, &dump.profile.annotated)?;
    let (roots, maps) = (args.source_root.clone(), args.path_map.clone());
    let sources = SourceFiles::of(&dump.profile, SourceSearch { roots, maps });
    let selection = LineSelection {
        full: args.full,
        top: args.limit(!filter.is_empty() || input.thread.is_some() || args.min_increment.is_some()),
        sort: args.sort,
        min_increment: args.min_increment.unwrap_or(0),
        split_generics: args.split_generics,
        callers: args.callers,
    };
    let lines = lines(&dump.profile, &dump.stacks, &sources, &filter, &selection);
    let format = args.chosen_format();
    let audience = match format {
        LinesFormat::Text | LinesFormat::MemoryProfiler => Audience::People,
        LinesFormat::Csv | LinesFormat::Json | LinesFormat::Html => Audience::Programs,
    };
    let precision = usize::from(args.precision);
    Target::of_option(args.html.as_deref(), &input.dump.path).write(audience, |out| match format {
        LinesFormat::Text => {
            let width = text_width(std::io::stdout());
            let shape = Shape { columns: args.columns.clone(), unit: args.unit, precision, width };
            lines_text::write(out, &lines, &shape)
        }
        LinesFormat::MemoryProfiler => lines_memory_profiler::write(out, &lines, precision),
        LinesFormat::Csv => lines_csv::write(out, &lines),
        LinesFormat::Json => json::write(out, &lines),
        LinesFormat::Html => lines_html::write(out, &lines, &dump.profile.process.command()),
    })?;
    dump.print_warnings();
    Ok(ExitCode::SUCCESS)
}
