//! A global allocator that can record every allocation and every free of a program, each with its
//! full stack, its time and its thread, into a dump that `profiler-cli` turns into summaries, line
//! tables, leak reports and flamegraphs.
//!
//! ```
//! use alloc_tracker::AllocTracker;
//!
//! #[global_allocator]
//! static ALLOC: AllocTracker = AllocTracker::system();
//!
//! fn main() {
//!     // The program, unchanged.
//! }
//! ```
//!
//! A program that links this crate is not profiled until the user asks:
//!
//! - with the command line: `profiler-cli run -- PROGRAM ARGS…`,
//! - with the environment: `ALLOC_TRACKER=trace ALLOC_TRACKER_OUT=FILE PROGRAM ARGS…`, where `%p`
//!   in the file's name (not in a folder's) is the process id,
//! - in code: with a [`Profiler`] guard around the part that matters.
//!
//! Until then every call costs one relaxed load, a branch and a jump on top of the inner allocator.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `ALLOC_TRACKER` | `trace`: record a dump; `count`: only keep [`stats`]; `off` or unset: nothing |
//! | `ALLOC_TRACKER_OUT` | the dump; `%p` in the file's name is the process id, in a folder's name it is nothing special; default `PROGRAM.PID.alloc` in the working directory |
//! | `ALLOC_TRACKER_ON_FULL` | what a thread does when its ring buffer is full: `block` (default): it waits; `drop`: its event is counted as lost |
//! | `ALLOC_TRACKER_DRAINER` | `process` (default): a process beside the program writes the dump; `caller`: the program's own threads do |
//! | `ALLOC_TRACKER_SIDECAR` | `beside` (default): the sidecar, with everything that is not in the dump yet, is a file beside the dump; `memory`: it is in `/dev/shm`, as it always is on copy-on-write file systems such as btrfs |
//! | `ALLOC_TRACKER_LINES` | what annotated functions also record at each line: `rss`, `faults`, or both with a comma between |
//! | `ALLOC_TRACKER_MAX_DUMP` | the recording ends when the dump is this large: bytes, or a number with `KiB`, `MiB` or `GiB` behind it; the program goes on |
//! | `ALLOC_TRACKER_FOR` | the recording ends after this time: seconds, or a number with `ms`, `s`, `m` or `h` behind it; the program goes on |
//! | `ALLOC_TRACKER_LABELS` | what the dump shall say about the recording: `name=value`, one on a line |
//! | `ALLOC_TRACKER_ARGV` | `0`: leave the command line out of the dump |
//! | `ALLOC_TRACKER_FOLLOW` | `1`: a forked child writes a dump of its own |
//! | `ALLOC_TRACKER_VERIFY` | how much of a stack with more than 8,192 frames each event compares with the stack before: `bounded` (default): some thousand words, and the summary counts such stacks; `all`: every word |
//! | `ALLOC_TRACKER_CHECK` | `1`: compare every stack with an independent full walk, and count the stacks that differ |
//!
//! In tests, [`budget`] bounds what a test may allocate, and [`assert_no_leaks`] what it leaves
//! behind. For tests and services there are exact counts without a dump: [`measure`], [`Region`]
//! and [`stats`]. They panic in a program without the attribute, where they would count nothing;
//! [`is_installed`] and [`installation`] tell.
//!
//! # Implementation
//!
//! The allocator (`api`) forwards to the `hook`, which counts, walks the stack (`capture`) and
//! records. The `recorder` stores the event, with a timestamp, in the thread's own ring buffer
//! (`output`). New frames are interned in the call `tree`; `modules` knows which files have code
//! where. A drain process moves the entries of all rings, in the order of their timestamps, into
//! the dump. None of these steps allocates through the global allocator, takes a lock that
//! application code can hold, panics or unwinds. The tracker's own tables are in mapped memory
//! (`base::sys`). Linux only, for now.
//!
//! The crate is cut into rooms whose imports point one way:
//!
//! ```text
//! api       -> hook, recorder, scope
//! hook      -> capture, recorder, scope
//! recorder  -> capture, tree, modules, thread, output, scope
//! scope     -> capture, tree
//! capture   -> tree, modules, thread
//! all       -> base
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!(
    "alloc-tracker records on Linux only, so far: make the dependency and the allocator conditional on it"
);

mod api;
mod base;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 has rules"))]
mod capture;
mod hook;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 reads unwind tables"))]
mod modules;
mod output;
mod recorder;
mod scope;
mod thread;
mod tree;

pub use api::allocator::AllocTracker;
pub use api::installation::{Installation, installation, is_installed};
pub use api::leak_check::{LeakCheck, assert_no_leaks};
pub use api::measure::{measure, measure_process};
pub use api::probe::mark;
pub use api::profiler::{Profiler, ProfilerBuilder, StartError};
pub use api::scope::{EnteredScope, LiveBlocks, Scope, ScopeHandle};
pub use api::snapshot::{SnapshotError, snapshot};
pub use api::stats::{Change, Region, Stats, stats};

#[cfg(feature = "budget")]
pub use alloc_tracker_macros::budget;
pub use alloc_tracker_macros::profile;

/// Macros for blocks of code, which have the names of attributes for functions. Rust does not let
/// an attribute and a macro share one path.
#[cfg(feature = "budget")]
pub mod block {
    pub use alloc_tracker_macros::budget_block as budget;
}

/// What the macros expand to; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::api::budget::{Budget, BudgetBounds, within};
    pub use crate::api::measure::require_no_allocations;
    pub use crate::api::probe::{Activation, Aside, At, Closing, Each, Function, Polled};
    pub use crate::api::rerun::BudgetPlace;
}
