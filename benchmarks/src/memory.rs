//! Measures how long a read from memory takes here and now. In: nothing. Out: nanoseconds, by the
//! size of the memory that is read from.
//!
//! On a virtual machine, other guests use the same caches and the same memory, so timings vary from
//! day to day. These latencies show whether two measurements were made under the same conditions.

use std::hint::black_box;
use std::time::Instant;

use fastrand::Rng;
use serde::Serialize;

/// Latency of a read whose address depends on the read before it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    /// Size of the memory that is read from, in random order.
    pub(crate) bytes: usize,
    /// Nanoseconds for each read.
    pub(crate) ns: f64,
}

/// Sizes that fit into the first, the second and the third cache of most processors, and into none.
const SIZES: [usize; 4] = [16 << 10, 512 << 10, 8 << 20, 128 << 20];
const READS: usize = 1 << 20;

/// A cache line. Its first word is the index of the next cell.
type Cell = [usize; 8];

/// Measures the latencies, which takes a second or two.
pub(crate) fn latencies() -> Vec<Latency> {
    SIZES.map(|bytes| Latency { bytes, ns: latency(&cycle(bytes / size_of::<Cell>())) }).to_vec()
}

/// Describes the latencies in one line of text.
pub(crate) fn describe(latencies: &[Latency]) -> String {
    let each = latencies.iter().map(|latency| format!("{:.1} ns in {}", latency.ns, size(latency.bytes)));
    format!("a read that depends on the one before takes {}", each.collect::<Vec<_>>().join(", "))
}

fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

fn latency(cells: &[Cell]) -> f64 {
    let read = |first: usize, reads: usize| (0..reads).fold(first, |cell, _| cells[cell][0]);
    // One cycle first, so that cells that fit into a cache are in it.
    let first = black_box(read(0, cells.len()));
    let before = Instant::now();
    black_box(read(first, READS));
    before.elapsed().as_nanos() as f64 / READS as f64
}

/// Makes cells that lead through all of them in an order that no processor can predict (Sattolo's
/// algorithm).
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
    fn a_cycle_leads_through_all_cells() {
        for count in [1, 2, 3, 1000] {
            let cells = cycle(count);
            let mut seen = vec![false; count];
            let end = (0..count).fold(0, |cell, _| {
                assert!(!std::mem::replace(&mut seen[cell], true));
                cells[cell][0]
            });
            assert_eq!(end, 0);
        }
    }

    #[test]
    fn latencies_are_described_in_one_line() {
        let latencies = [(16 << 10, 1.06), (8 << 20, 131.0)].map(|(bytes, ns)| Latency { bytes, ns });
        let text = describe(&latencies);
        assert_eq!(text, "a read that depends on the one before takes 1.1 ns in 16 KiB, 131.0 ns in 8 MiB");
    }
}
