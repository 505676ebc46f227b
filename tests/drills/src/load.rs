//! Traffic from outside, from clients that do what the collector tells them, and remember every event.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Client, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};
use weir_log::{Clock as _, SystemClock};
use weir_schemas::DEDUP_HORIZON_MS;

use crate::site::{SITES, Site, TOKEN};

/// The property that names each event; a property is a dimension of its own in the table.
pub(crate) const PROP: &str = "n";

/// Clients, each with one request at a time.
const CLIENTS: u64 = 8;
/// Events of one POST.
const EVENTS: u64 = 50;
/// Of a hundred POSTs that were acknowledged, those that are sent once more: a client that did not believe it.
const REPEATED_PERCENT: u32 = 2;
/// Of a hundred events, those that say they happened up to [`LATE_MS_MAX`] ago.
const LATE_PERCENT: u32 = 10;
const LATE_MS_MAX: i64 = 90_000;

/// A client that did not hear an answer sends the same events again, as long as the log still knows copies by their ids.
const SENT_AGAIN_FOR: Duration = Duration::from_secs(8 * 60);
const _: () = assert!(SENT_AGAIN_FOR.as_millis() as i64 + 60_000 < DEDUP_HORIZON_MS);
/// After a try without an answer.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longer than the collector takes for anything.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What clients know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Events have the numbers below it.
    pub(crate) sent: u64,
    /// By the event's number: whether it was acknowledged.
    pub(crate) acknowledged: Vec<bool>,
    pub(crate) acknowledged_events: u64,
    /// Events of requests without a good answer to the end.
    pub(crate) failed_requests: u64,
    /// Answers that told to come again later.
    pub(crate) told_to_wait: u64,
    /// Requests whose fate the client did not learn: no answer, or an unclear one.
    pub(crate) unanswered_tries: u64,
    pub(crate) repeated: u64,
    /// Anything that a collector must not answer.
    pub(crate) wrong: Vec<String>,
    pub(crate) longest_gap: Duration,
    /// The last acknowledgement.
    pub(crate) last: Option<Instant>,
}

struct Shared {
    url: String,
    client: Client,
    known: Mutex<Known>,
    next: AtomicU64,
    /// Events a second, all clients together.
    rate: f64,
    stop: AtomicBool,
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(runtime: &Runtime, site: &Site, rate: f64, seed: u64) -> anyhow::Result<Load> {
        let shared = Arc::new(Shared {
            url: format!("http://{}/v1/events", site.collector),
            client: Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?,
            known: Mutex::default(),
            next: AtomicU64::new(0),
            rate,
            stop: AtomicBool::new(false),
        });
        let client = |number: u64| {
            let (shared, rng) = (shared.clone(), StdRng::seed_from_u64(seed.wrapping_add(number)));
            runtime.spawn(async move { shared.send_on(rng).await })
        };
        Ok(Load { clients: (0..CLIENTS).map(client).collect(), shared })
    }

    pub(crate) fn known<T>(&self, of: impl FnOnce(&Known) -> T) -> T {
        of(&self.shared.known.lock().expect("no holder panics"))
    }

    /// No new events; those that are under way are sent until they are answered.
    pub(crate) fn end(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }
}

/// What came of one try.
enum Answer {
    Taken,
    /// Nothing is known; it may have been taken.
    Unclear,
    Wait(Duration),
    Wrong(String),
}

impl Shared {
    async fn send_on(&self, mut rng: StdRng) {
        let every = Duration::from_secs_f64((CLIENTS * EVENTS) as f64 / self.rate);
        let mut due = Instant::now() + every.mul_f64(rng.random());
        while !self.stop.load(Ordering::SeqCst) {
            tokio::time::sleep_until(due.into()).await;
            // A client that had to wait goes on at its pace: nobody reads faster because a server was away.
            due = Instant::now().max(due) + every;
            let first = self.next.fetch_add(EVENTS, Ordering::SeqCst);
            let body = body(first, &mut rng);
            self.known(|known| known.sent = known.sent.max(first + EVENTS));
            if !self.deliver(first, &body).await {
                return;
            }
            if rng.random_range(0..100) < REPEATED_PERCENT {
                self.known(|known| known.repeated += 1);
                let _ = self.post(&body).await;
            }
        }
    }

    fn known<T>(&self, of: impl FnOnce(&mut Known) -> T) -> T {
        of(&mut self.known.lock().expect("no holder panics"))
    }

    /// Sends until the events are acknowledged; whether they were.
    async fn deliver(&self, first: u64, body: &str) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < SENT_AGAIN_FOR {
            match self.post(body).await {
                Answer::Taken => {
                    self.known(|known| known.acknowledge(first));
                    return true;
                }
                Answer::Unclear => {
                    self.known(|known| known.unanswered_tries += 1);
                    sleep(BACKOFF).await;
                }
                Answer::Wait(told) => {
                    self.known(|known| known.told_to_wait += 1);
                    sleep(told).await;
                }
                Answer::Wrong(what) => {
                    self.known(|known| known.wrong.push(what));
                    return false;
                }
            }
        }
        self.known(|known| known.failed_requests += EVENTS);
        true
    }

    async fn post(&self, body: &str) -> Answer {
        let request = self.client.post(&self.url).bearer_auth(TOKEN).header("content-type", "application/json");
        let Ok(answer) = request.body(body.to_owned()).send().await else { return Answer::Unclear };
        let status = answer.status().as_u16();
        let told = answer.headers().get(RETRY_AFTER).and_then(|told| told.to_str().ok()?.parse().ok());
        let Ok(text) = answer.text().await else { return Answer::Unclear };
        match (status, told) {
            (202, _) => {
                let read: Value = serde_json::from_str(&text).unwrap_or_default();
                if read["accepted"] == EVENTS { Answer::Taken } else { Answer::Wrong(format!("202 {text}")) }
            }
            (503, Some(seconds)) => Answer::Wait(Duration::from_secs(seconds)),
            _ => Answer::Wrong(format!("{status} (Retry-After: {told:?}) {text}")),
        }
    }
}

impl Known {
    fn acknowledge(&mut self, first: u64) {
        let end = (first + EVENTS) as usize;
        if self.acknowledged.len() < end {
            self.acknowledged.resize(end, false);
        }
        self.acknowledged[first as usize..end].fill(true);
        self.acknowledged_events += EVENTS;
        let now = Instant::now();
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(now - last);
        }
        self.last = Some(now);
    }
}

/// The JSON of the events from `first` on: each with an id and a property that no other has.
fn body(first: u64, rng: &mut StdRng) -> String {
    let now_ms = SystemClock.now_ms();
    let events = (first..first + EVENTS).map(|number| {
        let site = SITES[rng.random_range(0..SITES.len())];
        let back_ms = if rng.random_range(0..100) < LATE_PERCENT { rng.random_range(2_000..LATE_MS_MAX) } else { 0 };
        let page = rng.random_range(0..40);
        let mut event = json!({
            "site": site, "url": format!("https://{site}/page/{page}"), "id": format!("e{number}"),
            "time": now_ms - back_ms, "ip": format!("203.0.{}.{}", rng.random_range(0..8), rng.random_range(1..250)),
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "props": { PROP: number.to_string() },
        });
        match rng.random_range(0..100) {
            0..4 => {
                event["kind"] = "outbound".into();
                event["target"] = "https://elsewhere.example/".into();
            }
            4..7 => {
                event["kind"] = "custom".into();
                event["name"] = "signup".into();
            }
            7..30 => event["referrer"] = "https://www.google.com/search?q=weir".into(),
            _ => {}
        }
        event
    });
    Value::Array(events.collect()).to_string()
}
