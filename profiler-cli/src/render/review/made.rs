//! Reviews for the tests of renderers, made by hand. The names in them try to break every format.

use super::place::RepositoryPlace;
use crate::analyze::review::{Finding, Review, ReviewFrame, ReviewTotal, Rule, Severity};

/// A function whose name has the special characters of all formats.
pub(crate) const HOSTILE: &str =
    "a|b\\|`c``d`<T>*e*_f_[g](h)\n%0A::error::\"'&amp;]]></pre></details>@who #1 $x$ ~~i~~ https://j -->";

/// Returns a figure in bytes that changed from `base` to `new`.
pub(crate) fn figure(base: u64, new: u64) -> ReviewTotal {
    ReviewTotal {
        name: "peak_bytes",
        title: "Peak",
        is_bytes: true,
        base: Some(base),
        new,
        range: [new, new],
        is_changed: base != new,
    }
}

/// Returns a finding about a line of `/srv/app/src/lib.rs`, called by code outside of `/srv/app`.
pub(crate) fn finding(severity: Severity, function: &str, line: u32) -> Finding {
    let frame = |function: &str, file: &str, line| ReviewFrame {
        function: function.to_owned(),
        file: Some(file.to_owned()),
        line: Some(line),
    };
    Finding {
        severity,
        rule: Rule::Grown,
        function: function.to_owned(),
        file: Some("/srv/app/src/lib.rs".to_owned()),
        line: Some(line),
        message: "Peak 1.0 KiB -> 2.0 KiB".to_owned(),
        figures: vec![figure(1024, 2048)],
        stack: vec![
            frame(function, "/srv/app/src/lib.rs", line),
            frame("main", "/srv/app/src/main.rs", 3),
            frame("start", "/rustc/1/library/std/src/rt.rs", 4),
        ],
    }
}

/// Returns a failed review with an error, a warning and a note. All names are hostile.
pub(crate) fn hostile() -> Review {
    let mut findings = vec![
        finding(Severity::Error, HOSTILE, 10),
        finding(Severity::Warning, HOSTILE, 20),
        finding(Severity::Note, HOSTILE, 30),
    ];
    findings[1].message = HOSTILE.to_owned();
    findings[1].file = Some(format!("/srv/app/{}", HOSTILE.replace('/', "-")));
    findings[2].rule = Rule::Shrunk;
    Review {
        title: HOSTILE.to_owned(),
        passed: Some(false),
        verdict: HOSTILE.to_owned(),
        totals: vec![
            figure(1024, 1536),
            ReviewTotal {
                name: "total_blocks",
                title: "Blocks",
                is_bytes: false,
                range: [900, 1100],
                ..figure(0, 1000)
            },
        ],
        findings,
        notes: vec![HOSTILE.to_owned()],
    }
}

/// Returns the repository of these findings.
pub(crate) fn place() -> RepositoryPlace {
    RepositoryPlace::new(Some("/srv/app".into()), Some("https://example.org/o/r/blob/c0ffee".into()))
}

/// Returns what a renderer writes.
pub(crate) fn written(
    write: impl Fn(&mut dyn std::io::Write, &Review, &RepositoryPlace) -> std::io::Result<()>,
    review: &Review,
) -> String {
    let mut out = Vec::new();
    write(&mut out, review, &place()).unwrap();
    String::from_utf8(out).unwrap()
}
