//! The structure of readable Rust paths.
//!
//! In: the name of a function or type. Out: its crate, the `impl` that a method belongs to, or its
//! last part. Names come from files that are not trusted: every text gives a result or `None`, and
//! none causes a panic. All code that counts angle brackets is here, because the `>` of an arrow
//! must never count.

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

/// Returns the crate at the root of a path or type. For a method, returns the crate of its type.
///
/// Returns `None` if the path names no crate: for a generic parameter, a primitive, a tuple, or a
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

/// Removes references, slices, pointers, lifetimes and `dyn` from the start of a type, so that its
/// path comes first: `&'a mut [app::Foo]` becomes `app::Foo]`.
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

/// Returns the last segment of a path, without generic arguments: `work` of
/// `app::inner::work::<u8>`, `push` of `<alloc::vec::Vec<u8>>::push`.
pub(super) fn last_segment(path: &str) -> &str {
    let (mut start, mut end) = (0, path.len());
    for (index, byte) in positions_at_depth(path, 0) {
        match byte {
            b'<' if index > start => end = end.min(index),
            b':' => match path[index..].strip_prefix("::") {
                Some(rest) if rest.starts_with('<') => end = end.min(index),
                Some(rest) if !rest.is_empty() => (start, end) = (index + 2, path.len()),
                _ => {}
            },
            _ => {}
        }
    }
    &path[start..end]
}

/// Splits a path at its last `::`: everything up to and including the `::`, and the part after it.
/// The first part is empty if there is no `::`.
///
/// Does not look at brackets: the name of `app::run::<a::B>` is `B>`. To be used for the names of
/// functions, from which [`function_of`](super::function_name::function_of) has removed the
/// generic arguments.
pub fn split_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind("::").map_or(0, |at| at + 2))
}

/// Returns the part of a path after the last `::`; see [`split_name`].
pub fn last_name(path: &str) -> &str {
    split_name(path).1
}

/// Returns the name that a function has in its source: the last part of its path that is not a
/// closure.
pub fn source_name(function: &str) -> &str {
    let mut parts = function.rsplit("::");
    parts.find(|part| !part.starts_with('{')).unwrap_or(function)
}

/// Returns the position of the `>` that closes the `<` at the start of `text`.
pub(crate) fn closing_bracket(text: &str) -> Option<usize> {
    if !text.starts_with('<') {
        return None;
    }
    positions_at_depth(text, 1).find(|&(_, byte)| byte == b'>').map(|(index, _)| index)
}

/// Returns the position of the `<` that the `>` at the end of `text` closes.
pub(super) fn opening_bracket(text: &str) -> Option<usize> {
    let mut depth = 0;
    for index in (0..text.len()).rev() {
        depth -= depth_change(text, index);
        match depth {
            // The text does not end with a closing bracket.
            0 if index + 1 == text.len() => return None,
            0 => return Some(index),
            _ => {}
        }
    }
    None
}

/// Returns the position of `wanted` in `text` outside all angle brackets.
fn find_at_top(text: &str, wanted: &str) -> Option<usize> {
    positions_at_depth(text, 0).map(|(index, _)| index).find(|&index| text[index..].starts_with(wanted))
}

/// Returns the positions in `text` that are inside exactly `wanted` pairs of angle brackets, each
/// with its byte. An opening bracket counts as outside itself, a closing bracket as inside. The `>`
/// of an arrow is left out.
fn positions_at_depth(text: &str, wanted: i32) -> impl Iterator<Item = (usize, u8)> {
    let mut depth = 0;
    text.bytes().enumerate().filter(move |&(index, byte)| {
        let before = depth;
        let change = depth_change(text, index);
        depth += change;
        let is_arrow = byte == b'>' && change == 0;
        text.is_char_boundary(index) && !is_arrow && before == wanted
    })
}

/// Returns the change of the depth of angle brackets at this byte of `text`: 1 for `<`, -1 for `>`,
/// and 0 for any other byte. The `>` of an arrow, as in `fn(u8) -> u8`, closes no bracket.
fn depth_change(text: &str, index: usize) -> i32 {
    match text.as_bytes()[index] {
        b'<' => 1,
        b'>' if index == 0 || text.as_bytes()[index - 1] != b'-' => -1,
        _ => 0,
    }
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

    #[test]
    fn the_last_segment_has_no_generics() {
        let cases = [
            ("main", "main"),
            ("app::inner::work", "work"),
            ("app::inner::work::<app::Foo>", "work"),
            ("work<app::Foo>", "work"),
            ("<alloc::vec::Vec<u8>>::push", "push"),
            ("<app::Foo as core::ops::drop::Drop>::drop", "drop"),
            ("app::apply::<fn(u8) -> alloc::vec::Vec<u8>>", "apply"),
            ("app::main::{closure#0}", "{closure#0}"),
            ("", ""),
            ("<", "<"),
            (">", ">"),
            ("::", "::"),
        ];
        for (name, expected) in cases {
            assert_eq!(last_segment(name), expected, "{name}");
        }
    }

    #[test]
    fn the_last_bracket_has_its_opening_one() {
        for (text, expected) in [
            ("app::run::<fn(u8) -> u8>", Some(10)),
            ("push<Vec<u8>>", Some(4)),
            ("<u8>", Some(0)),
            ("operator>", None),
            ("operator->", None),
            ("<u8>::push", None),
            ("", None),
        ] {
            assert_eq!(opening_bracket(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_is_the_last_part_of_its_path() {
        assert_eq!(split_name("app::inner::work"), ("app::inner::", "work"));
        assert_eq!(split_name("main"), ("", "main"));
        assert_eq!(last_name("app::main::{closure#0}"), "{closure#0}");
        assert_eq!(source_name("app::main::{closure#0}"), "main");
        assert_eq!(source_name("{closure#0}"), "{closure#0}");
    }
}
