//! The embedded ClickHouse: it starts, comes back, ends with us, and its users can do what they may.

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{ask, ask_as, spec, until, version};
use weir_sink::server::{ANALYST, Server};
use weir_sink::{SinkError, Target, analyst_faults, analyst_sql, prepare, show};

async fn prepared() -> (tempfile::TempDir, Server, Target) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(spec(dir.path())).await.expect("clickhouse starts");
    let target = server.target().clone();
    prepare(&target, &version()).await.expect("tables are made");
    let zones = BTreeMap::from([("a.example".to_owned(), "Europe/Berlin".to_owned())]);
    show(&target, &version(), &zones, None).await.expect("views are made");
    ask(
        &target,
        "INSERT INTO DB.stats_v1 (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitor_ids) \
         SELECT if(n < 2, 'a.example', 'b.example'), d, if(d = 'site', '', '/x'), toDateTime('2026-03-01 23:30:00', 'UTC'), \
         toDateTime('2026-03-01 23:30:00', 'UTC'), '', 5, 0, [n, 7] FROM (SELECT number AS n, arrayJoin(['site', 'page', 'prop:author']) AS d FROM numbers(3))",
    )
    .await;
    (dir, server, target)
}

fn alive(pid: u32) -> bool {
    // A zombie, which nobody has waited for yet, runs no more.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analyst_selects_from_the_public_views_without_a_password() {
    let (_dir, _server, target) = prepared().await;
    let asked = async |sql: &str| ask_as(&target, ANALYST, "", sql).await;
    assert_eq!(
        asked("SELECT value AS page, sum(page_views), uniqCombined64Merge(visitors) FROM weir.stats WHERE dimension = 'page' GROUP BY page").await,
        Ok("/x\t15\t4".to_owned())
    );
    assert_eq!(
        asked("SELECT page, sum(page_views) FROM weir.pages WHERE site = 'a.example' GROUP BY page").await,
        Ok("/x\t10".to_owned())
    );
    assert_eq!(
        asked("SELECT site, local_day, sum(page_views) FROM weir.sites GROUP BY ALL ORDER BY site").await,
        Ok("a.example\t2026-03-02\t10\nb.example\t2026-03-01\t5".to_owned()),
        "half past eleven in the evening, UTC, is the next day in Berlin"
    );
    assert_eq!(asked("SELECT DISTINCT name, value FROM weir.props").await, Ok("author\t/x".to_owned()));
    for view in weir_schemas::tables::public_views() {
        asked(&format!("SELECT * FROM weir.{view} FORMAT Null")).await.unwrap_or_else(|why| panic!("{view}: {why}"));
    }
    let play = reqwest::Client::builder().no_proxy().build().expect("a client");
    let page = play.get(format!("{}/play", target.url)).send().await.expect("an answer").text().await.expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>") || page.starts_with("<html"), "{}", &page[..100]);
    let played = format!(
        "{}/?user=analyst&add_http_cors_header=1&default_format=JSONCompact&max_result_rows=1000&max_result_bytes=10000000&result_overflow_mode=break",
        target.url
    );
    let answer = play.post(played).body("SELECT sum(page_views) FROM weir.sites").send().await.expect("an answer");
    assert!(answer.status().is_success(), "what /play sends along is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_the_analyst_finds_what_it_must_not_be_able_to_do() {
    let (_dir, _server, target) = prepared().await;
    let analyst = Target { user: ANALYST.to_owned(), password: String::new(), ..target.clone() };
    assert_eq!(analyst_faults(&analyst).await.expect("an answer"), Vec::<String>::new());
    let mighty = analyst_faults(&target).await.expect("an answer");
    assert_eq!(mighty.len(), 9, "the writer can do everything: {mighty:?}");
    let stranger = Target { user: "nobody".to_owned(), ..analyst };
    assert!(analyst_faults(&stranger).await.is_err());
    // The server here cannot make users, but it reads the statements.
    for sql in analyst_sql("weir", "it's secret") {
        ask(&target, &format!("SELECT formatQuery({})", weir_schemas::tables::quote(&sql))).await;
    }
}

#[tokio::test]
async fn an_analyst_sees_what_is_complete_what_is_being_computed_and_what_is_missing() {
    let (_dir, _server, target) = prepared().await;
    let now = async || ask_as(&target, ANALYST, "", COMPLETENESS).await.expect("an answer");
    let record = async |rows: &[(&str, &str, u32, u32)]| {
        let rows: Vec<String> = rows
            .iter()
            .map(|(origin, state, from, to)| format!("(1, '{origin}', 'r', '{state}', {from}, {to}, 1, 1)"))
            .collect();
        let columns = "generation, origin, run, state, window_from, window_to, rows, digest";
        ask(&target, &format!("INSERT INTO DB.emissions ({columns}) VALUES {}", rows.join(", "))).await;
    };
    ask(&target, "TRUNCATE TABLE DB.emissions").await;
    assert_eq!(now().await, "");
    // A statement that arrived twice, another generation, and an import.
    record(&[("", "done", 60, 120), ("", "done", 0, 60), ("", "done", 60, 120), ("i1", "done", 0, 60)]).await;
    ask(&target, "INSERT INTO DB.emissions (generation, state, window_from, window_to) VALUES (2, 'done', 120, 180)")
        .await;
    assert_eq!(now().await, "\tcomplete\t0\t120\t120\ni1\tcomplete\t0\t60\t60");
    // Live has left out what was not computed while it was paused, and has done nothing since.
    record(&[("", "left", 120, 600)]).await;
    assert_eq!(now().await, "\tcomplete\t0\t120\t120\n\tcomputing\t120\t600\t120\ni1\tcomplete\t0\t60\t60");
    record(&[("", "done", 600, 660), ("", "done", 120, 180)]).await;
    assert_eq!(
        now().await,
        "\tcomplete\t0\t180\t660\n\tcomputing\t180\t600\t660\n\tcomplete\t600\t660\t660\ni1\tcomplete\t0\t60\t60"
    );
    // What was filled is one range again; what was given up stays missing.
    record(&[("", "done", 180, 600), ("", "lost", 660, 720), ("", "done", 720, 780)]).await;
    assert_eq!(
        now().await,
        "\tcomplete\t0\t660\t780\n\tmissing\t660\t720\t780\n\tcomplete\t720\t780\t780\ni1\tcomplete\t0\t60\t60"
    );
    // Live was paused before it had done anything: its first hours are what was left out.
    ask(&target, "TRUNCATE TABLE DB.emissions").await;
    record(&[("", "left", 60, 600)]).await;
    assert_eq!(now().await, "\tcomputing\t60\t600\t0");
    record(&[("", "done", 600, 660)]).await;
    assert_eq!(now().await, "\tcomputing\t60\t600\t660\n\tcomplete\t600\t660\t660");
    record(&[("", "done", 60, 300)]).await;
    assert_eq!(now().await, "\tcomplete\t60\t300\t660\n\tcomputing\t300\t600\t660\n\tcomplete\t600\t660\t660");
}

const COMPLETENESS: &str = "SELECT origin, state, toUnixTimestamp(range_from), toUnixTimestamp(range_to), \
                            toUnixTimestamp(complete_through) FROM weir.completeness ORDER BY origin, range_from";

#[tokio::test(flavor = "multi_thread")]
async fn an_analyst_can_do_nothing_else() {
    let (dir, _server, target) = prepared().await;
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "the host's own").expect("written");
    let secret = secret.path().display();
    let refused = [
        "SELECT * FROM weir.stats_v1".to_owned(),
        "SELECT * FROM weir.emissions".to_owned(),
        "SELECT * FROM weir.owners".to_owned(),
        "SELECT * FROM merge('weir', 'stats_v1')".to_owned(),
        "SELECT * FROM view(SELECT * FROM weir.stats_v1)".to_owned(),
        "SELECT * FROM mergeTreeIndex('weir', 'stats_v1')".to_owned(),
        "SELECT * FROM loop(weir.owners)".to_owned(),
        "SELECT * FROM system.processes".to_owned(),
        "SELECT * FROM system.users".to_owned(),
        "SELECT * FROM system.grants".to_owned(),
        "SELECT * FROM system.parts".to_owned(),
        "SELECT * FROM system.server_settings".to_owned(),
        "SELECT * FROM system.stack_trace".to_owned(),
        "SHOW CREATE TABLE weir.stats_v1".to_owned(),
        format!("SELECT * FROM url('{}/ping', 'LineAsString', 's String')", target.url),
        format!("SELECT * FROM file('{secret}', 'LineAsString')"),
        // The scalar function, which asks for no grant.
        format!("SELECT file('{secret}')"),
        "SELECT file('/etc/passwd')".to_owned(),
        format!("SELECT file('/proc/{}/environ')", std::process::id()),
        "SELECT * FROM remote('127.0.0.1', 'system.one')".to_owned(),
        "SELECT * FROM remoteSecure('127.0.0.1', 'system.one')".to_owned(),
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/key.csv', 'CSV', 'a String')".to_owned(),
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')".to_owned(),
        "SELECT * FROM sqlite('/tmp/x.db', 't')".to_owned(),
        "SELECT * FROM executable('id', 'LineAsString', 's String')".to_owned(),
        "INSERT INTO weir.owners VALUES ('v1/live', 'x')".to_owned(),
        "INSERT INTO weir.stats_v1 (site) VALUES ('x')".to_owned(),
        "INSERT INTO weir.stats (site) VALUES ('x')".to_owned(),
        "INSERT INTO FUNCTION file('/tmp/x', 'CSV', 'a String') VALUES ('x')".to_owned(),
        "ALTER TABLE weir.stats_v1 DELETE WHERE 1".to_owned(),
        "CREATE TABLE weir.x (a Int8) ENGINE = Memory".to_owned(),
        "CREATE TEMPORARY TABLE x (a Int8)".to_owned(),
        "CREATE DATABASE x".to_owned(),
        "CREATE FUNCTION f AS x -> x".to_owned(),
        "DROP VIEW weir.stats".to_owned(),
        "TRUNCATE TABLE weir.stats_v1".to_owned(),
        "SYSTEM SHUTDOWN".to_owned(),
        "SYSTEM STOP LISTEN HTTP".to_owned(),
        "SYSTEM STOP MERGES weir.stats_v1".to_owned(),
        "BACKUP TABLE weir.stats TO File('x')".to_owned(),
        "SET readonly = 0".to_owned(),
        "SET max_memory_usage = 0".to_owned(),
        "SELECT 1 SETTINGS max_memory_usage = 100000000000".to_owned(),
        "SELECT 1 SETTINGS max_memory_usage_for_user = 0".to_owned(),
        "SELECT 1 SETTINGS max_threads = 64".to_owned(),
        "SELECT 1 SETTINGS max_execution_time = 0".to_owned(),
        "SELECT 1 SETTINGS max_concurrent_queries_for_user = 0".to_owned(),
        "SELECT 1 SETTINGS os_threads_nice_value_query = -20".to_owned(),
    ];
    for sql in refused {
        let answer = ask_as(&target, ANALYST, "", &sql).await;
        assert!(answer.is_err(), "{sql} gave {answer:?}");
    }
    // `default` is there for the server's own start only: no table, no file, no command.
    for sql in [
        "SELECT * FROM weir.stats_v1",
        "SELECT * FROM weir.stats",
        "SYSTEM STOP LISTEN HTTP",
        "SELECT * FROM system.users",
        "SELECT file('/etc/passwd')",
        "SELECT count() FROM system.numbers",
    ] {
        let answer = ask_as(&target, "default", "", sql).await;
        assert!(answer.is_err(), "default: {sql} gave {answer:?}");
    }
    assert!(ask_as(&target, "weir", "", "SELECT 1").await.is_err(), "the writer needs its password");
    let password = std::fs::read_to_string(dir.path().join("writer-password")).expect("a password");
    let users = ask_as(&target, ANALYST, "", &format!("SELECT file('{}/users.xml')", dir.path().display())).await;
    assert!(!users.unwrap_or_default().contains(&password), "users.xml holds no password");
    assert_eq!(ask(&target, "SELECT count() FROM DB.stats_v1").await, "9", "nothing was changed");
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["writer-password", "users.xml"] {
        let mode = std::fs::metadata(dir.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runaway_queries_of_the_analyst_do_not_stop_the_writer() {
    let (_dir, _server, target) = prepared().await;
    let over = Arc::new(AtomicBool::new(false));
    let runaways: Vec<_> = [
        "SELECT count() FROM numbers(10000000000) AS a, numbers(10000000000) AS b WHERE a.number > b.number",
        "SELECT number FROM numbers(2000000000) ORDER BY cityHash64(number) FORMAT Null",
        "SELECT uniqExact(number) FROM numbers(10000000000)",
        "SELECT groupArray(number) FROM numbers(10000000000) FORMAT Null",
    ]
    .into_iter()
    .map(|sql| {
        let (target, over) = (target.clone(), over.clone());
        // One that ran into its limits is sent again: there is a runaway all the time.
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                assert!(ask_as(&target, ANALYST, "", sql).await.is_err(), "{sql} came to an end");
            }
        })
    })
    .collect();
    until("the runaways to run", async || {
        ask(&target, "SELECT count() > 0 FROM system.processes WHERE user = 'analyst'").await == "1"
    })
    .await;
    for n in 0..20 {
        ask(
            &target,
            &format!(
                "INSERT INTO DB.stats_v1 (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitor_ids) \
                 SELECT 'w', 'page', toString(number), 0, 0, '', 1, 0, range({n}) FROM numbers(20000)"
            ),
        )
        .await;
    }
    assert_eq!(ask(&target, "SELECT count() FROM DB.stats_v1 WHERE site = 'w'").await, "400000");
    over.store(true, Ordering::SeqCst);
    ask(&target, "KILL QUERY WHERE user = 'analyst' SYNC").await;
    for runaway in runaways {
        runaway.await.expect("it ends with an error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_with_its_rows_and_a_stopped_one_is_gone() {
    let (_dir, server, target) = prepared().await;
    let first = server.pid().expect("it runs");
    // SAFETY: our own child.
    unsafe { libc::kill(first.cast_signed(), libc::SIGKILL) };
    until("another process", async || server.pid().is_some_and(|pid| pid != first)).await;
    assert_eq!(ask(&target, "SELECT count() FROM DB.stats_v1").await, "9");
    let second = server.pid().expect("it runs");
    server.stop().await;
    assert!(!alive(second));
    assert!(target.ping().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_outlives_a_weir_that_was_killed() {
    // A process that starts a server as weir does and is then killed: this test's own executable, on the test below.
    let dir = tempfile::tempdir().expect("a directory");
    let mut weir = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "a_weir_to_be_killed", "--nocapture"])
        .env("WEIR_TEST_DIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let pid_file = dir.path().join("pid");
    until("the server's pid", async || std::fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty())).await;
    let pid: u32 = std::fs::read_to_string(&pid_file).expect("written").parse().expect("a number");
    assert!(alive(pid));
    weir.kill().expect("SIGKILL");
    weir.wait().expect("it is gone");
    until("the server's end", async || !alive(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weir_to_be_killed() {
    // By itself it has nothing to show: the test above runs it in a process of its own, and kills that.
    let Some(dir) = std::env::var_os("WEIR_TEST_DIR") else { return };
    let data = tempfile::tempdir().expect("a directory");
    let server = Server::start(spec(data.path())).await.expect("clickhouse starts");
    let dir = std::path::PathBuf::from(dir);
    std::fs::write(dir.join("new"), server.pid().expect("it runs").to_string()).expect("written");
    std::fs::rename(dir.join("new"), dir.join("pid")).expect("renamed");
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_strangers_could_use_or_that_is_not_there_is_not_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut open = spec(dir.path());
    open.listen_host = "0.0.0.0".to_owned();
    let why = Server::start(open).await.expect_err("no password").to_string();
    assert!(why.contains("analyst_password"), "{why}");
    let mut missing = spec(dir.path());
    missing.program = weir_sink::server::Program::Embedded { lib: dir.path().join("libchdb.so") };
    let why = Server::start(missing).await.expect_err("no library").to_string();
    assert!(why.contains("WEIR_CHDB_LIB"), "{why}");
    let mut broken = spec(dir.path());
    let lib = dir.path().join("libchdb.so");
    std::fs::write(&lib, "not a library").expect("written");
    broken.program = weir_sink::server::Program::Embedded { lib };
    let why = Server::start(broken).await.expect_err("no library");
    assert!(matches!(&why, SinkError::Server(said) if said.contains("cannot load")), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_analysts_password_is_asked_for_when_it_has_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut with = spec(dir.path());
    with.analyst_password = "o'pen <&>".to_owned();
    let server = Server::start(with).await.expect("clickhouse starts");
    assert!(ask_as(server.target(), ANALYST, "", "SELECT 1").await.is_err());
    assert_eq!(ask_as(server.target(), ANALYST, "o'pen <&>", "SELECT 1").await, Ok("1".to_owned()));
}
