//! The colour, and the sentence that a user of the statistics reads.

mod states;

use std::collections::BTreeSet;

use expect_test::expect;
use proptest::prelude::*;
use weir_console::{
    Colour, Component, DiskStatus, Held, Kind, Memory, Part, Snapshot, SpoolStatus, light, render, troubles,
};
use weir_schemas::progress::RunProgress;

fn kinds(snapshot: &Snapshot, before: Held) -> Vec<Kind> {
    troubles(snapshot, before).0.into_iter().map(|trouble| trouble.kind).collect()
}

#[test]
fn each_state_has_its_colour_and_a_sentence_that_a_user_understands() {
    let mut said = String::new();
    for (name, snapshot) in states::all() {
        let (colour, sentence) = light(&troubles(&snapshot, Held::default()).0, &snapshot);
        said.push_str(&format!("{name}: {colour:?} · {}\n", sentence.replace(states::HOSTILE, "…")));
    }
    expect![[r#"
        on time: Green · Statistics are complete through 14:04 UTC. Everything is collected.
        nothing yet: Green · Everything is collected. No statistics were computed yet.
        planned: Green · Statistics are complete through 14:04 UTC. Everything is collected. Maintenance is planned from 2026-11-28 10:00 UTC until 2026-11-28 12:00 UTC (new disk).
        paused: Yellow · Paused for maintenance since 12:00 UTC: hits are collected, statistics after 12:00 UTC come later.
        paused and told until when: Yellow · Paused for maintenance since 12:00 UTC (new disk), planned until 15:00 UTC: hits are collected, statistics after 12:00 UTC come later. They are computed from 15:00 UTC on, and will be ready at about 15:54 UTC, if it goes as fast as the last time.
        paused for the first time: Yellow · Paused for maintenance since 12:00 UTC (new disk), planned until 15:00 UTC: hits are collected, statistics after 12:00 UTC come later. They are computed from 15:00 UTC on; how long that takes is not known yet.
        paused and ClickHouse away: Yellow · Paused for maintenance since 12:00 UTC (new disk), planned until 15:00 UTC: hits are collected, statistics after 12:00 UTC come later. They are computed from 15:00 UTC on, and will be ready at about 15:54 UTC, if it goes as fast as the last time. Statistics cannot be queried meanwhile.
        catching up: Yellow · Catching up after maintenance: hits are collected, statistics are complete through 13:10 UTC. They will be ready between 14:20 and 14:26 UTC.
        filling: Yellow · Statistics from 14:00 UTC on are up to date; those from 12:30 UTC to 14:00 UTC are still being computed. They will be ready between 14:20 and 14:26 UTC.
        not converging: Yellow · Statistics are late: they are complete through 13:10 UTC. They fall further behind. Hits are collected, nothing is lost.
        late: Yellow · Statistics are late: they are complete through 13:50 UTC. Hits are collected, nothing is lost.
        silent: Yellow · No statistics are computed at the moment: they are complete through 13:50 UTC. Hits are collected, nothing is lost.
        stopped: Yellow · Statistics stand still until an operator has looked. Hits are collected, nothing is lost.
        lost: Red · Statistics stand still: hits that were not counted yet are gone, an operator must look. New hits are collected.
        topic gone: Red · Statistics stand still: hits that were not counted yet are gone, an operator must look. New hits are collected.
        retention low: Red · Hits that are not counted yet are deleted in 5h, unless statistics go on before.
        spooling: Yellow · Hits are collected, and wait until the log is back: statistics come later.
        spool full: Red · Hits are still collected, but the room in which hits wait is nearly used up.
        spool unreadable: Red · What hits wait in on this machine cannot be read: an operator must look.
        log away: Red · The log that keeps hits does not answer: nobody can say whether hits are collected.
        disk full: Red · Hits are still collected, but the disk is nearly full.
        queries fail: Yellow · Statistics cannot be queried at the moment. Hits are collected, nothing is lost.
        collection fails: Red · Hits are not collected at the moment: those that cannot be sent again are lost.
        missing: Green · Statistics are complete through 14:04 UTC. Everything is collected.
        replacing: Green · Statistics are complete through 14:04 UTC. Everything is collected.
        a control record set aside: Green · Statistics are complete through 14:04 UTC. Everything is collected.
        an import is paused: Yellow · Counting import-i1 is paused since 12:00 UTC (too much at once). Everything is collected.
        converting: Green · Statistics are complete through 14:04 UTC. Everything is collected.
        a conversion stands: Green · Statistics are complete through 14:04 UTC. Everything is collected.
        held: Green · Statistics are complete through 14:04 UTC. Everything is collected.
    "#]].assert_eq(&said);
}

#[test]
fn an_operator_reads_the_same_and_who_decided_what() {
    let shown = |name: &str| {
        let (_, snapshot) = states::all().into_iter().find(|(state, _)| *state == name).unwrap();
        render(&Memory::default().view(snapshot))
    };
    expect![[r#"
        YELLOW: Paused for maintenance since 12:00 UTC (new disk), planned until 15:00 UTC: hits are collected, statistics after 12:00 UTC come later. They are computed from 15:00 UTC on, and will be ready at about 15:54 UTC, if it goes as fast as the last time.
        live: PAUSED · complete through 2026-11-27 12:00:00 UTC · for 2h 4m by ops@db1 until 2026-11-27 15:00:00 UTC "new disk" · 400 records to go
          watermark unknown yet
          0 events read, 0 of them late · 0 rows written
          partition 0: 200 records to go, 2h 4m behind · 0 records/s read, 1/s come
          partition 1: 200 records to go, 2h 4m behind · 0 records/s read, 1/s come
          the log keeps what this run still needs for another 29days 21h
        maintenance 1795780800000: live is paused since 2026-11-27 12:00:00 UTC until 2026-11-27 15:00:00 UTC, by ops@db1: new disk"#]].assert_eq(&shown("paused and told until when"));
    expect![[r#"
        YELLOW: Catching up after maintenance: hits are collected, statistics are complete through 13:10 UTC. They will be ready between 14:20 and 14:26 UTC.
        live: complete through 2026-11-27 13:10:00 UTC, 54m 20s ago · 1 window open · 2912345 records to go
          watermark 2026-11-27 13:10:07 UTC (partition 0 holds it back, with 3 records to go)
          1234567 events read, 89 of them late · 345678 rows written
          partition 0: 3 records to go, 1s behind
          partition 1: 3 records to go, 1s behind
          caught up in 15m 40s to 21m 40s, between 2026-11-27 14:20:00 UTC and 2026-11-27 14:26:00 UTC · 52345 records/s read, 411/s come
          the log keeps what this run still needs for another 29days
        maintenance 1795780800000: live catches up since 2026-11-27 14:00:00 UTC, by ops@db1: new disk"#]].assert_eq(&shown("catching up"));
    expect![[r#"
        GREEN: Statistics are complete through 14:04 UTC. Everything is collected.
          A better version of the statistics is being computed beside the present ones: 41 % done, about 5 to 8 min. Nothing changes until it is proved equal.
        live: complete through 2026-11-27 14:04:00 UTC, 20s ago · 0 windows open · 0 records to go
          watermark unknown yet
          0 events read, 0 of them late · 0 rows written
          the log keeps what this run still needs for another 29days 23h
        shadow: complete through 2026-11-27 13:26:00 UTC, 38m 20s ago · 0 windows open · 136 records to go
          watermark unknown yet
          0 events read, 0 of them late · 0 rows written
          partition 0: 68 records to go, 1h 3m behind · 0 records/s read, 0/s come
          partition 1: 68 records to go, 1h 3m behind · 0 records/s read, 0/s come
          caught up in 4m 59s to 7m 24s, between 2026-11-27 14:09:19 UTC and 2026-11-27 14:11:44 UTC · 1 records/s read, 0/s come
          the log keeps what this run still needs for another 29days 23h
        conversion: generation 2: is being filled · started 2026-11-27 14:00:00 UTC by ops@db1 "newer lists of bots"
          41 % done: 26m of 1h 2m of the log, from 2026-11-27 13:00:00 UTC on
          works 50 % of the time at most, as all that runs beside live (`weir throttle shadow` sets it)"#]].assert_eq(&shown("converting"));
    let conversion = |text: String| {
        let is_of_it =
            |line: &&str| ["  A better", "  STOPPED", "conversion"].iter().any(|begin| line.starts_with(begin));
        text.lines().filter(is_of_it).collect::<Vec<_>>().join("\n").replace(states::HOSTILE, "…")
    };
    expect![[r#"
          A better version of the statistics is being computed beside the present ones: 41 % done. That stands still until an operator has looked. The present statistics go on. Nothing changes until it is proved equal.
        conversion: generation 2: is being filled · started 2026-11-27 14:00:00 UTC by ops@db1 "newer lists of bots"
          STOPPED · shadow: the log lacks what it needs (the statistics in use go on)"#]].assert_eq(&conversion(shown("a conversion stands")));
    expect![[r#"
          A better version of the statistics is shown since 13:00 UTC. The one before is kept until 2026-11-28 13:00 UTC, as the way back.
        conversion: generation 2: is in use since 2026-11-27 13:00:00 UTC, the one before is held until 2026-11-28 13:00:00 UTC (`weir migrate revert`) · started 2026-11-27 11:01:00 UTC by ops@db1 "<script>window.hurt = 1</script><img src=x onerror="window.hurt=1">"#]].assert_eq(&conversion(shown("held")));
    let lines = |text: String| text.lines().filter(|line| line.starts_with("maintenance")).collect::<String>();
    expect!["maintenance 1795860000000: in 19h 55m until 2026-11-28 12:00:00 UTC, by ops@db1: new disk"]
        .assert_eq(&lines(shown("planned")));
    assert_eq!(lines(shown("on time")), "", "what is over is on the page");
}

#[test]
fn every_kind_of_trouble_is_in_some_state_and_nothing_is_wrong_when_all_is_on_time() {
    let seen: BTreeSet<Kind> =
        states::all().iter().flat_map(|(_, snapshot)| kinds(snapshot, Held::default())).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), Kind::ALL);
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
    }
    assert_eq!(kinds(&states::on_time(), Held::default()), []);
}

#[test]
fn whatever_happens_beside_the_statistics_in_use_the_light_is_theirs() {
    let is_green = |snapshot: Snapshot| {
        let name = format!("{:?}", snapshot.conversion);
        let view = Memory::default().view(snapshot);
        assert_eq!((view.status, view.troubles.len(), view.incidents.len()), (Colour::Green, 0, 0), "{name}");
        assert!(view.components.iter().all(|one| one.status == weir_console::Working::Operational), "{name}");
    };
    for converting in [states::converting(), states::conversion_stands(), states::held()] {
        is_green(converting.clone());
        type Change = fn(&mut weir_console::RunStatus);
        let changes: [Change; 5] = [
            |shadow| shadow.progress.as_mut().unwrap().stopped = Some("its table was altered".into()),
            |shadow| (shadow.retention_headroom_ms, shadow.retention_used_permille) = (Some(-1), Some(1_001)),
            |shadow| shadow.eta = Some(weir_console::Eta::NotConverging),
            |shadow| shadow.progress = None,
            |shadow| shadow.progress.as_mut().unwrap().at_ms = 0,
        ];
        for change in changes {
            let mut snapshot = converting.clone();
            change(snapshot.runs.iter_mut().find(|run| run.run == "shadow").unwrap());
            is_green(snapshot);
        }
    }
    // And what happens to those in use is said as ever.
    let mut late = states::converting();
    late.runs[0].progress.as_mut().unwrap().complete_through_ms = Some(states::NOW_MS - 600_000);
    assert_eq!(kinds(&late, Held::default()), [Kind::Late]);
}

#[test]
fn the_worst_decides_and_the_rest_is_said_too() {
    let mut snapshot = states::paused();
    snapshot.collector = Some(Part::Down { reason: "no room".into() });
    assert_eq!(kinds(&snapshot, Held::default()), [Kind::CollectionFails, Kind::Paused]);
    assert_eq!(light(&troubles(&snapshot, Held::default()).0, &snapshot).0, Colour::Red);
}

#[test]
fn clickhouse_away_while_live_is_paused_is_the_maintenance_and_an_incident_only_after_it() {
    let mut memory = Memory::default();
    let mut see = |snapshot: Snapshot, after_ms: i64| {
        let view = memory.view(Snapshot { at_ms: states::NOW_MS + after_ms, ..snapshot });
        let kinds: Vec<Kind> = view.troubles.iter().map(|trouble| trouble.kind).collect();
        (kinds, view.incidents.iter().filter(|incident| incident.name == "Statistics cannot be queried").count())
    };
    let paused = || (vec![Kind::Paused, Kind::QueriesFail], 0);
    assert_eq!(see(states::paused_without_clickhouse(), 0), paused());
    assert_eq!(see(states::paused_without_clickhouse(), 600_000), paused());
    // The pause is over, and ClickHouse is not back.
    let away = Snapshot { clickhouse: states::paused_without_clickhouse().clickhouse, ..states::filling() };
    assert_eq!(see(away.clone(), 601_000).0[0], Kind::QueriesFail);
    assert_eq!(see(away, 700_000).1, 1);
    // What is red comes before the pause.
    let mut at_risk = states::paused_without_clickhouse();
    at_risk.collector = Some(Part::Down { reason: "no room".into() });
    let all = [Kind::CollectionFails, Kind::QueriesFail, Kind::Paused];
    assert_eq!(kinds(&at_risk, Held::default()), all);
}

#[test]
fn no_room_is_not_said_to_be_a_room_into_which_hits_are_still_collected() {
    for (name, mut snapshot) in states::all() {
        let full = ["spool full", "disk full", "spooling"].contains(&name);
        snapshot.collector = Some(Part::Down { reason: "the spool is full".into() });
        let all = troubles(&snapshot, Held::default()).0;
        assert_eq!(all[0].sentence, "Hits are not collected at the moment: those that cannot be sent again are lost.");
        let claims = |sentence: &str| sentence.contains("Hits are collected") || sentence.contains("still collected");
        assert!(!full || !all.iter().any(|trouble| claims(&trouble.sentence)), "{name}: {all:?}");
    }
}

#[test]
fn a_pause_that_goes_on_after_its_end_is_not_said_to_be_ready_before_now() {
    let mut snapshot = states::paused_until();
    // 17:04: it was to end at 15:00. Five hours and four minutes are behind, at four and a third a second.
    snapshot.at_ms += 3 * 3_600_000;
    let said = light(&troubles(&snapshot, Held::default()).0, &snapshot).1;
    assert!(said.contains("computed from 17:04 UTC on, and will be ready at about 18:35 UTC"), "{said}");
}

#[test]
fn the_pace_of_another_run_says_nothing_of_live() {
    let mut snapshot = states::paused_until();
    snapshot.maintenances[1].run = Some("import-i1".to_owned());
    let said = light(&troubles(&snapshot, Held::default()).0, &snapshot).1;
    assert!(said.ends_with("how long that takes is not known yet."), "{said}");
}

#[test]
fn a_paused_run_is_neither_silent_nor_late() {
    let mut snapshot = states::paused();
    snapshot.at_ms += 3_600_000;
    assert_eq!(kinds(&snapshot, Held::default()), [Kind::Paused]);
}

/// Live was last heard of so long ago, and is complete through so long ago.
fn heard_of(mut snapshot: Snapshot, heard_ms: i64, through_ms: i64) -> Snapshot {
    let progress = snapshot.runs[0].progress.as_mut().unwrap();
    progress.at_ms = snapshot.at_ms - heard_ms;
    progress.complete_through_ms = Some(snapshot.at_ms - through_ms);
    snapshot
}

#[test]
fn catching_up_hides_neither_that_nobody_computes_nor_that_the_present_is_late() {
    let all_of = |snapshot: &Snapshot| {
        let (troubles, _) = troubles(snapshot, Held::default());
        let kinds: Vec<Kind> = troubles.iter().map(|trouble| trouble.kind).collect();
        let up_to_date = troubles.iter().any(|trouble| trouble.sentence.contains("up to date"));
        (kinds, up_to_date)
    };
    const MINUTE_MS: i64 = 60_000;
    assert_eq!(all_of(&states::filling()), (vec![Kind::CatchingUp], true));
    let silent = heard_of(states::filling(), 9 * MINUTE_MS, MINUTE_MS);
    assert_eq!(all_of(&silent), (vec![Kind::Silent, Kind::CatchingUp], false));
    let starved = heard_of(states::filling(), 300, 10 * MINUTE_MS);
    assert_eq!(all_of(&starved), (vec![Kind::CatchingUp, Kind::Late], false));
    // What it has left is not its own to bring: its first window is not due yet.
    let mut begun = heard_of(states::filling(), 300, 120 * MINUTE_MS);
    begun.maintenances[0].left_to_ms = Some(begun.at_ms - MINUTE_MS);
    assert_eq!(all_of(&begun).0, [Kind::CatchingUp]);
    // What goes on in order is late until it has caught up.
    assert_eq!(all_of(&states::catching_up()), (vec![Kind::CatchingUp], false));
    let died = heard_of(states::catching_up(), 9 * MINUTE_MS, 54 * MINUTE_MS);
    assert_eq!(all_of(&died), (vec![Kind::Silent, Kind::CatchingUp], false));
    // It was told to go on five seconds ago.
    let mut begins = heard_of(states::catching_up(), 120 * MINUTE_MS, 120 * MINUTE_MS);
    begins.maintenances[0].resumed_ms = Some(begins.at_ms - 5_000);
    assert_eq!(all_of(&begins).0, [Kind::CatchingUp]);
}

/// It says that hits are taken and kept.
fn says_collected(text: &str) -> bool {
    let text = text.replace("whether hits are collected", "");
    ["its are collected", "Everything is collected", "still collected"].iter().any(|words| text.contains(words))
}

#[test]
fn of_a_collector_that_nobody_has_asked_nothing_is_said() {
    assert!(says_collected(&render(&Memory::default().view(states::on_time()))));
    for (name, mut snapshot) in states::all() {
        snapshot.collector = None;
        let view = Memory::default().view(snapshot);
        assert!(!says_collected(&render(&view)), "{name}: {}", render(&view));
        assert!(view.components.iter().all(|one| one.component != Component::Collection), "{name}");
    }
    // A spool that a collector of another time has left keeps no hit of now.
    let mut left = states::all().into_iter().find(|(name, _)| *name == "spooling").unwrap().1;
    left.collector = None;
    assert_eq!(kinds(&left, Held::default()), [Kind::LogAway]);
}

#[test]
fn over_all_pairs_of_states_no_text_says_that_hits_are_collected_and_that_they_are_not() {
    for (of_parts, parts) in states::all() {
        for (of_log, log) in states::all() {
            let Snapshot { log_away, spool, spool_unreadable, disk, collector, clickhouse, .. } = parts.clone();
            let snapshot = Snapshot { log_away, spool, spool_unreadable, disk, collector, clickhouse, ..log };
            let text = render(&Memory::default().view(snapshot));
            let denies = text.contains("are not collected") || text.contains("whether hits are collected");
            assert!(!(denies && says_collected(&text)), "{of_parts} with {of_log}: {text}");
        }
    }
}

/// A snapshot in which everything that has two limits has the given value.
fn at_limits(late_ms: i64, used_permille: u64, free_bytes: u64, headroom_permille: i64) -> Snapshot {
    let mut snapshot = states::on_time();
    let at_ms = snapshot.at_ms;
    let through_ms = at_ms - snapshot.due_ms - late_ms;
    let live = &mut snapshot.runs[0];
    live.progress = Some(RunProgress { at_ms, complete_through_ms: Some(through_ms), ..RunProgress::default() });
    live.retention_headroom_ms = Some(headroom_permille * 1_000);
    live.retention_used_permille = Some(1_000 - headroom_permille);
    snapshot.spool =
        Some(SpoolStatus { bytes: used_permille, bytes_max: 1_000, batches: 1, oldest_ms: None, age_ms: 0 });
    snapshot.disk = Some(DiskStatus { path: "/".into(), free_bytes });
    snapshot
}

const FREE_ENOUGH: u64 = 100 << 30;

/// Of the four: late, spool, disk, retention.
fn held(snapshot: &Snapshot, before: Held) -> [bool; 4] {
    let kinds = kinds(snapshot, before);
    [Kind::Late, Kind::SpoolFull, Kind::DiskFull, Kind::RetentionLow].map(|kind| kinds.contains(&kind))
}

proptest! {
    #[test]
    fn between_its_limits_what_held_holds_on_and_outside_the_past_does_not_matter(
        before in any::<[bool; 4]>(),
        late_ms in -60_000..60_000i64, used in 600..1_000u64, free_mib in 0..3_000u64, headroom in 0..400i64,
    ) {
        let past = at_limits(
            if before[0] { 60_000 } else { -60_000 },
            if before[1] { 900 } else { 0 },
            if before[2] { 0 } else { FREE_ENOUGH },
            if before[3] { 100 } else { 500 },
        );
        prop_assert_eq!(held(&past, Held::default()), before);
        let after = held(&at_limits(late_ms, used, free_mib << 20, headroom), troubles(&past, Held::default()).1);
        let expect = |begins: bool, ends: bool, before: bool| begins || (before && !ends);
        prop_assert_eq!(after[0], expect(late_ms > 30_000, late_ms <= 15_000 - 60_000, before[0]));
        prop_assert_eq!(after[1], expect(used > 800, used <= 700, before[1]));
        prop_assert_eq!(after[2], expect(free_mib < 1_024, free_mib >= 1_280, before[2]));
        prop_assert_eq!(after[3], expect(headroom < 200, headroom >= 250, before[3]));
    }
}

#[test]
fn a_light_that_only_waits_for_the_next_window_says_so() {
    let late = troubles(&at_limits(31_000, 0, FREE_ENOUGH, 500), Held::default()).1;
    let after = |late_ms| troubles(&at_limits(late_ms, 0, FREE_ENOUGH, 500), late).0;
    assert!(after(31_000)[0].sentence.starts_with("Statistics are late: "));
    assert!(after(-20_000)[0].sentence.starts_with("Statistics were late until just now: "));
    assert_eq!(after(-50_000), []);
}

#[test]
fn what_cannot_be_seen_stays_as_it_was() {
    let bad = troubles(&at_limits(60_000, 900, 0, 0), Held::default()).1;
    assert_eq!(troubles(&Snapshot { at_ms: 1, ..Snapshot::default() }, bad).1, bad);
}

#[test]
fn a_part_that_does_not_answer_once_is_not_away_and_one_that_answers_once_is_not_back() {
    let at = |snapshot: Snapshot, look: i64| Snapshot { at_ms: states::NOW_MS + look * 500, ..snapshot };
    let state = |name: &str| states::all().into_iter().find(|(state, _)| *state == name).unwrap().1;
    let mut log_away = state("log away");
    (log_away.collector, log_away.clickhouse) = (Some(Part::Up), Some(Part::Up));
    for (bad, kind) in [
        (log_away, Kind::LogAway),
        (state("queries fail"), Kind::QueriesFail),
        (state("collection fails"), Kind::CollectionFails),
    ] {
        let mut memory = Memory::default();
        let mut see = |look: i64, is_bad: bool| {
            let view = memory.view(at(if is_bad { bad.clone() } else { states::on_time() }, look));
            let is_said = view.troubles.iter().any(|trouble| trouble.kind == kind);
            assert_eq!(is_said, view.status != Colour::Green, "{kind:?} at look {look}: {}", view.sentence);
            if !is_said {
                assert_eq!(view.sentence, "Statistics are complete through 14:04 UTC. Everything is collected.");
                assert!(!view.snapshot.runs.is_empty() && view.snapshot.log_away.is_none());
            }
            (is_said, view.incidents.iter().filter(|incident| incident.over_ms.is_none()).count())
        };
        for look in (0..6).step_by(2) {
            assert_eq!(see(look, false), (false, 0), "{kind:?}");
            assert_eq!(see(look + 1, true), (false, 0), "{kind:?}: one bad look between good ones");
        }
        assert!(see(6, true).0, "{kind:?}: two looks");
        assert!(see(7, false).0, "{kind:?}: one good look");
        assert!(see(8, true).0);
        assert!(see(9, false).0);
        assert_eq!(see(10, false), (false, 0), "{kind:?}: two good ones");
        assert!(Memory::default().view(bad.clone()).troubles[0].kind == kind, "the first look of all counts at once");
    }
}
