//! One worker's partitions: records in, events into their windows; those with an id are set apart to be put in order.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tracing::warn;
use weir_log::{Log, PartitionInUse, Reader};
use weir_schemas::{
    DEDUP_HORIZON_MS, STEP_BACK_MAX_MS, WindowStart, WindowWidth,
    wire::{self, BatchView, Content, End},
};

use crate::{
    PipelineError, SourceKind,
    order::id_key,
    partition::Partition,
    rule,
    run::Shared,
    status::PartitionStatus,
    windows::{Times, Windows},
};

/// Records taken in one turn: some ms of work, so that other operators have theirs.
const RECORDS_PER_TURN: usize = 64;

/// Windows that one turn may open, about, if it takes more than one record: they close together, and the rows of those that
/// find no room in memory are a file each. 64 records of an access log, 16,384 events each, reach over a month.
const WINDOWS_PER_TURN: i64 = 256;

/// How far, in arrival time, a partition may be read ahead of the slowest: a few windows, so that a deep backlog opens
/// few of them, and at least a few seconds, so that short windows do not stop the reading.
const AHEAD_WINDOWS: i64 = 4;
const AHEAD_MIN_MS: i64 = 10_000;

/// Events with ids of one record, for the worker that puts them in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) worker: u64,
    pub(crate) arrival_ms: i64,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    /// Whether the batch itself counts; its ids beat later ones in any case.
    pub(crate) counts: bool,
    pub(crate) payload: Arc<[u8]>,
    /// Places in the batch, ascending.
    pub(crate) events: Vec<u32>,
}

pub(crate) struct Source {
    shared: Arc<Shared>,
    worker: usize,
    peers: usize,
    reader: Box<dyn Reader>,
    partitions: Vec<Owned>,
    pending: Vec<Pending>,
    /// In the next turn.
    records_max: usize,
}

/// A partition that this worker owns.
struct Owned {
    number: u32,
    next_offset: i64,
    partition: Partition,
    held: bool,
    ended: bool,
    /// Of an import: what was read of it, to be compared with what its end says.
    read: End,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is probably more.
    Busy,
    /// Nothing to be read now.
    Idle,
    /// All partitions have ended.
    Ended,
}

impl Source {
    /// Finds where each of the worker's partitions is to be read from; refuses a range that retention has cut.
    pub(crate) fn open(shared: &Arc<Shared>, worker: usize, peers: usize) -> Result<Self, PipelineError> {
        let mut reader = shared.log.reader(&shared.spec.topic)?;
        let mut partitions = Vec::new();
        for in_use in shared.partitions.iter().filter(|in_use| in_use.partition as usize % peers == worker) {
            let number = in_use.partition;
            let next_offset = start_offset(shared, number, in_use.effective_ms)?;
            reader.assign(number, next_offset)?;
            partitions.push(Owned {
                number,
                next_offset,
                partition: Partition::new(in_use.effective_ms),
                held: false,
                ended: false,
                read: End { events: 0, last_ms: i64::MIN, digest: 0 },
            });
        }
        let pending = Vec::new();
        let source = Self { shared: shared.clone(), worker, peers, reader, partitions, pending, records_max: 1 };
        source.partitions.iter().for_each(|owned| source.say(owned));
        Ok(source)
    }

    /// The smallest arrival time of the partitions that have not ended; `None` if all have.
    pub(crate) fn arrival_ms(&self) -> Option<i64> {
        self.partitions.iter().filter(|owned| !owned.ended).map(|owned| owned.partition.arrival_ms()).min()
    }

    pub(crate) fn set_wake(&mut self, wake: weir_log::Wake) {
        self.reader.set_wake(wake);
    }

