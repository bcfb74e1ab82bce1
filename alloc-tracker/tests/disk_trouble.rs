//! The dump cannot be written: the tracker prints one line on stderr, and the host does not notice.

mod scenario;

use std::ffi::CString;
use std::hint::black_box;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use alloc_dump::sidecar::{RING_CAPACITY, RING_HEADER_LEN, RING_LEN, RINGS_START};
use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::noted::{self, Noted};
use scenario::replay::Replay;
use scenario::{Outcome, Run, Scenario};

#[global_allocator]
static ALLOC: Noted<Counting<AllocTracker>> = Noted(Counting::new(AllocTracker::system()));

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "cannot_begin", child: work_and_leave, check: check_cannot_begin },
        Scenario { name: "file_size_limit", child: work_and_leave, check: check_file_size_limit },
        Scenario { name: "no_byte_at_all", child: work_without_a_word, check: check_no_byte_at_all },
        Scenario { name: "full_disk", child: work_and_leave, check: check_full_disk },
        Scenario { name: "rings_cannot_grow", child: rings_cannot_grow, check: check_rings_cannot_grow },
        Scenario { name: "descriptors_closed", child: descriptors_closed, check: check_descriptors_closed },
        Scenario { name: "first_descriptors", child: first_descriptors, check: check_first_descriptors },
        Scenario { name: "descriptor_taken_over", child: descriptor_taken_over, check: check_taken_over },
    ])
}

const CODE: i32 = 42;
const MARK: usize = 70_000;

/// Causes events for several dump frames. Each event must leave `errno` alone, even the one at
/// which the recording stops.
fn work() -> usize {
    let mut sum = 0;
    for round in 0..60_000 {
        set_errno(77);
        let mut list = black_box(Vec::<usize>::with_capacity(1 + round % 13));
        list.push(round % 7);
        list.reserve_exact(40);
        sum += list.iter().sum::<usize>();
        drop(black_box(list));
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(77));
    }
    black_box(vec![1u8; MARK]);
    sum
}

fn set_errno(value: i32) {
    // SAFETY: the C library returns a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() = value };
}

fn work_and_leave() {
    println!("sum={}", work());
    std::process::exit(CODE);
}

fn work_without_a_word() {
    work();
    std::process::exit(CODE);
}

/// Asserts that the output and the exit status of the program are the same as without the tracker.
#[track_caller]
fn assert_as_untracked(outcome: &Outcome) {
    let untracked = Run::of("cannot_begin").finish();
    assert!(untracked.stderr.is_empty());
    assert_eq!((&outcome.stdout, outcome.status), (&untracked.stdout, untracked.status));
}

fn check_cannot_begin(name: &'static str) {
    let long_name = format!("/tmp/{}", "n".repeat(300));
    let long_path = format!("/{}", "p/".repeat(3000));
    let cases: [(&str, &[&str]); 8] = [
        ("missing/dump.alloc", &["cannot create", "missing/dump.alloc", "No such file"]),
        ("a_folder", &["cannot create", "a_folder", "Is a directory"]),
        ("/proc/self/dump.alloc", &["cannot create", "/proc/self/dump.alloc"]),
        ("a_link", &["cannot create", "a_link", "symbolic link"]),
        ("target", &["cannot create", "target", "is not a dump"]),
        (&long_name, &["cannot create", "File name too long"]),
        (&long_path, &["cannot create", "too long"]),
        ("/dev/full", &["cannot create /dev/full", "No space left"]),
    ];
    for (out, parts) in cases {
        let run = Run::of(name).env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", out);
        std::fs::create_dir(run.folder().join("a_folder")).unwrap();
        std::fs::write(run.folder().join("target"), "precious").unwrap();
        symlink(run.folder().join("target"), run.folder().join("a_link")).unwrap();
        let outcome = run.finish();
        outcome.assert_one_line(CODE, parts);
        assert_eq!(outcome.stderr.lines().count(), 1);
        assert_as_untracked(&outcome);
        assert_eq!(std::fs::read(outcome.folder().join("target")).unwrap(), b"precious");
        let mut files = outcome.files();
        files.sort();
        assert_eq!(files, ["a_folder", "a_link", "target"], "{out}");
    }
}

