//! A sink in memory, for tests of the drainer: the dump is a vector of bytes, the sidecar is memory
//! of this process.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use alloc_dump::header::Header;
use alloc_dump::sidecar::{Commit, FRAME_CAPACITY, FRAME_OFFSET, RING_LEN, RINGS_START};

use super::{RingMemory, Sink, commit_pair, sidecar};
use crate::base::sys::{Errno, Mapping};

/// A dump that is written into memory.
pub(crate) struct MemorySink {
    dump: Arc<Mutex<Vec<u8>>>,
    /// The sidecar without its rings.
    buffer: Mapping,
    seq: u32,
    /// All commits, in order.
    commits: Vec<Commit>,
}

impl MemorySink {
    /// Begins a dump, and makes its sidecar the one that threads write into. Returns the sink, and
    /// where the dump's bytes are.
    pub(crate) fn new(header: &Header) -> (MemorySink, Arc<Mutex<Vec<u8>>>) {
        let dump = Arc::new(Mutex::new(header.encode().to_vec()));
        let buffer = Mapping::anonymous(RINGS_START).unwrap();
        sidecar::attach(buffer.start());
        (MemorySink { dump: Arc::clone(&dump), buffer, seq: 0, commits: Vec::new() }, dump)
    }
}

impl Sink for MemorySink {
    fn frame(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[FRAME_OFFSET..FRAME_OFFSET + FRAME_CAPACITY]
    }

    fn seq(&self) -> u32 {
        self.seq
    }

    fn next_copy(&self) -> usize {
        commit_pair::next_copy(self.commits.len() as u64)
    }

    fn commit(&mut self, commit: Commit) {
        self.commits.push(commit);
    }

    fn set_partial(&self) {}

    fn write_frame(&mut self, len: usize) -> Result<(), Errno> {
        self.dump.lock().unwrap().extend_from_slice(&self.buffer.bytes()[FRAME_OFFSET..FRAME_OFFSET + len]);
        self.seq += 1;
        Ok(())
    }

    fn map_ring(&mut self, _index: usize, len: usize) -> Result<RingMemory, Errno> {
        Ok(RingMemory { memory: Mapping::anonymous(RING_LEN)?, granted: len, in_file: false })
    }

    fn extend_ring(&mut self, _index: usize, _start: u64, part: Range<usize>) -> Result<usize, Errno> {
        Ok(part.end)
    }

    fn for_each_descriptor(&self, _f: &mut dyn FnMut(i32)) {}

    fn finish(self) -> Mapping {
        self.buffer
    }

    fn abandon(self, _errno: Errno) -> Mapping {
        self.buffer
    }
}
