//! The incremental walk: steps outwards from the leaf only until it is sure that the rest of the
//! stack is that of the recorded walk.
//!
//! An unwinder is a function of its state and of the words that it reads. So if a new frame has the
//! state of a recorded one, and all words that led from there to the root are unchanged, the rest
//! of the walk is the same. The walk then takes over the recorded frames and their nodes, and only
//! the new frames at the leaf end have to be interned. Equal code and stack addresses alone would
//! not be enough.
//!
//! An example. In the recorded walk `run` had called `parse`; now it has called `print`:
//!
//! ```text
//!   recorded    root   start   main   run   parse   malloc
//!   new         root   start   main   run   print   malloc
//!
//!   step        malloc, print: no recorded frame has such a state
//!   step        run:  the recorded `run` has another return address, behind its call of `parse`
//!   step        main: the recorded `main` has its state
//!   compare     the words from `main` to the root: unchanged, so `root start main` are shared
//!   intern      run, print, malloc
//! ```
//!
//! If one of the compared words has changed, the recorded frames are valid from the compared one up
//! to the frame that the changed word led out of. Say that word led out of `start`. Then `main` is
//! copied from the recorded walk as a new frame, and the walk steps on from `start`, which has
//! another caller now. The walk compares again when it meets another frame in a recorded state.
//!
//! Off the thread's own stack a word is read only after all words that led to it were found
//! unchanged. So the walk never touches memory that a full walk would not touch.
//!
//! In: the leaf's registers and the recorded walk. Out: the new frames, and how many recorded ones
//! follow.

use std::ops::Range;

use super::WalkEnd;
use super::arch;
use super::code_address::ReturnAddress;
use super::deep_proof::NO_ROOT;
use super::frame::Frame;
use super::new_walk::{MAX_FRAMES, NewWalk, WalkWriter};
use super::recorded_walk::RecordedWalk;
use super::registers::Registers;
use super::stack::{OwnStack, StackBounds};
use super::stack_word::StackWord;
use super::walker::{StackWalker, WalkState};

/// Walks from the frame that has these registers. `None` if the stack has a frame that only a full
/// unwinder understands, or a word that is not known to be readable, or if it is the thread's own
/// stack and that is deep.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn walk(walker: &mut StackWalker, registers: &Registers, epoch: u64) -> Option<WalkEnd> {
    walk_from::<false>(walker.start_walk(registers, epoch)?, registers)
}

/// Walks the thread's own stack, which is deep, from the frame that has these registers, in bounded
/// time: see `deep_proof`. `None` if the stack is not deep, or as in [`walk`].
#[cold]
#[inline(never)]
pub(super) fn walk_deep(walker: &mut StackWalker, registers: &Registers) -> Option<WalkEnd> {
    let WalkState { recorded, new, bounds, own } = walker.start_deep_walk(registers)?;
    recorded.begin_deep_walk();
    let state = WalkState { recorded: &mut *recorded, new: &mut *new, bounds, own };
    let end = walk_from::<true>(state, registers)?;
    recorded.end_fp_run_at(new.shared);
    Some(end)
}

