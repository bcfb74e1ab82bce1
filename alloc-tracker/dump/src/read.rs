//! The reading half: a stream of records out of any [`Read`]. Memory is bounded by one frame, and a frame's
//! memory by the bytes that really came; time is linear in the input, whatever it holds; damage costs the frames it
//! hit and is counted. Nothing here panics on what it reads.

use std::fmt;
use std::io::{self, Read};

#[cfg(feature = "compression")]
use crate::columns::Decoder;
use crate::frame::FrameHeader;
use crate::header::Header;
use crate::layout::{
    CODEC_COLUMNS, CODEC_RAW, FRAME_HEADER_LEN, FRAME_MAGIC, FRAME_RECORDS, FRAME_TRAILER, HEADER_LEN,
};
use crate::record::Context;
use crate::records::Source;
use crate::trailer::Trailer;
use crate::window::Window;

pub use crate::records::Records;

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
pub struct Damage {
    /// Runs of damaged bytes: each is at least one frame that was dropped.
    pub dropped_frames: u64,
    /// Bytes in those runs.
    pub dropped_bytes: u64,
    /// Frames whose checksums held but that no writer of this format makes: records that do not decode to the end
    /// (those before are used), an unknown codec (without the feature `compression` that of compressed dumps), an unreadable trailer, a sequence number that was passed already (not
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
    #[cfg_attr(not(feature = "compression"), allow(dead_code))]
    minor: u16,
    /// Bytes at the start of the window that the frame handed out last fills.
    used: usize,
    /// Wider than a sequence number, so that none can follow the largest.
    next_seq: u64,
    last_good: u64,
    trailer: Option<Trailer>,
    damage: Damage,
    rescans: u32,
    columns: Option<Box<Decoder>>,
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
        let minor = Header::minor(source.bytes());
        let header_len = Header::declared_len(source.bytes()).ok_or(ReadError::DamagedHeader)?;
        if !source.fill(header_len)? {
            return Err(ReadError::DamagedHeader);
        }
        source.consume(header_len);
        Ok(Reader {
            source,
            header,
            minor,
            used: 0,
            next_seq: 0,
            last_good: header_len as u64,
            trailer: None,
            damage: Damage::default(),
            rescans: 0,
            columns: None,
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
            let Some(header) = self.next_whole_frame()? else { return Ok(None) };
            if self.prepare(&header) {
                return Ok(Some(self.records(header.codec)));
            }
        }
    }

