//! The recovery sidecar, `DUMP.tail`: what is recorded and does not stand in the dump yet.
//!
//! The tracker works inside a shared mapping of this file, so the kernel keeps it when the process is killed at any
//! instruction. A finished recording removes the file. A reader that finds a dump without its trailer looks here for
//! the rest: the frame that was being filled, the call tree's newest nodes, and the [rings](crate::thread_ring) of threads.
//!
//! Layout, little-endian: a page of header, the frame that is being filled ([`FRAME_CAPACITY`] bytes, of which the first
//! [`FRAME_HEADER_LEN`] are for its header), [`NODE_RING_CAPACITY`] nodes, then the rings, [`RING_LEN`] bytes each
//! as this version writes them.
//!
//! **Header**: magic (8), session (16), entries that a ring has room for (4), CRC-32 of these 28 bytes (4), then words of 8
//! bytes that the tracker stores one by one: [`STATE_OFFSET`], [`PID_OFFSET`], [`COMMITS_OFFSET`], [`LOST_OFFSET`], [`RING_COUNT_OFFSET`],
//! [`NODE_COUNT_OFFSET`], [`PARTIAL_OFFSET`], [`UNPROTECTED_OFFSET`].
//!
//! **Commits** say together what the frame holds and what is left in the rings. There is room for two, each of
//! [`COMMIT_WORDS`] words. The tracker writes the one that is not valid and then stores the number of commits, whose
//! lowest bit tells which one is valid: so at every instant one of them is whole, and no event stands in the frame and in its
//! ring, or in neither.
//!
//! **Nodes**: 16 bytes each, return address (8), parent (4), node (4); a ring. [`NODE_COUNT_OFFSET`] counts all that were
//! ever stored.
//!
//! **ThreadRing**: a page of header (entries ever stored, then at [`RING_TAKEN_OFFSET`] how many of them are in frames and at
//! [`RING_THREADS_OFFSET`] whose the next one is, for either commit), then a ring of as many
//! entries as the header says, [`RING_CAPACITY`] as this version writes it.

use crate::frame::FrameHeader;
use crate::layout::{
    FRAME_HEADER_LEN, FRAME_RECORDS, SIDECAR_HEADER_LEN, SIDECAR_MAGIC, SIDECAR_MAGIC_1,
    SIDECAR_MEMORY_PREFIX, SIDECAR_SUFFIX, StackId,
};
use crate::record::Record;
use crate::thread_ring::{Decoded, ENTRY_LEN, Entry, RingDecoder};
use crate::write::Encoder;

/// Bytes of the identity that a sidecar begins with.
pub const IDENTITY_LEN: usize = 32;
/// Offset of the state: 0 while recording, else the error number at which the recording stopped.
pub const STATE_OFFSET: usize = 32;
/// Offset of the process id of the writer.
pub const PID_OFFSET: usize = 40;
/// Offset of the number of commits; 0 before the first.
pub const COMMITS_OFFSET: usize = 48;
/// Offset of the number of events that reached the hook and could not be recorded.
pub const LOST_OFFSET: usize = 56;
/// Offset of the number of rings.
pub const RING_COUNT_OFFSET: usize = 64;
/// Offset of the number of nodes ever stored.
pub const NODE_COUNT_OFFSET: usize = 72;
/// Offset of the flag that the sizes of freed blocks are needed, because readers may not have seen the allocations.
pub const PARTIAL_OFFSET: usize = 80;
/// Offset of the number of rings that are not in the sidecar, because it could not grow: what they held is lost.
pub const UNPROTECTED_OFFSET: usize = 88;
/// Offsets of the two commits.
pub const COMMIT_OFFSETS: [usize; 2] = [128, 256];
/// Words of a commit, in the order of the fields of [`Commit`].
pub const COMMIT_WORDS: usize = 7;

/// Bytes of the frame that is being filled, header included.
pub const FRAME_CAPACITY: usize = 256 << 10;
/// Nodes that there is room for; a power of two.
pub const NODE_RING_CAPACITY: usize = 4096;
/// Bytes of a node.
pub const NODE_LEN: usize = 16;
/// Entries that a ring has room for; a power of two. Readers refuse a sidecar that claims more.
///
/// PERF: a helper that reads a ring half as long looks twice as often; json and JavaScript cost 5 to 8 % more then, syn the same.
pub const RING_CAPACITY: usize = 8192;
/// The same in sidecars that begin with [`SIDECAR_MAGIC_1`].
const RING_CAPACITY_1: usize = 4096;
/// Bytes of a ring's header.
pub const RING_HEADER_LEN: usize = 4096;
/// Bytes of a ring.
pub const RING_LEN: usize = RING_HEADER_LEN + RING_CAPACITY * ENTRY_LEN;
/// Offset in a ring of the two words that say how many of its entries are in frames.
pub const RING_TAKEN_OFFSET: usize = 128;
/// Offset in a ring of the two words that say whose its next entry is.
pub const RING_THREADS_OFFSET: usize = 144;
/// Offset of the current frame.
pub const FRAME_OFFSET: usize = SIDECAR_HEADER_LEN;
/// Offset of the current frame's payload.
pub const PAYLOAD_OFFSET: usize = FRAME_OFFSET + FRAME_HEADER_LEN;
/// Offset of the nodes.
pub const NODE_RING_OFFSET: usize = FRAME_OFFSET + FRAME_CAPACITY;
/// Offset of the first ring.
pub const RINGS_START: usize = NODE_RING_OFFSET + NODE_RING_CAPACITY * NODE_LEN;
/// No writer makes more rings.
pub const MAX_RINGS: usize = 1 << 14;

