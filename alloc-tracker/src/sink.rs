//! Where frames go: the dump, and beside it the sidecar that holds the frame that is being filled. In: a frame in the
//! buffer that this module owns. Out: bytes in files. Called under the recorder's lock; never allocates; an error
//! is returned, never raised in the host.

use std::sync::atomic::{AtomicU64, Ordering};

use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, TAIL_HEADER_LEN, TAIL_SUFFIX};
use alloc_dump::tail;

use crate::sys::{self, Errno, File, Identity, Mapping, PathBuffer};

/// A dump that is being written.
pub(crate) struct Sink {
    file: File,
    identity: Identity,
    /// Bytes of the dump that are whole frames.
    written: u64,
    /// Number of the frame that is being filled.
    seq: u32,
    /// The sidecar's page of header, then the frame that is being filled.
    buffer: Mapping,
    /// Path of the sidecar; empty if there is none and `buffer` is the process's own memory.
    tail_path: PathBuffer,
}

/// Why a dump cannot be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Another process of the same `profiler-cli run` has this dump.
    Taken,
    /// Another process is writing it.
    Locked,
    /// The path is too long or has a zero byte in it.
    Path,
    /// The system refuses.
    System(Errno),
}

/// Room for records in one frame. PERF: large enough that a write costs nothing per event, small enough to stay in
/// the second-level cache.
const FRAME_LEN: usize = 256 << 10;

impl Sink {
    /// Creates the dump and its sidecar, readable by this user alone. With `exclusive` a file that exists is left alone.
    pub(crate) fn create(path: &PathBuffer, exclusive: bool, header: &Header) -> Result<Sink, OpenError> {
        let c_path = path.as_c_str().ok_or(OpenError::Path)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NOCTTY;
        let file = File::open(c_path, if exclusive { flags | libc::O_EXCL } else { flags }, 0o600);
        let file = file.map_err(|errno| match errno.0 {
            libc::EEXIST => OpenError::Taken,
            _ => OpenError::System(errno),
        })?;
        let identity = file.identity().map_err(OpenError::System)?;
        // A device or a pipe may well have several writers.
        if identity.regular && !file.try_lock() {
            return Err(OpenError::Locked);
        }
        if identity.regular {
            file.truncate(0).and_then(|()| file.set_mode(0o600)).map_err(OpenError::System)?;
        }
        file.write_all(&header.encode()).map_err(OpenError::System)?;
        let mut tail_path = PathBuffer::of(path.as_bytes());
        tail_path.push(TAIL_SUFFIX.as_bytes());
        let shared = if identity.regular { create_tail(&tail_path, header) } else { None };
        let buffer = match shared {
            Some(buffer) => buffer,
            None => {
                tail_path.clear();
                Mapping::anonymous(TAIL_HEADER_LEN + FRAME_LEN).map_err(OpenError::System)?
            }
        };
        let written = header.encode().len() as u64;
        Ok(Sink { file, identity, written, seq: 0, buffer, tail_path })
    }

    /// The frame that is being filled: room for its header, then its records.
    #[inline]
    pub(crate) fn frame(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut().get_mut(TAIL_HEADER_LEN..).unwrap_or_default()
    }

    /// The number of the frame that is being filled.
    pub(crate) fn seq(&self) -> u32 {
        self.seq
    }

    /// Says that the first `len` bytes of the frame's records are whole: from here on they survive the process.
    #[inline]
    pub(crate) fn publish(&self, len: usize) {
        self.tail_word(tail::LEN_OFFSET).store(len as u64, Ordering::Release);
    }

    /// Appends the sealed frame of `len` bytes to the dump and begins the next one.
    pub(crate) fn write_frame(&mut self, len: usize) -> Result<(), Errno> {
        if !self.has_its_descriptor() {
            return Err(Errno(libc::EBADF));
        }
        let frame = self.buffer.bytes_mut().get(TAIL_HEADER_LEN..TAIL_HEADER_LEN + len).unwrap_or_default();
        if let Err(errno) = self.file.write_all(frame) {
            if self.identity.regular {
                // What was written of it helps nobody, and the sidecar has the whole of it.
                let _ = self.file.truncate(self.written);
            }
            return Err(errno);
        }
        self.written += len as u64;
        self.seq += 1;
        self.publish(0);
        self.tail_word(tail::SEQ_OFFSET).store(u64::from(self.seq), Ordering::Release);
        Ok(())
    }

    /// The recording is over and whole: the sidecar has nothing more to keep.
    pub(crate) fn finish(self) {
        if let Some(path) = self.tail_path.as_c_str() {
            sys::remove(path);
        }
        self.close();
    }

    /// The recording stops here because of this error: the sidecar stays, with the last frame in it.
    pub(crate) fn abandon(self, errno: Errno) {
        self.tail_word(tail::STATE_OFFSET).store(errno.0 as u64, Ordering::Release);
        self.close();
    }

    /// Whether our descriptor is still that of the dump: the host may have closed it, and opened a file of its own
    /// under the same number.
    fn has_its_descriptor(&self) -> bool {
        self.file.identity().is_ok_and(|now| now.same_file(&self.identity))
    }

    fn close(self) {
        if self.has_its_descriptor() {
            // A forked child has the descriptor too, and would keep the lock.
            self.file.unlock();
        } else {
            // It is the host's to close.
            std::mem::forget(self.file);
        }
    }

    #[inline]
    fn tail_word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the header page is mapped as long as `self` lives, all offsets are multiples of eight inside it, and
        // this process touches these words only here.
        unsafe { AtomicU64::from_ptr(self.buffer.start().add(offset).cast()) }
    }
}

/// `None` if there can be no sidecar: the recording then has no copy of its last frame outside the process.
fn create_tail(path: &PathBuffer, header: &Header) -> Option<Mapping> {
    let c_path = path.as_c_str()?;
    sys::remove(c_path);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = File::open(c_path, flags, 0o600).ok()?;
    let len = TAIL_HEADER_LEN + FRAME_LEN;
    let mapping = file.allocate(len as u64).and_then(|()| Mapping::shared(&file, len));
    let Ok(mut mapping) = mapping else {
        sys::remove(c_path);
        return None;
    };
    let identity = tail::encode_identity(&header.session);
    mapping.bytes_mut().get_mut(..identity.len())?.copy_from_slice(&identity);
    let pid = mapping.bytes_mut().get_mut(tail::PID_OFFSET..tail::PID_OFFSET + 8)?;
    pid.copy_from_slice(&u64::from(sys::pid()).to_le_bytes());
    Some(mapping)
}

const _: () = assert!(FRAME_HEADER_LEN + alloc_dump::layout::MAX_TEXT * 3 < FRAME_LEN);
