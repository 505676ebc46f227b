//! What live leaves to a gap run, and a copy and a restore, on a real ClickHouse.

mod support;

use support::{Draw, ask, at, database, version, window};
use tokio::sync::mpsc;
use weir_schemas::{Closed, WindowStart};
use weir_sink::audit::Audit;
use weir_sink::{
    End, Left, Limits, RunSpec, SinkError, Target, checkpoint, copy, gaps, prepare, restore, run, table::Windows,
};

/// A run over the windows `[from, to)` of hours after the first.
fn spec(run: &str, from: i64, to: i64, left: Left) -> RunSpec {
    let first = if left == Left::Own { at(from) } else { at(0) };
    let (run, origin) = (run.to_owned(), String::new());
    RunSpec { run, version: version(), origin, first, from: at(from), to: Some(at(to)), left }
}

/// What a pipeline hands over of `[from, to)`: 30 rows an hour, the same whoever asks.
fn windows(from: i64, to: i64) -> Vec<Closed> {
    (from..to).map(|hour| window(&mut Draw(hour as u64), hour, 20)).collect()
}

const ROWS_AN_HOUR: i64 = 30;

/// An owner with all of its windows, to its end.
async fn write(target: &Target, spec: RunSpec, windows: Vec<Closed>) -> Result<End, SinkError> {
    let (sender, closed) = mpsc::channel(windows.len().max(1));
    for window in windows {
        sender.send(window).await.expect("there is room");
    }
    drop(sender);
    run(target, spec, Limits::of_memory(768 << 20), closed, |_| (), std::future::pending()).await
}

async fn live(target: &Target, from: i64, to: i64) {
    let end = write(target, spec("live", from, to, Left::Passed), windows(from, to)).await;
    assert_eq!(end.expect("it ends"), End::Complete);
}

async fn prepared() -> Target {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    target
}

async fn complete(target: &Target) -> WindowStart {
    checkpoint(target, "live", &version(), "", at(0)).await.expect("a checkpoint")
}

async fn left_over(target: &Target) -> Vec<Windows> {
    gaps(target, &version()).await.expect("it is known")
}

