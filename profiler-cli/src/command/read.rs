//! The commands that read a dump: load, name, analyze, render.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::progress::Progress;
use super::{Failure, say};
use crate::analyze;
use crate::analyze::filter::Filter;
use crate::analyze::lines::Selection;
use crate::cli::{FlamegraphArgs, LeaksArgs, LinesArgs, LinesFormat, ReadArgs, SummaryArgs, SymbolArgs};
use crate::io_error::plain;
use crate::load::{LoadOptions, load};
use crate::names::stacks::Stacks;
use crate::names::symbolize::Options;
use crate::pattern::Pattern;
use crate::profile::{Annotated, Profile};
use crate::render::lines_text::Shape;
use crate::render::{
    flame_svg, json, leaks_text, lines_csv, lines_html, lines_memory_profiler, lines_text, summary_text,
};
use crate::source::{Elsewhere, Sources};
use crate::units::Safe;

/// A dump, loaded and named.
pub struct Opened {
    /// What was recorded.
    pub profile: Profile,
    /// With names.
    pub stacks: Stacks,
}

/// Rows that a person is shown unless they ask for more.
pub const DEFAULT_TOP: usize = 10;

/// Functions on a page, which one need not scroll through.
const DEFAULT_TOP_OF_PAGE: usize = 50;

