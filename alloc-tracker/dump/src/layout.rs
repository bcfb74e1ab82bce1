//! Every constant of the format, and the ids that both ends agree on. Numbers are never reused or renumbered.

/// First bytes of a dump. The high bit, CR LF and ^Z show a transfer that treated the file as text.
pub const MAGIC: [u8; 8] = *b"\x89ADUMP\r\n";
/// Readers refuse a dump with a larger major version.
pub const MAJOR: u16 = 1;
/// Readers accept any minor version: it only adds frame kinds, codecs, cold record tags and trailing fields.
pub const MINOR: u16 = 1;
/// Length of the file header in bytes, as this version writes it.
pub const HEADER_LEN: usize = 64;
/// Readers refuse a file header that claims to be longer.
pub const MAX_HEADER_LEN: usize = 4096;

/// First bytes of every frame; what a reader searches for after damage.
pub const FRAME_MAGIC: [u8; 4] = *b"\xF7ADF";
/// Length of a frame header in bytes.
pub const FRAME_HEADER_LEN: usize = 32;
/// No writer makes a larger payload and no reader accepts one: 16 MiB.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Frame kind: a sequence of records.
pub const FRAME_RECORDS: u8 = 1;
/// Frame kind: the trailer, once, last.
pub const FRAME_TRAILER: u8 = 2;

/// Codec of a frame's payload: stored as it is.
pub const CODEC_RAW: u8 = 0;
/// Codec of a frame's payload: records taken apart into columns, then Zstandard. Only for records; readers without the
/// feature `compression` do not know it.
pub const CODEC_COLUMNS: u8 = 1;
/// How many columns there are.
pub const COLUMNS: usize = 18;
/// Most records that a frame in columns may hold; what bounds the memory of a reader.
pub const MAX_COLUMNS_RECORDS: usize = 1 << 20;

/// First bytes of the recovery sidecar.
pub const SIDECAR_MAGIC: [u8; 8] = *b"\x89ADTAI2\n";
/// First bytes of the recovery sidecars that do not say how long their rings are.
pub const SIDECAR_MAGIC_1: [u8; 8] = *b"\x89ADTAIL\n";
/// The sidecar's header fills one page, so that the frame behind it is page-aligned in a mapping.
pub const SIDECAR_HEADER_LEN: usize = 4096;
/// Ending of the sidecar's name: `x.alloc` has `x.alloc.tail`.
pub const SIDECAR_SUFFIX: &str = ".tail";
/// Beginning of the path of a sidecar that is in memory instead of beside its dump. 32 hexadecimal
/// digits and [`SIDECAR_SUFFIX`] follow; `DUMP.tail` is then a link to that path.
pub const SIDECAR_MEMORY_PREFIX: &str = "/dev/shm/alloc-tracker.";

/// Longest path, thread name, build-id or argument list that a writer stores; readers cut nothing but refuse more.
pub const MAX_TEXT: usize = 64 << 10;

/// A node of the call tree: a return address and its caller's node. Names a whole stack, root included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StackId(pub u32);

impl StackId {
    /// The parent of the outermost frame of every stack that was walked to its end.
    pub const ROOT: StackId = StackId(0);
    /// The parent of the outermost frame of every stack that was **not** walked to its end.
    pub const TRUNCATED: StackId = StackId(1);
    /// The stack of an event that was recorded without one.
    pub const NONE: StackId = StackId(2);
    /// The first id that a [`Record::Node`](crate::record::Record::Node) may define.
    pub const FIRST: StackId = StackId(3);
}
