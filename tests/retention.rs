//! What the log may delete, it deletes; an import of years ago is none of it.

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use support::{Place, kafka, repository, wait_for};
use weir_log::{Log, LogConfig, SystemClock, TopicKind};
use weir_schemas::control::import_topic;

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
