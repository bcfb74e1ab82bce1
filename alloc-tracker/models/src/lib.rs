//! Models of the recorder's two lock-free protocols: thread rings and paired commits.
//!
//! The tests compile the protocols' own files, from `alloc-tracker/src`, with loom's atomics in
//! place of the standard library's. They run them in all interleavings of a few threads (thread
//! rings: those with at most three preemptions) and with every value that a load may see. For
//! nearly every claim a second test leaves out a step of the protocol and must fail, which shows
//! that the model can see such a fault. Only the hand-over of a ring has no second test.
//!
//! Three parts are not modelled: the clock's own order (a shared counter stands in for it),
//! `membarrier` (a fence on either side stands in for it, so nothing is proved about the system
//! call), and sleeping.
#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "../../src/base"]
mod base {
    pub(crate) mod primitive;
}

#[cfg(test)]
#[path = "../../src/output"]
mod output {
    pub(crate) mod commit_pair;
    pub(crate) mod ring_protocol;
}

#[cfg(test)]
mod commits;
#[cfg(test)]
mod rings;
