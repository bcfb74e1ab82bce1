//! CPU time of the application's own threads, so that a helper thread of a tool can be told from them.
//!
//! In: a worker at its end, and the main thread when the work is done. Out: the sum.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A worker calls it last: its CPU time so far becomes part of [`application`].
pub(crate) fn worker_done() {
    WORKERS_NS.fetch_add(this_thread().as_nanos() as u64, Relaxed);
}

/// CPU time of the calling thread, which is the main one, and of all workers that are done.
pub(crate) fn application() -> Duration {
    this_thread() + Duration::from_nanos(WORKERS_NS.load(Relaxed))
}

fn this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

static WORKERS_NS: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_done_counts() {
        let before = application();
        std::thread::spawn(|| {
            while this_thread() < Duration::from_millis(5) {}
            worker_done();
        })
        .join()
        .unwrap();
        assert!(application() >= before + Duration::from_millis(5));
    }
}
