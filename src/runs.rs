//! The part that computes: its ClickHouse, the supervisor of the runs; kept up until the process stops.
//!
//! ```text
//!  ClickHouse is started ──▶ supervisor ──▶ tables, runs
//!        ▲                       │
//!        └─── again, after ◀─────┘
//!             a while, if one fails
//! ```
//!
//! Invariant: what goes wrong here stops no collection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tracing::{error, info};
use weir_console::Seen;
use weir_log::{Clock, Log};
use weir_sink::{Target, server::Server};

use crate::{config::Config, control::Control, exposition::OfRuns, supervisor::Supervisor};

/// Between tries, doubling.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// What went well for so long begins with [`AGAIN_MIN`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// What the part needs.
pub(crate) struct Runs {
    pub config: Config,
    pub log: Arc<dyn Log>,
    pub control: Control,
    pub clock: Arc<dyn Clock>,
    pub metrics: OfRuns,
    pub seen: Arc<Mutex<Seen>>,
}

impl Runs {
    /// Returns after `stopping` is true and everything has stopped.
    pub(crate) async fn keep_up(self, mut stopping: watch::Receiver<bool>) {
        let (mut server, mut wait) = (None, AGAIN_MIN);
        while !*stopping.borrow() {
            let begun = Instant::now();
            let prepared = tokio::select! {
                target = self.clickhouse(&mut server) => target,
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            let ended = match prepared {
                Ok(target) => self.supervise(target, stopping.clone()).await,
                Err(error) => Err(error),
            };
            let Err(failed) = ended else { break };
            if begun.elapsed() > HEALTHY_AFTER {
                wait = AGAIN_MIN;
            }
            let again_ms = wait.as_millis() as u64;
            error!(
                error = format!("{failed:#}"),
                again_ms, "statistics stand still; what is collected waits in the log"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (2 * wait).min(AGAIN_MAX),
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
        if let Some(server) = server {
            server.stop().await;
        }
    }

    /// The ClickHouse that is configured, else one of our own, started here.
    async fn clickhouse(&self, server: &mut Option<Server>) -> anyhow::Result<Target> {
        if !self.config.clickhouse.url.is_empty() {
            return self.config.target();
        }
        if server.is_none() {
            *server = Some(Server::start(self.config.clickhouse_server()?).await?);
        }
        let target = server.as_ref().expect("it was started").target().clone();
        info!(url = target.url, play = format!("{}/play?user=analyst", target.url), "ClickHouse answers");
        Ok(target)
    }

    async fn supervise(&self, target: Target, stopping: watch::Receiver<bool>) -> anyhow::Result<()> {
        let (config, log, control) = (self.config.clone(), self.log.clone(), self.control.clone());
        let (clock, metrics, seen) = (self.clock.clone(), self.metrics.clone(), self.seen.clone());
        Supervisor { config, log, control, clock, target, metrics, seen }.run(stopping).await
    }
}
