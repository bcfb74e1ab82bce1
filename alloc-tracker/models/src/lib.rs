//! Models of the recorder's two lock-free protocols: thread rings and paired commits.
//!
//! The tests compile the protocols' own files out of `alloc-tracker/src`, with loom's atomics in
//! place of the standard library's, and run them in every interleaving of a few threads and with
//! every value that a load may see. Each claim has a counterpart that leaves a step of the protocol
//! out and must fail: so the models are known to see what they look for.
//!
//! What is not modelled: the clock's own order (a shared counter stands in for it), `membarrier` (a
//! fence on either side stands in for it, which proves that much less), and sleeping.
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
