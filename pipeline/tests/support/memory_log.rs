//! A log in memory whose stamps the test chooses, and whose partitions come in any interleaving.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_log::{Appended, Bounds, Committed, Log, LogError, Reader, RecordRef, Result, TopicKind, Wake};
use weir_oracle::Record;

/// Partitions of one topic; `starts` are the offsets that retention has cut to.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryLog {
    pub(crate) partitions: Arc<Mutex<Vec<Vec<Record>>>>,
    pub(crate) starts: Vec<i64>,
    pub(crate) seed: u64,
}

impl MemoryLog {
    pub(crate) fn new(partitions: Vec<Vec<Record>>, seed: u64) -> MemoryLog {
        MemoryLog { starts: vec![0; partitions.len()], partitions: Arc::new(Mutex::new(partitions)), seed }
    }
}

impl Log for MemoryLog {
    fn create_topic(&self, _: &str, _: &TopicKind) -> Result<()> {
        Ok(())
    }

    fn repair_topic(&self, _: &str, _: &TopicKind) -> Result<()> {
        Ok(())
    }

    fn delete_topic(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn topics(&self) -> Result<Vec<String>> {
        Ok(vec!["t".into()])
    }

    fn partitions(&self, _: &str) -> Result<u32> {
        Ok(self.starts.len() as u32)
    }

    fn grow(&self, _: &str, _: u32) -> Result<()> {
        Ok(())
    }

    /// Stamped a second after the partition's last record.
    fn append(&self, _: &str, partition: u32, payload: Bytes, _: Option<i64>) -> BoxFuture<'static, Result<Appended>> {
        let mut partitions = self.partitions.lock().unwrap();
        let records = &mut partitions[partition as usize];
        let stamp_ms = records.last().map_or(0, |last| last.stamp_ms) + 1_000;
        records.push(Record { stamp_ms, payload });
        let appended = Appended { offset: records.len() as i64 - 1, stamp_ms };
        async move { Ok(appended) }.boxed()
    }

    fn reader(&self, _: &str) -> Result<Box<dyn Reader>> {
        let rng = StdRng::seed_from_u64(self.seed);
        Ok(Box::new(MemoryReader { log: self.clone(), next: BTreeMap::new(), held: Vec::new(), rng }))
    }

    fn bounds(&self, _: &str, partition: u32) -> Result<Bounds> {
        let end = self.partitions.lock().unwrap()[partition as usize].len() as i64;
        Ok(Bounds { start: self.starts[partition as usize], end })
    }

    fn offset_at(&self, _: &str, partition: u32, at_ms: i64) -> Result<Option<i64>> {
        let start = self.starts[partition as usize];
        let partitions = self.partitions.lock().unwrap();
        let found = partitions[partition as usize].iter().enumerate().skip(start as usize);
        Ok(found.filter(|(_, record)| record.stamp_ms >= at_ms).map(|(offset, _)| offset as i64).next())
    }

    fn commit(&self, _: &str, _: &str, _: &[Committed]) -> Result<()> {
        Ok(())
    }

    fn committed(&self, _: &str, _: &str) -> Result<Vec<Committed>> {
        Ok(Vec::new())
    }

    fn retention(&self, _: &str) -> Result<Option<Duration>> {
        Ok(None)
    }
}

struct MemoryReader {
    log: MemoryLog,
    next: BTreeMap<u32, i64>,
    held: Vec<u32>,
    rng: StdRng,
}

impl Reader for MemoryReader {
    fn assign(&mut self, partition: u32, offset: i64) -> Result<()> {
        let start = self.log.starts[partition as usize];
        if offset < start {
            return Err(LogError::BelowStart { topic: "t".into(), partition, offset, start });
        }
        self.next.insert(partition, offset);
        Ok(())
    }

    /// A few records of a partition drawn by chance, and now and then nothing although there is something.
    fn poll(&mut self, records_max: usize, _: Duration, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        let partitions = self.log.partitions.lock().unwrap().clone();
        let mut given = 0;
        for _ in 0..self.rng.random_range(0..8) {
            let place = self.rng.random_range(0..self.next.len().max(1));
            let Some((partition, next)) = self.next.iter_mut().nth(place) else { continue };
            if self.held.contains(partition) {
                continue;
            }
            for _ in 0..self.rng.random_range(0..5) {
                let Some(record) = partitions[*partition as usize].get(*next as usize) else { break };
                if given == records_max {
                    return Ok(given);
                }
                let (partition, stamp_ms) = (*partition, record.stamp_ms);
                each(RecordRef { partition, offset: *next, stamp_ms, payload: &record.payload });
                *next += 1;
                given += 1;
            }
        }
        Ok(given)
    }

    fn hold(&mut self, partition: u32, held: bool) {
        self.held.retain(|other| *other != partition);
        if held {
            self.held.push(partition);
        }
    }

    fn set_wake(&mut self, _: Wake) {}
}
