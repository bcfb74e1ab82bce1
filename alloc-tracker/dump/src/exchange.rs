//! How `profiler-cli` and a recorder agree on a copy of the process's memory, from which
//! `profiler-cli` takes a snapshot.
//!
//! In and out: words in the header of the [sidecar](crate::sidecar), which both have mapped or can
//! read and write, and a report in the memory of the copy. Nothing that a recorder has written here
//! is trusted.
//!
//! The copy is a process that the kernel makes of the recorded one, copy-on-write. It does nothing
//! but wait until its reader is done. The recorder writes a
//! [`Snapshot`](crate::record::Record::Snapshot) record where the copy belongs in the order of
//! events.
//!
//! ```text
//! profiler-cli                          recorder
//!   REQUEST_NAME = "warm"
//!   REQUESTS += 1            -->        makes a copy, writes the record
//!                                       COPY_ERRNO, COPY_PID, SNAPSHOT_ID, REPORT_ADDRESS, NAME
//!   reads COPY_PID's memory  <--        COPIES += 1
//!   HEARTBEAT += 1, meanwhile
//!   RELEASED = COPIES        -->        the copy ends
//! ```
//!
//! The recorded program can ask for a snapshot too, if [`SERVER_OFFSET`] says that somebody is
//! there to take it. The recorder then makes a copy without a request. First it lets the reader
//! look where the threads are, because what a stack has below its stack pointer holds nothing. The
//! reader may also refuse the copy then, for want of memory.

/// Offset in bytes, in the sidecar's header, of the process id of the `profiler-cli` that takes the
/// snapshots for which the program itself asks; 0 if there is none.
pub const SERVER_OFFSET: usize = 512;
/// Offset of the number of requests so far.
pub const REQUESTS_OFFSET: usize = 520;
/// Offset of the process id of the last requester, which may read the copy.
pub const REQUESTER_OFFSET: usize = 528;
/// Offset of the number of copies so far, those that could not be made included.
pub const COPIES_OFFSET: usize = 536;
/// Offset of the error number of the last copy; 0 if it was made.
pub const COPY_ERRNO_OFFSET: usize = 544;
/// Offset of the process id of the last copy.
pub const COPY_PID_OFFSET: usize = 552;
/// Offset of the number of the last snapshot.
pub const SNAPSHOT_ID_OFFSET: usize = 560;
/// Offset of the address of the report in the last copy.
pub const REPORT_ADDRESS_OFFSET: usize = 568;
/// Offset of the number of copies that their readers do not need any more.
pub const RELEASED_OFFSET: usize = 576;
/// Offset of a number that the reader of a copy changes about every second. A copy whose reader is
/// gone ends after [`PATIENCE_NS`].
pub const HEARTBEAT_OFFSET: usize = 584;
/// Offset of how many snapshots the recorder was asked for when it took the last one: tells an
/// answer to a request from a snapshot that the program has asked for.
pub const SERVED_OFFSET: usize = 592;
/// Offset of 1 if the program has asked for the last snapshot, else 0.
pub const BY_PROGRAM_OFFSET: usize = 600;
/// Offset of a number that the recorder changes before it makes a copy for which the program has
/// asked: the reader looks where the threads are, and stores the number at [`LOOKED_OFFSET`].
pub const LOOK_OFFSET: usize = 608;
/// Offset of the number of the reader's last look.
pub const LOOKED_OFFSET: usize = 616;
/// Offset of 1 if the program is ending, so that the reader may stop its threads and read their
/// registers while it looks. They go on when the copy is made.
pub const AT_END_OFFSET: usize = 624;
/// Offset of 1 from a copy on that the program has asked for, until the reader needs no other copy.
/// A program that ends waits for that.
pub const NEEDS_MORE_OFFSET: usize = 632;
/// Offset of the name of the last snapshot, see [`decode_name`].
pub const NAME_OFFSET: usize = 640;
/// Offset of the last request that was refused because another copy is in use. Nothing else of the
/// exchange changes then, so that the reader of that copy is not disturbed.
pub const BUSY_REQUEST_OFFSET: usize = 912;
/// Offset of the error number with which the reader refuses the copy that its last look is about; 0
/// if it wants the copy. The reader stores it before the number of its look.
pub const REFUSAL_OFFSET: usize = 920;
/// Offset of the number of the look that the reader took before the last copy; 0 if it took none,
/// or was too late.
pub const LOOK_OF_COPY_OFFSET: usize = 928;
/// Offset of the last request for which nobody waits any more. The recorder makes no copy for it.
pub const WITHDRAWN_OFFSET: usize = 936;
/// Offset of the name of the snapshot that is asked for.
pub const REQUEST_NAME_OFFSET: usize = 1024;
/// Most bytes of a snapshot's name. Longer names are cut.
pub const MAX_NAME: usize = 256;

/// How long a copy waits for a sign of life of its reader, in nanoseconds.
pub const PATIENCE_NS: u64 = 10_000_000_000;

/// The words of a name in the sidecar: its length, then its bytes, then zeros.
pub const NAME_WORDS: usize = 1 + MAX_NAME / 8;

/// Returns the words of a name, which is cut to [`MAX_NAME`] bytes.
pub fn encode_name(name: &[u8]) -> [u64; NAME_WORDS] {
    let name = &name[..name.len().min(MAX_NAME)];
    let mut words = [0; NAME_WORDS];
    words[0] = name.len() as u64;
    for (word, bytes) in words[1..].iter_mut().zip(name.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(padded);
    }
    words
}

