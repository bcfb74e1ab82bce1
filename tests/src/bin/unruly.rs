//! A program that can end in every way there is. The first argument says how. At its end it always
//! holds `HELD` blocks of 1,000 bytes.

use std::io::Write;
use std::process::Command;

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const HELD: usize = 50;

fn main() {
    let mut args = std::env::args().skip(1);
    let end = args.next().unwrap_or_default();
    let held = hold();
    match end.as_str() {
        "return" => {}
        "exit" => std::process::exit(args.next().and_then(|code| code.parse().ok()).unwrap_or(0)),
        "panic" => panic!("as asked"),
        "abort" => std::process::abort(),
        "overflow" => drop(std::hint::black_box(overflow(0))),
        "wait" => {
            print_ready();
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        "work" => {
            print_ready();
            loop {
                std::hint::black_box(vec![0u8; 100]);
            }
        }
        // Runs another process in the middle of this one.
        "child" => {
            let own = std::env::current_exe().expect("own path");
            let status = Command::new(own).arg("return").status().expect("a child");
            assert!(status.success());
        }
        other => panic!("unknown end {other:?}"),
    }
    drop(held);
}

fn print_ready() {
    println!("ready");
    std::io::stdout().flush().expect("stdout");
}

#[inline(never)]
#[allow(clippy::vec_box, reason = "each box is to be a block")]
fn hold() -> Vec<Box<[u8; 1000]>> {
    let mut held = Vec::with_capacity(HELD);
    for _ in 0..HELD {
        held.push(Box::new([1; 1000])); // HELD
    }
    held
}

#[allow(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    overflow(depth + 1) + frame[0]
}
