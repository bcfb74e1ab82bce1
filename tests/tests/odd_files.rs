//! The program's file has an unusual name, is gone, or is not the one that ran. Names are right, or
//! one line says why they are missing. They are never those of another file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, example_source, json, line_of, number, program, workspace};

const EXAMPLE: &str = "leaking_cache";

/// Asserts that the planted leak is found, with its function and line.
fn assert_named(leaks: &Value) {
    let first = &leaks["leaks"][0];
    assert_eq!(first["line"], line_of(&example_source(EXAMPLE), "// PLANTED: leak"), "{first}");
    assert_eq!(first["function"], "leaking_cache::render");
    assert_eq!((number(first, "bytes"), number(first, "blocks")), (1000 * 4096, 1000));
}

/// Copies the example to this place below a new folder.
fn copy_to(place: impl AsRef<OsStr>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Path::new(place.as_ref()));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::copy(program(EXAMPLE), &path).unwrap();
    (folder, path)
}

/// Runs a program under a plain name: a Rust program that reads arguments which are no text panics.
fn run(program: &Path) -> Run {
    Run::of(Command::new(program).arg0("app"), Duration::from_secs(300))
}

#[test]
fn names_do_not_depend_on_the_path_of_the_program() {
    let places: [&[u8]; 5] = [
        b"new\nline/app",
        b"no\xffutf8/app",
        b"gone (deleted)/app",
        b"app (deleted)",
        b"back\\012slash (deleted)/100%app",
    ];
    for place in places {
        let (_folder, program) = copy_to(OsStr::from_bytes(place));
        let run = run(&program);
        for command in ["summary", "lines", "flamegraph", "timeline"] {
            run.json(command, &[]);
        }
        assert_named(&run.json("leaks", &[]));
        let summary = run.json("summary", &[]);
        assert_eq!(summary["warnings"], Value::Array(Vec::new()), "{}", place.escape_ascii());
        assert_eq!(summary["slowed_by"], Value::Array(Vec::new()), "{}", place.escape_ascii());
    }
}

#[test]
fn a_program_that_is_gone_has_names_again_with_a_copy() {
    let (folder, program) = copy_to("bin/app");
    let run = run(&program);
    std::fs::remove_file(&program).unwrap();
    let warnings = run.json("summary", &["--no-cache"])["warnings"].to_string();
    for part in ["bin/app cannot be read", "--symbols"] {
        assert!(warnings.contains(part), "no {part:?} in {warnings}");
    }
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::copy(tests::program(EXAMPLE), kept.join("another_name")).unwrap();
    let symbols = kept.to_str().unwrap();
    assert_named(&run.json("leaks", &["--no-cache", "--symbols", symbols]));
}

/// Another file has the same build-id, or both have none: the code tells them apart.
#[test]
fn another_file_gives_no_names_even_if_its_build_id_is_the_same() {
    for has_build_id in [true, false] {
        let (folder, program) = copy_to("bin/app");
        let mut bytes = std::fs::read(&program).unwrap();
        if !has_build_id {
            // The name in the header of the note, behind three numbers: name length 4, 20 bytes of
            // content, kind 3.
            let note = [&[4u32, 20, 3].map(u32::to_le_bytes).concat()[..], b"GNU\0"].concat();
            let at = bytes.windows(note.len()).position(|part| part == note);
            let Some(at) = at else {
                println!("skipped: the linker writes no build-id of 20 bytes");
                return;
            };
            bytes[at + 12..at + 15].copy_from_slice(b"ABC");
            std::fs::write(&program, &bytes).unwrap();
        }
        let run = run(&program);
        let live = number(&run.json("summary", &["--no-cache"]), "live_bytes");
        let kept = folder.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::copy(&program, kept.join(if has_build_id { "app" } else { "renamed" })).unwrap();
        // Time and length stay, as `cp -p` of another build may leave them.
        let written = std::fs::metadata(&program).unwrap().modified().unwrap();
        let main = bytes.windows(4).rposition(|part| part == [0x48, 0x83, 0xEC, 0x18]);
        let main = main.expect("a function that makes room on the stack");
        bytes[main + 3] = 0x28;
        // The text of a running program cannot be changed, so the file is replaced.
        std::fs::remove_file(&program).unwrap();
        std::fs::write(&program, &bytes).unwrap();
        std::fs::File::options().write(true).open(&program).unwrap().set_modified(written).unwrap();

        let summary = run.json("summary", &["--no-cache"]);
        let warnings = summary["warnings"].to_string();
        for part in ["bin/app differs", "--symbols"] {
            assert!(warnings.contains(part), "no {part:?} in {warnings}");
        }
        assert_eq!(number(&summary, "live_bytes"), live);
        let leaks = run.json("leaks", &["--no-cache", "--full"]).to_string();
        assert!(leaks.contains("app+0x") && !leaks.contains(EXAMPLE), "{leaks}");
        let symbols = kept.to_str().unwrap();
        assert_named(&json("leaks", &run.dump(), &["--symbols", symbols]));
    }
}

/// A program that is linked statically has no loader to ask. Its stacks are walked by rules all the
/// same.
#[test]
fn a_statically_linked_program_is_recorded_like_any_other() {
    let libc = Command::new("cc").arg("-print-file-name=libc.a").output();
    let has_libc = libc.is_ok_and(|output| output.stdout.starts_with(b"/"));
    let target = "x86_64-unknown-linux-gnu";
    if !has_libc || !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        println!("skipped: libc.a missing, or another target");
        return;
    }
    let folder = workspace().join("target/static");
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "examples", "--bin", EXAMPLE, "--target", target])
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "limited")
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .current_dir(workspace())
        .status();
    assert!(cargo.expect("cargo runs").success(), "cargo cannot build the example");
    let program = folder.join(target).join("release").join(EXAMPLE);
    let checked = Run::of(Command::new(program).env("ALLOC_TRACKER_CHECK", "1"), Duration::from_secs(300));
    assert_named(&checked.json("leaks", &[]));
    let summary = checked.json("summary", &[]);
    assert_eq!((number(&summary, "truncated_stacks"), number(&summary, "different_stacks")), (0, 0));
    assert_eq!(summary["slowed_by"], Value::Array(Vec::new()));
}
