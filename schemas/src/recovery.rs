//! What operators have decided about runs that had stopped, folded from the control topic.
//!
//! ```text
//!  Recover(run, GiveUp [a, b)) ──▶ Recovered ──▶ Recover(run, AskAgain c) …
//!       │ windows [a, b) are missing, the run passes over them │ the run begins at c
//! ```

use serde::{Deserialize, Serialize};

use crate::control::{Action, ControlRecord, GAP_RUN};

/// What is done about a run before it goes on. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Repair {
    /// It goes on from its checkpoint, whatever it has reported before.
    GoOn,
    /// Every window from `from_ms` on is asked for again, and written where the table does not hold just its rows.
    AskAgain { from_ms: i64 },
    /// The windows `[from_ms, to_ms)` are taken out of the table, and are not computed.
    GiveUp { from_ms: i64, to_ms: i64 },
    /// The table's columns are made what they must be.
    Mend,
}

/// Windows that are not in the table, and will not be, because somebody decided so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub from_ms: i64,
    pub to_ms: i64,
    /// When it was decided, by whom, and why.
    pub at_ms: i64,
    pub who: String,
    pub reason: String,
}

/// All recoveries of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recoveries {
    /// All that were ever ordered, oldest first, by their ids; of the gap run each copy that was brought back is one, too.
    pub all: Vec<(i64, Repair)>,
    /// Those that nobody has done yet, oldest first, by their ids.
    pub pending: Vec<(i64, Repair)>,
    /// Ascending.
    pub missing: Vec<Missing>,
}

