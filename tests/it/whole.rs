//! The whole of weir on real parts: what is acknowledged is counted, once, whatever is killed meanwhile.

use serde_json::json;

use crate::{
    awk,
    support::{self, Place, is_alive, kafka, refused, signal, wait_for, went_well},
};
use weir_schemas::control::{import_run, import_topic};

/// Sends `events` page views in POSTs of ten, each with an id, and repeats a POST until it is acknowledged.
fn send(place: &Place, name: &str, events: u32) {
    for post in 0..events / 10 {
        let hits: Vec<_> = (0..10)
            .map(|hit| {
                json!({
                    "site": "one.example", "url": format!("https://one.example/{name}/{hit}"),
                    "id": format!("{name}-{post}-{hit}"), "ip": format!("203.0.113.{hit}"),
                    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                })
            })
            .collect();
        let body = json!(hits).to_string();
        wait_for("an acknowledgement", || match place.post(&body) {
            Ok((202, answer)) => {
                assert_eq!(answer["accepted"], 10, "{answer}");
                Some(())
            }
            Ok((503 | 429, _)) | Err(_) => None,
            Ok((status, answer)) => panic!("{status} {answer}"),
        });
    }
}

#[test]
fn what_is_acknowledged_is_counted_once_over_kills_of_serve_and_each_child() {
    let place = Place::new("");
    let mut serve = place.start();
    send(&place, "before", 500);
    for victim in ["run", "clickhouse"] {
        let pid = wait_for(victim, || serve.children(victim).first().copied());
        signal(pid, libc::SIGKILL);
        send(&place, &format!("after-{victim}"), 500);
        wait_for("another process in its place", || serve.children(victim).first().copied().filter(|new| *new != pid));
    }
    let orphans: Vec<i32> = ["run", "clickhouse"].iter().flat_map(|name| serve.children(name)).collect();
    serve.kill();
    wait_for("the children of a killed serve to be gone", || orphans.iter().all(|pid| !is_alive(*pid)).then_some(()));
    serve = place.start();
    send(&place, "after-serve", 500);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(2_000));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_graceful_stop_loses_nothing_and_leaves_nobody_behind() {
    let place = Place::new("");
    let serve = place.start();
    send(&place, "one", 200);
    let children: Vec<i32> = ["run", "clickhouse"].iter().flat_map(|name| serve.children(name)).collect();
    assert_eq!(serve.stop(), Some(0));
    assert!(children.iter().all(|pid| !is_alive(*pid)), "children live on");
    let serve = place.start();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(200));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn parts_apart_on_kafka_count_what_one_process_counts() {
    let Some(broker) = kafka() else { return };
    let place = Place::new(&format!("[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"{}\"", broker.bootstrap()));
    let mut ingest = place.command(&["ingest", "--set", "listen.console=127.0.0.1:0"]).spawn().unwrap();
    let mut pipeline = place.command(&["pipeline"]).spawn().unwrap();
    let url = format!("http://{}/readyz", place.collector);
    wait_for("the collector", || support::get(&url).filter(|(status, _)| *status == 200));
    send(&place, "apart", 300);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(300));
    let status = place.json(&["status", "--json"]);
    assert_eq!(status["runs"][0]["run"], "live", "{status}");
    for child in [&mut ingest, &mut pipeline] {
        signal(child.id() as i32, libc::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

/// Whether there is a record of events in a partition, not only ticks.
fn has_batch(log: &dyn weir_log::Log, topic: &str, partition: u32) -> bool {
    use weir_schemas::wire::{Content, decode};
    let bounds = log.bounds(topic, partition).unwrap();
    let mut reader = log.reader(topic).unwrap();
    reader.assign(partition, bounds.start).unwrap();
    let (mut next, mut found) = (bounds.start, false);
    while next < bounds.end {
        let each = &mut |record: weir_log::RecordRef<'_>| {
            next = record.offset + 1;
            found |= decode(record.payload).is_ok_and(|record| matches!(record.content, Content::Batch(_)));
        };
        reader.poll(100, std::time::Duration::from_secs(1), each).unwrap();
    }
    found
}

#[test]
fn partitions_that_are_added_are_waited_for_and_counted_while_everything_goes_on() {
    let place = Place::new("[log]\npartitions = 1");
    let serve = place.start();
    send(&place, "before", 100);
    // Any process whose configuration names more partitions puts them into use.
    let more = ["generate", "--rate", "1", "--for", "1ms", "--set", "log.partitions=3", "--seed", "1"];
    went_well(&place, &more);
    let config = weir_log::LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, std::sync::Arc::new(weir_log::SystemClock)).unwrap();
    let events = weir_schemas::control::EVENTS_TOPIC;
    assert_eq!(log.partitions(events).unwrap(), 3);
    let mut sent = 0;
    // A batch goes to the next partition that is in use.
    wait_for("events in every partition", || {
        send(&place, &format!("after-{sent}"), 50);
        sent += 50;
        (0..3).all(|partition| has_batch(log.as_ref(), events, partition)).then_some(())
    });
    place.wait_complete();
    let counted = "SELECT sum(page_views) FROM stats WHERE dimension = 'site' AND site = 'one.example'";
    assert_eq!(place.query(counted), Some(format!("{}\n", 100 + sent)));
    let status = place.status().unwrap();
    assert_eq!(status["runs"][0]["partitions"].as_array().map(Vec::len), Some(3), "{status}");
    assert_eq!(serve.stop(), Some(0));
}

