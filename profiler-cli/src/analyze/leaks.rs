//! What is live at the end, by stack. In: a profile and its stacks. Out: [`Leaks`], largest first.

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::shown::{Cut, Shown, ShownId};
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::Profile;

/// What is live at the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaks {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Bytes of all rows, cut off or not.
    pub total_bytes: u64,
    /// Blocks of all rows, cut off or not.
    pub total_blocks: u64,
    /// Whether the whole recording was read; if not, some of these may have been freed later.
    pub complete: bool,
    /// Whether only some of what is live was asked for.
    pub filtered: bool,
    /// Rows that `--top` cut off.
    pub omitted: usize,
    /// One row for each stack.
    pub leaks: Vec<Leak>,
}

/// Live blocks that got their present size at one stack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leak {
    /// Their bytes.
    pub bytes: u64,
    /// How many.
    pub blocks: u64,
    /// Source file of the site: the innermost frame that is the user's own code.
    pub file: Option<String>,
    /// Line of the site.
    pub line: Option<u32>,
    /// Function of the site.
    pub function: String,
    /// When the first of them was allocated, in nanoseconds since time zero; exact to a microsecond.
    pub first_ns: u64,
    /// When the last of them was allocated.
    pub last_ns: u64,
    /// The stack, innermost frame first. Of more than 1,000 frames the innermost 900 and the outermost 100.
    pub stack: Vec<StackFrame>,
    /// Frames that are left out between these.
    pub omitted_frames: usize,
}

/// A frame of a reported stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackFrame {
    /// The function.
    pub function: String,
    /// Its source file.
    pub file: Option<String>,
    /// The line of the call or the allocation.
    pub line: Option<u32>,
    /// Whether its code was inlined into the next frame.
    pub inlined: bool,
    /// File name of the module.
    pub module: String,
}

impl From<&NamedFrame> for StackFrame {
    fn from(frame: &NamedFrame) -> StackFrame {
        StackFrame {
            function: frame.function.to_string(),
            file: frame.file.as_deref().map(str::to_owned),
            line: frame.line,
            inlined: frame.inlined,
            module: frame.module.to_string(),
        }
    }
}

/// Finds what is live at the end. Stacks that differ only in frames of the runtime are one row, unless `full` asks
/// for these frames.
pub fn leaks(profile: &Profile, stacks: &Stacks, filter: &Filter, full: bool, top: Option<usize>) -> Leaks {
    let accepted = filter.accepted(stacks);
    let is_live = |stack: StackId| {
        let stats = profile.stacks.get(stack.0 as usize);
        stats.is_some_and(|stats| stats.live_blocks > 0) && accepted.has(stack)
    };
    let shown = Shown::of(stacks, full, OUTERMOST, is_live);
    let mut rows: HashMap<ShownId, Row> = HashMap::default();
    for (stack, stats) in crate::analyze::summary::with_ids(profile).filter(|(stack, _)| is_live(*stack)) {
        let row = rows.entry(shown.stack(stack)).or_insert_with(|| Row {
            first_us: u64::MAX,
            site: stacks.site(stack),
            ..Row::default()
        });
        row.bytes += stats.live_bytes;
        row.blocks += stats.live_blocks;
        row.first_us = row.first_us.min(stats.live_first_us);
        row.last_us = row.last_us.max(stats.live_last_us);
    }
    let mut rows: Vec<(ShownId, Row)> = rows.into_iter().collect();
    let frames = |id| shown.frames(id).take(INNERMOST);
    rows.sort_by(|(a_id, a), (b_id, b)| {
        b.bytes
            .cmp(&a.bytes)
            .then(b.blocks.cmp(&a.blocks))
            .then(a.first_us.cmp(&b.first_us))
            .then_with(|| frames(*a_id).cmp(frames(*b_id)))
            .then(a_id.cmp(b_id))
    });
    let all = rows.len();
    let (total_bytes, total_blocks) =
        rows.iter().fold((0, 0), |(bytes, blocks), (_, row)| (bytes + row.bytes, blocks + row.blocks));
    rows.truncate(top.unwrap_or(usize::MAX));
    let leaks: Vec<Leak> =
        rows.into_iter().map(|(id, row)| row.name(stacks, shown.cut(id, INNERMOST))).collect();
    Leaks {
        schema: "alloc-tracker/leaks/1",
        total_bytes,
        total_blocks,
        complete: profile.trust.complete(),
        filtered: !filter.is_empty() || profile.some_threads,
        omitted: all - leaks.len(),
        leaks,
    }
}

/// Rows with all frames of deep recursions would need memory without bound.
const INNERMOST: usize = 900;
const OUTERMOST: u32 = 100;

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    site: Option<FrameId>,
    bytes: u64,
    blocks: u64,
    first_us: u64,
    last_us: u64,
}

impl Row {
    fn name(self, stacks: &Stacks, Cut { inner, omitted, outer }: Cut) -> Leak {
        let site = self.site.map(|id| stacks.frame(id));
        Leak {
            bytes: self.bytes,
            blocks: self.blocks,
            file: site.and_then(|frame| frame.file.as_deref()).map(str::to_owned),
            line: site.and_then(|frame| frame.line),
            function: site.map_or_else(|| "(no stack)".to_owned(), |frame| frame.function.to_string()),
            first_ns: self.first_us * 1000,
            last_ns: self.last_us * 1000,
            stack: inner.into_iter().chain(outer).map(|id| StackFrame::from(stacks.frame(id))).collect(),
            omitted_frames: omitted,
        }
    }
}
