//! From events to the dump. In: events with their walks, from any thread. Out: records in the sink's frames.
//!
//! A thread timestamps its events (`event`, `line`) and stores them in a ring of its own, without waiting for any other
//! (`writer`). Now and then somebody drains all rings into the one ordered stream (`stream`, `merge`): a helper thread
//! (`helper`), or whichever thread finds its ring full. `session` begins and ends recordings, `current` is the one that goes on. A failure of ours ends the recording with one line on stderr and never
//! reaches the host.

mod current;
mod drain;
mod drain_thread;
mod event;
mod line;
mod samples;
mod session;
mod thread_recorder;
mod usage;

pub(crate) use current::{drain_nodes, lose, module_changed, thread_ends};
pub(crate) use event::{Begun, Event, event, realloc_begins, realloc_failed, settle, walk};
pub(crate) use line::{enter, leave, line_now, mark, reach};
pub(crate) use session::{finish, left_behind_by_fork, start};
pub(crate) use thread_recorder::Enrolment;
