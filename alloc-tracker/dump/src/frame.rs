//! Dump frames: the length-prefixed, checksummed units of a dump. Each is readable without the
//! frames before it. In: header fields or bytes. Out: the other. Never trusts what it reads, never
//! allocates.
//!
//! Layout of a frame header, little-endian, 32 bytes:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | frame magic |
//! | 4 | 1 | kind |
//! | 5 | 1 | codec |
//! | 6 | 2 | zeros |
//! | 8 | 4 | sequence number |
//! | 12 | 4 | length of the payload |
//! | 16 | 4 | length of the payload once decoded |
//! | 20 | 4 | zeros |
//! | 24 | 4 | CRC-32 of the payload |
//! | 28 | 4 | CRC-32 of the 28 bytes before |

use crate::layout::{CODEC_RAW, FRAME_HEADER_LEN, FRAME_MAGIC, MAX_PAYLOAD};

/// The fields of a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The kind: [`FRAME_RECORDS`](crate::layout::FRAME_RECORDS),
    /// [`FRAME_TRAILER`](crate::layout::FRAME_TRAILER) or
    /// [`FRAME_SYMBOLS`](crate::layout::FRAME_SYMBOLS). Readers skip frames of other kinds.
    pub kind: u8,
    /// The codec of the payload: [`CODEC_RAW`], [`CODEC_COLUMNS`](crate::layout::CODEC_COLUMNS) or
    /// [`CODEC_ZSTD`](crate::layout::CODEC_ZSTD). A frame of records in a codec that the reader
    /// does not know counts as malformed.
    pub codec: u8,
    /// The sequence number: 0 for the first frame of a dump, then one more for each frame.
    pub seq: u32,
    /// Bytes of the payload that follows the header.
    pub len: u32,
    /// Bytes of the payload once decoded; equal to `len` in a raw frame.
    pub decoded_len: u32,
    /// CRC-32 (IEEE 802.3) of the payload as stored.
    pub crc: u32,
}

impl FrameHeader {
    /// Returns the header of a raw frame with this payload.
    pub fn raw(kind: u8, seq: u32, payload: &[u8]) -> FrameHeader {
        let len = payload.len() as u32;
        FrameHeader { kind, codec: CODEC_RAW, seq, len, decoded_len: len, crc: crc32fast::hash(payload) }
    }

    /// Returns the header's bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0u8; FRAME_HEADER_LEN];
        bytes[0..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4] = self.kind;
        bytes[5] = self.codec;
        bytes[8..12].copy_from_slice(&self.seq.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.decoded_len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. `None` unless the magic and the checksum hold and both lengths are at most
    /// [`MAX_PAYLOAD`].
    pub fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[0..4] != FRAME_MAGIC || crc32fast::hash(&bytes[..28]) != word(28) {
            return None;
        }
        let header = FrameHeader {
            kind: bytes[4],
            codec: bytes[5],
            seq: word(8),
            len: word(12),
            decoded_len: word(16),
            crc: word(24),
        };
        (header.len as usize <= MAX_PAYLOAD && header.decoded_len as usize <= MAX_PAYLOAD).then_some(header)
    }
}
