//! The state of each thread, and whether the thread is inside the hook at the moment. In: a thread.
//! Out: access to its state, for one caller at a time. The module is generic over the payload of a
//! state, which the recorder defines: it knows nothing of recordings, walks or probes.
//!
//! A thread finds its state through a `const`-initialised thread-local without a destructor. So the
//! state is there before `main`, in destructors of thread-locals, and after the thread has begun to
//! end. The states live in mapped memory that is never unmapped. A thread that ends hands its state
//! to the next thread, shared part included, so the sum over all states is always the sum over all
//! threads that ever were.
//!
//! ```text
//! thread-local CURRENT     the thread's state
//!   null                   none yet: the first event registers the thread
//!   REGISTERING            a signal handler has interrupted the registration:
//!                          the handler's event is not recorded
//!   a state                the thread's own
//!   ENDED                  none any more: the orphan state serves, under a lock
//! ```
//!
//! # The end of a thread
//! The C library runs the destructors of thread-specific values in up to four rounds, as long as
//! there are values. Destructors of other keys may allocate, so the state must stay as long as it
//! can, and must be handed on before the rounds are over:
//!
//! ```text
//! round 1   our destructor sets its value again: "call me in the next round"    own state
//! round 2   sets its value again                                                own state
//! round 3   ends the payload, hands the state on, CURRENT = ENDED               from here on:
//! round 4   our destructor is not called any more                               orphan state
//! ```
//!
//! A thread whose first event comes from a destructor in round 1 registers there; our destructor
//! then runs in rounds 2, 3 and 4, and the third of them hands the state on.
//!
//! Never allocates through the global allocator, never panics. No thread waits here for another
//! one, which in a forked child might be gone; the orphan state's lock is tried for a limited time.

mod end_key;

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, compiler_fence};

use end_key::EndKey;

use crate::base::sys::{ErrnoGuard, FutexLock, Mapping};

/// What the recorder defines for this module: the two parts of a state and the events of its life.
///
/// # Safety
/// At most one type in a process may implement this: the thread-local that leads to a thread's
/// state has no type parameter.
pub(crate) unsafe trait Payload: Sized + 'static {
    /// The part that only the thread itself touches.
    type Own;
    /// The part that every thread may read.
    type Shared: Sync;

    /// The initial own part of a thread.
    const NEW_OWN: Self::Own;
    /// The initial shared part of a state. A state that is handed on keeps its shared part.
    const NEW_SHARED: Self::Shared;

    /// Returns the states of all threads.
    fn threads() -> &'static Threads<Self>;

    /// Called when the orphan state is about to serve another thread than before.
    fn lend_to_another_thread(own: &mut Self::Own);

    /// Called when the thread ends. Afterwards its own part is replaced by
    /// [`NEW_OWN`](Payload::NEW_OWN).
    fn thread_ends(own: &mut Self::Own);
}

/// The states of all threads.
pub(crate) struct Threads<P: Payload> {
    /// All states, newest first.
    states: AtomicPtr<ThreadState<P>>,
    newest_chunk: AtomicPtr<Chunk<P>>,
    /// States that no thread uses, as a list. PERF: so a new thread does not look at the states of
    /// all others.
    free_list: FutexLock<FreeList<P>>,
    /// How many states are free and not in that list, because another thread had its lock.
    free_states: AtomicUsize,
    /// Serves threads whose own state has been handed on already: events in the very last
    /// destructors.
    orphan: ThreadState<P>,
    orphan_lock: FutexLock<()>,
    /// The thread-specific key whose destructor runs when a thread ends.
    end_key: EndKey,
}

/// The state of a thread. PERF: the fields that every event needs come first.
#[repr(C, align(128))]
pub(crate) struct ThreadState<P: Payload> {
    busy: AtomicBool,
    in_use: AtomicBool,
    own: UnsafeCell<OwnPart<P>>,
    shared: P::Shared,
    next: *mut ThreadState<P>,
    /// The next state in the list of free ones.
    next_free: AtomicPtr<ThreadState<P>>,
}

/// The first of the states that no thread uses; null if there is none.
struct FreeList<P: Payload>(*mut ThreadState<P>);

// SAFETY: the pointer leads to a state, which is never unmapped and which all threads may share.
unsafe impl<P: Payload> Send for FreeList<P> {}

// SAFETY: `next` is written before the state is published. `own` is reached only through `Busy`, by
// the thread that uses the state, or under the lock of the orphan state. Everything else may be
// shared.
unsafe impl<P: Payload> Sync for ThreadState<P> {}

