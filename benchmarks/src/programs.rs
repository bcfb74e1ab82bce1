//! Makes cargo build the programs to measure. In: the chosen tools. Out: paths of programs, or that
//! a program is missing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::camino::Utf8PathBuf;
use cargo_metadata::{Message, MetadataCommand};

use crate::annotate;
use crate::tools::{Program, Tool};

/// Paths of programs that are built or installed, by the names of their files.
pub(crate) struct Programs {
    paths: BTreeMap<&'static str, PathBuf>,
}

impl Programs {
    /// Builds the programs that `tools` need, and profiler-cli. Programs of this project must
    /// build; if one with another profiler does not, stderr gets the reason.
    pub(crate) fn build(tools: &[&Tool]) -> Result<Programs> {
        let cargo = Cargo::new()?;
        let mut programs = Programs { paths: BTreeMap::new() };
        programs.add(cargo.build_cli(), &["profiler-cli"])?;
        let own = [Program::Untracked, Program::Counted, Program::Tracked].map(Program::file);
        programs.add(cargo.build(&own, None, false), &own)?;
        for program in [Program::Dhat, Program::Jemalloc, Program::Heapscope] {
            if !tools.iter().any(|tool| tool.program == program) {
                continue;
            }
            let file = program.file();
            let built = cargo.build(&[file], program.feature(), program == Program::Heapscope);
            if let Err(error) = programs.add(built, &[file]) {
                eprintln!("{error:#}");
            }
        }
        if tools.iter().any(|tool| tool.program == Program::Annotated) {
            programs.add(cargo.build_annotated(), &[Program::Annotated.file()])?;
        }
        for wrapper in tools.iter().filter_map(|tool| tool.wrapper) {
            if is_installed(wrapper.file()) {
                programs.paths.insert(wrapper.file(), wrapper.file().into());
            }
        }
        Ok(programs)
    }

    /// Returns the path of a program, or the error that it is missing.
    pub(crate) fn path(&self, file: &str) -> Result<&Path> {
        self.paths.get(file).map(PathBuf::as_path).with_context(|| format!("skipped: {file} missing"))
    }

    fn add(&mut self, built: Result<Built>, wanted: &[&'static str]) -> Result<()> {
        let built = built?;
        for name in wanted {
            let path = built.get(*name).with_context(|| format!("cargo built no {name}"))?;
            self.paths.insert(name, path.clone().into_std_path_buf());
        }
        Ok(())
    }
}

/// Paths of executables by name.
type Built = BTreeMap<String, Utf8PathBuf>;

struct Cargo {
    workspace: PathBuf,
    target: PathBuf,
}

impl Cargo {
    fn new() -> Result<Cargo> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = workspace.parent().context("the package is in the workspace")?.to_path_buf();
        let metadata = MetadataCommand::new().manifest_path(workspace.join("Cargo.toml")).no_deps().exec()?;
        Ok(Cargo { workspace, target: metadata.target_directory.into_std_path_buf() })
    }

    fn build_cli(&self) -> Result<Built> {
        let mut cargo = self.command("Cargo.toml");
        cargo.args(["--package", "profiler-cli", "--bin", "profiler-cli"]);
        run_cargo(cargo)
    }

    /// Builds programs of the package in `programs`, into a target folder of their own below that
    /// of the workspace.
    fn build(&self, names: &[&str], feature: Option<&str>, frame_pointers: bool) -> Result<Built> {
        let mut cargo = self.command("benchmarks/programs/Cargo.toml");
        for name in names {
            cargo.args(["--bin", name]);
        }
        if let Some(feature) = feature {
            cargo.args(["--features", feature]);
        }
        let mut target = self.target.join("benchmarks");
        if frame_pointers {
            // Other flags rebuild everything, so this build has a folder of its own beside the
            // others.
            target.push("frame-pointers");
            let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
            flags.push(OsString::from(" -Cforce-frame-pointers=yes"));
            cargo.env("RUSTFLAGS", flags).arg("--ignore-rust-version");
        }
        cargo.arg("--target-dir").arg(target);
        run_cargo(cargo)
    }

    /// Builds the program whose parser is annotated. Its parser is another package, so everything
    /// that links the parser is built as well.
    fn build_annotated(&self) -> Result<Built> {
        let folder = self.target.join("benchmarks").join(Program::Annotated.file());
        let manifest = annotate::prepare(&self.workspace, &folder)?;
        let mut cargo = command();
        cargo.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(folder.join("target"));
        run_cargo(cargo)
    }

    fn command(&self, manifest: &str) -> Command {
        let mut cargo = command();
        cargo.arg("--locked").arg("--manifest-path").arg(self.workspace.join(manifest));
        cargo
    }
}

fn command() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--message-format", "json-render-diagnostics"]);
    cargo
}

/// Runs cargo and returns the executables that it built.
fn run_cargo(mut cargo: Command) -> Result<Built> {
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo does not start")?;
    ensure!(output.status.success(), "cargo build ended with {}", output.status);
    let mut built = Built::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(executable) = artifact.executable
        {
            built.insert(artifact.target.name, executable);
        }
    }
    if built.is_empty() {
        bail!("cargo built no program");
    }
    Ok(built)
}

fn is_installed(tool: &str) -> bool {
    let version = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}
