//! Green, yellow or red, and why, in a sentence for those who use the statistics.
//!
//! ```text
//!  Snapshot, Held (what held at the last look) ──▶ troubles() ──▶ [Trouble], the worst first ──▶ colour, sentence
//! ```
//!
//! Law: outside the bands between two limits the troubles depend on the snapshot alone; inside them, what held holds on. Whether
//! a part answers changes when two looks have seen it, one after the other; the first look of all counts at once. What runs
//! beside the generation in use has no colour.

use serde::{Deserialize, Serialize};
use weir_schemas::{
    Fault,
    control::{CARRIED_RUN, GAP_RUN},
};

use crate::{
    Computing, Maintenance, MaintenanceState, Part, RunStatus, Snapshot,
    pace::{catch_up_ms, log_pace},
    snapshot::LIVE,
    text::SILENT_MS,
    words,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// Hits are collected, statistics are on time.
    Green,
    /// Hits are collected, statistics are late or paused, nothing is lost.
    Yellow,
    /// Data is at risk.
    Red,
}

/// Something that is not as it should be. In the order of how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The collector takes no hits.
    CollectionFails,
    /// The log is away, and nothing is known to keep hits meanwhile.
    LogAway,
    /// What the log held is gone before it was counted.
    Lost,
    /// What hits wait in cannot be read.
    SpoolUnreadable,
    SpoolFull,
    DiskFull,
    /// The log deletes soon what was not counted yet.
    RetentionLow,
    /// The log is away, hits wait in the spool.
    Spooling,
    /// A run has stopped until a person decides.
    Stopped,
    /// ClickHouse does not answer.
    QueriesFail,
    Paused,
    /// No process computes statistics.
    Silent,
    /// After a pause: the run is behind, or fills what it has left out.
    CatchingUp,
    Late,
}

impl Kind {
    /// In the order of how bad it is.
    pub const ALL: [Kind; 14] = [
        Kind::CollectionFails,
        Kind::LogAway,
        Kind::Lost,
        Kind::SpoolUnreadable,
        Kind::SpoolFull,
        Kind::DiskFull,
        Kind::RetentionLow,
        Kind::Spooling,
        Kind::Stopped,
        Kind::QueriesFail,
        Kind::Paused,
        Kind::Silent,
        Kind::CatchingUp,
        Kind::Late,
    ];

    /// As in `/status.json`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::CollectionFails => "collection_fails",
            Kind::LogAway => "log_away",
            Kind::Lost => "lost",
            Kind::SpoolUnreadable => "spool_unreadable",
            Kind::SpoolFull => "spool_full",
            Kind::DiskFull => "disk_full",
            Kind::RetentionLow => "retention_low",
            Kind::Spooling => "spooling",
            Kind::Stopped => "stopped",
            Kind::QueriesFail => "queries_fail",
            Kind::Paused => "paused",
            Kind::Silent => "silent",
            Kind::CatchingUp => "catching_up",
            Kind::Late => "late",
        }
    }

    pub fn colour(self) -> Colour {
        match self {
            Kind::CollectionFails
            | Kind::LogAway
            | Kind::Lost
            | Kind::SpoolUnreadable
            | Kind::SpoolFull
            | Kind::DiskFull
            | Kind::RetentionLow => Colour::Red,
            Kind::Spooling
            | Kind::Stopped
            | Kind::QueriesFail
            | Kind::Paused
            | Kind::Silent
            | Kind::CatchingUp
            | Kind::Late => Colour::Yellow,
        }
    }

    /// Somebody does it on purpose.
    pub fn is_maintenance(self) -> bool {
        matches!(self, Kind::Paused | Kind::CatchingUp)
    }
}

/// A trouble, and what it means for those who use the statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub kind: Kind,
    /// `None`: it is none of a run.
    pub run: Option<String>,
    /// When it began, where the log tells that, ms since the Unix epoch: every console says the same.
    #[serde(default)]
    pub since_ms: Option<i64>,
    pub sentence: String,
}

