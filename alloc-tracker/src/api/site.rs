//! The lines of code that have allocated. In: birth stacks. Out: their sites, named in this process
//! by the `backtrace` package.
//!
//! Not part of the hook: allocates, and may take the lock of `backtrace`. A caller makes its thread
//! be outside of all scopes meanwhile, because the names stay in a cache of that package.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::scope;

/// The line of code that has allocated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Site {
    pub(super) function: String,
    /// The file and the line, if the program has debug info.
    pub(super) place: Option<(PathBuf, u32)>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((file, line)) => write!(f, "{} at {}:{line}", self.function, file.display()),
            None => f.write_str(&self.function),
        }
    }
}

/// A function on a stack, as its symbol and the debug info say.
#[derive(Debug)]
pub(super) struct NamedFrame {
    function: String,
    place: Option<(PathBuf, u32)>,
}

/// Returns the functions of a birth stack, leaf first, inlined ones included.
pub(super) fn names_of(stack: u32) -> Vec<NamedFrame> {
    let mut addresses = Vec::new();
    scope::for_each_address(stack, |pc| addresses.push(pc));
    let mut frames = Vec::new();
    for pc in addresses {
        // The byte before the return address belongs to the call.
        let call = std::ptr::without_provenance_mut(pc.wrapping_sub(1) as usize);
        backtrace::resolve(call, |symbol| {
            let function = symbol.name().map(|name| format!("{name:#}"));
            let place = symbol.filename().map(Path::to_path_buf).zip(symbol.lineno());
            frames.extend(function.map(|function| NamedFrame { function, place }));
        });
    }
    frames
}

/// Returns the innermost frame of the user's own code; if there is none, the innermost one of a
/// dependency; if there is none either, the leaf.
pub(super) fn site_of(frames: &[NamedFrame]) -> Site {
    let frames = &frames[frames.iter().rposition(is_of_allocator).map_or(0, |last| last + 1)..];
    let innermost = |is_wanted: fn(&NamedFrame) -> bool| frames.iter().find(|frame| is_wanted(frame));
    let frame = innermost(|frame| !is_runtime(frame) && !is_dependency(frame))
        .or_else(|| innermost(|frame| !is_runtime(frame)))
        .or_else(|| frames.first());
    match frame {
        Some(frame) => Site {
            function: frame.function.clone(),
            place: frame.place.as_ref().map(|(file, line)| (relative(file), *line)),
        },
        None => Site { function: "a function without a name".to_owned(), place: None },
    }
}

/// Whether a frame is of the standard library, of the compiler's own functions, or of this crate.
/// The file tells, because the name of a method says nothing about who wrote it. Where there is no
/// file, the name has to do.
fn is_runtime(frame: &NamedFrame) -> bool {
    let name = frame.function.trim_start_matches(['<', '&', '(', '[']);
    if name.starts_with("alloc_tracker::") {
        return true;
    }
    match &frame.place {
        Some((file, _)) => {
            let file = file.to_string_lossy();
            ["/rustc/", "/rustlib/src/rust/", "/rust/deps/"].iter().any(|part| file.contains(part))
        }
        None => RUNTIME.iter().any(|part| name.starts_with(part)),
    }
}

/// Whether a frame is a method of a global allocator, which may be the user's own, or the
/// compiler's function around it.
fn is_of_allocator(frame: &NamedFrame) -> bool {
    let name = frame.function.trim_start_matches("__rustc::");
    name.contains("GlobalAlloc>::")
        || ["__rust_alloc", "__rust_realloc", "__rg_", "__rdl_"].iter().any(|part| name.starts_with(part))
}

/// Whether a frame is of a package that cargo has downloaded.
fn is_dependency(frame: &NamedFrame) -> bool {
    let Some((file, _)) = &frame.place else { return false };
    let file = file.to_string_lossy();
    ["/registry/src/", "/git/checkouts/"].iter().any(|part| file.contains(part))
}

/// Whether a block is output that the test harness captures and prints later. It is live until the
/// test ends, whatever the test does.
pub(super) fn is_kept_by_test_harness(frames: &[NamedFrame]) -> bool {
    frames.iter().any(|frame| frame.function.contains("::print_to_buffer_if_capture_used"))
}

/// Returns a path as seen from the working directory, if it lies below that.
fn relative(file: &Path) -> PathBuf {
    let below =
        std::env::current_dir().ok().and_then(|folder| Some(file.strip_prefix(folder).ok()?.to_owned()));
    below.unwrap_or_else(|| file.to_owned())
}

/// What the names of the runtime's functions begin with.
const RUNTIME: [&str; 6] = ["alloc::", "core::", "std::", "hashbrown::", "__rust", "__rdl_"];

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str) -> NamedFrame {
        NamedFrame { function: function.to_owned(), place: Some((PathBuf::from(file), 7)) }
    }

    #[test]
    fn the_site_is_the_innermost_frame_of_own_code() {
        let raw_vec = frame("alloc::raw_vec::RawVec<T>::grow", "/rustc/0123/library/alloc/src/raw_vec.rs");
        let map = frame("hashbrown::raw::RawTable<T>::reserve", "/rust/deps/hashbrown-0.15/src/raw/mod.rs");
        let impl_of_std = frame("<alloc::vec::Vec<u8> as own::Fill>::fill", "/home/me/own/src/fill.rs");
        let crate_of_other =
            frame("lru::Cache<K,V>::put", "/home/me/.cargo/registry/src/index/lru-0.1/lib.rs");
        let own = frame("own::cache::keep", "/home/me/own/src/cache.rs");
        let site = |frames: &[NamedFrame]| site_of(frames).function;
        assert_eq!(site(&[raw_vec, map]), "alloc::raw_vec::RawVec<T>::grow");
        let raw_vec = || frame("__rustc::__rust_alloc", "/rustc/0123/library/alloc/src/alloc.rs");
        assert_eq!(site(&[raw_vec(), crate_of_other, own]), "own::cache::keep");
        let crate_of_other =
            frame("lru::Cache<K,V>::put", "/home/me/.cargo/registry/src/index/lru-0.1/lib.rs");
        assert_eq!(site(&[raw_vec(), crate_of_other]), "lru::Cache<K,V>::put");
        assert!(site(&[raw_vec(), impl_of_std]).contains("Fill"));
        assert_eq!(site(&[]), "a function without a name");
    }
}
