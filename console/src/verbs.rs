//! What a verb of an operator comes to: facts in, decision out.
//!
//! ```text
//!  control (how the run is held) ─┐
//!  log (what waits, what it keeps) ┼─▶ Known ──▶ decide(command) ──▶ Planned: one record, and what it means · Refusal
//!  clock                          ─┘
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_schemas::{
    CLOCK_BOUND_MS, Decision, Hold, UNHINDERED_PERMILLE, WindowWidth,
    control::{Action, ControlRecord},
    progress::RunProgress,
};

use crate::{
    control::Ended,
    guard::{APART_MS, Bound, BySize, Kept},
    pace::{catch_up_ms, log_pace},
    text::instant,
    words::span,
};

/// What an operator wants of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Pause,
    Resume,
    Throttle,
}

/// The body of a command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Command {
    /// Names the command, ms by the console's clock; one that comes again is answered as the first time. `None`: a new one.
    pub id: Option<i64>,
    /// Who sits before the terminal.
    pub user: String,
    /// Why: kept for ever.
    pub reason: String,
    /// Of a pause: how long, as in `2h`.
    pub r#for: Option<String>,
    /// Of a pause: until when, `14:00` (the next such time, UTC) or RFC 3339.
    pub until: Option<String>,
    /// Of a pause: also if the log will not keep so long what the run needs.
    pub allow_loss: bool,
    /// Of a resume: today first.
    pub live_first: bool,
    /// Of a throttle: the share of the time that the run works, above 0 and at most 1.
    pub share: Option<f64>,
    /// Nothing is written.
    pub dry_run: bool,
}

/// What is known when it is decided. Times are ms since the Unix epoch.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) run: String,
    /// All runs there are.
    pub(crate) runs: Vec<String>,
    pub(crate) hold: Hold,
    pub(crate) progress: Option<RunProgress>,
    /// It has stopped over something, and nobody has recovered it since.
    pub(crate) stopped: bool,
    /// It has done all there is for it.
    pub(crate) ended: bool,
    /// Records that the run has not read.
    pub(crate) lag_records: i64,
    /// Records that come in a second, lately.
    pub(crate) arrival_per_s: f64,
    /// `None`: the run has never said how far it is.
    pub(crate) kept: Option<Kept>,
    /// The schema version's, for where the present begins.
    pub(crate) width: WindowWidth,
    pub(crate) lateness_ms: i64,
    pub(crate) now_ms: i64,
    /// The same by the log's clock, as far as it is known.
    pub(crate) log_now_ms: i64,
}

/// What is written, and what that means, a sentence each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) action: Action,
    pub(crate) safe_until_ms: Option<i64>,
    pub(crate) said: Vec<String>,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The command makes no sense.
    Wrong(String),
    UnknownRun(String),
    /// It makes none as things are.
    NotNow(String),
}

/// The longest reason, and the longest name of a user.
const REASON_BYTES_MAX: usize = 500;
const USER_BYTES_MAX: usize = 64;

pub(crate) fn decide(known: &Known, verb: Verb, command: &Command, id: i64) -> Result<Planned, Refusal> {
    if !known.runs.contains(&known.run) {
        let runs = known.runs.join(", ");
        return Err(Refusal::UnknownRun(format!("there is no run {} (there are: {runs})", known.run)));
    }
    if !command.dry_run || !command.reason.is_empty() {
        check_words(&command.user, &command.reason)?;
    }
    let mut planned = match verb {
        Verb::Pause => pause(known, command, id),
        Verb::Resume => resume(known, command, id),
        Verb::Throttle => throttle(known, command, id),
    }?;
    planned.said.extend(say_clocks(known));
    Ok(planned)
}

/// Whether it may be kept for ever, as the reason of whatever is ordered; the error says why not.
pub fn check_reason(reason: &str) -> Result<(), String> {
    if reason.trim().is_empty() {
        return Err("a reason is missing: it is kept with who and when (say --reason \"…\")".to_owned());
    }
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(
            "the reason is longer than 500 bytes, or holds control characters (write one plain line)".to_owned()
        );
    }
    Ok(())
}

