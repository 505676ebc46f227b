//! What an import says at its end.

use std::{collections::BTreeMap, path::PathBuf};

use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};

use crate::Class;

/// What was read, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Names the import; `None` if nothing was written.
    pub id: Option<String>,
    pub site: String,
    pub dry_run: bool,
    /// Lines that were read and not imported before.
    pub lines: u64,
    /// Lines of each class; they add up to `lines`.
    pub classes: BTreeMap<Class, u64>,
    /// The class of this name.
    pub page_views: u64,
    /// The class of this name.
    pub downloads: u64,
    /// The class of this name.
    pub bots: u64,
    /// What was written: page views, downloads, and those of bots.
    pub events: u64,
    /// Event times, RFC 3339, of the first and last event.
    pub first: Option<String>,
    pub last: Option<String>,
    /// Days (UTC) with events.
    pub days: Vec<Day>,
    /// Lines in Combined and in Common Log Format, of those that could be read.
    pub combined: u64,
    pub common: u64,
    /// Bytes at the beginnings of files that earlier imports hold.
    pub bytes_held: u64,
    /// Bytes behind the last line's end, left for the next import.
    pub bytes_left: u64,
    /// Where the malformed lines are, if there are any.
    pub rejects: Option<PathBuf>,
    /// What a person should know besides.
    pub notes: Vec<String>,
    pub seconds: f64,
}

/// One day (UTC) of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// `2015-05-17`.
    pub day: String,
    pub page_views: u64,
    pub downloads: u64,
    pub bots: u64,
}

impl Summary {
    /// A table and what there is to say, for people.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.set_header(["lines", "what", "why"]);
        for (class, lines) in &self.classes {
            if *lines > 0 || matches!(class, Class::PageViews) {
                table.add_row([lines.to_string(), class.label().to_owned(), class.why().to_owned()]);
            }
        }
        table.add_row([self.lines.to_string(), "together".to_owned(), String::new()]);
        if let Some(column) = table.column_mut(0) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = vec![table.to_string(), self.headline()];
        if let Some(path) = &self.rejects {
            text.push(format!("malformed lines, each with its number and reason: {}", path.display()));
        }
        text.extend(self.notes.iter().map(|note| format!("note: {note}")));
        text.join("\n")
    }

    fn headline(&self) -> String {
        let span = match (&self.first, &self.last) {
            (Some(first), Some(last)) => format!(" from {first} to {last}"),
            _ => String::new(),
        };
        let rate = (self.lines as f64 / self.seconds.max(1e-3)) as u64;
        let took = format!("{:.1} s, {rate} lines/s", self.seconds);
        match &self.id {
            Some(id) => format!(
                "import {id} of site {}: {} events{span} are in the log and are being counted ({took})\n\
                 `weir status` shows how far, `weir import undo {id}` takes it back",
                self.site, self.events
            ),
            None if self.dry_run => format!(
                "dry run for site {}: {} events{span} would be imported, nothing was written ({took})",
                self.site, self.events
            ),
            None => format!("site {}: nothing that counts, so nothing was imported ({took})", self.site),
        }
    }
}
