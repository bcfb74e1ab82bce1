//! Stacks as reports show them: without frames of the runtime, and with the frames of dependencies
//! folded, unless the user asks for all frames.
//!
//! In: the call tree. Out: an id for each stack, and the frames of each id. Stacks that look alike
//! share one id.
//!
//! ```text
//! stack                         as shown
//! app::Cart::add                app::Cart::add
//! app::handle                   app::handle
//! tower::call                   … 3 frames of tokio, hyper, tower
//! hyper::poll
//! tokio::run
//! ```
//!
//! A recursion is folded, too: `walk walk walk main` becomes `walk (3 times) main`, and a cycle
//! of two to eight functions becomes one round of the cycle.
//!
//! PERF: the shown stacks are stored as a tree again. Lists of frames would take time and memory
//! quadratic in the depth of a recursion, because each of its stacks repeats all frames of the
//! stack before it.

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::names::code_owner::{CodeOwner, crate_of_frame};
use crate::names::stacks::{FrameId, Stacks};

/// Which frames of a stack a report leaves out or folds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Folding {
    /// Nothing: every frame is shown
    None,
    /// Frames of the runtime are left out, and a recursion is shown once
    Runtime,
    /// Also, frames of dependencies become one line for each run of them
    #[default]
    Dependencies,
}

/// Id of a stack as a report shows it: 0 for the empty stack, otherwise the index of a node plus 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ShownStackId(u32);

/// What stands for one line of a shown stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ShownFrame {
    /// A frame.
    Single(FrameId),
    /// Neighbouring frames of dependencies, by the index in [`ShownStacks::folds`].
    Folded(u32),
}

/// Neighbouring frames of dependencies that are shown as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fold {
    /// The outermost of the frames, if own code calls it: the function that the user called.
    pub(super) entry: Option<FrameId>,
    /// The crates of the frames by their indices in [`ShownStacks::crates`], in the order from the
    /// outermost frame inwards; at most [`MAX_CRATES`]. If own code calls the frames, those of all
    /// stacks on which it calls the same function.
    crates: Vec<u32>,
}

/// Number of frames that one shown frame stands for, over all stacks that share it: of a recursion
/// the number of calls, of a fold the number of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) fewest: u32,
    pub(super) most: u32,
}

/// All stacks that a report shows.
#[derive(Debug)]
pub(super) struct ShownStacks {
    nodes: Vec<ShownNode>,
    folds: Vec<Fold>,
    crates: Vec<String>,
    by_stack: Vec<ShownStackId>,
}

#[derive(Clone, Copy, Debug)]
struct ShownNode {
    /// The stack without its innermost frame.
    caller: ShownStackId,
    /// The innermost frame.
    frame: ShownFrame,
    times: Times,
    /// Whether the stack has a frame of the user's own code.
    has_own: bool,
    /// Number of shown frames.
    frames: u32,
    /// The outermost part of the stack, which stays if the middle of the stack is cut out.
    outer: ShownStackId,
}

/// The frames of a stack, innermost first, without those in the middle if there are too many. Each
/// with the number of frames that it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CutStack {
    /// The innermost frames, or all frames if none are left out.
    pub(super) inner: Vec<(ShownFrame, Times)>,
    /// Number of shown frames that are left out between the inner and the outer frames.
    pub(super) omitted: usize,
    /// The outermost frames; empty if no frame is left out.
    pub(super) outer: Vec<(ShownFrame, Times)>,
}

/// The stack without frames.
const EMPTY: ShownStackId = ShownStackId(0);
/// The most crates that a fold names.
const MAX_CRATES: usize = 4;
/// The most functions in a cycle that is folded as a recursion.
const LONGEST_CYCLE: usize = 8;

