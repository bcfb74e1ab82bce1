//! Builds the one thing that Rust has no words for: `setjmp`.

fn main() {
    println!("cargo::rerun-if-changed=src/leap.c");
    cc::Build::new().file("src/leap.c").compile("leap");
}
