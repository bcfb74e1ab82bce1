//! The totals of a review for github-action-benchmark, as the tool `customSmallerIsBetter`, which
//! draws them over the commits. In: a review. Out: a JSON list of figures.
//!
//! NOTE: From 0 to anything is an alert there, because the ratio is infinite.

use std::io::{self, Write};

use serde::Serialize;

use super::change::amount;
use super::place::RepositoryPlace;
use crate::analyze::review::{Review, ReviewTotal};
use crate::render::json;
use crate::units::Safe;

/// Writes the totals. Without any total it writes the number of findings, because the reader fails
/// on an empty list.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, review: &Review, _place: &RepositoryPlace) -> io::Result<()> {
    let title = Safe(&review.title);
    let mut points: Vec<BenchmarkPoint> = review
        .totals
        .iter()
        .map(|total| BenchmarkPoint {
            name: format!("{title}: {}", total.title),
            unit: if total.is_bytes { "bytes" } else { "count" },
            value: total.new,
            range: range(total),
            extra: total.base.map(|base| format!("base: {}", amount(total, base))),
        })
        .collect();
    if points.is_empty() {
        let value = review.findings.len() as u64;
        let name = format!("{title}: Findings");
        points.push(BenchmarkPoint { name, unit: "count", value, range: None, extra: None });
    }
    json::write(out, &points)
}

fn range(total: &ReviewTotal) -> Option<String> {
    let [least, most] = total.range;
    (least != most).then(|| format!("{least} to {most}"))
}

/// A figure of one commit.
#[derive(Serialize)]
struct BenchmarkPoint {
    /// Name of its curve.
    name: String,
    unit: &'static str,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::render::review::made::{finding, hostile, written};

    #[test]
    fn a_point_has_the_fields_of_the_reader() {
        let review = Review { title: "parse \"x\"".to_owned(), ..hostile() };
        let points: Value = serde_json::from_str(&written(write, &review)).unwrap();
        let expected = json!([
            {"name": "parse \"x\": Peak", "unit": "bytes", "value": 1536, "extra": "base: 1.0 KiB"},
            {"name": "parse \"x\": Blocks", "unit": "count", "value": 1000, "range": "900 to 1100", "extra": "base: 0"},
        ]);
        assert_eq!(points, expected);
    }

    #[test]
    fn the_list_is_never_empty() {
        let findings = vec![finding(crate::analyze::review::Severity::Note, "f", 1)];
        let review = Review { title: "T".to_owned(), findings, ..Review::default() };
        let points: Value = serde_json::from_str(&written(write, &review)).unwrap();
        assert_eq!(points, json!([{"name": "T: Findings", "unit": "count", "value": 1}]));
    }
}
