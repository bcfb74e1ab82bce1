//! `run`: starts a program with the recorder switched on, waits, closes what it left behind, and reports.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use alloc_dump::trailer::EndReason;
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use super::compress::{Refusal, compress_dump, on_signals};
use super::read::{DEFAULT_TOP, Opened, open, options, svg_path, write_svg};
use super::sources::SourceFiles;
use super::{Failure, say};
use crate::analyze::filter::Filter;
use crate::analyze::flame::{Metric, flame};
use crate::analyze::leaks::leaks;
use crate::analyze::lines::{Selection, lines};
use crate::analyze::site::add_evidence;
use crate::analyze::summary::summary;
use crate::cli::{LineUsage, OnFull, RecordingArgs, Report, RunArgs};
use crate::dumps::close::{Closed, close};
use crate::dumps::place::{Place, has_pid};
use crate::load::{plain, writer_of};
use crate::names::evidence::KeptEvidence;
use crate::render::lines_text::Shape;
use crate::render::{leaks_text, lines_text, summary_text};
use crate::source::SourceSearch;
use crate::units::Safe;

/// `profiler-cli run`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    profile(&args.command, &args.recording, &Surroundings::default())
}

/// What a program finds when it starts, unless it is what this process has.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Its working directory.
    pub folder: Option<PathBuf>,
    /// Variables of its environment.
    pub variables: Vec<(OsString, OsString)>,
}

/// Profiles a command line; the exit status is the program's.
///
/// # Errors
/// See [`Failure`].
pub fn profile(
    command: &[OsString],
    recording: &RecordingArgs,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let (program, arguments) = command.split_first().context("no program to run")?;
    let pattern = match &recording.output {
        Some(path) => path.clone(),
        None => default_output(program),
    };
    let pattern = std::path::absolute(&pattern).context("the dump needs a file name")?;
    if recording.follow_forks && !has_pid(&pattern) {
        let pattern = pattern.display();
        return Err(anyhow::anyhow!("{pattern}: with --follow-forks the dump's name needs %p in it").into());
    }
    let token = run_name();
    // First: from here on a signal does not end this process, which may have set something aside.
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(|error| anyhow::anyhow!("cannot watch for signals: {}", plain(&error)))?;
    let place = Place::prepare(&pattern, &token)?;
    let mut started = Command::new(program);
    if let Some(folder) = &surroundings.folder {
        started.current_dir(folder);
    }
    let mut child = started
        .args(arguments)
        .envs(surroundings.variables.iter().map(|(name, value)| (name, value)))
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &pattern)
        .env("ALLOC_TRACKER_RUN", &token)
        .env("ALLOC_TRACKER_ON_FULL", if recording.on_full == OnFull::Drop { "drop" } else { "block" })
        .env("ALLOC_TRACKER_LINES", names_of(&recording.lines))
        .env("ALLOC_TRACKER_FOLLOW", if recording.follow_forks { "1" } else { "0" })
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run {}: {}", program.display(), plain(&error)))?;
    let pid = child.id();
    let handle = signals.handle();
    let forwarder = std::thread::spawn(move || forward(&mut signals, pid));
    let status = wait(&mut child);
    handle.close();
    // The thread ends with the handle; it cannot panic.
    let _ = forwarder.join();
    let status = status.map_err(|error| anyhow::anyhow!("lost sight of the program: {}", plain(&error)))?;
    let dumps = collect(&pattern, &token, pid, status)?;
    if dumps.is_empty() {
        let hint = "put `#[global_allocator] static ALLOC: AllocTracker = AllocTracker::system();` into it";
        say(format_args!(
            "no dump: {} does not use alloc-tracker, or never allocated; {hint}",
            program.display()
        ));
        return Ok(if status.success() { ExitCode::from(2) } else { exit_code(status) });
    }
    place.filled();
    if let Err(Failure::Input(error)) = report(&dumps, pid, recording) {
        say(format_args!("{error:#}"));
    }
    if !recording.no_compress {
        let stop = on_signals();
        dumps.iter().for_each(|dump| make_smaller(dump, &stop));
    }
    Ok(exit_code(status))
}

/// As the recorder reads them.
fn names_of(lines: &[LineUsage]) -> String {
    let name = |usage: &LineUsage| match usage {
        LineUsage::Rss => "rss",
        LineUsage::Faults => "faults",
    };
    lines.iter().map(name).collect::<Vec<_>>().join(",")
}

/// Compresses a dump. One that is not complete stays as it is, which the report has said.
fn make_smaller(dump: &Path, stop: &AtomicBool) {
    let Err(refusal) = compress_dump(dump, stop) else { return };
    if !matches!(refusal, Refusal::Incomplete | Refusal::Load(_)) {
        let dump = dump.to_string_lossy();
        say(format_args!("{} stays as large as it is: {refusal}", Safe(&dump)));
    }
}

/// The exit status as a shell gives it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn default_output(program: &OsStr) -> PathBuf {
    let name = Path::new(program).file_name().unwrap_or(OsStr::new("program"));
    let mut file: Vec<u8> = name.as_bytes().iter().copied().filter(|byte| *byte != b'%').collect();
    file.extend_from_slice(b".%p.alloc");
    PathBuf::from(OsString::from_vec(file))
}

/// Tells the dumps of this run from those of any other.
fn run_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", std::process::id(), now.as_nanos())
}

