//! Reserves the path to which a run writes its dump. In: the path. Out: a [`Reservation`], or the
//! reason why no dump can be written there.
//!
//! An earlier dump at that path is renamed first, and removed only when the new dump exists. So no
//! dump is lost if the program cannot be started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use alloc_dump::layout::MAGIC;
use anyhow::bail;
use rustix::process::{Pid, test_kill_process};

use super::find::has_pid_placeholder;
use super::sidecar::{remove_file_and_target, sidecar_path};
use super::writing::{WriterState, wait_while_closing};
use crate::io_error::plain;

/// A path that is free for a new dump. Dropping the reservation renames the earlier files back,
/// unless [`discard_replaced`](Reservation::discard_replaced) has removed them.
#[derive(Debug)]
pub struct Reservation {
    /// The files that were renamed: their original path, and their present path.
    aside: Vec<(PathBuf, PathBuf)>,
}

/// Makes the folder of a file, and the folders above it, where they are missing.
///
/// # Errors
/// If a folder cannot be made.
pub fn make_folder_of(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::create_dir_all(folder),
        _ => Ok(()),
    }
}

/// Returns a token that no other run has: the id of this process and the time, in hexadecimal
/// digits.
pub fn new_run_token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", std::process::id(), now.as_nanos())
}

/// Returns a token for a run that belongs to a group of runs: those that one command of cargo has
/// started. The group has a token of [`new_run_token`] itself.
pub fn run_token_in(group: &str) -> String {
    format!("{}.{group}", new_run_token())
}

/// Returns what the tokens of all runs of a group have in common; of a run without a group, the
/// whole token.
pub fn group_of_token(token: &[u8]) -> &[u8] {
    let behind = token.iter().position(|byte| *byte == b'.').map_or(0, |at| at + 1);
    &token[behind..]
}

/// Returns the process id in a token of [`new_run_token`]; `None` if the bytes are no such token.
fn pid_of_token(token: &[u8]) -> Option<Pid> {
    let token = std::str::from_utf8(token).ok()?;
    let (pid, time) = token.split_once('.').map_or(token, |(own, _)| own).split_once('-')?;
    u128::from_str_radix(time, 16).ok()?;
    Pid::from_raw(i32::from_str_radix(pid, 16).ok()?)
}

impl Reservation {
    /// Checks, before the program runs, that a dump can be written at the path `pattern`. Renames
    /// the dump and the sidecar that already have this path. `token` is the token of this run.
    ///
    /// # Errors
    /// If the folder cannot be made or written, or the path has a file that must not be replaced.
    pub fn make(pattern: &Path, token: &str) -> anyhow::Result<Reservation> {
        let unwritable =
            |error: &io::Error| anyhow::anyhow!("cannot write {}: {}", pattern.display(), plain(error));
        let mut reservation = Reservation { aside: Vec::new() };
        let folder = pattern.parent().unwrap_or(Path::new("/"));
        make_folder_of(pattern).map_err(|error| unwritable(&error))?;
        put_back_files_of_killed_runs(folder, pattern);
        if has_pid_placeholder(pattern) {
            tempfile::Builder::new().tempfile_in(folder).map_err(|error| unwritable(&error))?;
            return Ok(reservation);
        }
        match fs::symlink_metadata(pattern) {
            Ok(metadata) if metadata.is_file() && !is_dump(pattern) => {
                bail!("{} is not a dump: choose another name, or remove it", pattern.display())
            }
            Ok(metadata) if metadata.is_file() && is_being_written(pattern) => {
                bail!("another process is writing {}: choose another name", pattern.display())
            }
            Ok(metadata) if metadata.is_file() => {
                reservation.set_aside(pattern, token).map_err(|error| unwritable(&error))?
            }
            Ok(metadata) if metadata.is_dir() => bail!("cannot write {}: it is a folder", pattern.display()),
            Ok(_) => bail!("cannot write {}: it is not a regular file", pattern.display()),
            Err(_) => {
                File::create_new(pattern).map_err(|error| unwritable(&error))?;
                fs::remove_file(pattern).map_err(|error| unwritable(&error))?;
            }
        }
        match reservation.set_aside(&sidecar_path(pattern), token) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&error)),
            _ => Ok(reservation),
        }
    }

    /// Removes the earlier files. To be called when the new dump exists.
    pub fn discard_replaced(mut self) {
        for (_, aside) in self.aside.drain(..) {
            // A file that cannot be removed stays under its new name, where it blocks no later
            // dump.
            let _ = remove_file_and_target(&aside);
        }
    }

    fn set_aside(&mut self, file: &Path, token: &str) -> io::Result<()> {
        let mut name = aside_prefix(file);
        name.push(format!("{token}{ASIDE_SUFFIX}"));
        let aside = file.with_file_name(name);
        fs::rename(file, &aside)?;
        self.aside.push((file.to_owned(), aside));
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // This replaces whatever file has the original path now. No dump of this run can be lost:
        // at most a recorder has created the file and could not write to it.
        for (original, aside) in self.aside.drain(..) {
            let _ = fs::rename(&aside, &original);
        }
    }
}

