//! Agreeing with a recorder on a copy of the recorded process. In: the path of a dump that is being
//! written. Out: a [`ProcessCopy`], whose memory can be read until it is dropped.
//!
//! `alloc_dump::exchange` has the words. They are in the dump's sidecar, which the recorder has
//! mapped. This side reads and writes them with file operations, which the kernel keeps coherent
//! with mappings.

use std::cell::Cell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloc_dump::exchange::{
    AT_END_OFFSET, BUSY_REQUEST_OFFSET, BY_PROGRAM_OFFSET, COPIES_OFFSET, COPY_ERRNO_OFFSET, COPY_PID_OFFSET,
    LOOK_OF_COPY_OFFSET, LOOK_OFFSET, LOOKED_OFFSET, MAX_NAME, NAME_OFFSET, NAME_WORDS, NEEDS_MORE_OFFSET,
    REFUSAL_OFFSET, RELEASED_OFFSET, REPORT_ADDRESS_OFFSET, REQUEST_NAME_OFFSET, REQUESTER_OFFSET,
    REQUESTS_OFFSET, SERVED_OFFSET, SERVER_OFFSET, SNAPSHOT_ID_OFFSET, WITHDRAWN_OFFSET, decode_name,
    encode_name,
};
use alloc_dump::header::Header;
use alloc_dump::sidecar::{IDENTITY_LEN, PID_OFFSET, encode_identity};
use rustix::io::Errno;

use super::SnapshotTrouble;
use super::heart::Heart;
use crate::dumps::sidecar::sidecar_path;
use crate::dumps::writing::{WriterState, wait_while_closing};

/// The sidecar of a dump that is being written, as the place where snapshots are agreed on.
#[derive(Debug)]
pub(crate) struct Exchange {
    file: Arc<File>,
    dump: PathBuf,
    session: [u8; 16],
    /// The number of the copy that was answered last.
    answered: Cell<u64>,
}

