//! `./dev drill outage`: the broker is away under load, then ClickHouse; who sends hits does not notice, and nothing is missing
//! when they are back.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::runtime::Runtime;

use crate::{
    ending::{EVENTS_MIN, Ending},
    faults::Stage,
    parts::Broker,
    patience::sleep,
    report::{Report, rounded, seconds},
    setting::{Flags, play},
    site::Site,
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long the broker is away, and then ClickHouse
    #[arg(long, default_value_t = 30.0, value_name = "S")]
    seconds: f64,
    #[command(flatten)]
    flags: Flags,
}

/// Before, between and after the two nothing is hurt for so long.
const CALM: Duration = Duration::from_secs(5);
/// Each takes about so long to come back, with what was missed meanwhile.
const BACK_AGAIN: Duration = Duration::from_secs(10);
/// How often the spool is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.seconds > 0.0, "--seconds {} is not above 0", args.seconds);
    let minutes = rounded(lasts(args).as_secs_f64() / 60.0, 10.0);
    play("outage", minutes, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

/// About how long there is load.
fn lasts(args: &Args) -> Duration {
    3 * CALM + 2 * (Duration::from_secs_f64(args.seconds) + BACK_AGAIN)
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let away = Duration::from_secs_f64(args.seconds);
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    let rate = 1.5 * EVENTS_MIN as f64 / lasts(args).as_secs_f64();
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    sleep(CALM)?;
    let (of_broker, spool) = broker_away(&mut stage, away)?;
    sleep(CALM)?;
    let of_clickhouse = clickhouse_away(&mut stage, away)?;
    sleep(CALM)?;

    let ending = Ending::reach(stage, |stage| Ok(stage.from))?;
    let at_once = ending.answered_at_once();
    let mut report = Report::default();
    report.add("drill", "outage", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("answered_at_once", at_once, "every POST had its 202 the first time it was sent");
    report.add("broker_away_seconds", seconds(of_broker.away), "");
    report.add("spooled_batches", spool.batches, "that waited on the collector's disk when the broker came back");
    report.add("seconds_to_drain", seconds(spool.to_drain), "from then until none was left there");
    report.add("broker_seconds_to_on_time", seconds(of_broker.to_on_time), "from then until all of it was counted");
    report.add("clickhouse_away_seconds", seconds(of_clickhouse.away), "");
    report.add(
        "clickhouse_seconds_to_on_time",
        seconds(of_clickhouse.to_on_time),
        "from when it was back until all that came meanwhile was counted",
    );
    report.print(args.flags.json);
    Ok(ending.held() && at_once && spool.batches > 0)
}

/// How long something was away, and how long it took from then until nothing told of it any more: until a window was in the
/// table that began when it was there again, and the spool empty.
struct Absence {
    away: Duration,
    to_on_time: Duration,
}

/// What the collector kept while the broker was away, and how long it took to send it.
struct Spool {
    batches: u64,
    to_drain: Duration,
}

fn broker_away(stage: &mut Stage<'_>, away: Duration) -> anyhow::Result<(Absence, Spool)> {
    stage.say(&format!("SIGKILL to Broker, which is away for {} s", away.as_secs_f64()));
    let begin = Instant::now();
    stage.end_broker()?;
    let mut batches = 0;
    while begin.elapsed() < away {
        sleep(LOOK_EVERY.min(away.saturating_sub(begin.elapsed())))?;
        stage.collector.lives()?;
        // Nobody says so for a moment, while the status finds out that the log is away.
        let spooled = stage.readers.seen.spooled.load(Ordering::SeqCst);
        batches = if spooled == u64::MAX { batches } else { spooled };
    }
    stage.broker.start_again()?;
    let (away, back) = (begin.elapsed(), Instant::now());
    stage.say("the broker is back");
    stage.drained()?;
    let to_drain = back.elapsed();
    stage.say("the spool is empty");
    stage.windows_from_now_on("what was in the spool to be counted", None)?;
    stage.say("all of it is counted");
    Ok((Absence { away, to_on_time: back.elapsed() }, Spool { batches, to_drain }))
}

fn clickhouse_away(stage: &mut Stage<'_>, away: Duration) -> anyhow::Result<Absence> {
    stage.say(&format!("SIGKILL to ClickHouse, which is away for {} s", away.as_secs_f64()));
    let begin = Instant::now();
    stage.readers.seen.away(true);
    stage.end_clickhouse()?;
    sleep(away)?;
    stage.start_clickhouse()?;
    stage.readers.seen.away(false);
    let (away, back) = (begin.elapsed(), Instant::now());
    stage.say("ClickHouse is back");
    stage.windows_from_now_on("what came meanwhile to be counted", None)?;
    stage.say("all that came meanwhile is counted");
    Ok(Absence { away, to_on_time: back.elapsed() })
}
