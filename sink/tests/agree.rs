//! Two generations' tables, written by runs of different versions over the same hits, compared on a real ClickHouse.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::{DAY_ONE, Draw, HOUR_MS, ask, database};
use tokio::sync::mpsc;
use weir_schemas::{
    Closed, Comparable, Emission, OTHER, Origin, Region, RowBlock, SchemaVersion, Strings, WindowStart,
};
use weir_sink::agree::{Agreed, DIFFERENCES_MAX, Difference, Pair, Progress, Sides, Why, agree};
use weir_sink::{Left, Limits, RunSpec, Target, prepare, run};

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const DAY: i64 = DAY_ONE / 24;
/// The hits lie in three days, and are on time in the first minutes of a fourth.
const FROM_MS: i64 = DAY_ONE * HOUR_MS;
const TO_MS: i64 = FROM_MS + 72 * HOUR_MS;
const SITES: [&str; 3] = ["a.example", "b.example", "c'é\\.example"];
const COLUMNS: &str =
    "site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitors, visitor_check";
const NOW: &str = "SETTINGS mutations_sync = 2";

fn version(number: u32, width: &str, lateness: &str, values_max: usize) -> SchemaVersion {
    with_dimensions(number, width, lateness, values_max, r#""site", "page", "browser", "os", "prop:*""#)
}

fn with_dimensions(number: u32, width: &str, lateness: &str, values_max: usize, dimensions: &str) -> SchemaVersion {
    let text = format!(
        "number = {number}\nwidth = \"{width}\"\nlateness = \"{lateness}\"\ndimensions = [{dimensions}]\n\
         measures = [\"page_views\", \"visitors\", \"bot_events\"]\nrules = 1\nvalues_max = {values_max}\n"
    );
    SchemaVersion::parse(&text, "a test").expect("a version")
}

#[derive(Debug, Clone)]
struct Hit {
    t: i64,
    a: i64,
    site: &'static str,
    page: u64,
    browser: u64,
    os: u64,
    visitor: u64,
    bot: bool,
}

/// Hits of three days, many of them late, some by a day.
fn hits() -> Vec<Hit> {
    let draw = &mut Draw(7);
    let hit = |_| {
        let t = FROM_MS + draw.below((TO_MS - FROM_MS) as u64) as i64;
        let late = match draw.below(20) {
            0 => 23 * HOUR_MS + draw.below(5 * HOUR_MS as u64) as i64,
            1..8 => draw.below(90 * SECOND_MS as u64) as i64,
            _ => 0,
        };
        // A quarter within ten minutes of a day: rows of more than one hit, and more values than some versions leave.
        let t = if draw.below(4) == 0 { t - t % (24 * HOUR_MS) + t % (10 * MINUTE_MS) } else { t };
        Hit {
            t,
            a: t + late,
            site: SITES[draw.below(3) as usize],
            page: draw.below(9),
            browser: draw.below(3),
            os: draw.below(3),
            visitor: 1 + draw.below(400),
            bot: draw.below(10) == 0,
        }
    };
    (0..1500).map(hit).collect()
}

/// The counts of a row, and its visitors.
type Held = ([u64; 2], BTreeSet<u64>);

/// Site, dimension, window start (ms), value.
type Key = (String, String, i64, String);

/// Window → key → what the row holds; by the book.
fn windows(version: &SchemaVersion, hits: &[Hit]) -> BTreeMap<WindowStart, BTreeMap<Key, Held>> {
    let mut windows: BTreeMap<WindowStart, BTreeMap<_, Held>> = BTreeMap::new();
    for hit in hits {
        let start = version.width.window_of(hit.t).ms();
        let emitted = version.width.window_of(if hit.a - hit.t <= version.lateness_ms { hit.t } else { hit.a });
        let dimensions = [
            ("site", String::new()),
            ("page", format!("/{}'ü", hit.page)),
            ("browser", format!("browser {}", hit.browser)),
            ("os", format!("os {}", hit.os)),
            ("prop:author", format!("{}", hit.page % 2)),
        ];
        let has = |name: &str| {
            version.dimensions.iter().any(|of| of.name() == name || name.starts_with("prop:") && of.name() == "prop:*")
        };
        for (dimension, value) in dimensions.into_iter().filter(|(name, _)| has(name)) {
            let key = (hit.site.to_owned(), dimension.to_owned(), start, value);
            let row = windows.entry(emitted).or_default().entry(key).or_default();
            row.0[usize::from(hit.bot)] += 1;
            if !hit.bot {
                row.1.insert(hit.visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            }
        }
    }
    for rows in windows.values_mut() {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((site, dimension, start, value), held) in std::mem::take(rows) {
            groups.entry((site, dimension, start)).or_default().push((value, held));
        }
        for ((site, dimension, start), mut values) in groups {
            values.sort_by_key(|(value, held)| (std::cmp::Reverse(held.0[0] + held.0[1]), value.clone()));
            for (at, (value, held)) in values.into_iter().enumerate() {
                let value = if at < version.values_max { value } else { OTHER.to_owned() };
                let row = rows.entry((site.clone(), dimension.clone(), start, value)).or_default();
                row.0[0] += held.0[0];
                row.0[1] += held.0[1];
                row.1.extend(held.1);
            }
        }
    }
    windows
}

/// Writes them as a run of this version does.
async fn write(target: &Target, version: &SchemaVersion, origin: &str, hits: &[Hit]) {
    prepare(target, version).await.expect("tables are made");
    let windows = windows(version, hits);
    let (from, to) = (version.width.window_of(FROM_MS), version.width.window_of(TO_MS + 48 * HOUR_MS));
    let (tx, rx) = mpsc::channel(windows.len() + 1);
    for (window, rows) in windows {
        let (mut strings, mut block) = (Strings::default(), RowBlock::default());
        for ((site, dimension, start, value), (counts, visitors)) in rows {
            block.site.push(strings.push(&site));
            block.dimension.push(strings.push(&dimension));
            block.value.push(strings.push(&value));
            block.window_start_ms.push(start);
            block.counts.extend(counts);
            block.visitors.extend(visitors);
            block.visitors_end.push(block.visitors.len());
        }
        block.strings = strings;
        tx.send(Closed::Window(Emission { window, blocks: vec![block] })).await.expect("room");
    }
    tx.send(Closed::Through(to)).await.expect("room");
    drop(tx);
    let (run_name, origin): (String, Origin) = (format!("v{}-{origin}", version.number), origin.to_owned());
    let version = version.clone();
    let spec = RunSpec { run: run_name, version, origin, first: from, from, to: Some(to), left: Left::Passed };
    run(target, spec, Limits::of_memory(768 << 20), rx, |_| (), std::future::pending()).await.expect("it ends");
}

/// Of live rows, those that both have whole.
fn region(old: &SchemaVersion, new: &SchemaVersion) -> Region {
    Comparable::of(old, new).region(FROM_MS + HOUR_MS, TO_MS - HOUR_MS).expect("a region")
}

fn pair(target: &Target, old: &SchemaVersion, new: &SchemaVersion) -> Pair {
    Pair {
        target: target.clone(),
        old: old.clone(),
        new: new.clone(),
        origin: String::new(),
        region: Some(region(old, new)),
        accepted: BTreeSet::new(),
        from_day: None,
    }
}

/// It as a condition.
fn times(region: Region) -> String {
    format!(
        "window_start >= {} AND window_start < {} AND emitted_in < {}",
        region.from.ms() / 1000,
        region.before.ms() / 1000,
        region.closed.ms() / 1000
    )
}

async fn compared(pair: &Pair) -> Agreed {
    agree(pair, |_| std::future::ready(())).await.expect("compared")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_same_hits_agree_however_their_rows_are_cut() {
    let target = database();
    let old = version(1, "1m", "10s", 1000);
    write(&target, &old, "", &hits()).await;
    let new = [
        (version(2, "1m", "10s", 1000), true),
        (version(3, "5m", "10s", 1000), false),
        (version(4, "1m", "1m", 1000), false),
        (version(5, "15m", "2m", 2), false),
        (version(6, "1m", "10s", 1), false),
    ];
    for (new, is_cut_alike) in new {
        write(&target, &new, "", &hits()).await;
        let pair = pair(&target, &old, &new);
        let found = compared(&pair).await;
        assert_eq!((found.differing_count, found.differing, found.expected), (0, vec![], vec![]), "{new:?}");
        let times = times(pair.region.unwrap());
        let count = async |number: u32, what: &str| -> u64 {
            let sql = format!("SELECT {what} FROM DB.stats_v{number} WHERE {times}");
            ask(&target, &sql).await.parse().unwrap()
        };
        let rows = Sides { old: count(1, "count()").await, new: count(new.number, "count()").await };
        assert!(rows.old > 4000 && rows.new > 1000, "{rows:?}");
        assert_eq!(found.compared.rows, rows);
        assert_eq!((found.compared.sites, found.compared.days), (3, 3));
        let other = format!("uniqExactIf((site, dimension, toDate(window_start)), value = '{OTHER}')");
        assert_eq!(found.compared.with_other, count(new.number, &other).await);
        assert_eq!(found.compared.with_other > 0, new.values_max < 1000);
        // Three numbers and the check, but where `(other)` forbids it.
        let groups = count(1, "uniqExact(site, dimension, toDate(window_start))").await;
        let checked = if new.width == old.width && new.lateness_ms == old.lateness_ms {
            groups - found.compared.with_other
        } else {
            0
        };
        assert_eq!(found.compared.sums, 3 * groups + checked);
        assert!(found.compared.values >= groups - found.compared.with_other);
        let differently = rows.old != rows.new;
        assert_eq!(differently, !is_cut_alike, "{rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dimension_that_is_called_otherwise_is_compared_as_itself_and_by_its_old_name_it_is_another() {
    let pair = alike().await;
    let mut new = pair.new.clone();
    new.names.call("page", "path").unwrap();
    let renamed = Pair { new, ..pair };
    let rename = |which: &str| {
        let columns =
            COLUMNS.replacen("dimension", &format!("if(dimension = 'page' AND {which}, 'path', dimension)"), 1);
        format!("INSERT INTO DB.stats_v2 ({COLUMNS}) SELECT {columns} FROM DB.kept")
    };
    for (which, is_right) in [("1", true), ("site != 'a.example'", false), ("0", false)] {
        ask(&renamed.target, "TRUNCATE TABLE DB.stats_v2").await;
        ask(&renamed.target, &rename(which)).await;
        let found = compared(&renamed).await;
        assert_eq!(found.differing_count == 0, is_right, "{which}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compared_before_a_day_is_not_compared_again() {
    let pair = alike().await;
    let missing = "toDate(window_start) = '2026-03-01'";
    ask(&pair.target, &format!("ALTER TABLE DB.stats_v2 DELETE WHERE {missing} {NOW}")).await;
    let whole = compared(&pair).await;
    assert!(whole.differing_count > 0 && whole.differing.iter().all(|of| of.day == DAY), "{whole:?}");
    let rest = compared(&Pair { from_day: Some(DAY + 1), ..pair.clone() }).await;
    assert_eq!((rest.differing_count, rest.compared.days), (0, 2));
    let rows = format!("SELECT count() FROM DB.stats_v1 WHERE {} AND NOT ({missing})", times(pair.region.unwrap()));
    assert_eq!(rest.compared.rows.old, number(&pair.target, &rows).await, "all of the other days");
}

#[tokio::test(flavor = "multi_thread")]
async fn measures_that_may_differ_are_told_with_their_size_where_other_hits_are_bots() {
    let pair = alike().await;
    let newer = Pair { new: SchemaVersion { rules: 2, ..pair.new.clone() }, ..pair.clone() };
    assert_eq!(compared(&newer).await.measures, [], "they do not differ");
    let all = "site != '' AND page_views > 0";
    let update = "UPDATE page_views = page_views - 1, bot_events = bot_events + 1";
    ask(&pair.target, &format!("ALTER TABLE DB.stats_v2 {update} WHERE {all} {NOW}")).await;
    for (from_day, which) in [(None, "1"), (Some(DAY + 1), "toDate(window_start) > '2026-03-01'")] {
        let found = compared(&Pair { from_day, ..newer.clone() }).await;
        assert_eq!(found.differing_count, 0, "no hit is lost");
        let mut want = Vec::new();
        for measure in ["page_views", "bot_events"] {
            let mut sides = [0, 0];
            for (side, table) in sides.iter_mut().zip(["stats_v1", "stats_v2"]) {
                let of = times(newer.region.unwrap());
                let sql =
                    format!("SELECT sum({measure}) FROM DB.{table} WHERE dimension = 'site' AND {of} AND {which}");
                *side = number(&pair.target, &sql).await;
            }
            want.push((measure, Sides { old: sides[0], new: sides[1] }));
        }
        assert_eq!(found.measures, want, "{which}");
        assert_eq!(found.why_measures(), "other hits are bots");
    }
    assert_eq!(compared(&pair).await.measures, [], "where the same hits are bots it is a difference");
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_are_complete_are_compared_as_a_whole() {
    let target = database();
    let (old, new) = (version(1, "1m", "0s", 1000), version(2, "5m", "0s", 1000));
    // An old event's arrival is its own time.
    let hits: Vec<Hit> = hits().into_iter().map(|hit| Hit { a: hit.t, ..hit }).collect();
    for version in [&old, &new] {
        write(&target, version, "i-1", &hits).await;
        write(&target, version, "i-2", &hits[..9]).await;
    }
    let pair = Pair { origin: "i-1".to_owned(), region: None, ..pair(&target, &old, &new) };
    let found = compared(&pair).await;
    assert_eq!((found.differing_count, &found.differing), (0, &vec![]));
    let rows = ask(&target, "SELECT count() FROM DB.stats_v1 WHERE origin = 'i-1'").await;
    assert_eq!(found.compared.rows.old.to_string(), rows);
    let last = "SELECT max(window_start) FROM DB.stats_v2 WHERE origin = 'i-1'";
    ask(&target, &format!("ALTER TABLE DB.stats_v2 DELETE WHERE origin = 'i-1' AND window_start = ({last}) {NOW}"))
        .await;
    let found = compared(&pair).await;
    assert!(found.differing_count > 0 && found.differing.iter().all(|of| of.day == DAY + 2), "{found:?}");
    let other = Pair { origin: "i-2".to_owned(), ..pair };
    assert_eq!(compared(&other).await.differing_count, 0, "the other import is as it was");
}

/// Two tables that agree, and the second one's rows once more.
async fn alike() -> Pair {
    let target = database();
    let (old, new) = (version(1, "1m", "10s", 1000), version(2, "1m", "10s", 1000));
    write(&target, &old, "", &hits()).await;
    write(&target, &new, "", &hits()).await;
    ask(&target, "CREATE TABLE DB.kept AS DB.stats_v2").await;
    ask(&target, &format!("INSERT INTO DB.kept ({COLUMNS}) SELECT {COLUMNS} FROM DB.stats_v2")).await;
    pair(&target, &old, &new)
}

async fn put_back(target: &Target) {
    ask(target, "TRUNCATE TABLE DB.stats_v2").await;
    ask(target, &format!("INSERT INTO DB.stats_v2 ({COLUMNS}) SELECT {COLUMNS} FROM DB.kept")).await;
}

async fn number(target: &Target, sql: &str) -> u64 {
    ask(target, sql).await.parse().unwrap_or_else(|_| panic!("{sql}"))
}

fn difference(key: (i64, &str, &str, Option<&str>), what: &'static str, old: u64, new: u64) -> Difference {
    let (day, site, dimension, value) = key;
    let (site, dimension, value) = (site.to_owned(), dimension.to_owned(), value.map(str::to_owned));
    Difference { day, site, dimension, value, what, numbers: Sides { old, new } }
}

/// A row of the second day with a page view, of the third site.
const ROW: &str = "site = 'c\\'é\\\\.example' AND dimension = 'page' AND value = '/3\\'ü' AND window_start = \
                   (SELECT min(window_start) FROM DB.kept WHERE site = 'c\\'é\\\\.example' AND dimension = 'page' AND \
                   value = '/3\\'ü' AND page_views > 0 AND toDate(window_start) = '2026-03-02' AND emitted_in = window_start) \
                   AND emitted_in = window_start";

/// Page views, visitors and visitor check of the key of [`ROW`], of its page or of all of them.
async fn held(target: &Target, table: &str, of_all: bool) -> [u64; 3] {
    let page = if of_all { "" } else { "AND value = '/3\\'ü'" };
    let of = format!(
        "FROM DB.{table} WHERE site = 'c\\'é\\\\.example' AND dimension = 'page' AND toDate(window_start) = '2026-03-02' \
         AND emitted_in < toDateTime({}) {page}",
        (TO_MS - HOUR_MS) / 1000
    );
    let mut numbers = [0; 3];
    for (at, what) in ["sum(page_views)", "uniqCombined64Merge(visitors)", "sum(visitor_check)"].iter().enumerate() {
        numbers[at] = number(target, &format!("SELECT {what} {of}")).await;
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_missing_doubled_or_changed_is_named_with_what_either_table_holds() {
    let pair = alike().await;
    let target = &pair.target;
    assert_eq!(number(target, &format!("SELECT count() FROM DB.stats_v2 WHERE {ROW}")).await, 1);
    let damages = [
        ("missing", format!("ALTER TABLE DB.stats_v2 DELETE WHERE {ROW} {NOW}")),
        ("doubled", format!("INSERT INTO DB.stats_v2 ({COLUMNS}) SELECT {COLUMNS} FROM DB.kept WHERE {ROW}")),
        ("changed", format!("ALTER TABLE DB.stats_v2 UPDATE page_views = page_views + 1 WHERE {ROW} {NOW}")),
    ];
    for (damage, sql) in damages {
        assert_eq!(compared(&pair).await.differing_count, 0);
        let sql =
            format!("{sql} {}", if sql.starts_with("ALTER") { ", allow_nondeterministic_mutations = 1" } else { "" });
        ask(target, &sql).await;
        let found = compared(&pair).await;
        let mut want = Vec::new();
        for (value, of_all) in [(None, true), (Some("/3'ü"), false)] {
            let (old, new) = (held(target, "stats_v1", of_all).await, held(target, "stats_v2", of_all).await);
            for (what, at) in [("page_views", 0), ("visitor_check", 2), ("visitors", 1)] {
                if old[at] != new[at] {
                    want.push(difference((DAY + 1, SITES[2], "page", value), what, old[at], new[at]));
                }
            }
        }
        // A bot may have been there too.
        let named: Vec<_> = found.differing.iter().filter(|of| of.what != "bot_events").cloned().collect();
        assert_eq!(named, want, "{damage}");
        assert!(want.iter().any(|of| of.what == "page_views" && of.value.is_some()), "{damage}: {want:?}");
        let over_all = found.differing.iter().filter(|of| of.value.is_none()).count() as u64;
        assert_eq!(found.differing_count, over_all + 1, "{damage}: each number over all values, and one value");
        put_back(target).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_or_a_site_that_is_missing_is_counted_whole_and_named_from_its_first_number() {
    let pair = alike().await;
    let target = &pair.target;
    let missing = [
        ("toDate(window_start) = '2026-03-02'", DAY + 1, SITES[0]),
        ("site = 'b.example'", DAY, SITES[1]),
        // Also what the old table does not have.
        ("", DAY, SITES[1]),
    ];
    for (which, day, site) in missing {
        let (table, which) = if which.is_empty() { ("stats_v1", "site = 'b.example'") } else { ("stats_v2", which) };
        ask(target, &format!("ALTER TABLE DB.{table} DELETE WHERE {which} {NOW}")).await;
        let found = compared(&pair).await;
        assert_eq!(found.differing.len(), DIFFERENCES_MAX);
        let times = times(pair.region.unwrap());
        let sum = format!(
            "FROM DB.kept WHERE {times} AND site = '{site}' AND toDate(window_start) = toDate({day}) AND dimension = 'browser'"
        );
        let bots = number(target, &format!("SELECT sum(bot_events) {sum}")).await;
        let (old, new) = if table == "stats_v2" { (bots, 0) } else { (0, bots) };
        let first = difference((day, site, "browser", None), "bot_events", old, new);
        assert_eq!(found.differing[0], first);
        assert!(found.differing.iter().all(|of| if table == "stats_v2" {
            of.numbers.new == 0
        } else {
            of.numbers.old == 0
        }));
        // Each value, and of each group the numbers that are not 0.
        let groups = format!(
            "SELECT sum(n + (views > 0) + (bots > 0) + (u > 0) + (c > 0)) FROM (SELECT uniqExact(value) AS n, \
             sum(page_views) AS views, sum(bot_events) AS bots, uniqCombined64Merge(visitors) AS u, sum(visitor_check) AS c \
             FROM DB.kept WHERE {times} AND {which} GROUP BY site, dimension, toDate(window_start))"
        );
        assert_eq!(found.differing_count, number(target, &groups).await);
        put_back(target).await;
    }
}

/// What is a browser becomes a system, and the other way round.
async fn mix_up(target: &Target) {
    ask(target, &format!("ALTER TABLE DB.stats_v2 DELETE WHERE dimension IN ('browser', 'os') {NOW}")).await;
    let mixed = COLUMNS.replacen("dimension", "if(dimension = 'os', 'browser', 'os')", 1);
    let sql =
        format!("INSERT INTO DB.stats_v2 ({COLUMNS}) SELECT {mixed} FROM DB.kept WHERE dimension IN ('browser', 'os')");
    ask(target, &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dimensions_that_were_mixed_up_are_found_by_value_and_one_that_was_accepted_is_told_and_no_difference() {
    let pair = alike().await;
    mix_up(&pair.target).await;
    let found = compared(&pair).await;
    let first = &found.differing[0];
    assert_eq!(
        (first.day, first.site.as_str(), first.dimension.as_str(), first.value.as_deref()),
        (DAY, SITES[0], "browser", Some("browser 0"))
    );
    assert!(first.numbers.old > 0 && first.numbers.new == 0, "{first}");
    assert!(found.differing.iter().all(|of| ["browser", "os"].contains(&of.dimension.as_str())), "{found:?}");
    assert_eq!(found.differing.iter().find(|of| of.what != "visitor_check" && of.value.is_none()), None, "sums agree");
    // Three browsers and three systems, in two dimensions, of nine sites and days; and where a visitor had two of the one in a
    // row's minute and not of the other, the check over all values.
    let checks = format!(
        "SELECT countIf(browsers != systems) FROM (SELECT sumIf(visitor_check, dimension = 'browser') AS browsers, \
         sumIf(visitor_check, dimension = 'os') AS systems FROM DB.kept WHERE {} GROUP BY site, toDate(window_start))",
        times(pair.region.unwrap())
    );
    let differing = 6 * 9 + number(&pair.target, &checks).await;
    assert_eq!(found.differing_count, 2 * differing);

    let accepted =
        |names: &[&str]| Pair { accepted: names.iter().map(|name| (*name).to_owned()).collect(), ..pair.clone() };
    let one = compared(&accepted(&["browser"])).await;
    assert_eq!(one.differing_count, differing);
    assert!(one.differing.iter().all(|of| of.dimension == "os"), "{one:?}");
    let both = compared(&accepted(&["browser", "os", "page"])).await;
    assert_eq!((both.differing_count, both.differing.len()), (0, 0));
    let told: Vec<_> = both.expected.iter().map(|of| (of.dimension.as_str(), of.why, of.groups, of.values)).collect();
    assert_eq!(told, [("browser", Why::Accepted, 9, 54), ("os", Why::Accepted, 9, 54)], "and not page, which agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_outside_of_the_region_or_in_another_origin_is_no_difference() {
    let pair = alike().await;
    let region = pair.region.unwrap();
    let outside = format!(
        "window_start < {} OR window_start >= {} OR emitted_in >= {}",
        region.from.ms() / 1000,
        region.before.ms() / 1000,
        region.closed.ms() / 1000
    );
    assert!(number(&pair.target, &format!("SELECT count() FROM DB.stats_v2 WHERE {outside}")).await > 100);
    ask(&pair.target, &format!("ALTER TABLE DB.stats_v2 DELETE WHERE {outside} {NOW}")).await;
    let insert =
        "INSERT INTO DB.stats_v2 (site, dimension, value, window_start, emitted_in, origin, page_views) VALUES";
    let (inside, closed) = (region.from.ms() / 1000, region.closed.ms() / 1000);
    ask(&pair.target, &format!("{insert} ('a.example', 'page', '/', {inside}, {closed}, '', 1)")).await;
    ask(&pair.target, &format!("{insert} ('a.example', 'page', '/', {inside}, {inside}, 'i', 1)")).await;
    assert_eq!(compared(&pair).await.differing_count, 0);
    // The same within it is one, also if it left before its window began, and in a dimension that nobody has.
    for (dimension, emitted) in [("page", closed - 1), ("page", inside - 86_400), ("", inside)] {
        ask(&pair.target, &format!("{insert} ('a.example', '{dimension}', '/', {inside}, {emitted}, '', 1)")).await;
        let found = compared(&pair).await;
        let day = region.from.ms() / (24 * HOUR_MS);
        assert_eq!(found.differing_count, 2, "{found:?}");
        let last = found.differing.last().unwrap();
        assert_eq!(last, &difference((day, SITES[0], dimension, Some("/")), "page_views", 0, 1));
        ask(
            &pair.target,
            &format!("ALTER TABLE DB.stats_v2 DELETE WHERE value = '/' AND emitted_in = {emitted} {NOW}"),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dimension_that_only_one_version_has_is_told_with_its_size() {
    let target = database();
    let old = with_dimensions(1, "1m", "10s", 1000, r#""site", "page", "os""#);
    let new = with_dimensions(2, "1m", "10s", 1000, r#""site", "page", "prop:*""#);
    write(&target, &old, "", &hits()).await;
    write(&target, &new, "", &hits()).await;
    let found = compared(&pair(&target, &old, &new)).await;
    assert_eq!((found.differing_count, found.differing.len()), (0, 0));
    let told: Vec<_> = found.expected.iter().map(|of| (of.dimension.as_str(), of.why, of.groups, of.values)).collect();
    assert_eq!(told, [("os", Why::OnlyOld, 9, 27), ("prop:*", Why::OnlyNew, 9, 18)]);
    assert!(found.expected[0].rows.old > 500 && found.expected[0].rows.new == 0, "{found:?}");
}

/// One row with this many visitors, less one.
async fn large(target: &Target, number: u32, visitors: u64, without: u64) {
    let window = (FROM_MS + 2 * HOUR_MS) / 1000;
    let sql = format!(
        "INSERT INTO DB.stats_v{number} (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, \
         visitor_ids) SELECT 'a.example', 'page', '/large', {window}, {window}, '', 200000, 0, \
         arrayFilter(id -> id != intHash64({without}), arrayMap(id -> intHash64(id), range({visitors})))"
    );
    ask(target, &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_visitor_less_among_a_hundred_thousand_is_found_where_rows_are_cut_alike() {
    let target = database();
    let (old, new, wider) =
        (version(1, "1m", "10s", 1000), version(2, "1m", "10s", 1000), version(3, "5m", "10s", 1000));
    for version in [&old, &new, &wider] {
        prepare(&target, version).await.expect("tables are made");
    }
    for (number, without) in [(1, u64::MAX), (2, 77_777), (3, 77_777)] {
        large(&target, number, 100_000, without).await;
    }
    let ids =
        async |number: u32, what: &str| self::number(&target, &format!("SELECT {what} FROM DB.stats_v{number}")).await;
    assert_eq!(
        ids(1, "finalizeAggregation(visitors)").await,
        ids(2, "finalizeAggregation(visitors)").await,
        "not seen"
    );
    let found = compared(&pair(&target, &old, &new)).await;
    let (with, without) = (ids(1, "visitor_check").await, ids(2, "visitor_check").await);
    let named = |value| difference((DAY, SITES[0], "page", value), "visitor_check", with, without);
    assert_eq!((found.differing_count, found.differing), (2, vec![named(None), named(Some("/large"))]));
    // What a day's visitors come to cannot tell, and nothing else can be asked of rows that are cut otherwise.
    assert_eq!(compared(&pair(&target, &old, &wider)).await.differing_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn distinct_visitors_of_a_day_do_not_depend_on_how_rows_are_cut_nor_on_the_order_of_merges() {
    let target = database();
    let widths = [("1m", 60), ("5m", 300), ("12h", 43_200)];
    let mut versions = Vec::new();
    for (at, (width, width_s)) in widths.into_iter().enumerate() {
        let version = version(at as u32 + 1, width, "0s", 1000);
        prepare(&target, &version).await.expect("tables are made");
        let start = format!("intDiv(at, {width_s}) * {width_s}");
        // 60,000 visitors of one value, 900 of each of fifty, 3,000 of each of ten: estimated, exact, and in between.
        for (site, visitors, values) in [("a.example", 60_000, 1), ("b.example", 900, 50), ("c.example", 5_000, 10)] {
            let sql = format!(
                "INSERT INTO DB.stats_v{} (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, \
                 visitor_ids) SELECT '{site}', 'page', toString(n % {values}) AS page, start, start, '', count(), 0, \
                 groupUniqArray(visitor) FROM (SELECT number AS n, {} + intHash64(number) % 86400 AS at, {start} AS start, \
                 intHash64(intDiv(n, {values}) % {visitors}) AS visitor FROM numbers({values} * {visitors} * 2)) \
                 GROUP BY page, start ORDER BY rand()",
                version.number,
                FROM_MS / 1000
            );
            ask(&target, &sql).await;
        }
        versions.push(version);
    }
    let whole = |old, new| Pair { region: None, ..pair(&target, old, new) };
    for new in &versions[1..] {
        let found = compared(&whole(&versions[0], new)).await;
        assert_eq!((found.differing_count, found.differing), (0, vec![]));
        assert_eq!((found.compared.values, found.compared.sums), (61, 9));
        assert!(
            found.compared.rows.old > 5000 && found.compared.rows.new * 3 < found.compared.rows.old * 2,
            "{:?}",
            found.compared
        );
    }
    // However rows come to the merge.
    for threads in [1, 4] {
        let united = format!(
            "SELECT uniqCombined64Merge(visitors) FROM (SELECT * FROM DB.stats_v1 WHERE site = 'a.example' ORDER BY rand()) \
             SETTINGS max_threads = {threads}, max_block_size = 100"
        );
        let visitors = number(&target, &united).await;
        assert_eq!(
            visitors,
            number(&target, "SELECT uniqCombined64Merge(visitors) FROM DB.stats_v3 WHERE site = 'a.example'").await
        );
        assert!((59_400..60_600).contains(&visitors), "{visitors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_day_is_compared_site_after_site_and_the_caller_sets_the_pace() {
    let target = database();
    let (old, new) = (version(1, "1m", "0s", 1000), version(2, "1m", "0s", 1000));
    // 2 × 400,000 rows, each pair of them with a key of its own: more than one query takes.
    for version in [&old, &new] {
        prepare(&target, version).await.expect("tables are made");
        let sql = format!(
            "INSERT INTO DB.stats_v{} (site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, \
             visitor_ids) SELECT concat('s', toString(number % 10)), 'page', concat('/', toString(number)), at, at, '', \
             1, 0, [intHash64(number)] FROM (SELECT number, {} + intDiv(number, 30) % 1440 * 60 AS at FROM numbers(400000))",
            version.number,
            FROM_MS / 1000
        );
        ask(&target, &sql).await;
    }
    let pair = Pair { region: None, ..pair(&target, &old, &new) };
    let asked = |pair: Pair| async move {
        let mut asked: Vec<Progress> = Vec::new();
        let found = agree(&pair, |progress| {
            asked.push(progress);
            std::future::ready(())
        });
        let found = found.await.expect("compared");
        (found, asked)
    };
    let (found, asked_first) = tokio::spawn(asked(pair.clone())).await.expect("it may be spawned");
    assert_eq!((found.differing_count, found.compared.values), (0, 400_000));
    let rows: Vec<u64> = asked_first.iter().filter(|of| of.of_rows == 800_000).map(|of| of.rows).collect();
    assert_eq!(rows, [0, 0, 480_000], "the sites, six of them, four of them: {asked_first:?}");
    for (table, value) in [(1, "/399999"), (2, "/7"), (2, "/399988")] {
        ask(&target, &format!("ALTER TABLE DB.stats_v{table} UPDATE page_views = 2 WHERE value = '{value}' {NOW}"))
            .await;
    }
    let (found, _) = asked(pair).await;
    let named: Vec<String> = found.differing.iter().map(ToString::to_string).collect();
    let want = [
        "s7 on 2026-03-01, page: page_views 40000, 40001",
        "s7 on 2026-03-01, page \"/7\": page_views 1, 2",
        "s8 on 2026-03-01, page: page_views 40000, 40001",
        "s8 on 2026-03-01, page \"/399988\": page_views 1, 2",
        "s9 on 2026-03-01, page: page_views 40001, 40000",
        "s9 on 2026-03-01, page \"/399999\": page_views 2, 1",
    ];
    assert_eq!((named, found.differing_count), (want.map(str::to_owned).to_vec(), 6));
}
