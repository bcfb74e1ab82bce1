//! The verdict on runs as reviewers need it. In: [`Check`]. Out: [`Review`].

use super::{Check, Violation};
use crate::analyze::review::{Finding, Review, ReviewTotal, Rule, Severity};
use crate::units::plural;

impl Check {
    /// Returns what a reviewer has to know.
    pub fn review(&self) -> Review {
        let of_recordings = self.recordings.iter().map(|reason| Finding {
            severity: Severity::Error,
            rule: Rule::Recording,
            function: self.command.clone(),
            file: None,
            line: None,
            message: reason.clone(),
            figures: Vec::new(),
            stack: Vec::new(),
        });
        let unmatched = self.unmatched.iter().map(|budget| Finding {
            severity: Severity::Error,
            rule: Rule::OverBudget,
            function: self.command.clone(),
            file: None,
            line: None,
            message: format!("A budget matched nothing, in line {}: {}", budget.budget_line, budget.reason),
            figures: Vec::new(),
            stack: Vec::new(),
        });
        let verdict = self.verdict();
        // Each output says in its own way whether the check has passed.
        let verdict = verdict.split_once(": ").map_or(verdict.as_str(), |(_, reason)| reason);
        Review {
            title: "Heap checked against its budgets".to_owned(),
            passed: Some(self.passed),
            verdict: verdict.to_owned(),
            totals: self.totals.clone(),
            findings: of_recordings.chain(unmatched).chain(self.violations.iter().map(finding)).collect(),
            notes: Vec::new(),
        }
    }

    /// Returns the verdict in one sentence.
    pub fn verdict(&self) -> String {
        let runs = plural(self.runs, "run");
        let mut reasons = Vec::new();
        match self.violations.len() as u64 {
            0 => {}
            1 => reasons.push("1 figure is above its bound".to_owned()),
            many => reasons.push(format!("{many} figures are above their bounds")),
        }
        if !self.unmatched.is_empty() {
            reasons.push(format!("{} matched nothing", plural(self.unmatched.len() as u64, "budget")));
        }
        if !self.recordings.is_empty() {
            let recordings = plural(self.recordings.len() as u64, "recording");
            reasons.push(format!("{recordings} cannot be judged"));
        }
        match reasons.is_empty() {
            true => format!("Passed: {} kept in {runs}.", plural(self.bounds, "bound")),
            false => format!("Failed: {} ({runs}).", reasons.join(", ")),
        }
    }
}

fn finding(violation: &Violation) -> Finding {
    let figure = violation.kind.map(|metric| ReviewTotal {
        name: metric.name(),
        title: metric.title(),
        is_bytes: violation.counts_bytes(),
        base: violation.base,
        new: violation.found,
        range: [violation.found; 2],
        is_changed: true,
    });
    let label = violation.label();
    let place = if violation.name.is_empty() { "total" } else { violation.name.as_str() };
    let function = violation.site.clone().unwrap_or_else(|| place.to_owned());
    Finding {
        severity: Severity::Error,
        rule: Rule::OverBudget,
        file: violation.file.clone(),
        line: violation.line,
        message: match label == function {
            true => violation.sentence(),
            false => format!("{label}: {}", violation.sentence()),
        },
        function,
        figures: figure.into_iter().collect(),
        stack: violation.stack.clone(),
    }
}
