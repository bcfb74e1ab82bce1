//! Holds memory in one of two ways, while a thread named `sleeper` waits:
//!
//! - `barely`: a buffer of 64 MiB, of which 10 MiB are written;
//! - `holes`: 65,536 blocks of 1 KiB (mark `full`), of which every sixteenth is kept.
//!
//! Then it sets the mark `held`, and prints what the kernel says about the process: the bytes of
//! all mappings, and those in physical memory. After each mark it waits until the recorder has
//! looked.

use std::hint::black_box;
use std::sync::mpsc;
use std::time::Duration;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

const BUFFER: usize = 64 << 20;
const WRITTEN: usize = 10 << 20;
const BLOCKS: usize = 65_536;
const BLOCK: usize = 1024;

fn main() {
    let (end, ended) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let sleeper = std::thread::Builder::new().name("sleeper".into()).spawn(move || {
        black_box(Vec::<u8>::with_capacity(100));
        ready.send(()).unwrap();
        let _ = ended.recv();
    });
    is_ready.recv().unwrap();
    match std::env::args().nth(1).as_deref() {
        Some("barely") => {
            let mut buffer = vec![0u8; BUFFER];
            buffer[..WRITTEN].iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            hold(black_box(&buffer));
        }
        Some("holes") => {
            let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1u8; BLOCK]).collect();
            wait_at("full");
            let mut number = 0;
            blocks.retain(|_| {
                number += 1;
                number % 16 == 0
            });
            hold(black_box(&blocks));
        }
        other => panic!("unknown way to hold memory {other:?}"),
    }
    drop(end);
    sleeper.unwrap().join().unwrap();
}

fn hold<T: ?Sized>(_held: &T) {
    wait_at("held");
    let list = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let sum = |name: &str| -> u64 {
        let lines = list.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|value| value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024).sum()
    };
    println!("size={}\nresident={}", sum("Size:"), sum("Rss:"));
}

fn wait_at(mark: &str) {
    alloc_tracker::mark(mark);
    std::thread::sleep(Duration::from_millis(1500));
}
