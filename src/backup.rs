//! `weir backup`: ClickHouse's own copies of the statistics, with what proves them, and the way back to one.
//!
//! ```text
//!  create  ── BACKUP (record first, rows later) ──▶ folder NAME · control topic: points by run, digests by day
//!  verify  ── into a database of its own ──▶ rows against their record, record against the control topic
//!  restore ── tables are the copy's ──▶ control topic: each run asks again from its point ──▶ the log gives the rest
//! ```
//!
//! Nothing stops for a copy. A restore refuses every run until it is over; hits are collected all the time.

use std::{collections::BTreeSet, process::ExitCode, sync::Arc};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use weir_log::{Clock, ControlLog, Log, SystemClock};
use weir_schemas::{
    Repair, Replacement, Replacements, SchemaVersion, WindowStart, WindowWidth, World,
    control::{Action, Backup, CARRIED_RUN, ControlRecord, GAP_RUN, RecordedDay, import_run},
    kind_of,
    progress::group_of,
    run_of,
};
use weir_sink::{Shape, Target, Verified, audit::Audit};

use crate::{
    begin,
    config::Config,
    generation::Generation,
    judge::at,
    replay::{self, days_are},
    report,
    run::RunOrder,
    serve, supervisor,
    verbs::parse_reason,
};

/// What was recorded this long before a copy began is surely in it: no statement takes so long.
const SETTLED_MS: i64 = 60_000;

/// Of a copy without a row that was recorded so long before it.
const YOUNG: &str = "no day of it can be proved, nothing was recorded more than a minute before it";

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum BackupCommand {
    /// Makes one, while everything goes on
    Create {
        /// Its name, a folder; without it the time
        name: Option<String>,
        /// All of it, not only what the newest copy does not hold
        #[arg(long)]
        full: bool,
    },
    /// Those that were made
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Brings one back into a database of its own, and compares it with what is known of it
    Verify { name: String },
    /// Makes the tables those of a copy; the runs go on from there
    Restore {
        name: String,
        /// Why: it is kept for ever, with who and when
        #[arg(long, required_unless_present = "dry_run", value_parser = parse_reason)]
        reason: Option<String>,
        /// Says what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// Exit code 1 when a copy is not what it must be.
pub(crate) async fn main(config: &Config, command: &BackupCommand) -> anyhow::Result<ExitCode> {
    let opened = config.log_config();
    let known = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let log = weir_log::open(&opened, Arc::new(SystemClock)).context("the log cannot be opened")?;
        let control = ControlLog::open(log.clone())?;
        let records = control.read_all()?.records.into_iter().map(|(_, record)| record).collect();
        Ok((log, control, records))
    });
    let (log, control, records): (_, _, Vec<ControlRecord>) = known.await??;
    let world = World::of(&records);
    let generations = Generation::alive(config, &world)?;
    let target = config.target()?;
    let backups = Backups { config: config.clone(), target, generations, log, control, records };
    match command {
        BackupCommand::Create { name, full } => backups.create(name.as_deref(), *full).await,
        BackupCommand::List { json } => backups.list(*json),
        BackupCommand::Verify { name } => backups.verify(name).await,
        BackupCommand::Restore { name, reason, dry_run } => {
            let reason = reason.as_deref().filter(|_| !dry_run);
            backups.restore(name, reason).await
        }
    }
}

struct Backups {
    config: Config,
    target: Target,
    /// All that have a table, the one in use first.
    generations: Vec<Generation>,
    log: Arc<dyn Log>,
    control: ControlLog,
    records: Vec<ControlRecord>,
}

/// A run, and how far it is done.
struct Point {
    generation: u32,
    width: WindowWidth,
    order: RunOrder,
    through: WindowStart,
}

impl Backups {
    fn versions(&self) -> Vec<SchemaVersion> {
        self.generations.iter().map(|generation| generation.version.clone()).collect()
    }

    /// The one that the public views show.
    fn in_use(&self) -> &SchemaVersion {
        &self.generations[0].version
    }

    fn there(&self) -> BTreeSet<u32> {
        self.generations.iter().map(|generation| generation.version.number).collect()
    }

    /// The generations whose tables a copy has. An earlier weir knew one, and did not say which.
    fn tables_of(&self, backup: &Backup) -> anyhow::Result<BTreeSet<u32>> {
        Ok(match backup.generations.is_empty() {
            true => {
                let world = World::of(&self.records);
                BTreeSet::from([Generation::of(&self.config, &world, None)?.version.number])
            }
            false => backup.generations.iter().copied().collect(),
        })
    }

