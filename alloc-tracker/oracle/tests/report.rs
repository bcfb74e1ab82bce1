//! What `report_at_exit` writes equals the arithmetic over what a whole process did.
//!
//! The counts of a process under libtest would include the harness's own threads and messages. So
//! this test has no harness, and the counted process is this program, run once more.

use std::alloc::System;
use std::hint::black_box;
use std::process::{Command, ExitCode};

use alloc_oracle::{Counting, report_at_exit, snapshot};

#[global_allocator]
static ALLOC: Counting<System> = Counting::new(System);

const OUT: &str = "ALLOC_ORACLE_OUT";
const BLOCKS: u64 = 1000;
const BLOCK_BYTES: u64 = 64;

fn main() -> ExitCode {
    if std::env::var_os(OUT).is_some() { child() } else { parent() }
}

/// Leaks `BLOCKS` blocks, and prints what was live just before.
fn child() -> ExitCode {
    report_at_exit();
    let before = snapshot();
    for _ in 0..BLOCKS {
        std::mem::forget(black_box(vec![1u8; BLOCK_BYTES as usize]));
    }
    let after = snapshot();
    assert_eq!(after.allocations - before.allocations, BLOCKS);
    assert_eq!(after.live_bytes - before.live_bytes, BLOCKS * BLOCK_BYTES);
    println!("{} {}", before.live_blocks, before.live_bytes);
    ExitCode::SUCCESS
}

fn parent() -> ExitCode {
    let folder = std::env::temp_dir().join(format!("alloc-oracle-report-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the report");
    let path = folder.join("counts.json");

    let itself = std::env::current_exe().expect("the path of this test");
    let output = Command::new(itself).env(OUT, &path).output().expect("the child runs");
    let report = std::fs::read_to_string(&path).expect("the child wrote its report");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report.lines().count(), 1, "{report}");
    let count = |name: &str| number_after(&report, &format!("\"{name}\":"));

    assert_eq!(count("allocations") - count("deallocations"), count("live_blocks"));
    assert_eq!(count("allocated_bytes") - count("freed_bytes"), count("live_bytes"));
    // Blocks from before the leak may be freed by now; the leaked ones cannot.
    let printed = String::from_utf8(output.stdout).expect("two numbers");
    let (blocks, bytes) = printed.trim().split_once(' ').expect("two numbers");
    let leaked = BLOCKS..=BLOCKS + blocks.parse::<u64>().expect("a number");
    assert!(leaked.contains(&count("live_blocks")), "{report} is not in {leaked:?}");
    let leaked = BLOCKS * BLOCK_BYTES..=BLOCKS * BLOCK_BYTES + bytes.parse::<u64>().expect("a number");
    assert!(leaked.contains(&count("live_bytes")), "{report} is not in {leaked:?}");
    assert!(count("peak_bytes") >= count("live_bytes"));
    ExitCode::SUCCESS
}

fn number_after(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name} in {text}"));
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().expect("a number")
}
