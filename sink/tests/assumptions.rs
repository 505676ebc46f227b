//! What the protocol assumes of ClickHouse, looked at on the real server, by the statements that a run sends.
//!
//! A door between a run and the server holds the body of an INSERT back where a test says so: what a slow client does.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use support::{Draw, ask, at, block, database, spec, until, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_sink::server::Server;
use weir_sink::table::{Failure, Kind, Mutations, Running, Statement, Table, Windows};
use weir_sink::{Content, Deed, Owner, Target, body_of, prepare, table_of};

/// Bytes of a request that ClickHouse has in its hands before the statement starts, at most: it reads a buffer ahead.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// While a door is closed, bytes and every how long: neither side takes the other for gone, and a body of some MB takes a
/// minute and more.
const TRICKLE_BYTES: usize = 1 << 14;
const TRICKLE_EVERY: Duration = Duration::from_millis(100);

/// Forwards to a server; from clients at most so many bytes, until it is opened.
struct Door {
    target: Target,
    let_through: Arc<AtomicUsize>,
    opened: Arc<Notify>,
}

impl Door {
    /// Closed, and almost tight, after `bytes`.
    async fn before(target: &Target, bytes: usize) -> Door {
        Door::closed(target, bytes, TRICKLE_BYTES).await
    }

    async fn closed(target: &Target, bytes: usize, trickle_bytes: usize) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (let_through, opened) = (Arc::new(AtomicUsize::new(bytes)), Arc::new(Notify::new()));
        let door = Door { target: Target { url, ..target.clone() }, let_through, opened };
        let server = target.url.trim_start_matches("http://").to_owned();
        let (let_through, opened) = (door.let_through.clone(), door.opened.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server listens");
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let (let_through, opened) = (let_through.clone(), opened.clone());
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    loop {
                        let most = loop {
                            match let_through.load(Ordering::SeqCst) {
                                0 => {
                                    let trickle = tokio::time::sleep(TRICKLE_EVERY);
                                    tokio::select! {
                                        () = opened.notified() => {}
                                        () = trickle, if trickle_bytes > 0 => {
                                            let _ = let_through.compare_exchange(
                                                0, trickle_bytes, Ordering::SeqCst, Ordering::SeqCst,
                                            );
                                        }
                                    }
                                }
                                some => break some.min(buffer.len()),
                            }
                        };
                        let Ok(read @ 1..) = from_client.read(&mut buffer[..most]).await else { return };
                        let _ = let_through.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                            Some(if left == usize::MAX { left } else { left - read })
                        });
                        if to_server.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        door
    }

    fn open(&self) {
        self.let_through.store(usize::MAX, Ordering::SeqCst);
        self.opened.notify_waiters();
        self.opened.notify_one();
    }
}

async fn prepared() -> Target {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    target
}

fn live(target: &Target) -> impl Table + Clone + use<> {
    table_of(target, "live", &version(), "")
}

fn owner(number: u64) -> Owner {
    Owner { number, uuid: Uuid::from_u128(u128::from(number)) }
}

fn hour(hour: i64) -> Windows {
    Windows { from: at(hour), to: at(hour + 1) }
}

/// A chunk of the window at `hour`: its body.
fn chunk(hour: i64, rows: u64) -> Vec<u8> {
    body_of(&version(), &[(at(hour), &block(&mut Draw(hour as u64), hour, rows))])
}

/// The number of a statement of which there is no other.
fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn statement(owner: &Owner, deed: Deed) -> Statement<'_> {
    Statement { owner, deed, number: fresh() }
}

/// Sends an INSERT of owner `number`.
fn insert(table: impl Table + 'static, number: u64, body: Vec<u8>) -> JoinHandle<Result<(), Failure>> {
    tokio::spawn(async move { table.insert(statement(&owner(number), Deed::Insert), body).await })
}

