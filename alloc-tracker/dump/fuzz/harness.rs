//! Checks that must hold for any bytes. The fuzz targets use them, and so do the tests of the
//! package, on inputs from a fixed generator.

use std::io::{self, Read};

use alloc_dump::frame::FrameHeader;
use alloc_dump::header::Header;
#[cfg(feature = "compression")]
use alloc_dump::layout::{CODEC_COLUMNS, COLUMNS, FRAME_SYMBOLS};
use alloc_dump::layout::{FRAME_HEADER_LEN, FRAME_MAGIC, FRAME_RECORDS, HEADER_LEN};
use alloc_dump::read::{Damage, Reader};
use alloc_dump::record::Record;
use alloc_dump::sidecar::{
    self, COMMIT_OFFSETS, COMMITS_OFFSET, NODE_COUNT_OFFSET, PAYLOAD_OFFSET, RING_COUNT_OFFSET, RINGS_START,
    Sidecar,
};
#[cfg(feature = "compression")]
use alloc_dump::varint;
use alloc_dump::write::Encoder;

/// Session of the sidecars that the harness makes.
pub(crate) const SESSION: [u8; 16] = *b"session of tests";

/// Reads the bytes as a dump, as one with good checksums, and as the records of one frame.
pub(crate) fn dump(bytes: &[u8]) {
    check_dump(bytes);
    check_dump(&repaired(bytes));
    check_dump(&one_frame(bytes));
}

/// Reads the bytes as a sidecar, and as one of the session.
pub(crate) fn sidecar(bytes: &[u8]) {
    check_sidecar(bytes);
    let mut ours = bytes.to_vec();
    let identity = sidecar::encode_identity(&SESSION);
    let len = ours.len().min(identity.len());
    ours[..len].copy_from_slice(&identity[..len]);
    check_sidecar(&ours);
    // Few inputs are long enough to reach the rings. So the first 64 bytes also become words of a
    // header, and the rest becomes the payload of the frame and the first ring.
    if let Some((words, rest)) = bytes.split_at_checked(64) {
        let mut made = vec![0; RINGS_START];
        made[..identity.len()].copy_from_slice(&identity);
        made[RING_COUNT_OFFSET] = words[0] & 3;
        made[NODE_COUNT_OFFSET] = words[1];
        made[COMMITS_OFFSET] = words[2];
        for commit in COMMIT_OFFSETS {
            made[commit..commit + 56].copy_from_slice(&words[8..]);
            // Without this no input in a million would have a length within the bounds.
            made[commit + 2..commit + 8].fill(0);
            made[commit + 12..commit + 16].fill(0);
        }
        let len = rest.len().min(RINGS_START - PAYLOAD_OFFSET);
        made[PAYLOAD_OFFSET..PAYLOAD_OFFSET + len].copy_from_slice(&rest[..len]);
        made.extend_from_slice(rest);
        made.extend_from_slice(&[0; 8192]);
        check_sidecar(&made);
    }
}

/// Reads the bytes as the columns of one frame, whose checksums and compression are good.
#[cfg(feature = "compression")]
pub(crate) fn columns(bytes: &[u8]) {
    check_dump(&one_columns_frame(bytes));
    // Few mutations keep the sum of the lengths right. So the bytes are read once more as the
    // lengths of the columns, one byte each, and the contents.
    if let Some((lengths, rest)) = bytes.split_at_checked(COLUMNS) {
        let mut left = rest.len();
        let mut made = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let length = if index + 1 == COLUMNS { left } else { left.min(usize::from(*length)) };
            left -= length;
            let mut number = [0; varint::MAX_LEN];
            let mut at = 0;
            varint::put(&mut number, &mut at, length as u64).unwrap();
            made.extend_from_slice(&number[..at]);
        }
        made.extend_from_slice(rest);
        check_dump(&one_columns_frame(&made));
    }
}

/// Reads the bytes as the symbols of one frame, whose checksums are good.
#[cfg(feature = "compression")]
pub(crate) fn symbols(bytes: &[u8]) {
    let header = Header { session: SESSION, created_unix_ns: 0 }.encode();
    let dump = [&header, &FrameHeader::raw(FRAME_SYMBOLS, 0, bytes).encode()[..], bytes].concat();
    let mut reader = Reader::new(dump.as_slice()).unwrap();
    reader.keep_symbols();
    assert!(reader.next_frame().unwrap().is_none());
    assert_eq!(reader.damage(), Damage::default());
    for frame in reader.take_symbols() {
        for module in frame.modules() {
            for (_, functions) in frame.addresses(module) {
                // An address that lists functions takes a byte for each of them.
                assert!(functions.len() <= bytes.len());
                functions.for_each(|function| assert!(function.function.len() <= 3 * bytes.len()));
            }
        }
    }
}

/// Returns a dump of one frame with these columns.
#[cfg(feature = "compression")]
pub(crate) fn one_columns_frame(columns: &[u8]) -> Vec<u8> {
    let header = Header { session: SESSION, created_unix_ns: 0 }.encode();
    let payload = stored(columns);
    let raw = FrameHeader::raw(FRAME_RECORDS, 0, &payload);
    let frame = FrameHeader { codec: CODEC_COLUMNS, decoded_len: columns.len() as u32, ..raw };
    [&header, &frame.encode()[..], &payload].concat()
}

