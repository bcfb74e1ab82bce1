//! The reading half: a stream of records out of any [`Read`]. Memory is bounded by one frame, and a frame's
//! memory by the bytes that really came; time is linear in the input, whatever it holds; damage costs the frames it
//! hit and is counted. Nothing here panics on what it reads.

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
    /// Frames whose checksums held but that no writer of this format makes: records that do not decode to the end
    /// (those before are used), an unknown codec, an unreadable trailer, a sequence number that was passed already (not
    /// used: its events would count twice), records or another trailer behind the trailer (used).
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
    /// Wider than a sequence number, so that none can follow the largest.
    next_seq: u64,
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
        let mut source = Window::new(source);
        source.fill(HEADER_LEN)?;
        let header = Header::decode(source.bytes())?;
        let header_len = Header::declared_len(source.bytes()).ok_or(ReadError::DamagedHeader)?;
        if !source.fill(header_len)? {
            return Err(ReadError::DamagedHeader);
        }
        source.consume(header_len);
        Ok(Reader {
            source,
            header,
            used: 0,
            next_seq: 0,
            last_good: header_len as u64,
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
    /// kinds are passed over. Records that the caller leaves in the iterator are neither decoded nor checked.
    ///
    /// # Errors
    /// Only those of the underlying [`Read`]; the call may be repeated.
    pub fn next_frame(&mut self) -> io::Result<Option<Records<'_>>> {
        loop {
            self.source.consume(std::mem::take(&mut self.used));
            let Some(header) = self.find_frame()? else { return Ok(None) };
            self.used = FRAME_HEADER_LEN + header.len as usize;
            self.last_good = self.source.consumed + self.used as u64;
            let seq = u64::from(header.seq);
            if seq < self.next_seq {
                self.loss.malformed_frames += 1;
                continue;
            }
            self.loss.missing_frames += seq - self.next_seq;
            self.next_seq = seq + 1;
            if matches!(header.kind, FRAME_RECORDS | FRAME_TRAILER) {
                let misplaced = self.trailer.is_some() || header.codec != CODEC_RAW;
                self.loss.malformed_frames += u64::from(misplaced);
            }
            match (header.kind, header.codec) {
                (FRAME_RECORDS, CODEC_RAW) => break,
                (FRAME_TRAILER, CODEC_RAW) => {
                    self.trailer = Trailer::decode(&self.source.bytes()[FRAME_HEADER_LEN..self.used]);
                    self.loss.malformed_frames += u64::from(self.trailer.is_none());
                }
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

    /// Whether the whole recording was read: a trailer, nothing lost before it, nothing behind it. Final once
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
        u32::try_from(self.next_seq).unwrap_or(u32::MAX)
    }

    /// Bytes of the input that have been used so far.
    pub fn position(&self) -> u64 {
        self.source.consumed
    }

    /// Moves the window to the next frame whose checksums hold, counting what lies before it.
    fn find_frame(&mut self) -> io::Result<Option<FrameHeader>> {
        let mut skipped = false;
        while self.source.fill(FRAME_HEADER_LEN)? {
            let skip = match self.whole_frame()? {
                Found::Frame(header) => return Ok(Some(header)),
                Found::Damage(skip) => skip,
            };
            self.drop_bytes(skip, &mut skipped);
        }
        let rest = self.source.bytes().len();
        if rest > 0 {
            self.drop_bytes(rest, &mut skipped);
        }
        Ok(None)
    }

    /// Whether a whole frame stands at the start of the window; if not, how many bytes to drop.
    fn whole_frame(&mut self) -> io::Result<Found> {
        let Some(header) = FrameHeader::decode(self.source.bytes()) else {
            return Ok(Found::Damage(next_magic(self.source.bytes())));
        };
        let total = FRAME_HEADER_LEN + header.len as usize;
        if !self.source.fill(total)? {
            return Ok(Found::Damage(next_magic(self.source.bytes())));
        }
        if crc32fast::hash(&self.source.bytes()[FRAME_HEADER_LEN..total]) == header.crc {
            return Ok(Found::Frame(header));
        }
        // A frame that was cut short may have whole frames behind it, inside the length it claims. A file made to
        // have many of those would cost a checksum of 16 MiB each, so only the first are tried.
        self.rescans += 1;
        let rescan = self.rescans <= MAX_RESCANS;
        Ok(Found::Damage(if rescan { next_magic(self.source.bytes()) } else { total }))
    }

    fn drop_bytes(&mut self, len: usize, skipped: &mut bool) {
        self.loss.dropped_frames += u64::from(!std::mem::replace(skipped, true));
        self.loss.dropped_bytes += len as u64;
        self.source.consume(len);
    }
}

enum Found {
    Frame(FrameHeader),
    Damage(usize),
}

/// The records of one frame, in the order in which they were written.
#[derive(Debug)]
pub struct Records<'a> {
    payload: &'a [u8],
    at: usize,
    context: Context,
    loss: &'a mut Loss,
}

impl Records<'_> {
    /// What the reader could not use so far, what lies before this frame included.
    pub fn loss(&self) -> Loss {
        *self.loss
    }
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

/// A growing view of the bytes that come next: those at `start..end` of a buffer that is initialised throughout.
#[derive(Debug)]
struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    consumed: u64,
    ended: bool,
}

