//! Snapshots in which each thing that can be said is so, at 14:04:20 UTC of one day.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod world;

use std::sync::{LazyLock, atomic::Ordering};

use weir_console::{
    Computing, DiskStatus, Eta, ImportState, ImportStatus, Maintenance, MaintenanceState, Part, PartitionStatus,
    PausedStatus, Rates, Recovery, Replacing, RunStatus, Snapshot, SpoolStatus,
};
use weir_schemas::{
    Fault, Missing, Repair,
    control::{Action, EtaKept},
    progress::{RunProgress, Waiting},
};
use world::World;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// 2026-11-27 14:04:20 UTC.
pub(crate) const NOW_MS: i64 = 1_795_788_260_000;
/// 14:00:00 of that day.
const AT_14_MS: i64 = NOW_MS - 260_000;

/// What somebody could write who wishes us ill, or is careless.
pub(crate) const HOSTILE: &str =
    "<script>window.hurt = 1</script><img src=x onerror=\"window.hurt=1\">\r\n'&amp; \u{1}\"";

pub(crate) fn all() -> Vec<(&'static str, Snapshot)> {
    vec![
        ("on time", on_time()),
        ("nothing yet", nothing_yet()),
        ("planned", planned()),
        ("paused", paused()),
        ("paused and told until when", paused_until()),
        ("paused for the first time", paused_first()),
        ("paused and ClickHouse away", paused_without_clickhouse()),
        ("catching up", catching_up()),
        ("filling", filling()),
        ("not converging", not_converging()),
        ("late", late()),
        ("silent", silent()),
        ("stopped", stopped(None)),
        ("lost", stopped(Some(Fault::LogCut { topic: "weir.events".into(), partition: 0, start: 9, from_ms: 0 }))),
        ("topic gone", topic_gone()),
        ("retention low", retention_low()),
        ("spooling", spooling(1_000)),
        ("spool full", spooling(900_000)),
        ("spool unreadable", spool_unreadable()),
        ("log away", Snapshot::without_log(NOW_MS, "no answer within 2 s".into())),
        ("disk full", disk_full()),
        ("queries fail", queries_fail()),
        ("collection fails", collection_fails()),
        ("missing", missing()),
        ("replacing", replacing()),
        ("a control record set aside", control_unreadable()),
        ("an import is paused", import_paused()),
        ("converting", converting()),
        ("a conversion stands", conversion_stands()),
        ("held", held()),
    ]
}

fn progress(through_ms: i64) -> RunProgress {
    RunProgress {
        at_ms: NOW_MS - 300,
        complete_through_ms: Some(through_ms),
        watermark_ms: Some(through_ms + 7_000),
        held_by: Some(0),
        windows_open: 1,
        events_read: 1_234_567,
        events_late: 89,
        rows_done: 345_678,
        ..RunProgress::default()
    }
}

fn run(name: &str, through_ms: i64) -> RunStatus {
    let partition = |partition| PartitionStatus {
        partition,
        offset: Some(1_000),
        end: 1_003,
        arrival_ms: Some(NOW_MS - 1_000),
        lag_records: 3,
        lag_ms: 1_000,
        rates: None,
    };
    RunStatus {
        run: name.into(),
        topic: "weir.events".into(),
        progress: Some(progress(through_ms)),
        lag_records: 6,
        lag_ms: 1_000,
        partitions: vec![partition(0), partition(1)],
        retention_headroom_ms: Some(29 * DAY_MS),
        retention_used_permille: Some(34),
        rates: Some(Rates { drain_per_s: 412.0, arrival_per_s: 411.0 }),
        ..RunStatus::default()
    }
}

pub(crate) fn on_time() -> Snapshot {
    Snapshot {
        at_ms: NOW_MS,
        window_ms: MINUTE_MS,
        due_ms: 70_000,
        began_ms: Some(NOW_MS - 5 * DAY_MS),
        retention_s: Some(30 * 86_400),
        runs: vec![run("live", NOW_MS - 20_000)],
        maintenances: vec![past_maintenance()],
        disk: Some(DiskStatus { path: "/var/lib/weir".into(), free_bytes: 200 << 30 }),
        collector: Some(Part::Up),
        clickhouse: Some(Part::Up),
        ..Snapshot::default()
    }
}

fn nothing_yet() -> Snapshot {
    let Snapshot { at_ms, window_ms, due_ms, disk, collector, clickhouse, .. } = on_time();
    Snapshot { at_ms, window_ms, due_ms, disk, collector, clickhouse, ..Snapshot::default() }
}

