//! The dumps that `leaks` reads. In: the paths of the command line. Out: the paths of dumps: those
//! in a folder, and those of a whole run.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::dumps::find::dumps_in;
use crate::dumps::place::{LAST_RUN, dumps_of_last_run};

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
            dump => vec![dump.to_owned()],
        };
        dumps.extend(chosen.into_iter().filter(|dump| !dumps.contains(dump)).collect::<Vec<_>>());
    }
    Ok(dumps)
}
