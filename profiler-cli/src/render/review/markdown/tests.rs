//! Pages are read back by another parser of Markdown: what it shows must be what the review says.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::*;
use crate::render::review::made::{HOSTILE, figure, finding, hostile, place};
use crate::units::Safe;

fn page(review: &Review, limit: MarkdownLimit) -> String {
    let mut out = Vec::new();
    write(&mut out, review, &place(), limit).unwrap();
    String::from_utf8(out).unwrap()
}

/// What a reader of a page sees.
#[derive(Default)]
struct ShownPage {
    /// The cells of all tables, by row.
    rows: Vec<Vec<String>>,
    /// Addresses of links.
    links: Vec<String>,
    /// The text of headings and paragraphs.
    prose: Vec<String>,
    /// HTML, and what is inside of it.
    html: String,
    /// All text but code.
    uncoded: String,
}

fn read(page: &str) -> ShownPage {
    let mut seen = ShownPage::default();
    let mut text = String::new();
    let mut in_code = false;
    for event in Parser::new_ext(page, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Start(Tag::TableRow | Tag::TableHead) => seen.rows.push(Vec::new()),
            Event::Start(Tag::TableCell | Tag::Paragraph | Tag::Heading { .. } | Tag::Item) => text.clear(),
            Event::End(TagEnd::TableCell) => seen.rows.last_mut().unwrap().push(std::mem::take(&mut text)),
            Event::End(TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::Item) => {
                seen.prose.push(std::mem::take(&mut text));
            }
            Event::Start(Tag::Link { dest_url, .. }) => seen.links.push(dest_url.into_string()),
            Event::Start(Tag::Emphasis | Tag::Strikethrough | Tag::Image { .. } | Tag::CodeBlock(_)) => {
                panic!("a name has become markup: {page}")
            }
            Event::Code(part) => text.push_str(&part),
            Event::Text(part) => {
                text.push_str(&part);
                if !in_code {
                    seen.uncoded.push_str(&part);
                }
            }
            Event::InlineHtml(tag) if tag.contains("code>") => in_code = &*tag == "<code>",
            Event::Html(html) | Event::InlineHtml(html) => seen.html.push_str(&html),
            _ => {}
        }
    }
    seen
}

/// Returns prose as it is shown: mentions and numbers are broken by a space without width.
fn shown(text: &str) -> String {
    Safe(text).to_string().replace('@', "@\u{200b}").replace('#', "#\u{200b}")
}

#[test]
fn tables_survive_hostile_names() {
    let review = hostile();
    let page = page(&review, MarkdownLimit::COMMENT);
    assert!(page.starts_with("<!-- alloc-tracker -->\n### "), "{page}");
    let seen = read(&page);
    let name = Safe(HOSTILE).to_string();
    let file = Safe(&HOSTILE.replace('/', "-")).to_string() + ":20";
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let change = "+1.0 KiB (+100.0 %)";
    let message = "Peak 1.0 KiB -> 2.0 KiB";
    let expected = [
        vec!["Total".to_owned(), "Base".to_owned(), "Now".to_owned(), "Change".to_owned()],
        ["Peak", "1.0 KiB", "1.5 KiB", "+50.0 %"].map(str::to_owned).to_vec(),
        ["Blocks", "0", "1,000 (900 to 1,100)", "new"].map(str::to_owned).to_vec(),
        row(["", "Function", "Where", "Change", "Finding"]),
        row(["error", &name, "src/lib.rs:10", change, message]),
        row(["warning", &name, &file, change, &shown(HOSTILE)]),
        row(["note", &name, "src/lib.rs:30", change, message]),
    ];
    assert_eq!(seen.rows[..expected.len()], expected);
    // The folded part has a table of figures for each of the three findings.
    assert_eq!(seen.rows.len(), expected.len() + 3 * 2);
    assert!(seen.prose.contains(&shown(HOSTILE)), "{:?}", seen.prose);
    assert!(seen.prose.contains(&format!("Failed: {}", shown(HOSTILE))), "{:?}", seen.prose);
    assert_eq!(seen.links[0], "https://example.org/o/r/blob/c0ffee/src/lib.rs#L10");
    assert_eq!(seen.links.len(), 3 + 3, "each place is linked in its row and in its details");
    assert_eq!((page.matches("<details>").count(), page.matches("</details>").count()), (1, 1));
    assert_eq!((page.matches("<pre>").count(), page.matches("</pre>").count()), (3, 3));
    let frame = format!(
        "{}  src/lib.rs:10\nmain  src/main.rs:3\nstart  /rustc/1/library/std/src/rt.rs:4\n",
        Html(HOSTILE)
    );
    assert!(seen.html.contains(&frame), "{frame}\n{}", seen.html);
}

#[test]
fn nobody_is_mentioned_outside_of_code() {
    let seen = read(&page(&hostile(), MarkdownLimit::COMMENT));
    // The title, the verdict and a note; the message of a finding, and again in its details.
    assert_eq!(seen.uncoded.matches("@\u{200b}who").count(), 5);
    assert!(!seen.uncoded.contains("@who"), "{}", seen.uncoded);
}

