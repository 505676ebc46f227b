//! The same in the shape of Statuspage's public API, version 2, which monitors and clients of others read.
//!
//! Fields that mean nothing here have the value that Statuspage gives where nothing is set.

use serde_json::{Value, json};

use crate::{
    About, Colour, Component, ConversionTold, Eta, Incident, Maintenance, MaintenanceState, View, Working, words,
};

/// `summary.json`: everything that is of now or ahead.
pub(crate) fn summary(view: &View, about: &About) -> Value {
    json!({
        "page": page(view, about),
        "components": component_list(view),
        "incidents": incident_list(view, about, |incident| incident.over_ms.is_none()),
        "scheduled_maintenances": maintenance_list(view, about, |one| !is_past(one), |one| one.over_ms.is_none()),
        "status": state(view),
    })
}

/// `status.json`
pub(crate) fn status(view: &View, about: &About) -> Value {
    json!({ "page": page(view, about), "status": state(view) })
}

/// `components.json`
pub(crate) fn components(view: &View, about: &About) -> Value {
    json!({ "page": page(view, about), "components": component_list(view) })
}

/// `incidents.json`, and `incidents/unresolved.json`
pub(crate) fn incidents(view: &View, about: &About, only_open: bool) -> Value {
    let list = incident_list(view, about, |incident| !only_open || incident.over_ms.is_none());
    json!({ "page": page(view, about), "incidents": list })
}

/// Which maintenances are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Announced, and not begun.
    Upcoming,
    /// Begun, and not over.
    Active,
}

/// `scheduled-maintenances.json`, and its `upcoming.json` and `active.json`
pub(crate) fn maintenances(view: &View, about: &About, which: Which) -> Value {
    let of_maintenance = |one: &Maintenance| match which {
        Which::All => true,
        Which::Upcoming => one.state == MaintenanceState::Planned,
        Which::Active => !is_past(one) && one.state != MaintenanceState::Planned,
    };
    let of_conversion = |one: &ConversionTold| match which {
        Which::All => true,
        Which::Upcoming => false,
        Which::Active => one.over_ms.is_none(),
    };
    let list = maintenance_list(view, about, of_maintenance, of_conversion);
    json!({ "page": page(view, about), "scheduled_maintenances": list })
}

const PAGE_ID: &str = "weir";

fn page(view: &View, about: &About) -> Value {
    json!({
        "id": PAGE_ID,
        "name": about.name,
        "url": about.url,
        "time_zone": "Etc/UTC",
        "updated_at": words::machine(view.snapshot.at_ms),
    })
}

fn state(view: &View) -> Value {
    let fails =
        view.components.iter().any(|one| one.component == Component::Collection && one.status == Working::MajorOutage);
    let indicator = match view.status {
        Colour::Green => "none",
        Colour::Yellow => "minor",
        Colour::Red if fails => "critical",
        Colour::Red => "major",
    };
    json!({ "indicator": indicator, "description": view.sentence })
}

fn component_list(view: &View) -> Vec<Value> {
    view.components.iter().map(|one| component(view, one.component, one.status)).collect()
}

fn component(view: &View, component: Component, status: Working) -> Value {
    let created = words::machine(view.snapshot.began_ms.unwrap_or(view.snapshot.at_ms));
    json!({
        "id": component,
        "name": component.name(),
        "status": status,
        "created_at": created,
        "updated_at": words::machine(view.snapshot.at_ms),
        "position": component as usize + 1,
        "description": null,
        "showcase": true,
        "start_date": null,
        "group_id": null,
        "page_id": PAGE_ID,
        "group": false,
        "only_show_if_degraded": false,
    })
}

/// The component as it is now: of what is over, too, as Statuspage has it.
fn component_now(view: &View, of: Component) -> Vec<Value> {
    let mine = view.components.iter().filter(|one| one.component == of);
    mine.map(|one| component(view, one.component, one.status)).collect()
}

fn incident_list(view: &View, about: &About, of: impl Fn(&Incident) -> bool) -> Vec<Value> {
    view.incidents.iter().filter(|incident| of(incident)).map(|one| incident(view, about, one)).collect()
}

fn incident(view: &View, about: &About, incident: &Incident) -> Value {
    let status = if incident.over_ms.is_some() { "resolved" } else { "investigating" };
    let updates = incident.updates.iter().enumerate().rev().map(|(n, update)| {
        let is_end = incident.over_ms.is_some() && n + 1 == incident.updates.len();
        let status = if is_end { "resolved" } else { "investigating" };
        update_of(&incident.id, n, status, &update.text, update.at_ms)
    });
    let updated_ms = incident.updates.last().map_or(incident.began_ms, |update| update.at_ms);
    json!({
        "id": incident.id,
        "name": incident.name,
        "status": status,
        "created_at": words::machine(incident.began_ms),
        "updated_at": words::machine(updated_ms),
        "monitoring_at": null,
        "resolved_at": incident.over_ms.map(words::machine),
        "impact": match incident.colour {
            Colour::Green => "none",
            Colour::Yellow => "minor",
            Colour::Red if incident.component == Component::Collection => "critical",
            Colour::Red => "major",
        },
        "shortlink": about.url,
        "started_at": words::machine(incident.began_ms),
        "page_id": PAGE_ID,
        "incident_updates": updates.collect::<Vec<_>>(),
        "components": component_now(view, incident.component),
        "reminder_intervals": null,
    })
}

