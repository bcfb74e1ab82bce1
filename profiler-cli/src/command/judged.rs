//! Blocks judged by a snapshot, for the commands that say what holds memory. In: a dump, and the
//! snapshots beside it. Out: verdicts. Notes about snapshots that are of no use go to stderr.

use std::path::Path;

use anyhow::bail;
use clap::Args;

use super::input::{InputArgs, LoadedDump};
use super::print_message;
use crate::analyze::filter::Filter;
use crate::analyze::held::{
    BlockGraph, GraphBuilder, ImageMemory, ImageTrust, Judgement, RootNames, SecondLook, USUAL_TLS_SIZE,
};
use crate::analyze::holders::{JudgedBlocks, SnapshotInfo};
use crate::dumps::snapshot::{SnapshotFile, find_snapshots};
use crate::load::{KeepBlocks, LoadOptions};
use crate::names::symbolize::SymbolizeOptions;
use crate::names::variables::Variables;
use crate::profile::{Profile, SnapshotBlocks};
use crate::units::Safe;

/// The choice of a snapshot.
#[derive(Clone, Debug, Default, Args)]
pub struct SnapshotChoice {
    /// Judge by the snapshot with this name or number, and list what was live then, or the blocks
    /// of the interval. [default: the last snapshot of the dump; `leaks` then lists what is live at
    /// the end]
    #[arg(long, value_name = "NAME", help_heading = "Snapshot")]
    pub snapshot: Option<String>,
}

/// The blocks that a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedBlocks {
    /// Those that are live at the end, or those of the interval. If the user has named a snapshot
    /// and no interval, those that were live at the snapshot.
    AtEnd,
    /// Those that were live at the snapshot.
    AtSnapshot,
}

/// What to say if a command needs a snapshot and there is none.
pub const NO_SNAPSHOT: &str = "without a snapshot it is not known what holds memory: take one with `profiler-cli run --snapshot-at-end` or, while the program runs, with `profiler-cli snapshot PID`";

impl SnapshotChoice {
    /// Loads the dump with the blocks that its snapshot needs, for a report about the moment of the
    /// snapshot. The second value is `None` if the dump has no snapshot.
    ///
    /// # Errors
    /// As [`InputArgs::load`], if there is no snapshot with the name that was given, and if the
    /// user has named an interval or another moment.
    pub fn load(
        &self,
        input: &InputArgs,
        loading: LoadOptions,
    ) -> anyhow::Result<(LoadedDump, Option<SnapshotFile>, Filter)> {
        if input.time.period().is_some() {
            bail!(
                "this report is about the moment of a snapshot: choose one with --snapshot, without --from, --to and --at"
            );
        }
        let file = self.find(&input.dump.path)?;
        let blocks = SnapshotChoice::blocks_for(file.as_ref());
        let dump = input.open_another(&input.dump.path, LoadOptions { blocks, ..loading })?;
        let filter = input.filter_for(&dump, &[])?;
        Ok((dump, file, filter))
    }

    /// Returns the blocks that the snapshot needs; none without a snapshot.
    pub fn blocks_for(file: Option<&SnapshotFile>) -> KeepBlocks {
        let Some(file) = file else { return KeepBlocks::default() };
        let first = file.contents.header.snapshot;
        let ids = (0..file.contents.images.len().min(2) as u32).map(|at| first.saturating_add(at));
        KeepBlocks::AtEndAndSnapshots(ids.collect())
    }

    /// Finds the snapshot: the last one with the name, or the last one.
    ///
    /// # Errors
    /// If there is no snapshot with the name that was given.
    pub fn find(&self, dump: &Path) -> anyhow::Result<Option<SnapshotFile>> {
        let mut names = Vec::new();
        for (id, path) in find_snapshots(dump).into_iter().rev() {
            let file = match SnapshotFile::read(&path) {
                Ok(file) if file.is_of(dump) => file,
                Ok(_) => {
                    let path = path.to_string_lossy();
                    print_message(format_args!(
                        "{} belongs to another recording; it is not used",
                        Safe(&path)
                    ));
                    continue;
                }
                Err(error) => {
                    print_message(Safe(&format!("{error}; it is not used")));
                    continue;
                }
            };
            let name = String::from_utf8_lossy(&file.contents.name).into_owned();
            let is_wanted =
                self.snapshot.as_ref().is_none_or(|wanted| *wanted == name || *wanted == id.to_string());
            if is_wanted {
                return Ok(Some(file));
            }
            names.push(format!("'{name}' ({id})"));
        }
        names.reverse();
        match &self.snapshot {
            None => Ok(None),
            Some(_) if names.is_empty() => {
                bail!("{}: the dump has no snapshot; {NO_SNAPSHOT}", dump.display())
            }
            Some(name) => {
                bail!("{}: no snapshot is named '{name}'; there are: {}", dump.display(), names.join(", "))
            }
        }
    }

