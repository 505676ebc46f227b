//! The log on one machine, in one directory: LMDB, durable, open to several processes at once.
//!
//! ```text
//!  append ─▶ queue ─▶ committer: one transaction a group, one fsync ─▶ answers
//!                          │ (topic, partition, offset) → stamp, payload
//!                          ▼ (topic, partition, running maximum) → offset
//!                        LMDB ◀─ readers: a short transaction a poll, no copies
//! ```
//!
//! Invariants
//! - an answer comes after the fsync of the transaction that holds the record
//! - a read transaction lives no longer than one poll
//! - whatever deletes, deletes a bounded number of records a transaction
//!
//! Several handles of one process share the environment, each with a committer of its own; LMDB's writer lock orders
//! them, and those of other processes. Look at [`committer`], [`times`], [`retention`], [`reader`].

mod committer;
mod keys;
mod reader;
mod retention;
mod store;
#[cfg(test)]
mod tests;
mod times;
mod topics;
mod watch;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};

use self::{committer::Committer, keys::i64_at, keys::progress_prefix, reader::EmbeddedReader, store::Store};
use crate::{Appended, Bounds, Clock, Committed, Log, LogError, Reader, Result, TopicKind};

/// Bytes of a commit's metadata: Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4_096;
/// Bytes of a group's name: with topic and partition it is a key, of which LMDB takes 511 bytes.
const GROUP_BYTES_MAX: usize = 255;

/// A handle on the log in a directory. Dropping it waits until its appends have been answered.
pub struct EmbeddedLog {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    committer: Committer,
    bytes_max: Option<u64>,
}

/// How full an [`EmbeddedLog`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What the records take on disk. The file may be larger: room that was freed is used again, not given back.
    pub bytes: u64,
    /// Over this appends are refused; `None`: bounded by the disk only.
    pub bytes_max: Option<u64>,
}

impl EmbeddedLog {
    /// Bytes of one record; a larger one is refused, as Kafka does with its defaults.
    pub const RECORD_BYTES_MAX: usize = 1_000_000;

    /// Opens the log in directory `path`, making it if there is none. Records that the log stamps get `clock`'s time at
    /// their commit; retention goes by it too.
    ///
    /// [`LogError::Embedded`] if the directory cannot be made or mapped.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(path.as_ref(), clock, None)
    }

    /// The same, refusing appends while its records take more than `bytes_max` on disk.
    pub fn open_bounded(path: impl AsRef<Path>, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Self> {
        Self::open_with(path.as_ref(), clock, Some(bytes_max))
    }

    /// Whether there is a log in directory `path`.
    pub(crate) fn is_at(path: &Path) -> bool {
        path.join(store::FILE).is_file()
    }

    fn open_with(path: &Path, clock: Arc<dyn Clock>, bytes_max: Option<u64>) -> Result<Self> {
        Self::on(Store::open(path)?, clock, bytes_max)
    }

    fn on(store: Arc<Store>, clock: Arc<dyn Clock>, bytes_max: Option<u64>) -> Result<Self> {
        let committer = Committer::start(store.clone(), clock.clone(), bytes_max)?;
        Ok(Self { store, clock, committer, bytes_max })
    }

    /// How full it is.
    pub fn usage(&self) -> Result<Usage> {
        let bytes = topics::bytes(&self.store, &*self.store.read()?)?;
        Ok(Usage { bytes: bytes.max(0) as u64, bytes_max: self.bytes_max })
    }

    /// Deletes all records of the partition below `offset`, at most to its end; for who uses the log as a queue.
    pub fn trim(&self, topic: &str, partition: u32, offset: i64) -> Result<()> {
        let store = &*self.store;
        loop {
            let mut wtxn = store.write()?;
            let row = topics::row(store, &wtxn, topic)?;
            let mut state = self.partition_of(&wtxn, topic, &row, partition)?;
            let place = (row.id, partition);
            let to = offset.min(state.end);
            if to > state.start {
                times::begin_at(store, &mut wtxn, place, &mut state, to)?;
            }
            retention::sweep(store, &mut wtxn, place, &mut state)?;
            store.put_partition(&mut wtxn, row.id, partition, state)?;
            store.commit(wtxn).map_err(|error| store.error(error))?;
            if state.swept == state.start {
                return Ok(());
            }
        }
    }

    /// Deletes what retention no longer keeps now, instead of at the committer's next look, some seconds later.
    pub fn enforce_retention(&self) -> Result<()> {
        while retention::step(&self.store, self.clock.now_ms())? {}
        Ok(())
    }

    fn partition_of(
        &self,
        txn: &heed::RoTxn,
        topic: &str,
        row: &topics::TopicRow,
        partition: u32,
    ) -> Result<keys::PartitionState> {
        self.store
            .partition(txn, row.id, partition)?
            .ok_or_else(|| self.store.failure(format!("topic {topic} has no partition {partition}")))
    }

    /// One write transaction around `change`.
    fn write<T>(&self, change: impl FnOnce(&Store, &mut heed::RwTxn) -> Result<T>) -> Result<T> {
        let mut wtxn = self.store.write()?;
        let value = change(&self.store, &mut wtxn)?;
        self.store.commit(wtxn).map_err(|error| self.store.error(error))?;
        Ok(value)
    }
}

