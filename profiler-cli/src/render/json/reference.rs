//! The reference of the JSON output: a page with every field, and a JSON Schema for each command.
//!
//! In: the types of the analyses with their doc comments, and a small profile. Out: the files
//! `docs/JSON.md` and `docs/schema/*.json`, which the test compares with what the code says now.
//! With `UPDATE_DOCS=1` the test writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use alloc_dump::layout::StackId;
use alloc_dump::record::{LayoutOccasion, RegionFlags, Sample};
use alloc_dump::snapshot::MemoryRegion;
use alloc_dump::trailer::EndReason;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{FlameJson, LeaksList};
use crate::analyze::address_space::{Maps, maps};
use crate::analyze::budgets::parse_budgets;
use crate::analyze::check::{Check, CheckedRuns, check, measure};
use crate::analyze::diff::{Diff, DiffOptions, diff};
use crate::analyze::filter::Filter;
use crate::analyze::flame::{Metric, flame};
use crate::analyze::group_names::GroupBy;
use crate::analyze::groups::groups;
use crate::analyze::heap_groups::choose;
use crate::analyze::held::{GraphBuilder, ImageMemory, ImageTrust, Judgement, RootNames};
use crate::analyze::holders::{JudgedBlocks, SnapshotInfo};
use crate::analyze::leaks::{LeakSelection, Leaks, leaks};
use crate::analyze::lines::{LineSelection, Lines, lines};
use crate::analyze::peaks::{Peaks, peaks};
use crate::analyze::retained::{Retained, retained};
use crate::analyze::shown::Folding;
use crate::analyze::site::SiteKeys;
use crate::analyze::site_figures::SiteFigures;
use crate::analyze::site_table::{RunTable, SideTable};
use crate::analyze::summary::{Summary, summary};
use crate::analyze::suppressions::Suppressions;
use crate::analyze::timeline::{Timeline, timeline};
use crate::analyze::tree::{Tree, TreeSelection, tree};
use crate::names::code_owner::CodeOwner;
use crate::names::stacks::{NamedFrame, Stacks};
use crate::names::variables::Variable;
use crate::profile::{
    CallNode, GroupCurve, GroupPoint, HeapBlock, HeapCurve, HeapInterval, HeapTotals, LayoutRegion, Layouts,
    LiveHeap, LocalPeak, Mark, Process, ProcessLayout, Profile, RecordedThread, StackStats, Trust,
};
use crate::render::text_width::wrapped;
use crate::source::SourcesInMemory;

/// Returns the profile with a layout of one mapping: a heap whose first page has the live block.
fn with_layout(profile: &Profile) -> Profile {
    let region = LayoutRegion {
        start: 0x5000_0000,
        end: 0x5002_0000,
        flags: RegionFlags(RegionFlags::READ.0 | RegionFlags::WRITE.0),
        resident: 8192,
        dirty: 8192,
        name: "[heap]".into(),
        live_bytes: 64,
        live_blocks: 1,
        live_page_bytes: 4096,
        touched_page_bytes: 4096,
        ..LayoutRegion::default()
    };
    let layout = ProcessLayout {
        occasion: LayoutOccasion::End,
        us: 300,
        live_bytes: 64,
        live_blocks: 1,
        mark: None,
        is_whole: true,
        regions: vec![region],
    };
    let layouts = Layouts { last: Some(layout), ..Layouts::default() };
    Profile { layouts, ..profile.clone() }
}

/// One command with `--json`.
struct JsonReport {
    command: &'static str,
    schema: Value,
    /// Output for the small profile.
    example: String,
}