/// Passes on the signals that were sent to this process alone. What the terminal sends, the program gets by itself.
fn forward(signals: &mut SignalsInfo<WithOrigin>, pid: u32) {
    for origin in signals.forever() {
        if matches!(origin.cause, Cause::Sent(_))
            && let Some(signal) = Signal::from_named_raw(origin.signal)
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // The program may have ended just now.
            let _ = kill_process(pid, signal);
        }
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        match child.wait() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The dumps of this run, closed.
fn collect(pattern: &Path, token: &str, pid: u32, status: ExitStatus) -> anyhow::Result<Vec<PathBuf>> {
    let mut dumps = candidates(pattern)?;
    dumps.retain(|path| matches!(writer_of(path), Ok(Some((_, found))) if found == token.as_bytes()));
    dumps.sort();
    let end = |writer: u32| match (status.code(), status.signal()) {
        _ if writer != pid => EndReason::Vanished,
        (Some(code), _) => EndReason::Exited(code as u8),
        (None, signal) => EndReason::Signalled(signal.unwrap_or(0) as u8),
    };
    for dump in &dumps {
        match close(dump, pid, end) {
            Ok(Closed::InUse) => {
                say(format_args!("{}: its process is still running; reading what is there", dump.display()));
            }
            Ok(_) => {}
            Err(error) => say(format_args!("cannot close {}: {}", dump.display(), plain(&error))),
        }
    }
    Ok(dumps)
}

/// Files whose name fits the pattern, any process id in it.
fn candidates(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !has_pid(pattern) {
        return Ok(if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() });
    }
    let folder = pattern.parent().unwrap_or(Path::new("/"));
    let name = pattern.file_name().unwrap_or_default().as_bytes();
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| {
        anyhow::anyhow!("cannot look for dumps in {}: {}", folder.display(), plain(&error))
    })?;
    for entry in entries.flatten() {
        if fits(name, entry.file_name().as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a file name is the pattern with digits for each `%p`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let Some(at) = pattern.windows(2).position(|pair| pair == b"%p") else { return pattern == name };
    let Some(rest) = name.strip_prefix(&pattern[..at]) else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count().min(MOST_DIGITS);
    // What follows may begin with a digit itself.
    (1..=digits).any(|digits| fits(&pattern[at + 2..], &rest[digits..]))
}

/// Of a process id.
const MOST_DIGITS: usize = 10;

/// Reports on the program's own dump, or on the first one if it has none, and names the others.
fn report(dumps: &[PathBuf], pid: u32, recording: &RecordingArgs) -> Result<(), Failure> {
    let of_program = |dump: &&PathBuf| matches!(writer_of(dump), Ok(Some((writer, _))) if writer == pid);
    let main = dumps.iter().find(of_program).or(dumps.first()).context("no dump")?;
    let mut out = io::BufWriter::new(anstream::AutoStream::auto(io::stderr()));
    let options = options(&recording.symbols);
    let cache_dir = options.cache_dir.clone();
    let mut reported = None;
    if recording.report != Report::None {
        let opened = open(main, None, options)?;
        let sources = SourceFiles::of(&opened.profile, SourceSearch::default());
        write_report(&mut out, &opened, &sources, main, recording.report)?;
        reported = Some((opened, sources));
    }
    for dump in dumps {
        writeln!(out, "dump: {}", Safe(&dump.to_string_lossy()))?;
    }
    out.flush()?;
    // Last, so that the report does not wait for the source to be parsed.
    if let (Some((opened, sources)), Some(dir)) = (reported, cache_dir) {
        keep_evidence(&opened, &sources, &dir);
    }
    Ok(())
}

/// Keeps evidence of the program's sites while its source is most likely still the one that was compiled.
fn keep_evidence(Opened { profile, stacks }: &Opened, sources: &SourceFiles, dir: &Path) {
    let build_ids = profile.modules.iter().map(|module| module.build_id.as_slice());
    let mut kept = KeptEvidence::load(dir, build_ids);
    add_evidence(profile, stacks, sources, &mut kept);
    // A folder that cannot be written keeps no symbols either, which the report has said.
    let _ = kept.store(dir);
}

fn write_report(
    out: &mut dyn Write,
    opened: &Opened,
    sources: &SourceFiles,
    dump: &Path,
    wanted: Report,
) -> Result<(), Failure> {
    let Opened { profile, stacks } = opened;
    let filter = Filter::default();
    writeln!(out)?;
    summary_text::write(out, &summary(profile, stacks, &filter, 5))?;
    writeln!(out)?;
    if wanted != Report::Full {
        return Ok(());
    }
    let largest = Selection { top: Some(1), ..Selection::default() };
    let table = lines(profile, stacks, sources, &filter, &largest);
    if let Some(function) = table.functions.first() {
        lines_text::write_function(out, function, &Shape::default())?;
        writeln!(out)?;
    }
    leaks_text::write(out, &leaks(profile, stacks, &filter, false, Some(DEFAULT_TOP / 2)))?;
    writeln!(out)?;
    let svg = svg_path(dump);
    write_svg(&svg, &flame(profile, stacks, &filter, Metric::Peak, false, None), dump)?;
    writeln!(out, "flamegraph: {}", Safe(&svg.to_string_lossy()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_found_by_their_pattern() {
        assert!(fits(b"a.%p.alloc", b"a.17.alloc") && fits(b"x", b"x") && fits(b"%p-%p", b"1-22"));
        assert!(fits(b"x%p2.alloc", b"x172.alloc") && fits(b"%p%p", b"1717"));
        assert!(
            !fits(b"a.%p.alloc", b"a..alloc")
                && !fits(b"a.%p.alloc", b"a.17.alloc.tail")
                && !fits(b"%p", b"x1")
        );
    }
}
