use super::super::rule::{CfaBase, UnwindRule};
use super::super::unwind_tables::set_rule_of_call;
use super::*;
use crate::tree::Parent;
use alloc_dump::layout::StackId;
use std::collections::HashMap;
use std::num::NonZeroU32;

/// A function of a simulated program: what its frame looks like while it calls another one.
#[derive(Clone, Copy)]
pub(super) struct SimulatedFunction {
    /// Where calls by this function return to.
    pub(super) returns_to: ReturnAddress,
    /// Bytes from its stack pointer to its caller's.
    pub(super) size: u64,
    /// Whether it saves the caller's frame pointer and puts a value of its own into the
    /// register.
    pub(super) saves_fp: bool,
    /// Whether that value is its frame pointer, from which alone an unwinder finds its caller.
    pub(super) has_fp: bool,
}

pub(super) fn rule(base: CfaBase, offset: u32, fp_saved_below_cfa: u32) -> UnwindRule {
    UnwindRule::Cfa { base, offset, fp_saved_below_cfa: NonZeroU32::new(fp_saved_below_cfa) }
}

/// A thread of a simulated program: its stack, its stack pointer and its frame pointer
/// register.
pub(super) struct SimulatedThread<'a> {
    pub(super) stack: &'a mut [u64],
    /// The functions that run, each with the frame pointer and the stack pointer before its
    /// call.
    pub(super) running: Vec<(SimulatedFunction, u64, u64)>,
    pub(super) sp: u64,
    pub(super) fp: u64,
}

impl SimulatedThread<'_> {
    fn word(&mut self, address: u64) -> &mut u64 {
        let start = self.stack.as_ptr().expose_provenance() as u64;
        &mut self.stack[((address - start) / 8) as usize]
    }

    pub(super) fn call(&mut self, function: SimulatedFunction, value: u64) {
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

    pub(super) fn ret(&mut self) {
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
