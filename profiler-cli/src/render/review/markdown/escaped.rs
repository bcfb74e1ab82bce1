//! Text in GitHub's Markdown. In: any text. Out: Markdown that shows this text, on one line, and
//! that may stand in a cell of a table.
//!
//! NOTE: special characters become entities, never a backslash and the character. Renderers do not
//! agree about a backslash before a `|` in a table, and an entity never has a meaning in Markdown.

use crate::units::harmless;

/// Returns prose. It mentions nobody, links nothing, and begins no list.
pub(super) fn prose(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    for (at, c) in text.char_indices() {
        let ends_word = text[at + c.len_utf8()..].chars().next().is_none_or(char::is_whitespace);
        let may_begin_list = (at == 0 && matches!(c, '-' | '+' | '='))
            || (at > 0 && at == digits && matches!(c, '.' | ')') && ends_word);
        match c {
            // GitHub looks for mentions and numbers of issues in what Markdown has made, where an
            // entity is its character again. A space without width separates the two.
            '@' | '#' => {
                push_entity(&mut escaped, c);
                escaped.push_str("&#8203;");
            }
            // Emoji such as `:x:` and URLs begin with a colon, but `a: b` should stay readable.
            ':' if !ends_word => push_entity(&mut escaped, c),
            '.' if escaped.ends_with("www") => push_entity(&mut escaped, c),
            c if may_begin_list || is_markup(c) => push_entity(&mut escaped, c),
            c => escaped.push(shown(c)),
        }
    }
    escaped
}

/// Returns a name, such as that of a function, as code.
pub(super) fn code(name: &str) -> String {
    let is_plain = |name: &str| !name.contains(['`', '|', '\\']) && name == name.trim() && !name.is_empty();
    if is_plain(name) {
        return format!("`{}`", name.chars().map(shown).collect::<String>());
    }
    let mut escaped = String::from("<code>");
    for c in name.chars() {
        if c.is_ascii_punctuation() { push_entity(&mut escaped, c) } else { escaped.push(shown(c)) }
    }
    escaped.push_str("</code>");
    escaped
}

/// Returns a link with code as its text. The URL is percent-encoded.
pub(super) fn linked_code(name: &str, url: Option<&str>) -> String {
    url.map_or_else(|| code(name), |url| format!("[{}](<{url}>)", code(name)))
}

/// Returns at most this many characters of a text. A text that is cut ends in `…`.
pub(super) fn at_most(text: &str, characters: usize) -> String {
    if text.chars().nth(characters).is_none() {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}

fn is_markup(c: char) -> bool {
    matches!(c, '|' | '`' | '<' | '>' | '&' | '*' | '_' | '[' | ']' | '\\' | '~' | '$')
}

fn push_entity(escaped: &mut String, c: char) {
    match c {
        '<' => escaped.push_str("&lt;"),
        '>' => escaped.push_str("&gt;"),
        '&' => escaped.push_str("&amp;"),
        c => escaped.push_str(&format!("&#{};", u32::from(c))),
    }
}

fn shown(c: char) -> char {
    if c == '\t' { ' ' } else { harmless(c) }
}