impl ShownStacks {
    /// Makes the stacks that `wanted` accepts. A stack without own frames has its
    /// [site](Stacks::site), and what is outside of the site; a stack of the runtime alone has
    /// only its site if dependencies are folded. When a stack is cut, it keeps this
    /// many of its `outermost` frames.
    pub(super) fn of(
        stacks: &Stacks,
        folding: Folding,
        outermost: u32,
        wanted: impl Fn(StackId) -> bool,
    ) -> ShownStacks {
        let mut builder = ShownStacksBuilder::new(stacks, folding, outermost);
        let wanted: Vec<StackId> =
            (0..stacks.len() as u32).map(StackId).filter(|stack| wanted(*stack)).collect();
        let on_path = needed(stacks, &wanted);
        let mut ends = vec![PathEnd::EMPTY; stacks.len()];
        // The id of a caller is smaller, so it is known already.
        for at in on_path.iter().enumerate().filter(|(_, needed)| **needed).map(|(at, _)| at) {
            let node = StackId(at as u32);
            let caller = stacks.parent(node).map_or(PathEnd::EMPTY, |parent| ends[parent.0 as usize]);
            let frames = stacks.frames_of_node(node).iter().rev();
            ends[at] = frames.fold(caller, |caller, frame| builder.push(caller, *frame));
        }
        // This must come after the loop above. That loop adds the own frames of a node to the shown
        // stack of its caller. If the caller already had the frames that are added here, they would
        // become part of the stacks of its callees.
        let mut by_stack = vec![EMPTY; stacks.len()];
        for at in &wanted {
            by_stack[at.0 as usize] = builder.finish(ends[at.0 as usize], stacks.site(*at));
        }
        let nameless: Vec<StackId> =
            wanted.into_iter().filter(|at| by_stack[at.0 as usize] == EMPTY).collect();
        if folding == Folding::Dependencies {
            // How the runtime gets to its own allocations helps nobody who folds dependencies.
            for at in nameless {
                if let Some(site) = stacks.site(at) {
                    let id = builder.intern(EMPTY, ShownFrame::Single(site));
                    builder.note_times(id, 1);
                    by_stack[at.0 as usize] = id;
                }
            }
        } else if !nameless.is_empty() {
            let whole = builder.whole_stacks(&nameless);
            for at in nameless {
                let mut id = whole[at.0 as usize];
                let site = stacks.site(at).map(ShownFrame::Single);
                while let Some(node) = builder.node(id).filter(|node| Some(node.frame) != site) {
                    id = node.caller;
                }
                by_stack[at.0 as usize] = id;
            }
        }
        ShownStacks { nodes: builder.nodes, folds: builder.folds, crates: builder.crates, by_stack }
    }

    /// Returns the shown stack of a wanted stack; the empty stack for any other stack.
    pub(super) fn stack(&self, stack: StackId) -> ShownStackId {
        self.by_stack.get(stack.0 as usize).copied().unwrap_or(EMPTY)
    }

    /// Returns the frames of a shown stack, innermost first, each with the number of frames that it
    /// stands for.
    pub(super) fn frames(&self, id: ShownStackId) -> impl Iterator<Item = (ShownFrame, Times)> {
        let mut next = id;
        std::iter::from_fn(move || {
            let node = self.node(next)?;
            next = node.caller;
            let Times { fewest, most } = node.times;
            Some((node.frame, Times { fewest: fewest.min(most), most }))
        })
    }

    /// Returns the frames of a shown stack. If there are too many, returns the given number of
    /// `innermost` frames, and the outermost part.
    pub(super) fn cut(&self, id: ShownStackId, innermost: usize) -> CutStack {
        let Some(node) = self.node(id) else { return CutStack::default() };
        let outer = self.node(node.outer).map_or(0, |outer| outer.frames as usize);
        match (node.frames as usize).checked_sub(innermost.saturating_add(outer)) {
            None | Some(0) => CutStack { inner: self.frames(id).collect(), omitted: 0, outer: Vec::new() },
            Some(omitted) => CutStack {
                inner: self.frames(id).take(innermost).collect(),
                omitted,
                outer: self.frames(node.outer).collect(),
            },
        }
    }

    /// Returns a fold.
    pub(super) fn fold(&self, index: u32) -> &Fold {
        &self.folds[index as usize]
    }

    /// Returns the names of the crates of a fold, from the outermost frame inwards. If there are
    /// too many, the rest is left out.
    pub(super) fn crates_of(&self, fold: &Fold) -> Vec<String> {
        fold.crates.iter().map(|index| self.crates[*index as usize].clone()).collect()
    }

    fn node(&self, id: ShownStackId) -> Option<&ShownNode> {
        self.nodes.get((id.0 as usize).checked_sub(1)?)
    }
}

/// Returns for each node whether it is on one of these stacks.
fn needed(stacks: &Stacks, wanted: &[StackId]) -> Vec<bool> {
    let mut needed = vec![false; stacks.len()];
    wanted.iter().for_each(|stack| needed[stack.0 as usize] = true);
    for at in (0..stacks.len()).rev() {
        if needed[at]
            && let Some(parent) = stacks.parent(StackId(at as u32))
        {
            needed[parent.0 as usize] = true;
        }
    }
    needed
}

