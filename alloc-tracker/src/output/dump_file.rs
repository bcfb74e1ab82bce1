//! The sink that a recording writes to: a dump in a file, and its sidecar with everything that is
//! not in the dump yet. In: dump frames, in a buffer that this module owns, and commits. Out: bytes
//! in files.
//!
//! Called under the recorder's lock; never allocates. Errors are returned; they never raise a
//! signal in the host. The host may close any of our descriptors and open a file of its own under
//! the same number, so each one is checked before it is used.

use std::ffi::CStr;
use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, MAGIC, SIDECAR_MEMORY_PREFIX, SIDECAR_SUFFIX};
use alloc_dump::sidecar::{
    self as sidecar_format, Commit, FRAME_CAPACITY, FRAME_OFFSET, RING_LEN, RINGS_START,
};

use super::{RingMemory, Sink, commit_pair, sidecar};
use crate::base::settings::SidecarLocation;
use crate::base::sys::{self, Errno, File, FileIdentity, Mapping, PathBuffer, Text};

/// A dump that is being written into a file.
pub(crate) struct DumpFile {
    file: File,
    identity: FileIdentity,
    /// The length of the dump up to the end of its last whole frame.
    written: u64,
    /// Number of the current dump frame.
    seq: u32,
    /// Commits so far.
    commits: u64,
    /// The sidecar without its rings.
    buffer: Mapping,
    /// The sidecar's file, which later rings are added to. `None` if there is no such file: then
    /// all rings are the process's own memory.
    sidecar_file: Option<(File, FileIdentity)>,
    sidecar_path: PathBuffer,
    /// The entries to be removed at the end: the sidecar, and the link to it if it is not beside
    /// the dump.
    at_the_end: [Option<FolderEntry>; 2],
    /// Rings of which at least a part is not in the sidecar's file.
    unprotected: u64,
}

/// Why a dump cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The file exists already, and a process of a `profiler-cli run` must not replace it.
    Taken,
    /// Another process is writing the dump.
    Locked,
    /// The path is too long or has a zero byte in it.
    Path,
    /// The file exists and is not a dump.
    NotADump,
    /// The system reports this error.
    System(Errno),
}

