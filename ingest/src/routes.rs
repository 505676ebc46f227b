use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio::time::Instant;
use tower::Service;
use weir_schemas::Event;

use crate::{
    AppendError, Hit, Ingest, Reason, Reject,
    body::BodyError,
    check::{Asker, Checker},
    client,
    hit::{Text, Time},
    json, plausible,
    sites::Token,
    telemetry,
};

/// Address of the other end of the connection: put into each request by the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

const REJECTED: HeaderName = HeaderName::from_static("x-weir-rejected");
const PLAUSIBLE_DROPPED: HeaderName = HeaderName::from_static("x-plausible-dropped");

/// The smallest GIF: one pixel, transparent.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;";

/// Our own tracker.
pub(crate) const SCRIPT: &str = include_str!("weir.js");

/// All interfaces of the collector.
pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    Router::new()
        .route("/v1/events", post(events).options(preflight))
        .route("/api/event", post(plausible_event).options(preflight))
        .route("/pixel.gif", get(pixel).options(preflight))
        .route("/weir.js", get(script).options(preflight))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async {
            Failure::new(StatusCode::NOT_FOUND, "not_found", "see docs/api-collect.md for what is here").response()
        })
        .with_state(ingest)
}

/// Every answer may be read by pages of any origin, without credentials; its time is taken.
///
/// A call and no layer of the router: a layer is two allocations a request.
pub(crate) async fn answer(router: &mut Router, request: Request) -> Response {
    let begun = Instant::now();
    let route = match request.uri().path() {
        "/v1/events" => "events",
        "/api/event" => "plausible",
        "/pixel.gif" => "pixel",
        "/weir.js" => "script",
        _ => "other",
    };
    let Ok(mut response) = router.call(request).await;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after, x-weir-rejected"));
    telemetry::RequestAnswered { route, status: response.status().as_u16(), seconds: begun.elapsed() }.emit();
    response
}

/// Browsers may remember the answer for a day (they make it two hours at most).
async fn preflight() -> impl IntoResponse {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, content-encoding"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers)
}

async fn ready(State(ingest): State<Arc<Ingest>>) -> (StatusCode, &'static str) {
    if ingest.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "stopping\n") }
}

async fn script() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    (headers, SCRIPT)
}

/// `POST /v1/events`.
async fn events(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    take_events(&ingest, request).await.unwrap_or_else(|failure| failure.response())
}

async fn take_events(ingest: &Ingest, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>();
    let asker = ask(ingest, peer, &parts.headers).await?;
    let read = ingest.bodies.read(&parts.headers, body).await?;
    let says_lines = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/x-ndjson") || value.starts_with(b"application/jsonl")
    });
    let events_max = ingest.config.limits.events_per_request_max;
    let form = json::form(&read.bytes, says_lines);
    let hits = json::split(&read.bytes, form, events_max).map_err(|json::TooMany| {
        let what = format!("the body has over {events_max} events (send fewer at once)");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", what)
    })?;
    let sent = hits.len();
    let mut checker = Checker::new(&ingest.sites, &ingest.countries, asker);
    let mut batch = Batch::with_capacity(sent);
    for text in hits {
        batch.items.push(json::hit(text).and_then(|hit| checker.check(hit)));
    }
    drop(read);
    let retry_after = limit(ingest, &checker.asker, &mut batch);
    let answer = batch.append(ingest, "events").await?;
    Ok(answer.response(sent, retry_after))
}

/// `POST /api/event`: as Plausible answers.
async fn plausible_event(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    match take_plausible(&ingest, request).await {
        Ok(None) => (StatusCode::ACCEPTED, "ok").into_response(),
        Ok(Some((reject, retry_after))) => match reject.reason {
            Reason::RateLimited => Failure::limited(retry_after).response(),
            Reason::Malformed => Failure::new(StatusCode::BAD_REQUEST, "malformed", reject.detail).response(),
            reason => {
                let headers = [(PLAUSIBLE_DROPPED, "1"), (REJECTED, reason.as_str())];
                (StatusCode::ACCEPTED, headers, "ok").into_response()
            }
        },
        Err(failure) => failure.response(),
    }
}

async fn take_plausible(ingest: &Ingest, request: Request) -> Result<Option<(Reject, Duration)>, Failure> {
    let (parts, body) = request.into_parts();
    let asker = ask(ingest, parts.extensions.get::<Peer>(), &parts.headers).await?;
    let read = ingest.bodies.read(&parts.headers, body).await?;
    let hit = match plausible::hit(&read.bytes) {
        Ok(Some(hit)) => Ok(hit),
        Ok(None) => return Ok(None),
        Err(reject) => Err(reject),
    };
    take_one(ingest, asker, hit, "plausible").await
}

