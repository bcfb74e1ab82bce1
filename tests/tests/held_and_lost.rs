//! Verdicts on planted blocks: what holds a block, and whether anything does, in the middle of a
//! program and at its end. The program is `held_and_lost` of the package `stunts`; what is expected
//! of each of its functions follows from what the function does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::{MIMALLOC, RELEASE, Variant};
use tests::{cli, has_tool, json, number, output_within, profiler_cli};

/// What is expected of the blocks of one function.
struct Planted {
    function: &'static str,
    /// Verdict and kind of root in the middle of the program.
    middle: (&'static str, &'static str),
    /// The same at the end, where main's locals are gone and registers are known; `None` if the
    /// blocks are freed by then.
    end: Option<(&'static str, &'static str)>,
    /// Blocks and bytes; 0 where they depend on how the standard library divides its memory.
    size: (i64, i64),
}

const fn planted(
    function: &'static str,
    middle: (&'static str, &'static str),
    end: Option<(&'static str, &'static str)>,
    size: (i64, i64),
) -> Planted {
    Planted { function, middle, end, size }
}

const HELD_BY_STATIC: (&str, &str) = ("held", "static");
const HELD_BY_TLS: (&str, &str) = ("held", "tls");
const HELD_BY_STACK: (&str, &str) = ("held", "stack");
const HELD_BY_REGISTER: (&str, &str) = ("held", "register");
const MAYBE: (&str, &str) = ("maybe", "unknown");
const LOST: (&str, &str) = ("lost", "");

/// Bytes of a link of the ring: two counts, a borrow flag, a pointer and 119 bytes, as a multiple
/// of 8.
const LINK: i64 = 152;

const ALL: [Planted; 29] = [
    planted("static_vec", HELD_BY_STATIC, Some(HELD_BY_STATIC), (11, 16 * 8 + 10 * 101)),
    planted("leaked_into_a_static", HELD_BY_STATIC, Some(HELD_BY_STATIC), (1, 102)),
    planted("static_hash_map", HELD_BY_STATIC, Some(HELD_BY_STATIC), (21, 0)),
    planted("static_b_tree_map", HELD_BY_STATIC, Some(HELD_BY_STATIC), (0, 0)),
    planted("static_linked_list", HELD_BY_STATIC, Some(HELD_BY_STATIC), (15, 15 * (16 + 112))),
    planted("static_vec_deque", HELD_BY_STATIC, Some(HELD_BY_STATIC), (9, 8 * 8 + 8 * 106)),
    planted("arc_into_raw", HELD_BY_STATIC, Some(HELD_BY_STATIC), (1, 128)),
    planted("low_tag_bit", HELD_BY_STATIC, Some(HELD_BY_STATIC), (1, 112)),
    planted("pointer_into_the_middle", HELD_BY_STATIC, Some(HELD_BY_STATIC), (1, 300)),
    planted("thread_local_of_a_live_thread", HELD_BY_TLS, Some(HELD_BY_TLS), (1, 108)),
    // Nothing but the stack of a thread that has ended, which stays mapped, has the address.
    planted("thread_local_of_an_ended_thread", LOST, Some(LOST), (1, 109)),
    planted("local_of_main", HELD_BY_STACK, None, (5, 4 * 8 + 4 * 110)),
    planted("local_of_a_blocked_thread", HELD_BY_STACK, Some(HELD_BY_STACK), (1, 111)),
    planted("receiver_of_a_blocked_thread", HELD_BY_STACK, Some(HELD_BY_STACK), (7, 0)),
    planted("channel_of_main", HELD_BY_STACK, None, (7, 0)),
    // Without registers nobody can know; docs/LEAKS.md says so.
    planted("inverted_address", LOST, Some(HELD_BY_REGISTER), (1, 112)),
    planted("only_in_c_memory", MAYBE, Some(MAYBE), (1, 115)),
    planted("only_in_a_mapping", MAYBE, Some(MAYBE), (1, 116)),
    planted("only_in_a_frozen_mapping", MAYBE, Some(MAYBE), (1, 123)),
    planted("only_in_a_hidden_mapping", MAYBE, Some(MAYBE), (1, 124)),
    planted("only_in_a_mapping_that_copies_lack", MAYBE, Some(MAYBE), (1, 125)),
    planted("only_in_a_mapping_that_is_wiped_in_copies", MAYBE, Some(MAYBE), (1, 126)),
    planted("pointer_to_the_end", HELD_BY_STATIC, Some(HELD_BY_STATIC), (1, 16)),
    planted("forgotten_box", LOST, Some(LOST), (7, 7 * 118)),
    planted("rc_cycle", LOST, Some(LOST), (2000, 2000 * LINK)),
    planted("points_to_itself", LOST, Some(LOST), (3, 3 * 120)),
    planted("forgotten_vec_of_boxes", LOST, Some(LOST), (51, 50 * 8 + 50 * 121)),
    // No conservative scan of aligned words can know these; docs/LEAKS.md says so.
    planted("packed_pointer", LOST, Some(LOST), (1, 117)),
    planted("high_tag_bits", LOST, Some(LOST), (1, 122)),
];

