//! The plainest recomputation of a generation's table from a log: what the pipeline, and everything behind it, is held to.
//!
//! ```text
//!  all records of all partitions ──▶ A ──▶ first of its copies? ──▶ t, closes_in, counts_for ──▶ rows in a map
//! ```
//!
//! Read whole, by the definitions: no watermark, no windows that open and close, no order of reading. It has its own
//! decoder, its own A, t and closes_in; with the pipeline it shares only the schema's words (what a version names, which
//! measures a kind counts for, how rules class an agent), so that a mistake in one is not a mistake in both.
//!
//! Start at [`table`]. [`event`] draws events for tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use weir_schemas::{CLAIM_AGE_MAX_MS, CLOCK_BOUND_MS, DEDUP_HORIZON_MS, SchemaVersion};

mod decode;
mod drawn;
mod rows;

pub use drawn::{event, pick};

/// A record as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The log's clock at the append, ms since the Unix epoch.
    pub stamp_ms: i64,
    pub payload: Bytes,
}

/// A row's key: (emitted in, site, dimension, counts for, value); times in ms since the Unix epoch.
pub type Key = (i64, String, String, i64, String);

/// Key → (counts in the order of the version's measures, distinct visitors).
pub type Table = BTreeMap<Key, (Vec<u64>, BTreeSet<u64>)>;

/// One event of the log, wherever it is.
struct Copy {
    /// (A, partition, offset, index in the batch): the first of equal ones counts.
    position: (i64, usize, usize, usize),
    batch_counts: bool,
    event: decode::Event,
}

/// The table of a log: of each partition all records from offset 0 on, and when it came into use.
pub fn table(partitions: &[Vec<Record>], effective_ms: &[i64], version: &SchemaVersion) -> Table {
    let mut ids: HashMap<(String, String), Vec<i64>> = HashMap::new();
    let mut table = Table::new();
    for copy in copies(partitions, effective_ms) {
        let (arrival_ms, event) = (copy.position.0, &copy.event);
        let mut counts = copy.batch_counts;
        if !event.id.is_empty() {
            let seen = ids.entry((event.site.clone(), event.id.clone())).or_default();
            counts &= !seen.iter().any(|at| arrival_ms - at <= DEDUP_HORIZON_MS);
            seen.push(arrival_ms);
        }
        if !counts {
            continue;
        }
        let mut time_ms = event.claimed_ms.unwrap_or(event.received_ms).min(arrival_ms);
        if arrival_ms - time_ms > CLAIM_AGE_MAX_MS {
            time_ms = arrival_ms;
        }
        let window = |at_ms: i64| at_ms - at_ms.rem_euclid(version.width.ms());
        let emitted_in = window(if arrival_ms - time_ms <= version.lateness_ms { time_ms } else { arrival_ms });
        rows::count(event, emitted_in, window(time_ms), version, &mut table);
    }
    rows::limit(table, version)
}

/// All events, in the order that decides among copies.
fn copies(partitions: &[Vec<Record>], effective_ms: &[i64]) -> Vec<Copy> {
    let mut copies = Vec::new();
    for (partition, records) in partitions.iter().enumerate() {
        let mut arrival_ms = effective_ms[partition];
        let mut batches: HashMap<(Vec<u8>, u64), Vec<i64>> = HashMap::new();
        for (offset, record) in records.iter().enumerate() {
            let Some(decoded) = decode::record(&record.payload) else { continue };
            arrival_ms = arrival_ms.max(record.stamp_ms.min(decoded.sent_ms + CLOCK_BOUND_MS));
            let Some(batch) = decoded.batch else { continue };
            let before = batches.entry(batch.name).or_default();
            let batch_counts = !before.iter().any(|at| arrival_ms - at <= DEDUP_HORIZON_MS);
            before.push(arrival_ms);
            copies.extend(batch.events.into_iter().enumerate().map(|(index, event)| {
                let position = (arrival_ms, partition, offset, index);
                Copy { position, batch_counts, event }
            }));
        }
    }
    copies.sort_by_key(|copy| copy.position);
    copies
}

/// How often each value of a property must have been counted: once, and once more for each gap of more than a horizon
/// between the copies of its event; never nought times. Holds if a value names one event, and its copies are in equal
/// batches or carry equal ids.
pub fn conserved(partitions: &[Vec<Record>], effective_ms: &[i64], prop: &str) -> BTreeMap<String, u64> {
    let mut arrivals: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for copy in copies(partitions, effective_ms) {
        let named = copy.event.props.iter().find(|(name, _)| name == prop);
        if let Some((_, value)) = named {
            arrivals.entry(value.clone()).or_default().push(copy.position.0);
        }
    }
    let gaps = |at: &[i64]| at.windows(2).filter(|pair| pair[1] - pair[0] > DEDUP_HORIZON_MS).count() as u64;
    arrivals.into_iter().map(|(value, at)| (value, 1 + gaps(&at))).collect()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use weir_schemas::wire::{BatchBuilder, batch_record, tick_record};

    use super::*;

    #[test]
    fn its_decoder_reads_what_was_written() {
        let (mut rng, mut ids) = (StdRng::seed_from_u64(5), Vec::new());
        for sequence in 0..50 {
            let events: Vec<_> = (0..sequence % 7).map(|_| event(&mut rng, 1_700_000_000_000, &mut ids)).collect();
            let mut batch = BatchBuilder::new([7; 16], sequence);
            events.iter().for_each(|event| batch.push(event));
            let decoded = decode::record(&batch_record(-5, &batch.finish())).expect("a record");
            let read = decoded.batch.expect("a batch");
            assert_eq!((decoded.sent_ms, read.name), (-5, (vec![7; 16], sequence)));
            for (read, wrote) in read.events.iter().zip(&events) {
                let texts = [&read.site, &read.id, &read.host, &read.page, &read.query, &read.referrer];
                assert_eq!(texts, [&wrote.site, &wrote.id, &wrote.host, &wrote.page, &wrote.query, &wrote.referrer]);
                let texts = [&read.user_agent, &read.country, &read.target];
                assert_eq!(texts, [&wrote.user_agent, &wrote.country, &wrote.target]);
                assert_eq!((read.received_ms, read.claimed_ms), (wrote.received_ms, wrote.claimed_ms));
                assert_eq!((read.visitor, read.kind, &read.props), (wrote.visitor, wrote.kind as u32, &wrote.props));
            }
            assert_eq!(read.events.len(), events.len());
        }
        assert!(decode::record(&tick_record(3)).is_some_and(|tick| tick.batch.is_none() && tick.sent_ms == 3));
        assert!(decode::record(b"not weir's").is_none() && decode::record(b"").is_none());
    }
}
