//! Budgets and baselines of recorded programs: which runs pass, what a failure names, and which
//! mistakes are errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rustix::process::Signal;
use serde_json::Value;
use tests::{Run, cli, json, line_of, number, program, send, wait_for_line, workspace};

/// What the function `lost` of the planted program allocates, in one block that stays.
const LOST: u64 = 16 << 10;

static PLANTED: LazyLock<Run> = LazyLock::new(|| Run::traced("planted", &[]));

/// What a command printed, and its exit status.
struct Said {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn check(dumps: &[&Path], args: &[&str]) -> Said {
    let dumps = dumps.iter().map(|dump| dump.to_str().unwrap());
    let output = cli(["check"].into_iter().chain(dumps).chain(args.iter().copied()));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
}

/// A folder for the files of one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn a_figure_at_its_bound_passes_and_one_above_it_is_named_with_its_site() {
    let (folder, dump) = (Folder::new(), PLANTED.dump());
    let budget =
        |bytes: u64| format!("[[function]]\nname = 'planted::lost'\nlive = {bytes}\nallocations = 1\n");
    let budgets = folder.file("heap.toml", &budget(LOST));
    let said = check(&[&dump], &["--budgets", &budgets]);
    assert_eq!((said.code, &*said.stdout), (Some(0), "Passed: 2 bounds kept in 1 run.\n"), "{}", said.stderr);

    let budgets = folder.file("heap.toml", &budget(LOST - 1));
    let said = check(&[&dump], &["--budgets", &budgets]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let line = line_of(&workspace().join("tests/src/bin/planted.rs"), "// the lost block");
    let expected = format!(
        "Failed: 1 figure is above its bound (1 run).\n\n\
         function 'planted::lost': Live at end 16,384 B, at most 16,383 B: 1 B too much\n  \
         most at planted::lost tests/src/bin/planted.rs:{line}; budget {budgets}:3\n"
    );
    assert_eq!(said.stdout, expected);

    let said = check(&[&dump], &["--budgets", &budgets, "--json"]);
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &json["passed"]), (Some(1), &Value::from(false)));
    let violation = &json["violations"][0];
    assert_eq!((number(violation, "found"), number(violation, "excess")), (LOST as i64, 1));
    assert_eq!((number(violation, "line"), number(violation, "budget_line")), (i64::from(line), 3));
    assert_eq!((&violation["scope"], &violation["metric"]), (&"function".into(), &"live_bytes".into()));
}