/// Returns the first part of the name of a file that is set aside, `.NAME.`. The whole name is
/// `.NAME.TOKEN.before`.
fn aside_prefix(file: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".");
    name
}

const ASIDE_SUFFIX: &str = ".before";

/// Renames the files back that earlier runs had set aside and that these runs could not rename back
/// because they were killed. If a newer file has the path, removes the file that was set aside.
fn put_back_files_of_killed_runs(folder: &Path, pattern: &Path) {
    for file in [pattern.to_owned(), sidecar_path(pattern)] {
        let prefix = aside_prefix(&file);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let rest = name.as_bytes().strip_prefix(prefix.as_bytes());
            let token = rest.and_then(|rest| rest.strip_suffix(ASIDE_SUFFIX.as_bytes()));
            let Some(pid) = token.and_then(pid_of_token) else { continue };
            if test_kill_process(pid).is_ok() {
                continue;
            }
            let _ = match fs::symlink_metadata(&file) {
                Ok(_) => remove_file_and_target(&entry.path()),
                Err(_) => fs::rename(entry.path(), &file),
            };
        }
    }
}

/// Whether a file is a dump. An empty file counts as one: a run may have left it.
fn is_dump(path: &Path) -> bool {
    let mut first = [0u8; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read(&mut first));
    matches!(read, Ok(0)) || (read.is_ok() && first == MAGIC)
}

/// Whether the process that writes the dump still runs. Its lock is not enough to know: a forked
/// child of that process shares the lock, and keeps it.
fn is_being_written(path: &Path) -> bool {
    wait_while_closing(path) == WriterState::Running
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
    fn the_old_dump_is_back_unless_a_new_one_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = dump(folder.path(), "before");
        let reservation = Reservation::make(&path, "t").unwrap();
        assert!(!path.exists() && !sidecar_path(&path).exists());
        drop(reservation);
        assert!(fs::read(&path).unwrap().ends_with(b"before"));
        assert_eq!(names(folder.path()), ["a.alloc", "a.alloc.tail"]);

        let reservation = Reservation::make(&path, "t").unwrap();
        fs::write(&path, "new").unwrap();
        reservation.discard_replaced();
        assert_eq!(
            (names(folder.path()), fs::read(&path).unwrap()),
            (vec!["a.alloc".into()], b"new".to_vec())
        );
    }

    #[test]
    fn the_next_run_puts_back_what_a_killed_run_had_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = dump(folder.path(), "before");
        // No process has the largest id.
        let token = "7fffffff-1a";
        std::mem::forget(Reservation::make(&path, token).unwrap());
        assert!(!path.exists());
        let reservation = Reservation::make(&path, "t").unwrap();
        // An empty file, as of a recorder that could not even write its header.
        fs::write(&path, "").unwrap();
        drop(reservation);
        assert!(fs::read(&path).unwrap().ends_with(b"before"));
        assert_eq!(names(folder.path()), ["a.alloc", "a.alloc.tail"]);
        // A newer file stays.
        fs::write(folder.path().join(format!(".a.alloc.{token}.before")), "old").unwrap();
        drop(Reservation::make(&path, "t").unwrap());
        assert!(fs::read(&path).unwrap().ends_with(b"before"));
        assert_eq!(names(folder.path()), ["a.alloc", "a.alloc.tail"]);
    }

    #[test]
    fn a_dump_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = dump(folder.path(), "");
        let writer = File::open(&path).unwrap();
        writer.lock().unwrap();
        let refused = Reservation::make(&path, "t").unwrap_err().to_string();
        assert!(refused.contains("another process is writing"), "{refused}");
        drop(writer);
        assert!(Reservation::make(&path, "t").is_ok());
    }

    #[test]
    fn a_file_that_is_no_dump_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(Reservation::make(&path, "t").unwrap_err().to_string().contains("is not a dump"));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert!(Reservation::make(folder.path(), "t").unwrap_err().to_string().contains("it is a folder"));
    }
}
