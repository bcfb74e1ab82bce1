//! The memory of a process by its use. In: the regions and threads of an image. Out: for every
//! place whether a pointer there holds a block, and in whose name.
//!
//! ```text
//! module.so  rw-p   statics                    [stack]    | dead | 128 B | stack of main |
//! (anonymous) rw-p  .bss right behind it
//!
//! stack of a thread    | guard | dead | 128 B | stack ... | thread-locals | control block |
//!                                     ^ stack pointer - 128               ^ thread pointer
//! ```
//!
//! Whatever is not known to be one of these is memory of unknown owner: the heap of the C library,
//! private mappings, free memory. A pointer there may hold a block or be stale.

use std::collections::BTreeSet;

use alloc_dump::snapshot::{MemoryRegion, RegionKind, SnapshotThread};
use foldhash::HashSet;

/// The kinds of roots, the most telling first. A block that several roots hold is said to be held
/// by the first kind of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RootKind {
    /// A static variable of the program or of a library.
    Static,
    /// A thread-local variable, or the control block of a thread.
    Tls,
    /// The stack of a thread.
    Stack,
    /// A register of a thread.
    Register,
    /// Memory whose owner is not known. It may be free memory.
    Unknown,
}

/// Whose memory a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceOwner {
    /// The kind of root that a pointer there is.
    pub kind: RootKind,
    /// Index of the thread for a stack, thread-locals and registers; else that of the region.
    pub index: u32,
}

/// A range of memory with one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) end: u64,
    /// `None` if words there hold nothing.
    pub(super) owner: Option<PlaceOwner>,
    /// Whether the area is a whole mapping behind a guard, as a stack is, and no thread is known to
    /// use it.
    pub(super) may_be_old_stack: bool,
    /// Whether the C library's allocator may keep its notes there: in memory of unknown owner, and
    /// in the statics of the C library.
    pub(super) may_have_allocator_notes: bool,
}

/// The memory of an image.
#[derive(Clone, Copy, Debug)]
pub struct ImageMemory<'a> {
    /// The regions, ascending.
    pub regions: &'a [MemoryRegion],
    /// The threads.
    pub threads: &'a [SnapshotThread],
    /// Process id, which is also the id of the first thread.
    pub pid: u32,
    /// Bytes of thread-local variables below a thread pointer.
    pub tls_size: u64,
    /// First address and end of the writable segments of the modules of which they are known, in
    /// the order of their addresses.
    pub writable_segments: &'a [(u64, u64)],
}

/// Bytes of thread-local variables that are assumed if they are not known.
pub const USUAL_TLS_SIZE: u64 = 1024;
/// How far thread-locals of the first thread may lie below its thread pointer.
const MAIN_TLS_BELOW: u64 = 64 << 10;
/// Bytes of a thread's control block, at its thread pointer, rounded up.
const CONTROL_BLOCK: u64 = 4096;
/// Bytes below the stack pointer that a function may use.
const RED_ZONE: u64 = 128;
const PAGE: u64 = 4096;

