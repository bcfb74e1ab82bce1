//! The drainer on a sink in memory, with threads that the test simulates.

use std::sync::{Arc, Mutex, MutexGuard};

use alloc_dump::exchange::CopiedThread;
use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Reader;
use alloc_dump::record::{Process, Record, RecordingLimit};
use alloc_dump::thread_ring::Entry;

use super::stream::{EnteredRing, Stream, Tick};
use crate::base::epoch::{self, Recording, RecordingId};
use crate::base::limits::Limits;
use crate::base::sys::{Errno, PathBuffer};
use crate::base::{ALONE, clock};
use crate::output::memory::MemorySink;
use crate::output::sidecar;

/// A recording in memory, while no other test uses the shared state.
struct TestRecording {
    stream: Stream<MemorySink>,
    dump: Arc<Mutex<Vec<u8>>>,
    _alone: MutexGuard<'static, ()>,
}

impl TestRecording {
    fn begin() -> TestRecording {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        clock::start();
        let id = RecordingId::after(0).unwrap();
        epoch::set_recording(Recording::Running(id));
        let (sink, dump) = MemorySink::new(&Header { session: [7; 16], created_unix_ns: 1 });
        let process = Process {
            pid: 1,
            page_size: 4096,
            from_first_event: true,
            exe: b"/app",
            args: b"",
            cwd: b"/",
            run: b"",
            debug_assertions: true,
        };
        let stream = Stream::begin(id, &PathBuffer::new(), sink, &process, || true).unwrap();
        TestRecording { stream, dump, _alone: alone }
    }

    fn thread(&mut self) -> TestThread {
        let EnteredRing { ring, thread, stored, last_timestamp, .. } = self.stream.enter_thread().unwrap();
        let mut entered = TestThread { ring, stored, last_timestamp };
        entered.store(|timestamp| Entry::ThreadStart { id: thread, os_tid: 100 + thread }.encode(timestamp));
        entered
    }

    /// Closes the dump and returns the facts in it.
    fn finish(mut self) -> Vec<Fact> {
        self.stream.finish().unwrap();
        epoch::set_recording(Recording::None);
        self.stream.close();
        facts(&self.dump.lock().unwrap())
    }
}

/// A thread of the program, with its ring.
struct TestThread {
    ring: crate::output::thread_ring::ThreadRing,
    stored: u64,
    last_timestamp: u64,
}

impl TestThread {
    fn store(&mut self, entry: impl FnOnce(u64) -> [u64; 3]) {
        self.last_timestamp = self.ring.store(self.stored, self.last_timestamp, entry);
        self.stored += 1;
    }

    fn alloc(&mut self, addr: u64) {
        let stack = StackId::ROOT;
        self.store(|timestamp| {
            Entry::Alloc { addr, size: 16, stack, zeroed: false, truncated: false }.encode(timestamp)
        });
    }

    /// Returns what a copy that is made at this moment reports of the thread.
    fn in_copy(&self, id: u32) -> CopiedThread {
        let ring_address = self.ring.address();
        let ring = id - 1;
        CopiedThread { id, tid: 100 + id, ring, stored: self.stored, ring_address, thread_pointer: 0 }
    }

    /// Stores the intent of an entry, but not the entry.
    fn begin_to_store(&self) {
        self.ring.word(INTENT).store(self.stored + 1, std::sync::atomic::Ordering::Release);
    }
}

/// Offset of the word that says which entry a thread is storing.
const INTENT: usize = 8;

/// The records of a dump that the tests compare: allocations with their threads, nodes and names of
/// marks and limits, in order.
#[derive(Debug, PartialEq)]
enum Fact {
    Alloc { thread: u32, addr: u64 },
    Node { id: u32, parent: u32, pc: u64 },
    MarkName(Vec<u8>),
    Limit(RecordingLimit),
    Snapshot(u32, Vec<u8>),
}

