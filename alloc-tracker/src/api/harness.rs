//! What the test harness allocates beside a test. In: the stack of a test. Out: return addresses
//! and a thread whose events no budget counts.
//!
//! The harness of `cargo test` captures what a test prints, in a buffer that grows; that of `cargo
//! nextest` does not. So that a budget is the same in both cases, nothing counts that happens
//! inside of `print!` and `eprint!`, whoever captures it.
//!
//! The main thread of the harness notes that it has started the test, while the test may be running
//! already. If all threads count, it does not.

use std::fmt;
use std::sync::Once;

use super::scope::EnteredScope;
use crate::scope;

/// Makes all scopes ignore what printing allocates.
pub(super) fn ignore_printing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _outside = EnteredScope::outside();
        // Nothing is printed. This also makes the buffer of the standard output.
        print!("{}", Witness);
        eprint!("{}", Witness);
    });
}

/// Whether the calling thread was started by the test harness for a test.
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

/// Looks, while it is printed, for the frame of the standard library's function that prints.
struct Witness;

impl fmt::Display for Witness {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = None;
        backtrace::trace(|frame| {
            backtrace::resolve_frame(frame, |symbol| {
                let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
                if name.ends_with("io::stdio::_print") || name.ends_with("io::stdio::_eprint") {
                    found = Some(frame.ip().addr() as u64);
                }
            });
            found.is_none()
        });
        if let Some(address) = found {
            scope::ignore_calls_at(address);
        }
        Ok(())
    }
}
