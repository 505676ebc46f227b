//! `./dev drill crash`: everything is killed, over and over, under load; then every event that was acknowledged is looked for.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::runtime::Runtime;
use weir_log::{Clock as _, LogConfig, PartitionInUse, SystemClock};
use weir_schemas::{WindowStart, control::EVENTS_TOPIC};
use weir_sink::Target;

use crate::{
    compare,
    faults::{Disk, Done, Stage},
    load::{Known, Load},
    parts::{self, Broker},
    patience::{heed_signals, wait_for, wait_while_it_moves},
    process::{Orphans, last_lines},
    readers::{Readers, Seen},
    report::{Report, seconds},
    runs::{Order, Run},
    site::Site,
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long weir is hurt; longer if there were too few kills, or too few events, by then
    #[arg(long, default_value_t = 5.0, value_name = "M")]
    minutes: f64,
    /// The same seed draws the same faults; drawn if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Leaves the folder with what the processes said
    #[arg(long)]
    keep: bool,
    /// The last line is one JSON object
    #[arg(long)]
    json: bool,
}

/// Kills in a minute, at least.
const KILLS_A_MINUTE: f64 = 6.0;
/// Events that are acknowledged, at least; half as many again are sent in the time given, if all goes well.
const EVENTS_MIN: u64 = 100_000;
/// Workers of the replay: another number than those of the live run.
const REPLAY_WORKERS: usize = 3;

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.minutes > 0.0 && args.minutes <= 24.0 * 60.0, "--minutes {} is not between 0 and 1440", args.minutes);
    parts::check()?;
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    eprintln!("drill: crash, seed {seed}, {} minutes", args.minutes);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    heed_signals(&runtime)?;
    let mut dir = tempfile::Builder::new().prefix("weir-drill-").tempdir()?;
    dir.disable_cleanup(args.keep);
    let _orphans = Orphans::adopt();
    let drilled = drill(args, seed, &runtime, dir.path());
    if args.keep {
        eprintln!("drill: what the processes said is in {}", dir.path().display());
    } else if drilled.is_err() {
        for name in ["collector.log", "pipeline.log", "second.log", "replay/run.log", "broker.log"] {
            eprintln!("drill: the end of {name}:\n{}", last_lines(&dir.path().join(name)));
        }
    }
    drilled
}

/// What is compared at the end.
struct Compared {
    conserved: compare::Conserved,
    digests: [String; 2],
    differs_from_oracle: Option<String>,
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let begin = Instant::now();
    let duration = Duration::from_secs_f64(60.0 * args.minutes);
    let kills_min = (KILLS_A_MINUTE * args.minutes).ceil() as u64;
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    let (clickhouse_dir, clickhouse_port) = (dir.join("clickhouse"), parts::free_port()?);
    let clickhouse = runtime.block_on(parts::clickhouse(&clickhouse_dir, clickhouse_port))?;
    let target = clickhouse.target().clone();
    let disk = Disk::mount(&site.spool())?;
    if disk.is_none() {
        eprintln!("drill: no file system can be mounted here: of the spool its bound is full, not its disk");
    }
    let collector = site.start_collector(&[])?;
    let pipeline = site.start_pipeline("pipeline", &target)?;
    let log = LogConfig::Kafka { bootstrap: broker.bootstrap(), options: Default::default() };
    let partitions = partitions_in_use(&log)?;
    let first_ms = partitions.iter().map(|in_use| in_use.effective_ms).min().context("no partition is in use")?;
    let from = site.version.width.window_of(first_ms - site.version.lateness_ms);
    let readers = Readers::start(runtime, &site, &target, from)?;
    let rate = 1.5 * EVENTS_MIN as f64 / duration.as_secs_f64();
    let load = Load::start(runtime, &site, rate, seed)?;
    let mut stage = Stage {
        runtime,
        site: &site,
        rng: StdRng::seed_from_u64(seed),
        load: &load,
        readers: &readers,
        target: target.clone(),
        clickhouse_dir,
        clickhouse_port,
        clickhouse: Some(clickhouse),
        broker,
        collector,
        pipeline,
        disk,
        done: Done::default(),
        begin,
    };
    wait_while_it_moves("the first windows", || {
        stage.collector.lives()?;
        stage.pipeline.lives()?;
        let through_ms = readers.seen.complete_through_ms.load(Ordering::SeqCst);
        let acknowledged = load.known(|known| known.acknowledged_events);
        Ok(if through_ms > from.ms() && acknowledged > 0 { Ok(()) } else { Err((through_ms, acknowledged)) })
    })?;
    stage.hurt(duration, kills_min)?;

