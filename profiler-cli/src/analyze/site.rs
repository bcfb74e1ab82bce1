//! The identity of a site across edits, builds and machines.
//!
//! In: a profile, its stacks, and source text. Out: for each site a [`SiteKey`] and, apart from the
//! key, its [`SiteEvidence`]. A key never contains an absolute line: every edit above a site moves
//! the site.
//!
//! ```text
//! 10  fn load(path: &Path) {            15  // New comment.
//! 11      let a = read(path);           16  fn load<T>(path: &Path) {
//! 12      let b = parse(&a);            17      let a = read(path);
//!                                       18      let b = parse(&a);
//! ```
//!
//! On both sides the calls are `(app::load, 0)` and `(app::load, 1)`, with relative lines 1 and 2.

use std::collections::{BTreeMap, BTreeSet};

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::analyze::canonical_name::canonical_function;
use crate::analyze::summary::with_ids;
use crate::names::code_owner::is_package_file;
use crate::names::evidence::{KeptEvidence, LineHash, SiteEvidence, SiteInBuild};
use crate::names::rust_path::source_name;
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::Profile;
use crate::source::Sources;

/// Identity of a site that survives edits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteKey {
    /// Name of the function without hashes, generic arguments and numbers of closures: see
    /// [`canonical_function`].
    pub function: String,
    /// Rank of the call among those of that function that allocate, in the order of their lines.
    /// The first rank is 0. Calls on one line are one site. A site without a line ranks after all
    /// others.
    ///
    /// If a call is added above, or if a call did not allocate in one of two recordings, all
    /// ordinals after it shift. The evidence of the sites shows such a shift.
    pub ordinal: u32,
}

/// The keys of all sites of a profile.
#[derive(Clone, Debug, Default)]
pub struct SiteKeys {
    by_frame: HashMap<FrameId, SiteKey>,
}

impl SiteKeys {
    /// Gives a key to the site of every stack that gave a block its size.
    pub fn of(profile: &Profile, stacks: &Stacks) -> SiteKeys {
        let names: BTreeMap<FrameId, String> = sites(profile, stacks)
            .into_keys()
            .map(|site| (site, canonical_function(&stacks.frame(site).function)))
            .collect();
        let mut by_function: HashMap<&str, BTreeSet<Position<'_>>> = HashMap::default();
        for (site, function) in &names {
            by_function.entry(function).or_default().insert(position(stacks.frame(*site)));
        }
        let mut ordinals: HashMap<(&str, Position<'_>), u32> = HashMap::default();
        for (function, positions) in by_function {
            ordinals.extend(positions.into_iter().zip(0..).map(|(at, ordinal)| ((function, at), ordinal)));
        }
        let key = |(site, function): (&FrameId, &String)| {
            let ordinal = ordinals[&(function.as_str(), position(stacks.frame(*site)))];
            (*site, SiteKey { function: function.clone(), ordinal })
        };
        SiteKeys { by_frame: names.iter().map(key).collect() }
    }

    /// Returns the key of a site; `None` if the frame is not the site of any stack that gave a
    /// block its size.
    pub fn key(&self, site: FrameId) -> Option<&SiteKey> {
        self.by_frame.get(&site)
    }
}

/// Position of a site, in the order in which the sites of a function rank: without a line last,
/// then by line, then by file. A function has lines of several files if it uses a macro from
/// another file.
type Position<'a> = (bool, Option<u32>, Option<&'a str>);

fn position(frame: &NamedFrame) -> Position<'_> {
    (frame.line.is_none(), frame.line, frame.file.as_deref())
}

/// Returns the sites of all stacks that gave a block its size, each with the index of its module.
fn sites(profile: &Profile, stacks: &Stacks) -> BTreeMap<FrameId, Option<u32>> {
    let mut sites = BTreeMap::new();
    for (stack, _) in with_ids(profile).filter(|(_, stats)| stats.gave_blocks_a_size()) {
        if let Some(site) = stacks.site(stack) {
            sites.entry(site).or_insert_with(|| module_of(profile, stacks, stack, site));
        }
    }
    sites
}

