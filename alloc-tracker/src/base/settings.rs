//! What the environment asks of the recorder. In: `ALLOC_TRACKER*` variables. Out: [`Wanted`]. Read once, at the first
//! event, without allocating.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `ALLOC_TRACKER` | `trace`: record a dump; `count`: only keep [`stats`](crate::stats); `off` or unset: nothing |
//! | `ALLOC_TRACKER_OUT` | the dump; `%p` is the process id; default `PROGRAM.PID.alloc` in the working directory; a dump that is there is replaced, any other file is left alone |
//! | `ALLOC_TRACKER_CHECK` | `1`: compare every stack with an independent full walk, and count what differs |
//! | `ALLOC_TRACKER_ON_FULL` | `block` (default) or `drop`: whether a thread that records faster than can be written waits, or its events are counted as lost |
//! | `ALLOC_TRACKER_DRAINER` | `thread` (default): a helper thread writes the dump; `caller`: the program's own threads do |
//! | `ALLOC_TRACKER_SIDECAR` | `beside` (default): what is not in the dump yet is in a file beside it; `memory`: in one in `/dev/shm`, to which the file beside it is a link. File systems that store into a full disk nothing over what is there (btrfs, bcachefs, ZFS, F2FS, NILFS) have it there always |
//! | `ALLOC_TRACKER_FOLLOW` | `1`: a forked child writes a dump of its own, under the same name with its own `%p`, or with `.PID` behind it |
//! | `ALLOC_TRACKER_LINES` | what annotated functions note at each line besides: `rss`, `faults` or both with a comma between |
//! | `ALLOC_TRACKER_RUN` | set by `profiler-cli run`: a token of this run; a file that exists is never replaced |

use std::ffi::CStr;

use crate::base::sys::{self, PathBuffer, Text, print_to_stderr};

/// What the environment asks for.
pub(crate) enum Wanted {
    Nothing,
    Count,
    Trace(Settings),
}

/// Where a recording goes and what it belongs to.
pub(crate) struct Settings {
    /// Absolute path of the dump.
    pub(crate) path: PathBuffer,
    /// The token of a `profiler-cli run`; empty otherwise.
    pub(crate) run: Text<64>,
    /// Whether to compare every stack with an independent full walk.
    pub(crate) check: bool,
    /// What a thread does that records faster than can be written.
    pub(crate) on_full: OnFull,
    /// Who writes.
    pub(crate) drainer: Drainer,
    /// Where what is not in the dump yet is kept.
    pub(crate) sidecar: SidecarLocation,
    /// What annotated functions note at each line besides.
    pub(crate) lines: LineUsage,
    /// What the dumps of forked children are called; empty if they have none.
    pub(crate) children: PathBuffer,
}

/// What happens when events come faster than they can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFull {
    /// The thread waits: nothing is lost.
    Block,
    /// The event is counted as lost.
    Drop,
}

/// What the kernel is asked for at each line of an annotated function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineUsage {
    /// Resident memory of the process.
    pub(crate) rss: bool,
    /// Page faults of the thread.
    pub(crate) faults: bool,
}

impl LineUsage {
    /// From a list with commas; `None` if something in it is not known.
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

/// Who turns what threads have recorded into the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drainer {
    /// A thread of the tracker's.
    Thread,
    /// The program's threads, each when it has no room left.
    Caller,
}

/// Where the file is that has what is not in the dump yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SidecarLocation {
    /// Beside the dump, unless its file system could refuse a store into it.
    Beside,
    /// In a file system that is memory, with a link to it beside the dump.
    Memory,
}

impl Settings {
    /// Settings for the dump at `pattern`, relative to the working directory; `%p` becomes the process id.
    pub(crate) fn for_pattern(pattern: &[u8]) -> Settings {
        let mut path = PathBuffer::new();
        if pattern.first() != Some(&b'/') {
            working_directory(&mut path);
            path.push(b"/");
        }
        expand(pattern, sys::pid(), &mut path);
        Settings {
            path,
            run: Text::new(),
            check: false,
            on_full: OnFull::Block,
            drainer: Drainer::Thread,
            sidecar: SidecarLocation::Beside,
            lines: LineUsage::default(),
            children: PathBuffer::new(),
        }
    }

