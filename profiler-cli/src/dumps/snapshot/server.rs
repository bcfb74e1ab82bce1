//! Takes the snapshots of the programs that a run starts: those that a program asks for, that at
//! its end, and one from time to time. In: the dumps of the run, which appear while it lasts. Out:
//! snapshots, and messages about those that failed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::memory::ThreadPlaces;
use super::{SnapshotOptions, SnapshotTrouble, TakenSnapshot};
use crate::dumps::find::recordings_of_run;

/// What a server does by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerOptions {
    /// Take a snapshot of each program after each such time.
    pub every: Option<Duration>,
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
        self.exchange.look_if_wanted(|| self.places = ThreadPlaces::look(self.exchange.host()));
        if self.exchange.copies() != self.copies {
            // The program has asked, or another process has, which takes its snapshot itself.
            if self.exchange.is_for_program() {
                let taken = self.exchange.take_answer().and_then(|copy| {
                    super::write(&self.exchange, copy, &self.places, &SnapshotOptions::default())
                });
                tell(taken);
            }
            self.copies = self.exchange.copies();
            self.last = Instant::now();
        }
        if options.every.is_some_and(|every| self.last.elapsed() >= every)
            && super::exchange::process_exists(self.exchange.host())
        {
            self.timed += 1;
            let name = format!("every-{}", self.timed).into_bytes();
            let options = SnapshotOptions { name, ..SnapshotOptions::default() };
            match super::take(self.exchange.dump(), &options) {
                // The program has ended meanwhile, which is no trouble.
                Err(SnapshotTrouble::Ended { .. } | SnapshotTrouble::NotRecording { .. }) => {}
                other => tell(other),
            }
            self.copies = self.exchange.copies();
            self.last = Instant::now();
        }
    }
}

/// How often the words of the sidecars are read.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How often new dumps are looked for, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
