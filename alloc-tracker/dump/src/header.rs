//! The file header: the first 64 bytes of a dump. In: bytes or fields. Out: the other. Never trusts
//! what it reads, never allocates.

use crate::layout::{HEADER_LEN, MAGIC, MAJOR, MAX_HEADER_LEN, MINOR};
use crate::read::ReadError;

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
/// | 32 | 8 | creation time, nanoseconds since the Unix epoch |
/// | 40 | 20 | zeros |
/// | 60 | 4 | CRC-32 of the 60 bytes before |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The session id: random bytes that tie the recovery sidecar to its dump.
    pub session: [u8; 16],
    /// Wall-clock time at the recording's time zero, in nanoseconds since the Unix epoch.
    pub created_unix_ns: u64,
}

impl Header {
    /// Returns the header's bytes, with the format version of this crate.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        bytes[10..12].copy_from_slice(&MINOR.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.session);
        bytes[32..40].copy_from_slice(&self.created_unix_ns.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that a dump begins with.
    ///
    /// # Errors
    /// - [`ReadError::Empty`] if there are no bytes.
    /// - [`ReadError::NotADump`] if the magic does not hold.
    /// - [`ReadError::DamagedHeader`] if there are fewer than 64 bytes, the checksum does not hold,
    ///   the major version is 0, or the length of the file header is impossible.
    /// - [`ReadError::NewerVersion`] if the major version is larger than [`MAJOR`].
    pub fn decode(bytes: &[u8]) -> Result<Header, ReadError> {
        if bytes.is_empty() {
            return Err(ReadError::Empty);
        }
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(ReadError::NotADump);
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(ReadError::DamagedHeader);
        };
        let crc = u32::from_le_bytes([bytes[60], bytes[61], bytes[62], bytes[63]]);
        if crc32fast::hash(&bytes[..60]) != crc {
            return Err(ReadError::DamagedHeader);
        }
        let major = u16::from_le_bytes([bytes[8], bytes[9]]);
        let minor = u16::from_le_bytes([bytes[10], bytes[11]]);
        if major > MAJOR {
            return Err(ReadError::NewerVersion { major, minor });
        }
        if major == 0 || Header::declared_len(bytes).is_none() {
            return Err(ReadError::DamagedHeader);
        }
        let mut session = [0; 16];
        session.copy_from_slice(&bytes[16..32]);
        let mut created = [0; 8];
        created.copy_from_slice(&bytes[32..40]);
        Ok(Header { session, created_unix_ns: u64::from_le_bytes(created) })
    }

    /// The minor version in the bytes of a header. The reader accepts every minor version.
    pub(crate) fn minor(bytes: &[u8]) -> u16 {
        bytes.get(10..12).map_or(0, |minor| u16::from_le_bytes([minor[0], minor[1]]))
    }

    /// The length of the file header in bytes, which is the offset of the first frame. A newer
    /// minor version may add fields behind the first 64 bytes. `None` if the length is impossible.
    pub(crate) fn declared_len(bytes: &[u8]) -> Option<usize> {
        let len = u32::from_le_bytes(*bytes.get(12..)?.first_chunk::<4>()?) as usize;
        (HEADER_LEN..=MAX_HEADER_LEN).contains(&len).then_some(len)
    }
}
