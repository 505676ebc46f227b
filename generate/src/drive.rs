use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use weir_log::{Clock, SystemClock};
use weir_schemas::DEDUP_HORIZON_MS;

use crate::{Spec, Summary, Traffic, hit::Sending};

/// Events that are sent together: at 400 B each 200 kB of JSON, well under any limit of a collector.
pub(crate) const EVENTS_PER_SEND_MAX: usize = 500;

/// Sends that are under way: 256 × 500 events × ~500 B = 64 MB. Beyond it the traffic waits, and then catches up.
pub(crate) const SENDS_MAX: usize = 256;

/// How often events that are due are sent.
const TICK: Duration = Duration::from_millis(20);

/// How long a send is tried again. A copy counts once only within the log's horizon, so the last try must be well
/// within it: 10 min less the time an append may take.
const SENT_AGAIN_FOR: Duration = Duration::from_secs(8 * 60);
const _: () = assert!(SENT_AGAIN_FOR.as_millis() as i64 + 60_000 < DEDUP_HORIZON_MS);

/// After a shutdown: how long answers are waited for.
const ANSWERS_WAIT: Duration = Duration::from_secs(30);

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// Where events go.
pub(crate) trait Target: Send + Sync + 'static {
    fn send(&self, events: &[Sending]) -> impl Future<Output = Answer> + Send;
}

/// What a target said of one send.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All but these (place, reason) are durable.
    Taken { rejected: Vec<(usize, String)>, retry_after: Option<Duration> },
    /// None is, and none will be.
    Refused { reason: String },
    /// Perhaps, or not yet.
    Again { unclear: bool, retry_after: Option<Duration>, why: String },
}

/// Generates the traffic of `spec` at its rate and sends it, until it ends or `shutdown` resolves.
pub(crate) async fn drive<T: Target>(spec: &Spec, target: T, shutdown: impl Future<Output = ()> + Send) -> Summary {
    let target = Arc::new(target);
    let summary = Arc::new(Mutex::new(Summary { seed: spec.seed, ..Summary::default() }));
    let sends = Arc::new(Semaphore::new(SENDS_MAX));
    // Ids are new with each run, so that the same seed again within the horizon is no copy.
    let run = uuid::Uuid::new_v4().simple().to_string();
    let (begin, total) = (Instant::now(), spec.events());
    let mut traffic = Traffic::new(spec);
    let mut under_way = JoinSet::new();
    let mut generated = 0;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut stopped = false;
    'all: while generated < total {
        let due = total.min((begin.elapsed().as_secs_f64() * spec.rate) as u64 + 1);
        while generated < due {
            let permit = tokio::select! {
                permit = Arc::clone(&sends).acquire_owned() => permit.expect("never closed"),
                () = &mut shutdown => { stopped = true; break 'all }
            };
            let count = (due - generated).min(EVENTS_PER_SEND_MAX as u64);
            let now_ms = SystemClock.now_ms();
            let events: Vec<Sending> = traffic
                .by_ref()
                .take(count as usize)
                .map(|hit| Sending {
                    id: format!("{run}-{}", hit.number),
                    time_ms: hit.back_ms.map(|back_ms| now_ms - i64::from(back_ms)),
                    hit,
                })
                .collect();
            generated += count;
            summary.lock().expect("no holder panics").generated = generated;
            let (target, summary) = (Arc::clone(&target), Arc::clone(&summary));
            under_way.spawn(async move {
                deliver(&*target, events, &summary).await;
                drop(permit);
            });
            while under_way.try_join_next().is_some() {}
        }
        // At a low rate the next event may be due long after the next tick.
        let next = begin + Duration::from_secs_f64(generated as f64 / spec.rate);
        tokio::select! {
            () = sleep_until(next.max(Instant::now() + TICK).min(begin + spec.duration.max(TICK))) => {}
            () = &mut shutdown => { stopped = true; break }
        }
    }
    let all_answered = async { while under_way.join_next().await.is_some() {} };
    if stopped {
        let _ = timeout(ANSWERS_WAIT, all_answered).await;
    } else {
        tokio::select! {
            () = all_answered => {}
            () = async { shutdown.await; sleep(ANSWERS_WAIT).await } => {}
        }
    }
    under_way.shutdown().await;
    let mut summary = summary.lock().expect("no holder panics").clone();
    summary.unanswered = summary.generated - summary.accepted - summary.rejected.values().sum::<u64>();
    summary.seconds = begin.elapsed().as_secs_f64();
    summary.accepted_per_second = summary.accepted as f64 / summary.seconds;
    summary
}

/// Sends events until each has a clear answer, or it is too late to try again; those then stay unanswered.
async fn deliver<T: Target>(target: &T, mut events: Vec<Sending>, summary: &Mutex<Summary>) {
    let begin = Instant::now();
    let mut backoff = BACKOFF_FIRST;
    // Whether an earlier try may have reached the log: then "too many events" is no clear answer either.
    let mut may_be_there = false;
    loop {
        let (retry_after, why) = match target.send(&events).await {
            Answer::Taken { rejected, retry_after } => {
                events = settle(events, &rejected, may_be_there, &mut summary.lock().expect("no holder panics"));
                (retry_after, "rate_limited".to_owned())
            }
            Answer::Refused { reason } if !may_be_there => {
                let mut summary = summary.lock().expect("no holder panics");
                events.drain(..).for_each(|_| summary.reject(&reason));
                (None, reason)
            }
            Answer::Refused { reason } => (None, reason),
            Answer::Again { unclear, retry_after, why } => {
                may_be_there |= unclear;
                (retry_after, why)
            }
        };
        if events.is_empty() {
            return;
        }
        let wait = retry_after.unwrap_or(backoff).min(SENT_AGAIN_FOR);
        if begin.elapsed() + wait > SENT_AGAIN_FOR {
            tracing::error!(events = events.len(), why, "events are given up without a clear answer");
            return;
        }
        if backoff == BACKOFF_LAST {
            tracing::warn!(events = events.len(), why, "no clear answer yet; sending again");
        }
        backoff = (backoff * 2).min(BACKOFF_LAST);
        sleep(wait).await;
        summary.lock().expect("no holder panics").retries += 1;
    }
}

/// Counts what is decided, and gives back what is not: limited events of which an earlier copy may be in the log.
fn settle(
    events: Vec<Sending>,
    rejected: &[(usize, String)],
    may_be_there: bool,
    summary: &mut Summary,
) -> Vec<Sending> {
    let mut rejected = rejected.iter().peekable();
    let mut undecided = Vec::new();
    for (index, event) in events.into_iter().enumerate() {
        match rejected.next_if(|(at, _)| *at == index) {
            None => summary.accept(&event.hit),
            Some((_, reason)) if may_be_there && reason == "rate_limited" => undecided.push(event),
            Some((_, reason)) => summary.reject(reason),
        }
    }
    undecided
}
