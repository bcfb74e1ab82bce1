//! The modules that the addresses of a dump belong to: they have the right build-id and bias, and
//! come before their nodes.

#[path = "scenario/libraries.rs"]
mod libraries;
mod scenario;
#[path = "scenario/symbols.rs"]
mod symbols;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use alloc_dump::layout::StackId;
use alloc_tracker::{AllocTracker, Installation};
use libraries::{Library, build_library, plugin};
use object::{Object, ObjectSymbol};
use scenario::{Run, Scenario};
use symbols::Symbols;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "own_file", child: own_file, check: check_own_file },
        Scenario { name: "loaded_later", child: loaded_later, check: check_loaded_later },
        Scenario { name: "loaded_again", child: loaded_again, check: check_loaded_again },
        Scenario { name: "tiny_libraries", child: tiny_libraries, check: check_tiny_libraries },
        Scenario {
            name: "another_in_its_place",
            child: another_in_its_place,
            check: check_another_in_its_place,
        },
        Scenario { name: "library_with_a_tracker", child: library, check: check_library },
        Scenario { name: "only_the_library", child: only_the_library, check: check_only_the_library },
    ])
}

const MARK: usize = 31_415;

#[inline(never)]
extern "C" fn function_with_a_name() {
    black_box(Vec::<u8>::with_capacity(MARK));
}

fn own_file() {
    function_with_a_name();
}

fn check_own_file(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let (replay, symbols) = (outcome.whole_replay(), Symbols::own());
    let program = std::env::current_exe().unwrap();
    assert_eq!(replay.exe, program.to_str().unwrap());
    let own: Vec<_> = replay.modules.iter().filter(|module| module.path == replay.exe).collect();
    assert_eq!(own.len(), 1);
    assert!(own[0].nodes_before == 0 && own[0].mapped);
    assert_eq!(own[0].build_id, symbols.build_id);
    // The system's own tool agrees, if the machine has it.
    match Command::new("readelf").arg("-n").arg(&program).output() {
        Ok(notes) => {
            let hex: String = own[0].build_id.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(String::from_utf8_lossy(&notes.stdout).contains(&hex));
        }
        Err(_) => println!("skipped: readelf missing"),
    }
    // With a wrong bias the addresses would lie in other functions.
    let (chain, _) = replay.chain(replay.only_alloc(MARK as u64).stack);
    let names = symbols.names(&replay, &chain);
    assert!(names.iter().any(|name| name.contains("function_with_a_name")), "{names:#?}");
    assert!(names.last().is_some_and(|name| name.contains("_start")), "{names:#?}");
    // No address is outside of all modules, and no two modules overlap.
    assert!(replay.nodes.values().all(|node| node.module.is_some()));
    let mut ranges: Vec<_> = replay.modules.iter().map(|module| (module.start, module.end)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:x?}");
}

/// Loads a library and calls it at once, when the tracker has looked at the modules only a moment
/// ago.
fn loaded_later() {
    black_box(vec![1u8; 10]);
    let library = Library::open();
    library.call(function_with_a_name);
}

fn is_plugin(module: &&scenario::replay::Module) -> bool {
    module.path.ends_with("/libplugin.so")
}

fn skip_without_plugin() -> bool {
    let missing = plugin().is_none();
    if missing {
        println!("skipped: build the example `plugin` first, as `cargo test` without a selection does");
    }
    missing
}

fn check_loaded_later(name: &'static str) {
    if skip_without_plugin() {
        return;
    }
    // The library has a tracker of its own, which must not begin a second dump.
    let outcome = Run::of(name).checked().finish();
    outcome.assert_code(0);
    let replay = outcome.whole_replay();
    let library = replay.modules.iter().find(is_plugin).expect("the library is among the modules");
    assert!(library.mapped && !library.build_id.is_empty() && library.nodes_before > 0);
    let (chain, _) = replay.chain(replay.only_alloc(MARK as u64).stack);
    assert!(chain.iter().any(|pc| (library.start..library.end).contains(pc)), "{chain:x?}");
    // Each node comes after the module that it belongs to.
    assert!(replay.nodes.values().all(|node| node.module.is_some()));
}

