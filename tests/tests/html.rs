//! A real browser loads the page of `lines --html`. The page shows the figures of the JSON,
//! executes no source text, works under its own content security policy without complaints, and can
//! be used by the keyboard.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, cli, output_within};

/// Returns the first browser that is installed and shows a page from a folder for temporary files.
/// Some installations (such as sandboxed packages) may not read that folder.
fn browser() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&str>> = OnceLock::new();
    let shows_a_page = |name: &&&str| {
        let starts = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        starts && {
            let folder = tempfile::tempdir().unwrap();
            let page = folder.path().join("page.html");
            std::fs::write(&page, "<!DOCTYPE html><p>seen</p>").unwrap();
            String::from_utf8_lossy(&dump_dom(name, &page).stdout).contains("<p>seen</p>")
        }
    };
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = *FOUND.get_or_init(|| names.iter().find(shows_a_page).copied());
    if found.is_none() {
        println!("skipped: chromium missing");
    }
    found
}

/// Loads a page without a window and prints its document after the scripts have run.
fn dump_dom(browser: &str, page: &Path) -> Output {
    let profile = tempfile::tempdir().unwrap();
    output_within(
        Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // Containers often have a small /dev/shm.
            .arg("--disable-dev-shm-usage")
            .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", page.display())),
        Duration::from_secs(120),
    )
}

/// A page as a browser shows it, with the messages on the browser's console.
struct Loaded {
    dom: String,
    complaints: Vec<String>,
}

fn load(browser: &str, page: &Path) -> Loaded {
    let output = dump_dom(browser, page);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaints = stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    let dom = String::from_utf8(output.stdout).unwrap();
    assert!(dom.contains("</html>"), "{browser} shows nothing: {stderr}");
    Loaded { dom, complaints }
}

/// The HTML page of a dump, and the JSON with the same tables.
struct Page {
    folder: TempDir,
    html: String,
    json: Value,
}

impl Page {
    fn of(program: &str) -> Page {
        let run = Run::traced(program, &[]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        let dump = run.dump();
        let output = cli(["lines", dump.to_str().unwrap(), "--html", path.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout.is_empty(), "{stderr}");
        assert_eq!(stderr.lines().next(), path.to_str(), "the first line on stderr is the path of the page");
        let html = std::fs::read_to_string(&path).unwrap();
        let printed = cli(["lines", dump.to_str().unwrap(), "--html", "-"]);
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), html);
        Page { folder, html, json: run.json("lines", &["--top", "50"]) }
    }

    fn load(&self, browser: &str) -> Loaded {
        load(browser, &self.folder.path().join("page.html"))
    }

    /// Runs a script of the test in a copy of the page and returns its result. The copy has no
    /// content security policy, since the policy would forbid the test's script.
    fn eval(&self, browser: &str, script: &str) -> Value {
        let start = self.html.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
        let end = start + self.html[start..].find('>').unwrap() + 1;
        let test_script = format!(
            "<script>const answer = (() => {{ {script} }})();\n\
             const box = document.createElement('pre'); box.id = 'answer';\n\
             box.textContent = JSON.stringify(answer); document.body.replaceChildren(box);</script></body>"
        );
        let copy = [&self.html[..start], &self.html[end..]].concat().replace("</body>", &test_script);
        let path = self.folder.path().join("relaxed.html");
        std::fs::write(&path, copy).unwrap();
        let loaded = load(browser, &path);
        assert_eq!(loaded.complaints, Vec::<String>::new());
        let (_, rest) = loaded.dom.split_once("<pre id=\"answer\">").expect("the test's script has run");
        let text = rest.split_once("</pre>").unwrap().0;
        let text =
            text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
        serde_json::from_str(&text).unwrap()
    }
}

/// A script that returns every table as the browser shows it: its name and titles, and for each row
/// its id, the step of its heat colour and its cells by title.
const TABLES: &str = "
    return [...document.querySelectorAll('main section')].map((section) => {
        const titles = [...section.querySelectorAll('thead th')].map((th) => th.textContent);
        const rows = [...section.querySelectorAll('tbody tr')].map((tr) => ({
            id: tr.id,
            steps: Number((/\\bh(\\d+)\\b/.exec(tr.className) ?? [0, 0])[1]),
            cells: Object.fromEntries([...tr.cells].map((cell, at) => [titles[at], cell.textContent])),
        }));
        return { name: section.querySelector('h2').textContent, titles, rows };
    });";

/// Formats a figure as the page does.
type Format = fn(i64) -> String;

