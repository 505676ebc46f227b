//! How a run is held: stopped at a batch boundary and kept so, let go on, and followed until it has caught up.
//!
//! ```text
//!  Hold (control) ─┐                            ┌─▶ stop the process · Paused · Resume, before the log loses something
//!  the process     ┼─▶ hold_still(), let_go() ──┤
//!  what it said    ─┘                           └─▶ Resumed · CaughtUp
//! ```
//!
//! Every supervisor of the log does the same; what two of them write twice counts once.

use std::{
    collections::BTreeSet,
    process::Child,
    sync::PoisonError,
    time::{Duration, Instant},
};

use tracing::{info, warn};
use weir_console::guard::{self, Step};
use weir_schemas::{
    Hold, Pause, Resume,
    control::{Action, ControlRecord, EtaKept, GAP_RUN},
    kind_of,
    progress::{RunProgress, group_of},
    run_of,
};

use crate::{
    begin,
    give_way::{due_ms, has_come},
    judge::at,
    report,
    run::{RunOrder, STOPPED_FOR_GOOD},
    supervisor::Supervisor,
};

/// How long a run may take to finish its batch when it is paused; it is killed then, which loses nothing.
const PAUSE_WAIT: Duration = Duration::from_secs(20);
/// A run of which nobody has said anything for so long is at work nowhere: three times as long as one is silent.
const QUIET: Duration = Duration::from_millis(1_500);
/// How often a run that is paused, or catches up, is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked how long the log keeps what a paused run needs.
const GUARD_EVERY: Duration = Duration::from_secs(5);
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// Behind the present by a window, the lateness, and so much, a run has caught up: batches take their time.
const CAUGHT_UP_MS: i64 = 5_000;

/// What is remembered of it from look to look.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    /// Since when the process has been asked to stop.
    stopping: Option<Instant>,
    /// When the run said last that it is there, and since when it has not said anything else.
    heard: Option<(Option<i64>, Instant)>,
    looked: Option<Instant>,
    guarded: Option<Instant>,
    safe_until_ms: Option<i64>,
    /// What was written, by the decision's id, and may not have been read back yet.
    written: BTreeSet<(&'static str, i64)>,
}

impl Holding {
    /// Whether `every` has passed since it was looked last; then it has been now.
    fn is_due(looked: &mut Option<Instant>, every: Duration) -> bool {
        let due = looked.is_none_or(|looked| looked.elapsed() >= every);
        if due {
            *looked = Some(Instant::now());
        }
        due
    }
}

impl Supervisor {
    /// Stops the run's process, if there is one; then sees to it that the pause is told, and ends.
    ///
    /// `ended` becomes the exit code of a run that has come to its end by itself: to a good one, or one that needs a person.
    pub(crate) async fn hold_still(
        &self,
        order: &RunOrder,
        pause: &Pause,
        (child, ended): (&mut Option<Child>, &mut Option<i32>),
        holding: &mut Holding,
    ) -> anyhow::Result<()> {
        let run = &order.run;
        if let Some(process) = child {
            match process.try_wait()? {
                Some(status) => {
                    (*child, holding.stopping) = (None, None);
                    *ended = status.code().filter(|code| [0, STOPPED_FOR_GOOD].contains(code));
                }
                None => {
                    if holding.stopping.is_none() {
                        info!(
                            run,
                            who = pause.by.who,
                            reason = pause.by.reason,
                            "is paused at its next batch boundary"
                        );
                    }
                    let since = *holding.stopping.get_or_insert_with(Instant::now);
                    // Closing the lifeline is the request.
                    drop(process.stdin.take());
                    if since.elapsed() > PAUSE_WAIT {
                        warn!(run, "did not finish its batch in time, is killed");
                        process.kill()?;
                    }
                    return Ok(());
                }
            }
        }
        let through_ms = match pause.paused_ms {
            Some(through_ms) => Some(through_ms),
            None => self.stopped_through(order, holding).await?,
        };
        let Some(through_ms) = through_ms else { return Ok(()) };
        if pause.paused_ms.is_none() {
            let (run, id) = (run.clone(), pause.by.id);
            self.write(holding, ("paused", id), String::new(), Action::Paused { run, id, through_ms }).await?;
        }
        if Holding::is_due(&mut holding.guarded, GUARD_EVERY) {
            let (log, topic, now_ms) = (self.log.clone(), order.topic.clone(), self.clock.now_ms());
            let kept = move || guard::kept(log.as_ref(), &topic, through_ms, now_ms);
            holding.safe_until_ms = tokio::task::spawn_blocking(kept).await??.safe_until_ms();
        }
        let (id, reason) = match guard::next_step(pause, holding.safe_until_ms, self.clock.now_ms()) {
            Step::Hold => return Ok(()),
            Step::ResumeAsTold { until_ms } => (until_ms, format!("it was paused until {}", at(until_ms))),
            Step::ResumeForLog { safe_until_ms } => (
                safe_until_ms,
                format!("the log would delete what {run} needs: the pause was safe until {}", at(safe_until_ms)),
            ),
        };
        let resume = Action::Resume { run: run.clone(), id, left_to_ms: None };
        self.write(holding, ("resume", id), reason, resume).await
    }

