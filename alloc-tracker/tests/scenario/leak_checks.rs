//! What tests of scopes and leak checks share: blocks of a known size, and messages of checks that
//! have failed. In: sizes, closures. Out: blocks, messages.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use alloc_tracker::{ScopeHandle, assert_no_leaks};

/// Returns a list whose block has this size.
pub(crate) fn block(size: usize) -> Vec<u8> {
    black_box(Vec::with_capacity(size))
}

/// Returns a list whose block was allocated inside of this scope. The thread is outside again.
pub(crate) fn block_in(scope: ScopeHandle, size: usize) -> Vec<u8> {
    let _entered = scope.enter();
    block(size)
}

/// Calls `f`, which must panic, and returns the message.
pub(crate) fn message_of<T>(f: impl FnOnce() -> T) -> String {
    set_hook(Box::new(|_| {}));
    let panic = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic");
    _ = take_hook();
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => (*panic.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// Checks `f`, which must leave blocks behind, and returns the message of the check.
pub(crate) fn leak_message<T>(f: impl FnOnce() -> T) -> String {
    message_of(|| assert_no_leaks(f))
}