/// What was true at one moment, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Bytes of whole records in the frame.
    pub len: u64,
    /// The number that the frame has once it stands in the dump.
    pub seq: u64,
    /// Nodes that are in frames.
    pub nodes: u64,
    /// Lost events that are in frames.
    pub lost: u64,
    /// A timestamp, and the microseconds since time zero at that moment.
    pub timestamp: u64,
    /// See `timestamp`.
    pub us: u64,
    /// Microseconds for each step of the timestamp, times 2^32.
    pub rate: u64,
}

impl Commit {
    /// The commit's words, in order.
    pub fn words(&self) -> [u64; COMMIT_WORDS] {
        [self.len, self.seq, self.nodes, self.lost, self.timestamp, self.us, self.rate]
    }

    fn from_words(words: [u64; COMMIT_WORDS]) -> Commit {
        let [len, seq, nodes, lost, timestamp, us, rate] = words;
        Commit { len, seq, nodes, lost, timestamp, us, rate }
    }

    /// The time of an event, in microseconds since time zero.
    #[inline]
    pub fn time_of(&self, timestamp: u64) -> u64 {
        let steps = |steps: u64| ((u128::from(steps) * u128::from(self.rate)) >> 32) as u64;
        match timestamp.checked_sub(self.timestamp) {
            Some(after) => self.us.saturating_add(steps(after)),
            None => self.us.saturating_sub(steps(self.timestamp - timestamp)),
        }
    }
}

/// The first [`IDENTITY_LEN`] bytes of a sidecar, which never change.
pub fn encode_identity(session: &[u8; 16]) -> [u8; IDENTITY_LEN] {
    let mut bytes = [0u8; IDENTITY_LEN];
    bytes[0..8].copy_from_slice(&SIDECAR_MAGIC);
    bytes[8..24].copy_from_slice(session);
    bytes[24..28].copy_from_slice(&(RING_CAPACITY as u32).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether a path is one that a recorder gives to a sidecar in memory. Whoever removes the file that
/// `DUMP.tail` links to checks this first: somebody else may have put a link there that leads elsewhere.
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

/// Entries that the rings of this session's sidecar have room for; `None` if it is another's, or damaged.
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

/// A node as it stands in the sidecar.
#[inline]
pub fn node_words(id: StackId, parent: StackId, pc: u64) -> [u64; 2] {
    [pc, u64::from(id.0) << 32 | u64::from(parent.0)]
}

/// The record of a node that stands in the sidecar.
#[inline]
pub fn node_record([pc, ids]: [u64; 2]) -> Record<'static> {
    Record::Node { id: StackId((ids >> 32) as u32), parent: StackId(ids as u32), pc }
}

/// What a sidecar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sidecar<'a> {
    /// Error number at which the recording stopped; 0 if it was running to the end.
    pub stopped_errno: i32,
    /// Process id of the writer.
    pub pid: u32,
    /// How often the writer has committed. If it is still at work, bytes that were read while this changed are
    /// not of one moment.
    pub commits: u64,
    /// Lanes whose entries are not in the sidecar.
    pub unprotected: u64,
    /// What the frame and the rings hold.
    pub commit: Commit,
    /// Entries that each ring has room for.
    ring_capacity: usize,
    bytes: &'a [u8],
}

