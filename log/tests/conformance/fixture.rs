use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::executor::block_on;
use weir_log::{Appended, Log, Reader};

/// A log to test, and what only its owner can do to it.
pub(crate) trait Fixture {
    /// Another handle on the log.
    fn log(&self) -> Arc<dyn Log>;

    /// Deletes the records below `offset`, as retention would.
    fn cut(&self, topic: &str, partition: u32, offset: i64);

    /// Makes a topic that is not fit for events.
    fn make_wrong(&self, topic: &str);

    /// Returns after the log has looked once more, by its own clock, for what retention no longer keeps.
    fn pass_retention_check(&self);

    /// Names the log to another process, see `durability`.
    fn address(&self) -> String;
}

/// Far longer than anything here takes; only a broken log gets there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) stamp_ms: i64,
    pub(crate) payload: Vec<u8>,
}

/// Polls until there are `count` records more.
pub(crate) fn read(reader: &mut dyn Reader, count: usize) -> Vec<Record> {
    let deadline = Instant::now() + DEADLINE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", records.len());
        let most = count - records.len();
        let given = poll(reader, most, Duration::from_millis(100), &mut records);
        assert!(given <= most, "a poll for at most {most} records gave {given}");
    }
    records
}

/// One poll; what it gave goes to the end of `records`.
pub(crate) fn poll(reader: &mut dyn Reader, most: usize, timeout: Duration, records: &mut Vec<Record>) -> usize {
    let before = records.len();
    let given = reader
        .poll(most, timeout, &mut |record| {
            records.push(Record {
                partition: record.partition,
                offset: record.offset,
                stamp_ms: record.stamp_ms,
                payload: record.payload.to_vec(),
            });
        })
        .unwrap();
    assert_eq!(records.len() - before, given, "poll's answer is not what it gave");
    given
}

/// `count` records of a partition from `offset` on.
pub(crate) fn read_from(log: &dyn Log, topic: &str, partition: u32, offset: i64, count: usize) -> Vec<Record> {
    let mut reader = log.reader(topic).unwrap();
    reader.assign(partition, offset).unwrap();
    read(&mut *reader, count)
}

pub(crate) fn append(log: &dyn Log, topic: &str, partition: u32, payload: impl Into<Bytes>) -> Appended {
    block_on(log.append(topic, partition, payload.into(), None)).unwrap()
}

/// A name that no other case has.
pub(crate) fn fresh(what: &str) -> String {
    format!("test.{what}.{}", uuid::Uuid::new_v4().simple())
}
