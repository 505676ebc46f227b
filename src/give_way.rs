//! What runs beside live gives way to it, and to a ClickHouse that has too much to do.

use std::time::{Duration, Instant};

use tracing::info;
use weir_log::{Log, LogError};
use weir_schemas::{Hold, SchemaVersion, progress::RunProgress};

use crate::run::Told;

/// How often it is looked whether live is late.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// How often ClickHouse is asked whether it has too much to do.
const PRESSURE_EVERY: Duration = Duration::from_secs(10);
/// Live is late when its windows come so much after they were due: an INSERT takes seconds.
pub(crate) const LATE_MS: i64 = 5_000;
/// What runs beside live gives way until there was no reason for so long: of its share one part of so many is left to it.
const GIVES_WAY: Duration = Duration::from_secs(30);
const GIVEN_WAY_PARTS: u16 = 10;

/// When live was looked at, and ClickHouse, and when either was the last reason, with that.
#[derive(Debug, Default)]
pub(crate) struct GiveWay {
    looked: Option<Instant>,
    pressed: Option<Instant>,
    gives_way: Option<(Instant, String)>,
}

impl GiveWay {
    /// Whether it is time to look whether live is late; then it has been looked now.
    pub(crate) fn is_live_due(&mut self, now: Instant) -> bool {
        let due = self.looked.is_none_or(|looked| now - looked >= LIVE_EVERY);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// The same of ClickHouse.
    pub(crate) fn is_pressure_due(&mut self, now: Instant) -> bool {
        let due = self.pressed.is_none_or(|pressed| now - pressed >= PRESSURE_EVERY);
        if due {
            self.pressed = Some(now);
        }
        due
    }

    /// What runs beside live gives way for a while.
    pub(crate) fn give_way(&mut self, now: Instant, why: &str) {
        let before = self.gives_way.replace((now, why.to_owned()));
        if before.is_none_or(|(since, _)| now - since >= GIVES_WAY) {
            info!(why, "what runs beside live gives way");
        }
    }

    /// What a run beside live is told, of which `ordered` is its own.
    pub(crate) fn told(&self, ordered: Told, now: Instant) -> Told {
        match &self.gives_way {
            Some((since, why)) if now - *since < GIVES_WAY => {
                let permille = (ordered.permille / GIVEN_WAY_PARTS).max(1);
                Told { permille, gives_way: Some(why.clone()), ..ordered }
            }
            _ => ordered,
        }
    }
}

/// When live, which has said `told` last, is later than it should be for want of time, ms since the Unix epoch by the log's
/// clock; `None` if it is not: one that is paused, has stopped, or waits for ClickHouse, gets no earlier if others work less.
pub(crate) fn late_from(live: &Hold, told: &RunProgress, version: &SchemaVersion) -> Option<i64> {
    let resume = live.catching_up().and_then(|pause| pause.resume.as_ref());
    let begins = resume.is_some_and(|resume| resume.resumed_ms.is_none());
    let stands = live.paused().is_some() || begins || told.stopped.is_some() || told.waiting.is_some();
    let due_ms = due_ms(told.complete_through_ms?, version);
    (!stands).then_some(due_ms + LATE_MS)
}

/// When the next window of a run that is complete through `through_ms` is due, by the log's clock.
pub(crate) fn due_ms(through_ms: i64, version: &SchemaVersion) -> i64 {
    through_ms + version.width.ms() + version.lateness_ms
}

/// Whether it is later than that by this clock and by the log's. One alone may be wrong: this machine's may be ahead of the
/// log's, and the log's may have leaped.
pub(crate) fn has_come(log: &dyn Log, at_ms: i64, now_ms: i64) -> Result<bool, LogError> {
    Ok(now_ms >= at_ms && weir_console::has_come(log, at_ms)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_log::{Clock, EmbeddedLog, TopicKind};
    use weir_schemas::{
        control::{Action, ControlRecord, EVENTS_TOPIC},
        progress::Waiting,
        wire::tick_record,
    };

    use super::*;

    struct At(i64);

    impl Clock for At {
        fn now_ms(&self) -> i64 {
            self.0
        }
    }

    #[test]
    fn live_is_late_when_it_works_and_its_windows_do_not_come() {
        let version = SchemaVersion::builtin(1).unwrap();
        let due_ms = version.width.ms() + version.lateness_ms;
        let through = |through_ms| RunProgress { complete_through_ms: Some(through_ms), ..RunProgress::default() };
        let record = |action| ControlRecord { at_ms: 0, who: String::new(), reason: String::new(), action };
        let run = || "live".to_owned();
        let pause = record(Action::Pause { run: run(), id: 1, until_ms: None, allow_loss: false });
        let resume = record(Action::Resume { run: run(), id: 2, left_to_ms: None });
        let resumed = record(Action::Resumed { run: run(), id: 2, through_ms: 0 });
        let held = |control: &[ControlRecord]| Hold::of("live", control);
        let late = |hold: &Hold, told: &RunProgress| late_from(hold, told, &version);
        let (free, from) = (held(&[]), Some(due_ms + LATE_MS));
        assert_eq!((late(&free, &through(0)), late(&free, &RunProgress::default())), (from, None));
        assert_eq!(late(&held(std::slice::from_ref(&pause)), &through(0)), None, "paused");
        assert_eq!(late(&held(&[pause.clone(), resume.clone()]), &through(0)), None, "it has not begun");
        assert_eq!(late(&held(&[pause, resume, resumed]), &through(0)), from);
        assert_eq!(late(&free, &RunProgress { stopped: Some("a table".into()), ..through(0) }), None);
        let waiting = Some(Waiting { since_ms: 0, reason: "clickhouse".into() });
        assert_eq!(late(&free, &RunProgress { waiting, ..through(0) }), None);
    }

    #[test]
    fn a_time_has_come_when_it_has_by_both_clocks() {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(folder.path(), Arc::new(At(9_000))).unwrap();
        let kind = TopicKind::Events { partitions: 2, retention: Duration::from_secs(60) };
        log.create_topic(EVENTS_TOPIC, &kind).unwrap();
        assert!(!has_come(&log, 9_000, 9_000).unwrap(), "nothing says what the log's clock is");
        futures::executor::block_on(log.append(EVENTS_TOPIC, 1, tick_record(9_000).into(), None)).unwrap();
        assert!(has_come(&log, 9_000, 9_000).unwrap());
        assert!(!has_come(&log, 9_000, 8_999).unwrap(), "a log that has leaped");
        assert!(!has_come(&log, 9_001, 70_000).unwrap(), "a machine that is ahead");
    }

    #[test]
    fn what_runs_beside_live_gives_way_while_there_is_a_reason_and_for_a_while_after() {
        let mut beside = GiveWay::default();
        let begin = Instant::now();
        let share = |beside: &GiveWay, permille, now| {
            let told = beside.told(Told { permille, throttle: Some(7), ..Told::default() }, now);
            assert_eq!(told.throttle, Some(7));
            (told.permille, told.gives_way)
        };
        let late = || Some("live is late".to_owned());
        assert_eq!(share(&beside, 500, begin), (500, None));
        beside.give_way(begin, "live is late");
        assert_eq!(
            (share(&beside, 500, begin), share(&beside, 5, begin)),
            ((50, late()), (1, late())),
            "it never stands still"
        );
        beside.give_way(begin + LIVE_EVERY, "live is late");
        assert_eq!(share(&beside, 500, begin + GIVES_WAY), (50, late()));
        assert_eq!(share(&beside, 500, begin + LIVE_EVERY + GIVES_WAY), (500, None));
        assert!(beside.is_live_due(begin) && !beside.is_live_due(begin) && beside.is_live_due(begin + LIVE_EVERY));
    }
}
