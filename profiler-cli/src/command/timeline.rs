//! `profiler-cli timeline`: load, analyze, draw. Symbols are not needed.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::read::{load_dump, stdout_for, write_to};
use super::{Failure, say};
use crate::analyze;
use crate::cli::{TimelineArgs, TimelineFormat};
use crate::profile::Profile;
use crate::render::{json, timeline_csv, timeline_svg, timeline_text};
use crate::units::Safe;

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
    let asked = match (args.json, args.csv) {
        (true, _) => Some(TimelineFormat::Json),
        (_, true) => Some(TimelineFormat::Csv),
        _ => args.format,
    };
    let extension = extension_of(args.output.as_deref());
    let format = match (asked, format_of(&extension)) {
        (Some(asked), Some(named)) if asked != named && !extension.is_empty() => {
            return Err(anyhow::anyhow!(
                "a .{extension} file would have another shape than what was asked for"
            )
            .into());
        }
        (Some(asked), _) => asked,
        (None, Some(named)) => named,
        (None, None) => {
            return Err(anyhow::anyhow!(
                "cannot tell the shape of a .{extension} file: give it with --format"
            )
            .into());
        }
    };
    let draw = |out: &mut dyn Write| -> io::Result<()> {
        match format {
            TimelineFormat::Text => timeline_text::write(out, &timeline, &args.series, size(args)),
            TimelineFormat::Svg => timeline_svg::write(out, &timeline, &args.series),
            TimelineFormat::Csv => timeline_csv::write(out, &timeline),
            TimelineFormat::Json => json::write(out, &timeline),
        }
    };
    match &args.output {
        // A file has no colours.
        Some(path) if path != Path::new("-") && format == TimelineFormat::Text => {
            let mut plain = anstream::StripStream::new(Vec::new());
            draw(&mut plain)?;
            write_to(path, &args.dump, |out| out.write_all(&plain.into_inner()))?;
        }
        Some(path) if path != Path::new("-") => write_to(path, &args.dump, draw)?,
        _ => {
            let mut out = stdout_for(format != TimelineFormat::Text);
            draw(&mut out)?;
            out.flush()?;
        }
    }
    say_warnings(&profile);
    Ok(ExitCode::SUCCESS)
}

fn say_warnings(profile: &Profile) {
    for warning in analyze::summary::warnings_of_recording(profile) {
        say(Safe(&warning));
    }
}

/// By the end of the file's name; `None` if that says nothing.
fn format_of(extension: &str) -> Option<TimelineFormat> {
    match extension {
        "" | "txt" => Some(TimelineFormat::Text),
        "svg" => Some(TimelineFormat::Svg),
        "csv" => Some(TimelineFormat::Csv),
        "json" => Some(TimelineFormat::Json),
        _ => None,
    }
}

fn extension_of(output: Option<&Path>) -> String {
    let extension = output.and_then(Path::extension);
    extension.map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default()
}

fn size(args: &TimelineArgs) -> timeline_text::Size {
    let terminal = || terminal_size::terminal_size().map(|(width, _)| width.0.clamp(30, 1000));
    let width = args.width.or_else(terminal).unwrap_or(100);
    timeline_text::Size { width: usize::from(width), height: usize::from(args.height) }
}
