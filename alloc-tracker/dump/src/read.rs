//! The reading half: a stream of records out of any [`Read`]. Memory is bounded by one frame, and a frame's
//! memory by the bytes that really came; damage costs the frames it hit and is counted.

use std::fmt;
use std::io::{self, Read};

use crate::frame::FrameHeader;
use crate::header::Header;
use crate::layout::{CODEC_RAW, FRAME_HEADER_LEN, FRAME_MAGIC, FRAME_RECORDS, FRAME_TRAILER, HEADER_LEN};
use crate::record::{Context, Record};
use crate::trailer::Trailer;

/// Why a dump cannot be read at all.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The file has no bytes.
    Empty,
    /// The file does not begin as a dump does.
    NotADump,
    /// The first 64 bytes are cut short or changed.
    DamagedHeader,
    /// A newer release wrote it, in a format that this one cannot read.
    NewerVersion {
        /// Major version in the file.
        major: u16,
        /// Minor version in the file.
        minor: u16,
    },
    /// Reading failed.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Empty => f.write_str("the file is empty"),
            ReadError::NotADump => f.write_str("not an alloc-tracker dump"),
            ReadError::DamagedHeader => f.write_str("the dump's header is damaged or cut short"),
            ReadError::NewerVersion { major, minor } => write!(
                f,
                "written in format {major}.{minor} by a newer release; this one reads up to {}.x",
                crate::layout::MAJOR
            ),
            ReadError::Io(_) => f.write_str("reading failed"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

/// What a reader could not use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Runs of damaged bytes: each is at least one frame that was dropped.
    pub dropped_frames: u64,
    /// Bytes in those runs.
    pub dropped_bytes: u64,
    /// Frames whose checksum held but whose records did not decode to the end; the records before are used.
    pub malformed_frames: u64,
    /// Frames that are missing from the sequence.
    pub missing_frames: u64,
}

/// Reads a dump from its header to its last whole frame.
#[derive(Debug)]
pub struct Reader<R> {
    source: Window<R>,
    header: Header,
    /// Bytes at the start of the window that the frame handed out last fills.
    used: usize,
    next_seq: u32,
    last_good: u64,
    trailer: Option<Trailer>,
    loss: Loss,
    rescans: u32,
}

impl<R: Read> Reader<R> {
    /// Reads the file header.
    ///
    /// # Errors
    /// See [`ReadError`]; nothing else about a dump is an error.
    pub fn new(source: R) -> Result<Reader<R>, ReadError> {
        let mut source = Window { source, buffer: Vec::new(), start: 0, consumed: 0 };
        source.fill(HEADER_LEN)?;
        let bytes = source.bytes();
        let header = Header::decode(&bytes[..bytes.len().min(HEADER_LEN)])?;
        source.consume(HEADER_LEN);
        Ok(Reader {
            source,
            header,
            used: 0,
            next_seq: 0,
            last_good: HEADER_LEN as u64,
            trailer: None,
            loss: Loss::default(),
            rescans: 0,
        })
    }

