//! A small service with three habits: a map of sessions that is never cleaned, a cache that is
//! full, and requests that need some memory for a while. It prints a line after 2.5 seconds, and
//! goes on until its input ends. With an argument it then frees everything.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

static SESSIONS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static CACHE: Mutex<VecDeque<Box<[u8; 500]>>> = Mutex::new(VecDeque::new());
static RECENT: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

fn main() {
    // The growth of the lists themselves is not what this is about.
    SESSIONS.lock().unwrap().reserve_exact(1 << 20);
    CACHE.lock().unwrap().reserve_exact(CACHED);
    RECENT.lock().unwrap().reserve_exact(RECENTLY);
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_over);
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        flag.store(true, Ordering::Relaxed);
    });
    let start = Instant::now();
    let mut has_said_so = false;
    for request in 0.. {
        if request % 50 == 0 {
            open_session();
        }
        fill_cache();
        serve(request);
        if request % 10 == 0 {
            thread::sleep(Duration::from_millis(1));
            alloc_tracker::mark("ten requests");
        }
        if !has_said_so && start.elapsed() >= Duration::from_millis(2500) {
            println!("ready");
            has_said_so = true;
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    if std::env::args().len() > 1 {
        drop(std::mem::take(&mut *SESSIONS.lock().unwrap()));
        drop(std::mem::take(&mut *CACHE.lock().unwrap()));
        drop(std::mem::take(&mut *RECENT.lock().unwrap()));
    }
}

#[inline(never)]
fn open_session() {
    SESSIONS.lock().unwrap().push(black_box(vec![1; 1024]));
}

/// The oldest entry goes when there are too many.
#[inline(never)]
fn fill_cache() {
    let mut cache = CACHE.lock().unwrap();
    if cache.len() == CACHED {
        cache.pop_front();
    }
    cache.push_back(Box::new(black_box([2; 500])));
}

/// The memory of the last requests is still in use.
#[inline(never)]
fn serve(request: usize) {
    let mut recent = RECENT.lock().unwrap();
    if recent.len() == RECENTLY {
        recent.pop_front();
    }
    recent.push_back(black_box(vec![3; 100 + request * 7919 % 1000]));
}

const CACHED: usize = 500;
const RECENTLY: usize = 50;
