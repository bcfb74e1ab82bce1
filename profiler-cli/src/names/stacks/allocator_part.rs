//! The part of each stack that belongs to the allocator, where the user has written a part of it.
//!
//! A program may put an allocator of its own around the tracker, to limit or count what it uses.
//! Then each stack has functions of the user's inside of the allocator, and the innermost of them
//! would be the site of every event. In: the call tree. Out: the same tree, in which the frames of
//! the allocator are runtime frames.
//!
//! ```text
//! AllocTracker::alloc        leaf
//! Budget::charge             the user's, but called by the allocator
//! GlobalAlloc for Budget     a method
//! __rust_alloc               an entry: all frames from here to the leaf are the allocator's
//! alloc::alloc::alloc        an entry, too; the innermost entry counts
//! Vec::push                  a caller of the allocator
//! app::render                the site
//! ```
//!
//! The rule, from the root to the leaf: an entry begins the part of the allocator. So does a method
//! of a `GlobalAlloc`, unless the part has begun. A function of the crate `alloc` that is no entry
//! ends the part, because it calls the allocator and is not called by it. The part that is open at
//! the leaf is the allocator's. So if an allocator grows a table of its own through the global
//! allocator, the line that grows the table is the site, and not the line of the program outside.

use alloc_dump::layout::StackId;

use super::{NamedFrame, StackBuilder, Stacks};
use crate::names::code_owner::CodeOwner;
use crate::names::function_name::function_of;
use crate::names::own_crates::is_collections_crate;
use crate::names::rust_path::{ImplName, crate_of, last_segment};
use crate::names::symbolize::classify::is_allocator_shim;

/// Makes the frames of the allocator runtime frames, on every stack that has a function of the
/// user's among them.
///
/// A return address can be in the allocator's part of one stack and outside of that part on
/// another. So a node with such frames gets the frames of its callers in the part as well, and
/// skips these callers: its caller becomes the first node outside.
pub(super) fn hide_users_allocators(stacks: &mut Stacks, builder: &mut StackBuilder) {
    let roles: Vec<Role> = stacks.frames.iter().map(Role::of).collect();
    let parts = parts(stacks, &roles);
    // Callers have smaller numbers, so they are still unchanged when their callees are done.
    for at in (StackId::FIRST.0..stacks.len() as u32).rev().map(StackId) {
        let has_users_frames = |node: StackId| parts[node.0 as usize].has_users_frames();
        let is_inside_of_part = stacks.parent(at).is_some_and(has_users_frames);
        if !has_users_frames(at) && !is_inside_of_part {
            continue;
        }
        let hidden = if has_users_frames(at) { frames_in_part(stacks, &roles, at) } else { 0 };
        let (mut frames, mut caller) = (stacks.frames_of_node(at).to_vec(), stacks.parents[at.0 as usize]);
        while frames.len() < hidden || has_users_frames(caller) {
            frames.extend_from_slice(stacks.frames_of_node(caller));
            caller = stacks.parents[caller.0 as usize];
        }
        for id in &mut frames[..hidden] {
            let frame = NamedFrame { owner: CodeOwner::Runtime, ..stacks.frame(*id).clone() };
            *id = builder.intern(stacks, frame);
        }
        let start = stacks.lists.len() as u32;
        stacks.lists.extend_from_slice(&frames);
        stacks.by_node[at.0 as usize] = (start, stacks.lists.len() as u32);
        stacks.parents[at.0 as usize] = caller;
        if hidden > 0 {
            stacks.users_allocators.insert(at, hidden);
        }
    }
}

/// What a function has to do with the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It does nothing but call the global allocator: a shim, or `alloc::alloc::dealloc`.
    Entry,
    /// It is a method of a `GlobalAlloc`, the trait's own methods included.
    Method,
    /// It belongs to the crate `alloc`, or to another crate that allocates for its caller.
    Caller,
    /// Another function. Whether it is the allocator's depends on its callers.
    Other,
}

impl Role {
    fn of(frame: &NamedFrame) -> Role {
        let function = &*frame.function;
        let file = frame.file.as_deref().unwrap_or_default();
        if is_allocator_shim(function) {
            return Role::Entry;
        }
        // Inlined functions may have short names, which only their files tell apart.
        let is_method = match ImplName::parse(function) {
            Some(name) => name.trait_path.ends_with(GLOBAL_ALLOC),
            None => function.strip_prefix(GLOBAL_ALLOC).is_some_and(|rest| rest.starts_with("::")),
        };
        if is_method || file.ends_with("/library/core/src/alloc/global.rs") {
            return Role::Method;
        }
        let is_allocating =
            ["/library/alloc/src/", "/rust/deps/hashbrown-"].iter().any(|part| file.contains(part))
                || crate_of(function).is_some_and(is_collections_crate);
        if !frame.is_runtime() || !is_allocating {
            return Role::Other;
        }
        let name = last_segment(function_of(function));
        let is_short = !function_of(function).contains("::");
        match function_of(function).strip_prefix("alloc::alloc::") {
            Some(rest) if ENTRIES.contains(&rest) => Role::Entry,
            None if is_short && file.ends_with("/library/alloc/src/alloc.rs") && ENTRIES.contains(&name) => {
                Role::Entry
            }
            // `Box<dyn Fn()>` only passes the call on, which may well be a call of the allocator's.
            _ if CALLS.contains(&name) => Role::Other,
            _ => Role::Caller,
        }
    }
}

