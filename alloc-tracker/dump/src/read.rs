//! The reading half. In: the bytes of a dump, from any [`Read`]. Out: a stream of records.
//!
//! Damage costs the frames that it hits, and is counted. Memory is bounded by one frame, and the
//! memory of a frame by the bytes that really arrive. Time is linear in the length of any input.
//! Nothing here panics on what it reads.

use std::fmt;
use std::io::{self, Read};

#[cfg(feature = "compression")]
use crate::columns::ColumnDecoder;
use crate::frame::FrameHeader;
use crate::header::Header;
#[cfg(feature = "compression")]
use crate::layout::FRAME_SYMBOLS;
use crate::layout::{
    CODEC_COLUMNS, CODEC_RAW, FRAME_HEADER_LEN, FRAME_MAGIC, FRAME_RECORDS, FRAME_TRAILER, HEADER_LEN,
};
use crate::record::DeltaContext;
use crate::records::RecordSource;
#[cfg(feature = "compression")]
use crate::symbols::{Symbols, SymbolsDecoder};
use crate::trailer::Trailer;
use crate::window::Window;

pub use crate::records::Records;

/// Why a dump cannot be read at all.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The file has no bytes.
    Empty,
    /// The file does not begin with the magic of dumps.
    NotADump,
    /// The file header, the first 64 bytes, is cut short or changed.
    DamagedHeader,
    /// A newer release wrote the file in a format that this release cannot read.
    NewerVersion {
        /// Major version in the file.
        major: u16,
        /// Minor version in the file.
        minor: u16,
    },
    /// Reading the input failed; the cause is the error's source.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Empty => f.write_str("the file is empty"),
            ReadError::NotADump => f.write_str("not an alloc-tracker dump"),
            ReadError::DamagedHeader => f.write_str(
                "the file header (bytes 0 to 63) is damaged or cut short; copy the dump again from where it was written",
            ),
            ReadError::NewerVersion { major, minor } => write!(
                f,
                "written in format {major}.{minor} by a newer release; this release reads formats up to {}.x",
                crate::layout::MAJOR
            ),
            ReadError::Io(_) => f.write_str("reading the file failed"),
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

/// What a reader could not use of a dump. All counts are 0 if it used everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Number of runs of damaged bytes. Each run was at least one frame, which was dropped.
    pub dropped_frames: u64,
    /// Bytes in all of these runs.
    pub dropped_bytes: u64,
    /// Number of frames whose checksums hold but which no writer of this format makes:
    ///
    /// - A record does not decode. The records before it in the frame are used.
    /// - The codec is unknown. Without the feature `compression` that includes the codec of
    ///   compressed dumps.
    /// - A compressed payload does not decompress to the columns that it claims.
    /// - The trailer is unreadable.
    /// - The sequence number is not larger than the one before. The frame is not used, because its
    ///   events would count twice.
    /// - The frame holds records or another trailer, and stands behind the trailer. It is used.
    pub malformed_frames: u64,
    /// Number of frames that are missing from the sequence.
    pub missing_frames: u64,
}

/// Reads a dump from its header to its last whole frame.
#[derive(Debug)]
pub struct Reader<R> {
    window: Window<R>,
    header: Header,
    #[cfg_attr(not(feature = "compression"), allow(dead_code))]
    minor: u16,
    /// Length in bytes, header included, of the frame that was returned last. It stands at the
    /// start of the window.
    frame_len: usize,
    /// Wider than a sequence number: no number follows the largest one.
    next_seq: u64,
    end_of_whole_frames: u64,
    trailer: Option<Trailer>,
    damage: Damage,
    /// How many frames with a bad payload were searched for frames inside; see [`MAX_RESCANS`].
    rescans: u32,
    /// Made at the first frame in columns.
    columns: Option<Box<ColumnDecoder>>,
    /// The symbols read so far, if they were asked for.
    #[cfg(feature = "compression")]
    symbols: Option<SymbolsDecoder>,
}

impl<R: Read> Reader<R> {
    /// Reads the file header.
    ///
    /// # Errors
    /// See [`ReadError`]. Nothing behind the file header is an error.
    pub fn new(input: R) -> Result<Reader<R>, ReadError> {
        let mut window = Window::new(input);
        window.fill(HEADER_LEN)?;
        let header = Header::decode(window.bytes())?;
        let minor = Header::minor(window.bytes());
        let header_len = Header::declared_len(window.bytes()).ok_or(ReadError::DamagedHeader)?;
        if !window.fill(header_len)? {
            return Err(ReadError::DamagedHeader);
        }
        window.consume(header_len);
        Ok(Reader {
            window,
            header,
            minor,
            frame_len: 0,
            next_seq: 0,
            end_of_whole_frames: header_len as u64,
            trailer: None,
            damage: Damage::default(),
            rescans: 0,
            columns: None,
            #[cfg(feature = "compression")]
            symbols: None,
        })
    }

    /// Makes [`next_frame`](Reader::next_frame) keep the symbols that it comes across, for
    /// [`take_symbols`](Reader::take_symbols). Without this call it skips them.
    #[cfg(feature = "compression")]
    pub fn keep_symbols(&mut self) {
        self.symbols.get_or_insert_with(SymbolsDecoder::new);
    }

