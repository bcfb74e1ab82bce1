//! The recovery sidecar: which sidecars a reader accepts, and that a dump with its sidecar has all
//! the records of the dump that was cut off.

mod made;

use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
use alloc_dump::read::Damage;
use alloc_dump::record::Record;
use alloc_dump::sidecar::{
    self, COMMIT_OFFSETS, COMMITS_OFFSET, Commit, FRAME_CAPACITY, FRAME_OFFSET, IDENTITY_LEN, LOST_OFFSET,
    NODE_COUNT_OFFSET, NODE_LEN, NODE_RING_CAPACITY, NODE_RING_OFFSET, PARTIAL_OFFSET,
    PARTLY_VERIFIED_OFFSET, PAYLOAD_OFFSET, PID_OFFSET, RING_CAPACITY, RING_COUNT_OFFSET, RING_HEADER_LEN,
    RING_LEN, RING_TAKEN_OFFSET, RING_THREADS_OFFSET, RINGS_START, STATE_OFFSET, Sidecar,
};
use alloc_dump::thread_ring::{ENTRY_LEN, Entry, WIDE};
use alloc_dump::write::Encoder;

use made::{Dump, SESSION, one_of_each, payload, read, texts};

#[test]
fn the_payload_is_what_the_commit_says() {
    let records = payload(&one_of_each());
    let mut sidecar = SidecarFile::new();
    sidecar.set(STATE_OFFSET, 28);
    sidecar.set(PID_OFFSET, 4242);
    sidecar.0[PAYLOAD_OFFSET..][..records.len()].copy_from_slice(&records);
    assert_eq!(sidecar.parsed().payload(), b"", "before the first commit");
    for commits in 1..5 {
        let len = records.len() as u64 - commits;
        sidecar.commit(commits, Commit { len, seq: 5, ..Commit::default() });
        let sidecar = sidecar.parsed();
        assert_eq!((sidecar.payload(), sidecar.seq()), (&records[..len as usize], 5));
        assert_eq!((sidecar.stopped_errno, sidecar.pid, sidecar.commits), (Some(28), 4242, commits));
    }
}

#[test]
fn a_foreign_or_damaged_sidecar_is_refused() {
    let sidecar = SidecarFile::with_frame(&payload(&one_of_each()), 0);
    assert!(Sidecar::parse(&sidecar.0, &SESSION).is_some());
    assert_eq!(Sidecar::parse(&sidecar.0, b"another session."), None);
    for at in 0..32 {
        let mut bytes = sidecar.0.clone();
        bytes[at] ^= 0x10;
        assert_eq!(Sidecar::parse(&bytes, &SESSION), None, "byte {at}");
    }
    // The commit that is not valid is not looked at.
    for at in COMMIT_OFFSETS[0]..COMMIT_OFFSETS[0] + 64 {
        let mut bytes = sidecar.0.clone();
        bytes[at] ^= 0x10;
        assert!(Sidecar::parse(&bytes, &SESSION).is_some(), "byte {at}");
    }
}

#[test]
fn a_sidecar_cut_short_in_its_frame_is_refused() {
    let records = payload(&one_of_each());
    let sidecar = SidecarFile::with_frame(&records, 0);
    let end = PAYLOAD_OFFSET + records.len();
    for len in 0..end {
        assert_eq!(Sidecar::parse(&sidecar.0[..len], &SESSION), None, "{len} bytes");
    }
    assert!(Sidecar::parse(&sidecar.0[..end], &SESSION).is_some());
}