/// Records the program in this folder, and returns the dump. `None` if the kernel does not let the
/// registers be read.
fn record(folder: &Path, variant: &Variant) -> (PathBuf, bool) {
    let dump = folder.join("x.alloc");
    let mut run = profiler_cli();
    run.args(["run", "--report", "none", "--snapshot-at-end", "-o"]).arg(&dump).arg("--");
    run.arg(variant.program_named("held_and_lost"));
    let output = output_within(&mut run, Duration::from_secs(60));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"snapshot taken\n", "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let has_registers = said.contains("3.snapshot (0.0 MiB, one copy");
    if !has_registers {
        println!("skipped: ptrace missing");
    }
    (dump, has_registers)
}

/// Returns the rows of a report whose innermost own function is this one.
fn rows_of<'a>(report: &'a Value, function: &str) -> Vec<&'a Value> {
    let name = format!("held_and_lost::plant::{function}");
    let rows = report["leaks"].as_array().unwrap();
    rows.iter().filter(|row| row["function"] == name.as_str()).collect()
}

fn check(planted: &Planted, report: &Value, (verdict, root): (&str, &str)) {
    let rows = rows_of(report, planted.function);
    let [row] = rows.as_slice() else { panic!("{}: one row and not {rows:?}", planted.function) };
    assert_eq!(row["verdict"], verdict, "{row}");
    let kind = row["held_by"][0]["root"]["kind"].as_str().unwrap_or_default();
    assert_eq!(kind, root, "{row}");
    let (blocks, bytes) = planted.size;
    if blocks != 0 {
        assert_eq!(number(row, "blocks"), blocks, "{row}");
    }
    if bytes != 0 {
        assert_eq!(number(row, "bytes"), bytes, "{row}");
    }
}

#[test]
fn verdicts_in_the_middle_and_at_the_end_are_those_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, has_registers) = record(folder.path(), &RELEASE);
    let middle = json("leaks", &dump, &["--snapshot", "mid"]);
    let end = json("leaks", &dump, &[]);
    assert_eq!((&middle["snapshot"]["name"], &end["snapshot"]["name"]), (&"mid".into(), &"end".into()));
    for planted in &ALL {
        check(planted, &middle, planted.middle);
        let is_register = planted.end == Some(HELD_BY_REGISTER);
        match planted.end {
            Some(_) if is_register && !has_registers => {}
            Some(expected) => check(planted, &end, expected),
            None => assert_eq!(rows_of(&end, planted.function).len(), 0, "{}", planted.function),
        }
    }

    // Groups: what is lost with another block is counted with it.
    for (function, blocks, bytes) in [
        ("rc_cycle", 1999, 1999 * LINK),
        ("forgotten_vec_of_boxes", 50, 50 * 121),
        ("points_to_itself", 0, 0),
        ("forgotten_box", 0, 0),
    ] {
        let row = rows_of(&end, function)[0];
        let with_it = &row["lost_with_it"];
        assert_eq!((number(with_it, "blocks"), number(with_it, "bytes")), (blocks, bytes), "{row}");
    }

    // Chains: the name of the static, and the offset of the pointer in it.
    for (function, variable, bytes) in [
        ("leaked_into_a_static", "LEAKED", 102),
        ("low_tag_bit", "TAGGED", 112),
        ("pointer_into_the_middle", "MIDDLE", 300),
        ("arc_into_raw", "ARC", 128),
    ] {
        let holder = &rows_of(&end, function)[0]["held_by"][0];
        assert_eq!(holder["root"]["name"], format!("held_and_lost::plant::{variable}"), "{holder}");
        assert_eq!(number(&holder["root"], "offset"), 0);
        assert_eq!(number(&holder["links"][0], "bytes"), bytes);
    }

    // A Vec retains its boxes, and each row of the report itself.
    for function in ["static_vec", "static_vec_deque", "rc_cycle", "forgotten_vec_of_boxes"] {
        let row = rows_of(&end, function)[0];
        assert_eq!(row["retained_bytes"], row["bytes"], "{row}");
    }
    check_totals(&end);
    check_interval(&dump);
    check_gate(&dump);
}

