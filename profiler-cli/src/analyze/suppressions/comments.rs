//! Comments in the source that suppress leaks: `// leak: ok because …`. In: the text of a source
//! file, and the line of a site. Out: what the comment there says.

use crate::source::SourceText;

/// A comment about a leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeakComment {
    /// It gives this reason.
    Because(String),
    /// It gives no reason.
    WithoutReason,
}

/// Returns the comment about the leaks of a line. It is on the line itself, or in the lines
/// directly above that have nothing but comments.
pub(super) fn comment_at(source: &SourceText, line: u32) -> Option<LeakComment> {
    let of_line = source.line(line).and_then(|text| {
        let starts = text.match_indices("//").map(|(at, _)| at);
        starts.filter_map(|at| parse(&text[at..], "")).next()
    });
    of_line.or_else(|| comment_above(source, line))
}

/// Returns the comment in the lines above. Its reason may go on in the lines that follow it.
fn comment_above(source: &SourceText, line: u32) -> Option<LeakComment> {
    let first = line.saturating_sub(MOST_LINES).max(1);
    let mut rest = String::new();
    for at in (first..line).rev() {
        let text = source.line(at)?.trim();
        if !text.starts_with("//") {
            return None;
        }
        if let Some(comment) = parse(text, &rest) {
            return Some(comment);
        }
        rest = format!("{} {rest}", words(text));
    }
    None
}

/// The most lines of a comment above a site.
const MOST_LINES: u32 = 8;

/// Parses a comment, which goes on with `rest` in its next lines.
fn parse(comment: &str, rest: &str) -> Option<LeakComment> {
    let behind = words(comment).strip_prefix("leak:")?.trim_start().strip_prefix("ok")?;
    if behind.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let said = format!("{} {rest}", behind.trim());
    let reason =
        said.trim().strip_prefix("because").filter(|reason| !reason.starts_with(char::is_alphanumeric));
    let reason = reason.map(str::trim).filter(|reason| reason.contains(char::is_alphanumeric));
    Some(reason.map_or(LeakComment::WithoutReason, |reason| {
        LeakComment::Because(reason.chars().take(LONGEST_REASON).collect())
    }))
}

/// The most characters of a reason that are kept.
const LONGEST_REASON: usize = 200;

/// Returns the words of a comment, without the slashes before them.
fn words(comment: &str) -> &str {
    comment.trim_start_matches(['/', '!']).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comment(text: &str, line: u32) -> Option<LeakComment> {
        comment_at(&SourceText::parse(text), line)
    }

    fn because(reason: &str) -> Option<LeakComment> {
        Some(LeakComment::Because(reason.to_owned()))
    }

    #[test]
    fn a_comment_stands_on_the_line_or_directly_above() {
        let text = "\
let a = leak(); // leak: ok because it is a cache
// leak: ok because it is a table
let b = leak();
let c = leak();

// leak: ok because it is far away

let d = leak();
";
        assert_eq!(comment(text, 1), because("it is a cache"));
        assert_eq!(comment(text, 2), because("it is a table"), "for the test: the line itself has it");
        assert_eq!(comment(text, 3), because("it is a table"));
        assert_eq!((comment(text, 4), comment(text, 8), comment(text, 99)), (None, None, None));
    }

    #[test]
    fn a_comment_behind_code_is_not_about_the_next_line() {
        assert_eq!(comment("a(); // leak: ok because of a\nb();\n", 2), None);
    }

    #[test]
    fn a_comment_may_have_several_lines() {
        let text = "// A note.\n// leak: ok because the cache lives\n// as long as the process\nleak();\n";
        assert_eq!(comment(text, 4), because("the cache lives as long as the process"));
    }

    #[test]
    fn a_comment_needs_a_reason() {
        for text in
            ["leak(); // leak: ok", "//leak:ok because", "// leak: ok because .", "// leak: ok, a cache"]
        {
            assert_eq!(comment(text, 1), Some(LeakComment::WithoutReason), "{text}");
        }
        for text in
            ["// leak: okay", "// leaks: ok because x", "leak: ok because x", "// a leak: ok because x"]
        {
            assert_eq!(comment(text, 1), None, "{text}");
        }
        assert_eq!(comment("//leak:ok because x", 1), because("x"));
        assert_eq!(comment("get(\"http://x\"); /// leak: ok because: it is x", 1), because(": it is x"));
    }
}
