//! What a probe of `#[profile]` costs. Records itself, so it needs no arguments; prints medians of interleaved rounds.
//!
//! - `in bursts`: as long as the thread's ring has room, which is the usual case; then the drainer's speed bounds it.
//! - `with 8 threads`: the same while seven others are alive and have been recorded.
//! - `parser`: a parser whose ten functions are all annotated, as a ratio to the same one recorded without annotations.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const ROUNDS: usize = 15;
/// Each round of the loop has three probes: of its head, its two statements.
const PROBES: f64 = 3.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dump = std::env::temp_dir().join(format!("probes-{}.alloc", std::process::id()));
    println!("a probe with nothing recorded  {:6.1} ns", sustained(300_000));
    let profiler = alloc_tracker::Profiler::builder().output(&dump).start()?;
    println!("a probe, in bursts             {:6.1} ns", in_bursts());
    // That a loop costs what its probes cost: ten times the rounds, the same for each.
    println!("a probe, 100,000 in a row      {:6.1} ns", sustained(33_333));
    println!("a probe, 1,000,000 in a row    {:6.1} ns", sustained(333_333));
    let (stop, threads) = idle_threads(7);
    println!("a probe, with 8 threads        {:6.1} ns", sustained(333_333));
    println!("a probe, with 8 threads, burst {:6.1} ns", in_bursts());
    drop(stop);
    threads.into_iter().for_each(|thread| thread.join().unwrap_or_default());
    println!("a parser with ten functions annotated, to the same without: {:.2}x", parser());
    profiler.finish()?;
    std::fs::remove_file(&dump)?;
    Ok(())
}

fn plain(rounds: u64) -> u64 {
    let (mut sum, mut round) = (0, 0);
    while round < rounds {
        sum = black_box(sum + round);
        round += 1;
    }
    sum
}

#[alloc_tracker::profile]
fn noted(rounds: u64) -> u64 {
    let (mut sum, mut round) = (0, 0);
    while round < rounds {
        sum = black_box(sum + round);
        round += 1;
    }
    sum
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    black_box(work());
    started.elapsed().as_nanos() as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Nanoseconds of a probe in a loop of so many rounds, without those of the loop itself.
fn sustained(rounds: u64) -> f64 {
    median((0..ROUNDS).map(|_| once(rounds)).collect())
}

/// The same in loops that are far apart and short enough for the ring.
fn in_bursts() -> f64 {
    let of_round = |_| {
        thread::sleep(Duration::from_millis(12));
        once(300)
    };
    median((0..ROUNDS * 10).map(of_round).collect())
}

fn once(rounds: u64) -> f64 {
    let (without, with) = (timed(|| plain(rounds)), timed(|| noted(rounds)));
    (with - without) / (rounds as f64 * PROBES)
}

/// Threads that have been recorded and wait until the sender goes.
fn idle_threads(count: usize) -> (Vec<mpsc::Sender<()>>, Vec<thread::JoinHandle<()>>) {
    (0..count)
        .map(|_| {
            let (stop, stopped) = mpsc::channel();
            let thread = thread::spawn(move || {
                black_box(vec![1u8; 10]);
                // An error is what it waits for: the sender is gone.
                let _ = stopped.recv();
            });
            (stop, thread)
        })
        .unzip()
}

/// A parser of lists, numbers, words and pairs, with the attribute in front of every function, or with none.
macro_rules! parser {
    ($name:ident $(, #[$attribute:meta])?) => {
        mod $name {
            #[allow(dead_code, reason = "what is parsed is only made and dropped")]
            pub(super) enum Value {
                Number(f64),
                Word(String),
                List(Vec<Value>),
                Pair(Box<(Value, Value)>),
            }

            pub(super) struct Parser<'a> {
                rest: &'a str,
            }

            impl<'a> Parser<'a> {
                $(#[$attribute])?
                pub(super) fn document(text: &'a str) -> Option<Value> {
                    let mut parser = Parser { rest: text };
                    let value = parser.value()?;
                    parser.end().then_some(value)
                }

                $(#[$attribute])?
                fn end(&mut self) -> bool {
                    self.space();
                    self.rest.is_empty()
                }

                $(#[$attribute])?
                fn space(&mut self) {
                    self.rest = self.rest.trim_start();
                }

                $(#[$attribute])?
                fn take(&mut self, sign: char) -> bool {
                    self.space();
                    let Some(rest) = self.rest.strip_prefix(sign) else { return false };
                    self.rest = rest;
                    true
                }

                $(#[$attribute])?
                fn value(&mut self) -> Option<Value> {
                    if self.take('[') {
                        return self.list();
                    }
                    let first = self.single()?;
                    if self.take(':') { self.pair(first) } else { Some(first) }
                }

                $(#[$attribute])?
                fn single(&mut self) -> Option<Value> {
                    self.space();
                    if self.rest.starts_with(|c: char| c.is_ascii_digit()) { self.number() } else { self.word() }
                }

                $(#[$attribute])?
                fn list(&mut self) -> Option<Value> {
                    let mut all = Vec::new();
                    while !self.take(']') {
                        all.push(self.value()?);
                        self.take(',');
                    }
                    Some(Value::List(all))
                }

                $(#[$attribute])?
                fn pair(&mut self, first: Value) -> Option<Value> {
                    let second = self.value()?;
                    Some(Value::Pair(Box::new((first, second))))
                }

                $(#[$attribute])?
                fn number(&mut self) -> Option<Value> {
                    let text = self.until(|c| !c.is_ascii_digit() && c != '.');
                    text.parse().ok().map(Value::Number)
                }

                $(#[$attribute])?
                fn word(&mut self) -> Option<Value> {
                    let text = self.until(|c| !c.is_alphanumeric());
                    if text.is_empty() { None } else { Some(Value::Word(text.to_owned())) }
                }

                fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
                    let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
                    self.rest = rest;
                    text
                }
            }
        }
    };
}

parser!(recorded);
parser!(annotated, #[alloc_tracker::profile]);

/// The time of the annotated parser, both recorded, to that of the other one.
fn parser() -> f64 {
    let record = "[someword : 12345.25, [another, words, 77], key : [value : 1, more : [2, 3]]], ";
    let text = format!("[{}]", record.repeat(2000));
    let ratio = |_| {
        let without = timed(|| recorded::Parser::document(&text));
        let with = timed(|| annotated::Parser::document(&text));
        with / without
    };
    median((0..ROUNDS).map(ratio).collect())
}
