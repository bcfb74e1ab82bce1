//! The address space of the process at one moment: [`Region`]s, and then a [`Layout`]. In: fields,
//! or numbers of the format. Out: the other.

/// Says that the address space is described by the [`Region`]s since the layout before, which
/// ascend. Records of other kinds may come between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// When the layout was taken.
    pub occasion: LayoutOccasion,
    /// How many regions there are. If a reader has seen another number, some are lost.
    pub regions: u64,
}

/// Why the recorder looked at the address space just then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayoutOccasion {
    /// The recording has just begun.
    Start,
    /// The resident set or the live heap has grown since the layout before.
    Growth,
    /// The recording ends.
    End,
    /// The program has set a mark.
    Mark,
}

impl LayoutOccasion {
    /// Returns the number of the occasion in the format.
    pub(crate) fn number(self) -> u64 {
        self as u64
    }

    /// Returns the occasion with this number; `None` if it is not known.
    pub(crate) fn from_number(number: u64) -> Option<LayoutOccasion> {
        match number {
            0 => Some(LayoutOccasion::Start),
            1 => Some(LayoutOccasion::Growth),
            2 => Some(LayoutOccasion::End),
            3 => Some(LayoutOccasion::Mark),
            _ => None,
        }
    }
}

/// A mapping of the process, or a part of one, as the kernel describes it. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Region<'a> {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// How the mapping may be used, and whose it is.
    pub flags: RegionFlags,
    /// Offset in the file of the first byte; 0 without a file.
    pub offset: u64,
    /// Number of the file's inode; 0 without a file.
    pub inode: u64,
    /// Bytes that are in physical memory.
    pub resident: u64,
    /// Bytes of `resident` that were written since they were mapped or last written to their file.
    pub dirty: u64,
    /// Bytes that are swapped out.
    pub swapped: u64,
    /// Bytes of `resident` that are no page of a file.
    pub anonymous: u64,
    /// Path of the file, or the kernel's name in brackets; empty for an anonymous mapping.
    pub name: &'a [u8],
}

/// Bits that say how a mapping may be used, and whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RegionFlags(pub u64);

impl RegionFlags {
    /// The mapping may be read.
    pub const READ: RegionFlags = RegionFlags(1);
    /// The mapping may be written.
    pub const WRITE: RegionFlags = RegionFlags(2);
    /// The mapping may be executed.
    pub const EXECUTE: RegionFlags = RegionFlags(4);
    /// Writes are seen by other processes, or go to the file.
    pub const SHARED: RegionFlags = RegionFlags(8);
    /// The mapping is one of the tracker itself.
    pub const TRACKER: RegionFlags = RegionFlags(16);

    /// Returns whether all of these bits are set.
    ///
    /// ```
    /// use alloc_dump::record::RegionFlags;
    ///
    /// let flags = RegionFlags(RegionFlags::READ.0 | RegionFlags::WRITE.0);
    /// assert!(flags.has(RegionFlags::WRITE) && !flags.has(RegionFlags::EXECUTE));
    /// ```
    pub fn has(self, bits: RegionFlags) -> bool {
        self.0 & bits.0 == bits.0
    }
}