fn past_maintenance() -> Maintenance {
    let begins_ms = AT_14_MS - 2 * DAY_MS;
    Maintenance {
        announced_ms: begins_ms - DAY_MS,
        state: MaintenanceState::Over,
        ends_ms: Some(begins_ms + 2 * HOUR_MS),
        planned_ms: Some((begins_ms, begins_ms + 2 * HOUR_MS)),
        resumed_ms: Some(begins_ms + 100 * MINUTE_MS),
        resumed_by: Some("ops@db1".into()),
        over_ms: Some(begins_ms + 130 * MINUTE_MS),
        eta: Some(EtaKept {
            half_ms: begins_ms + 110 * MINUTE_MS,
            said_ms: begins_ms + 128 * MINUTE_MS,
            came_ms: begins_ms + 130 * MINUTE_MS,
        }),
        ..pause(begins_ms, "memory for the database")
    }
}

fn pause(begins_ms: i64, reason: &str) -> Maintenance {
    Maintenance {
        id: begins_ms,
        state: MaintenanceState::UnderWay,
        run: Some("live".into()),
        who: "ops@db1".into(),
        reason: reason.into(),
        announced_ms: begins_ms,
        begins_ms,
        ends_ms: None,
        planned_ms: None,
        paused_ms: Some(begins_ms),
        resumed_ms: None,
        resumed_by: None,
        left_to_ms: None,
        again_ms: None,
        over_ms: None,
        taken_back: false,
        given_up: false,
        eta: None,
    }
}

fn with(maintenance: Maintenance, runs: Vec<RunStatus>) -> Snapshot {
    Snapshot { maintenances: vec![maintenance, past_maintenance()], runs, ..on_time() }
}

fn planned() -> Snapshot {
    let plan = Maintenance {
        state: MaintenanceState::Planned,
        run: None,
        announced_ms: NOW_MS - HOUR_MS,
        ends_ms: Some(AT_14_MS + 22 * HOUR_MS),
        planned_ms: Some((AT_14_MS + 20 * HOUR_MS, AT_14_MS + 22 * HOUR_MS)),
        paused_ms: None,
        ..pause(AT_14_MS + 20 * HOUR_MS, "new disk")
    };
    with(plan, on_time().runs)
}

/// What is seen of a log whose live run was paused at 12:00, after hits came for 200 s and it was looked at each of them.
fn observed_pause(reason: &str, until_ms: Option<i64>) -> Snapshot {
    let paused_ms = AT_14_MS - 2 * HOUR_MS;
    let mut world = World::new(paused_ms - MINUTE_MS);
    world.live_through(60);
    world.report("live", 60, paused_ms);
    world.reason = reason.to_owned();
    world.pause("live", paused_ms, until_ms, paused_ms);
    world.clock.0.store(NOW_MS - 200_000, Ordering::Relaxed);
    let mut seen = world.look();
    for _ in 0..200 {
        world.live_through(1);
        seen = world.look();
    }
    seen.maintenances.push(past_maintenance());
    let Snapshot { disk, collector, clickhouse, .. } = on_time();
    Snapshot { disk, collector, clickhouse, ..seen }
}

pub(crate) fn paused() -> Snapshot {
    static PAUSED: LazyLock<Snapshot> = LazyLock::new(|| observed_pause("", None));
    PAUSED.clone()
}

pub(crate) fn paused_until() -> Snapshot {
    static PAUSED: LazyLock<Snapshot> = LazyLock::new(|| observed_pause("new disk", Some(AT_14_MS + HOUR_MS)));
    PAUSED.clone()
}

pub(crate) fn paused_first() -> Snapshot {
    let mut snapshot = paused_until();
    snapshot.maintenances.retain(|one| one.state != MaintenanceState::Over);
    snapshot
}

pub(crate) fn paused_without_clickhouse() -> Snapshot {
    Snapshot { clickhouse: queries_fail().clickhouse, ..paused_until() }
}

fn behind(through_ms: i64, eta: Option<Eta>) -> RunStatus {
    let rates = Some(Rates { drain_per_s: 52_345.0, arrival_per_s: 411.0 });
    RunStatus { lag_records: 2_912_345, lag_ms: NOW_MS - through_ms, eta, rates, ..run("live", through_ms) }
}

fn soon() -> Eta {
    Eta::Between { earliest_ms: AT_14_MS + 20 * MINUTE_MS, latest_ms: AT_14_MS + 26 * MINUTE_MS }
}

pub(crate) fn catching_up() -> Snapshot {
    let resumed = Maintenance {
        state: MaintenanceState::CatchingUp,
        resumed_ms: Some(AT_14_MS),
        ..pause(AT_14_MS - 2 * HOUR_MS, "new disk")
    };
    with(resumed, vec![behind(AT_14_MS - 50 * MINUTE_MS, Some(soon()))])
}

