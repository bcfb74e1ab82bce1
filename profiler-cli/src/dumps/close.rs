//! Closes the dump of a process that ended without closing it: appends the last records, which the
//! sidecar holds, and the trailer. In: a path, and how the process ended. Out: a [`CloseOutcome`].
//! If another process is closing the dump, waits for it. Afterwards a dump that has its trailer has
//! no sidecar.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use alloc_dump::layout::FRAME_HEADER_LEN;
use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use alloc_dump::sidecar::Sidecar;
use alloc_dump::trailer::{EndReason, Trailer};
use alloc_dump::write::seal_trailer;

use super::open::{DumpWriter, writer_of};
use super::sidecar::{read_sidecar, remove_file_and_target, sidecar_path, unread_sidecar};
use super::writing::{is_writer_running, wait_while_closing};

/// The result of closing a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// The dump had its trailer already. If its process has left the sidecar, it was removed.
    WasClosed,
    /// The dump has its trailer now. This many bytes of frames were appended from the sidecar.
    ClosedNow(usize),
    /// Nothing: its process is still writing it.
    StillWritten,
    /// Nothing: the sidecar is missing, it lacks records, or the recording had stopped with an
    /// error. The end of the recording is not known, so the dump must not look complete.
    EndUnknown,
}

/// Closes the dump at `path` if its process did not. `has_ended` says whether a process is known to
/// have ended; other processes may still be writing. `end` gets the process id of the dump's
/// writer, which the sidecar names, and returns how that process ended.
///
/// # Errors
/// If the dump cannot be read or written.
pub fn close(
    path: &Path,
    has_ended: impl Fn(&DumpWriter) -> bool,
    end: impl FnOnce(u32) -> EndReason,
) -> io::Result<CloseOutcome> {
    wait_while_closing(path);
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let is_locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => false,
    };
    let mut reader = Reader::new(&file).map_err(io::Error::other)?;
    let mut last_us = 0;
    while let Some(records) = reader.next_frame()? {
        last_us = last_time(records, last_us);
    }
    if reader.trailer().is_some() {
        remove_left_sidecar(path, &reader.header().session);
        return Ok(CloseOutcome::WasClosed);
    }
    // A forked child shares its parent's lock, and keeps it long after the parent has ended.
    let writer_ended = || writer_of(path).is_ok_and(|writer| writer.is_some_and(|writer| has_ended(&writer)));
    if is_locked && !writer_ended() {
        return Ok(CloseOutcome::StillWritten);
    }
    let (whole, seq, session) = (reader.end_of_whole_frames(), reader.next_seq(), reader.header().session);
    let unreadable = |error: io::Error| {
        io::Error::new(error.kind(), format!("its last records are in {}", unread_sidecar(path, &error)))
    };
    let Some(bytes) = read_sidecar(path, &session).map_err(unreadable)? else {
        return Ok(CloseOutcome::EndUnknown);
    };
    let has_everything = |sidecar: &Sidecar<'_>| {
        sidecar.stopped_errno.is_none() && sidecar.missing_frames(seq) == 0 && sidecar.unprotected == 0
    };
    let Some(sidecar) = Sidecar::parse(&bytes, &session).filter(has_everything) else {
        return Ok(CloseOutcome::EndUnknown);
    };
    let frames = sidecar.recover_frames(seq, seq);
    // These frames once more, as a dump of their own, to count them and to find their latest time.
    let mut rest = reader.header().encode().to_vec();
    rest.extend_from_slice(&sidecar.recover_frames(seq, 0));
    let mut trailer_seq = seq;
    if let Ok(mut rest) = Reader::new(rest.as_slice()) {
        while let Some(records) = rest.next_frame()? {
            last_us = last_time(records, last_us);
        }
        trailer_seq += rest.next_seq();
    }
    let trailer = Trailer::new(end(sidecar.pid), last_us);
    let mut room = [0u8; FRAME_HEADER_LEN + 256];
    let len = seal_trailer(&mut room, trailer_seq, &trailer).ok_or(io::ErrorKind::InvalidData)?;
    append(&mut file, whole, &[&frames, &room[..len]])?;
    remove_file_and_target(&sidecar_path(path))?;
    Ok(CloseOutcome::ClosedNow(frames.len()))
}

