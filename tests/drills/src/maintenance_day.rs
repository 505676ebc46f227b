//! `./dev drill maintenance-day`: the day that others announce with hours of silence, in minutes: a month of traffic is made, a
//! copy is taken, another schema version is filled beside, everything is paused in the middle and goes on, and the new one is
//! shown. It ends in a table: what, announced, ours.

use std::{
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use weir_schemas::control::import_run;

use crate::{
    access_log, backup,
    ending::{EVENTS_MIN, Ending},
    faults::{Stage, Victim, first_window},
    freshness::Watch,
    migration::{self, Far},
    parts::Broker,
    patience::{sleep, wait_while_it_moves},
    pause,
    readers::Seen,
    report::{Report, rounded, seconds, thousands},
    setting::{Flags, play},
    site::{SITES, Schema, Site},
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Events of the month, about: access logs of several sites, and what comes before and during the pause
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    events: u64,
    #[command(flatten)]
    flags: Flags,
}

/// About.
const MINUTES: f64 = 15.0;
/// Days that each access log is of.
const DAYS: u32 = 31;
/// Of ten events so many are in the access logs; half of the rest came live before the copy, half while everything is paused.
const IN_LOGS: u64 = 6;
const BEFORE: Duration = Duration::from_secs(10);
/// Thousandths of the conversion that are done when everything is paused: what comes meanwhile is work, too.
const PAUSED_AT: u64 = 400;
/// How long.
const PAUSE: Duration = Duration::from_secs(120);
/// Thousandths that are done when it is asked when all will be.
const HALF: u64 = 500;
/// Windows that come so much after they were due are late.
const LATE_MS: i64 = 5_000;
/// After a window and the lateness, rows of the present are there within so much, beside the run that fills the gap.
const PRESENT_WITHIN: Duration = Duration::from_secs(10);

/// What was announced elsewhere for such a day: of other data, on other machines.
const OFFLINE_MINUTES: [u64; 2] = [30, 60];
const CONVERSION_HOURS: [u64; 2] = [6, 12];
const CATCH_UP_HOURS: [u64; 2] = [6, 12];

/// What came of the day.
#[derive(Debug, Clone, Default)]
struct Day {
    events: u64,
    queries: u64,
    failed_queries: u64,
    longest_wait: Duration,
    acknowledged: u64,
    answered_at_once: bool,
    copy: Duration,
    /// With the pause.
    conversion: Duration,
    /// Of it live's windows were late for so long, pause and catch-up aside.
    late: Duration,
    paused: Duration,
    present: Duration,
    catch_up: Duration,
    /// Said when half was done, of how long the rest would take, and how long it took.
    eta: Option<(Duration, Duration)>,
    verified: bool,
    digests_equal: bool,
}

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.events >= 1000, "--events {} is less than 1000", args.events);
    play("maintenance-day", MINUTES, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let broker = Broker::start(dir)?;
    let site = Site::of(dir, &broker.bootstrap(), None)?;
    let v2 = include_str!("../../../schemas/versions/v2.toml");
    let second = Schema::write(v2, dir, "second.toml", None)?;
    let rate = 1.5 * EVENTS_MIN as f64 / (60.0 * MINUTES);
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    let seen = stage.readers.seen.clone();
    let of_live = args.events * (10 - IN_LOGS) / 20;

    let month = Instant::now();
    import_a_month(&mut stage, args.events * IN_LOGS / 10, seed)?;
    stage.say("live traffic");
    let before = site.generate(of_live, BEFORE, seed)?;
    stage.windows_from_now_on("live to count it", None)?;
    counted(&mut stage)?;
    let to_count = month.elapsed();
    stage.say("a month of traffic is counted: the day begins");

    let day = Instant::now();
    let (_, copy) = backup::copy(&stage, "day")?;
    let plan_said = migration::plan(&stage, &second)?;
    let (started, watch) = (Instant::now(), Watch::start(seen.clone()));
    migration::start(&stage, &second)?;
    let is_in_the_middle = |far: &Far| far.is_filling && far.done >= PAUSED_AT;
    migration::wait_until(&mut stage, "the middle of the conversion", is_in_the_middle)?;
    let due_ms = site.version.width.ms() + site.version.lateness_ms + LATE_MS;
    let mut late = watch.end()?.late(due_ms);

    let began = Instant::now();
    pause::pause(&stage, "live")?;
    pause::pause(&stage, "shadow")?;
    migration::still_fills(&stage, "when everything was paused")?;
    stage.say("nothing is computed; traffic goes on");
    let meanwhile = site.generate(of_live, PAUSE / 2, seed.wrapping_add(1))?;
    stage.kill(Victim::Broker)?;
    stage.say("SIGKILL to Pipeline");
    stage.kill_pipeline()?;
    sleep(PAUSE.saturating_sub(began.elapsed()))?;
    let paused = began.elapsed();

    let resumed = Instant::now();
    let present = pause::resume(&stage, None)?;
    stage.say("weir resume shadow");
    site.operate(&["resume", "shadow"])?;
    let half = eta_at_half(seen.clone());
    let gap_filled = pause::filled(&mut stage)?;
    let catch_up = resumed.elapsed();
    let watch = Watch::start(seen.clone());
    stage.kill(Victim::Run)?;
    migration::caught_up(&mut stage)?;
    let (conversion, caught_up) = (started.elapsed(), Instant::now());
    late += watch.end()?.late(due_ms);
    let half = half.join().ok().context("the thread that asks for the ETA")?;

    let (verified, to_verify) = migration::agrees(&stage)?;
    let to_show = migration::show(&stage, "swap")?;
    let day = day.elapsed();
    stage.say("shown: the day is over");
    stage.kill(Victim::Run)?;

    let imported: u64 = site.imports()?.iter().map(|import| import.events).sum();
    let ending = Ending::reach_by(stage, &second, false, |stage| first_window(&stage.partitions, &second.version))?;
    let of_day = Day {
        events: imported + before + meanwhile,
        queries: seen.queries.load(Ordering::SeqCst),
        failed_queries: seen.failed_queries.load(Ordering::SeqCst),
        longest_wait: Duration::from_millis(seen.longest_wait_ms.load(Ordering::SeqCst)),
        acknowledged: ending.known.acknowledged_events,
        answered_at_once: ending.answered_at_once(),
        copy,
        conversion,
        late,
        paused,
        present,
        catch_up,
        eta: half.map(|(at, said)| (said, caught_up - at)),
        verified,
        digests_equal: ending.digests_equal(),
    };
    let promised = Duration::from_millis((site.version.width.ms() + site.version.lateness_ms) as u64) + PRESENT_WITHIN;
    let mut report = Report::default();
    report.add("drill", "maintenance-day", "");
    report.add("seed", seed, "");
    ending.add_to(&mut report);
    report.add("answered_at_once", of_day.answered_at_once, "every POST had its 202 the first time it was sent");
    report.add("events", of_day.events, "of the month, besides those that were acknowledged");
    report.add("imported", imported, "of them from access logs of a month");
    report.add("seconds_to_count", seconds(to_count), "until the month was in the table, access logs written and read");
    report.add("seconds_to_copy", seconds(copy), "of all that was there; nothing was offline");
    report.add("plan_said", plan_said, "of how long the conversion would take");
    report.add("seconds_to_convert", seconds(conversion), "until the new table had all, with the pause");
    report.add("seconds_late", seconds(late), "of them live's windows were late, pause and catch-up aside");
    report.add("events_per_second_converted", of_day.converted_per_s(), "without the pause");
    report.add("seconds_paused", seconds(paused), "live and shadow");
    report.add("events_while_paused", meanwhile, "that waited in the log, besides those that were acknowledged");
    report.add("seconds_to_present", seconds(present), "until rows of the moment of the resume were readable");
    report.add("seconds_promised", seconds(promised), "a window, the lateness, and 10 s");
    report.add("seconds_to_catch_up", seconds(catch_up), "from the resume until nothing was missing any more");
    report.add("events_per_second_caught_up", rounded(meanwhile as f64 / catch_up.as_secs_f64(), 1.0), "");
    report.add("gap_filled", gap_filled, "and the catch-up was told");
    report.add(
        "eta_said_seconds",
        of_day.eta.map(|(said, _)| seconds(said)),
        "at half, of how long the rest would take",
    );
    report.add("eta_came_seconds", of_day.eta.map(|(_, came)| seconds(came)), "how long it took");
    report.add("verified", verified, "all that must be equal is");
    report.add("seconds_to_verify", seconds(to_verify), "");
    report.add("seconds_to_show", seconds(to_show), "from the order of the swap until the new table was shown");
    report.add("seconds_of_the_day", seconds(day), "from the copy until the new table was shown");
    report.add("cores", std::thread::available_parallelism().map_or(0, |cores| cores.get()), "of this machine");
    report.add("announced_offline_minutes", OFFLINE_MINUTES.to_vec(), "elsewhere, of other data");
    report.add("announced_conversion_hours", CONVERSION_HOURS.to_vec(), "elsewhere, with processing stopped");
    report.add("announced_catch_up_hours", CATCH_UP_HOURS.to_vec(), "elsewhere");
    report.table(of_day.table());
    report.print(args.flags.json);
    let asked = [ending.held(), ending.asked_enough(), of_day.answered_at_once];
    let proved = [verified, gap_filled, present <= promised, of_day.eta.is_some()];
    Ok(asked.iter().chain(&proved).all(|held| *held))
}

