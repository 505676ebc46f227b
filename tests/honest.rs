//! What a run must not go over silently stops it, and only it, says so, and is mended by the command that it names.

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::executor::block_on;
use serde_json::Value;
use support::{Broker, Place, get, http, kafka, wait_for};
use weir_log::{
    Clock, Committed, ControlLog, EmbeddedLog, Log, LogConfig, SystemClock, TopicKind, ensure_partitions_in_use,
};
use weir_schemas::{
    DEDUP_HORIZON_MS, Event, Kind, STEP_BACK_MAX_MS,
    control::EVENTS_TOPIC,
    progress::group_of,
    wire::{BatchBuilder, batch_record},
};
use weir_sink::{Target, audit::Audit};

const MINUTE_MS: i64 = 60_000;

/// The table is compared often, so that a test need not wait a minute.
const OFTEN: &str = "[pipeline]\naudit_every = \"500ms\"\n";

#[test]
fn a_table_that_somebody_changed_stops_its_run_and_is_made_right_again_from_the_log() {
    let place = Place::new(OFTEN);
    let mut serve = place.start();
    let mut sent = post(&place, "/a", 3) + post(&place, "/b", 2);
    place.wait_complete();
    let rows = write(&place, "SELECT count() FROM weir.stats_v1");
    let whole = |sent: u64, what: &str| {
        place.wait_complete();
        assert_eq!(place.page_views(), Some(sent), "{what}");
    };

    // Rows that are gone, while hits come in.
    write(&place, "ALTER TABLE weir.stats_v1 DELETE WHERE value = '/a' SETTINGS mutations_sync = 2");
    let said = wait_stopped(&place, "table_differs");
    assert!(said.contains("weir recover live"), "{said}");
    assert!(serve.children("run").is_empty(), "nothing runs beside what is wrong");
    sent += post(&place, "/c", 4);
    let status = place.weir(&["status"]);
    assert!(
        !status.status.success() && text(&status).starts_with("live: STOPPED · the table is not"),
        "{}",
        text(&status)
    );
    let went_on = recover(&place, &[]);
    assert!(went_on.status.success() && text(&went_on).contains("live goes on from "), "{}", text(&went_on));
    whole(sent, "what was missing is there again");

    // Rows that are there twice.
    let columns = "site, dimension, value, window_start, emitted_in, origin, page_views, visitors, visitor_check";
    write(
        &place,
        &format!("INSERT INTO weir.stats_v1 ({columns}) SELECT {columns} FROM weir.stats_v1 WHERE value = '/b'"),
    );
    wait_stopped(&place, "table_differs");
    assert!(recover(&place, &[]).status.success());
    whole(sent, "what was doubled is there once");
    let b = "SELECT sum(page_views) FROM weir.stats_v1 WHERE dimension = 'page' AND value = '/b'";
    assert_eq!(write(&place, b).trim(), "2");

    // A table in which no row comes out as it was written.
    write(&place, "ALTER TABLE weir.stats_v1 MODIFY COLUMN visitor_check UInt64 DEFAULT 0");
    sent += post(&place, "/d", 1);
    let said = wait_stopped(&place, "table_altered");
    assert!(said.contains("column visitor_check has the default DEFAULT 0"), "{said}");
    let told = place.weir(&["recover", "live", "--dry-run"]);
    assert!(told.status.success() && text(&told).starts_with("would do: the table's columns"), "{}", text(&told));
    assert!(recover(&place, &[]).status.success());
    whole(sent, "and written again as it must be");

    // The record is emptied, with the rows in their place.
    write(&place, "TRUNCATE TABLE weir.emissions");
    wait_stopped(&place, "table_lost");
    assert!(recover(&place, &[]).status.success());
    whole(sent, "every batch was asked for again");
    audited(&place);

    // Another ClickHouse, which knows of nothing.
    assert_eq!(serve.stop(), Some(0));
    std::fs::remove_dir_all(place.dir.path().join("data/clickhouse")).unwrap();
    serve = place.start();
    let said = wait_stopped(&place, "table_lost");
    assert!(said.contains("this is another ClickHouse"), "{said}");
    assert_eq!(write(&place, "SELECT count() FROM weir.stats_v1").trim(), "0", "nothing was begun afresh unsaid");
    sent += post(&place, "/e", 1);
    assert!(recover(&place, &[]).status.success());
    whole(sent, "all of it, from the log");
    assert!(
        write(&place, "SELECT count() FROM weir.stats_v1").trim().parse::<u64>().unwrap()
            > rows.trim().parse().unwrap()
    );
    audited(&place);
    assert_eq!(serve.stop(), Some(0));
}

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
fn a_clickhouse_that_is_away_is_said_with_since_when_and_is_waited_for() {
    // One weir whose ClickHouse the other one uses.
    let server = Place::new("");
    let url = format!("http://127.0.0.1:{}", server.clickhouse);
    let dir = server.dir.path().join("data/clickhouse");
    std::fs::create_dir_all(&dir).unwrap();
    let password = "of-this-test";
    std::fs::write(dir.join("writer-password"), password).unwrap();
    let place = Place::new(OFTEN);
    let set = [
        format!("clickhouse.url={url}"),
        format!("clickhouse.password={password}"),
        "clickhouse.database=other".to_owned(),
    ];
    let args: Vec<&str> = ["serve"].into_iter().chain(set.iter().flat_map(|set| ["--set", set])).collect();
    let serve = place.start_part(&args);
    wait_for("the collector", || {
        get(&format!("http://{}/readyz", place.collector)).filter(|(status, _)| *status == 200)
    });
    let waits = |what: &str| {
        wait_for(what, || {
            let waiting = place.status()?["runs"][0]["progress"]["waiting"].clone();
            (waiting["reason"].as_str()?.contains("clickhouse") && waiting["since_ms"].as_i64()? > 0).then_some(())
        });
        let status = place.weir(&["status"]);
        assert!(
            status.status.success() && text(&status).contains("\n  WAITING for "),
            "nobody is needed: {}",
            text(&status)
        );
    };
    waits("the status of a run that cannot begin");
    let mut sent = post(&place, "/a", 2);
    let counted = |sent: u64| {
        place.wait_complete();
        let sql = "SELECT sum(page_views) FROM other.stats_v1 WHERE dimension = 'site'";
        assert_eq!(write_as(server.clickhouse, password, sql).trim(), sent.to_string());
        let status = place.status().unwrap();
        assert!(status["runs"][0]["progress"]["waiting"].is_null(), "{status}");
    };

    let clickhouse = server.start();
    counted(sent);
    assert_eq!(clickhouse.stop(), Some(0));
    sent += post(&place, "/b", 1);
    waits("the status of a run that cannot go on");
    let clickhouse = server.start();
    counted(sent);
    assert_eq!(serve.stop(), Some(0));
    assert_eq!(clickhouse.stop(), Some(0));
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
    assert_eq!(missing(place), before + 1);
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

/// So many hits of a page, acknowledged; their number.
fn post(place: &Place, page: &str, hits: u64) -> u64 {
    let hit = serde_json::json!({
        "site": "one.example", "url": format!("https://one.example{page}"), "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    });
    let body = Value::Array((0..hits).map(|_| hit.clone()).collect()).to_string();
    assert_eq!(place.post(&body).unwrap().0, 202, "the collector goes on, whatever has stopped");
    hits
}

/// Waits until live has stopped by this fault; what its status says.
fn wait_stopped(place: &Place, kind: &str) -> String {
    wait_for(kind, || {
        let progress = place.status()?["runs"][0]["progress"].clone();
        let stopped = progress["stopped"].as_str()?;
        assert_eq!(progress["fault"]["kind"], kind, "{progress}");
        Some(stopped.to_owned())
    })
}

fn recover(place: &Place, more: &[&str]) -> Output {
    let args = ["recover", "live", "--reason", "of a test"];
    place.weir(&args.iter().chain(more).copied().collect::<Vec<_>>())
}

/// What a command printed, either way.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A statement by the writer on the ClickHouse of `place`.
fn write(place: &Place, sql: &str) -> String {
    write_as(place.clickhouse, &password(&place.dir.path().join("data/clickhouse")), sql)
}

fn password(dir: &Path) -> String {
    weir_sink::server::writer_password(dir).unwrap()
}

fn write_as(port: u16, password: &str, sql: &str) -> String {
    wait_for("clickhouse", || {
        let url = format!("http://127.0.0.1:{port}/?user=weir&password={password}");
        let (status, text) = http("POST", &url, Some(sql), None).ok()?;
        assert_eq!(status, 200, "{sql}: {text}");
        Some(text)
    })
}

/// Everything in the table is what was recorded, digests and all.
fn audited(place: &Place) {
    let target = Target {
        url: format!("http://127.0.0.1:{}", place.clickhouse),
        database: "weir".into(),
        user: "weir".into(),
        password: password(&place.dir.path().join("data/clickhouse")),
    };
    let schema = std::fs::read_to_string(place.dir.path().join("quick.toml")).unwrap();
    let version = weir_schemas::SchemaVersion::parse(&schema, "quick.toml").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(Audit::new(&target, &version).full()).unwrap();
    assert!(found.is_empty(), "{found:?}");
}
