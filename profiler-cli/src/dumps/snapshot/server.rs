//! Takes the snapshots of the programs that a run starts: those that a program asks for, that at
//! its end, and one from time to time. In: the dumps of the run, which appear while it lasts. Out:
//! snapshots, and messages about those that failed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::memory::ThreadPlaces;
use super::stopped::StoppedThreads;
use super::{Asker, SnapshotOptions, SnapshotTrouble, TakenSnapshot};
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
    mut tell: impl FnMut(Result<TakenSnapshot, SnapshotTrouble>),
) {
    let mut programs: Vec<ServedProgram> = Vec::new();
    let mut next_look = Instant::now();
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        if Instant::now() >= next_look {
            let begun = Instant::now();
            let known = |dump: &Path| programs.iter().any(|program| program.exchange.dump() == dump);
            let new: Vec<PathBuf> = recordings_of_run(pattern, token, known);
            programs.extend(new.iter().filter_map(|dump| ServedProgram::begin(dump)));
            // A folder with many files takes long to list.
            next_look = begun + (begun.elapsed() * 20).max(LOOK_INTERVAL);
        }
        for program in &mut programs {
            program.take_what_is_due(options, &mut tell);
        }
        if was_over {
            programs.iter().for_each(|program| program.exchange.stop_serving());
            return;
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// A program whose snapshots this process takes.
struct ServedProgram {
    exchange: Exchange,
    /// Copies whose snapshots are taken.
    copies: u64,
    last: Instant,
    /// Where the threads were at the last look.
    places: ThreadPlaces,
    /// How many snapshots were taken because it was time.
    timed: u32,
}

impl ServedProgram {
    fn begin(dump: &Path) -> Option<ServedProgram> {
        let exchange = Exchange::open(dump).ok()?;
        exchange.serve();
        let copies = exchange.copies();
        Some(ServedProgram {
            exchange,
            copies,
            last: Instant::now(),
            places: ThreadPlaces::default(),
            timed: 0,
        })
    }

    fn take_what_is_due(
        &mut self,
        options: ServerOptions,
        tell: &mut impl FnMut(Result<TakenSnapshot, SnapshotTrouble>),
    ) {
        let mut stopped = None;
        self.exchange.look_if_wanted(|| {
            self.places = ThreadPlaces::look(self.exchange.host());
            if options.stops_threads && self.exchange.is_at_end() {
                stopped = StoppedThreads::stop(self.exchange.host());
            }
        });
        if let Some(stopped) = stopped {
            self.wait_for_copy();
            self.places.set_registers(stopped.release());
        }
        let copies = self.exchange.copies();
        if copies != self.copies {
            self.copies = copies;
            // The program has asked, or another process has, which takes its snapshot itself.
            if self.exchange.is_for_program() {
                tell(self.write_snapshot());
                // There may be another copy by now.
                self.copies = self.exchange.answered();
            }
            self.last = Instant::now();
        }
        if options.every.is_some_and(|every| self.last.elapsed() >= every)
            && super::exchange::process_exists(self.exchange.host())
        {
            self.timed += 1;
            let name = format!("every-{}", self.timed).into_bytes();
            let options = SnapshotOptions { name, ..SnapshotOptions::default() };
            match super::take_by(&self.exchange, &options) {
                // The program has ended meanwhile, which is no trouble.
                Err(SnapshotTrouble::Ended { .. } | SnapshotTrouble::NotRecording { .. }) => {}
                other => tell(other),
            }
            self.copies = self.exchange.answered().max(self.copies);
            self.last = Instant::now();
        }
    }
}

impl ServedProgram {
    /// Waits until the recorder has made the copy for which this process has looked at the threads.
    fn wait_for_copy(&self) {
        let begun = Instant::now();
        while self.exchange.copies() == self.copies && begun.elapsed() < LONGEST_WAIT {
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Writes the snapshot of the copy that the program has asked for.
    fn write_snapshot(&self) -> Result<TakenSnapshot, SnapshotTrouble> {
        let copy = self.exchange.take_answer().inspect_err(|_| self.exchange.needs_no_more())?;
        // One copy with the registers of all threads says everything.
        let options = SnapshotOptions { once: self.places.have_registers(), ..SnapshotOptions::default() };
        super::write(&self.exchange, copy, &self.places, &options, Asker::Program)
    }
}

/// How often the words of the sidecars are read.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long stopped threads wait for the copy.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_micros(500);
/// How often new dumps are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
