//! One recording: the one ordered stream of records, into which the thread rings are drained.

mod draining;
mod merge;
mod pace;
mod ring_state;
mod stream;

pub(super) use stream::{Stream, Tick, Turned};
