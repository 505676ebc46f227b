use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use weir_log::{Clock, Log, LogError};
use weir_schemas::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Event, control::EVENTS_TOPIC, wire};

use crate::{
    CollectorConfig,
    answers::Answers,
    spool::{Spool, Waiting},
    telemetry,
};

/// Appends that are under way before new events begin to gather.
///
/// With one, an event that comes just after an append began waits for two of them, and with many, few events share a
/// record. With two, a lone event is on its way at once while a crowd shares records.
const APPENDS_MAX: usize = 2;

/// The first wait after an append that failed; doubled with each, up to the last.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// Gathers events into batches and appends them to the log, or to the spool while the log is away.
///
/// ```text
///  append(events) ──▶ open batch ──▶ appends under way (each pinned to a partition) ──▶ durable: answered
///                        ▲ gathers while two are under way; closed when full
/// ```
///
/// Invariants
/// - [`append`](Self::append) says yes only after all of its events are durable, in the log or in the spool
/// - a batch has one `(collector, sequence)` and one partition, however often its append is tried
/// - events that are not yet durable take at most `in_flight_bytes_max`
#[derive(Clone)]
pub struct Collector {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn Log>,
    spool: Option<Spool>,
    clock: Arc<dyn Clock>,
    config: CollectorConfig,
    partitions: watch::Receiver<u32>,
    /// Names this collector, from its start to its end.
    uuid: [u8; 16],
    bytes_in_flight: AtomicUsize,
    answers: Answers,
    state: Mutex<State>,
    /// How many batches are open or under way.
    unfinished: watch::Sender<usize>,
}

struct State {
    open: Option<Batch>,
    appends: usize,
    sequence: u64,
    partition: u32,
    stopped: bool,
}

struct Batch {
    builder: wire::BatchBuilder,
    sequence: u64,
    partition: u32,
    /// What it takes of `in_flight_bytes_max`.
    bytes: usize,
    waiters: Vec<oneshot::Sender<Result<(), AppendError>>>,
}

/// Why events are not known to be durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error(
        "{bytes} bytes of events wait for the log, {bytes_max} may (send more slowly, or raise collector.in_flight_bytes_max)"
    )]
    Busy { bytes: usize, bytes_max: usize },
    #[error("the log did not take the events within {0:?} (see `weir status`; they may have reached it)")]
    TimedOut(Duration),
    #[error("the log refused the events: {0} (an operator has to see to it: `weir doctor`)")]
    Refused(String),
    #[error("the log is away and the spool does not take the events: {0} (see `weir status`)")]
    Full(String),
    #[error("the collector is stopping")]
    Stopping,
}

/// Where a batch is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Log,
    Spool,
}

impl Collector {
    /// A collector that appends to the topic [`EVENTS_TOPIC`], to its partitions below what `partitions` says: those in
    /// use. It begins at a partition drawn at random, so that many collectors do not all begin at the first.
    pub fn start(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: CollectorConfig,
        partitions: watch::Receiver<u32>,
    ) -> Self {
        Self::start_with(log, clock, config, partitions, None)
    }

    /// The same with a spool, which is drained from now on. Must be called within a tokio runtime.
    pub fn start_spooling(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: CollectorConfig,
        partitions: watch::Receiver<u32>,
        spool: Spool,
    ) -> Self {
        spool.drain_into(Arc::clone(&log), config.append_timeout);
        Self::start_with(log, clock, config, partitions, Some(spool))
    }