const GLOBAL_ALLOC: &str = "core::alloc::global::GlobalAlloc";
/// The functions of `alloc::alloc` that call the global allocator.
const ENTRIES: [&str; 4] = ["alloc", "alloc_zeroed", "realloc", "dealloc"];
/// The methods by which closures are called.
const CALLS: [&str; 3] = ["call", "call_mut", "call_once"];

/// The part of the allocator that is open at the innermost frame of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Number of frames since no part was open; 0 if none is.
    frames: u8,
    /// Whether one of the frames of this part is not of the runtime.
    is_partly_users: bool,
}

impl Part {
    /// A longer part is none: an allocator does not call so deep. The limit keeps the lists of
    /// frames short, whatever the dump contains.
    const MAX_FRAMES: u8 = 250;

    fn has_users_frames(self) -> bool {
        self.frames > 0 && self.is_partly_users
    }

    /// Returns the part at the next frame inwards.
    fn after(self, role: Role, is_users: bool) -> Part {
        let closed = Part::default();
        let is_open = self.frames > 0;
        match role {
            _ if self.frames == Part::MAX_FRAMES => closed,
            Role::Caller => closed,
            Role::Other if !is_open => closed,
            Role::Entry => Part { frames: self.frames + 1, is_partly_users: is_users },
            Role::Method | Role::Other => {
                Part { frames: self.frames + 1, is_partly_users: self.is_partly_users || is_users }
            }
        }
    }
}

/// Returns for each node the part that is open there.
fn parts(stacks: &Stacks, roles: &[Role]) -> Vec<Part> {
    let mut parts = vec![Part::default(); stacks.len()];
    for at in StackId::FIRST.0 as usize..stacks.len() {
        let caller = parts[stacks.parents[at].0 as usize];
        let frames = stacks.frames_of_node(StackId(at as u32)).iter().rev();
        parts[at] =
            frames.fold(caller, |part, id| part.after(roles[id.index()], !stacks.frame(*id).is_runtime()));
    }
    parts
}

