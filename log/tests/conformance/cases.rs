use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{executor::block_on, future::join_all};
use weir_log::{
    Bounds, Clock, Committed, ControlLog, Log, LogError, PartitionInUse, SystemClock, TopicKind,
    ensure_partitions_in_use,
};
use weir_schemas::control::{Action, ControlRecord};

use crate::fixture::{DEADLINE, Fixture, Record, append, fresh, poll, read, read_from};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn events(log: &dyn Log, partitions: u32) -> String {
    let topic = fresh("events");
    log.create_topic(&topic, &TopicKind::Events { partitions, retention: WEEK }).unwrap();
    topic
}

fn import(log: &dyn Log) -> String {
    let topic = fresh("import");
    log.create_topic(&topic, &TopicKind::Import { partitions: 1 }).unwrap();
    topic
}

pub(crate) fn read_back(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 2);
    let before_ms = SystemClock.now_ms();
    let mut expected = [Vec::new(), Vec::new()];
    for number in 0..20_u32 {
        // From nothing to some hundreds of kilobytes, so that small and large values are stored both ways.
        let payload = vec![number as u8; (number as usize).pow(4) * 4];
        let partition = number % 2;
        let appended = append(&*log, &topic, partition, payload.clone());
        let expected = &mut expected[partition as usize];
        assert_eq!(appended.offset, expected.len() as i64);
        expected.push(Record { partition, offset: appended.offset, stamp_ms: appended.stamp_ms, payload });
    }
    let after_ms = SystemClock.now_ms();
    for partition in 0..2 {
        let expected = &expected[partition as usize];
        let found = read_from(&*log, &topic, partition, 0, expected.len());
        assert!(found == *expected, "partition {partition} reads otherwise than it was written");
        for record in found {
            let within = before_ms - 1 <= record.stamp_ms && record.stamp_ms <= after_ms + 1;
            assert!(within, "{} is not between {before_ms} and {after_ms}", record.stamp_ms);
        }
        assert_eq!(read_from(&*log, &topic, partition, 7, 3), expected[7..10]);
    }
}

pub(crate) fn order_of_calls(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    let appends = (0..2_000_u32).map(|number| log.append(&topic, 0, number.to_be_bytes().to_vec().into(), None));
    // All are under way at once, and awaited from the last one on.
    let mut appends: Vec<_> = appends.collect();
    appends.reverse();
    for (number, appended) in block_on(join_all(appends)).into_iter().rev().enumerate() {
        assert_eq!(appended.unwrap().offset, number as i64);
    }
    for (number, record) in read_from(&*log, &topic, 0, 0, 2_000).into_iter().enumerate() {
        assert_eq!(record.payload, (number as u32).to_be_bytes());
    }
}

pub(crate) fn many_writers(fixture: &dyn Fixture) {
    const WRITERS: u8 = 4;
    const EACH: u32 = 250;
    let log = fixture.log();
    let topic = events(&*log, 1);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (log, topic) = (fixture.log(), &topic);
            scope.spawn(move || {
                let appends = (0..EACH).map(|number| {
                    let payload = [&[writer][..], &number.to_be_bytes()].concat();
                    log.append(topic, 0, payload.into(), None)
                });
                for appended in block_on(join_all(appends)) {
                    appended.unwrap();
                }
            });
        }
    });
    let mut next = [0; WRITERS as usize];
    let total = u32::from(WRITERS) * EACH;
    for (offset, record) in read_from(&*log, &topic, 0, 0, total as usize).into_iter().enumerate() {
        assert_eq!(record.offset, offset as i64);
        let next = &mut next[record.payload[0] as usize];
        assert_eq!(record.payload[1..], u32::to_be_bytes(*next));
        *next += 1;
    }
    assert_eq!(next, [EACH; WRITERS as usize]);
    assert_eq!(log.bounds(&topic, 0).unwrap(), Bounds { start: 0, end: i64::from(total) });
}

