//! A conversion to another generation of the tables, as everybody can see it: how far it is, and what became of it.
//!
//! ```text
//!  control ──▶ World ──┬──▶ told(): every conversion, step by step (feed, Statuspage)
//!  runs beside ────────┴──▶ status(): the one that is not over ──▶ its state, its amounts, its sentence
//! ```
//!
//! Law: nothing here changes the light. What is computed beside the statistics in use takes nothing from them.

use serde::{Deserialize, Serialize};
use weir_schemas::{Conversion, Generations, Hold, Number, SHADOW, World, control::Action};

use crate::{Eta, PausedStatus, RunStatus, ThrottledStatus, Update, light::LATE_MS, text::SILENT_MS, words};

/// The conversion that is not over. Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversionStatus {
    pub id: i64,
    /// N of the new generation's `stats_v<N>`.
    pub generation: u32,
    /// That of the one before; `None`: nobody has said it yet.
    pub old: Option<u32>,
    pub since_ms: i64,
    pub who: String,
    pub reason: String,
    /// The new generation's first window.
    pub from_ms: i64,
    pub state: ConversionState,
    /// `None`: the new one is in use, or is being taken away.
    pub done: Option<Done>,
    /// When what is left will be done; `None`: nothing is, or it is paused.
    pub eta: Option<Eta>,
    /// Thousandths of the time that the runs beside the one in use work at most.
    pub share_permille: u16,
    /// By whom and why that was set; `None`: by nobody, it is what runs beside have.
    pub share_by: Option<ThrottledStatus>,
    pub paused: Option<PausedStatus>,
    /// Why they work less than that for now.
    #[serde(default)]
    pub gives_way: Option<String>,
    /// What its runs wait for and try again, one sentence.
    pub waits_for: Option<String>,
    /// Why one of its runs has stopped until a person decides.
    pub stopped: Option<String>,
    /// What it means for those who use the statistics.
    pub sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ConversionState {
    Filling,
    /// All of it is computed, and kept up to date.
    CaughtUp,
    /// It has caught up, and the comparison begun then found nothing that differs.
    Verified {
        at_ms: i64,
    },
    /// In the comparison begun then so many sums and values differ that must agree.
    Differs {
        at_ms: i64,
        differing: u64,
    },
    /// As soon as both are complete through `at_ms` the new one is shown; `back`: the one before is, again.
    AboutToBeShown {
        at_ms: i64,
        back: bool,
    },
    /// The new one is shown, and the one before is kept and written, as the way back.
    Held {
        since_ms: i64,
        until_ms: i64,
    },
    /// One of both is being taken away: the one before if it was `swapped`, else the new one.
    Dropping {
        swapped: bool,
    },
}

impl ConversionState {
    /// As in `/status.json`.
    pub const ALL: [&str; 7] = ["filling", "caught_up", "verified", "differs", "about_to_be_shown", "held", "dropping"];

    /// One of [`ConversionState::ALL`].
    pub fn word(self) -> &'static str {
        Self::ALL[match self {
            ConversionState::Filling => 0,
            ConversionState::CaughtUp => 1,
            ConversionState::Verified { .. } => 2,
            ConversionState::Differs { .. } => 3,
            ConversionState::AboutToBeShown { .. } => 4,
            ConversionState::Held { .. } => 5,
            ConversionState::Dropping { .. } => 6,
        }]
    }
}

/// How much of the work is done: of live events by log time, of imports by records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Log time that is in the new table, of `log_ms` that is to be there by now.
    pub log_done_ms: i64,
    pub log_ms: i64,
    pub import_records_done: i64,
    pub import_records: i64,
    /// Thousandths of both together; a live record weighs as much as one of an import.
    pub permille: u16,
}

/// A conversion from its start to its end, as it is told. Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversionTold {
    pub id: i64,
    pub generation: u32,
    pub who: String,
    pub reason: String,
    pub began_ms: i64,
    /// When one of both generations was gone; `None`: it is not over.
    pub over_ms: Option<i64>,
    /// Oldest first.
    pub steps: Vec<Update>,
}

impl ConversionTold {
    /// Told apart from all others, also of other kinds.
    pub(crate) fn public_id(&self) -> String {
        format!("conversion-{}", self.id)
    }

    pub(crate) fn title(&self) -> String {
        let title = "A better version of the statistics";
        if self.reason.is_empty() { title.to_owned() } else { format!("{title}: {}", self.reason) }
    }
}

