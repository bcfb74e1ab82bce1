//! The columns between the line's number and its text. In: a row. Out: figures, and how they are written.

use crate::analyze::lines::{FunctionLines, LineRow};
use crate::units::{bytes, count, time};

/// Every column, in the order of the page. A new one is a line here.
pub(super) const COLUMNS: &[Column] = &[
    column(
        "Mem usage",
        "Live bytes of the whole process when the line was last left; from recorded stacks, after its last heap event.",
        |row| row.mem_usage.map(i128::from),
        Kind::Bytes,
    ),
    column(
        "Increment",
        "Bytes allocated minus bytes freed.",
        |row| row.increment.map(i128::from),
        Kind::Change,
    ),
    column(
        "Occurrences",
        "How often the line was reached; from recorded stacks, its heap events.",
        |row| row.occurrences.map(i128::from),
        Kind::Count,
    ),
    column(
        "Allocated",
        "Bytes allocated, new sizes of reallocations included.",
        |row| row.allocated.map(i128::from),
        Kind::Bytes,
    )
    .more(),
    column(
        "Freed",
        "Bytes freed, old sizes of reallocations included.",
        |row| row.freed.map(i128::from),
        Kind::Bytes,
    )
    .more(),
    column("Blocks", "Blocks allocated minus blocks freed.", |row| row.blocks.map(i128::from), Kind::Balance)
        .more(),
    column(
        "Max usage",
        "The most live bytes of the whole process when the line was left; of annotated functions.",
        |row| row.max.map(i128::from),
        Kind::Bytes,
    )
    .more(),
    column(
        "Time",
        "Wall time spent at the line; of annotated functions.",
        |row| row.time_ns.map(i128::from),
        Kind::Time,
    )
    .more(),
    column(
        "At peak",
        "Bytes of the blocks that got their present size here and were live at the global peak.",
        |row| row.peak.map(i128::from),
        Kind::Bytes,
    )
    .more(),
    column(
        "Live at end",
        "Bytes of the blocks that got their present size here and are live at the end.",
        |row| row.live.map(i128::from),
        Kind::Bytes,
    )
    .more(),
    column(
        "Temporary",
        "Blocks that were allocated here and freed by the next heap event of their thread.",
        |row| row.temporary.map(i128::from),
        Kind::Count,
    )
    .more(),
    column(
        "RSS",
        "By how much the resident memory of the process has changed; recorded with --lines rss.",
        |row| row.rss.map(i128::from),
        Kind::Change,
    )
    .more(),
    column(
        "Minor faults",
        "Minor page faults of the thread; recorded with --lines faults.",
        |row| row.minor_faults.map(i128::from),
        Kind::Count,
    )
    .more(),
    column(
        "Major faults",
        "Major page faults of the thread; recorded with --lines faults.",
        |row| row.major_faults.map(i128::from),
        Kind::Count,
    )
    .more(),
];

/// A column.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) explanation: &'static str,
    /// Nothing where the line has none.
    pub(super) figure: fn(&LineRow) -> Option<i128>,
    pub(super) kind: Kind,
    /// Only shown when asked for.
    more: bool,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An amount of memory.
    Bytes,
    /// By how much memory an amount has changed.
    Change,
    /// A number of things.
    Count,
    /// By how much a number has changed.
    Balance,
    /// Nanoseconds.
    Time,
}

const fn column(
    title: &'static str,
    explanation: &'static str,
    figure: fn(&LineRow) -> Option<i128>,
    kind: Kind,
) -> Column {
    Column { title, explanation, figure, kind, more: false }
}

impl Column {
    const fn more(self) -> Column {
        Column { more: true, ..self }
    }

    /// Whether any line of the function has a figure.
    pub(super) fn has_figures(&self, function: &FunctionLines) -> bool {
        function.lines.iter().any(|row| (self.figure)(row).is_some())
    }

    /// The attribute that the style knows its cells by.
    pub(super) fn class(&self) -> &'static str {
        match (self.kind, self.more) {
            (Kind::Change, false) => " class=\"heat\"",
            (_, false) => "",
            (_, true) => " class=\"more\"",
        }
    }
}

impl Kind {
    /// For people: each figure in the unit that fits it, so that nothing is rounded to zero.
    pub(super) fn show(self, figure: i128) -> String {
        let amount = magnitude(figure);
        match self {
            Kind::Bytes => bytes(amount),
            Kind::Change => format!("{}{}", sign(figure), bytes(amount)),
            Kind::Count => count(amount),
            Kind::Balance => format!("{}{}", sign(figure), count(amount)),
            Kind::Time => time(amount),
        }
    }

    /// Without rounding, if [`Kind::show`] may round.
    pub(super) fn exactly(self, figure: i128) -> Option<String> {
        let amount = count(magnitude(figure));
        match self {
            Kind::Bytes => Some(format!("{amount} B")),
            Kind::Change => Some(format!("{}{amount} B", sign(figure))),
            Kind::Time => Some(format!("{amount} ns")),
            Kind::Count | Kind::Balance => None,
        }
    }
}

fn magnitude(figure: i128) -> u64 {
    u64::try_from(figure.unsigned_abs()).unwrap_or(u64::MAX)
}

fn sign(figure: i128) -> &'static str {
    match figure {
        1.. => "+",
        0 => "",
        _ => "-",
    }
}
