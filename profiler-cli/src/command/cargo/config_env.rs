//! Variables that cargo's configuration gives to programs: the table `[env]` of `.cargo/config.toml`, from the working directory
//! up, then of cargo's home. In: files. Out: names and values.
//!
//! <https://doc.rust-lang.org/cargo/reference/config.html#env>

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The variables for a program that is started from `folder`. `is_set` tells of a variable whether this process has it; it then
/// stays as it is, unless the configuration insists. What cannot be read cargo has complained about itself.
pub(super) fn variables(
    folder: &Path,
    cargo_home: Option<PathBuf>,
    is_set: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    let above = folder.ancestors().map(|folder| folder.join(".cargo"));
    let mut found = BTreeMap::new();
    // The nearest one says it.
    for folder in above.chain(cargo_home) {
        for (name, value) in env_table(&folder) {
            let value = Variable::of(&value, &folder);
            found.entry(name).or_insert(value);
        }
    }
    let wanted = |(name, variable): (String, Option<Variable>)| {
        let Variable { value, force } = variable?;
        (force || !is_set(&name)).then(|| (name.into(), value))
    };
    found.into_iter().filter_map(wanted).collect()
}

struct Variable {
    value: OsString,
    force: bool,
}

impl Variable {
    /// What stands behind a name, in a file of this folder.
    fn of(value: &Value, folder: &Path) -> Option<Variable> {
        if let Value::String(value) = value {
            return Some(Variable { value: value.into(), force: false });
        }
        let table = value.as_table()?;
        let is = |key: &str| table.get(key).and_then(Value::as_bool).unwrap_or(false);
        let value = table.get("value")?.as_str()?;
        let value = match is("relative") {
            true => folder.parent().unwrap_or(folder).join(value).into_os_string(),
            false => value.into(),
        };
        Some(Variable { value, force: is("force") })
    }
}

fn env_table(folder: &Path) -> Table {
    // Where there are both, cargo reads the one with the old name.
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
    fn the_nearest_file_says_it_and_what_is_set_stays() {
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
