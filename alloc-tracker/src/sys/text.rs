//! Strings of a fixed room, for messages and paths where nothing may allocate.

use std::ffi::CStr;
use std::fmt;

/// At most `N` bytes; what is too long is cut.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

/// Room for the longest path and its terminating zero.
pub(crate) type PathBuffer = Text<4352>;

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Text<N> {
        Text { bytes: [0; N], len: 0 }
    }

    /// Appends as much as fits, always leaving one zero byte at the end.
    pub(crate) fn push(&mut self, more: &[u8]) {
        let room = (N - 1).saturating_sub(self.len);
        let more = more.get(..room).unwrap_or(more);
        if let Some(place) = self.bytes.get_mut(self.len..self.len + more.len()) {
            place.copy_from_slice(more);
            self.len += more.len();
        }
    }

    /// Ends a message with a newline, over its last byte if there is no room.
    pub(crate) fn end_line(&mut self) {
        self.len = self.len.min(N - 2);
        self.push(b"\n");
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text for the C library; `None` if it has a zero byte inside.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(..=self.len)?).ok()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == N - 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        self.bytes = [0; N];
        self.len = 0;
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push(more.as_bytes());
        if self.is_full() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only what is valid UTF-8, without control characters: it goes to a terminal.
        for chunk in self.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { f.write_str("\u{fffd}")? } else { fmt::Write::write_char(f, c)? }
            }
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn too_long_is_cut_and_stays_a_c_string() {
        let mut text = Text::<8>::new();
        text.push(b"12345");
        text.push(b"6789");
        assert_eq!(text.as_bytes(), b"1234567");
        assert!(text.is_full() && write!(text, "x").is_err());
        assert_eq!(text.as_c_str(), Some(c"1234567"));
        text.end_line();
        assert_eq!(text.as_bytes(), b"123456\n");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let mut text = Text::<16>::new();
        text.push(b"a\x1b[1mb\xff");
        assert_eq!(text.to_string(), "a\u{fffd}[1mb\u{fffd}");
    }
}
