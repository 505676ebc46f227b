//! The log: append, read, find by time, progress. On Kafka, or embedded (LMDB) on one machine.
//!
//! ```text
//!                    ┌─ partition 0:  0 1 2 3 4 5 ──▶ Reader, in order of the offsets
//!  append ──▶ topic ─┤
//!  (durable, then    └─ partition 1:  0 1 2 3 ──────▶ Reader
//!   offset, stamp)          ▲       ▲
//!                  offset_at(time)  └ bounds().end     commit, committed: progress of a group
//!
//!  control topic ──▶ ControlLog ──▶ partitions_in_use: who writes where, and who waits for what
//! ```
//!
//! Invariants
//! - an append is acknowledged after it is durable, with its offset and the stamp it got; one that may have been
//!   written although it failed is [`LogError::Unclear`], never less
//! - the records of a partition have ascending offsets and never change; retention cuts from the start only
//! - [`Log::offset_at`] is exact: the first record stamped at or after an instant, however the stamps step back
//! - a reader below what retention has left says so, and never skips
//! - several processes may have the log open at once
//! - a topic that would lose or restamp records is refused before anything is written to it
//!
//! Both logs pass one suite, `tests/conformance`. Start at [`Log`] and [`open()`]; then the module pages of `embedded`
//! and `kafka`. Not here: what a record means (see `weir_schemas::wire`), batching, retries, the spool.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;

mod clock;
mod control;
mod embedded;
mod error;
mod kafka;
mod open;
mod telemetry;
pub use clock::{Clock, SystemClock};
pub use control::{
    ControlLog, ControlRecords, Follower, PartitionInUse, add_partitions, ensure_partitions_in_use, ensure_topic_is,
    partitions_in_use, topic_is,
};
pub use embedded::{EmbeddedLog, Usage};
pub use error::LogError;
pub use kafka::KafkaLog;
pub use open::{LogConfig, open, open_existing};

pub type Result<T> = std::result::Result<T, LogError>;

/// How long a topic of salts keeps its records.
pub const SALTS_RETENTION: Duration = Duration::from_secs(48 * 60 * 60);

/// What a topic is for, and so how it must be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKind {
    /// Live events: stamped by the log (`LogAppendTime`), deleted by age after `retention`.
    Events { partitions: u32, retention: Duration },
    /// Commands and agreements: one partition, stamped by the log, kept for ever.
    Control,
    /// The days' salts: one partition, stamped by the log, two days' retention.
    Salts,
    /// An import: stamped by its writer (`CreateTime`), kept until the topic is deleted.
    Import { partitions: u32 },
}

/// Where a record landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub offset: i64,
    /// The log's clock (or the writer's, for an import), ms since the Unix epoch.
    pub stamp_ms: i64,
}

/// `start` is the first offset still there, `end` the one the next record gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub start: i64,
    pub end: i64,
}

/// Progress of one partition, as consumer groups show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub partition: u32,
    /// The next offset to read.
    pub offset: i64,
    /// At most 4,096 bytes.
    pub metadata: String,
}

/// A record as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    pub partition: u32,
    pub offset: i64,
    pub stamp_ms: i64,
    pub payload: &'a [u8],
}

/// A log. Calls other than [`append`](Log::append) block the thread they are on.
pub trait Log: Send + Sync + 'static {
    /// Makes the topic, or checks that the one there is configured as `kind` says; refuses a wrong one, naming the setting.
    fn create_topic(&self, topic: &str, kind: &TopicKind) -> Result<()>;

    /// Makes the topic, or sets what [`create_topic`](Log::create_topic) would refuse in the one there; every other
    /// setting stays. What the topic holds is not touched: a setting that was wrong until now may have cost records.
    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> Result<()>;

    /// Deletes the topic and all its records; no error if there is none.
    fn delete_topic(&self, topic: &str) -> Result<()>;

    /// Names of all topics, sorted.
    fn topics(&self) -> Result<Vec<String>>;

    /// How many partitions the topic has; [`LogError::UnknownTopic`] if there is none.
    fn partitions(&self, topic: &str) -> Result<u32>;

    /// Which topic of this name it is: one that was deleted and made again has another id. `None`: this log cannot tell
    /// (Kafka before 2.8).
    fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        self.partitions(topic).map(|_| None)
    }

    /// Adds partitions until there are `partitions`.
    fn grow(&self, topic: &str, partitions: u32) -> Result<()>;

    /// Appends one record; resolves after it is durable. `stamp_ms` is for imports and must be `None` elsewhere.
    ///
    /// Appends to one partition from one handle land in the order of the calls. [`LogError::Unclear`] says that the
    /// record may or may not be there.
    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended>>;

    /// A reader without partitions; give it some with [`Reader::assign`].
    fn reader(&self, topic: &str) -> Result<Box<dyn Reader>>;

    /// First and next offset of a partition.
    fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds>;

    /// The first record stamped at or after `at_ms`; `None` if there is none.
    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> Result<Option<i64>>;

    /// Sets the progress of `group`.
    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<()>;

    /// The progress of `group`: those partitions that have any, ascending.
    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>>;

    /// How long records of the topic are kept; `None`: for ever.
    fn retention(&self, topic: &str) -> Result<Option<Duration>>;

    /// How many bytes of a partition are kept; `None`: there is no such bound.
    fn retention_bytes(&self, topic: &str) -> Result<Option<u64>> {
        self.partitions(topic).map(|_| None)
    }
}

/// Called, from any thread, when a reader may have something; may be called for nothing.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Reads partitions of one topic. Each partition's records come in order of their offsets, none is left out.
pub trait Reader: Send {
    /// Begins to read `partition` at `offset`; [`LogError::BelowStart`], now or from [`poll`](Reader::poll), if
    /// retention has taken that offset.
    fn assign(&mut self, partition: u32, offset: i64) -> Result<()>;

    /// Gives up to `records_max` records to `each` and returns how many; waits up to `timeout` if there are none.
    fn poll(&mut self, records_max: usize, timeout: Duration, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize>;

    /// A held partition is not polled until it is released; what was fetched of it stays.
    fn hold(&mut self, partition: u32, held: bool);

    fn set_wake(&mut self, wake: Wake);
}
