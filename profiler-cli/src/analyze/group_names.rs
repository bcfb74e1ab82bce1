//! What a stack or a thread is counted for when figures are added up by crate, module, file,
//! function, site or thread. In: a profile and its named stacks. Out: the name of a group.

use alloc_dump::layout::StackId;
use serde::Serialize;

use crate::analyze::site_location::NO_STACK;
use crate::analyze::source_paths::SourcePaths;
use crate::names::code_owner::crate_of_frame;
use crate::names::function_name::function_of;
use crate::names::rust_path::split_name;
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::{Profile, RecordedThread};

/// What the figures are added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The crate of the innermost frame that is not the runtime's: the crate that allocates
    Crate,
    /// The module of the site, such as shop::cart
    Module,
    /// The source file of the site
    File,
    /// The function of the site
    Function,
    /// The site itself: function, file and line
    Site,
    /// The thread of the event
    Thread,
}

impl GroupBy {
    /// Returns the word of the option, as in "by crate".
    pub fn word(self) -> &'static str {
        match self {
            GroupBy::Crate => "crate",
            GroupBy::Module => "module",
            GroupBy::File => "file",
            GroupBy::Function => "function",
            GroupBy::Site => "site",
            GroupBy::Thread => "thread",
        }
    }
}

/// The groups of stacks.
pub struct GroupNames<'a> {
    by: GroupBy,
    stacks: &'a Stacks,
    paths: SourcePaths,
    /// The frame that allocates, by the id of the stack; only for crates.
    allocating: Vec<Option<FrameId>>,
}

impl<'a> GroupNames<'a> {
    /// Prepares the names of the groups of stacks.
    pub fn of(profile: &Profile, stacks: &'a Stacks, by: GroupBy) -> GroupNames<'a> {
        let allocating = if by == GroupBy::Crate { stacks.allocating_frames() } else { Vec::new() };
        GroupNames { by, stacks, paths: SourcePaths::of(profile, stacks), allocating }
    }

    /// Returns the name of the group of a stack. It is `(no stack)` if there is no frame, and
    /// `(unknown)` if the frame does not tell.
    pub fn of_stack(&self, stack: StackId) -> String {
        let allocating = self.allocating.get(stack.0 as usize).copied().flatten();
        let frame = allocating.or_else(|| self.stacks.site(stack));
        frame.map_or_else(|| NO_STACK.to_owned(), |id| self.of_frame(self.stacks.frame(id)))
    }

    fn of_frame(&self, frame: &NamedFrame) -> String {
        let function = function_of(&frame.function);
        let name = match self.by {
            GroupBy::Crate => return crate_of_frame(frame),
            GroupBy::Module => split_name(function).0.trim_end_matches("::"),
            GroupBy::File => self.path_of(frame).unwrap_or(""),
            GroupBy::Function | GroupBy::Thread => function,
            GroupBy::Site => match (self.path_of(frame), frame.line) {
                (Some(file), Some(line)) => return format!("{function} ({file}:{line})"),
                _ => function,
            },
        };
        if name.is_empty() { "(unknown)".to_owned() } else { name.to_owned() }
    }

    fn path_of<'f>(&self, frame: &'f NamedFrame) -> Option<&'f str> {
        frame.file.as_deref().map(|file| self.paths.shown(file))
    }
}

/// Returns the name of a thread as a group: two threads may have one name, but not one id.
pub fn name_of_thread(thread: &RecordedThread) -> String {
    let name = if thread.name.is_empty() { "(unnamed)" } else { &thread.name };
    format!("{name} ({})", thread.os_tid)
}
