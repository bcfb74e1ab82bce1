//! Which site of the base is which site of the new side. In: two tables of sites. Out: pairs.
//!
//! Within a function that both sides have, sites are aligned in the order of their lines, at the
//! least cost:
//!
//! | pairing | costs |
//! | --- | --- |
//! | two sites whose lines have the same text | 0 |
//! | two sites whose texts are not known | 0.3, and up to 0.8 for their numbers of allocations |
//! | two sites with different texts | 1, and up to 0.8 for their numbers of allocations |
//! | a site that has no partner | 1 |
//!
//! So an added call does not shift the calls below it, and a call whose line was edited is still
//! the same call:
//!
//! ```text
//! base                      new
//! a = read(path)    ------  a = read(path)
//!                           log(&a)                 added
//! b = vec![0; n]    ------  b = vec![0; 2 * n]      edited
//! ```
//!
//! The sites that are left are compared by the evidence beside their keys: their function or their
//! module was renamed, or moved to another file or crate. Each such pair is marked as moved.

use foldhash::HashMap;

use super::median;
use crate::analyze::site_table::{TabledSite, last_part};

/// Two sites that are one, or a site of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::analyze) struct SitePair {
    /// Index of the site in the base.
    pub(in crate::analyze) base: Option<usize>,
    /// Index of the site in the new side.
    pub(in crate::analyze) new: Option<usize>,
    /// Whether only the evidence shows that they are one.
    pub(in crate::analyze) is_moved: bool,
}

/// Pairs all sites of both sides. Both tables are sorted by function.
pub(in crate::analyze) fn pair_sites(base: &[TabledSite], new: &[TabledSite]) -> Vec<SitePair> {
    let mut pairs = Vec::new();
    let (mut base_left, mut new_left) = (Vec::new(), Vec::new());
    let (mut b, mut n) = (0, 0);
    while b < base.len() || n < new.len() {
        let (b_end, n_end) = (end_of_function(base, b), end_of_function(new, n));
        let order = match (base.get(b), new.get(n)) {
            (Some(one), Some(other)) => one.key.function.cmp(&other.key.function),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => {
                base_left.extend(b..b_end);
                b = b_end;
            }
            std::cmp::Ordering::Greater => {
                new_left.extend(n..n_end);
                n = n_end;
            }
            std::cmp::Ordering::Equal => {
                for (in_base, in_new) in align(&base[b..b_end], &new[n..n_end]) {
                    match (in_base, in_new) {
                        (Some(one), Some(other)) => {
                            let (base, new) = (Some(b + one), Some(n + other));
                            pairs.push(SitePair { base, new, is_moved: false });
                        }
                        (one, other) => {
                            base_left.extend(one.map(|one| b + one));
                            new_left.extend(other.map(|other| n + other));
                        }
                    }
                }
                (b, n) = (b_end, n_end);
            }
        }
    }
    for evidence in EVIDENCE {
        let found = pair_by(evidence, (base, &base_left), (new, &new_left));
        base_left.retain(|at| !found.iter().any(|pair| pair.base == Some(*at)));
        new_left.retain(|at| !found.iter().any(|pair| pair.new == Some(*at)));
        pairs.extend(found);
    }
    pairs.extend(base_left.into_iter().map(|at| SitePair { base: Some(at), new: None, is_moved: false }));
    pairs.extend(new_left.into_iter().map(|at| SitePair { base: None, new: Some(at), is_moved: false }));
    pairs
}

fn end_of_function(sites: &[TabledSite], from: usize) -> usize {
    let Some(first) = sites.get(from) else { return from };
    let same = sites[from..].iter().take_while(|site| site.key.function == first.key.function);
    from + same.count()
}

