//! The tables of all generations are there, and the public views show the one in use: a swap is performed here.
//!
//! ```text
//!  control (Show, Shown) ──┐
//!  how far both are        ┼──▶ next() ──▶ Deed ──▶ views · Shown · NotShown, and again
//!  what the views show ────┘
//! ```
//!
//! Laws
//! - what readers see to be complete never goes back: before another generation is shown, nothing more is said to be complete
//!   than the instant of the order, and it is shown when it is complete through that
//! - which one is in use is said in the control topic first, and the views follow, whoever is cut when
//! - what was not proved is not shown: what has changed a table since the comparison withdraws the order
//!
//! Every supervisor of the log does the same; what two of them write twice counts once.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};
use weir_log::{Clock, Log};
use weir_schemas::{
    Number, World,
    control::{Action, ControlRecord, EVENTS_TOPIC},
    progress::group_of,
};
use weir_sink::Target;

use crate::{
    begin,
    config::Config,
    control::Control,
    fault::Step,
    generation::Generation,
    migrate::swap::{changed, due_ms},
    replay, report,
    run::RunOrder,
    supervisor::desired,
};

/// How often it is looked whether there is another generation, or another one to be shown.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An order to show another generation is given up so long after it was due: one of them does not come so far.
const PATIENCE_MS: i64 = 10 * 60 * 1000;
/// What readers see is bounded so long before they could see more, at least.
const MARGIN_MS: i64 = 2_000;
/// How often it is looked whether the views are as they were left.
const VIEWS_EVERY: Duration = Duration::from_secs(5);

/// What makes them.
pub(crate) struct Tables {
    pub config: Config,
    pub log: Arc<dyn Log>,
    pub control: Control,
    pub clock: Arc<dyn Clock>,
    pub target: Target,
}

/// What the views show: a generation, and through when it is said to be complete at most, if that is bounded.
type Views = (Number, Option<i64>);

/// What was done by this process.
#[derive(Default)]
struct Done {
    made: BTreeSet<Number>,
    /// `None`: they are to be made, or nobody has looked.
    views: Option<Views>,
    looked: Option<Instant>,
    /// The order of which it was told how it ended, and that may not have been read back yet.
    told: Option<i64>,
}

/// The order that has not taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    id: i64,
    at_ms: i64,
    /// When both may be complete through that, at the earliest.
    due_ms: i64,
}

/// What is known when it is decided what is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    in_use: Number,
    pending: Option<Pending>,
    /// Through when readers may have seen the one that is shown complete; `None`: that is not known.
    seen_ms: Option<i64>,
    /// Through when the one that is to be shown surely is complete; `None`: that is not known, or it has stopped.
    other_ms: Option<i64>,
    /// `None`: they are not as anybody wants them, as far as is known.
    views: Option<Views>,
    now_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Nothing,
    Show(Views),
    SayShown(i64),
    SayNotShown(i64),
}

fn next(facts: &Facts) -> Deed {
    let Some(Pending { id, at_ms, due_ms }) = facts.pending else {
        let wanted = (facts.in_use, None);
        return if facts.views == Some(wanted) { Deed::Nothing } else { Deed::Show(wanted) };
    };
    let bounded = (facts.in_use, Some(at_ms));
    if facts.views == Some(bounded) && facts.other_ms.is_some_and(|other_ms| other_ms >= at_ms) {
        return Deed::SayShown(id);
    }
    match facts.seen_ms {
        _ if facts.now_ms > due_ms + PATIENCE_MS => Deed::SayNotShown(id),
        _ if facts.views == Some(bounded) => Deed::Nothing,
        Some(seen_ms) if seen_ms + MARGIN_MS <= at_ms => Deed::Show(bounded),
        // Readers may have seen more already, or will before the views are bounded.
        Some(_) => Deed::SayNotShown(id),
        None => Deed::Nothing,
    }
}