/// Returns a Zstandard frame (RFC 8878) that compresses nothing: one segment, its length in four
/// bytes, raw blocks.
pub(crate) fn stored(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    let mut out = vec![0x28, 0xB5, 0x2F, 0xFD, 0xA0];
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    for at in (0..bytes.len().max(1)).step_by(BLOCK) {
        let block = &bytes[at..bytes.len().min(at + BLOCK)];
        let last = at + BLOCK >= bytes.len();
        out.extend_from_slice(&((block.len() as u32) << 3 | u32::from(last)).to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// Reads the bytes as a dump, at once and in pieces, and checks that both readings agree.
fn check_dump(bytes: &[u8]) {
    let columns = bytes.get(HEADER_LEN + 5).is_some_and(|codec| *codec != 0);
    let Ok(mut reader) = Reader::new(bytes) else {
        assert!(Reader::new(Trickle(bytes)).is_err());
        return;
    };
    let mut in_pieces = Reader::new(Trickle(bytes)).unwrap();
    let mut buffer = Vec::new();
    let mut frames = 0;
    loop {
        let next_seq = reader.next_seq();
        let Some(frame) = reader.next_frame().unwrap() else { break };
        let mut again = in_pieces.next_frame().unwrap().unwrap();
        // A frame with the same records must have room in twice the bytes: a record gets longer
        // only if it is cold and its length has fewer than the writer's three bytes. In columns, a
        // byte may stand for a whole record.
        let room = if columns { 40 } else { 2 };
        buffer.resize(FRAME_HEADER_LEN + room * bytes.len() + 64, 0);
        let mut encoder = Encoder::new();
        let mut records = Vec::new();
        let mut latest = 0;
        for record in frame {
            assert_eq!(again.next(), Some(record));
            encoder.push(&mut buffer, &record).unwrap();
            // In columns the time may go back. The writer never lets it.
            let written = match record {
                Record::Time { us } => {
                    latest = latest.max(us);
                    Record::Time { us: latest }
                }
                other => other,
            };
            records.push(format!("{written:?}"));
        }
        assert_eq!(again.next(), None);
        check_frame(&mut encoder, &mut buffer, &records);
        assert!(reader.next_seq() >= next_seq);
        frames += 1;
    }
    assert!(in_pieces.next_frame().unwrap().is_none());
    let end = (reader.damage(), reader.trailer().copied(), reader.next_seq(), reader.end_of_whole_frames());
    let other = (
        in_pieces.damage(),
        in_pieces.trailer().copied(),
        in_pieces.next_seq(),
        in_pieces.end_of_whole_frames(),
    );
    assert_eq!(end, other);

    let len = bytes.len() as u64;
    assert_eq!(reader.position(), len);
    assert!(reader.end_of_whole_frames() <= len);
    assert!(reader.damage().dropped_bytes + HEADER_LEN as u64 <= len);
    assert!(reader.damage().dropped_frames <= reader.damage().dropped_bytes);
    assert!(frames * FRAME_HEADER_LEN as u64 <= len);
    assert_eq!(reader.complete(), reader.trailer().is_some() && reader.damage() == Damage::default());
    assert!(reader.next_frame().unwrap().is_none());
    assert_eq!(reader.damage(), end.0);
}

/// Checks that the records that were read can be written, and come back equal.
fn check_frame(encoder: &mut Encoder, buffer: &mut [u8], records: &[String]) {
    let len = encoder.seal(buffer, 0);
    let header = Header { session: SESSION, created_unix_ns: 0 }.encode();
    let mut reader = Reader::new(header.chain(&buffer[..len])).unwrap();
    let frame = reader.next_frame().unwrap().unwrap();
    assert!(frame.map(|record| format!("{record:?}")).eq(records.iter().cloned()));
    assert_eq!(reader.damage(), Damage::default());
}

fn check_sidecar(bytes: &[u8]) {
    let Some(sidecar) = Sidecar::parse(bytes, &SESSION) else { return };
    let stored = bytes.get(PAYLOAD_OFFSET..).unwrap_or_default();
    assert_eq!(sidecar.payload(), &stored[..sidecar.payload().len()]);
    let header = Header { session: SESSION, created_unix_ns: 0 }.encode();
    for next_seq in [0, sidecar.seq(), sidecar.seq().saturating_add(1)] {
        let frames = sidecar.recover_frames(next_seq, 0);
        let mut reader = Reader::new(header.chain(frames.as_slice())).unwrap();
        while let Some(records) = reader.next_frame().unwrap() {
            records.for_each(drop);
        }
        assert_eq!((reader.damage().dropped_bytes, reader.damage().missing_frames), (0, 0));
    }
}

/// Repairs the magics and checksums that a mutation breaks, so that the mutation reaches the code
/// behind them. A frame header whose byte at offset 6 is odd stays broken.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let header = Header { session: SESSION, created_unix_ns: 0 }.encode();
    let mut out = header.to_vec();
    let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_at_checked(FRAME_HEADER_LEN) {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = (word(12) as usize).min(behind.len());
        let (payload, behind) = behind.split_at(len);
        let raw = FrameHeader::raw(head[4], word(8), payload);
        let fixed = FrameHeader { codec: head[5], decoded_len: word(16) & 0x00FF_FFFF, ..raw };
        if head[6] & 1 == 0 {
            out.extend_from_slice(&fixed.encode());
        } else {
            out.extend_from_slice(&FRAME_MAGIC);
            out.extend_from_slice(&head[4..]);
        }
        out.extend_from_slice(payload);
        rest = behind;
    }
    out.extend_from_slice(rest);
    out
}

/// Returns a dump of one raw frame with this payload.
fn one_frame(payload: &[u8]) -> Vec<u8> {
    let header = Header { session: SESSION, created_unix_ns: 0 }.encode();
    let frame = FrameHeader::raw(FRAME_RECORDS, 0, payload).encode();
    [&header, &frame[..], payload].concat()
}

/// An input that returns a few bytes at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min(7);
        self.0.read(&mut into[..len])
    }
}
