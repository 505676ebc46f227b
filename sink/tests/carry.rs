//! Rows of an older version's table are carried over into a newer one's, on a real ClickHouse.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use support::{DAY_ONE, Draw, HOUR_MS, ask, database, until};
use tokio::sync::mpsc;
use weir_schemas::{Closed, Emission, RowBlock, SchemaVersion, Strings, WindowStart};
use weir_sink::audit::Audit;
use weir_sink::{Carry, End, Extent, Left, Limits, News, RunSpec, SinkError, Target, carry, prepare, run, take_back};

const MINUTE_MS: i64 = 60_000;
/// An hour before midnight.
const FROM_MS: i64 = (DAY_ONE + 23) * HOUR_MS;
/// So many minutes of rows: the last of five that are one window of the new version.
const MINUTES: i64 = 150;
const NOW: &str = "SETTINGS mutations_sync = 2";

fn version(number: u32, width: &str, dimensions: &str) -> SchemaVersion {
    let text = format!(
        "number = {number}\nwidth = \"{width}\"\nlateness = \"10s\"\ndimensions = [{dimensions}]\n\
         measures = [\"page_views\", \"visitors\", \"bot_events\"]\nrules = 1\nvalues_max = 1000\n"
    );
    SchemaVersion::parse(&text, "a test").expect("a version")
}

