//! What a mapping is for. In: the mappings of a process, by ascending address. Out: the kind of
//! each.

use alloc_dump::record::RegionFlags;
use foldhash::{HashMap, HashSet};
use serde::Serialize;

use crate::profile::LayoutRegion;

/// The kind of a segment of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// Code of the program and of libraries.
    Text,
    /// Constants of the program and of libraries.
    ReadOnly,
    /// Variables with an initial value.
    Data,
    /// Variables that begin as zeros.
    Bss,
    /// The heap that grows by `brk`.
    BrkHeap,
    /// Anonymous mappings in which the tracker has seen blocks.
    MappedHeap,
    /// The stack of the first thread.
    MainStack,
    /// Stack of another thread.
    ThreadStack,
    /// Anonymous mappings in which the tracker has never seen a block: of C code, or mapped by the
    /// program itself.
    Anonymous,
    /// Addresses that are set aside and cannot be used: guards, and room to grow.
    Reserved,
    /// Files that are no code, mapped by the program.
    File,
    /// Memory that is shared with other processes.
    Shared,
    /// Code and data of the kernel.
    Kernel,
    /// Memory of the tracker itself.
    Tracker,
}

impl SegmentKind {
    /// Returns the name in tables.
    pub fn name(self) -> &'static str {
        match self {
            SegmentKind::Text => "text",
            SegmentKind::ReadOnly => "read-only",
            SegmentKind::Data => "data",
            SegmentKind::Bss => "bss",
            SegmentKind::BrkHeap => "heap (brk)",
            SegmentKind::MappedHeap => "heap (mmap)",
            SegmentKind::MainStack => "main stack",
            SegmentKind::ThreadStack => "thread stack",
            SegmentKind::Anonymous => "anonymous",
            SegmentKind::Reserved => "reserved",
            SegmentKind::File => "file",
            SegmentKind::Shared => "shared",
            SegmentKind::Kernel => "kernel",
            SegmentKind::Tracker => "tracker",
        }
    }

    /// Returns what the segment is for.
    pub fn purpose(self) -> &'static str {
        match self {
            SegmentKind::Text => "code of the program and its libraries",
            SegmentKind::ReadOnly => "constants and tables",
            SegmentKind::Data => "variables with an initial value",
            SegmentKind::Bss => "variables that begin as zeros",
            SegmentKind::BrkHeap => "blocks; grows as malloc needs more",
            SegmentKind::MappedHeap => "large blocks, and heaps of other threads",
            SegmentKind::MainStack => "calls and local variables of the first thread",
            SegmentKind::ThreadStack => "calls and local variables of a thread",
            SegmentKind::Anonymous => "no block was ever here: C code, or mapped by the program",
            SegmentKind::Reserved => "guards, and room to grow; no memory",
            SegmentKind::File => "contents of files",
            SegmentKind::Shared => "shared with other processes",
            SegmentKind::Kernel => "code of the kernel for quick calls",
            SegmentKind::Tracker => "the recorder's own",
        }
    }

    /// Returns the direction in which the segment grows; `None` if it keeps its size.
    pub fn growth(self) -> Option<&'static str> {
        match self {
            SegmentKind::BrkHeap => Some("up"),
            SegmentKind::MainStack => Some("down"),
            _ => None,
        }
    }

    /// Whether blocks of the program lie here.
    pub fn is_heap(self) -> bool {
        matches!(self, SegmentKind::BrkHeap | SegmentKind::MappedHeap)
    }
}

/// Finds the kinds of the regions of a layout. `stacks` has an address on the stack of each thread.
pub(super) fn kinds(regions: &[LayoutRegion], stacks: &[(u32, u64)]) -> Vec<SegmentKind> {
    let code: HashSet<u64> = regions
        .iter()
        .filter(|region| is_file(region) && region.flags.has(RegionFlags::EXECUTE))
        .map(|r| r.inode)
        .collect();
    let of_stacks = stack_regions(regions, stacks);
    let mut kinds = Vec::with_capacity(regions.len());
    for (at, region) in regions.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| Some((regions.get(at)?, *kinds.get(at)?)));
        let is_stack = of_stacks.contains_key(&at);
        kinds.push(kind(region, before, &code, is_stack));
    }
    kinds
}

/// Returns, for each region that is the stack of a thread, the number of that thread. An address
/// belongs to the region that contains it.
pub(super) fn stack_regions(regions: &[LayoutRegion], stacks: &[(u32, u64)]) -> HashMap<usize, u32> {
    let place = |(thread, address): &(u32, u64)| {
        let at = regions.partition_point(|region| region.end <= *address);
        // A thread may run on a block of the heap, as a coroutine does. That stays heap.
        let region = regions.get(at).filter(|region| region.start <= *address && region.live_blocks == 0)?;
        (region.inode == 0).then_some((at, *thread))
    };
    // An address may have been the stack of an earlier thread; the last one counts.
    stacks.iter().filter_map(place).collect()
}

