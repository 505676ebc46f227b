//! Starts, watches and ends the runs: each is a process of its own, so that one that stops stops only itself.
//!
//! ```text
//!  control topic ──▶ desired() ──▶ keep_up(order, child) ──▶ spawn / stop / take back
//!         └── pauses, gaps (hold.rs, gaps.rs) ──▶ no process / one more run
//!  audit ──findings──▶ the run concerned is stopped, until `weir recover`
//! ```
//!
//! A child's standard input is its lifeline: the order comes as its first line, and when we die, however, it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{error, info, warn};
use weir_console::Seen;
use weir_log::{Clock, Committed, ControlLog, Log};
use weir_schemas::{
    Fault, Hold, Number, SHADOW, SchemaVersion, World,
    control::{Action, CARRIED_RUN, ControlRecord, EVENTS_TOPIC, GAP_RUN, import_run, import_topic},
    kind_of,
    progress::group_of,
    run_of,
};
use weir_sink::{
    Left,
    audit::{Audit, Finding},
};

use crate::{
    begin,
    config::Config,
    control::Control,
    exposition::OfRuns,
    fault::Step,
    gaps::Gaps,
    generation::Generation,
    give_way::{GiveWay, has_come, late_from},
    hold::Holding,
    judge, report,
    run::{RunOrder, STOPPED_FOR_GOOD, Told},
    tables::Tables,
    undo::Undos,
};

/// First wait before a run that failed is started again; doubles up to [`RESTART_MAX`].
const RESTART_MIN: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_secs(30);
/// A run that lived this long starts with [`RESTART_MIN`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How often children and control topic are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a run may take to finish its deed when it is asked to stop; it is killed then, which loses nothing.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Imports that are counted, or looked at after a start, at the same time: each is a process with workers of its own.
const IMPORTS_AT_ONCE: usize = 2;
/// How often the groups of runs without a process are written anew: a broker forgets offsets after seven days.
const REFRESH_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long ClickHouse is asked whether it has too much to do.
const ASK_PATIENCE: Duration = Duration::from_millis(500);
/// How long the control topic may take to give back what was written to it.
const READ_BACK: Duration = Duration::from_secs(30);
/// How often it is looked whether it is still told why a run has stopped.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Of so many looks of the audit one counts all rows of the table: hourly, at a look a minute.
const ROWS_EVERY: u32 = 60;

/// What the control topic wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    /// Imports that are whole and to be counted: id → (first, last event time, partitions).
    pub(crate) imports: BTreeMap<String, (i64, i64)>,
    /// Imports to be taken back.
    undo: Vec<String>,
}

pub(crate) fn desired(control: &[ControlRecord]) -> Desired {
    let mut desired = Desired::default();
    // An importer that was taken for dead may say that it has written after its import was taken back: too late.
    let mut taken_back = BTreeSet::new();
    for record in control {
        match &record.action {
            Action::ImportWritten { id, .. } if taken_back.contains(id) => {}
            Action::ImportUndo { id } if taken_back.contains(id) => {}
            Action::ImportWritten { id, first_ms, last_ms, .. } => {
                desired.imports.insert(id.clone(), (*first_ms, *last_ms));
            }
            Action::ImportUndo { id } => {
                taken_back.insert(id.clone());
                desired.imports.remove(id);
                desired.undo.push(id.clone());
            }
            Action::ImportUndone { id } => desired.undo.retain(|undo| undo != id),
            _ => {}
        }
    }
    desired
}

/// What is known of that which runs beside live.
#[derive(Default)]
struct Beside {
    /// Of each generation.
    gaps: BTreeMap<Number, Gaps>,
    give_way: GiveWay,
}

/// What is known of a run's process.
struct Running {
    child: Option<Child>,
    started: Instant,
    wait: Duration,
    /// The run has ended, or a person is needed: not started again, until there is another recovery.
    over: bool,
    recovery: Option<i64>,
    topic: String,
    /// The audit has stopped it.
    differs: bool,
    /// It has no process, and needs a person or is paused: what it has said last stays known.
    quiet: Option<Quiet>,
    /// A repair is pending, by the last look.
    pending: bool,
    /// When a repair was last seen to be pending, or done: what the audit began to look for before says nothing.
    unsettled: Option<Instant>,
    /// The run has come to its end, all of it is in the table.
    ended: bool,
    /// When the process was started, ms since the Unix epoch.
    began_ms: Option<i64>,
    /// What it was told last.
    left: Left,
    told: Told,
    /// It is paused.
    held: bool,
    holding: Holding,
}

