use serde::{Deserialize, Serialize};
use weir_schemas::{
    Generations, Repair,
    control::{Action, ControlRecord},
};

use crate::RunStatus;

/// A run had stopped, and somebody has decided how it goes on. Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Its role then.
    pub run: String,
    pub id: i64,
    pub repair: Repair,
    pub at_ms: i64,
    pub who: String,
    pub reason: String,
    /// When its repair was done; `None`: not yet.
    pub done_ms: Option<i64>,
    /// The copy that was brought back, after which the run computes again what the copy does not hold.
    #[serde(default)]
    pub copy: Option<String>,
}

/// All recoveries that the control records, as they were written, tell of, the newest first; but those of a run that was beside
/// the one in use then: nobody's statistics stood still.
pub(crate) fn recoveries(control: &[ControlRecord]) -> Vec<Recovery> {
    let mut all: Vec<Recovery> = Vec::new();
    // Where each stands among the records.
    let mut places = Vec::new();
    // What a restore orders comes right after it, by the same person for the same reason.
    let mut restored: Option<(&ControlRecord, &String)> = None;
    for (place, record) in control.iter().enumerate() {
        let is_of_it = |of: &ControlRecord| (&of.who, &of.reason) == (&record.who, &record.reason);
        match &record.action {
            Action::BackupRestored { name, .. } => restored = Some((record, name)),
            Action::Recover { run, id, repair, .. } => {
                restored = restored.filter(|(of, _)| matches!(repair, Repair::AskAgain { .. }) && is_of_it(of));
                places.push(place);
                all.push(Recovery {
                    run: run.clone(),
                    id: *id,
                    repair: repair.clone(),
                    at_ms: record.at_ms,
                    who: record.who.clone(),
                    reason: record.reason.clone(),
                    done_ms: None,
                    copy: restored.map(|(_, name)| name.clone()),
                });
            }
            Action::Recovered { run, id } => {
                for recovery in all.iter_mut().filter(|recovery| recovery.run == *run && recovery.id == *id) {
                    recovery.done_ms.get_or_insert(record.at_ms);
                }
            }
            _ => {}
        }
    }
    for (recovery, place) in all.iter_mut().zip(places) {
        recovery.run = Generations::of(&control[..place]).roles().role(&recovery.run);
    }
    all.retain(|recovery| !RunStatus::is_role_beside(&recovery.run));
    all.reverse();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restore_orders_is_told_apart_from_what_a_person_orders_after_it() {
        let record =
            |at_ms, reason: &str, action| ControlRecord { at_ms, who: "ops".into(), reason: reason.into(), action };
        let ask = |run: &str, id| Action::Recover {
            run: run.into(),
            id,
            repair: Repair::AskAgain { from_ms: 1 },
            topic_is: None,
        };
        let said = [
            record(1, "rows are wrong", ask("live", 1)),
            record(2, "a new disk", Action::BackupRestored { name: "nightly".into(), gaps: Vec::new() }),
            record(3, "a new disk", ask("live", 3)),
            record(4, "", Action::Recovered { run: "live".into(), id: 3 }),
            record(5, "a new disk", ask("import-a", 5)),
            record(6, "rows are wrong again", ask("live", 6)),
            record(7, "a new disk", ask("live", 7)),
        ];
        let copies: Vec<_> = recoveries(&said).into_iter().map(|of| (of.id, of.copy)).collect();
        let nightly = Some("nightly".to_owned());
        assert_eq!(copies, [(7, None), (6, None), (5, nightly.clone()), (3, nightly), (1, None)]);
    }
    #[test]
    fn what_was_decided_stays_the_same_incident_after_a_swap_and_of_a_run_beside_there_is_none() {
        let record = |at_ms, action| ControlRecord { at_ms, who: "ops".into(), reason: String::new(), action };
        let recover =
            |run: &str, id| record(id, Action::Recover { run: run.into(), id, repair: Repair::GoOn, topic_is: None });
        let version = String::new();
        let mut said = vec![
            recover("live", 1),
            record(2, Action::ConversionStarted { id: 2, generation: 2, version, from_ms: 0, carried: None }),
            recover("v2-live", 3),
            record(4, Action::Recovered { run: "live".into(), id: 1 }),
        ];
        let told = |said: &[ControlRecord]| -> Vec<_> {
            recoveries(said).into_iter().map(|of| (of.run, of.id, of.done_ms)).collect()
        };
        assert_eq!(told(&said), [("live".to_owned(), 1, Some(4))]);
        said.push(record(5, Action::Show { id: 5, generation: Some(2), at_ms: 0, hold_ms: 0 }));
        said.extend([record(6, Action::Shown { id: 5 }), recover("v2-live", 7), recover("live", 8)]);
        assert_eq!(told(&said), [("live".to_owned(), 7, None), ("live".to_owned(), 1, Some(4))]);
    }
}
