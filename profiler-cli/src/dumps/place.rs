//! Where the dump of a run goes. In: the name that it is to have. Out: a place where nothing stands in its way. What an
//! earlier run has left there is kept until the new dump exists: a program that cannot be started costs nobody anything.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use alloc_dump::layout::MAGIC;
use anyhow::bail;
use rustix::process::{Pid, test_kill_process};

use crate::load::{plain, remove_sidecar, sidecar_path, writer_of};

/// A place for a dump. Unless the dump [came](Place::filled), dropping it puts back what stood there.
#[derive(Debug)]
pub struct Place {
    /// Files that made room: where they stood, and where they are.
    aside: Vec<(PathBuf, PathBuf)>,
}

/// Whether there is a folder for such a dump: what can be known before much time is spent.
///
/// # Errors
/// If there is none.
pub fn look_for_folder(pattern: &Path) -> anyhow::Result<()> {
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::read_dir(folder)
        .map(drop)
        .map_err(|error| anyhow::anyhow!("cannot write {}: {}", pattern.display(), plain(&error)))
}

impl Place {
    /// Finds out whether a dump can be written there, before the program runs, and makes room for it. `token` tells this
    /// run from any other.
    ///
    /// # Errors
    /// If the folder cannot be written, or something stands there that must not be replaced.
    pub fn prepare(pattern: &Path, token: &str) -> anyhow::Result<Place> {
        let unwritable =
            |error: &io::Error| anyhow::anyhow!("cannot write {}: {}", pattern.display(), plain(error));
        let mut place = Place { aside: Vec::new() };
        let folder = pattern.parent().unwrap_or(Path::new("/"));
        put_back_what_was_left(folder, pattern);
        if has_pid(pattern) {
            tempfile::Builder::new().tempfile_in(folder).map_err(|error| unwritable(&error))?;
            return Ok(place);
        }
        match fs::symlink_metadata(pattern) {
            Ok(metadata) if metadata.is_file() && !is_dump(pattern) => {
                bail!("{} is not a dump: choose another name, or remove it", pattern.display())
            }
            Ok(metadata) if metadata.is_file() && is_being_written(pattern) => {
                bail!("another process is writing {}: choose another name", pattern.display())
            }
            Ok(metadata) if metadata.is_file() => {
                place.set_aside(pattern, token).map_err(|error| unwritable(&error))?
            }
            Ok(metadata) if metadata.is_dir() => bail!("cannot write {}: it is a folder", pattern.display()),
            Ok(_) => bail!("cannot write {}: it is not a regular file", pattern.display()),
            Err(_) => {
                File::create_new(pattern).map_err(|error| unwritable(&error))?;
                fs::remove_file(pattern).map_err(|error| unwritable(&error))?;
            }
        }
        match place.set_aside(&sidecar_path(pattern), token) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&error)),
            _ => Ok(place),
        }
    }

    /// The dump is there: what it replaces goes.
    pub fn filled(mut self) {
        for (_, aside) in self.aside.drain(..) {
            // What cannot be removed is in nobody's way.
            let _ = remove_sidecar(&aside);
        }
    }

    fn set_aside(&mut self, file: &Path, token: &str) -> io::Result<()> {
        let mut name = prefix_of(file);
        name.push(format!("{token}{SUFFIX}"));
        let aside = file.with_file_name(name);
        fs::rename(file, &aside)?;
        self.aside.push((file.to_owned(), aside));
        Ok(())
    }
}

fn prefix_of(file: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".");
    name
}

const SUFFIX: &str = ".before";

/// A run that was killed could not put back what it had set aside. It goes where it stood unless something newer stands there.
fn put_back_what_was_left(folder: &Path, pattern: &Path) {
    for file in [pattern.to_owned(), sidecar_path(pattern)] {
        let prefix = prefix_of(&file);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let rest = name.as_bytes().strip_prefix(prefix.as_bytes());
            let token = rest.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
            let Some(pid) = token.and_then(pid_in) else { continue };
            if test_kill_process(pid).is_ok() {
                continue;
            }
            let _ = match fs::symlink_metadata(&file) {
                Ok(_) => remove_sidecar(&entry.path()),
                Err(_) => fs::rename(entry.path(), &file),
            };
        }
    }
}

