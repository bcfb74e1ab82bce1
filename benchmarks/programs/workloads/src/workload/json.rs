//! A library at its usual work: `serde_json` reads a document into a `Value`, which is changed and
//! written again.

use std::fmt::Write;

use serde_json::Value;

use crate::numbers::Numbers;

const RECORDS: usize = 1000;

pub(super) fn run(rounds: usize) -> u64 {
    let text = document();
    (0..rounds).map(|_| round(&text)).sum()
}

fn round(text: &str) -> u64 {
    let mut tree: Value = serde_json::from_str(text).expect("our own document");
    for record in tree.as_array_mut().expect("a list of records") {
        let name = record["name"].clone();
        record["greeting"] = name;
    }
    serde_json::to_string(&tree).expect("a value can be written").len() as u64
}

fn document() -> String {
    let mut numbers = Numbers::new(1);
    let mut text = String::from("[");
    for id in 0..RECORDS {
        let (score, tag) = (numbers.below(1000), numbers.below(100));
        let (x, y) = (numbers.below(1000), numbers.below(1000));
        write!(
            text,
            r#"{{"id":{id},"name":"user-{id}","score":{score},"tags":["red","t{tag}","a longer tag"],"#
        )
        .and_then(|()| write!(text, r#""place":{{"x":{x}.5,"y":-{y},"of":null}},"ok":true}},"#))
        .expect("a String takes all that is written");
    }
    // Removes the comma after the last record.
    text.pop();
    text.push(']');
    text
}
