//! Reads the dumps of alloc-tracker. One way through: [`load`] a dump into a [`profile`], name its [`stacks`] with
//! [`symbolize`], [`analyze`], [`render`]. Analyses are pure functions over a loaded profile, renderers are pure
//! functions over an analysis, and nothing below [`command`] prints.
#![forbid(unsafe_code)]

pub mod analyze;
pub mod cli;
pub mod command;
pub mod config;
pub mod dumps;
mod io_error;
pub mod load;
pub mod names;
pub mod pattern;
pub mod profile;
pub mod render;
pub mod source;
pub mod units;
