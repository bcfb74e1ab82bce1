//! Damaged and malicious object files, and the signal trampoline, which is recognised by its
//! instructions.

use std::fs;

use object::{Object as _, ObjectSection as _};
use profiler_cli::names::symbolize::{CodeAddress, ModuleSpec, Modules};

use super::fixture::{Built, symbolize};
use super::options;

/// A fixed sequence of pseudo-random numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }
}

#[test]
fn damaged_files_lose_names_and_cause_no_other_harm() {
    let built = Built::library();
    let whole = fs::read(&built.path).expect("it was built");
    let addresses = built.addresses_of("fixture_work");
    let debug_info = {
        let file = object::File::parse(&*whole).expect("an object file");
        let (start, size) =
            file.section_by_name(".debug_info").and_then(|s| s.file_range()).expect("debug info");
        usize::try_from(start).expect("a small file")..usize::try_from(start + size).expect("a small file")
    };
    // Without a recorded build-id any file is accepted, so the damaged bytes are really read.
    let spec = ModuleSpec { path: built.file("damaged.so"), ..ModuleSpec::default() };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..1500 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(random.below(whole.len())),
            1 => (0..8).for_each(|_| bytes[random.below(whole.len())] = random.below(256) as u8),
            _ => (0..3).for_each(|_| {
                let index = debug_info.start + random.below(debug_info.len());
                bytes[index] = random.below(256) as u8;
            }),
        }
        fs::write(&spec.path, &bytes).expect("a writable folder");
        let symbols = symbolize(&spec, &addresses, options());
        for &address in &addresses {
            let frames = symbols.frames(0, address);
            assert!(!frames.is_empty() && frames.len() <= 1000, "round {round}");
            assert!(frames.iter().all(|frame| frame.function.len() <= 4096), "round {round}");
        }
    }
}

#[test]
fn absurdly_nested_entries_are_refused() {
    let built = Built::library();
    let addresses = built.addresses_of("fixture_work");
    let mut bytes = fs::read(&built.path).expect("it was built");
    let (info, abbreviations) = {
        let file = object::File::parse(&*bytes).expect("an object file");
        let range =
            |name| file.section_by_name(name).and_then(|section| section.file_range()).expect("debug info");
        (range(".debug_info"), range(".debug_abbrev"))
    };
    let at = |offset: u64| usize::try_from(offset).expect("a small file");
    // The section is replaced by one unit, which is appended to the file. The unit has a header
    // (version 4, addresses of 8 bytes), then two million inlined functions without attributes,
    // each nested in the one before.
    let depth = 2_000_000_usize;
    let mut unit = Vec::new();
    unit.extend(u32::try_from(7 + depth).expect("small").to_le_bytes());
    unit.extend(4_u16.to_le_bytes());
    unit.extend(0_u32.to_le_bytes());
    unit.push(8);
    unit.extend(std::iter::repeat_n(1, depth));
    // Abbreviation 1: DW_TAG_inlined_subroutine, with children, no attributes.
    bytes[at(abbreviations.0)..at(abbreviations.0) + 6].copy_from_slice(&[1, 0x1d, 1, 0, 0, 0]);
    let moved = bytes.len() as u64;
    // The section's header is found by its two neighbouring fields, the old offset and the old
    // size.
    let old: Vec<u8> = [info.0.to_le_bytes(), info.1.to_le_bytes()].concat();
    let header = bytes.windows(16).position(|window| window == old).expect("a section header");
    let new: Vec<u8> = [moved.to_le_bytes(), (unit.len() as u64).to_le_bytes()].concat();
    bytes[header..header + 16].copy_from_slice(&new);
    bytes.extend(unit);
    fs::write(&built.path, bytes).expect("a writable folder");

    let symbols = symbolize(&built.spec(), &addresses, options());
    let status = symbols.status(0).to_string();
    assert!(status.contains("nested"), "{status}");
    assert_eq!(&*symbols.frames(0, addresses[0])[0].function, "fixture_work");
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn the_signal_trampoline_is_known_by_its_instructions() {
    let built = Built::library();
    let trampoline = built.addresses_of("fixture_trampoline")[0].lookup();
    let modules = Modules::open(&[built.spec()], options()).expect("no symbol folders");
    for _ in 0..2 {
        assert!(modules.is_signal_trampoline(0, trampoline));
        for other in
            [trampoline - 1, trampoline + 1, 0, u64::MAX, built.addresses_of("fixture_work")[0].lookup()]
        {
            assert!(!modules.is_signal_trampoline(0, other));
        }
    }
    assert!(!modules.is_signal_trampoline(1, trampoline));
    // The address of a trampoline's frame is exact, not a return address: one byte before is other
    // code, or none.
    let address = CodeAddress::exact(trampoline);
    let symbols = modules.symbolize(&[vec![address]], &|_, _| {}).expect("one list for one module");
    assert_eq!(&*symbols.frames(0, address)[0].function, "fixture_trampoline");
}
