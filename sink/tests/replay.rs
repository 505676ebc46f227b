//! Windows computed a second time beside the table, compared with it, and whole days replaced by them, on a real ClickHouse.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use support::{DAY_ONE, Draw, ask, at, database, live, version, window};
use tokio::sync::mpsc;
use uuid::Uuid;
use weir_schemas::{Closed, WindowStart};
use weir_sink::audit::Audit;
use weir_sink::table::{Failure, Kind, Mutations, Recorded, Replacing, Running, State, Statement, Table, Windows};
use weir_sink::{
    Altered, Content, Deed, Extent, Limits, Owner, Replacer, RunSpec, Scratch, SinkError, Target, checkpoint, copy,
    prepare, replacing_of, restore, run, standing, take_back,
};

/// Four days.
const HOURS: i64 = 96;
const DAY: i64 = DAY_ONE / 24;
const COLUMNS: &str =
    "site, dimension, value, window_start, emitted_in, origin, page_views, bot_events, visitors, visitor_check";

/// The hours that have rows: all but some of the second day, and those around the third, which has none.
fn has_rows(hour: i64) -> bool {
    !(30..33).contains(&hour) && !(46..74).contains(&hour)
}

/// Writes the hours `[from, to)` as `name`, with rows where `has_rows` says so.
async fn write(target: &Target, name: &str, from: i64, to: i64, has_rows: impl Fn(i64) -> bool) {
    let spec = RunSpec { run: name.to_owned(), first: at(0), ..live(at(from), at(to)) };
    let (tx, rx) = mpsc::channel((to - from) as usize + 1);
    for hour in (from..to).filter(|hour| has_rows(*hour)) {
        tx.send(window(&mut Draw(hour as u64), hour, 20)).await.expect("room");
    }
    tx.send(Closed::Through(at(to))).await.expect("room");
    drop(tx);
    run(target, spec, Limits::of_memory(768 << 20), rx, |_| (), std::future::pending()).await.expect("it ends");
}

/// A table as live leaves it, in some batches.
async fn whole() -> Target {
    let target = database();
    prepare(&target, &version()).await.expect("tables are made");
    for (from, to) in [(0, 5), (5, 20), (20, 40), (40, HOURS)] {
        write(&target, "live", from, to, has_rows).await;
    }
    target
}

fn scratch_of(target: &Target) -> Scratch {
    Scratch::of(target, "replay", &version())
}

/// The same windows, computed beside it.
async fn replayed(target: &Target) -> Scratch {
    let scratch = scratch_of(target);
    scratch.prepare("weir replay: all of it").await.expect("a scratch database");
    write(&scratch.target(), "replay", 0, HOURS, has_rows).await;
    scratch
}

async fn replace(target: &Target, days: &[i64]) -> Result<(), SinkError> {
    replace_on(replacing_of(target, "replay", &version()), days).await
}

async fn replace_on(table: impl Replacing, days: &[i64]) -> Result<(), SinkError> {
    Replacer::begin(table, version().width).await?.replace(days).await
}

fn day(nth: i64) -> Windows {
    Windows { from: at(24 * nth), to: at(24 * (nth + 1)) }
}

const ALL: fn() -> Windows = || Windows { from: at(0), to: at(HOURS) };

async fn digest(target: &Target) -> String {
    ask(target, "SELECT count(), sum(cityHash64(* EXCEPT visitors, finalizeAggregation(visitors))) FROM DB.stats_v1")
        .await
}