impl Trouble {
    pub(crate) fn is_pause_of_live(&self) -> bool {
        self.kind == Kind::Paused && self.run.as_deref() == Some(LIVE)
    }
}

/// What held at the last look, of what has two limits, one to begin at, another to end at, and of what two looks must see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    late: bool,
    spool_full: bool,
    disk_full: bool,
    retention_low: bool,
    log_away: Twice,
    queries_fail: Twice,
    collection_fails: Twice,
}

/// What changes when two looks have seen it, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Twice {
    /// `None`: nobody has looked yet.
    holds: Option<bool>,
    /// The last look saw otherwise.
    is_doubted: bool,
}

impl Twice {
    fn next(self, seen: bool) -> Twice {
        match self.holds {
            Some(holds) if holds != seen && !self.is_doubted => Twice { is_doubted: true, ..self },
            _ => Twice { holds: Some(seen), is_doubted: false },
        }
    }

    fn holds(self) -> bool {
        self.holds == Some(true)
    }
}

/// Statistics are late from 30 s after they were due on, and on time again when a window has come less than 15 s after it
/// was: an INSERT takes seconds, and a restart of all 10 s. Complete-through is a window older before each than after it.
fn late_ms(window_ms: i64) -> Limits {
    Limits { begin: LATE_MS, end: 15_000 - window_ms }
}

pub(crate) const LATE_MS: i64 = 30_000;

/// A spool is near full from four fifths on: at a steady rate a quarter of the time since it began is left.
const SPOOL_PERMILLE: Limits = Limits { begin: 800, end: 700 };
/// A disk is nearly full under 1 GiB: ClickHouse's merges need room for the parts that they make anew.
const DISK_USED_UP_BYTES: Limits = Limits { begin: -(1 << 30), end: -(5 << 28) };
/// A fifth of the retention is left, of 30 days six: time to look at it on a working day.
pub(crate) const RETENTION_USED_PERMILLE: Limits = Limits { begin: 800, end: 750 };

/// Above `begin` it holds, at or below `end` it does not, between them it stays as it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) begin: i64,
    end: i64,
}

impl Limits {
    fn holds(self, value: i64, before: bool) -> bool {
        if before { value > self.end } else { value > self.begin }
    }
}

/// How long ago the next window was due. What live has left to the gap run is not its own to bring: after such a resume its
/// first window counts.
fn age_ms(snapshot: &Snapshot) -> Option<i64> {
    let of_live = snapshot.maintenances.iter().filter(|one| one.run.as_deref() == Some(LIVE));
    let left = of_live.filter(|one| one.state == MaintenanceState::CatchingUp).filter_map(|one| one.left_to_ms);
    let from_ms = left.fold(snapshot.complete_through_ms()?, i64::max);
    Some(snapshot.at_ms - from_ms - snapshot.due_ms)
}

impl Held {
    /// What holds at this look; what cannot be seen now stays as it was.
    fn next(self, snapshot: &Snapshot) -> Held {
        let age_ms = age_ms(snapshot);
        let spool_permille = snapshot.spool.as_ref().filter(|spool| spool.bytes_max > 0).map(|spool| {
            let used = if spool.batches == 0 { 0 } else { spool.bytes };
            (u128::from(used) * 1000 / u128::from(spool.bytes_max)) as i64
        });
        let disk_used = snapshot.disk.as_ref().map(|disk| -i64::try_from(disk.free_bytes).unwrap_or(i64::MAX));
        let used_permille = snapshot.runs_in_use().filter_map(|run| run.retention_used_permille).max();
        let next =
            |limits: Limits, value: Option<i64>, before| value.map_or(before, |value| limits.holds(value, before));
        let is_down = |before: Twice, part: &Option<Part>| {
            part.as_ref().map_or(before, |part| before.next(matches!(part, Part::Down { .. })))
        };
        Held {
            late: !snapshot.log_is_behind && next(late_ms(snapshot.window_ms), age_ms, self.late),
            spool_full: next(SPOOL_PERMILLE, spool_permille, self.spool_full),
            disk_full: next(DISK_USED_UP_BYTES, disk_used, self.disk_full),
            retention_low: next(RETENTION_USED_PERMILLE, used_permille, self.retention_low),
            log_away: self.log_away.next(snapshot.log_away.is_some()),
            queries_fail: is_down(self.queries_fail, &snapshot.clickhouse),
            collection_fails: is_down(self.collection_fails, &snapshot.collector),
        }
    }

