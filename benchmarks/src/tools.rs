//! The tools. In: a workload. Out: the command that runs it under a tool, and the size of the files
//! that the tool wrote.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cli::Options;
use crate::programs::Programs;

/// A way to run a workload: one row of the table for each workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) program: Program,
    mode: Mode,
    /// The installed tool that runs the program, if one does.
    pub(crate) wrapper: Option<Wrapper>,
    /// Whether it does only an eighth of the work; the untracked run of its pairs does the same.
    pub(crate) slow: bool,
    /// Whether it runs in the first rounds only. Such a tool is slow too, but with a part of the
    /// work, the time of its start would be most of the measured time.
    pub(crate) rare: bool,
    /// Whether it fails if it writes no profile.
    writes_profile: bool,
    /// The only workload that it runs, if it does not run all.
    pub(crate) only: Option<&'static str>,
}

/// What environment variables make a program do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Default,
    Trace,
    Check,
    JemallocAll,
    JemallocSample,
}

/// A tool that runs a program, and that may not be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapper {
    Heaptrack,
    ValgrindDhat,
    Callgrind,
}

impl Wrapper {
    /// Returns the name of the executable.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Wrapper::Heaptrack => "heaptrack",
            Wrapper::ValgrindDhat | Wrapper::Callgrind => "valgrind",
        }
    }
}

/// A program of the package `benchmark-programs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Untracked,
    Counted,
    Tracked,
    /// `Tracked` with a copy of a parser whose hottest functions are annotated.
    Annotated,
    Dhat,
    Heapscope,
    Jemalloc,
}

impl Program {
    /// Returns the name of the executable.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Program::Untracked => "untracked",
            Program::Counted => "counted",
            Program::Tracked => "tracked",
            Program::Annotated => "annotated",
            Program::Dhat => "with_dhat",
            Program::Heapscope => "with_heapscope",
            Program::Jemalloc => "with_jemalloc",
        }
    }

    /// Returns the feature that the program needs, if it needs one.
    pub(crate) fn feature(self) -> Option<&'static str> {
        self.file().strip_prefix("with_")
    }
}

pub(crate) const UNTRACKED: Tool = tool("untracked", "no tool: the system's allocator", Program::Untracked);
/// Counts events. It has no row in the table.
pub(crate) const COUNTED: Tool = tool("counted", "the counting allocator of the tests", Program::Counted);
pub(crate) const OFF: Tool = tool("off", "alloc-tracker, linked and switched off", Program::Tracked);
pub(crate) const TRACE: Tool =
    tool("trace", "alloc-tracker, recording", Program::Tracked).mode(Mode::Trace).must_write_profile();
pub(crate) const CHECK: Tool =
    tool("check", "alloc-tracker, comparing every stack with a full walk", Program::Tracked)
        .mode(Mode::Check)
        .must_write_profile()
        .slow();
pub(crate) const ANNOTATED: Tool =
    tool("annotated", "alloc-tracker, recording, ten functions of syn with #[profile]", Program::Annotated)
        .mode(Mode::Trace)
        .must_write_profile()
        .only("syn");
pub(crate) const CALLGRIND: Tool =
    tool("callgrind", "counts the instructions of untracked, off and trace", Program::Tracked)
        .run_by(Wrapper::Callgrind);

/// All tools, in the order of the table's rows.
pub(crate) const ALL: [Tool; 13] = [
    UNTRACKED,
    OFF,
    TRACE,
    CHECK,
    ANNOTATED,
    tool("heapscope", "heapscope, with frame pointers, its default of 24 frames", Program::Heapscope)
        .must_write_profile(),
    tool("heaptrack", "heaptrack, of the untracked program", Program::Untracked)
        .run_by(Wrapper::Heaptrack)
        .must_write_profile(),
    tool("dhat", "dhat, its default of 10 frames", Program::Dhat).must_write_profile(),
    tool("jemalloc-all", "jemalloc, profiling every allocation", Program::Jemalloc)
        .mode(Mode::JemallocAll)
        .must_write_profile()
        .slow(),
    tool("jemalloc-sample", "jemalloc, profiling its default of one in 512 KiB", Program::Jemalloc)
        .mode(Mode::JemallocSample)
        .must_write_profile(),
    tool("jemalloc", "jemalloc, not profiling", Program::Jemalloc),
    tool("valgrind-dhat", "Valgrind's DHAT, of the untracked program", Program::Untracked)
        .run_by(Wrapper::ValgrindDhat)
        .must_write_profile()
        .rare(),
    CALLGRIND,
];

/// Returns the tools that the flags choose.
pub(crate) fn chosen(options: &Options) -> Vec<&'static Tool> {
    ALL.iter().filter(|tool| options.wants_tool(tool.name)).collect()
}

/// What one run is to do.
pub(crate) struct Job<'a> {
    pub(crate) workload: &'a str,
    pub(crate) rounds: u64,
    /// Folder for the files of this run: empty before it, removed after it.
    pub(crate) folder: &'a Path,
}

