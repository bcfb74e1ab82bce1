//! The system calls of a program: without a recording they are those of the program itself. While a
//! recording runs, the tracker adds only the calls that docs/LIMITS.md lists.

mod scenario;

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    traced::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    println!("skipped: the registers of this processor");
    ExitCode::SUCCESS
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod traced {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::collections::BTreeSet;
    use std::hint::black_box;
    use std::os::unix::process::CommandExt;
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicBool, Ordering};

    use alloc_tracker::AllocTracker;

    use super::scenario::{self, Run, Scenario};

    /// The tracker, or the system's allocator alone if the environment has `WITHOUT_TRACKER`.
    struct Switch(AllocTracker);

    static IS_BARE: AtomicBool = AtomicBool::new(false);

    /// Reads the environment before the first heap event.
    extern "C" fn choose() {
        // SAFETY: no other thread changes the environment before `main`.
        let bare = unsafe { !libc::getenv(c"WITHOUT_TRACKER".as_ptr()).is_null() };
        IS_BARE.store(bare, Ordering::Relaxed);
    }

    #[used]
    #[unsafe(link_section = ".init_array")]
    static CHOOSE: extern "C" fn() = choose;

    // SAFETY: both allocators keep the contract, and the choice does not change after the first
    // event.
    unsafe impl GlobalAlloc for Switch {
        #[inline(always)]
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe {
                if IS_BARE.load(Ordering::Relaxed) { System.alloc(layout) } else { self.0.alloc(layout) }
            }
        }

        #[inline(always)]
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise.
            unsafe {
                if IS_BARE.load(Ordering::Relaxed) {
                    System.dealloc(block, layout);
                } else {
                    self.0.dealloc(block, layout);
                }
            }
        }
    }

    #[global_allocator]
    static ALLOC: Switch = Switch(AllocTracker::system());

    pub(super) fn main() -> ExitCode {
        scenario::main(&[
            Scenario { name: "off", child: work, check: check_off },
            Scenario { name: "recorded", child: work, check: check_recorded },
            Scenario { name: "allow_list", child: in_sandbox, check: check_allow_list },
        ])
    }

    /// Has events of many sizes and call sites on two threads, more than a ring holds. The call of
    /// `getppid` marks the beginning and the end of what is compared.
    fn work() {
        allocate(100);
        mark();
        allocate(EVENTS);
        let other = std::thread::spawn(|| allocate(EVENTS));
        assert_eq!(other.join().unwrap(), EVENTS);
        allocate(EVENTS);
        mark();
    }

    fn mark() {
        // SAFETY: no preconditions.
        unsafe { libc::getppid() };
    }

    fn allocate(count: usize) -> usize {
        (0..count).map(|round| usize::from(black_box(vec![1u8; 1 + round % 900])[0])).sum()
    }

    const EVENTS: usize = 20_000;

    /// Returns the numbers of the system calls of a run, with the thread that made each.
    fn calls_of(run: Run) -> Vec<(libc::pid_t, i64)> {
        let (mut command, _folder) = run.into_command();
        // SAFETY: the function makes one system call.
        unsafe {
            command.pre_exec(|| {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                Ok(())
            });
        }
        #[allow(clippy::zombie_processes, reason = "the loop below waits for every thread of it")]
        let first = command.spawn().unwrap().id() as libc::pid_t;
        let mut calls = Vec::new();
        let mut inside = BTreeSet::new();
        let mut known = BTreeSet::new();
        loop {
            let mut status = 0;
            // SAFETY: the pointer is valid for the write of a status.
            let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
            assert!(thread > 0, "all threads have ended without the first");
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                if thread == first {
                    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
                    return calls;
                }
                continue;
            }
            let mut signal = libc::WSTOPSIG(status);
            if known.insert(thread) {
                // The first stop of the program is that of `exec`, and a thread's is a SIGSTOP.
                let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
                // SAFETY: the thread is stopped.
                unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, thread, 0, options) };
                signal = 0;
            } else if signal == libc::SIGTRAP | 0x80 {
                signal = 0;
                if !inside.remove(&thread) {
                    inside.insert(thread);
                    calls.push((thread, number_of_call(thread)));
                }
            } else if signal == libc::SIGTRAP {
                signal = 0;
            }
            // SAFETY: the thread is stopped.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, signal) };
        }
    }

    fn number_of_call(thread: libc::pid_t) -> i64 {
        // SAFETY: the struct is plain integers, and the thread is stopped.
        unsafe {
            let mut registers: libc::user_regs_struct = std::mem::zeroed();
            assert_eq!(libc::ptrace(libc::PTRACE_GETREGS, thread, 0, &raw mut registers), 0);
            registers.orig_rax as i64
        }
    }

    /// How often a program and its threads make each system call is the same with the tracker and
    /// without, from its start to its end.
    fn check_off(name: &'static str) {
        let counted = |run: Run| {
            // Two threads meet in the C library's locks in one run and not in another.
            let ignored = [libc::SYS_futex, libc::SYS_madvise];
            let mut numbers: Vec<i64> = calls_of(run).into_iter().map(|(_, number)| number).collect();
            numbers.retain(|number| !ignored.contains(number));
            numbers.sort_unstable();
            numbers
        };
        let bare = counted(Run::of(name).env("WITHOUT_TRACKER", "1"));
        let linked = counted(Run::of(name));
        assert!(bare.len() > 40);
        assert_eq!(linked, bare);
    }

    /// Between the marks the program's own threads make no call that neither the program itself
    /// makes nor the documentation lists.
    fn check_recorded(name: &'static str) {
        let between = |run: Run| {
            let calls = calls_of(run);
            let marks: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].1 == libc::SYS_getppid).collect();
            let main = calls[0].0;
            // The drain process is no thread of the program: it has begun before the first mark.
            let before: BTreeSet<libc::pid_t> = calls[..marks[0]].iter().map(|call| call.0).collect();
            let calls = calls[marks[0]..marks[1]].iter();
            let own = calls.filter(|(thread, _)| *thread == main || !before.contains(thread));
            own.map(|call| call.1).collect::<BTreeSet<i64>>()
        };
        let own = between(Run::of(name).env("WITHOUT_TRACKER", "1"));
        let recorded = between(Run::of(name).traced());
        let documented = BTreeSet::from([
            libc::SYS_futex,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_madvise,
            libc::SYS_rt_sigprocmask,
            libc::SYS_gettid,
            libc::SYS_getpid,
            libc::SYS_prctl,
        ]);
        let added: Vec<i64> = recorded.difference(&own).copied().collect();
        let unknown: Vec<i64> = added.iter().copied().filter(|call| !documented.contains(call)).collect();
        assert_eq!(unknown, [0i64; 0], "added: {added:?}");
    }

    /// Forbids itself all system calls but a few, on pain of death, and has events of known code
    /// and of code that it runs for the first time.
    fn in_sandbox() {
        allocate(100);
        let allowed = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_close,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_mprotect,
            libc::SYS_madvise,
            libc::SYS_brk,
            libc::SYS_futex,
            libc::SYS_rt_sigprocmask,
            libc::SYS_sigaltstack,
            libc::SYS_exit_group,
        ];
        let step = |code, value, if_equal| libc::sock_filter { code, jt: if_equal, jf: 0, k: value };
        let mut steps = vec![step(0x20, 0, 0)];
        for (at, call) in allowed.iter().enumerate() {
            steps.push(step(0x15, *call as u32, (allowed.len() - at) as u8));
        }
        steps.push(step(0x06, libc::SECCOMP_RET_KILL_PROCESS, 0));
        steps.push(step(0x06, libc::SECCOMP_RET_ALLOW, 0));
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the program and its steps are valid for the call.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let filter = libc::SECCOMP_SET_MODE_FILTER;
            assert_eq!(libc::syscall(libc::SYS_seccomp, filter, 0, &raw const program), 0);
        }
        allocate(EVENTS);
        for _ in 0..EVENTS {
            drop(black_box(vec![1u8; MARK]));
        }
    }

    const MARK: usize = 77_777;

    fn check_allow_list(name: &'static str) {
        Run::of(name).env("WITHOUT_TRACKER", "1").finish().assert_quiet(0);
        Run::of(name).finish().assert_quiet(0);
        let outcome = Run::of(name).traced().finish();
        outcome.assert_quiet(0);
        assert_eq!(outcome.whole_replay().allocs(MARK as u64).count(), EVENTS);
    }
}