/// Blocks of an interval that ended before either snapshot.
fn check_interval(dump: &Path) {
    const INTERVAL: [&str; 4] = ["--from", "mark:holding", "--to", "mark:planted"];
    let freed_since = ["local_of_main", "channel_of_main"];
    let end = json("leaks", dump, &INTERVAL);
    let middle = json("leaks", dump, &[&INTERVAL[..], &["--snapshot", "mid"]].concat());
    let still_live = json("leaks", dump, &[&INTERVAL[..], &["--still-live"]].concat());
    for planted in &ALL[ALL.len() - 6..] {
        let expected = planted.end.expect("they are lost");
        [&end, &middle, &still_live].iter().for_each(|report| check(planted, report, expected));
    }
    for planted in ALL.iter().filter(|planted| freed_since.contains(&planted.function)) {
        check(planted, &end, ("unknown", ""));
        check(planted, &middle, planted.middle);
        assert_eq!(rows_of(&still_live, planted.function).len(), 0);
    }
    for report in [&end, &middle, &still_live] {
        assert_eq!(report["interval"]["from"], "mark:holding");
        assert_eq!(rows_of(report, "static_vec").len(), 0, "it is older");
        check_totals(report);
    }
}

/// The blocks of all verdicts are all live blocks but those that are suppressed.
fn check_totals(report: &Value) {
    let sum =
        |field| report["verdicts"].as_array().unwrap().iter().map(|total| number(total, field)).sum::<i64>();
    assert_eq!(sum("bytes"), number(report, "total_bytes"));
    assert_eq!(sum("blocks"), number(report, "total_blocks"));
}

fn check_gate(dump: &Path) {
    let gate = |condition: &str| {
        let output = cli(["leaks".as_ref(), dump.as_os_str(), "--fail-on".as_ref(), condition.as_ref()]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = gate("lost");
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("are lost; --fail-on lost allows 0 B; the first row is held_and_lost::plant::rc_cycle"),
        "{said}"
    );
    assert_eq!(gate("lost:1MiB").0, Some(0));
}

/// The report after a run comes from a process of its own.
#[test]
fn the_report_after_a_run_uses_the_snapshot_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = profiler_cli();
    run.args(["run", "--report", "full", "--snapshot-at-end", "-o"]).arg(folder.path().join("x.alloc"));
    run.arg("--").arg(RELEASE.program_named("held_and_lost"));
    let output = output_within(&mut run, Duration::from_secs(60));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Judged by snapshot 'end'") && !said.contains("Without a snapshot"), "{said}");
}

/// Memcheck finds what is lost in another way: it follows every allocation and looks through all
/// memory at the end.
#[test]
fn memcheck_finds_as_much_lost() {
    if !has_tool("valgrind") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (dump, has_registers) = record(folder.path(), &RELEASE);
    let mut memcheck = Command::new("valgrind");
    memcheck.arg("--leak-check=full").arg(RELEASE.program_named("held_and_lost"));
    let output = output_within(memcheck.current_dir(folder.path()), Duration::from_secs(120));
    let said = String::from_utf8(output.stderr).unwrap();
    let counted = |name: &str| -> (i64, i64) {
        let line = said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{said}"));
        let digits = line.split_once(name).unwrap().1.replace(',', "");
        let mut words = digits.split_whitespace().filter_map(|word| word.parse().ok());
        (words.next().unwrap(), words.next().unwrap())
    };
    let (definitely, indirectly) = (counted("definitely lost:"), counted("indirectly lost:"));
    let end = json("leaks", &dump, &[]);
    let lost = end["verdicts"].as_array().unwrap().iter().find(|total| total["verdict"] == "lost").unwrap();
    // Memcheck knows the registers.
    let in_register = if has_registers { (0, 0) } else { (112, 1) };
    // It looks through writable memory alone, and an end holds nothing.
    let only_memcheck =
        [("only_in_a_frozen_mapping", 123), ("only_in_a_hidden_mapping", 124), ("pointer_to_the_end", 16)];
    let more: i64 = only_memcheck.iter().map(|(_, bytes)| bytes).sum();
    assert!(
        only_memcheck.iter().all(|(function, _)| said.contains(&format!("plant::{function} "))),
        "{said}"
    );
    assert_eq!(number(lost, "bytes") - in_register.0 + more, definitely.0 + indirectly.0, "{said}");
    assert_eq!(number(lost, "blocks") - in_register.1 + 3, definitely.1 + indirectly.1, "{said}");
}

/// mimalloc keeps its blocks in memory that it maps itself, with its own notes in between. Some of
/// these have the address of a block, so what is lost may be called maybe; it is never called held.
#[test]
fn nothing_lost_is_called_held_with_blocks_of_mimalloc() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, has_registers) = record(folder.path(), &MIMALLOC);
    let end = json("leaks", &dump, &[]);
    for planted in &ALL {
        match planted.end {
            Some(LOST) => {
                let rows = rows_of(&end, planted.function);
                let is_lost = |row: &&Value| row["verdict"] == "lost" || row["verdict"] == "maybe";
                assert!(!rows.is_empty() && rows.iter().all(is_lost), "{rows:?}");
            }
            Some(HELD_BY_REGISTER) if !has_registers => {}
            Some(expected) => check(planted, &end, expected),
            None => {}
        }
    }
    check_totals(&end);
}
