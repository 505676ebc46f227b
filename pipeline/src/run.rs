//! One run: workers, their dataflow, and what they share.
//!
//! ```text
//!  source ──events──▶ windows of the worker ◀──decided──┐
//!    └── events with ids, by hash(site, id) ──▶ order ──┴─close──▶ rows, by hash(site, dimension)
//!                                                                     └──▶ merge ──▶ gather (worker 0) ──▶ Closed
//! ```
//!
//! Timely's time is the window's place after the run's first. A source's frontier is the window of (smallest arrival −
//! lateness); when it has passed a window, every record that could reach it has been read, by every worker. Order and
//! merge hold a capability of their own at the first window that they have not passed on.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering as Memory},
    },
    time::{Duration, Instant},
};

use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        ProbeHandle, Stream,
        channels::pact::Exchange,
        operators::{
            Capability, Probe,
            generic::{Operator, OutputBuilderSession, source},
        },
    },
    worker::Worker,
};
use tokio::sync::mpsc;
use weir_log::{Clock, Log, PartitionInUse};
use weir_schemas::{Closed, Emission, RowBlock, WindowStart, wire};

use crate::{
    PipelineError, RunSpec, SourceKind, Status,
    limit::{Limit, is_within},
    order::{Ordering, id_key},
    pace::Rests,
    room::Room,
    rule::Rule,
    runs::{Run, block_bytes, merge},
    source::{Pending, Source, Turn},
    status::PartitionStatus,
    ticks,
    windows::{Times, Windows},
};

/// Windows that may have left a worker's source and not the run: enough to keep every stage busy.
const WINDOWS_IN_FLIGHT_MAX: u64 = 64;

/// How often a source that waits for others, or is asked to stop, looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often a merge that waits for room looks again: a window is handed over in some ms.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(1);
/// The same as [`LOOK_AGAIN`] when a source waits for records, which wake it.
const LOOK_AGAIN_IDLE: Duration = Duration::from_millis(100);

/// What all workers of a run share.
pub(crate) struct Shared {
    pub(crate) spec: RunSpec,
    pub(crate) from: WindowStart,
    pub(crate) rule: Rule,
    pub(crate) partitions: Vec<PartitionInUse>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) status: Arc<Status>,
    closed: mpsc::Sender<Closed>,
    shutdown: Arc<AtomicBool>,
    /// For rows between the windows' close and the hand-over.
    pub(crate) room: Room,
    /// Set before a capability is given up early: nothing that comes after it is a closed window.
    aborted: AtomicBool,
    failure: Mutex<Option<PipelineError>>,
}

impl Shared {
    /// Whether a window is the run's to emit.
    pub(crate) fn wants(&self, window: WindowStart) -> bool {
        window >= self.from && self.spec.to.is_none_or(|to| window < to)
    }

    pub(crate) fn spill_error(&self, cause: std::io::Error) -> PipelineError {
        PipelineError::Spill { dir: self.spec.spill_dir.display().to_string(), cause }
    }

    /// Whether the run is to end where it is.
    pub(crate) fn stopping(&self) -> bool {
        if self.shutdown.load(Memory::SeqCst) {
            self.aborted.store(true, Memory::SeqCst);
        }
        self.aborted.load(Memory::SeqCst)
    }

    fn fail(&self, error: PipelineError) {
        self.failure.lock().expect("no holder panics").get_or_insert(error);
        self.aborted.store(true, Memory::SeqCst);
    }

    /// The place of the first window that something arriving at `arrival_ms` may still close in.
    fn place_of(&self, arrival_ms: i64) -> u64 {
        let width = self.spec.version.width;
        let first = width.window_of(arrival_ms.saturating_sub(self.spec.version.lateness_ms));
        (width.index_of(first) - width.index_of(self.from)).max(0) as u64
    }

    fn window_at(&self, place: u64) -> WindowStart {
        let width = self.spec.version.width;
        width.at_index(width.index_of(self.from) + place as i64)
    }

    fn place_of_window(&self, window: WindowStart) -> u64 {
        let width = self.spec.version.width;
        (width.index_of(window) - width.index_of(self.from)) as u64
    }

