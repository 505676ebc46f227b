use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use weir_ingest::{AppendError, Collector, CollectorConfig, Ingest, Spool, SpoolConfig, SpoolError};
use weir_schemas::{
    DEDUP_HORIZON_MS, Event,
    control::{EVENTS_TOPIC, SALTS_TOPIC},
    wire::{self, Content},
};

use crate::support::{
    Fault, FaultyLog, NOON_MS, PARTITIONS, Server, TestClock, TestLog, config, decode, events, eventually, log,
    payloads, serve_spooling,
};

const DAY_MS: i64 = 86_400_000;

const PAGE: &str = r#"{"site":"blog","url":"https://blog.example/a"}"#;

/// Collectors that share a log and follow one another on one spool.
struct Setup {
    faulty: Arc<FaultyLog>,
    clock: TestClock,
    inner: TestLog,
    dir: tempfile::TempDir,
    config: SpoolConfig,
    append_timeout: Duration,
    partitions: watch::Sender<u32>,
}

fn setup() -> Setup {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    Setup {
        faulty: FaultyLog::over(inner.log.clone()),
        clock,
        inner,
        dir: tempfile::tempdir().unwrap(),
        config: SpoolConfig { after: Duration::from_millis(50), ..SpoolConfig::default() },
        append_timeout: Duration::from_millis(300),
        partitions: watch::channel(PARTITIONS).0,
    }
}

impl Setup {
    /// For tests in which the log answers, however slow the machine is: none of its answers is given up.
    fn patient(mut self) -> Self {
        (self.config.after, self.append_timeout) = (Duration::from_secs(30), Duration::from_secs(60));
        self
    }

    fn open(&self, dir: &Path) -> Spool {
        Spool::open(dir, Arc::new(self.clock.clone()), self.config.clone()).unwrap()
    }

    fn start(&self) -> (Collector, Spool) {
        self.start_in(self.dir.path())
    }

    fn start_in(&self, dir: &Path) -> (Collector, Spool) {
        let spool = self.open(dir);
        let (log, clock) = (self.faulty.clone(), Arc::new(self.clock.clone()));
        let config = CollectorConfig { append_timeout: self.append_timeout, ..CollectorConfig::default() };
        let collector = Collector::start_spooling(log, clock, config, self.partitions.subscribe(), spool.clone());
        (collector, spool)
    }

    fn away(&self, fault: fn() -> Fault) {
        *self.faulty.always.lock().unwrap() = Some(fault);
    }

    fn back(&self) {
        *self.faulty.always.lock().unwrap() = None;
    }

    /// What is on disk now, as a process finds it that starts after this one was killed.
    fn killed(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(self.dir.path().join("data.mdb"), copy.path().join("data.mdb")).unwrap();
        copy
    }

    /// Every record of the log, as (partition, batch, ids of its events).
    fn records(&self) -> Vec<(u32, Name, Vec<String>)> {
        let of =
            |partition| payloads(&*self.inner.log, EVENTS_TOPIC, partition).into_iter().map(move |p| (partition, p));
        let records = (0..PARTITIONS).flat_map(of);
        records
            .map(|(partition, payload)| {
                (partition, name(&payload), decode(&payload).into_iter().map(|e| e.id).collect())
            })
            .collect()
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = events(&*self.inner.log).into_iter().map(|event| event.id).collect();
        ids.sort();
        ids
    }
}

/// A batch's collector and sequence.
type Name = ([u8; 16], u64);

fn name(payload: &[u8]) -> Name {
    let Content::Batch(batch) = wire::decode(payload).unwrap().content else { panic!("not a batch") };
    (batch.collector, batch.sequence)
}

fn event(id: u64) -> Vec<Event> {
    vec![Event {
        site: "a".into(),
        page: "/p".into(),
        id: format!("{id:03}"),
        received_ms: NOON_MS,
        ..Event::default()
    }]
}

fn expected(ids: impl Iterator<Item = u64>) -> Vec<String> {
    ids.map(|id| format!("{id:03}")).collect()
}

async fn drained(spool: &Spool) {
    eventually("the spool is drained", async || spool.is_empty()).await;
}

