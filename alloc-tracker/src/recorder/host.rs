//! What the drain process knows of its host: its process id, whether it has ended, and whether it
//! executes another program.
//!
//! In: files of `/proc`, which the drain process opens before it forbids itself to open files. Out:
//! answers for the drain process, also while it waits for a lock that the host may never release.
//! Never locks, never allocates.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use crate::base::sys::{self, File, ProcessSize, Text};

/// Notes the host of a drain process that is about to begin: the calling process.
pub(super) fn set_host() {
    ID.store(sys::pid(), Ordering::Relaxed);
    IS_GONE.store(false, Ordering::Relaxed);
    forget_files();
}

/// Notes that no drain process has the files open any more: the descriptors meant nothing in any
/// other process.
pub(super) fn forget_files() {
    [&OWN_SIZE, &SIZE, &STATUS].iter().for_each(|fd| fd.store(NOT_OPEN, Ordering::Relaxed));
}

/// Returns the process id of the host.
pub(super) fn id() -> u32 {
    ID.load(Ordering::Relaxed)
}

/// Opens what the drain process reads about its host, and calls `f` with each descriptor. The
/// descriptors stay open until the drain process ends.
pub(super) fn open_files(f: &mut dyn FnMut(i32)) {
    let mut open = |process: std::fmt::Arguments<'_>, name: &str, fd: &AtomicI32| {
        let mut path = Text::<64>::new();
        if write!(path, "/proc/{process}/{name}").is_ok()
            && let Some(path) = path.as_c_str()
            && let Ok(file) = File::open(path, libc::O_RDONLY, 0)
        {
            let opened = file.move_to_high_fd().into_fd();
            fd.store(opened, Ordering::Relaxed);
            f(opened);
        }
    };
    let host = id();
    open(format_args!("self"), "statm", &OWN_SIZE);
    open(format_args!("{host}"), "statm", &SIZE);
    open(format_args!("{host}"), "stat", &STATUS);
}

/// Notes that the host has ended.
pub(super) fn set_gone() {
    IS_GONE.store(true, Ordering::SeqCst);
}

/// Whether the host has ended.
pub(super) fn is_gone() -> bool {
    IS_GONE.load(Ordering::SeqCst)
}

/// Whether the program that is recorded has ended: the host has ended, or executes another program.
/// Only for the drain process.
pub(super) fn has_left_program() -> bool {
    is_gone() || executes_another_program()
}

/// Whether the host executes another program, so that the drain process is alone with the memory of
/// the old one.
///
/// While both processes share memory, the kernel shows the same size for both. The host may map
/// memory between two looks, so many looks must differ. A host whose first thread has ended shows
/// no size.
pub(super) fn executes_another_program() -> bool {
    let (own, host) = (OWN_SIZE.load(Ordering::Relaxed), SIZE.load(Ordering::Relaxed));
    if own == NOT_OPEN || host == NOT_OPEN {
        return false;
    }
    (0..LOOKS).all(|_| {
        let (own, host) = (size_in(own), size_in(host));
        host != 0 && own != host
    })
}

/// Returns the virtual size that this file shows; 0 if it cannot be read.
fn size_in(fd: i32) -> u64 {
    let mut buffer = [0; 128];
    let len = sys::read_at(fd, &mut buffer, 0).unwrap_or(0);
    ProcessSize::of_statm(buffer.get(..len).unwrap_or_default()).virtual_bytes
}

/// Returns the minor and major page faults of the host; `None` outside of the drain process. They
/// are the tenth and the twelfth field, and the second field, a name in parentheses, may have
/// spaces.
pub(super) fn page_faults() -> Option<(u64, u64)> {
    let fd = STATUS.load(Ordering::Relaxed);
    if fd == NOT_OPEN {
        return None;
    }
    let mut buffer = [0; 1024];
    let len = sys::read_at(fd, &mut buffer, 0).ok()?;
    let text = buffer.get(..len)?;
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text.get(name_end + 1..)?.split(|byte| *byte == b' ').skip(1);
    let minor = fields.nth(7).map(sys::first_number)?;
    Some((minor, fields.nth(1).map(sys::first_number)?))
}

static ID: AtomicU32 = AtomicU32::new(0);
static IS_GONE: AtomicBool = AtomicBool::new(false);
/// Descriptors in the drain process: the sizes of both processes, and the status of the host.
static OWN_SIZE: AtomicI32 = AtomicI32::new(NOT_OPEN);
static SIZE: AtomicI32 = AtomicI32::new(NOT_OPEN);
static STATUS: AtomicI32 = AtomicI32::new(NOT_OPEN);
const NOT_OPEN: i32 = -1;
/// How often the sizes are compared. A host that maps and unmaps memory all the time differs by
/// chance in a part of the looks.
const LOOKS: u32 = 32;
