//! Whose code a frame is: the user's own, that of a dependency, or the runtime's.
//!
//! In: the distinct frames of a profile, and its program. Out: a [`CodeOwner`] for each frame that
//! is not the runtime's; [`classify`](super::symbolize::classify) finds those of the runtime.
//!
//! The path of the source file decides: cargo unpacks packages into folders of its own, and
//! vendored sources lie in folders with well-known names. All other sources are the user's own, so
//! the members of a workspace and packages beside it are own code. A function without a source file
//! goes by its crate.
//!
//! ```text
//! /home/a/shop/src/cart.rs                                        own
//! /home/a/.cargo/registry/src/index-1/tokio-1.40.0/src/task.rs    dependency
//! /home/a/shop/vendor/tokio/src/task.rs                           dependency
//! (no file) shop::cart::add, while shop has files as above        own
//! ```

use std::path::Path;

use foldhash::HashSet;

use super::rust_path::crate_of;
use super::stacks::NamedFrame;
use crate::pattern::Pattern;

/// Whose code a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeOwner {
    /// The user: the packages of the workspace, and those that lie beside it.
    #[default]
    Own,
    /// A package from a registry, from cargo's git cache, or vendored; a library of the system.
    Dependency,
    /// The allocator, `alloc`, `core`, `std`, this project, the C library.
    Runtime,
}

impl CodeOwner {
    /// Returns the runtime if `is_runtime`, else the user.
    pub fn runtime_if(is_runtime: bool) -> CodeOwner {
        if is_runtime { CodeOwner::Runtime } else { CodeOwner::Own }
    }
}

/// Finds the owner of every frame that is not marked as the runtime's. `exe` is the path of the
/// program; crates that match one of `declared` are own code, whatever their path says.
pub(super) fn assign(frames: &mut [NamedFrame], exe: &Path, declared: &[Pattern]) {
    let program = Program::of(exe);
    let own_package = frames.iter().find_map(|frame| program.package_of_main(frame)).map(str::to_owned);
    let is_declared = |frame: &NamedFrame| {
        crate_of(&frame.function).is_some_and(|name| declared.iter().any(|p| p.matches(name)))
    };
    let mut own_crates: HashSet<String> = HashSet::default();
    own_crates.extend(program.crate_name.clone());
    for frame in frames.iter_mut().filter(|frame| !frame.is_runtime()) {
        let Some(file) = frame.file.as_deref() else { continue };
        let is_own = !is_package_file(file)
            || own_package.as_deref().is_some_and(|package| file.starts_with(package))
            || is_declared(frame);
        frame.owner = if is_own { CodeOwner::Own } else { CodeOwner::Dependency };
        if is_own && let Some(name) = crate_of(&frame.function) {
            own_crates.insert(name.to_owned());
        }
    }
    for frame in frames.iter_mut().filter(|frame| !frame.is_runtime() && frame.file.is_none()) {
        let is_own = match crate_of(&frame.function) {
            Some(name) => own_crates.contains(name) || is_declared(frame),
            // Code of other languages, and addresses without a name. A program makes its own code
            // at run time, so code in no file is own, too.
            None => frame.module.is_empty() || *frame.module == *program.file_name,
        };
        frame.owner = if is_own { CodeOwner::Own } else { CodeOwner::Dependency };
    }
}

/// Whether a source file belongs to a package that the user did not write: one from a registry or
/// from cargo's git cache, a vendored one, or one that came with the compiler.
///
/// ```
/// use profiler_cli::names::code_owner::is_package_file;
/// assert!(is_package_file("/home/a/.cargo/registry/src/index-1/tokio-1.40.0/src/lib.rs"));
/// assert!(is_package_file("/srv/shop/vendor/tokio/src/lib.rs") && is_package_file("tokio-1.40.0/src/lib.rs"));
/// assert!(!is_package_file("/srv/shop/src/lib.rs") && !is_package_file("shop/src/lib.rs"));
/// ```
pub fn is_package_file(file: &str) -> bool {
    file.contains("/registry/src/")
        || file.contains("/git/checkouts/")
        || file.starts_with("/rustc/")
        || file.split('/').rev().skip(1).any(|folder| VENDORED.contains(&folder))
        // What `trim-paths` leaves of a path in a registry.
        || file.split_once('/').is_some_and(|(folder, _)| has_version(folder))
}

/// Returns the crate that the code of a frame was written in; of code in another language, the file
/// name of its module.
///
/// The name of a function may begin with another crate: `<alloc::vec::Vec<T> as syn::Parse>::parse`
/// is code of syn. So the folder of a file in a registry decides before the name does.
pub fn crate_of_frame(frame: &NamedFrame) -> String {
    rust_crate_of_frame(frame).unwrap_or_else(|| frame.module.to_string())
}

/// Returns the crate that the code of a frame was written in; `None` for code in another language.
pub fn rust_crate_of_frame(frame: &NamedFrame) -> Option<String> {
    match frame.file.as_deref().and_then(package_of_file) {
        Some(package) => Some(package.replace('-', "_")),
        None => crate_of(&frame.function).map(str::to_owned),
    }
}

/// Returns the package of a source file in a registry: `tokio-util` of
/// `/c/registry/src/index-1/tokio-util-0.7.1/src/lib.rs`.
fn package_of_file(file: &str) -> Option<&str> {
    let (_, rest) = file.split_once("/registry/src/")?;
    let folder = rest.split('/').nth(1)?;
    let mut dashes = folder.match_indices('-').map(|(at, _)| at);
    let before_version = dashes.find(|at| is_version(&folder[at + 1..]));
    Some(before_version.map_or(folder, |at| &folder[..at]))
}

