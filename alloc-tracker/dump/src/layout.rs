//! The constants of the format, and the ids that its writer and its reader agree on. Once a number
//! was released, no later version gives it another meaning.

/// First bytes of a dump. A transfer that treats the file as text damages the high bit or the CR LF
/// visibly.
pub const MAGIC: [u8; 8] = *b"\x89ADUMP\r\n";
/// Readers refuse a dump with a larger major version.
pub const MAJOR: u16 = 1;
/// Readers accept any minor version: it only adds frame kinds, codecs, cold record tags and
/// trailing fields.
pub const MINOR: u16 = 6;
/// Length in bytes of the file header that this version writes.
pub const HEADER_LEN: usize = 64;
/// Most bytes of a file header. Readers refuse one that claims to be longer.
pub const MAX_HEADER_LEN: usize = 4096;

/// First bytes of every dump frame. A reader searches for them after damage.
pub const FRAME_MAGIC: [u8; 4] = *b"\xF7ADF";
/// Length of a frame header in bytes.
pub const FRAME_HEADER_LEN: usize = 32;
/// Most bytes of a payload, 16 MiB. No writer makes a larger one and no reader accepts it.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Frame kind: a sequence of records.
pub const FRAME_RECORDS: u8 = 1;
/// Frame kind: the trailer. A complete dump has one, as its last frame.
pub const FRAME_TRAILER: u8 = 2;

/// Frame kind: names of code, added by a tool when the program has ended.
pub const FRAME_SYMBOLS: u8 = 3;

/// Codec of a frame's payload: the bytes as they are.
pub const CODEC_RAW: u8 = 0;
/// Codec of a frame's payload: records taken apart into columns, which Zstandard has compressed.
/// Only frames of records have it. Readers without the feature `compression` do not know it.
pub const CODEC_COLUMNS: u8 = 1;
/// How many columns a frame with [`CODEC_COLUMNS`] has.
pub const COLUMNS: usize = 18;
/// Most records of a frame with [`CODEC_COLUMNS`]. This bounds the memory of a reader.
pub const MAX_COLUMNS_RECORDS: usize = 1 << 20;

/// Codec of a frame's payload: bytes that Zstandard has compressed. Only frames of symbols have it.
pub const CODEC_ZSTD: u8 = 2;

/// Most bytes, once decoded, of all frames of symbols of a dump.
pub const MAX_SYMBOLS_BYTES: usize = 64 << 20;
/// Most functions that the addresses in all frames of symbols of a dump may list.
pub const MAX_SYMBOLS_LISTED: usize = 1 << 24;

/// First bytes of a recovery sidecar.
pub const SIDECAR_MAGIC: [u8; 8] = *b"\x89ADTAI2\n";
/// First bytes of an older recovery sidecar, which does not say how long its thread rings are.
pub const SIDECAR_MAGIC_1: [u8; 8] = *b"\x89ADTAIL\n";
/// Length of the sidecar's header in bytes: one page, so that the frame behind it is page-aligned
/// in a mapping.
pub const SIDECAR_HEADER_LEN: usize = 4096;
/// Ending of the sidecar's name: the sidecar of `x.alloc` is `x.alloc.tail`.
pub const SIDECAR_SUFFIX: &str = ".tail";
/// Beginning of the path of a sidecar that is in memory instead of beside its dump. 32 hexadecimal
/// digits and [`SIDECAR_SUFFIX`] follow; `DUMP.tail` is then a link to that path.
pub const SIDECAR_MEMORY_PREFIX: &str = "/dev/shm/alloc-tracker.";

/// Most bytes of a text: a path, a name, a build-id or an argument list. A writer cuts longer
/// texts; to a reader a record with a longer text is malformed.
pub const MAX_TEXT: usize = 64 << 10;

/// The id of a node of the call tree. A node is a return address and the node of its caller, so its
/// id stands for a whole stack, root included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StackId(pub u32);

impl StackId {
    /// The parent of the outermost frame of every stack whose walk reached a known root.
    pub const ROOT: StackId = StackId(0);
    /// The parent of the outermost frame of every truncated stack, whose walk did **not** reach a
    /// known root.
    pub const TRUNCATED: StackId = StackId(1);
    /// The stack of an event that was recorded without a stack.
    pub const NONE: StackId = StackId(2);
    /// The smallest id that a [`Record::Node`](crate::record::Record::Node) may define.
    pub const FIRST: StackId = StackId(3);
}
