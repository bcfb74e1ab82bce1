//! The program log: which programs a command of cargo has run. One process of this program starts
//! cargo, and cargo starts another one for each program that it runs. They share a folder, which is
//! removed at the end.
//!
//! | file | content |
//! | --- | --- |
//! | `settings` | how to record, as JSON; written before cargo is started |
//! | `programs` | a line of JSON for each program that was started, and one for each that has ended |
//!
//! A line is written with a single call at the end of the file, so lines of several processes do
//! not mix.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::command::run::{RecordSettings, RecordedProgram};
use crate::dumps::writing::is_running;
use crate::io_error::plain;

/// The log, in the process that starts cargo.
#[derive(Debug)]
pub(super) struct ProgramLog {
    folder: TempDir,
}

/// The log, in a process that records a program.
#[derive(Debug)]
pub(super) struct LogWriter {
    folder: PathBuf,
}

/// A line of the file `programs`.
#[derive(Debug, Serialize, Deserialize)]
enum LogLine {
    /// This process of this program records a program.
    Started(u32),
    /// The process with this id has recorded a program.
    Ended(u32, RecordedProgram),
}

impl ProgramLog {
    /// Makes the folder.
    ///
    /// # Errors
    /// If there is no room for temporary files.
    pub(super) fn begin(settings: &RecordSettings) -> anyhow::Result<ProgramLog> {
        let make = || {
            let folder = tempfile::Builder::new().prefix("alloc-").tempdir()?;
            fs::write(folder.path().join(SETTINGS), serde_json::to_vec(settings)?)?;
            Ok(ProgramLog { folder })
        };
        make().map_err(|error: io::Error| anyhow::anyhow!("cannot write temporary files: {}", plain(&error)))
    }

    /// The path of the folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the processes that record a program at this moment.
    pub(super) fn recorders(folder: &Path) -> Vec<u32> {
        let mut recorders = Vec::new();
        for line in lines(folder) {
            match line {
                LogLine::Started(id) => recorders.push(id),
                LogLine::Ended(id, _) => recorders.retain(|other| *other != id),
            }
        }
        recorders.retain(|id| is_running(*id));
        recorders
    }

    /// Waits for the programs that still run. There are some if cargo was ended by a signal that
    /// they handle otherwise.
    pub(super) fn wait_for_programs(&self) {
        while !ProgramLog::recorders(self.path()).is_empty() {
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Returns the programs that have ended, in the order of their end.
    pub(super) fn programs(&self) -> Vec<RecordedProgram> {
        let ended = |line| match line {
            LogLine::Ended(_, program) => Some(program),
            LogLine::Started(_) => None,
        };
        lines(self.path()).into_iter().filter_map(ended).collect()
    }
}

impl LogWriter {
    /// Opens the log, and returns how to record.
    ///
    /// # Errors
    /// If the folder has no log.
    pub(super) fn open(folder: &Path) -> anyhow::Result<(LogWriter, RecordSettings)> {
        let settings = fs::read(folder.join(SETTINGS)).map_err(anyhow::Error::from);
        let settings = settings.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        let settings = settings.with_context(|| {
            format!("{}: only `profiler-cli cargo` starts this process", folder.display())
        })?;
        let log = LogWriter { folder: folder.to_owned() };
        log.note(&LogLine::Started(std::process::id()));
        Ok((log, settings))
    }

    /// Returns the dumps of the programs that have ended.
    pub(super) fn dumps(&self) -> Vec<PathBuf> {
        let dumps = |line| match line {
            LogLine::Ended(_, program) => program.dumps,
            LogLine::Started(_) => Vec::new(),
        };
        lines(&self.folder).into_iter().flat_map(dumps).map(PathBuf::from).collect()
    }

    /// Says that the program of this process has ended.
    pub(super) fn ended(&self, program: RecordedProgram) {
        self.note(&LogLine::Ended(std::process::id(), program));
    }

    fn note(&self, line: &LogLine) {
        let write = || {
            let mut text = serde_json::to_vec(line)?;
            text.push(b'\n');
            File::options().create(true).append(true).open(self.folder.join(PROGRAMS))?.write_all(&text)
        };
        // Without the line the report lacks this program. Its dump is there.
        let _: io::Result<()> = write();
    }
}

fn lines(folder: &Path) -> Vec<LogLine> {
    let text = fs::read(folder.join(PROGRAMS)).unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

const SETTINGS: &str = "settings";
const PROGRAMS: &str = "programs";
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