impl<R: Read> Window<R> {
    fn new(source: R) -> Window<R> {
        Window { source, buffer: vec![0; READ_STEP], start: 0, end: 0, consumed: 0, ended: false }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.consumed += len as u64;
    }

    /// Reads until at least `len` bytes are there; false if the input ends before. Once it has ended it is not asked
    /// again: each of many headers that claim more than there is must cost nothing.
    fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.end - self.start < len {
            if self.ended {
                return Ok(false);
            }
            self.make_room();
            let room = &mut self.buffer[self.end..];
            match self.source.read(room) {
                Ok(0) => self.ended = true,
                Ok(got) => self.end += got.min(room.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Makes room behind `end`. Nothing is moved before the buffer is full, so what is moved is less than one frame
    /// for each [`READ_STEP`] that was read; and it grows with what arrives, never with what a header claims.
    fn make_room(&mut self) {
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= std::mem::take(&mut self.start);
        } else {
            self.buffer.resize(self.end + READ_STEP, 0);
        }
    }
}

const READ_STEP: usize = 256 << 10;
const MAX_RESCANS: u32 = 64;

/// How far to skip to the next place that could be a frame: at least one byte, and never over the first bytes of a
/// magic that the window cuts off.
fn next_magic(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) =
        bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == FRAME_MAGIC[0]))
    {
        at += found;
        let there = &bytes[at..bytes.len().min(at + FRAME_MAGIC.len())];
        if FRAME_MAGIC.starts_with(there) {
            return at;
        }
        at += 1;
    }
    bytes.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_magic_is_the_first_one_behind_the_first_byte() {
        assert_eq!(next_magic(b"\xF7ADF"), 4);
        assert_eq!(next_magic(b"\xF7ADF\xF7ADF..."), 4);
        assert_eq!(next_magic(b"..\xF7\xF7AD\xF7A\xF7ADF"), 8);
        assert_eq!(next_magic(b"....."), 5);
    }

    #[test]
    fn a_magic_that_the_window_cuts_off_is_kept() {
        assert_eq!(next_magic(b"...\xF7"), 3);
        assert_eq!(next_magic(b"...\xF7A"), 3);
        assert_eq!(next_magic(b"...\xF7AD"), 3);
        assert_eq!(next_magic(b"...\xF7AF"), 6);
    }

    #[test]
    fn at_least_one_byte_is_dropped() {
        assert_eq!(next_magic(b""), 1);
        assert_eq!(next_magic(b"\xF7"), 1);
    }

    #[test]
    fn small_frames_never_make_the_window_grow() {
        let mut window = Window::new(io::repeat(1).take(10 << 20));
        while window.fill(1000).unwrap() {
            window.consume(999);
        }
        assert_eq!(window.buffer.len(), READ_STEP);
        assert_eq!(window.consumed + window.bytes().len() as u64, 10 << 20);
    }

    #[test]
    fn a_source_that_claims_more_than_it_could_give_is_not_believed() {
        struct Liar;
        impl Read for Liar {
            fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
                Ok(usize::MAX)
            }
        }
        let mut window = Window::new(Liar);
        assert!(window.fill(READ_STEP + 1).unwrap());
        assert_eq!(window.end, window.buffer.len());
    }
}
