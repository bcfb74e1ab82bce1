//! The settings that the environment gives. In: `ALLOC_TRACKER*` variables. Out: [`Wanted`]. The
//! environment is read once, usually at the first event. Never allocates; a value that is not known
//! is reported on stderr and ignored.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `ALLOC_TRACKER` | `trace`: record a dump; `count`: only keep [`stats`](crate::stats); `off` or unset: nothing |
//! | `ALLOC_TRACKER_OUT` | the dump; `%p` in the file's name, not in its folder, is the process id; default `PROGRAM.PID.alloc` in the working directory; an existing dump is replaced, any other file is left alone |
//! | `ALLOC_TRACKER_CHECK` | `1`: compare every stack with an independent full walk, and count the stacks that differ |
//! | `ALLOC_TRACKER_VERIFY` | how much of a stack with more than 8,192 frames each event compares with the stack before it: `bounded` (default): some thousand words, and the stacks are counted; `all`: every word, in a time that grows with the depth |
//! | `ALLOC_TRACKER_ON_FULL` | what a thread does when its ring is full: `block` (default): it waits; `drop`: its event is counted as lost |
//! | `ALLOC_TRACKER_DRAINER` | `process` (default): a process beside the program writes the dump; `caller`: the program's own threads do |
//! | `ALLOC_TRACKER_SIDECAR` | `beside` (default): the sidecar is a file beside the dump; `memory`: it is in `/dev/shm`, and a link is beside the dump. On copy-on-write file systems (btrfs, bcachefs, ZFS, F2FS, NILFS), which may refuse to change a file when the disk is full, it is always in `/dev/shm` |
//! | `ALLOC_TRACKER_FOLLOW` | `1`: a forked child writes a dump of its own, under the same name with its own `%p`, or with `.PID` behind it |
//! | `ALLOC_TRACKER_LINES` | which figures of the kernel annotated functions record at each line: `rss`, `faults`, or both with a comma between |
//! | `ALLOC_TRACKER_SNAPSHOT` | `end`: wait, when the program ends, until `profiler-cli run` has made its snapshot; set by `profiler-cli run` |
//! | `ALLOC_TRACKER_MAX_DUMP` | the recording ends when the dump is this large: bytes, or a number with `KiB`, `MiB` or `GiB` behind it; the program goes on |
//! | `ALLOC_TRACKER_FOR` | the recording ends after this time: seconds, or a number with `ms`, `s`, `m` or `h` behind it; the program goes on |
//! | `ALLOC_TRACKER_LABELS` | what the dump shall say about the recording: `name=value`, one on a line |
//! | `ALLOC_TRACKER_ARGV` | `0`: leave the command line out of the dump |
//! | `ALLOC_TRACKER_RUN` | set by `profiler-cli run`: a token of this run; a file that exists is never replaced |

use std::ffi::CStr;

use crate::base::limits::Limits;
use crate::base::sys::{self, FileStatus, PathBuffer, Text, print_to_stderr};

/// The request of the environment.
pub(crate) enum Wanted {
    /// Neither a recording nor counts.
    Nothing,
    /// Counts from the first event on.
    Count,
    /// A recording with these settings.
    Trace(Settings),
}

/// How to record, and into which file.
pub(crate) struct Settings {
    /// Absolute path of the dump.
    pub(crate) path: PathBuffer,
    /// The token of a `profiler-cli run`; empty otherwise.
    pub(crate) run: Text<64>,
    /// Whether to compare every stack with an independent full walk.
    pub(crate) check: bool,
    /// How much of a very deep stack each event compares.
    pub(crate) verify: Verify,
    /// What a thread does when its ring is full.
    pub(crate) on_full: OnFull,
    /// Who writes the dump.
    pub(crate) drainer: Drainer,
    /// Where the sidecar is.
    pub(crate) sidecar: SidecarLocation,
    /// Which figures of the kernel annotated functions record at each line.
    pub(crate) lines: LineUsage,
    /// Pattern for the paths of the dumps of forked children; empty if children do not record.
    pub(crate) children: PathBuffer,
    /// When the recording ends before the program does.
    pub(crate) limits: Limits,
    /// Lines `name=value`.
    pub(crate) labels: PathBuffer,
    /// Whether the command line is left out of the dump.
    pub(crate) hides_arguments: bool,
    /// Whether a snapshot is taken before the recording ends.
    pub(crate) snapshot_at_end: bool,
}

