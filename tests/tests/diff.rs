//! `profiler-cli diff` over the history of a small program: each step reports exactly what was
//! planted in it. And repeated runs of a program that differs from run to run give no false change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{cli, line_of, number, output_within, profiler_cli, program, workspace};

/// A package whose sources change step by step, with a symbol cache of its own.
struct History {
    folder: TempDir,
    krate: &'static str,
    helper: &'static str,
}

const MAIN: &str = r#"
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

mod items;

fn main() {
    let list = parse_items(40);
    let index = index_of(&list);
    let text = render(&list);
    let joined = helper::join(&text, 200_000);
    std::hint::black_box((index, joined));
}

fn parse_items(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| vec![at as u8; 10_000]).collect()
}

fn index_of(list: &[Vec<u8>]) -> Vec<u64> {
    let mut index = vec![0; 30_000];
    index.truncate(list.len());
    index
}

fn render(list: &[Vec<u8>]) -> String {
    let mut text = String::with_capacity(100_000);
    list.iter().for_each(|item| text.push(item[0] as char));
    text
}
"#;

const HELPER: &str = "pub fn join(text: &str, size: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(size);
    all.extend_from_slice(text.as_bytes());
    all
}
";

impl History {
    fn new() -> History {
        // The programs of this package are built first: that clears the folder of build products.
        program("noisy");
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let history = History { folder, krate: "shop", helper: "helper-0.1.0" };
        history.write("src/main.rs", MAIN);
        history.write("src/items.rs", "");
        history.write_helper(HELPER);
        history
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn write_helper(&self, text: &str) {
        let version = self.helper.trim_start_matches("helper-");
        let manifest = format!("[package]\nname = \"helper\"\nversion = \"{version}\"\nedition = \"2024\"\n");
        self.write(&format!("vendor/{}/Cargo.toml", self.helper), &manifest);
        self.write(&format!("vendor/{}/src/lib.rs", self.helper), text);
    }

    /// Replaces a text that the file has once.
    fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs::write(self.path(path), text.replace(from, to)).unwrap();
    }

    /// Builds the program as it is now, and records it.
    fn record(&self, name: &str) -> PathBuf {
        let tracker = workspace().join("alloc-tracker");
        let manifest = format!(
            "[package]\nname = \"{}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\nexclude = [\"vendor\"]\n\n\
             [dependencies]\nalloc-tracker.path = {tracker:?}\nhelper.path = \"vendor/{}\"\n",
            self.krate, self.helper
        );
        self.write("Cargo.toml", &manifest);
        fs::copy(workspace().join("Cargo.lock"), self.path("Cargo.lock")).unwrap();
        let target = workspace().join("target/end-to-end");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--offline", "--quiet"]).current_dir(self.folder.path());
        build.env("CARGO_TARGET_DIR", &target);
        let built = output_within(&mut build, Duration::from_secs(300));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let dump = self.path(&format!("{name}.alloc"));
        let mut run = profiler_cli();
        run.env("XDG_CACHE_HOME", self.path("cache")).arg("run").arg("-o").arg(&dump);
        run.arg("--").arg(target.join("debug").join(self.krate));
        let ran = output_within(&mut run, Duration::from_secs(60));
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        dump
    }

    /// Compares the steps; returns the changed sites as function and status, and the report.
    fn diff(&self, base: &Path, new: &Path) -> (Vec<(String, String)>, Value) {
        let mut cli = profiler_cli();
        cli.env("XDG_CACHE_HOME", self.path("cache")).arg("diff").args([base, new]).arg("--json");
        let output = output_within(&mut cli, Duration::from_secs(60));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let sites = report["sites"].as_array().unwrap().iter();
        (sites.map(|site| (text(&site["function"]), text(&site["status"]))).collect(), report)
    }
}

fn moved(report: &Value) -> Vec<(&str, &str)> {
    let moved = report["moved"].as_array().unwrap().iter();
    moved
        .map(|site| (site["from"]["function"].as_str().unwrap(), site["to"]["function"].as_str().unwrap()))
        .collect()
}

fn changed(function: &str, status: &str) -> Vec<(String, String)> {
    vec![(function.to_owned(), status.to_owned())]
}

