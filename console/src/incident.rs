use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use weir_schemas::Repair;

use crate::{Colour, Kind, Recovery, Trouble, words};

/// Something went wrong that nobody did on purpose. Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The same for as long as it lasts; where the log tells when it began, at every console.
    pub id: String,
    pub name: String,
    pub colour: Colour,
    pub component: Component,
    pub began_ms: i64,
    /// When it was over; `None`: it lasts.
    pub over_ms: Option<i64>,
    /// What there was to say, oldest first.
    pub updates: Vec<Update>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    pub at_ms: i64,
    pub text: String,
}

/// What a user of the statistics may ask after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    Collection,
    Statistics,
    Queries,
}

impl Component {
    pub const ALL: [Component; 3] = [Component::Collection, Component::Statistics, Component::Queries];

    pub fn name(self) -> &'static str {
        match self {
            Component::Collection => "Collection of hits",
            Component::Statistics => "Statistics",
            Component::Queries => "Queries",
        }
    }

    pub(crate) fn of(kind: Kind) -> Component {
        match kind {
            Kind::CollectionFails | Kind::LogAway | Kind::SpoolUnreadable | Kind::SpoolFull | Kind::DiskFull => {
                Component::Collection
            }
            Kind::QueriesFail => Component::Queries,
            Kind::Lost
            | Kind::RetentionLow
            | Kind::Spooling
            | Kind::Stopped
            | Kind::Paused
            | Kind::Silent
            | Kind::CatchingUp
            | Kind::Late => Component::Statistics,
        }
    }
}

/// A yellow light that is gone after so long was none: a restart of everything takes ten seconds.
const SHORT_MS: i64 = 60_000;

/// Incidents that are over and that no record tells of are remembered, so many, by the process that saw them.
const REMEMBERED: usize = 50;

/// Incidents as this process has seen them come and go.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    open: BTreeMap<(Kind, Option<String>), Incident>,
    over: VecDeque<Incident>,
}

impl Incidents {
    /// Looks at what is wrong, and tells all incidents, the newest first: what was seen, and what the log tells.
    pub(crate) fn see(&mut self, troubles: &[Trouble], recoveries: &[Recovery], at_ms: i64) -> Vec<Incident> {
        let is_paused = troubles.iter().any(Trouble::is_pause_of_live);
        // ClickHouse is his who has paused live.
        let on_purpose = |kind: Kind| kind.is_maintenance() || (is_paused && kind == Kind::QueriesFail);
        for trouble in troubles.iter().filter(|trouble| !on_purpose(trouble.kind)) {
            let key = (trouble.kind, trouble.run.clone());
            self.open.entry(key).or_insert_with(|| begun(trouble, at_ms));
        }
        let holds = |kind: Kind, run: &Option<String>| {
            troubles.iter().any(|trouble| trouble.kind == kind && trouble.run == *run)
        };
        let gone: Vec<_> = self.open.extract_if(.., |(kind, run), _| !holds(*kind, run)).collect();
        for (_, mut incident) in gone {
            if is_one(&incident, at_ms) {
                incident.over_ms = Some(at_ms);
                incident.updates.push(Update { at_ms, text: "It is over.".to_owned() });
                self.over.truncate(REMEMBERED - 1);
                self.over.push_front(incident);
            }
        }
        let open = self.open.values().filter(|incident| is_one(incident, at_ms));
        let mut all: Vec<Incident> = open.chain(&self.over).cloned().collect();
        all.extend(recoveries.iter().map(of_recovery));
        all.sort_by_key(|incident| std::cmp::Reverse(incident.began_ms));
        all
    }
}

fn is_one(incident: &Incident, at_ms: i64) -> bool {
    incident.colour == Colour::Red || at_ms - incident.began_ms >= SHORT_MS
}

fn begun(trouble: &Trouble, at_ms: i64) -> Incident {
    let at_ms = trouble.since_ms.unwrap_or(at_ms);
    let name = match trouble.kind {
        Kind::CollectionFails => "Hits are not collected",
        Kind::LogAway => "The log does not answer",
        Kind::Lost => "Hits are gone before they were counted",
        Kind::SpoolUnreadable => "What hits wait in cannot be read",
        Kind::SpoolFull => "Room for waiting hits is nearly used up",
        Kind::DiskFull => "The disk is nearly full",
        Kind::RetentionLow => "Hits may be deleted before they are counted",
        Kind::Spooling => "The log is away, hits wait",
        Kind::Stopped => "Statistics stand still",
        Kind::QueriesFail => "Statistics cannot be queried",
        Kind::Silent => "No statistics are computed",
        Kind::Late => "Statistics are late",
        Kind::Paused | Kind::CatchingUp => "Maintenance",
    };
    Incident {
        id: format!("{}-{at_ms}", trouble.kind.word().replace('_', "-")),
        name: name.to_owned(),
        colour: trouble.kind.colour(),
        component: Component::of(trouble.kind),
        began_ms: at_ms,
        over_ms: None,
        updates: vec![Update { at_ms, text: trouble.sentence.clone() }],
    }
}