/// Writes an access log of a month for each site, and imports it.
fn import_a_month(stage: &mut Stage<'_>, lines: u64, seed: u64) -> anyhow::Result<()> {
    let (site, log) = (stage.site, stage.site.dir.join("access.log"));
    for (number, name) in (0..).zip(SITES) {
        stage.say(&format!("a month of {name} is written and imported"));
        access_log::write(&log, lines / SITES.len() as u64, DAYS, seed.wrapping_add(number))?;
        site.import(&stage.target, name, &log)?;
        std::fs::remove_file(&log)?;
    }
    Ok(())
}

/// Waits until all imports are in the table.
fn counted(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (site, version) = (stage.site, &stage.site.version);
    for import in site.imports()? {
        let (run, (from, to)) = (import_run(&import.id), import.windows(version));
        wait_while_it_moves("an import to be counted", || {
            stage.collector.lives()?;
            stage.pipeline.lives()?;
            let through = weir_sink::checkpoint(&stage.target, &run, version, &import.id, from);
            let through = stage.runtime.block_on(through).ok();
            Ok(if through.is_some_and(|through| through >= to) { Ok(()) } else { Err(through) })
        })?;
    }
    Ok(())
}

/// When half of the conversion was done, or as soon after it as it was said, how long the rest would take; `None`: that was not
/// said before all was done.
fn eta_at_half(seen: Arc<Seen>) -> JoinHandle<Option<(Instant, Duration)>> {
    std::thread::spawn(move || {
        loop {
            let far = Far::of(&seen.conversion.lock().unwrap_or_else(PoisonError::into_inner));
            match migration::rest(&far).filter(|_| far.done >= HALF) {
                Some(rest) => return Some((Instant::now(), rest)),
                None if far.has_caught_up => return None,
                None => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    })
}

impl Day {
    fn converted_per_s(&self) -> f64 {
        rounded(self.events as f64 / self.conversion.saturating_sub(self.paused).as_secs_f64(), 1.0)
    }

    /// What, announced, ours.
    fn table(&self) -> Vec<[String; 3]> {
        let between = |[least, most]: [u64; 2], unit| format!("{least}-{most} {unit}");
        let row = |what: &str, announced: String, ours: String| [what.to_owned(), announced, ours];
        let unsaid = || "-".to_owned();
        let at_once = if self.answered_at_once { "each was answered 202 the first time" } else { "NOT all at once" };
        let eta = match self.eta {
            Some((said, came)) => format!("at half it said {} more; it took {}", words(said), words(came)),
            None => "it could not say".to_owned(),
        };
        let proof = match (self.verified, self.digests_equal) {
            (true, true) => {
                "every number that both tables must have is equal; the new one is, row by row, what the log gives"
            }
            _ => "NOT proved",
        };
        let Day { queries, failed_queries, .. } = self;
        vec![
            ["what", "announced", "ours"].map(str::to_owned),
            row(
                "copy of the databases",
                format!("offline for {}", between(OFFLINE_MINUTES, "min")),
                format!("{}, nothing offline", words(self.copy)),
            ),
            row(
                "queries, all day",
                unsaid(),
                format!(
                    "{}, {failed_queries} failed, the slowest moment {}",
                    thousands(*queries as f64),
                    words(self.longest_wait)
                ),
            ),
            row("hits, all day", "collected".to_owned(), format!("{}: {at_once}", thousands(self.acknowledged as f64))),
            row(
                "conversion",
                format!("{}, processing stopped", between(CONVERSION_HOURS, "h")),
                format!(
                    "{} and a pause, processing goes on; statistics late for {} of it",
                    words(self.conversion.saturating_sub(self.paused)),
                    words(self.late)
                ),
            ),
            row(
                "pause in the middle, on purpose",
                unsaid(),
                format!("{}; {} after it the present is readable", words(self.paused), words(self.present)),
            ),
            row(
                "catch-up",
                between(CATCH_UP_HOURS, "h"),
                format!("{} until nothing is missing any more", words(self.catch_up)),
            ),
            row("when it is done", unsaid(), eta),
            row("proof", unsaid(), proof.to_owned()),
            row(
                "how much",
                "their data".to_owned(),
                format!(
                    "{} events, {} a second converted",
                    thousands(self.events as f64),
                    thousands(self.converted_per_s().trunc())
                ),
            ),
        ]
    }
}

/// "4.2 s", "48 s", "3 min 5 s".
fn words(long: Duration) -> String {
    let whole = long.as_secs_f64().round() as u64;
    match whole {
        0..10 => format!("{:.1} s", long.as_secs_f64()),
        10..120 => format!("{whole} s"),
        _ => format!("{} min {} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_said_as_people_say_them() {
        let said = |ms| words(Duration::from_millis(ms));
        assert_eq!([said(0), said(4_240), said(9_400)], ["0.0 s", "4.2 s", "9.4 s"]);
        assert_eq!([said(9_600), said(48_400), said(119_400)], ["10 s", "48 s", "119 s"]);
        assert_eq!([said(119_600), said(185_000), said(3_600_000)], ["2 min 0 s", "3 min 5 s", "60 min 0 s"]);
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(|number| thousands(number.into())),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn the_table_stands_beside_what_was_announced_and_hides_nothing_that_did_not_hold() {
        let good = Day {
            events: 10_000_000,
            queries: 2_000,
            acknowledged: 150_000,
            answered_at_once: true,
            copy: Duration::from_secs(12),
            conversion: Duration::from_secs(320),
            paused: Duration::from_secs(120),
            catch_up: Duration::from_secs(65),
            eta: Some((Duration::from_secs(80), Duration::from_secs(85))),
            verified: true,
            digests_equal: true,
            ..Day::default()
        };
        let table = good.table();
        let ours = |table: &[[String; 3]], what: &str| {
            let [_, announced, ours] = table.iter().find(|row| row[0] == what).unwrap().clone();
            (announced, ours)
        };
        let of = |what| ours(&table, what);
        assert_eq!(table[0], ["what", "announced", "ours"]);
        assert_eq!(of("copy of the databases"), ("offline for 30-60 min".into(), "12 s, nothing offline".into()));
        let (announced, conversion) = of("conversion");
        assert_eq!(announced, "6-12 h, processing stopped");
        assert_eq!(conversion, "3 min 20 s and a pause, processing goes on; statistics late for 0.0 s of it");
        assert_eq!(of("catch-up"), ("6-12 h".into(), "65 s until nothing is missing any more".into()));
        assert_eq!(of("when it is done").1, "at half it said 80 s more; it took 85 s");
        assert_eq!(of("how much").1, "10,000,000 events, 50,000 a second converted");
        let bad = Day { answered_at_once: false, digests_equal: false, failed_queries: 3, eta: None, ..good }.table();
        assert_eq!(ours(&bad, "hits, all day").1, "150,000: NOT all at once");
        assert_eq!(ours(&bad, "proof").1, "NOT proved");
        assert!(ours(&bad, "queries, all day").1.contains("3 failed"));
        assert_eq!(ours(&bad, "when it is done").1, "it could not say");
    }
}