/// The innermost end of a stack while it is built.
#[derive(Clone, Copy, Debug)]
struct PathEnd {
    id: ShownStackId,
    /// Number of frames that the innermost shown frame stands for on this stack.
    times: u32,
    /// The frame at which a cycle of several functions was closed last, and how often.
    cycle: (ShownStackId, u32),
}

impl PathEnd {
    const EMPTY: PathEnd = PathEnd { id: EMPTY, times: 0, cycle: (EMPTY, 0) };
}

struct ShownStacksBuilder<'a> {
    stacks: &'a Stacks,
    folding: Folding,
    outermost: u32,
    nodes: Vec<ShownNode>,
    ids: HashMap<(ShownStackId, ShownFrame), ShownStackId>,
    folds: Vec<Fold>,
    /// By the entry, or by the crates if own code does not call the frames.
    fold_ids: HashMap<(Option<FrameId>, Vec<u32>), u32>,
    crates: Vec<String>,
    crate_ids: HashMap<String, u32>,
    /// The crate of each frame of a dependency that was asked for, by the frame's index.
    crate_of_frame: Vec<Option<u32>>,
}

impl<'a> ShownStacksBuilder<'a> {
    fn new(stacks: &'a Stacks, folding: Folding, outermost: u32) -> Self {
        ShownStacksBuilder {
            stacks,
            folding,
            outermost,
            nodes: Vec::new(),
            ids: HashMap::default(),
            folds: Vec::new(),
            fold_ids: HashMap::default(),
            crates: Vec::new(),
            crate_ids: HashMap::default(),
            crate_of_frame: vec![None; stacks.all_frames().count()],
        }
    }

    /// Adds the next frame inwards.
    fn push(&mut self, end: PathEnd, frame: FrameId) -> PathEnd {
        match (self.folding, self.stacks.frame(frame).owner) {
            (Folding::None, _) => {
                self.close(end);
                PathEnd { id: self.intern(end.id, ShownFrame::Single(frame)), times: 1, cycle: (EMPTY, 0) }
            }
            (_, CodeOwner::Runtime) => end,
            (Folding::Dependencies, CodeOwner::Dependency) => self.push_folded(end, frame),
            _ => self.push_single(end, frame),
        }
    }

    fn push_single(&mut self, end: PathEnd, frame: FrameId) -> PathEnd {
        let frame = ShownFrame::Single(frame);
        if let Some((target, length)) = self.cycle_closed_by(end.id, frame) {
            if length == 1 {
                return PathEnd { times: end.times + 1, ..end };
            }
            let rounds = if end.cycle.0 == target { end.cycle.1 + 1 } else { 2 };
            self.note_times(target, 1);
            self.note_times(target, rounds);
            return PathEnd { id: target, times: 1, cycle: (target, rounds) };
        }
        self.close(end);
        PathEnd { id: self.intern(end.id, frame), times: 1, cycle: end.cycle }
    }

    /// Finds the cycle that `frame` closes if it comes inside of the stack `caller`: the last
    /// frames are those before them once more. Returns the same frame one round earlier, and the
    /// number of frames in a round.
    fn cycle_closed_by(&self, caller: ShownStackId, frame: ShownFrame) -> Option<(ShownStackId, usize)> {
        let mut earlier = caller;
        for length in 1..=LONGEST_CYCLE {
            let node = self.node(earlier)?;
            if node.frame == frame {
                let (mut late, mut early) = (caller, node.caller);
                let mut rest = (1..length).map(|_| {
                    let frames = (self.node(late), self.node(early));
                    let (Some(a), Some(b)) = frames else { return false };
                    (late, early) = (a.caller, b.caller);
                    a.frame == b.frame
                });
                if rest.all(|same| same) {
                    return Some((earlier, length));
                }
            }
            earlier = node.caller;
        }
        None
    }

    fn push_folded(&mut self, end: PathEnd, frame: FrameId) -> PathEnd {
        let krate = self.crate_index(frame);
        let open = self.node(end.id).and_then(|node| match node.frame {
            ShownFrame::Folded(fold) => Some((node.caller, fold)),
            ShownFrame::Single(_) => None,
        });
        let Some((caller, fold)) = open else {
            self.close(end);
            let is_called_by_own = self.node(end.id).is_some_and(|node| node.has_own);
            let fold = self.fold_id(is_called_by_own.then_some(frame), vec![krate]);
            let id = self.intern(end.id, ShownFrame::Folded(fold));
            return PathEnd { id, times: 1, cycle: end.cycle };
        };
        let known = &mut self.folds[fold as usize];
        let is_new = !known.crates.contains(&krate) && known.crates.len() < MAX_CRATES;
        if is_new && known.entry.is_some() {
            known.crates.push(krate);
        }
        if !is_new || known.entry.is_some() {
            return PathEnd { times: end.times + 1, ..end };
        }
        let crates = known.crates.iter().copied().chain([krate]).collect();
        let fold = self.fold_id(None, crates);
        let id = self.intern(caller, ShownFrame::Folded(fold));
        PathEnd { id, times: end.times + 1, cycle: end.cycle }
    }