fn kind(
    region: &LayoutRegion,
    before: Option<(&LayoutRegion, SegmentKind)>,
    code: &HashSet<u64>,
    is_stack: bool,
) -> SegmentKind {
    let flags = region.flags;
    if flags.has(RegionFlags::TRACKER) {
        return SegmentKind::Tracker;
    }
    match region.name.as_str() {
        "[heap]" => return SegmentKind::BrkHeap,
        "[stack]" => return SegmentKind::MainStack,
        name if name.starts_with("[v") => return SegmentKind::Kernel,
        _ => {}
    }
    if is_file(region) {
        return match (flags.has(RegionFlags::SHARED), code.contains(&region.inode)) {
            (true, _) if is_memory_file(&region.name) => SegmentKind::Shared,
            (_, false) => SegmentKind::File,
            (_, true) if flags.has(RegionFlags::EXECUTE) => SegmentKind::Text,
            (_, true) if flags.has(RegionFlags::WRITE) => SegmentKind::Data,
            (_, true) if flags.has(RegionFlags::READ) => SegmentKind::ReadOnly,
            (_, true) => SegmentKind::Reserved,
        };
    }
    if flags.has(RegionFlags::SHARED) {
        return SegmentKind::Shared;
    }
    if flags.0 & (RegionFlags::READ.0 | RegionFlags::WRITE.0 | RegionFlags::EXECUTE.0) == 0 {
        return SegmentKind::Reserved;
    }
    if is_stack {
        return SegmentKind::ThreadStack;
    }
    let follows_data =
        before.is_some_and(|(before, kind)| before.end == region.start && kind == SegmentKind::Data);
    if region.touched_page_bytes > 0 {
        SegmentKind::MappedHeap
    } else if follows_data && region.name.is_empty() {
        SegmentKind::Bss
    } else {
        SegmentKind::Anonymous
    }
}

fn is_file(region: &LayoutRegion) -> bool {
    region.inode != 0 && !region.name.starts_with('[')
}

/// Whether the file is one that exists in memory only.
fn is_memory_file(name: &str) -> bool {
    ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero"].iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64, access: &str, name: &str, inode: u64) -> LayoutRegion {
        let bits = [('r', 1), ('w', 2), ('x', 4), ('s', 8), ('t', 16)];
        let flags = bits.iter().filter(|(letter, _)| access.contains(*letter)).map(|(_, bit)| bit).sum();
        let name = name.to_owned();
        LayoutRegion { start, end, flags: RegionFlags(flags), inode, name, ..LayoutRegion::default() }
    }

    #[test]
    fn each_kind_of_mapping_is_recognised() {
        let mut regions = [
            (region(0x1000, 0x2000, "r", "/bin/shop", 7), SegmentKind::ReadOnly),
            (region(0x2000, 0x3000, "rx", "/bin/shop", 7), SegmentKind::Text),
            (region(0x3000, 0x4000, "rw", "/bin/shop", 7), SegmentKind::Data),
            (region(0x4000, 0x5000, "rw", "", 0), SegmentKind::Bss),
            (region(0x8000, 0x9000, "rw", "[heap]", 0), SegmentKind::BrkHeap),
            (region(0xA000, 0xB000, "", "", 0), SegmentKind::Reserved),
            (region(0xB000, 0xC000, "rw", "", 0), SegmentKind::ThreadStack),
            (region(0xC000, 0xD000, "rw", "", 0), SegmentKind::MappedHeap),
            (region(0xD000, 0xE000, "rwt", "", 0), SegmentKind::Tracker),
            (region(0xE000, 0xF000, "rw", "", 0), SegmentKind::Anonymous),
            (region(0x10000, 0x11000, "r", "/data/table", 9), SegmentKind::File),
            (region(0x11000, 0x12000, "rws", "/data/table", 9), SegmentKind::File),
            (region(0x12000, 0x13000, "rws", "/dev/zero (deleted)", 11), SegmentKind::Shared),
            (region(0x13000, 0x14000, "rw", "[stack]", 0), SegmentKind::MainStack),
            (region(0x14000, 0x15000, "rx", "[vdso]", 0), SegmentKind::Kernel),
        ];
        regions[7].0.touched_page_bytes = 4096;
        let (only, expected): (Vec<LayoutRegion>, Vec<SegmentKind>) = regions.into_iter().unzip();
        // The first thread is on the main stack, the second in an anonymous mapping.
        let stacks = [(1, 0x13F00), (2, 0xBF00), (3, 0xFFFF_FFFF)];
        assert_eq!(kinds(&only, &stacks), expected);
        assert_eq!(stack_regions(&only, &stacks).get(&6), Some(&2));
    }
}
