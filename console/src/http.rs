use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use weir_schemas::{Missing, control::GAP_RUN};

use crate::{
    Desk, ImportStatus, Memory, RunStatus, Snapshot, View, badge, control, feed, metrics, page, statuspage,
    statuspage::Which,
};

/// What the console asks of the process that it is part of.
pub trait Health: Send + Sync + 'static {
    /// The state of everything; an error is one sentence for a person. Called once a second, on a thread that may block.
    fn snapshot(&self) -> Result<Snapshot, String>;

    /// Prometheus text of this process's metrics.
    fn metrics(&self) -> String;

    /// `None` when all parts of this process work, else what does not, one sentence.
    fn unready(&self) -> Option<String>;
}

/// What the page says of itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub name: String,
    /// Where people find the page; empty: nobody has said.
    pub url: String,
    /// Sites that are configured.
    pub sites: Vec<String>,
}

/// The time between two looks: nobody's question makes another one, however many watch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pages that are kept up to date at the same time, each a connection and some kilobytes; more are told to come back, and
/// are readable as they are.
const LISTENERS_MAX: usize = 1_000;

struct Console {
    health: Arc<dyn Health>,
    about: About,
    seen: watch::Receiver<Option<Seen>>,
    listeners: Arc<Semaphore>,
}

type Seen = Result<Arc<Shown>, String>;

/// What was seen at a look, and the middle of the page that shows it, made once for all that listen.
struct Shown {
    view: View,
    now: String,
}

/// Answers on `listener` until `shutdown`: the page, the status in all its shapes, `/healthz`, `/readyz`, `/metrics`, and the
/// operators' API of `desk`.
pub async fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    about: About,
    desk: Arc<Desk>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (tell, seen) = watch::channel(None);
    let looking = tokio::spawn(look(health.clone(), tell));
    let listeners = Arc::new(Semaphore::new(LISTENERS_MAX));
    let console = Arc::new(Console { health, about, seen, listeners });
    let router = router(console).merge(control::router(desk));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        // Pages that listen are let go, or they would keep the process.
        looking.abort();
    });
    served.await
}

fn router(console: Arc<Console>) -> Router {
    // It names operators: no page of another origin reads it.
    let whole = Router::new().route("/status.json", get(status)).layer(middleware::map_response(fresh));
    let public = Router::new()
        .route("/status/{site}", get(status_of_site))
        .route("/api/v2/summary.json", get(|state| shaped(state, statuspage::summary)))
        .route("/api/v2/status.json", get(|state| shaped(state, statuspage::status)))
        .route("/api/v2/components.json", get(|state| shaped(state, statuspage::components)))
        .route("/api/v2/incidents.json", get(|state| shaped(state, |v, a| statuspage::incidents(v, a, false))))
        .route(
            "/api/v2/incidents/unresolved.json",
            get(|state| shaped(state, |v, a| statuspage::incidents(v, a, true))),
        )
        .route("/api/v2/scheduled-maintenances.json", get(|state| maintenances(state, Which::All)))
        .route("/api/v2/scheduled-maintenances/upcoming.json", get(|state| maintenances(state, Which::Upcoming)))
        .route("/api/v2/scheduled-maintenances/active.json", get(|state| maintenances(state, Which::Active)))
        .route("/badge.svg", get(badge_svg))
        .route("/feed.atom", get(feed_atom))
        .layer(middleware::map_response(for_everybody));
    let pages = Router::new()
        .route("/", get(whole_page))
        .route("/page.css", get(|| async { typed("text/css; charset=utf-8", page::STYLE) }))
        .route("/page.js", get(|| async { typed("text/javascript; charset=utf-8", page::SCRIPT) }))
        .route("/events", get(events))
        .layer(middleware::from_fn(strictly));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .merge(whole)
        .merge(public)
        .merge(pages)
        .with_state(console)
}

/// Looks once a second, until it is aborted.
async fn look(health: Arc<dyn Health>, tell: watch::Sender<Option<Seen>>) {
    let mut memory = Memory::default();
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let asked = health.clone();
        let looked = tokio::task::spawn_blocking(move || asked.snapshot()).await;
        let looked = looked.unwrap_or_else(|_| Err("the log could not be looked at".to_owned()));
        tell.send_replace(Some(looked.map(|snapshot| {
            let view = memory.view(snapshot);
            // An event cannot hold a carriage return.
            let now = page::now(&view).into_string().replace('\r', " ");
            Arc::new(Shown { view, now })
        })));
    }
}

impl Console {
    /// What was seen last; at the start, when it was.
    async fn shown(&self) -> Result<Arc<Shown>, Response> {
        let mut seen = self.seen.clone();
        let seen = seen.wait_for(Option::is_some).await.map(|seen| seen.clone());
        match seen {
            Ok(Some(Ok(shown))) => Ok(shown),
            Ok(Some(Err(reason))) => Err(unavailable(format!("{reason}\n"))),
            Ok(None) | Err(_) => Err(unavailable("the console is stopping\n".to_owned())),
        }
    }
}

type Shared = State<Arc<Console>>;

async fn readyz(State(console): Shared) -> Response {
    match console.health.unready() {
        None => "ok\n".into_response(),
        Some(reason) => unavailable(format!("{reason}\n")),
    }
}

