//! Bad input of each kind: one clear line on stderr, nothing on stdout, exit status 2.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::record::Record;
use alloc_dump::write::Encoder;
use tests::{Run, cli, output_within, profiler_cli, program};

/// Runs the CLI with bad input, requires that it is refused in one line, and returns that line.
fn refusal(args: &[&str]) -> String {
    let output = cli(args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?} prints nothing to stdout");
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    assert!(message.starts_with("profiler-cli: "), "{message}");
    message
}

/// Creates a file in a folder of its own.
fn with_file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn files_that_are_no_dumps_are_refused() {
    let missing = refusal(&["summary", "/nonexistent/x.alloc"]);
    assert!(missing.contains("/nonexistent/x.alloc") && missing.contains("No such file"), "{missing}");
    let (_folder, empty) = with_file("empty.alloc", b"");
    assert!(refusal(&["leaks", &empty]).contains("the file is empty"));
    let (_folder, text) = with_file("x.txt", b"hello\n");
    assert!(refusal(&["lines", &text]).contains("not an alloc-tracker dump"));
    assert!(refusal(&["flamegraph", "/"]).contains("directory"));
}

#[test]
fn a_dump_of_a_newer_major_version_is_refused() {
    let run = Run::traced("course_allocate", &[]);
    let mut bytes = std::fs::read(run.dump()).unwrap();
    bytes[8] += 1;
    bytes[10] = 0;
    // A newer release would have written a valid checksum of the header: CRC-32, computed here bit
    // by bit.
    let crc = !bytes[..60].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    });
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let (_folder, newer) = with_file("newer.alloc", &bytes);
    let message = refusal(&["summary", &newer]);
    assert!(message.contains("format 2.0") && message.contains("newer release"), "{message}");
}

#[test]
fn a_dump_that_is_cut_short_is_read_and_labelled_as_incomplete() {
    let run = Run::traced("growing_queue", &[]);
    let bytes = std::fs::read(run.dump()).unwrap();
    let (_folder, cut) = with_file("cut.alloc", &bytes[..bytes.len() - 10]);
    let summary = tests::json("summary", Path::new(&cut), &[]);
    assert_eq!(summary["complete"], false);
    let output = cli(["leaks", &cut, "--fail-on-leak", "1000000000"]);
    assert_eq!(output.status.code(), Some(1), "a check does not pass on an incomplete recording");
}

/// A hash that multiplies by `MULTIPLIER`, as `rustc-hash` does, puts all these addresses into the
/// same slot: address n is n times the multiplier's inverse, so the product is the small number n.
/// Searching for each address among all others would take a minute and a half here, and hours with
/// the millions of blocks that fit into a dump.
#[test]
fn addresses_that_were_chosen_to_collide_cost_no_more_than_others() {
    const MULTIPLIER: u64 = 0xF135_7AEA_2E62_A9C5;
    const BLOCKS: u64 = 300_000;
    // Each step of Newton's iteration doubles the number of correct low bits: from 1 to 64 in six
    // steps.
    let inverse =
        (0..6).fold(1u64, |known, _| known.wrapping_mul(2u64.wrapping_sub(MULTIPLIER.wrapping_mul(known))));
    assert_eq!(inverse.wrapping_mul(MULTIPLIER), 1);
    let mut dump = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
    let (mut buffer, mut encoder, mut seq) = (vec![0; 256 << 10], Encoder::new(), 0);
    let mut seal = |buffer: &mut [u8], encoder: &mut Encoder| {
        let len = encoder.seal(buffer, seq);
        dump.extend_from_slice(&buffer[..len]);
        seq += 1;
    };
    for number in 1..=BLOCKS {
        let addr = inverse.wrapping_mul(number);
        let record = Record::Alloc { addr, size: 24, stack: StackId::ROOT, zeroed: false };
        if encoder.push(&mut buffer, &record).is_err() {
            seal(&mut buffer, &mut encoder);
            encoder.push(&mut buffer, &record).unwrap();
        }
    }
    seal(&mut buffer, &mut encoder);
    let (_folder, path) = with_file("collide.alloc", &dump);
    let output = output_within(profiler_cli().args(["summary", "--json", &path]), Duration::from_secs(30));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["live_blocks"], &summary["live_bytes"]), (&BLOCKS.into(), &(24 * BLOCKS).into()));
}

#[test]
fn patterns_that_match_nothing_are_refused_with_similar_names() {
    let run = Run::traced("leaking_cache", &[]);
    let dump = run.dump();
    let dump = dump.to_str().unwrap();
    let message = refusal(&["lines", dump, "--function", "rendr"]);
    assert!(message.contains("'rendr'") && message.contains("leaking_cache::render"), "{message}");
    let message = refusal(&["leaks", dump, "--file", "leaking_cash.rs"]);
    assert!(message.contains("leaking_cache.rs"), "{message}");
    let message = refusal(&["summary", dump, "--thread", "worker"]);
    assert!(message.contains("no thread matches 'worker'") && message.contains("leaking_cache"), "{message}");
    assert!(!message.contains("15 bytes"), "{message}");
    // The program may have given a thread this name. The kernel has cut it.
    let message = refusal(&["leaks", dump, "--thread", "leaking_cache-handler-0002"]);
    assert!(message.contains("first 15 bytes") && message.contains("'leaking_cache'"), "{message}");
    let message = refusal(&["flamegraph", dump, "--crate", "leaking_cach?x", "-o", "-"]);
    assert!(message.contains("no crate matches"), "{message}");
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    let run = Run::traced("course_allocate", &[]);
    let dump = run.dump();
    let message = refusal(&["flamegraph", dump.to_str().unwrap(), "-o", "/proc/nonexistent/x.svg"]);
    assert!(message.contains("/proc/nonexistent/x.svg"), "{message}");
    let message = refusal(&["run", "-o", "/proc/nonexistent/x.alloc", "--", "/bin/true"]);
    assert!(message.contains("/proc/nonexistent/x.alloc"), "{message}");
    // The CLI refuses the output before it builds anything.
    let message =
        refusal(&["cargo", "-o", "/proc/nonexistent/x.alloc", "--manifest-path", "/nonexistent/Cargo.toml"]);
    assert!(message.contains("/proc/nonexistent/x.alloc"), "{message}");
    assert!(refusal(&["run", "-o", "/", "--", "/bin/true"]).contains("folder"));
    assert!(refusal(&["run", "--", "/nonexistent/program"]).contains("/nonexistent/program"));
    assert!(refusal(&["man", "-o", "/proc/nonexistent"]).contains("/proc/nonexistent"));
}

#[test]
fn a_program_that_does_not_link_the_tracker_is_reported_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = profiler_cli();
    command.args(["run", "--", "/bin/true"]).current_dir(folder.path());
    let output = output_within(&mut command, Duration::from_secs(60));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("global_allocator") && message.lines().count() == 1, "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left behind");
}

#[test]
fn wrong_usage_exits_with_status_2_and_a_closed_pipe_is_no_error() {
    assert_eq!(cli(["summary"]).status.code(), Some(2));
    assert_eq!(cli(["sumary", "x"]).status.code(), Some(2));
    assert_eq!(cli(["flamegraph", "x", "--metric", "nonsense"]).status.code(), Some(2));
    let run = Run::traced("real_syn", &[]);
    let mut command = Command::new("bash");
    command.args(["-c", "\"$0\" leaks \"$1\" --top 100000 --full | head -n 1; exit ${PIPESTATUS[0]}"]);
    let output =
        output_within(command.arg(program("profiler-cli")).arg(run.dump()), Duration::from_secs(120));
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
