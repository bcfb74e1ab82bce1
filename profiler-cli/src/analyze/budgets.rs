//! The budgets of a program: bounds for figures of its heap, in a TOML file. In: the text of the
//! file. Out: [`Budget`]s, in the order of their lines. Nothing here looks at a recording.
//!
//! ```toml
//! [total]
//! peak = "64 MiB"          # at most; sizes also as a number of bytes
//! live = "+5 %"            # at most 5 % above the figure of the baseline
//!
//! [[function]]             # also [[crate]], [[file]] and [[thread]]
//! name = "app::parse*"     # a pattern, as for --function
//! allocations = 1000
//!
//! [[per_call]]             # a function with #[profile]
//! function = "app::parse"
//! allocated = "1 KiB"      # on average, for each call
//! ```

use std::ops::Range;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::site_figures::{FIGURES, SiteFigure, SiteFigures};
use crate::analyze::column::FigureKind;
use crate::pattern::Pattern;
use crate::units::parse_bytes;

/// What a budget is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The whole process.
    Total,
    /// The stacks with a function that matches, as `--function` selects them.
    Function,
    /// The stacks with a function of a crate that matches, as `--crate` selects them.
    Crate,
    /// The stacks with a source file that matches, as `--file` selects them.
    File,
    /// Each thread with a name that matches.
    Thread,
    /// Each call of an annotated function, on average.
    PerCall,
    /// A site, compared with the baseline.
    Site,
}

impl BudgetScope {
    /// The scopes that a file may have.
    pub const IN_FILES: [BudgetScope; 6] = [
        BudgetScope::Total,
        BudgetScope::Function,
        BudgetScope::Crate,
        BudgetScope::File,
        BudgetScope::Thread,
        BudgetScope::PerCall,
    ];

    /// Returns the name of the table in the file.
    pub fn word(self) -> &'static str {
        match self {
            BudgetScope::Total => "total",
            BudgetScope::Function => "function",
            BudgetScope::Crate => "crate",
            BudgetScope::File => "file",
            BudgetScope::Thread => "thread",
            BudgetScope::PerCall => "per_call",
            BudgetScope::Site => "site",
        }
    }

    /// Returns the head of a table in the file.
    fn head(self) -> String {
        if self == BudgetScope::Total { "[total]".to_owned() } else { format!("[[{}]]", self.word()) }
    }

    /// Returns the figures that can be bounded.
    fn metrics(self) -> &'static [BudgetMetric] {
        match self {
            BudgetScope::Total => &BudgetMetric::ALL,
            // The recorder counts no more for a thread, and a line of a function no more for a
            // call.
            BudgetScope::Thread | BudgetScope::PerCall => {
                &[BudgetMetric::Allocated, BudgetMetric::Allocations]
            }
            _ => &BudgetMetric::OF_SITES,
        }
    }

    /// Returns the key with the pattern; `None` if there is none.
    fn name_key(self) -> Option<&'static str> {
        match self {
            BudgetScope::Total => None,
            BudgetScope::PerCall => Some("function"),
            _ => Some("name"),
        }
    }
}

/// A figure that can be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetMetric {
    /// Bytes at the peak of the process.
    Peak,
    /// Bytes that are live at the end.
    Live,
    /// Bytes of allocations, and the new sizes of reallocations.
    Allocated,
    /// Number of allocations.
    Allocations,
    /// Number of blocks that the next heap event of their thread freed.
    Temporary,
    /// The most resident memory of the process.
    RssPeak,
    /// Bytes that nothing held at the last snapshot.
    Lost,
}

impl BudgetMetric {
    /// All figures.
    pub const ALL: [BudgetMetric; 7] = [
        BudgetMetric::Peak,
        BudgetMetric::Live,
        BudgetMetric::Allocated,
        BudgetMetric::Allocations,
        BudgetMetric::Temporary,
        BudgetMetric::RssPeak,
        BudgetMetric::Lost,
    ];
    /// The figures that sites have, in the order of [`FIGURES`].
    pub const OF_SITES: [BudgetMetric; FIGURES.len()] = [
        BudgetMetric::Peak,
        BudgetMetric::Live,
        BudgetMetric::Allocated,
        BudgetMetric::Allocations,
        BudgetMetric::Temporary,
    ];

