//! The rooms of a crate: the files and folders directly below its `src/`, and which of them import
//! which.
//!
//! In: a `src/` folder. Out: for each room the rooms that its code names in `crate::…` and
//! `super::…` paths, with a file that does. Unit tests (`#[cfg(test)] mod`, here or in a file of
//! its own) are left out: a test may reach wherever it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// For each room the rooms that it imports, each with one file that shows it.
pub(crate) type Imports = BTreeMap<String, BTreeMap<String, String>>;

/// Reads the imports between the rooms below `src`. `lib.rs` and `main.rs` are the door of the
/// house, not a room.
pub(crate) fn imports(src: &Path) -> Imports {
    let mut imports = Imports::new();
    read_folder(src, &mut Vec::new(), &mut imports);
    imports
}

fn read_folder(folder: &Path, modules: &mut Vec<String>, imports: &mut Imports) {
    let tests = test_modules(folder);
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if tests.contains(&name) {
            continue;
        }
        if path.is_dir() {
            modules.push(name);
            read_folder(&path, modules, imports);
            modules.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let of_folder = name == "mod";
            if modules.is_empty() && (name == "lib" || name == "main") {
                continue;
            }
            let mut module = modules.clone();
            if !of_folder {
                module.push(name);
            }
            let tokens: TokenStream = fs::read_to_string(&path).unwrap().parse().unwrap();
            let room = module[0].clone();
            let into = imports.entry(room.clone()).or_default();
            for import in paths_in(tokens, &module) {
                if import != room {
                    into.entry(import).or_insert_with(|| path.display().to_string());
                }
            }
        }
    }
}

/// The modules in files of this folder that their parent declares for tests only.
fn test_modules(folder: &Path) -> BTreeSet<String> {
    let parents = [folder.with_extension("rs"), folder.join("mod.rs")];
    let mut found = BTreeSet::new();
    for text in parents.iter().filter_map(|path| fs::read_to_string(path).ok()) {
        let tokens: Vec<TokenTree> = text.parse::<TokenStream>().unwrap().into_iter().collect();
        for at in 0..tokens.len() {
            if let [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end), ..] = &tokens[at..]
                && *word == "mod"
                && end.as_char() == ';'
                && is_for_tests(&tokens[..at])
            {
                found.insert(name.to_string());
            }
        }
    }
    found
}

/// The first segments of all paths from the crate's root that code in this module names.
fn paths_in(tokens: TokenStream, module: &[String]) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some((name, body)) = inline_module(&tokens[at..]) {
            if !is_for_tests(&tokens[..at]) {
                let inner: Vec<String> = module.iter().cloned().chain([name]).collect();
                found.extend(paths_in(body, &inner));
            }
            at += 3;
            continue;
        }
        match &tokens[at] {
            // `$crate::…` is code of the macro's user, who has the public items of the crate.
            TokenTree::Punct(punct) if punct.as_char() == '$' => at += 2,
            TokenTree::Ident(word) if *word == "crate" && is_path_separator(&tokens[at + 1..]) => {
                at += 3;
                found.extend(first_segments(tokens.get(at)));
            }
            TokenTree::Ident(word) if *word == "super" && is_path_separator(&tokens[at + 1..]) => {
                let mut levels = 0;
                while matches!(&tokens[at], TokenTree::Ident(word) if *word == "super") {
                    levels += 1;
                    at += 3;
                }
                match module[..module.len().saturating_sub(levels)].first() {
                    Some(room) => found.push(room.clone()),
                    None => found.extend(first_segments(tokens.get(at))),
                }
            }
            TokenTree::Group(group) => {
                found.extend(paths_in(group.stream(), module));
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

/// `mod NAME { BODY }` at the start of these tokens.
fn inline_module(tokens: &[TokenTree]) -> Option<(String, TokenStream)> {
    match tokens {
        [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..]
            if *word == "mod" && body.delimiter() == Delimiter::Brace =>
        {
            Some((name.to_string(), body.stream()))
        }
        _ => None,
    }
}

/// Whether an item behind these tokens has the attribute `#[cfg(test)]` directly before it.
pub(crate) fn is_for_tests(before: &[TokenTree]) -> bool {
    matches!(before.last(), Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    let colon =
        |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(tokens.first()) && colon(tokens.get(1))
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c}`.
fn first_segments(token: Option<&TokenTree>) -> Vec<String> {
    match token {
        Some(TokenTree::Ident(name)) => vec![name.to_string()],
        Some(TokenTree::Group(group)) => {
            let mut begins = true;
            let mut names = Vec::new();
            for token in group.stream() {
                match token {
                    TokenTree::Ident(name) if begins => names.push(name.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == ',' => {
                        begins = true;
                        continue;
                    }
                    _ => {}
                }
                begins = false;
            }
            names
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(code: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|name| name.to_string()).collect();
        paths_in(code.parse().unwrap(), &module)
    }

    #[test]
    fn paths_are_seen_wherever_they_stand() {
        assert_eq!(rooms("use crate::base::{self, sys};", &["tree"]), ["base"]);
        assert_eq!(rooms("use crate::{base::sys, tree, hook as h};", &["api"]), ["base", "tree", "hook"]);
        assert_eq!(
            rooms("fn f() -> crate::tree::Id { g(|| crate::base::now()) }", &["api"]),
            ["tree", "base"]
        );
        assert_eq!(rooms("pub(crate) struct S; // crate::hook\n", &["api"]), [""; 0]);
    }

    #[test]
    fn super_is_followed_to_the_room() {
        assert_eq!(rooms("use super::x;", &["recorder", "drain"]), ["recorder"]);
        assert_eq!(rooms("use super::super::tree::Id;", &["recorder", "drain"]), ["tree"]);
        assert_eq!(rooms("mod inner { use super::super::base; }", &["hook"]), ["base"]);
    }

    #[test]
    fn tests_may_reach_wherever_they_like() {
        assert_eq!(rooms("#[cfg(test)] mod tests { use crate::api::x; }", &["base"]), [""; 0]);
        assert_eq!(rooms("#[cfg(unix)] mod inner { use crate::api::x; }", &["base"]), ["api"]);
    }
}
