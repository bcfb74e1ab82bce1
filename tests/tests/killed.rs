//! A program may die at any instruction and for any reason. Every event that it had done by then is
//! in its dump, to the byte and for each thread. The dump is compared with a ledger that the
//! program keeps in a file of its own (`alloc_oracle::Ledger`).

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use alloc_oracle::{Tally, ThreadNotes, read_ledger};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Lcg, cli, number, profiler_cli, program};

const WORKS: [&str; 4] = ["tables", "stacks", "relay", "short threads"];
const KILLS_OF_PROGRAMS: u64 = 120;
const KILLS_UNDER_RUN: u64 = 80;

/// When programs are killed: whether the delay counts from the first event (else from the start of
/// the program), and the range of the delay in microseconds.
const MOMENTS: [(bool, u64, u64); 6] = [
    (false, 0, 5_000),
    (true, 0, 2_000),
    (true, 0, 10_000),
    (true, 0, 50_000),
    (true, 50_000, 200_000),
    (true, 300_000, 600_000),
];

#[test]
fn a_program_killed_at_any_moment_loses_no_event() {
    let kills = kill_at_random(KILLS_OF_PROGRAMS, |mortal| mortal.command.spawn().unwrap());
    // The kills must have hit early and late moments of each kind of work.
    for work in WORKS {
        let done = || kills.iter().filter(|(killed_work, _)| *killed_work == work).map(|(_, events)| *events);
        assert!(done().max() > Some(20_000), "{work} never got far: {kills:?}");
        assert!(done().min() < Some(2_000), "{work} was never killed early: {kills:?}");
    }
}

#[test]
fn a_program_killed_at_any_moment_under_profiler_cli_has_a_complete_dump() {
    let kills = kill_at_random(KILLS_UNDER_RUN, |mortal| mortal.start_under_run());
    assert!(kills.iter().any(|(_, events)| *events > 50_000), "no program got far: {kills:?}");
}

#[test]
fn an_abort_beside_allocating_threads_loses_no_event() {
    for (round, work) in (0..20).zip(WORKS.iter().cycle()) {
        let after = 500 + 3_700 * round;
        let mut mortal = Mortal::new(&[work, "abort", &after.to_string()]);
        let ended = mortal.run();
        assert_eq!(ended.signal(), Some(6), "{work}, abort after {after} us: {ended:?}");
        mortal.check(&format!("{work}, abort after {after} us"));
    }
}

#[test]
fn a_stack_overflow_loses_no_event() {
    for (round, work) in (0..6).zip(WORKS.iter().cycle()) {
        let after = 500 + 9_000 * round;
        let mut mortal = Mortal::new(&[work, "overflow", &after.to_string()]);
        let ended = mortal.run();
        assert_eq!(ended.signal(), Some(6), "{work}, overflow after {after} us: {ended:?}");
        let events = mortal.check(&format!("{work}, overflow after {after} us"));
        // Two megabytes of stack have room for thousands of calls, and each call has an event.
        assert!(events > 5_000, "the stack overflowed after {events} events");
    }
}

/// The test kills each program as soon as its resident set exceeds the limit. Where the test may
/// create a memory cgroup, the kernel also kills one program that exceeds the limit of its group.
#[test]
fn a_program_killed_for_using_too_much_memory_loses_no_event() {
    const LIMIT: u64 = 200 << 20;
    for work in WORKS {
        let mut mortal = Mortal::new(&[work, "hoard", "0"]);
        let mut child = mortal.command.spawn().unwrap();
        let statm = format!("/proc/{}/statm", child.id());
        wait_for("the program to grow", || {
            let statm = std::fs::read_to_string(&statm).unwrap_or_default();
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096 > LIMIT
        });
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        mortal.check(&format!("{work}, killed above the memory limit"));
    }
    let Some(group) = MemoryGroup::new(LIMIT) else {
        println!("skipped: no memory cgroup of our own");
        return;
    };
    let mut mortal = Mortal::new(&["tables", "hoard", "0"]);
    let program = mortal.command.get_program().to_owned();
    let mut inside = Command::new("sh");
    inside.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.0.join("cgroup.procs"));
    inside.arg(program).args(mortal.command.get_args());
    mortal.command.get_envs().for_each(|(name, value)| _ = inside.env(name, value.unwrap_or_default()));
    mortal.command = inside;
    let ended = mortal.run();
    assert_eq!(ended.signal(), Some(9), "the kernel kills a program that exceeds its limit: {ended:?}");
    mortal.check("killed by the kernel");
}

