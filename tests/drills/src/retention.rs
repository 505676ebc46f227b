//! `./dev drill retention`: a log that keeps 14 minutes, and a pause that somebody forgot: it ends by itself before the log
//! deletes what the run needs.

use std::{path::Path, sync::Arc};

use anyhow::ensure;
use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use tokio::runtime::Runtime;
use weir_log::{Clock as _, SystemClock};
use weir_schemas::control::EVENTS_TOPIC;

use crate::{
    ending::{EVENTS_MIN, Ending},
    faults::Stage,
    parts::Broker,
    patience::{wait_for, wait_while_it_moves},
    pause::newest,
    report::Report,
    setting::{Flags, play},
    site::Site,
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
}

/// How long the log keeps a record: what a run needs lies up to 11 min before the windows that it is at, and a fifth, 2 min 48 s,
/// is the margin, so a pause is safe for 12 s.
const RETENTION_MS: i64 = 14 * 60_000;
/// Small, so that the log is cut every few seconds.
const SEGMENT_MS: i64 = 5_000;
/// The log is older than it keeps when it is paused.
const MINUTES: f64 = 17.0;

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    play("retention", MINUTES, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let broker = Broker::start(dir)?;
    let bootstrap = broker.bootstrap();
    let site = Site::new(dir, &bootstrap)?;
    let rate = 1.5 * EVENTS_MIN as f64 / (60.0 * MINUTES);
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    keep(&bootstrap, RETENTION_MS)?;
    stage.say("the log keeps 14 minutes from now on; it is waited for until it is cut");
    let log = weir_log::open(&stage.log, Arc::new(SystemClock))?;
    let partitions: Vec<u32> = stage.partitions.iter().map(|in_use| in_use.partition).collect();
    let starts = || -> anyhow::Result<Vec<i64>> {
        let start = |partition: &u32| Ok(log.bounds(EVENTS_TOPIC, *partition)?.start);
        partitions.iter().map(start).collect()
    };
    wait_while_it_moves("the log to be cut", || {
        stage.collector.lives()?;
        let acknowledged = stage.load.known(|known| known.acknowledged_events);
        Ok(if starts()?.iter().all(|start| *start > 0) { Ok(()) } else { Err(acknowledged) })
    })?;

    stage.say("weir pause live, and nobody thinks of it again");
    let said = site.operate(&["pause", "live"])?;
    ensure!(said.contains("safe until ") && said.contains("\npaused: "), "the pause was not acknowledged: {said}");
    let before = starts()?;
    let through_ms = wait_for("the pause in weir log", || newest(&site, "paused", "through_ms"))?;
    wait_for("the pause to end by itself", || newest(&site, "resumed", "id"))?;
    let resume =
        site.ordered()?.into_iter().rev().find(|record| record["action"]["do"] == "resume").unwrap_or_default();
    let paused_ms = resume["at_ms"].as_i64().unwrap_or_default() - through_ms;
    let reason = resume["reason"].as_str().unwrap_or_default().to_owned();
    wait_for("the catch-up in weir log", || newest(&site, "caught_up", "id"))?;
    stage.say("caught up");
    let cut_meanwhile = before.iter().zip(starts()?).all(|(before, after)| after > *before);

    let ending = Ending::reach(stage, |stage| {
        // What is compared must still be there when it is compared.
        keep(&bootstrap, -1)?;
        let (width, now_ms) = (site.version.width, SystemClock.now_ms());
        Ok(weir_pipeline::whole_from(log.as_ref(), EVENTS_TOPIC, &stage.partitions, width, false, now_ms)?)
    })?;
    let by_itself = resume["who"] == "supervisor" && reason.starts_with("the log would delete what live needs");
    let mut report = Report::default();
    report.add("drill", "retention", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("retention_ms", RETENTION_MS, "how long the log keeps a record");
    report.add("paused_ms", paused_ms, "log time from the pause's boundary until it ended by itself");
    report.add("resumed_by_itself", by_itself, "");
    report.add("reason", reason, "as it is in weir log");
    report.add("cut_meanwhile", cut_meanwhile, "the log was cut between pause and catch-up, in every partition");
    report.print(args.flags.json);
    Ok(ending.held() && by_itself && cut_meanwhile)
}

/// Sets the retention of the topic of events, -1 for ever, as an operator would; the other settings are those that weir gave it.
fn keep(bootstrap: &str, retention_ms: i64) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let (retention_ms, segment_ms) = (retention_ms.to_string(), SEGMENT_MS.to_string());
    let alter = AlterConfig::new(ResourceSpecifier::Topic(EVENTS_TOPIC))
        .set("message.timestamp.type", "LogAppendTime")
        .set("cleanup.policy", "delete")
        .set("retention.bytes", "-1")
        .set("segment.ms", &segment_ms)
        .set("retention.ms", &retention_ms);
    let altered = block_on(admin.alter_configs([&alter], &AdminOptions::new()))?;
    for result in altered {
        result.map_err(|(_, code)| anyhow::anyhow!("the topic's retention could not be set: {code}"))?;
    }
    Ok(())
}
