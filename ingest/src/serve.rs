use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use weir_log::{Clock, Log, LogError};

use crate::{
    Collector, ConfigError, Countries, CountriesError, IngestConfig, Limits, SaltBook, Sites, Spool, SpoolUsage,
    body::Bodies,
    routes::{self, Peer},
    telemetry,
};

/// Bytes of a request's head; more are refused with 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// After the stop: how long a connection without a request has to send the head of one.
const HEAD_GRACE: Duration = Duration::from_millis(200);

/// How often salts are tended, idle limits forgotten and gauges set.
const TEND_EVERY: Duration = Duration::from_secs(10);

/// A collector with all it knows; [`serve`] puts it on a socket.
pub struct Ingest {
    pub(crate) config: IngestConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sites: Sites,
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) countries: Countries,
    pub(crate) salts: SaltBook,
    pub(crate) limits: Limits,
    pub(crate) bodies: Bodies,
    pub(crate) collector: Collector,
    ready: AtomicBool,
}

/// Why a collector does not start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Countries(#[from] CountriesError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Ingest {
    /// Opens what `config` names and agrees on today's salt. `partitions` says how many partitions of the topic of
    /// events are in use, which must exist.
    pub async fn start(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: IngestConfig,
        partitions: watch::Receiver<u32>,
    ) -> Result<Arc<Self>, IngestError> {
        Self::start_with(log, clock, config, partitions, None).await
    }

    /// The same with a spool: while the log is away events are taken all the same, from the start on.
    pub async fn start_spooling(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: IngestConfig,
        partitions: watch::Receiver<u32>,
        spool: Spool,
    ) -> Result<Arc<Self>, IngestError> {
        Self::start_with(log, clock, config, partitions, Some(spool)).await
    }

    async fn start_with(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: IngestConfig,
        partitions: watch::Receiver<u32>,
        spool: Option<Spool>,
    ) -> Result<Arc<Self>, IngestError> {
        config.validate()?;
        let countries = match &config.mmdb {
            Some(path) => Countries::open(path)?,
            None => Countries::none(),
        };
        let (collecting, ticking) = (config.collector.clone(), Arc::clone(&clock));
        let (salts, collector) = match spool {
            None => {
                let salts = SaltBook::open(Arc::clone(&log), Arc::clone(&clock)).await?;
                (salts, Collector::start(log, ticking, collecting, partitions))
            }
            Some(spool) => {
                let salts = SaltBook::open_remembering(Arc::clone(&log), Arc::clone(&clock), spool.clone()).await;
                (salts, Collector::start_spooling(log, ticking, collecting, partitions, spool))
            }
        };
        let limits = &config.limits;
        Ok(Arc::new(Self {
            sites: Sites::new(&config),
            proxies: config.proxies()?,
            countries,
            salts,
            limits: Limits::new(limits),
            bodies: Bodies::new(limits.body_bytes_max, limits.bodies_bytes_max, config.http.body_timeout),
            collector,
            ready: AtomicBool::new(true),
            clock,
            config,
        }))
    }

    /// The way into the log for events that do not come by HTTP.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Agrees with all collectors on the salts of today and, an hour ahead, of tomorrow. [`serve`] does so by itself.
    pub async fn tend_salts(&self) -> Result<(), LogError> {
        self.salts.tend().await
    }

    /// How full the spool is; `None` if there is none.
    pub fn spool(&self) -> Option<Result<SpoolUsage, LogError>> {
        self.collector.spool().map(Spool::usage)
    }

    /// Whether new requests should come here.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Serves until `shutdown` resolves, then stops without losing what was acknowledged: says "not ready" while it still
/// takes requests, accepts no further connection, ends the requests that were begun, and drains the collector.
pub async fn serve(listener: TcpListener, ingest: Arc<Ingest>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let http = ingest.config.http.clone();
    let router = routes::router(Arc::clone(&ingest));
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_timeout)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let connections = Arc::new(Semaphore::new(http.connections_max));
    let (stop, stopped) = watch::channel(false);
    let mut tend = interval(TEND_EVERY);
    tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = pin!(async {
        shutdown.await;
        ingest.ready.store(false, Ordering::Relaxed);
        sleep(http.not_ready_for).await;
    });
    loop {
        tokio::select! {
            () = &mut stopping => break,
            _ = tend.tick() => tend_once(&ingest, http.connections_max - connections.available_permits()),
            (stream, peer, permit) = accept(&listener, &connections) => {
                // Answers are small and waited for.
                let _ = stream.set_nodelay(true);
                let (server, router, stopped) = (server.clone(), router.clone(), stopped.clone());
                tokio::spawn(async move {
                    converse(server, router, stream, peer.ip(), stopped).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = u32::try_from(http.connections_max).unwrap_or(u32::MAX);
    if timeout(http.finish_timeout, connections.acquire_many(all)).await.is_err() {
        telemetry::CutOff { connections: http.connections_max - connections.available_permits() }.emit();
    }
    ingest.collector.drain().await;
    Ok(())
}

/// Answers the requests of one connection until it ends, or until its last one after the stop. A client that hangs up
/// or sends no HTTP is its own affair.
async fn converse(
    server: http1::Builder,
    router: Router,
    stream: TcpStream,
    peer: IpAddr,
    mut stopped: watch::Receiver<bool>,
) {
    let answering = Arc::new(AtomicUsize::new(0));
    let service = service_fn(|request| answer(router.clone(), peer, request, Arc::clone(&answering)));
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    // Browsers open connections ahead of use: one without a request is not waited for.
    while timeout(HEAD_GRACE, connection.as_mut()).await.is_err() && answering.load(Ordering::Relaxed) > 0 {}
}

/// The next connection, when there is room for one.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = Arc::clone(connections).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) => {
                telemetry::AcceptFailed { error: &error }.emit();
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn answer(
    mut router: Router,
    peer: IpAddr,
    request: Request<Incoming>,
    answering: Arc<AtomicUsize>,
) -> Result<axum::response::Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    answering.fetch_add(1, Ordering::Relaxed);
    let response = routes::answer(&mut router, request).await;
    answering.fetch_sub(1, Ordering::Relaxed);
    Ok(response)
}

/// Never waits for the log: the next day's salt is agreed on beside the requests.
fn tend_once(ingest: &Arc<Ingest>, connections: usize) {
    ingest.limits.forget_idle();
    let body_bytes = ingest.bodies.held_bytes();
    let bytes_in_flight = ingest.collector.bytes_in_flight();
    let limited_keys = ingest.limits.keys();
    telemetry::Load { connections, body_bytes, bytes_in_flight, limited_keys }.emit();
    if let Some(spool) = ingest.collector.spool() {
        spool.measure();
        spool.memory().remember_partitions(ingest.collector.partitions());
    }
    let ingest = Arc::clone(ingest);
    tokio::spawn(async move {
        if let Err(error) = ingest.tend_salts().await {
            telemetry::SaltsUntended { error: &error }.emit();
        }
    });
}
