//! Recording one program: starts it with the recorder switched on, waits for it, and closes the
//! dumps that it left.
//!
//! In: a command line and [`RecordSettings`]. Out: a [`RecordedProgram`]. Signals that are sent to
//! this process alone are passed on to the program. Nothing here may write to stdout, which belongs
//! to the program, and nothing here may take long: the program's status waits for it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alloc_dump::trailer::EndReason;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use super::about::AboutArgs;
use super::{LineUsage, OnFull, Verify};
use crate::command::print_message;
use crate::dumps::close::{CloseOutcome, close};
use crate::dumps::find::{FoundDumps, dumps_of_run, has_pid_placeholder};
use crate::dumps::reserve::{Reservation, new_run_token, run_token_in};
use crate::dumps::snapshot::{ServerOptions, SnapshotTrouble, TakenSnapshot, serve_until};
use crate::io_error::plain;
use crate::units::Safe;

/// How a program is recorded. Another process of this program may be given the settings as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::command) struct RecordSettings {
    /// Absolute path of the dump. `None` for `PROGRAM.%p.alloc` in the folder.
    pub(in crate::command) output: Option<OsString>,
    /// Absolute path of the folder for dumps without a path.
    pub(in crate::command) folder: OsString,
    /// What a thread does when its ring is full.
    pub(super) on_full: OnFull,
    /// How much of a very deep stack is compared.
    pub(super) verify: Verify,
    /// Whether forked children are recorded.
    pub(super) follow_forks: bool,
    /// What annotated functions also record.
    pub(super) lines: Vec<LineUsage>,
    /// What the dump says about the recording, and when the recording ends.
    pub(super) about: AboutArgs,
    /// Take a snapshot when the program ends.
    pub(super) snapshot_at_end: bool,
    /// Take a snapshot after each such time.
    pub(super) snapshot_every: Option<Duration>,
    /// The token of the command that records several programs; `None` for a program alone.
    pub(super) group: Option<String>,
}

impl RecordSettings {
    /// Returns these settings for the programs of a command that has this token.
    pub(in crate::command) fn in_group(self, token: String) -> RecordSettings {
        RecordSettings { group: Some(token), ..self }
    }
}

/// A program that has ended, and its dumps. Closed, but neither reported on nor compressed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::command) struct RecordedProgram {
    /// The program, as it was started.
    pub(in crate::command) program: OsString,
    /// Its process id.
    pub(in crate::command) pid: u32,
    /// Its status, as `wait` returns it.
    wait_status: i32,
    /// The dumps of the program and of its children, sorted by path.
    pub(in crate::command) dumps: Vec<OsString>,
    /// Why a dump cannot be read, if the program has left no other one.
    pub(in crate::command) unreadable: Option<String>,
}

impl RecordedProgram {
    /// How the program ended.
    pub(in crate::command) fn status(&self) -> ExitStatus {
        ExitStatus::from_raw(self.wait_status)
    }

    /// The paths of the dumps.
    pub(in crate::command) fn dumps(&self) -> impl Iterator<Item = &Path> {
        self.dumps.iter().map(Path::new)
    }
}

