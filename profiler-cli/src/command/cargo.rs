//! `profiler-cli cargo`: builds one target with debug info, then profiles it as `run` does.
//!
//! In: cargo's own options that choose a target. Out: dumps, a report and an exit status, as from
//! `run`. The program is started where cargo would start it, with the variables of its package and
//! of its build script. The code of the program itself must be built as its profile says; only the
//! recorder is always optimized.

mod build;
mod config_env;
mod environment;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use cargo_metadata::ArtifactDebuginfo;
use clap::{Args, ValueHint};

use self::build::{DebugInfo, build};
use self::environment::surroundings;
use super::Failure;
use super::run::{RecordingArgs, profile_program};
use crate::dumps::reserve::check_folder_exists;

const EXAMPLES: &str = "\
Examples:
  profiler-cli cargo --release --bin server -- --port 80
  profiler-cli cargo -p parser --test roundtrip
";

const HEADING: &str = "Cargo's own options";

/// Options of `cargo`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct CargoArgs {
    /// Recording and report.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Package that contains the target.
    #[arg(short, long, value_name = "SPEC", help_heading = HEADING)]
    pub package: Option<String>,
    /// Binary to profile.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = HEADING)]
    pub bin: Option<String>,
    /// Example to profile.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = HEADING)]
    pub example: Option<String>,
    /// Integration test to profile.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = HEADING)]
    pub test: Option<String>,
    /// Benchmark to profile.
    #[arg(long, value_name = "NAME", group = "target_kind", help_heading = HEADING)]
    pub bench: Option<String>,
    /// Profile the unit tests of the library.
    #[arg(long, group = "target_kind", help_heading = HEADING)]
    pub lib: bool,
    /// Build with optimizations.
    #[arg(short, long, conflicts_with = "profile", help_heading = HEADING)]
    pub release: bool,
    /// Cargo profile to build with.
    #[arg(long, value_name = "PROFILE", help_heading = HEADING)]
    pub profile: Option<String>,
    /// Features to switch on.
    #[arg(short = 'F', long, value_name = "FEATURES", help_heading = HEADING)]
    pub features: Vec<String>,
    /// Switch all features on.
    #[arg(long, help_heading = HEADING)]
    pub all_features: bool,
    /// Leave the default features off.
    #[arg(long, help_heading = HEADING)]
    pub no_default_features: bool,
    /// Path of Cargo.toml.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = HEADING)]
    pub manifest_path: Option<PathBuf>,
    /// Folder for build products.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = HEADING)]
    pub target_dir: Option<PathBuf>,
    /// Fail if Cargo.lock is not up to date.
    #[arg(long, help_heading = HEADING)]
    pub locked: bool,
    /// Do not use the network.
    #[arg(long, help_heading = HEADING)]
    pub offline: bool,
    /// Arguments for the program.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// Runs `profiler-cli cargo`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CargoArgs) -> Result<ExitCode, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if let Some(output) = &args.recording.output {
        check_folder_exists(output)?;
    }
    let mut built = build(&cargo, args, DebugInfo::IfOptimized)?;
    if built.artifact.profile.debuginfo == ArtifactDebuginfo::None {
        built = build(&cargo, args, DebugInfo::Always)?;
    }
    let artifact = &built.artifact;
    let program = artifact.executable.as_ref().context("cargo names no executable for the target")?;
    let mut command = vec![program.clone().into_os_string()];
    command.extend(args.args.iter().cloned());
    if args.bench.is_some() {
        // As cargo does. Without this argument a benchmark only tests itself.
        command.push("--bench".into());
    }
    profile_program(&command, &args.recording, &surroundings(&cargo, &built))
}
