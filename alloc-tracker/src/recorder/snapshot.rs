//! Snapshots: copies of the process's memory that `profiler-cli` reads to find out what holds a
//! block.
//!
//! In: requests, of `profiler-cli` through the sidecar or of the program itself. Out: a copy that
//! waits for its reader, and a record at its place in the stream. [`alloc_dump::exchange`] has the
//! words that both sides agree on.
//!
//! The drain process makes the copy, so the program's threads make no system call for it. The copy
//! does nothing but wait; `profiler-cli` reads its memory from outside and writes the file. Never
//! allocates.
//!
//! ```text
//! host                 drain process                         copy
//! events               drains; clone  -------------------->  closes its descriptors
//! (pages are copied                                          reports threads and own mappings
//!  when written)       drains up to the copy's moment  <---  report is whole
//!                      writes the record
//!                      tells the reader                      waits until its reader is done
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use alloc_dump::exchange::{
    self, CopiedThread, MAX_NAME, MAX_REPORT_THREADS, MAX_REPORT_WORDS, NAME_WORDS, PATIENCE_NS,
    REPORT_HEAD_WORDS, REPORT_THREAD_WORDS, REPORT_THREADS, REPORT_WHOLE,
};
use alloc_dump::sidecar::SESSION_OFFSET;

use super::copy_report::ReportWriter;
use super::current::{RECORDER, with_stream_as_drainer};
use super::drainer::{self, Request};
use super::thread_state::THREADS;
use crate::base::sys::{self, Errno, FutexLock, Mapping};
use crate::output::sidecar;

/// Why the program's own request for a snapshot has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotFailure {
    /// There is no recording with a drain process and a sidecar.
    NoRecording,
    /// No `profiler-cli` is there to read the copy.
    NoReader,
    /// The copy could not be made.
    Copy(Errno),
}

/// Has a snapshot taken at this moment, and returns its number once the copy is made. For threads
/// of the program, outside of the hook.
pub(crate) fn take(name: &[u8]) -> Result<u32, SnapshotFailure> {
    let server = sidecar::word(exchange::SERVER_OFFSET).ok_or(SnapshotFailure::NoRecording)?;
    if !drainer::is_running() {
        return Err(SnapshotFailure::NoRecording);
    }
    if !wait_for_reader(server) {
        return Err(SnapshotFailure::NoReader);
    }
    // A signal handler may have interrupted a call of this function, which then never ends.
    let wanted = WANTED.try_lock_for(PATIENCE_NS).ok_or(BUSY)?;
    for (word, value) in wanted.0.iter().zip(exchange::encode_name(name)) {
        word.store(value, Ordering::Relaxed);
    }
    SILENCE_NS.store(0, Ordering::Relaxed);
    loop {
        wait_while_reader_needs_more();
        let outcome = ask();
        // Another process reads a copy that it has asked for.
        if outcome != Err(BUSY) || !reader_lives_for(BETWEEN_REQUESTS_NS) {
            return outcome;
        }
    }
}

/// Has a snapshot taken at the end of the program. Returns when nobody needs the program any more.
pub(super) fn take_at_end() {
    store(exchange::AT_END_OFFSET, 1);
    // Without a reader, `profiler-cli run` is gone; the recording ends all the same.
    if take(b"end").is_ok() {
        wait_while_reader_needs_more();
    }
    store(exchange::AT_END_OFFSET, 0);
}

fn ask() -> Result<u32, SnapshotFailure> {
    OUTCOME.store(NO_OUTCOME, Ordering::Release);
    if !drainer::ask(Request::Snapshot) {
        return Err(SnapshotFailure::NoRecording);
    }
    match OUTCOME.load(Ordering::Acquire) {
        NO_OUTCOME => Err(SnapshotFailure::NoRecording),
        outcome if outcome >> 32 != 0 => Err(SnapshotFailure::Copy(Errno((outcome >> 32) as i32))),
        id => Ok(id as u32),
    }
}

/// Waits until the reader has all the copies that it needs, or gives no sign of life.
fn wait_while_reader_needs_more() {
    while word_value(exchange::NEEDS_MORE_OFFSET) != 0 && reader_lives_for(NAP_NS) {}
}

