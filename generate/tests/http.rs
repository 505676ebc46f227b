//! The generator against a collector that misbehaves: what it says was accepted is what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir_generate::{Spec, Summary, over_http};
use weir_schemas::rules::Rules;

fn spec(events: u64) -> Spec {
    Spec { rate: 20_000.0, duration: Duration::from_micros(events * 50), sites: 5, seed: 1, bots: 0.2, late: 0.1 }
}

/// Events by their ids, as they lie in the collector's log.
#[derive(Default)]
struct Store {
    events: BTreeMap<String, Value>,
    requests: usize,
    /// Events that came again.
    copies: usize,
}

type Shared = Arc<Mutex<Store>>;

impl Store {
    fn take(&mut self, event: &Value) {
        let id = event["id"].as_str().expect("every event has an id");
        if let Some(before) = self.events.insert(id.to_owned(), event.clone()) {
            assert_eq!(&before, event, "a copy must be a copy");
            self.copies += 1;
        }
    }
}

/// Whether this collector finds the event bad, now and at each later try.
fn is_bad(event: &Value) -> bool {
    event["id"].as_str().expect("an id").ends_with('7')
}

/// Every third request is stored and answered 503, every fourth stored and its answer cut off, every fifth is not
/// stored and answered 503, and of the rest every other rejects an eighth of its events by rate.
async fn faulty(State(store): State<Shared>, headers: HeaderMap, Json(events): Json<Vec<Value>>) -> Response {
    assert_eq!(headers["authorization"], "Bearer secret");
    let mut store = store.lock().expect("no panic");
    store.requests += 1;
    let request = store.requests;
    if request.is_multiple_of(5) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "unavailable", "detail": "" })))
            .into_response();
    }
    let limited = |index: usize| request % 2 == 1 && !request.is_multiple_of(3) && index % 8 == 7;
    let mut rejected = Vec::new();
    for (index, event) in events.iter().enumerate() {
        if is_bad(event) {
            rejected.push(json!({ "index": index, "reason": "too_old", "detail": "" }));
        } else if limited(index) {
            rejected.push(json!({ "index": index, "reason": "rate_limited", "detail": "" }));
        } else {
            store.take(event);
        }
    }
    if request.is_multiple_of(3) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "unavailable", "detail": "" })))
            .into_response();
    }
    if request.is_multiple_of(4) {
        let cut = axum::body::Bytes::from_static(b"{\"accepted\":");
        let parts = [Ok(cut), Err(io::Error::other("cut off"))];
        return (StatusCode::ACCEPTED, Body::from_stream(futures::stream::iter(parts))).into_response();
    }
    let accepted = events.len() - rejected.len();
    let status = if accepted == 0 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::ACCEPTED };
    (status, Json(json!({ "accepted": accepted, "rejected": rejected }))).into_response()
}

/// Serves `router` with a health page beside it, and gives its address.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = router.route("/healthz", get(|| async { "ok" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn answered(summary: &Summary) -> u64 {
    summary.accepted + summary.rejected.values().sum::<u64>()
}

#[tokio::test]
async fn whatever_the_collector_answers_each_event_is_accounted_for_exactly_once() {
    let store = Shared::default();
    let url = serve(Router::new().route("/v1/events", post(faulty)).with_state(Arc::clone(&store))).await;
    let summary = over_http(&spec(6_000), &url, "secret", std::future::pending()).await.expect("a collector is there");
    let store = store.lock().expect("no panic");

    assert_eq!((summary.generated, answered(&summary), summary.unanswered), (6_000, 6_000, 0));
    assert_eq!(summary.accepted, store.events.len() as u64, "accepted is what is in the log");
    let known: BTreeSet<_> = summary.rejected.keys().map(String::as_str).collect();
    assert_eq!(known, BTreeSet::from(["rate_limited", "too_old"]));
    assert!(store.copies > 0 && summary.retries > 0, "nothing was sent again: this test tests nothing");

    let rules = Rules::version(1).expect("carried");
    let views = store.events.values().filter(|event| event.get("kind").is_none());
    let by_people = views.filter(|event| !rules.agent(event["user_agent"].as_str().expect("a user agent")).bot);
    let mut by_site: BTreeMap<String, u64> = BTreeMap::new();
    for event in by_people {
        *by_site.entry(event["site"].as_str().expect("a site").to_owned()).or_default() += 1;
    }
    assert_eq!(summary.page_views, by_site.values().sum::<u64>());
    assert_eq!(summary.page_views_by_site, by_site);
}

#[tokio::test]
async fn a_second_run_of_the_same_seed_makes_the_same_events_with_other_ids() {
    async fn all(State(store): State<Shared>, Json(events): Json<Vec<Value>>) -> Json<Value> {
        events.iter().for_each(|event| store.lock().expect("no panic").take(event));
        Json(json!({ "accepted": events.len(), "rejected": [] }))
    }
    let store = Shared::default();
    let url = serve(Router::new().route("/v1/events", post(all)).with_state(Arc::clone(&store))).await;
    for _ in 0..2 {
        let summary = over_http(&spec(500), &url, "t", std::future::pending()).await.expect("a collector is there");
        assert_eq!(summary.accepted, 500);
    }
    let store = store.lock().expect("no panic");
    assert_eq!((store.events.len(), store.copies), (1_000, 0));
    let bare = store.events.values().map(|event| (event["url"].to_string(), event["ip"].to_string()));
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    bare.for_each(|event| *counts.entry(event).or_default() += 1);
    assert!(counts.values().all(|count| count % 2 == 0), "both runs hold the same");
}

#[tokio::test]
async fn a_wrong_token_is_said_as_the_reason() {
    async fn refuse() -> (StatusCode, Json<Value>) {
        (StatusCode::UNAUTHORIZED, Json(json!({ "error": "wrong_token", "detail": "" })))
    }
    let url = serve(Router::new().route("/v1/events", post(refuse))).await;
    let summary = over_http(&spec(100), &url, "t", std::future::pending()).await.expect("a collector is there");
    assert_eq!((summary.accepted, &summary.rejected), (0, &BTreeMap::from([("wrong_token".to_owned(), 100)])));
}

#[tokio::test]
async fn a_shutdown_ends_it_early_and_the_sums_hold() {
    let store = Shared::default();
    let url = serve(Router::new().route("/v1/events", post(faulty)).with_state(Arc::clone(&store))).await;
    let hour = Spec { duration: Duration::from_secs(3_600), rate: 500.0, ..spec(1) };
    let seen = Arc::clone(&store);
    let some_requests = async move {
        while seen.lock().expect("no panic").requests < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let summary = over_http(&hour, &url, "secret", some_requests).await.expect("a collector is there");
    assert!(summary.generated > 0 && summary.generated < 500 * 3_600);
    assert_eq!(answered(&summary) + summary.unanswered, summary.generated);
    assert_eq!(summary.accepted, store.lock().expect("no panic").events.len() as u64);
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = over_http(&spec(1), &url, "t", std::future::pending()).await.expect_err("nobody is there");
    assert!(error.to_string().contains(&url), "{error:#}");
    let error = over_http(&spec(1), "https://a.example", "t", std::future::pending()).await.expect_err("no https");
    assert!(error.to_string().contains("https://a.example"), "{error:#}");
}