/// All conversions that the control records tell of, the newest first.
pub(crate) fn told(world: &World) -> Vec<ConversionTold> {
    let all = &world.generations.conversions;
    let until = |n: usize| all.get(n + 1).map_or(i64::MAX, |next| next.by.at_ms);
    let of = |(n, one): (usize, &Conversion)| of_one(one, until(n), world);
    all.iter().enumerate().map(of).rev().collect()
}

/// `until_ms`: the next one began then.
fn of_one(one: &Conversion, until_ms: i64, world: &World) -> ConversionTold {
    let new = Some(one.generation);
    let began_ms = one.by.at_ms;
    let mut steps = Vec::new();
    let mut step = |at_ms, text: &str| steps.push(Update { at_ms, text: text.to_owned() });
    step(began_ms, "Its computation has begun, beside the present statistics, which stay as they are.");
    let mine = |shown_ms: &i64| (began_ms..until_ms).contains(shown_ms);
    for Compared { at_ms, differing, is_shown } in compared(one, world, mine) {
        match (differing, is_shown) {
            (0, false) => step(at_ms, "It was proved equal."),
            (0, true) => step(at_ms, "It was compared again, and is equal."),
            (_, false) => step(at_ms, &format!("It differs in {differing} sums or values: nothing changes.")),
            (_, true) => step(at_ms, &format!("It was compared again, and differs in {differing} sums or values.")),
        }
    }
    for (show, shown_ms) in world.generations.shows.iter().filter_map(|show| Some((show, show.shown_ms?))) {
        match show.generation {
            _ if !mine(&shown_ms) => {}
            number if number == new => step(shown_ms, "It is shown. The one before is kept for a while."),
            number if number == one.old => step(shown_ms, "The one before is shown again."),
            _ => {}
        }
    }
    let over = world.control.iter().find_map(|record| match record.action {
        Action::Dropped { generation } if is_of(one, generation, &world.generations) => {
            Some((record.at_ms, generation == one.old))
        }
        _ => None,
    });
    match over {
        Some((at_ms, true)) => step(at_ms, "It is over: the one before was taken away."),
        Some((at_ms, false)) => step(at_ms, "It is over: it was taken away, and the statistics are as before."),
        None => {}
    }
    steps.sort_by_key(|step| step.at_ms);
    let over_ms = over.map(|(at_ms, _)| at_ms);
    let (generation, who, reason) = (one.generation, one.by.who.clone(), one.by.reason.clone());
    ConversionTold { id: one.by.id, generation, who, reason, began_ms, over_ms, steps }
}

/// A comparison that is told.
struct Compared {
    at_ms: i64,
    differing: u64,
    /// The new one had been shown by then.
    is_shown: bool,
}

/// Until the new one is shown the last comparison; that stays the one by which it was shown, and of those after it those are
/// told that come to something else. `mine`: whether the conversion lasted then.
fn compared(one: &Conversion, world: &World, mine: impl Fn(&i64) -> bool) -> Vec<Compared> {
    let shows = &world.generations.shows;
    let has_shown = |id| {
        shows.iter().any(|show| show.by.id == id && show.generation == Some(one.generation) && show.shown_ms.is_some())
    };
    let mut told: Vec<Compared> = Vec::new();
    let (mut last, mut is_shown) = (None, false);
    for record in &world.control {
        match record.action {
            Action::Verified { id, differing, .. } if id == one.by.id => {
                let was_equal = told.last().is_none_or(|told| told.differing == 0);
                last = Some(Compared { at_ms: record.at_ms, differing, is_shown });
                if is_shown && was_equal != (differing == 0) {
                    told.extend(last.take());
                }
            }
            Action::Shown { id } if mine(&record.at_ms) && has_shown(id) => {
                told.extend(last.take());
                is_shown = true;
            }
            _ => {}
        }
    }
    told.extend(last.filter(|_| !is_shown));
    told
}

/// That this generation was taken away has ended the conversion. The new one of it may go much later, as the old one of the
/// next.
fn is_of(one: &Conversion, dropped: Number, generations: &Generations) -> bool {
    let gone = |number: Number| generations.drops.iter().position(|(dropped, ..)| *dropped == number);
    let (old, new) = (gone(one.old), gone(Some(one.generation)));
    let first = match (old, new) {
        (Some(old), Some(new)) => {
            if old < new {
                one.old
            } else {
                Some(one.generation)
            }
        }
        (Some(_), None) => one.old,
        (None, Some(_)) => Some(one.generation),
        (None, None) => return false,
    };
    dropped == first
}

