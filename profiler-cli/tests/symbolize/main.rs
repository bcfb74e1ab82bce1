//! The symbolizer on programs built for its tests: every mode of debug info, every folder where
//! debug files may be, the cache, and damaged files. Expected lines are found by the marker
//! comments in the fixture's source.

mod async_names;
mod debug_files;
mod fixture;
mod hostile;
mod kept;

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::{Built, SourceFrame, build_id, chains, line_of, symbolize, wreck_sections};
use profiler_cli::names::symbolize::classify::is_runtime;
use profiler_cli::names::symbolize::{
    CodeAddress, ModuleSpec, ModuleStatus, Modules, SymbolizeError, SymbolizeOptions,
};

/// SymbolizeOptions without the system's folders for debug files, so that the machine cannot change
/// a result.
fn options() -> SymbolizeOptions {
    SymbolizeOptions { debug_roots: Vec::new(), ..SymbolizeOptions::default() }
}

/// The same options with folders of symbols.
fn with_dirs(dirs: &[&Path]) -> SymbolizeOptions {
    SymbolizeOptions { symbol_dirs: dirs.iter().map(|&dir| dir.to_owned()).collect(), ..options() }
}

/// The frames at an address of `leaf`, which is inlined into `middle`, which is inlined into
/// `work`.
fn inlined_chain(names: [&str; 3]) -> Vec<SourceFrame> {
    let markers = ["MARK leaf", "MARK middle", "MARK work"].map(line_of);
    let frames = names.iter().zip(markers).zip([true, true, false]);
    frames.map(|((name, line), inlined)| SourceFrame::new(name, line, inlined)).collect()
}

const FULL_PATHS: [&str; 3] = ["fixture::inner::leaf", "fixture::inner::middle", "fixture::inner::work"];

#[test]
fn full_and_limited_debug_info_give_full_paths_and_all_inlined_calls() {
    for debug_info in ["-Cdebuginfo=2", "-Cdebuginfo=limited"] {
        let built = Built::program(&[debug_info]);
        let addresses = built.addresses_of("4work");
        let symbols = symbolize(&built.spec(), &addresses, options());
        let found = chains(&symbols, &addresses);
        assert!(found.contains(&inlined_chain(FULL_PATHS)), "{debug_info}: {found:#?}");
        assert_eq!(symbols.status(0), &ModuleStatus::LineTables { debug_file: built.path.clone() });
        for frame in addresses.iter().flat_map(|&address| symbols.frames(0, address)) {
            let file = frame.file.as_deref().expect("every instruction of this function has a file");
            assert!(file.ends_with("/main.rs") || file.starts_with("/rustc/"), "{file}");
            assert_eq!(is_runtime(&frame.function, Some(file), "app"), file.starts_with("/rustc/"));
        }
    }
}

#[test]
fn the_v0_mangling_gives_the_same_chain_of_calls() {
    let built = Built::program(&["-Cdebuginfo=limited", "-Csymbol-mangling-version=v0"]);
    let addresses = built.addresses_of("4work");
    let symbols = symbolize(&built.spec(), &addresses, options());
    let expected = inlined_chain([FULL_PATHS[0], FULL_PATHS[1], "fixture::inner::work::<u8>"]);
    assert!(chains(&symbols, &addresses).contains(&expected));
}

#[test]
fn line_tables_alone_give_the_outermost_function_its_full_path() {
    let built = Built::program(&["-Cdebuginfo=line-tables-only"]);
    let addresses = built.addresses_of("4work");
    let symbols = symbolize(&built.spec(), &addresses, options());
    let found = chains(&symbols, &addresses);
    assert!(found.contains(&inlined_chain(["leaf", "middle", "fixture::inner::work"])), "{found:#?}");
    assert!(matches!(symbols.status(0), ModuleStatus::LineTables { .. }));
}

#[test]
fn without_debug_info_names_come_from_the_symbol_table() {
    let built = Built::program(&["-Cdebuginfo=0"]);
    let addresses = built.addresses_of("4work");
    let symbols = symbolize(&built.spec(), &addresses, options());
    let expected = [vec![SourceFrame::new("fixture::inner::work", None, false)]];
    assert_eq!(chains(&symbols, &addresses), expected.into());
    // The program has line tables all the same, those of the standard library.
    assert_eq!(symbols.status(0), &ModuleStatus::SymbolTableOnly { path: built.path.clone() });
}

#[test]
fn without_any_symbols_an_address_stays_an_address() {
    let named = Built::program(&["-Cdebuginfo=0"]);
    let built = Built::program(&["-Cdebuginfo=0", "-Cstrip=symbols"]);
    let address = named.addresses_of("4work")[0];
    let symbols = symbolize(&built.spec(), &[address], options());
    let [frame] = symbols.frames(0, address) else { panic!("an address without symbols has one frame") };
    assert_eq!(&*frame.function, format!("app+{:#x}", address.lookup()));
    assert!(!frame.is_resolved && !frame.is_inlined && frame.file.is_none() && frame.line.is_none());
    assert_eq!(symbols.status(0), &ModuleStatus::NoSymbols { path: built.path.clone() });
}

