use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_schemas::{
    Hold, Missing, Pause, Recoveries,
    control::{Action, ControlRecord, EtaKept, GAP_RUN, import_run},
};

use crate::{RunStatus, snapshot::LIVE, words};

/// One maintenance: a pause from its begin to the end of its catch-up, with the plan that announced it, or a plan alone.
/// Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Of the plan that announced it, else of the pause.
    pub id: i64,
    pub state: MaintenanceState,
    /// The run that is paused; `None`: nothing was paused yet.
    pub run: Option<String>,
    pub who: String,
    pub reason: String,
    /// When it was first told of.
    pub announced_ms: i64,
    pub begins_ms: i64,
    /// When it is planned to end; `None`: nobody has said.
    pub ends_ms: Option<i64>,
    /// From when to when it was announced, whenever it began; `None`: it was not.
    #[serde(default)]
    pub planned_ms: Option<(i64, i64)>,
    /// Everything before it was in the table when the run stopped; `None`: it has not stopped yet.
    pub paused_ms: Option<i64>,
    /// When the run was told to go on, and by whom.
    pub resumed_ms: Option<i64>,
    pub resumed_by: Option<String>,
    /// The run went on here, and what lies between is computed beside it.
    pub left_to_ms: Option<i64>,
    /// It was over, and a copy was brought back then that was made before the rest was filled: it is filled once more.
    #[serde(default)]
    pub again_ms: Option<(i64, i64)>,
    /// When it was over: caught up with, withdrawn, or past.
    pub over_ms: Option<i64>,
    /// It was over because the import that was paused was taken back.
    #[serde(default)]
    pub taken_back: bool,
    /// Some of what was to be counted after it was given up since.
    #[serde(default)]
    pub given_up: bool,
    pub eta: Option<EtaKept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaintenanceState {
    /// Announced, and still ahead.
    Planned,
    /// Its time has come: hits are collected, and are not counted if a run is named.
    UnderWay,
    /// The run is at work again, and has not caught up.
    CatchingUp,
    Over,
    Withdrawn,
}

/// A step of a maintenance, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub at_ms: i64,
    pub step: MaintenanceState,
    pub text: String,
}

impl Maintenance {
    /// Told apart from all others, also of other kinds.
    pub(crate) fn public_id(&self) -> String {
        format!("maintenance-{}", self.id)
    }

    pub(crate) fn title(&self) -> String {
        if self.reason.is_empty() { "Maintenance".to_owned() } else { format!("Maintenance: {}", self.reason) }
    }

    /// Where what is left to the gap run ends; `None`: nothing is, as of a pause that was over before a window was due.
    pub(crate) fn leaves_to_ms(&self) -> Option<i64> {
        self.left_to_ms.filter(|left_to_ms| self.paused_ms.is_none_or(|paused_ms| paused_ms < *left_to_ms))
    }

