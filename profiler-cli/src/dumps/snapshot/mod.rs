//! Taking snapshots. In: the path of a dump that is being written. Out: a file `DUMP.ID.snapshot`
//! beside it, readable by this user alone.
//!
//! The recorder makes a copy of its process (`exchange`), this process reads the copy's memory
//! (`memory`) and writes where it points to, but no other contents. A second copy some time later
//! tells blocks that are lost from those whose only pointer was in a register at the moment of the
//! first. For `profiler-cli run`, `server` takes the snapshots that a program itself asks for.

mod exchange;
mod find;
mod memory;
mod server;
mod stopped;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloc_dump::header::Header;
use alloc_dump::layout::{HEADER_LEN, SIDECAR_SUFFIX};
use alloc_dump::snapshot::{ImageHead, MemoryRegion, SnapshotHeader, SnapshotWriter};
use thiserror::Error;

use self::exchange::{Exchange, ProcessCopy};
pub use self::find::{SnapshotFile, UnreadSnapshot, find_snapshots};
use self::memory::{CopiedMemory, ThreadPlaces};
pub use self::server::{ServerOptions, serve_until};
use crate::io_error::plain;

/// How a snapshot is taken.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOptions {
    /// Its name.
    pub name: Vec<u8>,
    /// Take it even if memory is short.
    pub force: bool,
    /// Make one copy only, so that nothing can be called lost.
    pub once: bool,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many copies of the process it has: one or two.
    pub images: u32,
    /// How long reading them has taken.
    pub took: Duration,
}

impl TakenSnapshot {
    /// Returns a sentence about it.
    pub fn described(&self) -> String {
        let (path, images) = (self.path.display(), self.images);
        let copies = if images == 1 { "one copy" } else { "two copies" };
        let (mib, ms) = (self.bytes as f64 / (1u64 << 20) as f64, self.took.as_millis());
        format!("snapshot: {path} ({mib:.1} MiB, {copies} of the process, {ms} ms)")
    }
}

/// Why a snapshot was not taken. The recorded program goes on.
#[derive(Debug, Error)]
pub enum SnapshotTrouble {
    /// Nobody is writing the dump, or its recorder takes no snapshots.
    #[error("{}: no process is recording into this dump with a sidecar; give the dump of a program that runs", dump.display())]
    NotRecording {
        /// The dump.
        dump: PathBuf,
    },
    /// No dump belongs to the process.
    #[error(
        "process {pid} does not record: start it with `profiler-cli run`, or give the dump's path instead of the process id"
    )]
    NoDump {
        /// Its id.
        pid: u32,
    },
    /// The process has ended.
    #[error("process {pid} has ended, so there is no memory to look at")]
    Ended {
        /// Its id.
        pid: u32,
    },
    /// The recorder does not answer.
    #[error("process {pid} does not answer; is it stopped, or recorded by an older alloc-tracker?")]
    NoAnswer {
        /// Its id.
        pid: u32,
    },
    /// Somebody else is taking a snapshot.
    #[error("another snapshot of the process is being taken; try again later")]
    Busy,
    /// There is little memory left.
    #[error(
        "the process has {resident} of memory and only {available} are free; a copy may need as much again \
         if the program writes to all of it (--force takes the snapshot nevertheless)"
    )]
    NoHeadroom {
        /// Resident bytes of the process, as text.
        resident: String,
        /// Available bytes, as text.
        available: String,
    },
    /// The kernel makes no copy.
    #[error("the process cannot be copied: {}", plain(error))]
    NoCopy {
        /// The kernel's error.
        error: io::Error,
    },
    /// The copy's report has another form.
    #[error(
        "the copy of the process cannot be read: its alloc-tracker is of another version than this profiler-cli"
    )]
    Unknown,
    /// The kernel refuses something.
    #[error("cannot use {what}: {}", plain(error))]
    Refused {
        /// A path.
        what: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {}", path.display(), plain(error))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// Returns the path of the snapshot with this number of the dump at `dump`.
pub fn snapshot_path(dump: &Path, id: u32) -> PathBuf {
    let mut name = dump.as_os_str().to_owned();
    name.push(format!(".{id}{SNAPSHOT_SUFFIX}"));
    PathBuf::from(name)
}

/// Ending of the names of snapshots.
pub const SNAPSHOT_SUFFIX: &str = ".snapshot";

/// Returns the dump that a process is writing: its sidecar is mapped into the process.
///
/// # Errors
/// There is no such process, or it does not record into a file that can be found.
pub fn dump_of_process(pid: u32) -> Result<PathBuf, SnapshotTrouble> {
    let maps = match fs::read(format!("/proc/{pid}/maps")) {
        Ok(maps) => maps,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SnapshotTrouble::Ended { pid }),
        Err(error) => return Err(SnapshotTrouble::Refused { what: format!("/proc/{pid}/maps"), error }),
    };
    let mut regions = maps.split(|byte| *byte == b'\n').filter_map(MemoryRegion::parse);
    // The files are seen from inside the process, which may have a root of its own.
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let dump = regions.find_map(|region| {
        let name = region.name.strip_suffix(SIDECAR_SUFFIX.as_bytes()).filter(|_| region.shared)?;
        let plain = Path::new(std::ffi::OsStr::from_bytes(name));
        let seen = root.join(plain.strip_prefix("/").unwrap_or(plain));
        [plain.to_owned(), seen].into_iter().find(|dump| Exchange::open(dump).is_ok())
    });
    dump.ok_or(SnapshotTrouble::NoDump { pid })
}

