//! What a caller asks for when it loads a dump.

use crate::pattern::Pattern;

/// What to load. By default: the events of all threads, and no blocks.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Stacks and lines count only the events of threads whose name matches; `None` for all
    /// threads. Totals are always those of the whole process.
    pub threads: Option<Pattern>,
    /// Which live blocks to keep in [`Profile::blocks`](crate::profile::Profile::blocks).
    pub blocks: KeepBlocks,
}

/// The moments at which the live blocks are kept. Only blocks of the selected threads are.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum KeepBlocks {
    /// At no moment; this costs nothing.
    #[default]
    Nothing,
    /// At the end of the recording.
    AtEnd,
    /// At the end, and at each mark whose name matches.
    AtEndAndMarks(Pattern),
}
