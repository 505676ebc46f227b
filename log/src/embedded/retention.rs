//! Old records and deleted topics go, a little at a time, so that no append waits long for it.
//!
//! A cut first moves a partition's start (one small transaction, after which no reader sees the old records), then
//! sweeps what lies below it off the disk, [`SWEEP_RECORDS_MAX`] records a transaction.

use heed::RwTxn;

use super::{
    keys::{PartitionState, TopicId, offset_of_record_key, record_key},
    store::{Store, Table},
    times, topics,
};
use crate::Result;

/// Records deleted in one transaction: 512 × ~50 B of leaf is a few dozen pages to copy, some ms with the fsync.
const SWEEP_RECORDS_MAX: usize = 512;

/// Does one bounded step of what is to be done at `now_ms`; false if there was nothing.
pub(super) fn step(store: &Store, now_ms: i64) -> Result<bool> {
    // Look first without the writer's lock: nearly always there is nothing to do.
    let Some(place) = find_work(store, now_ms)? else { return Ok(false) };
    let mut wtxn = store.write()?;
    let did = match place {
        Work::Remains(topic) => sweep_remains(store, &mut wtxn, topic)?,
        Work::Partition(topic, partition, cutoff_ms) => {
            sweep_partition(store, &mut wtxn, (topic, partition), cutoff_ms)?
        }
    };
    store.commit(wtxn).map_err(|error| store.error(error))?;
    Ok(did)
}

/// Sweeps all remains of a deleted topic.
pub(super) fn sweep_all_remains(store: &Store, topic: TopicId) -> Result<()> {
    loop {
        let mut wtxn = store.write()?;
        let more = sweep_remains(store, &mut wtxn, topic)?;
        store.commit(wtxn).map_err(|error| store.error(error))?;
        if !more {
            return Ok(());
        }
    }
}

enum Work {
    Remains(TopicId),
    /// A partition with something stamped before the third, ms, or something to sweep.
    Partition(TopicId, u32, i64),
}

fn find_work(store: &Store, now_ms: i64) -> Result<Option<Work>> {
    let txn = store.read()?;
    if let Some(topic) = topics::remains(store, &txn)?.first() {
        return Ok(Some(Work::Remains(*topic)));
    }
    for (_, row) in topics::all(store, &txn)? {
        let cutoff_ms = row.retention_ms.map_or(i64::MIN, |retention_ms| now_ms.saturating_sub_unsigned(retention_ms));
        for (partition, state) in topics::partition_states(store, &txn, &row)? {
            let place = (row.id, partition);
            if state.swept < state.start || cut(store, &txn, place, &state, cutoff_ms)? != state.start {
                return Ok(Some(Work::Partition(row.id, partition, cutoff_ms)));
            }
        }
    }
    Ok(None)
}

/// Where the partition is to begin when everything before the first record stamped at or after `cutoff_ms` goes.
///
/// Always a record with an entry in the time index, or the end: so the index needs no rebuilding. To the end it goes
/// in two cuts, the first one to the last entry, so that few entries are left for the second.
fn cut(store: &Store, txn: &heed::RoTxn, place: (TopicId, u32), state: &PartitionState, cutoff_ms: i64) -> Result<i64> {
    if state.start == state.end || cutoff_ms == i64::MIN {
        return Ok(state.start);
    }
    if let Some(first) = times::first_at(store, txn, place, state, cutoff_ms)? {
        return Ok(first);
    }
    let last_entry = times::last_entry(store, txn, place)?.unwrap_or(state.end);
    Ok(if state.swept < last_entry { last_entry } else { state.end })
}

