//! A program whose memory differs from run to run: threads take jobs in the order in which they get
//! to them, keep buffers for a while, and allocate sizes that depend on the time. One function
//! always allocates the same: 1000 blocks of as many bytes as the argument says.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Mutex;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

static JOBS: Mutex<u32> = Mutex::new(4000);

fn main() {
    let size = std::env::args().nth(1).and_then(|size| size.parse().ok()).unwrap_or(1000);
    let kept = planted(size);
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(work)).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    black_box(kept);
}

#[inline(never)]
fn planted(size: usize) -> Vec<Vec<u8>> {
    (0..1000).map(|_| black_box(vec![1; size])).collect()
}

#[inline(never)]
fn work() {
    let mut recent: VecDeque<Vec<u8>> = VecDeque::new();
    loop {
        {
            let mut jobs = JOBS.lock().unwrap();
            if *jobs == 0 {
                return;
            }
            *jobs -= 1;
        }
        let ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let size = 1000 + ns as usize % 3000;
        recent.push_back(black_box(vec![2; size]));
        if recent.len() > ns as usize % 50 {
            recent.pop_front();
        }
    }
}
