//! Runs one program and measures what it used. In: a command. Out: [`Usage`].
//!
//! NOTE: a process inherits the peak memory of the process that started it. So this program starts
//! itself once more, as a launcher that has used hardly any memory yet, and the launcher starts the
//! measured program.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};
use wait4::Wait4;

/// What a process used from its start to its end, with all processes that it waited for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Time from just before the start until just after the end.
    pub(crate) wall_ns: u64,
    /// User and system time of all threads.
    pub(crate) cpu_ns: u64,
    /// Peak of the resident memory; if there were several processes, that of the largest one.
    pub(crate) peak_bytes: u64,
}

/// The cores that the program may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    All,
    One,
}

/// Runs `command` to its end. Its stdout goes to the file `stdout` in `folder`. If it fails, the
/// error contains the last line of its stderr.
pub(crate) fn run(command: &Command, cores: Cores, folder: &Path) -> Result<Usage> {
    let (output, errors) = (folder.join("stdout"), folder.join("stderr"));
    let mut launcher = Command::new(std::env::current_exe()?);
    launcher
        .arg(if cores == Cores::One { LAUNCH_ON_ONE_CORE } else { LAUNCH })
        .arg(&output)
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors)?);
    if let Some(folder) = command.get_current_dir() {
        launcher.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => launcher.env(name, value),
            None => launcher.env_remove(name),
        };
    }
    let launched = launcher.output()?;
    if !launched.status.success() {
        let errors = std::fs::read(&errors).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let last = errors.lines().last().unwrap_or("no message");
        bail!("{}: {last}", command.get_program().display());
    }
    serde_json::from_slice(&launched.stdout).context("the launcher's report")
}

/// Returns the arguments of this process if it is a launcher.
pub(crate) fn launcher_arguments() -> Option<Vec<OsString>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first = arguments.first()?;
    (first == LAUNCH || first == LAUNCH_ON_ONE_CORE).then_some(arguments)
}

/// Does all the work of a launcher: starts the program and prints its usage.
pub(crate) fn launch(arguments: Vec<OsString>) -> ExitCode {
    match launch_and_wait(&arguments) {
        Ok(usage) => {
            println!("{}", serde_json::json!(usage));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn launch_and_wait(arguments: &[OsString]) -> Result<Usage> {
    let [cores, output, program, arguments @ ..] = arguments else { bail!("nothing to launch") };
    if cores == LAUNCH_ON_ONE_CORE {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).rfind(|core| allowed.is_set(*core)).context("no core")?);
        rustix::thread::sched_setaffinity(None, &one)?;
    }
    let output = File::create(output)?;
    let start = Instant::now();
    let child = Command::new(program).args(arguments).stdout(output).spawn()?;
    let ended = child.wait4()?;
    let wall = start.elapsed();
    if !ended.status.success() {
        bail!("ended with {}", ended.status);
    }
    Ok(Usage {
        wall_ns: wall.as_nanos() as u64,
        cpu_ns: (ended.rusage.utime + ended.rusage.stime).as_nanos() as u64,
        peak_bytes: ended.rusage.maxrss,
    })
}

const LAUNCH: &str = "--launch";
const LAUNCH_ON_ONE_CORE: &str = "--launch-on-one-core";
