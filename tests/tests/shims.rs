//! No stack of an optimized program has a frame of the compiler's functions around the allocator, `__rust_alloc` and its like.
//!
//! The judge reads the nodes of the dump with `alloc_dump` alone, and where those functions are with binutils' `nm`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use tests::{Run, has_tool, program};

#[test]
fn stacks_begin_in_the_programs_own_code() {
    if !has_tool("nm") {
        return;
    }
    let name = "real_serde_json";
    let shims = shims_of(&program(name));
    assert!(shims.len() >= 3, "allocating, freeing and moving: {shims:x?}");
    let run = Run::traced(name, &[]);
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    let nodes = nodes_of(&run.dump(), name);
    assert!(nodes.len() > 30, "{} nodes are too few to prove anything", nodes.len());
    let inside: Vec<_> = nodes.iter().filter(|pc| shims.iter().any(|shim| shim.contains(pc))).collect();
    // The shim is learnt from its first event, and there is one for each of the four.
    assert!(inside.len() <= 4, "{} of {} nodes: {inside:x?}", inside.len(), nodes.len());
}

/// Where the functions around the allocator are, by the program's own addresses.
fn shims_of(program: &Path) -> Vec<Range<u64>> {
    let output = Command::new("nm").arg("--print-size").arg(program).output().expect("nm runs");
    let symbols = String::from_utf8(output.stdout).expect("symbols are ASCII");
    let shim = |line: &str| {
        let [start, len, _, name] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        let is_shim = ["___rust_alloc", "___rust_dealloc", "___rust_realloc", "___rust_alloc_zeroed"]
            .iter()
            .any(|shim| name.ends_with(shim));
        let number = |text| u64::from_str_radix(text, 16).ok();
        let start = is_shim.then(|| number(start))??;
        // A return address may be the one behind the last instruction.
        Some(start + 1..start + number(len)? + 1)
    };
    symbols.lines().filter_map(shim).collect()
}

/// The return addresses of all nodes in the program's own code, as its file has them.
fn nodes_of(dump: &Path, name: &str) -> Vec<u64> {
    let mut reader = Reader::new(File::open(dump).expect("the dump")).expect("a dump");
    let (mut own, mut nodes) = (0..0, Vec::new());
    let mut bias = 0;
    while let Some(records) = reader.next_frame().expect("a readable dump") {
        records.for_each(|record| match record {
            Record::Module(module) if module.path.ends_with(name.as_bytes()) => {
                (own, bias) = (module.start..module.end, module.bias);
            }
            Record::Node { pc, .. } if own.contains(&pc) => nodes.push(pc - bias),
            _ => {}
        });
    }
    nodes
}
