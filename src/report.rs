//! What a run says of itself, in the log, where it can be seen with the run, and ClickHouse, down.
//!
//! It is the metadata of the group's offsets. Nothing is read back but what the run has promised: how far it is done.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};
use std::time::Duration;

use tracing::warn;
use weir_log::{Clock, Committed, Log, LogError, SystemClock};
use weir_pipeline::{Pace, PartitionStatus, Spent, Status};
use weir_schemas::{
    Fault, WindowStart,
    progress::{Metadata, Moved, PartitionProgress, RunProgress, Waiting, group_of},
};
use weir_sink::{Left, News};

use crate::{
    judge::{Facts, PartitionFacts},
    run::{RunOrder, Told},
};

/// How often progress goes into the log.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A process of the same run that said something this short a while ago is at work: ten times [`PROGRESS_EVERY`].
const AT_WORK_MS: i64 = 5_000;

/// Bytes of a reason that are told: with all the rest they are well below the 4,096 of a commit's metadata, also when
/// every second one is escaped.
const REASON_BYTES_MAX: usize = 1_200;

/// What the sink has finished.
pub(crate) struct Done {
    through_ms: AtomicI64,
    rows: AtomicU64,
}

impl Done {
    pub(crate) fn new(checkpoint: WindowStart) -> Done {
        Done { through_ms: checkpoint.ms().into(), rows: 0.into() }
    }
}

/// Writes the run's progress into the log, where every tool sees it.
pub(crate) struct Reporter {
    order: RunOrder,
    generation: u32,
    log: Arc<dyn Log>,
    status: Arc<Status>,
    pace: Pace,
    /// What the supervisor has said last.
    heard: Arc<Mutex<Told>>,
    done: Done,
    /// What the sink tells, and what is seen of ClickHouse while the sink waits for an answer.
    waiting: Mutex<Option<Waiting>>,
    unanswered: Mutex<Option<Waiting>>,
    moved: Mutex<Option<Moved>>,
    /// All partitions have been reported by this process: one that is missing was taken away.
    reported: AtomicBool,
}

impl Reporter {
    pub(crate) fn new(
        order: &RunOrder,
        generation: u32,
        log: Arc<dyn Log>,
        (status, pace, heard): (Arc<Status>, Pace, Arc<Mutex<Told>>),
        done: Done,
        moved: Option<Moved>,
    ) -> Reporter {
        let (waiting, unanswered, moved) = (Mutex::default(), Mutex::default(), Mutex::new(moved));
        let (order, reported) = (order.clone(), AtomicBool::new(false));
        Reporter { order, generation, log, status, pace, heard, done, waiting, unanswered, moved, reported }
    }

