//! What `#[profile]` refuses, and that mistakes inside of an annotated function are shown where they were made.

use std::process::Command;

/// The compiler whose words stand beside the programs in `ui/`.
const RELEASE: &str = "rustc 1.95.";

#[test]
fn errors_point_at_what_is_wrong() {
    let version = Command::new("rustc").arg("--version").output().unwrap().stdout;
    if !String::from_utf8_lossy(&version).starts_with(RELEASE) {
        eprintln!("skipped: {RELEASE}x missing, other compilers use other words");
        return;
    }
    let tests = trybuild::TestCases::new();
    tests.compile_fail("ui/*.rs");
}
