//! Measures what a probe of `#[profile]` costs. The program records itself and needs no arguments.
//! It prints medians of rounds in which the compared functions alternate.
//!
//! - `in bursts`: while the thread ring has room, which is the usual case. A longer series is
//!   limited by the speed of the drain process.
//! - `with 8 threads`: while seven other threads are alive and have been recorded.
//! - `parser`: a parser whose ten functions are all annotated, as a ratio to the same parser that
//!   is recorded without annotations.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const ROUNDS: usize = 15;
/// Probes in each round of the loop: one of its head, two of its statements.
const PROBES: f64 = 3.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dump = std::env::temp_dir().join(format!("probes-{}.alloc", std::process::id()));
    println!("a probe with nothing recorded  {:6.1} ns", sustained(300_000));
    let profiler = alloc_tracker::Profiler::builder().output(&dump).start()?;
    println!("a probe, in bursts             {:6.1} ns", in_bursts());
    // Ten times the rounds, and the same time for each probe: a loop costs what its probes cost.
    println!("a probe, 100,000 in a row      {:6.1} ns", sustained(33_333));
    println!("a probe, 1,000,000 in a row    {:6.1} ns", sustained(333_333));
    let (stop, threads) = idle_threads(7);
    println!("a probe, with 8 threads        {:6.1} ns", sustained(333_333));
    println!("a probe, with 8 threads, burst {:6.1} ns", in_bursts());
    drop(stop);
    threads.into_iter().for_each(|thread| thread.join().unwrap_or_default());
    println!("a parser with ten functions annotated, to the same without: {:.2}x", parser_ratio());
    profiler.finish()?;
    std::fs::remove_file(&dump)?;
    Ok(())
}

fn plain_loop(rounds: u64) -> u64 {
    let (mut sum, mut round) = (0, 0);
    while round < rounds {
        sum = black_box(sum + round);
        round += 1;
    }
    sum
}

#[alloc_tracker::profile]
fn annotated_loop(rounds: u64) -> u64 {
    let (mut sum, mut round) = (0, 0);
    while round < rounds {
        sum = black_box(sum + round);
        round += 1;
    }
    sum
}

/// Returns the nanoseconds that the work takes.
fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    black_box(work());
    started.elapsed().as_nanos() as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Returns the nanoseconds of a probe in a loop of so many rounds, without those of the loop
/// itself.
fn sustained(rounds: u64) -> f64 {
    median((0..ROUNDS).map(|_| measure_once(rounds)).collect())
}

/// Returns the nanoseconds of a probe in loops that are far apart and short enough for the ring.
fn in_bursts() -> f64 {
    let measure_burst = |_| {
        thread::sleep(Duration::from_millis(12));
        measure_once(300)
    };
    median((0..ROUNDS * 10).map(measure_burst).collect())
}

fn measure_once(rounds: u64) -> f64 {
    let (without, with) = (timed(|| plain_loop(rounds)), timed(|| annotated_loop(rounds)));
    (with - without) / (rounds as f64 * PROBES)
}

/// Starts threads that allocate once, so that they are recorded, and then wait until their sender
/// is dropped.
fn idle_threads(count: usize) -> (Vec<mpsc::Sender<()>>, Vec<thread::JoinHandle<()>>) {
    (0..count)
        .map(|_| {
            let (stop, stopped) = mpsc::channel();
            let thread = thread::spawn(move || {
                black_box(vec![1u8; 10]);
                // Ends with an error when the sender is dropped.
                let _ = stopped.recv();
            });
            (stop, thread)
        })
        .unzip()
}

/// Defines a parser of lists, numbers, words and pairs, with the attribute in front of each of its
/// ten functions, or with none.
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

/// Returns the time of the annotated parser divided by that of the plain one; both are recorded.
fn parser_ratio() -> f64 {
    let record = "[someword : 12345.25, [another, words, 77], key : [value : 1, more : [2, 3]]], ";
    let text = format!("[{}]", record.repeat(2000));
    let ratio = |_| {
        let without = timed(|| recorded::Parser::document(&text));
        let with = timed(|| annotated::Parser::document(&text));
        with / without
    };
    median((0..ROUNDS).map(ratio).collect())
}
