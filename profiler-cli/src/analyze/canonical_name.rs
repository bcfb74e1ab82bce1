//! Names of functions that survive a new build. In: a demangled symbol. Out: its canonical name.

use crate::names::rust_path::closing_bracket;

/// Returns a function's name without the parts that differ between builds, or between instances of
/// one function.
///
/// | taken off | example | becomes |
/// | --- | --- | --- |
/// | hash of the symbol | `app::main::h0123456789abcdef` | `app::main` |
/// | hash of a crate | `app[9f86d081884c7d65]::main` | `app::main` |
/// | generic arguments | `<app::List<u8>>::push::<u16>` | `<app::List>::push` |
/// | numbers of closures and `impl` blocks | `app::main::{closure#2}` | `app::main::{closure}` |
///
/// A closure keeps a name of its own, apart from that of its function. In the names of legacy
/// symbols `{{closure}}` is `{closure}` too. A name whose brackets do not match keeps everything
/// from the first of these brackets on.
///
/// ```
/// use profiler_cli::analyze::canonical_name::canonical_function;
/// let symbol = "<app::A<T> as app::B>::go::<u8>::{closure#1}";
/// assert_eq!(canonical_function(symbol), "<app::A as app::B>::go::{closure}");
/// ```
pub fn canonical_function(symbol: &str) -> String {
    let mut rest = without_symbol_hash(symbol);
    let mut name = String::with_capacity(rest.len());
    while let Some(c) = rest.chars().next() {
        let behind = &rest[c.len_utf8()..];
        match c {
            '<' if opens_generics(&name, behind) => {
                let Some(closing) = closing_bracket(rest) else {
                    name.push_str(rest);
                    return name;
                };
                name.truncate(name.strip_suffix("::").unwrap_or(&name).len());
                rest = &rest[closing + 1..];
                continue;
            }
            '[' if name.ends_with(is_part_of_a_word) => {
                if let Some(length) = length_of_crate_hash(rest) {
                    rest = &rest[length..];
                    continue;
                }
                name.push(c);
            }
            '#' => {
                let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
                if digits > 0 && behind[digits..].starts_with('}') {
                    rest = &behind[digits..];
                    continue;
                }
                name.push(c);
            }
            // `{{closure}}`: one bracket of each pair stays.
            '{' | '}' if behind.starts_with(c) => {}
            _ => name.push(c),
        }
        rest = behind;
    }
    name
}

/// Returns a legacy symbol without `::h` and 16 hexadecimal digits at its end.
fn without_symbol_hash(symbol: &str) -> &str {
    let hash = |(name, hash)| is_hexadecimal(hash, 16..=16).then_some(name);
    symbol.rsplit_once("::h").and_then(hash).unwrap_or(symbol)
}

/// Whether a `<` after `name` opens generic arguments. It does if it follows a word (`List<u8>`) or
/// a path (`push::<u8>`). It does not if it opens a type (`<List as Trait>`) or an `impl` block of
/// a legacy symbol (`app::<impl app::Trait for u8>::go`), or if it belongs to the name of a C++
/// operator (`operator<`).
fn opens_generics(name: &str, behind: &str) -> bool {
    let is_operator = name.ends_with("operator") || name.ends_with("operator<");
    let is_impl = name.ends_with("::") && behind.starts_with("impl ");
    !is_operator && !is_impl && (name.ends_with("::") || name.ends_with(is_part_of_a_word))
}

/// Returns the length of the hash of a crate, with its brackets, if the text starts with one.
fn length_of_crate_hash(text: &str) -> Option<usize> {
    let (hash, _) = text.strip_prefix('[')?.split_once(']')?;
    is_hexadecimal(hash, 1..=16).then_some(hash.len() + 2)
}

fn is_hexadecimal(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_part_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_and_instances_of_a_function_have_one_name() {
        for (symbol, name) in [
            ("app::main", "app::main"),
            ("app::main::h0123456789abcdef", "app::main"),
            ("app::main::h0123456789abcde", "app::main::h0123456789abcde"),
            ("app[9f86d081884c7d65]::run::<u8>", "app::run"),
            ("<app[1f]::List<u8>>::push::<u16>", "<app::List>::push"),
            ("push<u8, alloc::alloc::Global>", "push"),
            ("app::run::<fn(u8) -> alloc::vec::Vec<u8>>", "app::run"),
            ("app::run::<fn(u8) -> u8>::{closure#0}::{closure#11}", "app::run::{closure}::{closure}"),
            ("app::run::{{closure}}::h00000000000000ff", "app::run::{closure}"),
            ("app::{impl#3}::go", "app::{impl}::go"),
            ("app::fetch::{async_fn_env#0}", "app::fetch::{async_fn_env}"),
            ("<app::A<T> as app::B<U>>::go", "<app::A as app::B>::go"),
            ("<<app::A<u8> as app::B>::Out as app::C>::go", "<<app::A as app::B>::Out as app::C>::go"),
            ("<&mut [app::A<u8>; 8] as app::B>::go", "<&mut [app::A; 8] as app::B>::go"),
            ("<[u8; 8] as app::B>::go", "<[u8; 8] as app::B>::go"),
            ("app::<impl app::B<u8> for u16>::go", "app::<impl app::B for u16>::go"),
            ("<dyn app::B<Out = u8>>::go", "<dyn app::B>::go"),
            ("std::vector<int, std::allocator<int> >::push_back(int&&)", "std::vector::push_back(int&&)"),
            ("main::{lambda(int)#1}::operator()", "main::{lambda(int)}::operator()"),
            ("operator<", "operator<"),
            ("operator<<", "operator<<"),
            ("a#1", "a#1"),
            ("", ""),
        ] {
            assert_eq!(canonical_function(symbol), name, "{symbol}");
        }
    }

    #[test]
    fn a_canonical_name_is_its_own_canonical_name() {
        for symbol in ["<app::A<T> as app::B<U>>::go::<u8>", "app::run::{{closure}}", "app[1f]::main"] {
            let name = canonical_function(symbol);
            assert_eq!(canonical_function(&name), name);
        }
    }

    #[test]
    fn broken_and_hostile_names_are_no_panic() {
        for (symbol, name) in [
            ("app::run::<u8", "app::run::<u8"),
            (">>><", ">>><"),
            ("a[", "a["),
            ("a[1f", "a[1f"),
            ("{{{{", "{"),
            ("::h", "::h"),
            ("é<ü>ß#1}", "éß}"),
            ("a::<", "a::<"),
        ] {
            assert_eq!(canonical_function(symbol), name, "{symbol}");
        }
        let deep = "a<".repeat(100_000);
        assert_eq!(canonical_function(&deep), deep);
    }
}
