//! The bytes of the input that a reader looks at. In: an input that arrives in pieces of any size.
//! Out: a slice of the bytes that come next. Keeps no byte longer than needed, and no more memory
//! than bytes have arrived for.

use std::io::{self, Read};

/// A growing view of the bytes that come next: those at `start..end` of the buffer. All of the
/// buffer is initialised.
#[derive(Debug)]
pub(crate) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the input in front of the window.
    pub(crate) consumed: u64,
    has_ended: bool,
}

impl<R: Read> Window<R> {
    pub(crate) fn new(source: R) -> Window<R> {
        Window { source, buffer: vec![0; READ_STEP], start: 0, end: 0, consumed: 0, has_ended: false }
    }

    /// The bytes that have arrived and were not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Moves the window's start forward, at most to its end.
    pub(crate) fn consume(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.consumed += len as u64;
    }

    /// Reads until the window has at least `len` bytes. Returns false if the input ends before.
    ///
    /// An input that has ended is not read again: each of many headers that claim more bytes than
    /// there are must cost nothing.
    pub(crate) fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.end - self.start < len {
            if self.has_ended {
                return Ok(false);
            }
            self.make_room();
            let room = &mut self.buffer[self.end..];
            match self.source.read(room) {
                Ok(0) => self.has_ended = true,
                Ok(got) => self.end += got.min(room.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Makes room behind `end`.
    ///
    /// Bytes are moved only when the buffer is full. So each [`READ_STEP`] that was read moves less
    /// than one frame. The buffer grows with the bytes that arrive, never with the length that a
    /// header claims.
    fn make_room(&mut self) {
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= std::mem::take(&mut self.start);
        } else {
            self.buffer.resize(self.end + READ_STEP, 0);
        }
    }
}

/// Bytes by which the buffer grows.
const READ_STEP: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_never_make_the_window_grow() {
        let mut window = Window::new(io::repeat(1).take(10 << 20));
        while window.fill(1000).unwrap() {
            window.consume(999);
        }
        assert_eq!(window.buffer.len(), READ_STEP);
        assert_eq!(window.consumed + window.bytes().len() as u64, 10 << 20);
    }

    #[test]
    fn an_input_that_claims_more_bytes_than_it_was_given_room_for_is_not_believed() {
        struct Liar;
        impl Read for Liar {
            fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
                Ok(usize::MAX)
            }
        }
        let mut window = Window::new(Liar);
        assert!(window.fill(READ_STEP + 1).unwrap());
        assert_eq!(window.end, window.buffer.len());
    }
}
