//! A conversion of a table that is older than the log: what the log does not have any more is carried over, and every event is
//! in the new table once.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::support::{Place, refused, text, wait_for, went_well, write};
use weir_log::{Clock, ControlLog, EmbeddedLog, Log, SystemClock, TopicKind};
use weir_schemas::{
    Event,
    control::EVENTS_TOPIC,
    wire::{BatchBuilder, batch_record},
};

const MINUTE_MS: i64 = 60_000;
/// The log is so old.
const MINUTES: i64 = 240;
/// A record a minute: those before this one are deleted.
const CUT: i64 = 130;

struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A log that hits came into for four hours, of which each third is late; how many there are, and when it began.
fn fill(place: &Place) -> (u64, i64) {
    // Within a minute: what is told of it is compared by minutes.
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let begin_ms = now_ms - now_ms % MINUTE_MS - MINUTES * MINUTE_MS + MINUTE_MS / 2;
    let hands = Arc::new(Hands(begin_ms.into()));
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(place.dir.path().join("data/log"), hands.clone()).unwrap());
    let retention = std::time::Duration::from_secs(30 * 24 * 60 * 60);
    log.create_topic(EVENTS_TOPIC, &TopicKind::Events { partitions: 1, retention }).unwrap();
    weir_log::ensure_partitions_in_use(&ControlLog::open(log.clone()).unwrap(), "test", 1, begin_ms).unwrap();
    let mut sent = 0;
    for minute in 1..MINUTES {
        let now_ms = begin_ms + minute * MINUTE_MS;
        hands.0.store(now_ms, Ordering::SeqCst);
        let mut batch = BatchBuilder::new([7; 16], minute as u64);
        // On time in both versions, in the new one alone, and in neither.
        for late_ms in [0, 1_500, 40_000 + minute * 500] {
            sent += 1;
            batch.push(&Event {
                site: "one.example".into(),
                host: "one.example".into(),
                page: format!("/{}", minute % 7),
                user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into(),
                received_ms: now_ms,
                claimed_ms: Some(now_ms - late_ms),
                visitor: 1 + minute as u64 % 50,
                ..Event::default()
            });
        }
        let payload = batch_record(now_ms, &batch.finish());
        futures::executor::block_on(log.append(EVENTS_TOPIC, 0, payload.into(), None)).unwrap();
    }
    (sent, begin_ms)
}

/// As retention would.
fn cut(place: &Place) {
    let log = EmbeddedLog::open(place.dir.path().join("data/log"), Arc::new(SystemClock)).unwrap();
    log.trim(EVENTS_TOPIC, 0, CUT).unwrap();
}

fn by_hour(place: &Place) -> Option<String> {
    place.query(
        "SELECT toStartOfHour(window_start) AS hour, value, sum(page_views), uniqCombined64Merge(visitors) \
         FROM stats WHERE dimension = 'page' GROUP BY hour, value ORDER BY hour, value",
    )
}

fn verified(place: &Place) -> String {
    wait_for("both to agree", || {
        let verified = place.weir(&["migrate", "verify"]);
        verified.status.success().then(|| text(&verified))
    })
}

