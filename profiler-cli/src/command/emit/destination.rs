//! Where an output for reviewers goes: to stdout, to a file, or to the end of the job summary of
//! GitHub, to which every step may add.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use alloc_dump::layout::MAGIC;
use anyhow::{anyhow, bail};

use super::surroundings::JobVariables;
use crate::command::Failure;
use crate::command::output::Target;
use crate::io_error::plain;
use crate::render::review::markdown::MarkdownLimit;
use crate::units::Safe;

/// Where an output goes.
pub(super) enum Destination<'a> {
    /// To stdout, or to a file that is replaced.
    Target(Target<'a>),
    /// To the end of the job summary.
    JobSummary(JobSummary<'a>),
}

impl<'a> Destination<'a> {
    /// Returns the destination of an output. Only Markdown belongs into the job summary.
    pub(super) fn of(file: Option<&'a Path>, is_markdown: bool, job: &JobVariables) -> Destination<'a> {
        match file {
            None => Destination::Target(Target::Stdout),
            Some(path)
                if is_markdown && job.summary.as_deref().is_some_and(|summary| is_same(path, summary)) =>
            {
                Destination::JobSummary(JobSummary { path })
            }
            // No dump is given here: `check` refuses every file that is one.
            Some(path) => Destination::Target(Target::File { path, dump: Path::new("") }),
        }
    }
}

/// Whether two paths are the same file.
fn is_same(path: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    path == other || identity(path).is_some_and(|file| Some(file) == identity(other))
}

/// Checks that a file may be replaced.
///
/// # Errors
/// If the file is a dump.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    // A pipe must not be read.
    if !path.is_file() {
        return Ok(());
    }
    let mut first = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut first));
    if read.is_ok() && first == MAGIC {
        bail!("cannot write {}: it is a dump; choose another file", path.display());
    }
    Ok(())
}

/// The job summary of a step.
pub(super) struct JobSummary<'a> {
    path: &'a Path,
}

impl JobSummary<'_> {
    /// Returns how much may still be added. GitHub drops a summary that is too large as a whole.
    pub(super) fn room(&self) -> MarkdownLimit {
        let MarkdownLimit::Bytes(most) = MarkdownLimit::JOB_SUMMARY else {
            return MarkdownLimit::JOB_SUMMARY;
        };
        // One byte is for the line break between the page and what is there.
        let used = std::fs::metadata(self.path).map_or(0, |file| file.len() + 1);
        MarkdownLimit::Bytes(most.saturating_sub(usize::try_from(used).unwrap_or(usize::MAX)))
    }

    /// Adds a page, with a line break before it if the file does not end in one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn append(&self, page: &[u8]) -> Result<(), Failure> {
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(self.path)?;
            let mut last = [b'\n'];
            if file.metadata()?.len() > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            let line_break: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
            file.write_all(&[line_break, page].concat())
        };
        append().map_err(|error| anyhow!("cannot write {}: {}", self.path.display(), plain(&error)))?;
        // The summary is complete, even if nobody reads stderr any more.
        let _ = writeln!(anstream::stderr(), "{}", Safe(&self.path.to_string_lossy()));
        Ok(())
    }
}
