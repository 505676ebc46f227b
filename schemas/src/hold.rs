//! What operators have decided about runs at work, folded from the control topic: pauses and speed.
//!
//! ```text
//!  Pause ──▶ Paused ──▶ Resume ──▶ Resumed ──▶ CaughtUp
//!    │ stops at a batch    │ goes on: in order, or today first   │ the maintenance is over
//! ```

use crate::{
    Recoveries, Repair, SHADOW,
    control::{Action, ControlRecord, EtaKept, GAP_RUN},
};

/// Thousandths of the time that a run works which nobody has slowed down.
pub const UNHINDERED_PERMILLE: u16 = 1000;

/// Those of a run beside live, of a gap or a generation that is not in use: live keeps its freshness.
pub const BESIDE_PERMILLE: u16 = 500;

/// A decision: when, by whom, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub id: i64,
    pub at_ms: i64,
    pub who: String,
    pub reason: String,
}

/// One pause of a run, from the decision to the end of its catch-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    pub by: Decision,
    pub until_ms: Option<i64>,
    pub allow_loss: bool,
    /// It took effect: everything before is in the table. A recovery that was ordered since moves it back.
    pub paused_ms: Option<i64>,
    pub resume: Option<Resume>,
}

/// How a pause was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    pub by: Decision,
    /// What lies before it and is not in the table is left to the gap run.
    pub left_to_ms: Option<i64>,
    /// It took effect: the run began here.
    pub resumed_ms: Option<i64>,
    /// When the run, and its gap, had caught up.
    pub caught_up_ms: Option<i64>,
    pub eta: Option<EtaKept>,
    /// When it had caught up, and when a copy was brought back that was made before the gap was filled: it is filled once
    /// more.
    pub again_ms: Option<(i64, i64)>,
}

impl Pause {
    fn is_over(&self) -> bool {
        self.resume.as_ref().is_some_and(|resume| resume.caught_up_ms.is_some())
    }

    /// The id of its resume.
    fn resumed_by(&self) -> Option<i64> {
        self.resume.as_ref().map(|resume| resume.by.id)
    }
}

/// How one run is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Oldest first; the last alone may lack its resume.
    pub pauses: Vec<Pause>,
    /// Thousandths of the time that it works at most; before anybody has said so, those of its kind.
    pub permille: u16,
    /// Who set `permille`, if anybody did.
    pub throttle: Option<Decision>,
    /// What was decided about the run when it had stopped.
    recoveries: Recoveries,
}

