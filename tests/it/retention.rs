//! What the log may delete, it deletes; an import of years ago is none of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::{Place, kafka, repository, text, wait_for};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use weir_log::{Log, LogConfig, SystemClock, TopicKind};
use weir_schemas::control::{EVENTS_TOPIC, import_topic};

#[test]
fn an_import_of_years_ago_outlives_a_broker_that_is_restarted_past_a_retention_check() {
    let Some(mut broker) = kafka() else { return };
    let more = format!("[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"{}\"", broker.bootstrap());
    let place = Place::new(&more);
    // The supervisor makes the topics; the import is written while nothing counts.
    let serve = place.start();
    assert_eq!(serve.stop(), Some(0));
    let access_log = repository().join("examples/blog-access.log").display().to_string();
    let rejects = place.dir.path().join("rejects").display().to_string();
    let import = place.json(&["import", "--json", "--rejects", &rejects, "--site", "one.example", &access_log]);
    let topic = import_topic(import["id"].as_str().unwrap());
    let log = open(&broker.bootstrap());
    let written = ends(log.as_ref(), &topic);
    assert!(written.values().sum::<i64>() > 0);

    // A witness with records as old and a retention as usual: when they are gone, a check has passed.
    log.create_topic("witness", &TopicKind::Events { partitions: 1, retention: Duration::from_secs(1) }).unwrap();
    for _ in 0..2 {
        futures::executor::block_on(log.append("witness", 0, b"old".as_slice().into(), None)).unwrap();
    }
    drop(log);
    broker.restart();
    let log = open(&broker.bootstrap());
    wait_for("a retention check of the restarted broker", || {
        let bounds = log.bounds("witness", 0).ok()?;
        (bounds.start == 2 && bounds.end == 2).then_some(())
    });

    for (partition, end) in written {
        let bounds = log.bounds(&topic, partition).unwrap();
        assert_eq!((bounds.start, bounds.end), (0, end), "partition {partition} of {topic}");
    }
    drop(log);
    let serve = place.start();
    wait_for("the import to be counted", || (place.status()?["imports"][0]["state"].as_str()? == "done").then_some(()));
    assert_eq!(place.page_views(), import["page_views"].as_u64());
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_pause_ends_before_the_bytes_that_a_partition_keeps_are_full() {
    let Some(broker) = kafka() else { return };
    let more = format!("[log]\nkind = \"kafka\"\npartitions = 1\n[kafka]\nbootstrap = \"{}\"", broker.bootstrap());
    let place = Place::new(&more);
    let serve = place.start();
    let mut sent = 0;
    for _ in 0..300 {
        sent += place.hits("/before", 5);
    }
    place.wait_complete();
    // All of it came within the ten minutes that tell how fast the topic grows. Of one and a half times as much a half is left,
    // which takes five minutes more; a fifth of those and of the eleven that the run needs is the margin.
    keep_bytes(&broker.bootstrap(), held_bytes(open(&broker.bootstrap()).as_ref()) * 3 / 2);
    let long = place.weir(&["pause", "live", "--reason", "a test", "--for", "1h"]);
    assert!(!long.status.success() && text(&long).contains("would lose data"), "{}", text(&long));
    let paused = place.weir(&["pause", "live", "--reason", "a test"]);
    let said = text(&paused);
    assert!(paused.status.success() && said.contains("its bytes a partition are nearly full"), "{said}");
    assert!(said.contains("it is resumed by itself then") && said.contains("\npaused: complete through "), "{said}");

    let resumed = || {
        let records = place.json(&["log", "--json"])["records"].clone();
        records.as_array().unwrap().iter().rfind(|record| record["action"]["do"] == "resume").cloned()
    };
    let resume = wait_for("the pause to end", || {
        for _ in 0..20 {
            sent += place.hits("/meanwhile", 5);
        }
        resumed()
    });
    let reason = resume["reason"].as_str().unwrap();
    assert!(resume["who"] == "supervisor" && reason.starts_with("the log would delete what live needs"), "{resume}");
    place.wait_complete();
    assert_eq!(place.page_views(), Some(sent));

    // With less than there is already, no pause is safe.
    keep_bytes(&broker.bootstrap(), 1);
    let now = place.weir(&["pause", "live", "--reason", "a test"]);
    assert!(!now.status.success() && text(&now).contains("any pause would lose data"), "{}", text(&now));
    assert_eq!(serve.stop(), Some(0));
}

/// How much the one partition of the topic of events holds, by its newest records.
fn held_bytes(log: &dyn Log) -> u64 {
    let bounds = log.bounds(EVENTS_TOPIC, 0).unwrap();
    let mut reader = log.reader(EVENTS_TOPIC).unwrap();
    reader.assign(0, bounds.end - 200).unwrap();
    let (mut records, mut bytes) = (0, 0);
    wait_for("the newest records", || {
        let each = &mut |record: weir_log::RecordRef<'_>| {
            records += 1;
            bytes += record.payload.len() as u64;
        };
        reader.poll(200, Duration::from_millis(200), each).unwrap();
        (records >= 200).then_some(())
    });
    (bounds.end - bounds.start) as u64 * bytes / records
}

/// Bounds the bytes of the topic of events as an operator would; the other settings are those that weir gave it.
fn keep_bytes(bootstrap: &str, bytes: u64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let bytes = bytes.to_string();
    let alter = AlterConfig::new(ResourceSpecifier::Topic(EVENTS_TOPIC))
        .set("message.timestamp.type", "LogAppendTime")
        .set("cleanup.policy", "delete")
        .set("retention.ms", "2592000000")
        .set("retention.bytes", &bytes);
    let altered = futures::executor::block_on(admin.alter_configs([&alter], &AdminOptions::new())).unwrap();
    for result in altered {
        result.unwrap();
    }
}

fn open(bootstrap: &str) -> Arc<dyn Log> {
    let config = LogConfig::Kafka { bootstrap: bootstrap.to_owned(), options: BTreeMap::new() };
    weir_log::open(&config, Arc::new(SystemClock)).unwrap()
}

/// The next offset of each partition.
fn ends(log: &dyn Log, topic: &str) -> BTreeMap<u32, i64> {
    (0..log.partitions(topic).unwrap())
        .map(|partition| (partition, log.bounds(topic, partition).unwrap().end))
        .collect()
}
