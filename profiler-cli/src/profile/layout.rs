//! The address space of the recorded process at one moment, with what the live heap had in it.
//! Plain values.

use alloc_dump::record::{LayoutOccasion, RegionFlags};

/// The layouts that are kept. One layout may be several of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layouts {
    /// The first one.
    pub start: Option<ProcessLayout>,
    /// The one at which most bytes of the heap were live.
    pub heap_peak: Option<ProcessLayout>,
    /// The one at which most bytes were in physical memory.
    pub resident_peak: Option<ProcessLayout>,
    /// The layouts that were taken because the program had set a mark, as far as they are kept.
    pub marks: Vec<ProcessLayout>,
    /// The last one that is kept: that of the end, if the recording has one.
    pub last: Option<ProcessLayout>,
    /// The numbers of threads, each with an address on its stack.
    pub stacks: Vec<(u32, u64)>,
}

/// The address space at one moment. Sizes are bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessLayout {
    /// Why the recorder looked just then.
    pub occasion: LayoutOccasion,
    /// Microseconds since time zero.
    pub us: u64,
    /// Bytes of the blocks that were live then.
    pub live_bytes: u64,
    /// Number of these blocks.
    pub live_blocks: u64,
    /// Name of the last mark before.
    pub mark: Option<String>,
    /// Whether the dump has all of its regions.
    pub is_whole: bool,
    /// The mappings, by ascending address.
    pub regions: Vec<LayoutRegion>,
}

impl ProcessLayout {
    /// Returns the bytes of all mappings.
    pub fn size(&self) -> u64 {
        self.regions.iter().map(LayoutRegion::size).sum()
    }

    /// Returns the bytes of all mappings that are in physical memory.
    pub fn resident(&self) -> u64 {
        self.regions.iter().map(|region| region.resident).sum()
    }
}

/// A mapping, or a part of one. Sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutRegion {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// How it may be used, and whether it is the tracker's.
    pub flags: RegionFlags,
    /// Number of the file's inode; 0 without a file.
    pub inode: u64,
    /// Bytes that are in physical memory.
    pub resident: u64,
    /// Bytes that were written.
    pub dirty: u64,
    /// Bytes that are swapped out.
    pub swapped: u64,
    /// Path of the file, or the kernel's name in brackets; empty for an anonymous mapping. Bytes
    /// that are not UTF-8 are replaced.
    pub name: String,
    /// Bytes of the live blocks that begin in the mapping.
    pub live_bytes: u64,
    /// Number of these blocks.
    pub live_blocks: u64,
    /// Bytes of the pages on which live blocks lie.
    pub live_page_bytes: u64,
    /// Bytes of the pages on which any block has ever been since they were mapped. At least
    /// `live_page_bytes`.
    pub touched_page_bytes: u64,
}

impl LayoutRegion {
    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}
