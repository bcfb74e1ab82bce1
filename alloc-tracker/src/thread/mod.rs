//! What belongs to one thread: its counters, its stack buffers, and whether it is just inside the hook.
//!
//! The state of a thread is found through a `const`-initialised thread-local without a destructor, so it is there
//! before `main`, in destructors of thread-locals, and after a thread has begun to end. The states themselves
//! live in mapped memory that is never unmapped: a thread that ends hands its state to the next one, counters and
//! all, so that the sum over all states is always the sum over all threads that ever were.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use crate::api::probe::Activations;
use crate::api::stats::Counters;
use crate::base::sys::{ErrnoGuard, FutexLock, Mapping};
use crate::capture::StackWalker;
use crate::recorder::{self, Enrolment};

/// Runs `f` with the calling thread's state, unless the thread is already in here (a signal handler that allocates):
/// then `None`.
#[inline(always)]
pub(crate) fn with<R>(f: impl FnOnce(Busy<'_>) -> R) -> Option<R> {
    if let Some(thread) = own() {
        return thread.enter(f);
    }
    let thread = unusual(CURRENT.try_with(Cell::get).unwrap_or(ENDED))?;
    // SAFETY: a state that `register` gave to this thread, or the orphans'.
    let thread = unsafe { &*thread };
    let result = thread.enter(f);
    if ptr::eq(thread, &ORPHANS) {
        unlock_orphans();
    }
    result
}

/// The calling thread's state, if it has one already and still.
#[inline(always)]
pub(crate) fn own() -> Option<&'static Thread> {
    let thread = CURRENT.try_with(Cell::get).unwrap_or(ENDED);
    // SAFETY: neither null nor a marker, so it is a state that `register` gave to this thread.
    (thread.addr() > LAST_MARKER.addr()).then(|| unsafe { &*thread })
}

impl Thread {
    /// Runs `f` with this state, which is the calling thread's, unless the thread is already in here: then `None`.
    #[inline(always)]
    pub(crate) fn enter<R>(&self, f: impl FnOnce(Busy<'_>) -> R) -> Option<R> {
        // PERF: not an exchange, which would cost as much as the timestamp. Only this thread sets the mark, and a signal handler
        // between the two leaves it as it found it.
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        // A signal handler of this thread must see the mark before anything that follows.
        compiler_fence(Ordering::SeqCst);
        let result = f(Busy { counters: &self.counters, local: &self.local });
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        Some(result)
    }
}

/// The state of a thread that has none yet, or none any more: the orphans', with the lock on it.
#[cold]
#[inline(never)]
fn unusual(thread: *const Thread) -> Option<*const Thread> {
    if thread.addr() > LAST_MARKER.addr() {
        // A signal handler's event has registered the thread meanwhile.
        return Some(thread);
    }
    if thread == REGISTERING {
        return None;
    }
    if thread != ENDED {
        return register();
    }
    for _ in 0..1_000_000 {
        if let Some(guard) = ORPHANS_LOCK.try_lock() {
            std::mem::forget(guard);
            // SAFETY: the lock keeps every other way to this state shut.
            let local = unsafe { &mut *ORPHANS.local.get() };
            // What the thread before has walked was on a stack that may be gone.
            local.walker = StackWalker::new();
            return Some(&ORPHANS);
        }
        std::hint::spin_loop();
    }
    // The holder is likely the code that this very handler interrupted.
    None
}

#[cold]
#[inline(never)]
fn unlock_orphans() {
    // SAFETY: `unusual` has locked it for this thread, and nobody sleeps on this lock.
    unsafe { ORPHANS_LOCK.force_unlock() };
}

/// Where a thread-local of the calling thread is; 0 if that cannot be said any more.
pub(crate) fn address_of_local() -> u64 {
    CURRENT.try_with(|current| ptr::from_ref(current).addr() as u64).unwrap_or(0)
}

/// Whether the calling thread is inside the hook, that is, whether a signal handler has interrupted it there.
pub(crate) fn is_busy() -> bool {
    let thread = CURRENT.try_with(Cell::get).unwrap_or(ENDED);
    if thread.is_null() || thread == ENDED {
        return false;
    }
    // SAFETY: as in `with`.
    thread == REGISTERING || unsafe { &*thread }.busy.load(Ordering::Relaxed)
}

/// Whether no thread is inside the hook, the calling one included. One that enters it after this call sees everything that was
/// stored before it, provided that the caller has synchronised all threads.
pub(crate) fn all_are_outside() -> bool {
    let Some(_orphans) = ORPHANS_LOCK.try_lock() else { return false };
    all().all(|thread| !thread.busy.load(Ordering::Acquire))
}

/// In a forked child: the other threads are not there, and will not leave the hook.
pub(crate) fn forget_others() {
    // SAFETY: this is the only thread, and it is not in here.
    unsafe { ORPHANS_LOCK.force_unlock() };
    for thread in all() {
        thread.busy.store(false, Ordering::Relaxed);
    }
}

/// The states of all threads that are and that were.
pub(crate) fn all() -> impl Iterator<Item = &'static Thread> {
    let mut next = STATES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: states are published whole and never unmapped.
        let thread = unsafe { next.as_ref() }?;
        next = thread.next;
        Some(thread)
    })
    .chain(std::iter::once(&ORPHANS))
}

