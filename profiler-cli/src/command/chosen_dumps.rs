//! The dumps that a command reads which takes several. In: the paths of the command line. Out: the
//! paths of dumps: those in a folder, those whose names fit a pattern, and those of a whole run.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::dumps::find::dumps_in;
use crate::dumps::place::{LAST_RUN, dumps_of_last_run};
use crate::pattern::Pattern;

/// Returns the dumps that these paths mean, in the order of the paths, each once.
///
/// # Errors
/// If a folder has no dump or cannot be read, or if there was no run yet.
pub(super) fn chosen_dumps<'a>(paths: impl Iterator<Item = &'a Path>) -> anyhow::Result<Vec<PathBuf>> {
    let mut dumps = Vec::new();
    for path in paths {
        let chosen = match path {
            run if run.as_os_str() == LAST_RUN => dumps_of_last_run()?,
            folder if folder.is_dir() => {
                let found = dumps_in(folder)?;
                if found.is_empty() {
                    bail!("there is no dump in {}: a dump's name ends in .alloc", folder.display());
                }
                found
            }
            pattern if is_pattern(pattern) => dumps_that_fit(pattern)?,
            dump => vec![dump.to_owned()],
        };
        dumps.extend(chosen.into_iter().filter(|dump| !dumps.contains(dump)).collect::<Vec<_>>());
    }
    Ok(dumps)
}

/// Whether a path is a pattern for the names of files: no file has this very name.
fn is_pattern(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.contains(['*', '?']) && !path.exists()
}

/// Returns the dumps of a folder whose names fit the pattern.
fn dumps_that_fit(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = Pattern::new(&pattern.file_name().unwrap_or_default().to_string_lossy());
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty());
    let dumps = dumps_in(folder.unwrap_or(Path::new(".")))?;
    let fitting: Vec<PathBuf> = dumps
        .into_iter()
        .filter(|dump| dump.file_name().is_some_and(|file| name.matches(&file.to_string_lossy())))
        .collect();
    if fitting.is_empty() {
        bail!("no dump fits {}: a dump's name ends in .alloc", pattern.display());
    }
    Ok(fitting)
}