async fn prometheus(State(console): Shared) -> Response {
    let mut text = console.health.metrics();
    if let Ok(shown) = console.shown().await {
        metrics::write(&shown.view, &mut text);
    }
    typed("text/plain; version=0.0.4", text)
}

async fn status(State(console): Shared) -> Result<Response, Response> {
    Ok(Json(&console.shown().await?.view).into_response())
}

/// `/status/SITE.json`: for strangers too, so nobody is named in it. What is not known while the log is away is null.
async fn status_of_site(State(console): Shared, Path(file): Path<String>) -> Result<Response, Response> {
    let view = &console.shown().await?.view;
    let snapshot = &view.snapshot;
    let is_known = snapshot.log_away.is_none();
    let site = file.strip_suffix(".json").unwrap_or_default();
    let imports: Vec<&ImportStatus> = snapshot.imports.iter().filter(|import| import.site == site).collect();
    if imports.is_empty() && !console.about.sites.iter().any(|known| known == site) {
        return Err(match is_known {
            true => (StatusCode::NOT_FOUND, "there is no such site\n").into_response(),
            false => unavailable("the log is away: nobody can say whether there is such a site\n".to_owned()),
        });
    }
    let (live, gap) = (snapshot.live(), snapshot.runs.iter().find(|run| run.run == GAP_RUN));
    let eta = |run: Option<&RunStatus>| run.and_then(|run| run.eta);
    let backlog_records: i64 = live.into_iter().chain(gap).map(|run| run.lag_records).sum();
    let missing = view
        .missing
        .iter()
        .map(|Missing { from_ms, to_ms, reason, .. }| json!({ "from_ms": from_ms, "to_ms": to_ms, "reason": reason }));
    let conversion = snapshot.conversion.as_ref().map(|one| {
        json!({
            "generation": one.generation,
            "since_ms": one.since_ms,
            "reason": one.reason,
            "state": one.state,
            "done": one.done,
            "eta": one.eta,
            "sentence": one.sentence,
        })
    });
    let answer = json!({
        "site": site,
        "at_ms": snapshot.at_ms,
        "status": view.status,
        "sentence": view.sentence,
        "log_away": !is_known,
        "complete_through_ms": view.complete_through_ms,
        "backlog_records": is_known.then_some(backlog_records),
        "eta": eta(gap).or(eta(live)),
        "computing": is_known.then_some(&snapshot.computing),
        "missing": is_known.then(|| missing.collect::<Vec<_>>()),
        "imports": is_known.then_some(imports),
        "conversion": conversion,
    });
    Ok(Json(answer).into_response())
}

async fn shaped(State(console): Shared, shape: impl Fn(&View, &About) -> Value) -> Result<Json<Value>, Response> {
    Ok(Json(shape(&console.shown().await?.view, &console.about)))
}

async fn maintenances(state: Shared, which: Which) -> Result<Json<Value>, Response> {
    shaped(state, |view, about| statuspage::maintenances(view, about, which)).await
}

async fn badge_svg(State(console): Shared) -> Result<Response, Response> {
    Ok(typed("image/svg+xml", badge::badge(&console.shown().await?.view)))
}

async fn feed_atom(State(console): Shared) -> Result<Response, Response> {
    Ok(typed("application/atom+xml; charset=utf-8", feed::feed(&console.shown().await?.view, &console.about)))
}

async fn whole_page(State(console): Shared) -> Result<Response, Response> {
    Ok(typed("text/html; charset=utf-8", page::page(&console.shown().await?.view, &console.about)))
}

/// The middle of the page, now and whenever it changes.
async fn events(State(console): Shared) -> Response {
    let Ok(place) = console.listeners.clone().try_acquire_owned() else {
        return unavailable("too many pages listen\n".to_owned());
    };
    let listening = Listening { seen: console.seen.clone(), told: Told::Nothing, _place: place };
    Sse::new(changes(listening)).keep_alive(KeepAlive::default()).into_response()
}

struct Listening {
    seen: watch::Receiver<Option<Seen>>,
    told: Told,
    _place: OwnedSemaphorePermit,
}

/// What a page that listens has been told last.
enum Told {
    Nothing,
    Shown(Arc<Shown>),
    /// That nothing newer is known.
    Stale,
}

fn changes(listening: Listening) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(listening, |mut listening| async move {
        loop {
            let seen = listening.seen.borrow_and_update().clone();
            match (seen, &listening.told) {
                (Some(Ok(shown)), Told::Shown(told)) if told.now == shown.now => {}
                (Some(Ok(shown)), _) => {
                    let event = Event::default().data(&shown.now);
                    listening.told = Told::Shown(shown);
                    return Some((Ok(event), listening));
                }
                (Some(Err(_)), Told::Shown(_)) => {
                    listening.told = Told::Stale;
                    return Some((Ok(Event::default().event("stale").data("nothing newer is known")), listening));
                }
                (Some(Err(_)), Told::Nothing | Told::Stale) | (None, _) => {}
            }
            listening.seen.changed().await.ok()?;
        }
    })
}

/// Anybody may read it, from any page.
async fn for_everybody(response: Response) -> Response {
    let mut response = fresh(response).await;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Nobody keeps it.
async fn fresh(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Nothing runs or is shown that this console has not sent itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn strictly(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn typed(content_type: &'static str, body: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn unavailable(reason: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], reason).into_response()
}
