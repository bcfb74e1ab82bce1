//! Figures by crate, module, file, function, site or thread. In: a profile and its named stacks.
//! Out: a [`GroupTable`], of which the rows add up to the totals.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::group_names::{GroupBy, GroupNames, name_of_thread};
use crate::analyze::summary::with_ids;
use crate::names::stacks::Stacks;
use crate::profile::{Profile, RecordedThread, StackStats};

/// Figures of groups.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GroupTable {
    /// What the figures are added up by.
    pub by: GroupBy,
    /// One row for each group: most bytes at the peak first, for threads most bytes allocated.
    pub rows: Vec<GroupRow>,
    /// Number of rows that `--top` cut off.
    pub omitted: usize,
}

/// The figures of one group. Those about live bytes are null for threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GroupRow {
    /// Name of the group; `(no stack)` or `(unknown)` if there is none.
    pub name: String,
    /// Bytes of the blocks that had got their size here and were live at the peak of the process.
    pub peak_bytes: Option<u64>,
    /// Bytes of the blocks that got their size here and are live at the end.
    pub live_bytes: Option<u64>,
    /// Number of the blocks that `live_bytes` counts.
    pub live_blocks: Option<u64>,
    /// Bytes allocated, new sizes of reallocations included.
    pub allocated_bytes: u64,
    /// Bytes freed, old sizes of reallocations included.
    pub freed_bytes: u64,
    /// Number of allocations.
    pub allocations: u64,
    /// Number of reallocations.
    pub reallocations: u64,
    /// Number of deallocations.
    pub deallocations: u64,
    /// Number of allocations whose block was freed by the next heap event of the thread; null for
    /// threads.
    pub temporary_allocations: Option<u64>,
}

/// Adds up the figures of all stacks that the filter accepts; of threads, those of the selected
/// threads. Keeps the `top` largest rows.
pub fn groups(profile: &Profile, stacks: &Stacks, filter: &Filter, by: GroupBy, top: usize) -> GroupTable {
    let mut rows: Vec<GroupRow> = match by {
        GroupBy::Thread => profile.threads.iter().map(row_of_thread).collect(),
        _ => rows_of_stacks(profile, stacks, filter, by),
    };
    // The sort is stable, so equal rows stay in the order of their names.
    rows.sort_by_key(|row| Reverse((row.peak_bytes, row.allocated_bytes, row.freed_bytes)));
    let omitted = rows.len().saturating_sub(top);
    rows.truncate(top);
    GroupTable { by, rows, omitted }
}

fn rows_of_stacks(profile: &Profile, stacks: &Stacks, filter: &Filter, by: GroupBy) -> Vec<GroupRow> {
    let (accepted, names) = (filter.accepted(stacks), GroupNames::of(profile, stacks, by));
    let mut rows: BTreeMap<String, GroupRow> = BTreeMap::new();
    for (stack, stats) in with_ids(profile) {
        let silent = stats.events() == 0 && stats.peak_blocks == 0 && stats.live_blocks == 0;
        if !silent && accepted.accepts(stack) {
            rows.entry(names.of_stack(stack)).or_default().add(stats);
        }
    }
    rows.into_iter().map(|(name, row)| GroupRow { name, ..row }).collect()
}

impl GroupRow {
    fn add(&mut self, stats: &StackStats) {
        *self.peak_bytes.get_or_insert_default() += stats.peak_bytes;
        *self.live_bytes.get_or_insert_default() += stats.live_bytes;
        *self.live_blocks.get_or_insert_default() += stats.live_blocks;
        *self.temporary_allocations.get_or_insert_default() += stats.temporary;
        self.allocated_bytes += stats.allocated;
        self.freed_bytes += stats.freed;
        self.allocations += stats.allocations;
        self.reallocations += stats.reallocations;
        self.deallocations += stats.deallocations;
    }
}

fn row_of_thread(thread: &RecordedThread) -> GroupRow {
    GroupRow {
        name: name_of_thread(thread),
        allocated_bytes: thread.allocated,
        freed_bytes: thread.freed,
        allocations: thread.allocations,
        reallocations: thread.reallocations,
        deallocations: thread.deallocations,
        ..GroupRow::default()
    }
}

#[cfg(test)]
mod tests {
    use alloc_dump::layout::StackId;

    use super::*;
    use crate::names::code_owner::CodeOwner;
    use crate::names::stacks::NamedFrame;

    fn frame(function: &str, owner: CodeOwner) -> NamedFrame {
        let file = Some("/w/src/cart.rs".into()).filter(|_| owner == CodeOwner::Own);
        NamedFrame {
            function: function.into(),
            file,
            line: Some(1),
            is_inlined: false,
            owner,
            module: "app".into(),
        }
    }

    fn names(by: GroupBy, top: usize) -> (Vec<(String, u64)>, usize) {
        let own = || frame("shop::cart::Cart::add::<u8>", CodeOwner::Own);
        let package = || frame("serde::ser::to_vec", CodeOwner::Dependency);
        let runtime = || frame("alloc::alloc::alloc", CodeOwner::Runtime);
        let stacks = Stacks::from_frames(&[
            vec![runtime(), own()],
            vec![runtime(), package(), own()],
            vec![frame("shop::main", CodeOwner::Own)],
        ]);
        let mut stats = vec![StackStats::default(); StackId::FIRST.0 as usize];
        let of = |allocated| StackStats {
            allocations: 1,
            allocated,
            peak_bytes: allocated,
            ..StackStats::default()
        };
        stats.extend([of(1), of(2), of(4)]);
        stats[StackId::NONE.0 as usize] = of(8);
        let profile = Profile { stacks: stats, ..Profile::default() };
        let table = groups(&profile, &stacks, &Filter::default(), by, top);
        (table.rows.into_iter().map(|row| (row.name, row.allocated_bytes)).collect(), table.omitted)
    }

    #[test]
    fn rows_add_up_to_the_total() {
        let row = |(name, bytes): &(&str, u64)| ((*name).to_owned(), *bytes);
        for (by, expected) in [
            (GroupBy::Crate, vec![("(no stack)", 8), ("shop", 5), ("serde", 2)]),
            (GroupBy::Module, vec![("(no stack)", 8), ("shop", 4), ("shop::cart::Cart", 3)]),
            (GroupBy::File, vec![("(no stack)", 8), ("src/cart.rs", 7)]),
            (
                GroupBy::Site,
                vec![
                    ("(no stack)", 8),
                    ("shop::main (src/cart.rs:1)", 4),
                    ("shop::cart::Cart::add (src/cart.rs:1)", 3),
                ],
            ),
            (GroupBy::Function, vec![("(no stack)", 8), ("shop::main", 4), ("shop::cart::Cart::add", 3)]),
        ] {
            assert_eq!(names(by, 9), (expected.iter().map(row).collect(), 0), "{by:?}");
        }
        assert_eq!(names(GroupBy::Crate, 1), (vec![("(no stack)".to_owned(), 8)], 2));
    }
}