#[tokio::test]
async fn events_are_taken_while_the_log_is_away_and_drained_in_order_when_it_is_back() {
    let setup = setup();
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Unavailable);
    for id in 0..100 {
        collector.append(event(id)).await.unwrap();
    }
    let usage = spool.usage().unwrap();
    assert_eq!((usage.batches, usage.oldest_ms), (100, Some(NOON_MS)));
    assert!(usage.bytes > 100 * 50 && usage.bytes < usage.bytes_max, "{usage:?}");
    assert_eq!(setup.ids(), Vec::<String>::new());
    let before = setup.faulty.tries().len();
    setup.back();
    drained(&spool).await;
    assert_eq!(setup.ids(), expected(0..100));
    let order: Vec<u64> = setup.faulty.tries()[before..].iter().map(|(_, payload)| name(payload).1).collect();
    assert!(order.is_sorted(), "{order:?}");
    let usage = spool.usage().unwrap();
    assert_eq!((usage.batches, usage.oldest_ms, usage.bytes), (0, None, 0));
    collector.append(event(100)).await.unwrap();
    assert_eq!(spool.usage().unwrap().batches, 0, "straight to the log again");
}

#[tokio::test]
async fn a_log_that_does_not_answer_keeps_one_sender_waiting_for_a_moment_and_the_next_ones_not_at_all() {
    let mut setup = setup();
    setup.config.after = Duration::from_secs(2);
    setup.append_timeout = Duration::from_secs(10);
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Silent);
    let begun = std::time::Instant::now();
    collector.append(event(0)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let begun = std::time::Instant::now();
    for id in 1..20 {
        collector.append(event(id)).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?} for 19", begun.elapsed());
    assert_eq!(spool.usage().unwrap().batches, 20);
    let tried: std::collections::HashSet<_> = setup.faulty.tries().iter().map(|(_, payload)| name(payload)).collect();
    assert_eq!(tried.len(), 1, "only the oldest batch is tried while the log is away");
}

#[tokio::test]
async fn an_append_without_an_answer_is_sent_again_with_the_same_pair_to_the_same_partition() {
    let setup = setup();
    let (collector, spool) = setup.start();
    setup.faulty.faults.lock().unwrap().push_back(Fault::UnclearAndThere);
    collector.append(event(7)).await.unwrap();
    drained(&spool).await;
    let records = setup.records();
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!(records[0], records[1], "a copy that every reader knows as one");
}

#[tokio::test]
async fn a_batch_whose_first_try_is_older_than_readers_look_back_is_looked_up_before_it_is_sent() {
    let setup = setup();
    let (collector, spool) = setup.start();
    // One is there without an answer, the other is not.
    setup.faulty.faults.lock().unwrap().extend([Fault::UnclearAndThere, Fault::Unavailable]);
    setup.away(|| Fault::Unavailable);
    for id in 0..2 {
        collector.append(event(id)).await.unwrap();
    }
    setup.clock.advance(DEDUP_HORIZON_MS + 1);
    setup.back();
    drained(&spool).await;
    assert_eq!(setup.ids(), expected(0..2), "each once, without help of any reader");
    drop(collector);
}

#[tokio::test]
async fn a_batch_that_was_tried_and_is_not_in_the_log_is_sent_after_the_look() {
    let setup = setup();
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Silent);
    collector.append(event(1)).await.unwrap();
    setup.clock.advance(DEDUP_HORIZON_MS + 1);
    setup.back();
    drained(&spool).await;
    assert_eq!(setup.ids(), expected(1..2));
    drop(collector);
}

#[tokio::test]
async fn a_restart_while_the_log_is_away_loses_nothing_and_doubles_nothing() {
    let setup = setup();
    setup.away(|| Fault::Unavailable);
    for start in 0..3 {
        let (collector, spool) = setup.start();
        assert_eq!(spool.usage().unwrap().batches, start * 10);
        for id in start * 10..(start + 1) * 10 {
            collector.append(event(id)).await.unwrap();
        }
        collector.drain().await;
        drop((collector, spool));
    }
    setup.back();
    let (_collector, spool) = setup.start();
    drained(&spool).await;
    assert_eq!(setup.ids(), expected(0..30));
}