    /// What happened until now, oldest first.
    pub(crate) fn history(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut step = |at_ms, step, text| steps.push(Step { at_ms, step, text });
        if let Some((from_ms, to_ms)) = self.planned_ms {
            let time = |ms| words::time(ms, self.announced_ms);
            let text = format!("Announced for {} until {}. Hits are collected meanwhile.", time(from_ms), time(to_ms));
            step(self.announced_ms, MaintenanceState::Planned, text);
        }
        if let Some(run) = &self.run {
            let through = self
                .paused_ms
                .map(|ms| format!(" They are complete through {}.", words::time(ms, self.begins_ms)))
                .unwrap_or_default();
            let text = match run.as_str() {
                LIVE => format!("Statistics are paused, collecting hits is not.{through}"),
                run => format!("{}.", words::paused(run)),
            };
            step(self.begins_ms, MaintenanceState::UnderWay, text);
        }
        if let (Some(resumed_ms), Some(run)) = (self.resumed_ms, &self.run) {
            let text = match (run.as_str(), self.leaves_to_ms()) {
                (LIVE, Some(left_to_ms)) => format!(
                    "Statistics from {} on are computed again, those before are filled in beside them.",
                    words::time(left_to_ms, resumed_ms)
                ),
                (LIVE, None) => "Statistics are catching up.".to_owned(),
                (run, _) => format!("{}.", words::goes_on(run)),
            };
            step(resumed_ms, MaintenanceState::CatchingUp, text);
        }
        if let Some((was_over_ms, again_ms)) = self.again_ms {
            step(was_over_ms, MaintenanceState::Over, "Everything is counted.".to_owned());
            let text = "A copy was brought back that lacks what had been left: it is filled in again.";
            step(again_ms, MaintenanceState::CatchingUp, text.to_owned());
        }
        if let Some(over_ms) = self.over_ms {
            let text = match (self.state, &self.run) {
                (MaintenanceState::Withdrawn, _) => "It was withdrawn.",
                _ if self.taken_back => "The import was taken back: nothing of it is counted.",
                (_, Some(_)) if self.given_up => "It is over; a part was given up, and will not be counted.",
                (_, Some(_)) => "Everything is counted.",
                (_, None) => "It is over; nothing was paused for it.",
            };
            step(over_ms, self.state, text.to_owned());
        }
        steps
    }
}

/// A pause of live belongs to a plan also when somebody begins this much early.
const EARLY_MS: i64 = 30 * 60_000;

/// All maintenances that the control records of a [`weir_schemas::World`] tell of, the newest first. A pause of what runs beside the
/// generation in use is none.
pub fn maintenances(control: &[ControlRecord], now_ms: i64) -> Vec<Maintenance> {
    let mut all = plans(control);
    let undone = undone(control);
    let paused: BTreeSet<&str> = control
        .iter()
        .filter_map(|record| match &record.action {
            Action::Pause { run, .. } => Some(run.as_str()).filter(|run| !RunStatus::is_role_beside(run)),
            _ => None,
        })
        .collect();
    for run in paused {
        let gone_ms = undone.get(run).copied();
        // What the gap run gives up is live's, too.
        let missing = Recoveries::missing_of(if run == GAP_RUN { LIVE } else { run }, control);
        for pause in Hold::of(run, control).pauses {
            // What is announced to users is that of live: another run's is a maintenance of its own.
            let mine = |plan: &&mut Maintenance| {
                run == LIVE
                    && plan.run.is_none()
                    && plan.state == MaintenanceState::Planned
                    // One that was over before anybody announced it is another one.
                    && plan.announced_ms <= pause.by.at_ms
                    && (plan.begins_ms - EARLY_MS..plan.ends_ms.unwrap_or(i64::MAX)).contains(&pause.by.at_ms)
            };
            match all.iter_mut().find(mine) {
                Some(plan) => {
                    let ends_ms = pause.until_ms.or(plan.ends_ms);
                    let Maintenance { id, announced_ms, planned_ms, .. } = *plan;
                    *plan = Maintenance {
                        id,
                        announced_ms,
                        planned_ms,
                        ends_ms,
                        ..of_pause(run, pause, gone_ms, &missing)
                    };
                }
                None => all.push(of_pause(run, pause, gone_ms, &missing)),
            }
        }
    }
    for plan in all.iter_mut().filter(|plan| plan.state == MaintenanceState::Planned) {
        if plan.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms) {
            (plan.state, plan.over_ms) = (MaintenanceState::Over, plan.ends_ms);
        } else if plan.begins_ms <= now_ms {
            plan.state = MaintenanceState::UnderWay;
        }
    }
    all.sort_by_key(|maintenance| std::cmp::Reverse((maintenance.begins_ms, maintenance.id)));
    all
}

