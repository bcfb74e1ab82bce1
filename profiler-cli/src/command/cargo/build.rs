//! Building one target with cargo. In: the options of `cargo`. Out: the one program that was built,
//! and the output of its build scripts.

use std::ffi::OsString;
use std::io::BufReader;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::{Artifact, BuildScript, Message, MetadataCommand, Package, PackageId, TargetKind};

use super::CargoArgs;
use crate::io_error::plain;
use crate::names::own_crates::EVENT_PACKAGES;

/// A program that cargo has built.
pub(super) struct BuiltProgram {
    /// The program, as cargo describes it.
    pub(super) artifact: Artifact,
    /// The output of all build scripts of this build.
    pub(super) scripts: Vec<BuildScript>,
}

/// For which cargo profiles debug info is switched on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DebugInfo {
    /// For all but `dev` and `test`, which have debug info by default.
    IfOptimized,
    /// For every profile.
    Always,
}

/// Builds the target that the options choose.
///
/// # Errors
/// If cargo fails, or if the options do not choose exactly one program.
pub(super) fn build(
    cargo: &OsString,
    args: &CargoArgs,
    debug_info: DebugInfo,
) -> anyhow::Result<BuiltProgram> {
    let mut child = cargo_command(cargo, args, debug_info)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run cargo: {}", plain(&error)))?;
    let output = child.stdout.take().context("cannot read the messages of cargo: it has no stdout")?;
    let (mut built, mut scripts) = (Vec::new(), Vec::new());
    for message in Message::parse_stream(BufReader::new(output)) {
        match message.context("cannot read the messages of cargo")? {
            Message::CompilerArtifact(artifact)
                if artifact.executable.is_some() && is_wanted(args, &artifact) =>
            {
                built.push(artifact);
            }
            Message::BuildScriptExecuted(script) => scripts.push(script),
            _ => {}
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("cargo could not build the program: see its messages above");
    }
    if built.len() > 1 && names_no_target(args) {
        let defaults = default_programs(cargo, &built);
        if !defaults.is_empty() {
            built.retain(|artifact| {
                defaults.contains(&(artifact.package_id.clone(), artifact.target.name.clone()))
            });
        }
    }
    let names: Vec<&str> = built.iter().map(|artifact| artifact.target.name.as_str()).collect();
    match built.len() {
        0 => bail!("cargo built no program; choose one with --bin, --example, --test, --bench or --lib"),
        1 => Ok(BuiltProgram { artifact: built.swap_remove(0), scripts }),
        _ => bail!("cargo built several programs; choose one of them with --bin: {}", names.join(", ")),
    }
}

/// Returns the programs that `default-run` names in the packages of the built programs.
fn default_programs(cargo: &OsString, built: &[Artifact]) -> Vec<(PackageId, String)> {
    let mut defaults: Vec<(PackageId, String)> = Vec::new();
    for artifact in built.iter().filter(|artifact| artifact.target.kind.contains(&TargetKind::Bin)) {
        if let Some(package) = package_of(cargo, artifact)
            && let Some(default) = package.default_run
        {
            defaults.push((package.id, default));
        }
    }
    defaults.dedup();
    defaults
}

/// Returns cargo's description of the package of a target. If cargo gives none, the program only
/// lacks some of its environment variables.
pub(super) fn package_of(cargo: &OsString, artifact: &Artifact) -> Option<Package> {
    let metadata = MetadataCommand::new()
        .cargo_path(cargo)
        .manifest_path(&artifact.manifest_path)
        .no_deps()
        .exec()
        .ok()?;
    metadata.packages.into_iter().find(|package| package.id == artifact.package_id)
}

/// Returns the command that builds the target.
fn cargo_command(cargo: &OsString, args: &CargoArgs, debug_info: DebugInfo) -> Command {
    let mut command = Command::new(cargo);
    if args.test.is_some() || args.lib {
        command.args(["test", "--no-run"]);
    } else if args.bench.is_some() {
        command.args(["bench", "--no-run"]);
    } else {
        command.arg("build");
    }
    command.arg("--message-format=json-render-diagnostics");
    let values = [
        ("--package", &args.package),
        ("--bin", &args.bin),
        ("--example", &args.example),
        ("--test", &args.test),
        ("--bench", &args.bench),
        ("--profile", &args.profile),
    ];
    for (flag, value) in values {
        if let Some(value) = value {
            command.args([flag, value]);
        }
    }
    for features in &args.features {
        command.args(["--features", features]);
    }
    let switches = [
        ("--lib", args.lib),
        // `cargo bench` always optimizes, and rejects this option.
        ("--release", args.release && args.bench.is_none()),
        ("--all-features", args.all_features),
        ("--no-default-features", args.no_default_features),
        ("--locked", args.locked),
        ("--offline", args.offline),
    ];
    command.args(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    if let Some(path) = &args.manifest_path {
        command.arg("--manifest-path").arg(path);
    }
    if let Some(path) = &args.target_dir {
        command.arg("--target-dir").arg(path);
    }
    // NOTE: `limited`, because `line-tables-only` omits the module paths of inlined functions.
    let profile = profile_of(args);
    let variable = profile.to_uppercase().replace('-', "_");
    if debug_info == DebugInfo::Always || !matches!(profile, "dev" | "test") {
        command.env(format!("CARGO_PROFILE_{variable}_DEBUG"), "limited");
    }
    command.env(format!("CARGO_PROFILE_{variable}_STRIP"), "none");
    // The program is built as its profile says. Only the recorder is always optimized, because an
    // unoptimized recorder costs microseconds for each event.
    for package in EVENT_PACKAGES {
        for setting in ["opt-level=3", "debug-assertions=false", "overflow-checks=false"] {
            command.args(["--config", &format!("profile.{profile}.package.{package}.{setting}")]);
        }
    }
    command
}

/// Returns the name of the cargo profile that is used.
fn profile_of(args: &CargoArgs) -> &str {
    match args.profile.as_deref() {
        Some(profile) => profile,
        None if args.bench.is_some() => "bench",
        None if args.release => "release",
        None if args.test.is_some() || args.lib => "test",
        None => "dev",
    }
}

/// Whether the options leave the choice of the target to cargo.
fn names_no_target(args: &CargoArgs) -> bool {
    [&args.bin, &args.example, &args.test, &args.bench].iter().all(|name| name.is_none()) && !args.lib
}

/// Whether the options choose this program.
fn is_wanted(args: &CargoArgs, artifact: &Artifact) -> bool {
    let target = &artifact.target;
    let is = |kind: TargetKind, name: &Option<String>| {
        name.as_ref().is_some_and(|name| target.name == *name && target.kind.contains(&kind))
    };
    if args.lib {
        return artifact.profile.test
            && target.kind.iter().any(|kind| !matches!(kind, TargetKind::Bin | TargetKind::Test));
    }
    if names_no_target(args) {
        return target.kind.contains(&TargetKind::Bin);
    }
    is(TargetKind::Bin, &args.bin)
        || is(TargetKind::Example, &args.example)
        || is(TargetKind::Test, &args.test)
        || is(TargetKind::Bench, &args.bench)
}
