//! Where the helper runs: not where the program's only busy thread does, if it may run elsewhere.

mod scenario;

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "one_busy_thread", child: one_busy_thread, check },
        Scenario { name: "two_busy_threads", child: two_busy_threads, check },
        Scenario { name: "one_processor", child: one_processor, check },
    ])
}

fn check(name: &'static str) {
    let outcome = Run::of(name).traced().limit(Duration::from_secs(60)).finish();
    outcome.assert_quiet(0);
    if outcome.stdout.contains("skipped") {
        println!("skipped: a second processor missing");
        return;
    }
    assert_eq!(outcome.whole_replay().counts.without_peak(), outcome.oracle().without_peak());
}

/// Wherever that one is.
fn one_busy_thread() {
    report_at_exit();
    let all = allowed(own());
    let [first, second, ..] = all[..] else { return println!("skipped") };
    for here in [first, second, first] {
        run_on(&[here]);
        let others: Vec<usize> = all.iter().copied().filter(|number| *number != here).collect();
        assert!(busy_until(|| allowed(helper()) == others), "{here} of {all:?}: {:?}", allowed(helper()));
        assert_eq!(allowed(own()), [here]);
    }
}

fn two_busy_threads() {
    report_at_exit();
    let all = allowed(own());
    if all.len() < 2 {
        return println!("skipped");
    }
    assert!(busy_until(|| allowed(helper()).len() == all.len() - 1), "{:?}", allowed(helper()));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                allocate();
            }
        });
        let everywhere = busy_until(|| allowed(helper()) == all);
        over.store(true, Ordering::Relaxed);
        // Until the thread itself has ended, and its last event is over.
        other.join().unwrap();
        assert!(everywhere, "{all:?}: {:?}", allowed(helper()));
    });
}

/// What somebody says of all threads holds for the helper as well.
fn one_processor() {
    report_at_exit();
    let only = [allowed(own())[0]];
    for thread in threads() {
        run_thread_on(thread, &only);
    }
    let begun = Instant::now();
    busy_until(|| begun.elapsed() > Duration::from_millis(300));
    assert_eq!(allowed(helper()), only);
}

/// Allocates and frees until it is so, for at most some seconds.
fn busy_until(so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        (0..5).for_each(|_| allocate());
        if so() {
            return true;
        }
    }
    false
}

fn allocate() {
    for size in 1..1000 {
        drop(black_box(Vec::<u8>::with_capacity(size)));
    }
}

fn own() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() as u32 }
}

fn threads() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

fn helper() -> u32 {
    let is_helper = |thread: &u32| {
        std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap() == "alloc-tracker\n"
    };
    threads().into_iter().find(is_helper).expect("a helper")
}

/// On which processors a thread may run.
fn allowed(thread: u32) -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all zeros is an empty set; the buffer is as long as it says.
    let set = unsafe {
        assert_eq!(libc::sched_getaffinity(thread as i32, size_of_val(&set), set.as_mut_ptr()), 0);
        set.assume_init()
    };
    // SAFETY: below the number of those that a set has.
    (0..libc::CPU_SETSIZE as usize).filter(|number| unsafe { libc::CPU_ISSET(*number, &set) }).collect()
}

fn run_on(processors: &[usize]) {
    run_thread_on(0, processors);
}

fn run_thread_on(thread: u32, processors: &[usize]) {
    // SAFETY: all zeros is an empty set; the numbers are from one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        processors.iter().for_each(|number| libc::CPU_SET(*number, &mut set));
        assert_eq!(libc::sched_setaffinity(thread as i32, size_of_val(&set), &raw const set), 0);
    }
}
