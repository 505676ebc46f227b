use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    mocking::MockCluster,
};
use weir_log::{KafkaLog, Log, LogError, TopicKind};

use crate::fixture::{DEADLINE, Fixture, append, fresh};

/// A broker of our own, killed at the end; or one that runs already.
struct Broker {
    bootstrap: String,
    child: Option<(Child, tempfile::TempDir)>,
}

impl Broker {
    /// `WEIR_TEST_KAFKA_BROKERS` names brokers to use (with short retention checks); else `tools/kafka-broker` starts one.
    /// It makes topics that it is asked about, as Kafka does by default: nothing here may ask so. The error says why there
    /// is none.
    fn start() -> Result<Self, String> {
        if let Ok(bootstrap) = std::env::var("WEIR_TEST_KAFKA_BROKERS") {
            return Ok(Self { bootstrap, child: None });
        }
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/kafka-broker");
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port();
        let child = Command::new(&tool)
            .arg(dir.path())
            .arg(port.to_string())
            .args(["auto.create.topics.enable=true", "log.retention.check.interval.ms=1000"])
            .args(["log.initial.task.delay.ms=500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", tool.display()))?;
        let mut broker = Self { bootstrap: format!("127.0.0.1:{port}"), child: Some((child, dir)) };
        broker.wait_until_up()?;
        Ok(broker)
    }

    fn wait_until_up(&mut self) -> Result<(), String> {
        let log = KafkaLog::connect(&self.bootstrap, &BTreeMap::new()).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + 2 * DEADLINE;
        loop {
            if log.topics().is_ok() {
                return Ok(());
            }
            if let Some((child, _)) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("tools/kafka-broker ended with {status}"));
            }
            if Instant::now() > deadline {
                return Err("the broker did not answer within two minutes".to_owned());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap()
    }

