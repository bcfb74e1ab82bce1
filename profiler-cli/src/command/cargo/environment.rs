//! The surroundings that cargo gives to a program that it starts. In: a built target. Out: its
//! working directory and its environment variables.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Artifact, BuildScript, TargetKind};

use super::build::{BuiltProgram, package_of};
use super::config_env;
use crate::command::run::Surroundings;

/// Returns the working directory and the variables that `cargo run`, `cargo test` and `cargo bench`
/// give to this program.
pub(super) fn surroundings(
    cargo: &OsString,
    BuiltProgram { artifact, scripts }: &BuiltProgram,
) -> Surroundings {
    let manifest = artifact.manifest_path.as_std_path();
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let is_test = artifact.profile.test || artifact.target.kind.contains(&TargetKind::Bench);
    let mut variables = configured_variables();
    let mut set = |name: &str, value: &dyn AsRef<OsStr>| variables.push((name.into(), value.as_ref().into()));
    set("CARGO", cargo);
    set("CARGO_MANIFEST_DIR", &folder);
    set("CARGO_MANIFEST_PATH", &manifest);
    for script in scripts.iter().filter(|script| script.package_id == artifact.package_id) {
        set("OUT_DIR", &script.out_dir.as_std_path());
        script.env.iter().for_each(|(name, value)| set(name, value));
    }
    if let Some(package) = package_of(cargo, artifact) {
        let version = &package.version;
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        set("CARGO_PKG_NAME", &package.name.as_str());
        set("CARGO_PKG_VERSION", &version.to_string());
        set("CARGO_PKG_VERSION_MAJOR", &version.major.to_string());
        set("CARGO_PKG_VERSION_MINOR", &version.minor.to_string());
        set("CARGO_PKG_VERSION_PATCH", &version.patch.to_string());
        set("CARGO_PKG_VERSION_PRE", &version.pre.as_str());
        set("CARGO_PKG_AUTHORS", &package.authors.join(":"));
        set("CARGO_PKG_DESCRIPTION", &or_empty(&package.description));
        set("CARGO_PKG_HOMEPAGE", &or_empty(&package.homepage));
        set("CARGO_PKG_REPOSITORY", &or_empty(&package.repository));
        set("CARGO_PKG_LICENSE", &or_empty(&package.license));
        let path_or_empty = |path: &Option<_>| path.as_ref().map_or_else(String::new, ToString::to_string);
        set("CARGO_PKG_LICENSE_FILE", &path_or_empty(&package.license_file));
        set("CARGO_PKG_README", &path_or_empty(&package.readme));
    }
    if let Some(libraries) = library_path(artifact, scripts) {
        set("LD_LIBRARY_PATH", &libraries);
    }
    Surroundings { folder: is_test.then(|| folder.to_owned()), variables }
}

/// Returns the variables that cargo's configuration sets for a program started here. The variables
/// that cargo itself sets come after them and win.
fn configured_variables() -> Vec<(OsString, OsString)> {
    let Ok(here) = std::env::current_dir() else { return Vec::new() };
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    config_env::variables(&here, home, |name| std::env::var_os(name).is_some())
}

/// Returns the folders of libraries that the program may be linked to: the libraries that build
/// scripts made, the program's own libraries, and the compiler's libraries (for the tests of a
/// procedural macro).
fn library_path(artifact: &Artifact, scripts: &[BuildScript]) -> Option<OsString> {
    let program = artifact.executable.as_ref()?.as_std_path();
    let folder = program.parent()?;
    let profile =
        if folder.ends_with("deps") || folder.ends_with("examples") { folder.parent()? } else { folder };
    // As cargo does: only folders inside the build folder, without a kind such as `native=` in
    // front.
    let native = scripts.iter().flat_map(|script| &script.linked_paths).map(|path| {
        let path = path.as_str();
        PathBuf::from(path.split_once('=').map_or(path, |(_, path)| path))
    });
    let mut paths: Vec<PathBuf> = native.filter(|path| path.starts_with(profile)).collect();
    paths.extend([profile.join("deps"), profile.to_owned()]);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc).args(["--print", "target-libdir"]).output().ok();
    if let Some(printed) = printed.filter(|printed| printed.status.success()) {
        paths.push(PathBuf::from(OsString::from_vec(printed.stdout.trim_ascii().to_vec())));
    }
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&before).filter(|path| !path.as_os_str().is_empty()));
    std::env::join_paths(paths).ok()
}
