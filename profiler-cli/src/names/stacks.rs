//! Stacks with names.
//!
//! In: a [`Profile`] and the files of its modules. Out: for every node of the call tree a list of
//! named frames. Each distinct frame is kept once. Only the symbolizer reads files.

mod allocator_part;
mod sites;

use std::sync::{Arc, OnceLock};

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::names::code_owner::{self, CodeOwner};
use crate::names::function_name::{function_of, instance_of};
use crate::names::hints::hints;
use crate::names::own_crates::is_allocating_crate;
use crate::names::rust_path::crate_of;
use crate::names::symbolize::classify::is_runtime;
use crate::names::symbolize::{
    CodeAddress, KeptNames, ModuleSpec, Modules, SymbolFrame, SymbolizeError, SymbolizeOptions,
};
use crate::profile::{Module, Profile};

/// Index of a distinct frame in [`Stacks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(u32);

impl FrameId {
    /// Returns the position of the frame in [`Stacks::all_frames`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A stack frame with its name, as analyses see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedFrame {
    /// The function, demangled.
    pub function: Arc<str>,
    /// Its source file, if known.
    pub file: Option<Arc<str>>,
    /// The line of the call or allocation, if known.
    pub line: Option<u32>,
    /// Whether the function was inlined into the next frame towards the root.
    pub is_inlined: bool,
    /// Whose code the function is. A function of the user's that the allocator has called counts as
    /// the runtime's.
    pub owner: CodeOwner,
    /// File name of the module, without its folder.
    pub module: Arc<str>,
}

impl NamedFrame {
    /// Whether the function belongs to the runtime.
    pub fn is_runtime(&self) -> bool {
        self.owner == CodeOwner::Runtime
    }

    /// Whether the function is the user's own code.
    pub fn is_own(&self) -> bool {
        self.owner == CodeOwner::Own
    }
}

/// The frames of every stack of a profile.
#[derive(Debug, Default)]
pub struct Stacks {
    frames: Vec<NamedFrame>,
    /// The frames of all distinct addresses, one address after the other, each from leaf to root.
    lists: Vec<FrameId>,
    /// For each node the range of `lists` with the frames of its address: start and end.
    by_node: Vec<(u32, u32)>,
    /// For each node the node that calls it.
    parents: Vec<StackId>,
    /// For each stack with a function of the user's inside of the allocator: the number of its
    /// innermost frames that are the allocator's.
    users_allocators: HashMap<StackId, usize>,
    /// For each node the site of its stack; found when the first site is asked for.
    sites: OnceLock<Vec<Option<FrameId>>>,
    /// Number of distinct code addresses that have no name.
    pub unresolved: u64,
    /// Hints for a person about missing or doubtful symbols, one line each.
    pub hints: Vec<String>,
}

/// One step of the traversal of the call tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeStep {
    /// From a node to a node that it calls.
    Enter(StackId),
    /// Back from a node to its caller, after all nodes that it calls were left.
    Leave(StackId),
}

/// Stands for no node in the tables of [`Stacks::traverse`].
const NO_NODE: u32 = u32::MAX;