    /// The log was away at two looks.
    pub(crate) fn log_is_away(self) -> bool {
        self.log_away.holds()
    }
}

/// What is not as it should be, the worst first, but a pause of live before all that is yellow; and what holds now, for the
/// next look.
pub fn troubles(snapshot: &Snapshot, before: Held) -> (Vec<Trouble>, Held) {
    let held = before.next(snapshot);
    let is_collected = is_collected(snapshot, held);
    let mut all = of_parts(snapshot, held, is_collected);
    all.extend(snapshot.runs_in_use().filter_map(|run| of_stopped(run, is_collected)));
    if held.retention_low {
        all.extend(of_retention(snapshot));
    }
    let in_state = |state| {
        snapshot.maintenances.iter().filter(move |maintenance| maintenance.run.is_some() && maintenance.state == state)
    };
    all.extend(in_state(MaintenanceState::UnderWay).map(|maintenance| of_pause(maintenance, snapshot, is_collected)));
    let is_held = all.iter().any(|trouble| match trouble.kind {
        Kind::Paused | Kind::Stopped | Kind::Lost => trouble.run.as_deref() == Some(LIVE),
        kind => matches!(kind, Kind::LogAway | Kind::Spooling),
    });
    let live = snapshot.live().filter(|_| !is_held);
    let silence = live.and_then(|live| of_silence(live, snapshot, is_collected));
    let is_on_time = live.is_some() && silence.is_none() && !held.late;
    let catching_up = in_state(MaintenanceState::CatchingUp);
    all.extend(catching_up.map(|maintenance| of_catch_up(maintenance, snapshot, is_on_time, is_collected)));
    // What goes on in order is late until it has caught up; what has left a range is not.
    let goes_on_in_order = in_state(MaintenanceState::CatchingUp)
        .any(|maintenance| maintenance.run.as_deref() == Some(LIVE) && maintenance.left_to_ms.is_none());
    let late = live.filter(|_| silence.is_none() && held.late && !goes_on_in_order);
    all.extend(late.map(|live| of_lateness(live, snapshot, is_collected)));
    all.extend(silence);
    all.sort_by_key(|trouble| trouble.kind);
    // Who has paused live works at what it writes to: what is no danger meanwhile is of that maintenance.
    let is_at_risk = all.first().is_some_and(|worst| worst.kind.colour() == Colour::Red);
    if let Some(at) = all.iter().position(Trouble::is_pause_of_live).filter(|_| !is_at_risk) {
        all[..=at].rotate_right(1);
    }
    (all, held)
}

/// The colour of everything, and its sentence.
pub fn light(troubles: &[Trouble], snapshot: &Snapshot) -> (Colour, String) {
    if let Some(worst) = troubles.first() {
        let fails = worst.is_pause_of_live() && troubles.iter().any(|trouble| trouble.kind == Kind::QueriesFail);
        let queries = if fails { " Statistics cannot be queried meanwhile." } else { "" };
        return (worst.kind.colour(), format!("{}{queries}", worst.sentence));
    }
    let at = |ms| words::time(ms, snapshot.at_ms);
    // Where nothing is wrong a collector that was asked takes hits.
    let collected = everything(snapshot.collector.is_some());
    let mut sentence = match snapshot.complete_through_ms() {
        Some(through_ms) => format!("Statistics are complete through {}.{collected}", at(through_ms)),
        None => format!("{collected} No statistics were computed yet.").trim_start().to_owned(),
    };
    let planned = snapshot.maintenances.iter().rfind(|one| one.state == MaintenanceState::Planned);
    if let Some(plan) = planned {
        let until = plan.ends_ms.map(|ends_ms| format!(" until {}", at(ends_ms))).unwrap_or_default();
        sentence.push_str(&format!(" Maintenance is planned from {}{until}{}.", at(plan.begins_ms), why(plan)));
    }
    (Colour::Green, sentence)
}

