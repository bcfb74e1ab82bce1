//! The leak report as text. In: [`Leaks`]. Out: text for people.

use std::io::{self, Write};

use super::frame_text::FrameTexts;
use super::growth_text;
use super::holders_text;
use super::suppressed_text;
use super::text_width::{TextWidth, cut_path, wrapped, write_paragraph};
use super::{FAINT, GROWTH, HEADING, OWN, percent, source_position};
use crate::analyze::frame_table::StackFrame;
use crate::analyze::interval::live_title;
use crate::analyze::leaks::{Leak, LeakStack, Leaks};
use crate::units::{Safe, bytes, bytes_exactly, more, plural, time};

/// The shape of the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaksShape {
    /// The columns that lines may have where names can be cut.
    pub width: TextWidth,
    /// Whether the report begins with the name of the dump, because it is one of several.
    pub with_heading: bool,
    /// Whether long stacks have all of their frames.
    pub whole_stacks: bool,
}

/// Writes the report.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, leaks: &Leaks, shape: &LeaksShape) -> io::Result<()> {
    let width = shape.width;
    if shape.with_heading {
        let heading = format!("{}: {} (process {})", leaks.dump, leaks.command, leaks.pid);
        writeln!(out, "{HEADING}{}{HEADING:#}", Safe(&heading))?;
    }
    write_headline(out, leaks, width)?;
    growth_text::write_summary(out, leaks, width)?;
    for (at, leak) in leaks.leaks.iter().enumerate() {
        write_leak(out, at + 1, leak, leaks, shape)?;
    }
    if leaks.omitted > 0 {
        let all = leaks.leaks.len() + leaks.omitted;
        writeln!(out, "\n{}; --top {all} shows all.", more(leaks.omitted as u64, "site"))?;
    }
    if leaks.runtime_blocks > 0 && !leaks.leaks.is_empty() {
        writeln!(out, "\n{}", of_the_runtime(leaks))?;
    }
    suppressed_text::write(out, &leaks.suppressed, width)?;
    holders_text::write_notes(out, leaks, width)?;
    if !leaks.complete && leaks.total_blocks == 0 {
        writeln!(out, "\nThe recording is not complete: what happened after its end is not known.")?;
    } else if !leaks.complete {
        writeln!(out, "\nThe recording is not complete: some of these may have been freed after its end.")?;
    }
    Ok(())
}

fn write_headline(out: &mut dyn Write, leaks: &Leaks, width: TextWidth) -> io::Result<()> {
    let snapshot = leaks.snapshot.as_ref().filter(|snapshot| snapshot.lists_its_blocks);
    let at_snapshot = snapshot.map(|snapshot| format!("at {}", holders_text::snapshot_name(snapshot)));
    let is_live = match &leaks.interval {
        _ if at_snapshot.is_some() => format!("was live {}", at_snapshot.as_deref().unwrap_or_default()),
        Some(interval) if interval.still_live => {
            format!("was born {} and is still live at the end", interval.name())
        }
        Some(interval) if interval.from.is_none() => format!("is live at {}", interval.end_name()),
        Some(interval) => format!("was born {} and is live then", interval.name()),
        None if leaks.complete => "is live at the end".to_owned(),
        None => "is live where the records end".to_owned(),
    };
    if leaks.total_blocks == 0 && leaks.grown_blocks == 0 {
        let is_suppressed = leaks.suppressed.blocks + leaks.suppressed.grown_blocks > 0;
        let what = match (leaks.filtered, is_suppressed) {
            (false, false) => "Nothing",
            (false, true) => "Nothing but what is suppressed",
            (true, false) => "Nothing that the filter lets through",
            (true, true) => "Nothing that the filter lets through, but what is suppressed,",
        };
        return writeln!(out, "{what} {}.", Safe(&is_live));
    }
    if leaks.leaks.is_empty() && leaks.omitted == 0 && leaks.growth.is_none() {
        let nothing = format!("Nothing of the program's own {is_live}. {}", of_the_runtime(leaks));
        return write_paragraph(out, "", &Safe(&nothing).to_string(), width);
    }
    let growth = match leaks.grown_blocks {
        0 => String::new(),
        blocks => {
            let older = plural(blocks, "older block");
            format!("; {older} grew by {}", bytes_exactly(leaks.grown_bytes))
        }
    };
    let filtered = if leaks.filtered { ", of what the filter lets through" } else { "" };
    let title = match at_snapshot {
        Some(at) => format!("Live {at}"),
        None => live_title(leaks.interval.as_ref()),
    };
    let (bytes, blocks) = (bytes_exactly(leaks.total_bytes), plural(leaks.total_blocks, "block"));
    let headline = format!("{title}{filtered}: {bytes} in {blocks}{growth}");
    for line in wrapped(&Safe(&headline).to_string(), width.columns()) {
        writeln!(out, "{HEADING}{line}{HEADING:#}")?;
    }
    Ok(())
}

