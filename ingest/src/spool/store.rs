//! The batches on disk: one topic of one partition in a bounded [`EmbeddedLog`], stamped with each batch's first time.
//!
//! A record is a header and the batch as the log gets it; numbers are little-endian:
//!
//! ```text
//!  version u8 · digest u64 · tried u8 · partition u32 · events u32 · collector 16 B · sequence u64 · EventBatch
//! ```
//!
//! The digest is SipHash-1-3 of what follows it, with the first time as its key: LMDB does not notice bytes that a disk has
//! changed.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use siphasher::sip::SipHasher13;
use weir_log::{Bounds, Clock, EmbeddedLog, Log, LogError, TopicKind};

use super::{DRAIN_RECORDS_MAX, SpoolError, SpoolUsage};
use crate::telemetry;

const TOPIC: &str = "weir.spool";
const VERSION: u8 = 2;
const HEADER_BYTES: usize = 42;
/// Where the digest begins, and where what it is of.
const DIGEST_AT: usize = 1;
const DIGESTED_AT: usize = 9;

/// Bytes that the drain has under way at once, if there are several batches: 8 MB are on their way in some 0.1 s.
const DRAIN_BYTES_MAX: usize = 8 << 20;

/// Names a batch: collector and sequence.
pub(super) type BatchName = ([u8; 16], u64);

/// A batch on its way through the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Before every try to append it, ms since the Unix epoch.
    pub(crate) first_ms: i64,
    /// Whether it may be in the log although no append of it was acknowledged.
    pub(crate) tried: bool,
    pub(crate) partition: u32,
    pub(crate) events: u32,
    pub(crate) collector: [u8; 16],
    pub(crate) sequence: u64,
    /// The `EventBatch`.
    pub(crate) encoded: Bytes,
}

pub(super) struct Store {
    log: EmbeddedLog,
    bytes_max: u64,
    /// Batches below were there when the store was opened and first of all: a process before may have tried them.
    doubtful_below: i64,
    /// Locked while this process lives, however it ends.
    _lock: File,
}

