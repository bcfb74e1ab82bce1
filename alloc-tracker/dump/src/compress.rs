//! Compression of a finished dump. In: a dump, and names of its code. Out: a smaller dump with the
//! same records, in fewer and larger frames whose codec is [`CODEC_COLUMNS`], and with the names.
//! Needs the feature `compression`. Memory is bounded by one frame, and by the names.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, Read, Write};

use foldhash::fast::FixedState;

use crate::columns::ColumnEncoder;
use crate::frame::FrameHeader;
use crate::layout::{
    CODEC_COLUMNS, CODEC_RAW, CODEC_ZSTD, FRAME_RECORDS, FRAME_SYMBOLS, FRAME_TRAILER, MAX_COLUMNS_RECORDS,
    MAX_PAYLOAD, MINOR,
};
use crate::read::{ReadError, Reader};
use crate::record::Record;
use crate::symbols::EncodedSymbols;

/// Why a dump cannot be compressed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompressError {
    /// The dump cannot be read.
    Read(ReadError),
    /// The dump has no trailer, or a part of it is damaged or missing. Compressing it would lose
    /// what a reader may still recover.
    Incomplete,
    /// A newer release wrote the dump, which may hold data that this release does not know.
    NewerVersion,
    /// The records need a larger frame, or more frames, than the format allows.
    TooLarge,
    /// Writing the output failed; the cause is the error's source.
    Write(io::Error),
}

impl fmt::Display for CompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CompressError::Read(error) => return error.fmt(f),
            CompressError::Incomplete => {
                "the dump is not complete: its trailer or one of its frames is missing or damaged; \
                 keep it as it is, since a reader may still recover the rest"
            }
            CompressError::NewerVersion => "a newer release wrote the dump; compress it with that release",
            CompressError::TooLarge => {
                "the records need a larger frame, or more frames, than the format allows; keep the dump as it is"
            }
            CompressError::Write(_) => "writing the compressed dump failed",
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

/// What [`compress`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compressed {
    /// Number of raw frames whose records are in columns now. It is 0 if the dump had none, because
    /// it was compressed before.
    pub frames: u64,
    /// Size of the output in bytes.
    pub bytes: u64,
    /// The fingerprint of the input as it was read. A reader of the output must find the same.
    pub fingerprint: Fingerprint,
}

/// The level of Zstandard that `profiler-cli` uses. It costs little time.
pub const LEVEL: i32 = 3;

/// Writes a dump with the records of `input` to `output`. Frames that are compressed already are
/// copied.
///
/// # Errors
/// See [`CompressError`]. What was written to `output` by then is not a usable dump.
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
    compress_with_symbols(input, output, level, None)
}

/// Does the same as [`compress`], and puts these symbols before the trailer. They replace those
/// that the dump has; without any, the dump keeps its own.
///
/// # Errors
/// See [`CompressError`]. What was written to `output` by then is not a usable dump.
pub fn compress_with_symbols(
    input: impl Read,
    output: impl Write,
    level: i32,
    symbols: Option<&[EncodedSymbols]>,
) -> Result<Compressed, CompressError> {
    let mut reader = Reader::new(input).map_err(CompressError::Read)?;
    if reader.minor() > MINOR {
        return Err(CompressError::NewerVersion);
    }
    let encoder = ColumnEncoder::new(level).map_err(CompressError::Write)?;
    let mut writer = FrameWriter { output, encoder, seq: 0, done: Compressed::default() };
    writer.write(&reader.header().encode())?;
    while let Some(frame) = reader.next_whole_frame().map_err(|error| CompressError::Read(error.into()))? {
        match (frame.kind, frame.codec) {
            // A record has at least one byte, so such a payload never holds too many records for
            // one frame in columns. All writers of this format make smaller payloads.
            (FRAME_RECORDS, CODEC_RAW) if reader.payload().len() <= MAX_COLUMNS_RECORDS => {
                writer.add_records(reader.payload())?;
            }
            (FRAME_SYMBOLS, _) if symbols.is_some() => {}
            _ => {
                writer.seal()?;
                if frame.kind == FRAME_TRAILER {
                    symbols.into_iter().flatten().try_for_each(|symbols| writer.write_symbols(symbols))?;
                }
                writer.write_frame(frame, reader.payload())?;
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
    writer.done.fingerprint = writer.done.fingerprint.with_header_and_trailer(&reader);
    Ok(writer.done)
}

/// Number and hash of all that a dump records, to tell whether another dump records the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Number of records.
    pub records: u64,
    /// Hash of the file header, of all records in their order, and of the trailer. It may differ
    /// between releases.
    pub hash: u64,
}

impl Fingerprint {
    /// Reads a dump to its end and returns its fingerprint, or `None` if the dump is not complete.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn of(input: impl Read) -> Result<Option<Fingerprint>, ReadError> {
        let mut reader = Reader::new(input)?;
        let mut fingerprint = Fingerprint::default();
        while let Some(records) = reader.next_frame()? {
            records.visit(|record| fingerprint.add(record));
        }
        Ok(reader.complete().then(|| fingerprint.with_header_and_trailer(&reader)))
    }

    #[inline]
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.mix(record);
    }

    fn with_header_and_trailer<R: Read>(mut self, reader: &Reader<R>) -> Fingerprint {
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

/// Writes the frames of the output.
struct FrameWriter<W> {
    output: W,
    encoder: ColumnEncoder,
    seq: u32,
    done: Compressed,
}

impl<W: Write> FrameWriter<W> {
    /// Adds the records of a raw frame to the current frame. Writes the current frame before that
    /// if it has enough bytes, or would get too many records.
    fn add_records(&mut self, payload: &[u8]) -> Result<(), CompressError> {
        if self.encoder.records() + payload.len() > MAX_COLUMNS_RECORDS
            || self.encoder.len() > TARGET_COLUMN_BYTES
        {
            self.seal()?;
        }
        self.done.frames += 1;
        self.encoder.push_frame(payload, &mut self.done.fingerprint).map_err(|_| CompressError::Incomplete)
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
        self.write_frame(
            FrameHeader { codec: CODEC_COLUMNS, decoded_len: decoded_len as u32, ..raw },
            &payload,
        )
    }

    fn write_symbols(&mut self, symbols: &EncodedSymbols) -> Result<(), CompressError> {
        let EncodedSymbols { payload, decoded_len } = symbols;
        let raw = FrameHeader::raw(FRAME_SYMBOLS, 0, payload);
        self.write_frame(FrameHeader { codec: CODEC_ZSTD, decoded_len: *decoded_len, ..raw }, payload)
    }

    /// Writes a frame, with the next sequence number.
    fn write_frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), CompressError> {
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

/// A frame with so many bytes before Zstandard is large enough: more do not make it compress
/// better.
const TARGET_COLUMN_BYTES: usize = 4 << 20;
