//! What is seen of a log: the run that fills what live has left, and how fast each run is.

mod states;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use states::world::{MINUTE_MS, SECOND_MS, World};
use weir_console::{Computing, Eta, Held, Kind, MaintenanceState, Memory, ask_kept, troubles};
use weir_log::{Appended, Bounds, Clock, Committed, Log, LogError, Reader, TopicKind};
use weir_schemas::{
    Repair,
    control::{Action, EtaKept},
};

/// 2026-11-27 12:00:00 UTC.
const BEGAN_MS: i64 = 1_795_780_800_000;

#[test]
fn what_live_has_left_is_a_run_of_its_own_between_its_two_times_until_it_is_filled() {
    let mut world = World::new(BEGAN_MS);
    let live = || "live".to_owned();
    world.live_through(60);
    world.report("live", 60, BEGAN_MS + MINUTE_MS);
    world.say(Action::Pause { run: live(), id: 1, until_ms: None, allow_loss: false });
    world.say(Action::Paused { run: live(), id: 1, through_ms: BEGAN_MS + MINUTE_MS });
    world.live_through(180);
    let (from_ms, to_ms) = (BEGAN_MS + MINUTE_MS, BEGAN_MS + 4 * MINUTE_MS);
    let paused = world.look();
    assert_eq!((paused.runs.len(), paused.computing), (1, vec![]), "nothing is left to anybody yet");
    world.say(Action::Resume { run: live(), id: 2, left_to_ms: Some(to_ms) });
    world.live_through(60);
    world.report("live", 300, to_ms);

    let left = world.look();
    let range = |from_ms| Computing { run: "gap".into(), from_ms, to_ms };
    assert_eq!(left.computing, [range(from_ms)]);
    assert_eq!(left.maintenances[0].state, MaintenanceState::CatchingUp);
    let gap = &left.runs[1];
    // Of 300 records in each partition: one a second, for three minutes.
    assert_eq!((gap.run.as_str(), gap.lag_records, gap.lag_ms), ("gap", 2 * 180, 180 * SECOND_MS));
    assert_eq!(gap.eta, Some(Eta::Unknown));

    for step in 1..=3 {
        world.clock.0.fetch_add(SECOND_MS, Ordering::Relaxed);
        world.report("gap", 59 + 40 * step, from_ms + 30 * SECOND_MS * step);
        let filling = world.look();
        assert_eq!(filling.computing, [range(from_ms + 30 * SECOND_MS * step)]);
        assert_eq!(filling.runs[1].lag_records, 2 * (180 - 40 * step));
    }
    // 120 records are left, and 80 a second are read.
    let half_ms = world.clock.now_ms();
    let Some(Eta::Between { earliest_ms, latest_ms }) = world.look().runs[1].eta else { panic!("{:?}", world.look()) };
    assert!(
        earliest_ms <= half_ms + 1_500 && half_ms + 1_500 <= latest_ms,
        "{} {}",
        earliest_ms - half_ms,
        latest_ms - half_ms
    );

    world.clock.0.fetch_add(2 * SECOND_MS, Ordering::Relaxed);
    world.report("gap", 239, to_ms);
    let filled = world.look();
    assert_eq!((filled.computing.len(), filled.runs[1].lag_records, filled.runs[1].eta), (0, 0, None));
    let came_ms = world.clock.now_ms();
    let kept = world.seen.eta_kept("gap", BEGAN_MS, came_ms).expect("it was said at its half");
    assert_eq!(kept, EtaKept { half_ms, said_ms: earliest_ms.midpoint(latest_ms), came_ms });
    assert_eq!(world.seen.eta_kept("gap", came_ms, came_ms), None, "that was another backlog");

    let (to_give_up, given_up) = (from_ms + MINUTE_MS, from_ms + 2 * MINUTE_MS);
    let repair = Repair::GiveUp { from_ms: to_give_up, to_ms: given_up };
    world.say(Action::Recover { run: "gap".into(), id: 3, repair, topic_is: None });
    world.say(Action::CaughtUp { run: live(), id: 2, eta: Some(kept) });
    let over = world.look();
    let missing = Memory::default().view(over.clone()).missing;
    assert_eq!(missing.len(), 1, "what the gap run has given up stays named without it");
    assert_eq!((missing[0].from_ms, missing[0].to_ms, missing[0].who.as_str()), (to_give_up, given_up, "ops@db1"));
    assert_eq!((over.runs.len(), over.maintenances[0].state), (1, MaintenanceState::Over));
    assert_eq!(over.maintenances[0].eta, Some(kept));
}

