//! The protocol on a real ClickHouse: each window exactly once, whoever is killed when.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use support::{DAY_ONE, Draw, HOUR_MS, ask, at, database, spec, until, version, window};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use weir_schemas::{Closed, SchemaVersion, WindowStart};
use weir_sink::audit::{Audit, Finding};
use weir_sink::server::Server;
use weir_sink::{Done, End, Left, Limits, RunSpec, SinkError, Target, checkpoint, prepare, run, show, undo};

fn run_spec(origin: &str, from: WindowStart, to: Option<WindowStart>) -> RunSpec {
    let run = if origin.is_empty() { "live".to_owned() } else { format!("import-{origin}") };
    RunSpec { run, version: version(), origin: origin.to_owned(), first: from, from, to, left: Left::Passed }
}

fn limits() -> Limits {
    Limits::of_memory(768 << 20)
}

/// What a pipeline that begins at `from` hands over: `hours` windows, the same whatever it begins at.
fn windows(from: WindowStart, hours: i64, rows: u64) -> Vec<Closed> {
    (0..hours)
        .map(
            |hour| {
                if hour % 5 == 3 { Closed::Through(at(hour + 1)) } else { window(&mut Draw(hour as u64), hour, rows) }
            },
        )
        .filter(|closed| match closed {
            Closed::Window(emission) => emission.window >= from,
            Closed::Through(through) => *through > from,
        })
        .collect()
}

fn rows_of(windows: &[Closed]) -> u64 {
    windows.iter().map(|closed| if let Closed::Window(emission) = closed { emission.rows() as u64 } else { 0 }).sum()
}

/// Runs an owner over `windows` to its end.
async fn write(target: &Target, spec: RunSpec, windows: Vec<Closed>) -> (Result<End, SinkError>, Vec<Done>) {
    let (tx, rx) = mpsc::channel(4);
    let feed = tokio::spawn(async move {
        for closed in windows {
            if tx.send(closed).await.is_err() {
                return;
            }
        }
    });
    let mut done = Vec::new();
    let end = run(target, spec, limits(), rx, |batch| done.push(batch), std::future::pending()).await;
    feed.abort();
    (end, done)
}

/// An owner that has been started, as a run starts: from its checkpoint.
async fn start(target: &Target, hours: i64, rows: u64) -> JoinHandle<Result<End, SinkError>> {
    let from = checkpoint(target, "live", &version(), "", at(0)).await.expect("a checkpoint");
    let target = target.clone();
    tokio::spawn(async move { write(&target, run_spec("", from, Some(at(hours))), windows(from, hours, rows)).await.0 })
}