/// The columns' titles in the page, their fields in the JSON, and their formats.
const FIELDS: [(&str, &str, Format); 14] = [
    ("Mem usage", "mem_usage", size),
    ("Increment", "increment", |bytes| signed(bytes, size)),
    ("Occurrences", "occurrences", grouped),
    ("Allocated", "allocated", size),
    ("Freed", "freed", size),
    ("Blocks", "blocks", |blocks| signed(blocks, grouped)),
    ("Max usage", "max", size),
    ("Time", "time_ns", |ns| {
        if ns < 1_000_000_000 {
            format!("{:.3} ms", ns as f64 / 1e6)
        } else {
            format!("{:.3} s", ns as f64 / 1e9)
        }
    }),
    ("At peak", "peak", size),
    ("Live at end", "live", size),
    ("Temporary", "temporary", grouped),
    ("RSS", "rss", |bytes| signed(bytes, size)),
    ("Minor faults", "minor_faults", grouped),
    ("Major faults", "major_faults", grouped),
];

/// Formats a number with its sign; zero has none.
fn signed(number: i64, format_absolute: Format) -> String {
    let sign = ["-", "", "+"][(number.signum() + 1) as usize];
    format!("{sign}{}", format_absolute(number.abs()))
}

/// Formats bytes in the largest unit that they reach.
fn size(bytes: i64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, bits)| bytes >> bits > 0) {
        Some((unit, bits)) => format!("{:.1} {unit}", bytes as f64 / 2f64.powi(*bits)),
        None => format!("{bytes} B"),
    }
}

/// Formats a number with a comma between groups of three digits.
fn grouped(number: i64) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1000), number % 1000)
    }
}

/// Requires that the browser's tables have the figures of the JSON. A column is missing when no
/// line of the function has a figure for it.
fn compare(tables: &Value, json: &Value) {
    let (tables, functions) = (tables.as_array().unwrap(), json["functions"].as_array().unwrap());
    assert_eq!(tables.len(), functions.len());
    for ((table, function), number) in tables.iter().zip(functions).zip(1..) {
        assert_eq!(table["name"], function["function"]);
        let (rows, lines) = (table["rows"].as_array().unwrap(), function["lines"].as_array().unwrap());
        assert_eq!(rows.len(), lines.len(), "{}", table["name"]);
        let largest = lines.iter().filter_map(|line| line["increment"].as_i64()).map(i64::abs).max();
        for (row, line) in rows.iter().zip(lines) {
            assert_eq!(row["id"], format!("f{number}-L{}", line["line"]));
            let cell = |title: &str| row["cells"][title].as_str();
            assert_eq!(cell("Line #"), Some(line["line"].to_string().as_str()));
            assert_eq!(cell("Line contents"), Some(line["text"].as_str().unwrap_or_default()));
            for (title, field, format) in FIELDS {
                let expected = line[field].as_i64().map(format).unwrap_or_default();
                let is_missing = lines.iter().all(|line| line[field].is_null());
                assert_eq!(cell(title), (!is_missing).then_some(expected.as_str()), "{title} of {line}");
            }
            // A row has one of twenty heat steps, by its share of the function's largest increment.
            let share =
                line["increment"].as_i64().unwrap_or(0).abs() as f64 / largest.unwrap_or(0).max(1) as f64;
            assert_eq!(row["steps"].as_f64(), Some((share * 20.0).ceil()), "{line}");
        }
    }
}

#[test]
fn a_browser_shows_the_figures_of_the_json() {
    let Some(browser) = browser() else { return };
    for program in ["annotated", "parser_temporaries"] {
        let page = Page::of(program);
        let loaded = page.load(browser);
        assert_eq!(loaded.complaints, Vec::<String>::new());
        assert!(loaded.dom.contains("data-ready=\"yes\""), "the page's policy lets the page's script run");
        compare(&page.eval(browser, TABLES), &page.json);
    }
}

#[test]
fn a_browser_executes_no_source_text() {
    let Some(browser) = browser() else { return };
    let page = Page::of("hostile");
    assert!(page.json.to_string().contains("<img src=x"), "the hostile text is in the tables");
    let loaded = page.load(browser);
    assert_eq!(loaded.complaints, Vec::<String>::new());
    assert!(loaded.dom.contains("<title>Memory by line: hostile</title>"));
    assert!(loaded.dom.contains("data-ready=\"yes\""));
    compare(&page.eval(browser, TABLES), &page.json);
    let found = page.eval(
        browser,
        "const count = (what) => document.querySelectorAll(what).length;
         return [document.title, count('img'), count('script'), count('plaintext'), count('td *'), count('body > main')];",
    );
    // The two scripts are the page's own and the test's.
    assert_eq!(found, serde_json::json!(["Memory by line: hostile", 0, 2, 0, 0, 1]));
}

