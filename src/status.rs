//! `weir status`: one snapshot, from the log, and from what is on this machine: ClickHouse, collector, spool, disk.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use reqwest::StatusCode;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use weir_console::{Colour, DiskStatus, Eta, Memory, Part, RunStatus, Seen, Snapshot, SpoolStatus, View};
use weir_ingest::{Spool, SpoolUsage};
use weir_log::{Clock, ControlLog, Log, LogError, SystemClock};
use weir_schemas::progress::RunProgress;

use crate::{
    config::{Config, LogKind},
    doctor,
    screen::Screen,
};

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// The same, looked at once a second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// One look, which takes some seconds when it is not known yet how fast a run catches up.
pub(crate) async fn view(config: &Config) -> anyhow::Result<View> {
    let log = open(config)?;
    let mut seen = nothing_seen(config);
    let begin = Instant::now();
    let snapshot = loop {
        let snapshot = take(config, &log, &mut seen).await?;
        // How fast a run catches up takes as many looks as it takes it to report two steps.
        let is_at_work = |run: &RunStatus| {
            let heard = |progress: &RunProgress| snapshot.at_ms - progress.at_ms < HEARD_MS;
            run.progress.as_ref().is_some_and(|progress| progress.stopped.is_none() && heard(progress))
        };
        let is_unknown = snapshot.runs.iter().any(|run| run.eta == Some(Eta::Unknown) && is_at_work(run));
        if !is_unknown || begin.elapsed() >= ETA_PATIENCE {
            break snapshot;
        }
        sleep(LOOK_EVERY).await;
    };
    Ok(Memory::default().view(snapshot))
}

/// Prints the snapshot; exit code 1 when it is red, a run has stopped and needs a person, or the log is away.
pub(crate) async fn main(config: &Config, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let view = view(config).await?;
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
    let is_bad = stopped || view.status == Colour::Red || view.snapshot.log_away.is_some();
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows the snapshot anew once a second, on one screen where there is one, until Ctrl-C.
pub(crate) async fn watch(config: &Config) -> anyhow::Result<()> {
    let log = open(config)?;
    let (mut seen, mut memory) = (nothing_seen(config), Memory::default());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut screen = Screen::open()?;
    loop {
        let snapshot = take(config, &log, &mut seen).await?;
        screen.show(&weir_console::render(&memory.view(snapshot)))?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

fn open(config: &Config) -> anyhow::Result<Arc<dyn Log>> {
    let log = weir_log::open_existing(&config.log_config(), Arc::new(SystemClock));
    log.context("the log cannot be opened")
}

/// A snapshot, with what is on this machine; of a log that is away it says so.
async fn take(config: &Config, log: &Arc<dyn Log>, seen: &mut Seen) -> anyhow::Result<Snapshot> {
    let (clickhouse, collector) = tokio::join!(clickhouse(config), collector(config));
    let mut snapshot = match tokio::task::block_in_place(|| look(log, seen)) {
        Ok(snapshot) => snapshot,
        Err(error @ (LogError::Unavailable(_) | LogError::Kafka(_))) => {
            Snapshot::without_log(SystemClock.now_ms(), error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    match spool(config) {
        Ok(spool) => snapshot.spool = spool,
        Err(error) => snapshot.spool_unreadable = Some(error.to_string()),
    }
    snapshot.disk = disk(config);
    (snapshot.clickhouse, snapshot.collector) = (clickhouse, collector);
    Ok(snapshot)
}

/// Whether ClickHouse answers; `None`: where it is cannot be known here.
pub(crate) async fn clickhouse(config: &Config) -> Option<Part> {
    let target = config.target().ok()?;
    Some(match timeout(PART_PATIENCE, target.ping()).await {
        Ok(Ok(())) => Part::Up,
        Ok(Err(error)) => Part::Down { reason: error.to_string() },
        Err(_) => no_answer(),
    })
}

/// Whether the collector on this machine takes hits; `None`: there is none here, or what listens in its place is something
/// else. An embedded log has no collector elsewhere: if none is here, nobody takes hits.
async fn collector(config: &Config) -> Option<Part> {
    let mut address = config.listen.collector;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let none = |reason| (config.log.kind == LogKind::Embedded).then_some(Part::Down { reason });
    let client = reqwest::Client::builder().no_proxy().timeout(PART_PATIENCE).build().ok()?;
    let answer = match client.get(format!("http://{address}/readyz")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => return Some(no_answer()),
        Err(_) => return none(format!("nobody listens at {address}")),
    };
    match (answer.status(), answer.text().await) {
        (StatusCode::OK, Ok(text)) if text.trim() == "ready" => Some(Part::Up),
        (StatusCode::SERVICE_UNAVAILABLE, Ok(text)) => Some(Part::Down { reason: text.trim().to_owned() }),
        _ => none(format!("what listens at {address} is no collector")),
    }
}

fn no_answer() -> Part {
    Part::Down { reason: format!("no answer within {} s", PART_PATIENCE.as_secs()) }
}

/// What nobody has looked at yet, of the configured windows.
pub(crate) fn nothing_seen(config: &Config) -> Seen {
    let (window_ms, lateness_ms) = config.window_and_lateness_ms();
    Seen::new(window_ms, lateness_ms)
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So long it is looked how fast a run that is behind catches up, until that can be told. A run reports twice a second: with
/// steps of a few seconds its rates are known to a third.
const ETA_PATIENCE: Duration = Duration::from_secs(10);

/// A run that has said nothing for so long shows no pace.
const HEARD_MS: i64 = 10_000;

/// How long a part may take to answer the smallest question before it is said not to.
const PART_PATIENCE: Duration = Duration::from_secs(2);

fn look(log: &Arc<dyn Log>, seen: &mut Seen) -> Result<Snapshot, LogError> {
    let all = ControlLog::look(log.clone())?.map(|control| control.read_all()).transpose()?;
    let control_unreadable = all.as_ref().map_or(0, |all| all.unreadable);
    let control: Vec<_> = all.into_iter().flat_map(|all| all.records).map(|(_, record)| record).collect();
    let look = |seen: &mut Seen| {
        let snapshot = weir_console::observe(log.as_ref(), &control, SystemClock.now_ms(), seen)?;
        Ok(Snapshot { control_unreadable, ..snapshot })
    };
    let snapshot = look(seen)?;
    if !seen.is_kept_due(snapshot.at_ms) {
        return Ok(snapshot);
    }
    let kept = weir_console::ask_kept(log.as_ref(), &snapshot)?;
    if kept.is_empty() {
        return Ok(snapshot);
    }
    seen.keep(kept);
    look(seen)
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
