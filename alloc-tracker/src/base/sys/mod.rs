//! The services of the operating system that the crate uses: memory, files, locks, a thread, the
//! clock.
//!
//! In: plain numbers and byte strings. Out: plain numbers and [`Errno`]. Nothing here panics or
//! allocates through the global allocator. Calls may change `errno`, so callers inside of the hook
//! hold an [`ErrnoGuard`].

mod background_thread;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod bare_thread;
mod errno;
mod file;
mod futex;
mod mapping;
mod process;
mod readable;
mod signals;
mod text;
mod usage;

pub(crate) use background_thread::BackgroundThread;
pub(crate) use errno::{Errno, ErrnoGuard, describe_errno};
pub(crate) use file::{File, FileIdentity, RereadFile};
pub(crate) use futex::{FutexLock, futex_wait, futex_wake};
pub(crate) use mapping::{Mapping, Plain, discard_resident, mapped_bytes, replace_leaked, unmap_leaked};
pub(crate) use process::{
    clock_ns, env_var, fill_random, is_privileged, make_symlink, page_size, pid, print_to_stderr, read_file,
    read_link, remove_file, thread_name, tid, yield_now,
};
pub(crate) use readable::{SMALLEST_PAGE, is_readable, readable_until};
pub(crate) use text::{PathBuffer, Text};
pub(crate) use usage::{FaultsOf, ProcessSize, first_number, page_faults};
