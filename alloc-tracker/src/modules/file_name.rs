//! The path of a mapped file. In: a path as /proc/self/maps shows it, and the file's inode. Out:
//! the path. Asks the kernel only about paths that may mean two things; never allocates.
//!
//! The kernel writes a newline in a path as `\012`, and appends ` (deleted)` to the path of a file
//! that was removed. But a file may have a name that contains these characters. So the inode
//! decides:
//!
//! | shown | path |
//! | --- | --- |
//! | `/a/x (deleted)`, and a file of this path has the inode | `/a/x (deleted)` |
//! | `/a/x (deleted)`, and there is no such file | `/a/x` |
//! | `/a/new\012line` | `/a/new`, a newline, `line` |

use crate::base::sys::{FileStatus, PathBuffer};

/// Returns the path of the mapped file with this inode, of which the kernel has shown `shown`.
pub(super) fn path_of(shown: &[u8], inode: u64) -> PathBuffer {
    let may_be_escaped = shown.windows(ESCAPED_NEWLINE.len()).any(|part| part == ESCAPED_NEWLINE);
    let without_ending = shown.strip_suffix(DELETED);
    if !may_be_escaped && without_ending.is_none() {
        return PathBuffer::of(shown);
    }
    let is_the_file = |path: &PathBuffer| {
        path.as_c_str().and_then(FileStatus::of_path).is_some_and(|status| status.inode == inode)
    };
    let literal = PathBuffer::of(shown);
    if is_the_file(&literal) {
        return literal;
    }
    let unescaped = unescape(shown);
    if without_ending.is_none() || is_the_file(&unescaped) {
        return unescaped;
    }
    unescape(without_ending.unwrap_or(shown))
}

fn unescape(mut shown: &[u8]) -> PathBuffer {
    let mut path = PathBuffer::new();
    while let Some(at) = shown.windows(ESCAPED_NEWLINE.len()).position(|part| part == ESCAPED_NEWLINE) {
        let (before, rest) = shown.split_at(at);
        path.push(before);
        path.push(b"\n");
        shown = rest.get(ESCAPED_NEWLINE.len()..).unwrap_or_default();
    }
    path.push(shown);
    path
}

const ESCAPED_NEWLINE: &[u8] = b"\\012";
const DELETED: &[u8] = b" (deleted)";

#[cfg(all(test, not(miri)))]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_inode_tells_a_name_from_what_the_kernel_adds() {
        let folder = tempfile::tempdir().unwrap();
        let shown = |name: &str| folder.path().join(name).as_os_str().as_bytes().to_vec();
        let path = |name: &str, inode: u64| path_of(&shown(name), inode).as_bytes().to_vec();
        for name in ["plain", "odd (deleted)", "back\\012slash", "new\nline", "both\n (deleted)"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let inode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().ino();
        assert_eq!(path("plain", inode("plain")), shown("plain"));
        assert_eq!(path("odd (deleted)", inode("odd (deleted)")), shown("odd (deleted)"));
        // The deleted file `odd` had another inode than the file that is there.
        assert_eq!(path("odd (deleted)", u64::MAX), shown("odd"));
        assert_eq!(path("gone (deleted)", 1), shown("gone"));
        assert_eq!(path("new\\012line", inode("new\nline")), shown("new\nline"));
        assert_eq!(path("back\\012slash", inode("back\\012slash")), shown("back\\012slash"));
        assert_eq!(path("both\\012 (deleted)", inode("both\n (deleted)")), shown("both\n (deleted)"));
        assert_eq!(path("new\\012gone (deleted)", 1), shown("new\ngone"));
        assert_eq!(path_of(b"[vdso]", 0).as_bytes(), b"[vdso]");
    }
}
