//! What operators have ordered to be replaced in a table by what a replay has computed, folded from the control topic.
//!
//! ```text
//!  Replace(days) ──▶ the rows of a day, what is recorded of it, the next day … ──▶ Replaced
//!       └── the two may differ meanwhile: no audit believes what it finds of these days ──┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use crate::{
    Repair,
    control::{Action, ControlRecord, GAP_RUN},
    generation::kind_of,
    hold::Decision,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    pub by: Decision,
    pub generation: u32,
    /// Days (UTC) since the Unix epoch, ascending.
    pub days: Vec<i64>,
    /// The control record, counted from 0, with which it was over; `None`: it is under way, or was cut short.
    pub over: Option<usize>,
    /// When that was, if all of it was done, ms since the Unix epoch.
    pub done_ms: Option<i64>,
}

impl Replacement {
    /// Whether one of its days has a part of `[from_ms, to_ms)`.
    pub fn reaches_into(&self, from_ms: i64, to_ms: i64) -> bool {
        let of = days_of(from_ms, to_ms);
        self.days.iter().any(|day| of.contains(day))
    }
}

/// The days (UTC, since the Unix epoch) that have a part of `[from_ms, to_ms)`, which is not empty.
pub fn days_of(from_ms: i64, to_ms: i64) -> RangeInclusive<i64> {
    from_ms.div_euclid(DAY_MS)..=(to_ms - 1).div_euclid(DAY_MS)
}

/// Whether all of the day lies in `[from_ms, to_ms)`.
fn is_within(day: i64, from_ms: i64, to_ms: i64) -> bool {
    from_ms <= day * DAY_MS && (day + 1) * DAY_MS <= to_ms
}

/// All replacements of live rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replacements {
    /// Oldest first, and after them what recoveries have left of some.
    pub all: Vec<Replacement>,
    /// By generation: after how many that were not done every row was compared ([`Action::Audited`]).
    audited: BTreeMap<u32, usize>,
}