/// How much of a very deep stack each event compares with the stack before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// A bounded number of words; stacks that are compared in part are counted.
    Bounded,
    /// Every word.
    All,
}

/// What a thread does when its ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFull {
    /// The thread waits: nothing is lost.
    Block,
    /// The event is counted as lost.
    Drop,
}

/// The figures that the kernel is asked for at each line of an annotated function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineUsage {
    /// Resident memory of the process.
    pub(crate) rss: bool,
    /// Page faults of the thread.
    pub(crate) faults: bool,
}

impl LineUsage {
    /// Parses a list of names with commas between them; `None` if it has an unknown name.
    fn parse(list: &[u8]) -> Option<LineUsage> {
        let mut usage = LineUsage::default();
        for name in list.split(|byte| *byte == b',') {
            match name {
                b"" => {}
                b"rss" => usage.rss = true,
                b"faults" => usage.faults = true,
                _ => return None,
            }
        }
        Some(usage)
    }
}

/// Who drains the rings into the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drainer {
    /// The drain process.
    Process,
    /// The program's own threads, each when its ring is full.
    Caller,
}

/// Where the sidecar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SidecarLocation {
    /// Beside the dump, unless the dump's file system could refuse a store into a mapped file.
    Beside,
    /// In a file system in memory, with a link to it beside the dump.
    Memory,
}

impl Settings {
    /// Returns settings for the dump at `pattern`, relative to the working directory; `%p` in the
    /// file's name becomes the process id.
    pub(crate) fn for_pattern(pattern: &[u8]) -> Settings {
        let mut path = PathBuffer::new();
        if pattern.first() != Some(&b'/') {
            sys::working_directory(&mut path);
            path.push(b"/");
        }
        expand(pattern, sys::pid(), &mut path);
        Settings {
            path,
            run: Text::new(),
            check: false,
            verify: Verify::Bounded,
            on_full: OnFull::Block,
            drainer: Drainer::Process,
            sidecar: SidecarLocation::Beside,
            lines: LineUsage::default(),
            children: PathBuffer::new(),
            limits: Limits::NONE,
            labels: PathBuffer::new(),
            hides_arguments: false,
            snapshot_at_end: false,
        }
    }

    /// Lets forked children write dumps of their own, under names that follow from this pattern.
    fn follow(&mut self, pattern: &[u8]) {
        if split_folder(pattern).1.windows(2).any(|pair| pair == b"%p") {
            if pattern.first() != Some(&b'/') {
                sys::working_directory(&mut self.children);
                self.children.push(b"/");
            }
            self.children.push(pattern);
        } else {
            self.children.push(self.path.as_bytes());
            self.children.push(b".%p");
        }
    }

    /// Returns the settings that a forked child begins with: these, without the path of the dump.
    pub(crate) fn for_children(&self) -> Settings {
        let children = PathBuffer::of(self.children.as_bytes());
        let path = PathBuffer::new();
        let labels = PathBuffer::of(self.labels.as_bytes());
        let Settings {
            run,
            check,
            verify,
            on_full,
            drainer,
            sidecar,
            lines,
            limits,
            hides_arguments,
            snapshot_at_end,
            ..
        } = *self;
        Settings {
            path,
            run,
            check,
            verify,
            on_full,
            drainer,
            sidecar,
            lines,
            children,
            limits,
            labels,
            hides_arguments,
            snapshot_at_end,
        }
    }

    /// Returns settings for the dump of a forked child, which is this process.
    pub(crate) fn of_child(&self) -> Settings {
        let mut child = Settings::for_pattern(self.children.as_bytes());
        child.run = self.run;
        child.children.push(self.children.as_bytes());
        child.labels.push(self.labels.as_bytes());
        let Settings {
            check,
            verify,
            on_full,
            drainer,
            sidecar,
            lines,
            limits,
            hides_arguments,
            snapshot_at_end,
            ..
        } = *self;
        Settings {
            check,
            verify,
            on_full,
            drainer,
            sidecar,
            lines,
            limits,
            hides_arguments,
            snapshot_at_end,
            ..child
        }
    }