/// The table holds the windows `[0, to)` once and nothing else, and `emissions` says so.
async fn assert_whole(target: &Target, to: i64) {
    assert_eq!(ask(target, "SELECT count() FROM DB.stats_v1").await, (to * ROWS_AN_HOUR).to_string());
    let recorded = "SELECT sum(rows) FROM (SELECT DISTINCT window_from, window_to, rows FROM DB.emissions)";
    assert_eq!(ask(target, recorded).await, (to * ROWS_AN_HOUR).to_string());
    assert_eq!(complete(target).await, at(to));
    let found = Audit::new(target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_goes_on_with_today_and_a_gap_run_fills_what_it_left() {
    let target = prepared().await;
    live(&target, 0, 3).await;
    assert_eq!(left_over(&target).await, []);
    let today = spec("live", 3, 8, Left::To(at(6)));
    assert_eq!(today.begins(), at(6));
    assert_eq!(write(&target, today.clone(), windows(6, 8)).await.expect("it ends"), End::Complete);
    assert_eq!(complete(&target).await, at(8), "what was left is as good as done for live");
    assert_eq!(left_over(&target).await, [Windows { from: at(3), to: at(6) }]);
    assert_eq!(
        ask(&target, "SELECT run, state, count() FROM DB.emissions GROUP BY ALL ORDER BY ALL").await,
        "live\tdone\t2\nlive\tleft\t1"
    );
    // The same order again, as after a kill: it leaves nothing more.
    assert_eq!(write(&target, RunSpec { from: at(8), ..today }, vec![]).await.expect("it ends"), End::Complete);
    // The gap run, killed on the way.
    let end = write(&target, spec("gap", 3, 6, Left::Own), windows(3, 5)).await;
    assert_eq!(end.expect("it ends"), End::Drained);
    assert_eq!(left_over(&target).await, [Windows { from: at(5), to: at(6) }]);
    // Live leaves more before that is filled.
    let end = write(&target, spec("live", 8, 12, Left::To(at(10))), windows(10, 12)).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    let second = Windows { from: at(8), to: at(10) };
    assert_eq!(left_over(&target).await, [Windows { from: at(5), to: at(6) }, second]);
    let end = write(&target, spec("gap", 5, 6, Left::Own), windows(5, 6)).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert_eq!(left_over(&target).await, [second]);
    let end = write(&target, spec("gap", 8, 10, Left::Own), windows(8, 10)).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert_eq!(left_over(&target).await, []);
    assert_whole(&target, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_run_of_what_was_not_left_stops() {
    let target = prepared().await;
    live(&target, 0, 3).await;
    let end = write(&target, spec("gap", 3, 6, Left::Own), windows(3, 6)).await;
    assert!(matches!(end, Err(SinkError::CheckpointMoved { .. })), "{end:?}");
    assert_whole(&target, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_brought_back_without_rows_that_it_does_not_name() {
    let target = prepared().await;
    live(&target, 0, 3).await;
    // What an owner has inserted and not yet recorded.
    ask(
        &target,
        "INSERT INTO DB.stats_v1 SELECT * REPLACE (emitted_in + 36000 AS emitted_in) FROM DB.stats_v1 \
         SETTINGS insert_allow_materialized_columns = 1",
    )
    .await;
    let at_three = format!("{}/three", target.database);
    assert!(copy(&target, &[version()], &at_three, None).await.expect("a copy"), "nothing was restored meanwhile");
    ask(
        &target,
        &format!(
            "ALTER TABLE DB.stats_v1 DELETE WHERE emitted_in >= {} SETTINGS mutations_sync = 2",
            at(10).ms() / 1_000
        ),
    )
    .await;
    live(&target, 3, 6).await;
    assert_whole(&target, 6).await;
    // One that stays, and has nothing to do: it must not go on as if nothing had been.
    let before = ask(&target, "SELECT max(owner) FROM DB.owners").await;
    let (sender, closed) = mpsc::channel(1);
    let waits = spec("live", 6, 7, Left::Passed);
    let zombie = {
        let target = target.clone();
        tokio::spawn(async move {
            run(&target, waits, Limits::of_memory(768 << 20), closed, |_| (), std::future::pending()).await
        })
    };
    support::until("it owns the run", async || ask(&target, "SELECT max(owner) FROM DB.owners").await != before).await;
    restore(&target, &[version()], &at_three).await.expect("a restore");
    assert_eq!(ask(&target, "SELECT count() FROM DB.owners").await, "0");
    assert_whole(&target, 3).await;
    sender.send(windows(6, 7).remove(0)).await.expect("it waits");
    let end = zombie.await.expect("no panic");
    assert!(matches!(end, Err(SinkError::Refused { .. } | SinkError::CheckpointMoved { .. })), "{end:?}");
    assert_whole(&target, 3).await;
    live(&target, 3, 7).await;
    assert_whole(&target, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_leaves_everything_closed_and_is_begun_again() {
    let target = prepared().await;
    live(&target, 0, 3).await;
    let place = format!("{}/copy", target.database);
    assert!(copy(&target, &[version()], &place, None).await.expect("a copy"));
    live(&target, 3, 5).await;
    // As one that was killed after its first deeds leaves it.
    ask(&target, "DROP TABLE DB.owners SYNC").await;
    ask(&target, &format!("CREATE DATABASE {}_restore_0", target.database)).await;
    let end = write(&target, spec("live", 5, 6, Left::Passed), windows(5, 6)).await;
    assert!(matches!(end, Err(SinkError::Refused { .. })), "{end:?}");
    let why = prepare(&target, &version()).await.expect_err("it must not open").to_string();
    assert!(why.contains("a copy is being brought back"), "{why}");
    assert!(!copy(&target, &[version()], "void", None).await.expect("an answer"), "a copy within a restore is void");
    restore(&target, &[version()], &place).await.expect("a restore");
    prepare(&target, &version()).await.expect("it is open");
    assert_whole(&target, 3).await;
    let left = format!("SELECT count() FROM system.databases WHERE startsWith(name, '{}_restore_')", target.database);
    assert_eq!(ask(&target, &left).await, "0");
    live(&target, 3, 5).await;
    assert_whole(&target, 5).await;
}
