//! Where dumps go that the user gives no path for, and which of them is the newest. In: a working
//! directory. Out: paths. Nothing here creates or changes a file.
//!
//! The place depends on the working directory alone: `target/alloc-tracker` of the workspace that
//! cargo would find from there, or the working directory itself if there is no workspace. So a
//! command that is typed where the program was started finds the program's dump.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::Table;

use super::cargo_config::{CargoConfig, value_at};
use super::find::dumps_of_same_run;
use super::open::open_dump;
use crate::io_error::plain;

/// The name of the newest dump, on the command line.
pub const LAST: &str = "@last";
/// The name of all dumps of the newest run, on the command line.
pub const LAST_RUN: &str = "@run";

/// Returns the folder for dumps of programs that are started in the working directory.
///
/// # Errors
/// If there is no working directory.
pub fn default_folder() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()
        .map_err(|error| anyhow::anyhow!("cannot find the working directory: {}", plain(&error)))?;
    Ok(folder_for(&here, &CargoConfig::of_folder(&here), &|name| std::env::var_os(name)))
}

/// Returns the path that the user means: the newest dump for `@last`, else the path itself.
///
/// # Errors
/// If there is no dump yet.
pub fn resolve(path: PathBuf) -> anyhow::Result<PathBuf> {
    if path.as_os_str() != LAST {
        return Ok(path);
    }
    let folder = default_folder()?;
    newest_dump(&folder)
        .with_context(|| format!("there is no dump in {} yet: record one first", folder.display()))
}

/// Returns the newest dump, and those that the same run, or the same command of cargo, has written
/// beside it.
///
/// # Errors
/// If there is no dump yet.
pub fn dumps_of_last_run() -> anyhow::Result<Vec<PathBuf>> {
    let last = resolve(PathBuf::from(LAST))?;
    dumps_of_same_run(&default_folder()?, &last)
}

/// Returns the dump of the folder whose recording began last.
fn newest_dump(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let dumps = files.filter(|path| path.extension().is_some_and(|ending| ending == "alloc"));
    let begun = |path: PathBuf| {
        // A pipe of this name must not be read.
        let is_file = path.metadata().is_ok_and(|file| file.is_file());
        let (reader, _) = is_file.then(|| open_dump(&path))?.ok()?;
        Some((reader.header().created_unix_ns, path))
    };
    dumps.filter_map(begun).max().map(|(_, path)| path)
}

fn folder_for(here: &Path, config: &CargoConfig, variable: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let Some(root) = workspace_root(here) else { return here.to_owned() };
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(|folder| here.join(folder));
    let configured = || {
        let (value, folder) = config.first(&["build", "target-dir"])?;
        Some(folder.join(value.as_str()?))
    };
    let target = set("CARGO_TARGET_DIR").or_else(|| set("CARGO_BUILD_TARGET_DIR")).or_else(configured);
    target.unwrap_or_else(|| root.join("target")).join("alloc-tracker")
}

/// Returns the root of the workspace, or of the package without a workspace, to which the folder
/// belongs.
///
/// <https://doc.rust-lang.org/cargo/reference/workspaces.html>
pub(crate) fn workspace_root(folder: &Path) -> Option<PathBuf> {
    let mut above = folder.ancestors().filter(|folder| folder.join("Cargo.toml").is_file());
    let nearest = above.next()?;
    let manifest = read_manifest(nearest);
    if let Some(root) = value_at(&manifest, &["package", "workspace"]).and_then(|root| root.as_str()) {
        let root = nearest.join(root);
        return Some(root.canonicalize().unwrap_or(root));
    }
    if manifest.contains_key("workspace") {
        return Some(nearest.to_owned());
    }
    let has_member = |folder: &&Path| {
        let manifest = read_manifest(folder);
        let excluded = value_at(&manifest, &["workspace", "exclude"]).and_then(|list| list.as_array());
        let mut excluded = excluded.into_iter().flatten().filter_map(|path| path.as_str());
        manifest.contains_key("workspace") && !excluded.any(|path| nearest.starts_with(folder.join(path)))
    };
    Some(above.find(has_member).unwrap_or(nearest).to_owned())
}