pub(crate) fn check_words(user: &str, reason: &str) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(Refusal::Wrong(what.to_owned()));
    check_reason(reason).map_err(Refusal::Wrong)?;
    if user.len() > USER_BYTES_MAX || user.chars().any(char::is_control) {
        return wrong("the user's name is longer than 64 bytes, or holds control characters (write one plain name)");
    }
    Ok(())
}

fn pause(known: &Known, command: &Command, id: i64) -> Result<Planned, Refusal> {
    let Known { run, hold, now_ms, .. } = known;
    if let Some(pause) = hold.paused() {
        let until = pause.until_ms.map_or(String::new(), |until_ms| format!(", until {}", instant(Some(until_ms))));
        return Err(Refusal::NotNow(format!(
            "{run} is paused since {} by {}, \"{}\"{until} (`weir resume {run}` first, to pause it otherwise)",
            instant(Some(pause.by.at_ms)),
            pause.by.who,
            pause.by.reason
        )));
    }
    if known.ended {
        return Err(Refusal::NotNow(format!("{run} is done: there is nothing to pause")));
    }
    let until_ms = until_ms(command, *now_ms)?;
    let safe_until_ms = known.kept.and_then(|kept| kept.safe_until_ms());
    if let Some(safe_until_ms) = safe_until_ms.filter(|_| !command.allow_loss) {
        let anyway = "or say --allow-loss if what the log deletes meanwhile may be missing";
        if *now_ms >= safe_until_ms {
            return Err(Refusal::NotNow(format!(
                "any pause would lose data: {run} is so far behind that the log deletes what it needs next, a pause was safe \
                 until {} (let it catch up, raise the topic's retention, {anyway})",
                instant(Some(safe_until_ms)),
            )));
        }
        if let Some(until_ms) = until_ms.filter(|until_ms| *until_ms >= safe_until_ms) {
            return Err(Refusal::NotNow(format!(
                "a pause until {} would lose data: the log keeps what {run} needs for a pause until {} (make it shorter, raise \
                 the topic's retention, {anyway})",
                instant(Some(until_ms)),
                instant(Some(safe_until_ms)),
            )));
        }
    }
    let until = match until_ms {
        Some(until_ms) => format!("for {}, until {}", span(until_ms - now_ms), instant(Some(until_ms))),
        None => format!("until `weir resume {run}`"),
    };
    let mut said = vec![match known.stopped {
        true => format!(
            "{run} has STOPPED already (`weir status` says why): it stays so, recovered or not, {until}; hits are collected on"
        ),
        false => format!("{run} stops at its next batch boundary, {until}; hits are collected on"),
    }];
    said.extend(say_kept(known, command.allow_loss));
    if command.allow_loss && safe_until_ms.is_some_and(|safe_ms| until_ms.is_none_or(|until_ms| until_ms > safe_ms)) {
        said.push("what the log deletes after that is MISSING in the statistics, for ever".to_owned());
    }
    said.extend(say_backlog(known, until_ms));
    let (run, allow_loss) = (run.clone(), command.allow_loss);
    Ok(Planned { action: Action::Pause { run, id, until_ms, allow_loss }, safe_until_ms, said })
}

/// Until when; `None`: until somebody says so.
fn until_ms(command: &Command, now_ms: i64) -> Result<Option<i64>, Refusal> {
    let until_ms = match (&command.r#for, &command.until) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Refusal::Wrong("--for and --until say the same (leave one)".to_owned())),
        (Some(text), None) => parse_span(text, now_ms)?,
        (None, Some(text)) => parse_time("--until", text, now_ms)?,
    };
    if until_ms <= now_ms {
        return Err(Refusal::Wrong(format!(
            "{} is not ahead: it is {} by the console's clock (say a later time)",
            instant(Some(until_ms)),
            instant(Some(now_ms))
        )));
    }
    Ok(Some(until_ms))
}

