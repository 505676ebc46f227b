//! What everybody can see of a real weir: the page, the APIs, the terminal.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use crate::support::{self, Place, WEIR, children_of, get, kafka, signal, wait_for};
use serde_json::{Value, json};
use weir_log::{Committed, ControlLog, Log, SystemClock, TopicKind};
use weir_schemas::{
    control::{Action, CONTROL_TOPIC, ControlRecord, EVENTS_TOPIC},
    progress::{Metadata, PartitionProgress, RunProgress, group_of},
};

fn send(place: &Place) {
    let hit =
        json!({ "site": "one.example", "url": "https://one.example/", "ip": "203.0.113.7", "user_agent": "Firefox" });
    wait_for("an acknowledgement", || matches!(place.post(&json!([hit]).to_string()), Ok((202, _))).then_some(()));
}

fn say(place: &Place, action: Action) {
    let config = weir_log::LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let control = ControlLog::open(weir_log::open(&config, Arc::new(SystemClock)).unwrap()).unwrap();
    let at_ms = jiff::Timestamp::now().as_millisecond();
    let record = ControlRecord { at_ms, who: "ops@test".into(), reason: "new <disk>".into(), action };
    futures::executor::block_on(control.append(&record)).unwrap();
}

fn text(place: &Place, path: &str) -> String {
    let (status, text) = get(&format!("http://{}{path}", place.console)).expect("an answer");
    assert_eq!(status, 200, "{path}: {text}");
    text
}

fn json(place: &Place, path: &str) -> Value {
    serde_json::from_str(&text(place, path)).unwrap()
}

fn wait_status(place: &Place, colour: &str) -> Value {
    wait_for(colour, || place.status().filter(|status| status["status"] == colour))
}