/// How long a few INSERTs take here and now, so that a moment drawn from it falls into them on any machine.
async fn time_of(inserting: impl IntoIterator<Item = JoinHandle<Result<(), Failure>>>) -> Duration {
    let begin = std::time::Instant::now();
    for inserting in inserting {
        inserting.await.expect("no panic").expect("inserted");
    }
    begin.elapsed()
}

async fn running(target: &Target, what: &str) -> String {
    let sql = format!("SELECT {what} FROM system.processes WHERE query_id LIKE 'weir:{}:%:insert'", target.database);
    ask(target, &sql).await
}

async fn rows(target: &Target, hour_: i64) -> u64 {
    live(target).ask(hour(hour_)).await.expect("an answer").rows
}

/// An INSERT that has passed its fence, and whose body has not come to its end.
async fn begun(target: &Target, door: &Door, body: Vec<u8>) -> JoinHandle<Result<(), Failure>> {
    let (table, number) = (live(&door.target), fresh());
    let inserting =
        tokio::spawn(
            async move { table.insert(Statement { owner: &owner(1), deed: Deed::Insert, number }, body).await },
        );
    let looked = format!("sumIf(ProfileEvents['ScalarSubqueriesCacheMiss'], query_id LIKE '%:{number}:insert')");
    until("the fence to have been looked at", async || running(target, &looked).await != "0").await;
    inserting
}

const LARGE: u64 = 60_000;