fn old() -> SchemaVersion {
    version(1, "1m", r#""site", "page", "browser", "prop:*""#)
}

/// Without browsers.
fn new(width: &str) -> SchemaVersion {
    version(2, width, r#""site", "page", "prop:*""#)
}

struct Row {
    dimension: &'static str,
    value: String,
    start_ms: i64,
    counts: [u64; 2],
    visitors: BTreeSet<u64>,
}

/// What left the old table in a minute; some of it counts for one before.
fn rows(minute: i64) -> Vec<Row> {
    let draw = &mut Draw(minute as u64);
    let mut all = Vec::new();
    for (dimension, values) in [("site", 1), ("page", 4), ("browser", 2), ("prop:author", 2)] {
        for (value, late) in (0..values).flat_map(|value| [(value, 0), (value, 3), (value, 7)]) {
            if draw.below(3) > 0 {
                all.push(Row {
                    dimension,
                    value: if dimension == "site" { String::new() } else { format!("'{value}\\ü") },
                    start_ms: FROM_MS + (minute - late) * MINUTE_MS,
                    counts: [draw.below(9), draw.below(2)],
                    visitors: (0..draw.below(6)).map(|_| draw.below(40).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
                });
            }
        }
    }
    all
}

fn at(version: &SchemaVersion, minute: i64) -> WindowStart {
    version.width.window_of(FROM_MS + minute * MINUTE_MS)
}

/// The old version's live run, which began at minute `first`, over the minutes `[from, to)`.
async fn write_old(target: &Target, first: i64, (from, to): (i64, i64)) {
    let version = old();
    prepare(target, &version).await.expect("tables are made");
    let (sender, closed) = mpsc::channel(2 * MINUTES as usize);
    for minute in from..to {
        let (mut strings, mut block) = (Strings::default(), RowBlock::default());
        for row in rows(minute) {
            block.site.push(strings.push("a.example"));
            block.dimension.push(strings.push(row.dimension));
            block.value.push(strings.push(&row.value));
            block.window_start_ms.push(row.start_ms);
            block.counts.extend(row.counts);
            block.visitors.extend(row.visitors);
            block.visitors_end.push(block.visitors.len());
        }
        block.strings = strings;
        let emission = Emission { window: at(&version, minute), blocks: vec![block] };
        sender.send(Closed::Window(emission)).await.expect("room");
        sender.send(Closed::Through(at(&version, minute + 1))).await.expect("room");
    }
    drop(sender);
    let (first, from, to) = (at(&version, first), at(&version, from), Some(at(&version, to)));
    let (run_name, origin, left) = ("live".to_owned(), String::new(), Left::Passed);
    let spec = RunSpec { run: run_name, version, origin, first, from, to, left };
    run(target, spec, Limits::of_memory(768 << 20), closed, |_| (), std::future::pending()).await.expect("it ends");
}

/// The rows of the new version's table by the book, a line each, of the minutes that `has`.
fn wanted(new: &SchemaVersion, has: impl Fn(i64) -> bool) -> Vec<String> {
    let mut all: BTreeMap<_, ([u64; 2], BTreeSet<u64>, u64)> = BTreeMap::new();
    for minute in (0..MINUTES).filter(|minute| has(*minute)) {
        for row in rows(minute).into_iter().filter(|row| row.dimension != "browser") {
            let start = new.width.window_of(row.start_ms).ms() / 1000;
            let key = (row.dimension, row.value, start, at(new, minute).ms() / 1000);
            let sum = all.entry(key).or_default();
            sum.0[0] += row.counts[0];
            sum.0[1] += row.counts[1];
            sum.2 = row.visitors.iter().fold(sum.2, |sum, visitor| sum.wrapping_add(*visitor));
            sum.1.extend(row.visitors);
        }
    }
    let line = |((dimension, value, start, end), (counts, visitors, check)): (_, ([u64; 2], BTreeSet<u64>, u64))| {
        let value: String = value;
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        let (views, bots, visitors) = (counts[0], counts[1], visitors.len());
        format!("a.example\t{dimension}\t{value}\t{start}\t{end}\t{views}\t{bots}\t{visitors}\t{check}")
    };
    let mut lines: Vec<String> = all.into_iter().map(line).collect();
    lines.sort_unstable();
    lines
}

async fn held(target: &Target) -> Vec<String> {
    let sql = "SELECT site, dimension, value, toUnixTimestamp(window_start), toUnixTimestamp(emitted_in), page_views, \
               bot_events, finalizeAggregation(visitors), visitor_check FROM DB.stats_v2 WHERE origin = ''";
    let mut lines: Vec<String> = ask(target, sql).await.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn all_of(new: &SchemaVersion) -> Carry {
    let (from, to) = (at(new, 0), at(new, MINUTES));
    Carry { run: "v2-carried".to_owned(), old: old(), new: new.clone(), from, to }
}

async fn carried(target: &Target, of: &Carry) -> Result<End, SinkError> {
    carry(target, of, |_| Duration::ZERO, |_| (), std::future::pending()).await
}

/// The table is what it must be, and what is recorded of it.
async fn assert_carried(target: &Target, new: &SchemaVersion, has: impl Fn(i64) -> bool) {
    assert_eq!(held(target).await, wanted(new, has));
    let found = Audit::new(target, new).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
    let runs = "SELECT DISTINCT run FROM DB.emissions WHERE generation = 2";
    assert_eq!(ask(target, runs).await, "v2-carried");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_carried_over_is_the_old_table_in_the_dimensions_and_windows_of_the_new_one() {
    for (width, first) in [("1m", 0), ("5m", 0), ("5m", 3)] {
        let (target, new) = (database(), new(width));
        write_old(&target, first, (first, MINUTES)).await;
        prepare(&target, &new).await.expect("tables are made");
        assert_eq!(carried(&target, &all_of(&new)).await.expect("it ends"), End::Complete);
        assert!(wanted(&new, |_| true).len() > 300);
        assert_carried(&target, &new, |minute| minute >= first).await;
        let days = "SELECT count() FROM DB.emissions WHERE generation = 2 AND state = 'done' \
                    AND toDate(window_from) = toDate(window_to - 1)";
        assert_eq!(ask(&target, days).await, "2", "a batch lies within a day");
        // All is done: nothing is written once more.
        let before = ask(&target, "SELECT count() FROM DB.emissions").await;
        assert_eq!(carried(&target, &all_of(&new)).await.expect("it ends"), End::Complete);
        assert_eq!(ask(&target, "SELECT count() FROM DB.emissions").await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_anywhere_the_next_one_comes_to_the_same_rows_and_wrong_ones_are_mended() {
    let (target, new) = (database(), new("5m"));
    write_old(&target, 0, (0, MINUTES)).await;
    prepare(&target, &new).await.expect("tables are made");
    let of = all_of(&new);
    let strange = |site: &str, at: WindowStart| {
        format!(
            "INSERT INTO DB.stats_v2 (site, dimension, value, window_start, emitted_in, origin, page_views) \
             VALUES ('{site}', 'page', '/', {at}, {at}, '', 7)",
            at = at.ms() / 1000
        )
    };
    ask(&target, &strange("nobody.example", at(&new, 10))).await;
    let mut kills = 0;
    loop {
        // Each lives a little longer than the one before: cut at every place there is, and every second one is asked to stop.
        let lives = Duration::from_millis(5 + 3 * kills);
        let ended = match kills % 2 {
            0 => tokio::time::timeout(lives, carried(&target, &of)).await.ok(),
            _ => Some(carry(&target, &of, |_| Duration::ZERO, |_| (), tokio::time::sleep(lives)).await),
        };
        match ended {
            None | Some(Ok(End::Shutdown)) => kills += 1,
            // The claim of one that was killed may come to the server after the next one's, who begins again then.
            Some(Err(SinkError::Refused { .. })) => {}
            Some(ended) => {
                assert_eq!(ended.expect("it ends"), End::Complete);
                break;
            }
        }
    }
    assert!(kills > 3, "{kills} kills");
    assert_carried(&target, &new, |_| true).await;

    // Somebody has taken rows out, and put in others: what is asked for again is mended, and only that.
    let seam = at(&new, MINUTES);
    ask(&target, &format!("ALTER TABLE DB.stats_v2 DELETE WHERE dimension = 'page' {NOW}")).await;
    ask(&target, &strange("nobody.example", at(&new, 60))).await;
    ask(&target, &strange("live.example", seam)).await;
    let lives = format!(
        "INSERT INTO DB.emissions (generation, origin, run, state, window_from, window_to, rows, digest) \
         VALUES (2, '', 'v2-live', 'done', {}, {}, 1, 0)",
        seam.ms() / 1000,
        seam.ms() / 1000 + 300
    );
    ask(&target, &lives).await;
    let again = Extent::Again { from: of.from, to: of.to };
    take_back(&target, &of.run, &new, "", again).await.expect("taken back");
    assert_eq!(carried(&target, &of).await.expect("it ends"), End::Complete);
    let beyond = "SELECT count() FROM DB.emissions WHERE generation = 2 AND run = 'v2-live'";
    assert_eq!(ask(&target, beyond).await, "1", "what live has recorded stays");
    assert_eq!(ask(&target, "SELECT count() FROM DB.stats_v2 WHERE site = 'live.example'").await, "1");
    for table in ["stats_v2 DELETE WHERE site = 'live.example'", "emissions DELETE WHERE run = 'v2-live'"] {
        ask(&target, &format!("ALTER TABLE DB.{table} {NOW}")).await;
    }
    assert_carried(&target, &new, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_the_older_is_refused_and_nothing_is_there_twice() {
    let (target, new) = (database(), new("1m"));
    write_old(&target, 0, (0, MINUTES)).await;
    prepare(&target, &new).await.expect("tables are made");
    let of = all_of(&new);
    let both = futures::future::join(carried(&target, &of), carried(&target, &of)).await;
    for ended in [both.0, both.1] {
        assert!(matches!(ended, Ok(End::Complete) | Err(SinkError::Refused { .. })), "{ended:?}");
    }
    assert_eq!(carried(&target, &of).await.expect("it ends"), End::Complete);
    assert_carried(&target, &new, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_there_is_lost_here_and_what_is_not_done_there_yet_is_waited_for() {
    let (target, new) = (database(), new("5m"));
    write_old(&target, 0, (0, 100)).await;
    // The minutes 22 to 38: three whole windows less their ends are two.
    let old = old();
    let lost = Extent::Lost { from: at(&old, 22), to: at(&old, 38) };
    take_back(&target, "live", &old, "", lost).await.expect("given up");
    prepare(&target, &new).await.expect("tables are made");
    let of = all_of(&new);
    let said = Mutex::new(Vec::new());
    let heard = |what: &str| said.lock().unwrap().iter().any(|said: &String| said.contains(what));
    let tell = |news| {
        said.lock().unwrap().push(match news {
            News::Done(done) => format!("done through {}", done.through.ms()),
            News::Waits(why) => why,
            News::GoesOn => "goes on".to_owned(),
        });
    };
    let carries = carry(&target, &of, |_| Duration::ZERO, tell, std::future::pending());
    let more = async {
        until("it waits", || std::future::ready(heard("generation 1 does not have all windows before"))).await;
        assert!(heard(&format!("done through {}", at(&new, 100).ms())), "as far as it is there");
        write_old(&target, 0, (100, MINUTES)).await;
    };
    let (ended, ()) = futures::future::join(carries, more).await;
    assert_eq!(ended.expect("it ends"), End::Complete);
    assert!(heard("goes on"));
    let states = "SELECT (toUnixTimestamp(window_from) - {F}) / 60, (toUnixTimestamp(window_to) - {F}) / 60 \
                  FROM DB.emissions WHERE generation = 2 AND state = 'lost'";
    assert_eq!(ask(&target, &states.replace("{F}", &(FROM_MS / 1000).to_string())).await, "25\t35");
    assert_carried(&target, &new, |minute| !(22..38).contains(&minute)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_being_carried_over_are_no_finding_while_live_is_far_beyond_them() {
    let (target, new) = (database(), new("5m"));
    write_old(&target, 0, (0, MINUTES)).await;
    prepare(&target, &new).await.expect("tables are made");
    carried(&target, &all_of(&new)).await.expect("it ends");
    let seam = at(&new, MINUTES);
    let seam_s = seam.ms() / 1000;
    let live = format!(
        "INSERT INTO DB.emissions (generation, origin, run, state, window_from, window_to, rows, digest) \
         VALUES (2, '', 'v2-live', 'done', {seam_s}, {}, 0, 0)",
        seam_s + 300
    );
    ask(&target, &live).await;
    // The last batch is in the table, and not recorded yet.
    let unsaid = format!("ALTER TABLE DB.emissions DELETE WHERE run = 'v2-carried' AND window_to = {seam_s} {NOW}");
    ask(&target, &unsaid).await;
    let found = Audit::new(&target, &new).full().await.expect("an audit");
    assert!(!found.is_empty(), "nothing covers it");
    let mut audit = Audit::new(&target, &new).with_carried(seam);
    for look in 0..2 {
        assert_eq!(audit.recent().await.expect("an audit"), [], "look {look}");
    }
    assert_eq!(audit.full().await.expect("an audit"), []);
    // What was recorded of it must be there, seam or not.
    ask(&target, &format!("ALTER TABLE DB.stats_v2 DELETE WHERE dimension = 'page' {NOW}")).await;
    let found = Audit::new(&target, &new).with_carried(seam).recent().await.expect("an audit");
    assert!(!found.is_empty(), "rows are missing");
}
