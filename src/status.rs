//! `weir status`: one snapshot, from the log, and from the spool if there is one on this machine.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use weir_console::{DiskStatus, Memory, Seen, Snapshot, SpoolStatus};
use weir_ingest::{Spool, SpoolUsage};
use weir_log::{Clock, ControlLog, Log, LogError, SystemClock};

use crate::{config::Config, doctor, screen::Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// The same, looked at once a second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Prints the snapshot; exit code 1 when a run has stopped and needs a person, or the log is away.
pub(crate) fn main(config: &Config, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let log = open(config)?;
    let mut seen = nothing_seen(config);
    let mut snapshot = take(config, &log, &mut seen)?;
    if snapshot.runs.iter().any(|run| run.eta.is_some()) {
        // How fast a run catches up takes two looks.
        std::thread::sleep(BETWEEN_LOOKS);
        snapshot = take(config, &log, &mut seen)?;
    }
    let view = Memory::default().view(snapshot);
    if args.json {
        println!("{}", serde_json::to_string(&view)?);
    } else {
        println!("{}", weir_console::render(&view));
    }
    let stopped = view
        .snapshot
        .runs
        .iter()
        .any(|run| run.topic_gone || run.progress.as_ref().is_some_and(|progress| progress.stopped.is_some()));
    Ok(if stopped || view.snapshot.log_away.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows the snapshot anew once a second, on one screen where there is one, until Ctrl-C.
pub(crate) async fn watch(config: &Config) -> anyhow::Result<()> {
    let log = open(config)?;
    let (mut seen, mut memory) = (nothing_seen(config), Memory::default());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut screen = Screen::open()?;
    loop {
        let snapshot = tokio::task::block_in_place(|| take(config, &log, &mut seen))?;
        screen.show(&weir_console::render(&memory.view(snapshot)))?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

fn open(config: &Config) -> anyhow::Result<Arc<dyn Log>> {
    let log = weir_log::open_existing(&config.log_config(), Arc::new(SystemClock));
    log.context("the log cannot be opened")
}

/// A snapshot, with what is on this machine; of a log that is away it says so.
fn take(config: &Config, log: &Arc<dyn Log>, seen: &mut Seen) -> anyhow::Result<Snapshot> {
    let mut snapshot = match look(log, seen) {
        Ok(snapshot) => snapshot,
        Err(error @ (LogError::Unavailable(_) | LogError::Kafka(_))) => {
            Snapshot::without_log(SystemClock.now_ms(), error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    snapshot.spool = spool(config)?;
    snapshot.disk = disk(config);
    Ok(snapshot)
}

/// What nobody has looked at yet, of the configured windows.
pub(crate) fn nothing_seen(config: &Config) -> Seen {
    let (window_ms, lateness_ms) = config.window_and_lateness_ms();
    Seen::new(window_ms, lateness_ms)
}

/// A run reports twice a second: over so long its rates are known to a third.
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

fn look(log: &Arc<dyn Log>, seen: &mut Seen) -> Result<Snapshot, LogError> {
    let control = match ControlLog::look(log.clone())? {
        Some(control) => control.read_all()?.records.into_iter().map(|(_, record)| record).collect(),
        None => Vec::new(),
    };
    weir_console::observe(log.as_ref(), &control, SystemClock.now_ms(), seen)
}

/// The disk under `data_dir`, on this machine.
pub(crate) fn disk(config: &Config) -> Option<DiskStatus> {
    let path = doctor::place_of(&config.data_dir);
    Some(DiskStatus { path: path.display().to_string(), free_bytes: doctor::free_bytes(path).ok()? })
}

/// The spool on this machine, whoever has it open.
pub(crate) fn spool(config: &Config) -> Result<Option<SpoolStatus>, LogError> {
    let Some(dir) = config.spool_dir() else { return Ok(None) };
    let usage = Spool::look(dir, Arc::new(SystemClock), config.ingest.spool.bytes_max)?;
    Ok(usage.map(|usage| spool_status(&usage, SystemClock.now_ms())))
}

pub(crate) fn spool_status(usage: &SpoolUsage, now_ms: i64) -> SpoolStatus {
    let SpoolUsage { bytes, bytes_max, batches, oldest_ms } = *usage;
    let age_ms = oldest_ms.map_or(0, |oldest_ms| (now_ms - oldest_ms).max(0));
    SpoolStatus { bytes, bytes_max, batches, oldest_ms, age_ms }
}
