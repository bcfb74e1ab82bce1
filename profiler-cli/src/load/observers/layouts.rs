//! Layouts of the address space, with what the live heap has in each mapping. In: heap events, the
//! records of regions and layouts, the live set. Out: the layouts at the start, at the peaks, at
//! marks and at the end.
//!
//! PERF: adding up the live blocks costs as much as there are. The recorder takes a layout only
//! when the process has grown by a part of its size, so that is seldom.

mod pages;

use alloc_dump::record::{Layout, LayoutOccasion, Record, Region};
use foldhash::HashMap;

use self::pages::PageSet;
use super::{Moment, Observer, ReplayEnd};
use crate::load::heap::{Heap, HeapEvent};
use crate::profile::{LayoutRegion, Layouts, ProcessLayout, Profile};

/// Follows the pages of blocks, and keeps layouts.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct LayoutsObserver {
    is_wanted: bool,
    page_bytes: u64,
    touched: PageSet,
    /// The regions since the last layout.
    regions: Vec<LayoutRegion>,
    name_bytes: usize,
    /// Number of regions that were not kept.
    dropped: u64,
    start: Option<ProcessLayout>,
    heap_peak: Option<ProcessLayout>,
    resident_peak: Option<ProcessLayout>,
    marks: Vec<ProcessLayout>,
    last: Option<ProcessLayout>,
    mark_names: HashMap<u32, String>,
    mark: Option<String>,
    /// An address on the stack of each thread.
    stacks: Vec<(u32, u64)>,
}

impl LayoutsObserver {
    pub(in crate::load) fn new(is_wanted: bool) -> LayoutsObserver {
        LayoutsObserver { is_wanted, page_bytes: SMALLEST_PAGE, ..LayoutsObserver::default() }
    }

    /// Notes the size of a page of the process.
    pub(in crate::load) fn set_page_size(&mut self, bytes: u64) {
        if bytes.is_power_of_two() {
            self.page_bytes = bytes.clamp(SMALLEST_PAGE, LARGEST_PAGE);
        }
    }

    fn add_region(&mut self, region: &Region<'_>) {
        if self.regions.len() == MAX_REGIONS || self.name_bytes + region.name.len() > MAX_NAME_BYTES {
            self.dropped += 1;
            return;
        }
        self.name_bytes += region.name.len();
        self.regions.push(LayoutRegion {
            start: region.start,
            end: region.end.max(region.start),
            flags: region.flags,
            inode: region.inode,
            resident: region.resident,
            dirty: region.dirty,
            swapped: region.swapped,
            name: String::from_utf8_lossy(region.name).into_owned(),
            ..LayoutRegion::default()
        });
    }

    fn add_layout(&mut self, layout: Layout, moment: &Moment<'_>) {
        let mut regions = std::mem::take(&mut self.regions);
        let is_whole = regions.len() as u64 == layout.regions && std::mem::take(&mut self.dropped) == 0;
        self.name_bytes = 0;
        regions.sort_by_key(|region| region.start);
        let page = self.page_bytes;
        let mapped: Vec<(u64, u64)> =
            regions.iter().map(|region| (region.start / page, region.end.div_ceil(page))).collect();
        self.touched.retain(&mapped);
        if moment.is_before || regions.is_empty() {
            return;
        }
        let layout = ProcessLayout {
            occasion: layout.occasion,
            us: moment.us,
            live_bytes: moment.heap.live_bytes(),
            live_blocks: moment.heap.live_blocks(),
            mark: self.mark.clone(),
            is_whole,
            regions,
        };
        let is_peak = |kept: &Option<ProcessLayout>, figure: fn(&ProcessLayout) -> u64| {
            kept.as_ref().is_none_or(|kept| figure(kept) < figure(&layout))
        };
        let places = [
            self.start.is_none(),
            is_peak(&self.heap_peak, |layout| layout.live_bytes),
            is_peak(&self.resident_peak, ProcessLayout::resident),
            layout.occasion == LayoutOccasion::Mark && self.marks.len() < MAX_MARKS,
            layout.occasion == LayoutOccasion::End,
        ];
        if places.contains(&true) {
            self.keep(layout, places, moment.heap);
        }
    }

    fn keep(&mut self, mut layout: ProcessLayout, places: [bool; 5], heap: &Heap) {
        add_heap(&mut layout, heap, &self.touched, self.page_bytes);
        let [is_start, is_heap_peak, is_resident_peak, is_mark, _] = places;
        let kept = [
            (is_start, &mut self.start),
            (is_heap_peak, &mut self.heap_peak),
            (is_resident_peak, &mut self.resident_peak),
        ];
        for (_, place) in kept.into_iter().filter(|(is_wanted, _)| *is_wanted) {
            *place = Some(layout.clone());
        }
        if is_mark {
            self.marks.push(layout.clone());
        }
        self.last = Some(layout);
    }

    #[inline]
    fn follow(&mut self, event: &HeapEvent) {
        if let Some(block) = event.added.filter(|_| self.is_wanted) {
            let address = event.address;
            let last = address.saturating_add(block.size.max(1) - 1);
            self.touched.add(address / self.page_bytes, last / self.page_bytes);
        }
    }
}

impl Observer for LayoutsObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        self.follow(event);
    }

    fn event_before(&mut self, event: &HeapEvent) {
        self.follow(event);
    }

    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        if !self.is_wanted {
            return;
        }
        match *record {
            Record::Region(region) => self.add_region(&region),
            Record::Layout(layout) => self.add_layout(layout, moment),
            Record::ThreadStack { id, address } if self.stacks.len() < MAX_THREADS => {
                self.stacks.push((id, address));
            }
            Record::MarkName { id, name } if self.mark_names.len() < MAX_MARKS => {
                self.mark_names.insert(id, String::from_utf8_lossy(name).into_owned());
            }
            Record::Mark { id } => self.mark = self.mark_names.get(&id).cloned(),
            _ => {}
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.layouts = Layouts {
            start: self.start,
            heap_peak: self.heap_peak,
            resident_peak: self.resident_peak,
            marks: self.marks,
            last: self.last,
            stacks: self.stacks,
        };
    }
}

/// Adds up the live blocks of each region, and the pages that they are on.
fn add_heap(layout: &mut ProcessLayout, heap: &Heap, touched: &PageSet, page: u64) {
    let mut live_pages = PageSet::default();
    let mut index = 0;
    for (address, block) in heap.blocks() {
        let last = address.saturating_add(block.size.max(1) - 1);
        live_pages.add(address / page, last / page);
        let is_in = |region: &LayoutRegion| (region.start..region.end).contains(&address);
        // PERF: many blocks are in the same region as the block before.
        if !layout.regions.get(index).is_some_and(is_in) {
            index = layout.regions.partition_point(|region| region.end <= address);
        }
        if let Some(region) = layout.regions.get_mut(index).filter(|region| is_in(region)) {
            region.live_bytes = region.live_bytes.wrapping_add(block.size);
            region.live_blocks += 1;
        }
    }
    for region in &mut layout.regions {
        let (first, end) = (region.start / page, region.end.div_ceil(page));
        region.live_page_bytes = page * live_pages.count(first, end);
        region.touched_page_bytes = page * touched.count(first, end);
    }
}

const SMALLEST_PAGE: u64 = 4096;
const LARGEST_PAGE: u64 = 1 << 20;
/// A process can have 65,530 mappings, unless the system was told otherwise.
const MAX_REGIONS: usize = 1 << 18;
const MAX_NAME_BYTES: usize = 64 << 20;
const MAX_MARKS: usize = 64;
const MAX_THREADS: usize = 1 << 16;
