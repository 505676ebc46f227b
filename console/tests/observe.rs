//! What is seen of a log: the run that fills what live has left, and how fast each run is.

mod states;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use states::world::{MINUTE_MS, SECOND_MS, World};
use weir_console::{
    Colour, Computing, ConversionState, Eta, Held, Kind, MaintenanceState, Memory, Snapshot, ask_kept, render, troubles,
};
use weir_log::{Appended, Bounds, Clock, Committed, Log, LogError, Reader, TopicKind};
use weir_schemas::{
    Repair, SchemaVersion,
    control::{Action, Carried, EVENTS_TOPIC, EtaKept, Import},
    progress::{RunProgress, Waiting},
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
        (late, render(&Memory::default().view(looked)).contains("CLOCKS: by the log's clock"))
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

/// Live is on time, at one record a second, and the run of the other generation is complete through this.
fn beside(world: &mut World, runs: [&str; 2], through_ms: i64) -> Snapshot {
    let now_ms = world.clock.now_ms();
    let seconds = (now_ms - BEGAN_MS) / SECOND_MS;
    world.report(runs[0], seconds, now_ms - 75 * SECOND_MS);
    world.report(runs[1], (through_ms - BEGAN_MS) / SECOND_MS, through_ms);
    let looked = world.look();
    let view = Memory::default().view(looked.clone());
    assert_eq!((view.status, view.incidents.len()), (Colour::Green, 0), "{}", render(&view));
    looked
}

fn state(looked: &Snapshot) -> Option<ConversionState> {
    looked.conversion.as_ref().map(|conversion| conversion.state)
}

#[test]
fn a_conversion_is_seen_from_its_start_to_its_end_while_live_is_what_it_was() {
    let mut world = World::new(BEGAN_MS);
    let runs = ["live", "v2-live"];
    world.live_through(600);
    world.report("live", 600, BEGAN_MS + 9 * MINUTE_MS);
    let before = world.look();
    assert_eq!((before.runs.len(), state(&before), before.due_ms), (1, None, 70 * SECOND_MS));
    world.convert(7, BEGAN_MS);
    let begun = world.look();
    let conversion = begun.conversion.as_ref().unwrap();
    assert_eq!((conversion.state, conversion.done.unwrap().permille), (ConversionState::Filling, 0));
    assert_eq!((conversion.who.as_str(), conversion.share_permille, &conversion.share_by), ("ops@db1", 500, &None));
    assert_eq!((begun.runs[1].run.as_str(), begun.runs[1].lag_records), ("shadow", 2 * 600));
    assert_eq!(begun.runs[0], before.runs[0], "live is what it was");

    // Half of the 510 s that are to be there, in steps, so that its pace is seen.
    for step in 1..=3 {
        world.live_through(1);
        let looked = beside(&mut world, runs, BEGAN_MS + step * 85 * SECOND_MS);
        let to_be_there_ms = (600 + step - 90) * SECOND_MS;
        let done = looked.conversion.as_ref().unwrap().done.unwrap();
        assert_eq!((done.log_done_ms, done.log_ms), (step * 85 * SECOND_MS, to_be_there_ms));
        assert_eq!(i64::from(done.permille), step * 85_000_000 / to_be_there_ms);
        assert_eq!(looked.runs[1].lag_records, 2 * (600 + step - step * 85));
    }
    let filling = world.look().conversion.unwrap();
    // 258 s at 85 a second while one comes.
    let Some(Eta::Between { earliest_ms, latest_ms }) = filling.eta else { panic!("{filling:?}") };
    let said_ms = world.clock.now_ms() + 3_071;
    assert!(earliest_ms <= said_ms && said_ms <= latest_ms, "{} {}", earliest_ms - said_ms, latest_ms - said_ms);
    assert!(filling.sentence.contains("49 % done, about 1 min. Nothing changes until"), "{}", filling.sentence);

    world.live_through(4);
    let caught_up_ms = world.clock.now_ms() - 95 * SECOND_MS;
    let caught_up = beside(&mut world, runs, caught_up_ms);
    assert_eq!(state(&caught_up), Some(ConversionState::CaughtUp));
    let attempt = world.clock.now_ms();
    world.say(Action::Verified { id: 7, attempt, closed_ms: caught_up_ms, differing: 3, known: 0 });
    let differs = ConversionState::Differs { at_ms: attempt, differing: 3 };
    assert_eq!(state(&beside(&mut world, runs, caught_up_ms)), Some(differs));
    world.say(Action::Verified { id: 7, attempt, closed_ms: caught_up_ms, differing: 0, known: 0 });
    let verified = ConversionState::Verified { at_ms: attempt };
    assert_eq!(state(&beside(&mut world, runs, caught_up_ms)), Some(verified));
}

#[test]
fn what_readers_see_does_not_go_on_past_a_swap_that_is_ordered_nor_back_when_it_comes() {
    let mut world = World::new(BEGAN_MS);
    world.convert(7, BEGAN_MS);
    world.live_through(600);
    let at_ms = BEGAN_MS + 9 * MINUTE_MS;
    let runs = ["live", "v2-live"];
    beside(&mut world, runs, at_ms - 30 * SECOND_MS);
    world.say(Action::Show { id: 8, generation: Some(2), at_ms, hold_ms: 60 * MINUTE_MS });
    let mut through_ms = 0;
    let mut see = |looked: &Snapshot| {
        let seen_ms = looked.complete_through_ms().unwrap();
        assert!(seen_ms >= through_ms, "{seen_ms} after {through_ms}");
        through_ms = seen_ms;
        seen_ms
    };
    for _ in 0..3 {
        world.live_through(10);
        let shadow_ms = world.clock.now_ms() - 95 * SECOND_MS;
        let looked = beside(&mut world, runs, shadow_ms);
        assert_eq!(state(&looked), Some(ConversionState::AboutToBeShown { at_ms, back: false }));
        assert_eq!(see(&looked), at_ms.min(world.clock.now_ms() - 75 * SECOND_MS));
        assert_eq!(looked.runs[1].progress.as_ref().unwrap().complete_through_ms, Some(shadow_ms), "nobody reads it");
    }
    assert_eq!(see(&world.look()), at_ms);
    world.say(Action::NotShown { id: 8 });
    see(&beside(&mut world, runs, at_ms));

    let at_ms = world.clock.now_ms() - 75 * SECOND_MS;
    world.say(Action::Show { id: 9, generation: Some(2), at_ms, hold_ms: 60 * MINUTE_MS });
    see(&beside(&mut world, runs, at_ms));
    world.live_through(10);
    world.say(Action::Shown { id: 9 });
    let since_ms = world.clock.now_ms();
    // Now `live` is what was beside, with the windows of its version, and what was live is kept.
    let held = beside(&mut world, ["v2-live", "live"], at_ms);
    assert_eq!(see(&held), world.clock.now_ms() - 75 * SECOND_MS);
    assert_eq!(held.due_ms, 90 * SECOND_MS);
    let until_ms = since_ms + 60 * MINUTE_MS;
    assert_eq!(state(&held), Some(ConversionState::Held { since_ms, until_ms }));
    assert_eq!(held.runs[1].run, "shadow");
    assert_eq!(held.runs[1].progress.as_ref().unwrap().complete_through_ms, Some(at_ms));
    assert_eq!(held.conversion.as_ref().unwrap().done, None, "there is nothing more to do");

    world.say(Action::Drop { id: 10, generation: None });
    let dropping = beside(&mut world, ["v2-live", "live"], at_ms);
    assert_eq!((state(&dropping), dropping.runs.len()), (Some(ConversionState::Dropping { swapped: true }), 1));
    assert_eq!(dropping.conversions[0].over_ms, None);
    world.say(Action::Dropped { generation: None });
    let over = beside(&mut world, ["v2-live", "live"], at_ms);
    assert_eq!((state(&over), over.conversions[0].over_ms), (None, Some(world.clock.now_ms())));
    let steps: Vec<_> = over.conversions[0].steps.iter().map(|step| step.text.as_str()).collect();
    expect_test::expect![[r#"
        Its computation has begun, beside the present statistics, which stay as they are.
        It is shown. The one before is kept for a while.
        It is over: the one before was taken away."#]]
    .assert_eq(&steps.join("\n"));
}

#[test]
fn a_pause_of_what_runs_beside_is_said_of_the_conversion_and_is_no_maintenance_of_the_statistics() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(300);
    world.convert(7, BEGAN_MS);
    beside(&mut world, ["live", "v2-live"], BEGAN_MS + MINUTE_MS);
    world.pause("v2-live", 8, None, BEGAN_MS + MINUTE_MS);
    world.live_through(600);
    let paused = beside(&mut world, ["live", "v2-live"], BEGAN_MS + MINUTE_MS);
    let conversion = paused.conversion.as_ref().unwrap();
    assert_eq!(
        (conversion.state, conversion.eta, conversion.waits_for.as_ref()),
        (ConversionState::Filling, None, None)
    );
    assert_eq!(conversion.paused.as_ref().unwrap().reason, "a disk");
    expect_test::expect!["A better version of the statistics is being computed beside the present ones: 7 % done. That is paused (a disk). Nothing changes until it is proved equal."].assert_eq(&conversion.sentence);
    assert_eq!(paused.maintenances, []);
    world.say(Action::Resume { run: "v2-live".into(), id: 9, left_to_ms: None });
    world.say(Action::Throttle { run: "v2-live".into(), id: 10, permille: 250 });
    let goes_on = beside(&mut world, ["live", "v2-live"], BEGAN_MS + MINUTE_MS).conversion.unwrap();
    assert_eq!((goes_on.paused, goes_on.share_permille), (None, 250));
    assert_eq!(goes_on.share_by.unwrap().who, "ops@db1");
}

#[test]
fn imports_are_part_of_the_work_by_their_records_and_shown_until_they_are_done() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(600);
    let (id, topic) = ("i1".to_owned(), "weir.import.i1");
    let import = Import { id: id.clone(), site: "old.example".into(), files: Vec::new() };
    world.log.create_topic(topic, &TopicKind::Import { partitions: 2 }).unwrap();
    for _ in 0..300 {
        for partition in 0..2 {
            let hits = Bytes::from_static(b"hits");
            futures::executor::block_on(world.log.append(topic, partition, hits, Some(BEGAN_MS))).unwrap();
        }
    }
    world.say(Action::ImportBegun { import });
    world.say(Action::ImportWritten { id, events: 9_000, partitions: 2, first_ms: 0, last_ms: 1 });
    let ended = || RunProgress { ended: true, complete_through_ms: Some(1), ..RunProgress::default() };
    world.tell("import-i1", topic, 300, ended());
    world.convert(7, BEGAN_MS);
    let through_ms = world.clock.now_ms() - 90 * SECOND_MS;
    let roles = |looked: &Snapshot| looked.runs.iter().map(|run| run.run.clone()).collect::<Vec<_>>().join(" ");
    let begun = beside(&mut world, ["live", "v2-live"], through_ms);
    assert_eq!(roles(&begun), "live import-i1 shadow shadow-import-i1");
    let done = begun.conversion.as_ref().unwrap().done.unwrap();
    // 1,200 live records are done, and 600 of the import are not.
    assert_eq!((done.import_records_done, done.import_records, done.permille), (0, 600, 666));
    assert_eq!(state(&begun), Some(ConversionState::Filling));
    world.tell("v2-import-i1", topic, 150, RunProgress::default());
    let half = beside(&mut world, ["live", "v2-live"], through_ms).conversion.unwrap().done.unwrap();
    assert_eq!((half.import_records_done, half.permille), (300, 833));
    world.tell("v2-import-i1", topic, 300, ended());
    for _ in 0..2 {
        let all = beside(&mut world, ["live", "v2-live"], through_ms);
        assert_eq!(roles(&all), "live import-i1 shadow");
        assert_eq!(
            (state(&all), all.conversion.unwrap().done.unwrap().permille),
            (Some(ConversionState::CaughtUp), 1_000)
        );
    }
    // What was done is told of the run that has the role now.
    world.swap(8, through_ms, 60 * MINUTE_MS);
    let swapped = beside(&mut world, ["v2-live", "live"], through_ms);
    assert_eq!(roles(&swapped), "live import-i1 shadow");
}

/// Somebody starts to fill this generation, which has from the one in use what came in the day before `from_ms`.
fn carrying(id: i64, generation: u32, from_ms: i64) -> Action {
    let carried = Carried { from_ms: from_ms - 24 * 60 * MINUTE_MS, width_ms: MINUTE_MS, lateness_ms: 10 * SECOND_MS };
    let version = SchemaVersion::builtin_text(2).unwrap().to_owned();
    Action::ConversionStarted { id, generation, version, from_ms, carried: Some(carried) }
}

#[test]
fn what_is_carried_over_is_shown_until_it_is_done_and_before_that_nothing_has_caught_up() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(600);
    world.say(carrying(7, 2, BEGAN_MS));
    let through_ms = world.clock.now_ms() - 90 * SECOND_MS;
    let roles = |looked: &Snapshot| looked.runs.iter().map(|run| run.run.clone()).collect::<Vec<_>>().join(" ");
    let begun = beside(&mut world, ["live", "v2-live"], through_ms);
    assert_eq!((roles(&begun).as_str(), state(&begun)), ("live shadow shadow-carried", Some(ConversionState::Filling)));
    let stopped = Some("its table was altered".to_owned());
    world.tell("v2-carried", EVENTS_TOPIC, 0, RunProgress { stopped, ..RunProgress::default() });
    let stopped = beside(&mut world, ["live", "v2-live"], through_ms);
    let carried = stopped.runs.iter().find(|run| run.run == "shadow-carried").unwrap();
    assert_eq!((carried.lag_records, carried.lag_ms), (0, 0), "it reads nothing of the log");
    let conversion = stopped.conversion.unwrap();
    assert_eq!(conversion.stopped.as_deref(), Some("shadow-carried: its table was altered"));
    world.tell("v2-carried", EVENTS_TOPIC, 0, RunProgress { ended: true, ..RunProgress::default() });
    let done = beside(&mut world, ["live", "v2-live"], through_ms);
    assert_eq!((roles(&done).as_str(), state(&done)), ("live shadow", Some(ConversionState::CaughtUp)));
}