/// Sleeps for this time. False if the reader has given no sign of life for a long time.
fn reader_lives_for(ns: u64) -> bool {
    let beat = || word_value(exchange::HEARTBEAT_OFFSET);
    let (now, before) = (beat(), LAST_BEAT.load(Ordering::Relaxed));
    if now != before {
        LAST_BEAT.store(now, Ordering::Relaxed);
        SILENCE_NS.store(0, Ordering::Relaxed);
    }
    sys::nap(ns);
    let silence = SILENCE_NS.fetch_add(ns, Ordering::Relaxed);
    silence < PATIENCE_NS && word_value(exchange::SERVER_OFFSET) != 0
}

/// Notes whether `profiler-cli run` has started this process, and so will find the sidecar.
pub(super) fn set_has_run(has_run: bool) {
    READER_COMES.store(has_run, Ordering::Relaxed);
}

/// Waits for a limited time until `profiler-cli run` has found the sidecar, if it is to be
/// expected.
fn wait_for_reader(server: &AtomicU64) -> bool {
    let is_there = || server.load(Ordering::Acquire) != 0;
    for _ in 0..MOST_NAPS_FOR_READER {
        if is_there() || !READER_COMES.load(Ordering::Relaxed) {
            return is_there();
        }
        sys::nap(NAP_NS);
    }
    // It was killed, or it cannot read the folder.
    READER_COMES.store(false, Ordering::Relaxed);
    is_there()
}

/// Makes the snapshots that are asked for. Called by the drain process in each pass, with the
/// requests of the program's own threads.
pub(super) fn serve(requests: u32) {
    if requests & Request::Snapshot as u32 != 0 {
        let outcome = if is_copy_in_use() { Err(Errno(libc::EBUSY)) } else { make_for_program() };
        let value = outcome.map_or_else(|errno| u64::from(errno.0.unsigned_abs()) << 32, u64::from);
        OUTCOME.store(value, Ordering::Release);
    }
    let asked = word_value(exchange::REQUESTS_OFFSET);
    if asked != word_value(exchange::SERVED_OFFSET) {
        answer_reader(asked);
    }
}

/// Makes the copy that the program has asked for, unless the reader refuses it.
fn make_for_program() -> Result<u32, Errno> {
    let look = wait_for_look();
    if look != 0
        && let refusal @ 1.. = word_value(exchange::REFUSAL_OFFSET)
    {
        return Err(Errno(i32::try_from(refusal).unwrap_or(libc::EPERM)));
    }
    let name = WANTED_NAME.0.each_ref().map(|word| word.load(Ordering::Relaxed));
    make(&name, word_value(exchange::SERVER_OFFSET), AskedBy::Program { look })
}

/// Answers the request of a reader with this number.
///
/// The reader may give up at any moment: it stores that it has, and then looks once more whether it
/// was answered. This process answers first and looks afterwards. So one of them notices:
///
/// ```text
/// reader                           drain process
/// WITHDRAWN = 7                    makes a copy
/// SERVED is 6: gives up            SERVED = 7
///                                  WITHDRAWN is 7: ends the copy
/// ```
fn answer_reader(asked: u64) {
    let is_withdrawn = || word_value(exchange::WITHDRAWN_OFFSET) == asked;
    let mut is_made = false;
    if is_withdrawn() {
        // Nobody waits for it.
    } else if is_copy_in_use() {
        store(exchange::BUSY_REQUEST_OFFSET, asked);
    } else {
        let mut name = [0; NAME_WORDS];
        for (index, word) in name.iter_mut().enumerate() {
            *word = word_value(exchange::REQUEST_NAME_OFFSET + 8 * index);
        }
        is_made = make(&name, word_value(exchange::REQUESTER_OFFSET), AskedBy::Reader).is_ok();
    }
    store(exchange::SERVED_OFFSET, asked);
    fence(Ordering::SeqCst);
    if is_made && is_withdrawn() {
        store(exchange::RELEASED_OFFSET, word_value(exchange::COPIES_OFFSET));
    }
}

/// Lets the reader look where the threads are, for a limited time. Returns the number of its look;
/// 0 if the reader took too long.
fn wait_for_look() -> u64 {
    let look = word_value(exchange::LOOK_OFFSET) + 1;
    store(exchange::LOOK_OFFSET, look);
    let naps = if word_value(exchange::AT_END_OFFSET) != 0 { MOST_NAPS_FOR_STOP } else { MOST_NAPS_FOR_LOOK };
    for _ in 0..naps {
        if word_value(exchange::LOOKED_OFFSET) == look {
            return look;
        }
        sys::nap(NAP_NS);
    }
    0
}

/// Who has asked for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskedBy {
    /// The program. The reader has looked at its threads with the look of this number, or 0.
    Program { look: u64 },
    /// A reader.
    Reader,
}

