//! What a dump says about its recording, and when the recording ends. In: options. Out: variables
//! for the recorder.

use std::ffi::OsString;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::commit::commit_of;
use crate::units::parse_bytes;

/// The options.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub struct AboutArgs {
    /// Something that the dump shall say about the recording, such as `version=1.2`; may be given
    /// several times. The host and the commit that is checked out are in the dump without this.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    pub label: Vec<String>,
    /// Leave the command line out of the dump.
    #[arg(long)]
    pub no_argv: bool,
    /// End the recording when the dump, not yet compressed, is this large, such as 500MiB; the
    /// program goes on.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub max_dump: Option<u64>,
    /// End the recording after this time, such as 30s, 500ms, 5m or 2h; the program goes on.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub for_ms: Option<u64>,
}

impl AboutArgs {
    /// Returns the variables for a program that is started in the working directory. Labels that
    /// the environment has already come before those of the options, which win.
    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut labels = OsString::new();
        let commit = std::env::current_dir().ok().and_then(|folder| commit_of(&folder));
        let commit = commit.map(|commit| OsString::from(format!("commit={commit}")));
        let given = self.label.iter().map(OsString::from);
        for line in commit.into_iter().chain(std::env::var_os(LABELS)).chain(given) {
            labels.push(line);
            labels.push("\n");
        }
        let mut variables = vec![(LABELS, labels)];
        if self.no_argv {
            variables.push(("ALLOC_TRACKER_ARGV", "0".into()));
        }
        if let Some(bytes) = self.max_dump {
            variables.push(("ALLOC_TRACKER_MAX_DUMP", bytes.to_string().into()));
        }
        if let Some(ms) = self.for_ms {
            variables.push(("ALLOC_TRACKER_FOR", format!("{ms}ms").into()));
        }
        variables
    }
}

const LABELS: &str = "ALLOC_TRACKER_LABELS";

fn parse_label(text: &str) -> Result<String, String> {
    let has_name = text.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    match has_name && !text.contains('\n') {
        true => Ok(text.to_owned()),
        false => Err("give NAME=VALUE on one line".to_owned()),
    }
}

/// Returns the milliseconds of a time such as `30s`.
fn parse_time(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    let time = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    time.ok_or_else(|| "give a whole number with ms, s, m or h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let parsed = ["500ms", "30s", "5m", "2h"].map(|text| parse_time(text).unwrap());
        assert_eq!(parsed, [500, 30_000, 300_000, 7_200_000]);
        for text in ["", "30", "s", "1.5s", "-1s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_have_a_name_and_one_line() {
        for label in ["a=", "a=b=c", "a b=ü"] {
            assert_eq!(parse_label(label).as_deref(), Ok(label));
        }
        for label in ["", "a", "=b", "a=b\nc=d"] {
            assert!(parse_label(label).is_err(), "{label}");
        }
    }

    #[test]
    fn options_become_variables() {
        let label = vec!["a=1".to_owned(), "b=2".to_owned()];
        let about = AboutArgs { label, no_argv: true, max_dump: Some(1 << 20), for_ms: Some(1500) };
        let variables = about.variables();
        let value = |name: &str| {
            let (_, value) = variables.iter().find(|(other, _)| *other == name).unwrap();
            value.to_str().unwrap().to_owned()
        };
        assert!(value(LABELS).ends_with("a=1\nb=2\n"));
        assert_eq!(value("ALLOC_TRACKER_ARGV"), "0");
        assert_eq!(value("ALLOC_TRACKER_MAX_DUMP"), "1048576");
        assert_eq!(value("ALLOC_TRACKER_FOR"), "1500ms");
    }
}
