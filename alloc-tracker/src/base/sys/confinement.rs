//! What the companion gives up, so that it is no way out of a sandbox: all capabilities, all
//! descriptors that it does not need, and nearly all system calls.
//!
//! In: descriptors and system calls to keep. Out: nothing. A kernel without `close_range` is an
//! error; other refusals are ignored. Never allocates.
//!
//! A host may put itself into a sandbox after the companion was started. The companion shares the
//! host's memory, so code that has taken over the host may take over the companion too. That code
//! gains the calls of the filter and no others.

use super::Errno;
use super::system_call::system_call;

/// Closes all descriptors of the calling process but these, which must be in ascending order.
///
/// # Errors
/// The kernel has no such call (before 5.9).
pub(crate) fn close_all_but(kept: &[i32]) -> Result<(), Errno> {
    let mut first = 0u32;
    for fd in kept {
        let fd = fd.unsigned_abs();
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers. Callers own all descriptors of the process.
    unsafe { system_call!(libc::SYS_close_range, first, last, 0) }.map(|_| ())
}

/// Gives up all capabilities and the right to gain any, makes a crash write no core file, and
/// leaves the host's working directory.
pub(crate) fn drop_rights() {
    let header = [CAPABILITY_VERSION, 0];
    let none = [0u32; 6];
    let no_core = [0u64; 2];
    // SAFETY: the structs are arrays of integers of the sizes that the kernel reads, and the path
    // is a C string.
    unsafe {
        let _ = system_call!(libc::SYS_chdir, c"/".as_ptr());
        let _ = system_call!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, no_core.as_ptr(), 0);
        let _ = system_call!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let _ = system_call!(libc::SYS_capset, header.as_ptr(), none.as_ptr());
    }
}

/// Makes a fault of the calling process end it without the kernel's own way to handle faults.
///
/// NOTE: before Linux 5.16 a signal that writes a core file ends all processes that share memory
/// with the faulty one, so the host too.
pub(crate) fn end_on_faults() {
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    let action = SignalAction {
        handler: end_at_once as extern "C" fn(i32) as usize,
        flags: SA_RESTORER,
        restorer: end_at_once as extern "C" fn(i32) as usize,
        mask: 0,
    };
    let mut set = 0u64;
    for fault in faults {
        set |= 1 << (fault - 1);
        // SAFETY: the action is valid for reads, and no old one is asked for.
        let _ = unsafe { system_call!(libc::SYS_rt_sigaction, fault, &raw const action, 0, 8) };
    }
    // SAFETY: the set is valid for reads, and no old one is asked for.
    let _ = unsafe { system_call!(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw const set, 0, 8) };
}

extern "C" fn end_at_once(_signal: i32) {
    loop {
        // SAFETY: the call does not return.
        let _ = unsafe { system_call!(libc::SYS_exit_group, 1) };
    }
}

/// The kernel's own struct.
#[repr(C)]
struct SignalAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// The action has a restorer, without which x86-64 starts no handler. This one is never used: the
/// handler does not return.
const SA_RESTORER: u64 = 0x0400_0000;

/// A system call that a filter lets through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllowedCall {
    number: libc::c_long,
    /// The only first argument that is allowed, 32 bits of it; `None` for any.
    first_argument: Option<u32>,
}

impl AllowedCall {
    /// The call with any arguments.
    pub(crate) const fn any(number: libc::c_long) -> AllowedCall {
        AllowedCall { number, first_argument: None }
    }

    /// The call with this first argument.
    pub(crate) const fn with(number: libc::c_long, first_argument: u32) -> AllowedCall {
        AllowedCall { number, first_argument: Some(first_argument) }
    }
}

/// Makes every system call but these fail with EPERM, in all threads of the calling process.
pub(crate) fn forbid_calls_but(allowed: &[AllowedCall]) {
    let mut steps = [Step::RETURN_ERROR; MAX_STEPS];
    let mut len = 0;
    let mut add = |step: Step| {
        if let Some(slot) = steps.get_mut(len) {
            *slot = step;
            len += 1;
        }
    };
    add(Step::load(ARCHITECTURE_AT));
    add(Step::skip_if_equal(ARCHITECTURE, 1));
    add(Step::RETURN_ERROR);
    add(Step::load(NUMBER_AT));
    for call in allowed {
        let number = call.number as u32;
        match call.first_argument {
            None => add(Step::skip_unless_equal(number, 1)),
            Some(argument) => {
                add(Step::skip_unless_equal(number, 4));
                add(Step::load(FIRST_ARGUMENT_AT));
                add(Step::skip_if_equal(argument, 1));
                add(Step::RETURN_ERROR);
            }
        }
        add(Step::ALLOW);
    }
    add(Step::RETURN_ERROR);
    let program = Program { len: len as u16, steps: steps.as_ptr() };
    // SAFETY: the program and its steps are valid for reads during the call.
    let _ = unsafe { system_call!(libc::SYS_seccomp, SET_MODE_FILTER, FOR_ALL_THREADS, &raw const program) };
}

/// A step of a filter: see seccomp(2), and "The BSD Packet Filter" (McCanne and Jacobson, 1993).
#[derive(Clone, Copy)]
#[repr(C)]
struct Step {
    code: u16,
    if_equal: u8,
    if_not: u8,
    value: u32,
}

impl Step {
    const RETURN_ERROR: Step = Step::returning(0x0005_0000 | libc::EPERM as u32);
    const ALLOW: Step = Step::returning(0x7FFF_0000);

    const fn returning(value: u32) -> Step {
        Step { code: 0x06, if_equal: 0, if_not: 0, value }
    }

    /// Loads a word of the description of the call.
    const fn load(offset: u32) -> Step {
        Step { code: 0x20, if_equal: 0, if_not: 0, value: offset }
    }

    /// Skips this many steps if the loaded word has this value.
    const fn skip_if_equal(value: u32, steps: u8) -> Step {
        Step { code: 0x15, if_equal: steps, if_not: 0, value }
    }

    /// Skips this many steps unless the loaded word has this value.
    const fn skip_unless_equal(value: u32, steps: u8) -> Step {
        Step { code: 0x15, if_equal: 0, if_not: steps, value }
    }
}

#[repr(C)]
struct Program {
    len: u16,
    steps: *const Step,
}

/// The version of the kernel's struct with two words of capabilities.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
const SET_MODE_FILTER: u32 = 1;
/// Also for threads that the process has already.
const FOR_ALL_THREADS: u32 = 1;
const MAX_STEPS: usize = 96;
/// Offsets in the kernel's description of a call.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// The lower half of the first argument.
const FIRST_ARGUMENT_AT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURE: u32 = 0xC000_003E;
