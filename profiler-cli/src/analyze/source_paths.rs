//! The paths of source files as reports show them. In: a profile and its named stacks. Out: paths
//! of own code relative to the folder that has all of it, and paths of packages without the folders
//! of the registry.
//!
//! ```text
//! /home/a/shop/src/cart.rs                                      src/cart.rs, below /home/a/shop
//! /home/a/.cargo/registry/src/index-1/tokio-1.40.0/src/task.rs  tokio-1.40.0/src/task.rs
//! /rustc/0123/library/alloc/src/vec/mod.rs                      library/alloc/src/vec/mod.rs
//! ```

use std::path::Path;

use crate::names::stacks::Stacks;
use crate::profile::Profile;

/// Shortens the paths of one profile.
#[derive(Clone, Debug, Default)]
pub(super) struct SourcePaths {
    /// The folder of the user's own code, without a slash at its end; `None` if there is none.
    root: Option<String>,
}

impl SourcePaths {
    /// Finds the folder of the user's own code. It is the folder in which cargo has put `target`,
    /// or the working directory of the program, or the innermost folder that has all own files: the
    /// first of these that has the first own file.
    pub(super) fn of(profile: &Profile, stacks: &Stacks) -> SourcePaths {
        let own =
            stacks.all_frames().filter(|frame| frame.is_own()).filter_map(|frame| frame.file.as_deref());
        let own: Vec<&str> = own.filter(|file| file.starts_with('/')).collect();
        let exe = profile.process.exe.to_string_lossy();
        let beside_target = exe.rfind("/target/").map(|at| exe[..at].to_owned());
        let cwd = profile.process.cwd.to_string_lossy().into_owned();
        let root = [beside_target, Some(cwd)]
            .into_iter()
            .flatten()
            .find(|root| own.iter().any(|file| is_below(file, root)))
            .or_else(|| common_folder(&own));
        SourcePaths { root }
    }

    /// Returns the folder of the user's own code.
    pub(super) fn root(&self) -> Option<String> {
        self.root.clone()
    }

    /// Returns a path as reports show it.
    pub(super) fn shown<'a>(&self, file: &'a str) -> &'a str {
        let below_root = self.root.as_deref().filter(|root| is_below(file, root));
        match below_root {
            Some(root) => &file[root.len() + 1..],
            None => short_package_path(file),
        }
    }
}

/// Whether a file lies in a folder, which is neither empty nor the root of the file system.
fn is_below(file: &str, folder: &str) -> bool {
    folder.len() > 1 && file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the innermost folder that has all of these files, and no folder named `src` in its path
/// below the outermost one: the sources of one package are shown with their `src`.
fn common_folder(files: &[&str]) -> Option<String> {
    let (first, rest) = files.split_first()?;
    let mut common = Path::new(first).parent()?;
    for file in rest {
        while !Path::new(file).starts_with(common) {
            common = common.parent()?;
        }
    }
    let text = common.to_str()?;
    let before_src = text.find("/src/").or_else(|| text.strip_suffix("/src").map(str::len));
    let folder = &text[..before_src.unwrap_or(text.len())];
    (folder.len() > 1).then(|| folder.to_owned())
}

/// Returns a source path without the leading folders of the registry or of the compiler, which are
/// the same for many files.
fn short_package_path(file: &str) -> &str {
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        return rest.split_once('/').map_or(rest, |(_, path)| path);
    }
    if let Some((_, rest)) = file.split_once("/git/checkouts/") {
        return rest;
    }
    if let Some(rest) = file.strip_prefix("/rustc/") {
        return rest.split_once('/').map_or(rest, |(_, path)| path);
    }
    if let Some((_, rest)) = file.split_once("/rustlib/src/rust/") {
        return rest;
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::code_owner::CodeOwner;
    use crate::names::stacks::NamedFrame;
    use crate::profile::Process;

    fn paths(exe: &str, cwd: &str, files: &[&str]) -> SourcePaths {
        let frame = |file: &&str| NamedFrame {
            function: "app::work".into(),
            file: Some((*file).into()),
            line: None,
            is_inlined: false,
            owner: CodeOwner::Own,
            module: "app".into(),
        };
        let stacks = Stacks::from_frames(&[files.iter().map(frame).collect()]);
        let process = Process { exe: exe.into(), cwd: cwd.into(), ..Process::default() };
        SourcePaths::of(&Profile { process, ..Profile::default() }, &stacks)
    }

    #[test]
    fn own_paths_are_relative_to_the_folder_that_has_them() {
        let found = paths("/w/shop/target/debug/shop", "/home", &["/w/shop/core/src/cart.rs"]);
        assert_eq!(found.shown("/w/shop/core/src/cart.rs"), "core/src/cart.rs");
        assert_eq!(found.shown("/w/shopping/src/cart.rs"), "/w/shopping/src/cart.rs");
        let elsewhere = paths("/cache/target/debug/shop", "/w", &["/w/shop/src/cart.rs"]);
        assert_eq!(
            (elsewhere.shown("/w/shop/src/cart.rs"), elsewhere.root().unwrap()),
            ("shop/src/cart.rs", "/w".to_owned())
        );
        let two = paths("/usr/bin/shop", "/", &["/w/shop/src/a/b.rs", "/w/shop/src/c.rs"]);
        assert_eq!(two.shown("/w/shop/src/c.rs"), "src/c.rs");
        assert_eq!(paths("", "", &["src/c.rs"]).shown("src/c.rs"), "src/c.rs");
        assert_eq!(paths("", "", &["/c.rs", "/a/d.rs"]).root(), None);
    }

    #[test]
    fn paths_lose_the_folder_of_the_registry_and_of_the_compiler() {
        for (file, shown) in [
            ("/home/a/.cargo/registry/src/index-1/syn-3.0.1/src/lib.rs", "syn-3.0.1/src/lib.rs"),
            ("/rustc/0123/library/alloc/src/vec/mod.rs", "library/alloc/src/vec/mod.rs"),
            ("/home/a/.cargo/git/checkouts/syn-12/ab/src/lib.rs", "syn-12/ab/src/lib.rs"),
            ("/srv/app/main.rs", "/srv/app/main.rs"),
        ] {
            assert_eq!(short_package_path(file), file.strip_suffix(shown).map_or(file, |_| shown), "{file}");
        }
    }
}
