//! How keys and small values are laid out. Numbers in keys are big-endian, so that LMDB's byte order is theirs.

/// Number of a topic; never used again, so that the remains of a deleted topic cannot be taken for a new one's.
pub(super) type TopicId = u32;

/// What is stored of a partition, besides its records.
///
/// Invariants: `swept ≤ start ≤ end`; the records `start..end` are all there; those below `swept` are all gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionState {
    /// First offset of the log.
    pub(super) start: i64,
    /// The next record's offset.
    pub(super) end: i64,
    /// First offset that may still be on disk.
    pub(super) swept: i64,
    /// The largest stamp of `start..end`, `i64::MIN` if there is none.
    pub(super) max_stamp_ms: i64,
}

impl PartitionState {
    pub(super) const EMPTY: Self = Self { start: 0, end: 0, swept: 0, max_stamp_ms: i64::MIN };

    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let numbers = [self.start, self.end, self.swept, self.max_stamp_ms];
        for (slot, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 32).then(|| Self {
            start: i64_at(bytes, 0),
            end: i64_at(bytes, 8),
            swept: i64_at(bytes, 16),
            max_stamp_ms: i64_at(bytes, 24),
        })
    }
}

/// The little-endian number at `at`; panics if `bytes` is too short.
pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of 8 bytes"))
}

pub(super) fn partition_key(topic: TopicId, partition: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&topic.to_be_bytes());
    key[4..].copy_from_slice(&partition.to_be_bytes());
    key
}

/// Key of a record. Offsets are never negative.
pub(super) fn record_key(topic: TopicId, partition: u32, offset: i64) -> [u8; 16] {
    key_of(topic, partition, offset as u64)
}

pub(super) fn offset_of_record_key(key: &[u8]) -> i64 {
    u64::from_be_bytes(key[8..16].try_into().expect("a record's key has 16 bytes")) as i64
}

/// Key of an entry of the time index. The sign bit is flipped, so that negative stamps come first.
pub(super) fn time_key(topic: TopicId, partition: u32, stamp_ms: i64) -> [u8; 16] {
    key_of(topic, partition, (stamp_ms as u64) ^ (1 << 63))
}

fn key_of(topic: TopicId, partition: u32, last: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&partition_key(topic, partition));
    key[8..].copy_from_slice(&last.to_be_bytes());
    key
}

/// Keys of the progress of `group` begin with this; the partition follows, big-endian.
pub(super) fn progress_prefix(topic: TopicId, group: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + group.len() + 1 + 4);
    key.extend_from_slice(&topic.to_be_bytes());
    key.extend_from_slice(group.as_bytes());
    key.push(0);
    key
}