impl Replacements {
    /// By all control records in their order.
    ///
    /// Beside [`Action::Replaced`] two things end one: a copy that was brought back, since the table is that one's; and a
    /// recovery of live, or of the gap run, for the days all of whose windows it takes back or gives up, since these are
    /// theirs again. The days that it leaves stay open, as a replacement of their own.
    ///
    /// `control`: with the runs' own names, not their roles: whose recovery it is says the name.
    pub fn of<'a>(control: impl IntoIterator<Item = &'a ControlRecord>) -> Replacements {
        let mut all: Vec<Replacement> = Vec::new();
        let mut audited: BTreeMap<u32, usize> = BTreeMap::new();
        let mut made: BTreeSet<u32> = BTreeSet::new();
        for (number, record) in control.into_iter().enumerate() {
            let mut end = |which: &dyn Fn(&Replacement, i64) -> bool, done_ms: Option<i64>| {
                let mut rests = Vec::new();
                for open in all.iter_mut().filter(|one| one.over.is_none()) {
                    let (ended, rest): (Vec<i64>, Vec<i64>) = open.days.iter().partition(|day| which(open, **day));
                    if ended.is_empty() {
                        continue;
                    }
                    if !rest.is_empty() {
                        rests.push(Replacement { days: rest, ..open.clone() });
                    }
                    (open.days, open.over, open.done_ms) = (ended, Some(number), done_ms);
                }
                all.append(&mut rests);
            };
            match &record.action {
                Action::Replaced { id, done } => end(&|one, _| one.by.id == *id, done.then_some(record.at_ms)),
                Action::BackupRestored { .. } => end(&|_, _| true, None),
                Action::ConversionStarted { generation, .. } => drop(made.insert(*generation)),
                Action::Recover { run, repair, .. } if matches!(kind_of(run).1, "live" | GAP_RUN) => {
                    let (from_ms, to_ms) = match *repair {
                        Repair::AskAgain { from_ms } => (from_ms, i64::MAX),
                        Repair::GiveUp { from_ms, to_ms } => (from_ms, to_ms),
                        Repair::GoOn | Repair::Mend => continue,
                    };
                    // The first generation's runs have no number in their names, and no conversion has made it.
                    let is_its = |one: &Replacement| match kind_of(run).0 {
                        Some(number) => one.generation == number,
                        None => !made.contains(&one.generation),
                    };
                    end(&|one, day| is_its(one) && is_within(day, from_ms, to_ms), None);
                }
                // One that comes again, by its id, changes nothing.
                Action::Replace { id, generation, days } if all.iter().all(|one| one.by.id != *id) => {
                    let (at_ms, who, reason) = (record.at_ms, record.who.clone(), record.reason.clone());
                    let by = Decision { id: *id, at_ms, who, reason };
                    let (generation, days) = (*generation, days.clone());
                    all.push(Replacement { by, generation, days, over: None, done_ms: None });
                }
                Action::Audited { generation, undone } => {
                    let after = audited.entry(*generation).or_default();
                    *after = (*undone).max(*after);
                }
                _ => {}
            }
        }
        Replacements { all, audited }
    }

    /// Those that are not over.
    pub fn open(&self) -> impl Iterator<Item = &Replacement> {
        self.all.iter().filter(|one| one.over.is_none())
    }

    /// How many of a generation are over and were not done: their days may be replaced in part.
    pub fn undone(&self, generation: u32) -> usize {
        let undone = |one: &&Replacement| one.over.is_some() && one.done_ms.is_none();
        self.all.iter().filter(undone).filter(|one| one.generation == generation).count()
    }

    /// The same, if not every row was compared since.
    pub fn unaudited(&self, generation: u32) -> Option<usize> {
        let audited = self.audited.get(&generation).copied().unwrap_or(0);
        Some(self.undone(generation)).filter(|undone| *undone > audited)
    }

    /// Those that were not over at some time since there were `known` control records.
    pub fn open_since(&self, known: usize) -> impl Iterator<Item = &Replacement> {
        self.all.iter().filter(move |one| one.over.is_none_or(|over| over >= known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replacements(actions: &[Action]) -> Replacements {
        let at = |(at_ms, action): (usize, &Action)| ControlRecord {
            at_ms: at_ms as i64,
            who: "ops".into(),
            reason: "a disk".into(),
            action: action.clone(),
        };
        let records: Vec<_> = actions.iter().enumerate().map(at).collect();
        Replacements::of(&records)
    }

    fn replace(id: i64, days: &[i64]) -> Action {
        Action::Replace { id, generation: 1, days: days.to_vec() }
    }

    fn replaced(id: i64, done: bool) -> Action {
        Action::Replaced { id, done }
    }

    fn recover(run: &str, repair: Repair) -> Action {
        Action::Recover { run: run.into(), id: 9, repair, topic_is: None }
    }

    fn open(actions: &[Action]) -> Vec<i64> {
        replacements(actions).open().map(|one| one.by.id).collect()
    }

    #[test]
    fn a_recovery_ends_replacements_of_its_own_generation_alone() {
        let version = String::new();
        let converted = Action::ConversionStarted { id: 1, generation: 2, version, from_ms: 0, carried: None };
        let of = |id, generation| Action::Replace { id, generation, days: vec![3] };
        let begun = [converted, of(5, 1), of(6, 2)];
        let again = Repair::AskAgain { from_ms: 0 };
        let left = |run: &str| open(&[&begun[..], &[recover(run, again.clone())]].concat());
        assert_eq!([left("live"), left("gap"), left("v2-live"), left("v2-gap")], [[6], [6], [5], [5]]);
        assert_eq!(left("v2-import-x"), [5, 6]);
    }

    #[test]
    fn a_replacement_is_open_until_it_was_done_and_an_audit_that_began_before_that_is_not_believed() {
        let said = [replace(1, &[3, 5]), Action::Recovered { run: "live".into(), id: 4 }, replaced(1, true)];
        assert_eq!(open(&said[..2]), [1]);
        let all = replacements(&said);
        assert_eq!((all.open().count(), all.all[0].done_ms), (0, Some(2)));
        let since = |known| all.open_since(known).count();
        assert_eq!([since(0), since(1), since(2), since(3)], [1, 1, 1, 0]);
        assert_eq!(open(&[replace(1, &[3]), replaced(2, true)]), [1]);
        assert_eq!(open(&[replace(1, &[3]), replaced(1, true), replace(1, &[3])]), [0_i64; 0]);
        let undone = replacements(&[replace(1, &[3]), replaced(1, false)]);
        assert_eq!((undone.open().count(), undone.all[0].done_ms), (0, None), "it is over, and was not done");
        let of = |all: &Replacements| [1, 2].map(|generation| all.undone(generation));
        assert_eq!((of(&undone), of(&all), of(&replacements(&said[..2]))), ([1, 0], [0, 0], [0, 0]));
    }

    #[test]
    fn one_that_was_not_done_is_unaudited_until_every_row_of_its_generation_was_compared_after_it() {
        let audited = |generation, undone| Action::Audited { generation, undone };
        let said = [
            (replace(1, &[3]), None),
            (replaced(1, false), Some(1)),
            (audited(2, 1), Some(1)),
            (audited(1, 1), None),
            (replace(2, &[3]), None),
            (replaced(2, false), Some(2)),
            // One that began before.
            (audited(1, 1), Some(2)),
            (audited(1, 2), None),
            (audited(1, 1), None),
        ];
        let actions: Vec<Action> = said.iter().map(|(action, _)| action.clone()).collect();
        for (number, (_, unaudited)) in said.iter().enumerate() {
            assert_eq!(replacements(&actions[..=number]).unaudited(1), *unaudited, "after {:?}", actions[number]);
        }
    }

    #[test]
    fn a_copy_that_is_brought_back_ends_all_of_it_and_a_recovery_the_days_that_are_within_it() {
        let (all, none): (&[i64], &[i64]) = (&[3, 5], &[]);
        let after = |action: Action| -> Vec<i64> {
            let all = replacements(&[replace(1, &[3, 5]), action]);
            all.open().flat_map(|one| one.days.clone()).collect()
        };
        assert_eq!(after(Action::BackupRestored { name: "n".into(), gaps: Vec::new() }), none);
        assert_eq!(after(recover("live", Repair::AskAgain { from_ms: 3 * DAY_MS })), none);
        assert_eq!(after(recover("live", Repair::AskAgain { from_ms: 4 * DAY_MS })), [3]);
        assert_eq!(after(recover("gap", Repair::AskAgain { from_ms: 3 * DAY_MS + 1 })), [3], "in part: not all of it");
        assert_eq!(after(recover("live", Repair::AskAgain { from_ms: 6 * DAY_MS })), all);
        assert_eq!(after(recover("live", Repair::GiveUp { from_ms: 0, to_ms: 4 * DAY_MS })), [5]);
        assert_eq!(after(recover("live", Repair::GiveUp { from_ms: 0, to_ms: 4 * DAY_MS - 1 })), all);
        assert_eq!(after(recover("live", Repair::GiveUp { from_ms: 4 * DAY_MS, to_ms: 5 * DAY_MS })), all);
        assert_eq!(after(recover("live", Repair::GoOn)), all);
        assert_eq!(after(recover("import-a", Repair::AskAgain { from_ms: 0 })), all);
    }

    #[test]
    fn what_a_recovery_leaves_of_one_is_ended_by_itself_and_what_it_took_is_not_done_with_it() {
        let again = recover("live", Repair::AskAgain { from_ms: 5 * DAY_MS });
        let said = [replace(1, &[3, 5]), again, replaced(1, true)];
        let left = replacements(&said[..2]);
        let days = |all: &Replacements, known| -> Vec<i64> {
            all.open_since(known).flat_map(|one| one.days.clone()).collect()
        };
        assert_eq!(
            (days(&left, 2), days(&left, 1)),
            (vec![3], vec![5, 3]),
            "an audit that began before is not believed"
        );
        let all = replacements(&said);
        assert_eq!(all.open().count(), 0);
        let done: Vec<_> = all.all.iter().map(|one| (one.days.clone(), one.done_ms)).collect();
        assert_eq!(done, [(vec![5], None), (vec![3], Some(2))]);
    }

    #[test]
    fn a_range_has_a_part_in_each_day_that_it_reaches_into() {
        assert_eq!(days_of(3 * DAY_MS, 5 * DAY_MS), 3..=4);
        let all = replacements(&[replace(1, &[3, 4, 6])]);
        let one = &all.all[0];
        assert!(one.reaches_into(5 * DAY_MS - 1, 5 * DAY_MS) && !one.reaches_into(5 * DAY_MS, 6 * DAY_MS));
    }
}