/// The end of a span as in `2h 30m` from `from_ms` on.
pub(crate) fn parse_span(text: &str, from_ms: i64) -> Result<i64, Refusal> {
    let wrong = |error| Refusal::Wrong(format!("--for {text}: {error} (write it as in 2h 30m)"));
    let span = humantime::parse_duration(text).map_err(|error| wrong(error.to_string()))?;
    let span_ms = i64::try_from(span.as_millis()).map_err(|error| wrong(error.to_string()))?;
    from_ms.checked_add(span_ms).ok_or_else(|| wrong("that is too long".to_owned()))
}

/// `14:00`, the next such time in UTC, or an instant of RFC 3339.
pub(crate) fn parse_time(flag: &str, text: &str, now_ms: i64) -> Result<i64, Refusal> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    // As weir says it.
    let said = text.strip_suffix(" UTC").and_then(|said| said.parse::<jiff::civil::DateTime>().ok());
    if let Some(at) = said.and_then(|said| jiff::tz::TimeZone::UTC.to_timestamp(said).ok()) {
        return Ok(at.as_millisecond());
    }
    let wrong = || Refusal::Wrong(format!("{flag} {text} is no time (write 14:00, in UTC, or 2026-03-01T14:00:00Z)"));
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str, below: i64| digits.parse::<i64>().ok().filter(|number| (0..below).contains(number));
    let (hours, minutes) = number(hours, 24).zip(number(minutes, 60)).ok_or_else(wrong)?;
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let today_ms = now_ms - now_ms.rem_euclid(DAY_MS) + (hours * 60 + minutes) * 60_000;
    Ok(if today_ms > now_ms { today_ms } else { today_ms + DAY_MS })
}

fn resume(known: &Known, command: &Command, id: i64) -> Result<Planned, Refusal> {
    let Known { run, hold, now_ms, .. } = known;
    if command.live_first && run != "live" {
        return Err(Refusal::Wrong(format!("--live-first is for live: {run} has no present (leave it out)")));
    }
    let Some(pause) = hold.paused() else {
        let instead = match known.stopped {
            true => format!(": it has stopped (`weir status` says why, `weir recover {run}` lets it go on)"),
            false => ", there is nothing to resume".to_owned(),
        };
        return Err(Refusal::NotNow(format!("{run} is not paused{instead}")));
    };
    let through_ms = pause.paused_ms.or_else(|| through_ms(known));
    // As a record's arrival is: a stamp further ahead counts as this, and no window closes by more.
    let present_ms = known.log_now_ms.min(now_ms + CLOCK_BOUND_MS);
    let left_to_ms = command.live_first.then(|| known.width.window_of(present_ms - known.lateness_ms).ms());
    let from = match through_ms {
        Some(_) => instant(through_ms),
        None => "where it was".to_owned(),
    };
    let mut said = vec![match left_to_ms {
        Some(left_to_ms) if through_ms.is_some_and(|through_ms| through_ms >= left_to_ms) => {
            format!("{run} goes on from {from}: nothing lies before the present")
        }
        Some(left_to_ms) => format!(
            "{run} goes on at {}; what lies between {from} and there is filled by the run gap, beside it",
            instant(Some(left_to_ms)),
        ),
        None => format!("{run} goes on from {from}, in order"),
    }];
    if known.stopped {
        said.push(format!(
            "it has STOPPED, and goes on only after `weir recover {run}` (`weir status` says why it has)"
        ));
    }
    said.push(format!("{} records wait for it", known.lag_records));
    said.extend(through_ms.map(|through_ms| say_catch_up(known, now_ms - through_ms)));
    said.extend(say_kept(known, true));
    let safe_until_ms = known.kept.and_then(|kept| kept.safe_until_ms());
    Ok(Planned { action: Action::Resume { run: run.clone(), id, left_to_ms }, safe_until_ms, said })
}

