//! Time moves by the log only: a silent partition that others wait for gets a tick.
//!
//! Only at its end, at most one a second, after a jitter and a second look, so that of several runs that wait for the
//! same partition mostly one writes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::warn;
use weir_log::{Clock, LogError};
use weir_schemas::wire;

use crate::{run::Shared, status::PartitionStatus};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Ticks of one partition are at least this far apart.
const TICK_MIN: Duration = Duration::from_secs(1);
/// With no window open, complete-through moves on this often; a window's width, where that is longer.
const TICK_IDLE: Duration = Duration::from_secs(10);

/// What the ticker knows of a partition.
struct Watched {
    next_offset: i64,
    /// Since when nothing was read, by [`Clock::elapsed`].
    since: Duration,
}

pub(crate) fn start(shared: Arc<Shared>, clock: Arc<dyn Clock>) -> JoinHandle<()> {
    let tick = move || {
        let mut watched: BTreeMap<u32, Watched> = BTreeMap::new();
        let begun_ms = clock.now_ms().rem_euclid(1_000) as u64;
        while !shared.stopping() {
            clock.sleep(LOOK_EVERY);
            for partition in shared.status.partitions() {
                let now = clock.elapsed();
                let known = watched
                    .entry(partition.partition)
                    .or_insert(Watched { next_offset: partition.next_offset, since: now });
                if known.next_offset != partition.next_offset {
                    *known = Watched { next_offset: partition.next_offset, since: now };
                } else if now - known.since >= patience(&shared, partition.partition, begun_ms) {
                    known.since = now;
                    if let Err(error) = tick(&shared, clock.as_ref(), &partition, begun_ms) {
                        warn!(run = shared.spec.run, partition = partition.partition, %error, "no tick could be written");
                    }
                }
            }
        }
    };
    thread::Builder::new().name("weir-ticks".to_owned()).spawn(tick).expect("a thread can be started")
}

/// How long a partition may be silent: different for each partition and process, which begin at different times, so that
/// they do not write together.
fn patience(shared: &Shared, partition: u32, begun_ms: u64) -> Duration {
    let waiting = shared.status.snapshot();
    let newest = waiting.partitions.iter().filter_map(|partition| partition.arrival_ms).max();
    let mine = waiting.partitions.iter().find(|status| status.partition == partition);
    let behind = mine.and_then(|status| status.arrival_ms) < newest;
    let jitter = Duration::from_millis((u64::from(partition) * 37 + begun_ms) % 100);
    let least = shared.spec.tick_after.max(TICK_MIN) + jitter;
    match waiting.windows_open > 0 || behind {
        true => least,
        false => least.max(TICK_IDLE).max(Duration::from_millis(shared.spec.version.width.ms() as u64)),
    }
}

/// Appends a tick if the partition has been read to its end, and still is after a second look.
fn tick(shared: &Shared, clock: &dyn Clock, seen: &PartitionStatus, begun_ms: u64) -> Result<(), LogError> {
    let (log, topic) = (&shared.log, shared.spec.topic.as_str());
    for _look in 0..2 {
        let now = shared.status.partitions().into_iter().find(|status| status.partition == seen.partition);
        let unread = now.is_none_or(|now| now.next_offset != seen.next_offset);
        if unread || log.bounds(topic, seen.partition)?.end != seen.next_offset {
            return Ok(());
        }
        clock.sleep(Duration::from_millis(begun_ms % 30));
    }
    let record = wire::tick_record(clock.now_ms());
    futures::executor::block_on(log.append(topic, seen.partition, record.into(), None)).map(drop)
}
