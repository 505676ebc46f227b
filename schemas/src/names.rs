//! What a version calls dimensions and measures otherwise than weir does: `"search_term as query"` in its file.
//!
//! A dimension has that name in the table, where rows are found by it, and its view is of the same name as ever. A measure has
//! it beside its own in the public views: queries that name the old column go on.

use std::collections::BTreeMap;

use crate::{Dimension, Measure};

/// By weir's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<&'static str, String>);

const MAX_BYTES: usize = 40;
/// Columns that public views have; each dimension is one, too.
const TAKEN: [&str; 12] = [
    "value",
    "dimension",
    "name",
    "target",
    "file",
    "window_start",
    "local_day",
    "emitted_in",
    "origin",
    "visitors",
    "visitor_check",
    "visitor_ids",
];

impl Names {
    /// Splits `NAME as OTHER`, as a list in a version's file has it.
    pub(crate) fn split(entry: &str) -> (&str, Option<&str>) {
        entry.split_once(" as ").map_or((entry, None), |(name, other)| (name.trim_end(), Some(other.trim_start())))
    }

    /// Calls what weir calls `name` by another one. Errors: why it cannot be called so.
    pub fn call(&mut self, name: &'static str, other: &str) -> Result<(), String> {
        let is_word = other.starts_with(|first: char| first.is_ascii_lowercase())
            && other.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'))
            && other.len() <= MAX_BYTES;
        let mut known = Dimension::ALL.map(Dimension::name).into_iter().chain(Measure::ALL.map(Measure::name));
        if name == Dimension::Site.name() || name == Dimension::Props.name() {
            return Err(format!("{name} cannot be called otherwise: every version has it so"));
        }
        if !is_word {
            return Err(format!("{other:?} is no name (small letters, digits and _, at most {MAX_BYTES})"));
        }
        if known.any(|known| known == other) || TAKEN.contains(&other) || self.0.values().any(|taken| taken == other) {
            return Err(format!("the name {other} is taken"));
        }
        self.0.insert(name, other.to_owned());
        Ok(())
    }

    /// The dimension's name in the column `dimension`.
    pub fn of(&self, dimension: Dimension) -> &str {
        self.of_name(dimension.name())
    }

    /// The same of what weir calls `name`.
    pub fn of_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// The dimensions that have another one, with it.
    pub fn dimensions(&self) -> impl Iterator<Item = (Dimension, &str)> {
        let other = |dimension: Dimension| Some((dimension, self.0.get(dimension.name())?.as_str()));
        Dimension::ALL.into_iter().filter_map(other)
    }

    /// The measures that have another one, with it.
    pub fn measures(&self) -> impl Iterator<Item = (Measure, &str)> {
        let other = |measure: Measure| Some((measure, self.0.get(measure.name())?.as_str()));
        Measure::ALL.into_iter().filter_map(other)
    }
}
