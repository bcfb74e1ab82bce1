//! A program whose global allocator consists of two allocators of its own around the tracker. The
//! outer one counts, the inner one keeps a budget. The inner one has no `realloc` and no
//! `alloc_zeroed`, so the trait's own ones call its `alloc` and `dealloc`. It also keeps a table of
//! large blocks, which it grows through the global allocator.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: Count<Budget<AllocTracker>> = Count(Budget {
    inner: AllocTracker::system(),
    used: AtomicUsize::new(0),
    limit: 1 << 30,
    large: Mutex::new(Vec::new()),
});

const LARGE: usize = 1 << 20;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Count<A>(A);

// SAFETY: blocks are the inner allocator's.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Count<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| {
            count.set(count.get() + 1);
            // SAFETY: the caller's promise.
            unsafe { self.0.alloc(layout) }
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(block, layout) }
    }
}

struct Budget<A> {
    inner: A,
    used: AtomicUsize,
    limit: usize,
    large: Mutex<Vec<usize>>,
}

impl<A: GlobalAlloc> Budget<A> {
    #[inline(never)]
    fn charge(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        if self.used.fetch_add(size, Ordering::Relaxed) + size > self.limit {
            self.used.fetch_sub(size, Ordering::Relaxed);
            return std::ptr::null_mut();
        }
        if size >= LARGE {
            self.note(size);
        }
        // SAFETY: the layout is that of a caller of `alloc`.
        unsafe { self.inner.alloc(layout) } // WRAPPER
    }

    /// The table is small, so it is no large block itself.
    #[inline(never)]
    fn note(&self, size: usize) {
        self.large.lock().expect("no panic").push(size); // NOTED
    }

    #[inline(never)]
    fn refund(&self, block: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: block and layout are those of a caller of `dealloc`. The call is in tail
        // position: an optimized build may leave no frame of this function.
        unsafe { self.inner.dealloc(block, layout) }
    }
}

// SAFETY: blocks are the inner allocator's.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Budget<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.charge(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.refund(block, layout);
    }
}

fn main() {
    parse();
    render();
    grow();
    println!("refused {}, counted {}", refused(), COUNT.get() > 500);
}

#[inline(never)]
fn parse() {
    for _ in 0..500 {
        std::mem::forget(black_box(vec![1u8; 200])); // PARSED
    }
}

#[inline(never)]
fn render() {
    for _ in 0..300 {
        std::mem::forget(black_box(vec![0u8; 1_000])); // RENDERED
    }
}

#[inline(never)]
fn grow() {
    let mut buffer = black_box(vec![1u8; 1 << 20]); // ONE MEBIBYTE
    buffer.reserve_exact(1 << 20); // TWO MEBIBYTES
    drop(black_box(buffer)); // DROPPED
}

#[inline(never)]
fn refused() -> bool {
    black_box(Vec::<u8>::new()).try_reserve_exact(black_box(2 << 30)).is_err()
}
