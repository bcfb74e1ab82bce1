//! Reports on terminals of different widths, for a hand-made profile with long names: no line is
//! wider than the terminal, and what is cut still tells what it is.

use alloc_dump::layout::StackId;
use anstream::StripStream;
use profiler_cli::analyze::filter::Filter;
use profiler_cli::analyze::flame::Metric;
use profiler_cli::analyze::group_names::GroupBy;
use profiler_cli::analyze::groups::groups;
use profiler_cli::analyze::leaks::{LeakSelection, leaks};
use profiler_cli::analyze::lines::{LineSelection, lines};
use profiler_cli::analyze::shown::Folding;
use profiler_cli::analyze::summary::summary;
use profiler_cli::analyze::tree::{TreeSelection, tree};
use profiler_cli::names::code_owner::CodeOwner;
use profiler_cli::names::stacks::{NamedFrame, Stacks};
use profiler_cli::profile::{HeapTotals, Process, Profile, StackStats, Trust};
use profiler_cli::render::leaks_text::{self, LeaksShape};
use profiler_cli::render::text_width::TextWidth;
use profiler_cli::render::{lines_text, summary_text, tree_text};
use profiler_cli::source::SourcesInMemory;

const FILE: &str = "/w/warehouse/crates/inventory/src/shelves/restocking.rs";
const SOURCE: &str = "impl Shelf {
    fn restock_from_all_suppliers(&mut self, suppliers: &[Supplier], limit: usize) -> Result<Vec<Box<Item>>, OutOfStock> {
        suppliers.iter().map(|supplier| supplier.deliver_before(self.next_inspection(), limit)).collect()
    }
}
";

fn frame(function: &str, file: &str, line: u32, owner: CodeOwner) -> NamedFrame {
    let (function, file) = (function.into(), Some(file.into()));
    NamedFrame { function, file, line: Some(line), is_inlined: false, owner, module: "warehouse".into() }
}

/// Three stacks: `restock` called by way of three dependencies, the same twice more in a recursion,
/// and a small block of `main`.
fn recording() -> (Profile, Stacks) {
    let restock = "inventory::shelves::restocking::Shelf::restock_from_all_suppliers";
    let restock = || frame(restock, FILE, 3, CodeOwner::Own);
    let call =
        || frame("tokio::task::call", "/c/registry/src/i-1/tokio-1.40.0/src/t.rs", 9, CodeOwner::Dependency);
    let poll =
        || frame("hyper::proto::poll", "/c/registry/src/i-1/hyper-1.0.0/src/p.rs", 8, CodeOwner::Dependency);
    let main = || frame("warehouse::main", "/w/warehouse/src/main.rs", 2, CodeOwner::Own);
    let stacks = Stacks::from_frames(&[
        vec![restock(), call(), poll(), call(), main()],
        vec![restock(), restock(), restock(), call(), poll(), call(), main()],
        vec![main()],
    ]);
    let of = |bytes: u64| StackStats {
        allocations: bytes / 1024,
        allocated: bytes,
        live_bytes: bytes,
        live_blocks: bytes / 1024,
        peak_bytes: bytes,
        peak_blocks: bytes / 1024,
        live_after_last: bytes,
        last_event: 1,
        ..StackStats::default()
    };
    let mut stats = vec![StackStats::default(); StackId::FIRST.0 as usize];
    stats.extend([of(3 << 20), of(1 << 20), of(1 << 10)]);
    let bytes = (4 << 20) + (1 << 10);
    let profile = Profile {
        nodes: vec![Default::default(); stats.len()],
        stacks: stats,
        sizes: [0; 10].into_iter().chain([4097]).chain([0; 54]).collect(),
        duration_us: 5_000_000,
        process: Process {
            args: vec!["/w/warehouse/target/release/warehouse".into()],
            exe: "/w/warehouse/target/release/warehouse".into(),
            cwd: "/w/warehouse".into(),
            pid: 7,
            ..Process::default()
        },
        totals: HeapTotals {
            allocations: 4097,
            allocated_bytes: bytes,
            peak_bytes: bytes,
            peak_blocks: 4097,
            live_bytes: bytes,
            live_blocks: 4097,
            stacks: 3,
            ..HeapTotals::default()
        },
        // No end, so there is a long warning.
        trust: Trust::default(),
        ..Profile::default()
    };
    (profile, stacks)
}

