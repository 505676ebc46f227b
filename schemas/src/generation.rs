//! Which generations there are, and which one is in use, folded from the control topic.
//!
//! ```text
//!  ConversionStarted ──▶ Verified ──▶ Show ─┬─▶ Shown ──▶ Drop, of the old one ──▶ over: swapped
//!    │                                      └─▶ NotShown
//!    └──────────────▶ Drop, of the new one ──▶ over: as before
//! ```
//!
//! Each generation has runs of its own, one for live and one for each import, and one that carries rows over, if the log does
//! not have any more what they were made of. Those of the first are called as their kind, `live`; those of another have its
//! number in front, `v2-live`. So a run's name says for ever what it writes. What people call it, its role, depends on which
//! generation is in use: see [`Roles`].

use std::collections::BTreeMap;

use crate::{
    Decision, Hold, Recoveries, Replacements, SchemaVersion,
    control::{Action, Carried, ControlRecord},
};

/// A generation's number, N of `stats_v<N>`; `None`: the first one, whose version was configured at the first start.
pub type Number = Option<u32>;

/// The name of a generation's run of this kind: `live`, `gap`, `import-…`.
pub fn run_of(generation: Number, kind: &str) -> String {
    generation.map_or_else(|| kind.to_owned(), |number| format!("v{number}-{kind}"))
}

/// The generation and the kind that a run's name says. Law: the inverse of [`run_of`].
pub fn kind_of(run: &str) -> (Number, &str) {
    let split = || {
        let (number, kind) = run.strip_prefix('v')?.split_once('-')?;
        Some((number.parse().ok()?, kind))
    };
    split().map_or((None, run), |(number, kind)| (Some(number), kind))
}

/// Nothing is dropped so soon after a swap, whatever the hold: queries that began before may still read it.
pub const DROP_AFTER_MS: i64 = 10 * 60 * 1000;

/// A generation that a conversion has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// Who started it; its id names the conversion.
    pub by: Decision,
    pub generation: u32,
    /// The one that was in use.
    pub old: Number,
    /// The version's file, as it was then.
    pub version: String,
    /// The first window that its own runs compute, ms since the Unix epoch.
    pub from_ms: i64,
    /// How often another generation was to be shown before it began.
    pub shows: usize,
    /// What was carried over before that.
    pub carried: Option<Carried>,
    /// What the last comparison came to.
    pub verdict: Option<Verdict>,
    /// The comparison that has begun after it, and is not over.
    pub comparing: Option<Comparing>,
    /// Dimensions that need not agree, with who said so.
    pub accepted: Vec<(String, Decision)>,
}

/// What a comparison of two generations came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// When it began, ms since the Unix epoch by the clock of who made it: names the attempt.
    pub attempt: i64,
    /// When it was over.
    pub at_ms: i64,
    /// Control records that were there when it began: what has changed a table and comes after makes it stale.
    pub known: usize,
    /// Rows that had left before this were compared.
    pub closed_ms: i64,
    /// So many sums and values differ that must agree.
    pub differing: u64,
}

/// A comparison of which nothing differs so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparing {
    pub attempt: i64,
    /// Control records that were there when it began.
    pub known: usize,
    /// When it was last told of.
    pub at_ms: i64,
    pub closed_ms: i64,
    /// By origin: all days before this agree, days since the Unix epoch; `None`: all do.
    pub agreed: BTreeMap<String, Option<i64>>,
}

/// The public views are to show another generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Show {
    pub by: Decision,
    pub generation: Number,
    /// As soon as both are complete through this; until then nothing more is said to be complete.
    pub at_ms: i64,
    /// The one that was shown before may be dropped only so long after.
    pub hold_ms: i64,
    pub shown_ms: Option<i64>,
}

/// All generations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// The file of the first one's version; `None`: nobody has recorded it yet.
    pub first: Option<String>,
    /// In the order in which they were started.
    pub conversions: Vec<Conversion>,
    /// Those that took effect, and last the one that has not yet.
    pub shows: Vec<Show>,
    /// Those to be taken away, with who said so, and whether that was done.
    pub drops: Vec<(Number, Decision, bool)>,
}

