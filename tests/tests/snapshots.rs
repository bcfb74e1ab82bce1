//! Snapshots of programs that run: the program does not notice, the file belongs to the record of
//! its moment, and what is refused is said in one line while the program goes on.
//!
//! The tests read dumps and snapshots with `alloc_dump` alone and keep a heap of their own.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use alloc_dump::exchange::{
    COPIES_OFFSET, LOOK_OFFSET, LOOKED_OFFSET, REFUSAL_OFFSET, RELEASED_OFFSET, REQUESTER_OFFSET,
    REQUESTS_OFFSET, SERVED_OFFSET, SERVER_OFFSET, WITHDRAWN_OFFSET,
};
use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use alloc_dump::snapshot::{SnapshotContents, visit_words};
use tests::stunts::{RELEASE, libraries};
use tests::{cli, profiler_cli, send, wait_until};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

/// Size of the blocks that the program `parent` moves between slots.
const BLOCK: u64 = 1000;

/// A running program `parent`, which ends when its input is closed.
struct Parent {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    /// Address and number of its slots.
    slots: (u64, u64),
    dump: PathBuf,
}

impl Parent {
    fn start(mut command: Command, dump: &Path) -> Parent {
        let [library, _] = libraries();
        command.arg(RELEASE.program_named("parent")).arg(library).arg("/bin/true");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let (address, count) = line.trim().split_once(' ').unwrap();
        let address = u64::from_str_radix(address.strip_prefix("0x").unwrap(), 16).unwrap();
        Parent { child, output, slots: (address, count.parse().unwrap()), dump: dump.to_owned() }
    }

    fn recorded(folder: &Path) -> Parent {
        let dump = folder.join("x.alloc");
        let mut run = profiler_cli();
        run.args(["run", "--report", "none", "-o"]).arg(&dump).arg("--").current_dir(folder);
        let parent = Parent::start(run, &dump);
        wait_until("the sidecar", || folder.join("x.alloc.tail").exists());
        parent
    }

    /// Starts the program without `profiler-cli`, so that the test can be its reader.
    fn alone(folder: &Path) -> (Parent, SidecarWords) {
        let dump = folder.join("x.alloc");
        let mut command = Command::new("env");
        command
            .env("ALLOC_TRACKER", "trace")
            .env("ALLOC_TRACKER_OUT", &dump)
            .env("ALLOC_TRACKER_SNAPSHOT", "end");
        let parent = Parent::start(command, &dump);
        let sidecar = folder.join("x.alloc.tail");
        wait_until("the sidecar", || sidecar.exists());
        (parent, SidecarWords(File::options().read(true).write(true).open(sidecar).unwrap()))
    }

