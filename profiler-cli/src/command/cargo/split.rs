//! Tells the options of this program from cargo's on one command line. In: the arguments as typed.
//! Out: arguments that clap can parse: those of this program, `--`, and all others as they were.
//!
//! ```text
//! typed:   cargo test -j 4 --report none -p parser -- --nocapture
//! parsed:  cargo --report none -- test -j 4 -p parser -- --nocapture
//! ```
//!
//! An argument before the first `--` belongs to this program if it is one of its options, or the
//! value behind one. Everything else is cargo's, so options that cargo gets in the future are
//! passed on too.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

/// Arguments that both this program and cargo are given.
const SHARED: &str = "color";

/// Rearranges the arguments of a command line whose command is `cargo`. Other command lines stay
/// as they are. `command` has the definitions of all options.
pub fn split(command: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = position_of_cargo(&arguments) else { return arguments };
    let Some(definitions) = command.find_subcommand("cargo") else { return arguments };
    let options: Vec<&Arg> = definitions.get_arguments().chain(command.get_arguments()).collect();
    let mut ours = arguments[..=at].to_vec();
    let mut theirs = Vec::new();
    let mut rest = arguments.into_iter().skip(at + 1).peekable();
    while let Some(argument) = rest.next_if(|argument| argument != "--") {
        match Owner::of(&options, &argument) {
            Owner::Cargo => theirs.push(argument),
            Owner::Both(takes_value) => {
                let value = takes_value.then(|| rest.next_if(|value| value != "--")).flatten();
                ours.extend([argument.clone()].into_iter().chain(value.clone()));
                theirs.extend([argument].into_iter().chain(value));
            }
            Owner::This(takes_value) => {
                ours.push(argument);
                ours.extend(takes_value.then(|| rest.next_if(|value| value != "--")).flatten());
            }
        }
    }
    ours.push("--".into());
    ours.extend(theirs);
    ours.extend(rest);
    ours
}

/// Returns the index of the word `cargo`, if it is the command.
fn position_of_cargo(arguments: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        let argument = arguments.get(at)?;
        match argument.to_str() {
            Some("--color") => at += 2,
            Some("cargo") => return Some(at),
            Some(option) if option.starts_with('-') => at += 1,
            _ => return None,
        }
    }
}

/// Whose argument it is, and whether the next argument is its value.
#[derive(Debug, PartialEq)]
enum Owner {
    This(bool),
    Both(bool),
    Cargo,
}

impl Owner {
    fn of(options: &[&Arg], argument: &OsStr) -> Owner {
        // A long option with a value that is no text is told by its beginning.
        let text = argument.to_string_lossy();
        if matches!(&*text, "-h" | "--help" | "-V" | "--version") {
            return Owner::This(false);
        }
        let takes_value = |arg: &Arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        if let Some(long) = text.strip_prefix("--") {
            let (name, has_value) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            let Some(option) = options.iter().find(|arg| arg.get_long() == Some(name)) else {
                return Owner::Cargo;
            };
            let is_next = takes_value(option) && !has_value;
            return if name == SHARED { Owner::Both(is_next) } else { Owner::This(is_next) };
        }
        let mut letters = text.strip_prefix('-').unwrap_or_default().chars();
        let first = letters.next();
        match options.iter().find(|arg| first.is_some() && arg.get_short() == first) {
            Some(option) => Owner::This(takes_value(option) && letters.next().is_none()),
            None => Owner::Cargo,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::command::cli::Cli;

    /// Splits a line of words, and returns it as a line.
    fn splits(line: &str, expected: &str) {
        let words = line.split(' ').map(OsString::from).collect();
        let split = split(&Cli::command(), words);
        let split: Vec<&str> = split.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(split.join(" "), expected, "{line}");
    }

    #[test]
    fn options_of_this_program_may_stand_anywhere_before_the_dashes() {
        splits(
            "cli cargo test -j 4 --report none -p parser -- --nocapture --report x",
            "cli cargo --report none -- test -j 4 -p parser -- --nocapture --report x",
        );
        splits("cli cargo -o a.alloc --release --bin x", "cli cargo -o a.alloc -- --release --bin x");
        splits("cli cargo -oa.alloc run -q", "cli cargo -oa.alloc -- run -q");
        splits("cli cargo --follow-forks run --output=x -v", "cli cargo --follow-forks --output=x -- run -v");
    }

    #[test]
    fn unknown_options_and_their_values_are_cargos() {
        splits("cli cargo +nightly test -Zx --new 3 --r", "cli cargo -- +nightly test -Zx --new 3 --r");
        splits("cli cargo", "cli cargo --");
        splits("cli cargo -- a", "cli cargo -- -- a");
        splits("cli cargo -o -- a", "cli cargo -o -- -- a");
    }

    #[test]
    fn colours_are_for_both_and_help_is_that_of_this_program() {
        splits(
            "cli --color never cargo --color always bench",
            "cli --color never cargo --color always -- --color always bench",
        );
        splits("cli cargo test --help", "cli cargo --help -- test");
    }

    #[test]
    fn other_commands_stay_as_they_are() {
        for line in ["cli run -- cargo test", "cli help cargo", "cli leaks cargo", "cli --color never", "cli"]
        {
            splits(line, line);
        }
    }
}