pub(crate) fn offset_at(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = import(&*log);
    assert_eq!(log.offset_at(&topic, 0, 0).unwrap(), None, "an empty partition has no record at any time");
    // Drawn by a small generator: mostly ahead, one in four steps back, some far.
    let base_ms = 1_432_000_000_000;
    let mut drawn = 0x9e37_79b9_7f4a_7c15_u64;
    let mut stamp_ms = base_ms;
    let stamps: Vec<i64> = (0..300)
        .map(|_| {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let step = (drawn >> 40) as i64 % 50;
            stamp_ms += if (drawn >> 33).is_multiple_of(4) { -3 * step } else { step };
            stamp_ms
        })
        .collect();
    let appends = stamps.iter().map(|stamp_ms| log.append(&topic, 0, Bytes::from_static(b"x"), Some(*stamp_ms)));
    for (appended, stamp_ms) in block_on(join_all(appends)).into_iter().zip(&stamps) {
        assert_eq!(appended.unwrap().stamp_ms, *stamp_ms);
    }
    let (least, most) = (stamps.iter().min().unwrap(), stamps.iter().max().unwrap());
    for at_ms in (least - 2..=most + 2).step_by(13).chain([0, *least, *most, most + 1, i64::MAX / 2]) {
        let first = stamps.iter().position(|stamp_ms| *stamp_ms >= at_ms).map(|offset| offset as i64);
        assert_eq!(log.offset_at(&topic, 0, at_ms).unwrap(), first, "at {at_ms} of {stamps:?}");
    }
}

pub(crate) fn bounds(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 2);
    assert_eq!(log.bounds(&topic, 0).unwrap(), Bounds { start: 0, end: 0 });
    for _ in 0..3 {
        append(&*log, &topic, 0, "x");
    }
    assert_eq!(log.bounds(&topic, 0).unwrap(), Bounds { start: 0, end: 3 });
    assert_eq!(log.bounds(&topic, 1).unwrap(), Bounds { start: 0, end: 0 });
    fixture.cut(&topic, 0, 2);
    assert_eq!(log.bounds(&topic, 0).unwrap(), Bounds { start: 2, end: 3 });
    fixture.cut(&topic, 0, 3);
    assert_eq!(log.bounds(&topic, 0).unwrap(), Bounds { start: 3, end: 3 });
    assert_eq!(append(&*log, &topic, 0, "y").offset, 3, "offsets go on after everything was deleted");
}

