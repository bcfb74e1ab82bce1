//! From a dump file to a [`Profile`]. In: a path. Out: a loaded profile, or one line of error. Streams: memory follows
//! live blocks and distinct stacks, never events; nothing in the file is trusted. Its numbers are looked up by hashes with a seed
//! that it cannot know: values that were chosen to collide would each be compared with all others.

mod activations;
mod contexts;
mod curve;
mod modules;
mod peak;
mod replay;
mod usage;

use std::path::{Path, PathBuf};

use alloc_dump::read::Reader;
use foldhash::HashSet;

use crate::dumps::OnProgress;
use crate::dumps::open::{DumpError, open_dump};
use crate::dumps::sidecar::{SidecarRest, is_sidecar_gone};
use crate::pattern::Pattern;
use crate::profile::Profile;
use replay::Replay;

/// Why a dump cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened, or is not a dump that this release can read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// No thread has such a name.
    #[error("{path}: no thread matches '{pattern}'; there are: {names}")]
    NoThread {
        /// The dump.
        path: PathBuf,
        /// What was asked for.
        pattern: String,
        /// What there is.
        names: String,
    },
}

/// Loads a dump. With `threads`, what happened at each stack counts only events of threads whose name matches; totals
/// are always those of the whole process.
///
/// # Errors
/// See [`LoadError`]. Damage inside a dump is not an error: it is counted in [`Profile::trust`].
pub fn load(path: &Path, threads: Option<&Pattern>, progress: OnProgress<'_>) -> Result<Profile, LoadError> {
    let Some(pattern) = threads else { return replay(path, None, progress) };
    // A first pass for the names: a thread may get its name long after its first event.
    let whole = replay(path, None, progress)?;
    let selected = threads_named(path, &whole, pattern)?;
    Ok(Profile { trust: whole.trust, ..replay(path, Some(selected), progress)? })
}

fn replay(
    path: &Path,
    selected: Option<HashSet<u32>>,
    progress: OnProgress<'_>,
) -> Result<Profile, LoadError> {
    let (mut reader, size) = open_dump(path)?;
    let mut replay = Replay::new(*reader.header(), selected);
    let read_error = DumpError::reading(path);
    while let Some(records) = reader.next_frame().map_err(|error| read_error(error.into()))? {
        replay.frame_begins(records.damage().dropped_bytes);
        records.visit(|record| replay.record(record));
        progress(reader.position(), size);
    }
    let mut loss = reader.damage();
    if reader.trailer().is_none() && is_sidecar_gone(path) {
        replay.sidecar_is_gone();
    }
    if reader.trailer().is_none()
        && let Some(recovered) = SidecarRest::read(path, reader.header(), reader.next_seq())
    {
        let mut rest = Reader::new(recovered.dump.as_slice()).map_err(&read_error)?;
        while let Some(records) = rest.next_frame().map_err(|error| read_error(error.into()))? {
            replay.frame_begins(reader.damage().dropped_bytes);
            records.visit(|record| replay.record(record));
        }
        replay.recovered(recovered.payload_bytes, recovered.stopped);
        // What was cut short at the end of the dump is the frame that the sidecar has whole.
        let cut = size.saturating_sub(reader.end_of_whole_frames());
        loss.dropped_frames -= u64::from(cut > 0).min(loss.dropped_frames);
        loss.dropped_bytes -= cut.min(loss.dropped_bytes);
        loss.missing_frames += recovered.missing_frames;
        loss.malformed_frames += rest.damage().malformed_frames;
    }
    Ok(replay.finish(reader.trailer(), loss))
}

fn threads_named(path: &Path, profile: &Profile, pattern: &Pattern) -> Result<HashSet<u32>, LoadError> {
    let matching = profile.threads.iter().filter(|thread| pattern.matches(&thread.name));
    let selected: HashSet<u32> = matching.map(|thread| thread.id).collect();
    if selected.is_empty() {
        let mut names: Vec<&str> = profile.threads.iter().map(|thread| thread.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(20);
        let (path, pattern, names) = (path.to_owned(), pattern.to_string(), names.join(", "));
        return Err(LoadError::NoThread { path, pattern, names });
    }
    Ok(selected)
}