    fn start_with(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: CollectorConfig,
        partitions: watch::Receiver<u32>,
        spool: Option<Spool>,
    ) -> Self {
        let state = State { open: None, appends: 0, sequence: 0, partition: rand::random(), stopped: false };
        let shared = Shared {
            log,
            spool,
            clock,
            config,
            partitions,
            uuid: uuid::Uuid::new_v4().into_bytes(),
            bytes_in_flight: AtomicUsize::new(0),
            answers: Answers::default(),
            state: Mutex::new(state),
            unfinished: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Resolves after all of `events` are durable. After an error some may be, or may still become so; they carry no
    /// promise. Dropping the future takes nothing back.
    ///
    /// Must be called within a tokio runtime.
    pub async fn append(&self, events: Vec<Event>) -> Result<(), AppendError> {
        let deadline = Instant::now() + self.shared.config.append_timeout;
        let late = || AppendError::TimedOut(self.shared.config.append_timeout);
        for waiter in self.shared.take(&events)? {
            let answer = timeout_at(deadline, waiter).await.map_err(|_| late())?;
            answer.unwrap_or(Err(AppendError::Stopping))?;
        }
        Ok(())
    }

    /// Bytes of events that are not yet durable.
    pub fn bytes_in_flight(&self) -> usize {
        self.shared.bytes_in_flight.load(Ordering::Relaxed)
    }

    /// Why no events are taken although some were sent: the log or the spool has refused the last ones. `None`: they are taken,
    /// or nobody has sent any for five minutes.
    pub fn failing(&self) -> Option<String> {
        self.shared.answers.failing(Instant::now())
    }

    /// Takes no more events, and resolves when those taken are durable or given up. What waits in the spool stays there.
    pub async fn drain(&self) {
        self.shared.lock().stopped = true;
        let _ = self.shared.unfinished.subscribe().wait_for(|unfinished| *unfinished == 0).await;
        if let Some(spool) = &self.shared.spool {
            spool.stop().await;
        }
    }

    /// The spool, if there is one.
    pub fn spool(&self) -> Option<&Spool> {
        self.shared.spool.as_ref()
    }

    /// How many partitions are in use.
    pub(crate) fn partitions(&self) -> u32 {
        *self.shared.partitions.borrow()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Puts `events` into the open batch, and as many more as they need; gives one waiter a batch.
    fn take(
        self: &Arc<Self>,
        events: &[Event],
    ) -> Result<Vec<oneshot::Receiver<Result<(), AppendError>>>, AppendError> {
        let bytes: usize = events.iter().map(bytes_of).sum();
        let before = self.bytes_in_flight.fetch_add(bytes, Ordering::Relaxed);
        let bytes_max = self.config.in_flight_bytes_max;
        // A single request over the whole bound is taken when nothing else is there: it could never be otherwise.
        if before > 0 && before + bytes > bytes_max {
            self.bytes_in_flight.fetch_sub(bytes, Ordering::Relaxed);
            let busy = AppendError::Busy { bytes: before, bytes_max };
            self.answers.refused(&busy, Instant::now());
            return Err(busy);
        }
        let mut waiters = Vec::with_capacity(1);
        let mut state = self.lock();
        if state.stopped {
            self.bytes_in_flight.fetch_sub(bytes, Ordering::Relaxed);
            return Err(AppendError::Stopping);
        }
        let mut rest = events;
        while !rest.is_empty() {
            let State { open, sequence, partition, .. } = &mut *state;
            let batch = open.get_or_insert_with(|| {
                *sequence += 1;
                *partition = partition.wrapping_add(1) % (*self.partitions.borrow()).max(1);
                self.unfinished.send_modify(|unfinished| *unfinished += 1);
                let builder = wire::BatchBuilder::new(self.uuid, *sequence);
                Batch { builder, sequence: *sequence, partition: *partition, bytes: 0, waiters: Vec::new() }
            });
            let mut taken = 0;
            while let Some(event) = rest.get(taken)
                && (batch.builder.is_empty() || has_room(&batch.builder, event))
            {
                batch.builder.push(event);
                batch.bytes += bytes_of(event);
                taken += 1;
            }
            if taken > 0 {
                let (done, waiter) = oneshot::channel();
                batch.waiters.push(done);
                waiters.push(waiter);
                rest = &rest[taken..];
            }
            if !rest.is_empty() {
                self.send_open(&mut state);
            }
        }
        if state.appends < APPENDS_MAX {
            self.send_open(&mut state);
        }
        Ok(waiters)
    }

    /// Closes the open batch, if there is one with events, and begins its append.
    fn send_open(self: &Arc<Self>, state: &mut State) {
        if let Some(batch) = state.open.take() {
            state.appends += 1;
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                let bytes = batch.bytes;
                shared.append_batch(batch).await;
                shared.bytes_in_flight.fetch_sub(bytes, Ordering::Relaxed);
                let mut state = shared.lock();
                state.appends -= 1;
                if state.appends < APPENDS_MAX {
                    shared.send_open(&mut state);
                }
                shared.unfinished.send_modify(|unfinished| *unfinished -= 1);
            });
        }
    }

    /// Appends `batch`, and answers those who wait for it.
    async fn append_batch(&self, batch: Batch) {
        let Batch { builder, sequence, partition, waiters, .. } = batch;
        let events = builder.len();
        let encoded = Bytes::from(builder.finish());
        let bytes = encoded.len();
        let begun = Instant::now();
        let answer = match &self.spool {
            None => {
                let appended = self.append_until(partition, &encoded, begun + self.config.append_timeout).await;
                appended.map(|()| Place::Log)
            }
            Some(spool) => {
                let (first_ms, collector) = (self.clock.now_ms(), self.uuid);
                let events = u32::try_from(events).unwrap_or(u32::MAX);
                let batch = Waiting { first_ms, tried: false, partition, events, collector, sequence, encoded };
                self.append_or_spool(spool, batch).await
            }
        };
        match &answer {
            Ok(_) => self.answers.taken(Instant::now()),
            Err(error) => self.answers.refused(error, Instant::now()),
        }
        telemetry::BatchAppended { events, bytes, partition, seconds: begun.elapsed(), answer: &answer }.emit();
        for waiter in waiters {
            // One that hung up is told nothing.
            let _ = waiter.send(answer.clone().map(drop));
        }
    }

    /// One try, if the log is not known to be away, then the spool: who sent the events may not be able to wait.
    async fn append_or_spool(&self, spool: &Spool, mut batch: Waiting) -> Result<Place, AppendError> {
        if !spool.is_first() {
            let record = Bytes::from(wire::batch_record(batch.first_ms, &batch.encoded));
            let append = self.log.append(EVENTS_TOPIC, batch.partition, record, None);
            let patience = spool.after().min(self.config.append_timeout / 2);
            match timeout_at(Instant::now() + patience, append).await {
                Ok(Ok(_)) => {
                    spool.log_is_here();
                    return Ok(Place::Log);
                }
                // A person is needed, and until then the events are safe here; the next one may fare better.
                Ok(Err(error)) if !may_pass(&error) => telemetry::BatchRefused { error: &error }.emit(),
                Ok(Err(error)) => {
                    batch.tried = matches!(error, LogError::Unclear { .. });
                    spool.log_is_away(&error);
                }
                Err(_) => {
                    // Nobody waits for that append any longer, but it may still come to its end.
                    batch.tried = true;
                    spool.log_is_away(&format_args!("no answer within {patience:?}"));
                }
            }
        }
        spool.put(batch).await.map(|()| Place::Spool).map_err(|error| AppendError::Full(error.to_string()))
    }

    /// Tries until `deadline`: the same batch, to the same partition, each time behind the clock as it is then.
    async fn append_until(&self, partition: u32, encoded: &[u8], deadline: Instant) -> Result<(), AppendError> {
        let late = || AppendError::TimedOut(self.config.append_timeout);
        let mut backoff = BACKOFF_FIRST;
        loop {
            let record = Bytes::from(wire::batch_record(self.clock.now_ms(), encoded));
            let append = self.log.append(EVENTS_TOPIC, partition, record, None);
            match timeout_at(deadline, append).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if !may_pass(&error) => return Err(AppendError::Refused(error.to_string())),
                Ok(Err(error)) => {
                    telemetry::AppendTriedAgain { partition, error: &error }.emit();
                    if Instant::now() + backoff >= deadline {
                        return Err(late());
                    }
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_LAST);
                }
                Err(_) => return Err(late()),
            }
        }
    }
}