/// `GET /pixel.gif`: the image, whatever happened.
async fn pixel(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let rejected = match take_pixel(&ingest, &parts).await {
        Ok(None) => None,
        Ok(Some((reject, _))) => Some(reject.reason.as_str()),
        Err(failure) => Some(failure.error),
    };
    let headers = [
        (header::CONTENT_TYPE, "image/gif"),
        (header::CACHE_CONTROL, "no-store, no-cache, must-revalidate, private"),
        (header::PRAGMA, "no-cache"),
        (header::EXPIRES, "0"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    let mut response = (headers, PIXEL).into_response();
    if let Some(reason) = rejected {
        response.headers_mut().insert(REJECTED, HeaderValue::from_static(reason));
    }
    response
}

async fn take_pixel(ingest: &Ingest, request: &Parts) -> Result<Option<(Reject, Duration)>, Failure> {
    // HEAD asks what a GET would answer; it shows no page to anybody.
    if request.method == Method::HEAD {
        return Ok(None);
    }
    let headers = &request.headers;
    let asker = ask(ingest, request.extensions.get::<Peer>(), headers).await?;
    let mut hit = Hit::default();
    for (name, value) in url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()) {
        let value = Text(value);
        match &*name {
            "site" => hit.site = value,
            "url" => hit.url = value,
            "referrer" => hit.referrer = value,
            "kind" => hit.kind = value,
            "name" => hit.name = value,
            "target" => hit.target = value,
            "title" => hit.title = value,
            "id" => hit.id = value,
            "screen" => hit.screen = value,
            "language" => hit.language = value,
            "time" => hit.time = value.parse().map_or(Time::Text(value), Time::Ms),
            _ => {}
        }
    }
    if hit.url.is_empty() {
        let page = headers.get(header::REFERER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        hit.url = page.into();
    }
    take_one(ingest, asker, Ok(hit), "pixel").await
}

/// One hit that is a request of its own: why it was rejected, and when it may come again, or nothing.
async fn take_one(
    ingest: &Ingest,
    asker: Asker<'_>,
    hit: Result<Hit<'_>, Reject>,
    route: &'static str,
) -> Result<Option<(Reject, Duration)>, Failure> {
    let mut checker = Checker::new(&ingest.sites, &ingest.countries, asker);
    let mut batch = Batch::with_capacity(1);
    batch.items.push(hit.and_then(|hit| checker.check(hit)));
    let retry_after = limit(ingest, &checker.asker, &mut batch);
    let mut answer = batch.append(ingest, route).await?;
    Ok(answer.rejected.pop().map(|(_, reject)| (reject, retry_after.unwrap_or_default())))
}

/// Who asks. Takes one event of the address's allowance, so that requests that hold nothing are limited too, and who
/// guesses at tokens.
async fn ask<'a>(ingest: &Ingest, peer: Option<&Peer>, headers: &'a HeaderMap) -> Result<Asker<'a>, Failure> {
    let said = client::bearer(headers);
    let token = said.map_or_else(|| Some(Token::default()), |said| ingest.sites.token(said));
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0);
    let address = client::address(peer, headers, &ingest.proxies);
    if !token.as_ref().is_some_and(Token::is_some)
        && let Some(wait) = ingest.limits.admit_address(address, 1).retry_after
    {
        telemetry::EventRejected { route: "any", reason: Reason::RateLimited }.emit();
        return Err(Failure::limited(wait));
    }
    let token = token.ok_or_else(|| {
        let what = "the write token is no site's (see write_token_sha256 in the configuration)";
        Failure::new(StatusCode::UNAUTHORIZED, "wrong_token", what)
    })?;
    let received_ms = ingest.clock.now_ms();
    let salt = ingest.salts.at(received_ms).await.map_err(|error| {
        tracing::error!(%error, "no salt for today: nothing can be taken");
        Failure::unavailable("the salt of the day cannot be had from the log (send again later)")
    })?;
    let (user_agent, language) = (client::user_agent(headers), client::language(headers));
    Ok(Asker { received_ms, salt, address, user_agent, language, token })
}

/// Takes what was sent from the allowances of address and sites; events over it are rejected. Gives the longest wait.
///
/// The address pays for all but the events of its token's sites, for those that were rejected too: to find out that an
/// event is bad costs as much as a good one.
fn limit(ingest: &Ingest, asker: &Asker<'_>, batch: &mut Batch) -> Option<Duration> {
    let of_token = |item: &Result<Event, Reject>| item.as_ref().is_ok_and(|event| asker.token.is_of(&event.site));
    let counted = batch.items.iter().filter(|item| !of_token(item)).count();
    // Without a token the first was counted when the request began.
    let before = usize::from(!asker.token.is_some());
    let admitted = ingest.limits.admit_address(asker.address, counted.saturating_sub(before));
    let mut wait = admitted.retry_after;
    if wait.is_some() {
        let over = batch.items.iter_mut().filter(|item| !of_token(item)).skip(before + admitted.events);
        over.filter(|item| item.is_ok()).for_each(|item| *item = over_rate("this address sends too many events"));
    }

    let mut sites: HashMap<&str, usize> = HashMap::new();
    for event in batch.items.iter().flatten() {
        *sites.entry(&event.site).or_default() += 1;
    }
    let mut full = false;
    for (site, left) in &mut sites {
        let admitted = ingest.limits.admit_site(site, *left);
        wait = wait.max(admitted.retry_after);
        full |= admitted.retry_after.is_some();
        *left = admitted.events;
    }
    if full {
        let mut over = Vec::new();
        for (index, item) in batch.items.iter().enumerate() {
            if let Ok(event) = item {
                let left = sites.get_mut(&*event.site).expect("every site was counted");
                match left.checked_sub(1) {
                    Some(less) => *left = less,
                    None => over.push(index),
                }
            }
        }
        over.into_iter().for_each(|index| batch.items[index] = over_rate("this site gets too many events"));
    }
    wait
}

