//! Builds the C file with `setjmp`, which cannot be called from Rust.

fn main() {
    println!("cargo::rerun-if-changed=src/leap.c");
    cc::Build::new().file("src/leap.c").compile("leap");
}
