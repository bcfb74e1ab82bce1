//! Modules that are not mapped as usual, have unusual names, or lack unwind tables; and a kernel
//! that refuses the calls by which modules are read. Names, stacks and figures are right all the
//! same, or the dump says what is missing.

#[path = "scenario/libraries.rs"]
mod libraries;
mod scenario;
#[path = "scenario/symbols.rs"]
mod symbols;

use std::ffi::OsStr;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use alloc_dump::layout::StackId;
use alloc_dump::record::SlowReason;
use alloc_tracker::{AllocTracker, Profiler};
use libraries::{Library, build_library, build_library_with};
use object::{Object, ObjectSymbol};
use scenario::replay::{Module, Replay};
use scenario::{Outcome, Run, Scenario};
use symbols::Symbols;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "refused_calls", child: refused_calls, check: check_refused_calls },
        Scenario { name: "memory_in_a_gap", child: memory_in_a_gap, check: check_memory_in_a_gap },
        Scenario { name: "moved_code", child: moved_code, check: check_moved_code },
        Scenario { name: "odd_names", child: odd_names, check: check_odd_names },
        Scenario {
            name: "library_without_tables",
            child: library_without_tables,
            check: check_library_without_tables,
        },
        Scenario {
            name: "program_without_tables",
            child: program_without_tables,
            check: check_program_without_tables,
        },
    ])
}

const MARK: usize = 27_182;
const EVENTS: u64 = 2000;

/// Allocates and frees a block of a size that tells which event it is.
#[inline(never)]
fn allocates_and_frees(size: usize) {
    drop(black_box(Vec::<u8>::with_capacity(size)));
}

extern "C" fn allocates<const NUMBER: usize>() {
    allocates_and_frees(MARK + NUMBER);
    // This must not be a tail call, which would leave no frame.
    black_box(0);
}

fn record(name: &str) -> Profiler {
    Profiler::builder().output(scenario::folder().join(name)).start().unwrap()
}

/// Asserts that the stack of the only allocation of this size is whole, and that its names are
/// those of this program. Returns its frames, leaf first.
fn assert_named(replay: &Replay, size: usize) -> Vec<u64> {
    let (chain, root) = replay.chain(replay.only_alloc(size as u64).stack);
    let symbols = Symbols::own();
    let names = symbols.names(replay, &chain);
    assert_eq!(root, StackId::ROOT, "{names:#?}");
    assert!(names.iter().any(|name| name.contains("allocates_and_frees")), "{names:#?}");
    assert!(names.last().is_some_and(|name| name.contains("_start")), "{names:#?}");
    chain
}

/// Two system calls are refused, as by the default filter of some containers.
fn refused_calls() {
    refuse(&[libc::SYS_process_vm_readv, libc::SYS_membarrier]);
    let profiler = record("dump.alloc");
    for _ in 0..EVENTS / 2 {
        allocates_and_frees(MARK);
    }
    allocates_and_frees(MARK + 1);
    profiler.finish().unwrap();
}

fn check_refused_calls(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_named(&replay, MARK + 1);
    let own: Vec<&Module> = replay.modules.iter().filter(|module| module.path == replay.exe).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].build_id, Symbols::own().build_id);
    // Rules are known although memory cannot be read in the usual way.
    assert!(replay.portable_walks() * 100 < EVENTS, "{:?}", replay.slow);
    assert!(replay.slow.contains(&SlowReason::NoMembarrier));
    assert!(!replay.slow.contains(&SlowReason::NoLoaderLookup));
}

/// Makes these system calls fail in this process.
fn refuse(calls: &[libc::c_long]) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    // The number of the call is the first field of what a filter sees.
    let mut filter = vec![step(LOAD, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        // Over the other calls and the step that allows.
        filter.push(step(IS_EQUAL, (calls.len() - index) as u8, *call as u32));
    }
    filter.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the program and its steps are valid for the duration of the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none), 0);
        let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none), 0);
    }
}

/// A line of /proc/self/maps that belongs to the library of this name.
struct Region {
    start: usize,
    len: usize,
    rights: String,
}

fn regions_of(name: &str) -> Vec<Region> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.ends_with(name));
    let region = |line: &str| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |digits| usize::from_str_radix(digits, 16).unwrap();
        let start = number(start);
        Region { start, len: number(end) - start, rights: rest[..4].to_owned() }
    };
    lines.map(region).collect()
}

