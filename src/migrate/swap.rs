//! Showing another generation, and taking one away: what must be so before it is ordered, and what comes of it.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use weir_log::{Clock, SystemClock};
use weir_schemas::{
    Conversion, DROP_AFTER_MS, Decision, Hold, Number, SHADOW, Show, World,
    control::{Action, ControlRecord},
};

use super::{Migrate, Part};
use crate::{carried, config::Config, fault::Step, generation::Generation, judge::at};

/// Ahead of what is complete, so long, an order can be read by all before its instant.
const AHEAD_MS: i64 = 10_000;
/// How long a comparison is believed, and how long one that was cut may be gone on with.
pub(super) const FRESH_MS: i64 = 60 * 60 * 1000;
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Supervisors are waited for so long after it is due: as long as they try, and some.
const PATIENCE: Duration = Duration::from_secs(12 * 60);

/// What is known when a generation is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    /// `None`: no conversion is under way.
    conversion: Option<Conversion>,
    in_use: Number,
    wanted: Number,
    /// What was ordered and has not taken effect: its id, and the generation.
    pending: Option<(i64, Number)>,
    /// What is not as it must be in the runs of either: one sentence each.
    runs: Vec<String>,
    /// What has changed a table since the last comparison.
    changed: Option<String>,
    now_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It is shown already.
    Done,
    /// It was ordered, and has not taken effect.
    Ordered,
    /// It is shown, and another was ordered to be: that is to be withdrawn.
    Withdraw(i64),
    /// It may be ordered.
    Ready,
    /// It comes by itself, or by somebody else's doing.
    NotYet(String),
    /// Both are to be compared, again or for the first time.
    Unproved(String),
    /// What stands against it does not pass by itself.
    Refused(String),
}

/// A return to the old generation needs no proof: that is the way out.
fn answer(facts: &Facts) -> Answer {
    let Some(conversion) = &facts.conversion else {
        return Answer::Refused("no conversion is under way (`weir migrate start` begins one)".to_owned());
    };
    match facts.pending {
        Some((id, _)) if facts.in_use == facts.wanted => return Answer::Withdraw(id),
        Some(_) => return Answer::Ordered,
        None if facts.in_use == facts.wanted => return Answer::Done,
        None => {}
    }
    let again = "(`weir migrate verify`)";
    let differing = conversion.verdict.as_ref().map_or(0, |verdict| verdict.differing);
    if differing > 0 && facts.wanted != conversion.old {
        return Answer::Refused(format!(
            "both generations differ in {differing} sums or values that must agree {again}"
        ));
    }
    if let Some(first) = facts.runs.first() {
        return Answer::NotYet(first.clone());
    }
    if facts.wanted == conversion.old {
        return Answer::Ready;
    }
    match &conversion.verdict {
        None => Answer::Unproved(format!("nothing proves yet that both generations agree {again}")),
        Some(verdict) if facts.now_ms - verdict.at_ms > FRESH_MS => {
            Answer::Unproved(format!("the last comparison is of {} {again}", at(verdict.at_ms)))
        }
        Some(_) => match &facts.changed {
            Some(changed) => Answer::Unproved(format!("since the last comparison {changed} {again}")),
            None => Answer::Ready,
        },
    }
}

/// What of these records has changed a table.
pub(crate) fn changed(control: &[ControlRecord]) -> Option<String> {
    control.iter().find_map(|record| match &record.action {
        Action::Recovered { run, .. } => Some(format!("{run} was recovered")),
        Action::BackupRestored { name, .. } => Some(format!("copy {name} was brought back")),
        Action::Replaced { done: true, .. } => Some("days were replaced".to_owned()),
        Action::ImportWritten { id, .. } => Some(format!("import {id} has come")),
        Action::ImportUndone { id } => Some(format!("import {id} was taken back")),
        _ => None,
    })
}

