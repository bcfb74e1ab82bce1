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

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use alloc_dump::header::Header;
use alloc_dump::layout::{SIDECAR_HEADER_LEN, SIDECAR_SUFFIX};
use alloc_dump::read::{ReadError, Reader, Records};
use alloc_dump::record::Record;
use alloc_dump::sidecar::{COMMITS_OFFSET, MAX_RINGS, RING_LEN, RINGS_START, Sidecar};
use foldhash::HashSet;

use crate::pattern::Pattern;
use crate::profile::Profile;
use replay::Replay;

/// Why a dump cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {}", plain(cause))]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file is no dump that this release can read.
    #[error("{path}: {cause}{}", advice(cause))]
    Read {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        cause: ReadError,
    },
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

/// Told from time to time how many bytes of how many have been read.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Loads a dump. With `threads`, what happened at each stack counts only events of threads whose name matches; totals
/// are always those of the whole process.
///
/// # Errors
/// See [`LoadError`]. Damage inside a dump is not an error: it is counted in [`Profile::trust`].
pub fn load(path: &Path, threads: Option<&Pattern>, progress: Progress<'_>) -> Result<Profile, LoadError> {
    let Some(pattern) = threads else { return replay(path, None, progress) };
    // A first pass for the names: a thread may get its name long after its first event.
    let whole = replay(path, None, progress)?;
    let selected = threads_named(path, &whole, pattern)?;
    Ok(Profile { trust: whole.trust, ..replay(path, Some(selected), progress)? })
}

fn replay(path: &Path, selected: Option<HashSet<u32>>, progress: Progress<'_>) -> Result<Profile, LoadError> {
    let (mut reader, size) = open(path)?;
    let mut replay = Replay::new(*reader.header(), selected);
    let read_error = |cause| LoadError::Read { path: path.to_owned(), cause };
    while let Some(records) = reader.next_frame().map_err(|error| read_error(error.into()))? {
        replay.frame_begins(records.damage().dropped_bytes);
        records.visit(|record| replay.record(record));
        progress(reader.position(), size);
    }
    let mut loss = reader.damage();
    if reader.trailer().is_none() && leads_nowhere(&sidecar_path(path)) {
        replay.sidecar_is_gone();
    }
    if reader.trailer().is_none()
        && let Some(recovered) = Recovered::find(path, reader.header(), reader.next_seq())
    {
        let mut rest = Reader::new(recovered.dump.as_slice()).map_err(read_error)?;
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

/// Who wrote a dump, without reading the rest of it: the process id, and what `profiler-cli run` had put into its
/// environment (empty if nothing). `None` if the dump ends before it says so.
///
/// # Errors
/// See [`LoadError`].
pub fn writer_of(path: &Path) -> Result<Option<(u32, Vec<u8>)>, LoadError> {
    let (mut reader, _) = open(path)?;
    if let Ok(Some(records)) = reader.next_frame() {
        return Ok(writer_in(records));
    }
    let recovered = Recovered::find(path, reader.header(), reader.next_seq());
    let mut rest = recovered.as_ref().and_then(|recovered| Reader::new(recovered.dump.as_slice()).ok());
    let first = rest.as_mut().and_then(|rest| rest.next_frame().ok().flatten());
    Ok(first.and_then(writer_in))
}

fn writer_in(mut records: Records<'_>) -> Option<(u32, Vec<u8>)> {
    records.find_map(|record| match record {
        Record::Process(process) => Some((process.pid, process.run.to_vec())),
        _ => None,
    })
}

/// What the sidecar of a dump has that the dump has not.
pub(crate) struct Recovered {
    /// A dump of its own: a header and frames.
    pub(crate) dump: Vec<u8>,
    /// Frames that should stand between the end of the dump and this one, and do not.
    pub(crate) missing_frames: u64,
    /// Bytes of frames in it.
    pub(crate) payload_bytes: u64,
    /// The system's words for the error at which the recording stopped.
    pub(crate) stopped: Option<String>,
}

impl Recovered {
    /// Looks for the sidecar of the dump at `path`. `None` if there is none.
    pub(crate) fn find(path: &Path, header: &Header, next_seq: u32) -> Option<Recovered> {
        let bytes = read_sidecar(path, &header.session)?;
        let tail = Sidecar::parse(&bytes, &header.session)?;
        // Frames that went into the dump after it was read are not missing, but then the sidecar is about later ones.
        let frames = tail.recover_frames(next_seq, 0);
        let stopped = tail.stopped_errno.map(|errno| plain(&io::Error::from_raw_os_error(errno)));
        let missing_frames = u64::from(tail.missing_frames(next_seq)) + tail.unprotected;
        let payload_bytes = frames.len() as u64;
        let mut dump = header.encode().to_vec();
        dump.extend_from_slice(&frames);
        Some(Recovered { dump, missing_frames, payload_bytes, stopped })
    }
}

/// The bytes of a dump's sidecar, all of one moment even if its process is still at work. `None` if there is none.
pub(crate) fn read_sidecar(path: &Path, session: &[u8; 16]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..MOST_READINGS {
        bytes.clear();
        let mut file = File::open(sidecar_path(path)).ok()?;
        (&mut file).take(MAX_SIDECAR).read_to_end(&mut bytes).ok()?;
        let mut again = vec![0; SIDECAR_HEADER_LEN];
        file.seek(SeekFrom::Start(0)).ok()?;
        let unchanged = file.read_exact(&mut again).is_ok()
            && again[COMMITS_OFFSET..COMMITS_OFFSET + 8] == *bytes.get(COMMITS_OFFSET..COMMITS_OFFSET + 8)?;
        Sidecar::parse(&bytes, session)?;
        if unchanged {
            break;
        }
    }
    Some(bytes)
}

/// A process that drains faster than this machine reads is not waited for.
const MOST_READINGS: u32 = 10;
const MAX_SIDECAR: u64 = (RINGS_START + MAX_RINGS * RING_LEN) as u64;

/// Where the sidecar of a dump is.
pub(crate) fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SIDECAR_SUFFIX);
    PathBuf::from(name)
}

