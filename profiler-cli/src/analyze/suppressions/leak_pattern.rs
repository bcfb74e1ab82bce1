//! One pattern of a suppression, as LeakSanitizer reads it. In: the text behind `leak:`. Out:
//! whether a name matches.
//!
//! | pattern | names that match |
//! | --- | --- |
//! | `cache` | those that contain `cache` |
//! | `^cache` | those that begin with `cache` |
//! | `cache$` | those that end with `cache` |
//! | `cache*put` | those that contain `cache`, and `put` somewhere behind it |
//!
//! PERF: the literal parts are searched one after the other, each from the end of the one before.
//! The first place of a part leaves most room for the rest, so nothing is ever searched twice, and
//! a name takes time that is linear in its length, whatever the pattern.

/// A pattern for the names of functions, source files and modules.
///
/// ```
/// use profiler_cli::analyze::suppressions::LeakPattern;
/// assert!(LeakPattern::new("Cache::put").matches("app::Cache::put"));
/// assert!(!LeakPattern::new("^Cache").matches("app::Cache::put"));
/// assert!(LeakPattern::new("^app::*::put$").matches("app::Cache::put"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeakPattern {
    text: String,
    /// The parts between the wildcards, without empty ones.
    parts: Vec<String>,
    /// Whether a name has to begin with the first part.
    from_start: bool,
    /// Whether a name has to end with the last part.
    to_end: bool,
}

impl LeakPattern {
    /// Makes a pattern of a text. As in LeakSanitizer, `^` is special at the start only, and
    /// nothing behind a `$` counts.
    pub fn new(text: &str) -> LeakPattern {
        let (has_start, rest) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (body, has_end) = rest.split_once('$').map_or((rest, false), |(body, _)| (body, true));
        let parts = body.split('*').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        LeakPattern {
            text: text.to_owned(),
            parts,
            // A wildcard at the start or at the end takes the anchor's effect away.
            from_start: has_start && !body.starts_with('*'),
            to_end: has_end && !body.ends_with('*'),
        }
    }

    /// Returns the text of the pattern.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches every name.
    pub fn matches_everything(&self) -> bool {
        self.parts.is_empty() && !(self.from_start && self.to_end)
    }

    /// Whether a name matches. An empty name matches nothing.
    pub fn matches(&self, name: &str) -> bool {
        if name.is_empty() {
            return false;
        }
        let Some((last, before)) = self.parts.split_last() else { return self.matches_everything() };
        let mut rest = name;
        let mut is_first = true;
        for part in before {
            let found = match is_first && self.from_start {
                true => rest.starts_with(part.as_str()).then_some(0),
                false => rest.find(part.as_str()),
            };
            let Some(at) = found else { return false };
            rest = &rest[at + part.len()..];
            is_first = false;
        }
        match (is_first && self.from_start, self.to_end) {
            (true, true) => rest == last,
            (true, false) => rest.starts_with(last.as_str()),
            // LeakSanitizer looks at the first place of the last part only, so that its `o$` does
            // not match `foo`. Here `$` means what its documentation says.
            (false, true) => rest.ends_with(last.as_str()),
            (false, false) => rest.contains(last.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What LeakSanitizer's documentation says of its patterns, and what its source does.
    #[test]
    fn patterns_match_as_in_leak_sanitizer() {
        for (pattern, matching, others) in [
            ("malloc", &["malloc", "my_malloc", "malloc_usable"][..], &["mallo", "MALLOC"][..]),
            ("^malloc", &["malloc", "malloc_usable"], &["my_malloc"]),
            ("malloc$", &["malloc", "my_malloc"], &["malloc_usable"]),
            ("^malloc$", &["malloc"], &["my_malloc", "malloc_usable", ""]),
            ("a*b", &["ab", "xaxbx", "a*b"], &["ba", "b", "a"]),
            ("^a*b$", &["ab", "axxb", "abab"], &["xab", "abx"]),
            ("*LSanTestLeakingFunc*", &["LSanTestLeakingFunc()", "xLSanTestLeakingFunc"], &["LSanTest"]),
            ("*a", &["ba", "ab"], &["b"]),
            ("^*a", &["ba", "ab"], &["b"]),
            ("a*$", &["ab", "ba"], &["b"]),
            ("o$", &["foo"], &["of"]),
            ("aa*aa", &["aaaa", "aabaa"], &["aaa"]),
            ("^aa*aa$", &["aaaa", "aabaa"], &["aaa", "aa"]),
            ("a^b", &["a^b"], &["ab"]),
            ("a$b", &["a", "ba"], &["ab", "a$b"]),
            ("*", &["a", "*"], &[""]),
            ("^", &["a"], &[""]),
            ("^$", &[], &["", "a"]),
            (".rs", &["/w/a.rs"], &["ars"]),
            ("é*ü", &["aéüb"], &["üé"]),
        ] {
            let leak = LeakPattern::new(pattern);
            for name in matching {
                assert!(leak.matches(name), "{pattern} {name}");
            }
            for name in others {
                assert!(!leak.matches(name), "{pattern} {name}");
            }
        }
    }

    /// A search with backtracking would need more steps than there are atoms.
    #[test]
    fn hostile_patterns_take_linear_time() {
        let name = "a".repeat(100_000);
        for pattern in
            ["*".repeat(100_000), "a*".repeat(50_000) + "b", "^".to_owned() + &"*a".repeat(50_000) + "b$"]
        {
            assert_eq!(LeakPattern::new(&pattern).matches(&name), !pattern.contains('b'));
        }
    }

    #[test]
    fn patterns_that_match_everything_are_known() {
        for pattern in ["", "*", "^", "**", "^*", "$", "*$"] {
            assert!(LeakPattern::new(pattern).matches_everything(), "{pattern}");
        }
        assert!(!LeakPattern::new("^$").matches_everything() && !LeakPattern::new("a").matches_everything());
    }
}