#[test]
fn what_was_carried_over_is_watched_after_the_swap_until_it_has_ended() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(600);
    world.say(carrying(7, 2, BEGAN_MS));
    world.swap(8, world.clock.now_ms() - 90 * SECOND_MS, 60 * MINUTE_MS);
    let roles = |looked: &Snapshot| looked.runs.iter().map(|run| run.run.clone()).collect::<Vec<_>>().join(" ");
    let look = |world: &mut World, progress: RunProgress| {
        world.tell("v2-carried", EVENTS_TOPIC, 0, progress);
        let (now_ms, read) = (world.clock.now_ms(), (world.clock.now_ms() - BEGAN_MS) / SECOND_MS);
        for run in ["v2-live", "live"] {
            world.report(run, read, now_ms - 75 * SECOND_MS);
        }
        let looked = world.look();
        let (mut all, _) = troubles(&looked, Held::default());
        let text = render(&Memory::default().view(looked.clone()));
        (looked, all.pop().map(|trouble| (trouble.kind, trouble.run, trouble.sentence)), text)
    };
    // Somebody has ordered to compare with the table before once more: so far half of it is done.
    let half_ms = BEGAN_MS - 12 * 60 * MINUTE_MS;
    let half = || RunProgress { complete_through_ms: Some(half_ms), ..RunProgress::default() };
    let (behind, trouble, text) = look(&mut world, half());
    assert_eq!((roles(&behind).as_str(), trouble), ("live carried shadow", None));
    let carried = &behind.runs[1];
    assert_eq!((carried.lag_records, carried.lag_ms, carried.eta), (0, 0, Some(Eta::Unknown)), "nothing of the log");
    assert!(text.contains("\ncarried: complete through 2026-11-27 00:00:00 UTC"), "{text}");
    let waiting = Waiting { since_ms: world.clock.now_ms() - MINUTE_MS, reason: "clickhouse does not answer".into() };
    let (_, trouble, text) = look(&mut world, RunProgress { waiting: Some(waiting), ..half() });
    assert_eq!(trouble, None);
    assert!(text.contains("  WAITING for 1m · clickhouse does not answer"), "{text}");

    let stops = || RunProgress { stopped: Some("rows differ".into()), ..half() };
    let (stopped, trouble, text) = look(&mut world, stops());
    let sentence =
        "Statistics of earlier days, as the version before counted them, stand still until an operator has looked.";
    assert_eq!(trouble, Some((Kind::Stopped, Some("carried".into()), sentence.into())));
    assert_eq!(stopped.conversion.unwrap().stopped, None, "it is none of the run that is held");
    assert!(text.contains("\ncarried: STOPPED · rows differ"), "{text}");

    let ends = || RunProgress { ended: true, complete_through_ms: Some(BEGAN_MS), ..RunProgress::default() };
    let (ended, trouble, _) = look(&mut world, ends());
    assert_eq!((roles(&ended).as_str(), trouble), ("live shadow", None));
    // What the audit finds later, long after the table before is gone.
    world.say(Action::Drop { id: 9, generation: None });
    world.say(Action::Dropped { generation: None });
    world.live_through(61);
    let (again, trouble, _) = look(&mut world, stops());
    assert_eq!((roles(&again).as_str(), trouble.map(|(kind, ..)| kind)), ("live carried", Some(Kind::Stopped)));
}