/// Rows of a name and a number.
fn counts(rows: &str) -> std::collections::BTreeMap<String, u64> {
    let pairs = rows.lines().map(|row| row.split_once('\t').expect("two columns"));
    pairs.map(|(name, count)| (name.to_owned(), count.parse().expect("a number"))).collect()
}

#[test]
fn an_import_is_counted_as_awk_counts_it_and_taken_back_whole() {
    let place = Place::new("");
    let serve = place.start();
    let log = support::repository().join("examples/blog-access.log");
    let rejects = place.dir.path().join("rejects").display().to_string();
    let log = log.display().to_string();
    let import = place.json(&["import", "--json", "--rejects", &rejects, "--site", "one.example", &log]);
    let page_views = import["page_views"].as_u64().unwrap();
    wait_for("the import to be counted", || {
        let done = place.status()?["imports"][0]["state"].as_str()? == "done";
        done.then_some(())
    });
    assert_eq!(place.page_views(), Some(page_views));
    let late = place.query("SELECT count() FROM stats WHERE origin != '' AND window_start != emitted_in").unwrap();
    assert_eq!(late.trim(), "0", "an import is never late");

    let (days, pages) = awk::page_views(log.as_ref());
    let of_days = "SELECT toDate(window_start, 'UTC'), sum(page_views) FROM stats WHERE dimension = 'site' GROUP BY 1";
    assert_eq!(counts(&place.query(of_days).unwrap()), days);
    let of_pages = "SELECT page, sum(page_views) AS views FROM pages GROUP BY page HAVING views > 0";
    assert_eq!(counts(&place.query(of_pages).unwrap()), pages);

    // The same file again.
    refused(&place, &["import", "--rejects", &rejects, "--site", "one.example", &log]);

    let id = import["id"].as_str().unwrap();
    let counted = place.page_views();
    let said = went_well(&place, &["import", "undo", id, "--dry-run"]);
    assert!(said.starts_with("would be so: ") && said.contains(id), "{said}");
    assert_eq!(place.page_views(), counted, "who only asks takes nothing back");
    went_well(&place, &["import", "undo", id]);
    let again = place.weir(&["import", "undo", id, "--dry-run"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("was taken back already"));
    wait_for("the import to be taken back", || (place.page_views()? == 0).then_some(()));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn an_end_that_was_not_told_before_a_kill_is_told_by_the_next_process() {
    let place = Place::new("");
    let serve = place.start();
    let log = support::repository().join("examples/blog-access.log").display().to_string();
    let rejects = place.dir.path().join("rejects").display().to_string();
    let import = place.json(&["import", "--json", "--rejects", &rejects, "--site", "one.example", &log]);
    let counted = || (place.status()?["imports"][0]["state"].as_str()? == "done").then_some(());
    wait_for("the import to be counted", counted);
    assert_eq!(serve.stop(), Some(0));

    // As if the run had been killed between its last batch and its last word.
    let id = import["id"].as_str().unwrap();
    let (group, topic) = (weir_schemas::progress::group_of(&import_run(id)), import_topic(id));
    let config = weir_log::LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let embedded = weir_log::open(&config, std::sync::Arc::new(weir_log::SystemClock)).unwrap();
    let mut told = embedded.committed(&group, &topic).unwrap();
    for partition in &mut told {
        partition.metadata = partition.metadata.replace(r#""ended":true"#, r#""ended":false"#);
    }
    assert!(told.iter().any(|partition| partition.metadata.contains(r#""ended":false"#)), "{told:?}");
    embedded.commit(&group, &topic, &told).unwrap();
    drop(embedded);

    let serve = place.start();
    wait_for("the import to be told as counted", counted);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_clickhouse_that_is_away_at_the_start_stops_no_collection_and_is_used_when_it_comes() {
    use weir_sink::server::{Program, Server, ServerSpec, WRITER, memory_default_bytes};
    let place = Place::new("");
    let dir = place.dir.path().join("another-clickhouse");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("writer-password"), "of-this-test").unwrap();
    let mut command = place.command(&["serve"]);
    command.env("WEIR_CLICKHOUSE__URL", format!("http://127.0.0.1:{}", place.clickhouse));
    command.env("WEIR_CLICKHOUSE__USER", WRITER).env("WEIR_CLICKHOUSE__PASSWORD", "of-this-test");
    let serve = support::Serve { child: command.spawn().unwrap() };
    wait_for("the collector", || support::get(&format!("http://{}/readyz", place.collector)));
    send(&place, "away", 100);
    assert_eq!(place.page_views(), None);
    let spec = ServerSpec {
        program: Program::Embedded { lib: std::env::var_os("WEIR_CHDB_LIB").expect("set by ./dev test").into() },
        child_command: vec![support::WEIR.into(), "clickhouse".into()],
        backups: dir.join("backups"),
        dir,
        listen_host: "127.0.0.1".into(),
        http_port: place.clickhouse,
        database: "weir".into(),
        analyst_password: String::new(),
        memory_bytes: memory_default_bytes(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(spec)).unwrap();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(100));
    assert_eq!(serve.stop(), Some(0));
    runtime.block_on(server.stop());
}

#[test]
fn who_asks_before_any_run_has_said_something_is_told_how_far_behind_it_is() {
    let Some(broker) = kafka() else { return };
    let place = Place::new(&format!("[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"{}\"", broker.bootstrap()));
    let ingest = place.start_part(&["ingest"]);
    wait_for("the collector", || support::get(&format!("http://{}/readyz", place.collector)));
    send(&place, "alone", 100);
    wait_for("a lag in records and in time", || {
        let run = &place.status()?["runs"][0];
        (run["lag_records"].as_i64()? > 0 && run["lag_ms"].as_i64()? > 0).then_some(())
    });
    assert_eq!(ingest.stop(), Some(0));
}

#[test]
fn a_damaged_record_in_the_topic_is_set_aside_and_the_partition_goes_on() {
    let place = Place::new("[log]\npartitions = 1");
    let serve = place.start();
    send(&place, "before", 100);
    let config = weir_log::LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, std::sync::Arc::new(weir_log::SystemClock)).unwrap();
    let damaged = bytes_of_a_truncated_batch();
    let append = log.append(weir_schemas::control::EVENTS_TOPIC, 0, damaged.into(), None);
    futures::executor::block_on(append).unwrap();
    send(&place, "after", 100);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(200));
    wait_for("the damaged record to be told", || {
        (place.status()?["runs"][0]["progress"]["records_unreadable"].as_u64()? == 1).then_some(())
    });
    wait_for("the metrics of every part", || {
        let (_, metrics) = support::get(&format!("http://{}/metrics", place.console))?;
        let told = [
            "weir_ingest_events_total{route=\"events\"} 200",
            "weir_pipeline_records_unreadable_total{run=\"live\"} 1",
            "weir_sink_batches_total{run=\"live\"} ",
            "weir_pipeline_lag_records{run=\"live\"} ",
        ];
        told.iter().all(|series| metrics.contains(series)).then_some(())
    });
    assert_eq!(serve.stop(), Some(0));
}

fn bytes_of_a_truncated_batch() -> Vec<u8> {
    let mut batch = weir_schemas::wire::BatchBuilder::new([7; 16], 0);
    batch.push(&weir_schemas::Event { site: "one.example".into(), page: "/lost".into(), ..Default::default() });
    let mut record = weir_schemas::wire::batch_record(0, &batch.finish());
    record.truncate(record.len() - 3);
    record
}

#[test]
fn a_status_where_nothing_was_started_makes_nothing_and_says_what_would() {
    let place = Place::new("");
    let output = place.weir(&["status"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("weir serve"), "{text}");
    assert!(!place.dir.path().join("data").exists());
}

#[test]
fn a_port_that_is_taken_is_named_with_the_key_to_change() {
    let place = Place::new("");
    let taken = std::net::TcpListener::bind(&place.collector).unwrap();
    let output = place.weir(&["serve"]);
    drop(taken);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("listen.collector") && text.contains(&place.collector), "{text}");
}

#[test]
fn a_wrong_configuration_names_the_key_and_its_place() {
    let place = Place::new("");
    let config = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), format!("{config}\n[pipelin]\nworkers = 3\n")).unwrap();
    let output = place.weir(&["config"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("pipelin") && text.contains("weir.toml"), "{text}");
}
