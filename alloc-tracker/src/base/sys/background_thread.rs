//! A thread of ours in the host's process: with no signals, little stack and a name that says whose it is.
//!
//! PERF: if it can be, it is a thread that the C library does not know of. As soon as that knows of a second one, its own
//! `malloc` takes its locks with atomic instructions, at every event of a program that has one thread itself.

use super::Mapping;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
use super::bare_thread::BareThread;
use super::signals::BlockedSignals;

/// A thread that has been started.
#[derive(Debug)]
pub(crate) struct BackgroundThread {
    thread: ThreadHandle,
    stack: Mapping,
}

#[derive(Debug)]
enum ThreadHandle {
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    Bare(BareThread),
    Known(libc::pthread_t),
}

// SAFETY: the handles may be used by any thread.
unsafe impl Send for BackgroundThread {}

impl BackgroundThread {
    /// Starts `run` in a thread; `None` if the system gives none.
    pub(crate) fn start(run: fn()) -> Option<BackgroundThread> {
        let stack = Mapping::anonymous(STACK).ok()?;
        let blocked = BlockedSignals::all();
        #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
        // SAFETY: the stack is ours and outlives the thread, which `join` waits for. What the thread does is make system calls,
        // through functions of the C library that know nothing of threads but `errno`.
        let thread = unsafe { BareThread::start(&stack, begin, run).map(ThreadHandle::Bare) }
            .or_else(|| start_known(&stack, run).map(ThreadHandle::Known));
        #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
        let thread = start_known(&stack, run).map(ThreadHandle::Known);
        drop(blocked);
        Some(BackgroundThread { thread: thread?, stack })
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        let ended = match self.thread {
            #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
            ThreadHandle::Bare(thread) => thread.join(),
            // SAFETY: started by `start` and joined once.
            ThreadHandle::Known(thread) => unsafe { libc::pthread_join(thread, std::ptr::null_mut()) == 0 },
        };
        if !ended {
            self.stack.leak();
        }
    }
}

/// Starts a thread by way of the C library.
fn start_known(stack: &Mapping, run: fn()) -> Option<libc::pthread_t> {
    // SAFETY: the handle is a number or a pointer, for which zeros will do; the attributes are initialised by the first call on them; the stack is ours and outlives the thread, which `join`
    // waits for; the argument is a function pointer, which is what `begin_known` takes it for.
    unsafe {
        let mut thread: libc::pthread_t = std::mem::zeroed();
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&raw mut attributes);
        let set = libc::pthread_attr_setstack(&raw mut attributes, stack.start().cast(), STACK);
        let argument = run as *mut libc::c_void;
        let result = match set {
            0 => libc::pthread_create(&raw mut thread, &raw const attributes, begin_known, argument),
            error => error,
        };
        libc::pthread_attr_destroy(&raw mut attributes);
        (result == 0).then_some(thread)
    }
}

extern "C" fn begin_known(run: *mut libc::c_void) -> *mut libc::c_void {
    begin(run);
    std::ptr::null_mut()
}

extern "C" fn begin(run: *mut libc::c_void) -> libc::c_int {
    // SAFETY: a zero-ended name of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"alloc-tracker".as_ptr(), 0, 0, 0) };
    // SAFETY: `start` passes a function of this type.
    let run = unsafe { std::mem::transmute::<*mut libc::c_void, fn()>(run) };
    run();
    0
}

/// Enough for everything that is done there, for thread-locals of the program, and for a page that guards nothing.
const STACK: usize = 256 << 10;
