//! A review as JUnit XML, which GitLab, Jenkins and others show as test results.
//!
//! In: a review. Out: one suite. Its first case is the verdict, and each finding is a case of its
//! own. Findings that are errors are failures; the others passed, with the message as output.

use std::collections::BTreeMap;
use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::change::{amount_now, change};
use super::place::RepositoryPlace;
use crate::analyze::review::{Finding, Review, Severity};
use crate::render::escape::xml_character;
use crate::render::source_position;

/// Writes the report.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, review: &Review, place: &RepositoryPlace) -> io::Result<()> {
    let mut suite = TestSuite::new(text(&review.title));
    suite.add_test_case(verdict_case(review));
    let mut names = BTreeMap::new();
    for finding in &review.findings {
        suite.add_test_case(finding_case(finding, place, &mut names));
    }
    let mut report = Report::new("alloc-tracker");
    report.add_test_suite(suite);
    // Into memory first, so that an error of `out` keeps its kind.
    let xml = report.to_string().map_err(io::Error::other)?;
    out.write_all(xml.as_bytes())
}

fn verdict_case(review: &Review) -> TestCase {
    let mut status = match review.passed {
        Some(false) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        // A comparison without a check did not fail.
        Some(true) | None => TestCaseStatus::success(),
    };
    let mut details: Vec<String> = review
        .totals
        .iter()
        .map(|total| {
            let change = change(total).map_or_else(String::new, |change| format!(", {change}"));
            format!("{}: {}{change}", total.title, amount_now(total))
        })
        .collect();
    details.extend(review.notes.iter().map(|note| text(note)));
    let details = details.join("\n");
    if review.passed == Some(false) {
        status.set_message(text(&review.verdict)).set_type("heap").set_description(&details);
    }
    let mut case = TestCase::new("verdict", status);
    case.set_classname("heap");
    if review.passed != Some(false) {
        case.set_system_out(format!("{}\n{details}", text(&review.verdict)).trim_end());
    }
    case
}

fn finding_case(
    finding: &Finding,
    place: &RepositoryPlace,
    names: &mut BTreeMap<(&'static str, String), u64>,
) -> TestCase {
    let at = place.line_of(finding);
    let own_position = source_position(finding.file.as_deref(), finding.line);
    let position = at.as_ref().map_or(own_position, |at| source_position(Some(&at.path), at.line));
    let mut name = text(&finding.function);
    if !position.is_empty() {
        name.push_str(&format!(" ({})", text(&position)));
    }
    // Readers take two cases with one name for the same one.
    let number =
        names.entry((finding.rule.id(), name.clone())).and_modify(|number| *number += 1).or_insert(1);
    if *number > 1 {
        name.push_str(&format!(" #{number}"));
    }
    let stack = finding.stack.iter().map(|frame| {
        let position = source_position(frame.file.as_deref(), frame.line);
        text(format!("{}  {position}", frame.function).trim_end())
    });
    let stack = stack.collect::<Vec<_>>().join("\n");
    let mut status = match finding.severity {
        Severity::Error => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Severity::Warning | Severity::Note => TestCaseStatus::success(),
    };
    let is_failure = finding.severity == Severity::Error;
    if is_failure {
        status.set_message(text(&finding.message)).set_type(finding.rule.id()).set_description(&stack);
    }
    let mut case = TestCase::new(name, status);
    case.set_classname(finding.rule.id());
    if !is_failure {
        case.set_system_out(format!("{}\n{stack}", text(&finding.message)).trim_end());
    }
    if let Some(at) = at {
        case.extra.insert("file".into(), text(&at.path).into());
        if let Some(line) = at.line {
            case.extra.insert("line".into(), line.to_string().into());
        }
    }
    case
}

/// Returns a text on one line, in characters that XML has.
fn text(text: &str) -> String {
    text.chars().map(|c| if c == '\t' { ' ' } else { xml_character(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::review::made::{HOSTILE, finding, hostile, written};

    fn read(review: &Review) -> Report {
        Report::deserialize_from_str(&written(write, review)).unwrap()
    }

    #[test]
    fn hostile_names_come_back_from_the_xml() {
        let report = read(&hostile());
        // The verdict and one finding of three are failures.
        assert_eq!((report.tests, report.failures, report.errors), (4, 2, 0));
        let suite = &report.test_suites[0];
        assert_eq!(suite.name.as_str(), text(HOSTILE));
        let case = &suite.test_cases[1];
        assert_eq!(case.name.as_str(), format!("{} (src/lib.rs:10)", text(HOSTILE)));
        assert_eq!(case.classname.as_deref(), Some("heap/grown"));
        let extra = |name: &str| case.extra.get(name).map(|value| value.as_str());
        assert_eq!((extra("file"), extra("line")), (Some("src/lib.rs"), Some("10")));
        let TestCaseStatus::NonSuccess { message, description, .. } = &case.status else {
            panic!("{case:?}")
        };
        assert_eq!(message.as_deref(), Some("Peak 1.0 KiB -> 2.0 KiB"));
        let stack = format!("{}  /srv/app/src/lib.rs:10\nmain  ", text(HOSTILE));
        assert!(description.as_ref().unwrap().starts_with(&stack), "{description:?}");
        let TestCaseStatus::NonSuccess { message, .. } = &suite.test_cases[0].status else {
            panic!("{suite:?}")
        };
        assert_eq!(message.as_deref(), Some(text(HOSTILE).as_str()));
        assert!(suite.test_cases[2].system_out.as_ref().unwrap().starts_with(&text(HOSTILE)));
    }

    #[test]
    fn equal_findings_stay_two_cases_and_a_pass_has_no_failure() {
        let twice = vec![finding(Severity::Note, "f", 1), finding(Severity::Note, "f", 1)];
        let report = read(&Review { findings: twice, passed: Some(true), ..Review::default() });
        assert_eq!((report.tests, report.failures), (3, 0));
        let names: Vec<&str> =
            report.test_suites[0].test_cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["verdict", "f (src/lib.rs:1)", "f (src/lib.rs:1) #2"]);
    }

    #[test]
    fn characters_that_xml_lacks_are_replaced() {
        assert_eq!(text("a\u{0}\t\u{ffff}\r\nb"), "a\u{fffd} \u{fffd}\u{fffd}\u{fffd}b");
    }
}