    /// Returns the symbols that were kept up to here. Frames of symbols that cannot be decoded are
    /// left out: they hold names only, so that nothing else is worse for it.
    #[cfg(feature = "compression")]
    pub fn take_symbols(&mut self) -> Vec<Symbols> {
        self.symbols.take().map(SymbolsDecoder::into_frames).unwrap_or_default()
    }

    /// Returns the file header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next frame of records, or `None` at the end of the input.
    ///
    /// Damaged bytes, trailers, symbols and frames of unknown kinds are skipped. Records that the
    /// caller leaves in the iterator are neither decoded nor checked.
    ///
    /// # Errors
    /// Those of the underlying [`Read`]. The caller may repeat the call.
    pub fn next_frame(&mut self) -> io::Result<Option<Records<'_>>> {
        loop {
            let Some(header) = self.next_whole_frame()? else { return Ok(None) };
            #[cfg(feature = "compression")]
            self.add_symbols(&header);
            if self.load_records(&header) {
                return Ok(Some(self.records(header.codec)));
            }
        }
    }

    /// Returns the records of the frame whose header was returned last, if it has any that this
    /// reader can use.
    #[cfg(feature = "compression")]
    pub(crate) fn records_of(&mut self, header: &FrameHeader) -> Option<Records<'_>> {
        self.load_records(header).then(|| self.records(header.codec))
    }

    /// Gets ready to read the records of a frame. Returns false if the frame has none that this
    /// reader can use.
    fn load_records(&mut self, header: &FrameHeader) -> bool {
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

    /// The records of the frame that was loaded.
    fn records(&mut self, codec: u8) -> Records<'_> {
        let source = match (codec, &mut self.columns) {
            #[cfg(feature = "compression")]
            (CODEC_COLUMNS, Some(decoder)) => RecordSource::Columns(decoder.records()),
            _ => {
                let payload = &self.window.bytes()[FRAME_HEADER_LEN..self.frame_len];
                RecordSource::Raw { payload, at: 0, context: DeltaContext::new() }
            }
        };
        Records { source, damage: &mut self.damage }
    }

    /// Returns the header of the next frame of any kind and codec whose sequence number is larger
    /// than the last. Counts what is damaged, missing or malformed up to and including that header.
    pub(crate) fn next_whole_frame(&mut self) -> io::Result<Option<FrameHeader>> {
        loop {
            self.window.consume(std::mem::take(&mut self.frame_len));
            let Some(header) = self.find_frame()? else { return Ok(None) };
            self.frame_len = FRAME_HEADER_LEN + header.len as usize;
            self.end_of_whole_frames = self.window.consumed + self.frame_len as u64;
            let seq = u64::from(header.seq);
            if seq < self.next_seq {
                self.damage.malformed_frames += 1;
                continue;
            }
            self.damage.missing_frames += seq - self.next_seq;
            self.next_seq = seq + 1;
            if matches!(header.kind, FRAME_RECORDS | FRAME_TRAILER) {
                let misplaced = self.trailer.is_some() || !knows_codec(header.kind, header.codec);
                self.damage.malformed_frames += u64::from(misplaced);
            }
            if (header.kind, header.codec) == (FRAME_TRAILER, CODEC_RAW) {
                self.trailer = Trailer::decode(self.payload());
                self.damage.malformed_frames += u64::from(self.trailer.is_none());
            }
            return Ok(Some(header));
        }
    }

    /// The payload, as stored, of the frame that was returned last.
    pub(crate) fn payload(&self) -> &[u8] {
        self.window.bytes().get(FRAME_HEADER_LEN..self.frame_len).unwrap_or_default()
    }

    /// Decompresses the payload of the frame that was returned last. `None` if it is malformed.
    #[cfg(feature = "compression")]
    fn load_columns(&mut self, header: &FrameHeader) -> Option<()> {
        if self.columns.is_none() {
            self.columns = Some(Box::new(ColumnDecoder::new()?));
        }
        let payload = self.window.bytes().get(FRAME_HEADER_LEN..self.frame_len)?;
        self.columns.as_mut()?.load(payload, header.decoded_len as usize)
    }

    /// Decodes the frame that was returned last, if it has symbols and they are kept.
    #[cfg(feature = "compression")]
    fn add_symbols(&mut self, header: &FrameHeader) {
        if header.kind == FRAME_SYMBOLS
            && let Some(symbols) = &mut self.symbols
        {
            let payload = self.window.bytes().get(FRAME_HEADER_LEN..self.frame_len).unwrap_or_default();
            symbols.add(header, payload);
        }
    }

    /// The minor version of the format, from the file header.
    #[cfg(feature = "compression")]
    pub(crate) fn minor(&self) -> u16 {
        self.minor
    }

    /// Returns the trailer; `None` until the reader has come to it.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// Returns what the reader could not use up to here.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Returns whether the whole recording was read: there is a trailer, and no damage before or
    /// behind it. The answer is final once [`next_frame`](Reader::next_frame) has returned `None`.
    pub fn complete(&self) -> bool {
        self.trailer.is_some() && self.damage == Damage::default()
    }

    /// Returns the offset in bytes, from the start of the input, behind the last whole frame.
    pub fn end_of_whole_frames(&self) -> u64 {
        self.end_of_whole_frames
    }

    /// Returns the sequence number that the next frame of this dump has; [`u32::MAX`] also if no
    /// number is left.
    pub fn next_seq(&self) -> u32 {
        u32::try_from(self.next_seq).unwrap_or(u32::MAX)
    }

    /// Returns how many bytes of the input the reader has left behind: those before the frame that
    /// was returned last.
    pub fn position(&self) -> u64 {
        self.window.consumed
    }

    /// Moves the window to the next frame whose checksums hold. Counts the bytes before it as
    /// damage.
    fn find_frame(&mut self) -> io::Result<Option<FrameHeader>> {
        let mut skipped = false;
        while self.window.fill(FRAME_HEADER_LEN)? {
            let skip = match self.scan_frame()? {
                FrameScan::Whole(header) => return Ok(Some(header)),
                FrameScan::Skip(skip) => skip,
            };
            self.drop_bytes(skip, &mut skipped);
        }
        let rest = self.window.bytes().len();
        if rest > 0 {
            self.drop_bytes(rest, &mut skipped);
        }
        Ok(None)
    }

    /// Looks for a whole frame at the start of the window.
    fn scan_frame(&mut self) -> io::Result<FrameScan> {
        let Some(header) = FrameHeader::decode(self.window.bytes()) else {
            return Ok(FrameScan::Skip(next_magic_offset(self.window.bytes())));
        };
        let total = FRAME_HEADER_LEN + header.len as usize;
        if !self.window.fill(total)? {
            return Ok(FrameScan::Skip(next_magic_offset(self.window.bytes())));
        }
        if crc32fast::hash(&self.window.bytes()[FRAME_HEADER_LEN..total]) == header.crc {
            return Ok(FrameScan::Whole(header));
        }
        // A frame that was cut short may have whole frames behind it, inside the length that its
        // header claims. But a file can be made of headers that claim 16 MiB each, and would cost a
        // checksum of 16 MiB for each of them. So the reader looks inside the first such frames
        // only.
        self.rescans += 1;
        let rescan = self.rescans <= MAX_RESCANS;
        Ok(FrameScan::Skip(if rescan { next_magic_offset(self.window.bytes()) } else { total }))
    }

    /// Drops bytes at the start of the window; `skipped` tells whether the bytes before belong to
    /// the same run.
    fn drop_bytes(&mut self, len: usize, skipped: &mut bool) {
        self.damage.dropped_frames += u64::from(!std::mem::replace(skipped, true));
        self.damage.dropped_bytes += len as u64;
        self.window.consume(len);
    }
}

