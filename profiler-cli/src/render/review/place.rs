//! Where the sources of a review are in their repository. In: paths as the debug info has them.
//! Out: paths relative to the root of the repository, and links to lines. Nothing here looks at
//! files.

use std::path::{Component, Path, PathBuf};

use super::url::{percent_encoded, without_delimiters};
use crate::analyze::review::Finding;

/// The repository of the reviewed sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryPlace {
    root: Option<PathBuf>,
    link_base: Option<String>,
}

/// A line of a source file in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryLine {
    /// Path relative to the root of the repository, with `/` between its parts.
    pub path: String,
    /// Line, from 1; `None` if it is not known.
    pub line: Option<u32>,
}

impl RepositoryPlace {
    /// Describes a repository. `root` is its absolute path. `link_base` is the URL to which a
    /// relative path is appended, such as `https://github.com/owner/name/blob/COMMIT`.
    pub fn new(root: Option<PathBuf>, link_base: Option<String>) -> RepositoryPlace {
        let link_base = link_base.map(|base| without_delimiters(base.trim_end_matches('/')));
        RepositoryPlace { root, link_base: link_base.filter(|base| !base.is_empty()) }
    }

    /// Returns the path of a source file relative to the root of the repository; `None` if the file
    /// is outside of the repository. A path that is relative already begins at the root.
    pub fn relative(&self, file: &str) -> Option<String> {
        let path = Path::new(file);
        let below_root = match &self.root {
            Some(root) if path.is_absolute() => without_dots(path)?.strip_prefix(root).ok()?.to_owned(),
            _ if path.is_absolute() => return None,
            _ => without_dots(path)?,
        };
        let parts = below_root.iter().map(|part| part.to_str());
        let relative = parts.collect::<Option<Vec<_>>>()?.join("/");
        (!relative.is_empty()).then_some(relative)
    }

    /// Returns the line of the repository that a finding is about: its own line, or else that of
    /// the innermost frame of its stack that is in the repository.
    pub fn line_of(&self, finding: &Finding) -> Option<RepositoryLine> {
        let own = std::iter::once((finding.file.as_deref(), finding.line));
        let frames = finding.stack.iter().map(|frame| (frame.file.as_deref(), frame.line));
        own.chain(frames).find_map(|(file, line)| self.line_at(file, line))
    }

    /// Returns a line of a source file; `None` if the file is not known or not in the repository.
    pub fn line_at(&self, file: Option<&str>, line: Option<u32>) -> Option<RepositoryLine> {
        Some(RepositoryLine { path: self.relative(file?)?, line: line.filter(|line| *line > 0) })
    }

    /// Returns the address of a line for a browser; `None` if no link base is known.
    pub fn link(&self, line: &RepositoryLine) -> Option<String> {
        let base = self.link_base.as_deref()?;
        let anchor = line.line.map_or_else(String::new, |line| format!("#L{line}"));
        Some(format!("{base}/{}{anchor}", percent_encoded(&line.path)))
    }
}

/// Returns a path without `.` and `..`; `None` if a `..` leads above the path's beginning.
fn without_dots(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !plain.pop() => return None,
            Component::ParentDir => {}
            part => plain.push(part),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> RepositoryPlace {
        RepositoryPlace::new(Some("/srv/app".into()), Some("https://example.org/o/r/blob/c0ffee/".into()))
    }

    #[test]
    fn paths_below_the_root_lose_it_and_others_are_outside() {
        let relative = |file: &str| place().relative(file);
        assert_eq!(relative("/srv/app/src/main.rs").as_deref(), Some("src/main.rs"));
        assert_eq!(relative("/srv/app/./a/../src/main.rs").as_deref(), Some("src/main.rs"));
        assert_eq!(relative("src/./main.rs").as_deref(), Some("src/main.rs"));
        for outside in ["/srv/application/main.rs", "/srv/app/../main.rs", "../main.rs", "/srv/app", ""] {
            assert_eq!(relative(outside), None, "{outside}");
        }
        let nowhere = RepositoryPlace::default();
        assert_eq!(nowhere.relative("src/main.rs").as_deref(), Some("src/main.rs"));
        assert_eq!(nowhere.relative("/srv/app/src/main.rs"), None);
    }

    #[test]
    fn a_link_has_the_path_and_the_line_and_no_character_that_ends_it() {
        let line = |path: &str, line| RepositoryLine { path: path.to_owned(), line };
        let link = |path, number| place().link(&line(path, number)).unwrap();
        assert_eq!(link("src/main.rs", Some(7)), "https://example.org/o/r/blob/c0ffee/src/main.rs#L7");
        assert_eq!(
            link("a b/(x)#|é.rs", None),
            "https://example.org/o/r/blob/c0ffee/a%20b/%28x%29%23%7C%C3%A9.rs"
        );
        assert_eq!(RepositoryPlace::default().link(&line("src/main.rs", Some(7))), None);
    }
}
