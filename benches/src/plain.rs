//! The reference: what a plain Rust program does. JSON, one event a record, one count per site in 10 s windows; librdkafka,
//! serde_json, hash maps, and nothing written anywhere.

use std::{collections::VecDeque, time::Duration};

use anyhow::bail;
use rdkafka::{
    ClientConfig, Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use weir_log::{Log, TopicKind};

use crate::traffic::Traffic;

/// What of an event the count could need, and no more: about 150 bytes.
#[derive(Serialize, Deserialize)]
struct Hit<'a> {
    site: &'a str,
    page: &'a str,
    country: &'a str,
    visitor: u64,
    time_ms: i64,
}

const WINDOW_MS: i64 = 10_000;
const APPENDS_MAX: usize = 10_000;

/// Makes the topic and fills it; how many bytes.
pub(crate) fn load(log: &dyn Log, topic: &str, partitions: u32, traffic: Traffic) -> anyhow::Result<u64> {
    log.create_topic(topic, &TopicKind::Import { partitions })?;
    let (mut under_way, mut bytes) = (VecDeque::new(), 0);
    for (number, event) in traffic.enumerate() {
        let (site, page, country) = (&event.site, &event.page, &event.country);
        let hit = Hit { site, page, country, visitor: event.visitor, time_ms: event.received_ms };
        let payload = serde_json::to_vec(&hit)?;
        bytes += payload.len() as u64;
        let partition = number as u32 % partitions;
        under_way.push_back(log.append(topic, partition, payload.into(), Some(event.received_ms)));
        if under_way.len() == APPENDS_MAX {
            futures::executor::block_on(under_way.pop_front().expect("it is full"))?;
        }
    }
    for append in under_way {
        futures::executor::block_on(append)?;
    }
    Ok(bytes)
}

/// Reads all of the topic and counts; how many events.
pub(crate) fn run(bootstrap: &str, topic: &str, partitions: u32, events: u64) -> anyhow::Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "plain")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        // As Weir's own consumer has them: the default of a second throttles a consumer four times.
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.max.messages.kbytes", "8192")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition as i32, rdkafka::Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut windows: FxHashMap<i64, FxHashMap<String, u64>> = FxHashMap::default();
    let mut read = 0;
    while read < events {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else { bail!("{topic} gave {read} of {events}") };
        let message = message?;
        let hit: Hit<'_> = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let window = windows.entry(hit.time_ms.div_euclid(WINDOW_MS)).or_default();
        match window.get_mut(hit.site) {
            Some(count) => *count += 1,
            None => {
                window.insert(hit.site.to_owned(), 1);
            }
        }
        read += 1;
    }
    Ok(windows.values().flat_map(FxHashMap::values).sum())
}