/// Takes a snapshot of the process that is writing the dump at `dump`.
///
/// # Errors
/// See [`SnapshotTrouble`]. The program goes on in every case.
pub fn take(dump: &Path, options: &SnapshotOptions) -> Result<TakenSnapshot, SnapshotTrouble> {
    take_by(&Exchange::open(dump)?, options)
}

fn take_by(exchange: &Exchange, options: &SnapshotOptions) -> Result<TakenSnapshot, SnapshotTrouble> {
    if !options.force {
        check_headroom(exchange.host())?;
    }
    let before = ThreadPlaces::look(exchange.host());
    let copy = exchange.ask(&options.name)?;
    write(exchange, copy, &before, options, Asker::Reader)
}

/// Who has asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The program itself, which waits until no other copy is needed.
    Program,
    /// This process.
    Reader,
}

/// Writes the snapshot of a copy, and of a second one if there can be one.
fn write(
    exchange: &Exchange,
    copy: ProcessCopy,
    before: &ThreadPlaces,
    options: &SnapshotOptions,
    asker: Asker,
) -> Result<TakenSnapshot, SnapshotTrouble> {
    let mut waiting = WaitingProgram(Some(exchange).filter(|_| asker == Asker::Program));
    if options.once {
        waiting.let_go();
    }
    let begun = Instant::now();
    let path = snapshot_path(exchange.dump(), copy.id);
    let partial = path.with_added_extension("part");
    let failed = |error: io::Error| SnapshotTrouble::Write { path: path.clone(), error };
    // What an earlier attempt has left is of no use.
    let _ = fs::remove_file(&partial);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
    let removed_on_error = RemoveOnDrop(Some(partial.clone()));
    let time_us = time_since_begin(exchange.dump());
    let header = SnapshotHeader {
        session: exchange.session(),
        snapshot: copy.id,
        page_size: rustix::param::page_size() as u32,
        time_us,
        pid: exchange.host(),
    };
    let mut writer =
        SnapshotWriter::new(BufWriter::with_capacity(1 << 20, file), &header, &copy.name).map_err(failed)?;
    let (name, id) = (copy.name.clone(), copy.id);
    write_image(&mut writer, exchange, &copy, before, time_us).map_err(|trouble| match trouble {
        ImageTrouble::Copy(trouble) => trouble,
        ImageTrouble::Write(error) => failed(error),
    })?;
    drop(copy);
    let mut images = 1;
    if !options.once {
        std::thread::sleep(BETWEEN_IMAGES.saturating_sub(begun.elapsed()));
        let before = ThreadPlaces::look(exchange.host());
        let second = exchange.ask(&name);
        waiting.let_go();
        // Without a second image nothing is called lost, which the reader says.
        if let Ok(second) = second
            && second.id == id + 1
        {
            let time_us = time_since_begin(exchange.dump());
            match write_image(&mut writer, exchange, &second, &before, time_us) {
                Ok(()) => images = 2,
                Err(ImageTrouble::Copy(_)) => {}
                Err(ImageTrouble::Write(error)) => return Err(failed(error)),
            }
        }
    }
    let file: File = writer.finish().and_then(|out| Ok(out.into_inner()?)).map_err(failed)?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    fs::rename(&partial, &path).map_err(failed)?;
    removed_on_error.keep();
    Ok(TakenSnapshot { path, bytes, images, took: begun.elapsed() })
}

