//! The process that drains the rings: the program does not depend on it, and it does not outlive
//! the program.

mod scenario;

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "killed", child: kill_drain_process, check: check_killed },
        Scenario { name: "killed_at_the_end", child: kill_at_the_end, check: check_killed_at_the_end },
        Scenario { name: "executes_another", child: execute_another, check: check_executes_another },
        Scenario { name: "records_again", child: record_again, check: check_records_again },
        Scenario { name: "maps_all_the_time", child: map_all_the_time, check: check_maps_all_the_time },
        Scenario { name: "ends_with_a_flood", child: flood_for_ever, check: check_ends_with_a_flood },
        Scenario { name: "ends_with_the_host", child: wait_to_be_killed, check: check_ends_with_the_host },
    ])
}

const MARK: usize = 12_345;
const BEFORE: usize = 30_000;
const AFTER: usize = 100_000;

fn allocate(count: usize) {
    for _ in 0..count {
        drop(black_box(vec![1u8; MARK]));
    }
}

/// Returns the drain process of the program with this id: it has the name that the tracker gives
/// it, and runs the same file.
fn drain_process_of(host: u32) -> Option<libc::pid_t> {
    let exe = std::fs::read_link(format!("/proc/{host}/exe")).ok()?;
    let size_of = |pid: &str| {
        let sizes = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        sizes.split(' ').next().map(str::to_owned)
    };
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let pid = names.find(|pid| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm == "alloc-tracker\n"
            && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|file| file == exe)
            // Both processes have the same memory.
            && (0..20).any(|_| size_of(pid) == size_of(&host.to_string()))
    })?;
    pid.parse().ok()
}

fn kill_drain_process() {
    report_at_exit();
    allocate(BEFORE);
    let drain_process = drain_process_of(std::process::id()).expect("a drain process");
    // SAFETY: the process is the tracker's, and nothing of this program relies on it.
    assert_eq!(unsafe { libc::kill(drain_process, libc::SIGKILL) }, 0);
    // Another thread waits for the drain process too.
    let other = std::thread::spawn(|| allocate(AFTER));
    allocate(AFTER);
    other.join().unwrap();
}

fn check_killed(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_one_line(0, &["stops here", "drain process was killed", "the program goes on"]);
    let replay = outcome.replay();
    replay.assert_sound();
    assert!(!replay.complete && replay.from_sidecar);
    let recorded = replay.allocs(MARK as u64).count();
    assert!((BEFORE..BEFORE + 2 * AFTER).contains(&recorded), "{recorded}");
}

fn kill_at_the_end() {
    allocate(BEFORE);
    let drain_process = drain_process_of(std::process::id()).expect("a drain process");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(drain_process, libc::SIGKILL) }, 0);
    std::process::exit(7);
}

fn check_killed_at_the_end(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_one_line(7, &["drain process was killed"]);
    let replay = outcome.replay();
    replay.assert_sound();
    assert_eq!(replay.allocs(MARK as u64).count(), BEFORE);
}

/// Executes this program once more, which records under the same name.
fn execute_another() {
    allocate(BEFORE);
    if std::env::var_os("AGAIN").is_none() {
        let error = Command::new(std::env::current_exe().unwrap()).env("AGAIN", "1").exec();
        panic!("{error}");
    }
    report_at_exit();
}

fn check_executes_another(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.allocs(MARK as u64).count(), BEFORE);
}

/// Begins a second recording after the drain process of the first one was killed.
fn record_again() {
    let start = |name: &str| {
        let path = scenario::folder().join(name);
        alloc_tracker::Profiler::builder().output(path).start().unwrap()
    };
    let first = start("first.alloc");
    allocate(BEFORE);
    let drain_process = drain_process_of(std::process::id()).expect("a drain process");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(drain_process, libc::SIGKILL) }, 0);
    allocate(AFTER);
    assert!(first.finish().is_err());
    let second = start("dump.alloc");
    allocate(BEFORE);
    second.finish().unwrap();
}

fn check_records_again(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_one_line(0, &["drain process was killed"]);
    assert_eq!(outcome.whole_replay().allocs(MARK as u64).count(), BEFORE);
}

/// The sizes of the process change between any two looks of the drain process.
fn map_all_the_time() {
    report_at_exit();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        drop(black_box(vec![1u8; 1 << 20]));
        // SAFETY: a new mapping that nothing else knows of, unmapped as a whole.
        unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let start = libc::mmap(std::ptr::null_mut(), 1 << 20, protection, flags, -1, 0);
            assert_eq!(libc::munmap(start, 1 << 20), 0);
        }
    }
}

fn check_maps_all_the_time(name: &'static str) {
    for _ in 0..5 {
        let outcome = Run::of(name).traced().finish();
        outcome.assert_quiet(0);
        assert_eq!(outcome.whole_replay().counts.events(), outcome.oracle().events());
    }
}

fn flood_for_ever() {
    loop {
        allocate(1000);
    }
}

/// A host that is killed may have the recorder's lock, which it never releases.
fn check_ends_with_a_flood(name: &'static str) {
    for round in 0..20 {
        let mut running = Run::of(name).traced().start();
        let dump = running.folder().join("dump.alloc");
        // The first frame is in the dump, so the flood is under way.
        running.until(|| std::fs::metadata(&dump).is_ok_and(|file| file.len() > 1000));
        std::thread::sleep(Duration::from_micros(700 * round));
        running.signal(libc::SIGKILL);
        let killed = Instant::now();
        // Waits until the dump is not locked any more.
        let outcome = running.wait();
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
        outcome.replay().assert_sound();
    }
}

fn wait_to_be_killed() {
    allocate(BEFORE);
    std::fs::write(scenario::folder().join("ready"), "").unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn check_ends_with_the_host(name: &'static str) {
    let mut running = Run::of(name).traced().start();
    let ready = running.folder().join("ready");
    running.until(|| ready.exists());
    let drain_process = drain_process_of(running.pid() as u32).expect("a drain process");
    running.signal(libc::SIGKILL);
    let killed = Instant::now();
    let outcome = running.wait();
    outcome.assert_signal(libc::SIGKILL);
    // SAFETY: signal 0 only asks whether the process is there. A process that has ended and was not
    // reaped yet has no memory.
    while unsafe { libc::kill(drain_process, 0) } == 0
        && std::fs::read_link(format!("/proc/{drain_process}/exe")).is_ok()
    {
        assert!(killed.elapsed() < Duration::from_secs(2), "the drain process outlives its host");
        std::thread::sleep(Duration::from_millis(1));
    }
    let replay = outcome.replay();
    replay.assert_sound();
    assert_eq!(replay.allocs(MARK as u64).count(), BEFORE);
}
