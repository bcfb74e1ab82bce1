//! Commits: the statement of what the current dump frame holds and how far each ring was drained.
//! In: the stream and the rings. Out: words in the sidecar, and room in the rings.
//!
//! The process may be killed at any instruction, and the reader of the dump and the sidecar
//! afterwards must find every event exactly once: in a dump frame, or in its ring. So what the
//! current dump frame holds and how far each ring was drained must change in one step. There are
//! two copies of everything that says so, and one word, the number of commits, whose lowest bit
//! says which copy is valid:
//!
//! ```text
//! commits = 6                    copy 0 is valid: frame length 900, ring A taken 40, B 7
//! append A's entries 40 and 41   behind the 900 bytes; nothing that is valid has changed
//! write copy 1                   frame length 950, ring A taken 42, B 7;
//!                                if the process is killed here, copy 0 still holds
//! store commits = 7              from this instruction on copy 1 is valid
//! release A's entries 40, 41     only now the thread may overwrite them
//! ```
//!
//! The frame's bytes behind the committed length do not count. Released entries do not count
//! either: the valid commit and all later commits say that they are taken.
//!
//! A full frame is committed before it is written to the dump, under its number, and again
//! afterwards, as an empty frame with the next number. If the process is killed in between, the
//! reader sees that the frame in the sidecar has the number of a frame that is in the dump already.

use std::sync::atomic::{Ordering, fence};

use alloc_dump::sidecar::{Commit, RING_TAKEN_OFFSET, RING_THREADS_OFFSET};

use super::ring_state::RingState;
use super::stream::Stream;
use crate::output::{Sink, sidecar};

impl<S: Sink> Stream<S> {
    /// Makes everything that was appended and taken so far valid in one step, see the head of this
    /// module. Then releases the taken entries, so that threads may overwrite them.
    pub(in crate::recorder) fn commit(&mut self) {
        let copy = self.sink.next_copy();
        let count = sidecar::ring_count();
        for (index, state) in self.ring_states.slice_mut::<RingState>().iter_mut().enumerate().take(count) {
            let thread = u64::from(state.decoder.thread);
            if state.committed_taken[copy] != state.taken || state.committed_threads[copy] != thread {
                let ring = sidecar::ring(index);
                ring.word(RING_TAKEN_OFFSET + 8 * copy).store(state.taken, Ordering::Relaxed);
                ring.word(RING_THREADS_OFFSET + 8 * copy).store(thread, Ordering::Relaxed);
                (state.committed_taken[copy], state.committed_threads[copy]) = (state.taken, thread);
            }
        }
        let len = self.encoder.len() as u64;
        let (nodes, lost, partly_verified) = (self.nodes, self.lost, self.partly_verified);
        self.sink.commit(Commit { len, nodes, lost, partly_verified, ..self.time });
        sidecar::release_nodes(self.nodes);
        for (index, state) in self.ring_states.slice_mut::<RingState>().iter_mut().enumerate().take(count) {
            if state.released != state.taken {
                state.released = state.taken;
                sidecar::ring(index).release(state.taken);
                state.must_wake = 1;
            }
            state.discard_if_idle(sidecar::ring(index));
        }
        // With this fence, either this thread sees that a ring's thread waits, or that thread sees
        // the released entries. NOTE: other rings are not touched: the memory of rings without a
        // thread is not resident.
        fence(Ordering::SeqCst);
        for (index, state) in self.ring_states.slice_mut::<RingState>().iter_mut().enumerate().take(count) {
            if std::mem::take(&mut state.must_wake) != 0 {
                sidecar::ring(index).wake();
            }
        }
    }
}
