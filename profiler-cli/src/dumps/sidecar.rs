//! The sidecar of a dump, `DUMP.tail`, which holds everything that was recorded and is not yet in
//! the dump. In: the path of the dump. Out: the sidecar's bytes, or the frames that the dump lacks.
//!
//! Reading a sidecar never changes it. Only a caller that has appended its content to the dump, or
//! that replaces the dump, may call [`remove_file_and_target`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use alloc_dump::header::Header;
use alloc_dump::layout::{SIDECAR_HEADER_LEN, SIDECAR_SUFFIX};
use alloc_dump::sidecar::{COMMITS_OFFSET, MAX_RINGS, RING_LEN, RINGS_START, Sidecar, is_memory_path};

use crate::io_error::plain;

/// The records that the sidecar of a dump holds and the dump lacks.
pub(crate) struct SidecarRest {
    /// These records as a dump of their own: a header, then frames numbered from 0.
    pub(crate) dump: Vec<u8>,
    /// Sequence number that the current frame of the sidecar will have in the dump.
    pub(crate) frame_seq: u32,
    /// Number of frames between the end of the dump and the first frame of the sidecar, which are
    /// in neither file. Also counts each thread ring that the recorder could not keep in the
    /// sidecar.
    pub(crate) missing_frames: u64,
    /// Bytes of the frames in `dump`.
    pub(crate) payload_bytes: u64,
    /// The text of the error at which the recording stopped; `None` if no error stopped it.
    pub(crate) stopped: Option<String>,
}

impl SidecarRest {
    /// Reads the rest of the dump at `path`, whose next frame has the sequence number `next_seq`.
    /// `None` if the dump has no sidecar.
    ///
    /// # Errors
    /// If there is a sidecar and it cannot be read. Then the dump lacks its last records.
    pub(crate) fn read(path: &Path, header: &Header, next_seq: u32) -> io::Result<Option<SidecarRest>> {
        let Some(bytes) = read_sidecar(path, &header.session)? else { return Ok(None) };
        let Some(sidecar) = Sidecar::parse(&bytes, &header.session) else { return Ok(None) };
        // NOTE: the process may append frames to the dump after the reader has reached its end.
        // These frames are not lost, but they count as missing, because this sidecar begins after
        // them.
        let frames = sidecar.recover_frames(next_seq, 0);
        let stopped = sidecar.stopped_errno.map(|errno| plain(&io::Error::from_raw_os_error(errno)));
        let missing_frames = u64::from(sidecar.missing_frames(next_seq)) + sidecar.unprotected;
        let payload_bytes = frames.len() as u64;
        let mut dump = header.encode().to_vec();
        dump.extend_from_slice(&frames);
        let frame_seq = sidecar.seq();
        Ok(Some(SidecarRest { dump, frame_seq, missing_frames, payload_bytes, stopped }))
    }
}

/// Returns the bytes of the sidecar of the dump at `path`. `None` if there is no sidecar of this
/// session.
///
/// # Errors
/// If there is a sidecar and it cannot be read.
///
/// The process may still drain its thread rings while the sidecar is read. Each drain raises the
/// count of commits, so the bytes are of one moment if the count is the same after reading. Else
/// the sidecar is read again, at most [`MAX_READINGS`] times.
pub(crate) fn read_sidecar(path: &Path, session: &[u8; 16]) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    for _ in 0..MAX_READINGS {
        bytes.clear();
        let mut file = match File::open(sidecar_path(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        (&mut file).take(MAX_SIDECAR).read_to_end(&mut bytes)?;
        if Sidecar::parse(&bytes, session).is_none() {
            return Ok(None);
        }
        let mut again = vec![0; SIDECAR_HEADER_LEN];
        file.seek(SeekFrom::Start(0))?;
        let commits = |bytes: &[u8]| bytes.get(COMMITS_OFFSET..COMMITS_OFFSET + 8).map(<[u8]>::to_vec);
        if file.read_exact(&mut again).is_ok() && commits(&again) == commits(&bytes) {
            break;
        }
    }
    Ok(Some(bytes))
}

/// Most attempts to read a sidecar. The process may drain faster than this machine reads, and the
/// reader must not wait for ever.
const MAX_READINGS: u32 = 10;
/// Bytes of the longest sidecar that a recorder makes.
const MAX_SIDECAR: u64 = (RINGS_START + MAX_RINGS * RING_LEN) as u64;

/// Returns the path of the sidecar of the dump at `path`.
pub(crate) fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SIDECAR_SUFFIX);
    PathBuf::from(name)
}

/// Returns a text that names the sidecar of the dump at `path`, and why it cannot be read.
pub(crate) fn unread_sidecar(path: &Path, error: &io::Error) -> String {
    format!("{}, which cannot be read: {}", sidecar_path(path).display(), plain(error))
}

/// Whether the sidecar of the dump at `path` is a link to a file that is gone: the sidecar was in
/// the memory of the machine that recorded.
pub(crate) fn is_sidecar_gone(path: &Path) -> bool {
    let link = sidecar_path(path);
    link.is_symlink() && !link.exists()
}

/// Removes the file at this path: a sidecar, or a dump. If it is a link that a recorder made,
/// removes the file that the link names as well.
///
/// # Errors
/// If there is no such file, or it cannot be removed.
pub(crate) fn remove_file_and_target(path: &Path) -> io::Result<()> {
    let target = std::fs::read_link(path).ok();
    std::fs::remove_file(path)?;
    // Somebody else may have put a link there: only a path that recorders use is followed.
    if let Some(target) = target.filter(|target| is_memory_path(target.as_os_str().as_bytes())) {
        // The recorder may have removed the target already.
        let _ = std::fs::remove_file(target);
    }
    Ok(())
}
