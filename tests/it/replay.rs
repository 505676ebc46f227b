//! `weir replay`: the log computed a second time beside the table, on real processes, ClickHouse and a log that began days
//! ago, embedded or on Kafka.

use std::{
    collections::BTreeMap,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Place, kafka, password, signal, text, wait_for, write};
use futures::executor::block_on;
use serde_json::Value;
use weir_log::{Clock, ControlLog, EmbeddedLog, KafkaLog, Log, SystemClock, TopicKind, ensure_partitions_in_use};
use weir_schemas::{
    Event, Kind,
    control::{Action, ControlRecord, EVENTS_TOPIC},
    wire::{BatchBuilder, batch_record},
};
use weir_sink::{Target, audit::Audit};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
const DAYS: i64 = 3;
/// A reason, and what is to be done for it.
const APPLY: [&str; 3] = ["--apply", "--reason", "the other half"];

/// A clock that is set.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn append(log: &dyn Log, sequence: u64, site: &str, at_ms: i64, stamp_ms: Option<i64>) {
    let mut batch = BatchBuilder::new([7; 16], sequence);
    batch.push(&Event {
        site: site.into(),
        kind: Kind::PageView,
        received_ms: at_ms,
        claimed_ms: None,
        visitor: sequence % 50,
        id: String::new(),
        host: site.into(),
        page: format!("/m/{}", sequence % 7),
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
    block_on(log.append(EVENTS_TOPIC, 0, batch_record(at_ms, &batch.finish()).into(), stamp_ms)).unwrap();
}

/// A weir whose log began some days ago, an hour after midnight, with hits of two sites each half hour, and one a minute
/// before each midnight. Its windows are short for those that are live: whoever waits until it is complete waits for one.
struct Past<L = EmbeddedLog> {
    place: Place,
    log: Arc<L>,
    control: ControlLog,
    /// The midnight before now.
    midnight_ms: i64,
    hits: u64,
}

impl Past {
    fn new(audit_every: &str) -> Past {
        let place = Place::new(&format!("[pipeline]\naudit_every = \"{audit_every}\"\n[log]\npartitions = 1\n"));
        let now_ms = SystemClock.now_ms();
        let clock = Arc::new(SetClock(AtomicI64::new(now_ms)));
        let log = Arc::new(EmbeddedLog::open(place.dir.path().join("data/log"), clock.clone()).unwrap());
        log.create_topic(EVENTS_TOPIC, &events()).unwrap();
        let past = Past::fill(place, log, DAYS, |at_ms| {
            clock.0.store(at_ms, Ordering::SeqCst);
            None
        });
        clock.0.store(now_ms, Ordering::SeqCst);
        past
    }

    /// A replacement of the day before yesterday that was cut short; the day as `--from` and `--to`.
    fn cut(&self, id: i64, generation: u32) -> (String, String) {
        let days = vec![(self.midnight_ms - 2 * DAY_MS) / DAY_MS];
        self.say(Action::Replace { id, generation, days });
        (self.day(2), self.day(1))
    }
}

impl Past<KafkaLog> {
    /// One that began yesterday. Kafka stamps what comes, so the past is written while the topic is one that takes stamps.
    fn on_kafka(bootstrap: &str) -> Past<KafkaLog> {
        let kafka = format!("kind = \"kafka\"\n[kafka]\nbootstrap = \"{bootstrap}\"\n");
        let place = Place::new(&format!("[pipeline]\naudit_every = \"1h\"\n[log]\npartitions = 1\n{kafka}"));
        let log = Arc::new(KafkaLog::connect(bootstrap, &BTreeMap::new()).unwrap());
        log.create_topic(EVENTS_TOPIC, &TopicKind::Import { partitions: 1 }).unwrap();
        let past = Past::fill(place, log, 1, Some);
        past.log.repair_topic(EVENTS_TOPIC, &events()).unwrap();
        past
    }
}

fn events() -> TopicKind {
    TopicKind::Events { partitions: 1, retention: Duration::from_secs(30 * 24 * 60 * 60) }
}

impl<L: Log + 'static> Past<L> {
    /// `stamp` of a record's time is what it is appended with.
    fn fill(place: Place, log: Arc<L>, days: i64, stamp: impl Fn(i64) -> Option<i64>) -> Past<L> {
        let now_ms = SystemClock.now_ms();
        let midnight_ms = now_ms - now_ms % DAY_MS;
        let begin_ms = midnight_ms - days * DAY_MS + HOUR_MS;
        stamp(begin_ms);
        let control = ControlLog::open(log.clone()).unwrap();
        ensure_partitions_in_use(&control, "test", 1, begin_ms).unwrap();
        let halves = (0..).map(|half| begin_ms + half * HOUR_MS / 2);
        let mut times: Vec<i64> = halves.take_while(|at_ms| *at_ms < midnight_ms).collect();
        times.extend((0..days).map(|day| midnight_ms - day * DAY_MS - 61_000));
        times.sort_unstable();
        let mut hits = 0;
        for at_ms in times {
            let stamp_ms = stamp(at_ms);
            for site in ["one.example", "two.example"] {
                append(log.as_ref(), hits, site, at_ms, stamp_ms);
                hits += 1;
            }
        }
        Past { place, log, control, midnight_ms, hits }
    }

    /// The day so long ago as an argument; 0: today.
    fn day(&self, ago: i64) -> String {
        let at = jiff::Timestamp::from_millisecond(self.midnight_ms - ago * DAY_MS).unwrap();
        at.strftime("%Y-%m-%d").to_string()
    }

    fn replay(&self, from: &str, to: &str, more: &[&str]) -> Output {
        let args = ["replay", "--share", "1", "--from", from, "--to", to];
        self.place.weir(&args.iter().chain(more).copied().collect::<Vec<_>>())
    }

    fn went_well(&self, from: &str, to: &str, more: &[&str]) -> String {
        let output = self.replay(from, to, more);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, from: &str, to: &str, more: &[&str]) -> String {
        let output = self.replay(from, to, more);
        assert!(!output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Rows and digest of all that left before today.
    fn digest(&self) -> Value {
        self.place.json(&["digest", "--to", &self.day(0), "--json"])
    }

    fn say(&self, action: Action) {
        let (who, reason) = ("ops@test".to_owned(), "a test's".to_owned());
        let record = ControlRecord { at_ms: SystemClock.now_ms(), who, reason, action };
        block_on(self.control.append(&record)).unwrap();
    }

    fn databases(&self) -> String {
        write(&self.place, "SELECT count() FROM system.databases WHERE endsWith(name, '_replay')").trim().to_owned()
    }

    /// The rows of a site's pages that left on a day, in SQL.
    fn of(&self, site: &str, ago: i64) -> String {
        format!("site = '{site}' AND dimension = 'page' AND toDate(emitted_in, 'UTC') = '{}'", self.day(ago))
    }

    fn delete(&self, site: &str, ago: i64) {
        let of = self.of(site, ago);
        write(&self.place, &format!("ALTER TABLE weir.stats_v1 DELETE WHERE {of} SETTINGS mutations_sync = 2"));
    }

    fn double(&self, site: &str, ago: i64) {
        let columns = "site, dimension, value, window_start, emitted_in, origin, page_views, visitors, visitor_check";
        let of = self.of(site, ago);
        let sql =
            format!("INSERT INTO weir.stats_v1 ({columns}) SELECT {columns} FROM weir.stats_v1 WHERE {of} LIMIT 2");
        write(&self.place, &sql);
    }

    fn change(&self, site: &str, ago: i64) {
        let of = self.of(site, ago);
        let set = "page_views = page_views + 1";
        write(&self.place, &format!("ALTER TABLE weir.stats_v1 UPDATE {set} WHERE {of} SETTINGS mutations_sync = 2"));
    }

    fn fault(&self) -> Option<String> {
        Some(self.place.status()?["runs"][0]["progress"]["fault"]["kind"].as_str()?.to_owned())
    }

    /// Everything in the table is what was recorded.
    fn audited(&self) {
        let target = Target {
            url: format!("http://127.0.0.1:{}", self.place.clickhouse),
            database: "weir".into(),
            user: "weir".into(),
            password: password(&self.place.dir.path().join("data/clickhouse")),
        };
        let schema = std::fs::read_to_string(self.place.dir.path().join("quick.toml")).unwrap();
        let version = weir_schemas::SchemaVersion::parse(&schema, "quick.toml").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(Audit::new(&target, &version).full()).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn what_somebody_changed_is_named_by_day_and_site_and_replaced_while_hits_are_counted() {
    let past = Past::new("1h");
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(past.hits));
    let before = past.digest();
    let said = past.went_well(&past.day(3), &past.day(0), &[]);
    assert!(said.starts_with("the table is what the log gives from ") && said.contains("every digest alike"), "{said}");
    assert_eq!(past.databases(), "0", "nothing is left behind");

    // Beside hits that are collected and counted all the time.
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::SeqCst) {
                sent += place.hits("/now", 3);
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        for (how, damage) in
            [("less", Past::delete as fn(&Past, &str, i64)), ("more", Past::double), ("other", Past::change)]
        {
            damage(&past, "two.example", 2);
            assert_ne!(past.digest(), before, "{how}");
            let told = past.replay(&past.day(3), &past.day(0), &[]);
            let lines = String::from_utf8(told.stdout.clone()).unwrap();
            assert!(!told.status.success(), "{}", text(&told));
            assert_eq!(lines.lines().count(), 2, "one place, and a sentence: {lines}");
            let begins = format!("{}  two.example  the table has ", past.day(2));
            assert!(lines.starts_with(&begins) && lines.contains(" is not what the log gives"), "{lines}");
            assert_eq!(past.databases(), "1", "what was computed is kept for who asks for it");
            let replaced = past.replay(&past.day(2), &past.day(1), &["--apply", "--reason", how, "--json"]);
            assert!(replaced.status.success(), "{}", text(&replaced));
            let told: Value = serde_json::from_slice(&replaced.stdout).unwrap();
            assert_eq!((&told["equal"], &told["replaced"]), (&Value::Bool(true), &serde_json::json!([past.day(2)])));
            assert_eq!(told["differing"][0]["site"], "two.example");
            assert_eq!((past.digest(), past.databases()), (before.clone(), "0".to_owned()));
        }
        let said = past.went_well(&past.day(2), &past.day(0), &["--apply", "--reason", "to be sure"]);
        assert!(said.starts_with("the table is what the log gives"), "nothing to replace: {said}");
        stop.store(true, Ordering::SeqCst);
        sending.join().unwrap()
    });
    place.wait_complete();
    assert_eq!(place.page_views(), Some(past.hits + sent), "live went on");
    past.audited();
    let log = text(&place.weir(&["log"]));
    assert_eq!(log.matches(&format!("replace {}", past.day(2))).count(), 3, "{log}");
    assert_eq!(log.matches("the days were replaced").count(), 3, "{log}");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn what_cannot_be_replayed_or_replaced_is_refused_with_what_to_wait_for() {
    let past = Past::new("1h");
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    let before = past.digest();
    let apply = ["--apply", "--reason", "of a test"];
    let tomorrow = past.day(-1);
    let said = past.refused(&past.day(0), &tomorrow, &apply);
    assert!(
        said.contains(&format!("{} is not finished: live is complete through ", past.day(0)))
            && said.contains("wait until that is past ")
            && !said.contains("--to"),
        "there is nothing less to take: {said}"
    );
    assert!(past.refused(&past.day(0), &tomorrow, &[]).contains("are not done: live is complete through "));
    let noon = format!("{}T12:00:00Z", past.day(2));
    assert!(past.refused(&noon, &past.day(1), &apply).contains("--apply replaces whole days"));
    assert!(past.refused(&past.day(2), &past.day(1), &["--apply"]).contains("--reason"));
    assert!(past.refused(&past.day(1), &past.day(2), &[]).contains("is not before --to"));
    assert!(past.refused(&past.day(9), &past.day(8), &[]).contains("live began at "));
    // A part of a day is compared.
    assert!(past.went_well(&noon, &past.day(1), &[]).contains("every digest alike"));

    // Somebody is at it; the table that it fills is not there for long.
    let args = ["replay", "--share", "0.01", "--from", &past.day(3), "--to", &past.day(0)];
    let mut slow = place.command(&args).spawn().unwrap();
    wait_for("the first one to begin", || (past.databases() == "1").then_some(()));
    assert!(past.refused(&past.day(2), &past.day(1), &[]).contains("another `weir replay` is at work here"));
    signal(slow.id() as i32, libc::SIGTERM);
    assert_eq!(slow.wait().unwrap().code(), Some(1));
    assert!(past.went_well(&past.day(2), &past.day(1), &[]).contains("every digest alike"), "it is free again");

    // A recovery that is not done.
    past.say(Action::Recover {
        run: "gap".into(),
        id: 1,
        repair: weir_schemas::Repair::AskAgain { from_ms: past.midnight_ms },
        topic_is: None,
    });
    assert!(past.refused(&past.day(2), &past.day(1), &[]).contains("a recovery was ordered, and is not done yet"));
    past.say(Action::Recovered { run: "gap".into(), id: 1 });

    // The log does not reach back any more.
    let bounds = past.log.bounds(EVENTS_TOPIC, 0).unwrap();
    assert_eq!(bounds.start, 0);
    past.log.trim(EVENTS_TOPIC, 0, 120).unwrap();
    let said = past.refused(&past.day(3), &past.day(0), &apply);
    assert!(said.contains("the log does not have all that the windows from ") && said.contains("begin at "), "{said}");
    assert!(past.went_well(&past.day(1), &past.day(0), &apply).contains("every digest alike"));
    assert_eq!(past.digest(), before);

    // A ClickHouse that does not let the writer in, or is away.
    let out = place.command(&[
        "--set",
        "clickhouse.url=http://127.0.0.1:1",
        "replay",
        "--from",
        &past.day(1),
        "--to",
        &past.day(0),
    ]);
    let out = { out }.output().unwrap();
    assert!(!out.status.success() && text(&out).contains("does not answer"), "{}", text(&out));
    let url = format!("clickhouse.url=http://127.0.0.1:{}", place.clickhouse);
    let out = place
        .command(&[
            "--set",
            &url,
            "--set",
            "clickhouse.user=weir",
            "--set",
            "clickhouse.password=wrong",
            "replay",
            "--from",
            &past.day(1),
            "--to",
            &past.day(0),
        ])
        .output()
        .unwrap();
    assert!(!out.status.success() && text(&out).contains("check clickhouse.user"), "{}", text(&out));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_replacement_that_is_cut_is_ended_by_the_same_command_and_nobody_trusts_its_days_meanwhile() {
    let past = Past::new("300ms");
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    let before = past.digest();
    let (from, to) = past.cut(7, 1);
    past.delete("one.example", 2);
    // Ten looks of the audit and more.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(past.fault(), None, "what the audit finds of these days is not believed");
    let sent = place.hits("/now", 5);
    place.wait_complete();
    assert_eq!(
        place.query("SELECT sum(page_views) FROM stats WHERE dimension = 'page' AND value = '/now'").unwrap().trim(),
        sent.to_string()
    );
    let status = text(&place.weir(&["status"]));
    assert!(status.contains(&format!("replay: REPLACES {from} for ")) && status.contains("\"a test's\""), "{status}");
    let copied = place.weir(&["backup", "create", "within"]);
    assert!(
        !copied.status.success() && text(&copied).contains(&format!("{from} is being replaced since")),
        "{}",
        text(&copied)
    );
    let other = past.refused(&past.day(1), &past.day(0), &APPLY);
    assert!(other.contains(&format!("--from {from} --to {to} --apply")), "{other}");
    let said = past.went_well(&from, &to, &APPLY);
    assert!(said.contains(&format!("{from} was replaced; the table is what the log gives")), "{said}");
    assert_eq!(past.digest(), before);
    past.audited();
    assert!(!text(&place.weir(&["status"])).contains("REPLACES"));
    assert!(place.weir(&["backup", "create", "after"]).status.success());

    // What the audit finds after that is believed again. Then days that have long been finished need no recovery.
    past.delete("one.example", 2);
    wait_for("live to stop", || (past.fault()? == "table_differs").then_some(()));
    let cost = text(&place.weir(&["recover", "live", "--dry-run"]));
    assert!(cost.contains("computes all windows from "), "{cost}");
    past.went_well(&from, &to, &APPLY);
    let cost = text(&place.weir(&["recover", "live", "--dry-run"]));
    assert!(cost.contains("live goes on from the first window that is not in the table"), "{cost}");
    let recovered = place.weir(&["recover", "live", "--reason", "replaced"]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    place.wait_complete();
    assert_eq!((past.digest(), past.fault()), (before, None));
    past.audited();
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_command_that_is_killed_at_any_moment_is_ended_by_the_same_one() {
    let past = Past::new("1h");
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    let before = past.digest();
    let args =
        ["replay", "--share", "1", "--from", &past.day(3), "--to", &past.day(0), "--apply", "--reason", "killed"];
    let begin = Instant::now();
    past.delete("one.example", 2);
    assert!(place.weir(&args).status.success());
    let whole = begin.elapsed();
    for kill in 1..=3 {
        past.delete("one.example", 2);
        past.double("two.example", 1);
        let mut child = place.command(&args).spawn().unwrap();
        std::thread::sleep(whole * kill / 3);
        signal(child.id() as i32, libc::SIGKILL);
        child.wait().unwrap();
        let again = place.weir(&args);
        assert!(again.status.success(), "killed at {kill}/3: {}", text(&again));
        assert_eq!(past.digest(), before, "killed at {kill}/3");
        past.audited();
        assert_eq!(past.databases(), "0");
    }
    assert!(!text(&place.weir(&["status"])).contains("REPLACES"));
    let sent = place.hits("/now", 5);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(past.hits + sent));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_replacement_that_is_cut_goes_on_without_the_log_or_is_given_up_and_then_the_audit_sees_half_of_a_day() {
    let past = Past::new("300ms");
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    let before = past.digest();
    // Of another generation: neither a copy nor a replay waits for it.
    let (from, to) = past.cut(7, 2);
    assert!(place.weir(&["backup", "create", "beside"]).status.success());
    past.cut(8, 1);
    past.change("one.example", 2);
    assert!(past.refused(&from, &to, &[]).contains("is not what the log gives"), "and it stays computed");
    past.log.trim(EVENTS_TOPIC, 0, 120).unwrap();
    let said = past.went_well(&from, &to, &APPLY);
    assert!(said.contains(&format!("{from} was replaced; the table is what the log gives")), "{said}");
    assert_eq!(past.digest(), before);

    past.cut(9, 1);
    past.change("one.example", 2);
    assert!(past.refused(&from, &to, &APPLY).contains("the log does not have all that the windows from "));
    assert!(!place.weir(&["replay", "--give-up"]).status.success(), "it needs a reason");
    let given_up = place.weir(&["replay", "--give-up", "--reason", "the log has it no more"]);
    assert!(given_up.status.success(), "{}", text(&given_up));
    for generation in [1, 2] {
        let said = format!("given up: {from} of generation {generation}, ordered ");
        assert!(text(&given_up).contains(&said), "{}", text(&given_up));
    }
    assert!(text(&place.weir(&["replay", "--give-up", "--reason", "again"])).contains("there is nothing to give up"));
    // As many rows as were recorded, and other ones.
    wait_for("live to stop", || (past.fault()? == "table_differs").then_some(()));
    let status = text(&place.weir(&["status"]));
    assert!(!status.contains("REPLACES") && status.contains(", and other ones"), "{status}");
    let cost = text(&place.weir(&["recover", "live", "--dry-run"]));
    assert!(cost.contains("say --accept-loss if they may be lost"), "{cost}");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn days_that_were_given_up_are_compared_by_whichever_process_comes_to_its_end_and_then_not_again() {
    let past = Past::new("1h");
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    let (from, to) = past.cut(7, 1);
    past.change("one.example", 2);
    let given_up = place.weir(&["replay", "--give-up", "--reason", "of a test"]);
    assert!(given_up.status.success(), "{}", text(&given_up));
    // This one ends before it has compared anything.
    assert_eq!(serve.stop(), Some(0));
    let config = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), config.replace("audit_every = \"1h\"", "audit_every = \"300ms\"")).unwrap();
    let serve = place.start();
    wait_for("live to stop", || (past.fault()? == "table_differs").then_some(()));
    let compared = || text(&place.weir(&["log"])).matches("every row was compared").count();
    assert_eq!(compared(), 0, "something was found");
    past.went_well(&from, &to, &APPLY);
    let recovered = place.weir(&["recover", "live", "--reason", "replaced"]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    wait_for("all to be right", || (compared() == 1).then_some(()));
    assert_eq!(serve.stop(), Some(0));
    let serve = place.start();
    place.wait_complete();
    // Ten looks of the audit and more.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((compared(), past.fault()), (1, None));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn on_kafka_a_day_is_replaced_by_what_its_log_gives_and_live_goes_on() {
    let Some(broker) = kafka() else { return };
    let past = Past::on_kafka(&broker.bootstrap());
    let place = &past.place;
    let serve = place.start();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(past.hits));
    let before = past.digest();
    past.delete("one.example", 1);
    past.change("two.example", 1);
    assert_ne!(past.digest(), before);
    let mut sent = place.hits("/before", 3);
    let said = past.went_well(&past.day(1), &past.day(0), &APPLY);
    let replaced = format!("{} was replaced; the table is what the log gives", past.day(1));
    assert!(said.contains(&replaced) && said.contains("every digest alike"), "{said}");
    assert_eq!((past.digest(), past.databases()), (before, "0".to_owned()));
    sent += place.hits("/after", 4);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(past.hits + sent), "live went on");
    past.audited();
    assert_eq!(serve.stop(), Some(0));
}