impl Stacks {
    /// Looks up all code addresses of the profile. An address for which nothing has a name is
    /// printed as a number, and a hint says what is missing.
    ///
    /// # Errors
    /// See [`SymbolizeError`]. Another build of the recorded program is no error.
    pub fn resolve(
        profile: &Profile,
        options: SymbolizeOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Stacks, SymbolizeError> {
        let (name_instances, own_crates) = (options.name_instances, options.own_crates.clone());
        let modules = open_modules(profile, options)?;
        let addresses = node_addresses(profile, &modules);
        let wanted = addresses_by_module(&addresses, profile.modules.len());
        let symbols = modules.symbolize(&wanted, progress)?;
        let mut stacks = Stacks::default();
        let mut builder = StackBuilder { name_instances, ..StackBuilder::default() };
        for (at, (node, address)) in profile.nodes.iter().zip(&addresses).enumerate() {
            let range = match *address {
                // The roots have no frame of their own.
                _ if at < StackId::FIRST.0 as usize => (0, 0),
                Some((module, address)) => builder.frames_of_address(&mut stacks, (module, address), || {
                    let path = profile.modules[module as usize].path.to_string_lossy();
                    (symbols.frames(module as usize, address).to_vec(), path.into_owned())
                }),
                None => {
                    builder.frames_of_address(&mut stacks, (u32::MAX, CodeAddress::exact(node.pc)), || {
                        (vec![unresolved_frame(node.pc)], String::new())
                    })
                }
            };
            stacks.by_node.push(range);
            stacks.parents.push(node.parent);
        }
        allocator_part::hide_users_allocators(&mut stacks, &mut builder);
        code_owner::assign(&mut stacks.frames, &profile.process.exe, &own_crates);
        stacks.hints = hints(profile, &modules, &symbols, &wanted);
        Ok(stacks)
    }

    /// Returns the frames of a stack from leaf to root, with inlined functions.
    pub fn frames(&self, stack: StackId) -> impl Iterator<Item = FrameId> + Clone {
        let mut next = stack;
        std::iter::from_fn(move || {
            let at = next;
            if at < StackId::FIRST {
                return None;
            }
            let (start, end) = *self.by_node.get(at.0 as usize)?;
            next = self.parents[at.0 as usize];
            Some(self.lists[start as usize..end as usize].iter().copied())
        })
        .flatten()
    }

    /// Returns the number of nodes in the call tree, including the roots.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether the call tree has no nodes at all.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// Returns the node that calls `node`; `None` for the roots. A caller's number is always
    /// smaller than the number of the node that it calls.
    pub fn parent(&self, node: StackId) -> Option<StackId> {
        self.parents.get(node.0 as usize).copied().filter(|_| node >= StackId::FIRST)
    }

    /// Returns for every node whether its stack has a wanted frame.
    pub fn with_frame(&self, wanted: impl Fn(&NamedFrame) -> bool) -> Vec<bool> {
        let wanted: Vec<bool> = self.frames.iter().map(wanted).collect();
        let mut found = vec![false; self.len()];
        for at in 0..self.len() {
            let node = StackId(at as u32);
            found[at] = self.frames_of_node(node).iter().any(|frame| wanted[frame.index()])
                || self.parent(node).is_some_and(|parent| found[parent.0 as usize]);
        }
        found
    }

    /// Returns the frames of one node, innermost first: the functions inlined at its address, then
    /// the function that contains the address.
    pub fn frames_of_node(&self, node: StackId) -> &[FrameId] {
        let range = self.by_node.get(node.0 as usize);
        range.and_then(|(start, end)| self.lists.get(*start as usize..*end as usize)).unwrap_or_default()
    }

    /// Visits the whole call tree: every node is entered before the nodes that it calls, and left
    /// after them.
    pub fn traverse(&self, mut visit: impl FnMut(TreeStep)) {
        let nodes = self.parents.len();
        let mut first_called = vec![NO_NODE; nodes];
        let mut next_sibling = vec![NO_NODE; nodes];
        let is_root = |at: usize| at < StackId::FIRST.0 as usize;
        // Backwards, so that the nodes of one caller end up in the order of their numbers.
        for at in (0..nodes).rev().filter(|at| !is_root(*at)) {
            let caller = self.parents[at].0 as usize;
            // A child's number is larger than its parent's.
            next_sibling[at] = std::mem::replace(&mut first_called[caller], at as u32);
        }
        for root in (0..nodes).take_while(|at| is_root(*at)) {
            let mut entering = first_called[root];
            let mut entered: Vec<u32> = Vec::new();
            loop {
                while entering != NO_NODE {
                    visit(TreeStep::Enter(StackId(entering)));
                    entered.push(entering);
                    entering = first_called[entering as usize];
                }
                let Some(leaving) = entered.pop() else { break };
                visit(TreeStep::Leave(StackId(leaving)));
                entering = next_sibling[leaving as usize];
            }
        }
    }

    /// Returns the frame with this index.
    pub fn frame(&self, id: FrameId) -> &NamedFrame {
        &self.frames[id.0 as usize]
    }

    /// Returns all distinct frames, in the order of their indices.
    pub fn all_frames(&self) -> impl Iterator<Item = &NamedFrame> {
        self.frames.iter()
    }

    /// Returns the site of a stack: its innermost frame that is the user's own code.
    ///
    /// A stack without own code has another site: the innermost frame of a dependency. A stack of
    /// the runtime alone, such as one from before `main`, has as its site the innermost frame that
    /// does more than allocate for its caller, or else the innermost frame.
    pub fn site(&self, stack: StackId) -> Option<FrameId> {
        *self.sites.get_or_init(|| sites::sites_of(self)).get(stack.0 as usize)?
    }

    /// Returns for every stack its innermost frame that is not the runtime's, if it has one.
    pub fn allocating_frames(&self) -> Vec<Option<FrameId>> {
        let mut found: Vec<Option<FrameId>> = vec![None; self.len()];
        for at in StackId::FIRST.0 as usize..self.len() {
            let frames = self.frames_of_node(StackId(at as u32)).iter().copied();
            // A caller's number is smaller, so its frame is known already.
            let of_caller = found[self.parents[at].0 as usize];
            found[at] = frames.into_iter().find(|id| !self.frame(*id).is_runtime()).or(of_caller);
        }
        found
    }

    /// Makes stacks for tests: `stacks[0]` becomes the stack [`StackId::FIRST`]. Frames are from
    /// leaf to root.
    pub fn from_frames(stacks: &[Vec<NamedFrame>]) -> Stacks {
        Stacks::from_tree(stacks.iter().map(|frames| (StackId::ROOT, frames.clone())))
    }

    /// Makes a call tree for tests. The first node is [`StackId::FIRST`]. Each node has its parent,
    /// which is an earlier node or a root, and its own frames, innermost first.
    pub fn from_tree(nodes: impl IntoIterator<Item = (StackId, Vec<NamedFrame>)>) -> Stacks {
        let mut made = Stacks::default();
        let mut builder = StackBuilder::default();
        made.by_node = vec![(0, 0); StackId::FIRST.0 as usize];
        made.parents = vec![StackId::ROOT; StackId::FIRST.0 as usize];
        for (parent, frames) in nodes {
            let start = made.lists.len() as u32;
            for frame in frames {
                let id = builder.intern(&mut made, frame);
                made.lists.push(id);
            }
            made.by_node.push((start, made.lists.len() as u32));
            made.parents.push(parent);
        }
        allocator_part::hide_users_allocators(&mut made, &mut builder);
        made
    }
}

/// Interns frames and lists of frames while [`Stacks`] are built.
#[derive(Default)]
struct StackBuilder {
    name_instances: bool,
    known: HashMap<NamedFrame, FrameId>,
    lists: HashMap<(u32, CodeAddress), (u32, u32)>,
}

impl StackBuilder {
    /// Returns the range of `stacks.lists` with the frames of an address.
    fn frames_of_address(
        &mut self,
        stacks: &mut Stacks,
        key: (u32, CodeAddress),
        look_up: impl FnOnce() -> (Vec<SymbolFrame>, String),
    ) -> (u32, u32) {
        if let Some(range) = self.lists.get(&key) {
            return *range;
        }
        let (frames, module_path) = look_up();
        let module: Arc<str> = module_path.rsplit('/').next().unwrap_or_default().into();
        stacks.unresolved += u64::from(frames.iter().any(|frame| !frame.is_resolved));
        let start = stacks.lists.len() as u32;
        for frame in frames {
            let owner =
                CodeOwner::runtime_if(is_runtime(&frame.function, frame.file.as_deref(), &module_path));
            let SymbolFrame { function, generics, file, line, is_inlined, .. } = frame;
            let (outer, closure) = function.split_at(instance_of(&function).len());
            // Some symbols name their types already, such as `drop_in_place<T>`.
            let generics = generics.filter(|_| self.name_instances && function_of(outer) == outer);
            let function = match generics {
                Some(generics) => format!("{outer}::{generics}{closure}").into(),
                None => function,
            };
            let id = self.intern(
                stacks,
                NamedFrame { function, file, line, is_inlined, owner, module: module.clone() },
            );
            stacks.lists.push(id);
        }
        let range = (start, stacks.lists.len() as u32);
        self.lists.insert(key, range);
        range
    }

