//! What was done is taken back, an altered table is mended, and somebody else who writes is noticed, on a real ClickHouse.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::{Draw, ask, at, database, live, version, window};
use tokio::sync::mpsc;
use weir_schemas::{Closed, WindowStart};
use weir_sink::audit::Audit;
use weir_sink::table::Running as _;
use weir_sink::{
    Done, End, Extent, Limits, News, Shape, SinkError, Target, checkpoint, copy, mend, prepare, run_telling, shape,
    table_of, take_back,
};

const HOURS: i64 = 12;

fn windows(from: WindowStart) -> Vec<Closed> {
    let all = (0..HOURS).filter(|hour| at(*hour) >= from);
    all.map(|hour| window(&mut Draw(hour as u64), hour, 40)).collect()
}

/// A run over the hours from its checkpoint to the last; the batches that it has done, and what it has waited for.
async fn go_on(target: &Target) -> (Result<End, SinkError>, Vec<Done>, Vec<String>) {
    go_on_from(target, checkpoint(target, "live", &version(), "", at(0)).await.expect("a checkpoint")).await
}

async fn go_on_from(target: &Target, from: WindowStart) -> (Result<End, SinkError>, Vec<Done>, Vec<String>) {
    let spec = live(from, at(HOURS));
    let (tx, rx) = mpsc::channel(4);
    let feed = tokio::spawn(async move {
        for closed in windows(from) {
            if tx.send(closed).await.is_err() {
                return;
            }
        }
    });
    let (mut done, mut waits) = (Vec::new(), Vec::new());
    let tell = |news| match news {
        News::Done(batch) => done.push(batch),
        News::Waits(reason) => waits.push(reason),
        News::GoesOn => {}
    };
    let end = run_telling(target, spec, Limits::of_memory(768 << 20), rx, tell, std::future::pending()).await;
    feed.abort();
    (end, done, waits)
}

/// Writes all hours, in several batches.
async fn whole() -> Target {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    for hour in [4, 9, HOURS] {
        let from = checkpoint(&target, "live", &version(), "", at(0)).await.expect("a checkpoint");
        let spec = live(from, at(hour));
        let (tx, rx) = mpsc::channel(20);
        for closed in windows(from) {
            if matches!(&closed, Closed::Window(emission) if emission.window < at(hour)) {
                tx.send(closed).await.expect("room");
            }
        }
        drop(tx);
        run_telling(&target, spec, Limits::of_memory(768 << 20), rx, |_| (), std::future::pending())
            .await
            .expect("it ends");
    }
    target
}

async fn digest(target: &Target) -> String {
    ask(target, "SELECT count(), sum(cityHash64(* EXCEPT visitors, finalizeAggregation(visitors))) FROM DB.stats_v1")
        .await
}

async fn parts(target: &Target) -> BTreeSet<String> {
    let sql = format!(
        "SELECT name FROM system.parts WHERE database = '{}' AND table = 'stats_v1' AND active",
        target.database
    );
    ask(target, &sql).await.lines().map(str::to_owned).collect()
}