fn facts(dump: &[u8]) -> Vec<Fact> {
    let mut reader = Reader::new(dump).unwrap();
    let (mut facts, mut thread) = (Vec::new(), 0);
    while let Some(records) = reader.next_frame().unwrap() {
        for record in records {
            match record {
                Record::Thread { id } => thread = id,
                Record::Alloc { addr, .. } => facts.push(Fact::Alloc { thread, addr }),
                Record::Node { id, parent, pc } => {
                    facts.push(Fact::Node { id: id.0, parent: parent.0, pc });
                }
                Record::MarkName { name, .. } => facts.push(Fact::MarkName(name.to_vec())),
                Record::LimitReached(limit) => facts.push(Fact::Limit(limit)),
                Record::Snapshot { id, name, .. } => facts.push(Fact::Snapshot(id, name.to_vec())),
                _ => {}
            }
        }
    }
    assert!(reader.complete());
    facts
}

#[test]
fn entries_of_two_rings_are_in_the_order_of_their_timestamps() {
    let mut recording = TestRecording::begin();
    let (mut a, mut b) = (recording.thread(), recording.thread());
    let mut expected = Vec::new();
    for step in 0..200 {
        let addr = 0x1000 + step * 16;
        // Runs of different lengths, so that both rings are ahead now and then.
        let (thread, id) = if step * step % 7 < 3 { (&mut a, 1) } else { (&mut b, 2) };
        thread.last_timestamp = clock::timestamp();
        thread.alloc(addr);
        expected.push(Fact::Alloc { thread: id, addr });
        if step % 50 == 49 {
            recording.stream.drain(false).unwrap();
        }
    }
    assert_eq!(recording.finish(), expected);
}

#[test]
fn an_entry_waits_while_another_thread_may_still_store_an_earlier_one() {
    let mut recording = TestRecording::begin();
    let (mut a, mut b) = (recording.thread(), recording.thread());
    b.alloc(0x2000);
    b.begin_to_store();
    a.last_timestamp = b.last_timestamp;
    a.alloc(0x1000);
    // Taken are both thread starts and B's event. A's event is later than these, and B's next event
    // may lie in between.
    assert_eq!(recording.stream.drain(false).unwrap(), 3);
    assert_eq!(recording.stream.drain(false).unwrap(), 0);
    b.last_timestamp = a.last_timestamp;
    b.alloc(0x2010);
    assert_eq!(recording.stream.drain(false).unwrap(), 2);
    let alloc = |thread, addr| Fact::Alloc { thread, addr };
    assert_eq!(recording.finish(), [alloc(2, 0x2000), alloc(1, 0x1000), alloc(2, 0x2010)]);
}

#[test]
fn a_tick_tells_that_a_limit_is_reached() {
    let mut recording = TestRecording::begin();
    let mut thread = recording.thread();
    thread.alloc(0x1000);
    recording.stream.set_limits(Limits { dump_bytes: 1, ..Limits::NONE });
    let before = recording.stream.tick().unwrap();
    assert!(!matches!(before, Tick::LimitReached(_)), "nothing is in the dump yet: {before:?}");
    recording.stream.write_full_frame(true).unwrap();
    let size = RecordingLimit::DumpSize { bytes: 1 };
    assert_eq!(recording.stream.tick().unwrap(), Tick::LimitReached(size));
    recording.stream.set_limits(Limits { us: 0, ..Limits::NONE });
    let time = RecordingLimit::Duration { us: 0 };
    assert_eq!(recording.stream.tick().unwrap(), Tick::LimitReached(time));
    // What the thread has stored by then is in the dump.
    thread.alloc(0x2000);
    recording.stream.record_limit(time).unwrap();
    let alloc = |addr| Fact::Alloc { thread: 1, addr };
    assert_eq!(recording.finish(), [alloc(0x1000), Fact::Limit(time), alloc(0x2000)]);
}

#[test]
fn a_ring_goes_from_a_thread_that_has_ended_to_the_next_one() {
    let mut recording = TestRecording::begin();
    let mut first = recording.thread();
    first.alloc(0x1000);
    first.store(|timestamp| Entry::ThreadEnd.encode(timestamp));
    sidecar::leave_ring(first.ring);
    recording.stream.drain(false).unwrap();
    assert_eq!(first.ring.released(), first.stored, "everything is taken");
    let mut second = recording.thread();
    assert_eq!((second.ring.address(), second.stored), (first.ring.address(), first.stored + 1));
    second.alloc(0x1000);
    let alloc = |thread| Fact::Alloc { thread, addr: 0x1000 };
    assert_eq!(recording.finish(), [alloc(1), alloc(2)]);
}