#[test]
fn the_baseline_of_a_recording_is_always_the_same_and_its_program_passes() {
    let (folder, dump) = (Folder::new(), PLANTED.dump());
    let baseline = folder.path("deep/heap.baseline");
    let args = ["--baseline", baseline.to_str().unwrap()];
    let missing = check(&[&dump], &args);
    assert_eq!((missing.code, missing.stderr.lines().count()), (Some(2), 1), "{}", missing.stderr);
    assert!(missing.stderr.contains("--update`") && missing.stdout.is_empty(), "{}", missing.stderr);
    assert!(!baseline.exists());

    let texts = [0, 1].map(|_| {
        let made = check(&[&dump], &[args[0], args[1], "--update"]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        fs::read_to_string(&baseline).unwrap()
    });
    assert_eq!(texts[0], texts[1]);
    let text = &texts[0];
    assert!(text.starts_with("alloc-tracker baseline 1\nprogram planted\ntotal peak_bytes="), "{text}");
    let site = format!(
        "site planted::lost #0 peak_bytes={LOST} live_bytes={LOST} allocated_bytes={LOST} allocations=1\n"
    );
    // Of 1 KiB, and in one allocation.
    assert!(!text.contains("keep_in_cache"), "{text}");
    let without_peak = site.replace(&format!(" peak_bytes={LOST}"), "");
    assert!(text.contains(&site) || text.contains(&without_peak), "{text}");
    assert!(!text.contains('/') && !text.contains("0x"), "no paths and no addresses: {text}");
    let sites: Vec<&str> = text.lines().filter(|line| line.starts_with("site ")).collect();
    assert!(sites.is_sorted(), "{text}");

    // Another run of the program, with other addresses, and both together.
    let again = Run::traced("planted", &[]);
    for dumps in [vec![again.dump()], vec![dump.clone(), again.dump()]] {
        let dumps: Vec<&Path> = dumps.iter().map(PathBuf::as_path).collect();
        let said = check(&dumps, &args);
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    }
    check(&[&again.dump()], &[args[0], args[1], "--update"]);
    assert_eq!(&fs::read_to_string(&baseline).unwrap(), text, "of another run");

    // The baseline allows less for one site than the program has.
    let less = text
        .replace(&format!("allocated_bytes={LOST} allocations=1\n"), "allocated_bytes=8192 allocations=1\n");
    assert_ne!(&less, text);
    let file = folder.file("less.baseline", &less);
    let said = check(&[&dump], &["--baseline", &file]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let expected =
        "planted::lost: Allocated 16.0 KiB, at most 12.0 KiB (baseline 8.0 KiB): 4.0 KiB too much\n";
    assert!(said.stdout.contains(expected), "{}", said.stdout);
    assert_eq!(fs::read_to_string(&file).unwrap(), less, "only --update writes");
}

#[test]
fn a_relative_budget_is_judged_by_the_baseline() {
    let (folder, dump) = (Folder::new(), PLANTED.dump());
    let budgets = folder.file("heap.toml", "[[function]]\nname = 'planted::lost'\nallocated = '+50 %'\n");
    let baseline = folder.path("heap.baseline").to_str().unwrap().to_owned();
    let args = ["--budgets", &budgets, "--baseline", &baseline];
    let said = check(&[&dump], &[&args[..], &["--update"]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let text = fs::read_to_string(&baseline).unwrap();
    let row = format!("budget {LOST} allocated function 'planted::lost'\n");
    assert!(text.contains(&row), "{text}");
    // A base of 10,923 bytes allows 16,384, and one of 10,922 allows a byte less.
    for (base, code) in [(10_923, 0), (10_922, 1)] {
        fs::write(&baseline, text.replace(&row, &row.replace(&LOST.to_string(), &base.to_string()))).unwrap();
        let said = check(&[&dump], &args);
        assert_eq!(said.code, Some(code), "{base}: {}{}", said.stdout, said.stderr);
    }
    fs::write(&baseline, text.replace(&row, "")).unwrap();
    let said = check(&[&dump], &args);
    assert!(
        said.code == Some(2) && said.stderr.contains("heap.toml:3: the baseline has no figure"),
        "{}",
        said.stderr
    );
}

#[test]
fn what_is_lost_has_a_budget_that_needs_a_snapshot() {
    let folder = Folder::new();
    let dump = folder.path("planted.alloc");
    let recorded = cli([
        "run".as_ref(),
        "--snapshot-at-end".as_ref(),
        "-o".as_ref(),
        dump.as_os_str(),
        "--".as_ref(),
        program("planted").as_os_str(),
    ]);
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    // The functions `unexplained` and `codec_alloc` drop their pointers. That of `lost` may be left
    // in a slot of main's stack. Whether the verdicts are right is the subject of `held_and_lost`.
    let verdicts = json("leaks", &dump, &[])["verdicts"].clone();
    let lost = verdicts.as_array().unwrap().iter().find(|total| total["verdict"] == "lost").unwrap();
    let lost = number(lost, "bytes") as u64;
    assert!([10 << 10, (10 << 10) + LOST].contains(&lost), "{verdicts}");
    let budgets = |bytes: u64| folder.file("heap.toml", &format!("[total]\nlost = {bytes}\n"));
    let passing = check(&[&dump], &["--budgets", &budgets(lost)]);
    assert_eq!(passing.code, Some(0), "{}{}", passing.stdout, passing.stderr);
    let failing = check(&[&dump], &["--budgets", &budgets(lost - 1), "--json"]);
    let found: Value = serde_json::from_str(&failing.stdout).unwrap();
    let violation = &found["violations"][0];
    assert_eq!((failing.code, number(violation, "found")), (Some(1), lost as i64), "{}", failing.stderr);
    assert_eq!(violation["metric"], "lost_bytes");
    let most = if lost > LOST { "planted::lost" } else { "planted::unexplained" };
    assert_eq!(violation["site"], most);

    // One of two recordings has no snapshot, so what it lost is not known.
    let without = PLANTED.dump();
    for dumps in [vec![without.as_path()], vec![&dump, &without]] {
        let said = check(&dumps, &["--budgets", &budgets(lost)]);
        assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains("heap.toml:2: without a snapshot it is not known"), "{}", said.stderr);
    }
}

#[test]
fn the_budget_of_a_call_bounds_the_average_of_the_calls_of_an_annotated_function() {
    let folder = Folder::new();
    let run = Run::traced("annotated", &[]);
    let dump = run.dump();
    // From the sizes in the source: one call; three calls, of which one repeats 9 bytes; and one
    // call with four calls inside.
    let functions = [
        ("after_release", 90_000 + 240 + 10 * 100 + 55),
        ("may_leave", (3 * 80 + 9) / 3),
        ("recurses", 1500),
    ];
    for (function, bytes) in functions {
        for (bound, code) in [(bytes, 0), (bytes - 1, 1)] {
            let text = format!("[[per_call]]\nfunction = 'annotated::{function}'\nallocated = {bound}\n");
            let said = check(&[&dump], &["--budgets", &folder.file("heap.toml", &text)]);
            assert_eq!(said.code, Some(code), "{function}: {}{}", said.stdout, said.stderr);
        }
    }
}

#[test]
fn a_program_that_is_not_tracked_never_passes() {
    let folder = Folder::new();
    let budgets = folder.file("heap.toml", "[total]\npeak = '1 GiB'\n");
    // It links alloc-tracker, and its allocator is another one.
    let dump = folder.path("forgotten.alloc");
    Command::new(program("forgotten"))
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &dump)
        .output()
        .unwrap();
    let said = check(&[&dump], &["--budgets", &budgets]);
    assert_ne!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(!said.stdout.contains("Passed"), "{}", said.stdout);
}

#[test]
fn a_mistake_is_one_line_with_status_2_and_nothing_is_overwritten() {
    let (folder, dump) = (Folder::new(), PLANTED.dump());
    let good = folder.file("good.baseline", "alloc-tracker baseline 1\nprogram planted\ntotal\n");
    let newer = folder.file("newer.baseline", "alloc-tracker baseline 2\nprogram planted\n");
    let other = folder.file("other.baseline", "alloc-tracker baseline 1\nprogram lives\ntotal\n");
    let source = folder.file("main.rs", "fn main() {}\n");
    let damaged =
        folder.file("damaged.baseline", "alloc-tracker baseline 1\nprogram planted\ntotal\n<<<<<<< HEAD\n");
    let key = folder.file("key.toml", "[total]\npaek = 1\n");
    let unit = folder.file("unit.toml", "[total]\npeak = '64 MB'\n");
    let table = folder.file("table.toml", "[totals]\npeak = 1\n");
    let toml = folder.file("toml.toml", "[total\n");
    let relative = folder.file("relative.toml", "[total]\npeak = '+5 %'\n");
    let no_match = folder.file("no_match.toml", "[[function]]\nname = 'planted::lots'\npeak = 1\n");
    let passing = folder.file("heap.toml", "[total]\npeak = '1 GiB'\n");
    let many = folder.file("many.toml", "[[thread]]\nname = 'nobody'\nallocated = 1\nallocations = 1\n");
    let lives = Run::traced("lives", &[]);
    let (one, none) = (vec![dump.as_path()], Vec::new());
    let both = vec![dump.as_path(), &*Box::leak(lives.dump().into_boxed_path())];
    let missing = folder.path("missing.alloc");
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    let gone = folder.path("gone.toml").to_str().unwrap().to_owned();
    let cases: Vec<(&[&Path], Vec<&str>, &str)> = vec![
        (&one, vec!["--budgets", &key], "key.toml:2: [total] has no key 'paek'; the nearest is 'peak'"),
        (&one, vec!["--budgets", &unit], "unit.toml:2: [total] peak: '64 MB' is no size"),
        (&one, vec!["--budgets", &table], "table.toml:1: there is no table 'totals'; the nearest is 'total'"),
        (&one, vec!["--budgets", &toml], "toml.toml:1: "),
        (&one, vec!["--budgets", &gone], "cannot read "),
        (&one, vec!["--budgets", &relative], "relative.toml:2: the bound for peak of total is relative"),
        (
            &one,
            vec!["--budgets", &no_match],
            "no_match.toml:3: no function matches 'planted::lots'; the nearest: planted::lost",
        ),
        (&one, vec!["--budgets", &many], "many.toml:3: no thread matches 'nobody'"),
        (&one, vec!["--baseline", &newer], "newer.baseline: this baseline has version 2"),
        (&one, vec!["--baseline", &newer, "--update"], "newer.baseline: this baseline has version 2"),
        (&one, vec!["--baseline", &source, "--update"], "main.rs: this is no baseline"),
        (&one, vec!["--baseline", &damaged], "damaged.baseline: line 4: this is no line of a baseline"),
        (&one, vec!["--baseline", &other], "is of the program 'planted', and "),
        (&one, vec!["--baseline", &other, "--update"], "is of the program 'planted', and "),
        (&one, vec!["--baseline", &good, "--update", "--budgets", &no_match], "no function matches"),
        (&both, vec!["--budgets", &passing], "is of the program 'lives', and "),
        (&both, vec!["--baseline", &good, "--update"], "is of the program 'lives', and "),
        (&one, vec![], "give bounds with --budgets FILE"),
        (&none, vec!["--budgets", &passing], "give a dump"),
    ];
    let files = || -> Vec<(PathBuf, String)> {
        let entries = fs::read_dir(folder.0.path()).unwrap().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = entries
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    for (dumps, args, expected) in cases {
        let said = check(dumps, &args);
        assert_eq!((said.code, said.stderr.lines().count()), (Some(2), 1), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(expected), "{args:?}: {}", said.stderr);
    }
    for path in [&missing, &empty] {
        let said = check(&[path], &["--baseline", &good, "--update"]);
        assert_eq!((said.code, said.stderr.lines().count()), (Some(2), 1), "{}", said.stderr);
    }
    assert!(before == files(), "nothing is overwritten");
    // Also where a budget matched nothing, the report says so.
    let said = check(&[&dump], &["--budgets", &many, "--json"]);
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&json["passed"], json["unmatched"].as_array().unwrap().len()), (&Value::from(false), 2));
    // A baseline with the marks of a merge can be made anew.
    assert_eq!(check(&[&dump], &["--baseline", &damaged, "--update"]).code, Some(0));
    assert!(fs::read_to_string(&damaged).unwrap().contains("site planted::lost #0"));
}

#[test]
fn a_killed_service_is_judged_if_all_of_it_was_recovered() {
    let folder = Folder::new();
    let dump = folder.path("dump.alloc");
    let mut child = Command::new(program("sessions"))
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &dump)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child);
    send(Signal::KILL, child.id());
    child.wait().unwrap();
    let alone = folder.path("alone/dump.alloc");
    fs::create_dir(alone.parent().unwrap()).unwrap();
    fs::copy(&dump, &alone).unwrap();

    let budgets = folder.file("heap.toml", "[total]\nallocated = '1 TiB'\n");
    let said = check(&[&dump], &["--budgets", &budgets]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    // Without its last records, the dump proves nothing, and gives no baseline.
    let baseline = folder.path("heap.baseline");
    let args = ["--budgets", &budgets, "--baseline", baseline.to_str().unwrap(), "--update"];
    let said = check(&[&alone], &args);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("1 recording cannot be judged"), "{}", said.stdout);
    assert!(said.stdout.contains("the recording is not exact: "), "{}", said.stdout);
    assert!(!baseline.exists());
}
