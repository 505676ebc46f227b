//! How a run begins: what a person has ordered is done, ClickHouse is waited for, and whether it may go on is judged.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{debug, info, warn};
use weir_log::{Clock, ControlLog, Log, LogError, SystemClock};
use weir_schemas::{
    Fault, Recoveries, Repair, SchemaVersion, WindowStart,
    control::{Action, ControlRecord},
    progress::{Metadata, Moved, group_of},
};
use weir_sink::{Extent, Shape, SinkError};

use crate::{
    judge::{self, Facts, PartitionFacts, Reported},
    report,
    run::{Failure, RunOrder},
};

/// Between tries while ClickHouse is away, doubling.
const AGAIN_MIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// What is waited for less long is no warning.
const SAID_AFTER_MS: i64 = 2_000;

/// A log that seems to end before what was read is looked at so often before it is believed, so far apart: a broker that
/// has just become the leader learns within moments how far its followers are.
const LOOKS: usize = 3;
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A run that may go on.
pub(crate) struct Begun {
    pub version: SchemaVersion,
    pub checkpoint: WindowStart,
    /// What was found of the group's offsets, now or by an earlier process.
    pub moved: Option<Moved>,
}

/// Comes back when the run may go on, or with what stops it; `None` when it was asked to stop meanwhile.
pub(crate) async fn begin(
    order: &RunOrder,
    log: &Arc<dyn Log>,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<Begun>, Failure> {
    let version = order.version()?;
    let since_ms = SystemClock.now_ms();
    let mut again = AGAIN_MIN;
    loop {
        match try_begin(order, &version, log).await {
            Ok(begun) => return Ok(Some(begun)),
            Err(Failure::Wait(reason)) => {
                let again_ms = again.as_millis() as u64;
                // At a first start the tables are made at the same time.
                match SystemClock.now_ms() - since_ms {
                    0..SAID_AFTER_MS => debug!(run = order.run, reason, again_ms, "waits for clickhouse"),
                    _ => warn!(run = order.run, reason, again_ms, "waits for clickhouse"),
                }
                let (log, order) = (log.clone(), order.clone());
                let said = move || report::say_waiting(log.as_ref(), &order, reason, since_ms);
                let _ = tokio::task::spawn_blocking(said).await;
            }
            Err(other) => return Err(other),
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(again) => again = (2 * again).min(AGAIN_MAX),
        }
    }
}

async fn try_begin(order: &RunOrder, version: &SchemaVersion, log: &Arc<dyn Log>) -> Result<Begun, Failure> {
    let run = order.run.as_str();
    let sink = |error: SinkError| Failure::of_sink(error, run);
    repair(order, version, log).await?;
    let (theirs, group, topic) = (log.clone(), group_of(run), order.topic.clone());
    let committed = blocking(move || theirs.committed(&group, &topic)).await?;
    let told = report::told(&committed);
    let reported = told
        .as_ref()
        .and_then(|told| Some(Reported { generation: told.generation, through_ms: told.complete_through_ms? }));
    let heard = told.as_ref().and_then(|told| told.recovery);
    let ordered = order.recoveries.iter().filter(|(id, _)| Some(*id) > heard).map(|(_, repair)| repair.clone());
    let read = committed.iter().filter(|of| Metadata::of(&of.metadata, of.offset).is_some());
    let mut facts = Facts {
        run: run.to_owned(),
        topic: order.topic.clone(),
        generation: version.number,
        ordered: ordered.collect(),
        reported,
        first_ms: order.from.ms(),
        checkpoint_ms: order.from.ms(),
        topic_was: order.topic_id.clone(),
        topic_is: None,
        partitions: read
            .map(|of| PartitionFacts { partition: of.partition, in_use: true, read: Some(of.offset), end: 0 })
            .collect(),
    };
    match weir_sink::shape(&order.target, version).await.map_err(sink)? {
        Shape::Right => {}
        Shape::Altered { table, differs } => return Err(Failure::of(Fault::TableAltered { table, differs }, run)),
        Shape::Missing(table) => {
            facts.partitions.clear();
            return Err(match judge::fault(&facts) {
                // Nothing is done, as far as ClickHouse can say.
                Some(lost @ Fault::TableLost { .. }) => Failure::of(lost, run),
                _ => Failure::Wait(format!("table {table} is not there (`weir serve` and `weir pipeline` make it)")),
            });
        }
    }
    let checkpoint =
        weir_sink::checkpoint(&order.target, run, version, &order.origin, order.from).await.map_err(sink)?;
    facts.checkpoint_ms = checkpoint.ms();
    if let Some(fault) = look(order, log, &facts).await? {
        return Err(Failure::of(fault, run));
    }
    let gone = committed.is_empty() && checkpoint > order.from;
    let gone = gone.then(|| Moved { at_ms: SystemClock.now_ms(), partition: 0, found: None });
    Ok(Begun { version: version.clone(), checkpoint, moved: gone.or(told.and_then(|told| told.moved)) })
}

/// Does what a person has ordered, each once, as far as that can be known; twice does no harm.
async fn repair(order: &RunOrder, version: &SchemaVersion, log: &Arc<dyn Log>) -> Result<(), Failure> {
    if order.repairs.is_empty() {
        return Ok(());
    }
    let theirs = log.clone();
    let control = blocking(move || ControlLog::open(theirs)).await?;
    // By those that are written since the order was made.
    let theirs = control.clone();
    let now = blocking(move || theirs.read_all()).await?;
    let now = Recoveries::of(&order.run, now.records.iter().map(|(_, record)| record));
    let pending = |id: i64| now.pending.iter().any(|(pending, _)| *pending == id);
    for (id, repair) in order.repairs.iter().filter(|(id, _)| pending(*id)) {
        info!(run = order.run, ?repair, "is repaired, as ordered");
        let window = |ms: i64| version.width.window_of(ms);
        let take = |extent| weir_sink::take_back(&order.target, &order.run, version, &order.origin, extent);
        // A ClickHouse that knows of nothing gets its tables first.
        let shape =
            weir_sink::shape(&order.target, version).await.map_err(|error| Failure::of_sink(error, &order.run))?;
        let missing = matches!(shape, Shape::Missing(_));
        if missing {
            let made = weir_sink::prepare(&order.target, version).await;
            made.map_err(|error| Failure::of_sink(error, &order.run))?;
        }
        let repaired = match *repair {
            Repair::GoOn => Ok(()),
            Repair::Mend => weir_sink::mend(&order.target, version).await,
            Repair::AskAgain { from_ms } => take(Extent::From(window(from_ms))).await,
            Repair::GiveUp { from_ms, to_ms } => take(Extent::Lost { from: window(from_ms), to: window(to_ms) }).await,
        };
        repaired.map_err(|error| Failure::of_sink(error, &order.run))?;
        // Values that went with a column, and rows with a table, may be of any age.
        let found = match missing || *repair == Repair::Mend {
            true => weir_sink::audit::Audit::new(&order.target, version).full().await,
            false => Ok(Vec::new()),
        };
        let found = found.map_err(|error| Failure::of_sink(error, &order.run))?;
        let record = ControlRecord {
            at_ms: SystemClock.now_ms(),
            who: format!("run {}", order.run),
            reason: String::new(),
            action: Action::Recovered { run: order.run.clone(), id: *id },
        };
        control.append(&record).await.map_err(|error| Failure::Again(error.into()))?;
        if let Some(fault) = differs(&found, &order.origin, version) {
            return Err(Failure::of(fault, &order.run));
        }
    }
    Ok(())
}

/// What the audit found of one origin, as one fault.
pub(crate) fn differs(found: &[weir_sink::audit::Finding], origin: &str, version: &SchemaVersion) -> Option<Fault> {
    let mine: Vec<_> = found.iter().filter(|finding| finding.origin() == origin).collect();
    let first = mine.iter().min_by_key(|finding| finding.windows(version.width))?;
    let to_ms = mine.iter().map(|finding| finding.windows(version.width).1).max()?;
    Some(Fault::TableDiffers {
        from_ms: first.windows(version.width).0,
        to_ms,
        found: first.to_string(),
        findings: mine.len() as u64,
    })
}

/// Adds to `facts` what the log holds now, and judges.
pub(crate) async fn look(order: &RunOrder, log: &Arc<dyn Log>, facts: &Facts) -> anyhow::Result<Option<Fault>> {
    let mut fault = None;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let (log, order, mut facts) = (log.clone(), order.clone(), facts.clone());
        let looked = blocking(move || {
            add(&log, &mut facts, &order)?;
            Ok(facts)
        });
        fault = judge::fault(&looked.await?);
        if !matches!(fault, Some(Fault::LogShrunk { .. })) {
            break;
        }
    }
    Ok(fault)
}

/// Which topic it is, its partitions, and which of them are in use.
fn add(log: &Arc<dyn Log>, facts: &mut Facts, order: &RunOrder) -> Result<(), LogError> {
    let read = std::mem::take(&mut facts.partitions);
    facts.topic_is = log.topic_id(&facts.topic)?;
    for partition in 0..log.partitions(&facts.topic)? {
        let end = log.bounds(&facts.topic, partition)?.end;
        let read = read.iter().find(|of| of.partition == partition).and_then(|of| of.read);
        let in_use = order.import || order.partitions.iter().any(|(of, _)| *of == partition);
        facts.partitions.push(PartitionFacts { partition, in_use, read, end });
    }
    if facts.partitions.iter().any(|partition| !partition.in_use && partition.end > 0) {
        // After the ends: what is written to a partition is written after it came into use, of which the run learns soon.
        let control = ControlLog::open(log.clone())?.read_all()?;
        let in_use = weir_log::partitions_in_use(control.records.iter().map(|(_, record)| record));
        for partition in &mut facts.partitions {
            partition.in_use |= in_use.iter().any(|of| of.partition == partition.partition);
        }
    }
    Ok(())
}

/// Asks the log, which takes its time, away from the runtime's own thread.
async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(ask).await??)
}