/// Records a command line.
///
/// # Errors
/// If the program cannot be started, or its dump cannot be written.
pub(in crate::command) fn record(
    command: &[OsString],
    settings: &RecordSettings,
) -> anyhow::Result<RecordedProgram> {
    let (program, arguments) = command.split_first().context("no program to run: name it after --")?;
    let pattern = match &settings.output {
        Some(path) => PathBuf::from(path),
        None => Path::new(&settings.folder).join(default_output(program)),
    };
    if settings.follow_forks && !has_pid_placeholder(&pattern) {
        let pattern = pattern.display();
        let reason = "--follow-forks needs %p in the dump's name, so that each process has its own dump";
        return Err(anyhow::anyhow!("{pattern}: {reason}"));
    }
    let token = settings.group.as_deref().map_or_else(new_run_token, run_token_in);
    // This must come first. From here on these signals do not end this process, because it may have
    // to put an earlier dump back that it has set aside.
    let mut signals = watched_signals()?;
    let reservation = Reservation::make(&pattern, &token)?;
    let mut started = Command::new(program);
    // A variable that the user has set holds otherwise.
    if settings.verify == Verify::All {
        started.env("ALLOC_TRACKER_VERIFY", "all");
    }
    let mut child = started
        .args(arguments)
        .envs(settings.about.variables())
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &pattern)
        .env("ALLOC_TRACKER_RUN", &token)
        .env("ALLOC_TRACKER_ON_FULL", if settings.on_full == OnFull::Drop { "drop" } else { "block" })
        .env("ALLOC_TRACKER_LINES", recorder_names(&settings.lines))
        .env("ALLOC_TRACKER_FOLLOW", if settings.follow_forks { "1" } else { "0" })
        .env("ALLOC_TRACKER_SNAPSHOT", if settings.snapshot_at_end { "end" } else { "" })
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run {}: {}", program.display(), plain(&error)))?;
    let pid = child.id();
    let handle = signals.handle();
    let forwarder = std::thread::spawn(move || forward_signals(&mut signals, || vec![pid]));
    let is_over = AtomicBool::new(false);
    // Messages wait until the program has ended: until then stderr is the program's.
    let mut snapshots = Vec::new();
    let pidfd = pid_of(&child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let options = ServerOptions { every: settings.snapshot_every, stops_threads: pidfd.is_some() };
    let status = std::thread::scope(|scope| {
        let server =
            scope.spawn(|| serve_until(&is_over, &pattern, &token, options, |taken| snapshots.push(taken)));
        // A stopped program would look like one that has ended to `wait`.
        pidfd.iter().for_each(wait_for_end);
        let status = wait(&mut child);
        is_over.store(true, Ordering::Release);
        server.thread().unpark();
        status
    });
    snapshots.into_iter().for_each(tell_snapshot);
    handle.close();
    // The thread ends when the handle is closed. It cannot panic.
    let _ = forwarder.join();
    let status = status.map_err(|error| {
        anyhow::anyhow!("cannot wait for {} (process {pid}): {}", program.display(), plain(&error))
    })?;
    if settings.snapshot_at_end && status.signal().is_some() {
        print_message(
            "no snapshot at the end: a signal has ended the program; `profiler-cli snapshot PID` and --snapshot-every take one before",
        );
    }
    let FoundDumps { of_run: dumps, unreadable } = dumps_of_run(&pattern, &token)?;
    close_dumps(&dumps, pid, status);
    let unreadable = unreadable.first().filter(|_| dumps.is_empty()).map(ToString::to_string);
    // A dump that cannot be read stays, because its records may be readable for somebody else.
    if !dumps.is_empty() || unreadable.is_some() {
        reservation.discard_replaced();
    }
    Ok(RecordedProgram {
        program: program.clone(),
        pid,
        wait_status: status.into_raw(),
        dumps: dumps.into_iter().map(PathBuf::into_os_string).collect(),
        unreadable,
    })
}

/// Says that a snapshot was taken, or why not.
fn tell_snapshot(taken: Result<TakenSnapshot, SnapshotTrouble>) {
    match taken {
        Ok(taken) => print_message(Safe(&taken.described())),
        Err(trouble) => print_message(Safe(&format!("no snapshot: {trouble}"))),
    }
}

/// Returns the exit status that a shell would give: 128 + N if signal N killed the program.
pub(in crate::command) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Watches for the signals that ask a program to end. From here on they do not end this process.
///
/// # Errors
/// If the system refuses.
pub(in crate::command) fn watched_signals() -> anyhow::Result<SignalsInfo<WithOrigin>> {
    SignalsInfo::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(|error| anyhow::anyhow!("cannot watch for signals: {}", plain(&error)))
}

