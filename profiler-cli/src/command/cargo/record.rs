//! The process that cargo starts instead of a program: it records the program, and ends with its
//! status. In: the folder of the program log, and a command line. Out: dumps, and a line in the
//! log.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

use super::program_log::LogWriter;
use crate::command::run::{exit_code, record};
use crate::command::{Failure, print_message};
use crate::dumps::find::has_pid_placeholder;
use crate::io_error::plain;
use crate::units::Safe;

/// The main function of a process that records a program for cargo.
pub fn record_process(arguments: &[OsString]) -> ExitCode {
    match record_for_log(arguments) {
        Ok(status) => status,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => {
            print_message(Safe(&format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

fn record_for_log(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let (log, command) = arguments.split_first().context("no program log")?;
    let (program, arguments) = command.split_first().context("no program to run")?;
    if is_of_no_interest(program, arguments) {
        let error = Command::new(program).args(arguments).exec();
        return Err(anyhow::anyhow!("cannot run {}: {}", program.display(), plain(&error)).into());
    }
    let (log, mut settings) = LogWriter::open(Path::new(log))?;
    if let Some(output) = settings.output.take().map(PathBuf::from) {
        let is_taken = !has_pid_placeholder(&output) && log.dumps().contains(&output);
        let output = if is_taken { with_pid(&output) } else { output };
        settings.output = Some(output.into_os_string());
    }
    let recorded = record(command, &settings)?;
    let status = exit_code(recorded.status());
    log.ended(recorded);
    Ok(status)
}

/// Whether the program is none of the user's: a test of the documentation, of which there are
/// hundreds of small programs, or a test program that is only asked for the names of its tests.
fn is_of_no_interest(program: &OsStr, arguments: &[OsString]) -> bool {
    let is_doc_test = Path::new(program).file_name() == Some(OsStr::new("rust_out"));
    is_doc_test || arguments.iter().any(|argument| argument == "--list")
}

/// Returns the path for the dump of a further program, so that it does not replace the first one:
/// `a.%p.alloc` for `a.alloc`.
fn with_pid(output: &Path) -> PathBuf {
    let mut ending = OsString::from("%p");
    if let Some(extension) = output.extension() {
        ending.push(".");
        ending.push(extension);
    }
    output.with_extension(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_dump_gets_the_process_id() {
        assert_eq!(with_pid(Path::new("/x/a.alloc")), Path::new("/x/a.%p.alloc"));
        assert_eq!(with_pid(Path::new("/x/a")), Path::new("/x/a.%p"));
    }

    #[test]
    fn doc_tests_and_lists_are_of_no_interest() {
        let of_interest = |program: &str, arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            !is_of_no_interest(program.as_ref(), &arguments)
        };
        assert!(!of_interest("/tmp/rustdoctestX/rust_out", &[]) && !of_interest("a", &["x", "--list"]));
        assert!(of_interest("a/rust_out.exe", &["list"]));
    }
}
