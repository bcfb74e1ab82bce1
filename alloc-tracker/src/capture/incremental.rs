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
use super::frame::Frame;
use super::new_walk::{NewWalk, WalkWriter};
use super::recorded_walk::RecordedWalk;
use super::registers::Registers;
use super::stack::{OwnStack, StackBounds};
use super::stack_word::StackWord;
use super::walker::{StackWalker, WalkState};

/// Walks from the frame that has these registers. `None` if the stack has a frame that only a full
/// unwinder understands, or a word that is not known to be readable.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn walk(walker: &mut StackWalker, registers: &Registers, epoch: u64) -> Option<WalkEnd> {
    let WalkState { recorded, new, mut bounds, own } = walker.start_walk(registers, epoch);
    // The outermost recorded frames, without those that have returned since.
    let mut candidates = recorded.sharable();
    // The same, whatever stack pointers say.
    let mut unchanged_frames = candidates;
    let mut differences = 0;
    let mut writer = WalkWriter::new(new);
    let mut frame = Frame::with_fp_value(registers.pc, registers.sp, registers.fp);
    loop {
        let spares_effort = differences > MANY_DIFFERENCES;
        if let Some(same) = recorded.find_same_state(&frame, &bounds, &mut candidates, spares_effort) {
            // SAFETY: a walk from here must be able to read the recorded words. This walk is in the
            // recorded state, so it would read the same words, each after all words that led to it
            // are known to be unchanged. The thread's own stack is readable from its stack pointer
            // to its end.
            let changed = unsafe { recorded.first_changed_frame(same, spares_effort) };
            let Some(changed) = changed else {
                writer.write_back().share(same + 1);
                return Some(WalkEnd::Root);
            };
            // The recorded frames from the compared one to the changed one are valid. The changed
            // frame has another caller now.
            let (unchanged, new) = (changed + 1..same + 1, writer.write_back());
            if !copy_recorded_frames(new, recorded, unchanged) {
                return Some(WalkEnd::Truncated);
            }
            frame = *recorded.frame(changed)?;
            if !bounds.may_hold_frame_at(frame.sp) {
                new.note_stack_switch();
                bounds = own.bounds_at(frame.sp, &{ bounds });
            }
            writer.reload();
            (candidates, unchanged_frames) = (changed, changed);
            differences += 1;
        }
        if !writer.ensure_room() {
            writer.write_back();
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

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests {
    use super::super::rule::{CfaBase, UnwindRule};
    use super::super::unwind_tables::set_rule_of_call;
    use super::*;
    use crate::tree::Parent;
    use alloc_dump::layout::StackId;
    use std::collections::HashMap;
    use std::num::NonZeroU32;

    /// A function of a simulated program: what its frame looks like while it calls another one.
    #[derive(Clone, Copy)]
    struct SimulatedFunction {
        /// Where calls by this function return to.
        returns_to: ReturnAddress,
        /// Bytes from its stack pointer to its caller's.
        size: u64,
        /// Whether it saves the caller's frame pointer and puts a value of its own into the
        /// register.
        saves_fp: bool,
        /// Whether that value is its frame pointer, from which alone an unwinder finds its caller.
        has_fp: bool,
    }

    fn rule(base: CfaBase, offset: u32, fp_saved_below_cfa: u32) -> UnwindRule {
        UnwindRule::Cfa { base, offset, fp_saved_below_cfa: NonZeroU32::new(fp_saved_below_cfa) }
    }

    /// A thread of a simulated program: its stack, its stack pointer and its frame pointer
    /// register.
    struct SimulatedThread<'a> {
        stack: &'a mut [u64],
        /// The functions that run, each with the frame pointer and the stack pointer before its
        /// call.
        running: Vec<(SimulatedFunction, u64, u64)>,
        sp: u64,
        fp: u64,
    }

    impl SimulatedThread<'_> {
        fn word(&mut self, address: u64) -> &mut u64 {
            let start = self.stack.as_ptr().expose_provenance() as u64;
            &mut self.stack[((address - start) / 8) as usize]
        }

        fn call(&mut self, function: SimulatedFunction, value: u64) {
            let cfa = self.sp;
            if let Some((caller, ..)) = self.running.last() {
                let returns_to = caller.returns_to;
                *self.word(cfa - 8) = returns_to.0;
            }
            let fp = self.fp;
            if function.saves_fp {
                *self.word(cfa - 16) = fp;
                self.fp = if function.has_fp { cfa - 16 } else { value };
            }
            // A function with a frame pointer may move the stack pointer further than its unwind
            // rule says.
            let more = if function.has_fp { value % 3 * 16 } else { 0 };
            self.sp = cfa - function.size - more;
            self.running.push((function, fp, cfa));
        }

        fn ret(&mut self) {
            let (_, fp, cfa) = self.running.pop().unwrap();
            (self.sp, self.fp) = (cfa, fp);
        }
    }

    /// Tests the example at [`RecordedWalk::move_fp_slot`] at 200 depths.
    #[test]
    fn frames_are_shared_though_the_frame_pointer_is_saved_at_another_depth() {
        let (mut walker, mut stack) = (StackWalker::new(), [0; 1 << 12]);
        let mut thread = SimulatedThread { stack: &mut stack, running: Vec::new(), sp: 0, fp: 0 };
        thread.sp = thread.stack.as_ptr_range().end.expose_provenance() as u64;
        let function = |returns_to, saves_fp, has_fp| {
            let returns_to = ReturnAddress(returns_to);
            SimulatedFunction { returns_to, size: 32, saves_fp, has_fp }
        };
        let [outermost, first, called, allocator] = [
            function(0x2000, false, false),
            function(0x2010, true, true),
            function(0x2020, false, false),
            function(0x2030, true, false),
        ];
        set_rule_of_call(outermost.returns_to, UnwindRule::Outermost);
        set_rule_of_call(first.returns_to, rule(CfaBase::FramePointer, 16, 16));
        set_rule_of_call(called.returns_to, rule(CfaBase::StackPointer, 32, 0));
        set_rule_of_call(allocator.returns_to, rule(CfaBase::StackPointer, 32, 16));
        thread.call(outermost, 0);
        thread.call(first, 0);
        let mut nodes = 0;
        let mut new_frames = |thread: &SimulatedThread<'_>| {
            let (before, registers) =
                (nodes, Registers { pc: allocator.returns_to, sp: thread.sp, fp: thread.fp });
            assert_eq!(walker.node_by_shortcut(&registers, 1), None);
            assert_eq!(walk(&mut walker, &registers, 1), Some(WalkEnd::Root));
            let number = |_, _| {
                nodes += 1;
                Ok(StackId(nodes))
            };
            assert!(walker.intern_new_frames(&registers, WalkEnd::Root, 1, number).is_ok());
            nodes - before
        };
        for depth in 0..200 {
            thread.call(called, 0);
            thread.call(allocator, depth);
            assert_eq!(new_frames(&thread), if depth == 0 { 4 } else { 2 }, "{depth}");
            thread.ret();
        }
        // With another value in the slot the first function's frame is elsewhere: no frame can be
        // shared.
        thread.fp += 8;
        *thread.word(thread.fp + 8) = outermost.returns_to.0;
        thread.call(allocator, 0);
        assert_eq!(new_frames(&thread), 203);
    }

    /// Every walk, incremental or by a shortcut, leads to the node of the functions that are on the
    /// stack.
    #[test]
    fn walks_of_a_random_program_find_its_functions() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut walker = StackWalker::new();
        let outermost =
            SimulatedFunction { returns_to: ReturnAddress(0x1000), size: 64, saves_fp: false, has_fp: false };
        let functions: Vec<SimulatedFunction> = (1..12)
            .map(|at| {
                let has_fp = at % 4 == 0;
                let saves_fp = has_fp || at % 3 == 0;
                let returns_to = ReturnAddress(0x1000 + at * 37);
                // Two neighbours have frames of one size, as two calls by one function have.
                SimulatedFunction { returns_to, size: 32 + at / 2 * 16, saves_fp, has_fp }
            })
            .collect();
        // A local array, because only the thread's own stack has shortcuts.
        let mut stack = [0; 1 << 11];
        let mut thread = SimulatedThread { stack: &mut stack, running: Vec::new(), sp: 0, fp: 77 };
        thread.sp = thread.stack.as_ptr_range().end.expose_provenance() as u64;
        thread.call(outermost, 0);
        // This function is found by its frame pointer, which functions further in save.
        thread.call(functions[3], 0);
        let mut tree = HashMap::new();
        let mut outcomes = [0; 2];
        for step in 0..60_000u32 {
            let epoch = 1 + u64::from(step / 20_000);
            for _ in 0..random.u32(0..4) {
                if thread.running.len() > 2 && (random.bool() || thread.running.len() > 40) {
                    thread.ret();
                } else {
                    // Mostly the same few functions, so that walks have frames to share.
                    let last = if random.u8(..) < 16 { functions.len() } else { 5 };
                    thread.call(functions[random.usize(..last)], random.u64(..));
                }
            }
            let innermost = thread.running.last().unwrap().0;
            let registers = Registers { pc: innermost.returns_to, sp: thread.sp, fp: thread.fp };
            set_rule_of_call(outermost.returns_to, UnwindRule::Outermost);
            for function in &functions {
                let (base, offset) = if function.has_fp {
                    (CfaBase::FramePointer, 16)
                } else {
                    (CfaBase::StackPointer, function.size as u32)
                };
                set_rule_of_call(function.returns_to, rule(base, offset, u32::from(function.saves_fp) * 16));
            }
            let mut intern = |parent: Parent, pc: u64| {
                let next = StackId(tree.len() as u32 + StackId::FIRST.0);
                Ok(*tree.entry((parent, pc)).or_insert(next))
            };
            let expected = thread.running.iter().try_fold(StackId::ROOT, |parent, (function, ..)| {
                intern(Parent::of(parent, epoch as u32), function.returns_to.0)
            });
            let node = match walker.node_by_shortcut(&registers, epoch) {
                Some(node) => {
                    outcomes[0] += 1;
                    Ok(node)
                }
                None => {
                    outcomes[1] += 1;
                    let end = walk(&mut walker, &registers, epoch);
                    assert_eq!(end, Some(WalkEnd::Root));
                    walker.intern_new_frames(&registers, WalkEnd::Root, epoch as u32, intern)
                }
            };
            assert_eq!(node, expected, "step {step}");
        }
        assert!(outcomes.iter().all(|count| *count > 5_000), "{outcomes:?}");
    }
}
