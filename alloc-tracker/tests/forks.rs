//! A forked child never writes into its parent's dump, and a program that another one starts never
//! writes into its starter's.

mod scenario;

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::{AllocTracker, Profiler, StartError};
use scenario::replay::Replay;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "child_leaves", child: child_leaves::<false>, check: check_child_is_not_there },
        Scenario { name: "child_exits", child: child_leaves::<true>, check: check_child_is_not_there },
        Scenario { name: "beside_threads", child: beside_threads, check: check_child_is_not_there },
        Scenario { name: "profiler_in_child", child: profiler_in_child, check: check_profiler_in_child },
        Scenario { name: "guard_in_child", child: guard_in_child, check: check_guard_in_child },
        Scenario { name: "spawned_program", child: spawned_program, check: check_spawned_program },
        Scenario { name: "followed_while_counting", child: counting, check: check_followed_while_counting },
        Scenario { name: "run_token", child: run_token, check: check_run_token },
    ])
}

const PARENTS: usize = 31_000;
const CHILDS: usize = 62_000;

fn work(size: usize, rounds: usize) {
    for _ in 0..rounds {
        let mut list = black_box(Vec::<u8>::with_capacity(size));
        list.reserve_exact(2 * size);
        drop(black_box(list));
    }
}

/// Runs `child` in a fork. Returns the exit status of the fork.
fn fork(child: impl FnOnce()) -> i32 {
    wait(start_fork(child))
}

fn start_fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls `child` and ends; glibc's allocator works in the fork of a process
    // with threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        child();
        // SAFETY: the call ends the child at once.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the child belongs to this process, and `status` is valid for the number that the call
    // writes.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1000 + libc::WTERMSIG(status) }
}

fn child_leaves<const BY_EXIT: bool>() {
    report_at_exit();
    work(PARENTS, 1000);
    let status = fork(|| {
        // More events than a dump frame holds.
        work(CHILDS, 60_000);
        if BY_EXIT {
            std::process::exit(6);
        }
    });
    assert_eq!(status, if BY_EXIT { 6 } else { 0 });
    work(PARENTS, 1000);
}

/// Forks while other threads hold any locks that they take.
fn beside_threads() {
    report_at_exit();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let until_stopped = || {
            while !stop.load(Ordering::Relaxed) {
                work(PARENTS / 31, 10);
            }
        };
        // The threads are joined one by one, because a scope does not wait for the destructors of
        // its threads.
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(until_stopped)).collect();
        for round in 0..200 {
            let status = fork(|| {
                work(CHILDS, 50);
                let thread = std::thread::spawn(|| work(CHILDS, 50));
                thread.join().unwrap();
                if round % 10 == 0 {
                    std::process::exit(0);
                }
            });
            assert_eq!(status, 0);
            work(PARENTS, 10);
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn check_child_is_not_there(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    // The parent is the last to report at its exit.
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    assert_eq!(replay.allocs(PARENTS as u64).count(), 2000);
    assert_eq!(replay.allocs(CHILDS as u64).count(), 0);
}

fn assert_forked(start: Result<Profiler, StartError>) {
    assert!(matches!(start, Err(StartError::Forked)), "{start:?}");
}

fn profiler_in_child() {
    report_at_exit();
    let path = scenario::folder().join("child.alloc");
    assert_eq!(
        fork(|| {
            // The child has had no event before.
            assert_forked(Profiler::builder().start());
            assert_forked(Profiler::builder().output(&path).start());
            assert_forked(Profiler::builder().start());
        }),
        0
    );
    assert!(!path.exists());
    work(PARENTS, 10);
}

fn check_profiler_in_child(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!(outcome.files(), ["dump.alloc"]);
}

/// The child has a copy of the guard and drops it. It still lives when the parent begins the next
/// dump at the same path.
fn guard_in_child() {
    let path = scenario::folder().join("dump.alloc");
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let profiler = Profiler::builder().output(&path).start().unwrap();
    work(PARENTS, 10);
    let guard = &raw const profiler;
    let child = start_fork(|| {
        work(CHILDS, 10);
        // SAFETY: the child drops its copy only here, because the child ends by `_exit`.
        drop(unsafe { guard.read() });
        let mut byte = 0u8;
        // SAFETY: the descriptors are open. The child closes its writing end, so the read ends when
        // the parent closes its own.
        unsafe {
            libc::close(pipe[1]);
            libc::read(pipe[0], (&raw mut byte).cast(), 1);
        }
    });
    work(PARENTS, 10);
    profiler.finish().unwrap();
    scenario::replay::Replay::of(&path).assert_whole();
    let again = Profiler::builder().output(&path).start().unwrap();
    work(PARENTS, 5);
    // SAFETY: the descriptor was opened above and is closed once.
    unsafe { libc::close(pipe[1]) };
    assert_eq!(wait(child), 0);
    again.finish().unwrap();
}

fn check_guard_in_child(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!((replay.allocs(PARENTS as u64).count(), replay.allocs(CHILDS as u64).count()), (5, 0));
}

/// Starts itself again with the same environment while it is recorded: once through the vfork of
/// `Command`, once through a fork.
fn spawned_program() {
    if std::env::var_os("AGAIN").is_some() {
        work(CHILDS, 1000);
        println!("again");
        return;
    }
    report_at_exit();
    work(PARENTS, 1000);
    for by_fork in [false, true] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("AGAIN", "1").env_remove("ALLOC_ORACLE_OUT");
        if by_fork {
            // SAFETY: the closure allocates between fork and exec, which glibc allows and programs
            // do.
            unsafe {
                command.pre_exec(|| {
                    work(CHILDS, 10);
                    Ok(())
                })
            };
        }
        let output = command.output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"again\n");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("alloc-tracker: not profiling") && said.contains("another process"),
            "{said}"
        );
    }
    work(PARENTS, 1000);
}

