//! Where a site is: what tells sites of one profile apart in reports.
//!
//! By location and not by frame: one location is several frames if its code was inlined at one call
//! and not at another. Across builds, [`site`](super::site) tells sites apart.

use alloc_dump::layout::StackId;

use crate::names::stacks::{NamedFrame, Stacks};

/// Function, file and line of a site; `None` for blocks without a stack.
pub(super) type SiteLocation<'a> = Option<(&'a str, Option<&'a str>, Option<u32>)>;

/// The name of the site of blocks without a stack.
pub(super) const NO_STACK: &str = "(no stack)";

/// Returns the location of the site of a stack.
pub(super) fn location_of(stacks: &Stacks, stack: StackId) -> SiteLocation<'_> {
    let frame = stacks.site(stack).map(|id| stacks.frame(id));
    frame.map(|frame| (&*frame.function, frame.file.as_deref(), frame.line))
}

/// Returns `function (file.rs:12)`, or the function alone if the line is not known.
pub(super) fn frame_label(frame: &NamedFrame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            format!("{} ({}:{line})", frame.function, file.rsplit('/').next().unwrap_or_default())
        }
        _ => frame.function.to_string(),
    }
}