fn report<T: JsonSchema>(command: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> JsonReport {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let schema = generator.into_root_schema_for::<T>().to_value();
    let mut example = Vec::new();
    write(&mut example);
    JsonReport { command, schema, example: String::from_utf8(example).unwrap() }
}

/// A program of two functions: `shop::main` calls `shop::add`, which allocates twice and leaks one
/// of the blocks, once by way of a dependency.
fn example() -> (Profile, Stacks) {
    let frame = |function: &str, file: &str, line, owner| NamedFrame {
        function: function.into(),
        file: Some(file.into()),
        line: Some(line),
        is_inlined: false,
        owner,
        module: "shop".into(),
    };
    let main = || frame("shop::main", "/w/src/main.rs", 2, CodeOwner::Own);
    let add = |line| frame("shop::add", "/w/src/main.rs", line, CodeOwner::Own);
    let package = "/c/registry/src/index-1/serde-1.0.0/src/ser.rs";
    let package = frame("serde::to_vec", package, 40, CodeOwner::Dependency);
    let stacks = Stacks::from_frames(&[vec![add(6), main()], vec![package, add(7), main()]]);
    let first = StackId::FIRST.0 as usize;
    let mut stats = vec![StackStats::default(); first];
    stats.push(StackStats {
        allocations: 1,
        allocated: 64,
        live_bytes: 64,
        live_blocks: 1,
        live_first_us: 100,
        live_last_us: 100,
        peak_bytes: 64,
        peak_blocks: 1,
        max_live_bytes: 64,
        max_live_blocks: 1,
        last_event: 1,
        live_after_last: 64,
        ..StackStats::default()
    });
    stats.push(StackStats {
        allocations: 1,
        deallocations: 1,
        allocated: 36,
        freed: 36,
        temporary: 1,
        temporary_bytes: 36,
        peak_bytes: 36,
        peak_blocks: 1,
        max_live_bytes: 36,
        max_live_blocks: 1,
        last_event: 3,
        live_after_last: 64,
        ..StackStats::default()
    });
    let thread = RecordedThread {
        id: 1,
        os_tid: 7,
        name: "shop".into(),
        allocations: 2,
        deallocations: 1,
        allocated: 100,
        freed: 36,
        ..RecordedThread::default()
    };
    let sample = Sample { vsz: 8 << 20, rss: 2 << 20, minor_faults: 90, ..Sample::default() };
    let profile = Profile {
        process: Process {
            pid: 7,
            exe: "/w/target/release/shop".into(),
            args: vec!["shop".into(), "--port".into(), "80".into()],
            cwd: "/w".into(),
            from_first_event: true,
            ..Process::default()
        },
        nodes: vec![CallNode::default(); first + 2],
        stacks: stats,
        threads: vec![thread],
        timeline: vec![(200, sample)],
        sample_count: 1,
        heap: HeapCurve {
            start_us: 0,
            width_us: 500,
            intervals: vec![HeapInterval { min: 0, max: 100, last: 64 }],
        },
        local_peaks: vec![LocalPeak { bytes: 100, blocks: 2, us: 150, event: 2 }],
        groups: Some(GroupCurve {
            start_us: 0,
            width_us: 500,
            points: vec![GroupPoint { max: 100, bytes: vec![64, 36] }],
            most: vec![LiveHeap { bytes: 64, blocks: 1 }, LiveHeap { bytes: 36, blocks: 1 }],
        }),
        marks: vec![Mark { name: "ready".into(), thread: 1, us: 50, live_bytes: 0, events: 0, number: 1 }],
        totals: HeapTotals {
            allocations: 2,
            deallocations: 1,
            allocated_bytes: 100,
            freed_bytes: 36,
            peak_bytes: 100,
            peak_blocks: 2,
            peak_us: 150,
            live_bytes: 64,
            live_blocks: 1,
            temporary: 1,
            stacks: 2,
            ..HeapTotals::default()
        },
        sizes: [0, 0, 0, 0, 0, 0, 2].into_iter().chain([0; 58]).collect(),
        duration_us: 500,
        trust: Trust { end: Some(EndReason::Finished), ..Trust::default() },
        ..Profile::default()
    };
    (profile, stacks)
}

const SOURCE: &str =
    "fn main() {\n    add();\n}\n\nfn add() {\n    KEPT.set(cart());\n    serde::to_vec();\n}\n";

fn reports() -> Vec<JsonReport> {
    let (profile, stacks) = example();
    let filter = Filter::default();
    let json = |out: &mut Vec<u8>, analysis: &dyn erased::Analysis| analysis.write(out);
    vec![
        report::<Summary>("summary", |out| {
            let mut summary = summary(&profile, &stacks, &filter, 1);
            summary.groups = Some(groups(&profile, &stacks, &filter, GroupBy::Crate, 2));
            json(out, &summary);
        }),
        report::<Lines>("lines", |out| {
            let sources = SourcesInMemory::from_texts([("/w/src/main.rs", SOURCE)]);
            let selection = LineSelection { callers: true, top: Some(1), ..LineSelection::default() };
            json(out, &lines(&profile, &stacks, &sources, &filter, &selection));
        }),
        report::<Leaks>("leaks", |out| {
            let mut suppressions = Suppressions::defaults();
            suppressions.add_file("leaks.supp", "leak:shop::cache\n").unwrap();
            let sources = SourcesInMemory::from_texts([("/w/src/main.rs", SOURCE)]);
            let suppressed = suppressions.apply(&profile, &stacks, &sources);
            judged(|judged| {
                let selection = LeakSelection {
                    folding: Folding::Runtime,
                    suppressed: Some(&suppressed),
                    judged: Some(judged),
                    ..LeakSelection::default()
                };
                let leaks = leaks(&profile, &stacks, &filter, selection);
                json(out, &Leaks { dump: "shop.7.alloc".to_owned(), ..leaks });
            });
        }),
        report::<LeaksList<Vec<Leaks>>>("leaks-list", |out| {
            // Two programs that free everything.
            let nothing = Profile { stacks: Vec::new(), ..profile.clone() };
            let leaks = |dump: &str| Leaks {
                dump: dump.to_owned(),
                ..leaks(&nothing, &stacks, &filter, LeakSelection::default())
            };
            let reports = ["shop.7.alloc", "shop.8.alloc"].into_iter().map(leaks);
            super::write_leaks_list(out, reports).unwrap();
        }),
        report::<Retained>("retained", |out| {
            judged(|judged| json(out, &retained(&profile, &stacks, &filter, judged, 5)));
        }),
        report::<Check>("check", |out| {
            let text = "[total]\npeak = 200\n[[function]]\nname = 'shop::add'\nallocations = 1\n\
                        [[crate]]\nname = 'serd_json'\nallocated = 0\n";
            let budgets = parse_budgets(text).unwrap();
            let side = SideTable {
                command: profile.process.command(),
                totals: vec![SiteFigures::of_process(&profile.totals)],
                ..SideTable::default()
            };
            let figures = vec![measure(&budgets, &profile, &stacks, None)];
            let runs = CheckedRuns { side, figures, recordings: Vec::new() };
            let check = check(&runs, &budgets, None).unwrap();
            json(out, &Check { budget_file: Some("heap.toml".to_owned()), ..check });
        }),
        report::<Tree>("tree", |out| {
            let selection = TreeSelection {
                metric: Metric::Peak,
                callers: false,
                folding: Folding::Runtime,
                depth: usize::MAX,
                min_percent: 1.0,
            };
            json(out, &tree(&profile, &stacks, &filter, &selection));
        }),
        report::<FlameJson<'_>>("flamegraph", |out| {
            let flame = flame(&profile, &stacks, &filter, Metric::Peak, Folding::Runtime, None);
            super::write_flame(out, &flame).unwrap();
        }),
        report::<Diff>("diff", |out| {
            // In the base, the first stack allocated nothing.
            let mut before = profile.clone();
            before.stacks[StackId::FIRST.0 as usize] = StackStats::default();
            let side = |profile: &Profile| {
                let keys = SiteKeys::of(profile, &stacks);
                SideTable::of(vec![RunTable::of(profile, &stacks, &filter, &keys, &BTreeMap::new())])
            };
            let mut profile = profile.clone();
            profile.stacks[StackId::FIRST.0 as usize].allocated = 64 << 10;
            json(out, &diff(&side(&before), &side(&profile), DiffOptions::default()));
        }),
        report::<Peaks>("peaks", |out| json(out, &peaks(&profile, 25, 1))),
        report::<Maps>("maps", |out| json(out, &maps(&with_layout(&profile)))),
        report::<Timeline>("timeline", |out| {
            let mut timeline = timeline(&profile, None);
            timeline.groups = choose(&profile, Some(&stacks), GroupBy::Crate, 1).over_time(&profile);
            json(out, &timeline);
        }),
    ]
}