/// Names of folders in which build systems keep the sources of others.
const VENDORED: [&str; 4] = ["vendor", "third_party", "third-party", "external"];

/// Whether the name of a folder ends with a version: `tokio-1.40.0`.
fn has_version(folder: &str) -> bool {
    folder.match_indices('-').any(|(at, _)| is_version(&folder[at + 1..]))
}

/// Whether a text is a version of a package: `1.40.0`, `0.3.0-rc.1` or `2.0.1+zstd.1.5`.
fn is_version(text: &str) -> bool {
    let mut numbers = text.splitn(3, '.');
    let is_number = |number: Option<&str>| {
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number(numbers.next())
        && is_number(numbers.next())
        && is_number(numbers.next().and_then(|patch| patch.split(['.', '+', '-']).next()))
}

/// The program that ran.
struct Program {
    file_name: String,
    /// The crate of the program, by cargo's naming; `None` without a file name.
    crate_name: Option<String>,
}

impl Program {
    fn of(exe: &Path) -> Program {
        let file_name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Cargo adds a hash to the names of test programs: `cart-0123456789abcdef`.
        let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = match file_name.rsplit_once('-') {
            Some((name, hash)) if is_hash(hash) => name,
            _ => &file_name,
        };
        let crate_name = Some(name.replace('-', "_")).filter(|name| !name.is_empty());
        Program { file_name, crate_name }
    }

    /// Returns the folder of the package that has this frame, if the frame is the program's `main`
    /// in a package. So it is for a program that `cargo install` has built from a registry: its own
    /// code lies there.
    fn package_of_main<'a>(&self, frame: &'a NamedFrame) -> Option<&'a str> {
        let name = frame.function.strip_suffix("::main")?;
        let file = frame.file.as_deref().filter(|file| is_package_file(file))?;
        let rest = file.split_once("/registry/src/").map(|(_, rest)| rest)?;
        let package: usize = rest.split('/').take(2).map(|folder| folder.len() + 1).sum();
        (Some(name) == self.crate_name.as_deref())
            .then(|| file.get(..file.len() - rest.len() + package))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(exe: &str, declared: &[&str], frames: &[(&str, &str)]) -> Vec<CodeOwner> {
        let frame = |(function, file): &(&str, &str)| NamedFrame {
            function: (*function).into(),
            file: Some((*file).into()).filter(|file: &std::sync::Arc<str>| !file.is_empty()),
            line: None,
            is_inlined: false,
            owner: CodeOwner::Own,
            module: Path::new(exe).file_name().unwrap().to_string_lossy().into(),
        };
        let mut frames: Vec<NamedFrame> = frames.iter().map(frame).collect();
        let declared: Vec<Pattern> = declared.iter().map(|text| Pattern::new(text)).collect();
        assign(&mut frames, Path::new(exe), &declared);
        frames.into_iter().map(|frame| frame.owner).collect()
    }

    use CodeOwner::{Dependency, Own};

    const REGISTRY: &str = "/c/registry/src/index-1";

    #[test]
    fn files_decide_and_crates_decide_where_there_are_no_files() {
        let tokio = format!("{REGISTRY}/tokio-1.40.0/src/task.rs");
        let found = owners(
            "/w/target/debug/shop",
            &[],
            &[
                ("shop_core::cart::add", "/w/core/src/cart.rs"),
                ("tokio::task::spawn", &tokio),
                ("<shop_core::Cart as tokio::Work>::run", &tokio),
                ("shop_core::cart::remove", ""),
                ("shop::main", ""),
                ("tokio::task::poll", ""),
                ("sqlite3_step", ""),
            ],
        );
        assert_eq!(found, [Own, Dependency, Dependency, Own, Own, Dependency, Own]);
        let declared = owners("/w/target/debug/shop", &["tok*"], &[("tokio::task::spawn", &tokio)]);
        assert_eq!(declared, [Own]);
    }

    #[test]
    fn the_package_of_an_installed_program_is_own_code() {
        let own = format!("{REGISTRY}/shop-1.2.3/src/main.rs");
        let other = format!("{REGISTRY}/shop-1.2.30/src/lib.rs");
        let frames = [("shop::main", own.as_str()), ("shop::work", &own), ("shop_other::work", &other)];
        assert_eq!(owners("/usr/bin/shop", &[], &frames), [Own, Own, Dependency]);
    }

    #[test]
    fn the_package_of_a_file_is_known_without_its_version() {
        let file = |folder: &str| format!("{REGISTRY}/{folder}/src/lib.rs");
        for (folder, package) in [
            ("tokio-util-0.7.1", "tokio-util"),
            ("md-5-0.10.6", "md-5"),
            ("zstd-sys-2.0.1+zstd.1.5", "zstd-sys"),
        ] {
            assert_eq!(package_of_file(&file(folder)), Some(package));
        }
        assert_eq!(package_of_file("/srv/app/src/lib.rs"), None);
    }

    #[test]
    fn the_name_of_a_test_program_ends_with_a_hash() {
        let program = Program::of(Path::new("/w/target/debug/deps/cart-core-0123456789abcdef"));
        assert_eq!(program.crate_name.as_deref(), Some("cart_core"));
        assert_eq!(Program::of(Path::new("/usr/bin/cart-12")).crate_name.as_deref(), Some("cart_12"));
    }
}