pub(crate) fn filling() -> Snapshot {
    let resumed = Maintenance {
        state: MaintenanceState::CatchingUp,
        resumed_ms: Some(AT_14_MS),
        left_to_ms: Some(AT_14_MS),
        ..pause(AT_14_MS - 2 * HOUR_MS, HOSTILE)
    };
    let gap = RunStatus { run: "gap".into(), ..behind(AT_14_MS - 90 * MINUTE_MS, Some(soon())) };
    let range = Computing { run: "gap".into(), from_ms: AT_14_MS - 90 * MINUTE_MS, to_ms: AT_14_MS };
    Snapshot { computing: vec![range], ..with(resumed, vec![run("live", NOW_MS - 20_000), gap]) }
}

fn not_converging() -> Snapshot {
    let rates = Some(Rates { drain_per_s: 380.0, arrival_per_s: 411.0 });
    let live = RunStatus { rates, ..behind(AT_14_MS - 50 * MINUTE_MS, Some(Eta::NotConverging)) };
    Snapshot { runs: vec![live], ..on_time() }
}

fn late() -> Snapshot {
    let mut live = behind(AT_14_MS - 10 * MINUTE_MS, Some(Eta::Unknown));
    let waiting = Waiting { since_ms: NOW_MS - 30_000, reason: "clickhouse does not answer".into() };
    live.progress.as_mut().unwrap().waiting = Some(waiting);
    Snapshot { runs: vec![live], ..on_time() }
}

fn silent() -> Snapshot {
    let mut live = behind(AT_14_MS - 10 * MINUTE_MS, Some(Eta::NotConverging));
    live.progress.as_mut().unwrap().at_ms = NOW_MS - 9 * MINUTE_MS;
    Snapshot { runs: vec![live], ..on_time() }
}

fn stopped(fault: Option<Fault>) -> Snapshot {
    let mut live = behind(AT_14_MS - 10 * MINUTE_MS, None);
    let progress = live.progress.as_mut().unwrap();
    (progress.stopped, progress.fault) = (Some("the table was altered".into()), fault);
    Snapshot { runs: vec![live], ..on_time() }
}

fn topic_gone() -> Snapshot {
    let live = RunStatus { run: "live".into(), topic_gone: true, ..RunStatus::default() };
    Snapshot { runs: vec![live], ..on_time() }
}

fn retention_low() -> Snapshot {
    let mut snapshot = paused_until();
    let live = &mut snapshot.runs[0];
    (live.retention_headroom_ms, live.retention_used_permille) = (Some(5 * HOUR_MS), Some(994));
    snapshot
}

fn spooling(bytes: u64) -> Snapshot {
    let spool =
        SpoolStatus { bytes, bytes_max: 1_000_000, batches: 9, oldest_ms: Some(NOW_MS - 90_000), age_ms: 90_000 };
    let mut snapshot = Snapshot::without_log(NOW_MS, "no answer within 2 s".into());
    (snapshot.spool, snapshot.collector) = (Some(spool), Some(Part::Up));
    snapshot
}

fn spool_unreadable() -> Snapshot {
    Snapshot { spool_unreadable: Some("/var/lib/weir/spool: permission denied".into()), ..on_time() }
}

fn control_unreadable() -> Snapshot {
    Snapshot { control_unreadable: 1, ..on_time() }
}

fn disk_full() -> Snapshot {
    Snapshot { disk: Some(DiskStatus { path: "/var/lib/weir".into(), free_bytes: 300 << 20 }), ..on_time() }
}

fn queries_fail() -> Snapshot {
    Snapshot { clickhouse: Some(Part::Down { reason: "no answer".into() }), ..on_time() }
}

pub(crate) fn collection_fails() -> Snapshot {
    Snapshot { collector: Some(Part::Down { reason: "the collector takes no hits".into() }), ..on_time() }
}

/// Some days of the strip, one before it, and what a replay of others has left open.
pub(crate) fn replacing() -> Snapshot {
    let today = NOW_MS / DAY_MS;
    let of = |days: &[i64], reason: &str| Replacing {
        since_ms: NOW_MS - HOUR_MS,
        who: "ops@db1".into(),
        reason: reason.into(),
        days: days.to_vec(),
    };
    let replacing = vec![of(&[today - 9, today - 3, today - 2], "rows deleted by hand"), of(&[today - 5], HOSTILE)];
    Snapshot { replacing, ..on_time() }
}

