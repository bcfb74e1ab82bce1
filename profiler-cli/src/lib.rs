//! Reads the dumps of alloc-tracker.
//!
//! Each command takes the same steps: [`load`] a dump into a [`profile`], give [`names`] to its
//! stacks, [`analyze`], [`render`]. Analyses are pure functions over a loaded profile. Renderers
//! are pure functions over an analysis. Nothing below [`command`] prints.
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
