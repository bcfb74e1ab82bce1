//! A recorder for tests: a dump that is locked, and its sidecar, whose words the test sets. The
//! recorded process is that of the test.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use alloc_dump::header::Header;
use alloc_dump::layout::SIDECAR_HEADER_LEN;
use alloc_dump::sidecar::{PID_OFFSET, encode_identity};

use super::exchange::{Exchange, read_word, write_word};
use crate::dumps::sidecar::sidecar_path;

pub(super) struct FakeRecorder {
    _folder: tempfile::TempDir,
    dump: PathBuf,
    lock: Cell<Option<File>>,
    sidecar: File,
}

impl FakeRecorder {
    pub(super) fn new() -> FakeRecorder {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("x.alloc");
        let session = [7; 16];
        fs::write(&dump, Header { session, created_unix_ns: 0 }.encode()).unwrap();
        let lock = File::open(&dump).unwrap();
        lock.lock().unwrap();
        let sidecar =
            File::options().read(true).write(true).create_new(true).open(sidecar_path(&dump)).unwrap();
        sidecar.set_len(SIDECAR_HEADER_LEN as u64).unwrap();
        sidecar.write_all_at(&encode_identity(&session), 0).unwrap();
        let recorder = FakeRecorder { _folder: folder, dump, lock: Cell::new(Some(lock)), sidecar };
        recorder.set(PID_OFFSET, std::process::id().into());
        recorder
    }

    pub(super) fn dump(&self) -> PathBuf {
        self.dump.clone()
    }

    pub(super) fn exchange(&self) -> Exchange {
        Exchange::open(&self.dump).unwrap()
    }

    /// Gives up the dump's lock.
    pub(super) fn end(&self) {
        self.lock.take();
    }

    pub(super) fn set(&self, offset: usize, value: u64) {
        write_word(&self.sidecar, offset, value);
    }

    pub(super) fn word(&self, offset: usize) -> u64 {
        read_word(&self.sidecar, offset)
    }

    /// Waits until a word of the sidecar has a value, for a limited time.
    pub(super) fn wait_for(&self, offset: usize, is_right: impl Fn(u64) -> bool) {
        for _ in 0..5000 {
            if is_right(self.word(offset)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("the word at {offset} is {} after ten seconds", self.word(offset));
    }
}
