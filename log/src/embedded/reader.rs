use std::{
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    keys::{TopicId, i64_at, offset_of_record_key, record_key},
    store::Store,
    watch,
};
use crate::{LogError, Reader, RecordRef, Result, Wake};

/// Reads a topic by short transactions: one a poll, so that no page is pinned between polls, and the payloads that
/// `each` sees are the mapped file's own bytes.
pub(super) struct EmbeddedReader {
    store: Arc<Store>,
    topic: String,
    id: TopicId,
    partitions: Vec<Assigned>,
    /// Where the next poll begins, so that no partition waits for ever for another.
    turn: usize,
    /// Number of the last transaction after which nothing was left to read; 0: something may be left.
    drained_at: usize,
    wake: Option<Arc<Wake>>,
}

struct Assigned {
    partition: u32,
    next: i64,
    held: bool,
}

impl EmbeddedReader {
    pub(super) fn new(store: Arc<Store>, topic: String, id: TopicId) -> Self {
        Self { store, topic, id, partitions: Vec::new(), turn: 0, drained_at: 0, wake: None }
    }

    /// One look, without waiting.
    fn read(&mut self, records_max: usize, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        let store = &*self.store;
        let txn = store.read()?;
        let active = self.partitions.iter().filter(|assigned| !assigned.held).count();
        let mut given = 0;
        let mut drained = true;
        for place in 0..self.partitions.len() {
            let count = self.partitions.len();
            let assigned = &mut self.partitions[(self.turn + place) % count];
            if assigned.held {
                continue;
            }
            let state = store
                .partition(&txn, self.id, assigned.partition)?
                .ok_or_else(|| LogError::UnknownTopic(self.topic.clone()))?;
            if assigned.next < state.start {
                // Told by a poll that gives nothing: by a later one, if there was something to give.
                if given > 0 {
                    drained = false;
                    continue;
                }
                return Err(LogError::BelowStart {
                    topic: self.topic.clone(),
                    partition: assigned.partition,
                    offset: assigned.next,
                    start: state.start,
                });
            }
            let share = (records_max / active).max(1).min(records_max - given);
            let (first, last) = (
                record_key(self.id, assigned.partition, assigned.next),
                record_key(self.id, assigned.partition, state.end),
            );
            let keys = (Bound::Included(&first[..]), Bound::Excluded(&last[..]));
            if assigned.next < state.end && share > 0 {
                for entry in store.records.range(&txn, &keys).map_err(|error| store.error(error))?.take(share) {
                    let (key, value) = entry.map_err(|error| store.error(error))?;
                    let offset = offset_of_record_key(key);
                    each(RecordRef {
                        partition: assigned.partition,
                        offset,
                        stamp_ms: i64_at(value, 0),
                        payload: &value[8..],
                    });
                    assigned.next = offset + 1;
                    given += 1;
                }
            }
            drained &= assigned.next >= state.end;
        }
        self.turn = self.turn.wrapping_add(1);
        self.drained_at = if drained { txn.id() } else { 0 };
        Ok(given)
    }
}

impl Reader for EmbeddedReader {
    fn assign(&mut self, partition: u32, offset: i64) -> Result<()> {
        let txn = self.store.read()?;
        let state = self
            .store
            .partition(&txn, self.id, partition)?
            .ok_or_else(|| self.store.failure(format!("topic {} has no partition {partition}", self.topic)))?;
        drop(txn);
        if offset < state.start {
            return Err(LogError::BelowStart { topic: self.topic.clone(), partition, offset, start: state.start });
        }
        if offset > state.end {
            return Err(self.store.failure(format!(
                "topic {} partition {partition}: offset {offset} is past the end {}",
                self.topic, state.end
            )));
        }
        self.partitions.retain(|assigned| assigned.partition != partition);
        self.partitions.push(Assigned { partition, next: offset, held: false });
        self.drained_at = 0;
        Ok(())
    }

    fn poll(&mut self, records_max: usize, timeout: Duration, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.store.last_txn() != self.drained_at {
                let given = self.read(records_max, each)?;
                if given > 0 || records_max == 0 {
                    return Ok(given);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.store.wait_for_commit(self.drained_at, left) {
                return Ok(0);
            }
        }
    }

    fn hold(&mut self, partition: u32, held: bool) {
        for assigned in self.partitions.iter_mut().filter(|assigned| assigned.partition == partition) {
            assigned.held = held;
            self.drained_at = 0;
        }
        // What came while it was held woke nobody who could take it.
        if !held && let Some(wake) = &self.wake {
            wake();
        }
    }

    fn set_wake(&mut self, wake: Wake) {
        let wake = Arc::new(wake);
        watch::register(&self.store, &wake);
        self.wake = Some(wake);
    }
}
