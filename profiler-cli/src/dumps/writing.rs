//! Whether a dump is still being written. In: a path. Out: a [`WriterState`].
//!
//! A recorder holds a lock on its dump (flock) until the dump has its trailer. Three kinds of
//! processes may hold it: the recorded program; a process that closes the dump for a program which
//! has just ended; and a forked child, which shares its parent's lock and never writes. The first
//! two are told apart by whether the program still runs. The third never changes the dump, so it
//! is not waited for longer than [`PATIENCE`].
//!
//! Nothing here writes to a dump. A dump that has its trailer is not even locked.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{FRAME_HEADER_LEN, FRAME_TRAILER};
use alloc_dump::read::Reader;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::open::{DumpWriter, writer_of};

/// What is known about the process that writes a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterState {
    /// The dump has its trailer, or no process has its lock. It does not change any more.
    Done,
    /// Its process runs, or is not known.
    Running,
    /// Its process has ended, and another process has kept the lock for longer than [`PATIENCE`].
    Lingering,
}

/// How long a process that closes a dump may go without appending to it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest time to wait for a dump, however often it grows.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a dump may take to name its process: while it is being closed, there may be a moment
/// at which neither the dump nor its sidecar can be read.
const NAMELESS: Duration = Duration::from_millis(50);
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Waits while the dump at `path` is being closed for a program that has ended. Returns at once if
/// the dump is complete, if its program runs, or if there is no such dump.
pub(crate) fn wait_while_closing(path: &Path) -> WriterState {
    let begun = Instant::now();
    let (mut grown_at, mut len) = (begun, 0);
    loop {
        let Some(locked) = LockedDump::open(path) else { return WriterState::Done };
        if locked.len != len {
            (grown_at, len) = (Instant::now(), locked.len);
        }
        match writer_of(path) {
            Ok(Some(writer)) if !is_writer_running(&writer) => {}
            Ok(Some(_)) => return WriterState::Running,
            _ if begun.elapsed() > NAMELESS => return WriterState::Running,
            _ => {}
        }
        if grown_at.elapsed() > PATIENCE || begun.elapsed() > LONGEST_WAIT {
            return WriterState::Lingering;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// A dump that lacks its trailer and is locked by another process.
struct LockedDump {
    /// Length of the file in bytes.
    len: u64,
}

impl LockedDump {
    /// Looks at the dump at `path`. `None` if it has a trailer, is not locked or cannot be read.
    fn open(path: &Path) -> Option<LockedDump> {
        // A pipe must not be opened twice.
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let is_locked = || matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        // Only then is the lock tried: meanwhile no recorder can begin to write the dump.
        (!has_trailer(&file, len) && is_locked()).then_some(LockedDump { len })
    }
}

/// Whether the last whole frame of the dump is a trailer. Reads the headers of the frames only.
fn has_trailer(file: &File, len: u64) -> bool {
    let Ok(reader) = Reader::new(file) else { return false };
    let (mut at, mut last_kind) = (reader.position(), None);
    let mut header = [0; FRAME_HEADER_LEN];
    while file.read_exact_at(&mut header, at).is_ok()
        && let Some(frame) = FrameHeader::decode(&header)
    {
        at += FRAME_HEADER_LEN as u64 + u64::from(frame.len);
        if at > len {
            break;
        }
        last_kind = Some(frame.kind);
    }
    last_kind == Some(FRAME_TRAILER)
}

/// Whether the process that writes a dump still runs. Its id alone is not enough to know: another
/// process may have the id by now. That process was started after the recording had begun.
pub(crate) fn is_writer_running(writer: &DumpWriter) -> bool {
    let is_older = |start: u64| start <= writer.begun_unix_ns.saturating_add(CLOCK_SLACK_NS);
    // Where the start is not known, the process counts as the writer.
    is_running(writer.pid) && start_of(writer.pid).is_none_or(is_older)
}

/// The kernel says in whole seconds when the machine was started, and in hundredths when a process
/// was. No id is used again so soon after the recording began.
const CLOCK_SLACK_NS: u64 = 3_000_000_000;

/// Returns when a process was started, in nanoseconds since 1970. `None` if the system does not
/// tell.
fn start_of(pid: u32) -> Option<u64> {
    let of_machine = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = of_machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let of_process = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last bracket may have spaces. Field 22 is the start, and 3 is the first
    // one behind the bracket.
    let ticks: u64 = of_process.rsplit(')').next()?.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Some(boot * 1_000_000_000 + ticks * (1_000_000_000 / ticks_per_second))
}

/// Whether a thread of this process still runs. A process that has ended keeps its id until its
/// parent has asked for its status.
pub(crate) fn is_running(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    // The first thread may have ended before the others, and only they show that the process runs.
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        // There is no such process, or the system hides it from other users.
        return test_kill_process(id) != Err(Errno::SRCH);
    };
    threads.flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        state.is_some_and(|state| !"ZXx".contains(state))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::{SystemTime, UNIX_EPOCH};

    use alloc_dump::header::Header;
    use alloc_dump::record::{Process, Record};
    use alloc_dump::trailer::{EndReason, Trailer};
    use alloc_dump::write::{Encoder, seal_trailer};

    use super::*;

    /// Returns a dump whose only frame names its process, and its trailer.
    fn dump_of(pid: u32) -> (Vec<u8>, Vec<u8>) {
        let created_unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mut bytes = Header { session: [7; 16], created_unix_ns }.encode().to_vec();
        let (mut buffer, mut encoder) = (vec![0; 4096], Encoder::new());
        let process = Process {
            pid,
            page_size: 4096,
            from_first_event: true,
            exe: b"/app",
            args: b"app",
            cwd: b"/",
            run: b"token",
            debug_assertions: false,
        };
        encoder.push(&mut buffer, &Record::Process(process)).unwrap();
        let len = encoder.seal(&mut buffer, 0);
        bytes.extend_from_slice(&buffer[..len]);
        let len = seal_trailer(&mut buffer, 1, &Trailer::new(EndReason::Finished, 5)).unwrap();
        (bytes, buffer[..len].to_vec())
    }

    /// No process has the largest id.
    const ENDED: u32 = i32::MAX as u32;

    #[test]
    fn a_dump_of_an_ended_program_is_waited_for_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.alloc");
        let (dump, trailer) = dump_of(ENDED);
        fs::write(&path, &dump).unwrap();
        assert_eq!(wait_while_closing(&path), WriterState::Done, "nobody has the lock");
        let closer = File::options().append(true).open(&path).unwrap();
        closer.lock().unwrap();
        let done = std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let begun = Instant::now();
                (wait_while_closing(&path), begun.elapsed())
            });
            std::thread::sleep(Duration::from_millis(300));
            std::io::Write::write_all(&mut &closer, &trailer).unwrap();
            waits.join().unwrap()
        });
        assert_eq!(done.0, WriterState::Done);
        assert!((Duration::from_millis(200)..PATIENCE).contains(&done.1), "{:?}", done.1);
        // The lock is still there: a forked child may keep it for hours.
        let begun = Instant::now();
        assert_eq!(wait_while_closing(&path), WriterState::Done);
        assert!(begun.elapsed() < Duration::from_millis(200));
    }

    #[test]
    fn waiting_has_an_end_and_a_running_program_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.alloc");
        for (pid, state, least) in [
            (ENDED, WriterState::Lingering, PATIENCE),
            (std::process::id(), WriterState::Running, Duration::ZERO),
        ] {
            fs::write(&path, dump_of(pid).0).unwrap();
            let file = File::open(&path).unwrap();
            file.lock().unwrap();
            let begun = Instant::now();
            assert_eq!(wait_while_closing(&path), state);
            assert!(
                (least..least + Duration::from_secs(1)).contains(&begun.elapsed()),
                "{:?}",
                begun.elapsed()
            );
        }
        assert_eq!(wait_while_closing(&folder.path().join("missing")), WriterState::Done);
        assert_eq!(wait_while_closing(folder.path()), WriterState::Done);
    }

    /// Another process may have got the id of a writer that has ended.
    #[test]
    fn a_process_that_is_younger_than_the_recording_is_not_the_writer() {
        let second = 1_000_000_000;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let writer =
            |begun_unix_ns| DumpWriter { pid: std::process::id(), run_token: Vec::new(), begun_unix_ns };
        let start = start_of(std::process::id()).unwrap();
        assert!((now - 3600 * second..now + 2 * second).contains(&start), "{start} {now}");
        assert!(is_writer_running(&writer(now)) && is_writer_running(&writer(start)));
        assert!(!is_writer_running(&writer(start - 10 * second)));
        assert!(!is_writer_running(&DumpWriter { pid: ENDED, ..writer(now) }));
        assert_eq!(start_of(ENDED), None);
    }

    #[test]
    fn a_process_that_was_not_waited_for_has_ended_all_the_same() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(is_running(child.id()) && is_running(std::process::id()));
        drop(child.stdin.take());
        let begun = Instant::now();
        while is_running(child.id()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is a zombie by now");
        }
        child.wait().unwrap();
        assert!(!is_running(child.id()) && !is_running(ENDED) && !is_running(0));
    }
}