/// Returns the module of a frame on a stack: the module of the node whose address has the frame.
fn module_of(profile: &Profile, stacks: &Stacks, stack: StackId, frame: FrameId) -> Option<u32> {
    let mut nodes = std::iter::successors(Some(stack), |node| stacks.parent(*node));
    let node = nodes.find(|node| stacks.frames_of_node(*node).contains(&frame))?;
    profile.nodes.get(node.0 as usize)?.module
}

/// Adds to `kept` the evidence of the user's sites whose source is at hand. Does not read the
/// source of a site whose evidence is kept already.
///
/// PERF: files of packages from a registry are left out. Their paths name the version and their
/// text never changes, so today's source gives the same evidence. Parsing them took most of the
/// time: 0.2 s for the first recording of each build of a program that uses regex.
pub fn add_evidence(profile: &Profile, stacks: &Stacks, sources: &dyn Sources, kept: &mut KeptEvidence) {
    for (site, module) in sites(profile, stacks) {
        let frame = stacks.frame(site);
        let Some((build_id, site)) = build_of(profile, module).zip(site_in_build(frame)) else { continue };
        if !is_package_file(&site.file)
            && kept.get(build_id, &site).is_none()
            && kept.has_room(build_id)
            && let Some(evidence) = evidence_in_source(&site, sources)
        {
            kept.insert(build_id, site, evidence);
        }
    }
}

/// Returns the evidence of all sites by their keys. Kept evidence is preferred to evidence from
/// today's source. If several sites share a key, the key has the evidence of the first site.
pub fn evidence(
    profile: &Profile,
    stacks: &Stacks,
    keys: &SiteKeys,
    kept: &KeptEvidence,
    sources: &dyn Sources,
) -> BTreeMap<SiteKey, SiteEvidence> {
    let mut by_key = BTreeMap::new();
    for (frame, module) in sites(profile, stacks) {
        let Some((key, site)) = keys.key(frame).zip(site_in_build(stacks.frame(frame))) else { continue };
        if by_key.contains_key(key) {
            continue;
        }
        let known = build_of(profile, module).and_then(|build_id| kept.get(build_id, &site));
        if let Some(evidence) = known.or_else(|| evidence_in_source(&site, sources)) {
            by_key.insert(key.clone(), evidence);
        }
    }
    by_key
}

fn build_of(profile: &Profile, module: Option<u32>) -> Option<&[u8]> {
    let module = profile.modules.get(module? as usize)?;
    Some(&module.build_id)
}

/// Returns the position of a frame in its build; `None` without a file or a line.
fn site_in_build(frame: &NamedFrame) -> Option<SiteInBuild> {
    let (file, line) = frame.file.as_deref().zip(frame.line)?;
    Some(SiteInBuild { function: canonical_function(&frame.function), file: file.to_owned(), line })
}

