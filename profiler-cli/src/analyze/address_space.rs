//! The address space of a process at its start, its peaks, its marks and its end: which segments it
//! has, and who has the resident memory. In: a profile with layouts. Out: [`Maps`].

mod causes;
mod segment;

use alloc_dump::record::{LayoutOccasion, RegionFlags};
use serde::Serialize;

pub use self::causes::ResidentParts;
pub use self::segment::SegmentKind;
use crate::profile::{LayoutRegion, ProcessLayout, Profile};

/// The address space of a process at several instants.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Maps {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Command line of the recorded program.
    pub command: String,
    /// Process id of the recorded program.
    pub pid: u32,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// The instants, in the order of time. Empty if the recorder could not read the list of
    /// mappings.
    pub instants: Vec<SpaceAtInstant>,
}

/// The address space at one instant. Sizes are bytes. Threads go on while the recorder reads the
/// list of mappings, which takes milliseconds in a large process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SpaceAtInstant {
    /// What the instant is: `start`, `peak` (most live bytes of the heap), `rss-peak`, `end`,
    /// `last` (of a recording without an end), or `mark:NAME` (soon after the mark). Peaks are
    /// those of the instants at which the recorder has looked.
    pub name: String,
    /// When it was, in nanoseconds since the recording began.
    pub time_ns: u64,
    /// Whether all mappings are there.
    pub whole: bool,
    /// Virtual size: all mappings.
    pub size: u64,
    /// Resident set: what of them is in physical memory.
    pub resident: u64,
    /// Bytes of all live blocks, exact.
    pub live_bytes: u64,
    /// Number of live blocks, exact.
    pub live_blocks: u64,
    /// What the memory of the heap is.
    pub heap: HeapDivision,
    /// Who has the resident memory.
    pub resident_parts: ResidentParts,
    /// One sentence about the resident memory.
    pub conclusion: String,
    /// Number of mappings that are both writable and executable: whoever can write there can run
    /// code.
    pub writable_and_executable: u64,
    /// The mappings, by ascending address.
    pub segments: Vec<Segment>,
}

/// What the heap's memory is, in bytes. All but `untouched` are resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapDivision {
    /// Live blocks.
    pub live: u64,
    /// Live blocks that were never touched, or are swapped out.
    pub untouched: u64,
    /// What shares pages with live blocks: headers of the allocator, and free memory.
    pub overhead: u64,
    /// Pages on which blocks were, and are none now.
    pub free: u64,
    /// The tracker's own memory.
    pub tracker: u64,
    /// Memory in which the tracker has never seen a block: of C code that calls malloc, or mapped
    /// directly.
    pub unknown: u64,
}

/// A mapping. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Segment {
    /// What it is.
    pub kind: SegmentKind,
    /// Path of the file, the kernel's name in brackets, or the name of the thread; else empty.
    pub name: String,
    /// First address, hexadecimal.
    pub start_address: String,
    /// First address behind it, hexadecimal.
    pub end_address: String,
    /// How it may be used, as the kernel writes it: `rw-p` or `r-xs`.
    pub access: String,
    /// Its length.
    pub size: u64,
    /// What of it is in physical memory.
    pub resident: u64,
    /// What of it was written.
    pub dirty: u64,
    /// What of it is swapped out.
    pub swapped: u64,
    /// The direction in which it grows. Null if it keeps its size.
    pub growth: Option<&'static str>,
    /// Bytes of live blocks that begin in it.
    pub live_bytes: u64,
    /// First and last address as numbers.
    #[serde(skip)]
    pub range: (u64, u64),
}

