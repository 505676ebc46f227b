//! The time index: an entry for each record whose stamp is above all stamps before it.
//!
//! The first record stamped at or after `t` is above all before it (they are below `t`), so it has an entry, and the
//! entries ascend in stamp and in offset alike: the first entry at or after `t` is that record. Exact, however often
//! the clock steps back.

use heed::RwTxn;

use super::{
    keys::{PartitionState, TopicId, i64_at, offset_of_record_key, record_key, time_key},
    store::Store,
};
use crate::Result;

/// Enters the record at `offset`, about to become the last one of the partition.
pub(super) fn enter(
    store: &Store,
    wtxn: &mut RwTxn,
    (topic, partition): (TopicId, u32),
    state: &mut PartitionState,
    offset: i64,
    stamp_ms: i64,
) -> heed::Result<()> {
    // The first record of all is entered even with the smallest stamp there is.
    if stamp_ms > state.max_stamp_ms || state.start == offset {
        store.times.put(wtxn, &time_key(topic, partition, stamp_ms), &offset.to_le_bytes())?;
        state.max_stamp_ms = stamp_ms;
    }
    Ok(())
}

/// The first record of `start..end` stamped at or after `at_ms`.
pub(super) fn first_at(
    store: &Store,
    txn: &heed::RoTxn,
    (topic, partition): (TopicId, u32),
    state: &PartitionState,
    at_ms: i64,
) -> Result<Option<i64>> {
    let keys = time_key(topic, partition, at_ms)..=time_key(topic, partition, i64::MAX);
    let keys = (std::ops::Bound::Included(&keys.start()[..]), std::ops::Bound::Included(&keys.end()[..]));
    let found = store
        .times
        .range(txn, &keys)
        .and_then(|mut entries| entries.next().transpose())
        .map_err(|error| store.error(error))?;
    // An entry below the start waits to be swept; the start has an entry of its own with a larger stamp.
    Ok(found.map(|(_, offset)| i64_at(offset, 0).max(state.start)).filter(|offset| *offset < state.end))
}

/// The largest stamp's offset; `None` if the partition is empty.
pub(super) fn last_entry(store: &Store, txn: &heed::RoTxn, (topic, partition): (TopicId, u32)) -> Result<Option<i64>> {
    let (first, last) = (time_key(topic, partition, i64::MIN), time_key(topic, partition, i64::MAX));
    let keys = (std::ops::Bound::Included(&first[..]), std::ops::Bound::Included(&last[..]));
    let found = store
        .times
        .rev_range(txn, &keys)
        .and_then(|mut entries| entries.next().transpose())
        .map_err(|error| store.error(error))?;
    Ok(found.map(|(_, offset)| i64_at(offset, 0)))
}

/// Removes up to `entries_max` entries of offsets below `below`; returns how many there were.
pub(super) fn remove_below(
    store: &Store,
    wtxn: &mut RwTxn,
    (topic, partition): (TopicId, u32),
    below: i64,
    entries_max: usize,
) -> Result<usize> {
    let (first, last) = (time_key(topic, partition, i64::MIN), time_key(topic, partition, i64::MAX));
    let keys = (std::ops::Bound::Included(&first[..]), std::ops::Bound::Included(&last[..]));
    let mut removed = 0;
    let mut entries = store.times.range_mut(wtxn, &keys).map_err(|error| store.error(error))?;
    while removed < entries_max
        && let Some((_, offset)) = entries.next().transpose().map_err(|error| store.error(error))?
        && i64_at(offset, 0) < below
    {
        // SAFETY: nothing borrowed from the table lives on: `offset` was read before.
        unsafe { entries.del_current() }.map_err(|error| store.error(error))?;
        removed += 1;
    }
    Ok(removed)
}

/// Moves the start of the partition up to any offset `to`, and makes the index what it would be had the log begun there.
pub(super) fn begin_at(
    store: &Store,
    wtxn: &mut RwTxn,
    (topic, partition): (TopicId, u32),
    state: &mut PartitionState,
    to: i64,
) -> Result<()> {
    let place = (topic, partition);
    remove_below(store, wtxn, place, to, usize::MAX)?;
    // What comes before the next entry was hidden by a record that is now gone.
    let next = first_at(store, wtxn, place, state, i64::MIN)?.unwrap_or(state.end);
    let mut hidden = Vec::new();
    let mut max_stamp_ms = i64::MIN;
    {
        let (first, last) = (record_key(topic, partition, to), record_key(topic, partition, next));
        let keys = (std::ops::Bound::Included(&first[..]), std::ops::Bound::Excluded(&last[..]));
        for entry in store.records.range(wtxn, &keys).map_err(|error| store.error(error))? {
            let (key, value) = entry.map_err(|error| store.error(error))?;
            let stamp_ms = i64_at(value, 0);
            if stamp_ms > max_stamp_ms || hidden.is_empty() {
                max_stamp_ms = stamp_ms;
                hidden.push((stamp_ms, offset_of_record_key(key)));
            }
        }
    }
    for (stamp_ms, offset) in hidden {
        store
            .times
            .put(wtxn, &time_key(topic, partition, stamp_ms), &offset.to_le_bytes())
            .map_err(|error| store.error(error))?;
    }
    if next == state.end {
        state.max_stamp_ms = max_stamp_ms;
    }
    state.start = to;
    Ok(())
}
