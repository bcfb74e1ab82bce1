//! The compiler's errors about `#[profile]`, and about code inside of an annotated function, point
//! at the code that is wrong.

use std::process::Command;

/// The compiler whose messages are stored beside the programs in `ui/`.
const RELEASE: &str = "rustc 1.95.";

#[test]
fn errors_point_at_what_is_wrong() {
    let version = Command::new("rustc").arg("--version").output().unwrap().stdout;
    if !String::from_utf8_lossy(&version).starts_with(RELEASE) {
        eprintln!("skipped: {RELEASE}x missing, the messages of other compilers differ");
        return;
    }
    let tests = trybuild::TestCases::new();
    tests.compile_fail("ui/*.rs");
}
