//! Writing a snapshot into its file. In: a copy of a process. Out: a file that is whole, or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloc_dump::header::Header;
use alloc_dump::layout::HEADER_LEN;
use alloc_dump::snapshot::{ImageHead, SnapshotHeader, SnapshotThread, SnapshotWriter};

use super::exchange::{Exchange, ProcessCopy};
use super::heart::Heart;
use super::memory::CopiedMemory;
use super::threads::ThreadPositions;
use super::{SnapshotOptions, SnapshotTrouble, TakenSnapshot, snapshot_path};

/// Who has asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The program itself, which waits until no other copy is needed.
    Program,
    /// This process.
    Reader,
}

/// Writes the snapshot of a copy, and of a second one if there can be one. `before` says where the
/// threads were before the copy was made.
///
/// # Errors
/// The copy cannot be read, or the file cannot be written.
pub(super) fn write(
    exchange: &Exchange,
    copy: ProcessCopy,
    before: &ThreadPositions,
    options: &SnapshotOptions,
    asker: Asker,
) -> Result<TakenSnapshot, SnapshotTrouble> {
    let mut waiting = WaitingProgram::new(exchange, asker);
    let begun = Instant::now();
    let image = CopiedImage::open(exchange, &copy, before)?;
    if options.once && !image.memory.needs_program() {
        waiting.let_go();
    }
    let mut file = NewFile::create(exchange, &copy, image.time_us)?;
    file.push(&image)?;
    let (first, name) = (copy.id, copy.name.clone());
    drop((image, copy));
    if !options.once {
        std::thread::sleep(BETWEEN_IMAGES.saturating_sub(begun.elapsed()));
        // Without a second image nothing is called lost, which the reader says.
        if let Some((image, _copy)) = second_image(exchange, first, &name) {
            if !image.memory.needs_program() {
                waiting.let_go();
            }
            file.push(&image)?;
        }
    }
    waiting.let_go();
    let images = file.images;
    let (path, bytes) = file.finish()?;
    Ok(TakenSnapshot { path, bytes, images, took: begun.elapsed() })
}

/// Asks for the copy after the one with the number `first`. `None` if there is none, or if somebody
/// else has taken a snapshot in between.
fn second_image(exchange: &Exchange, first: u32, name: &[u8]) -> Option<(CopiedImage, ProcessCopy)> {
    let before = ThreadPositions::look(exchange.host());
    let copy = exchange.ask(name).ok().filter(|copy| copy.id == first + 1)?;
    Some((CopiedImage::open(exchange, &copy, &before).ok()?, copy))
}

/// A program that waits until it is not needed for its snapshot any more; it waits no longer when
/// this is dropped. Until then it sees signs of life, also between two copies.
struct WaitingProgram<'a> {
    exchange: &'a Exchange,
    /// `None` if no program waits.
    heart: Option<Heart>,
}

impl<'a> WaitingProgram<'a> {
    fn new(exchange: &'a Exchange, asker: Asker) -> WaitingProgram<'a> {
        WaitingProgram { exchange, heart: (asker == Asker::Program).then(|| exchange.start_heart()) }
    }

    fn let_go(&mut self) {
        if self.heart.take().is_some() {
            self.exchange.needs_no_more();
        }
    }
}

impl Drop for WaitingProgram<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// What becomes an image of a snapshot.
struct CopiedImage {
    time_us: u64,
    memory: CopiedMemory,
    threads: Vec<SnapshotThread>,
}

impl CopiedImage {
    fn open(
        exchange: &Exchange,
        copy: &ProcessCopy,
        before: &ThreadPositions,
    ) -> Result<CopiedImage, SnapshotTrouble> {
        let after = ThreadPositions::look(exchange.host());
        let time_us = time_since_begin(exchange.dump());
        let memory = CopiedMemory::open(copy, exchange)?;
        let threads = before.threads_between(&after, &memory.report);
        Ok(CopiedImage { time_us, memory, threads })
    }

    fn write<W: io::Write>(&self, writer: &mut SnapshotWriter<W>) -> io::Result<()> {
        let misses_tracker_mappings = !self.memory.report.has_all_mappings;
        writer.begin_image(&ImageHead { time_us: self.time_us, step: 8, misses_tracker_mappings })?;
        for region in &self.memory.regions {
            writer.push_region(region)?;
        }
        for thread in &self.threads {
            writer.push_thread(thread)?;
        }
        self.memory.write_words(writer)
    }
}

/// A snapshot that is being written: a file of another name until it is whole. Dropping it removes
/// the file.
struct NewFile {
    path: PathBuf,
    partial: RemoveOnDrop,
    writer: SnapshotWriter<BufWriter<File>>,
    images: u32,
}

impl NewFile {
    fn create(exchange: &Exchange, copy: &ProcessCopy, time_us: u64) -> Result<NewFile, SnapshotTrouble> {
        let path = snapshot_path(exchange.dump(), copy.id);
        let partial = path.with_added_extension("part");
        let header = SnapshotHeader {
            session: exchange.session(),
            snapshot: copy.id,
            page_size: rustix::param::page_size() as u32,
            time_us,
            pid: exchange.host(),
        };
        // What an earlier attempt has left is of no use.
        let _ = fs::remove_file(&partial);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(|error| unwritten(&path, error))?;
        let partial = RemoveOnDrop(Some(partial));
        let output = BufWriter::with_capacity(1 << 20, file);
        let writer = SnapshotWriter::new(output, &header, &copy.name);
        let writer = writer.map_err(|error| unwritten(&path, error))?;
        Ok(NewFile { path, partial, writer, images: 0 })
    }

    fn push(&mut self, image: &CopiedImage) -> Result<(), SnapshotTrouble> {
        self.images += 1;
        image.write(&mut self.writer).map_err(|error| unwritten(&self.path, error))
    }

    /// Returns the file's path and length.
    fn finish(self) -> Result<(PathBuf, u64), SnapshotTrouble> {
        let NewFile { path, partial, writer, .. } = self;
        let finish = || {
            let file = writer.finish()?.into_inner()?;
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            partial.rename(&path)?;
            Ok(bytes)
        };
        match finish() {
            Ok(bytes) => Ok((path, bytes)),
            Err(error) => Err(unwritten(&path, error)),
        }
    }
}

fn unwritten(path: &Path, error: io::Error) -> SnapshotTrouble {
    SnapshotTrouble::Write { path: path.to_owned(), error }
}

/// Removes a file when it is dropped.
struct RemoveOnDrop(Option<PathBuf>);

impl RemoveOnDrop {
    /// Gives the file its name for good.
    fn rename(mut self, to: &Path) -> io::Result<()> {
        if let Some(path) = &self.0 {
            fs::rename(path, to)?;
        }
        self.0 = None;
        Ok(())
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

/// The least time between the two images of a snapshot.
const BETWEEN_IMAGES: Duration = Duration::from_millis(50);
