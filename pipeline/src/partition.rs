//! What a run knows of one partition: its arrival time, and the batches that a copy could still come of.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use weir_schemas::DEDUP_HORIZON_MS;

/// (collector, sequence): names a batch.
type BatchName = ([u8; 16], u64);

/// Invariant: `arrival_ms` never goes back.
#[derive(Debug)]
pub(crate) struct Partition {
    arrival_ms: i64,
    /// Arrival of the newest record of each batch within the horizon.
    newest: FxHashMap<BatchName, i64>,
    /// The same in the order of arrival, with entries that a newer copy has outdated.
    order: VecDeque<(i64, BatchName)>,
}

impl Partition {
    /// A partition of which nothing was read: its arrival time starts at its effective time.
    pub(crate) fn new(effective_ms: i64) -> Self {
        Self { arrival_ms: effective_ms, newest: FxHashMap::default(), order: VecDeque::new() }
    }

    pub(crate) fn arrival_ms(&self) -> i64 {
        self.arrival_ms
    }

    /// Takes the next record's time, and gives the record's arrival time.
    pub(crate) fn arrive(&mut self, stamp_ms: i64) -> i64 {
        self.arrival_ms = self.arrival_ms.max(stamp_ms);
        let forgotten = self.arrival_ms - DEDUP_HORIZON_MS;
        while let Some((arrival_ms, name)) = self.order.front()
            && *arrival_ms < forgotten
        {
            if self.newest.get(name) == Some(arrival_ms) {
                self.newest.remove(name);
            }
            self.order.pop_front();
        }
        self.arrival_ms
    }

    /// Whether the record that has just arrived is the batch's first within the horizon; a copy keeps later ones from
    /// counting, whether or not it counted itself.
    pub(crate) fn first(&mut self, name: BatchName) -> bool {
        let before = self.newest.insert(name, self.arrival_ms);
        self.order.push_back((self.arrival_ms, name));
        before.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: BatchName = ([1; 16], 1);

    #[test]
    fn arrival_time_never_goes_back() {
        let mut partition = Partition::new(100);
        assert_eq!([50, 120, 110].map(|stamp| partition.arrive(stamp)), [100, 120, 120]);
    }

    #[test]
    fn a_copy_counts_again_only_after_a_horizon_without_copies() {
        let mut partition = Partition::new(0);
        let mut at = |ms| {
            partition.arrive(ms);
            partition.first(NAME)
        };
        assert!(at(0));
        assert!(!at(DEDUP_HORIZON_MS));
        assert!(!at(2 * DEDUP_HORIZON_MS), "a copy that did not count keeps the next one from counting");
        assert!(at(3 * DEDUP_HORIZON_MS + 1));
    }
}