/// Moves the start, or sweeps up to [`SWEEP_RECORDS_MAX`] records below it. True if it did something.
pub(super) fn sweep_partition(store: &Store, wtxn: &mut RwTxn, place: (TopicId, u32), cutoff_ms: i64) -> Result<bool> {
    let (topic, partition) = place;
    let Some(mut state) = store.partition(wtxn, topic, partition)? else { return Ok(false) };
    let before = state;
    if state.swept == state.start {
        state.start = cut(store, wtxn, place, &state, cutoff_ms)?;
        if state.start == state.end && before.start != state.end {
            times::remove_below(store, wtxn, place, state.end, usize::MAX)?;
            state.max_stamp_ms = i64::MIN;
        }
    }
    sweep(store, wtxn, place, &mut state)?;
    if state != before {
        store.put_partition(wtxn, topic, partition, state)?;
    }
    Ok(state != before)
}

/// Deletes up to [`SWEEP_RECORDS_MAX`] records below the start, and their entries.
pub(super) fn sweep(store: &Store, wtxn: &mut RwTxn, place: (TopicId, u32), state: &mut PartitionState) -> Result<()> {
    let (topic, partition) = place;
    let (first, last) = (record_key(topic, partition, state.swept), record_key(topic, partition, state.start));
    let (count, bytes, next) = delete_records(store, wtxn, &first, &last)?;
    topics::add_bytes(store, wtxn, -bytes)?;
    let entries = times::remove_below(store, wtxn, place, state.start, SWEEP_RECORDS_MAX)?;
    if count < SWEEP_RECORDS_MAX && entries < SWEEP_RECORDS_MAX {
        state.swept = state.start;
    } else if let Some(next) = next {
        state.swept = state.swept.max(next);
    }
    Ok(())
}

/// Deletes up to [`SWEEP_RECORDS_MAX`] records with `first ≤ key < last`: how many, their bytes on disk, and the
/// offset after the last.
fn delete_records(store: &Store, wtxn: &mut RwTxn, first: &[u8], last: &[u8]) -> Result<(usize, i64, Option<i64>)> {
    let keys = (std::ops::Bound::Included(first), std::ops::Bound::Excluded(last));
    let (mut count, mut bytes, mut next) = (0, 0, None);
    let mut records = store.records.range_mut(wtxn, &keys).map_err(|error| store.error(error))?;
    while count < SWEEP_RECORDS_MAX
        && let Some((key, value)) = records.next().transpose().map_err(|error| store.error(error))?
    {
        bytes += topics::disk_bytes(value.len());
        next = Some(offset_of_record_key(key) + 1);
        count += 1;
        // SAFETY: nothing borrowed from the table lives on: key and value were read before.
        unsafe { records.del_current() }.map_err(|error| store.error(error))?;
    }
    Ok((count, bytes, next))
}

/// One bounded step of clearing away a deleted topic; false if it was the last.
fn sweep_remains(store: &Store, wtxn: &mut RwTxn, topic: TopicId) -> Result<bool> {
    let prefix = topic.to_be_bytes();
    let (first, last) = (record_key(topic, 0, 0), record_key(topic, u32::MAX, i64::MAX));
    let (records, bytes, _) = delete_records(store, wtxn, &first, &last)?;
    topics::add_bytes(store, wtxn, -bytes)?;
    let mut more = records == SWEEP_RECORDS_MAX;
    for table in [store.times, store.partitions, store.progress] {
        more |= delete_prefix(store, wtxn, table, &prefix)? == SWEEP_RECORDS_MAX;
    }
    if !more {
        topics::remains_are_gone(store, wtxn, topic)?;
    }
    Ok(more)
}

fn delete_prefix(store: &Store, wtxn: &mut RwTxn, table: Table, prefix: &[u8]) -> Result<usize> {
    let mut count = 0;
    let mut entries = table.prefix_iter_mut(wtxn, prefix).map_err(|error| store.error(error))?;
    while count < SWEEP_RECORDS_MAX && entries.next().transpose().map_err(|error| store.error(error))?.is_some() {
        // SAFETY: nothing borrowed from the table lives on.
        unsafe { entries.del_current() }.map_err(|error| store.error(error))?;
        count += 1;
    }
    Ok(count)
}
