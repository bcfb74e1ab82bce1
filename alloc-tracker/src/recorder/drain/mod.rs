//! One recording: its ordered stream of records, into which the thread rings are drained. In:
//! thread rings, changes of modules, definitions, samples. Out: records in the sink's dump frames.
//! Used under the recorder's lock; never allocates, never calls the rest of the recorder.
//!
//! | module | idea |
//! | --- | --- |
//! | `stream` | the records of a recording, in dump frames |
//! | `about` | what the recording says about itself |
//! | `commits` | what holds if the process is killed now |
//! | `draining` | the entries of all rings, in order of their timestamps |
//! | `merge` | which ring has the oldest entry |
//! | `ring_state` | what the drainer knows of each ring |
//! | `pace` | how soon the rings are to be drained again |

mod about;
mod commits;
mod cut;
mod draining;
mod merge;
mod pace;
mod ring_state;
mod stream;
#[cfg(test)]
mod tests;

pub(super) use stream::{EnterError, EnteredRing, Stream, Tick};
