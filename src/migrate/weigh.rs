//! How many bytes of the log there are to read, by the first of them: no log tells it of a part of a topic.

use std::time::{Duration, Instant};

use weir_log::{Log, Result};

/// So many records are looked at.
const SAMPLE: usize = 2_000;
/// How long they are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a topic's records, as they are read, from those stamped at `from_ms` on: their number is exact, and they are
/// taken to be as long as the first ones are. Errors: of the log.
pub(super) fn weigh(log: &dyn Log, topic: &str, from_ms: i64) -> Result<u64> {
    let (mut reader, mut records) = (log.reader(topic)?, 0);
    for partition in 0..log.partitions(topic)? {
        let Some(from) = log.offset_at(topic, partition, from_ms)? else { continue };
        records += log.bounds(topic, partition)?.end.saturating_sub(from).unsigned_abs();
        reader.assign(partition, from)?;
    }
    let (mut seen, mut bytes, begin) = (0, 0, Instant::now());
    while seen < records.min(SAMPLE as u64) && begin.elapsed() < PATIENCE {
        reader.poll(SAMPLE, Duration::from_millis(200), &mut |record| {
            (seen, bytes) = (seen + 1, bytes + record.payload.len() as u64);
        })?;
    }
    Ok((bytes as f64 * records as f64 / seen.max(1) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_log::{EmbeddedLog, SystemClock, TopicKind};

    use super::*;

    #[test]
    fn a_topic_weighs_what_its_records_do_from_an_instant_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap();
        log.create_topic("t", &TopicKind::Import { partitions: 2 }).unwrap();
        let append = |n: u32| log.append("t", n % 2, vec![b'x'; 100].into(), Some(n.into()));
        let appended = futures::future::join_all((0..3_000).map(append));
        assert!(futures::executor::block_on(appended).iter().all(Result::is_ok));
        assert_eq!(weigh(&log, "t", 0).unwrap(), 300_000);
        assert_eq!(weigh(&log, "t", 2_900).unwrap(), 10_000);
        assert_eq!(weigh(&log, "t", 3_000).unwrap(), 0);
    }
}
