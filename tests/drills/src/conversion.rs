//! `./dev drill conversion`: to another schema version and back and there again, with a backlog, imports, load, queries and
//! kills; nobody notices.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::runtime::Runtime;

use crate::{
    access_log,
    ending::{EVENTS_MIN, Ending},
    faults::{Stage, Victim, first_window},
    freshness::{Ages, Watch},
    migration,
    parts::Broker,
    patience::{sleep, wait_while_it_moves},
    report::{Report, rounded, seconds},
    setting::{Flags, play},
    site::{Schema, Site},
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Events of the backlog, about
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    events: u64,
    #[command(flatten)]
    flags: Flags,
}

/// About: nothing is dropped within ten minutes of a swap.
const MINUTES: f64 = 18.0;
/// The backlog comes so fast.
const EVENTS_PER_SECOND: f64 = 250_000.0;
/// Lines of each of the two access logs, and the days they are of.
const LINES: u64 = 50_000;
const DAYS: u32 = 10;
/// How long freshness is looked at, without the shadow and with it, before anything is killed.
const FRESH: Duration = Duration::from_secs(20);
const BETWEEN_KILLS: Duration = Duration::from_secs(2);
/// With the shadow live's 99th percentile of freshness may be so many times what it is without.
const FRESHNESS_RATIO_MAX: f64 = 2.0;

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    play("conversion", MINUTES, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    let v2 = include_str!("../../../schemas/versions/v2.toml");
    let second = Schema::write(v2, dir, "second.toml", Some((2, 3)))?;
    let rate = 1.5 * EVENTS_MIN as f64 / (60.0 * MINUTES);
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    stage.say("a backlog is made");
    let long = Duration::from_secs_f64(args.events as f64 / EVENTS_PER_SECOND);
    let backlog = site.generate(args.events, long, seed)?;
    stage.windows_from_now_on("live to count the backlog", None)?;
    for (number, name) in (1..).zip(["two.example", "three.example"]) {
        let log = dir.join("access.log");
        access_log::write(&log, LINES, DAYS, seed.wrapping_add(number))?;
        site.import(&stage.target, name, &log)?;
    }
    stage.windows_from_now_on("live beside the imports", None)?;
    let without = freshness(&stage)?;

    migration::plan(&stage, &second)?;
    let started = Instant::now();
    migration::start(&stage, &second)?;
    let with = freshness(&stage)?;
    migration::still_fills(&stage, "when its freshness had been looked at")?;
    sleep(BETWEEN_KILLS)?;
    migration::still_fills(&stage, "at the first kill")?;
    stage.kill(Victim::Run)?;
    for victim in [Victim::ClickHouse, Victim::Broker, Victim::Collector, Victim::Pipeline, Victim::Run] {
        sleep(BETWEEN_KILLS)?;
        stage.kill(victim)?;
    }
    migration::caught_up(&mut stage)?;
    let to_fill = started.elapsed();

    let (agrees, _) = migration::agrees(&stage)?;
    let mut shown = Vec::new();
    for verb in ["swap", "revert", "swap"] {
        shown.push(migration::show(&stage, verb)?);
        stage.windows_from_now_on("windows after it", None)?;
    }
    let swapped = Instant::now();
    stage.say("weir migrate drop, as soon as it may");
    let ordered = site.migrate(&stage.target, &["drop", "--reason", "a drill"]);
    let refused = migration::is_held(&ordered);
    if !refused {
        stage.say(&format!("it was not refused because it is held: {ordered:?}"));
    }
    wait_while_it_moves("ten minutes to pass", || {
        stage.collector.lives()?;
        stage.pipeline.lives()?;
        let through_ms = stage.readers.seen.complete_through_ms.load(Ordering::SeqCst);
        Ok(if swapped.elapsed() > Duration::from_secs(601) { Ok(()) } else { Err(through_ms) })
    })?;
    let dropped = site.migrate(&stage.target, &["drop", "--reason", "a drill"])?.contains("dropped: generation 1");
    stage.say("dropped");

    let imports = site.imports()?;
    let imported = imports.iter().map(|import| import.events).sum::<u64>();
    let ending = Ending::reach_by(stage, &second, false, |stage| first_window(&stage.partitions, &second.version))?;
    let (without_ms, with_ms) = (without.p99_ms(), with.p99_ms());
    let ratio = with_ms as f64 / without_ms.max(1) as f64;
    let mut report = Report::default();
    report.add("drill", "conversion", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("backlog", backlog, "events that were in the log before");
    report.add("imported", imported, "events of two access logs");
    report.add("seconds_to_fill", seconds(to_fill), "until the shadow had caught up, with all that was killed");
    let per_s = (backlog + imported) as f64 / to_fill.as_secs_f64();
    report.add("shadow_events_per_second", rounded(per_s, 1.0), "with what was killed meanwhile");
    report.add("freshness_p99_ms_without", without_ms, "how old complete-through was, before the shadow began");
    report.add("freshness_p99_ms_with", with_ms, "while it was filled, before anything was killed");
    report.add("freshness_ratio", rounded(ratio, 100.0), "");
    report.add("verified", agrees, "all that must be equal is");
    let longest = shown.iter().max().copied().context("it was shown")?;
    report.add("seconds_to_show", seconds(longest), "the longest of swap, revert and swap");
    report.add("drop_refused", refused, "right after the swap");
    report.add("dropped", dropped, "ten minutes later");
    report.print(args.flags.json);
    let promised = [ending.held(), ending.asked_enough(), agrees, refused, dropped, ratio <= FRESHNESS_RATIO_MAX];
    Ok(promised.iter().all(|held| *held))
}

fn freshness(stage: &Stage<'_>) -> anyhow::Result<Ages> {
    let watch = Watch::start(stage.readers.seen.clone());
    sleep(FRESH)?;
    watch.end()
}