    /// Returns the key in the file.
    pub fn key(self) -> &'static str {
        match self {
            BudgetMetric::Peak => "peak",
            BudgetMetric::Live => "live",
            BudgetMetric::Allocated => "allocated",
            BudgetMetric::Allocations => "allocations",
            BudgetMetric::Temporary => "temporary",
            BudgetMetric::RssPeak => "rss_peak",
            BudgetMetric::Lost => "lost",
        }
    }

    /// Returns the figure of sites that it is; `None` for what only a process has.
    pub fn figure(self) -> Option<SiteFigure> {
        let at = Self::OF_SITES.iter().position(|metric| *metric == self)?;
        Some(FIGURES[at])
    }

    /// Returns its value among the figures of a site; 0 for what only a process has.
    pub fn of(self, figures: &SiteFigures) -> u64 {
        self.figure().map_or(0, |figure| (figure.of)(figures))
    }

    /// Returns its name in JSON and in baselines.
    pub fn name(self) -> &'static str {
        match (self, self.figure()) {
            (_, Some(figure)) => figure.name,
            (BudgetMetric::Lost, None) => "lost_bytes",
            (_, None) => "rss_peak_bytes",
        }
    }

    /// Returns its title for people.
    pub fn title(self) -> &'static str {
        match (self, self.figure()) {
            (_, Some(figure)) => figure.title,
            (BudgetMetric::Lost, None) => "Lost",
            (_, None) => "RSS peak",
        }
    }

    /// Returns what it counts.
    pub fn kind(self) -> FigureKind {
        self.figure().map_or(FigureKind::Bytes, |figure| figure.kind)
    }
}

/// The most that a figure may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetBound {
    /// This much.
    AtMost(u64),
    /// The figure of the baseline, and so many thousandths of a percent more.
    Share(u64),
    /// The figure of the baseline, and this much more.
    More(u64),
}

impl BudgetBound {
    /// Whether the bound is relative to a baseline.
    pub fn is_relative(self) -> bool {
        !matches!(self, BudgetBound::AtMost(_))
    }

    /// Returns the most that the figure may be.
    pub fn limit(self, base: u64) -> u64 {
        match self {
            BudgetBound::AtMost(most) => most,
            BudgetBound::More(more) => base.saturating_add(more),
            BudgetBound::Share(share) => {
                let more = u128::from(base) * u128::from(share) / WHOLE;
                base.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
            }
        }
    }
}

/// 100 %, in thousandths of a percent.
const WHOLE: u128 = 100_000;

/// A bound for one figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// What it is about.
    pub scope: BudgetScope,
    /// The pattern for names; that of the whole process is empty.
    pub name: Pattern,
    /// The figure.
    pub metric: BudgetMetric,
    /// The bound.
    pub bound: BudgetBound,
    /// Line in the file, from 1.
    pub line: u32,
}

impl Budget {
    /// Returns `function 'app::parse*'`, or `total`.
    pub fn label(&self) -> String {
        label_of(self.scope, &self.name.to_string())
    }
}

/// Returns `function 'app::parse*'`, or `total`.
pub fn label_of(scope: BudgetScope, name: &str) -> String {
    if scope == BudgetScope::Total { "total".to_owned() } else { format!("{} '{name}'", scope.word()) }
}

/// What is wrong with a file of budgets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {problem}")]
pub struct BudgetError {
    /// Line, from 1.
    pub line: u32,
    /// One sentence.
    pub problem: String,
}

/// Parses the text of a budget file.
///
/// # Errors
/// If the text is not TOML, if it has an unknown key or a value that is no bound, or if it bounds
/// nothing.
pub fn parse_budgets(text: &str) -> Result<Vec<Budget>, BudgetError> {
    let parser = BudgetParser { text };
    let table = DeTable::parse(text).map_err(|error| {
        parser.error(error.span().unwrap_or_default(), error.message().lines().collect::<Vec<_>>().join("; "))
    })?;
    let mut budgets = Vec::new();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        let Some(scope) = BudgetScope::IN_FILES.into_iter().find(|scope| scope.word() == name) else {
            let known: Vec<&str> = BudgetScope::IN_FILES.iter().map(|scope| scope.word()).collect();
            let nearest = nearest(name, &known);
            return Err(
                parser.error(key.span(), format!("there is no table '{name}'; the nearest is '{nearest}'"))
            );
        };
        match (value.get_ref(), scope) {
            (DeValue::Table(table), BudgetScope::Total) => {
                parser.add(scope, table, key.span(), &mut budgets)?;
            }
            (DeValue::Array(tables), scope) if scope != BudgetScope::Total => {
                for table in tables.iter() {
                    let DeValue::Table(budget) = table.get_ref() else {
                        return Err(parser.wrong_head(key.span(), scope));
                    };
                    parser.add(scope, budget, table.span(), &mut budgets)?;
                }
            }
            _ => return Err(parser.wrong_head(key.span(), scope)),
        }
    }
    if budgets.is_empty() {
        return Err(
            parser.error(0..0, "there is no budget: give [total], [[function]] or another table".into())
        );
    }
    budgets.sort_by_key(|budget| budget.line);
    Ok(budgets)
}

