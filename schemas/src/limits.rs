//! Limits that are the system's, not a version's: changing one changes what a replay of an old log gives.

/// How far below a record an equal batch, or an event of equal site and id, still makes it a copy; ms of arrival time.
pub const DEDUP_HORIZON_MS: i64 = 10 * 60 * 1000;

/// A record's stamp counts as at most its `sent_ms` plus this.
pub const CLOCK_BOUND_MS: i64 = 60 * 1000;

/// The most that a log's clock may step back below a partition's running maximum; more is an alarm.
pub const STEP_BACK_MAX_MS: i64 = 60 * 1000;

/// A claimed time older than this before the arrival time counts as the arrival time.
pub const CLAIM_AGE_MAX_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// A claimed time older than this needs the site's write token.
pub const UNTRUSTED_CLAIM_AGE_MAX_MS: i64 = 24 * 60 * 60 * 1000;

/// Events in one batch: 16,384 × ~33 B = 540 kB, under Kafka's default message limit of 1 MB with a margin; a batch
/// of larger events is closed by [`BATCH_BYTES_MAX`] first.
pub const BATCH_EVENTS_MAX: usize = 16_384;

/// Encoded bytes of one batch: Kafka's `message.max.bytes` is 1,048,588 by default, less the record's own overhead.
pub const BATCH_BYTES_MAX: usize = 900_000;

/// Bytes of one string of an event (page, referrer, user agent, …): longer ones are rejected as `field_too_long`.
pub const FIELD_BYTES_MAX: usize = 2_048;

/// Properties of one event.
pub const PROPS_MAX: usize = 30;

// An event is at most its 13 strings and its properties, so one always fits into a batch.
const _: () = assert!(FIELD_BYTES_MAX * (13 + 2 * PROPS_MAX) + 1_024 < BATCH_BYTES_MAX);