/// What keeps it known what a run without a process has said last: why it has stopped, and how far it is.
struct Quiet {
    /// Why it has stopped, if that could not be told yet, and what it was called then.
    unsaid: Option<(Fault, String)>,
    kept: Vec<Committed>,
    looked: Instant,
}

impl Quiet {
    /// Tells it, if that is still to be done, and puts it back, if somebody has written over it.
    fn keep(mut self, log: &dyn Log, (run, topic): (&str, &str), recovery: Option<i64>) -> Quiet {
        self.looked = Instant::now();
        if let Some((fault, called)) = &self.unsaid {
            let said = report::say_stopped(log, (run, topic), recovery, &judge::say(fault, called), Some(fault));
            match said {
                Ok(()) => self.unsaid = None,
                Err(error) => {
                    warn!(run, error = format!("{error:#}"), "could not be told to `weir status`; tried again")
                }
            }
        }
        match report::keep(log, run, topic, &self.kept) {
            Ok(kept) => self.kept = kept,
            Err(error) => {
                warn!(run, error = format!("{error:#}"), "it is not known what the run said last; asked again")
            }
        }
        self
    }

    fn now(unsaid: Option<(Fault, String)>) -> Option<Quiet> {
        Some(Quiet { unsaid, kept: Vec::new(), looked: Instant::now() - KEEP_EVERY })
    }
}

impl Running {
    /// Looks whether it is still known what the run has said last, if it is time to; whether it was.
    async fn keep_known(&mut self, log: &Arc<dyn Log>, run: &str) -> anyhow::Result<bool> {
        let due = |quiet: &mut Quiet| quiet.looked.elapsed() >= KEEP_EVERY;
        let Some(quiet) = self.quiet.take_if(due) else { return Ok(false) };
        let (log, run, topic, recovery) = (log.clone(), run.to_owned(), self.topic.clone(), self.recovery);
        let keep = move || quiet.keep(log.as_ref(), (&run, &topic), recovery);
        self.quiet = Some(tokio::task::spawn_blocking(keep).await?);
        Ok(true)
    }
}

/// Runs of imports of the generation of `run`, without it, that have a process.
fn imports_at_work(runs: &BTreeMap<String, Running>, run: &str) -> usize {
    let at_work = |(other, running): &(&String, &Running)| {
        let (number, kind) = kind_of(other);
        *other != run && number == kind_of(run).0 && kind.starts_with("import-") && running.child.is_some()
    };
    runs.iter().filter(at_work).count()
}

/// What the audit has found, when it began to look, and how many control records were known then.
struct Found {
    began: Instant,
    known: usize,
    generation: Generation,
    findings: Vec<Finding>,
}

/// Everything the supervisor needs.
pub(crate) struct Supervisor {
    pub config: Config,
    pub log: Arc<dyn Log>,
    pub control: Control,
    pub clock: Arc<dyn Clock>,
    pub target: weir_sink::Target,
    pub metrics: OfRuns,
    /// What the console of this process has seen.
    pub seen: Arc<Mutex<Seen>>,
}