/// The table holds all of `windows`, once, and the record says so.
async fn assert_whole(target: &Target, windows: &[Closed], end: WindowStart) {
    assert_eq!(ask(target, "SELECT count() FROM DB.stats_v1").await, rows_of(windows).to_string());
    assert_eq!(
        ask(target, "SELECT sum(rows) FROM (SELECT DISTINCT window_from, window_to, rows, digest FROM DB.emissions)")
            .await,
        rows_of(windows).to_string()
    );
    assert_eq!(checkpoint(target, "live", &version(), "", at(0)).await.expect("a checkpoint"), end);
    let found = Audit::new(target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_is_in_the_table_and_recorded() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    prepare(&target, &version()).await.expect("and made once");
    show(&target, &version(), &BTreeMap::new(), None).await.expect("views are made");
    let windows = windows(at(0), 30, 200);
    let (end, done) = write(&target, run_spec("", at(0), Some(at(30))), windows.clone()).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert_eq!(done.iter().map(|batch| batch.rows).sum::<u64>(), rows_of(&windows));
    assert_eq!(done.first().map(|batch| batch.from), Some(at(0)));
    assert_eq!(done.last().map(|batch| batch.through), Some(at(30)));
    assert!(done.windows(2).all(|pair| pair[0].through == pair[1].from), "{done:?}");
    assert!(done.iter().any(|batch| batch.through == at(24)), "a batch ends with the day: {done:?}");
    assert_whole(&target, &windows, at(30)).await;
    let mut views = 0;
    let mut visitors = std::collections::BTreeSet::<u64>::new();
    for closed in &windows {
        let Closed::Window(emission) = closed else { continue };
        for block in &emission.blocks {
            views += block.counts.iter().step_by(2).sum::<u64>();
            visitors.extend(&block.visitors);
        }
    }
    assert_eq!(ask(&target, "SELECT sum(page_views) FROM DB.stats").await, views.to_string());
    let estimate: f64 =
        ask(&target, "SELECT uniqCombined64Merge(visitors) FROM DB.stats").await.parse().expect("a number");
    assert!((estimate / visitors.len() as f64 - 1.0).abs() < 0.02, "{estimate} of {}", visitors.len());
    let parts = ask(
        &target,
        "SELECT count() FROM system.parts WHERE database = 'DBX' AND table = 'owners' AND active"
            .replace("DBX", &target.database)
            .as_str(),
    )
    .await;
    assert!(parts.parse::<u32>().expect("a number") < 50, "{parts} parts of owners");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_do_not_depend_on_where_batches_are_cut() {
    let (one, other) = (database(), database());
    let windows = windows(at(0), 10, 100);
    for target in [&one, &other] {
        prepare(target, &version()).await.expect("tables are made");
    }
    write(&one, run_spec("", at(0), Some(at(10))), windows.clone()).await.0.expect("it ends");
    for hour in 0..10 {
        let here: Vec<Closed> = windows
            .iter()
            .filter(|closed| match closed {
                Closed::Window(emission) => emission.window == at(hour),
                Closed::Through(through) => *through == at(hour + 1),
            })
            .cloned()
            .collect();
        let (end, _) = write(&other, run_spec("", at(hour), Some(at(hour + 1))), here).await;
        assert_eq!(end.expect("it ends"), End::Complete);
    }
    let digest = "SELECT count(), sum(cityHash64(* EXCEPT visitors, finalizeAggregation(visitors))) FROM DB.stats_v1";
    assert_eq!(ask(&one, digest).await, ask(&other, digest).await);
    assert_ne!(
        ask(&one, "SELECT count() FROM DB.emissions").await,
        ask(&other, "SELECT count() FROM DB.emissions").await
    );
}

/// Facts that the digest must show: each statement makes the table another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_differs_in_anything_is_not_taken_for_done() {
    let all = "site, dimension, value, window_start, emitted_in, origin, page_views, bot_events";
    let one = "WHERE value = (SELECT min(value) FROM DB.stats_v1) LIMIT 1";
    for (what, expressions, ids) in [
        ("doubled", all.to_owned(), "ids"),
        ("one count more", all.replace("page_views", "page_views + 1"), "ids"),
        ("another window", all.replace("window_start", "window_start - 3600"), "ids"),
        ("another value", all.replace("value", "concat(value, '!')"), "ids"),
        ("one visitor less", all.to_owned(), "arrayPopBack(ids)"),
        ("one visitor another", all.to_owned(), "arrayPushBack(arrayPopBack(ids), 5)"),
        ("lost", String::new(), ""),
    ] {
        let target = database();
        prepare(&target, &version()).await.expect("tables are made");
        let windows = vec![window(&mut Draw(1), 0, 50)];
        write(&target, run_spec("", at(0), Some(at(1))), windows.clone()).await.0.expect("it ends");
        // The ids of a row are not in the table: a row with known ones is put in its place.
        let put = |expressions: &str, ids: &str| {
            format!(
                "INSERT INTO DB.stats_v1 ({all}, visitor_ids) SELECT {expressions}, {ids} FROM (SELECT *, [1, 2, 9] AS ids FROM DB.stats_v1 {one})"
            )
        };
        ask(&target, &put(all, "ids")).await;
        let sum = "SELECT count(), sum(xxh3(value)) FROM DB.stats_v1";
        let before = ask(&target, sum).await;
        let content = async || {
            let found = Audit::new(&target, &version()).full().await.expect("an audit");
            let Some(Finding::Differs { held, .. }) = found.first().cloned() else { panic!("{found:?}") };
            held
        };
        let first = content().await;
        if what == "doubled" {
            ask(&target, &put(&expressions, ids)).await;
            assert_eq!(content().await.rows, first.rows + 1);
        } else {
            ask(&target, "ALTER TABLE DB.stats_v1 DELETE WHERE visitor_check = 12 SETTINGS mutations_sync = 2").await;
            if what == "lost" {
                ask(&target, "ALTER TABLE DB.stats_v1 DELETE WHERE value = (SELECT min(value) FROM DB.stats_v1) SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1").await;
                assert_eq!(content().await.rows, first.rows - 2);
            } else {
                ask(&target, &put(&expressions, ids)).await;
                let second = content().await;
                assert_eq!(second.rows, first.rows, "{what}");
                assert_ne!(second.digest, first.digest, "{what}: {before}");
            }
        }
        // A new owner of the same windows mends it.
        ask(&target, "TRUNCATE TABLE DB.emissions").await;
        write(&target, run_spec("", at(0), Some(at(1))), windows.clone()).await.0.expect("it ends");
        assert_whole(&target, &windows, at(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_at_any_moment_leaves_nothing_half_done() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let all = windows(at(0), 40, 3000);
    let mut draw = Draw(7);
    for _ in 0..25 {
        let owner = start(&target, 40, 3000).await;
        tokio::time::sleep(std::time::Duration::from_millis(draw.below(120))).await;
        owner.abort();
        let _ = owner.await;
    }
    start(&target, 40, 3000).await.await.expect("no panic").expect("it ends");
    assert_whole(&target, &all, at(40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_one_is_refused_and_no_window_is_written_twice() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let all = windows(at(0), 24, 500);
    let owners = [start(&target, 24, 500).await, start(&target, 24, 500).await, start(&target, 24, 500).await];
    let mut ends = Vec::new();
    for owner in owners {
        ends.push(owner.await.expect("no panic"));
    }
    assert!(ends.iter().any(|end| matches!(end, Ok(End::Complete))), "{ends:?}");
    assert!(ends.iter().all(|end| matches!(end, Ok(End::Complete) | Err(SinkError::Refused { .. }))), "{ends:?}");
    assert_whole(&target, &all, at(24)).await;
}

/// Raises as a second owner would, and gives the fence of the first.
async fn owner_of(target: &Target) -> String {
    ask(target, "SELECT max(owner) FROM DB.owners WHERE run = 'v1/live'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_a_former_owner_do_nothing() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let windows = vec![window(&mut Draw(1), 0, 50)];
    write(&target, run_spec("", at(0), Some(at(1))), windows.clone()).await.0.expect("it ends");
    let zombie = owner_of(&target).await;
    let (number, _) = zombie.split_once('-').expect("number and uuid");
    // Equal number, larger uuid: the pair decides.
    ask(&target, &format!("INSERT INTO DB.owners VALUES ('v1/live', '{number}-{}')", "f".repeat(32))).await;
    let fence = "(SELECT max(owner) FROM DB.owners WHERE run = 'v1/live')";
    let sql = format!(
        "INSERT INTO DB.emissions (generation, origin, run, state, window_from, window_to) SELECT 1, '', 'live', 'done', 0, 1 WHERE NOT throwIf({fence} != '{zombie}')"
    );
    let sql = sql.replace("DB.", &format!("{}.", target.database));
    let refused = support::ask_as(&target, &target.user, &target.password, &sql).await.expect_err("refused");
    assert!(refused.contains("Code: 395"), "{refused}");
    ask(&target, &format!("ALTER TABLE DB.stats_v1 DELETE WHERE {fence} = '{zombie}' SETTINGS mutations_sync = 2"))
        .await;
    assert_whole(&target, &windows, at(1)).await;
    ask(&target, "OPTIMIZE TABLE DB.owners FINAL").await;
    assert_eq!(
        ask(&target, "SELECT count(), max(owner) FROM DB.owners").await,
        format!("1\t{number}-{}", "f".repeat(32))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_began_before_the_raise_and_stalls_is_ended_by_the_next_owner() {
    use tokio::io::AsyncWriteExt as _;
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let all = windows(at(0), 3, 50);
    // A former owner's INSERT: its fence has been passed, half of its body is there, and its client sleeps.
    let zombie = format!("{:020}-{}", 1, "0".repeat(32));
    ask(&target, &format!("INSERT INTO DB.owners VALUES ('v1/live', '{zombie}')")).await;
    let sql = format!(
        "INSERT INTO {0}.stats_v1 (site, emitted_in) SELECT site, emitted_in FROM input('site String, emitted_in DateTime') \
         WHERE NOT throwIf((SELECT max(owner) FROM {0}.owners WHERE run = 'v1/live') != '{zombie}') FORMAT TSV",
        target.database
    );
    let query_id = format!("weir:{}:v1/live:{zombie}:1:insert", target.database);
    let url = reqwest::Url::parse_with_params(
        "http://x/",
        [
            ("user", target.user.as_str()),
            ("password", &target.password),
            ("query", &sql),
            ("query_id", &query_id),
            ("max_insert_block_size", "1000"),
            ("receive_timeout", "5"),
            ("http_receive_timeout", "5"),
        ],
    )
    .expect("a URL");
    let mut client =
        tokio::net::TcpStream::connect(target.url.trim_start_matches("http://")).await.expect("a connection");
    let head =
        format!("POST /?{} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", url.query().expect("one"));
    client.write_all(head.as_bytes()).await.expect("sent");
    let rows = format!("zombie\t{}\n", at(1).ms() / 1000).repeat(100_000);
    client.write_all(format!("{:x}\r\n{rows}\r\n", rows.len()).as_bytes()).await.expect("sent");
    until("the INSERT to run", async || {
        ask(&target, &format!("SELECT count() FROM system.processes WHERE query_id = '{query_id}'")).await == "1"
    })
    .await;
    start(&target, 3, 50).await.await.expect("no panic").expect("it ends");
    assert_eq!(ask(&target, &format!("SELECT count() FROM system.processes WHERE query_id = '{query_id}'")).await, "0");
    // It wakes, and ends its body. ClickHouse has gone away, or answers that it was killed.
    let _ = client.write_all(b"0\r\n\r\n").await;
    assert_whole(&target, &all, at(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_very_many_visitors_are_asked_for_alike() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let mut draw = Draw(3);
    let mut emission = support::emission(&mut draw, 0, 0);
    let block = &mut emission.blocks[0];
    for (n, visitors) in [16, 17, 2_999, 3_000, 3_001, 4_096, 4_097, 4_098, 16_385, 300_000].into_iter().enumerate() {
        let text = block.strings.push(&n.to_string());
        block.site.push(text);
        block.dimension.push(text);
        block.value.push(text);
        block.window_start_ms.push(at(0).ms());
        block.counts.extend([u64::MAX, 0]);
        let mut ids: Vec<u64> = (0..visitors).map(|_| draw.next()).collect();
        ids.sort_unstable();
        block.visitors.extend(ids);
        block.visitors_end.push(block.visitors.len());
    }
    let windows = vec![Closed::Window(emission)];
    let (end, done) = write(&target, run_spec("", at(0), Some(at(1))), windows.clone()).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert_eq!(done.len(), 1);
    assert_whole(&target, &windows, at(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_that_is_killed_in_the_middle_costs_nothing_but_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(spec(dir.path())).await.expect("clickhouse starts");
    let target = server.target().clone();
    prepare(&target, &version()).await.expect("tables are made");
    let all = windows(at(0), 30, 20_000);
    let owner = start(&target, 30, 20_000).await;
    for _ in 0..3 {
        let pid = server.pid().expect("it runs");
        until("an INSERT on its way", async || {
            owner.is_finished()
                || support::ask_as(
                    &target,
                    &target.user,
                    &target.password,
                    "SELECT count() > 0 FROM system.processes WHERE query_id LIKE 'weir:%insert'",
                )
                .await
                    == Ok("1".to_owned())
        })
        .await;
        // SAFETY: our own child.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        until("another server", async || server.pid().is_some_and(|again| again != pid)).await;
    }
    assert_eq!(owner.await.expect("no panic").expect("it ends"), End::Complete);
    assert_whole(&target, &all, at(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_altered_stops_the_run_and_is_named() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    ask(&target, "ALTER TABLE DB.stats_v1 DROP COLUMN bot_events").await;
    let why = prepare(&target, &version()).await.expect_err("a column is missing").to_string();
    assert!(why.contains("stats_v1") && why.contains("no column bot_events"), "{why}");
    let (end, _) = write(&target, run_spec("", at(0), None), vec![window(&mut Draw(1), 0, 5)]).await;
    assert!(matches!(&end, Err(SinkError::Altered(altered)) if altered.differs.contains("bot_events")), "{end:?}");
    ask(&target, "ALTER TABLE DB.stats_v1 ADD COLUMN bot_events UInt32 AFTER page_views").await;
    let why = prepare(&target, &version()).await.expect_err("another type").to_string();
    assert!(why.contains("UInt32, not UInt64"), "{why}");
    ask(&target, "DROP TABLE DB.owners SYNC").await;
    let (end, _) = write(&target, run_spec("", at(0), None), vec![window(&mut Draw(1), 0, 5)]).await;
    assert!(matches!(end, Err(SinkError::Refused { .. })), "a restore has closed everything: {end:?}");
    let wrong = Target { password: "wrong".to_owned(), ..target };
    let (end, _) = write(&wrong, run_spec("", at(0), None), vec![window(&mut Draw(1), 0, 5)]).await;
    assert!(matches!(&end, Err(SinkError::Stopped { way_out, .. }) if way_out.contains("password")), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_undone_as_a_whole_and_live_is_not_touched() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let live = windows(at(0), 5, 100);
    write(&target, run_spec("", at(0), Some(at(5))), live.clone()).await.0.expect("it ends");
    // Two months.
    let hours = 40 * 24;
    let mut old: Vec<Closed> = (0..hours).step_by(24).map(|hour| window(&mut Draw(hour as u64), hour, 20)).collect();
    old.push(Closed::Through(at(hours)));
    let (end, done) = write(&target, run_spec("i1", at(0), Some(at(hours))), old.clone()).await;
    assert_eq!(end.expect("it ends"), End::Complete);
    assert!(done.iter().any(|batch| batch.through == at(31 * 24)), "a batch ends with the month: {done:?}");
    assert_eq!(done.iter().map(|batch| batch.rows).sum::<u64>(), rows_of(&old));
    assert!(Audit::new(&target, &version()).full().await.expect("an audit").is_empty());
    for _ in 0..2 {
        undo(&target, "import-i1", &version(), "i1").await.expect("undone");
        assert_whole(&target, &live, at(5)).await;
        assert_eq!(checkpoint(&target, "import-i1", &version(), "i1", at(0)).await.expect("a checkpoint"), at(0));
    }
    assert!(matches!(undo(&target, "live", &version(), "").await, Err(SinkError::UndoLive)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_refuses_the_writer_of_what_it_undoes() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let (tx, rx) = mpsc::channel(1);
    let (wrote, written) = oneshot::channel();
    let writer = {
        let target = target.clone();
        tokio::spawn(async move {
            let mut wrote = Some(wrote);
            let told = |_| {
                if let Some(wrote) = wrote.take() {
                    wrote.send(()).expect("the test waits");
                }
            };
            run(&target, run_spec("i1", at(0), None), limits(), rx, told, std::future::pending()).await
        })
    };
    tx.send(window(&mut Draw(1), 0, 20)).await.expect("it listens");
    written.await.expect("a batch");
    undo(&target, "import-i1", &version(), "i1").await.expect("undone");
    tx.send(window(&mut Draw(2), 1, 20)).await.expect("it listens");
    let end = writer.await.expect("no panic");
    assert!(matches!(end, Err(SinkError::Refused { .. } | SinkError::CheckpointMoved { .. })), "{end:?}");
    assert_eq!(ask(&target, "SELECT count() FROM DB.stats_v1").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_heard_and_a_closed_channel_is_drained() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let (tx, rx) = mpsc::channel(4);
    let (stop, stopped) = oneshot::channel::<()>();
    let done = Arc::new(Mutex::new(Vec::new()));
    let writer = {
        let (target, done) = (target.clone(), done.clone());
        tokio::spawn(async move {
            let told = |batch| done.lock().expect("not poisoned").push(batch);
            run(&target, run_spec("", at(0), None), limits(), rx, told, async { drop(stopped.await) }).await
        })
    };
    tx.send(window(&mut Draw(1), 0, 20)).await.expect("it listens");
    until("a batch", async || !done.lock().expect("not poisoned").is_empty()).await;
    stop.send(()).expect("it listens");
    assert_eq!(writer.await.expect("no panic").expect("it ends"), End::Shutdown);
    let rest = vec![window(&mut Draw(2), 1, 20), Closed::Through(at(7))];
    let (end, _) = write(&target, run_spec("", at(1), None), rest).await;
    assert_eq!(end.expect("it ends"), End::Drained);
    assert_eq!(checkpoint(&target, "live", &version(), "", at(0)).await.expect("a checkpoint"), at(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_rows_that_are_missing_doubled_or_nobodys() {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    let windows = windows(at(0), 3, 60);
    write(&target, run_spec("", at(0), Some(at(3))), windows.clone()).await.0.expect("it ends");
    let mut audit = Audit::new(&target, &version());
    assert_eq!(audit.recent().await.expect("an audit"), []);
    ask(&target, &format!("ALTER TABLE DB.stats_v1 DELETE WHERE emitted_in = toDateTime({}, 'UTC') AND value LIKE '/1%' SETTINGS mutations_sync = 2", (DAY_ONE + 1) * HOUR_MS / 1000)).await;
    let nobodys = "INSERT INTO DB.stats_v1 (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitor_ids) SELECT 'x', 'page', '', now(), toDateTime(AT, 'UTC'), '', 1, 1, []";
    // Before the first window. What lies after the last one that is done may be a batch on its way.
    ask(&target, &nobodys.replace("AT", &((DAY_ONE - 1) * HOUR_MS / 1000).to_string())).await;
    let found = audit.recent().await.expect("an audit");
    assert!(matches!(&found[..], [Finding::Differs { recorded, held, .. }] if held.rows < recorded.rows), "{found:?}");
    let found = audit.full().await.expect("an audit");
    assert!(
        matches!(&found[..], [Finding::Differs { .. }, Finding::Uncovered { held, .. }] if held.rows == 1),
        "{found:?}"
    );
}

/// A `SchemaVersion` of another number has a table, and owners, of its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_generations_do_not_meet() {
    let target = database();
    let second = SchemaVersion { number: 2, ..version() };
    for version in [&version(), &second] {
        prepare(&target, version).await.expect("tables are made");
    }
    let all = windows(at(0), 6, 50);
    let other = RunSpec { version: second.clone(), ..run_spec("", at(0), Some(at(6))) };
    let (one, two) =
        tokio::join!(write(&target, run_spec("", at(0), Some(at(6))), all.clone()), write(&target, other, all.clone()));
    assert_eq!((one.0.expect("it ends"), two.0.expect("it ends")), (End::Complete, End::Complete));
    assert_eq!(
        ask(&target, "SELECT count() FROM DB.stats_v1").await,
        ask(&target, "SELECT count() FROM DB.stats_v2").await
    );
    show(&target, &version(), &BTreeMap::new(), None).await.expect("shown");
    show(&target, &second, &BTreeMap::new(), None).await.expect("swapped");
    assert!(ask(&target, "SHOW CREATE VIEW DB.stats").await.contains("stats_v2"));
}