impl Tables {
    /// Does what is next, for as long as it takes: ClickHouse may be away, or not as it must be. A run that finds no tables
    /// waits for them. Does not come back.
    pub(crate) async fn keep(self) {
        let (mut done, mut said) = (Done::default(), String::new());
        loop {
            let error = self.look(&self.control.world(), &mut done).await.err().map(|error| format!("{error:#}"));
            if let Some(error) = error.filter(|error| *error != said) {
                warn!(error, "tables and views cannot be made yet; tried again");
                said = error;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is wrong with one generation keeps none of the others from what is theirs; the one in use comes first.
    async fn look(&self, world: &World, done: &mut Done) -> anyhow::Result<()> {
        let in_use = world.generations.in_use();
        let generation = Generation::of(&self.config, world, in_use)?;
        // One whose table was altered can be shown, and gone back from.
        let mut failed = self.make(&generation, done).await;
        failed = failed.and(self.show(world, &generation, done).await);
        for number in world.generations.alive().into_iter().filter(|number| *number != in_use) {
            let made = match Generation::of(&self.config, world, number) {
                Ok(generation) => self.make(&generation, done).await,
                Err(error) => Err(error),
            };
            failed = failed.and(made);
        }
        failed
    }

    async fn make(&self, generation: &Generation, done: &mut Done) -> anyhow::Result<()> {
        if !done.made.contains(&generation.number) {
            weir_sink::prepare(&self.target, &generation.version).await?;
            done.made.insert(generation.number);
            if generation.number.is_some() {
                Step::TablesMade.done();
            }
        }
        Ok(())
    }

    /// Sees to the views of the generation in use, and to the order to show another one.
    async fn show(&self, world: &World, generation: &Generation, done: &mut Done) -> anyhow::Result<()> {
        let pending = world.generations.pending();
        if pending.is_some_and(|show| done.told == Some(show.by.id)) {
            // What was told is not read back yet.
            return Ok(());
        }
        self.look_at_views(world, generation, done).await?;
        let version = &generation.version;
        let (seen_ms, other_ms) = match pending {
            Some(show) => {
                let other = Generation::of(&self.config, world, show.generation)?;
                let (shown, other) = (self.through(world, generation).await?, self.through(world, &other).await?);
                (Some(shown.0.max(shown.1.unwrap_or(shown.0))), other.1.map(|said_ms| said_ms.min(other.0)))
            }
            None => (None, None),
        };
        let ordered = match pending {
            Some(show) => {
                let due_ms = due_ms(&self.config, world, show)?;
                Some(Pending { id: show.by.id, at_ms: show.at_ms, due_ms })
            }
            None => None,
        };
        let (views, now_ms) = (done.views, self.clock.now_ms());
        let deed = next(&Facts { in_use: generation.number, pending: ordered, seen_ms, other_ms, views, now_ms });
        if deed == Deed::Nothing || !self.is_of_now(world).await? {
            return Ok(());
        }
        match deed {
            Deed::Nothing => {}
            Deed::Show((number, through_ms)) => {
                weir_sink::show(&self.target, version, &self.config.timezones(), through_ms).await?;
                info!(generation = version.number, through_ms, "the public views show it");
                done.views = Some((number, through_ms));
                match through_ms {
                    Some(_) => Step::ViewsBounded.done(),
                    None if number.is_some() => Step::ViewsMoved.done(),
                    None => {}
                }
            }
            Deed::SayShown(id) => {
                if let Some(reason) = self.spoiled(world).await? {
                    return self.say(done, id, reason, Action::NotShown { id }).await;
                }
                self.say(done, id, String::new(), Action::Shown { id }).await?;
                Step::Shown.done();
            }
            Deed::SayNotShown(id) => {
                let reason = "the order came too late, or the other generation did not come so far".to_owned();
                self.say(done, id, reason, Action::NotShown { id }).await?;
            }
        }
        Ok(())
    }

    /// Whether nothing was ordered that this process has not heard of: one that the log does not reach would show what nobody
    /// wants any more.
    async fn is_of_now(&self, world: &World) -> anyhow::Result<bool> {
        let now = World::of(&replay::records(&self.control.log).await?);
        Ok(now.generations == world.generations)
    }

    /// What has come between the order and its instant that would be shown otherwise than it was proved. The way back needs no
    /// proof.
    async fn spoiled(&self, world: &World) -> anyhow::Result<Option<String>> {
        let conversion = world.generations.under_way();
        let new = conversion.filter(|new| world.generations.pending().is_some_and(|show| show.generation != new.old));
        let Some(conversion) = new else { return Ok(None) };
        let Some(verdict) = conversion.verdict.as_ref().filter(|verdict| verdict.differing == 0) else {
            return Ok(Some("the last comparison says that both differ".to_owned()));
        };
        if let Some(changed) = changed(&world.control[verdict.known..]) {
            return Ok(Some(format!("since the comparison {changed}")));
        }
        let other = Generation::of(&self.config, world, Some(conversion.generation))?;
        if !weir_sink::gaps(&self.target, &other.version).await?.is_empty() {
            return Ok(Some("a gap of the other generation is not filled".to_owned()));
        }
        let imports = desired(&world.control).imports;
        for order in RunOrder::all(&self.config, &self.target, world, &other, &imports) {
            let order = order?;
            let Some(to) = order.to else { continue };
            if begin::checkpoint(&order, &other.version).await? < to {
                return Ok(Some(match order.import {
                    true => format!("import {} is not in the other generation yet", order.origin),
                    false => "not all rows are carried over yet".to_owned(),
                }));
            }
        }
        Ok(None)
    }

    /// Another process may have made the views what they were before, and one that was cut may have bounded them. At the start
    /// they are made anew in any case, but while another generation is about to be shown: by another weir they may differ.
    async fn look_at_views(&self, world: &World, generation: &Generation, done: &mut Done) -> anyhow::Result<()> {
        let pending = world.generations.pending();
        if done.looked.is_some_and(|looked| looked.elapsed() < VIEWS_EVERY) {
            return Ok(());
        }
        let shown = weir_sink::shown(&self.target).await?;
        let found = shown.filter(|shown| shown.generation == generation.version.number);
        let found = found.map(|shown| (generation.number, shown.through_ms));
        done.views = match (done.looked, pending) {
            (None, None) => None,
            _ => found,
        };
        done.looked = Some(Instant::now());
        Ok(())
    }

    async fn say(&self, done: &mut Done, id: i64, reason: String, action: Action) -> anyhow::Result<()> {
        let record = ControlRecord { at_ms: self.clock.now_ms(), who: "supervisor".into(), reason, action };
        self.control.log.append(&record).await?;
        info!(action = ?record.action, reason = record.reason, "written");
        done.told = Some(id);
        Ok(())
    }

    /// Through when a generation's live run is complete: by the table, and by what it has said, if it has not stopped. Readers may
    /// go by either.
    async fn through(&self, world: &World, generation: &Generation) -> anyhow::Result<(i64, Option<i64>)> {
        let order = RunOrder::live(&self.config, &self.target, world, generation)?;
        let recorded = begin::checkpoint(&order, &generation.version).await?.ms();
        let (log, group) = (self.log.clone(), group_of(&order.run));
        let committed = tokio::task::spawn_blocking(move || log.committed(&group, EVENTS_TOPIC)).await??;
        let told = report::told(&committed).filter(|told| told.stopped.is_none());
        Ok((recorded, told.and_then(|told| told.complete_through_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The laws, over all facts that differ in what matters.
    #[test]
    fn whatever_is_known_the_views_are_bounded_before_another_is_shown_and_never_below_what_was_seen() {
        let (at_ms, due_ms, id) = (60_000, 3_660_000, 7);
        let bounded = |number| Some((number, Some(at_ms)));
        let views = [None, Some((None, None)), bounded(None), Some((Some(2), None)), bounded(Some(2))];
        let seen = [None, Some(at_ms - MARGIN_MS), Some(at_ms - MARGIN_MS + 1), Some(at_ms + 1)];
        let others = [None, Some(at_ms - 1), Some(at_ms)];
        let all = views.into_iter().flat_map(|views| seen.map(|seen_ms| (views, seen_ms)));
        for (views, seen_ms) in all {
            for (in_use, other_ms) in others.into_iter().flat_map(|other| [(None, other), (Some(2), other)]) {
                for now_ms in [at_ms, at_ms + PATIENCE_MS + 1, due_ms + PATIENCE_MS + 1] {
                    let of = |pending| next(&Facts { in_use, pending, seen_ms, other_ms, views, now_ms });
                    let said = format!("{in_use:?} {views:?} {seen_ms:?} {other_ms:?} {now_ms}");
                    let right = views == Some((in_use, None));
                    assert_eq!(of(None), if right { Deed::Nothing } else { Deed::Show((in_use, None)) }, "{said}");
                    let is_bounded = views == bounded(in_use);
                    match of(Some(Pending { id, at_ms, due_ms })) {
                        Deed::SayShown(_) => assert!(is_bounded && other_ms == Some(at_ms), "{said}"),
                        Deed::Show(shown) => {
                            assert_eq!(Some(shown), bounded(in_use), "{said}");
                            assert!(!is_bounded && seen_ms == Some(at_ms - MARGIN_MS), "{said}");
                        }
                        Deed::SayNotShown(_) => {
                            let seen = !is_bounded && seen_ms > Some(at_ms - MARGIN_MS);
                            assert!(seen || now_ms > due_ms + PATIENCE_MS, "{said}");
                        }
                        Deed::Nothing => assert!(now_ms <= due_ms + PATIENCE_MS, "{said}: it ends"),
                    }
                }
            }
        }
    }
}