/// Minutes after [`BEGAN_MS`] that are missing in the run of this role, as `from-to`.
fn missing(looked: &Snapshot, role: &str) -> String {
    let run = looked.runs.iter().find(|run| run.run == role).unwrap();
    let minute = |ms: i64| (ms - BEGAN_MS) / MINUTE_MS;
    let named = run.missing.iter().map(|one| format!("{}-{}", minute(one.from_ms), minute(one.to_ms)));
    named.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_missing_before_the_seam_stays_named_whichever_table_is_in_use_and_which_of_them_are_gone() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(600);
    let at = |minute: i64| BEGAN_MS + minute * MINUTE_MS;
    let recover = |run: &str, id, repair| Action::Recover { run: run.into(), id, repair, topic_is: None };
    let give_up = |run, id, from, to| recover(run, id, Repair::GiveUp { from_ms: at(from), to_ms: at(to) });
    let verified = |id| Action::Verified { id, attempt: id, closed_ms: at(60), differing: 0, known: 0 };
    world.say(give_up("live", 1, 3, 4));
    world.say(give_up("gap", 2, 1, 2));
    world.say(carrying(7, 2, at(20)));
    world.say(give_up("v2-live", 8, 30, 31));
    // Before that was carried over; of what lies beyond the seam the new table has no need of the old one.
    world.say(give_up("live", 9, 18, 22));
    let begun = world.look();
    assert_eq!(
        (missing(&begun, "live"), missing(&begun, "shadow")),
        ("1-2 3-4 18-22".into(), "1-2 3-4 18-20 30-31".into())
    );
    world.say(verified(7));
    world.swap(10, at(8), 60 * MINUTE_MS);
    // The new table has these.
    world.say(give_up("live", 11, 10, 12));
    let swapped = world.look();
    assert_eq!(missing(&swapped, "live"), "1-2 3-4 18-20 30-31");
    assert_eq!(missing(&swapped, "shadow"), "1-2 3-4 10-12 18-22");
    let told: Vec<_> = Memory::default().view(swapped).missing.iter().map(|one| one.from_ms).collect();
    assert_eq!(told, [at(1), at(3), at(18), at(30)], "the page names the same");
    // But not when it is to be as the one before from there on once more.
    world.say(recover("v2-carried", 12, Repair::AskAgain { from_ms: at(11) }));
    assert_eq!(missing(&world.look(), "live"), "1-2 3-4 11-12 18-20 30-31");
    world.say(give_up("v2-carried", 13, 5, 6));
    world.say(recover("v2-live", 14, Repair::AskAgain { from_ms: at(20) }));
    assert_eq!(
        missing(&world.look(), "live"),
        "1-2 3-4 5-6 11-12 18-20",
        "live does not compute what lies before the seam"
    );

    world.say(Action::Drop { id: 15, generation: None });
    world.say(Action::Dropped { generation: None });
    assert_eq!(missing(&world.look(), "live"), "1-2 3-4 5-6 11-12 18-20");
    // And once more, to another seam.
    world.say(carrying(20, 3, at(6)));
    world.say(verified(20));
    world.say(Action::Show { id: 21, generation: Some(3), at_ms: at(8), hold_ms: 60 * MINUTE_MS });
    world.say(Action::Shown { id: 21 });
    world.say(Action::Drop { id: 22, generation: Some(2) });
    world.say(Action::Dropped { generation: Some(2) });
    assert_eq!(missing(&world.look(), "live"), "1-2 3-4 5-6");
}

#[test]
fn what_was_missing_is_computed_by_a_conversion_that_has_all_from_the_log() {
    let mut world = World::new(BEGAN_MS);
    world.live_through(600);
    let repair = Repair::GiveUp { from_ms: BEGAN_MS, to_ms: BEGAN_MS + MINUTE_MS };
    world.say(Action::Recover { run: "live".into(), id: 1, repair, topic_is: None });
    world.convert(7, BEGAN_MS);
    world.swap(8, BEGAN_MS + 8 * MINUTE_MS, 60 * MINUTE_MS);
    let swapped = world.look();
    assert_eq!((missing(&swapped, "live"), missing(&swapped, "shadow")), (String::new(), "0-1".into()));
}
