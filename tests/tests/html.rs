//! The page of `lines --html`, in a real browser: it shows the figures of the JSON, obeys no text, runs under its own
//! policy without a complaint, and can be used by the keyboard.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, cli, output_within};

/// The first browser of these that is there, and shows a page out of a folder for temporary files: some are kept from it.
fn browser() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&str>> = OnceLock::new();
    let shows = |name: &&&str| {
        let starts = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        starts && {
            let folder = tempfile::tempdir().unwrap();
            let page = folder.path().join("page.html");
            std::fs::write(&page, "<!DOCTYPE html><p>seen</p>").unwrap();
            String::from_utf8_lossy(&dump_of(name, &page).stdout).contains("<p>seen</p>")
        }
    };
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = *FOUND.get_or_init(|| names.iter().find(shows).copied());
    if found.is_none() {
        println!("skipped: chromium missing");
    }
    found
}

fn dump_of(browser: &str, page: &Path) -> Output {
    let profile = tempfile::tempdir().unwrap();
    output_within(
        Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // Containers have little of it.
            .arg("--disable-dev-shm-usage")
            .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", page.display())),
        Duration::from_secs(120),
    )
}

/// A page as a browser has it in the end, and what it complained about.
struct Loaded {
    dom: String,
    complaints: Vec<String>,
}

fn load(browser: &str, page: &Path) -> Loaded {
    let output = dump_of(browser, page);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaints = stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    let dom = String::from_utf8(output.stdout).unwrap();
    assert!(dom.contains("</html>"), "{browser} shows nothing: {stderr}");
    Loaded { dom, complaints }
}

/// A dump's page, and the JSON with the same tables.
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
        assert_eq!(stderr.lines().next(), path.to_str(), "it says where the page is");
        let html = std::fs::read_to_string(&path).unwrap();
        let printed = cli(["lines", dump.to_str().unwrap(), "--html", "-"]);
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), html);
        Page { folder, html, json: run.json("lines", &["--top", "50"]) }
    }

    fn load(&self, browser: &str) -> Loaded {
        load(browser, &self.folder.path().join("page.html"))
    }

    /// What a script of the test's own returns in the page. Only this copy has no policy.
    fn ask(&self, browser: &str, script: &str) -> Value {
        let start = self.html.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
        let end = start + self.html[start..].find('>').unwrap() + 1;
        let asking = format!(
            "<script>const answer = (() => {{ {script} }})();\n\
             const box = document.createElement('pre'); box.id = 'answer';\n\
             box.textContent = JSON.stringify(answer); document.body.replaceChildren(box);</script></body>"
        );
        let copy = [&self.html[..start], &self.html[end..]].concat().replace("</body>", &asking);
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

/// Every table as the browser has it: its name, and id and cells by title for every row.
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

/// How a figure is written.
type Shown = fn(i64) -> String;

/// Titles of the page, and the fields of the JSON.
const FIELDS: [(&str, &str, Shown); 14] = [
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

fn signed(number: i64, shown: Shown) -> String {
    let sign = ["-", "", "+"][(number.signum() + 1) as usize];
    format!("{sign}{}", shown(number.abs()))
}

/// In the largest unit of which there is one.
fn size(bytes: i64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, bits)| bytes >> bits > 0) {
        Some((unit, bits)) => format!("{:.1} {unit}", bytes as f64 / 2f64.powi(*bits)),
        None => format!("{bytes} B"),
    }
}

fn grouped(number: i64) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1000), number % 1000)
    }
}

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
            for (title, field, shown) in FIELDS {
                let expected = line[field].as_i64().map(shown).unwrap_or_default();
                let nobodys = lines.iter().all(|line| line[field].is_null());
                assert_eq!(cell(title), (!nobodys).then_some(expected.as_str()), "{title} of {line}");
            }
            let share =
                line["increment"].as_i64().unwrap_or(0).abs() as f64 / largest.unwrap_or(0).max(1) as f64;
            assert_eq!(row["steps"].as_f64(), Some((share * 20.0).ceil()), "{line}");
        }
    }
}

#[test]
fn a_browser_shows_the_figures_of_the_json() {
    let Some(browser) = browser() else { return };
    for program in ["announced", "parser_temporaries"] {
        let page = Page::of(program);
        let loaded = page.load(browser);
        assert_eq!(loaded.complaints, Vec::<String>::new());
        assert!(loaded.dom.contains("data-ready=\"yes\""), "the page's policy lets its script run");
        compare(&page.ask(browser, TABLES), &page.json);
    }
}

#[test]
fn a_browser_obeys_no_source_text() {
    let Some(browser) = browser() else { return };
    let page = Page::of("hostile");
    assert!(page.json.to_string().contains("<img src=x"), "the text is in the tables");
    let loaded = page.load(browser);
    assert_eq!(loaded.complaints, Vec::<String>::new());
    assert!(loaded.dom.contains("<title>Memory by line: hostile</title>"));
    assert!(loaded.dom.contains("data-ready=\"yes\""));
    compare(&page.ask(browser, TABLES), &page.json);
    let found = page.ask(
        browser,
        "const count = (what) => document.querySelectorAll(what).length;
         return [document.title, count('img'), count('script'), count('plaintext'), count('td *'), count('body > main')];",
    );
    // The scripts are the page's and the test's own.
    assert_eq!(found, serde_json::json!(["Memory by line: hostile", 0, 2, 0, 0, 1]));
}

#[test]
fn keys_lead_from_line_to_line_and_function_to_function() {
    let Some(browser) = browser() else { return };
    let page = Page::of("announced");
    let went = page.ask(
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
    assert!(lines[all.len()..].iter().all(|place| place == last), "behind the last there is none");
    assert_eq!(went["back"], all[all.len() - 2].as_str());
    let headings: Vec<String> = (1..=functions.len()).map(|number| format!("#f{number}")).collect();
    assert_eq!(texts(&went["functions"]), headings);
    assert_eq!(went["before"], headings[headings.len() - 2].as_str());
    let behind = changes(&functions[functions.len() - 2], functions.len() - 1);
    let behind = behind.into_iter().chain(changes(&functions[functions.len() - 1], functions.len())).next();
    assert_eq!(went["first_line"].as_str(), behind.as_deref());
    assert_eq!(went["with_control"], went["first_line"], "keys of the browser's own are left to it");
}

#[test]
fn filter_dialog_columns_and_theme_work() {
    let Some(browser) = browser() else { return };
    let page = Page::of("announced");
    let seen = page.ask(
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
    assert_eq!(seen["typed"], false, "who types a question mark means one");
    assert_eq!(seen["hash"], format!("#f{first}"));
    assert_eq!(seen["all"], serde_json::json!(names));
    assert_eq!((&seen["open"], &seen["closed"]), (&Value::from(true), &Value::from(false)));
}

#[test]
fn one_shape_is_written_at_a_time() {
    for other in [&["--json"][..], &["--format", "csv"], &["--columns", "time"]] {
        let output = cli([&["lines", "no.alloc", "--html", "no.html"], other].concat());
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("cannot be used with") && said.contains(other[0]), "{said}");
    }
}
