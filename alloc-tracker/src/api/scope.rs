//! Scopes: which blocks a part of a program allocates, and which of them are live. In: beginnings
//! and ends of scopes, entries of threads. Out: counts of live blocks. Not part of the hook.

use std::fmt;
use std::marker::PhantomData;

use super::installation::require_complete;
use crate::recorder;
use crate::scope::{self, EntryNumber, Kept, LiveInScope, MAX_DEPTH, MAX_SCOPES, NoScope, ScopeId};

/// Follows the blocks that threads allocate while they are inside of the scope, wherever these
/// blocks are freed later.
///
/// A thread is inside of a scope from [`enter`](Scope::enter) until the guard is dropped. Other
/// threads enter through a [`ScopeHandle`], as they enter a span of `tracing`. Each scope counts
/// for itself, so tests that run side by side do not disturb each other.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// use alloc_tracker::{LiveBlocks, Scope};
///
/// let scope = Scope::new();
/// let entered = scope.enter();
/// let handle = scope.handle();
/// let worker = std::thread::spawn(move || {
///     let _entered = handle.enter();
///     vec![0u8; 1000]
/// });
/// let kept = worker.join().unwrap();
/// drop(entered);
/// let other = vec![0u8; 200]; // outside of the scope
/// assert_eq!(scope.live(), LiveBlocks { blocks: 1, bytes: 1000 });
/// drop(kept);
/// assert_eq!(scope.live().blocks, 0);
/// # drop(other);
/// ```
///
/// # What belongs to a scope
/// A block belongs to the scope that is the innermost one of the allocating thread at that moment.
/// It counts for that scope and for all scopes around it, also after the inner scope has ended. A
/// scope is inside of the one that its creator was inside of. A thread is not inside of a scope
/// that has ended, also if its guard is still there.
///
/// A `realloc` does not change which scope a block belongs to, whichever thread makes it. So a
/// block that is older than the scope stays an older block when it grows inside.
///
/// Not followed are threads that did not enter the scope (a thread that is spawned inside does not
/// enter by itself), blocks that C code allocates with `malloc`, memory that is mapped directly,
/// and events of signal handlers that have interrupted the allocator. A forked child has no scopes.
///
/// # Cost
/// With no scope alive, none. While there is one, each allocation of a thread inside of a scope
/// costs a walk over at most 64 frames, and within a budget so does each reallocation. Each free or
/// reallocation of any thread costs a look at a table. That holds for the events of a child that is
/// forked meanwhile, too.
///
/// The table is at most half full, and each of its 64 parts grows by doubling. So when most blocks
/// of scopes are live, it has 48 to 96 bytes for each of them, but at least 4 KiB for each part. It
/// does not shrink before the last scope ends, and then to at most 256 KiB. The stacks, of which
/// there is one for many blocks, are kept until the process ends.
#[must_use = "the scope ends when it is dropped"]
pub struct Scope {
    id: ScopeId,
}

/// What is live of a scope. Bytes are sizes that the program asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveBlocks {
    /// Blocks that were allocated inside of the scope and are not freed.
    pub blocks: u64,
    /// The sizes that they have now.
    pub bytes: u64,
}

impl Scope {
    /// Begins a scope. The calling thread is not inside of it before it [enters](Scope::enter).
    ///
    /// # Panics
    /// If [`AllocTracker`](crate::AllocTracker) is not the global allocator of all code in this
    /// program, as [`stats`](crate::stats) does. If there is no memory for the scope, or if 65,536
    /// scopes are in use.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "where a scope begins is not a default")]
    pub fn new() -> Scope {
        Scope::keeping(Kept::Figures)
    }

    /// Begins a scope that keeps this.
    #[track_caller]
    pub(super) fn keeping(kept: Kept) -> Scope {
        require_complete();
        recorder::prepare_scopes();
        match recorder::with_scopes(|scopes| scope::begin(scopes, kept)).unwrap_or(Err(NoScope::InHook)) {
            Ok(id) => Scope { id },
            Err(NoScope::Memory(errno)) => {
                panic!("alloc-tracker has no memory to follow a scope (error {})", errno.0)
            }
            Err(NoScope::TooMany) => panic!("more than {MAX_SCOPES} scopes of alloc-tracker are in use"),
            Err(NoScope::InHook) => {
                panic!("a signal handler that has interrupted the allocator cannot begin a scope")
            }
        }
    }

