//! The process of one run: the log in, the table out.
//!
//! ```text
//!  standard input: order, then silence (its end: stop)
//!  log ──▶ pipeline::run (timely workers) ──Closed──▶ sink::run ──▶ ClickHouse
//!                         └── status ──▶ progress in the log, as a consumer group
//! ```

use std::{
    io::BufRead,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use weir_log::{Clock, Committed, Log, LogConfig, PartitionInUse, SystemClock};
use weir_pipeline::{RunSpec, SourceKind, Status};
use weir_schemas::{
    Closed, SchemaVersion, WindowStart,
    control::{CONTROL_TOPIC, ControlRecord, EVENTS_TOPIC, import_run, import_topic},
    progress::{Metadata, PartitionProgress, RunProgress, group_of},
};

use crate::config::Config;

/// Exit code of a run that must not be started again before a person has looked.
pub(crate) const STOPPED_FOR_GOOD: i32 = 70;

/// How often progress goes into the log.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A process of the same run that said something this short a while ago is at work: ten times [`PROGRESS_EVERY`].
const AT_WORK_MS: i64 = 5_000;

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
    /// (partition, effective time in ms) of those in use.
    pub partitions: Vec<(u32, i64)>,
    pub log: LogConfig,
    pub target: weir_sink::Target,
    /// A schema version that the binary carries, or the text of a file with its name.
    pub schema_number: u32,
    pub schema_file: Option<PathBuf>,
    pub workers: usize,
    /// A half is for open windows and their rows, a half for closed ones on their way into the table.
    pub memory_bytes_max: usize,
    pub spill_dir: PathBuf,
    pub tick_after_ms: u64,
}

impl RunOrder {
    /// The live run over the partitions in use.
    pub(crate) fn live(
        config: &Config,
        target: &weir_sink::Target,
        control: &[ControlRecord],
    ) -> anyhow::Result<RunOrder> {
        let partitions = weir_log::partitions_in_use(control);
        let first_ms = partitions.iter().map(|partition| partition.effective_ms).min();
        let first_ms = first_ms.context("no partition is in use (the control topic names none)")?;
        let version = config.schema_version()?;
        let from = version.width.window_of(first_ms - version.lateness_ms);
        Ok(RunOrder::new(
            config,
            target,
            "live".into(),
            String::new(),
            EVENTS_TOPIC.into(),
            from,
            None,
            partitions.iter().map(|in_use| (in_use.partition, in_use.effective_ms)).collect(),
        ))
    }

    /// The run of one import, over the windows that its events lie in.
    pub(crate) fn import(
        config: &Config,
        target: &weir_sink::Target,
        id: &str,
        first_ms: i64,
        last_ms: i64,
    ) -> anyhow::Result<RunOrder> {
        let width = config.schema_version()?.width;
        let (from, to) = (width.window_of(first_ms), width.next(width.window_of(last_ms)));
        let (run, topic) = (import_run(id), import_topic(id));
        Ok(RunOrder::new(config, target, run, id.to_owned(), topic, from, Some(to), Vec::new()))
    }

    #[allow(clippy::too_many_arguments, reason = "the two callers above name what differs")]
    fn new(
        config: &Config,
        target: &weir_sink::Target,
        run: String,
        origin: String,
        topic: String,
        from: WindowStart,
        to: Option<WindowStart>,
        partitions: Vec<(u32, i64)>,
    ) -> RunOrder {
        RunOrder {
            spill_dir: config.data_dir.join("spill").join(&run),
            run,
            import: !origin.is_empty(),
            origin,
            topic,
            from,
            to,
            partitions,
            log: config.log_config(),
            target: target.clone(),
            schema_number: config.schema.version,
            schema_file: config.schema.file.clone(),
            workers: config.pipeline.workers,
            memory_bytes_max: config.pipeline.memory_bytes_max,
            tick_after_ms: config.pipeline.tick_after.as_millis() as u64,
        }
    }

    fn version(&self) -> anyhow::Result<SchemaVersion> {
        crate::config::schema_version(self.schema_number, self.schema_file.as_deref())
    }
}