/// Unmaps a library and maps it again, perhaps elsewhere. It is another module then, or the same
/// one if the tracker has not looked in between.
fn loaded_again() {
    for _ in 0..3 {
        let library = Library::open();
        library.call(function_with_a_name);
        library.close();
        std::thread::sleep(std::time::Duration::from_millis(120));
        black_box(vec![1u8; 10]);
    }
}

fn check_loaded_again(name: &'static str) {
    if skip_without_plugin() {
        return;
    }
    let outcome = Run::of(name).checked().finish();
    outcome.assert_code(0);
    let replay = outcome.whole_replay();
    assert!(replay.nodes.values().all(|node| node.module.is_some()));
    assert_eq!(replay.allocs(MARK as u64).count(), 3);
    for event in replay.allocs(MARK as u64) {
        let (chain, _) = replay.chain(event.stack);
        let inside =
            |pc: &u64| replay.modules.iter().filter(is_plugin).any(|m| (m.start..m.end).contains(pc));
        assert!(chain.iter().any(inside), "{chain:x?}");
    }
}

const TINY: [&str; 2] = ["tiny.so", "tiny_too.so"];

/// All of such a library's file lies in one page, which is mapped several times with different
/// rights. The second library is loaded right after the tracker had to look for the first.
fn tiny_libraries() {
    for (number, name) in TINY.iter().enumerate() {
        let library = Library::open_at(&scenario::folder().join(name));
        library.call(function_with_a_name);
        println!("function{number}={}", library.symbol(c"plugin_calls") as usize);
    }
}

fn check_tiny_libraries(name: &'static str) {
    let run = Run::of(name).checked();
    if !TINY.iter().all(|name| build_library(run.folder(), name, 10, 1)) {
        println!("skipped: rustc missing");
        return;
    }
    let outcome = run.finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert!(replay.nodes.values().all(|node| node.module.is_some()));
    for (number, name) in TINY.iter().enumerate() {
        let library: Vec<_> = replay.modules.iter().filter(|module| module.path.ends_with(name)).collect();
        assert_eq!(library.len(), 1);
        let file = std::fs::read(outcome.folder().join(name)).unwrap();
        let file = object::File::parse(file.as_slice()).unwrap();
        let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("plugin_calls")).unwrap();
        assert_eq!(library[0].bias, outcome.number(&format!("function{number}")) - symbol.address());
        assert_eq!(Some(&library[0].build_id[..]), file.build_id().unwrap());
    }
}

const LOADS: usize = 8;

