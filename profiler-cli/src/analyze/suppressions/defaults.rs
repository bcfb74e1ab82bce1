//! Suppressions for the blocks that the standard library and the test harness keep for themselves
//! until the process ends. They hold without any option.
//!
//! A pattern here suppresses a stack only if nobody but the runtime stands inside of the frame that
//! it matches. So `println!` of a value whose `Display` leaks is no block of `stdout`.

/// Patterns for functions of the runtime.
pub(super) const DEFAULT_PATTERNS: &[&str] = &[
    // 544 bytes in every program: where the stack of the main thread has its guard page, and the
    // same for each thread that is still running.
    "^std::sys::pal::unix::stack_overflow::",
    // The handle and the name of the main thread, and what else is set up before `main`.
    "^std::rt::init",
    "^std::rt::lang_start",
    "^std::thread::current::",
    "^std::sys::thread_local::destructors::",
    // Buffers that live as long as the process. That of stdout is given back at the end, but not if
    // the process is killed.
    "^std::io::stdio::stdin",
    "^std::io::stdio::stdout",
    // Symbols of the program, which a panic with RUST_BACKTRACE=1 reads and keeps. The frames of a
    // `Backtrace`, which its owner frees, are not among them.
    "^std::backtrace_rs::symbolize::gimli::create_mapping",
    "^<std::backtrace_rs::symbolize::gimli::Cache>::new",
    "^<std::backtrace_rs::symbolize::gimli::Cache>::mapping_for_lib",
    "^<std::backtrace_rs::symbolize::gimli::Mapping>::",
    "^<std::backtrace_rs::symbolize::gimli::Context>::",
    // A test program whose tests fail ends with `exit`, so that its harness frees nothing.
    "^test::",
    "^<test::",
];
