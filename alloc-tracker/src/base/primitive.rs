//! The atomics of the protocols that models check. In this package they are the standard library's.
//! In the package `alloc-tracker-models`, which compiles the very same files, they are loom's.
//!
//! A file that uses this module takes its atomics, orderings and fences from here, and synchronizes
//! threads by nothing else: loom does not see anything else.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
