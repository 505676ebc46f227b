use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
};
use weir_ingest::{Ingest, IngestConfig, SiteConfig, Spool};
use weir_log::{Appended, Bounds, Clock, Committed, EmbeddedLog, Log, LogError, Reader, TopicKind};
use weir_schemas::{
    Event,
    control::EVENTS_TOPIC,
    wire::{self, Content},
};

/// 2026-03-01T12:00:00Z.
pub(crate) const NOON_MS: i64 = 1_772_366_400_000;
pub(crate) const PARTITIONS: u32 = 3;
/// What the server of `config()` knows as the write token of `blog`.
pub(crate) const TOKEN: &str = "test";

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn at(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A log in a directory that goes with it.
pub(crate) struct TestLog {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn log(clock: &TestClock) -> TestLog {
    let dir = tempfile::tempdir().unwrap();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path(), Arc::new(clock.clone())).unwrap());
    let kind = TopicKind::Events { partitions: PARTITIONS, retention: Duration::from_secs(86_400) };
    log.create_topic(EVENTS_TOPIC, &kind).unwrap();
    TestLog { log, dir }
}

pub(crate) fn site(name: &str) -> SiteConfig {
    SiteConfig {
        name: name.into(),
        hosts: vec![],
        timezone: "UTC".into(),
        write_token_sha256: None,
        allowed_query: vec![],
    }
}

/// A site `blog` with hosts, a token and the query parameter `id`, and a site `open` with none.
pub(crate) fn config() -> IngestConfig {
    let blog = SiteConfig {
        hosts: vec!["blog.example".into(), "*.blog.example".into()],
        // SHA-256 of TOKEN.
        write_token_sha256: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
        allowed_query: vec!["id".into()],
        ..site("blog")
    };
    let mut config = IngestConfig { sites: vec![blog, site("open")], ..IngestConfig::default() };
    config.http.not_ready_for = Duration::ZERO;
    config
}

/// A collector on a free port.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) clock: TestClock,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) http: reqwest::Client,
    pub(crate) ingest: Arc<Ingest>,
    _partitions: watch::Sender<u32>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) async fn serve(config: IngestConfig) -> Server {
    let clock = TestClock::at(NOON_MS);
    let TestLog { log, dir } = log(&clock);
    let mut server = serve_on(log, clock, config).await;
    server._dir = Some(dir);
    server
}

pub(crate) async fn serve_on(log: Arc<dyn Log>, clock: TestClock, config: IngestConfig) -> Server {
    let (partitions, in_use) = watch::channel(PARTITIONS);
    let ingest = Ingest::start(Arc::clone(&log), Arc::new(clock.clone()), config, in_use).await.unwrap();
    serve_ingest(log, clock, ingest, partitions).await
}

pub(crate) async fn serve_spooling(log: Arc<dyn Log>, clock: TestClock, config: IngestConfig, spool: Spool) -> Server {
    let (partitions, in_use) = watch::channel(PARTITIONS);
    let (theirs, ticking) = (Arc::clone(&log), Arc::new(clock.clone()));
    let ingest = Ingest::start_spooling(theirs, ticking, config, in_use, spool).await.unwrap();
    serve_ingest(log, clock, ingest, partitions).await
}

async fn serve_ingest(
    log: Arc<dyn Log>,
    clock: TestClock,
    ingest: Arc<Ingest>,
    partitions: watch::Sender<u32>,
) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(weir_ingest::serve(listener, Arc::clone(&ingest), async move {
        let _ = stopped.await;
    }));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
    Server { address, clock, log, http, ingest, _partitions: partitions, stop: Some(stop), served, _dir: None }
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http.post(self.url(path)).header("user-agent", "Firefox").body(body)
    }

    /// Posts to /v1/events; gives status and answer.
    pub(crate) async fn send(&self, body: impl Into<reqwest::Body>) -> (u16, serde_json::Value) {
        answer(self.post("/v1/events", body)).await
    }

    /// The same with the site's token.
    pub(crate) async fn send_trusted(&self, body: impl Into<reqwest::Body>) -> (u16, serde_json::Value) {
        answer(self.post("/v1/events", body).bearer_auth(TOKEN)).await
    }

    /// What the log holds, partition by partition.
    pub(crate) fn events(&self) -> Vec<Event> {
        events(&*self.log)
    }

    /// Begins the stop.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, serde_json::Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null))
}