#[test]
fn keys_move_between_lines_and_between_functions() {
    let Some(browser) = browser() else { return };
    let page = Page::of("annotated");
    let went = page.eval(
        browser,
        "const went = (key) => {
             document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
             return document.activeElement.getAttribute('href') ?? document.activeElement.id;
         };
         return {
             lines: [...document.querySelectorAll('tbody tr a')].map(() => went('j')),
             back: went('k'),
             functions: (document.activeElement.blur(), [...document.querySelectorAll('main section')].map(() => went('n'))),
             before: went('p'),
             first_line: went('j'),
             with_control: (document.activeElement.dispatchEvent(
                 new KeyboardEvent('keydown', { key: 'j', ctrlKey: true, bubbles: true })),
                 document.activeElement.getAttribute('href')),
         };",
    );
    let functions = page.json["functions"].as_array().unwrap();
    let changes = |function: &Value, number: usize| -> Vec<String> {
        let lines = function["lines"].as_array().unwrap().iter();
        let changing = lines.filter(|line| line["increment"].as_i64().is_some_and(|bytes| bytes != 0));
        changing.map(|line| format!("#f{number}-L{}", line["line"])).collect()
    };
    let all: Vec<String> =
        functions.iter().zip(1..).flat_map(|(function, number)| changes(function, number)).collect();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    assert!(all.len() > 30);
    let (lines, last) = (texts(&went["lines"]), all.last().unwrap());
    assert_eq!(lines[..all.len()], all);
    assert!(lines[all.len()..].iter().all(|focused| focused == last), "the focus stays on the last line");
    assert_eq!(went["back"], all[all.len() - 2].as_str());
    let headings: Vec<String> = (1..=functions.len()).map(|number| format!("#f{number}")).collect();
    assert_eq!(texts(&went["functions"]), headings);
    assert_eq!(went["before"], headings[headings.len() - 2].as_str());
    // The key `n` led to the last function and `p` to the one before. So `j` finds the first
    // changed line of that function, or of the last function if that one has none.
    let first_changed = changes(&functions[functions.len() - 2], functions.len() - 1);
    let first_changed =
        first_changed.into_iter().chain(changes(&functions[functions.len() - 1], functions.len())).next();
    assert_eq!(went["first_line"].as_str(), first_changed.as_deref());
    assert_eq!(went["with_control"], went["first_line"], "the page ignores the browser's own shortcuts");
}

#[test]
fn filter_and_key_dialog_and_columns_and_theme_work() {
    let Some(browser) = browser() else { return };
    let page = Page::of("annotated");
    let seen = page.eval(
        browser,
        "const press = (key, target = document.activeElement) =>
             target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
         const listed = () => [...document.querySelectorAll('nav li:not([hidden]) .name')].map((name) => name.textContent);
         const shown = (selector) => document.querySelector(selector).getClientRects().length > 0;
         const colour = () => getComputedStyle(document.documentElement).backgroundColor;
         const filter = document.getElementById('filter');
         const seen = {};
         seen.more = [shown('td.more'), (document.getElementById('more').click(), shown('td.more'))];
         seen.colours = [colour(), (document.getElementById('theme').click(), colour())];
         press('/');
         seen.focus = document.activeElement.id;
         filter.value = 'SHELF';
         filter.dispatchEvent(new Event('input'));
         seen.filtered = listed();
         seen.found = document.getElementById('found').textContent;
         press('?', filter);
         seen.typed = document.getElementById('keys').open;
         press('Enter', filter);
         seen.hash = location.hash;
         press('Escape', filter);
         seen.all = listed();
         press('?', document.body);
         seen.open = document.getElementById('keys').open;
         document.querySelector('#keys button').click();
         seen.closed = document.getElementById('keys').open;
         return seen;",
    );
    let names: Vec<&str> = page.json["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["function"].as_str().unwrap())
        .collect();
    let shelves: Vec<&str> = names.iter().copied().filter(|name| name.contains("Shelf")).collect();
    assert!(!shelves.is_empty() && shelves.len() < names.len());
    let first = 1 + names.iter().position(|name| name.contains("Shelf")).unwrap();
    assert_eq!(seen["more"], serde_json::json!([false, true]));
    assert_ne!(seen["colours"][0], seen["colours"][1]);
    assert_eq!(seen["focus"], "filter");
    assert_eq!(seen["filtered"], serde_json::json!(shelves));
    assert_eq!(seen["found"], format!("{} of {}", shelves.len(), names.len()));
    assert_eq!(seen["typed"], false, "a question mark typed into the filter opens no dialog");
    assert_eq!(seen["hash"], format!("#f{first}"));
    assert_eq!(seen["all"], serde_json::json!(names));
    assert_eq!((&seen["open"], &seen["closed"]), (&Value::from(true), &Value::from(false)));
}

#[test]
fn html_excludes_the_other_output_formats() {
    for other in [&["--json"][..], &["--format", "csv"], &["--columns", "time"]] {
        let output = cli([&["lines", "no.alloc", "--html", "no.html"], other].concat());
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("cannot be used with") && stderr.contains(other[0]), "{stderr}");
    }
}