    eprintln!("drill: {:6.1} s  nothing is hurt any more", begin.elapsed().as_secs_f64());
    let done = stage.done;
    let known = finish_load(&mut stage, &load)?;
    stage.drained()?;
    let through_ms = complete(&mut stage, &readers)?;
    let Stage { pipeline, collector, clickhouse, broker, disk, .. } = stage;
    let seen = readers.seen.clone();
    drop(readers);
    pipeline.stop()?;
    collector.stop()?;
    eprintln!("drill: {:6.1} s  all is counted; the same log into a second ClickHouse", begin.elapsed().as_secs_f64());
    let to = site.version.width.window_of(through_ms);
    let compared = compare_all(runtime, &site, &target, &log, &partitions, from, to, &known)?;
    drop((clickhouse, broker, disk));
    report(args, seed, begin.elapsed(), kills_min, done, &known, &seen, &compared)
}

/// Partitions in use, once the control topic tells them.
fn partitions_in_use(log: &LogConfig) -> anyhow::Result<Vec<PartitionInUse>> {
    let log = weir_log::open(log, Arc::new(SystemClock))?;
    wait_for("the collector to make its topics", || {
        if log.partitions(EVENTS_TOPIC).is_err() {
            return Ok(None);
        }
        let Ok(all) = weir_log::ControlLog::open(log.clone()).and_then(|control| control.read_all()) else {
            return Ok(None);
        };
        let in_use = weir_log::partitions_in_use(all.records.iter().map(|(_, record)| record));
        Ok((!in_use.is_empty()).then_some(in_use))
    })
}

/// Waits until enough is acknowledged, and every client has its last answer.
fn finish_load(stage: &mut Stage<'_>, load: &Load) -> anyhow::Result<Known> {
    wait_while_it_moves("enough events to be acknowledged", || {
        stage.collector.lives()?;
        let acknowledged = load.known(|known| known.acknowledged_events);
        let wrong = load.known(|known| known.wrong.first().cloned());
        ensure!(wrong.is_none(), "the collector answered {}", wrong.unwrap_or_default());
        Ok(if acknowledged >= EVENTS_MIN { Ok(()) } else { Err(acknowledged) })
    })?;
    load.end();
    wait_while_it_moves("the last acknowledgements", || {
        Ok(if load.has_ended() { Ok(()) } else { Err(load.known(|known| known.acknowledged_events)) })
    })?;
    Ok(load.known(Known::clone))
}

/// Waits until the table is complete through an instant after all that is in the log; through when it then is.
fn complete(stage: &mut Stage<'_>, readers: &Readers) -> anyhow::Result<i64> {
    let now_ms = SystemClock.now_ms();
    wait_while_it_moves("the table to be complete", || {
        stage.pipeline.lives()?;
        let through_ms = readers.seen.complete_through_ms.load(Ordering::SeqCst);
        Ok(if through_ms > now_ms { Ok(through_ms) } else { Err(through_ms) })
    })
}

