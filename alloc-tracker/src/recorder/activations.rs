//! The activations of annotated functions that run on a thread. In: which activation begins,
//! reaches a line or ends. Out: the innermost activation of a function. Belongs to one thread;
//! never locks, allocates mapped memory only.

use crate::base::epoch::RecordingId;
use crate::base::sys::{Mapping, Plain};

/// Identity of an activation: unique within its recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActivationId {
    /// The recording that the activation began in.
    pub(super) recording: RecordingId,
    /// The activation's number there: the thread that began it in the upper bits, a count of that
    /// thread's in the lower.
    pub(super) number: u64,
}

/// The activations that run on a thread, outermost first.
#[derive(Debug)]
pub(super) struct RunningActivations {
    memory: Mapping,
    len: usize,
    /// The recording that the activations belong to.
    recording: Option<RecordingId>,
}

/// An activation that runs on this thread.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct RunningActivation {
    function: u32,
    /// The line that the activation has reached; 0 if it has reached none.
    line: u32,
    number: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for RunningActivation {}

impl RunningActivations {
    pub(super) const fn new() -> RunningActivations {
        RunningActivations { memory: Mapping::empty(), len: 0, recording: None }
    }

    /// Removes the activations of any other recording, because their numbers mean other functions
    /// in this recording.
    #[inline]
    pub(super) fn keep_only(&mut self, recording: RecordingId) {
        if !self.are_of(recording) {
            (self.recording, self.len) = (Some(recording), 0);
        }
    }

    /// Adds an innermost activation; false if there is no memory for it.
    pub(super) fn push(&mut self, function: u32, number: u64) -> bool {
        if self.memory.slice::<RunningActivation>().len() == self.len {
            let capacity = (self.len * 2).max(FIRST_CAPACITY);
            let Ok(mut larger) = Mapping::anonymous(capacity * size_of::<RunningActivation>()) else {
                return false;
            };
            larger.slice_mut()[..self.len]
                .copy_from_slice(&self.memory.slice::<RunningActivation>()[..self.len]);
            self.memory = larger;
        }
        self.memory.slice_mut()[self.len] = RunningActivation { function, line: 0, number };
        self.len += 1;
        true
    }

    /// Returns the number of the innermost activation of a function of this recording, and the line
    /// that it has reached.
    #[inline]
    pub(super) fn innermost_of(&mut self, recording: RecordingId, function: u32) -> Option<(u64, &mut u32)> {
        if !self.are_of(recording) {
            return None;
        }
        let running = self.memory.slice_mut::<RunningActivation>().get_mut(..self.len)?;
        let innermost = running.iter_mut().rev().find(|activation| activation.function == function)?;
        Some((innermost.number, &mut innermost.line))
    }

    /// Whether the activations belong to this recording. PERF: compared as numbers, of which none
    /// is 0; comparing the options takes a branch more.
    #[inline(always)]
    fn are_of(&self, recording: RecordingId) -> bool {
        self.recording.map_or(0, RecordingId::get) == recording.get()
    }

    /// Removes an activation, and all activations inside it that have not reported their end. False
    /// if the activation does not run on this thread.
    pub(super) fn pop(&mut self, number: u64) -> bool {
        let running = self.memory.slice::<RunningActivation>().get(..self.len).unwrap_or_default();
        match running.iter().rposition(|activation| activation.number == number) {
            Some(index) => {
                self.len = index;
                true
            }
            None => false,
        }
    }
}

/// As many activations as fill a page.
const FIRST_CAPACITY: usize = 4096 / size_of::<RunningActivation>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_activation_is_found_and_a_caller_takes_its_callees_along() {
        let [first, second] = [0, 1].map(|count| RecordingId::after(count).unwrap());
        let mut running = RunningActivations::new();
        assert!(running.innermost_of(first, 1).is_none() && !running.pop(7));
        running.keep_only(first);
        let of = |running: &mut RunningActivations, function| {
            running.innermost_of(first, function).map(|(number, _)| number)
        };
        for number in 0..1000 {
            assert!(running.push((number % 3) as u32, number));
        }
        assert_eq!([0, 1, 2].map(|function| of(&mut running, function)), [Some(999), Some(997), Some(998)]);
        assert!(running.pop(998) && !running.pop(999), "the last one ended with its caller");
        running.keep_only(first);
        assert!(running.innermost_of(second, 0).is_none(), "of another recording");
        assert_eq!([0, 2].map(|function| of(&mut running, function)), [Some(996), Some(995)]);
        running.keep_only(second);
        assert_eq!([0, 2].map(|function| of(&mut running, function)), [None; 2], "another recording");
    }
}