/// `profiler-cli summary`.
///
/// # Errors
/// See [`Failure`].
pub fn summary(args: &SummaryArgs) -> Result<ExitCode, Failure> {
    let (opened, filter) = open_for(&args.read)?;
    let summary = analyze::summary::summary(&opened.profile, &opened.stacks, &filter, args.top);
    let mut out = stdout_for(args.read.json);
    if args.read.json {
        json::write(&mut out, &summary)?
    } else {
        summary_text::write(&mut out, &summary)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// `profiler-cli lines`.
///
/// # Errors
/// See [`Failure`].
pub fn lines(args: &LinesArgs) -> Result<ExitCode, Failure> {
    let options = Options { name_instances: args.split_generics, ..options(&args.read.symbols) };
    let (opened, filter) = open_unchecked(&args.read, options)?;
    check(&filter, &opened, &opened.profile.annotated, &args.read)?;
    let filtered = !filter.is_empty() || args.read.thread.is_some() || args.min_increment.is_some();
    let all = args.read.json || args.format() == LinesFormat::Csv || filtered;
    let default = if args.html.is_some() { DEFAULT_TOP_OF_PAGE } else { DEFAULT_TOP };
    let top = args.top.or((!all).then_some(default));
    let (roots, maps) = (args.source_root.clone(), args.path_map.clone());
    let sources = sources_of(&opened.profile).with(Elsewhere { roots, maps });
    let selection = Selection {
        full: args.full,
        top,
        sort: args.sort,
        min_increment: args.min_increment.unwrap_or(0),
        split_generics: args.split_generics,
        callers: args.callers,
    };
    let lines = analyze::lines::lines(&opened.profile, &opened.stacks, &sources, &filter, &selection);
    if let Some(path) = &args.html {
        let command = opened.profile.process.command();
        write_to(path, &args.read.dump, |out| lines_html::write(out, &lines, &command))?;
        say_warnings(&opened);
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = stdout_for(args.read.json || args.format() == LinesFormat::Csv);
    if args.read.json {
        json::write(&mut out, &lines)?
    } else {
        match args.format() {
            LinesFormat::Text => {
                let (columns, precision) = (args.columns.clone(), usize::from(args.precision));
                lines_text::write(&mut out, &lines, &Shape { columns, unit: args.unit, precision })?
            }
            LinesFormat::Csv => lines_csv::write(&mut out, &lines)?,
            LinesFormat::MemoryProfiler => {
                lines_memory_profiler::write(&mut out, &lines, usize::from(args.precision))?
            }
        }
    }
    out.flush()?;
    say_warnings(&opened);
    Ok(ExitCode::SUCCESS)
}

/// `profiler-cli leaks`.
///
/// # Errors
/// See [`Failure`].
pub fn leaks(args: &LeaksArgs) -> Result<ExitCode, Failure> {
    let (opened, filter) = open_for(&args.read)?;
    let top = args.top.or((!args.read.json).then_some(DEFAULT_TOP));
    let leaks = analyze::leaks::leaks(&opened.profile, &opened.stacks, &filter, args.full, top);
    let objection = args.fail_on_leak.and_then(|limit| objection(&leaks, &opened.profile, limit));
    let verdict = if objection.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let mut out = stdout_for(args.read.json);
    let written =
        if args.read.json { json::write(&mut out, &leaks) } else { leaks_text::write(&mut out, &leaks) };
    match written.and_then(|()| out.flush()) {
        // Whoever stopped reading still gets the verdict.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(verdict),
        other => other?,
    }
    say_warnings(&opened);
    if let Some(objection) = objection {
        say(objection);
    }
    Ok(verdict)
}

/// Why `--fail-on-leak` does not pass.
fn objection(leaks: &analyze::leaks::Leaks, profile: &Profile, limit: u64) -> Option<String> {
    if leaks.total_bytes > limit {
        let bytes = leaks.total_bytes;
        return Some(format!("{bytes} bytes are live at the end; --fail-on-leak allows {limit}"));
    }
    let exact = profile.trust.exact();
    (!exact).then(|| "the recording is not exact, so --fail-on-leak cannot pass: see the summary".to_owned())
}

/// `profiler-cli flamegraph`.
///
/// # Errors
/// See [`Failure`].
pub fn flamegraph(args: &FlamegraphArgs) -> Result<ExitCode, Failure> {
    let (opened, filter) = open_for(&args.read)?;
    let flame =
        analyze::flame::flame(&opened.profile, &opened.stacks, &filter, args.metric, args.full, args.top);
    if args.read.json {
        let mut out = stdout_for(true);
        json::write_flame(&mut out, &flame)?;
        out.flush()?;
        if args.output.is_none() {
            say_warnings(&opened);
            return Ok(ExitCode::SUCCESS);
        }
    }
    let path = args.output.clone().unwrap_or_else(|| svg_path(&args.read.dump));
    write_to(&path, &args.read.dump, |out| flame_svg::write(out, &flame))?;
    say_warnings(&opened);
    Ok(ExitCode::SUCCESS)
}

/// Where the flamegraph of a dump goes by default.
pub fn svg_path(dump: &Path) -> PathBuf {
    let mut path = dump.with_extension("svg");
    if path == dump {
        path.as_mut_os_string().push(".svg");
    }
    path
}

/// Draws into a file.
///
/// # Errors
/// If it cannot be written.
pub fn write_svg(path: &Path, flame: &analyze::flame::Flame, dump: &Path) -> anyhow::Result<()> {
    write_file(path, dump, |out| flame_svg::write(out, flame))
}

/// Writes to stdout if the path is `-`; else into the file, and says which. Never over the dump that it was made of.
pub(super) fn write_to(
    path: &Path,
    dump: &Path,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    if path == Path::new("-") {
        let mut out = io::BufWriter::new(io::stdout().lock());
        render(&mut out)?;
        out.flush()?;
    } else {
        write_file(path, dump, render)?;
        // Whoever does not listen has the file all the same.
        let _ = writeln!(anstream::stderr(), "{}", Safe(&path.to_string_lossy()));
    }
    Ok(())
}

fn write_file(
    path: &Path,
    dump: &Path,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    if identity(path).is_some_and(|file| Some(file) == identity(dump)) {
        bail!("cannot write {}: it is the dump itself", path.display());
    }
    let write = || {
        let mut out = io::BufWriter::new(File::create(path)?);
        render(&mut out)?;
        out.flush()
    };
    write().map_err(|error| anyhow::anyhow!("cannot write {}: {}", path.display(), plain(&error)))
}

/// Loads a dump, and says so if the end of it came from elsewhere.
pub(super) fn load_dump(dump: &Path, thread: Option<&Pattern>) -> anyhow::Result<Profile> {
    let reading = Progress::of_bytes("reading");
    let options = LoadOptions { threads: thread.cloned(), ..LoadOptions::default() };
    let profile = load(dump, &options, &mut |done, total| reading.tell(done, total))?;
    drop(reading);
    if profile.trust.end.is_none() && profile.trust.recovered_bytes > 0 {
        say(format_args!(
            "{}: recovered {} bytes of the last records from {}",
            Safe(&dump.to_string_lossy()),
            profile.trust.recovered_bytes,
            Safe(&crate::dumps::sidecar::sidecar_path(dump).to_string_lossy())
        ));
    }
    Ok(profile)
}

/// Loads a dump and names its stacks.
///
/// # Errors
/// If the file is no readable dump, or the recorded program was built anew since.
pub fn open(dump: &Path, thread: Option<&Pattern>, options: Options) -> anyhow::Result<Opened> {
    let profile = load_dump(dump, thread)?;
    let naming = Progress::of_items("naming");
    let stacks = Stacks::resolve(&profile, options, &|done, total| naming.tell(done as u64, total as u64))
        .with_context(|| dump.display().to_string())?;
    Ok(Opened { profile, stacks })
}

/// Where symbols are looked for.
pub fn options(symbols: &SymbolArgs) -> Options {
    Options {
        symbol_dirs: symbols.symbols.clone(),
        cache_dir: if symbols.no_cache { None } else { cache_dir() },
        ..Options::default()
    }
}

fn open_for(args: &ReadArgs) -> anyhow::Result<(Opened, Filter)> {
    let (opened, filter) = open_unchecked(args, options(&args.symbols))?;
    check(&filter, &opened, &[], args)?;
    Ok((opened, filter))
}

fn open_unchecked(args: &ReadArgs, options: Options) -> anyhow::Result<(Opened, Filter)> {
    let opened = open(&args.dump, args.thread.as_ref(), options)?;
    let filter =
        Filter { function: args.function.clone(), file: args.file.clone(), krate: args.krate.clone() };
    Ok((opened, filter))
}

/// Fails if the filter lets nothing through, of these annotated functions neither.
fn check(filter: &Filter, opened: &Opened, annotated: &[Annotated], args: &ReadArgs) -> anyhow::Result<()> {
    filter.check(&opened.stacks, annotated).with_context(|| args.dump.display().to_string())
}

/// Source files, compared with when the recorded program was built, as far as its file tells.
pub fn sources_of(profile: &Profile) -> Sources {
    let modified = std::fs::metadata(&profile.process.exe).and_then(|metadata| metadata.modified()).ok();
    let built = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let built_ns = built.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(u64::MAX);
    Sources::compared_with(built_ns.min(profile.process.started_unix_ns))
}

/// `$XDG_CACHE_HOME/alloc-tracker`, or the same below `~/.cache`.
fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("alloc-tracker"))
}

/// With colours where they are wanted; for machines as it is, so that nothing is taken for a colour and left out.
pub(super) fn stdout_for(machines: bool) -> Box<dyn Write> {
    let stdout = io::stdout();
    match machines {
        true => Box::new(io::BufWriter::new(stdout)),
        false => Box::new(io::BufWriter::new(anstream::AutoStream::auto(stdout))),
    }
}

/// What the summary says beside its figures, for the commands that show others.
fn say_warnings(opened: &Opened) {
    for warning in analyze::summary::warnings(&opened.profile, &opened.stacks) {
        say(Safe(&warning));
    }
}
