//! The walk that reuses the one before: steps from the top until a frame is in the very state of a recorded frame, then
//! compares the words that were read from there to the root.
//!
//! An unwinder is a function of its state and of the words that it reads. If a new frame's state equals that of a
//! recorded one, and all words that led from there to the root still have the values that they had, then the rest of
//! the walk must be the same; so the recorded frames and their nodes are taken over, and only the new frames at the
//! top have to be interned. A word that differs ends the agreement at its frame: stepping goes on from there.
//! Every word is compared only after all words that led to it, so memory that a real walk would not touch is never
//! touched. Comparing code and stack addresses alone would not be sound.

use std::ops::Range;

use super::WalkEnd;
use super::arch;
use super::frame::Frame;
use super::fresh::{Fresh, Trail};
use super::recorded::Recorded;
use super::registers::Registers;
use super::stack::{Bounds, StackRanges};
use super::walk::{Beginning, StackWalker};
use super::word::Word;

/// Walks from the frame that has these registers. `None` if the stack has a frame that only a full unwinder understands.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn walk(walks: &mut StackWalker, registers: &Registers, epoch: u64) -> Option<WalkEnd> {
    let Beginning { recorded, fresh, mut bounds, ranges } = walks.begin(registers, epoch)?;
    // Frames of the recorded walk that have not returned.
    let mut candidates = recorded.sharable();
    let mut differences = 0;
    let mut trail = Trail::of(fresh);
    let mut frame = Frame::in_register(registers.pc, registers.sp, registers.fp);
    loop {
        let often = differences > OFTEN;
        if let Some(innermost) = recorded.find(&frame, &bounds, &mut candidates, often) {
            // SAFETY: both walks are in the same state, so this one reads what the recorded one has read, each word after all
            // that led to it; and the thread's own stack is there from its stack pointer to its end.
            let Some(differs) = (unsafe { recorded.first_difference(innermost, often) }) else {
                trail.end().share(innermost + 1);
                return Some(WalkEnd::Root);
            };
            // Further in the recorded frames hold; this one's caller is another.
            let (others, fresh) = (differs + 1..innermost + 1, trail.end());
            if !take_over(fresh, recorded, others) {
                return Some(WalkEnd::Truncated);
            }
            frame = *recorded.frame(differs)?;
            if !bounds.contains(frame.sp) {
                fresh.leave_stack();
                bounds = ranges.beyond(frame.sp)?;
            }
            trail.go_on();
            candidates = differs;
            differences += 1;
        }
        if !trail.has_room() {
            trail.end();
            return Some(WalkEnd::Truncated);
        }
        let step = match arch::step(&frame, &mut Usual { trail: &mut trail, bounds })? {
            Step::Unpacked => {
                // PERF: copies, so that the others can stay in registers.
                let mut elsewhere = Anywhere { fresh: trail.end(), ranges: &mut *ranges, bounds: { bounds } };
                let step = evaluate(&{ frame }, &mut elsewhere)?;
                bounds = elsewhere.bounds;
                if !elsewhere.fresh.push(frame) {
                    return Some(WalkEnd::Truncated);
                }
                trail.go_on();
                step
            }
            step => {
                // SAFETY: there is room, and this is the only one.
                unsafe { trail.push(frame) };
                step
            }
        };
        match step {
            Step::Caller(caller) => frame = caller,
            Step::Outermost | Step::Unpacked => {
                trail.end();
                return Some(WalkEnd::Root);
            }
        }
    }
}

/// After so many differences a walk spends no more on a frame that looks like a recorded one than that costs which it takes over:
/// each of a deep stack may be such a one.
const OFTEN: u32 = 4;

/// Adds these frames of the recorded walk again; false if there is no memory.
#[cold]
#[inline(never)]
fn take_over(fresh: &mut Fresh, recorded: &Recorded, frames: Range<usize>) -> bool {
    frames.rev().all(|at| fresh.push_recorded(recorded, at))
}

#[cold]
#[inline(never)]
fn evaluate(frame: &Frame, words: &mut Anywhere<'_>) -> Option<Step> {
    arch::evaluate(frame, words)
}

/// Where a frame leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To its caller.
    Caller(Frame),
    /// Nowhere: the thread began here.
    Outermost,
    /// It has to be worked out in full.
    Unpacked,
}

/// What a step reads, and where that is noted.
pub(super) trait Words {
    /// The return address just below the stack pointer of a caller, which is noted; `None` if it is not above the stack pointer
    /// `inner` of the frame that it has called, or if a walk must not read there.
    fn return_address(&mut self, sp: u64, inner: u64) -> Option<u64>;

    /// The word at this address, which is noted; `None` if a walk must not read there.
    fn read(&mut self, address: u64) -> Option<u64>;

    /// The step depends on what was in the frame pointer's register.
    fn need_fp(&mut self);