pub(crate) fn below_start(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    for number in 0..10_u8 {
        append(&*log, &topic, 0, vec![number]);
    }
    fixture.cut(&topic, 0, 6);
    let mut reader = log.reader(&topic).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut outcome = reader.assign(0, 4);
    while outcome.is_ok() {
        assert!(Instant::now() < deadline, "a reader below the log's start was left waiting");
        let polled = reader.poll(10, Duration::from_millis(100), &mut |record| {
            panic!("a reader at 4 was given {} although 4 and 5 are gone", record.offset)
        });
        outcome = polled.map(|_| ());
    }
    match outcome {
        Err(LogError::BelowStart { offset: 4, start: 6, partition: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
    reader.assign(0, 6).unwrap();
    assert_eq!(read(&mut *reader, 4)[0].payload, [6], "after assigning anew it reads on");
}

pub(crate) fn progress(fixture: &dyn Fixture) {
    let topic = events(&*fixture.log(), 3);
    let group = fresh("group");
    assert_eq!(fixture.log().committed(&group, &topic).unwrap(), []);
    let progress = |offset: i64, metadata: String| {
        [2, 0].map(|partition| Committed {
            partition,
            offset: offset + i64::from(partition),
            metadata: metadata.clone(),
        })
    };
    let largest = "ü".repeat(2_048);
    for (offset, metadata) in [(10, String::new()), (20, largest)] {
        fixture.log().commit(&group, &topic, &progress(offset, metadata.clone())).unwrap();
        let mut expected = progress(offset, metadata);
        expected.reverse();
        assert_eq!(fixture.log().committed(&group, &topic).unwrap(), expected);
    }
    // A group whose name begins like this one's is another group.
    assert_eq!(fixture.log().committed(&format!("{group}x"), &topic).unwrap(), []);
    let too_long = fixture.log().commit(&group, &topic, &progress(30, "x".repeat(4_097)));
    assert!(matches!(too_long, Err(LogError::TooLarge { bytes: 4_097, bytes_max: 4_096 })), "{too_long:?}");
    assert_eq!(fixture.log().committed(&group, &topic).unwrap()[0].offset, 20);
}

pub(crate) fn kept_for_ever(fixture: &dyn Fixture) {
    let log = fixture.log();
    let control = fresh("control");
    log.create_topic(&control, &TopicKind::Control).unwrap();
    append(&*log, &control, 0, "kept");
    let topic = import(&*log);
    let stamp_ms = 1_431_856_000_000;
    for number in 0..5 {
        block_on(log.append(&topic, 0, Bytes::from_static(b"of 2015"), Some(stamp_ms + number))).unwrap();
    }
    fixture.pass_retention_check();
    let stamps: Vec<_> = read_from(&*log, &topic, 0, 0, 5).iter().map(|record| record.stamp_ms).collect();
    assert_eq!(stamps, [0, 1, 2, 3, 4].map(|number| stamp_ms + number));
    assert_eq!(log.bounds(&control, 0).unwrap(), Bounds { start: 0, end: 1 });
}

pub(crate) fn wrong_topic(fixture: &dyn Fixture) {
    let topic = fresh("wrong");
    fixture.make_wrong(&topic);
    let kind = TopicKind::Events { partitions: 1, retention: WEEK };
    match fixture.log().create_topic(&topic, &kind) {
        Err(error @ LogError::WrongTopic { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&topic) && text.contains("weir needs"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // A right one is accepted as often as one asks.
    let topic = events(&*fixture.log(), 2);
    fixture.log().create_topic(&topic, &TopicKind::Events { partitions: 2, retention: WEEK }).unwrap();
}

pub(crate) fn retention(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    assert_eq!(log.retention(&topic).unwrap(), Some(WEEK));
    let topic = import(&*log);
    assert_eq!(log.retention(&topic).unwrap(), None);
}

pub(crate) fn deleted(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 2);
    for number in 0..1_500_u32 {
        drop(log.append(&topic, number % 2, number.to_be_bytes().to_vec().into(), None));
    }
    append(&*log, &topic, 0, "last");
    log.commit("group", &topic, &[Committed { partition: 0, offset: 7, metadata: String::new() }]).unwrap();
    assert!(log.topics().unwrap().contains(&topic));
    log.delete_topic(&topic).unwrap();
    log.delete_topic(&topic).unwrap();
    assert!(!log.topics().unwrap().contains(&topic));
    assert!(matches!(log.partitions(&topic), Err(LogError::UnknownTopic(_))));
    log.create_topic(&topic, &TopicKind::Events { partitions: 1, retention: WEEK }).unwrap();
    assert_eq!(log.partitions(&topic).unwrap(), 1);
    assert_eq!(log.bounds(&topic, 0).unwrap(), Bounds { start: 0, end: 0 });
    assert_eq!(append(&*log, &topic, 0, "new").offset, 0);
    assert_eq!(read_from(&*log, &topic, 0, 0, 1)[0].payload, b"new");
}

pub(crate) fn made_again(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    let first = log.topic_id(&topic).unwrap().expect("this log tells its topics apart");
    append(&*log, &topic, 0, "one");
    log.grow(&topic, 2).unwrap();
    assert_eq!(
        fixture.log().topic_id(&topic).unwrap().as_ref(),
        Some(&first),
        "the same topic, whatever is done to it"
    );
    log.delete_topic(&topic).unwrap();
    assert!(matches!(log.topic_id(&topic), Err(LogError::UnknownTopic(name)) if name == topic));
    log.create_topic(&topic, &TopicKind::Events { partitions: 2, retention: WEEK }).unwrap();
    assert_ne!(log.topic_id(&topic).unwrap(), Some(first), "another topic of the same name");
}

pub(crate) fn grow(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    append(&*log, &topic, 0, "before");
    log.grow(&topic, 3).unwrap();
    assert_eq!(log.partitions(&topic).unwrap(), 3);
    log.grow(&topic, 2).unwrap();
    assert_eq!(fixture.log().partitions(&topic).unwrap(), 3, "growing to fewer changes nothing");
    append(&*log, &topic, 2, "after");
    assert_eq!(read_from(&*log, &topic, 0, 0, 1)[0].payload, b"before");
    assert_eq!(read_from(&*log, &topic, 2, 0, 1)[0].payload, b"after");
}

pub(crate) fn hold(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 2);
    for number in 0..400_u32 {
        drop(log.append(&topic, number % 2, number.to_be_bytes().to_vec().into(), None));
    }
    append(&*log, &topic, 0, "last");
    append(&*log, &topic, 1, "last");
    let mut reader = log.reader(&topic).unwrap();
    reader.assign(0, 0).unwrap();
    reader.assign(1, 0).unwrap();
    let mut records = read(&mut *reader, 50);
    reader.hold(1, true);
    // All of the other partition comes, and nothing of this one.
    let held_before = records.iter().filter(|record| record.partition == 1).count();
    let left = 201 - (records.len() - held_before);
    let others = read(&mut *reader, left);
    assert!(others.iter().all(|record| record.partition == 0));
    records.extend(others);
    let mut nothing = Vec::new();
    assert_eq!(poll(&mut *reader, 10, Duration::from_millis(200), &mut nothing), 0, "{nothing:?}");
    reader.hold(1, false);
    records.extend(read(&mut *reader, 201 - held_before));
    for partition in 0..2 {
        let offsets: Vec<_> =
            records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect();
        assert_eq!(offsets, (0..201).collect::<Vec<_>>());
    }
}

pub(crate) fn tail(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    append(&*log, &topic, 0, "old");
    let mut reader = log.reader(&topic).unwrap();
    reader.assign(0, log.bounds(&topic, 0).unwrap().end).unwrap();
    let mut nothing = Vec::new();
    assert_eq!(poll(&mut *reader, 10, Duration::from_millis(50), &mut nothing), 0, "{nothing:?}");
    let other = fixture.log();
    for number in 0..20_u8 {
        append(&*other, &topic, 0, vec![number]);
        assert_eq!(read(&mut *reader, 1)[0].payload, [number]);
    }
}

pub(crate) fn wake(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    let mut reader = log.reader(&topic).unwrap();
    reader.assign(0, 0).unwrap();
    let (woken, wakes) = mpsc::channel();
    reader.set_wake(Arc::new(move || _ = woken.send(())));
    let other = fixture.log();
    for number in 0..10_u8 {
        append(&*other, &topic, 0, vec![number]);
        // A wake may come for nothing, so look after each; but without one nothing is looked at.
        let mut records = Vec::new();
        while records.is_empty() {
            wakes.recv_timeout(DEADLINE).expect("an append woke nobody");
            while poll(&mut *reader, 10, Duration::ZERO, &mut records) > 0 {}
        }
        assert_eq!(records[0].payload, [number]);
    }
}

pub(crate) fn too_large(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = events(&*log, 1);
    let refused = block_on(log.append(&topic, 0, vec![7; 2 << 20].into(), None));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })), "{refused:?}");
    let largest = vec![7; weir_schemas::BATCH_BYTES_MAX + 64];
    append(&*log, &topic, 0, largest.clone());
    append(&*log, &topic, 0, "small");
    let found = read_from(&*log, &topic, 0, 0, 2);
    assert!(found[0].payload == largest);
    assert_eq!(found[1].payload, b"small");
}

