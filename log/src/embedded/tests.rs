use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{executor::block_on, future::join_all};
use proptest::prelude::*;

use super::{EmbeddedLog, keys::PartitionState, retention, store::Store, times, topics};
use crate::{Clock, Log, LogError, TopicKind};

#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Hands {
    fn set(&self, at_ms: i64) {
        self.0.store(at_ms, Ordering::SeqCst);
    }
}

#[derive(Debug, Clone)]
enum Deed {
    /// Stamps with small numbers, so that equal ones and steps back are common.
    Append(Vec<i64>),
    /// Everything before the first record stamped at or after this goes.
    Retain(i64),
    /// The share of the records, in percent, that goes.
    Trim(i64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => prop::collection::vec(-20_i64..60, 0..40).prop_map(Deed::Append),
        1 => prop::collection::vec(Just(i64::MIN), 1..3).prop_map(Deed::Append),
        2 => (-20_i64..70).prop_map(Deed::Retain),
        1 => (0_i64..=100).prop_map(Deed::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Law: `offset_at(t)` is the first record with a stamp ≥ `t`, whatever was appended and deleted before.
    #[test]
    fn offset_at_is_what_a_search_through_all_records_finds(deeds in prop::collection::vec(deed(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut wtxn = store.write().unwrap();
        topics::create(&store, &mut wtxn, "t", &TopicKind::Events { partitions: 1, retention: Duration::from_secs(1) })
            .unwrap();
        let id = topics::row(&store, &wtxn, "t").unwrap().id;
        let place = (id, 0);
        // The model: the stamps of the records that are left, and the offset of the first.
        let (mut start, mut left) = (0_i64, Vec::<i64>::new());
        for deed in deeds {
            match deed {
                Deed::Append(stamps) => {
                    let mut state = store.partition(&wtxn, id, 0).unwrap().unwrap();
                    for stamp_ms in stamps {
                        let offset = state.end;
                        let key = super::keys::record_key(id, 0, offset);
                        store.records.put(&mut wtxn, &key, &stamp_ms.to_le_bytes()).unwrap();
                        times::enter(&store, &mut wtxn, place, &mut state, offset, stamp_ms).unwrap();
                        state.end += 1;
                        left.push(stamp_ms);
                    }
                    store.put_partition(&mut wtxn, id, 0, state).unwrap();
                }
                Deed::Retain(cutoff_ms) => {
                    while retention::sweep_partition(&store, &mut wtxn, place, cutoff_ms).unwrap() {}
                    let gone = left.iter().position(|stamp_ms| *stamp_ms >= cutoff_ms).unwrap_or(left.len());
                    left.drain(..gone);
                    start += gone as i64;
                }
                Deed::Trim(percent) => {
                    let gone = left.len() as i64 * percent / 100;
                    let mut state = store.partition(&wtxn, id, 0).unwrap().unwrap();
                    if gone > 0 {
                        times::begin_at(&store, &mut wtxn, place, &mut state, start + gone).unwrap();
                        retention::sweep(&store, &mut wtxn, place, &mut state).unwrap();
                    }
                    store.put_partition(&mut wtxn, id, 0, state).unwrap();
                    left.drain(..gone as usize);
                    start += gone;
                }
            }
            let state = store.partition(&wtxn, id, 0).unwrap().unwrap();
            prop_assert_eq!((state.start, state.end), (start, start + left.len() as i64));
            prop_assert_eq!(store.records.len(&wtxn).unwrap(), left.len() as u64);
            for at_ms in (-21..71).chain([i64::MIN, i64::MAX]) {
                let first = left.iter().position(|stamp_ms| *stamp_ms >= at_ms).map(|place| start + place as i64);
                prop_assert_eq!(times::first_at(&store, &wtxn, place, &state, at_ms).unwrap(), first);
            }
        }
    }
}

fn hour(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

#[test]
fn a_partitions_state_is_read_as_it_was_written() {
    let state = PartitionState { start: 3, end: 9, swept: 1, max_stamp_ms: -7 };
    assert_eq!(PartitionState::from_bytes(&state.to_bytes()), Some(state));
    assert_eq!(PartitionState::from_bytes(&[0; 31]), None);
}

#[test]
fn stamps_are_the_clocks_even_when_it_steps_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hands::default());
    let log = EmbeddedLog::open(dir.path(), clock.clone()).unwrap();
    log.create_topic("events", &TopicKind::Events { partitions: 1, retention: hour(1) }).unwrap();
    for at_ms in [50, 90, 10, 90, 91, 0] {
        clock.set(at_ms);
        let appended = block_on(log.append("events", 0, Bytes::from_static(b"x"), None)).unwrap();
        assert_eq!(appended.stamp_ms, at_ms);
    }
    let found: Vec<_> = [0, 51, 90, 91, 92].map(|at_ms| log.offset_at("events", 0, at_ms).unwrap()).into();
    assert_eq!(found, [Some(0), Some(1), Some(1), Some(4), None]);
}

#[test]
fn retention_takes_what_is_old_and_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hands::default());
    let log = EmbeddedLog::open(dir.path(), clock.clone()).unwrap();
    log.create_topic("events", &TopicKind::Events { partitions: 1, retention: hour(1) }).unwrap();
    let mut files = Vec::new();
    for round in 0..60 {
        clock.set(round * 3_600_000);
        let appends = (0..1_500).map(|_| log.append("events", 0, Bytes::from(vec![7; 3_000]), None));
        assert!(block_on(join_all(appends)).into_iter().all(|appended| appended.is_ok()));
        log.enforce_retention().unwrap();
        // The cutoff is the instant of the round before, and what is stamped at it stays.
        let kept = 1_500 * (round.min(1) + 1);
        let bounds = log.bounds("events", 0).unwrap();
        assert_eq!((bounds.start, bounds.end), (1_500 * (round + 1) - kept, 1_500 * (round + 1)));
        assert!(log.usage().unwrap().bytes <= kept as u64 * 5_000, "{:?}", log.usage());
        let file = std::fs::metadata(dir.path().join("data.mdb")).unwrap().len();
        files.push(file);
        // Two rounds are kept, the third is there before the first goes: 18 MB.
        assert!(file <= 30 << 20, "the file grows though what is kept does not: {files:?}");
    }
    clock.set(100 * 3_600_000);
    log.enforce_retention().unwrap();
    assert_eq!(log.bounds("events", 0).unwrap().start, 90_000);
    assert_eq!(log.usage().unwrap().bytes, 0);
}

#[test]
fn a_full_log_says_so_and_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open_bounded(dir.path(), Arc::new(Hands::default()), 1 << 20).unwrap();
    log.create_topic("spool", &TopicKind::Events { partitions: 1, retention: hour(1) }).unwrap();
    let payload = Bytes::from(vec![7; 100_000]);
    let mut fitted = 0;
    let refused = loop {
        match block_on(log.append("spool", 0, payload.clone(), None)) {
            Ok(_) => fitted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(fitted, 10);
    assert!(matches!(&refused, LogError::Embedded { cause, .. } if cause.starts_with("full: ")), "{refused}");
    assert_eq!(log.bounds("spool", 0).unwrap().end, 10);
    log.trim("spool", 0, 4).unwrap();
    for _ in 0..4 {
        block_on(log.append("spool", 0, payload.clone(), None)).unwrap();
    }
    assert!(block_on(log.append("spool", 0, payload, None)).is_err());
}

#[test]
fn a_log_without_room_refuses_and_takes_again_what_was_freed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_mapped(dir.path(), 4 << 20).unwrap();
    let log = EmbeddedLog::on(store, Arc::new(Hands::default()), None).unwrap();
    log.create_topic("events", &TopicKind::Events { partitions: 1, retention: hour(1) }).unwrap();
    let append = || block_on(log.append("events", 0, Bytes::from(vec![7; 100_000]), None));
    let fill = || std::iter::from_fn(|| append().ok()).count() as i64;
    let fitted = fill();
    assert!(fitted > 20, "{fitted}");
    let refused = append().unwrap_err();
    assert!(matches!(&refused, LogError::Embedded { cause, .. } if cause.starts_with("full: ")), "{refused}");
    assert_eq!(log.bounds("events", 0).unwrap().end, fitted);
    // Ten more fit where ten were, and all that was acknowledged can be read.
    log.trim("events", 0, 10).unwrap();
    let more = fill();
    assert!((5..=10).contains(&more), "{more}");
    let mut reader = log.reader("events").unwrap();
    reader.assign(0, 10).unwrap();
    let mut seen = 10;
    while reader
        .poll(100, Duration::ZERO, &mut |record| {
            assert!(record.offset == seen && record.payload == [7; 100_000]);
            seen += 1;
        })
        .unwrap()
        > 0
    {}
    assert_eq!(seen, fitted + more);
}

#[test]
fn one_refused_append_does_not_cost_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), Arc::new(Hands::default())).unwrap();
    log.create_topic("events", &TopicKind::Events { partitions: 1, retention: hour(1) }).unwrap();
    let appends = ["events", "nowhere", "events"].map(|topic| log.append(topic, 0, Bytes::from_static(b"x"), None));
    let answers = block_on(join_all(appends));
    assert_eq!(answers[0].as_ref().unwrap().offset, 0);
    assert!(matches!(answers[1], Err(LogError::UnknownTopic(_))));
    assert_eq!(answers[2].as_ref().unwrap().offset, 1);
    let stamped = block_on(log.append("events", 0, Bytes::from_static(b"x"), Some(5)));
    assert!(stamped.unwrap_err().to_string().contains("the log itself stamps"));
}

