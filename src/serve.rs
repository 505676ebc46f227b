//! `weir serve` and its parts apart: collector, runs, console, each until the process is asked to stop.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::Duration,
};

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};
use weir_console::{About, Desk, Health, Part, Seen, Snapshot};
use weir_ingest::{Ingest, Spool};
use weir_log::{Clock, Log, LogError, SystemClock, TopicKind};
use weir_schemas::control::{CONTROL_TOPIC, EVENTS_TOPIC, SALTS_TOPIC};

use crate::{config::Config, control::Control, exposition::OfRuns, runs::Runs, status, token};

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

/// How long a start waits for the log before what can do without it begins: the console, and a collector that remembers what
/// it needs.
const REACH_PATIENCE: Duration = Duration::from_secs(2);

/// How often a log that is away at the start is asked again; each question takes seconds by itself.
const REACH_EVERY: Duration = Duration::from_secs(1);

/// How long a look at the log may take before a snapshot is made without it.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the parts until SIGTERM or Ctrl-C, then stops them in the order in which nothing is lost: collector (what it
/// has acknowledged is in the log or the spool), runs, ClickHouse.
///
/// Although the log is away at the start the console answers, and a collector whose spool knows what it needs takes events;
/// the rest begins when the log is there. A collector that knows nothing does not start without it.
pub(crate) async fn serve(config: &Config, parts: Parts) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    if parts.pipeline && config.clickhouse.url.is_empty() {
        // What only a person can mend is better said before anybody relies on us.
        config.clickhouse_server()?.check()?;
    }
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics cannot be set up")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (opened, ticking) = (config.log_config(), clock.clone());
    let log = tokio::task::spawn_blocking(move || weir_log::open(&opened, ticking)).await??;
    let console = listen(config.listen.console, "listen.console").await?;
    let (shutdown, stopping) = watch::channel(false);

    let spool = if parts.ingest { open_spool(config, clock.clone())? } else { None };
    let remembered = spool.as_ref().and_then(Spool::partitions);
    let patient = !parts.ingest || remembered.is_some();
    let mut reaching = reach(config, log.clone(), clock.clone(), patient);
    let mut reached = match patient {
        true => match timeout(REACH_PATIENCE, &mut reaching).await {
            Ok(control) => Some(control??),
            Err(_) => {
                match &spool {
                    Some(spool) => {
                        warn!("the log is away: the collector takes events into its spool until it is there");
                        spool.hold();
                    }
                    None => warn!("the log is away: the console alone answers until it is there"),
                }
                None
            }
        },
        false => Some((&mut reaching).await??),
    };

    let ingest = match parts.ingest {
        true => {
            let (known, partitions) = watch::channel(remembered.unwrap_or(1));
            let partitions = match &reached {
                Some(control) => control.partitions_in_use(clock.clone(), stopping.clone()),
                None => partitions,
            };
            let part = start_ingest(config, log.clone(), partitions, clock.clone(), stopping.clone(), spool.clone());
            Some((part.await?, known))
        }
        false => None,
    };
    let control = Arc::new(OnceLock::new());
    // Before the console's first look, which would say that the log does not answer.
    if let Some(known) = &reached {
        control.get_or_init(|| known.clone());
    }
    let (of_runs, seen) = (OfRuns::default(), Arc::new(Mutex::new(status::nothing_seen(config))));
    let health = Arc::new(Process {
        looking: Mutex::default(),
        log: log.clone(),
        control: control.clone(),
        clock: clock.clone(),
        metrics,
        of_runs: of_runs.clone(),
        seen: seen.clone(),
        ingest: ingest.as_ref().map(|(part, _)| part.ingest.clone()),
        config: config.clone(),
    });
    info!(console = %console.local_addr()?, "console answers");
    let desk = Arc::new(desk(config, parts, log.clone(), clock.clone())?);
    let console = tokio::spawn(weir_console::serve(console, health, about(config), desk, until(stopping.clone())));

    if reached.is_none() {
        reached = tokio::select! {
            late = &mut reaching => Some(late??),
            () = signals.asked() => None,
        };
        if let (Some(control), Some((_, known))) = (&reached, &ingest) {
            let in_use = control.partitions_in_use(clock.clone(), stopping.clone());
            forward(in_use, known.clone());
        }
        if let (Some(_), Some(spool)) = (&reached, &spool) {
            spool.reached();
        }
    }
    let mut pipeline = None;
    if let Some(known) = reached {
        control.get_or_init(|| known.clone());
        if parts.pipeline {
            let runs = Runs { config: config.clone(), log, control: known, clock, metrics: of_runs, seen };
            pipeline = Some(tokio::spawn(runs.keep_up(stopping.clone())));
        }
        signals.asked().await;
    }
    reaching.abort();
    info!("stopping: what was accepted is finished first");
    shutdown.send_replace(true);
    if let Some((part, _)) = ingest {
        part.served.await?.context("the collector")?;
    }
    if let Some(part) = pipeline {
        part.await?;
    }
    console.await?.context("the console")?;
    info!("stopped");
    Ok(())
}

