//! Follows a dump that is still being written. In: a path. Out: each frame once, as soon as the
//! whole frame is in the file.
//!
//! For the reader of `alloc-dump` the end of its input is the end of the dump, and a frame that is
//! cut short there is damage. So it reads from a `GrowingFile`, which hands out whole frames
//! only. After the last whole frame it returns the error [`WouldBlock`](io::ErrorKind::WouldBlock)
//! instead of the end of the file. After this error the reader can be asked again.
//!
//! ```text
//! file        | header | frame 0 | frame 1 | first half of frame 2
//! handed out  | header | frame 0 | frame 1 |
//! ```
//!
//! If the disk is full, the recorder truncates the first half of frame 2 away. The reader never saw
//! that half, so nothing needs to be undone.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc_dump::frame::FrameHeader;
use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, HEADER_LEN};
use alloc_dump::read::{Reader, Records};

use super::open::{DumpError, open_file};
use super::sidecar::SidecarRest;

/// Why a dump cannot be followed any longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The file cannot be read, or is not a dump that this release can read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// Frames that were read are no longer in the file.
    #[error("{path}: it became shorter while it was being followed; load it anew")]
    Shrank {
        /// Path of the dump.
        path: PathBuf,
    },
    /// The path has another dump now.
    #[error("{path}: another recording has replaced it while it was being followed; load it anew")]
    Replaced {
        /// Path of the dump.
        path: PathBuf,
    },
}

/// Reads the frames of a growing dump, each once.
#[derive(Debug)]
pub(crate) struct DumpFollower {
    path: PathBuf,
    file: Arc<GrowingFile>,
    reader: Reader<FollowedInput>,
}

impl DumpFollower {
    /// Opens the dump at `path`, and reads its header.
    pub(crate) fn open(path: &Path) -> Result<DumpFollower, FollowError> {
        let (file, _) = open_file(path)?;
        let read_error = DumpError::reading(path);
        // A reader of the file itself reports a header that is cut short. Its position is the end
        // of the header.
        let header_len = Reader::new(&file).map_err(&read_error)?.position();
        let file = Arc::new(GrowingFile {
            file,
            handed_out: AtomicU64::new(0),
            limit: AtomicU64::new(header_len),
            is_final: AtomicBool::new(false),
        });
        let reader = Reader::new(FollowedInput(Arc::clone(&file))).map_err(&read_error)?;
        Ok(DumpFollower { path: path.to_owned(), file, reader })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The reader, for what it knows about the frames that were handed out.
    pub(crate) fn reader(&self) -> &Reader<FollowedInput> {
        &self.reader
    }

    /// Looks for frames that were appended. [`next_frame`](DumpFollower::next_frame) returns them.
    pub(crate) fn look_for_more(&self) -> Result<(), FollowError> {
        let size = self.check()?;
        let limit = self.file.end_of_whole_frames(size).map_err(|error| self.read_error(error))?;
        self.file.limit.store(limit, Ordering::Relaxed);
        Ok(())
    }

    /// Hands out the rest of the file, as if the process had ended: a frame that is cut short is
    /// damage now. Returns the length of the file in bytes.
    pub(crate) fn look_for_the_last_time(&self) -> Result<u64, FollowError> {
        let size = self.check()?;
        self.file.limit.store(size, Ordering::Relaxed);
        self.file.is_final.store(true, Ordering::Relaxed);
        Ok(size)
    }

    /// Returns the next frame of records; `None` if the frames that the last look found were all
    /// returned.
    ///
    /// NOTE: a run of damaged bytes that arrives in two pieces counts as two dropped frames.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Records<'_>>, FollowError> {
        let path = &self.path;
        match self.reader.next_frame() {
            Ok(records) => Ok(records),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(FollowError::Shrank { path: path.clone() })
            }
            Err(error) => Err(DumpError::reading(path)(error.into()).into()),
        }
    }

    /// Reads the frames that the sidecar holds beyond those that were handed out. `None` without a
    /// sidecar.
    ///
    /// # Errors
    /// If there is a sidecar and it cannot be read.
    pub(crate) fn sidecar_rest(&self) -> io::Result<Option<SidecarRest>> {
        SidecarRest::read(&self.path, self.reader.header(), self.reader.next_seq())
    }

    /// Checks that the file and its path still belong to the dump that was opened, and returns the
    /// length of the file in bytes.
    fn check(&self) -> Result<u64, FollowError> {
        let metadata = self.file.file.metadata().map_err(|error| self.read_error(error))?;
        let replaced = || FollowError::Replaced { path: self.path.clone() };
        // A recorder that reuses the file of an earlier dump truncates it and writes a new header.
        if metadata.len() >= HEADER_LEN as u64 && !self.has_our_session(&self.file.file) {
            return Err(replaced());
        }
        if metadata.len() < self.file.limit.load(Ordering::Relaxed) {
            return Err(FollowError::Shrank { path: self.path.clone() });
        }
        // Another file may have the path now. If its session id is the same, it is this dump in
        // compressed form. Then the opened file is complete, and it is enough to read it to its
        // end.
        let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        if let Ok(now) = std::fs::metadata(&self.path)
            && identity(&now) != identity(&metadata)
            && let Ok(file) = File::open(&self.path)
            && !self.has_our_session(&file)
        {
            return Err(replaced());
        }
        Ok(metadata.len())
    }

    fn has_our_session(&self, file: &File) -> bool {
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).is_ok()
            && Header::decode(&header).is_ok_and(|header| header.session == self.reader.header().session)
    }

    fn read_error(&self, error: io::Error) -> FollowError {
        DumpError::reading(&self.path)(error.into()).into()
    }
}

