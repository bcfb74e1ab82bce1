//! Where sources may be. In: a path from debug info, and what a person says of folders. Out: paths to try, likeliest first.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where sources are that do not lie where they were compiled.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// Folders that are looked through for the longest end of a path.
    pub roots: Vec<PathBuf>,
    /// Beginnings of paths and what stands for them; the first one that fits counts.
    pub maps: Vec<PathMap>,
}

/// `OLD=NEW`: a path that begins with one begins with the other.
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

impl Elsewhere {
    /// Where the file that was compiled at `path` may be, likeliest first.
    pub(super) fn places(&self, path: &Path) -> Vec<Place> {
        let mapped = self.maps.iter().find_map(|map| Some(map.new.join(path.strip_prefix(&map.old).ok()?)));
        // A relative path is one of another folder, which need not be this one.
        let guessed = mapped.is_none() && path.is_relative();
        let mut places = vec![Place { path: mapped.unwrap_or_else(|| path.to_owned()), guessed }];
        // What climbs out of the folder again is not in it.
        if path.components().any(|part| part == Component::ParentDir) {
            return places;
        }
        let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let parts: Vec<Component<'_>> = path.components().filter(normal).collect();
        let names: Vec<&str> =
            parts.iter().map(|part| part.as_os_str().to_str().unwrap_or_default()).collect();
        for root in &self.roots {
            let ends = (0..=shortest_end(&names)).map(|from| parts[from..].iter().collect::<PathBuf>());
            places.extend(ends.map(|end| Place { path: root.join(end), guessed: true }));
        }
        places
    }
}

/// Where a file may be.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// It may be another file of the same name.
    pub(super) guessed: bool,
}

/// Where the shortest end of a path begins that tells its file from others. Every package has a `src/lib.rs`: of those that came
/// from a registry or with the compiler, the package's own folder must be in it.
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
    fn ends_of_paths_name_the_package_that_is_not_ones_own() {
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