/// Asserts that the dump consists of whole frames, and that it says that it is not complete.
#[track_caller]
fn assert_stopped(outcome: &Outcome, errno: i32, sidecar: bool) -> Replay {
    outcome
        .assert_one_line(CODE, &["stops here", "the program goes on", &outcome.dump().display().to_string()]);
    assert_eq!(outcome.stderr.lines().count(), 1);
    let replay = outcome.replay();
    replay.assert_sound();
    assert!(!replay.complete && replay.trailer.is_none());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    assert_eq!(outcome.sidecar().exists(), sidecar);
    assert_eq!((replay.from_sidecar, replay.stopped_errno), (sidecar, if sidecar { errno } else { 0 }));
    let file = std::fs::File::open(outcome.dump()).unwrap();
    let len = file.metadata().unwrap().len();
    let mut reader = alloc_dump::read::Reader::new(file).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    assert_eq!(reader.end_of_whole_frames(), len, "half a frame stands in the dump");
    replay
}

/// The sidecar has room for the first part of a second thread's ring, and no more. The thread fills
/// its ring twice.
fn rings_cannot_grow() {
    report_at_exit();
    let work = || {
        // The thread's first event has made its ring.
        drop(black_box(vec![1u8; MARK]));
        let room = (RINGS_START + RING_LEN + 2 * RING_HEADER_LEN) as libc::rlim_t;
        let limit = libc::rlimit { rlim_cur: room, rlim_max: room };
        // SAFETY: the limit is valid.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
        for round in 0..RING_CAPACITY {
            drop(black_box(Vec::<u8>::with_capacity(1 + round % 300)));
        }
    };
    std::thread::spawn(work).join().unwrap();
    std::process::exit(CODE);
}

fn check_rings_cannot_grow(name: &'static str) {
    for drainer in ["thread", "caller"] {
        let outcome = Run::of(name).traced().env("ALLOC_TRACKER_DRAINER", drainer).finish();
        outcome.assert_quiet(CODE);
        let replay = outcome.whole_replay();
        assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
        assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
        assert!(replay.counts.events() > 2 * RING_CAPACITY as u64);
    }
}

fn check_file_size_limit(name: &'static str) {
    // The limits are in units of 512 bytes. The first leaves room for the dump's header alone. The
    // second leaves room for two frames of 256 KiB in the dump and for one ring in the sidecar. The
    // sidecar then has the third frame, and the ring's entries become the fourth. The drain process
    // may write a frame when the ring is empty.
    for (limit, sidecar, frames) in [(8, false, 0), (1100, true, 4)] {
        for by_caller in [false, true] {
            let run = Run::through_shell(name, &format!("ulimit -f {limit}")).traced();
            let outcome = if by_caller { run.drained_by_caller() } else { run }.finish();
            assert_as_untracked(&outcome);
            let replay = assert_stopped(&outcome, libc::EFBIG, sidecar);
            let empty_ring = u64::from(!by_caller && frames > 0 && replay.frames < frames);
            assert_eq!(replay.frames + empty_ring, frames);
            assert_eq!(replay.allocs(MARK as u64).count(), 0);
            assert!(frames == 0 || replay.counts.events() > 50_000, "{:?}", replay.counts);
        }
    }
}

/// There is no room even for the tracker's line on stderr, which is a file too.
fn check_no_byte_at_all(name: &'static str) {
    let outcome = Run::through_shell(name, "ulimit -f 0").traced().finish();
    outcome.assert_code(CODE);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
}

/// A small file system, which is unmounted when it is dropped.
struct SmallDisk(CString);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        let at = CString::new(at.as_os_str().as_bytes()).unwrap();
        let options = c"size=1m".as_ptr().cast();
        // SAFETY: all pointers are to C strings.
        let refused = unsafe { libc::mount(c"none".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), 0, options) };
        (refused == 0).then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the path is a C string.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

