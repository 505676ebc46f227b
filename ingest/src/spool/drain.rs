//! From the spool into the log, in order: a group at a time, which is trimmed when all of it is in the log.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};
use weir_log::{Log, LogError};
use weir_schemas::{
    DEDUP_HORIZON_MS,
    control::EVENTS_TOPIC,
    wire::{self, Content},
};

use super::{
    DRAIN_RECORDS_MAX, Inner, Reach,
    store::{BatchName, Store, Waiting},
};
use crate::{
    collector::{BACKOFF_FIRST, BACKOFF_LAST, may_pass},
    telemetry,
};

/// A doubtful batch is sent again without looking when its first try is younger than this.
///
/// Readers see a copy within 10 min of its first arrival. Half of that leaves 5 min for what lies between our clock's
/// "first try" and "now" and the two arrivals in the log: an append that is slow (10 s), a clock of a collector and
/// one of a broker that are off by a minute each.
const LOOK_UP_AFTER_MS: i64 = DEDUP_HORIZON_MS / 2;

/// How long the log may give nothing although there is something.
const SILENT_POLLS_MAX: usize = 60;

/// A batch of the group under way, with the time since when it may be in the log, if it may.
struct Trying {
    batch: Waiting,
    doubt_ms: Option<i64>,
}

/// Until the spool is stopped.
pub(super) async fn run(inner: &Arc<Inner>, log: &Arc<dyn Log>, append_timeout: Duration) {
    let stopped = async {
        let _ = inner.stop.subscribe().wait_for(|stop| *stop).await;
        // A log that answers does so soon, and then no copy is needed; one that is away is not waited for.
        if *inner.reach.borrow() == Reach::Here {
            sleep(inner.config.after).await;
        }
    };
    tokio::select! {
        () = drain(inner, log, append_timeout) => {}
        () = stopped => {}
    }
}

async fn drain(inner: &Arc<Inner>, log: &Arc<dyn Log>, append_timeout: Duration) {
    let _ = inner.reach.subscribe().wait_for(|reach| *reach != Reach::Unknown).await;
    let mut end = inner.end.subscribe();
    while !*inner.stop.borrow() {
        let next = *inner.next.borrow();
        if end.wait_for(|end| *end > next).await.is_err() {
            return;
        }
        // One batch tells whether the log is back; more would only wait with it.
        let records_max = if *inner.reach.borrow() == Reach::Here { DRAIN_RECORDS_MAX } else { 1 };
        let (batches, after) = on_disk(inner, "read", move |store| store.first(records_max)).await;
        let (count, events) = (batches.len(), batches.iter().map(|batch| u64::from(batch.events)).sum());
        send(inner, log, batches, append_timeout).await;
        on_disk(inner, "trimmed", move |store| store.trim(after)).await;
        inner.next.send_replace(after);
        telemetry::SpoolDrained { batches: count, events, left: *inner.end.borrow() - after }.emit();
    }
}