fn of_recovery(recovery: &Recovery) -> Incident {
    let Recovery { run, id, at_ms, reason, done_ms, .. } = recovery;
    let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let (name, colour, text) = match (&recovery.repair, &recovery.copy) {
        (Repair::AskAgain { from_ms }, Some(copy)) => {
            let from = words::time(*from_ms, *at_ms);
            let text = format!(
                "The statistics are those of the copy {copy}{why}; those from {from} on are computed again. Nothing is lost."
            );
            ("Statistics were brought back from a copy", Colour::Yellow, text)
        }
        (Repair::GiveUp { from_ms, to_ms }, _) => {
            let (from, to) = (words::time(*from_ms, *at_ms), words::time(*to_ms, *at_ms));
            let text = format!("Statistics from {from} to {to} cannot be computed and stay missing{why}.");
            ("Statistics are missing", Colour::Red, text)
        }
        (Repair::GoOn | Repair::AskAgain { .. } | Repair::Mend, _) => {
            ("Statistics stood still", Colour::Yellow, format!("An operator lets them go on{why}. Nothing is lost."))
        }
    };
    let mut updates = vec![Update { at_ms: *at_ms, text }];
    updates.extend(done_ms.map(|at_ms| Update { at_ms, text: "Statistics go on.".to_owned() }));
    Incident {
        id: format!("recovery-{run}-{id}"),
        name: name.to_owned(),
        colour,
        component: Component::Statistics,
        began_ms: *at_ms,
        over_ms: *done_ms,
        updates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(kind: Kind) -> Vec<Trouble> {
        vec![Trouble { kind, run: None, since_ms: None, sentence: "so it is".into() }]
    }

    fn ids(all: &[Incident]) -> Vec<(&str, Option<i64>)> {
        all.iter().map(|incident| (incident.id.as_str(), incident.over_ms)).collect()
    }

    #[test]
    fn an_incident_lasts_from_the_first_look_that_saw_it_to_the_first_that_did_not() {
        let mut incidents = Incidents::default();
        assert_eq!(ids(&incidents.see(&trouble(Kind::SpoolFull), &[], 10)), [("spool-full-10", None)]);
        assert_eq!(ids(&incidents.see(&trouble(Kind::SpoolFull), &[], 20)), [("spool-full-10", None)]);
        assert_eq!(ids(&incidents.see(&[], &[], 30)), [("spool-full-10", Some(30))]);
        let again = incidents.see(&trouble(Kind::SpoolFull), &[], 40);
        assert_eq!(ids(&again), [("spool-full-40", None), ("spool-full-10", Some(30))]);
    }

    #[test]
    fn a_short_yellow_light_and_a_maintenance_are_no_incidents() {
        let mut incidents = Incidents::default();
        assert_eq!(incidents.see(&trouble(Kind::Late), &[], 0), []);
        assert_eq!(incidents.see(&[], &[], SHORT_MS - 1), []);
        incidents.see(&trouble(Kind::Late), &[], 100_000);
        assert_eq!(ids(&incidents.see(&trouble(Kind::Late), &[], 160_000)), [("late-100000", None)]);
        assert_eq!(Incidents::default().see(&trouble(Kind::Paused), &[], 0), []);
    }

    #[test]
    fn a_stop_that_is_over_is_told_to_be_beside_what_the_log_tells_of_its_recovery() {
        let repair = Repair::GiveUp { from_ms: 0, to_ms: 60_000 };
        let recovery = Recovery {
            run: "live".into(),
            id: 5,
            repair,
            at_ms: 5,
            who: "ops".into(),
            reason: "a disk".into(),
            done_ms: Some(9),
            copy: None,
        };
        for kind in [Kind::Stopped, Kind::Lost] {
            let mut incidents = Incidents::default();
            let id = format!("{}-0", kind.word());
            incidents.see(&trouble(kind), &[], 0);
            assert_eq!(ids(&incidents.see(&trouble(kind), &[], 90_000)), [(id.as_str(), None)]);
            assert_eq!(ids(&incidents.see(&[], &[], 100_000)), [(id.as_str(), Some(100_000))]);
            let all = incidents.see(&[], std::slice::from_ref(&recovery), 110_000);
            assert_eq!(ids(&all), [("recovery-live-5", Some(9)), (id.as_str(), Some(100_000))]);
            assert!(
                all[0].updates[0].text.contains("00:00 UTC to 00:01 UTC cannot be computed and stay missing (a disk)")
            );
        }
    }

    #[test]
    fn a_copy_that_was_brought_back_is_told_as_that() {
        let recovery = Recovery {
            run: "live".into(),
            id: 5,
            repair: Repair::AskAgain { from_ms: 0 },
            at_ms: 60_000,
            who: "ops".into(),
            reason: "a new disk".into(),
            done_ms: None,
            copy: Some("nightly".into()),
        };
        let told = of_recovery(&recovery);
        expect_test::expect!["Statistics were brought back from a copy: The statistics are those of the copy nightly (a new disk); those from 00:00 UTC on are computed again. Nothing is lost."]
            .assert_eq(&format!("{}: {}", told.name, told.updates[0].text));
        let other = of_recovery(&Recovery { copy: None, ..recovery });
        assert_eq!(other.name, "Statistics stood still");
    }

    #[test]
    fn where_the_log_tells_when_it_began_every_console_tells_the_same_incident() {
        let mut silent = trouble(Kind::Silent);
        silent[0].since_ms = Some(30_000);
        let of = |first_look_ms: i64| Incidents::default().see(&silent, &[], first_look_ms);
        assert_eq!(ids(&of(100_000)), [("silent-30000", None)]);
        assert_eq!(of(100_000), of(250_000));
    }
}