/// What of a generation's runs stands against showing another one.
fn unready(world: &World, number: Number, parts: &[Part]) -> Vec<String> {
    let role = |part: &Part| world.roles.role(&part.order.run);
    let mut all = Vec::new();
    let held = if number == world.generations.in_use() { "live" } else { SHADOW };
    if let Some(pause) = Hold::of(held, &world.control).paused() {
        all.push(format!("{held} is paused by {}, \"{}\"", pause.by.who, pause.by.reason));
    }
    for part in parts {
        match &part.told {
            _ if part.is_done() => {}
            Some(told) if told.stopped.is_some() => {
                let why = told.stopped.as_deref().unwrap_or_default();
                all.push(format!("{} has stopped: {why}", role(part)));
            }
            _ if part.order.to.is_some() => all.push(format!("{} is not done", role(part))),
            _ if part.late => {
                all.push(format!("{} has not caught up: it is complete through {}", role(part), at(part.through_ms)));
            }
            _ => {}
        }
    }
    all
}

impl Migrate {
    pub(super) async fn swap(
        &self,
        reason: &str,
        when_ready: bool,
        hold: Duration,
        veto: Option<&str>,
    ) -> anyhow::Result<ExitCode> {
        let wanted = self.world().await?.generations.under_way().map(|conversion| Some(conversion.generation));
        let wanted = wanted.context("no conversion is under way (`weir migrate start` begins one)")?;
        self.show(wanted, reason, when_ready, hold, veto).await
    }

    pub(super) async fn revert(&self, reason: &str) -> anyhow::Result<ExitCode> {
        let world = self.world().await?;
        let conversion = world.generations.under_way();
        let old = conversion.context("no conversion is under way: there is nothing to go back to")?.old;
        let hold = world.generations.shows.last().map_or(0, |show| show.hold_ms);
        self.show(old, reason, false, Duration::from_millis(hold.unsigned_abs()), None).await
    }

