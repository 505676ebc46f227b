//! What stops a run until a person has decided: as facts, so that a command can act on them and a page can show them.

use serde::{Deserialize, Serialize};

/// Why a run stopped, where weir knows what mends it. Times are ms since the Unix epoch; `from_ms` is the run's
/// checkpoint, the first window that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// `emissions` does not have what the run has reported as done: it was emptied, or is another ClickHouse's.
    TableLost { reported_ms: i64, from_ms: i64 },
    /// The run would begin after what it has reported as done: the control topic is not the one that it began with.
    ControlLost { reported_ms: i64, from_ms: i64 },
    /// Retention has taken what the run needs.
    LogCut { topic: String, partition: u32, start: i64, from_ms: i64 },
    /// The log ends before what was read of it.
    LogShrunk { topic: String, partition: u32, read: i64, end: i64, from_ms: i64 },
    /// A topic of the same name is there, and it is another one.
    TopicReplaced { topic: String, recorded: String, found: String, from_ms: i64 },
    /// Somebody writes to a partition that nobody reads.
    StrayRecords { topic: String, partition: u32, records: i64 },
    /// Somebody changed how a table is made; `mends`: weir can change it back in place.
    TableAltered { table: String, differs: String, mends: bool },
    /// `owners` is not there, and no copy is being brought back: somebody has dropped it.
    OwnersGone { table: String },
    /// Rows are missing, doubled or nobody's: the audit's first finding, how many there are, and the windows of all,
    /// `[from, to)`, ascending.
    TableDiffers { ranges: Vec<(i64, i64)>, found: String, findings: u64 },
}