#[tokio::test]
async fn a_spool_that_was_killed_before_it_was_marked_does_not_double_what_it_had_drained() {
    for later_ms in [0, DEDUP_HORIZON_MS + 1] {
        let setup = setup();
        let (collector, spool) = setup.start();
        setup.away(|| Fault::Unavailable);
        for id in 0..100 {
            collector.append(event(id)).await.unwrap();
        }
        let before = setup.killed();
        setup.back();
        drained(&spool).await;
        collector.drain().await;
        let first = setup.records();
        // The next process finds the disk as if the whole drain had not been marked; of it, a group may have been tried.
        setup.clock.advance(later_ms);
        let (_next, spool) = setup.start_in(before.path());
        drained(&spool).await;
        let records = setup.records();
        let copies: Vec<_> =
            records[..].iter().filter(|record| records.iter().filter(|r| r == record).count() == 2).collect();
        match later_ms {
            0 => assert_eq!(copies.len(), 200, "copies of equal names in equal partitions, which readers know"),
            _ => {
                assert_eq!(
                    records.len() - first.len(),
                    100 - 64,
                    "those that a process before can have tried are looked up"
                );
                assert!((0..64).all(|id| records.iter().filter(|r| r.2 == expected(id..id + 1)).count() == 1));
            }
        }
    }
}

#[tokio::test]
async fn new_events_go_straight_to_a_log_that_is_back_while_the_spool_is_drained() {
    let setup = setup().patient();
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Unavailable);
    for id in 0..1_000 {
        collector.append(event(id)).await.unwrap();
    }
    setup.back();
    let mut straight = 0;
    let mut id = 1_000;
    while !spool.is_empty() {
        let tries = setup.faulty.tries().len();
        collector.append(event(id)).await.unwrap();
        straight +=
            usize::from(setup.faulty.tries()[tries..].iter().any(|(_, p)| decode(p)[0].id == format!("{id:03}")));
        id += 1;
    }
    drained(&spool).await;
    assert!(straight > 0);
    let ids: std::collections::HashSet<String> = setup.ids().into_iter().collect();
    assert_eq!((ids.len() as u64, setup.ids().len() as u64), (id, id));
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_when_there_is_room() {
    let mut setup = setup();
    setup.config.bytes_max = 1 << 20;
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Unavailable);
    let large = |id: u64| {
        let text = |n: u64| format!("{id}-{n}-{:x>2000}", "");
        (0..100).map(|n| Event { page: text(n), ..event(id).remove(0) }).collect::<Vec<_>>()
    };
    let mut taken = 0;
    let refused = loop {
        match collector.append(large(taken)).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, AppendError::Full(_)), "{refused}");
    assert_eq!(taken, 5, "of some 206 kB each");
    assert_eq!(spool.usage().unwrap().batches, 5);
    setup.back();
    drained(&spool).await;
    collector.append(event(9)).await.unwrap();
    assert_eq!(events(&*setup.inner.log).len(), 501);
}

#[tokio::test]
async fn clients_of_a_full_spool_are_told_to_come_again_in_whole_seconds() {
    let mut setup = setup();
    setup.config.bytes_max = 1 << 20;
    let server =
        serve_spooling(setup.faulty.clone(), setup.clock.clone(), unlimited(), setup.open(setup.dir.path())).await;
    setup.away(|| Fault::Unavailable);
    let response = loop {
        let title = "x".repeat(2_000);
        let page = format!(r#"{{"site":"blog","url":"https://blog.example/a","title":"{title}"}}"#);
        let response = server.post("/v1/events", page).send().await.unwrap();
        if response.status() != 202 {
            break response;
        }
    };
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "30"));
    setup.back();
    eventually("it takes events again", async || server.send(PAGE).await.0 == 202).await;
}

#[tokio::test]
async fn what_the_log_refuses_for_good_stays_in_the_spool_and_is_not_dropped() {
    let setup = setup();
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Unavailable);
    collector.append(event(1)).await.unwrap();
    setup.away(|| Fault::TooLarge);
    let tries = setup.faulty.tries().len();
    eventually("it is tried some times", async || setup.faulty.tries().len() > tries + 3).await;
    assert_eq!(spool.usage().unwrap().batches, 1);
    setup.back();
    drained(&spool).await;
    assert_eq!(setup.ids(), expected(1..2));
}