    /// For a worker's open windows: all of them have a half, and the rows of closed ones another.
    fn open_bytes_max(&self) -> usize {
        self.spec.memory_bytes_max / self.spec.workers / 2
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every window up to its end has been handed over.
    AtEnd,
    /// It was asked to stop.
    Stopped,
}

/// Runs until the end that `spec` names, until `shutdown`, or until something fails. Blocks the thread.
///
/// `closed` gets every window with rows once, in order, and how far everything has closed; a full channel holds the run
/// back. A worker that panics leaves the others waiting, so the process must end on a panic.
///
/// Errors: [`PipelineError`]; what was handed over before stays right.
pub fn run(
    spec: RunSpec,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    closed: mpsc::Sender<Closed>,
    status: Arc<Status>,
    shutdown: Arc<AtomicBool>,
) -> Result<Ended, PipelineError> {
    let from = spec.from;
    let partitions = match spec.kind {
        SourceKind::Live => spec.partitions.clone(),
        SourceKind::Import => (0..log.partitions(&spec.topic)?)
            .map(|partition| PartitionInUse { partition, effective_ms: from.ms() })
            .collect(),
    };
    let unread = partitions.iter().map(|in_use| PartitionStatus {
        partition: in_use.partition,
        next_offset: 0,
        arrival_ms: Some(in_use.effective_ms),
        ended: false,
    });
    status.begin(spec.version.lateness_ms, spec.workers, unread.collect());
    let shared = Arc::new(Shared {
        from,
        rule: Rule { seam: spec.seam.clone().map(Box::new), ..Rule::of(&spec.version) },
        partitions,
        log,
        status,
        closed,
        shutdown,
        room: Room::new(spec.memory_bytes_max / 2),
        aborted: AtomicBool::new(false),
        failure: Mutex::new(None),
        spec,
    });
    let ticks = match shared.spec.kind {
        SourceKind::Live => Some(ticks::start(shared.clone(), clock)),
        SourceKind::Import => None,
    };
    let workers = shared.clone();
    let guards = timely::execute(timely::Config::process(shared.spec.workers), move |worker| work(worker, &workers));
    match guards {
        Ok(guards) => drop(guards.join()),
        Err(error) => shared.fail(PipelineError::Workers(error)),
    }
    let stopped = shared.aborted.swap(true, Memory::SeqCst);
    if let Some(ticks) = ticks {
        let _ = ticks.join();
    }
    match shared.failure.lock().expect("no holder panics").take() {
        Some(error) => Err(error),
        None if stopped => Ok(Ended::Stopped),
        None => Ok(Ended::AtEnd),
    }
}

fn work(worker: &mut Worker, shared: &Arc<Shared>) {
    let (index, peers) = (worker.index(), worker.peers());
    let version = &shared.spec.version;
    let windows = Windows::new(version, shared.open_bytes_max(), shared.spec.spill_dir.clone(), shared.status.clone());
    let windows = Rc::new(RefCell::new(windows));
    let probe = ProbeHandle::new();
    worker.dataflow::<u64, _, _>(|scope| {
        let pending = read(scope, shared, windows.clone(), probe.clone(), index, peers);
        let rows = order_and_close(pending, shared, windows, index, peers);
        let blocks = merge_rows(rows, shared, probe.clone());
        gather(blocks, shared, index).probe_with(&probe);
    });
    while !probe.done() {
        worker.step_or_park(Some(LOOK_AGAIN_IDLE));
    }
}

/// The source: puts events into the worker's windows, and sends on those that must be put in order.
fn read<'scope>(
    scope: timely::dataflow::Scope<'scope, u64>,
    shared: &Arc<Shared>,
    windows: Rc<RefCell<Windows>>,
    probe: ProbeHandle<u64>,
    index: usize,
    peers: usize,
) -> Stream<'scope, u64, Vec<Pending>> {
    let shared = shared.clone();
    source(scope, "read", move |capability, info| {
        let activator = scope.activator_for(info.address.clone());
        let wake = scope.worker().sync_activator_for(info.address.to_vec());
        let wake = Mutex::new(wake);
        let mut capability = Some(capability);
        let mut rests = Rests::new(shared.spec.pace.clone());
        let mut source = Source::open(&shared, index, peers).map_err(|error| shared.fail(error)).ok();
        if let Some(source) = &mut source {
            source.set_wake(Arc::new(move || {
                // A worker that is gone needs no waking.
                let _ = wake.lock().expect("no holder panics").activate();
            }));
        }
        move |output| {
            let (Some(held), false) = (&mut capability, shared.stopping()) else {
                capability = None;
                return;
            };
            let source = source.as_mut().expect("a source that could not be opened has stopped the run");
            if let Some(rest) = rests.due(Instant::now()) {
                activator.activate_after(rest.min(LOOK_AGAIN_IDLE));
                return;
            }
            let far = held.time().saturating_sub(WINDOWS_IN_FLIGHT_MAX);
            if far > 0 && probe.less_than(&far) {
                rests.breaks(Instant::now());
                activator.activate_after(LOOK_AGAIN);
                return;
            }
            let turn = match source.turn(&mut windows.borrow_mut()) {
                Ok(turn) => turn,
                Err(error) => {
                    shared.fail(error);
                    capability = None;
                    return;
                }
            };
            // Sent at a time that is not after the record's own: what counts is that it is there before the frontier passes.
            output.session(&*held).give_iterator(source.take_pending().into_iter());
            let place = source.arrival_ms().map(|arrival_ms| shared.place_of(arrival_ms));
            let last = shared.spec.to.map(|to| shared.place_of_window(to));
            match place {
                Some(place) if turn != Turn::Ended && last.is_none_or(|last| place < last) => held.downgrade(&place),
                _ => {
                    capability = None;
                    return;
                }
            }
            if turn == Turn::Idle {
                rests.breaks(Instant::now());
            }
            match turn {
                Turn::Busy => activator.activate(),
                Turn::Idle if source.holds() => activator.activate_after(LOOK_AGAIN),
                Turn::Idle => activator.activate_after(LOOK_AGAIN_IDLE),
                Turn::Ended => {}
            }
        }
    })
}