/// Three libraries take turns at one address. When a library comes back, the tracker's knowledge of
/// it is out of date.
fn another_in_its_place() {
    let mut addresses = Vec::new();
    // After this time the tracker may look at the modules again.
    std::thread::sleep(std::time::Duration::from_millis(150));
    for load in 0..LOADS {
        let library = Library::open_at(&scenario::folder().join(LIBRARIES[load % LIBRARIES.len()]));
        addresses.push(library.symbol(c"plugin_calls") as usize);
        library.call(ALLOCATES[load]);
        library.close();
        // The tracker notices a library of another size at once. It notices a library of the same
        // size at the same addresses at the next sample at the latest, for which a busy machine may
        // need some time.
        if LIBRARIES[load % LIBRARIES.len()] == "smaller.so" {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    for (load, address) in addresses.iter().enumerate() {
        println!("function{load}={address}");
    }
}

const LIBRARIES: [&str; 3] = ["large.so", "smaller.so", "deep.so"];

extern "C" fn allocates<const LOAD: usize>() {
    black_box(Vec::<u8>::with_capacity(MARK + LOAD));
}

const ALLOCATES: [extern "C" fn(); LOADS] = [
    allocates::<0>,
    allocates::<1>,
    allocates::<2>,
    allocates::<3>,
    allocates::<4>,
    allocates::<5>,
    allocates::<6>,
    allocates::<7>,
];

fn check_another_in_its_place(name: &'static str) {
    let run = Run::of(name).checked();
    let folder = run.folder().to_path_buf();
    let built = build_library(&folder, LIBRARIES[0], 1000, 200_000)
        && build_library(&folder, LIBRARIES[1], 1000, 150_000)
        && build_library(&folder, LIBRARIES[2], 1064, 150_000);
    if !built {
        println!("skipped: rustc missing");
        return;
    }
    let outcome = run.finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    let symbols = Symbols::own();
    for load in 0..LOADS {
        let stack = replay.only_alloc((MARK + load) as u64).stack;
        let (chain, root) = replay.chain(stack);
        assert_eq!(root, StackId::ROOT, "load {load}");
        let function = outcome.number(&format!("function{load}"));
        let place = chain.iter().position(|pc| (function..function + 200).contains(pc));
        let place = place.unwrap_or_else(|| panic!("load {load}: no frame of the library in {chain:x?}"));
        let called_by = symbols.names(&replay, &chain[place + 1..]);
        assert!(called_by[..2].iter().any(|name| name.contains("in_its_place")), "{called_by:?}");
        // A reader would look the frame up in this file.
        let module = replay.nodes_of(stack).nth(place).and_then(|node| node.module);
        let module = replay.modules.iter().find(|known| Some(known.id) == module);
        let path = module.map_or("", |module| &module.path);
        assert!(path.ends_with(LIBRARIES[load % LIBRARIES.len()]), "load {load}: {path:?}");
    }
}

const BLOCKS: usize = 20_000;

/// The program is tracked, and so is a library, by its own copy of the tracker.
fn library() {
    black_box(Vec::<u8>::with_capacity(MARK));
    let library = Library::open();
    library.work(BLOCKS, MARK + 1);
    library.close();
    black_box(Vec::<u8>::with_capacity(MARK + 2));
    // This thread ends after the library is closed, although it has had events of the library's
    // tracker.
    std::thread::spawn(|| {
        let library = Library::open();
        library.work(10, MARK + 1);
        library.close();
    })
    .join()
    .unwrap();
}

fn check_library(name: &'static str) {
    if skip_without_plugin() {
        return;
    }
    Run::of(name).finish().assert_quiet(0);
    // The dump has one writer, the program's tracker, which was first. The library's tracker says
    // so at each load.
    let outcome = Run::of(name).traced().finish();
    outcome.assert_code(0);
    let lines = outcome.our_lines();
    assert!((1..=2).contains(&lines.len()), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("not profiling")), "{lines:?}");
    let replay = outcome.whole_replay();
    replay.only_alloc(MARK as u64);
    replay.only_alloc(MARK as u64 + 2);
    assert_eq!((replay.allocs(MARK as u64 + 1).count(), replay.lost, replay.foreign_frees), (0, 0, 0));
}

/// The program's tracker has read the environment and is off. The library's tracker reads it now.
fn only_the_library() {
    black_box(Vec::<u8>::with_capacity(MARK));
    let dump = scenario::folder().join("dump.alloc");
    // SAFETY: no other thread exists that could read the environment at the same time.
    unsafe {
        std::env::set_var("ALLOC_TRACKER", "trace");
        std::env::set_var("ALLOC_TRACKER_OUT", &dump);
    }
    let library = Library::open();
    library.work(BLOCKS, MARK + 1);
    library.close();
    black_box(Vec::<u8>::with_capacity(MARK));
    // Values of the library's thread-specific key may be left, but the destructor of the key must
    // not be called any more.
    std::thread::spawn(|| drop(black_box(vec![1u8; 10]))).join().unwrap();
}

fn check_only_the_library(name: &'static str) {
    if skip_without_plugin() {
        return;
    }
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.allocs(MARK as u64).count(), 0);
    assert_eq!(replay.allocs(MARK as u64 + 1).count(), 2 * BLOCKS + 1);
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    // The library's own code and its own copy of std, and not the program's.
    assert_eq!(replay.installation, Some(Installation::Complete));
    assert!(replay.nodes.values().all(|node| node.module.is_some()));
}