struct BudgetParser<'a> {
    text: &'a str,
}

impl BudgetParser<'_> {
    fn line(&self, span: &Range<usize>) -> u32 {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        1 + before.bytes().filter(|byte| *byte == b'\n').count() as u32
    }

    fn error(&self, span: Range<usize>, problem: String) -> BudgetError {
        BudgetError { line: self.line(&span), problem }
    }

    fn wrong_head(&self, span: Range<usize>, scope: BudgetScope) -> BudgetError {
        self.error(span, format!("'{}' is no table of this kind: write {}", scope.word(), scope.head()))
    }

    /// Adds the bounds of one table.
    fn add(
        &self,
        scope: BudgetScope,
        table: &DeTable<'_>,
        head: Range<usize>,
        budgets: &mut Vec<Budget>,
    ) -> Result<(), BudgetError> {
        let (mut name, mut bounds) = (None, Vec::new());
        for (key, value) in table {
            let word: &str = key.get_ref();
            if scope.name_key() == Some(word) {
                let text = value.get_ref().as_str().filter(|text| !text.trim().is_empty());
                let Some(text) = text else {
                    return Err(
                        self.error(key.span(), format!("{} {word}: give a name in quotes", scope.head()))
                    );
                };
                name = Some(text.to_owned());
                continue;
            }
            let Some(metric) = scope.metrics().iter().find(|metric| metric.key() == word) else {
                return Err(self.error(key.span(), unknown_key(scope, word)));
            };
            let bound = bound_of(*metric, value.get_ref())
                .map_err(|problem| self.error(value.span(), format!("{} {word}: {problem}", scope.head())))?;
            bounds.push((*metric, bound, self.line(&key.span())));
        }
        let name = match (scope.name_key(), name) {
            (Some(key), None) => {
                return Err(self.error(head, format!("{} has no '{key}'", scope.head())));
            }
            (_, name) => Pattern::new(&name.unwrap_or_default()),
        };
        if bounds.is_empty() {
            let keys: Vec<&str> = scope.metrics().iter().map(|metric| metric.key()).collect();
            return Err(self.error(head, format!("{} has no bound: give {}", scope.head(), keys.join(", "))));
        }
        let of_bound = |(metric, bound, line)| Budget { scope, name: name.clone(), metric, bound, line };
        budgets.extend(bounds.into_iter().map(of_bound));
        Ok(())
    }
}

fn unknown_key(scope: BudgetScope, word: &str) -> String {
    let head = scope.head();
    if BudgetMetric::ALL.iter().any(|metric| metric.key() == word) {
        let keys: Vec<&str> = scope.metrics().iter().map(|metric| metric.key()).collect();
        return format!("{head} cannot bound '{word}': give {}", keys.join(", "));
    }
    // The key that other tables have for the same purpose.
    if let (Some(key), "name" | "function") = (scope.name_key(), word) {
        return format!("{head} has no key '{word}'; the nearest is '{key}'");
    }
    let known = scope.name_key().into_iter().chain(scope.metrics().iter().map(|metric| metric.key()));
    let known: Vec<&str> = known.collect();
    format!("{head} has no key '{word}'; the nearest is '{}'", nearest(word, &known))
}

/// Returns the known word that is most similar.
fn nearest<'a>(word: &str, known: &[&'a str]) -> &'a str {
    Pattern::new(word).nearest(known.iter().copied(), 1).first().copied().unwrap_or_default()
}

/// Returns the bound that a value of the file means.
fn bound_of(metric: BudgetMetric, value: &DeValue<'_>) -> Result<BudgetBound, String> {
    let is_bytes = metric.kind() == FigureKind::Bytes;
    let number = |text: &str| match is_bytes {
        true => parse_bytes(text).map_err(|problem| format!("'{text}' is no size: {problem}")),
        false => text.parse().map_err(|_| format!("'{text}' is no count: give a whole number, or \"+5 %\"")),
    };
    let Some(text) = value.as_str() else {
        let digits = value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str());
        let digits = digits.and_then(|digits| digits.replace('_', "").parse().ok());
        return digits.map(BudgetBound::AtMost).ok_or_else(|| {
            let example = if is_bytes { "a size such as \"64 MiB\"" } else { "a whole number" };
            format!("give {example}, or \"+5 %\"")
        });
    };
    let text = text.trim();
    let Some(more) = text.strip_prefix('+') else {
        return match text.strip_suffix('%') {
            Some(_) => {
                Err(format!("'{text}' begins without a plus sign: \"+5 %\" is 5 % above the baseline"))
            }
            None => number(text).map(BudgetBound::AtMost),
        };
    };
    let Some(percent) = more.strip_suffix('%') else { return number(more.trim()).map(BudgetBound::More) };
    match percent.trim().parse::<f64>() {
        Ok(percent) if (0.0..=MOST_PERCENT).contains(&percent) => {
            Ok(BudgetBound::Share((percent * 1000.0).round() as u64))
        }
        _ => Err(format!("'{text}' is no share: give \"+5 %\"")),
    }
}