pub(crate) fn missing() -> Snapshot {
    let (from_ms, to_ms) = (AT_14_MS - 30 * HOUR_MS, AT_14_MS - 29 * HOUR_MS);
    let (at_ms, who, reason) = (to_ms + HOUR_MS, "ops@db1".to_owned(), "two disks were lost".to_owned());
    let recovery = Recovery {
        run: "live".into(),
        id: at_ms,
        repair: Repair::GiveUp { from_ms, to_ms },
        at_ms,
        who: who.clone(),
        reason: reason.clone(),
        done_ms: Some(at_ms + MINUTE_MS),
        copy: None,
    };
    let mut snapshot = Snapshot { recoveries: vec![recovery], ..on_time() };
    snapshot.runs[0].missing = vec![Missing { from_ms, to_ms, at_ms, who, reason }];
    snapshot
}

fn import_paused() -> Snapshot {
    let since_ms = AT_14_MS - 2 * HOUR_MS;
    let pause = Maintenance { run: Some("import-i1".into()), ..pause(since_ms, "too much at once") };
    let paused = PausedStatus {
        since_ms,
        who: pause.who.clone(),
        reason: pause.reason.clone(),
        until_ms: None,
        through_ms: Some(since_ms),
    };
    let import = RunStatus {
        paused: Some(paused),
        retention_headroom_ms: None,
        retention_used_permille: None,
        ..run("import-i1", since_ms)
    };
    let imports =
        vec![ImportStatus { id: "i1".into(), site: "old.example".into(), state: ImportState::Counting, events: 7_000 }];
    let runs = on_time().runs.into_iter().chain([import]).collect();
    Snapshot { imports, ..with(pause, runs) }
}

/// An hour of hits, of which generation 2 has got not quite a half since 14:00, looked at every ten seconds.
fn observed_conversion(stopped: Option<&str>) -> Snapshot {
    let mut world = World::new(AT_14_MS - HOUR_MS);
    for _ in 0..120 {
        world.clock.0.fetch_add(29_000, Ordering::Relaxed);
        world.live_through(1);
    }
    world.reason = "newer lists of bots".into();
    world.convert(AT_14_MS, AT_14_MS - HOUR_MS);
    let mut seen = world.look();
    for step in 1..=26 {
        world.clock.0.fetch_add(9_000, Ordering::Relaxed);
        world.live_through(1);
        let now_ms = AT_14_MS + step * 10_000;
        world.report("live", 120 + step, now_ms - 20_000);
        world.tell(
            "v2-live",
            "weir.events",
            3 * step,
            RunProgress {
                complete_through_ms: Some(AT_14_MS - HOUR_MS + step * MINUTE_MS),
                stopped: stopped.map(str::to_owned),
                fault: stopped.map(|_| Fault::LogCut {
                    topic: "weir.events".into(),
                    partition: 0,
                    start: 9,
                    from_ms: 0,
                }),
                ..RunProgress::default()
            },
        );
        seen = world.look();
    }
    with_parts(seen)
}

fn with_parts(seen: Snapshot) -> Snapshot {
    let Snapshot { disk, collector, clickhouse, .. } = on_time();
    Snapshot { disk, collector, clickhouse, ..seen }
}

pub(crate) fn converting() -> Snapshot {
    static CONVERTING: LazyLock<Snapshot> = LazyLock::new(|| observed_conversion(None));
    CONVERTING.clone()
}

pub(crate) fn conversion_stands() -> Snapshot {
    static STANDS: LazyLock<Snapshot> = LazyLock::new(|| observed_conversion(Some("the log lacks what it needs")));
    STANDS.clone()
}

pub(crate) fn held() -> Snapshot {
    static HELD: LazyLock<Snapshot> = LazyLock::new(|| {
        let began_ms = AT_14_MS - 3 * HOUR_MS;
        let mut world = World::new(began_ms);
        world.live_through(60);
        world.reason = HOSTILE.into();
        world.convert(began_ms, began_ms);
        world.clock.0.store(AT_14_MS - 2 * HOUR_MS, Ordering::Relaxed);
        let attempt = AT_14_MS - 2 * HOUR_MS;
        world.say(Action::Verified { id: began_ms, attempt, closed_ms: attempt, differing: 0, known: 0 });
        world.clock.0.store(AT_14_MS - HOUR_MS, Ordering::Relaxed);
        world.swap(attempt, AT_14_MS - HOUR_MS, DAY_MS);
        world.clock.0.store(NOW_MS, Ordering::Relaxed);
        for run in ["live", "v2-live"] {
            world.report(run, 60, NOW_MS - 20_000);
        }
        with_parts(world.look())
    });
    HELD.clone()
}
