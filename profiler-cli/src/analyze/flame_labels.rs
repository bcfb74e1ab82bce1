//! The labels of a flamegraph: each distinct text once.

use foldhash::HashMap;

use crate::names::code_owner::CodeOwner;

/// Distinct labels, and the index of each.
#[derive(Debug, Default)]
pub(super) struct LabelTable {
    pub(super) names: Vec<String>,
    /// Whose code each label stands for.
    pub(super) owners: Vec<CodeOwner>,
    indices: HashMap<String, u32>,
}

impl LabelTable {
    /// Returns the index of a label, which is added if it is new.
    pub(super) fn index_of(&mut self, name: String, owner: CodeOwner) -> u32 {
        let next = self.names.len() as u32;
        let (names, owners) = (&mut self.names, &mut self.owners);
        *self.indices.entry(name).or_insert_with_key(|name| {
            names.push(name.clone());
            owners.push(owner);
            next
        })
    }

    /// Sorts stacks by the names of their labels. With `top`, only that many of the heaviest stay,
    /// and all others become one, which comes last.
    pub(super) fn sort_stacks(&mut self, stacks: &mut Vec<(Vec<u32>, u64)>, top: Option<usize>) {
        // PERF: by the ranks of the names, which compares numbers and not texts.
        let ranks = self.ranks();
        let by_name = |a: &[u32], b: &[u32]| {
            let rank = |label: &u32| ranks[*label as usize];
            a.iter().map(rank).cmp(b.iter().map(rank))
        };
        let mut rest = Vec::new();
        if let Some(top) = top.filter(|top| *top < stacks.len()) {
            stacks.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| by_name(&a.0, &b.0)));
            rest = stacks.split_off(top);
        }
        stacks.sort_by(|a, b| by_name(&a.0, &b.0));
        if !rest.is_empty() {
            let others = rest.iter().map(|(_, weight)| weight).sum();
            let name = format!("({} other stacks)", rest.len());
            stacks.push((vec![self.index_of(name, CodeOwner::Runtime)], others));
        }
    }

    /// Returns for each label its place in the order of the names.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.names.len() as u32).collect();
        order.sort_by_key(|label| &self.names[*label as usize]);
        let mut ranks = vec![0; order.len()];
        for (rank, label) in order.into_iter().enumerate() {
            ranks[label as usize] = rank as u32;
        }
        ranks
    }
}
