use serde::{Deserialize, Serialize};
use weir_schemas::Missing;

use crate::{
    Colour, Component, Held, Incident, Kind, Snapshot, Trouble,
    incident::Incidents,
    light::{light, troubles},
};

/// A snapshot, and what to make of it: what `/status.json` answers and the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub status: Colour,
    /// What a user of the statistics wants to know, in one sentence.
    pub sentence: String,
    /// When the light turned to this colour, as far as this process has seen, or the log tells.
    pub since_ms: i64,
    /// Everything live before it is in the table, but what is being computed or missing.
    pub complete_through_ms: Option<i64>,
    /// Live windows that are not in the table, and will not be.
    pub missing: Vec<Missing>,
    /// The worst first.
    pub troubles: Vec<Trouble>,
    pub components: Vec<ComponentStatus>,
    /// The newest first.
    pub incidents: Vec<Incident>,
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    pub component: Component,
    pub status: Working,
}

/// How well a component works, in the words of Statuspage; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Working {
    Operational,
    UnderMaintenance,
    DegradedPerformance,
    PartialOutage,
    MajorOutage,
}

/// What is kept from view to view.
#[derive(Debug, Default)]
pub struct Memory {
    held: Held,
    light: Option<(Colour, i64)>,
    incidents: Incidents,
    /// The last one for which the log answered.
    of_log: Option<Snapshot>,
}

impl Memory {
    /// Judges `snapshot` after those before it.
    pub fn view(&mut self, snapshot: Snapshot) -> View {
        let (mut all, held) = troubles(&snapshot, self.held);
        let snapshot = match &self.of_log {
            // One look at which the log did not answer is none: what the last one saw of it still counts.
            Some(of_log) if snapshot.log_away.is_some() && !held.log_is_away() => {
                let Snapshot { at_ms, spool, spool_unreadable, disk, collector, clickhouse, .. } = snapshot;
                let seen = Snapshot { at_ms, spool, spool_unreadable, disk, collector, clickhouse, ..of_log.clone() };
                all = troubles(&seen, self.held).0;
                seen
            }
            _ => snapshot,
        };
        if snapshot.log_away.is_none() {
            self.of_log = Some(snapshot.clone());
        }
        self.held = held;
        let troubles = all;
        let (status, sentence) = light(&troubles, &snapshot);
        let told_ms = troubles.first().and_then(|worst| worst.since_ms);
        let began_ms = told_ms.unwrap_or(snapshot.at_ms).min(snapshot.at_ms);
        let since_ms = self.light.filter(|(colour, _)| *colour == status).map_or(began_ms, |(_, since_ms)| since_ms);
        self.light = Some((status, since_ms));
        View {
            status,
            sentence,
            since_ms,
            complete_through_ms: snapshot.complete_through_ms(),
            missing: snapshot.live().map(|live| live.missing.clone()).unwrap_or_default(),
            components: components(&troubles, &snapshot),
            incidents: self.incidents.see(&troubles, &snapshot.recoveries, snapshot.at_ms),
            troubles,
            snapshot,
        }
    }
}

/// Those that were asked.
fn components(troubles: &[Trouble], snapshot: &Snapshot) -> Vec<ComponentStatus> {
    let is_known = |component: &Component| match component {
        Component::Collection => snapshot.collector.is_some(),
        Component::Statistics => true,
        Component::Queries => snapshot.clickhouse.is_some(),
    };
    // Who has paused live may stop ClickHouse: that is the same maintenance.
    let is_paused = troubles.first().is_some_and(Trouble::is_pause_of_live);
    let working = |kind: Kind| match kind {
        Kind::QueriesFail if is_paused => Working::UnderMaintenance,
        kind => working(kind),
    };
    let status = |component: Component| {
        let mine = troubles.iter().filter(|trouble| Component::of(trouble.kind) == component);
        let status = mine.map(|trouble| working(trouble.kind)).max().unwrap_or(Working::Operational);
        let is_unseen = component == Component::Statistics && snapshot.log_away.is_some();
        let status = if is_unseen { status.max(Working::PartialOutage) } else { status };
        ComponentStatus { component, status }
    };
    Component::ALL.into_iter().filter(is_known).map(status).collect()
}

fn working(kind: Kind) -> Working {
    match kind {
        Kind::CollectionFails | Kind::LogAway | Kind::Lost | Kind::QueriesFail => Working::MajorOutage,
        Kind::Stopped | Kind::Silent => Working::PartialOutage,
        Kind::SpoolUnreadable
        | Kind::SpoolFull
        | Kind::DiskFull
        | Kind::RetentionLow
        | Kind::Spooling
        | Kind::CatchingUp
        | Kind::Late => Working::DegradedPerformance,
        Kind::Paused => Working::UnderMaintenance,
    }
}
