use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use weir_schemas::control::{Action, CONTROL_TOPIC, ControlRecord, EVENTS_TOPIC, TopicId};

use crate::{Log, LogError, RecordRef, Result, TopicKind, telemetry};

/// The control topic: what operators and parts tell each other, in one order that all see.
///
/// A record that cannot be read (of a newer Weir, or somebody else's) is set aside and counted, never fatal.
#[derive(Clone)]
pub struct ControlLog {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    /// The topic whose partitions its records are about.
    events: Arc<str>,
}

/// All of the control topic, as far as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlRecords {
    /// With their offsets, ascending.
    pub records: Vec<(i64, ControlRecord)>,
    /// Records that were set aside.
    pub unreadable: u64,
    /// Where [`ControlLog::follow`] goes on.
    pub end: i64,
}

/// How many partitions are in use from when on, see [`partitions_in_use`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInUse {
    pub partition: u32,
    /// ms since the Unix epoch: before this nothing is written to it, and nobody waits for it.
    pub effective_ms: i64,
}

impl ControlLog {
    /// Opens the control topic, making it if there is none; refuses one that would lose records.
    pub fn open(log: Arc<dyn Log>) -> Result<Self> {
        Self::open_topics(log, CONTROL_TOPIC, EVENTS_TOPIC)
    }

    /// The same on topics of other names.
    pub fn open_topics(log: Arc<dyn Log>, topic: &str, events: &str) -> Result<Self> {
        log.create_topic(topic, &TopicKind::Control)?;
        Ok(Self { log, topic: topic.into(), events: events.into() })
    }

    /// The control topic for who only looks; `None`: there is none yet.
    pub fn look(log: Arc<dyn Log>) -> Result<Option<Self>> {
        let there = log.topics()?.iter().any(|topic| topic == CONTROL_TOPIC);
        Ok(there.then(|| Self { log, topic: CONTROL_TOPIC.into(), events: EVENTS_TOPIC.into() }))
    }

    /// Appends `record`; resolves to its offset after it is durable.
    pub fn append(&self, record: &ControlRecord) -> BoxFuture<'static, Result<i64>> {
        let payload = serde_json::to_vec(record).expect("a control record is JSON");
        let appended = self.log.append(&self.topic, 0, Bytes::from(payload), None);
        async move { Ok(appended.await?.offset) }.boxed()
    }

    /// All records up to the end as it is now.
    pub fn read_all(&self) -> Result<ControlRecords> {
        let bounds = self.log.bounds(&self.topic, 0)?;
        let mut all = ControlRecords { records: Vec::new(), unreadable: 0, end: bounds.end };
        let mut next = bounds.start;
        if next == bounds.end {
            return Ok(all);
        }
        let mut reader = self.log.reader(&self.topic)?;
        reader.assign(0, next)?;
        let mut silent = 0;
        while next < bounds.end {
            let given = reader.poll(1_000, Duration::from_millis(500), &mut |record| {
                next = record.offset + 1;
                if record.offset < bounds.end {
                    match decode(&self.topic, record) {
                        Some(control) => all.records.push((record.offset, control)),
                        None => all.unreadable += 1,
                    }
                }
            })?;
            silent = if given == 0 { silent + 1 } else { 0 };
            if silent == SILENT_POLLS_MAX {
                return Err(LogError::Unavailable(format!(
                    "topic {} was read up to offset {next} of {} and then fell silent",
                    self.topic, bounds.end
                )));
            }
        }
        Ok(all)
    }

    /// Calls `each` with every record from `offset` on, in order, from a thread of its own, until the follower is
    /// dropped; `None`: it was set aside. Where the log is not to be had, it waits and goes on.
    pub fn follow(
        &self,
        offset: i64,
        each: impl FnMut(i64, Option<ControlRecord>) + Send + 'static,
    ) -> Result<Follower> {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, log, topic) = (stop.clone(), self.log.clone(), self.topic.clone());
        let thread = thread::Builder::new()
            .name("weir-control".to_owned())
            .spawn(move || follow(&*log, &topic, offset, &theirs, each))
            .map_err(|error| LogError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Follower { stop, thread: Some(thread) })
    }
}

/// Half a minute without a record although there is one: the log is not answering.
const SILENT_POLLS_MAX: u32 = 60;
/// How soon a dropped follower stops.
const FOLLOW_POLL: Duration = Duration::from_millis(100);

/// Stops following when it is dropped; waits until a call under way has returned.
#[must_use = "dropping it stops following"]
pub struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Dropped by its own callback, it cannot wait for itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a follower of the control topic panicked");
            }
        }
    }
}

fn follow(
    log: &dyn Log,
    topic: &str,
    mut next: i64,
    stop: &AtomicBool,
    mut each: impl FnMut(i64, Option<ControlRecord>),
) {
    let mut wait = FOLLOW_POLL;
    while !stop.load(Ordering::Relaxed) {
        let followed: Result<()> = (|| {
            let mut reader = log.reader(topic)?;
            reader.assign(0, next)?;
            while !stop.load(Ordering::Relaxed) {
                reader.poll(100, FOLLOW_POLL, &mut |record| {
                    next = record.offset + 1;
                    let control = decode(topic, record);
                    if !stop.load(Ordering::Relaxed) {
                        each(record.offset, control);
                    }
                })?;
                wait = FOLLOW_POLL;
            }
            Ok(())
        })();
        if let Err(error) = followed {
            tracing::warn!(%error, topic, next, "following the control topic was interrupted; will go on");
            thread::park_timeout(wait);
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }
}

fn decode(topic: &str, record: RecordRef<'_>) -> Option<ControlRecord> {
    match serde_json::from_slice(record.payload) {
        Ok(control) => Some(control),
        Err(error) => {
            telemetry::control_unreadable(topic, record.offset, &error);
            None
        }
    }
}

/// Which partitions of the events topic are in use and from when on, by the control records in their order.
///
/// A partition is in use from the effective time of the first record that names it on. A record that names fewer than
/// are in use changes nothing, and neither does one whose effective time is not ahead of its own: those are of processes
/// that began at the same time as another one, and the first in the log decides for all.
pub fn partitions_in_use<'a>(records: impl IntoIterator<Item = &'a ControlRecord>) -> Vec<PartitionInUse> {
    let mut in_use: Vec<PartitionInUse> = Vec::new();
    for record in records {
        if let Action::PartitionsInUse { partitions, effective_ms } = record.action
            && (in_use.is_empty() || effective_ms > record.at_ms)
        {
            in_use
                .extend((in_use.len() as u32..partitions).map(|partition| PartitionInUse { partition, effective_ms }));
        }
    }
    in_use
}