fn trouble(kind: Kind, run: Option<&str>, sentence: String) -> Trouble {
    Trouble { kind, run: run.map(str::to_owned), since_ms: None, sentence }
}

/// Hits are taken and kept, as far as this process can tell: nothing of that is said of a collector that it has not asked.
fn is_collected(snapshot: &Snapshot, held: Held) -> bool {
    let is_kept = !held.log_away.holds() || snapshot.spool.is_some();
    snapshot.collector.is_some() && !held.collection_fails.holds() && is_kept
}

/// To follow a sentence of what is not as it should be.
fn nothing_is_lost(is_collected: bool) -> &'static str {
    if is_collected { " Hits are collected, nothing is lost." } else { "" }
}

fn new_hits(is_collected: bool) -> &'static str {
    if is_collected { " New hits are collected." } else { "" }
}

fn of_parts(snapshot: &Snapshot, held: Held, is_collected: bool) -> Vec<Trouble> {
    let collected_but = |what: &str| match is_collected {
        true => format!("Hits are still collected, but {what}."),
        false => format!("{}{}.", what[..1].to_uppercase(), &what[1..]),
    };
    let mut all = Vec::new();
    if held.collection_fails.holds() {
        let sentence = "Hits are not collected at the moment: those that cannot be sent again are lost.";
        all.push(trouble(Kind::CollectionFails, None, sentence.to_owned()));
    }
    if held.log_away.holds() {
        // A spool without a collector takes no hits.
        all.push(match snapshot.spool.as_ref().and(snapshot.collector.as_ref()) {
            Some(_) => {
                let what = if is_collected { "Hits are collected, and wait" } else { "What was collected waits" };
                trouble(Kind::Spooling, None, format!("{what} until the log is back: statistics come later."))
            }
            None => {
                let sentence = "The log that keeps hits does not answer: nobody can say whether hits are collected.";
                trouble(Kind::LogAway, None, sentence.to_owned())
            }
        });
    }
    if snapshot.spool_unreadable.is_some() {
        let sentence = "What hits wait in on this machine cannot be read: an operator must look.";
        all.push(trouble(Kind::SpoolUnreadable, None, sentence.to_owned()));
    }
    if held.spool_full {
        all.push(trouble(Kind::SpoolFull, None, collected_but("the room in which hits wait is nearly used up")));
    }
    if held.disk_full {
        all.push(trouble(Kind::DiskFull, None, collected_but("the disk is nearly full")));
    }
    if held.queries_fail.holds() {
        let sentence = format!("Statistics cannot be queried at the moment.{}", nothing_is_lost(is_collected));
        all.push(trouble(Kind::QueriesFail, None, sentence));
    }
    all
}

fn of_stopped(run: &RunStatus, is_collected: bool) -> Option<Trouble> {
    let progress = run.progress.as_ref();
    let is_lost = run.topic_gone
        || matches!(
            progress.and_then(|progress| progress.fault.as_ref()),
            Some(Fault::LogCut { .. } | Fault::LogShrunk { .. } | Fault::TopicReplaced { .. })
        );
    if !run.topic_gone && progress.is_none_or(|progress| progress.stopped.is_none()) {
        return None;
    }
    let what = match run.run.as_str() {
        LIVE => "Statistics stand still".to_owned(),
        GAP_RUN => "Statistics that were left out are not being computed".to_owned(),
        CARRIED_RUN => "Statistics of earlier days, as the version before counted them, stand still".to_owned(),
        run => format!("The statistics of {run} stand still"),
    };
    let since_ms = progress.map(|progress| progress.at_ms);
    let stopped = match is_lost {
        true => trouble(
            Kind::Lost,
            Some(&run.run),
            format!(
                "{what}: hits that were not counted yet are gone, an operator must look.{}",
                new_hits(is_collected)
            ),
        ),
        false => {
            // Whether what was carried over can be once more only an operator can tell.
            let hits = if run.run == CARRIED_RUN { new_hits } else { nothing_is_lost };
            let sentence = format!("{what} until an operator has looked.{}", hits(is_collected));
            trouble(Kind::Stopped, Some(&run.run), sentence)
        }
    };
    Some(Trouble { since_ms, ..stopped })
}

