//! Names that a dump has kept stand for the files of the program. They are completed and bettered
//! where that is possible, and their trampolines tell which addresses are exact.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use alloc_dump::frame::FrameHeader;
use alloc_dump::header::Header;
use alloc_dump::layout::{CODEC_RAW, FRAME_HEADER_LEN};
use alloc_dump::read::Reader;
use alloc_dump::symbols::{FunctionSymbol, SymbolsEncoder};
use alloc_dump::trailer::{EndReason, Trailer};
use profiler_cli::names::symbolize::{
    CodeAddress, KeptNames, ModuleStatus, Modules, SymbolFrame, SymbolizeOptions, Symbols,
};

use crate::fixture::{Built, objcopy, symbolize};
use crate::{options, with_dirs};

/// Number of the module in the dump.
const MODULE: u32 = 7;

/// Returns the names as a reader finds them in a dump.
fn kept(symbols: &Symbols, addresses: &[CodeAddress], trampolines: &[u64]) -> Arc<KeptNames> {
    let mut encoder = SymbolsEncoder::new(3);
    encoder.begin_module(MODULE, trampolines);
    for &address in addresses {
        encoder.push(address.lookup(), symbols.frames(0, address).iter().map(function));
    }
    let payloads = encoder.finish().expect("the names are compressed");
    let mut empty = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
    let mut room = [0u8; FRAME_HEADER_LEN + 128];
    let trailer = Trailer::new(EndReason::Finished, 1);
    let len = alloc_dump::write::seal_trailer(&mut room, 0, &trailer).expect("a trailer is short");
    assert_eq!(FrameHeader::decode(&room).map(|header| header.codec), Some(CODEC_RAW));
    empty.extend_from_slice(&room[..len]);
    let mut dump = Vec::new();
    alloc_dump::compress::compress_with_symbols(empty.as_slice(), &mut dump, 3, Some(&payloads))
        .expect("a complete dump");
    let mut reader = Reader::new(dump.as_slice()).expect("a dump");
    reader.keep_symbols();
    assert!(reader.next_frame().expect("a reader of memory").is_none());
    let mut kept = KeptNames::of_dump(&reader.take_symbols());
    Arc::new(kept.remove(&MODULE).expect("the module has names"))
}

fn function(frame: &SymbolFrame) -> FunctionSymbol<'_> {
    FunctionSymbol {
        function: &frame.function,
        generics: frame.generics.as_deref(),
        file: frame.file.as_deref(),
        line: frame.line,
        column: frame.column,
        is_inlined: frame.is_inlined,
        is_named: frame.is_resolved,
    }
}

fn open(built: &Built, kept: &Arc<KeptNames>, options: SymbolizeOptions) -> Modules {
    Modules::open_with_names(&[built.spec()], std::slice::from_ref(kept), options).expect("readable folders")
}

fn named(modules: &Modules, addresses: &[CodeAddress]) -> Symbols {
    modules.symbolize(&[addresses.to_vec()], &|_, _| {}).expect("one list for one module")
}

#[test]
fn kept_names_are_those_of_the_file_that_is_gone() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let addresses = built.addresses_of("4work");
    let complete = symbolize(&built.spec(), &addresses, options());
    let kept = kept(&complete, &addresses, &[0x1234, 0x5678]);
    fs::remove_file(&built.path).expect("the file is ours");
    let modules = open(&built, &kept, options());
    assert!(modules.problem(0).is_none() && modules.uses_dump_alone(0) && !modules.uses_files(0));
    assert!(modules.is_signal_trampoline(0, 0x5678) && !modules.is_signal_trampoline(0, 0x5679));
    assert_eq!(modules.trampolines(0), [0x1234, 0x5678]);
    let symbols = named(&modules, &addresses);
    for &address in &addresses {
        assert_eq!(symbols.frames(0, address), complete.frames(0, address));
    }
    assert_eq!(symbols.status(0), &ModuleStatus::KeptNames);
}

#[test]
fn missing_names_are_looked_up_in_the_file_if_it_is_there() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let addresses = built.addresses_of("4work");
    let (first, rest) = addresses.split_at(addresses.len() / 2);
    let complete = symbolize(&built.spec(), &addresses, options());
    let kept = kept(&complete, first, &[]);
    let symbols = named(&open(&built, &kept, options()), &addresses);
    for &address in &addresses {
        assert_eq!(symbols.frames(0, address), complete.frames(0, address));
    }
    fs::remove_file(&built.path).expect("the file is ours");
    let symbols = named(&open(&built, &kept, options()), &addresses);
    assert!(first.iter().all(|&address| symbols.frames(0, address) == complete.frames(0, address)));
    assert!(rest.iter().all(|&address| !symbols.frames(0, address)[0].is_resolved));
    assert!(matches!(symbols.status(0), ModuleStatus::Missing { .. }));
}

#[test]
fn names_without_lines_give_way_to_debug_info_that_the_user_names() {
    let built = Built::program(&["-Cdebuginfo=2"]);
    let addresses = built.addresses_of("4work");
    let complete = symbolize(&built.spec(), &addresses, options());
    let folder = built.file("full");
    fs::create_dir(&folder).expect("a writable folder");
    fs::copy(&built.path, folder.join("app")).expect("a copy");
    if objcopy(built.folder.path(), &["--strip-debug", "app"]).is_none() {
        return;
    }
    let plain = symbolize(&built.spec(), &addresses, options());
    let kept = kept(&plain, &addresses, &[]);
    fs::remove_file(&built.path).expect("the file is ours");
    let symbols = named(&open(&built, &kept, options()), &addresses);
    assert!(matches!(symbols.status(0), ModuleStatus::SymbolTableOnly { .. }));
    assert!(addresses.iter().all(|&address| symbols.frames(0, address) == plain.frames(0, address)));
    for path in [&folder, &folder.join("app")] {
        let symbols = named(&open(&built, &kept, with_dirs(&[path])), &addresses);
        assert!(addresses.iter().all(|&address| symbols.frames(0, address) == complete.frames(0, address)));
    }
    // A folder without the program does not help, and does no harm.
    let empty = built.file("empty");
    fs::create_dir(&empty).expect("a writable folder");
    let symbols = named(&open(&built, &kept, with_dirs(&[Path::new(&empty)])), &addresses);
    assert!(addresses.iter().all(|&address| symbols.frames(0, address) == plain.frames(0, address)));
}
