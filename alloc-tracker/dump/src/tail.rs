//! The recovery sidecar, `DUMP.tail`: where the newest records stand until they become a frame of the dump.
//!
//! The tracker fills its current frame inside a shared mapping of this file, so the kernel keeps it when the
//! process is killed at any instruction. A finished recording removes the file. A reader that finds a dump
//! without its trailer looks here for the one frame that is missing.
//!
//! Layout, little-endian: a page of header, then the frame that is being filled ([`FRAME_HEADER_LEN`] bytes of
//! room for its header, then its payload). In the header: magic (8), session (16), CRC-32 of these 24 bytes (4),
//! zeros (4), then words that the tracker stores one by one, each 8 bytes, in this order: payload length
//! ([`LEN_OFFSET`]), sequence number of the frame ([`SEQ_OFFSET`]), state ([`STATE_OFFSET`]), process id
//! ([`PID_OFFSET`]).
//!
//! Once a frame stands in the dump, the tracker stores length 0 first and the next sequence number second: at no
//! instant do old records stand under a new number.

use crate::frame::FrameHeader;
use crate::layout::{FRAME_HEADER_LEN, FRAME_RECORDS, MAX_PAYLOAD, TAIL_HEADER_LEN, TAIL_MAGIC};

/// Offset of the payload length: how many bytes of the current frame's payload are whole records.
pub const LEN_OFFSET: usize = 32;
/// Offset of the sequence number that the current frame will have.
pub const SEQ_OFFSET: usize = 40;
/// Offset of the state: 0 while recording, else the error number at which the recording stopped.
pub const STATE_OFFSET: usize = 48;
/// Offset of the process id of the writer.
pub const PID_OFFSET: usize = 56;
/// Offset of the current frame's payload.
pub const PAYLOAD_OFFSET: usize = TAIL_HEADER_LEN + FRAME_HEADER_LEN;

/// The first [`LEN_OFFSET`] bytes of a sidecar, which never change.
pub fn encode_identity(session: &[u8; 16]) -> [u8; LEN_OFFSET] {
    let mut bytes = [0u8; LEN_OFFSET];
    bytes[0..8].copy_from_slice(&TAIL_MAGIC);
    bytes[8..24].copy_from_slice(session);
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a sidecar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail<'a> {
    /// The sequence number that the frame has once it stands in the dump.
    pub seq: u32,
    /// Error number at which the recording stopped; 0 if it was running to the end.
    pub stopped_errno: i32,
    /// Process id of the writer.
    pub pid: u32,
    /// Whole records, in order.
    pub payload: &'a [u8],
}

impl<'a> Tail<'a> {
    /// Reads the sidecar of the dump with this session. `None` if it is another's, damaged or cut short.
    pub fn parse(bytes: &'a [u8], session: &[u8; 16]) -> Option<Tail<'a>> {
        if bytes.get(..IDENTITY_LEN)? != &encode_identity(session)[..IDENTITY_LEN] {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
        let len = usize::try_from(word(LEN_OFFSET)?).ok().filter(|len| *len <= MAX_PAYLOAD)?;
        Some(Tail {
            seq: u32::try_from(word(SEQ_OFFSET)?).ok()?,
            stopped_errno: i32::try_from(word(STATE_OFFSET)?).ok()?,
            pid: u32::try_from(word(PID_OFFSET)?).ok()?,
            payload: bytes.get(PAYLOAD_OFFSET..PAYLOAD_OFFSET.checked_add(len)?)?,
        })
    }

    /// The frame, header and payload, as it would have been appended to the dump. It belongs there if its number is
    /// at least the dump's [`next_seq`](crate::read::Reader::next_seq); a smaller one is there already.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut frame = FrameHeader::raw(FRAME_RECORDS, self.seq, self.payload).encode().to_vec();
        frame.extend_from_slice(self.payload);
        frame
    }
}

/// Magic, session and their checksum.
const IDENTITY_LEN: usize = 28;
