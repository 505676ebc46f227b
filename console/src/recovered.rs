use serde::{Deserialize, Serialize};
use weir_schemas::{
    Repair,
    control::{Action, ControlRecord},
};

/// A run had stopped, and somebody has decided how it goes on. Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
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

/// All recoveries that the control records tell of, the newest first.
pub(crate) fn recoveries(control: &[ControlRecord]) -> Vec<Recovery> {
    let mut all: Vec<Recovery> = Vec::new();
    // What a restore orders comes right after it, by the same person for the same reason.
    let mut restored: Option<(&ControlRecord, &String)> = None;
    for record in control {
        let is_of_it = |of: &ControlRecord| (&of.who, &of.reason) == (&record.who, &record.reason);
        match &record.action {
            Action::BackupRestored { name, .. } => restored = Some((record, name)),
            Action::Recover { run, id, repair, .. } => {
                restored = restored.filter(|(of, _)| matches!(repair, Repair::AskAgain { .. }) && is_of_it(of));
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
}