/// Returns the address space at each instant that is kept.
pub fn maps(profile: &Profile) -> Maps {
    let layouts = &profile.layouts;
    let end_name = match &layouts.last {
        Some(last) if last.occasion == LayoutOccasion::End => "end",
        _ => "last",
    };
    let mut named: Vec<(String, &ProcessLayout)> = Vec::new();
    let kept = [
        ("start", &layouts.start),
        ("peak", &layouts.heap_peak),
        ("rss-peak", &layouts.resident_peak),
        (end_name, &layouts.last),
    ];
    for (name, layout) in kept {
        named.extend(layout.as_ref().map(|layout| (name.to_owned(), layout)));
    }
    for mark in &layouts.marks {
        named.push((format!("mark:{}", mark.mark.as_deref().unwrap_or_default()), mark));
    }
    named.sort_by_key(|(_, layout)| layout.us);
    Maps {
        schema: "alloc-tracker/maps/1",
        command: profile.process.command(),
        pid: profile.process.pid,
        complete: profile.trust.is_complete(),
        instants: named.into_iter().map(|(name, layout)| at_instant(profile, name, layout)).collect(),
    }
}

fn at_instant(profile: &Profile, name: String, layout: &ProcessLayout) -> SpaceAtInstant {
    let stacks = &profile.layouts.stacks;
    let kinds = segment::kinds(&layout.regions, stacks);
    let threads = segment::stack_regions(&layout.regions, stacks);
    let parts = ResidentParts::of(&layout.regions, &kinds);
    let name_of_thread = |id: u32| {
        let thread = profile.threads.iter().find(|thread| thread.id == id);
        thread.map(|thread| thread.name.clone()).filter(|name| !name.is_empty())
    };
    let both = RegionFlags(RegionFlags::WRITE.0 | RegionFlags::EXECUTE.0);
    let segments = layout.regions.iter().zip(&kinds).enumerate().map(|(at, (region, kind))| {
        let thread = threads.get(&at).filter(|_| *kind == SegmentKind::ThreadStack);
        let name = thread.and_then(|id| name_of_thread(*id)).unwrap_or_else(|| region.name.clone());
        segment_of(region, *kind, name)
    });
    SpaceAtInstant {
        name,
        time_ns: layout.us * 1000,
        whole: layout.is_whole,
        size: layout.size(),
        resident: layout.resident(),
        live_bytes: layout.live_bytes,
        live_blocks: layout.live_blocks,
        heap: HeapDivision {
            live: parts.live,
            untouched: parts.untouched,
            overhead: parts.overhead,
            free: parts.free,
            tracker: parts.tracker,
            unknown: parts.unknown_heap + parts.unknown_mapped,
        },
        conclusion: parts.conclusion(layout.size()),
        resident_parts: parts,
        writable_and_executable: layout.regions.iter().filter(|region| region.flags.has(both)).count() as u64,
        segments: segments.collect(),
    }
}

fn segment_of(region: &LayoutRegion, kind: SegmentKind, name: String) -> Segment {
    let letters = [
        (RegionFlags::READ, 'r', '-'),
        (RegionFlags::WRITE, 'w', '-'),
        (RegionFlags::EXECUTE, 'x', '-'),
        (RegionFlags::SHARED, 's', 'p'),
    ];
    Segment {
        kind,
        name,
        start_address: format!("{:#x}", region.start),
        end_address: format!("{:#x}", region.end),
        access: letters.iter().map(|(bit, yes, no)| if region.flags.has(*bit) { yes } else { no }).collect(),
        size: region.size(),
        resident: region.resident,
        dirty: region.dirty,
        swapped: region.swapped,
        growth: kind.growth(),
        live_bytes: region.live_bytes,
        range: (region.start, region.end),
    }
}

/// The segments of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindRow {
    /// The kind.
    pub kind: SegmentKind,
    /// Number of mappings.
    pub mappings: u64,
    /// Bytes of all of them.
    pub size: u64,
    /// What of them is in physical memory.
    pub resident: u64,
    /// What of them was written.
    pub dirty: u64,
    /// What of them is swapped out.
    pub swapped: u64,
    /// Bytes of live blocks.
    pub live_bytes: u64,
    /// How most of their bytes may be used.
    pub access: String,
}

