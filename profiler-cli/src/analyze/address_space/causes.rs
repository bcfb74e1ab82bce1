//! Who has the resident memory of a process. In: the regions of a layout with their kinds. Out: the
//! parts of the resident set, whose sum it is, and a sentence about the largest.
//!
//! The kernel says how many bytes of a mapping are resident, and not which. So where a mapping has
//! pages of several parts, live blocks come first, then what shares pages with them, then pages on
//! which blocks were before; what is left is on pages where no block has ever been. Each page that
//! was not touched makes the later parts larger than they are said to be.

use serde::Serialize;

use super::segment::SegmentKind;
use crate::profile::LayoutRegion;
use crate::units::bytes;

/// The parts of the resident set in bytes; their sum is the resident set. `untouched` comes on top:
/// it is live and not resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResidentParts {
    /// Live blocks.
    pub live: u64,
    /// What shares pages with live blocks: the allocator's headers, and free memory between blocks.
    pub overhead: u64,
    /// Pages on which blocks were, and are none now: free memory that the allocator keeps.
    pub free: u64,
    /// Pages of the heap's own segments on which no block has ever been: most likely `malloc` of C
    /// code.
    pub unknown_heap: u64,
    /// Anonymous mappings in which no block has ever been: mapped by the program itself, or large
    /// blocks of C code.
    pub unknown_mapped: u64,
    /// Code, constants and variables of the program and its libraries.
    pub program: u64,
    /// Files that the program has mapped.
    pub files: u64,
    /// Memory that is shared with other processes.
    pub shared: u64,
    /// Stacks of all threads.
    pub stacks: u64,
    /// Memory of the tracker itself.
    pub tracker: u64,
    /// Live bytes that are not resident: never touched, or swapped out.
    pub untouched: u64,
}

impl ResidentParts {
    /// Adds up the parts of these regions.
    pub fn of(regions: &[LayoutRegion], kinds: &[SegmentKind]) -> ResidentParts {
        let mut parts = ResidentParts::default();
        for (region, kind) in regions.iter().zip(kinds) {
            parts.add(region, *kind);
        }
        parts
    }

    fn add(&mut self, region: &LayoutRegion, kind: SegmentKind) {
        let resident = region.resident;
        match kind {
            SegmentKind::BrkHeap | SegmentKind::MappedHeap => {
                let on_live_pages = resident.min(region.live_page_bytes);
                let live = on_live_pages.min(region.live_bytes);
                let used_before = region.touched_page_bytes.saturating_sub(region.live_page_bytes);
                let free = (resident - on_live_pages).min(used_before);
                self.live += live;
                self.untouched += region.live_bytes.saturating_sub(live);
                self.overhead += on_live_pages - live;
                self.free += free;
                self.unknown_heap += resident - on_live_pages - free;
            }
            SegmentKind::Anonymous | SegmentKind::Reserved => self.unknown_mapped += resident,
            SegmentKind::Text
            | SegmentKind::ReadOnly
            | SegmentKind::Data
            | SegmentKind::Bss
            | SegmentKind::Kernel => {
                self.program += resident;
            }
            SegmentKind::File => self.files += resident,
            SegmentKind::Shared => self.shared += resident,
            SegmentKind::MainStack | SegmentKind::ThreadStack => self.stacks += resident,
            SegmentKind::Tracker => self.tracker += resident,
        }
    }