    /// The records of the frame whose header came last, if it has any that this reader can use.
    #[cfg(feature = "compression")]
    pub(crate) fn records_of(&mut self, header: &FrameHeader) -> Option<Records<'_>> {
        self.prepare(header).then(|| self.records(header.codec))
    }

    /// Makes ready to read the records of a frame; false if it has none, or none that this reader can use.
    fn prepare(&mut self, header: &FrameHeader) -> bool {
        match (header.kind, header.codec) {
            (FRAME_RECORDS, CODEC_RAW) => true,
            #[cfg(feature = "compression")]
            (FRAME_RECORDS, CODEC_COLUMNS) => {
                let loaded = self.load_columns(header).is_some();
                self.damage.malformed_frames += u64::from(!loaded);
                loaded
            }
            _ => false,
        }
    }

    fn records(&mut self, codec: u8) -> Records<'_> {
        let source = match (codec, &mut self.columns) {
            #[cfg(feature = "compression")]
            (CODEC_COLUMNS, Some(decoder)) => Source::Columns(decoder.columns()),
            _ => {
                let payload = &self.source.bytes()[FRAME_HEADER_LEN..self.used];
                Source::Raw { payload, at: 0, context: Context::new() }
            }
        };
        Records { source, damage: &mut self.damage }
    }

    /// The header of the next frame of any kind in any codec, in sequence; what is wrong with it so far is counted.
    pub(crate) fn next_whole_frame(&mut self) -> io::Result<Option<FrameHeader>> {
        loop {
            self.source.consume(std::mem::take(&mut self.used));
            let Some(header) = self.find_frame()? else { return Ok(None) };
            self.used = FRAME_HEADER_LEN + header.len as usize;
            self.last_good = self.source.consumed + self.used as u64;
            let seq = u64::from(header.seq);
            if seq < self.next_seq {
                self.damage.malformed_frames += 1;
                continue;
            }
            self.damage.missing_frames += seq - self.next_seq;
            self.next_seq = seq + 1;
            if matches!(header.kind, FRAME_RECORDS | FRAME_TRAILER) {
                let misplaced = self.trailer.is_some() || !known_codec(header.kind, header.codec);
                self.damage.malformed_frames += u64::from(misplaced);
            }
            if (header.kind, header.codec) == (FRAME_TRAILER, CODEC_RAW) {
                self.trailer = Trailer::decode(self.payload());
                self.damage.malformed_frames += u64::from(self.trailer.is_none());
            }
            return Ok(Some(header));
        }
    }

    /// The payload of the frame handed out last, as stored.
    pub(crate) fn payload(&self) -> &[u8] {
        self.source.bytes().get(FRAME_HEADER_LEN..self.used).unwrap_or_default()
    }

    #[cfg(feature = "compression")]
    fn load_columns(&mut self, header: &FrameHeader) -> Option<()> {
        if self.columns.is_none() {
            self.columns = Some(Box::new(Decoder::new()?));
        }
        let payload = self.source.bytes().get(FRAME_HEADER_LEN..self.used)?;
        self.columns.as_mut()?.load(payload, header.decoded_len as usize)
    }

    /// The minor version in the file.
    #[cfg(feature = "compression")]
    pub(crate) fn minor(&self) -> u16 {
        self.minor
    }

    /// The trailer, once the reader has passed it.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// What could not be used so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Whether the whole recording was read: a trailer, nothing lost before it, nothing behind it. Final once
    /// [`next_frame`](Reader::next_frame) has returned `None`.
    pub fn complete(&self) -> bool {
        self.trailer.is_some() && self.damage == Damage::default()
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
                FrameScan::Whole(header) => return Ok(Some(header)),
                FrameScan::Skip(skip) => skip,
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
    fn whole_frame(&mut self) -> io::Result<FrameScan> {
        let Some(header) = FrameHeader::decode(self.source.bytes()) else {
            return Ok(FrameScan::Skip(next_magic(self.source.bytes())));
        };
        let total = FRAME_HEADER_LEN + header.len as usize;
        if !self.source.fill(total)? {
            return Ok(FrameScan::Skip(next_magic(self.source.bytes())));
        }
        if crc32fast::hash(&self.source.bytes()[FRAME_HEADER_LEN..total]) == header.crc {
            return Ok(FrameScan::Whole(header));
        }
        // A frame that was cut short may have whole frames behind it, inside the length it claims. A file made to
        // have many of those would cost a checksum of 16 MiB each, so only the first are tried.
        self.rescans += 1;
        let rescan = self.rescans <= MAX_RESCANS;
        Ok(FrameScan::Skip(if rescan { next_magic(self.source.bytes()) } else { total }))
    }

    fn drop_bytes(&mut self, len: usize, skipped: &mut bool) {
        self.damage.dropped_frames += u64::from(!std::mem::replace(skipped, true));
        self.damage.dropped_bytes += len as u64;
        self.source.consume(len);
    }
}

/// What stands at the start of the window.
enum FrameScan {
    /// A whole frame, whose checksums hold.
    Whole(FrameHeader),
    /// No whole frame: this many bytes to drop before the next attempt.
    Skip(usize),
}

/// Without the feature no frame is in columns.
#[cfg(not(feature = "compression"))]
type Decoder = std::convert::Infallible;

/// Whether this reader can use a frame.
fn known_codec(kind: u8, codec: u8) -> bool {
    let columns = cfg!(feature = "compression") && kind == FRAME_RECORDS && codec == CODEC_COLUMNS;
    codec == CODEC_RAW || columns
}

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
}