/// Walks in the given state. `DEEP`: the recorded walk is one of the thread's own stack, and deep.
#[cfg_attr(not(debug_assertions), inline(always))]
fn walk_from<const DEEP: bool>(state: WalkState<'_>, registers: &Registers) -> Option<WalkEnd> {
    let WalkState { recorded, new, mut bounds, own } = state;
    // The outermost recorded frames, without those that have returned since.
    let mut candidates = if DEEP { recorded.sharable_when_deep() } else { recorded.sharable() };
    // The same, whatever stack pointers say.
    let mut unchanged_frames = candidates;
    let mut differences = 0;
    let mut writer = WalkWriter::new(new);
    let mut frame = Frame::with_fp_value(registers.pc, registers.sp, registers.fp);
    loop {
        let spares_effort = differences > MANY_DIFFERENCES;
        let same = if DEEP {
            recorded.find_same_state_when_deep(&frame, &bounds, &mut candidates, spares_effort)
        } else {
            recorded.find_same_state(&frame, &bounds, &mut candidates, spares_effort)
        };
        if let Some(same) = same {
            // SAFETY: a walk from here must be able to read the recorded words. This walk is in the
            // recorded state, so it would read the same words, each after all words that led to it
            // are known to be unchanged. The thread's own stack is readable from its stack pointer
            // to its end.
            let changed = unsafe {
                if DEEP {
                    recorded.first_changed_frame_when_deep(same, spares_effort)
                } else {
                    recorded.first_changed_frame(same, spares_effort)
                }
            };
            let Some(changed) = changed else {
                let new = writer.write_back();
                if !DEEP {
                    new.share(same + 1);
                    return Some(WalkEnd::Root);
                }
                if let Some(end) = recorded.end_with(new.frames.len, same + 1) {
                    new.share(same + 1);
                    return Some(end);
                }
                writer.reload();
                (candidates, unchanged_frames) = (0, 0);
                continue;
            };
            // The recorded frames from the compared one to the changed one are valid. The changed
            // frame has another caller now.
            let (unchanged, new) = (changed + 1..same + 1, writer.write_back());
            if !copy_recorded_frames(new, recorded, unchanged) {
                recorded.note_frames_outside(None);
                return Some(WalkEnd::Truncated);
            }
            frame = if DEEP { recorded.current_frame(changed)? } else { *recorded.frame(changed)? };
            if !bounds.may_hold_frame_at(frame.sp) {
                new.note_stack_switch();
                bounds = own.bounds_at(frame.sp, &{ bounds });
            }
            writer.reload();
            (candidates, unchanged_frames) = (changed, changed);
            differences += 1;
        }
        if !writer.ensure_room() {
            let outside = frames_from(writer.write_back(), &frame, registers, own);
            recorded.note_frames_outside(outside);
            return Some(WalkEnd::Truncated);
        }
        let step = match arch::step(&frame, &mut SameStackReader { writer: &mut writer, bounds }) {
            Some(step) if step != UnwindStep::RuleNotPacked => {
                // SAFETY: `ensure_room` has returned true above, and this is the only frame that is
                // pushed since.
                unsafe { writer.push(frame) };
                step
            }
            // A rule that is not packed, or a word outside of the bounds.
            _ => {
                // PERF: copies, so that the originals can stay in registers.
                let new = writer.write_back();
                let mut reader = AnyStackReader { new, own, bounds: { bounds }, has_switched: false };
                let step = step_on_any_stack(&{ frame }, &mut reader)?;
                if let UnwindStep::Caller(caller) = &step
                    && reader.has_switched
                {
                    candidates = recorded.count_up_to_state(caller, unchanged_frames);
                }
                bounds = reader.bounds;
                if !reader.new.push(frame) {
                    recorded.note_frames_outside(None);
                    return Some(WalkEnd::Truncated);
                }
                writer.reload();
                step
            }
        };
        match step {
            UnwindStep::Caller(caller) => frame = caller,
            UnwindStep::Outermost | UnwindStep::RuleNotPacked => {
                writer.write_back();
                return Some(WalkEnd::Root);
            }
            UnwindStep::CallerUnknown => {
                writer.write_back();
                recorded.note_frames_outside(Some(NO_ROOT));
                return Some(WalkEnd::Truncated);
            }
        }
    }
}

/// After more differences than this, the walk spends no more work on a frame in a recorded state
/// than a step costs. It repairs no frame pointer slots, and compares only up to the first changed
/// word. On a deep stack each frame may be in a recorded state, and each may differ again.
const MANY_DIFFERENCES: u32 = 4;

/// Adds these frames of the recorded walk to the new one, innermost first; false if there is no
/// memory.
#[cold]
#[inline(never)]
fn copy_recorded_frames(new: &mut NewWalk, recorded: &RecordedWalk, frames: Range<usize>) -> bool {
    frames.rev().all(|index| new.push_recorded(recorded, index))
}

/// Returns how many frames there are from this one to the root, for a walk of the thread's own
/// stack that has as many as a walk may have. `None` if that cannot be found out, or if the walk
/// ends for want of memory.
///
/// So a stack that is too deep is walked to its root again as soon as it has become shallow enough,
/// and not before.
#[cold]
#[inline(never)]
fn frames_from(new: &NewWalk, frame: &Frame, leaf: &Registers, own: &OwnStack) -> Option<usize> {
    let is_own = own.contains(leaf.sp) && own.contains(frame.sp);
    let mut frame = Some(*frame).filter(|_| is_own && new.frames.len == MAX_FRAMES)?;
    let mut reader = PassingReader { bounds: own.from(frame.sp) };
    for frames in 1..=MAX_FRAMES_OUTSIDE {
        let step = match arch::step(&frame, &mut reader)? {
            UnwindStep::RuleNotPacked => arch::step_by_full_rule(&frame, &mut reader)?,
            step => step,
        };
        match step {
            UnwindStep::Caller(caller) => frame = caller,
            UnwindStep::Outermost | UnwindStep::RuleNotPacked => return Some(frames),
            UnwindStep::CallerUnknown => return Some(frames + NO_ROOT),
        }
    }
    None
}

/// More frames outside of a truncated walk are not counted.
const MAX_FRAMES_OUTSIDE: usize = 64 * MAX_FRAMES;

/// Steps to the frame's caller by any rule, on whatever stack the caller is. `None` if only a full
/// unwinder can tell.
#[cold]
#[inline(never)]
fn step_on_any_stack(frame: &Frame, reader: &mut AnyStackReader<'_>) -> Option<UnwindStep> {
    reader.new.begin_step_again();
    match arch::step(frame, reader)? {
        UnwindStep::RuleNotPacked => arch::step_by_full_rule(frame, reader),
        step => Some(step),
    }
}