/// Makes a copy that the process `reader` may read, and tells it about the copy.
fn make(name: &[u64; NAME_WORDS], reader: u64, asked_by: AskedBy) -> Result<u32, Errno> {
    let outcome = make_copy_and_record(name, reader);
    store(exchange::COPY_ERRNO_OFFSET, outcome.map_or_else(|errno| u64::from(errno.0.unsigned_abs()), |_| 0));
    store(exchange::COPY_PID_OFFSET, COPY.load(Ordering::Relaxed).into());
    store(exchange::SNAPSHOT_ID_OFFSET, outcome.unwrap_or(0).into());
    let (by_program, look) = match asked_by {
        AskedBy::Program { look } => (true, look),
        AskedBy::Reader => (false, 0),
    };
    store(exchange::BY_PROGRAM_OFFSET, by_program.into());
    store(exchange::LOOK_OF_COPY_OFFSET, look);
    if by_program {
        store(exchange::NEEDS_MORE_OFFSET, outcome.is_ok().into());
    }
    store(exchange::REPORT_ADDRESS_OFFSET, REPORT.load(Ordering::Relaxed) as u64);
    for (index, word) in name.iter().enumerate() {
        store(exchange::NAME_OFFSET + 8 * index, *word);
    }
    store(exchange::COPIES_OFFSET, word_value(exchange::COPIES_OFFSET) + 1);
    outcome
}

fn make_copy_and_record(name: &[u64; NAME_WORDS], reader: u64) -> Result<u32, Errno> {
    let mut room = [0; MAX_NAME];
    let name = exchange::decode_name(name, &mut room);
    let report = report_memory()?;
    let recorded = with_stream_as_drainer(|stream| {
        stream.snapshot(name, |thread_of_copy| {
            report.iter().take(REPORT_HEAD_WORDS).for_each(|word| word.store(0, Ordering::Relaxed));
            READER.store(reader as u32, Ordering::Relaxed);
            let copy = sys::copy_process(run_copy)?;
            COPY.store(copy, Ordering::Relaxed);
            wait_for_report(report, copy)?;
            for words in threads_in(report) {
                thread_of_copy(CopiedThread::from_words(words));
            }
            Ok(())
        })
    });
    recorded.unwrap_or(Err(Errno(libc::ECANCELED)))
}

/// Whether the last copy still runs.
fn is_copy_in_use() -> bool {
    let copy = COPY.load(Ordering::Relaxed);
    if copy != 0 && !sys::copy_runs(copy) {
        COPY.store(0, Ordering::Relaxed);
    }
    COPY.load(Ordering::Relaxed) != 0
}

fn wait_for_report(report: &[AtomicU64], copy: u32) -> Result<(), Errno> {
    for _ in 0..MOST_NAPS_FOR_REPORT {
        if report[REPORT_WHOLE].load(Ordering::Acquire) != 0 {
            return Ok(());
        }
        sys::nap(NAP_NS);
        if !sys::copy_runs(copy) {
            COPY.store(0, Ordering::Relaxed);
            return Err(Errno(libc::ECHILD));
        }
    }
    Err(Errno(libc::ETIMEDOUT))
}

fn threads_in(report: &[AtomicU64]) -> impl Iterator<Item = [u64; REPORT_THREAD_WORDS]> {
    let count = (report[REPORT_THREADS].load(Ordering::Relaxed) as usize).min(MAX_REPORT_THREADS);
    let words = report[REPORT_HEAD_WORDS..].chunks_exact(REPORT_THREAD_WORDS).take(count);
    words.map(|words| std::array::from_fn(|index| words[index].load(Ordering::Relaxed)))
}

/// The copy, from its beginning to its end. Everything but the report and the sidecar is its own
/// memory.
fn run_copy() {
    // The lock on the dump and the ends of pipes must not outlive their owners.
    let _ = sys::close_all_but(&[]);
    sys::allow_reader(READER.load(Ordering::Relaxed));
    let Ok(report) = report_memory() else { return };
    // Once the report is whole, the drain process counts this copy. If the number were read after
    // that, the copy would wait for the release of the next one.
    let number = word_value(exchange::COPIES_OFFSET) + 1;
    report_copy(report);
    wait_for_release(number);
}

/// Waits until the copy with this number is released, or its reader gives no sign of life.
fn wait_for_release(number: u64) {
    let (mut heartbeat, mut silence_ns) = (0, 0);
    while word_value(exchange::RELEASED_OFFSET) < number && silence_ns < PATIENCE_NS {
        sys::nap(COPY_NAP_NS);
        let now = word_value(exchange::HEARTBEAT_OFFSET);
        silence_ns = if now == heartbeat { silence_ns + COPY_NAP_NS } else { 0 };
        heartbeat = now;
    }
}

