//! Takes the snapshots of the programs that a run starts: those that a program asks for, that at
//! its end, and one from time to time. In: the dumps of the run, which appear while it lasts. Out:
//! snapshots, and messages about those that failed.
//!
//! Each program has a thread of its own here: a program that ends waits for its snapshot, and must
//! see signs of life while that of another program is being written. Only one snapshot is written
//! at a time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::exchange::{Exchange, Refusal, process_exists};
use super::stopped::StoppedThreads;
use super::threads::ThreadPositions;
use super::write::{Asker, write};
use super::{SnapshotOptions, SnapshotTrouble, TakenSnapshot, check_headroom, check_is_here};
use crate::dumps::find::recordings_of_run;

/// What a server does by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerOptions {
    /// Take a snapshot of each program after each such time.
    pub every: Option<Duration>,
    /// Stop the threads of a program that ends, to read their registers. Whoever waits for such a
    /// program must not take a stopped program for one that has ended.
    pub stops_threads: bool,
}

/// Takes snapshots of the programs that write dumps with names of this pattern and have the run's
/// token, until `is_over`. Calls `tell` with the result of each.
pub fn serve_until(
    is_over: &AtomicBool,
    pattern: &Path,
    token: &str,
    options: ServerOptions,
    tell: impl FnMut(Result<TakenSnapshot, SnapshotTrouble>) + Send,
) {
    let tell = Mutex::new(tell);
    let server = &Server { is_over, options, turn: Mutex::new(()), tell: &|outcome| (*lock(&tell))(outcome) };
    std::thread::scope(|scope| {
        let mut known: Vec<PathBuf> = Vec::new();
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            let begun = Instant::now();
            for dump in recordings_of_run(pattern, token, |dump| known.iter().any(|path| path == dump)) {
                let Some(mut program) = ServedProgram::begin(&dump) else { continue };
                let thread = std::thread::Builder::new().name("snapshots".to_owned());
                // Without a thread, the next look finds the dump again.
                if thread.spawn_scoped(scope, move || program.serve(server)).is_ok() {
                    known.push(dump);
                }
            }
            if was_over {
                return;
            }
            // A folder with many files takes long to list.
            std::thread::park_timeout((begun.elapsed() * 20).max(LOOK_INTERVAL));
        }
    });
}

/// What the threads of a server have in common.
struct Server<'a> {
    is_over: &'a AtomicBool,
    options: ServerOptions,
    /// Held by the thread that writes a snapshot.
    turn: Mutex<()>,
    tell: &'a (dyn Fn(Result<TakenSnapshot, SnapshotTrouble>) + Sync),
}

/// A program whose snapshots this process takes.
struct ServedProgram {
    exchange: Exchange,
    /// Whether the process that the recorder tells is the recorder.
    is_here: bool,
    /// Copies whose snapshots are taken.
    copies: u64,
    last: Instant,
    /// The number of the last look, and where the threads were then.
    look: Option<(u64, ThreadPositions)>,
    /// How many snapshots were taken because it was time.
    timed: u32,
}

impl ServedProgram {
    fn begin(dump: &Path) -> Option<ServedProgram> {
        let exchange = Exchange::open(dump).ok()?;
        let is_here = check_is_here(&exchange).is_ok();
        let copies = exchange.copies();
        Some(ServedProgram { exchange, is_here, copies, last: Instant::now(), look: None, timed: 0 })
    }

    /// Takes the program's snapshots until it has ended, or the run is over.
    fn serve(&mut self, server: &Server<'_>) {
        self.exchange.serve();
        loop {
            // What was asked for before the end is still taken.
            let has_ended = self.is_here && !process_exists(self.exchange.host());
            let is_last = has_ended || server.is_over.load(Ordering::Acquire);
            self.take_what_is_due(server);
            if is_last {
                self.exchange.stop_serving();
                return;
            }
            std::thread::park_timeout(POLL_INTERVAL);
        }
    }

    fn take_what_is_due(&mut self, server: &Server<'_>) {
        let copies = self.exchange.copies();
        if copies != self.copies {
            self.copies = copies;
            // The program has asked, or another process has, which takes its snapshot itself.
            if self.exchange.is_for_program() {
                (server.tell)(self.write_snapshot(server));
                // There may be another copy by now.
                self.copies = self.exchange.answered();
            }
            self.last = Instant::now();
        } else if let Some(number) = self.exchange.wanted_look() {
            self.look(number, server);
        }
        // A process that is not here is refused once.
        if server.options.every.is_some_and(|every| self.last.elapsed() >= every)
            && (self.is_here || self.timed == 0)
            && process_exists(self.exchange.host())
            && let Ok(_turn) = server.turn.try_lock()
        {
            self.take_timed(server);
        }
    }

    /// Looks where the threads are before the recorder makes a copy for the program, or refuses the
    /// copy.
    fn look(&mut self, number: u64, server: &Server<'_>) {
        self.look = None;
        if let Err((refusal, trouble)) = self.check_copy() {
            self.exchange.refuse_copy(number, refusal);
            (server.tell)(Err(trouble));
            return;
        }
        let mut positions = ThreadPositions::look(self.exchange.host());
        let stopped = if server.options.stops_threads && self.exchange.is_at_end() {
            StoppedThreads::stop(self.exchange.host())
        } else {
            None
        };
        self.exchange.finish_look(number);
        if let Some(stopped) = stopped {
            self.wait_for_copy();
            positions.set_registers(stopped.release());
        }
        self.look = Some((number, positions));
    }