impl Store {
    pub(super) fn open(path: &Path, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Self, SpoolError> {
        let unusable = |cause: String| SpoolError::Unusable { path: path.to_owned(), cause };
        std::fs::create_dir_all(path).map_err(|error| unusable(error.to_string()))?;
        let lock = File::create(path.join("lock")).map_err(|error| unusable(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::Taken { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(unusable(error.to_string())),
        }
        let open = || {
            let log = EmbeddedLog::open_bounded(path, clock, bytes_max)?;
            // An import's topic is the one that is stamped by its writer and kept until it is read.
            log.create_topic(TOPIC, &TopicKind::Import { partitions: 1 })?;
            let start = log.bounds(TOPIC, 0)?.start;
            Ok((log, start))
        };
        let (log, start) = open().map_err(|error: LogError| unusable(error.to_string()))?;
        Ok(Self { log, bytes_max, doubtful_below: start + DRAIN_RECORDS_MAX as i64, _lock: lock })
    }

    pub(super) fn look(path: &Path, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Option<SpoolUsage>, LogError> {
        if !path.join("data.mdb").exists() {
            return Ok(None);
        }
        let log = EmbeddedLog::open_bounded(path, clock, bytes_max)?;
        match usage(&log, bytes_max) {
            Ok(usage) => Ok(Some(usage)),
            Err(LogError::UnknownTopic(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn usage(&self) -> Result<SpoolUsage, LogError> {
        usage(&self.log, self.bytes_max)
    }

    pub(super) fn bounds(&self) -> Result<Bounds, LogError> {
        self.log.bounds(TOPIC, 0)
    }

    /// Resolves to the batch's offset after it is durable.
    pub(super) async fn put(&self, batch: &Waiting) -> Result<i64, LogError> {
        let mut record = Vec::with_capacity(HEADER_BYTES + batch.encoded.len());
        record.push(VERSION);
        record.extend_from_slice(&[0; DIGESTED_AT - DIGEST_AT]);
        record.push(u8::from(batch.tried));
        record.extend_from_slice(&batch.partition.to_le_bytes());
        record.extend_from_slice(&batch.events.to_le_bytes());
        record.extend_from_slice(&batch.collector);
        record.extend_from_slice(&batch.sequence.to_le_bytes());
        record.extend_from_slice(&batch.encoded);
        let digest = digest(&record, batch.first_ms);
        record[DIGEST_AT..DIGESTED_AT].copy_from_slice(&digest.to_le_bytes());
        let appended = self.log.append(TOPIC, 0, Bytes::from(record), Some(batch.first_ms)).await?;
        Ok(appended.offset)
    }

    /// The first `records_max` batches, fewer if they are large, and the offset after them. One that is not what was written
    /// is passed over, and reported: nobody can tell what it was.
    pub(super) fn first(&self, records_max: usize) -> Result<(Vec<Waiting>, i64), LogError> {
        let bounds = self.bounds()?;
        let mut reader = self.log.reader(TOPIC)?;
        reader.assign(0, bounds.start)?;
        let (mut batches, mut next, mut bytes) = (Vec::new(), bounds.start, 0);
        let mut strange = None;
        while batches.len() < records_max.min(DRAIN_RECORDS_MAX) && bytes < DRAIN_BYTES_MAX && next < bounds.end {
            reader.poll(1, Duration::ZERO, &mut |record| match decode(record.payload, record.stamp_ms) {
                Decoded::Batch(batch) => {
                    bytes += batch.encoded.len();
                    next = record.offset + 1;
                    batches.push(Waiting { tried: batch.tried || record.offset < self.doubtful_below, ..batch });
                }
                Decoded::Damaged => {
                    next = record.offset + 1;
                    telemetry::BatchDamaged { offset: record.offset, bytes: record.payload.len() }.emit();
                }
                Decoded::Strange => strange = Some(record.offset),
            })?;
            if let Some(offset) = strange {
                return Err(LogError::Embedded {
                    path: TOPIC.to_owned(),
                    cause: format!(
                        "batch {offset} is of a version that this weir does not know (start the one that wrote it)"
                    ),
                });
            }
        }
        Ok((batches, next))
    }

    /// All below `offset` is in the log.
    pub(super) fn trim(&self, offset: i64) -> Result<(), LogError> {
        self.log.trim(TOPIC, 0, offset)
    }
}

fn usage(log: &EmbeddedLog, bytes_max: u64) -> Result<SpoolUsage, LogError> {
    let bounds = log.bounds(TOPIC, 0)?;
    let mut oldest_ms = None;
    if bounds.start < bounds.end {
        let mut reader = log.reader(TOPIC)?;
        match reader.assign(0, bounds.start) {
            Ok(()) => {}
            // The drain was quicker.
            Err(LogError::BelowStart { .. }) => return usage(log, bytes_max),
            Err(error) => return Err(error),
        }
        match reader.poll(1, Duration::ZERO, &mut |record| oldest_ms = Some(record.stamp_ms)) {
            Err(LogError::BelowStart { .. }) => return usage(log, bytes_max),
            given => given?,
        };
    }
    let bytes = log.usage()?.bytes;
    Ok(SpoolUsage { bytes, bytes_max, batches: (bounds.end - bounds.start) as u64, oldest_ms })
}

enum Decoded {
    Batch(Waiting),
    /// It is not what was written.
    Damaged,
    /// Another version of weir has written it.
    Strange,
}

fn digest(record: &[u8], first_ms: i64) -> u64 {
    SipHasher13::new_with_keys(first_ms as u64, 0).hash(&record[DIGESTED_AT..])
}

fn decode(record: &[u8], first_ms: i64) -> Decoded {
    let Some((header, encoded)) = record.split_at_checked(HEADER_BYTES) else { return Decoded::Damaged };
    fn number<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
        header[at..at + N].try_into().expect("within the header")
    }
    if header[0] != VERSION {
        return Decoded::Strange;
    }
    if u64::from_le_bytes(number(header, DIGEST_AT)) != digest(record, first_ms) {
        return Decoded::Damaged;
    }
    Decoded::Batch(Waiting {
        first_ms,
        tried: header[9] != 0,
        partition: u32::from_le_bytes(number(header, 10)),
        events: u32::from_le_bytes(number(header, 14)),
        collector: number(header, 18),
        sequence: u64::from_le_bytes(number(header, 34)),
        encoded: Bytes::copy_from_slice(encoded),
    })
}
