//! One stage of the pipeline bench, in a process of its own, so that its CPU and memory are its alone.

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use weir_log::{LogConfig, PartitionInUse, SystemClock};
use weir_pipeline::{RunSpec, SourceKind, Status};
use weir_schemas::{
    Closed, SchemaVersion, WindowStart, WindowWidth,
    wire::{self, Content},
};

use crate::{
    plain,
    traffic::BEGIN_MS,
    usage::{self, Usage},
};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Read every record.
    Consume,
    /// Read and decode every record, with its strings and columns.
    Decode,
    /// Everything but the sink.
    Rows,
    /// The reference, over a topic of its own.
    Plain,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) stage: Stage,
    pub(crate) log: LogConfig,
    pub(crate) topic: String,
    pub(crate) partitions: u32,
    /// How many events the topic holds.
    pub(crate) events: u64,
    pub(crate) from: WindowStart,
    pub(crate) to: WindowStart,
    pub(crate) width: WindowWidth,
    pub(crate) workers: usize,
    pub(crate) memory_bytes_max: usize,
    pub(crate) spill_dir: PathBuf,
}

/// What a stage did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) events: u64,
    pub(crate) windows: u64,
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) usage: Usage,
}

/// Runs the stage in a process of its own.
pub(crate) fn run(order: &Order) -> anyhow::Result<Done> {
    let output = Command::new(std::env::current_exe()?)
        .args(["stage", &serde_json::to_string(order)?])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the stage cannot be started")?;
    ensure!(output.status.success(), "stage {:?} failed: {}", order.stage, output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The process of a stage.
pub(crate) fn main(order: &str) -> anyhow::Result<ExitCode> {
    let order: Order = serde_json::from_str(order)?;
    let (before, begin) = (usage::own(), Instant::now());
    let mut done = match order.stage {
        Stage::Consume | Stage::Decode => read(&order)?,
        Stage::Rows => rows(&order)?,
        Stage::Plain => {
            let LogConfig::Kafka { bootstrap, .. } = &order.log else { anyhow::bail!("plain reads Kafka") };
            let events = plain::run(bootstrap, &order.topic, order.partitions, order.events)?;
            Done { events, ..Done::default() }
        }
    };
    done.seconds = begin.elapsed().as_secs_f64();
    done.usage = usage::own();
    done.usage.cpu_seconds -= before.cpu_seconds;
    ensure!(done.events == order.events, "{} of {} events were read", done.events, order.events);
    println!("{}", serde_json::to_string(&done)?);
    Ok(ExitCode::SUCCESS)
}

/// Schema version 1, with windows of another width.
pub(crate) fn version(width: WindowWidth) -> SchemaVersion {
    SchemaVersion { width, ..SchemaVersion::builtin(1).expect("this binary carries version 1") }
}

fn read(order: &Order) -> anyhow::Result<Done> {
    let log = weir_log::open(&order.log, Arc::new(SystemClock))?;
    let mut reader = log.reader(&order.topic)?;
    let mut left = 0;
    for partition in 0..order.partitions {
        let bounds = log.bounds(&order.topic, partition)?;
        reader.assign(partition, bounds.start)?;
        left += (bounds.end - bounds.start) as usize;
    }
    let (mut events, mut bytes, mut damaged) = (0, 0, None);
    while left > 0 {
        let read = reader.poll(1_024, Duration::from_secs(30), &mut |record| {
            bytes += record.payload.len();
            if order.stage == Stage::Decode {
                match wire::decode(record.payload) {
                    Ok(record) => {
                        if let Content::Batch(batch) = &record.content {
                            events += std::hint::black_box(batch).events as u64;
                        }
                    }
                    Err(error) => damaged = Some(error),
                }
            }
        })?;
        ensure!(read > 0, "{} does not give its last {left} records", order.topic);
        left -= read;
    }
    if let Some(error) = damaged {
        return Err(error.into());
    }
    std::hint::black_box(bytes);
    // Whoever only reads cannot know how many events there are.
    Ok(Done { events: if order.stage == Stage::Consume { order.events } else { events }, ..Done::default() })
}

fn rows(order: &Order) -> anyhow::Result<Done> {
    let log = weir_log::open(&order.log, Arc::new(SystemClock))?;
    std::fs::create_dir_all(&order.spill_dir)?;
    let in_use = |partition| PartitionInUse { partition, effective_ms: BEGIN_MS };
    let spec = RunSpec {
        run: "bench".to_owned(),
        version: version(order.width),
        topic: order.topic.clone(),
        kind: SourceKind::Live,
        from: order.from,
        seam: None,
        to: Some(order.to),
        partitions: (0..order.partitions).map(in_use).collect(),
        workers: order.workers,
        memory_bytes_max: order.memory_bytes_max,
        spill_dir: order.spill_dir.clone(),
        tick_after: Duration::from_secs(3_600),
        pace: Default::default(),
    };
    let (closed, mut windows) = tokio::sync::mpsc::channel(8);
    let status = Arc::new(Status::default());
    let running = {
        let status = status.clone();
        let never = Arc::new(AtomicBool::new(false));
        std::thread::spawn(move || weir_pipeline::run(spec, log, Arc::new(SystemClock), closed, status, never))
    };
    let mut done = Done::default();
    while let Some(message) = windows.blocking_recv() {
        if let Closed::Window(emission) = message {
            done.windows += 1;
            done.rows += emission.rows() as u64;
        }
    }
    running.join().expect("a run does not panic")?;
    done.events = status.snapshot().events_read;
    Ok(done)
}
