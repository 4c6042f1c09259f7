//! One JSON and one Markdown text of what the parts have left in a folder.

use crate::part::cell;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Reads `PART.json` and `PART.status` (how it ended, as `run.sh` saw it) of each part; writes `kit.json` and `kit.md`.
pub fn write(folder: &Path, parts: &[&str]) -> ExitCode {
    let text = |file: String| std::fs::read_to_string(folder.join(file)).ok();
    let mut all = Map::new();
    let date = text("date".to_owned()).unwrap_or_default();
    all.insert("date".to_owned(), json!(date.trim()));
    let mut out = String::new();
    for part in parts {
        let value = text(format!("{part}.json")).and_then(|t| serde_json::from_str::<Value>(&t).ok());
        let status = text(format!("{part}.status"));
        // A part that was not asked for.
        if value.is_none() && status.is_none() {
            continue;
        }
        let mut value = value.unwrap_or_else(|| json!({ "part": part, "tables": [] }));
        value["status"] = json!(status.unwrap_or_default().trim());
        markdown(&mut out, &value);
        all.insert((*part).to_owned(), value);
    }
    let title = format!("# {}, {}\n", name(&all), date.trim());
    let written = std::fs::write(folder.join("kit.json"), format!("{:#}\n", Value::Object(all)))
        .and_then(|()| std::fs::write(folder.join("kit.md"), format!("{title}{out}")));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}: {e}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// The card and its driver.
fn name(all: &Map<String, Value>) -> String {
    let rows = all.get("adapter").and_then(|part| part["tables"][0]["rows"].as_array());
    let said = |what: &str| {
        let row = rows.into_iter().flatten().find(|row| row[0] == what);
        row.map_or("unknown".to_owned(), |row| cell(&row[1]))
    };
    format!("{}, {}", said("name"), said("driver"))
}

fn markdown(out: &mut String, part: &Value) {
    let _ = write!(out, "\n## {}: {}", cell(&part["part"]), cell(&part["status"]));
    if let Some(seconds) = part["seconds"].as_f64() {
        let _ = write!(out, ", {seconds:.0} s");
    }
    if part["ended"] != true {
        out.push_str(", **not whole: it crashed, or its time was over**");
    } else if part["over"] == true {
        out.push_str(", **its time was over: it may not be whole**");
    }
    if part["failed"] == true {
        out.push_str(", **FAILED**");
    }
    out.push('\n');
    for table in part["tables"].as_array().into_iter().flatten().filter(|t| t["details"] != true) {
        let columns: Vec<String> = table["columns"].as_array().into_iter().flatten().map(cell).collect();
        let _ = writeln!(
            out,
            "\n{}\n\n| {} |\n|{}",
            cell(&table["title"]),
            columns.join(" | "),
            "---|".repeat(columns.len())
        );
        for row in table["rows"].as_array().into_iter().flatten() {
            let cells: Vec<String> = row.as_array().into_iter().flatten().map(cell).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
}
