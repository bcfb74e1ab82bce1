//! Finds the ring with the oldest entry, by a binary heap with the oldest entry of each ring. In:
//! rings, with keys of their oldest entries. Out: the ring with the smallest key. The heap is in
//! memory of the caller; never allocates.

use crate::base::sys::Plain;

/// A ring and the key of its oldest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Candidate {
    /// The entry with the smallest key comes first.
    pub(super) key: u64,
    /// Index of the ring.
    pub(super) ring: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Candidate {}

/// The candidates of all rings, as a heap with the smallest key at its root. `items` has room for
/// one candidate of each ring.
pub(super) struct Candidates<'a> {
    items: &'a mut [Candidate],
    len: usize,
}

impl Candidates<'_> {
    pub(super) fn new(items: &mut [Candidate]) -> Candidates<'_> {
        Candidates { items, len: 0 }
    }

    /// Adds a candidate.
    pub(super) fn push(&mut self, candidate: Candidate) {
        let mut at = self.len;
        let Some(slot) = self.items.get_mut(at) else { return };
        *slot = candidate;
        self.len += 1;
        while at > 0 && self.items[at].key < self.items[(at - 1) / 2].key {
            self.items.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    /// Returns the smallest key.
    pub(super) fn first_key(&self) -> Option<u64> {
        (self.len > 0).then(|| self.items[0].key)
    }

    /// Removes and returns the candidate with the smallest key.
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        let first = *self.items.get(..self.len)?.first()?;
        self.len -= 1;
        self.items.swap(0, self.len);
        let mut at = 0;
        loop {
            let below = 2 * at + 1;
            if below >= self.len {
                return Some(first);
            }
            let right = below + 1;
            let smaller =
                if right < self.len && self.items[right].key < self.items[below].key { right } else { below };
            if self.items[at].key <= self.items[smaller].key {
                return Some(first);
            }
            self.items.swap(at, smaller);
            at = smaller;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_key_comes_first() {
        let mut room = [Candidate { key: 0, ring: 0 }; 200];
        let mut candidates = Candidates::new(&mut room);
        let mut state = 12345u64;
        let mut keys: Vec<u64> = Vec::new();
        for ring in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            keys.push(state >> 56);
            candidates.push(Candidate { key: state >> 56, ring });
        }
        keys.sort_unstable();
        for key in keys {
            assert_eq!(candidates.first_key(), Some(key));
            assert_eq!(candidates.pop().map(|candidate| candidate.key), Some(key));
        }
        assert_eq!(candidates.pop(), None);
    }
}