#[test]
fn each_step_of_a_history_reports_what_was_planted_in_it() {
    let mut history = History::new();
    let base = history.record("base");

    history.edit("src/main.rs", "fn parse_items", "// A comment\n// of two lines.\nfn parse_items");
    history.edit("src/main.rs", "    let mut index", "    // Another one.\n    let mut index");
    let commented = history.record("commented");
    let (sites, report) = history.diff(&base, &commented);
    assert!(sites.is_empty() && moved(&report).is_empty(), "{report}");
    assert!(number(&report, "unchanged") >= 4, "{report}");
    assert_eq!(report["changed"], false);

    let render = MAIN[MAIN.find("fn render").unwrap()..].to_owned();
    history.edit("src/main.rs", &render, "");
    history.edit("src/main.rs", "render(&list)", "items::render(&list)");
    history.write("src/items.rs", &render.replace("fn render", "pub fn render"));
    let refactored = history.record("refactored");
    let (sites, report) = history.diff(&commented, &refactored);
    assert!(sites.is_empty(), "{report}");
    assert_eq!(moved(&report), [("shop::render", "shop::items::render")], "{report}");

    history.krate = "market";
    let renamed = history.record("renamed");
    let (sites, report) = history.diff(&refactored, &renamed);
    assert!(sites.is_empty(), "{report}");
    let all = moved(&report);
    assert!(all.contains(&("shop::items::render", "market::items::render")), "{all:?}");
    assert!(all.contains(&("shop::index_of", "market::index_of")), "{all:?}");

    history.edit("src/main.rs", "vec![0; 30_000]", "vec![0; 60_000]");
    let doubled = history.record("doubled");
    let (sites, report) = history.diff(&renamed, &doubled);
    assert_eq!(sites, changed("market::index_of", "grown"), "{report}");
    let site = &report["sites"][0];
    // 30,000 numbers of 8 bytes.
    assert_eq!(number(&site["allocated_bytes"], "new") - number(&site["allocated_bytes"], "base"), 240_000);
    assert_eq!(site["allocations"]["changed"], false);
    let line = fs::read_to_string(history.path("src/main.rs")).unwrap();
    let line = line.lines().position(|line| line.contains("60_000")).unwrap() + 1;
    assert_eq!(number(site, "line"), line as i64);
    assert!(site["file"].as_str().unwrap().ends_with("src/main.rs"), "{site}");

    history.edit(
        "src/main.rs",
        "    let joined =",
        "    std::mem::forget(vec![7u8; 50_000]);\n    let joined =",
    );
    let leaking = history.record("leaking");
    let (sites, report) = history.diff(&doubled, &leaking);
    assert_eq!(sites, changed("market::main", "new"), "{report}");
    assert_eq!(number(&report["sites"][0]["live_bytes"], "new"), 50_000);
    let (sites, _) = history.diff(&leaking, &doubled);
    assert_eq!(sites, changed("market::main", "gone"));

    history.helper = "helper-0.2.0";
    history.write_helper(&format!("//! Release 0.2.\n\npub const VERSION: u32 = 2;\n\n{HELPER}"));
    let updated = history.record("updated");
    let (sites, report) = history.diff(&leaking, &updated);
    assert!(sites.is_empty() && moved(&report).is_empty(), "{report}");

    // Both pictures, each with the frames of its own side.
    let picture = history.path("growth.svg");
    let args =
        ["diff".as_ref(), doubled.as_os_str(), leaking.as_os_str(), "-o".as_ref(), picture.as_os_str()];
    assert!(cli(args).status.success());
    let texts =
        [picture.clone(), history.path("growth.base.svg")].map(|path| fs::read_to_string(path).unwrap());
    assert!(texts.iter().all(|text| text.starts_with("<?xml") && text.contains("market::index_of")));
}

/// Records the program several times into a folder.
fn record_runs(folder: &Path, size: &str) {
    fs::create_dir(folder).unwrap();
    for run in 0..RUNS {
        let mut noisy = Command::new(program("noisy"));
        noisy.arg(size).env("ALLOC_TRACKER", "trace");
        noisy.env("ALLOC_TRACKER_OUT", folder.join(format!("{run}.alloc")));
        assert!(output_within(&mut noisy, Duration::from_secs(60)).status.success());
    }
}