/// What stands at the start of the window.
enum FrameScan {
    /// A whole frame, whose checksums hold.
    Whole(FrameHeader),
    /// No whole frame: this many bytes to drop before the next attempt.
    Skip(usize),
}

/// Stands in for the decoder where the feature is off, and can never be made.
#[cfg(not(feature = "compression"))]
type ColumnDecoder = std::convert::Infallible;

/// Whether this reader knows the codec for frames of this kind.
fn knows_codec(kind: u8, codec: u8) -> bool {
    let columns = cfg!(feature = "compression") && kind == FRAME_RECORDS && codec == CODEC_COLUMNS;
    codec == CODEC_RAW || columns
}

/// How many frames with a bad payload are searched for whole frames inside. Further ones are
/// dropped as a whole.
const MAX_RESCANS: u32 = 64;

/// Returns the offset of the next frame magic, at least 1. A magic that the end of the bytes cuts
/// off counts too. Without one, the offset is the number of bytes.
fn next_magic_offset(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(distance) =
        bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == FRAME_MAGIC[0]))
    {
        at += distance;
        let candidate = &bytes[at..bytes.len().min(at + FRAME_MAGIC.len())];
        if FRAME_MAGIC.starts_with(candidate) {
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
        assert_eq!(next_magic_offset(b"\xF7ADF"), 4);
        assert_eq!(next_magic_offset(b"\xF7ADF\xF7ADF..."), 4);
        assert_eq!(next_magic_offset(b"..\xF7\xF7AD\xF7A\xF7ADF"), 8);
        assert_eq!(next_magic_offset(b"....."), 5);
    }

    #[test]
    fn a_magic_that_the_window_cuts_off_is_kept() {
        assert_eq!(next_magic_offset(b"...\xF7"), 3);
        assert_eq!(next_magic_offset(b"...\xF7A"), 3);
        assert_eq!(next_magic_offset(b"...\xF7AD"), 3);
        assert_eq!(next_magic_offset(b"...\xF7AF"), 6);
    }

    #[test]
    fn at_least_one_byte_is_dropped() {
        assert_eq!(next_magic_offset(b""), 1);
        assert_eq!(next_magic_offset(b"\xF7"), 1);
    }
}