fn throttle(known: &Known, command: &Command, id: i64) -> Result<Planned, Refusal> {
    let Known { run, hold, .. } = known;
    let share = command.share.unwrap_or(f64::NAN);
    let permille = (share * f64::from(UNHINDERED_PERMILLE)).round();
    if !(permille >= 1.0 && share <= 1.0) {
        return Err(Refusal::Wrong(format!(
            "a share of {share} is not above 0 and at most 1 (0.25: the run works a quarter of the time; 1: unhindered)"
        )));
    }
    if known.ended {
        return Err(Refusal::NotNow(format!("{run} is done: there is nothing to slow down")));
    }
    let permille = permille as u16;
    let percent = |permille: u16| f64::from(permille) / 10.0;
    let before = hold.throttle.as_ref().map_or(String::new(), |by| format!(", by {}, \"{}\"", by.who, by.reason));
    let mut said = vec![format!(
        "{run} works at most {} % of the time (before: {} %{before})",
        percent(permille),
        percent(hold.permille),
    )];
    said.push(match pace(hold) {
        // What it did was done at the share that it had.
        Some(pace) if pace * f64::from(permille) / f64::from(hold.permille) > 1.0 => {
            format!("it still keeps up: it did {pace:.1} seconds of log in a second when it caught up last")
        }
        Some(pace) => format!(
            "it FALLS BEHIND: it did {pace:.1} seconds of log in a second when it caught up last, that is not enough"
        ),
        None => format!(
            "whether it still keeps up is not known before it has caught up once; {} records wait for it",
            known.lag_records
        ),
    });
    said.extend(say_kept(known, true));
    said.extend(later(known, Verb::Throttle));
    let safe_until_ms = known.kept.and_then(|kept| kept.safe_until_ms());
    Ok(Planned { action: Action::Throttle { run: run.clone(), id, permille }, safe_until_ms, said })
}

fn through_ms(known: &Known) -> Option<i64> {
    known.progress.as_ref()?.complete_through_ms
}

/// That the log has another clock than the console.
fn say_clocks(known: &Known) -> Option<String> {
    let apart_ms = known.log_now_ms - known.now_ms;
    let words = if apart_ms > 0 { "ahead of" } else { "behind" };
    (apart_ms.abs() > APART_MS).then(|| {
        format!(
            "CLOCKS: the log's is {} {words} the console's, by which `until` and `safe until` are (run NTP on both machines)",
            span(apart_ms.abs())
        )
    })
}

/// Until when the log keeps what the run needs.
fn say_kept(known: &Known, only_tells: bool) -> Vec<String> {
    let Known { run, kept, .. } = known;
    let Some(kept) = kept else {
        return vec![format!("how long the log keeps what {run} needs is not known: it has not said how far it is")];
    };
    let mut said = Vec::new();
    match kept.bound() {
        None => said.push("the log keeps what it needs for ever: no pause is too long".to_owned()),
        Some(Bound { safe_until_ms, lost_ms, by_size }) => {
            let because = match kept.retention_ms.filter(|_| !by_size) {
                Some(retention_ms) => format!("it keeps {}", span(retention_ms)),
                None => "then its bytes a partition are nearly full, if as much is appended as lately".to_owned(),
            };
            let (then, margin) =
                (if only_tells { "" } else { "; it is resumed by itself then" }, lost_ms - safe_until_ms);
            let until = instant(Some(safe_until_ms));
            said.push(format!("safe until {until}{then} ({because}; {} before is the margin)", span(margin)));
        }
    }
    if let BySize::NotKnown { bytes } = kept.by_size {
        said.push(format!(
            "the topic is also cut at {bytes} bytes a partition, and nothing was appended lately: when that is reached is \
             not known (set its retention.bytes to -1)"
        ));
    }
    said
}