/// Writes the name that these words hold into `bytes`, and returns it.
///
/// ```
/// use alloc_dump::exchange::{MAX_NAME, decode_name, encode_name};
/// let mut room = [0; MAX_NAME];
/// assert_eq!(decode_name(&encode_name(b"after warm-up"), &mut room), b"after warm-up");
/// ```
pub fn decode_name<'a>(words: &[u64; NAME_WORDS], bytes: &'a mut [u8; MAX_NAME]) -> &'a [u8] {
    for (room, word) in bytes.chunks_exact_mut(8).zip(&words[1..]) {
        room.copy_from_slice(&word.to_le_bytes());
    }
    &bytes[..usize::try_from(words[0]).unwrap_or(MAX_NAME).min(MAX_NAME)]
}

/// First word of a report.
pub const REPORT_MAGIC: u64 = u64::from_le_bytes(*b"ADCOPY1\n");
/// Words of a report before those of the threads: the magic, 1 once the report is whole, the number
/// of threads, the number of the tracker's mappings, 1 if some of these are missing, the session in
/// two words, 0.
pub const REPORT_HEAD_WORDS: usize = 8;
/// Words of a thread in a report.
pub const REPORT_THREAD_WORDS: usize = 5;
/// Words of a mapping in a report: start, length.
pub const REPORT_MAPPING_WORDS: usize = 2;
/// Most threads of a report.
pub const MAX_REPORT_THREADS: usize = crate::sidecar::MAX_RINGS;
/// Most mappings of a report.
pub const MAX_REPORT_MAPPINGS: usize = 4096;
/// Words of the longest report.
pub const MAX_REPORT_WORDS: usize =
    REPORT_HEAD_WORDS + MAX_REPORT_THREADS * REPORT_THREAD_WORDS + MAX_REPORT_MAPPINGS * REPORT_MAPPING_WORDS;
/// Index of the word that is 1 once the report is whole.
pub const REPORT_WHOLE: usize = 1;
/// Index of the number of threads.
pub const REPORT_THREADS: usize = 2;
/// Index of the number of mappings.
pub const REPORT_MAPPINGS: usize = 3;
/// Index of the word that is 1 if some mappings are missing.
pub const REPORT_MISSING: usize = 4;
/// Index of the first word of the session.
pub const REPORT_SESSION: usize = 5;

/// A thread that takes part in the recording, as the copy found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedThread {
    /// Number of the thread in the dump.
    pub id: u32,
    /// The system's id of the thread.
    pub tid: u32,
    /// Index of its ring.
    pub ring: u32,
    /// Entries that the thread had stored in its ring, ever, or was just storing.
    pub stored: u64,
    /// Address of the ring in the process.
    pub ring_address: u64,
    /// The thread pointer, at which the thread's control block and thread-locals lie; 0 if it is
    /// not known.
    pub thread_pointer: u64,
}

impl CopiedThread {
    /// Returns the words of the thread in a report.
    pub fn words(&self) -> [u64; REPORT_THREAD_WORDS] {
        let ids = u64::from(self.id) << 32 | u64::from(self.tid);
        [ids, self.ring.into(), self.stored, self.ring_address, self.thread_pointer]
    }

    /// Returns the thread with these words.
    pub fn from_words(words: [u64; REPORT_THREAD_WORDS]) -> CopiedThread {
        let [ids, ring, stored, ring_address, thread_pointer] = words;
        let (id, tid, ring) = ((ids >> 32) as u32, ids as u32, ring as u32);
        CopiedThread { id, tid, ring, stored, ring_address, thread_pointer }
    }
}

/// A report: what a copy tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// The threads that take part in the recording.
    pub threads: Vec<CopiedThread>,
    /// Start and length in bytes of the mappings that the tracker has made for itself, and of its
    /// static that remembers addresses of blocks.
    pub tracker_mappings: Vec<(u64, u64)>,
    /// Whether `tracker_mappings` has all of them.
    pub has_all_mappings: bool,
    /// The session of the recording.
    pub session: [u8; 16],
}

impl CopyReport {
    /// Reads a report from its words. `None` if these are not a whole report.
    pub fn parse(words: &[u64]) -> Option<CopyReport> {
        let head = words.get(..REPORT_HEAD_WORDS)?;
        if head[0] != REPORT_MAGIC || head[REPORT_WHOLE] != 1 {
            return None;
        }
        let count = |word: u64, most: usize| usize::try_from(word).ok().filter(|count| *count <= most);
        let threads = count(head[REPORT_THREADS], MAX_REPORT_THREADS)? * REPORT_THREAD_WORDS;
        let mappings = count(head[REPORT_MAPPINGS], MAX_REPORT_MAPPINGS)? * REPORT_MAPPING_WORDS;
        let (threads, rest) = words[REPORT_HEAD_WORDS..].split_at_checked(threads)?;
        let threads = threads.chunks_exact(REPORT_THREAD_WORDS).filter_map(|words| words.try_into().ok());
        let mappings = rest.get(..mappings)?.chunks_exact(REPORT_MAPPING_WORDS);
        Some(CopyReport {
            threads: threads.map(CopiedThread::from_words).collect(),
            tracker_mappings: mappings.map(|words| (words[0], words[1])).collect(),
            has_all_mappings: head[REPORT_MISSING] == 0,
            session: u128::to_le_bytes(
                u128::from(head[REPORT_SESSION + 1]) << 64 | u128::from(head[REPORT_SESSION]),
            ),
        })
    }
}
