//! A frame as text. In: a [`StackFrame`]. Out: its function, its position and the number of frames
//! that it stands for, in one line.

use std::io::{self, Write};

use super::text_width::fitting_names;
use super::{FAINT, source_position};
use crate::analyze::frame_table::StackFrame;
use crate::units::{Safe, count};

/// The texts of a frame.
pub(super) struct FrameTexts {
    /// The function; empty for folded frames that own code has not called.
    function: String,
    /// Its position in the source, its module if that is not known, or the crates of folded frames.
    pub(super) position: String,
    /// The number of frames that it stands for; empty for one frame.
    times: String,
}

impl FrameTexts {
    /// Makes the texts of a frame that stands for so many frames, on the stacks that have it.
    pub(super) fn of(frame: &StackFrame, (fewest, most): (u32, u32)) -> FrameTexts {
        let most_text = count(most.into());
        let range =
            if fewest < most { format!("{} to {most_text}", count(fewest.into())) } else { most_text };
        if !frame.folded_crates.is_empty() && most > 1 {
            let function = if frame.module.is_empty() { String::new() } else { frame.function.clone() };
            let position = format!("… {range} frames of {}", frame.folded_crates.join(", "));
            return FrameTexts { function, position, times: String::new() };
        }
        let position = source_position(frame.file.as_deref(), frame.line);
        let position = if position.is_empty() { frame.module.clone() } else { position };
        let times = if most > 1 { format!("  ({range} times)") } else { String::new() };
        FrameTexts { function: frame.function.clone(), position, times }
    }

    /// Writes the texts in one line of `room` columns, with the function in a style.
    ///
    /// # Errors
    /// Returns the first error of `out`.
    pub(super) fn write(&self, out: &mut dyn Write, style: anstyle::Style, room: usize) -> io::Result<()> {
        let times = Safe(&self.times);
        if self.function.is_empty() {
            return writeln!(out, "{FAINT}{}{times}{FAINT:#}", Safe(&self.position));
        }
        let room = room.saturating_sub(self.times.chars().count());
        write_function_and_position(out, style, (&self.function, &self.position), room)?;
        writeln!(out, "{FAINT}{times}{FAINT:#}")
    }
}

/// Writes a function and its position, if that is known, so that both fit into `room` columns.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write_function_and_position(
    out: &mut dyn Write,
    style: anstyle::Style,
    (function, position): (&str, &str),
    room: usize,
) -> io::Result<()> {
    let (function, position) = fitting_names(function, position, room.saturating_sub(2));
    write!(out, "{style}{}{style:#}", Safe(&function))?;
    if position.is_empty() {
        return Ok(());
    }
    write!(out, "  {FAINT}{}{FAINT:#}", Safe(&position))
}
