//! A preloaded library replaces the C functions that the recorder could call. Once a recording has
//! begun, neither the hook nor the drain process calls any of them.

mod scenario;

use std::ffi::{CStr, c_char};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;

use alloc_tracker::AllocTracker;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() -> ExitCode {
    scenario::main(&[Scenario { name: "no_c_function", child: work, check: check_no_c_function }])
}

/// Prints how many calls of replaced functions there were while the program did nothing but
/// allocate, for longer than a few turns of the drain process.
fn work() {
    allocate(1000);
    let calls = calls();
    let before = calls(std::ptr::null_mut());
    for _ in 0..5 {
        allocate(6_000);
        // The drain process becomes calm, takes samples, and is flooded again.
        for _ in 0..400_000 {
            std::hint::spin_loop();
        }
    }
    let mut last = std::ptr::null();
    let after = calls(&raw mut last);
    // SAFETY: the library returns a C string or null.
    let last = if last.is_null() { c"" } else { unsafe { CStr::from_ptr(last) } };
    println!("calls={}\nlast: {}", after - before, last.to_str().unwrap());
}

#[inline(never)]
fn allocate(count: usize) {
    for round in 0..count {
        drop(black_box(vec![1u8; 1 + round % 500]));
    }
}

/// Returns the library's function that counts.
fn calls() -> extern "C" fn(*mut *const c_char) -> u64 {
    // SAFETY: the name is a C string. The preloaded library has a function of this name and type.
    unsafe {
        let function = libc::dlsym(libc::RTLD_DEFAULT, c"interposed_calls".as_ptr());
        assert!(!function.is_null(), "the library is not loaded");
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(*mut *const c_char) -> u64>(function)
    }
}

fn check_no_c_function(name: &'static str) {
    let Some(library) = interposer() else {
        println!("skipped: build the example `interposer` first, as `cargo test` without a selection does");
        return;
    };
    for run in [Run::of(name), Run::of(name).traced(), Run::of(name).traced().drained_by_caller()] {
        let outcome = run.env("LD_PRELOAD", &library).finish();
        outcome.assert_quiet(0);
        assert_eq!(outcome.number("calls"), 0, "{}", outcome.stdout);
    }
    let outcome = Run::of(name).traced().env("LD_PRELOAD", &library).finish();
    outcome.whole_replay();
}

/// Returns the library that is built from `tests/interposer` beside this test.
fn interposer() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let built = test.parent()?.parent()?.join("examples").join("libinterposer.so");
    built.exists().then_some(built)
}