    /// Errors: the copy lacks a table that there is now. Of one that is gone since nothing is brought back.
    fn find_whole(&self, name: &str) -> anyhow::Result<&Backup> {
        let backup = self.find(name)?;
        let (of, there) = (self.tables_of(backup)?, self.there());
        let is_under_way = World::of(&self.records).generations.under_way().is_some();
        ensure!(
            there.is_subset(&of),
            "copy {name} is of generation {}",
            lacking(&of, &there, self.in_use().number, is_under_way)
        );
        Ok(backup)
    }

    /// The generation of which a copy has a part of the rows that were carried over, where nobody has the rest any more.
    fn carried_in_part(&self, backup: &Backup) -> Option<u32> {
        let alive: BTreeSet<_> = self.generations.iter().map(|generation| generation.number).collect();
        let in_part = |generation: &&Generation| {
            let (Some(carried), Some(seam)) = (&generation.carried, &generation.seam) else { return false };
            let run = run_of(generation.number, CARRIED_RUN);
            let through_ms =
                backup.points.iter().find(|(of, _)| *of == run).map_or(i64::MIN, |(_, through_ms)| *through_ms);
            !alive.contains(&carried.old) && through_ms < seam.at.ms()
        };
        self.generations.iter().find(in_part).map(|generation| generation.version.number)
    }

    async fn create(&self, name: Option<&str>, full: bool) -> anyhow::Result<ExitCode> {
        let name = name.map_or_else(|| Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string(), str::to_owned);
        ensure!(is_name(&name), "{name} is no name for a copy (letters, digits, - and _)");
        ensure!(self.find(&name).is_err(), "there is a copy {name} already (take another name)");
        if let Some(one) = Replacements::of(&self.records).open().find(|one| self.is_ours(one)) {
            bail!(
                "{} being replaced since {} by {}: a copy would be of both (wait until that is over; if it was cut short, \
                 the same `weir replay` again ends it, or `weir replay --give-up`)",
                days_are(&one.days),
                at(one.by.at_ms),
                one.by.who
            );
        }
        let generations: Vec<u32> = self.there().into_iter().collect();
        // What a copy is on top of must have the same tables.
        let newest = self.made().last().map(|(_, newest)| *newest).filter(|_| !full);
        let base = match newest {
            Some(newest) if self.tables_of(newest)? == self.there() => Some(newest.name.clone()),
            _ => None,
        };
        let before_ms = weir_sink::server_ms(&self.target).await? - SETTLED_MS;
        let days = weir_sink::recorded_days(&self.target, before_ms).await?;
        let points = self.points(&self.records).await?.into_iter().map(|point| (point.order.run, point.through.ms()));
        let points: Vec<_> = points.collect();
        let gaps = self.gaps().await?;
        let copied = weir_sink::copy(&self.target, &self.versions(), &name, base.as_deref()).await;
        let copied = copied.with_context(|| match &base {
            Some(base) => format!("copy {name} on top of {base} (--full makes one that needs no other)"),
            None => format!("copy {name}"),
        });
        ensure!(
            copied?,
            "rows were taken out, or a copy was brought back, meanwhile: this copy is void (make another; its folder can go)"
        );
        let (control, known) = (self.control.clone(), self.records.len());
        let now = tokio::task::spawn_blocking(move || control.read_all()).await??.records;
        let replacements = Replacements::of(now.iter().map(|(_, record)| record));
        let replaced = replacements.open_since(known).any(|one| self.is_ours(one));
        ensure!(
            !replaced,
            "days were replaced meanwhile: this copy is void (make another when that is over; its folder can go)"
        );
        let rows: u64 = days.iter().map(|day| day.rows).sum();
        let backup = Backup { name: name.clone(), base: base.clone(), generations, points, gaps, before_ms, days };
        let through = live_through(&backup);
        self.say(String::new(), Action::BackupMade(backup)).await?;
        let base = base.map_or("all of it".to_owned(), |base| format!("what is not in {base}"));
        let proved = match rows {
            0 => YOUNG.to_owned(),
            rows => format!("{} proved by day", count(rows, "row")),
        };
        println!("copy {name} was made ({base}): live complete through {through}, {proved}");
        Ok(ExitCode::SUCCESS)
    }

    /// Of the table that is copied.
    fn is_ours(&self, one: &Replacement) -> bool {
        self.generations.iter().any(|generation| generation.version.number == one.generation)
    }