    /// Sees to it that it is known from where on a run leaves something, also when its pause was ended before it had taken
    /// effect. Whether it is: before that the run must not begin, or nobody could say what is not there.
    pub(crate) async fn leaves_from(
        &self,
        order: &RunOrder,
        hold: &Hold,
        holding: &mut Holding,
    ) -> anyhow::Result<bool> {
        let unsaid = |pause: &&Pause| {
            let leaves = |resume: &Resume| resume.left_to_ms.is_some() && resume.resumed_ms.is_none();
            pause.paused_ms.is_none() && pause.resume.as_ref().is_some_and(leaves)
        };
        let Some(pause) = hold.catching_up().filter(unsaid) else { return Ok(true) };
        if let Some(through_ms) = self.stopped_through(order, holding).await? {
            let (run, id) = (order.run.clone(), pause.by.id);
            self.write(holding, ("paused", id), String::new(), Action::Paused { run, id, through_ms }).await?;
        }
        // Until it is read back.
        Ok(false)
    }

    /// Through when the run is complete, once nobody is at work on it any more: by the table, and when that cannot be
    /// asked by what the run has said.
    async fn stopped_through(&self, order: &RunOrder, holding: &mut Holding) -> anyhow::Result<Option<i64>> {
        let told = self.told(order).await?;
        let said_ms = told.as_ref().map(|told| told.at_ms);
        match holding.heard {
            Some((before, since)) if before == said_ms => {
                if since.elapsed() < QUIET {
                    return Ok(None);
                }
            }
            _ => {
                holding.heard = Some((said_ms, Instant::now()));
                return Ok(None);
            }
        }
        let version = order.version()?;
        let asked = tokio::time::timeout(ASK_PATIENCE, begin::checkpoint(order, &version)).await;
        Ok(Some(match asked {
            Ok(Ok(checkpoint)) => checkpoint.ms(),
            _ => told.and_then(|told| told.complete_through_ms).unwrap_or(order.from.ms()),
        }))
    }

