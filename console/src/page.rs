//! The page: everything of a [`View`] that a user of the statistics may ask, as HTML without scripts or styles in it.

use maud::{DOCTYPE, Markup, html};
use weir_schemas::control::{CARRIED_RUN, GAP_RUN};

use crate::{
    About, Colour, ConversionState, ConversionStatus, Eta, Incident, Kind, Maintenance, MaintenanceState, RunStatus,
    Trouble, View, Working,
    snapshot::{LIVE, gaps, length_ms},
    strip::{self, Hour},
    text, words,
};

pub(crate) const STYLE: &str = include_str!("page.css");
pub(crate) const SCRIPT: &str = include_str!("page.js");

/// Days of the strip.
const DAYS: i64 = 7;
/// Maintenances and incidents that are over, the newest.
const PAST_SHOWN: usize = 10;

/// The whole page.
pub(crate) fn page(view: &View, about: &About) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (about.name) " · " (word(view)) }
                link rel="icon" href="badge.svg" type="image/svg+xml";
                link rel="stylesheet" href="page.css";
                link rel="alternate" type="application/atom+xml" title="Maintenances and incidents" href="feed.atom";
                script src="page.js" defer {}
            }
            body {
                header { (about.name) }
                main id="now" { (now(view)) }
                footer {
                    p id="live" { "All times are UTC. Load the page again for newer ones." }
                    p {
                        a href="status.json" { "JSON" } " · " a href="feed.atom" { "Feed" } " · "
                        a href="api/v2/summary.json" { "Statuspage API" }
                    }
                }
            }
        }
    };
    markup.into_string()
}

/// What is between `<main>` and `</main>`; the same text as long as nothing has changed that it shows.
pub(crate) fn now(view: &View) -> Markup {
    html! {
        section.light.(class(view.status)) role="status" {
            p.word { (word(view)) }
            h1 { (view.sentence) }
            @for trouble in rest(view) { p { (trouble.sentence) } }
            p.small { "Since " (time(view.since_ms, view)) }
        }
        @if !view.components.is_empty() { (components(view)) }
        @if view.snapshot.log_away.is_none() { (hours(view)) }
        (progress(view))
        @if let Some(one) = &view.snapshot.conversion { (conversion(one, view)) }
        (maintenances(view))
        (incidents(view))
    }
}

/// What the sentence does not say.
fn rest(view: &View) -> impl Iterator<Item = &Trouble> {
    let is_paused = view.troubles.first().is_some_and(Trouble::is_pause_of_live);
    view.troubles.iter().skip(1).filter(move |trouble| !(is_paused && trouble.kind == Kind::QueriesFail))
}

fn time(at_ms: i64, view: &View) -> Markup {
    let text = words::time(at_ms, view.snapshot.at_ms);
    html! { time datetime=(words::machine(at_ms)) { (text.trim_end_matches(" UTC")) } }
}

fn class(colour: Colour) -> &'static str {
    match colour {
        Colour::Green => "green",
        Colour::Yellow => "yellow",
        Colour::Red => "red",
    }
}

fn word(view: &View) -> &'static str {
    match (view.status, view.troubles.first()) {
        (Colour::Red, _) => "Data at risk",
        (_, Some(trouble)) if trouble.kind.is_maintenance() => "Maintenance",
        (Colour::Yellow, _) => "Delayed",
        (Colour::Green, _) => "All is well",
    }
}

fn components(view: &View) -> Markup {
    html! {
        section {
            ul.components {
                @for one in &view.components {
                    @let (class, word) = match one.status {
                        Working::Operational => ("green", "works"),
                        Working::UnderMaintenance => ("yellow", "maintenance"),
                        Working::DegradedPerformance => ("yellow", "delayed"),
                        Working::PartialOutage => ("yellow", "interrupted"),
                        Working::MajorOutage => ("red", "down"),
                    };
                    li { span { (one.component.name()) } span.state.(class) { (word) } }
                }
            }
        }
    }
}

fn hours(view: &View) -> Markup {
    let snapshot = &view.snapshot;
    html! {
        section {
            h2 { "The last days, by hour" }
            div.strip {
                @for (day_ms, hours) in strip::days(snapshot, DAYS) {
                    div.day {
                        span.date { (day(day_ms)) }
                        @for (n, hour) in hours.into_iter().enumerate() {
                            @let (class, word) = of_hour(hour);
                            i.(class) title={ (day(day_ms)) " " (format!("{n:02}:00")) ": " (word) } {}
                        }
                    }
                }
                div.day.scale aria-hidden="true" { span.date {} @for n in [0, 6, 12, 18] { b { (format!("{n:02}")) } } }
            }
            ul.legend {
                @for hour in [Hour::Complete, Hour::Computing, Hour::Waiting, Hour::Missing, Hour::Before] {
                    @let (class, word) = of_hour(hour);
                    li { i.(class) {} (word) }
                }
            }
            @let ranges = ranges(view);
            @if !ranges.is_empty() { ul { @for range in ranges { li { (range) } } } }
        }
    }
}

