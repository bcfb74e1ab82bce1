//! Who makes up the live heap over time, if the caller of the loader asked for it. In: heap events,
//! and the group of each stack or thread. Out: for each of at most [`MAX_POINTS`] equal parts of
//! the time, what every group held when the heap was largest in it, and the most that each held.
//!
//! So the groups of a part add up to the exact maximum of the heap in it. Memory grows with the
//! number of groups, which is small, and of stacks, never with the number of events.

use super::{IntervalStart, Observer, ReplayEnd};
use crate::load::heap::{Heap, HeapEvent, LiveBlock};
use crate::profile::{GroupCurve, GroupKey, GroupPoint, HeapGrouping, LiveHeap, Profile};

/// What every group holds, now and over time.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct GroupsObserver {
    /// `None` if nobody asked for groups.
    grouping: Option<HeapGrouping>,
    width_us: u64,
    /// First microsecond after the current part.
    end_us: u64,
    /// Bytes that each group holds.
    held: Vec<u64>,
    /// Blocks that each group holds.
    held_blocks: Vec<u64>,
    /// The most that each group held.
    most: Vec<LiveHeap>,
    total: u64,
    current: GroupPoint,
    done: Vec<GroupPoint>,
}

impl GroupsObserver {
    pub(in crate::load) fn new(grouping: Option<HeapGrouping>) -> GroupsObserver {
        let Some(grouping) = grouping else { return GroupsObserver::default() };
        let length = grouping.to_us.saturating_sub(grouping.from_us).saturating_add(1);
        let width_us = length.div_ceil(MAX_POINTS);
        let held = vec![0; grouping.groups];
        let current = GroupPoint { max: 0, bytes: held.clone() };
        let end_us = grouping.from_us.saturating_add(width_us);
        GroupsObserver {
            width_us,
            end_us,
            held_blocks: held.clone(),
            most: vec![LiveHeap::default(); grouping.groups],
            held,
            total: 0,
            current,
            done: Vec::new(),
            grouping: Some(grouping),
        }
    }

    /// Adds the parts that end before a time, with what is held now.
    #[inline]
    fn advance(&mut self, us: u64) {
        while us >= self.end_us && (self.done.len() as u64) < MAX_POINTS - 1 {
            let next = GroupPoint { max: self.total, bytes: self.held.clone() };
            self.done.push(std::mem::replace(&mut self.current, next));
            self.end_us = self.end_us.saturating_add(self.width_us);
        }
    }

    /// Returns the group of a block; `None` if nobody asked for groups.
    fn group_of(&self, block: &LiveBlock) -> Option<usize> {
        let grouping = self.grouping.as_ref()?;
        let group = match &grouping.key {
            GroupKey::Stacks(groups) => groups.get(block.stack.0 as usize),
            GroupKey::Threads(groups) => groups.get(block.birth.thread()),
        };
        Some(group.map_or(grouping.groups - 1, |group| usize::from(*group)))
    }

    fn add(&mut self, block: &LiveBlock) {
        let Some(group) = self.group_of(block) else { return };
        let (held, blocks) = (&mut self.held[group], &mut self.held_blocks[group]);
        *held = held.wrapping_add(block.size);
        *blocks += 1;
        if *held > self.most[group].bytes {
            self.most[group] = LiveHeap { bytes: *held, blocks: *blocks };
        }
        self.total = self.total.wrapping_add(block.size);
    }

    fn remove(&mut self, block: &LiveBlock) {
        let Some(group) = self.group_of(block) else { return };
        self.held[group] = self.held[group].wrapping_sub(block.size);
        self.held_blocks[group] -= 1;
        self.total = self.total.wrapping_sub(block.size);
    }
}

impl Observer for GroupsObserver {
    fn block_lost(&mut self, block: &LiveBlock) {
        self.remove(block);
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        if self.grouping.is_none() {
            return;
        }
        self.advance(event.origin.us);
        self.event_before(event);
        if self.total > self.current.max {
            self.current.max = self.total;
            self.current.bytes.copy_from_slice(&self.held);
        }
    }

    fn event_before(&mut self, event: &HeapEvent) {
        if let Some(block) = &event.removed {
            self.remove(block);
        }
        if let Some(block) = &event.added {
            self.add(block);
        }
    }

    fn interval_begins(&mut self, _start: &IntervalStart<'_>) {
        self.current = GroupPoint { max: self.total, bytes: self.held.clone() };
        let held = self.held.iter().zip(&self.held_blocks);
        self.most = held.map(|(bytes, blocks)| LiveHeap { bytes: *bytes, blocks: *blocks }).collect();
    }

    fn finish(mut self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        let Some(to_us) = self.grouping.as_ref().map(|grouping| grouping.to_us.max(end.us)) else { return };
        self.advance(to_us);
        let start_us = self.grouping.map_or(0, |grouping| grouping.from_us);
        self.done.push(self.current);
        let (width_us, points, most) = (self.width_us, self.done, self.most);
        profile.groups = Some(GroupCurve { start_us, width_us, points, most });
    }
}

/// The most parts into which the time is cut.
const MAX_POINTS: u64 = 512;

#[cfg(test)]
mod tests;