impl Exchange {
    /// Opens the sidecar of the dump at `path`.
    ///
    /// # Errors
    /// [`SnapshotTrouble::NotRecording`] if there is none, or if its recorder is of a version that
    /// takes no snapshots.
    pub(crate) fn open(path: &Path) -> Result<Exchange, SnapshotTrouble> {
        let not_recording = |_| SnapshotTrouble::NotRecording { dump: path.to_owned() };
        let mut head = [0; alloc_dump::layout::HEADER_LEN];
        File::open(path).and_then(|file| file.read_exact_at(&mut head, 0)).map_err(not_recording)?;
        let header =
            Header::decode(&head).map_err(|_| SnapshotTrouble::NotRecording { dump: path.to_owned() })?;
        let opened = OpenOptions::new().read(true).write(true).open(sidecar_path(path));
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SnapshotTrouble::NotRecording { dump: path.to_owned() },
            _ => SnapshotTrouble::Refused { what: sidecar_path(path).display().to_string(), error },
        })?;
        let mut identity = [0; IDENTITY_LEN];
        file.read_exact_at(&mut identity, 0).map_err(not_recording)?;
        if identity != encode_identity(&header.session) {
            return Err(SnapshotTrouble::NotRecording { dump: path.to_owned() });
        }
        let answered = Cell::new(0);
        Ok(Exchange { file: Arc::new(file), dump: path.to_owned(), session: header.session, answered })
    }

    /// The path of the dump.
    pub(crate) fn dump(&self) -> &Path {
        &self.dump
    }

    /// The session of the recording.
    pub(crate) fn session(&self) -> [u8; 16] {
        self.session
    }

    /// The process id of the recorded process.
    pub(crate) fn host(&self) -> u32 {
        self.word(PID_OFFSET) as u32
    }

    /// The inode of the sidecar, if it can be told.
    pub(super) fn sidecar_inode(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.ino())
    }

    /// Gives the program and its copy signs of life until the result is dropped.
    pub(super) fn start_heart(&self) -> Heart {
        Heart::start(&self.file)
    }

    /// Says that this process takes the snapshots that the program asks for.
    pub(crate) fn serve(&self) {
        self.set_word(SERVER_OFFSET, std::process::id().into());
    }

    /// Says that this process does so no longer.
    pub(super) fn stop_serving(&self) {
        self.set_word(SERVER_OFFSET, 0);
    }

    /// How many copies the recorder has made so far, those that failed included.
    pub(crate) fn copies(&self) -> u64 {
        self.word(COPIES_OFFSET)
    }

    /// The number of the last copy that this process was given, or that was refused to it.
    pub(super) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Asks the recorder for a copy, and waits for it.
    ///
    /// # Errors
    /// The recorder is gone, does not answer, or cannot make a copy.
    pub(crate) fn ask(&self, name: &[u8]) -> Result<ProcessCopy, SnapshotTrouble> {
        let lock = self.lock()?;
        let begun = Instant::now();
        loop {
            match self.request(name, begun).and_then(|()| self.answer()) {
                // A copy lives on for some milliseconds after its reader is done.
                Err(SnapshotTrouble::Busy) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(LOOK_INTERVAL);
                }
                answer => return answer.map(|copy| ProcessCopy { _lock: Some(lock), ..copy }),
            }
        }
    }

    /// Asks for a copy, and waits until the recorder has answered.
    fn request(&self, name: &[u8], begun: Instant) -> Result<(), SnapshotTrouble> {
        for (index, word) in encode_name(name).into_iter().enumerate() {
            self.set_word(REQUEST_NAME_OFFSET + 8 * index, word);
        }
        self.set_word(REQUESTER_OFFSET, std::process::id().into());
        let request = self.word(REQUESTS_OFFSET).wrapping_add(1);
        self.set_word(REQUESTS_OFFSET, request);
        while self.word(SERVED_OFFSET) != request {
            if !process_exists(self.host()) {
                return Err(SnapshotTrouble::Ended { pid: self.host() });
            }
            if wait_while_closing(&self.dump) == WriterState::Done {
                return Err(SnapshotTrouble::NotRecording { dump: self.dump.clone() });
            }
            if begun.elapsed() > PATIENCE {
                // The recorder may be stopped. It must not make a copy for nobody later, so it is
                // told, and it looks at that word after each answer.
                self.set_word(WITHDRAWN_OFFSET, request);
                if self.word(SERVED_OFFSET) != request {
                    return Err(SnapshotTrouble::NoAnswer { pid: self.host() });
                }
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        if self.word(BUSY_REQUEST_OFFSET) == request { Err(SnapshotTrouble::Busy) } else { Ok(()) }
    }

    /// Whether the program has asked for the last copy.
    pub(super) fn is_for_program(&self) -> bool {
        self.word(BY_PROGRAM_OFFSET) != 0
    }

    /// Whether the program is ending, and waits for its last snapshot.
    pub(super) fn is_at_end(&self) -> bool {
        self.word(AT_END_OFFSET) != 0
    }

    /// Says that the copies which the program has asked for are enough.
    pub(super) fn needs_no_more(&self) {
        self.set_word(NEEDS_MORE_OFFSET, 0);
    }

    /// Returns the number of the look for which the recorder waits before it makes a copy for the
    /// program.
    pub(super) fn wanted_look(&self) -> Option<u64> {
        let wanted = self.word(LOOK_OFFSET);
        (wanted != self.word(LOOKED_OFFSET)).then_some(wanted)
    }

    /// Says that the look with this number is over, so that the recorder makes the copy.
    pub(super) fn finish_look(&self, number: u64) {
        self.set_word(REFUSAL_OFFSET, 0);
        self.set_word(LOOKED_OFFSET, number);
    }

    /// Says, instead of the look with this number, that no copy must be made.
    pub(super) fn refuse_copy(&self, number: u64, refusal: Refusal) {
        let errno = match refusal {
            Refusal::NoMemory => Errno::NOMEM,
            Refusal::NotSeen => Errno::SRCH,
        };
        self.set_word(REFUSAL_OFFSET, u64::from(errno.raw_os_error().unsigned_abs()));
        self.set_word(LOOKED_OFFSET, number);
    }

    /// Returns the copy that the recorder has made last, after [`Exchange::copies`] has changed.
    ///
    /// # Errors
    /// The copy could not be made.
    pub(super) fn answer(&self) -> Result<ProcessCopy, SnapshotTrouble> {
        let number = self.copies();
        self.answered.set(number);
        let errno = self.word(COPY_ERRNO_OFFSET);
        if errno != 0 {
            return Err(SnapshotTrouble::NoCopy { error: io::Error::from_raw_os_error(errno as i32) });
        }
        let mut words = [0; NAME_WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.word(NAME_OFFSET + 8 * index);
        }
        let mut room = [0; MAX_NAME];
        Ok(ProcessCopy {
            pid: self.word(COPY_PID_OFFSET) as u32,
            id: self.word(SNAPSHOT_ID_OFFSET) as u32,
            report_address: self.word(REPORT_ADDRESS_OFFSET),
            name: decode_name(&words, &mut room).to_vec(),
            look: self.word(LOOK_OF_COPY_OFFSET),
            release: Release { file: Arc::clone(&self.file), number, _heart: self.start_heart() },
            _lock: None,
        })
    }

    /// Makes other processes of this program wait until their turn.
    fn lock(&self) -> Result<SidecarLock, SnapshotTrouble> {
        // A lock belongs to an open file, so this one must be opened anew.
        let path = sidecar_path(&self.dump);
        let refused = |error: io::Error| SnapshotTrouble::Refused { what: path.display().to_string(), error };
        let file = File::open(&path).map_err(refused)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(SidecarLock { _file: file }),
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(LOOK_INTERVAL);
                }
                Err(TryLockError::WouldBlock) => return Err(SnapshotTrouble::Busy),
                Err(TryLockError::Error(error)) => return Err(refused(error)),
            }
        }
    }

    fn word(&self, offset: usize) -> u64 {
        read_word(&self.file, offset)
    }

    fn set_word(&self, offset: usize, value: u64) {
        write_word(&self.file, offset, value);
    }
}

