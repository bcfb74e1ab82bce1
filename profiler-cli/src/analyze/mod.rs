//! Analyses: pure functions from a loaded profile and its named stacks to what a renderer shows.

mod annotated;
pub mod canonical_name;
pub mod column;
pub mod filter;
pub mod flame;
mod innermost;
pub mod leaks;
pub mod lines;
mod shown;
pub mod site;
pub mod summary;
pub mod timeline;