#[tokio::test]
async fn a_log_that_refuses_large_batches_keeps_small_ones_from_nothing() {
    let setup = setup().patient();
    setup.faulty.bytes_max.store(1_000, Ordering::SeqCst);
    let (collector, spool) = setup.start();
    let mut large = event(0);
    large[0].title = "x".repeat(2_000);
    collector.append(large).await.unwrap();
    let tries = setup.faulty.tries().len();
    eventually("the drain tries it, too", async || setup.faulty.tries().len() > tries + 1).await;
    for id in 1..4 {
        collector.append(event(id)).await.unwrap();
        assert_eq!(setup.ids(), expected(1..id + 1), "small ones go straight to the log");
    }
    assert_eq!(spool.usage().unwrap().batches, 1, "the large one waits");
    setup.faulty.bytes_max.store(usize::MAX, Ordering::SeqCst);
    drained(&spool).await;
    assert_eq!(setup.ids(), expected(0..4));
}

#[tokio::test]
async fn a_spool_is_one_collectors_at_a_time() {
    let setup = setup();
    let (collector, spool) = setup.start();
    let again = || Spool::open(setup.dir.path(), Arc::new(setup.clock.clone()), SpoolConfig::default());
    assert!(matches!(again(), Err(SpoolError::Taken { .. })));
    let looked = Spool::look(setup.dir.path(), Arc::new(setup.clock.clone()), 0).unwrap().unwrap();
    assert_eq!(looked.batches, 0, "anybody may look");
    collector.drain().await;
    drop((collector, spool));
    assert!(again().is_ok());
}

#[tokio::test]
async fn a_collector_that_has_not_reached_the_log_takes_events_with_what_it_remembers() {
    let setup = setup().patient();
    let before =
        serve_spooling(setup.faulty.clone(), setup.clock.clone(), config(), setup.open(setup.dir.path())).await;
    assert_eq!(before.send(PAGE).await.0, 202);
    let known = || std::fs::read_to_string(setup.dir.path().join("known.json")).unwrap_or_default();
    let partitions = format!("\"partitions\":{PARTITIONS}");
    eventually("it remembers", async || known().contains(&partitions)).await;
    stop(before).await;
    let spool = setup.open(setup.dir.path());
    assert_eq!(spool.partitions(), Some(PARTITIONS));
    spool.hold();
    let tries = setup.faulty.tries().len();
    let server = serve_spooling(setup.faulty.clone(), setup.clock.clone(), config(), spool.clone()).await;
    assert_eq!(server.send(PAGE).await.0, 202);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(setup.faulty.tries().len(), tries, "nothing is written to a log that was not looked at");
    spool.reached();
    drained(&spool).await;
    let visitors: Vec<u64> = server.events().into_iter().map(|event| event.visitor).collect();
    assert_eq!(visitors.len(), 2);
    assert_eq!(visitors[0], visitors[1], "under the same salt");
}

#[tokio::test]
async fn salts_of_days_long_past_go_from_the_disk_with_the_next_start() {
    let setup = setup();
    let known = |dir: &Path| std::fs::read_to_string(dir.join("known.json")).unwrap();
    let start = async |dir: &Path| {
        let spool = setup.open(dir);
        spool.hold();
        let (log, clock) = (setup.faulty.clone(), Arc::new(setup.clock.clone()));
        Ingest::start_spooling(log, clock, config(), setup.partitions.subscribe(), spool).await.unwrap()
    };
    let day = |ms: i64| format!("\"day\":{},", ms / DAY_MS);
    let _killed = start(setup.dir.path()).await;
    let before = known(setup.dir.path());
    assert!(before.contains(&day(NOON_MS)), "{before}");
    let next = tempfile::tempdir().unwrap();
    std::fs::write(next.path().join("known.json"), before).unwrap();
    setup.clock.advance(3 * DAY_MS);
    let _started = start(next.path()).await;
    let after = known(next.path());
    assert!(after.contains(&day(NOON_MS + 3 * DAY_MS)) && !after.contains(&day(NOON_MS)), "{after}");
}

