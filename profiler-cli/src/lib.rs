//! Reads the dumps of alloc-tracker.
//!
//! Every command that reports on a dump takes the same steps: [`load`] the dump into a [`profile`],
//! give [`names`] to its stacks, [`analyze`] them, [`render`] the result. Analyses are pure
//! functions over a loaded profile. Renderers are pure functions over an analysis. Only [`command`]
//! prints.
#![forbid(unsafe_code)]

pub mod analyze;
pub mod command;
pub mod dumps;
mod io_error;
pub mod load;
pub mod names;
pub mod pattern;
pub mod profile;
pub mod render;
pub mod source;
pub mod units;
