//! The recovery sidecar, `DUMP.tail`: everything that is recorded and not in the dump yet.
//!
//! In: the bytes of a sidecar. Out: the frames that its dump lacks. Nothing here trusts what it
//! reads, or panics on it.
//!
//! The tracker works inside a shared mapping of this file. So the kernel keeps the contents when
//! the process is killed at any instruction. A recording that ends well removes the file. A reader
//! that finds a dump without a trailer looks here for the rest: the current dump frame, the newest
//! nodes of the call tree, and the [thread rings](crate::thread_ring).
//!
//! Layout, little-endian:
//!
//! | offset | contents |
//! | --- | --- |
//! | 0 | header, one page |
//! | [`FRAME_OFFSET`] | current dump frame, [`FRAME_CAPACITY`] bytes; the first [`FRAME_HEADER_LEN`] are for its header |
//! | [`NODE_RING_OFFSET`] | ring buffer of [`NODE_RING_CAPACITY`] nodes |
//! | [`RINGS_START`] | thread rings, each of [`RING_LEN`] bytes as this version writes them |
//!
//! **Header**: magic (8 bytes), session (16), entries that each thread ring has room for (4),
//! CRC-32 of these 28 bytes (4). Behind these stand words of 8 bytes, which the tracker stores one
//! by one: [`STATE_OFFSET`], [`PID_OFFSET`], [`COMMITS_OFFSET`], [`LOST_OFFSET`],
//! [`RING_COUNT_OFFSET`], [`NODE_COUNT_OFFSET`], [`PARTIAL_OFFSET`], [`UNPROTECTED_OFFSET`] and
//! [`PARTLY_VERIFIED_OFFSET`].
//!
//! **Commits** state together what the current dump frame holds and what is left in the thread
//! rings. There is room for two, each of [`COMMIT_WORDS`] words. The tracker publishes a commit in
//! two steps:
//!
//! 1. It writes the commit that is not valid, and for this commit into every ring how many of its
//!    entries were taken.
//! 2. It stores the number of commits, whose lowest bit tells which of the two is valid.
//!
//! So at every instant one commit is whole, and no event is both in the frame and in its ring, or
//! in neither.
//!
//! **Nodes** have 16 bytes each: return address (8), parent (4), node (4). [`NODE_COUNT_OFFSET`]
//! counts all nodes that were ever stored.
//!
//! **Thread rings** have a header of one page. It begins with the number of entries ever stored.
//! For each of the two commits it has, at [`RING_TAKEN_OFFSET`], how many of these entries are in
//! frames, and, at [`RING_THREADS_OFFSET`], the thread that the next entry belongs to. A ring
//! buffer of entries follows. The header of the sidecar says for how many entries it has room:
//! [`RING_CAPACITY`] as this version writes it.

use crate::frame::FrameHeader;
use crate::layout::{
    FRAME_HEADER_LEN, FRAME_RECORDS, SIDECAR_HEADER_LEN, SIDECAR_MAGIC, SIDECAR_MAGIC_1,
    SIDECAR_MEMORY_PREFIX, SIDECAR_SUFFIX, StackId,
};
use crate::record::Record;
use crate::thread_ring::{DecodedEntry, ENTRY_LEN, Entry, RingDecoder};
use crate::write::Encoder;

/// Length in bytes of the identity that a sidecar begins with.
pub const IDENTITY_LEN: usize = 32;
/// Offset in bytes of the state: 0 while recording, else the error number (`errno`) at which the
/// recording stopped.
pub const STATE_OFFSET: usize = 32;
/// Offset in bytes of the session, which has 16 bytes.
pub const SESSION_OFFSET: usize = 8;
/// Offset in bytes of the process id of the writer.
pub const PID_OFFSET: usize = 40;
/// Offset in bytes of the number of commits so far; 0 before the first.
pub const COMMITS_OFFSET: usize = 48;
/// Offset in bytes of the number of lost events so far.
pub const LOST_OFFSET: usize = 56;
/// Offset in bytes of the number of thread rings.
pub const RING_COUNT_OFFSET: usize = 64;
/// Offset in bytes of the number of nodes ever stored.
pub const NODE_COUNT_OFFSET: usize = 72;
/// Offset in bytes of a flag: not 0 if records of freed blocks need sizes, because readers may not
/// have seen all allocations.
pub const PARTIAL_OFFSET: usize = 80;
/// Offset in bytes of the number of thread rings that are not in the sidecar, or only in part,
/// because it could not grow. If the process is killed, the entries outside of it are lost.
pub const UNPROTECTED_OFFSET: usize = 88;
/// Offset in bytes of the number of [partly verified](crate::record::Record::PartlyVerified) stacks
/// so far.
pub const PARTLY_VERIFIED_OFFSET: usize = 96;
/// Offsets in bytes of the two commits: of the one that is valid if the number of commits is even,
/// and of the other.
pub const COMMIT_OFFSETS: [usize; 2] = [128, 256];
/// Words of a commit, in the order of the fields of [`Commit`].
pub const COMMIT_WORDS: usize = 8;