impl Supervisor {
    /// Runs until `shutdown` is true, then stops every run and returns.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
        tokio::select! {
            recorded = self.record_first() => recorded?,
            _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
        }
        let mut runs: BTreeMap<String, Running> = BTreeMap::new();
        let (mut beside, mut undos) = (Beside::default(), Undos::default());
        let (finder, mut findings) = mpsc::channel(1);
        let tables = Tables {
            config: self.config.clone(),
            log: self.log.clone(),
            control: self.control.clone(),
            clock: self.clock.clone(),
            target: self.target.clone(),
        };
        let tables = tokio::spawn(tables.keep());
        let mut audits: BTreeMap<Number, JoinHandle<()>> = BTreeMap::new();
        let (mut said, mut refreshed) = (String::new(), Instant::now());
        loop {
            if refreshed.elapsed() > REFRESH_EVERY {
                refreshed = Instant::now();
                self.refresh(&runs).await?;
            }
            let world = self.control.world();
            self.keep_audits(&world, &finder, &mut audits);
            // A look may take long: a process is waited for. What it was about is done at the next start.
            let looked = tokio::select! {
                looked = self.look(&world, &mut runs, &mut beside, &mut undos) => looked,
                _ = shutdown.wait_for(|stop| *stop) => break,
            };
            // What is wrong now may be right at the next look; said once.
            if let Err(error) = looked {
                let error = format!("{error:#}");
                if error != said {
                    error!(error, "the runs cannot be looked after; tried again");
                    said = error;
                }
            }
            tokio::select! {
                _ = tokio::time::sleep(LOOK_EVERY) => {}
                Some(found) = findings.recv() => self.stop_differing(found, &mut runs).await?,
                _ = shutdown.changed() => break,
            }
        }
        undos.abort();
        for task in audits.into_values().chain([tables]) {
            task.abort();
            let _ = task.await;
        }
        let children = runs.into_iter().filter_map(|(run, running)| Some((run, running.child?)));
        let stops = children.map(|(run, child)| tokio::task::spawn_blocking(move || stop(&run, child)));
        for stopped in stops.collect::<Vec<_>>() {
            stopped.await?;
        }
        Ok(())
    }

    /// Says of which version the first generation is, if nobody has: then it stays so, whatever is configured later.
    async fn record_first(&self) -> anyhow::Result<()> {
        let is_unknown = |world: &World| world.generations.first.is_none() && world.generations.alive().contains(&None);
        let world = self.control.world();
        if is_unknown(&world) {
            let first = Generation::of(&self.config, &world, None)?;
            // An older weir has recorded nothing, and something else may be configured since.
            let log = self.log.clone();
            let told = tokio::task::spawn_blocking(move || log.committed(&group_of("live"), EVENTS_TOPIC)).await??;
            let told = report::told(&told).map_or(0, |told| told.generation);
            ensure!(
                [0, first.version.number].contains(&told),
                "the configured schema version is {}, and live has written version {told}: configure that (`weir migrate` makes \
                 another generation)",
                first.version.number
            );
            let (at_ms, who, reason) = (self.clock.now_ms(), "supervisor".into(), String::new());
            let action = Action::FirstGeneration { version: first.text };
            self.control.log.append(&ControlRecord { at_ms, who, reason, action }).await?;
        }
        // Somebody else may have been first.
        let appended = Instant::now();
        while is_unknown(&self.control.world()) {
            ensure!(appended.elapsed() < READ_BACK, "the control topic does not give back what was written to it");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        match Generation::not_configured(&self.config, &self.control.world()) {
            Ok(None) => {}
            Ok(Some(why)) => warn!("{why}"),
            // Whoever needs it says so.
            Err(error) => warn!(
                error = format!("{error:#}"),
                "the first generation's version cannot be compared with the configured one"
            ),
        }
        Ok(())
    }

    /// One audit for each generation that has runs.
    fn keep_audits(&self, world: &World, finder: &mpsc::Sender<Found>, audits: &mut BTreeMap<Number, JoinHandle<()>>) {
        let alive = world.generations.alive();
        audits.retain(|number, audit| {
            let stays = alive.contains(number);
            if !stays {
                audit.abort();
            }
            stays
        });
        for number in alive {
            // What this binary does not carry is told by whoever looks after its runs.
            let Ok(generation) = Generation::of(&self.config, world, number) else { continue };
            audits.entry(number).or_insert_with(|| {
                let (target, every) = (self.target.clone(), self.config.pipeline.audit_every);
                let (control, clock) = (self.control.clone(), self.clock.clone());
                tokio::spawn(audit(target, generation, every, control, clock, finder.clone()))
            });
        }
    }

    async fn look(
        &self,
        world: &World,
        runs: &mut BTreeMap<String, Running>,
        beside: &mut Beside,
        undos: &mut Undos,
    ) -> anyhow::Result<()> {
        let desired = desired(&world.control);
        // What cannot be looked after keeps none of the others from it.
        let mut failed = self.see_whether_live_is_late(world, beside).await;
        let alive = world.generations.alive();
        beside.gaps.retain(|number, _| alive.contains(number));
        for &number in &alive {
            let generation = match Generation::of(&self.config, world, number) {
                Ok(generation) => generation,
                Err(error) => {
                    failed = failed.and(Err(error));
                    continue;
                }
            };
            failed = failed.and(self.fill_gap(world, &generation, runs, beside).await);
            let filled = beside.gaps.get(&number).is_none_or(|gaps| gaps.none(&world.control));
            let kept = self.look_after(world, &generation, &desired, (filled, &beside.give_way), runs).await;
            failed = failed.and(kept);
        }
        for id in &desired.undo {
            let versions =
                alive.iter().map(|&number| Ok((number, Generation::of(&self.config, world, number)?.version)));
            let versions: Vec<_> = match versions.collect::<anyhow::Result<_>>() {
                Ok(versions) => versions,
                Err(error) => {
                    failed = failed.and(Err(error));
                    continue;
                }
            };
            let of = |(number, version)| {
                let run = run_of(number, &import_run(id));
                let child = runs.remove(&run).and_then(|running| running.child);
                (run, version, child)
            };
            let undone: Vec<_> = versions.into_iter().map(of).collect();
            undos.begin(&format!("import {id}"), || self.take_back(id.clone(), undone));
        }
        let is_due = world.generations.drops_from_ms().is_none_or(|from_ms| self.clock.now_ms() >= from_ms);
        for (number, ..) in world.generations.drops.iter().filter(|(.., done)| is_due && !done) {
            let generation = match Generation::of(&self.config, world, *number) {
                Ok(generation) => generation,
                Err(error) => {
                    failed = failed.and(Err(error));
                    continue;
                }
            };
            let gone = runs.extract_if(.., |run, _| kind_of(run).0 == *number);
            let children: Vec<_> = gone.filter_map(|(run, running)| Some((run, running.child?))).collect();
            let origins = [("live".to_owned(), String::new()), (GAP_RUN.to_owned(), String::new())].into_iter();
            let carried = generation.carried.iter().map(|_| (CARRIED_RUN.to_owned(), String::new()));
            let origins = origins.chain(carried).chain(desired.imports.keys().map(|id| (import_run(id), id.clone())));
            let written = origins.map(|(kind, origin)| (run_of(*number, &kind), origin)).collect();
            undos.begin(&generation.name(), || self.drop_generation(generation.clone(), written, children));
        }
        failed.and(undos.ended().await)
    }

    /// Takes a generation away, after its runs have ended; `written`: their names and origins.
    fn drop_generation(
        &self,
        generation: Generation,
        written: Vec<(String, String)>,
        children: Vec<(String, Child)>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
        let (control, target, clock) = (self.control.log.clone(), self.target.clone(), self.clock.clone());
        async move {
            for (run, child) in children {
                tokio::task::spawn_blocking(move || stop(&run, child)).await?;
            }
            weir_sink::drop_generation(&target, &generation.version, &written).await?;
            Step::Dropped.done();
            let action = Action::Dropped { generation: generation.number };
            let record =
                ControlRecord { at_ms: clock.now_ms(), who: "supervisor".into(), reason: String::new(), action };
            control.append(&record).await?;
            Ok(())
        }
    }

    /// Sees to the runs of one generation: live's, the one that carries rows over, and those of the imports.
    async fn look_after(
        &self,
        world: &World,
        generation: &Generation,
        desired: &Desired,
        (filled, give_way): (bool, &GiveWay),
        runs: &mut BTreeMap<String, Running>,
    ) -> anyhow::Result<()> {
        let is_in_use = generation.number == world.generations.in_use();
        let mut failed = Ok(());
        for order in RunOrder::all(&self.config, &self.target, world, generation, &desired.imports) {
            let kept = match order {
                Ok(mut order) => {
                    // All runs beside the one in use are held as one.
                    let role = if is_in_use { world.roles.role(&order.run) } else { SHADOW.to_owned() };
                    let hold = Hold::of(&role, &world.control);
                    if !is_in_use {
                        order.told = give_way.told(Told { permille: hold.permille, ..order.told }, Instant::now());
                    }
                    let waits = order.import && imports_at_work(runs, &order.run) >= IMPORTS_AT_ONCE;
                    match hold.paused() {
                        // What its pause says is said by the shadow's live run.
                        Some(_) if order.to.is_some() && !is_in_use => self.end(&order.run, runs).await,
                        None if waits => Ok(()),
                        _ => self.keep_up(order, &hold, filled || !is_in_use, runs).await,
                    }
                }
                Err(error) => Err(error),
            };
            failed = failed.and(kept);
        }
        failed
    }

    /// Ends the run's process, and forgets it.
    async fn end(&self, run: &str, runs: &mut BTreeMap<String, Running>) -> anyhow::Result<()> {
        let Some(child) = runs.remove(run).and_then(|running| running.child) else { return Ok(()) };
        let run = run.to_owned();
        Ok(tokio::task::spawn_blocking(move || stop(&run, child)).await?)
    }

    /// What cannot be asked keeps nobody from filling a gap, or a shadow.
    async fn see_whether_live_is_late(&self, world: &World, beside: &mut Beside) -> anyhow::Result<()> {
        let generation = Generation::in_use(&self.config, world)?;
        let now = Instant::now();
        let is_any = beside.gaps.values().any(|gaps| gaps.at_hand.is_some()) || world.generations.shadow().is_some();
        let give_way = &mut beside.give_way;
        if is_any && give_way.is_live_due(now) && self.live_is_late(world, &generation).await.unwrap_or(false) {
            give_way.give_way(now, "live is late");
        }
        if is_any && give_way.is_pressure_due(now) {
            let asked = tokio::time::timeout(ASK_PATIENCE, weir_sink::pressure(&self.target)).await;
            if let Ok(Ok(Some(why))) = asked {
                give_way.give_way(now, &why);
            }
        }
        Ok(())
    }

    /// Sees to the run of the generation's gap at hand, and to the next one after its end. One that was in use, and is not any
    /// more, may have left one.
    async fn fill_gap(
        &self,
        world: &World,
        generation: &Generation,
        runs: &mut BTreeMap<String, Running>,
        Beside { gaps, give_way }: &mut Beside,
    ) -> anyhow::Result<()> {
        let is_in_use = generation.number == world.generations.in_use();
        let gaps = gaps.entry(generation.number).or_default();
        gaps.look(&generation.version, &self.target, &world.control).await?;
        let run = run_of(generation.number, GAP_RUN);
        let hold = Hold::of(if is_in_use { GAP_RUN } else { SHADOW }, &world.control);
        let Some(gap) = gaps.at_hand else {
            let none = gaps.none(&world.control);
            return match Gaps::last_end_ms(&world.control).filter(|_| none && is_in_use) {
                Some(through_ms) => self.hold_nothing(&run, &hold, through_ms, &mut gaps.holding).await,
                None => Ok(()),
            };
        };
        if !is_in_use && hold.paused().is_some() {
            // What its pause says is said by the shadow's live run.
            return self.end(&run, runs).await;
        }
        let mut order = RunOrder::gap(&self.config, &self.target, world, generation, gap)?;
        order.told = give_way.told(Told { permille: hold.permille, ..order.told }, Instant::now());
        self.keep_up(order, &hold, true, runs).await?;
        let is_over = runs.get(&run).is_some_and(|running| running.ended);
        if is_over && (!is_in_use || hold.catching_up().is_none()) {
            runs.remove(&run);
            gaps.filled();
        }
        Ok(())
    }

    async fn live_is_late(&self, world: &World, generation: &Generation) -> anyhow::Result<bool> {
        let live = RunOrder::live(&self.config, &self.target, world, generation)?;
        let told = self.told(&live).await?;
        let (hold, version) = (world.hold(&live.run), &generation.version);
        let Some(from_ms) = told.and_then(|told| late_from(&hold, &told, version)) else { return Ok(false) };
        let (log, now_ms) = (self.log.clone(), self.clock.now_ms());
        Ok(tokio::task::spawn_blocking(move || has_come(log.as_ref(), from_ms, now_ms)).await??)
    }

    /// Sees to it that the run has a process, or an end; or none, while it is paused. `filled`: no gap is left.
    async fn keep_up(
        &self,
        order: RunOrder,
        hold: &Hold,
        filled: bool,
        runs: &mut BTreeMap<String, Running>,
    ) -> anyhow::Result<()> {
        let run = order.run.clone();
        metrics::gauge!("weir_pipeline_share_permille", "run" => run.clone()).set(order.told.permille);
        if !runs.contains_key(&run) {
            let differs = self.stays_stopped(&order).await?;
            let first = Running {
                child: None,
                started: Instant::now() - RESTART_MAX,
                wait: RESTART_MIN,
                over: differs,
                recovery: order.recovery,
                topic: order.topic.clone(),
                differs,
                quiet: if differs { Quiet::now(None) } else { None },
                pending: false,
                unsettled: None,
                ended: false,
                began_ms: None,
                left: order.left,
                told: order.told.clone(),
                held: false,
                holding: Holding::default(),
            };
            runs.insert(run.clone(), first);
        }
        let running = runs.get_mut(&run).expect("it was just put there");
        if running.recovery != order.recovery {
            info!(run, "is to go on, as ordered");
            if let Some(child) = running.child.take() {
                let run = run.clone();
                tokio::task::spawn_blocking(move || stop(&run, child)).await?;
            }
            (running.recovery, running.wait) = (order.recovery, RESTART_MIN);
            (running.over, running.differs, running.quiet) = (false, false, None);
        }
        let pending = !order.repairs.is_empty();
        if pending || running.pending {
            running.unsettled = Some(Instant::now());
        }
        running.pending = pending;
        running.held = hold.paused().is_some();
        if let Some(pause) = hold.paused() {
            running.wait = RESTART_MIN;
            running.keep_known(&self.log, &run).await?;
            let mut ended = None;
            let held = self.hold_still(&order, pause, (&mut running.child, &mut ended), &mut running.holding).await;
            running.over |= ended.is_some();
            running.ended |= ended == Some(0);
            if running.child.is_none() && running.quiet.is_none() {
                running.quiet = Quiet::now(None);
            }
            return held;
        }
        if !running.over {
            // It was paused: from now on its process says it all.
            running.quiet = None;
        }
        if matches!(order.left, Left::To(_)) && running.left != order.left {
            // Paused and resumed before anybody has looked, or told otherwise: what it leaves is said at the beginning.
            if let Some(child) = running.child.take() {
                let run = run.clone();
                tokio::task::spawn_blocking(move || stop(&run, child)).await?;
            }
        }
        if running.child.is_none() && !self.leaves_from(&order, hold, &mut running.holding).await? {
            return Ok(());
        }
        // What a process from before the pause has said is no word of going on.
        let began_ms = running.began_ms.filter(|_| running.child.is_some());
        // What cannot be told keeps nothing from going on.
        let told = self.let_go(&order, hold, began_ms, filled, &mut running.holding).await;
        if let Some(child) = &mut running.child {
            match child.try_wait() {
                Ok(None) => {
                    if running.told != order.told {
                        tell(child, &order.told)?;
                        if running.told.permille != order.told.permille {
                            info!(run, permille = order.told.permille, "works for another share of the time");
                        }
                        running.told = order.told.clone();
                    }
                    return told;
                }
                Ok(Some(status)) => {
                    (running.child, running.began_ms) = (None, None);
                    if running.started.elapsed() > HEALTHY_AFTER {
                        running.wait = RESTART_MIN;
                    }
                    match status.code() {
                        Some(0) => {
                            info!(run, "has come to its end");
                            (running.over, running.ended) = (true, true);
                        }
                        Some(STOPPED_FOR_GOOD) => {
                            error!(run, "has stopped and needs a person (see `weir status`)");
                            (running.over, running.quiet) = (true, Quiet::now(None));
                        }
                        _ => warn!(run, %status, again_ms = running.wait.as_millis() as u64, "ended, is started again"),
                    }
                }
                Err(error) => warn!(run, %error, "cannot be waited for"),
            }
        }
        if running.keep_known(&self.log, &run).await? {
            return Ok(());
        }
        if running.over || running.started.elapsed() < running.wait {
            return told;
        }
        running.started = Instant::now();
        running.wait = (running.wait * 2).min(RESTART_MAX);
        running.began_ms = Some(self.clock.now_ms());
        (running.left, running.told) = (order.left, order.told.clone());
        match spawn(&order) {
            Ok(mut child) => {
                info!(run, pid = child.id(), "started");
                if let Some(told) = child.stdout.take() {
                    self.metrics.follow(&run, told);
                }
                running.child = Some(child);
            }
            Err(error) => warn!(run, error = format!("{error:#}"), "cannot be started"),
        }
        told
    }

    /// Whether the audit has stopped the run before this process began, and nobody has decided anything since.
    async fn stays_stopped(&self, order: &RunOrder) -> anyhow::Result<bool> {
        let (log, group, topic) = (self.log.clone(), group_of(&order.run), order.topic.clone());
        let committed = tokio::task::spawn_blocking(move || log.committed(&group, &topic)).await??;
        Ok(report::told(&committed).is_some_and(|told| report::stays_stopped(&told, order.recovery)))
    }

    /// Stops the runs whose rows are not what was recorded: what they would write next is right, and would hide since when
    /// the rest is not.
    async fn stop_differing(
        &self,
        Found { began, known, generation, mut findings }: Found,
        runs: &mut BTreeMap<String, Running>,
    ) -> anyhow::Result<()> {
        let recovered = match begin::believe(&mut findings, &self.control.log, known, &generation.version).await {
            Ok(recovered) => recovered,
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "what the audit has found is looked at again: it is not known what was ordered meanwhile"
                );
                return Ok(());
            }
        };
        let origins: BTreeSet<&str> = findings.iter().map(Finding::origin).collect();
        let seam_ms = generation.seam.as_ref().map_or(i64::MIN, |seam| seam.at.ms());
        let concerned = origins.into_iter().flat_map(|origin| match origin {
            "" => vec![
                ("live".to_owned(), origin, (seam_ms, i64::MAX)),
                (CARRIED_RUN.to_owned(), origin, (i64::MIN, seam_ms)),
            ],
            import => vec![(import_run(import), origin, (i64::MIN, i64::MAX))],
        });
        for (kind, origin, own_ms) in concerned {
            let run = run_of(generation.number, &kind);
            let Some(fault) = begin::differs(&findings, origin, own_ms, &generation.version) else { continue };
            let Some(running) = runs.get_mut(&run) else { continue };
            let settled = !running.pending && running.unsettled.is_none_or(|unsettled| unsettled < began);
            if running.differs || !settled || recovered.contains(&run) {
                continue;
            }
            let called = running.told.called(&run).to_owned();
            error!(run, reason = judge::say(&fault, &called), "stopped; a person is needed");
            (running.over, running.differs, running.quiet) = (true, true, Quiet::now(Some((fault, called))));
            if let Some(child) = running.child.take() {
                tokio::task::spawn_blocking(move || stop(&run, child)).await?;
            }
        }
        Ok(())
    }

    /// Runs that have ended or stopped, or are paused, say nothing more: what they said last stays known.
    async fn refresh(&self, runs: &BTreeMap<String, Running>) -> anyhow::Result<()> {
        let quiet = runs.iter().filter(|(_, running)| running.over || running.held);
        let quiet: Vec<_> = quiet.map(|(run, running)| (run.clone(), running.topic.clone())).collect();
        let log = self.log.clone();
        let refresh = move || quiet.iter().for_each(|(run, topic)| report::refresh(log.as_ref(), run, topic));
        Ok(tokio::task::spawn_blocking(refresh).await?)
    }

    /// Takes an import back out of all generations; `runs`: its run of each, with its process.
    fn take_back(
        &self,
        id: String,
        runs: Vec<(String, SchemaVersion, Option<Child>)>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
        let (log, control, target) = (self.log.clone(), self.control.log.clone(), self.target.clone());
        let clock = self.clock.clone();
        async move {
            for (run, version, child) in runs {
                if let Some(child) = child {
                    let run = run.clone();
                    tokio::task::spawn_blocking(move || stop(&run, child)).await?;
                }
                weir_sink::undo(&target, &run, &version, &id).await?;
            }
            let topic = import_topic(&id);
            tokio::task::spawn_blocking(move || log.delete_topic(&topic)).await??;
            let record = ControlRecord {
                at_ms: clock.now_ms(),
                who: "supervisor".into(),
                reason: String::new(),
                action: Action::ImportUndone { id },
            };
            control.append(&record).await?;
            Ok(())
        }
    }
}

