//! A process beside the host's, which shares the host's memory. It also keeps the host's user,
//! process group and session. It has its own descriptors, working directory and signal handlers.
//!
//! In: a function to run. Out: a process that the host cannot tell from any other process of the
//! machine, and a way to wait for its end. Never allocates through the global allocator.
//!
//! The host's number of threads, its children, its signals and its descriptors are as without this
//! process:
//!
//! ```text
//! host               clone: an intermediate process, which shares the host's memory
//!   |  waits           intermediate    clone: the companion, which shares the memory too
//!   |                                  ends
//!   |  reaps the intermediate          companion: a child of the nearest reaper of orphans
//! ```
//!
//! A host that is itself the init process (process 1), or the reaper of orphans
//! (`PR_SET_CHILD_SUBREAPER`), would get the companion back as a child. So the companion of such a
//! host is its direct child. That child sends no signal at its end, so only a `waitpid` with
//! `__WALL` or `__WCLONE` sees it.
//!
//! The companion must use no thread-locals of the C library, not even `errno`: it has a block of
//! zeros in their place. On x86-64 the block follows "ELF Handling For Thread-Local Storage"
//! (Drepper, 2005), section 3.4.6: below the thread pointer the thread-locals, and at it the thread
//! control block, which begins with its own address.
//!
//! ```text
//! locals:  | thread-locals                     | thread control block
//!                                              ^ thread pointer (fs)
//!                                                +0x00, +0x10  thread pointer
//!                                                +0x28         stack canary
//!                                                +0x30         pointer guard
//! ```

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::signals::BlockedSignals;
use super::system_call::{retry_interrupted, system_call};
use super::valgrind::is_in_valgrind;
use super::{Errno, File, Mapping, PathBuffer, pid, read_link};

/// The companion of this process, and the memory that it needs.
#[derive(Debug)]
pub(crate) struct Companion {
    memory: Mapping,
    /// The companion's id, if the host itself must reap it.
    child: Option<usize>,
}

impl Companion {
    /// Starts `run` in a companion. `None` if the kernel gives no process, in Valgrind, and on
    /// processors for which there is no code here.
    ///
    /// There is one companion at a time: the one before must have ended.
    pub(crate) fn start(run: fn()) -> Option<Companion> {
        if !IS_SUPPORTED || is_in_valgrind() || !children_share_namespace() || companion_lives() {
            return None;
        }
        let mut memory = Mapping::anonymous(LOCALS_LEN + INTERMEDIATE_STACK_LEN + STACK_LEN).ok()?;
        let thread_pointer = set_up_locals(&mut memory)?;
        let stack_top = memory.bytes().as_ptr_range().end.addr();
        let start = Start { stack_top, thread_pointer, run, started: AtomicUsize::new(0) };
        let is_child = pid() == 1 || is_reaper();
        let blocked = BlockedSignals::all();
        // Until the kernel stores the id, the word must not look like that of a process that has
        // ended.
        TID.store(1, Ordering::Relaxed);
        // SAFETY: both stacks end where this memory is mapped, which stays until `join` has seen
        // the end of the companion. The intermediate process ends before `start` is gone.
        let started = unsafe {
            if is_child {
                start.start_companion();
            } else {
                let top = stack_top - STACK_LEN;
                let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FS | libc::CLONE_FILES;
                if let Ok(id) = clone(flags, top, 0, run_intermediate, (&raw const start).expose_provenance())
                {
                    // Another thread of the host may have reaped it, which does no harm.
                    let _ = reap(id);
                }
            }
            // With CLONE_VFORK the intermediate has stored the result before this thread goes on.
            start.started.load(Ordering::Acquire)
        };
        drop(blocked);
        if started == 0 {
            TID.store(0, Ordering::Relaxed);
            return None;
        }
        Some(Companion { memory, child: is_child.then_some(started) })
    }

    /// Waits for the end of the companion. If it does not come within some seconds, the companion's
    /// memory stays mapped for good.
    pub(crate) fn join(self) {
        // Signals would end the waits early.
        let _blocked = BlockedSignals::all();
        for _ in 0..PATIENCE {
            let id = TID.load(Ordering::Acquire);
            if id == 0 {
                if let Some(child) = self.child {
                    // It has given its memory up and is about to end.
                    let _ = reap(child);
                }
                return;
            }
            // NOTE: not a private futex, because the kernel's wake at the end of a thread is for a
            // shared one.
            let time = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            // SAFETY: the word and the time are valid for reads during the call.
            let _ =
                unsafe { system_call!(libc::SYS_futex, TID.as_ptr(), libc::FUTEX_WAIT, id, &raw const time) };
        }
        self.memory.leak();
    }
}

/// Whether there is a companion that has not ended.
#[inline]
pub(crate) fn companion_lives() -> bool {
    TID.load(Ordering::Acquire) != 0
}

/// Notes that there is no companion, in a forked child.
pub(crate) fn forget_companion_after_fork() {
    TID.store(0, Ordering::Relaxed);
}

