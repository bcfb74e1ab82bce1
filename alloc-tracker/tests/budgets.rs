//! Budgets: the figures are those of the oracle and of arithmetic, each thread counts for itself,
//! and the message of an exceeded budget names the lines of code.

mod scenario;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::mpsc::channel;

use alloc_oracle::Counting;
use alloc_tracker::block::budget;
use alloc_tracker::{AllocTracker, ScopeHandle};
use scenario::leak_checks::{block, block_in, message_of};
use scenario::{Lcg, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "figures", child: figures, check },
        Scenario { name: "bounds", child: bounds, check: check_alone },
        Scenario { name: "sites", child: sites, check: check_alone },
        Scenario { name: "older_blocks", child: older_blocks, check: check_alone },
        Scenario { name: "nothing", child: nothing, check: check_alone },
        Scenario { name: "side_by_side", child: side_by_side, check },
        Scenario { name: "handles", child: handles, check: check_alone },
        Scenario { name: "all_threads", child: all_threads, check: check_alone },
        Scenario { name: "turns", child: turns, check: check_alone },
        Scenario { name: "early_exits", child: early_exits, check: check_alone },
        Scenario { name: "nested", child: nested, check: check_alone },
        Scenario { name: "many_budgets", child: many_budgets, check: check_alone },
        Scenario { name: "printing", child: printing, check: check_printing },
    ])
}

/// Runs the child, which makes the assertions: alone, and recorded.
fn check(name: &'static str) {
    check_alone(name);
    Run::of(name).checked().finish().assert_quiet(0);
}

fn check_alone(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
}

/// Returns what the message says was found of a bound.
fn found(message: &str, bound: &str) -> u64 {
    let line = message.lines().find(|line| line.starts_with(&format!("  {bound}: expected at most ")));
    let line = line.unwrap_or_else(|| panic!("{bound} in {message}"));
    line.split(", found ").nth(1).unwrap().trim_end_matches(" B").replace(',', "").parse().unwrap()
}

/// A run of random steps, whose calls the oracle counts, and whose peak is a sum.
fn figures() {
    for seed in 0..20 {
        let mut expected = None;
        let message = message_of(|| {
            budget! {
                allocations = 0, reallocations = 0, allocated = 0, peak = 0, leaked = 0;
                let mut lcg = Lcg(seed);
                let mut lists = Vec::with_capacity(64);
                let room = (lists.capacity() * size_of::<Vec<u8>>()) as u64;
                // The list itself is the first block; the oracle is asked when it is there.
                let (mut held, mut peak) = (room, room);
                let begin = alloc_oracle::snapshot();
                for _ in 0..300 {
                    match lcg.below(3) {
                        0 if lists.len() < 64 => {
                            let size = lcg.size().max(1);
                            lists.push(block(size));
                            held += size as u64;
                        }
                        1 => if let Some(list) = lists.last_mut() {
                            held -= list.capacity() as u64;
                            list.reserve_exact(list.capacity() + 1 + lcg.below(100) as usize);
                            held += list.capacity() as u64;
                        }
                        _ => if let Some(list) = lists.pop() {
                            held -= list.capacity() as u64;
                        }
                    }
                    peak = peak.max(held);
                }
                let end = alloc_oracle::snapshot();
                std::mem::forget(lists);
                expected = Some([
                    end.allocations - begin.allocations + 1,
                    end.reallocations - begin.reallocations,
                    end.allocated_bytes - begin.allocated_bytes + room,
                    peak,
                    held,
                ]);
            }
        });
        let found =
            ["allocations", "reallocations", "allocated", "peak", "leaked"].map(|name| found(&message, name));
        assert_eq!(Some(found), expected, "{message}");
    }
}