#[repr(C)]
struct OwnPart<P: Payload> {
    payload: P::Own,
    /// How often the C library has called `thread_ends` for this thread.
    end_rounds: u32,
}

/// Proof that the calling thread is in the hook, and has entered it once. Gives access to the
/// thread's state.
pub(crate) struct Busy<'a, P: Payload>(&'a ThreadState<P>);

impl<P: Payload> Busy<'_, P> {
    /// Returns the part that every thread may read.
    pub(crate) fn shared(&self) -> &P::Shared {
        &self.0.shared
    }

    /// Returns the part that only this thread touches.
    #[inline(always)]
    pub(crate) fn own(&mut self) -> &mut P::Own {
        &mut self.own_part().payload
    }

    #[inline(always)]
    fn own_part(&mut self) -> &mut OwnPart<P> {
        // SAFETY: while `self` lives, the `busy` flag (or the lock of the orphan state) keeps all
        // other code from this state. `self` is borrowed for as long as the reference lives.
        unsafe { &mut *self.0.own.get() }
    }
}

impl<P: Payload> Threads<P> {
    pub(crate) const fn new() -> Threads<P> {
        Threads {
            states: AtomicPtr::new(ptr::null_mut()),
            newest_chunk: AtomicPtr::new(ptr::null_mut()),
            free_list: FutexLock::new(FreeList(ptr::null_mut())),
            free_states: AtomicUsize::new(0),
            orphan: ThreadState::new(ptr::null_mut()),
            orphan_lock: FutexLock::new(()),
            end_key: EndKey::new(),
        }
    }

