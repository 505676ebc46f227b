//! What a drill says at its end: a table for people, one JSON object for programs.

use serde_json::{Map, Value};

/// A number with its thousands set apart.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Names and values, in the order in which they are read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<(&'static str, Value, &'static str)>,
    table: Vec<[String; 3]>,
}

impl Report {
    /// `meaning` is for people.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Value>, meaning: &'static str) {
        self.lines.push((name, value.into(), meaning));
    }

    /// Of three columns, the first row their names; it comes last.
    pub(crate) fn table(&mut self, table: Vec<[String; 3]>) {
        self.table = table;
    }

    pub(crate) fn print(&self, json: bool) {
        for (name, value, meaning) in &self.lines {
            let name = name.replace('_', " ");
            println!("{name:<24} {:>20}  {meaning}", value.to_string().trim_matches('"'));
        }
        print!("{}", as_markdown(&self.table));
        if json {
            let mut object: Map<String, Value> =
                self.lines.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone())).collect();
            if !self.table.is_empty() {
                object.insert("table".to_owned(), self.table.iter().map(|row| row.to_vec()).collect());
            }
            println!("{}", Value::Object(object));
        }
    }
}

/// As it stands in a page.
fn as_markdown(table: &[[String; 3]]) -> String {
    let line = |row: &[String; 3]| format!("| {} |\n", row.join(" | "));
    let mut lines = table.iter().map(line);
    let Some(names) = lines.next() else { return String::new() };
    let rows: String = lines.collect();
    format!("\n{names}|---|---|---|\n{rows}\n")
}

/// Seconds to a tenth.
pub(crate) fn seconds(duration: std::time::Duration) -> f64 {
    rounded(duration.as_secs_f64(), 10.0)
}

/// To a tenth, or another part of one.
pub(crate) fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_printed_as_it_stands_in_a_page_and_none_as_nothing() {
        let row = |words: [&str; 3]| words.map(str::to_owned);
        let table = [row(["what", "announced", "ours"]), row(["a copy", "30-60 min", "9 s"])];
        assert_eq!(
            as_markdown(&table),
            "\n| what | announced | ours |\n|---|---|---|\n| a copy | 30-60 min | 9 s |\n\n"
        );
        assert_eq!(as_markdown(&[]), "");
    }
}
