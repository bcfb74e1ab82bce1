//! `cargo`: builds one target with debug info, then does what `run` does, where cargo would start it and with the variables of the
//! package and of its build script.

mod config_env;

use std::ffi::{OsStr, OsString};
use std::io::BufReader;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::{
    Artifact, ArtifactDebuginfo, BuildScript, Message, MetadataCommand, Package, PackageId, TargetKind,
};

use super::run::Surroundings;
use super::{Failure, run};
use crate::cli::CargoArgs;
use crate::dumps::place::check_folder_exists;
use crate::io_error::plain;

/// `profiler-cli cargo`.
///
/// # Errors
/// See [`Failure`].
pub fn cargo(args: &CargoArgs) -> Result<ExitCode, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if let Some(output) = &args.recording.output {
        check_folder_exists(output)?;
    }
    let mut built = build(&cargo, args, DebugInfo::OfOptimized)?;
    if built.artifact.profile.debuginfo == ArtifactDebuginfo::None {
        built = build(&cargo, args, DebugInfo::Always)?;
    }
    let artifact = &built.artifact;
    let program = artifact.executable.as_ref().context("no executable")?;
    let mut command = vec![program.clone().into_os_string()];
    command.extend(args.args.iter().cloned());
    if args.bench.is_some() {
        // As cargo does: without it a benchmark only tests itself.
        command.push("--bench".into());
    }
    run::profile(&command, &args.recording, &surroundings(&cargo, &built))
}

/// What cargo has built.
struct Built {
    artifact: Artifact,
    /// What build scripts said on the way.
    scripts: Vec<BuildScript>,
}

/// Which profiles are told to have debug info.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DebugInfo {
    /// Those that have none unless somebody asks for it.
    OfOptimized,
    /// Whichever is used.
    Always,
}

/// Builds the target that was asked for.
fn build(cargo: &OsString, args: &CargoArgs, debug_info: DebugInfo) -> anyhow::Result<Built> {
    let mut child = cargo_command(cargo, args, debug_info)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run cargo: {}", plain(&error)))?;
    let output = child.stdout.take().context("cargo has no output")?;
    let (mut built, mut scripts) = (Vec::new(), Vec::new());
    for message in Message::parse_stream(BufReader::new(output)) {
        match message.context("cannot read what cargo says")? {
            Message::CompilerArtifact(artifact) if artifact.executable.is_some() && fits(args, &artifact) => {
                built.push(artifact);
            }
            Message::BuildScriptExecuted(script) => scripts.push(script),
            _ => {}
        }
    }
    let status = child.wait().context("lost sight of cargo")?;
    if !status.success() {
        bail!("cargo could not build the program");
    }
    if built.len() > 1 && names_nothing(args) {
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
        1 => Ok(Built { artifact: built.swap_remove(0), scripts }),
        _ => bail!("cargo built several programs; choose one of them with --bin: {}", names.join(", ")),
    }
}

/// What `default-run` names in the packages of these.
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

/// What cargo knows of the package that a target is in. `None` only costs the program some of its environment.
fn package_of(cargo: &OsString, artifact: &Artifact) -> Option<Package> {
    let metadata = MetadataCommand::new()
        .cargo_path(cargo)
        .manifest_path(&artifact.manifest_path)
        .no_deps()
        .exec()
        .ok()?;
    metadata.packages.into_iter().find(|package| package.id == artifact.package_id)
}

