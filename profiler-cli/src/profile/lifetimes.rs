//! How long blocks lived. In: the lifetime of each freed block. Out: their number, their mean, and
//! an estimate of their median, in bounded memory.

use std::fmt;

/// The lifetimes of many blocks, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// Number of blocks that were freed.
    pub freed_blocks: u64,
    /// Number of the freed blocks that were [short-lived](ShortLivedWithin).
    pub short_lived: u64,
    /// Sum of the lifetimes of the freed blocks.
    total_us: u128,
    /// Number of freed blocks by class of lifetime, sorted by class; only classes with blocks.
    classes: Vec<(u16, u64)>,
}

/// How soon a block has to be freed to count as short-lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortLivedWithin {
    /// Within this many heap events of the thread that allocated the block. With 1, the next heap
    /// event of the thread frees it.
    Events(u64),
    /// Within this many microseconds.
    Time(u64),
}

impl Default for ShortLivedWithin {
    /// A thousand events: the blocks of one call of a function that allocates a lot. A number of
    /// events does not depend on how fast the machine is.
    fn default() -> ShortLivedWithin {
        ShortLivedWithin::Events(1000)
    }
}

impl fmt::Display for ShortLivedWithin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShortLivedWithin::Events(events) => write!(f, "{events}events"),
            ShortLivedWithin::Time(us) if us.is_multiple_of(1000) => write!(f, "{}ms", us / 1000),
            ShortLivedWithin::Time(us) => write!(f, "{us}us"),
        }
    }
}

impl Lifetimes {
    /// Adds a freed block that lived this long.
    #[inline]
    pub fn add(&mut self, us: u64, is_short: bool) {
        self.freed_blocks += 1;
        self.short_lived += u64::from(is_short);
        self.total_us += u128::from(us);
        self.add_to_class(class_of(us), 1);
    }

    /// Adds all blocks of other lifetimes.
    pub fn merge(&mut self, other: &Lifetimes) {
        self.freed_blocks += other.freed_blocks;
        self.short_lived += other.short_lived;
        self.total_us += other.total_us;
        for (class, blocks) in &other.classes {
            self.add_to_class(*class, *blocks);
        }
    }

    /// Returns the mean lifetime in nanoseconds; `None` if no block was freed. Each lifetime is
    /// good to a microsecond.
    pub fn mean_ns(&self) -> Option<u64> {
        let mean = (self.total_us * 1000).checked_div(u128::from(self.freed_blocks))?;
        Some(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// Returns an estimate of the median lifetime in nanoseconds; `None` if no block was freed. It
    /// differs from the median by at most [a sixteenth](MEDIAN_ERROR) of it.
    pub fn median_ns(&self) -> Option<u64> {
        let middle = self.freed_blocks.div_ceil(2);
        let mut blocks = 0;
        let class = self.classes.iter().find(|(_, count)| {
            blocks += count;
            blocks >= middle
        })?;
        let (first, last) = bounds_of(class.0);
        Some((first + (last - first) / 2).saturating_mul(1000))
    }

    #[inline]
    fn add_to_class(&mut self, class: u16, blocks: u64) {
        match self.classes.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(at) => self.classes[at].1 += blocks,
            Err(at) => self.classes.insert(at, (class, blocks)),
        }
    }
}

/// The largest relative error of [`Lifetimes::median_ns`].
pub const MEDIAN_ERROR: f64 = 1.0 / 16.0;

/// Each doubling of the lifetime has 2^3 classes.
const CLASS_BITS: u32 = 3;

/// Returns the class of a lifetime. Below 16 us each microsecond has a class of its own; above, a
/// class spans an eighth of its power of two, such as 16 and 17 us, or 1024 to 1151 us.
#[inline]
fn class_of(us: u64) -> u16 {
    let exponent = (63 - (us | 1).leading_zeros()).saturating_sub(CLASS_BITS);
    // The exponent in steps of eight classes, then the highest four bits of the lifetime.
    ((exponent << CLASS_BITS) + (us >> exponent) as u32) as u16
}

/// Returns the shortest and the longest lifetime of a class.
fn bounds_of(class: u16) -> (u64, u64) {
    let class = u32::from(class);
    let exponent = (class >> CLASS_BITS).saturating_sub(1);
    let first = u64::from(class - (exponent << CLASS_BITS)) << exponent;
    (first, first + ((1 << exponent) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_each_other_without_gap_or_overlap() {
        let mut next = 0;
        for class in 0..class_of(u64::MAX / 1000) {
            let (first, last) = bounds_of(class);
            assert_eq!(first, next, "{class}");
            assert_eq!((class_of(first), class_of(last)), (class, class));
            assert!((last - first) as f64 <= first as f64 * 2.0 * MEDIAN_ERROR, "{class}");
            next = last + 1;
        }
        assert_eq!((bounds_of(class_of(15)), bounds_of(class_of(17))), ((15, 15), (16, 17)));
        assert_eq!(bounds_of(class_of(1100)), (1024, 1151));
    }

    #[test]
    fn mean_and_median_are_those_of_the_blocks() {
        let mut lifetimes = Lifetimes::default();
        assert_eq!((lifetimes.mean_ns(), lifetimes.median_ns()), (None, None));
        for us in [3, 1, 2] {
            lifetimes.add(us, us <= 2);
        }
        assert_eq!((lifetimes.mean_ns(), lifetimes.median_ns()), (Some(2000), Some(2000)));
        let mut others = Lifetimes::default();
        others.add(1_000_000, false);
        others.add(2_000_000, false);
        others.add(2_000_000, false);
        lifetimes.merge(&others);
        // Of 1, 2, 3, 1000000, 2000000 and 2000000 the third is the median.
        assert_eq!((lifetimes.freed_blocks, lifetimes.short_lived), (6, 2));
        assert_eq!((lifetimes.mean_ns(), lifetimes.median_ns()), (Some(833_334_333), Some(3000)));
        lifetimes.add(3_000_000, false);
        let median = lifetimes.median_ns().unwrap() as f64 / 1e9;
        assert!((median - 1.0).abs() <= MEDIAN_ERROR, "{median}");
    }
}
