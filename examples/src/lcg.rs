//! Numbers that look random and are the same in every run, so that every run allocates alike.

/// A linear congruential generator with the multiplier and increment of Knuth's MMIX.
///
/// ```
/// let (mut one, mut other) = (examples::Lcg::new(7), examples::Lcg::new(7));
/// assert_eq!(one.below(100), other.below(100));
/// ```
#[derive(Clone, Debug)]
pub struct Lcg(u64);

impl Lcg {
    /// Starts the sequence that belongs to `seed`.
    ///
    /// ```
    /// let numbers = examples::Lcg::new(1);
    /// ```
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, at least 0 and less than `limit`.
    ///
    /// ```
    /// assert!(examples::Lcg::new(1).below(6) < 6);
    /// ```
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of a power-of-two modulus have short periods.
        (self.0 >> 33) % limit
    }

    /// Shuffles `items` by the numbers of this sequence (Fisher and Yates).
    ///
    /// ```
    /// let mut order = [0, 1, 2, 3];
    /// examples::Lcg::new(1).shuffle(&mut order);
    /// order.sort_unstable();
    /// assert_eq!(order, [0, 1, 2, 3]);
    /// ```
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}