fn update_of(incident: &str, number: usize, status: &str, body: &str, at_ms: i64) -> Value {
    let at = words::machine(at_ms);
    json!({
        "id": format!("{incident}-{number}"),
        "status": status,
        "body": body,
        "incident_id": incident,
        "created_at": at,
        "updated_at": at,
        "display_at": at,
        "affected_components": null,
        "deliver_notifications": false,
        "custom_tweet": null,
        "tweet_id": null,
    })
}

fn is_past(maintenance: &Maintenance) -> bool {
    matches!(maintenance.state, MaintenanceState::Over | MaintenanceState::Withdrawn)
}

fn maintenance_list(
    view: &View,
    about: &About,
    of: impl Fn(&Maintenance) -> bool,
    of_conversion: impl Fn(&ConversionTold) -> bool,
) -> Vec<Value> {
    let snapshot = &view.snapshot;
    let maintenances = snapshot.maintenances.iter().filter(|one| of(one)).map(|one| maintenance(view, about, one));
    let conversions = snapshot.conversions.iter().filter(|one| of_conversion(one));
    maintenances.chain(conversions.map(|one| conversion(view, about, one))).collect()
}

/// A maintenance that touches no component.
fn conversion(view: &View, about: &About, one: &ConversionTold) -> Value {
    let id = one.public_id();
    let updates = one.steps.iter().enumerate().rev().map(|(n, step)| {
        let is_end = one.over_ms.is_some() && n + 1 == one.steps.len();
        update_of(&id, n, if is_end { "completed" } else { "in_progress" }, &step.text, step.at_ms)
    });
    let updated_ms = one.steps.last().map_or(one.began_ms, |step| step.at_ms);
    let of_now = view.snapshot.conversion.as_ref().filter(|of_now| of_now.id == one.id);
    let ready_ms = of_now.and_then(|of_now| of_now.eta).and_then(|eta| match eta {
        Eta::Between { latest_ms, .. } => Some(latest_ms),
        Eta::NotConverging | Eta::Unknown => None,
    });
    json!({
        "id": id,
        "name": one.title(),
        "status": if one.over_ms.is_some() { "completed" } else { "in_progress" },
        "created_at": words::machine(one.began_ms),
        "updated_at": words::machine(updated_ms),
        "monitoring_at": null,
        "resolved_at": one.over_ms.map(words::machine),
        "impact": "none",
        "shortlink": about.url,
        "started_at": words::machine(one.began_ms),
        "page_id": PAGE_ID,
        "incident_updates": updates.collect::<Vec<_>>(),
        "components": [],
        "reminder_intervals": null,
        "scheduled_for": words::machine(one.began_ms),
        "scheduled_until": words::machine(one.over_ms.or(ready_ms).unwrap_or(view.snapshot.at_ms)),
    })
}

fn maintenance(view: &View, about: &About, maintenance: &Maintenance) -> Value {
    let id = maintenance.public_id();
    let history = maintenance.history();
    let updates = history
        .iter()
        .enumerate()
        .rev()
        .map(|(n, update)| update_of(&id, n, state_of(update.step), &update.text, update.at_ms));
    let updated_ms = history.last().map_or(maintenance.announced_ms, |update| update.at_ms);
    let ends_ms = maintenance.ends_ms.or(maintenance.over_ms).unwrap_or(view.snapshot.at_ms);
    let (planned_ms, until_ms) = maintenance.planned_ms.unwrap_or((maintenance.begins_ms, ends_ms));
    json!({
        "id": id,
        "name": maintenance.title(),
        "status": state_of(maintenance.state),
        "created_at": words::machine(maintenance.announced_ms),
        "updated_at": words::machine(updated_ms),
        "monitoring_at": null,
        "resolved_at": maintenance.over_ms.map(words::machine),
        "impact": "maintenance",
        "shortlink": about.url,
        "started_at": words::machine(maintenance.begins_ms),
        "page_id": PAGE_ID,
        "incident_updates": updates.collect::<Vec<_>>(),
        "components": component_now(view, Component::Statistics),
        "reminder_intervals": null,
        "scheduled_for": words::machine(planned_ms),
        "scheduled_until": words::machine(until_ms),
    })
}

fn state_of(step: MaintenanceState) -> &'static str {
    match step {
        MaintenanceState::Planned => "scheduled",
        MaintenanceState::UnderWay => "in_progress",
        MaintenanceState::CatchingUp => "verifying",
        MaintenanceState::Over | MaintenanceState::Withdrawn => "completed",
    }
}