/// Returns a sentence about the blocks that have no row.
fn of_the_runtime(leaks: &Leaks) -> String {
    let (bytes, blocks) = (bytes_exactly(leaks.runtime_bytes), plural(leaks.runtime_blocks, "block"));
    format!("The runtime keeps {bytes} in {blocks}; --full lists them.")
}

fn write_leak(
    out: &mut dyn Write,
    number: usize,
    leak: &Leak,
    leaks: &Leaks,
    shape: &LeaksShape,
) -> io::Result<()> {
    let width = shape.width;
    let site = source_position(leak.file.as_deref(), leak.line);
    let size = bytes_exactly(leak.bytes + leak.grown_bytes);
    let share = percent(leak.bytes + leak.grown_bytes, leaks.total_bytes + leaks.grown_bytes);
    let rest = format!(", {share}, {}", in_blocks(leak.blocks, leak.grown_blocks));
    write!(out, "\n{number:>3}. {GROWTH}{size}{GROWTH:#}{rest}")?;
    if site.is_empty() {
        writeln!(out)?;
    } else {
        let room = width.columns().saturating_sub(5 + size.len() + rest.len() + 4);
        writeln!(out, " at {}", Safe(&cut_path(&site, room)))?;
    }
    writeln!(
        out,
        "     {FAINT}first after {}, last after {}{FAINT:#}",
        time(leak.first_ns),
        time(leak.last_ns)
    )?;
    growth_text::write_growth(out, leak, width)?;
    if leaks.snapshot.is_some() {
        holders_text::write_verdict(out, leak, width)?;
    }
    let listed = leak.stacks.len().min(STACKS);
    for stack in &leak.stacks[..listed] {
        if leak.stack_count > 1 {
            let size = bytes(stack.bytes + stack.grown_bytes);
            writeln!(out, "     {size} {}:", in_blocks(stack.blocks, stack.grown_blocks))?;
        }
        write_stack(out, stack, leaks, shape)?;
    }
    if leak.stack_count > listed as u64 {
        let known: u64 = leak.stacks[..listed].iter().map(|stack| stack.bytes + stack.grown_bytes).sum();
        let rest = more(leak.stack_count - listed as u64, "stack");
        writeln!(
            out,
            "     … {rest} with {}; --json has them",
            bytes(leak.bytes + leak.grown_bytes - known)
        )?;
    }
    Ok(())
}

/// Returns what the bytes of a row are: new blocks, the growth of older ones, or both.
fn in_blocks(blocks: u64, grown: u64) -> String {
    let growth = format!("by the growth of {}", plural(grown, "older block"));
    match (blocks, grown) {
        (_, 0) => format!("in {}", plural(blocks, "block")),
        (0, _) => growth,
        _ => format!("in {} and {growth}", plural(blocks, "block")),
    }
}

/// Number of stacks that are shown of each site.
pub const STACKS: usize = 3;

fn write_stack(out: &mut dyn Write, stack: &LeakStack, leaks: &Leaks, shape: &LeaksShape) -> io::Result<()> {
    let width = shape.width;
    let frame = |at: usize| &leaks.frames[stack.frames[at] as usize];
    let shown = stack.frames.len();
    let all = shown + stack.omitted_frames;
    let mut write = |at: usize| write_frame(out, frame(at), (stack.fewest[at], stack.times[at]), width);
    if all <= INNERMOST + OUTERMOST + 1 || shape.whole_stacks && stack.omitted_frames == 0 {
        return (0..shown).try_for_each(write);
    }
    (0..INNERMOST).try_for_each(&mut write)?;
    let between = plural((all - INNERMOST - OUTERMOST) as u64, "frame");
    writeln!(out, "       … {FAINT}{between} between; --full has all{FAINT:#}")?;
    (shown - OUTERMOST..shown)
        .try_for_each(|at| write_frame(out, frame(at), (stack.fewest[at], stack.times[at]), width))
}

fn write_frame(
    out: &mut dyn Write,
    frame: &StackFrame,
    times: (u32, u32),
    width: TextWidth,
) -> io::Result<()> {
    let mut texts = FrameTexts::of(frame, times);
    if frame.inlined && frame.folded_crates.is_empty() {
        texts.position.push_str(" (inlined)");
    }
    write!(out, "{:MARGIN$}", "")?;
    texts.write(out, if frame.own { OWN } else { FAINT }, width.columns().saturating_sub(MARGIN))
}

/// Number of columns before a frame.
const MARGIN: usize = 7;
/// Number of frames shown at the leaf end of a long stack, where the allocation happens.
const INNERMOST: usize = 20;
/// Number of frames shown at the root end of a long stack.
const OUTERMOST: usize = 4;
