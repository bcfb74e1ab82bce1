//! The shell of every HTML page: head, style, script and keys.
//!
//! In: a title, and a function that writes the body. Out: one file, which never makes a browser use
//! the network. The content security policy lets the embedded style and script through and nothing
//! else. A page works without its script, except for the filter and the keys. All text goes through
//! [`escape`](super::escape).

use std::io::{self, Write};

use super::escape::Html;

/// The parts of the shell that differ between pages.
pub(super) struct Page<'a> {
    /// Title of the window. The shell escapes it.
    pub(super) title: &'a str,
    /// Id of the element with the content: the first link of the page skips the navigation.
    pub(super) content_id: &'static str,
    /// Name of the content in the text of that link, such as `the tables`.
    pub(super) content_name: &'static str,
}

impl Page<'_> {
    /// Writes the shell, and between its two halves the body by `write_body`.
    ///
    /// # Errors
    /// Returns the first error of `out`.
    pub(super) fn write(
        &self,
        out: &mut dyn Write,
        write_body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let Page { title, content_id, content_name } = self;
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '{STYLE_HASH}'; \
             script-src '{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#{content_id}\">Skip to {content_name}</a>\n",
            Html(title)
        )?;
        write_body(out)?;
        writeln!(out, "{KEYS}\n<script>{SCRIPT}</script>\n</body>\n</html>")
    }
}

pub(super) const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");
/// The dialog that explains the keys.
const KEYS: &str = include_str!("html/keys.html");

/// Hashes by which the content security policy recognises the style and the script. After a change
/// of these files, a test fails and prints the new hash.
const STYLE_HASH: &str = "sha256-v11GeCZc43IB4YcUVwGjjsNJ+0sheNMl2E/ZoO3ettY=";
const SCRIPT_HASH: &str = "sha256-H3cExvMZcUeLUoaEa4dz8um/olNtC76wScm8fmIlsGQ=";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn page(title: &str) -> String {
        let mut out = Vec::new();
        let page = Page { title, content_id: "here", content_name: "what matters" };
        page.write(&mut out, |out| out.write_all(b"<main id=\"here\"></main>\n")).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_policy_lets_the_embedded_style_and_script_through_and_nothing_else() {
        let page = page("app");
        for (content, hash, tag) in [(STYLE, STYLE_HASH, "style"), (SCRIPT, SCRIPT_HASH, "script")] {
            let embedded = between(&page, &format!("<{tag}>"), &format!("</{tag}>"));
            assert_eq!(embedded, content, "{tag}");
            assert_eq!(hash, format!("sha256-{}", sha256_base64(content)), "of {tag}");
        }
        let policy = between(&page, "Policy\" content=\"", "\"");
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn the_shell_asks_the_network_for_nothing() {
        let page = page("app");
        for request in ["http://", "https://", "//cdn", "url(", "@import", "fetch(", " src="] {
            assert!(!page.contains(request), "{request}");
        }
    }

    #[test]
    fn the_title_is_no_markup_and_the_first_link_leads_to_the_content() {
        let page = page("</title><script>");
        assert!(page.contains("<title>&lt;/title&gt;&lt;script&gt;</title>"));
        assert!(page.contains(
            "<body>\n<a class=\"skip\" href=\"#here\">Skip to what matters</a>\n<main id=\"here\">"
        ));
    }

    /// Hashes with a program that shares no code with this one.
    fn sha256_base64(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        std::fs::write(&path, text).unwrap();
        let output = Command::new("sha256sum").arg(&path).output().expect("coreutils");
        let hex = String::from_utf8(output.stdout).unwrap();
        let bits: Vec<u8> = hex
            .bytes()
            .take(64)
            .flat_map(|digit| {
                let digit = (digit as char).to_digit(16).unwrap();
                (0..4).rev().map(move |bit| (digit >> bit & 1) as u8)
            })
            .collect();
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let sextets = bits.chunks(6).map(|chunk| {
            let value = (0..6).fold(0, |value, bit| value << 1 | chunk.get(bit).copied().unwrap_or(0));
            letters[usize::from(value)] as char
        });
        // 256 bits are 42 sextets and 4 bits: 43 letters, and one to fill the last four up.
        sextets.collect::<String>() + "="
    }

    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        text.split_once(start).unwrap().1.split_once(end).unwrap().0
    }
}