    /// Runs `f` with the calling thread's state. Returns `None` if the thread is inside the hook
    /// already: the caller is a signal handler that allocates.
    #[inline(always)]
    pub(crate) fn enter_hook<R>(&'static self, f: impl FnOnce(Busy<'_, P>) -> R) -> Option<R> {
        if let Some(thread) = self.own() {
            return thread.enter_hook(f);
        }
        let thread = self.register_or_borrow(current_state())?;
        // SAFETY: the state that `register` gave to this thread, or the orphan state.
        let thread = unsafe { &*thread };
        let result = thread.enter_hook(f);
        if ptr::eq(thread, &self.orphan) {
            self.return_orphan();
        }
        result
    }

    /// Returns the calling thread's state; `None` before the thread is registered and after it has
    /// handed its state on.
    #[inline(always)]
    pub(crate) fn own(&self) -> Option<&'static ThreadState<P>> {
        let thread = current_state::<P>();
        // SAFETY: neither null nor a marker, so the state that `register` gave to this thread.
        (thread.addr() > LAST_MARKER.addr()).then(|| unsafe { &*thread })
    }

    /// Returns the state of a thread that has none yet, or the orphan state, locked, for a thread
    /// that has none any more.
    #[cold]
    #[inline(never)]
    fn register_or_borrow(&'static self, thread: *const ThreadState<P>) -> Option<*const ThreadState<P>> {
        if thread.addr() > LAST_MARKER.addr() {
            // A signal handler's event has registered the thread meanwhile.
            return Some(thread);
        }
        if thread.addr() == REGISTERING.addr() {
            return None;
        }
        if thread.addr() != ENDED.addr() {
            return self.register();
        }
        for _ in 0..1_000_000 {
            if let Some(guard) = self.orphan_lock.try_lock() {
                std::mem::forget(guard);
                // SAFETY: this thread has the lock, so no other code uses this state.
                let own = unsafe { &mut *self.orphan.own.get() };
                P::lend_to_another_thread(&mut own.payload);
                return Some(&self.orphan);
            }
            std::hint::spin_loop();
        }
        // The caller is most likely a signal handler, and the code that it has interrupted has the
        // lock.
        None
    }

    #[cold]
    #[inline(never)]
    fn return_orphan(&self) {
        // SAFETY: `register_or_borrow` has locked it for this thread, and no thread sleeps on this
        // lock.
        unsafe { self.orphan_lock.force_unlock() };
    }

    /// Whether the calling thread is inside the hook, that is, whether the caller is a signal
    /// handler that has interrupted it there.
    pub(crate) fn is_busy(&self) -> bool {
        let thread = current_state::<P>();
        if thread.is_null() || thread.addr() == ENDED.addr() {
            return false;
        }
        // SAFETY: neither null nor a marker, as in `own`.
        thread.addr() == REGISTERING.addr() || unsafe { &*thread }.busy.load(Ordering::Relaxed)
    }

    /// Whether no thread is inside the hook, the calling one included. A thread that enters the
    /// hook after this call sees everything that was stored before the call, provided that the
    /// caller has synchronised all threads.
    pub(crate) fn all_are_outside(&'static self) -> bool {
        let Some(_orphan) = self.orphan_lock.try_lock() else { return false };
        self.all().all(|thread| !thread.busy.load(Ordering::Acquire))
    }

    /// Marks all states as outside of the hook, in a forked child: the other threads do not exist
    /// there, and would never leave the hook.
    pub(crate) fn reset_after_fork(&'static self) {
        // SAFETY: the calling thread is the only one, and it is not in the hook.
        unsafe { self.orphan_lock.force_unlock() };
        // SAFETY: as above. The list is whole: it changes by one store.
        unsafe { self.free_list.force_unlock() };
        for thread in self.all() {
            thread.busy.store(false, Ordering::Relaxed);
        }
    }

    /// Returns the own parts of all states, in a copy of the process.
    ///
    /// # Safety
    /// The calling thread must be the only one of its process, and not in the hook. An own part
    /// that a thread was just writing when the copy was made is in no defined state: the caller may
    /// read plain numbers, and must check them.
    pub(crate) unsafe fn own_parts_in_copy(&'static self) -> impl Iterator<Item = &'static P::Own> {
        // SAFETY: no other thread exists that could write there.
        self.all().map(|state| unsafe { &(*state.own.get()).payload })
    }

    /// Returns the states of all threads, of those that have ended and of the orphan state.
    pub(crate) fn all(&'static self) -> impl Iterator<Item = &'static ThreadState<P>> {
        let mut next = self.states.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: states are published whole and never unmapped.
            let thread = unsafe { next.as_ref() }?;
            next = thread.next;
            Some(thread)
        })
        .chain(std::iter::once(&self.orphan))
    }

    /// Stops watching for the end of threads: the code of this crate may be about to be unmapped.
    pub(crate) fn stop_watching(&self) {
        self.end_key.delete();
    }

    #[cold]
    fn register(&'static self) -> Option<*const ThreadState<P>> {
        let _errno = ErrnoGuard::new();
        CURRENT.try_with(|current| current.set(REGISTERING)).ok()?;
        let thread = self.take_free_state().or_else(|| self.new_state());
        let current = thread.map_or(ptr::null(), ptr::from_ref);
        if !current.is_null() {
            self.end_key.watch(current.cast(), thread_ends::<P>);
        }
        CURRENT.try_with(|cell| cell.set(current.cast())).ok()?;
        thread.map(ptr::from_ref)
    }

    fn take_free_state(&'static self) -> Option<&'static ThreadState<P>> {
        if let Some(mut list) = self.free_list.try_lock()
            // SAFETY: states are never unmapped.
            && let Some(first) = unsafe { list.0.as_ref() }
        {
            list.0 = first.next_free.load(Ordering::Relaxed);
            return Some(first);
        }
        if self.free_states.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let taken = self.all().find(|thread| {
            !ptr::eq(*thread, &self.orphan)
                && thread.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        self.free_states.fetch_sub(1, Ordering::Relaxed);
        Some(taken)
    }

    /// Hands the state of a thread that has ended to the next thread.
    fn put_free_state(&'static self, state: &'static ThreadState<P>) {
        if let Some(mut list) = self.free_list.try_lock() {
            state.next_free.store(list.0, Ordering::Relaxed);
            list.0 = ptr::from_ref(state).cast_mut();
        } else {
            state.in_use.store(false, Ordering::Release);
            self.free_states.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a new state and publishes it.
    fn new_state(&self) -> Option<&'static ThreadState<P>> {
        let slot = self.slot_for_state()?;
        let mut head = self.states.load(Ordering::Relaxed);
        loop {
            // SAFETY: the slot belongs to this thread until the state is published; after that no
            // thread writes it as a whole.
            unsafe { slot.write(ThreadState::new(head)) };
            match self.states.compare_exchange_weak(head, slot, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: written just now and never unmapped.
                Ok(_) => return Some(unsafe { &*slot }),
                Err(newer) => head = newer,
            }
        }
    }

    /// Returns memory for a state.
    ///
    /// NOTE: no thread waits here for another one, which in a forked child may be gone in the
    /// middle of it. If several threads map a chunk at the same time, one of them publishes its
    /// chunk and the others unmap theirs, untouched.
    fn slot_for_state(&self) -> Option<*mut ThreadState<P>> {
        loop {
            let newest = self.newest_chunk.load(Ordering::Acquire);
            // SAFETY: chunks are zeroed when they are published, which is a valid value, and never
            // unmapped.
            let slot = unsafe { newest.as_ref() }
                .and_then(|chunk| chunk.slots.get(chunk.requested.fetch_add(1, Ordering::Relaxed)));
            if let Some(slot) = slot {
                return Some(slot.get().cast());
            }
            let memory = Mapping::anonymous(size_of::<Chunk<P>>()).ok()?;
            let chunk = memory.start().cast();
            if self.newest_chunk.compare_exchange(newest, chunk, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                memory.leak();
            }
        }
    }
}

impl<P: Payload> ThreadState<P> {
    const fn new(next: *mut ThreadState<P>) -> ThreadState<P> {
        ThreadState {
            busy: AtomicBool::new(false),
            in_use: AtomicBool::new(true),
            own: UnsafeCell::new(OwnPart::new()),
            shared: P::NEW_SHARED,
            next,
            next_free: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns the part that every thread may read.
    pub(crate) fn shared(&self) -> &P::Shared {
        &self.shared
    }

    /// Runs `f` with this state, which is the calling thread's. Returns `None` if the thread is
    /// inside the hook already.
    #[inline(always)]
    pub(crate) fn enter_hook<R>(&self, f: impl FnOnce(Busy<'_, P>) -> R) -> Option<R> {
        // PERF: not an exchange, which would cost as much as the timestamp. Only this thread sets
        // the flag, and a signal handler between the load and the store leaves the flag as it was.
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        // A signal handler of this thread must see the flag before anything that follows.
        compiler_fence(Ordering::SeqCst);
        let result = f(Busy(self));
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        Some(result)
    }
}

impl<P: Payload> OwnPart<P> {
    const fn new() -> OwnPart<P> {
        OwnPart { payload: P::NEW_OWN, end_rounds: 0 }
    }
}

/// Slots for states. Each is written by the thread that gets it.
#[repr(C)]
struct Chunk<P: Payload> {
    /// How many slots have been asked for. It exceeds the number of slots once the chunk is full.
    requested: AtomicUsize,
    slots: [UnsafeCell<MaybeUninit<ThreadState<P>>>; 16],
}

/// Returns the address of a thread-local of the calling thread; `None` if the thread has none any
/// more.
pub(crate) fn address_of_local() -> Option<u64> {
    CURRENT.try_with(|current| ptr::from_ref(current).addr() as u64).ok()
}

#[inline(always)]
fn current_state<P: Payload>() -> *const ThreadState<P> {
    CURRENT.try_with(Cell::get).unwrap_or(ENDED).cast()
}

thread_local! {
    /// The thread's state, or a marker. The pointer has no type: there is one kind of payload, see
    /// [`Payload`].
    static CURRENT: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

const REGISTERING: *const () = ptr::without_provenance(1);
const ENDED: *const () = ptr::without_provenance(2);
const LAST_MARKER: *const () = ENDED;

/// The call of `thread_ends`, counted from 1, at which a thread hands its state on: see the head of
/// this module.
///
/// A thread whose first event comes from a destructor in the first of the four rounds has only the
/// other three to hand its state on.
const ROUNDS_WITH_OWN_STATE: u32 = 3;

/// Notes a round of the thread's end, and hands the state on in the last. The C library calls this
/// function when a thread ends, after the destructors of thread-locals.
unsafe extern "C" fn thread_ends<P: Payload>(thread: *mut libc::c_void) {
    let threads = P::threads();
    let thread = thread.cast_const().cast::<ThreadState<P>>();
    // SAFETY: the value was set by `EndKey::watch` on this very thread, and states are never
    // unmapped.
    let state = unsafe { &*thread };
    let is_last_round = threads.enter_hook(|mut busy| {
        let own = busy.own_part();
        own.end_rounds += 1;
        own.end_rounds >= ROUNDS_WITH_OWN_STATE
    });
    if is_last_round != Some(true) {
        threads.end_key.watch(thread.cast(), thread_ends::<P>);
        return;
    }
    threads.enter_hook(|mut busy| {
        let own = busy.own_part();
        P::thread_ends(&mut own.payload);
        *own = OwnPart::new();
    });
    if CURRENT.try_with(|current| current.set(ENDED)).is_ok() {
        threads.put_free_state(state);
    }
}
