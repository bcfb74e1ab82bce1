//! Annotated functions that call real libraries. The lines of each function add up, to the byte, to
//! what the program's `measure` counted around the calls.

use serde_json::Value;
use tests::{Run, number};

#[test]
fn the_lines_of_annotated_functions_add_up_to_what_was_measured() {
    let run = Run::traced("real_annotated", &["3"]);
    let lines = run.json("lines", &["--file", "real_annotated.rs"]);
    let tables = lines["functions"].as_array().unwrap();
    let stdout = String::from_utf8(run.output.stdout.clone()).unwrap();
    let mut measured: Vec<(&str, i64, i64)> = Vec::new();
    for line in stdout.lines().filter(|line| !line.starts_with('#')) {
        let [name, allocated, freed] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (allocated, freed): (i64, i64) = (allocated.parse().unwrap(), freed.parse().unwrap());
        match measured.iter_mut().find(|(known, ..)| *known == name) {
            Some(sums) => (sums.1, sums.2) = (sums.1 + allocated, sums.2 + freed),
            None => measured.push((name, allocated, freed)),
        }
    }
    assert_eq!(measured.len(), 5, "{stdout}");
    for (name, allocated, freed) in measured {
        let table = tables.iter().find(|table| {
            table["function"] == format!("real_annotated::{name}") && table["source"] == "annotation"
        });
        let table = table.unwrap_or_else(|| panic!("no table of {name} in {lines}"));
        let sum = |field: &str| -> i64 {
            let rows = table["lines"].as_array().unwrap().iter();
            rows.filter_map(|row: &Value| row[field].as_i64()).sum()
        };
        assert_eq!((sum("allocated"), sum("freed")), (allocated, freed), "{name}");
        assert_eq!(number(table, "increment"), allocated - freed, "{name}");
        // A function that does not change the heap would prove nothing.
        assert!(allocated > 0 && allocated != freed, "{name}");
    }
}