impl<'a> Sidecar<'a> {
    /// Reads the sidecar of the dump with this session. `None` if it is another's, damaged, or cut short before the
    /// end of its frame.
    pub fn parse(bytes: &'a [u8], session: &[u8; 16]) -> Option<Sidecar<'a>> {
        let ring_capacity = ring_capacity(bytes, session)?;
        let commits = word(bytes, COMMITS_OFFSET)?;
        let at = COMMIT_OFFSETS[(commits & 1) as usize];
        let mut words = [0; COMMIT_WORDS];
        for (index, place) in words.iter_mut().enumerate() {
            *place = word(bytes, at + 8 * index)?;
        }
        let commit = if commits == 0 { Commit::default() } else { Commit::from_words(words) };
        let sidecar = Sidecar {
            stopped_errno: i32::try_from(word(bytes, STATE_OFFSET)?).ok()?,
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

    /// The number that the frame has once it stands in the dump.
    pub fn seq(&self) -> u32 {
        self.commit.seq as u32
    }

    /// How many frames are missing between a dump whose next frame has the number `next_seq` and this sidecar.
    pub fn missing_frames(&self, next_seq: u32) -> u32 {
        self.seq().saturating_sub(next_seq)
    }

    /// Whole records, in order: what the frame holds.
    pub fn payload(&self) -> &'a [u8] {
        let len =
            usize::try_from(self.commit.len).unwrap_or(usize::MAX).min(FRAME_CAPACITY - FRAME_HEADER_LEN);
        self.bytes.get(PAYLOAD_OFFSET..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    /// Everything that a dump whose next frame has the number `next_seq` does not hold yet, as frames numbered from
    /// `first` on: nothing is left out, nothing is there twice. Empty if there is nothing.
    pub fn frames(&self, next_seq: u32, first: u32) -> Vec<u8> {
        let mut rest = Rest::new(first);
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
        self.entries(&mut rest);
        rest.seal();
        rest.frames
    }

    /// The call tree's nodes that are in no frame yet.
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

    /// The entries of all rings that are in no frame yet, in the order of their timestamps.
    fn entries(&self, rest: &mut Rest) {
        let valid = (self.commits & 1) as usize * 8;
        let rings = word(self.bytes, RING_COUNT_OFFSET).unwrap_or(0).min(MAX_RINGS as u64) as usize;
        let (mut waiting, mut owners) = (Vec::new(), Vec::new());
        let lane_len = RING_HEADER_LEN + self.ring_capacity * ENTRY_LEN;
        for index in 0..rings {
            let Some(ring) = self.bytes.get(RINGS_START + index * lane_len..) else { break };
            let stored = word(ring, 0).unwrap_or(0);
            let taken = word(ring, RING_TAKEN_OFFSET + valid).unwrap_or(0).min(stored);
            owners.push(RingDecoder::of(word(ring, RING_THREADS_OFFSET + valid).unwrap_or(0) as u32));
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
        // Stable: the entries of one ring keep their order.
        waiting.sort_by_key(|(_, words)| (Entry::timestamp(words[0]), !Entry::releases(words[0])));
        let partial = word(self.bytes, PARTIAL_OFFSET) != Some(0) || word(self.bytes, LOST_OFFSET) != Some(0);
        for (at, (ring, words)) in waiting.iter().enumerate() {
            let Some(entry) = Entry::decode(*words) else { continue };
            let followed = waiting
                .get(at + 1)
                .is_some_and(|(next, words)| next == ring && Entry::ends_realloc(words[0]));
            let Some(owner) = owners.get_mut(*ring) else { continue };
            match owner.take(&entry, followed, partial) {
                Decoded::Nothing => {}
                Decoded::About(record) => rest.push(&record),
                Decoded::Event { record, .. } => {
                    let us = self.commit.time_of(Entry::timestamp(words[0]));
                    rest.event(owner.thread, us, &record);
                }
            }
        }
    }
}

/// Frames in the making.
struct Rest {
    frames: Vec<u8>,
    seq: u32,
    buffer: Vec<u8>,
    encoder: Encoder,
    said: Option<(u32, u64)>,
}

impl Rest {
    fn new(seq: u32) -> Rest {
        Rest { frames: Vec::new(), seq, buffer: vec![0; FRAME_CAPACITY], encoder: Encoder::new(), said: None }
    }

    fn event(&mut self, thread: u32, us: u64, record: &Record<'_>) {
        let us = self.said.map_or(us, |(_, before)| us.max(before));
        // Room for the three: a frame says whose and when before its first event.
        if self.encoder.len() + 128 > FRAME_CAPACITY - FRAME_HEADER_LEN {
            self.seal();
        }
        if self.said.is_none_or(|(before, _)| before != thread) {
            self.push(&Record::Thread { id: thread });
        }
        if self.said.is_none_or(|(_, before)| before != us) {
            self.push(&Record::Time { us });
        }
        self.said = Some((thread, us));
        self.push(record);
    }

    fn push(&mut self, record: &Record<'_>) {
        if self.encoder.push(&mut self.buffer, record).is_err() {
            self.seal();
            // Every record that a sidecar has fits into an empty frame.
            let _ = self.encoder.push(&mut self.buffer, record);
        }
    }

    fn seal(&mut self) {
        self.said = None;
        if !self.encoder.is_empty() {
            let len = self.encoder.seal(&mut self.buffer, self.seq);
            self.frames.extend_from_slice(&self.buffer[..len]);
            self.seq = self.seq.saturating_add(1);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}
