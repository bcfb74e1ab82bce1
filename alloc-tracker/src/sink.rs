//! Where records go: the dump, and beside it the sidecar with all that is not in the dump yet. In: a frame in the
//! buffer that this module owns, commits. Out: bytes in files. Called under the recorder's lock; never allocates; an
//! error is returned, never raised in the host.

use std::ffi::CStr;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, MAGIC, SIDECAR_MEMORY_PREFIX, SIDECAR_SUFFIX};
use alloc_dump::sidecar::{
    self as sidecar_format, Commit, FRAME_CAPACITY, FRAME_OFFSET, RING_LEN, RINGS_START,
};

use crate::settings::Sidecar;
use crate::sidecar;
use crate::sys::{self, Errno, File, Identity, Mapping, PathBuffer, Text};

/// A dump that is being written.
pub(crate) struct Sink {
    file: File,
    identity: Identity,
    /// Bytes of the dump that are whole frames.
    written: u64,
    /// Number of the frame that is being filled.
    seq: u32,
    commits: u64,
    /// The sidecar but for its rings.
    buffer: Mapping,
    /// The sidecar's file, for rings to come; `None` if there is none and everything is the process's own memory.
    tail: Option<(File, Identity)>,
    sidecar_path: PathBuffer,
    /// The link to it beside the dump, if it is elsewhere itself.
    sidecar_link: PathBuffer,
    /// Lanes that are not in the sidecar's file.
    unprotected: u64,
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
    /// There is a file already, with something else in it than a dump.
    NotADump,
    /// The system refuses.
    System(Errno),
}

impl Sink {
    /// Creates the dump and its sidecar, readable by this user alone. With `exclusive` a file that exists is left alone, without
    /// it one that is no dump.
    pub(crate) fn create(
        path: &PathBuffer,
        exclusive: bool,
        sidecar: Sidecar,
        header: &Header,
    ) -> Result<Sink, OpenError> {
        let c_path = path.as_c_str().ok_or(OpenError::Path)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NOCTTY;
        let file = File::open(c_path, if exclusive { flags | libc::O_EXCL } else { flags }, 0o600);
        let file = file.map_err(|errno| match errno.0 {
            libc::EEXIST => OpenError::Taken,
            _ => OpenError::System(errno),
        })?;
        let file = file.out_of_the_way();
        let identity = file.identity().map_err(OpenError::System)?;
        // A device or a pipe may well have several writers.
        if identity.regular && !file.try_lock() {
            return Err(OpenError::Locked);
        }
        if identity.regular {
            // Again, now that nobody else can write it. PERF: what has ever been cut off some file systems write to the disk at once
            // when it is closed.
            if !file.identity().map_err(OpenError::System)?.empty {
                if !is_dump(c_path, &identity) {
                    return Err(OpenError::NotADump);
                }
                file.truncate(0).map_err(OpenError::System)?;
            }
            file.set_mode(0o600).map_err(OpenError::System)?;
        }
        file.write_all(&header.encode()).map_err(OpenError::System)?;
        let mut sidecar_path = PathBuffer::of(path.as_bytes());
        sidecar_path.push(SIDECAR_SUFFIX.as_bytes());
        let mut sidecar_link = PathBuffer::new();
        let shared = match sidecar {
            _ if !identity.regular => None,
            Sidecar::Beside if !file.is_copied_on_write() => {
                remove_sidecar(&sidecar_path);
                create_sidecar(&sidecar_path)
            }
            _ => {
                remove_sidecar(&sidecar_path);
                std::mem::swap(&mut sidecar_path, &mut sidecar_link);
                sidecar_path.push(SIDECAR_MEMORY_PREFIX.as_bytes());
                let mut name = Text::<64>::new();
                let random = u128::from_le_bytes(header.session);
                let _ = name.write_fmt(format_args!("{random:032x}{SIDECAR_SUFFIX}"));
                sidecar_path.push(name.as_bytes());
                create_linked_sidecar(&sidecar_path, &sidecar_link)
            }
        };
        let (mut buffer, tail) = match shared {
            Some((buffer, file, identity)) => (buffer, Some((file, identity))),
            None => {
                sidecar_path.clear();
                sidecar_link.clear();
                (Mapping::anonymous(RINGS_START).map_err(OpenError::System)?, None)
            }
        };
        if let Some(place) = buffer.bytes_mut().get_mut(..sidecar_format::IDENTITY_LEN) {
            place.copy_from_slice(&sidecar_format::encode_identity(&header.session));
        }
        sidecar::attach(buffer.start());
        let sink = Sink {
            file,
            identity,
            written: header.encode().len() as u64,
            seq: 0,
            commits: 0,
            buffer,
            tail,
            sidecar_path,
            sidecar_link,
            unprotected: 0,
        };
        sink.word(sidecar_format::PID_OFFSET).store(u64::from(sys::pid()), Ordering::Relaxed);
        Ok(sink)
    }

