//! Stacks with names: a [`Profile`] and the symbols of its modules in, a list of frames for every node of the call tree
//! out. Each distinct frame is kept once. Pure, but for the symbolizer that it asks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::names::function_name::{function_of, instance_of};
use crate::names::symbolize::classify::is_runtime;
use crate::names::symbolize::{
    CodeAddress, Frame, ModuleSpec, ModuleStatus, Modules, Options, SymbolizeError,
};
use crate::profile::{Module, Profile};

/// Index of a distinct frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(u32);

impl FrameId {
    /// Its place among [`Stacks::all_frames`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A frame as analyses see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedFrame {
    /// The function, demangled.
    pub function: Arc<str>,
    /// Its source file, if known.
    pub file: Option<Arc<str>>,
    /// The line of the call or allocation, if known.
    pub line: Option<u32>,
    /// Whether its code was inlined into the next frame outwards.
    pub inlined: bool,
    /// Whether it belongs to the runtime (allocator, `alloc`, `core`, `std`, this project) and not to the user's code.
    pub runtime: bool,
    /// File name of the module.
    pub module: Arc<str>,
}

/// The frames of every stack of a profile.
#[derive(Debug, Default)]
pub struct Stacks {
    frames: Vec<NamedFrame>,
    /// Frames of each distinct address, innermost first: a range of `lists`.
    lists: Vec<FrameId>,
    by_node: Vec<(u32, u32)>,
    parents: Vec<StackId>,
    /// Distinct code addresses that have no name.
    pub unresolved: u64,
    /// What a person should know about the symbols: one line each.
    pub hints: Vec<String>,
}

/// A step through the call tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// To a node from the one that calls it.
    Enter(StackId),
    /// Back from a node, all of whose callees have been left.
    Leave(StackId),
}

/// Not the number of a node.
const NO_NODE: u32 = u32::MAX;

/// Why stacks cannot be named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StacksError {
    /// The program was built anew since.
    #[error("{0}")]
    WrongBuild(ModuleStatus),
    /// See [`SymbolizeError`].
    #[error(transparent)]
    Symbolize(#[from] SymbolizeError),
}

