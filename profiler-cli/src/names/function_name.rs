//! The function that a symbol belongs to, as a person would name it.
//!
//! In: demangled symbols. Out: a part of the symbol, without the generic arguments that differ
//! between instances of one function, and without the closures inside the function. Every text
//! gives a result, and none causes a panic.

use crate::names::rust_path::{closing_bracket, opening_bracket};

/// Removes from a symbol the generic arguments at its end and the closures inside the function.
///
/// ```
/// use profiler_cli::names::function_name::function_of;
/// assert_eq!(function_of("app::parse::<u8>::{closure#0}"), "app::parse");
/// assert_eq!(function_of("app::parse::{{closure}}::{{closure}}"), "app::parse");
/// assert_eq!(function_of("push<u8, alloc::alloc::Global>"), "push");
/// assert_eq!(function_of("<app::List<u8>>::push"), "<app::List<u8>>::push");
/// ```
pub fn function_of(symbol: &str) -> &str {
    let mut name = symbol;
    loop {
        let shorter = without_generics(without_closure(name));
        if shorter.len() == name.len() {
            return name;
        }
        name = shorter;
    }
}

/// Removes from a symbol the closures inside the function. The generic arguments stay, so that the
/// instances of a generic function stay apart.
///
/// ```
/// use profiler_cli::names::function_name::instance_of;
/// assert_eq!(instance_of("app::parse::<u8>::{closure#0}"), "app::parse::<u8>");
/// ```
pub fn instance_of(symbol: &str) -> &str {
    let mut name = symbol;
    loop {
        let shorter = without_closure(name);
        if shorter.len() == name.len() {
            return name;
        }
        name = shorter;
    }
}

fn without_closure(name: &str) -> &str {
    let Some(at) = name.rfind("::{") else { return name };
    let last = &name[at + 2..];
    let inside = ["{closure", "{{closure", "{async", "{coroutine"].iter().any(|kind| last.starts_with(kind));
    if inside && last.ends_with('}') { &name[..at] } else { name }
}

fn without_generics(name: &str) -> &str {
    if !name.ends_with('>') || name.ends_with("->") || name.starts_with('<') && closes_at_end(name) {
        return name;
    }
    let Some(at) = opening_bracket(name) else { return name };
    let shorter = name[..at].strip_suffix("::").unwrap_or(&name[..at]);
    if shorter.is_empty() { name } else { shorter }
}

/// Whether the last `>` closes the `<` that opens the name. Such a name is a type without a method.
fn closes_at_end(name: &str) -> bool {
    closing_bracket(name).is_some_and(|at| at + 1 == name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_and_closures_become_their_function() {
        for (symbol, function) in [
            ("app::main", "app::main"),
            ("app::run::<fn(u8) -> u8>", "app::run"),
            ("<app::A<T> as app::B>::go::<u8>::{closure#1}::{closure#0}", "<app::A<T> as app::B>::go"),
            ("app::outer::{closure#0}::inner", "app::outer::{closure#0}::inner"),
            ("app::fetch::{async_fn_env#0}", "app::fetch"),
            ("<app::A as core::ops::Drop>::drop", "<app::A as core::ops::Drop>::drop"),
            ("operator>", "operator>"),
            ("operator->", "operator->"),
            ("<impl>", "<impl>"),
            ("", ""),
        ] {
            assert_eq!(function_of(symbol), function, "{symbol}");
        }
    }
}
