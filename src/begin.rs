//! How a run begins: what a person has ordered is done, ClickHouse is waited for, and whether it may go on is judged.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{debug, info, warn};
use weir_log::{Clock, ControlLog, Log, LogError, SystemClock};
use weir_schemas::{
    Fault, Repair, Replacements, SchemaVersion, WindowStart, World,
    control::{Action, ControlRecord, REPLAY_RUN},
    progress::{Metadata, Moved, group_of},
};
use weir_sink::{Altered, Extent, Left, Shape, SinkError, audit::Finding};

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
    let called = order.called();
    let sink = |error: SinkError| Failure::of_sink(error, called);
    repair(order, version, log).await?;
    let (theirs, group, topic) = (log.clone(), group_of(run), order.topic.clone());
    let committed = blocking(move || theirs.committed(&group, &topic)).await?;
    let told = report::told(&committed);
    let reported = told
        .as_ref()
        // What a gap run has reported may be of another gap, and a replay's of another range; that all before a window is
        // done is live's to know.
        .filter(|_| order.left != Left::Own && run != REPLAY_RUN)
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
        given_up_to_ms: order.given_up_to_ms.filter(|_| order.left != Left::Own),
        topic_was: order.topic_id.clone(),
        topic_is: None,
        partitions: read
            .map(|of| PartitionFacts { partition: of.partition, in_use: true, read: Some(of.offset), end: 0 })
            .collect(),
    };
    match settled_shape(order, version).await? {
        Shape::Right => {}
        Shape::Altered(Altered { table, differs, mends }) => {
            return Err(Failure::of(Fault::TableAltered { table, differs, mends }, called));
        }
        Shape::Closed { restoring } => return Err(closed(order, restoring)),
        Shape::Missing(table) => {
            facts.partitions.clear();
            return Err(match judge::fault(&facts) {
                // Nothing is done, as far as ClickHouse can say.
                Some(lost @ Fault::TableLost { .. }) => Failure::of(lost, called),
                _ => Failure::Wait(format!("table {table} is not there (`weir serve` and `weir pipeline` make it)")),
            });
        }
    }
    let checkpoint = checkpoint(order, version).await.map_err(sink)?;
    facts.checkpoint_ms = checkpoint.ms();
    if let Some(fault) = look(order, log, &facts).await? {
        return Err(Failure::of(fault, called));
    }
    let gone = committed.is_empty() && checkpoint > order.from;
    let gone = gone.then(|| Moved { at_ms: SystemClock.now_ms(), partition: 0, found: None });
    Ok(Begun { version: version.clone(), checkpoint, moved: gone.or(told.and_then(|told| told.moved)) })
}

/// How the tables are. A restore drops `owners` first, and is seen to be at work a moment later.
async fn settled_shape(order: &RunOrder, version: &SchemaVersion) -> Result<Shape, Failure> {
    let mut shape = Shape::Closed { restoring: false };
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let looked = weir_sink::shape(&order.target, version).await;
        shape = looked.map_err(|error| Failure::of_sink(error, order.called()))?;
        if shape != (Shape::Closed { restoring: false }) {
            break;
        }
    }
    Ok(shape)
}

fn closed(order: &RunOrder, restoring: bool) -> Failure {
    let table = format!("{}.owners", order.target.database);
    match restoring {
        true => Failure::Wait(format!(
            "table {table} is not there: a copy is being brought back (if that was cut short, begin it again)"
        )),
        false => Failure::of(Fault::OwnersGone { table }, order.called()),
    }
}

/// Where the run goes on: the first window that is not in the table; a gap's run at the first that is still left to it.
pub(crate) async fn checkpoint(order: &RunOrder, version: &SchemaVersion) -> Result<WindowStart, SinkError> {
    let RunOrder { target, run, origin, from, .. } = order;
    match (order.left, order.to) {
        (Left::Own, Some(to)) => {
            let gaps = weir_sink::gaps(target, version).await?;
            Ok(gaps.first().filter(|gap| gap.to == to).map_or(to, |gap| gap.from))
        }
        _ => weir_sink::checkpoint(target, run, version, origin, *from).await,
    }
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
    let known = now.records.len();
    let now = World::of(now.records.iter().map(|(_, record)| record)).recoveries(&order.run);
    let pending = |id: i64| now.pending.iter().any(|(pending, _)| *pending == id);
    let repairs: Vec<_> = order.repairs.iter().filter(|(id, _)| pending(*id)).collect();
    let fail = |error| Failure::of_sink(error, order.called());
    let mut compare = false;
    for (_, repair) in &repairs {
        info!(run = order.run, ?repair, "is repaired, as ordered");
        // What lies beyond a seam is another run's, whatever was ordered.
        let (first_ms, end_ms) = order.own_ms();
        let window = |ms: i64| version.width.window_of(ms.clamp(first_ms, end_ms));
        let take = |extent| weir_sink::take_back(&order.target, &order.run, version, &order.origin, extent);
        let shape = settled_shape(order, version).await?;
        if let (Shape::Closed { restoring }, true) = (&shape, *repair != Repair::Mend) {
            return Err(closed(order, *restoring));
        }
        // A ClickHouse that knows of nothing gets its tables first.
        let missing = matches!(shape, Shape::Missing(_));
        if missing {
            weir_sink::prepare(&order.target, version).await.map_err(fail)?;
        }
        // Values that went with a column, and rows with a table, may be of any age.
        compare |= missing || *repair == Repair::Mend;
        let repaired = match *repair {
            Repair::GoOn => Ok(()),
            Repair::Mend => weir_sink::mend(&order.target, version).await,
            Repair::AskAgain { from_ms } if end_ms < i64::MAX => {
                take(Extent::Again { from: window(from_ms), to: window(end_ms) }).await
            }
            Repair::AskAgain { from_ms } => take(Extent::From(window(from_ms))).await,
            Repair::GiveUp { from_ms, to_ms } => take(Extent::Lost { from: window(from_ms), to: window(to_ms) }).await,
        };
        repaired.map_err(fail)?;
    }
    let mut found = match compare {
        true => weir_sink::audit::Audit::new(&order.target, version).full().await.map_err(fail)?,
        false => Vec::new(),
    };
    believe(&mut found, &control, known, version).await?;
    for (id, _) in repairs {
        let record = ControlRecord {
            at_ms: SystemClock.now_ms(),
            who: format!("run {}", order.run),
            reason: String::new(),
            action: Action::Recovered { run: order.run.clone(), id: *id },
        };
        control.append(&record).await.map_err(|error| Failure::Again(error.into()))?;
    }
    match differs(&found, &order.origin, order.own_ms(), version) {
        Some(fault) => Err(Failure::of(fault, order.called())),
        None => Ok(()),
    }
}

