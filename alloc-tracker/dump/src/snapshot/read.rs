//! The reader of snapshots. In: a file, of which nothing is trusted. Out: its regions, threads and
//! unread ranges in memory, and its words one after the other. Memory is bounded by one frame and
//! by [`MAX_TABLE_BYTES`]. Reading ends at the first damage, and the result says so.

use std::fmt;
use std::io::{self, Read};

use super::header::declared_len;
use super::layout::{
    FRAME_END, FRAME_IMAGE, FRAME_NAME, FRAME_REGIONS, FRAME_THREADS, FRAME_UNREAD, FRAME_WORDS, MAX_ENTRIES,
    MAX_IMAGES, MAX_TABLE_BYTES, SNAPSHOT_MAJOR,
};
use super::region::MemoryRegion;
use super::thread::SnapshotThread;
use super::{ImageHead, SnapshotHeader};
use crate::frame::FrameHeader;
use crate::layout::{CODEC_RAW, CODEC_ZSTD, FRAME_HEADER_LEN, HEADER_LEN, MAX_TEXT};
use crate::varint;

/// Why a file is not a snapshot that can be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Reading failed; the cause is the error's source.
    Read(io::Error),
    /// The file does not begin as a snapshot does.
    NotASnapshot,
    /// The file header is damaged.
    DamagedHeader,
    /// A newer release wrote the snapshot.
    NewerVersion {
        /// Major version of the file.
        major: u16,
        /// Minor version of the file.
        minor: u16,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Read(_) => f.write_str("reading the snapshot failed"),
            SnapshotError::NotASnapshot => f.write_str("this is not a snapshot of alloc-tracker"),
            SnapshotError::DamagedHeader => f.write_str("the header of the snapshot is damaged"),
            SnapshotError::NewerVersion { major, minor } => write!(
                f,
                "the snapshot has format version {major}.{minor}; this release reads up to {SNAPSHOT_MAJOR}"
            ),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::Read(error) => Some(error),
            _ => None,
        }
    }
}

/// All of a snapshot but its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotContents {
    /// The file header.
    pub header: SnapshotHeader,
    /// The name of the snapshot.
    pub name: Vec<u8>,
    /// The images, in the order in which they were taken.
    pub images: Vec<ImageContents>,
    /// Whether the file has its end, and is not damaged.
    pub complete: bool,
}

/// All of an image but its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageContents {
    /// What the image begins with.
    pub head: ImageHead,
    /// The regions, ascending.
    pub regions: Vec<MemoryRegion>,
    /// The threads.
    pub threads: Vec<SnapshotThread>,
    /// Ranges whose words are missing: first address, and first address after the range.
    pub unread: Vec<(u64, u64)>,
    /// Number of words.
    pub words: u64,
    /// Whether the whole image was read. If not, words may be missing anywhere.
    pub complete: bool,
}

impl SnapshotContents {
    /// Reads a snapshot, whose words are counted and not kept.
    ///
    /// # Errors
    /// See [`SnapshotError`]. Damage behind the header is no error: the result is not complete.
    pub fn read(input: impl Read) -> Result<SnapshotContents, SnapshotError> {
        read_all(input, None, &mut |_, _| ())
    }
}

/// Calls `found` with place and value of each word of the image with this index, in ascending order
/// of the places. Returns whether the image was read as a whole.
///
/// # Errors
/// See [`SnapshotError`].
pub fn visit_words(
    input: impl Read,
    image: usize,
    mut found: impl FnMut(u64, u64),
) -> Result<bool, SnapshotError> {
    let contents = read_all(input, Some(image), &mut found)?;
    Ok(contents.images.get(image).is_some_and(|image| image.complete))
}

/// Reads a snapshot. Only the words of the image `wanted` are visited; of the others only the
/// number is read.
fn read_all(
    mut input: impl Read,
    wanted: Option<usize>,
    found: &mut impl FnMut(u64, u64),
) -> Result<SnapshotContents, SnapshotError> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    read_up_to(&mut input, HEADER_LEN, &mut bytes).map_err(SnapshotError::Read)?;
    let header = SnapshotHeader::decode(&bytes)?;
    let more = bytes.first_chunk().and_then(declared_len).map_or(0, |len| len - HEADER_LEN);
    let mut state = ReadState {
        contents: SnapshotContents { header, name: Vec::new(), images: Vec::new(), complete: false },
        table_bytes: MAX_TABLE_BYTES,
        entries: [0; 4],
        words: 0,
        next_place: 0,
        wanted,
        found,
    };
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(SnapshotError::Read)?;
    let (mut payload, mut decoded) = (Vec::new(), Vec::new());
    read_up_to(&mut input, more, &mut payload).map_err(SnapshotError::Read)?;
    let mut seq = 0u32;
    while let Some(frame) = next_frame(&mut input, &mut payload).map_err(SnapshotError::Read)? {
        let is_next = frame.seq == seq;
        seq = seq.wrapping_add(1);
        let bytes = match frame.codec {
            CODEC_RAW => &payload,
            CODEC_ZSTD => {
                decoded.clear();
                decoded.reserve(frame.decoded_len as usize);
                match decompressor.decompress_to_buffer(&payload, &mut decoded) {
                    Ok(len) if len == frame.decoded_len as usize => &decoded,
                    _ => break,
                }
            }
            _ => break,
        };
        if !is_next || state.add(frame.kind, bytes).is_none() || state.contents.complete {
            break;
        }
    }
    Ok(state.contents)
}

