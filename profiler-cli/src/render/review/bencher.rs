//! The totals of a review in the Bencher Metric Format. In: a review. Out: a JSON object with one
//! benchmark, named by the title of the review, and a measure for each total.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::place::RepositoryPlace;
use crate::analyze::review::Review;
use crate::render::json;
use crate::units::Safe;

/// Writes the totals.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, review: &Review, _place: &RepositoryPlace) -> io::Result<()> {
    let metric = |new, [lower, upper]: [u64; 2]| BencherMetric {
        value: new,
        lower_value: (lower < upper).then_some(lower),
        upper_value: (lower < upper).then_some(upper),
    };
    let measures: BTreeMap<String, BencherMetric> =
        review.totals.iter().map(|total| (measure(total.name), metric(total.new, total.range))).collect();
    json::write(out, &BTreeMap::from([(Safe(&review.title).to_string(), measures)]))
}

/// Returns the name of the measure. Figures that dhat has, too, get the names that Bencher gives
/// them: the curves of a project that changes its profiler go on. Others get the words of their
/// name, such as `Short Lived Blocks`.
fn measure(name: &str) -> String {
    let words = name.split('_').map(|word| match word {
        "allocated" => "Total",
        "allocations" => "Total Blocks",
        "peak" => "Max",
        "live" | "end" => "Final",
        word => word,
    });
    let capitalized = words.map(|word| {
        let mut characters = word.chars();
        characters.next().map_or_else(String::new, |c| c.to_uppercase().chain(characters).collect())
    });
    capitalized.collect::<Vec<String>>().join(" ")
}

/// A figure with its bounds.
#[derive(Serialize)]
struct BencherMetric {
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_value: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_value: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::render::review::made::{HOSTILE, hostile, written};

    #[test]
    fn a_measure_has_its_value_and_the_range_of_several_runs() {
        let written: Value = serde_json::from_str(&written(write, &hostile())).unwrap();
        let expected = json!({
            Safe(HOSTILE).to_string(): {
                "Max Bytes": {"value": 1536},
                "Total Blocks": {"value": 1000, "lower_value": 900, "upper_value": 1100},
            }
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn measures_have_the_names_that_bencher_gives_to_those_of_dhat() {
        let names =
            ["allocated_bytes", "allocations", "peak_bytes", "peak_blocks", "live_bytes", "end_blocks"];
        let expected =
            ["Total Bytes", "Total Blocks", "Max Bytes", "Max Blocks", "Final Bytes", "Final Blocks"];
        assert_eq!(names.map(measure), expected);
        assert_eq!(measure("short_lived_blocks"), "Short Lived Blocks");
    }
}