/// Whose token it is, as [`run`](super::run) makes them: its process id and its time, in hexadecimal digits.
fn pid_in(token: &[u8]) -> Option<Pid> {
    let (pid, time) = std::str::from_utf8(token).ok()?.split_once('-')?;
    u128::from_str_radix(time, 16).ok()?;
    Pid::from_raw(i32::from_str_radix(pid, 16).ok()?)
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stands there now is no dump of this run: at most what a recorder has begun that could write nothing.
        for (stood, aside) in self.aside.drain(..) {
            let _ = fs::rename(&aside, &stood);
        }
    }
}

/// Whether the process id is part of the name, so that it is another one for each process.
pub fn has_pid(pattern: &Path) -> bool {
    pattern.as_os_str().as_bytes().windows(2).any(|pair| pair == b"%p")
}

/// Whether a file is one that an earlier run has left. One that is empty may be.
fn is_dump(path: &Path) -> bool {
    let mut first = [0u8; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read(&mut first));
    matches!(read, Ok(0)) || (read.is_ok() && first == MAGIC)
}

/// Whether the process that writes a dump is at it. A forked child of it has its lock as well, and keeps it.
fn is_being_written(path: &Path) -> bool {
    let locked = File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
    let writer = || {
        let (writer, _) = writer_of(path).ok().flatten()?;
        Pid::from_raw(i32::try_from(writer).ok()?)
    };
    locked && writer().is_none_or(|pid| test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("a.alloc");
        fs::write(&path, [&MAGIC[..], text.as_bytes()].concat()).unwrap();
        fs::write(sidecar_path(&path), text).unwrap();
        path
    }

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<OsString> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_stood_there_is_back_unless_a_dump_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = dump(folder.path(), "before");
        let place = Place::prepare(&path, "t").unwrap();
        assert!(!path.exists() && !sidecar_path(&path).exists());
        drop(place);
        assert!(fs::read(&path).unwrap().ends_with(b"before"));
        assert_eq!(names(folder.path()), ["a.alloc", "a.alloc.tail"]);

        let place = Place::prepare(&path, "t").unwrap();
        fs::write(&path, "new").unwrap();
        place.filled();
        assert_eq!(
            (names(folder.path()), fs::read(&path).unwrap()),
            (vec!["a.alloc".into()], b"new".to_vec())
        );
    }

    #[test]
    fn what_a_killed_run_has_set_aside_is_put_back_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = dump(folder.path(), "before");
        // No process has the largest id.
        let token = "7fffffff-1a";
        std::mem::forget(Place::prepare(&path, token).unwrap());
        assert!(!path.exists());
        let place = Place::prepare(&path, "t").unwrap();
        // A recorder that could not even write its header.
        fs::write(&path, "").unwrap();
        drop(place);
        assert!(fs::read(&path).unwrap().ends_with(b"before"));
        assert_eq!(names(folder.path()), ["a.alloc", "a.alloc.tail"]);
        // What is newer stays.
        fs::write(folder.path().join(format!(".a.alloc.{token}.before")), "old").unwrap();
        drop(Place::prepare(&path, "t").unwrap());
        assert!(fs::read(&path).unwrap().ends_with(b"before"));
        assert_eq!(names(folder.path()), ["a.alloc", "a.alloc.tail"]);
    }

    #[test]
    fn a_dump_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = dump(folder.path(), "");
        let writer = File::open(&path).unwrap();
        writer.lock().unwrap();
        let refused = Place::prepare(&path, "t").unwrap_err().to_string();
        assert!(refused.contains("another process is writing"), "{refused}");
        drop(writer);
        assert!(Place::prepare(&path, "t").is_ok());
    }

    #[test]
    fn what_is_no_dump_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(Place::prepare(&path, "t").unwrap_err().to_string().contains("is not a dump"));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert!(Place::prepare(folder.path(), "t").unwrap_err().to_string().contains("it is a folder"));
    }
}
