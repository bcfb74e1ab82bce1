//! `profiler-cli timeline`: load, analyze, draw. Symbols are not needed.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::Failure;
use super::read::{load_dump, stdout, write_to};
use crate::analyze;
use crate::cli::{TimelineArgs, TimelineFormat};
use crate::render::{json, timeline_csv, timeline_svg, timeline_text};

/// `profiler-cli timeline`.
///
/// # Errors
/// See [`Failure`].
pub fn timeline(args: &TimelineArgs) -> Result<ExitCode, Failure> {
    let profile = load_dump(&args.dump, args.thread.as_ref())?;
    if let Some(pattern) = &args.function {
        analyze::timeline::check(&profile, pattern)
            .map_err(anyhow::Error::msg)
            .with_context(|| args.dump.display().to_string())?;
    }
    let timeline = analyze::timeline::timeline(&profile, args.function.as_ref());
    if args.json {
        let mut out = stdout();
        json::write(&mut out, &timeline)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let asked = if args.csv { Some(TimelineFormat::Csv) } else { args.format };
    let format = asked.unwrap_or_else(|| format_of(args.output.as_deref()));
    let draw = |out: &mut dyn Write| -> io::Result<()> {
        match format {
            TimelineFormat::Text => timeline_text::write(out, &timeline, &args.series, size(args)),
            TimelineFormat::Svg => timeline_svg::write(out, &timeline, &args.series),
            TimelineFormat::Csv => timeline_csv::write(out, &timeline),
        }
    };
    match &args.output {
        Some(path) if path != Path::new("-") => {
            // A file has no colours.
            let mut plain = anstream::StripStream::new(Vec::new());
            draw(&mut plain)?;
            write_to(path, |out| out.write_all(&plain.into_inner()))?;
        }
        _ => {
            let mut out = stdout();
            draw(&mut out)?;
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn format_of(output: Option<&Path>) -> TimelineFormat {
    match output.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("svg") => TimelineFormat::Svg,
        Some("csv") => TimelineFormat::Csv,
        _ => TimelineFormat::Text,
    }
}

fn size(args: &TimelineArgs) -> timeline_text::Size {
    let terminal = || terminal_size::terminal_size().map(|(width, _)| width.0.clamp(30, 1000));
    let width = args.width.or_else(terminal).unwrap_or(100);
    timeline_text::Size { width: usize::from(width), height: usize::from(args.height) }
}
