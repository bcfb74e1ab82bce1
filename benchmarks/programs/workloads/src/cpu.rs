//! CPU time of the application's own threads, so that the time of a tool's threads can be told
//! apart.
//!
//! In: a call by each worker at its end, and by the main thread when the work is done. Out: the
//! sum.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Adds the CPU time of the calling worker to that of the [`application`]. A worker calls it last.
pub(crate) fn add_worker() {
    WORKERS_NS.fetch_add(this_thread().as_nanos() as u64, Relaxed);
}

/// Returns the CPU time of the calling thread, which must be the main one, and of all workers that
/// are done.
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
            add_worker();
        })
        .join()
        .unwrap();
        assert!(application() >= before + Duration::from_millis(5));
    }
}