    /// Takes a snapshot, and returns what the CLI said about it.
    fn snapshot(&self, args: &[&str]) -> String {
        let dump = self.dump.to_str().unwrap();
        let output = cli([&["snapshot", dump], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }

    /// Lets the program end. Returns the rest of its output, what was said on stderr, and the
    /// status.
    fn end(mut self) -> (String, String, Option<i32>) {
        drop(self.child.stdin.take());
        let (mut rest, mut said) = (String::new(), String::new());
        self.output.read_to_string(&mut rest).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (rest, said, self.child.wait().unwrap().code())
    }
}

/// The words of a sidecar, by which a reader and the recorder agree on copies.
struct SidecarWords(File);

impl SidecarWords {
    fn get(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, offset as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, offset: usize, value: u64) {
        self.0.write_all_at(&value.to_le_bytes(), offset as u64).unwrap();
    }
}

/// Number of threads that move blocks. Each has at most one in its hands.
const THREADS: usize = 4;

const UNDISTURBED: &str = "strangers: 0\nsignals that are missing: 0\ninterrupted waits: 0\n";

/// What the dump has at the record of a snapshot.
struct AtSnapshot {
    us: u64,
    /// Live blocks by address with their sizes.
    live: HashMap<u64, u64>,
    /// Addresses of blocks that were allocated or freed since copying began, and, after the record,
    /// at its time: the copy may have the memory before the event or the memory after it.
    in_motion: HashSet<u64>,
}

/// Returns what the dump has at each record of a snapshot.
fn at_snapshots(dump: &Path) -> HashMap<u32, AtSnapshot> {
    let mut reader = Reader::new(File::open(dump).unwrap()).unwrap();
    let (mut live, mut at_snapshots) = (HashMap::new(), HashMap::<u32, AtSnapshot>::new());
    // The block that a thread is moving is not live until the move has ended.
    let (mut thread, mut us, mut last) = (0, 0, 0);
    let mut moving: HashMap<u32, (u64, u64)> = HashMap::new();
    let mut events: Vec<(u64, u64)> = Vec::new();
    while let Some(records) = reader.next_frame().unwrap() {
        for record in records {
            let address = match record {
                Record::Alloc { addr, .. } | Record::Dealloc { addr, .. } => Some(addr),
                _ => None,
            };
            if let Some(address) = address {
                events.push((us, address));
                if let Some(at) = at_snapshots.get_mut(&last).filter(|at| at.us == us) {
                    at.in_motion.insert(address);
                }
            }
            match record {
                Record::Thread { id } => thread = id,
                Record::Time { us: now } => us = now,
                Record::Alloc { addr, size, .. } => {
                    assert_eq!(live.insert(addr, size), None, "{addr:#x} is allocated twice");
                }
                Record::Dealloc { addr, .. } => {
                    live.remove(&addr);
                }
                Record::Realloc { old, new, size, .. } => {
                    live.remove(&old);
                    live.insert(new, size);
                }
                Record::ReallocBegin { old, .. } => {
                    if let Some(size) = live.remove(&old) {
                        moving.insert(thread, (old, size));
                    }
                }
                Record::ReallocEnd { new, size, .. } => {
                    moving.remove(&thread);
                    live.insert(new, size);
                }
                Record::ReallocFailed => {
                    live.extend(moving.remove(&thread));
                }
                Record::Snapshot { id, copying_us, .. } => {
                    let begun = us.checked_sub(copying_us).expect("copying began after time zero");
                    let first = events.partition_point(|(us, _)| *us < begun);
                    let in_motion = events[first..].iter().map(|(_, address)| *address).collect();
                    at_snapshots.insert(id, AtSnapshot { us, live: live.clone(), in_motion });
                    last = id;
                }
                _ => {}
            }
        }
    }
    assert!(reader.complete(), "{}", dump.display());
    at_snapshots
}

fn snapshot_file(dump: &Path, id: u32) -> PathBuf {
    PathBuf::from(format!("{}.{id}.snapshot", dump.display()))
}

/// Requires that the slots of an image have live blocks of the program: all of them but those that
/// its threads have in their hands, and no others but those that came or went during the copying.
fn check_slots(path: &Path, image: usize, (address, count): (u64, u64), at: &AtSnapshot) {
    let (mut held, mut others) = (0, 0);
    visit_words(File::open(path).unwrap(), image, |place, value| {
        if (address..address + 8 * count).contains(&place) {
            match at.live.get(&value) {
                Some(&BLOCK) => held += 1,
                _ => {
                    assert!(at.in_motion.contains(&value), "{} image {image}: {value:#x}", path.display());
                    others += 1;
                }
            }
        }
    })
    .unwrap();
    let blocks = at.live.values().filter(|size| **size == BLOCK).count();
    assert!(others <= THREADS, "{} image {image}: {others} slots", path.display());
    assert!(blocks.abs_diff(held) <= THREADS, "{} image {image}: {held} of {blocks}", path.display());
}

/// Four threads put blocks into slots and take them out, as fast as they can, while the program
/// forks, runs programs, waits for any child, loads libraries and starts threads.
#[test]
fn a_hundred_snapshots_disturb_nothing_and_belong_to_their_moments() {
    const ROUNDS: u32 = 100;
    let folder = tempfile::tempdir().unwrap();
    let parent = Parent::recorded(folder.path());
    for round in 0..ROUNDS {
        // Two images each in some of the rounds.
        let args: &[&str] = if round % 10 == 0 { &["--name", "two"] } else { &["--once"] };
        let said = parent.snapshot(args);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let (dump, slots) = (parent.dump.clone(), parent.slots);
    let (output, said, status) = parent.end();
    assert_eq!((output.as_str(), status), (UNDISTURBED, Some(7)), "{said}");
    assert!(!said.contains("snapshot"), "{said}");

    let records = at_snapshots(&dump);
    assert_eq!(records.len() as u32, ROUNDS + ROUNDS / 10);
    let mut images = 0;
    for id in 1..=records.len() as u32 {
        let path = snapshot_file(&dump, id);
        if !path.exists() {
            continue;
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let contents = SnapshotContents::read(File::open(&path).unwrap()).unwrap();
        for index in 0..contents.images.len() {
            check_slots(&path, index, slots, &records[&(id + index as u32)]);
            images += 1;
        }
    }
    assert_eq!(images, records.len());
    let summary = tests::json("summary", &dump, &[]);
    assert_eq!((&summary["exact"], &summary["complete"]), (&true.into(), &true.into()));
}

/// At the end the threads are stopped to read their registers.
#[test]
fn a_snapshot_at_the_end_has_the_registers_of_all_threads() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let mut run = profiler_cli();
    run.args(["run", "--report", "none", "--snapshot-at-end", "-o"]).arg(&dump).arg("--");
    let parent = Parent::start(run, &dump);
    let slots = parent.slots;
    let (output, said, status) = parent.end();
    assert_eq!((output.as_str(), status), (UNDISTURBED, Some(7)), "{said}");
    let path = snapshot_file(&dump, 1);
    let contents = SnapshotContents::read(File::open(&path).unwrap_or_else(|_| panic!("{said}"))).unwrap();
    assert_eq!(contents.name, b"end");
    check_slots(&path, 0, slots, &at_snapshots(&dump)[&1]);
    if contents.images.len() == 2 {
        // The kernel may let nobody trace.
        println!("skipped: ptrace missing");
        return;
    }
    assert!(contents.images[0].threads.iter().all(|thread| thread.registers.is_some()));
    assert!(!contents.images[0].threads.is_empty());
}

/// The program is killed while its copy is read, and while it is asked for one.
#[test]
fn a_program_that_is_killed_meanwhile_leaves_a_whole_dump() {
    for delay_ms in [0, 1, 3, 10, 30, 60] {
        let folder = tempfile::tempdir().unwrap();
        let parent = Parent::recorded(folder.path());
        let (dump, slots) = (parent.dump.clone(), parent.slots);
        let pid = std::fs::read(folder.path().join("x.alloc.tail")).unwrap();
        let pid = u32::from_le_bytes(*pid[alloc_dump::sidecar::PID_OFFSET..].first_chunk().unwrap());
        let asking = profiler_cli().arg("snapshot").arg(&dump).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        send(Signal::KILL, pid);
        let asked = asking.wait_with_output().unwrap();
        let (_, said, status) = parent.end();
        assert_eq!(status, Some(128 + 9), "{said}");
        let summary = tests::json("summary", &dump, &[]);
        assert_eq!(summary["dropped_frames"], 0);
        let said = String::from_utf8(asked.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        // There is a snapshot, or one line that says why not.
        let path = snapshot_file(&dump, 1);
        assert_eq!(asked.status.success(), path.exists(), "{said}");
        if path.exists() {
            check_slots(&path, 0, slots, &at_snapshots(&dump)[&1]);
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(left.len() <= 2, "{left:?}");
    }
}

#[test]
fn a_program_that_a_signal_ends_has_no_snapshot_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = profiler_cli();
    run.args(["run", "--report", "none", "--snapshot-at-end", "-o"]).arg(folder.path().join("x.alloc"));
    let output = run.args(["--", "sh", "-c", "kill -9 $$"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no snapshot at the end: a signal has ended the program"), "{said}");
    assert_eq!(output.status.code(), Some(128 + 9));
}

#[test]
fn what_does_not_record_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing.alloc");
    let ended = folder.path().join("ended.alloc");
    let run = cli([
        "run".as_ref(),
        "--report=none".as_ref(),
        "-o".as_ref(),
        ended.as_os_str(),
        "--".as_ref(),
        tests::program("unruly").as_os_str(),
        "return".as_ref(),
    ]);
    assert!(run.status.success());
    for target in [nothing, ended, PathBuf::from("1999999999"), PathBuf::from(std::process::id().to_string())]
    {
        let output = cli(["snapshot".as_ref(), target.as_os_str()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        if target.to_str() == Some("1999999999") {
            assert!(said.contains("there is no process 1999999999"), "{said}");
        }
    }
}

/// A request that its reader has given up is answered, so that the next one can be, and no copy is
/// made for it.
#[test]
fn a_request_that_was_withdrawn_makes_no_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (parent, words) = Parent::alone(folder.path());
    let request = |number: u64| {
        words.set(REQUESTER_OFFSET, std::process::id().into());
        words.set(REQUESTS_OFFSET, number);
        wait_until("an answer", || words.get(SERVED_OFFSET) == number);
    };
    words.set(WITHDRAWN_OFFSET, 1);
    request(1);
    assert_eq!(words.get(COPIES_OFFSET), 0);
    request(2);
    assert_eq!(words.get(COPIES_OFFSET), 1);
    words.set(RELEASED_OFFSET, 1);
    let dump = parent.dump.clone();
    assert_eq!(parent.end().0, UNDISTURBED);
    assert_eq!(at_snapshots(&dump).len(), 1);
}

#[test]
fn a_reader_that_is_short_of_memory_refuses_the_copy_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut parent, words) = Parent::alone(folder.path());
    words.set(SERVER_OFFSET, std::process::id().into());
    drop(parent.child.stdin.take());
    wait_until("the question", || words.get(LOOK_OFFSET) == 1);
    words.set(REFUSAL_OFFSET, u64::from(rustix::io::Errno::NOMEM.raw_os_error().unsigned_abs()));
    words.set(LOOKED_OFFSET, 1);
    let dump = parent.dump.clone();
    let (output, said, status) = parent.end();
    assert_eq!((output.as_str(), said.as_str(), status), (UNDISTURBED, "", Some(7)));
    assert_eq!(words.get(COPIES_OFFSET), 0);
    assert!(at_snapshots(&dump).is_empty());
}

/// The recorder tells the process id that it has inside of the container: 1, which is another
/// process here.
#[test]
fn a_program_in_another_pid_namespace_is_not_mixed_up_with_another_process() {
    let namespace = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let is_allowed = Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|s| s.success());
    if !is_allowed {
        println!("skipped: unshare missing");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let mut run = profiler_cli();
    run.args(["run", "--report", "none", "--snapshot-at-end", "-o"]).arg(&dump).args(["--", "unshare"]);
    run.args(namespace);
    let parent = Parent::start(run, &dump);
    wait_until("the sidecar", || folder.path().join("x.alloc.tail").exists());
    let refused = |target: &str| {
        let output = cli(["snapshot", target]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        said
    };
    let children =
        |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let unshare = children(&parent.child.id().to_string());
    let program = children(unshare.trim());
    let said = refused(dump.to_str().unwrap());
    assert!(said.contains("that it is process 1") && said.contains("in a container"), "{said}");
    if let Some(program) = program.split_whitespace().next() {
        let said = refused(program);
        assert!(said.contains("another PID namespace"), "{said}");
    }
    let (output, said, status) = parent.end();
    assert_eq!((output.as_str(), status), (UNDISTURBED, Some(7)), "{said}");
    assert_eq!(said.matches("no snapshot: ").count(), 1, "{said}");
    assert!(!snapshot_file(&dump, 1).exists() && at_snapshots(&dump).is_empty());
}

/// A program `brimful`, which waits before each of its steps.
struct Stepwise {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    printed: String,
}

impl Stepwise {
    /// Starts a command that becomes the program, and waits until it has worked once.
    fn start(command: &mut Command) -> Stepwise {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut program = Stepwise { child, output, printed: String::new() };
        program.wait_for("ready");
        program
    }

    /// Lets the program go on until it has printed this line.
    fn go_on_until(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.wait_for(line);
    }

    fn wait_for(&mut self, line: &str) {
        while self.printed.lines().last() != Some(line) {
            if self.output.read_line(&mut self.printed).unwrap() == 0 {
                let mut said = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("{line} is missing: {:?} {said}", self.child.wait());
            }
        }
    }

    /// Bytes of the program's address space.
    fn address_space(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: u64 = statm.split_whitespace().next().unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// Takes a snapshot by the process id. Returns whether there is one, and the line about it.
    fn snapshot(&self) -> (bool, String) {
        let output = cli(["snapshot", &self.child.id().to_string()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(matches!(output.status.code(), Some(0 | 2)), "{said}");
        (output.status.success(), said)
    }

    /// Lets the program work once more and end. Returns what it has printed, what was said on
    /// stderr, and the status.
    fn end(mut self) -> (String, String, Option<i32>) {
        self.go_on_until("worked");
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.output.read_to_string(&mut self.printed).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.printed, said, self.child.wait().unwrap().code())
    }
}

/// Blocks of [`BLOCK`] bytes that the program `brimful` allocates in both of its steps together,
/// and that it holds in between.
const BLOCKS_OF_STEPS: usize = 2 * 50_000;
const HELD_BETWEEN_STEPS: usize = 5;

/// Requires that the dump of a program `brimful` has all of it, and its record of the snapshot if
/// one was taken.
fn check_dump_of_steps(dump: &Path, is_taken: bool) {
    let summary = tests::json("summary", dump, &[]);
    assert_eq!((&summary["exact"], &summary["complete"]), (&true.into(), &true.into()), "{summary}");
    let (mut reader, mut blocks) = (Reader::new(File::open(dump).unwrap()).unwrap(), 0);
    while let Some(records) = reader.next_frame().unwrap() {
        blocks += records.filter(|record| matches!(record, Record::Alloc { size: BLOCK, .. })).count();
    }
    assert_eq!(blocks, BLOCKS_OF_STEPS);
    let records = at_snapshots(dump);
    let of_steps = |at: &AtSnapshot| at.live.values().filter(|size| **size == BLOCK).count();
    assert!(records.values().all(|at| of_steps(at) == HELD_BETWEEN_STEPS));
    assert_eq!(snapshot_file(dump, 1).exists(), is_taken);
    if is_taken {
        let contents = SnapshotContents::read(File::open(snapshot_file(dump, 1)).unwrap()).unwrap();
        assert_eq!((contents.images.len(), records.len()), (2, 2));
    }
}

/// When a program is limited to the address space that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    /// While it runs: the drain process, which is another process, has no limit.
    Later,
    /// From its start, and the drain process with it.
    FromItsStart,
}

/// Runs the program `brimful` until its address space is full.
fn fill_address_space(command: &mut Command, limited: Limited) -> Stepwise {
    let mut program = Stepwise::start(command);
    let mut limit = ADDRESS_SPACE;
    if limited == Limited::Later {
        limit = program.address_space();
        let pid = Pid::from_child(&program.child);
        let current = Rlimit { current: Some(limit), maximum: Some(limit) };
        prlimit(Some(pid), Resource::As, current).unwrap();
    }
    program.go_on_until("full");
    let left = limit.checked_sub(program.address_space()).expect("the limit holds");
    assert!(left < LEFT_AT_MOST, "{limited:?}: {left} bytes are left");
    program
}

const ADDRESS_SPACE: u64 = 1 << 30;
/// The C library asks for 128 KiB more than it needs when its heap grows.
const LEFT_AT_MOST: u64 = 160 << 10;

#[test]
fn a_program_whose_address_space_is_full_goes_on() {
    for limited in [Limited::Later, Limited::FromItsStart] {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("x.alloc");
        let command = |tracking: &str| {
            let mut command = Command::new(tests::program("brimful"));
            if limited == Limited::FromItsStart {
                // The shell counts in KiB.
                let script = format!("ulimit -v {} && exec \"$@\"", ADDRESS_SPACE >> 10);
                command = Command::new("sh");
                command.args(["-c", &script, "sh"]).arg(tests::program("brimful"));
            }
            command.arg("fill").env("ALLOC_TRACKER", tracking).env("ALLOC_TRACKER_OUT", &dump);
            command
        };
        let alone = fill_address_space(&mut command("off"), limited).end();
        assert_eq!(alone.2, Some(7), "{alone:?}");

        let program = fill_address_space(&mut command("trace"), limited);
        let (is_taken, said) = program.snapshot();
        assert_eq!(program.end(), alone, "{limited:?}: {said}");
        check_dump_of_steps(&dump, is_taken);
        match limited {
            Limited::Later => assert!(is_taken, "{said}"),
            // The copy's report needs more than is left.
            Limited::FromItsStart => {
                assert!(said.contains("the process cannot be copied: "), "{said}");
            }
        }
    }
}

/// Returns a command that changes its root, and executes what follows. `None` if nobody lets it.
fn command_that_changes_root(root: &Path) -> Option<Command> {
    let by_itself = Command::new("chroot");
    let mut in_user_namespace = Command::new("unshare");
    in_user_namespace.args(["--user", "--map-root-user", "chroot"]);
    [by_itself, in_user_namespace].into_iter().find_map(|mut command| {
        command.arg(root);
        let mut trial = Command::new(command.get_program());
        let output = trial.args(command.get_args()).args([Path::new("/brimful"), Path::new("--help")]);
        // With an empty input the program ends at once.
        let status = output.stdin(Stdio::null()).output().ok()?.status;
        (status.code() == Some(7)).then_some(command)
    })
}

/// Puts a program and the libraries that it needs into a folder. False if there is no `ldd`.
fn furnish_root(root: &Path, program: &Path) -> bool {
    let Ok(output) = Command::new("ldd").arg(program).output() else { return false };
    std::fs::copy(program, root.join(program.file_name().unwrap())).unwrap();
    // `libc.so.6 => /lib/libc.so.6 (0x...)`, and the loader without an arrow.
    for library in String::from_utf8(output.stdout).unwrap().split_whitespace() {
        if let Some(inside) = library.strip_prefix('/') {
            let copy = root.join(inside);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(library, copy).unwrap();
        }
    }
    true
}

/// There the recorder finds neither its mappings nor its descriptors in `/proc`.
#[test]
fn a_program_in_another_root_without_proc_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // The path in `/proc/PID/maps` has no links.
    let root = std::fs::canonicalize(folder.path()).unwrap();
    if !furnish_root(&root, &tests::program("brimful")) {
        println!("skipped: ldd missing");
        return;
    }
    let command = |tracking: &str| {
        let mut command = command_that_changes_root(&root)?;
        command.arg("/brimful").env("ALLOC_TRACKER", tracking).env("ALLOC_TRACKER_OUT", "/x.alloc");
        Some(command)
    };
    let (Some(mut untracked), Some(mut tracked)) = (command("off"), command("trace")) else {
        println!("skipped: chroot missing");
        return;
    };
    let mut alone = Stepwise::start(&mut untracked);
    alone.go_on_until("full");
    let alone = alone.end();
    assert_eq!(alone.2, Some(7), "{alone:?}");

    let mut program = Stepwise::start(&mut tracked);
    program.go_on_until("full");
    let (is_taken, said) = program.snapshot();
    // The process was found, whatever has become of the request.
    assert!(!said.contains("does not record") && !said.contains("there is no process"), "{said}");
    assert_eq!(program.end(), alone, "{said}");
    check_dump_of_steps(&root.join("x.alloc"), is_taken);
}
