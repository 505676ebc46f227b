//! What is seen, as Prometheus gauges: the runs are processes of their own, and what they said in the log is shown here.

use std::fmt::Write;

use crate::{Colour, ConversionState, ConversionStatus, Eta, Kind, MaintenanceState, RunStatus, View};

/// Appends the gauges of `view` to `text`.
pub(crate) fn write(view: &View, text: &mut String) {
    of_all(view, text);
    of_troubles(view, text);
    of_runs(view, text);
    of_conversion(view, text);
}

fn of_all(view: &View, text: &mut String) {
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        if let Some(value) = value {
            let _ = writeln!(text, "{name} {value}");
        }
    };
    let colour = match view.status {
        Colour::Green => 0.0,
        Colour::Yellow => 1.0,
        Colour::Red => 2.0,
    };
    gauge("weir_status_colour", "0: green, 1: yellow, 2: red.", Some(colour));
    let computing: i64 = view.snapshot.computing.iter().map(|range| range.to_ms - range.from_ms).sum();
    gauge(
        "weir_status_computing_seconds",
        "Time before complete-through that is still to be computed.",
        Some(seconds(computing)),
    );
    let due = (view.snapshot.due_ms > 0).then(|| seconds(view.snapshot.due_ms));
    gauge("weir_status_due_seconds", "How old complete-through gets while all is on time.", due);
    let retention = view.snapshot.retention_s.map(|retention_s| retention_s as f64);
    gauge("weir_status_retention_seconds", "How long the log keeps live events.", retention);
    let set_aside = view.snapshot.control_unreadable as f64;
    gauge("weir_status_control_unreadable", "Records of the control topic that were set aside.", Some(set_aside));
    let open = view.incidents.iter().filter(|incident| incident.over_ms.is_none()).count();
    gauge("weir_status_incidents_open", "Incidents that last.", Some(open as f64));
}

fn of_troubles(view: &View, text: &mut String) {
    let name = "weir_status_trouble";
    let _ = writeln!(text, "# HELP {name} 1: something is so that should not be.\n# TYPE {name} gauge");
    for kind in Kind::ALL {
        let holds = view.troubles.iter().any(|trouble| trouble.kind == kind);
        let _ = writeln!(text, "{name}{{kind=\"{}\"}} {}", kind.word(), flag(holds));
    }
}

fn of_runs(view: &View, text: &mut String) {
    let snapshot = &view.snapshot;
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&RunStatus) -> Option<f64>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for run in &snapshot.runs {
            if let Some(value) = value(run) {
                let _ = writeln!(text, "{name}{{run=\"{}\"}} {value}", run.run);
            }
        }
    };
    gauge("weir_pipeline_lag_records", "Records of the log that the run has not read.", &|run| {
        Some(run.lag_records as f64)
    });
    gauge("weir_pipeline_lag_seconds", "Log time that the run is behind.", &|run| Some(seconds(run.lag_ms)));
    gauge("weir_pipeline_drain_records_per_second", "Records that the run reads.", &|run| Some(run.rates?.drain_per_s));
    gauge("weir_pipeline_arrival_records_per_second", "Records that come for the run.", &|run| {
        Some(run.rates?.arrival_per_s)
    });
    gauge(
        "weir_pipeline_eta_earliest_seconds",
        "Until the run has caught up, at least; not there when it is not known.",
        &|run| eta(run, snapshot.at_ms).map(|(earliest_ms, _)| seconds(earliest_ms)),
    );
    gauge(
        "weir_pipeline_eta_latest_seconds",
        "Until the run has caught up, at most; not there when it is not known.",
        &|run| eta(run, snapshot.at_ms).map(|(_, latest_ms)| seconds(latest_ms)),
    );
    gauge("weir_pipeline_not_converging", "1: the run is behind, and more comes than it reads.", &|run| {
        Some(flag(run.eta == Some(Eta::NotConverging)))
    });
    gauge("weir_pipeline_paused", "1: the run is paused by an operator.", &|run| {
        let mine = |state| {
            let of_run = snapshot.maintenances.iter().filter(|one| one.run.as_ref() == Some(&run.run));
            of_run.filter(|one| one.state == state).count() > 0
        };
        // A pause of what runs beside is no maintenance.
        Some(flag(mine(MaintenanceState::UnderWay) || run.paused.is_some()))
    });
    gauge("weir_pipeline_retention_headroom_seconds", "How long the log still keeps all that the run needs.", &|run| {
        run.retention_headroom_ms.map(seconds)
    });
    gauge("weir_pipeline_complete_through_seconds", "All before this Unix time is in the table.", &|run| {
        run.progress.as_ref()?.complete_through_ms.map(seconds)
    });
    gauge("weir_pipeline_watermark_seconds", "Unix time of the run's watermark.", &|run| {
        run.progress.as_ref()?.watermark_ms.map(seconds)
    });
    gauge("weir_pipeline_windows_open", "Windows that have not closed.", &|run| {
        run.progress.as_ref().map(|progress| progress.windows_open as f64)
    });
    gauge("weir_pipeline_waiting_seconds", "How long the run has waited for something that it tries again.", &|run| {
        let waiting = run.progress.as_ref()?.waiting.as_ref();
        Some(waiting.map_or(0.0, |waiting| seconds(snapshot.at_ms - waiting.since_ms)))
    });
    gauge("weir_pipeline_missing_seconds", "Time of which the windows were given up.", &|run| {
        Some(seconds(run.missing.iter().map(|missing| missing.to_ms - missing.from_ms).sum()))
    });
    gauge("weir_pipeline_stopped", "1: the run has stopped and a person is needed.", &|run| {
        run.progress.as_ref().map(|progress| flag(progress.stopped.is_some()))
    });
}

