//! The constants of the snapshot format. Once a number was released, no later version gives it
//! another meaning.

/// First bytes of a snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"\x89ASNAP\r\n";
/// Readers refuse a snapshot with a larger major version.
pub const SNAPSHOT_MAJOR: u16 = 1;
/// Readers accept any minor version: it only adds frame kinds and fields of the file header.
pub const SNAPSHOT_MINOR: u16 = 0;

/// Frame kind: the name of the snapshot. The first frame.
pub const FRAME_NAME: u8 = 1;
/// Frame kind: an image begins.
pub const FRAME_IMAGE: u8 = 2;
/// Frame kind: regions of the image.
pub const FRAME_REGIONS: u8 = 3;
/// Frame kind: threads of the image.
pub const FRAME_THREADS: u8 = 4;
/// Frame kind: words of the image.
pub const FRAME_WORDS: u8 = 5;
/// Frame kind: ranges of the image that could not be read.
pub const FRAME_UNREAD: u8 = 6;
/// Frame kind: the end of a complete snapshot. The last frame.
pub const FRAME_END: u8 = 7;

/// Most images of a snapshot.
pub const MAX_IMAGES: usize = 16;
/// Most regions, threads and unread ranges of a snapshot, each.
pub const MAX_ENTRIES: usize = 1 << 20;
/// Most bytes, once decoded, of all frames of regions, threads and unread ranges of a snapshot.
pub const MAX_TABLE_BYTES: usize = 64 << 20;
/// Most registers of a thread.
pub const MAX_REGISTERS: usize = 256;
/// Most words of a frame that the writer makes.
pub const WORDS_IN_FRAME: usize = 1 << 18;
