//! Annotations of GitHub: workflow commands, one a line, which a job prints to stdout.
//!
//! In: a review. Out: for example
//!
//! ```text
//! ::error file=src/parse.rs,line=12,title=heap/grown in parse::Peak 1.0 MiB -> 2.0 MiB
//! ```
//!
//! GitHub shows 10 errors and 10 warnings of a step and drops the rest without a word. So only the
//! worst are written, and a last line counts the others.

use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{self, Write};

use super::place::RepositoryPlace;
use crate::analyze::review::{Finding, Review, Severity};
use crate::units::{harmless, more};

/// Number of findings that are written.
const MOST: usize = 10;

/// Writes the worst findings. A failed check without a finding that is an error gives an error with
/// the verdict, so that a failure is never without an annotation.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, review: &Review, place: &RepositoryPlace) -> io::Result<()> {
    let mut findings: Vec<&Finding> = review.findings.iter().collect();
    findings.sort_by_key(|finding| finding.severity);
    let mut room = MOST;
    let has_error = findings.first().is_some_and(|finding| finding.severity == Severity::Error);
    if review.passed == Some(false) && !has_error {
        writeln!(out, "::error title={}::{}", Property(&review.title), Message(&review.verdict))?;
        room -= 1;
    }
    for finding in findings.iter().take(room) {
        write_finding(out, finding, place)?;
    }
    match findings.len().saturating_sub(room) {
        0 => Ok(()),
        left_out => writeln!(out, "::notice::{}", more(left_out as u64, "finding")),
    }
}

fn write_finding(out: &mut dyn Write, finding: &Finding, place: &RepositoryPlace) -> io::Result<()> {
    let command = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    write!(out, "::{command} ")?;
    if let Some(at) = place.line_of(finding) {
        write!(out, "file={},", Property(&at.path))?;
        if let Some(line) = at.line {
            write!(out, "line={line},")?;
        }
    }
    let title = format!("{} in {}", finding.rule.id(), finding.function);
    writeln!(out, "title={}::{}", Property(&title), Message(&finding.message))
}

/// The text of a workflow command. Line breaks stay line breaks.
struct Message<'a>(&'a str);

impl Display for Message<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_escaped(f, c))
    }
}

/// The value of a property of a workflow command. A colon or a comma would end it.
struct Property<'a>(&'a str);

impl Display for Property<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            ':' => f.write_str("%3A"),
            ',' => f.write_str("%2C"),
            c => write_escaped(f, c),
        })
    }
}

fn write_escaped(f: &mut Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '%' => f.write_str("%25"),
        '\r' => f.write_str("%0D"),
        '\n' => f.write_str("%0A"),
        c => f.write_char(harmless(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::review::made::{HOSTILE, finding, hostile, written};

    /// Reads a command as the runner of GitHub does: the name, the properties, the text.
    fn read(line: &str) -> (String, Vec<(String, String)>, String) {
        let decoded = |text: &str, codes: &[(&str, &str)]| {
            codes.iter().fold(text.to_owned(), |text, (code, c)| text.replace(code, c))
        };
        let (head, message) = line.strip_prefix("::").unwrap().split_once("::").unwrap();
        let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
        let codes = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")];
        let pairs = properties.split(',').filter_map(|pair| pair.split_once('='));
        let properties = pairs.map(|(key, value)| (key.to_owned(), decoded(value, &codes))).collect();
        (name.to_owned(), properties, decoded(message, &[codes[0], codes[1], codes[4]]))
    }

    fn of_findings(findings: Vec<Finding>, passed: Option<bool>) -> String {
        let verdict = "1 figure is above its budget.".to_owned();
        written(write, &Review { passed, findings, verdict, ..Review::default() })
    }

    #[test]
    fn a_finding_is_one_command_with_its_line() {
        let text = of_findings(vec![finding(Severity::Warning, "app::parse", 12)], None);
        let expected =
            "::warning file=src/lib.rs,line=12,title=heap/grown in app%3A%3Aparse::Peak 1.0 KiB -> 2.0 KiB\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn hostile_names_come_back_whole_from_the_three_lines() {
        let text = written(write, &hostile());
        let commands: Vec<_> = text.lines().map(read).collect();
        let names: Vec<&str> = commands.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["error", "warning", "notice"]);
        let property = |at: usize, key: &str| {
            let properties: &Vec<(String, String)> = &commands[at].1;
            properties.iter().find(|(name, _)| name == key).unwrap().1.clone()
        };
        assert_eq!(property(0, "title"), format!("heap/grown in {HOSTILE}"));
        assert_eq!((property(0, "file"), property(0, "line")), ("src/lib.rs".into(), "10".into()));
        assert_eq!(property(1, "file"), HOSTILE.replace('/', "-"));
        assert_eq!(commands[1].2, HOSTILE);
    }

    #[test]
    fn the_worst_ten_come_first_and_the_rest_is_counted() {
        let mut findings: Vec<Finding> = (1..=11).map(|line| finding(Severity::Note, "f", line)).collect();
        findings.push(finding(Severity::Error, "f", 99));
        let text = of_findings(findings, Some(false));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 11);
        assert!(lines[0].starts_with("::error file=src/lib.rs,line=99,"), "{}", lines[0]);
        assert_eq!(lines[10], "::notice::2 more findings");
    }

    #[test]
    fn a_failure_always_has_an_error() {
        let text = of_findings(vec![finding(Severity::Note, "f", 1)], Some(false));
        assert!(text.starts_with("::error title=::1 figure is above its budget.\n::notice file="), "{text}");
        assert_eq!(of_findings(Vec::new(), Some(true)), "");
    }

    #[test]
    fn code_outside_of_the_repository_is_shown_at_its_caller() {
        let mut outside = finding(Severity::Error, "vec::push", 5);
        outside.file = Some("/root/.cargo/registry/src/vec.rs".to_owned());
        outside.stack.remove(0);
        let text = of_findings(vec![outside.clone()], None);
        assert!(text.starts_with("::error file=src/main.rs,line=3,title="), "{text}");
        outside.stack.clear();
        assert!(of_findings(vec![outside], None).starts_with("::error title="));
    }
}
