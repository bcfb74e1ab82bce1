//! The report after a run. In: the closed dumps. Out: text on stderr and a flamegraph beside the
//! dump.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{RecordingArgs, Report};
use crate::analyze::filter::Filter;
use crate::analyze::flame::{Metric, flame};
use crate::analyze::leaks::{LeakSelection, leaks};
use crate::analyze::lines::{LineSelection, lines};
use crate::analyze::shown::Folding;
use crate::analyze::site::add_evidence;
use crate::analyze::summary::summary;
use crate::command::Failure;
use crate::command::flamegraph::default_svg_path;
use crate::command::input::LoadedDump;
use crate::command::output::{Audience, DEFAULT_TOP, text_width, write_file};
use crate::command::sources::SourceFiles;
use crate::dumps::open::writer_of;
use crate::load::LoadOptions;
use crate::names::evidence::KeptEvidence;
use crate::profile::ShortLivedWithin;
use crate::render::lines_text::Shape;
use crate::render::{flame_svg, leaks_text, lines_text, summary_text};
use crate::source::SourceSearch;
use crate::units::Safe;

/// A dump that was reported on, with the sources of its program.
pub(super) struct ReportedDump {
    loaded: LoadedDump,
    sources: SourceFiles,
}

/// Reports on the program's own dump, or on the first dump if the program has none. Prints the
/// names of all dumps. Returns the dump, unless the user wants no report.
///
/// # Errors
/// If the dump cannot be read, or if stderr or the flamegraph cannot be written.
pub(super) fn print_report(
    dumps: &[PathBuf],
    pid: u32,
    recording: &RecordingArgs,
) -> Result<Option<ReportedDump>, Failure> {
    let of_program =
        |dump: &&PathBuf| writer_of(dump).is_ok_and(|writer| writer.is_some_and(|writer| writer.pid == pid));
    let main = dumps.iter().find(of_program).or(dumps.first()).context("no dump")?;
    let mut out = io::BufWriter::new(anstream::AutoStream::auto(io::stderr()));
    let mut reported = None;
    if recording.report != Report::None {
        let short_lived = Some(ShortLivedWithin::default());
        let loading = LoadOptions { short_lived, ..LoadOptions::default() };
        let loaded = LoadedDump::open(main, loading, recording.symbols.options())?;
        let sources = SourceFiles::of(&loaded.profile, SourceSearch::default());
        write_report(&mut out, &loaded, &sources, main, recording.report)?;
        reported = Some(ReportedDump { loaded, sources });
    }
    for dump in dumps {
        writeln!(out, "dump: {}", Safe(&dump.to_string_lossy()))?;
    }
    out.flush()?;
    Ok(reported)
}

impl ReportedDump {
    /// Keeps evidence of the program's sites in the cache folder `dir`: now the source is most
    /// likely still the one that was compiled.
    pub(super) fn keep_evidence(&self, dir: &Path) {
        let LoadedDump { profile, stacks } = &self.loaded;
        let build_ids = profile.modules.iter().map(|module| module.build_id.as_slice());
        let mut kept = KeptEvidence::load(dir, build_ids);
        add_evidence(profile, stacks, &self.sources, &mut kept);
        // If the folder cannot be written, the symbols were not cached either. The report says so.
        let _ = kept.store(dir);
    }
}

fn write_report(
    out: &mut dyn Write,
    loaded: &LoadedDump,
    sources: &SourceFiles,
    dump: &Path,
    report: Report,
) -> Result<(), Failure> {
    let LoadedDump { profile, stacks } = loaded;
    let filter = Filter::default();
    writeln!(out)?;
    summary_text::write(out, &summary(profile, stacks, &filter, 5), text_width(io::stderr()))?;
    writeln!(out)?;
    if report != Report::Full {
        return Ok(());
    }
    let largest = LineSelection { top: Some(1), ..LineSelection::default() };
    let table = lines(profile, stacks, sources, &filter, &largest);
    if let Some(function) = table.functions.first() {
        lines_text::write_function(out, function, &Shape::default())?;
        writeln!(out)?;
    }
    let shortest = LeakSelection {
        top: Some(DEFAULT_TOP / 2),
        stacks: Some(leaks_text::STACKS),
        ..LeakSelection::default()
    };
    leaks_text::write(out, &leaks(profile, stacks, &filter, shortest), text_width(io::stderr()))?;
    writeln!(out)?;
    let svg = default_svg_path(dump);
    let flame = flame(profile, stacks, &filter, Metric::Peak, Folding::default(), None);
    write_file(&svg, dump, Audience::Programs, |out| flame_svg::write(out, &flame))?;
    writeln!(out, "flamegraph: {}", Safe(&svg.to_string_lossy()))?;
    Ok(())
}
