//! Eight threads that pass blocks on at full speed: the totals are exact to the byte, the order is one that can have
//! happened, and within every thread it is the one that did.
//!
//! The judge reads the dump with `alloc_dump::read::Reader` alone and keeps a heap of its own. It knows nothing of the
//! recorder, and only the sizes from `tests::relay` of the program.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use serde_json::Value;
use tests::relay::{BATCH, BATCHES, STEPS, THREADS, made_by, moved_by};
use tests::{Run, number};

/// Blocks that each thread makes, moves and frees.
const BLOCKS: u64 = (BATCH * BATCHES) as u64;

#[test]
fn millions_of_events_of_eight_threads_are_exact_and_in_order() {
    let run = Run::traced("relay", &[]);
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    check_totals(&run);
    let order = Order::of(&run.dump());
    let all = THREADS as u64 * BLOCKS;
    assert_eq!((order.made, order.moved, order.freed), (all, all, all), "blocks made, moved and freed");
    assert!(3 * all > 5_000_000, "{all} blocks are too few to prove anything");
}

/// The summary's figures are those of the counter in the program, and nothing casts doubt on them.
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
        assert_eq!(summary[total], oracle[total], "{total}: recorded, and counted");
    }
    for nothing in ["lost_events", "truncated_stacks", "foreign_frees", "dropped_frames", "recovered_bytes"] {
        assert_eq!(number(&summary, nothing), 0, "{nothing}");
    }
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(summary["warnings"], Value::Array(Vec::new()));
    assert_eq!(number(&summary, "threads"), 1 + THREADS as i64);
    // Recorder and counter may see the events of several threads in different orders, but of each only the newest.
    let (peak, counted) = (number(&summary, "peak_bytes"), number(&oracle, "peak_bytes"));
    let apart = (1 + THREADS) * 3 * 1024;
    assert!(peak.abs_diff(counted) <= apart as u64, "peak: recorded {peak}, counted {counted}");
}

/// The heap as the dump tells it, and how far each thread has come.
#[derive(Default)]
struct Order {
    /// Address to size of every block that is held.
    live: BTreeMap<u64, u64>,
    /// Sizes of blocks on their way, by thread; the newest last.
    moving: HashMap<u32, Vec<u64>>,
    thread: u32,
    us: u64,
    made: u64,
    moved: u64,
    freed: u64,
    steps: HashMap<(Step, usize), Sequence>,
}

/// What the steps of a thread are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Makes,
    Moves,
    /// The same blocks by their maker's count: they arrive in the order in which they were sent.
    MovesOf,
    FreesOf,
}

/// Who does it, and which step comes next.
struct Sequence {
    thread: u32,
    next: usize,
}

impl Order {
    fn of(dump: &Path) -> Order {
        let mut order = Order::default();
        let mut reader = Reader::new(File::open(dump).unwrap()).unwrap();
        while let Some(records) = reader.next_frame().unwrap() {
            records.for_each(|record| order.record(&record));
        }
        assert!(reader.complete(), "the dump has an end and no damage: {:?}", reader.damage());
        assert!(order.moving.values().all(Vec::is_empty), "every move that began has ended");
        order
    }

    fn record(&mut self, record: &Record<'_>) {
        match *record {
            Record::Thread { id } => self.thread = id,
            Record::Time { us } => {
                assert!(us >= self.us, "time goes back from {} us to {us} us", self.us);
                self.us = us;
            }
            Record::Alloc { addr, size, zeroed, .. } => {
                self.place(addr, size);
                if let Some((maker, step)) = made_by(size) {
                    assert_eq!(zeroed, step % 2 == 1, "every other block of thread {maker} is zeroed");
                    self.step(Step::Makes, maker, step);
                    self.made += 1;
                }
            }
            Record::Realloc { old, new, size, .. } => {
                let old_size = self.take(old);
                self.end_move(old_size, new, size);
            }
            Record::ReallocBegin { old, .. } => {
                let old_size = self.take(old);
                self.moving.entry(self.thread).or_default().push(old_size);
            }
            Record::ReallocEnd { new, size, .. } => {
                let begun = self.moving.get_mut(&self.thread).and_then(Vec::pop);
                let old_size =
                    begun.unwrap_or_else(|| panic!("{}: a move ends, none began", self.place_of()));
                self.end_move(old_size, new, size);
            }
            Record::ReallocFailed => panic!("{}: no realloc of this program fails", self.place_of()),
            Record::Dealloc { addr, .. } => {
                if let Some((mover, step)) = moved_by(self.take(addr)) {
                    self.step(Step::FreesOf, mover, step);
                    self.freed += 1;
                }
            }
            Record::Lost { events } => panic!("{events} events are lost"),
            _ => {}
        }
    }

    fn end_move(&mut self, old_size: u64, new: u64, size: u64) {
        self.place(new, size);
        if let Some((mover, step)) = moved_by(size) {
            let Some((maker, made)) = made_by(old_size) else {
                panic!("{}: thread {mover} moves a block of {old_size} bytes", self.place_of());
            };
            assert_eq!((maker + 1) % THREADS, mover, "blocks go to the next thread in the ring");
            self.step(Step::Moves, mover, step);
            self.step(Step::MovesOf, maker, made);
            self.moved += 1;
        }
    }

    /// Takes a block out of the heap: its size.
    fn take(&mut self, addr: u64) -> u64 {
        let size = self.live.remove(&addr);
        size.unwrap_or_else(|| panic!("{}: no block at {addr:#x} to free or move", self.place_of()))
    }

    /// Puts a block into the heap, where there must be room for it.
    fn place(&mut self, addr: u64, size: u64) {
        let below = self.live.range(..addr + size.max(1)).next_back();
        if let Some((start, len)) = below.filter(|(start, len)| *start + (**len).max(1) > addr) {
            panic!(
                "{}: {size} bytes at {addr:#x}, where {len} bytes at {start:#x} are not freed yet",
                self.place_of()
            );
        }
        self.live.insert(addr, size);
    }

    /// The next step of its kind, by the thread that does them all.
    fn step(&mut self, kind: Step, thread: usize, step: usize) {
        let place = self.place_of();
        let seen = self.steps.entry((kind, thread)).or_insert(Sequence { thread: self.thread, next: 0 });
        assert_eq!(seen.thread, self.thread, "{place}: {kind:?} {thread} is done by one thread only");
        assert_eq!(
            seen.next, step,
            "{place}: the next step of {kind:?} {thread}, and the one that is recorded"
        );
        seen.next = (step + 1) % STEPS;
    }

    fn place_of(&self) -> String {
        format!("thread {}, at {} us, after {} blocks", self.thread, self.us, self.made)
    }
}
