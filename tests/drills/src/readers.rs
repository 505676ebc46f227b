//! Those who look on: an analyst who asks, a dashboard that does, a report of a month, and somebody who watches how far the
//! numbers are complete.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use reqwest::Client;
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};
use weir_schemas::WindowStart;
use weir_sink::{Target, server::ANALYST};

use crate::{parts::ANSWER_WAIT, site::Site};

/// After an answer the analyst reads for so long, and the others wait.
const QUERY_EVERY: Duration = Duration::from_millis(100);
const REFRESH_EVERY: Duration = Duration::from_millis(400);
/// ClickHouse gives an analyst's query a minute.
const QUERY_PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a person asks: it reads all live windows of a drill, which is shorter than a day.
const QUERY: &str = "SELECT site, page, sum(page_views) AS page_views, uniqCombined64Merge(visitors) FROM pages \
                     WHERE window_start >= now() - 86400 GROUP BY site, page ORDER BY page_views DESC LIMIT 10";
/// What a dashboard shows: one site's last quarter of an hour, minute by minute.
const RECENT: &str = "SELECT toStartOfMinute(window_start) AS minute, sum(page_views), uniqCombined64Merge(visitors) FROM sites \
                      WHERE site = 'one.example' AND window_start >= now() - 900 GROUP BY minute ORDER BY minute";
/// And a report: the days of a site, of all time.
const DAYS: &str = "SELECT local_day, sum(page_views), uniqCombined64Merge(visitors) FROM sites WHERE site = 'one.example' \
                    GROUP BY local_day ORDER BY local_day";

/// What they saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) queries: AtomicU64,
    /// Queries without an answer although ClickHouse had not been taken away.
    pub(crate) failed_queries: AtomicU64,
    /// The longest time between two answers, all who ask together, while it had not been: ms.
    pub(crate) longest_wait_ms: AtomicU64,
    answered: Mutex<Option<Instant>>,
    /// Queries while it was, and those of them without an answer.
    pub(crate) queries_while_away: AtomicU64,
    pub(crate) failed_while_away: AtomicU64,
    /// The table is on its way back to a copy: complete-through goes back with it.
    pub(crate) going_back: AtomicBool,
    /// How often complete-through was earlier than before, though it was not: by the table, and by the status.
    pub(crate) steps_back_in_table: AtomicU64,
    pub(crate) steps_back_in_status: AtomicU64,
    /// By the view `completeness`, ms since the Unix epoch.
    pub(crate) complete_through_ms: AtomicI64,
    /// The conversion that is under way, by the collector's status; null: there is none, or it does not say.
    pub(crate) conversion: Mutex<Value>,
    /// What is left in the spool, by the collector's status; `u64::MAX`: it does not say.
    pub(crate) spooled: AtomicU64,
    /// Odd while ClickHouse is taken away.
    away: AtomicU64,
}

impl Seen {
    /// ClickHouse is about to be taken away, or is there again.
    pub(crate) fn away(&self, is_away: bool) {
        let changes = self.away.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(changes % 2 == 1, is_away, "it was already so");
        // Who waits because of that waits for nothing that is counted.
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn answer(&self) {
        let now = Instant::now();
        let last = self.answered.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let wait_ms = last.map_or(0, |last| (now - last).as_millis() as u64);
        self.longest_wait_ms.fetch_max(wait_ms, Ordering::SeqCst);
    }
}

/// Somebody who may read the public views.
pub(crate) struct Analyst {
    client: Client,
    url: String,
}

impl Analyst {
    pub(crate) fn of(target: &Target) -> anyhow::Result<Analyst> {
        // A connection for each query: one that was left open to a server that was killed is nobody's fault.
        let client = Client::builder().no_proxy().timeout(QUERY_PATIENCE).pool_max_idle_per_host(0).build()?;
        Ok(Analyst { client, url: format!("{}/?user={ANALYST}&database={}", target.url, target.database) })
    }

