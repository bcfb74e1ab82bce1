//! `cargo`: builds one target with debug info, then does what `run` does.

use std::ffi::OsString;
use std::io::BufReader;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::{Artifact, Message, TargetKind};

use super::{Failure, run};
use crate::cli::CargoArgs;
use crate::load::plain;

/// `profiler-cli cargo`.
///
/// # Errors
/// See [`Failure`].
pub fn cargo(args: &CargoArgs) -> Result<ExitCode, Failure> {
    let mut command = vec![build(args)?];
    command.extend(args.args.iter().cloned());
    run::profile(&command, &args.recording)
}

/// Builds; the path of the executable.
fn build(args: &CargoArgs) -> anyhow::Result<OsString> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = cargo_command(&cargo, args)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run cargo: {}", plain(&error)))?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut built = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        match message.context("cannot read what cargo says")? {
            Message::CompilerArtifact(artifact) if artifact.executable.is_some() && fits(args, &artifact) => {
                built.push(artifact);
            }
            _ => {}
        }
    }
    let status = child.wait().context("lost sight of cargo")?;
    if !status.success() {
        bail!("cargo could not build the program");
    }
    match built.as_slice() {
        [artifact] => Ok(artifact.executable.clone().context("no executable")?.into_os_string()),
        [] => bail!("cargo built no program; choose one with --bin, --example, --test, --bench or --lib"),
        several => {
            let names: Vec<&str> = several.iter().map(|artifact| artifact.target.name.as_str()).collect();
            bail!("cargo built several programs; choose one of them with --bin: {}", names.join(", "))
        }
    }
}

fn cargo_command(cargo: &OsString, args: &CargoArgs) -> Command {
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
        // `cargo bench` is optimized anyway and does not know the switch.
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
    // NOTE: `limited` and not `line-tables-only`: the latter leaves inlined functions without their module path.
    if let Some(profile) = optimized_profile(args) {
        command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "limited");
        command.env(format!("CARGO_PROFILE_{profile}_STRIP"), "none");
    }
    command
}

/// The profile that may lack debug info, as environment variables spell it; `dev` and `test` have it.
fn optimized_profile(args: &CargoArgs) -> Option<String> {
    match args.profile.as_deref() {
        Some("dev" | "test") => None,
        Some(profile) => Some(profile.to_uppercase().replace('-', "_")),
        None if args.bench.is_some() => Some("BENCH".to_owned()),
        None => args.release.then(|| "RELEASE".to_owned()),
    }
}

fn fits(args: &CargoArgs, artifact: &Artifact) -> bool {
    let target = &artifact.target;
    let is = |kind: TargetKind, name: &Option<String>| {
        name.as_ref().is_some_and(|name| target.name == *name && target.kind.contains(&kind))
    };
    if args.lib {
        return artifact.profile.test
            && target.kind.iter().any(|kind| !matches!(kind, TargetKind::Bin | TargetKind::Test));
    }
    let named = [&args.bin, &args.example, &args.test, &args.bench];
    if named.iter().all(|name| name.is_none()) {
        return target.kind.contains(&TargetKind::Bin);
    }
    is(TargetKind::Bin, &args.bin)
        || is(TargetKind::Example, &args.example)
        || is(TargetKind::Test, &args.test)
        || is(TargetKind::Bench, &args.bench)
}
