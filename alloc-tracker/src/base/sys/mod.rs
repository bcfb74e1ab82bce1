//! The services of the operating system that the crate uses: memory, files, locks, a process, the
//! clock.
//!
//! In: plain numbers and byte strings. Out: plain numbers and [`Errno`]. Nothing here panics or
//! allocates through the global allocator. Nothing here calls a function of the C library once a
//! recording has begun, because the program may have replaced that function (`system_call`). So
//! `errno` stays as it is.

mod companion;
mod confinement;
mod copy;
mod errno;
mod file;
mod futex;
mod inspect;
mod mapping;
mod own_mappings;
mod process;
mod readable;
mod signals;
pub(crate) mod system_call;
mod text;
mod usage;
mod valgrind;
mod vdso;

pub(crate) use companion::{
    Companion, companion_lives, exit_process, forget_companion_after_fork, watch_end,
};
pub(crate) use confinement::{AllowedCall, close_all_but, drop_rights, end_on_faults, forbid_calls_but};
pub(crate) use copy::{allow_reader, copy_process, copy_runs, thread_pointer};
pub(crate) use errno::{Errno, ErrnoGuard, describe_errno};
pub(crate) use file::{File, FileIdentity, RereadFile, close_descriptor, read_at};
pub(crate) use futex::{FutexGuard, FutexLock, futex_wait, futex_wake, futex_wake_all};
pub(crate) use inspect::{FileStatus, copy_own_memory, resident_bytes};
pub(crate) use mapping::{Mapping, Plain, discard_resident, mapped_bytes, replace_leaked, unmap_leaked};
pub(crate) use own_mappings::for_each_own_mapping;
pub(crate) use process::{
    env_var, fill_random, is_privileged, make_symlink, membarrier, nap, page_size, pid, print_to_stderr,
    read_file, read_link, remove_file, thread_name, tid, working_directory, yield_now,
};
pub(crate) use readable::{SMALLEST_PAGE, is_readable, readable_until};
pub(crate) use signals::BlockedSignals;
pub(crate) use text::{PathBuffer, Text};
pub(crate) use usage::{FaultsOf, ProcessSize, address_space_limit, first_number, page_faults};
pub(crate) use vdso::{clock_ns, prepare as prepare_clock};