#[tokio::test]
async fn a_day_that_begins_while_the_log_is_not_reached_has_a_salt_that_is_offered_to_all() {
    let setup = setup();
    let spool = setup.open(setup.dir.path());
    spool.hold();
    let server = serve_spooling(setup.faulty.clone(), setup.clock.clone(), config(), spool.clone()).await;
    assert_eq!(server.send(PAGE).await.0, 202);
    spool.reached();
    drained(&spool).await;
    server.ingest.tend_salts().await.unwrap();
    assert_eq!(payloads(&*setup.inner.log, SALTS_TOPIC, 0).len(), 1);
    let other = serve_spooling(
        setup.faulty.clone(),
        setup.clock.clone(),
        config(),
        setup.open(tempfile::tempdir().unwrap().path()),
    )
    .await;
    assert_eq!(other.send(PAGE).await.0, 202);
    let visitors: Vec<u64> = server.events().into_iter().map(|event| event.visitor).collect();
    assert_eq!(visitors[0], visitors[1], "another collector agrees on it");
}

#[tokio::test]
async fn a_salt_of_ones_own_gives_way_to_one_that_others_agreed_on() {
    let setup = setup();
    let spool = setup.open(setup.dir.path());
    spool.hold();
    let server = serve_spooling(setup.faulty.clone(), setup.clock.clone(), config(), spool.clone()).await;
    let record = format!(r#"{{"day":{},"salt":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}}"#, NOON_MS / 86_400_000);
    setup.inner.log.create_topic(SALTS_TOPIC, &weir_log::TopicKind::Salts).unwrap();
    setup.inner.log.append(SALTS_TOPIC, 0, Bytes::from(record.clone()), None).await.unwrap();
    spool.reached();
    server.ingest.tend_salts().await.unwrap();
    assert_eq!(payloads(&*setup.inner.log, SALTS_TOPIC, 0), [record.into_bytes()], "nothing was offered");
    let remembered = std::fs::read_to_string(setup.dir.path().join("known.json")).unwrap();
    assert!(remembered.contains("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],\"agreed\":true"), "{remembered}");
}

fn unlimited() -> weir_ingest::IngestConfig {
    let mut config = config();
    config.limits.address.per_second = 0;
    config
}

async fn stop(mut server: Server) {
    server.stop();
    (&mut server.served).await.unwrap().unwrap();
}

/// Ten batches that wait, whose collector is gone; the file that holds them.
async fn left_behind(setup: &Setup) -> Vec<u8> {
    let (collector, spool) = setup.start();
    setup.away(|| Fault::Unavailable);
    for id in 0..10 {
        collector.append(event(id)).await.unwrap();
    }
    collector.drain().await;
    assert_eq!(spool.usage().unwrap().batches, 10);
    std::fs::read(setup.dir.path().join("data.mdb")).unwrap()
}

#[tokio::test]
async fn a_batch_that_the_disk_has_changed_is_left_out_and_the_others_are_drained() {
    let setup = setup();
    let mut file = left_behind(&setup).await;
    // Pages that are not in use any more have it too.
    let places: Vec<usize> = (0..file.len() - 3).filter(|at| &file[*at..at + 3] == b"004").collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| file[*at] ^= 1);
    let changed = tempfile::tempdir().unwrap();
    std::fs::write(changed.path().join("data.mdb"), file).unwrap();
    setup.back();
    let (_collector, spool) = setup.start_in(changed.path());
    drained(&spool).await;
    assert_eq!(setup.ids(), expected((0..10).filter(|id| *id != 4)));
}

#[tokio::test]
async fn a_spool_whose_file_is_damaged_is_refused_with_its_name_and_a_way_out() {
    let setup = setup();
    let file = left_behind(&setup).await;
    let damaged = [
        file[..5_000].to_vec(),
        file[..8_192].to_vec(),
        // Both heads.
        [&[0xff; 8_192], &file[8_192..]].concat(),
    ];
    for file in damaged {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data.mdb"), file).unwrap();
        let opened = Spool::open(dir.path(), Arc::new(setup.clock.clone()), setup.config.clone());
        let error = opened.err().expect("it cannot be read").to_string();
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("see to the disk"), "{error}");
    }
}
