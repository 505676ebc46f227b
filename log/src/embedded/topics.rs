use std::time::Duration;

use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::{
    keys::{PartitionState, TopicId, i64_at, partition_key},
    store::Store,
};
use crate::{LogError, Result, TopicKind};

/// What is stored of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicRow {
    pub(super) id: TopicId,
    pub(super) kind: Kind,
    pub(super) partitions: u32,
    /// ms; `None`: for ever.
    pub(super) retention_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Events,
    Control,
    Salts,
    Import,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Events => "events",
            Kind::Control => "control",
            Kind::Salts => "salts",
            Kind::Import => "import",
        }
    }
}

/// Kafka's rule, so that a name that is good here is good there.
fn check_name(store: &Store, topic: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.bytes().all(good) {
        return Err(
            store.failure(format!("{topic:?} cannot name a topic (1 to 249 ASCII letters, digits, '.', '_' or '-')"))
        );
    }
    Ok(())
}

/// The topic's row; [`LogError::UnknownTopic`] if there is none.
pub(super) fn row(store: &Store, txn: &RoTxn, topic: &str) -> Result<TopicRow> {
    find(store, txn, topic)?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))
}

fn find(store: &Store, txn: &RoTxn, topic: &str) -> Result<Option<TopicRow>> {
    if topic.is_empty() || topic.len() > 249 {
        return Ok(None);
    }
    match store.topics.get(txn, topic.as_bytes()).map_err(|error| store.error(error))? {
        None => Ok(None),
        Some(bytes) => serde_json::from_slice(bytes)
            .map(Some)
            .map_err(|error| store.failure(format!("what is stored of topic {topic} cannot be read: {error}"))),
    }
}

fn put(store: &Store, wtxn: &mut RwTxn, topic: &str, row: &TopicRow) -> Result<()> {
    let json = serde_json::to_vec(row).expect("a topic's row is JSON");
    store.topics.put(wtxn, topic.as_bytes(), &json).map_err(|error| store.error(error))
}

/// All topics, by name.
pub(super) fn all(store: &Store, txn: &RoTxn) -> Result<Vec<(String, TopicRow)>> {
    let mut topics = Vec::new();
    for entry in store.topics.iter(txn).map_err(|error| store.error(error))? {
        let (name, row) = entry.map_err(|error| store.error(error))?;
        let row = serde_json::from_slice(row)
            .map_err(|error| store.failure(format!("what is stored of a topic cannot be read: {error}")))?;
        topics.push((String::from_utf8_lossy(name).into_owned(), row));
    }
    Ok(topics)
}

/// Makes the topic. One that is there must be of the same kind; its retention becomes what `kind` says, its partitions
/// stay as they are.
pub(super) fn create(store: &Store, wtxn: &mut RwTxn, topic: &str, kind: &TopicKind) -> Result<()> {
    check_name(store, topic)?;
    let (kind, partitions, retention) = match kind {
        TopicKind::Events { partitions, retention } => (Kind::Events, *partitions, Some(*retention)),
        TopicKind::Control => (Kind::Control, 1, None),
        TopicKind::Salts => (Kind::Salts, 1, Some(crate::SALTS_RETENTION)),
        TopicKind::Import { partitions } => (Kind::Import, *partitions, None),
    };
    let retention_ms = retention.map(|retention| retention.as_millis() as u64);
    match find(store, wtxn, topic)? {
        Some(found) if found.kind != kind => Err(LogError::WrongTopic {
            topic: topic.to_owned(),
            setting: "kind".to_owned(),
            found: found.kind.name().to_owned(),
            needed: kind.name().to_owned(),
        }),
        Some(found) if found.retention_ms == retention_ms => Ok(()),
        Some(found) => put(store, wtxn, topic, &TopicRow { retention_ms, ..found }),
        None => {
            let id = next_id(store, wtxn)?;
            put(store, wtxn, topic, &TopicRow { id, kind, partitions, retention_ms })?;
            for partition in 0..partitions {
                store.put_partition(wtxn, id, partition, PartitionState::EMPTY)?;
            }
            Ok(())
        }
    }
}

