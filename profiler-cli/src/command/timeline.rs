//! `profiler-cli timeline`: load, analyze, draw. Symbols are not needed.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::read::{load_dump, stdout, write_to};
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
    let format = match asked {
        Some(format) => format,
        None => format_of(args.output.as_deref())?,
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
        Some(path) if path != Path::new("-") => {
            // A file has no colours.
            let mut plain = anstream::StripStream::new(Vec::new());
            draw(&mut plain)?;
            write_to(path, &args.dump, |out| out.write_all(&plain.into_inner()))?;
        }
        _ => {
            let mut out = stdout();
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

/// By the end of the file's name.
fn format_of(output: Option<&Path>) -> anyhow::Result<TimelineFormat> {
    let extension = output.and_then(Path::extension).map(|extension| extension.to_string_lossy());
    match extension.as_deref() {
        None | Some("txt") => Ok(TimelineFormat::Text),
        Some("svg") => Ok(TimelineFormat::Svg),
        Some("csv") => Ok(TimelineFormat::Csv),
        Some("json") => Ok(TimelineFormat::Json),
        Some(other) => bail!("cannot tell the shape of a .{other} file: give it with --format"),
    }
}

fn size(args: &TimelineArgs) -> timeline_text::Size {
    let terminal = || terminal_size::terminal_size().map(|(width, _)| width.0.clamp(30, 1000));
    let width = args.width.or_else(terminal).unwrap_or(100);
    timeline_text::Size { width: usize::from(width), height: usize::from(args.height) }
}
