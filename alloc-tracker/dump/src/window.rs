//! The bytes of the input that a reader looks at: they arrive in pieces of any size, and none is kept longer than needed.

use std::io::{self, Read};

/// A growing view of the bytes that come next: those at `start..end` of a buffer that is initialised throughout.
#[derive(Debug)]
pub(crate) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pub(crate) consumed: u64,
    ended: bool,
}

impl<R: Read> Window<R> {
    pub(crate) fn new(source: R) -> Window<R> {
        Window { source, buffer: vec![0; READ_STEP], start: 0, end: 0, consumed: 0, ended: false }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.consumed += len as u64;
    }

    /// Reads until at least `len` bytes are there; false if the input ends before. Once it has ended it is not asked
    /// again: each of many headers that claim more than there is must cost nothing.
    pub(crate) fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.end - self.start < len {
            if self.ended {
                return Ok(false);
            }
            self.make_room();
            let room = &mut self.buffer[self.end..];
            match self.source.read(room) {
                Ok(0) => self.ended = true,
                Ok(got) => self.end += got.min(room.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Makes room behind `end`. Nothing is moved before the buffer is full, so what is moved is less than one frame
    /// for each [`READ_STEP`] that was read; and it grows with what arrives, never with what a header claims.
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
    fn a_source_that_claims_more_than_it_could_give_is_not_believed() {
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
