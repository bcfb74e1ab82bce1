//! Typical work of programs, for programs that are compared with each other.

use serde_json::{Value, json};

/// Makes a document, writes it, reads it and changes it. Returns how many bytes it has in the end.
pub fn documents() -> usize {
    let people: Vec<Value> = (0..400)
        .map(|number| {
            json!({
                "id": number,
                "name": format!("person {number}"),
                "tags": ["one", "two", number.to_string()],
                "place": { "x": f64::from(number) / 7.0, "y": -1.5, "known": number % 2 == 0 },
            })
        })
        .collect();
    let mut text = serde_json::to_string(&people).expect("a document can be written");
    for _ in 0..5 {
        let mut parsed: Vec<Value> = serde_json::from_str(&text).expect("a document can be read");
        parsed.iter_mut().for_each(|person| person["name"] = json!("somebody"));
        parsed.rotate_left(3);
        text = serde_json::to_string_pretty(&parsed).expect("a document can be written");
    }
    text.len()
}
