//! Cargo's configuration files, as far as this package needs them. In: the folder in which cargo
//! would run. Out: values of keys. A file that cannot be read is skipped, because cargo complains
//! about it.
//!
//! <https://doc.rust-lang.org/cargo/reference/config.html#hierarchical-structure>

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The configuration files that hold for a folder, the nearest one first.
#[derive(Debug, Default)]
pub(crate) struct CargoConfig {
    /// The folder that relative paths of a file count from, and the content of the file.
    files: Vec<(PathBuf, Table)>,
}

impl CargoConfig {
    /// Reads the files for a folder: those in `.cargo` of the folder and of all folders above, then
    /// the file in cargo's home.
    pub(crate) fn read(folder: &Path, cargo_home: Option<PathBuf>) -> CargoConfig {
        let above = folder.ancestors().map(|folder| folder.join(".cargo"));
        let files = above.chain(cargo_home).filter_map(|folder| {
            // If both files exist, cargo reads the one with the old name.
            let mut names = ["config", "config.toml"].into_iter();
            let text = names.find_map(|name| std::fs::read_to_string(folder.join(name)).ok())?;
            Some((folder.parent().unwrap_or(&folder).to_owned(), text.parse().ok()?))
        });
        CargoConfig { files: files.collect() }
    }

    /// Reads the files that hold for this process.
    pub(crate) fn of_folder(folder: &Path) -> CargoConfig {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        CargoConfig::read(folder, home)
    }

    /// Returns the value of a key such as `["build", "target-dir"]` in the nearest file that has
    /// it, and the folder that relative paths in this file count from.
    pub(crate) fn first(&self, key: &[&str]) -> Option<(&Value, &Path)> {
        self.files.iter().find_map(|(folder, table)| Some((value_at(table, key)?, folder.as_path())))
    }
}

/// Returns the value of a key such as `["profile", "dev", "debug"]` in a table.
pub(crate) fn value_at<'a>(table: &'a Table, key: &[&str]) -> Option<&'a Value> {
    let (first, rest) = key.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.as_table()?.get(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_file_wins_and_the_old_name_before_the_new_one() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("a/b");
        let home = top.path().join("home");
        let write = |folder: &Path, name: &str, text: &str| {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        };
        write(&inner.join(".cargo"), "config.toml", "[build]\ntarget = 'near'");
        write(&top.path().join("a/.cargo"), "config.toml", "this is no TOML");
        write(&top.path().join(".cargo"), "config", "build.target-dir = 'out'\nbuild.target = 'far'");
        write(&top.path().join(".cargo"), "config.toml", "build.jobs = 3");
        write(&home, "config.toml", "build.rustc = 'mine'");

        let config = CargoConfig::read(&inner, Some(home));
        let text = |key: [&str; 2]| {
            config.first(&key).map(|(value, folder)| (value.as_str().unwrap().to_owned(), folder.to_owned()))
        };
        assert_eq!(text(["build", "target"]), Some(("near".to_owned(), inner)));
        assert_eq!(text(["build", "target-dir"]), Some(("out".to_owned(), top.path().to_owned())));
        assert_eq!(text(["build", "rustc"]), Some(("mine".to_owned(), top.path().to_owned())));
        assert_eq!(text(["build", "jobs"]), None);
        assert_eq!(text(["term", "color"]), None);
    }
}
