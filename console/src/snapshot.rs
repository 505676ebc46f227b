use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_log::{Committed, Log, LogError};
use weir_schemas::{
    Conversion, DEDUP_HORIZON_MS, Hold, Missing, Number, Recoveries, Replacement, Replacements, SHADOW,
    STEP_BACK_MAX_MS, UNHINDERED_PERMILLE, World,
    control::{Action, CARRIED_RUN, ControlRecord, EVENTS_TOPIC, EtaKept, GAP_RUN, import_run, import_topic},
    progress::{Metadata, RunProgress, group_of},
};

use crate::{
    ConversionStatus, ConversionTold, Maintenance, MaintenanceState, Rates, conversion,
    guard::{self, BySize, Kept},
    light::LATE_MS,
    maintenance::maintenances,
    missing::missing,
    pace::{Eta, Paces, Work},
    recovered::{Recovery, recoveries},
    text::SILENT_MS,
};

/// Everything there is to say at one instant. Times are ms since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub at_ms: i64,
    /// The width of a window; 0: not known.
    #[serde(default)]
    pub window_ms: i64,
    /// How old [`RunProgress::complete_through_ms`] gets while all is on time: a window's width and the lateness. 0: not
    /// known.
    #[serde(default)]
    pub due_ms: i64,
    /// The log's clock is behind this one: by it live is on time, by this one it is late.
    #[serde(default)]
    pub log_is_behind: bool,
    /// When the first partition came into use: there are no live events before.
    #[serde(default)]
    pub began_ms: Option<i64>,
    /// How long live events stay in the log, seconds; `None`: for ever.
    pub retention_s: Option<u64>,
    /// The live run first, then the one that fills gaps while there are any, then the one that carries rows over while it is not
    /// done, then those of imports, then those beside that are not done: `shadow`, `shadow-import-…`.
    pub runs: Vec<RunStatus>,
    pub imports: Vec<ImportStatus>,
    /// Live windows before those that are in the table which are still to be computed, ascending.
    #[serde(default)]
    pub computing: Vec<Computing>,
    /// The newest first.
    #[serde(default)]
    pub maintenances: Vec<Maintenance>,
    /// The conversion that is not over.
    #[serde(default)]
    pub conversion: Option<ConversionStatus>,
    /// All of them, the newest first.
    #[serde(default)]
    pub conversions: Vec<ConversionTold>,
    /// What was decided about runs that had stopped, the newest first.
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
    /// Days of the table that are being replaced by what a replay has computed, or were when that was cut short.
    #[serde(default)]
    pub replacing: Vec<Replacing>,
    /// Records of the control topic that cannot be read, and are set aside: what they order is not done.
    #[serde(default)]
    pub control_unreadable: u64,
    /// Why the log could not be looked at; then nothing is known of runs and imports.
    #[serde(default)]
    pub log_away: Option<String>,
    /// The spool of the collector on this machine; `None`: there is none here.
    #[serde(default)]
    pub spool: Option<SpoolStatus>,
    /// Why the spool on this machine could not be looked at; then nothing is known of it.
    #[serde(default)]
    pub spool_unreadable: Option<String>,
    /// The disk under `data_dir` on this machine; `None`: it could not be looked at.
    #[serde(default)]
    pub disk: Option<DiskStatus>,
    /// The collector of the process that was asked; `None`: it has none.
    #[serde(default)]
    pub collector: Option<Part>,
    /// The ClickHouse that analysts query; `None`: it was not asked.
    #[serde(default)]
    pub clickhouse: Option<Part>,
}

/// By whom, why and since when days (UTC, since the Unix epoch) are being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacing {
    pub since_ms: i64,
    pub who: String,
    pub reason: String,
    pub days: Vec<i64>,
}

fn replacing(control: &[ControlRecord]) -> Vec<Replacing> {
    let of = |one: &Replacement| Replacing {
        since_ms: one.by.at_ms,
        who: one.by.who.clone(),
        reason: one.by.reason.clone(),
        days: one.days.clone(),
    };
    Replacements::of(control).open().map(of).collect()
}

/// Whether a part answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Part {
    Up,
    Down { reason: String },
}

/// Windows `[from_ms, to_ms)` that a run still has to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computing {
    pub run: String,
    pub from_ms: i64,
    pub to_ms: i64,
}

/// What is left of the disk that the embedded log, the spool, ClickHouse's files and spilled windows are on, where they
/// are weir's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub path: String,
    pub free_bytes: u64,
}

/// What waits on a collector's disk for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    pub bytes: u64,
    pub bytes_max: u64,
    pub batches: u64,
    /// When the oldest batch was made; `None`: nothing waits.
    pub oldest_ms: Option<i64>,
    /// How long that is ago; 0: nothing waits.
    pub age_ms: i64,
}

