//! Counts what each thread has begun and what it has done, in a file that outlives the process.
//! Tests read from it what the dump of a killed process must hold and what it may hold.
//!
//! Heap events go in; a file of one slot per thread comes out. The file is a shared mapping, so the
//! kernel keeps every count at whatever instruction the process dies. An event is counted twice: as
//! begun before the inner call, as done after it. A recorder that loses nothing has, for every
//! figure of every thread, `done <= recorded <= begun`; and a thread is inside at most one event.
//! Nothing here allocates, locks or panics.
//!
//! The first slot is that of the process: its id, and the number of slots that threads have taken.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};

/// Counts calls in the file that `ALLOC_LEDGER_OUT` names, and leaves the work to `A`. Without that
/// variable nothing is counted.
///
/// ```
/// use std::alloc::System;
///
/// static ALLOC: alloc_oracle::Ledger<System> = alloc_oracle::Ledger::new(System);
/// ```
#[derive(Debug)]
pub struct Ledger<A> {
    inner: A,
}

impl<A: GlobalAlloc> Ledger<A> {
    /// Wraps `inner`, which does the allocating.
    ///
    /// ```
    /// use std::alloc::System;
    ///
    /// static ALLOC: alloc_oracle::Ledger<System> = alloc_oracle::Ledger::new(System);
    /// ```
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }
}

/// Totals of the calls of one thread, or of all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls of `alloc` and `alloc_zeroed`.
    pub allocations: u64,
    /// Calls of `dealloc`.
    pub deallocations: u64,
    /// Calls of `realloc`.
    pub reallocations: u64,
    /// Bytes requested by allocations, plus the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes freed by deallocations, plus the old sizes of reallocations.
    pub freed_bytes: u64,
}

impl Tally {
    /// Returns the number of heap events of all kinds.
    ///
    /// ```
    /// let tally = alloc_oracle::Tally { allocations: 2, reallocations: 1, ..Default::default() };
    /// assert_eq!(tally.events(), 3);
    /// ```
    pub fn events(&self) -> u64 {
        self.allocations + self.deallocations + self.reallocations
    }

    /// Returns the five figures with their names.
    ///
    /// ```
    /// assert_eq!(alloc_oracle::Tally::default().figures()[0], ("allocations", 0));
    /// ```
    pub fn figures(&self) -> [(&'static str, u64); 5] {
        [
            ("allocations", self.allocations),
            ("deallocations", self.deallocations),
            ("reallocations", self.reallocations),
            ("allocated_bytes", self.allocated_bytes),
            ("freed_bytes", self.freed_bytes),
        ]
    }
}

/// What a ledger holds about one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadNotes {
    /// The thread id of the operating system.
    pub tid: u32,
    /// Calls that were begun, whether or not they were done.
    pub begun: Tally,
    /// Calls that were done: the inner allocator has returned, and not null.
    pub done: Tally,
}