pub(crate) fn unknown(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = fresh("unknown");
    assert!(matches!(log.partitions(&topic), Err(LogError::UnknownTopic(_))));
    assert!(log.reader(&topic).is_err());
    assert!(log.bounds(&topic, 0).is_err());
    assert!(block_on(log.append(&topic, 0, Bytes::from_static(b"x"), None)).is_err());
    assert!(!log.topics().unwrap().contains(&topic), "it was made by asking for it");
    let topic = events(&*log, 1);
    let nowhere = block_on(log.append(&topic, 5, Bytes::from_static(b"x"), None));
    assert!(nowhere.is_err(), "{nowhere:?}");
    assert!(log.bounds(&topic, 5).is_err());
}

pub(crate) fn control(fixture: &dyn Fixture) {
    let topic = fresh("control");
    let control = ControlLog::open_topics(fixture.log(), &topic, "no.events").unwrap();
    let record = |number: i64| ControlRecord {
        at_ms: number,
        who: "a test".to_owned(),
        reason: String::new(),
        action: Action::ImportUndo { id: number.to_string() },
    };
    for number in 0..3 {
        assert_eq!(block_on(control.append(&record(number))).unwrap(), number);
    }
    append(&*fixture.log(), &topic, 0, "{\"no\": \"record\"}");
    assert_eq!(block_on(control.append(&record(4))).unwrap(), 4);

    let other = ControlLog::open_topics(fixture.log(), &topic, "no.events").unwrap();
    let all = other.read_all().unwrap();
    assert_eq!(all.records, [0, 1, 2, 4].map(|number| (number, record(number))));
    assert_eq!((all.unreadable, all.end), (1, 5));

    let seen = Arc::new(AtomicUsize::new(0));
    let (sender, followed) = mpsc::channel();
    let count = seen.clone();
    let follower = other
        .follow(2, move |offset, record| {
            count.fetch_add(1, Ordering::SeqCst);
            drop(sender.send((offset, record)));
        })
        .unwrap();
    for number in [2, 3, 4, 5] {
        if number == 5 {
            block_on(control.append(&record(number))).unwrap();
        }
        // The one of offset 3 is set aside.
        let is = (number != 3).then(|| record(number));
        assert_eq!(followed.recv_timeout(DEADLINE).unwrap(), (number, is));
    }
    drop(follower);
    block_on(control.append(&record(6))).unwrap();
    assert!(followed.recv().is_err(), "a dropped follower goes on");
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}