/// Makes the end of threads none of our business any more: the code of this crate may be about to be unmapped.
pub(crate) fn forget_key() {
    let key = KEY.swap(KEY_DELETED, Ordering::AcqRel);
    if key != KEY_NONE && key != KEY_DELETED {
        // SAFETY: the key was created by `ensure_key` and is deleted once.
        unsafe { libc::pthread_key_delete((key - 1) as libc::pthread_key_t) };
    }
}

/// The state of a thread. PERF: what every event needs comes first.
#[repr(C, align(128))]
pub(crate) struct Thread {
    busy: AtomicBool,
    in_use: AtomicBool,
    local: UnsafeCell<Local>,
    pub(crate) counters: Counters,
    next: *mut Thread,
}

// SAFETY: `next` is written before the state is published; `local` is reached only through `Busy`, by the thread that
// has the state in use, or under the lock of the orphans; everything else is atomic.
unsafe impl Sync for Thread {}

/// The part that only the thread itself touches.
#[repr(C)]
pub(crate) struct Local {
    pub(crate) enrolment: Enrolment,
    pub(crate) walker: StackWalker,
    pub(crate) running: Activations,
    ending: u32,
}

impl Local {
    const fn new() -> Local {
        Local {
            walker: StackWalker::new(),
            enrolment: Enrolment::new(),
            running: Activations::new(),
            ending: 0,
        }
    }
}

/// Proof that the calling thread is in the hook once, and the way to its state.
pub(crate) struct Busy<'a> {
    counters: &'a Counters,
    local: &'a UnsafeCell<Local>,
}

impl Busy<'_> {
    pub(crate) fn counters(&self) -> &Counters {
        self.counters
    }

    pub(crate) fn local(&mut self) -> &mut Local {
        // SAFETY: the busy mark (or the lock of the orphans) keeps every other way to this state shut while `self`
        // lives, and `self` is borrowed for as long as the reference lives.
        unsafe { &mut *self.local.get() }
    }
}

thread_local! {
    static CURRENT: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

const REGISTERING: *const Thread = ptr::without_provenance(1);
const ENDED: *const Thread = ptr::without_provenance(2);
const LAST_MARKER: *const Thread = ENDED;

/// All states, newest first.
static STATES: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());
static NEWEST_CHUNK: AtomicPtr<Chunk> = AtomicPtr::new(ptr::null_mut());
/// How many states nobody uses.
static FREE_STATES: AtomicUsize = AtomicUsize::new(0);

/// Stands in for threads whose own state has already gone on to another: events in the very last destructors.
static ORPHANS: Thread = Thread::new(ptr::null_mut());
static ORPHANS_LOCK: FutexLock<()> = FutexLock::new(());

/// The thread-specific key whose destructor tells that a thread ends: 0 for none yet, else the key + 1.
static KEY: AtomicU64 = AtomicU64::new(KEY_NONE);
const KEY_NONE: u64 = 0;
const KEY_DELETED: u64 = u64::MAX;

/// The C library runs destructors of thread-specific values in four rounds, as long as there are any. A thread whose
/// first event comes from a destructor in the first of them has only the other three to hand its state on.
const ROUNDS_TO_STAY: u32 = 3;

impl Thread {
    const fn new(next: *mut Thread) -> Thread {
        Thread {
            busy: AtomicBool::new(false),
            in_use: AtomicBool::new(true),
            local: UnsafeCell::new(Local::new()),
            counters: Counters::new(),
            next,
        }
    }
}