    pub(crate) fn take_pending(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.pending)
    }

    /// Reads some records into `windows`.
    pub(crate) fn turn(&mut self, windows: &mut Windows) -> Result<Turn, PipelineError> {
        if self.partitions.iter().all(|owned| owned.ended) {
            return Ok(Turn::Ended);
        }
        self.hold_those_ahead();
        let before = self.windows_passed();
        let mut failed = None;
        let (shared, peers) = (&self.shared, self.peers);
        let (partitions, pending) = (&mut self.partitions, &mut self.pending);
        let read = self.reader.poll(self.records_max, Duration::ZERO, &mut |record| {
            if failed.is_some() {
                return;
            }
            let owned = partitions.iter_mut().find(|owned| owned.number == record.partition);
            let owned = owned.expect("only assigned partitions are read");
            owned.next_offset = record.offset + 1;
            let mut record = Record { shared, peers, owned, pending, windows, record };
            failed = record.take().err();
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if read > 0 {
            self.records_max = records_next(read, self.windows_passed() - before);
            self.partitions.iter().for_each(|owned| self.say(owned));
            self.shared.status.set_open(self.worker, windows.size());
        }
        Ok(match read {
            _ if self.partitions.iter().all(|owned| owned.ended) => Turn::Ended,
            0 => Turn::Idle,
            _ => Turn::Busy,
        })
    }

    /// Grows by one with each window that a partition's arrival time passes.
    fn windows_passed(&self) -> i64 {
        let width = self.shared.spec.version.width;
        self.partitions.iter().map(|owned| width.index_of(width.window_of(owned.partition.arrival_ms()))).sum()
    }

    /// A partition far ahead of the slowest waits for it: the slowest itself never waits.
    fn hold_those_ahead(&mut self) {
        let all = self.shared.status.partitions();
        let slowest =
            all.iter().filter(|partition| !partition.ended).filter_map(|partition| partition.arrival_ms).min();
        let width_ms = self.shared.spec.version.width.ms();
        let ahead_ms = (AHEAD_WINDOWS * width_ms + self.shared.spec.version.lateness_ms).max(AHEAD_MIN_MS);
        for owned in &mut self.partitions {
            let held = slowest.is_some_and(|slowest| owned.partition.arrival_ms() > slowest.saturating_add(ahead_ms));
            if held != owned.held {
                owned.held = held;
                self.reader.hold(owned.number, held);
            }
        }
    }

    /// Whether a partition waits for a slower one, which will not wake us.
    pub(crate) fn holds(&self) -> bool {
        self.partitions.iter().any(|owned| owned.held)
    }

    fn say(&self, owned: &Owned) {
        let arrival_ms = owned.partition.arrival_ms();
        self.shared.status.set_partition(PartitionStatus {
            partition: owned.number,
            next_offset: owned.next_offset,
            arrival_ms: (arrival_ms > i64::MIN).then_some(arrival_ms),
            ended: owned.ended,
        });
    }
}

/// Records of the next turn, after one in which so many passed so many windows.
fn records_next(read: usize, windows: i64) -> usize {
    (read as i64 * WINDOWS_PER_TURN / windows.max(1)).clamp(1, RECORDS_PER_TURN as i64) as usize
}

/// Where a partition is to be read from, so that every event of the run's windows, and every copy that could beat one of
/// them, is read.
fn start_offset(shared: &Shared, partition: u32, effective_ms: i64) -> Result<i64, PipelineError> {
    let (log, topic) = (shared.log.as_ref(), shared.spec.topic.as_str());
    // The end first: a record appended between the two look-ups is read, not passed over.
    let bounds = log.bounds(topic, partition)?;
    if shared.spec.kind == SourceKind::Import {
        return Ok(bounds.start);
    }
    let from_ms = shared.from.ms();
    let look_ms = from_ms - DEDUP_HORIZON_MS;
    if bounds.start > 0 {
        let needed_ms = look_ms - STEP_BACK_MAX_MS;
        if first_stamp(log, topic, partition, bounds)?.is_none_or(|stamp_ms| stamp_ms >= needed_ms) {
            let (run, topic) = (shared.spec.run.clone(), topic.to_owned());
            return Err(PipelineError::Cut { run, topic, partition, start: bounds.start, from_ms });
        }
    }
    if look_ms <= effective_ms {
        // A record of its first moments may be stamped below its effective time, where its arrival time begins.
        return Ok(bounds.start);
    }
    Ok(log.offset_at(topic, partition, look_ms)?.unwrap_or(bounds.end).min(bounds.end).max(bounds.start))
}

/// The first window that a run over what is left of the partitions can compute whole.
///
/// `renewed`: the topic has had a predecessor, which is gone with all that was in it, so that its beginning is a cut too.
/// Where nothing is left of a partition that was cut, that is a window after `now_ms`. Retention goes on: a run that begins
/// there much later may find it cut again.
pub fn whole_from(
    log: &dyn Log,
    topic: &str,
    partitions: &[PartitionInUse],
    width: WindowWidth,
    renewed: bool,
    now_ms: i64,
) -> Result<WindowStart, PipelineError> {
    let mut whole_ms = i64::MIN;
    for in_use in partitions {
        let bounds = log.bounds(topic, in_use.partition)?;
        if bounds.start > 0 || renewed {
            let stamp_ms = first_stamp(log, topic, in_use.partition, bounds)?.unwrap_or(now_ms);
            whole_ms = whole_ms.max(stamp_ms.saturating_add(DEDUP_HORIZON_MS + STEP_BACK_MAX_MS));
        }
    }
    // Only what is stamped before a window, the horizon and a step ago is surely before what it needs.
    Ok(width.next(width.window_of(whole_ms.max(0))))
}

/// The stamp of the first record that is still there.
fn first_stamp(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    bounds: weir_log::Bounds,
) -> Result<Option<i64>, PipelineError> {
    if bounds.start == bounds.end {
        return Ok(None);
    }
    let mut reader = log.reader(topic)?;
    reader.assign(partition, bounds.start)?;
    let mut stamp_ms = None;
    for _ in 0..20 {
        reader.poll(1, Duration::from_millis(500), &mut |record| stamp_ms = stamp_ms.or(Some(record.stamp_ms)))?;
        if stamp_ms.is_some() {
            return Ok(stamp_ms);
        }
    }
    Err(weir_log::LogError::Unavailable(format!("partition {partition} does not give its first record")).into())
}

/// One record on its way into the windows.
struct Record<'a, 'r> {
    shared: &'a Shared,
    peers: usize,
    owned: &'a mut Owned,
    pending: &'a mut Vec<Pending>,
    windows: &'a mut Windows,
    record: weir_log::RecordRef<'r>,
}

impl Record<'_, '_> {
    fn take(&mut self) -> Result<(), PipelineError> {
        let decoded = match wire::decode(self.record.payload) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.shared.status.add(|status| &status.records_unreadable, 1);
                let (partition, offset) = (self.record.partition, self.record.offset);
                warn!(run = self.shared.spec.run, partition, offset, %error, "a record is set aside");
                return Ok(());
            }
        };
        match (self.shared.spec.kind, decoded.content) {
            (SourceKind::Import, Content::Batch(batch)) => self.imported(&batch),
            (SourceKind::Import, Content::End(end)) => self.end(end),
            (SourceKind::Import, Content::Tick) => Ok(()),
            (SourceKind::Live, content) => {
                let stamp_ms = rule::stamp(self.record.stamp_ms, decoded.sent_ms);
                if stamp_ms < self.record.stamp_ms {
                    self.shared.status.add(|status| &status.stamps_bounded, 1);
                }
                let arrival_ms = self.owned.partition.arrive(stamp_ms);
                match content {
                    Content::Batch(batch) => self.live(&batch, arrival_ms),
                    Content::Tick | Content::End(_) => Ok(()),
                }
            }
        }
    }

    fn live(&mut self, batch: &BatchView<'_>, arrival_ms: i64) -> Result<(), PipelineError> {
        let status = &self.shared.status;
        status.add(|status| &status.events_read, batch.events as u64);
        let counts = self.owned.partition.first((batch.collector, batch.sequence));
        let with_id = |event: usize| batch.id.get(event).is_some_and(|id| *id != 0);
        if !counts {
            status.add(|status| &status.copies, (0..batch.events).filter(|event| !with_id(*event)).count() as u64);
        }
        if !batch.id.is_empty() {
            self.set_apart(batch, arrival_ms, counts);
        }
        if counts {
            let shared = self.shared;
            self.windows
                .add(batch, |event| {
                    let times = (!with_id(event)).then(|| Times::of(&shared.rule, batch, event, arrival_ms))?;
                    shared.wants(times.closes_in).then_some(times)
                })
                .map_err(|cause| shared.spill_error(cause))?;
        }
        Ok(())
    }

    /// Hands the events that have an id to the workers that put them in order.
    fn set_apart(&mut self, batch: &BatchView<'_>, arrival_ms: i64, counts: bool) {
        let mut places: Vec<Vec<u32>> = vec![Vec::new(); self.peers];
        for (event, id) in batch.id.iter().enumerate().filter(|(_, id)| **id != 0) {
            let site = batch.strings[batch.site[event] as usize];
            let key = id_key(site, batch.strings[*id as usize]);
            places[(key % self.peers as u128) as usize].push(event as u32);
        }
        let payload: Arc<[u8]> = self.record.payload.into();
        for (worker, events) in places.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
            self.pending.push(Pending {
                worker: worker as u64,
                arrival_ms,
                partition: self.record.partition,
                offset: self.record.offset,
                counts,
                payload: payload.clone(),
                events,
            });
        }
    }

    /// Events of an import are sorted, so each one's own time is its arrival.
    fn imported(&mut self, batch: &BatchView<'_>) -> Result<(), PipelineError> {
        self.shared.status.add(|status| &status.events_read, batch.events as u64);
        let read = &mut self.owned.read;
        read.events += batch.events as u64;
        read.digest = read.digest.wrapping_add(xxhash_rust::xxh3::xxh3_64(batch.encoded));
        let (shared, width) = (self.shared, self.shared.spec.version.width);
        let owned = &mut *self.owned;
        self.windows
            .add(batch, |event| {
                let own_ms = own_time(batch, event);
                let arrival_ms = owned.partition.arrive(own_ms);
                owned.read.last_ms = owned.read.last_ms.max(own_ms);
                let closes_in = width.window_of(arrival_ms);
                let times = Times { time_ms: arrival_ms, claim_too_old: false, closes_in };
                // A run that goes on reads all of it again, and its arrival time begins where it goes on: what lies before is
                // in the table.
                (own_ms >= shared.from.ms() && shared.wants(closes_in)).then_some(times)
            })
            .map_err(|cause| shared.spill_error(cause))
    }

    fn end(&mut self, said: End) -> Result<(), PipelineError> {
        let read = self.owned.read;
        let found = [
            ("the number of events", read.events, said.events),
            (
                "the last time",
                read.last_ms as u64,
                if said.events == 0 { read.last_ms as u64 } else { said.last_ms as u64 },
            ),
            ("the digest", read.digest, said.digest),
        ];
        for (what, found, said) in found {
            if found != said {
                let (topic, partition) = (self.shared.spec.topic.clone(), self.record.partition);
                return Err(PipelineError::Damaged { topic, partition, what, found, said });
            }
        }
        self.owned.ended = true;
        Ok(())
    }
}

/// The time that an event of an import happened at.
fn own_time(batch: &BatchView<'_>, event: usize) -> i64 {
    let claimed = batch.claimed_ms.get(event).copied().filter(|claimed| *claimed != wire::NO_CLAIM);
    claimed.unwrap_or(batch.received_ms[event])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_as_many_records_as_pass_few_windows_and_one_at_least() {
        assert_eq!(records_next(64, 0), 64);
        assert_eq!(records_next(64, 64), 64);
        assert_eq!(records_next(64, 1_024), 16);
        // A record of an access log may reach over an hour, or a year.
        assert_eq!(records_next(1, 60), 4);
        assert_eq!(records_next(1, 500_000), 1);
        // After it, or after a silence, it goes on as before.
        assert_eq!(records_next(1, 0), 64);
    }
}
