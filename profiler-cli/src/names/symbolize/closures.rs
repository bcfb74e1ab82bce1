//! Readable names of closures and of async code. In: a function's path, and what the debug info
//! calls it. Out: the path as a person would say it.
//!
//! The body of an async function or block is a closure to the compiler. Symbols do not tell it from
//! other closures, but debug info does:
//!
//! | symbol | in the debug info | readable |
//! | --- | --- | --- |
//! | `app::handler::{closure#0}` | `{async_fn#0}` | `app::handler` |
//! | `app::handler::{closure#0}::{closure#1}` | `{async_block#0}` | `app::handler` |
//! | `app::main::{{closure}}` | `{closure#0}` | `app::main::{closure}` |
//! | `app::main::{closure#1}::{closure#0}::<i16>` | `{async_closure#0}` | `app::main::{closure}` |
//!
//! Closures inside of closures become one `{closure}`: file and line tell them apart.

use foldhash::HashSet;

use crate::names::rust_path::opening_bracket;

/// What a function is, by its name in the debug info.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// An ordinary function or closure, or not known.
    #[default]
    Ordinary,
    /// The body of an async function or block.
    Async,
    /// The body of an async closure, which is inside of the closure.
    AsyncClosure,
}

impl BodyKind {
    /// Returns what the function with this name in the debug info is.
    pub(super) fn of(name: &str) -> BodyKind {
        match name {
            _ if name.starts_with("{async_closure") => BodyKind::AsyncClosure,
            _ if name.starts_with("{async_fn") || name.starts_with("{async_block") => BodyKind::Async,
            _ => BodyKind::Ordinary,
        }
    }
}

/// The bodies of async functions and blocks, by their path up to the last closure.
pub(super) type AsyncPaths = HashSet<Box<str>>;

/// Returns the readable form of a path whose last part may be a closure. `kind` is what the debug
/// info says about the whole path; `known` are the async bodies around it.
pub(super) fn readable(path: &str, kind: BodyKind, known: &AsyncPaths) -> Option<String> {
    let (mut outer, mut has_closure, mut is_first) = (path, false, true);
    while let Some((around, body)) = split_closure(outer) {
        let is_async = match kind {
            _ if is_first => kind != BodyKind::Ordinary,
            // The closure that an async closure's body is in.
            BodyKind::AsyncClosure => false,
            // Without any knowledge it is most likely the function around an async block.
            BodyKind::Async if known.is_empty() => true,
            _ => known.contains(body),
        };
        has_closure |= !is_async;
        (outer, is_first) = (around, false);
    }
    (!is_first).then(|| if has_closure { format!("{outer}::{{closure}}") } else { outer.to_owned() })
}

/// Returns the path of an async body as [`AsyncPaths`] has it; `None` if it does not end in a
/// closure.
pub(super) fn async_path(path: &str) -> Option<&str> {
    split_closure(path).map(|(_, body)| body)
}

/// Splits the closure at the end off: returns the path around it, and the path with it, but without
/// generic arguments behind it.
fn split_closure(path: &str) -> Option<(&str, &str)> {
    let mut body = path;
    if path.ends_with('>') {
        body = path[..opening_bracket(path)?].strip_suffix("::")?;
    }
    let at = body.rfind("::{")?;
    let last = &body[at + 2..];
    let is_closure =
        ["{closure", "{{closure", "{async", "{coroutine"].iter().any(|kind| last.starts_with(kind));
    (is_closure && last.ends_with('}') && at > 0).then(|| (&body[..at], body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, kind: &str, known: &[&str]) -> String {
        let known = known.iter().filter_map(|path| async_path(path)).map(Into::into).collect();
        readable(path, BodyKind::of(kind), &known).unwrap_or_else(|| path.to_owned())
    }

    #[test]
    fn async_functions_and_blocks_read_as_their_function() {
        assert_eq!(read("app::handler::{closure#0}", "{async_fn#0}", &[]), "app::handler");
        assert_eq!(read("app::handler::<u8>::{closure#0}", "{async_fn#0}<u8>", &[]), "app::handler::<u8>");
        assert_eq!(read("app::handler::{{closure}}", "{async_fn#0}", &[]), "app::handler");
        let handler = "app::handler::{closure#0}";
        let block = "app::handler::{closure#0}::{closure#1}";
        assert_eq!(read(block, "{async_block#0}", &[handler, block]), "app::handler");
        assert_eq!(read("app::handler::{{closure}}::{{closure}}", "{async_block#0}", &[]), "app::handler");
        assert_eq!(
            read("<app::A as app::Service>::call::{closure#0}", "{async_block#0}", &[]),
            "<app::A as app::Service>::call"
        );
    }

    #[test]
    fn closures_stay_closures() {
        assert_eq!(read("app::main::{closure#0}", "{closure#0}", &[]), "app::main::{closure}");
        assert_eq!(read("app::main::{{closure}}", "", &[]), "app::main::{closure}");
        assert_eq!(read("app::main::{closure#0}::{closure#2}", "{closure#2}", &[]), "app::main::{closure}");
        // A closure inside of an async function, and an async block inside of a closure.
        let (handler, routes) = ("app::handler::{closure#0}", "app::routes::{closure#4}::{closure#0}");
        let known = [handler, routes];
        assert_eq!(
            read("app::handler::{closure#0}::{closure#1}", "{closure#0}", &known),
            "app::handler::{closure}"
        );
        assert_eq!(read(routes, "{async_block#0}", &known), "app::routes::{closure}");
        let body = "app::main::{closure#1}::{closure#0}::<i16>";
        assert_eq!(read(body, "{async_closure#0}<i16>", &[]), "app::main::{closure}");
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in [
            "app::main",
            "{closure#0}",
            "{async_fn#0}<u8>",
            "app::block::<app::main::{closure#0}>",
            "<a>",
            ">",
            "",
            "::{closure}",
        ] {
            assert_eq!(read(name, name, &[]), name);
        }
        let inner = "app::main::{closure#0}::inner";
        assert_eq!(read(inner, "inner", &[]), inner);
    }
}
