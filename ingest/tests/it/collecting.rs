use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::watch;
use weir_ingest::{AppendError, Collector, CollectorConfig};
use weir_schemas::{
    BATCH_BYTES_MAX, Event,
    wire::{self, Content},
};

use crate::support::{
    Fault, FaultyLog, NOON_MS, PARTITIONS, TestClock, TestLog, config, events, eventually, log, serve_on,
};

struct Setup {
    collector: Collector,
    faulty: Arc<FaultyLog>,
    clock: TestClock,
    partitions: watch::Sender<u32>,
    inner: TestLog,
}

fn setup(config: CollectorConfig) -> Setup {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let faulty = FaultyLog::over(inner.log.clone());
    let (partitions, in_use) = watch::channel(PARTITIONS);
    let collector = Collector::start(faulty.clone(), Arc::new(clock.clone()), config, in_use);
    Setup { collector, faulty, clock, partitions, inner }
}

fn event(id: u64) -> Event {
    Event { site: "a".into(), page: "/p".into(), id: id.to_string(), received_ms: NOON_MS, ..Event::default() }
}

/// What identifies the batch of a record.
fn batch_of(payload: &[u8]) -> ([u8; 16], u64, usize, i64) {
    let record = wire::decode(payload).unwrap();
    let Content::Batch(batch) = record.content else { panic!("not a batch") };
    (batch.collector, batch.sequence, batch.events, record.sent_ms)
}

#[tokio::test]
async fn events_that_come_while_appends_are_under_way_share_a_record() {
    let Setup { collector, faulty, inner, .. } = setup(CollectorConfig::default());
    faulty.close();
    let waiting: Vec<_> = (0..1_000u64)
        .map(|id| {
            let collector = collector.clone();
            tokio::spawn(async move { collector.append(vec![event(id)]).await })
        })
        .collect();
    eventually("all are on their way", async || collector.bytes_in_flight() >= 1_000 * 100).await;
    faulty.open();
    for append in waiting {
        append.await.unwrap().unwrap();
    }
    let tries = faulty.tries();
    assert_eq!(tries.len(), 3, "two at once, and the rest together");
    let partitions: HashSet<u32> = tries.iter().map(|(partition, _)| *partition).collect();
    assert_eq!(partitions.len(), 3, "the next partition with each");
    let sequences: HashSet<u64> = tries.iter().map(|(_, payload)| batch_of(payload).1).collect();
    assert_eq!(sequences.len(), 3);
    let ids: HashSet<String> = events(&*inner.log).into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 1_000);
    assert_eq!(collector.bytes_in_flight(), 0);
}

#[tokio::test]
async fn an_append_that_is_unclear_is_sent_again_with_the_same_pair_to_the_same_partition() {
    let Setup { collector, faulty, clock, .. } = setup(CollectorConfig::default());
    faulty.faults.lock().unwrap().extend([Fault::UnclearAndThere, Fault::Unavailable]);
    let append = tokio::spawn({
        let collector = collector.clone();
        async move { collector.append(vec![event(1)]).await }
    });
    eventually("the first try", async || !faulty.tries().is_empty()).await;
    clock.advance(7);
    append.await.unwrap().unwrap();
    let tries = faulty.tries();
    assert_eq!(tries.len(), 3);
    let (collector, sequence, count, sent_ms) = batch_of(&tries[0].1);
    assert_eq!((count, sent_ms), (1, NOON_MS));
    for (partition, payload) in &tries[1..] {
        assert_eq!(*partition, tries[0].0);
        assert_eq!(batch_of(payload), (collector, sequence, 1, NOON_MS + 7), "the same batch behind a new time");
    }
}

#[tokio::test]
async fn what_the_log_does_not_take_in_time_is_not_acknowledged() {
    let config = CollectorConfig { append_timeout: Duration::from_millis(300), ..CollectorConfig::default() };
    for fault in [(|| Fault::Unavailable) as fn() -> Fault, || Fault::Silent] {
        let Setup { collector, faulty, .. } = setup(config.clone());
        *faulty.always.lock().unwrap() = Some(fault);
        assert!(matches!(collector.append(vec![event(1)]).await, Err(AppendError::TimedOut(_))));
        collector.drain().await;
        assert_eq!(collector.bytes_in_flight(), 0);
    }
}

