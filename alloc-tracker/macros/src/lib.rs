//! The home of alloc-tracker's attribute macros.
//!
//! It has none yet: line tables come from recorded stacks, without annotations (`profiler-cli lines`). The package
//! exists so that the workspace, its lints and its dependency rules cover it from the first day.
#![forbid(unsafe_code)]