/// The reasons of an answer, by index.
pub(crate) fn reasons(answer: &serde_json::Value) -> Vec<(u64, String)> {
    let rejected = answer["rejected"].as_array().unwrap_or_else(|| panic!("no rejects in {answer}"));
    rejected.iter().map(|entry| (entry["index"].as_u64().unwrap(), entry["reason"].as_str().unwrap().into())).collect()
}

/// All payloads of a topic's partition.
pub(crate) fn payloads(log: &dyn Log, topic: &str, partition: u32) -> Vec<Vec<u8>> {
    let bounds = log.bounds(topic, partition).unwrap();
    let mut all = Vec::new();
    let mut reader = log.reader(topic).unwrap();
    reader.assign(partition, bounds.start).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while (all.len() as i64) < bounds.end - bounds.start {
        assert!(Instant::now() < deadline, "the log does not give its records");
        reader.poll(1_000, Duration::from_millis(100), &mut |record| all.push(record.payload.to_vec())).unwrap();
    }
    all
}

pub(crate) fn events(log: &dyn Log) -> Vec<Event> {
    let mut all = Vec::new();
    for partition in 0..log.partitions(EVENTS_TOPIC).unwrap() {
        for payload in payloads(log, EVENTS_TOPIC, partition) {
            all.extend(decode(&payload));
        }
    }
    all
}

pub(crate) fn decode(payload: &[u8]) -> Vec<Event> {
    let Content::Batch(batch) = wire::decode(payload).unwrap().content else { panic!("not a batch") };
    let text =
        |column: &[u32], row: usize| column.get(row).map_or(String::new(), |&at| batch.strings[at as usize].into());
    let mut prop = 0;
    let event = |row: usize| {
        let props = batch.props.get(row).map_or(0, |&count| count as usize);
        let pairs = (prop..prop + props).map(|at| (text(&batch.prop_names, at), text(&batch.prop_values, at)));
        let pairs = pairs.collect();
        prop += props;
        Event {
            site: text(&batch.site, row),
            kind: weir_schemas::Kind::from_wire(batch.kind.get(row).copied().unwrap_or(0)).unwrap(),
            received_ms: batch.received_ms[row],
            claimed_ms: batch.claimed_ms.get(row).copied().filter(|&ms| ms != wire::NO_CLAIM),
            visitor: batch.visitor.get(row).copied().unwrap_or(0),
            id: text(&batch.id, row),
            host: text(&batch.host, row),
            page: text(&batch.page, row),
            query: text(&batch.query, row),
            referrer: text(&batch.referrer, row),
            user_agent: text(&batch.user_agent, row),
            country: text(&batch.country, row),
            name: text(&batch.name, row),
            target: text(&batch.target, row),
            title: text(&batch.title, row),
            screen: text(&batch.screen, row),
            language: text(&batch.language, row),
            props: pairs,
        }
    };
    (0..batch.events).map(event).collect()
}

/// What a [`FaultyLog`] does with one append of events.
pub(crate) enum Fault {
    /// Says so, and has nothing.
    Unavailable,
    /// Has it, and says that it does not know.
    UnclearAndThere,
    /// Refuses for good.
    TooLarge,
    /// Never answers.
    Silent,
}

