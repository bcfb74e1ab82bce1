//! What a read takes here and now. In: nothing. Out: nanoseconds, by the size of what is read from. On a virtual machine other guests
//! take the caches and the memory, and nanoseconds of one day are then not those of another: this tells the days apart.

use std::hint::black_box;
use std::time::Instant;

use fastrand::Rng;
use serde::Serialize;

/// What a read takes that depends on the one before it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    /// All that is read from, in any order.
    pub(crate) bytes: usize,
    pub(crate) ns: f64,
}

/// Of what fits into the first cache of most processors, into the second, into the third, and into none.
const SIZES: [usize; 4] = [16 << 10, 512 << 10, 8 << 20, 128 << 20];
const READS: usize = 1 << 20;

/// A cache line, that says which one comes next.
type Cell = [usize; 8];

/// Measures for a second or two.
pub(crate) fn latencies() -> Vec<Latency> {
    SIZES.map(|bytes| Latency { bytes, ns: latency(&cycle(bytes / size_of::<Cell>())) }).to_vec()
}

/// One line of text.
pub(crate) fn in_words(latencies: &[Latency]) -> String {
    let each = latencies.iter().map(|latency| format!("{:.1} ns in {}", latency.ns, size(latency.bytes)));
    format!("a read that depends on the one before takes {}", each.collect::<Vec<_>>().join(", "))
}

fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

fn latency(cells: &[Cell]) -> f64 {
    let read = |from: usize, reads: usize| (0..reads).fold(from, |at, _| cells[at][0]);
    // Once around, so that whatever fits into a cache is in it.
    let from = black_box(read(0, cells.len()));
    let before = Instant::now();
    black_box(read(from, READS));
    before.elapsed().as_nanos() as f64 / READS as f64
}

/// Cells that lead through all of them in an order that no processor foresees (Sattolo's algorithm).
fn cycle(cells: usize) -> Vec<Cell> {
    let mut order: Vec<usize> = (0..cells).collect();
    let mut rng = Rng::with_seed(1);
    for last in (1..cells).rev() {
        order.swap(last, rng.usize(..last));
    }
    order.into_iter().map(|next| [next, 0, 0, 0, 0, 0, 0, 0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_goes_through_all_cells() {
        for count in [1, 2, 3, 1000] {
            let cells = cycle(count);
            let mut seen = vec![false; count];
            let end = (0..count).fold(0, |at, _| {
                assert!(!std::mem::replace(&mut seen[at], true));
                cells[at][0]
            });
            assert_eq!(end, 0);
        }
    }

    #[test]
    fn it_is_said_in_one_line() {
        let latencies = [(16 << 10, 1.06), (8 << 20, 131.0)].map(|(bytes, ns)| Latency { bytes, ns });
        let text = in_words(&latencies);
        assert_eq!(text, "a read that depends on the one before takes 1.1 ns in 16 KiB, 131.0 ns in 8 MiB");
    }
}
