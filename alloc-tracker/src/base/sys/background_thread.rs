//! A thread of the tracker in the host's process: it gets no signals, has a small stack, and is
//! named `alloc-tracker`.
//!
//! In: a function to run. Out: a handle to wait for its end. Never allocates through the global
//! allocator.
//!
//! PERF: where possible it is a `BareThread`, which the C library does not know. As soon as the C
//! library knows a second thread, its own `malloc` takes its locks with atomic instructions, at
//! every event of a program that has only one thread itself.

use super::Mapping;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
use super::bare_thread::BareThread;
use super::signals::BlockedSignals;

/// A started thread, and its stack.
#[derive(Debug)]
pub(crate) struct BackgroundThread {
    thread: ThreadHandle,
    stack: Mapping,
}

#[derive(Debug)]
enum ThreadHandle {
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    /// Unknown to the C library.
    Bare(BareThread),
    /// Made by the C library.
    Pthread(libc::pthread_t),
}

// SAFETY: any thread may wait for another one, and the stack is plain memory.
unsafe impl Send for BackgroundThread {}

impl BackgroundThread {
    /// Starts `run` in a new thread; `None` if the system gives none.
    pub(crate) fn start(run: fn()) -> Option<BackgroundThread> {
        let stack = Mapping::anonymous(STACK_LEN).ok()?;
        let blocked = BlockedSignals::all();
        #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
        // SAFETY: the stack must outlive the thread: `join` waits for its end, or leaks the stack.
        // The thread must not use thread-locals but `errno`: it only makes system calls, through
        // functions of the C library that use no others.
        let thread = unsafe { BareThread::start(&stack, begin, run).map(ThreadHandle::Bare) }
            .or_else(|| start_pthread(&stack, run).map(ThreadHandle::Pthread));
        #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
        let thread = start_pthread(&stack, run).map(ThreadHandle::Pthread);
        drop(blocked);
        Some(BackgroundThread { thread: thread?, stack })
    }

    /// Waits for the end of the thread. If that fails, its stack stays mapped for good.
    pub(crate) fn join(self) {
        let ended = match self.thread {
            #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
            ThreadHandle::Bare(thread) => {
                thread.join();
                true
            }
            // SAFETY: `start` has made a joinable thread, and joining consumes its handle.
            ThreadHandle::Pthread(thread) => unsafe { libc::pthread_join(thread, std::ptr::null_mut()) == 0 },
        };
        if !ended {
            self.stack.leak();
        }
    }
}

/// Starts a thread through the C library.
fn start_pthread(stack: &Mapping, run: fn()) -> Option<libc::pthread_t> {
    // SAFETY: the handle is a number or a pointer, of which zeros are a valid value. The attributes
    // are initialised by the first call on them. The stack has `STACK_LEN` bytes and outlives the
    // thread, which `join` waits for. The argument is a function pointer, which is what
    // `begin_pthread` takes it for.
    unsafe {
        let mut thread: libc::pthread_t = std::mem::zeroed();
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&raw mut attributes);
        let set = libc::pthread_attr_setstack(&raw mut attributes, stack.start().cast(), STACK_LEN);
        let argument = run as *mut libc::c_void;
        let result = match set {
            0 => libc::pthread_create(&raw mut thread, &raw const attributes, begin_pthread, argument),
            error => error,
        };
        libc::pthread_attr_destroy(&raw mut attributes);
        (result == 0).then_some(thread)
    }
}

extern "C" fn begin_pthread(run: *mut libc::c_void) -> *mut libc::c_void {
    begin(run);
    std::ptr::null_mut()
}

extern "C" fn begin(run: *mut libc::c_void) -> libc::c_int {
    // SAFETY: PR_SET_NAME reads a C string, of which it takes up to 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"alloc-tracker".as_ptr(), 0, 0, 0) };
    // SAFETY: the argument is the `run` that was passed to `BackgroundThread::start`, which has
    // this type.
    let run = unsafe { std::mem::transmute::<*mut libc::c_void, fn()>(run) };
    run();
    0
}

/// Bytes of the stack: enough for everything that the thread does, for the program's thread-locals,
/// which the C library puts onto a stack that it is given, and for one page more, because no guard
/// page protects the end.
const STACK_LEN: usize = 256 << 10;
