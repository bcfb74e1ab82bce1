//! A program that ends in every way there is. Its first argument says how; it always holds `HELD` blocks of 1,000 bytes
//! by then.

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
            say_that_it_holds_them();
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        "work" => {
            say_that_it_holds_them();
            loop {
                std::hint::black_box(vec![0u8; 100]);
            }
        }
        // Another process of the same run, in the middle of this one.
        "child" => {
            let own = std::env::current_exe().expect("own path");
            let status = Command::new(own).arg("return").status().expect("a child");
            assert!(status.success());
        }
        other => panic!("unknown end {other:?}"),
    }
    drop(held);
}

fn say_that_it_holds_them() {
    println!("ready");
    std::io::stdout().flush().expect("stdout");
}

#[inline(never)]
#[allow(clippy::vec_box, reason = "a block for each is the point")]
fn hold() -> Vec<Box<[u8; 1000]>> {
    let mut held = Vec::with_capacity(HELD);
    for _ in 0..HELD {
        held.push(Box::new([1; 1000])); // HELD
    }
    held
}

#[allow(unconditional_recursion, reason = "the end of the stack is the point")]
fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    overflow(depth + 1) + room[0]
}
