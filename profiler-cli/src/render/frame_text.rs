//! A frame as text. In: a [`StackFrame`]. Out: its function, its position and the number of frames
//! that it stands for, in one line.

use std::io::{self, Write};

use super::text_width::{cut_end, fitting_names};
use super::{FAINT, source_position};
use crate::analyze::frame_table::StackFrame;
use crate::units::{Safe, count};

/// The texts of a frame.
pub(super) struct FrameTexts {
    /// The function; empty for folded frames that own code has not called.
    function: String,
    /// Its position in the source, or its module if that is not known. Without a function, the
    /// crates of the folded frames.
    pub(super) position: String,
    /// The frames that it stands for; empty for one frame.
    times: String,
}

impl FrameTexts {
    /// Makes the texts of a frame that stands for so many frames, on the stacks that have it.
    pub(super) fn of(frame: &StackFrame, (fewest, most): (u32, u32)) -> FrameTexts {
        let most_text = count(most.into());
        let range =
            if fewest < most { format!("{} to {most_text}", count(fewest.into())) } else { most_text };
        if !frame.folded_crates.is_empty() && most > 1 {
            let frames = format!("… {range} frames of {}", frame.folded_crates.join(", "));
            return match frame.module.is_empty() {
                true => FrameTexts { function: String::new(), position: frames, times: String::new() },
                false => FrameTexts {
                    function: frame.function.clone(),
                    position: String::new(),
                    times: format!("  {frames}"),
                },
            };
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
        if self.function.is_empty() {
            return writeln!(out, "{FAINT}{}{FAINT:#}", Safe(&cut_end(&self.position, room)));
        }
        // Of the crates of a fold, the end may go. The number of repeats stays.
        let times = match self.position.is_empty() {
            true => cut_end(&self.times, room.saturating_sub(self.function.chars().count()).max(SHORTEST)),
            false => self.times.clone(),
        };
        let room = room.saturating_sub(times.chars().count());
        write_function_and_position(out, style, (&self.function, &self.position), room)?;
        writeln!(out, "{FAINT}{}{FAINT:#}", Safe(&times))
    }
}

/// The fewest columns for the frames of a fold.
const SHORTEST: usize = 18;

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
    let gap = if position.is_empty() { 0 } else { 2 };
    let (function, position) = fitting_names(function, position, room.saturating_sub(gap));
    write!(out, "{style}{}{style:#}", Safe(&function))?;
    if position.is_empty() {
        return Ok(());
    }
    write!(out, "  {FAINT}{}{FAINT:#}", Safe(&position))
}
