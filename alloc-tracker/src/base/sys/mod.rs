//! What the rest of the crate needs from the operating system, without allocating. In: plain numbers and byte
//! strings. Out: plain numbers and [`Errno`]. Nothing here panics, allocates, or leaves `errno` changed for the host
//! when called under an [`ErrnoGuard`].

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod bare_thread;
mod errno;
mod file;
mod futex;
mod helper;
mod mapping;
mod process;
mod signals;
mod text;

pub(crate) use errno::{Errno, ErrnoGuard, describe};
pub(crate) use file::{File, Identity, Reread};
pub(crate) use futex::{FutexLock, wait, wake};
pub(crate) use helper::Helper;
pub(crate) use mapping::{Mapping, Plain, let_go, mapped_bytes, unmap};
pub(crate) use process::{
    clock_ns, complain, environment, is_privileged, link, page_size, pid, random, read_file, read_link,
    remove, thread_name, tid, yield_now,
};
pub(crate) use text::{PathBuffer, Text};