/// Where `cargo run`, `cargo test` and `cargo bench` start a program, and with which variables.
fn surroundings(cargo: &OsString, Built { artifact, scripts }: &Built) -> Surroundings {
    let manifest = artifact.manifest_path.as_std_path();
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let is_test = artifact.profile.test || artifact.target.kind.contains(&TargetKind::Bench);
    let mut variables = configured();
    let mut set = |name: &str, value: &dyn AsRef<OsStr>| variables.push((name.into(), value.as_ref().into()));
    set("CARGO", cargo);
    set("CARGO_MANIFEST_DIR", &folder);
    set("CARGO_MANIFEST_PATH", &manifest);
    for script in scripts.iter().filter(|script| script.package_id == artifact.package_id) {
        set("OUT_DIR", &script.out_dir.as_std_path());
        script.env.iter().for_each(|(name, value)| set(name, value));
    }
    if let Some(package) = package_of(cargo, artifact) {
        let version = &package.version;
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        set("CARGO_PKG_NAME", &package.name.as_str());
        set("CARGO_PKG_VERSION", &version.to_string());
        set("CARGO_PKG_VERSION_MAJOR", &version.major.to_string());
        set("CARGO_PKG_VERSION_MINOR", &version.minor.to_string());
        set("CARGO_PKG_VERSION_PATCH", &version.patch.to_string());
        set("CARGO_PKG_VERSION_PRE", &version.pre.as_str());
        set("CARGO_PKG_AUTHORS", &package.authors.join(":"));
        set("CARGO_PKG_DESCRIPTION", &or_empty(&package.description));
        set("CARGO_PKG_HOMEPAGE", &or_empty(&package.homepage));
        set("CARGO_PKG_REPOSITORY", &or_empty(&package.repository));
        set("CARGO_PKG_LICENSE", &or_empty(&package.license));
        let path_or_empty = |path: &Option<_>| path.as_ref().map_or_else(String::new, ToString::to_string);
        set("CARGO_PKG_LICENSE_FILE", &path_or_empty(&package.license_file));
        set("CARGO_PKG_README", &path_or_empty(&package.readme));
    }
    if let Some(libraries) = library_path(artifact, scripts) {
        set("LD_LIBRARY_PATH", &libraries);
    }
    Surroundings { folder: is_test.then(|| folder.to_owned()), variables }
}

/// What the configuration of cargo says, from here. Cargo's own variables win.
fn configured() -> Vec<(OsString, OsString)> {
    let Ok(here) = std::env::current_dir() else { return Vec::new() };
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    config_env::variables(&here, home, |name| std::env::var_os(name).is_some())
}

/// Where libraries are that the program may be linked to: those that build scripts have made, its own, and those of the compiler (a
/// procedural macro's tests).
fn library_path(artifact: &Artifact, scripts: &[BuildScript]) -> Option<OsString> {
    let program = artifact.executable.as_ref()?.as_std_path();
    let folder = program.parent()?;
    let profile =
        if folder.ends_with("deps") || folder.ends_with("examples") { folder.parent()? } else { folder };
    // As cargo does it: only what lies in its own folder, without the kind that may stand before it.
    let native = scripts.iter().flat_map(|script| &script.linked_paths).map(|path| {
        let path = path.as_str();
        PathBuf::from(path.split_once('=').map_or(path, |(_, path)| path))
    });
    let mut paths: Vec<PathBuf> = native.filter(|path| path.starts_with(profile)).collect();
    paths.extend([profile.join("deps"), profile.to_owned()]);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc).args(["--print", "target-libdir"]).output().ok();
    if let Some(printed) = printed.filter(|printed| printed.status.success()) {
        paths.push(PathBuf::from(OsString::from_vec(printed.stdout.trim_ascii().to_vec())));
    }
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&before).filter(|path| !path.as_os_str().is_empty()));
    std::env::join_paths(paths).ok()
}

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
    let profile = profile_of(args);
    let variable = profile.to_uppercase().replace('-', "_");
    if debug_info == DebugInfo::Always || !matches!(profile, "dev" | "test") {
        command.env(format!("CARGO_PROFILE_{variable}_DEBUG"), "limited");
    }
    command.env(format!("CARGO_PROFILE_{variable}_STRIP"), "none");
    // The program stays as its profile has it. Only the recorder is always optimized: else every event would cost it microseconds.
    for package in RECORDER {
        for setting in ["opt-level=3", "debug-assertions=false", "overflow-checks=false"] {
            command.args(["--config", &format!("profile.{profile}.package.{package}.{setting}")]);
        }
    }
    command
}

/// The packages whose code runs in events.
const RECORDER: [&str; 2] = ["alloc-tracker", "alloc-dump"];

/// The profile that is used.
fn profile_of(args: &CargoArgs) -> &str {
    match args.profile.as_deref() {
        Some(profile) => profile,
        None if args.bench.is_some() => "bench",
        None if args.release => "release",
        None if args.test.is_some() || args.lib => "test",
        None => "dev",
    }
}

fn names_nothing(args: &CargoArgs) -> bool {
    [&args.bin, &args.example, &args.test, &args.bench].iter().all(|name| name.is_none()) && !args.lib
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
    if names_nothing(args) {
        return target.kind.contains(&TargetKind::Bin);
    }
    is(TargetKind::Bin, &args.bin)
        || is(TargetKind::Example, &args.example)
        || is(TargetKind::Test, &args.test)
        || is(TargetKind::Bench, &args.bench)
}
