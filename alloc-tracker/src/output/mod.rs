//! The files of a recording: the dump, and the sidecar that holds everything not yet in the dump.
//! In: dump frames, commits, entries, nodes. Out: bytes in files. Never allocates through the
//! global allocator, never calls the recorder.
//!
//! | module | idea |
//! | --- | --- |
//! | `commit_pair` | how a commit becomes valid in one step |
//! | `dump_file` | the sink that a recording writes to: a dump in a file |
//! | `memory` | a sink for tests |
//! | `ring_protocol` | who may store, read and overwrite which entry of a ring |
//! | `sidecar` | the words, nodes and rings that all threads share |
//! | `thread_ring` | the ring buffer of one thread |
//! | `membarrier` | one fence for all threads |
//!
//! The package `alloc-tracker-models` checks `commit_pair` and `ring_protocol` in the interleavings
//! of a few threads.

pub(crate) mod commit_pair;
pub(crate) mod dump_file;
pub(crate) mod membarrier;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod ring_protocol;
pub(crate) mod sidecar;
pub(crate) mod thread_ring;

use std::ops::Range;

use alloc_dump::sidecar::Commit;

use crate::base::sys::{Errno, Mapping};

/// The place that a recording is written to: a buffer for the current dump frame, a dump that takes
/// finished frames, and memory for thread rings.
///
/// Used under the recorder's lock. The drainer is generic over the sink, so that its calls of the
/// sink are direct.
pub(crate) trait Sink {
    /// Returns the buffer of the current dump frame: room for the frame's header, then for its
    /// records.
    fn frame(&mut self) -> &mut [u8];

    /// Returns the number of the current dump frame.
    fn seq(&self) -> u32;

    /// Returns the copy, 0 or 1, that the next commit fills: see [`commit_pair`].
    fn next_copy(&self) -> usize;

    /// Publishes a commit. From now on it is valid, with everything that was written into the rings
    /// for [`next_copy`](Sink::next_copy). If the process is killed during the call, either all of
    /// that is valid or nothing.
    fn commit(&mut self, commit: Commit);

    /// Notes that the dump does not have every allocation. So a reader that recovers records from
    /// rings must add the sizes of freed blocks.
    fn set_partial(&self);

    /// Appends the sealed frame of `len` bytes to the dump. The next [`commit`](Sink::commit)
    /// describes the next frame.
    fn write_frame(&mut self, len: usize) -> Result<(), Errno>;

    /// Returns memory for the ring with this index: addresses for the whole ring, of which at least
    /// the first `len` bytes may be touched.
    fn map_ring(&mut self, index: usize, len: usize) -> Result<RingMemory, Errno>;

    /// Gives memory to the bytes `part` of the ring with this index, which begins at the address
    /// `start`. Returns how many bytes of the ring may be touched from now on, which may be more.
    fn extend_ring(&mut self, index: usize, start: u64, part: Range<usize>) -> Result<usize, Errno>;

    /// Calls `f` with each descriptor that the sink has open.
    fn for_each_descriptor(&self, f: &mut dyn FnMut(i32));

    /// Closes a dump that is complete, and removes the sidecar. Returns the sidecar's memory.
    fn finish(self) -> Mapping;

    /// Closes a dump that ends because of this error, and keeps the sidecar, with everything that
    /// is not in the dump. Returns the sidecar's memory.
    fn abandon(self, errno: Errno) -> Mapping;
}

/// Memory for a thread ring.
pub(crate) struct RingMemory {
    pub(crate) memory: Mapping,
    /// How many bytes may be touched.
    pub(crate) granted: usize,
    /// Whether the memory is a part of the sidecar's file, so that its contents survive the
    /// process. Otherwise it is the process's own memory.
    pub(crate) in_file: bool,
}
