//! A global allocator that can record every allocation and every free of a program, each with its full stack, its
//! time and its thread, into a dump that `profiler-cli` turns into summaries, line tables, leak reports and
//! flamegraphs.
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
//! A program that links this crate is not profiled until somebody asks:
//!
//! - `profiler-cli run -- PROGRAM ARGS…`, or
//! - `ALLOC_TRACKER=trace ALLOC_TRACKER_OUT=FILE PROGRAM ARGS…` (`%p` in `FILE` is the process id), or
//! - in code, a [`Profiler`] guard around the part that matters.
//!
//! Until then every call costs one relaxed load and a branch on top of the inner allocator.
//!
//! For tests and services there are exact counts without a dump: [`measure`], [`Region`] and [`stats`].
//!
//! # Implementation
//!
//! `allocator` forwards to `hook`, which counts (`counters`), walks the stack (`capture`: incrementally and verified) and hands both to `recorder`;
//! that interns new frames (`tree`), notes new modules (`modules`) and appends records to the frame in `sink`. Nothing
//! on this way allocates through the global allocator, takes a lock that application code can hold, panics or
//! unwinds. What the tracker needs for itself is mapped memory (`sys`). Linux only, for now.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "alloc-tracker records on Linux only, so far: make the dependency and the allocator conditional on it"
);

mod allocator;
mod capture;
mod clock;
mod counters;
mod hook;
mod loader;
mod mode;
mod modules;
mod profiler;
mod recorder;
mod sample;
mod settings;
mod sidecar;
mod sink;
mod sys;
mod thread;
mod tree;

pub use allocator::AllocTracker;
pub use counters::{Change, Region, Stats, measure, stats};
pub use profiler::{Profiler, ProfilerBuilder, StartError};