#[test]
fn live_is_not_late_when_it_is_the_logs_clock_that_is_behind_and_that_is_said() {
    let mut world = World::new(BEGAN_MS);
    let is_late = |world: &mut World| {
        let looked = world.look();
        let (all, _) = troubles(&looked, Held::default());
        let late = all.iter().any(|trouble| trouble.kind == Kind::Late);
        (late, weir_console::render(&Memory::default().view(looked)).contains("CLOCKS: by the log's clock"))
    };
    world.live_through(130);
    // A minute's window and ten seconds: by the log's clock the window that ends now comes yet.
    world.clock.0.fetch_add(90 * SECOND_MS, Ordering::Relaxed);
    world.report("live", 130, BEGAN_MS + MINUTE_MS);
    assert_eq!(is_late(&mut world), (false, true));
    world.live_through(1);
    world.report("live", 130, BEGAN_MS + MINUTE_MS);
    assert_eq!(is_late(&mut world), (true, false));
}

#[test]
fn a_partition_that_never_had_a_record_is_counted_from_when_it_came_into_use() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(30);
    let looked = world.look();
    let live = looked.live().unwrap();
    assert_eq!((live.lag_records, live.lag_ms), (60, 30 * SECOND_MS));
    assert_eq!((looked.began_ms, looked.due_ms), (Some(BEGAN_MS), 70 * SECOND_MS));
}

#[test]
fn a_paused_run_is_never_said_to_fall_behind_however_much_comes() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(60);
    world.report("live", 60, BEGAN_MS + MINUTE_MS);
    world.pause("live", 1, None, BEGAN_MS + MINUTE_MS);
    for second in 0..200 {
        world.live_through(1);
        let looked = world.look();
        let live = looked.live().unwrap();
        assert!(live.lag_records > 0 && live.eta.is_none(), "after {second} s: {live:?}");
    }
    world.say(Action::Resume { run: "live".into(), id: 2, left_to_ms: None });
    for second in 0..20 {
        world.live_through(1);
        world.report("live", 60 + 10 * second, BEGAN_MS + MINUTE_MS + 10 * SECOND_MS * second);
        assert_ne!(world.look().live().unwrap().eta, Some(Eta::NotConverging), "{second} s after it went on");
    }
    assert!(matches!(world.look().live().unwrap().eta, Some(Eta::Between { .. })), "{:?}", world.look());
}

/// A log that keeps so many bytes of each partition, and is otherwise another one.
struct Bounded(Arc<dyn Log>, u64);

impl Log for Bounded {
    fn create_topic(&self, topic: &str, kind: &TopicKind) -> Result<(), LogError> {
        self.0.create_topic(topic, kind)
    }
    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> Result<(), LogError> {
        self.0.repair_topic(topic, kind)
    }
    fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.0.delete_topic(topic)
    }
    fn topics(&self) -> Result<Vec<String>, LogError> {
        self.0.topics()
    }
    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.0.partitions(topic)
    }
    fn grow(&self, topic: &str, partitions: u32) -> Result<(), LogError> {
        self.0.grow(topic, partitions)
    }
    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.0.append(topic, partition, payload, stamp_ms)
    }
    fn reader(&self, topic: &str) -> Result<Box<dyn Reader>, LogError> {
        self.0.reader(topic)
    }
    fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds, LogError> {
        self.0.bounds(topic, partition)
    }
    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> Result<Option<i64>, LogError> {
        self.0.offset_at(topic, partition, at_ms)
    }
    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<(), LogError> {
        self.0.commit(group, topic, progress)
    }
    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>, LogError> {
        self.0.committed(group, topic)
    }
    fn retention(&self, topic: &str) -> Result<Option<Duration>, LogError> {
        self.0.retention(topic)
    }
    fn retention_bytes(&self, topic: &str) -> Result<Option<u64>, LogError> {
        self.partitions(topic).map(|_| Some(self.1))
    }
}