impl Generations {
    /// By the control records in their order. What an impossible order of them says changes nothing: of two that were
    /// written at the same time the first counts.
    pub fn of<'a>(control: impl IntoIterator<Item = &'a ControlRecord>) -> Generations {
        let mut all = Generations::default();
        for record in control {
            all.fold(record);
        }
        all
    }

    /// Whether the record is about generations.
    fn fold(&mut self, record: &ControlRecord) -> bool {
        let by = |id| Decision { id, at_ms: record.at_ms, who: record.who.clone(), reason: record.reason.clone() };
        match &record.action {
            Action::FirstGeneration { version } => {
                self.first.get_or_insert_with(|| version.clone());
            }
            Action::ConversionStarted { id, generation, version, from_ms, carried } => {
                let is_new = self.conversions.iter().all(|known| known.generation != *generation);
                if self.under_way().is_none() && is_new {
                    let old = self.in_use();
                    let (generation, version, from_ms) = (*generation, version.clone(), *from_ms);
                    let (verdict, comparing, accepted) = (None, None, Vec::new());
                    let (by, carried, shows) = (by(*id), *carried, self.shows.len());
                    let made = Conversion {
                        by,
                        generation,
                        old,
                        version,
                        from_ms,
                        shows,
                        carried,
                        verdict,
                        comparing,
                        accepted,
                    };
                    self.conversions.push(made);
                }
            }
            Action::Verified { id, attempt, closed_ms, differing, known } => {
                let (attempt, closed_ms, differing, known) = (*attempt, *closed_ms, *differing, *known);
                if let Some(conversion) = self.named(*id) {
                    let at_ms = record.at_ms;
                    conversion.verdict = Some(Verdict { attempt, at_ms, known, closed_ms, differing });
                    conversion.comparing = None;
                }
            }
            Action::Agrees { id, attempt, closed_ms, origin, before_day, known } => {
                if let Some(conversion) = self.named(*id) {
                    let (attempt, closed_ms, known, at_ms) = (*attempt, *closed_ms, *known, record.at_ms);
                    let begun = conversion.comparing.take().filter(|begun| begun.attempt == attempt);
                    let new = Comparing { attempt, known, at_ms, closed_ms, agreed: BTreeMap::new() };
                    let comparing = conversion.comparing.insert(begun.unwrap_or(new));
                    comparing.at_ms = at_ms;
                    comparing.agreed.insert(origin.clone(), *before_day);
                }
            }
            Action::DifferenceAccepted { id, dimension } => {
                if let Some(conversion) = self.named(*id) {
                    conversion.accepted.push((dimension.clone(), by(*id)));
                }
            }
            Action::Show { id, generation, at_ms, hold_ms } if self.may_show(*generation) => {
                let (generation, at_ms, hold_ms, shown_ms) = (*generation, *at_ms, *hold_ms, None);
                self.shows.push(Show { by: by(*id), generation, at_ms, hold_ms, shown_ms });
            }
            Action::Shown { id } => {
                if let Some(show) = self.shows.last_mut().filter(|show| show.by.id == *id && show.shown_ms.is_none()) {
                    show.shown_ms = Some(record.at_ms);
                }
            }
            Action::NotShown { id } => {
                self.shows.pop_if(|show| show.by.id == *id && show.shown_ms.is_none());
            }
            Action::Drop { id, generation } => {
                let goes = self.alive().contains(generation) && self.in_use() != *generation;
                if goes && self.pending().is_none_or(|show| show.generation != *generation) {
                    self.drops.push((*generation, by(*id), false));
                }
            }
            Action::Dropped { generation } => {
                let of = |(dropped, ..): &&mut (Number, Decision, bool)| dropped == generation;
                if let Some((.., done)) = self.drops.iter_mut().find(of) {
                    *done = true;
                }
            }
            _ => return false,
        }
        true
    }

    fn may_show(&self, generation: Number) -> bool {
        self.pending().is_none() && self.in_use() != generation && self.alive().contains(&generation)
    }

    fn named(&mut self, id: i64) -> Option<&mut Conversion> {
        self.conversions.iter_mut().find(|conversion| conversion.by.id == id)
    }

    /// The one that the public views show.
    pub fn in_use(&self) -> Number {
        self.shows.iter().rev().find(|show| show.shown_ms.is_some()).and_then(|show| show.generation)
    }

    /// What is to be shown as soon as it can be.
    pub fn pending(&self) -> Option<&Show> {
        self.shows.last().filter(|show| show.shown_ms.is_none())
    }

    /// Those that have runs, ascending: all that nobody has said to drop.
    pub fn alive(&self) -> Vec<Number> {
        let made = self.conversions.iter().map(|conversion| Some(conversion.generation));
        let goes = |number: &Number| self.drops.iter().any(|(dropped, ..)| dropped == number);
        [None].into_iter().chain(made).filter(|number| !goes(number)).collect()
    }

    /// The conversion that is not over: both of its generations are alive.
    pub fn under_way(&self) -> Option<&Conversion> {
        let alive = self.alive();
        self.conversions
            .last()
            .filter(|conversion| alive.contains(&Some(conversion.generation)) && alive.contains(&conversion.old))
    }

    /// The other generation of the conversion that is under way, than the one in use: it is filled, or held.
    pub fn shadow(&self) -> Option<Number> {
        let conversion = self.under_way()?;
        let new = Some(conversion.generation);
        Some(if self.in_use() == new { conversion.old } else { new })
    }

    /// While the conversion lasts: until when the generation that is not in use is kept, as one that was shown since the
    /// conversion began.
    pub fn held_until_ms(&self) -> Option<i64> {
        let conversion = self.under_way()?;
        let since = self.shows.get(conversion.shows..)?;
        let (last, shown_ms) = since.iter().rev().find_map(|show| Some((show, show.shown_ms?)))?;
        // The new one that is not shown any more is nobody's way back.
        let is_way_back = self.shadow() == Some(conversion.old);
        Some(shown_ms + if is_way_back { last.hold_ms.max(DROP_AFTER_MS) } else { DROP_AFTER_MS })
    }

    /// Before this nothing is taken away, by the clock of whoever has shown another generation last.
    pub fn drops_from_ms(&self) -> Option<i64> {
        Some(self.shows.iter().rev().find_map(|show| show.shown_ms)? + DROP_AFTER_MS)
    }

    pub fn roles(&self) -> Roles {
        Roles { in_use: self.in_use(), shadow: self.shadow() }
    }

    /// The version of a generation; `None`: there is no such generation, or of the first it is not recorded yet, or the rules
    /// that it pins are not in this binary any more.
    pub fn version(&self, number: Number) -> Option<SchemaVersion> {
        let text = match number {
            None => self.first.as_ref()?,
            Some(_) => &self.made(number)?.version,
        };
        let name = number.map_or_else(|| "the first generation".to_owned(), |number| format!("generation {number}"));
        SchemaVersion::parse(text, &format!("the version of {name}")).ok()
    }

    /// The conversion that has made a generation; `None` of the first.
    pub fn made(&self, number: Number) -> Option<&Conversion> {
        self.conversions.iter().find(|conversion| Some(conversion.generation) == number)
    }
}

