//! The process of one run: the log in, the table out.
//!
//! ```text
//!  standard input: order, then what changes meanwhile (its end: stop at the next batch boundary)
//!  begin: repairs that a person has ordered, checkpoint, may it go on?  (begin.rs, judge.rs)
//!  log ──▶ pipeline::run (timely workers) ──Closed──▶ sink::run ──▶ ClickHouse    (or: old table ──▶ sink::carry, carried.rs)
//!                         └── status ──▶ progress in the log, as a consumer group  (report.rs)
//! ```

use std::{
    collections::BTreeMap,
    io::BufRead,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use weir_log::{Clock, Log, LogConfig, PartitionInUse, SystemClock};
use weir_pipeline::{Pace, RunSpec, Seam, SourceKind, Status};
use weir_schemas::{
    Closed, Fault, Repair, SchemaVersion, UNHINDERED_PERMILLE, WindowStart, World,
    control::{CARRIED_RUN, CONTROL_TOPIC, EVENTS_TOPIC, GAP_RUN, REPLAY_RUN, import_run, import_topic},
    run_of,
};

use weir_sink::{Left, table::Windows};

use crate::{
    begin::{self, Begun},
    carried,
    config::Config,
    generation::Generation,
    judge,
    report::{self, Done, Reporter},
};

/// Exit code of a run that must not be started again before a person has looked.
pub(crate) const STOPPED_FOR_GOOD: i32 = 70;

/// Between tries to tell why the run has stopped.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// How often the log is looked at for what must stop the run, and, of so many looks once, `emissions`.
pub(crate) const WATCH_EVERY: Duration = Duration::from_secs(2);
const WATCH_EMISSIONS: u32 = 5;
const WATCH_PATIENCE: Duration = Duration::from_secs(10);

/// Closed windows between pipeline and sink: one that waits, while the next is merged. They are in nobody's bound.
const CLOSED_MAX: usize = 1;

/// What a run is told by whoever starts it, as one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunOrder {
    pub run: String,
    /// Empty for live traffic.
    pub origin: String,
    pub topic: String,
    pub import: bool,
    pub from: WindowStart,
    pub to: Option<WindowStart>,
    /// Where its generation's own windows begin, if those before were carried over.
    #[serde(default)]
    pub seam: Option<Seam>,
    /// (partition, effective time in ms) of those in use.
    pub partitions: Vec<(u32, i64)>,
    /// Which topic it must be; `None`: not known.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// The run's newest recovery, and those that are to be done before it goes on.
    #[serde(default)]
    pub recovery: Option<i64>,
    #[serde(default)]
    pub repairs: Vec<(i64, Repair)>,
    /// The end of what was ever given up: what lies before and is not in the table cannot be computed from the log.
    #[serde(default)]
    pub given_up_to_ms: Option<i64>,
    /// All that were ever ordered for the run.
    #[serde(default)]
    pub recoveries: Vec<(i64, Repair)>,
    /// How it stands to what live has left for later.
    #[serde(default)]
    pub left: Left,
    /// Of a run that carries rows over: from where. Any other computes its rows from the log.
    #[serde(default)]
    pub old: Option<Old>,
    /// What it is told to begin with.
    #[serde(default)]
    pub told: Told,
    pub log: LogConfig,
    pub target: weir_sink::Target,
    /// The file of its schema version.
    pub schema_text: String,
    pub workers: usize,
    /// A half is for open windows and their rows, a half for closed ones on their way into the table.
    pub memory_bytes_max: usize,
    pub spill_dir: PathBuf,
    pub tick_after_ms: u64,
}

/// The generation that rows are carried over from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Old {
    /// Its version's file.
    There(String),
    /// It was dropped since.
    Gone,
}

/// What a run is told while it goes on, a line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The share of the time that it works at most, in thousandths.
    pub permille: u16,
    /// The decision that this share comes from, by its id; `None`: nobody has said anything.
    pub throttle: Option<i64>,
    /// Why it is less than was ordered.
    #[serde(default)]
    pub gives_way: Option<String>,
    /// What people call it; empty: as the run.
    #[serde(default)]
    pub role: String,
}

