//! A finished dump in fewer bytes. In: a dump. Out: one with the very same records, whose frames hold more of them and are
//! in columns. Needs the feature `compression`; memory is bounded by a frame.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, Read, Write};

use foldhash::fast::FixedState;

use crate::columns::Encoder;
use crate::frame::FrameHeader;
use crate::layout::{CODEC_COLUMNS, CODEC_RAW, FRAME_RECORDS, MAX_COLUMNS_RECORDS, MAX_PAYLOAD, MINOR};
use crate::read::{ReadError, Reader};
use crate::record::Record;

/// Why a dump cannot be compressed. It is as it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompressError {
    /// It cannot be read.
    Read(ReadError),
    /// It has no trailer, or something of it is damaged or missing: what could be recovered later would be lost.
    Incomplete,
    /// A newer release wrote it, with things that this one does not know.
    NewerVersion,
    /// Its records need more room than a frame has.
    TooLarge,
    /// Writing failed.
    Write(io::Error),
}

impl fmt::Display for CompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CompressError::Read(error) => return error.fmt(f),
            CompressError::Incomplete => "the dump is not complete",
            CompressError::NewerVersion => "written by a newer release",
            CompressError::TooLarge => "its records need more room than a frame has",
            CompressError::Write(_) => "writing failed",
        })
    }
}

impl std::error::Error for CompressError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CompressError::Read(error) => error.source(),
            CompressError::Write(error) => Some(error),
            _ => None,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compressed {
    /// Raw frames whose records are now in columns; 0 if the dump had none, which was compressed before.
    pub frames: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What both dumps say, as it was read.
    pub fingerprint: Fingerprint,
}

/// The level of Zstandard that costs little time.
pub const LEVEL: i32 = 3;

/// Writes a dump with the records of `input` to `output`, where nothing of worth is left after an error. Frames that are
/// compressed already are taken over.
///
/// # Errors
/// See [`CompressError`].
///
/// ```
/// use alloc_dump::compress::{Fingerprint, LEVEL, compress};
/// use alloc_dump::header::Header;
/// use alloc_dump::layout::FRAME_HEADER_LEN;
/// use alloc_dump::trailer::{EndReason, Trailer};
///
/// let mut dump = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
/// let mut last = [0u8; FRAME_HEADER_LEN + 128];
/// let trailer = Trailer::new(EndReason::Finished, 10);
/// let length = alloc_dump::write::seal_trailer(&mut last, 0, &trailer).unwrap();
/// dump.extend_from_slice(&last[..length]);
///
/// let mut smaller = Vec::new();
/// let done = compress(dump.as_slice(), &mut smaller, LEVEL).unwrap();
/// assert_eq!(Fingerprint::of(smaller.as_slice()).unwrap(), Some(done.fingerprint));
/// ```
pub fn compress(input: impl Read, output: impl Write, level: i32) -> Result<Compressed, CompressError> {
    let mut reader = Reader::new(input).map_err(CompressError::Read)?;
    if reader.minor() > MINOR {
        return Err(CompressError::NewerVersion);
    }
    let encoder = Encoder::new(level).map_err(CompressError::Write)?;
    let mut writer = FrameWriter { output, encoder, seq: 0, done: Compressed::default() };
    writer.write(&reader.header().encode())?;
    while let Some(frame) = reader.next_whole_frame().map_err(|error| CompressError::Read(error.into()))? {
        match (frame.kind, frame.codec) {
            // A record has one byte at least. Writers of this format make smaller frames.
            (FRAME_RECORDS, CODEC_RAW) if reader.payload().len() <= MAX_COLUMNS_RECORDS => {
                writer.add_records(reader.payload())?;
            }
            _ => {
                writer.seal()?;
                writer.frame(frame, reader.payload())?;
                if let Some(records) = reader.records_of(&frame) {
                    records.visit(|record| writer.done.fingerprint.add(record));
                }
            }
        }
    }
    writer.seal()?;
    writer.output.flush().map_err(CompressError::Write)?;
    if !reader.complete() {
        return Err(CompressError::Incomplete);
    }
    writer.done.fingerprint = writer.done.fingerprint.with_ends(&reader);
    Ok(writer.done)
}

/// What a dump says, to tell whether another one says the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// How many records it has.
    pub records: u64,
    /// A hash of its header, of all records in their order, and of its trailer.
    pub hash: u64,
}

impl Fingerprint {
    /// Reads a dump to its end. `None` if it is not complete.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(input: impl Read) -> Result<Option<Fingerprint>, ReadError> {
        let mut reader = Reader::new(input)?;
        let mut fingerprint = Fingerprint::default();
        while let Some(records) = reader.next_frame()? {
            records.visit(|record| fingerprint.add(record));
        }
        Ok(reader.complete().then(|| fingerprint.with_ends(&reader)))
    }

    #[inline]
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.mix(record);
    }

    fn with_ends<R: Read>(mut self, reader: &Reader<R>) -> Fingerprint {
        self.mix(reader.header());
        self.mix(&reader.trailer());
        self
    }

    #[inline]
    fn mix(&mut self, value: &impl Hash) {
        let mut hasher = FixedState::default().build_hasher();
        hasher.write_u64(self.hash);
        value.hash(&mut hasher);
        self.hash = hasher.finish();
    }
}

struct FrameWriter<W> {
    output: W,
    encoder: Encoder,
    seq: u32,
    done: Compressed,
}

impl<W: Write> FrameWriter<W> {
    /// Adds a raw frame to the current one, which ends before it if it would become too large.
    fn add_records(&mut self, payload: &[u8]) -> Result<(), CompressError> {
        if self.encoder.records() + payload.len() > MAX_COLUMNS_RECORDS || self.encoder.len() > ENOUGH {
            self.seal()?;
        }
        self.done.frames += 1;
        self.encoder.push(payload, &mut self.done.fingerprint).map_err(|_| CompressError::Incomplete)
    }

    /// Writes the current frame, if it has records.
    fn seal(&mut self) -> Result<(), CompressError> {
        if self.encoder.records() == 0 {
            return Ok(());
        }
        let (payload, decoded_len) = self.encoder.finish().map_err(CompressError::Write)?;
        if decoded_len > MAX_PAYLOAD || payload.len() > MAX_PAYLOAD {
            return Err(CompressError::TooLarge);
        }
        let raw = FrameHeader::raw(FRAME_RECORDS, 0, &payload);
        self.frame(FrameHeader { codec: CODEC_COLUMNS, decoded_len: decoded_len as u32, ..raw }, &payload)
    }

    fn frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), CompressError> {
        self.write(&FrameHeader { seq: self.seq, ..header }.encode())?;
        self.write(payload)?;
        self.seq = self.seq.checked_add(1).ok_or(CompressError::TooLarge)?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        self.done.bytes += bytes.len() as u64;
        self.output.write_all(bytes).map_err(CompressError::Write)
    }
}

/// A frame with as many bytes before Zstandard gains nothing from more.
const ENOUGH: usize = 4 << 20;
