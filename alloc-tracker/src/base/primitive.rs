//! The atomics of the protocols that are proved by models: the standard library's here, loom's in
//! the package `alloc-tracker-models`, which compiles the very same files.
//!
//! A file that uses this module names atomics, orderings and fences through it and nothing else
//! that synchronizes threads.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
