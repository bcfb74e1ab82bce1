//! The programs of the package `stunts`, built with different settings, which change what a stack
//! looks like.

use std::path::PathBuf;
use std::process::Command;

use crate::workspace;

/// Settings to build the program with.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name in messages; also the name of the cargo profile.
    pub name: &'static str,
    /// Settings in which the profile differs from `release`.
    settings: &'static [&'static str],
    rustflags: &'static str,
    features: &'static str,
}

/// The usual release build: without frame pointers.
pub const RELEASE: Variant = Variant { name: "release", settings: &[], rustflags: "", features: "runtime" };
/// With frame pointers.
pub const FRAMED: Variant =
    Variant { name: "framed", settings: &[], rustflags: "-Cforce-frame-pointers=yes", features: "" };
/// Optimized across all crates.
pub const FAT: Variant =
    Variant { name: "fat", settings: &["lto=\"fat\"", "codegen-units=1"], rustflags: "", features: "" };
/// Optimized for size, and without unwinding.
pub const SMALL: Variant =
    Variant { name: "small", settings: &["opt-level=\"z\"", "panic=\"abort\""], rustflags: "", features: "" };
/// The usual release build, with the debug info that `profiler-cli cargo` switches on.
pub const LIMITED: Variant =
    Variant { name: "limited", settings: &["debug=\"limited\""], rustflags: "", features: "" };
/// With the least debug info that has lines.
pub const LINE_TABLES: Variant =
    Variant { name: "tables", settings: &["debug=\"line-tables-only\""], rustflags: "", features: "" };
/// Without optimization.
pub const UNOPTIMIZED: Variant = Variant {
    name: "unoptimized",
    settings: &["opt-level=0", "debug=\"full\""],
    rustflags: "",
    features: "",
};

/// With blocks of mimalloc, in the program `held_and_lost`.
pub const MIMALLOC: Variant =
    Variant { name: "mimalloc", settings: &[], rustflags: "", features: "mimalloc" };

/// With the standard library in a file of its own. The program must be told where that is.
pub const DYNAMIC: Variant =
    Variant { name: "dynamic", settings: &[], rustflags: "-Cprefer-dynamic", features: "" };

impl Variant {
    /// Builds the program `stunts` if needed, and returns its path.
    pub fn program(&self) -> PathBuf {
        self.program_named("stunts")
    }

    /// Builds a program of the package if needed, and returns its path.
    pub fn program_named(&self, name: &str) -> PathBuf {
        self.build(&["--bin", name]);
        self.folder().join(name)
    }

    fn build(&self, targets: &[&str]) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.env_remove("CARGO_BUILD_TARGET");
        cargo
            .args(["build", "--quiet", "-p", "stunts", "--profile", self.name, "--features", self.features])
            .args(targets)
            .arg("--target-dir")
            .arg(workspace().join("target"))
            .current_dir(workspace());
        if self.name != "release" {
            let inherits = ["inherits=\"release\""];
            for setting in inherits.iter().chain(self.settings) {
                cargo.args(["--config", &format!("profile.{}.{setting}", self.name)]);
            }
        }
        if !self.rustflags.is_empty() {
            cargo.env("RUSTFLAGS", self.rustflags);
        }
        assert!(cargo.status().expect("cargo runs").success(), "cargo cannot build stunts as {}", self.name);
    }

    fn folder(&self) -> PathBuf {
        workspace().join("target").join(self.name)
    }
}

/// Builds two libraries that can be loaded, one after the other, and returns their paths.
pub fn libraries() -> [PathBuf; 2] {
    RELEASE.build(&["--examples"]);
    ["one", "two"].map(|name| RELEASE.folder().join("examples").join(format!("libplug_{name}.so")))
}

/// Builds the library that exchanges blocks with the program, and returns its path.
pub fn exchanging_library() -> PathBuf {
    RELEASE.build(&["--example", "plug_exchange"]);
    RELEASE.folder().join("examples/libplug_exchange.so")
}