/// Closes the dump at `path`, as [`close`] does, if nobody knows how its process ended. A process
/// that still runs is left alone.
///
/// # Errors
/// As for [`close`].
pub fn close_abandoned(path: &Path) -> io::Result<CloseOutcome> {
    close(path, |writer| !is_writer_running(writer), |_| EndReason::Vanished)
}

/// Removes the sidecar of a dump that has its trailer. The process could not remove it, for
/// instance because it had changed its root or its user.
fn remove_left_sidecar(path: &Path, session: &[u8; 16]) {
    // A sidecar that cannot be read has no records that the dump lacks.
    if read_sidecar(path, session).is_ok_and(|sidecar| sidecar.is_none()) {
        return;
    }
    // If that fails, the next recording of this name removes it.
    let _ = remove_file_and_target(&sidecar_path(path));
}

/// Writes `parts` after the first `whole` bytes of the file, over any frame that was cut short
/// there.
fn append(file: &mut File, whole: u64, parts: &[&[u8]]) -> io::Result<()> {
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_data()
}

/// Returns the latest time in the records, or `before` if that is later.
fn last_time<'a>(records: impl Iterator<Item = Record<'a>>, before: u64) -> u64 {
    records.fold(before, |last, record| match record {
        Record::Time { us } => last.max(us),
        _ => last,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use alloc_dump::header::Header;
    use alloc_dump::layout::SIDECAR_HEADER_LEN;
    use alloc_dump::sidecar::{RINGS_START, encode_identity};

    use super::*;

    const SESSION: [u8; 16] = [7; 16];

    /// Returns a dump that has its trailer, with this sidecar beside it.
    fn closed_dump(folder: &Path, sidecar: &[u8]) -> std::path::PathBuf {
        let path = folder.join("a.alloc");
        let mut bytes = Header { session: SESSION, created_unix_ns: 0 }.encode().to_vec();
        let mut room = [0u8; FRAME_HEADER_LEN + 256];
        let len = seal_trailer(&mut room, 0, &Trailer::new(EndReason::Finished, 5)).unwrap();
        bytes.extend_from_slice(&room[..len]);
        fs::write(&path, bytes).unwrap();
        fs::write(sidecar_path(&path), sidecar).unwrap();
        path
    }

    fn sidecar_of(session: &[u8; 16]) -> Vec<u8> {
        let mut bytes = vec![0; RINGS_START.max(SIDECAR_HEADER_LEN)];
        let identity = encode_identity(session);
        bytes[..identity.len()].copy_from_slice(&identity);
        bytes
    }

    #[test]
    fn a_sidecar_that_a_closed_dump_has_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = closed_dump(folder.path(), &sidecar_of(&SESSION));
        let before = fs::read(&path).unwrap();
        assert_eq!(close(&path, |_| false, |_| unreachable!()).unwrap(), CloseOutcome::WasClosed);
        assert!(!sidecar_path(&path).exists());
        assert_eq!(fs::read(&path).unwrap(), before);
        // A sidecar of another recording may be in use.
        let path = closed_dump(folder.path(), &sidecar_of(&[8; 16]));
        assert_eq!(close(&path, |_| false, |_| unreachable!()).unwrap(), CloseOutcome::WasClosed);
        assert!(sidecar_path(&path).exists());
    }

    /// A forked child of the program has the lock, and the dump is complete: nothing is waited for.
    #[test]
    fn a_closed_dump_is_not_waited_for_whoever_has_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = closed_dump(folder.path(), &sidecar_of(&SESSION));
        let child = File::open(&path).unwrap();
        child.lock().unwrap();
        let begun = Instant::now();
        assert_eq!(close(&path, |_| false, |_| unreachable!()).unwrap(), CloseOutcome::WasClosed);
        assert!(begun.elapsed() < Duration::from_secs(1) && !sidecar_path(&path).exists());
    }
}