impl ImageMemory<'_> {
    /// Returns the areas, ascending and without overlaps. Memory that no area covers has nothing
    /// that the program has written, or belongs to the tracker.
    pub(super) fn areas(&self) -> Vec<Area> {
        let mut uses = Uses::default();
        let modules: HashSet<&[u8]> =
            self.regions.iter().filter(|region| region.executable).map(|region| &*region.name).collect();
        let mut was_static_until = None;
        for (index, region) in self.regions.iter().enumerate() {
            let is_code = region.executable && region.kind() == RegionKind::File;
            if region.of_tracker || !region.writable && (region.shared || is_code) {
                let is_cut_out = is_static_of_tracker(region) && was_static_until == Some(region.start);
                was_static_until = is_cut_out.then_some(region.end);
                continue;
            }
            let is_anonymous = region.kind() == RegionKind::Anonymous && !region.shared;
            let is_data =
                region.kind() == RegionKind::File && !region.shared && modules.contains(&*region.name);
            // The variables that begin as zeros have no file.
            let is_behind_data =
                is_anonymous && region.name.is_empty() && was_static_until == Some(region.start);
            let segment_end = self.end_of_segment(region.start);
            let is_bss = is_behind_data && segment_end.is_none_or(|end| region.start < end);
            let kind = if is_data || is_bss { RootKind::Static } else { RootKind::Unknown };
            let is_before_cut = is_bss && self.is_cut_at(region.end);
            was_static_until = (is_data && region.writable || is_before_cut).then_some(region.end);
            let owner = PlaceOwner { kind, index: index as u32 };
            let is_whole = is_anonymous && !is_bss && self.is_guarded(index);
            uses.all.push(Area {
                start: region.start,
                end: region.end,
                owner: Some(owner),
                may_be_old_stack: is_whole && !self.is_used(region),
                may_have_allocator_notes: kind == RootKind::Unknown || is_of_c_library(region),
            });
            if let Some(end) = segment_end.filter(|_| is_bss) {
                // Another mapping may follow without a gap: the kernel lists both as one.
                let unknown = PlaceOwner { kind: RootKind::Unknown, index: index as u32 };
                uses.add(end.max(region.start), region.end, Some(unknown));
            }
        }
        for (index, thread) in self.threads.iter().enumerate() {
            self.add_thread(index as u32, thread, &mut uses);
        }
        uses.into_areas()
    }

    /// Whether every thread is known to be in some region, so that the stacks of no thread can be
    /// taken for old ones.
    pub(super) fn knows_all_stacks(&self) -> bool {
        let is_known = |address: u64| self.region_of(address).is_some();
        let is_in_region = |thread: &SnapshotThread| {
            is_known(thread.thread_pointer) || thread.stack_pointer.is_some_and(is_known)
        };
        self.threads.iter().all(is_in_region) && !self.threads.is_empty()
    }

    fn add_thread(&self, index: u32, thread: &SnapshotThread, uses: &mut Uses) {
        let is_first = thread.tid == self.pid;
        let owner = |kind| Some(PlaceOwner { kind, index });
        let stack_region = thread.stack_pointer.and_then(|address| self.region_of(address));
        let own_region = self.region_of(thread.thread_pointer);
        if let Some(pointer) = thread.stack_pointer
            && let Some(at) = stack_region
        {
            let region = &self.regions[at];
            let from = pointer.saturating_sub(RED_ZONE).max(region.start);
            let is_own = match region.kind() {
                RegionKind::MainStack => is_first,
                _ => own_region == Some(at) && self.is_guarded(at) && self.has_alone(thread, region),
            };
            let from = if is_own { from } else { region.start };
            uses.add(region.start, from, None);
            uses.add(from, region.end, owner(RootKind::Stack));
        }
        if is_first {
            // A first thread that is on another stack has suspended this one.
            for region in self.regions.iter().filter(|region| region.kind() == RegionKind::MainStack) {
                if !thread.stack_pointer.is_some_and(|pointer| region.contains(pointer)) {
                    uses.add(region.start, region.end, owner(RootKind::Stack));
                }
            }
        }
        let Some(at) = own_region else { return };
        let (region, pointer) = (&self.regions[at], thread.thread_pointer);
        let below = if is_first { self.tls_size.max(MAIN_TLS_BELOW) } else { self.tls_size };
        let start = pointer.saturating_sub(below).max(region.start);
        let block_end = pointer.saturating_add(CONTROL_BLOCK).next_multiple_of(PAGE);
        if !is_first && stack_region == Some(at) {
            // What is mapped above the control block does not belong to the stack.
            let end = block_end.min(region.end);
            let unknown = PlaceOwner { kind: RootKind::Unknown, index: at as u32 };
            uses.add(end, region.end, Some(unknown));
        }
        if !is_first && stack_region != Some(at) {
            uses.add(region.start, start, owner(RootKind::Stack));
        }
        uses.add(start, block_end.min(region.end), owner(RootKind::Tls));
    }

    /// Returns where the last page of the segment ends that an address behind a module's data
    /// belongs to, or would belong to. `None` if the module's segments are not known.
    fn end_of_segment(&self, address: u64) -> Option<u64> {
        let at = self.writable_segments.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
        let (_, end) = self.writable_segments[at];
        Some(end.next_multiple_of(PAGE))
            .filter(|_| self.is_in_one_module(self.writable_segments[at].0, address))
    }

    /// Whether all regions from one address to another belong to one module, as far as they have
    /// names.
    fn is_in_one_module(&self, from: u64, to: u64) -> bool {
        let between = self.regions.iter().filter(|region| region.end > from && region.start < to);
        let mut names = between.map(|region| &region.name).filter(|name| !name.is_empty());
        let first = names.next();
        names.all(|name| Some(name) == first)
    }

    /// Whether a static of the tracker begins at this address.
    fn is_cut_at(&self, address: u64) -> bool {
        let at = self.regions.partition_point(|region| region.start < address);
        self.regions.get(at).is_some_and(|region| region.start == address && is_static_of_tracker(region))
    }

    /// Returns the writable region with this address.
    fn region_of(&self, address: u64) -> Option<usize> {
        let at = self.regions.partition_point(|region| region.start <= address).checked_sub(1)?;
        let region = &self.regions[at];
        (region.contains(address) && region.writable && !region.of_tracker).then_some(at)
    }

    /// Whether what lies below the stack pointer of a thread in this region, which has the thread's
    /// control block, is a part of its stack: other stacks, as those of coroutines, may have been
    /// mapped without a guard between them.
    fn has_alone(&self, thread: &SnapshotThread, region: &MemoryRegion) -> bool {
        let Some(pointer) = thread.stack_pointer else { return false };
        let is_below = |address: u64| (region.start..pointer).contains(&address);
        pointer < thread.thread_pointer
            && !self
                .threads
                .iter()
                .any(|other| is_below(other.thread_pointer) || other.stack_pointer.is_some_and(is_below))
    }

    /// Whether the region before this one is a guard: nobody may access it.
    fn is_guarded(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1).map(|at| &self.regions[at]) else { return false };
        let is_accessible = before.readable || before.writable || before.executable;
        before.end == self.regions[index].start && !is_accessible && before.inode == 0
    }

    fn is_used(&self, region: &MemoryRegion) -> bool {
        self.threads.iter().any(|thread| {
            region.contains(thread.thread_pointer)
                || thread.stack_pointer.is_some_and(|address| region.contains(address))
        })
    }
}

