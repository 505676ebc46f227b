//! `./dev drill backup`: copies under load, then ClickHouse's disk is lost, and a copy and the log give the table back.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use weir_log::{Clock as _, SystemClock};

use crate::{
    ending::{EVENTS_MIN, Ending},
    faults::Stage,
    parts::Broker,
    patience::{sleep, wait_for, wait_while_it_moves},
    readers::Analyst,
    report::{Report, seconds},
    setting::{Flags, play},
    site::Site,
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long the load goes on, about, and copies are made; the first one after 70 s at the earliest
    #[arg(long, default_value_t = 5.0, value_name = "M")]
    minutes: f64,
    #[command(flatten)]
    flags: Flags,
}

/// A copy proves by day what was recorded a minute before it: the first one has something to prove after so long.
const PROVES_AFTER: Duration = Duration::from_secs(70);
/// Behind the present by a window, the lateness, and so much, the table has caught up, as after a pause.
const CAUGHT_UP_MS: i64 = 5_000;
const FIRST: &str = "one";
const SECOND: &str = "two";

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    play("backup", args.minutes, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let duration = Duration::from_secs_f64(60.0 * args.minutes);
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    let rate = 1.5 * EVENTS_MIN as f64 / duration.as_secs_f64();
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    sleep((duration / 4).max(PROVES_AFTER))?;
    let (_, seconds_first) = copy(&stage, FIRST)?;
    sleep(duration / 8)?;
    let (second, seconds_second) = copy(&stage, SECOND)?;
    let incremental = second.contains(&format!("what is not in {FIRST}"));
    let verified = [FIRST, SECOND].map(|name| stage.site.backup(&stage.target, &["verify", name]));
    let verified = verified.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let proved = verified.iter().map(|said| rows(said)).collect::<anyhow::Result<Vec<_>>>()?;
    sleep(duration / 8)?;

    let lost = lose_the_disk_and_come_back(&mut stage)?;
    sleep(duration / 4)?;

    let ending = Ending::reach(stage, |stage| Ok(stage.from))?;
    let at_once = ending.answered_at_once();
    let mut report = Report::default();
    report.add("drill", "backup", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("answered_at_once", at_once, "every POST had its 202 the first time it was sent");
    report.add("seconds_to_copy", seconds(seconds_first), "the first time, all of it");
    report.add("seconds_to_copy_again", seconds(seconds_second), "what the first copy did not hold");
    report.add("incremental", incremental, "");
    report.add("rows_proved", proved[0], "by the digests of `weir backup verify`, of the first copy");
    report.add("rows_proved_again", proved[1], "of the second one");
    report.add("seconds_to_restore", seconds(lost.to_restore), "the command's own time");
    report.add("seconds_offline", seconds(lost.offline), "from the kill until an analyst had the copy's numbers");
    report.add("seconds_to_caught_up", seconds(lost.to_caught_up), "from the kill until statistics were on time again");
    report.add("seconds_of_log_again", seconds(lost.again), "what lay between the copy and the kill");
    report.print(args.flags.json);
    Ok(ending.held() && at_once && incremental && proved.iter().all(|rows| *rows > 0))
}

/// What `weir backup create` said, and how long it took.
pub(crate) fn copy(stage: &Stage<'_>, name: &str) -> anyhow::Result<(String, Duration)> {
    stage.say(&format!("weir backup create {name}"));
    let begin = Instant::now();
    Ok((stage.site.backup(&stage.target, &["create", name])?, begin.elapsed()))
}

/// The rows that a copy was proved by: "copy NAME is whole: 1 day, 4711 rows, …".
fn rows(verified: &str) -> anyhow::Result<u64> {
    let words: Vec<&str> = verified.split_whitespace().collect();
    let at =
        words.iter().position(|word| ["row,", "rows,"].contains(word)).filter(|_| verified.contains(" is whole: "));
    let rows = at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok());
    rows.with_context(|| format!("weir backup verify said {verified}"))
}

/// How long each part of it took.
struct Lost {
    to_restore: Duration,
    offline: Duration,
    to_caught_up: Duration,
    again: Duration,
}

/// ClickHouse is killed, its folder removed, an empty one started in its place, and the second copy brought back.
fn lose_the_disk_and_come_back(stage: &mut Stage<'_>) -> anyhow::Result<Lost> {
    let (site, seen) = (stage.site, stage.readers.seen.clone());
    let copied_ms = copied_through_ms(site)?;
    let analyst = Analyst::of(&stage.target)?;
    let counted =
        format!("SELECT sum(page_views) FROM stats WHERE emitted_in < toDateTime({}, 'UTC')", copied_ms / 1000);
    let before = stage.runtime.block_on(analyst.query(&counted))?;
    let through_ms = seen.complete_through_ms.load(Ordering::SeqCst);

    stage.say("SIGKILL to ClickHouse, and its folder is removed");
    let begin = Instant::now();
    seen.away(true);
    seen.going_back.store(true, Ordering::SeqCst);
    stage.end_clickhouse()?;
    std::fs::remove_dir_all(&stage.clickhouse_dir)?;
    // Its users are no data: whoever sets up a server gives it those it had.
    let password = stage.target.password.clone();
    std::fs::create_dir(&stage.clickhouse_dir)?;
    std::fs::write(stage.clickhouse_dir.join("writer-password"), password)?;
    stage.start_clickhouse()?;
    stage.say("an empty ClickHouse is there; weir backup restore");
    let ordered = Instant::now();
    let restored = site.backup(&stage.target, &["restore", SECOND, "--reason", "a drill: the disk is lost"])?;
    let to_restore = ordered.elapsed();
    ensure!(restored.contains(&format!("the tables are those of copy {SECOND}")), "the copy is not back: {restored}");
    wait_for("an analyst to have the copy's numbers", || {
        stage.pipeline.lives()?;
        Ok(stage.runtime.block_on(analyst.query(&counted)).ok().filter(|counted| *counted == before))
    })?;
    let offline = begin.elapsed();
    seen.away(false);
    stage.say("queries are answered with the copy's numbers");
    let due_ms = site.version.width.ms() + site.version.lateness_ms + CAUGHT_UP_MS;
    wait_while_it_moves("the table to catch up", || {
        stage.pipeline.lives()?;
        let through_ms = seen.complete_through_ms.load(Ordering::SeqCst);
        Ok(if through_ms >= SystemClock.now_ms() - due_ms { Ok(()) } else { Err(through_ms) })
    })?;
    let to_caught_up = begin.elapsed();
    stage.say("caught up");
    seen.going_back.store(false, Ordering::SeqCst);
    let again = Duration::from_millis(u64::try_from(through_ms - copied_ms)?);
    Ok(Lost { to_restore, offline, to_caught_up, again })
}

/// Through when live was complete in the newest copy, by the control topic.
fn copied_through_ms(site: &Site) -> anyhow::Result<i64> {
    let made = site.newest("backup_made")?;
    let points = made.as_ref().and_then(|made| made["points"].as_array());
    let of_live = points.and_then(|points| points.iter().find(|point| point[0] == "live"));
    of_live.and_then(|point| point[1].as_i64()).context("the control topic tells of no copy of live")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_those_of_a_copy_that_is_whole() {
        let said = "copy two is whole: 1 day, 4711 rows, every digest as it was recorded\n";
        assert_eq!(rows(said).unwrap(), 4711);
        assert!(rows("copy two is NOT what it must be").is_err());
    }
}