impl Told {
    pub(crate) fn called<'a>(&'a self, run: &'a str) -> &'a str {
        if self.role.is_empty() { run } else { &self.role }
    }
}

impl Default for Told {
    fn default() -> Told {
        Told { permille: UNHINDERED_PERMILLE, throttle: None, gives_way: None, role: String::new() }
    }
}

impl RunOrder {
    /// A generation's live run over the partitions in use.
    pub(crate) fn live(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
    ) -> anyhow::Result<RunOrder> {
        let partitions = weir_log::partitions_in_use(&world.control);
        let first_ms = partitions.iter().map(|partition| partition.effective_ms).min();
        let first_ms = first_ms.context("no partition is in use (the control topic names none)")?;
        let version = &generation.version;
        let from = version.width.window_of(generation.from_ms.unwrap_or(first_ms - version.lateness_ms));
        let mut order = RunOrder::of_events(config, target, world, generation, "live", from, None)?;
        let hold = world.hold(&order.run);
        let resume = hold.catching_up().and_then(|pause| pause.resume.as_ref());
        if let Some(left_to_ms) =
            resume.filter(|resume| resume.resumed_ms.is_none()).and_then(|resume| resume.left_to_ms)
        {
            order.left = Left::To(version.width.window_of(left_to_ms));
        }
        Ok(order)
    }

    /// The run that fills a gap which live has left.
    pub(crate) fn gap(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
        Windows { from, to }: Windows,
    ) -> anyhow::Result<RunOrder> {
        let order = RunOrder::of_events(config, target, world, generation, GAP_RUN, from, Some(to))?;
        Ok(RunOrder { left: Left::Own, ..order })
    }

    /// The run that carries over what the log does not have any more; `None`: of this generation nothing was.
    pub(crate) fn carried(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
    ) -> Option<anyhow::Result<RunOrder>> {
        let (carried, seam) = (generation.carried.as_ref()?, generation.seam.as_ref()?);
        let old = match world.generations.alive().contains(&carried.old) {
            true => Generation::of(config, world, carried.old).map(|old| Old::There(old.text)),
            false => Ok(Old::Gone),
        };
        let old = match old {
            Ok(old) => old,
            Err(error) => return Some(Err(error)),
        };
        let from = generation.version.width.window_of(carried.from_ms);
        let order = RunOrder::of_events(config, target, world, generation, CARRIED_RUN, from, Some(seam.at));
        // The log has no say in it: nothing is read of it.
        let of =
            |order| RunOrder { old: Some(old), topic_id: None, partitions: Vec::new(), given_up_to_ms: None, ..order };
        Some(order.map(of))
    }

    /// Of one generation: live's run, the one that carries rows over, if there is one, and those of the imports. What is wrong with
    /// one of them is none of the others'.
    pub(crate) fn all(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
        imports: &BTreeMap<String, (i64, i64)>,
    ) -> impl Iterator<Item = anyhow::Result<RunOrder>> {
        let live = RunOrder::live(config, target, world, generation);
        let carried = RunOrder::carried(config, target, world, generation);
        let import =
            |(id, times): (&String, &(i64, i64))| Ok(RunOrder::import(config, target, world, generation, id, *times));
        [live].into_iter().chain(carried).chain(imports.iter().map(import))
    }

    /// The run that computes windows again, into the tables of `target`, which is beside the one in use.
    pub(crate) fn replay(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
        Windows { from, to }: Windows,
        permille: u16,
    ) -> anyhow::Result<RunOrder> {
        // It writes no generation's table.
        let generation = Generation { number: None, ..generation.clone() };
        let order = RunOrder::of_events(config, target, world, &generation, REPLAY_RUN, from, Some(to))?;
        Ok(RunOrder { told: Told { permille, role: String::new(), ..order.told }, ..order })
    }

