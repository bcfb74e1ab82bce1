//! The tree of what retains what, as a flamegraph. In: judged blocks and named stacks. Out:
//! [`Flame`], whose stacks are chains of sites from a root to the blocks that it retains.
//!
//! ```text
//! static shop::CARTS        all bytes that would be freed if nothing but this static let go
//!   shop::open (cart.rs:12)     carts
//!     shop::add (item.rs:7)       items, which only carts hold
//! ```

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::filter::Filter;
use super::flame::{Flame, Metric};
use super::flame_labels::LabelTable;
use super::held::{RetentionRoot, RootKind, Verdict};
use super::holders::JudgedBlocks;
use super::site_location::{NO_STACK, frame_label};
use crate::names::code_owner::CodeOwner;
use crate::names::stacks::Stacks;
use crate::profile::Profile;

/// Adds up the bytes of blocks by the chain of what retains them. With `top`, only that many of the
/// heaviest chains stay, and all others become one.
pub fn retention_flame(
    profile: &Profile,
    stacks: &Stacks,
    filter: &Filter,
    judged: &JudgedBlocks<'_>,
    top: Option<usize>,
) -> Flame {
    let accepted = filter.accepted(stacks);
    let blocks = judged.judgement.blocks();
    let mut is_counted = vec![false; blocks.len()];
    judged.visit(|block, _, at| {
        if let Some(at) = at.filter(|_| (block.stack.0 as usize) < stacks.len()) {
            is_counted[at] = accepted.accepts(block.stack);
        }
    });
    let mut labels = LabelTable::default();
    let mut site_labels: Vec<Option<u32>> = vec![None; stacks.len()];
    for (block, _) in blocks.iter().zip(&is_counted).filter(|(_, counted)| **counted) {
        let label = &mut site_labels[block.stack.0 as usize];
        if label.is_none() {
            let site = stacks.site(block.stack).map(|id| stacks.frame(id));
            let name = site.map_or_else(|| NO_STACK.to_owned(), frame_label);
            let owner = site.map_or(CodeOwner::Runtime, |site| site.owner);
            *label = Some(labels.index_of(name, owner));
        }
    }
    let site_of = |at: usize| is_counted[at].then(|| site_labels[blocks[at].stack.0 as usize]).flatten();
    let mut chains: BTreeMap<(String, Vec<u32>), u64> = BTreeMap::new();
    let mut roots: HashMap<RetentionRoot, String> = HashMap::default();
    let all_roots = judged.judgement.roots();
    judged.judgement.visit_retention(site_of, |root, chain, bytes| {
        let name = roots.entry(root).or_insert_with(|| match root {
            RetentionRoot::Root(at) => match all_roots[at].kind {
                RootKind::Unknown => format!("maybe: {}", all_roots[at].name),
                _ => all_roots[at].name.clone(),
            },
            RetentionRoot::Nothing(Verdict::Held) => "(several roots)".to_owned(),
            RetentionRoot::Nothing(Verdict::Maybe) => "(maybe lost)".to_owned(),
            RetentionRoot::Nothing(Verdict::Lost) => "(lost)".to_owned(),
            RetentionRoot::Nothing(Verdict::Unknown) => "(unknown)".to_owned(),
        });
        let sum = chains.entry((name.clone(), chain.to_vec())).or_default();
        *sum = sum.saturating_add(bytes);
    });
    let mut stacks: Vec<(Vec<u32>, u64)> = Vec::with_capacity(chains.len());
    for ((root, chain), bytes) in chains.into_iter().filter(|(_, bytes)| *bytes > 0) {
        let root = labels.index_of(root, CodeOwner::Dependency);
        stacks.push(([vec![root], chain].concat(), bytes));
    }
    let total = stacks.iter().map(|(_, bytes)| bytes).sum();
    labels.sort_stacks(&mut stacks, top);
    Flame {
        metric: Metric::Retained,
        command: profile.process.command(),
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        interval: None,
        total,
        labels: labels.names,
        owners: labels.owners,
        stacks,
    }
}