    fn intern(&mut self, stacks: &mut Stacks, frame: NamedFrame) -> FrameId {
        *self.known.entry(frame).or_insert_with_key(|frame| {
            stacks.frames.push(frame.clone());
            FrameId(stacks.frames.len() as u32 - 1)
        })
    }
}

/// Whether a frame belongs to the runtime and only allocates on behalf of its caller, so that it
/// does not tell what the memory is for.
fn only_allocates(frame: &NamedFrame) -> bool {
    let is_allocating = match crate_of(&frame.function) {
        Some(crate_name) => is_allocating_crate(crate_name),
        // With line tables alone, an inlined function has a short name without a path.
        None => matches!(frame.function.split('<').next(), Some("alloc" | "__rust_alloc")),
    };
    frame.is_runtime() && is_allocating
}

/// Finds the names that the dump has, and the files of the modules of which it has none.
pub(super) fn open_modules(profile: &Profile, options: SymbolizeOptions) -> Result<Modules, SymbolizeError> {
    let spec = |module: &Module| ModuleSpec {
        path: module.path.clone(),
        build_id: module.build_id.clone(),
        code: module.code,
    };
    let specs: Vec<ModuleSpec> = profile.modules.iter().map(spec).collect();
    let mut kept = KeptNames::of_dump(&profile.symbols);
    let kept: Vec<Arc<KeptNames>> =
        profile.modules.iter().map(|module| Arc::new(kept.remove(&module.id).unwrap_or_default())).collect();
    Modules::open_with_names(&specs, &kept, options)
}

/// Returns the distinct addresses of each module, in order.
pub(super) fn addresses_by_module(
    addresses: &[Option<(u32, CodeAddress)>],
    modules: usize,
) -> Vec<Vec<CodeAddress>> {
    let mut by_module = vec![Vec::new(); modules];
    for (module, address) in addresses.iter().flatten() {
        by_module[*module as usize].push(*address);
    }
    for list in &mut by_module {
        list.sort_unstable();
        list.dedup();
    }
    by_module
}

/// Returns the module and the address of every node; `None` for code outside any file.
///
/// Nodes hold return addresses, with two exceptions: the signal return trampoline, and the frame
/// that the signal interrupted. See [`CodeAddress`].
pub(super) fn node_addresses(profile: &Profile, modules: &Modules) -> Vec<Option<(u32, CodeAddress)>> {
    let module_address = |at: usize| {
        let node = &profile.nodes[at];
        let module = node.module.filter(|module| (*module as usize) < profile.modules.len())?;
        Some((module, node.pc.wrapping_sub(profile.modules[module as usize].bias)))
    };
    let mut exact = vec![false; profile.nodes.len()];
    let mut trampolines = HashMap::default();
    for at in StackId::FIRST.0 as usize..profile.nodes.len() {
        let Some((module, address)) = module_address(at) else { continue };
        let is_trampoline = *trampolines
            .entry((module, address))
            .or_insert_with(|| modules.is_signal_trampoline(module as usize, address));
        if is_trampoline {
            exact[at] = true;
            exact[profile.nodes[at].parent.0 as usize] = true;
        }
    }
    let address_of = |at: usize| {
        let (module, address) = module_address(at)?;
        let code =
            if exact[at] { CodeAddress::exact(address) } else { CodeAddress::from_return_address(address) };
        Some((module, code))
    };
    (0..profile.nodes.len()).map(address_of).collect()
}

/// Returns the frame of code outside any file: its address is its name.
fn unresolved_frame(pc: u64) -> SymbolFrame {
    SymbolFrame::unresolved(format!("{pc:#x}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_tree_is_traversed_from_callers_to_callees() {
        // 3 calls 4 and 6, 4 calls 5; 7 is called by the root of truncated stacks.
        let parents = [0, 0, 0, 0, 3, 4, 3, StackId::TRUNCATED.0].map(StackId).to_vec();
        let stacks = Stacks { parents, ..Stacks::default() };
        let (mut entered, mut steps) = (Vec::new(), Vec::new());
        stacks.traverse(|step| match step {
            TreeStep::Enter(node) => {
                assert_eq!(stacks.parents[node.0 as usize].0.max(2), entered.last().copied().unwrap_or(2));
                entered.push(node.0);
                steps.push(node.0 as i32);
            }
            TreeStep::Leave(node) => {
                assert_eq!(entered.pop(), Some(node.0));
                steps.push(-(node.0 as i32));
            }
        });
        assert_eq!(steps, [3, 4, 5, -5, -4, 6, -6, -3, 7, -7]);
    }
}