#[test]
fn numbers_out_of_range_are_refused_or_harmless() {
    let at = COMMIT_OFFSETS[1];
    let bad = [
        (at, (FRAME_CAPACITY - FRAME_HEADER_LEN) as u64 + 1),
        (at, u64::MAX),
        (at + 8, 1 << 32),
        (STATE_OFFSET, 1 << 31),
        (STATE_OFFSET, u64::MAX),
        (PID_OFFSET, 1 << 32),
    ];
    for (offset, value) in bad {
        let mut sidecar = SidecarFile::with_frame(&payload(&one_of_each()), 0);
        sidecar.set(offset, value);
        assert_eq!(Sidecar::parse(&sidecar.0, &SESSION), None, "{value:#x} at {offset}");
    }
    // Numbers without a bound must do no harm.
    for offset in (COMMITS_OFFSET..COMMIT_OFFSETS[1] + 56).step_by(8) {
        for value in [u64::MAX, 1 << 63, 1 << 32, 4097] {
            let mut sidecar = SidecarFile::with_frame(&payload(&one_of_each()), 0);
            sidecar.ring(0, 1, &[Entry::ThreadEnd.encode(1)]);
            sidecar.set(offset, value);
            if let Some(sidecar) = Sidecar::parse(&sidecar.0, &SESSION) {
                sidecar.recover_frames(0, 0);
            }
        }
    }
}

/// Goes through the steps of the tracker, and recovers the recording after each of them as if a
/// kill had come there.
#[test]
fn a_recording_killed_at_any_instant_loses_nothing() {
    let stack = StackId::FIRST;
    let free = |number: u64| Entry::Dealloc { addr: 16 * number, size: 8, stack, truncated: false };
    let expected = |count: u64| -> Vec<String> {
        let record = |number| Record::Dealloc { addr: 16 * number, size: None, stack };
        texts(&(0..count).map(record).collect::<Vec<_>>())
    };
    let (mut dump, mut sidecar, mut encoder) = (Dump::new(), SidecarFile::new(), Encoder::new());
    let mut commits = 0;
    let mut stored = Vec::new();
    let mut commit =
        |sidecar: &mut SidecarFile, len: usize, seq: u32, taken: u64, killed: &dyn Fn(&SidecarFile)| {
            commits += 1;
            let which = (commits & 1) as usize * 8;
            sidecar.set(RINGS_START + RING_TAKEN_OFFSET + which, taken);
            killed(sidecar);
            sidecar.set(RINGS_START + RING_THREADS_OFFSET + which, 1);
            killed(sidecar);
            let words = Commit { len: len as u64, seq: u64::from(seq), ..Commit::default() }.words();
            for (index, word) in words.into_iter().enumerate() {
                sidecar.set(COMMIT_OFFSETS[(commits & 1) as usize] + 8 * index, word);
                killed(sidecar);
            }
            sidecar.set(COMMITS_OFFSET, commits);
            killed(sidecar);
        };
    for number in 0..60u64 {
        // A thread stores an event.
        stored.push(free(number).encode(100 + number));
        sidecar.ring(0, 1, &stored);
        let killed = |dump: &Dump, sidecar: &SidecarFile| {
            assert_eq!(heap_events(&recovered(dump, sidecar)), expected(number + 1), "event {number}");
        };
        killed(&dump, &sidecar);
        // The drain process takes the event.
        let record = Record::Dealloc { addr: 16 * number, size: None, stack };
        // Small frames: most of the frame's memory stays unused.
        if encoder.len() > 40 {
            commit(&mut sidecar, encoder.len(), dump.next_seq(), number, &|sidecar| killed(&dump, sidecar));
            let seq = dump.next_seq();
            let len = encoder.seal(&mut sidecar.0[FRAME_OFFSET..FRAME_OFFSET + FRAME_CAPACITY], seq);
            for part in 0..len {
                let mut cut = dump.clone();
                cut.bytes.extend_from_slice(&sidecar.0[FRAME_OFFSET..][..part]);
                killed(&cut, &sidecar);
            }
            dump.append(&sidecar.0[FRAME_OFFSET..][..len], 0);
            killed(&dump, &sidecar);
            commit(&mut sidecar, 0, dump.next_seq(), number, &|sidecar| killed(&dump, sidecar));
        }
        encoder.push(&mut sidecar.0[FRAME_OFFSET..FRAME_OFFSET + FRAME_CAPACITY], &record).unwrap();
        killed(&dump, &sidecar);
        let len = encoder.len();
        commit(&mut sidecar, len, dump.next_seq(), number + 1, &|sidecar| killed(&dump, sidecar));
    }
    assert!(dump.frames.len() > 3);
}