    /// What the sink tells.
    pub(crate) fn hear(&self, news: News) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Done(batch) => {
                self.done.through_ms.store(batch.through.ms(), Ordering::Relaxed);
                self.done.rows.fetch_add(batch.rows, Ordering::Relaxed);
                *waiting = None;
            }
            News::GoesOn => *waiting = None,
            News::Waits(reason) => {
                let since_ms = waiting.as_ref().map_or_else(|| SystemClock.now_ms(), |waiting| waiting.since_ms);
                *waiting = Some(Waiting { since_ms, reason: cut(&reason) });
            }
        }
    }

    /// Whether ClickHouse answers at all: one that hangs keeps the sink waiting for minutes.
    pub(crate) fn hear_ping(&self, answer: Result<(), weir_sink::SinkError>) {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = unanswered.as_ref().map_or_else(|| SystemClock.now_ms(), |waiting| waiting.since_ms);
        *unanswered = answer.err().map(|error| Waiting { since_ms, reason: cut(&error.to_string()) });
    }

    fn waits(&self) -> Option<Waiting> {
        let told = |waiting: &Mutex<Option<Waiting>>| waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        told(&self.waiting).or_else(|| told(&self.unanswered))
    }

    pub(crate) fn keep_saying(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            if let Err(error) = self.say(|_| ()) {
                warn!(run = self.order.run, error = format!("{error:#}"), "progress could not be told");
            }
            std::thread::sleep(PROGRESS_EVERY);
        }
    }

    /// What the run knows of itself, to be judged; what the log holds is added by who looks at it.
    pub(crate) fn facts(&self) -> Facts {
        let through_ms = self.done.through_ms.load(Ordering::Relaxed);
        let read = self.status.snapshot().partitions.into_iter().map(|partition| PartitionFacts {
            partition: partition.partition,
            in_use: true,
            read: Some(partition.next_offset),
            end: 0,
        });
        Facts {
            run: self.order.run.clone(),
            topic: self.order.topic.clone(),
            generation: self.generation,
            ordered: Vec::new(),
            reported: Some(crate::judge::Reported { generation: self.generation, through_ms }),
            first_ms: self.order.from.ms().min(through_ms),
            checkpoint_ms: through_ms,
            given_up_to_ms: self.order.given_up_to_ms.filter(|_| self.order.left != Left::Own),
            topic_was: self.order.topic_id.clone(),
            topic_is: None,
            partitions: read.collect(),
        }
    }

    pub(crate) fn say(&self, change: impl Fn(&mut RunProgress)) -> anyhow::Result<()> {
        let group = group_of(&self.order.run);
        let status = self.status.snapshot();
        count(&self.order.run, &status, self.pace.spent());
        let before = self.log.committed(&group, &self.order.topic)?;
        if self.is_overtaken(&before) {
            return Ok(());
        }
        if let Some(moved) = self.find_moved(&before, &status.partitions) {
            warn!(
                run = self.order.run,
                partition = moved.partition,
                found = moved.found,
                "the group's offsets were set or deleted by somebody else; nothing reads them, they are put back"
            );
            *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(moved);
        }
        let Told { permille, throttle, gives_way, .. } =
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut run = RunProgress {
            at_ms: SystemClock.now_ms(),
            complete_through_ms: Some(self.done.through_ms.load(Ordering::Relaxed)),
            watermark_ms: status.watermark_ms,
            held_by: status.held_by,
            windows_open: status.windows_open,
            events_read: status.events_read,
            events_late: status.events_late,
            rows_done: self.done.rows.load(Ordering::Relaxed),
            records_unreadable: status.records_unreadable,
            stamps_bounded: status.stamps_bounded,
            generation: self.generation,
            permille: Some(permille),
            throttle,
            gives_way,
            recovery: self.order.recovery,
            stopped_after: None,
            stopped: None,
            fault: None,
            waiting: self.waits(),
            moved: self.moved.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ended: false,
        };
        change(&mut run);
        let commits = status.partitions.iter().map(|partition| {
            let offset = partition.next_offset;
            let metadata = Metadata {
                partition: PartitionProgress { arrival_ms: partition.arrival_ms, offset: Some(offset) },
                run: (partition.partition == 0).then(|| run.clone()),
            };
            Ok(Committed { partition: partition.partition, offset, metadata: serde_json::to_string(&metadata)? })
        });
        let commits: Vec<Committed> = commits.collect::<anyhow::Result<_>>()?;
        self.log.commit(&group, &self.order.topic, &commits)?;
        self.reported.store(!commits.is_empty(), Ordering::SeqCst);
        Ok(())
    }

    /// Whether another process of this run is at work and ahead. It has taken over, and this one will be refused at its
    /// next deed, but does not know it yet: it was stopped for a while, say. Complete-through must not step back for that.
    fn is_overtaken(&self, before: &[Committed]) -> bool {
        let ours_ms = self.done.through_ms.load(Ordering::Relaxed);
        told(before).is_some_and(|told| {
            let at_work = told.stopped.is_none() && SystemClock.now_ms() - told.at_ms < AT_WORK_MS;
            at_work && told.recovery == self.order.recovery && told.complete_through_ms > Some(ours_ms)
        })
    }

    /// The first partition whose offset is not as a run of ours has left it.
    fn find_moved(&self, before: &[Committed], partitions: &[PartitionStatus]) -> Option<Moved> {
        let reported = self.reported.load(Ordering::SeqCst);
        let at_ms = SystemClock.now_ms();
        partitions.iter().find_map(|PartitionStatus { partition, .. }| {
            let found = before.iter().find(|committed| committed.partition == *partition);
            match found {
                Some(found) if Metadata::of(&found.metadata, found.offset).is_some() => None,
                Some(found) => Some(Moved { at_ms, partition: *partition, found: Some(found.offset) }),
                None => reported.then_some(Moved { at_ms, partition: *partition, found: None }),
            }
        })
    }
}

