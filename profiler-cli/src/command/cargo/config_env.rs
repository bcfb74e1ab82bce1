//! Variables that cargo's configuration gives to programs: the table `[env]` of
//! `.cargo/config.toml`.
//!
//! In: the configuration files from the working directory upwards, then the file in cargo's home.
//! Out: names and values. A file that cannot be read is skipped, because cargo has complained about
//! it.
//!
//! <https://doc.rust-lang.org/cargo/reference/config.html#env>

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Returns the variables for a program that is started from `folder`.
///
/// `is_set` tells whether this process has a variable. Such a variable keeps its value, unless the
/// configuration says `force = true`.
pub(super) fn variables(
    folder: &Path,
    cargo_home: Option<PathBuf>,
    is_set: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    let above = folder.ancestors().map(|folder| folder.join(".cargo"));
    let mut found = BTreeMap::new();
    // The nearest file wins.
    for folder in above.chain(cargo_home) {
        for (name, value) in env_table(&folder) {
            let value = ConfiguredVariable::parse(&value, &folder);
            found.entry(name).or_insert(value);
        }
    }
    let wanted = |(name, variable): (String, Option<ConfiguredVariable>)| {
        let ConfiguredVariable { value, force } = variable?;
        (force || !is_set(&name)).then(|| (name.into(), value))
    };
    found.into_iter().filter_map(wanted).collect()
}

struct ConfiguredVariable {
    value: OsString,
    force: bool,
}

impl ConfiguredVariable {
    /// Reads the value of a name in a file of this folder.
    fn parse(value: &Value, folder: &Path) -> Option<ConfiguredVariable> {
        if let Value::String(value) = value {
            return Some(ConfiguredVariable { value: value.into(), force: false });
        }
        let table = value.as_table()?;
        let is = |key: &str| table.get(key).and_then(Value::as_bool).unwrap_or(false);
        let value = table.get("value")?.as_str()?;
        let value = match is("relative") {
            true => folder.parent().unwrap_or(folder).join(value).into_os_string(),
            false => value.into(),
        };
        Some(ConfiguredVariable { value, force: is("force") })
    }
}

fn env_table(folder: &Path) -> Table {
    // If both files exist, cargo reads the one with the old name.
    let text = ["config", "config.toml"]
        .into_iter()
        .find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
    let table = text.and_then(|text| text.parse::<Table>().ok()).unwrap_or_default();
    table.get("env").and_then(Value::as_table).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_file_wins_and_a_set_variable_stays() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("a/b");
        let home = top.path().join("home");
        let write = |folder: &Path, name: &str, text: &str| {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        };
        write(
            &inner.join(".cargo"),
            "config.toml",
            "[env]\nNEAR = 'b'\nSET = 'no'\n[env.FORCED]\nvalue = 'yes'\nforce = true",
        );
        let outer = "env.NEAR = 'top'\nenv.OUTER = { value = 'data', relative = true }\nenv.BROKEN = 3";
        write(&top.path().join(".cargo"), "config", outer);
        write(&top.path().join(".cargo"), "config.toml", "env.NOT_READ = ''");
        write(&home, "config.toml", "[env]\nOUTER = 'home'\nHOME_ONLY = 'h'");
        write(&top.path().join("a/.cargo"), "config.toml", "this is no TOML");

        let found = variables(&inner, Some(home), |name| ["SET", "FORCED"].contains(&name));
        let data = top.path().join("data");
        let expected =
            [("FORCED", "yes"), ("HOME_ONLY", "h"), ("NEAR", "b"), ("OUTER", data.to_str().unwrap())];
        assert_eq!(found, expected.map(|(name, value)| (name.into(), value.into())));
    }
}
