//! `profiler.toml`: defaults for the options of the command line.
//!
//! In: the nearest such file, from the working directory upwards. Out: the same commands with other
//! defaults, so that options on the command line and `PROFILER_*` variables still win.
//!
//! Keys are the long names of options. A key at the top applies to every command that has the
//! option. A key in a table applies to the command of that name alone. Relative paths start at the
//! folder of the file. A default is ignored if it contradicts an option on the command line:
//! `--format text` gives text even if the file has `csv = true`. An example:
//!
//! ```toml
//! symbols = ["/srv/symbols"]
//! color = "never"
//!
//! [leaks]
//! top = 20
//! fail-on-leak = 1000000
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{Arg, Command, Id, ValueHint};
use toml::{Table, Value};

use crate::command::lines::TEXT_OPTIONS;
use crate::io_error::plain;

/// Name of the file with the defaults.
pub const FILE_NAME: &str = "profiler.toml";

/// Gives the options of `command` the defaults of the nearest `profiler.toml` at or above `folder`,
/// except for defaults that contradict the `arguments`.
///
/// # Errors
/// If the file cannot be read or is not TOML, or if it has an unknown option or a wrong value.
pub fn with_defaults(command: Command, folder: &Path, arguments: &[OsString]) -> anyhow::Result<Command> {
    let Some(folder) = folder.ancestors().find(|folder| folder.join(FILE_NAME).is_file()) else {
        return Ok(command);
    };
    let path = folder.join(FILE_NAME);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {}", path.display(), plain(&error)))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        anyhow::anyhow!("{}:{line}: {}", path.display(), error.message())
    })?;
    let file = DefaultsFile { folder, contradicted: contradicted_options(&command, arguments) };
    file.apply(command, &table).with_context(|| path.display().to_string())
}

/// Returns the name of the chosen command, and those of its options that cannot be used together
/// with the options that were given.
fn contradicted_options(command: &Command, arguments: &[OsString]) -> (String, Vec<Id>) {
    let nothing = (String::new(), Vec::new());
    // A wrong command line is reported later, when it is parsed with the defaults.
    let Ok(matches) = command.clone().try_get_matches_from(arguments) else { return nothing };
    let Some((name, matches)) = matches.subcommand() else { return nothing };
    // clap computes the conflicts of arguments when it builds a command.
    let mut command = command.clone();
    command.build();
    let Some(chosen) = command.find_subcommand(name) else { return nothing };
    let is_given = |arg: &Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let excludes =
        |a: &Arg, b: &Arg| chosen.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id());
    let ids = |arg: &Arg| matches.try_contains_id(arg.get_id().as_str()).is_ok();
    let given: Vec<&Arg> = chosen.get_arguments().filter(|arg| ids(arg) && is_given(arg)).collect();
    let of_one_group = |a: &Arg, b: &Arg| {
        let mut groups = chosen.get_groups().cloned();
        groups.any(|mut group| {
            let has = |arg: &Arg| group.get_args().any(|id| id == arg.get_id());
            let both = has(a) && has(b) && a.get_id() != b.get_id();
            both && !group.is_multiple()
        })
    };
    let shapes_text = given.iter().any(|arg| TEXT_OPTIONS.contains(&arg.get_id().as_str()));
    let out = chosen.get_arguments().filter(|arg| {
        given.iter().any(|g| excludes(g, arg) || excludes(arg, g) || of_one_group(g, arg))
            || shapes_text && name == "lines" && arg.get_id() == "format"
    });
    (name.to_owned(), out.map(|arg| arg.get_id().clone()).collect())
}

/// A file with defaults.
struct DefaultsFile<'a> {
    /// The folder of the file.
    folder: &'a Path,
    /// The chosen command, and those of its options whose defaults are ignored; see
    /// [`contradicted_options`].
    contradicted: (String, Vec<Id>),
}

