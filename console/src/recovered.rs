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
}

/// All recoveries that the control records tell of, the newest first.
pub(crate) fn recoveries(control: &[ControlRecord]) -> Vec<Recovery> {
    let mut all: Vec<Recovery> = Vec::new();
    for record in control {
        match &record.action {
            Action::Recover { run, id, repair, .. } => all.push(Recovery {
                run: run.clone(),
                id: *id,
                repair: repair.clone(),
                at_ms: record.at_ms,
                who: record.who.clone(),
                reason: record.reason.clone(),
                done_ms: None,
            }),
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