    /// Returns the resident set: the sum of all parts.
    pub fn resident(&self) -> u64 {
        self.rows().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Returns the parts with their names, in a fixed order.
    pub fn rows(&self) -> [(&'static str, u64); 10] {
        [
            ("live blocks", self.live),
            ("on pages of live blocks, but free or overhead", self.overhead),
            ("free memory that the allocator keeps", self.free),
            ("in the heap, but never a block: malloc of C code", self.unknown_heap),
            ("mapped, but never a block: mmap, or C code", self.unknown_mapped),
            ("the program and its libraries", self.program),
            ("mapped files", self.files),
            ("shared with other processes", self.shared),
            ("stacks of threads", self.stacks),
            ("the tracker itself", self.tracker),
        ]
    }

    /// Says what the process's memory is, in one sentence: the largest part, leaving out the
    /// program and the tracker. `size` is that of all mappings.
    pub fn conclusion(&self, size: u64) -> String {
        let resident = self.resident();
        let causes = [
            (self.live, "is live blocks of the program: `leaks` says who holds them"),
            (
                self.overhead + self.free,
                "is free memory inside of the heap: fragmentation, or freed memory that the allocator keeps",
            ),
            (self.unknown_heap, "is in the heap and no block of Rust code: C code that calls malloc"),
            (
                self.unknown_mapped,
                "was mapped and is no block: mmap of the program, or large blocks of C code",
            ),
            (self.files, "is files that the program has mapped"),
            (self.shared, "is memory that is shared with other processes"),
            (self.stacks, "is stacks of threads"),
        ];
        let own: u64 = resident - self.program - self.tracker;
        let largest = causes.iter().max_by_key(|(bytes, _)| *bytes).filter(|(bytes, _)| *bytes > 0);
        let mut text = match largest {
            Some((part, what)) if *part >= LEAST_PART => {
                format!("Of {} RSS, {} {what}", bytes(resident), bytes(*part))
            }
            _ => format!("Of {} RSS, nearly all is the program itself and the tracker", bytes(resident)),
        };
        let next: Vec<String> = causes
            .iter()
            .filter(|(part, _)| *part >= LEAST_PART && Some(part) != largest.map(|(part, _)| part))
            .filter(|(part, _)| *part * 4 >= own)
            .map(|(part, what)| format!("{} {what}", bytes(*part)))
            .collect();
        if !next.is_empty() {
            text.push_str("; ");
            text.push_str(&next.join("; "));
        }
        text.push('.');
        if self.untouched >= LEAST_PART {
            text.push_str(&format!(
                " Of {} VSZ, {} is blocks that were allocated and never touched.",
                bytes(size),
                bytes(self.untouched)
            ));
        }
        text
    }
}

/// A part that is smaller is not worth a sentence.
const LEAST_PART: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn heap(size: u64, resident: u64, live: u64, live_pages: u64, touched: u64) -> LayoutRegion {
        LayoutRegion {
            start: 0,
            end: size,
            resident,
            live_bytes: live,
            live_page_bytes: live_pages,
            touched_page_bytes: touched,
            ..LayoutRegion::default()
        }
    }

    fn parts(region: LayoutRegion) -> ResidentParts {
        let parts = ResidentParts::of(std::slice::from_ref(&region), &[SegmentKind::BrkHeap]);
        assert_eq!(parts.resident(), region.resident, "the parts are the whole");
        parts
    }

    #[test]
    fn a_fragmented_heap_is_free_memory() {
        // 100 MiB were used; 5 MiB are live, on 20 MiB of pages.
        let fragmented = parts(heap(100 * MIB, 100 * MIB, 5 * MIB, 20 * MIB, 100 * MIB));
        let expected =
            ResidentParts { live: 5 * MIB, overhead: 15 * MIB, free: 80 * MIB, ..ResidentParts::default() };
        assert_eq!(fragmented, expected);
        assert!(fragmented.conclusion(0).contains("95.0 MiB is free memory inside of the heap"));
    }

    #[test]
    fn pages_that_never_had_a_block_are_of_c_code() {
        let c_code = parts(heap(100 * MIB, 90 * MIB, MIB, 2 * MIB, 4 * MIB));
        assert_eq!((c_code.unknown_heap, c_code.free, c_code.live), (86 * MIB, 2 * MIB, MIB));
        assert!(c_code.conclusion(0).contains("86.0 MiB is in the heap and no block of Rust code"));
    }

    #[test]
    fn a_block_that_was_not_touched_is_not_resident() {
        let lazy = parts(heap(256 * MIB, MIB / 4, 256 * MIB, 256 * MIB, 256 * MIB));
        assert_eq!((lazy.live, lazy.untouched), (MIB / 4, 256 * MIB - MIB / 4));
        let text = lazy.conclusion(300 * MIB);
        assert!(text.contains("Of 300.0 MiB VSZ, 255.8 MiB is blocks that were allocated and never touched"));
        assert!(text.contains("nearly all is the program itself"), "{text}");
    }

    #[test]
    fn a_part_of_a_quarter_is_named_too() {
        let mixed = ResidentParts {
            live: 50 * MIB,
            unknown_mapped: 40 * MIB,
            stacks: 2 * MIB,
            ..ResidentParts::default()
        };
        let text = mixed.conclusion(0);
        let live = text.find("50.0 MiB is live").unwrap();
        assert!(live < text.find("40.0 MiB was mapped").unwrap() && !text.contains("stacks"), "{text}");
    }
}