async fn assert_right(target: &Target, before: &str) {
    assert_eq!(digest(target).await, before);
    assert_eq!(checkpoint(target, "live", &version(), "", at(0)).await.expect("a checkpoint"), at(HOURS));
    let found = Audit::new(target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_is_asked_for_again_and_only_what_differs_is_written() {
    let target = whole().await;
    let before = digest(&target).await;
    // In the middle of the second batch: the table is right, only its record goes, from there on.
    let parts_before = parts(&target).await;
    take_back(&target, "live", &version(), "", Extent::From(at(6))).await.expect("taken back");
    assert_eq!(checkpoint(&target, "live", &version(), "", at(0)).await.expect("a checkpoint"), at(6));
    let (end, done, _) = go_on(&target).await;
    assert_eq!((end.expect("it ends"), done.first().map(|batch| batch.from)), (End::Complete, Some(at(6))));
    assert_eq!(parts(&target).await, parts_before, "nothing was written");
    assert_right(&target, &before).await;
    // One row less, and one that is there twice.
    ask(&target, "ALTER TABLE DB.stats_v1 DELETE WHERE emitted_in = (SELECT max(emitted_in) FROM DB.stats_v1) AND value LIKE '/1%' SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1").await;
    let columns =
        "site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitors, visitor_check";
    ask(&target, &format!("INSERT INTO DB.stats_v1 ({columns}) SELECT {columns} FROM DB.stats_v1 WHERE emitted_in = (SELECT min(emitted_in) FROM DB.stats_v1) LIMIT 3")).await;
    let found = Audit::new(&target, &version()).rows().await.expect("an audit");
    assert_eq!(found.len(), 2, "{found:?}");
    // Twice, as after a crash.
    for _ in 0..2 {
        take_back(&target, "live", &version(), "", Extent::From(at(0))).await.expect("taken back");
    }
    assert_eq!(go_on(&target).await.0.expect("it ends"), End::Complete);
    assert_right(&target, &before).await;
}

/// The hours that have rows, and what is recorded: (state, first hour, hour after the last), each once.
async fn held_and_recorded(target: &Target) -> (String, String) {
    let first = at(0).ms() / 1000;
    let hour = |column: &str| format!("intDiv(toUnixTimestamp({column}) - {first}, 3600)");
    let held = format!("SELECT arraySort(groupUniqArray({})) FROM DB.stats_v1", hour("emitted_in"));
    let recorded = format!(
        "SELECT arraySort(groupUniqArray((toString(state), {}, {}))) FROM DB.emissions",
        hour("window_from"),
        hour("window_to")
    );
    (ask(target, &held).await, ask(target, &recorded).await.replace('\'', ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_gone_with_its_record_and_named_and_the_rest_stays_done() {
    let target = whole().await;
    // Within the second batch.
    let lost = Extent::Lost { from: at(5), to: at(7) };
    for _ in 0..2 {
        take_back(&target, "live", &version(), "", lost).await.expect("given up");
        let (held, recorded) = held_and_recorded(&target).await;
        assert_eq!(held, "[0,1,2,3,4,7,8,9,10,11]");
        assert_eq!(recorded, "[(done,0,4),(done,4,5),(done,7,9),(done,9,12),(lost,5,7)]");
    }
    let found = Audit::new(&target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(checkpoint(&target, "live", &version(), "", at(0)).await.expect("a checkpoint"), at(HOURS));
    // What was given up may be asked for again, in part: the rest stays lost.
    take_back(&target, "live", &version(), "", Extent::From(at(6))).await.expect("taken back");
    assert_eq!(held_and_recorded(&target).await.1, "[(done,0,4),(done,4,5),(lost,5,6)]");
    assert_eq!(go_on(&target).await.0.expect("it ends"), End::Complete);
    assert_eq!(held_and_recorded(&target).await.0, "[0,1,2,3,4,6,7,8,9,10,11]");
    let found = Audit::new(&target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_batch_that_is_not_as_recorded_is_a_hole_that_the_run_fills() {
    let target = whole().await;
    let before = digest(&target).await;
    let fourth = format!("emitted_in = toDateTime({}, 'UTC')", at(4).ms() / 1000);
    ask(
        &target,
        &format!("ALTER TABLE DB.stats_v1 DELETE WHERE {fourth} AND value LIKE '/1%' SETTINGS mutations_sync = 2"),
    )
    .await;
    take_back(&target, "live", &version(), "", Extent::Lost { from: at(5), to: at(7) }).await.expect("given up");
    assert_eq!(held_and_recorded(&target).await.1, "[(done,0,4),(done,9,12),(lost,5,7)]");
    // Two holes: none of the batches that fill them reaches over what is recorded behind.
    let (end, done, _) = go_on(&target).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert_eq!(done.iter().map(|of| (of.from, of.through)).collect::<Vec<_>>(), [(at(4), at(5)), (at(7), at(9))]);
    let (held, recorded) = held_and_recorded(&target).await;
    assert_eq!(held, "[0,1,2,3,4,7,8,9,10,11]");
    assert_eq!(recorded, "[(done,0,4),(done,4,5),(done,7,9),(done,9,12),(lost,5,7)]");
    take_back(&target, "live", &version(), "", Extent::From(at(5))).await.expect("taken back");
    assert_eq!(go_on(&target).await.0.expect("it ends"), End::Complete);
    assert_right(&target, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_void_while_something_is_taken_out() {
    let target = whole().await;
    ask(&target, "SYSTEM STOP MERGES DB.emissions").await;
    let giving_up = {
        let target = target.clone();
        let lost = Extent::Lost { from: at(4), to: at(9) };
        tokio::spawn(async move { take_back(&target, "live", &version(), "", lost).await })
    };
    let waiting = "SELECT count() FROM system.mutations WHERE database = 'DBX' AND NOT is_done";
    let waiting = waiting.replace("DBX", &target.database);
    support::until("the record to be taken out", async || ask(&target, &waiting).await == "1").await;
    let copied = async |at: &str| {
        copy(&target, &[version()], &format!("{}-{at}", target.database), None).await.expect("it is known")
    };
    assert!(!copied("within").await);
    let mutations = table_of(&target, "live", &version(), "").mutations().await.expect("an answer");
    assert_eq!(mutations.unfinished, 1, "the run's next owner ends it");
    ask(&target, "SYSTEM START MERGES DB.emissions").await;
    giving_up.await.expect("no panic").expect("given up");
    assert!(copied("after").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_void_after_a_give_up_that_was_cut_until_it_is_done_again() {
    let target = whole().await;
    // As far as it came: what is lost is said to be, and is still done.
    let said = "INSERT INTO DB.emissions (generation, origin, run, state, window_from, window_to, rows, digest) \
                SELECT generation, origin, run, 'lost', window_from, window_to, 0, 0 FROM DB.emissions \
                WHERE state = 'done' ORDER BY window_from LIMIT 1";
    ask(&target, said).await;
    let copied = async |at: &str| {
        copy(&target, &[version()], &format!("{}-{at}", target.database), None).await.expect("it is known")
    };
    assert!(!copied("cut").await);
    let all = Extent::Lost { from: at(0), to: at(HOURS) };
    take_back(&target, "live", &version(), "", all).await.expect("given up");
    assert!(copied("again").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_slept_through_it_is_refused() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let (tx, rx) = mpsc::channel(4);
    let spec = live(at(0), at(HOURS));
    let sleeper = {
        let target = target.clone();
        tokio::spawn(async move {
            run_telling(&target, spec, Limits::of_memory(768 << 20), rx, |_| (), std::future::pending()).await
        })
    };
    tx.send(window(&mut Draw(0), 0, 40)).await.expect("it takes them");
    support::until("the first batch", async || ask(&target, "SELECT count() FROM DB.emissions").await == "1").await;
    take_back(&target, "live", &version(), "", Extent::From(at(0))).await.expect("taken back");
    tx.send(window(&mut Draw(1), 1, 40)).await.expect("it takes them");
    let end = sleeper.await.expect("no panic");
    assert!(matches!(end, Err(SinkError::Refused { .. } | SinkError::CheckpointMoved { .. })), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_table_is_seen_and_mended() {
    let target = whole().await;
    let before = digest(&target).await;
    let looked = async || shape(&target, &version()).await.expect("a look");
    assert_eq!(looked().await, Shape::Right);
    for alter in [
        "ADD COLUMN note String AFTER site",
        "MODIFY COLUMN visitor_check UInt64 DEFAULT 0",
        "MODIFY COLUMN page_views UInt32",
        "MODIFY COLUMN bot_events UInt64 DEFAULT 7",
        "DROP COLUMN bot_events",
    ] {
        ask(&target, &format!("ALTER TABLE DB.stats_v1 {alter} SETTINGS mutations_sync = 2")).await;
        assert!(matches!(looked().await, Shape::Altered(_)), "{alter}");
        mend(&target, &version()).await.expect("mended");
        assert_eq!(looked().await, Shape::Right, "{alter}");
    }
    // What went with the last column, and with the narrow one, comes back from the log.
    let found = Audit::new(&target, &version()).full().await.expect("an audit");
    assert!(!found.is_empty());
    take_back(&target, "live", &version(), "", Extent::From(at(0))).await.expect("taken back");
    assert_eq!(go_on(&target).await.0.expect("it ends"), End::Complete);
    assert_right(&target, &before).await;
    ask(&target, "RENAME TABLE DB.stats_v1 TO DB.away").await;
    assert_eq!(looked().await, Shape::Missing(format!("{}.stats_v1", target.database)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_does_not_come_out_equal_is_said_and_done_when_nobody_disturbs_any_more() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    // Somebody who puts a row of his own into the first window, again and again.
    let disturb = {
        let target = target.clone();
        let own = format!("INSERT INTO DB.stats_v1 (site, emitted_in) VALUES ('mine', {})", at(0).ms() / 1000);
        async move {
            loop {
                ask(&target, &own).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let disturbing = tokio::spawn(disturb);
    let spec = live(at(0), at(1));
    let (tx, rx) = mpsc::channel(4);
    tx.send(window(&mut Draw(0), 0, 40)).await.expect("room");
    let mut waits = Vec::new();
    let tell = |news| match news {
        News::Waits(reason) => {
            waits.push(reason);
            disturbing.abort();
        }
        News::Done(_) | News::GoesOn => {}
    };
    let end = run_telling(&target, spec, Limits::of_memory(768 << 20), rx, tell, std::future::pending()).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert!(waits[0].contains("do not come out as they were written") && waits[0].contains("query_log"), "{waits:?}");
    assert_eq!(ask(&target, "SELECT count() FROM DB.stats_v1 WHERE site = 'mine'").await, "0");
}