#[test]
fn what_the_log_does_not_have_any_more_is_carried_over_and_every_event_is_in_the_new_table_once() {
    let place = Place::new("[log]\npartitions = 1");
    let (mut sent, begin_ms) = fill(&place);
    let begin = weir_schemas::instant(begin_ms - 1_000);
    let serve = place.start();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(sent));
    assert_eq!(serve.stop(), Some(0));
    cut(&place);
    let mut serve = place.start();
    sent += place.hits("/now", 3);
    place.wait_complete();
    let before = wait_for("ClickHouse", || by_hour(&place));

    let version_2 = place.version(1, 2, 2, 2);
    let plan = went_well(&place, &["migrate", "plan", "--file", &version_2]);
    assert!(plan.contains("\ncarried over: "), "{plan}");
    // Where both meet depends on when it is begun.
    let started = went_well(&place, &["migrate", "start", "--file", &version_2, "--reason", "wider windows"]);
    let carried =
        started.lines().find(|line| line.starts_with("carried over: ")).unwrap_or_else(|| panic!("{started}"));
    assert!(carried.contains(&begin[.."2026-01-01 00:00".len()]), "{begin}: {carried}");
    assert!(carried.ends_with(", which the log does not have any more, as version 1 counted them"), "{carried}");
    serve.kill();
    serve = place.start();
    let verified_all = verified(&place);
    assert!(verified_all.contains(&format!(": from {}", &begin[.."2026-01-01 00:00".len()])), "{verified_all}");

    // Carried over, not computed, as far as the plan said; and from there on the other way round.
    let runs = "SELECT run, count() > 0, toString(min(window_from)), toString(max(window_to)) FROM weir.emissions \
                WHERE generation = 2 AND state = 'done' GROUP BY run ORDER BY run";
    let runs = write(&place, runs);
    let of = |run: &str| -> Vec<String> {
        let line = runs.lines().find(|line| line.starts_with(run)).unwrap_or_else(|| panic!("{runs}"));
        line.split('\t').map(str::to_owned).collect()
    };
    let (rows, live) = (of("v2-carried"), of("v2-live"));
    assert_eq!(rows[3], live[2], "both meet at the seam");
    assert!(carried.contains(&format!(" to {} UTC", rows[3])), "{carried} {rows:?}");
    let status = went_well(&place, &["migrate", "status"]);
    assert!(status.contains("carried over: ") && status.contains(", as generation 1 counted them: done"), "{status}");

    // What somebody takes out of the carried days is found, told of whom it is, and carried over again.
    let away = format!("ALTER TABLE weir.stats_v2 DELETE WHERE emitted_in < '{}' AND value = '/3'", rows[3]);
    write(&place, &format!("{away} SETTINGS mutations_sync = 2"));
    let differs = place.weir(&["migrate", "verify"]);
    assert!(!differs.status.success() && text(&differs).contains("DIFFERS"), "{}", text(&differs));
    let again = went_well(&place, &["recover", "shadow-carried", "--reason", "a test"]);
    assert!(again.contains("shadow-carried compares all windows from "), "{again}");
    verified(&place);

    went_well(&place, &["migrate", "swap", "--when-ready", "--reason", "proved", "--hold", "0s"]);
    assert_eq!(by_hour(&place).as_deref(), Some(before.as_str()));
    assert_eq!(place.page_views(), Some(sent));
    let from = jiff::Timestamp::from_millisecond(begin_ms + 10 * MINUTE_MS).unwrap().to_string();
    let to = jiff::Timestamp::from_millisecond(begin_ms + 12 * MINUTE_MS).unwrap().to_string();
    let replay = refused(&place, &["replay", "--from", &from, "--to", &to]);
    assert!(replay.contains("were carried over from the table of another schema version"), "{replay}");
    sent += place.hits("/after", 2);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(sent));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn where_nothing_can_be_carried_over_the_days_are_named_and_only_the_operator_may_do_without() {
    let place = Place::new("[log]\npartitions = 1");
    place.set_windows(2, 1);
    let (sent, _) = fill(&place);
    let serve = place.start();
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));
    cut(&place);
    let serve = place.start();
    place.wait_complete();
    let narrower = place.version(1, 2, 1, 2);
    let plan = place.weir(&["migrate", "plan", "--file", &narrower]);
    let said = text(&plan);
    assert!(!plan.status.success() && said.contains("\nNOT SO: the log does not reach back to all"), "{said}");
    assert!(said.contains("for rows of windows of 2s cannot be made ones of 1s: day"), "{said}");
    let why = refused(&place, &["migrate", "start", "--file", &narrower, "--reason", "r"]);
    assert!(why.contains("(say --accept-loss if that may be so)"), "{why}");
    went_well(&place, &["migrate", "start", "--file", &narrower, "--reason", "r", "--accept-loss"]);
    verified(&place);
    let status = went_well(&place, &["migrate", "status"]);
    assert!(!status.contains("carried"), "{status}");
    let views = write(&place, "SELECT sum(page_views) FROM weir.stats_v2 WHERE dimension = 'site'");
    let views: u64 = views.trim().parse().unwrap();
    assert!(views > 0 && views < sent, "{views} of {sent}: what the log has, and no more");
    assert_eq!(serve.stop(), Some(0));
}
