//! The call tree of a dump, and the module of each of its nodes. In: records of nodes and modules.
//! Out: one [`CallNode`] for each [`StackId`].
//!
//! Nothing in the file is trusted: a node makes no more room than its bytes in the file have paid
//! for.

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
    unplaced: BTreeSet<(u64, u32)>,
    /// Nodes that may have been in the bytes that the reader could not use: no more than these.
    missing_nodes: u64,
    /// Nodes that gaps in the ids have claimed to be missing.
    excused_nodes: u64,
    contradictions: u64,
}

impl CallTree {
    /// Number of nodes, the named roots of [`StackId`] included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the stack if the tree has it, else the one of events without a stack.
    #[inline]
    pub(super) fn known(&self, stack: StackId) -> StackId {
        if (stack.0 as usize) < self.nodes.len() { stack } else { StackId::NONE }
    }

    /// The reader could not use this many bytes so far. Records of nodes may have been in them.
    pub(super) fn set_dropped_bytes(&mut self, bytes: u64) {
        self.missing_nodes = bytes / MIN_NODE_BYTES;
    }

    /// Makes room for the nodes below this id. Their records may be missing.
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
            // Bytes that have excused one gap do not excuse another.
            self.excused_nodes += u64::from(id.0) - next;
            self.grow_to(at + 1);
        }
        let parent = self.known(parent);
        let truncated = parent == StackId::TRUNCATED || self.nodes[parent.0 as usize].truncated;
        let module = self.modules.find(pc);
        self.nodes[at] = CallNode { parent, pc, module, truncated };
        if module.is_none() {
            self.unplaced.insert((pc, id.0));
        }
    }

    /// A module was mapped. A node may come before the module that contains its return address.
    pub(super) fn add_module(&mut self, module: &record::Module<'_>) {
        let index = self.modules.add(module);
        let range = (module.start, 0)..(module.end.max(module.start), 0);
        let placed: Vec<(u64, u32)> = self.unplaced.range(range).copied().collect();
        for node in placed {
            self.unplaced.remove(&node);
            self.nodes[node.1 as usize].module = Some(index);
        }
    }

    /// The module with this number was unmapped.
    pub(super) fn remove_module(&mut self, id: u32) {
        self.modules.remove(id);
    }

    /// The nodes, the modules, and the number of nodes that contradict the tree.
    pub(super) fn finish(self) -> (Vec<CallNode>, Vec<Module>, u64) {
        (self.nodes, self.modules.into_all(), self.contradictions)
    }
}

/// The record of a node has a tag and three numbers. Compressed it seldom takes less than one byte.
const MIN_NODE_BYTES: u64 = 1;