/// Kills `kills` programs, some in their first milliseconds, some much later. Returns for each its
/// work and how many events it had done.
fn kill_at_random(kills: u64, start: fn(&mut Mortal) -> Child) -> Vec<(&'static str, u64)> {
    let seed = match std::env::var("KILL_SEED") {
        Ok(seed) => seed.parse().expect("KILL_SEED is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().map_or(1, |now| u64::from(now.subsec_nanos())),
    };
    println!("KILL_SEED={seed}");
    let mut lcg = Lcg(seed);
    let mut kill = |round| {
        // Every kind of work is combined with every moment.
        let work = WORKS[(round as usize / MOMENTS.len()) % WORKS.len()];
        let (from_first_event, least, most) = MOMENTS[round as usize % MOMENTS.len()];
        let delay = Duration::from_micros(least + lcg.below(most - least));
        let mut mortal = Mortal::new(&[work]);
        let mut child = start(&mut mortal);
        if from_first_event {
            // The ledger appears when the first event begins, and that event starts the recording.
            wait_for("the first event", || mortal.ledger().exists());
        }
        std::thread::sleep(delay);
        let ended = mortal.kill(&mut child);
        let signal = ended.signal().or(ended.code().map(|code| code - 128));
        let round = format!("kill {round} of KILL_SEED={seed} ({work}, {delay:?})");
        assert_eq!(signal, Some(9), "{round}: {ended:?}");
        (work, mortal.check(&round))
    };
    let done: Vec<_> = (0..kills).map(&mut kill).collect();
    let early = done.iter().filter(|(_, events)| *events == 0).count();
    println!(
        "{} kills, {early} of them before the first event was done, {} events",
        done.len(),
        done.iter().map(|(_, events)| events).sum::<u64>()
    );
    assert!(early < done.len() * 2 / 3, "{early} of {} programs had done no event", done.len());
    done
}

/// A program that will be killed or end itself, with the folder of its ledger and its dump.
struct Mortal {
    folder: TempDir,
    command: Command,
    /// Whether `profiler-cli run` started the program. Then it also completes the dump.
    under_run: bool,
}

impl Mortal {
    fn new(args: &[&str]) -> Mortal {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program("mortal"));
        command
            .args(args)
            .env("ALLOC_LEDGER_OUT", folder.path().join("ledger"))
            .env("ALLOC_TRACKER", "trace")
            .env("ALLOC_TRACKER_OUT", folder.path().join("x.%p.alloc"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Mortal { folder, command, under_run: false }
    }

    /// Starts `profiler-cli run`, and returns it when it has started the program.
    fn start_under_run(&mut self) -> Child {
        self.under_run = true;
        let child = profiler_cli()
            .args(["run", "--report", "none", "-o"])
            .arg(self.folder.path().join("x.%p.alloc"))
            .arg("--")
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .env("ALLOC_LEDGER_OUT", self.folder.path().join("ledger"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the program to be started", || child_of(&child).is_some());
        child
    }

    /// Runs the program until it ends by itself.
    fn run(&mut self) -> ExitStatus {
        let mut child = self.command.spawn().unwrap();
        wait_for_end(&mut child)
    }

    /// Kills the program, and waits for the child: the program itself or `profiler-cli run`.
    fn kill(&self, child: &mut Child) -> ExitStatus {
        if self.under_run {
            let program = child_of(child).expect("the program is still there");
            kill_process(program, Signal::KILL).unwrap();
        } else {
            child.kill().unwrap();
        }
        wait_for_end(child)
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// Returns the dump, if the program got as far as creating it.
    fn dump(&self) -> Option<PathBuf> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.path());
        let mut dumps = names.filter(|path| path.extension().is_some_and(|ending| ending == "alloc"));
        let dump = dumps.next();
        assert_eq!(dumps.next(), None, "one process has one dump");
        dump
    }

    /// Compares the dump with the ledger. Returns how many events had been done.
    fn check(&self, what: &str) -> u64 {
        let (pid, threads) = read_ledger(&std::fs::read(self.ledger()).unwrap_or_default());
        let done: u64 = threads.iter().map(|notes| notes.done.events()).sum();
        let Some(dump) = self.dump() else {
            assert_eq!(done, 0, "{what}: events were done, and there is no dump");
            return done;
        };
        let output = cli([Path::new("summary"), &dump, Path::new("--json")]);
        if done == 0 && !output.status.success() {
            // The program was killed before the dump had its header.
            assert_eq!(output.status.code(), Some(2), "{what}: {output:?}");
            return done;
        }
        assert!(
            output.status.success(),
            "{what}: {done} events were done, and the dump cannot be read: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        if done > 0 {
            assert_eq!(number(&summary, "pid"), i64::from(pid), "{what}");
            assert_eq!(summary["complete"], self.under_run, "{what}: {}", summary["warnings"]);
        }
        for counter in ["lost_events", "foreign_frees", "dropped_frames", "truncated_stacks"] {
            assert_eq!(number(&summary, counter), 0, "{what}: {counter}; {}", summary["warnings"]);
        }
        check_threads(what, &threads, &summary);
        done
    }
}

/// Requires `done <= recorded <= begun` for every figure of every thread, by the ledger's figures
/// of the events that were done and begun. A thread can be inside of one event at most.
fn check_threads(what: &str, threads: &[ThreadNotes], summary: &Value) {
    let mut recorded: BTreeMap<u32, Tally> = BTreeMap::new();
    let figure = |row: &Value, name| u64::try_from(number(row, name)).unwrap();
    let mut total = Tally::default();
    for row in summary["thread_list"].as_array().unwrap() {
        let tally = recorded.entry(number(row, "tid") as u32).or_default();
        for sum in [tally, &mut total] {
            sum.allocations += figure(row, "allocations");
            sum.deallocations += figure(row, "deallocations");
            sum.reallocations += figure(row, "reallocations");
            sum.allocated_bytes += figure(row, "allocated_bytes");
            sum.freed_bytes += figure(row, "freed_bytes");
        }
    }
    for (name, total) in total.figures() {
        assert_eq!(
            total,
            figure(summary, name),
            "{what}: {name} as the sum over the threads, and as the total"
        );
    }
    for notes in threads {
        assert!(
            notes.begun.events() - notes.done.events() <= 1,
            "{what}: a thread is in two events at once: {notes:?}"
        );
        let recorded = recorded.remove(&notes.tid).unwrap_or_default();
        let bounds = notes.done.figures().into_iter().zip(notes.begun.figures());
        for (((name, done), (_, begun)), (_, recorded)) in bounds.zip(recorded.figures()) {
            assert!(
                (done..=begun).contains(&recorded),
                "{what}: thread {} of {} has done {done} {name} and begun {begun}; the dump has {recorded}",
                notes.tid,
                threads.len(),
            );
        }
    }
    assert!(recorded.is_empty(), "{what}: recorded threads that never began an event: {recorded:?}");
}

/// A memory cgroup with a limit. It is removed on drop.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(limit: u64) -> Option<MemoryGroup> {
        MemoryGroup::of_version_2(limit).or_else(|| MemoryGroup::of_version_1(limit))
    }

    fn of_version_2(limit: u64) -> Option<MemoryGroup> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = root.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        // With swap space the kernel would kill later.
        MemoryGroup::below(root, "0::/", &[("memory.max", limit)], &[("memory.swap.max", 0)])
    }

    fn of_version_1(limit: u64) -> Option<MemoryGroup> {
        let root = Path::new("/sys/fs/cgroup/memory");
        let limits = [("memory.limit_in_bytes", limit)];
        MemoryGroup::below(root, ":memory:/", &limits, &[("memory.memsw.limit_in_bytes", limit)])
    }

    /// Creates a group below the group of this process, whose path follows `marker` in
    /// `/proc/self/cgroup`. The limits in `must` have to be accepted, those in `may` are optional.
    fn below(root: &Path, marker: &str, must: &[(&str, u64)], may: &[(&str, u64)]) -> Option<MemoryGroup> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| Some(line.split_once(marker)?.1))?;
        let group = root.join(own).join(format!("alloc-tracker-{}", std::process::id()));
        std::fs::create_dir(&group).ok()?;
        let group = MemoryGroup(group);
        // The file is missing if the parent group does not delegate the controller.
        let write = |(file, value): &(&str, u64)| {
            let file = std::fs::OpenOptions::new().write(true).open(group.0.join(file));
            std::io::Write::write_all(&mut file.ok()?, value.to_string().as_bytes()).ok()
        };
        let limited = must.iter().all(|limit| write(limit).is_some());
        may.iter().for_each(|limit| _ = write(limit));
        limited.then_some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Returns the first child process of `profiler-cli`, if it has one.
fn child_of(cli: &Child) -> Option<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", cli.id());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().next()?.parse().ok().and_then(Pid::from_raw)
}

/// Waits until `ready` returns true; fails after two minutes.
fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited too long for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Waits for the end of a process; kills it and fails after two minutes.
fn wait_for_end(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("process {} did not end within two minutes", child.id());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