/// Found equal to the bound passes, one less fails.
fn bounds() {
    let work = || {
        let mut list = block(1000);
        list.reserve_exact(3000);
        drop(list);
        std::mem::forget(block(24));
    };
    budget! { allocations = 2, reallocations = 1, allocated = 4024, peak = 3000, leaked = 24; work() }
    budget! { allocated = "4KiB", peak = "2.9296875KiB"; work() }
    let messages = [
        message_of(|| budget! { allocations = 1; work() }),
        message_of(|| budget! { reallocations = 0; work() }),
        message_of(|| budget! { allocated = 4023; work() }),
        message_of(|| budget! { peak = 2999; work() }),
        message_of(|| budget! { leaked = 23; work() }),
    ];
    let expected = [
        "allocations: expected at most 1, found 2",
        "reallocations: expected at most 0, found 1",
        "allocated: expected at most 4,023 B, found 4,024 B",
        "peak: expected at most 2,999 B, found 3,000 B",
        "leaked: expected at most 23 B, found 24 B",
    ];
    for (message, expected) in messages.iter().zip(expected) {
        assert_eq!(message.lines().nth(1).unwrap().trim(), expected, "{message}");
        assert_eq!(message.matches("expected at most").count(), 1, "{message}");
    }
}

#[inline(never)]
fn keep(size: usize) -> u32 {
    std::mem::forget(black_box(Vec::<u8>::with_capacity(size)));
    line!() - 1
}

#[inline(never)]
fn grow() -> (u32, u32) {
    let mut list = black_box(Vec::<u8>::with_capacity(10));
    list.reserve_exact(70_000);
    (line!() - 2, line!() - 1)
}

#[alloc_tracker::budget(allocations = 1, allocated = 0, peak = 10, leaked = 10)]
fn exceeds(lines: &mut (u32, u32, u32)) {
    for _ in 0..3 {
        lines.0 = keep(20_000);
    }
    (lines.1, lines.2) = grow();
    // Not at the peak.
    keep(33);
}

/// The lines with the largest share of each bound.
fn sites() {
    let mut lines = (0, 0, 0);
    let message = message_of(|| exceeds(&mut lines));
    let at = |line: u32| format!("/tests/budgets.rs:{line}");
    let text: Vec<&str> = message.lines().collect();
    assert!(text[0].starts_with("budget of exceeds at alloc-tracker/tests/budgets.rs:"), "{message}");
    let expected = [
        ("  allocations: expected at most 1, found 5".to_owned(), String::new()),
        ("    4: ".to_owned(), at(lines.0)),
        ("    1: ".to_owned(), at(lines.1)),
        ("  allocated: expected at most 0 B, found 130,043 B".to_owned(), String::new()),
        ("    70,000 B: ".to_owned(), at(lines.2)),
        ("    60,033 B: ".to_owned(), at(lines.0)),
        ("    10 B: ".to_owned(), at(lines.1)),
        // The block of 10 has grown: it still belongs to the line that it was born at.
        ("  peak: expected at most 10 B, found 130,000 B".to_owned(), String::new()),
        ("    70,000 B: ".to_owned(), at(lines.1)),
        ("    60,000 B: ".to_owned(), at(lines.0)),
        ("  leaked: expected at most 10 B, found 60,033 B".to_owned(), String::new()),
        ("    60,033 B: ".to_owned(), at(lines.0)),
    ];
    for (line, (begin, end)) in text[1..].iter().zip(&expected) {
        assert!(line.starts_with(begin.as_str()) && line.ends_with(end.as_str()), "{line} of {message}");
    }
    let command = "profiler-cli cargo test --package alloc-tracker --test budgets -- --exact exceeds";
    assert!(text.last().unwrap().contains(&format!("`{command}`")), "{message}");
    assert_eq!(text.len(), 1 + expected.len() + 1, "{message}");
}

