//! A thread that the kernel knows and the C library does not. For the C library the program still
//! has a single thread, so its `malloc` and its locks use no atomic instructions.
//!
//! In: a function to run. Out: a handle to wait for its end. Never allocates through the global
//! allocator.
//!
//! Such a thread must not use anything that the C library keeps per thread, except `errno`, which
//! system calls set. For `errno` the thread has thread-locals of its own, all zeros. They are laid
//! out as in "ELF Handling For Thread-Local Storage" (Drepper, 2005), section 3.4.6: below the
//! thread pointer the thread-locals, and at it the thread control block, which begins with its own
//! address.
//!
//! ```text
//! locals:  | thread-locals, with errno | thread control block               | tid |
//!                                      ^ thread pointer (fs)                ^ 0 at the end
//!                                        +0x00, +0x10  thread pointer
//!                                        +0x28         stack canary
//!                                        +0x30         pointer guard
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use super::Mapping;

/// A thread that the C library does not know.
#[derive(Debug)]
pub(crate) struct BareThread {
    /// The thread-locals, and behind them the thread control block.
    locals: Mapping,
    /// The offset in `locals` of the thread's id, which the kernel sets to 0 when the thread has
    /// ended.
    tid_offset: usize,
}

impl BareThread {
    /// Starts `begin(run)` on this stack. The thread inherits the signals that the calling thread
    /// has blocked. `None` if the kernel gives no thread, or if this C library does not keep
    /// `errno` in the [`MAX_LOCALS_LEN`] bytes below the thread pointer.
    ///
    /// # Safety
    /// The stack must stay mapped until the thread has ended. The thread must use no thread-locals,
    /// neither its own nor the C library's, other than `errno`.
    pub(super) unsafe fn start(
        stack: &Mapping,
        begin: extern "C" fn(*mut libc::c_void) -> libc::c_int,
        run: fn(),
    ) -> Option<BareThread> {
        let own = ThreadPointer::own();
        // SAFETY: the function has no preconditions.
        let errno = unsafe { libc::__errno_location() }.addr() as u64;
        let below = own.address.checked_sub(errno).filter(|below| *below <= MAX_LOCALS_LEN)?;
        let locals_len = (below as usize).next_multiple_of(PAGE) + PAGE;
        let mut locals = Mapping::anonymous(locals_len + CONTROL_BLOCK_LEN).ok()?;
        let pointer = locals.start().expose_provenance() as u64 + locals_len as u64;
        let control_block = locals.slice_mut::<u64>().get_mut(locals_len / 8..)?;
        (control_block[0], control_block[SELF]) = (pointer, pointer);
        (control_block[CANARY], control_block[POINTER_GUARD]) = (own.canary, own.pointer_guard);
        let thread = BareThread { locals, tid_offset: locals_len + CONTROL_BLOCK_LEN - 8 };
        let tid = thread.tid();
        // Until the kernel stores the id, the word must not look like that of a thread that has
        // ended.
        tid.store(1, Ordering::Relaxed);
        let tid = tid.as_ptr();
        // SAFETY: the stack's top is the end of its mapping, and the caller keeps it mapped. The
        // flags are those that the C library makes threads with. `tid` and the thread pointer point
        // into `locals`, which stays mapped until `join` has seen the end of the thread, or for
        // good if the handle is kept.
        let started = unsafe {
            let top = stack.bytes().as_ptr_range().end.cast_mut();
            let thread_pointer = pointer as *mut libc::c_void;
            libc::clone(begin, top.cast(), FLAGS, run as *mut libc::c_void, tid, thread_pointer, tid)
        };
        (started != -1).then_some(thread)
    }

    /// Waits for the end of the thread.
    pub(super) fn join(self) {
        let tid = self.tid();
        loop {
            let now = tid.load(Ordering::Acquire);
            if now == 0 {
                return;
            }
            // NOTE: not a private futex, because the kernel's wake at the end of a thread is for a
            // shared one.
            // SAFETY: the word is valid for reads during the call, and a null time means no limit.
            unsafe {
                let forever = std::ptr::null::<libc::timespec>();
                libc::syscall(libc::SYS_futex, tid.as_ptr(), libc::FUTEX_WAIT, now, forever);
            }
        }
    }

    /// Returns the word of the thread's id, which is 0 once the thread has ended.
    fn tid(&self) -> &AtomicU32 {
        // SAFETY: the offset lies within the mapping and is aligned, and the word is only used as
        // an atomic.
        unsafe { &*self.locals.start().add(self.tid_offset).cast::<AtomicU32>() }
    }
}

/// The calling thread's thread pointer, with the words of its control block that a new thread needs
/// too.
struct ThreadPointer {
    address: u64,
    /// The stack canary: functions compare it to notice that their frame was overwritten.
    canary: u64,
    /// The value by which the C library disguises stored code addresses.
    pointer_guard: u64,
}

impl ThreadPointer {
    fn own() -> ThreadPointer {
        let (address, canary, pointer_guard);
        // SAFETY: the instructions only read. Every thread has a thread pointer, with these words
        // behind it.
        unsafe {
            std::arch::asm!(
                "mov {}, fs:[0]", "mov {}, fs:[0x28]", "mov {}, fs:[0x30]",
                out(reg) address, out(reg) canary, out(reg) pointer_guard,
                options(nostack, readonly, preserves_flags),
            );
        }
        ThreadPointer { address, canary, pointer_guard }
    }
}

const FLAGS: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// Indices of words of the thread control block.
const SELF: usize = 0x10 / 8;
const CANARY: usize = 0x28 / 8;
const POINTER_GUARD: usize = 0x30 / 8;
/// Bytes of the thread control block: more than any C library has there.
const CONTROL_BLOCK_LEN: usize = 2 * PAGE;
const PAGE: usize = 4096;
/// The largest distance of `errno` below the thread pointer, in bytes of address space. The
/// program's own thread-locals lie in between.
const MAX_LOCALS_LEN: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::super::Errno;
    use super::*;
    use std::sync::atomic::AtomicU64;

    static RUNS_AT: AtomicU64 = AtomicU64::new(0);
    static ERRNO: AtomicU32 = AtomicU32::new(0);

    extern "C" fn begin(run: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the argument is `run`, which has this type.
        unsafe { std::mem::transmute::<*mut libc::c_void, fn()>(run)() };
        0
    }

    fn run() {
        // SAFETY: closing a descriptor that does not exist touches nothing.
        unsafe { libc::close(-1) };
        ERRNO.store(Errno::last().0 as u32, Ordering::Relaxed);
        RUNS_AT.store(here(), Ordering::Relaxed);
    }

    /// Returns an address on the calling thread's stack.
    #[inline(never)]
    fn here() -> u64 {
        let local = 0u8;
        std::hint::black_box(&raw const local).addr() as u64
    }

    #[test]
    fn a_bare_thread_runs_on_its_stack_with_an_errno_of_its_own() {
        let stack = Mapping::anonymous(64 << 10).unwrap();
        // SAFETY: the stack is dropped after `join`, and `run` uses no thread-local but `errno`.
        unsafe {
            *libc::__errno_location() = 77;
            let thread = BareThread::start(&stack, begin, run).unwrap();
            thread.join();
        }
        assert_eq!((Errno::last().0, ERRNO.load(Ordering::Relaxed)), (77, libc::EBADF as u32));
        let range = stack.bytes().as_ptr_range();
        let range = range.start.addr() as u64..range.end.addr() as u64;
        assert!(range.contains(&RUNS_AT.load(Ordering::Relaxed)));
    }
}