#[allow(clippy::too_many_arguments, reason = "what is compared, and with what")]
fn compare_all(
    runtime: &Runtime,
    site: &Site,
    target: &Target,
    log: &LogConfig,
    partitions: &[PartitionInUse],
    from: WindowStart,
    to: WindowStart,
    known: &Known,
) -> anyhow::Result<Compared> {
    let views = runtime.block_on(compare::views(target, &site.version))?;
    let conserved = compare::conserved(known, &views);
    let second = runtime.block_on(parts::clickhouse(&site.dir.join("second-clickhouse"), 0))?;
    let replayed = second.target().clone();
    runtime.block_on(weir_sink::prepare(&replayed, &site.version))?;
    let order = Order {
        run: "replay".to_owned(),
        topic: EVENTS_TOPIC.to_owned(),
        from,
        to,
        partitions: partitions.to_vec(),
        log: log.clone(),
        target: replayed.clone(),
        schema_file: Some(site.dir.join("drill.toml")),
        workers: REPLAY_WORKERS,
        memory_bytes_max: 64 << 20,
        dir: site.dir.join("replay"),
    };
    let mut run = Run::start(&order)?;
    let status = wait_while_it_moves("the replay", || {
        let through = weir_sink::checkpoint(&replayed, &order.run, &site.version, "", from);
        Ok(run.ended()?.ok_or(runtime.block_on(through).ok()))
    })?;
    ensure!(status.success(), "the replay ended with {status}:\n{}", run.last_lines());
    let digests = [site.digest(target, to.ms())?, site.digest(&replayed, to.ms())?];
    let log = weir_log::open(log, Arc::new(SystemClock))?;
    let differs = compare::differs_from_oracle(&log, EVENTS_TOPIC, partitions, target, &site.version, to.ms());
    let differs_from_oracle = runtime.block_on(differs)?;
    Ok(Compared { conserved, digests, differs_from_oracle })
}

#[allow(clippy::too_many_arguments, reason = "all that there is to say")]
fn report(
    args: &Args,
    seed: u64,
    took: Duration,
    kills_min: u64,
    done: Done,
    known: &Known,
    seen: &Seen,
    compared: &Compared,
) -> anyhow::Result<bool> {
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst);
    let Compared { conserved, digests: [live, replayed], differs_from_oracle } = compared;
    let digests_equal = live == replayed;
    let steps_back = of(&seen.steps_back_in_table) + of(&seen.steps_back_in_status);
    let mut report = Report::default();
    report.add("drill", "crash", "");
    report.add("seed", seed, "draws the same faults again");
    report.add("seconds", seconds(took), "");
    report.add("acknowledged", known.acknowledged_events, "events that were answered 202");
    report.add("counted", conserved.counted, "events that are in the table");
    report.add("lost", conserved.lost, "acknowledged, and not in the table");
    report.add("twice", conserved.twice, "in the table more than once");
    report.add("strange", conserved.strange, "in the table, and never sent");
    report.add("kills", done.kills, "SIGKILLs");
    report.add("kills_collector", done.of_collector, "");
    report.add("kills_run", done.of_run, "");
    report.add("kills_clickhouse", done.of_clickhouse, "");
    report.add("kills_broker", done.of_broker, "");
    report.add("kills_pipeline", done.of_pipeline, "");
    report.add("takeovers", done.takeovers, "runs stopped until another had taken over, then let go on");
    report.add("full_disks", done.full_disks, "");
    report.add("failed_requests", known.failed_requests, "events never acknowledged, however often they were sent");
    report.add("told_to_wait", known.told_to_wait, "answers 503 with Retry-After");
    report.add("unanswered_tries", known.unanswered_tries, "sent again after a connection broke");
    report.add("repeated_posts", known.repeated, "sent again although they were acknowledged");
    report.add("failed_queries", of(&seen.failed_queries), "while ClickHouse was there");
    report.add("queries", of(&seen.queries), "while ClickHouse was there");
    report.add("queries_while_away", of(&seen.queries_while_away), "");
    report.add("steps_back", steps_back, "of complete-through, in the table and in the status");
    report.add("steps_back_in_status", of(&seen.steps_back_in_status), "");
    report.add("longest_gap_ms", known.longest_gap.as_millis() as u64, "between two acknowledgements");
    report.add("digest", live.as_str(), "of the live table");
    report.add("digest_of_replay", replayed.as_str(), "of the same log into a second ClickHouse");
    report.add("digests_equal", digests_equal, "");
    report.add("oracle_equal", differs_from_oracle.is_none(), "row by row with the plainest recomputation");
    report.print(args.json);
    if let Some(difference) = differs_from_oracle {
        eprintln!("drill: not what the oracle says: {difference}");
    }
    let whole = conserved.lost == 0 && conserved.twice == 0 && conserved.strange == 0;
    let asked = done.kills >= kills_min && known.acknowledged_events >= EVENTS_MIN;
    Ok(whole
        && asked
        && known.failed_requests == 0
        && of(&seen.failed_queries) == 0
        && steps_back == 0
        && digests_equal
        && differs_from_oracle.is_none())
}
