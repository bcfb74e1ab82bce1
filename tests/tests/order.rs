//! Eight threads pass blocks on at full speed. The totals are exact to the byte. The recorded order
//! of events is one that can have happened; within each thread it is the order that did happen.
//!
//! The test reads the dump with `alloc_dump::read::Reader` alone and keeps a heap of its own. It
//! knows nothing of the recorder, and of the program only the block sizes from `tests::relay`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use serde_json::Value;
use tests::relay::{BATCH, BATCHES, STEPS, THREADS, made_by, moved_by};
use tests::{Run, number};

/// Blocks that each thread makes, that it moves, and that it frees.
const BLOCKS: u64 = (BATCH * BATCHES) as u64;

#[test]
fn millions_of_events_of_eight_threads_are_exact_and_in_order() {
    let run = Run::traced("relay", &[]);
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    check_totals(&run);
    let replay = Replay::of(&run.dump());
    let all = THREADS as u64 * BLOCKS;
    assert_eq!((replay.made, replay.moved, replay.freed), (all, all, all), "blocks made, moved and freed");
    assert!(3 * all > 5_000_000, "{all} blocks have too few events to prove anything");
}

/// Requires that the summary's totals equal the oracle's and that no counter of damage or loss is
/// set.
fn check_totals(run: &Run) {
    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    for total in [
        "allocations",
        "deallocations",
        "reallocations",
        "allocated_bytes",
        "freed_bytes",
        "live_bytes",
        "live_blocks",
    ] {
        assert_eq!(summary[total], oracle[total], "{total} as recorded, and as counted");
    }
    for counter in ["lost_events", "truncated_stacks", "foreign_frees", "dropped_frames", "recovered_bytes"] {
        assert_eq!(number(&summary, counter), 0, "{counter}");
    }
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(summary["warnings"], Value::Array(Vec::new()));
    assert_eq!(number(&summary, "threads"), 1 + THREADS as i64);
    // The recorder and the oracle may order the events of different threads differently. Of each
    // thread that concerns its newest event only, and no block has more than 3 KiB. So the two
    // peaks differ by at most 3 KiB for each thread.
    let (peak, counted) = (number(&summary, "peak_bytes"), number(&oracle, "peak_bytes"));
    let tolerance = (1 + THREADS) * 3 * 1024;
    assert!(peak.abs_diff(counted) <= tolerance as u64, "peak: recorded {peak}, counted {counted}");
}

/// The heap as the dump describes it, and the step that each thread has reached.
#[derive(Default)]
struct Replay {
    /// The size of every live block, by its address.
    live: BTreeMap<u64, u64>,
    /// Old sizes of the blocks whose realloc has begun and not ended, by thread; the newest last.
    moving: HashMap<u32, Vec<u64>>,
    /// The thread that the next records are about.
    thread: u32,
    /// The time of the next records, in microseconds.
    us: u64,
    made: u64,
    moved: u64,
    freed: u64,
    /// The steps of each kind, by the thread that counts them.
    steps: HashMap<(StepKind, usize), Sequence>,
}

/// Kinds of steps. Each kind is a sequence without gaps for each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum StepKind {
    /// A thread makes a block. The maker counts it.
    Make,
    /// A thread moves a block of the thread before it. The mover counts it.
    Move,
    /// The same event, counted by the maker: blocks arrive in the order in which they were sent.
    MoveOfMaker,
    /// A thread frees a block. The thread that moved the block counts it.
    FreeOfMover,
}

/// The one thread that does all steps of a sequence, and the next step.
struct Sequence {
    thread: u32,
    next: usize,
}

impl Replay {
    /// Replays all records of a dump.
    fn of(dump: &Path) -> Replay {
        let mut replay = Replay::default();
        let mut reader = Reader::new(File::open(dump).unwrap()).unwrap();
        while let Some(records) = reader.next_frame().unwrap() {
            records.for_each(|record| replay.apply(&record));
        }
        assert!(reader.complete(), "the dump has an end and no damage: {:?}", reader.damage());
        assert!(replay.moving.values().all(Vec::is_empty), "every realloc that began has ended");
        replay
    }

