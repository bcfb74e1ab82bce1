//! What printing allocates. In: the first budget of the process. Out: return addresses whose events
//! scopes ignore.
//!
//! The test harness captures what a test prints in a buffer that grows, and other harnesses do not.
//! So that a budget is the same in both cases, nothing counts that happens inside of `print!` and
//! `eprint!`, whoever captures it.

use std::fmt;
use std::sync::Once;

use super::scope::EnteredScope;
use crate::scope;

/// Makes all scopes ignore what printing allocates.
pub(super) fn ignore() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _outside = EnteredScope::outside();
        // Nothing is printed. This also makes the buffer of the standard output.
        print!("{}", Witness);
        eprint!("{}", Witness);
    });
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