/// What the colours of the strip say, in words, and which days are right only when they were replaced.
fn ranges(view: &View) -> Vec<Markup> {
    let computing = view.snapshot.computing.iter().map(|range| {
        html! { "Still being computed: " (time(range.from_ms, view)) " to " (time(range.to_ms, view)) }
    });
    let missing = view.missing.iter().map(|missing| {
        html! {
            "Missing: " (time(missing.from_ms, view)) " to " (time(missing.to_ms, view))
            @if !missing.reason.is_empty() { " (" (missing.reason) ")" }
        }
    });
    let replacing = view.snapshot.replacing.iter().map(|one| {
        html! { "Being corrected: " (words::days(&one.days)) ". Until that is done their numbers may change." }
    });
    computing.chain(missing).chain(replacing).collect()
}

fn of_hour(hour: Hour) -> (&'static str, &'static str) {
    match hour {
        Hour::Before => ("before", "nothing yet"),
        Hour::Complete => ("complete", "complete"),
        Hour::Computing => ("computing", "being computed"),
        Hour::Waiting => ("waiting", "computed later"),
        Hour::Missing => ("missing", "partly missing"),
        Hour::Ahead => ("ahead", "to come"),
    }
}

fn day(day_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(day_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%a %b %-d").to_string()
}

/// What is at work and has not caught up.
fn progress(view: &View) -> Markup {
    let behind: Vec<&RunStatus> = view.snapshot.runs_in_use().filter(|run| is_behind(run)).collect();
    html! {
        @if !behind.is_empty() {
            section {
                h2 { "At work" }
                @for run in behind {
                    p {
                        strong { (name(run)) } ": "
                        (left(run, view))
                        @match run.eta {
                            Some(Eta::Between { earliest_ms, latest_ms }) => {
                                ", ready between " (time(earliest_ms, view)) " and " (time(latest_ms, view))
                            }
                            Some(Eta::NotConverging) => { ", and more comes than is computed" }
                            Some(Eta::Unknown) | None => { ", too early to say when it is ready" }
                        }
                        @if let Some(rates) = run.rates {
                            ". " (words::number(rates.drain_per_s as i64)) " a second are read, "
                            (words::number(rates.arrival_per_s as i64)) " come"
                        }
                        "."
                    }
                    @if let Some((done, of)) = share(run, view) { progress value=(done) max=(of) {} }
                    @if let Some(kept) = run.eta_kept { p.small { "The last one " (text::render_kept(kept)) "." } }
                }
            }
        }
    }
}

/// What is computed beside all that, or was and is shown now.
fn conversion(one: &ConversionStatus, view: &View) -> Markup {
    let (class, word) = match one.state {
        _ if one.stopped.is_some() => ("yellow", "stands still"),
        _ if one.paused.is_some() => ("yellow", "paused"),
        ConversionState::Filling => ("planned", "being computed"),
        ConversionState::CaughtUp => ("planned", "computed"),
        ConversionState::Verified { .. } => ("green", "proved equal"),
        ConversionState::Differs { .. } => ("yellow", "not equal"),
        ConversionState::AboutToBeShown { .. } => ("green", "about to be shown"),
        ConversionState::Held { .. } | ConversionState::Dropping { swapped: true } => ("green", "shown"),
        ConversionState::Dropping { swapped: false } => ("planned", "withdrawn"),
    };
    let steps = view.snapshot.conversions.iter().find(|told| told.id == one.id).map(|told| &told.steps);
    html! {
        section {
            h2 { "A better version " span.state.(class) { (word) } }
            p { (one.sentence) }
            @if let (ConversionState::Filling, Some(done)) = (one.state, one.done) {
                progress value=(done.permille.min(999)) max="1000" {}
            }
            @if !one.reason.is_empty() { p.small { "Why: " (one.reason) } }
            @if let Some(steps) = steps { ol.updates { @for step in steps { li { (time(step.at_ms, view)) " " (step.text) } } } }
        }
    }
}

fn left(run: &RunStatus, view: &View) -> Markup {
    if run.run != CARRIED_RUN {
        return html! { (words::number(run.lag_records)) " records to go" };
    }
    match run.progress.as_ref().and_then(|progress| progress.complete_through_ms) {
        Some(through_ms) => html! { "complete through " (time(through_ms, view)) },
        None => html! { "not begun yet" },
    }
}

fn is_behind(run: &RunStatus) -> bool {
    let is_at_work = run.progress.as_ref().is_none_or(|progress| progress.stopped.is_none() && !progress.ended);
    is_at_work && run.eta.is_some()
}

fn name(run: &RunStatus) -> String {
    match run.run.as_str() {
        "live" => "Statistics of now".to_owned(),
        GAP_RUN => "What was left out".to_owned(),
        CARRIED_RUN => "What is carried over from the version before".to_owned(),
        run => run.strip_prefix("import-").map_or_else(|| run.to_owned(), |id| format!("Import {id}")),
    }
}

/// How much of a catch-up is done, in minutes of log time.
fn share(run: &RunStatus, view: &View) -> Option<(i64, i64)> {
    let snapshot = &view.snapshot;
    let (done_ms, all_ms) = match run.run.as_str() {
        GAP_RUN => {
            let all_ms = length_ms(&gaps(&snapshot.maintenances));
            (all_ms - length_ms(&snapshot.computing), all_ms)
        }
        LIVE => {
            let mut catching_up = snapshot.maintenances.iter().filter(|one| one.state == MaintenanceState::CatchingUp);
            let from_ms =
                catching_up.find(|one| one.run.as_deref() == Some(LIVE) && one.left_to_ms.is_none())?.paused_ms?;
            (view.complete_through_ms? - from_ms, snapshot.at_ms - snapshot.due_ms - from_ms)
        }
        _ => return None,
    };
    let minutes = |ms: i64| ms.max(0) / 60_000;
    Some((minutes(done_ms), minutes(all_ms).max(1)))
}

fn maintenances(view: &View) -> Markup {
    let all = &view.snapshot.maintenances;
    let is_past = |one: &&Maintenance| matches!(one.state, MaintenanceState::Over | MaintenanceState::Withdrawn);
    let shown: Vec<_> =
        all.iter().filter(|one| !is_past(one)).chain(all.iter().filter(is_past).take(PAST_SHOWN)).collect();
    html! {
        @if !shown.is_empty() || view.snapshot.log_away.is_none() {
            section {
                h2 { "Maintenances" }
                @if shown.is_empty() { p { "None was announced." } }
                @for one in shown { (maintenance(one, view)) }
            }
        }
    }
}

fn maintenance(one: &Maintenance, view: &View) -> Markup {
    let (class, word) = match one.state {
        MaintenanceState::Planned => ("planned", "planned"),
        MaintenanceState::UnderWay => ("yellow", "under way"),
        MaintenanceState::CatchingUp => ("yellow", "catching up"),
        MaintenanceState::Over => ("green", "over"),
        MaintenanceState::Withdrawn => ("planned", "withdrawn"),
    };
    html! {
        article {
            h3 { (one.title()) " " span.state.(class) { (word) } }
            p.small {
                (time(one.begins_ms, view)) " to "
                @match one.over_ms.filter(|_| one.state != MaintenanceState::Withdrawn).or(one.ends_ms) {
                    Some(ms) => { (time(ms, view)) }
                    None => { "an end that nobody has named" }
                }
                @if let Some(run) = one.run.as_deref().filter(|run| *run != "live") { " · " (run) }
                @if let Some(kept) = one.eta { " · the end " (text::render_kept(kept)) }
            }
            ol.updates { @for step in one.history() { li { (time(step.at_ms, view)) " " (step.text) } } }
        }
    }
}

fn incidents(view: &View) -> Markup {
    let open = view.incidents.iter().filter(|one| one.over_ms.is_none());
    let over = view.incidents.iter().filter(|one| one.over_ms.is_some()).take(PAST_SHOWN);
    let shown: Vec<&Incident> = open.chain(over).collect();
    html! {
        @if !shown.is_empty() {
            section {
                h2 { "Incidents" }
                @for one in shown {
                    article {
                        h3 {
                            (one.name) " "
                            @match one.over_ms {
                                Some(_) => { span.state.green { "over" } }
                                None => { span.state.(class(one.colour)) { "open" } }
                            }
                        }
                        ol.updates { @for update in &one.updates { li { (time(update.at_ms, view)) " " (update.text) } } }
                    }
                }
            }
        }
    }
}