/// Whether a region is a part of the GNU C Library.
fn is_of_c_library(region: &MemoryRegion) -> bool {
    let name = region.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(b"libc.so") || name.starts_with(b"libc-2")
}

/// Whether a region is a static of the tracker that was cut out of those of its program. Mappings
/// consist of whole pages.
fn is_static_of_tracker(region: &MemoryRegion) -> bool {
    region.of_tracker && (!region.start.is_multiple_of(PAGE) || !region.end.is_multiple_of(PAGE))
}

/// The end of the stack of an ended thread whose control block is at this address.
pub(super) fn end_of_old_stack(control_block: u64) -> u64 {
    control_block.saturating_add(CONTROL_BLOCK / 2).next_multiple_of(PAGE)
}

/// Uses of ranges of memory. Where two overlap, the later one counts.
#[derive(Default)]
struct Uses {
    all: Vec<Area>,
}

impl Uses {
    fn add(&mut self, start: u64, end: u64, owner: Option<PlaceOwner>) {
        let may_have_allocator_notes = owner.is_some_and(|owner| owner.kind == RootKind::Unknown);
        if start < end {
            self.all.push(Area { start, end, owner, may_be_old_stack: false, may_have_allocator_notes });
        }
    }

    fn into_areas(self) -> Vec<Area> {
        let mut edges: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * self.all.len());
        for (index, area) in self.all.iter().enumerate() {
            edges.extend([(area.start, true, index), (area.end, false, index)]);
        }
        edges.sort_unstable();
        let mut active = BTreeSet::new();
        let (mut areas, mut at): (Vec<Area>, u64) = (Vec::new(), 0);
        for (address, begins, index) in edges {
            if let Some(top) = active.last().filter(|_| at < address) {
                let used: &Area = &self.all[*top];
                areas.push(Area { start: at, end: address, ..*used });
            }
            at = address;
            if begins {
                active.insert(index);
            } else {
                active.remove(&index);
            }
        }
        areas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(maps: &str) -> Vec<MemoryRegion> {
        maps.lines()
            .map(|line| MemoryRegion::parse(line.trim().as_bytes()).expect("a line of maps"))
            .collect()
    }