    /// Tells that a run goes on, and when it has caught up. `began_ms`: when its process was started; `filled`: no gap is
    /// left.
    pub(crate) async fn let_go(
        &self,
        order: &RunOrder,
        hold: &Hold,
        began_ms: Option<i64>,
        filled: bool,
        holding: &mut Holding,
    ) -> anyhow::Result<()> {
        (holding.stopping, holding.heard, holding.guarded, holding.safe_until_ms) = (None, None, None, None);
        let Some(resume) = hold.catching_up().and_then(|pause| pause.resume.as_ref()) else {
            // All of it was read back; a copy that is brought back may make it to be written once more.
            holding.written.clear();
            return Ok(());
        };
        if !Holding::is_due(&mut holding.looked, LOOK_EVERY) {
            return Ok(());
        }
        let Some(told) = self.told(order).await? else { return Ok(()) };
        let Some(through_ms) = told.complete_through_ms.filter(|_| told.stopped.is_none()) else { return Ok(()) };
        let (run, id) = (order.run.clone(), resume.by.id);
        if resume.resumed_ms.is_none() {
            let begun = began_ms.is_some_and(|began_ms| told.at_ms >= began_ms) && told.waiting.is_none();
            let there = resume.left_to_ms.is_none_or(|left_to_ms| through_ms >= left_to_ms);
            if (begun || told.ended) && there {
                let begins_ms = resume.left_to_ms.unwrap_or(through_ms);
                let resumed = Action::Resumed { run, id, through_ms: begins_ms };
                self.write(holding, ("resumed", id), String::new(), resumed).await?;
            }
            return Ok(());
        }
        let version = order.version()?;
        let is_present = async || {
            let at_ms = due_ms(through_ms, &version) + CAUGHT_UP_MS;
            let (log, now_ms) = (self.log.clone(), self.clock.now_ms());
            let come = tokio::task::spawn_blocking(move || has_come(log.as_ref(), at_ms, now_ms)).await??;
            Ok::<_, anyhow::Error>(!come)
        };
        if told.ended || (filled && order.to.is_none() && is_present().await?) {
            info!(run, "has caught up");
            // What lay before was the gap run's.
            let gap = run_of(kind_of(&run).0, GAP_RUN);
            let behind = if resume.left_to_ms.is_some() { &gap } else { &run };
            let eta = self.eta_kept(behind, resume.again_ms.map_or(resume.by.at_ms, |(_, again_ms)| again_ms));
            self.write(holding, ("caught up", id), String::new(), Action::CaughtUp { run, id, eta }).await?;
        }
        Ok(())
    }

    /// Of a run that has nothing to do, and is complete through `through_ms`: a pause takes effect at once, and so does its
    /// resume, which ends it.
    pub(crate) async fn hold_nothing(
        &self,
        run: &str,
        hold: &Hold,
        through_ms: i64,
        holding: &mut Holding,
    ) -> anyhow::Result<()> {
        let (run, said) = (run.to_owned(), String::new());
        if let Some(pause) = hold.paused() {
            let id = pause.by.id;
            if pause.paused_ms.is_none() {
                self.write(holding, ("paused", id), said, Action::Paused { run, id, through_ms }).await?;
            } else if let Step::ResumeAsTold { until_ms } = guard::next_step(pause, None, self.clock.now_ms()) {
                let reason = format!("it was paused until {}", at(until_ms));
                let resume = Action::Resume { run, id: until_ms, left_to_ms: None };
                self.write(holding, ("resume", until_ms), reason, resume).await?;
            }
        } else if let Some(resume) = hold.catching_up().and_then(|pause| pause.resume.as_ref()) {
            let id = resume.by.id;
            if resume.resumed_ms.is_none() {
                let resumed = Action::Resumed { run: run.clone(), id, through_ms };
                self.write(holding, ("resumed", id), said.clone(), resumed).await?;
            }
            self.write(holding, ("caught up", id), said, Action::CaughtUp { run, id, eta: None }).await?;
        }
        Ok(())
    }

    fn eta_kept(&self, run: &str, since_ms: i64) -> Option<EtaKept> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.eta_kept(run, since_ms, self.clock.now_ms())
    }

    pub(crate) async fn told(&self, order: &RunOrder) -> anyhow::Result<Option<RunProgress>> {
        let (log, group, topic) = (self.log.clone(), group_of(&order.run), order.topic.clone());
        let committed = tokio::task::spawn_blocking(move || log.committed(&group, &topic)).await??;
        Ok(report::told(&committed))
    }

    /// Writes a record once.
    async fn write(
        &self,
        holding: &mut Holding,
        what: (&'static str, i64),
        reason: String,
        action: Action,
    ) -> anyhow::Result<()> {
        if holding.written.contains(&what) {
            return Ok(());
        }
        let record = ControlRecord { at_ms: self.clock.now_ms(), who: "supervisor".into(), reason, action };
        self.control.log.append(&record).await?;
        info!(action = ?record.action, reason = record.reason, "written");
        holding.written.insert(what);
        Ok(())
    }
}