/// A program that waits until it is not needed for its snapshot any more; it waits no longer when
/// this is dropped.
struct WaitingProgram<'a>(Option<&'a Exchange>);

impl WaitingProgram<'_> {
    fn let_go(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.needs_no_more();
        }
    }
}

impl Drop for WaitingProgram<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Why an image could not be written.
enum ImageTrouble {
    /// The copy cannot be read. Nothing of it was written.
    Copy(SnapshotTrouble),
    /// The file cannot be written.
    Write(io::Error),
}

fn write_image<W: io::Write>(
    writer: &mut SnapshotWriter<W>,
    exchange: &Exchange,
    copy: &ProcessCopy,
    before: &ThreadPlaces,
    time_us: u64,
) -> Result<(), ImageTrouble> {
    let after = ThreadPlaces::look(exchange.host());
    let memory = CopiedMemory::open(copy, exchange.host()).map_err(ImageTrouble::Copy)?;
    let mut write = || {
        writer.begin_image(&ImageHead { time_us, step: 8 })?;
        for region in &memory.regions {
            writer.push_region(region)?;
        }
        for thread in before.threads_between(&after, &memory.report) {
            writer.push_thread(&thread)?;
        }
        memory.write_words(writer)
    };
    write().map_err(ImageTrouble::Write)
}

/// Removes a file when it is dropped.
struct RemoveOnDrop(Option<PathBuf>);

impl RemoveOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns the microseconds since the dump at this path was begun, by the clock of this machine.
fn time_since_begin(dump: &Path) -> u64 {
    let head = fs::File::open(dump).and_then(|mut file| {
        let mut head = [0; HEADER_LEN];
        io::Read::read_exact(&mut file, &mut head).map(|()| head)
    });
    let created = head.ok().and_then(|head| Header::decode(&head).ok()).map(|header| header.created_unix_ns);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    created.map_or(0, |created| (now.saturating_sub(u128::from(created)) / 1000) as u64)
}

/// Checks that there is a quarter of the memory that a copy needs if the program writes to all of
/// it meanwhile.
fn check_headroom(pid: u32) -> Result<(), SnapshotTrouble> {
    let page = rustix::param::page_size() as u64;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let resident =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * page;
    let Some(available) = available_memory(pid) else { return Ok(()) };
    if available < resident / 4 {
        let text = |bytes: u64| format!("{} MiB", bytes >> 20);
        return Err(SnapshotTrouble::NoHeadroom { resident: text(resident), available: text(available) });
    }
    Ok(())
}

/// Returns how many bytes of memory the machine, and the control group of the process, have left.
/// `None` if neither is known.
fn available_memory(pid: u32) -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?;
        Some(kib.trim().parse::<u64>().ok()? << 10)
    });
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).and_then(|path| {
        let number = |name: &str| {
            let file = format!("/sys/fs/cgroup{}/{name}", path.trim_end_matches('/'));
            fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
        };
        Some(number("memory.max")?.saturating_sub(number("memory.current")?))
    });
    machine.into_iter().chain(group).min()
}

/// The least time between the two images of a snapshot.
const BETWEEN_IMAGES: Duration = Duration::from_millis(50);