#[test]
fn a_maintenance_is_seen_from_its_pause_to_its_catch_up_also_while_only_the_console_runs() {
    let place = Place::new("[console]\nname = \"Our & numbers\"\nurl = \"https://status.example.org/\"");
    let serve = place.start();
    send(&place);
    place.wait_complete();
    let green = wait_status(&place, "green");
    assert!(green["sentence"].as_str().unwrap().starts_with("Statistics are complete through "), "{green}");
    let works = |component: &str| json!({ "component": component, "status": "operational" });
    assert_eq!(green["components"], json!([works("collection"), works("statistics"), works("queries")]));
    assert!(text(&place, "/").contains("<title>Our &amp; numbers · All is well</title>"));

    let run = || "live".to_owned();
    say(&place, Action::Pause { run: run(), id: 7, until_ms: None, allow_loss: false });
    let paused = wait_status(&place, "yellow");
    let sentence = paused["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("Paused for maintenance since ") && sentence.contains("(new <disk>)"), "{sentence}");
    assert_eq!(serve.stop(), Some(0));

    // The log alone tells it.
    let console = place.start_part(&["console"]);
    wait_for("the console", || get(&format!("http://{}/healthz", place.console)));
    let alone = wait_status(&place, "yellow");
    let troubles = alone["troubles"].as_array().unwrap();
    let sentence = |kind: &str| troubles.iter().find(|trouble| trouble["kind"] == kind)?["sentence"].as_str();
    // It has no collector, and says nothing of what it has not asked.
    let unasked = paused["sentence"].as_str().unwrap().replace("hits are collected, ", "");
    assert_eq!(sentence("paused"), Some(unasked.as_str()), "{alone}");
    assert_eq!(sentence("queries_fail"), Some("Statistics cannot be queried at the moment."), "{alone}");
    let components = alone["components"].as_array().unwrap();
    let names: Vec<_> = components.iter().map(|one| one["component"].as_str().unwrap()).collect();
    assert_eq!(names, ["statistics", "queries"], "weir serve took its ClickHouse along");
    let told = text(&place, "/");
    assert!(told.contains("(new &lt;disk&gt;)") && !told.contains("<disk>"), "{told}");
    let maintenances = json(&place, "/api/v2/scheduled-maintenances/active.json");
    let maintenance = &maintenances["scheduled_maintenances"][0];
    assert_eq!((&maintenance["id"], &maintenance["status"]), (&json!("maintenance-7"), &json!("in_progress")));
    assert!(text(&place, "/feed.atom").contains("Maintenance: new &lt;disk&gt;"));
    assert!(text(&place, "/badge.svg").contains("<title>Paused for maintenance since "));
    assert_eq!(json(&place, "/status/one.example.json")["status"], "yellow");
    assert_eq!(get(&format!("http://{}/status/three.example.json", place.console)).unwrap().0, 404);
    assert_eq!(console.stop(), Some(0));

    let serve = place.start();
    say(&place, Action::Resume { run: run(), id: 8, left_to_ms: None });
    let state = |word: &str| {
        let status = place.status()?;
        (status["maintenances"][0]["state"] == word).then_some(status)
    };
    wait_for("the catch-up", || state("catching_up").or_else(|| state("over")));
    say(&place, Action::CaughtUp { run: run(), id: 8, eta: None });
    wait_for("the end", || state("over"));
    send(&place);
    place.wait_complete();
    wait_status(&place, "green");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_clickhouse_that_is_away_is_said_to_those_who_query() {
    let place = Place::new("");
    let serve = place.start();
    place.wait_complete();
    wait_status(&place, "green");
    let shown = || support::text(&place.weir(&["status"]));
    wait_for("the terminal to say the same", || {
        shown().starts_with("GREEN: Statistics are complete through ").then_some(())
    });
    assert!(shown().contains("Everything is collected."), "{}", shown());
    let pid = wait_for("clickhouse", || serve.children("clickhouse").first().copied());
    signal(pid, libc::SIGSTOP);
    let status =
        wait_for("the light", || place.status().filter(|status| status["troubles"][0]["kind"] == "queries_fail"));
    assert_eq!(status["status"], "yellow");
    let told = shown();
    assert!(told.starts_with("YELLOW: Statistics cannot be queried at the moment. Hits are collected"), "{told}");
    signal(pid, libc::SIGCONT);
    wait_status(&place, "green");
    assert_eq!(serve.stop(), Some(0));
}

/// Live is an hour behind, and reports twice a second that it has read ten records and six minutes more, until it is stopped.
fn catching_up(log: Arc<dyn Log>, stopped: mpsc::Receiver<()>) {
    let begin_ms = jiff::Timestamp::now().as_millisecond();
    let through_ms = begin_ms - 3_600_000;
    for step in 0.. {
        let at_ms = jiff::Timestamp::now().as_millisecond();
        let complete_through_ms = Some(through_ms + step * 6_000);
        let run = Some(RunProgress { at_ms, complete_through_ms, ..RunProgress::default() });
        let partition = PartitionProgress { arrival_ms: complete_through_ms, offset: Some(10 * step) };
        let metadata = serde_json::to_string(&Metadata { partition, run }).unwrap();
        log.commit(&group_of("live"), EVENTS_TOPIC, &[Committed { partition: 0, offset: 10 * step, metadata }])
            .unwrap();
        if stopped.recv_timeout(Duration::from_millis(500)).is_ok() {
            return;
        }
    }
}

#[test]
fn one_status_looks_for_as_long_as_it_takes_to_say_when_a_run_will_have_caught_up() {
    let place = Place::new("");
    let config = weir_log::LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, Arc::new(SystemClock)).unwrap();
    let kind = TopicKind::Events { partitions: 1, retention: Duration::from_secs(30 * 86_400) };
    log.create_topic(EVENTS_TOPIC, &kind).unwrap();
    let appends = (0..5_000).map(|_| log.append(EVENTS_TOPIC, 0, b"a hit".as_slice().into(), None));
    for appended in futures::executor::block_on(futures::future::join_all(appends)) {
        appended.unwrap();
    }
    say(&place, Action::PartitionsInUse { partitions: 1, effective_ms: 0 });
    stand_in_for_the_collector(&place);
    let (stop, stopped) = mpsc::channel();
    let running = std::thread::spawn(move || catching_up(log, stopped));
    let begin = Instant::now();
    let status = place.json(&["status", "--json"]);
    stop.send(()).unwrap();
    running.join().unwrap();
    let live = &status["runs"][0];
    assert_eq!(live["eta"]["is"], "between", "{live}");
    assert!((10.0..40.0).contains(&live["rates"]["drain_per_s"].as_f64().unwrap()), "{live}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!((&status["status"], &status["troubles"][0]["kind"]), (&json!("yellow"), &json!("late")));
}

/// Answers at the collector's address that it is ready.
fn stand_in_for_the_collector(place: &Place) {
    let listener = std::net::TcpListener::bind(&place.collector).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = std::io::BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nready";
            let _ = stream.get_mut().write_all(answer);
        }
    });
}