impl Stacks {
    /// Looks all code addresses of the profile up.
    ///
    /// # Errors
    /// If the recorded program is there, but in another build: every name would be wrong. For libraries that is a hint.
    pub fn resolve(
        profile: &Profile,
        options: Options,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Stacks, StacksError> {
        let specs: Vec<ModuleSpec> = profile
            .modules
            .iter()
            .map(|module| ModuleSpec { path: module.path.clone(), build_id: module.build_id.clone() })
            .collect();
        let name_instances = options.name_instances;
        let modules = Modules::open(&specs, options)?;
        for (index, module) in profile.modules.iter().enumerate() {
            if let Some(status @ ModuleStatus::WrongBuild { .. }) = modules.problem(index)
                && module.path == profile.process.exe
            {
                return Err(StacksError::WrongBuild(status.clone()));
            }
        }
        let addresses = addresses(profile, &modules);
        let mut wanted = vec![Vec::new(); specs.len()];
        for (module, address) in addresses.iter().flatten() {
            wanted[*module as usize].push(*address);
        }
        for list in &mut wanted {
            list.sort_unstable();
            list.dedup();
        }
        let symbols = modules.symbolize(&wanted, progress)?;
        let mut stacks = Stacks::default();
        let mut builder = Builder { name_instances, ..Builder::default() };
        for (at, (node, address)) in profile.nodes.iter().zip(&addresses).enumerate() {
            let range = match *address {
                // The roots have no frame of their own.
                _ if at < StackId::FIRST.0 as usize => (0, 0),
                Some((module, address)) => builder.list(&mut stacks, (module, address), || {
                    let path = profile.modules[module as usize].path.to_string_lossy();
                    (symbols.frames(module as usize, address).to_vec(), path.into_owned())
                }),
                None => builder.list(&mut stacks, (u32::MAX, CodeAddress::exact(node.pc)), || {
                    (vec![nameless(node.pc)], String::new())
                }),
            };
            stacks.by_node.push(range);
            stacks.parents.push(node.parent);
        }
        stacks.hints = symbols.warnings().to_vec();
        for (index, module) in profile.modules.iter().enumerate() {
            let main = module.path == profile.process.exe;
            match symbols.status(index) {
                status @ (ModuleStatus::SymbolTableOnly { .. } | ModuleStatus::NoSymbols { .. }) if main => {
                    stacks.hints.push(status.to_string());
                }
                status @ ModuleStatus::Missing { .. } if main => stacks.hints.push(status.to_string()),
                status @ (ModuleStatus::WrongBuild { .. } | ModuleStatus::DamagedDebugInfo { .. }) => {
                    stacks.hints.push(status.to_string());
                }
                _ => {}
            }
            if !wanted[index].is_empty()
                && symbols.status(index).is_trusted()
                && may_be_another_build(module, profile.process.started_unix_ns)
            {
                let path = module.path.display();
                stacks.hints.push(format!(
                    "{path} has no build-id and was written after the recording began: if it was rebuilt, names and \
                     lines are wrong; link it with -Wl,--build-id, and record a new dump"
                ));
            }
        }
        Ok(stacks)
    }

    /// The frames of a stack, innermost first, inlined ones included.
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

    /// Nodes of the call tree, the roots included.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// The node that calls this one, whose number is smaller; `None` for the roots.
    pub fn parent(&self, node: StackId) -> Option<StackId> {
        self.parents.get(node.0 as usize).copied().filter(|_| node >= StackId::FIRST)
    }

    /// For every node whether its stack has such a frame.
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

    /// The frames of one node of the call tree, innermost first: those that its address has, with what is inlined there.
    pub fn frames_of_node(&self, node: StackId) -> &[FrameId] {
        let range = self.by_node.get(node.0 as usize);
        range.and_then(|(start, end)| self.lists.get(*start as usize..*end as usize)).unwrap_or_default()
    }

    /// Goes through the call tree: every node is entered before those that it calls, and left behind them.
    pub fn traverse(&self, mut visit: impl FnMut(Visit)) {
        let nodes = self.parents.len();
        let mut first_called = vec![NO_NODE; nodes];
        let mut next_sibling = vec![NO_NODE; nodes];
        let is_root = |at: usize| at < StackId::FIRST.0 as usize;
        // Backwards, so that those of one caller are in the order of their numbers.
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
                    visit(Visit::Enter(StackId(entering)));
                    entered.push(entering);
                    entering = first_called[entering as usize];
                }
                let Some(leaving) = entered.pop() else { break };
                visit(Visit::Leave(StackId(leaving)));
                entering = next_sibling[leaving as usize];
            }
        }
    }

    /// What a frame is.
    pub fn frame(&self, id: FrameId) -> &NamedFrame {
        &self.frames[id.0 as usize]
    }

    /// All distinct frames.
    pub fn all_frames(&self) -> impl Iterator<Item = &NamedFrame> {
        self.frames.iter()
    }

    /// The site of a stack: its innermost frame that is the user's own code. For a stack that has none, as those from
    /// before `main`: its innermost frame that is not part of allocating as such.
    pub fn site(&self, stack: StackId) -> Option<FrameId> {
        let find = |fits: fn(&NamedFrame) -> bool| self.frames(stack).find(|id| fits(self.frame(*id)));
        find(|frame| !frame.runtime).or_else(|| find(|frame| !is_plumbing(frame))).or_else(|| find(|_| true))
    }

    /// Stacks made by hand: for each stack, from [`StackId::FIRST`] on, its frames, innermost first.
    pub fn from_frames(stacks: &[Vec<NamedFrame>]) -> Stacks {
        Stacks::from_tree(stacks.iter().map(|frames| (StackId::ROOT, frames.clone())))
    }

    /// A call tree made by hand: for each node, from [`StackId::FIRST`] on, its caller's one, which comes before it or is a root, and
    /// its own frames, innermost first.
    pub fn from_tree(nodes: impl IntoIterator<Item = (StackId, Vec<NamedFrame>)>) -> Stacks {
        let mut made = Stacks::default();
        let mut builder = Builder::default();
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
        made
    }
}

/// Interns frames and lists of frames while stacks are being built.
#[derive(Default)]
struct Builder {
    name_instances: bool,
    known: HashMap<NamedFrame, FrameId>,
    lists: HashMap<(u32, CodeAddress), (u32, u32)>,
}