/// What was announced, whether or not anything was paused for it.
fn plans(control: &[ControlRecord]) -> Vec<Maintenance> {
    let mut plans: Vec<Maintenance> = Vec::new();
    for record in control {
        match record.action {
            Action::MaintenancePlanned { id, begins_ms, ends_ms } => plans.push(Maintenance {
                id,
                state: MaintenanceState::Planned,
                run: None,
                who: record.who.clone(),
                reason: record.reason.clone(),
                announced_ms: record.at_ms,
                begins_ms,
                ends_ms: Some(ends_ms),
                planned_ms: Some((begins_ms, ends_ms)),
                paused_ms: None,
                resumed_ms: None,
                resumed_by: None,
                left_to_ms: None,
                again_ms: None,
                over_ms: None,
                taken_back: false,
                given_up: false,
                eta: None,
            }),
            Action::MaintenanceCancelled { id: of, .. } => {
                let withdrawn = |plan: &&mut Maintenance| plan.id == of && plan.state == MaintenanceState::Planned;
                for plan in plans.iter_mut().filter(withdrawn) {
                    (plan.state, plan.over_ms) = (MaintenanceState::Withdrawn, Some(record.at_ms));
                }
            }
            _ => {}
        }
    }
    plans
}

/// When the imports of runs that are no more had been taken back.
fn undone(control: &[ControlRecord]) -> BTreeMap<String, i64> {
    let undone = |record: &ControlRecord| match &record.action {
        Action::ImportUndone { id } => Some((import_run(id), record.at_ms)),
        _ => None,
    };
    control.iter().filter_map(undone).collect()
}

