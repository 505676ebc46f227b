//! What is in the table, against what was acknowledged, and against the plainest recomputation from the log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use weir_log::{Log, PartitionInUse};
use weir_oracle::{Key, Record};
use weir_schemas::{
    SchemaVersion,
    tables::{quote, stats_table},
};
use weir_sink::Target;

use crate::{
    load::{Known, PROP},
    patience::wait_while_it_moves,
};

/// Each event, as the table has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Conserved {
    /// Events that are in the table.
    pub(crate) counted: u64,
    /// Acknowledged, and not in the table.
    pub(crate) lost: u64,
    /// In the table more than once.
    pub(crate) twice: u64,
    /// Values in the table that nobody has sent.
    pub(crate) strange: u64,
}

/// `views` holds, by the value of the property, how often it was counted.
pub(crate) fn conserved(known: &Known, views: &HashMap<String, u64>) -> Conserved {
    let mut found = Conserved::default();
    for (value, &times) in views {
        match value.parse::<u64>() {
            Ok(number) if number < known.sent => {
                found.counted += 1;
                found.twice += u64::from(times > 1);
            }
            _ => found.strange += 1,
        }
    }
    let numbers = known.acknowledged.iter().enumerate().filter(|(_, acknowledged)| **acknowledged);
    found.lost = numbers.filter(|(number, _)| !views.contains_key(&number.to_string())).count() as u64;
    found
}

/// How often each value of the drill's property was counted.
pub(crate) async fn views(target: &Target, version: &SchemaVersion) -> anyhow::Result<HashMap<String, u64>> {
    let counts: Vec<&str> = version.measures.iter().map(|measure| measure.name()).collect();
    let sql = format!(
        "SELECT value, sum({}) FROM {}.{} WHERE dimension = {} GROUP BY value",
        counts.join(" + "),
        target.database,
        stats_table(version),
        quote(&format!("prop:{PROP}"))
    );
    let rows = target.client().query(&sql).fetch_all::<(String, u64)>().await?;
    Ok(rows.into_iter().collect())
}

/// Whether the table's rows that left before `to_ms` are those of the oracle; else the first difference.
pub(crate) async fn differs_from_oracle(
    log: &Arc<dyn Log>,
    topic: &str,
    partitions: &[PartitionInUse],
    target: &Target,
    version: &SchemaVersion,
    to_ms: i64,
) -> anyhow::Result<Option<String>> {
    let records = partitions.iter().map(|in_use| records(log.as_ref(), topic, in_use.partition));
    let records = records.collect::<anyhow::Result<Vec<_>>>()?;
    let effective_ms: Vec<i64> = partitions.iter().map(|in_use| in_use.effective_ms).collect();
    let told = |(key, (counts, visitors)): (Key, (Vec<u64>, std::collections::BTreeSet<u64>))| {
        let check = visitors.iter().fold(0_u64, |sum, id| sum.wrapping_add(*id));
        (key, format!("{counts:?} {} {check}", visitors.len()))
    };
    let mut wanted: BTreeMap<Key, String> =
        weir_oracle::table(&records, &effective_ms, version).into_iter().map(told).collect();
    wanted.retain(|key, _| key.0 < to_ms);
    let held = rows(target, version, to_ms).await?;
    for (key, row) in &held {
        match wanted.remove(key) {
            Some(wanted) if wanted == *row => {}
            other => return Ok(Some(format!("{key:?}: the table has {row}, the oracle {other:?}"))),
        }
    }
    Ok(wanted.pop_first().map(|(key, row)| format!("{key:?}: the table has nothing, the oracle {row}")))
}

/// The table's rows; a key that is there twice is an error.
async fn rows(target: &Target, version: &SchemaVersion, to_ms: i64) -> anyhow::Result<BTreeMap<Key, String>> {
    let counts: Vec<&str> = version.measures.iter().map(|measure| measure.name()).collect();
    let sql = format!(
        "SELECT toUnixTimestamp(emitted_in), toString(site), toString(dimension), toUnixTimestamp(window_start), value, \
         concat('[', arrayStringConcat([{}], ', '), '] ', toString(finalizeAggregation(visitors)), ' ', toString(visitor_check)) \
         FROM {}.{} WHERE emitted_in < toDateTime({}, 'UTC')",
        counts.join(", "),
        target.database,
        stats_table(version),
        to_ms / 1000
    );
    let rows = target.client().query(&sql).fetch_all::<(u32, String, String, u32, String, String)>().await?;
    let mut held = BTreeMap::new();
    for (emitted_s, site, dimension, window_s, value, row) in rows {
        let key = (i64::from(emitted_s) * 1000, site, dimension, i64::from(window_s) * 1000, value);
        let before = held.insert(key.clone(), row);
        ensure!(before.is_none(), "the table has {key:?} twice");
    }
    Ok(held)
}

/// All records of a partition, from offset 0 on.
pub(crate) fn records(log: &dyn Log, topic: &str, partition: u32) -> anyhow::Result<Vec<Record>> {
    let bounds = log.bounds(topic, partition)?;
    ensure!(bounds.start == 0, "partition {partition} begins at {}", bounds.start);
    let mut records = Vec::new();
    if bounds.end == 0 {
        return Ok(records);
    }
    let mut reader = log.reader(topic)?;
    reader.assign(partition, 0)?;
    let mut next = 0;
    wait_while_it_moves("the log's records", || {
        reader.poll(10_000, Duration::from_millis(500), &mut |record| {
            if record.offset < bounds.end {
                records.push(Record { stamp_ms: record.stamp_ms, payload: record.payload.to_vec().into() });
                next = record.offset + 1;
            }
        })?;
        Ok(if next >= bounds.end { Ok(()) } else { Err(next) })
    })
    .context("the log cannot be read for the oracle")?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_is_twice_is_told_event_by_event() {
        let known = Known { acknowledged: vec![true, true, false, true], sent: 5, ..Known::default() };
        let views = [("0", 1), ("2", 2), ("3", 3), ("7", 1), ("(other)", 5)];
        let views = views.into_iter().map(|(value, times)| (value.to_owned(), times)).collect();
        // 1 is missing; 2 was never acknowledged, and may be there, but once; 7 and (other) nobody has sent.
        assert_eq!(conserved(&known, &views), Conserved { counted: 3, lost: 1, twice: 2, strange: 2 });
        let whole = ["0", "1", "3"].map(|value| (value.to_owned(), 1)).into_iter().collect();
        assert_eq!(conserved(&known, &whole), Conserved { counted: 3, lost: 0, twice: 0, strange: 0 });
    }
}