    /// The file header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next frame of records, or `None` at the end of the input. Damaged bytes, trailers and frames of unknown
    /// kinds are passed over.
    ///
    /// # Errors
    /// Only those of the underlying [`Read`].
    pub fn next_frame(&mut self) -> io::Result<Option<Records<'_>>> {
        loop {
            self.source.consume(std::mem::take(&mut self.used));
            let Some(header) = self.find_frame()? else { return Ok(None) };
            self.used = FRAME_HEADER_LEN + header.len as usize;
            self.last_good = self.source.consumed + self.used as u64;
            self.loss.missing_frames += u64::from(header.seq.saturating_sub(self.next_seq));
            self.next_seq = self.next_seq.max(header.seq.saturating_add(1));
            match (header.kind, header.codec) {
                (FRAME_RECORDS, CODEC_RAW) => break,
                (FRAME_TRAILER, CODEC_RAW) => {
                    self.trailer = Trailer::decode(&self.source.bytes()[FRAME_HEADER_LEN..self.used]);
                    self.loss.malformed_frames += u64::from(self.trailer.is_none());
                }
                (FRAME_RECORDS | FRAME_TRAILER, _) => self.loss.malformed_frames += 1,
                _ => {}
            }
        }
        let payload = &self.source.bytes()[FRAME_HEADER_LEN..self.used];
        Ok(Some(Records { payload, at: 0, context: Context::new(), loss: &mut self.loss }))
    }

    /// The trailer, once the reader has passed it.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// What could not be used so far.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Whether the whole recording was read: a trailer, and nothing lost before it. Final once
    /// [`next_frame`](Reader::next_frame) has returned `None`.
    pub fn complete(&self) -> bool {
        self.trailer.is_some() && self.loss == Loss::default()
    }

    /// Offset in the input behind the last whole frame.
    pub fn end_of_whole_frames(&self) -> u64 {
        self.last_good
    }

    /// The sequence number that the next frame of this dump has.
    pub fn next_seq(&self) -> u32 {
        self.next_seq
    }

    /// Bytes of the input that have been used so far.
    pub fn position(&self) -> u64 {
        self.source.consumed
    }

    /// Moves the window to the next frame whose checksums hold, counting what lies before it.
    fn find_frame(&mut self) -> io::Result<Option<FrameHeader>> {
        let mut skipped = 0u64;
        let found = loop {
            if !self.source.fill(FRAME_HEADER_LEN)? {
                skipped += self.source.bytes().len() as u64;
                break None;
            }
            let mut skip = next_magic(self.source.bytes());
            if let Some(header) = FrameHeader::decode(self.source.bytes()) {
                let total = FRAME_HEADER_LEN + header.len as usize;
                if self.source.fill(total)? {
                    let payload = &self.source.bytes()[FRAME_HEADER_LEN..total];
                    if crc32fast::hash(payload) == header.crc {
                        break Some(header);
                    }
                    // A frame that was cut short may have whole frames behind it, inside the length it claims. A file
                    // made to have many of those would cost a checksum of 16 MiB each, so only the first are tried.
                    self.rescans += 1;
                    if self.rescans > MAX_RESCANS {
                        skip = total;
                    }
                }
            }
            self.source.consume(skip);
            skipped += skip as u64;
        };
        if skipped > 0 {
            self.loss.dropped_frames += 1;
            self.loss.dropped_bytes += skipped;
        }
        Ok(found)
    }
}

/// The records of one frame, in the order in which they were written.
#[derive(Debug)]
pub struct Records<'a> {
    payload: &'a [u8],
    at: usize,
    context: Context,
    loss: &'a mut Loss,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        while self.at < self.payload.len() {
            match self.context.decode(self.payload, &mut self.at) {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(_) => {
                    self.loss.malformed_frames += 1;
                    self.at = self.payload.len();
                }
            }
        }
        None
    }
}

/// A growing view of the bytes that come next.
#[derive(Debug)]
struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    consumed: u64,
}

impl<R: Read> Window<R> {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn consume(&mut self, len: usize) {
        let len = len.min(self.buffer.len() - self.start);
        self.start += len;
        self.consumed += len as u64;
    }

    /// Reads until at least `len` bytes are there; false if the input ends before.
    fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.bytes().len() < len {
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            let before = self.buffer.len();
            // Grow with what arrives, never with what a header claims.
            self.buffer.resize(before + READ_STEP, 0);
            let got = loop {
                match self.source.read(&mut self.buffer[before..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            self.buffer.truncate(before + *got.as_ref().unwrap_or(&0));
            if got? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const READ_STEP: usize = 256 << 10;
const MAX_RESCANS: u32 = 64;

/// How far to skip to the next place that could be a frame: at least one byte, and never over the first bytes of a
/// magic that the window cuts off.
fn next_magic(bytes: &[u8]) -> usize {
    let after = bytes.get(1..).unwrap_or_default();
    let found = after.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC);
    1 + found.unwrap_or(after.len().saturating_sub(FRAME_MAGIC.len() - 1))
}
