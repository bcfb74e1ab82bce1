//! What made a recording slower than usual. In: a profile. Out: one word for programs and one
//! sentence for people for each cause.

use serde::Serialize;

use crate::profile::Profile;
use crate::units::plural;

/// Something that made the recording slower than usual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SlowCause {
    /// A word for programs: `no-loader-lookup`, `no-membarrier`, `platform-unwinder` or
    /// `no-unwind-tables`.
    pub cause: &'static str,
    /// One sentence for people.
    pub text: String,
}

/// Returns what made the recording slower than usual; empty if nothing did.
pub(super) fn slow_causes(profile: &Profile) -> Vec<SlowCause> {
    let (slowdown, totals) = (&profile.slowdown, &profile.totals);
    let mut causes = Vec::new();
    let mut add = |cause, text: String| causes.push(SlowCause { cause, text });
    if slowdown.no_loader_lookup {
        let text = "the C library cannot tell which module is at an address (glibc can from 2.35 on), so the \
                    platform's unwinder walks every stack";
        add("no-loader-lookup", text.to_owned());
    }
    if slowdown.no_membarrier {
        let text = "the kernel refuses the call membarrier, so every event costs a memory fence";
        add("no-membarrier", text.to_owned());
    }
    let events = totals.allocations + totals.deallocations + totals.reallocations;
    if slowdown.portable_walks.saturating_mul(FEW_WALKS) > events && slowdown.portable_walks > 0 {
        let stacks = plural(slowdown.portable_walks, "stack");
        add(
            "platform-unwinder",
            format!("the platform's unwinder walked {stacks}, at some microseconds each"),
        );
    }
    let mut is_on_stacks = vec![false; profile.modules.len()];
    for module in profile.nodes.iter().filter_map(|node| node.module) {
        if let Some(is_on_stacks) = is_on_stacks.get_mut(module as usize) {
            *is_on_stacks = true;
        }
    }
    for (module, is_on_stacks) in profile.modules.iter().zip(is_on_stacks) {
        if module.lacks_unwind_tables && is_on_stacks {
            let path = module.path.display();
            add(
                "no-unwind-tables",
                format!("{path} has no unwind tables (.eh_frame), so stacks are cut off at its code"),
            );
        }
    }
    causes.dedup();
    causes
}

/// One walk in as many may be made by the platform's unwinder without being worth a word.
const FEW_WALKS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{CallNode, Module, Slowdown};

    fn causes(profile: &Profile) -> Vec<&'static str> {
        slow_causes(profile).iter().map(|cause| cause.cause).collect()
    }

    #[test]
    fn every_cause_is_told_if_it_matters() {
        let mut profile = Profile::default();
        assert_eq!(causes(&profile), [""; 0]);
        profile.totals.allocations = 1000;
        profile.slowdown = Slowdown { portable_walks: 10, ..Slowdown::default() };
        assert_eq!(causes(&profile), [""; 0], "a walk in a hundred");
        profile.slowdown = Slowdown { portable_walks: 11, no_loader_lookup: true, no_membarrier: true };
        assert_eq!(causes(&profile), ["no-loader-lookup", "no-membarrier", "platform-unwinder"]);
        profile.slowdown = Slowdown::default();
        let module = Module { path: "/lib/x.so".into(), lacks_unwind_tables: true, ..Module::default() };
        profile.modules = vec![module];
        assert_eq!(causes(&profile), [""; 0], "no stack is in it");
        profile.nodes = vec![CallNode { module: Some(0), ..CallNode::default() }];
        assert_eq!(causes(&profile), ["no-unwind-tables"]);
        assert!(slow_causes(&profile)[0].text.contains("/lib/x.so"));
    }
}