/// Ends the calling process, which must not be the host.
pub(crate) fn exit_process() -> ! {
    loop {
        // SAFETY: the call does not return.
        let _ = unsafe { system_call!(libc::SYS_exit_group, 0) };
    }
}

/// Starts a thread of the companion that waits for the end of the process with this descriptor
/// (`pidfd_open`), then calls `ended`. The thread needs `stack`, which stays mapped for good.
///
/// # Errors
/// The kernel gives no thread.
pub(crate) fn watch_end(process: File, stack: Mapping, ended: fn()) -> Result<(), Errno> {
    WATCHED.store(process.fd() as u32, Ordering::Relaxed);
    std::mem::forget(process);
    let top = stack.bytes().as_ptr_range().end.addr();
    stack.leak();
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    // SAFETY: the stack stays mapped for good. `wait_for_end` takes a function as its argument.
    unsafe { clone(flags, top, 0, wait_for_end, ended as usize) }.map(|_| ())
}

/// The word of the companion's id: 0 if there is none. The kernel sets it to 0 when the companion
/// gives up the memory, however it ends. Its descriptors close a moment later.
static TID: AtomicU32 = AtomicU32::new(0);
/// The descriptor that [`wait_for_end`] waits for.
static WATCHED: AtomicU32 = AtomicU32::new(0);

/// What the intermediate process needs to start the companion.
struct Start {
    stack_top: usize,
    thread_pointer: usize,
    run: fn(),
    /// The companion's id; 0 if there is none.
    started: AtomicUsize,
}

impl Start {
    /// # Safety
    /// The stack must stay mapped until the companion has ended.
    unsafe fn start_companion(&self) {
        let flags =
            libc::CLONE_VM | libc::CLONE_SETTLS | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID;
        // SAFETY: the caller vouches for the stack. `run_companion` takes a function as its
        // argument.
        let id =
            unsafe { clone(flags, self.stack_top, self.thread_pointer, run_companion, self.run as usize) };
        self.started.store(id.unwrap_or(0), Ordering::Release);
    }
}

unsafe extern "C" fn run_intermediate(start: usize) -> ! {
    // SAFETY: `Companion::start` passes the address of a `Start`, and waits for this process.
    unsafe { (*std::ptr::with_exposed_provenance::<Start>(start)).start_companion() };
    exit_process()
}

unsafe extern "C" fn run_companion(run: usize) -> ! {
    // SAFETY: a name is a C string. `Companion::start` passes a function of this type.
    let run = unsafe {
        let _ = system_call!(libc::SYS_prctl, libc::PR_SET_NAME, c"alloc-tracker".as_ptr());
        std::mem::transmute::<usize, fn()>(run)
    };
    run();
    exit_process()
}

unsafe extern "C" fn wait_for_end(ended: usize) -> ! {
    // SAFETY: `watch_end` passes a function of this type.
    let ended = unsafe { std::mem::transmute::<usize, fn()>(ended) };
    let mut process =
        libc::pollfd { fd: WATCHED.load(Ordering::Relaxed) as i32, events: libc::POLLIN, revents: 0 };
    // SAFETY: the descriptor's struct is valid for the call. No time and no signal set is passed.
    while unsafe { system_call!(libc::SYS_ppoll, &raw mut process, 1, 0, 0, 0) } == Err(Errno(libc::EINTR)) {}
    ended();
    loop {
        // SAFETY: the call ends this thread alone.
        let _ = unsafe { system_call!(libc::SYS_exit, 0) };
    }
}

/// Waits for the end of a child that sends no signal at its end, and takes its exit status.
fn reap(id: usize) -> Result<(), Errno> {
    // SAFETY: no status is asked for.
    retry_interrupted(|| unsafe { system_call!(libc::SYS_wait4, id, 0, libc::__WALL, 0) }).map(|_| ())
}

/// Whether orphans among the descendants of this process become its children.
fn is_reaper() -> bool {
    let mut is_reaper = 0i32;
    // SAFETY: the pointer is valid for the write of an `int`.
    let _ = unsafe { system_call!(libc::SYS_prctl, libc::PR_GET_CHILD_SUBREAPER, &raw mut is_reaper) };
    is_reaper != 0
}

/// Whether children of this process get into its own namespace of process ids. After
/// `unshare(CLONE_NEWPID)` the first child becomes the init process of a new namespace. If that is
/// a child of the tracker and ends, the kernel lets no other child begin.
fn children_share_namespace() -> bool {
    let (mut own, mut childrens) = (PathBuffer::new(), PathBuffer::new());
    read_link(c"/proc/self/ns/pid", &mut own);
    read_link(c"/proc/self/ns/pid_for_children", &mut childrens);
    !own.is_empty() && own.as_bytes() == childrens.as_bytes()
}

