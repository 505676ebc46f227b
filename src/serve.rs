//! `weir serve` and its parts apart: collector, runs, console, each until the process is asked to stop.

use std::sync::Arc;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::info;
use weir_console::{Health, Snapshot};
use weir_ingest::Ingest;
use weir_log::{Clock, Log, SystemClock, TopicKind};
use weir_schemas::control::{CONTROL_TOPIC, EVENTS_TOPIC, SALTS_TOPIC};

use crate::{config::Config, control::Control, supervisor::Supervisor};

/// Which parts this process is. The console is always there: a part that cannot be asked is a part that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    ingest: bool,
    pipeline: bool,
}

impl Parts {
    pub(crate) const ALL: Parts = Parts { ingest: true, pipeline: true };
    pub(crate) const INGEST: Parts = Parts { ingest: true, pipeline: false };
    pub(crate) const PIPELINE: Parts = Parts { ingest: false, pipeline: true };
    pub(crate) const CONSOLE: Parts = Parts { ingest: false, pipeline: false };
}

/// Runs the parts until SIGTERM or Ctrl-C, then stops them in the order in which nothing is lost: collector (what it
/// has acknowledged is in the log), runs, ClickHouse.
pub(crate) async fn serve(config: &Config, parts: Parts) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics cannot be set up")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = open_log(config, clock.clone()).await?;
    let following = log.clone();
    let control = tokio::task::spawn_blocking(move || Control::open(following)).await??;
    let console = listen(config.listen.console, "listen.console").await?;
    let (shutdown, stopping) = watch::channel(false);

    let ingest = match parts.ingest {
        true => Some(start_ingest(config, log.clone(), &control, clock.clone(), stopping.clone()).await?),
        false => None,
    };
    let pipeline = match parts.pipeline {
        true => Some(start_pipeline(config, log.clone(), control.clone(), clock.clone(), stopping.clone()).await?),
        false => None,
    };
    let health =
        Arc::new(Process { log, control, clock, metrics, ingest: ingest.as_ref().map(|part| part.ingest.clone()) });
    info!(console = %console.local_addr()?, "console answers");
    let console = tokio::spawn(weir_console::serve(console, health, until(stopping.clone())));

    signals.asked().await;
    info!("stopping: what was accepted is finished first");
    shutdown.send_replace(true);
    if let Some(part) = ingest {
        part.served.await?.context("the collector")?;
    }
    if let Some(part) = pipeline {
        part.supervised.await?.context("the supervisor")?;
        if let Some(server) = part.server {
            server.stop().await;
        }
    }
    console.await?.context("the console")?;
    info!("stopped");
    Ok(())
}

struct IngestPart {
    ingest: Arc<Ingest>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start_ingest(
    config: &Config,
    log: Arc<dyn Log>,
    control: &Control,
    clock: Arc<dyn Clock>,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<IngestPart> {
    let listener = listen(config.listen.collector, "listen.collector").await?;
    let partitions = control.partitions_in_use(clock.clone(), stopping.clone());
    let ingest = Ingest::start(log, clock, config.ingest.clone(), partitions).await?;
    info!(collector = %listener.local_addr()?, sites = config.ingest.sites.len(), "collector answers");
    let serving = ingest.clone();
    let served = tokio::spawn(async move { Ok(weir_ingest::serve(listener, serving, until(stopping)).await?) });
    Ok(IngestPart { ingest, served })
}

struct PipelinePart {
    server: Option<weir_sink::server::Server>,
    supervised: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start_pipeline(
    config: &Config,
    log: Arc<dyn Log>,
    control: Control,
    clock: Arc<dyn Clock>,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<PipelinePart> {
    let (target, server) = clickhouse(config).await?;
    let version = config.schema_version()?;
    weir_sink::prepare(&target, &version).await?;
    weir_sink::show(&target, &version, &config.timezones()).await?;
    let supervisor = Supervisor { config: config.clone(), log, control, clock, target };
    Ok(PipelinePart { server, supervised: tokio::spawn(supervisor.run(stopping)) })
}

/// The ClickHouse that is configured, else one of our own, started here.
async fn clickhouse(config: &Config) -> anyhow::Result<(weir_sink::Target, Option<weir_sink::server::Server>)> {
    if !config.clickhouse.url.is_empty() {
        return Ok((config.target()?, None));
    }
    let server = weir_sink::server::Server::start(config.clickhouse_server()?).await?;
    let target = server.target().clone();
    info!(url = target.url, play = format!("{}/play?user=analyst", target.url), "ClickHouse answers");
    Ok((target, Some(server)))
}

/// Opens the log, and sees to it that its topics are there, as they must be.
pub(crate) async fn open_log(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Log>> {
    let (config, events) = (config.log_config(), config.events_kind());
    tokio::task::spawn_blocking(move || -> anyhow::Result<Arc<dyn Log>> {
        let log = weir_log::open(&config, clock.clone())?;
        for (topic, kind) in topics(&events) {
            log.create_topic(topic, &kind)?;
        }
        let TopicKind::Events { partitions, .. } = events else { unreachable!("live events") };
        let control = weir_log::ControlLog::open(log.clone())?;
        weir_log::ensure_partitions_in_use(&control, &who(), partitions, clock.now_ms())?;
        weir_log::add_partitions(log.as_ref(), &control, EVENTS_TOPIC, &who(), partitions, clock.now_ms())?;
        Ok(log)
    })
    .await?
}

/// The topics that weir needs from the start.
pub(crate) fn topics(events: &TopicKind) -> [(&'static str, TopicKind); 3] {
    [(EVENTS_TOPIC, events.clone()), (CONTROL_TOPIC, TopicKind::Control), (SALTS_TOPIC, TopicKind::Salts)]
}

/// `user@host` of whoever runs this process, for the control topic.
pub(crate) fn who() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

async fn listen(address: std::net::SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{key}={address} cannot be listened on (is another weir running? set {key} to a free address)")
    })
}

async fn until(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The signals that ask this process to stop, heard from [`Signals::listen`] on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves when one has come.
    async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What the console asks of this process.
struct Process {
    log: Arc<dyn Log>,
    control: Control,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
    ingest: Option<Arc<Ingest>>,
}

impl Health for Process {
    fn snapshot(&self) -> Result<Snapshot, String> {
        weir_console::observe(self.log.as_ref(), &self.control.records(), self.clock.now_ms())
            .map_err(|error| error.to_string())
    }

    fn metrics(&self) -> String {
        self.metrics.run_upkeep();
        self.metrics.render()
    }

    fn unready(&self) -> Option<String> {
        self.ingest.as_ref().filter(|ingest| !ingest.is_ready()).map(|_| "the collector takes no hits".to_owned())
    }
}
