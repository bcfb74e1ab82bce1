//! What is measured. In: how many rounds. Out: a number that the work came to, the same for every allocator.

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
    /// How many rounds take a good while: 0.2 to 1 s for real programs, about 0.1 s for loops that do nothing but
    /// allocate.
    pub(crate) rounds: usize,
    /// The workload that does the same on one thread, if this one has more.
    pub(crate) one_thread: Option<&'static str>,
    /// Does the work so many times.
    pub(crate) run: fn(usize) -> u64,
}

/// All of them, in the order in which they are shown.
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
    fn every_workload_comes_to_the_same_again() {
        for workload in ALL {
            assert_eq!((workload.run)(2), (workload.run)(2), "{}", workload.name);
        }
    }

    #[test]
    fn the_workload_on_one_thread_exists_and_comes_to_the_same() {
        for workload in ALL {
            let Some(one_thread) = workload.one_thread else { continue };
            let other = ALL.iter().find(|other| other.name == one_thread).unwrap();
            assert_eq!((workload.run)(2), (other.run)(2));
            assert_eq!(workload.rounds, other.rounds);
        }
    }
}
