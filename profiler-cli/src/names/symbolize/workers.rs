//! A small thread pool for symbol work. In: numbered jobs. Out: their results, in the same order.
//!
//! A job that panics gives an `Err` with the message, and must never affect the other jobs. The
//! order in which jobs run must never be visible in the results.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

/// Bytes of a worker's stack. The reader of debug info recurses once for each nested inlined call.
/// The nesting is checked before against [`MAX_ENTRY_DEPTH`](super::debug_info::MAX_ENTRY_DEPTH),
/// and this stack is large enough for that many levels even in an unoptimised build. The stack is
/// only reserved address space: pages that are never touched cost nothing.
const WORKER_STACK: usize = 128 << 20;

/// Runs `job(0)`, … `job(jobs - 1)` on at most `max_workers` threads (by default one for each
/// processor).
pub(super) fn run<T: Send>(
    jobs: usize,
    max_workers: Option<NonZeroUsize>,
    job: impl Fn(usize) -> T + Sync,
) -> Vec<Result<T, String>> {
    let results: Vec<Mutex<Option<Result<T, String>>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(index) else { break };
            let result = catch_unwind(AssertUnwindSafe(|| job(index)));
            *slot.lock() = Some(result.map_err(|payload| panic_text(&*payload)));
        }
    };
    thread::scope(|scope| {
        for _ in 0..worker_count(jobs, max_workers) {
            let builder = thread::Builder::new().name("symbolize".to_owned()).stack_size(WORKER_STACK);
            if builder.spawn_scoped(scope, work).is_err() {
                break;
            }
        }
    });
    // Jobs are left only if no thread could be started. Then this thread runs them.
    work();
    results
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(|| Err("the job was never run".to_owned())))
        .collect()
}

/// Returns the number of threads for this many jobs.
pub(super) fn worker_count(jobs: usize, max_workers: Option<NonZeroUsize>) -> usize {
    let available = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    max_workers.unwrap_or(available).get().min(jobs)
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the reader of the file panicked")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for workers in [1, 2, 7] {
            let results = run(100, NonZeroUsize::new(workers), |index| index * index);
            let expected: Vec<_> = (0..100).map(|index| Ok(index * index)).collect();
            assert_eq!(results, expected);
        }
    }

    #[test]
    fn a_panic_is_the_result_of_its_own_job_only() {
        let results = run(3, None, |index| {
            assert_ne!(index, 1, "job one fails");
            index
        });
        assert_eq!(results[0], Ok(0));
        assert!(results[1].as_ref().is_err_and(|text| text.contains("job one fails")));
        assert_eq!(results[2], Ok(2));
    }

    #[test]
    fn no_jobs_need_no_threads() {
        assert!(run(0, None, |index| index).is_empty());
        assert_eq!(worker_count(0, NonZeroUsize::new(4)), 0);
        assert_eq!(worker_count(2, NonZeroUsize::new(4)), 2);
    }
}
