//! Operators' commands over HTTP, on a log that is slow to answer and on one that is not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use weir_console::{About, Desk, Health, Role, Snapshot, Token};
use weir_log::{Appended, Bounds, Committed, ControlLog, EmbeddedLog, Log, LogError, Reader, SystemClock, TopicKind};
use weir_schemas::SchemaVersion;

type Result<T> = std::result::Result<T, LogError>;

/// A log that keeps the first who asks for its topics waiting, if there is a gate, until that is opened.
struct Gated {
    log: EmbeddedLog,
    gate: Option<std::sync::Mutex<mpsc::Receiver<()>>>,
    asked: AtomicBool,
}

impl Log for Gated {
    fn topics(&self) -> Result<Vec<String>> {
        if let (Some(gate), false) = (&self.gate, self.asked.swap(true, Ordering::SeqCst)) {
            let _ = gate.lock().unwrap().recv();
        }
        self.log.topics()
    }

    fn create_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.log.create_topic(topic, kind)
    }

    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.log.repair_topic(topic, kind)
    }

    fn delete_topic(&self, topic: &str) -> Result<()> {
        self.log.delete_topic(topic)
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        self.log.partitions(topic)
    }

    fn grow(&self, topic: &str, partitions: u32) -> Result<()> {
        self.log.grow(topic, partitions)
    }

    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended>> {
        self.log.append(topic, partition, payload, stamp_ms)
    }

    fn reader(&self, topic: &str) -> Result<Box<dyn Reader>> {
        self.log.reader(topic)
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        self.log.bounds(topic, partition)
    }

    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> Result<Option<i64>> {
        self.log.offset_at(topic, partition, at_ms)
    }

    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<()> {
        self.log.commit(group, topic, progress)
    }

    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>> {
        self.log.committed(group, topic)
    }

    fn retention(&self, topic: &str) -> Result<Option<Duration>> {
        self.log.retention(topic)
    }
}

/// Nothing is there to be shown.
struct Nothing;

impl Health for Nothing {
    fn snapshot(&self) -> std::result::Result<Snapshot, String> {
        Ok(Snapshot::default())
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn unready(&self) -> Option<String> {
        None
    }
}

/// A console whose operator's token is `weir_o`, on a log that has a control topic.
async fn console(gate: Option<mpsc::Receiver<()>>) -> (SocketAddr, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap();
    let log: Arc<dyn Log> =
        Arc::new(Gated { log, gate: gate.map(std::sync::Mutex::new), asked: AtomicBool::new(false) });
    ControlLog::open(log.clone()).unwrap();
    let version = SchemaVersion::parse(include_str!("../../schemas/versions/v1.toml"), "v1.toml").unwrap();
    let desk = Desk::new(vec![Token::new("night", Role::Operator, "weir_o")], log, Arc::new(SystemClock), version);
    let about = About { name: "x".into(), url: String::new(), sites: Vec::new() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(weir_console::serve(listener, Arc::new(Nothing), about, Arc::new(desk), std::future::pending()));
    (address, dir)
}

/// The status, and what was answered.
async fn ask(address: SocketAddr, method: &str, path: &str, body: Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer weir_o\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// As many as a machine with two cores has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_for_the_log_keeps_nobody_else_waiting() {
    let (open, gate) = mpsc::channel();
    let (address, _dir) = console(Some(gate)).await;
    let pause = |body: Value| ask(address, "POST", "/api/runs/live/pause", body);
    let waiting = tokio::spawn(pause(json!({ "reason": "a disk" })));
    // Longer than anything takes but a log that does not answer.
    let soon = Duration::from_secs(60);
    let all = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let clocks = futures::future::join_all((0..8).map(|_| ask(address, "GET", "/api/clock", Value::Null))).await;
        let mut ids: Vec<i64> = clocks.iter().map(|(_, clock)| clock["at_ms"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 8, "each is another one");
        assert_eq!(ask(address, "GET", "/healthz", Value::Null).await.0, 200);
        let (status, would) = pause(json!({ "dry_run": true })).await;
        assert_eq!((status, would["through_ms"].clone()), (200, Value::Null), "{would}");
    };
    timeout(soon, all).await.expect("answers without the log");
    assert!(!waiting.is_finished(), "the log does not answer yet");
    open.send(()).unwrap();
    let (status, reply) = timeout(soon, waiting).await.unwrap().unwrap();
    assert_eq!((status, reply["who"].clone()), (200, json!("night")), "{reply}");
}

#[tokio::test]
async fn the_same_announcement_again_is_the_same_and_an_id_is_that_of_one_alone() {
    let (address, _dir) = console(None).await;
    let post = |path: String, body: Value| async move { ask(address, "POST", &path, body).await };
    let id = |clock: (u16, Value)| clock.1["at_ms"].as_i64().unwrap();
    let planned = id(ask(address, "GET", "/api/clock", Value::Null).await);
    let plan = |id: i64| json!({ "id": id, "reason": "a disk", "at": "2099-03-01T14:00:00Z", "for": "2h" });
    let (status, first) = post("/api/maintenances".into(), plan(planned)).await;
    assert_eq!((status, first["id"].as_i64()), (200, Some(planned)), "{first}");
    let (status, again) = post("/api/maintenances".into(), plan(planned)).await;
    assert_eq!((status, &again["at_ms"], &again["action"]), (200, &first["at_ms"], &first["action"]));
    assert_eq!(post("/api/maintenances".into(), plan(7)).await.0, 400, "no time of the clock");

    let cancel =
        |of: i64, id: i64| post(format!("/api/maintenances/{of}/cancel"), json!({ "id": id, "reason": "no disk" }));
    let (status, refused) = cancel(planned, planned).await;
    assert_eq!(status, 409, "the id is the plan's: {refused}");
    let withdrawn = id(ask(address, "GET", "/api/clock", Value::Null).await);
    let (status, first) = cancel(planned, withdrawn).await;
    assert_eq!((status, first["action"]["id"].as_i64()), (200, Some(planned)), "{first}");
    let (status, again) = cancel(planned, withdrawn).await;
    assert_eq!((status, &again["at_ms"], &again["said"]), (200, &first["at_ms"], &first["said"]), "{again}");
    assert_eq!(cancel(planned, withdrawn + 1).await.0, 409, "it was withdrawn already");
    assert_eq!(cancel(planned + 1, withdrawn).await.0, 409, "that is another one's");
    let (status, refused) = post("/api/runs/live/pause".into(), json!({ "id": planned, "reason": "a disk" })).await;
    assert_eq!(status, 409, "the id is the plan's: {refused}");
    let (_, log) = ask(address, "GET", "/api/log", Value::Null).await;
    let said: Vec<_> = log["records"].as_array().unwrap().iter().map(|record| &record["action"]["do"]).collect();
    assert_eq!(said, [&json!("maintenance_planned"), &json!("maintenance_cancelled")], "each once, and nothing else");
}