/// The conversion that is not over. `beside`: the runs of the generation that is not in use, live's first, done ones too;
/// `due_ms`: how old what they are complete through gets while they are on time; `live`: the one in use.
pub(crate) fn status(
    world: &World,
    beside: &[RunStatus],
    (eta, due_ms): (Option<Eta>, i64),
    live: Option<&RunStatus>,
    now_ms: i64,
) -> Option<ConversionStatus> {
    let generations = &world.generations;
    let one = generations.conversions.last()?;
    if told(world).first()?.over_ms.is_some() {
        return None;
    }
    let new = Some(one.generation);
    let is_shown = generations.in_use() == new;
    let of_old = if is_shown { beside.first() } else { live };
    let told_of = |run: &RunStatus| run.progress.as_ref().map(|progress| progress.generation);
    let hold = Hold::of(SHADOW, &world.control);
    let mut status = ConversionStatus {
        id: one.by.id,
        generation: one.generation,
        old: one.old.or_else(|| of_old.and_then(told_of).filter(|number| *number > 0)),
        since_ms: one.by.at_ms,
        who: one.by.who.clone(),
        reason: one.by.reason.clone(),
        from_ms: one.from_ms,
        state: state(one, generations, has_caught_up(beside, now_ms - due_ms)),
        done: (!is_shown && !beside.is_empty()).then(|| done(beside, one.from_ms, now_ms - due_ms)),
        eta,
        share_permille: hold.permille,
        share_by: hold.throttle.map(|by| ThrottledStatus {
            since_ms: by.at_ms,
            who: by.who,
            reason: by.reason,
            permille: hold.permille,
        }),
        paused: beside.first().and_then(|run| run.paused.clone()),
        gives_way: beside.iter().find_map(|run| run.progress.as_ref()?.gives_way.clone()),
        waits_for: beside.iter().find_map(|run| waits_for(run, now_ms)),
        stopped: beside
            .iter()
            .find_map(|run| Some(format!("{}: {}", run.run, run.progress.as_ref()?.stopped.as_ref()?))),
        sentence: String::new(),
    };
    status.sentence = sentence(&status, now_ms);
    Some(status)
}

fn state(one: &Conversion, generations: &Generations, has_caught_up: bool) -> ConversionState {
    let is_shown = generations.in_use() == Some(one.generation);
    if generations.under_way().is_none() {
        return ConversionState::Dropping { swapped: is_shown };
    }
    if let Some(show) = generations.pending() {
        return ConversionState::AboutToBeShown { at_ms: show.at_ms, back: show.generation == one.old };
    }
    let shown_ms = generations.shows.iter().rev().find_map(|show| show.shown_ms);
    match (shown_ms.filter(|_| is_shown), &one.verdict) {
        (Some(since_ms), _) => {
            ConversionState::Held { since_ms, until_ms: generations.held_until_ms().unwrap_or(since_ms) }
        }
        (None, Some(verdict)) if verdict.differing > 0 => {
            ConversionState::Differs { at_ms: verdict.attempt, differing: verdict.differing }
        }
        (None, Some(verdict)) if has_caught_up => ConversionState::Verified { at_ms: verdict.attempt },
        (None, None) if has_caught_up => ConversionState::CaughtUp,
        (None, _) => ConversionState::Filling,
    }
}

fn through_ms(run: &RunStatus) -> Option<i64> {
    run.progress.as_ref()?.complete_through_ms
}

/// Live's is on time, and the imports are done.
fn has_caught_up(beside: &[RunStatus], due_ms: i64) -> bool {
    let is_done = |run: &RunStatus| run.progress.as_ref().is_some_and(|progress| progress.ended);
    beside.split_first().is_some_and(|(live, imports)| {
        through_ms(live).is_some_and(|through_ms| through_ms >= due_ms - LATE_MS) && imports.iter().all(is_done)
    })
}

