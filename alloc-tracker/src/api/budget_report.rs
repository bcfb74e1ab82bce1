//! The text of a budget that was exceeded: what was expected and found, and which lines of code
//! have allocated most. In: a scope and its bounds. Out: a text. Not part of the hook: allocates,
//! outside of all scopes.

use std::collections::HashMap;
use std::fmt;

use super::budget::{BudgetBounds, Found};
use super::leak_report::{Counted, Grouped};
use super::rerun::BudgetPlace;
use super::scope::Scope;
use super::site::{Site, names_of, site_of};
use crate::recorder;
use crate::scope::{self, StackFigures};

/// What is said of a budget that was exceeded.
#[derive(Debug)]
pub(super) struct BudgetReport {
    place: BudgetPlace,
    /// The bounds that were exceeded.
    exceeded: Vec<Exceeded>,
    unfollowed: u64,
    missed: u64,
    command: String,
}

/// A bound that was exceeded.
#[derive(Debug)]
struct Exceeded {
    bound: &'static Bound,
    expected: u64,
    found: u64,
    /// The share of each site, largest first.
    sites: Vec<(Site, u64)>,
}

/// One kind of bound.
#[derive(Debug)]
struct Bound {
    name: &'static str,
    is_bytes: bool,
    expected: fn(&BudgetBounds) -> Option<u64>,
    found: fn(&Found) -> u64,
    /// The share of a stack.
    share: fn(&StackFigures) -> u64,
}

static BOUNDS: [Bound; 5] = [
    Bound {
        name: "allocations",
        is_bytes: false,
        expected: |bounds| bounds.allocations,
        found: |found| found.figures.allocations,
        share: |stack| stack.allocations,
    },
    Bound {
        name: "reallocations",
        is_bytes: false,
        expected: |bounds| bounds.reallocations,
        found: |found| found.figures.reallocations,
        share: |stack| stack.reallocations,
    },
    Bound {
        name: "allocated",
        is_bytes: true,
        expected: |bounds| bounds.allocated,
        found: |found| found.figures.allocated_bytes,
        share: |stack| stack.allocated_bytes,
    },
    Bound {
        name: "peak",
        is_bytes: true,
        expected: |bounds| bounds.peak,
        found: |found| found.figures.peak_bytes,
        share: |stack| stack.peak_bytes.max(0) as u64,
    },
    Bound {
        name: "leaked",
        is_bytes: true,
        expected: |bounds| bounds.leaked,
        found: |found| found.leaked,
        share: |stack| stack.live_bytes.max(0) as u64,
    },
];

impl BudgetReport {
    /// Makes a report of a scope that nothing counts for any more. The thread must be outside of
    /// all scopes.
    pub(super) fn of(
        scope: &Scope,
        bounds: &BudgetBounds,
        found: &Found,
        place: &BudgetPlace,
    ) -> BudgetReport {
        let mut exceeded: Vec<Exceeded> = BOUNDS
            .iter()
            .filter_map(|bound| {
                let (expected, found) = ((bound.expected)(bounds)?, (bound.found)(found));
                (found > expected).then(|| Exceeded { bound, expected, found, sites: Vec::new() })
            })
            .collect();
        let sites: Vec<(Site, StackFigures)> = stacks_of(scope)
            .into_iter()
            .map(|stack| (site_of(&names_of(stack.stack as u32)), stack))
            .collect();
        for exceeded in &mut exceeded {
            let mut shares = HashMap::<&Site, u64>::new();
            for (site, stack) in &sites {
                *shares.entry(site).or_default() += (exceeded.bound.share)(stack);
            }
            let shares = shares.into_iter().filter(|(_, share)| *share > 0);
            exceeded.sites = shares.map(|(site, share)| (site.clone(), share)).collect();
            exceeded
                .sites
                .sort_by(|(site, share), (other_site, other)| other.cmp(share).then(site.cmp(other_site)));
        }
        let &Found { unfollowed, missed, .. } = found;
        BudgetReport { place: *place, exceeded, unfollowed, missed, command: place.command() }
    }
}

impl fmt::Display for BudgetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BudgetPlace { file, line, .. } = self.place;
        write!(f, "budget of {} at {file}:{line} exceeded", self.place.path_in_crate())?;
        if self.unfollowed > 0 {
            write!(
                f,
                "\n  {} could not be followed, because alloc-tracker has no memory for its table",
                Counted(self.unfollowed, "block")
            )?;
        }
        for exceeded in &self.exceeded {
            write!(f, "\n  {exceeded}")?;
        }
        if self.missed > 0 {
            write!(f, "\n  not followed: {} of signal handlers", Counted(self.missed, "event"))?;
        }
        write!(f, "\nrecord this test, for whole stacks: `{}`", self.command)
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound { name, is_bytes, .. } = *self.bound;
        let unit = if is_bytes { " B" } else { "" };
        let (expected, found) = (Grouped(self.expected), Grouped(self.found));
        write!(f, "{name}: expected at most {expected}{unit}, found {found}{unit}")?;
        for (site, share) in self.sites.iter().take(MAX_SITES) {
            write!(f, "\n    {}{unit}: {site}", Grouped(*share))?;
        }
        let rest = self.sites.get(MAX_SITES..).unwrap_or_default();
        if !rest.is_empty() {
            let share: u64 = rest.iter().map(|(_, share)| share).sum();
            write!(f, "\n    {}{unit}: {}", Grouped(share), Counted(rest.len() as u64, "more line"))?;
        }
        if self.sites.is_empty() {
            f.write_str("\n    lines of code are not known: too many budgets are under way")?;
        }
        Ok(())
    }
}

/// Returns the figures of all birth stacks of a scope.
fn stacks_of(scope: &Scope) -> Vec<StackFigures> {
    let mut stacks = Vec::new();
    loop {
        // The table is locked while it is read, so this thread must not allocate then.
        stacks.clear();
        let mut found = 0;
        recorder::with_scopes(|_| {
            scope::for_each_stack(scope.id(), |stack| {
                found += 1;
                if stacks.len() < stacks.capacity() {
                    stacks.push(*stack);
                }
            });
        });
        if found == stacks.len() {
            return stacks;
        }
        stacks.reserve(2 * found);
    }
}

/// No more lines of code are printed for a bound.
const MAX_SITES: usize = 5;