fn check_spawned_program(name: &'static str) {
    check_child_is_not_there(name);
}

/// Asks for statistics first, so that every event is counted besides being recorded.
fn counting() {
    black_box(alloc_tracker::stats());
    work(PARENTS, 100);
    let status = fork(|| {
        work(CHILDS, CHILDS_ROUNDS);
        std::process::exit(0);
    });
    assert_eq!(status, 0);
}

const CHILDS_ROUNDS: usize = 500;

fn check_followed_while_counting(name: &'static str) {
    let outcome = Run::of(name).traced().env("ALLOC_TRACKER_FOLLOW", "1").finish();
    outcome.assert_quiet(0);
    let of = |replay: &Replay, size: usize| replay.allocs(size as u64).count();
    let parent = outcome.whole_replay();
    assert_eq!((of(&parent, PARENTS), of(&parent, CHILDS)), (100, 0));
    let own = outcome.files().into_iter().find(|file| file != "dump.alloc").expect("a dump of the child");
    let child = Replay::of(&outcome.folder().join(own));
    child.assert_sound();
    // The child may notice the fork only at its very first event.
    assert!(of(&child, CHILDS) >= CHILDS_ROUNDS - 1, "{}", of(&child, CHILDS));
}

fn run_token() {
    work(PARENTS, 10);
}

fn check_run_token(name: &'static str) {
    let outcome = Run::of(name).traced().env("ALLOC_TRACKER_RUN", "token 1").finish();
    outcome.assert_quiet(0);
    assert_eq!(outcome.whole_replay().run, "token 1");
    // A file that exists already belongs to another process of the run.
    let run = Run::of(name).traced().env("ALLOC_TRACKER_RUN", "token 1");
    std::fs::write(run.dump(), "theirs").unwrap();
    let outcome = run.finish();
    outcome.assert_one_line(0, &["not profiled", "another program of this run", "dump.alloc", "%p"]);
    assert_eq!(std::fs::read(outcome.dump()).unwrap(), b"theirs");
    assert_eq!(outcome.files(), ["dump.alloc"]);
    // Without a token the recording replaces an older dump. `%p` gives each process a name of its
    // own.
    let run = Run::of(name).traced();
    std::fs::write(run.dump(), [&alloc_dump::layout::MAGIC[..], b"older"].concat()).unwrap();
    let outcome = run.finish();
    outcome.assert_quiet(0);
    outcome.whole_replay();
    let elsewhere =
        || Run::of(name).env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", "100%peak/%p.alloc");
    let outcome = elsewhere().finish();
    outcome.assert_one_line(0, &[&format!("100%peak/{}.alloc", outcome.pid), "No such file"]);
    // A folder's name is taken as it is.
    let run = elsewhere();
    std::fs::create_dir(run.folder().join("100%peak")).unwrap();
    let outcome = run.finish();
    outcome.assert_quiet(0);
    assert_eq!(outcome.files(), ["100%peak"]);
    assert!(outcome.folder().join(format!("100%peak/{}.alloc", outcome.pid)).is_file());
}
