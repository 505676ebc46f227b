//! How events are written to the log: `proto/weir.proto`, encoded and decoded by hand, column by column.
//!
//! ```text
//!  Event ──▶ BatchBuilder ──▶ EventBatch bytes ──▶ batch_record(sent_ms, …) ──▶ log ──▶ decode ──▶ BatchView
//! ```
//!
//! Laws
//! - `decode(batch_record(sent, build(events)))` gives `sent` and `events`, for all events
//! - [`decode()`] is total: any bytes give a record or a [`WireError`], and memory is bounded by the payload's length
//! - what any protobuf library writes for `Record` is decoded, packed or not; fields that we do not know are skipped
//!
//! By hand, because a batch holds each string once and its columns are numbers: a decoder that borrows the strings
//! allocates once per column and never per event (see `docs/decisions/0002-wire-format.md`).

mod decode;
mod encode;
mod fields;

pub use decode::{BatchView, Content, NO_CLAIM, RecordView, WireError, decode};
pub use encode::{BatchBuilder, batch_record, end_record, tick_record};

/// The end of a partition of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub events: u64,
    pub last_ms: i64,
    pub digest: u64,
}

#[cfg(test)]
mod tests;