const RUNS: usize = 20;

#[test]
fn repeated_runs_give_no_false_change_and_show_a_small_true_one() {
    let folder = tempfile::tempdir().unwrap();
    let side = |name: &str| folder.path().join(name);
    record_runs(&side("base"), "1000");
    record_runs(&side("same"), "1000");
    record_runs(&side("more"), "1050");
    let compare = |new: &str| -> Value {
        let output = cli(["diff".into(), side("base"), side(new), "--json".into()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let same = compare("same");
    assert_eq!((number(&same, "base_runs"), number(&same, "new_runs")), (20, 20));
    assert_eq!(same["sites"].as_array().unwrap().len(), 0, "{same}");
    assert_eq!(same["changed"], false, "{}", same["totals"]);
    assert!(same["varying"].as_array().unwrap().contains(&"allocated_bytes".into()), "{same}");
    let more = compare("more");
    let sites = more["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 1, "{more}");
    assert!(sites[0]["function"].as_str().unwrap().starts_with("noisy::planted"), "{more}");
    // 1000 blocks, each with 50 bytes more.
    let allocated = &sites[0]["allocated_bytes"];
    assert_eq!(number(allocated, "new") - number(allocated, "base"), 50_000);

    // For reviewers: one annotation at the line, and the same finding in each of the files.
    let (markdown, sarif) = (side("comment.md"), side("heap.sarif"));
    let mut emit = vec!["diff".into(), side("base"), side("more"), "--emit".into(), "annotations".into()];
    for output in [format!("markdown={}", markdown.display()), format!("sarif={}", sarif.display())] {
        emit.extend(["--emit".into(), PathBuf::from(output)]);
    }
    let output = cli(emit);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let annotations = String::from_utf8(output.stdout).unwrap();
    assert_eq!(annotations.lines().count(), 1, "{annotations}");
    let line = line_of(&workspace().join("tests/src/bin/noisy.rs"), "vec![1; size])).collect()");
    let place = format!("::warning file=tests/src/bin/noisy.rs,line={line},title=");
    assert!(annotations.starts_with(&place), "{annotations}");
    let page = fs::read_to_string(markdown).unwrap();
    assert!(page.starts_with("<!-- alloc-tracker -->\n### Heap of noisy\n"), "{page}");
    assert!(page.contains("`noisy::planted::{closure}`"), "{page}");
    let sarif: Value = serde_json::from_str(&fs::read_to_string(sarif).unwrap()).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!((results.len(), results[0]["ruleId"].as_str()), (1, Some("heap/grown")), "{sarif}");
    let region = &results[0]["locations"][0]["physicalLocation"]["region"];
    assert_eq!(number(region, "startLine"), i64::from(line), "{sarif}");
}

#[test]
fn bad_input_is_one_line_and_2() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("a.alloc");
    let mut noisy = Command::new(program("noisy"));
    noisy.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", &dump);
    assert!(output_within(&mut noisy, Duration::from_secs(60)).status.success());
    let (dump, missing) = (dump.to_str().unwrap(), folder.path().join("b*.alloc"));
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for (args, said) in [
        (vec!["diff", dump], "give two sides, or --from and --to"),
        (vec!["diff", dump, missing.to_str().unwrap()], "no dump fits"),
        (vec!["diff", dump, empty.to_str().unwrap()], "there is no dump in"),
        (vec!["diff", dump, "/dev/null"], "/dev/null"),
        (vec!["diff", dump, ","], "names no dump"),
        (vec!["diff", dump, dump, "--function", "none_such"], "none_such"),
        (vec!["diff", dump, dump, "-o", "other.alloc"], ".alloc"),
        (vec!["diff", dump, dump, "-o", "x.svg", "--metric", "retained"], "cannot be compared"),
        (vec!["diff", dump, dump, "--emit", "sarif", "--emit", "junit"], "two outputs go to stdout"),
        (vec!["diff", dump, dump, "--json", "--emit", "sarif"], "--json and an output"),
    ] {
        let output = cli(args.iter());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
}
