//! Closes the dump of a process that ended without closing it: appends the last records, which the
//! sidecar holds, and the trailer. In: a path, and how the process ended. Out: a [`CloseOutcome`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use alloc_dump::layout::FRAME_HEADER_LEN;
use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use alloc_dump::sidecar::Sidecar;
use alloc_dump::trailer::{EndReason, Trailer};
use alloc_dump::write::seal_trailer;

use super::open::writer_of;
use super::sidecar::{read_sidecar, remove_file_and_target, sidecar_path};

/// The result of closing a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// Nothing: the dump had its trailer already.
    WasClosed,
    /// The dump has its trailer now. This many bytes of frames were appended from the sidecar.
    ClosedNow(usize),
    /// Nothing: its process is still writing it.
    StillWritten,
    /// Nothing: the sidecar is missing, it lacks records, or the recording had stopped with an
    /// error. The end of the recording is not known, so the dump must not look complete.
    EndUnknown,
}

/// Closes the dump at `path` if its process did not. `ended` is the id of a process that is known
/// to have ended; other processes may still be writing. `end` gets the process id of the dump's
/// writer, which the sidecar names, and returns how that process ended.
///
/// # Errors
/// If the dump cannot be read or written.
pub fn close(path: &Path, ended: u32, end: impl FnOnce(u32) -> EndReason) -> io::Result<CloseOutcome> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    // A forked child shares its parent's lock, and keeps it long after the parent has ended.
    let writer_ended =
        || writer_of(path).is_ok_and(|writer| writer.is_some_and(|writer| writer.pid == ended));
    match file.try_lock() {
        Err(TryLockError::WouldBlock) if writer_ended() => {}
        Err(TryLockError::WouldBlock) => return Ok(CloseOutcome::StillWritten),
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    let mut reader = Reader::new(&file).map_err(io::Error::other)?;
    let mut last_us = 0;
    while let Some(records) = reader.next_frame()? {
        last_us = last_time(records, last_us);
    }
    if reader.trailer().is_some() {
        return Ok(CloseOutcome::WasClosed);
    }
    let (whole, seq, session) = (reader.end_of_whole_frames(), reader.next_seq(), reader.header().session);
    let Some(bytes) = read_sidecar(path, &session) else { return Ok(CloseOutcome::EndUnknown) };
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