/// The outcome of a step outwards from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnwindStep {
    /// The step leads to the caller's frame.
    Caller(Frame),
    /// There is no caller: the thread began at this frame.
    Outermost,
    /// The frame's rule is not packed: see [`step_on_any_stack`].
    RuleNotPacked,
    /// There may be a caller, but neither unwind tables nor the platform's unwinder know it.
    CallerUnknown,
}

/// Reads the stack for a step, and notes the words that it reads.
pub(super) trait StackReader {
    /// Reads and notes the return address just below the canonical frame address `cfa` of a frame
    /// whose stack pointer is `sp`. `None` if `cfa` is not above `sp`, or if a walk must not read
    /// there.
    fn read_return_address(&mut self, cfa: u64, sp: u64) -> Option<ReturnAddress>;

    /// Reads and notes the word at this address; `None` if a walk must not read there.
    fn read(&mut self, address: u64) -> Option<u64>;

    /// Notes that the step depends on the value that was in the frame pointer register.
    fn note_fp_register(&mut self);

    /// Continues the walk at this stack pointer, on whatever stack that is; `None` if a walk must
    /// not continue there.
    fn continue_at(&mut self, sp: u64) -> Option<()>;
}

/// Reads for steps by packed rules, which stay on their stack.
struct SameStackReader<'w, 'n> {
    writer: &'w mut WalkWriter<'n>,
    bounds: StackBounds,
}

impl StackReader for SameStackReader<'_, '_> {
    #[inline(always)]
    fn read_return_address(&mut self, cfa: u64, sp: u64) -> Option<ReturnAddress> {
        let pc = self.bounds.read_return_address(cfa, sp)?;
        // SAFETY: `ensure_room` has made room for two words before the step. A step reads one
        // return address, and at most one other word.
        unsafe { self.writer.note_word(StackWord { address: cfa.wrapping_sub(8), value: pc.0 }) };
        Some(pc)
    }

    #[inline(always)]
    fn read(&mut self, address: u64) -> Option<u64> {
        let value = self.bounds.read(address)?;
        // SAFETY: `ensure_room` has made room for two words before the step. A step by a packed
        // rule reads one word with this method; one by frame records reads two, and no return
        // address with the method above.
        unsafe { self.writer.note_word(StackWord { address, value }) };
        Some(value)
    }

    #[inline(always)]
    fn note_fp_register(&mut self) {
        self.writer.note_fp_register();
    }

    fn continue_at(&mut self, sp: u64) -> Option<()> {
        self.bounds.contains(sp).then_some(())
    }
}

/// Reads for steps that may lead to another stack, or to the next page of a stack that is not the
/// thread's own.
struct AnyStackReader<'a> {
    new: &'a mut NewWalk,
    own: &'a OwnStack,
    bounds: StackBounds,
    /// Whether the walk has come to another stack.
    has_switched: bool,
}

impl AnyStackReader<'_> {
    /// Makes the bounds hold an address, if it is readable.
    fn move_bounds_to(&mut self, address: u64) {
        let before = self.bounds;
        self.bounds = self.own.bounds_at(address, &before);
        self.has_switched |= !self.bounds.may_hold_frame_at(before.start());
        self.new.note_stack_switch();
    }
}

impl StackReader for AnyStackReader<'_> {
    fn read_return_address(&mut self, cfa: u64, sp: u64) -> Option<ReturnAddress> {
        let address = cfa.wrapping_sub(8);
        let pc = match self.bounds.read_return_address(cfa, sp) {
            Some(pc) => pc,
            // On its own stack a caller lies outside of the frame that it has called.
            None if self.bounds.contains(address) => return None,
            None => {
                self.move_bounds_to(address);
                ReturnAddress(self.bounds.read(address)?)
            }
        };
        self.new.note_word(StackWord { address, value: pc.0 });
        Some(pc)
    }

    fn read(&mut self, address: u64) -> Option<u64> {
        if !self.bounds.contains(address) {
            self.move_bounds_to(address);
        }
        let value = self.bounds.read(address)?;
        self.new.note_word(StackWord { address, value });
        Some(value)
    }

    fn note_fp_register(&mut self) {
        self.new.note_fp_register();
    }

    fn continue_at(&mut self, sp: u64) -> Option<()> {
        self.new.note_full_rule();
        if self.bounds.may_hold_frame_at(sp) {
            return Some(());
        }
        self.move_bounds_to(sp);
        self.bounds.contains(sp).then_some(())
    }
}

/// Reads for steps on the thread's own stack, of which nothing is noted.
pub(super) struct PassingReader {
    pub(super) bounds: StackBounds,
}

impl StackReader for PassingReader {
    fn read_return_address(&mut self, cfa: u64, sp: u64) -> Option<ReturnAddress> {
        self.bounds.read_return_address(cfa, sp)
    }

    fn read(&mut self, address: u64) -> Option<u64> {
        self.bounds.read(address)
    }

    fn note_fp_register(&mut self) {}

    fn continue_at(&mut self, sp: u64) -> Option<()> {
        self.bounds.may_hold_frame_at(sp).then_some(())
    }
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod deep_tests;
#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests;
