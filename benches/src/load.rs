//! Traffic into a log, as batches that are stamped with the time they happened at.

use std::{collections::VecDeque, time::Duration};

use weir_log::{Log, TopicKind};
use weir_schemas::{SchemaVersion, WindowStart, wire};

use crate::traffic::{BEGIN_MS, Traffic};

/// What was put into the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loaded {
    pub(crate) events: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) page_views: u64,
    /// Of the ticks behind the last event.
    pub(crate) end_ms: i64,
}

impl Loaded {
    /// The windows `[from, to)` that hold everything, by `version`.
    pub(crate) fn windows(&self, version: &SchemaVersion) -> (WindowStart, WindowStart) {
        let width = version.width;
        (width.window_of(BEGIN_MS - version.lateness_ms), width.window_of(self.end_ms - version.lateness_ms))
    }
}

/// Appends that are under way at once.
const APPENDS_MAX: usize = 256;

/// Makes the topic and fills it: `batch` events a record, the partitions in turn, and a tick behind them in each, late
/// enough that windows of `width_max` close.
///
/// The topic is stamped by its writer, so that hours of traffic are there in seconds; a run reads it as live traffic.
pub(crate) fn load(
    log: &dyn Log,
    topic: &str,
    partitions: u32,
    mut traffic: Traffic,
    batch: u64,
    width_max: Duration,
) -> anyhow::Result<Loaded> {
    log.create_topic(topic, &TopicKind::Import { partitions })?;
    let mut loaded = Loaded::default();
    let mut under_way = VecDeque::new();
    let mut now_ms = BEGIN_MS;
    loop {
        let mut builder = wire::BatchBuilder::new([1; 16], loaded.records);
        for event in traffic.by_ref().take(batch as usize) {
            now_ms = event.received_ms;
            builder.push(&event);
        }
        if builder.is_empty() {
            break;
        }
        loaded.events += builder.len() as u64;
        let payload = wire::batch_record(now_ms, &builder.finish());
        loaded.bytes += payload.len() as u64;
        let partition = (loaded.records % u64::from(partitions)) as u32;
        loaded.records += 1;
        under_way.push_back(log.append(topic, partition, payload.into(), Some(now_ms)));
        if under_way.len() == APPENDS_MAX {
            futures::executor::block_on(under_way.pop_front().expect("it is full"))?;
        }
    }
    for append in under_way {
        futures::executor::block_on(append)?;
    }
    loaded.page_views = traffic.page_views;
    loaded.end_ms = now_ms + 2 * width_max.as_millis() as i64 + 60_000;
    for partition in 0..partitions {
        let tick = wire::tick_record(loaded.end_ms);
        futures::executor::block_on(log.append(topic, partition, tick.into(), Some(loaded.end_ms)))?;
    }
    Ok(loaded)
}