impl Snapshot {
    /// What there is to say when the log cannot be looked at.
    pub fn without_log(at_ms: i64, reason: String) -> Self {
        Self { at_ms, log_away: Some(reason), ..Self::default() }
    }

    /// The same with what is known of the control topic.
    pub fn remembering(self, control: &[ControlRecord]) -> Self {
        let (world, recoveries) = (World::of(control), recoveries(control));
        let (maintenances, conversions) = (maintenances(&world.control, self.at_ms), conversion::told(&world));
        Self { maintenances, conversions, recoveries, replacing: replacing(control), ..self }
    }

    /// The run of live events.
    pub fn live(&self) -> Option<&RunStatus> {
        self.runs.iter().find(|run| run.run == LIVE)
    }

    /// Those of the generation in use.
    pub(crate) fn runs_in_use(&self) -> impl Iterator<Item = &RunStatus> {
        self.runs.iter().filter(|run| !RunStatus::is_role_beside(&run.run))
    }

    /// Everything live before it is in the table, but what is being computed or missing. While another generation is about to
    /// be shown, no more than through the instant of that: readers see the same.
    pub fn complete_through_ms(&self) -> Option<i64> {
        self.live()?.progress.as_ref()?.complete_through_ms
    }
}

/// Name of the run of live events.
pub(crate) const LIVE: &str = "live";

/// One run, as its progress in the log shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    pub run: String,
    pub topic: String,
    /// What the run said last; `None` if it has never said anything.
    pub progress: Option<RunProgress>,
    /// Sum over the partitions.
    pub lag_records: i64,
    /// The largest of the partitions.
    pub lag_ms: i64,
    pub partitions: Vec<PartitionStatus>,
    /// What the log has of the topic, or of the run's range.
    #[serde(default)]
    pub records: i64,
    /// How long the log still keeps everything that the run needs, ms; negative: some of it may be gone. `None`: for ever,
    /// or not known.
    pub retention_headroom_ms: Option<i64>,
    /// How much is gone of the time for which the log keeps what the run needs, thousandths: by time or by bytes, whichever is
    /// worse. Over 1,000: some of it may be gone. `None`: it is kept for ever, or that is not known.
    #[serde(default)]
    pub retention_used_permille: Option<i64>,
    /// Windows that somebody has given up, ascending: they are not in the table, and will not be. Those of the run that fills
    /// gaps are live's, and those of the one that carries rows over, with what was missing already where these came from.
    #[serde(default)]
    pub missing: Vec<Missing>,
    /// The topic was there, and is not any more.
    #[serde(default)]
    pub topic_gone: bool,
    /// It is paused; `None`: it is not.
    #[serde(default)]
    pub paused: Option<PausedStatus>,
    /// Somebody has said for which share of the time it works at most; `None`: nobody has, or not less than all of it.
    #[serde(default)]
    pub throttled: Option<ThrottledStatus>,
    /// `None`: it was not looked at for long enough.
    #[serde(default)]
    pub rates: Option<Rates>,
    /// When it will have caught up; `None`: it is not behind, or is paused.
    #[serde(default)]
    pub eta: Option<Eta>,
    /// What was said at half of its newest backlog, and when that was done.
    #[serde(default)]
    pub eta_kept: Option<EtaKept>,
}

/// By whom, why and until when a run is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedStatus {
    pub since_ms: i64,
    pub who: String,
    pub reason: String,
    /// It is resumed by itself then; `None`: by nobody but a person, or before the log would lose what it needs.
    pub until_ms: Option<i64>,
    /// Everything before is in the table; `None`: it has not stopped yet.
    pub through_ms: Option<i64>,
}

/// By whom, why and how far a run is slowed down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottledStatus {
    pub since_ms: i64,
    pub who: String,
    pub reason: String,
    /// Thousandths of the time that it works at most.
    pub permille: u16,
}

/// What one partition still has for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionStatus {
    pub partition: u32,
    /// The next offset that the run reads; `None` before it has said so.
    pub offset: Option<i64>,
    /// The offset that the next record gets.
    pub end: i64,
    /// Log time of the newest record read, or when the partition came into use.
    pub arrival_ms: Option<i64>,
    pub lag_records: i64,
    /// Log time between the newest record read and now, or the end of the run's range; 0 when all is read.
    pub lag_ms: i64,
    #[serde(default)]
    pub rates: Option<Rates>,
}

/// One import that has not been taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportStatus {
    pub id: String,
    pub site: String,
    pub state: ImportState,
    pub events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// Its file is being read; nothing of it is counted.
    Writing,
    /// Its run computes it.
    Counting,
    /// All of it is in the table.
    Done,
    /// It is being taken back.
    Undoing,
}