#[test]
fn nodes_stand_before_the_events_that_use_them_also_when_their_ring_was_full() {
    let mut recording = TestRecording::begin();
    let mut thread = recording.thread();
    let nodes = alloc_dump::sidecar::NODE_RING_CAPACITY as u32 + 10;
    for index in 0..nodes {
        let (id, parent) = (StackId(StackId::FIRST.0 + index), StackId::ROOT);
        let make_room = || recording.stream.drain_nodes().is_ok();
        assert!(sidecar::append_node(id, parent, u64::from(index) + 1, make_room));
    }
    thread.alloc(0x1000);
    recording.stream.define_mark_name(b"behind").unwrap();
    let facts = recording.finish();
    let node = |index| Fact::Node { id: StackId::FIRST.0 + index, parent: 0, pc: u64::from(index) + 1 };
    let mut expected: Vec<Fact> = (0..nodes - 10).map(node).collect();
    // The first nodes were written to make room for the last ten. The mark's name was appended at
    // once, the last nodes when the rings were drained.
    expected.push(Fact::MarkName(b"behind".to_vec()));
    expected.extend((nodes - 10..nodes).map(node));
    expected.push(Fact::Alloc { thread: 1, addr: 0x1000 });
    assert_eq!(facts, expected);
}

#[test]
fn the_record_of_a_snapshot_is_behind_exactly_what_the_copy_has() {
    let mut recording = TestRecording::begin();
    let (mut a, mut b) = (recording.thread(), recording.thread());
    a.alloc(0x1000);
    b.alloc(0x2000);
    let made = recording.stream.snapshot(b"warm", |report| {
        // Entries that are stored between the drain and the copy belong to it.
        a.alloc(0x1010);
        report(a.in_copy(1));
        report(b.in_copy(2));
        // These do not, whatever their timestamps are.
        a.alloc(0x1020);
        b.alloc(0x2020);
        Ok(())
    });
    assert_eq!(made.unwrap(), Ok(1));
    b.alloc(0x2030);
    let [a1, b1, a2, a3, b2, b3] =
        [(1, 0x1000), (2, 0x2000), (1, 0x1010), (1, 0x1020), (2, 0x2020), (2, 0x2030)]
            .map(|(thread, addr)| Fact::Alloc { thread, addr });
    let snapshot = Fact::Snapshot(1, b"warm".to_vec());
    assert_eq!(recording.finish(), [a1, b1, a2, snapshot, a3, b2, b3]);
}

/// A copy does not report threads that have ended.
#[test]
fn all_entries_of_a_thread_that_had_ended_are_before_the_record() {
    let mut recording = TestRecording::begin();
    let mut ended = recording.thread();
    ended.alloc(0x1000);
    let made = recording.stream.snapshot(b"", |_| {
        ended.alloc(0x1010);
        Ok(())
    });
    assert_eq!(made.unwrap(), Ok(1));
    let [first, second] = [0x1000, 0x1010].map(|addr| Fact::Alloc { thread: 1, addr });
    assert_eq!(recording.finish(), [first, second, Fact::Snapshot(1, Vec::new())]);
}

#[test]
fn without_a_copy_there_is_no_record() {
    let mut recording = TestRecording::begin();
    let mut a = recording.thread();
    a.alloc(0x1000);
    let refused = recording.stream.snapshot(b"refused", |_| Err(Errno(libc::EAGAIN)));
    assert_eq!(refused.unwrap(), Err(Errno(libc::EAGAIN)));
    a.alloc(0x1010);
    let made = recording.stream.snapshot(b"made", |report| {
        report(a.in_copy(1));
        Ok(())
    });
    assert_eq!(made.unwrap(), Ok(1));
    let allocs = [0x1000, 0x1010].map(|addr| Fact::Alloc { thread: 1, addr });
    let [first, second] = allocs;
    assert_eq!(recording.finish(), [first, second, Fact::Snapshot(1, b"made".to_vec())]);
}