fn say_backlog(known: &Known, until_ms: Option<i64>) -> Vec<String> {
    let Known { arrival_per_s, now_ms, .. } = known;
    let rate = format!("{arrival_per_s:.1} records a second come in");
    match until_ms {
        Some(until_ms) => {
            let waiting = known.lag_records + ((until_ms - now_ms) as f64 / 1000.0 * arrival_per_s) as i64;
            let behind_ms = until_ms - through_ms(known).unwrap_or(*now_ms);
            vec![format!("{rate}: about {waiting} wait then"), say_catch_up(known, behind_ms)]
        }
        None => vec![rate],
    }
}

/// How long catching up takes with so much of the log.
fn say_catch_up(known: &Known, behind_ms: i64) -> String {
    match pace(&known.hold).map(|pace| (pace, catch_up_ms(pace, behind_ms))) {
        Some((pace, Some(takes_ms))) => {
            format!("catching up takes about {}: last time it did {pace:.1} seconds of log in a second", span(takes_ms))
        }
        Some((pace, None)) => format!("it does not catch up at its last pace, {pace:.1} seconds of log in a second"),
        None => "how long catching up takes is not known before it has caught up once".to_owned(),
    }
}

/// Seconds of log in a second, when the run caught up last.
fn pace(hold: &Hold) -> Option<f64> {
    hold.pauses.iter().rev().find_map(|pause| {
        let resume = pause.resume.as_ref().filter(|resume| resume.again_ms.is_none())?;
        log_pace(pause.paused_ms?, resume.by.at_ms, resume.caught_up_ms?)
    })
}

/// What became of the decision `id`: the boundary where it took effect.
pub(crate) fn effect(hold: &Hold, id: i64) -> Option<i64> {
    hold.pauses.iter().find_map(|pause| {
        if pause.by.id == id {
            return pause.paused_ms;
        }
        pause.resume.as_ref().filter(|resume| resume.by.id == id)?.resumed_ms
    })
}

/// The share that the run works with, if it has heard of the throttle `record`: a gap's may be less than that one's.
pub(crate) fn works_permille(known: &Known, record: &ControlRecord) -> Option<u16> {
    let Action::Throttle { id, .. } = record.action else { return None };
    let told = known.progress.as_ref().filter(|told| told.throttle == Some(id) && !known.stopped);
    told.and_then(|told| told.permille)
}

/// Why a throttle has nothing to take effect on, and when it counts.
pub(crate) fn later(known: &Known, verb: Verb) -> Option<String> {
    let Known { run, hold, stopped, ended, .. } = known;
    if verb != Verb::Throttle {
        return None;
    }
    match (hold.paused(), stopped) {
        _ if *ended => Some(format!("{run} is done meanwhile: there is nothing to slow down")),
        (Some(_), _) => Some(format!("{run} is paused: it works with that share from its resume on")),
        (None, true) => Some(format!(
            "{run} has STOPPED: it works with that share when it goes on (`weir status` says why it has, `weir recover {run}` \
             lets it go on)"
        )),
        (None, false) => None,
    }
}

/// Who ended the pause `id`, paused again what the resume `id` was to let go on, or gave another share than the throttle `id`.
pub(crate) fn ended(hold: &Hold, verb: Verb, id: i64) -> Option<Ended> {
    let by_of = |by: &Decision| Ended { at_ms: by.at_ms, who: by.who.clone(), reason: by.reason.clone() };
    if verb == Verb::Throttle {
        return hold.throttle.as_ref().filter(|by| by.id != id).map(by_of);
    }
    let by = hold.pauses.iter().enumerate().find_map(|(at, pause)| {
        let resume = pause.resume.as_ref();
        match pause.by.id == id {
            true => resume.map(|resume| &resume.by),
            false => resume.filter(|resume| resume.by.id == id).and(hold.pauses.get(at + 1)).map(|next| &next.by),
        }
    })?;
    Some(by_of(by))
}

