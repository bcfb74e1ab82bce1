//! Closes the dump of a process that could not: takes the last records over from the sidecar and writes the trailer.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use alloc_dump::layout::FRAME_HEADER_LEN;
use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use alloc_dump::sidecar::Sidecar;
use alloc_dump::trailer::{EndReason, Trailer};
use alloc_dump::write::seal_trailer;

use crate::load::{read_sidecar, remove_sidecar, sidecar_path, writer_of};

/// What became of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It had its end already.
    Already,
    /// It has got its end now; this many bytes of records came from the sidecar.
    Now(usize),
    /// Its process is still writing it.
    InUse,
    /// The sidecar is missing, or says that the recording had stopped before: the end is not known.
    Open,
}

/// Closes the dump at `path` if its process did not. `ended` is a process that is known to have ended; others may still be
/// writing. `end` tells, from the process id in the dump, how that process ended.
///
/// # Errors
/// If the dump cannot be read or written.
pub fn close(path: &Path, ended: u32, end: impl FnOnce(u32) -> EndReason) -> io::Result<Closed> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    // A forked child has its parent's lock, long after the parent is gone.
    let writer_ended = || matches!(writer_of(path), Ok(Some((writer, _))) if writer == ended);
    match file.try_lock() {
        Err(TryLockError::WouldBlock) if writer_ended() => {}
        Err(TryLockError::WouldBlock) => return Ok(Closed::InUse),
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    let mut reader = Reader::new(&file).map_err(io::Error::other)?;
    let mut last_us = 0;
    while let Some(records) = reader.next_frame()? {
        last_us = last_time(records, last_us);
    }
    if reader.trailer().is_some() {
        return Ok(Closed::Already);
    }
    let (whole, seq, session) = (reader.end_of_whole_frames(), reader.next_seq(), reader.header().session);
    let Some(bytes) = read_sidecar(path, &session) else { return Ok(Closed::Open) };
    let whole_tail = |tail: &Sidecar<'_>| tail.stopped_errno.is_none() && tail.missing_frames(seq) == 0;
    let Some(tail) = Sidecar::parse(&bytes, &session).filter(whole_tail) else { return Ok(Closed::Open) };
    if tail.unprotected > 0 {
        // Something of it is lost, so the dump must not look whole.
        return Ok(Closed::Open);
    }
    let frames = tail.recover_frames(seq, seq);
    let mut own_dump = reader.header().encode().to_vec();
    own_dump.extend_from_slice(&tail.recover_frames(seq, 0));
    let mut next = seq;
    if let Ok(mut rest) = Reader::new(own_dump.as_slice()) {
        while let Some(records) = rest.next_frame()? {
            last_us = last_time(records, last_us);
        }
        next += rest.next_seq();
    }
    let trailer = Trailer::new(end(tail.pid), last_us);
    let mut room = [0u8; FRAME_HEADER_LEN + 256];
    let len = seal_trailer(&mut room, next, &trailer).ok_or(io::ErrorKind::InvalidData)?;
    append(&mut file, whole, &[&frames, &room[..len]])?;
    remove_sidecar(&sidecar_path(path))?;
    Ok(Closed::Now(frames.len()))
}

/// Puts `parts` behind the first `whole` bytes, over whatever was cut short there.
fn append(file: &mut File, whole: u64, parts: &[&[u8]]) -> io::Result<()> {
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_data()
}

fn last_time<'a>(records: impl Iterator<Item = Record<'a>>, before: u64) -> u64 {
    records.fold(before, |last, record| match record {
        Record::Time { us } => last.max(us),
        _ => last,
    })
}
