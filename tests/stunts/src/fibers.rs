//! Many fibers with stacks of their own. Several threads switch between fibers in the middle of a
//! recursion.

use std::hint::black_box;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

const FIBERS: usize = 60;
const DEPTH: usize = 40;

pub(crate) fn stunt() {
    let threads: Vec<_> = (0..2).map(|seed| std::thread::spawn(move || run(seed))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    run(7);
}

/// Many more fibers than a recorder remembers stacks, all at different depths and in turn: on the
/// first thread, whose own stack lies above those of its fibers, and on a thread whose stack was
/// mapped after the fibers' stacks.
pub(crate) fn many_in_turn() {
    let stacks = |first: usize| (first..first + MANY).map(|_| DefaultStack::new(64 << 10).unwrap());
    let (own, for_thread): (Vec<_>, Vec<_>) = (stacks(0).collect(), stacks(MANY).collect());
    take_turns(own);
    std::thread::spawn(move || take_turns(for_thread)).join().unwrap();
}

const MANY: usize = 1000;
const TURNS: usize = 5;

fn take_turns(stacks: Vec<DefaultStack>) {
    let fiber = |(number, stack)| {
        Coroutine::with_stack(stack, move |yielder: &Yielder<usize, usize>, _| {
            descend(yielder, 3 + number % 20)
        })
    };
    let mut fibers: Vec<Coroutine<usize, usize, usize>> = stacks.into_iter().enumerate().map(fiber).collect();
    for turn in 0..=TURNS {
        for fiber in &mut fibers {
            black_box(fiber.resume(turn));
        }
    }
    assert!(fibers.iter().all(Coroutine::done));
}

#[inline(never)]
fn descend(yielder: &Yielder<usize, usize>, depth: usize) -> usize {
    if depth > 0 {
        return black_box(descend(yielder, depth - 1)) + 1;
    }
    for _ in 0..TURNS {
        black_box(vec![1u8; 40]);
        black_box(yielder.suspend(0));
    }
    0
}

fn run(seed: usize) {
    let fiber = |number: usize| {
        let stack = DefaultStack::new(128 << 10).unwrap();
        Coroutine::with_stack(stack, move |yielder: &Yielder<usize, usize>, first| {
            recurse(yielder, number, DEPTH - number % 5) + first
        })
    };
    let mut fibers: Vec<Coroutine<usize, usize, usize>> = (0..FIBERS).map(|n| fiber(n + seed)).collect();
    let mut turn = seed;
    while !fibers.is_empty() {
        turn = turn.wrapping_mul(31).wrapping_add(17);
        let at = turn % fibers.len();
        black_box(vec![1u8; 1 + turn % 100]);
        // Fibers are resumed from different depths of the thread's own stack, too.
        if let CoroutineResult::Return(_) = resume(&mut fibers[at], turn % 4) {
            fibers.swap_remove(at);
        }
    }
}

#[inline(never)]
fn resume(fiber: &mut Coroutine<usize, usize, usize>, depth: usize) -> CoroutineResult<usize, usize> {
    let result = if depth == 0 { fiber.resume(depth) } else { resume(fiber, depth - 1) };
    black_box(vec![1u8; 5]);
    result
}

#[inline(never)]
fn recurse(yielder: &Yielder<usize, usize>, number: usize, depth: usize) -> usize {
    let block = black_box(vec![1u8; 1 + depth]);
    if depth == 0 {
        return yielder.suspend(number);
    }
    if (depth + number).is_multiple_of(6) {
        black_box(yielder.suspend(depth));
    }
    let below = recurse(yielder, number, depth - 1);
    black_box(vec![2u8; 3]);
    black_box(below) + block.len()
}
