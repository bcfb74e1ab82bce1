//! What the test harness allocates beside a test. In: the stack of a test. Out: return addresses
//! and a thread whose events no budget counts.
//!
//! The harness of `cargo test` captures what a test prints, in a buffer that grows; that of `cargo
//! nextest` does not. So that a budget is the same in both cases, nothing counts that happens
//! inside of `print!` and `eprint!`, whoever captures it.
//!
//! The main thread of the harness notes that it has started the test, while the test may be running
//! already. If all threads count, it does not.

use std::cell::RefCell;
use std::fmt;
use std::hint::black_box;
use std::sync::Once;

use super::scope::EnteredScope;
use crate::scope;

/// Makes all scopes ignore what printing allocates.
///
/// PERF: without a name of a function. The first name needs the debug info of the whole program,
/// which takes a second in a large one, and with `cargo nextest` each test is a process.
pub(super) fn ignore_printing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _outside = EnteredScope::outside();
        ignore_print();
        ignore_eprint();
    });
}

/// Prints nothing. This also makes the buffer of the standard output.
#[inline(never)]
fn ignore_print() {
    let (around, witness) = (return_addresses(), Witness::default());
    print!("{witness}");
    black_box(witness).ignore_function_called_beside(&around);
}

#[inline(never)]
fn ignore_eprint() {
    let (around, witness) = (return_addresses(), Witness::default());
    eprint!("{witness}");
    black_box(witness).ignore_function_called_beside(&around);
}

/// Keeps, when it is printed, the stack on which that happens.
#[derive(Default)]
struct Witness(RefCell<Vec<u64>>);

impl fmt::Display for Witness {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        *self.0.borrow_mut() = return_addresses();
        Ok(())
    }
}

impl Witness {
    /// Makes scopes ignore what happens in the function that prints. It was called by the same
    /// activation as the one that has gotten these addresses:
    ///
    /// ```text
    /// around     return_addresses <- ignore_print, line 2 <- ignore_printing <- …
    /// printed    … <- Witness::fmt <- … <- _print <- ignore_print, line 3 <- ignore_printing <- …
    ///                                      ^ returns into itself here
    /// ```
    fn ignore_function_called_beside(self, around: &[u64]) {
        let printed = self.0.into_inner();
        let callers = printed.iter().rev().zip(around.iter().rev()).take_while(|(a, b)| a == b).count();
        // Behind the callers comes this activation, and then the function that prints.
        if let Some(address) = printed.iter().rev().nth(callers + 1) {
            scope::ignore_calls_at(*address);
        }
    }
}

/// Returns the return addresses on the stack, leaf first.
#[inline(never)]
fn return_addresses() -> Vec<u64> {
    let mut addresses = Vec::new();
    backtrace::trace(|frame| {
        addresses.push(frame.ip().addr() as u64);
        true
    });
    addresses
}

/// Whether the calling thread was started by the test harness for a test. Needs names of functions.
pub(super) fn is_thread_of_test() -> bool {
    let mut found = false;
    backtrace::trace(|frame| {
        backtrace::resolve_frame(frame, |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
            found |= name.starts_with("test::run_test");
        });
        !found
    });
    found
}
