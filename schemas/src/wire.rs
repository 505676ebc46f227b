//! How events are written to the log: `proto/weir.proto`, encoded and decoded by hand, column by column.

use crate::Event;

/// Writes events into one `EventBatch`.
#[derive(Debug)]
pub struct BatchBuilder {}

impl BatchBuilder {
    pub fn new(collector: [u8; 16], sequence: u64) -> Self {
        let _ = (collector, sequence);
        Self {}
    }

    /// Adds an event; its strings must be within the limits.
    pub fn push(&mut self, event: &Event) {
        let _ = event;
    }

    /// Events so far.
    pub fn len(&self) -> usize {
        0
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At least as many bytes as [`finish`](Self::finish) gives.
    pub fn bytes_at_most(&self) -> usize {
        0
    }

    /// The encoded `EventBatch`.
    pub fn finish(self) -> Vec<u8> {
        Vec::new()
    }
}

/// The end of a partition of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub events: u64,
    pub last_ms: i64,
    pub digest: u64,
}

/// A whole record around an encoded batch: what is appended.
pub fn batch_record(sent_ms: i64, batch: &[u8]) -> Vec<u8> {
    let _ = (sent_ms, batch);
    Vec::new()
}

pub fn tick_record(sent_ms: i64) -> Vec<u8> {
    let _ = sent_ms;
    Vec::new()
}

pub fn end_record(sent_ms: i64, end: End) -> Vec<u8> {
    let _ = (sent_ms, end);
    Vec::new()
}

/// A decoded record; strings are borrowed from the payload.
#[derive(Debug)]
pub struct RecordView<'a> {
    pub sent_ms: i64,
    pub content: Content<'a>,
}

#[derive(Debug)]
pub enum Content<'a> {
    Batch(BatchView<'a>),
    Tick,
    End(End),
}

/// A decoded batch. A column of indices is empty (all absent) or has `events` entries, each below `strings.len()`;
/// `strings[0]` is empty.
#[derive(Debug, Default)]
pub struct BatchView<'a> {
    pub collector: [u8; 16],
    pub sequence: u64,
    pub events: usize,
    pub strings: Vec<&'a str>,
    /// ms since the Unix epoch; `events` entries.
    pub received_ms: Vec<i64>,
    /// ms since the Unix epoch, [`NO_CLAIM`] where there is none; empty or `events` entries.
    pub claimed_ms: Vec<i64>,
    /// Empty or `events` entries.
    pub visitor: Vec<u64>,
    /// Numbers of [`crate::Kind`]; empty or `events` entries, all of them known kinds.
    pub kind: Vec<u32>,
    pub site: Vec<u32>,
    pub id: Vec<u32>,
    pub host: Vec<u32>,
    pub page: Vec<u32>,
    pub query: Vec<u32>,
    pub referrer: Vec<u32>,
    pub user_agent: Vec<u32>,
    pub country: Vec<u32>,
    pub name: Vec<u32>,
    pub target: Vec<u32>,
    pub title: Vec<u32>,
    pub screen: Vec<u32>,
    pub language: Vec<u32>,
    /// How many properties each event has; empty or `events` entries.
    pub props: Vec<u32>,
    pub prop_names: Vec<u32>,
    pub prop_values: Vec<u32>,
}

/// Stands for "no claimed time".
pub const NO_CLAIM: i64 = i64::MIN;

/// Why a payload is not a record.
#[derive(Debug, thiserror::Error)]
#[error("not a weir record: {what} at byte {at}")]
pub struct WireError {
    pub what: &'static str,
    pub at: usize,
}

/// Decodes a record whole, or says why not; never panics, whatever the bytes.
pub fn decode(payload: &[u8]) -> Result<RecordView<'_>, WireError> {
    let _ = payload;
    Err(WireError { what: "empty", at: 0 })
}