pub(crate) fn partitions_in_use(fixture: &dyn Fixture) {
    let topic = fresh("control");
    // As an operator may have made it: with fewer than any of them would have.
    let events = events(&*fixture.log(), 1);
    let controls: Vec<_> = (0..4).map(|_| ControlLog::open_topics(fixture.log(), &topic, &events).unwrap()).collect();
    let agreed: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (1..)
            .zip(&controls)
            .map(|(number, control)| {
                // Each would have another number of partitions from another time on.
                scope.spawn(move || ensure_partitions_in_use(control, "a test", number, i64::from(number)).unwrap())
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    // The first in the log decided for all of them.
    let all = controls[0].read_all().unwrap();
    let Action::PartitionsInUse { partitions, effective_ms } = all.records[0].1.action else { panic!("{all:?}") };
    let decided: Vec<_> = (0..partitions).map(|partition| PartitionInUse { partition, effective_ms }).collect();
    assert_eq!(agreed, vec![decided; 4]);
    let after = controls[0].read_all().unwrap().records.len();
    ensure_partitions_in_use(&controls[1], "a test", 9, 9).unwrap();
    assert_eq!(controls[0].read_all().unwrap().records.len(), after, "a later start writes nothing");
}

pub(crate) fn partitions_in_use_are_there(fixture: &dyn Fixture) {
    let log = fixture.log();
    let events = events(&*log, 1);
    let control = ControlLog::open_topics(log.clone(), &fresh("control"), &events).unwrap();
    let in_use = ensure_partitions_in_use(&control, "a test", 4, 1).unwrap();
    assert_eq!(in_use.len(), 4);
    append(&*log, &events, 3, "in the last one");
    // Somebody deletes the topic and makes it anew, as small as before.
    log.delete_topic(&events).unwrap();
    log.create_topic(&events, &TopicKind::Events { partitions: 1, retention: WEEK }).unwrap();
    assert_eq!(ensure_partitions_in_use(&control, "a test", 4, 2).unwrap(), in_use);
    append(&*fixture.log(), &events, 3, "in the last one again");
}
