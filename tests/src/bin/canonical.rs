//! Annotated methods whose form clippy prescribes. A comment `//= OCCURRENCES INCREMENT` behind a
//! line says what the table must show for it, as in the program `annotated`. The
//! method `clone` has no such comment, because it has no table.

#![forbid(unsafe_code)]
#![allow(clippy::needless_return, reason = "clippy prescribes the form with a `return` as well")]

use std::cmp::Ordering;
use std::hint::black_box;
use std::panic::catch_unwind;

use alloc_tracker::{AllocTracker, profile};

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() {
    for number in [1, 2, 3] {
        black_box(InTheValue(number).partial_cmp(&InTheValue(0)));
    }
    std::panic::set_hook(Box::new(|_| {}));
    for number in [0, 1] {
        drop(catch_unwind(|| black_box(Panics(number).partial_cmp(&Panics(0)))));
    }
    black_box(InAReturn(1).partial_cmp(&InAReturn(2)));
    black_box(OnOneLine(1).partial_cmp(&OnOneLine(2)));
    black_box(calls());
}

/// Compares two numbers, and leaks 10 bytes. Panics if they are equal.
fn leaks_and_compares(one: u8, other: u8) -> Ordering {
    std::mem::forget(black_box(vec![0u8; 10]));
    if one == other {
        std::panic::panic_any(one);
    }
    one.cmp(&other)
}

macro_rules! ordered {
    ($($name:ident)*) => {
        $(
            #[derive(Copy, PartialEq, Eq)]
            struct $name(u8);

            impl Ord for $name {
                fn cmp(&self, other: &Self) -> Ordering {
                    leaks_and_compares(self.0, other.0)
                }
            }
        )*
    };
}

ordered!(InTheValue Panics InAReturn OnOneLine);

impl PartialOrd for InTheValue {
    #[profile]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other)) //= 4 40
    } //= 4 0
}

#[profile]
impl Clone for InTheValue {
    fn clone(&self) -> Self {
        *self
    }
}

impl PartialOrd for Panics {
    #[profile]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other)) //= 2 freed 0
    } //= 1 0
}

impl Clone for Panics {
    fn clone(&self) -> Self {
        *self
    }
}

impl PartialOrd for InAReturn {
    #[profile]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        return Some(Ord::cmp(self, other)); //= 1 10
    }
}

#[allow(clippy::non_canonical_clone_impl, reason = "clippy 1.95 accepts no `return` here")]
impl Clone for InAReturn {
    #[profile]
    fn clone(&self) -> Self {
        return *self;
    }
}

#[profile]
impl PartialOrd for OnOneLine {
    #[rustfmt::skip]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> { self.cmp(other).into() } //= 1 10
}

impl Clone for OnOneLine {
    #[profile]
    #[rustfmt::skip]
    fn clone(&self) -> Self { *self }
}

/// Its own lines go on after the methods are over.
#[profile]
fn calls() -> usize {
    let ordering = InTheValue(1).partial_cmp(&black_box(InTheValue(2))); //= 1 10
    let mut list = vec![ordering; 30]; //= 1 30
    #[allow(clippy::clone_on_copy, reason = "the call is what the line is about")]
    list.reserve_exact(usize::from(InTheValue(20).clone().0)); //= 1 20
    list.len() //= 1 0
} //= 1 -50
