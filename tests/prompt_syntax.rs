//! AUTOMATIC1111's prompt language: tables that its own parser gave (tests/reference/grammar.py).

use browser_diffusion::prompt::grammar::{attention, composition, extra_networks, schedule};
use serde_json::{Value, json};

/// A1111's documented examples, edges, 400 generated prompts: networks taken out, parts and weights of `AND`, the
/// steps at which the text changes, the pieces of each text and their weights, equal to the bit.
#[test]
fn tables_are_those_of_a1111() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("reference/data/grammar.json")).unwrap();
    assert!(cases.len() > 400);
    let mut wrong = Vec::new();
    for case in &cases {
        let prompt = case["prompt"].as_str().unwrap();
        let steps = case["steps"].as_u64().unwrap() as usize;
        let (text, networks) = extra_networks(prompt);
        let parts: Vec<Value> = composition(&text)
            .into_iter()
            .map(|(text, weight)| {
                let schedule: Vec<Value> = schedule(&text, steps)
                    .into_iter()
                    .map(|(end, text)| {
                        let pieces: Vec<_> =
                            attention(&text).into_iter().map(|(t, w)| json!([t, format!("{w:?}")])).collect();
                        json!([end, text, pieces])
                    })
                    .collect();
                json!({"weight": format!("{weight:?}"), "schedule": schedule})
            })
            .collect();
        let networks: Vec<Value> = networks.iter().map(|n| json!([n.kind, n.arguments])).collect();
        let want = case.to_string();
        let ours =
            json!({"prompt": prompt, "steps": steps, "networks": networks, "parts": parts}).to_string();
        if ours != want {
            wrong.push(format!("{want}\n  ours: {ours}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
}

/// Brackets without end neither overflow the stack nor take long.
#[test]
fn deep_nesting_is_text() {
    for deep in
        ["[".repeat(20_000), "(a:".repeat(5_000), format!("{}a{}", "[".repeat(3_000), ":1]".repeat(3_000))]
    {
        assert!(schedule(&deep, 10).last().unwrap().1.len() >= deep.len() - 4 * 64);
        assert!(!attention(&deep).is_empty());
    }
}