pub(super) fn grow(store: &Store, wtxn: &mut RwTxn, topic: &str, partitions: u32) -> Result<()> {
    let found = row(store, wtxn, topic)?;
    for partition in found.partitions..partitions {
        store.put_partition(wtxn, found.id, partition, PartitionState::EMPTY)?;
    }
    if partitions > found.partitions {
        put(store, wtxn, topic, &TopicRow { partitions, ..found })?;
    }
    Ok(())
}

/// Takes the topic's name away and leaves its remains to [`super::retention`]. Returns its number.
pub(super) fn forget(store: &Store, wtxn: &mut RwTxn, topic: &str) -> Result<Option<TopicId>> {
    let Some(found) = find(store, wtxn, topic)? else { return Ok(None) };
    store.topics.delete(wtxn, topic.as_bytes()).map_err(|error| store.error(error))?;
    store.state.put(wtxn, &remains_key(found.id), &[]).map_err(|error| store.error(error))?;
    Ok(Some(found.id))
}

/// Numbers of deleted topics that have left something.
pub(super) fn remains(store: &Store, txn: &RoTxn) -> Result<Vec<TopicId>> {
    let mut ids = Vec::new();
    for entry in store.state.prefix_iter(txn, REMAINS).map_err(|error| store.error(error))? {
        let (key, _) = entry.map_err(|error| store.error(error))?;
        if let Ok(id) = <[u8; 4]>::try_from(&key[REMAINS.len()..]) {
            ids.push(u32::from_be_bytes(id));
        }
    }
    Ok(ids)
}

pub(super) fn remains_are_gone(store: &Store, wtxn: &mut RwTxn, id: TopicId) -> Result<()> {
    store.state.delete(wtxn, &remains_key(id)).map_err(|error| store.error(error))?;
    Ok(())
}

const REMAINS: &[u8] = b"remains:";
const NEXT_ID: &[u8] = b"next_topic_id";
const BYTES: &[u8] = b"bytes";

fn remains_key(id: TopicId) -> Vec<u8> {
    [REMAINS, &id.to_be_bytes()].concat()
}

fn next_id(store: &Store, wtxn: &mut RwTxn) -> Result<TopicId> {
    let next = number(store, wtxn, NEXT_ID)?;
    store.state.put(wtxn, NEXT_ID, &(next + 1).to_le_bytes()).map_err(|error| store.error(error))?;
    TopicId::try_from(next).map_err(|_| store.failure("there were more than 2^32 topics"))
}

/// Bytes on disk that records take, by [`disk_bytes`].
pub(super) fn bytes(store: &Store, txn: &RoTxn) -> Result<i64> {
    number(store, txn, BYTES)
}

pub(super) fn add_bytes(store: &Store, wtxn: &mut RwTxn, added: i64) -> Result<()> {
    let bytes = bytes(store, wtxn)? + added;
    store.state.put(wtxn, BYTES, &bytes.to_le_bytes()).map_err(|error| store.error(error))
}

fn number(store: &Store, txn: &RoTxn, key: &[u8]) -> Result<i64> {
    let bytes = store.state.get(txn, key).map_err(|error| store.error(error))?;
    Ok(bytes.map_or(0, |bytes| i64_at(bytes, 0)))
}

/// What a record's value of `value_bytes` takes on disk: LMDB gives whole 4 KiB pages to a value over about 2,000
/// bytes, with a header of 16; key, node and time index are some 100 bytes.
pub(super) fn disk_bytes(value_bytes: usize) -> i64 {
    let value = if value_bytes > 2_000 { (value_bytes + 16).next_multiple_of(4_096) } else { value_bytes };
    (value + 100) as i64
}

/// Offsets of all partitions of the topic, ascending by partition.
pub(super) fn partition_states(store: &Store, txn: &RoTxn, row: &TopicRow) -> Result<Vec<(u32, PartitionState)>> {
    let mut states = Vec::with_capacity(row.partitions as usize);
    for partition in 0..row.partitions {
        let state = store
            .partition(txn, row.id, partition)?
            .ok_or_else(|| store.failure(format!("partition key {:?} is missing", partition_key(row.id, partition))))?;
        states.push((partition, state));
    }
    Ok(states)
}

impl TopicRow {
    pub(super) fn retention(&self) -> Option<Duration> {
        self.retention_ms.map(Duration::from_millis)
    }
}
