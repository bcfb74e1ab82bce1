//! The log is read back as JSON: it must have every field that GitHub requires.

use serde_json::{Value, json};

use super::*;
use crate::render::review::made::{HOSTILE, finding, hostile, written};

fn run(review: &Review) -> Value {
    let mut log: Value = serde_json::from_str(&written(write, review)).unwrap();
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().ends_with("/sarif-schema-2.1.0.json"));
    log["runs"][0].take()
}

#[test]
fn every_rule_is_described() {
    let run = run(&Review::default());
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), Rule::ALL.len());
    for (described, rule) in rules.iter().zip(Rule::ALL) {
        assert_eq!(described["id"], rule.id());
        for text in ["shortDescription", "fullDescription", "help"] {
            assert_eq!(described[text]["text"], rule.description());
        }
        assert!(
            ["error", "warning", "note"]
                .contains(&described["defaultConfiguration"]["level"].as_str().unwrap())
        );
        assert!(
            described["properties"]["precision"].is_string()
                && described["properties"]["problem.severity"].is_string()
        );
    }
    assert_eq!(run["results"], json!([]));
}

#[test]
fn a_result_has_a_place_a_fingerprint_and_its_stack() {
    let run = run(&hostile());
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    let name = Safe(HOSTILE).to_string();
    let region = |line: u32| json!({"startLine": line, "startColumn": 1, "endLine": line, "endColumn": 2});
    let place = |uri: &str, line| json!({"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": region(line)});
    assert_eq!(results[0]["ruleId"], "heap/grown");
    assert_eq!(
        run["tool"]["driver"]["rules"][results[0]["ruleIndex"].as_u64().unwrap() as usize]["id"],
        "heap/grown"
    );
    assert_eq!(results[0]["level"], "error");
    assert_eq!(results[0]["message"]["text"], format!("{name}: Peak 1.0 KiB -> 2.0 KiB"));
    assert_eq!(results[0]["locations"], json!([{"physicalLocation": place("src/lib.rs", 10)}]));
    // From the caller to the callee, without the standard library.
    let flow = &results[0]["codeFlows"][0]["threadFlows"][0]["locations"];
    assert_eq!(
        *flow,
        json!([
            {"location": {"physicalLocation": place("src/main.rs", 3), "message": {"text": "main"}}},
            {"location": {"physicalLocation": place("src/lib.rs", 10), "message": {"text": name}}},
        ])
    );
    let frames = results[0]["stacks"][0]["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[2], json!({"location": {"message": {"text": "start"}}}));
    let uri = results[1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("a%7Cb%5C%7C%60c%60%60d%60%3CT%3E"), "{uri}");
    assert!(uri.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte)), "{uri}");
    let hash = |at: usize| results[at]["partialFingerprints"]["primaryLocationLineHash"].as_str().unwrap();
    assert!(hash(0) != hash(1) && hash(1) != hash(2) && hash(0) != hash(2));
}

#[test]
fn a_finding_without_a_place_is_a_notification() {
    let nowhere = Finding { file: None, line: None, stack: Vec::new(), ..finding(Severity::Error, "f", 1) };
    let run = run(&Review { findings: vec![nowhere], ..Review::default() });
    assert_eq!(run["results"], json!([]));
    let notifications = &run["invocations"][0]["toolExecutionNotifications"];
    assert_eq!(
        *notifications,
        json!([{"level": "error", "message": {"text": "f: Peak 1.0 KiB -> 2.0 KiB"}, "descriptor": {"id": "heap/grown"}}])
    );
}

#[test]
fn the_worst_results_are_kept_and_the_others_counted() {
    let mut findings = vec![finding(Severity::Note, "f", 1); 5001];
    findings.push(finding(Severity::Error, "g", 2));
    let run = run(&Review { findings, ..Review::default() });
    let results = run["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[0]["level"]), (5000, &json!("error")));
    let text = &run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"];
    assert_eq!(*text, "2 more findings left out");
}

#[test]
fn reviews_with_different_titles_are_different_analyses() {
    assert_eq!(category("Heap of `parse`, 2 runs!"), "heap/heap-of-parse-2-runs/");
    assert_eq!(category("-"), "heap/review/");
}