fn of_retention(snapshot: &Snapshot) -> Option<Trouble> {
    let run = snapshot.runs_in_use().max_by_key(|run| run.retention_used_permille)?;
    let headroom_ms = run.retention_headroom_ms?;
    let sentence = match headroom_ms > 0 {
        true => format!(
            "Hits that are not counted yet are deleted in {}, unless statistics go on before.",
            words::span(headroom_ms)
        ),
        false => "Hits that are not counted yet are being deleted.".to_owned(),
    };
    Some(trouble(Kind::RetentionLow, Some(&run.run), sentence))
}

fn of_pause(maintenance: &Maintenance, snapshot: &Snapshot, is_collected: bool) -> Trouble {
    let run = maintenance.run.as_deref();
    let at = |ms| words::time(ms, snapshot.at_ms);
    let why = why(maintenance);
    let planned = maintenance.ends_ms.map(|ends_ms| format!(", planned until {}", at(ends_ms))).unwrap_or_default();
    let begins = at(maintenance.begins_ms);
    let sentence = match run {
        Some(LIVE) => {
            let after = match maintenance.paused_ms {
                Some(paused_ms) => format!("statistics after {} come later", at(paused_ms)),
                None => "new statistics come later".to_owned(),
            };
            let collected = if is_collected { "hits are collected, " } else { "" };
            let rest = maintenance.ends_ms.map(|ends_ms| of_rest(maintenance, ends_ms, snapshot)).unwrap_or_default();
            format!("Paused for maintenance since {begins}{why}{planned}: {collected}{after}.{rest}")
        }
        run => format!(
            "{} since {begins}{why}{planned}.{}",
            words::paused(run.unwrap_or_default()),
            everything(is_collected)
        ),
    };
    Trouble { since_ms: Some(maintenance.begins_ms), ..trouble(Kind::Paused, run, sentence) }
}

fn everything(is_collected: bool) -> &'static str {
    if is_collected { " Everything is collected." } else { "" }
}

/// When what comes later will be there, to follow that it does: what lies behind at the end of the pause, at the pace at which
/// the run caught up the last time.
fn of_rest(paused: &Maintenance, ends_ms: i64, snapshot: &Snapshot) -> String {
    let at = |ms| words::time(ms, snapshot.at_ms);
    let goes_on_ms = ends_ms.max(snapshot.at_ms);
    let of_run = snapshot.maintenances.iter().filter(|one| one.run == paused.run && one.again_ms.is_none());
    // The newest comes first.
    let pace = of_run.filter_map(|one| log_pace(one.paused_ms?, one.resumed_ms?, one.over_ms?)).next();
    let behind_ms = goes_on_ms - paused.paused_ms.unwrap_or(paused.begins_ms);
    match pace.and_then(|pace| catch_up_ms(pace, behind_ms)) {
        Some(takes_ms) => format!(
            " They are computed from {} on, and will be ready at about {}, if it goes as fast as the last time.",
            at(goes_on_ms),
            at(goes_on_ms.saturating_add(takes_ms))
        ),
        None => format!(" They are computed from {} on; how long that takes is not known yet.", at(goes_on_ms)),
    }
}

fn why(maintenance: &Maintenance) -> String {
    if maintenance.reason.is_empty() { String::new() } else { format!(" ({})", maintenance.reason) }
}