/// Size in bytes of the current dump frame's memory, header included.
pub const FRAME_CAPACITY: usize = 256 << 10;
/// How many nodes the ring buffer of nodes has room for; a power of two.
pub const NODE_RING_CAPACITY: usize = 4096;
/// Size of a node in bytes.
pub const NODE_LEN: usize = 16;
/// How many entries a thread ring has room for; a power of two. Readers refuse a sidecar that
/// claims more.
///
/// PERF: with half as many entries the drain process looks at the rings twice as often. The json
/// and JavaScript benchmarks cost 5 to 8 % more then, syn costs the same.
pub const RING_CAPACITY: usize = 8192;
/// How many entries a thread ring has room for in sidecars that begin with [`SIDECAR_MAGIC_1`].
const RING_CAPACITY_1: usize = 4096;
/// Length of a thread ring's header in bytes.
pub const RING_HEADER_LEN: usize = 4096;
/// Size of a thread ring in bytes, header included.
pub const RING_LEN: usize = RING_HEADER_LEN + RING_CAPACITY * ENTRY_LEN;
/// Offset in bytes, from the start of a thread ring, of two words: how many of its entries are in
/// frames, for each commit.
pub const RING_TAKEN_OFFSET: usize = 128;
/// Offset in bytes, from the start of a thread ring, of two words: the number of the thread that
/// the ring's next entry belongs to, for each commit.
pub const RING_THREADS_OFFSET: usize = 144;
/// Offset in bytes of the current dump frame.
pub const FRAME_OFFSET: usize = SIDECAR_HEADER_LEN;
/// Offset in bytes of the current dump frame's payload.
pub const PAYLOAD_OFFSET: usize = FRAME_OFFSET + FRAME_HEADER_LEN;
/// Offset in bytes of the ring buffer of nodes.
pub const NODE_RING_OFFSET: usize = FRAME_OFFSET + FRAME_CAPACITY;
/// Offset in bytes of the first thread ring.
pub const RINGS_START: usize = NODE_RING_OFFSET + NODE_RING_CAPACITY * NODE_LEN;
/// Most thread rings of a sidecar. No writer makes more, and readers ignore further ones.
pub const MAX_RINGS: usize = 1 << 14;

/// A consistent statement of how far the recording has come: what is in frames at one moment, and
/// the clock at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Bytes of whole records in the current dump frame.
    pub len: u64,
    /// The sequence number that the current dump frame will have in the dump.
    pub seq: u64,
    /// How many of the nodes that were ever stored are in frames.
    pub nodes: u64,
    /// How many of the lost events are in frames.
    pub lost: u64,
    /// A timestamp of the shared clock. `us` is the time at that timestamp.
    pub timestamp: u64,
    /// Microseconds since time zero at `timestamp`.
    pub us: u64,
    /// Microseconds that one step of the timestamp takes, times 2^32.
    pub rate: u64,
    /// How many of the partly verified stacks are in frames.
    pub partly_verified: u64,
}

impl Commit {
    /// Returns the commit's words, in the order of the fields.
    pub fn words(&self) -> [u64; COMMIT_WORDS] {
        let Commit { len, seq, nodes, lost, timestamp, us, rate, partly_verified } = *self;
        [len, seq, nodes, lost, timestamp, us, rate, partly_verified]
    }

    fn from_words(words: [u64; COMMIT_WORDS]) -> Commit {
        let [len, seq, nodes, lost, timestamp, us, rate, partly_verified] = words;
        Commit { len, seq, nodes, lost, timestamp, us, rate, partly_verified }
    }

