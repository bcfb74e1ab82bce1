//! `#[profile]` changes neither the behaviour of a function nor what lints say about it. With the
//! attribute the compiler's lints find exactly what they find without it, and clippy finds nothing
//! more. Both hold in two editions, since the meaning of a block depends on the edition.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tests::{output_within, workspace};

const ATTRIBUTE: &str = "#[alloc_tracker::profile]";
const EDITIONS: [&str; 2] = ["2021", "2024"];

/// Creates a package of two programs: a source file of `attribute/`, and the same file without the
/// attribute. Returns the package's folder.
fn package(program: &str, edition: &str) -> PathBuf {
    let source = fs::read_to_string(workspace().join("tests/attribute").join(program)).unwrap();
    assert!(source.matches(ATTRIBUTE).count() > 20);
    let name = format!("{}-{edition}", program.trim_end_matches(".rs"));
    let folder = workspace().join("target/attribute").join(&name);
    let bins = folder.join("src/bin");
    fs::create_dir_all(&bins).unwrap();
    fs::write(bins.join("annotated.rs"), &source).unwrap();
    // Only the attribute's text is removed. Its line stays, so that findings have the same lines in
    // both programs.
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
fn programs_behave_the_same_with_and_without_the_attribute() {
    for edition in EDITIONS {
        let folder = package("behaviour.rs", edition);
        let stdout_of = |program: &str| {
            let output = cargo(&folder, &["run", "--quiet", "--bin", program]);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} in {edition}: {errors}");
            // Each program has a source file of its own, whose name may be in the output.
            String::from_utf8(output.stdout).unwrap().replace("annotated.rs", "plain.rs")
        };
        let plain = stdout_of("plain");
        assert!(plain.lines().count() > 50, "{plain}");
        assert_eq!(stdout_of("annotated"), plain, "in {edition}");
    }
}

/// Line and column of a lint's finding, and the name of the lint.
type Finding = (i64, i64, String);

#[test]
fn lints_find_the_same_with_and_without_the_attribute() {
    let has_clippy =
        Command::new(env!("CARGO")).args(["clippy", "--version"]).output().unwrap().status.success();
    if !has_clippy {
        println!("skipped: clippy missing");
    }
    for edition in EDITIONS {
        let folder = package("lints.rs", edition);
        let check = if has_clippy { "clippy" } else { "check" };
        let output = cargo(&folder, &[check, "--message-format=json", "--keep-going"]);
        let stdout = String::from_utf8_lossy(&output.stdout);
        let messages: Vec<Value> =
            stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // Behind an error neither clippy nor the compiler's late lints run, so that the comparison
        // below would compare almost nothing.
        let errors: Vec<&Value> = messages.iter().filter_map(compiler_error).collect();
        assert!(errors.is_empty(), "does not compile in {edition}: {errors:#?}");
        let find = |program: &str| {
            let mut findings: Vec<Finding> =
                messages.iter().filter_map(|message| parse_finding(message, program)).collect();
            findings.sort();
            findings
        };
        let (annotated, plain) = (find("annotated"), find("plain"));
        let of_rustc = |findings: &[Finding]| -> Vec<Finding> {
            findings.iter().filter(|(_, _, lint)| !lint.starts_with("clippy::")).cloned().collect()
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(of_rustc(&plain).len() > 40, "{stderr}");
        let of_clippy = plain.len() - of_rustc(&plain).len();
        assert!(!has_clippy || of_clippy > 20, "clippy has found {of_clippy}: {stderr}");
        assert_eq!(of_rustc(&annotated), of_rustc(&plain), "in {edition}");
        // Columns may differ: the attribute moves the `mut` of a `self` to the new name of that
        // `self`.
        let is_known = |(line, _, lint): &Finding| {
            plain.iter().any(|(its_line, _, its_lint)| its_line == line && its_lint == lint)
        };
        let new: Vec<&Finding> = annotated.iter().filter(|finding| !is_known(finding)).collect();
        assert!(new.is_empty(), "findings with the attribute only, in {edition}: {new:#?}");
    }
}

/// Returns the text of a compiler error that a message of cargo reports. The level of some lints is
/// that of an error too, but their codes are names: `clippy::never_loop`. The code of a compiler
/// error is a number such as `E0689`, or it has none.
fn compiler_error(message: &Value) -> Option<&Value> {
    let message = &message["message"];
    let is_lint = message["code"]["code"].as_str().is_some_and(|code| !code.starts_with('E'));
    (message["level"] == "error" && !is_lint).then(|| &message["rendered"])
}

/// Returns the finding that a message of cargo reports, if the message is about this program.
fn parse_finding(message: &Value, program: &str) -> Option<Finding> {
    if message["target"]["name"] != program {
        return None;
    }
    let message = &message["message"];
    let mut span = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
    // A span inside a macro of the standard library is replaced by the span of the macro's call.
    while span["expansion"].is_object() && !span["file_name"].as_str()?.starts_with("src/") {
        span = &span["expansion"]["span"];
    }
    let lint = message["code"]["code"].as_str().unwrap_or("error").to_owned();
    Some((span["line_start"].as_i64()?, span["column_start"].as_i64()?, lint))
}
