//! `./dev drill pause`: a maintenance: paused under load, everything killed while it is paused, resumed with the present first.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use weir_schemas::control::EtaKept;

use crate::{
    ending::{EVENTS_MIN, Ending},
    faults::{Stage, Victim},
    parts::Broker,
    patience::{sleep, wait_for, wait_while_it_moves},
    report::{Report, rounded, seconds},
    setting::{Flags, play},
    site::Site,
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long the load goes on, about: a half of it the run is paused
    #[arg(long, default_value_t = 4.0, value_name = "M")]
    minutes: f64,
    #[command(flatten)]
    flags: Flags,
}

/// The share of the time that the gap run works. At its usual half it would be done before anything could be said of when.
const GAP_SHARE: &str = "0.005";
/// After a window and the lateness, rows of the present are there within so much.
const PRESENT_WITHIN: Duration = Duration::from_secs(3);

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    play("pause", args.minutes, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let duration = Duration::from_secs_f64(60.0 * args.minutes);
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    let rate = 1.5 * EVENTS_MIN as f64 / duration.as_secs_f64();
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    sleep(duration / 4)?;

    let paused = Instant::now();
    pause(&stage, "live")?;
    let seconds_to_pause = paused.elapsed();
    let boundary_ms = wait_for("the pause in weir log", || newest(&site, "paused", "through_ms"))?;
    for victim in [Victim::Collector, Victim::ClickHouse, Victim::Broker] {
        stage.kill(victim)?;
    }
    stage.say("SIGKILL to Pipeline");
    stage.kill_pipeline()?;
    let mut runs = 0;
    while paused.elapsed() < duration / 2 {
        runs += stage.pipeline.children("run").len();
        stage.pipeline.lives()?;
        sleep(Duration::from_millis(200))?;
    }
    let stood_still = runs == 0 && through_ms(&stage)? == boundary_ms;
    let paused_for = paused.elapsed();

    let resumed = Instant::now();
    let seconds_to_present = resume(&stage, Some(GAP_SHARE))?;
    let gap_filled = filled(&mut stage)?;
    let seconds_to_fill = resumed.elapsed();
    let eta = eta_kept(&site)?;

    let ending = Ending::reach(stage, |stage| Ok(stage.from))?;
    let promised = Duration::from_millis((site.version.width.ms() + site.version.lateness_ms) as u64) + PRESENT_WITHIN;
    let in_time = seconds_to_present <= promised;
    let mut report = Report::default();
    report.add("drill", "pause", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("seconds_to_pause", seconds(seconds_to_pause), "until it was acknowledged");
    report.add("seconds_paused", seconds(paused_for), "");
    report.add("stood_still", stood_still, "nothing was computed meanwhile, also after everything was killed");
    report.add(
        "seconds_to_present",
        seconds(seconds_to_present),
        "until rows of the moment of the resume were readable",
    );
    report.add("seconds_promised", seconds(promised), "a window, the lateness, and 3 s");
    report.add("seconds_to_fill", seconds(seconds_to_fill), "until the gap was filled");
    report.add("gap_filled", gap_filled, "and the catch-up was told");
    let after = |ms: fn(EtaKept) -> i64| eta.map(|eta| (ms(eta) - eta.half_ms) as f64 / 1000.0);
    let (said, came) = (after(|eta| eta.said_ms), after(|eta| eta.came_ms));
    let off = said.zip(came).map(|(said, came)| came - said);
    report.add("eta_said_seconds", said, "at half of the gap, of how long the rest of it would take");
    report.add("eta_came_seconds", came, "how long it took, and was told to have");
    report.add("eta_error_seconds", off.map(|off| rounded(off, 10.0)), "above 0: it came later than was said");
    report.add("eta_error_share", off.zip(came).map(|(off, came)| rounded(off.abs() / came, 100.0)), "of what it took");
    report.print(args.flags.json);
    Ok(ending.held() && stood_still && gap_filled && in_time && eta.is_some())
}

/// Pauses a run for longer than any drill, until it stands.
pub(crate) fn pause(stage: &Stage<'_>, run: &str) -> anyhow::Result<()> {
    stage.say(&format!("weir pause {run}"));
    let said = stage.site.operate(&["pause", run, "--for", "6h"])?;
    ensure!(said.contains("\npaused: complete through "), "the pause was not acknowledged: {said}");
    Ok(())
}

/// Lets live go on with the present first, the gap run held back to a share of the time if there is one, and waits for rows of
/// the window in which that was: how long it took.
pub(crate) fn resume(stage: &Stage<'_>, gap_share: Option<&str>) -> anyhow::Result<Duration> {
    stage.say("weir resume live --live-first");
    let site = stage.site;
    let begin = Instant::now();
    let now_ms = weir_log::Clock::now_ms(&weir_log::SystemClock);
    let sql = format!(
        "SELECT count() FROM {}.stats WHERE emitted_in >= toDateTime({}, 'UTC')",
        stage.target.database,
        site.version.width.window_of(now_ms).ms() / 1000
    );
    std::thread::scope(|scope| {
        let ordered = scope.spawn(|| site.operate(&["resume", "live", "--live-first"]));
        // There is no gap run to hold back before the resume is in the log.
        let held_back = gap_share.map(|share| {
            scope.spawn(move || wait_for("the gap run", || Ok(site.operate(&["throttle", "gap", share]).ok())))
        });
        let seen = wait_for("rows of the present", || {
            let rows = stage.runtime.block_on(stage.target.client().query(&sql).fetch_one::<u64>());
            Ok(rows.is_ok_and(|rows| rows > 0).then(|| begin.elapsed()))
        });
        let said = ordered.join().ok().context("the command's thread")??;
        ensure!(said.contains("\nresumed: goes on from "), "the resume was not acknowledged: {said}");
        held_back.map_or(Ok(()), |thread| thread.join().ok().context("the other command's thread")?.map(drop))?;
        seen
    })
}

/// Waits until nothing is left to the gap run, and that is told: whether it is told of this resume.
pub(crate) fn filled(stage: &mut Stage<'_>) -> anyhow::Result<bool> {
    let site = stage.site;
    wait_while_it_moves("the gap to be filled", || {
        stage.pipeline.lives()?;
        let gaps = stage.runtime.block_on(weir_sink::gaps(&stage.target, &site.version));
        Ok(match gaps {
            Ok(gaps) if gaps.is_empty() => Ok(()),
            gaps => Err((gaps.ok(), stage.readers.seen.complete_through_ms.load(Ordering::SeqCst))),
        })
    })?;
    let of_live = |what| Ok(site.newest_of("live", what)?.and_then(|action| action["id"].as_i64()));
    let caught_up = wait_for("the catch-up in weir log", || of_live("caught_up"))?;
    let of: anyhow::Result<Option<i64>> = of_live("resume");
    stage.say("caught up");
    Ok(Some(caught_up) == of?)
}

fn through_ms(stage: &Stage<'_>) -> anyhow::Result<i64> {
    let through = weir_sink::checkpoint(&stage.target, "live", &stage.site.version, "", stage.from);
    Ok(stage.runtime.block_on(through)?.ms())
}

/// A number of the newest control record that does this.
pub(crate) fn newest(site: &Site, what: &str, number: &str) -> anyhow::Result<Option<i64>> {
    Ok(site.newest(what)?.and_then(|action| action[number].as_i64()))
}

/// What was said when half of the gap was filled of when all of it would be; `None`: nothing could be said then.
fn eta_kept(site: &Site) -> anyhow::Result<Option<EtaKept>> {
    let caught_up = site.newest("caught_up")?.context("the catch-up is not told any more")?;
    Ok(serde_json::from_value(caught_up["eta"].clone())?)
}