/// Judges a block of the first stack that a static holds.
fn judged(use_it: impl FnOnce(&JudgedBlocks<'_>)) {
    let blocks =
        [HeapBlock { address: 0x9000, size: 64, stack: StackId::FIRST, born_us: 100, is_in_event: false }];
    let maps = ["1000-2000 r-xp 00000000 fe:01 5 /w/shop", "2000-3000 rw-p 00001000 fe:01 5 /w/shop"];
    let regions: Vec<MemoryRegion> =
        maps.iter().map(|line| MemoryRegion::parse(line.as_bytes()).unwrap()).collect();
    let memory = ImageMemory { regions: &regions, threads: &[], pid: 7, tls_size: 0, writable_segments: &[] };
    let mut builder = GraphBuilder::new(&blocks, &memory);
    builder.add(0x2010, 0x9000);
    let statics = [Variable { start: 0x2000, size: 32, name: "shop::KEPT".to_owned() }];
    let names = RootNames { statics: &statics, regions: &regions, ..RootNames::default() };
    let judgement = Judgement::new(&blocks, builder.finish(), ImageTrust::of(true, &[], 200), None, &names);
    let snapshot = SnapshotInfo {
        id: 1,
        name: "warm".to_owned(),
        ns: 300_000,
        lists_its_blocks: true,
        nothing_is_lost: None,
    };
    use_it(&JudgedBlocks { judgement: &judgement, snapshot, at_end: &[] });
}

/// Writing an analysis of any type.
mod erased {
    pub(super) trait Analysis {
        fn write(&self, out: &mut Vec<u8>);
    }

    impl<T: serde::Serialize> Analysis for T {
        fn write(&self, out: &mut Vec<u8>) {
            super::super::write(out, self).unwrap();
        }
    }
}

/// Returns the page for people.
fn page(reports: &[JsonReport]) -> String {
    let mut page = String::from(HEAD);
    for JsonReport { command, schema, example } in reports {
        let version = serde_json::from_str::<Value>(example).unwrap()["schema"].clone();
        let description = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        writeln!(page, "\n## {command}\n\n{}\n", wrapped(&without_links(&description), 100).join("\n"))
            .unwrap();
        writeln!(
            page,
            "`schema` is `{}`. JSON Schema: [schema/{command}.json](schema/{command}.json).\n",
            version.as_str().unwrap()
        )
        .unwrap();
        writeln!(page, "| field | type | meaning |\n| --- | --- | --- |").unwrap();
        write_fields(&mut page, schema, schema, "");
        writeln!(page, "\n```json\n{}\n```", example.trim_end()).unwrap();
    }
    page
}

const HEAD: &str = "\
# JSON of the commands

Every command that reads a dump prints JSON with `--json`: the same values as its text, with all
digits. `schema` names the layout and its version. Within a version, fields are only added. Bytes
are the sizes that the program asked for. The same dump always gives the same bytes.

The fields below come from the source code, and the examples from a made-up program of two
functions. A test compares this page with the code.
";

/// Writes a row for each field of an object, and for those of the objects in it.
fn write_fields(page: &mut String, root: &Value, object: &Value, path: &str) {
    let Some(fields) = object["properties"].as_object() else { return };
    for (name, field) in fields {
        let (inner, suffix, kind) = resolve(root, field);
        let meaning = field["description"].as_str().or(inner["description"].as_str()).unwrap_or_default();
        let meaning = meaning.replace("\n\n", " ").replace('\n', " ").replace('|', "\\|");
        let meaning = without_links(&meaning);
        let name = format!("{path}{name}{suffix}");
        writeln!(page, "| `{name}` | {kind} | {meaning} |").unwrap();
        // The fields of a report in the list are those of its own section.
        if field["items"]["$ref"] != "#/$defs/Leaks" {
            write_fields(page, root, inner, &format!("{name}."));
        }
    }
}

/// Returns the object that a field has, `[]` if it has a list, and the type in words.
fn resolve<'a>(root: &'a Value, field: &'a Value) -> (&'a Value, &'static str, String) {
    if let Some(name) = field["$ref"].as_str() {
        let target = &root["$defs"][name.trim_start_matches("#/$defs/")];
        return match target["enum"].as_array().or(target["oneOf"].as_array()) {
            Some(_) => (target, "", "string".to_owned()),
            None => (target, "", "object".to_owned()),
        };
    }
    if let Some(choices) = field["anyOf"].as_array() {
        let some = choices.iter().find(|choice| choice["type"] != "null").unwrap_or(field);
        let (inner, suffix, kind) = resolve(root, some);
        return (inner, suffix, format!("{kind} or null"));
    }
    let is_list =
        |value: &Value| value == "array" || value.as_array().is_some_and(|all| all.contains(&"array".into()));
    if is_list(&field["type"]) {
        let (inner, _, kind) = resolve(root, &field["items"]);
        let or_null = if field["type"].is_array() { " or null" } else { "" };
        return (inner, "[]", format!("list: {kind}{or_null}"));
    }
    let kind = match &field["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    (field, "", kind)
}

/// Returns a doc comment without its links to items of the code.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((name, after)) = link.split_once(']') else {
            plain.push('[');
            rest = link;
            continue;
        };
        plain.push_str(name);
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    plain + rest
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Compares a file with what it should be, or writes it.
fn check_file(path: &Path, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not what the code says; UPDATE_DOCS=1 cargo test --package profiler-cli --lib reference",
        path.display()
    );
}

