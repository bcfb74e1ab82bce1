//! The files with suppressions. In: paths. Out: [`Suppressions`], and in the end the patterns that
//! matched nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::analyze::leaks::Leaks;
use crate::analyze::suppressions::{SuppressionKind, Suppressions};
use crate::io_error::plain;

/// Reads suppressions from files.
///
/// # Errors
/// If a file cannot be read, or if a line of it is no suppression. The error names file and line.
pub(super) fn read_suppressions(files: &[PathBuf], with_defaults: bool) -> anyhow::Result<Suppressions> {
    let mut suppressions = if with_defaults { Suppressions::defaults() } else { Suppressions::default() };
    for file in files {
        suppressions.add_file(&file.to_string_lossy(), &read_text(file)?)?;
    }
    Ok(suppressions)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        bail!("cannot read suppressions from {}: {}", path.display(), plain(&error));
    }
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{} is larger than 1 MiB: give a file with one leak:PATTERN on a line", path.display());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        anyhow::anyhow!("{}:{line}: this is no text in UTF-8: give leak:PATTERN", path.display())
    })
}

/// The most bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

/// The suppressions of files that matched nothing, over several reports.
#[derive(Debug, Default)]
pub(super) struct UnusedPatterns {
    /// For each suppression of a file its source and text, and whether it matched.
    patterns: Option<Vec<(String, bool)>>,
}

impl UnusedPatterns {
    /// Takes a report.
    pub(super) fn note(&mut self, leaks: &Leaks) {
        let of_files =
            leaks.suppressed.patterns.iter().filter(|pattern| pattern.kind == SuppressionKind::File);
        let now = of_files.map(|row| (format!("{}: {}", row.source, row.pattern), !row.is_unused()));
        let before = self.patterns.take();
        // The suppressions of files are the same, in the same order, in every report.
        let was_used = |at: usize| before.as_ref().is_some_and(|before| before[at].1);
        self.patterns =
            Some(now.enumerate().map(|(at, (name, used))| (name, used || was_used(at))).collect());
    }

    /// Returns a sentence for each suppression that matched nothing in any report.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let unused = self.patterns.iter().flatten().filter(|(_, used)| !used);
        unused.map(|(name, _)| format!("{name} matched nothing"))
    }
}