/// Reads the bytes of a ledger. Returns the id of its process, or 0 if the process had no event,
/// and every thread with an event, in the order of their first events.
///
/// ```
/// assert_eq!(alloc_oracle::read_ledger(&[]), (0, Vec::new()));
/// ```
pub fn read_ledger(bytes: &[u8]) -> (u32, Vec<ThreadNotes>) {
    let word = |index: usize| {
        let word = bytes.get(8 * index..8 * index + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    };
    let tally = |first_word: usize| Tally {
        allocations: word(first_word),
        deallocations: word(first_word + 1),
        reallocations: word(first_word + 2),
        allocated_bytes: word(first_word + 3),
        freed_bytes: word(first_word + 4),
    };
    let slots = 1..usize::try_from(word(1)).unwrap_or(0).saturating_add(1).min(SLOTS);
    let threads = slots.map(|slot| slot * WORDS).map(|first_word| ThreadNotes {
        tid: word(first_word) as u32,
        begun: tally(first_word + 1),
        done: tally(first_word + 1 + FIGURES),
    });
    (word(0) as u32, threads.filter(|thread| thread.begun.events() > 0).collect())
}

// SAFETY: every method forwards its own arguments to `A`, which is a GlobalAlloc, and returns what
// `A` returned. The counting around that call touches only atomics in memory that is never
// unmapped.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Ledger<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the one of `A::alloc`, with the same layout.
        counted(ALLOCATION, layout.size(), 0, || unsafe { self.inner.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the one of `A::alloc_zeroed`, with the same layout.
        counted(ALLOCATION, layout.size(), 0, || unsafe { self.inner.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        counted(DEALLOCATION, 0, layout.size(), || {
            // SAFETY: the caller got `block` from this allocator with this layout, so `A` handed it
            // out with it.
            unsafe { self.inner.dealloc(block, layout) };
            block
        });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`, and `new_size` meets the same contract.
        counted(REALLOCATION, new_size, layout.size(), || unsafe {
            self.inner.realloc(block, layout, new_size)
        })
    }
}

/// Words of a slot: the thread id, five figures of calls begun, five of calls done, and padding up
/// to two cache lines.
const WORDS: usize = 16;
/// Figures of a [`Tally`]; the indices of them follow.
const FIGURES: usize = 5;
const ALLOCATION: usize = 0;
const DEALLOCATION: usize = 1;
const REALLOCATION: usize = 2;
const ALLOCATED: usize = 3;
const FREED: usize = 4;
/// Slots of a ledger: that of the process, and one for every thread that ever exists. The file is
/// sparse: slots that nobody writes take no space on disk.
const SLOTS: usize = 1 << 16;

type Slot = [AtomicU64; WORDS];

/// The mapped slots; null before the first event.
static LEDGER: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());
/// Stands for a process that keeps no ledger.
const NO_LEDGER: *mut Slot = ptr::without_provenance_mut(1);

thread_local! {
    /// The slot of this thread; `None` before its first event and in a process without a ledger.
    static OWN: Cell<Option<&'static Slot>> = const { Cell::new(None) };
}

/// Makes a call of the inner allocator and counts it, as begun before it and as done after it. A
/// call that fails returns null: it counts as begun and never as done.
#[inline]
fn counted(kind: usize, allocated: usize, freed: usize, call: impl FnOnce() -> *mut u8) -> *mut u8 {
    let Some(slot) = own_slot() else { return call() };
    let count = |figures: &[AtomicU64]| {
        figures[kind].fetch_add(1, Release);
        if allocated != 0 {
            figures[ALLOCATED].fetch_add(allocated as u64, Release);
        }
        if freed != 0 {
            figures[FREED].fetch_add(freed as u64, Release);
        }
    };
    count(&slot[1..1 + FIGURES]);
    let block = call();
    if !block.is_null() {
        count(&slot[1 + FIGURES..1 + 2 * FIGURES]);
    }
    block
}

#[inline]
fn own_slot() -> Option<&'static Slot> {
    match OWN.get() {
        Some(slot) => Some(slot),
        None => take_slot(),
    }
}

#[cold]
fn take_slot() -> Option<&'static Slot> {
    let ledger = match LEDGER.load(Acquire) {
        NO_LEDGER => return None,
        // At the first event of a process no other thread runs, so this is done once.
        unmapped if unmapped.is_null() => map_ledger(),
        ledger => ledger,
    };
    if ledger == NO_LEDGER {
        return None;
    }
    // SAFETY: `map_ledger` has mapped that many slots and nobody unmaps them; any bytes are valid
    // atomics.
    let slots = unsafe { std::slice::from_raw_parts(ledger, SLOTS) };
    let (process, threads) = slots.split_first()?;
    let taken = process[1].fetch_add(1, AcqRel);
    let Some(slot) = usize::try_from(taken).ok().and_then(|taken| threads.get(taken)) else {
        // A ledger that misses a thread would be wrong.
        // SAFETY: `abort` has no preconditions and does not return.
        unsafe { libc::abort() }
    };
    // SAFETY: `gettid` has no preconditions.
    slot[0].store(unsafe { libc::gettid() } as u64, Release);
    OWN.set(Some(slot));
    Some(slot)
}

/// Maps the file that the environment names. Returns [`NO_LEDGER`] if it names none.
fn map_ledger() -> *mut Slot {
    let len = SLOTS * size_of::<Slot>();
    // SAFETY: names and paths are C strings; `open` gets the third argument that O_CREAT requires;
    // the mapping is a new one, as long as the file.
    let start = unsafe {
        let path = libc::getenv(c"ALLOC_LEDGER_OUT".as_ptr());
        if path.is_null() {
            LEDGER.store(NO_LEDGER, Release);
            return NO_LEDGER;
        }
        let mode: libc::c_uint = 0o600;
        let file = libc::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, mode);
        if file < 0 || libc::ftruncate(file, len as libc::off_t) != 0 {
            libc::abort();
        }
        let start =
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0);
        libc::close(file);
        if start == libc::MAP_FAILED {
            libc::abort();
        }
        start.cast::<Slot>()
    };
    // SAFETY: the first slot is inside the mapping, which starts at a page and so is aligned.
    unsafe { (*start)[0].store(u64::from(std::process::id()), Release) };
    LEDGER.store(start, Release);
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_read_back_as_it_was_written() {
        let mut words = [0u64; 3 * WORDS];
        (words[0], words[1]) = (4711, 2);
        words[WORDS..WORDS + 11].copy_from_slice(&[12, 3, 2, 1, 300, 200, 3, 1, 1, 290, 190]);
        words[2 * WORDS] = 13;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (pid, threads) = read_ledger(&bytes);
        assert_eq!(pid, 4711);
        let begun = Tally {
            allocations: 3,
            deallocations: 2,
            reallocations: 1,
            allocated_bytes: 300,
            freed_bytes: 200,
        };
        let done = Tally { deallocations: 1, allocated_bytes: 290, freed_bytes: 190, ..begun };
        // The second thread has a slot and no event.
        assert_eq!(threads, [ThreadNotes { tid: 12, begun, done }]);
        assert_eq!((begun.events(), done.events()), (6, 5));
    }

    #[test]
    fn what_a_truncated_ledger_lacks_is_read_as_zero() {
        let (pid, threads) = read_ledger(&[1, 0, 0, 0, 0, 0, 0, 0, 255]);
        assert_eq!((pid, threads.len()), (1, 0));
    }
}