fn done(beside: &[RunStatus], from_ms: i64, due_ms: i64) -> Done {
    let (live, imports) = beside.split_at(1);
    let log_ms = (due_ms - from_ms).max(0);
    let log_done_ms = (through_ms(&live[0]).unwrap_or(from_ms) - from_ms).clamp(0, log_ms);
    let import_records: i64 = imports.iter().map(|run| run.records).sum();
    let import_records_done: i64 = imports.iter().map(|run| run.records - run.lag_records).sum();
    // A log that holds nothing is passed over in no time.
    let weight = i128::from(live[0].records.max(1));
    let permille_of_log = if log_ms == 0 { 1000 } else { i128::from(log_done_ms) * 1000 / i128::from(log_ms) };
    let of_imports = i128::from(import_records_done) * 1000;
    let permille = (permille_of_log * weight + of_imports) / (weight + i128::from(import_records));
    Done { log_done_ms, log_ms, import_records_done, import_records, permille: permille.clamp(0, 1000) as u16 }
}

/// What keeps a run that has not stopped from its work, and passes by itself, or when it is started.
fn waits_for(run: &RunStatus, now_ms: i64) -> Option<String> {
    let progress = run.progress.as_ref().filter(|progress| progress.stopped.is_none() && !progress.ended)?;
    let is_silent = run.paused.is_none() && now_ms - progress.at_ms > SILENT_MS;
    let silent = || {
        is_silent.then(|| format!("{}: nobody has heard of it for {}", run.run, words::span(now_ms - progress.at_ms)))
    };
    let waiting = progress.waiting.as_ref().filter(|_| run.paused.is_none());
    waiting.map(|waiting| format!("{}: {}", run.run, waiting.reason)).or_else(silent)
}

