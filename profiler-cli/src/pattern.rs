//! Patterns of `--function`, `--file`, `--thread` and `--crate`. In: a pattern and names. Out:
//! which names match the pattern, or which names are the most similar to it.

use std::fmt;

use wildmatch::WildMatch;

/// A pattern for names. Plain text matches every name that contains it. Text with `*` or `?` must
/// match the whole name.
///
/// ```
/// use profiler_cli::pattern::Pattern;
/// assert!(Pattern::new("push").matches("alloc::vec::Vec<T>::push"));
/// assert!(Pattern::new("alloc::*::push").matches("alloc::vec::Vec<T>::push"));
/// assert!(!Pattern::new("vec::*").matches("alloc::vec::Vec<T>::push"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    text: String,
    wild: Option<WildMatch>,
}

impl Pattern {
    /// Makes a pattern from `text`; see [`Pattern`].
    pub fn new(text: &str) -> Pattern {
        let wild = text.contains(['*', '?']).then(|| WildMatch::new(text));
        Pattern { text: text.to_owned(), wild }
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.wild.as_ref().map_or_else(|| name.contains(&self.text), |wild| wild.matches(name))
    }

    /// Returns the `most` names that are most similar to this pattern, the best first.
    pub fn nearest<'a>(&self, names: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
        // Users usually mean the last part of a module path or of a file path.
        let last_part = |name: &str| name.rsplit(['/', ':']).next().unwrap_or(name).len();
        let score = |name: &str| {
            let last = &name[name.len() - last_part(name)..];
            let similar = |part: &str| strsim::normalized_damerau_levenshtein(&self.text, part);
            similar(name).max(similar(last))
        };
        let mut scored: Vec<(f64, &str)> = names.map(|name| (score(name), name)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.len().cmp(&b.1.len())).then(a.1.cmp(b.1)));
        scored.dedup();
        scored.into_iter().map(|(_, name)| name).take(most).collect()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Pattern {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Pattern, Self::Err> {
        Ok(Pattern::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_names_come_first() {
        let names = ["app::parse_line", "app::render", "app::parse", "std::rt::main"];
        assert_eq!(Pattern::new("pares").nearest(names.into_iter(), 2), ["app::parse", "app::parse_line"]);
        let files = [
            "/srv/app/src/bin/cache.rs",
            "/srv/app/src/lib.rs",
            "./csu/../sysdeps/nptl/libc_start_call_main.h",
        ];
        assert_eq!(Pattern::new("cash.rs").nearest(files.into_iter(), 1), ["/srv/app/src/bin/cache.rs"]);
    }
}