/// Decides events with ids in the order of their positions, and closes windows that the frontier has passed.
fn order_and_close<'scope>(
    pending: Stream<'scope, u64, Vec<Pending>>,
    shared: &Arc<Shared>,
    windows: Rc<RefCell<Windows>>,
    index: usize,
    peers: usize,
) -> Stream<'scope, u64, Vec<(u64, WindowStart, Run)>> {
    let shared = shared.clone();
    let by_worker = Exchange::new(|pending: &Pending| pending.worker);
    pending.unary_frontier(by_worker, "order", move |capability, _| {
        let mut held = Held::new(capability);
        let mut ordering = Ordering::new();
        move |(input, frontier), output| {
            input.for_each(|_, data| {
                for record in data.drain(..) {
                    ordering.wait((record.arrival_ms, record.partition, record.offset), record);
                }
            });
            let Some(passed) = held.passed(&shared, frontier.frontier().first().copied()) else { return };
            let mut windows = windows.borrow_mut();
            let done = decide(&mut ordering, &shared, &mut windows, passed.end.map(|end| shared.window_at(end)))
                .and_then(|()| {
                    for window in windows.open_before(passed.end.map(|end| shared.window_at(end))) {
                        let at = passed.capability.delayed(&shared.place_of_window(window));
                        let mut session = output.session(&at);
                        windows.close(window, peers, &shared.room, |peer, run| {
                            session.give((peer as u64, window, run));
                        })?;
                    }
                    Ok(())
                });
            if let Err(cause) = done {
                shared.fail(shared.spill_error(cause));
            }
            shared.status.set_open(index, windows.size());
            held.release(passed.end);
        }
    })
}

fn decide(
    ordering: &mut Ordering<Pending>,
    shared: &Shared,
    windows: &mut Windows,
    end: Option<WindowStart>,
) -> std::io::Result<()> {
    let low_ms = end.map_or(i64::MAX, |end| end.ms() + shared.spec.version.lateness_ms);
    while let Some(((arrival_ms, ..), record)) = ordering.next_below(low_ms) {
        let wire::Content::Batch(batch) = wire::decode(&record.payload).expect("it was decoded before").content else {
            unreachable!("only batches have events");
        };
        let mut first = vec![false; batch.events];
        for event in &record.events {
            let at = *event as usize;
            let key = id_key(batch.strings[batch.site[at] as usize], batch.strings[batch.id[at] as usize]);
            first[at] = ordering.first(key, arrival_ms) && record.counts;
        }
        let counted = first.iter().filter(|first| **first).count();
        shared.status.add(|status| &status.copies, (record.events.len() - counted) as u64);
        windows.add(&batch, |event| {
            let times = first[event].then(|| Times::of(&shared.rule, &batch, event, arrival_ms))?;
            shared.wants(times.closes_in).then_some(times)
        })?;
    }
    ordering.forget_below(low_ms);
    Ok(())
}

/// Merges what the workers have of the same rows, and keeps the largest values.
///
/// The oldest window that has not been handed over is merged at once, the next ones while there is room for their rows:
/// until then they stay as they came.
fn merge_rows<'scope>(
    runs: Stream<'scope, u64, Vec<(u64, WindowStart, Run)>>,
    shared: &Arc<Shared>,
    probe: ProbeHandle<u64>,
) -> Stream<'scope, u64, Vec<(WindowStart, RowBlock)>> {
    let shared = shared.clone();
    let scope = runs.scope();
    let by_worker = Exchange::new(|run: &(u64, WindowStart, Run)| run.0);
    runs.unary_frontier(by_worker, "merge", move |capability, info| {
        let activator = scope.activator_for(info.address);
        let mut held = Held::new(capability);
        let mut waiting: BTreeMap<WindowStart, Vec<Run>> = BTreeMap::new();
        let measures = shared.spec.version.measures.len();
        move |(input, frontier), output| {
            input.for_each(|_, data| {
                for (_, window, run) in data.drain(..) {
                    waiting.entry(window).or_default().push(run);
                }
            });
            let Some(passed) = held.passed(&shared, frontier.frontier().first().copied()) else { return };
            while let Some(entry) = waiting.first_entry()
                && passed.end.is_none_or(|end| *entry.key() < shared.window_at(end))
            {
                let place = shared.place_of_window(*entry.key());
                if !shared.room.has(0) && probe.less_than(&place) {
                    // What came before it has the room, and is on its way out.
                    held.release(Some(place));
                    activator.activate_after(LOOK_FOR_ROOM);
                    return;
                }
                let (window, runs) = entry.remove_entry();
                let came = runs.iter().map(Run::bytes).sum();
                match merge_window(runs, measures, shared.spec.version.values_max) {
                    Ok(block) => {
                        shared.room.force(block_bytes(&block));
                        shared.room.give_back(came);
                        output.session(&passed.capability.delayed(&place)).give((window, block));
                    }
                    Err(cause) => {
                        shared.fail(shared.spill_error(cause));
                        break;
                    }
                }
            }
            held.release(passed.end);
        }
    })
}