fn check_full_disk(name: &'static str) {
    let run = Run::of(name);
    let folder = run.folder().join("small");
    std::fs::create_dir(&folder).unwrap();
    let Some(_disk) = SmallDisk::mount(&folder) else {
        println!("skipped: mount missing");
        return;
    };
    let dump = folder.join("dump.alloc");
    let run = run.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", &dump);
    let outcome = run.drained_by_caller().finish();
    assert_as_untracked(&outcome);
    outcome.assert_one_line(CODE, &["stops here", "No space left on device"]);
    let replay = Replay::of(&dump);
    replay.assert_sound();
    assert!(!replay.complete && replay.from_sidecar && replay.stopped_errno == libc::ENOSPC);
    // 1 MiB without the 520 KiB of the sidecar has room for a frame of 256 KiB and a piece. The
    // sidecar has the second frame, and the ring's entries become the third.
    assert_eq!(replay.frames, 3);
    assert!(std::fs::metadata(&dump).unwrap().len() <= 64 + (256 << 10));
    // Now there is no room even for the file header.
    let mut filler = std::fs::File::create(folder.join("filler")).unwrap();
    while filler.write(&[0; 512]).is_ok() {}
    let run =
        Run::of(name).env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", folder.join("other.alloc"));
    let outcome = run.finish();
    assert_as_untracked(&outcome);
    outcome.assert_one_line(CODE, &["cannot create", "No space left on device"]);
}

fn close_all() {
    // SAFETY: a host may close descriptors that it does not know, and nothing of this program
    // relies on them.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
}

fn descriptors_closed() {
    noted::note_in(&scenario::folder().join("notes"));
    black_box(vec![1u8; MARK + 1]);
    close_all();
    work_and_leave();
}

/// A recording that the drain process writes goes on without the program's descriptors. One that
/// the program's own threads write stops.
fn check_descriptors_closed(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    assert_as_untracked(&outcome);
    outcome.assert_quiet(CODE);
    let replay = outcome.whole_replay();
    replay.only_alloc(MARK as u64 + 1);
    replay.only_alloc(MARK as u64);
    let outcome = Run::of(name).traced().drained_by_caller().finish();
    assert_as_untracked(&outcome);
    let replay = assert_stopped(&outcome, libc::EBADF, true);
    replay.only_alloc(MARK as u64 + 1);
    // The first frame, and one of the ring's entries.
    assert_eq!(replay.frames, 2);
}

const HOSTS: &[u8] = b"what the host writes, and nobody else";

/// A program that opens a file at any time gets the lowest descriptor that it does not use itself.
fn first_descriptors() {
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(400) {
        // The process must grow, or the tracker takes no samples.
        std::mem::forget(black_box(vec![1u8; 1 << 16]));
        for _ in 0..50 {
            assert_eq!(std::fs::File::open("/dev/null").unwrap().as_raw_fd(), 3);
        }
    }
    std::process::exit(CODE);
}

fn check_first_descriptors(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(CODE);
    let samples = outcome.whole_replay().samples.len();
    assert!(samples >= 5, "{samples}");
}

/// Opens a file of its own under the descriptor that the dump had, and uses it beyond the end of
/// the recording.
fn descriptor_taken_over() {
    black_box(vec![1u8; MARK + 1]);
    let theirs = descriptor_of(&scenario::folder().join("dump.alloc"));
    close_all();
    let path = scenario::folder().join("hosts");
    let first = std::fs::File::create(&path).unwrap();
    assert_eq!(first.as_raw_fd(), 3);
    // SAFETY: nothing uses the descriptor any more.
    let mut file = unsafe {
        assert_eq!(libc::dup2(first.as_raw_fd(), theirs), theirs);
        std::fs::File::from_raw_fd(theirs)
    };
    drop(first);
    file.write_all(HOSTS).unwrap();
    let sum = work();
    assert_eq!(std::fs::read(&path).unwrap(), HOSTS);
    // The descriptor is still open, and still refers to the same file.
    file.write_all(HOSTS).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 * HOSTS.len() as u64);
    drop(file);
    println!("sum={sum}");
    std::process::exit(CODE);
}

/// Returns the descriptor under which this process has a file open. The tracker leaves the lowest
/// descriptors to the program.
fn descriptor_of(path: &std::path::Path) -> i32 {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let is_it = |entry: &std::fs::DirEntry| std::fs::read_link(entry.path()).is_ok_and(|file| file == path);
    let number = entries.into_iter().find(is_it).unwrap().file_name().to_str().unwrap().parse().unwrap();
    assert!(number >= 200, "{number}");
    number
}

fn check_taken_over(name: &'static str) {
    let outcome = Run::of(name).traced().drained_by_caller().finish();
    assert_as_untracked(&outcome);
    let replay = assert_stopped(&outcome, libc::EBADF, true);
    replay.only_alloc(MARK as u64 + 1);
    assert_eq!(std::fs::read(outcome.folder().join("hosts")).unwrap(), HOSTS.repeat(2));
}