/// Maps memory of the program's own at these addresses.
fn map_at(start: usize, len: usize) -> *mut libc::c_void {
    let (rights, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: the scenarios replace memory that no code uses meanwhile.
    let mapped = unsafe { libc::mmap(std::ptr::without_provenance_mut(start), len, rights, flags, -1, 0) };
    assert_eq!(mapped as usize, start);
    mapped
}

/// Memory of other origin lies between the segments of a library.
fn memory_in_a_gap() {
    let library = Library::open_at(&scenario::folder().join(WITH_GAPS));
    let gaps: Vec<Region> =
        regions_of(WITH_GAPS).into_iter().filter(|region| region.rights.starts_with("---")).collect();
    for gap in &gaps {
        map_at(gap.start, gap.len);
    }
    println!("gaps={}", gaps.len());
    println!("function={}", library.symbol(c"plugin_calls") as usize);
    let profiler = record("dump.alloc");
    library.call(allocates::<1>);
    profiler.finish().unwrap();
}

const WITH_GAPS: &str = "with_gaps.so";

fn check_memory_in_a_gap(name: &'static str) {
    let run = Run::of(name);
    let wide_pages =
        ["-Cforce-unwind-tables=yes", "-Clink-arg=-Wl,-z,separate-code,-z,max-page-size=0x10000"];
    if !build_library_with(run.folder(), WITH_GAPS, 10, 1, &wide_pages) {
        println!("skipped: rustc missing");
        return;
    }
    let outcome = run.finish();
    outcome.assert_quiet(0);
    if outcome.number("gaps") == 0 {
        println!("skipped: the linker leaves no gaps");
        return;
    }
    let replay = outcome.whole_replay();
    let chain = assert_named(&replay, MARK + 1);
    assert_is_library(&outcome, &replay, &chain, WITH_GAPS);
    assert!(replay.nodes.values().all(|node| node.module.is_some()));
}

/// Asserts that one frame of a stack is in the library's function, and that the module of the frame
/// is the library's file.
fn assert_is_library(outcome: &Outcome, replay: &Replay, chain: &[u64], library: &str) {
    let function = outcome.number("function");
    let frame = chain.iter().find(|pc| (function..function + 200).contains(pc));
    let frame = frame.unwrap_or_else(|| panic!("no frame of the library in {chain:x?}"));
    let module = replay.module_at(*frame).expect("a module for the library's frame");
    assert!(module.path.ends_with(library), "{}", module.path);
    let file = std::fs::read(outcome.folder().join(library)).unwrap();
    let file = object::File::parse(file.as_slice()).unwrap();
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("plugin_calls")).unwrap();
    assert_eq!(module.bias, function - symbol.address());
    assert_eq!(Some(&module.build_id[..]), file.build_id().unwrap());
    let size = std::fs::metadata(outcome.folder().join(library)).unwrap().len();
    assert!(module.code.is_some_and(|code| code.file_bytes == size && code.code_bytes > 0));
}

/// A library's code is moved into memory of the program's own, as some servers do with theirs.
fn moved_code() {
    let library = Library::open_at(&scenario::folder().join(MOVED));
    println!("function={}", library.symbol(c"plugin_calls") as usize);
    let profiler = record("dump.alloc");
    library.call(allocates::<1>);
    let code = regions_of(MOVED).into_iter().find(|region| region.rights.starts_with("r-x")).unwrap();
    // SAFETY: the code is readable. It does not run while it is away, and is the same afterwards.
    unsafe {
        let copy = std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(code.start), code.len);
        let copy = copy.to_vec();
        let memory = map_at(code.start, code.len);
        memory.cast::<u8>().copy_from_nonoverlapping(copy.as_ptr(), code.len);
        assert_eq!(libc::mprotect(memory, code.len, libc::PROT_READ | libc::PROT_EXEC), 0);
    }
    // Another library makes the tracker look at the mappings. After a look it waits for a while.
    std::thread::sleep(std::time::Duration::from_millis(150));
    let other = Library::open_at(&scenario::folder().join("other.so"));
    other.call(allocates::<2>);
    library.call(allocates::<3>);
    profiler.finish().unwrap();
    // This recording has never seen the library's code where it was.
    let profiler = record("second.alloc");
    library.call(allocates::<4>);
    profiler.finish().unwrap();
}

const MOVED: &str = "moved.so";

fn check_moved_code(name: &'static str) {
    let run = Run::of(name);
    let built = build_library(run.folder(), MOVED, 10, 1) && build_library(run.folder(), "other.so", 10, 1);
    if !built {
        println!("skipped: rustc missing");
        return;
    }
    let outcome = run.finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    for number in [1, 3] {
        assert_is_library(&outcome, &replay, &assert_named(&replay, MARK + number), MOVED);
    }
    // The look has happened, and the library is still the module that it was.
    assert!(replay.modules.iter().any(|module| module.path.ends_with("other.so")));
    let moved: Vec<&Module> = replay.modules.iter().filter(|module| module.path.ends_with(MOVED)).collect();
    assert!(moved.len() == 1 && moved[0].mapped, "{moved:?}");
    let second = Replay::of(&outcome.folder().join("second.alloc"));
    second.assert_whole();
    assert_is_library(&outcome, &second, &assert_named(&second, MARK + 4), MOVED);
}

/// Names with characters that the kernel writes in another way, and one of a file that is gone.
const ODD_NAMES: [&[u8]; 5] =
    [b"new\nline", b"no\xfftext", b"here (deleted)", b"folder (deleted)/back\\012slash", b"gone"];

