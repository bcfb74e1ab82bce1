//! Readable names from the strings of a binary. In: mangled names. Out: strings that are bounded,
//! printable and shared.
//!
//! Names come from files that are not trusted. So no name may leave this module longer than
//! [`MAX_NAME_BYTES`], or with control characters in it. The same input always gives the same
//! string, whichever thread is first.

use std::borrow::Cow;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::shortened::{MAX_NAME_BYTES, shortened};

/// Bytes of the longest mangled name that is demangled.
const MAX_MANGLED_BYTES: usize = 256 << 10;

/// All strings of one symbolization. Each is held once, and shared by all threads and modules.
#[derive(Default)]
pub(super) struct NameInterner {
    strings: DashMap<Arc<str>, (), RandomState>,
    /// PERF: the few thousand functions of a program occur in hundreds of thousands of frames, and
    /// demangling one name takes a microsecond.
    functions: DashMap<Box<str>, Arc<str>, RandomState>,
}

impl NameInterner {
    /// Returns the shared copy of `text`, bounded and printable.
    pub(super) fn intern(&self, text: &str) -> Arc<str> {
        let text = presentable(text);
        if let Some(known) = self.strings.get(&*text) {
            return Arc::clone(known.key());
        }
        Arc::clone(self.strings.entry(Arc::from(&*text)).or_insert(()).key())
    }

    /// Returns the readable name of a function, from its name in the symbol table or in the debug
    /// info.
    pub(super) fn function(&self, raw: &str) -> Arc<str> {
        if let Some(known) = self.functions.get(raw) {
            return Arc::clone(&known);
        }
        let name = self.intern(&demangle(raw));
        if raw.len() <= MAX_MANGLED_BYTES {
            self.functions.insert(raw.into(), Arc::clone(&name));
        }
        name
    }
}

/// Whether `raw` is a mangled Rust name, which holds the full path of an item.
pub(super) fn is_mangled(raw: &str) -> bool {
    raw.len() <= MAX_MANGLED_BYTES && rustc_demangle::try_demangle(raw).is_ok()
}

/// Returns the readable form of `raw`, without the hash. A name that is not Rust's stays as it is,
/// but loses its symbol version.
pub(super) fn demangle(raw: &str) -> Cow<'_, str> {
    if raw.len() <= MAX_MANGLED_BYTES
        && let Ok(name) = rustc_demangle::try_demangle(raw)
    {
        return Cow::Owned(shortened(&format_args!("{name:#}")));
    }
    // `memcpy@@GLIBC_2.14`: the version matters only to the linker.
    match raw.find('@') {
        Some(at) if at > 0 => Cow::Borrowed(&raw[..at]),
        _ => Cow::Borrowed(raw),
    }
}

/// Shortens `text` to [`MAX_NAME_BYTES`] and replaces control characters, which could control a
/// terminal.
fn presentable(text: &str) -> Cow<'_, str> {
    if text.len() > MAX_NAME_BYTES {
        let short = shortened(&text);
        return Cow::Owned(presentable(&short).into_owned());
    }
    if text.chars().any(char::is_control) {
        let replaced: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        return Cow::Owned(replaced);
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_manglings_lose_their_hash() {
        assert_eq!(demangle("_ZN3app5inner4work17h4822542496beea80E"), "app::inner::work");
        assert_eq!(demangle("_RNvNtCs1234_3app5inner4work"), "app::inner::work");
        assert_eq!(
            demangle("_ZN3app4main28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE"),
            "app::main::{{closure}}"
        );
    }

    #[test]
    fn other_names_stay_as_they_are() {
        assert_eq!(demangle("malloc"), "malloc");
        assert_eq!(demangle("work<app::Foo>"), "work<app::Foo>");
        assert_eq!(demangle("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(demangle("_ZN"), "_ZN");
        assert_eq!(demangle(""), "");
        assert!(!is_mangled("malloc"));
        assert!(is_mangled("_RNvC3app4main"));
    }

    #[test]
    fn long_and_hostile_names_are_bounded() {
        let names = NameInterner::default();
        let long = "é".repeat(MAX_NAME_BYTES);
        let kept = names.intern(&long);
        assert!(kept.len() <= MAX_NAME_BYTES && long.starts_with(kept.trim_end_matches('…')));
        assert_eq!(&*names.intern("a\x1b[31mb\n"), "a?[31mb?");

        // Each back reference doubles its target: a short name that is huge when it is printed.
        let mut bomb = String::from("_RIC1a");
        let mut at = 0;
        for _ in 0..40 {
            let here = bomb.len() - 2;
            bomb.push('T');
            if at == 0 {
                bomb.push_str("hhhhhhhh");
            } else {
                bomb.push_str(&format!("B{}_B{}_", base62(at), base62(at)));
            }
            bomb.push('E');
            at = here;
        }
        bomb.push('E');
        assert!(names.function(&bomb).len() <= MAX_NAME_BYTES);
        assert!(names.function(&format!("_RNvC{}{}", 100_000, "x".repeat(100_000))).len() <= MAX_NAME_BYTES);
    }

    #[test]
    fn one_string_is_held_once() {
        let names = NameInterner::default();
        let first = names.function("_RNvC3app4main");
        let second = names.intern("app::main");
        assert!(Arc::ptr_eq(&first, &second));
    }

    /// Writes a number as back references have it: `_` alone is 0, so `n` is written as `n - 1`.
    /// The caller appends the `_`.
    fn base62(number: usize) -> String {
        const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut number = number - 1;
        let mut text = Vec::new();
        loop {
            text.push(DIGITS[number % 62]);
            number /= 62;
            if number == 0 {
                break;
            }
        }
        text.reverse();
        String::from_utf8(text).expect("digits are ASCII")
    }
}
