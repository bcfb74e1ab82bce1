//! The choice of the functions that have a line table. In: the options of the user, and the filter.
//! Out: for a frame, whether its function is chosen, and for a table, whether it is shown.

use crate::analyze::column::TableOrder;
use crate::analyze::filter::Filter;
use crate::analyze::lines::{FunctionLines, LineRow};
use crate::names::function_name::{function_of, instance_of};
use crate::names::stacks::NamedFrame;

/// The tables to make, and their order.
#[derive(Clone, Debug, Default)]
pub struct LineSelection {
    /// Whether functions of the runtime have tables as well.
    pub full: bool,
    /// At most this many tables; `None` for all.
    pub top: Option<usize>,
    /// Order of the tables; `None` for the order that [`lines`](super::lines) describes.
    pub sort: Option<TableOrder>,
    /// Only functions of which some line changed the heap by at least this many bytes, up or down.
    pub min_increment: u64,
    /// Whether each instance of a generic function has a table of its own.
    pub split_generics: bool,
    /// Whether tables have the call sites of their function.
    pub callers: bool,
}

impl LineSelection {
    /// Whether the function of a frame is chosen. With `full`, functions of the runtime are chosen
    /// as well.
    pub(super) fn chooses(&self, filter: &Filter, frame: &NamedFrame, full: bool) -> bool {
        (full || !frame.is_runtime()) && (filter.is_empty() || self.passes(filter, frame))
    }

    /// Whether the filter accepts the function of a frame. In line tables the patterns apply to the
    /// function itself, not to any frame of its stacks. If instances are split, a pattern may name
    /// the function or an instance of it.
    fn passes(&self, filter: &Filter, frame: &NamedFrame) -> bool {
        let accepts = |name: &str| filter.accepts_frame_as(frame, name);
        accepts(function_of(&frame.function)) || self.split_generics && accepts(instance_of(&frame.function))
    }

    /// Whether some line of a function changed the heap by at least `min_increment` bytes.
    pub(super) fn has_enough_increment(&self, function: &FunctionLines) -> bool {
        let is_enough = |row: &LineRow| row.increment.is_some_and(|i| i.unsigned_abs() >= self.min_increment);
        function.lines.iter().any(is_enough)
    }
}