#[test]
fn the_result_depends_on_neither_threads_nor_order_nor_cache() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    // The addresses of 9,000 bytes of code from the function on are so many that they are looked up
    // in several slices.
    let first = built.addresses_of("4work")[0].lookup();
    let addresses: Vec<CodeAddress> = (first..first + 9000).map(CodeAddress::exact).collect();
    let shuffled: Vec<CodeAddress> = addresses.iter().rev().chain(&addresses[..10]).copied().collect();
    let cache = tempfile::tempdir().expect("a temporary folder");
    let cached = || SymbolizeOptions { cache_dir: Some(cache.path().join("symbols")), ..options() };
    let workers = |count| SymbolizeOptions { max_workers: NonZeroUsize::new(count), ..options() };
    let expected = symbolize(&built.spec(), &addresses, workers(1));
    assert!(
        addresses.iter().any(|&address| is_outside_of_work(&expected, address)),
        "the addresses are in several functions"
    );
    for (addresses, options) in
        [(&shuffled, workers(1)), (&addresses, workers(4)), (&shuffled, cached()), (&addresses, cached())]
    {
        let found = symbolize(&built.spec(), addresses, options);
        assert_eq!(found.status(0), expected.status(0));
        for &address in addresses {
            assert_eq!(found.frames(0, address), expected.frames(0, address));
        }
    }
}

/// Whether the address is in another function than `work`.
fn is_outside_of_work(symbols: &profiler_cli::names::symbolize::Symbols, address: CodeAddress) -> bool {
    symbols.frames(0, address).last().is_some_and(|frame| !frame.function.contains("work"))
}

#[test]
fn a_second_run_reads_no_debug_info() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let addresses = built.addresses_of("4work");
    let (known, later) = addresses.split_at(addresses.len() / 2);
    let cache = tempfile::tempdir().expect("a temporary folder");
    let cached = || SymbolizeOptions { cache_dir: Some(cache.path().to_owned()), ..options() };
    let complete = symbolize(&built.spec(), &addresses, options());
    symbolize(&built.spec(), known, cached());
    // The second run adds the addresses that the first one did not have to the cache.
    symbolize(&built.spec(), later, cached());

    wreck_sections(&built.path, &[".debug_info", ".debug_line", ".debug_abbrev"]);
    let from_cache = symbolize(&built.spec(), &addresses, cached());
    let without = symbolize(&built.spec(), &addresses, options());
    for &address in &addresses {
        assert_eq!(from_cache.frames(0, address), complete.frames(0, address));
        assert_ne!(without.frames(0, address), complete.frames(0, address), "the debug info is wrecked");
    }
    assert_eq!(from_cache.status(0), complete.status(0));
    assert!(from_cache.warnings().is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let built = Built::program(&["-Cdebuginfo=0"]);
    let addresses = built.addresses_of("4work");
    let file = built.file("no-folder");
    fs::write(&file, "").expect("a writable folder");
    let symbols = symbolize(
        &built.spec(),
        &addresses,
        SymbolizeOptions { cache_dir: Some(file.join("cache")), ..options() },
    );
    assert_eq!(&*symbols.frames(0, addresses[0])[0].function, "fixture::inner::work");
    assert!(matches!(symbols.warnings(), [warning] if warning.contains("no-folder")));
}

#[test]
fn a_rebuilt_program_gives_no_names_until_the_recorded_build_is_found() {
    let recorded = Built::program(&["-Cdebuginfo=2"]);
    let addresses = recorded.addresses_of("4work");
    let kept = recorded.file("kept");
    fs::create_dir(&kept).expect("a writable folder");
    fs::copy(&recorded.path, kept.join("app-of-yesterday")).expect("a copy");
    fs::copy(Built::program(&["-Cdebuginfo=1"]).path, &recorded.path).expect("a rebuilt program");

    let modules = Modules::open(&[recorded.spec()], options()).expect("no symbol folders");
    let problem = modules.problem(0).expect("it is another build");
    let found_id = build_id(&recorded.path);
    assert!(matches!(problem, ModuleStatus::WrongBuild { recorded_id, found_id: found, .. }
        if *recorded_id == recorded.build_id && *found == found_id));
    let symbols =
        modules.symbolize(std::slice::from_ref(&addresses), &|_, _| {}).expect("one list for one module");
    assert_eq!(symbols.status(0), problem);
    assert!(addresses.iter().all(|&address| !symbols.frames(0, address)[0].is_resolved));

    let symbols = symbolize(&recorded.spec(), &addresses, with_dirs(&[&kept]));
    assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));
}

#[test]
fn modules_keep_their_own_addresses_and_a_missing_one_its_reason() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let gone = ModuleSpec { path: "/nowhere/libgone.so".into(), build_id: vec![1; 20], code: None };
    let modules = Modules::open(&[gone, built.spec()], options()).expect("no symbol folders");
    let addresses = built.addresses_of("4work");
    let (done, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let progress = |now: usize, total: usize| {
        assert!(now <= total && total == 2 * addresses.len());
        done.fetch_max(now, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed);
    };
    let symbols = modules.symbolize(&[addresses.clone(), addresses.clone()], &progress).expect("two lists");
    assert_eq!(done.into_inner(), 2 * addresses.len());
    let [frame] = symbols.frames(0, addresses[0]) else {
        panic!("an address of a missing file has one frame")
    };
    assert_eq!(&*frame.function, format!("libgone.so+{:#x}", addresses[0].lookup()));
    assert!(matches!(symbols.status(0), ModuleStatus::Missing { .. }));
    assert!(symbols.frames(1, addresses[0])[0].is_resolved);
    // Addresses and modules that were not symbolized.
    assert_eq!(&*symbols.frames(0, CodeAddress::exact(1))[0].function, "libgone.so");
    assert_eq!(&*symbols.frames(9, CodeAddress::exact(1))[0].function, "[unknown]");
    assert!(matches!(
        modules.symbolize(&[], &|_, _| {}),
        Err(SymbolizeError::WantedLists { modules: 2, lists: 0 })
    ));
}

#[test]
fn a_symbol_folder_that_is_not_there_is_an_error() {
    let error =
        Modules::open(&[], with_dirs(&[Path::new("/nowhere/symbols")])).err().expect("it cannot be read");
    assert!(error.to_string().contains("/nowhere/symbols"));
}