#[test]
fn the_first_ten_findings_are_in_sight_and_the_others_are_folded() {
    let findings = (1..=12).map(|line| finding(Severity::Warning, "app::f", line)).collect();
    let notes = (1..=4).map(|number| format!("Note {number}.")).collect();
    let page = page(&Review { findings, notes, ..Review::default() }, MarkdownLimit::COMMENT);
    let (screen, folded) = page.split_once("<details>").unwrap();
    assert_eq!(screen.matches("| warning | `app::f` |").count(), 10);
    assert!(screen.contains("\n- Note 3.\n") && !screen.contains("Note 4"), "{screen}");
    assert!(folded.contains("<summary>2 more findings</summary>\n\n| | Function |"), "{folded}");
    assert!(folded.contains("<summary>1 more note</summary>\n\n- Note 4.\n\n</details>"), "{folded}");
    let rows = read(&page).rows;
    assert_eq!(rows.iter().filter(|row| row[0] == "warning").count(), 12);
}

#[test]
fn a_page_without_a_base_has_no_empty_columns() {
    let totals = vec![ReviewTotal { base: None, ..figure(0, 1536) }];
    let review = Review {
        title: "Budgets".to_owned(),
        verdict: "OK.".to_owned(),
        passed: Some(true),
        totals,
        ..Review::default()
    };
    let expected = "<!-- alloc-tracker -->\n### Budgets\n\n<strong>Passed: OK.</strong>\n\n| Total | Now |\n\
                    | :--- | ---: |\n| Peak | 1.5 KiB |\n";
    assert_eq!(page(&review, MarkdownLimit::COMMENT), expected);
}

#[test]
fn no_page_is_larger_than_its_limit_and_every_one_says_what_it_lacks() {
    let findings: Vec<Finding> =
        (1..=3000).map(|line| finding(Severity::Warning, "app::größe", line)).collect();
    let review = Review { title: "T".to_owned(), verdict: "V.".to_owned(), findings, ..Review::default() };
    for (limit, size) in [
        (MarkdownLimit::COMMENT, 65_536),
        (MarkdownLimit::JOB_SUMMARY, 1_000_000),
        (MarkdownLimit::Characters(5000), 5000),
    ] {
        let page = page(&review, limit);
        let used = if limit == MarkdownLimit::JOB_SUMMARY { page.len() } else { page.chars().count() };
        // A further row would not have fitted: no finding needs more than 600 characters.
        assert!(used <= size && used + 600 > size, "{limit:?}: {used}");
        let seen = read(&page);
        let table_rows = seen.rows.iter().filter(|row| row.len() == 5 && row[0] == "warning").count();
        let details = seen.rows.iter().filter(|row| row[0] == "Figure").count();
        for (shown, all) in [(table_rows, 3000), (details, 3000)] {
            // A section without any room is not begun.
            if shown > 0 && shown < all {
                let sentence = format!("{} left out: ", more((all - shown) as u64, "finding"));
                assert!(page.contains(&sentence), "{limit:?} lacks: {sentence}");
            }
        }
        assert_eq!(page.matches("<details>").count(), page.matches("</details>").count(), "{limit:?}");
    }
}

#[test]
fn hostile_pages_are_whole_at_every_limit() {
    let review = hostile();
    let whole = page(&review, MarkdownLimit::Bytes(usize::MAX));
    for most in (0..whole.len() + 100).step_by(7) {
        let page = page(&review, MarkdownLimit::Bytes(most));
        assert!(page.len() <= most && (page.is_empty() || page.starts_with(MARKER)));
        for (open, close) in [("<details>", "</details>"), ("<pre>", "</pre>"), ("<strong>", "</strong>")] {
            assert_eq!(page.matches(open).count(), page.matches(close).count(), "{most}: {page}");
        }
        let rows = read(&page).rows;
        assert!(rows.iter().all(|row| row.len() == 4 || row.len() == 5), "{most}: {rows:?}");
    }
}

#[test]
fn prose_begins_no_list_and_no_link() {
    for text in
        ["- a", "+ a", "1. a", "12) a", "# a", "> a", "=== a", "* a", "www.a.org", "https://a.org", ":x: a"]
    {
        let seen = read(&format!("{}\n", prose(text)));
        assert_eq!(seen.prose, [shown(text)], "{text}");
    }
    assert_eq!(prose("1.5 MiB more: a_b"), "1.5 MiB more: a&#95;b");
}

#[test]
fn code_shows_every_name() {
    for name in
        ["", " ", "`", "``", "`a", "a`", "a|b", "a\\|b", "a\\", "<impl A for B<T>>::f", "{closure#0}", " a "]
    {
        let row = format!("| x |\n| --- |\n| {} |\n", code(name));
        assert_eq!(read(&row).rows[1], [name.to_owned()], "{name:?}");
    }
    assert_eq!(code("<A as B>::f"), "`<A as B>::f`");
}
