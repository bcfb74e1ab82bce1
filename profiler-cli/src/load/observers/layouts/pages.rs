//! The pages on which a block has ever been. In: blocks, and the mappings that exist. Out: how many
//! pages of a range are among them. A bit for each page; memory grows with the addresses that
//! blocks have had, up to a bound.

use foldhash::HashMap;

/// A set of pages.
#[derive(Clone, Debug, Default)]
pub(super) struct PageSet {
    /// The index in `chunks` of each range of [`CHUNK_PAGES`] pages, by the number of the range.
    index: HashMap<u64, u32>,
    chunks: Vec<PageChunk>,
    /// Number and index of the range that was used last.
    last: (u64, u32),
}

/// A bit for each of [`CHUNK_PAGES`] pages.
type PageChunk = [u64; CHUNK_WORDS];

impl PageSet {
    /// Adds the pages from `first` to `last`.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        if last.saturating_sub(first) > MAX_PAGES_AT_ONCE {
            return;
        }
        let mut at = first;
        while at <= last {
            let number = at / CHUNK_PAGES;
            let end = last.min((number + 1) * CHUNK_PAGES - 1);
            let Some(chunk) = self.chunk(number) else { return };
            set_bits(chunk, at % CHUNK_PAGES, end % CHUNK_PAGES);
            at = end + 1;
        }
    }

    /// Returns how many pages from `first` on and before `end` are in the set.
    pub(super) fn count(&self, first: u64, end: u64) -> u64 {
        let overlap = |number: &u64| {
            let start = number * CHUNK_PAGES;
            (first.max(start), end.min(start + CHUNK_PAGES))
        };
        let chunks = self.index.iter().map(|(number, at)| (overlap(number), *at));
        chunks
            .filter(|((from, to), _)| from < to)
            .map(|((from, to), at)| match self.chunks.get(at as usize) {
                Some(chunk) => count_bits(chunk, from % CHUNK_PAGES, (to - 1) % CHUNK_PAGES),
                None => 0,
            })
            .sum()
    }

    /// Removes the pages that lie in none of these ranges, which ascend.
    pub(super) fn retain(&mut self, ranges: &[(u64, u64)]) {
        for (number, at) in &self.index {
            let Some(chunk) = self.chunks.get_mut(*at as usize) else { continue };
            let (start, end) = (number * CHUNK_PAGES, (number + 1) * CHUNK_PAGES);
            let mut kept = [0; CHUNK_WORDS];
            let after = ranges.partition_point(|(_, range_end)| *range_end <= start);
            for (from, to) in ranges[after..].iter().take_while(|(from, _)| *from < end) {
                let (from, to) = ((*from).max(start), (*to).min(end));
                if from < to {
                    set_bits(&mut kept, from % CHUNK_PAGES, (to - 1) % CHUNK_PAGES);
                }
            }
            chunk.iter_mut().zip(kept).for_each(|(word, kept)| *word &= kept);
        }
    }

    #[inline]
    fn chunk(&mut self, number: u64) -> Option<&mut PageChunk> {
        if self.last.0 != number || self.chunks.is_empty() {
            let at = match self.index.get(&number) {
                Some(at) => *at,
                None if self.chunks.len() == MAX_CHUNKS => return None,
                None => {
                    self.chunks.push([0; CHUNK_WORDS]);
                    let at = self.chunks.len() as u32 - 1;
                    self.index.insert(number, at);
                    at
                }
            };
            self.last = (number, at);
        }
        self.chunks.get_mut(self.last.1 as usize)
    }
}

/// Sets the bits from `first` to `last`.
fn set_bits(chunk: &mut PageChunk, first: u64, last: u64) {
    for_each_mask(first, last, |word, mask| chunk[word] |= mask);
}

fn count_bits(chunk: &PageChunk, first: u64, last: u64) -> u64 {
    let mut count = 0;
    for_each_mask(first, last, |word, mask| count += u64::from((chunk[word] & mask).count_ones()));
    count
}

/// Calls `f` with each word that has bits from `first` to `last`, and with the mask of these bits.
#[inline]
fn for_each_mask(first: u64, last: u64, mut f: impl FnMut(usize, u64)) {
    let (first_word, last_word) = ((first / 64) as usize, (last / 64) as usize);
    for word in first_word..=last_word {
        let low = if word == first_word { u64::MAX << (first % 64) } else { u64::MAX };
        let high = if word == last_word { u64::MAX >> (63 - last % 64) } else { u64::MAX };
        f(word, low & high);
    }
}

const CHUNK_WORDS: usize = 64;
/// 16 MiB of pages of 4 KiB.
const CHUNK_PAGES: u64 = 64 * CHUNK_WORDS as u64;
/// 2 TiB of pages of 4 KiB; their chunks take 64 MiB. A forged dump may have blocks anywhere.
const MAX_CHUNKS: usize = 1 << 17;
/// A larger block than 1 TiB is none.
const MAX_PAGES_AT_ONCE: u64 = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_once_and_across_chunks() {
        let mut pages = PageSet::default();
        pages.add(10, 10);
        pages.add(9, 12);
        // From the last 6 pages of a chunk, through a whole one, to the first 3 of the next.
        pages.add(3 * CHUNK_PAGES - 6, 4 * CHUNK_PAGES + 2);
        assert_eq!(pages.count(0, u64::MAX / CHUNK_PAGES), 4 + 6 + CHUNK_PAGES + 3);
        assert_eq!(pages.count(10, 12), 2);
        assert_eq!(pages.count(3 * CHUNK_PAGES - 1, 3 * CHUNK_PAGES + 70), 71);
        assert_eq!(pages.count(12, 12), 0);
        assert_eq!(pages.count(13, 2 * CHUNK_PAGES), 0);
    }

    #[test]
    fn pages_that_are_no_longer_mapped_are_forgotten() {
        let mut pages = PageSet::default();
        pages.add(0, 3 * CHUNK_PAGES - 1);
        pages.retain(&[(5, 8), (100, CHUNK_PAGES + 64), (2 * CHUNK_PAGES, 2 * CHUNK_PAGES + 1)]);
        assert_eq!(pages.count(0, 10), 3);
        assert_eq!(pages.count(0, 3 * CHUNK_PAGES), 3 + (CHUNK_PAGES - 100) + 64 + 1);
        pages.retain(&[]);
        assert_eq!(pages.count(0, 3 * CHUNK_PAGES), 0);
    }

    #[test]
    fn what_cannot_be_a_block_takes_no_memory() {
        let mut pages = PageSet::default();
        pages.add(0, u64::MAX / 2);
        assert_eq!(pages.chunks.len(), 0);
    }
}
