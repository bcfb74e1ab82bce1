use std::collections::BTreeSet;

use super::*;
use crate::render::html::STYLE;

/// Text that a browser would run if it were markup, with the characters that end an attribute.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>&\"'";
const HARMLESS: &str = "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;";

fn row(line: u32, increment: Option<i64>) -> LineRow {
    LineRow {
        line,
        mem_usage: increment.map(|_| 2048),
        increment,
        occurrences: increment.map(|_| 1234),
        allocated: increment.map(|_| 0),
        freed: increment.map(|_| 0),
        blocks: increment.map(i64::signum),
        ..LineRow::default()
    }
}

fn function(name: &str, lines: Vec<LineRow>) -> FunctionLines {
    FunctionLines {
        function: name.to_owned(),
        file: None,
        own: true,
        start_line: 1,
        end_line: 9,
        source: "stacks",
        note: None,
        increment: lines.iter().filter_map(|row| row.increment).sum(),
        allocated: 0,
        freed: 0,
        lines,
        callers: None,
    }
}

fn page(functions: Vec<FunctionLines>) -> String {
    let lines = Lines {
        schema: "",
        complete: true,
        interval: None,
        filtered: false,
        omitted: 0,
        source_root: None,
        functions,
    };
    let mut out = Vec::new();
    write(&mut out, &lines, HOSTILE).unwrap();
    String::from_utf8(out).unwrap()
}

/// Returns the table row of a line of the first function.
fn row_of(page: &str, line: u32) -> &str {
    let start = page.find(&format!("<tr id=\"f1-L{line}\"")).unwrap();
    page[start..].lines().next().unwrap()
}

#[test]
fn no_name_and_no_text_is_markup() {
    let mut hostile = function(HOSTILE, vec![LineRow { text: Some(HOSTILE.to_owned()), ..row(1, Some(1)) }]);
    hostile.file = Some(HOSTILE.to_owned());
    hostile.note = Some(HOSTILE.to_owned());
    let page = page(vec![hostile]);
    assert!(!page.contains("<img"), "{page}");
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script").count(), 1);
    // Title and header have the command. List, heading, file, note and line have the other five.
    assert_eq!(page.matches(HARMLESS).count(), 7);
}

#[test]
fn a_path_may_break_behind_each_part() {
    let name = format!("a::<b as c::{HOSTILE}>::f");
    let page = page(vec![function(&name, Vec::new())]);
    let shown = format!("a::<wbr>&lt;b as c::<wbr>{HARMLESS}&gt;::<wbr><b>f</b>");
    assert_eq!(page.matches(&shown).count(), 2, "in the list and above the table: {page}");
}

#[test]
fn control_and_direction_characters_are_replaced_and_tabs_stay() {
    let text = "\ta\u{202e}b\u{1b}[2J\u{2066}\0";
    let page = page(vec![function("f", vec![LineRow { text: Some(text.to_owned()), ..row(1, None) }])]);
    assert!(row_of(&page, 1).ends_with(">\ta\u{fffd}b\u{fffd}[2J\u{fffd}\u{fffd}</td></tr>"));
}

#[test]
fn heat_is_the_share_of_the_largest_and_shows_its_sign() {
    let increments = [400, -400, 100, -101, 1, 0];
    let rows = increments.iter().zip(1..).map(|(increment, line)| row(line, Some(*increment))).collect();
    let page = page(vec![function("f", rows)]);
    for (increment, line) in increments.into_iter().zip(1..) {
        // A twentieth of the largest increment is a step, rounded up.
        let steps = (increment as f64).abs() / 400.0 * 20.0;
        let (class, shown) = match increment {
            0 => (String::new(), "0 B".to_owned()),
            1.. => (format!(" class=\"growth h{}\"", steps.ceil()), format!("+{increment} B")),
            _ => (format!(" class=\"release h{}\"", steps.ceil()), format!("{increment} B")),
        };
        let html = row_of(&page, line);
        assert!(html.starts_with(&format!("<tr id=\"f1-L{line}\"{class}>")), "{html}");
        assert!(html.contains(&format!("<td class=\"heat\">{shown}</td>")), "{html}");
    }
}

#[test]
fn heat_stays_within_its_steps() {
    assert_eq!(heat(i64::MIN, i64::MIN.unsigned_abs()), HEAT_STEPS);
    assert_eq!((heat(0, 0), heat(0, u64::MAX), heat(1, u64::MAX)), (0, 0, 1));
    for steps in 1..=HEAT_STEPS {
        let percent = steps * 100 / HEAT_STEPS;
        assert!(STYLE.contains(&format!(".h{steps} {{ --heat: {percent}%; }}")), "{steps}");
    }
    assert!(!STYLE.contains(&format!(".h{} ", HEAT_STEPS + 1)));
}

