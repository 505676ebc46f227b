use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::channel::oneshot;
use heed::RwTxn;

use super::{
    EmbeddedLog,
    keys::{PartitionState, TopicId, record_key},
    retention,
    store::{Store, cause_of},
    times,
    topics::{self, TopicRow},
};
use crate::{Appended, Clock, LogError, Result, telemetry};

/// Bytes of one group: 8 MB are written and fsynced in some 20 ms, so an append waits for at most two of those.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Records of one group, so that a flood of tiny ones does not hold the writer's lock for long either.
const GROUP_RECORDS_MAX: usize = 4_096;
/// Payloads that wait in memory for the disk; more are refused at once.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// How often retention is looked at, and readers of killed processes are cleared.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);
const _: () = assert!(EmbeddedLog::RECORD_BYTES_MAX <= GROUP_BYTES_MAX);

/// An append that waits for its commit.
pub(super) struct Append {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) payload: Bytes,
    pub(super) stamp_ms: Option<i64>,
    begun: Instant,
    answer: oneshot::Sender<Result<Appended>>,
}

/// The thread that makes all appends of a handle durable: whatever came while the last group was written is the next.
pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    /// Bytes on disk over which appends are refused.
    bytes_max: Option<u64>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Append>,
    bytes: usize,
    closed: bool,
}

