//! Rules about names and prose: comments and pages fit into 100 columns, and within a crate a
//! type's name means one type.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use tests::workspace;

use crate::rooms::is_for_tests;

const COLUMNS: usize = 100;

#[test]
fn comments_and_prose_fit_into_a_hundred_columns() {
    let mut wide = Vec::new();
    for path in files(workspace(), &["rs", "md"]) {
        let text = fs::read_to_string(&path).unwrap();
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        let mut in_code = false;
        for (number, line) in text.lines().enumerate() {
            let comment = comment_text(line);
            // A fence in a comment reaches no further than the comment.
            in_code &= is_page || comment.is_some();
            let text = if is_page { Some(line) } else { comment };
            in_code ^= text.is_some_and(|text| text.starts_with("```"));
            // Tables, code and lines that are one link cannot be wrapped.
            let is_prose = text.is_some_and(|text| {
                let is_indented_code = is_page && text.starts_with("    ");
                let is_link = is_page && text.contains("](");
                !in_code && !text.starts_with('|') && !is_indented_code && !is_link
            });
            if is_prose && line.chars().count() > COLUMNS {
                wide.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "beyond {COLUMNS} columns:\n{}", wide.join("\n"));
}

/// Pages, comments and messages may only name commands that there are.
#[test]
fn every_command_that_is_named_exists() {
    let help = String::from_utf8(tests::cli(["help"]).stdout).unwrap();
    let list = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut known: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(known.contains(&"leaks") && known.contains(&"help"), "{known:?}");
    // Processes that the program starts for itself, and prose: "the profiler-cli of that release".
    known.extend(["internal-record", "internal-report", "internal-compress", "of"]);
    let mut wrong = Vec::new();
    for path in files(workspace(), &["rs", "md"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (line, number) in text.lines().zip(1..) {
            for rest in line.split("profiler-cli ").skip(1) {
                let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
                let name = &rest[..end];
                if name.starts_with(|c: char| c.is_ascii_lowercase()) && !known.contains(&name) {
                    wrong.push(format!("{}:{number}: {name}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "no such command:\n{}", wrong.join("\n"));
}

/// Returns the text of a line that is a comment; `None` for any other line.
fn comment_text(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.starts_with("//").then(|| line.trim_start_matches(['/', '!']).trim_start())
}

#[test]
fn a_name_means_one_type_of_a_crate() {
    for crate_root in
        ["alloc-tracker/src", "alloc-tracker/dump/src", "alloc-tracker/macros/src", "profiler-cli/src"]
    {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in files(&workspace().join(crate_root), &["rs"]) {
            let tokens: TokenStream = fs::read_to_string(&path).unwrap().parse().unwrap();
            for name in types_in(tokens) {
                places.entry(name).or_default().push(path.display().to_string());
            }
        }
        let shared: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
        assert!(shared.is_empty(), "types of {crate_root} that share a name: {shared:#?}");
    }
}

/// The structs, enums, unions and traits that are declared here, those of unit tests and macros
/// left out.
fn types_in(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match (token, tokens.get(at + 1), tokens.get(at + 2)) {
            (TokenTree::Ident(word), Some(TokenTree::Ident(name)), _)
                if ["struct", "enum", "union", "trait"].iter().any(|kind| word == kind) =>
            {
                names.push(name.to_string());
            }
            (TokenTree::Group(group), _, _) if !is_body_of_tests(&tokens[..at]) => {
                names.extend(types_in(group.stream()));
            }
            _ => {}
        }
    }
    names
}

/// Whether a group behind these tokens is the body of a module with `#[cfg(test)]`.
fn is_body_of_tests(before: &[TokenTree]) -> bool {
    match before {
        [rest @ .., TokenTree::Ident(word), TokenTree::Ident(_)] if *word == "mod" => is_for_tests(rest),
        _ => false,
    }
}

fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|it| endings.iter().any(|ending| it == *ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn declarations_are_found_but_those_of_tests() {
    let code =
        "struct A; mod inner { pub enum B {} fn f() { trait C {} } } #[cfg(test)] mod tests { struct D; }";
    assert_eq!(types_in(code.parse().unwrap()), ["A", "B", "C"]);
}