/// Held while this process talks to the recorder, and reads the copy that it has asked for.
#[derive(Debug)]
struct SidecarLock {
    _file: File,
}

/// A copy of a recorded process, which waits until this value is dropped.
#[derive(Debug)]
pub(crate) struct ProcessCopy {
    /// Its process id.
    pub(crate) pid: u32,
    /// The number of the snapshot's record in the dump.
    pub(crate) id: u32,
    /// The address of its report.
    pub(crate) report_address: u64,
    /// The name of the snapshot.
    pub(crate) name: Vec<u8>,
    /// The number of the look that this process took before; 0 if it took none in time.
    pub(super) look: u64,
    #[expect(dead_code, reason = "its drop ends the copy")]
    release: Release,
    _lock: Option<SidecarLock>,
}

/// Keeps a copy waiting while it lives, and ends the copy when it is dropped.
#[derive(Debug)]
struct Release {
    file: Arc<File>,
    /// The number of the copy.
    number: u64,
    _heart: Heart,
}

impl Drop for Release {
    fn drop(&mut self) {
        write_word(&self.file, RELEASED_OFFSET, self.number);
    }
}

/// Why the program gets no copy, although the recorder could make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is little memory left.
    NoMemory,
    /// The process is not seen from here.
    NotSeen,
}

pub(super) fn read_word(file: &File, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    // A sidecar that is too short has no words for snapshots, and its recorder makes none.
    let _ = file.read_exact_at(&mut bytes, offset as u64);
    u64::from_le_bytes(bytes)
}

pub(super) fn write_word(file: &File, offset: usize, value: u64) {
    // If the word cannot be written, the recorder does not answer, which is noticed.
    let _ = file.write_all_at(&value.to_le_bytes(), offset as u64);
}

/// Whether there is a process with this id, which may have ended and not been reaped.
pub(super) fn process_exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// How long the recorder may need to make a copy.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumps::snapshot::fake_recorder::FakeRecorder;

    #[test]
    fn a_request_that_has_waited_too_long_is_withdrawn() {
        let recorder = FakeRecorder::new();
        recorder.set(REQUESTS_OFFSET, 6);
        recorder.set(SERVED_OFFSET, 6);
        let long_ago = Instant::now().checked_sub(2 * PATIENCE).unwrap();
        let trouble = recorder.exchange().request(b"late", long_ago).unwrap_err();
        assert!(matches!(trouble, SnapshotTrouble::NoAnswer { .. }), "{trouble}");
        // A number is used once: a recorder that is just serving request 7 must not take the next
        // one for another.
        assert_eq!((recorder.word(REQUESTS_OFFSET), recorder.word(WITHDRAWN_OFFSET)), (7, 7));
    }
}