    /// Forked children get dumps of their own.
    fn follow(&mut self, pattern: &[u8]) {
        if pattern.windows(2).any(|pair| pair == b"%p") {
            if pattern.first() != Some(&b'/') {
                working_directory(&mut self.children);
                self.children.push(b"/");
            }
            self.children.push(pattern);
        } else {
            self.children.push(self.path.as_bytes());
            self.children.push(b".%p");
        }
    }

    /// Returns what forked children will need.
    pub(crate) fn for_children(&self) -> Settings {
        let children = PathBuffer::of(self.children.as_bytes());
        let path = PathBuffer::new();
        let Settings { run, check, on_full, drainer, sidecar, lines, .. } = *self;
        Settings { path, run, check, on_full, drainer, sidecar, lines, children }
    }

    /// Settings for the dump of a forked child, which is this process.
    pub(crate) fn of_child(&self) -> Settings {
        let mut child = Settings::for_pattern(self.children.as_bytes());
        child.run = self.run;
        child.children.push(self.children.as_bytes());
        let Settings { check, on_full, drainer, sidecar, lines, .. } = *self;
        Settings { check, on_full, drainer, sidecar, lines, ..child }
    }

    /// Settings for `PROGRAM.PID.alloc` in the working directory.
    pub(crate) fn for_program() -> Settings {
        let mut exe = PathBuffer::new();
        executable(&mut exe);
        let name = exe.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut pattern = PathBuffer::new();
        // A name with a percent sign in it must not be expanded.
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
        // Set-user-id and the like: whoever started the program must not choose a file for it to write.
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
            settings.on_full =
                choose(c"ALLOC_TRACKER_ON_FULL", [(b"block", OnFull::Block), (b"drop", OnFull::Drop)]);
            settings.drainer = choose(
                c"ALLOC_TRACKER_DRAINER",
                [(b"thread", Drainer::Thread), (b"caller", Drainer::Caller)],
            );
            settings.sidecar = choose(
                c"ALLOC_TRACKER_SIDECAR",
                [(b"beside", SidecarLocation::Beside), (b"memory", SidecarLocation::Memory)],
            );
            settings.lines = line_usage();
            if sys::env_var(c"ALLOC_TRACKER_FOLLOW") == Some(b"1") {
                settings.follow(sys::env_var(c"ALLOC_TRACKER_OUT").unwrap_or_default());
            }
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

/// The choice that a variable makes; the first one if it makes none, or one that there is not, which is said.
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

/// What is to be noted at lines; nothing if the variable has something else in it, which is said.
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

/// The absolute path of the running program; empty if /proc does not tell.
pub(crate) fn executable(into: &mut PathBuffer) {
    sys::read_link(c"/proc/self/exe", into);
}

/// The working directory; empty if it has none.
pub(crate) fn working_directory(into: &mut PathBuffer) {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is valid for its length; a non-null result is a zero-ended string in it.
    unsafe {
        if !libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()).is_null() {
            into.push(CStr::from_ptr(buffer.as_ptr().cast()).to_bytes());
        }
    }
}

fn expand(pattern: &[u8], pid: u32, into: &mut PathBuffer) {
    let mut rest = pattern;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        into.push(&rest[..at]);
        let mut number = Text::<16>::new();
        let _ = std::fmt::Write::write_fmt(&mut number, format_args!("{pid}"));
        into.push(number.as_bytes());
        rest = &rest[at + 2..];
    }
    into.push(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_put_in_everywhere() {
        let mut path = PathBuffer::new();
        expand(b"/a/%p/b.%p.alloc%", 42, &mut path);
        assert_eq!(path.as_bytes(), b"/a/42/b.42.alloc%");
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
