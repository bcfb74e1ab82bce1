//! Rules about the workspace itself: who may depend on whom, where `unsafe` may be, and what the
//! help says.

mod rooms;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{Dependency, DependencyKind, MetadataCommand};
use tests::{cli, workspace};

#[test]
fn dependencies_run_one_way() {
    let metadata =
        MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).no_deps().exec().unwrap();
    let members: BTreeMap<&str, BTreeSet<&str>> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let always =
                |dependency: &&Dependency| dependency.kind == DependencyKind::Normal && !dependency.optional;
            let normal = package.dependencies.iter().filter(always);
            (package.name.as_str(), normal.map(|dependency| dependency.name.as_str()).collect())
        })
        .collect();
    let names: Vec<&str> = members.keys().copied().collect();
    assert_eq!(
        names,
        [
            "alloc-dump",
            "alloc-oracle",
            "alloc-tracker",
            "alloc-tracker-macros",
            "alloc-tracker-models",
            "benchmarks",
            "examples",
            "profiler-cli",
            "stunts",
            "tests"
        ]
    );
    // Every target links these, so each one is a decision.
    assert_eq!(members["alloc-dump"], BTreeSet::from(["crc32fast"]));
    // The macros run in the compiler.
    assert_eq!(
        members["alloc-tracker"],
        BTreeSet::from(["alloc-dump", "alloc-tracker-macros", "backtrace", "gimli", "libc"])
    );
    assert_eq!(members["alloc-tracker-macros"], BTreeSet::new(), "what it parses with is optional");
    assert_eq!(members["alloc-oracle"], BTreeSet::from(["libc"]));
    let own: BTreeSet<&str> =
        members["profiler-cli"].iter().copied().filter(|name| members.contains_key(name)).collect();
    assert_eq!(own, BTreeSet::from(["alloc-dump"]), "the reader never links the recorder");
    for package in metadata.workspace_packages() {
        assert_eq!(package.license.as_deref(), Some("MIT OR Apache-2.0"), "{}", package.name);
    }
}

/// Which room of `alloc-tracker/src` may import which others. ARCHITECTURE.md shows the same table.
const RECORDER_ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("tree", &["base"]),
    ("modules", &["base"]),
    ("thread", &["base"]),
    ("output", &["base"]),
    ("capture", &["base", "tree", "modules", "thread"]),
    ("scope", &["base", "tree", "capture"]),
    ("recorder", &["base", "tree", "modules", "thread", "output", "capture", "scope"]),
    ("hook", &["base", "capture", "scope", "recorder"]),
    ("api", &["base", "capture", "scope", "recorder", "hook"]),
];

/// The same for `profiler-cli/src`.
const READER_ROOMS: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("io_error", &[]),
    ("pattern", &[]),
    ("profile", &[]),
    ("source", &[]),
    ("dumps", &["io_error"]),
    ("load", &["profile", "pattern", "dumps"]),
    ("names", &["pattern", "profile"]),
    ("analyze", &["units", "pattern", "profile", "source", "names"]),
    ("render", &["units", "names", "analyze"]),
    (
        "command",
        &["units", "io_error", "pattern", "profile", "source", "dumps", "load", "names", "analyze", "render"],
    ),
];

#[test]
fn imports_between_rooms_run_one_way() {
    for (src, table) in [("alloc-tracker/src", RECORDER_ROOMS), ("profiler-cli/src", READER_ROOMS)] {
        assert!(is_without_rings(table), "the table of {src} allows a ring");
        let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
        let imports = rooms::imports(&workspace().join(src));
        let listed: BTreeSet<&str> = table.iter().map(|(room, _)| *room).collect();
        assert_eq!(imports.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed, "rooms of {src}");
        for (room, allowed) in table {
            let names: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
            let row = format!(
                "| `{room}` | {} |",
                if names.is_empty() { "-".to_owned() } else { names.join(", ") }
            );
            assert!(page.lines().any(|line| line.starts_with(&row)), "ARCHITECTURE.md lacks the row {row}");
            for (import, file) in &imports[*room] {
                assert!(
                    allowed.contains(&import.as_str()),
                    "{file} imports `{import}`, which the room `{room}` must not know: move the code, or hand in what it \
                     needs; ARCHITECTURE.md says which room may import which"
                );
            }
        }
    }
}

/// Whether every room imports only rooms that stand above it in the table.
fn is_without_rings(table: &[(&str, &[&str])]) -> bool {
    table
        .iter()
        .enumerate()
        .all(|(at, (_, allowed))| allowed.iter().all(|name| table[..at].iter().any(|(room, _)| room == name)))
}

#[test]
fn what_a_target_links_compresses_nothing() {
    // The features of this one package, not those that others of the workspace switch on.
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "alloc-tracker",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.contains("alloc-dump v"), "{tree}");
    assert!(!tree.contains("zstd") && !tree.contains("foldhash"), "{tree}");
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    for root in [
        "alloc-tracker/dump/src/lib.rs",
        "alloc-tracker/macros/src/lib.rs",
        "profiler-cli/src/lib.rs",
        "profiler-cli/src/main.rs",
        "profiler-cli/bin/cargo-alloc.rs",
        "benchmarks/src/main.rs",
        "benchmarks/programs/workloads/src/lib.rs",
        "examples/src/lib.rs",
        "tests/src/lib.rs",
    ] {
        let text = std::fs::read_to_string(workspace().join(root)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root}");
    }
    for folder in ["examples/src/bin", "benchmarks/programs/src/bin"] {
        for program in std::fs::read_dir(workspace().join(folder)).unwrap().flatten() {
            let text = std::fs::read_to_string(program.path()).unwrap();
            assert!(text.contains("#![forbid(unsafe_code)]"), "{}", program.path().display());
        }
    }
}

#[test]
fn help_begins_with_examples() {
    let commands =
        ["run", "cargo", "summary", "lines", "leaks", "flamegraph", "compress", "completions", "man"];
    let helps =
        std::iter::once(vec!["--help"]).chain(commands.iter().map(|command| vec![*command, "--help"]));
    for args in helps {
        let output = cli(&args);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with("Examples:\n  profiler-cli "), "{args:?}: {text}");
        assert!(!text.contains('\x1b'), "no colours outside of a terminal");
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_same_definitions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cli(["completions", shell]);
        assert!(
            script.status.success() && String::from_utf8_lossy(&script.stdout).contains("fail-on-leak"),
            "{shell}"
        );
    }
    let page = cli(["man"]);
    assert!(String::from_utf8_lossy(&page.stdout).contains(".TH profiler"));
    let folder = tempfile::tempdir().unwrap();
    assert!(cli(["man", "-o", folder.path().to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(folder.path().join("profiler-cli-leaks.1")).unwrap();
    assert!(page.contains("fail\\-on\\-leak"));
}
