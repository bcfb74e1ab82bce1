//! The walk that reuses the one before: steps from the top until a frame is in the very state of a recorded frame, then
//! compares the words that were read from there to the root.
//!
//! An unwinder is a function of its state and of the words that it reads. If a new frame's state equals that of a
//! recorded one, and all words that led from there to the root still have the values that they had, then the rest of
//! the walk must be the same; so the recorded frames and their nodes are taken over, and only the new frames at the
//! top have to be interned. A word that differs ends the agreement at its frame: stepping goes on from there.
//! Every word is compared only after all words that led to it, so memory that a real walk would not touch is never
//! touched. Comparing code and stack addresses alone would not be sound.

use super::End;
use super::arch;
use super::frame::Frame;
use super::registers::Registers;
use super::stack::{Bounds, StackRanges};
use super::walk::{Walk, Walks, Word};

/// Walks from the frame that has these registers. `None` if the stack has a frame that only a full unwinder understands.
#[inline(always)]
pub(super) fn walk(walks: &mut Walks, registers: &Registers) -> Option<End> {
    let (walk, ranges, bounds) = walks.on_stack(registers.sp)?;
    walk.begin();
    let mut candidates = walk.recorded();
    let mut memory = Memory { walk, ranges, bounds, enough: true };
    let mut frame = Frame::in_register(registers.pc, registers.sp, registers.fp);
    loop {
        while candidates > 0 && memory.walk.recorded_frame(candidates - 1).sp < frame.sp {
            candidates -= 1;
        }
        if candidates > 0 && memory.walk.recorded_frame(candidates - 1).is_in_state_of(&frame) {
            // SAFETY: both walks are in the same state, so this one reads what the recorded one has read.
            let Some(differs) = (unsafe { memory.walk.first_difference(candidates - 1) }) else {
                memory.walk.share(candidates);
                return Some(End::Root);
            };
            // Further in the recorded frames hold; this one's caller is another.
            for at in (differs + 1..candidates).rev() {
                if !memory.walk.push_recorded(at) {
                    return Some(End::Truncated);
                }
            }
            frame = *memory.walk.recorded_frame(differs);
            if !memory.bounds.contains(frame.sp) {
                memory.bounds = memory.ranges.beyond(frame.sp)?;
            }
            candidates = differs;
        }
        let step = arch::step(&frame, &mut memory)?;
        if !memory.enough || !memory.walk.push(frame) {
            return Some(End::Truncated);
        }
        match step {
            Step::Caller(caller) => frame = caller,
            Step::Outermost => return Some(End::Root),
        }
    }
}

/// Where a frame leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To its caller.
    Caller(Frame),
    /// Nowhere: the thread began here.
    Outermost,
}

/// What a step reads, and where that is noted.
pub(super) trait Words {
    /// The word at this address, which is noted; `None` if a walk must not read there.
    fn read(&mut self, address: u64) -> Option<u64>;

    /// The walk goes on at this stack pointer, on another stack if it is not on this one.
    fn go_to(&mut self, sp: u64) -> Option<()>;
}

struct Memory<'a> {
    walk: &'a mut Walk,
    ranges: &'a mut StackRanges,
    bounds: Bounds,
    /// Whether there was memory to note everything.
    enough: bool,
}

impl Words for Memory<'_> {
    #[inline(always)]
    fn read(&mut self, address: u64) -> Option<u64> {
        let value = self.bounds.read(address)?;
        self.enough &= self.walk.note(Word { address, value });
        Some(value)
    }

    #[cold]
    fn go_to(&mut self, sp: u64) -> Option<()> {
        if !self.bounds.contains(sp) {
            self.bounds = self.ranges.beyond(sp)?;
        }
        Some(())
    }
}
