//! The outputs for reviewers, opened by the programs that others read them with. Each reader is
//! used if it is installed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::{Run, cli, has_tool};

/// Bounds of which [`BROKEN`] are too small for the planted program, and one is kept.
const BUDGETS: &str = "[total]\npeak = 1\nallocated = '1 GiB'\n\n[[function]]\nname = 'planted::lost'\nlive = 1\n\
                       allocations = 0\n";
const BROKEN: usize = 3;

/// Runs `check` with the budgets, and writes the outputs into a folder.
fn outputs(folder: &Path, budgets: &str) -> Option<i32> {
    let run = Run::traced("planted", &[]);
    let file = folder.join("heap.toml");
    std::fs::write(&file, budgets).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let emit =
        |format: &str, name: &str| ["--emit".to_owned(), format!("{format}={}", text(&folder.join(name)))];
    let mut args = vec!["check".to_owned(), text(&run.dump()), "--budgets".to_owned(), text(&file)];
    args.extend(emit("sarif", "heap.sarif"));
    args.extend(emit("junit", "heap.xml"));
    cli(args).status.code()
}

fn said(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn sarif_is_what_code_scanning_accepts() {
    if !has_tool("sarif-multitool") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(outputs(folder.path(), BUDGETS), Some(1));
    // Its exit status is 0 with errors, too. The program that npm installs hands its arguments to a
    // shell.
    let (_, text) = said(
        Command::new("sarif-multitool")
            .args(["validate", "--rule-kind", "'Sarif;Ghas'"])
            .arg(folder.path().join("heap.sarif"))
            .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1"),
    );
    assert!(text.contains("Analysis completed successfully"), "{text}");
    assert!(!text.contains(": error"), "{text}");
}

#[test]
fn sarif_has_a_result_for_each_broken_budget() {
    if !has_tool("sarif") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(outputs(folder.path(), BUDGETS), Some(1));
    let sarif = folder.path().join("heap.sarif");
    let (code, text) = said(Command::new("sarif").arg("summary").arg(&sarif));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.lines().any(|line| line.trim() == format!("error: {BROKEN}")), "{text}");
    let json: Value = serde_json::from_slice(&std::fs::read(&sarif).unwrap()).unwrap();
    assert_eq!(json["runs"][0]["results"].as_array().unwrap().len(), BROKEN);
}

#[test]
fn junit_fails_for_readers_as_the_check_does() {
    if !has_tool("junitparser") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (budgets, verdict) in [(BUDGETS, 1), ("[total]\npeak = '1 GiB'\n", 0)] {
        assert_eq!(outputs(folder.path(), budgets), Some(verdict));
        let (code, text) =
            said(Command::new("junitparser").arg("verify").arg(folder.path().join("heap.xml")));
        assert_eq!(code, Some(verdict), "{text}");
    }
}
