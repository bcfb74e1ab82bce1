//! Names of functions as a person means them. In: demangled symbols. Out: the same without what differs between
//! instances of one generic function and between a function and its closures.

/// The function that a symbol belongs to: generic arguments at its end and closures inside it are taken off.
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

/// The same, but instances of a generic function stay apart: only closures are taken off.
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
    let mut depth = 0usize;
    for (at, c) in name.char_indices().rev() {
        match c {
            // The arrow of a function type closes nothing.
            '>' if !name[..at].ends_with('-') => depth += 1,
            '<' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let shorter = name[..at].strip_suffix("::").unwrap_or(&name[..at]);
            return if shorter.is_empty() { name } else { shorter };
        }
    }
    name
}

/// Whether the bracket that opens the name is the one that closes it: a bare type, without a method.
fn closes_at_end(name: &str) -> bool {
    let mut depth = 0usize;
    for (at, c) in name.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if !name[..at].ends_with('-') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1 == name.len();
        }
    }
    false
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