#[tokio::test]
async fn what_the_log_refuses_for_good_is_not_tried_again() {
    let Setup { collector, faulty, .. } = setup(CollectorConfig::default());
    faulty.faults.lock().unwrap().push_back(Fault::TooLarge);
    assert!(matches!(collector.append(vec![event(1)]).await, Err(AppendError::Refused(_))));
    assert_eq!(faulty.tries().len(), 1);
    collector.append(vec![event(2)]).await.unwrap();
}

#[tokio::test]
async fn events_over_the_bound_are_refused_until_there_is_room() {
    let Setup { collector, faulty, .. } =
        setup(CollectorConfig { in_flight_bytes_max: 1_000, ..CollectorConfig::default() });
    faulty.close();
    let first = tokio::spawn({
        let collector = collector.clone();
        async move { collector.append(vec![event(1); 100]).await }
    });
    eventually("the first is on its way", async || collector.bytes_in_flight() > 1_000).await;
    assert!(matches!(collector.append(vec![event(2)]).await, Err(AppendError::Busy { bytes_max: 1_000, .. })));
    faulty.open();
    first.await.unwrap().unwrap();
    eventually("there is room", async || collector.bytes_in_flight() == 0).await;
    collector.append(vec![event(3)]).await.unwrap();
}

#[tokio::test]
async fn events_of_any_size_fit_into_records() {
    let Setup { collector, faulty, inner, .. } = setup(CollectorConfig::default());
    let field = |n: u64| format!("{n:x>2048}");
    let large = |n: u64| Event {
        id: n.to_string(),
        page: field(n),
        user_agent: field(n),
        props: (0..30).map(|prop| (field(n * 100 + prop), field(n))).collect(),
        ..event(n)
    };
    collector.append((0..60).map(large).collect()).await.unwrap();
    collector.append((0..40_000).map(event).collect()).await.unwrap();
    for (_, payload) in faulty.tries() {
        assert!(payload.len() <= BATCH_BYTES_MAX + 100, "{}", payload.len());
        assert!(batch_of(&payload).2 <= weir_schemas::BATCH_EVENTS_MAX);
    }
    assert_eq!(events(&*inner.log).len(), 40_060);
}

#[tokio::test]
async fn only_partitions_in_use_are_written() {
    let Setup { collector, faulty, partitions, .. } = setup(CollectorConfig::default());
    let written = async |appends: u64| {
        let before = faulty.tries().len();
        for id in 0..appends {
            collector.append(vec![event(id)]).await.unwrap();
        }
        faulty.tries()[before..].iter().map(|(partition, _)| *partition).collect::<HashSet<u32>>()
    };
    partitions.send(1).unwrap();
    assert_eq!(written(6).await, HashSet::from([0]));
    partitions.send(PARTITIONS).unwrap();
    assert_eq!(written(6).await, HashSet::from([0, 1, 2]));
}

#[tokio::test]
async fn a_drain_waits_for_what_was_taken_and_takes_no_more() {
    let Setup { collector, faulty, inner, .. } = setup(CollectorConfig::default());
    faulty.close();
    let appends: Vec<_> = (0..10u64)
        .map(|id| {
            let collector = collector.clone();
            tokio::spawn(async move { collector.append(vec![event(id)]).await })
        })
        .collect();
    eventually("all are on their way", async || collector.bytes_in_flight() >= 10 * 100).await;
    let mut drain = std::pin::pin!(collector.drain());
    assert!(futures::poll!(&mut drain).is_pending());
    assert!(matches!(collector.append(vec![event(99)]).await, Err(AppendError::Stopping)));
    assert!(futures::poll!(&mut drain).is_pending());
    faulty.open();
    drain.await;
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(events(&*inner.log).len(), 10);
}

#[tokio::test]
async fn clients_are_told_to_come_again_when_the_log_is_away() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let faulty = FaultyLog::over(inner.log.clone());
    *faulty.always.lock().unwrap() = Some(|| Fault::Unavailable);
    let mut config = config();
    config.collector.append_timeout = Duration::from_millis(200);
    let server = serve_on(faulty.clone(), clock, config).await;
    let page = r#"{"site":"blog","url":"https://blog.example/a"}"#;
    let response = server.post("/v1/events", page).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    assert_eq!(events(&*inner.log), []);
    *faulty.always.lock().unwrap() = None;
    eventually("it is back", async || server.send(page).await.0 == 202).await;
}