    /// Returns the time that a timestamp stands for, in microseconds since time zero.
    #[inline]
    pub fn time_of(&self, timestamp: u64) -> u64 {
        let steps = |steps: u64| ((u128::from(steps) * u128::from(self.rate)) >> 32) as u64;
        match timestamp.checked_sub(self.timestamp) {
            Some(after) => self.us.saturating_add(steps(after)),
            None => self.us.saturating_sub(steps(self.timestamp - timestamp)),
        }
    }
}

/// Returns the first [`IDENTITY_LEN`] bytes of the sidecar of a dump with this session id. They
/// never change afterwards.
pub fn encode_identity(session: &[u8; 16]) -> [u8; IDENTITY_LEN] {
    let mut bytes = [0u8; IDENTITY_LEN];
    bytes[0..8].copy_from_slice(&SIDECAR_MAGIC);
    bytes[8..24].copy_from_slice(session);
    bytes[24..28].copy_from_slice(&(RING_CAPACITY as u32).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether a path is one that a recorder gives to a sidecar in memory. Whoever removes the file
/// that `DUMP.tail` links to checks this first: somebody else may have put a link there that leads
/// elsewhere.
///
/// ```
/// use alloc_dump::sidecar::is_memory_path;
/// assert!(is_memory_path(b"/dev/shm/alloc-tracker.0123456789abcdef0123456789ABCDEF.tail"));
/// assert!(!is_memory_path(b"/dev/shm/alloc-tracker.0123456789abcdef0123456789abcde/.tail"));
/// assert!(!is_memory_path(b"/home/me/alloc-tracker.0123456789abcdef0123456789abcdef.tail"));
/// ```
pub fn is_memory_path(path: &[u8]) -> bool {
    let rest = path.strip_prefix(SIDECAR_MEMORY_PREFIX.as_bytes());
    let digits = rest.and_then(|rest| rest.strip_suffix(SIDECAR_SUFFIX.as_bytes()));
    digits.is_some_and(|digits| digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Returns how many entries the thread rings of this session's sidecar have room for. `None` if the
/// sidecar belongs to another session, or its identity is damaged.
fn ring_capacity(bytes: &[u8], session: &[u8; 16]) -> Option<usize> {
    let identity = bytes.get(..IDENTITY_LEN)?;
    let (magic, its_session) = (&identity[..8], &identity[8..24]);
    let number = |at: usize| Some(u32::from_le_bytes(*identity.get(at..)?.first_chunk()?));
    let (room, crc_at) = if magic == SIDECAR_MAGIC_1 {
        (RING_CAPACITY_1, 24)
    } else if magic == SIDECAR_MAGIC {
        (number(24)? as usize, 28)
    } else {
        return None;
    };
    let is_whole = number(crc_at)? == crc32fast::hash(&identity[..crc_at]);
    (is_whole && its_session == session && room.is_power_of_two() && room <= RING_CAPACITY).then_some(room)
}

/// Returns the two words of a node in the sidecar.
#[inline]
pub fn node_words(id: StackId, parent: StackId, pc: u64) -> [u64; 2] {
    [pc, u64::from(id.0) << 32 | u64::from(parent.0)]
}

/// Returns the record that defines the node with these two words.
#[inline]
pub fn node_record([pc, ids]: [u64; 2]) -> Record<'static> {
    Record::Node { id: StackId((ids >> 32) as u32), parent: StackId(ids as u32), pc }
}

/// The contents of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sidecar<'a> {
    /// Error number (`errno`) at which the recording stopped; `None` if it ran to the end.
    pub stopped_errno: Option<i32>,
    /// Process id of the writer.
    pub pid: u32,
    /// Number of commits so far; 0 before the first. If the writer is still at work, compare this
    /// number before and after reading the bytes: if it has changed, the bytes are not of one
    /// moment.
    pub commits: u64,
    /// Number of thread rings that are not in the sidecar, or only in part. The entries outside of
    /// it are lost.
    pub unprotected: u64,
    /// The valid commit; all zeros before the first.
    pub commit: Commit,
    /// How many entries each thread ring has room for.
    ring_capacity: usize,
    bytes: &'a [u8],
}

impl<'a> Sidecar<'a> {
    /// Reads the sidecar of the dump with this session id. `None` if the sidecar belongs to another
    /// dump, is damaged, or is cut short before the end of its current dump frame.
    pub fn parse(bytes: &'a [u8], session: &[u8; 16]) -> Option<Sidecar<'a>> {
        let ring_capacity = ring_capacity(bytes, session)?;
        let commits = word(bytes, COMMITS_OFFSET)?;
        let at = COMMIT_OFFSETS[(commits & 1) as usize];
        let mut words = [0; COMMIT_WORDS];
        for (index, field) in words.iter_mut().enumerate() {
            *field = word(bytes, at + 8 * index)?;
        }
        let commit = if commits == 0 { Commit::default() } else { Commit::from_words(words) };
        let sidecar = Sidecar {
            stopped_errno: Some(i32::try_from(word(bytes, STATE_OFFSET)?).ok()?).filter(|errno| *errno != 0),
            pid: u32::try_from(word(bytes, PID_OFFSET)?).ok()?,
            commits,
            unprotected: word(bytes, UNPROTECTED_OFFSET)?,
            commit,
            ring_capacity,
            bytes,
        };
        u32::try_from(commit.seq).ok()?;
        (sidecar.payload().len() as u64 == commit.len).then_some(sidecar)
    }

    /// Returns the sequence number that the current dump frame will have in the dump.
    pub fn seq(&self) -> u32 {
        self.commit.seq as u32
    }

    /// Returns how many frames are missing between this sidecar and a dump whose next frame has the
    /// sequence number `next_seq`.
    pub fn missing_frames(&self, next_seq: u32) -> u32 {
        self.seq().saturating_sub(next_seq)
    }

    /// Returns the payload of the current dump frame: whole records, in order.
    pub fn payload(&self) -> &'a [u8] {
        let len =
            usize::try_from(self.commit.len).unwrap_or(usize::MAX).min(FRAME_CAPACITY - FRAME_HEADER_LEN);
        self.bytes.get(PAYLOAD_OFFSET..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    /// Returns the bytes of frames that hold everything which a dump lacks, without omission or
    /// repetition. The result is empty if the dump lacks nothing.
    ///
    /// The next frame of the dump has the sequence number `next_seq`. The returned frames are
    /// numbered from `first` on.
    pub fn recover_frames(&self, next_seq: u32, first: u32) -> Vec<u8> {
        let mut rest = RecoveredFrames::new(first);
        if self.seq() >= next_seq && !self.payload().is_empty() {
            let frame = FrameHeader::raw(FRAME_RECORDS, first, self.payload());
            rest.frames.extend_from_slice(&frame.encode());
            rest.frames.extend_from_slice(self.payload());
            rest.seq = rest.seq.saturating_add(1);
        }
        self.nodes().for_each(|node| rest.push(&node));
        if let Some(lost) = word(self.bytes, LOST_OFFSET).and_then(|all| all.checked_sub(self.commit.lost))
            && lost > 0
        {
            rest.push(&Record::Lost { events: lost });
        }
        let all = word(self.bytes, PARTLY_VERIFIED_OFFSET).unwrap_or(0);
        if let Some(stacks @ 1..) = all.checked_sub(self.commit.partly_verified) {
            rest.push(&Record::PartlyVerified { stacks });
        }
        self.push_entries(&mut rest);
        rest.seal();
        rest.frames
    }

    /// Returns the records of the nodes that are in no frame yet. Returns none if more of them were
    /// stored than the ring buffer has room for.
    fn nodes(&self) -> impl Iterator<Item = Record<'static>> {
        let stored = word(self.bytes, NODE_COUNT_OFFSET).unwrap_or(0);
        let first = if stored.saturating_sub(self.commit.nodes) <= NODE_RING_CAPACITY as u64 {
            self.commit.nodes.min(stored)
        } else {
            stored
        };
        (first..stored).filter_map(|index| {
            let at = NODE_RING_OFFSET + (index as usize % NODE_RING_CAPACITY) * NODE_LEN;
            Some(node_record([word(self.bytes, at)?, word(self.bytes, at + 8)?]))
        })
    }

    /// Pushes the records of all entries that are in no frame yet, in the order of their
    /// timestamps.
    fn push_entries(&self, rest: &mut RecoveredFrames) {
        let valid = (self.commits & 1) as usize * 8;
        let rings = word(self.bytes, RING_COUNT_OFFSET).unwrap_or(0).min(MAX_RINGS as u64) as usize;
        let (mut waiting, mut decoders) = (Vec::new(), Vec::new());
        let ring_len = RING_HEADER_LEN + self.ring_capacity * ENTRY_LEN;
        for index in 0..rings {
            let Some(ring) = self.bytes.get(RINGS_START + index * ring_len..) else { break };
            let stored = word(ring, 0).unwrap_or(0);
            let taken = word(ring, RING_TAKEN_OFFSET + valid).unwrap_or(0).min(stored);
            let thread = word(ring, RING_THREADS_OFFSET + valid).unwrap_or(0) as u32;
            decoders.push(RingDecoder::for_thread(thread));
            if stored - taken > self.ring_capacity as u64 {
                continue;
            }
            for at in taken..stored {
                let at = RING_HEADER_LEN + (at as usize % self.ring_capacity) * ENTRY_LEN;
                let words = [word(ring, at), word(ring, at + 8), word(ring, at + 16)];
                let [Some(first), Some(second), Some(third)] = words else { break };
                waiting.push((index, [first, second, third]));
            }
        }
        // The sort is stable, so the entries of one ring keep their order.
        waiting.sort_by_key(|(_, words)| (Entry::timestamp(words[0]), !Entry::releases(words[0])));
        // A reader may also miss allocations because events were lost.
        let with_freed_sizes =
            word(self.bytes, PARTIAL_OFFSET) != Some(0) || word(self.bytes, LOST_OFFSET) != Some(0);
        for (at, (ring, words)) in waiting.iter().enumerate() {
            let Some(entry) = Entry::decode(*words) else { continue };
            let ends_next = waiting
                .get(at + 1)
                .is_some_and(|(next, words)| next == ring && Entry::ends_realloc(words[0]));
            let Some(decoder) = decoders.get_mut(*ring) else { continue };
            match decoder.decode_next(&entry, ends_next, with_freed_sizes) {
                DecodedEntry::Pending => {}
                DecodedEntry::ThreadFact(record) => rest.push(&record),
                DecodedEntry::Timed { record, .. } => {
                    let us = self.commit.time_of(Entry::timestamp(words[0]));
                    rest.push_timed(decoder.thread, us, &record);
                }
            }
        }
    }
}

/// Frames that are being made of the records in a sidecar.
struct RecoveredFrames {
    /// The frames that are finished.
    frames: Vec<u8>,
    /// The sequence number of the next frame.
    seq: u32,
    buffer: Vec<u8>,
    encoder: Encoder,
    /// The thread and the time, in microseconds, that the frame has stated last.
    stated: Option<(u32, u64)>,
}

impl RecoveredFrames {
    fn new(seq: u32) -> RecoveredFrames {
        let buffer = vec![0; FRAME_CAPACITY];
        RecoveredFrames { frames: Vec::new(), seq, buffer, encoder: Encoder::new(), stated: None }
    }

    /// Pushes a record of a thread at a time, and states both before it if they have changed.
    fn push_timed(&mut self, thread: u32, us: u64, record: &Record<'_>) {
        let us = self.stated.map_or(us, |(_, before)| us.max(before));
        // A frame states the thread and the time before its first event, so three records need
        // room.
        if self.encoder.len() + 128 > FRAME_CAPACITY - FRAME_HEADER_LEN {
            self.seal();
        }
        if self.stated.is_none_or(|(before, _)| before != thread) {
            self.push(&Record::Thread { id: thread });
        }
        if self.stated.is_none_or(|(_, before)| before != us) {
            self.push(&Record::Time { us });
        }
        self.stated = Some((thread, us));
        self.push(record);
    }

    fn push(&mut self, record: &Record<'_>) {
        if self.encoder.push(&mut self.buffer, record).is_err() {
            self.seal();
            // Every record that a sidecar holds fits into an empty frame.
            let _ = self.encoder.push(&mut self.buffer, record);
        }
    }

    fn seal(&mut self) {
        self.stated = None;
        if !self.encoder.is_empty() {
            let len = self.encoder.seal(&mut self.buffer, self.seq);
            self.frames.extend_from_slice(&self.buffer[..len]);
            self.seq = self.seq.saturating_add(1);
        }
    }
}

/// Returns the word at an offset in bytes, or `None` if the bytes end before.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}