impl Builder {
    fn list(
        &mut self,
        stacks: &mut Stacks,
        key: (u32, CodeAddress),
        look_up: impl FnOnce() -> (Vec<Frame>, String),
    ) -> (u32, u32) {
        if let Some(range) = self.lists.get(&key) {
            return *range;
        }
        let (frames, module_path) = look_up();
        let module: Arc<str> = module_path.rsplit('/').next().unwrap_or_default().into();
        stacks.unresolved += u64::from(frames.iter().any(|frame| !frame.resolved));
        let start = stacks.lists.len() as u32;
        for frame in frames {
            let runtime = is_runtime(&frame.function, frame.file.as_deref(), &module_path);
            let Frame { function, generics, file, line, inlined, .. } = frame;
            let (outer, closure) = function.split_at(instance_of(&function).len());
            // The symbols of some name their types already, such as `drop_in_place<T>`.
            let generics = generics.filter(|_| self.name_instances && function_of(outer) == outer);
            let function = match generics {
                Some(generics) => format!("{outer}::{generics}{closure}").into(),
                None => function,
            };
            let id = self.intern(
                stacks,
                NamedFrame { function, file, line, inlined, runtime, module: module.clone() },
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

/// Whether a frame of the runtime is about allocating as such and says nothing about what for.
fn is_plumbing(frame: &NamedFrame) -> bool {
    let allocating =
        ["alloc", "core", "alloc_tracker", "alloc_oracle", "__rustc", "__rust_alloc", "hashbrown"];
    frame.runtime && allocating.contains(&crate::names::function_name::crate_of(&frame.function))
}

/// Module and address of every node; `None` for code outside of any file. Nodes are return addresses, but for a signal
/// handler's way back and for the frame that the signal interrupted.
fn addresses(profile: &Profile, modules: &Modules) -> Vec<Option<(u32, CodeAddress)>> {
    let place = |at: usize| {
        let node = &profile.nodes[at];
        let module = node.module.filter(|module| (*module as usize) < profile.modules.len())?;
        Some((module, node.pc.wrapping_sub(profile.modules[module as usize].bias)))
    };
    let mut exact = vec![false; profile.nodes.len()];
    let mut trampolines = HashMap::default();
    for at in StackId::FIRST.0 as usize..profile.nodes.len() {
        let Some((module, address)) = place(at) else { continue };
        let is_trampoline = *trampolines
            .entry((module, address))
            .or_insert_with(|| modules.is_signal_trampoline(module as usize, address));
        if is_trampoline {
            exact[at] = true;
            exact[profile.nodes[at].parent.0 as usize] = true;
        }
    }
    let address_of = |at: usize| {
        let (module, address) = place(at)?;
        let code =
            if exact[at] { CodeAddress::exact(address) } else { CodeAddress::from_return_address(address) };
        Some((module, code))
    };
    (0..profile.nodes.len()).map(address_of).collect()
}

/// Whether nothing but its time tells that a module's file is the one that ran, and that does not. A copy is newer as well.
fn may_be_another_build(module: &Module, started_unix_ns: u64) -> bool {
    let started = SystemTime::UNIX_EPOCH + Duration::from_nanos(started_unix_ns);
    let written = || std::fs::metadata(&module.path).and_then(|metadata| metadata.modified());
    module.build_id.is_empty() && written().is_ok_and(|written| written > started)
}

fn nameless(pc: u64) -> Frame {
    let function = format!("{pc:#x}").into();
    Frame { function, generics: None, file: None, line: None, column: None, inlined: false, resolved: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::CallNode;

    #[test]
    fn the_call_tree_is_gone_through_from_callers_to_callees() {
        // 3 calls 4 and 6, 4 calls 5; 7 hangs under the root of stacks that were cut.
        let parents = [0, 0, 0, 0, 3, 4, 3, StackId::TRUNCATED.0].map(StackId).to_vec();
        let stacks = Stacks { parents, ..Stacks::default() };
        let (mut entered, mut steps) = (Vec::new(), Vec::new());
        stacks.traverse(|step| match step {
            Visit::Enter(node) => {
                assert_eq!(stacks.parents[node.0 as usize].0.max(2), entered.last().copied().unwrap_or(2));
                entered.push(node.0);
                steps.push(node.0 as i32);
            }
            Visit::Leave(node) => {
                assert_eq!(entered.pop(), Some(node.0));
                steps.push(-(node.0 as i32));
            }
        });
        assert_eq!(steps, [3, 4, 5, -5, -4, 6, -6, -3, 7, -7]);
    }

    #[test]
    fn a_file_that_nothing_identifies_is_doubted_if_it_is_newer_than_the_recording() {
        let path = std::env::current_exe().expect("a test has a path");
        let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a file");
        let written = written.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_nanos() as u64;
        let hints = |build_id: &[u8], started_unix_ns: u64, module: Option<u32>| {
            let file =
                Module { path: path.clone(), build_id: build_id.to_vec(), bias: 0, start: 0, end: 1 << 30 };
            let mut profile = Profile { modules: vec![file], ..Profile::default() };
            profile.process.started_unix_ns = started_unix_ns;
            profile.nodes = vec![CallNode::default(); StackId::FIRST.0 as usize];
            profile.nodes.push(CallNode { pc: 0x1000, module, ..CallNode::default() });
            Stacks::resolve(&profile, Options::default(), &|_, _| {}).expect("no wrong build").hints
        };
        let doubt = |hints: Vec<String>| hints.iter().any(|hint| hint.contains("if it was rebuilt"));
        assert!(doubt(hints(&[], written - 1, Some(0))));
        assert!(!doubt(hints(&[], written, Some(0))), "it was there when the recording began");
        assert!(!doubt(hints(&[7; 20], written - 1, Some(0))), "another build-id is another hint");
        assert!(!doubt(hints(&[], written - 1, None)), "no stack is in it");
    }
}