/// Where operators' commands are taken: with the tokens of the configuration, and that of this machine.
fn desk(config: &Config, parts: Parts, log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> anyhow::Result<Desk> {
    let mut tokens = config.console.tokens.clone();
    // A collector alone stands where anybody may reach it: it makes none.
    if parts != Parts::INGEST {
        match token::local_made(config) {
            Ok(local) => tokens.push(local),
            Err(error) => {
                warn!(error = format!("{error:#}"), "commands on this machine need a token of console.tokens")
            }
        }
    }
    Ok(Desk::new(tokens, log, clock, config.schema_version()?))
}

struct IngestPart {
    ingest: Arc<Ingest>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start_ingest(
    config: &Config,
    log: Arc<dyn Log>,
    partitions: watch::Receiver<u32>,
    clock: Arc<dyn Clock>,
    stopping: watch::Receiver<bool>,
    spool: Option<Spool>,
) -> anyhow::Result<IngestPart> {
    let listener = listen(config.listen.collector, "listen.collector").await?;
    let ingest = match spool {
        Some(spool) => Ingest::start_spooling(log, clock, config.ingest.clone(), partitions, spool).await?,
        None => Ingest::start(log, clock, config.ingest.clone(), partitions).await?,
    };
    info!(collector = %listener.local_addr()?, sites = config.ingest.sites.len(), "collector answers");
    let serving = ingest.clone();
    let served = tokio::spawn(async move { Ok(weir_ingest::serve(listener, serving, until(stopping)).await?) });
    Ok(IngestPart { ingest, served })
}

/// The collector's spool, if there is to be one. One that was left behind holds acknowledged events: that is said.
fn open_spool(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Option<Spool>> {
    if let Some(dir) = config.spool_dir() {
        return Ok(Some(Spool::open(dir, clock, config.ingest.spool.clone())?));
    }
    let dir = config.data_dir.join("spool");
    if let Some(left) = Spool::look(&dir, clock, 0)?.filter(|left| left.batches > 0) {
        warn!(
            path = %dir.display(), batches = left.batches, bytes = left.bytes,
            "there is no spool by configuration, and an earlier one holds events that are not in its log (start weir once with log.kind=kafka and a spool)"
        );
    }
    Ok(None)
}

/// Sees to the topics and reads the control topic; with `patient`, for as long as it takes.
fn reach(
    config: &Config,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    patient: bool,
) -> JoinHandle<anyhow::Result<Control>> {
    let events = config.events_kind();
    tokio::spawn(async move {
        loop {
            let (log, clock, events) = (log.clone(), clock.clone(), events.clone());
            let prepared = tokio::task::spawn_blocking(move || {
                prepare(&log, clock.as_ref(), &events)?;
                Control::open(log)
            });
            match prepared.await? {
                Err(error) if patient && is_away(&error) => sleep(REACH_EVERY).await,
                done => return done,
            }
        }
    })
}

fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<LogError>(),
        Some(LogError::Unavailable(_) | LogError::Kafka(_) | LogError::Unclear { .. })
    )
}

fn forward(mut from: watch::Receiver<u32>, to: watch::Sender<u32>) {
    tokio::spawn(async move {
        loop {
            to.send_replace(*from.borrow_and_update());
            if from.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Opens the log, and sees to it that its topics are there, as they must be.
pub(crate) async fn open_log(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Log>> {
    let (config, events) = (config.log_config(), config.events_kind());
    tokio::task::spawn_blocking(move || {
        let log = weir_log::open(&config, clock.clone())?;
        prepare(&log, clock.as_ref(), &events)?;
        Ok(log)
    })
    .await?
}

/// Sees to it that the topics are there, as they must be. Blocks the thread.
fn prepare(log: &Arc<dyn Log>, clock: &dyn Clock, events: &TopicKind) -> anyhow::Result<()> {
    for (topic, kind) in topics(events) {
        log.create_topic(topic, &kind)?;
    }
    let TopicKind::Events { partitions, .. } = events else { unreachable!("live events") };
    let control = weir_log::ControlLog::open(log.clone())?;
    weir_log::ensure_partitions_in_use(&control, &who(), *partitions, clock.now_ms())?;
    weir_log::ensure_topic_is(log.as_ref(), &control, EVENTS_TOPIC, &who(), clock.now_ms())?;
    weir_log::add_partitions(log.as_ref(), &control, EVENTS_TOPIC, &who(), *partitions, clock.now_ms())?;
    Ok(())
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
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What the page says of itself.
fn about(config: &Config) -> About {
    let sites = config.ingest.sites.iter().map(|site| site.name.clone()).collect();
    About { name: config.console.name.clone(), url: config.console.url.clone(), sites }
}

/// What the console asks of this process.
struct Process {
    looking: Mutex<Option<mpsc::Receiver<Result<Snapshot, String>>>>,
    log: Arc<dyn Log>,
    /// Not there until the log was reached.
    control: Arc<OnceLock<Control>>,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
    of_runs: OfRuns,
    seen: Arc<Mutex<Seen>>,
    ingest: Option<Arc<Ingest>>,
    config: Config,
}

impl Process {
    /// Looks at the log, for a moment: one that is away takes its time to say so, which would keep from scrapes what is
    /// known without it. One look at a time; one that is still under way is waited for again.
    fn look(&self) -> Result<Snapshot, String> {
        let control = self.control.get().ok_or("it was not reached since the start")?;
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = looking.take().filter(|look| matches!(look.try_recv(), Err(mpsc::TryRecvError::Empty)));
        let look = under_way.unwrap_or_else(|| {
            let (answer, look) = mpsc::channel();
            let (log, records, clock) = (self.log.clone(), control.records(), self.clock.clone());
            let seen = self.seen.clone();
            std::thread::spawn(move || {
                let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner);
                let looked = weir_console::observe(log.as_ref(), &records, clock.now_ms(), &mut seen());
                let due = looked.as_ref().ok().filter(|snapshot| seen().is_kept_due(snapshot.at_ms)).cloned();
                // Who asked may have gone.
                let _ = answer.send(looked.map_err(|error| error.to_string()));
                // That takes longer than one waits for a look.
                if let Some(kept) = due.and_then(|snapshot| weir_console::ask_kept(log.as_ref(), &snapshot).ok()) {
                    seen().keep(kept);
                }
            });
            look
        });
        match look.recv_timeout(LOOK_PATIENCE) {
            Ok(looked) => looked,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                *looking = Some(look);
                Err(format!("no answer within {} s", LOOK_PATIENCE.as_secs()))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err("the look at it failed".to_owned()),
        }
    }
}

impl Health for Process {
    fn snapshot(&self) -> Result<Snapshot, String> {
        let now_ms = self.clock.now_ms();
        let mut snapshot = self.look().unwrap_or_else(|reason| {
            let known = self.control.get().map(Control::records).unwrap_or_default();
            Snapshot::without_log(now_ms, reason).remembering(&known)
        });
        snapshot.control_unreadable = self.control.get().map_or(0, Control::unreadable);
        let spool = match self.ingest.as_ref().and_then(|ingest| ingest.spool()) {
            Some(usage) => usage.map(|usage| Some(status::spool_status(&usage, now_ms))),
            None => status::spool(&self.config),
        };
        match spool {
            Ok(spool) => snapshot.spool = spool,
            Err(error) => snapshot.spool_unreadable = Some(error.to_string()),
        }
        snapshot.disk = status::disk(&self.config);
        snapshot.collector =
            self.ingest.as_ref().map(|ingest| match self.unready().or_else(|| ingest.collector().failing()) {
                None => Part::Up,
                Some(reason) => Part::Down { reason },
            });
        snapshot.clickhouse = tokio::runtime::Handle::current().block_on(status::clickhouse(&self.config));
        Ok(snapshot)
    }

    fn metrics(&self) -> String {
        self.metrics.run_upkeep();
        self.of_runs.with(&self.metrics.render())
    }

    fn unready(&self) -> Option<String> {
        self.ingest.as_ref().filter(|ingest| !ingest.is_ready()).map(|_| "the collector takes no hits".to_owned())
    }
}