    /// What ClickHouse answers.
    pub(crate) async fn query(&self, sql: &str) -> anyhow::Result<String> {
        let answer = self.client.post(&self.url).body(sql.to_owned()).send().await?;
        let status = answer.status();
        // A query that fails half-way says so in its answer.
        let text = answer.text().await?;
        ensure!(status.is_success() && !text.contains("DB::Exception"), "{status} {text}");
        Ok(text)
    }
}

/// Ended when dropped.
pub(crate) struct Readers {
    pub(crate) seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
}

impl Readers {
    /// `from` is where the live run began.
    pub(crate) fn start(runtime: &Runtime, site: &Site, target: &Target, from: WindowStart) -> anyhow::Result<Readers> {
        let seen = Arc::new(Seen::default());
        let client = Client::builder().no_proxy().timeout(ANSWER_WAIT).build()?;
        let tasks = vec![
            runtime.spawn(ask(seen.clone(), Analyst::of(target)?, from, (QUERY, QUERY_EVERY))),
            runtime.spawn(ask(seen.clone(), Analyst::of(target)?, from, (RECENT, REFRESH_EVERY))),
            runtime.spawn(ask(seen.clone(), Analyst::of(target)?, from, (DAYS, REFRESH_EVERY))),
            runtime.spawn(watch_table(seen.clone(), target.clone())),
            runtime.spawn(watch_status(seen.clone(), client, format!("http://{}/status.json", site.console))),
        ];
        Ok(Readers { seen, tasks })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn ask(seen: Arc<Seen>, analyst: Analyst, from: WindowStart, (query, every): (&str, Duration)) {
    // Before the first window there is nothing that could be asked for.
    while seen.complete_through_ms.load(Ordering::SeqCst) <= from.ms() {
        sleep(every).await;
    }
    loop {
        let before = seen.away.load(Ordering::SeqCst);
        let answered = analyst.query(query).await;
        if before % 2 == 1 || seen.away.load(Ordering::SeqCst) != before {
            seen.queries_while_away.fetch_add(1, Ordering::SeqCst);
            seen.failed_while_away.fetch_add(u64::from(answered.is_err()), Ordering::SeqCst);
        } else {
            seen.queries.fetch_add(1, Ordering::SeqCst);
            match answered {
                Ok(_) => seen.answer(),
                Err(error) => {
                    eprintln!("drill: a query failed: {error:#}");
                    seen.failed_queries.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        sleep(every).await;
    }
}

async fn watch_table(seen: Arc<Seen>, target: Target) {
    let sql = format!(
        "SELECT toUnixTimestamp(max(complete_through)) FROM {}.completeness WHERE origin = ''",
        target.database
    );
    loop {
        let through = target.client().query(&sql).fetch_one::<u32>().await;
        if let Some(through_ms) =
            through.ok().filter(|through_s| *through_s > 0).map(|through_s| i64::from(through_s) * 1000)
        {
            let before_ms = seen.complete_through_ms.swap(through_ms, Ordering::SeqCst);
            if through_ms < before_ms && !seen.going_back.load(Ordering::SeqCst) {
                eprintln!("drill: complete-through stepped back in the table, from {before_ms} to {through_ms} ms");
                seen.steps_back_in_table.fetch_add(1, Ordering::SeqCst);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn watch_status(seen: Arc<Seen>, client: Client, url: String) {
    let mut before_ms = i64::MIN;
    loop {
        let status = async { client.get(&url).send().await.ok()?.json::<Value>().await.ok() }.await;
        let mut status = status.unwrap_or_default();
        let through_ms = status["runs"][0]["progress"]["complete_through_ms"].as_i64();
        if let Some(through_ms) = through_ms {
            if through_ms < before_ms && !seen.going_back.load(Ordering::SeqCst) {
                eprintln!("drill: complete-through stepped back in the status, from {before_ms} to {through_ms} ms");
                seen.steps_back_in_status.fetch_add(1, Ordering::SeqCst);
            }
            before_ms = through_ms;
        }
        let spooled = status["spool"]["batches"].as_u64().unwrap_or(u64::MAX);
        seen.spooled.store(spooled, Ordering::SeqCst);
        let conversion = status.get_mut("conversion").map(Value::take).unwrap_or_default();
        *seen.conversion.lock().unwrap_or_else(PoisonError::into_inner) = conversion;
        sleep(LOOK_EVERY).await;
    }
}