    /// Judges the blocks by the snapshot, and hands the result to `report`.
    ///
    /// # Errors
    /// If the snapshot or symbols cannot be read.
    pub fn judge<R>(
        &self,
        dump: &LoadedDump,
        file: Option<&SnapshotFile>,
        symbols: SymbolizeOptions,
        listed: ListedBlocks,
        report: impl FnOnce(Option<&JudgedBlocks<'_>>) -> R,
    ) -> anyhow::Result<R> {
        let Some(file) = file else { return Ok(report(None)) };
        let header = &file.contents.header;
        let Some(first) = blocks_at(&dump.profile, header.snapshot) else {
            print_message(format_args!(
                "{}: the snapshot was taken outside of what was read of the dump; it is not used",
                Safe(&file.path.to_string_lossy())
            ));
            return Ok(report(None));
        };
        let variables = Variables::read(&dump.profile, symbols)?;
        let second = blocks_at(&dump.profile, header.snapshot.saturating_add(1))
            .filter(|_| file.contents.images.len() > 1);
        let (first_image, second) = std::thread::scope(|scope| {
            let look = second.map(|second| {
                scope.spawn(|| {
                    let (graph, trust) = read_image(file, 1, second, &variables)?;
                    anyhow::Ok(SecondLook::new(&second.blocks, graph, trust))
                })
            });
            let first_image = read_image(file, 0, first, &variables);
            (
                first_image,
                look.map(|look| look.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
            )
        });
        let (graph, trust) = first_image?;
        let second = second.transpose()?;
        let nothing_is_lost = why_nothing_is_lost(&dump.profile, trust, second.as_ref(), file);
        let trust = ImageTrust { is_complete: trust.is_complete && !misses_events(&dump.profile), ..trust };
        let image = &file.contents.images[0];
        let names = RootNames {
            statics: &variables.statics,
            thread_locals: &variables.thread_locals,
            regions: &image.regions,
            threads: &image.threads,
        };
        let judgement = Judgement::new(&first.blocks, graph, trust, second.as_ref(), &names);
        let snapshot = SnapshotInfo {
            id: header.snapshot,
            name: String::from_utf8_lossy(&file.contents.name).into_owned(),
            ns: first.us * 1000,
            lists_its_blocks: match listed {
                ListedBlocks::AtSnapshot => true,
                ListedBlocks::AtEnd => self.snapshot.is_some() && dump.profile.interval.is_none(),
            },
            nothing_is_lost: nothing_is_lost.map(str::to_owned),
        };
        let at_end = dump.profile.blocks.as_ref().map_or(&[][..], |blocks| &blocks.at_end);
        Ok(report(Some(&JudgedBlocks { judgement: &judgement, snapshot, at_end })))
    }
}

fn blocks_at(profile: &Profile, id: u32) -> Option<&SnapshotBlocks> {
    profile.blocks.as_ref()?.at_snapshots.iter().find(|snapshot| snapshot.id == id)
}

/// Reads the words of an image.
fn read_image(
    file: &SnapshotFile,
    index: usize,
    blocks: &SnapshotBlocks,
    variables: &Variables,
) -> anyhow::Result<(BlockGraph, ImageTrust)> {
    let image = &file.contents.images[index];
    let memory = ImageMemory {
        regions: &image.regions,
        threads: &image.threads,
        pid: file.contents.header.pid,
        tls_size: variables.tls_size.max(USUAL_TLS_SIZE),
        writable_segments: &variables.writable,
    };
    let mut builder = GraphBuilder::new(&blocks.blocks, &memory);
    let is_whole = file.visit_words(index, |place, value| builder.add(place, value))?;
    let is_complete =
        is_whole && image.complete && image.unread.is_empty() && !image.head.misses_tracker_mappings;
    Ok((builder.finish(), ImageTrust::of(is_complete, &image.threads, blocks.begun_us)))
}

/// Whether a block that is live in the dump may have been freed long ago.
fn misses_events(profile: &Profile) -> bool {
    profile.trust.lost_events > 0 || profile.trust.has_loss() || profile.trust.freed_elsewhere > 0
}

/// Returns why no block can be called lost, if that is so.
fn why_nothing_is_lost(
    profile: &Profile,
    trust: ImageTrust,
    second: Option<&SecondLook>,
    file: &SnapshotFile,
) -> Option<&'static str> {
    if misses_events(profile) {
        Some("events are missing, so some blocks may have been freed long ago")
    } else if file.contents.images.iter().take(2).any(|image| image.head.misses_tracker_mappings) {
        Some("the recorder has more memory of its own than it could tell")
    } else if !trust.is_complete || second.is_some_and(|second| !second.is_complete()) {
        Some("a part of the memory could not be read")
    } else if !trust.has_registers && second.is_none() {
        Some("the snapshot has one copy of the process, and no registers")
    } else {
        None
    }
}
