//! Strings of a fixed room, for messages and paths where nothing may allocate.

use std::ffi::CStr;
use std::fmt;

use super::Mapping;

/// At most `N` bytes; what is too long is cut.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

/// A path: as [`Text`], with room for the longest there is, and in mapped memory, because the threads of the host may
/// have little stack.
#[derive(Debug)]
pub(crate) struct PathBuffer {
    memory: Option<Mapping>,
    len: usize,
}

/// Room for the longest path, a suffix of ours and the terminating zero.
const PATH_ROOM: usize = 4352;

impl PathBuffer {
    pub(crate) const fn new() -> PathBuffer {
        PathBuffer { memory: None, len: 0 }
    }

    /// A path with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> PathBuffer {
        let mut path = PathBuffer::new();
        path.push(bytes);
        path
    }

    /// Appends as much as fits; nothing if there is no memory.
    pub(crate) fn push(&mut self, more: &[u8]) {
        if self.memory.is_none() {
            self.memory = Mapping::anonymous(PATH_ROOM).ok();
        }
        let Some(memory) = &mut self.memory else { return };
        let more = more.get(..PATH_ROOM - 1 - self.len).unwrap_or(more);
        if let Some(place) = memory.bytes_mut().get_mut(self.len..self.len + more.len()) {
            place.copy_from_slice(more);
            self.len += more.len();
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.memory.as_ref().and_then(|memory| memory.bytes().get(..self.len)).unwrap_or_default()
    }

    /// The path for the C library; `None` if it was cut, or is empty, or has a zero byte inside.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        let bytes = self.memory.as_ref()?.bytes().get(..=self.len)?;
        if self.len == 0 || self.len == PATH_ROOM - 1 { None } else { CStr::from_bytes_with_nul(bytes).ok() }
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
    /// With a precision, as in `{path:.600}`, at most so many bytes: what follows in the line must have room.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.precision().and_then(|most| self.as_bytes().get(..most)) {
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

/// Only what is valid UTF-8, without control characters: it goes to a terminal.
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
    fn too_long_is_cut() {
        let mut text = Text::<8>::new();
        text.push(b"12345");
        text.push(b"6789");
        assert_eq!(text.as_bytes(), b"1234567");
        assert!(write!(text, "x").is_err());
        text.end_line();
        assert_eq!(text.as_bytes(), b"123456\n");
    }

    #[test]
    fn a_path_that_was_cut_is_none() {
        let mut path = PathBuffer::of(b"/a");
        path.push(b"/b");
        assert_eq!(path.as_c_str(), Some(c"/a/b"));
        path.push(&[b'c'; 2 * PATH_ROOM]);
        assert_eq!((path.as_bytes().len(), path.as_c_str()), (PATH_ROOM - 1, None));
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