/// What is kept from look to look.
#[derive(Debug)]
pub struct Seen {
    window_ms: i64,
    due_ms: i64,
    /// Runs that have an end, by their own names, that had come to it when they were last looked at, and when: of imports there
    /// may be hundreds, and each is several questions to a broker.
    ended: BTreeMap<String, (i64, RunStatus)>,
    paces: Paces,
    /// Of each run, where a bound on bytes may take what it needs.
    kept: BTreeMap<String, Kept>,
    /// When that was asked last.
    kept_ms: Option<i64>,
}

impl Seen {
    /// Nothing was looked at yet. What is known of windows; 0: nothing.
    pub fn new(window_ms: i64, lateness_ms: i64) -> Seen {
        let due_ms = window_ms + lateness_ms;
        let (ended, paces, kept, kept_ms) = Default::default();
        Seen { window_ms, due_ms, ended, paces, kept, kept_ms }
    }

    /// The width of a generation's windows, and how old what it is complete through gets while it is on time.
    fn windows_of(&self, world: &World, number: Number) -> (i64, i64) {
        world.generations.version(number).map_or((self.window_ms, self.due_ms), |version| {
            (version.width.ms(), version.width.ms() + version.lateness_ms)
        })
    }

    /// The run of this name, under this role, as it was when it had ended; `None`: it had not, or that is long ago.
    fn ended(&self, name: &str, role: &str, now_ms: i64) -> Option<RunStatus> {
        let (_, run) = self.ended.get(name).filter(|(seen_ms, _)| now_ms - seen_ms < ENDED_MS)?;
        Some(RunStatus { run: role.to_owned(), ..run.clone() })
    }

    /// Whether it has ended, which is remembered.
    fn has_ended(&mut self, name: &str, run: &RunStatus, now_ms: i64) -> bool {
        match run.has_ended() {
            true => self.ended.insert(name.to_owned(), (now_ms, run.clone())),
            false => self.ended.remove(name),
        };
        run.has_ended()
    }

    /// Whether it is time to ask what a bound on bytes leaves ([`ask_kept`]); who is told so is the one to ask.
    pub fn is_kept_due(&mut self, now_ms: i64) -> bool {
        let is_due = self.kept_ms.is_none_or(|kept_ms| now_ms - kept_ms >= KEPT_MS);
        if is_due {
            self.kept_ms = Some(now_ms);
        }
        is_due
    }

    /// What [`ask_kept`] has answered.
    pub fn keep(&mut self, kept: BTreeMap<String, Kept>) {
        self.kept = kept;
    }

    /// What was said at half of the backlog of the run of this name of when it would be done, for one that was half done after `since_ms`
    /// and is done at `came_ms`. `None`: nothing could be said then, or nobody looked.
    pub fn eta_kept(&self, run: &str, since_ms: i64, came_ms: i64) -> Option<EtaKept> {
        self.paces.kept(run, since_ms, came_ms)
    }
}

/// Less than this is on its way rather than waiting: a run reports twice a second, and an INSERT may take seconds.
const BEHIND_MS: i64 = 10_000;

/// How long a run that had ended is not looked at again.
const ENDED_MS: i64 = 60_000;

/// How often it is asked what a bound on bytes leaves: it takes reading some records of each partition.
const KEPT_MS: i64 = 30_000;

/// How long the log keeps what each run of live events needs, where the topic has a bound on bytes; may take seconds.
pub fn ask_kept(log: &dyn Log, snapshot: &Snapshot) -> Result<BTreeMap<String, Kept>, LogError> {
    let mut all = BTreeMap::new();
    if snapshot.runs.iter().all(|run| run.topic_gone) || log.retention_bytes(EVENTS_TOPIC)?.is_none() {
        return Ok(all);
    }
    for run in snapshot.runs.iter().filter(|run| run.topic == EVENTS_TOPIC) {
        if let Some(through_ms) = run.progress.as_ref().and_then(|progress| progress.complete_through_ms) {
            all.insert(run.run.clone(), guard::kept(log, EVENTS_TOPIC, through_ms, snapshot.at_ms)?);
        }
    }
    Ok(all)
}

