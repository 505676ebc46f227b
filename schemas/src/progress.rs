//! What a run says of itself beside its offsets, so that its state can be seen with the run, and ClickHouse, down.

use serde::{Deserialize, Serialize};

use crate::Fault;

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
    /// Records that the log stamped too long after they were sent: its clock, or a collector's, is wrong.
    #[serde(default)]
    pub stamps_bounded: u64,
    /// The schema version whose table it fills; 0: written before this was told.
    #[serde(default)]
    pub generation: u32,
    /// Thousandths of the time that it works at most; `None`: it has come to its end, or to a stop, or this was told before
    /// there was this field. One that was killed has said nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permille: Option<u16>,
    /// Why it works less than it was ordered to, while it does: it gives way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives_way: Option<String>,
    /// The newest throttle that it has heard of, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<i64>,
    /// The newest recovery of the run that it has heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<i64>,
    /// The newest recovery that was ordered when a table that differs has stopped it: it stays stopped until there is another.
    /// What it has told of itself may be from before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<i64>,
    /// Why the run stopped, if it did and a person is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The same as facts, where `weir recover` does more than start the run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What it waits for, while it tries again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// The group's offsets were found moved, or gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// The run has come to its end: there is nothing more to do.
    #[serde(default)]
    pub ended: bool,
}

/// Something that a run tries again until it goes well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when without an answer, ms since the Unix epoch.
    pub since_ms: i64,
    /// One sentence.
    pub reason: String,
}

/// Offsets of a run's group that somebody else set, or that are not there any more. Nothing reads them: the run's next
/// report puts them back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// When it was seen, ms since the Unix epoch.
    pub at_ms: i64,
    pub partition: u32,
    /// Where it stood; `None`: it was gone.
    pub found: Option<i64>,
}

/// Written as the commit metadata of every other partition; partition 0 carries both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionProgress {
    /// Arrival time of the newest record read, ms since the Unix epoch.
    pub arrival_ms: Option<i64>,
    /// The offset that was committed with it: who moves a group with other tools does not know of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

/// The whole commit metadata of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub partition: PartitionProgress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunProgress>,
}

impl Metadata {
    /// What a run wrote beside `offset`; `None` if another tool has set it.
    pub fn of(metadata: &str, offset: i64) -> Option<Metadata> {
        let metadata: Metadata = serde_json::from_str(metadata).ok()?;
        metadata.partition.offset.is_none_or(|written| written == offset).then_some(metadata)
    }
}

/// The consumer group that shows the progress of `run`.
pub fn group_of(run: &str) -> String {
    format!("weir-{run}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_beside_another_offset_or_of_another_tool_is_not_a_runs() {
        let partition = PartitionProgress { arrival_ms: Some(7), offset: Some(5) };
        let written = serde_json::to_string(&Metadata { partition, run: None }).unwrap();
        assert!(Metadata::of(&written, 5).is_some());
        assert_eq!([Metadata::of(&written, 6), Metadata::of("", 5), Metadata::of("moved", 5)], [None, None, None]);
        assert!(Metadata::of(r#"{"partition": {"arrival_ms": 7}}"#, 5).is_some(), "as it was written before");
    }
}
