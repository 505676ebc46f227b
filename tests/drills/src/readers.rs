//! Those who look on: an analyst who asks, and somebody who watches how far the numbers are complete.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use reqwest::Client;
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};
use weir_schemas::WindowStart;
use weir_sink::{Target, server::ANALYST};

use crate::{parts::ANSWER_WAIT, site::Site};

const QUERY_EVERY: Duration = Duration::from_millis(100);
/// ClickHouse gives an analyst's query a minute.
const QUERY_PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a person asks: it reads all windows.
const QUERY: &str = "SELECT site, page, sum(page_views) AS page_views, uniqCombined64Merge(visitors) FROM pages \
                     GROUP BY site, page ORDER BY page_views DESC LIMIT 10";

/// What they saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) queries: AtomicU64,
    /// Queries without an answer although ClickHouse had not been taken away.
    pub(crate) failed_queries: AtomicU64,
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
            runtime.spawn(ask(seen.clone(), Analyst::of(target)?, from)),
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

async fn ask(seen: Arc<Seen>, analyst: Analyst, from: WindowStart) {
    // Before the first window there is nothing that could be asked for.
    while seen.complete_through_ms.load(Ordering::SeqCst) <= from.ms() {
        sleep(QUERY_EVERY).await;
    }
    loop {
        let before = seen.away.load(Ordering::SeqCst);
        let answered = analyst.query(QUERY).await;
        if before % 2 == 1 || seen.away.load(Ordering::SeqCst) != before {
            seen.queries_while_away.fetch_add(1, Ordering::SeqCst);
            seen.failed_while_away.fetch_add(u64::from(answered.is_err()), Ordering::SeqCst);
        } else {
            seen.queries.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = answered {
                eprintln!("drill: a query failed: {error:#}");
                seen.failed_queries.fetch_add(1, Ordering::SeqCst);
            }
        }
        sleep(QUERY_EVERY).await;
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
        let status = async { client.get(&url).send().await.ok()?.json::<Value>().await.ok() }.await.unwrap_or_default();
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
        sleep(LOOK_EVERY).await;
    }
}