/// The run of live events beside the one in use.
pub const SHADOW: &str = "shadow";

/// Which run is meant by a role, and the other way round.
///
/// | run | role, while its generation is in use | role of the other generation |
/// |---|---|---|
/// | `live`, `v2-live` | `live` | `shadow` |
/// | `gap`, `v2-gap` | `gap` | `shadow-gap` |
/// | `v2-carried` | `carried` | `shadow-carried` |
/// | `import-x`, `v2-import-x` | `import-x` | `shadow-import-x` |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    in_use: Number,
    shadow: Option<Number>,
}

impl Roles {
    /// The run of this role; a run's own name is taken, too. `None`: there is no shadow.
    pub fn run(&self, role: &str) -> Option<String> {
        if kind_of(role).0.is_some() {
            return Some(role.to_owned());
        }
        match role.strip_prefix(SHADOW) {
            None => Some(run_of(self.in_use, role)),
            Some("") => self.shadow.map(|number| run_of(number, "live")),
            Some(kind) => self.shadow.map(|number| run_of(number, kind.trim_start_matches('-'))),
        }
    }

    /// What people call a run now. That of a generation that is gone is nobody's.
    pub fn role(&self, run: &str) -> String {
        match kind_of(run) {
            (number, kind) if number == self.in_use => kind.to_owned(),
            (number, "live") if self.shadow == Some(number) => SHADOW.to_owned(),
            (number, kind) if self.shadow == Some(number) => format!("{SHADOW}-{kind}"),
            (None, kind) => format!("gone-{kind}"),
            _ => run.to_owned(),
        }
    }
}

