//! The tools. In: a workload. Out: the command that runs it under a tool, and what the tool leaves behind.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cli::Options;
use crate::programs::Programs;

/// One row of each workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) program: Program,
    /// What is asked of it.
    asked: Asked,
    /// What runs the program.
    pub(crate) wrapper: Option<Wrapper>,
    /// Does only an eighth of the work, as does the untracked run that it is compared with.
    pub(crate) slow: bool,
    /// Runs in the first rounds only: slow too, but a part of the work would show little more than how it starts.
    pub(crate) rare: bool,
    /// Whether what it leaves must be there.
    writes: bool,
    /// The one workload that it is for, if it is not for all.
    pub(crate) only: Option<&'static str>,
}

/// What the environment asks of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Trace,
    Check,
    JemallocAll,
    JemallocSample,
}

/// What is installed, or not, and runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapper {
    Heaptrack,
    ValgrindDhat,
    Callgrind,
}

impl Wrapper {
    /// Its executable.
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
    /// The same program with a copy of a parser whose hottest functions are annotated.
    Annotated,
    Dhat,
    Heapscope,
    Jemalloc,
}

impl Program {
    /// Its executable.
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

    /// The feature without which it is not built.
    pub(crate) fn feature(self) -> Option<&'static str> {
        self.file().strip_prefix("with_")
    }
}

pub(crate) const UNTRACKED: Tool = tool("untracked", "no tool: the system's allocator", Program::Untracked);
/// Counts events; no row of the table.
pub(crate) const COUNTED: Tool = tool("counted", "the counting allocator of the tests", Program::Counted);
pub(crate) const OFF: Tool = tool("off", "alloc-tracker, linked and switched off", Program::Tracked);
pub(crate) const TRACE: Tool =
    tool("trace", "alloc-tracker, recording", Program::Tracked).asked(Asked::Trace).writing();
pub(crate) const CHECK: Tool =
    tool("check", "alloc-tracker, comparing every stack with a full walk", Program::Tracked)
        .asked(Asked::Check)
        .writing()
        .slow();
pub(crate) const ANNOTATED: Tool =
    tool("annotated", "alloc-tracker, recording, ten functions of syn with #[profile]", Program::Annotated)
        .asked(Asked::Trace)
        .writing()
        .only("syn");
pub(crate) const CALLGRIND: Tool =
    tool("callgrind", "counts the instructions of untracked, off and trace", Program::Tracked)
        .run_by(Wrapper::Callgrind);

/// All of them, in the order in which they are shown.
pub(crate) const ALL: [Tool; 13] = [
    UNTRACKED,
    OFF,
    TRACE,
    CHECK,
    ANNOTATED,
    tool("heapscope", "heapscope, with frame pointers, its default of 24 frames", Program::Heapscope)
        .writing(),
    tool("heaptrack", "heaptrack, of the untracked program", Program::Untracked)
        .run_by(Wrapper::Heaptrack)
        .writing(),
    tool("dhat", "dhat, its default of 10 frames", Program::Dhat).writing(),
    tool("jemalloc-all", "jemalloc, profiling every allocation", Program::Jemalloc)
        .asked(Asked::JemallocAll)
        .writing()
        .slow(),
    tool("jemalloc-sample", "jemalloc, profiling its default of one in 512 KiB", Program::Jemalloc)
        .asked(Asked::JemallocSample)
        .writing(),
    tool("jemalloc", "jemalloc, not profiling", Program::Jemalloc),
    tool("valgrind-dhat", "Valgrind's DHAT, of the untracked program", Program::Untracked)
        .run_by(Wrapper::ValgrindDhat)
        .writing()
        .rare(),
    CALLGRIND,
];

/// Those that the flags ask for.
pub(crate) fn chosen(options: &Options) -> Vec<&'static Tool> {
    ALL.iter().filter(|tool| options.wants_tool(tool.name)).collect()
}

/// A run that is about to be.
pub(crate) struct Job<'a> {
    pub(crate) workload: &'a str,
    pub(crate) rounds: u64,
    /// Empty, and gone afterwards.
    pub(crate) folder: &'a Path,
}

impl Tool {
    /// How to run a workload under this tool.
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
                    // Without a display it does not open its window at the end.
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
        match self.asked {
            Asked::Nothing => command.env("BENCHMARK_PROFILE", &profile),
            Asked::Trace => trace(&mut command, &profile),
            Asked::Check => trace(&mut command, &profile).env("ALLOC_TRACKER_CHECK", "1"),
            Asked::JemallocAll => profiling(&mut command, &profile, "prof:true,lg_prof_sample:0"),
            Asked::JemallocSample => profiling(&mut command, &profile, "prof:true"),
        };
        Ok(command)
    }

    /// What the tool left behind, in bytes; an error if it left nothing although it should have.
    pub(crate) fn output_bytes(&self, job: &Job<'_>) -> Result<u64> {
        let mut bytes = 0;
        for file in job.folder.read_dir()? {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(PROFILE.as_bytes()) {
                bytes += file.metadata()?.len();
            }
        }
        ensure!(!self.writes || bytes > LEAST_PROFILE_BYTES, "it left no profile");
        Ok(bytes)
    }
}

/// What a tool has left, if it is one file; the dump of `trace` and `check`.
pub(crate) fn profile(job: &Job<'_>) -> PathBuf {
    job.folder.join(PROFILE)
}

/// What callgrind has left.
pub(crate) fn callgrind_profile(job: &Job<'_>) -> PathBuf {
    job.folder.join(CALLGRIND_PROFILE)
}

/// What the program itself reports.
pub(crate) fn report(job: &Job<'_>) -> PathBuf {
    job.folder.join(REPORT)
}

fn trace<'a>(command: &'a mut Command, profile: &Path) -> &'a mut Command {
    command.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", profile)
}

fn profiling<'a>(command: &'a mut Command, profile: &Path, options: &str) -> &'a mut Command {
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
        asked: Asked::Nothing,
        wrapper: None,
        slow: false,
        rare: false,
        writes: false,
        only: None,
    }
}

impl Tool {
    /// The same by Valgrind's callgrind.
    pub(crate) const fn under_callgrind(self) -> Tool {
        Tool { writes: false, ..self.run_by(Wrapper::Callgrind) }
    }

    const fn asked(self, asked: Asked) -> Tool {
        Tool { asked, ..self }
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

    const fn writing(self) -> Tool {
        Tool { writes: true, ..self }
    }
}

const PROFILE: &str = "profile";
const CALLGRIND_PROFILE: &str = "callgrind";
const REPORT: &str = "report.json";
/// Less than any profile with a stack in it.
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
    fn rivals_have_features_of_their_own() {
        assert_eq!(Program::Tracked.feature(), None);
        assert_eq!(Program::Dhat.feature(), Some("dhat"));
    }
}