/// Only where one is under way there are values.
fn of_conversion(view: &View, text: &mut String) {
    let one = view.snapshot.conversion.as_ref();
    let name = "weir_conversion_state";
    let _ = writeln!(text, "# HELP {name} 1: the conversion is so far.\n# TYPE {name} gauge");
    for state in one.iter().flat_map(|_| ConversionState::ALL) {
        let holds = one.is_some_and(|one| one.state.word() == state);
        let _ = writeln!(text, "{name}{{state=\"{state}\"}} {}", flag(holds));
    }
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&ConversionStatus) -> Option<f64>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        if let Some(value) = one.and_then(value) {
            let _ = writeln!(text, "{name} {value}");
        }
    };
    let at_ms = view.snapshot.at_ms;
    gauge("weir_conversion_progress_ratio", "How much of the new generation is computed.", &|one| {
        Some(f64::from(one.done?.permille) / 1000.0)
    });
    gauge(
        "weir_conversion_eta_earliest_seconds",
        "Until it has caught up, at least; not there when it is not known.",
        &|one| within(one.eta, at_ms).map(|(earliest_ms, _)| seconds(earliest_ms)),
    );
    gauge(
        "weir_conversion_eta_latest_seconds",
        "Until it has caught up, at most; not there when it is not known.",
        &|one| within(one.eta, at_ms).map(|(_, latest_ms)| seconds(latest_ms)),
    );
    gauge("weir_conversion_not_converging", "1: more comes than its runs read.", &|one| {
        Some(flag(one.eta == Some(Eta::NotConverging)))
    });
    gauge("weir_conversion_share_ratio", "The share of the time that its runs work at most.", &|one| {
        Some(f64::from(one.share_permille) / 1000.0)
    });
    gauge("weir_conversion_paused", "1: it is paused by an operator.", &|one| Some(flag(one.paused.is_some())));
    gauge("weir_conversion_stopped", "1: one of its runs has stopped and a person is needed.", &|one| {
        Some(flag(one.stopped.is_some()))
    });
    gauge(
        "weir_conversion_differing",
        "Sums and values that must agree and did not when they were compared last.",
        &|one| match one.state {
            ConversionState::Differs { differing, .. } => Some(differing as f64),
            _ => Some(0.0),
        },
    );
}

fn eta(run: &RunStatus, at_ms: i64) -> Option<(i64, i64)> {
    within(run.eta, at_ms)
}

/// How long it takes at least, and at most.
fn within(eta: Option<Eta>, at_ms: i64) -> Option<(i64, i64)> {
    match eta? {
        Eta::Between { earliest_ms, latest_ms } => Some((earliest_ms - at_ms, latest_ms - at_ms)),
        Eta::NotConverging | Eta::Unknown => None,
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