impl Tool {
    /// Returns the command that runs a workload under this tool.
    pub(crate) fn command(&self, programs: &Programs, job: &Job<'_>) -> Result<Command> {
        let program = programs.path(self.program.file())?;
        let profile = job.folder.join(PROFILE);
        let with = |option: &str, file: &str| {
            let mut option = OsString::from(option);
            option.push(job.folder.join(file));
            option
        };
        let mut command = match self.wrapper {
            None => Command::new(program),
            Some(wrapper) => {
                let mut command = Command::new(programs.path(wrapper.file())?);
                match wrapper {
                    // Without a display, heaptrack opens no window at the end.
                    Wrapper::Heaptrack => command
                        .env_remove("DISPLAY")
                        .env_remove("WAYLAND_DISPLAY")
                        .arg("--output")
                        .arg(&profile),
                    Wrapper::ValgrindDhat => {
                        command.args(["--quiet", "--tool=dhat"]).arg(with("--dhat-out-file=", PROFILE))
                    }
                    Wrapper::Callgrind => command
                        .args(["--quiet", "--tool=callgrind"])
                        .arg(with("--callgrind-out-file=", CALLGRIND_PROFILE)),
                };
                command.arg(program);
                command
            }
        };
        command.arg(job.workload).arg(job.rounds.to_string());
        command.current_dir(job.folder).env("BENCHMARK_REPORT", job.folder.join(REPORT));
        for unwanted in ["ALLOC_TRACKER", "ALLOC_TRACKER_CHECK", "ALLOC_ORACLE_OUT"] {
            command.env_remove(unwanted);
        }
        match self.mode {
            Mode::Default => command.env("BENCHMARK_PROFILE", &profile),
            Mode::Trace => trace(&mut command, &profile),
            Mode::Check => trace(&mut command, &profile).env("ALLOC_TRACKER_CHECK", "1"),
            Mode::JemallocAll => profile_jemalloc(&mut command, &profile, "prof:true,lg_prof_sample:0"),
            Mode::JemallocSample => profile_jemalloc(&mut command, &profile, "prof:true"),
        };
        Ok(command)
    }

    /// Returns the size of the files that the tool wrote, in bytes. Fails if a tool that must write
    /// a profile wrote none.
    pub(crate) fn output_bytes(&self, job: &Job<'_>) -> Result<u64> {
        let mut bytes = 0;
        for file in job.folder.read_dir()? {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(PROFILE.as_bytes()) {
                bytes += file.metadata()?.len();
            }
        }
        ensure!(!self.writes_profile || bytes > LEAST_PROFILE_BYTES, "it wrote no profile");
        Ok(bytes)
    }
}

/// Returns the path of the tool's profile, if that is one file; of `trace` and `check`, the dump.
pub(crate) fn profile(job: &Job<'_>) -> PathBuf {
    job.folder.join(PROFILE)
}

/// Returns the path of callgrind's output.
pub(crate) fn callgrind_profile(job: &Job<'_>) -> PathBuf {
    job.folder.join(CALLGRIND_PROFILE)
}

/// Returns the path of the program's own report.
pub(crate) fn report(job: &Job<'_>) -> PathBuf {
    job.folder.join(REPORT)
}

/// Makes a program record into a dump.
fn trace<'a>(command: &'a mut Command, profile: &Path) -> &'a mut Command {
    command.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", profile)
}

/// Makes jemalloc profile.
fn profile_jemalloc<'a>(command: &'a mut Command, profile: &Path, options: &str) -> &'a mut Command {
    let mut options = OsString::from(options);
    options.push(",prof_final:true,prof_prefix:");
    options.push(profile);
    command.env("_RJEM_MALLOC_CONF", options)
}

const fn tool(name: &'static str, about: &'static str, program: Program) -> Tool {
    Tool {
        name,
        about,
        program,
        mode: Mode::Default,
        wrapper: None,
        slow: false,
        rare: false,
        writes_profile: false,
        only: None,
    }
}

impl Tool {
    /// Returns this tool, run by Valgrind's callgrind.
    pub(crate) const fn under_callgrind(self) -> Tool {
        Tool { writes_profile: false, ..self.run_by(Wrapper::Callgrind) }
    }

    const fn mode(self, mode: Mode) -> Tool {
        Tool { mode, ..self }
    }

    const fn run_by(self, wrapper: Wrapper) -> Tool {
        Tool { wrapper: Some(wrapper), ..self }
    }

    const fn slow(self) -> Tool {
        Tool { slow: true, ..self }
    }

    const fn rare(self) -> Tool {
        Tool { rare: true, ..self }
    }

    const fn only(self, workload: &'static str) -> Tool {
        Tool { only: Some(workload), ..self }
    }

    const fn must_write_profile(self) -> Tool {
        Tool { writes_profile: true, ..self }
    }
}

const PROFILE: &str = "profile";
const CALLGRIND_PROFILE: &str = "callgrind";
const REPORT: &str = "report.json";
/// Smaller than any profile with a stack in it.
const LEAST_PROFILE_BYTES: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ALL.iter().map(|tool| tool.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn other_profilers_have_features_of_their_own() {
        assert_eq!(Program::Tracked.feature(), None);
        assert_eq!(Program::Dhat.feature(), Some("dhat"));
    }
}