#[test]
fn beside_an_embedded_log_nobody_at_the_collectors_address_is_red() {
    let place = Place::new("");
    let serve = place.start();
    place.wait_complete();
    let status = place.weir(&["status"]);
    assert!(status.status.success(), "{}", support::text(&status));
    assert_eq!(serve.stop(), Some(0));
    let status = place.weir(&["status", "--json"]);
    assert!(!status.status.success(), "{}", support::text(&status));
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["status"], &status["troubles"][0]["kind"]), (&json!("red"), &json!("collection_fails")));
    assert_eq!(status["collector"]["reason"], format!("nobody listens at {}", place.collector));
}

#[test]
fn what_goes_into_a_file_has_no_colours() {
    let place = Place::new("");
    let said = place.dir.path().join("said");
    let file = std::fs::File::create(&said).unwrap();
    let serve = place.command(&["serve"]).env("RUST_LOG", "info").stderr(file).spawn().unwrap();
    let serve = support::Serve { child: serve };
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));
    let said = std::fs::read_to_string(said).unwrap();
    // Its own lines, and those of its run.
    assert!(said.contains(" INFO ") && said.contains("goes on from its checkpoint"), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn a_log_that_is_away_is_said_also_by_a_console_that_starts_meanwhile_and_goes_on_when_it_is_back() {
    let Some(mut broker) = kafka() else { return };
    // Without a spool: nothing is known to keep hits meanwhile.
    let place = Place::new(&format!(
        "[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"{}\"\n[ingest.spool]\nbytes_max = 0",
        broker.bootstrap()
    ));
    let serve = place.start();
    send(&place);
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));

    broker.kill();
    let shown = |part: &str| {
        let part = place.start_part(&[part]);
        let red = wait_status(&place, "red");
        assert_eq!(red["troubles"][0]["kind"], "log_away", "{red}");
        assert!(text(&place, "/").contains("The log that keeps hits does not answer"));
        part
    };
    let console = shown("console");
    broker.start_again();
    let live = wait_for("the runs", || place.status()?["runs"].get(0).cloned());
    assert_eq!((&live["run"], place.status().unwrap()["log_away"].clone()), (&json!("live"), Value::Null));
    assert_eq!(console.stop(), Some(0));

    broker.kill();
    let pipeline = shown("pipeline");
    broker.start_again();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(1));
    assert_eq!(pipeline.stop(), Some(0));
}

/// Writes to the control topic what no weir of this version has written.
fn write_another(place: &Place) {
    let config = weir_log::LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, Arc::new(SystemClock)).unwrap();
    let record = json!({ "at_ms": 1, "who": "ops", "reason": "", "action": { "do": "dance" } }).to_string();
    futures::executor::block_on(log.append(CONTROL_TOPIC, 0, record.into(), None)).unwrap();
}