/// A larger tolerance bounds nothing.
const MOST_PERCENT: f64 = 1_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_parsed_in_the_order_of_its_lines() {
        let text = "[[function]]\nname = 'app::parse*'\nallocations = 1_000\n\n[total]\nlive = '+2.5 %'\n\
                    peak = \"64 MiB\"\nrss_peak = 4096\n[[per_call]]\nfunction = 'f'\nallocated = '+1 KiB'\n";
        let budgets = parse_budgets(text).unwrap();
        let rows: Vec<_> = budgets.iter().map(|b| (b.line, b.label(), b.metric.key(), b.bound)).collect();
        let total = || "total".to_owned();
        assert_eq!(
            rows,
            [
                (3, "function 'app::parse*'".to_owned(), "allocations", BudgetBound::AtMost(1000)),
                (6, total(), "live", BudgetBound::Share(2500)),
                (7, total(), "peak", BudgetBound::AtMost(64 << 20)),
                (8, total(), "rss_peak", BudgetBound::AtMost(4096)),
                (11, "per_call 'f'".to_owned(), "allocated", BudgetBound::More(1024)),
            ]
        );
    }

    #[test]
    fn a_limit_is_that_of_the_baseline_and_the_tolerance() {
        assert_eq!(BudgetBound::AtMost(7).limit(1000), 7);
        assert_eq!(BudgetBound::Share(2500).limit(1000), 1025);
        assert_eq!(BudgetBound::Share(1).limit(99_999), 99_999, "a fraction of a byte is none");
        assert_eq!(BudgetBound::More(24).limit(1000), 1024);
        assert_eq!(BudgetBound::Share(100_000).limit(u64::MAX), u64::MAX);
    }

    #[test]
    fn errors_name_the_line_the_key_and_the_nearest() {
        for (text, line, part) in [
            ("[total]\npaek = 1", 2, "[total] has no key 'paek'; the nearest is 'peak'"),
            ("\n[[funtcion]]\nname = 'x'", 2, "there is no table 'funtcion'; the nearest is 'function'"),
            ("[total]\npeak = '64 MB'", 2, "[total] peak: '64 MB' is no size: give a number of bytes"),
            ("[total]\nallocations = '5 KiB'", 2, "[total] allocations: '5 KiB' is no count"),
            ("[total]\nallocations = 1.5", 2, "[total] allocations: give a whole number"),
            ("[total]\npeak = '99999999 TiB'", 2, "'99999999 TiB' is no size: give less than 16777216 TiB"),
            ("[total]\npeak = -1", 2, "[total] peak: give a size"),
            ("[total]\npeak = '5 %'", 2, "'5 %' begins without a plus sign"),
            ("[total]\npeak = '+x %'", 2, "'+x %' is no share"),
            ("[total]\npeak = '+-5 %'", 2, "'+-5 %' is no share"),
            ("[function]\nname = 'x'", 1, "write [[function]]"),
            ("[[total]]\npeak = 1", 1, "write [total]"),
            ("total = 1", 1, "write [total]"),
            ("function = [1]", 1, "write [[function]]"),
            ("[[crate]]\npeak = 1", 1, "[[crate]] has no 'name'"),
            ("[[crate]]\nname = ' '\npeak = 1", 2, "[[crate]] name: give a name in quotes"),
            ("[[per_call]]\nname = 'x'", 2, "[[per_call]] has no key 'name'; the nearest is 'function'"),
            ("[[file]]\nname = 'x'", 1, "[[file]] has no bound: give peak, live, allocated"),
            (
                "[[thread]]\nname = 'x'\npeak = 1",
                3,
                "[[thread]] cannot bound 'peak': give allocated, allocations",
            ),
            ("[[function]]\nname = 'x'\nrss_peak = 1", 3, "[[function]] cannot bound 'rss_peak'"),
            ("", 1, "there is no budget"),
            ("[total]\npeak = ", 2, ""),
            ("[total]\npeak = 1\npeak = 2", 3, "duplicate key"),
        ] {
            let error = parse_budgets(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.problem.contains(part), "{text}: {error}");
            assert!(!error.problem.contains('\n'), "{error}");
        }
    }
}