#[test]
fn entries_of_all_rings_are_sorted_by_timestamp_and_keep_their_thread() {
    let mut sidecar = SidecarFile::new();
    let stack = StackId::FIRST;
    let alloc = |addr| Entry::Alloc { addr, size: 24, stack, zeroed: false, truncated: false };
    let first = [
        alloc(0x10).encode(100),
        Entry::ReallocBegin { addr: 0x10, size: 24 }.encode(300),
        Entry::ReallocEnd { addr: 0x20, size: 48, stack, truncated: false }.encode(310),
        Entry::ThreadName(*b"worker\0\0\0\0\0\0\0\0\0\0").encode(320),
        Entry::ReallocBegin { addr: 0x20, size: 48 }.encode(400),
        Entry::ReallocEnd { addr: 0x30, size: 96, stack, truncated: false }.encode(500),
    ];
    let second = [
        Entry::ThreadStart { id: 9, os_tid: 77 }.encode(150),
        Entry::Size(1 << 33).encode(199),
        Entry::Alloc { addr: 0x70, size: WIDE, stack, zeroed: true, truncated: false }.encode(200),
        // At the same timestamp the other thread's block leaves this address.
        alloc(0x20).encode(400),
        Entry::ThreadEnd.encode(600),
    ];
    sidecar.ring(0, 4, &first);
    sidecar.ring(1, 1, &second);
    sidecar.set(LOST_OFFSET, 5);
    sidecar.set(PARTLY_VERIFIED_OFFSET, 10);
    sidecar.commit(
        1,
        Commit { lost: 2, partly_verified: 6, timestamp: 100, us: 7, rate: 1 << 31, ..Commit::default() },
    );
    sidecar.set_taken(0, 0, 4);
    let node = sidecar::node_words(stack, StackId::ROOT, 0x5555);
    sidecar.set(NODE_RING_OFFSET, node[0]);
    sidecar.set(NODE_RING_OFFSET + 8, node[1]);
    sidecar.set(NODE_COUNT_OFFSET, 1);
    let expected = [
        Record::Node { id: stack, parent: StackId::ROOT, pc: 0x5555 },
        Record::Lost { events: 3 },
        Record::PartlyVerified { stacks: 4 },
        Record::Thread { id: 4 },
        Record::Time { us: 7 },
        Record::Alloc { addr: 0x10, size: 24, stack, zeroed: false },
        Record::ThreadStart { id: 9, os_tid: 77 },
        Record::Thread { id: 9 },
        Record::Time { us: 57 },
        Record::Alloc { addr: 0x70, size: 1 << 33, stack, zeroed: true },
        Record::Thread { id: 4 },
        // One step takes half a microsecond; timestamp 100 is at 7 us.
        Record::Time { us: 112 },
        Record::Realloc { old: 0x10, old_size: Some(24), new: 0x20, size: 48, stack },
        Record::ThreadName { id: 4, name: b"worker" },
        Record::Time { us: 157 },
        Record::ReallocBegin { old: 0x20, old_size: Some(48) },
        Record::Thread { id: 9 },
        Record::Alloc { addr: 0x20, size: 24, stack, zeroed: false },
        Record::Thread { id: 4 },
        Record::Time { us: 207 },
        Record::ReallocEnd { new: 0x30, size: 96, stack },
        Record::ThreadEnd { id: 9 },
    ];
    assert_eq!(recovered(&Dump::new(), &sidecar), texts(&expected));
}

