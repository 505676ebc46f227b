//! A table's content, on a real ClickHouse: the same for equal tables, however their rows lie, and for no others.

mod support;

use support::{Draw, HOUR_MS, ask, at, database, live, version, window};
use tokio::sync::mpsc;
use weir_sink::{Between, Content, Limits, Target, contents, prepare, run};

/// Hours of rows; they begin at midnight.
const HOURS: i64 = 30;
/// The columns that hold what was inserted; `visitor_ids` is gone once it was.
const COLUMNS: &str =
    "site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitors, visitor_check";
/// The visitors of the largest row.
const VISITORS: u64 = 100_000;

/// A table as a run leaves it, and a row with many visitors of an import.
async fn written() -> Target {
    let target = database();
    prepare(&target, &version()).await.expect("tables");
    let spec = live(at(0), at(HOURS));
    let (tx, rx) = mpsc::channel(HOURS as usize);
    for hour in 0..HOURS {
        tx.send(window(&mut Draw(hour as u64), hour, 100)).await.expect("room");
    }
    drop(tx);
    run(&target, spec, Limits::of_memory(768 << 20), rx, |_| (), std::future::pending()).await.expect("rows");
    insert_large(&target, VISITORS).await;
    target
}

async fn insert_large(target: &Target, visitors: u64) {
    let window = at(2).ms() / 1000;
    let sql = format!(
        "INSERT INTO DB.stats_v1 (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitor_ids) \
         SELECT 'a.example', 'page', '/large', {window}, {window}, 'old', 200000, 0, \
         arrayMap(id -> intHash64(id), range({visitors}))"
    );
    ask(target, &sql).await;
}

/// The same rows in another database: in another order, in many parts, of which a few are merged.
async fn scattered(source: &Target) -> Target {
    let target = database();
    prepare(&target, &version()).await.expect("tables");
    for part in 0..9 {
        let sql = format!(
            "INSERT INTO DB.stats_v1 ({COLUMNS}) SELECT {COLUMNS} FROM {}.stats_v1 \
             WHERE sipHash64(value, window_start) % 9 = {part} ORDER BY rand()",
            source.database
        );
        ask(&target, &sql).await;
        if part == 5 {
            ask(&target, "OPTIMIZE TABLE DB.stats_v1 FINAL").await;
        }
    }
    target
}

async fn content(target: &Target) -> Vec<(i64, Content)> {
    contents(target, &version(), Between::default()).await.expect("a content")
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_tables_have_equal_contents_however_their_rows_lie() {
    let source = written().await;
    let copy = scattered(&source).await;
    let parts = |database: &Target| {
        let database = database.database.clone();
        format!("SELECT count() FROM system.parts WHERE active AND database = '{database}' AND table = 'stats_v1'")
    };
    assert_ne!(ask(&source, &parts(&source)).await, ask(&copy, &parts(&copy)).await, "the rows lie otherwise");
    let days = content(&source).await;
    assert_eq!(days.len(), 2, "a day and a part of one: {days:?}");
    assert_eq!(days.iter().map(|(_, content)| content.rows).sum::<u64>(), HOURS as u64 * 150 + 1);
    assert_eq!(content(&copy).await, days);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_by_one_thing_has_another_digest() {
    let source = written().await;
    let whole = content(&source).await;
    let one_row =
        "(value, emitted_in) = (SELECT min((value, emitted_in)) FROM DB.stats_v1 WHERE startsWith(value, 'second'))";
    let changes = [
        (
            "a measure is one more",
            format!("ALTER TABLE DB.stats_v1 UPDATE page_views = page_views + 1 WHERE {one_row}"),
        ),
        ("a row is gone", format!("ALTER TABLE DB.stats_v1 DELETE WHERE {one_row}")),
        (
            "a row is there twice",
            format!("INSERT INTO DB.stats_v1 ({COLUMNS}) SELECT {COLUMNS} FROM DB.stats_v1 WHERE {one_row}"),
        ),
        ("one visitor less", "ALTER TABLE DB.stats_v1 DELETE WHERE value = '/large'".to_owned()),
        (
            "a state has lost a tenth of its visitors, and its check has not",
            "ALTER TABLE DB.stats_v1 UPDATE visitors = arrayReduce('uniqCombined64State', \
             arrayMap(id -> intHash64(id), range(90000))) WHERE value = '/large'"
                .to_owned(),
        ),
    ];
    for (change, sql) in changes {
        let changed = scattered(&source).await;
        ask(&changed, &format!("{sql} SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1")).await;
        if change == "one visitor less" {
            insert_large(&changed, VISITORS - 1).await;
        }
        let now = content(&changed).await;
        assert_ne!(now, whole, "{change}");
        assert_eq!(now[1], whole[1], "{change}, on the first day");
    }
    // An origin is part of the partition's key, which no UPDATE changes.
    let moved = scattered(&source).await;
    let columns = COLUMNS.replace("origin", "'other'");
    ask(
        &moved,
        &format!("INSERT INTO DB.stats_v1 ({COLUMNS}) SELECT {columns} FROM DB.stats_v1 WHERE value = '/large'"),
    )
    .await;
    ask(&moved, "ALTER TABLE DB.stats_v1 DELETE WHERE origin = 'old' SETTINGS mutations_sync = 2").await;
    assert_ne!(content(&moved).await, whole, "a row of another origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rows_that_left_in_the_range_are_looked_at() {
    let source = written().await;
    let of = async |from: i64, to: i64| {
        let between = Between { from_ms: Some(at(from).ms()), to_ms: Some(at(to).ms()) };
        contents(&source, &version(), between).await.expect("a content")
    };
    let (early, late, both) = (of(3, 7).await, of(7, 11).await, of(3, 11).await);
    let (mut sum, both) = (early[0].1, both[0].1);
    sum += late[0].1;
    assert_eq!((sum, both.rows), (both, 8 * 150));
    let between = Between { from_ms: Some(at(3).ms() + 1), to_ms: Some(at(3).ms() + HOUR_MS) };
    assert_eq!(contents(&source, &version(), between).await.expect("a content"), []);
}