/// An older block that grows is an event of the budget, and no block of it.
fn older_blocks() {
    let mut older = block(10);
    budget! { allocations = 0, reallocations = 1, allocated = 500, peak = 0, leaked = 0; older.reserve_exact(500) }
    let message = message_of(|| budget! { reallocations = 0, allocated = 599; older.reserve_exact(600) });
    assert_eq!((found(&message, "reallocations"), found(&message, "allocated")), (1, 600));
    // Freed within a later budget, and after its own.
    let born = budget! { leaked = 40; block(40) };
    budget! { allocations = 0, peak = 0; drop(born) }
    // A free elsewhere counts at once.
    let (give, take) = channel::<Vec<u8>>();
    let freeing = std::thread::spawn(move || take.into_iter().for_each(drop));
    give.send(block(1)).unwrap();
    budget! { allocated = 64, leaked = 0; give.send(block(64)).unwrap() }
    drop(give);
    freeing.join().unwrap();
}

/// What has no size never counts. Zeroed memory does.
fn nothing() {
    budget! {
        allocations = 0, reallocations = 0, allocated = 0, peak = 0, leaked = 0;
        drop(black_box((Vec::<u8>::new(), String::new(), vec![(); 1000], Box::new(()))));
    }
    let layout = Layout::array::<u8>(77).unwrap();
    let message = message_of(|| {
        budget! {
            allocations = 0;
            // SAFETY: the layout is not empty, and the block is freed with it.
            unsafe { dealloc(alloc_zeroed(layout), layout) }
        }
    });
    assert_eq!(found(&message, "allocations"), 1);
}

/// Eight threads whose budgets are exact, while all of them allocate.
fn side_by_side() {
    let barrier = Barrier::new(8);
    std::thread::scope(|threads| {
        for thread in 1..=8usize {
            let barrier = &barrier;
            threads.spawn(move || {
                barrier.wait();
                for round in 1..=300usize {
                    let size = 100 * thread + round;
                    budget! { allocations = 0; black_box(size) };
                    let kept = budget! {
                        allocations = 2, allocated = 0x1_0000, leaked = 0x1_0000;
                        (block(size), block(2 * size))
                    };
                    drop(kept);
                }
            });
        }
    });
    // And an exceeded one finds its own only.
    std::thread::scope(|threads| {
        let noise = threads.spawn(|| (0..100_000).for_each(|_| drop(block(5000))));
        let message = message_of(|| budget! { allocations = 1, peak = 1; (block(3), block(4)) });
        assert_eq!((found(&message, "allocations"), found(&message, "peak")), (2, 7));
        noise.join().unwrap();
    });
}

/// A handle that is entered on another thread counts. A thread without does not.
fn handles() {
    let message = message_of(|| {
        budget! {
            allocations = 0, peak = 0, leaked = 0;
            let scope = ScopeHandle::current();
            let (give, take) = channel();
            std::thread::scope(|threads| {
                // What starting a thread allocates is this thread's.
                threads.spawn(move || {
                    drop(block(900_000));
                    let kept = block_in(scope, 700_000);
                    give.send(kept).unwrap();
                });
            });
            std::mem::forget(take.recv().unwrap());
        }
    });
    assert!((700_000..800_000).contains(&found(&message, "peak")), "{message}");
    assert!((700_000..800_000).contains(&found(&message, "leaked")), "{message}");
    assert!(message.contains("    700,000 B: "), "{message}");
}

#[alloc_tracker::budget(allocated = 0, peak = 0, threads = "all")]
fn counts_all() {
    let kept = std::thread::spawn(|| block(300_000)).join().unwrap();
    let other = std::thread::spawn(|| {
        // A scope that begins meanwhile is inside of that of all threads.
        budget! { allocations = 1; block(50_000) }
    });
    drop((kept, other.join().unwrap()));
}

/// All threads count, and only as long as the budget lasts.
fn all_threads() {
    for _ in 0..2 {
        let begin = alloc_oracle::snapshot();
        let message = message_of(counts_all);
        let whole = alloc_oracle::snapshot().allocated_bytes - begin.allocated_bytes;
        assert!((350_000..=whole).contains(&found(&message, "allocated")), "{message}");
        assert!((350_000..500_000).contains(&found(&message, "peak")), "{message}");
        assert!(message.contains("    350,000 B: "), "{message}");
        budget! { allocations = 30, leaked = "1KiB"; std::thread::spawn(|| drop(block(90_000))).join().unwrap() }
    }
}

