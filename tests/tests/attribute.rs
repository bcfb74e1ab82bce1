//! An annotated function does what it does without the attribute, lints of the compiler find what they find without it, and clippy
//! finds nothing that it would not: in editions in which blocks are something else.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tests::{output_within, workspace};

const ATTRIBUTE: &str = "#[alloc_tracker::profile]";
const EDITIONS: [&str; 2] = ["2021", "2024"];

/// Makes a package of two programs: one of `attribute/`, and the same without the attribute.
fn package(program: &str, edition: &str) -> PathBuf {
    let source = fs::read_to_string(workspace().join("tests/attribute").join(program)).unwrap();
    assert!(source.matches(ATTRIBUTE).count() > 20);
    let name = format!("{}-{edition}", program.trim_end_matches(".rs"));
    let folder = workspace().join("target/attribute").join(&name);
    let bins = folder.join("src/bin");
    fs::create_dir_all(&bins).unwrap();
    fs::write(bins.join("annotated.rs"), &source).unwrap();
    // No line may move.
    fs::write(bins.join("plain.rs"), source.replace(ATTRIBUTE, "")).unwrap();
    let tracker = workspace().join("alloc-tracker");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"{edition}\"\npublish = false\n\n\
         [workspace]\n\n[dependencies]\nalloc-tracker = {{ path = {tracker:?} }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    folder
}

fn cargo(folder: &PathBuf, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.env_remove("CARGO_BUILD_TARGET");
    command.args(args).arg("--target-dir").arg(workspace().join("target/attribute/target"));
    output_within(command.env_remove("RUSTFLAGS").current_dir(folder), Duration::from_secs(900))
}

#[test]
fn behaviour_is_what_it_is_without_the_attribute() {
    for edition in EDITIONS {
        let folder = package("behaviour.rs", edition);
        let says = |program: &str| {
            let output = cargo(&folder, &["run", "--quiet", "--bin", program]);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} in {edition}: {errors}");
            // Each is in a file of its own.
            String::from_utf8(output.stdout).unwrap().replace("annotated.rs", "plain.rs")
        };
        let plain = says("plain");
        assert!(plain.lines().count() > 50, "{plain}");
        assert_eq!(says("annotated"), plain, "in {edition}");
    }
}

/// Where a lint has found something, and which.
type Finding = (i64, i64, String);

#[test]
fn lints_find_what_they_find_without_the_attribute() {
    let has_clippy =
        Command::new(env!("CARGO")).args(["clippy", "--version"]).output().unwrap().status.success();
    if !has_clippy {
        println!("skipped: clippy missing");
    }
    for edition in EDITIONS {
        let folder = package("lints.rs", edition);
        let check = if has_clippy { "clippy" } else { "check" };
        let output = cargo(&folder, &[check, "--message-format=json", "--keep-going"]);
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let find = |program: &str| {
            let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
            let mut findings: Vec<Finding> =
                messages.filter_map(|message| finding(&message, program)).collect();
            findings.sort();
            findings
        };
        let (annotated, plain) = (find("annotated"), find("plain"));
        let of_rustc = |findings: &[Finding]| -> Vec<Finding> {
            findings.iter().filter(|(_, _, lint)| !lint.starts_with("clippy::")).cloned().collect()
        };
        assert!(of_rustc(&plain).len() > 40, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(of_rustc(&annotated), of_rustc(&plain), "in {edition}");
        // Not by the column: `mut` goes from a `self` to its new name.
        let is_known = |(line, _, lint): &Finding| {
            plain.iter().any(|(its_line, _, its_lint)| its_line == line && its_lint == lint)
        };
        let new: Vec<&Finding> = annotated.iter().filter(|finding| !is_known(finding)).collect();
        assert!(new.is_empty(), "found with the attribute only, in {edition}: {new:#?}");
    }
}

/// What a message of cargo's is about, if it is about this program.
fn finding(message: &Value, program: &str) -> Option<Finding> {
    if message["target"]["name"] != program {
        return None;
    }
    let message = &message["message"];
    let mut span = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
    // In the standard library's macros.
    while span["expansion"].is_object() && !span["file_name"].as_str()?.starts_with("src/") {
        span = &span["expansion"]["span"];
    }
    let lint = message["code"]["code"].as_str().unwrap_or("error").to_owned();
    Some((span["line_start"].as_i64()?, span["column_start"].as_i64()?, lint))
}