    /// The walk goes on at this stack pointer, on another stack if it is not on this one.
    fn go_to(&mut self, sp: u64) -> Option<()>;
}

/// Those of a step by a packed rule, which stays on its stack.
struct Usual<'t, 'f> {
    trail: &'t mut Trail<'f>,
    bounds: Bounds,
}

impl Words for Usual<'_, '_> {
    #[inline(always)]
    fn return_address(&mut self, sp: u64, inner: u64) -> Option<u64> {
        let value = self.bounds.return_address(sp, inner)?;
        // SAFETY: a step reads one of them, and one other word, for which there is room.
        unsafe { self.trail.note(Word { address: sp.wrapping_sub(8), value }) };
        Some(value)
    }

    #[inline(always)]
    fn read(&mut self, address: u64) -> Option<u64> {
        let value = self.bounds.read(address)?;
        // SAFETY: as above; on processors where no rule is packed a step reads two.
        unsafe { self.trail.note(Word { address, value }) };
        Some(value)
    }

    #[inline(always)]
    fn need_fp(&mut self) {
        self.trail.depend_on_fp();
    }

    fn go_to(&mut self, sp: u64) -> Option<()> {
        self.bounds.contains(sp).then_some(())
    }
}

/// Those of a step of any kind.
struct Anywhere<'a> {
    fresh: &'a mut Fresh,
    ranges: &'a mut StackRanges,
    bounds: Bounds,
}

