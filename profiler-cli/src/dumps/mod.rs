//! Every operation on dump files: open, follow, close, reserve, find, compress, and their sidecars,
//! and the folder that they go into by default.
//!
//! This module knows files, not profiles: `load` builds a profile on top of it, and nothing here
//! imports `load` or `command`. Only this module renames, truncates or deletes dumps and sidecars.

pub(crate) mod cargo_config;
pub mod close;
pub mod compress;
pub mod find;
pub mod follow;
pub mod open;
pub mod place;
pub mod reserve;
pub(crate) mod sidecar;
pub mod snapshot;
pub(crate) mod writing;

/// Called from time to time with the number of bytes read so far, and the number of all bytes.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);