    fn of_events(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
        kind: &str,
        from: WindowStart,
        to: Option<WindowStart>,
    ) -> anyhow::Result<RunOrder> {
        let names = (kind.to_owned(), String::new(), EVENTS_TOPIC.to_owned());
        let mut order = RunOrder::new(config, target, world, generation, names, from, to);
        let partitions = weir_log::partitions_in_use(&world.control);
        order.partitions = partitions.iter().map(|in_use| (in_use.partition, in_use.effective_ms)).collect();
        order.topic_id = weir_log::topic_is(EVENTS_TOPIC, &world.control).map(str::to_owned);
        order.seam = generation.seam.clone();
        Ok(order)
    }

    /// The run of one import, over the windows that its events lie in.
    pub(crate) fn import(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
        id: &str,
        (first_ms, last_ms): (i64, i64),
    ) -> RunOrder {
        let width = generation.version.width;
        let (from, to) = (width.window_of(first_ms), width.next(width.window_of(last_ms)));
        let import = (import_run(id), id.to_owned(), import_topic(id));
        RunOrder::new(config, target, world, generation, import, from, Some(to))
    }

    fn new(
        config: &Config,
        target: &weir_sink::Target,
        world: &World,
        generation: &Generation,
        (kind, origin, topic): (String, String, String),
        from: WindowStart,
        to: Option<WindowStart>,
    ) -> RunOrder {
        let run = run_of(generation.number, &kind);
        let (recoveries, hold) = (world.recoveries(&run), world.hold(&run));
        let from = generation.version.width.window_of(recoveries.first_ms(from.ms()));
        RunOrder {
            left: Left::Passed,
            told: Told {
                permille: hold.permille,
                throttle: hold.throttle.map(|by| by.id),
                gives_way: None,
                role: world.roles.role(&run),
            },
            recovery: recoveries.last(),
            given_up_to_ms: recoveries.given_up_to_ms(),
            repairs: recoveries.pending,
            recoveries: recoveries.all,
            topic_id: None,
            partitions: Vec::new(),
            spill_dir: config.data_dir.join("spill").join(&run),
            run,
            import: !origin.is_empty(),
            origin,
            topic,
            from,
            to,
            seam: None,
            old: None,
            log: config.log_config(),
            target: target.clone(),
            schema_text: generation.text.clone(),
            workers: config.pipeline.workers,
            memory_bytes_max: config.pipeline.memory_bytes_max,
            tick_after_ms: config.pipeline.tick_after.as_millis() as u64,
        }
    }

    /// As people call it.
    pub(crate) fn called(&self) -> &str {
        self.told.called(&self.run)
    }

    /// The windows of its origin that are the run's, `[from, to)`, ms since the Unix epoch: those before a seam are not live's.
    pub(crate) fn own_ms(&self) -> (i64, i64) {
        match (&self.seam, &self.old) {
            (None, _) => (i64::MIN, i64::MAX),
            (Some(seam), None) => (seam.at.ms(), i64::MAX),
            (Some(seam), Some(_)) => (i64::MIN, seam.at.ms()),
        }
    }

    pub(crate) fn version(&self) -> anyhow::Result<SchemaVersion> {
        Ok(SchemaVersion::parse(&self.schema_text, "the version of the run")?)
    }
}

