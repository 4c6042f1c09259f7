//! What a part of the kit finds out: tables, written again after every row, so that nothing is lost where its time ends.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A part while it runs.
pub struct Part {
    name: &'static str,
    file: PathBuf,
    started: Instant,
    pub deadline: Instant,
    tables: Vec<Value>,
    /// Sizes of a test: seconds on a software adapter.
    pub small: bool,
    /// Of latents, where it was asked for.
    pub side: Option<u32>,
    failed: bool,
    /// The table that was begun last is for the JSON alone.
    details: bool,
}

impl Part {
    pub fn new(name: &'static str, file: PathBuf, seconds: u64, small: bool, side: Option<u32>) -> Self {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(seconds);
        Self { name, file, started, deadline, tables: Vec::new(), small, side, failed: false, details: false }
    }

    /// Whether to begin nothing more.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    pub fn begin_table(&mut self, title: &str, columns: &[&str]) {
        self.begin(title, columns, false);
    }

    /// One for the JSON alone.
    pub fn begin_details(&mut self, title: &str, columns: &[&str]) {
        self.begin(title, columns, true);
    }

    fn begin(&mut self, title: &str, columns: &[&str], details: bool) {
        self.details = details;
        if !details {
            println!("\n{title}\n  {}", columns.join(" | "));
        }
        self.tables.push(json!({ "title": title, "columns": columns, "details": details, "rows": [] }));
        self.save(false);
    }

    /// A row of the table that was begun last.
    pub fn row(&mut self, cells: Value) {
        if !self.details {
            let words: Vec<String> = cells.as_array().into_iter().flatten().map(cell).collect();
            println!("  {}", words.join(" | "));
        }
        if let Some(rows) = self.tables.last_mut().and_then(|t| t["rows"].as_array_mut()) {
            rows.push(cells);
        }
        // They come all at once.
        if !self.details {
            self.save(false);
        }
    }

    /// The part goes on, but its end is not a good one.
    pub fn fail(&mut self, why: &str) {
        println!("  FAILED: {why}");
        self.failed = true;
    }

    /// Whether all is well.
    pub fn end(&mut self) -> bool {
        self.save(true);
        !self.failed
    }

    fn save(&self, ended: bool) {
        let seconds = self.started.elapsed().as_secs_f64();
        // Whether its time was over before it was done, this cannot say of a part that was killed: `ended` stays false.
        let value = json!({
            "part": self.name, "ended": ended, "over": self.is_over(), "failed": self.failed, "seconds": seconds,
            "tables": self.tables,
        });
        if let Err(e) = std::fs::write(&self.file, format!("{value:#}\n")) {
            eprintln!("{}: {e}", self.file.display());
        }
    }
}

/// A cell as it is printed: numbers to three or four digits.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

fn number(x: f64) -> String {
    let size = x.abs();
    match size {
        _ if size == 0.0 => "0".to_owned(),
        _ if size < 1e-3 => format!("{x:.1e}"),
        _ if size < 1.0 => format!("{x:.4}"),
        _ if size < 10.0 => format!("{x:.3}"),
        _ if size < 100.0 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
