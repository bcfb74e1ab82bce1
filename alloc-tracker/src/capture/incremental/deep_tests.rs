//! Deep stacks of a simulated program: every event has the right node, and reads a bounded number
//! of words.

use super::super::deep_proof::{DEEP_FRAMES, MIDDLE_WORDS, NEAR_WORDS, OUTER_WORDS};
use super::super::stack_word::WORDS_READ;
use super::tests::{SimulatedFunction, SimulatedThread, rule};
use super::*;
use crate::capture::WalkEnd;
use crate::capture::rule::{CfaBase, UnwindRule};
use crate::capture::unwind_tables::set_rule_of_call;
use crate::tree::Parent;
use alloc_dump::layout::StackId;
use std::collections::HashMap;
use std::sync::Mutex;

/// No event on a deep stack reads more words: those that are compared, and some for its new frames.
const MOST_WORDS: u64 = (NEAR_WORDS + OUTER_WORDS + MIDDLE_WORDS + 64) as u64;

/// A simulated program with the walker that records it, and the nodes that its stacks have.
struct Recorded<'a> {
    thread: SimulatedThread<'a>,
    walker: StackWalker,
    tree: HashMap<(Parent, u64), StackId>,
    /// For each running function the node of the stack that ends with it.
    nodes: Vec<StackId>,
    /// The first of these that is not known yet: calls without events need no nodes.
    known: usize,
    partly_verified: u64,
}

/// The outcome of an event.
struct Event {
    end: WalkEnd,
    is_right: bool,
    is_partly_verified: bool,
    words_read: u64,
}

const OUTERMOST: SimulatedFunction = function(0x9000, 64, false, false);
/// Its caller, if there is one, is not known.
const ROOTLESS: SimulatedFunction = function(0x9600, 64, false, false);
/// Found by its frame pointer, as the C library's first function of a thread is.
const START: SimulatedFunction = function(0x9100, 48, true, true);
/// Leave the frame pointer alone. Both have frames of one size, so that one may stand in the place
/// of the other.
const DESCEND: SimulatedFunction = function(0x9200, 32, false, false);
const DESCEND_ELSEWHERE: SimulatedFunction = function(0x9300, 32, false, false);
/// Saves the frame pointer.
const GROW: SimulatedFunction = function(0x9400, 48, true, false);
const ALLOCATE: SimulatedFunction = function(0x9500, 32, false, false);
const ALL: [SimulatedFunction; 6] = [OUTERMOST, START, DESCEND, DESCEND_ELSEWHERE, GROW, ALLOCATE];

const fn function(returns_to: u64, size: u64, saves_fp: bool, has_fp: bool) -> SimulatedFunction {
    SimulatedFunction { returns_to: ReturnAddress(returns_to), size, saves_fp, has_fp }
}

