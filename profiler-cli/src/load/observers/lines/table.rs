//! The annotated functions, and the figures of their lines. In: definitions of functions, and
//! numbers of lines. Out: each line's index, its figures, and in the end [`Annotated`] functions.
//! The number of functions and lines is bounded.

use std::collections::BTreeMap;

use alloc_dump::record::Function;
use foldhash::HashMap;

use super::contexts::ContextTotals;
use crate::profile::{Annotated, AnnotatedLine};

/// Functions and lines. Other modules refer to a line by its index in this table.
#[derive(Clone, Debug, Default)]
pub(super) struct LineTable {
    functions: Vec<Annotated>,
    /// Index of each function by its number in the dump.
    function_of: HashMap<u32, usize>,
    lines: Vec<CountedLine>,
    /// Index of each line by its function's index and its number.
    line_of: HashMap<(usize, u32), usize>,
}

/// A line of an annotated function.
#[derive(Clone, Debug)]
struct CountedLine {
    function: usize,
    number: u32,
    figures: AnnotatedLine,
    /// Bytes of the live blocks that got their size at the line, and the most that there were.
    held: u64,
    most_held: u64,
    /// Whether a selected thread has reached the line. If not, the line is not part of the result.
    is_counted: bool,
}

impl LineTable {
    /// Whether no function is annotated.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Defines a function; false if there are too many.
    pub(super) fn define(&mut self, function: &Function<'_>) -> bool {
        if self.functions.len() == MAX_FUNCTIONS {
            return false;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.function_of.entry(function.id).or_insert(self.functions.len());
        self.functions.push(Annotated {
            name: text(function.name),
            file: text(function.file),
            start_line: function.start_line,
            end_line: function.end_line.max(function.start_line),
            lines: BTreeMap::new(),
        });
        true
    }

    /// Returns the index of the function with this number in the dump.
    pub(super) fn function(&self, number: u32) -> Option<usize> {
        self.function_of.get(&number).copied()
    }

    /// Returns the index of a function's first line.
    pub(super) fn first_line(&mut self, function: usize) -> Option<usize> {
        self.line(function, self.functions.get(function)?.start_line)
    }

    /// Returns the index of a line, which is added if it is new; `None` if there are too many
    /// lines.
    pub(super) fn line(&mut self, function: usize, number: u32) -> Option<usize> {
        if let Some(line) = self.line_of.get(&(function, number)) {
            return Some(*line);
        }
        if self.lines.len() == MAX_LINES {
            return None;
        }
        self.line_of.insert((function, number), self.lines.len());
        let figures = AnnotatedLine::default();
        self.lines.push(CountedLine { function, number, figures, held: 0, most_held: 0, is_counted: false });
        Some(self.lines.len() - 1)
    }

    /// Returns the figures of a line, and makes the line part of the result.
    pub(super) fn count(&mut self, line: usize) -> &mut AnnotatedLine {
        let line = &mut self.lines[line];
        line.is_counted = true;
        &mut line.figures
    }

    /// Returns the figures of a line. Does not make the line part of the result.
    pub(super) fn figures(&mut self, line: usize) -> &mut AnnotatedLine {
        &mut self.lines[line].figures
    }

    /// Adds a block to what a line holds.
    #[inline]
    pub(super) fn hold(&mut self, line: usize, bytes: u64) {
        let line = &mut self.lines[line];
        line.held = line.held.wrapping_add(bytes);
        line.most_held = line.most_held.max(line.held);
    }

    /// Removes a block from what a line holds.
    #[inline]
    pub(super) fn release(&mut self, line: usize, bytes: u64) {
        let line = &mut self.lines[line];
        line.held = line.held.wrapping_sub(bytes);
    }

    /// Begins an interval: the most that a line holds is that of the interval from now on.
    pub(super) fn begin_interval(&mut self) {
        for line in &mut self.lines {
            line.most_held = line.held;
        }
    }

    /// Adds the totals of each line context to its lines. With `None` there were too many contexts
    /// to keep, so their figures stay unknown.
    pub(super) fn add_contexts(
        &mut self,
        contexts: Option<Vec<(Box<[u32]>, ContextTotals)>>,
        has_lifetimes: bool,
    ) {
        let Some(contexts) = contexts else { return };
        for CountedLine { figures, most_held, .. } in &mut self.lines {
            (figures.peak, figures.live, figures.temporary) = (Some(0), Some(0), Some(0));
            if has_lifetimes {
                (figures.short_lived, figures.max_live) = (Some(0), Some(*most_held));
            }
        }
        for (lines, totals) in contexts {
            for line in lines {
                let figures = &mut self.lines[line as usize].figures;
                let add = |sum: &mut Option<u64>, more| *sum = sum.map(|sum| sum.saturating_add(more));
                add(&mut figures.peak, totals.peak_bytes);
                add(&mut figures.live, totals.live_bytes);
                add(&mut figures.temporary, totals.temporary);
                add(&mut figures.short_lived, totals.short_lived);
            }
        }
    }

    /// Returns the functions, with the lines that a selected thread has reached.
    pub(super) fn finish(mut self) -> Vec<Annotated> {
        for line in self.lines.into_iter().filter(|line| line.is_counted) {
            self.functions[line.function].lines.insert(line.number, line.figures);
        }
        self.functions
    }
}

const MAX_FUNCTIONS: usize = 1 << 16;
const MAX_LINES: usize = 1 << 20;