fn of_catch_up(maintenance: &Maintenance, snapshot: &Snapshot, is_on_time: bool, is_collected: bool) -> Trouble {
    let run = maintenance.run.as_deref();
    let at = |ms| words::time(ms, snapshot.at_ms);
    let is_in = |to_ms: i64| move |range: &&Computing| range.from_ms < to_ms && to_ms <= range.to_ms;
    let filling = maintenance.left_to_ms.and_then(|to_ms| snapshot.computing.iter().find(is_in(to_ms)));
    let of = if filling.is_some() { GAP_RUN } else { run.unwrap_or_default() };
    let eta = snapshot.runs.iter().find(|run| run.run == of).and_then(|run| run.eta);
    let ready = words::ready(eta, snapshot.at_ms);
    let sentence = match (filling, run) {
        (Some(range), _) => {
            let (from, to) = (at(range.from_ms), at(range.to_ms));
            match is_on_time {
                true => format!(
                    "Statistics from {to} on are up to date; those from {from} to {to} are still being computed.{ready}"
                ),
                false => format!("Statistics from {from} to {to} are still being computed.{ready}"),
            }
        }
        (None, Some(LIVE)) => {
            let collected = is_collected.then(|| "hits are collected".to_owned());
            let through = snapshot.complete_through_ms().map(at);
            let complete = through.map(|through| format!("statistics are complete through {through}"));
            let said: Vec<String> = collected.into_iter().chain(complete).collect();
            let colon = if said.is_empty() { "" } else { ": " };
            format!("Catching up after maintenance{colon}{}.{ready}", said.join(", "))
        }
        (None, run) => {
            let goes_on = words::goes_on(run.unwrap_or_default());
            format!("{goes_on}, after maintenance.{}", everything(is_collected))
        }
    };
    Trouble { since_ms: Some(maintenance.begins_ms), ..trouble(Kind::CatchingUp, run, sentence) }
}

/// Nobody has heard of live lately, nor has it just been told to go on: it does not run.
pub(crate) fn is_silent(snapshot: &Snapshot) -> bool {
    heard_ms(snapshot).is_none_or(|heard_ms| snapshot.at_ms - heard_ms > SILENT_MS)
}

fn heard_ms(snapshot: &Snapshot) -> Option<i64> {
    let of_live = snapshot.maintenances.iter().filter(|one| one.run.as_deref() == Some(LIVE));
    let resumed_ms = of_live.filter_map(|one| one.resumed_ms).max();
    let heard_ms = snapshot.live().and_then(|live| live.progress.as_ref()).map(|progress| progress.at_ms);
    heard_ms.max(resumed_ms)
}

fn of_silence(live: &RunStatus, snapshot: &Snapshot, is_collected: bool) -> Option<Trouble> {
    if !is_silent(snapshot) {
        return None;
    }
    let what = match snapshot.complete_through_ms() {
        Some(through_ms) => format!(
            "No statistics are computed at the moment: they are complete through {}.",
            words::time(through_ms, snapshot.at_ms)
        ),
        None => "No statistics were computed yet.".to_owned(),
    };
    let silent = trouble(Kind::Silent, Some(&live.run), format!("{what}{}", nothing_is_lost(is_collected)));
    Some(Trouble { since_ms: heard_ms(snapshot), ..silent })
}

fn of_lateness(live: &RunStatus, snapshot: &Snapshot, is_collected: bool) -> Trouble {
    let through = match snapshot.complete_through_ms() {
        Some(through_ms) => format!(": they are complete through {}", words::time(through_ms, snapshot.at_ms)),
        None => String::new(),
    };
    let ready = words::ready(live.eta, snapshot.at_ms);
    let is_late = age_ms(snapshot).is_none_or(|age_ms| age_ms > late_ms(snapshot.window_ms).begin);
    let what = if is_late { "Statistics are late" } else { "Statistics were late until just now" };
    let sentence = format!("{what}{through}.{ready}{}", nothing_is_lost(is_collected));
    trouble(Kind::Late, Some(&live.run), sentence)
}
