//! The generator against the real collector: over HTTP and straight into the log, the log holds what it says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use weir_generate::{Spec, Summary, into_log, over_http, site_name};
use weir_ingest::{Collector, CollectorConfig, Countries, Ingest, IngestConfig, SaltBook, SiteConfig};
use weir_log::{Clock, EmbeddedLog, Log, SystemClock, TopicKind};
use weir_schemas::{
    Kind,
    control::EVENTS_TOPIC,
    rules::Rules,
    wire::{self, Content},
};

const PARTITIONS: u32 = 3;

fn spec() -> Spec {
    Spec { rate: 10_000.0, duration: Duration::from_millis(300), sites: 8, seed: 5, bots: 0.1, late: 0.02 }
}

fn log(directory: &tempfile::TempDir) -> Arc<dyn Log> {
    let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).expect("a log");
    let kind = TopicKind::Events { partitions: PARTITIONS, retention: Duration::from_secs(86_400) };
    log.create_topic(EVENTS_TOPIC, &kind).expect("a topic");
    Arc::new(log)
}

/// What lies in the log, counted as the pipeline would.
#[derive(Debug, Default)]
struct Counted {
    ids: BTreeSet<String>,
    page_views: u64,
    bot_events: u64,
    custom_events: u64,
    visitors: BTreeSet<u64>,
    claims: u64,
}

fn count(log: &dyn Log) -> Counted {
    let rules = Rules::version(1).expect("carried");
    let mut counted = Counted::default();
    let mut reader = log.reader(EVENTS_TOPIC).expect("a reader");
    let mut left = 0;
    for partition in 0..PARTITIONS {
        left += log.bounds(EVENTS_TOPIC, partition).expect("bounds").end;
        reader.assign(partition, 0).expect("a partition");
    }
    while left > 0 {
        let read = reader.poll(1_000, Duration::from_secs(10), &mut |record| {
            let record = wire::decode(record.payload).expect("a record of weir");
            let Content::Batch(batch) = record.content else { return };
            let string = |column: &[u32], event: usize| column.get(event).map_or("", |&at| batch.strings[at as usize]);
            for event in 0..batch.events {
                assert!(counted.ids.insert(string(&batch.id, event).to_owned()), "an id is there twice");
                let kind = Kind::from_wire(batch.kind.get(event).copied().unwrap_or_default()).expect("a kind");
                let bot = rules.agent(string(&batch.user_agent, event)).bot;
                counted.bot_events += u64::from(bot);
                counted.page_views += u64::from(!bot && kind == Kind::PageView);
                counted.custom_events += u64::from(!bot && kind == Kind::Custom);
                counted.visitors.insert(batch.visitor[event]);
                counted.claims += u64::from(batch.claimed_ms.get(event).is_some_and(|&ms| ms != wire::NO_CLAIM));
            }
        });
        let read = read.expect("records");
        assert!(read > 0, "{left} records did not come");
        left -= read as i64;
    }
    counted
}

fn agrees(summary: &Summary, log: &dyn Log) {
    let counted = count(log);
    assert_eq!((summary.generated, summary.accepted), (3_000, 3_000), "{summary}");
    assert!(summary.rejected.is_empty() && summary.unanswered == 0, "{summary}");
    assert_eq!(summary.accepted, counted.ids.len() as u64);
    assert_eq!(summary.page_views, counted.page_views);
    assert_eq!(summary.bot_events, counted.bot_events);
    assert_eq!(summary.custom_events, counted.custom_events);
    assert!(counted.visitors.len() > 300 && counted.claims > 500, "{} visitors", counted.visitors.len());
    assert!(!counted.visitors.contains(&0), "every visitor is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_the_log_holds_what_the_generator_says() {
    let directory = tempfile::tempdir().expect("a folder");
    let log = log(&directory);
    let hash = Sha256::digest(b"secret").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let site = |name: String| SiteConfig {
        hosts: vec![name.clone()],
        name,
        timezone: "UTC".to_owned(),
        write_token_sha256: Some(hash.clone()),
        allowed_query: Vec::new(),
    };
    let mut config = IngestConfig { sites: weir_generate::sites().map(site).collect(), ..IngestConfig::default() };
    config.http.not_ready_for = Duration::ZERO;
    let (_partitions, partitions) = watch::channel(PARTITIONS);
    let ingest = Ingest::start(Arc::clone(&log), Arc::new(SystemClock), config, partitions).await.expect("a collector");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(weir_ingest::serve(listener, ingest, async move { drop(stopped.await) }));

    let summary = over_http(&spec(), &url, "secret", std::future::pending()).await.expect("a collector is there");
    stop.send(()).expect("it still serves");
    serving.await.expect("no panic").expect("a clean stop");
    agrees(&summary, &*log);
}

#[tokio::test(flavor = "multi_thread")]
async fn straight_into_the_log_it_holds_the_same() {
    let directory = tempfile::tempdir().expect("a folder");
    let log = log(&directory);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (_partitions, partitions) = watch::channel(PARTITIONS);
    let collector = Collector::start(Arc::clone(&log), Arc::clone(&clock), CollectorConfig::default(), partitions);
    let salts = Arc::new(SaltBook::open(Arc::clone(&log), Arc::clone(&clock)).await.expect("salts"));
    let countries = Arc::new(Countries::none());
    let summary = into_log(&spec(), collector, salts, countries, clock, std::future::pending()).await.expect("a log");
    agrees(&summary, &*log);
}

#[test]
fn the_sites_that_are_configured_are_those_that_are_generated() {
    let names: Vec<String> = weir_generate::sites().collect();
    assert_eq!(names, (0..names.len()).map(site_name).collect::<Vec<_>>());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert_eq!(site_name(123), "site-0123.example");
}
