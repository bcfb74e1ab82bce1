//! The findings of a review as a Code Quality report of GitLab, which shows them in a merge
//! request. In: a review. Out: a JSON list.
//!
//! GitLab accepts no finding without a path. What is about the whole process, or about code outside
//! of the repository, is placed at the repository itself, `.`.

use std::io::{self, Write};

use serde::Serialize;

use super::fingerprint::fingerprints;
use super::place::RepositoryPlace;
use crate::analyze::review::{Finding, Review, Severity};
use crate::render::json;
use crate::units::Safe;

/// Writes the findings.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, review: &Review, place: &RepositoryPlace) -> io::Result<()> {
    let fingerprints = fingerprints(&review.findings, place);
    let findings = review.findings.iter().zip(fingerprints);
    let issues: Vec<QualityIssue> =
        findings.map(|(finding, fingerprint)| quality_issue(finding, fingerprint, place)).collect();
    json::write(out, &issues)
}

fn quality_issue(finding: &Finding, fingerprint: String, place: &RepositoryPlace) -> QualityIssue {
    let (path, begin) = match place.line_of(finding) {
        Some(at) => (at.path, at.line.unwrap_or(1)),
        None => (".".to_owned(), 1),
    };
    QualityIssue {
        description: format!("{}: {}", Safe(&finding.function), Safe(&finding.message)),
        check_name: finding.rule.id(),
        fingerprint,
        severity: match finding.severity {
            Severity::Error => "critical",
            Severity::Warning => "major",
            Severity::Note => "info",
        },
        location: QualityLocation { path, lines: QualityLines { begin } },
    }
}

/// A finding of a Code Quality report.
#[derive(Serialize)]
struct QualityIssue {
    description: String,
    check_name: &'static str,
    fingerprint: String,
    severity: &'static str,
    location: QualityLocation,
}

/// Where it is.
#[derive(Serialize)]
struct QualityLocation {
    path: String,
    lines: QualityLines,
}

/// The lines that it is about.
#[derive(Serialize)]
struct QualityLines {
    begin: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::render::review::made::{HOSTILE, finding, hostile, written};

    fn read(review: &Review) -> Vec<Value> {
        let text = written(write, review);
        // GitLab rejects a byte order mark.
        assert!(text.starts_with('['));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_issue_has_all_fields_and_a_relative_path() {
        let issues = read(&hostile());
        let severities: Vec<&str> = issues.iter().map(|issue| issue["severity"].as_str().unwrap()).collect();
        assert_eq!(severities, ["critical", "major", "info"]);
        let name = Safe(HOSTILE).to_string();
        assert_eq!(issues[0]["description"], format!("{name}: Peak 1.0 KiB -> 2.0 KiB"));
        assert_eq!(issues[0]["check_name"], "heap/grown");
        assert_eq!(issues[0]["location"]["path"], "src/lib.rs");
        assert_eq!(issues[0]["location"]["lines"]["begin"], 10);
        assert_eq!(issues[1]["location"]["path"], HOSTILE.replace('/', "-"));
    }

    #[test]
    fn equal_findings_do_not_collapse_and_each_has_a_path() {
        let mut findings = vec![finding(Severity::Warning, "f", 1); 3];
        findings[2] = Finding { file: None, line: None, stack: Vec::new(), ..findings[2].clone() };
        let issues = read(&Review { findings, ..Review::default() });
        let fingerprints: BTreeSet<&str> =
            issues.iter().map(|issue| issue["fingerprint"].as_str().unwrap()).collect();
        assert_eq!(fingerprints.len(), 3);
        assert_eq!(
            (&issues[2]["location"]["path"], &issues[2]["location"]["lines"]["begin"]),
            (&".".into(), &1.into())
        );
    }

    #[test]
    fn nothing_found_is_an_empty_list() {
        assert_eq!(written(write, &Review::default()), "[]\n");
    }
}
