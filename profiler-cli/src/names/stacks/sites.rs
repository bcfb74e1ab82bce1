//! The sites of all stacks. In: the call tree with the frames of its nodes. Out: for every node the
//! site of the stack that ends with it.
//!
//! PERF: a stack has the site of its caller's stack unless its own node has a better one. So one
//! pass over the nodes finds all sites. To search each stack by itself would take time quadratic in
//! the depth of a recursion.

use alloc_dump::layout::StackId;

use super::{FrameId, Stacks, only_allocates};

/// Finds the site of every stack, see [`Stacks::site`].
pub(super) fn sites_of(stacks: &Stacks) -> Vec<Option<FrameId>> {
    let is_own: Vec<bool> = stacks.frames.iter().map(|frame| !frame.is_runtime).collect();
    let does_more: Vec<bool> = stacks.frames.iter().map(|frame| !only_allocates(frame)).collect();
    let (mut own, mut more) = (vec![None; stacks.len()], vec![None; stacks.len()]);
    let mut innermost: Vec<Option<FrameId>> = vec![None; stacks.len()];
    // A caller's number is smaller, so its sites are known already.
    for at in StackId::FIRST.0 as usize..stacks.len() {
        let (node, caller) = (StackId(at as u32), stacks.parents[at].0 as usize);
        let frames = stacks.frames_of_node(node);
        // The frames of the allocator are in the lists of the nodes inside of it.
        let allocators = stacks.users_allocators.get(&node).copied().unwrap_or(0);
        let outside = frames.get(allocators..).unwrap_or_default();
        let find = |fits: &[bool]| outside.iter().copied().find(|frame| fits[frame.index()]);
        own[at] = find(&is_own).or(own[caller]);
        more[at] = find(&does_more).or(more[caller]);
        innermost[at] = frames.first().copied().or(innermost[caller]);
    }
    let choices = own.into_iter().zip(more).zip(innermost);
    choices.map(|((own, more), innermost)| own.or(more).or(innermost)).collect()
}