/// Which partitions are in use; if no record says so yet, writes the first one: `partitions` of them from `now_ms` on.
///
/// Of two processes that begin at once the first record in the log decides for both. The records are read back after
/// the append, so what this returns is what every reader folds.
///
/// All that are in use are there: an events topic that an operator made with fewer, or made anew, is grown first, since
/// appends to a partition that is not there would fail for ever.
pub fn ensure_partitions_in_use(
    control: &ControlLog,
    who: &str,
    partitions: u32,
    now_ms: i64,
) -> Result<Vec<PartitionInUse>> {
    let fold = |all: &ControlRecords| partitions_in_use(all.records.iter().map(|(_, record)| record));
    let mut in_use = fold(&control.read_all()?);
    if in_use.is_empty() {
        control.log.grow(&control.events, partitions)?;
        let record = ControlRecord {
            at_ms: now_ms,
            who: who.to_owned(),
            reason: "the first start".to_owned(),
            action: Action::PartitionsInUse { partitions, effective_ms: now_ms },
        };
        futures::executor::block_on(control.append(&record))?;
        in_use = fold(&control.read_all()?);
    }
    // Also those of a process that began at the same time and was quicker, and those of a topic that was replaced.
    control.log.grow(&control.events, in_use.len() as u32)?;
    Ok(in_use)
}

/// The id that the topic of this name has, by the control records in their order: the last one decides.
pub fn topic_is<'a>(topic: &str, records: impl IntoIterator<Item = &'a ControlRecord>) -> Option<&'a str> {
    let ids = records.into_iter().filter_map(|record| match &record.action {
        Action::TopicIs(is) | Action::Recover { topic_is: Some(is), .. } if is.topic == topic => Some(is.id.as_str()),
        _ => None,
    });
    ids.last()
}

/// Records which topic `topic` is, unless that is recorded, or the log cannot tell.
pub fn ensure_topic_is(log: &dyn Log, control: &ControlLog, topic: &str, who: &str, now_ms: i64) -> Result<()> {
    let all = control.read_all()?;
    if topic_is(topic, all.records.iter().map(|(_, record)| record)).is_some() {
        return Ok(());
    }
    let Some(id) = log.topic_id(topic)? else { return Ok(()) };
    let record = ControlRecord {
        at_ms: now_ms,
        who: who.to_owned(),
        reason: "the first start".to_owned(),
        action: Action::TopicIs(TopicId { topic: topic.to_owned(), id }),
    };
    futures::executor::block_on(control.append(&record)).map(drop)
}

/// How far ahead partitions that are added come into use: collectors and runs follow the control topic within a second, and
/// Kafka's clients learn of a partition within ten.
const ADDED_AHEAD_MS: i64 = 20_000;

/// Puts `partitions` of `topic` into use, if fewer are: makes them, and tells everybody from when on.
pub fn add_partitions(
    log: &dyn Log,
    control: &ControlLog,
    topic: &str,
    who: &str,
    partitions: u32,
    now_ms: i64,
) -> Result<()> {
    let in_use = partitions_in_use(control.read_all()?.records.iter().map(|(_, record)| record)).len();
    if in_use >= partitions as usize {
        return Ok(());
    }
    log.grow(topic, partitions)?;
    let record = ControlRecord {
        at_ms: now_ms,
        who: who.to_owned(),
        reason: format!("log.partitions is {partitions}, {in_use} were in use"),
        action: Action::PartitionsInUse { partitions, effective_ms: now_ms + ADDED_AHEAD_MS },
    };
    futures::executor::block_on(control.append(&record)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(partitions: u32, effective_ms: i64) -> ControlRecord {
        let action = Action::PartitionsInUse { partitions, effective_ms };
        ControlRecord { at_ms: 0, who: String::new(), reason: String::new(), action }
    }

    #[test]
    fn of_two_first_records_the_first_in_the_log_decides() {
        let late = ControlRecord { at_ms: 101, ..in_use(8, 101) };
        assert_eq!(folded(&[in_use(2, 100), late]), [(0, 100), (1, 100)]);
    }

    fn folded(records: &[ControlRecord]) -> Vec<(u32, i64)> {
        partitions_in_use(records).iter().map(|in_use| (in_use.partition, in_use.effective_ms)).collect()
    }

    #[test]
    fn a_partition_is_in_use_from_the_first_record_that_names_it() {
        assert_eq!(folded(&[]), []);
        assert_eq!(folded(&[in_use(2, 100)]), [(0, 100), (1, 100)]);
        assert_eq!(folded(&[in_use(2, 100), in_use(3, 900)]), [(0, 100), (1, 100), (2, 900)]);
    }

    #[test]
    fn a_record_that_names_fewer_or_comes_second_changes_nothing() {
        assert_eq!(folded(&[in_use(2, 100), in_use(1, 50), in_use(2, 70)]), [(0, 100), (1, 100)]);
    }
}
