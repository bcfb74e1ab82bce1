//! Lints of the compiler find in annotated functions what they find without the attribute, and clippy finds nothing that it
//! would not.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{output_within, workspace};

/// Where a lint has found something, and which.
type Finding = (i64, i64, String);

const ATTRIBUTE: &str = "#[alloc_tracker::profile]";

#[test]
fn lints_find_what_they_find_without_the_attribute() {
    let sample = fs::read_to_string(workspace().join("tests/lints/sample.rs")).unwrap();
    assert!(sample.matches(ATTRIBUTE).count() > 30);
    let folder = workspace().join("target/lints");
    let bins = folder.join("src/bin");
    fs::create_dir_all(&bins).unwrap();
    fs::write(bins.join("annotated.rs"), &sample).unwrap();
    // No line may move.
    fs::write(bins.join("plain.rs"), sample.replace(ATTRIBUTE, "")).unwrap();
    let tracker = workspace().join("alloc-tracker");
    let manifest = format!(
        "[package]\nname = \"sample\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n\
         [dependencies]\nalloc-tracker = {{ path = {tracker:?} }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();

    let has_clippy =
        Command::new(env!("CARGO")).args(["clippy", "--version"]).output().unwrap().status.success();
    if !has_clippy {
        println!("skipped: clippy missing");
    }
    let output = output_within(
        Command::new(env!("CARGO"))
            .args([if has_clippy { "clippy" } else { "check" }, "--message-format=json", "--keep-going"])
            .arg("--target-dir")
            .arg(workspace().join("target/lints/target"))
            .env_remove("RUSTFLAGS")
            .current_dir(&folder),
        Duration::from_secs(300),
    );
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let find = |program: &str| {
        let mut findings: Vec<Finding> =
            messages.lines().filter_map(|line| finding(&serde_json::from_str(line).ok()?, program)).collect();
        findings.sort();
        findings
    };
    let (annotated, plain) = (find("annotated"), find("plain"));
    let of_rustc = |findings: &[Finding]| -> Vec<Finding> {
        findings.iter().filter(|(_, _, lint)| !lint.starts_with("clippy::")).cloned().collect()
    };
    assert!(of_rustc(&plain).len() > 40, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(of_rustc(&annotated), of_rustc(&plain));
    // Not by the column: `mut` goes from a `self` to its new name.
    let is_known = |(line, _, lint): &Finding| {
        plain.iter().any(|(its_line, _, its_lint)| its_line == line && its_lint == lint)
    };
    let new: Vec<&Finding> = annotated.iter().filter(|finding| !is_known(finding)).collect();
    assert!(new.is_empty(), "found with the attribute only: {new:#?}");
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