fn sentence(one: &ConversionStatus, now_ms: i64) -> String {
    let at = |ms| words::time(ms, now_ms);
    const BETTER: &str = "A better version of the statistics";
    let stands = |what: &str| match (&one.stopped, &one.paused) {
        (Some(_), _) => format!(" {what} stands still until an operator has looked. The present statistics go on."),
        (None, Some(paused)) if paused.reason.is_empty() => format!(" {what} is paused."),
        (None, Some(paused)) => format!(" {what} is paused ({}).", paused.reason),
        (None, None) => String::new(),
    };
    match one.state {
        ConversionState::Filling => {
            let percent = one.done.map(|done| format!("{} % done", done.permille.min(999) / 10));
            let is_at_work = one.stopped.is_none() && one.paused.is_none();
            let eta = one.eta.filter(|_| is_at_work).and_then(|eta| words::about(eta, now_ms));
            let said: Vec<String> = percent.into_iter().chain(eta).collect();
            let colon = if said.is_empty() { "" } else { ": " };
            format!(
                "{BETTER} is being computed beside the present ones{colon}{}.{} Nothing changes until it is proved equal.",
                said.join(", "),
                stands("That")
            )
        }
        ConversionState::CaughtUp => format!(
            "{BETTER} has been computed beside the present ones.{} Nothing changes until it is proved equal.",
            stands("Keeping it up to date")
        ),
        ConversionState::Verified { at_ms } => format!(
            "{BETTER} has been computed beside the present ones, and was proved equal at {}.{} Nothing changes until an \
             operator says so.",
            at(at_ms),
            stands("Keeping it up to date")
        ),
        ConversionState::Differs { .. } => format!(
            "{BETTER} was computed beside the present ones, and is not equal where it must be. Nothing changes until an \
             operator has looked."
        ),
        ConversionState::AboutToBeShown { at_ms, back } => {
            let what = if back { "The version of the statistics before" } else { BETTER };
            let again = if back { " again" } else { "" };
            format!("{what} is about to be shown{again}, as soon as both are complete through {}.", at(at_ms))
        }
        ConversionState::Held { since_ms, until_ms } => {
            let until = if now_ms < until_ms { format!(" until {}", at(until_ms)) } else { String::new() };
            format!(
                "{BETTER} is shown since {}. The one before is kept{until}, as the way back.{}",
                at(since_ms),
                stands("Keeping that up to date")
            )
        }
        ConversionState::Dropping { swapped: true } => {
            format!("{BETTER} is shown; the one before is being taken away.")
        }
        ConversionState::Dropping { swapped: false } => {
            "The version of the statistics that was computed beside the present ones is being taken away. Nothing changes."
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weir_schemas::{World, control::ControlRecord};

    use super::*;

    fn world(actions: Vec<(i64, Action)>) -> World {
        let record = |(at_ms, action)| ControlRecord { at_ms, who: "ops".into(), reason: "a day".into(), action };
        World::of(&actions.into_iter().map(record).collect::<Vec<_>>())
    }

    fn started(at_ms: i64, generation: u32) -> (i64, Action) {
        (at_ms, Action::ConversionStarted { id: at_ms, generation, version: String::new(), from_ms: 0, carried: None })
    }

    fn shown(at_ms: i64, generation: Number) -> [(i64, Action); 2] {
        let show = Action::Show { id: at_ms, generation, at_ms, hold_ms: 0 };
        [(at_ms, show), (at_ms + 1, Action::Shown { id: at_ms })]
    }

    fn dropped(at_ms: i64, generation: Number) -> [(i64, Action); 2] {
        [(at_ms, Action::Drop { id: at_ms, generation }), (at_ms + 1, Action::Dropped { generation })]
    }

    #[test]
    fn each_conversion_ends_with_the_first_of_its_two_generations_that_goes() {
        let mut said = vec![started(10, 2)];
        said.extend(dropped(20, Some(2)));
        said.push(started(30, 3));
        said.push((35, Action::Verified { id: 30, attempt: 34, closed_ms: 0, differing: 0, known: 0 }));
        said.extend(shown(40, Some(3)));
        said.extend(shown(42, None));
        said.extend(shown(44, Some(3)));
        said.extend(dropped(50, None));
        said.push(started(60, 4));
        said.extend(shown(70, Some(4)));
        let ends = |said: &[(i64, Action)]| -> Vec<_> {
            told(&world(said.to_vec())).into_iter().map(|one| (one.generation, one.over_ms)).collect()
        };
        assert_eq!(ends(&said), [(4, None), (3, Some(51)), (2, Some(21))]);
        assert!(status(&world(said.clone()), &[], (None, 0), None, 75).is_some());
        said.extend(dropped(80, Some(3)));
        assert_eq!(ends(&said), [(4, Some(81)), (3, Some(51)), (2, Some(21))]);
        assert_eq!(status(&world(said.clone()), &[], (None, 0), None, 90), None);
        let steps = |one: &ConversionTold| {
            let of = |step: &Update| format!("{} {}\n", step.at_ms, step.text);
            one.steps.iter().map(of).collect::<String>()
        };
        let all = told(&world(said));
        expect![[r#"
            30 Its computation has begun, beside the present statistics, which stay as they are.
            35 It was proved equal.
            41 It is shown. The one before is kept for a while.
            43 The one before is shown again.
            45 It is shown. The one before is kept for a while.
            51 It is over: the one before was taken away.
        "#]]
        .assert_eq(&steps(&all[1]));
        expect![[r#"
            10 Its computation has begun, beside the present statistics, which stay as they are.
            21 It is over: it was taken away, and the statistics are as before.
        "#]]
        .assert_eq(&steps(&all[2]));
    }

    #[test]
    fn the_proof_is_told_before_what_was_shown_by_it_and_a_later_one_only_if_it_comes_to_something_else() {
        let verified = |at_ms, differing| {
            (at_ms, Action::Verified { id: 10, attempt: at_ms - 1, closed_ms: 0, differing, known: 0 })
        };
        let steps = |said: &[(i64, Action)]| -> String {
            let told = told(&world(said.to_vec()));
            told[0].steps.iter().skip(1).map(|step| format!("{} {}\n", step.at_ms, step.text)).collect()
        };
        let mut said = vec![started(10, 2), verified(20, 3), verified(25, 0), verified(30, 0)];
        assert_eq!(steps(&said[..2]), "20 It differs in 3 sums or values: nothing changes.\n");
        assert_eq!(steps(&said), "30 It was proved equal.\n");
        said.extend(shown(40, Some(2)));
        said.push(verified(50, 0));
        assert_eq!(steps(&said), "30 It was proved equal.\n41 It is shown. The one before is kept for a while.\n");
        said.extend([verified(60, 7), verified(65, 7), verified(70, 0), verified(75, 0)]);
        said.extend(shown(80, None));
        said.extend([verified(82, 0), verified(84, 0)]);
        said.extend(shown(90, Some(2)));
        said.push(verified(95, 0));
        expect![[r#"
            30 It was proved equal.
            41 It is shown. The one before is kept for a while.
            60 It was compared again, and differs in 7 sums or values.
            70 It was compared again, and is equal.
            81 The one before is shown again.
            84 It was compared again, and is equal.
            91 It is shown. The one before is kept for a while.
        "#]]
        .assert_eq(&steps(&said));
    }

    #[test]
    fn each_state_has_a_sentence_that_a_user_understands() {
        const NOON_MS: i64 = 1_700_049_600_000;
        let done = Done { log_done_ms: 1, log_ms: 2, import_records_done: 0, import_records: 0, permille: 439 };
        let one = ConversionStatus {
            done: Some(done),
            eta: Some(Eta::Between { earliest_ms: NOON_MS + 1_490_000, latest_ms: NOON_MS + 1_500_000 }),
            ..status(&world(vec![started(0, 2)]), &[], (None, 0), None, NOON_MS).unwrap()
        };
        let (at_ms, later_ms) = (NOON_MS - 60_000, NOON_MS + 86_400_000);
        let mut said = String::new();
        for state in [
            ConversionState::Filling,
            ConversionState::CaughtUp,
            ConversionState::Verified { at_ms },
            ConversionState::Differs { at_ms, differing: 3 },
            ConversionState::AboutToBeShown { at_ms, back: false },
            ConversionState::AboutToBeShown { at_ms, back: true },
            ConversionState::Held { since_ms: at_ms, until_ms: later_ms },
            ConversionState::Held { since_ms: at_ms, until_ms: at_ms },
            ConversionState::Dropping { swapped: true },
            ConversionState::Dropping { swapped: false },
        ] {
            let said_of_it = sentence(&ConversionStatus { state, ..one.clone() }, NOON_MS);
            said.push_str(&format!("{}: {said_of_it}\n", state.word()));
            assert_eq!(serde_json::to_value(state).unwrap()["is"], state.word());
        }
        let stands = ConversionStatus { stopped: Some("shadow: its table was altered".into()), ..one.clone() };
        said.push_str(&format!("stopped: {}\n", sentence(&stands, NOON_MS)));
        let grows = ConversionStatus { eta: Some(Eta::NotConverging), ..one };
        said.push_str(&format!("not converging: {}\n", sentence(&grows, NOON_MS)));
        expect![[r#"
            filling: A better version of the statistics is being computed beside the present ones: 43 % done, about 25 min. Nothing changes until it is proved equal.
            caught_up: A better version of the statistics has been computed beside the present ones. Nothing changes until it is proved equal.
            verified: A better version of the statistics has been computed beside the present ones, and was proved equal at 11:59 UTC. Nothing changes until an operator says so.
            differs: A better version of the statistics was computed beside the present ones, and is not equal where it must be. Nothing changes until an operator has looked.
            about_to_be_shown: A better version of the statistics is about to be shown, as soon as both are complete through 11:59 UTC.
            about_to_be_shown: The version of the statistics before is about to be shown again, as soon as both are complete through 11:59 UTC.
            held: A better version of the statistics is shown since 11:59 UTC. The one before is kept until 2023-11-16 12:00 UTC, as the way back.
            held: A better version of the statistics is shown since 11:59 UTC. The one before is kept, as the way back.
            dropping: A better version of the statistics is shown; the one before is being taken away.
            dropping: The version of the statistics that was computed beside the present ones is being taken away. Nothing changes.
            stopped: A better version of the statistics is being computed beside the present ones: 43 % done. That stands still until an operator has looked. The present statistics go on. Nothing changes until it is proved equal.
            not converging: A better version of the statistics is being computed beside the present ones: 43 % done, and more comes than is computed. Nothing changes until it is proved equal.
        "#]].assert_eq(&said);
    }

    #[test]
    fn how_much_is_done_is_all_only_when_it_is() {
        let run = |through_ms: i64, records: i64, lag_records: i64| {
            let mut run = RunStatus { records, lag_records, ..RunStatus::default() };
            run.progress.get_or_insert_default().complete_through_ms = Some(through_ms);
            run
        };
        let permille = |runs: &[RunStatus]| done(runs, 1_000, 3_000).permille;
        assert_eq!(
            [500, 1_000, 2_000, 2_999, 3_000, 9_000].map(|ms| permille(&[run(ms, 7, 0)])),
            [0, 0, 500, 999, 1_000, 1_000]
        );
        assert_eq!(permille(&[run(2_000, 0, 0)]), 500, "of a log that holds nothing any more");
        assert_eq!(permille(&[run(3_000, 100, 0), run(0, 300, 300)]), 250);
        assert_eq!(done(&[run(0, 0, 0)], 3_000, 3_000).permille, 1_000, "nothing is due yet");
    }
}