impl SpaceAtInstant {
    /// Returns the segments added up by kind.
    pub fn by_kind(&self) -> Vec<KindRow> {
        let mut rows: Vec<KindRow> = Vec::new();
        for segment in &self.segments {
            let row = match rows.iter_mut().find(|row| row.kind == segment.kind) {
                Some(row) => row,
                None => {
                    rows.push(KindRow {
                        kind: segment.kind,
                        mappings: 0,
                        size: 0,
                        resident: 0,
                        dirty: 0,
                        swapped: 0,
                        live_bytes: 0,
                        access: segment.access.clone(),
                    });
                    let last = rows.len() - 1;
                    &mut rows[last]
                }
            };
            row.mappings += 1;
            row.size += segment.size;
            row.resident += segment.resident;
            row.dirty += segment.dirty;
            row.swapped += segment.swapped;
            row.live_bytes += segment.live_bytes;
        }
        rows.sort_by_key(|row| row.kind);
        rows
    }

    /// Returns the groups of neighbouring segments that belong together, from the highest address
    /// down: those of one file, or of one kind.
    pub fn groups(&self) -> Vec<SpaceGroup> {
        let mut groups: Vec<SpaceGroup> = Vec::new();
        for segment in &self.segments {
            let (label, file) = label(segment);
            let (start, end) = segment.range;
            let kind = segment.kind;
            let joins = |last: &SpaceGroup| {
                let is_near = start.saturating_sub(last.end) < NEAR;
                is_near
                    && (last.label == label
                        || (last.file.is_some()
                            && matches!(kind, SegmentKind::Bss | SegmentKind::Reserved)
                            && start == last.end))
            };
            match groups.last_mut().filter(|last| joins(last)) {
                Some(last) => {
                    last.end = end;
                    last.size += segment.size;
                    last.resident += segment.resident;
                    last.mappings += 1;
                }
                None => groups.push(SpaceGroup {
                    label,
                    file,
                    kind,
                    start,
                    end,
                    size: segment.size,
                    resident: segment.resident,
                    mappings: 1,
                    free_above: 0,
                }),
            }
        }
        for at in 1..groups.len() {
            // No process can map the upper half of the addresses, where the kernel has a page.
            let next = groups[at].start;
            let is_usable = next < 1 << 63;
            let last = &mut groups[at - 1];
            last.free_above = if is_usable { next.saturating_sub(last.end) } else { 0 };
        }
        groups.reverse();
        groups
    }
}

/// Neighbouring segments that belong together. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceGroup {
    /// What a person calls them: name of the file or thread, or of the kind.
    pub label: String,
    /// The file, if they are the parts of one.
    pub file: Option<String>,
    /// The kind of the first of them.
    pub kind: SegmentKind,
    /// First address.
    pub start: u64,
    /// First address behind them.
    pub end: u64,
    /// Bytes of all mappings.
    pub size: u64,
    /// What of them is in physical memory.
    pub resident: u64,
    /// Number of mappings.
    pub mappings: u64,
    /// Bytes of addresses above them that are not mapped.
    pub free_above: u64,
}

fn label(segment: &Segment) -> (String, Option<String>) {
    match segment.kind {
        SegmentKind::Text
        | SegmentKind::ReadOnly
        | SegmentKind::Data
        | SegmentKind::File
        | SegmentKind::Shared
            if !segment.name.is_empty() =>
        {
            let name = segment.name.rsplit('/').next().unwrap_or_default().to_owned();
            (name, Some(segment.name.clone()))
        }
        SegmentKind::ThreadStack if !segment.name.is_empty() => (format!("stack of {}", segment.name), None),
        SegmentKind::Kernel => (segment.name.clone(), None),
        kind => (kind.name().to_owned(), None),
    }
}

/// Segments with less than this between them may belong together.
const NEAR: u64 = 4 << 20;
