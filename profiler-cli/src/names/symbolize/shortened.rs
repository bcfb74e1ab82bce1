//! Long names in fewer bytes. In: a name of any length, such as one with the types of a hundred
//! combinators. Out: the same name with `…` for what is deep inside of its brackets.
//!
//! All brackets are closed, so that code that takes generic arguments off still finds them, and the
//! instances of a function still belong together. A short mangled name can stand for megabytes, of
//! which only a bounded part is looked at.

use std::fmt::{self, Write as _};

/// Bytes of the longest function or file name.
pub(super) const MAX_NAME_BYTES: usize = 1024;
/// Bytes of a name that are looked at.
const MAX_SEEN_BYTES: usize = 1 << 20;
/// Levels of brackets that are kept, tried one after the other.
const LEVELS: [usize; 6] = [usize::MAX, 8, 4, 3, 2, 1];

/// Returns the name in at most [`MAX_NAME_BYTES`], with as many levels of brackets as fit.
pub(super) fn shortened(name: &dyn fmt::Display) -> String {
    let mut kept = String::new();
    for level in LEVELS {
        let mut writer = LevelWriter::new(level);
        // An error means that the text is too long, or that the rest of the name is broken.
        let is_whole = write!(writer, "{name}").is_ok();
        kept = writer.finish(is_whole && level == usize::MAX);
        if kept.len() <= MAX_NAME_BYTES {
            return kept;
        }
    }
    // The text outside of all brackets is too long.
    let mut end = kept.floor_char_boundary(MAX_NAME_BYTES - 2 * MARK.len_utf8());
    if let Some(opened) = kept[..end].rfind('<').filter(|at| !kept[*at..end].contains('>')) {
        end = opened;
    }
    kept.truncate(end);
    kept.push(MARK);
    kept
}

/// Stands for the part that was left out.
const MARK: char = '…';

/// Keeps the text that is inside of fewer brackets than `most`.
struct LevelWriter {
    kept: String,
    most: usize,
    level: usize,
    last: char,
    seen: usize,
}

impl LevelWriter {
    fn new(most: usize) -> LevelWriter {
        LevelWriter { kept: String::new(), most, level: 0, last: ' ', seen: 0 }
    }

    /// Returns the text. If it is not the whole text, all brackets are closed.
    fn finish(mut self, is_whole: bool) -> String {
        if self.level > 0 && !is_whole {
            if self.level < self.most {
                self.kept.push(MARK);
            }
            (0..self.level.min(self.most)).for_each(|_| self.kept.push('>'));
        }
        self.kept
    }

    fn add(&mut self, c: char) {
        match c {
            '<' => {
                if self.level < self.most {
                    self.kept.push(c);
                }
                self.level += 1;
                if self.level == self.most {
                    self.kept.push(MARK);
                }
            }
            // The end of an arrow closes nothing.
            '>' if self.last != '-' && self.level > 0 => {
                self.level -= 1;
                if self.level < self.most {
                    self.kept.push(c);
                }
            }
            _ if self.level < self.most => self.kept.push(c),
            _ => {}
        }
        self.last = c;
    }
}

impl fmt::Write for LevelWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.seen += c.len_utf8();
            if self.seen > MAX_SEEN_BYTES || self.kept.len() > MAX_NAME_BYTES {
                return Err(fmt::Error);
            }
            self.add(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::function_name::function_of;

    fn is_balanced(name: &str) -> bool {
        name.matches('<').count() == name.matches('>').count() - name.matches("->").count()
    }

    /// A type of nested combinators: `Map<Map<…<u8, F>…, F>`.
    fn nested(levels: usize) -> String {
        (0..levels).fold("u8".to_owned(), |inner, _| format!("app::combinator::Map<{inner}, fn(u8) -> u8>"))
    }

    #[test]
    fn short_names_stay_as_they_are() {
        let longest = format!("app::{}", "x".repeat(MAX_NAME_BYTES - 5));
        for name in ["app::main", "<app::A<T> as app::B>::go", "operator->", "a < b", "", &longest] {
            assert_eq!(shortened(&name), name);
        }
    }

    #[test]
    fn deep_types_are_left_out_and_the_function_stays() {
        for levels in [30, 100, 3000] {
            for name in [
                format!("app::parse::run::<{}>", nested(levels)),
                format!("app::parse::run::<{}, {}>", nested(levels), nested(3)),
            ] {
                let short = shortened(&name);
                assert!(
                    short.len() <= MAX_NAME_BYTES && short.contains(MARK) && is_balanced(&short),
                    "{short}"
                );
                assert_eq!(function_of(&short), "app::parse::run");
            }
            let method = shortened(&format!("<{} as app::Parser>::parse::<u8>", nested(levels)));
            assert!(method.ends_with(" as app::Parser>::parse::<u8>") && is_balanced(&method), "{method}");
        }
    }

    #[test]
    fn as_many_levels_are_kept_as_fit() {
        let wide = vec!["app::Type<u8>"; 100].join(", ");
        let name = format!("app::run::<app::Pair<{wide}>>");
        assert_eq!(shortened(&name), "app::run::<app::Pair<…>>");
    }

    #[test]
    fn a_long_path_and_endless_types_are_cut() {
        let path = shortened(&"é".repeat(MAX_NAME_BYTES));
        assert!(path.len() <= MAX_NAME_BYTES && path.ends_with(MARK));
        let endless = shortened(&format!("app::run::<{}", "app::A<".repeat(1 << 18)));
        assert_eq!(function_of(&endless), "app::run");
        let mixed = shortened(&format!("{}::run::<u8>::{}", "x".repeat(1015), "y".repeat(100)));
        assert!(mixed.len() <= MAX_NAME_BYTES && is_balanced(&mixed) && mixed.ends_with(MARK), "{mixed}");
    }
}