impl<'a> Recorded<'a> {
    fn begin(stack: &'a mut [u64]) -> Recorded<'a> {
        let sp = stack.as_ptr_range().end.expose_provenance() as u64;
        let thread = SimulatedThread { stack, running: Vec::new(), sp, fp: 77 };
        let (walker, tree) = (StackWalker::new(), HashMap::new());
        let mut recorded = Recorded { thread, walker, tree, nodes: Vec::new(), known: 0, partly_verified: 0 };
        recorded.call(OUTERMOST);
        recorded.call(START);
        recorded
    }

    fn call(&mut self, function: SimulatedFunction) {
        self.thread.call(function, self.thread.running.len() as u64);
        self.nodes.push(StackId::NONE);
    }

    fn ret(&mut self) {
        self.thread.ret();
        self.nodes.pop();
        self.known = self.known.min(self.nodes.len());
    }

    fn depth(&self) -> usize {
        self.nodes.len()
    }

    fn expected(&mut self) -> StackId {
        let is_rootless = self.thread.running[0].0.returns_to == ROOTLESS.returns_to;
        let root = if is_rootless { StackId::TRUNCATED } else { StackId::ROOT };
        let mut parent = self.known.checked_sub(1).map_or(root, |last| self.nodes[last]);
        for at in self.known..self.nodes.len() {
            let function = self.thread.running[at].0;
            parent = intern(&mut self.tree, Parent::of(parent, 1), function.returns_to.0);
            self.nodes[at] = parent;
        }
        self.known = self.nodes.len();
        parent
    }

    fn event(&mut self) -> Event {
        let expected = self.expected();
        // Each time: walks of other tests may have replaced the rules.
        set_rule_of_call(OUTERMOST.returns_to, UnwindRule::Outermost);
        set_rule_of_call(ROOTLESS.returns_to, UnwindRule::Missing);
        for function in &ALL[1..] {
            let base = if function.has_fp { CfaBase::FramePointer } else { CfaBase::StackPointer };
            let offset = if function.has_fp { 16 } else { function.size as u32 };
            set_rule_of_call(function.returns_to, rule(base, offset, u32::from(function.saves_fp) * 16));
        }
        let innermost = self.thread.running.last().unwrap().0;
        let registers = Registers { pc: innermost.returns_to, sp: self.thread.sp, fp: self.thread.fp };
        let before = WORDS_READ.get();
        let (walker, tree) = (&mut self.walker, &mut self.tree);
        let (node, end) = match walker.node_by_shortcut(&registers, 1) {
            Some(node) => (node, WalkEnd::Root),
            None => {
                let end = crate::capture::walk(walker, &registers, 1);
                let intern = |parent, pc| Ok(intern(tree, parent, pc));
                (walker.intern_new_frames(&registers, end, 1, intern).unwrap(), end)
            }
        };
        assert!(!walker.last_walk_was_portable(), "depth {} before {before}", self.nodes.len());
        let is_partly_verified = walker.ends_partly_verified();
        self.partly_verified += u64::from(is_partly_verified);
        let words_read = WORDS_READ.get() - before;
        Event { end, is_right: node == expected, is_partly_verified, words_read }
    }

    /// Calls `leaf`, which has an event and returns.
    fn event_in(&mut self, leaf: SimulatedFunction) -> Event {
        self.call(leaf);
        if leaf.saves_fp {
            // The allocator's caller below it leaves the register alone.
            self.call(ALLOCATE);
        }
        let event = self.event();
        if leaf.saves_fp {
            self.ret();
        }
        self.ret();
        event
    }
}

fn intern(tree: &mut HashMap<(Parent, u64), StackId>, parent: Parent, pc: u64) -> StackId {
    let next = StackId(tree.len() as u32 + StackId::FIRST.0);
    *tree.entry((parent, pc)).or_insert(next)
}

/// Held by each of these tests: they give the outermost function different rules, and all threads
/// share the rules.
static RULES: Mutex<()> = Mutex::new(());

/// Runs a simulated program on a thread of its own, whose stack is large enough to hold `WORDS`
/// words of the simulated one. Only the thread's own stack can be compared in any order.
fn on_own_stack<const WORDS: usize>(run: impl FnOnce(Recorded<'_>) + Send) {
    #[inline(never)]
    fn with_words<const WORDS: usize>(run: impl FnOnce(Recorded<'_>)) {
        let mut stack = [0u64; WORDS];
        run(Recorded::begin(&mut stack));
    }
    let _alone = RULES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(WORDS * 8 + (8 << 20));
        builder.spawn_scoped(scope, || with_words::<WORDS>(run)).unwrap().join().unwrap();
    });
}

/// The leaf of the event at a level of a recursion.
type Leaf = fn(usize) -> SimulatedFunction;

#[test]
fn each_event_of_a_deep_recursion_reads_a_bounded_number_of_words() {
    const LEVELS: usize = 3 * DEEP_FRAMES;
    let leaves: [Leaf; 4] = [
        // No function saves the frame pointer.
        |_| ALLOCATE,
        // Its slot is at another depth in each event.
        |_| GROW,
        // It is in a slot and in the register in turn.
        |level| if level % 2 == 0 { GROW } else { ALLOCATE },
        |level| if level % 100 == 0 { GROW } else { ALLOCATE },
    ];
    for (number, leaf) in leaves.into_iter().enumerate() {
        on_own_stack::<{ 4 * DEEP_FRAMES * 4 }>(|mut program| {
            let check = |program: &mut Recorded<'_>, level: usize| {
                // Deep stacks at every level, others at some.
                if level < 2 * DEEP_FRAMES && !level.is_multiple_of(64) {
                    return;
                }
                let event = program.event_in(leaf(level));
                let place = format!("leaves {number}, level {level}");
                assert!(event.is_right && event.end == WalkEnd::Root, "{place}");
                // At each of these levels the walk shares all frames but a few.
                if !(DEEP_FRAMES - 2..=2 * DEEP_FRAMES).contains(&level) {
                    assert_eq!(event.is_partly_verified, level > DEEP_FRAMES, "{place}");
                }
                // On a stack that is less deep, a frame pointer that is in the register and then in
                // a slot costs a walk of the whole stack.
                if level > 2 * DEEP_FRAMES {
                    assert!(event.words_read <= MOST_WORDS, "{place}: {} words", event.words_read);
                }
            };
            for level in 0..LEVELS {
                program.call(DESCEND);
                check(&mut program, level);
            }
            for level in (0..LEVELS).rev() {
                check(&mut program, level);
                program.ret();
            }
        });
    }
}

