//! A pipeline that runs: the product's own, in threads of its own, looked at only when it has nothing left to do.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use weir_log::PartitionInUse;
use weir_schemas::{Closed, SchemaVersion, WindowStart};

use crate::{
    Bug,
    log::{SimClock, SimLog, TOPIC, View, ViewLog},
    plan::Process,
};

/// A pipeline that is not done with what it has after this long is stuck: real time, a thousand times what it needs.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// Windows that may have left a worker's source and not the run.
const IN_FLIGHT: u64 = 64;

/// What is known of a run from outside.
pub(crate) struct Seen {
    watermark_ms: Option<i64>,
    windows_open: u64,
    bytes_open: u64,
    /// Partitions, and the arrival time of what was read of them.
    arrivals: Vec<(u32, i64)>,
    /// What it has met how often.
    pub(crate) happened: [(&'static str, u64); 6],
}

/// Why a pipeline ended by itself.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) said: String,
    /// Starting it again would come to the same.
    pub(crate) for_good: bool,
    /// It has handed over all up to its end.
    pub(crate) at_end: bool,
}

/// What to read.
pub(crate) struct Order<'a> {
    pub(crate) version: &'a SchemaVersion,
    pub(crate) from: WindowStart,
    pub(crate) to: Option<WindowStart>,
    pub(crate) partitions: Vec<PartitionInUse>,
    pub(crate) process: &'a Process,
    pub(crate) now_ms: i64,
    pub(crate) bug: Option<Bug>,
}

pub(crate) struct Reading {
    view: Arc<View>,
    clock: Arc<SimClock>,
    log: Arc<SimLog>,
    closed: mpsc::Receiver<Closed>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Ended>>>,
    seen: Box<dyn Fn() -> Seen + Send>,
    version: SchemaVersion,
    to: Option<WindowStart>,
    through: WindowStart,
    /// What had closed when it had read what there was at its start.
    early: Vec<Closed>,
    handed: WindowStart,
    /// How many workers have partitions.
    readers: usize,
    partitions: usize,
    memory_bytes_max: u64,
    windows_max: u64,
}