    /// The frame that is being filled: room for its header, then its records.
    #[inline]
    pub(crate) fn frame(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut().get_mut(FRAME_OFFSET..FRAME_OFFSET + FRAME_CAPACITY).unwrap_or_default()
    }

    /// The number of the frame that is being filled.
    pub(crate) fn seq(&self) -> u32 {
        self.seq
    }

    /// Which of the two commits the next one is.
    pub(crate) fn next_commit(&self) -> usize {
        ((self.commits + 1) & 1) as usize
    }

    /// What is said here, and what was written into the rings for the [`next_commit`](Sink::next_commit), holds from
    /// now on: all of it or, to whoever looks after the process was killed in here, nothing.
    pub(crate) fn commit(&mut self, commit: Commit) {
        let commit = Commit { seq: u64::from(self.seq), ..commit };
        let at = sidecar_format::COMMIT_OFFSETS[self.next_commit()];
        for (index, word) in commit.words().into_iter().enumerate() {
            self.word(at + 8 * index).store(word, Ordering::Relaxed);
        }
        self.commits += 1;
        self.word(sidecar_format::COMMITS_OFFSET).store(self.commits, Ordering::Release);
    }

    /// Readers will not have seen every allocation: recovered records need the sizes of freed blocks.
    pub(crate) fn set_partial(&self) {
        self.word(sidecar_format::PARTIAL_OFFSET).store(1, Ordering::Relaxed);
    }

    /// Appends the sealed frame of `len` bytes to the dump. The next [`commit`](Sink::commit) is about the next frame.
    pub(crate) fn write_frame(&mut self, len: usize) -> Result<(), Errno> {
        if !self.has_its_descriptor() {
            return Err(Errno(libc::EBADF));
        }
        let frame = self.buffer.bytes_mut().get(FRAME_OFFSET..FRAME_OFFSET + len).unwrap_or_default();
        if let Err(errno) = self.file.write_all(frame) {
            if self.identity.regular {
                // What was written of it helps nobody, and the sidecar has the whole of it.
                let _ = self.file.truncate(self.written);
            }
            return Err(errno);
        }
        self.written += len as u64;
        self.seq += 1;
        Ok(())
    }

    /// Memory for the ring of this number: in the sidecar, or where that cannot grow in this process alone, which is
    /// then noted. And whether it is in the sidecar.
    pub(crate) fn map_ring(&mut self, index: usize) -> Result<(Mapping, bool), Errno> {
        if let Some(ring) = self.shared_ring(index) {
            return Ok((ring, true));
        }
        let ring = Mapping::anonymous(RING_LEN)?;
        self.unprotected += 1;
        self.word(sidecar_format::UNPROTECTED_OFFSET).store(self.unprotected, Ordering::Relaxed);
        Ok((ring, false))
    }

    fn shared_ring(&mut self, index: usize) -> Option<Mapping> {
        let offset = (RINGS_START + index * RING_LEN) as u64;
        let (file, identity) = self.tail.take()?;
        // The host may have closed our descriptor, and opened a file of its own under the same number.
        let ours = |file: &File| file.identity().is_ok_and(|now| now.same_file(&identity));
        let file = if ours(&file) {
            file
        } else {
            std::mem::forget(file);
            File::open(self.sidecar_path.as_c_str()?, SIDECAR_FLAGS, 0).ok().filter(ours)?.out_of_the_way()
        };
        let ring =
            file.allocate(offset, RING_LEN as u64).and_then(|()| Mapping::shared(&file, offset, RING_LEN));
        self.tail = Some((file, identity));
        ring.ok()
    }

