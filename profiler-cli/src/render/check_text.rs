//! The verdict on budgets, as text for people. In: [`Check`]. Out: the verdict, then a paragraph
//! for each figure above its bound.

use std::io::{self, Write};

use super::text_width::{TextWidth, write_paragraph};
use super::{FAINT, GROWTH, RELEASE, source_position};
use crate::analyze::budgets::{BudgetScope, label_of};
use crate::analyze::check::{Check, Violation};
use crate::units::Safe;

/// Writes the verdict, with lines of at most `width` columns.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, check: &Check, width: TextWidth) -> io::Result<()> {
    let style = if check.passed { RELEASE } else { GROWTH };
    writeln!(out, "{style}{}{style:#}", check.verdict())?;
    for reason in &check.recordings {
        writeln!(out)?;
        write_paragraph(out, "", &Safe(reason).to_string(), width)?;
    }
    for violation in &check.violations {
        writeln!(out)?;
        let what = format!("{}: {}", violation.label(), violation.sentence());
        write_paragraph(out, "", &Safe(&what).to_string(), width)?;
        let where_it_is = origin(check, violation);
        if !where_it_is.is_empty() {
            writeln!(out, "{FAINT}  {}{FAINT:#}", Safe(&where_it_is))?;
        }
    }
    for budget in &check.unmatched {
        writeln!(out)?;
        let what = format!("{}: {}", label_of(budget.scope, &budget.name), budget.reason);
        write_paragraph(out, "", &Safe(&what).to_string(), width)?;
        let place = source_position(check.budget_file.as_deref(), Some(budget.budget_line));
        writeln!(out, "{FAINT}  budget {}{FAINT:#}", Safe(&place))?;
    }
    Ok(())
}

/// Returns the place of a violation in the source, and that of its budget.
fn origin(check: &Check, violation: &Violation) -> String {
    let mut parts = Vec::new();
    let position = source_position(violation.file.as_deref(), violation.line);
    match (&violation.site, violation.scope) {
        (_, BudgetScope::Site) => parts.extend(Some(position).filter(|position| !position.is_empty())),
        (Some(site), BudgetScope::Thread) => parts.push(format!("thread {site}")),
        (Some(site), _) if position.is_empty() => parts.push(format!("most at {site}")),
        (Some(site), _) => parts.push(format!("most at {site} {position}")),
        (None, _) => {}
    }
    if let Some(line) = violation.budget_line {
        parts.push(format!("budget {}", source_position(check.budget_file.as_deref(), Some(line))));
    }
    parts.join("; ")
}