fn over_rate(detail: &str) -> Result<Event, Reject> {
    Err(Reject::new(Reason::RateLimited, detail))
}

/// What one request holds, on its way: its events, or why they are none, as they stand in it.
struct Batch {
    items: Vec<Result<Event, Reject>>,
}

/// What became of them.
struct Answer {
    accepted: usize,
    /// With their places in the request, ascending.
    rejected: Vec<(usize, Reject)>,
}

impl Batch {
    fn with_capacity(events: usize) -> Self {
        Self { items: Vec::with_capacity(events) }
    }

    /// Resolves after the events are durable.
    async fn append(self, ingest: &Ingest, route: &'static str) -> Result<Answer, Failure> {
        let mut events = Vec::with_capacity(self.items.len());
        let mut rejected = Vec::new();
        for (index, item) in self.items.into_iter().enumerate() {
            match item {
                Ok(event) => events.push(event),
                Err(reject) => {
                    telemetry::EventRejected { route, reason: reject.reason }.emit();
                    rejected.push((index, reject));
                }
            }
        }
        let accepted = events.len();
        if accepted > 0 {
            ingest.collector.append(events).await.map_err(Failure::from)?;
            telemetry::EventsAccepted { route, events: accepted }.emit();
        }
        Ok(Answer { accepted, rejected })
    }
}

impl Answer {
    /// 202 if anything was taken; else 429 if all was over a rate, else 400.
    fn response(self, sent: usize, retry_after: Option<Duration>) -> Response {
        #[derive(Serialize)]
        struct Shown<'a> {
            accepted: usize,
            rejected: Vec<Entry<'a>>,
        }
        #[derive(Serialize)]
        struct Entry<'a> {
            index: usize,
            reason: Reason,
            detail: &'a str,
        }
        let all_limited = self.rejected.iter().all(|(_, reject)| reject.reason == Reason::RateLimited);
        let status = match self.accepted {
            0 if sent == 0 => StatusCode::ACCEPTED,
            0 if all_limited => StatusCode::TOO_MANY_REQUESTS,
            0 => StatusCode::BAD_REQUEST,
            _ => StatusCode::ACCEPTED,
        };
        let rejected = self.rejected.iter();
        let rejected =
            rejected.map(|(index, reject)| Entry { index: *index, reason: reject.reason, detail: &reject.detail });
        let shown = Shown { accepted: self.accepted, rejected: rejected.collect() };
        let mut response = json_response(status, &shown);
        if let Some(wait) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
        }
        response
    }
}

/// A request as a whole was not taken.
struct Failure {
    status: StatusCode,
    error: &'static str,
    detail: String,
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self { status, error, detail: detail.into(), retry_after: None }
    }

    fn limited(wait: Duration) -> Self {
        let what = "too many events from this address or for this site (send again after Retry-After)";
        let limited = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", what);
        Self { retry_after: Some(wait), ..limited }
    }

    fn unavailable(detail: impl Into<String>) -> Self {
        let unavailable = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        Self { retry_after: Some(Duration::from_secs(2)), ..unavailable }
    }

    fn response(self) -> Response {
        let shown = serde_json::json!({ "error": self.error, "detail": self.detail });
        let mut response = json_response(self.status, &shown);
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
        }
        response
    }
}

impl From<AppendError> for Failure {
    /// When to come again: a log that is slow is so for seconds, one that has been away until the spool was full for
    /// longer. One that refuses does so until somebody mends it, and to come again is of no use.
    fn from(error: AppendError) -> Self {
        let detail = error.to_string();
        let wait_s = match error {
            AppendError::Refused(_) => {
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "log_refused", detail);
            }
            AppendError::Full(_) => 30,
            AppendError::Busy { .. } | AppendError::TimedOut(_) | AppendError::Stopping => 2,
        };
        Self { retry_after: Some(Duration::from_secs(wait_s)), ..Self::unavailable(detail) }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let (status, name) = match error {
            BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            BodyError::UnknownEncoding(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_encoding"),
            BodyError::Broken(_) | BodyError::HungUp => (StatusCode::BAD_REQUEST, "broken_body"),
            BodyError::TimedOut(_) => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            BodyError::Busy => return Self::unavailable(error.to_string()),
        };
        Self::new(status, name, error.to_string())
    }
}

fn json_response(status: StatusCode, shown: &impl Serialize) -> Response {
    let json = serde_json::to_vec(shown).expect("answers are JSON");
    (status, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero()))
}
