//! The public face of the hook: the four methods of an allocator. In: the program's calls. Out: the
//! same calls, to the inner allocator, and the events, to the hook. Unless [`mode::is_active`]
//! returns true, the methods forward and do nothing else. Never panics, never unwinds.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::base::mode;
use crate::hook::{self, EntryFrame, entry};

/// A global allocator that forwards every call to `A` and, while a recording or a count is on,
/// records or counts the call.
///
/// ```
/// use alloc_tracker::AllocTracker;
///
/// #[global_allocator]
/// static ALLOC: AllocTracker = AllocTracker::system();
///
/// fn main() {
///     let (text, change) = alloc_tracker::measure(|| String::from("sixteen bytes !!"));
///     assert_eq!((change.allocations, change.allocated_bytes), (1, 16));
///     drop(text);
/// }
/// ```
///
/// # What is counted
/// The calls that reach this allocator, with the sizes that the program asked for. Not counted:
/// blocks that C code allocates with `malloc`, bytes that the inner allocator adds for itself,
/// memory that is mapped directly, and allocations that the compiler removes because nothing
/// observes them. (Wrapping an allocator may in turn keep a few allocations that would have been
/// removed.) `alloc_zeroed` is forwarded as such, so pages that the kernel provides zeroed stay
/// untouched.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllocTracker<A = System> {
    inner: A,
    counting: bool,
}

impl AllocTracker<System> {
    /// Wraps the system's allocator.
    pub const fn system() -> AllocTracker<System> {
        AllocTracker::new(System)
    }
}

impl<A> AllocTracker<A> {
    /// Wraps an allocator of any type.
    ///
    /// ```
    /// use alloc_tracker::AllocTracker;
    /// use mimalloc::MiMalloc;
    ///
    /// #[global_allocator]
    /// static ALLOC: AllocTracker<MiMalloc> = AllocTracker::new(MiMalloc);
    /// ```
    pub const fn new(inner: A) -> AllocTracker<A> {
        AllocTracker { inner, counting: false }
    }

    /// Counts from the first event of the process on, so that [`stats`](crate::stats) covers all of
    /// it. Otherwise the count begins when [`stats`](crate::stats) or a [`Region`](crate::Region)
    /// is first used.
    ///
    /// ```
    /// use alloc_tracker::AllocTracker;
    ///
    /// #[global_allocator]
    /// static ALLOC: AllocTracker = AllocTracker::system().counting();
    ///
    /// fn main() {
    ///     assert!(alloc_tracker::stats().from_first_event);
    /// }
    /// ```
    pub const fn counting(self) -> AllocTracker<A>
    where
        A: Copy,
    {
        AllocTracker { inner: self.inner, counting: true }
    }
}

impl<A: GlobalAlloc> AllocTracker<A> {
    #[inline(always)]
    fn flags(&self) -> usize {
        if self.counting { hook::COUNTING } else { 0 }
    }

    // PERF: each tracked call is a function of its own, which is never inlined. So the four methods
    // of `GlobalAlloc` need no stack frame on the way on which nothing is recorded or counted: a
    // load, a branch and a jump to the inner allocator. `this` is the last argument: where a method
    // is inlined into `__rust_alloc` or its like, all other arguments are in the right registers
    // already.

    entry! {
        fn tracked_alloc(size: usize, align: usize, this: &Self; "rcx", "x3") -> *mut u8 => alloc_for
    }

    entry! {
        fn tracked_alloc_zeroed(size: usize, align: usize, this: &Self; "rcx", "x3") -> *mut u8 => alloc_zeroed_for
    }

    entry! {
        fn tracked_dealloc(block: *mut u8, size: usize, align: usize, this: &Self; "r8", "x4") => dealloc_for
    }

    entry! {
        fn tracked_realloc(block: *mut u8, size: usize, align: usize, new_size: usize, this: &Self; "r9", "x5") -> *mut u8
            => realloc_for
    }

