//! The text of operating system errors in the messages of this program.

use std::io;

/// Returns the text of an I/O error without the ` (os error N)` that Rust appends.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
