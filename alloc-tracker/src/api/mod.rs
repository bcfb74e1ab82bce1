//! What users call: the allocator, the profiler guard, the counts, the probes of `#[profile]`.

pub(crate) mod allocator;
pub(crate) mod probe;
pub(crate) mod profiler;
pub(crate) mod stats;