/// Returns a report without colours.
fn plain(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    write(&mut StripStream::new(&mut text)).unwrap();
    String::from_utf8(text).unwrap()
}

/// The reports: the sites and the groups of the summary, the tree, the leaks and the line tables.
fn reports(columns: usize) -> [(&'static str, String); 5] {
    let width = TextWidth::of_columns(columns);
    let (profile, stacks) = recording();
    let filter = Filter::default();
    let mut by_crate = summary(&profile, &stacks, &filter, 2);
    by_crate.groups = Some(groups(&profile, &stacks, &filter, GroupBy::Module, 5));
    let selection = TreeSelection {
        metric: Metric::Live,
        callers: false,
        folding: Folding::Dependencies,
        depth: usize::MAX,
        min_percent: 0.0,
    };
    let sources = SourcesInMemory::from_texts([(FILE, SOURCE)]);
    let tables =
        lines(&profile, &stacks, &sources, &filter, &LineSelection { callers: true, ..Default::default() });
    let shape = lines_text::Shape { width, ..lines_text::Shape::default() };
    [
        ("summary", plain(|out| summary_text::write(out, &summary(&profile, &stacks, &filter, 2), width))),
        ("groups", plain(|out| summary_text::write(out, &by_crate, width))),
        ("tree", plain(|out| tree_text::write(out, &tree(&profile, &stacks, &filter, &selection), width))),
        (
            "leaks",
            plain(|out| {
                let leaks = leaks(&profile, &stacks, &filter, LeakSelection::default());
                leaks_text::write(out, &leaks, &LeaksShape { width, ..LeaksShape::default() })
            }),
        ),
        ("lines", plain(|out| lines_text::write(out, &tables, &shape))),
    ]
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for columns in [80, 90, 100, 120, 200] {
        for (name, text) in reports(columns) {
            for line in text.lines() {
                assert!(line.chars().count() <= columns, "{name} at {columns}: {line:?}");
                assert_eq!(line.trim_end(), line, "{name} at {columns}");
            }
        }
    }
}

/// Returns the report of this name, up to the first line that contains `until`.
fn report(columns: usize, name: &str, until: &str) -> String {
    let (_, text) = reports(columns).into_iter().find(|(report, _)| *report == name).unwrap();
    text.lines().take_while(|line| !line.contains(until)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_tree_at_80_columns() {
    insta::assert_snapshot!(report(80, "tree", "no such line"), @r"
    Live at the end: 4.0 MiB (4,195,328 B)
    The recording is not complete: see the summary.

     inclusive            exclusive  function, with its callees below it
       4.0 MiB  100.0 %     1.0 KiB  warehouse::main  src/main.rs:2
       4.0 MiB  100.0 %              tokio::task::call  … 3 frames of tokio, hyper
       4.0 MiB  100.0 %     4.0 MiB  invento…ppliers  …stocking.rs:3  (1 to 3 times)
    ");
}

#[test]
fn a_tree_at_120_columns() {
    insta::assert_snapshot!(report(120, "tree", "no such line"), @r"
    Live at the end: 4.0 MiB (4,195,328 B)
    The recording is not complete: see the summary.

     inclusive            exclusive  function, with its callees below it
       4.0 MiB  100.0 %     1.0 KiB  warehouse::main  src/main.rs:2
       4.0 MiB  100.0 %              tokio::task::call  … 3 frames of tokio, hyper
       4.0 MiB  100.0 %     4.0 MiB  inventory::…::restock_from_all_suppliers  …/src/shelves/restocking.rs:3  (1 to 3 times)
    ");
}

#[test]
fn leaks_at_80_columns() {
    insta::assert_snapshot!(report(80, "leaks", "2. 1.0 KiB"), @r"
    Live at the end: 4.0 MiB (4,195,328 B) in 4,097 blocks

      1. 4.0 MiB (4,194,304 B), 100.0 %, in 4,096 blocks at …/restocking.rs:3
         first after 0.000 ms, last after 0.000 ms
           i…::restock_from_all_suppliers  …/shelves/restocking.rs:3  (1 to 3 times)
           tokio::task::call  … 3 frames of tokio, hyper
           warehouse::main  src/main.rs:2

    ");
}

#[test]
fn leaks_at_120_columns() {
    insta::assert_snapshot!(report(120, "leaks", "2. 1.0 KiB"), @r"
    Live at the end: 4.0 MiB (4,195,328 B) in 4,097 blocks

      1. 4.0 MiB (4,194,304 B), 100.0 %, in 4,096 blocks at crates/inventory/src/shelves/restocking.rs:3
         first after 0.000 ms, last after 0.000 ms
           inventory::shelves::re…::restock_from_all_suppliers  crates/inventory/src/shelves/restocking.rs:3  (1 to 3 times)
           tokio::task::call  … 3 frames of tokio, hyper
           warehouse::main  src/main.rs:2

    ");
}

#[test]
fn a_line_table_at_80_columns() {
    insta::assert_snapshot!(report(80, "lines", "Filename: src/main.rs"), @r"
    Filename: crates/inventory/src/shelves/restocking.rs
    Function: inventory::shelves::restocking::Shelf::restock_from_all_suppliers
    Source:   recorded stacks (Occurrences counts heap events, not executions)

    Line #    Mem usage    Increment  Occurrences   Line Contents
    =============================================================
         2                                          fn restock_from_all_suppliers(&…
         3      3.0 MiB      4.0 MiB         4096       suppliers.iter().map(|suppl…
         4                                          }
                             4.0 MiB
           sum: 4,194,304 B allocated, 0 B freed

    Called from:
           3.0 MiB allocated,      3.0 MiB increment  tokio::ta…::call  …/src/t.rs:9
           1.0 MiB allocated,      1.0 MiB increment  invent…ppliers  …stocking.rs:3

    ");
}

#[test]
fn a_line_table_at_120_columns() {
    insta::assert_snapshot!(report(120, "lines", "Filename: src/main.rs"), @r"
    Filename: crates/inventory/src/shelves/restocking.rs
    Function: inventory::shelves::restocking::Shelf::restock_from_all_suppliers
    Source:   recorded stacks (Occurrences counts heap events, not executions)

    Line #    Mem usage    Increment  Occurrences   Line Contents
    =============================================================
         2                                          fn restock_from_all_suppliers(&mut self, suppliers: &[Supplier], limit:…
         3      3.0 MiB      4.0 MiB         4096       suppliers.iter().map(|supplier| supplier.deliver_before(self.next_i…
         4                                          }
                             4.0 MiB                sum: 4,194,304 B allocated, 0 B freed

    Called from:
           3.0 MiB allocated,      3.0 MiB increment  tokio::task::call  tokio-1.40.0/src/t.rs:9
           1.0 MiB allocated,      1.0 MiB increment  inventory:…::restock_from_all_suppliers  …/src/shelves/restocking.rs:3

    ");
}

#[test]
fn sites_at_80_columns() {
    insta::assert_snapshot!(report(80, "summary", "Top sites by bytes"), @r"
    warehouse  pid 7
    NOT COMPLETE
      - the recording has no end: what happened after the last frame is missing

      duration       5.000 s
      peak           4.0 MiB (4,195,328 B) in 4,097 blocks after 0.000 ms
      live at end    4.0 MiB (4,195,328 B) in 4,097 blocks
      allocations    4,097 (4.0 MiB with reallocations)
      reallocations  0
      deallocations  0 (0 B)
      temporary      0 (0.0 % of allocations were freed at once)
      threads        0, 3 distinct stacks
      trust          0 events lost, 0 stacks truncated, 0 frames unresolved;
                     unknown: the end of the dump is missing

    Top sites by live bytes at the peak
         4.0 MiB  100.0 %    4,096 blocks  inventory:…l_suppliers  …/restocking.rs:3
         1.0 KiB   <0.1 %         1 block  warehouse::main  src/main.rs:2

    ");
}
