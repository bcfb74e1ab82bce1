//! Percent-encoding (RFC 3986). In: a relative path, or the beginning of a URL. Out: the same
//! without characters that could end the URL in a page.

/// Returns a path in which only letters, digits, `-`, `_`, `.`, `~` and `/` are left as they are.
pub(super) fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Returns the beginning of a URL. The characters that may be in a URL are left as they are, but
/// those that could end a link in Markdown or a cell of a table are encoded.
pub(super) fn without_delimiters(url: &str) -> String {
    let mut encoded = String::with_capacity(url.len());
    for c in url.chars() {
        let is_safe = c.is_ascii_alphanumeric() || "-_.~/:?#@!$&+,;=%".contains(c);
        if is_safe { encoded.push(c) } else { encoded.push_str(&percent_encoded(c.encode_utf8(&mut [0; 4]))) }
    }
    encoded
}