    /// Returns a handle by which other threads enter the scope.
    pub fn handle(&self) -> ScopeHandle {
        ScopeHandle { id: Some(self.id) }
    }

    /// Makes the calling thread enter the scope. It is inside until the guard is dropped.
    ///
    /// # Panics
    /// If the thread is inside of 32 scopes already.
    #[track_caller]
    pub fn enter(&self) -> EnteredScope {
        self.handle().enter()
    }

    /// Returns what was allocated inside of the scope and is live now.
    pub fn live(&self) -> LiveBlocks {
        let LiveInScope { blocks, bytes, .. } = self.all_live();
        LiveBlocks { blocks, bytes }
    }

    pub(super) fn all_live(&self) -> LiveInScope {
        scope::live(self.id)
    }

    pub(super) fn id(&self) -> ScopeId {
        self.id
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // A signal handler that has interrupted the hook cannot end a scope, so the scope stays.
        recorder::with_scopes(|_| scope::end(self.id));
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// A way for any thread into a [`Scope`]. It may outlive the scope: entering then does nothing.
///
/// [`ScopeHandle::current`] gets it where the scope itself is out of reach, as inside of
/// [`assert_no_leaks`](crate::assert_no_leaks). A task of an async program enters at each poll, and
/// leaves before the poll returns: between two polls its thread runs other tasks.
#[derive(Clone, Copy, Debug)]
pub struct ScopeHandle {
    id: Option<ScopeId>,
}

impl ScopeHandle {
    /// Returns a handle of the innermost scope that the calling thread is inside of and that has
    /// not ended. Outside of all scopes, the handle is one that enters nothing.
    ///
    /// ```
    /// # #[global_allocator]
    /// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
    /// /// Runs `work` on another thread, inside of the caller's scope, if there is one.
    /// fn in_background(work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    ///     let scope = alloc_tracker::ScopeHandle::current();
    ///     std::thread::spawn(move || {
    ///         let _entered = scope.enter();
    ///         work();
    ///     })
    /// }
    ///
    /// alloc_tracker::assert_no_leaks(|| {
    ///     in_background(|| drop(vec![1, 2, 3])).join().unwrap();
    /// });
    /// ```
    pub fn current() -> ScopeHandle {
        ScopeHandle { id: recorder::with_scopes(scope::current).flatten() }
    }

    /// Makes the calling thread enter the scope, unless that has ended. The thread is inside until
    /// the guard is dropped.
    ///
    /// # Panics
    /// If the thread is inside of 32 scopes already.
    #[track_caller]
    pub fn enter(&self) -> EnteredScope {
        let entered = self
            .id
            .and_then(|id| recorder::with_scopes(|scopes| scope::enter(scopes, id)))
            .unwrap_or(Ok(None));
        match entered {
            Ok(entry) => EnteredScope { entry, _this_thread: PhantomData },
            Err(_) => panic!("this thread is inside of {MAX_DEPTH} scopes of alloc-tracker already"),
        }
    }
}

/// Keeps a thread inside of a [`Scope`]. It belongs to its thread, so it cannot be sent to another.
#[must_use = "the thread leaves the scope when the guard is dropped"]
#[derive(Debug)]
pub struct EnteredScope {
    entry: Option<EntryNumber>,
    _this_thread: PhantomData<*const ()>,
}

impl EnteredScope {
    /// Makes the calling thread be outside of all scopes until the guard is dropped.
    pub(super) fn outside() -> EnteredScope {
        let entry = recorder::with_scopes(scope::step_outside).flatten();
        EnteredScope { entry, _this_thread: PhantomData }
    }
}

impl Drop for EnteredScope {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            recorder::with_scopes(|scopes| scope::leave(scopes, entry));
        }
    }
}
