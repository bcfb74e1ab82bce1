//! Uses many functions of `serde_json`, for `tests/agreement.rs`.

use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

fn main() {
    let mut text = String::from("[");
    for number in 0..300 {
        text += &format!(r#"{{"id":{number},"list":[1.5,true,null,-7,"two\nlines \u00e9"],"none":{{}}}},"#);
    }
    text += "0]";
    let read: Value = serde_json::from_str(&text).expect("our own document");
    let again: Value = serde_json::from_reader(text.as_bytes()).expect("our own document");
    println!("{}", read == again);
    println!("{}", serde_json::to_string_pretty(&read).expect("it was read").len());
    println!("{}", serde_json::to_vec(&read).expect("it was read").len());
    for wrong in ["[1,", "{\"a\" 1}", "\"\\q\"", "[1e999]", "nul", "{\"a\":1,}", "\u{1}"] {
        println!("{}", serde_json::from_str::<Value>(wrong).expect_err("it is wrong"));
    }
    let mut changed = read;
    changed[3]["list"][4] = json!({ "new": [1, 2, "three"], "old": again[3]["list"] });
    let mut map = Map::new();
    for number in 0..50 {
        map.insert(format!("key {number}"), Value::from(vec![number; 3]));
    }
    map.retain(|key, _| key.ends_with('7'));
    map.entry("key 7").or_insert(Value::Null).take();
    changed[4] = Value::Object(map);
    println!("{} {}", changed.pointer("/3/list/4/new/2").is_some(), changed.to_string().len());
    let numbers: Vec<(u8, f64, Option<String>)> =
        serde_json::from_value(json!([[1, 2.5, null], [3, 4, "five"]])).expect("of this type");
    println!("{numbers:?} {:?}", serde_json::to_value(&numbers).map(|value| value.to_string()));
}
