//! The state that the recorder keeps for each thread, as payload of the thread's state in `thread`.
//! In: a thread. Out: its part in the recording, its recorded walks, the activations that run on
//! it, its counters. Never allocates through the global allocator; only the end of a thread takes
//! the recorder's lock.

use super::activations::RunningActivations;
use super::counters::{Counters, Counts, REENTRANT};
use super::fork;
use super::thread_recorder::ThreadRecorder;
use crate::base::mode::{self, RECORD};
use crate::capture::StackWalker;
use crate::scope::ThreadScopes;
use crate::thread::{Busy, Payload, Threads};

/// The states of all threads of this process.
pub(crate) static THREADS: Threads<ThreadPayload> = Threads::new();

/// The payload of a thread's state, of which there is one kind in a process.
pub(crate) struct ThreadPayload;

/// The part that only the thread itself touches. PERF: the fields that every event needs come
/// first.
#[repr(C)]
pub(crate) struct ThreadLocal {
    pub(super) recorder: ThreadRecorder,
    pub(super) walker: StackWalker,
    pub(super) running: RunningActivations,
    scopes: ThreadScopes,
}

impl ThreadLocal {
    const fn new() -> ThreadLocal {
        ThreadLocal {
            recorder: ThreadRecorder::new(),
            walker: StackWalker::new(),
            running: RunningActivations::new(),
            scopes: ThreadScopes::new(),
        }
    }

    /// Returns the thread's scopes, and what walks its stacks.
    pub(crate) fn scopes(&mut self) -> (&mut ThreadScopes, &mut StackWalker) {
        (&mut self.scopes, &mut self.walker)
    }
}

// SAFETY: the only payload of this crate.
unsafe impl Payload for ThreadPayload {
    type Own = ThreadLocal;
    type Shared = Counters;

    const NEW_OWN: ThreadLocal = ThreadLocal::new();
    #[allow(clippy::declare_interior_mutable_const, reason = "every use is a set of counters of its own")]
    const NEW_SHARED: Counters = Counters::new();

    fn threads() -> &'static Threads<ThreadPayload> {
        &THREADS
    }

    fn lend_to_another_thread(own: &mut ThreadLocal) {
        // The walks of the previous thread were on a stack that may be unmapped.
        own.walker = StackWalker::new();
        own.scopes.end();
    }

    fn thread_ends(own: &mut ThreadLocal) {
        own.scopes.end();
        if mode::current() & RECORD != 0 && fork::is_recorders_process() {
            own.recorder.end();
        }
    }
}

/// Returns the sum of the counts of all threads, including those that have ended.
pub(crate) fn counts_of_all_threads() -> Counts {
    THREADS
        .all()
        .fold(REENTRANT.snapshot(), |sum, thread| sum.zip(&thread.shared().snapshot(), u64::wrapping_add))
}

/// Returns the counts of the calling thread; `None` in a signal handler that has interrupted the
/// hook.
pub(crate) fn counts_of_this_thread() -> Option<Counts> {
    THREADS.enter_hook(|busy| busy.shared().snapshot())
}

/// Calls `f` with the counters of the calling thread; `None` in a signal handler that has
/// interrupted the hook.
pub(crate) fn with_counters<R>(f: impl FnOnce(&Counters) -> R) -> Option<R> {
    THREADS.enter_hook(|busy| f(busy.shared()))
}

/// Calls `f` with the scopes of the calling thread, which is in the hook meanwhile; `None` in a
/// signal handler that has interrupted the hook.
pub(crate) fn with_scopes<R>(f: impl FnOnce(&mut ThreadScopes) -> R) -> Option<R> {
    THREADS.enter_hook(|mut busy| f(busy.own().scopes().0))
}

/// Proof that the calling thread is in the hook. Gives access to the state that the recorder keeps
/// for it.
pub(crate) type BusyThread<'a> = Busy<'a, ThreadPayload>;
