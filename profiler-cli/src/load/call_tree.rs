//! The call tree of a dump, and the module of each of its nodes. In: records of nodes and modules.
//! Out: one [`CallNode`] for each [`StackId`].
//!
//! Nothing in the file is trusted. The table of nodes never grows beyond the number of nodes whose
//! records the file can hold, so a forged id cannot exhaust the memory.

use std::collections::BTreeSet;

use alloc_dump::layout::StackId;
use alloc_dump::record;

use super::modules::ModuleMap;
use crate::profile::{CallNode, Module};

/// All nodes so far, at the index of their id.
#[derive(Clone, Debug, Default)]
pub(super) struct CallTree {
    nodes: Vec<CallNode>,
    modules: ModuleMap,
    /// Return address and id of each node that no known module covers.
    nodes_without_module: BTreeSet<(u64, u32)>,
    /// The most nodes whose records can have been in the bytes that the reader could not use.
    missing_nodes: u64,
    /// Number of nodes in all gaps between ids that were accepted so far.
    excused_nodes: u64,
    contradictions: u64,
}

impl CallTree {
    /// Returns the number of nodes, the named roots of [`StackId`] included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the stack if the tree has it, else [`StackId::NONE`].
    #[inline]
    pub(super) fn known(&self, stack: StackId) -> StackId {
        if (stack.0 as usize) < self.nodes.len() { stack } else { StackId::NONE }
    }

    /// Takes the number of bytes that the reader could not use so far. Records of nodes may have
    /// been in them, so that many nodes may be missing.
    pub(super) fn set_dropped_bytes(&mut self, bytes: u64) {
        self.missing_nodes = bytes / MIN_NODE_BYTES;
    }

    /// Grows the table to this many nodes. A node without a record stays unknown.
    pub(super) fn grow_to(&mut self, nodes: usize) {
        let unknown = CallNode { parent: StackId::NONE, pc: 0, module: None, truncated: false };
        self.nodes.resize(nodes, unknown);
    }

    /// Adds a node, or counts a contradiction.
    pub(super) fn add_node(&mut self, id: StackId, parent: StackId, pc: u64) {
        // A recorder numbers its nodes one after the other. A gap is plausible only if the reader
        // has dropped enough bytes for the records of all nodes in it.
        let next = self.nodes.len() as u64;
        let missing = self.missing_nodes.saturating_sub(self.excused_nodes);
        let is_sound = parent < id && id >= StackId::FIRST && u64::from(id.0) <= next + missing;
        if !is_sound {
            self.contradictions += 1;
            return;
        }
        let at = id.0 as usize;
        if at >= self.nodes.len() {
            // The same lost bytes cannot explain two gaps.
            self.excused_nodes += u64::from(id.0) - next;
            self.grow_to(at + 1);
        }
        let parent = self.known(parent);
        let truncated = parent == StackId::TRUNCATED || self.nodes[parent.0 as usize].truncated;
        let module = self.modules.find(pc);
        self.nodes[at] = CallNode { parent, pc, module, truncated };
        if module.is_none() {
            self.nodes_without_module.insert((pc, id.0));
        }
    }

    /// Adds a module that was mapped. Records of its nodes may come before its own record, so every
    /// node without a module whose return address is in its range gets this module.
    pub(super) fn add_module(&mut self, module: &record::Module<'_>) {
        let index = self.modules.add(module);
        let range = (module.start, 0)..(module.end.max(module.start), 0);
        let covered: Vec<(u64, u32)> = self.nodes_without_module.range(range).copied().collect();
        for node in covered {
            self.nodes_without_module.remove(&node);
            self.nodes[node.1 as usize].module = Some(index);
        }
    }

    /// Returns the module with this number.
    pub(super) fn module(&mut self, id: u32) -> Option<&mut Module> {
        self.modules.by_id(id)
    }

    /// Removes the module with this number, which was unmapped.
    pub(super) fn remove_module(&mut self, id: u32) {
        self.modules.remove(id);
    }

    /// Returns the nodes, the modules, and the number of nodes that contradict the tree.
    pub(super) fn finish(self) -> (Vec<CallNode>, Vec<Module>, u64) {
        (self.nodes, self.modules.into_all(), self.contradictions)
    }
}

/// The fewest bytes that the record of a node takes: it has a tag and three numbers, and even
/// compressed it is seldom shorter than one byte.
const MIN_NODE_BYTES: u64 = 1;
