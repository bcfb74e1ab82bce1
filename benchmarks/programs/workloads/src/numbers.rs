//! Numbers that look random and are the same in every run.

/// A linear congruential generator with the multiplier and increment of Knuth's MMIX.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Starts the sequence that belongs to `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, which is less than `limit`. `limit` must not be 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of a power-of-two modulus have short periods.
        (self.0 >> 33) as usize % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_sequence() {
        let take = |seed| {
            let mut numbers = Numbers::new(seed);
            [(); 8].map(|()| numbers.below(1000))
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }
}