/// Returns the number of frames, from the leaf on, that are the allocator's: up to the innermost
/// entry, or up to the outermost method if there is no entry inside of the allocator's caller.
fn frames_in_part(stacks: &Stacks, roles: &[Role], stack: StackId) -> usize {
    let mut frames = 0;
    for (id, count) in stacks.frames(stack).zip(1..=usize::from(Part::MAX_FRAMES)) {
        match roles[id.index()] {
            Role::Entry => return count,
            Role::Method => frames = count,
            Role::Caller => break,
            Role::Other => {}
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str, is_runtime: bool) -> NamedFrame {
        NamedFrame {
            function: function.into(),
            file: (!file.is_empty()).then(|| file.into()),
            line: None,
            is_inlined: false,
            owner: CodeOwner::runtime_if(is_runtime),
            module: "app".into(),
        }
    }

    fn users(function: &str) -> NamedFrame {
        frame(function, "", false)
    }

    fn runtime(function: &str) -> NamedFrame {
        frame(function, "", true)
    }

    const TRACKER: &str = "<alloc_tracker::AllocTracker<A> as core::alloc::global::GlobalAlloc>::alloc";
    const BUDGET: &str = "<app::Budget<A> as core::alloc::global::GlobalAlloc>::alloc";
    const FILE: &str = "/rustc/0123/library/alloc/src/alloc.rs";

    fn site_of(frames: Vec<NamedFrame>) -> String {
        let stacks = Stacks::from_frames(&[frames]);
        stacks.frame(stacks.site(StackId::FIRST).unwrap()).function.to_string()
    }

    #[test]
    fn everything_inside_of_the_entry_is_the_allocators() {
        let caller = || vec![runtime("alloc::vec::Vec<T,A>::push"), users("app::render"), users("app::main")];
        for inside in [
            vec![runtime(TRACKER)],
            vec![runtime(TRACKER), users(BUDGET)],
            vec![
                runtime(TRACKER),
                users("app::Budget<A>::charge"),
                users(BUDGET),
                runtime("__rustc::__rust_alloc"),
            ],
            // A call in tail position leaves no frame: neither a method nor a shim is left.
            vec![runtime(TRACKER), users("app::Budget<A>::charge"), runtime("alloc::alloc::alloc")],
            // Two allocators around the tracker, of which the outer one uses `std` on the way.
            vec![
                runtime(TRACKER),
                users("<other::Limit<A> as core::alloc::global::GlobalAlloc>::alloc_zeroed"),
                users("app::Budget<A>::count::{closure#0}"),
                runtime("std::thread::local::LocalKey<T>::with"),
                users("app::Budget<A>::count"),
                users(BUDGET),
            ],
            // The trait's own `realloc`.
            vec![
                users("app::charge"),
                users(BUDGET),
                runtime("core::alloc::global::GlobalAlloc::realloc"),
                runtime("__rustc::__rust_realloc"),
                runtime("alloc::alloc::realloc"),
            ],
            // With line tables only, inlined functions have short names.
            vec![frame("alloc", "/app/src/main.rs", false), frame("alloc<u8>", FILE, true)],
            vec![
                frame("charge", "/app/src/main.rs", false),
                frame("realloc<app::Budget>", "/rustc/0123/library/core/src/alloc/global.rs", true),
            ],
            vec![users("charge"), frame("__rust_alloc", "/app/src/main.rs", true)],
            // A boxed closure passes the call on.
            vec![
                users("app::main::{closure#0}"),
                runtime("<alloc::boxed::Box<F,A> as core::ops::function::Fn<Args>>::call"),
                users(BUDGET),
            ],
        ] {
            let names: Vec<String> = inside.iter().map(|frame| frame.function.to_string()).collect();
            assert_eq!(site_of([inside, caller()].concat()), "app::render", "{names:?}");
        }
        // A program may also call a method itself.
        assert_eq!(site_of(vec![runtime(TRACKER), users(BUDGET), users("app::main")]), "app::main");
    }

    #[test]
    fn a_stack_without_own_code_has_its_site_outside_of_the_allocator() {
        let before_main =
            |inside| [inside, vec![runtime("alloc::alloc::alloc"), runtime("std::rt::init")]].concat();
        let inside = vec![
            runtime(TRACKER),
            users("app::charge"),
            runtime("std::thread::local::LocalKey<T>::with"),
            users(BUDGET),
        ];
        assert_eq!(site_of(before_main(inside)), "std::rt::init");
        assert_eq!(site_of(before_main(vec![runtime(TRACKER)])), "std::rt::init");
    }

    /// Node 0 is `main`, and node 1 is the allocator that it calls. The allocator passes the block
    /// on (node 2), and adds a row to its own table (node 3), for which it calls itself (node 4).
    #[test]
    fn a_table_of_the_allocators_own_is_at_its_own_line() {
        let entry = || runtime("alloc::alloc::alloc");
        let node = |number: u32| StackId(StackId::FIRST.0 + number);
        let stacks = Stacks::from_tree([
            (StackId::ROOT, vec![users("app::main")]),
            (node(0), vec![users("app::Budget<A>::note"), users(BUDGET), entry()]),
            (node(1), vec![runtime(TRACKER)]),
            (node(1), vec![entry(), runtime("alloc::vec::Vec<T,A>::push")]),
            (node(3), vec![runtime(TRACKER), users(BUDGET)]),
        ]);
        let site = |number| &*stacks.frame(stacks.site(node(number)).unwrap()).function;
        assert_eq!((site(2), site(4)), ("app::main", "app::Budget<A>::note"));
        let own = |number| {
            let frames = stacks.frames(node(number)).map(|id| stacks.frame(id));
            frames.filter(|frame| !frame.is_runtime()).map(|frame| &*frame.function).collect::<Vec<_>>()
        };
        assert_eq!(own(2), ["app::main"]);
        assert_eq!(own(4), ["app::Budget<A>::note", BUDGET, "app::main"]);
        let names =
            |number| stacks.frames(node(number)).map(|id| &*stacks.frame(id).function).collect::<Vec<_>>();
        assert_eq!(names(2), [TRACKER, "app::Budget<A>::note", BUDGET, "alloc::alloc::alloc", "app::main"]);
        assert_eq!(names(4).len(), 2 + 2 + 3 + 1, "no frame is left out: {:?}", names(4));
        let mut entered = 0;
        stacks.traverse(|step| {
            entered += usize::from(matches!(step, crate::names::stacks::TreeStep::Enter(_)))
        });
        assert_eq!(entered, 5);
    }

    #[test]
    fn a_recursion_inside_of_an_entry_is_no_allocator() {
        let chain = std::iter::once((StackId::ROOT, vec![users("app::go"), runtime("__rust_alloc")]))
            .chain((0..100_000).map(|at| (StackId(StackId::FIRST.0 + at), vec![users("app::go")])));
        let stacks = Stacks::from_tree(chain);
        assert!(stacks.lists.len() < 400_000, "{}", stacks.lists.len());
        assert_eq!(
            stacks.site(StackId(StackId::FIRST.0 + 100_000)).map(|id| stacks.frame(id).is_runtime()),
            Some(false)
        );
    }
}