#[test]
fn a_bound_on_bytes_that_is_nearly_reached_is_red_also_where_the_retention_by_time_is_long() {
    let mut world = World::new(BEGAN_MS);
    // Half an hour of hits, five bytes every ten seconds in each partition.
    for _ in 0..180 {
        world.clock.0.fetch_add(9 * SECOND_MS, Ordering::Relaxed);
        world.live_through(1);
    }
    let now_ms = world.clock.now_ms();
    world.report("live", 120, now_ms - 10 * MINUTE_MS);
    let kinds = |world: &mut World| {
        let looked = world.look();
        let (troubles, _) = troubles(&looked, Held::default());
        (
            troubles.iter().any(|trouble| trouble.kind == Kind::RetentionLow),
            looked.runs[0].retention_headroom_ms.unwrap(),
        )
    };
    assert!(!kinds(&mut world).0, "thirty days are kept by time");
    for (bytes, is_low) in [(1 << 30, false), (21 * 6 * 5 + 20, true)] {
        assert!(world.seen.is_kept_due(world.clock.now_ms()));
        let looked = world.look();
        let kept = ask_kept(&Bounded(world.log.clone(), bytes), &looked).unwrap();
        world.seen.keep(kept);
        let (low, headroom_ms) = kinds(&mut world);
        assert_eq!(low, is_low, "{bytes} bytes: {headroom_ms} ms are left");
        assert!(!world.seen.is_kept_due(world.clock.now_ms() + 29_000));
        world.clock.0.fetch_add(30_000, Ordering::Relaxed);
    }
}

#[test]
fn two_gaps_are_counted_without_what_live_did_between_them_and_what_was_left_out_twice_once() {
    let mut world = World::new(BEGAN_MS);
    let at = |minutes: i64| BEGAN_MS + minutes * MINUTE_MS;
    let mut minute = 0;
    let mut pass = |world: &mut World, to: i64| {
        // One record every ten seconds.
        for _ in minute * 6..to * 6 {
            world.clock.0.fetch_add(9 * SECOND_MS, Ordering::Relaxed);
            world.live_through(1);
        }
        minute = to;
    };
    let resume = |world: &mut World, id: i64, left_to_ms: i64| {
        world.say(Action::Resume { run: "live".into(), id, left_to_ms: Some(left_to_ms) });
    };
    pass(&mut world, 1);
    world.pause("live", 1, None, at(1));
    pass(&mut world, 3);
    resume(&mut world, 2, at(3));
    // It had not done anything when it was paused again: the second gap has the first one in it.
    world.pause("live", 3, None, at(1));
    pass(&mut world, 5);
    resume(&mut world, 4, at(5));
    pass(&mut world, 20);
    world.pause("live", 5, None, at(20));
    pass(&mut world, 22);
    resume(&mut world, 6, at(22));
    pass(&mut world, 23);
    world.report("live", 137, at(22));
    let gaps = |world: &mut World| {
        let looked = world.look();
        let ranges: Vec<_> = looked.computing.iter().map(|range| (range.from_ms, range.to_ms)).collect();
        let gap = looked.runs.iter().find(|run| run.run == "gap").unwrap();
        (ranges, gap.lag_records, gap.lag_ms)
    };
    assert_eq!(gaps(&mut world), (vec![(at(1), at(5)), (at(20), at(22))], 2 * 6 * 6, 6 * MINUTE_MS));
    // The first is half filled.
    world.report("gap", 17, at(3));
    let (ranges, records, _) = gaps(&mut world);
    assert_eq!((ranges, records), (vec![(at(3), at(5)), (at(20), at(22))], 2 * 6 * 4));
    // The first is filled.
    world.report("gap", 29, at(5));
    let (ranges, records, _) = gaps(&mut world);
    assert_eq!((ranges, records), (vec![(at(20), at(22))], 2 * 6 * 2));
}