/// So often at most a moment is drawn until all that may come of a kill has been seen.
const DRAWS_MAX: i64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_is_looked_at_when_the_statement_starts_and_not_again_when_its_body_has_come() {
    let target = prepared().await;
    let body = chunk(0, LARGE);
    assert!(body.len() > 4 * READ_AHEAD_BYTES, "{} bytes", body.len());
    live(&target).raise(&owner(1)).await.expect("raised");
    let door = Door::before(&target, 2 * READ_AHEAD_BYTES).await;
    let inserting = begun(&target, &door, body).await;
    live(&target).raise(&owner(2)).await.expect("raised");
    door.open();
    inserting.await.expect("no panic").expect("it had started before the raise");
    assert_eq!(rows(&target, 0).await, LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_is_killed_is_gone_when_the_kill_answers_and_leaves_no_row() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    let door = Door::before(&target, 2 * READ_AHEAD_BYTES).await;
    let inserting = begun(&target, &door, chunk(0, LARGE)).await;
    live(&target).raise(&owner(2)).await.expect("raised");
    let killing = {
        let table = live(&target);
        tokio::spawn(async move { table.kill_queries().await })
    };
    until("the kill to be seen", async || {
        killing.is_finished() || running(&target, "countIf(is_cancelled)").await != "0"
    })
    .await;
    // The server reads the rest of the body before it answers: it comes now, and makes no row.
    door.open();
    killing.await.expect("no panic").expect("killed");
    assert_eq!(running(&target, "count()").await, "0");
    let failure = inserting.await.expect("no panic").expect_err("it was killed");
    assert_eq!(failure.kind, Kind::Unclear, "{failure:?}");
    assert_eq!(rows(&target, 0).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_killed_at_any_moment_are_whole_or_not_there_and_nothing_comes_after_the_kill() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    let usual = time_of([DRAWS_MAX].map(|hour| insert(live(&target), 1, chunk(hour, 30_000)))).await;
    let (mut draw, mut killed, mut whole) = (Draw(5), 0, 0);
    let mut held = Vec::new();
    for hour in 0..DRAWS_MAX {
        // Some that a kill has met, and some that it has not; some of which all is there, and some of which nothing is.
        let seen = |some: i64| 0 < some && some < hour;
        if hour >= 30 && seen(killed) && seen(whole) {
            break;
        }
        let number = hour as u64 + 2;
        live(&target).raise(&owner(number)).await.expect("raised");
        let inserting = insert(live(&target), number, chunk(hour, 30_000));
        tokio::time::sleep(usual.mul_f64(draw.below(150) as f64 / 100.0)).await;
        live(&target).raise(&owner(number + 1)).await.expect("raised");
        live(&target).kill_queries().await.expect("killed");
        held.push(rows(&target, hour).await);
        match inserting.await.expect("no panic") {
            Ok(()) => assert_eq!(held[hour as usize], 30_000, "it answered well"),
            Err(failure) => {
                assert!(matches!(failure.kind, Kind::Unclear | Kind::Refused), "{failure:?}");
                assert!([0, 30_000].contains(&held[hour as usize]), "{} rows", held[hour as usize]);
                killed += 1;
            }
        }
        whole += i64::from(held[hour as usize] > 0);
    }
    let drawn = held.len() as i64;
    assert!(0 < killed && killed < drawn, "{killed} of {drawn} were met by a kill");
    assert!(0 < whole && whole < drawn, "{whole} of {drawn} are in the table");
    for (hour, held) in held.iter().enumerate() {
        assert_eq!(rows(&target, hour as i64).await, *held, "something came after the kill of hour {hour}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_whole_or_not_there_when_the_server_is_killed_at_any_moment() {
    const CHUNKS: i64 = 4;
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(spec(dir.path())).await.expect("clickhouse starts");
    let target = server.target().clone();
    prepare(&target, &version()).await.expect("tables are made");
    live(&target).raise(&owner(1)).await.expect("raised");
    let usual =
        time_of((DRAWS_MAX..DRAWS_MAX + CHUNKS).map(|hour| insert(live(&target), 1, chunk(hour, 20_000)))).await;
    let (mut draw, mut drawn, mut whole, mut acknowledged) = (Draw(3), 0, 0, 0);
    for turn in 0..DRAWS_MAX / CHUNKS {
        if turn >= 8 && 0 < acknowledged && whole < drawn {
            break;
        }
        let hours: Vec<i64> = (0..CHUNKS).map(|n| turn * CHUNKS + n).collect();
        let inserting: Vec<_> = hours.iter().map(|hour| insert(live(&target), 1, chunk(*hour, 20_000))).collect();
        tokio::time::sleep(usual.mul_f64(draw.below(150) as f64 / 100.0)).await;
        let pid = server.pid().expect("it runs");
        // SAFETY: our own child.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        let mut answers = Vec::new();
        for inserting in inserting {
            answers.push(inserting.await.expect("no panic"));
        }
        until("another server", async || server.pid().is_some_and(|again| again != pid) && target.ping().await.is_ok())
            .await;
        for (hour, answer) in hours.iter().zip(answers) {
            let held = rows(&target, *hour).await;
            assert!([0, 20_000].contains(&held), "hour {hour}: {held} rows");
            assert!(answer.is_err() || held > 0, "hour {hour} was acknowledged and is gone");
            drawn += 1;
            whole += i64::from(held > 0);
            acknowledged += i64::from(answer.is_ok());
        }
    }
    assert!(whole < drawn, "all {drawn} chunks are there: no kill has met one");
    assert!(0 < acknowledged, "none of {drawn} chunks was acknowledged: none was there before a kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_one_part() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    ask(&target, "SYSTEM STOP MERGES DB.stats_v1").await;
    // More rows than a block has by default; still more are in the way of the tests beside it.
    insert(live(&target), 1, chunk(0, 80_000)).await.expect("no panic").expect("inserted");
    assert_eq!(ask(&target, "SELECT uniqExact(_part), count() FROM DB.stats_v1").await, "1\t80000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_or_a_record_of_who_is_not_the_largest_does_nothing() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    insert(live(&target), 1, chunk(0, 100)).await.expect("no panic").expect("inserted");
    live(&target).raise(&owner(2)).await.expect("raised");
    let statement =
        |deed| Statement { owner: const { &Owner { number: 1, uuid: Uuid::from_u128(1) } }, deed, number: 2 };
    live(&target).delete(statement(Deed::Delete), hour(0)).await.expect("it answers well");
    assert_eq!(rows(&target, 0).await, 100);
    let refused = live(&target).record(statement(Deed::Done), hour(0), Content::default()).await;
    assert_eq!(refused.expect_err("refused").kind, Kind::Refused);
    let refused = insert(live(&target), 1, chunk(1, 100)).await.expect("no panic").expect_err("refused");
    assert_eq!(refused.kind, Kind::Refused);
    assert_eq!(live(&target).recorded(0, u32::MAX).await.expect("an answer"), []);
    assert_eq!(rows(&target, 1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_delete_is_over_when_nothing_is_rewritten_any_more_and_touches_nothing_after() {
    let target = prepared().await;
    // Until a kill has met one, and at least so often.
    let (mut met, mut turns) = (0, 0..DRAWS_MAX as u64);
    while let Some(turn) = turns.next().filter(|turn| *turn < 4 || met == 0) {
        let (first, second) = (2 * turn + 1, 2 * turn + 2);
        let table = live(&target);
        table.raise(&owner(first)).await.expect("raised");
        for part in 0..4 {
            insert(live(&target), first, chunk(part, 50_000)).await.expect("no panic").expect("inserted");
        }
        let all = Windows { from: at(0), to: at(4) };
        let deleting = {
            let table = table.clone();
            tokio::spawn(async move { table.delete(statement(&owner(first), Deed::Delete), all).await })
        };
        until("a part to be rewritten", async || {
            deleting.is_finished() || table.mutations().await.expect("an answer").rewriting > 0
        })
        .await;
        table.raise(&owner(second)).await.expect("raised");
        table.kill_queries().await.expect("killed");
        table.kill_mutations().await.expect("killed");
        until("the mutations to be over", async || {
            let mutations = table.mutations().await.expect("an answer");
            if mutations.unfinished > 0 {
                table.kill_mutations().await.expect("killed");
            }
            (mutations.unfinished, mutations.rewriting) == (0, 0)
        })
        .await;
        let held = table.ask(all).await.expect("an answer");
        met += u32::from(deleting.await.expect("no panic").is_err());
        // A new owner's rows of the same windows stay, and so do those that were left.
        insert(live(&target), second, chunk(0, 40_000)).await.expect("no panic").expect("inserted");
        ask(&target, "OPTIMIZE TABLE DB.stats_v1").await;
        assert_eq!(table.ask(all).await.expect("an answer").rows, held.rows + 40_000);
        ask(&target, "TRUNCATE TABLE DB.stats_v1").await;
    }
    assert!(met > 0, "no kill has met a DELETE");
}

/// Drops `owners`; returns when nobody can find it any more, which may be before the drop has answered.
async fn drop_owners(target: &Target) -> JoinHandle<String> {
    let on = target.clone();
    let dropping = tokio::spawn(async move { ask(&on, "DROP TABLE DB.owners SYNC").await });
    until("owners to be gone", async || ask(target, "EXISTS DB.owners").await == "0").await;
    dropping
}

#[tokio::test(flavor = "multi_thread")]
async fn without_owners_every_statement_is_refused_but_for_one_that_had_started() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    // Others come and go meanwhile.
    let load: Vec<_> = (1..5_i64)
        .map(|n| {
            let table = live(&target);
            tokio::spawn(async move {
                let mut landed = 0_u64;
                loop {
                    match table.insert(statement(&owner(1), Deed::Insert), chunk(n, 500)).await {
                        Ok(()) => landed += 1,
                        Err(failure) => return (n, landed, failure),
                    }
                }
            })
        })
        .collect();
    until("all to have landed once", async || {
        ask(&target, "SELECT uniqExact(emitted_in) FROM DB.stats_v1").await == "4"
    })
    .await;
    let door = Door::before(&target, 2 * READ_AHEAD_BYTES).await;
    let inserting = begun(&target, &door, chunk(0, LARGE)).await;
    let dropping = drop_owners(&target).await;
    for load in load {
        let (n, times, failure) = load.await.expect("no panic");
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert_eq!(rows(&target, n).await, 500 * times, "an INSERT that failed left rows");
    }
    assert!(!inserting.is_finished() && !dropping.is_finished(), "the drop waits for whom has read owners");
    door.open();
    dropping.await.expect("no panic");
    assert_eq!(rows(&target, 0).await, LARGE, "what had started is over when the drop answers");
    inserting.await.expect("no panic").expect("it had started before the drop");
    let refused = live(&target).delete(statement(&owner(1), Deed::Delete), hour(0)).await;
    let refused = refused.expect_err("it names owners too");
    assert_eq!(refused.kind, Kind::Refused, "{refused:?}");
    assert_eq!(live(&target).largest().await.expect_err("no owners").kind, Kind::Refused);
    assert_eq!(live(&target).mutations().await.expect("an answer"), Mutations::default(), "none waits for owners");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_comes_to_run_without_owners_deletes_nothing_and_is_there_until_it_is_killed() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    insert(live(&target), 1, chunk(0, 100)).await.expect("no panic").expect("inserted");
    ask(&target, "SYSTEM STOP MERGES DB.stats_v1").await;
    let deleting = {
        let table = live(&target);
        tokio::spawn(async move { table.delete(statement(&owner(1), Deed::Delete), hour(0)).await })
    };
    until("the mutation", async || live(&target).mutations().await.expect("an answer").unfinished == 1).await;
    let dropping = drop_owners(&target).await;
    ask(&target, "SYSTEM START MERGES DB.stats_v1").await;
    until("it to have been tried", async || {
        let why = "SELECT count() FROM system.mutations WHERE database = 'DBX' AND latest_fail_reason LIKE '%owners%'";
        ask(&target, &why.replace("DBX", &target.database)).await == "1"
    })
    .await;
    assert_eq!(live(&target).mutations().await.expect("an answer").unfinished, 1);
    live(&target).kill_queries().await.expect("killed");
    live(&target).kill_mutations().await.expect("killed");
    until("it to be gone", async || live(&target).mutations().await.expect("an answer") == Mutations::default()).await;
    deleting.await.expect("no panic").expect_err("it failed, and was killed");
    dropping.await.expect("no panic");
    assert_eq!(rows(&target, 0).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_body_is_small_starts_when_all_of_it_is_there() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    let body = chunk(0, 100);
    // All but the end of the request.
    let door = Door::closed(&target, body.len(), 0).await;
    let inserting = insert(live(&door.target), 1, body);
    until("the door to be closed", async || door.let_through.load(Ordering::SeqCst) == 0).await;
    live(&target).raise(&owner(2)).await.expect("raised");
    assert_eq!(running(&target, "count()").await, "0", "it has started");
    door.open();
    let failure = inserting.await.expect("no panic").expect_err("it starts after the raise");
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    assert_eq!(rows(&target, 0).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_carry_what_replicated_tables_need() {
    let target = prepared().await;
    live(&target).raise(&owner(1)).await.expect("raised");
    let door = Door::before(&target, 2 * READ_AHEAD_BYTES).await;
    let inserting = begun(&target, &door, chunk(0, LARGE)).await;
    let settings = [
        ("insert_quorum", "auto"),
        ("insert_quorum_parallel", "0"),
        ("select_sequential_consistency", "1"),
        ("insert_deduplicate", "0"),
        ("allow_nondeterministic_mutations", "1"),
    ];
    for (name, value) in settings {
        assert_eq!(running(&target, &format!("any(Settings['{name}'])")).await, value, "{name}");
    }
    door.open();
    inserting.await.expect("no panic").expect("a plain table takes no notice of them");
}
