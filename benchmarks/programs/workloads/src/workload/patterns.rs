//! Regular expressions, each compiled for one use, which is what the manual of `regex` warns of.

use regex::Regex;

const PATTERNS: [&str; 6] = [
    r"(?m)^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+) (GET|PUT|POST) /(?:items|users)/([0-9a-f]+) 5[0-9]{2}$",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"(?i)(?:alpha|beta|gamma|delta|epsilon)[\s,;]+",
    r"(?x) (?P<year>[0-9]{4}) - (?P<month>[0-9]{2}) - (?P<day>[0-9]{2})",
    r"\p{Greek}+|\p{Cyrillic}{2,5}",
    r#""(?:[^"\\]|\\.)*""#,
];

const TEXT: &str = "On 2024-02-29 10.20.30.40 wrote to one@example.org: \"alpha, beta; \\\"gamma\\\"\"\n\
    10.20.30.40 GET /items/1f3 500\n\u{3b1}\u{3b2}\u{3b3} \u{436}\u{443}\u{43a}\n";

pub(super) fn run(rounds: usize) -> u64 {
    (0..rounds).map(|_| round()).sum()
}

fn round() -> u64 {
    let matched_bytes = PATTERNS.iter().map(|pattern| {
        let pattern = Regex::new(pattern).expect("our own pattern");
        pattern.captures_iter(TEXT).map(|captures| captures[0].len()).sum::<usize>() as u64
    });
    matched_bytes.sum()
}