/// Resolves when all `batches` are in the log.
async fn send(inner: &Inner, log: &Arc<dyn Log>, batches: Vec<Waiting>, append_timeout: Duration) {
    let doubt = |batch: &Waiting| batch.tried.then_some(batch.first_ms);
    let mut trying: Vec<Trying> = batches.into_iter().map(|batch| Trying { doubt_ms: doubt(&batch), batch }).collect();
    let mut backoff = BACKOFF_FIRST;
    let mut told = String::new();
    loop {
        let failed = match settle(inner, log, &mut trying).await {
            Err(error) => Some(error),
            Ok(()) => try_once(inner, log, &mut trying, append_timeout).await,
        };
        if trying.is_empty() {
            return;
        }
        if let Some(error) = failed {
            let text = error.to_string();
            telemetry::DrainTriedAgain { error: &error, changed: text != told }.emit();
            told = text;
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

/// Looks up those whose doubt is too old to be sent again; what is in the log is done.
async fn settle(inner: &Inner, log: &Arc<dyn Log>, trying: &mut Vec<Trying>) -> Result<(), LogError> {
    let now_ms = inner.clock.now_ms();
    let is_old = |trying: &Trying| trying.doubt_ms.is_some_and(|doubt_ms| now_ms - doubt_ms > LOOK_UP_AFTER_MS);
    let mut wanted: BTreeMap<u32, (i64, HashSet<BatchName>)> = BTreeMap::new();
    for Trying { batch, doubt_ms } in trying.iter().filter(|trying| is_old(trying)) {
        let (from_ms, names) = wanted.entry(batch.partition).or_insert((i64::MAX, HashSet::new()));
        *from_ms = (*from_ms).min(doubt_ms.unwrap_or(i64::MAX));
        names.insert((batch.collector, batch.sequence));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let log = Arc::clone(log);
    let found = blocking(move || look_up(&*log, &wanted)).await?;
    telemetry::SpoolLookedUp { batches: trying.iter().filter(|trying| is_old(trying)).count(), found: found.len() }
        .emit();
    trying.retain_mut(|trying| {
        let is_there = found.contains(&(trying.batch.partition, (trying.batch.collector, trying.batch.sequence)));
        if is_old(trying) {
            // A try that is still under way somewhere lands after the look, and so within the horizon of the next.
            trying.doubt_ms = Some(now_ms);
        }
        !is_there
    });
    Ok(())
}

/// Appends all of them at once, in order; those acknowledged are done. Gives the first error.
async fn try_once(
    inner: &Inner,
    log: &Arc<dyn Log>,
    trying: &mut Vec<Trying>,
    append_timeout: Duration,
) -> Option<LogError> {
    let sent_ms = inner.clock.now_ms();
    // The log itself gives up after `append_timeout`, and then knows more than we do.
    let deadline = Instant::now() + 2 * append_timeout;
    let appends: Vec<_> = trying
        .iter()
        .map(|Trying { batch, .. }| {
            let record = Bytes::from(wire::batch_record(sent_ms, &batch.encoded));
            timeout_at(deadline, log.append(EVENTS_TOPIC, batch.partition, record, None))
        })
        .collect();
    let answers = join_all(appends).await;
    let acknowledged = answers.iter().filter(|answer| matches!(answer, Ok(Ok(_)))).count();
    let mut first = None;
    let mut answers = answers.into_iter();
    trying.retain_mut(|trying| {
        let error = match answers.next().expect("an answer each") {
            Ok(Ok(_)) => return false,
            Ok(Err(error)) => error,
            Err(_) => LogError::Unclear {
                topic: EVENTS_TOPIC.to_owned(),
                partition: trying.batch.partition,
                cause: format!("no answer within {:?}", 2 * append_timeout),
            },
        };
        if matches!(error, LogError::Unclear { .. }) {
            trying.doubt_ms.get_or_insert(sent_ms);
        }
        first.get_or_insert(error);
        true
    });
    // A log that refuses what waits here may take what comes new.
    if acknowledged > 0 || first.as_ref().is_some_and(|error| !may_pass(error)) {
        inner.set_reach(Reach::Here, &"");
    } else if let Some(error) = &first {
        inner.set_reach(Reach::Away, error);
    }
    first
}

/// Which of the batches `wanted` are in the log: for each partition those that may be there since a time.
fn look_up(
    log: &dyn Log,
    wanted: &BTreeMap<u32, (i64, HashSet<BatchName>)>,
) -> Result<HashSet<(u32, BatchName)>, LogError> {
    let mut found = HashSet::new();
    for (&partition, (from_ms, names)) in wanted {
        // The end first: what is appended meanwhile is not what is looked for.
        let bounds = log.bounds(EVENTS_TOPIC, partition)?;
        // The log's clock may be behind ours; an hour of records too many would cost seconds, one too few an event.
        let from = log.offset_at(EVENTS_TOPIC, partition, from_ms - DEDUP_HORIZON_MS)?;
        let mut next = from.unwrap_or(bounds.end).max(bounds.start);
        if next >= bounds.end {
            continue;
        }
        let mut reader = log.reader(EVENTS_TOPIC)?;
        reader.assign(partition, next)?;
        let mut silent = 0;
        while next < bounds.end {
            let given = reader.poll(1_000, Duration::from_millis(500), &mut |record| {
                next = record.offset + 1;
                if let Ok(record) = wire::decode(record.payload)
                    && let Content::Batch(batch) = record.content
                    && names.contains(&(batch.collector, batch.sequence))
                {
                    found.insert((partition, (batch.collector, batch.sequence)));
                }
            })?;
            silent = if given == 0 { silent + 1 } else { 0 };
            if silent == SILENT_POLLS_MAX {
                return Err(LogError::Unavailable(format!(
                    "partition {partition} ends at {} but gives nothing from {next}",
                    bounds.end
                )));
            }
        }
    }
    Ok(found)
}

/// Asks the disk until it answers: nothing else can be done, and nothing is lost.
async fn on_disk<T: Send + 'static>(
    inner: &Arc<Inner>,
    what: &'static str,
    deed: impl Fn(&Store) -> Result<T, LogError> + Clone + Send + 'static,
) -> T {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let (theirs, deed) = (Arc::clone(inner), deed.clone());
        match blocking(move || deed(&theirs.store)).await {
            Ok(value) => return value,
            Err(error) => {
                tracing::error!(%error, "the spool cannot be {what}; will try again");
                sleep(backoff).await;
                backoff = (backoff * 2).min(10 * BACKOFF_LAST);
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(LogError::Unavailable(error.to_string())))
}
