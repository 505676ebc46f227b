//! The last days by hour: what of them is in the table.

use weir_schemas::control::GAP_RUN;

use crate::{RunStatus, Snapshot, light::is_silent};

/// How far an hour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hour {
    /// Before the first event.
    Before,
    /// All of it that is over is in the table.
    Complete,
    Computing,
    /// Nobody is at work on it: what computes it is paused, has stopped or is silent.
    Waiting,
    /// Some of it is not in the table and will not be.
    Missing,
    Ahead,
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// As late as this a window is on its way, not missing from its hour.
const ON_ITS_WAY_MS: i64 = 60_000;

/// The hours of the last `days` days in UTC, oldest first, each day with its first instant.
pub(crate) fn days(snapshot: &Snapshot, days: i64) -> Vec<(i64, [Hour; 24])> {
    let today_ms = snapshot.at_ms.div_euclid(DAY_MS) * DAY_MS;
    let day = |back: i64| {
        let day_ms = today_ms - back * DAY_MS;
        (day_ms, std::array::from_fn(|hour| of_hour(snapshot, day_ms + hour as i64 * HOUR_MS)))
    };
    (0..days).rev().map(day).collect()
}

fn of_hour(snapshot: &Snapshot, from_ms: i64) -> Hour {
    let to_ms = (from_ms + HOUR_MS).min(snapshot.at_ms - snapshot.due_ms - ON_ITS_WAY_MS);
    if from_ms >= snapshot.at_ms {
        return Hour::Ahead;
    }
    if snapshot.began_ms.is_none_or(|began_ms| from_ms + HOUR_MS <= began_ms) {
        return Hour::Before;
    }
    let holds = |a_ms: i64, b_ms: i64| a_ms < from_ms + HOUR_MS && from_ms < b_ms;
    if snapshot.live().is_some_and(|live| live.missing.iter().any(|missing| holds(missing.from_ms, missing.to_ms))) {
        return Hour::Missing;
    }
    let of = |run: Option<&RunStatus>| match is_silent(snapshot) || run.is_some_and(stands) {
        true => Hour::Waiting,
        false => Hour::Computing,
    };
    if snapshot.computing.iter().any(|range| holds(range.from_ms, range.to_ms)) {
        return of(snapshot.runs.iter().find(|run| run.run == GAP_RUN));
    }
    if snapshot.complete_through_ms().is_some_and(|through_ms| through_ms >= to_ms) {
        return Hour::Complete;
    }
    of(snapshot.live())
}

fn stands(run: &RunStatus) -> bool {
    run.topic_gone || run.paused.is_some() || run.progress.as_ref().is_some_and(|progress| progress.stopped.is_some())
}

#[cfg(test)]
mod tests {
    use weir_schemas::{
        Repair,
        control::{Action, ControlRecord, GAP_RUN},
    };

    use super::*;
    use crate::RunStatus;

    #[test]
    fn an_hour_of_which_the_gap_run_has_given_up_something_is_missing_when_there_is_no_gap_any_more() {
        let repair = Repair::GiveUp { from_ms: 2 * HOUR_MS + 600_000, to_ms: 2 * HOUR_MS + 660_000 };
        let action = Action::Recover { run: GAP_RUN.into(), id: 1, repair, topic_is: None };
        let given_up = ControlRecord { at_ms: 1, who: "ops".into(), reason: "a disk".into(), action };
        let hours = |control: &[ControlRecord]| {
            let mut live = RunStatus::unknown("live", "weir.events", control);
            live.progress.get_or_insert_default().complete_through_ms = Some(5 * HOUR_MS);
            let snapshot = Snapshot { at_ms: 5 * HOUR_MS, began_ms: Some(0), runs: vec![live], ..Snapshot::default() };
            days(&snapshot, 1)[0].1[..6].to_vec()
        };
        use Hour::{Ahead, Complete, Missing};
        assert_eq!(hours(&[]), [Complete, Complete, Complete, Complete, Complete, Ahead]);
        assert_eq!(hours(&[given_up]), [Complete, Complete, Missing, Complete, Complete, Ahead]);
    }
}
