//! The writer of snapshots. In: images with their regions, threads and words, in this order. Out:
//! frames. Memory is bounded by one frame; a word allocates nothing.

use std::io::{self, Write};

use super::layout::{
    FRAME_END, FRAME_IMAGE, FRAME_NAME, FRAME_REGIONS, FRAME_THREADS, FRAME_UNREAD, FRAME_WORDS, MAX_IMAGES,
    WORDS_IN_FRAME,
};
use super::region::MemoryRegion;
use super::thread::SnapshotThread;
use super::{ImageHead, SnapshotHeader};
use crate::frame::FrameHeader;
use crate::layout::{CODEC_ZSTD, MAX_TEXT};
use crate::varint;

/// Writes a snapshot.
pub struct SnapshotWriter<W> {
    output: W,
    compressor: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    seq: u32,
    images: usize,
    step: u64,
    /// The kind of the frame that is being filled; 0 if there is none.
    kind: u8,
    /// The frame's payload. In a frame of words: the column of places.
    payload: Vec<u8>,
    /// In a frame of words: the column of values.
    values: Vec<u8>,
    /// Number of words of the frame, and of the snapshot.
    in_frame: usize,
    words: u64,
    /// The last region's or range's end or the last place in the frame, and the last value.
    last: (u64, u64),
    /// No later place of the image may be below this one.
    next_place: u64,
    /// No later region of the image may begin below this address.
    next_region: u64,
}

/// The level of Zstandard: the columns are small already, and the process may wait for the writer.
const ZSTD_LEVEL: i32 = 1;
/// A payload of regions, threads or ranges with so many bytes is written.
const TARGET_BYTES: usize = 1 << 20;
/// Most bytes that a word adds to its two columns.
const WORD_BYTES: usize = 2 * varint::MAX_LEN;

impl<W: Write> SnapshotWriter<W> {
    /// Begins a snapshot with this name.
    ///
    /// # Errors
    /// The first error of `output`.
    pub fn new(output: W, header: &SnapshotHeader, name: &[u8]) -> io::Result<SnapshotWriter<W>> {
        let columns = WORDS_IN_FRAME * varint::MAX_LEN;
        let mut writer = SnapshotWriter {
            output,
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            compressed: Vec::with_capacity(zstd::zstd_safe::compress_bound(2 * columns + WORD_BYTES)),
            seq: 0,
            images: 0,
            step: 8,
            kind: 0,
            payload: Vec::with_capacity(2 * columns + WORD_BYTES),
            values: Vec::with_capacity(columns),
            in_frame: 0,
            words: 0,
            last: (0, 0),
            next_place: 0,
            next_region: 0,
        };
        writer.output.write_all(&header.encode())?;
        writer.change_kind(FRAME_NAME)?;
        put_text(&mut writer.payload, name);
        writer.seal()?;
        Ok(writer)
    }

    /// Begins an image. Its regions, threads, unread ranges and words follow.
    ///
    /// # Errors
    /// The first error of the output, or if the step is not 1, 2, 4 or 8, or if there are too many
    /// images.
    pub fn begin_image(&mut self, head: &ImageHead) -> io::Result<()> {
        if !matches!(head.step, 1 | 2 | 4 | 8) || self.images == MAX_IMAGES {
            return Err(invalid("a snapshot cannot have such an image"));
        }
        self.change_kind(FRAME_IMAGE)?;
        let flags = u64::from(head.misses_tracker_mappings);
        for number in [self.images as u64, head.time_us, u64::from(head.step), flags] {
            put_number(&mut self.payload, number);
        }
        self.images += 1;
        (self.step, self.next_place, self.next_region) = (u64::from(head.step), 0, 0);
        self.seal()
    }

    /// Adds a region of the image, above those before.
    ///
    /// # Errors
    /// The first error of the output, or if the region is empty or below one before.
    pub fn push_region(&mut self, region: &MemoryRegion) -> io::Result<()> {
        if region.start < self.next_region || region.end <= region.start {
            return Err(invalid("the regions of an image must ascend"));
        }
        self.make_room(FRAME_REGIONS)?;
        region.encode(self.last.0, &mut self.payload);
        (self.last.0, self.next_region) = (region.end, region.end);
        Ok(())
    }

