//! The sites of all stacks. In: the call tree with the frames of its nodes. Out: for every node the
//! site of the stack that ends with it.
//!
//! PERF: a stack has the site of its caller's stack unless its own node has a better one. So one
//! pass over the nodes finds all sites. To search each stack by itself would take time quadratic in
//! the depth of a recursion.

use alloc_dump::layout::StackId;

use super::{FrameId, NamedFrame, Stacks, only_allocates};
use crate::names::code_owner::CodeOwner;

/// Finds the site of every stack, see [`Stacks::site`].
pub(super) fn sites_of(stacks: &Stacks) -> Vec<Option<FrameId>> {
    let is_own: Vec<bool> = stacks.frames.iter().map(NamedFrame::is_own).collect();
    let is_package: Vec<bool> =
        stacks.frames.iter().map(|frame| frame.owner == CodeOwner::Dependency).collect();
    let does_more: Vec<bool> = stacks.frames.iter().map(|frame| !only_allocates(frame)).collect();
    let none = || vec![None; stacks.len()];
    let (mut own, mut package, mut more) = (none(), none(), none());
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
        package[at] = find(&is_package).or(package[caller]);
        more[at] = find(&does_more).or(more[caller]);
        innermost[at] = frames.first().copied().or(innermost[caller]);
    }
    let choices = own.into_iter().zip(package).zip(more).zip(innermost);
    choices.map(|(((own, package), more), innermost)| own.or(package).or(more).or(innermost)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, is_runtime: bool) -> NamedFrame {
        NamedFrame {
            function: function.into(),
            file: None,
            line: None,
            is_inlined: false,
            owner: CodeOwner::runtime_if(is_runtime),
            module: "app".into(),
        }
    }

    /// Frames of all three kinds: own code, code of the runtime that does more than to allocate,
    /// and code that only allocates. None of them calls the global allocator, so no frame inside of
    /// it belongs to a user's allocator.
    fn frames() -> [NamedFrame; 3] {
        [frame("app::main", false), frame("std::rt::start", true), frame("alloc::vec::Vec<T>::push", true)]
    }

    #[test]
    fn the_site_of_every_stack_is_the_one_that_a_search_from_its_leaf_finds() {
        let mut lcg = 7u64;
        let mut random = |below: usize| {
            lcg = lcg.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (lcg >> 33) as usize % below
        };
        let first = StackId::FIRST.0;
        let nodes: Vec<(StackId, Vec<NamedFrame>)> = (0..2_000u32)
            .map(|at| {
                let parent = if at < 20 { 0 } else { first + random(at as usize) as u32 };
                let frames = (0..random(3)).map(|_| frames()[random(3)].clone()).collect();
                (StackId(parent), frames)
            })
            .collect();
        let stacks = Stacks::from_tree(nodes);
        let mut found = [0; 4];
        for at in 0..stacks.len() as u32 {
            let stack = StackId(at);
            let find =
                |fits: fn(&NamedFrame) -> bool| stacks.frames(stack).find(|id| fits(stacks.frame(*id)));
            let choices =
                [find(|frame| !frame.is_runtime()), find(|frame| !only_allocates(frame)), find(|_| true)];
            let kind = choices.iter().position(Option::is_some);
            found[kind.unwrap_or(3)] += 1;
            assert_eq!(stacks.site(stack), kind.and_then(|kind| choices[kind]), "{at}");
        }
        assert!(found.iter().all(|count| *count > 0), "{found:?}");
    }

    /// To search each of these stacks by itself would look at forty-five billion frames.
    #[test]
    fn the_sites_of_a_deep_recursion_take_one_pass() {
        const LEVELS: u32 = 300_000;
        let level = |at: u32| {
            let parent = if at == 0 { StackId::ROOT } else { StackId(StackId::FIRST.0 + at - 1) };
            (parent, vec![frames()[usize::from(at > 0)].clone()])
        };
        let stacks = Stacks::from_tree((0..LEVELS).map(level));
        let outermost = stacks.site(StackId::FIRST);
        assert!((0..LEVELS).all(|at| stacks.site(StackId(StackId::FIRST.0 + at)) == outermost));
    }
}
