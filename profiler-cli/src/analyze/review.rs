//! What a reviewer of a change has to know, whatever it was found by: a comparison of recordings, a
//! check of budgets, or leaks. In: values of those analyses. Out: plain values, from which each
//! output for reviewers is made: Markdown, annotations, SARIF and others.

/// What a reviewer has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Review {
    /// What was done, such as `Heap of parse compared with its base`.
    pub title: String,
    /// Whether the check passed; `None` if nothing was checked.
    pub passed: Option<bool>,
    /// The verdict in one sentence.
    pub verdict: String,
    /// Figures of the whole process.
    pub totals: Vec<ReviewTotal>,
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// Remarks about the recordings, such as that there was a single run; one sentence each.
    pub notes: Vec<String>,
}

/// A figure of the whole process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewTotal {
    /// Its name in machine-readable outputs, such as `peak_bytes`. Never changes.
    pub name: &'static str,
    /// Its title for people, such as `Peak`.
    pub title: &'static str,
    /// Whether it counts bytes; otherwise it counts events or blocks.
    pub is_bytes: bool,
    /// The figure of the base; `None` if there is no base.
    pub base: Option<u64>,
    /// The figure now.
    pub new: u64,
    /// The least and the most of several runs now.
    pub range: [u64; 2],
    /// Whether it differs from the base by more than noise.
    pub is_changed: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something fails because of it.
    Error,
    /// It got worse.
    Warning,
    /// It got better, or is worth to know.
    Note,
}

/// One thing that a reviewer should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule by which it was found.
    pub rule: Rule,
    /// The function, without hashes and generic arguments.
    pub function: String,
    /// Source file; `None` if it is not known.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// What happened, in one sentence without the place.
    pub message: String,
    /// The figures of the site, with those of the base.
    pub figures: Vec<ReviewTotal>,
    /// The call stack with the most bytes, innermost first; may be empty.
    pub stack: Vec<ReviewFrame>,
}

/// A frame of a finding's call stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewFrame {
    /// The function.
    pub function: String,
    /// Source file; `None` if it is not known.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
}

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A site that the base does not have.
    NewSite,
    /// A site with more than in the base.
    Grown,
    /// A site with less than in the base.
    Shrunk,
    /// A site that only the base has.
    Gone,
    /// A figure above its budget.
    OverBudget,
    /// A recording that does not allow a pass.
    Recording,
}

impl Rule {
    /// All rules.
    pub const ALL: [Rule; 6] =
        [Rule::NewSite, Rule::Grown, Rule::Shrunk, Rule::Gone, Rule::OverBudget, Rule::Recording];

    /// The rule's name in machine-readable outputs. Never changes.
    pub fn id(self) -> &'static str {
        match self {
            Rule::NewSite => "heap/new-site",
            Rule::Grown => "heap/grown",
            Rule::Shrunk => "heap/shrunk",
            Rule::Gone => "heap/gone",
            Rule::OverBudget => "heap/over-budget",
            Rule::Recording => "heap/recording",
        }
    }

    /// What the rule finds, in one sentence.
    pub fn description(self) -> &'static str {
        match self {
            Rule::NewSite => "A line of code allocates that did not allocate in the base.",
            Rule::Grown => "A line of code allocates or holds more than in the base.",
            Rule::Shrunk => "A line of code allocates or holds less than in the base.",
            Rule::Gone => "A line of code that allocated in the base no longer does.",
            Rule::OverBudget => "A figure is above the bound that the budget file or the baseline sets.",
            Rule::Recording => "The recording is not exact, so the check cannot pass.",
        }
    }
}
