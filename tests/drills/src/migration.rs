//! A conversion, as an operator has it: its verbs, how far it is, and when the other generation is shown.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::Value;
use weir_log::{Clock as _, SystemClock};

use crate::{
    faults::Stage,
    patience::{wait_for, wait_while_it_moves},
    site::Schema,
};

/// `weir migrate plan`, and how long it says that the conversion takes, in its words.
pub(crate) fn plan(stage: &Stage<'_>, schema: &Schema) -> anyhow::Result<String> {
    stage.say("weir migrate plan");
    let said = stage.site.migrate(&stage.target, &["plan", "--file", &schema.file.display().to_string()])?;
    let to = format!("from generation {} to {}", stage.site.version.number, schema.version.number);
    ensure!(said.contains(&to), "the plan is another one: {said}");
    Ok(takes(&said))
}

/// "takes about 2m 5s: a rehearsal read …"; nothing where that is not known.
fn takes(plan: &str) -> String {
    let mut lines = plan.lines().filter_map(|line| line.strip_prefix("takes about ")?.split_once(':'));
    lines.next().map(|(takes, _)| takes.to_owned()).unwrap_or_default()
}

/// `weir migrate start`.
pub(crate) fn start(stage: &Stage<'_>, schema: &Schema) -> anyhow::Result<()> {
    stage.say("weir migrate start");
    let file = schema.file.display().to_string();
    stage.site.migrate(&stage.target, &["start", "--file", &file, "--reason", "a drill"]).map(drop)
}

/// How far the conversion is, by `/status.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Far {
    /// Thousandths.
    pub(crate) done: u64,
    /// It is not there yet that it has caught up.
    pub(crate) is_filling: bool,
    pub(crate) has_caught_up: bool,
    /// When it will have caught up, the middle of the range; ms since the Unix epoch.
    pub(crate) eta_ms: Option<i64>,
}

impl Far {
    pub(crate) fn of(conversion: &Value) -> Far {
        let eta = &conversion["eta"];
        let range = eta["earliest_ms"].as_i64().zip(eta["latest_ms"].as_i64());
        Far {
            done: conversion["done"]["permille"].as_u64().unwrap_or_default(),
            is_filling: conversion["state"]["is"] == "filling",
            has_caught_up: conversion["state"]["is"] == "caught_up",
            eta_ms: range.map(|(earliest_ms, latest_ms)| earliest_ms.midpoint(latest_ms)),
        }
    }

    /// Nothing while the collector, whose console says it, is away.
    fn now(stage: &Stage<'_>) -> Far {
        let conversion = stage.readers.seen.conversion.lock().unwrap_or_else(PoisonError::into_inner);
        Far::of(&conversion)
    }
}

/// Waits until it is so far. Errors: it has caught up before.
pub(crate) fn wait_until(stage: &mut Stage<'_>, what: &str, is_so_far: impl Fn(&Far) -> bool) -> anyhow::Result<Far> {
    let seen = stage.readers.seen.clone();
    wait_while_it_moves(what, || {
        stage.collector.lives()?;
        stage.pipeline.lives()?;
        let far = Far::now(stage);
        let through_ms = seen.complete_through_ms.load(std::sync::atomic::Ordering::SeqCst);
        if is_so_far(&far) {
            return Ok(Ok(far));
        }
        ensure!(!far.has_caught_up, "waited for {what}, and the shadow has caught up before: {TOO_FAST}");
        Ok(Err((far.done, through_ms)))
    })
}

/// What is to be seen while the shadow is filled was not.
const TOO_FAST: &str = "there is too little to fill it with on this machine (more --events)";

/// Errors: the shadow is not being filled any more, by a status that nobody has seen before now.
pub(crate) fn still_fills(stage: &Stage<'_>, when: &str) -> anyhow::Result<()> {
    let conversion = &stage.readers.seen.conversion;
    *conversion.lock().unwrap_or_else(PoisonError::into_inner) = Value::Null;
    let seen = wait_for("the conversion's status", || {
        let conversion = conversion.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(conversion.clone()).filter(|conversion| !conversion.is_null()))
    })?;
    let (is_filling, state) = (Far::of(&seen).is_filling, &seen["state"]["is"]);
    ensure!(is_filling, "{when} the shadow was not being filled any more, it was {state}: {TOO_FAST}");
    Ok(())
}

