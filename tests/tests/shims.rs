//! The stacks of an optimized program leave out the compiler's shims around the allocator, such as
//! `__rust_alloc`.
//!
//! The test reads the nodes of the dump with `alloc_dump` alone, and gets the addresses of the
//! shims from binutils' `nm`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use alloc_dump::read::Reader;
use alloc_dump::record::Record;
use tests::{Run, has_tool, program};

#[test]
fn stacks_leave_out_the_shims_around_the_allocator() {
    if !has_tool("nm") {
        return;
    }
    let name = "real_serde_json";
    let shims = shims_of(&program(name));
    assert!(shims.len() >= 3, "the shims that allocate, free and reallocate: {shims:x?}");
    let run = Run::traced(name, &[]);
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    let nodes = nodes_of(&run.dump(), name);
    assert!(nodes.len() > 30, "{} nodes are too few to prove anything", nodes.len());
    let in_shims: Vec<_> = nodes.iter().filter(|pc| shims.iter().any(|shim| shim.contains(pc))).collect();
    // The recorder learns where a shim is from the first event that passes through it, whose stack
    // may still have the shim. So each of the four shims may have one node.
    assert!(in_shims.len() <= 4, "{} of {} nodes: {in_shims:x?}", in_shims.len(), nodes.len());
}

/// Returns the range of return addresses in each shim, by the addresses of the program's file.
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
        // A return address is behind a call: it may be behind the last instruction, and is never at
        // the first.
        Some(start + 1..start + number(len)? + 1)
    };
    symbols.lines().filter_map(shim).collect()
}

/// Returns the return addresses of all nodes in the program's own code, by the addresses of its
/// file.
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