async fn assert_right(target: &Target, before: &str) {
    assert_eq!(digest(target).await, before);
    assert_done(target).await;
    let found = Audit::new(target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
}

/// No run that looks behind itself finds a hole.
async fn assert_done(target: &Target) {
    assert_eq!(checkpoint(target, "live", &version(), "", at(0)).await.expect("a checkpoint"), at(HOURS));
}

const NOW: &str = "SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1";

/// What somebody does by hand to the second day.
async fn delete_a_row(target: &Target) {
    let one = format!("emitted_in = toDateTime({}, 'UTC') AND value LIKE '/1%'", at(27).ms() / 1000);
    ask(target, &format!("ALTER TABLE DB.stats_v1 DELETE WHERE {one} {NOW}")).await;
}

async fn double_a_row(target: &Target) {
    let one = format!("emitted_in = toDateTime({}, 'UTC') AND value LIKE '/2%'", at(41).ms() / 1000);
    ask(target, &format!("INSERT INTO DB.stats_v1 ({COLUMNS}) SELECT {COLUMNS} FROM DB.stats_v1 WHERE {one}")).await;
}

async fn change_a_count(target: &Target) {
    let one = format!("emitted_in = toDateTime({}, 'UTC') AND value LIKE '/3%'", at(35).ms() / 1000);
    ask(target, &format!("ALTER TABLE DB.stats_v1 UPDATE page_views = page_views + 1 WHERE {one} {NOW}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_table_compares_equal_and_one_thing_changed_by_hand_is_found_at_its_day_and_site() {
    let target = whole().await;
    let scratch = replayed(&target).await;
    let compared = scratch.compare(ALL()).await.expect("compared");
    let rows: u64 = ask(&target, "SELECT count() FROM DB.stats_v1").await.parse().unwrap();
    assert_eq!((compared.rows, compared.days), (rows, 3));
    assert!(compared.differing.is_empty() && compared.misrecorded.is_empty(), "{compared:?}");

    let where_ = |value: &str, hour: i64| {
        format!("emitted_in = toDateTime({}, 'UTC') AND value LIKE '{value}%'", at(hour).ms() / 1000)
    };
    for (value, hour, rows) in [("/1", 27, -1), ("/2", 41, 1), ("/3", 35, 0)] {
        let one = where_(value, hour);
        let sites = format!("SELECT arraySort(groupUniqArray(toString(site))), count() FROM DB.stats_v1 WHERE {one}");
        let sites = ask(&target, &format!("{sites} FORMAT JSONCompactEachRow")).await;
        let (sites, changed): (Vec<String>, serde_json::Value) = serde_json::from_str(&sites).unwrap();
        let changed = rows * changed.as_str().map_or_else(|| changed.as_i64().unwrap(), |text| text.parse().unwrap());
        match value {
            "/1" => delete_a_row(&target).await,
            "/2" => double_a_row(&target).await,
            _ => change_a_count(&target).await,
        }
        let compared = scratch.compare(ALL()).await.expect("compared");
        let found: Vec<_> = compared.differing.iter().map(|of| (of.day, of.site.clone())).collect();
        assert_eq!(found, sites.into_iter().map(|site| (DAY + 1, site)).collect::<Vec<_>>(), "{value}");
        let more: i64 = compared.differing.iter().map(|of| of.table.rows as i64 - of.replay.rows as i64).sum();
        assert_eq!(more, changed, "{value}: {compared:?}");
        assert!(compared.misrecorded.is_empty(), "a day that differs is told once");
        replace(&target, &[DAY + 1]).await.expect("replaced");
        scratch.give_back().await.expect("it has its name again");
    }
    assert!(scratch.compare(ALL()).await.expect("compared").differing.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_replaced_with_its_record_and_no_other_day_is_touched() {
    let target = whole().await;
    let before = digest(&target).await;
    let scratch = replayed(&target).await;
    for damage in 0..5 {
        match damage {
            0 => {
                delete_a_row(&target).await;
                double_a_row(&target).await;
                change_a_count(&target).await;
            }
            // The table has nothing of the day, or the log has nothing of it.
            1 => {
                let sql = format!(
                    "ALTER TABLE DB.stats_v1 DELETE WHERE toDate(emitted_in, 'UTC') = toDate({}) {NOW}",
                    DAY + 1
                );
                drop(ask(&target, &sql).await);
            }
            2 => {
                let sql = format!(
                    "INSERT INTO DB.stats_v1 (site, emitted_in) VALUES ('mine', {}), ('mine', {})",
                    at(31).ms() / 1000,
                    at(60).ms() / 1000
                );
                drop(ask(&target, &sql).await);
            }
            // What was recorded was recorded of something else.
            3 => {
                let sql = format!("ALTER TABLE DB.emissions UPDATE digest = digest + 1 WHERE rows > 0 {NOW}");
                drop(ask(&target, &sql).await);
            }
            // The record is right of what somebody has done to the rows.
            _ => {
                delete_a_row(&target).await;
                let table = replacing_of(&target, "replay", &version());
                let held = table.held(Windows { from: at(24), to: at(40) });
                let held = held.await.expect("rows").into_iter().fold(Content::default(), |mut sum, (_, content)| {
                    sum += content;
                    sum
                });
                let batch = format!("window_from = toDateTime({}, 'UTC')", at(24).ms() / 1000);
                let sql = format!(
                    "ALTER TABLE DB.emissions UPDATE rows = {}, digest = {} WHERE {batch} {NOW}",
                    held.rows, held.digest
                );
                drop(ask(&target, &sql).await);
            }
        }
        let compared = scratch.compare(ALL()).await.expect("compared");
        let days = match damage {
            2 => vec![DAY + 1, DAY + 2],
            3 => vec![DAY, DAY + 1, DAY + 3],
            _ => vec![DAY + 1],
        };
        assert_eq!(compared.misrecorded, if damage == 3 { days.clone() } else { Vec::new() });
        assert!(compared.differing.iter().all(|of| days.contains(&of.day)), "{damage}: {compared:?}");
        let others = parts(&target, &days).await;
        replace(&target, &days).await.expect("replaced");
        assert_eq!(parts(&target, &days).await, others, "{damage}");
        assert_right(&target, &before).await;
        scratch.give_back().await.expect("it has its name again");
    }
}

/// The parts of other days than these.
async fn parts(target: &Target, days: &[i64]) -> String {
    let days = days.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT arraySort(groupArray(name)) FROM system.parts WHERE database = '{}' AND table = 'stats_v1' AND active \
         AND NOT arrayExists(day -> position(partition, toString(toDate(day))) > 0, [{days}])",
        target.database
    );
    ask(target, &sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_reaches_over_midnight_is_right_on_both_sides_of_it() {
    let target = whole().await;
    let over = "SELECT count() FROM DB.emissions WHERE toDate(window_from, 'UTC') != toDate(window_to - 1, 'UTC')";
    assert_ne!(ask(&target, over).await, "0", "there is one");
    // A log that gives rows where there were none: as somebody's other rule would.
    let scratch = scratch_of(&target);
    scratch.prepare("weir replay: another rule").await.expect("a scratch database");
    write(&scratch.target(), "replay", 0, HOURS, |hour| has_rows(hour) || hour == 47).await;
    replace(&target, &[DAY + 1]).await.expect("replaced");
    assert_done(&target).await;
    let found = Audit::new(&target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
    let last = format!("SELECT count() FROM DB.stats_v1 WHERE emitted_in = toDateTime({}, 'UTC')", at(47).ms() / 1000);
    assert_eq!(ask(&target, &last).await, "30");
    // Rows that are nobody's on the other side are not made somebody's.
    let target = whole().await;
    let scratch = scratch_of(&target);
    scratch.prepare("weir replay: another rule").await.expect("a scratch database");
    write(&scratch.target(), "replay", 0, HOURS, |hour| has_rows(hour) || hour == 47).await;
    ask(&target, &format!("INSERT INTO DB.stats_v1 (site, emitted_in) VALUES ('mine', {})", at(50).ms() / 1000)).await;
    let refused = replace(&target, &[DAY + 1]).await;
    assert!(
        matches!(&refused, Err(SinkError::Stopped { said, .. }) if said.contains("on a day beside than it had")),
        "{refused:?}"
    );
    scratch.give_back().await.expect("it has its name again");
    replace(&target, &[DAY + 1, DAY + 2]).await.expect("replaced with it");
    let found = Audit::new(&target, &version()).full().await.expect("an audit");
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_before_or_after_any_statement_a_replacement_has_no_hole_and_once_more_does_the_rest() {
    let target = whole().await;
    let before = digest(&target).await;
    let days = [DAY + 1, DAY + 2];
    let scratch = replayed(&target).await;
    let mut statements = 0;
    for done in [false, true] {
        for nth in 1.. {
            delete_a_row(&target).await;
            double_a_row(&target).await;
            ask(
                &target,
                &format!("INSERT INTO DB.stats_v1 (site, emitted_in) VALUES ('mine', {})", at(60).ms() / 1000),
            )
            .await;
            let damaged = digest(&target).await;
            let cutting = Cutting { inner: replacing_of(&target, "replay", &version()), left: nth.into(), done };
            let cut = replace_on(cutting, &days).await;
            assert_done(&target).await;
            if cut.is_err() {
                let held = digest(&target).await;
                let (second, third) = (held == damaged, held == before);
                let between = "SELECT count() FROM DB.stats_v1 WHERE site = 'mine'";
                // The second day is new, the third old.
                assert!(second || third || ask(&target, between).await == "1", "{nth}");
                replace(&target, &days).await.expect("once more");
            }
            assert_right(&target, &before).await;
            scratch.give_back().await.expect("it has its name again");
            if cut.is_ok() {
                statements = nth;
                break;
            }
        }
    }
    assert!(statements > 12, "{statements}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_a_replacement_that_was_overtaken_does_nothing() {
    let target = whole().await;
    let before = digest(&target).await;
    let scratch = replayed(&target).await;
    let table = replacing_of(&target, "replay", &version());
    let old = Owner { number: table.largest().await.unwrap() + 1, uuid: Uuid::new_v4() };
    table.raise(&old).await.unwrap();
    table.take_over(&old).await.unwrap();
    let as_ = |deed, number| Statement { owner: &old, deed, number };
    let none = Recorded { from_s: 0, to_s: 1, state: State::Done, content: Content::default() };
    let of = ask(&target, "SELECT toUnixTimestamp(window_from), toUnixTimestamp(window_to), rows, digest FROM DB.emissions WHERE rows > 0 LIMIT 1").await;
    let of: Vec<u64> = of.split('\t').map(|number| number.parse().unwrap()).collect();
    let content = Content { rows: of[2], digest: of[3] };
    let one = Recorded { from_s: of[0] as u32, to_s: of[1] as u32, state: State::Done, content };
    for overtaken in ["by another", "given back", "empty", "gone"] {
        match overtaken {
            "by another" => replace(&target, &[DAY]).await.expect("replaced"),
            "given back" => scratch.give_back().await.expect("given back"),
            "empty" => scratch.prepare("weir replay: something else").await.expect("another one"),
            _ => scratch.drop().await.expect("dropped"),
        }
        let late = table.replace(as_(Deed::Replace, 1), day(1)).await;
        assert!(late.is_err(), "{overtaken}");
        assert_eq!(late_kind(table.record_all(as_(Deed::Done, 2), &[none]).await), Some(Kind::Refused));
        table.forget_just(as_(Deed::Forget, 3), &[one]).await.expect("it takes out nothing");
        assert_right(&target, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_windows_or_a_copy_back_ends_a_replacement_of_whichever_machine_before_and_after_its_take_over() {
    let target = whole().await;
    let before = digest(&target).await;
    assert!(copy(&target, &[version()], &target.database, None).await.expect("a copy"));
    // A replacement would show: the log gives rows where the table has none.
    let scratch = scratch_of(&target);
    scratch.prepare("weir replay: another rule").await.expect("a scratch database");
    write(&scratch.target(), "replay", 0, HOURS, |hour| has_rows(hour) || hour == 47).await;
    let table = replacing_of(&target, "replay", &version());
    for restored in [false, true] {
        for has_taken_over in [false, true] {
            let old = Owner { number: table.largest().await.unwrap() + 1, uuid: Uuid::new_v4() };
            table.raise(&old).await.unwrap();
            if has_taken_over {
                table.take_over(&old).await.unwrap();
            }
            match restored {
                true => restore(&target, &[version()], &target.database).await.expect("brought back"),
                false => {
                    let nothing = Extent::From(at(HOURS));
                    take_back(&target, "live", &version(), "", nothing).await.expect("taken back");
                }
            }
            if !has_taken_over {
                assert_eq!(late_kind(table.take_over(&old).await), Some(Kind::Refused), "{restored}");
                scratch.give_back().await.expect("it has its name again");
            }
            let as_ = |deed, number| Statement { owner: &old, deed, number };
            let late = table.replace(as_(Deed::Replace, 1), day(1)).await;
            assert!(late.is_err(), "restored: {restored}, taken over: {has_taken_over}");
            let none = Recorded { from_s: 0, to_s: 1, state: State::Done, content: Content::default() };
            assert_eq!(late_kind(table.record_all(as_(Deed::Done, 2), &[none]).await), Some(Kind::Refused));
            assert_right(&target, &before).await;
        }
    }
    // What it had computed is there, and can be taken by one that begins after that.
    replace(&target, &[DAY + 1]).await.expect("replaced");
    assert_ne!(digest(&target).await, before);
}

fn late_kind(answer: Result<(), Failure>) -> Option<Kind> {
    answer.err().map(|failure| failure.kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scratch_keeps_what_is_of_the_same_and_forgets_what_is_not() {
    let target = whole().await;
    let scratch = replayed(&target).await;
    let rows = async || ask(&scratch.target(), "SELECT count() FROM DB.stats_v1").await;
    let all = rows().await;
    scratch.prepare("weir replay: all of it").await.expect("the same");
    assert_eq!(rows().await, all);
    // Taken over, and cut.
    let table = replacing_of(&target, "replay", &version());
    let owner = Owner { number: 7, uuid: Uuid::new_v4() };
    table.raise(&owner).await.unwrap();
    table.take_over(&owner).await.unwrap();
    scratch.prepare("weir replay: all of it").await.expect("the same");
    assert_eq!(rows().await, all);
    // What is all there, whosever it is, needs no log any more.
    let holds = async |contents: &str, windows| scratch.holds(contents, windows).await.expect("an answer");
    let later = Windows { from: at(0), to: at(HOURS + 1) };
    table.take_over(&owner).await.unwrap();
    assert!(holds("weir replay: all of it", ALL()).await && !holds("weir replay: all of it", later).await);
    assert!(!holds("weir replay: less of it", ALL()).await);
    scratch.prepare("weir replay: less of it").await.expect("another");
    assert_eq!(rows().await, "0");
    assert!(!holds("weir replay: less of it", ALL()).await);
    scratch.drop().await.expect("dropped");
    assert!(!holds("weir replay: less of it", ALL()).await);
    let left = format!("SELECT count() FROM system.databases WHERE name = '{}'", scratch.target().database);
    assert_eq!(ask(&target, &left).await, "0");
    let gone = replace(&target, &[DAY]).await;
    assert!(matches!(&gone, Err(SinkError::Stopped { said, .. }) if said.contains("is not there")), "{gone:?}");
    assert_done(&target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_of_windows_is_told_what_is_not_done_and_what_was_given_up() {
    let target = whole().await;
    let of = async |from: WindowStart, to: WindowStart| {
        standing(&target, &version(), at(0), Windows { from, to }).await.expect("it is known")
    };
    let all = of(at(0), at(HOURS + 2)).await;
    assert_eq!(all.checkpoint, at(HOURS));
    assert_eq!((all.undone, all.lost), (vec![Windows { from: at(HOURS), to: at(HOURS + 2) }], Vec::new()));
    let lost = Extent::Lost { from: at(7), to: at(9) };
    take_back(&target, "live", &version(), "", lost).await.expect("given up");
    let part = of(at(8), at(30)).await;
    assert_eq!((part.undone, part.lost), (Vec::new(), vec![Windows { from: at(8), to: at(9) }]));
    // What live has left is not done before the gap run has done it.
    ask(
        &target,
        &format!(
            "ALTER TABLE DB.emissions UPDATE state = 'left' WHERE window_from = toDateTime({}, 'UTC') {NOW}",
            at(0).ms() / 1000
        ),
    )
    .await;
    let left = of(at(0), at(30)).await;
    assert_eq!((left.checkpoint, left.undone), (at(HOURS), vec![Windows { from: at(0), to: at(5) }]));
}

/// A table whose client is gone before (`done`: after) a statement of those that are `left`.
struct Cutting<T> {
    inner: T,
    left: AtomicU32,
    done: bool,
}

impl<T: Replacing> Cutting<T> {
    async fn cut<A>(&self, statement: impl Future<Output = Result<A, Failure>>) -> Result<A, Failure> {
        let gone = || Err(Failure { kind: Kind::Unclear, said: "cut".to_owned() });
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return gone();
        }
        self.left.store(left - 1, Ordering::SeqCst);
        match (left, self.done) {
            (1, false) => gone(),
            (1, true) => {
                statement.await?;
                gone()
            }
            _ => statement.await,
        }
    }
}

impl<T: Replacing> Running for Cutting<T> {
    async fn kill_queries(&self) -> Result<(), Failure> {
        self.cut(self.inner.kill_queries()).await
    }

    async fn mutations(&self) -> Result<Mutations, Failure> {
        self.cut(self.inner.mutations()).await
    }

    async fn kill_mutations(&self) -> Result<(), Failure> {
        self.cut(self.inner.kill_mutations()).await
    }
}

impl<T: Replacing> Table for Cutting<T> {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn largest(&self) -> Result<u64, Failure> {
        self.cut(self.inner.largest()).await
    }

    async fn raise(&self, owner: &Owner) -> Result<(), Failure> {
        self.cut(self.inner.raise(owner)).await
    }

    async fn recorded(&self, from_s: u32, to_s: u32) -> Result<Vec<Recorded>, Failure> {
        self.cut(self.inner.recorded(from_s, to_s)).await
    }

    async fn left(&self) -> Result<Vec<Recorded>, Failure> {
        self.cut(self.inner.left()).await
    }

    async fn ask(&self, windows: Windows) -> Result<Content, Failure> {
        self.cut(self.inner.ask(windows)).await
    }

    async fn insert(&self, as_: Statement<'_>, body: Vec<u8>) -> Result<(), Failure> {
        self.cut(self.inner.insert(as_, body)).await
    }

    async fn delete(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        self.cut(self.inner.delete(as_, windows)).await
    }

    async fn record(&self, as_: Statement<'_>, windows: Windows, content: Content) -> Result<(), Failure> {
        self.cut(self.inner.record(as_, windows, content)).await
    }

    async fn leave(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        self.cut(self.inner.leave(as_, windows)).await
    }

    async fn lose(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        self.cut(self.inner.lose(as_, windows)).await
    }

    async fn forget(&self, as_: Statement<'_>, windows: Windows, states: &[State]) -> Result<(), Failure> {
        self.cut(self.inner.forget(as_, windows, states)).await
    }

    async fn altered(&self) -> Result<Option<Altered>, Failure> {
        self.cut(self.inner.altered()).await
    }
}

impl<T: Replacing> Replacing for Cutting<T> {
    async fn take_over(&self, owner: &Owner) -> Result<(), Failure> {
        self.cut(self.inner.take_over(owner)).await
    }

    async fn held(&self, windows: Windows) -> Result<Vec<(u32, Content)>, Failure> {
        self.cut(self.inner.held(windows)).await
    }

    async fn replayed(&self, owner: &Owner, windows: Windows) -> Result<Vec<(u32, Content)>, Failure> {
        self.cut(self.inner.replayed(owner, windows)).await
    }

    async fn replace(&self, as_: Statement<'_>, day: Windows) -> Result<(), Failure> {
        self.cut(self.inner.replace(as_, day)).await
    }

    async fn record_all(&self, as_: Statement<'_>, of: &[Recorded]) -> Result<(), Failure> {
        self.cut(self.inner.record_all(as_, of)).await
    }

    async fn forget_just(&self, as_: Statement<'_>, of: &[Recorded]) -> Result<(), Failure> {
        self.cut(self.inner.forget_just(as_, of)).await
    }
}