    /// The recording is over and whole: the sidecar has nothing more to keep. Returns the sidecar's memory.
    pub(crate) fn finish(self) -> Mapping {
        for path in [&self.sidecar_path, &self.sidecar_link] {
            if let Some(path) = path.as_c_str() {
                sys::remove(path);
            }
        }
        self.close()
    }

    /// The recording stops here because of this error: the sidecar stays, with all that is not in the dump.
    pub(crate) fn abandon(self, errno: Errno) -> Mapping {
        self.word(sidecar_format::STATE_OFFSET).store(errno.0 as u64, Ordering::Release);
        self.close()
    }

    /// Whether our descriptor is still that of the dump.
    fn has_its_descriptor(&self) -> bool {
        self.file.identity().is_ok_and(|now| now.same_file(&self.identity))
    }

    fn close(self) -> Mapping {
        if self.has_its_descriptor() {
            // A forked child has the descriptor too, and would keep the lock.
            self.file.unlock();
        } else {
            // It is the host's to close.
            std::mem::forget(self.file);
        }
        if let Some((file, identity)) = self.tail
            && !file.identity().is_ok_and(|now| now.same_file(&identity))
        {
            std::mem::forget(file);
        }
        self.buffer
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the header page is mapped as long as `self` lives, all offsets are multiples of eight inside it, and
        // this process uses these words as atomics only.
        unsafe { AtomicU64::from_ptr(self.buffer.start().add(offset).cast()) }
    }
}

/// Whether the file at `path`, which is this one, begins as a dump does. One that cannot be read is none.
fn is_dump(path: &CStr, identity: &Identity) -> bool {
    let Ok(file) = File::open(path, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0) else {
        return false;
    };
    let mut first = [0; MAGIC.len()];
    file.identity().is_ok_and(|other| other.same_file(identity))
        && file.read(&mut first).is_ok_and(|read| read == MAGIC.len())
        && first == MAGIC
}

const SIDECAR_FLAGS: i32 = libc::O_RDWR | libc::O_NOFOLLOW;

/// Removes what a process before has left there, and what a link of ours leads to.
fn remove_sidecar(path: &PathBuffer) {
    let Some(c_path) = path.as_c_str() else { return };
    let mut target = PathBuffer::new();
    sys::read_link(c_path, &mut target);
    if sidecar_format::is_memory_path(target.as_bytes())
        && let Some(target) = target.as_c_str()
    {
        sys::remove(target);
    }
    sys::remove(c_path);
}

/// The sidecar at `path`, with a link to it beside the dump.
fn create_linked_sidecar(path: &PathBuffer, link: &PathBuffer) -> Option<(Mapping, File, Identity)> {
    let (c_path, c_link) = (path.as_c_str()?, link.as_c_str()?);
    let created = create_sidecar(path)?;
    if sys::link(c_path, c_link) {
        return Some(created);
    }
    sys::remove(c_path);
    None
}

/// `None` if there can be no sidecar: what is not in the dump is then lost when the process is killed.
fn create_sidecar(path: &PathBuffer) -> Option<(Mapping, File, Identity)> {
    let c_path = path.as_c_str()?;
    let file = File::open(c_path, SIDECAR_FLAGS | libc::O_CREAT | libc::O_EXCL, 0o600).ok()?.out_of_the_way();
    let mapping = file.allocate(0, RINGS_START as u64).and_then(|()| Mapping::shared(&file, 0, RINGS_START));
    match (mapping, file.identity()) {
        (Ok(mapping), Ok(identity)) => Some((mapping, file, identity)),
        _ => {
            sys::remove(c_path);
            None
        }
    }
}

const _: () = assert!(FRAME_HEADER_LEN + alloc_dump::layout::MAX_TEXT * 3 < FRAME_CAPACITY);
