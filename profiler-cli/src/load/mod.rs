//! Loads a dump file into a [`Profile`]. In: a path. Out: a loaded profile, or an error with a text
//! of one line.
//!
//! The records are streamed: memory grows with the number of live blocks and of distinct stacks,
//! never with the number of events. Nothing in the file is trusted. Addresses and ids from the file
//! are keys of hash tables with a random seed. Without the seed, a file could choose keys that
//! collide, and each look-up would compare with all of them.
//!
//! | module | idea |
//! | --- | --- |
//! | `heap` | the live set, and what one event does to it |
//! | `call_tree`, `modules` | the nodes of the call tree and the modules that contain them |
//! | `code` | loads the call tree and nothing else |
//! | `chosen_threads` | the threads that `--thread` means |
//! | `threads` | the threads, and which of them are selected |
//! | `observers` | one file for each analysis that sees the events and the live set |
//! | `replay` | hands each record to the modules that use it |
//! | `follow` | loads a dump that is still being written |

mod call_tree;
mod chosen_threads;
mod code;
mod follow;
mod heap;
mod modules;
mod observers;
mod options;
mod replay;
mod threads;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use alloc_dump::read::Reader;
use foldhash::HashSet;

use self::chosen_threads::chosen_threads;
use self::replay::Replay;
use crate::dumps::OnProgress;
use crate::dumps::open::{DumpError, open_dump};
use crate::dumps::sidecar::{SidecarRest, is_sidecar_gone, unread_sidecar};
use crate::dumps::writing::{WriterState, wait_while_closing};
use crate::profile::Profile;

pub use self::code::load_code;
pub use self::follow::FollowedDump;
pub use self::options::{KeepBlocks, LoadOptions};

/// Why a dump cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened, or is not a dump that this release can read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// No thread is meant by `--thread`.
    #[error("{path}: no thread matches '{pattern}'{hint}; there are: {names}")]
    NoThread {
        /// Path of the dump.
        path: PathBuf,
        /// The pattern for names of threads.
        pattern: String,
        /// Why a thread that the program has named so may have another name in the dump; empty if
        /// there is no reason.
        hint: &'static str,
        /// Names of threads in the dump, in quotes and separated by commas, the most similar ones
        /// first; at most 20.
        names: String,
    },
}

/// Loads a dump.
///
/// # Errors
/// See [`LoadError`]. Damage inside a dump is not an error: it is counted in [`Profile::trust`].
pub fn load(path: &Path, options: &LoadOptions, progress: OnProgress<'_>) -> Result<Profile, LoadError> {
    let Some(pattern) = &options.threads else {
        return Ok(replay_all(path, None, &options.blocks, progress)?);
    };
    // The first pass only finds the names: a thread may get its name long after its first event.
    let whole = replay_all(path, None, &KeepBlocks::Nothing, progress)?;
    let selected = chosen_threads(path, &whole.threads, pattern)?;
    let profile = replay_all(path, Some(&selected), &options.blocks, progress)?;
    Ok(Profile { trust: whole.trust, ..profile })
}

fn replay_all(
    path: &Path,
    selected: Option<&HashSet<u32>>,
    keep: &KeepBlocks,
    progress: OnProgress<'_>,
) -> Result<Profile, DumpError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let state = wait_while_closing(path);
        let (mut reader, size) = open_dump(path)?;
        reader.keep_symbols();
        let mut replay = Replay::new(reader.header(), selected.cloned(), keep.clone());
        let read_error = DumpError::reading(path);
        while let Some(records) = reader.next_frame().map_err(|error| read_error(error.into()))? {
            replay.replay_frame(records.damage().dropped_bytes, records);
            progress(reader.position(), size);
        }
        let rest = match reader.trailer() {
            Some(_) => Ok(None),
            None => SidecarRest::read(path, reader.header(), reader.next_seq()),
        };
        if state != WriterState::Done && reader.trailer().is_none() {
            // Without a sidecar the recording has ended since the dump was read.
            if matches!(rest, Ok(None)) && attempt < MAX_ATTEMPTS {
                continue;
            }
            replay.note_being_written();
        }
        let symbols = reader.take_symbols();
        return Ok(Profile { symbols, ..finish(path, size, &reader, replay, rest)? });
    }
}

/// Most attempts to read a dump that is closed meanwhile.
const MAX_ATTEMPTS: u32 = 3;

/// Replays the rest of the records, which the sidecar holds, and finishes the replay. `size` is the
/// length of the dump that the reader has read, in bytes. If the rest cannot be read, the profile
/// says so; if there is nothing but the rest, that is an error.
fn finish<R: Read>(
    path: &Path,
    size: u64,
    reader: &Reader<R>,
    mut replay: Replay,
    rest: io::Result<Option<SidecarRest>>,
) -> Result<Profile, DumpError> {
    let mut loss = reader.damage();
    let rest = match rest {
        Err(cause) if reader.next_seq() == 0 => {
            return Err(DumpError::Sidecar { path: path.to_owned(), cause });
        }
        Err(cause) => {
            replay.note_unread_sidecar(unread_sidecar(path, &cause));
            None
        }
        Ok(rest) => rest,
    };
    if reader.trailer().is_none() && is_sidecar_gone(path) {
        replay.note_sidecar_gone();
    }
    if let Some(rest) = rest {
        let read_error = DumpError::reading(path);
        let mut frames = Reader::new(rest.dump.as_slice()).map_err(&read_error)?;
        while let Some(records) = frames.next_frame().map_err(|error| read_error(error.into()))? {
            replay.replay_frame(reader.damage().dropped_bytes, records);
        }
        replay.note_recovered(rest.payload_bytes, rest.stopped);
        // A frame that is cut short at the end of the dump is not lost: the sidecar has the whole
        // of it.
        let cut = size.saturating_sub(reader.end_of_whole_frames());
        loss.dropped_frames -= u64::from(cut > 0).min(loss.dropped_frames);
        loss.dropped_bytes -= cut.min(loss.dropped_bytes);
        loss.missing_frames += rest.missing_frames;
        loss.malformed_frames += frames.damage().malformed_frames;
    }
    Ok(replay.finish(reader.trailer(), loss))
}