    async fn show(
        &self,
        wanted: Number,
        reason: &str,
        when_ready: bool,
        hold: Duration,
        veto: Option<&str>,
    ) -> anyhow::Result<ExitCode> {
        let (mut said, mut unproved, mut veto) = (String::new(), String::new(), veto);
        loop {
            let seen = async {
                let world = self.world().await?;
                let (facts, through_ms) = self.look(&world, wanted).await?;
                anyhow::Ok((world, facts, through_ms))
            };
            let (world, facts, through_ms) = match seen.await {
                Ok(seen) => seen,
                // It may last a night, in which a server is started again.
                Err(error) if when_ready => {
                    wait(format!("{error:#}"), &mut said).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match answer(&facts) {
                Answer::Done => {
                    println!("{} is shown already", Generation::of(&self.config, &world, wanted)?.name());
                    return Ok(ExitCode::SUCCESS);
                }
                Answer::Ordered => {
                    if let Some(show) = world.generations.pending() {
                        let Decision { who, at_ms, .. } = &show.by;
                        println!("ordered {} by {who}: {}", at(*at_ms), what_comes(&facts, show.at_ms));
                    }
                    return self.wait(wanted).await;
                }
                Answer::Withdraw(id) => {
                    self.say(reason, Action::NotShown { id }).await?;
                    println!("withdrawn: no other generation is about to be shown any more");
                }
                Answer::Refused(why) => bail!("{why}"),
                Answer::NotYet(why) | Answer::Unproved(why) if !when_ready => bail!("{why}"),
                Answer::NotYet(why) => wait(why, &mut said).await,
                Answer::Unproved(why) => {
                    if !std::mem::replace(&mut unproved, why.clone()).eq(&why) {
                        println!("{why}");
                    }
                    if let Err(error) = self.verify().await {
                        wait(format!("{error:#}"), &mut said).await;
                    }
                }
                // While it is asked all may change: it is looked again.
                Answer::Ready if veto.is_some() => vetoed(veto.take().unwrap_or_default()).await?,
                Answer::Ready => {
                    let [old, new] = [facts.in_use, wanted].map(|number| Generation::of(&self.config, &world, number));
                    let step = old?.version.width.common(new?.version.width);
                    let at_ms = step.next(step.window_of(through_ms + AHEAD_MS)).ms();
                    let (id, hold_ms) = (SystemClock.now_ms(), hold.as_millis() as i64);
                    self.say(reason, Action::Show { id, generation: wanted, at_ms, hold_ms }).await?;
                    Step::ShowOrdered.done();
                    println!("ordered: {}", what_comes(&facts, at_ms));
                    if facts.wanted != facts.conversion.and_then(|conversion| conversion.old) {
                        let held = Duration::from_millis(hold_ms.max(DROP_AFTER_MS).unsigned_abs());
                        println!("the one before is held for {} then", humantime::format_duration(held));
                    }
                    return self.wait(wanted).await;
                }
            }
        }
    }

    /// What is known, and how far the one that is further is.
    async fn look(&self, world: &World, wanted: Number) -> anyhow::Result<(Facts, i64)> {
        let generations = &world.generations;
        let conversion = generations.under_way().cloned();
        let (mut runs, mut through_ms) = (Vec::new(), 0);
        if conversion.is_some() {
            let in_use = Generation::in_use(&self.config, world)?;
            let other = Generation::of(&self.config, world, wanted)?;
            let (parts, others) = (self.parts(world, in_use.number).await?, self.parts(world, wanted).await?);
            through_ms = parts[0].through_ms.max(others[0].through_ms);
            // The way back is open also while the one in use has stopped; who has paused it can let it go on.
            let is_way_back = conversion.as_ref().is_some_and(|conversion| conversion.old == wanted);
            runs.extend(unready(world, wanted, if is_way_back { &others[..1] } else { &others }));
            runs.extend(unready(world, in_use.number, if is_way_back { &[] } else { &parts }));
            for generation in [&in_use, &other].into_iter().skip(usize::from(is_way_back)) {
                if !weir_sink::gaps(&self.target, &generation.version).await?.is_empty() {
                    let number = generation.version.number;
                    runs.push(format!("generation {number} has a gap that is not filled yet (`weir status`)"));
                }
            }
        }
        let known = conversion.as_ref().and_then(|conversion| conversion.verdict.as_ref()).map(|verdict| verdict.known);
        let facts = Facts {
            in_use: generations.in_use(),
            wanted,
            pending: generations.pending().map(|show| (show.by.id, show.generation)),
            runs,
            changed: known.and_then(|known| changed(&world.control[known..])),
            now_ms: SystemClock.now_ms(),
            conversion,
        };
        Ok((facts, through_ms))
    }

    /// Until the views show it, or it was withdrawn.
    async fn wait(&self, wanted: Number) -> anyhow::Result<ExitCode> {
        let world = self.world().await?;
        let due_ms = world.generations.pending().map(|show| due_ms(&self.config, &world, show));
        let due_ms = due_ms.transpose()?.unwrap_or_else(|| SystemClock.now_ms());
        while SystemClock.now_ms() < due_ms + PATIENCE.as_millis() as i64 {
            let world = self.world().await?;
            if world.generations.in_use() == wanted {
                let number = Generation::of(&self.config, &world, wanted)?.version.number;
                let shown = weir_sink::shown(&self.target).await?;
                if shown.is_some_and(|shown| shown.generation == number && shown.through_ms.is_none()) {
                    println!("shown: the public views are of generation {number}");
                    return Ok(ExitCode::SUCCESS);
                }
            } else if world.generations.pending().is_none() {
                println!("not shown: all is as it was (`weir log` says why; the same command again tries again)");
                return Ok(ExitCode::FAILURE);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        println!("nobody has done it yet (is `weir serve` or `weir pipeline` running?)");
        Ok(ExitCode::FAILURE)
    }

    pub(super) async fn drop(&self, reason: &str) -> anyhow::Result<ExitCode> {
        let world = self.world().await?;
        let shadow = match (world.generations.shadow(), world.generations.drops.last()) {
            (Some(shadow), _) => shadow,
            (None, None) => bail!("no conversion is under way: there is no generation to drop"),
            // Whoever ordered it may have been cut.
            (None, Some((dropped, by, _))) => {
                let name = Generation::of(&self.config, &world, *dropped)?.name();
                println!("ordered {} by {}: {name} is taken away", at(by.at_ms), by.who);
                return self.wait_dropped(*dropped, &name).await;
            }
        };
        if let Some(why) = stays(&world, SystemClock.now_ms()) {
            bail!("{why}");
        }
        let number = Generation::of(&self.config, &world, shadow)?.version.number;
        if let Some(run) = carried::who_needs(&self.config, &self.target, &world, shadow).await? {
            bail!("{run} carries rows over from generation {number}, and is not done (`weir migrate status`)");
        }
        self.say(reason, Action::Drop { id: SystemClock.now_ms(), generation: shadow }).await?;
        Step::DropOrdered.done();
        let name = format!("generation {number}");
        println!("ordered: {name} is taken away");
        self.wait_dropped(shadow, &name).await
    }

    /// Until the generation of this name is gone.
    async fn wait_dropped(&self, number: Number, name: &str) -> anyhow::Result<ExitCode> {
        let world = self.world().await?;
        let from_ms = world.generations.drops_from_ms().unwrap_or(0).max(SystemClock.now_ms());
        while SystemClock.now_ms() < from_ms + PATIENCE.as_millis() as i64 {
            let generations = self.world().await?.generations;
            let of = generations.drops.iter().find(|(dropped, ..)| *dropped == number);
            match of {
                Some((_, _, true)) => {
                    println!("dropped: {name}");
                    return Ok(ExitCode::SUCCESS);
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
                None => bail!("somebody has ordered something else meanwhile (`weir log`)"),
            }
        }
        println!("nobody has done it yet (is `weir serve` or `weir pipeline` running?)");
        Ok(ExitCode::FAILURE)
    }
}

/// What an order to show a generation comes to, and the way back.
fn what_comes(facts: &Facts, at_ms: i64) -> String {
    let is_way_back = facts.conversion.as_ref().is_some_and(|conversion| conversion.old == facts.wanted);
    let other = if is_way_back { "swap" } else { "revert" };
    format!(
        "it is shown as soon as both are complete through {}, also without this command (`weir migrate {other}` withdraws that)",
        at(at_ms)
    )
}

/// Says, once, what is waited for, and waits a little.
async fn wait(why: String, said: &mut String) {
    if why != *said {
        println!("waits: {why}");
        *said = why;
    }
    tokio::time::sleep(LOOK_EVERY).await;
}

/// When both generations may be complete through the instant of an order: the last of its windows waits for what is late.
pub(crate) fn due_ms(config: &Config, world: &World, show: &Show) -> anyhow::Result<i64> {
    let late_ms = [world.generations.in_use(), show.generation].map(|number| -> anyhow::Result<i64> {
        let version = Generation::of(config, world, number)?.version;
        Ok(version.width.ms() + version.lateness_ms)
    });
    let [of_shown, of_other] = late_ms;
    Ok(show.at_ms + of_shown?.max(of_other?))
}

/// Why the generation that is not in use may not be dropped yet.
fn stays(world: &World, now_ms: i64) -> Option<String> {
    let generations = &world.generations;
    if generations.pending().is_some() {
        return Some("another generation is about to be shown (`weir migrate status`)".to_owned());
    }
    let until_ms = generations.held_until_ms().filter(|until_ms| now_ms < *until_ms)?;
    Some(format!("it is held until {}: the way back (`weir migrate revert`)", at(until_ms)))
}

/// Runs a command of the operator's. Errors: it says no.
async fn vetoed(command: &str) -> anyhow::Result<()> {
    let status = tokio::process::Command::new("sh").arg("-c").arg(command).status().await;
    let status = status.with_context(|| format!("the veto {command:?} cannot be run"))?;
    ensure!(status.success(), "vetoed: {command:?} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_schemas::Verdict;

    use super::*;

    const NOW_MS: i64 = 100_000_000;

    fn conversion(verdict: Option<(i64, u64)>) -> Conversion {
        let verdict =
            verdict.map(|(attempt, differing)| Verdict { attempt, at_ms: attempt, known: 3, closed_ms: 0, differing });
        let by = Decision { id: 1, at_ms: 0, who: "ops".into(), reason: "r".into() };
        let (version, comparing, accepted) = (String::new(), None, Vec::new());
        let carried = None;
        Conversion {
            by,
            generation: 2,
            old: None,
            version,
            from_ms: 0,
            shows: 0,
            carried,
            verdict,
            comparing,
            accepted,
        }
    }

    /// Over all facts that differ in what matters.
    #[test]
    fn the_new_one_is_ordered_only_with_a_fresh_proof_and_both_caught_up_and_the_old_one_without_a_proof() {
        let fresh = NOW_MS - FRESH_MS;
        let verdicts = [None, Some((fresh, 0)), Some((fresh - 1, 0)), Some((fresh, 7))];
        for (in_use, wanted) in [(None, Some(2)), (Some(2), None), (None, None), (Some(2), Some(2))] {
            for verdict in verdicts {
                for (behind, is_pending, changed) in (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0)) {
                    let other = if in_use.is_none() { Some(2) } else { None };
                    let facts = Facts {
                        conversion: Some(conversion(verdict)),
                        in_use,
                        wanted,
                        pending: is_pending.then_some((9, other)),
                        runs: if behind { vec!["shadow has not caught up".to_owned()] } else { Vec::new() },
                        changed: changed.then(|| "days were replaced".to_owned()),
                        now_ms: NOW_MS,
                    };
                    let answered = answer(&facts);
                    let proved = verdict == Some((fresh, 0)) && !changed;
                    match &answered {
                        Answer::Done => assert!(in_use == wanted && !is_pending),
                        Answer::Ordered => assert!(is_pending && in_use != wanted),
                        Answer::Withdraw(id) => assert!(is_pending && in_use == wanted && *id == 9),
                        Answer::Ready => {
                            assert!(in_use != wanted && !behind && (wanted.is_none() || proved), "{facts:?}")
                        }
                        Answer::NotYet(_) => assert!(behind, "{facts:?}"),
                        Answer::Unproved(_) => assert!(wanted.is_some() && !proved && !behind, "{facts:?}"),
                        Answer::Refused(_) => assert!(wanted.is_some() && verdict == Some((fresh, 7)), "{facts:?}"),
                    }
                    let may = in_use != wanted && !is_pending && !behind && (wanted.is_none() || proved);
                    assert_eq!(answered == Answer::Ready, may, "{facts:?}");
                }
            }
        }
        let none = Facts {
            conversion: None,
            in_use: None,
            wanted: None,
            pending: None,
            runs: Vec::new(),
            changed: None,
            now_ms: NOW_MS,
        };
        assert!(matches!(answer(&none), Answer::Refused(_)));
    }

    #[test]
    fn what_has_changed_a_table_since_the_comparison_is_named() {
        let record = |action| ControlRecord { at_ms: 0, who: "ops".into(), reason: "r".into(), action };
        let id = || "x".to_owned();
        let changes = [
            (Action::Recovered { run: "shadow".into(), id: 1 }, "shadow was recovered"),
            (Action::BackupRestored { name: id(), gaps: Vec::new() }, "copy x was brought back"),
            (Action::Replaced { id: 1, done: true }, "days were replaced"),
            (
                Action::ImportWritten { id: id(), events: 1, partitions: 1, first_ms: 5, last_ms: 6 },
                "import x has come",
            ),
            (Action::ImportUndone { id: id() }, "import x was taken back"),
        ];
        let verified = record(Action::Verified { id: 1, attempt: 0, closed_ms: 0, differing: 0, known: 0 });
        let others = [verified, record(Action::Replaced { id: 1, done: false })];
        assert_eq!(changed(&others), None);
        for (action, said) in changes {
            let all = [&others[..], &[record(action)]].concat();
            assert_eq!(changed(&all).as_deref(), Some(said));
        }
    }
}
