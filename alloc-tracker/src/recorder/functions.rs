//! Annotated functions. In: path, file and lines of a function, from `#[profile]`. Out: the number
//! of the function in a recording, and its record in the dump. Never locks, never allocates.

use std::sync::atomic::{AtomicU64, Ordering};

use alloc_dump::record;

use crate::base::epoch::RecordingId;

/// An annotated function. It gets a number in a recording when it first runs there.
#[derive(Debug)]
pub(crate) struct AnnotatedFunction {
    name: &'static str,
    file: &'static str,
    start_line: u32,
    end_line: u32,
    number: NumberInRecording,
}

impl AnnotatedFunction {
    /// Describes the function with the path `name`, which extends from `start_line` to `end_line`
    /// of `file`.
    pub(crate) const fn new(
        name: &'static str,
        file: &'static str,
        start_line: u32,
        end_line: u32,
    ) -> AnnotatedFunction {
        AnnotatedFunction { name, file, start_line, end_line, number: NumberInRecording::none() }
    }

    /// Returns the function's number in this recording, if it has one.
    #[inline(always)]
    pub(super) fn number_in(&self, recording: RecordingId) -> Option<u32> {
        self.number.get(recording)
    }

    /// Gives the function a number in this recording.
    pub(super) fn set_number(&self, recording: RecordingId, number: u32) {
        self.number.set(recording, number);
    }

    /// Returns the function's record in the dump.
    pub(super) fn record(&self, id: u32) -> record::Function<'_> {
        record::Function {
            id,
            name: self.name.as_bytes(),
            file: self.file.as_bytes(),
            start_line: self.start_line,
            end_line: self.end_line,
        }
    }
}

/// A number that is valid in one recording, in one word: the recording's id in the upper half, the
/// number in the lower.
#[derive(Debug)]
struct NumberInRecording(AtomicU64);

impl NumberInRecording {
    /// Returns a number that is valid in no recording: no id is 0.
    const fn none() -> NumberInRecording {
        NumberInRecording(AtomicU64::new(0))
    }

    #[inline(always)]
    fn get(&self, recording: RecordingId) -> Option<u32> {
        let word = self.0.load(Ordering::Acquire);
        ((word >> 32) as u32 == recording.get()).then_some(word as u32)
    }

    fn set(&self, recording: RecordingId, number: u32) {
        self.0.store(u64::from(recording.get()) << 32 | u64::from(number), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_valid_in_its_own_recording_only() {
        let function = AnnotatedFunction::new("app::run", "src/main.rs", 1, 9);
        let [first, second] = [0, 1].map(|count| RecordingId::after(count).unwrap());
        assert_eq!(function.number_in(first), None);
        function.set_number(first, 7);
        assert_eq!((function.number_in(first), function.number_in(second)), (Some(7), None));
        function.set_number(second, 3);
        assert_eq!((function.number_in(first), function.number_in(second)), (None, Some(3)));
    }
}
