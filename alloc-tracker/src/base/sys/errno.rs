//! Error numbers of the C library, and keeping the host's `errno` as it was.
//!
//! In: the `errno` of the calling thread. Out: [`Errno`] and its text. Never allocates.

use std::fmt::Write;

use super::Text;

/// An error number of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// Returns the error of the system call that failed last on this thread.
    pub(crate) fn last() -> Errno {
        // SAFETY: the C library returns a pointer to this thread's `errno`, which is valid as long
        // as the thread lives.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.0)
    }
}

/// Restores, when dropped, the `errno` that the host had when the guard was made.
///
/// Programs read `errno` after they have allocated. Without the guard this would go wrong:
///
/// ```text
/// host      open("missing") fails                       errno = ENOENT
/// host      format!("cannot open {path}") allocates
/// tracker     madvise(...) fails, without harm          errno = EINVAL
/// host      reports errno                               "Invalid argument"
/// ```
pub(crate) struct ErrnoGuard(i32);

impl ErrnoGuard {
    pub(crate) fn new() -> ErrnoGuard {
        ErrnoGuard(Errno::last().0)
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        // SAFETY: the pointer is valid, as in `Errno::last`, and no other thread uses it.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

/// Returns the text for an error number, such as "No space left on device".
///
/// The C library's own function is not used. It may look for a translation, with its locks and its
/// allocator, and the calling thread may be one that the C library does not know.
pub(crate) fn describe_errno(errno: Errno) -> Text<128> {
    let mut text = Text::new();
    let known = match errno.0 {
        libc::EPERM => "Operation not permitted",
        libc::ENOENT => "No such file or directory",
        libc::EINTR => "Interrupted system call",
        libc::EIO => "Input/output error",
        libc::ENXIO => "No such device or address",
        libc::EBADF => "Bad file descriptor",
        libc::EAGAIN => "Resource temporarily unavailable",
        libc::ENOMEM => "Cannot allocate memory",
        libc::EACCES => "Permission denied",
        libc::EBUSY => "Device or resource busy",
        libc::EEXIST => "File exists",
        libc::ENODEV => "No such device",
        libc::ENOTDIR => "Not a directory",
        libc::EISDIR => "Is a directory",
        libc::EINVAL => "Invalid argument",
        libc::ENFILE => "Too many open files in system",
        libc::EMFILE => "Too many open files",
        libc::ETXTBSY => "Text file busy",
        libc::EFBIG => "File too large",
        libc::ENOSPC => "No space left on device",
        libc::ESPIPE => "Illegal seek",
        libc::EROFS => "Read-only file system",
        libc::EPIPE => "Broken pipe",
        libc::ENAMETOOLONG => "File name too long",
        libc::ENOSYS => "Function not implemented",
        libc::ELOOP => "Too many levels of symbolic links",
        libc::EOVERFLOW => "Value too large for defined data type",
        libc::EOPNOTSUPP => "Operation not supported",
        libc::ESTALE => "Stale file handle",
        libc::EDQUOT => "Disk quota exceeded",
        other => {
            let _ = write!(text, "error {other}");
            return text;
        }
    };
    text.push(known.as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_text_of_the_system() {
        let mut known = 0;
        for number in 1..150 {
            let text = describe_errno(Errno(number));
            let text = std::str::from_utf8(text.as_bytes()).unwrap();
            if text == format!("error {number}") {
                continue;
            }
            known += 1;
            let system = std::io::Error::from_raw_os_error(number).to_string();
            assert_eq!(format!("{text} (os error {number})"), system);
        }
        assert!(known >= 30, "{known}");
    }
}
