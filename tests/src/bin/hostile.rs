//! Source text that an HTML page must show as text, and must not execute.

#![forbid(unsafe_code)]

use std::hint::black_box;

use alloc_tracker::{AllocTracker, profile};

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() {
    black_box(keeps(3));
}

#[profile]
fn keeps(times: usize) -> Vec<String> {
    let mut kept = Vec::with_capacity(times);
    for _ in 0..times {
        kept.push("</script><img src=x onerror=document.title='pwned'>".to_owned()); // </td></table><!--
        kept.push(black_box("&lt;script>document.title=\"pwned\"</script><script>").to_owned()); // <script>document.title='pwned'</script>
    }
    kept // ]]> --!> <plaintext> &#60;b>
}