impl Words for Anywhere<'_> {
    fn return_address(&mut self, sp: u64, inner: u64) -> Option<u64> {
        let value = self.bounds.return_address(sp, inner)?;
        self.fresh.note(Word { address: sp.wrapping_sub(8), value });
        Some(value)
    }

    fn read(&mut self, address: u64) -> Option<u64> {
        let value = self.bounds.read(address)?;
        self.fresh.note(Word { address, value });
        Some(value)
    }

    fn need_fp(&mut self) {
        self.fresh.depend_on_fp();
    }

    fn go_to(&mut self, sp: u64) -> Option<()> {
        self.fresh.was_evaluated();
        if !self.bounds.contains(sp) {
            self.fresh.leave_stack();
            self.bounds = self.ranges.beyond(sp)?;
        }
        Some(())
    }
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests {
    use super::super::compile::know;
    use super::super::rule::{Base, Rule};
    use super::*;
    use crate::tree::Parent;
    use alloc_dump::layout::StackId;
    use std::collections::HashMap;

    /// A function of a made-up program: how its frame looks while it calls another one.
    #[derive(Clone, Copy)]
    struct Function {
        returns_to: u64,
        /// Bytes from its stack pointer to its caller's.
        size: u64,
        /// Whether it saves the caller's frame pointer, and then has something of its own in the register.
        saves: bool,
        /// Whether that is its frame pointer, from which alone an unwinder finds its caller.
        needs_fp: bool,
    }

    /// A processor, of which there is a stack and the register that may be a frame pointer.
    struct Machine<'a> {
        stack: &'a mut [u64],
        /// With the frame pointer and the stack pointer before the call.
        running: Vec<(Function, u64, u64)>,
        sp: u64,
        fp: u64,
    }

    impl Machine<'_> {
        fn word(&mut self, address: u64) -> &mut u64 {
            let start = self.stack.as_ptr().expose_provenance() as u64;
            &mut self.stack[((address - start) / 8) as usize]
        }

        fn call(&mut self, function: Function, value: u64) {
            let cfa = self.sp;
            if let Some((caller, ..)) = self.running.last() {
                let returns_to = caller.returns_to;
                *self.word(cfa - 8) = returns_to;
            }
            let fp = self.fp;
            if function.saves {
                *self.word(cfa - 16) = fp;
                self.fp = if function.needs_fp { cfa - 16 } else { value };
            }
            // With a frame pointer of its own a function may have more room than its unwind rule knows.
            let more = if function.needs_fp { value % 3 * 16 } else { 0 };
            self.sp = cfa - function.size - more;
            self.running.push((function, fp, cfa));
        }

        fn ret(&mut self) {
            let (_, fp, cfa) = self.running.pop().unwrap();
            (self.sp, self.fp) = (cfa, fp);
        }
    }

    /// As the C library's first function of a thread needs the frame pointer, and nothing saves it until the allocator is called.
    #[test]
    fn frames_are_shared_though_the_frame_pointer_is_saved_at_another_depth() {
        let (mut walks, mut stack) = (StackWalker::new(), [0; 1 << 12]);
        let mut machine = Machine { stack: &mut stack, running: Vec::new(), sp: 0, fp: 0 };
        machine.sp = machine.stack.as_ptr_range().end.expose_provenance() as u64;
        let function = |returns_to, saves, needs_fp| Function { returns_to, size: 32, saves, needs_fp };
        let [outermost, first, called, allocator] = [
            function(0x2000, false, false),
            function(0x2010, true, true),
            function(0x2020, false, false),
            function(0x2030, true, false),
        ];
        know(outermost.returns_to, Rule::Outermost);
        know(first.returns_to, Rule::Frame { base: Base::Fp, offset: 16, below: 16 });
        know(called.returns_to, Rule::Frame { base: Base::Sp, offset: 32, below: 0 });
        know(allocator.returns_to, Rule::Frame { base: Base::Sp, offset: 32, below: 16 });
        machine.call(outermost, 0);
        machine.call(first, 0);
        let mut nodes = 0;
        let mut new_frames = |machine: &Machine<'_>| {
            let (before, registers) =
                (nodes, Registers { pc: allocator.returns_to, sp: machine.sp, fp: machine.fp });
            assert_eq!(walks.node_by_shortcut(&registers, 1), None);
            assert_eq!(walk(&mut walks, &registers, 1), Some(WalkEnd::Root));
            let number = |_, _| {
                nodes += 1;
                Ok(StackId(nodes))
            };
            assert!(walks.intern_new_frames(&registers, WalkEnd::Root, 1, number).is_ok());
            nodes - before
        };
        for depth in 0..200 {
            machine.call(called, 0);
            machine.call(allocator, depth);
            assert_eq!(new_frames(&machine), if depth == 0 { 4 } else { 2 }, "{depth}");
            machine.ret();
        }
        // Another value is saved there: the first function begins elsewhere, and there is nothing to share.
        machine.fp += 8;
        *machine.word(machine.fp + 8) = outermost.returns_to;
        machine.call(allocator, 0);
        assert_eq!(new_frames(&machine), 203);
    }

    /// Every walk, over shared frames or by a shortcut, leads to the node that the functions on the stack have.
    #[test]
    fn walks_of_a_program_that_wanders_find_its_functions() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut walks = StackWalker::new();
        let outermost = Function { returns_to: 0x1000, size: 64, saves: false, needs_fp: false };
        let functions: Vec<Function> = (1..12)
            .map(|at| {
                let needs_fp = at % 4 == 0;
                let saves = needs_fp || at % 3 == 0;
                // Two places of one function call others.
                Function { returns_to: 0x1000 + at * 37, size: 32 + at / 2 * 16, saves, needs_fp }
            })
            .collect();
        // On the thread's own stack, which alone has shortcuts.
        let mut stack = [0; 1 << 11];
        let mut machine = Machine { stack: &mut stack, running: Vec::new(), sp: 0, fp: 77 };
        machine.sp = machine.stack.as_ptr_range().end.expose_provenance() as u64;
        machine.call(outermost, 0);
        // What is saved of it further in is needed here, and nowhere between.
        machine.call(functions[3], 0);
        let mut tree = HashMap::new();
        let mut outcomes = [0; 2];
        for step in 0..60_000u32 {
            let epoch = 1 + u64::from(step / 20_000);
            for _ in 0..random.u32(0..4) {
                if machine.running.len() > 2 && (random.bool() || machine.running.len() > 40) {
                    machine.ret();
                } else {
                    // Mostly the same ones, so that there is something to share.
                    let last = if random.u8(..) < 16 { functions.len() } else { 5 };
                    machine.call(functions[random.usize(..last)], random.u64(..));
                }
            }
            let innermost = machine.running.last().unwrap().0;
            let registers = Registers { pc: innermost.returns_to, sp: machine.sp, fp: machine.fp };
            know(outermost.returns_to, Rule::Outermost);
            for function in &functions {
                let (base, offset) =
                    if function.needs_fp { (Base::Fp, 16) } else { (Base::Sp, function.size as u32) };
                know(
                    function.returns_to,
                    Rule::Frame { base, offset, below: u32::from(function.saves) * 16 },
                );
            }
            let mut intern = |parent: Parent, pc: u64| {
                let next = StackId(tree.len() as u32 + StackId::FIRST.0);
                Ok(*tree.entry((parent, pc)).or_insert(next))
            };
            let expected = machine.running.iter().try_fold(StackId::ROOT, |parent, (function, ..)| {
                intern(Parent::of(parent, epoch as u32), function.returns_to)
            });
            let node = match walks.node_by_shortcut(&registers, epoch) {
                Some(node) => {
                    outcomes[0] += 1;
                    Ok(node)
                }
                None => {
                    outcomes[1] += 1;
                    let end = walk(&mut walks, &registers, epoch);
                    assert_eq!(end, Some(WalkEnd::Root));
                    walks.intern_new_frames(&registers, WalkEnd::Root, epoch as u32, intern)
                }
            };
            assert_eq!(node, expected, "step {step}");
        }
        assert!(outcomes.iter().all(|count| *count > 5_000), "{outcomes:?}");
    }
}