/// Whether the same append may succeed later by itself; else somebody has to mend the log, which has answered.
pub(crate) fn may_pass(error: &LogError) -> bool {
    match error {
        LogError::Unclear { .. } | LogError::Unavailable(_) | LogError::Kafka(_) | LogError::Embedded { .. } => true,
        LogError::UnknownTopic(_)
        | LogError::WrongTopic { .. }
        | LogError::BelowStart { .. }
        | LogError::TooLarge { .. } => false,
    }
}

/// Whether `event` fits, even if none of its strings is in the batch yet.
fn has_room(builder: &wire::BatchBuilder, event: &Event) -> bool {
    builder.len() < BATCH_EVENTS_MAX && builder.bytes_at_most() + bytes_of(event) <= BATCH_BYTES_MAX
}

/// At least what an event takes in a batch: its strings, each with its length and index, and its numbers.
fn bytes_of(event: &Event) -> usize {
    let Event {
        site, id, host, page, query, referrer, user_agent, country, name, target, title, screen, language, ..
    } = event;
    let strings = [site, id, host, page, query, referrer, user_agent, country, name, target, title, screen, language];
    let props = event.props.iter().map(|(name, value)| name.len() + value.len() + 24).sum::<usize>();
    strings.iter().map(|string| string.len() + 12).sum::<usize>() + props + 48
}