/// Passes signals on to processes if they were sent to this process alone. Signals from the
/// terminal reach them without our help. Returns when the handle of `signals` is closed.
pub(in crate::command) fn forward_signals(
    signals: &mut SignalsInfo<WithOrigin>,
    receivers: impl Fn() -> Vec<u32>,
) {
    for origin in signals.forever() {
        let Some(signal) = Signal::from_named_raw(origin.signal) else { continue };
        if !matches!(origin.cause, Cause::Sent(_)) {
            continue;
        }
        for pid in receivers() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Fails if the program has just ended, which is fine.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Waits until a process has ended.
fn wait_for_end(process: &OwnedFd) {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Waits for a child, however many signals arrive meanwhile.
///
/// # Errors
/// If the system has no such child any more.
pub(in crate::command) fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        match child.wait() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Returns the names by which the recorder knows these values, separated by commas.
fn recorder_names(lines: &[LineUsage]) -> String {
    let name = |usage: &LineUsage| match usage {
        LineUsage::Rss => "rss",
        LineUsage::Faults => "faults",
    };
    lines.iter().map(name).collect::<Vec<_>>().join(",")
}

/// Returns `PROGRAM.%p.alloc`. A `%` in the program's name is left out, lest it be taken for a
/// `%p`. So is the hash that cargo gives to the names of test programs.
fn default_output(program: &OsStr) -> PathBuf {
    let program = Path::new(program);
    let name = program.file_name().unwrap_or(OsStr::new("program")).as_bytes();
    let is_test = program.parent().is_some_and(|folder| folder.ends_with("deps"));
    let name = if is_test { without_hash(name) } else { name };
    let mut file: Vec<u8> = name.iter().copied().filter(|byte| *byte != b'%').collect();
    file.extend_from_slice(b".%p.alloc");
    PathBuf::from(OsString::from_vec(file))
}

/// Returns the name without a hash of 16 digits, such as in `parser-0123456789abcdef`.
pub(super) fn without_hash(name: &[u8]) -> &[u8] {
    let Some(at) = name.len().checked_sub(HASH_DIGITS + 1) else { return name };
    let (front, hash) = name.split_at(at);
    let is_hash = hash[0] == b'-' && hash[1..].iter().all(u8::is_ascii_hexdigit);
    if is_hash && !front.is_empty() { front } else { name }
}

/// Digits of the hash in the name of a program in cargo's folder `deps`.
const HASH_DIGITS: usize = 16;

/// Closes the dumps of this run. `pid` and `status` are the process id and the exit status of the
/// program itself; the end of its forked children is not known.
fn close_dumps(dumps: &[PathBuf], pid: u32, status: ExitStatus) {
    let end = |writer: u32| match (status.code(), status.signal()) {
        _ if writer != pid => EndReason::Vanished,
        (Some(code), _) => EndReason::Exited(code as u8),
        (None, signal) => EndReason::Signalled(signal.unwrap_or(0) as u8),
    };
    for dump in dumps {
        match close(dump, |writer| writer.pid == pid, end) {
            Ok(CloseOutcome::StillWritten) => print_message(format_args!(
                "{}: its process is still running; the report covers what is in the dump so far",
                dump.display()
            )),
            Ok(_) => {}
            Err(error) => {
                print_message(format_args!("cannot close {}: {}", dump.display(), plain(&error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_has_neither_percent_signs_nor_cargos_hash() {
        for (program, name) in [
            ("./server", "server.%p.alloc"),
            ("/x/100%peak", "100peak.%p.alloc"),
            ("/t/debug/deps/parser-0123456789abcdef", "parser.%p.alloc"),
            ("/t/debug/parser-0123456789abcdef", "parser-0123456789abcdef.%p.alloc"),
            ("/t/debug/deps/parser-0123456789abcdeg", "parser-0123456789abcdeg.%p.alloc"),
            ("/t/debug/deps/-0123456789abcdef", "-0123456789abcdef.%p.alloc"),
            ("/t/debug/deps/a-1", "a-1.%p.alloc"),
        ] {
            assert_eq!(default_output(program.as_ref()), Path::new(name), "{program}");
        }
    }
}