    unsafe extern "C" fn alloc_for(size: usize, align: usize, this: &Self, entered: &EntryFrame) -> *mut u8 {
        // SAFETY: the caller of `GlobalAlloc::alloc` has passed a valid layout, which is split
        // here.
        let block = unsafe { this.inner.alloc(Layout::from_size_align_unchecked(size, align)) };
        hook::after_alloc(block, size, this.flags(), entered);
        block
    }

    unsafe extern "C" fn alloc_zeroed_for(
        size: usize,
        align: usize,
        this: &Self,
        entered: &EntryFrame,
    ) -> *mut u8 {
        // SAFETY: the caller of `GlobalAlloc::alloc_zeroed` has passed a valid layout, which is
        // split here.
        let block = unsafe { this.inner.alloc_zeroed(Layout::from_size_align_unchecked(size, align)) };
        hook::after_alloc(block, size, this.flags() | hook::ZEROED, entered);
        block
    }

    unsafe extern "C" fn dealloc_for(
        block: *mut u8,
        size: usize,
        align: usize,
        this: &Self,
        entered: &EntryFrame,
    ) {
        hook::before_dealloc(block, size, this.flags(), entered);
        // SAFETY: the caller of `GlobalAlloc::dealloc` has passed a block of this allocator, hence
        // of the inner one, with its layout.
        unsafe { this.inner.dealloc(block, Layout::from_size_align_unchecked(size, align)) }
    }

    unsafe extern "C" fn realloc_for(
        block: *mut u8,
        size: usize,
        align: usize,
        new_size: usize,
        this: &Self,
        entered: &EntryFrame,
    ) -> *mut u8 {
        let begun = hook::before_realloc(block, size, this.flags());
        // SAFETY: the caller of `GlobalAlloc::realloc` has passed a block of this allocator, hence
        // of the inner one, with its layout, and a valid new size.
        let moved =
            unsafe { this.inner.realloc(block, Layout::from_size_align_unchecked(size, align), new_size) };
        hook::after_realloc(begun, size, moved, new_size, entered);
        moved
    }
}

/// Keeps the call before it from becoming a tail call, which is a jump. The four methods may be
/// inlined into a function of the program. If its last call were a jump, the function's frame would
/// be gone when the stack is walked, and blocks that it frees at its end would count for its
/// caller.
#[inline(always)]
fn keep_frame() {
    // SAFETY: an empty assembly block executes no instruction.
    unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

// SAFETY: every call goes to the inner allocator with the caller's own arguments, and its result is
// returned unchanged. The hook never unwinds and never allocates through the global allocator.
unsafe impl<A: GlobalAlloc> GlobalAlloc for AllocTracker<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the arguments are the caller's, who has promised what `GlobalAlloc` asks for;
        // both branches pass them on to the inner allocator.
        unsafe {
            if mode::is_active() {
                let block = Self::tracked_alloc(layout.size(), layout.align(), self);
                keep_frame();
                block
            } else {
                self.inner.alloc(layout)
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the arguments are the caller's, who has promised what `GlobalAlloc` asks for;
        // both branches pass them on to the inner allocator.
        unsafe {
            if mode::is_active() {
                let block = Self::tracked_alloc_zeroed(layout.size(), layout.align(), self);
                keep_frame();
                block
            } else {
                self.inner.alloc_zeroed(layout)
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the arguments are the caller's, who has promised what `GlobalAlloc` asks for;
        // both branches pass them on to the inner allocator.
        unsafe {
            if mode::is_active() {
                Self::tracked_dealloc(block, layout.size(), layout.align(), self);
                keep_frame();
            } else {
                self.inner.dealloc(block, layout)
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the arguments are the caller's, who has promised what `GlobalAlloc` asks for;
        // both branches pass them on to the inner allocator.
        unsafe {
            if mode::is_active() {
                let moved = Self::tracked_realloc(block, layout.size(), layout.align(), new_size, self);
                keep_frame();
                moved
            } else {
                self.inner.realloc(block, layout, new_size)
            }
        }
    }
}