fn odd_names() {
    for name in ODD_NAMES {
        let path = scenario::folder().join(OsStr::from_bytes(name));
        let library = Library::open_at(&path);
        if name == b"gone" {
            std::fs::remove_file(&path).unwrap();
        }
        library.call(allocates::<1>);
    }
}

fn check_odd_names(name: &'static str) {
    let run = Run::of(name).traced();
    let folder = run.folder().to_path_buf();
    if !build_library(&folder, "plain.so", 10, 1) {
        println!("skipped: rustc missing");
        return;
    }
    std::fs::create_dir(folder.join("folder (deleted)")).unwrap();
    for name in ODD_NAMES {
        std::fs::copy(folder.join("plain.so"), folder.join(OsStr::from_bytes(name))).unwrap();
    }
    let outcome = run.finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    for name in ODD_NAMES {
        let path = folder.join(OsStr::from_bytes(name));
        let path = path.to_string_lossy();
        let named = replay.modules.iter().filter(|module| module.path == path).count();
        assert_eq!(named, 1, "{path}: {:#?}", replay.modules);
    }
}

/// A library without unwind tables calls a function of the program.
fn library_without_tables() {
    let library = Library::open_at(&scenario::folder().join(WITHOUT_TABLES));
    println!("function={}", library.symbol(c"plugin_calls") as usize);
    let profiler = record("dump.alloc");
    for _ in 0..EVENTS / 2 {
        library.call(allocates::<1>);
    }
    library.call(allocates::<2>);
    allocates_and_frees(MARK + 3);
    profiler.finish().unwrap();
}

const WITHOUT_TABLES: &str = "without_tables.so";

/// Copies a program or library without its unwind tables; false if the tool for that is missing.
fn remove_tables(from: &Path, to: &Path) -> bool {
    let tables = [".eh_frame", ".eh_frame_hdr"].iter().flat_map(|section| ["--remove-section", section]);
    let done = Command::new("objcopy").args(tables).arg(from).arg(to).status();
    let done = done.is_ok_and(|status| status.success());
    if !done {
        println!("skipped: objcopy missing");
    }
    done
}

fn check_library_without_tables(name: &'static str) {
    let run = Run::of(name);
    let folder = run.folder().to_path_buf();
    if !build_library(&folder, "plain.so", 10, 1) {
        println!("skipped: rustc missing");
        return;
    }
    if !remove_tables(&folder.join("plain.so"), &folder.join(WITHOUT_TABLES)) {
        return;
    }
    let outcome = run.finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    // A stack is cut off where the library's caller would come next. All frames up to there are
    // right, and each such event is counted.
    let (chain, root) = replay.chain(replay.only_alloc(MARK as u64 + 2).stack);
    assert_eq!(root, StackId::TRUNCATED);
    assert_is_library(&outcome, &replay, &chain[chain.len() - 1..], WITHOUT_TABLES);
    let symbols = Symbols::own();
    let names = symbols.names(&replay, &chain);
    assert!(names.iter().any(|name| name.contains("allocates_and_frees")), "{names:#?}");
    let truncated = replay.trailer.and_then(|trailer| trailer.totals).unwrap().truncated_stacks;
    assert_eq!(truncated, EVENTS + 2);
    assert_named(&replay, MARK + 3);
    let library = replay.modules.iter().find(|module| module.path.ends_with(WITHOUT_TABLES)).unwrap();
    assert!(replay.slow.contains(&SlowReason::NoUnwindTables { module: library.id }), "{:?}", replay.slow);
    // That the library has no tables is found out once and not at each event.
    assert!(replay.portable_walks() * 100 < EVENTS, "{:?}", replay.slow);
}

/// The whole program has no unwind tables, nor has the hook.
fn program_without_tables() {
    for _ in 0..EVENTS / 2 {
        allocates_and_frees(MARK);
    }
    allocates_and_frees(MARK + 1);
}

fn check_program_without_tables(name: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let program: PathBuf = folder.path().join("program");
    if !remove_tables(&std::env::current_exe().unwrap(), &program) {
        return;
    }
    let outcome = Run::of_program(name, &program).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    // The caller of the allocator is known from its registers, and it is right.
    let (chain, root) = replay.chain(replay.only_alloc(MARK as u64 + 1).stack);
    assert_eq!((chain.len(), root), (1, StackId::TRUNCATED), "{chain:x?}");
    let module = replay.module_at(chain[0]).expect("a module for the only frame");
    assert_eq!(module.path, program.to_str().unwrap());
    let trailer = replay.trailer.and_then(|trailer| trailer.totals).unwrap();
    let events = replay.counts.events();
    // A stack of the C library may be walked to its end: the library has its tables.
    assert!(trailer.truncated_stacks <= events && trailer.truncated_stacks >= EVENTS + 2);
    assert!(replay.slow.contains(&SlowReason::NoUnwindTables { module: module.id }), "{:?}", replay.slow);
    assert!(replay.portable_walks() * 10 < EVENTS, "{:?}", replay.slow);
}