/// A random program that never returns far between two events: each of its stacks is right.
#[test]
fn walks_of_a_random_deep_program_find_its_functions() {
    const LEVELS: usize = 3 * DEEP_FRAMES;
    on_own_stack::<{ 5 * DEEP_FRAMES * 6 }>(|mut program| {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut deep_events, mut partly_verified) = (0, 0);
        for step in 0..6_000 {
            // Down to a depth that is mostly deep, and sometimes is not.
            let aim = if step % 1500 < 1200 { LEVELS } else { DEEP_FRAMES / 2 };
            let most = if step % 300 < 150 { 20 } else { NEAR_WORDS / 4 };
            for _ in 0..random.usize(..most) {
                if program.depth() > 3 && random.usize(..2 * aim) < program.depth() {
                    program.ret();
                } else {
                    let any = [DESCEND, DESCEND, DESCEND_ELSEWHERE, START, GROW][random.usize(..5)];
                    // For a while none of the functions saves the frame pointer.
                    program.call(if step % 500 < 400 && any.saves_fp { DESCEND } else { any });
                }
            }
            // Faster down and up than by single steps.
            while program.depth() < aim && step % 1500 < 40 {
                program.call(DESCEND);
            }
            let event = program.event_in(if random.bool() { GROW } else { ALLOCATE });
            assert!(event.is_right && event.end == WalkEnd::Root, "step {step}");
            deep_events += u32::from(program.depth() > DEEP_FRAMES);
            partly_verified += u32::from(event.is_partly_verified);
        }
        assert!(deep_events > 2_000 && partly_verified > 2_000, "{deep_events} {partly_verified}");
    });
}

/// The program returns far, calls another function in the middle, and comes back to a leaf end and
/// to a root end that look as before, all without an event.
#[test]
fn a_change_in_the_middle_is_found_when_its_turn_comes() {
    const LEVELS: usize = 4 * DEEP_FRAMES;
    on_own_stack::<{ 5 * DEEP_FRAMES * 4 }>(|mut program| {
        let call_with = |program: &mut Recorded<'_>, middle: SimulatedFunction| {
            (0..LEVELS / 2).for_each(|_| program.call(DESCEND));
            program.call(middle);
            (0..LEVELS / 2).for_each(|_| program.call(DESCEND));
        };
        call_with(&mut program, DESCEND);
        assert!(program.event_in(ALLOCATE).is_right);
        while program.depth() > 2 {
            program.ret();
        }
        call_with(&mut program, DESCEND_ELSEWHERE);
        let mut wrong = 0;
        while !program.event_in(ALLOCATE).is_right {
            wrong += 1;
            assert_eq!(program.partly_verified, wrong, "a stack that may be wrong is counted");
        }
        // The word lies half way out, and so much is compared at each event.
        let words_to_it = LEVELS / 2 - NEAR_WORDS;
        let turns = (words_to_it / MIDDLE_WORDS) as u64;
        assert!((turns - 1..=turns + 1).contains(&wrong), "{wrong} of {turns}");
        assert!((0..1000).all(|_| program.event_in(ALLOCATE).is_right));
        // With an event on the way no stack is wrong.
        while program.depth() > 2 {
            program.ret();
        }
        assert!(program.event_in(ALLOCATE).is_right);
        call_with(&mut program, DESCEND);
        assert!((0..1000).all(|_| program.event_in(ALLOCATE).is_right));
    });
}