/// `gone_ms`: there is no such run any more since then, and nobody ends what was ordered for it.
fn of_pause(run: &str, pause: Pause, gone_ms: Option<i64>, missing: &[Missing]) -> Maintenance {
    let resume = pause.resume.as_ref();
    let caught_up_ms = resume.and_then(|resume| resume.caught_up_ms);
    let over_ms = caught_up_ms.or(gone_ms);
    let after = pause.paused_ms.zip(over_ms);
    let was_after = |missing: &Missing| after.is_some_and(|(from, to)| missing.from_ms < to && from < missing.to_ms);
    Maintenance {
        id: pause.by.id,
        state: match (resume, over_ms) {
            (_, Some(_)) => MaintenanceState::Over,
            (None, None) => MaintenanceState::UnderWay,
            (Some(_), None) => MaintenanceState::CatchingUp,
        },
        taken_back: caught_up_ms.is_none() && gone_ms.is_some(),
        given_up: missing.iter().any(was_after),
        run: Some(run.to_owned()),
        announced_ms: pause.by.at_ms,
        begins_ms: pause.by.at_ms,
        ends_ms: pause.until_ms,
        planned_ms: None,
        paused_ms: pause.paused_ms,
        resumed_ms: resume.map(|resume| resume.by.at_ms),
        resumed_by: resume.map(|resume| resume.by.who.clone()),
        left_to_ms: resume.and_then(|resume| resume.left_to_ms),
        again_ms: resume.and_then(|resume| resume.again_ms),
        over_ms,
        eta: resume.and_then(|resume| resume.eta),
        who: pause.by.who,
        reason: pause.by.reason,
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::Repair;

    use super::*;

    fn fold(actions: &[(i64, Action)], now_ms: i64) -> Vec<Maintenance> {
        let record = |(at_ms, action): &(i64, Action)| ControlRecord {
            at_ms: *at_ms,
            who: "ops".into(),
            reason: "a disk".into(),
            action: action.clone(),
        };
        maintenances(&actions.iter().map(record).collect::<Vec<_>>(), now_ms)
    }

    fn pause(at_ms: i64) -> (i64, Action) {
        (at_ms, Action::Pause { run: "live".into(), id: at_ms, until_ms: None, allow_loss: false })
    }

    fn resume(at_ms: i64) -> (i64, Action) {
        (at_ms, Action::Resume { run: "live".into(), id: at_ms, left_to_ms: Some(at_ms) })
    }

    fn caught_up(at_ms: i64, id: i64) -> (i64, Action) {
        (at_ms, Action::CaughtUp { run: "live".into(), id, eta: None })
    }

    fn planned(at_ms: i64, begins_ms: i64) -> (i64, Action) {
        (at_ms, Action::MaintenancePlanned { id: at_ms, begins_ms, ends_ms: begins_ms + 1_000 })
    }

    fn states(all: &[Maintenance]) -> Vec<(i64, MaintenanceState, Option<i64>)> {
        all.iter().map(|maintenance| (maintenance.id, maintenance.state, maintenance.over_ms)).collect()
    }

    #[test]
    fn a_maintenance_begins_with_its_pause_and_ends_with_its_catch_up_not_with_its_resume() {
        let mut said = vec![pause(10)];
        assert_eq!(states(&fold(&said, 20)), [(10, MaintenanceState::UnderWay, None)]);
        said.push(resume(30));
        let all = fold(&said, 40);
        assert_eq!(states(&all), [(10, MaintenanceState::CatchingUp, None)]);
        assert_eq!((all[0].resumed_ms, all[0].left_to_ms), (Some(30), Some(30)));
        said.push(caught_up(50, 30));
        assert_eq!(states(&fold(&said, 60)), [(10, MaintenanceState::Over, Some(50))]);
    }

    #[test]
    fn a_pause_in_its_time_keeps_to_the_plan_and_another_one_is_a_maintenance_of_its_own() {
        let first = 10_000_000;
        let said =
            [planned(1, first), pause(first + 5), resume(first + 6), caught_up(first + 7, first + 6), pause(first + 8)];
        let all = fold(&said, first + 9);
        assert_eq!(
            states(&all),
            [(first + 8, MaintenanceState::UnderWay, None), (1, MaintenanceState::Over, Some(first + 7))]
        );
        assert_eq!((all[1].announced_ms, all[1].begins_ms, all[1].ends_ms), (1, first + 5, Some(first + 1_000)));
        let early = fold(&[planned(1, first), pause(first - EARLY_MS - 1)], first);
        assert_eq!(early.len(), 2, "that is not it: {early:?}");
    }

    #[test]
    fn one_that_begins_early_is_told_to_have_been_announced_for_when_it_was() {
        let first = 10_000_000;
        let until = first + 600_000;
        let plan = (1, Action::MaintenancePlanned { id: 1, begins_ms: first, ends_ms: first + 1_000 });
        let early = Action::Pause { run: "live".into(), id: 2, until_ms: Some(until), allow_loss: false };
        let all = fold(&[plan, (first - 600_000, early)], first);
        assert_eq!((all[0].begins_ms, all[0].ends_ms), (first - 600_000, Some(until)));
        assert_eq!(all[0].planned_ms, Some((first, first + 1_000)));
        let announced = all[0].history()[0].text.clone();
        expect_test::expect!["Announced for 02:46 UTC until 02:46 UTC. Hits are collected meanwhile."]
            .assert_eq(&announced);
        assert!(!fold(&[pause(10)], 20)[0].history()[0].text.contains("Announced"));
    }

    #[test]
    fn a_pause_from_before_a_plan_was_announced_is_not_the_one_that_was_announced() {
        let said = [pause(10), resume(20), caught_up(30, 20), planned(40, 1_000)];
        let all = fold(&said, 50);
        assert_eq!(states(&all), [(40, MaintenanceState::Planned, None), (10, MaintenanceState::Over, Some(30))]);
    }

    #[test]
    fn a_plan_is_lives_and_not_that_of_another_run_that_is_paused_meanwhile() {
        let begins_ms = 10_000_000;
        let of_import =
            |at_ms| (at_ms, Action::Pause { run: "import-a".into(), id: at_ms, until_ms: None, allow_loss: false });
        let mut said = vec![planned(1, begins_ms), of_import(begins_ms + 5)];
        let runs = |said: &[_]| -> Vec<_> {
            fold(said, begins_ms + 9).into_iter().map(|one| (one.id, one.run.unwrap_or_default())).collect()
        };
        let import = (begins_ms + 5, "import-a".to_owned());
        assert_eq!(runs(&said), [import.clone(), (1, String::new())]);
        said.push(pause(begins_ms + 6));
        assert_eq!(runs(&said), [(1, "live".to_owned()), import]);
    }

    #[test]
    fn what_was_paused_of_an_import_is_over_when_that_was_taken_back() {
        let pause =
            |at_ms, run: &str| (at_ms, Action::Pause { run: run.into(), id: at_ms, until_ms: None, allow_loss: false });
        let mut said = vec![pause(1, "import-x"), pause(2, "import-y"), pause(3, "import-z")];
        said.push((4, Action::Resume { run: "import-y".into(), id: 4, left_to_ms: None }));
        let undo = |id: &str| Action::ImportUndo { id: id.into() };
        said.extend([(5, undo("x")), (6, undo("y"))]);
        let (waits, goes_on) = (MaintenanceState::UnderWay, MaintenanceState::CatchingUp);
        assert_eq!(states(&fold(&said, 9)), [(3, waits, None), (2, goes_on, None), (1, waits, None)]);
        let undone = |id: &str| Action::ImportUndone { id: id.into() };
        said.extend([(7, undone("x")), (8, undone("y"))]);
        let all = fold(&said, 9);
        let over = MaintenanceState::Over;
        assert_eq!(states(&all), [(3, waits, None), (2, over, Some(8)), (1, over, Some(7))]);
        assert_eq!(all[2].history().last().unwrap().text, "The import was taken back: nothing of it is counted.");
    }

    #[test]
    fn a_plan_that_nobody_begins_is_past_when_its_time_is_and_a_withdrawn_one_stays_withdrawn() {
        let said = [planned(1, 5_000), planned(2, 5_000), (3, Action::MaintenanceCancelled { id: 2, order: None })];
        let withdrawn = (2, MaintenanceState::Withdrawn, Some(3));
        assert_eq!(states(&fold(&said, 4_999)), [withdrawn, (1, MaintenanceState::Planned, None)]);
        assert_eq!(states(&fold(&said, 5_000)), [withdrawn, (1, MaintenanceState::UnderWay, None)]);
        assert_eq!(states(&fold(&said, 6_000)), [withdrawn, (1, MaintenanceState::Over, Some(6_000))]);
    }

    #[test]
    fn what_was_paused_and_what_came_of_it_is_told_by_the_kind_of_run() {
        let steps = |run: &str, repair: Option<Repair>| -> Vec<String> {
            let of = || run.to_owned();
            let mut said = vec![
                (10, Action::Pause { run: of(), id: 10, until_ms: None, allow_loss: false }),
                (11, Action::Paused { run: of(), id: 10, through_ms: 5_000 }),
                (20, Action::Resume { run: of(), id: 20, left_to_ms: None }),
            ];
            said.extend(repair.map(|repair| (30, Action::Recover { run: of(), id: 30, repair, topic_is: None })));
            said.push((90_000, Action::CaughtUp { run: of(), id: 20, eta: None }));
            fold(&said, 100_000)[0].history().into_iter().map(|step| step.text).collect()
        };
        assert_eq!(
            steps(GAP_RUN, None),
            [
                "Filling in statistics that were left out is paused.",
                "Statistics that were left out are filled in again.",
                "Everything is counted."
            ]
        );
        assert_eq!(steps("import-a", None)[..2], ["Counting import-a is paused.", "import-a is counted again."]);
        let given_up = "It is over; a part was given up, and will not be counted.";
        for run in [LIVE, GAP_RUN] {
            let give_up = |from_ms| Some(Repair::GiveUp { from_ms, to_ms: from_ms + 1_000 });
            assert_eq!(steps(run, give_up(6_000))[2], given_up, "{run}");
            assert_eq!(steps(run, give_up(4_000))[2], "Everything is counted.", "{run}: before the pause");
        }
    }
}
