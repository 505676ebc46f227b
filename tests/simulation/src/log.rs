//! A log in memory whose clocks are drawn, and one process' view of it: what it can read yet, and whether it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use weir_log::{Appended, Bounds, Clock, Committed, Log, LogError, Reader, RecordRef, Result, TopicKind, Wake};
use weir_oracle::Record;
use weir_schemas::{CLOCK_BOUND_MS, DEDUP_HORIZON_MS, STEP_BACK_MAX_MS, wire};

use crate::{Bug, plan::Partition};

pub(crate) const TOPIC: &str = "events";

/// The log itself.
pub(crate) struct SimLog {
    state: Mutex<LogState>,
}

pub(crate) struct LogState {
    clocks: Vec<Partition>,
    /// Records, and when they were appended.
    records: Vec<Vec<(i64, Record)>>,
    /// The largest time that a partition's records count as.
    arrival_ms: Vec<i64>,
    /// What retention has cut to.
    starts: Vec<i64>,
}

impl SimLog {
    pub(crate) fn new(clocks: Vec<Partition>) -> Arc<SimLog> {
        let count = clocks.len();
        let arrival_ms = clocks.iter().map(|partition| partition.effective_ms).collect();
        let records = vec![Vec::new(); count];
        Arc::new(SimLog { state: Mutex::new(LogState { clocks, records, arrival_ms, starts: vec![0; count] }) })
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no holder panics")
    }

    /// Stamps and keeps a record.
    pub(crate) fn append(&self, now_ms: i64, partition: usize, payload: Bytes) -> Appended {
        let mut state = self.state();
        // A clock that steps back further is an alarm, not a history.
        let least_ms = state.arrival_ms[partition] - STEP_BACK_MAX_MS + 1;
        let stamp_ms = state.clocks[partition].clock_ms(now_ms).max(least_ms);
        if let Ok(record) = wire::decode(&payload) {
            let counts_as = stamp_ms.min(record.sent_ms + CLOCK_BOUND_MS);
            state.arrival_ms[partition] = state.arrival_ms[partition].max(counts_as);
        }
        state.records[partition].push((now_ms, Record { stamp_ms, payload }));
        Appended { offset: state.records[partition].len() as i64 - 1, stamp_ms }
    }