    /// Adds a thread of the image.
    ///
    /// # Errors
    /// The first error of the output.
    pub fn push_thread(&mut self, thread: &SnapshotThread) -> io::Result<()> {
        self.make_room(FRAME_THREADS)?;
        thread.encode(&mut self.payload);
        Ok(())
    }

    /// Says that a range of the image could not be read, although a region has it and its pages are
    /// present. With such a range, blocks may look lost that are not.
    ///
    /// # Errors
    /// The first error of the output, or if the range is empty.
    pub fn push_unread(&mut self, start: u64, end: u64) -> io::Result<()> {
        if end <= start {
            return Err(invalid("a range that could not be read is not empty"));
        }
        self.make_room(FRAME_UNREAD)?;
        put_number(&mut self.payload, start);
        put_number(&mut self.payload, end - start);
        Ok(())
    }

    /// Adds a word of the image: its place, above those before, and its value.
    ///
    /// # Errors
    /// The first error of the output, or if the place is below one before or not a multiple of the
    /// image's step.
    #[inline]
    pub fn push_word(&mut self, place: u64, value: u64) -> io::Result<()> {
        if self.kind != FRAME_WORDS || self.in_frame == WORDS_IN_FRAME {
            self.begin_words()?;
        }
        if place < self.next_place || !place.is_multiple_of(self.step) {
            return Err(invalid("the words of an image must be in order"));
        }
        put_number(&mut self.payload, (place - self.last.0) / self.step);
        put_number(&mut self.values, varint::delta(self.last.1, value));
        (self.last, self.next_place) = ((place, value), place.saturating_add(1));
        self.in_frame += 1;
        self.words += 1;
        Ok(())
    }

    /// Ends the snapshot, which is complete now, and returns the output.
    ///
    /// # Errors
    /// The first error of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.change_kind(FRAME_END)?;
        for number in [self.images as u64, self.words] {
            put_number(&mut self.payload, number);
        }
        self.seal()?;
        self.output.flush()?;
        Ok(self.output)
    }

    /// Begins a frame of words.
    #[cold]
    fn begin_words(&mut self) -> io::Result<()> {
        self.seal()?;
        self.change_kind(FRAME_WORDS)
    }

    /// Makes sure that the current frame has this kind, and room.
    fn make_room(&mut self, kind: u8) -> io::Result<()> {
        if self.payload.len() >= TARGET_BYTES {
            self.seal()?;
        }
        self.change_kind(kind)
    }

    fn change_kind(&mut self, kind: u8) -> io::Result<()> {
        if self.kind != kind {
            self.seal()?;
            self.kind = kind;
        }
        Ok(())
    }

    /// Writes the current frame, if there is one.
    fn seal(&mut self) -> io::Result<()> {
        let kind = std::mem::take(&mut self.kind);
        if kind == 0 {
            return Ok(());
        }
        if kind == FRAME_WORDS {
            // The length of the first column comes before it. The payload has room for it at the
            // end; only these bytes are moved to the front.
            let places = self.payload.len();
            put_number(&mut self.payload, places as u64);
            let length = self.payload.len() - places;
            self.payload.rotate_right(length);
            self.payload.extend_from_slice(&self.values);
            self.values.clear();
        }
        self.compressed.clear();
        let raw = FrameHeader::raw(kind, self.seq, &self.payload);
        let bound = zstd::zstd_safe::compress_bound(self.payload.len());
        self.compressed.reserve(bound);
        self.compressor.compress_to_buffer(&self.payload, &mut self.compressed)?;
        let (header, payload) = if self.compressed.len() < self.payload.len() {
            let stored = FrameHeader::raw(kind, self.seq, &self.compressed);
            (FrameHeader { codec: CODEC_ZSTD, decoded_len: raw.len, ..stored }, &self.compressed)
        } else {
            (raw, &self.payload)
        };
        self.output.write_all(&header.encode())?;
        self.output.write_all(payload)?;
        self.seq += 1;
        self.payload.clear();
        (self.in_frame, self.last) = (0, (0, 0));
        Ok(())
    }
}

/// Appends a number.
#[inline]
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a text and its length. A text that is too long is cut.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(MAX_TEXT)];
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