impl DefaultsFile<'_> {
    /// Sets the defaults of all options in the file.
    fn apply(&self, mut command: Command, table: &Table) -> anyhow::Result<Command> {
        for (key, value) in table {
            command = match value {
                Value::Table(options) => {
                    if command.find_subcommand(key).is_none() {
                        bail!("there is no command '{key}'; name the table after a command");
                    }
                    let mut outcome = Ok(());
                    command = command.mut_subcommand(key, |mut command| {
                        for (key, value) in options {
                            if outcome.is_ok() {
                                let changed;
                                (command, changed) = self.set(command, key, value);
                                outcome = changed.and_then(|changed| require_known(changed, key));
                            }
                        }
                        command
                    });
                    outcome?;
                    command
                }
                value => self.set_everywhere(command, key, value)?,
            };
        }
        Ok(command)
    }

    /// Sets the default of an option of the command itself, and of all its subcommands that have
    /// it.
    fn set_everywhere(&self, command: Command, key: &str, value: &Value) -> anyhow::Result<Command> {
        let (mut command, mut anywhere) = self.set(command, key, value);
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names {
            command = command.mut_subcommand(name, |sub| {
                let (sub, changed) = self.set(sub, key, value);
                anywhere = match (std::mem::replace(&mut anywhere, Ok(false)), changed) {
                    (Ok(before), Ok(now)) => Ok(before || now),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
                sub
            });
        }
        require_known(anywhere?, key)?;
        Ok(command)
    }

    /// Sets the default of an option, if the command has that option. Returns whether it has.
    fn set(&self, command: Command, key: &str, value: &Value) -> (Command, anyhow::Result<bool>) {
        let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(key)) else {
            return (command, Ok(false));
        };
        let (chosen, contradicted) = &self.contradicted;
        let (id, is_path) = (
            arg.get_id().clone(),
            matches!(arg.get_value_hint(), ValueHint::DirPath | ValueHint::FilePath | ValueHint::AnyPath),
        );
        let Some(mut texts) = option_texts(value) else {
            return (command, Err(anyhow::anyhow!("'{key}' {WRONG_KIND}")));
        };
        if command.get_name() == chosen && contradicted.contains(&id) {
            return (command, Ok(true));
        }
        for text in &mut texts {
            if is_path && text != "-" {
                *text = self.folder.join(&*text).to_string_lossy().into_owned();
            } else if key == "path-map"
                && let Some((old, new)) = text.split_once('=')
            {
                *text = format!("{old}={}", self.folder.join(new).display());
            }
        }
        (command.mut_arg(id, |arg| arg.default_values(texts)), Ok(true))
    }
}

const WRONG_KIND: &str =
    "has a value of the wrong kind: give a text, a whole number, true, false, or a list of these";

/// Returns a value as texts for the command line; `None` for a kind that no option has.
fn option_texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => {
            values.iter().map(option_texts).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Boolean(yes) => Some(vec![yes.to_string()]),
        _ => None,
    }
}

/// Fails if no command has the option.
fn require_known(is_known: bool, key: &str) -> anyhow::Result<()> {
    if is_known { Ok(()) } else { bail!("there is no option '{key}'; a key is the long name of an option") }
}

