//! A big zeroed buffer of which next to nothing is used: its virtual size is far above its resident
//! size.
//!
//! What a profile must show:
//!
//! - One block of `BUFFER_BYTES` = 268,435,456 bytes, live at the peak, from the line marked
//!   `PLANTED: peak` in `reserve`. It is nearly the whole heap, and freed at the end.
//! - The resident set grows by about `PAGES_TOUCHED` pages of 4 KiB, 256 KiB in all, and not by 256
//!   MiB: the kernel provides the pages of `alloc_zeroed` when they are first written. A tracker
//!   that forwards `alloc_zeroed` as `alloc` and clears the memory itself, or that touches the
//!   blocks that it records, would make the resident set grow by the whole buffer.
//!
//! The output gives VmSize and VmRSS of the process before and after, in kB. With `rounds` as first
//! argument, `rounds` buffers are held at once.
#![forbid(unsafe_code)]

use std::hint::black_box;

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const BUFFER_BYTES: usize = 256 << 20;
const PAGES_TOUCHED: usize = 64;

fn main() {
    examples::begin();
    let rounds = examples::rounds();

    let before = process_sizes();
    let mut buffers: Vec<Vec<u8>> = (0..rounds).map(|_| reserve()).collect();
    for buffer in &mut buffers {
        touch(buffer);
    }
    let after = process_sizes();
    drop(buffers);
    println!("VmSize {} -> {} kB", before.virtual_kb, after.virtual_kb);
    println!("VmRSS {} -> {} kB", before.resident_kb, after.resident_kb);
}

#[inline(never)]
fn reserve() -> Vec<u8> {
    black_box(vec![0u8; BUFFER_BYTES]) // PLANTED: peak
}

/// Writes one byte into each of `PAGES_TOUCHED` pages, which are far from each other.
#[inline(never)]
fn touch(buffer: &mut [u8]) {
    for byte in buffer.iter_mut().step_by(BUFFER_BYTES / PAGES_TOUCHED) {
        *byte = 1;
    }
    black_box(buffer);
}

struct ProcessSizes {
    virtual_kb: u64,
    resident_kb: u64,
}

/// Reads the sizes from `/proc`; returns zeros on systems without it.
fn process_sizes() -> ProcessSizes {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|figure| figure.trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
    };
    ProcessSizes { virtual_kb: field("VmSize:"), resident_kb: field("VmRSS:") }
}
