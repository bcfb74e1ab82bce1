//! A thread of ours in the host's process: with no signals, little stack and a name that says whose it is.

use super::Mapping;

/// A thread that has been started.
#[derive(Debug)]
pub(crate) struct Helper {
    thread: libc::pthread_t,
    stack: Mapping,
}

// SAFETY: the handle may be used by any thread.
unsafe impl Send for Helper {}

impl Helper {
    /// Starts `run` in a thread; `None` if the system gives none.
    pub(crate) fn start(run: fn()) -> Option<Helper> {
        let stack = Mapping::anonymous(STACK).ok()?;
        let mut thread: libc::pthread_t = 0;
        // SAFETY: sets and attributes are initialised by the first calls on them; the stack is ours and outlives the
        // thread, which `join` waits for; the argument is a function pointer, which is what `begin` takes it for.
        let result = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
            libc::pthread_attr_init(&raw mut attributes);
            let set = libc::pthread_attr_setstack(&raw mut attributes, stack.start().cast(), STACK);
            let argument = run as *mut libc::c_void;
            let result = match set {
                0 => libc::pthread_create(&raw mut thread, &raw const attributes, begin, argument),
                error => error,
            };
            libc::pthread_attr_destroy(&raw mut attributes);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            result
        };
        (result == 0).then_some(Helper { thread, stack })
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        // SAFETY: started by `start` and joined once.
        let result = unsafe { libc::pthread_join(self.thread, std::ptr::null_mut()) };
        if result != 0 {
            self.stack.leak();
        }
    }
}

extern "C" fn begin(run: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: a zero-ended name of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"alloc-tracker".as_ptr(), 0, 0, 0) };
    // SAFETY: `start` passes a function of this type.
    let run = unsafe { std::mem::transmute::<*mut libc::c_void, fn()>(run) };
    run();
    std::ptr::null_mut()
}

/// Enough for everything that is done there, for thread-locals of the program, and for a page that guards nothing.
const STACK: usize = 256 << 10;