/// Prepares the companion's thread-locals at the beginning of `memory`, and returns its thread
/// pointer.
fn set_up_locals(memory: &mut Mapping) -> Option<usize> {
    let pointer = memory.start().expose_provenance() + THREAD_POINTER_AT;
    #[cfg(target_arch = "x86_64")]
    {
        let (canary, pointer_guard): (u64, u64);
        // SAFETY: the instructions only read. Every thread has these words behind its thread
        // pointer.
        unsafe {
            std::arch::asm!(
                "mov {}, fs:[0x28]", "mov {}, fs:[0x30]",
                out(reg) canary, out(reg) pointer_guard,
                options(nostack, readonly, preserves_flags),
            );
        }
        let control_block = memory.slice_mut::<u64>().get_mut(THREAD_POINTER_AT / 8..)?;
        (control_block[0], control_block[0x10 / 8]) = (pointer as u64, pointer as u64);
        (control_block[0x28 / 8], control_block[0x30 / 8]) = (canary, pointer_guard);
    }
    Some(pointer)
}

/// Starts `begin(argument)` on the stack that ends at `top`, in a process or thread as the flags
/// say. The kernel uses the thread pointer only with CLONE_SETTLS, and [`TID`] only with the two
/// flags for ids.
///
/// # Safety
/// The stack must be mapped as long as the new process or thread uses it. All code that the new
/// process or thread runs must be ready to share this memory.
unsafe fn clone(
    flags: i32,
    top: usize,
    thread_pointer: usize,
    begin: unsafe extern "C" fn(usize) -> !,
    argument: usize,
) -> Result<usize, Errno> {
    // SAFETY: both words lie below the stack's end, where nothing else is. The new process takes
    // them off its stack and calls `begin`. The caller vouches for everything else.
    let result = unsafe {
        let stack = std::ptr::with_exposed_provenance_mut::<usize>(top - 16);
        stack.write(argument);
        stack.add(1).write(begin as usize);
        clone_onto(stack, flags, thread_pointer)
    };
    if result < 0 { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// Makes the system call. The new process takes an argument and a function off `stack`, and calls
/// that function, which does not return. Returns the id of the new process, or a negated error.
///
/// # Safety
/// `stack` must hold the argument and the function, at an address that is a multiple of 16, as the
/// calling convention asks. Otherwise as for [`clone`].
#[cfg(target_arch = "x86_64")]
unsafe fn clone_onto(stack: *mut usize, flags: i32, thread_pointer: usize) -> isize {
    let result;
    // SAFETY: the kernel changes rax, rcx and r11 of the caller, who vouches for the rest.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "pop rdi",
            "pop rax",
            "call rax",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as isize, in("rsi") stack,
            in("rdx") TID.as_ptr(), in("r10") TID.as_ptr(), in("r8") thread_pointer,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// As on x86-64.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_onto(stack: *mut usize, flags: i32, thread_pointer: usize) -> isize {
    let result;
    // SAFETY: the kernel changes x0 of the caller, who vouches for the rest.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "ldp x0, x9, [sp], #16",
            "blr x9",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone as isize,
            inlateout("x0") flags as isize => result,
            in("x1") stack, in("x2") TID.as_ptr(), in("x3") thread_pointer, in("x4") TID.as_ptr(),
            lateout("x9") _, lateout("x30") _,
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone_onto(_stack: *mut usize, _flags: i32, _thread_pointer: usize) -> isize {
    -(libc::ENOSYS as isize)
}

const IS_SUPPORTED: bool = cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)));

/// Bytes for the companion's thread-locals, which stay untouched, and its thread control block.
const LOCALS_LEN: usize = 64 << 10;
/// The control block has a page, more than any C library needs.
const THREAD_POINTER_AT: usize = LOCALS_LEN - (4 << 10);
const INTERMEDIATE_STACK_LEN: usize = 64 << 10;
/// Enough for everything that the companion does. No guard page protects its end.
const STACK_LEN: usize = 256 << 10;
/// How often the end of the companion is waited for, ten milliseconds each.
const PATIENCE: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ALONE;
    use std::sync::atomic::AtomicU64;

    static RUNS_IN: AtomicU32 = AtomicU32::new(0);
    static RUNS_AT: AtomicU64 = AtomicU64::new(0);

    fn run() {
        RUNS_IN.store(pid(), Ordering::Relaxed);
        let local = 0u8;
        RUNS_AT.store(std::hint::black_box(&raw const local).addr() as u64, Ordering::Relaxed);
    }

    #[test]
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    fn a_companion_is_another_process_with_the_same_memory() {
        let _alone = ALONE.lock();
        let companion = Companion::start(run).unwrap();
        let range = companion.memory.bytes().as_ptr_range();
        let range = range.start.addr() as u64..range.end.addr() as u64;
        companion.join();
        assert!(!companion_lives());
        assert!(RUNS_IN.load(Ordering::Relaxed) > 1 && RUNS_IN.load(Ordering::Relaxed) != pid());
        assert!(range.contains(&RUNS_AT.load(Ordering::Relaxed)));
        let mut status = 0;
        // SAFETY: the pointer is valid for the write of a status.
        let child = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
        assert_eq!((child, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ECHILD)));
    }
}
