//! The identity of a module's code. In: the code's length, and bytes of it. Out: [`CodeIdentity`].
//! The recorder computes it when a file is mapped, and a reader when it has found a file that may
//! be the same. Never allocates.
//!
//! Long code is not read as a whole. The checksum is that of [`SAMPLES`] samples of [`SAMPLE_LEN`]
//! bytes, the first one at the beginning, the last one at the end, and the others evenly between:
//!
//! ```text
//! code      |####|.......|####|.......|####|        sample i of n begins at i * (len - SAMPLE_LEN) / (n - 1)
//! ```

/// The number of samples of long code.
pub const SAMPLES: u64 = 32;
/// The length of a sample in bytes.
pub const SAMPLE_LEN: usize = 4096;

/// What tells the code of a file from that of another file, or of another build of the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CodeIdentity {
    /// Bytes that the file has of its first executable segment.
    pub code_bytes: u64,
    /// CRC-32 of the samples of that segment.
    pub crc: u32,
    /// Length of the whole file in bytes; 0 if it is not known.
    pub file_bytes: u64,
}

impl CodeIdentity {
    /// Whether both are the same code. A file that was stripped, or to which debug info was added,
    /// has the same code.
    #[must_use]
    pub fn is_same_code(&self, other: &CodeIdentity) -> bool {
        (self.code_bytes, self.crc) == (other.code_bytes, other.crc)
    }
}

/// Computes the checksum of samples of code.
///
/// ```
/// use alloc_dump::code::CodeSamples;
///
/// let code = vec![0x90; 1 << 20];
/// let mut samples = CodeSamples::new(code.len() as u64);
/// while let Some((offset, len)) = samples.next_range() {
///     samples.add(&code[offset as usize..][..len]);
/// }
/// assert_ne!(samples.checksum(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct CodeSamples {
    len: u64,
    next: u64,
    hasher: crc32fast::Hasher,
}

impl CodeSamples {
    /// Returns the samples of code of this length.
    #[must_use]
    pub fn new(len: u64) -> CodeSamples {
        CodeSamples { len, next: 0, hasher: crc32fast::Hasher::new() }
    }

    /// Returns offset and length of the next range whose bytes are to be added; `None` after the
    /// last one.
    pub fn next_range(&mut self) -> Option<(u64, usize)> {
        let sample = SAMPLE_LEN as u64;
        let (next, is_long) = (self.next, self.len > SAMPLES * sample);
        self.next += 1;
        if is_long {
            let gaps = SAMPLES - 1;
            let offset = u128::from(next) * u128::from(self.len - sample) / u128::from(gaps);
            return (next < SAMPLES).then_some((offset as u64, SAMPLE_LEN));
        }
        let offset = next * sample;
        (offset < self.len).then(|| (offset, (self.len - offset).min(sample) as usize))
    }

    /// Adds bytes of the last range, in order.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Returns the CRC-32 of all bytes that were added.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.hasher.clone().finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(len: u64) -> Vec<(u64, usize)> {
        let mut samples = CodeSamples::new(len);
        std::iter::from_fn(|| samples.next_range()).collect()
    }

    #[test]
    fn short_code_is_read_as_a_whole() {
        assert_eq!(ranges(0), []);
        assert_eq!(ranges(5), [(0, 5)]);
        assert_eq!(ranges(4097), [(0, 4096), (4096, 1)]);
        let all: usize = ranges(32 * 4096).iter().map(|(_, len)| len).sum();
        assert_eq!(all, 32 * 4096);
    }

    #[test]
    fn samples_of_long_code_reach_from_its_beginning_to_its_end() {
        for len in [32 * 4096 + 1, 1 << 20, u64::MAX] {
            let ranges = ranges(len);
            assert_eq!((ranges.len(), ranges[0].0, ranges[31].0), (32, 0, len - 4096));
            assert!(ranges.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