    fn apply(&mut self, record: &Record<'_>) {
        match *record {
            Record::Thread { id } => self.thread = id,
            Record::Time { us } => {
                assert!(us >= self.us, "time goes back from {} us to {us} us", self.us);
                self.us = us;
            }
            Record::Alloc { addr, size, zeroed, .. } => {
                self.insert_live(addr, size);
                if let Some((maker, step)) = made_by(size) {
                    assert_eq!(zeroed, step % 2 == 1, "every other block of thread {maker} is zeroed");
                    self.check_step(StepKind::Make, maker, step);
                    self.made += 1;
                }
            }
            Record::Realloc { old, new, size, .. } => {
                let old_size = self.remove_live(old);
                self.end_move(old_size, new, size);
            }
            Record::ReallocBegin { old, .. } => {
                let old_size = self.remove_live(old);
                self.moving.entry(self.thread).or_default().push(old_size);
            }
            Record::ReallocEnd { new, size, .. } => {
                let begun = self.moving.get_mut(&self.thread).and_then(Vec::pop);
                let old_size =
                    begun.unwrap_or_else(|| panic!("{}: a realloc ends that never began", self.position()));
                self.end_move(old_size, new, size);
            }
            Record::ReallocFailed => panic!("{}: no realloc of this program fails", self.position()),
            Record::Dealloc { addr, .. } => {
                if let Some((mover, step)) = moved_by(self.remove_live(addr)) {
                    self.check_step(StepKind::FreeOfMover, mover, step);
                    self.freed += 1;
                }
            }
            Record::Lost { events } => panic!("{events} events are lost"),
            _ => {}
        }
    }

    fn end_move(&mut self, old_size: u64, new: u64, size: u64) {
        self.insert_live(new, size);
        if let Some((mover, step)) = moved_by(size) {
            let Some((maker, made)) = made_by(old_size) else {
                panic!("{}: thread {mover} moves a block of {old_size} bytes", self.position());
            };
            assert_eq!((maker + 1) % THREADS, mover, "blocks go to the next thread in the ring");
            self.check_step(StepKind::Move, mover, step);
            self.check_step(StepKind::MoveOfMaker, maker, made);
            self.moved += 1;
        }
    }

    /// Removes a block from the heap and returns its size.
    fn remove_live(&mut self, addr: u64) -> u64 {
        let size = self.live.remove(&addr);
        size.unwrap_or_else(|| panic!("{}: no block at {addr:#x} to free or move", self.position()))
    }

    /// Adds a block to the heap. It must not overlap a live block.
    fn insert_live(&mut self, addr: u64, size: u64) {
        let below = self.live.range(..addr + size.max(1)).next_back();
        if let Some((start, len)) = below.filter(|(start, len)| *start + (**len).max(1) > addr) {
            panic!(
                "{}: {size} bytes at {addr:#x}, where {len} bytes at {start:#x} are not freed yet",
                self.position()
            );
        }
        self.live.insert(addr, size);
    }

    /// Requires that this is the next step of its sequence, and that one thread does all of them.
    fn check_step(&mut self, kind: StepKind, thread: usize, step: usize) {
        let position = self.position();
        let seen = self.steps.entry((kind, thread)).or_insert(Sequence { thread: self.thread, next: 0 });
        assert_eq!(seen.thread, self.thread, "{position}: one thread does all of {kind:?} {thread}");
        assert_eq!(seen.next, step, "{position}: the next step of {kind:?} {thread}, and the recorded one");
        seen.next = (step + 1) % STEPS;
    }

    /// Describes the current record for messages.
    fn position(&self) -> String {
        format!("thread {}, at {} us, after {} blocks", self.thread, self.us, self.made)
    }
}