/// Leaves out, of what an audit has found that began when there were `known` control records, what lies in days that were
/// being replaced since: their rows and their record may have differed at that moment. Tells the rest, and gives the runs
/// whose recovery was ordered, or done, since: of theirs the same holds.
pub(crate) async fn believe(
    found: &mut Vec<Finding>,
    control: &ControlLog,
    known: usize,
    version: &SchemaVersion,
) -> anyhow::Result<BTreeSet<String>> {
    if found.is_empty() {
        return Ok(BTreeSet::new());
    }
    let control = control.clone();
    let now = blocking(move || control.read_all()).await?;
    let replacements = Replacements::of(now.records.iter().map(|(_, record)| record));
    let since = now.records.iter().skip(known).map(|(_, record)| &record.action);
    let recovered = since.filter_map(|action| match action {
        Action::Recover { run, .. } | Action::Recovered { run, .. } => Some(run.clone()),
        _ => None,
    });
    let recovered = recovered.collect();
    found.retain(|finding| {
        let (from_ms, to_ms) = finding.windows(version.width);
        let mut open = replacements.open_since(known).filter(|one| one.generation == version.number);
        !finding.origin().is_empty() || !open.any(|one| one.reaches_into(from_ms, to_ms))
    });
    found.iter().for_each(Finding::tell);
    Ok(recovered)
}

/// So many ranges of windows a fault names; of more, those that lie nearest to each other are told as one.
const RANGES_MAX: usize = 16;

/// What the audit found of one origin in the windows from `from_ms` to `to_ms`, as one fault: no batch reaches over a seam.
pub(crate) fn differs(
    found: &[Finding],
    origin: &str,
    (from_ms, to_ms): (i64, i64),
    version: &SchemaVersion,
) -> Option<Fault> {
    let within = |finding: &&Finding| (from_ms..to_ms).contains(&finding.windows(version.width).0);
    let mine: Vec<_> = found.iter().filter(|finding| finding.origin() == origin).filter(within).collect();
    let first = mine.iter().min_by_key(|finding| finding.windows(version.width))?;
    let ranges = ranges(mine.iter().map(|finding| finding.windows(version.width)).collect());
    Some(Fault::TableDiffers { ranges, found: first.to_string(), findings: mine.len() as u64 })
}

/// The same windows as ranges, ascending, that do not touch; at most [`RANGES_MAX`], which may hold some more.
fn ranges(mut all: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    all.sort_unstable();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for (from_ms, to_ms) in all {
        match ranges.last_mut() {
            Some((_, last_ms)) if from_ms <= *last_ms => *last_ms = to_ms.max(*last_ms),
            _ => ranges.push((from_ms, to_ms)),
        }
    }
    while ranges.len() > RANGES_MAX {
        let apart = |at: &usize| ranges[at + 1].0 - ranges[*at].1;
        let nearest = (0..ranges.len() - 1).min_by_key(apart).expect("there are two");
        ranges[nearest].1 = ranges.remove(nearest + 1).1;
    }
    ranges
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
    if order.old.is_some() {
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_differ_are_told_apart_until_they_are_too_many_then_the_nearest_are_told_as_one() {
        assert_eq!(ranges(vec![(7, 9), (0, 2), (1, 3), (3, 4)]), [(0, 4), (7, 9)]);
        let mut many: Vec<(i64, i64)> = (0..20).map(|at| (at * 100, at * 100 + 10 + at)).collect();
        let told = ranges(many.clone());
        assert_eq!(told.len(), RANGES_MAX);
        // The gaps get smaller: the last five became one.
        assert_eq!(told[..15], many[..15]);
        assert_eq!(told[15], (1_500, 1_929));
        many.truncate(RANGES_MAX);
        assert_eq!(ranges(many.clone()), many);
    }
}