#[test]
fn a_control_record_that_cannot_be_read_is_told_by_all_and_counted_once() {
    let place = Place::new("");
    let serve = place.start();
    place.wait_complete();
    let told = |count: u64| {
        wait_for("it to be told", || (place.status()?["control_unreadable"] == count).then_some(()));
        let line = format!("\ncontrol topic: {count} record");
        let shown = support::text(&place.weir(&["status"]));
        assert_eq!(shown.contains(&line) && shown.contains("`weir log`"), count > 0, "{shown}");
        assert_eq!(place.json(&["status", "--json"])["control_unreadable"], count);
    };
    told(0);
    write_another(&place);
    told(1);
    let green = wait_status(&place, "green");
    assert_eq!(green["troubles"], json!([]), "who uses the statistics is not touched");
    assert_eq!(serve.stop(), Some(0));

    // One more, that a process finds at its start, as the first.
    write_another(&place);
    let serve = place.start();
    place.wait_complete();
    told(2);
    // Each command reads all of the topic again.
    assert!(place.weir(&["pause", "live", "--dry-run"]).status.success());
    let metrics = text(&place, "/metrics");
    for line in ["weir_log_control_unreadable_total 2", "weir_status_control_unreadable 2"] {
        assert!(metrics.lines().any(|is| is == line), "{line}: {metrics}");
    }
    assert_eq!(serve.stop(), Some(0));
}

/// Names of weir's metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("weir_")).collect()
}

#[test]
fn every_metric_that_a_rule_or_the_dashboard_names_is_there() {
    let place = Place::new("");
    let serve = place.start();
    send(&place);
    place.wait_complete();
    let there = text(&place, "/metrics");
    for file in ["alerts.yml", "grafana.json"] {
        let named = std::fs::read_to_string(support::repository().join("docker").join(file)).unwrap();
        let named = metrics(&named);
        assert!(named.len() > 5, "{file}: {named:?}");
        let there = metrics(&there);
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{file}: {missing:?} of {there:?}");
    }
    assert_eq!(serve.stop(), Some(0));
}

/// Runs `weir status --watch` on a terminal of its own, as `script` makes it, until it has shown something twice.
fn watch(place: &Place, shown: &Path) -> String {
    let config = place.config();
    let command = format!("stty rows 24 cols 80; exec {WEIR} --config {} status --watch", config.display());
    let mut script = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &command])
        .arg(shown)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("`script` of util-linux");
    let read = || std::fs::read(shown).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    wait_for("two frames", || (read().matches("\x1b[H").count() >= 2).then_some(()));
    let weir = wait_for("weir", || children_of(script.id() as i32).first().copied());
    signal(weir, libc::SIGINT);
    assert!(script.wait().unwrap().success());
    read()
}

#[test]
fn the_terminal_shows_it_in_place_and_is_left_as_it_was() {
    let place = Place::new("");
    let serve = place.start();
    place.wait_complete();
    let shown = watch(&place, &place.dir.path().join("shown"));
    let (before, after) = shown.split_once("\x1b[?25h\x1b[?1049l").expect("the terminal is given back");
    assert!(before.contains("\x1b[?1049h\x1b[?25l\x1b[H"), "{before:?}");
    assert!(!before.contains("\x1b[2J"), "nothing is ever blank");
    assert!(before.contains("GREEN\x1b[0m: Statistics are complete through"), "{before:?}");
    assert!(after.contains("live: complete through"), "the last text stays: {after:?}");
    assert!(
        before.split("\x1b[K\r\n").all(|line| line.rsplit("\x1b[").next().unwrap().chars().count() <= 82),
        "{before:?}"
    );

    // Not a terminal: the same text, and nothing else.
    let mut plain = place.command(&["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    let mut out = std::io::BufReader::new(plain.stdout.take().unwrap());
    while told.matches("live: complete through").count() < 2 {
        assert!(std::io::BufRead::read_line(&mut out, &mut told).unwrap() > 0, "{told}");
    }
    signal(plain.id() as i32, libc::SIGINT);
    assert!(plain.wait().unwrap().success() && !told.contains('\x1b'), "{told}");
    assert_eq!(serve.stop(), Some(0));
}