/// Waits until the new generation has all that the old one has.
pub(crate) fn caught_up(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    wait_until(stage, "the shadow to catch up", |far| far.has_caught_up)?;
    stage.say("the shadow has caught up");
    Ok(())
}

/// How long the rest takes, as it was said now.
pub(crate) fn rest(far: &Far) -> Option<Duration> {
    let rest_ms = far.eta_ms? - SystemClock.now_ms();
    u64::try_from(rest_ms).ok().map(Duration::from_millis)
}

/// `weir migrate verify`: whether all that must be equal is, and how long that took.
pub(crate) fn agrees(stage: &Stage<'_>) -> anyhow::Result<(bool, Duration)> {
    stage.say("weir migrate verify");
    let begin = Instant::now();
    let verified = stage.site.migrate(&stage.target, &["verify"])?;
    Ok((verified.contains("both generations agree"), begin.elapsed()))
}

/// `weir migrate swap`, or `revert`: until the other generation is shown, how long that took.
pub(crate) fn show(stage: &Stage<'_>, verb: &str) -> anyhow::Result<Duration> {
    stage.say(&format!("weir migrate {verb}"));
    let ready: &[&str] = if verb == "swap" { &["--when-ready", "--hold", "0s"] } else { &[] };
    let begin = Instant::now();
    wait_for("the swap", || {
        let words = [&[verb, "--reason", "a drill"], ready].concat();
        Ok(stage.site.migrate(&stage.target, &words).ok())
    })?;
    Ok(begin.elapsed())
}

/// Whether `weir migrate drop` was refused because the other generation is held as the way back, and for nothing else.
pub(crate) fn is_held(dropped: &anyhow::Result<String>) -> bool {
    dropped.as_ref().is_err_and(|error| error.to_string().contains("it is held until "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_long_it_takes_is_said_by_the_line_of_the_plan_that_does() {
        let plan = "to replay: 5 events\ntakes about 2m 5s: a rehearsal read 9 events/s\ndisk: about 1 MiB needed";
        assert_eq!(takes(plan), "2m 5s");
        assert_eq!(takes("how long it takes is not known: there is nothing yet to rehearse with"), "");
    }

    #[test]
    fn how_far_it_is_is_what_the_status_says() {
        let eta = json!({"is": "between", "earliest_ms": 10_000, "latest_ms": 20_000});
        let filling = json!({"state": {"is": "filling"}, "done": {"permille": 500}, "eta": eta});
        let seen = Far { done: 500, is_filling: true, has_caught_up: false, eta_ms: Some(15_000) };
        assert_eq!(Far::of(&filling), seen);
        let caught_up = json!({"state": {"is": "caught_up"}, "done": {"permille": 1000}, "eta": null});
        let seen = Far { done: 1000, is_filling: false, has_caught_up: true, eta_ms: None };
        assert_eq!(Far::of(&caught_up), seen);
        let unknown = json!({"state": {"is": "filling"}, "eta": {"is": "unknown"}});
        assert_eq!(Far::of(&unknown), Far { is_filling: true, ..Far::default() });
        assert_eq!(Far::of(&Value::Null), Far::default());
    }

    #[test]
    fn a_drop_that_was_refused_for_another_reason_or_done_is_not_one_that_was_held() {
        let refused = |why: &str| is_held(&Err(anyhow::anyhow!("weir [\"migrate\", \"drop\"]: {why}")));
        assert!(refused("Error: it is held until 2026-11-28 10:10:00 UTC: the way back (`weir migrate revert`)"));
        assert!(!refused("Error: another generation is about to be shown (`weir migrate status`)"));
        assert!(!refused("Error: clickhouse does not answer"));
        assert!(!is_held(&Ok("dropped: generation 1, as it is held until it is gone".to_owned())));
    }
}