    /// Start and end of an area, and who owns it.
    type AreaUse = (u64, u64, Option<(RootKind, u32)>);

    fn uses(memory: &ImageMemory<'_>) -> Vec<AreaUse> {
        let areas = memory.areas().into_iter();
        areas.map(|area| (area.start, area.end, area.owner.map(|owner| (owner.kind, owner.index)))).collect()
    }

    #[test]
    fn statics_are_those_of_modules() {
        let mut regions = regions(
            "10000-12000 r-xp 00000000 fe:01 5   /bin/app
             12000-13000 rw-p 00002000 fe:01 5   /bin/app
             13000-14000 rw-p 00000000 00:00 0
             14000-15000 rw-p 00000000 00:00 0   [heap]
             20000-21000 rw-p 00000000 fe:01 6   /var/data
             21000-22000 rw-p 00000000 00:00 0
             22000-23000 rw-s 00000000 fe:01 5   /bin/app
             23000-24000 rw-p 00000000 00:00 0",
        );
        regions[7].of_tracker = true;
        let memory =
            ImageMemory { regions: &regions, threads: &[], pid: 1, tls_size: 0, writable_segments: &[] };
        let expected = [
            (0x12000, 0x13000, Some((RootKind::Static, 1))),
            (0x13000, 0x14000, Some((RootKind::Static, 2))),
            (0x14000, 0x15000, Some((RootKind::Unknown, 3))),
            (0x20000, 0x21000, Some((RootKind::Unknown, 4))),
            (0x21000, 0x22000, Some((RootKind::Unknown, 5))),
            (0x22000, 0x23000, Some((RootKind::Unknown, 6))),
        ];
        assert_eq!(uses(&memory), expected);
        assert!(!memory.knows_all_stacks(), "no thread was found");
    }

    #[test]
    fn a_mapping_behind_the_data_of_a_module_is_no_static_of_it() {
        let regions = regions(
            "10000-12000 r-xp 00000000 fe:01 5   /bin/app
             12000-13000 rw-p 00002000 fe:01 5   /bin/app
             13000-18000 rw-p 00000000 00:00 0
             20000-21000 r-xp 00000000 fe:01 6   /lib/libgcc_s.so.1
             21000-22000 rw-p 00001000 fe:01 6   /lib/libgcc_s.so.1
             22000-23000 rw-p 00000000 00:00 0
             30000-31000 r-xp 00000000 fe:01 7   /lib/unknown.so
             31000-32000 rw-p 00001000 fe:01 7   /lib/unknown.so
             32000-33000 rw-p 00000000 00:00 0",
        );
        let writable_segments = [(0x11f00, 0x13010), (0x21000, 0x21ff0)];
        let memory = ImageMemory {
            regions: &regions,
            threads: &[],
            pid: 1,
            tls_size: 0,
            writable_segments: &writable_segments,
        };
        let expected = [
            (0x12000, 0x13000, Some((RootKind::Static, 1))),
            (0x13000, 0x14000, Some((RootKind::Static, 2))),
            (0x14000, 0x18000, Some((RootKind::Unknown, 2))),
            (0x21000, 0x22000, Some((RootKind::Static, 4))),
            (0x22000, 0x23000, Some((RootKind::Unknown, 5))),
            // Its file is not there.
            (0x31000, 0x32000, Some((RootKind::Static, 7))),
            (0x32000, 0x33000, Some((RootKind::Static, 8))),
        ];
        assert_eq!(uses(&memory), expected);
    }