/// What the pipeline counts, as metrics.
fn count(run: &str, status: &weir_pipeline::Snapshot, spent: Spent) {
    use metrics::{counter, gauge};
    let run = || run.to_owned();
    gauge!("weir_pipeline_open_bytes", "run" => run()).set(status.bytes_open as f64);
    counter!("weir_pipeline_events_read_total", "run" => run()).absolute(status.events_read);
    counter!("weir_pipeline_events_late_total", "run" => run()).absolute(status.events_late);
    counter!("weir_pipeline_copies_total", "run" => run()).absolute(status.copies);
    counter!("weir_pipeline_claims_too_old_total", "run" => run()).absolute(status.claims_too_old);
    counter!("weir_pipeline_stamps_bounded_total", "run" => run()).absolute(status.stamps_bounded);
    counter!("weir_pipeline_records_unreadable_total", "run" => run()).absolute(status.records_unreadable);
    counter!("weir_pipeline_runs_spilled_total", "run" => run()).absolute(status.runs_spilled);
    counter!("weir_pipeline_worked_milliseconds_total", "run" => run()).absolute(spent.worked.as_millis() as u64);
    counter!("weir_pipeline_rested_milliseconds_total", "run" => run()).absolute(spent.rested.as_millis() as u64);
}

/// What the run has reported last; `None` if nothing is there, or somebody else has written over it.
pub(crate) fn told(committed: &[Committed]) -> Option<RunProgress> {
    let first = committed.iter().find(|committed| committed.partition == 0)?;
    Metadata::of(&first.metadata, first.offset)?.run
}

/// Tells what the process before this one had no time to tell: the run is at its end, all of its topic is in the table.
pub(crate) fn say_ended(order: &RunOrder, log: &dyn Log, through: WindowStart) -> anyhow::Result<()> {
    let group = group_of(&order.run);
    let before = log.committed(&group, &order.topic)?;
    let commit = |partition| -> anyhow::Result<Committed> {
        let told = before.iter().find(|committed| committed.partition == partition);
        let told = told.and_then(|committed| serde_json::from_str(&committed.metadata).ok());
        let mut metadata: Metadata = told.unwrap_or_default();
        if partition == 0 {
            let run = metadata.run.get_or_insert_default();
            run.at_ms = SystemClock.now_ms();
            run.complete_through_ms = Some(through.ms());
            run.recovery = order.recovery;
            (run.stopped, run.stopped_after, run.fault, run.waiting) = (None, None, None, None);
            run.permille = None;
            run.ended = true;
        }
        let offset = log.bounds(&order.topic, partition)?.end;
        metadata.partition.offset = Some(offset);
        Ok(Committed { partition, offset, metadata: serde_json::to_string(&metadata)? })
    };
    let commits: Vec<_> = (0..log.partitions(&order.topic)?).map(commit).collect::<Result<_, _>>()?;
    Ok(log.commit(&group, &order.topic, &commits)?)
}

/// Tells those who ask for the status that the run has stopped, and why; its offsets stay as they were.
///
/// Over a table that differs it stays stopped until there is another recovery than `recovery`: nobody would find the same
/// again who looked at less. That is not heard of by this: what the run has told of itself may be from before it, and is
/// not to be held against what was repaired since.
pub(crate) fn say_stopped(
    log: &dyn Log,
    (run, topic): (&str, &str),
    recovery: Option<i64>,
    reason: &str,
    fault: Option<&Fault>,
) -> anyhow::Result<()> {
    change(log, run, topic, |progress| {
        if matches!(fault, Some(Fault::TableDiffers { .. })) {
            progress.stopped_after = recovery;
        }
        progress.stopped = Some(cut(reason));
        progress.fault = fault.cloned();
        progress.waiting = None;
        progress.ended = false;
    })
}

/// Whether the audit has stopped the run, and nobody has decided anything since. What a run stops over by itself it finds
/// again, if it is still so.
pub(crate) fn stays_stopped(told: &RunProgress, recovery: Option<i64>) -> bool {
    let differs = matches!(told.fault, Some(Fault::TableDiffers { .. }));
    differs && told.stopped.is_some() && told.stopped_after.or(told.recovery) == recovery
}

