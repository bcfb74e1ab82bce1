//! Cargo's part of the command line. In: the arguments that are not options of this program. Out: a
//! [`CargoLine`]: which command of cargo it is, and what this program must know of its options.
//! All arguments go on to cargo as they are.

use std::ffi::{OsStr, OsString};

use anyhow::bail;

/// A command line of cargo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CargoLine {
    /// `+nightly`, if the line begins with a toolchain.
    pub(super) toolchain: Option<OsString>,
    /// Options in front of the command.
    before: Vec<OsString>,
    /// The command.
    pub(super) command: CargoCommand,
    /// The words of the command as cargo gets them, such as `nextest run`.
    words: Vec<OsString>,
    /// All arguments behind these words.
    after: Vec<OsString>,
}

/// A command of cargo that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CargoCommand {
    Build,
    Run,
    Test,
    Bench,
    Nextest,
}

impl CargoCommand {
    /// Returns the command of this name, or of the short name that cargo knows.
    pub(super) fn named(name: &OsStr) -> Option<CargoCommand> {
        Some(match name.to_str()? {
            "build" | "b" => CargoCommand::Build,
            "run" | "r" => CargoCommand::Run,
            "test" | "t" => CargoCommand::Test,
            "bench" => CargoCommand::Bench,
            "nextest" => CargoCommand::Nextest,
            _ => return None,
        })
    }
}

impl CargoLine {
    /// Parses the arguments. If they name no command, their options choose one: `--test x` means
    /// `test`, `--bench x` means `bench`, and anything else `run`.
    ///
    /// # Errors
    /// If the command is one that runs nothing, or is not known.
    pub(super) fn parse(arguments: &[OsString]) -> anyhow::Result<CargoLine> {
        let is_toolchain = |argument: &&OsString| argument.as_encoded_bytes().starts_with(b"+");
        let toolchain = arguments.first().filter(is_toolchain).cloned();
        let arguments = &arguments[usize::from(toolchain.is_some())..];
        let at = options_before_command(arguments);
        let (before, rest) = arguments.split_at(at);
        match rest.first() {
            Some(word) if word != "--" && !word.as_encoded_bytes().starts_with(b"-") => {
                let Some(command) = CargoCommand::named(word) else {
                    bail!(
                        "cannot profile `cargo {}`: use run, test, bench, nextest or build; aliases are not known here",
                        word.display()
                    );
                };
                let mut words = 1;
                if command == CargoCommand::Nextest {
                    if !rest.get(1).is_some_and(|word| word == "run" || word == "r") {
                        bail!("of nextest only `cargo nextest run` runs tests");
                    }
                    words = 2;
                }
                let (words, after) = rest.split_at(words);
                Ok(CargoLine {
                    toolchain,
                    before: before.to_vec(),
                    command,
                    words: words.to_vec(),
                    after: after.to_vec(),
                })
            }
            _ => Ok(CargoLine::short(toolchain, arguments.to_vec())),
        }
    }

    /// Returns the line of the short form, which names no command.
    fn short(toolchain: Option<OsString>, mut after: Vec<OsString>) -> CargoLine {
        let has =
            |names: &[&str]| options(&after).any(|option| names.iter().any(|name| is_option(option, name)));
        let (command, word) = match () {
            () if has(&["--bench", "--benches"]) => (CargoCommand::Bench, "bench"),
            () if has(&["--test", "--tests", "--lib", "--doc"]) => (CargoCommand::Test, "test"),
            () => (CargoCommand::Run, "run"),
        };
        if command == CargoCommand::Bench {
            // `cargo bench` always optimizes, and rejects this option.
            let end = options(&after).count();
            let mut at = 0;
            after.retain(|argument| {
                at += 1;
                at > end || (argument != "--release" && argument != "-r")
            });
        }
        CargoLine { toolchain, before: Vec::new(), command, words: vec![word.into()], after }
    }

    /// Returns cargo's arguments, with these options directly behind the command.
    pub(super) fn arguments(&self, options: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let parts = self.toolchain.iter().chain(&self.before).chain(&self.words).cloned();
        parts.chain(options).chain(self.after.iter().cloned()).collect()
    }

    /// Returns the value of the last option of this name, such as `--profile`.
    pub(super) fn value_of(&self, name: &str) -> Option<OsString> {
        self.values_of(name).pop()
    }

    /// Returns the values of all options of this name.
    pub(super) fn values_of(&self, name: &str) -> Vec<OsString> {
        let options: Vec<&OsString> = options(&self.before).chain(options(&self.after)).collect();
        let value = |(at, option): (usize, &&OsString)| {
            let (option, name) = (option.as_encoded_bytes(), name.as_bytes());
            match option.strip_prefix(name)? {
                [] => options.get(at + 1).map(|value| (*value).clone()),
                [b'=', ..] => Some(OsString::from(option_value(options[at], name.len() + 1))),
                _ => None,
            }
        };
        options.iter().enumerate().filter_map(value).collect()
    }

