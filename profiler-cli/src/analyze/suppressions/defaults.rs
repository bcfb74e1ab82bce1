//! Suppressions for the blocks that the standard library, the test harness and alloc-tracker keep
//! for themselves until the process ends. They hold without any option.
//!
//! A pattern here suppresses a stack only if nobody but the runtime stands inside of the frame that
//! it matches. So `println!` of a value whose `Display` leaks is no block of `stdout`.

/// A pattern for functions of the runtime.
pub(super) struct DefaultPattern {
    pub(super) text: &'static str,
    /// Whether frames of dependencies may stand inside. The standard library has its own copies of
    /// some packages. Its functions that read symbols call nothing else that is no runtime.
    pub(super) with_dependencies: bool,
}

const fn runtime(text: &'static str) -> DefaultPattern {
    DefaultPattern { text, with_dependencies: false }
}

const fn with_dependencies(text: &'static str) -> DefaultPattern {
    DefaultPattern { text, with_dependencies: true }
}

/// The patterns.
pub(super) const DEFAULT_PATTERNS: &[DefaultPattern] = &[
    // 544 bytes in every program: where the stack of the main thread has its guard page, and the
    // same for each thread that is still running.
    runtime("^std::sys::*stack_overflow::"),
    // The handle and the name of the main thread, and what else is set up before `main`.
    runtime("^std::rt::init"),
    runtime("^std::rt::lang_start"),
    runtime("^std::thread::current::"),
    runtime("^std::sys::thread_local::destructors::*register"),
    // Buffers that live as long as the process. That of stdout is given back at the end, but not if
    // the process is killed.
    runtime("^std::io::stdio::stdin"),
    runtime("^std::io::stdio::stdout"),
    // Symbols of the program, which a panic with RUST_BACKTRACE=1 reads and keeps. The frames of a
    // `Backtrace`, which its owner frees, are not among them.
    with_dependencies("^std::backtrace_rs::symbolize::gimli::create_mapping"),
    with_dependencies("^<std::backtrace_rs::symbolize::gimli::Cache>::"),
    with_dependencies("^<std::backtrace_rs::symbolize::gimli::Mapping>::"),
    with_dependencies("^<std::backtrace_rs::symbolize::gimli::Context>::"),
    // A test program whose tests fail ends with `exit`, so that its harness frees nothing.
    runtime("^test::"),
    runtime("^<test::"),
    with_dependencies(NAMES_OF_FAILED_CHECK),
];

/// Where alloc-tracker reads the symbols of the program for the text of a check that has failed. It
/// calls nothing of the user.
pub(super) const NAMES_OF_FAILED_CHECK: &str = "alloc_tracker::api::leak_report::";

/// Part of the names of the functions by which the runtime calls `main`, the function of a thread
/// or a test. The compiler never inlines them, so they are on the stack even if debug info does not
/// tell which functions of the user were inlined into them.
pub(super) const CALLS_THE_USER: &str = "__rust_begin_short_backtrace";