/// Aligns the sites of one function at the least cost, as Needleman and Wunsch did (1970).
fn align(base: &[TabledSite], new: &[TabledSite]) -> Vec<(Option<usize>, Option<usize>)> {
    if base.len().saturating_mul(new.len()) > MOST_COSTS {
        let longest = base.len().max(new.len());
        return (0..longest)
            .map(|at| (Some(at).filter(|at| *at < base.len()), Some(at).filter(|at| *at < new.len())))
            .collect();
    }
    let width = new.len() + 1;
    // costs[b * width + n]: the least cost of aligning all from base[b] and new[n] on.
    let mut costs = vec![0.0; (base.len() + 1) * width];
    for b in (0..=base.len()).rev() {
        for n in (0..=new.len()).rev() {
            costs[b * width + n] = match (base.get(b), new.get(n)) {
                (None, None) => 0.0,
                (Some(_), None) => 1.0 + costs[(b + 1) * width + n],
                (None, Some(_)) => 1.0 + costs[b * width + n + 1],
                (Some(one), Some(other)) => {
                    let alone = 1.0 + f64::min(costs[(b + 1) * width + n], costs[b * width + n + 1]);
                    f64::min(cost(one, other) + costs[(b + 1) * width + n + 1], alone)
                }
            };
        }
    }
    let (mut b, mut n, mut aligned) = (0, 0, Vec::new());
    while b < base.len() || n < new.len() {
        let here = costs[b * width + n];
        match (base.get(b), new.get(n)) {
            (Some(one), Some(other)) if here >= cost(one, other) + costs[(b + 1) * width + n + 1] => {
                aligned.push((Some(b), Some(n)));
                (b, n) = (b + 1, n + 1);
            }
            (Some(_), _) if here >= 1.0 + costs[(b + 1) * width + n] => {
                aligned.push((Some(b), None));
                b += 1;
            }
            _ => {
                aligned.push((None, Some(n)));
                n += 1;
            }
        }
    }
    aligned
}

/// The cost of taking two sites of one function for one.
fn cost(base: &TabledSite, new: &TabledSite) -> f64 {
    let unlike = match (base.evidence, new.evidence) {
        (Some(one), Some(other)) if one.text == other.text => return 0.0,
        (Some(_), Some(_)) => 1.0,
        _ => 0.3,
    };
    let allocations = |site: &TabledSite| median(site.runs.iter().map(|run| run.allocations)) as f64 + 1.0;
    let (one, other) = (allocations(base), allocations(new));
    unlike + 0.8 * (1.0 - one.min(other) / one.max(other))
}

/// A text by which sites are paired that no key pairs; `None` if the site lacks a part of it.
type Evidence = fn(&TabledSite) -> Option<String>;

/// The strongest evidence first.
const EVIDENCE: [Evidence; 6] = [
    // The function has moved to another module, file or crate.
    |site| {
        let evidence = site.evidence?;
        let name = last_part(&site.key.function);
        Some(format!("{name} {:x} {}", evidence.text.0, evidence.relative_line?))
    },
    // The crate was renamed.
    |site| Some(format!("{} {}", without_crate(&site.key.function)?, site.key.ordinal)),
    |site| Some(format!("{} {:x}", last_part(&site.key.function), site.evidence?.text.0)),
    // The function was renamed: the same line, called by the same functions.
    |site| (!site.callers.is_empty()).then_some(format!("{:x} {:?}", site.evidence?.text.0, site.callers)),
    |site| {
        let evidence = site.evidence?;
        Some(format!("{:x} {}", evidence.text.0, evidence.relative_line?))
    },
    // Without source text: the call stack.
    |site| {
        let name = last_part(&site.key.function);
        (site.evidence.is_none() && !site.callers.is_empty())
            .then(|| format!("{name} {:?} {}", site.callers, site.key.ordinal))
    },
];

/// Returns a function's path without its crate; `None` if nothing but a name is left, or if the
/// path belongs to a trait.
fn without_crate(function: &str) -> Option<&str> {
    let path = function.split_once("::")?.1;
    (!function.starts_with('<') && path.contains("::") || path == "main").then_some(path)
}

/// Pairs the sites whose evidence is the same. Several sites with the same evidence are paired in
/// their order, if both sides have as many of them.
fn pair_by(
    evidence: Evidence,
    (base, base_left): (&[TabledSite], &[usize]),
    (new, new_left): (&[TabledSite], &[usize]),
) -> Vec<SitePair> {
    let mut by_text: HashMap<String, (Vec<usize>, Vec<usize>)> = HashMap::default();
    for at in base_left {
        if let Some(text) = evidence(&base[*at]) {
            by_text.entry(text).or_default().0.push(*at);
        }
    }
    for at in new_left {
        if let Some(text) = evidence(&new[*at]) {
            by_text.entry(text).or_default().1.push(*at);
        }
    }
    let equal = by_text.into_values().filter(|(in_base, in_new)| in_base.len() == in_new.len());
    let mut pairs: Vec<SitePair> = equal
        .flat_map(|(in_base, in_new)| in_base.into_iter().zip(in_new))
        .map(|(base, new)| SitePair { base: Some(base), new: Some(new), is_moved: true })
        .collect();
    pairs.sort_by_key(|pair| pair.new);
    pairs
}

/// A function with more pairs of sites than this is paired by rank alone. Nobody writes one; a
/// macro might.
const MOST_COSTS: usize = 4_000_000;