impl Committer {
    pub(super) fn start(store: Arc<Store>, clock: Arc<dyn Clock>, bytes_max: Option<u64>) -> Result<Self> {
        let shared = Arc::new(Shared { store, clock, bytes_max, queue: Mutex::default(), changed: Condvar::new() });
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("weir-log-commit".to_owned())
            .spawn(move || theirs.run())
            .map_err(|error| shared.store.failure(format!("cannot start its committer: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues an append; the answer comes after the commit.
    pub(super) fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> Result<oneshot::Receiver<Result<Appended>>> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.shared.lock();
        if queue.bytes + payload.len() > WAITING_BYTES_MAX {
            return Err(LogError::Unavailable(format!(
                "{} MB of appends wait for the disk of {} (it is slower than what comes in)",
                queue.bytes >> 20,
                self.shared.store.path.display()
            )));
        }
        queue.bytes += payload.len();
        let topic = match queue.waiting.last() {
            Some(last) if &*last.topic == topic => last.topic.clone(),
            _ => topic.into(),
        };
        queue.waiting.push(Append { topic, partition, payload, stamp_ms, begun: Instant::now(), answer });
        drop(queue);
        self.shared.changed.notify_one();
        Ok(receiver)
    }
}

impl Drop for Committer {
    /// Waits until everything that was queued has been answered.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.shared.store.path.display(), "the committer of the embedded log panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut housekeeping_due = Instant::now();
        loop {
            let wait = housekeeping_due.saturating_duration_since(Instant::now());
            let (group, closed) = self.next_group(wait);
            if !group.is_empty() {
                self.commit(group);
            } else if closed {
                return;
            }
            if !closed && Instant::now() >= housekeeping_due && !self.housekeeping() {
                housekeeping_due = Instant::now() + HOUSEKEEPING_EVERY;
            }
        }
    }

    /// The appends that wait, up to a group's bounds; waits up to `wait` if there are none.
    fn next_group(&self, wait: Duration) -> (Vec<Append>, bool) {
        let queue = self.lock();
        let (mut queue, _) = self
            .changed
            .wait_timeout_while(queue, wait, |queue| queue.waiting.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut count, mut bytes) = (0, 0);
        for append in queue.waiting.iter().take(GROUP_RECORDS_MAX) {
            if count > 0 && bytes + append.payload.len() > GROUP_BYTES_MAX {
                break;
            }
            bytes += append.payload.len();
            count += 1;
        }
        queue.bytes -= bytes;
        let group = if count == queue.waiting.len() {
            std::mem::take(&mut queue.waiting)
        } else {
            queue.waiting.drain(..count).collect()
        };
        (group, queue.closed)
    }

    /// One bounded step; true if there may be more to do.
    fn housekeeping(&self) -> bool {
        if let Ok(cleared @ 1..) = self.store.env.clear_stale_readers() {
            tracing::warn!(cleared, "cleared the reader slots of processes that were killed");
        }
        retention::step(&self.store, self.clock.now_ms()).unwrap_or_else(|error| {
            tracing::warn!(%error, "old records could not be deleted; will try again");
            false
        })
    }

    /// Makes the group durable and answers all of it.
    fn commit(&self, group: Vec<Append>) {
        let mut placed = Vec::with_capacity(group.len());
        let mut outcome = self.write(&group, &mut placed);
        if matches!(&outcome, Err(failure) if !failure.unclear) && self.nudge().is_ok() {
            placed.clear();
            outcome = self.write(&group, &mut placed);
        }
        let now = Instant::now();
        let (mut bytes, mut records) = (0, 0);
        let mut placed = placed.into_iter();
        for append in group {
            let answer = match &outcome {
                Ok(()) => placed.next().expect("every append of a committed group was placed or refused"),
                Err(failure) => Err(failure.to_error(&self.store, &append)),
            };
            match &answer {
                Ok(_) => {
                    bytes += append.payload.len();
                    records += 1;
                    telemetry::appended("embedded", now - append.begun);
                }
                Err(error) => telemetry::append_failed("embedded", error),
            }
            // Who no longer waits does not want to know.
            let _ = append.answer.send(answer);
        }
        telemetry::group("embedded", records, bytes);
    }

    /// A small commit after one that may have failed for want of room: pages freed by a transaction are used again two
    /// transactions later, and failed ones do not count.
    fn nudge(&self) -> Result<()> {
        let mut wtxn = self.store.write()?;
        topics::add_bytes(&self.store, &mut wtxn, 0)?;
        self.store.commit(wtxn).map_err(|error| self.store.error(error))
    }

    /// Writes and commits; `placed` gets the answer for each append, in order, which holds if this returns `Ok`.
    fn write(&self, group: &[Append], placed: &mut Vec<Result<Appended>>) -> std::result::Result<(), Failure> {
        let store = &self.store;
        let bytes: i64 = group.iter().map(|append| topics::disk_bytes(append.payload.len() + 8)).sum();
        store.make_room(bytes.unsigned_abs()).map_err(Failure::undone)?;
        let mut wtxn = store.env.write_txn().map_err(Failure::undone)?;
        let mut writing = Writing {
            store,
            rows: HashMap::new(),
            states: HashMap::new(),
            bytes: topics::bytes(store, &wtxn).map_err(Failure::other)?,
            bytes_max: self.bytes_max.map_or(i64::MAX, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        };
        let bytes_before = writing.bytes;
        for append in group {
            let place = match writing.place(&wtxn, append) {
                Ok(place) => place,
                Err(refused) => {
                    placed.push(Err(refused));
                    continue;
                }
            };
            let stamp_ms = append.stamp_ms.unwrap_or_else(|| self.clock.now_ms());
            let offset = writing.put(&mut wtxn, place, append, stamp_ms).map_err(Failure::undone)?;
            placed.push(Ok(Appended { offset, stamp_ms }));
        }
        for ((topic, partition), state) in &writing.states {
            store.put_partition(&mut wtxn, *topic, *partition, *state).map_err(Failure::other)?;
        }
        topics::add_bytes(store, &mut wtxn, writing.bytes - bytes_before).map_err(Failure::other)?;
        store.commit(wtxn).map_err(|error| Failure { unclear: !store.surely_undone(), cause: cause_of(&error) })
    }
}

/// Why a group as a whole failed.
struct Failure {
    unclear: bool,
    cause: String,
}

impl Failure {
    fn undone(error: heed::Error) -> Self {
        Self { unclear: false, cause: cause_of(&error) }
    }

    fn other(error: LogError) -> Self {
        Self { unclear: false, cause: error.to_string() }
    }

    fn to_error(&self, store: &Store, append: &Append) -> LogError {
        if self.unclear {
            let (topic, partition, cause) = (append.topic.to_string(), append.partition, self.cause.clone());
            LogError::Unclear { topic, partition, cause }
        } else {
            store.failure(self.cause.clone())
        }
    }
}

/// A group's transaction: what it looked up once, and what it will write once.
struct Writing<'a> {
    store: &'a Store,
    rows: HashMap<Arc<str>, TopicRow>,
    states: HashMap<(TopicId, u32), PartitionState>,
    bytes: i64,
    bytes_max: i64,
}

impl Writing<'_> {
    /// Where the append goes, or why it is refused.
    fn place(&mut self, wtxn: &RwTxn, append: &Append) -> Result<(TopicId, u32)> {
        let store = self.store;
        if !self.rows.contains_key(&append.topic) {
            self.rows.insert(append.topic.clone(), topics::row(store, wtxn, &append.topic)?);
        }
        let row = &self.rows[&append.topic];
        let import = row.kind == topics::Kind::Import;
        if append.stamp_ms.is_some() != import {
            let rule = if import { "an import's records bring their stamps" } else { "the log itself stamps" };
            return Err(store.failure(format!("topic {}: {rule}", append.topic)));
        }
        let place = (row.id, append.partition);
        if let Entry::Vacant(vacant) = self.states.entry(place) {
            let state = store.partition(wtxn, row.id, append.partition)?;
            vacant.insert(state.ok_or_else(|| {
                store.failure(format!("topic {} has no partition {}", append.topic, append.partition))
            })?);
        }
        let bytes = self.bytes + topics::disk_bytes(append.payload.len() + 8);
        if bytes > self.bytes_max {
            return Err(store.failure(format!(
                "full: {} of {} bytes are used (raise its limit, or let what reads it catch up)",
                self.bytes, self.bytes_max
            )));
        }
        self.bytes = bytes;
        Ok(place)
    }

    fn put(&mut self, wtxn: &mut RwTxn, place: (TopicId, u32), append: &Append, stamp_ms: i64) -> heed::Result<i64> {
        let state = self.states.get_mut(&place).expect("the place was looked up");
        let offset = state.end;
        let key = record_key(place.0, place.1, offset);
        self.store.records.put_reserved(wtxn, &key, 8 + append.payload.len(), |value| {
            use std::io::Write;
            value.write_all(&stamp_ms.to_le_bytes())?;
            value.write_all(&append.payload)
        })?;
        times::enter(self.store, wtxn, place, state, offset, stamp_ms)?;
        state.end += 1;
        Ok(offset)
    }
}