/// The whole life of the process.
pub(crate) fn main() -> anyhow::Result<ExitCode> {
    crate::start_tracing();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("no order on standard input")?;
    let order: RunOrder =
        serde_json::from_str(&line).context("the order cannot be read (`weir run` is for the supervisor)")?;
    let (shutdown, stopping) = watch::channel(false);
    std::thread::spawn(move || {
        // Nothing more comes; the end of it says that we are to stop, or that whoever started us is gone.
        let mut rest = String::new();
        while std::io::stdin().lock().read_line(&mut rest).is_ok_and(|read| read > 0) {}
        let _ = shutdown.send(true);
    });
    let log = weir_log::open(&order.log, Arc::new(SystemClock))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(run(&order, log.clone(), stopping)) {
        Ok(code) => Ok(code),
        Err(Failure::ForGood(reason)) => {
            error!(run = order.run, reason, "stopped; a person is needed");
            say_stopped(&order, log.as_ref(), &reason);
            Ok(ExitCode::from(STOPPED_FOR_GOOD as u8))
        }
        Err(Failure::Again(error)) => {
            warn!(run = order.run, error = format!("{error:#}"), "stopped; is started again");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Why a run ended before its end.
enum Failure {
    /// Starting it again would give the same: the reason, with the way out.
    ForGood(String),
    Again(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Again(error)
    }
}

impl From<weir_sink::SinkError> for Failure {
    fn from(error: weir_sink::SinkError) -> Self {
        use weir_sink::SinkError;
        match error {
            SinkError::Stopped { .. } | SinkError::Altered { .. } | SinkError::UndoLive => {
                Failure::ForGood(error.to_string())
            }
            SinkError::Refused { .. }
            | SinkError::CheckpointMoved { .. }
            | SinkError::Unreachable { .. }
            | SinkError::Server(_) => Failure::Again(error.into()),
        }
    }
}

impl From<weir_pipeline::PipelineError> for Failure {
    fn from(error: weir_pipeline::PipelineError) -> Self {
        if error.needs_a_person() { Failure::ForGood(error.to_string()) } else { Failure::Again(error.into()) }
    }
}

async fn run(order: &RunOrder, log: Arc<dyn Log>, stopping: watch::Receiver<bool>) -> Result<ExitCode, Failure> {
    let version = order.version()?;
    let checkpoint = weir_sink::checkpoint(&order.target, &order.run, &version, &order.origin, order.from).await?;
    let sink = weir_sink::RunSpec {
        run: order.run.clone(),
        version: version.clone(),
        origin: order.origin.clone(),
        from: checkpoint,
        to: order.to,
        left: weir_sink::Left::Passed,
    };
    if order.to.is_some_and(|to| checkpoint >= to) {
        say_ended(order, log.as_ref(), checkpoint)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = Arc::new(Status::default());
    let done = Arc::new(Done::new(checkpoint));
    let reporter = Reporter { order: order.clone(), log: log.clone(), status: status.clone(), done: done.clone() };
    info!(run = order.run, checkpoint_ms = checkpoint.ms(), workers = order.workers, "goes on from its checkpoint");

    std::fs::create_dir_all(&order.spill_dir).context("the folder for spilled windows cannot be made")?;
    let spec = RunSpec {
        run: order.run.clone(),
        version,
        topic: order.topic.clone(),
        kind: if order.import { SourceKind::Import } else { SourceKind::Live },
        from: checkpoint,
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
    };
    let (closed, leaving) = mpsc::channel(CLOSED_MAX);
    let (passed, windows) = mpsc::channel(CLOSED_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let pipeline = {
        let (log, status, stop) = (log.clone(), status.clone(), stop.clone());
        tokio::task::spawn_blocking(move || weir_pipeline::run(spec, log, Arc::new(SystemClock), closed, status, stop))
    };
    let reports = {
        let (reporter, stop) = (reporter.clone(), stop.clone());
        std::thread::spawn(move || reporter.keep_saying(&stop))
    };
    let until = {
        let mut stopping = stopping;
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    let on_done = move |batch: weir_sink::Done| done.set(batch);
    let limits = weir_sink::Limits::of_memory(order.memory_bytes_max as u64 / 2);
    let sink = weir_sink::run(&order.target, sink, limits, windows, on_done, until);
    let gate = gate(order, log.clone(), leaving, passed);
    let written = async {
        // When all windows have passed it, the sink finishes them.
        let sink = async { Ok::<_, Failure>(sink.await?) };
        tokio::pin!(sink, gate);
        tokio::select! {
            written = &mut sink => written,
            passed = &mut gate => match passed {
                Ok(()) => sink.await,
                Err(error) => Err(error.into()),
            },
        }
    };
    tokio::pin!(written, pipeline);
    // Whichever fails first is the reason; the others are stopped by it.
    let written = tokio::select! {
        written = &mut written => written,
        read = &mut pipeline => match read.context("the pipeline's thread")? {
            Ok(_) => written.await,
            Err(error) => return Err(error.into()),
        },
    };
    stop.store(true, Ordering::SeqCst);
    let _ = reports.join();
    let ended = written?;
    match ended {
        weir_sink::End::Complete => {
            reporter.say(|progress| progress.ended = true)?;
            Ok(ExitCode::SUCCESS)
        }
        weir_sink::End::Drained | weir_sink::End::Shutdown => {
            reporter.say(|_| ())?;
            Ok(ExitCode::FAILURE)
        }
    }
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

/// What the sink has finished.
struct Done {
    through_ms: std::sync::atomic::AtomicI64,
    rows: std::sync::atomic::AtomicU64,
}

impl Done {
    fn new(checkpoint: WindowStart) -> Done {
        Done { through_ms: checkpoint.ms().into(), rows: 0.into() }
    }

    fn set(&self, batch: weir_sink::Done) {
        self.through_ms.store(batch.through.ms(), Ordering::Relaxed);
        self.rows.fetch_add(batch.rows, Ordering::Relaxed);
    }
}

/// Writes the run's progress into the log, where every tool sees it.
#[derive(Clone)]
struct Reporter {
    order: RunOrder,
    log: Arc<dyn Log>,
    status: Arc<Status>,
    done: Arc<Done>,
}

impl Reporter {
    fn keep_saying(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            if let Err(error) = self.say(|_| ()) {
                warn!(run = self.order.run, error = format!("{error:#}"), "progress could not be told");
            }
            std::thread::sleep(PROGRESS_EVERY);
        }
    }

    /// Whether another process of this run is at work and ahead. It has taken over, and this one will be refused at its
    /// next deed, but does not know it yet: it was stopped for a while, say. Complete-through must not step back for that.
    fn is_overtaken(&self) -> anyhow::Result<bool> {
        let told = self.log.committed(&group_of(&self.order.run), &self.order.topic)?;
        let first = told.into_iter().find(|committed| committed.partition == 0);
        let told: Option<Metadata> = first.and_then(|first| serde_json::from_str(&first.metadata).ok());
        let ours_ms = self.done.through_ms.load(Ordering::Relaxed);
        Ok(told.and_then(|told| told.run).is_some_and(|told| {
            told.complete_through_ms > Some(ours_ms) && SystemClock.now_ms() - told.at_ms < AT_WORK_MS
        }))
    }

    fn say(&self, change: impl Fn(&mut RunProgress)) -> anyhow::Result<()> {
        if self.is_overtaken()? {
            return Ok(());
        }
        let status = self.status.snapshot();
        let mut run = RunProgress {
            at_ms: SystemClock.now_ms(),
            complete_through_ms: Some(self.done.through_ms.load(Ordering::Relaxed)),
            watermark_ms: status.watermark_ms,
            held_by: status.held_by,
            windows_open: status.windows_open,
            events_read: status.events_read,
            events_late: status.events_late,
            rows_done: self.done.rows.load(Ordering::Relaxed),
            records_unreadable: status.records_unreadable,
            stopped: None,
            ended: false,
        };
        change(&mut run);
        let commits = status.partitions.iter().map(|partition| {
            let metadata = Metadata {
                partition: PartitionProgress { arrival_ms: partition.arrival_ms },
                run: (partition.partition == 0).then(|| run.clone()),
            };
            Ok(Committed {
                partition: partition.partition,
                offset: partition.next_offset,
                metadata: serde_json::to_string(&metadata)?,
            })
        });
        let commits: Vec<Committed> = commits.collect::<anyhow::Result<_>>()?;
        self.log.commit(&group_of(&self.order.run), &self.order.topic, &commits)?;
        Ok(())
    }
}

/// Tells what the process before this one had no time to tell: the run is at its end, all of its topic is in the table.
fn say_ended(order: &RunOrder, log: &dyn Log, through: WindowStart) -> anyhow::Result<()> {
    let group = group_of(&order.run);
    let before = log.committed(&group, &order.topic)?;
    let commit = |partition| -> anyhow::Result<Committed> {
        let told = before.iter().find(|committed| committed.partition == partition);
        let told = told.and_then(|committed| serde_json::from_str(&committed.metadata).ok());
        let mut metadata: Metadata = told.unwrap_or_default();
        if partition == 0 {
            let run = metadata.run.get_or_insert_default();
            run.at_ms = SystemClock.now_ms();
            run.complete_through_ms = Some(through.ms());
            run.stopped = None;
            run.ended = true;
        }
        let offset = log.bounds(&order.topic, partition)?.end;
        Ok(Committed { partition, offset, metadata: serde_json::to_string(&metadata)? })
    };
    let commits: Vec<_> = (0..log.partitions(&order.topic)?).map(commit).collect::<Result<_, _>>()?;
    Ok(log.commit(&group, &order.topic, &commits)?)
}

/// Tells those who ask for the status that the run has stopped, and why; its offsets stay as they were.
fn say_stopped(order: &RunOrder, log: &dyn Log, reason: &str) {
    let group = group_of(&order.run);
    let told = (|| -> anyhow::Result<()> {
        let before = log.committed(&group, &order.topic)?;
        let first = before.into_iter().find(|committed| committed.partition == 0);
        let mut first = first.unwrap_or(Committed { partition: 0, offset: 0, metadata: String::new() });
        let mut metadata: Metadata = serde_json::from_str(&first.metadata).unwrap_or_default();
        let run = metadata.run.get_or_insert_default();
        run.at_ms = SystemClock.now_ms();
        run.stopped = Some(reason.chars().take(1_000).collect());
        first.metadata = serde_json::to_string(&metadata)?;
        Ok(log.commit(&group, &order.topic, &[first])?)
    })();
    if let Err(error) = told {
        warn!(run = order.run, error = format!("{error:#}"), "could not be told to `weir status`");
    }
}
