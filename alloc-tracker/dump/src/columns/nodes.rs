//! What both ends know of a frame's call tree nodes so far: the part of the tree that the frame
//! defines, and which return address followed which. In: nodes. Out: predictions of the next node's
//! parent and return address.

/// The most steps from a stack to an ancestor.
pub(super) const MAX_STEPS_UP: u32 = 254;

/// A return address's position in [`KnownNodes::pcs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PcIndex(pub(super) u32);

impl PcIndex {
    /// Stands for the return address of a node that is not known here. Its address is 0.
    const UNKNOWN: PcIndex = PcIndex(0);
}

#[derive(Clone, Copy, Debug)]
struct KnownNode {
    parent: u32,
    pc: PcIndex,
}

#[derive(Clone, Copy, Debug)]
struct KnownPc {
    addr: u64,
    /// The return address that was last defined below this one.
    child: PcIndex,
}

/// Nodes with consecutive ids, and all return addresses of the frame.
#[derive(Debug)]
pub(super) struct KnownNodes {
    /// The id of the first of `nodes`.
    first: u32,
    nodes: Vec<KnownNode>,
    pcs: Vec<KnownPc>,
    /// The id of the node that was defined last; 0 before the first.
    pub(super) last: u32,
    /// Whether no event has used a stack since the last node was defined.
    last_is_unused: bool,
}

impl KnownNodes {
    pub(super) fn new() -> KnownNodes {
        let mut nodes =
            KnownNodes { first: 0, nodes: Vec::new(), pcs: Vec::new(), last: 0, last_is_unused: false };
        nodes.clear();
        nodes
    }

    /// Forgets everything, for the next frame.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.pcs.clear();
        // See `PcIndex::UNKNOWN`.
        self.pcs.push(KnownPc { addr: 0, child: PcIndex::UNKNOWN });
        (self.first, self.last, self.last_is_unused) = (0, 0, false);
    }

    /// The newest node, if no event has used a stack since.
    #[inline]
    pub(super) fn just_defined(&self) -> Option<u32> {
        self.last_is_unused.then_some(self.last)
    }

    /// Notes that an event has used a stack.
    #[inline]
    pub(super) fn note_stack_used(&mut self) {
        self.last_is_unused = false;
    }

    /// The ancestor `steps` above a node. `None` if a node on the path is not known here.
    pub(super) fn ancestor(&self, mut node: u32, steps: u32) -> Option<u32> {
        for _ in 0..steps {
            node = self.find(node)?.parent;
        }
        Some(node)
    }

    /// How many steps lead from a node up to this ancestor, if known nodes and at most
    /// [`MAX_STEPS_UP`] steps do.
    pub(super) fn steps_to(&self, mut node: u32, ancestor: u32) -> Option<u32> {
        for steps in 0..=MAX_STEPS_UP {
            if node == ancestor {
                return Some(steps);
            }
            node = self.find(node)?.parent;
        }
        None
    }

    /// The index of a node's return address; [`PcIndex::UNKNOWN`] if the node is not known here.
    pub(super) fn pc_of(&self, node: u32) -> PcIndex {
        self.find(node).map_or(PcIndex::UNKNOWN, |node| node.pc)
    }

    /// The return address that is predicted below another; [`PcIndex::UNKNOWN`] if none was seen
    /// there.
    pub(super) fn expected_below(&self, pc: PcIndex) -> PcIndex {
        self.pcs[pc.0 as usize].child
    }

    /// How many return addresses have an index.
    pub(super) fn pc_count(&self) -> u32 {
        self.pcs.len() as u32
    }

    /// The return address with this index.
    pub(super) fn addr(&self, pc: PcIndex) -> u64 {
        self.pcs[pc.0 as usize].addr
    }

    pub(super) fn add_pc(&mut self, addr: u64) -> PcIndex {
        self.pcs.push(KnownPc { addr, child: PcIndex::UNKNOWN });
        PcIndex(self.pc_count() - 1)
    }

    /// Adds a node below one whose return address is `above`. A node whose id is not the next one
    /// begins the known part of the tree anew.
    pub(super) fn define(&mut self, id: u32, parent: u32, above: PcIndex, pc: PcIndex) {
        if u64::from(id) != u64::from(self.first) + self.nodes.len() as u64 {
            self.first = id;
            self.nodes.clear();
        }
        self.pcs[above.0 as usize].child = pc;
        self.nodes.push(KnownNode { parent, pc });
        (self.last, self.last_is_unused) = (id, true);
    }

    fn find(&self, node: u32) -> Option<&KnownNode> {
        self.nodes.get(node.checked_sub(self.first)? as usize)
    }
}