/// Starts the `run` of a crate that has the pipeline's interface.
macro_rules! start {
    ($pipeline:ident, $order:expr, $view:expr, $clock:expr, $stop:expr) => {{
        let (order, stop): (&Order<'_>, Arc<AtomicBool>) = ($order, $stop);
        let spec = $pipeline::RunSpec {
            run: "live".into(),
            version: order.version.clone(),
            topic: TOPIC.into(),
            kind: $pipeline::SourceKind::Live,
            from: order.from,
            seam: None,
            to: order.to,
            partitions: order.partitions.clone(),
            workers: order.process.workers,
            memory_bytes_max: order.process.memory_bytes_max,
            spill_dir: std::env::temp_dir(),
            tick_after: Duration::from_millis(order.process.tick_after_ms as u64),
            pace: Default::default(),
        };
        let (sender, closed) = mpsc::channel(1 << 16);
        let status = Arc::new($pipeline::Status::default());
        let (said, log, clock) = (status.clone(), Arc::new(ViewLog($view)), $clock);
        let thread = std::thread::spawn(move || {
            let ended = $pipeline::run(spec, log, clock, sender, said, stop);
            let failed = |error: $pipeline::PipelineError| Ended {
                said: error.to_string(),
                for_good: error.needs_a_person(),
                at_end: false,
            };
            ended.map(drop).map_err(failed)
        });
        let seen = move || {
            let seen = status.snapshot();
            let (windows_open, bytes_open) = (seen.windows_open, seen.bytes_open);
            let happened = [
                ("late events", seen.events_late),
                ("old claims", seen.claims_too_old),
                ("copies", seen.copies),
                ("records that are not weir's", seen.records_unreadable),
                ("stamps that leap", seen.stamps_bounded),
                ("runs on disk", seen.runs_spilled),
            ];
            let arrivals = seen.partitions.iter().filter_map(|of| Some((of.partition, of.arrival_ms?))).collect();
            Seen { watermark_ms: seen.watermark_ms, windows_open, bytes_open, arrivals, happened }
        };
        (thread, closed, Box::new(seen) as Box<dyn Fn() -> Seen + Send>)
    }};
}

impl Reading {
    /// Returns when it has read what it may: from then on it does something only when it is told to go on.
    pub(crate) fn start(log: Arc<SimLog>, order: &Order<'_>) -> Result<Reading, String> {
        let view = View::new(log.clone(), order.now_ms, order.process.behind_ms.clone(), order.bug);
        let clock = SimClock::new(order.now_ms, order.process.clock_off_ms);
        let stop = Arc::new(AtomicBool::new(false));
        let (thread, closed, seen) = if order.bug.is_some_and(Bug::is_in_pipeline) {
            start!(weir_pipeline_planted, order, view.clone(), clock.clone(), stop.clone())
        } else {
            start!(weir_pipeline, order, view.clone(), clock.clone(), stop.clone())
        };
        // The thread that writes ticks begins to wait now, and not when the world has gone on.
        clock.advance(order.now_ms, || thread.is_finished());
        let mut with_partitions: Vec<usize> =
            order.partitions.iter().map(|in_use| in_use.partition as usize % order.process.workers).collect();
        with_partitions.sort_unstable();
        with_partitions.dedup();
        let windows_max = windows_max(order);
        let mut reading = Reading {
            view,
            clock,
            log,
            closed,
            stop,
            thread: Some(thread),
            seen,
            version: order.version.clone(),
            to: order.to,
            through: order.from,
            early: Vec::new(),
            handed: order.from,
            readers: with_partitions.len(),
            partitions: order.partitions.len(),
            memory_bytes_max: order.process.memory_bytes_max as u64,
            windows_max,
        };
        let mut early = Vec::new();
        reading.settle(&mut early)?;
        reading.early = early;
        Ok(reading)
    }

    /// Lets it read what it may at `now_ms`, and gives the windows that have closed, and how far.
    ///
    /// `Err`: something that must never be.
    pub(crate) fn go_on(&mut self, now_ms: i64) -> Result<(Vec<Closed>, Option<Ended>), String> {
        let mut windows = std::mem::take(&mut self.early);
        self.view.look(now_ms);
        self.settle(&mut windows)?;
        let before = self.log.len();
        self.clock.advance(now_ms, || self.thread.as_ref().is_none_or(JoinHandle::is_finished));
        if self.log.len() > before {
            self.view.look(now_ms);
            self.settle(&mut windows)?;
        }
        let seen = (self.seen)();
        if seen.bytes_open > self.memory_bytes_max / 2 {
            return Err(format!("memory: {} bytes are open, {} allowed", seen.bytes_open, self.memory_bytes_max / 2));
        }
        if seen.windows_open > self.windows_max {
            let open = seen.windows_open;
            return Err(format!("memory: {open} windows are open of {} partitions", self.partitions));
        }
        let ended = match self.thread.take_if(|thread| thread.is_finished()) {
            None => None,
            Some(thread) => match thread.join() {
                Ok(Ok(())) => {
                    let said = "it ended without being asked".into();
                    Some(Ended { said, for_good: true, at_end: self.to.is_some_and(|to| self.through >= to) })
                }
                Ok(Err(ended)) => Some(ended),
                Err(_) => return Err("the pipeline panicked".into()),
            },
        };
        self.handed = self.through;
        Ok((windows, ended))
    }

    /// Waits until everything that can be read has been, and everything that can close has.
    fn settle(&mut self, windows: &mut Vec<Closed>) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let finished = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if self.to.is_some() && self.view.is_left() && !finished {
                // It is about to end; what writes its ticks need not be waited for.
                self.clock.end();
            }
            let over = if self.to.is_some() { finished } else { self.view.is_left() || finished };
            let seen = (self.seen)();
            let read = self.view.is_read(self.readers, |partitions| self.stands_still(&seen, partitions));
            self.take(windows)?;
            if over {
                return Ok(());
            }
            if read && let Some(watermark_ms) = (self.seen)().watermark_ms {
                // What was read last has moved the watermark, perhaps after it was seen.
                let closed = self.version.width.window_of(watermark_ms);
                // One that has come to its end ends.
                if self.through >= closed && self.to.is_none_or(|to| self.through < to) {
                    return Ok(());
                }
            }
            if begin.elapsed() > STUCK_AFTER {
                return Err(format!("liveness: the pipeline is stuck, closed through {:?}", self.through));
            }
            self.view.stir();
        }
    }

    /// A worker whose partitions are all so far ahead of what has closed does not even look for more.
    fn stands_still(&self, seen: &Seen, partitions: &BTreeSet<u32>) -> bool {
        let (width, lateness_ms) = (self.version.width, self.version.lateness_ms);
        let of_worker = seen.arrivals.iter().filter(|(partition, _)| partitions.contains(partition));
        let slowest = of_worker.map(|(_, arrival_ms)| width.window_of(arrival_ms - lateness_ms)).min();
        let far = |slowest| width.index_of(slowest) - width.index_of(self.through) > IN_FLIGHT as i64;
        slowest.is_some_and(|slowest| far(slowest) || self.to.is_some_and(|to| slowest >= to))
    }

    /// Windows ascend, each comes once, and none after it has closed.
    fn take(&mut self, windows: &mut Vec<Closed>) -> Result<(), String> {
        while let Ok(message) = self.closed.try_recv() {
            match message {
                Closed::Through(window) if window < self.through => {
                    return Err(format!("order: closed through {window:?} after {:?}", self.through));
                }
                // Where it stands between windows depends on the interleaving; what is said in the end does not.
                Closed::Through(window) => self.through = window,
                Closed::Window(emission) if emission.window < self.through => {
                    return Err(format!("order: window {:?} came after {:?}", emission.window, self.through));
                }
                Closed::Window(emission) => {
                    self.through = self.version.width.next(emission.window);
                    windows.push(Closed::Window(emission));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn seen(&self) -> Seen {
        (self.seen)()
    }

    pub(crate) fn through(&self) -> WindowStart {
        self.through
    }

    /// How far it had closed when its windows were last taken.
    pub(crate) fn handed(&self) -> WindowStart {
        self.handed
    }
}

/// The most windows that may be open: those that the pipeline may hand on before the first of them has left, those that
/// may be read ahead of the slowest partition, and of each partition one record more.
fn windows_max(order: &Order<'_>) -> u64 {
    let (width_ms, lateness_ms) = (order.version.width.ms(), order.version.lateness_ms);
    let ahead_ms = (4 * width_ms + lateness_ms).max(10_000);
    let windows = |ms: i64| (ms / width_ms) as u64 + 2;
    IN_FLIGHT + windows(ahead_ms + lateness_ms) + order.partitions.len() as u64 * windows(lateness_ms)
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.closed.close();
        self.clock.end();
        let begin = Instant::now();
        let Some(thread) = self.thread.take() else { return };
        // One that is stuck is left behind: it has been reported.
        while !thread.is_finished() && begin.elapsed() < STUCK_AFTER {
            self.view.stir();
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}
