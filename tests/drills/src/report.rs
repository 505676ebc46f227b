//! What a drill says at its end: a table for people, one JSON object for programs.

use serde_json::{Map, Value};

/// Names and values, in the order in which they are read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<(&'static str, Value, &'static str)>,
}

impl Report {
    /// `meaning` is for people.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Value>, meaning: &'static str) {
        self.lines.push((name, value.into(), meaning));
    }

    pub(crate) fn print(&self, json: bool) {
        for (name, value, meaning) in &self.lines {
            let name = name.replace('_', " ");
            println!("{name:<24} {:>20}  {meaning}", value.to_string().trim_matches('"'));
        }
        if json {
            let object: Map<String, Value> =
                self.lines.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone())).collect();
            println!("{}", Value::Object(object));
        }
    }
}

/// Seconds to a tenth.
pub(crate) fn seconds(duration: std::time::Duration) -> f64 {
    rounded(duration.as_secs_f64(), 10.0)
}

/// To a tenth, or another part of one.
pub(crate) fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}