/// The real log, with faults in appends of events that the real one cannot be asked to make.
pub(crate) struct FaultyLog {
    pub(crate) inner: Arc<dyn Log>,
    /// The next appends meet these.
    pub(crate) faults: Mutex<VecDeque<Fault>>,
    /// From now on each append meets this.
    pub(crate) always: Mutex<Option<fn() -> Fault>>,
    /// Refuses larger ones, as a topic does whose `max.message.bytes` somebody lowered.
    pub(crate) bytes_max: AtomicUsize,
    /// Appends wait here: closed while there are no permits.
    pub(crate) gate: Arc<Semaphore>,
    /// Every try, with its partition.
    pub(crate) tries: Mutex<Vec<(u32, Bytes)>>,
}

impl FaultyLog {
    pub(crate) fn over(inner: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            always: Mutex::default(),
            bytes_max: AtomicUsize::new(usize::MAX),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            tries: Mutex::default(),
        })
    }

    pub(crate) fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn tries(&self) -> Vec<(u32, Bytes)> {
        self.tries.lock().unwrap().clone()
    }
}

impl Log for FaultyLog {
    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, weir_log::Result<Appended>> {
        if topic != EVENTS_TOPIC {
            return self.inner.append(topic, partition, payload, stamp_ms);
        }
        self.tries.lock().unwrap().push((partition, payload.clone()));
        let drawn = self.faults.lock().unwrap().pop_front();
        let fault = drawn.or_else(|| self.always.lock().unwrap().map(|fault| fault()));
        let too_large = payload.len() > self.bytes_max.load(Ordering::SeqCst);
        let fault = fault.or(too_large.then_some(Fault::TooLarge));
        let unclear =
            || LogError::Unclear { topic: EVENTS_TOPIC.into(), partition, cause: "the test wants it so".into() };
        match fault {
            Some(Fault::Unavailable) => futures::future::ready(Err(LogError::Unavailable("away".into()))).boxed(),
            Some(Fault::TooLarge) => futures::future::ready(Err(LogError::TooLarge { bytes: 2, bytes_max: 1 })).boxed(),
            Some(Fault::Silent) => futures::future::pending().boxed(),
            Some(Fault::UnclearAndThere) => {
                let append = self.inner.append(topic, partition, payload, stamp_ms);
                let unclear = unclear();
                async move {
                    append.await?;
                    Err(unclear)
                }
                .boxed()
            }
            None => {
                let (gate, inner) = (Arc::clone(&self.gate), Arc::clone(&self.inner));
                async move {
                    drop(gate.acquire_owned().await.unwrap());
                    inner.append(EVENTS_TOPIC, partition, payload, stamp_ms).await
                }
                .boxed()
            }
        }
    }

    fn create_topic(&self, topic: &str, kind: &TopicKind) -> weir_log::Result<()> {
        self.inner.create_topic(topic, kind)
    }
    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> weir_log::Result<()> {
        self.inner.repair_topic(topic, kind)
    }
    fn delete_topic(&self, topic: &str) -> weir_log::Result<()> {
        self.inner.delete_topic(topic)
    }
    fn topics(&self) -> weir_log::Result<Vec<String>> {
        self.inner.topics()
    }
    fn partitions(&self, topic: &str) -> weir_log::Result<u32> {
        self.inner.partitions(topic)
    }
    fn grow(&self, topic: &str, partitions: u32) -> weir_log::Result<()> {
        self.inner.grow(topic, partitions)
    }
    fn reader(&self, topic: &str) -> weir_log::Result<Box<dyn Reader>> {
        self.inner.reader(topic)
    }
    fn bounds(&self, topic: &str, partition: u32) -> weir_log::Result<Bounds> {
        self.inner.bounds(topic, partition)
    }
    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> weir_log::Result<Option<i64>> {
        self.inner.offset_at(topic, partition, at_ms)
    }
    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> weir_log::Result<()> {
        self.inner.commit(group, topic, progress)
    }
    fn committed(&self, group: &str, topic: &str) -> weir_log::Result<Vec<Committed>> {
        self.inner.committed(group, topic)
    }
    fn retention(&self, topic: &str) -> weir_log::Result<Option<Duration>> {
        self.inner.retention(topic)
    }
}

/// Waits until `holds`, or fails.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
