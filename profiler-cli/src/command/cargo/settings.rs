//! What cargo is told besides its own arguments: to build with debug info, to optimize the recorder
//! alone, and to start programs by this one. In: a [`CargoLine`]. Out: options and variables.
//!
//! The code of the program itself must be built as its profile says.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use toml::Value;

use super::line::CargoLine;
use crate::dumps::cargo_config::{CargoConfig, value_at};
use crate::dumps::place::{read_manifest, workspace_root};
use crate::io_error::plain;
use crate::names::own_crates::EVENT_PACKAGES;

/// The first argument of a process of this program that cargo starts instead of a program. The
/// folder of the program log (`program_log.rs`), the program and its arguments follow.
pub const RECORD_PROCESS: &str = "internal-record";

/// Returns options for cargo: the recorder is always optimized, and programs are started by this
/// program, which records them and notes them in the program log in this folder.
///
/// # Errors
/// If cargo cannot be run, or if a path cannot be written in TOML.
pub(super) fn options(cargo: &OsStr, line: &CargoLine, log: &Path) -> anyhow::Result<Vec<OsString>> {
    let mut settings = Vec::new();
    let profile = line.profile();
    // An unoptimized recorder costs microseconds for each event.
    for package in EVENT_PACKAGES {
        for setting in ["opt-level=3", "debug-assertions=false", "overflow-checks=false"] {
            settings.push(format!("profile.{profile}.package.{package}.{setting}"));
        }
    }
    if !line.runs_nothing() {
        let this = std::env::current_exe()
            .map_err(|error| anyhow::anyhow!("cannot find this program: {}", plain(&error)))?;
        let text = |path: &Path| {
            let text = path.to_str().with_context(|| format!("cargo cannot use the path {}", path.display()));
            text.map(Value::from)
        };
        let runner = Value::Array(vec![text(&this)?, Value::from(RECORD_PROCESS), text(log)?]);
        for triple in triples(cargo, line)? {
            settings.push(format!("target.'{triple}'.runner={runner}"));
        }
    }
    Ok(settings.into_iter().flat_map(|setting| ["--config".into(), setting.into()]).collect())
}

/// Returns the targets that cargo may build programs for: the machine's own, and those that options
/// or configuration name.
fn triples(cargo: &OsStr, line: &CargoLine) -> anyhow::Result<Vec<String>> {
    let host = host_triple(cargo, line)?;
    let here = std::env::current_dir().unwrap_or_default();
    let config = CargoConfig::of_folder(&here);
    let mut names: Vec<String> =
        line.values_of("--target").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.extend(std::env::var("CARGO_BUILD_TARGET"));
    match config.first(&["build", "target"]) {
        Some((Value::String(name), _)) => names.push(name.clone()),
        Some((Value::Array(list), _)) => {
            names.extend(list.iter().filter_map(Value::as_str).map(str::to_owned))
        }
        _ => {}
    }
    let mut triples: Vec<String> =
        names.into_iter().filter(|name| name != "host-tuple").map(triple_of).collect();
    triples.push(host);
    triples.sort();
    triples.dedup();
    Ok(triples)
}

/// Returns the name by which cargo's configuration knows a target. A target may be given by a file.
fn triple_of(name: String) -> String {
    match name.strip_suffix(".json") {
        Some(path) => path.rsplit('/').next().unwrap_or_default().to_owned(),
        None => name,
    }
}

fn host_triple(cargo: &OsStr, line: &CargoLine) -> anyhow::Result<String> {
    let output = Command::new(cargo)
        .args(&line.toolchain)
        .arg("-vV")
        .output()
        .map_err(|error| anyhow::anyhow!("cannot run cargo: {}", plain(&error)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).with_context(|| {
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        format!("cargo does not say for which machine it builds: {complaint}")
    })
}

/// Returns the environment variables that make cargo build with debug info and leave it in.
pub(super) fn variables(line: &CargoLine) -> Vec<(String, &'static str)> {
    let profile = line.profile();
    let variable =
        |setting: &str| format!("CARGO_PROFILE_{}_{setting}", profile.to_uppercase().replace('-', "_"));
    let mut variables = vec![(variable("STRIP"), "none")];
    // The profiles `dev` and `test` have full debug info unless a setting says otherwise. It stays,
    // so that cargo need not build everything anew.
    if !matches!(&*profile, "dev" | "test") || is_switched_off(&profile, line) {
        // NOTE: `limited`, because `line-tables-only` omits the module paths of inlined functions.
        variables.push((variable("DEBUG"), "limited"));
    }
    variables
}

/// Whether a setting switches debug info off in the profile `dev` or `test`.
fn is_switched_off(profile: &str, line: &CargoLine) -> bool {
    let here = std::env::current_dir().unwrap_or_default();
    let manifest = line.value_of("--manifest-path").map(PathBuf::from);
    let package =
        manifest.and_then(|file| Some(here.join(file).parent()?.to_owned())).unwrap_or(here.clone());
    let manifest = workspace_root(&package).map(|root| read_manifest(&root)).unwrap_or_default();
    let config = CargoConfig::of_folder(&here);
    let setting = |profile: &str| {
        let key = ["profile", profile, "debug"];
        let variable = std::env::var(format!("CARGO_PROFILE_{}_DEBUG", profile.to_uppercase()));
        let variable = variable.ok().map(Value::String);
        let configured = || config.first(&key).map(|(value, _)| value.clone());
        variable.or_else(configured).or_else(|| value_at(&manifest, &key).cloned())
    };
    // The profile `test` has the settings of `dev` that it does not have itself.
    setting(profile).or_else(|| setting("dev")).is_some_and(|value| is_none(&value))
}

/// Whether the value of `debug` in a profile means no debug info.
fn is_none(value: &Value) -> bool {
    match value {
        Value::Boolean(on) => !on,
        Value::Integer(level) => *level == 0,
        Value::String(level) => ["none", "0", "false"].contains(&level.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: &str) -> CargoLine {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        CargoLine::parse(&words).unwrap()
    }

    #[test]
    fn optimized_profiles_get_debug_info() {
        let all = variables(&line("run --profile fat-lto"));
        let expected = [("CARGO_PROFILE_FAT_LTO_STRIP", "none"), ("CARGO_PROFILE_FAT_LTO_DEBUG", "limited")];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn debug_profiles_get_debug_info_where_it_is_switched_off() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("Cargo.toml");
        for (text, is_off) in [
            ("", false),
            ("profile.dev.debug = 0", true),
            ("profile.dev.debug = 'none'", true),
            ("profile.dev.debug = 'line-tables-only'", false),
            ("profile.dev.debug = false\nprofile.test.debug = true", false),
            ("profile.test.debug = false", true),
        ] {
            std::fs::write(&manifest, text).unwrap();
            let line = line(&format!("test --manifest-path {}", manifest.display()));
            assert_eq!(variables(&line).len() == 2, is_off, "{text}");
        }
    }

    #[test]
    fn a_target_may_be_a_file() {
        assert_eq!(triple_of("x86_64-unknown-linux-musl".to_owned()), "x86_64-unknown-linux-musl");
        assert_eq!(triple_of("targets/mine.json".to_owned()), "mine");
    }
}