/// Writes what the copy tells of itself.
fn report_copy(report: &[AtomicU64]) {
    let mut writer = ReportWriter::new(report);
    // SAFETY: the copy has one thread, and it is not in the hook. What the other threads were
    // writing at the moment of the copy is plain numbers, which the drain process checks.
    for own in unsafe { THREADS.own_parts_in_copy() } {
        if let Some(thread) = own.recorder.in_copy() {
            writer.push_thread(&thread);
        }
    }
    // The encoder remembers the address of the last event, which would seem to hold that block.
    writer.push_mapping((&raw const RECORDER).addr() as u64, size_of_val(&RECORDER) as u64);
    if !sys::for_each_own_mapping(|start, len| writer.push_mapping(start, len)) {
        writer.note_missing_mapping();
    }
    writer.finish([SESSION_OFFSET, SESSION_OFFSET + 8].map(word_value));
}

/// Returns the memory of the report, which the copy shares with this process.
fn report_memory() -> Result<&'static [AtomicU64], Errno> {
    let mut start = REPORT.load(Ordering::Acquire);
    if start == 0 {
        // Only the drain process gets here, and it stays mapped for good.
        start = Mapping::shared_with_copies(8 * MAX_REPORT_WORDS)?.leak().expose_provenance();
        REPORT.store(start, Ordering::Release);
    }
    // SAFETY: the mapping has this many words, is never unmapped, and is used as atomics only.
    Ok(unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), MAX_REPORT_WORDS) })
}

fn word_value(offset: usize) -> u64 {
    sidecar::word(offset).map_or(0, |word| word.load(Ordering::Acquire))
}

fn store(offset: usize, value: u64) {
    if let Some(word) = sidecar::word(offset) {
        word.store(value, Ordering::Release);
    }
}

/// Notes that there is no copy and no report, in a forked child.
///
/// # Safety
/// No other thread may use this module.
pub(super) unsafe fn reset_after_fork() {
    // SAFETY: the caller promises that no other thread uses this module, so none has the lock.
    unsafe { WANTED.force_unlock() };
    COPY.store(0, Ordering::Relaxed);
    REPORT.store(0, Ordering::Relaxed);
}

/// The name that a thread of the program has asked for, as words.
struct Name([AtomicU64; NAME_WORDS]);

static WANTED_NAME: Name = Name([const { AtomicU64::new(0) }; NAME_WORDS]);
/// Held by the thread of the program that asks.
static WANTED: FutexLock<&Name> = FutexLock::new(&WANTED_NAME);
/// The outcome of the program's request: the snapshot's number, or an error number in the upper
/// half.
static OUTCOME: AtomicU64 = AtomicU64::new(NO_OUTCOME);
const NO_OUTCOME: u64 = u64::MAX;
/// Process id of the last copy; 0 if it has ended.
static COPY: AtomicU32 = AtomicU32::new(0);
/// Process id of the process that may read the copy.
static READER: AtomicU32 = AtomicU32::new(0);
/// Whether `profiler-cli run` is to be expected, although it is not there yet.
static READER_COMES: AtomicBool = AtomicBool::new(false);
/// The reader's last sign of life that the program has seen, and how long it has seen none since.
static LAST_BEAT: AtomicU64 = AtomicU64::new(0);
static SILENCE_NS: AtomicU64 = AtomicU64::new(0);
/// Address of the report; 0 before the first snapshot.
static REPORT: AtomicUsize = AtomicUsize::new(0);

/// Another copy is in use.
const BUSY: SnapshotFailure = SnapshotFailure::Copy(Errno(libc::EBUSY));

const NAP_NS: u64 = 100_000;
const BETWEEN_REQUESTS_NS: u64 = 5_000_000;
/// Ten seconds: the kernel may have to copy the tables of hundreds of gigabytes.
const MOST_NAPS_FOR_REPORT: u32 = 100_000;
/// A tenth of a second. Without the look, whole stacks count.
const MOST_NAPS_FOR_LOOK: u32 = 1000;
/// Two seconds: at the end, the reader stops all threads.
const MOST_NAPS_FOR_STOP: u32 = 20_000;
/// Two seconds.
const MOST_NAPS_FOR_READER: u32 = 20_000;
const COPY_NAP_NS: u64 = 5_000_000;
