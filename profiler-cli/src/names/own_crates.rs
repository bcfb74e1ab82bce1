//! The crates whose code is not the user's own: the standard library, and the crates that a process
//! links for being profiled. In: the name of a crate or of a source folder. Out: which kind it is.
//!
//! Every list of such crates in this package is here, so that no two lists can disagree.

/// A package that a process links for being profiled.
struct RecorderPackage {
    /// The crate's name, as it stands in paths of functions.
    crate_name: &'static str,
    /// The package's name, as its source folder is named.
    package: &'static str,
    /// Name of the package's folder inside that of `alloc-tracker`; `None` if it does not lie
    /// there.
    subfolder: Option<&'static str>,
}

const RECORDER_PACKAGES: &[RecorderPackage] = &[
    RecorderPackage { crate_name: "alloc_tracker", package: "alloc-tracker", subfolder: None },
    RecorderPackage { crate_name: "alloc_dump", package: "alloc-dump", subfolder: Some("dump") },
    RecorderPackage { crate_name: "alloc_oracle", package: "alloc-oracle", subfolder: Some("oracle") },
    RecorderPackage { crate_name: "backtrace", package: "backtrace", subfolder: None },
];

/// Crates of the standard library, and crates that the compiler adds to every program.
const STANDARD_CRATES: &[&str] = &[
    "alloc",
    "core",
    "std",
    "std_detect",
    "__rustc",
    "compiler_builtins",
    "panic_abort",
    "panic_unwind",
    "proc_macro",
    "rustc_demangle",
    "rustc_std_workspace_alloc",
    "rustc_std_workspace_core",
    "test",
    "unwind",
];

/// Crates of the runtime whose functions only allocate on behalf of their caller. Such a function
/// does not tell what the memory is for. `hashbrown` is a runtime crate only where `std` was built
/// from it.
const ALLOCATING_CRATES: &[&str] =
    &["alloc", "core", "alloc_tracker", "alloc_oracle", "__rustc", "hashbrown"];

/// Crates of the standard library that are built on the global allocator.
const COLLECTIONS_CRATES: [&str; 2] = ["alloc", "hashbrown"];

/// The packages of this project whose code runs for each heap event.
pub(crate) const EVENT_PACKAGES: [&str; 2] = ["alloc-tracker", "alloc-dump"];

/// Whether the crate belongs to the runtime rather than to the user's own code.
pub(crate) fn is_runtime_crate(name: &str) -> bool {
    STANDARD_CRATES.contains(&name) || is_recorder_crate(name)
}

/// Whether a process links this crate only for being profiled.
pub(crate) fn is_recorder_crate(name: &str) -> bool {
    RECORDER_PACKAGES.iter().any(|package| package.crate_name == name)
}

/// Whether the functions of the runtime in this crate only allocate for their caller.
pub(crate) fn is_allocating_crate(name: &str) -> bool {
    ALLOCATING_CRATES.contains(&name)
}

/// Whether the functions of this crate of the standard library call the global allocator, and are
/// not called by it.
pub(crate) fn is_collections_crate(name: &str) -> bool {
    COLLECTIONS_CRATES.contains(&name)
}

/// Whether `folder`, which lies inside the folder `parent`, is the source folder of a package that
/// a process links only for being profiled. A version after the name, which registries add, is
/// ignored.
pub(crate) fn is_recorder_folder(folder: &str, parent: Option<&str>) -> bool {
    RECORDER_PACKAGES.iter().any(|package| {
        package.package == without_version(folder)
            || package.subfolder == Some(folder) && parent == Some("alloc-tracker")
    })
}

/// Returns `backtrace` for `backtrace-0.3.76`.
fn without_version(folder: &str) -> &str {
    match folder.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorder_folders_are_known_with_and_without_a_version() {
        for (folder, parent) in [
            ("alloc-tracker", Some("me")),
            ("alloc-tracker-0.1.0", Some("index")),
            ("backtrace-0.3.76", None),
            ("dump", Some("alloc-tracker")),
        ] {
            assert!(is_recorder_folder(folder, parent), "{folder}");
        }
        for (folder, parent) in
            [("dump", Some("me")), ("backtrace-viewer", None), ("dump-1.0.0", Some("alloc-tracker"))]
        {
            assert!(!is_recorder_folder(folder, parent), "{folder}");
        }
    }

    #[test]
    fn the_packages_that_run_for_each_event_are_recorder_packages() {
        assert!(EVENT_PACKAGES.iter().all(|package| is_recorder_folder(package, None)));
    }
}