#[test]
fn rings_wrap_around() {
    let mut sidecar = SidecarFile::new();
    let room = RING_CAPACITY as u64;
    sidecar.ring(0, 1, &[]);
    for number in room - 2..room + 3 {
        let entry = Entry::Dealloc { addr: number, size: 1, stack: StackId::NONE, truncated: false };
        sidecar.entry(0, number, entry.encode(number));
    }
    sidecar.set(RINGS_START, room + 3);
    sidecar.commit(1, Commit { nodes: NODE_RING_CAPACITY as u64 - 1, ..Commit::default() });
    sidecar.set_taken(0, room - 2, 1);
    sidecar.set(NODE_COUNT_OFFSET, NODE_RING_CAPACITY as u64 + 1);
    for (slot, id) in [(NODE_RING_CAPACITY - 1, 50), (0, 51)] {
        let words = sidecar::node_words(StackId(id), StackId::ROOT, u64::from(id));
        sidecar.set(NODE_RING_OFFSET + slot * NODE_LEN, words[0]);
        sidecar.set(NODE_RING_OFFSET + slot * NODE_LEN + 8, words[1]);
    }
    let records = recovered(&Dump::new(), &sidecar);
    let node = |id| Record::Node { id: StackId(id), parent: StackId::ROOT, pc: u64::from(id) };
    assert_eq!(records[..2], texts(&[node(50), node(51)]));
    let free = |addr| Record::Dealloc { addr, size: None, stack: StackId::NONE };
    assert_eq!(heap_events(&records), texts(&(room - 2..room + 3).map(free).collect::<Vec<_>>()));
}

/// The second of the older rings begins at an offset where the first ring of today's size has not
/// ended yet.
#[test]
fn rings_of_older_writers_have_room_for_4096_entries() {
    const { assert!(RING_CAPACITY > 4096) };
    let len = 4096 + 4096 * ENTRY_LEN;
    let mut sidecar = SidecarFile::new();
    sidecar.0.resize(RINGS_START + 2 * len, 0);
    sidecar.0[..8].copy_from_slice(b"\x89ADTAIL\n");
    let crc = crc32(&sidecar.0[..24]);
    sidecar.0[24..28].copy_from_slice(&crc.to_le_bytes());
    sidecar.0[28..32].fill(0);
    sidecar.set(RING_COUNT_OFFSET, 2);
    sidecar.commit(1, Commit::default());
    for ring in 0..2 {
        let at = RINGS_START + ring * len;
        // The ring has wrapped around: the newest entry stands at its beginning.
        sidecar.set(at, 4097);
        sidecar.set(at + RING_TAKEN_OFFSET + 8, 4095);
        for number in [4095, 4096] {
            let addr = (10 * ring + number) as u64;
            let entry = Entry::Dealloc { addr, size: 1, stack: StackId::NONE, truncated: false };
            for (index, word) in entry.encode((2 * number + ring) as u64).into_iter().enumerate() {
                sidecar.set(at + 4096 + number % 4096 * ENTRY_LEN + 8 * index, word);
            }
        }
    }
    let free = |addr| Record::Dealloc { addr, size: None, stack: StackId::NONE };
    let expected: Vec<_> = [4095, 4105, 4096, 4106].map(free).into();
    assert_eq!(heap_events(&recovered(&Dump::new(), &sidecar)), texts(&expected));
}

#[test]
fn ring_capacities_that_no_writer_makes_are_refused() {
    let mut sidecar = SidecarFile::new();
    for (room, is_accepted) in
        [(0u32, false), (1, true), (3, false), (4096, true), (4097, false), (8192, true), (16384, false)]
    {
        sidecar.0[24..28].copy_from_slice(&room.to_le_bytes());
        let crc = crc32(&sidecar.0[..28]);
        sidecar.0[28..32].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Sidecar::parse(&sidecar.0, &SESSION).is_some(), is_accepted, "{room}");
    }
}

#[test]
fn entries_that_do_not_fit_into_one_frame_become_several_frames() {
    let mut sidecar = SidecarFile::new();
    let rings = 12;
    let free = |addr| Entry::Dealloc { addr, size: 1, stack: StackId(1 << 30), truncated: false };
    for ring in 0..rings {
        let far = |number: u64| free((number * 7919 + ring) << 20).encode(number * rings + ring);
        sidecar.ring(ring as usize, 1, &(0..RING_CAPACITY as u64).map(far).collect::<Vec<_>>());
    }
    let frames = sidecar.parsed().recover_frames(0, 0);
    let outcome = read([Dump::new().bytes, frames].concat().as_slice()).unwrap();
    assert_eq!((outcome.damage, outcome.next_seq > 1), (Damage::default(), true));
    let events = heap_events(&outcome.records);
    assert_eq!(events.len(), rings as usize * RING_CAPACITY);
    let first = Record::Dealloc { addr: 1 << 20, size: None, stack: StackId(1 << 30) };
    assert_eq!(events[1], texts(&[first])[0]);
}