    /// Returns settings for `PROGRAM.PID.alloc` in the working directory.
    pub(crate) fn for_program() -> Settings {
        let mut exe = PathBuffer::new();
        executable(&mut exe);
        let name = exe.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut pattern = PathBuffer::new();
        // Percent signs of the program's name are left out, so that nothing in the name is
        // expanded.
        for piece in name.split(|byte| *byte == b'%') {
            pattern.push(piece);
        }
        pattern.push(b".%p.alloc");
        Settings::for_pattern(pattern.as_bytes())
    }
}

/// Reads the environment.
pub(crate) fn wanted() -> Wanted {
    if sys::is_privileged() {
        // The program has more rights than its user (set-user-ID and the like), so the user must
        // not choose a file for it to write.
        return Wanted::Nothing;
    }
    match sys::env_var(c"ALLOC_TRACKER") {
        None | Some(b"" | b"off" | b"0") => Wanted::Nothing,
        Some(b"count") => Wanted::Count,
        Some(b"trace" | b"1") => {
            let mut settings = match sys::env_var(c"ALLOC_TRACKER_OUT") {
                None | Some(b"") => Settings::for_program(),
                Some(pattern) => Settings::for_pattern(pattern),
            };
            settings.check = sys::env_var(c"ALLOC_TRACKER_CHECK") == Some(b"1");
            settings.verify =
                choose(c"ALLOC_TRACKER_VERIFY", [(b"bounded", Verify::Bounded), (b"all", Verify::All)]);
            settings.on_full =
                choose(c"ALLOC_TRACKER_ON_FULL", [(b"block", OnFull::Block), (b"drop", OnFull::Drop)]);
            settings.drainer = match sys::env_var(c"ALLOC_TRACKER_DRAINER") {
                // The name that the default had in version 0.1.
                Some(b"thread") => Drainer::Process,
                _ => choose(
                    c"ALLOC_TRACKER_DRAINER",
                    [(b"process", Drainer::Process), (b"caller", Drainer::Caller)],
                ),
            };
            settings.sidecar = choose(
                c"ALLOC_TRACKER_SIDECAR",
                [(b"beside", SidecarLocation::Beside), (b"memory", SidecarLocation::Memory)],
            );
            settings.lines = line_usage();
            if sys::env_var(c"ALLOC_TRACKER_FOLLOW") == Some(b"1") {
                settings.follow(sys::env_var(c"ALLOC_TRACKER_OUT").unwrap_or_default());
            }
            settings.limits = Limits::of_environment();
            settings.labels.push(sys::env_var(c"ALLOC_TRACKER_LABELS").unwrap_or_default());
            settings.hides_arguments = sys::env_var(c"ALLOC_TRACKER_ARGV") == Some(b"0");
            settings.snapshot_at_end = sys::env_var(c"ALLOC_TRACKER_SNAPSHOT") == Some(b"end");
            settings.run.push(sys::env_var(c"ALLOC_TRACKER_RUN").unwrap_or_default());
            Wanted::Trace(settings)
        }
        Some(other) => {
            let mut shown = Text::<64>::new();
            shown.push(other);
            print_to_stderr(format_args!(
                "ALLOC_TRACKER={shown} is none of trace, count and off; not profiling"
            ));
            Wanted::Nothing
        }
    }
}

/// Returns the choice that a variable makes. The first choice is the default; an unknown value is
/// reported and means the default.
fn choose<T: Copy>(name: &CStr, choices: [(&[u8], T); 2]) -> T {
    let value = sys::env_var(name).unwrap_or_default();
    let [default, other] = choices;
    if value == other.0 {
        return other.1;
    }
    if !value.is_empty() && value != default.0 {
        let (mut shown, mut known) = (Text::<64>::new(), Text::<64>::new());
        shown.push(value);
        known.push(default.0);
        known.push(b" and ");
        known.push(other.0);
        let name = name.to_str().unwrap_or_default();
        print_to_stderr(format_args!("{name}={shown} is none of {known}; the first of these holds"));
    }
    default.1
}