/// Returns the evidence of a site from the source; `None` if the source is missing, or is visibly
/// not the source that was compiled.
fn evidence_in_source(site: &SiteInBuild, sources: &dyn Sources) -> Option<SiteEvidence> {
    let name = source_name(&site.function);
    let file = sources.file(&site.file);
    if file.is_missing() || file.is_newer_than_program() || file.is_another_file(name, site.line, site.line) {
        return None;
    }
    let text = LineHash::of(file.line(site.line)?);
    let extent = file.function(name, site.line, site.line);
    Some(SiteEvidence { relative_line: extent.map(|extent| site.line - extent.start), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::filter::Filter;
    use crate::analyze::site_table::{RunTable, SideTable};
    use crate::names::code_owner::CodeOwner;
    use crate::profile::{CallNode, Module, StackStats};
    use crate::source::SourcesInMemory;

    const FILE: &str = "/app/src/main.rs";

    /// Returns a recording with one stack for each call, which is a function, a file and a line;
    /// line 0 means that the line is not known.
    fn recording(calls: &[(&str, &str, u32)]) -> (Profile, Stacks) {
        let frame = |(function, file, line): &(&str, &str, u32)| NamedFrame {
            function: (*function).into(),
            file: Some((*file).into()),
            line: Some(*line).filter(|line| *line > 0),
            is_inlined: false,
            owner: CodeOwner::Own,
            module: "app".into(),
        };
        let frames: Vec<Vec<NamedFrame>> = calls.iter().map(|call| vec![frame(call)]).collect();
        let first = StackId::FIRST.0 as usize;
        let mut profile = Profile {
            nodes: vec![CallNode { module: Some(0), ..CallNode::default() }; first + calls.len()],
            stacks: vec![StackStats::default(); first],
            modules: vec![Module { build_id: vec![7; 20], ..Module::default() }],
            ..Profile::default()
        };
        profile.stacks.extend(calls.iter().map(|_| StackStats { allocations: 1, ..StackStats::default() }));
        (profile, Stacks::from_frames(&frames))
    }

    /// Returns the keys of the calls, in the order of the calls.
    fn keys(calls: &[(&str, &str, u32)]) -> Vec<(String, u32)> {
        let (profile, stacks) = recording(calls);
        let keys = SiteKeys::of(&profile, &stacks);
        let site = |at: usize| stacks.site(StackId(StackId::FIRST.0 + at as u32)).unwrap();
        let key = |at: usize| keys.key(site(at)).unwrap().clone();
        (0..calls.len()).map(key).map(|SiteKey { function, ordinal }| (function, ordinal)).collect()
    }

    fn work(ordinal: u32) -> (String, u32) {
        ("app::work".to_owned(), ordinal)
    }

    #[test]
    fn edits_that_keep_the_calls_keep_the_keys() {
        let before = keys(&[("app::work", FILE, 11), ("app::work", FILE, 12)]);
        assert_eq!(before, [work(0), work(1)]);
        let comment_above = keys(&[("app::work", FILE, 13), ("app::work", FILE, 14)]);
        let moved_down = keys(&[("app::work", FILE, 911), ("app::work", FILE, 912)]);
        let other_instance = keys(&[("app::work::<u8>", FILE, 11), ("app::work::<u16>", FILE, 12)]);
        let renamed_file =
            keys(&[("app::work", "/app/src/new.rs", 11), ("app::work", "/app/src/new.rs", 12)]);
        let hashes = keys(&[("app[1f]::work", FILE, 11), ("app::work::h0123456789abcdef", FILE, 12)]);
        for after in [comment_above, moved_down, other_instance, renamed_file, hashes] {
            assert_eq!(after, before);
        }
    }

    #[test]
    fn a_call_added_below_keeps_the_ordinals_above() {
        let calls = [("app::work", FILE, 12), ("app::work", FILE, 11), ("app::work", FILE, 15)];
        assert_eq!(keys(&calls), [work(1), work(0), work(2)], "ranks follow lines, not stacks");
    }

    #[test]
    fn instances_at_one_line_are_one_site_and_functions_rank_by_themselves() {
        let calls = [("app::work::<u8>", FILE, 12), ("app::work::<u16>", FILE, 12), ("app::main", FILE, 1)];
        assert_eq!(keys(&calls), [work(0), work(0), ("app::main".to_owned(), 0)]);
        let closures = keys(&[("app::work::{closure#0}", FILE, 12), ("app::work::{closure#3}", FILE, 14)]);
        assert_eq!(closures, [0, 1].map(|ordinal| ("app::work::{closure}".to_owned(), ordinal)));
        assert_eq!(keys(&[("app::work", FILE, 0), ("app::work", FILE, 12)]), [work(1), work(0)]);
    }

    #[test]
    fn a_frame_without_events_has_no_key() {
        let (mut profile, stacks) = recording(&[("app::work", FILE, 11)]);
        let site = stacks.site(StackId::FIRST).unwrap();
        profile.stacks.clear();
        assert_eq!(SiteKeys::of(&profile, &stacks).key(site), None);
    }

    #[test]
    fn a_site_that_only_frees_does_not_count() {
        let calls = [("app::work", FILE, 11), ("app::work", FILE, 12), ("app::work", FILE, 13)];
        let (mut profile, stacks) = recording(&calls);
        let freeing = StackId(StackId::FIRST.0 + 1);
        profile.stacks[freeing.0 as usize] = StackStats { deallocations: 9, ..StackStats::default() };
        let keys = SiteKeys::of(&profile, &stacks);
        let ordinal = |at: u32| {
            let site = stacks.site(StackId(StackId::FIRST.0 + at)).unwrap();
            keys.key(site).map(|key| key.ordinal)
        };
        assert_eq!([0, 1, 2].map(ordinal), [Some(0), None, Some(1)]);
        let table = RunTable::of(&profile, &stacks, &Filter::default(), &keys, &BTreeMap::new());
        let side = SideTable::of(vec![table]);
        let lines: Vec<_> = side.sites.iter().map(|site| (site.line, site.key.ordinal)).collect();
        assert_eq!(lines, [(Some(11), 0), (Some(13), 1)]);
    }

    const BEFORE: &str = "fn work() {\n    push(1);\n    push(2);\n}\n";

    fn evidence_of(
        calls: &[(&str, &str, u32)],
        kept: &KeptEvidence,
        text: &str,
    ) -> Vec<Option<(Option<u32>, LineHash)>> {
        let (profile, stacks) = recording(calls);
        let sources = SourcesInMemory::from_texts([(FILE, text)]);
        let keys = SiteKeys::of(&profile, &stacks);
        let by_key = evidence(&profile, &stacks, &keys, kept, &sources);
        let site = |at: usize| stacks.site(StackId(StackId::FIRST.0 + at as u32)).unwrap();
        let of_site = |at: usize| by_key.get(keys.key(site(at)).unwrap());
        (0..calls.len()).map(|at| of_site(at).map(|known| (known.relative_line, known.text))).collect()
    }

    #[test]
    fn evidence_moves_with_the_function() {
        let none = KeptEvidence::default();
        let before =
            evidence_of(&[("app::work", FILE, 2), ("app::work::{closure#0}", FILE, 3)], &none, BEFORE);
        let expected = [(Some(1), LineHash::of("push(1);")), (Some(2), LineHash::of("push(2);"))];
        assert_eq!(before, expected.map(Some));
        let moved = format!("// A comment.\n\nmod inner {{\n{BEFORE}}}\n");
        let after =
            evidence_of(&[("app::work", FILE, 5), ("app::work::{closure#0}", FILE, 6)], &none, &moved);
        assert_eq!(after, before);
        let text_only = evidence_of(&[("app::work", FILE, 1)], &none, "push(1);\n");
        assert_eq!(text_only, [Some((None, LineHash::of("push(1);")))], "no function is in this source");
        assert_eq!(evidence_of(&[("app::work", FILE, 9)], &none, BEFORE), [None], "the file is too short");
    }

    #[test]
    fn source_that_never_changes_is_not_kept() {
        const PACKAGE: &str = "/home/a/.cargo/registry/src/index-1/app-1.0.0/src/lib.rs";
        let (profile, stacks) = recording(&[("app::work", PACKAGE, 2)]);
        let sources = SourcesInMemory::from_texts([(PACKAGE, BEFORE)]);
        let mut kept = KeptEvidence::default();
        add_evidence(&profile, &stacks, &sources, &mut kept);
        let keys = SiteKeys::of(&profile, &stacks);
        let of = |sources: &SourcesInMemory| evidence(&profile, &stacks, &keys, &kept, sources);
        assert!(of(&SourcesInMemory::default()).is_empty());
        assert_eq!(of(&sources).len(), 1, "today's source has it");
    }

    #[test]
    fn kept_evidence_wins_over_todays_source() {
        let calls = [("app::work", FILE, 2)];
        let (profile, stacks) = recording(&calls);
        let mut kept = KeptEvidence::default();
        let sources = SourcesInMemory::from_texts([(FILE, BEFORE)]);
        add_evidence(&profile, &stacks, &sources, &mut kept);
        let today = "fn work() {\n    entirely_different();\n}\n";
        let taken = Some((Some(1), LineHash::of("push(1);")));
        assert_eq!(evidence_of(&calls, &kept, today), [taken]);
        let later = SourcesInMemory::from_texts([(FILE, today)]);
        add_evidence(&profile, &stacks, &later, &mut kept);
        assert_eq!(evidence_of(&calls, &kept, today), [taken], "the first evidence stays");
        let untaken = Some((Some(1), LineHash::of("entirely_different();")));
        assert_eq!(evidence_of(&calls, &KeptEvidence::default(), today), [untaken]);
    }
}
