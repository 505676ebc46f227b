//! Events with an id of their client's: of those with equal site and id within the horizon the first counts, in the
//! order (arrival, partition, offset, index), which is the same for every reader.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use weir_schemas::DEDUP_HORIZON_MS;

/// Place of a record among all records of the log.
pub(crate) type Position = (i64, u32, i64);

/// 128 bits of a BLAKE3 hash of site and id: a stranger cannot make another site's id of his own.
pub(crate) type IdKey = u128;

pub(crate) fn id_key(site: &str, id: &str) -> IdKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(site.len() as u64).to_le_bytes());
    hasher.update(site.as_bytes());
    hasher.update(id.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(key)
}

/// Records that wait to be decided, and the ids that a copy could still come of. `R` holds a record's events with ids.
#[derive(Debug)]
pub(crate) struct Ordering<R> {
    waiting: BTreeMap<Position, R>,
    newest: FxHashMap<IdKey, i64>,
    order: VecDeque<(i64, IdKey)>,
}

impl<R> Ordering<R> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), newest: FxHashMap::default(), order: VecDeque::new() }
    }

    pub(crate) fn wait(&mut self, position: Position, record: R) {
        self.waiting.insert(position, record);
    }

    /// The next record that arrived before `low_ms`, in order. Everything with a smaller position must be waiting, or
    /// have been taken.
    pub(crate) fn next_below(&mut self, low_ms: i64) -> Option<(Position, R)> {
        let first = self.waiting.first_entry()?;
        (first.key().0 < low_ms).then(|| first.remove_entry())
    }

    /// Whether the event is the first of its copies within the horizon; it beats later ones in any case.
    pub(crate) fn first(&mut self, key: IdKey, arrival_ms: i64) -> bool {
        let before = self.newest.insert(key, arrival_ms);
        self.order.push_back((arrival_ms, key));
        before.is_none_or(|before| arrival_ms - before > DEDUP_HORIZON_MS)
    }

    /// Forgets what no event that is still to be decided can be a copy of.
    pub(crate) fn forget_below(&mut self, low_ms: i64) {
        while let Some((arrival_ms, key)) = self.order.front()
            && *arrival_ms < low_ms.saturating_sub(DEDUP_HORIZON_MS)
        {
            if self.newest.get(key) == Some(arrival_ms) {
                self.newest.remove(key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_copy_counts_and_a_copy_that_does_not_count_beats_the_next_one() {
        let mut ordering = Ordering::<()>::new();
        assert!(ordering.first(7, 0));
        assert!(!ordering.first(7, DEDUP_HORIZON_MS));
        assert!(!ordering.first(7, 2 * DEDUP_HORIZON_MS));
        assert!(ordering.first(7, 3 * DEDUP_HORIZON_MS + 1));
        assert!(ordering.first(8, 0));
    }

    #[test]
    fn what_is_forgotten_could_not_have_been_copied() {
        let mut ordering = Ordering::<()>::new();
        ordering.first(7, 0);
        ordering.forget_below(DEDUP_HORIZON_MS);
        assert!(!ordering.first(7, DEDUP_HORIZON_MS));
        ordering.forget_below(2 * DEDUP_HORIZON_MS + 1);
        assert!(ordering.newest.is_empty());
    }

    #[test]
    fn records_are_decided_in_the_order_of_their_positions_once_all_before_them_are_there() {
        let mut ordering = Ordering::new();
        ordering.wait((20, 0, 5), 'c');
        ordering.wait((10, 1, 9), 'b');
        ordering.wait((10, 0, 4), 'a');
        let mut next = |low| ordering.next_below(low).map(|(_, record)| record);
        assert_eq!([next(10), next(20), next(20), next(20), next(21)], [None, Some('a'), Some('b'), None, Some('c')]);
    }

    #[test]
    fn site_and_id_do_not_run_together() {
        assert_ne!(id_key("ab", "c"), id_key("a", "bc"));
    }
}