/// The rows that leave with a window.
fn merge_window(mut runs: Vec<Run>, measures: usize, values_max: usize) -> std::io::Result<RowBlock> {
    if let [Run::Memory(block)] = runs.as_slice()
        && is_within(block, values_max)
        && let Some(Run::Memory(block)) = runs.pop()
    {
        return Ok(block);
    }
    let mut limit = Limit::new(values_max);
    merge(runs, measures, |row| {
        limit.push(row);
        Ok(())
    })?;
    Ok(limit.finish())
}

/// Hands closed windows over, in order, on one worker. Its output carries nothing but the frontier.
fn gather<'scope>(
    blocks: Stream<'scope, u64, Vec<(WindowStart, RowBlock)>>,
    shared: &Arc<Shared>,
    index: usize,
) -> Stream<'scope, u64, Vec<()>> {
    let shared = shared.clone();
    let to_first = Exchange::new(|_: &(WindowStart, RowBlock)| 0);
    blocks.unary_frontier(to_first, "gather", move |capability, _| {
        let mut held = Held::new(capability);
        let mut waiting: BTreeMap<WindowStart, Vec<RowBlock>> = BTreeMap::new();
        move |(input, frontier), _output: &mut OutputBuilderSession<'_, u64, CapacityContainerBuilder<Vec<()>>>| {
            input.for_each(|_, data| {
                for (window, block) in data.drain(..) {
                    waiting.entry(window).or_default().push(block);
                }
            });
            let Some(passed) = held.passed(&shared, frontier.frontier().first().copied()) else { return };
            if index == 0 {
                let end = passed.end.map(|end| shared.window_at(end)).or(shared.spec.to);
                let hand_over = |message| {
                    if shared.closed.blocking_send(message).is_err() {
                        shared.fail(PipelineError::SinkGone);
                    }
                };
                while let Some(entry) = waiting.first_entry()
                    && end.is_none_or(|end| *entry.key() < end)
                {
                    let (window, mut blocks) = entry.remove_entry();
                    // Which worker's block came first says nothing.
                    blocks.sort_by(|a, b| first_key(a).cmp(&first_key(b)));
                    let bytes = blocks.iter().map(block_bytes).sum();
                    hand_over(Closed::Window(Emission { window, blocks }));
                    shared.room.give_back(bytes);
                }
                if let Some(end) = end {
                    hand_over(Closed::Through(end));
                }
            }
            held.release(passed.end);
        }
    })
}

fn first_key(block: &RowBlock) -> Option<(&str, &str)> {
    (!block.is_empty()).then(|| (block.strings.get(block.site[0]), block.strings.get(block.dimension[0])))
}

/// An operator's own capability, at the first window that it has not passed on.
struct Held {
    capability: Option<Capability<u64>>,
}

/// The frontier has moved: everything before `end` (all there is, if `None`) is to be passed on with `capability`.
struct Passed {
    capability: Capability<u64>,
    end: Option<u64>,
}

impl Held {
    fn new(capability: Capability<u64>) -> Self {
        Self { capability: Some(capability) }
    }

    /// `None` when there is nothing to pass on; gives everything up when the run ends where it is.
    fn passed(&mut self, shared: &Shared, frontier: Option<u64>) -> Option<Passed> {
        if shared.aborted.load(Memory::SeqCst) {
            self.capability = None;
        }
        let capability = self.capability.as_ref()?;
        let moved = frontier.is_none_or(|frontier| frontier > *capability.time());
        moved.then(|| Passed { capability: capability.clone(), end: frontier })
    }

    fn release(&mut self, end: Option<u64>) {
        match (&mut self.capability, end) {
            (Some(capability), Some(end)) => capability.downgrade(&end),
            (capability, _) => *capability = None,
        }
    }
}
