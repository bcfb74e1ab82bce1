//! The blocks of annotated lines. In: blocks that are added and removed, each with its line
//! context. Out: for each line context, the bytes of its blocks that were live at the global peak
//! and at the end, and how many of its blocks were temporary.
//!
//! A *line context* is the set of lines that the annotated functions of a thread are at, one line
//! for each function. A block keeps the id of its context, so its lines are known when it is freed.

use foldhash::HashMap;

use crate::load::observers::peak::PeakShares;

/// Identity of a line context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) struct ContextId(u32);

impl ContextId {
    /// The context of blocks that no annotated function has allocated.
    pub(in crate::load) const NONE: ContextId = ContextId(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// All line contexts. Index 0 is [`ContextId::NONE`], which has no lines and no figures.
#[derive(Clone, Debug)]
pub(super) struct LineContexts {
    ids: HashMap<Box<[u32]>, ContextId>,
    /// The lines of each context, as sorted indices.
    lines: Vec<Box<[u32]>>,
    /// Number of lines in all contexts together.
    entries: usize,
    /// Whether there were too many contexts or lines to keep.
    is_full: bool,
    shares: PeakShares,
    temporary: Vec<u64>,
    short_lived: Vec<u64>,
}

/// Totals of the blocks of a line context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContextTotals {
    /// Bytes that were live at the global peak.
    pub(super) peak_bytes: u64,
    /// Bytes that are live at the end.
    pub(super) live_bytes: u64,
    /// Blocks that were temporary.
    pub(super) temporary: u64,
    /// Blocks that were short-lived.
    pub(super) short_lived: u64,
}

impl Default for LineContexts {
    fn default() -> LineContexts {
        let mut shares = PeakShares::default();
        shares.resize(1);
        LineContexts {
            ids: HashMap::default(),
            lines: vec![Box::default()],
            entries: 0,
            is_full: false,
            shares,
            temporary: vec![0],
            short_lived: vec![0],
        }
    }
}

impl LineContexts {
    /// Returns the id of a set of lines, which are sorted. If there are too many contexts, it is
    /// [`ContextId::NONE`].
    pub(super) fn id_of(&mut self, lines: &[u32]) -> ContextId {
        if lines.is_empty() {
            return ContextId::NONE;
        }
        if let Some(id) = self.ids.get(lines) {
            return *id;
        }
        self.is_full |= self.lines.len() == MAX_CONTEXTS || self.entries + lines.len() > MAX_ENTRIES;
        if self.is_full {
            return ContextId::NONE;
        }
        let id = ContextId(self.lines.len() as u32);
        self.ids.insert(lines.into(), id);
        self.lines.push(lines.into());
        self.entries += lines.len();
        self.temporary.push(0);
        self.short_lived.push(0);
        self.shares.resize(self.lines.len());
        id
    }

    /// Adds a block of this context.
    #[inline]
    pub(super) fn add(&mut self, context: ContextId, bytes: u64) {
        if context != ContextId::NONE {
            self.shares.add(context.index(), bytes);
        }
    }

    /// Removes a block of this context.
    #[inline]
    pub(super) fn remove(&mut self, context: ContextId, bytes: u64) {
        if context != ContextId::NONE {
            self.shares.remove(context.index(), bytes);
        }
    }

    /// Counts a block of this context as temporary.
    #[inline]
    pub(super) fn count_temporary(&mut self, context: ContextId) {
        if context != ContextId::NONE
            && let Some(temporary) = self.temporary.get_mut(context.index())
        {
            *temporary += 1;
        }
    }

    /// Counts a block of this context as short-lived.
    #[inline]
    pub(super) fn count_short_lived(&mut self, context: ContextId) {
        if context != ContextId::NONE
            && let Some(short_lived) = self.short_lived.get_mut(context.index())
        {
            *short_lived += 1;
        }
    }

    /// Returns the lines of a context.
    #[inline]
    pub(super) fn lines_of(&self, context: ContextId) -> &[u32] {
        self.lines.get(context.index()).map_or(&[], |lines| lines)
    }

    /// Begins the interval that is counted.
    pub(super) fn begin_interval(&mut self) {
        self.shares.begin_interval();
    }

    /// Notes a new peak of the process: the blocks that are live now are those of the peak.
    #[inline]
    pub(super) fn note_peak(&mut self) {
        self.shares.note_peak();
    }

    /// Returns the lines of each context and its totals. `None` if there were too many contexts to
    /// keep.
    pub(super) fn finish(self) -> Option<Vec<(Box<[u32]>, ContextTotals)>> {
        if self.is_full {
            return None;
        }
        let counts = self.temporary.into_iter().zip(self.short_lived);
        let totals =
            self.shares.finish().zip(counts).map(|(share, (temporary, short_lived))| ContextTotals {
                peak_bytes: share.peak_bytes,
                live_bytes: share.live_bytes,
                temporary,
                short_lived,
            });
        Some(self.lines.into_iter().zip(totals).collect())
    }
}

const MAX_CONTEXTS: usize = 1 << 18;
const MAX_ENTRIES: usize = 1 << 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_at_the_peak_and_at_the_end_belong_to_the_lines_of_their_context() {
        let mut contexts = LineContexts::default();
        let (both, one) = (contexts.id_of(&[3, 5]), contexts.id_of(&[3]));
        assert_eq!((contexts.id_of(&[3, 5]), contexts.id_of(&[])), (both, ContextId::NONE));
        contexts.add(both, 10);
        contexts.note_peak();
        contexts.add(one, 20);
        contexts.note_peak();
        contexts.remove(both, 10);
        contexts.count_temporary(both);
        contexts.add(one, 1);
        let of: Vec<_> = contexts.finish().unwrap();
        let shown = |context: ContextId| {
            let (lines, totals) = &of[context.index()];
            (lines.to_vec(), totals.peak_bytes, totals.live_bytes, totals.temporary)
        };
        assert_eq!(shown(both), (vec![3, 5], 10, 0, 1));
        assert_eq!(shown(one), (vec![3], 20, 21, 0));
    }

    #[test]
    fn too_many_contexts_give_no_figures_instead_of_wrong_ones() {
        let mut contexts = LineContexts::default();
        for line in 0..=MAX_CONTEXTS as u32 {
            contexts.id_of(&[line]);
        }
        assert!(contexts.finish().is_none());
    }
}
