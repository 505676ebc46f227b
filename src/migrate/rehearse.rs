//! How fast the log is read, and how many rows come of it, by reading the first part of it, with no table to write to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::sync::mpsc;
use weir_log::{Log, PartitionInUse, SystemClock};
use weir_pipeline::{Pace, RunSpec, SourceKind, Status};
use weir_schemas::{Closed, SchemaVersion, control::EVENTS_TOPIC};

use super::plan::Rehearsed;
use crate::config::Config;

/// How long it reads on after the first window has closed, and how long it waits for that.
const LONG: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_secs(20);
/// A partition that is silent gets no tick from a rehearsal: that would be written.
const NO_TICK: Duration = Duration::from_secs(1_000_000_000);

/// `None`: nothing has closed meanwhile. Errors: of the log.
pub(super) async fn rehearse(
    config: &Config,
    log: Arc<dyn Log>,
    version: &SchemaVersion,
    partitions: Vec<PartitionInUse>,
    from_ms: i64,
) -> anyhow::Result<Option<Rehearsed>> {
    let spill_dir = config.data_dir.join("spill").join("rehearsal");
    std::fs::create_dir_all(&spill_dir).with_context(|| format!("{} cannot be made", spill_dir.display()))?;
    let spec = RunSpec {
        run: "rehearsal".to_owned(),
        version: version.clone(),
        topic: EVENTS_TOPIC.to_owned(),
        kind: SourceKind::Live,
        from: version.width.window_of(from_ms),
        seam: None,
        to: None,
        partitions,
        workers: config.pipeline.workers,
        memory_bytes_max: config.pipeline.memory_bytes_max / 2,
        spill_dir,
        tick_after: NO_TICK,
        pace: Pace::default(),
    };
    let (closed, mut leaving) = mpsc::channel(4);
    let (status, stop) = (Arc::new(Status::default()), Arc::new(AtomicBool::new(false)));
    let begin = Instant::now();
    let reading = {
        let (status, stop) = (status.clone(), stop.clone());
        tokio::task::spawn_blocking(move || weir_pipeline::run(spec, log, Arc::new(SystemClock), closed, status, stop))
    };
    let mut done = Rehearsed { events: 0, rows: 0, took: Duration::ZERO };
    let mut until = begin + FIRST_WAIT;
    while let Ok(Some(message)) = tokio::time::timeout_at(until.into(), leaving.recv()).await {
        if let Closed::Window(emission) = message {
            if done.rows == 0 {
                until = Instant::now() + LONG;
            }
            let rows = done.rows + emission.rows() as u64;
            done = Rehearsed { events: status.snapshot().events_read, rows, took: begin.elapsed() };
        }
    }
    stop.store(true, Ordering::SeqCst);
    // What waits to be taken holds it.
    leaving.close();
    while leaving.recv().await.is_some() {}
    reading.await??;
    Ok((done.rows > 0).then_some(done))
}
