//! The commit that is checked out. In: a folder inside of a git repository. Out: the id of the
//! commit. Only reads files, so git need not be installed. Changes that are not committed are not
//! seen.
//!
//! <https://git-scm.com/docs/gitrepository-layout>

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the id of the commit of the repository that the folder belongs to. `None` if the folder
/// is in no repository, or if nothing is committed yet.
pub(super) fn commit_of(folder: &Path) -> Option<String> {
    let git = folder.ancestors().find_map(git_folder)?;
    let head = read(&git.join("HEAD"))?;
    match head.strip_prefix("ref: ") {
        None => is_id(&head).then_some(head),
        Some(name) => {
            // A worktree of its own has its HEAD, and the branches are those of all worktrees.
            let common = read(&git.join("commondir")).map(|path| git.join(path));
            let folders = [Some(git), common];
            folders.iter().flatten().find_map(|folder| id_of_ref(folder, name))
        }
    }
}

/// Returns the folder of the repository if this folder is the top of a working tree.
fn git_folder(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    Some(folder.join(read(&git)?.strip_prefix("gitdir: ")?))
}

/// Returns the id that a name such as `refs/heads/main` stands for.
fn id_of_ref(git: &Path, name: &str) -> Option<String> {
    // The name must not lead out of the repository.
    let is_inside = !name.split('/').any(|part| part == "..") && !name.starts_with('/');
    let loose = is_inside.then(|| read(&git.join(name))).flatten().filter(|id| is_id(id));
    let packed = || {
        let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
        let line = packed.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' '))?;
        is_id(line).then(|| line.to_owned())
    };
    loose.or_else(packed)
}

/// Returns a short text file without the space at its end.
fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

/// Whether a text is the id of a commit, by SHA-1 or SHA-256.
fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";
    const OTHER: &str = "1123456789abcdef0123456789abcdef01234567";

    #[test]
    fn the_commit_is_found_wherever_git_keeps_it() {
        let top = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let commit = |folder: &str| commit_of(&top.path().join(folder));
        write("a/src/x", "");
        write("a/.git/HEAD", &format!("{ID}\n"));
        assert_eq!(commit("a/src").as_deref(), Some(ID), "detached");

        write("a/.git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(commit("a"), None, "nothing is committed");
        write(
            "a/.git/packed-refs",
            &format!("# pack-refs\n{OTHER} refs/heads/domain\n{ID} refs/heads/main\n"),
        );
        assert_eq!(commit("a").as_deref(), Some(ID), "packed");
        write("a/.git/refs/heads/main", &format!("{OTHER}\n"));
        assert_eq!(commit("a").as_deref(), Some(OTHER), "a file wins");

        write("b/.git", "gitdir: ../a/.git/worktrees/b\n");
        write("a/.git/worktrees/b/HEAD", "ref: refs/heads/main\n");
        write("a/.git/worktrees/b/commondir", "../..\n");
        assert_eq!(commit("b").as_deref(), Some(OTHER), "a worktree");

        write("a/.git/HEAD", "ref: ../../b/.git\n");
        assert_eq!(commit("a"), None);
        write("a/.git/HEAD", "not an id\n");
        assert_eq!(commit("a"), None);
    }
}