/// A file of which only the first `limit` bytes are handed out.
#[derive(Debug)]
struct GrowingFile {
    file: File,
    /// Bytes that were handed out.
    handed_out: AtomicU64,
    /// Bytes that may be handed out: the end of the last whole frame. If the file is damaged, the
    /// end of the file, in which the reader then looks for the next frame.
    limit: AtomicU64,
    /// Whether `limit` is the end of the dump. Otherwise the process may append more frames.
    is_final: AtomicBool,
}

impl GrowingFile {
    /// Returns the offset at which the last whole frame ends, in a file of `size` bytes. Starts at
    /// `limit`, which is the end of a whole frame.
    fn end_of_whole_frames(&self, size: u64) -> io::Result<u64> {
        let mut end = self.limit.load(Ordering::Relaxed);
        let mut header = [0; FRAME_HEADER_LEN];
        while end + FRAME_HEADER_LEN as u64 <= size {
            self.file.read_exact_at(&mut header, end)?;
            let Some(header) = FrameHeader::decode(&header) else { return Ok(size) };
            let next = end + FRAME_HEADER_LEN as u64 + u64::from(header.len);
            if next > size {
                break;
            }
            end = next;
        }
        Ok(end)
    }
}

/// The input of the reader.
#[derive(Debug)]
pub(crate) struct FollowedInput(Arc<GrowingFile>);

impl Read for FollowedInput {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let GrowingFile { file, handed_out, limit, is_final } = &*self.0;
        let at = handed_out.load(Ordering::Relaxed);
        let left = usize::try_from(limit.load(Ordering::Relaxed).saturating_sub(at)).unwrap_or(usize::MAX);
        if left == 0 {
            let is_final = is_final.load(Ordering::Relaxed);
            return if is_final { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let len = into.len().min(left);
        let got = file.read_at(&mut into[..len], at)?;
        if got == 0 && len > 0 {
            // The file has shrunk: when `limit` was set, the file had at least that many bytes.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        handed_out.store(at + got as u64, Ordering::Relaxed);
        Ok(got)
    }
}
