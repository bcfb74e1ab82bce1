//! Blocks that cross the border to a library without the tracker are counted and named as such, and
//! totals stay those of an independent counter.

use std::process::Command;
use std::time::Duration;

use tests::stunts::{RELEASE, exchanging_library};
use tests::{Run, cli, number};

/// Sizes of the blocks in `stunts/src/exchange.rs`.
const GIVEN_SIZE: i64 = 100;
const TAKEN_SIZE: i64 = 900;

#[test]
fn blocks_of_an_untracked_library_are_counted_apart() {
    let mut command = Command::new(RELEASE.program());
    let run = Run::of(command.arg("exchange").arg(exchanging_library()), Duration::from_secs(60));
    let (stdout, stderr) =
        (String::from_utf8_lossy(&run.output.stdout), String::from_utf8_lossy(&run.output.stderr));
    assert!(run.output.status.success() && stderr.is_empty(), "{stderr}");
    let counted: Vec<i64> = stdout.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [given, taken, reused] = counted[..] else { panic!("{stdout}") };
    // The system hands out the block that was freed last.
    assert_eq!(reused, taken - 1);

    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    for total in ["allocations", "deallocations", "reallocations", "allocated_bytes", "freed_bytes"] {
        assert_eq!(summary[total], oracle[total], "{total} as recorded, and as counted");
    }
    assert_eq!(number(&summary, "blocks_allocated_elsewhere"), given);
    assert_eq!(number(&summary, "blocks_freed_elsewhere"), reused);
    assert_eq!((number(&summary, "lost_events"), number(&summary, "foreign_frees")), (0, 0));
    // A free of the library's block subtracts nothing. A block that the library has freed is
    // subtracted when its address is handed out again; one never is.
    let balance = number(&oracle, "allocated_bytes") - number(&oracle, "freed_bytes");
    assert_eq!(number(&summary, "live_bytes"), balance + given * GIVEN_SIZE - reused * TAKEN_SIZE);
    let balance = number(&oracle, "allocations") - number(&oracle, "deallocations");
    assert_eq!(number(&summary, "live_blocks"), balance + given - reused);
    let leaks = run.json("leaks", &["--function", "allocate_taken"]);
    assert_eq!((number(&leaks, "total_bytes"), number(&leaks, "total_blocks")), (TAKEN_SIZE, 1));

    // The figures of live bytes cannot be vouched for, and nothing was damaged or lost.
    assert_eq!((&summary["exact"], &summary["complete"]), (&false.into(), &true.into()));
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains(&format!("{given} frees of blocks that were allocated elsewhere")));
    assert!(warnings.contains(&format!("{reused} blocks that were freed elsewhere")));
    let dump = run.dump();
    for command in ["summary", "leaks", "timeline"] {
        let output = cli([command, dump.to_str().unwrap()]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        for word in ["contradiction", "were lost", "was lost", "damaged"] {
            assert!(!text.contains(word), "{command} says {word:?}: {text}");
        }
    }
    let check = cli(["leaks", dump.to_str().unwrap(), "--fail-on-leak", "1000000000"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stderr).contains("frees of blocks that were allocated elsewhere"));
}