/// Tells what a run waits for that has not begun to read; its offsets stay as they were.
pub(crate) fn say_waiting(log: &dyn Log, order: &RunOrder, reason: String, since_ms: i64) {
    let told = change(log, &order.run, &order.topic, |progress| {
        (progress.stopped, progress.fault) = (None, None);
        // Started again for the same reason it waits since the first time.
        let since_ms = progress.waiting.as_ref().map_or(since_ms, |waiting| waiting.since_ms.min(since_ms));
        progress.waiting = Some(Waiting { since_ms, reason: cut(&reason) });
    });
    if let Err(error) = told {
        warn!(run = order.run, error = format!("{error:#}"), "could not be told to `weir status`");
    }
}

/// Writes what the run has said last once more.
pub(crate) fn refresh(log: &dyn Log, run: &str, topic: &str) {
    let group = group_of(run);
    let again = log.committed(&group, topic).and_then(|said| log.commit(&group, topic, &said));
    if let Err(error) = again {
        warn!(run, error = format!("{error:#}"), "what the run said last could not be written once more");
    }
}

/// Sees to it that what a run without a process has said last stays known: `kept` is what it was at the last look, and is
/// put back where somebody else has written over it.
pub(crate) fn keep(log: &dyn Log, run: &str, topic: &str, kept: &[Committed]) -> Result<Vec<Committed>, LogError> {
    let group = group_of(run);
    let said = log.committed(&group, topic)?;
    if told(&said).is_some() || told(kept).is_none() {
        return Ok(said);
    }
    warn!(run, "the group's offsets were set or deleted by somebody else; what the run said last is put back");
    log.commit(&group, topic, kept)?;
    Ok(kept.to_vec())
}

fn change(log: &dyn Log, run: &str, topic: &str, change: impl Fn(&mut RunProgress)) -> anyhow::Result<()> {
    let group = group_of(run);
    let before = log.committed(&group, topic)?;
    let first = before.into_iter().find(|committed| committed.partition == 0);
    let mut first = first.unwrap_or(Committed { partition: 0, offset: 0, metadata: String::new() });
    let mut metadata: Metadata = serde_json::from_str(&first.metadata).unwrap_or_default();
    metadata.partition.offset = Some(first.offset);
    let progress = metadata.run.get_or_insert_default();
    (progress.at_ms, progress.permille) = (SystemClock.now_ms(), None);
    change(progress);
    first.metadata = serde_json::to_string(&metadata)?;
    Ok(log.commit(&group, topic, &[first])?)
}

/// So much of a reason as there is room for.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_log::{EmbeddedLog, TopicKind};
    use weir_schemas::control::EVENTS_TOPIC;

    use super::*;

    #[test]
    fn a_run_that_a_table_has_stopped_before_it_has_reported_has_not_heard_of_the_repair_before() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap();
        let retention = std::time::Duration::from_secs(3_600);
        log.create_topic(EVENTS_TOPIC, &TopicKind::Events { partitions: 1, retention }).unwrap();
        let told = || told(&log.committed(&group_of("live"), EVENTS_TOPIC).unwrap()).unwrap();
        change(&log, "live", EVENTS_TOPIC, |progress| {
            (progress.recovery, progress.complete_through_ms) = (Some(4), Some(9_000));
        })
        .unwrap();
        let differs = Fault::TableDiffers { ranges: vec![(0, 1_000)], found: "rows".into(), findings: 1 };
        say_stopped(&log, ("live", EVENTS_TOPIC), Some(5), "rows differ", Some(&differs)).unwrap();
        assert_eq!((told().recovery, told().complete_through_ms), (Some(4), Some(9_000)));
        assert!(stays_stopped(&told(), Some(5)) && !stays_stopped(&told(), Some(6)));
        // As an earlier version has told it.
        change(&log, "live", EVENTS_TOPIC, |progress| {
            (progress.recovery, progress.stopped_after) = (Some(5), None);
        })
        .unwrap();
        assert!(stays_stopped(&told(), Some(5)) && !stays_stopped(&told(), Some(6)));
        say_stopped(&log, ("live", EVENTS_TOPIC), Some(5), "the log is gone", None).unwrap();
        assert!(!stays_stopped(&told(), Some(5)), "what it stops over by itself it finds again");
    }
}
