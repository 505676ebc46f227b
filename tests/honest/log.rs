//! A log that has lost something, or that other tools have changed.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::executor::block_on;
use weir_log::{
    Clock, Committed, ControlLog, EmbeddedLog, Log, LogConfig, SystemClock, TopicKind, ensure_partitions_in_use,
};
use weir_schemas::{
    DEDUP_HORIZON_MS, Event, Kind, STEP_BACK_MAX_MS,
    control::{CONTROL_TOPIC, EVENTS_TOPIC},
    progress::group_of,
    wire::{BatchBuilder, batch_record},
};

use crate::{
    OFTEN, audited, post, recover,
    support::{Broker, Place, kafka, wait_for},
    text, wait_stopped, write,
};

const MINUTE_MS: i64 = 60_000;

#[test]
fn a_log_that_has_lost_something_stops_the_run_until_somebody_gives_it_up_by_name() {
    let place = Place::new(&format!("{OFTEN}[log]\npartitions = 2\n"));
    let now_ms = SystemClock.now_ms();
    let begin_ms = now_ms - now_ms % 1_000 - 120 * MINUTE_MS;
    let clock = Arc::new(SetClock(AtomicI64::new(begin_ms)));
    let log = EmbeddedLog::open(place.dir.path().join("data/log"), clock.clone()).unwrap();
    let log: Arc<EmbeddedLog> = Arc::new(log);
    log.create_topic(EVENTS_TOPIC, &events(2)).unwrap();
    let control = ControlLog::open(log.clone()).unwrap();
    ensure_partitions_in_use(&control, "test", 2, begin_ms).unwrap();
    for minute in 0..119 {
        clock.0.store(begin_ms + minute * MINUTE_MS, Ordering::SeqCst);
        for partition in 0..2 {
            append(log.as_ref(), partition, minute as u64, begin_ms + minute * MINUTE_MS);
        }
    }
    clock.0.store(SystemClock.now_ms(), Ordering::SeqCst);
    // What retention does to a run that was away for long.
    for partition in 0..2 {
        log.trim(EVENTS_TOPIC, partition, 30).unwrap();
    }

    let serve = place.start();
    let said = wait_stopped(&place, "log_cut");
    assert!(said.contains("begins at offset 30"), "{said}");
    let refused = recover(&place, &[]);
    assert!(!refused.status.success() && text(&refused).contains("--accept-loss"), "{}", text(&refused));
    let recovered = recover(&place, &["--accept-loss"]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    place.wait_complete();
    // Whole is what lies after the horizon and a step after the first record that is left, of 119 a partition.
    let whole_ms = begin_ms + 30 * MINUTE_MS + DEDUP_HORIZON_MS + STEP_BACK_MAX_MS + 1_000;
    let lost = (whole_ms - begin_ms) / MINUTE_MS + 1;
    let mut sent = 2 * (119 - lost as u64);
    assert_eq!(place.page_views(), Some(sent));
    let missing = |place: &Place| place.status().unwrap()["runs"][0]["missing"].clone();
    assert_eq!(missing(&place)[0]["to_ms"].as_i64(), Some(whole_ms));
    assert_eq!(missing(&place)[0]["reason"], "of a test");
    let told = place.weir(&["status"]);
    assert!(told.status.success() && text(&told).contains("\n  MISSING: "), "{}", text(&told));
    let named = "SELECT state, toUnixTimestamp(window_to) FROM weir.emissions WHERE state = 'lost'";
    assert_eq!(write(&place, named).trim(), format!("lost\t{}", whole_ms / 1_000));

    stray_records(&place, log.as_ref(), 2, &mut sent);
    another_topic(&place, log.as_ref(), 3);
    audited(&place);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn kafkas_other_tools_stop_a_run_only_where_something_would_be_lost() {
    let Some(broker) = kafka() else { return };
    let place = Place::new(&format!(
        "{OFTEN}[log]\nkind = \"kafka\"\npartitions = 2\n[kafka]\nbootstrap = \"{}\"",
        broker.bootstrap()
    ));
    let serve = place.start();
    let mut sent = post(&place, "/a", 3);
    place.wait_complete();
    let log = open(&broker);

    // Offsets that were moved, as with `kafka-consumer-groups --reset-offsets`: said, and put back; nothing is read again.
    let moved = Committed { partition: 0, offset: 0, metadata: String::new() };
    log.commit(&group_of("live"), EVENTS_TOPIC, &[moved]).unwrap();
    let seen = wait_for("the offsets to be seen", || {
        let moved = place.status()?["runs"][0]["progress"]["moved"].clone();
        moved.is_object().then_some(moved)
    });
    assert_eq!((seen["partition"].as_u64(), seen["found"].as_i64()), (Some(0), Some(0)));
    sent += post(&place, "/a", 1);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(sent), "counted once");
    let status = place.weir(&["status"]);
    assert!(
        status.status.success() && text(&status).contains("were moved with other tools (partition 0 to 0)"),
        "{}",
        text(&status)
    );

    stray_records(&place, log.as_ref(), 2, &mut sent);
    another_topic(&place, log.as_ref(), 3);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn acknowledged_records_that_kafka_has_lost_stop_the_run_until_they_are_given_up() {
    let Some(mut broker) = kafka() else { return };
    let bootstrap = broker.bootstrap();
    let place =
        Place::new(&format!("{OFTEN}[log]\nkind = \"kafka\"\npartitions = 2\n[kafka]\nbootstrap = \"{bootstrap}\""));
    let serve = place.start();
    post(&place, "/a", 3);
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));
    // An old disk: what it holds ends here.
    broker.stop();
    let old = place.dir.path().join("old");
    copy(&broker.data(), &old);
    broker.start_again();
    let serve = place.start();
    let mut counted = 3 + post(&place, "/b", 4);
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));
    broker.stop();
    for partition in 0..2 {
        let name = format!("{EVENTS_TOPIC}-{partition}");
        std::fs::remove_dir_all(broker.data().join(&name)).unwrap();
        copy(&old.join(&name), &broker.data().join(&name));
    }
    broker.start_again();

    let serve = place.start();
    let said = wait_stopped(&place, "log_shrunk");
    assert!(said.contains("the log has lost records"), "{said}");
    let refused = recover(&place, &[]);
    assert!(!refused.status.success() && text(&refused).contains("--accept-loss"), "{}", text(&refused));
    let recovered = recover(&place, &["--accept-loss"]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    // What had been counted stays, and what comes is counted again, from the window on that is named.
    let to_ms = wait_for("what is missing", || place.status()?["runs"][0]["missing"][0]["to_ms"].as_i64());
    wait_for("the end of what was given up", || (SystemClock.now_ms() > to_ms).then_some(()));
    counted += post(&place, "/c", 2);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(counted));
    audited(&place);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_control_topic_that_is_another_one_stops_the_run_before_it_counts_anything_twice() {
    let place = Place::new(OFTEN);
    let serve = place.start();
    let sent = post(&place, "/a", 3);
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));
    let log = EmbeddedLog::open(place.dir.path().join("data/log"), Arc::new(SystemClock)).unwrap();
    log.delete_topic(CONTROL_TOPIC).unwrap();
    drop(log);

    let serve = place.start();
    let said = wait_stopped(&place, "control_lost");
    assert!(said.contains("the control topic is not the one"), "{said}");
    let refused = recover(&place, &[]);
    assert!(!refused.status.success() && text(&refused).contains("--accept-loss"), "{}", text(&refused));
    let recovered = recover(&place, &["--accept-loss"]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    assert_eq!(place.page_views(), Some(sent), "nothing was counted twice");
    let missing = wait_for("what is missing", || {
        let missing = place.status()?["runs"][0]["missing"][0].clone();
        missing.is_object().then_some(missing)
    });
    let (from_ms, to_ms) = (missing["from_ms"].as_i64().unwrap(), missing["to_ms"].as_i64().unwrap());
    assert!(from_ms < SystemClock.now_ms() && to_ms > SystemClock.now_ms() + DEDUP_HORIZON_MS / 2, "{missing}");
    assert_eq!(serve.stop(), Some(0));
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A partition that is not in use gets a record; then it is taken into use, and its record counts.
fn stray_records(place: &Place, log: &dyn Log, partition: u32, sent: &mut u64) {
    log.grow(EVENTS_TOPIC, partition + 1).unwrap();
    append(log, partition, 1_000, SystemClock.now_ms());
    let said = wait_stopped(place, "stray_records");
    assert!(said.contains(&format!("partition {partition} is not in use, and 1 records")), "{said}");
    *sent += 1 + post(place, "/stray", 2);
    let recovered = recover(place, &[]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    // It counts when the partition has come into use, in a moment.
    wait_for("the stray record", || place.page_views().filter(|views| views == sent));
}

/// The topic is deleted and made again; the run goes on with the new one, and what the first one held is named.
fn another_topic(place: &Place, log: &dyn Log, partitions: u32) {
    let missing = |place: &Place| place.status().unwrap()["runs"][0]["missing"].as_array().unwrap().len();
    let before = missing(place);
    log.delete_topic(EVENTS_TOPIC).unwrap();
    log.create_topic(EVENTS_TOPIC, &events(partitions)).unwrap();
    let said = wait_stopped(place, "topic_replaced");
    assert!(said.contains("is another one than it was"), "{said}");
    let refused = recover(place, &[]);
    assert!(!refused.status.success() && text(&refused).contains("--accept-loss"), "{}", text(&refused));
    let recovered = recover(place, &["--accept-loss"]);
    assert!(recovered.status.success() && text(&recovered).contains("live goes on from "), "{}", text(&recovered));
    wait_for("what is missing", || (missing(place) == before + 1).then_some(()));
    assert!(place.weir(&["status"]).status.success());
    post(place, "/after", 1);
}

/// A clock that is set.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn events(partitions: u32) -> TopicKind {
    TopicKind::Events { partitions, retention: std::time::Duration::from_secs(30 * 24 * 60 * 60) }
}

fn open(broker: &Broker) -> Arc<dyn Log> {
    let config = LogConfig::Kafka { bootstrap: broker.bootstrap(), options: BTreeMap::new() };
    weir_log::open(&config, Arc::new(SystemClock)).unwrap()
}

/// One page view in a record of its own.
fn append(log: &dyn Log, partition: u32, sequence: u64, at_ms: i64) {
    let mut batch = BatchBuilder::new([7; 16], sequence);
    batch.push(&Event {
        site: "one.example".into(),
        kind: Kind::PageView,
        received_ms: at_ms,
        claimed_ms: None,
        visitor: sequence,
        id: String::new(),
        host: "one.example".into(),
        page: format!("/m/{sequence}"),
        query: String::new(),
        referrer: String::new(),
        user_agent: String::new(),
        country: String::new(),
        name: String::new(),
        target: String::new(),
        title: String::new(),
        screen: String::new(),
        language: String::new(),
        props: Vec::new(),
    });
    block_on(log.append(EVENTS_TOPIC, partition, batch_record(at_ms, &batch.finish()).into(), None)).unwrap();
}
