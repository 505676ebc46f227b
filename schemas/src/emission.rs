use serde::{Deserialize, Serialize};

use crate::{Dimension, WindowStart};

/// The value that stands for all that were not large enough ([`SchemaVersion::values_max`](crate::SchemaVersion)).
pub const OTHER: &str = "(other)";

/// Where rows come from: empty for live traffic, else the id of an import.
pub type Origin = String;

/// The rows that one closed window hands to the sink, once, in one block per worker.
///
/// A row's key (dimension, site, value, window start) is in exactly one of the blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Emission {
    /// The window that closed: `emitted_in` of every row.
    pub window: WindowStart,
    pub blocks: Vec<RowBlock>,
}

/// What a run's pipeline tells its sink, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Closed {
    /// A window with rows. Windows come in ascending order, each once.
    Window(Emission),
    /// Every window that begins before this one has closed, and those with rows have been handed over.
    Through(WindowStart),
}

impl Emission {
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(RowBlock::len).sum()
    }
}

/// Rows of one emission, column by column, sorted by (site, dimension, window start, value), each compared as a string.
///
/// All columns but `counts` and `visitors` have one entry a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowBlock {
    pub strings: Strings,
    /// Indices into `strings`.
    pub site: Vec<u32>,
    /// Indices into `strings`: the dimension's name as the table has it, `prop:NAME` for a property.
    pub dimension: Vec<u32>,
    /// Indices into `strings`.
    pub value: Vec<u32>,
    /// The window for which the row counts, ms since the Unix epoch.
    pub window_start_ms: Vec<i64>,
    /// `len() × measures`, row by row, in the order of `SchemaVersion::measures`.
    pub counts: Vec<u64>,
    /// Distinct visitors of all rows, one row after the other, ascending within a row.
    pub visitors: Vec<u64>,
    /// Where each row's visitors end in `visitors`.
    pub visitors_end: Vec<usize>,
}

impl RowBlock {
    pub fn len(&self) -> usize {
        self.site.len()
    }

    pub fn is_empty(&self) -> bool {
        self.site.is_empty()
    }

    /// The distinct visitors of row `row`, ascending.
    pub fn visitors_of(&self, row: usize) -> &[u64] {
        let begin = if row == 0 { 0 } else { self.visitors_end[row - 1] };
        &self.visitors[begin..self.visitors_end[row]]
    }
}

/// Distinct strings one after the other in one buffer; an index names one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Strings {
    text: String,
    end: Vec<usize>,
}

impl Strings {
    /// Appends `string` and gives its index. Does not look whether it is there already.
    pub fn push(&mut self, string: &str) -> u32 {
        self.text.push_str(string);
        self.end.push(self.text.len());
        u32::try_from(self.end.len() - 1).expect("a block holds fewer than 2^32 strings")
    }

    pub fn get(&self, index: u32) -> &str {
        let index = index as usize;
        let begin = if index == 0 { 0 } else { self.end[index - 1] };
        &self.text[begin..self.end[index]]
    }

    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// Memory that they take, bytes.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.end.len() * size_of::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.end.is_empty()
    }
}

impl Dimension {
    /// The name a property's dimension has in the table.
    pub fn of_prop(name: &str) -> String {
        format!("prop:{name}")
    }
}