impl Hold {
    /// That of `run`, by the control records in their order. A pause of a run that is paused, and a resume of one that is
    /// not, change nothing: of two that were written at the same time the first counts. A decision that comes again, by its
    /// id, changes nothing either.
    pub fn of<'a>(run: &str, control: impl IntoIterator<Item = &'a ControlRecord>) -> Hold {
        let beside_live = run == GAP_RUN || run == SHADOW;
        let permille = if beside_live { BESIDE_PERMILLE } else { UNHINDERED_PERMILLE };
        let mut hold = Hold { pauses: Vec::new(), permille, throttle: None, recoveries: Recoveries::default() };
        for record in control {
            hold.fold(run, record);
        }
        hold
    }

    /// The pause that holds the run now.
    pub fn paused(&self) -> Option<&Pause> {
        self.pauses.last().filter(|pause| pause.resume.is_none())
    }

    /// The newest pause that was ended, and has not been caught up with; `None` while the run is paused.
    pub fn catching_up(&self) -> Option<&Pause> {
        self.pauses.iter().rev().take_while(|pause| pause.resume.is_some()).find(|pause| !pause.is_over())
    }

    fn fold(&mut self, run: &str, record: &ControlRecord) {
        self.recoveries.fold(run, record);
        let by = |id| Decision { id, at_ms: record.at_ms, who: record.who.clone(), reason: record.reason.clone() };
        let is_paused = self.paused().is_some();
        let is_new = |id: i64| self.pauses.iter().all(|pause| pause.by.id != id && pause.resumed_by() != Some(id));
        match &record.action {
            Action::Pause { run: of, id, until_ms, allow_loss } if of == run && !is_paused && is_new(*id) => {
                let (until_ms, allow_loss) = (*until_ms, *allow_loss);
                self.pauses.push(Pause { by: by(*id), until_ms, allow_loss, paused_ms: None, resume: None });
            }
            Action::Paused { run: of, id, through_ms } if of == run => {
                let asking_ms = self.recoveries.asking_ms().unwrap_or(i64::MAX);
                if let Some(pause) = self.pauses.iter_mut().find(|pause| pause.by.id == *id) {
                    pause.paused_ms.get_or_insert(asking_ms.min(*through_ms));
                }
            }
            Action::Resume { run: of, id, left_to_ms } if of == run && is_paused && is_new(*id) => {
                let pause = self.pauses.last_mut().expect("it is paused");
                pause.resume = Some(Resume {
                    by: by(*id),
                    left_to_ms: *left_to_ms,
                    resumed_ms: None,
                    caught_up_ms: None,
                    eta: None,
                    again_ms: None,
                });
            }
            Action::Resumed { run: of, id, through_ms } if of == run => {
                if let Some(resume) = self.resume(*id) {
                    resume.resumed_ms.get_or_insert(*through_ms);
                }
            }
            // The boundary moves back: a copy was brought back, or the table is not believed.
            Action::Recover { run: of, repair: Repair::AskAgain { from_ms }, .. } if of == run => {
                self.move_back(*from_ms)
            }
            Action::CaughtUp { run: of, id, eta } if of == run => self.catch_up(*id, record.at_ms, *eta),
            Action::BackupRestored { gaps, .. } if run == "live" => self.fill_again(gaps, record.at_ms),
            Action::BackupRestored { gaps, .. } if run == GAP_RUN => {
                gaps.iter().for_each(|(from_ms, _)| self.move_back(*from_ms));
            }
            Action::Throttle { run: of, id, permille } if of == run => {
                (self.permille, self.throttle) = (*permille, Some(by(*id)));
            }
            _ => {}
        }
    }

    /// No gap is left: what earlier pauses have left is counted, too.
    fn catch_up(&mut self, id: i64, at_ms: i64, eta: Option<EtaKept>) {
        let mine = self.pauses.iter().position(|pause| pause.resumed_by() == Some(id));
        let until_mine = &mut self.pauses[..mine.map_or(0, |mine| mine + 1)];
        let resumes = until_mine.iter_mut().filter_map(|pause| pause.resume.as_mut());
        for resume in resumes.filter(|resume| resume.caught_up_ms.is_none()) {
            resume.caught_up_ms = Some(at_ms);
            resume.eta = eta.filter(|_| resume.by.id == id);
        }
    }

    /// What lies behind it is to be computed again, whatever was in the table when the run was paused.
    fn move_back(&mut self, from_ms: i64) {
        for pause in self.pauses.iter_mut().filter(|pause| !pause.is_over()) {
            pause.paused_ms = pause.paused_ms.map(|paused_ms| paused_ms.min(from_ms));
        }
    }

    /// What lies in `gaps` is not in the table any more.
    fn fill_again(&mut self, gaps: &[(i64, i64)], at_ms: i64) {
        for pause in &mut self.pauses {
            let (paused_ms, Some(resume)) = (pause.paused_ms, &mut pause.resume) else { continue };
            let Some(left) = paused_ms.zip(resume.left_to_ms) else { continue };
            let is_in = |(from_ms, to_ms): &(i64, i64)| *from_ms < left.1 && left.0 < *to_ms;
            if let Some(caught_up_ms) = resume.caught_up_ms.filter(|_| gaps.iter().any(is_in)) {
                (resume.caught_up_ms, resume.eta) = (None, None);
                resume.again_ms = Some((caught_up_ms, at_ms));
            }
        }
    }

    fn resume(&mut self, id: i64) -> Option<&mut Resume> {
        self.pauses.iter_mut().filter_map(|pause| pause.resume.as_mut()).find(|resume| resume.by.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(actions: &[Action]) -> Hold {
        let at = |(at_ms, action): (usize, &Action)| ControlRecord {
            at_ms: at_ms as i64,
            who: "ops".into(),
            reason: "a disk".into(),
            action: action.clone(),
        };
        let records: Vec<_> = actions.iter().enumerate().map(at).collect();
        Hold::of("live", &records)
    }

    fn pause(run: &str, id: i64) -> Action {
        Action::Pause { run: run.into(), id, until_ms: None, allow_loss: false }
    }

    fn resume(id: i64, left_to_ms: Option<i64>) -> Action {
        Action::Resume { run: "live".into(), id, left_to_ms }
    }

    #[test]
    fn a_pause_holds_its_run_alone_until_it_is_resumed_and_lasts_until_the_run_has_caught_up() {
        assert_eq!(hold(&[pause("gap", 1)]).paused(), None);
        let mut said = vec![pause("live", 1), Action::Paused { run: "live".into(), id: 1, through_ms: 600 }];
        let paused = hold(&said);
        assert_eq!(paused.paused().and_then(|pause| pause.paused_ms), Some(600));
        assert_eq!(paused.catching_up(), None);
        said.extend([resume(7, Some(900)), Action::Resumed { run: "live".into(), id: 7, through_ms: 900 }]);
        let resumed = hold(&said);
        assert_eq!(resumed.paused(), None);
        let by = resumed.catching_up().and_then(|pause| pause.resume.clone()).unwrap();
        assert_eq!((by.left_to_ms, by.resumed_ms, by.by.who.as_str()), (Some(900), Some(900), "ops"));
        said.push(Action::CaughtUp { run: "live".into(), id: 7, eta: None });
        let over = hold(&said);
        assert_eq!((over.paused(), over.catching_up()), (None, None));
        assert_eq!(over.pauses[0].resume.as_ref().unwrap().caught_up_ms, Some(4));
    }

    #[test]
    fn a_catch_up_ends_the_pauses_before_it_too_and_none_after_it() {
        let eta = Some(EtaKept { half_ms: 1, said_ms: 2, came_ms: 3 });
        let caught_up = |id| Action::CaughtUp { run: "live".into(), id, eta };
        let mut said = vec![pause("live", 1), resume(2, Some(600)), pause("live", 3), resume(4, Some(900))];
        said.push(caught_up(4));
        let ends = |hold: &Hold| -> Vec<_> {
            hold.pauses.iter().map(|pause| pause.resume.as_ref().map(|by| (by.caught_up_ms, by.eta))).collect()
        };
        assert_eq!(ends(&hold(&said)), [Some((Some(4), None)), Some((Some(4), eta))]);
        said.extend([pause("live", 5), resume(6, None), caught_up(4), caught_up(7)]);
        assert_eq!(ends(&hold(&said))[2], Some((None, None)));
        said.extend([pause("live", 8), caught_up(6)]);
        let paused = hold(&said);
        assert_eq!((ends(&paused)[2], ends(&paused)[3]), (Some((Some(10), eta)), None));
        assert_eq!(paused.paused().map(|pause| pause.by.id), Some(8));
    }

    #[test]
    fn a_copy_from_before_a_gap_was_filled_opens_its_maintenance_again_and_no_other() {
        let paused = |id, through_ms| Action::Paused { run: "live".into(), id, through_ms };
        let caught_up = |id| Action::CaughtUp { run: "live".into(), id, eta: None };
        let restored = |gaps: &[(i64, i64)]| Action::BackupRestored { name: "one".into(), gaps: gaps.to_vec() };
        let mut said = vec![pause("live", 1), paused(1, 600), resume(2, Some(900)), caught_up(2)];
        said.extend([pause("live", 3), paused(3, 2_000), resume(4, Some(3_000)), caught_up(4)]);
        said.extend([pause("live", 5), paused(5, 5_000), resume(6, None), caught_up(6)]);
        let open = |said: &[Action]| -> Vec<_> {
            let is_open = |pause: &Pause| pause.resume.as_ref().is_some_and(|resume| resume.caught_up_ms.is_none());
            hold(said).pauses.iter().map(is_open).collect()
        };
        said.push(restored(&[]));
        assert_eq!(open(&said), [false, false, false]);
        said.push(restored(&[(900, 2_000), (2_500, 3_000), (5_000, 6_000)]));
        assert_eq!(open(&said), [false, true, false], "what was left from 2,000 to 3,000");
        let again = hold(&said);
        let catching_up = again.catching_up().unwrap();
        assert_eq!((catching_up.by.id, catching_up.resume.as_ref().unwrap().again_ms), (3, Some((7, 13))));
        said.push(pause("live", 7));
        assert_eq!(hold(&said).catching_up(), None, "it is paused");
        said.extend([resume(8, None), caught_up(8)]);
        assert_eq!(open(&said), [false; 4], "no gap is left");
    }

    #[test]
    fn a_copy_that_is_brought_back_moves_back_where_a_pause_holds_the_gap_run() {
        let restored = |gaps: &[(i64, i64)]| Action::BackupRestored { name: "one".into(), gaps: gaps.to_vec() };
        let mut said = vec![pause("gap", 1), Action::Paused { run: "gap".into(), id: 1, through_ms: 900 }];
        let through = |said: &[Action]| {
            let record = |action: &Action| {
                let (who, reason) = (String::new(), String::new());
                ControlRecord { at_ms: 0, who, reason, action: action.clone() }
            };
            let records: Vec<_> = said.iter().map(record).collect();
            Hold::of("gap", &records).paused().and_then(|pause| pause.paused_ms)
        };
        said.push(restored(&[]));
        assert_eq!(through(&said), Some(900));
        said.push(restored(&[(300, 600), (700, 800)]));
        assert_eq!(through(&said), Some(300));
    }

    #[test]
    fn what_is_to_be_asked_again_moves_back_where_a_pause_holds_its_run() {
        let paused = |id, through_ms| Action::Paused { run: "live".into(), id, through_ms };
        let ask = |run: &str, from_ms| {
            let repair = Repair::AskAgain { from_ms };
            Action::Recover { run: run.into(), id: 9, repair, topic_is: None }
        };
        let through = |said: &[Action]| -> Vec<_> { hold(said).pauses.iter().map(|pause| pause.paused_ms).collect() };
        let mut said = vec![pause("live", 1), paused(1, 600), resume(2, None)];
        said.extend([Action::CaughtUp { run: "live".into(), id: 2, eta: None }, pause("live", 3)]);
        said.extend([
            Action::Recovered { run: "live".into(), id: 9 },
            paused(3, 900),
            ask("gap", 200),
            ask("live", 950),
        ]);
        assert_eq!(through(&said), [Some(600), Some(900)], "of another run, or after it: nothing");
        assert_eq!(through(&said)[0], Some(600), "what is over");
        said.push(ask("live", 300));
        assert_eq!(through(&said), [Some(600), Some(300)]);
        // It is not done yet when the run is paused: the boundary that the table still tells of is not believed.
        let early = [ask("live", 100), pause("live", 1), paused(1, 900)];
        assert_eq!(through(&early), [Some(100)]);
        let done =
            [ask("live", 100), Action::Recovered { run: "live".into(), id: 9 }, pause("live", 1), paused(1, 900)];
        assert_eq!(through(&done), [Some(900)]);
    }

    #[test]
    fn of_two_pauses_at_the_same_time_the_first_counts_and_a_resume_of_what_runs_changes_nothing() {
        let both = hold(&[resume(1, None), pause("live", 2), pause("live", 3)]);
        assert_eq!(both.pauses.len(), 1);
        assert_eq!(both.paused().map(|pause| pause.by.id), Some(2));
        let again = hold(&[pause("live", 2), resume(4, None), resume(5, None), pause("live", 6)]);
        assert_eq!(again.pauses[0].resume.as_ref().map(|resume| resume.by.id), Some(4));
        assert_eq!(again.paused().map(|pause| pause.by.id), Some(6));
        // As two supervisors write it, the second after somebody has paused the run again; and a client that did not hear.
        let late = hold(&[pause("live", 2), resume(4, None), pause("live", 6), resume(4, None)]);
        assert_eq!(late.paused().map(|pause| pause.by.id), Some(6));
        let twice = hold(&[pause("live", 2), resume(4, None), pause("live", 2)]);
        assert_eq!(twice.paused(), None);
    }

    #[test]
    fn the_newest_throttle_counts() {
        let throttle = |permille| Action::Throttle { run: "live".into(), id: 1, permille };
        assert_eq!(hold(&[]).permille, UNHINDERED_PERMILLE);
        assert_eq!(Hold::of("gap", &[]).permille, BESIDE_PERMILLE);
        assert_eq!(hold(&[throttle(500), throttle(250)]).permille, 250);
    }
}