    /// Makes a topic with these settings and no others.
    fn make(&self, topic: &str, settings: &[(&str, &str)]) {
        let new = settings
            .iter()
            .fold(NewTopic::new(topic, 1, TopicReplication::Fixed(1)), |new, (name, value)| new.set(name, value));
        block_on(self.admin().create_topics([&new], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while self.log().partitions(topic).is_err() {
            assert!(Instant::now() < deadline, "topic {topic} does not appear");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            // The tool and what it started: they are a process group of their own.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Fixture for Broker {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(KafkaLog::connect(&self.bootstrap, &BTreeMap::new()).unwrap())
    }

    fn cut(&self, topic: &str, partition: u32, offset: i64) {
        let log = KafkaLog::connect(&self.bootstrap, &BTreeMap::new()).unwrap();
        log.delete_records(topic, partition, offset).unwrap();
    }

    fn make_wrong(&self, topic: &str) {
        self.make(topic, &[("message.timestamp.type", "CreateTime"), ("retention.bytes", "-1")]);
    }

    fn pass_retention_check(&self) {
        let log = self.log();
        let canary = fresh("canary");
        log.create_topic(&canary, &TopicKind::Events { partitions: 1, retention: Duration::from_millis(1) }).unwrap();
        append(&*log, &canary, 0, "gone with the next check");
        let deadline = Instant::now() + DEADLINE;
        while log.bounds(&canary, 0).unwrap().start == 0 {
            assert!(Instant::now() < deadline, "the broker does not check retention");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn address(&self) -> String {
        format!("kafka {}", self.bootstrap)
    }
}

type Case = (&'static str, fn(&dyn Fixture));

/// Runs the whole suite on one broker, several cases at once, and what holds for Kafka only.
pub(crate) fn run(cases: &[Case]) {
    let broker = match Broker::start() {
        Ok(broker) => broker,
        Err(why) if std::env::var("WEIR_TEST_KAFKA").is_ok_and(|value| value == "required") => {
            panic!("WEIR_TEST_KAFKA=required, but there is no broker: {why}");
        }
        Err(why) => {
            let line = "=".repeat(100);
            eprintln!("{line}\nSKIPPED: the log's suite on Kafka. No broker: {why}\n{line}");
            return;
        }
    };
    let queue = Mutex::new(cases.iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((name, case)) = queue.lock().unwrap().next() else { break };
                    let begun = Instant::now();
                    let outcome = catch_unwind(AssertUnwindSafe(|| case(&broker)));
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    eprintln!("on kafka: {name} ... {word} ({:.1} s)", begun.elapsed().as_secs_f64());
                    if outcome.is_err() {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    every_wrong_setting_is_named_and_repaired(&broker);
    a_stamp_is_the_brokers_not_the_producers(&broker);
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed on kafka: {failed:?}");
}

fn every_wrong_setting_is_named_and_repaired(broker: &Broker) {
    let log = KafkaLog::connect(&broker.bootstrap, &BTreeMap::new()).unwrap();
    let events = TopicKind::Events { partitions: 1, retention: Duration::from_secs(100) };
    let import = TopicKind::Import { partitions: 1 };
    let right = [
        ("message.timestamp.type", "LogAppendTime"),
        ("cleanup.policy", "delete"),
        ("retention.ms", "100000"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "2000000"),
    ];
    for (kind, setting, value) in [
        (&events, "message.timestamp.type", "CreateTime"),
        (&events, "cleanup.policy", "compact"),
        (&events, "retention.ms", "99999"),
        (&events, "retention.bytes", "1000000"),
        (&events, "max.message.bytes", "900000"),
        (&TopicKind::Control, "retention.ms", "100000"),
        (&TopicKind::Salts, "retention.ms", "100000"),
        (&import, "message.timestamp.type", "LogAppendTime"),
    ] {
        let topic = fresh("wrong");
        let mut settings: BTreeMap<_, _> = right.into();
        settings.insert(setting, value);
        broker.make(&topic, &settings.into_iter().collect::<Vec<_>>());
        match log.create_topic(&topic, kind) {
            Err(LogError::WrongTopic { setting: named, found, .. }) => {
                assert_eq!((named.as_str(), found.as_str()), (setting, value), "{kind:?}");
            }
            other => panic!("{kind:?} with {setting}={value}: {other:?}"),
        }
        log.repair_topic(&topic, kind).unwrap();
        log.create_topic(&topic, kind).unwrap();
        // What Weir does not care about is as it was: a record over the default limit still fits.
        if setting == "max.message.bytes" {
            continue;
        }
        let mut options = BTreeMap::new();
        options.insert("message.max.bytes".to_owned(), "2000000".to_owned());
        let large = KafkaLog::connect(&broker.bootstrap, &options).unwrap();
        let stamp_ms = matches!(kind, TopicKind::Import { .. }).then_some(1);
        let mut noise = 1_u32;
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(1_500_000)
        .collect();
        block_on(large.append(&topic, 0, payload.into(), stamp_ms)).unwrap();
    }
}

fn a_stamp_is_the_brokers_not_the_producers(broker: &Broker) {
    let log = broker.log();
    let topic = fresh("stamps");
    log.create_topic(&topic, &TopicKind::Events { partitions: 1, retention: Duration::from_secs(3600) }).unwrap();
    // A producer's own stamp would be of 1970; the broker puts its own in its place.
    let appended = block_on(log.append(&topic, 0, Bytes::from_static(b"x"), Some(1_000))).unwrap();
    assert!(appended.stamp_ms > 1_600_000_000_000, "{appended:?}");
    assert_eq!(crate::fixture::read_from(&*log, &topic, 0, 0, 1)[0].stamp_ms, appended.stamp_ms);
}

/// No broker there: an append that was never sent is not unclear.
#[test]
fn an_append_that_no_broker_has_seen_is_unavailable() {
    let options = [("message.timeout.ms".to_owned(), "300".to_owned())].into();
    let log = KafkaLog::connect(&format!("127.0.0.1:{}", free_port()), &options).unwrap();
    let refused = block_on(log.append("events", 0, Bytes::from_static(b"x"), None));
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
}

/// The broker took the request and never answers: nobody can know whether the record is there.
#[test]
fn an_append_without_an_answer_is_unclear() {
    let brokers = MockCluster::new(1).unwrap();
    brokers.create_topic("events", 1, 1).unwrap();
    let options = [("message.timeout.ms".to_owned(), "2000".to_owned())].into();
    let log = KafkaLog::connect(&brokers.bootstrap_servers(), &options).unwrap();
    append(&log, "events", 0, "answered");
    brokers.broker_round_trip_time(1, Duration::from_secs(3600)).unwrap();
    let unclear = block_on(log.append("events", 0, Bytes::from_static(b"x"), None));
    assert!(matches!(unclear, Err(LogError::Unclear { partition: 0, .. })), "{unclear:?}");
}

#[test]
fn an_option_that_librdkafka_does_not_know_is_refused_by_name() {
    let options = [("no.such.option".to_owned(), "1".to_owned())].into();
    let refused = KafkaLog::connect("127.0.0.1:1", &options).err().unwrap().to_string();
    assert!(refused.contains("no.such.option"), "{refused}");
}