#[test]
fn frames_between_the_dump_and_its_sidecar_are_counted_as_missing() {
    let late = [Record::Dealloc { addr: 1, size: Some(2), stack: StackId::NONE }];
    let dump = Dump::of(&one_of_each(), 4096);
    let sidecar = SidecarFile::with_frame(&payload(&late), 4);
    assert_eq!((sidecar.parsed().missing_frames(dump.next_seq()), dump.next_seq()), (3, 1));
    assert_eq!(recovered(&dump, &sidecar), texts(&[&one_of_each()[..], &late].concat()));
}

/// Returns the records of a dump with its sidecar, as docs/FORMAT.md tells a reader to join them.
fn recovered(dump: &Dump, sidecar: &SidecarFile) -> Vec<String> {
    let outcome = read(dump.bytes.as_slice()).unwrap();
    let mut bytes = dump.bytes[..outcome.end_of_whole_frames as usize].to_vec();
    bytes.extend(sidecar.parsed().recover_frames(outcome.next_seq, outcome.next_seq));
    let outcome = read(bytes.as_slice()).unwrap();
    assert_eq!(outcome.damage, Damage::default());
    assert!(!outcome.complete);
    outcome.records
}

/// Returns the heap events, without the records of threads and times.
fn heap_events(records: &[String]) -> Vec<String> {
    records.iter().filter(|text| text.starts_with("Dealloc")).cloned().collect()
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

/// The bytes of a sidecar.
struct SidecarFile(Vec<u8>);

impl SidecarFile {
    fn new() -> SidecarFile {
        let mut sidecar = SidecarFile(vec![0; RINGS_START]);
        sidecar.0[..IDENTITY_LEN].copy_from_slice(&sidecar::encode_identity(&SESSION));
        sidecar
    }

    fn with_frame(payload: &[u8], seq: u64) -> SidecarFile {
        let mut sidecar = SidecarFile::new();
        sidecar.0[PAYLOAD_OFFSET..][..payload.len()].copy_from_slice(payload);
        sidecar.commit(1, Commit { len: payload.len() as u64, seq, ..Commit::default() });
        sidecar.set(PARTIAL_OFFSET, 1);
        sidecar
    }

    fn parsed(&self) -> Sidecar<'_> {
        Sidecar::parse(&self.0, &SESSION).unwrap()
    }

    fn commit(&mut self, commits: u64, commit: Commit) {
        for (index, word) in commit.words().into_iter().enumerate() {
            self.set(COMMIT_OFFSETS[(commits & 1) as usize] + 8 * index, word);
        }
        self.set(COMMITS_OFFSET, commits);
    }

    /// Stores entries in a ring. Unless another commit says otherwise, the ring belongs to `thread`
    /// before the first of them.
    fn ring(&mut self, ring: usize, thread: u64, entries: &[[u64; 3]]) {
        let end = RINGS_START + (ring + 1) * RING_LEN;
        if self.0.len() < end {
            self.0.resize(end, 0);
            self.set(RING_COUNT_OFFSET, ring as u64 + 1);
            self.set_taken(ring, 0, thread);
        }
        for (number, words) in entries.iter().enumerate() {
            self.entry(ring, number as u64, *words);
        }
        self.set(RINGS_START + ring * RING_LEN, entries.len() as u64);
    }

    fn set_taken(&mut self, ring: usize, taken: u64, thread: u64) {
        let at = RINGS_START + ring * RING_LEN;
        for which in [0, 8] {
            self.set(at + RING_TAKEN_OFFSET + which, taken);
            self.set(at + RING_THREADS_OFFSET + which, thread);
        }
    }

    fn entry(&mut self, ring: usize, number: u64, words: [u64; 3]) {
        let slot = number as usize % RING_CAPACITY;
        let at = RINGS_START + ring * RING_LEN + RING_HEADER_LEN + slot * ENTRY_LEN;
        for (index, word) in words.into_iter().enumerate() {
            self.set(at + 8 * index, word);
        }
    }

    fn set(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
}
