//! A program that does to its stacks and to its process what stacks and processes are rarely asked for. Its first
//! argument says which of that; a library to load comes as the next ones. The counts of an independent counter are
//! written at its end.
//!
//! This is a program for tests, and the only package beside `alloc-tracker` that has `unsafe` in it.

mod fibers;
mod forks;
mod inner;
mod leaps;
mod libraries;
mod lineage;
mod panics;
mod parsing;
mod recursion;
#[cfg(feature = "runtime")]
mod runtime;
mod signals;
mod threads;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use inner::SystemOrBump;

#[global_allocator]
static ALLOC: Counting<AllocTracker<SystemOrBump>> = Counting::new(AllocTracker::new(SystemOrBump));

fn main() {
    report_at_exit();
    let mut args = std::env::args().skip(1);
    let stunt = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match stunt.as_str() {
        "nothing" => {}
        "fibers" => fibers::stunt(),
        "forks" => forks::stunt(),
        "leader" => threads::the_first_one_leaves(),
        "leaps" => leaps::stunt(),
        "lineage" => lineage::stunt(&rest[0]),
        "libraries" => libraries::one_after_the_other(&rest),
        "loads" => libraries::beside_threads(&rest),
        "panics" => panics::stunt(),
        "parsing" => parsing::stunt(),
        "recursion" => recursion::stunt(),
        #[cfg(feature = "runtime")]
        "runtime" => runtime::stunt(),
        "signals" => signals::stunt(),
        other => panic!("unknown stunt {other:?}"),
    }
}
