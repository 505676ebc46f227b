//! The commands that bring events in: `weir import`, `weir generate`.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use futures::{FutureExt, future::BoxFuture};
use jiff::civil::Date;
use tokio::sync::watch;
use weir_ingest::{Collector, Countries, SaltBook};
use weir_log::{Clock, SystemClock};
use weir_schemas::rules::Rules;

use crate::{config::Config, control::Control, serve};

pub(crate) async fn import(config: &Config, command: weir_import::ImportCommand) -> anyhow::Result<ExitCode> {
    let clock = Arc::new(SystemClock);
    let log = serve::open_log(config, clock.clone()).await?;
    let version = config.schema_version()?;
    let environment = weir_import::Environment {
        log,
        clock,
        who: serve::who(),
        sites: config.ingest.sites.clone(),
        accept_any_site: config.ingest.accept_any_site,
        mmdb: config.ingest.mmdb.clone(),
        rules: Rules::version(version.rules).expect("a schema version names rules that the binary has"),
        live_days: Arc::new(LiveDays { config: config.clone() }),
        patience: weir_import::PATIENCE,
    };
    weir_import::run(command, environment).await
}

/// Asks ClickHouse.
struct LiveDays {
    config: Config,
}

impl weir_import::LiveDays for LiveDays {
    fn live_days<'a>(&'a self, site: &'a str, first: Date, last: Date) -> BoxFuture<'a, anyhow::Result<Vec<Date>>> {
        async move {
            let target = self.config.target()?;
            // Of the generation in use, whichever that is.
            let sql = format!(
                "SELECT DISTINCT toUInt16(toDate(window_start, 'UTC')) AS day FROM {}.stats WHERE site = ? AND origin = '' \
                 AND dimension = 'site' AND toDate(window_start, 'UTC') BETWEEN ? AND ? ORDER BY day",
                target.database,
            );
            let days = target.client().query(&sql).bind(site).bind(first.to_string()).bind(last.to_string());
            let days: Vec<u16> =
                days.fetch_all().await.context("ClickHouse could not be asked for live traffic of these days")?;
            let epoch = Date::constant(1970, 1, 1);
            Ok(days.into_iter().map(|day| epoch + jiff::Span::new().days(i64::from(day))).collect())
        }
        .boxed()
    }
}

pub(crate) async fn generate(config: &Config, args: weir_generate::GenerateArgs) -> anyhow::Result<ExitCode> {
    let spec = args.spec()?;
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    let summary = match &args.to {
        Some(_) => args.send(&spec, interrupted).await?,
        None => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let log = serve::open_log(config, clock.clone()).await?;
            let following = log.clone();
            let control = tokio::task::spawn_blocking(move || Control::open(following)).await??;
            let (_stop, stopping) = watch::channel(false);
            let partitions = control.partitions_in_use(clock.clone(), stopping);
            let collector = Collector::start(log.clone(), clock.clone(), config.ingest.collector.clone(), partitions);
            let salts = Arc::new(SaltBook::open(log, clock.clone()).await?);
            let countries = match &config.ingest.mmdb {
                Some(path) => Countries::open(path)?,
                None => Countries::none(),
            };
            weir_generate::into_log(&spec, collector, salts, Arc::new(countries), clock, interrupted).await?
        }
    };
    args.print(&summary);
    Ok(ExitCode::SUCCESS)
}
