//! The findings of a review as SARIF 2.1.0, from which GitHub makes alerts.
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>
//!
//! In: a review. Out: one run. Paths are relative to the root of the repository. A finding without
//! any line in the repository is a notification of the run and no result: GitHub rejects a whole
//! file for one result without a location.

mod log;

use std::io::{self, Write};

use self::log::*;
use super::fingerprint::fingerprints;
use super::place::{RepositoryLine, RepositoryPlace};
use super::url::percent_encoded;
use crate::analyze::review::{Finding, Review, ReviewFrame, Rule, Severity};
use crate::render::json;
use crate::units::{Safe, more};

/// The most results: GitHub keeps the first 5,000 of a run.
const MOST_RESULTS: usize = 5000;

/// The most frames of a stack: GitHub keeps 1,000 locations of a flow.
const MOST_FRAMES: usize = 1000;

/// Writes the findings.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, review: &Review, place: &RepositoryPlace) -> io::Result<()> {
    let mut placed = Vec::new();
    let mut notifications = Vec::new();
    for (finding, fingerprint) in review.findings.iter().zip(fingerprints(&review.findings, place)) {
        match place.line_of(finding) {
            Some(line) => placed.push((finding, line, fingerprint)),
            None => notifications.push(notification(finding)),
        }
    }
    placed.sort_by_key(|(finding, ..)| finding.severity);
    if let Some(left_out) = placed.len().checked_sub(MOST_RESULTS).filter(|left_out| *left_out > 0) {
        let text = format!("{} left out", more(left_out as u64, "finding"));
        notifications.push(SarifNotification { level: "warning", message: message(text), descriptor: None });
    }
    let results = placed.into_iter().take(MOST_RESULTS);
    let results =
        results.map(|(finding, line, fingerprint)| result(finding, &line, fingerprint, place)).collect();
    let run = SarifRun {
        tool: SarifTool {
            driver: SarifDriver {
                name: "alloc-tracker",
                semantic_version: env!("CARGO_PKG_VERSION"),
                rules: Rule::ALL.map(rule).into(),
            },
        },
        automation_details: SarifAutomation { id: category(&review.title) },
        invocations: [SarifInvocation {
            execution_successful: true,
            tool_execution_notifications: notifications,
        }],
        original_uri_base_ids: SarifBases {
            root: SarifBase { description: message("The root of the repository.".to_owned()) },
        },
        column_kind: "utf16CodeUnits",
        results,
    };
    json::write(out, &SarifLog { schema: SCHEMA, version: "2.1.0", runs: [run] })
}

/// Returns the identity of the analysis. An upload replaces the alerts of an earlier one with the
/// same text before the last slash, so reviews with different titles must differ there.
fn category(title: &str) -> String {
    let mut words = String::new();
    for c in title.chars() {
        if c.is_ascii_alphanumeric() {
            words.push(c.to_ascii_lowercase());
        } else if !words.is_empty() && !words.ends_with('-') {
            words.push('-');
        }
    }
    let words = words.trim_end_matches('-');
    format!("heap/{}/", if words.is_empty() { "review" } else { words })
}

fn rule(rule: Rule) -> SarifRule {
    let (level, severity) = match rule {
        Rule::NewSite | Rule::Grown => ("warning", "warning"),
        Rule::Shrunk | Rule::Gone => ("note", "recommendation"),
        Rule::OverBudget | Rule::Recording => ("error", "error"),
    };
    let text = || message(rule.description().to_owned());
    SarifRule {
        id: rule.id(),
        short_description: text(),
        full_description: text(),
        help: text(),
        default_configuration: SarifConfiguration { level },
        properties: SarifRuleProperties { precision: "very-high", severity, tags: ["memory"] },
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn message(text: String) -> SarifMessage {
    SarifMessage { text }
}

fn sentence(finding: &Finding) -> SarifMessage {
    message(format!("{}: {}", Safe(&finding.function), Safe(&finding.message)))
}

fn notification(finding: &Finding) -> SarifNotification {
    let descriptor = Some(SarifDescriptor { id: finding.rule.id() });
    SarifNotification { level: level(finding.severity), message: sentence(finding), descriptor }
}

fn result(
    finding: &Finding,
    line: &RepositoryLine,
    fingerprint: String,
    place: &RepositoryPlace,
) -> SarifResult {
    let frames = &finding.stack[..finding.stack.len().min(MOST_FRAMES)];
    // A flow goes from the caller to the callee. Only the repository has files that GitHub shows.
    let flow: Vec<SarifStep> = frames.iter().rev().filter_map(|frame| step(frame, place)).collect();
    SarifResult {
        rule_id: finding.rule.id(),
        rule_index: Rule::ALL.iter().position(|rule| *rule == finding.rule).unwrap_or_default(),
        level: level(finding.severity),
        message: sentence(finding),
        locations: [SarifLocation { physical_location: Some(physical(line)), message: None }],
        partial_fingerprints: SarifFingerprints { primary_location_line_hash: fingerprint },
        code_flows: if flow.is_empty() { Vec::new() } else { vec![code_flow(flow)] },
        stacks: if frames.is_empty() { Vec::new() } else { vec![stack(frames, place)] },
    }
}

fn code_flow(locations: Vec<SarifStep>) -> SarifCodeFlow {
    SarifCodeFlow { thread_flows: [SarifThreadFlow { locations }] }
}

fn step(frame: &ReviewFrame, place: &RepositoryPlace) -> Option<SarifStep> {
    let line = place.line_at(frame.file.as_deref(), frame.line)?;
    Some(SarifStep { location: location(frame, Some(&line)) })
}

/// Returns the whole stack, innermost frame first, with the frames outside of the repository.
fn stack(frames: &[ReviewFrame], place: &RepositoryPlace) -> SarifStack {
    let frame = |frame: &ReviewFrame| {
        let line = place.line_at(frame.file.as_deref(), frame.line);
        SarifFrame { location: location(frame, line.as_ref()) }
    };
    SarifStack { frames: frames.iter().map(frame).collect() }
}

fn location(frame: &ReviewFrame, line: Option<&RepositoryLine>) -> SarifLocation {
    let name = message(Safe(&frame.function).to_string());
    SarifLocation { physical_location: line.map(physical), message: Some(name) }
}

fn physical(line: &RepositoryLine) -> SarifPhysicalLocation {
    let number = line.line.unwrap_or(1);
    SarifPhysicalLocation {
        artifact_location: SarifArtifact { uri: percent_encoded(&line.path), uri_base_id: ROOT },
        // GitHub requires all four. Columns are not known, so the region is the first one.
        region: SarifRegion { start_line: number, start_column: 1, end_line: number, end_column: 2 },
    }
}

#[cfg(test)]
mod tests;