/// The whole life of the process.
pub(crate) fn main() -> anyhow::Result<ExitCode> {
    crate::start_tracing();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("no order on standard input")?;
    let order: RunOrder =
        serde_json::from_str(&line).context("the order cannot be read (`weir run` is for the supervisor)")?;
    crate::exposition::tell()?;
    let (shutdown, stopping) = watch::channel(false);
    let pace = Pace::default();
    pace.set(order.told.permille);
    let heard = Arc::new(Mutex::new(order.told.clone()));
    let (paced, hears) = (pace.clone(), heard.clone());
    std::thread::spawn(move || {
        // The end of it says that we are to stop, or that whoever started us is gone.
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok::<Told, _>(told) => {
                    paced.set(told.permille);
                    *hears.lock().unwrap_or_else(PoisonError::into_inner) = told;
                }
                Err(error) => warn!(%error, line, "what the supervisor says cannot be read"),
            }
        }
        let _ = shutdown.send(true);
    });
    let log = weir_log::open(&order.log, Arc::new(SystemClock))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(run(&order, log.clone(), (pace, heard.clone()), stopping.clone())) {
        Ok(code) => Ok(code),
        Err(Failure::ForGood { reason, fault }) => {
            // It may be called otherwise than when it began.
            let told = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let again = fault.as_ref().filter(|fault| reason == judge::say(fault, order.called()));
            let reason = again.map(|fault| judge::say(fault, told.called(&order.run))).unwrap_or(reason);
            error!(run = order.run, reason, "stopped; a person is needed");
            let fault = fault.as_ref();
            let say = || report::say_stopped(log.as_ref(), (&order.run, &order.topic), order.recovery, &reason, fault);
            // Who is to mend it must be able to read why: said until it is heard, or somebody ends this process.
            while let Err(error) = say() {
                warn!(run = order.run, error = format!("{error:#}"), "could not be told to `weir status`; tried again");
                let asked = runtime.block_on(tokio::time::timeout(SAY_AGAIN, until(stopping.clone())));
                if asked.is_ok() {
                    break;
                }
            }
            Ok(ExitCode::from(STOPPED_FOR_GOOD as u8))
        }
        Err(Failure::Wait(reason)) => {
            warn!(run = order.run, reason, "stopped; is started again");
            report::say_waiting(log.as_ref(), &order, reason, SystemClock.now_ms());
            Ok(ExitCode::FAILURE)
        }
        Err(Failure::Again(error)) => {
            let reason = format!("{error:#}");
            warn!(run = order.run, error = reason, "stopped; is started again");
            report::say_waiting(
                log.as_ref(),
                &order,
                format!("ended, and is started again: {reason}"),
                SystemClock.now_ms(),
            );
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Why a run ended before its end.
pub(crate) enum Failure {
    /// Starting it again would give the same: the reason, with the way out.
    ForGood {
        reason: String,
        fault: Option<Fault>,
    },
    /// ClickHouse is not to be had, or not ready: one sentence.
    Wait(String),
    Again(anyhow::Error),
}

impl Failure {
    pub(crate) fn of(fault: Fault, run: &str) -> Failure {
        Failure::ForGood { reason: judge::say(&fault, run), fault: Some(fault) }
    }

    pub(crate) fn of_sink(error: weir_sink::SinkError, run: &str) -> Failure {
        use weir_sink::{Altered, SinkError};
        match error {
            SinkError::Altered(Altered { table, differs, mends }) => {
                Failure::of(Fault::TableAltered { table, differs, mends }, run)
            }
            SinkError::Stopped { .. } | SinkError::UndoLive => Failure::ForGood {
                reason: format!("{error} · then `weir recover {run}` starts it again"),
                fault: None,
            },
            SinkError::Unreachable { .. } => Failure::Wait(error.to_string()),
            SinkError::Refused { .. } | SinkError::CheckpointMoved { .. } | SinkError::Server(_) => {
                Failure::Again(error.into())
            }
        }
    }

    fn of_pipeline(error: weir_pipeline::PipelineError, run: &str) -> Failure {
        use weir_pipeline::PipelineError;
        match error {
            PipelineError::Cut { topic, partition, start, from_ms, .. } => {
                Failure::of(Fault::LogCut { topic, partition, start, from_ms }, run)
            }
            error if error.needs_a_person() => Failure::ForGood {
                reason: format!("{error} · then `weir recover {run}` starts it again"),
                fault: None,
            },
            error => Failure::Again(error.into()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Again(error)
    }
}

async fn run(
    order: &RunOrder,
    log: Arc<dyn Log>,
    (pace, heard): (Pace, Arc<Mutex<Told>>),
    mut stopping: watch::Receiver<bool>,
) -> Result<ExitCode, Failure> {
    let Some(begun) = begin::begin(order, &log, &mut stopping).await? else { return Ok(ExitCode::FAILURE) };
    let Begun { version, checkpoint, moved } = begun;
    if order.to.is_some_and(|to| checkpoint >= to) {
        report::say_ended(order, log.as_ref(), checkpoint)?;
        return Ok(ExitCode::SUCCESS);
    }
    info!(run = order.run, checkpoint_ms = checkpoint.ms(), workers = order.workers, "goes on from its checkpoint");
    let status = Arc::new(Status::default());
    if order.old.is_some() {
        status.reads_nothing(carried::ends(log.as_ref(), &order.topic)?);
    }
    let told = (status.clone(), pace.clone(), heard);
    let reporter = Reporter::new(order, version.number, log.clone(), told, Done::new(checkpoint), moved);
    let reporter = Arc::new(reporter);
    let stop = Arc::new(AtomicBool::new(false));
    let reports = {
        let (reporter, stop) = (reporter.clone(), stop.clone());
        std::thread::spawn(move || reporter.keep_saying(&stop))
    };
    let ended = match &order.old {
        None => go_on(order, version, checkpoint, log, pace, status, &reporter, &stop, stopping).await,
        Some(old) => carried::go_on(order, old, version, checkpoint, pace, &reporter, stopping).await,
    };
    // Whatever is said after this is said after the last report.
    stop.store(true, Ordering::SeqCst);
    let _ = reports.join();
    match ended? {
        weir_sink::End::Complete => {
            reporter.say(|progress| (progress.ended, progress.permille) = (true, None))?;
            Ok(ExitCode::SUCCESS)
        }
        weir_sink::End::Drained | weir_sink::End::Shutdown => {
            reporter.say(|progress| progress.permille = None)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Pipeline and sink, until one of them ends, or the log is not the one that it was.
#[allow(clippy::too_many_arguments, reason = "what `run` has made, once")]
async fn go_on(
    order: &RunOrder,
    version: SchemaVersion,
    checkpoint: WindowStart,
    log: Arc<dyn Log>,
    pace: Pace,
    status: Arc<Status>,
    reporter: &Arc<Reporter>,
    stop: &Arc<AtomicBool>,
    stopping: watch::Receiver<bool>,
) -> Result<weir_sink::End, Failure> {
    let sink = weir_sink::RunSpec {
        run: order.run.clone(),
        version: version.clone(),
        origin: order.origin.clone(),
        first: order.from,
        from: checkpoint,
        to: order.to,
        left: order.left,
    };
    std::fs::create_dir_all(&order.spill_dir).context("the folder for spilled windows cannot be made")?;
    let spec = RunSpec {
        run: order.run.clone(),
        version: version.clone(),
        topic: order.topic.clone(),
        kind: if order.import { SourceKind::Import } else { SourceKind::Live },
        from: sink.begins(),
        seam: order.seam.clone(),
        to: order.to,
        partitions: order
            .partitions
            .iter()
            .map(|(partition, effective_ms)| PartitionInUse { partition: *partition, effective_ms: *effective_ms })
            .collect(),
        workers: order.workers,
        memory_bytes_max: order.memory_bytes_max / 2,
        spill_dir: order.spill_dir.clone(),
        tick_after: Duration::from_millis(order.tick_after_ms),
        pace,
    };
    let (closed, leaving) = mpsc::channel(CLOSED_MAX);
    let (passed, windows) = mpsc::channel(CLOSED_MAX);
    let pipeline = {
        let (log, status, stop) = (log.clone(), status.clone(), stop.clone());
        tokio::task::spawn_blocking(move || weir_pipeline::run(spec, log, Arc::new(SystemClock), closed, status, stop))
    };
    let tell = |news| reporter.hear(news);
    let limits = weir_sink::Limits::of_memory(order.memory_bytes_max as u64 / 2);
    let sink = weir_sink::run_telling(&order.target, sink, limits, windows, tell, until(stopping));
    let gate = gate(order, log.clone(), leaving, passed);
    let written = async {
        // When all windows have passed it, the sink finishes them.
        let sink = async { sink.await.map_err(|error| Failure::of_sink(error, order.called())) };
        tokio::pin!(sink, gate);
        tokio::select! {
            written = &mut sink => written,
            passed = &mut gate => match passed {
                Ok(()) => sink.await,
                Err(error) => Err(error.into()),
            },
        }
    };
    let watched = watch(order, version.clone(), log, reporter);
    tokio::pin!(written, pipeline, watched);
    // Whichever fails first is the reason; the others are stopped by it.
    tokio::select! {
        written = &mut written => written,
        read = &mut pipeline => match read.context("the pipeline's thread")? {
            Ok(_) => written.await,
            Err(error) => Err(Failure::of_pipeline(error, order.called())),
        },
        fault = &mut watched => {
            reporter.say(|_| ())?;
            Err(Failure::Again(anyhow::anyhow!("{}", judge::say(&fault, order.called()))))
        }
    }
}

pub(crate) async fn until(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Looks at log and `emissions` from time to time, and comes back when the run may not go on over what is there. It then
/// begins again, and is stopped by what it finds: only at its beginning is it known from where on.
async fn watch(order: &RunOrder, version: SchemaVersion, log: Arc<dyn Log>, reporter: &Arc<Reporter>) -> Fault {
    for look in 1_u32.. {
        tokio::time::sleep(WATCH_EVERY).await;
        let pinged = order.target.ping().await;
        let answers = pinged.is_ok();
        reporter.hear_ping(pinged);
        if order.import {
            continue;
        }
        let mut facts = reporter.facts();
        if answers && order.left != Left::Own && look % WATCH_EMISSIONS == 0 {
            // The sink asks for what lies ahead only.
            let asked = weir_sink::checkpoint(&order.target, &order.run, &version, &order.origin, order.from);
            if let Ok(Ok(checkpoint)) = tokio::time::timeout(WATCH_PATIENCE, asked).await {
                facts.checkpoint_ms = checkpoint.ms();
            }
        }
        match begin::look(order, &log, &facts).await {
            Ok(Some(fault)) => return fault,
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(run = order.run, error = format!("{error:#}"), "the log could not be looked at")
            }
        }
    }
    unreachable!("it would have looked for centuries")
}

/// Hands windows on from pipeline to sink, and none after the partitions in use are others than those of the order.
///
/// The control topic is read to its end after a window has closed and before it leaves. A record that comes later has an
/// effective time after all that the window could hold: it closed when the log's time had passed it. An error then ends
/// the run, which is started again with all partitions.
async fn gate(
    order: &RunOrder,
    log: Arc<dyn Log>,
    mut leaving: mpsc::Receiver<Closed>,
    passed: mpsc::Sender<Closed>,
) -> anyhow::Result<()> {
    let mut read_to = -1;
    while let Some(message) = leaving.recv().await {
        if !order.import {
            let (log, partitions) = (log.clone(), order.partitions.clone());
            read_to = tokio::task::spawn_blocking(move || same_partitions(log, &partitions, read_to)).await??;
        }
        if passed.send(message).await.is_err() {
            // The sink has ended, and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// An error if other partitions are in use than `partitions`; where the control topic ends, read on from `read_to`.
fn same_partitions(log: Arc<dyn Log>, partitions: &[(u32, i64)], read_to: i64) -> anyhow::Result<i64> {
    if log.bounds(CONTROL_TOPIC, 0)?.end == read_to {
        return Ok(read_to);
    }
    let all = weir_log::ControlLog::open(log)?.read_all()?;
    let in_use = weir_log::partitions_in_use(all.records.iter().map(|(_, record)| record));
    let same = in_use.iter().map(|in_use| (in_use.partition, in_use.effective_ms)).eq(partitions.iter().copied());
    anyhow::ensure!(same, "{} partitions are in use now, {} are read; begins again", in_use.len(), partitions.len());
    Ok(all.end)
}