#[cold]
fn register() -> Option<*const Thread> {
    let _errno = ErrnoGuard::new();
    CURRENT.try_with(|current| current.set(REGISTERING)).ok()?;
    let thread = take_free_state().or_else(new_state);
    let current = thread.map_or(ptr::null(), ptr::from_ref);
    if !current.is_null() {
        watch_for_end(current);
    }
    CURRENT.try_with(|cell| cell.set(current)).ok()?;
    thread.map(ptr::from_ref)
}

fn take_free_state() -> Option<&'static Thread> {
    if FREE_STATES.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let taken = all().find(|thread| {
        !ptr::eq(*thread, &ORPHANS)
            && thread.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    })?;
    FREE_STATES.fetch_sub(1, Ordering::Relaxed);
    Some(taken)
}

/// One state more, which is published at once.
fn new_state() -> Option<&'static Thread> {
    let place = place_for_state()?;
    let mut head = STATES.load(Ordering::Relaxed);
    loop {
        // SAFETY: the place is this thread's alone until the state is published, after which nobody writes it as a whole.
        unsafe { place.write(Thread::new(head)) };
        match STATES.compare_exchange_weak(head, place, Ordering::AcqRel, Ordering::Relaxed) {
            // SAFETY: written just now and never unmapped.
            Ok(_) => return Some(unsafe { &*place }),
            Err(newer) => head = newer,
        }
    }
}

/// NOTE: nobody waits here for anybody: in a forked child other threads may be gone in the middle of it. Of threads that map a
/// chunk at the same time all but one give theirs back, untouched.
fn place_for_state() -> Option<*mut Thread> {
    loop {
        let newest = NEWEST_CHUNK.load(Ordering::Acquire);
        // SAFETY: chunks are zeroed when they are published, which is a valid value, and never unmapped.
        let place = unsafe { newest.as_ref() }
            .and_then(|chunk| chunk.places.get(chunk.given.fetch_add(1, Ordering::Relaxed)));
        if let Some(place) = place {
            return Some(place.get().cast());
        }
        let memory = Mapping::anonymous(size_of::<Chunk>()).ok()?;
        let chunk = memory.start().cast();
        if NEWEST_CHUNK.compare_exchange(newest, chunk, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            memory.leak();
        }
    }
}

/// Places for states. Each is written by the thread that gets it.
#[repr(C)]
struct Chunk {
    /// So many places have been asked for.
    given: AtomicUsize,
    places: [UnsafeCell<MaybeUninit<Thread>>; 16],
}

/// Asks the C library to call [`thread_ends`] for this thread.
fn watch_for_end(thread: *const Thread) {
    let mut key = KEY.load(Ordering::Acquire);
    if key == KEY_NONE {
        key = create_key();
    }
    if key != KEY_NONE && key != KEY_DELETED {
        // SAFETY: the key exists. If there is no memory for the value the state is not handed on: a leak, not a fault.
        unsafe { libc::pthread_setspecific((key - 1) as libc::pthread_key_t, thread.cast()) };
    }
}

fn create_key() -> u64 {
    let mut created: libc::pthread_key_t = 0;
    // SAFETY: `created` is a valid place, and the destructor has the right type.
    if unsafe { libc::pthread_key_create(&raw mut created, Some(thread_ends)) } != 0 {
        return KEY_NONE;
    }
    let key = u64::from(created) + 1;
    match KEY.compare_exchange(KEY_NONE, key, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => key,
        Err(theirs) => {
            // SAFETY: created above and never used.
            unsafe { libc::pthread_key_delete(created) };
            theirs
        }
    }
}

/// Called by the C library when a thread ends, after the destructors of thread-locals. Asks to be called again until
/// the last round but one, so that destructors of other keys still find the thread's own state.
unsafe extern "C" fn thread_ends(thread: *mut libc::c_void) {
    let thread = thread.cast_const().cast::<Thread>();
    // SAFETY: the value was set by `watch_for_end` on this very thread, and states are never unmapped.
    let state = unsafe { &*thread };
    let last_round = with(|mut busy| {
        let local = busy.local();
        local.ending += 1;
        local.ending >= ROUNDS_TO_STAY
    });
    if last_round != Some(true) {
        watch_for_end(thread);
        return;
    }
    with(|mut busy| {
        let local = busy.local();
        recorder::thread_ends(local);
        *local = Local::new();
    });
    if CURRENT.try_with(|current| current.set(ENDED)).is_ok() {
        state.in_use.store(false, Ordering::Release);
        FREE_STATES.fetch_add(1, Ordering::Relaxed);
    }
}