impl Recoveries {
    /// Those of `run`, by the control records in their order.
    pub fn of<'a>(run: &str, control: impl IntoIterator<Item = &'a ControlRecord>) -> Recoveries {
        let mut all = Recoveries::default();
        for record in control {
            all.fold(run, record);
        }
        all.missing.sort_by_key(|missing| missing.from_ms);
        all
    }

    /// One more of `run`, by the next control record; [`missing`](Self::missing) is as it was decided then.
    pub(crate) fn fold(&mut self, run: &str, record: &ControlRecord) {
        match &record.action {
            Action::Recover { run: of, id, repair, .. } if of == run => self.recover(*id, repair, record),
            Action::Recovered { run: of, id } if of == run => self.pending.retain(|(pending, _)| pending != id),
            // It goes on from where the copy has it, and what it has reported before is not so any more: nothing is to be
            // done for that.
            Action::BackupRestored { .. } if run == GAP_RUN => self.all.push((record.at_ms, Repair::GoOn)),
            _ => {}
        }
    }

    /// From when on windows are to be asked for again that nobody has asked for yet.
    pub(crate) fn asking_ms(&self) -> Option<i64> {
        let asking = self.pending.iter().filter_map(|(_, repair)| match *repair {
            Repair::AskAgain { from_ms } => Some(from_ms),
            Repair::GoOn | Repair::GiveUp { .. } | Repair::Mend => None,
        });
        asking.min()
    }

    /// Windows of `run` that are not in the table and will not be, ascending, by the control records in their order.
    ///
    /// What the gap run has given up is missing in live, as what live has: there is one table, and the gap run goes with its
    /// gap. Live asks for all of its windows again, whoever has given them up.
    pub fn missing_of<'a>(run: &str, control: impl IntoIterator<Item = &'a ControlRecord>) -> Vec<Missing> {
        let (mut own, mut of_gap) = (Recoveries::default(), Recoveries::default());
        for record in control {
            let Action::Recover { run: of, id, repair, .. } = &record.action else { continue };
            if of == run && run != GAP_RUN {
                own.recover(*id, repair, record);
            }
            let asks_again = of == "live" && matches!(repair, Repair::AskAgain { .. });
            if run == "live" && (of == GAP_RUN || asks_again) {
                of_gap.recover(*id, repair, record);
            }
        }
        own.missing.append(&mut of_gap.missing);
        own.missing.sort_by_key(|missing| missing.from_ms);
        own.missing
    }

    /// The newest one's id; a run that has reported another one has not heard of it.
    pub fn last(&self) -> Option<i64> {
        self.all.last().map(|(id, _)| *id)
    }

    fn recover(&mut self, id: i64, repair: &Repair, record: &ControlRecord) {
        self.all.push((id, repair.clone()));
        self.pending.push((id, repair.clone()));
        match *repair {
            Repair::GoOn | Repair::Mend => {}
            Repair::AskAgain { from_ms } => {
                // What is computed again is not missing any more, if it comes.
                self.missing.retain(|missing| missing.from_ms < from_ms);
                self.missing.iter_mut().for_each(|missing| missing.to_ms = missing.to_ms.min(from_ms));
            }
            Repair::GiveUp { from_ms, to_ms } => {
                self.missing.push(Missing {
                    from_ms,
                    to_ms,
                    at_ms: record.at_ms,
                    who: record.who.clone(),
                    reason: record.reason.clone(),
                });
            }
        }
    }

    /// What lies before it cannot be computed from the log: somebody has given up windows that end here, whose records, or
    /// those before them, are gone. What a later topic or a later beginning of the log seems to hold of them is not all.
    pub fn given_up_to_ms(&self) -> Option<i64> {
        let ends = self.all.iter().filter_map(|(_, repair)| match *repair {
            Repair::GiveUp { to_ms, .. } => Some(to_ms),
            Repair::GoOn | Repair::AskAgain { .. } | Repair::Mend => None,
        });
        ends.max()
    }

    /// The run's first window, which was at `first_ms` before anybody decided anything.
    ///
    /// What was given up does not move it: that is recorded as lost, and the run passes over it as over what is done. It
    /// begins at the first window that nothing is recorded of, which may lie before.
    pub fn first_ms(&self, first_ms: i64) -> i64 {
        self.all.iter().fold(first_ms, |first_ms, (_, repair)| match *repair {
            Repair::AskAgain { from_ms } => first_ms.min(from_ms),
            Repair::GiveUp { .. } | Repair::GoOn | Repair::Mend => first_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at_ms: i64, action: Action) -> ControlRecord {
        ControlRecord { at_ms, who: "ops".into(), reason: "a disk".into(), action }
    }

    fn recover(id: i64, repair: Repair) -> ControlRecord {
        record(id, Action::Recover { run: "live".into(), id, repair, topic_is: None })
    }

    fn recovered(id: i64) -> ControlRecord {
        record(id, Action::Recovered { run: "live".into(), id })
    }

    fn ranges(all: &Recoveries) -> Vec<(i64, i64)> {
        all.missing.iter().map(|missing| (missing.from_ms, missing.to_ms)).collect()
    }

    #[test]
    fn a_run_without_recoveries_begins_where_it_did() {
        let repair = Repair::GoOn;
        let other = record(1, Action::Recover { run: "import-a".into(), id: 1, repair, topic_is: None });
        let all = Recoveries::of("live", [&other]);
        assert_eq!((all.clone(), all.first_ms(70)), (Recoveries::default(), 70));
    }

    #[test]
    fn a_repair_is_pending_until_it_was_done_and_the_newest_is_known_for_ever() {
        let control = [recover(5, Repair::GoOn), recover(9, Repair::Mend), recovered(5)];
        let all = Recoveries::of("live", &control);
        assert_eq!((all.last(), all.pending), (Some(9), vec![(9, Repair::Mend)]));
        assert_eq!(all.all, [(5, Repair::GoOn), (9, Repair::Mend)]);
    }

    #[test]
    fn what_was_given_up_is_missing_and_does_not_move_the_runs_beginning() {
        let control = [
            recover(1, Repair::GiveUp { from_ms: 300, to_ms: 400 }),
            recover(2, Repair::GiveUp { from_ms: 100, to_ms: 200 }),
        ];
        let all = Recoveries::of("live", &control);
        assert_eq!((ranges(&all), all.first_ms(70)), (vec![(100, 200), (300, 400)], 70));
        assert_eq!(all.given_up_to_ms(), Some(400), "for ever");
        assert_eq!((all.missing[0].who.as_str(), all.missing[0].reason.as_str()), ("ops", "a disk"));
    }

    #[test]
    fn what_the_gap_run_has_given_up_is_missing_in_live_until_it_is_asked_for_again() {
        let of_gap = |id, repair| record(id, Action::Recover { run: "gap".into(), id, repair, topic_is: None });
        let mut control = vec![
            recover(1, Repair::GiveUp { from_ms: 300, to_ms: 400 }),
            of_gap(2, Repair::GiveUp { from_ms: 100, to_ms: 200 }),
            of_gap(3, Repair::GiveUp { from_ms: 500, to_ms: 600 }),
        ];
        let missing = |control: &[ControlRecord], run| -> Vec<_> {
            let all = Recoveries::missing_of(run, control);
            all.iter().map(|missing| (missing.from_ms, missing.to_ms)).collect()
        };
        assert_eq!(missing(&control, "live"), [(100, 200), (300, 400), (500, 600)]);
        assert_eq!((missing(&control, "gap"), missing(&control, "import-a")), (vec![], vec![]), "each is said once");
        control.push(of_gap(4, Repair::AskAgain { from_ms: 550 }));
        assert_eq!(missing(&control, "live"), [(100, 200), (300, 400), (500, 550)]);
        control.push(recover(5, Repair::AskAgain { from_ms: 150 }));
        assert_eq!(missing(&control, "live"), [(100, 150)]);
    }

    #[test]
    fn a_copy_that_is_brought_back_is_news_to_the_gap_run_alone_and_nothing_to_be_done() {
        let said = [record(5, Action::BackupRestored { name: "one".into(), gaps: Vec::new() })];
        let of = |run: &str| Recoveries::of(run, &said);
        assert_eq!((of(GAP_RUN).last(), of("live").last()), (Some(5), None));
        assert_eq!((of(GAP_RUN).pending, of(GAP_RUN).asking_ms()), (Vec::new(), None));
    }

    #[test]
    fn what_is_asked_for_again_is_not_missing_any_more() {
        let control = [
            recover(1, Repair::GiveUp { from_ms: 300, to_ms: 400 }),
            recover(2, Repair::GiveUp { from_ms: 500, to_ms: 600 }),
            recover(3, Repair::AskAgain { from_ms: 350 }),
        ];
        let all = Recoveries::of("live", &control);
        assert_eq!((ranges(&all), all.first_ms(370)), (vec![(300, 350)], 350));
    }
}
