//! What operators announce ahead: a maintenance, or that there will be none.

use serde::{Deserialize, Serialize};
use weir_schemas::control::Action;

use crate::{
    Maintenance, MaintenanceState,
    text::instant,
    verbs::{Refusal, parse_span, parse_time},
};

/// The body of an announcement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Announcement {
    /// As of a [`Command`](crate::Command).
    pub id: Option<i64>,
    pub user: String,
    pub reason: String,
    /// When it begins, `14:00` (the next such time, UTC) or RFC 3339.
    pub at: String,
    /// How long it takes, as in `2h`.
    pub r#for: String,
    /// Nothing is written.
    pub dry_run: bool,
}

/// The plan that is written, and its sentence.
pub(crate) fn plan(announcement: &Announcement, id: i64, now_ms: i64) -> Result<(Action, String), Refusal> {
    let begins_ms = parse_time("--at", &announcement.at, now_ms)?;
    let ends_ms = parse_span(&announcement.r#for, begins_ms)?;
    if begins_ms <= now_ms || ends_ms <= begins_ms {
        return Err(Refusal::Wrong(format!(
            "{} is not ahead, or it takes no time: it is {} by the console's clock (`weir pause` begins one now)",
            instant(Some(begins_ms)),
            instant(Some(now_ms))
        )));
    }
    let said = format!("maintenance {id} is announced, {} to {}", instant(Some(begins_ms)), instant(Some(ends_ms)));
    Ok((Action::MaintenancePlanned { id, begins_ms, ends_ms }, said))
}

/// Withdraws the plan `id`, which has not begun, or for which nothing was paused. `order`: the id of this.
pub(crate) fn cancel(all: &[Maintenance], id: i64, order: i64) -> Result<(Action, String), Refusal> {
    let Some(found) = all.iter().find(|maintenance| maintenance.id == id) else {
        return Err(Refusal::UnknownRun(format!("there is no maintenance {id} (`weir maintenance list` names them)")));
    };
    match (found.state, &found.run) {
        (_, Some(run)) => {
            Err(Refusal::NotNow(format!("maintenance {id} is that of {run} (`weir resume {run}` ends it)")))
        }
        (MaintenanceState::Planned | MaintenanceState::UnderWay, None) => {
            Ok((Action::MaintenanceCancelled { id, order: Some(order) }, format!("maintenance {id} is withdrawn")))
        }
        (_, None) => Err(Refusal::NotNow(format!("maintenance {id} is over, or was withdrawn already"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn announced(at: &str, r#for: &str) -> Result<(Action, String), Refusal> {
        plan(&Announcement { at: at.into(), r#for: r#for.into(), ..Announcement::default() }, 5, NOW_MS)
    }

    #[test]
    fn a_maintenance_is_announced_for_a_time_ahead() {
        let (action, said) = announced("2023-11-15T02:00:00Z", "2h").unwrap();
        let begins_ms = 1_700_013_600_000;
        assert_eq!(action, Action::MaintenancePlanned { id: 5, begins_ms, ends_ms: begins_ms + 7_200_000 });
        assert_eq!(said, "maintenance 5 is announced, 2023-11-15 02:00:00 UTC to 2023-11-15 04:00:00 UTC");
        for (at, r#for) in [("2023-11-14T02:00:00Z", "2h"), ("25:00", "2h"), ("02:00", "soon"), ("02:00", "0s")] {
            assert!(matches!(announced(at, r#for), Err(Refusal::Wrong(_))), "{at} {for}");
        }
    }

    #[test]
    fn only_a_plan_for_which_nothing_was_paused_is_withdrawn() {
        let of = |id, state, run: Option<&str>| Maintenance {
            id,
            state,
            run: run.map(str::to_owned),
            who: "ops".into(),
            reason: "a disk".into(),
            announced_ms: 0,
            begins_ms: 1,
            ends_ms: Some(2),
            planned_ms: Some((1, 2)),
            paused_ms: None,
            resumed_ms: None,
            resumed_by: None,
            left_to_ms: None,
            again_ms: None,
            over_ms: None,
            taken_back: false,
            given_up: false,
            eta: None,
        };
        let all = [
            of(1, MaintenanceState::Planned, None),
            of(2, MaintenanceState::UnderWay, Some("live")),
            of(3, MaintenanceState::Withdrawn, None),
        ];
        assert_eq!(cancel(&all, 1, 9).unwrap().0, Action::MaintenanceCancelled { id: 1, order: Some(9) });
        assert!(matches!(cancel(&all, 2, 9), Err(Refusal::NotNow(said)) if said.contains("`weir resume live`")));
        assert!(matches!(cancel(&all, 3, 9), Err(Refusal::NotNow(_))));
        assert!(matches!(cancel(&all, 4, 9), Err(Refusal::UnknownRun(_))));
    }
}
