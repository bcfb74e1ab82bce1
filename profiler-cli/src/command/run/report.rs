//! The report after a run, in a process of its own. In: an [`AfterRun`] on stdin. Out: text on
//! stderr, and a flamegraph beside the dump.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::Report;
use super::finish::AfterRun;
use super::recording::RecordedProgram;
use super::table::write_table;
use crate::analyze::filter::Filter;
use crate::analyze::flame::{Metric, flame};
use crate::analyze::holders::JudgedBlocks;
use crate::analyze::leaks::{LeakSelection, leaks};
use crate::analyze::lines::{LineSelection, lines};
use crate::analyze::shown::Folding;
use crate::analyze::site::add_evidence;
use crate::analyze::summary::summary;
use crate::analyze::suppressions::Suppressions;
use crate::command::flamegraph::{FlameFormat, default_output};
use crate::command::input::LoadedDump;
use crate::command::judged::{ListedBlocks, SnapshotChoice};
use crate::command::output::{Audience, DEFAULT_TOP, text_width, write_file};
use crate::command::sources::SourceFiles;
use crate::command::{Failure, print_message};
use crate::dumps::open::writer_of;
use crate::load::LoadOptions;
use crate::names::evidence::KeptEvidence;
use crate::profile::ShortLivedWithin;
use crate::render::leaks_text::{self, LeaksShape};
use crate::render::lines_text::Shape;
use crate::render::{flame_svg, lines_text, summary_text};
use crate::source::SourceSearch;
use crate::units::Safe;

/// The main function of a process that makes a report. `color` is the value of `--color`.
pub fn report_process(color: Option<&OsString>) -> ExitCode {
    match color.and_then(|color| color.to_str()) {
        Some("always") => anstream::ColorChoice::Always.write_global(),
        Some("never") => anstream::ColorChoice::Never.write_global(),
        _ => {}
    }
    match AfterRun::read().map_err(Failure::Input).and_then(|after| report(&after)) {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => {
            print_message(Safe(&format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

fn report(after: &AfterRun) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(anstream::AutoStream::auto(io::stderr()));
    let [program] = after.programs.as_slice() else {
        write_table(&mut out, &after.programs)?;
        out.flush()?;
        return Ok(());
    };
    let dump = main_dump(program).context("no dump")?;
    let symbols = after.symbols();
    let short_lived = Some(ShortLivedWithin::default());
    let choice = SnapshotChoice::default();
    let snapshot = choice.find(dump)?;
    let blocks = SnapshotChoice::blocks_for(snapshot.as_ref());
    let loading = LoadOptions { short_lived, resizes: true, blocks, ..LoadOptions::default() };
    let loaded = LoadedDump::open(dump, loading, symbols.options())?;
    let sources = SourceFiles::of(&loaded.profile, SourceSearch::default());
    choice.judge(&loaded, snapshot.as_ref(), symbols.options(), ListedBlocks::AtEnd, |judged| {
        write_report(&mut out, &loaded, &sources, dump, after.report, judged)
    })??;
    out.flush()?;
    // After the report, so that the report does not wait for the source to be parsed.
    if let Some(folder) = symbols.options().cache_dir {
        keep_evidence(&loaded, &sources, &folder);
    }
    Ok(())
}

/// Returns the program's own dump, or the first dump if the program itself has none.
pub(super) fn main_dump(program: &RecordedProgram) -> Option<&Path> {
    let of_program = |dump: &&Path| {
        writer_of(dump).is_ok_and(|writer| writer.is_some_and(|writer| writer.pid == program.pid))
    };
    program.dumps().find(of_program).or_else(|| program.dumps().next())
}

/// Keeps evidence of the program's sites in the cache folder: now the source is most likely still
/// the one that was compiled.
fn keep_evidence(loaded: &LoadedDump, sources: &SourceFiles, folder: &Path) {
    let LoadedDump { profile, stacks } = loaded;
    let build_ids = profile.modules.iter().map(|module| module.build_id.as_slice());
    let mut kept = KeptEvidence::load(folder, build_ids);
    add_evidence(profile, stacks, sources, &mut kept);
    // If the folder cannot be written, the symbols were not cached either. The report says so.
    let _ = kept.store(folder);
}

fn write_report(
    out: &mut dyn Write,
    loaded: &LoadedDump,
    sources: &SourceFiles,
    dump: &Path,
    report: Report,
    judged: Option<&JudgedBlocks<'_>>,
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
        let shape = Shape { width: text_width(io::stderr()), ..Shape::default() };
        lines_text::write_function(out, function, &shape)?;
        writeln!(out)?;
    }
    let suppressed = Suppressions::defaults().apply(profile, stacks, sources);
    let shortest = LeakSelection {
        top: Some(DEFAULT_TOP / 2),
        stacks: Some(leaks_text::STACKS),
        suppressed: Some(&suppressed),
        judged,
        ..LeakSelection::default()
    };
    let shape = LeaksShape { width: text_width(io::stderr()), ..LeaksShape::default() };
    leaks_text::write(out, &leaks(profile, stacks, &filter, shortest), &shape)?;
    writeln!(out)?;
    let svg = default_output(dump, Metric::Peak, FlameFormat::Svg);
    let flame = flame(profile, stacks, &filter, Metric::Peak, Folding::default(), None);
    write_file(&svg, dump, Audience::Programs, |out| flame_svg::write(out, &flame))?;
    writeln!(out, "flamegraph: {}", Safe(&svg.to_string_lossy()))?;
    Ok(())
}
