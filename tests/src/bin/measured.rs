//! Functions around whose calls an independent counter measures the change of the heap. Prints one
//! line for each function: its name, and by how many bytes its outermost calls changed the heap.

use alloc_oracle::{Counting, snapshot};
use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

type Kept = Vec<Vec<u8>>;

fn main() {
    let mut kept = Kept::with_capacity(1000);
    let mut changes = Vec::with_capacity(16);
    let mut measure = |name: &'static str, call: fn(&mut Kept)| {
        let before = snapshot().live_bytes as i64;
        for _ in 0..3 {
            call(&mut kept);
        }
        changes.push((name, snapshot().live_bytes as i64 - before));
    };
    measure("grows", grows);
    measure("releases", releases);
    measure("recurses", |kept| recurses(kept, 7));
    measure("nests", nests);
    measure("closes_over", closes_over);
    measure("returns_early", returns_early);
    measure("is_generic", |kept| {
        is_generic::<u8>(kept);
        is_generic::<u64>(kept);
    });
    for (name, change) in changes {
        println!("{name} {change}");
    }
}

#[inline(never)]
fn grows(kept: &mut Kept) {
    for size in 1..20 {
        let scratch = vec![0u8; size * 100];
        kept.push(scratch[..size].to_vec());
    }
}

#[inline(never)]
fn releases(kept: &mut Kept) {
    kept.truncate(kept.len() - 10);
    let mut list = Vec::new();
    for number in 0..1000u32 {
        list.push(number);
    }
}

#[inline(never)]
fn recurses(kept: &mut Kept, depth: usize) {
    let before = vec![1u8; depth * 10];
    if depth > 0 {
        recurses(kept, depth - 1);
    }
    kept.push(before);
    kept.push(vec![2u8; 5]);
}

#[inline(never)]
fn nests(kept: &mut Kept) {
    grows(kept);
    recurses(kept, 2);
    // Keeps the call from being the last statement: an optimized build would make it a jump, and
    // this function would not be on its stack.
    kept.pop();
}

#[inline(never)]
fn closes_over(kept: &mut Kept) {
    let mut add = |size: usize| {
        kept.push(vec![0; size]);
    };
    (1..5).for_each(&mut add);
    [10, 20].into_iter().map(|size| vec![1u8; size]).for_each(drop);
}

#[inline(never)]
fn returns_early(kept: &mut Kept) {
    let held = vec![0u8; 300];
    if std::hint::black_box(held.len()) > 100 {
        kept.push(vec![9; 30]);
        return;
    }
    kept.push(held);
}

#[inline(never)]
fn is_generic<T: Default + Clone>(kept: &mut Kept) {
    let list = vec![T::default(); 10];
    kept.push(vec![0; size_of::<T>() * list.len()]);
}
