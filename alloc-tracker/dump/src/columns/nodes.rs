//! What both ends know of a frame's nodes so far: the tree as far as it was defined here, and which return address
//! followed which.

/// Steps from a stack to an ancestor at most.
pub(super) const MOST_UP: u32 = 254;

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// Number of its return address.
    pc: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pc {
    addr: u64,
    /// The number of the one that was defined below it last.
    child: u32,
}

/// Nodes whose numbers follow each other, and all return addresses of the frame.
#[derive(Debug)]
pub(super) struct Nodes {
    first: u32,
    nodes: Vec<Node>,
    pcs: Vec<Pc>,
    /// The last node; 0 before the first.
    pub(super) last: u32,
    unused: bool,
}

impl Nodes {
    pub(super) fn new() -> Nodes {
        let mut nodes = Nodes { first: 0, nodes: Vec::new(), pcs: Vec::new(), last: 0, unused: false };
        nodes.clear();
        nodes
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.pcs.clear();
        // Number 0 stands for the return address of a node that is not known here.
        self.pcs.push(Pc { addr: 0, child: 0 });
        (self.first, self.last, self.unused) = (0, 0, false);
    }

    /// The newest node, if no event has used a stack since.
    #[inline]
    pub(super) fn just_defined(&self) -> Option<u32> {
        self.unused.then_some(self.last)
    }

    /// An event has used a stack.
    #[inline]
    pub(super) fn used(&mut self) {
        self.unused = false;
    }

    /// The ancestor that so many steps lead to, through nodes that are known here.
    pub(super) fn ancestor(&self, mut node: u32, steps: u32) -> Option<u32> {
        for _ in 0..steps {
            node = self.find(node)?.parent;
        }
        Some(node)
    }

    /// How many steps lead from a node to this ancestor.
    pub(super) fn steps_to(&self, mut node: u32, ancestor: u32) -> Option<u32> {
        for steps in 0..=MOST_UP {
            if node == ancestor {
                return Some(steps);
            }
            node = self.find(node)?.parent;
        }
        None
    }

    /// The number of a node's return address; 0 if it is not known here.
    pub(super) fn pc_of(&self, node: u32) -> u32 {
        self.find(node).map_or(0, |node| node.pc)
    }

    /// The number of the return address that is expected below one; 0 for none.
    pub(super) fn expected_below(&self, pc: u32) -> u32 {
        self.pcs[pc as usize].child
    }

    /// How many return addresses are numbered.
    pub(super) fn pcs(&self) -> u32 {
        self.pcs.len() as u32
    }

    /// The return address with a number.
    pub(super) fn addr(&self, pc: u32) -> u64 {
        self.pcs[pc as usize].addr
    }

    pub(super) fn add_pc(&mut self, addr: u64) -> u32 {
        self.pcs.push(Pc { addr, child: 0 });
        self.pcs() - 1
    }

    /// Adds a node below one whose return address has the number `above`. One whose number does not follow begins the known tree anew.
    pub(super) fn define(&mut self, id: u32, parent: u32, above: u32, pc: u32) {
        if u64::from(id) != u64::from(self.first) + self.nodes.len() as u64 {
            self.first = id;
            self.nodes.clear();
        }
        self.pcs[above as usize].child = pc;
        self.nodes.push(Node { parent, pc });
        (self.last, self.unused) = (id, true);
    }

    fn find(&self, node: u32) -> Option<&Node> {
        self.nodes.get(node.checked_sub(self.first)? as usize)
    }
}