/// The control records as those read them who know roles alone: with the role in place of each run's name.
///
/// What was decided about a run at work (a pause, its speed) is the role's: it was said of whoever had it then. What was
/// decided about what is in a run's table stays with the run, and gets the role that it has now.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub generations: Generations,
    pub roles: Roles,
    pub replacements: Replacements,
    /// In their order.
    pub control: Vec<ControlRecord>,
}

impl World {
    /// How the run of this name is held.
    pub fn hold(&self, run: &str) -> Hold {
        Hold::of(&self.roles.role(run), &self.control)
    }

    /// What was decided about the run of this name when it had stopped.
    pub fn recoveries(&self, run: &str) -> Recoveries {
        Recoveries::of(&self.roles.role(run), &self.control)
    }

    pub fn of<'a>(control: impl IntoIterator<Item = &'a ControlRecord>) -> World {
        let control: Vec<&ControlRecord> = control.into_iter().collect();
        let mut world = World { replacements: Replacements::of(control.iter().copied()), ..World::default() };
        for record in control {
            if world.generations.fold(record) {
                world.roles = world.generations.roles();
            }
            let roles = world.roles;
            let mut record = record.clone();
            match &mut record.action {
                Action::Pause { run, .. }
                | Action::Paused { run, .. }
                | Action::Resume { run, .. }
                | Action::Resumed { run, .. }
                | Action::CaughtUp { run, .. }
                | Action::Throttle { run, .. } => *run = roles.role(run),
                _ => {}
            }
            world.control.push(record);
        }
        for record in &mut world.control {
            if let Action::Recover { run, .. } | Action::Recovered { run, .. } = &mut record.action {
                *run = world.roles.role(run);
            }
        }
        world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = include_str!("../versions/v1.toml");

    fn said(actions: impl IntoIterator<Item = Action>) -> Vec<ControlRecord> {
        let record = |(at, action)| ControlRecord { at_ms: at as i64, who: "ops".into(), reason: "r".into(), action };
        actions.into_iter().enumerate().map(record).collect()
    }

    fn started(id: i64, generation: u32) -> Action {
        Action::ConversionStarted { id, generation, version: V2.into(), from_ms: 0, carried: None }
    }

    fn show(id: i64, generation: Number) -> [Action; 2] {
        [Action::Show { id, generation, at_ms: 60_000, hold_ms: 5 }, Action::Shown { id }]
    }

    fn drop(generation: Number) -> Action {
        Action::Drop { id: 9, generation }
    }

    #[test]
    fn the_first_generation_is_of_the_version_that_was_said_first_and_of_none_that_nobody_has_said() {
        let first = |version: &str| Action::FirstGeneration { version: version.into() };
        let of = |actions: &[Action]| Generations::of(&said(actions.to_vec())).version(None);
        let other = V2.replace("number = 1\n", "number = 7\n");
        assert_eq!(of(&[started(1, 2)]), None);
        assert_eq!(of(&[first(V2), started(1, 2), first(&other)]).map(|version| version.number), Some(1));
        assert_eq!(of(&[started(1, 2), first(&other)]).map(|version| version.number), Some(7), "an older weir began");
    }

    /// (in use, shadow, alive)
    fn state(actions: &[Action]) -> (Number, Option<Number>, Vec<Number>) {
        let all = Generations::of(&said(actions.to_vec()));
        (all.in_use(), all.shadow(), all.alive())
    }

    #[test]
    fn a_runs_name_says_its_generation_and_kind() {
        for (number, kind, run) in
            [(None, "live", "live"), (Some(2), "live", "v2-live"), (Some(12), "import-v2-x", "v12-import-v2-x")]
        {
            assert_eq!(run_of(number, kind), run);
            assert_eq!(kind_of(run), (number, kind));
        }
        for run in ["import-v2-x", "v-live", "vx-live", "v2"] {
            assert_eq!(kind_of(run), (None, run));
        }
    }

    #[test]
    fn a_conversion_ends_swapped_or_as_before() {
        let both = vec![None, Some(2)];
        let mut all = vec![started(1, 2)];
        assert_eq!(state(&all), (None, Some(Some(2)), both.clone()));
        let as_before = [all.clone(), vec![drop(Some(2))]].concat();
        assert_eq!(state(&as_before), (None, None, vec![None]));
        let show_new = show(2, Some(2));
        all.push(show_new[0].clone());
        assert_eq!(state(&all), (None, Some(Some(2)), both.clone()), "it has not taken effect");
        all.push(show_new[1].clone());
        assert_eq!(state(&all), (Some(2), Some(None), both.clone()));
        let back = [all.clone(), show(3, None).to_vec()].concat();
        assert_eq!(state(&back), (None, Some(Some(2)), both.clone()));
        let again = [back, show(4, Some(2)).to_vec()].concat();
        assert_eq!(state(&again), (Some(2), Some(None), both));
        all.push(drop(None));
        assert_eq!(state(&all), (Some(2), None, vec![Some(2)]));
        // The next one, and a number that was used is not used again.
        all.extend([started(5, 2), started(6, 3)]);
        assert_eq!(state(&all), (Some(2), Some(Some(3)), vec![Some(2), Some(3)]));
        assert_eq!(Generations::of(&said(all)).under_way().unwrap().old, Some(2));
    }

    #[test]
    fn what_cannot_be_is_not() {
        let none = (None, None, vec![None]);
        assert_eq!(state(&show(1, Some(2))), none, "there is no such generation");
        assert_eq!(state(&[drop(None)]), none, "it is in use");
        let under_way = (None, Some(Some(2)), vec![None, Some(2)]);
        assert_eq!(state(&[started(1, 2), started(2, 3)]), under_way, "one at a time");
        let pending = Action::Show { id: 3, generation: Some(2), at_ms: 0, hold_ms: 0 };
        assert_eq!(state(&[started(1, 2), pending.clone(), drop(Some(2))]), under_way, "it is about to be shown");
        let withdrawn = [started(1, 2), pending, Action::NotShown { id: 3 }, Action::Shown { id: 3 }];
        assert_eq!(state(&withdrawn), under_way, "of two the first counts");
    }

    #[test]
    fn what_was_shown_is_held_as_the_way_back_and_what_is_not_shown_any_more_for_the_queries_that_read_it() {
        let held_until_ms = |actions: &[Action]| Generations::of(&said(actions.to_vec())).held_until_ms();
        let show =
            |id: i64, generation, hold_ms| [Action::Show { id, generation, at_ms: 0, hold_ms }, Action::Shown { id }];
        let long_ms = 3 * DROP_AFTER_MS;
        let mut all = vec![started(1, 2)];
        assert_eq!(held_until_ms(&all), None);
        let [ordered, shown] = show(2, Some(2), long_ms);
        all.push(ordered);
        assert_eq!(held_until_ms(&all), None, "it has not taken effect");
        all.push(shown);
        // Each record is written a millisecond after the one before.
        assert_eq!(held_until_ms(&all), Some(2 + long_ms));
        all.extend(show(3, None, long_ms));
        assert_eq!(held_until_ms(&all), Some(4 + DROP_AFTER_MS));
        all.extend(show(4, Some(2), 0));
        assert_eq!(held_until_ms(&all), Some(6 + DROP_AFTER_MS), "queries may still read it");
        all.push(drop(None));
        assert_eq!(held_until_ms(&all), None);
        all.push(started(5, 3));
        assert_eq!(held_until_ms(&all), None, "that was another conversion");
    }

    #[test]
    fn a_comparison_that_is_not_over_keeps_what_agreed_and_a_later_attempt_begins_anew() {
        let agrees = |attempt, origin: &str, before_day| {
            let origin = origin.to_owned();
            Action::Agrees { id: 1, attempt, closed_ms: 9, origin, before_day, known: 7 }
        };
        let comparing = |actions: &[Action]| {
            let comparing = Generations::of(&said(actions.to_vec())).conversions.remove(0).comparing;
            comparing.map(|of| (of.attempt, of.known, of.at_ms, of.agreed.into_iter().collect::<Vec<_>>()))
        };
        let mut all = vec![started(1, 2), agrees(5, "", Some(3)), agrees(5, "", None), agrees(5, "x", Some(4))];
        let agreed = vec![(String::new(), None), ("x".to_owned(), Some(4))];
        assert_eq!(comparing(&all), Some((5, 7, 3, agreed)));
        all.push(agrees(6, "", Some(2)));
        assert_eq!(comparing(&all), Some((6, 7, 4, vec![(String::new(), Some(2))])));
        all.push(Action::Verified { id: 1, attempt: 6, closed_ms: 9, differing: 0, known: 7 });
        assert_eq!(comparing(&all), None, "it is over");
    }

    #[test]
    fn roles_and_runs_are_each_others_inverse() {
        let roles = |in_use, shadow| Roles { in_use, shadow };
        for (roles, run, role) in [
            (roles(None, None), "live", "live"),
            (roles(None, Some(Some(2))), "v2-live", "shadow"),
            (roles(None, Some(Some(2))), "v2-import-x", "shadow-import-x"),
            (roles(None, Some(Some(2))), "v2-carried", "shadow-carried"),
            (roles(Some(2), Some(None)), "v2-carried", "carried"),
            (roles(Some(2), Some(None)), "v2-live", "live"),
            (roles(Some(2), Some(None)), "live", "shadow"),
            (roles(Some(2), Some(None)), "import-x", "shadow-import-x"),
            (roles(Some(2), Some(None)), "v2-gap", "gap"),
        ] {
            assert_eq!(roles.role(run), role);
            assert_eq!(roles.run(role).as_deref(), Some(run));
        }
        assert_eq!(roles(None, None).run("shadow"), None);
        assert_eq!(roles(Some(2), None).role("live"), "gone-live");
        assert_eq!(roles(None, None).role("v2-live"), "v2-live");
    }

    #[test]
    fn a_pause_is_the_roles_that_was_held_then_and_a_recovery_the_runs() {
        let pause = |id, run: &str| Action::Pause { run: run.into(), id, until_ms: None, allow_loss: false };
        let resume = |id, run: &str| Action::Resume { run: run.into(), id, left_to_ms: None };
        let recover = |run: &str| Action::Recovered { run: run.into(), id: 1 };
        let mut all = vec![pause(1, "live"), resume(2, "live"), recover("live"), started(3, 2), pause(4, "v2-live")];
        all.extend([resume(5, "v2-live"), recover("v2-live")]);
        all.extend(show(6, Some(2)));
        all.extend([pause(7, "v2-live"), pause(8, "live")]);
        let world = World::of(&said(all));
        let runs = world.control.iter().filter_map(|record| match &record.action {
            Action::Pause { run, .. } | Action::Resume { run, .. } | Action::Recovered { run, .. } => {
                Some(run.as_str())
            }
            _ => None,
        });
        assert_eq!(runs.collect::<Vec<_>>(), ["live", "live", "shadow", "shadow", "shadow", "live", "live", "shadow"]);
    }
}