/// Returns the folder where the search for the file starts.
pub fn start_folder() -> PathBuf {
    // Without a working directory there is no file to find.
    std::env::current_dir().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cli::{Cli, Command as Chosen};
    use crate::command::lines::LinesFormat;
    use clap::{CommandFactory, FromArgMatches};

    fn parse(file: &str, args: &[&str]) -> anyhow::Result<Cli> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), file).unwrap();
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let arguments: Vec<OsString> = args.iter().map(OsString::from).collect();
        let matches = with_defaults(Cli::command(), &below, &arguments)?.try_get_matches_from(args)?;
        Ok(Cli::from_arg_matches(&matches)?)
    }

    fn leaks(cli: Cli) -> (Option<usize>, Option<u64>, bool, Vec<PathBuf>) {
        let Chosen::Leaks(args) = cli.command else { panic!("another command") };
        (args.top, args.fail_on_leak, args.input.symbols.no_cache, args.input.symbols.symbols)
    }

    #[test]
    fn options_have_the_defaults_of_the_file_and_flags_win() {
        let file = "symbols = ['/s', '/t']\nno-cache = true\n[leaks]\ntop = 7\nfail-on-leak = 1000\n[lines]\ntop = 1\n";
        let paths = || vec![PathBuf::from("/s"), PathBuf::from("/t")];
        let given = leaks(parse(file, &["profiler-cli", "leaks", "x"]).unwrap());
        assert_eq!(given, (Some(7), Some(1000), true, paths()));
        let flags =
            leaks(parse(file, &["profiler-cli", "leaks", "x", "--top", "9", "--symbols", "/u"]).unwrap());
        assert_eq!(flags, (Some(9), Some(1000), true, vec![PathBuf::from("/u")]));
        assert_eq!(
            leaks(parse("", &["profiler-cli", "leaks", "x"]).unwrap()),
            (None, None, false, Vec::new())
        );
    }

    #[test]
    fn a_default_that_contradicts_a_flag_is_ignored() {
        let shape = |args: &[&str]| {
            let cli = parse("json = true\n[lines]\ncsv = true\nunit = 'KiB'", args).unwrap();
            let Chosen::Lines(args) = cli.command else { panic!("another command") };
            (args.json.json, args.csv, args.unit.is_some())
        };
        assert_eq!(shape(&["profiler-cli", "lines", "x"]), (true, true, true));
        assert_eq!(shape(&["profiler-cli", "lines", "x", "--format", "text"]), (false, false, true));
        assert_eq!(shape(&["profiler-cli", "lines", "x", "--csv"]), (false, true, false));
        assert_eq!(shape(&["profiler-cli", "lines", "x", "--json"]), (true, false, false));
        // The same holds for options that only one format uses.
        let args = ["profiler-cli", "lines", "x", "--columns", "peak"];
        let Chosen::Lines(args) = parse("[lines]\nformat = 'csv'\n", &args).unwrap().command else {
            panic!("another command")
        };
        assert_eq!(args.chosen_format(), LinesFormat::Text);
    }

    #[test]
    fn a_default_gives_way_to_another_option_of_its_group() {
        let option = |name: &'static str| Arg::new(name).long(name).group("one");
        let command = Command::new("tool").subcommand(Command::new("go").args([option("a"), option("b")]));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "[go]\na = 'x'\n").unwrap();
        let a_of = |arguments: &[&str]| {
            let words: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let command = with_defaults(command.clone(), folder.path(), &words).unwrap();
            let matches = command.get_matches_from(words);
            matches.subcommand_matches("go").unwrap().get_one::<String>("a").cloned()
        };
        assert_eq!(a_of(&["tool", "go"]), Some("x".to_owned()));
        assert_eq!(a_of(&["tool", "go", "--b", "y"]), None);
    }

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(FILE_NAME),
            "symbols = ['sym', '/s']\n[lines]\npath-map = ['/build=src']\nhtml = '-'\n",
        )
        .unwrap();
        let below = folder.path().join("a");
        std::fs::create_dir(&below).unwrap();
        let args = ["profiler-cli", "lines", "x"];
        let matches = with_defaults(Cli::command(), &below, &args.map(OsString::from)).unwrap();
        let cli = Cli::from_arg_matches(&matches.get_matches_from(args)).unwrap();
        let Chosen::Lines(args) = cli.command else { panic!("another command") };
        assert_eq!(args.input.symbols.symbols, [folder.path().join("sym"), PathBuf::from("/s")]);
        assert_eq!(args.path_map, [format!("/build={}/src", folder.path().display()).parse().unwrap()]);
        assert_eq!(args.html, Some(PathBuf::from("-")));
    }

    #[test]
    fn an_error_names_the_file() {
        let message = |file| format!("{:#}", parse(file, &["profiler-cli", "leaks", "x"]).unwrap_err());
        let no_option =
            |key| format!("profiler.toml: there is no option '{key}'; a key is the long name of an option");
        assert!(message("tpo = 1").ends_with(&no_option("tpo")));
        assert!(message("[leaks]\nmetric = 'peak'").ends_with(&no_option("metric")));
        assert!(
            message("[leks]\ntop = 1")
                .ends_with("profiler.toml: there is no command 'leks'; name the table after a command")
        );
        assert!(message("top = 1.5").ends_with(&format!("profiler.toml: 'top' {WRONG_KIND}")));
        assert!(message("a = 1\n= 2").contains("profiler.toml:2: "));
        assert!(message("[leaks]\ntop = 'many'").contains("invalid value 'many'"));
    }
}
