//! The work that is measured. In: a number of rounds. Out: the result of the work, a number that is
//! the same under every allocator.

mod churn;
mod depth;
mod growth;
mod javascript;
mod json;
mod map;
mod patterns;
mod source;
mod stacks;
mod syntax;

/// A piece of work with a name.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Rounds of a whole run. They take 0.2 to 1 s for real programs, and about 0.1 s for loops
    /// that only allocate.
    pub(crate) rounds: usize,
    /// Name of the workload that does the same work on one thread, if this one has several.
    pub(crate) one_thread: Option<&'static str>,
    /// Does the given number of rounds.
    pub(crate) run: fn(usize) -> u64,
}

/// All workloads, in the order of the table.
pub(crate) const ALL: &[Workload] = &[
    workload("json", "serde_json: a document is read, changed and written", 120, json::run),
    workload("syn", "syn: Rust sources are parsed and visited", 24, syntax::run),
    workload("javascript", "boa: a script with objects, closures and strings is run", 120, javascript::run),
    workload("regex", "regex: expressions are compiled and used once", 120, patterns::run),
    workload("btreemap", "a BTreeMap of strings is filled and emptied at random", 400, map::run),
    workload("depth-10", "blocks are allocated and freed 10 calls deep", 160, depth::run::<10>),
    workload("depth-50", "the same 50 calls deep", 160, depth::run::<50>),
    workload("depth-200", "the same 200 calls deep", 160, depth::run::<200>),
    workload("growth", "vectors grow by push", 800, growth::run),
    workload("stacks-200k", "blocks from a call tree of 200,000 nodes", 64, stacks::run::<16, 1>),
    workload(
        "stacks-5m",
        "the same with 5,000,000 nodes, half of all blocks from a new stack",
        52,
        stacks::run::<21, 1>,
    ),
    workload("stacks-5m-8", "the same in eight threads", 52, stacks::run::<21, 8>),
    workload("threads-1", "one thread churns vectors of 16 to 500 bytes", 80, churn::run::<1>),
    Workload {
        one_thread: Some("threads-1"),
        ..workload("threads-2", "two threads share the same work", 80, churn::run::<2>)
    },
];

const fn workload(name: &'static str, about: &'static str, rounds: usize, run: fn(usize) -> u64) -> Workload {
    Workload { name, about, rounds, one_thread: None, run }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_the_same_result_again() {
        for workload in ALL {
            assert_eq!((workload.run)(2), (workload.run)(2), "{}", workload.name);
        }
    }

    #[test]
    fn the_workload_on_one_thread_exists_and_has_the_same_result() {
        for workload in ALL {
            let Some(one_thread) = workload.one_thread else { continue };
            let other = ALL.iter().find(|other| other.name == one_thread).unwrap();
            assert_eq!((workload.run)(2), (other.run)(2));
            assert_eq!(workload.rounds, other.rounds);
        }
    }
}