/// Looks at the log. `control` is the control topic from its start, in order; `seen` is kept from look to look.
pub fn observe(log: &dyn Log, control: &[ControlRecord], now_ms: i64, seen: &mut Seen) -> Result<Snapshot, LogError> {
    let (said, world) = (control, World::of(control));
    let control = world.control.as_slice();
    let (window_ms, due_ms) = seen.windows_of(&world, world.generations.in_use());
    let mut runs = Vec::new();
    let mut retention_s = None;
    let mut log_is_behind = false;
    match observe_run(log, &world, LIVE, EVENTS_TOPIC, None, now_ms) {
        Ok(mut run) => {
            retention_s = log.retention(EVENTS_TOPIC)?.map(|kept| kept.as_secs());
            let through_ms = run.progress.as_ref().and_then(|progress| progress.complete_through_ms);
            run.is_kept(through_ms, retention_s, seen.kept.get(LIVE), now_ms);
            let to_ms = now_ms - due_ms;
            run.look(&world, through_ms.map(|through_ms| (through_ms, to_ms)), now_ms, &mut seen.paces);
            // Only who is at work appends the ticks by which the log's clock shows where no hits come.
            let is_at_work = run.progress.as_ref().is_some_and(|progress| {
                now_ms - progress.at_ms < SILENT_MS && progress.waiting.is_none() && progress.stopped.is_none()
            });
            if let Some(through_ms) = through_ms.filter(|through_ms| is_at_work && to_ms - through_ms > LATE_MS) {
                log_is_behind = !has_come(log, through_ms + due_ms + LATE_MS)?;
            }
            // What readers see never goes back: the one that is shown next may be complete through no more than that.
            let told_ms = run.progress.as_mut().and_then(|progress| progress.complete_through_ms.as_mut());
            if let Some((told_ms, show)) = told_ms.zip(world.generations.pending()) {
                *told_ms = show.at_ms.min(*told_ms);
            }
            runs.push(run);
        }
        Err(LogError::UnknownTopic(_)) if weir_log::topic_is(EVENTS_TOPIC, control).is_some() => {
            runs.push(RunStatus { topic_gone: true, ..RunStatus::unknown(LIVE, EVENTS_TOPIC, control) })
        }
        // Nothing has run on this log yet.
        Err(LogError::UnknownTopic(_)) => {}
        Err(error) => return Err(error),
    }
    if let Some(live) = runs.first_mut() {
        live.missing = missing(said, &world.generations, world.generations.in_use());
    }
    let is_there = runs.first().is_some_and(|live| !live.topic_gone);
    let maintenances = maintenances(control, now_ms);
    let mut computing = gaps(&maintenances);
    if is_there && !computing.is_empty() {
        let (spans, all_ms) = (spans(&computing), length_ms(&computing));
        let mut run = observe_run(log, &world, GAP_RUN, EVENTS_TOPIC, Some(&spans), now_ms)?;
        let through_ms = run.progress.as_ref().and_then(|progress| progress.complete_through_ms).unwrap_or(i64::MIN);
        for range in &mut computing {
            range.from_ms = through_ms.clamp(range.from_ms, range.to_ms);
        }
        computing.retain(|range| range.from_ms < range.to_ms);
        let (first_ms, last_ms) = (spans[0].0, spans[spans.len() - 1].1);
        let filled_ms = computing.first().map_or(last_ms, |range| range.from_ms);
        run.is_kept(Some(filled_ms), retention_s, seen.kept.get(GAP_RUN), now_ms);
        // As if one gap followed upon the other: what live has done between them is nobody's work here.
        let left_ms = length_ms(&computing);
        run.look(&world, Some((first_ms + all_ms - left_ms, first_ms + all_ms)), now_ms, &mut seen.paces);
        runs.push(run);
    }
    let made = world.generations.made(world.generations.in_use()).filter(|_| is_there);
    if let Some(made) = made {
        let carried = observe_carried(log, &world, CARRIED_RUN, made, now_ms, seen)?;
        runs.extend(carried.filter(|run| !run.has_ended()));
    }
    let mut imports = fold_imports(control);
    for import in &mut imports {
        if !matches!(import.state, ImportState::Counting) {
            continue;
        }
        match observe_import(log, &world, &import_run(&import.id), &import.id, now_ms, seen)? {
            Some(run) => {
                if run.has_ended() {
                    import.state = ImportState::Done;
                }
                runs.push(run);
            }
            None => import.state = ImportState::Undoing,
        }
    }
    let live = runs.first().filter(|live| live.run == LIVE && !live.topic_gone);
    let (beside, eta, beside_due_ms) = match world.generations.shadow().filter(|_| live.is_some()) {
        Some(number) => {
            let (_, due_ms) = seen.windows_of(&world, number);
            let (mut beside, eta) = observe_beside(log, &world, &imports, (retention_s, due_ms), now_ms, seen)?;
            beside[0].missing = missing(said, &world.generations, number);
            (beside, eta, due_ms)
        }
        None => (Vec::new(), None, due_ms),
    };
    let conversion = conversion::status(&world, &beside, (eta, beside_due_ms), live, now_ms);
    runs.extend(beside.into_iter().filter(|run| !run.has_ended()));
    let began_ms = weir_log::partitions_in_use(control).first().map(|partition| partition.effective_ms);
    Ok(Snapshot {
        at_ms: now_ms,
        window_ms,
        due_ms,
        log_is_behind,
        began_ms,
        retention_s,
        runs,
        imports,
        computing,
        maintenances,
        conversion,
        conversions: conversion::told(&world),
        recoveries: recoveries(said),
        replacing: replacing(said),
        ..Snapshot::default()
    })
}