pub(crate) fn spawn(order: &RunOrder) -> anyhow::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the run's process cannot be started")?;
    if let Err(error) = tell(&mut child, order) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}

/// Gives the run's process a line.
fn tell(child: &mut Child, what: impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(&what)?;
    line.push(b'\n');
    let lifeline = child.stdin.as_mut().context("the child has no standard input")?;
    lifeline.write_all(&line).context("the run's process does not take what it is told")
}

/// Asks the run to stop at its next batch boundary, and waits for it; kills it when that takes too long.
pub(crate) fn stop(run: &str, mut child: Child) {
    // Closing the lifeline is the request.
    drop(child.stdin.take());
    let begin = Instant::now();
    while begin.elapsed() < STOP_WAIT {
        match child.try_wait() {
            Ok(Some(_)) => return,
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => break,
        }
    }
    warn!(run, "did not stop in time, is killed");
    let _ = child.kill();
    let _ = child.wait();
}

/// Compares the table with what `emissions` says of it, all the time and slowly.
async fn audit(
    target: weir_sink::Target,
    generation: Generation,
    every: Duration,
    control: Control,
    clock: Arc<dyn Clock>,
    found: mpsc::Sender<Found>,
) {
    let version = &generation.version;
    let audit = Audit::new(&target, version);
    let mut audit = match &generation.seam {
        Some(seam) => audit.with_carried(seam.at),
        None => audit,
    };
    let mut look = 0_u32;
    // Days that were replaced in part may have as many rows as before. Every row is compared once after a replacement that
    // was not done, by whichever process first comes to the end of that. And once after a comparison of generations that differ:
    // one of them may not be what was recorded.
    let (mut compared, mut differed) = (0, None);
    loop {
        tokio::time::sleep(every).await;
        let world = control.world();
        let (began, known) = (Instant::now(), world.control.len());
        let unaudited = world.replacements.unaudited(version.number).filter(|undone| *undone > compared);
        let verdict = world.generations.under_way().and_then(|conversion| conversion.verdict.as_ref());
        let differs = verdict.filter(|verdict| verdict.differing > 0).map(|verdict| verdict.attempt);
        let looked = match look % ROWS_EVERY {
            _ if unaudited.is_some() || differs > differed => audit.full().await,
            0 => audit.rows().await,
            _ => audit.recent().await,
        };
        match looked {
            Ok(findings) if findings.is_empty() => {
                (look, differed) = (look.wrapping_add(1), differs.max(differed));
                if let Some(undone) = unaudited {
                    compared = undone;
                    say_audited(&control.log, version, undone, clock.now_ms()).await;
                }
            }
            // The same look again, until it was seen to.
            Ok(findings) => {
                if found.send(Found { began, known, generation: generation.clone(), findings }).await.is_err() {
                    return;
                }
            }
            Err(error) => warn!(%error, "the audit could not ask ClickHouse"),
        }
    }
}

/// Spares the next process the same look.
async fn say_audited(control: &ControlLog, version: &SchemaVersion, undone: usize, at_ms: i64) {
    let action = Action::Audited { generation: version.number, undone };
    let record = ControlRecord { at_ms, who: "supervisor".into(), reason: String::new(), action };
    if let Err(error) = control.append(&record).await {
        warn!(%error, "it is not known that every row was compared: done again at the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(action: Action) -> ControlRecord {
        ControlRecord { at_ms: 0, who: "test".into(), reason: String::new(), action }
    }

    fn written(id: &str) -> ControlRecord {
        record(Action::ImportWritten { id: id.into(), events: 1, partitions: 1, first_ms: 5, last_ms: 6 })
    }

    #[test]
    fn only_whole_imports_that_are_not_taken_back_have_a_run() {
        let control = [
            written("a"),
            written("b"),
            written("c"),
            record(Action::ImportUndo { id: "b".into() }),
            record(Action::ImportUndo { id: "c".into() }),
            record(Action::ImportUndone { id: "c".into() }),
            written("c"),
        ];
        let desired = desired(&control);
        assert_eq!(desired.imports.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(desired.undo, ["b"]);
    }
}