impl DumpFile {
    /// Creates the dump and its sidecar, readable by this user alone. With `exclusive` an existing
    /// file is never replaced; without it, an existing file is replaced if it is a dump.
    pub(crate) fn create(
        path: &PathBuffer,
        exclusive: bool,
        location: SidecarLocation,
        header: &Header,
    ) -> Result<DumpFile, OpenError> {
        let c_path = path.as_c_str().ok_or(OpenError::Path)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NOCTTY;
        let file = File::open(c_path, if exclusive { flags | libc::O_EXCL } else { flags }, 0o600);
        let file = file.map_err(|errno| match errno.0 {
            libc::EEXIST => OpenError::Taken,
            _ => OpenError::System(errno),
        })?;
        let file = file.move_to_high_fd();
        let identity = file.identity().map_err(OpenError::System)?;
        // A device or a pipe may well have several writers.
        if identity.is_regular && !lock_patiently(&file) {
            return Err(OpenError::Locked);
        }
        if identity.is_regular {
            // The identity is read once more, now that no other process can write the file. PERF:
            // an empty file is not truncated. Some file systems write a file that was ever
            // truncated to the disk at once when it is closed.
            if !file.identity().map_err(OpenError::System)?.is_empty {
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
        let shared = match location {
            _ if !identity.is_regular => None,
            SidecarLocation::Beside if !file.is_on_copy_on_write_fs() => {
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
        let (mut buffer, sidecar_file) = match shared {
            Some((buffer, file, identity)) => (buffer, Some((file, identity))),
            None => {
                sidecar_path.clear();
                sidecar_link.clear();
                (Mapping::anonymous(RINGS_START).map_err(OpenError::System)?, None)
            }
        };
        let at_the_end = [&sidecar_path, &sidecar_link].map(FolderEntry::of);
        if let Some(start) = buffer.bytes_mut().get_mut(..sidecar_format::IDENTITY_LEN) {
            start.copy_from_slice(&sidecar_format::encode_identity(&header.session));
        }
        sidecar::attach(buffer.start());
        let sink = DumpFile {
            file,
            identity,
            written: header.encode().len() as u64,
            seq: 0,
            commits: 0,
            buffer,
            sidecar_file,
            sidecar_path,
            at_the_end,
            unprotected: 0,
        };
        sink.word(sidecar_format::PID_OFFSET).store(u64::from(sys::pid()), Ordering::Relaxed);
        Ok(sink)
    }

    /// Writes zeros into the bytes `part` of the ring with this index, in the sidecar's file. Then
    /// calls `then` with the file and the ring's offset there. `None` if the file cannot be written
    /// or `then` fails.
    fn write_ring<R>(
        &mut self,
        index: usize,
        part: Range<usize>,
        then: impl FnOnce(&File, u64) -> Result<R, Errno>,
    ) -> Option<R> {
        let offset = (RINGS_START + index * RING_LEN) as u64;
        let (file, identity) = self.sidecar_file.take()?;
        let is_ours = |file: &File| file.identity().is_ok_and(|now| now.is_same_file(&identity));
        let file = if is_ours(&file) {
            file
        } else {
            std::mem::forget(file);
            File::open(self.sidecar_path.as_c_str()?, SIDECAR_FLAGS, 0)
                .ok()
                .filter(is_ours)?
                .move_to_high_fd()
        };
        let written = file.write_zeros(offset + part.start as u64, part.len() as u64);
        let result = written.and_then(|()| then(&file, offset));
        self.sidecar_file = Some((file, identity));
        result.ok()
    }

    /// Notes that a ring is, at least in part, memory of the process alone.
    fn count_unprotected(&mut self) {
        self.unprotected += 1;
        self.word(sidecar_format::UNPROTECTED_OFFSET).store(self.unprotected, Ordering::Relaxed);
    }

    /// Whether the descriptor still leads to the dump.
    fn has_its_descriptor(&self) -> bool {
        self.file.identity().is_ok_and(|now| now.is_same_file(&self.identity))
    }

    fn close(self) -> Mapping {
        if self.has_its_descriptor() {
            // A forked child has the descriptor too, and would keep the lock otherwise.
            self.file.unlock();
        } else {
            // The descriptor is the host's by now, so the host closes it.
            std::mem::forget(self.file);
        }
        if let Some((file, identity)) = self.sidecar_file
            && !file.identity().is_ok_and(|now| now.is_same_file(&identity))
        {
            std::mem::forget(file);
        }
        self.at_the_end.into_iter().flatten().for_each(FolderEntry::close);
        self.buffer
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the header page is mapped as long as `self` lives, all offsets are multiples of
        // eight inside it, and this process uses these words as atomics only.
        unsafe { AtomicU64::from_ptr(self.buffer.start().add(offset).cast()) }
    }
}

impl Sink for DumpFile {
    #[inline]
    fn frame(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut().get_mut(FRAME_OFFSET..FRAME_OFFSET + FRAME_CAPACITY).unwrap_or_default()
    }

    fn seq(&self) -> u32 {
        self.seq
    }

    fn next_copy(&self) -> usize {
        commit_pair::next_copy(self.commits)
    }

    fn commit(&mut self, commit: Commit) {
        let commit = Commit { seq: u64::from(self.seq), ..commit };
        let offset = sidecar_format::COMMIT_OFFSETS[self.next_copy()];
        for (index, word) in commit.words().into_iter().enumerate() {
            self.word(offset + 8 * index).store(word, Ordering::Relaxed);
        }
        self.commits = commit_pair::publish(self.word(sidecar_format::COMMITS_OFFSET), self.commits);
    }

    fn set_partial(&self) {
        self.word(sidecar_format::PARTIAL_OFFSET).store(1, Ordering::Relaxed);
    }

    fn write_frame(&mut self, len: usize) -> Result<(), Errno> {
        if !self.has_its_descriptor() {
            return Err(Errno(libc::EBADF));
        }
        let frame = self.buffer.bytes_mut().get(FRAME_OFFSET..FRAME_OFFSET + len).unwrap_or_default();
        if let Err(errno) = self.file.write_all(frame) {
            if self.identity.is_regular {
                // A part of a frame is of no use, and the sidecar has the whole frame.
                let _ = self.file.truncate(self.written);
            }
            return Err(errno);
        }
        self.written += len as u64;
        self.seq += 1;
        Ok(())
    }

    fn map_ring(&mut self, index: usize, len: usize) -> Result<RingMemory, Errno> {
        let mapped = self.write_ring(index, 0..len, |file, offset| Mapping::shared(file, offset, RING_LEN));
        if let Some(memory) = mapped {
            return Ok(RingMemory { memory, granted: len, in_file: true });
        }
        let memory = Mapping::anonymous(RING_LEN)?;
        self.count_unprotected();
        Ok(RingMemory { memory, granted: RING_LEN, in_file: false })
    }

    fn extend_ring(&mut self, index: usize, start: u64, part: Range<usize>) -> Result<usize, Errno> {
        if self.write_ring(index, part.clone(), |_, _| Ok(())).is_some() {
            return Ok(part.end);
        }
        // There is no room in the file. No entry was stored in the rest of the ring yet, so it can
        // become memory of the process alone.
        sys::replace_leaked(start + part.start as u64, RING_LEN - part.start)?;
        self.count_unprotected();
        Ok(RING_LEN)
    }

    fn for_each_descriptor(&self, f: &mut dyn FnMut(i32)) {
        let sidecar = self.sidecar_file.iter().map(|(file, _)| file.fd());
        let folders = self.at_the_end.iter().flatten().map(|entry| entry.folder.fd());
        std::iter::once(self.file.fd()).chain(sidecar).chain(folders).for_each(f);
    }

    fn finish(self) -> Mapping {
        self.at_the_end.iter().flatten().for_each(FolderEntry::remove);
        self.close()
    }

    fn abandon(self, errno: Errno) -> Mapping {
        self.word(sidecar_format::STATE_OFFSET).store(errno.0 as u64, Ordering::Release);
        self.close()
    }
}

/// An entry of a folder that is held open: the entry can be removed even if the program has changed
/// its root or its working directory meanwhile.
struct FolderEntry {
    folder: File,
    identity: FileIdentity,
    name: PathBuffer,
}

impl FolderEntry {
    /// Opens the folder of this path; `None` if the path is empty or the folder cannot be opened.
    fn of(path: &PathBuffer) -> Option<FolderEntry> {
        let bytes = path.as_bytes();
        let name_at = bytes.iter().rposition(|byte| *byte == b'/')? + 1;
        let (folder, name) = bytes.split_at_checked(name_at)?;
        let folder = PathBuffer::of(folder);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let folder = File::open(folder.as_c_str()?, flags, 0).ok()?.move_to_high_fd();
        let identity = folder.identity().ok()?;
        Some(FolderEntry { folder, identity, name: PathBuffer::of(name) })
    }

    /// Removes the entry, unless the host has closed the folder meanwhile and has opened a file of
    /// its own under the same descriptor.
    fn remove(&self) {
        if let Some(name) = self.name.as_c_str()
            && self.has_its_descriptor()
        {
            self.folder.remove_entry(name);
        }
    }

    fn close(self) {
        if !self.has_its_descriptor() {
            std::mem::forget(self.folder);
        }
    }

    fn has_its_descriptor(&self) -> bool {
        self.folder.identity().is_ok_and(|now| now.is_same_file(&self.identity))
    }
}

/// Whether the file at `path`, which has this identity, begins as a dump does. False for a file
/// that cannot be read.
fn is_dump(path: &CStr, identity: &FileIdentity) -> bool {
    let Ok(file) = File::open(path, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0) else {
        return false;
    };
    let mut first = [0; MAGIC.len()];
    file.identity().is_ok_and(|other| other.is_same_file(identity))
        && file.read(&mut first).is_ok_and(|read| read == MAGIC.len())
        && first == MAGIC
}

/// Takes the lock of a dump. A process that wrote the dump may have ended just now: its drain
/// process then holds the lock for some milliseconds more.
fn lock_patiently(file: &File) -> bool {
    for _ in 0..LOCK_ATTEMPTS {
        if file.try_lock() {
            return true;
        }
        sys::nap(LOCK_NAP_NS);
    }
    false
}

/// As long as the drain process may need to notice that the host executes another program, and some
/// more.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_NAP_NS: u64 = 10_000_000;

const SIDECAR_FLAGS: i32 = libc::O_RDWR | libc::O_NOFOLLOW;

/// Removes the sidecar that an earlier process has left at `path`. If `path` is a link to a sidecar
/// in memory, also removes the target of the link.
fn remove_sidecar(path: &PathBuffer) {
    let Some(c_path) = path.as_c_str() else { return };
    let mut target = PathBuffer::new();
    sys::read_link(c_path, &mut target);
    if sidecar_format::is_memory_path(target.as_bytes())
        && let Some(target) = target.as_c_str()
    {
        sys::remove_file(target);
    }
    sys::remove_file(c_path);
}

/// Creates the sidecar at `path`, with a link to it beside the dump.
fn create_linked_sidecar(path: &PathBuffer, link: &PathBuffer) -> Option<(Mapping, File, FileIdentity)> {
    let (c_path, c_link) = (path.as_c_str()?, link.as_c_str()?);
    let created = create_sidecar(path)?;
    if sys::make_symlink(c_path, c_link) {
        return Some(created);
    }
    sys::remove_file(c_path);
    None
}

/// Creates the sidecar at `path`. `None` if that is not possible. Then, if the process is killed,
/// everything is lost that is not in the dump.
fn create_sidecar(path: &PathBuffer) -> Option<(Mapping, File, FileIdentity)> {
    let c_path = path.as_c_str()?;
    let file =
        File::open(c_path, SIDECAR_FLAGS | libc::O_CREAT | libc::O_EXCL, 0o600).ok()?.move_to_high_fd();
    let mapping =
        file.write_zeros(0, RINGS_START as u64).and_then(|()| Mapping::shared(&file, 0, RINGS_START));
    // The program's umask must not take the permissions away.
    match (mapping, file.set_mode(0o600).and_then(|()| file.identity())) {
        (Ok(mapping), Ok(identity)) => Some((mapping, file, identity)),
        _ => {
            sys::remove_file(c_path);
            None
        }
    }
}

const _: () = assert!(FRAME_HEADER_LEN + alloc_dump::layout::MAX_TEXT * 3 < FRAME_CAPACITY);
