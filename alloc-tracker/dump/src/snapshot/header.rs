//! The file header of a snapshot: the first 64 bytes. In: bytes or fields. Out: the other. Never
//! trusts what it reads, never allocates.

use super::layout::{SNAPSHOT_MAGIC, SNAPSHOT_MAJOR, SNAPSHOT_MINOR};
use super::read::SnapshotError;
use crate::layout::{HEADER_LEN, MAX_HEADER_LEN};

/// The fields of the file header.
///
/// Layout, little-endian, 64 bytes:
///
/// | offset | bytes | field |
/// | --- | --- | --- |
/// | 0 | 8 | magic |
/// | 8 | 2 | major version |
/// | 10 | 2 | minor version |
/// | 12 | 4 | length of the file header in bytes |
/// | 16 | 16 | session |
/// | 32 | 8 | time, microseconds since time zero of the dump |
/// | 40 | 4 | snapshot id |
/// | 44 | 4 | bytes of a page |
/// | 48 | 4 | process id |
/// | 52 | 8 | zeros |
/// | 60 | 4 | CRC-32 of the 60 bytes before |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The session id of the dump.
    pub session: [u8; 16],
    /// The id in the record of the dump that the snapshot belongs to.
    pub snapshot: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// When the snapshot was taken, in microseconds since time zero of the dump.
    pub time_us: u64,
    /// Process id of the recorded process.
    pub pid: u32,
}

impl SnapshotHeader {
    /// Returns the header's bytes, with the format version of this crate.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[0..8].copy_from_slice(&SNAPSHOT_MAGIC);
        bytes[8..10].copy_from_slice(&SNAPSHOT_MAJOR.to_le_bytes());
        bytes[10..12].copy_from_slice(&SNAPSHOT_MINOR.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.session);
        bytes[32..40].copy_from_slice(&self.time_us.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.snapshot.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.page_size.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.pid.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that a snapshot begins with.
    ///
    /// # Errors
    /// If the bytes are not those of a header, or of a newer major version.
    pub fn decode(bytes: &[u8]) -> Result<SnapshotHeader, SnapshotError> {
        let seen = bytes.len().min(SNAPSHOT_MAGIC.len());
        if bytes.is_empty() || bytes[..seen] != SNAPSHOT_MAGIC[..seen] {
            return Err(SnapshotError::NotASnapshot);
        }
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(SnapshotError::DamagedHeader)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if crc32fast::hash(&bytes[..60]) != word(60) {
            return Err(SnapshotError::DamagedHeader);
        }
        let major = u16::from_le_bytes([bytes[8], bytes[9]]);
        let minor = u16::from_le_bytes([bytes[10], bytes[11]]);
        if major > SNAPSHOT_MAJOR {
            return Err(SnapshotError::NewerVersion { major, minor });
        }
        if major == 0 || declared_len(bytes).is_none() {
            return Err(SnapshotError::DamagedHeader);
        }
        let mut session = [0; 16];
        session.copy_from_slice(&bytes[16..32]);
        Ok(SnapshotHeader {
            session,
            snapshot: word(40),
            page_size: word(44),
            time_us: u64::from(word(32)) | u64::from(word(36)) << 32,
            pid: word(48),
        })
    }
}

/// The length of the file header in bytes, which is the offset of the first frame. `None` if it is
/// impossible.
pub(super) fn declared_len(bytes: &[u8; HEADER_LEN]) -> Option<usize> {
    let len = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    (HEADER_LEN..=MAX_HEADER_LEN).contains(&len).then_some(len)
}