    /// Ends a stack, and returns its id. A stack of dependencies alone shows its site by itself.
    fn finish(&mut self, end: PathEnd, site: Option<FrameId>) -> ShownStackId {
        let (Some(node), Some(site)) = (self.node(end.id).copied(), site) else { return end.id };
        if node.has_own || !matches!(node.frame, ShownFrame::Folded(_)) {
            self.close(end);
            return end.id;
        }
        let outside = if end.times > 1 {
            self.close(PathEnd { times: end.times - 1, ..end });
            end.id
        } else {
            node.caller
        };
        let id = self.intern(outside, ShownFrame::Single(site));
        self.note_times(id, 1);
        id
    }

    /// Notes for how many frames the innermost shown frame of a stack stands.
    fn close(&mut self, end: PathEnd) {
        self.note_times(end.id, end.times);
    }

    fn note_times(&mut self, id: ShownStackId, times: u32) {
        if let Some(node) = (id.0 as usize).checked_sub(1).and_then(|at| self.nodes.get_mut(at)) {
            node.times.fewest = node.times.fewest.min(times);
            node.times.most = node.times.most.max(times);
        }
    }

    /// Makes these stacks with all of their frames. Returns the id for each node that is on one.
    fn whole_stacks(&mut self, wanted: &[StackId]) -> Vec<ShownStackId> {
        let mut whole = vec![EMPTY; self.stacks.len()];
        let on_path = needed(self.stacks, wanted);
        for at in on_path.iter().enumerate().filter(|(_, needed)| **needed).map(|(at, _)| at) {
            let node = StackId(at as u32);
            let caller = self.stacks.parent(node).map_or(EMPTY, |parent| whole[parent.0 as usize]);
            let frames = self.stacks.frames_of_node(node).iter().rev();
            whole[at] = frames.fold(caller, |caller, frame| {
                let id = self.intern(caller, ShownFrame::Single(*frame));
                self.note_times(id, 1);
                id
            });
        }
        whole
    }

    fn node(&self, id: ShownStackId) -> Option<&ShownNode> {
        self.nodes.get((id.0 as usize).checked_sub(1)?)
    }

    /// Returns the id of the stack that has `frame` inside of the stack `caller`.
    fn intern(&mut self, caller: ShownStackId, frame: ShownFrame) -> ShownStackId {
        let next = ShownStackId(self.nodes.len() as u32 + 1);
        let id = *self.ids.entry((caller, frame)).or_insert(next);
        if id == next {
            let outside = self.node(caller).copied();
            let frames = outside.map_or(0, |outside| outside.frames) + 1;
            let outer = outside.filter(|_| frames > self.outermost).map_or(next, |outside| outside.outer);
            let is_own = matches!(frame, ShownFrame::Single(frame) if self.stacks.frame(frame).is_own());
            let has_own = is_own || outside.is_some_and(|outside| outside.has_own);
            let times = Times { fewest: u32::MAX, most: 1 };
            self.nodes.push(ShownNode { caller, frame, times, has_own, frames, outer });
        }
        id
    }

    fn fold_id(&mut self, entry: Option<FrameId>, crates: Vec<u32>) -> u32 {
        let next = self.folds.len() as u32;
        let key = (entry, if entry.is_some() { Vec::new() } else { crates.clone() });
        *self.fold_ids.entry(key).or_insert_with(|| {
            self.folds.push(Fold { entry, crates });
            next
        })
    }

    /// Returns the index of the crate of a dependency's frame; of code in another language, that of
    /// its module.
    fn crate_index(&mut self, id: FrameId) -> u32 {
        if let Some(known) = self.crate_of_frame[id.index()] {
            return known;
        }
        let frame = self.stacks.frame(id);
        let next = self.crates.len() as u32;
        let index = *self.crate_ids.entry(crate_of_frame(frame)).or_insert_with_key(|name| {
            self.crates.push(name.clone());
            next
        });
        self.crate_of_frame[id.index()] = Some(index);
        index
    }
}

#[cfg(test)]
mod tests;