/// Whether the clocks of who asked and who answered differ, for a person: the question took from `asked_ms` to `heard_ms`.
pub fn clocks_differ(asked_ms: i64, answered_ms: i64, heard_ms: i64) -> Option<String> {
    let ahead_ms = if answered_ms < asked_ms { asked_ms - answered_ms } else { (heard_ms - answered_ms).min(0) };
    let words = if ahead_ms > 0 { "ahead of" } else { "behind" };
    (ahead_ms.abs() > APART_MS).then(|| {
        let by = humantime::format_duration(Duration::from_secs(ahead_ms.unsigned_abs() / 1000));
        format!("this machine's clock is {by} {words} the console's: all times are by the console's")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01 13:20:00 UTC.
    const NOW: i64 = 1_772_371_200_000;
    const HOUR: i64 = 3_600_000;

    fn known(control: &[ControlRecord]) -> Known {
        let progress = RunProgress { complete_through_ms: Some(NOW - 60_000), ..RunProgress::default() };
        Known {
            run: "live".into(),
            runs: vec!["live".into()],
            hold: Hold::of("live", control),
            progress: Some(progress),
            stopped: false,
            ended: false,
            lag_records: 12,
            arrival_per_s: 2.0,
            kept: Some(Kept {
                needed_ms: NOW - HOUR,
                retention_ms: Some(10 * HOUR),
                by_size: BySize::Unbounded,
                ahead_ms: 0,
            }),
            log_now_ms: NOW,
            width: WindowWidth::new(60_000).unwrap(),
            lateness_ms: 10_000,
            now_ms: NOW,
        }
    }

    fn record(at_ms: i64, action: Action) -> ControlRecord {
        ControlRecord { at_ms, who: "night@ops".into(), reason: "a disk".into(), action }
    }

    fn paused() -> Vec<ControlRecord> {
        let action = Action::Pause { run: "live".into(), id: 5, until_ms: Some(NOW + HOUR), allow_loss: false };
        vec![
            record(NOW - HOUR, action),
            record(NOW, Action::Paused { run: "live".into(), id: 5, through_ms: NOW - HOUR }),
        ]
    }

    fn command() -> Command {
        Command { reason: "a disk".into(), ..Command::default() }
    }

    fn said(refused: Result<Planned, Refusal>) -> String {
        match refused.expect_err("it is refused") {
            Refusal::Wrong(said) | Refusal::UnknownRun(said) | Refusal::NotNow(said) => said,
        }
    }

    #[test]
    fn a_pause_says_until_when_it_is_safe_and_what_waits_then() {
        let planned = decide(&known(&[]), Verb::Pause, &Command { r#for: Some("2h".into()), ..command() }, 9).unwrap();
        let until_ms = Some(NOW + 2 * HOUR);
        assert_eq!(planned.action, Action::Pause { run: "live".into(), id: 9, until_ms, allow_loss: false });
        expect_test::expect![[r#"
            live stops at its next batch boundary, for 2h, until 2026-03-01 15:20:00 UTC; hits are collected on
            safe until 2026-03-01 21:20:00 UTC; it is resumed by itself then (it keeps 10h; 1h before is the margin)
            2.0 records a second come in: about 14412 wait then
            how long catching up takes is not known before it has caught up once"#]]
        .assert_eq(&planned.said.join("\n"));
    }

    #[test]
    fn a_pause_past_what_the_log_keeps_is_refused_unless_loss_is_allowed() {
        let long = Command { r#for: Some("9h".into()), ..command() };
        assert!(said(decide(&known(&[]), Verb::Pause, &long, 9)).contains("--allow-loss"));
        let allowed = decide(&known(&[]), Verb::Pause, &Command { allow_loss: true, ..long }, 9).unwrap();
        assert!(allowed.said.iter().any(|said| said.contains("MISSING")), "{allowed:?}");
        let short = Command { r#for: Some("1h".into()), allow_loss: true, ..command() };
        let short = decide(&known(&[]), Verb::Pause, &short, 9).unwrap();
        assert!(!short.said.iter().any(|said| said.contains("MISSING")), "{short:?}");
        let mut late = known(&[]);
        late.kept = late.kept.map(|kept| Kept { needed_ms: NOW - 10 * HOUR, ..kept });
        expect_test::expect!["any pause would lose data: live is so far behind that the log deletes what it needs next, a pause was safe until 2026-03-01 12:20:00 UTC (let it catch up, raise the topic's retention, or say --allow-loss if what the log deletes meanwhile may be missing)"]
        .assert_eq(&said(decide(&late, Verb::Pause, &command(), 9)));
    }

    #[test]
    fn of_a_run_that_has_stopped_or_is_done_every_verb_says_so() {
        let stopped = |control: &[ControlRecord]| Known { stopped: true, ..known(control) };
        let pause = decide(&stopped(&[]), Verb::Pause, &command(), 9).unwrap();
        assert!(pause.said[0].starts_with("live has STOPPED already (`weir status` says why)"), "{pause:?}");
        let resume = decide(&stopped(&paused()), Verb::Resume, &command(), 9).unwrap();
        assert!(resume.said[1].contains("goes on only after `weir recover live`"), "{resume:?}");
        let resume = said(decide(&stopped(&[]), Verb::Resume, &command(), 9));
        expect_test::expect![
            "live is not paused: it has stopped (`weir status` says why, `weir recover live` lets it go on)"
        ]
        .assert_eq(&resume);

        let done = |run: &str| Known { run: run.into(), runs: vec![run.into()], ended: true, ..known(&[]) };
        let slower = Command { share: Some(0.5), ..command() };
        assert!(said(decide(&done("import-i"), Verb::Pause, &command(), 9)).contains("is done"));
        assert!(said(decide(&done("import-i"), Verb::Throttle, &slower, 9)).contains("is done"));
        assert!(said(decide(&done("gap"), Verb::Throttle, &slower, 9)).contains("is done"), "another gap is not done");

        let new = Known { progress: None, ..known(&paused()[..1]) };
        let resume = decide(&new, Verb::Resume, &command(), 9).unwrap();
        assert_eq!(resume.said[0], "live goes on from where it was, in order");
    }

    #[test]
    fn a_second_pause_says_since_when_by_whom_and_why() {
        let refused = said(decide(&known(&paused()), Verb::Pause, &command(), 9));
        expect_test::expect![[r#"live is paused since 2026-03-01 12:20:00 UTC by night@ops, "a disk", until 2026-03-01 14:20:00 UTC (`weir resume live` first, to pause it otherwise)"#]]
        .assert_eq(&refused);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_does() {
        let pause = |command: Command| said(decide(&known(&[]), Verb::Pause, &command, 9));
        assert!(pause(Command::default()).contains("--reason"));
        assert!(pause(Command { reason: "a\nb".into(), ..command() }).contains("one plain line"));
        let until = |text: &str| pause(Command { until: Some(text.into()), ..command() });
        assert!(until("2026-03-01T13:19:59Z").contains("is not ahead"));
        assert!(until("noon").contains("write 14:00"));
        assert!(until("24:00").contains("write 14:00"));
        assert!(pause(Command { r#for: Some("0s".into()), ..command() }).contains("is not ahead"));
        assert!(pause(Command { r#for: Some("soon".into()), ..command() }).contains("2h 30m"));
        let both = Command { r#for: Some("1h".into()), until: Some("14:00".into()), ..command() };
        assert!(pause(both).contains("leave one"));
        assert!(said(decide(&known(&[]), Verb::Resume, &command(), 9)).contains("is not paused"));
        let unknown = Known { run: "lvie".into(), ..known(&[]) };
        assert_eq!(said(decide(&unknown, Verb::Pause, &command(), 9)), "there is no run lvie (there are: live)");
        for share in [None, Some(0.0), Some(-0.5), Some(1.001), Some(0.0004), Some(f64::NAN)] {
            let refused = said(decide(&known(&[]), Verb::Throttle, &Command { share, ..command() }, 9));
            assert!(refused.contains("above 0 and at most 1"), "{share:?}: {refused}");
        }
    }

    #[test]
    fn a_time_of_day_is_the_next_one() {
        assert_eq!(parse_time("--until", "14:00", NOW), Ok(NOW + 40 * 60_000));
        assert_eq!(parse_time("--until", "13:20", NOW), Ok(NOW + 24 * HOUR));
        assert_eq!(parse_time("--until", "2026-03-01T14:20:00+01:00", NOW), Ok(NOW));
    }

    #[test]
    fn a_time_is_taken_as_it_is_said() {
        for at_ms in [NOW, NOW + HOUR + 1_000] {
            assert_eq!(parse_time("--at", &instant(Some(at_ms)), NOW), Ok(at_ms));
        }
        assert!(parse_time("--at", "2026-03-01 13:20:00", NOW).is_err(), "it does not say where");
    }

    #[test]
    fn a_resume_begins_in_order_or_with_the_window_that_is_open() {
        let known = known(&paused());
        let planned = decide(&known, Verb::Resume, &command(), 9).unwrap();
        assert_eq!(planned.action, Action::Resume { run: "live".into(), id: 9, left_to_ms: None });
        let first = Command { live_first: true, ..command() };
        let planned = decide(&known, Verb::Resume, &first, 9).unwrap();
        assert_eq!(planned.action, Action::Resume { run: "live".into(), id: 9, left_to_ms: Some(NOW - 60_000) });
        expect_test::expect![[r#"
            live goes on at 2026-03-01 13:19:00 UTC; what lies between 2026-03-01 12:20:00 UTC and there is filled by the run gap, beside it
            12 records wait for it
            how long catching up takes is not known before it has caught up once
            safe until 2026-03-01 21:20:00 UTC (it keeps 10h; 1h before is the margin)"#]]
        .assert_eq(&planned.said.join("\n"));
        let gap = Known { run: "gap".into(), runs: vec!["gap".into()], ..known };
        assert!(said(decide(&gap, Verb::Resume, &first, 9)).contains("is for live"));
    }

    #[test]
    fn what_the_last_catch_up_did_tells_of_the_next() {
        let mut control = paused();
        control.push(record(NOW, Action::Resume { run: "live".into(), id: 7, left_to_ms: None }));
        // An hour and six minutes of log in six minutes.
        control.push(record(NOW + HOUR / 10, Action::CaughtUp { run: "live".into(), id: 7, eta: None }));
        let known = known(&control);
        assert_eq!(pace(&known.hold), Some(11.0));
        assert!(say_catch_up(&known, HOUR).starts_with("catching up takes about 6m"));
        let of = |share| decide(&known, Verb::Throttle, &Command { share: Some(share), ..command() }, 9).unwrap();
        assert_eq!(of(0.25).action, Action::Throttle { run: "live".into(), id: 9, permille: 250 });
        assert!(of(0.25).said[1].contains("still keeps up"));
        assert!(of(0.05).said[1].contains("FALLS BEHIND"));
    }

    #[test]
    fn clocks_that_differ_by_more_than_the_answer_took_and_five_seconds_are_told() {
        assert_eq!(clocks_differ(0, 5_000, 200), None);
        assert_eq!(clocks_differ(6_000, 1_000, 6_100), None);
        assert!(clocks_differ(9_000, 1_000, 9_100).unwrap().contains("8s ahead of"));
        assert!(clocks_differ(0, 9_000, 1_000).unwrap().contains("8s behind"));
        assert_eq!(clocks_differ(0, 9_000, 20_000), None, "it may have been answered at any time in between");
    }
}