#[test]
fn dropping_a_handle_answers_everything_that_was_queued() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), Arc::new(Hands::default())).unwrap();
    log.create_topic("events", &TopicKind::Events { partitions: 1, retention: hour(1) }).unwrap();
    let appends: Vec<_> = (0..500).map(|_| log.append("events", 0, Bytes::from(vec![1; 9_000]), None)).collect();
    drop(log);
    assert!(block_on(join_all(appends)).into_iter().all(|appended| appended.is_ok()));
    let log = EmbeddedLog::open(dir.path(), Arc::new(Hands::default())).unwrap();
    assert_eq!(log.bounds("events", 0).unwrap().end, 500);
}

#[test]
fn reader_slots_are_bounded_and_the_error_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match store.read() {
            Ok(txn) => held.push(txn),
            Err(refused) => break refused,
        }
        assert!(held.len() <= 10_000, "reader slots are not bounded");
    };
    assert!(refused.to_string().contains("reader slots are taken"), "{refused}");
    held.pop();
    assert!(store.read().is_ok());
}

#[test]
fn retention_follows_the_configuration_and_a_kind_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), Arc::new(Hands::default())).unwrap();
    let kind = |hours| TopicKind::Events { partitions: 2, retention: hour(hours) };
    log.create_topic("events", &kind(1)).unwrap();
    log.create_topic("events", &kind(5)).unwrap();
    assert_eq!(log.retention("events").unwrap(), Some(hour(5)));
    let refused = log.create_topic("events", &TopicKind::Control).unwrap_err().to_string();
    assert!(refused.contains("kind=events, weir needs control"), "{refused}");
    for name in ["", ".", "a b", &"x".repeat(250)] {
        assert!(log.create_topic(name, &kind(1)).is_err(), "{name:?}");
    }
}