    /// Checks that the copy can be read, and that there is memory for it.
    fn check_copy(&mut self) -> Result<(), (Refusal, SnapshotTrouble)> {
        if !self.is_here {
            check_is_here(&self.exchange).map_err(|trouble| (Refusal::NotSeen, trouble))?;
            self.is_here = true;
        }
        check_headroom(self.exchange.host()).map_err(|trouble| (Refusal::NoMemory, trouble))
    }

    /// Waits until the recorder has made the copy for which this process has looked at the threads.
    fn wait_for_copy(&self) {
        let begun = Instant::now();
        while self.exchange.copies() == self.copies && begun.elapsed() < LONGEST_WAIT {
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Writes the snapshot of the copy that the program has asked for.
    fn write_snapshot(&mut self, server: &Server<'_>) -> Result<TakenSnapshot, SnapshotTrouble> {
        let copy = self.exchange.answer().inspect_err(|_| self.exchange.needs_no_more())?;
        // If this thread was too late to look, the recorder has not waited, and does not wait now.
        if let Some(number) = self.exchange.wanted_look() {
            self.exchange.finish_look(number);
        }
        // A look that came too late says nothing about this copy.
        let look = self.look.take().filter(|(number, _)| *number == copy.look);
        let positions = look.map(|(_, positions)| positions).unwrap_or_default();
        // The copy gives the program and itself signs of life meanwhile.
        let _turn = lock(&server.turn);
        // One copy with the registers of all threads says everything.
        let options = SnapshotOptions { once: positions.have_registers(), ..SnapshotOptions::default() };
        write(&self.exchange, copy, &positions, &options, Asker::Program)
    }

    /// Takes a snapshot because it is time.
    fn take_timed(&mut self, server: &Server<'_>) {
        self.timed += 1;
        let name = format!("every-{}", self.timed).into_bytes();
        let options = SnapshotOptions { name, ..SnapshotOptions::default() };
        match super::take_by(&self.exchange, &options) {
            // The program has ended meanwhile, which is no trouble.
            Err(SnapshotTrouble::Ended { .. } | SnapshotTrouble::NotRecording { .. }) => {}
            outcome => (server.tell)(outcome),
        }
        self.copies = self.exchange.answered().max(self.copies);
        self.last = Instant::now();
    }
}

/// Locks a mutex. A thread that has panicked meanwhile ends the whole server anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the words of a sidecar are read.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long stopped threads wait for the copy.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_micros(500);
/// How often new dumps are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumps::snapshot::fake_recorder::FakeRecorder;
    use alloc_dump::exchange::{
        BY_PROGRAM_OFFSET, COPIES_OFFSET, COPY_PID_OFFSET, HEARTBEAT_OFFSET, LOOK_OF_COPY_OFFSET,
        LOOK_OFFSET, LOOKED_OFFSET, NEEDS_MORE_OFFSET, REFUSAL_OFFSET, SERVER_OFFSET,
    };

    /// Serves a program until `act` has returned. Returns what was told.
    fn serve(
        recorder: &FakeRecorder,
        is_here: bool,
        act: impl FnOnce(&Mutex<()>),
    ) -> Vec<Result<TakenSnapshot, SnapshotTrouble>> {
        let (is_over, told) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let server = Server {
            is_over: &is_over,
            options: ServerOptions::default(),
            turn: Mutex::new(()),
            tell: &|outcome| lock(&told).push(outcome),
        };
        let mut program = ServedProgram { is_here, ..ServedProgram::begin(&recorder.dump()).unwrap() };
        std::thread::scope(|scope| {
            scope.spawn(|| program.serve(&server));
            recorder.wait_for(SERVER_OFFSET, |server| server == u64::from(std::process::id()));
            act(&server.turn);
            is_over.store(true, Ordering::Release);
        });
        told.into_inner().unwrap()
    }

    #[test]
    fn a_program_that_waits_for_another_ones_snapshot_sees_signs_of_life() {
        let recorder = FakeRecorder::new();
        let told = serve(&recorder, true, |turn| {
            let _other_program = turn.lock().unwrap();
            // It is looked at and answered all the same.
            recorder.set(LOOK_OFFSET, 1);
            recorder.wait_for(LOOKED_OFFSET, |number| number == 1);
            recorder.set(COPY_PID_OFFSET, std::process::id().into());
            recorder.set(LOOK_OF_COPY_OFFSET, 1);
            recorder.set(BY_PROGRAM_OFFSET, 1);
            recorder.set(NEEDS_MORE_OFFSET, 1);
            recorder.set(COPIES_OFFSET, 1);
            recorder.wait_for(HEARTBEAT_OFFSET, |beat| beat >= 3);
            assert_eq!(recorder.word(NEEDS_MORE_OFFSET), 1);
        });
        // The recorded process itself is no copy, so nothing of it was used or changed.
        assert!(matches!(told[..], [Err(SnapshotTrouble::Unknown)]), "{told:?}");
        assert_eq!((recorder.word(NEEDS_MORE_OFFSET), recorder.word(SERVER_OFFSET)), (0, 0));
    }

    #[test]
    fn a_copy_of_a_process_that_is_not_seen_here_is_refused() {
        let recorder = FakeRecorder::new();
        let told = serve(&recorder, false, |_| {
            recorder.set(LOOK_OFFSET, 5);
            recorder.wait_for(LOOKED_OFFSET, |number| number == 5);
            assert_ne!(recorder.word(REFUSAL_OFFSET), 0);
        });
        assert!(matches!(told[..], [Err(SnapshotTrouble::NotHere { .. })]), "{told:?}");
    }
}
