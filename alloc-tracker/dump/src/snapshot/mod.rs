//! Snapshots: where the memory of a process points to, at one instant. In: regions, threads and
//! words of memory. Out: a file beside the dump, and the same again from the file. Needs the
//! feature `compression`.
//!
//! A snapshot says for every word of writable memory that points into writable memory where the
//! word is and where it points to. It has addresses, and no other contents of memory. Together with
//! the blocks that the dump has live at the record of the same id, that is enough to tell which
//! blocks something still holds.
//!
//! A file holds one or two images of the same process. Two images, taken shortly after each other,
//! tell a block that is lost from one whose only pointer was in a register.
//!
//! | module | contents |
//! | --- | --- |
//! | `layout` | the constants of the format |
//! | `header` | the file header |
//! | `region` | mappings of the process, as `/proc/PID/maps` lists them |
//! | `thread` | threads, their stack pointers and registers |
//! | `targets` | which words are pointers: the scan of a page |
//! | `write` | the writer, which allocates nothing for a word |
//! | `read` | the reader, which trusts nothing |
//!
//! ```
//! use alloc_dump::snapshot::{
//!     ImageHead, MemoryRegion, SnapshotContents, SnapshotHeader, SnapshotWriter, Targets, scan_page,
//!     visit_words,
//! };
//!
//! let heap = MemoryRegion::parse(b"1000-3000 rw-p 00000000 00:00 0    [heap]").unwrap();
//! let targets = Targets::new([&heap]);
//!
//! // Write: a header, then an image with its regions and words.
//! let header = SnapshotHeader { session: [7; 16], snapshot: 1, page_size: 4096, time_us: 5, pid: 42 };
//! let mut writer = SnapshotWriter::new(Vec::new(), &header, b"after warm-up")?;
//! writer.begin_image(&ImageHead { time_us: 5, step: 8, misses_tracker_mappings: false })?;
//! writer.push_region(&heap)?;
//! let page = [0x1008u64.to_le_bytes(), 7u64.to_le_bytes()].concat();
//! let mut written = Ok(());
//! scan_page(0x1000, &page, &targets, |place, value| {
//!     if written.is_ok() {
//!         written = writer.push_word(place, value);
//!     }
//! });
//! written?;
//! let file = writer.finish()?;
//!
//! // Read it back.
//! let contents = SnapshotContents::read(file.as_slice()).unwrap();
//! assert_eq!((contents.name.as_slice(), contents.images[0].words), (&b"after warm-up"[..], 1));
//! visit_words(file.as_slice(), 0, |place, value| assert_eq!((place, value), (0x1000, 0x1008))).unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```

mod header;
pub mod layout;
mod read;
mod region;
mod targets;
mod thread;
mod write;

pub use self::header::SnapshotHeader;
pub use self::read::{ImageContents, SnapshotContents, SnapshotError, visit_words};
pub use self::region::{MemoryRegion, RegionKind};
pub use self::targets::{Targets, scan_page};
pub use self::thread::SnapshotThread;
pub use self::write::SnapshotWriter;

/// What an image begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHead {
    /// When the image was taken, in microseconds since time zero of the dump.
    pub time_us: u64,
    /// The distance in bytes of the places that were scanned: 8 if only aligned words were.
    pub step: u8,
    /// Whether some mappings of the recorder are not marked as such. Their words are among those of
    /// the image, as if they were the program's.
    pub misses_tracker_mappings: bool,
}
