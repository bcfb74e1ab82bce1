//! Programs that free all of their own blocks and use the standard library in one way each. What is
//! live at the end belongs to the standard library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() {
    match std::env::args().nth(1).unwrap().as_str() {
        "hello" => println!("hello"),
        "eprintln" => eprintln!("hello"),
        "threads" => threads(),
        "running-thread" => running_thread(),
        "panic" => assert!(std::panic::catch_unwind(|| panic!("caught")).is_err()),
        "panic-in-thread" => assert!(std::thread::spawn(|| panic!("joined")).join().is_err()),
        "locks" => locks(),
        "hashmap" => assert_eq!(HashMap::from([(1, "one".to_owned())]).len(), 1),
        "thread-local" => thread_local(),
        "env" => environment(),
        "backtrace" => {
            let backtrace = std::backtrace::Backtrace::force_capture().to_string();
            assert!(backtrace.contains("main"));
        }
        "current-thread" => assert_eq!(std::thread::current().name(), Some("main")),
        "child" => assert!(std::process::Command::new("true").status().unwrap().success()),
        "sockets" => sockets(),
        "files" => assert!(std::fs::read_dir("/").unwrap().count() > 0),
        "sync" => sync(),
        "exit" => {
            println!("leaving");
            std::process::exit(0)
        }
        other => panic!("no such program: {other}"),
    }
}

fn threads() {
    let (sender, receiver) = mpsc::channel();
    let start = |at: usize| {
        let sender = sender.clone();
        let named = std::thread::Builder::new().name(format!("worker {at}"));
        named.spawn(move || sender.send(vec![at; 100]).unwrap()).unwrap()
    };
    let workers: Vec<_> = (0..4).map(start).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    drop(sender);
    assert_eq!(receiver.iter().count(), 4);
}

/// A thread that still waits when `main` returns.
fn running_thread() {
    let (sender, receiver) = mpsc::sync_channel(0);
    std::thread::spawn(move || {
        sender.send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap();
}

fn locks() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let mut out = std::io::stdout().lock();
    write!(out, "{line} without a line break").unwrap();
}

thread_local! {
    static KEPT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn thread_local() {
    KEPT.with_borrow_mut(|kept| kept.push("main".to_owned()));
    std::thread::spawn(|| KEPT.with_borrow_mut(|kept| kept.push("thread".to_owned()))).join().unwrap();
}

fn environment() {
    assert!(std::env::vars().count() > 0);
    assert!(std::env::current_exe().unwrap().exists());
    assert!(std::env::current_dir().unwrap().exists());
}

fn sockets() {
    let listener = std::net::TcpListener::bind("localhost:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop((listener.accept().unwrap(), client));
}

fn sync() {
    let (mutex, condvar) = (std::sync::Mutex::new(0), std::sync::Condvar::new());
    std::thread::scope(|scope| {
        let setting = scope.spawn(|| {
            *mutex.lock().unwrap() = 1;
            condvar.notify_all();
        });
        drop(condvar.wait_while(mutex.lock().unwrap(), |value| *value == 0).unwrap());
        // The scope waits for the closure only, and the thread frees its handle after that.
        setting.join().unwrap();
    });
}
