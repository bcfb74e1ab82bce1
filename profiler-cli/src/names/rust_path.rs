//! The structure of readable Rust paths.
//!
//! In: the name of a function or type. Out: its crate, and the `impl` that a method belongs to.
//! Names come from files that are not trusted: any text has an answer or gives `None`, and none is
//! a panic.

/// A method of a trait: `<SELF as TRAIT>::method`.
pub(crate) struct ImplName<'a> {
    pub(crate) self_type: &'a str,
    pub(crate) trait_path: &'a str,
}

impl<'a> ImplName<'a> {
    /// Takes `<SELF as TRAIT>::method` apart; `None` for every other name.
    pub(crate) fn parse(function: &'a str) -> Option<Self> {
        let inner = &function[1..closing_bracket(function)?];
        let at = find_at_top(inner, " as ")?;
        Some(Self { self_type: &inner[..at], trait_path: &inner[at + " as ".len()..] })
    }
}

/// Returns the crate at the root of a path or type. For a method that is the crate of its type.
///
/// The result is `None` if no crate is there: for a generic parameter, a primitive, a tuple, or a
/// function that is known by its short name only.
///
/// ```
/// use profiler_cli::names::rust_path::crate_of;
/// assert_eq!(crate_of("<&mut app::List<u8> as core::iter::Iterator>::next"), Some("app"));
/// assert_eq!(crate_of("serde_json::de::from_str"), Some("serde_json"));
/// assert_eq!(crate_of("push<u8, alloc::alloc::Global>"), None);
/// ```
pub fn crate_of(path: &str) -> Option<&str> {
    let path = without_wrappers(path);
    if path.starts_with('<') {
        // `<SELF>::method` or `<SELF as TRAIT>::method`, or a type inside such a function.
        let inner = &path[1..closing_bracket(path)?];
        return crate_of(find_at_top(inner, " as ").map_or(inner, |at| &inner[..at]));
    }
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    let (first, rest) = path.split_at(end);
    (!first.is_empty() && rest.starts_with("::")).then_some(first)
}

/// Removes references, slices, pointers and `dyn` from a type. The crate of a type is that of the
/// type which these wrap.
fn without_wrappers(mut path: &str) -> &str {
    const WRAPPERS: &[&str] = &["&", "mut ", "*const ", "*mut ", "dyn ", "impl ", "[", "(", " "];
    loop {
        if let Some(rest) = path.strip_prefix("for<") {
            path = rest.split_once("> ").map_or("", |(_, rest)| rest);
        } else if let Some(rest) = path.strip_prefix('\'') {
            path = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        } else if let Some(rest) = WRAPPERS.iter().find_map(|wrapper| path.strip_prefix(wrapper)) {
            path = rest;
        } else {
            return path;
        }
    }
}

/// Returns the position of the `>` that closes the `<` at the start of `text`.
fn closing_bracket(text: &str) -> Option<usize> {
    if !text.starts_with('<') {
        return None;
    }
    top_positions(text, 1).find(|&(_, byte)| byte == b'>').map(|(index, _)| index)
}

/// Returns the position of `wanted` in `text` outside all angle brackets.
fn find_at_top(text: &str, wanted: &str) -> Option<usize> {
    top_positions(text, 0).map(|(index, _)| index).find(|&index| text[index..].starts_with(wanted))
}

/// Returns the positions in `text` that are exactly `level` angle brackets deep, each with its
/// byte. An opening bracket counts as outside itself, a closing bracket as inside.
fn top_positions(text: &str, level: i32) -> impl Iterator<Item = (usize, u8)> {
    let mut depth = 0;
    let mut previous = 0;
    text.bytes().enumerate().filter(move |&(index, byte)| {
        let opens = byte == b'<';
        // The `>` of an arrow, as in `fn(u8) -> u8`, closes no bracket.
        let closes = byte == b'>' && previous != b'-';
        let before = depth;
        depth += i32::from(opens) - i32::from(closes);
        previous = byte;
        let arrow = byte == b'>' && !closes;
        text.is_char_boundary(index) && !arrow && before == level
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_is_the_root_of_the_path() {
        let cases = [
            ("app::main", Some("app")),
            ("<app::Foo>::new", Some("app")),
            ("<<app::Foo as app::Bar>::Out as core::clone::Clone>::clone", Some("app")),
            ("&'a mut [alloc::vec::Vec<app::Foo>]", Some("alloc")),
            ("*const app::Foo", Some("app")),
            ("dyn for<'a> app::Visit<'a>", Some("app")),
            ("(app::Foo, u8)", Some("app")),
            ("<&mut app::List<u8> as core::iter::Iterator>::next", Some("app")),
            ("serde_json::de::from_str", Some("serde_json")),
            ("app::main::{closure#0}", Some("app")),
            ("push<u8, alloc::alloc::Global>", None),
            ("malloc", None),
            ("libfoo.so.1+0x1234", None),
            ("fn(u8) -> app::Foo", None),
            ("T", None),
            ("u32", None),
            ("<", None),
            ("", None),
        ];
        for (path, expected) in cases {
            assert_eq!(crate_of(path), expected, "{path}");
        }
    }

    #[test]
    fn an_impl_is_taken_apart_at_its_own_as() {
        let name = ImplName::parse("<fn(app::A) -> <B as app::C>::D as core::ops::Fn<(app::A,)>>::call")
            .expect("an impl");
        assert_eq!(name.self_type, "fn(app::A) -> <B as app::C>::D");
        assert_eq!(name.trait_path, "core::ops::Fn<(app::A,)>");
        for other in ["app::main", "<app::Foo>::new", "<", "<a as b", "<a> as b"] {
            assert!(ImplName::parse(other).is_none(), "{other}");
        }
    }
}