/// Whether it is a link to what is not there.
fn leads_nowhere(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

/// Removes the sidecar at this path, and what it leads to if it is a link of the recorder's.
///
/// # Errors
/// If it is not there or cannot be removed.
pub(crate) fn remove_sidecar(path: &Path) -> io::Result<()> {
    let target = std::fs::read_link(path).ok();
    std::fs::remove_file(path)?;
    if let Some(target) = target.filter(|target| is_in_memory(target)) {
        // It may have been removed already.
        let _ = std::fs::remove_file(target);
    }
    Ok(())
}

/// Whether it is where the recorder puts a sidecar that cannot be beside its dump, and nothing else: somebody may have put a link
/// there that leads elsewhere.
fn is_in_memory(path: &Path) -> bool {
    let name = path.as_os_str().as_bytes().strip_prefix(b"/dev/shm/alloc-tracker.");
    let digits = name.and_then(|name| name.strip_suffix(SIDECAR_SUFFIX.as_bytes()));
    digits.is_some_and(|digits| digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// An error of the system's without Rust's ` (os error N)`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn advice(error: &ReadError) -> &'static str {
    match error {
        ReadError::NewerVersion { .. } => "; use the profiler-cli of that release",
        ReadError::NotADump => "; give the file that `profiler-cli run -o FILE` has written",
        ReadError::Empty => "; the program was stopped before it could write anything",
        _ => "",
    }
}

fn open(path: &Path) -> Result<(Reader<File>, u64), LoadError> {
    let open_error = |cause| LoadError::Open { path: path.to_owned(), cause };
    let file = File::open(path).map_err(open_error)?;
    let metadata = file.metadata().map_err(open_error)?;
    if metadata.is_dir() {
        return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let size = metadata.len();
    let reader = Reader::new(file).map_err(|cause| LoadError::Read { path: path.to_owned(), cause })?;
    Ok((reader, size))
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
