//! The functions and types that users call: the allocator, the profiler guard, the counts, the
//! probes of `#[profile]`. In: the program's calls. Out: calls of the hook and the recorder; no
//! policy of their own.

pub(crate) mod allocator;
pub(crate) mod budget;
mod budget_report;
mod harness;
pub(crate) mod installation;
pub(crate) mod leak_check;
mod leak_report;
pub(crate) mod measure;
pub(crate) mod probe;
pub(crate) mod profiler;
pub(crate) mod rerun;
pub(crate) mod scope;
mod site;
pub(crate) mod snapshot;
pub(crate) mod stats;