/// The run of an import; `None`: its topic went between the control record and this look.
fn observe_import(
    log: &dyn Log,
    world: &World,
    role: &str,
    id: &str,
    now_ms: i64,
    seen: &mut Seen,
) -> Result<Option<RunStatus>, LogError> {
    let name = world.roles.run(role).unwrap_or_default();
    if let Some(run) = seen.ended(&name, role, now_ms) {
        return Ok(Some(run));
    }
    let mut run = match observe_run(log, world, role, &import_topic(id), None, now_ms) {
        Ok(run) => run,
        Err(LogError::UnknownTopic(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !seen.has_ended(&name, &run, now_ms) {
        run.look(world, None, now_ms, &mut seen.paces);
    }
    Ok(Some(run))
}

/// The run that carries rows over to a generation; `None`: none are.
fn observe_carried(
    log: &dyn Log,
    world: &World,
    role: &str,
    to: &Conversion,
    now_ms: i64,
    seen: &mut Seen,
) -> Result<Option<RunStatus>, LogError> {
    let (Some(carried), seam_ms) = (to.carried, to.from_ms) else { return Ok(None) };
    let name = world.roles.run(role).unwrap_or_default();
    if let Some(run) = seen.ended(&name, role, now_ms) {
        return Ok(Some(run));
    }
    let run = observe_run(log, world, role, EVENTS_TOPIC, None, now_ms)?;
    // It reads nothing of the log, and what it has given up is live's.
    let (partitions, lag_records, lag_ms, records, missing) = (Vec::new(), 0, 0, 0, Vec::new());
    let mut run = RunStatus { partitions, lag_records, lag_ms, records, missing, ..run };
    if !seen.has_ended(&name, &run, now_ms) {
        let through_ms = run.progress.as_ref().and_then(|progress| progress.complete_through_ms);
        let through_ms = through_ms.unwrap_or(carried.from_ms);
        run.look(world, Some((through_ms, seam_ms)), now_ms, &mut seen.paces);
        run.rates = None;
    }
    Ok(Some(run))
}

/// The runs beside the generation in use, live's first, done ones too; and when all of them will have caught up, as if they were
/// one: some wait for others. `due_ms`: of their generation.
fn observe_beside(
    log: &dyn Log,
    world: &World,
    imports: &[ImportStatus],
    (retention_s, due_ms): (Option<u64>, i64),
    now_ms: i64,
    seen: &mut Seen,
) -> Result<(Vec<RunStatus>, Option<Eta>), LogError> {
    let mut live = observe_run(log, world, SHADOW, EVENTS_TOPIC, None, now_ms)?;
    let made = world.generations.shadow().and_then(|number| world.generations.made(number));
    let from_ms = made.map(|made| made.from_ms);
    let through_ms = live.progress.as_ref().and_then(|progress| progress.complete_through_ms).or(from_ms);
    live.is_kept(through_ms, retention_s, seen.kept.get(SHADOW), now_ms);
    let through_ms = through_ms.map(|through_ms| (through_ms, now_ms - due_ms));
    live.look(world, through_ms, now_ms, &mut seen.paces);
    let mut runs = vec![live];
    let role = format!("{SHADOW}-{CARRIED_RUN}");
    let carried = made.map_or(Ok(None), |made| observe_carried(log, world, &role, made, now_ms, seen))?;
    runs.extend(carried.map(|run| held_as(&runs[0], run)));
    let counted = |import: &&ImportStatus| matches!(import.state, ImportState::Counting | ImportState::Done);
    for import in imports.iter().filter(counted) {
        let role = format!("{SHADOW}-{}", import_run(&import.id));
        if let Some(run) = observe_import(log, world, &role, &import.id, now_ms, seen)? {
            runs.push(held_as(&runs[0], run));
        }
    }
    let parts = runs.iter().flat_map(|run| &run.partitions).zip(0..);
    let is_behind = |run: &RunStatus| run.eta.is_some() || (run.run != SHADOW && !run.has_ended());
    let work = Work {
        partitions: parts.map(|(part, number)| (number, part.end - part.lag_records, part.end)).collect(),
        through_ms: through_ms.filter(|_| runs[0].eta.is_some()),
        is_behind: runs.iter().any(is_behind),
        is_paused: runs[0].paused.is_some(),
    };
    let name = format!("all beside with {}", world.roles.run(SHADOW).unwrap_or_default());
    let told = seen.paces.see(&name, now_ms, &work);
    Ok((runs, told.eta))
}

/// All runs beside are held as one.
fn held_as(live: &RunStatus, run: RunStatus) -> RunStatus {
    let through_ms = run.progress.as_ref().and_then(|progress| progress.complete_through_ms);
    let paused = live.paused.clone().map(|paused| PausedStatus { through_ms, ..paused });
    RunStatus { paused, throttled: live.throttled.clone(), ..run }
}

/// Whether the log's clock says that it is this time or later: a live event, or a tick, has come then.
pub fn has_come(log: &dyn Log, at_ms: i64) -> Result<bool, LogError> {
    for partition in 0..log.partitions(EVENTS_TOPIC)? {
        if log.offset_at(EVENTS_TOPIC, partition, at_ms)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What live has left out and nobody has said to be filled, ascending; what was left out twice is one.
pub(crate) fn gaps(maintenances: &[Maintenance]) -> Vec<Computing> {
    let open = |maintenance: &&Maintenance| {
        maintenance.run.as_deref() == Some(LIVE) && maintenance.state == MaintenanceState::CatchingUp
    };
    let range = |maintenance: &Maintenance| {
        let (from_ms, to_ms) = (maintenance.paused_ms?, maintenance.leaves_to_ms()?);
        Some(Computing { run: GAP_RUN.to_owned(), from_ms, to_ms })
    };
    let mut all: Vec<_> = maintenances.iter().filter(open).filter_map(range).collect();
    all.sort_by_key(|range| range.from_ms);
    let mut gaps: Vec<Computing> = Vec::new();
    for range in all {
        match gaps.last_mut().filter(|last| range.from_ms <= last.to_ms) {
            Some(last) => last.to_ms = last.to_ms.max(range.to_ms),
            None => gaps.push(range),
        }
    }
    gaps
}

/// Where they begin and end.
pub(crate) fn spans(ranges: &[Computing]) -> Vec<(i64, i64)> {
    ranges.iter().map(|range| (range.from_ms, range.to_ms)).collect()
}

/// Of ranges that do not overlap.
pub(crate) fn length_ms(ranges: &[Computing]) -> i64 {
    ranges.iter().map(|range| range.to_ms - range.from_ms).sum()
}

/// The imports that the control records name, without those that were taken back.
pub(crate) fn fold_imports(control: &[ControlRecord]) -> Vec<ImportStatus> {
    let mut imports: Vec<ImportStatus> = Vec::new();
    for record in control {
        match &record.action {
            Action::ImportBegun { import } => imports.push(ImportStatus {
                id: import.id.clone(),
                site: import.site.clone(),
                state: ImportState::Writing,
                events: 0,
            }),
            Action::ImportWritten { id, events, .. } => {
                let writing = |import: &&mut ImportStatus| import.id == *id && import.state == ImportState::Writing;
                for import in imports.iter_mut().filter(writing) {
                    import.state = ImportState::Counting;
                    import.events = *events;
                }
            }
            Action::ImportUndo { id } => {
                for import in imports.iter_mut().filter(|import| import.id == *id) {
                    import.state = ImportState::Undoing;
                }
            }
            Action::ImportUndone { id } => imports.retain(|import| import.id != *id),
            _ => {}
        }
    }
    imports
}

impl RunStatus {
    /// Whether this is what people call a run of the generation that is not in use.
    pub(crate) fn is_role_beside(role: &str) -> bool {
        role.strip_prefix(SHADOW).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    fn has_ended(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.ended)
    }

    /// A run of which the log says nothing.
    pub(crate) fn unknown(run: &str, topic: &str, control: &[ControlRecord]) -> Self {
        let hold = Hold::of(run, control);
        let paused = hold.paused().map(|pause| PausedStatus {
            since_ms: pause.by.at_ms,
            who: pause.by.who.clone(),
            reason: pause.by.reason.clone(),
            until_ms: pause.until_ms,
            through_ms: pause.paused_ms,
        });
        let permille = hold.permille;
        let throttled = hold.throttle.filter(|_| permille < UNHINDERED_PERMILLE).map(|by| ThrottledStatus {
            since_ms: by.at_ms,
            who: by.who,
            reason: by.reason,
            permille,
        });
        Self {
            run: run.to_owned(),
            topic: topic.to_owned(),
            progress: None,
            lag_records: 0,
            lag_ms: 0,
            partitions: Vec::new(),
            missing: Recoveries::missing_of(run, control),
            paused,
            throttled,
            ..Self::default()
        }
    }

    /// Says how long the log keeps what it needs, of a run that is complete through `through_ms`. One that begins again at its
    /// checkpoint reads from a horizon and a clock's step before it. `kept`: what a bound on bytes has left lately.
    fn is_kept(&mut self, through_ms: Option<i64>, retention_s: Option<u64>, kept: Option<&Kept>, now_ms: i64) {
        let by_time = through_ms.zip(retention_s).map(|(through_ms, retention_s)| {
            let retention_ms = retention_s as i64 * 1000;
            (through_ms - DEDUP_HORIZON_MS - STEP_BACK_MAX_MS + retention_ms, retention_ms)
        });
        let by_size = kept.and_then(|kept| match kept.by_size {
            BySize::Until(lost_ms) => Some((lost_ms - kept.ahead_ms, lost_ms - kept.needed_ms)),
            BySize::Unbounded | BySize::NotKnown { .. } => None,
        });
        // (from when on it is deleted, for how long it was kept by then)
        let bounds = by_time.into_iter().chain(by_size);
        self.retention_headroom_ms = bounds.clone().map(|(lost_ms, _)| lost_ms - now_ms).min();
        let used = |(lost_ms, kept_ms): (i64, i64)| 1000 - (lost_ms - now_ms).saturating_mul(1000) / kept_ms.max(1);
        self.retention_used_permille = bounds.map(used).max();
    }

    /// Says how fast it is; `through_ms`: see [`Work::through_ms`].
    fn look(&mut self, world: &World, through_ms: Option<(i64, i64)>, now_ms: i64, paces: &mut Paces) {
        let of =
            |partition: &PartitionStatus| (partition.partition, partition.end - partition.lag_records, partition.end);
        let lacks_ms = through_ms.map_or(0, |(through_ms, to_ms)| to_ms - through_ms);
        let is_behind = self.lag_ms > BEHIND_MS || lacks_ms > BEHIND_MS;
        let work = Work {
            partitions: self.partitions.iter().map(of).collect(),
            through_ms,
            is_behind,
            is_paused: self.paused.is_some(),
        };
        // Another one may have its role soon.
        let name = world.roles.run(&self.run).unwrap_or_default();
        let told = paces.see(&name, now_ms, &work);
        for partition in &mut self.partitions {
            partition.rates = told.of_partitions.get(&partition.partition).copied();
        }
        (self.rates, self.eta, self.eta_kept) = (told.rates, told.eta, told.kept);
    }
}

/// `run`: its role. `spans`: it reads no more than the log between these times, ascending.
pub(crate) fn observe_run(
    log: &dyn Log,
    world: &World,
    run: &str,
    topic: &str,
    spans: Option<&[(i64, i64)]>,
    now_ms: i64,
) -> Result<RunStatus, LogError> {
    let control = world.control.as_slice();
    let group = world.roles.run(run).map(|run| group_of(&run));
    let committed = group.map_or(Ok(Vec::new()), |group| log.committed(&group, topic))?;
    // A partition's time begins when it comes into use, heard of or not.
    let in_use = if topic == EVENTS_TOPIC { weir_log::partitions_in_use(control) } else { Vec::new() };
    let metadata_of = |of: &Committed| serde_json::from_str::<Metadata>(&of.metadata).unwrap_or_default();
    let mut progress = committed.iter().find_map(|of| metadata_of(of).run);
    // What the gap run has said before a copy was brought back is not so any more, and nor is where it was.
    let ordered = (run == GAP_RUN).then(|| Recoveries::of(run, control).last());
    let is_past = ordered.is_some_and(|ordered| progress.as_ref().is_some_and(|told| told.recovery != ordered));
    if let Some(progress) = progress.as_mut().filter(|_| is_past) {
        (progress.complete_through_ms, progress.ended) = (None, false);
    }
    let (mut partitions, mut records) = (Vec::new(), 0);
    for partition in 0..log.partitions(topic)? {
        let bounds = log.bounds(topic, partition)?;
        let offset_at = |at_ms| Ok::<_, LogError>(log.offset_at(topic, partition, at_ms)?.unwrap_or(bounds.end));
        let ranges: Vec<(i64, i64)> = match spans {
            None => vec![(bounds.start, bounds.end)],
            Some(spans) => {
                let of = |(from_ms, to_ms): &(i64, i64)| Ok((offset_at(*from_ms)?, offset_at(*to_ms)?));
                spans.iter().map(of).collect::<Result<_, LogError>>()?
            }
        };
        let mine = committed.iter().find(|committed| committed.partition == partition && !is_past);
        // Metadata that somebody else wrote says nothing; the offset is still there to be shown.
        let metadata = mine.map(metadata_of).unwrap_or_default();
        let offset = mine.map(|mine| mine.offset);
        let left = |(start, end): &(i64, i64)| (end - offset.unwrap_or(*start).max(*start)).max(0);
        let lag_records = ranges.iter().map(left).sum();
        records += ranges.iter().map(|(start, end)| end - start).sum::<i64>();
        let effective_ms = in_use.iter().find(|in_use| in_use.partition == partition).map(|in_use| in_use.effective_ms);
        let heard_ms = metadata.partition.arrival_ms.or(effective_ms);
        let arrival_ms = heard_ms.max(spans.map(|spans| spans[0].0));
        let lag_ms = match (arrival_ms, spans) {
            (Some(arrival_ms), None) if lag_records > 0 => (now_ms - arrival_ms).max(0),
            (Some(arrival_ms), Some(spans)) if lag_records > 0 => {
                spans.iter().map(|(from_ms, to_ms)| (to_ms - arrival_ms.max(*from_ms)).max(0)).sum()
            }
            _ => 0,
        };
        let (end, rates) = (ranges.last().map_or(bounds.end, |(_, end)| *end), None);
        partitions.push(PartitionStatus { partition, offset, end, arrival_ms, lag_records, lag_ms, rates });
    }
    let unknown = RunStatus::unknown(run, topic, control);
    // Who is paused says nothing new: a copy may have been brought back since.
    if let (Some(progress), Some(through_ms)) =
        (&mut progress, unknown.paused.as_ref().and_then(|paused| paused.through_ms))
    {
        progress.complete_through_ms = Some(through_ms);
    }
    Ok(RunStatus {
        progress,
        lag_records: partitions.iter().map(|partition| partition.lag_records).sum(),
        lag_ms: partitions.iter().map(|partition| partition.lag_ms).max().unwrap_or(0),
        partitions,
        records,
        ..unknown
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_schemas::control::Import;

    fn record(action: Action) -> ControlRecord {
        ControlRecord { at_ms: 0, who: "test".into(), reason: String::new(), action }
    }

    fn begun(id: &str) -> ControlRecord {
        record(Action::ImportBegun { import: Import { id: id.into(), site: "s".into(), files: Vec::new() } })
    }

    fn written(id: &str) -> ControlRecord {
        record(Action::ImportWritten { id: id.into(), events: 7, partitions: 1, first_ms: 0, last_ms: 9 })
    }

    #[test]
    fn the_headroom_is_what_retention_leaves_before_the_run_would_miss_a_record() {
        let slack_ms = DEDUP_HORIZON_MS + STEP_BACK_MAX_MS;
        let kept = |through_ms, retention_s, by_size: Option<i64>, now_ms| {
            let kept = |lost_ms| Kept {
                needed_ms: 5_000,
                retention_ms: None,
                by_size: BySize::Until(lost_ms + 5_000),
                ahead_ms: 5_000,
            };
            let by_size = by_size.map(kept);
            let mut run = RunStatus::default();
            run.is_kept(through_ms, retention_s, by_size.as_ref(), now_ms);
            (run.retention_headroom_ms, run.retention_used_permille)
        };
        assert_eq!(kept(Some(slack_ms), Some(60), None, 10_000), (Some(50_000), Some(167)));
        assert_eq!(kept(Some(slack_ms), Some(60), None, 70_000), (Some(-10_000), Some(1_166)));
        assert_eq!(kept(Some(0), None, None, 0), (None, None));
        assert_eq!(kept(None, Some(60), None, 0), (None, None));
        assert_eq!(kept(Some(slack_ms), Some(60), Some(20_000), 10_000), (Some(10_000), Some(500)), "bytes go first");
        assert_eq!(kept(Some(slack_ms), Some(60), Some(90_000), 48_000), (Some(12_000), Some(800)), "time goes first");
    }

    #[test]
    fn an_import_is_writing_until_all_of_it_is_written_and_gone_after_it_was_undone() {
        let control = [
            begun("a"),
            begun("b"),
            begun("c"),
            written("b"),
            written("c"),
            record(Action::ImportUndo { id: "c".into() }),
            written("c"),
            begun("d"),
            record(Action::ImportUndone { id: "d".into() }),
        ];
        let states: Vec<_> = fold_imports(&control).into_iter().map(|import| (import.id, import.state)).collect();
        assert_eq!(
            states,
            [
                ("a".to_owned(), ImportState::Writing),
                ("b".to_owned(), ImportState::Counting),
                ("c".to_owned(), ImportState::Undoing),
            ]
        );
    }
}
