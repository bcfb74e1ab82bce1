//! A test program that does unusual things with its stacks and its process. The first argument
//! names the stunt. The other arguments are the stunt's: the libraries to load, or a path. At its
//! end the program writes the counts of an independent counting allocator.
//!
//! Besides `alloc-tracker` and its oracle, this is the only package with `unsafe` code.

mod exchange;
mod fibers;
mod forks;
mod inner;
mod leaps;
mod levels;
mod libraries;
mod lineage;
mod linkage;
mod panics;
mod parsing;
mod recursion;
#[cfg(feature = "runtime")]
mod runtime;
mod segments;
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
        "exchange" => exchange::stunt(&rest[0]),
        "fibers" => fibers::stunt(),
        "many-fibers" => fibers::many_in_turn(),
        "forks" => forks::stunt(),
        "leader" => threads::first_thread_ends_first(),
        "leaps" => leaps::stunt(),
        "levels" => levels::stunt(&rest),
        "lineage" => lineage::stunt(&rest[0]),
        "measures" => linkage::measures(),
        "records" => linkage::records(&rest[0]),
        "libraries" => libraries::one_after_the_other(&rest),
        "loads" => libraries::beside_threads(&rest),
        "panics" => panics::stunt(),
        "parsing" => parsing::stunt(),
        "recursion" => recursion::stunt(),
        #[cfg(feature = "runtime")]
        "runtime" => runtime::stunt(),
        "segments" => segments::stunt(),
        "signals" => signals::stunt(),
        other => panic!("unknown stunt {other:?}"),
    }
}
