//! `weir doctor` finds what is wrong and changes nothing; with `--fix` it mends what it can.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use crate::support::{Place, free_port, repository, wait_for};
use weir_log::{Log, LogConfig, SystemClock, TopicKind};

const TOPICS: [&str; 3] = ["weir.control", "weir.events", "weir.salts"];

/// What it printed, and whether all was well.
fn doctor(place: &Place, flags: &[&str]) -> (String, bool) {
    let output = place.weir(&[&["doctor"], flags].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), said.contains("all is well"), "{said}");
    (said, output.status.success())
}

fn says(said: &str, begin: &str) -> bool {
    said.lines().any(|line| line.starts_with(begin))
}

#[test]
fn without_fix_nothing_is_made_and_with_it_the_embedded_log_is() {
    let place = Place::new("");
    let data = place.dir.path().join("data");
    let (said, well) = doctor(&place, &[]);
    assert!(!well && says(&said, "WRONG  log: ") && says(&said, "WRONG  ClickHouse: "), "{said}");
    assert!(!data.exists(), "looking makes nothing");

    let (said, well) = doctor(&place, &["--fix"]);
    assert!(!well && says(&said, "WRONG  ClickHouse: "), "ClickHouse begins with weir: {said}");
    for topic in TOPICS {
        assert!(says(&said, &format!("ok     topic {topic}: ")), "{said}");
    }
    assert!(says(&said, "ok     clocks: "), "{said}");
    assert!(!data.join("clickhouse").exists(), "no password is made for a server that was never started");

    let serve = place.start();
    // The runs begin when tables and views are there.
    place.wait_complete();
    let (said, well) = doctor(&place, &[]);
    assert!(well && says(&said, "ok     analyst: "), "{said}");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn no_secret_is_printed_where_the_analyst_cannot_log_in() {
    let place = Place::new("");
    let serve = place.start();
    // The runs begin when tables and views are there.
    place.wait_complete();
    // As a server that somebody else runs, on which the analyst has another password than this.
    let password = std::fs::read_to_string(place.dir.path().join("data/clickhouse/writer-password")).unwrap();
    let url = format!("clickhouse.url=http://127.0.0.1:{}", place.clickhouse);
    let writer = format!("clickhouse.password={password}");
    let analyst = "clickhouse.analyst_password=hush'hush";
    let output = place.weir(&["--set", &url, "--set", &writer, "--set", analyst, "doctor"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(says(&said, "ok     ClickHouse: ") && says(&said, "WRONG  analyst: "), "{said}");
    assert!(said.contains("CREATE USER IF NOT EXISTS analyst IDENTIFIED WITH sha256_password BY '…' "), "{said}");
    assert!(!said.contains("hush") && !said.contains(&password), "{said}");
    assert_eq!(serve.stop(), Some(0));
}

/// A broker that makes topics that somebody asks about or appends to, as Kafka does by default.
struct MakingBroker {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl MakingBroker {
    fn start() -> MakingBroker {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut child = Command::new(repository().join("tools/kafka-broker"))
            .arg(dir.path())
            .arg(port.to_string())
            .arg("auto.create.topics.enable=true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the broker", || {
            assert!(child.try_wait().unwrap().is_none(), "the broker ended, see above");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        let broker = MakingBroker { child, port, _dir: dir };
        wait_for("the broker's answer", || broker.log().topics().ok());
        broker
    }

    fn log(&self) -> Arc<dyn Log> {
        let config = LogConfig::Kafka { bootstrap: format!("127.0.0.1:{}", self.port), options: Default::default() };
        weir_log::open(&config, Arc::new(SystemClock)).unwrap()
    }

    fn topics(&self) -> Vec<String> {
        self.log().topics().unwrap().into_iter().filter(|topic| topic.starts_with("weir.")).collect()
    }
}

impl Drop for MakingBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_kafka_missing_and_wrong_topics_are_told_and_mended_with_fix_only() {
    if !(repository().join(".weir/kafka/lib").is_dir() || std::env::var_os("WEIR_KAFKA_LIB").is_some()) {
        assert!(std::env::var_os("WEIR_TEST_KAFKA").is_none(), "Kafka is required and not there (run `./dev test`)");
        eprintln!("SKIPPED: Kafka is not there (run `./dev test`)");
        return;
    }
    let broker = MakingBroker::start();
    let place = Place::new(&format!("[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"127.0.0.1:{}\"", broker.port));
    let (said, _) = doctor(&place, &[]);
    for topic in TOPICS {
        assert!(says(&said, &format!("WRONG  topic {topic}: ")), "{said}");
    }
    assert_eq!(broker.topics(), Vec::<String>::new(), "looking makes nothing");

    // One that was made for something else: its writer stamps its records.
    let log = broker.log();
    log.create_topic("weir.events", &TopicKind::Import { partitions: 1 }).unwrap();
    let (said, _) = doctor(&place, &[]);
    assert!(said.contains("topic weir.events has message.timestamp.type=CreateTime"), "{said}");
    assert_eq!(broker.topics(), ["weir.events"]);
    assert_eq!(log.bounds("weir.events", 0).unwrap().end, 0, "nothing is written to it");

    let (said, _) = doctor(&place, &["--fix"]);
    for topic in TOPICS {
        assert!(says(&said, &format!("ok     topic {topic}: ")), "{said}");
    }
    assert!(says(&said, "ok     clocks: "), "{said}");
    assert_eq!(broker.topics(), TOPICS);
    let events = TopicKind::Events { partitions: 1, retention: Duration::from_secs(86_400) };
    log.create_topic("weir.events", &events).unwrap();
}
