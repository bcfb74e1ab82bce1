//! Finds the paths at which a source file may be. In: a path from debug info, and folders that the
//! user named. Out: paths to try, likeliest first. Nothing here checks whether a path exists.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where to search for sources that are no longer at the path where they were compiled. The default
/// searches only that path.
#[derive(Clone, Debug, Default)]
pub struct SourceSearch {
    /// Folders in which to look for the longest end of a path.
    pub roots: Vec<PathBuf>,
    /// Prefixes of paths to replace; the first map whose prefix fits is used.
    pub maps: Vec<PathMap>,
}

/// `OLD=NEW`: a path that begins with OLD begins with NEW instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    old: PathBuf,
    new: PathBuf,
}

impl FromStr for PathMap {
    type Err = String;

    fn from_str(text: &str) -> Result<PathMap, String> {
        match text.split_once('=') {
            Some((old, new)) if !old.is_empty() => Ok(PathMap { old: old.into(), new: new.into() }),
            _ => Err("two paths with = between them".to_owned()),
        }
    }
}

/// A path at which a source file may be.
pub(crate) struct SourceCandidate {
    pub(crate) path: PathBuf,
    /// Whether the file at that path may be another file of the same name.
    pub(crate) is_guess: bool,
}

impl SourceSearch {
    /// Returns the paths at which the file that was compiled at `path` may be, likeliest first.
    pub(crate) fn candidates(&self, path: &Path) -> Vec<SourceCandidate> {
        let mapped = self.maps.iter().find_map(|map| Some(map.new.join(path.strip_prefix(&map.old).ok()?)));
        // A relative path starts at the compiler's working directory, which may differ from that of
        // this process.
        let is_guess = mapped.is_none() && path.is_relative();
        let mut candidates =
            vec![SourceCandidate { path: mapped.unwrap_or_else(|| path.to_owned()), is_guess }];
        // A path with `..` could lead out of the root folder.
        if path.components().any(|part| part == Component::ParentDir) {
            return candidates;
        }
        let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let parts: Vec<Component<'_>> = path.components().filter(normal).collect();
        let names: Vec<&str> =
            parts.iter().map(|part| part.as_os_str().to_str().unwrap_or_default()).collect();
        for root in &self.roots {
            let ends = (0..=shortest_end(&names)).map(|from| parts[from..].iter().collect::<PathBuf>());
            candidates.extend(ends.map(|end| SourceCandidate { path: root.join(end), is_guess: true }));
        }
        candidates
    }
}

/// Returns the index of the part at which the shortest usable end of a path begins. A usable end is
/// long enough to tell the file from other files: every package has a `src/lib.rs`. So the end must
/// contain the package's own folder if the package came from a registry or with the compiler, and
/// at least one folder otherwise.
fn shortest_end(parts: &[&str]) -> usize {
    let behind = |folders: &[&str], more: usize| {
        let at = parts.windows(folders.len()).position(|window| window == folders)?;
        Some(at + folders.len() + more)
    };
    let package = behind(&["registry", "src"], 1)
        .or_else(|| behind(&["git", "checkouts"], 1))
        .or_else(|| behind(&["rustlib", "src", "rust"], 0))
        .or_else(|| (parts.first() == Some(&"rustc")).then_some(2));
    package.unwrap_or(usize::MAX).min(parts.len().saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_end_contains_the_folder_of_a_package() {
        let end = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            parts[shortest_end(&parts)..].join("/")
        };
        assert_eq!(end("build/7/app/src/main.rs"), "src/main.rs");
        assert_eq!(end("main.rs"), "main.rs");
        assert_eq!(end("c/registry/src/index-1/serde-1.0.0/src/lib.rs"), "serde-1.0.0/src/lib.rs");
        assert_eq!(end("c/git/checkouts/tool-1f/9a8b7c/src/lib.rs"), "9a8b7c/src/lib.rs");
        assert_eq!(end("rustc/0123/library/core/src/mem/mod.rs"), "library/core/src/mem/mod.rs");
        assert_eq!(end("t/lib/rustlib/src/rust/library/std/src/io.rs"), "library/std/src/io.rs");
    }
}
