//! The options of loading a dump. Plain values, without behaviour.

use crate::pattern::Pattern;

/// Which threads count, and which blocks are kept. By default all threads count, and no blocks are
/// kept.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Stacks and lines count only the events of threads whose name matches; `None` for all
    /// threads. Totals are always those of the whole process.
    pub threads: Option<Pattern>,
    /// Which live blocks to keep in [`Profile::blocks`](crate::profile::Profile::blocks).
    pub blocks: KeepBlocks,
}

/// The moments at which the live blocks are kept. Only blocks of selected threads are kept.
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