    /// Returns the name of the cargo profile that the line builds with.
    pub(super) fn profile(&self) -> String {
        let option = if self.command == CargoCommand::Nextest { "--cargo-profile" } else { "--profile" };
        if let Some(profile) = self.value_of(option) {
            return profile.to_string_lossy().into_owned();
        }
        let optimizes = options(&self.after).any(|option| option == "--release" || is_bundle_with_r(option));
        let default = match self.command {
            CargoCommand::Bench => "bench",
            _ if optimizes => "release",
            CargoCommand::Test | CargoCommand::Nextest => "test",
            CargoCommand::Run | CargoCommand::Build => "dev",
        };
        default.to_owned()
    }

    /// Whether the line only builds.
    pub(super) fn runs_nothing(&self) -> bool {
        self.command == CargoCommand::Build || options(&self.after).any(|option| option == "--no-run")
    }
}

/// Returns the arguments up to the first `--`.
fn options(arguments: &[OsString]) -> impl Iterator<Item = &OsString> {
    arguments.iter().take_while(|argument| *argument != "--")
}

/// Whether an argument is the option of this name, with or without a value.
fn is_option(argument: &OsStr, name: &str) -> bool {
    matches!(argument.as_encoded_bytes().strip_prefix(name.as_bytes()), Some([] | [b'=', ..]))
}

/// Returns what stands behind the first `skip` bytes of an option.
fn option_value(option: &OsStr, skip: usize) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(&option.as_bytes()[skip..])
}

/// Whether an argument such as `-r` or `-qr` contains cargo's short option for `--release`.
/// Only letters that take no value can stand in front of it.
fn is_bundle_with_r(argument: &OsStr) -> bool {
    let Some(letters) = argument.to_str().and_then(|text| text.strip_prefix('-')) else { return false };
    letters.contains('r') && letters.chars().all(|letter| "rqv".contains(letter))
}

/// Returns how many of the arguments are options that cargo takes in front of its command.
fn options_before_command(arguments: &[OsString]) -> usize {
    let mut at = 0;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        match argument {
            "-q" | "--quiet" | "-v" | "-vv" | "--verbose" | "--locked" | "--offline" | "--frozen" => at += 1,
            "-Z" | "-C" | "--config" | "--color" => at += 2,
            _ if ["-Z", "-C", "--config=", "--color="].iter().any(|name| argument.starts_with(name)) => {
                at += 1
            }
            _ => break,
        }
    }
    at.min(arguments.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn parse(line: &str) -> CargoLine {
        CargoLine::parse(&words(line)).unwrap()
    }

    #[test]
    fn the_command_may_stand_behind_cargos_global_options() {
        for (line, command) in [
            ("test -j 4", CargoCommand::Test),
            ("+nightly -q --config a=1 -Z unstable t x", CargoCommand::Test),
            ("--offline r --bin x -- y", CargoCommand::Run),
            ("bench", CargoCommand::Bench),
            ("b --release", CargoCommand::Build),
            ("nextest run -E all()", CargoCommand::Nextest),
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.command, command, "{line}");
            assert_eq!(parsed.arguments([]), words(line), "cargo gets what was typed");
        }
        let more = parse("+nightly -q nextest run -p a -- b").arguments(words("--config x"));
        assert_eq!(more, words("+nightly -q nextest run --config x -p a -- b"));
    }

    #[test]
    fn the_short_form_chooses_the_command_by_its_options() {
        for (line, expected) in [
            ("--release --bin server -- --test x", "run --release --bin server -- --test x"),
            ("", "run"),
            ("-- a", "run -- a"),
            ("--offline --bin x", "run --offline --bin x"),
            ("-p a --test=b", "test -p a --test=b"),
            ("--lib", "test --lib"),
            ("--release --bench b -r -- -r", "bench --bench b -- -r"),
        ] {
            assert_eq!(parse(line).arguments([]), words(expected), "{line}");
        }
    }

    #[test]
    fn commands_that_run_nothing_are_refused() {
        for line in ["check", "-q clippy", "nextest list", "nextest"] {
            assert!(CargoLine::parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn the_profile_is_cargos() {
        for (line, profile) in [
            ("run", "dev"),
            ("build -r", "release"),
            ("test", "test"),
            ("test -qr", "release"),
            ("test -- -r --release", "test"),
            ("test -Fr", "test"),
            ("bench", "bench"),
            ("bench --profile release", "release"),
            ("run --profile=fat", "fat"),
            ("nextest run --profile ci", "test"),
            ("nextest run --cargo-profile fat", "fat"),
        ] {
            assert_eq!(parse(line).profile(), profile, "{line}");
        }
        assert_eq!(parse("run --target a --target=b").values_of("--target"), words("a b"));
        assert!(parse("run --target-dir a").values_of("--target").is_empty());
        assert!(parse("test --no-run").runs_nothing() && !parse("test -- --no-run").runs_nothing());
    }
}
