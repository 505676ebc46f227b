//! `./dev drill conversion`: to another schema version and back and there again, with a backlog, imports, load, queries and
//! kills; nobody notices.

use std::{
    fmt::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use weir_log::{Clock as _, SystemClock};

use crate::{
    ending::{EVENTS_MIN, Ending},
    faults::{Stage, Victim},
    parts::Broker,
    patience::{sleep, wait_for, wait_while_it_moves},
    readers::Seen,
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
/// Lines of each of the two access logs.
const LINES: u32 = 50_000;
/// How long freshness is looked at, without the shadow and with it, before anything is killed.
const FRESH: Duration = Duration::from_secs(20);
/// With the shadow live's 99th percentile of freshness may be so many times what it is without.
const FRESHNESS_RATIO_MAX: f64 = 2.0;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    play("conversion", MINUTES, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    let second = Schema::write(include_str!("../../../schemas/versions/v2.toml"), dir, "second.toml", 2, 3)?;
    let file = second.file.display().to_string();
    let rate = 1.5 * EVENTS_MIN as f64 / (60.0 * MINUTES);
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    stage.say("a backlog is made");
    let backlog = site.generate(args.events, seed)?;
    stage.windows_from_now_on("live to count the backlog", None)?;
    for (number, name) in ["two.example", "three.example"].into_iter().enumerate() {
        let log = dir.join(format!("access-{number}.log"));
        std::fs::write(&log, access_log(number as u32))?;
        site.import(&stage.target, name, &log)?;
    }
    stage.windows_from_now_on("live beside the imports", None)?;
    let without = freshness(&stage, FRESH)?;

    stage.say("weir migrate plan, start");
    let plan = site.migrate(&stage.target, &["plan", "--file", &file])?;
    ensure!(plan.contains("from generation 1 to 2"), "the plan is another one: {plan}");
    let started = Instant::now();
    site.migrate(&stage.target, &["start", "--file", &file, "--reason", "a drill"])?;
    let with = freshness(&stage, FRESH)?;
    let filled = Filled::watch(&stage, &second, started);
    for victim in [Victim::Run, Victim::ClickHouse, Victim::Broker, Victim::Collector, Victim::Pipeline, Victim::Run] {
        sleep(Duration::from_secs(2))?;
        stage.kill(victim)?;
    }
    let seconds_to_fill = filled.wait(&mut stage)?;
    stage.say("the shadow has caught up");

    let verified = site.migrate(&stage.target, &["verify"])?;
    let agrees = verified.contains("both generations agree");
    let mut shown = Vec::new();
    for verb in ["swap", "revert", "swap"] {
        stage.say(&format!("weir migrate {verb}"));
        let ready: &[&str] = if verb == "swap" { &["--when-ready", "--hold", "0s"] } else { &[] };
        let begin = Instant::now();
        wait_for("the swap", || {
            let words = [&[verb, "--reason", "a drill"], ready].concat();
            Ok(site.migrate(&stage.target, &words).ok())
        })?;
        shown.push(begin.elapsed());
        stage.windows_from_now_on("windows after it", None)?;
    }
    let swapped = Instant::now();
    stage.say("weir migrate drop, as soon as it may");
    let refused = site.migrate(&stage.target, &["drop", "--reason", "a drill"]).is_err();
    wait_while_it_moves("ten minutes to pass", || {
        stage.collector.lives()?;
        stage.pipeline.lives()?;
        let through_ms = stage.readers.seen.complete_through_ms.load(Ordering::SeqCst);
        Ok(if swapped.elapsed() > Duration::from_secs(601) { Ok(()) } else { Err(through_ms) })
    })?;
    let dropped = site.migrate(&stage.target, &["drop", "--reason", "a drill"])?.contains("dropped: generation 1");
    stage.say("dropped");

    let ending = Ending::reach_by(stage, &second, false, |stage| {
        let first_ms =
            stage.partitions.iter().map(|in_use| in_use.effective_ms).min().context("a partition is in use")?;
        Ok(second.version.width.window_of(first_ms - second.version.lateness_ms))
    })?;
    let events = backlog + u64::from(2 * LINES);
    let ratio = p99(&with) as f64 / p99(&without).max(1) as f64;
    let mut report = Report::default();
    report.add("drill", "conversion", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("backlog", backlog, "events that were in the log before");
    report.add("imported", u64::from(2 * LINES), "lines of two access logs");
    report.add("seconds_to_fill", seconds(seconds_to_fill), "until the shadow had caught up, with all that was killed");
    let per_s = events as f64 / seconds_to_fill.as_secs_f64();
    report.add("shadow_events_per_second", rounded(per_s, 1.0), "with what was killed meanwhile");
    report.add("freshness_p99_ms_without", p99(&without), "how old complete-through was, before the shadow began");
    report.add("freshness_p99_ms_with", p99(&with), "while it was filled, before anything was killed");
    report.add("freshness_ratio", rounded(ratio, 100.0), "");
    report.add("verified", agrees, "all that must be equal is");
    let longest = shown.iter().max().copied().unwrap_or_default();
    report.add("seconds_to_show", seconds(longest), "the longest of swap, revert and swap");
    report.add("drop_refused", refused, "right after the swap");
    report.add("dropped", dropped, "ten minutes later");
    report.print(args.flags.json);
    Ok(ending.held() && agrees && refused && dropped && ratio <= FRESHNESS_RATIO_MAX)
}

/// How old complete-through was, ms, as often as it was looked.
fn freshness(stage: &Stage<'_>, long: Duration) -> anyhow::Result<Vec<i64>> {
    let (begin, mut ages) = (Instant::now(), Vec::new());
    while begin.elapsed() < long {
        ages.push(SystemClock.now_ms() - stage.readers.seen.complete_through_ms.load(Ordering::SeqCst));
        sleep(LOOK_EVERY)?;
    }
    ages.sort_unstable();
    Ok(ages)
}

fn p99(ages: &[i64]) -> i64 {
    ages.get(ages.len() * 99 / 100).copied().unwrap_or_default()
}

/// When the shadow has all that came before it was looked for.
struct Filled {
    stop: Arc<AtomicBool>,
    watch: JoinHandle<Option<Duration>>,
}

impl Filled {
    fn watch(stage: &Stage<'_>, schema: &Schema, started: Instant) -> Filled {
        let (target, version, from) = (stage.target.clone(), schema.version.clone(), stage.from);
        let (stop, runtime) = (Arc::new(AtomicBool::new(false)), stage.runtime.handle().clone());
        let (stopped, wanted_ms) = (stop.clone(), SystemClock.now_ms());
        let from = version.width.window_of(from.ms());
        let watch = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let through = runtime.block_on(weir_sink::checkpoint(&target, "v2-live", &version, "", from));
                if through.is_ok_and(|through| through.ms() >= wanted_ms) {
                    return Some(started.elapsed());
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            None
        });
        Filled { stop, watch }
    }

    fn wait(self, stage: &mut Stage<'_>) -> anyhow::Result<Duration> {
        let seen: Arc<Seen> = stage.readers.seen.clone();
        let waited = wait_while_it_moves("the shadow to catch up", || {
            stage.collector.lives()?;
            stage.pipeline.lives()?;
            Ok(if self.watch.is_finished() { Ok(()) } else { Err(seen.complete_through_ms.load(Ordering::SeqCst)) })
        });
        self.stop.store(true, Ordering::SeqCst);
        waited?;
        self.watch.join().ok().flatten().context("the shadow did not catch up")
    }
}

/// Lines of an access log of some days.
fn access_log(number: u32) -> String {
    let mut text = String::new();
    for line in 0..LINES {
        let (day, hour, minute, second) = (1 + line / 5_000 % 28, line / 3_600 % 24, line / 60 % 60, line % 60);
        let page = line % 997;
        let _ = writeln!(
            text,
            "203.0.113.{} - - [{day:02}/Mar/2020:{hour:02}:{minute:02}:{second:02} +0000] \"GET /{number}/{page} HTTP/1.1\" 200 5 \
             \"-\" \"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\"",
            line % 250
        );
    }
    text
}
