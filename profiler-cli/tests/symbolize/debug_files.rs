//! Debug info in other files than the program's own.

use std::collections::BTreeSet;
use std::fs;

use profiler_cli::names::symbolize::{ModuleStatus, SymbolizeOptions};

use super::fixture::{Built, SourceFrame, chains, objcopy, symbolize};
use super::{FULL_PATHS, inlined_chain, options, with_dirs};

/// Moves the debug info of `app` to `app.debug`, and puts a link to that file into `app`.
fn split_off(built: &Built) -> Option<()> {
    let folder = built.folder.path();
    objcopy(folder, &["--only-keep-debug", "app", "app.debug"])?;
    objcopy(folder, &["--strip-all", "--add-gnu-debuglink=app.debug", "app"])
}

#[test]
fn a_debug_link_is_followed_to_its_usual_places() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let addresses = built.addresses_of("4work");
    if split_off(&built).is_none() {
        return;
    }
    let roots = built.file("roots");
    let mirrored = roots.join(built.folder.path().strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(&mirrored).expect("a writable folder");
    fs::create_dir(built.file(".debug")).expect("a writable folder");
    let elsewhere = SymbolizeOptions { debug_roots: vec![roots], ..options() };
    let mut from = built.file("app.debug");
    for to in [from.clone(), built.file(".debug/app.debug"), mirrored.join("app.debug")] {
        fs::rename(&from, &to).expect("the same disk");
        let symbols = symbolize(&built.spec(), &addresses, elsewhere.clone());
        assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)), "{}", to.display());
        assert_eq!(symbols.status(0), &ModuleStatus::LineTables { debug_file: to.clone() });
        from = to;
    }
    fs::remove_file(&from).expect("it is ours");
    let symbols = symbolize(&built.spec(), &addresses, elsewhere);
    assert!(matches!(symbols.status(0), ModuleStatus::NoSymbols { .. }));
}

#[test]
fn a_linked_debug_file_with_another_checksum_is_not_used() {
    let built = Built::program(&["-Cdebuginfo=2", "-Clink-arg=-Wl,--build-id=none"]);
    assert!(built.build_id.is_empty());
    let addresses = built.addresses_of("4work");
    if split_off(&built).is_none() {
        return;
    }
    let symbols = symbolize(&built.spec(), &addresses, options());
    assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));

    let mut bytes = fs::read(built.file("app.debug")).expect("it was made");
    bytes.push(0);
    fs::write(built.file("app.debug"), bytes).expect("a writable folder");
    let symbols = symbolize(&built.spec(), &addresses, options());
    assert!(!symbols.frames(0, addresses[0])[0].is_resolved);
}

#[test]
fn a_debug_file_is_found_by_its_build_id() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let addresses = built.addresses_of("4work");
    if split_off(&built).is_none() {
        return;
    }
    let hex: String = built.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_at(2);
    let root = built.file("root");
    let folder = root.join(".build-id").join(first);
    fs::create_dir_all(&folder).expect("a writable folder");
    fs::rename(built.file("app.debug"), folder.join(format!("{rest}.debug"))).expect("the same disk");

    let of_system = SymbolizeOptions { debug_roots: vec![root.clone()], ..options() };
    let renamed = built.file("renamed");
    fs::create_dir_all(renamed.join("deep")).expect("a writable folder");
    fs::copy(folder.join(format!("{rest}.debug")), renamed.join("deep/whatever")).expect("a copy");
    for options in [of_system, with_dirs(&[&root]), with_dirs(&[&renamed])] {
        let symbols = symbolize(&built.spec(), &addresses, options);
        assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));
    }
    // When the program is gone, the debug file alone is enough.
    fs::remove_file(&built.path).expect("it is ours");
    let symbols = symbolize(&built.spec(), &addresses, with_dirs(&[&root]));
    assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));
}

#[test]
fn packed_split_debug_info_is_read_beside_the_program_and_in_the_symbol_folders() {
    let built = Built::program(&["-Cdebuginfo=2", "-Csplit-debuginfo=packed"]);
    let addresses = built.addresses_of("4work");
    let package = built.file("app.dwp");
    assert!(package.is_file(), "the compiler packs it");
    let symbols = symbolize(&built.spec(), &addresses, options());
    assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));

    let elsewhere = built.file("elsewhere");
    fs::create_dir(&elsewhere).expect("a writable folder");
    fs::rename(&package, elsewhere.join("app.dwp")).expect("the same disk");
    let symbols = symbolize(&built.spec(), &addresses, with_dirs(&[&elsewhere]));
    assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));
}

#[test]
fn unpacked_split_debug_info_is_noticed_when_it_appears() {
    let built = Built::program(&["-Cdebuginfo=2", "-Csplit-debuginfo=unpacked"]);
    let addresses = built.addresses_of("4work");
    let is_split = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "dwo");
    let files = fs::read_dir(built.folder.path()).expect("our folder");
    let mut files = files.map(|entry| entry.expect("our folder").path()).filter(|path| is_split(path));
    let split = files.next().expect("the compiler leaves it there");
    assert!(files.next().is_none(), "the program is small");

    let cached = || SymbolizeOptions { cache_dir: Some(built.file("cache")), ..options() };
    let hidden = built.file("hidden");
    fs::rename(&split, &hidden).expect("the same disk");
    let symbols = symbolize(&built.spec(), &addresses, cached());
    let found = chains(&symbols, &addresses);
    assert!(found.iter().all(|chain| matches!(&chain[..], [SourceFrame { function, inlined: false, .. }]
        if function == "fixture::inner::work")));

    fs::rename(&hidden, &split).expect("the same disk");
    for _ in 0..2 {
        let symbols = symbolize(&built.spec(), &addresses, cached());
        assert!(chains(&symbols, &addresses).contains(&inlined_chain(FULL_PATHS)));
    }
}

/// Returns the names of `work` with its generic arguments, as its addresses give them.
fn instances(built: &Built) -> BTreeSet<String> {
    let addresses = built.addresses_of("4work");
    let symbols = symbolize(&built.spec(), &addresses, options());
    let frames = addresses.iter().flat_map(|&address| symbols.frames(0, address));
    let work = frames.filter(|frame| frame.function.contains("::work"));
    work.map(|frame| match &frame.generics {
        Some(generics) => format!("{}::{generics}", frame.function),
        None => frame.function.to_string(),
    })
    .collect()
}

#[test]
fn a_generic_functions_arguments_are_found_in_every_mode_of_debug_info() {
    let named = ["fixture::inner::work::<u8>".to_owned()];
    for arguments in [
        &["-Cdebuginfo=2"][..],
        &["-Cdebuginfo=limited"],
        &["-Cdebuginfo=line-tables-only"],
        &["-Cdebuginfo=2", "-Csplit-debuginfo=packed"],
        &["-Cdebuginfo=2", "-Csplit-debuginfo=unpacked"],
        &["-Cdebuginfo=2", "-Csymbol-mangling-version=v0"],
        &["-Cdebuginfo=0", "-Csymbol-mangling-version=v0"],
    ] {
        assert_eq!(instances(&Built::program(arguments)), named.clone().into(), "{arguments:?}");
    }
}