/// Returns the manifest in a folder; an empty one if it cannot be read, about which cargo
/// complains.
pub(crate) fn read_manifest(folder: &Path) -> Table {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use alloc_dump::header::Header;

    use super::*;

    fn manifest(folder: &Path, text: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("Cargo.toml"), text).unwrap();
    }

    #[test]
    fn the_root_is_that_of_cargo() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        manifest(&top, "[workspace]\nmembers = ['a']\nexclude = ['lone']");
        manifest(&top.join("a"), "[package]\nname = 'a'");
        manifest(&top.join("lone"), "[package]\nname = 'lone'");
        manifest(&top.join("lone/own"), "[package]\nname = 'own'\nworkspace = '../..'");
        manifest(&top.join("a/inner"), "[package]\nname = 'inner'\n[workspace]");
        fs::create_dir_all(top.join("a/src")).unwrap();
        assert_eq!(workspace_root(&top.join("a/src")), Some(top.clone()));
        assert_eq!(workspace_root(&top.join("lone")), Some(top.join("lone")));
        assert_eq!(workspace_root(&top.join("lone/own")), Some(top.clone()));
        assert_eq!(workspace_root(&top.join("a/inner")), Some(top.join("a/inner")));
        let outside = tempfile::tempdir().unwrap();
        assert_eq!(workspace_root(outside.path()), None);
    }

    #[test]
    fn the_folder_is_below_the_target_folder_that_cargo_uses() {
        let top = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        manifest(&top.path().join("p"), "[package]\nname = 'p'");
        let here = top.path().join("p");
        let folder = |here: &Path, config: &CargoConfig, variables: &[(&str, &str)]| {
            let of =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            folder_for(here, config, &of)
        };
        let none = CargoConfig::default();
        assert_eq!(folder(&here, &none, &[]), here.join("target/alloc-tracker"));
        assert_eq!(folder(&here, &none, &[("CARGO_TARGET_DIR", "")]), here.join("target/alloc-tracker"));
        fs::create_dir(top.path().join(".cargo")).unwrap();
        fs::write(top.path().join(".cargo/config.toml"), "build.target-dir = 'all'").unwrap();
        let config = CargoConfig::read(&here, None);
        assert_eq!(folder(&here, &config, &[]), top.path().join("all/alloc-tracker"));
        let variable = [("CARGO_TARGET_DIR", "/t"), ("CARGO_BUILD_TARGET_DIR", "b")];
        assert_eq!(folder(&here, &config, &variable), Path::new("/t/alloc-tracker"));
        assert_eq!(folder(&here, &config, &variable[1..]), here.join("b/alloc-tracker"));
        assert_eq!(folder(outside.path(), &none, &variable), outside.path());
    }

    #[test]
    fn the_newest_dump_is_the_one_whose_recording_began_last() {
        let folder = tempfile::tempdir().unwrap();
        let dump = |name: &str, created_unix_ns: u64| {
            let header = Header { session: [1; 16], created_unix_ns };
            fs::write(folder.path().join(name), header.encode()).unwrap();
        };
        assert_eq!(newest_dump(folder.path()), None);
        dump("b.alloc", 7);
        dump("a.alloc", 9);
        dump("c.other", 10);
        fs::write(folder.path().join("d.alloc"), "no dump").unwrap();
        fs::create_dir(folder.path().join("e.alloc")).unwrap();
        assert_eq!(newest_dump(folder.path()), Some(folder.path().join("a.alloc")));
    }

    #[test]
    fn only_the_exact_name_is_special() {
        for path in ["x.alloc", "./@last", "@last~1"] {
            assert_eq!(resolve(PathBuf::from(path)).unwrap(), Path::new(path));
        }
    }
}