/// Reads the next frame as it is stored. `None` at the end of the file and at damage.
fn next_frame(input: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<FrameHeader>> {
    read_up_to(input, FRAME_HEADER_LEN, payload)?;
    let Some(frame) = FrameHeader::decode(payload) else { return Ok(None) };
    read_up_to(input, frame.len as usize, payload)?;
    let is_whole = payload.len() == frame.len as usize && crc32fast::hash(payload) == frame.crc;
    Ok(is_whole.then_some(frame))
}

/// Reads so many bytes, or fewer at the end of the file.
fn read_up_to(input: &mut impl Read, len: usize, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    input.take(len as u64).read_to_end(into)?;
    Ok(())
}

/// What was read so far.
struct ReadState<'a, F> {
    contents: SnapshotContents,
    /// Bytes that frames of tables may still have.
    table_bytes: usize,
    /// Number of regions, threads and unread ranges, by the kind of their frames from 3 on.
    entries: [usize; 4],
    words: u64,
    next_place: u64,
    wanted: Option<usize>,
    found: &'a mut F,
}

impl<F: FnMut(u64, u64)> ReadState<'_, F> {
    /// Adds a frame. `None` if it is malformed.
    fn add(&mut self, kind: u8, bytes: &[u8]) -> Option<()> {
        let mut fields = FieldBytes { bytes, at: 0 };
        match kind {
            FRAME_NAME => self.contents.name = fields.text()?.to_vec(),
            FRAME_IMAGE => self.begin_image(&mut fields)?,
            FRAME_REGIONS | FRAME_THREADS | FRAME_UNREAD => {
                self.table_bytes = self.table_bytes.checked_sub(bytes.len())?;
                self.add_table(kind, &mut fields)?;
            }
            FRAME_WORDS => self.add_words(fields)?,
            FRAME_END => {
                let is_right =
                    fields.number()? == self.contents.images.len() as u64 && fields.number()? == self.words;
                is_right.then_some(())?;
                self.end_image();
                self.contents.complete = true;
            }
            // A kind of a newer minor version.
            _ => {}
        }
        Some(())
    }

    fn begin_image(&mut self, fields: &mut FieldBytes<'_>) -> Option<()> {
        let (index, time_us, step) = (fields.number()?, fields.number()?, fields.number()?);
        let flags = if fields.is_at_end() { 0 } else { fields.number()? };
        if index != self.contents.images.len() as u64
            || index >= MAX_IMAGES as u64
            || !matches!(step, 1 | 2 | 4 | 8)
        {
            return None;
        }
        self.end_image();
        self.next_place = 0;
        self.contents.images.push(ImageContents {
            head: ImageHead { time_us, step: step as u8, misses_tracker_mappings: flags & 1 != 0 },
            regions: Vec::new(),
            threads: Vec::new(),
            unread: Vec::new(),
            words: 0,
            complete: false,
        });
        Some(())
    }

    fn end_image(&mut self) {
        if let Some(image) = self.contents.images.last_mut() {
            image.complete = true;
        }
    }

    fn add_table(&mut self, kind: u8, fields: &mut FieldBytes<'_>) -> Option<()> {
        let image = self.contents.images.last_mut()?;
        let mut before = 0;
        while !fields.is_at_end() {
            let entries = &mut self.entries[usize::from(kind - FRAME_REGIONS)];
            *entries += 1;
            (*entries <= MAX_ENTRIES).then_some(())?;
            match kind {
                FRAME_REGIONS => {
                    let region = MemoryRegion::decode(fields, before)?;
                    let is_above = image.regions.last().is_none_or(|last| last.end <= region.start);
                    is_above.then_some(())?;
                    before = region.end;
                    image.regions.push(region);
                }
                FRAME_THREADS => image.threads.push(SnapshotThread::decode(fields)?),
                _ => {
                    let start = fields.number()?;
                    let end = start.checked_add(fields.number()?).filter(|end| *end > start)?;
                    image.unread.push((start, end));
                }
            }
        }
        Some(())
    }

    fn add_words(&mut self, mut places: FieldBytes<'_>) -> Option<()> {
        let index = self.contents.images.len().checked_sub(1)?;
        let step = u64::from(self.contents.images[index].head.step);
        let is_wanted = self.wanted == Some(index);
        let length = usize::try_from(places.number()?).ok()?;
        let split = places.at.checked_add(length).filter(|split| *split <= places.bytes.len())?;
        let mut values = FieldBytes { bytes: places.bytes, at: split };
        let mut places = FieldBytes { bytes: &places.bytes[..split], at: places.at };
        let (mut place, mut value) = (0u64, 0u64);
        let mut count = 0u64;
        if !is_wanted {
            // The last byte of a number is the only one below 0x80.
            count = places.bytes[places.at..].iter().filter(|byte| **byte < 0x80).count() as u64;
            places.at = split;
        }
        while !places.is_at_end() {
            place = place.checked_add(places.number()?.checked_mul(step)?)?;
            value = varint::undelta(value, values.number()?);
            if place < self.next_place {
                return None;
            }
            self.next_place = place.saturating_add(1);
            count += 1;
            (self.found)(place, value);
        }
        self.words = self.words.checked_add(count)?;
        self.contents.images[index].words += count;
        Some(())
    }
}

/// Reads the fields of a decoded payload.
pub(super) struct FieldBytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> FieldBytes<'a> {
    #[inline]
    pub(super) fn number(&mut self) -> Option<u64> {
        varint::get(self.bytes, &mut self.at)
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok().filter(|len| *len <= MAX_TEXT)?;
        let text = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(text)
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }
}
