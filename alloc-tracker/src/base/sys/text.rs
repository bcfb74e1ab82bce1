//! Strings of a fixed capacity, for messages and paths where nothing may allocate.
//!
//! In: bytes. Out: bytes, C strings, and text that is safe to show on a terminal. A text that does
//! not fit is cut.

use std::ffi::CStr;
use std::fmt;

use super::Mapping;

/// A string of at most `N - 1` bytes; a longer one is cut.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

/// A path, with room for the longest that the kernel accepts. Its bytes are in mapped memory,
/// because the host's threads may have little stack.
#[derive(Debug)]
pub(crate) struct PathBuffer {
    memory: Option<Mapping>,
    len: usize,
}

/// Bytes for the longest path (4096), a suffix that the tracker adds and the terminating zero.
const PATH_CAPACITY: usize = 4352;

impl PathBuffer {
    pub(crate) const fn new() -> PathBuffer {
        PathBuffer { memory: None, len: 0 }
    }

    /// Returns a path with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> PathBuffer {
        let mut path = PathBuffer::new();
        path.push(bytes);
        path
    }

    /// Appends as much as fits; nothing if there is no memory.
    pub(crate) fn push(&mut self, more: &[u8]) {
        if self.memory.is_none() {
            self.memory = Mapping::anonymous(PATH_CAPACITY).ok();
        }
        let Some(memory) = &mut self.memory else { return };
        let more = more.get(..PATH_CAPACITY - 1 - self.len).unwrap_or(more);
        if let Some(tail) = memory.bytes_mut().get_mut(self.len..self.len + more.len()) {
            tail.copy_from_slice(more);
            self.len += more.len();
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.memory.as_ref().and_then(|memory| memory.bytes().get(..self.len)).unwrap_or_default()
    }

    /// Returns the path for the C library; `None` if it was cut, is empty, or has a zero byte
    /// inside.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        let bytes = self.memory.as_ref()?.bytes().get(..=self.len)?;
        if self.len == 0 || self.len == PATH_CAPACITY - 1 {
            None
        } else {
            CStr::from_bytes_with_nul(bytes).ok()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.bytes_mut().fill(0);
        }
        self.len = 0;
    }
}

impl fmt::Display for PathBuffer {
    /// Writes the path for a terminal. With a precision, as in `{path:.600}`, writes at most that
    /// many bytes of it: the rest of the message must fit into the line as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.precision().and_then(|max| self.as_bytes().get(..max)) {
            Some(start) if start.len() < self.len => {
                write_for_terminal(start, f)?;
                f.write_str("…")
            }
            _ => write_for_terminal(self.as_bytes(), f),
        }
    }
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Text<N> {
        Text { bytes: [0; N], len: 0 }
    }

    /// Appends as much as fits. The last byte always stays zero.
    pub(crate) fn push(&mut self, more: &[u8]) {
        let room = (N - 1).saturating_sub(self.len);
        let more = more.get(..room).unwrap_or(more);
        if let Some(tail) = self.bytes.get_mut(self.len..self.len + more.len()) {
            tail.copy_from_slice(more);
            self.len += more.len();
        }
    }

    /// Ends a message with a newline. If there is no room, the newline replaces the last byte.
    pub(crate) fn end_line(&mut self) {
        self.len = self.len.min(N - 2);
        self.push(b"\n");
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Returns the text for the kernel; `None` if it has a zero byte inside.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(..=self.len)?).ok()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push(more.as_bytes());
        if self.len == N - 1 { Err(fmt::Error) } else { Ok(()) }
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_for_terminal(self.as_bytes(), f)
    }
}

/// Writes the bytes as text that is safe for a terminal: control characters and invalid UTF-8 are
/// replaced.
fn write_for_terminal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            fmt::Write::write_char(f, if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })?;
        }
        if !chunk.invalid().is_empty() {
            f.write_str("\u{fffd}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn a_text_that_is_too_long_is_cut() {
        let mut text = Text::<8>::new();
        text.push(b"12345");
        text.push(b"6789");
        assert_eq!(text.as_bytes(), b"1234567");
        assert!(write!(text, "x").is_err());
        text.end_line();
        assert_eq!(text.as_bytes(), b"123456\n");
    }

    #[test]
    fn a_path_that_was_cut_is_no_c_string() {
        let mut path = PathBuffer::of(b"/a");
        path.push(b"/b");
        assert_eq!(path.as_c_str(), Some(c"/a/b"));
        path.push(&[b'c'; 2 * PATH_CAPACITY]);
        assert_eq!((path.as_bytes().len(), path.as_c_str()), (PATH_CAPACITY - 1, None));
        path.clear();
        assert_eq!((path.as_bytes(), path.as_c_str()), (&b""[..], None));
        assert_eq!(PathBuffer::of(b"a\0b").as_c_str(), None);
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let mut text = Text::<16>::new();
        text.push(b"a\x1b[1mb\xff");
        assert_eq!(text.to_string(), "a\u{fffd}[1mb\u{fffd}");
    }
}