    #[test]
    fn a_static_of_the_tracker_is_cut_out_of_those_of_its_program() {
        let mut regions = regions(
            "10000-12000 r-xp 00000000 fe:01 5   /bin/app
             12000-13000 rw-p 00002000 fe:01 5   /bin/app
             13000-13100 rw-p 00000000 00:00 0
             13100-13180 rw-p 00000000 00:00 0
             13180-14000 rw-p 00000000 00:00 0
             14000-15000 rw-p 00000000 00:00 0
             15000-16000 rw-p 00000000 00:00 0",
        );
        regions[3].of_tracker = true;
        // A mapping of the tracker right behind the statics.
        regions[5].of_tracker = true;
        let memory =
            ImageMemory { regions: &regions, threads: &[], pid: 1, tls_size: 0, writable_segments: &[] };
        let expected = [
            (0x12000, 0x13000, Some((RootKind::Static, 1))),
            (0x13000, 0x13100, Some((RootKind::Static, 2))),
            (0x13180, 0x14000, Some((RootKind::Static, 4))),
            (0x15000, 0x16000, Some((RootKind::Unknown, 6))),
        ];
        assert_eq!(uses(&memory), expected);
    }

    #[test]
    fn stacks_count_above_the_stack_pointer_and_thread_locals_around_the_thread_pointer() {
        let regions = regions(
            "10000-30000 rw-p 00000000 00:00 0
             40000-41000 ---p 00000000 00:00 0
             41000-61000 rw-p 00000000 00:00 0
             70000-90000 rw-p 00000000 00:00 0   [stack]",
        );
        let thread = |tid, stack_pointer, thread_pointer| SnapshotThread {
            tid,
            stack_pointer,
            thread_pointer,
            ..SnapshotThread::default()
        };
        let threads = [thread(1, Some(0x80000), 0x21000), thread(2, Some(0x48000), 0x5F700)];
        let memory = ImageMemory {
            regions: &regions,
            threads: &threads,
            pid: 1,
            tls_size: 0x200,
            writable_segments: &[],
        };
        let expected = [
            (0x10000, 0x11000, Some((RootKind::Unknown, 0))),
            (0x11000, 0x22000, Some((RootKind::Tls, 0))),
            (0x22000, 0x30000, Some((RootKind::Unknown, 0))),
            (0x40000, 0x41000, Some((RootKind::Unknown, 1))),
            (0x41000, 0x47F80, None),
            (0x47F80, 0x5F500, Some((RootKind::Stack, 1))),
            (0x5F500, 0x61000, Some((RootKind::Tls, 1))),
            (0x70000, 0x7FF80, None),
            (0x7FF80, 0x90000, Some((RootKind::Stack, 0))),
        ];
        assert_eq!(uses(&memory), expected);

        // Another stack below, without a guard between them: nothing there is known to be dead.
        let below = [threads[0].clone(), threads[1].clone(), thread(3, Some(0x44000), 0x21100)];
        let memory_of = |threads| ImageMemory { threads, ..memory };
        let of_second = |uses: Vec<AreaUse>| -> Vec<AreaUse> {
            uses.into_iter().filter(|(start, ..)| (0x41000..0x61000).contains(start)).collect()
        };
        let stack = |thread| Some((RootKind::Stack, thread));
        let tls = (0x5F500, 0x61000, Some((RootKind::Tls, 1)));
        let found = of_second(uses(&memory_of(&below)));
        assert!(found.iter().all(|(.., owner)| owner.is_some()), "{found:?}");
        // A thread that has left its own stack for another one.
        let elsewhere = [threads[0].clone(), thread(2, Some(0x60800), 0x5F700)];
        assert_eq!(of_second(uses(&memory_of(&elsewhere)))[..2], [(0x41000, 0x5F500, stack(1)), tls]);

        // Running threads: whole stacks.
        let threads = [thread(1, None, 0x21000), thread(2, None, 0x5F700)];
        let memory = ImageMemory { threads: &threads, ..memory };
        assert_eq!(
            uses(&memory)[4..],
            [
                (0x41000, 0x5F500, Some((RootKind::Stack, 1))),
                (0x5F500, 0x61000, Some((RootKind::Tls, 1))),
                (0x70000, 0x90000, Some((RootKind::Stack, 0))),
            ]
        );
        assert!(memory.knows_all_stacks());

        // A thread of which nothing is known.
        let threads = [thread(1, None, 0x21000), thread(2, None, 0)];
        let memory = ImageMemory { threads: &threads, ..memory };
        assert!(!memory.knows_all_stacks());
        let areas = memory.areas();
        assert!(areas.iter().any(|area| area.start == 0x41000 && area.may_be_old_stack));
    }
}