    fn list(&self, json: bool) -> anyhow::Result<ExitCode> {
        let made = self.made();
        if made.is_empty() && !json {
            println!("there is no copy yet (`weir backup create` makes one)");
        }
        for (record, backup) in made {
            if json {
                println!("{}", serde_json::json!({"at_ms": record.at_ms, "who": record.who, "backup": backup}));
                continue;
            }
            let rows: u64 = backup.days.iter().map(|day| day.rows).sum();
            let rows = if rows == 0 { "nothing proved by day".to_owned() } else { count(rows, "row") };
            println!(
                "{}  made {} by {} · live complete through {} · {rows}{}",
                backup.name,
                at(record.at_ms),
                record.who,
                live_through(backup),
                backup.base.as_ref().map_or(String::new(), |base| format!(" · on top of {base}")),
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn verify(&self, name: &str) -> anyhow::Result<ExitCode> {
        let backup = self.find_whole(name)?;
        let verified = weir_sink::verify(&self.target, &self.versions(), name, backup.before_ms).await;
        let verified = verified.with_context(|| format!("copy {name} cannot be read"))?;
        if !is_as_recorded(backup, &verified, &self.there()) {
            println!("copy {name} is NOT what it must be (make another one, and look at the disk)");
            return Ok(ExitCode::FAILURE);
        }
        let rows: u64 = verified.days.iter().map(|day| day.rows).sum();
        let days = count(verified.days.len() as u64, "day");
        match rows {
            0 => println!("copy {name} is whole by its own record; {YOUNG}"),
            rows => println!("copy {name} is whole: {days}, {}, every digest as it was recorded", count(rows, "row")),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Without a `reason` it says what would be done.
    async fn restore(&self, name: &str, reason: Option<&str>) -> anyhow::Result<ExitCode> {
        let backup = self.find_whole(name)?;
        if let Some(number) = self.carried_in_part(backup) {
            bail!(
                "copy {name} was made while rows were carried over into generation {number}, and the generation that has the \
                 others was dropped since: they would be lost (take a copy that has all of them, `weir backup list`)"
            );
        }
        let Some(reason) = reason else {
            println!(
                "would do: the tables become those of copy {name}, and what lies after is computed again from the log:"
            );
            let runs: BTreeSet<String> = self.points(&self.records).await?.into_iter().map(|of| of.order.run).collect();
            for (run, through_ms) in backup.points.iter().filter(|(run, _)| runs.contains(run)) {
                println!("  {run} goes on from {}", at(*through_ms));
            }
            backup.gaps.iter().for_each(say_filled);
            return Ok(ExitCode::SUCCESS);
        };
        let pending = World::of(&self.records).generations.pending().is_some();
        ensure!(
            !pending,
            "another generation is about to be shown: bring the copy back after that (`weir migrate status`)"
        );
        for version in self.versions() {
            if let Shape::Missing(_) = weir_sink::shape(&self.target, &version).await? {
                weir_sink::prepare(&self.target, &version).await?;
            }
        }
        let restored = weir_sink::restore(&self.target, &self.versions(), name).await;
        restored.with_context(|| {
            format!("copy {name} was not brought back to the end: runs wait until it is (begin it again)")
        })?;
        let gaps = self.gaps().await.with_context(|| {
            format!("copy {name} is back, and does not say what live has left in it (begin it again)")
        })?;
        self.say(reason.to_owned(), Action::BackupRestored { name: name.to_owned(), gaps: gaps.clone() }).await?;
        let records = replay::records(&self.control).await?;
        // A replacement of days that began since the tables are open has not heard of it.
        weir_sink::end_replay(&self.target, self.in_use()).await?;
        let days = weir_sink::recorded_days(&self.target, backup.before_ms).await?;
        // Nobody else would take out again what was taken back after the copy was made.
        for (id, generation) in
            taken_back(&records).into_iter().flat_map(|id| self.generations.iter().map(move |of| (id, of)))
        {
            let run = run_of(generation.number, &import_run(id));
            let undone = weir_sink::undo(&self.target, &run, &generation.version, id).await;
            undone.with_context(|| {
                format!("copy {name} is back, and has import {id}, which was taken back (begin it again)")
            })?;
        }
        // A supervisor makes the views at its start, and may have made them in a ClickHouse that is gone.
        let shown = weir_sink::show(&self.target, self.in_use(), &self.config.timezones(), None).await;
        shown.with_context(|| format!("copy {name} is back, and cannot be shown (begin it again)"))?;
        println!("the tables are those of copy {name}");
        let points = self.points(&records).await?;
        for Point { order, through, .. } in &points {
            let (log, group, topic) = (self.log.clone(), group_of(&order.run), order.topic.clone());
            let committed = tokio::task::spawn_blocking(move || log.committed(&group, &topic)).await??;
            let reported_ms = report::told(&committed).and_then(|told| told.complete_through_ms);
            if reported_ms.is_some_and(|reported_ms| reported_ms > through.ms()) {
                let (run, id) = (order.run.clone(), SystemClock.now_ms());
                let repair = Repair::AskAgain { from_ms: through.ms() };
                self.say(reason.to_owned(), Action::Recover { run, id, repair, topic_is: None }).await?;
            }
            println!("  {} goes on from {}", order.run, at(through.ms()));
        }
        gaps.iter().for_each(say_filled);
        let mut findings = Vec::new();
        for version in self.versions() {
            let mut found = Audit::new(&self.target, &version).full().await?;
            // What lies after is computed again in any case, and may be at this moment.
            found.retain(|finding| {
                let mut of = points.iter().filter(|point| {
                    let (from_ms, to_ms) = point.order.own_ms();
                    let is_own = (from_ms..to_ms).contains(&finding.windows(point.width).0);
                    is_own && point.generation == version.number && point.order.origin == finding.origin()
                });
                of.any(|point| finding.windows(point.width).1 <= point.through.ms())
            });
            findings.extend(found);
        }
        let whole = is_as_recorded(backup, &Verified { findings, days }, &self.there());
        if !whole {
            println!(
                "copy {name} was NOT what it must be: what differs is said above (`weir replay` gives these days anew, as \
                 far as the log reaches back)"
            );
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Every run that there is to be, and how far the record in ClickHouse says that it is done.
    async fn points(&self, records: &[ControlRecord]) -> anyhow::Result<Vec<Point>> {
        let (world, imports) = (World::of(records), supervisor::desired(records).imports);
        let mut points = Vec::new();
        for generation in &self.generations {
            let version = &generation.version;
            for order in RunOrder::all(&self.config, &self.target, &world, generation, &imports) {
                let order = order?;
                let through = begin::checkpoint(&order, version).await?;
                points.push(Point { generation: version.number, width: version.width, order, through });
            }
        }
        Ok(points)
    }

    /// What live has left in the table, and nobody has filled.
    async fn gaps(&self) -> anyhow::Result<Vec<(i64, i64)>> {
        let gaps = weir_sink::gaps(&self.target, self.in_use()).await?;
        Ok(gaps.into_iter().map(|gap| (gap.from.ms(), gap.to.ms())).collect())
    }

    fn made(&self) -> Vec<(&ControlRecord, &Backup)> {
        let made = self.records.iter().filter_map(|record| match &record.action {
            Action::BackupMade(backup) => Some((record, backup)),
            _ => None,
        });
        made.collect()
    }

    fn find(&self, name: &str) -> anyhow::Result<&Backup> {
        let found = self.made().into_iter().find(|(_, backup)| backup.name == name);
        match found {
            Some((_, backup)) => Ok(backup),
            None => bail!("there is no copy {name} (`weir backup list` names them)"),
        }
    }

    async fn say(&self, reason: String, action: Action) -> anyhow::Result<()> {
        let record = ControlRecord { at_ms: SystemClock.now_ms(), who: serve::who(), reason, action };
        self.control.append(&record).await?;
        Ok(())
    }
}

/// What a copy `of` these generations lacks of those that are `there`, and what to do. `in_use`: the one that is shown.
fn lacking(of: &BTreeSet<u32>, there: &BTreeSet<u32>, in_use: u32, is_under_way: bool) -> String {
    let words = |all: &BTreeSet<u32>| all.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
    let begun = format!("{}, and there is {} now: a conversion was begun since", words(of), words(there));
    match of.is_disjoint(there) || !is_under_way {
        true => format!(
            "{begun} and is over, and nothing that the copy holds can be brought back into what there is (take a copy that was \
             made since, `weir backup list`)"
        ),
        false if of.contains(&in_use) => format!(
            "{begun} (`weir migrate drop` takes away the one that is not in use; take a copy that has the other, `weir backup list`)"
        ),
        false => format!(
            "{begun}, and the copy lacks the one that is in use (take a copy that has it, `weir backup list`; or show the other one \
             again, `weir migrate revert`, and then take this one away, `weir migrate drop`)"
        ),
    }
}

/// Imports that are gone, or are going.
fn taken_back(records: &[ControlRecord]) -> BTreeSet<&String> {
    let mut gone = BTreeSet::new();
    for record in records {
        if let Action::ImportUndo { id } | Action::ImportUndone { id } = &record.action {
            gone.insert(id);
        }
    }
    gone
}

/// Whether tables are what was recorded of them; prints where they are not. A copy may have those of generations that are gone.
fn is_as_recorded(backup: &Backup, found: &Verified, there: &BTreeSet<u32>) -> bool {
    let of_there = |days: &[RecordedDay]| -> Vec<RecordedDay> {
        days.iter().filter(|day| there.contains(&day.generation)).copied().collect()
    };
    let differing = differing(&of_there(&backup.days), &of_there(&found.days));
    for finding in &found.findings {
        println!("{finding}");
    }
    for day in &differing {
        println!("{day}");
    }
    found.findings.is_empty() && differing.is_empty()
}

fn live_through(backup: &Backup) -> String {
    // That of the generation that was in use comes first.
    let live = backup.points.iter().find(|(run, _)| kind_of(run).1 == "live");
    let through = live.map_or_else(|| "nothing yet".to_owned(), |(_, through_ms)| at(*through_ms));
    let gaps: Vec<String> = backup.gaps.iter().map(range).collect();
    if gaps.is_empty() { through } else { format!("{through} but for {}", gaps.join(", ")) }
}

fn say_filled(gap: &(i64, i64)) {
    println!("  {GAP_RUN} fills {}", range(gap));
}

fn range((from_ms, to_ms): &(i64, i64)) -> String {
    format!("{} to {}", at(*from_ms), at(*to_ms))
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A folder's name that is no path.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= 100 && name.chars().all(plain)
}

/// The days that are not alike, a line each.
fn differing(wanted: &[RecordedDay], found: &[RecordedDay]) -> Vec<String> {
    let key = |day: &RecordedDay| (day.generation, day.day);
    let all: BTreeSet<_> = wanted.iter().chain(found).map(key).collect();
    let differs = |at: &(u32, i64)| {
        let of = |days: &[RecordedDay]| days.iter().find(|day| key(day) == *at).copied();
        let (wanted, found) = (of(wanted), of(found));
        let rows = |day: Option<RecordedDay>| day.map_or(0, |day| day.rows);
        (wanted != found).then(|| {
            let day = at.1 * 24 * 60 * 60 * 1000;
            let day =
                Timestamp::from_millisecond(day).map_or(at.1.to_string(), |day| day.strftime("%Y-%m-%d").to_string());
            let recorded = rows(wanted);
            let were = if recorded == 1 { "was" } else { "were" };
            format!("{day}: {} {were} recorded, the copy has {}, or other ones", count(recorded, "row"), rows(found))
        })
    };
    all.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_copy_that_lacks_a_generation_it_is_said_what_helps_while_the_conversion_lasts_and_after_it() {
        let during = lacking(&BTreeSet::from([1]), &BTreeSet::from([1, 2]), 1, true);
        assert!(
            during.starts_with("1, and there is 1 and 2 now") && during.contains("`weir migrate drop`"),
            "{during}"
        );
        let after = lacking(&BTreeSet::from([1]), &BTreeSet::from([2]), 2, false);
        let next = lacking(&BTreeSet::from([1]), &BTreeSet::from([2, 3]), 2, true);
        assert_eq!(next, after.replace("is 2 now", "is 2 and 3 now"));
        assert!(after.starts_with("1, and there is 2 now") && !after.contains("migrate drop"), "{after}");
        assert!(after.contains("take a copy that was made since"), "{after}");
        // The other one is the way back, and all that the copy could bring back.
        let swapped = lacking(&BTreeSet::from([1]), &BTreeSet::from([1, 2]), 2, true);
        assert!(swapped.find("`weir migrate revert`") < swapped.find("`weir migrate drop`"), "{swapped}");
    }

    #[test]
    fn a_copys_name_is_a_folder_and_no_path() {
        assert!(is_name("20261127-163000") && is_name("before_v2"));
        for name in ["", "../x", "a/b", "a b", "é", &"x".repeat(101)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn days_that_are_missing_more_or_changed_differ() {
        let day = |day, rows| RecordedDay { generation: 1, day, batches: 1, rows, digest: rows };
        assert!(differing(&[day(0, 5)], &[day(0, 5)]).is_empty());
        let said = differing(&[day(0, 5), day(1, 5), day(3, 1)], &[day(0, 5), day(1, 4), day(2, 2)]);
        assert_eq!(
            said,
            [
                "1970-01-02: 5 rows were recorded, the copy has 4, or other ones",
                "1970-01-03: 0 rows were recorded, the copy has 2, or other ones",
                "1970-01-04: 1 row was recorded, the copy has 0, or other ones",
            ]
        );
    }
}
