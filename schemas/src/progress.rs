//! What a run says of itself beside its offsets, so that its state can be seen with the run, and ClickHouse, down.

use serde::{Deserialize, Serialize};

/// Written as the commit metadata of partition 0 of the group `weir-<run>`. Never read back by the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Writer's clock, ms since the Unix epoch.
    pub at_ms: i64,
    /// Everything before it is in the table; `None` before the first batch.
    pub complete_through_ms: Option<i64>,
    /// Minimum over the partitions of (arrival time − lateness); `None` before every partition has been heard of.
    pub watermark_ms: Option<i64>,
    /// The partition that has the smallest watermark.
    pub held_by: Option<u32>,
    pub windows_open: u64,
    pub events_read: u64,
    /// Events that closed in a later window than they happened in.
    pub events_late: u64,
    pub rows_done: u64,
    /// Records that are not Weir's, set aside.
    pub records_unreadable: u64,
    /// Why the run stopped, if it did and a person is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The run has come to its end: there is nothing more to do.
    #[serde(default)]
    pub ended: bool,
}

/// Written as the commit metadata of every other partition; partition 0 carries both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionProgress {
    /// Arrival time of the newest record read, ms since the Unix epoch.
    pub arrival_ms: Option<i64>,
}

/// The whole commit metadata of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub partition: PartitionProgress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunProgress>,
}

/// The consumer group that shows the progress of `run`.
pub fn group_of(run: &str) -> String {
    format!("weir-{run}")
}
