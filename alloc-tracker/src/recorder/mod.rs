//! Recordings: the way of events into the dump. In: events with their walks, probes and marks, from
//! any thread. Out: records in the sink's dump frames.
//!
//! A thread timestamps its entries and stores them in a ring of its own, without waiting for any
//! other thread. The drain process, or a thread whose ring is full, drains all rings into one
//! ordered stream. A failure of the recorder ends the recording with one line on stderr and never
//! reaches the host.
//!
//! A module imports only modules of its own row and of lower rows. The one exception: `probes` asks
//! `session` whether the process was forked.
//!
//! | module | idea |
//! | --- | --- |
//! | `startup` | what the first event of a process starts |
//! | `session` | how a recording begins and ends; forked children |
//! | `installation` | whether the tracker is the global allocator, and of which code |
//! | `heap_event`, `probes`, `usage` | what the hook and the probes record |
//! | `thread_state` | what the recorder keeps for each thread |
//! | `thread_recorder`, `ring_writer` | a thread's part in the recording, its ring |
//! | `drain_process` | the process that drains the rings |
//! | `snapshot`, `copy_report` | copies of the process for snapshots, what a copy tells of itself |
//! | `call_tree`, `module_changes` | new nodes and changes of modules on their way into the recording |
//! | `current` | the recording that runs, and how it fails |
//! | `drainer` | the host's side of the drain process: asking it for work |
//! | `host` | the drain process's side: whether its host still runs the program |
//! | `drain` | the ordered stream of records |
//! | `samples`, `memory_limits` | the state of the process, the limits of its memory |
//! | `layouts` | the mappings of the process |
//! | `activations`, `functions` | annotated functions |
//! | `counters`, `lost`, `failure`, `fork` | counts, lost events, errors, which process records |

mod activations;
mod call_tree;
mod copy_report;
mod counters;
mod current;
mod drain;
mod drain_process;
mod drainer;
mod failure;
mod fork;
mod functions;
mod heap_event;
mod host;
mod installation;
mod layouts;
mod lost;
mod memory_limits;
mod module_changes;
mod probes;
mod ring_writer;
mod samples;
mod session;
mod snapshot;
mod startup;
mod thread_recorder;
mod thread_state;
mod usage;

pub(crate) use activations::ActivationId;
pub(crate) use counters::{
    Counts, OuterPeak, REENTRANT, begin_window, end_window, is_counted_from_first_event, live_bytes,
    peak_bytes,
};
pub(crate) use current::print_left_message;
pub(crate) use functions::AnnotatedFunction;
pub(crate) use heap_event::{
    BeginEntry, HeapEvent, ReallocBegin, order_after_reads, record_event, record_realloc_begin,
    record_realloc_failed, walk,
};
pub(crate) use installation::{
    TrialThread, find_installation, is_installation_complete, note_first_event, take_trial,
};
pub(crate) use lost::count_lost;
pub(crate) use probes::{enter_function, leave_function, line_now, mark, reach_line};
pub(crate) use session::{finish, is_left_behind_by_fork, start};
pub(crate) use snapshot::{SnapshotFailure, take as take_snapshot};
pub(crate) use startup::{decide, prepare_scopes, start_counting};
pub(crate) use thread_state::{
    BusyThread, THREADS, counts_of_all_threads, counts_of_this_thread, with_counters, with_scopes,
};