    /// Everything that was ever in it, cut or not.
    pub(crate) fn all(&self) -> Vec<Vec<Record>> {
        let state = self.state();
        state.records.iter().map(|records| records.iter().map(|(_, record)| record.clone()).collect()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.state().records.iter().map(Vec::len).sum()
    }

    /// Cuts as much as a run that begins at `from_ms` can do without: before a record that is stamped early enough.
    /// Gives how many records are gone.
    pub(crate) fn cut(&self, from_ms: i64) -> u64 {
        let mut state = self.state();
        let before = state.starts.iter().sum::<i64>();
        let needed_ms = from_ms - DEDUP_HORIZON_MS - STEP_BACK_MAX_MS;
        for partition in 0..state.starts.len() {
            // After the first record that counts as late enough, an early stamp says nothing.
            let late = state.records[partition].iter().position(|(_, record)| record.stamp_ms >= needed_ms);
            let before = late.unwrap_or(state.records[partition].len()) as i64;
            state.starts[partition] = state.starts[partition].max(before - 1).max(0);
        }
        (state.starts.iter().sum::<i64>() - before) as u64
    }

    pub(crate) fn has_records(&self, partition: u32) -> bool {
        !self.state().records[partition as usize].is_empty()
    }
}

/// One process' view.
pub(crate) struct View {
    log: Arc<SimLog>,
    bug: Option<Bug>,
    behind_ms: Vec<i64>,
    state: Mutex<ViewState>,
    changed: Condvar,
}

#[derive(Default)]
struct ViewState {
    now_ms: i64,
    /// Moves with everything that may give a reader something to do.
    epoch: u64,
    readers: BTreeMap<u64, ReaderState>,
    made: u64,
    /// Readers that have begun to read, and were not made for one look, gone or not.
    reading: BTreeSet<u64>,
}

#[derive(Default)]
struct ReaderState {
    partitions: BTreeSet<u32>,
    wake: Option<Wake>,
    /// Polls in a row that gave nothing, in the epoch.
    empty: (u64, u32),
}

impl View {
    pub(crate) fn new(log: Arc<SimLog>, now_ms: i64, behind_ms: Vec<i64>, bug: Option<Bug>) -> Arc<View> {
        let state = ViewState { now_ms, ..ViewState::default() };
        Arc::new(View { log, bug, behind_ms, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, ViewState> {
        self.state.lock().expect("no holder panics")
    }

    /// The process sees the log as it is now, less what it is behind.
    pub(crate) fn look(&self, now_ms: i64) {
        let mut state = self.state();
        state.now_ms = now_ms;
        state.epoch += 1;
    }

    /// Whether so many readers have partitions, and each of them had nothing to read, twice, since anything changed, or
    /// stands still by what `waits` says of its partitions.
    ///
    /// Once is not enough: a partition that waits for a slower one is let go by the look after that one's last record.
    pub(crate) fn is_read(&self, readers: usize, waits: impl Fn(&BTreeSet<u32>) -> bool) -> bool {
        let state = self.state();
        let mut reading = state.readers.values().filter(|reader| !reader.partitions.is_empty());
        let found_nothing = |reader: &ReaderState| reader.empty.0 == state.epoch && reader.empty.1 >= 2;
        let idle = reading.all(|reader| found_nothing(reader) || waits(&reader.partitions));
        idle && state.reading.len() == readers
    }

    /// Whether there were readers, and there are none any more: the run has ended, or is about to.
    pub(crate) fn is_left(&self) -> bool {
        let state = self.state();
        state.made > 0 && state.readers.is_empty()
    }

    /// Wakes all readers, and waits a moment for one to find nothing.
    pub(crate) fn stir(&self) {
        let wakes: Vec<Wake> = self.state().readers.values().filter_map(|reader| reader.wake.clone()).collect();
        wakes.iter().for_each(|wake| wake());
        drop(self.changed.wait_timeout(self.state(), Duration::from_micros(200)));
    }
}

/// What the pipeline is given as its log.
pub(crate) struct ViewLog(pub(crate) Arc<View>);

impl Log for ViewLog {
    fn create_topic(&self, _: &str, _: &TopicKind) -> Result<()> {
        Ok(())
    }

    fn repair_topic(&self, _: &str, _: &TopicKind) -> Result<()> {
        Ok(())
    }

    fn delete_topic(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn topics(&self) -> Result<Vec<String>> {
        Ok(vec![TOPIC.into()])
    }

    fn partitions(&self, _: &str) -> Result<u32> {
        Ok(self.0.behind_ms.len() as u32)
    }

    fn grow(&self, _: &str, _: u32) -> Result<()> {
        Ok(())
    }

    fn append(&self, _: &str, partition: u32, payload: Bytes, _: Option<i64>) -> BoxFuture<'static, Result<Appended>> {
        let now_ms = self.0.state().now_ms;
        let appended = self.0.log.append(now_ms, partition as usize, payload);
        async move { Ok(appended) }.boxed()
    }

    fn reader(&self, _: &str) -> Result<Box<dyn Reader>> {
        let mut state = self.0.state();
        state.made += 1;
        let number = state.made;
        state.readers.insert(number, ReaderState::default());
        let view = self.0.clone();
        Ok(Box::new(SimReader { view, number, next: BTreeMap::new(), held: BTreeSet::new(), gave: false, turn: 0 }))
    }

    fn bounds(&self, _: &str, partition: u32) -> Result<Bounds> {
        let state = self.0.log.state();
        let end = state.records[partition as usize].len() as i64;
        Ok(Bounds { start: state.starts[partition as usize], end })
    }

    fn offset_at(&self, _: &str, partition: u32, at_ms: i64) -> Result<Option<i64>> {
        let at_ms = if self.0.bug == Some(Bug::HorizonOfZero) { at_ms + DEDUP_HORIZON_MS } else { at_ms };
        let state = self.0.log.state();
        let start = state.starts[partition as usize] as usize;
        let records = state.records[partition as usize].iter().enumerate().skip(start);
        Ok(records.filter(|(_, (_, record))| record.stamp_ms >= at_ms).map(|(offset, _)| offset as i64).next())
    }

    fn commit(&self, _: &str, _: &str, _: &[Committed]) -> Result<()> {
        Ok(())
    }

    fn committed(&self, _: &str, _: &str) -> Result<Vec<Committed>> {
        Ok(Vec::new())
    }

    fn retention(&self, _: &str) -> Result<Option<Duration>> {
        Ok(None)
    }
}

/// Gives one record a poll: how far a partition is read before it must wait for a slower one then follows from the log.
struct SimReader {
    view: Arc<View>,
    number: u64,
    next: BTreeMap<u32, i64>,
    held: BTreeSet<u32>,
    gave: bool,
    turn: usize,
}

impl SimReader {
    /// The next record of a partition that it may read now.
    fn record(&self, partition: u32, now_ms: i64) -> Result<Option<Record>> {
        let state = self.view.log.state();
        let (offset, start) = (self.next[&partition], state.starts[partition as usize]);
        if offset < start {
            return Err(LogError::BelowStart { topic: TOPIC.into(), partition, offset, start });
        }
        let visible_ms = now_ms - self.view.behind_ms[partition as usize];
        let record = state.records[partition as usize].get(offset as usize);
        Ok(record.filter(|(at_ms, _)| *at_ms <= visible_ms).map(|(_, record)| record.clone()))
    }
}

impl Reader for SimReader {
    fn assign(&mut self, partition: u32, offset: i64) -> Result<()> {
        self.next.insert(partition, offset);
        let mut state = self.view.state();
        state.readers.get_mut(&self.number).expect("until it is dropped").partitions.insert(partition);
        Ok(())
    }

    fn poll(&mut self, _: usize, _: Duration, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        let now_ms = {
            let mut state = self.view.state();
            if std::mem::take(&mut self.gave) {
                // What was given is done now, and others may know of it.
                state.epoch += 1;
            }
            state.now_ms
        };
        let partitions: Vec<u32> =
            self.next.keys().filter(|partition| !self.held.contains(partition)).copied().collect();
        self.turn += 1;
        for place in 0..partitions.len() {
            let partition = partitions[(place + self.turn) % partitions.len()];
            let Some(record) = self.record(partition, now_ms)? else { continue };
            let offset = self.next[&partition];
            self.next.insert(partition, offset + 1);
            let tick = || wire::decode(&record.payload).is_ok_and(|decoded| decoded.content == wire::Content::Tick);
            if self.view.bug == Some(Bug::DroppedTick) && tick() {
                continue;
            }
            self.gave = true;
            each(RecordRef { partition, offset, stamp_ms: record.stamp_ms, payload: &record.payload });
            return Ok(1);
        }
        let mut state = self.view.state();
        let epoch = state.epoch;
        let reader = state.readers.get_mut(&self.number).expect("until it is dropped");
        reader.empty = if reader.empty.0 == epoch { (epoch, reader.empty.1 + 1) } else { (epoch, 1) };
        self.view.changed.notify_all();
        Ok(0)
    }

    fn hold(&mut self, partition: u32, held: bool) {
        if held {
            self.held.insert(partition);
        } else {
            self.held.remove(&partition);
        }
        self.view.state().epoch += 1;
    }

    fn set_wake(&mut self, wake: Wake) {
        let mut state = self.view.state();
        let reader = state.readers.get_mut(&self.number).expect("until it is dropped");
        reader.wake = Some(wake);
        if !reader.partitions.is_empty() {
            state.reading.insert(self.number);
        }
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.view.state().readers.remove(&self.number);
    }
}

/// A process' clock: moves when the world says so.
pub(crate) struct SimClock {
    off_ms: i64,
    state: Mutex<ClockState>,
    changed: Condvar,
}

struct ClockState {
    begin_ms: i64,
    now_ms: i64,
    /// Until when whoever sleeps does.
    sleeping_ms: Option<i64>,
    over: bool,
}

impl SimClock {
    pub(crate) fn new(now_ms: i64, off_ms: i64) -> Arc<SimClock> {
        let state = ClockState { begin_ms: now_ms, now_ms, sleeping_ms: None, over: false };
        Arc::new(SimClock { off_ms, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Moves it, and returns when whoever woke up is asleep again, or `gone` says that nobody is there.
    pub(crate) fn advance(&self, now_ms: i64, gone: impl Fn() -> bool) {
        let mut state = self.state.lock().expect("no holder panics");
        state.now_ms = now_ms;
        self.changed.notify_all();
        while !gone() && state.sleeping_ms.is_none_or(|until_ms| until_ms <= now_ms) {
            state = self.changed.wait_timeout(state, Duration::from_millis(1)).expect("no holder panics").0;
        }
    }

    /// Nobody sleeps any more.
    pub(crate) fn end(&self) {
        self.state.lock().expect("no holder panics").over = true;
        self.changed.notify_all();
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.state.lock().expect("no holder panics").now_ms + self.off_ms
    }

    fn elapsed(&self) -> Duration {
        let state = self.state.lock().expect("no holder panics");
        Duration::from_millis((state.now_ms - state.begin_ms) as u64)
    }

    fn sleep(&self, duration: Duration) {
        let mut state = self.state.lock().expect("no holder panics");
        // At least a step: a sleep of nothing would never be seen.
        let until_ms = state.now_ms + (duration.as_millis() as i64).max(1);
        state.sleeping_ms = Some(until_ms);
        self.changed.notify_all();
        while state.now_ms < until_ms && !state.over {
            state = self.changed.wait(state).expect("no holder panics");
        }
        state.sleeping_ms = None;
    }
}