#[test]
fn a_figure_that_no_line_has_makes_no_column() {
    let some = function("f", vec![row(1, Some(2048)), row(2, None)]);
    let page = page(vec![some.clone()]);
    let titles = |page: &str| {
        let head = page.split_once("<thead>").unwrap().1.split_once("</thead>").unwrap().0;
        head.split("<th ").skip(1).map(|th| between(th, ">", "<").to_owned()).collect::<Vec<_>>()
    };
    let usual = ["Line #", "Mem usage", "Increment", "Occurrences", "Allocated", "Freed", "Blocks"];
    assert_eq!(titles(&page), [&usual[..], &["Line contents"]].concat());
    let cells = |html: &str| html.split("<td").skip(1).map(|td| between(td, ">", "<").to_owned()).collect();
    let with: Vec<String> = cells(row_of(&page, 1));
    assert_eq!(with, ["2.0 KiB", "+2.0 KiB", "1,234", "0 B", "0 B", "+1", ""]);
    assert!(row_of(&page, 1).contains("title=\"+2,048 B\""));
    assert_eq!(cells(row_of(&page, 2)), vec![String::new(); 7]);
    let timed = LineRow { time_ns: Some(1_500_000), max: Some(u64::MAX), ..row(3, Some(-1)) };
    let page = self::page(vec![FunctionLines { lines: vec![timed], ..some }]);
    assert_eq!(titles(&page)[7..], ["Max usage", "Time", "Line contents"]);
    assert_eq!(cells(row_of(&page, 3))[7..], ["1.500 ms", ""]);
}

#[test]
fn the_page_explains_every_column() {
    let page = page(Vec::new());
    for column in COLUMNS {
        let explained = format!("<dt>{}</dt><dd>{}</dd>", column.title, column.help);
        assert!(page.contains(&explained), "{}", column.name);
    }
}

#[test]
fn every_id_is_one_elements_and_every_link_leads_somewhere() {
    let rows = || (1..=30).map(|line| row(line, (line % 3 == 0).then_some(-5))).collect();
    let page = page(vec![function("a::f", rows()), function("a::f", rows()), function("g", rows())]);
    let values = |attribute: &str| -> Vec<String> {
        let start = format!(" {attribute}=\"");
        page.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    let ids = values("id");
    let distinct: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(ids.len(), distinct.len());
    assert!(distinct.contains("f3-L30"));
    for link in values("href") {
        assert!(link.strip_prefix('#').is_some_and(|id| distinct.contains(id)), "{link}");
    }
    for label in [values("for"), values("aria-labelledby")].concat() {
        assert!(distinct.contains(label.as_str()), "{label}");
    }
}

#[test]
fn the_page_says_what_it_lacks() {
    let empty = page(Vec::new());
    assert!(empty.contains("No function of the program's own has heap events."));
    let lines = Lines {
        schema: "",
        complete: false,
        interval: None,
        filtered: false,
        omitted: 7,
        source_root: None,
        functions: vec![function("f", Vec::new())],
    };
    let mut out = Vec::new();
    write(&mut out, &lines, "").unwrap();
    let page = String::from_utf8(out).unwrap();
    assert!(page.contains("The recording is not complete") && page.contains("7 more functions"));
    assert!(page.contains("--top 8"));
    assert!(!empty.contains("not complete") && !empty.contains("more functions"));
}

#[test]
fn both_kinds_of_tables_say_what_they_count() {
    let stacks = function("f", Vec::new());
    let annotated = FunctionLines { source: "annotation", ..stacks.clone() };
    let (stacks, annotated) = (page(vec![stacks]), page(vec![annotated]));
    assert!(stacks.contains("Occurrences counts heap events, not executions"));
    assert!(annotated.contains("how often a line was reached") && !annotated.contains("not its executions"));
}

#[test]
fn the_page_asks_the_network_for_nothing() {
    let page = page(vec![function("f", vec![row(1, Some(1))])]).replace(HARMLESS, "");
    for request in ["http://", "https://", "//cdn", "url(", "@import", "fetch(", " src="] {
        assert!(!page.contains(request), "{request}");
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).unwrap().1.split_once(end).unwrap().0
}