/// Returns which figures lines record. An unknown value is reported and means none.
fn line_usage() -> LineUsage {
    let list = sys::env_var(c"ALLOC_TRACKER_LINES").unwrap_or_default();
    LineUsage::parse(list).unwrap_or_else(|| {
        let mut shown = Text::<64>::new();
        shown.push(list);
        print_to_stderr(format_args!(
            "ALLOC_TRACKER_LINES={shown} is no list of rss and faults; neither is noted"
        ));
        LineUsage::default()
    })
}

/// Appends the absolute path of the running program; nothing if /proc cannot be read. If the file
/// was removed, this is the path that it had.
pub(crate) fn executable(into: &mut PathBuffer) {
    let mut link = PathBuffer::new();
    sys::read_link(PROGRAM, &mut link);
    // The kernel appends this text for a removed file. But a file may have such a name.
    let without_ending = link.as_bytes().strip_suffix(b" (deleted)").filter(|_| {
        let named = link.as_c_str().and_then(FileStatus::of_path);
        named.is_none() || named != FileStatus::of_path(PROGRAM)
    });
    into.push(without_ending.unwrap_or(link.as_bytes()));
}

/// The running program, also if its file was removed.
const PROGRAM: &CStr = c"/proc/self/exe";

/// Appends the pattern, with the process id for each `%p` in the file's name.
///
/// A `%p` in a folder stays. Folders exist before the process does, so none can be named after the
/// process; but users have folders with percent signs in their names.
fn expand(pattern: &[u8], pid: u32, into: &mut PathBuffer) {
    let (folder, mut rest) = split_folder(pattern);
    into.push(folder);
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        into.push(&rest[..at]);
        let mut number = Text::<16>::new();
        let _ = std::fmt::Write::write_fmt(&mut number, format_args!("{pid}"));
        into.push(number.as_bytes());
        rest = &rest[at + 2..];
    }
    into.push(rest);
}

/// Splits a path into its folder, with the slash, and the name of the file.
fn split_folder(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_put_into_the_files_name_and_not_into_its_folders() {
        let expanded = |pattern: &[u8]| {
            let mut path = PathBuffer::new();
            expand(pattern, 42, &mut path);
            path.as_bytes().to_vec()
        };
        assert_eq!(expanded(b"/a/%p/b.%p.%p.alloc%"), b"/a/%p/b.42.42.alloc%");
        assert_eq!((expanded(b"%p"), expanded(b"100%peak/")), (b"42".to_vec(), b"100%peak/".to_vec()));
    }

    #[test]
    fn children_have_names_of_their_own_whatever_the_folder_is_called() {
        for (pattern, own, childs) in [
            ("/100%peak/a.alloc", "/100%peak/a.alloc".to_owned(), "/100%peak/a.alloc.%p"),
            ("/100%peak/%p.alloc", format!("/100%peak/{}.alloc", sys::pid()), "/100%peak/%p.alloc"),
        ] {
            let mut settings = Settings::for_pattern(pattern.as_bytes());
            settings.follow(pattern.as_bytes());
            assert_eq!(settings.path.as_bytes(), own.as_bytes());
            assert_eq!(settings.children.as_bytes(), childs.as_bytes());
        }
    }

    #[test]
    fn lists_of_what_lines_note_have_commas() {
        let parsed = |list: &[u8]| LineUsage::parse(list).map(|usage| (usage.rss, usage.faults));
        assert_eq!(parsed(b""), Some((false, false)));
        assert_eq!((parsed(b"rss"), parsed(b"faults,rss")), (Some((true, false)), Some((true, true))));
        assert_eq!((parsed(b"rss faults"), parsed(b"RSS")), (None, None));
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let settings = Settings::for_pattern(b"x.alloc");
        let expected = std::env::current_dir().unwrap().join("x.alloc");
        assert_eq!(settings.path.as_bytes(), expected.to_str().unwrap().as_bytes());
        assert_eq!(Settings::for_pattern(b"/x").path.as_bytes(), b"/x");
    }
}
