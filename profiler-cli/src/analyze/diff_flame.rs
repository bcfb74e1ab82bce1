//! Two flamegraphs as one, whose frames have a weight on each side. In: a [`Flame`] for each side.
//! Out: [`DiffFlame`].
//!
//! Frames have no lines, no hashes and no generic arguments here: an edit above a call, or another
//! build, would make each of them a new frame.

use std::collections::BTreeMap;

use super::canonical_name::canonical_function;
use super::flame::{Flame, Metric};

/// The stacks of two sides, each with a weight on both.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffFlame {
    /// The figure that the weights stand for.
    pub metric: Metric,
    /// Command line of the program now.
    pub command: String,
    /// Sum of all weights of the base, and of the new side.
    pub totals: (u64, u64),
    /// For each stack its frames, outermost first, and its weight in the base and now.
    pub stacks: Vec<(Vec<String>, u64, u64)>,
}

/// Joins the flamegraphs of two sides.
pub fn diff_flame(base: &Flame, new: &Flame) -> DiffFlame {
    let mut stacks: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
    for (side, is_new) in [(base, false), (new, true)] {
        let names: Vec<String> = side.labels.iter().map(|label| name_of_frame(label)).collect();
        for (labels, weight) in &side.stacks {
            let frames = labels.iter().map(|label| names[*label as usize].clone()).collect();
            let weights = stacks.entry(frames).or_default();
            let weight_of_side = if is_new { &mut weights.1 } else { &mut weights.0 };
            *weight_of_side += weight;
        }
    }
    DiffFlame {
        metric: new.metric,
        command: new.command.clone(),
        totals: (base.total, new.total),
        stacks: stacks.into_iter().map(|(frames, (base, new))| (frames, base, new)).collect(),
    }
}

/// Returns a frame's label without its place, and in its canonical form.
fn name_of_frame(label: &str) -> String {
    let place = label.rfind(" (").filter(|at| {
        let place = label[at + 2..].trim_end_matches(')');
        place.rsplit_once(':').is_some_and(|(_, line)| line.parse::<u32>().is_ok())
    });
    canonical_function(place.map_or(label, |at| &label[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::code_owner::CodeOwner;

    fn flame(stacks: &[(&[&str], u64)]) -> Flame {
        let mut labels = Vec::new();
        let mut number = |label: &&str| {
            labels.push((*label).to_owned());
            labels.len() as u32 - 1
        };
        let stacks: Vec<(Vec<u32>, u64)> = stacks
            .iter()
            .map(|(frames, weight)| (frames.iter().map(&mut number).collect(), *weight))
            .collect();
        Flame {
            metric: Metric::Peak,
            command: "app".to_owned(),
            complete: true,
            filtered: false,
            interval: None,
            total: stacks.iter().map(|(_, weight)| weight).sum(),
            owners: vec![CodeOwner::Own; labels.len()],
            labels,
            stacks,
        }
    }

    #[test]
    fn a_frame_whose_line_has_moved_is_the_same_frame() {
        let base = flame(&[(&["main (main.rs:3)", "load::<u8> (a.rs:5)"], 10), (&["main (main.rs:4)"], 1)]);
        let new = flame(&[(&["main (main.rs:9)", "load::<u16> (b.rs:50)"], 30), (&["old (x.rs:1)"], 2)]);
        let both = diff_flame(&base, &new);
        let name = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            both.stacks,
            [(name(&["main"]), 1, 0), (name(&["main", "load"]), 10, 30), (name(&["old"]), 0, 2)]
        );
        assert_eq!(both.totals, (11, 32));
    }
}