/// A stack beyond `MAX_FRAMES` is truncated, at the cost of a deep one, and whole as soon as it has
/// so many frames again.
#[test]
fn a_stack_with_too_many_frames_is_truncated_until_it_has_fewer() {
    const BEYOND: usize = 2_000;
    on_own_stack::<{ (MAX_FRAMES + 2 * BEYOND) * 4 }>(|mut program| {
        while program.depth() < MAX_FRAMES + BEYOND {
            program.call(DESCEND);
        }
        let mut truncated = 0;
        for returned in 0..2 * BEYOND {
            let event = program.event_in(ALLOCATE);
            // The event adds a frame of its own.
            let is_too_deep = program.depth() + 1 > MAX_FRAMES;
            assert_eq!(event.end == WalkEnd::Truncated, is_too_deep, "{returned}");
            assert_eq!(event.is_right, !is_too_deep, "{returned}");
            let walks_in_full = returned == 0 || program.depth() + 1 == MAX_FRAMES;
            assert!(walks_in_full || event.words_read <= MOST_WORDS, "{returned}: {}", event.words_read);
            truncated += usize::from(is_too_deep);
            program.ret();
        }
        assert_eq!(truncated, BEYOND + 1);
    });
}

/// Off the thread's own stack, words are read in order: only now and then as far as to the root.
#[test]
fn a_stack_that_goes_on_elsewhere_is_compared_in_the_order_of_reading() {
    const LEVELS: usize = 2 * DEEP_FRAMES;
    const EVENTS: usize = 500;
    on_own_stack::<{ 3 * DEEP_FRAMES * 4 }>(|mut program| {
        // The first function has been called on another stack.
        let mut elsewhere = vec![0; 64];
        elsewhere[1] = OUTERMOST.returns_to.0;
        program.thread.fp = elsewhere.as_mut_ptr().expose_provenance() as u64;
        (0..LEVELS).for_each(|_| program.call(DESCEND));
        let before = WORDS_READ.get();
        let mut whole = 0;
        for _ in 0..EVENTS {
            program.ret();
            let event = program.event_in(ALLOCATE);
            assert!(event.is_right);
            whole += usize::from(!event.is_partly_verified);
        }
        // The first walk is whole anyway.
        let turns = EVENTS * MIDDLE_WORDS / LEVELS;
        assert!((turns..=turns + 2).contains(&whole), "{whole} of {turns}");
        let read = WORDS_READ.get() - before - LEVELS as u64;
        assert!(read <= EVENTS as u64 * MOST_WORDS, "{read} words");
    });
}

/// A deep stack whose outermost caller nobody knows is truncated, and shared like any other one.
#[test]
fn a_deep_stack_without_a_root_is_walked_in_bounded_time() {
    on_own_stack::<{ 4 * DEEP_FRAMES * 4 }>(|mut program| {
        program.ret();
        program.ret();
        program.call(ROOTLESS);
        program.call(START);
        (0..2 * DEEP_FRAMES).for_each(|_| program.call(DESCEND));
        let first = program.event_in(ALLOCATE);
        assert_eq!((first.end, first.is_right), (WalkEnd::Truncated, true));
        for _ in 0..500 {
            program.call(DESCEND);
            let event = program.event_in(GROW);
            assert_eq!((event.end, event.is_right), (WalkEnd::Truncated, true));
            assert!(event.words_read <= MOST_WORDS, "{} words", event.words_read);
        }
    });
}
