//! The figures of recorded stacks, added up by function and line. In: a profile, its named stacks
//! and the selection. Out: [`FunctionTotals`] for each function.

use std::collections::BTreeMap;

use foldhash::HashMap;

use crate::analyze::filter::Filter;
use crate::analyze::innermost::{OpenCall, on_every_stack};
use crate::analyze::lines::LineSelection;
use crate::names::function_name::{function_of, instance_of};
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::{Lifetimes, Profile, StackStats};

/// Identity of a function, with all its closures and, unless instances are split, all its
/// instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FunctionKey<'a> {
    pub(super) function: &'a str,
    pub(super) file: Option<&'a str>,
}

/// The figures of one function.
#[derive(Clone, Debug, Default)]
pub(super) struct FunctionTotals<'a> {
    /// Figures of each line. Line 0 has the events for which the debug info has no line.
    pub(super) by_line: BTreeMap<u32, LineTotals>,
    /// Whether the function is the user's own code.
    pub(super) is_own: bool,
    /// Bytes allocated on stacks whose site is in the function, so without the bytes that its
    /// callees allocate.
    pub(super) allocated_as_site: u64,
    /// Figures by the calling function, and by the line of the call in that function.
    pub(super) callers: HashMap<(FunctionKey<'a>, Option<u32>), LineTotals>,
}

/// The figures of one line, or of one call site, added up over stacks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LineTotals {
    pub(super) events: u64,
    pub(super) allocated: u64,
    pub(super) freed: u64,
    pub(super) allocations: u64,
    pub(super) blocks: i64,
    /// Number of the last event, from 1; 0 without any event.
    pub(super) last_event: u64,
    /// Live bytes of the process after the last event.
    pub(super) mem_usage: u64,
    pub(super) peak: u64,
    pub(super) live: u64,
    pub(super) temporary: u64,
    /// `None` if the profile has no lifetimes.
    pub(super) short_lived: Option<u64>,
    /// The sum of what each stack held at most.
    pub(super) max_live: u64,
}

impl LineTotals {
    /// Adds the figures of a stack.
    pub(super) fn add(&mut self, stats: &StackStats, lifetimes: Option<&Lifetimes>) {
        self.allocations += stats.allocations;
        if let Some(lifetimes) = lifetimes {
            *self.short_lived.get_or_insert(0) += lifetimes.short_lived;
        }
        self.max_live += stats.max_live_bytes;
        self.events += stats.events();
        self.allocated += stats.allocated;
        self.freed += stats.freed;
        self.blocks += stats.allocations as i64 - stats.deallocations as i64;
        self.peak += stats.peak_bytes;
        self.live += stats.live_bytes;
        self.temporary += stats.temporary;
        if stats.last_event > self.last_event {
            (self.last_event, self.mem_usage) = (stats.last_event, stats.live_after_last);
        }
    }

    /// Adds the figures of another line.
    pub(super) fn merge(&mut self, other: &LineTotals) {
        self.events += other.events;
        self.allocations += other.allocations;
        if let Some(more) = other.short_lived {
            *self.short_lived.get_or_insert(0) += more;
        }
        self.max_live += other.max_live;
        self.allocated += other.allocated;
        self.freed += other.freed;
        self.blocks += other.blocks;
        self.peak += other.peak;
        self.live += other.live;
        self.temporary += other.temporary;
        if other.last_event > self.last_event {
            (self.last_event, self.mem_usage) = (other.last_event, other.mem_usage);
        }
    }
}

impl FunctionTotals<'_> {
    /// Returns the bytes allocated at all lines of the function.
    pub(super) fn allocated(&self) -> u64 {
        self.by_line.values().map(|row| row.allocated).sum()
    }
}

/// Adds up the stacks by function and line, for all functions that the filter and `full` select.
pub(super) fn collect<'a>(
    profile: &Profile,
    stacks: &'a Stacks,
    filter: &Filter,
    full: bool,
    selection: &LineSelection,
) -> HashMap<FunctionKey<'a>, FunctionTotals<'a>> {
    // PERF: each distinct frame is matched with its function once, not once for each stack.
    let mut indices: HashMap<FunctionKey<'a>, usize> = HashMap::default();
    let functions: Vec<Option<usize>> = stacks
        .all_frames()
        .map(|frame| {
            selection.chooses(filter, frame, full).then(|| {
                let next = indices.len();
                *indices.entry(key_of(frame, selection)).or_insert(next)
            })
        })
        .collect();
    let mut totals = vec![FunctionTotals::default(); indices.len()];
    let is_shown = |frame: FrameId| full || !stacks.frame(frame).is_runtime();
    on_every_stack(stacks, (indices.len(), &functions), is_shown, |stack, running| {
        let stats = profile.stacks.get(stack.0 as usize).filter(|stats| stats.events() > 0);
        let Some(stats) = stats else { return };
        let site = stacks.site(stack);
        let lifetimes = profile.lifetimes.get(stack.0 as usize);
        for (function, OpenCall { frame, caller }) in running.innermost() {
            let totals = &mut totals[function];
            totals.is_own |= stacks.frame(frame).is_own();
            totals.by_line.entry(stacks.frame(frame).line.unwrap_or(0)).or_default().add(stats, lifetimes);
            totals.allocated_as_site += if Some(frame) == site { stats.allocated } else { 0 };
            if let Some(caller) = caller.filter(|_| selection.callers).map(|caller| stacks.frame(caller)) {
                totals
                    .callers
                    .entry((key_of(caller, selection), caller.line))
                    .or_default()
                    .add(stats, lifetimes);
            }
        }
    });
    let found = indices.into_iter().map(|(key, index)| (key, std::mem::take(&mut totals[index])));
    found.filter(|(_, totals)| !totals.by_line.is_empty()).collect()
}

fn key_of<'a>(frame: &'a NamedFrame, selection: &LineSelection) -> FunctionKey<'a> {
    let function = if selection.split_generics { instance_of } else { function_of };
    FunctionKey { function: function(&frame.function), file: frame.file.as_deref() }
}
