//! A comparison as reviewers need it. In: [`Diff`]. Out: [`Review`].

use super::{ChangedFigures, Diff, DiffFrame, SiteChange, SiteStatus};
use crate::analyze::review::{Finding, Review, ReviewFrame, ReviewTotal, Rule, Severity};
use crate::analyze::site_figures::FIGURES;
use crate::units::plural;

impl Diff {
    /// Returns what a reviewer has to know.
    pub fn review(&self) -> Review {
        let counts = &self.counts;
        let (worse, better) = (counts.new + counts.grown, counts.shrunk + counts.gone);
        let verdict = match (worse, better) {
            (0, 0) if self.changed => "Only totals changed.".to_owned(),
            (0, 0) => "No line of code allocates or holds more or less than in the base.".to_owned(),
            (0, _) => format!("{} less than in the base.", sites_that_do(better)),
            (_, 0) => format!("{} more than in the base.", sites_that_do(worse)),
            _ => format!("{} more than in the base, and {better} less.", sites_that_do(worse)),
        };
        Review {
            title: format!("Heap of {}", program_of(&self.new_command)),
            passed: None,
            verdict,
            totals: totals(&self.totals),
            findings: self.sites.iter().map(finding).collect(),
            notes: self.notes(),
        }
    }

    /// Returns what qualifies the comparison; one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.warnings.clone();
        if self.is_of_single_runs() {
            notes.push(
                "Each side is a single run: figures that vary from run to run look like changes.".to_owned(),
            );
        }
        if !self.varying.is_empty() {
            let varying = FIGURES.iter().filter(|figure| self.varying.contains(&figure.name));
            let titles = varying.map(|figure| figure.title).collect::<Vec<_>>().join(", ");
            notes.push(format!("These totals vary from run to run: {titles}."));
        }
        if !self.moved.is_empty() {
            let sites = plural(self.moved.len() as u64, "site");
            notes.push(format!("{sites} only moved or were renamed."));
        }
        notes
    }
}

/// Returns the name of a program: the last part of the first word of its command line.
fn program_of(command: &str) -> &str {
    let path = command.split_whitespace().next().unwrap_or("a program");
    path.rsplit('/').next().unwrap_or(path)
}

fn sites_that_do(sites: u64) -> String {
    let verbs = if sites == 1 { "allocates or holds" } else { "allocate or hold" };
    format!("{} {verbs}", plural(sites, "site"))
}

fn is_worse(status: SiteStatus) -> bool {
    matches!(status, SiteStatus::New | SiteStatus::Grown)
}

fn finding(site: &SiteChange) -> Finding {
    let frame = |frame: &DiffFrame| ReviewFrame {
        function: frame.function.clone(),
        file: frame.file.clone(),
        line: frame.line,
    };
    Finding {
        severity: if is_worse(site.status) { Severity::Warning } else { Severity::Note },
        rule: match site.status {
            SiteStatus::New => Rule::NewSite,
            SiteStatus::Grown => Rule::Grown,
            SiteStatus::Shrunk => Rule::Shrunk,
            SiteStatus::Gone => Rule::Gone,
        },
        function: site.function.clone(),
        file: site.file.clone(),
        line: site.line,
        message: sentence(site),
        figures: totals(&site.figures),
        stack: site.stack.iter().map(frame).collect(),
    }
}

/// Returns what the site did, such as `Peak 1.0 MiB -> 2.0 MiB; Allocations 1 -> 2`.
pub(super) fn sentence(site: &SiteChange) -> String {
    let changes = FIGURES.iter().map(|figure| (figure, site.figures.get(figure)));
    let changed = changes.filter(|(_, value)| value.changed).map(|(figure, value)| {
        let show = |value: u64| figure.kind.show(i128::from(value));
        format!("{} {} -> {}", figure.title, show(value.base), show(value.new))
    });
    changed.collect::<Vec<_>>().join("; ")
}

fn totals(figures: &ChangedFigures) -> Vec<ReviewTotal> {
    FIGURES
        .iter()
        .map(|figure| {
            let value = figures.get(figure);
            ReviewTotal {
                name: figure.name,
                title: figure.title,
                is_bytes: figure.is_bytes(),
                base: Some(value.base),
                new: value.new,
                range: value.new_range,
                is_changed: value.changed,
            }
        })
        .collect()
}