#[test]
fn the_reference_of_json_is_that_of_the_code() {
    let reports = reports();
    for JsonReport { command, schema, example } in &reports {
        let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
        check_file(&docs().join(format!("schema/{command}.json")), &text);
        let validator = jsonschema::validator_for(schema).unwrap();
        let example: Value = serde_json::from_str(example).unwrap();
        let errors: Vec<String> = validator.iter_errors(&example).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{command}: {errors:?}");
    }
    check_file(&docs().join("JSON.md"), &page(&reports));
}

/// A field that the schema does not know, or that is a keyword of jq, is a mistake.
#[test]
fn the_schemas_know_every_field_and_no_field_is_a_keyword_of_jq() {
    for JsonReport { command, schema, example } in reports() {
        let example: Value = serde_json::from_str(&example).unwrap();
        compare_fields(&schema, &schema, &example, command);
    }
}

fn compare_fields(root: &Value, schema: &Value, value: &Value, path: &str) {
    const KEYWORDS: [&str; 17] = [
        "and", "as", "catch", "def", "elif", "else", "end", "foreach", "if", "import", "include", "label",
        "or", "reduce", "then", "try", "not",
    ];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                assert!(!KEYWORDS.contains(&name.as_str()), "{path}.{name}");
                let field = &schema["properties"][name];
                assert!(!field.is_null(), "{path}.{name} is in no schema");
                compare_fields(root, resolve(root, field).0, value, &format!("{path}.{name}"));
            }
        }
        Value::Array(values) => values.iter().for_each(|value| compare_fields(root, schema, value, path)),
        _ => {}
    }
}
