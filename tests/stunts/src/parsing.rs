//! Real libraries, serde_json and regex, with the stacks that the optimizer makes of their code.

use std::hint::black_box;

use regex::Regex;
use serde_json::{Map, Value, json};

const ROUNDS: usize = 12;

pub(crate) fn stunt() {
    let word = Regex::new(r"([a-z]+)_(?<number>[0-9]+)|(x|yy|zzz){2,5}").unwrap();
    for round in 0..ROUNDS {
        let text = serde_json::to_string_pretty(&document(round, 6)).unwrap();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert!(serde_json::from_str::<Value>(&text[..text.len() - 2]).is_err());
        let found: Vec<String> = word
            .captures_iter(&text)
            .filter_map(|found| found.name("number"))
            .map(|n| n.as_str().into())
            .collect();
        assert!(!found.is_empty() && parsed.is_object());
        // Each round compiles another pattern.
        let own = Regex::new(&format!("(?:{})+|k_{round}", found[..3].join("|"))).unwrap();
        black_box(own.replace_all(&text, "$0$0").into_owned());
    }
}

/// Makes a JSON document of nested objects, three entries in each.
fn document(round: usize, depth: usize) -> Value {
    if depth == 0 {
        return json!([round, "yyzzzx", null, 1.5]);
    }
    let inner = (0..3).map(|n| (format!("key_{}", n * round + depth), document(round + n, depth - 1)));
    Value::Object(inner.collect::<Map<_, _>>())
}
