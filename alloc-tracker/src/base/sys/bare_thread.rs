//! A thread that the kernel knows and the C library does not: its `malloc` and its locks go on as in a program of one thread.
//!
//! Such a thread must not call into the C library for anything that belongs to a thread there. It has memory of its own for
//! thread-locals, all zeros, so that `errno` is its own one; that is all of them that system calls need. What the
//! thread pointer points to is laid out as in "ELF Handling For Thread-Local Storage" (Drepper, 2005), section 3.4.6:
//! thread-locals below it, and at it the thread's own structure, which begins with its address.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Mapping;

/// Such a thread.
#[derive(Debug)]
pub(crate) struct BareThread {
    /// Thread-locals, and behind them what the thread pointer points to.
    locals: Mapping,
    /// Where in there the thread's number is, which the kernel makes 0 when the thread has ended.
    number: usize,
}

impl BareThread {
    /// Starts `begin(run)` on this stack, with the signals that the calling thread has blocked; `None` if the kernel gives no thread,
    /// or if this C library keeps `errno` where it is not expected.
    ///
    /// # Safety
    /// The stack must be there until the thread has ended. What it runs must not use thread-locals, its own or the C library's,
    /// other than `errno`.
    pub(super) unsafe fn start(
        stack: &Mapping,
        begin: extern "C" fn(*mut libc::c_void) -> libc::c_int,
        run: fn(),
    ) -> Option<BareThread> {
        let own = ThreadPointer::own();
        // SAFETY: no preconditions.
        let errno = unsafe { libc::__errno_location() }.addr() as u64;
        let below = own.address.checked_sub(errno).filter(|below| *below <= MOST_LOCALS)?;
        let below = (below as usize).next_multiple_of(PAGE) + PAGE;
        let mut locals = Mapping::anonymous(below + STRUCTURE).ok()?;
        let pointer = locals.start().expose_provenance() as u64 + below as u64;
        let structure = locals.slice_mut::<u64>().get_mut(below / 8..)?;
        (structure[0], structure[SELF]) = (pointer, pointer);
        (structure[CANARY], structure[POINTER_GUARD]) = (own.canary, own.pointer_guard);
        let thread = BareThread { locals, number: below + STRUCTURE - 8 };
        let number = thread.number();
        number.store(1, Ordering::Relaxed);
        let number = number.as_ptr();
        // SAFETY: the stack is as large as it says. The flags are those with which the C library makes threads, and the memory
        // for the three words and for thread-locals is there until `join`, or for good.
        let made = unsafe {
            let top = stack.bytes().as_ptr_range().end.cast_mut();
            let thread_pointer = pointer as *mut libc::c_void;
            libc::clone(begin, top.cast(), FLAGS, run as *mut libc::c_void, number, thread_pointer, number)
        };
        (made != -1).then_some(thread)
    }

    /// Waits for its end; false if that cannot be.
    pub(super) fn join(self) -> bool {
        let number = self.number();
        loop {
            let now = number.load(Ordering::Acquire);
            if now == 0 {
                return true;
            }
            // SAFETY: the word is valid. The kernel wakes whoever waits for it as a word that processes may share.
            unsafe {
                let forever = std::ptr::null::<libc::timespec>();
                libc::syscall(libc::SYS_futex, number.as_ptr(), libc::FUTEX_WAIT, now, forever);
            }
        }
    }

    fn number(&self) -> &AtomicU32 {
        // SAFETY: within the mapping, aligned, and only used as an atomic once the thread is there.
        unsafe { &*self.locals.start().add(self.number).cast::<AtomicU32>() }
    }
}

/// The calling thread's, with what a new one has to have as well.
struct ThreadPointer {
    address: u64,
    /// With which functions find out that their frame was overwritten.
    canary: u64,
    /// With which the C library hides addresses.
    pointer_guard: u64,
}

impl ThreadPointer {
    fn own() -> ThreadPointer {
        let (address, canary, pointer_guard);
        // SAFETY: every thread has a thread pointer, and these words behind it.
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

/// Words of the structure.
const SELF: usize = 0x10 / 8;
const CANARY: usize = 0x28 / 8;
const POINTER_GUARD: usize = 0x30 / 8;
/// Bytes of it: more than any C library has there.
const STRUCTURE: usize = 2 * PAGE;
const PAGE: usize = 4096;
/// Of address space: thread-locals of the program lie between the C library's and the thread pointer.
const MOST_LOCALS: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::super::Errno;
    use super::*;
    use std::sync::atomic::AtomicU64;

    static RUNS_AT: AtomicU64 = AtomicU64::new(0);
    static ERRNO: AtomicU32 = AtomicU32::new(0);

    extern "C" fn begin(run: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the test passes a function of this type.
        unsafe { std::mem::transmute::<*mut libc::c_void, fn()>(run)() };
        0
    }

    fn run() {
        // SAFETY: no such file descriptor.
        unsafe { libc::close(-1) };
        ERRNO.store(Errno::last().0 as u32, Ordering::Relaxed);
        RUNS_AT.store(here(), Ordering::Relaxed);
    }

    /// An address on the calling thread's stack.
    #[inline(never)]
    fn here() -> u64 {
        let local = 0u8;
        std::hint::black_box(&raw const local).addr() as u64
    }

    #[test]
    fn it_runs_on_its_stack_with_an_errno_of_its_own() {
        let stack = Mapping::anonymous(64 << 10).unwrap();
        // SAFETY: joined below; `run` only makes a system call.
        unsafe {
            *libc::__errno_location() = 77;
            let thread = BareThread::start(&stack, begin, run).unwrap();
            assert!(thread.join());
        }
        assert_eq!((Errno::last().0, ERRNO.load(Ordering::Relaxed)), (77, libc::EBADF as u32));
        let range = stack.bytes().as_ptr_range();
        let range = range.start.addr() as u64..range.end.addr() as u64;
        assert!(range.contains(&RUNS_AT.load(Ordering::Relaxed)));
    }
}
