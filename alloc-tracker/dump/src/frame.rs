//! Frames: length-prefixed, checksummed chunks, each readable without the ones before it.
//!
//! Header layout, little-endian, 32 bytes: frame magic (4), kind (1), codec (1), zeros (2), sequence number (4),
//! payload length (4), decoded length (4), zeros (4), CRC-32 of the payload (4), CRC-32 of the 28 bytes before it (4).

use crate::layout::{CODEC_RAW, FRAME_HEADER_LEN, FRAME_MAGIC, MAX_PAYLOAD};

/// What a frame header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// One of the `FRAME_*` constants of [`layout`](crate::layout); readers skip kinds they do not know.
    pub kind: u8,
    /// One of the `CODEC_*` constants; a frame in a codec that the reader does not know counts as
    /// malformed.
    pub codec: u8,
    /// 0 for the first frame of a dump, then one more for each.
    pub seq: u32,
    /// Bytes of payload behind the header.
    pub len: u32,
    /// Bytes of payload once decoded; equal to `len` for a raw frame.
    pub decoded_len: u32,
    /// CRC-32 (IEEE) of the payload as stored.
    pub crc: u32,
}

impl FrameHeader {
    /// The header of a raw frame with this payload.
    pub fn raw(kind: u8, seq: u32, payload: &[u8]) -> FrameHeader {
        let len = payload.len() as u32;
        FrameHeader { kind, codec: CODEC_RAW, seq, len, decoded_len: len, crc: crc32fast::hash(payload) }
    }

    /// The header as it stands in the file.
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

    /// Reads a header. `None` unless the magic, the checksum and the bound on the length hold.
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
