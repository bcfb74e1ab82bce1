//! Escaping for every output that is not plain text: HTML, SVG and CSV.
//!
//! In: any text from a dump, a binary or a source file. Out: the same text for one output, in which
//! nothing can become markup, and no character drives a terminal or changes the direction of the
//! text around it. Plain text has [`Safe`](crate::units::Safe).

use std::fmt::{self, Display, Formatter, Write};

use serde::{Serialize, Serializer};

use crate::units::harmless;

/// Text for the contents of an HTML element or for a quoted attribute. Tabs stay tabs.
pub(super) struct Html<'a>(pub(super) &'a str);

impl Display for Html<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match entity(c) {
            Some(entity) => f.write_str(entity),
            None => f.write_char(harmless_but_tab(c)),
        })
    }
}

/// A path of names for the contents of an HTML element. A browser may break the line after each
/// `::`.
pub(super) struct BreakablePath<'a>(pub(super) &'a str);

impl Display for BreakablePath<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.split_inclusive("::").try_for_each(|part| {
            let may_break = if part.ends_with("::") { "<wbr>" } else { "" };
            write!(f, "{}{may_break}", Html(part))
        })
    }
}

/// Text for the contents of an SVG element or for a quoted attribute.
pub(super) struct Xml<'a>(pub(super) &'a str);

impl Display for Xml<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match entity(c) {
            Some(entity) => f.write_str(entity),
            None => f.write_char(xml_character(c)),
        })
    }
}

/// Text for the contents of an SVG element, where an apostrophe needs no escaping. Not for
/// attributes.
pub(super) struct XmlContent<'a>(pub(super) &'a str);

impl Display for XmlContent<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match entity(c).filter(|_| c != '\'') {
            Some(entity) => f.write_str(entity),
            None => f.write_char(xml_character(c)),
        })
    }
}

/// Text for a field of CSV. Characters that control a terminal are replaced, because the file may
/// be shown on one. Tabs stay tabs. The CSV writer adds the quotes.
pub(super) struct CsvText<'a>(pub(super) &'a str);

impl Display for CsvText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(harmless_but_tab(c)))
    }
}

impl Serialize for CsvText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Returns the character, or the replacement character if XML does not have it or if it is not
/// [`harmless`].
pub(super) fn xml_character(c: char) -> char {
    if matches!(c, '\u{fffe}' | '\u{ffff}') { char::REPLACEMENT_CHARACTER } else { harmless(c) }
}

fn harmless_but_tab(c: char) -> char {
    if c == '\t' { c } else { harmless(c) }
}

/// Returns the entity for a character that has a meaning in HTML and XML.
fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Markup, a tab, a control character, an override of the direction, and a noncharacter of
    /// Unicode.
    const HOSTILE: &str = "<a b=\"c\" d='e'>&\t\u{1b}\u{202e}\u{ffff}";

    #[test]
    fn html_keeps_tabs_and_nothing_that_is_markup() {
        let expected = "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\t\u{fffd}\u{fffd}\u{ffff}";
        assert_eq!(Html(HOSTILE).to_string(), expected);
        assert_eq!(BreakablePath("a::<b>::c").to_string(), "a::<wbr>&lt;b&gt;::<wbr>c");
    }

    #[test]
    fn xml_has_neither_markup_nor_characters_that_xml_lacks() {
        let expected = "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}\u{fffd}\u{fffd}\u{fffd}";
        assert_eq!(Xml(HOSTILE).to_string(), expected);
        assert_eq!(XmlContent(HOSTILE).to_string(), expected.replace("&#39;", "'"));
    }

    #[test]
    fn csv_loses_only_what_drives_a_terminal() {
        assert_eq!(CsvText(HOSTILE).to_string(), "<a b=\"c\" d='e'>&\t\u{fffd}\u{fffd}\u{ffff}");
    }
}