/// Budgets of all threads wait for each other; one inside of the other does not.
fn turns() {
    budget! {
        allocated = "1MiB", threads = "all";
        budget! { allocated = 400, threads = "all"; drop(block(400)) }
        let message = message_of(|| budget! {
            peak = 1, threads = "all";
            std::thread::spawn(|| drop(block(60_000))).join().unwrap()
        });
        assert!(found(&message, "peak") >= 60_000, "{message}");
    }
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..50 {
                    budget! { peak = "90KiB", threads = "all"; drop(block(40_000)) }
                }
            });
        }
    });
}

fn leaves_early(way: u32) -> Option<u32> {
    budget! {
        allocations = 0;
        drop(block(8));
        if way == 0 { return Some(7) }
        None?;
    }
    None
}

#[alloc_tracker::budget(allocations = 0)]
fn fails_itself(size: usize) -> Result<(), String> {
    if size > 0 {
        return Err("x".repeat(size));
    }
    drop(block(8));
    Ok(())
}

#[alloc_tracker::budget(allocations = 0, leaked = 0)]
fn returns_early(list: Vec<u8>) -> impl Sized {
    if list.capacity() > 0 {
        return list;
    }
    block(1)
}

/// A block that is left early is checked. A function that fails by itself is not.
fn early_exits() {
    for way in [0, 1] {
        let message = message_of(|| leaves_early(way));
        assert!(message.starts_with("budget of leaves_early at "), "{message}");
        assert!(message.contains("-- --exact leaves_early`"), "{message}");
    }
    let message = message_of(|| 'out: {
        budget! { allocations = 0; drop(block(8)); break 'out }
    });
    assert_eq!(found(&message, "allocations"), 1);
    assert_eq!(fails_itself(3), Err("xxx".to_owned()));
    assert_eq!(found(&message_of(|| fails_itself(0)), "allocations"), 1);
    drop(returns_early(block(5)));
    assert_eq!(found(&message_of(|| returns_early(Vec::new())), "leaked"), 1);
    let message = message_of(|| budget! { allocations = 0; drop(block(8)); panic!("of the code") });
    assert_eq!(message, "of the code");
}

/// What happens in an inner budget counts for the outer one, too, also the message.
fn nested() {
    budget! {
        allocations = 2, peak = 30;
        budget! { allocations = 1, peak = 20; drop(block(20)) }
        drop(block(30));
    }
    let message = message_of(|| {
        budget! {
            allocations = 1;
            budget! { allocations = 1; drop(block(20)) }
            drop(block(30));
        }
    });
    assert_eq!(found(&message, "allocations"), 2);
}

/// More budgets at one time than there are tables of sites: the figures are right all the same.
fn many_budgets() {
    fn deeper(left: u32) {
        let barrier = Barrier::new(left as usize);
        std::thread::scope(|threads| {
            for _ in 0..left {
                threads.spawn(|| {
                    budget! { allocations = 1; barrier.wait(); drop(block(10)); barrier.wait() };
                });
            }
        });
    }
    deeper(300);
    let message = message_of(|| budget! { allocations = 0; block(10) });
    assert!(message.contains("budgets.rs:"), "the tables are free again: {message}");
}

/// Printing it allocates.
struct Allocates;

impl fmt::Display for Allocates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", block(100).capacity())
    }
}

/// Printing is not part of a budget, whoever captures it.
fn printing() {
    budget! { allocations = 0, peak = 0; println!("{}", Allocates); eprintln!("{}", Allocates) }
    let message = message_of(|| budget! { allocations = 0; Allocates.to_string() });
    assert!(found(&message, "allocations") >= 2, "{message}");
}

fn check_printing(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "100\n");
}
