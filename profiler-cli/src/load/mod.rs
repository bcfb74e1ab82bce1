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
//! | `moment`, `gate` | the interval that is counted, as the user names it and as a place in the dump |
//! | `replay` | hands each record to the modules that use it |
//! | `growth_pass` | the second pass, which follows sites |
//! | `still_live` | follows the blocks of an interval to the end of the recording |
//! | `follow` | loads a dump that is still being written |

mod call_tree;
mod chosen_threads;
mod code;
mod follow;
mod gate;
mod growth_pass;
mod heap;
#[cfg(test)]
mod made_records;
mod modules;
mod moment;
mod observers;
mod options;
mod replay;
mod still_live;
mod threads;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use alloc_dump::read::{Damage, Reader};
use alloc_dump::symbols::Symbols;
use alloc_dump::trailer::Trailer;

use self::chosen_threads::chosen_threads;
use self::gate::Gate;
use self::replay::{Replay, ReplayScope};
use crate::dumps::OnProgress;
use crate::dumps::open::{DumpError, open_dump};
use crate::dumps::sidecar::{SidecarRest, is_sidecar_gone, unread_sidecar};
use crate::dumps::writing::{WriterState, wait_while_closing};
use crate::profile::Profile;

pub use self::code::load_code;
pub use self::follow::FollowedDump;
pub use self::growth_pass::load_growth;
pub use self::moment::{MOMENTS, MomentSpec, parse_time};
pub use self::options::{KeepBlocks, LoadOptions, Period, parse_short_lived};

/// Why a dump cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened, or is not a dump that this release can read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The recording has no such moment.
    #[error("{path}: {problem}")]
    NoMoment {
        /// Path of the dump.
        path: PathBuf,
        /// What is wrong, and which moments there are.
        problem: String,
    },
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
    let keep = options.blocks.clone();
    let scope = ReplayScope {
        keep: keep.clone(),
        short_lived: options.short_lived,
        peaks: options.peaks,
        groups: options.groups.clone(),
        resizes: options.resizes,
        mark_times: options.mark_times.clone(),
        layouts: options.layouts,
        ..ReplayScope::default()
    };
    if options.threads.is_none() && options.period.is_none() {
        return Ok(replay_all(path, &scope, progress)?);
    }
    // The first pass finds names and moments: a thread may get its name long after its first event,
    // and only the end of a recording tells where its peak was. A snapshot may come after the
    // interval, so its blocks are those of this pass.
    let first_keep = if options.period.is_some() { keep.only_at_snapshots() } else { KeepBlocks::Nothing };
    let first_scope = ReplayScope { keep: first_keep, ..ReplayScope::default() };
    let mut whole = replay_all(path, &first_scope, progress)?;
    let at_snapshots = whole.blocks.take().map(|blocks| blocks.at_snapshots);
    let threads = options.threads.as_ref();
    let selected = threads.map(|pattern| chosen_threads(path, &whole.threads, pattern)).transpose()?;
    let scope = ReplayScope { selected, ..scope };
    match &options.period {
        Some(period) => {
            let mut part = replay_period(path, (period, options.still_live), whole, scope, progress)?;
            if let (Some(blocks), Some(at_snapshots)) = (&mut part.blocks, at_snapshots) {
                blocks.at_snapshots = at_snapshots;
            }
            Ok(part)
        }
        None => Ok(Profile { trust: whole.trust, ..replay_all(path, &scope, progress)? }),
    }
}

/// Replays the dump up to the end of an interval of it, or to the end of the dump if `still_live`.
/// `whole` is the profile of the whole dump.
fn replay_period(
    path: &Path,
    (period, still_live): (&Period, bool),
    mut whole: Profile,
    scope: ReplayScope,
    progress: OnProgress<'_>,
) -> Result<Profile, LoadError> {
    let no_moment = |problem| LoadError::NoMoment { path: path.to_owned(), problem };
    let gate = Gate::of(period, &whole).map_err(no_moment)?.with_still_live(still_live);
    let scope = ReplayScope { gate: Some(gate), ..scope };
    let names = (period.from.as_ref().map(MomentSpec::to_string), period.to.to_string());
    // The names are at the end of the dump, behind the interval.
    let symbols = std::mem::take(&mut whole.symbols);
    let replay = replay_dump(path, &scope, progress)?.replay;
    let profile = Profile { symbols, ..replay.finish_interval(whole, names) };
    match &profile.interval {
        Some(interval) if interval.from_us > interval.to_us => Err(no_moment(period.reversed_error())),
        _ => Ok(profile),
    }
}

fn replay_all(path: &Path, scope: &ReplayScope, progress: OnProgress<'_>) -> Result<Profile, DumpError> {
    let ReplayedDump { replay, trailer, loss, symbols } = replay_dump(path, scope, progress)?;
    Ok(Profile { symbols, ..replay.finish(trailer.as_ref(), loss) })
}

/// A dump whose records were replayed.
struct ReplayedDump {
    replay: Replay,
    trailer: Option<Trailer>,
    loss: Damage,
    /// The names that the dump has kept; empty if the replay did not reach the end of the dump.
    symbols: Vec<Symbols>,
}

fn replay_dump(
    path: &Path,
    scope: &ReplayScope,
    progress: OnProgress<'_>,
) -> Result<ReplayedDump, DumpError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let state = wait_while_closing(path);
        let (mut reader, size) = open_dump(path)?;
        reader.keep_symbols();
        let mut replay = Replay::new(reader.header(), scope.clone());
        let read_error = DumpError::reading(path);
        while let Some(records) = reader.next_frame().map_err(|error| read_error(error.into()))? {
            replay.replay_frame(records.damage().dropped_bytes, records);
            progress(reader.position(), size);
            if replay.is_over() {
                let (trailer, loss) = (None, Damage::default());
                return Ok(ReplayedDump { replay, trailer, loss, symbols: Vec::new() });
            }
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
        return Ok(ReplayedDump { symbols, ..replay_rest(path, size, &reader, replay, rest)? });
    }
}

/// Most attempts to read a dump that is closed meanwhile.
const MAX_ATTEMPTS: u32 = 3;

/// Replays the rest of the records and returns the profile, see [`replay_rest`].
fn finish<R: Read>(
    path: &Path,
    size: u64,
    reader: &Reader<R>,
    replay: Replay,
    rest: io::Result<Option<SidecarRest>>,
) -> Result<Profile, DumpError> {
    let ReplayedDump { replay, trailer, loss, .. } = replay_rest(path, size, reader, replay, rest)?;
    Ok(replay.finish(trailer.as_ref(), loss))
}

/// Replays the rest of the records, which the sidecar holds. `size` is the length of the dump that
/// the reader has read, in bytes. If the rest cannot be read, the profile says so; if there is
/// nothing but the rest, that is an error.
fn replay_rest<R: Read>(
    path: &Path,
    size: u64,
    reader: &Reader<R>,
    mut replay: Replay,
    rest: io::Result<Option<SidecarRest>>,
) -> Result<ReplayedDump, DumpError> {
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
    let trailer = reader.trailer().cloned();
    Ok(ReplayedDump { replay, trailer, loss, symbols: Vec::new() })
}