impl Log for EmbeddedLog {
    fn create_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.write(|store, wtxn| topics::create(store, wtxn, topic, kind))
    }

    /// Only weir writes this log: a topic in it is as it must be, or of another kind, which nobody can repair.
    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.create_topic(topic, kind)
    }

    fn delete_topic(&self, topic: &str) -> Result<()> {
        match self.write(|store, wtxn| topics::forget(store, wtxn, topic))? {
            Some(id) => retention::sweep_all_remains(&self.store, id),
            None => Ok(()),
        }
    }

    fn topics(&self) -> Result<Vec<String>> {
        let txn = self.store.read()?;
        Ok(topics::all(&self.store, &txn)?.into_iter().map(|(name, _)| name).collect())
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        Ok(topics::row(&self.store, &*self.store.read()?, topic)?.partitions)
    }

    fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        Ok(Some(topics::row(&self.store, &*self.store.read()?, topic)?.id.to_string()))
    }

    fn grow(&self, topic: &str, partitions: u32) -> Result<()> {
        self.write(|store, wtxn| topics::grow(store, wtxn, topic, partitions))
    }

    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended>> {
        if payload.len() > Self::RECORD_BYTES_MAX {
            let too_large = LogError::TooLarge { bytes: payload.len(), bytes_max: Self::RECORD_BYTES_MAX };
            return std::future::ready(Err(too_large)).boxed();
        }
        let queued = self.committer.append(topic, partition, payload, stamp_ms);
        let (topic, path) = (topic.to_owned(), self.store.path.clone());
        async move {
            queued?.await.unwrap_or_else(|_| {
                let cause = format!("the committer of {} is gone", path.display());
                Err(LogError::Unclear { topic, partition, cause })
            })
        }
        .boxed()
    }

    fn reader(&self, topic: &str) -> Result<Box<dyn Reader>> {
        let row = topics::row(&self.store, &*self.store.read()?, topic)?;
        Ok(Box::new(EmbeddedReader::new(self.store.clone(), topic.to_owned(), row.id)))
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        let txn = self.store.read()?;
        let row = topics::row(&self.store, &txn, topic)?;
        let state = self.partition_of(&txn, topic, &row, partition)?;
        Ok(Bounds { start: state.start, end: state.end })
    }

    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> Result<Option<i64>> {
        let txn = self.store.read()?;
        let row = topics::row(&self.store, &txn, topic)?;
        let state = self.partition_of(&txn, topic, &row, partition)?;
        times::first_at(&self.store, &txn, (row.id, partition), &state, at_ms)
    }

    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<()> {
        check_group(&self.store, group)?;
        if let Some(committed) = progress.iter().find(|committed| committed.metadata.len() > METADATA_BYTES_MAX) {
            return Err(LogError::TooLarge { bytes: committed.metadata.len(), bytes_max: METADATA_BYTES_MAX });
        }
        self.write(|store, wtxn| {
            let row = topics::row(store, wtxn, topic)?;
            for committed in progress {
                let mut key = progress_prefix(row.id, group);
                key.extend_from_slice(&committed.partition.to_be_bytes());
                let value = [&committed.offset.to_le_bytes(), committed.metadata.as_bytes()].concat();
                store.progress.put(wtxn, &key, &value).map_err(|error| store.error(error))?;
            }
            Ok(())
        })
    }

    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>> {
        let store = &*self.store;
        check_group(store, group)?;
        let txn = store.read()?;
        let row = topics::row(store, &txn, topic)?;
        let prefix = progress_prefix(row.id, group);
        let mut progress = Vec::new();
        for entry in store.progress.prefix_iter(&txn, &prefix).map_err(|error| store.error(error))? {
            let (key, value) = entry.map_err(|error| store.error(error))?;
            if let Ok(partition) = <[u8; 4]>::try_from(&key[prefix.len()..]) {
                progress.push(Committed {
                    partition: u32::from_be_bytes(partition),
                    offset: i64_at(value, 0),
                    metadata: String::from_utf8_lossy(&value[8..]).into_owned(),
                });
            }
        }
        Ok(progress)
    }

    fn retention(&self, topic: &str) -> Result<Option<Duration>> {
        Ok(topics::row(&self.store, &*self.store.read()?, topic)?.retention())
    }
}

fn check_group(store: &Store, group: &str) -> Result<()> {
    if group.is_empty() || group.len() > GROUP_BYTES_MAX || group.contains('\0') {
        return Err(store.failure(format!("{group:?} cannot name a group (1 to {GROUP_BYTES_MAX} bytes, no NUL)")));
    }
    Ok(())
}
