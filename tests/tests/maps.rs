//! `maps` shows the address space as the kernel does, and says who has the resident memory.

use serde_json::Value;
use tests::{Run, cli, number};

const MIB: i64 = 1 << 20;
/// The program reads its list of mappings into its heap, and the kernel counts the pages of a
/// process in batches.
const NEARLY: i64 = MIB / 2;

/// Returns the instant with this name.
fn instant<'a>(maps: &'a Value, name: &str) -> &'a Value {
    let instants = maps["instants"].as_array().unwrap();
    let found = instants.iter().find(|instant| instant["name"] == name);
    found.unwrap_or_else(|| panic!("no instant {name} in {maps}"))
}

/// Returns a number that the program has printed, as `name=number`.
fn printed(run: &Run, name: &str) -> i64 {
    let output = String::from_utf8_lossy(&run.output.stdout);
    let line = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name} in {output}")).parse().unwrap()
}

fn sum(instant: &Value, field: &str) -> i64 {
    instant["segments"].as_array().unwrap().iter().map(|segment| number(segment, field)).sum()
}

fn assert_near(found: i64, expected: i64, what: &str) {
    assert!((found - expected).abs() < NEARLY, "{what}: {found}, expected {expected}");
}

#[test]
fn the_address_space_is_that_of_the_kernel() {
    let run = Run::traced("holder", &["barely"]);
    let held = instant(&run.json("maps", &[]), "mark:held").clone();
    assert_near(number(&held, "size"), printed(&run, "size"), "VSZ");
    assert_near(number(&held, "resident"), printed(&run, "resident"), "RSS");
    assert_eq!(sum(&held, "size"), number(&held, "size"));
    assert_eq!(sum(&held, "resident"), number(&held, "resident"));
    let parts = held["resident_parts"].as_object().unwrap();
    let untouched = number(&held["heap"], "untouched");
    let all: i64 = parts.values().map(|part| part.as_i64().unwrap()).sum();
    assert_eq!(all - untouched, number(&held, "resident"), "the parts are the whole");

    // 64 MiB are live, of which 10 MiB were written.
    assert_near(untouched, 54 * MIB, "never touched");
    assert_near(number(&held["heap"], "live"), 10 * MIB, "live and touched");
    let segments = held["segments"].as_array().unwrap();
    let names_of = |kind: &str| -> Vec<&Value> {
        segments.iter().filter(|segment| segment["kind"] == kind).map(|segment| &segment["name"]).collect()
    };
    assert_eq!(names_of("thread_stack"), ["sleeper"]);
    for kind in ["text", "read_only", "data", "bss", "brk_heap", "main_stack", "kernel", "tracker"] {
        assert!(!names_of(kind).is_empty(), "{kind}");
    }
    let live: i64 = segments.iter().map(|segment| number(segment, "live_bytes")).sum();
    assert_eq!(live, number(&held, "live_bytes"), "every live block lies in a mapping");
}

#[test]
fn memory_between_blocks_is_no_live_memory() {
    let run = Run::traced("holder", &["holes"]);
    let maps = run.json("maps", &[]);
    let [peak, full, held] = ["peak", "mark:full", "mark:held"].map(|name| instant(&maps, name));
    // Of 64 MiB in blocks, a sixteenth is live; the rest is still resident.
    assert!(number(&held["heap"], "live") < 7 * MIB, "{}", held["heap"]);
    let free = number(&held["heap"], "overhead") + number(&held["heap"], "free");
    assert!((58 * MIB..68 * MIB).contains(&free), "{}", held["heap"]);
    assert_eq!(number(full, "live_bytes") - number(held, "live_bytes"), 60 * MIB);
    assert!(number(peak, "live_bytes") >= number(full, "live_bytes"));
    assert!(number(&held["heap"], "unknown") < MIB, "{}", held["heap"]);
    let text = held["conclusion"].as_str().unwrap();
    assert!(text.contains("is free memory inside of the heap: fragmentation"), "{text}");
}

#[test]
fn an_instant_that_is_not_there_is_named() {
    let run = Run::traced("holder", &["barely"]);
    let dump = run.dump();
    let output = cli(["maps".as_ref(), dump.as_os_str(), "--at".as_ref(), "noon".as_ref()]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no instant \"noon\"") && error.contains("mark:held"), "{error}");
}
