use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tower::Service;
use weir_log::{Clock, Log, LogError};

use crate::{
    Collector, ConfigError, Countries, CountriesError, IngestConfig, Limits, SaltBook, Sites,
    body::Bodies,
    routes::{self, Peer},
    telemetry,
};

/// Bytes of a request's head; more are refused with 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

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
        config.validate()?;
        let countries = match &config.mmdb {
            Some(path) => Countries::open(path)?,
            None => Countries::none(),
        };
        let salts = SaltBook::open(Arc::clone(&log), Arc::clone(&clock)).await?;
        let collector = Collector::start(log, Arc::clone(&clock), config.collector.clone(), partitions);
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
    server.timer(TokioTimer::new()).header_read_timeout(http.header_timeout).max_buf_size(HEAD_BYTES_MAX);
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(http.connections_max));
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
            _ = tend.tick() => tend_once(&ingest, http.connections_max - connections.available_permits()).await,
            (stream, peer, permit) = accept(&listener, &connections) => {
                // Answers are small and waited for.
                let _ = stream.set_nodelay(true);
                let router = router.clone();
                let service = service_fn(move |request| answer(router.clone(), peer.ip(), request));
                let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service));
                tokio::spawn(async move {
                    // A client that hangs up or sends no HTTP is its own affair.
                    let _ = connection.await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    if timeout(http.finish_timeout, graceful.shutdown()).await.is_err() {
        let connections = http.connections_max - connections.available_permits();
        telemetry::CutOff { connections }.emit();
    }
    ingest.collector.drain().await;
    Ok(())
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
) -> Result<axum::response::Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    router.call(request).await
}

/// Never waits for the log: the next day's salt is agreed on beside the requests.
async fn tend_once(ingest: &Arc<Ingest>, connections: usize) {
    ingest.limits.forget_idle();
    let body_bytes = ingest.bodies.held_bytes();
    let bytes_in_flight = ingest.collector.bytes_in_flight();
    let limited_keys = ingest.limits.len();
    telemetry::Load { connections, body_bytes, bytes_in_flight, limited_keys }.emit();
    let ingest = Arc::clone(ingest);
    tokio::spawn(async move {
        if let Err(error) = ingest.salts.tend().await {
            telemetry::SaltsUntended { error: &error }.emit();
        }
    });
}
