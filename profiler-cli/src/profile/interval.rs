//! The part of a recording that a profile counts. Plain values.

/// An interval of a recording: the events after one moment, up to another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// The moment after which events count, as the user named it; `None` for the start of the
    /// recording.
    pub from: Option<String>,
    /// The moment of the last event that counts, as the user named it.
    pub to: String,
    /// When the interval begins, in microseconds since time zero.
    pub from_us: u64,
    /// When the interval ends, in microseconds since time zero.
    pub to_us: u64,
    /// The live heap of the process when the interval begins.
    pub heap_before: LiveHeap,
    /// The live heap of the process when the interval ends.
    pub heap_after: LiveHeap,
    /// Whether "live" means born in the interval and live at the end of the recording.
    pub still_live: bool,
}

/// The live blocks of the process, or of a group of stacks or threads, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveHeap {
    /// Bytes of the live blocks.
    pub bytes: u64,
    /// Number of the live blocks.
    pub blocks: u64,
}
