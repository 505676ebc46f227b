//! A conversion, as an operator has it: filled beside, proved, shown, taken back, shown again, and the old one dropped; readers
//! notice nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::support::{Place, Serve, hold_gap, refused, text, wait_for, went_well, write};
use serde_json::Value;

/// Queries all the time what an analyst does: how many failed, and how often what is complete has gone back.
struct Analyst {
    stop: Arc<AtomicBool>,
    asks: JoinHandle<(u64, Vec<String>)>,
}

impl Analyst {
    fn start(place: &Place) -> Analyst {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("http://127.0.0.1:{}/?user=analyst&database=weir", place.clickhouse);
        let stopped = stop.clone();
        let asks = std::thread::spawn(move || {
            let (mut asked, mut wrong, mut through) = (0, Vec::new(), 0);
            let ask = |sql: &str| match crate::support::http("POST", &url, Some(sql), None) {
                Ok((200, answer)) => Ok(answer.trim().to_owned()),
                other => Err(format!("{sql}: {other:?}")),
            };
            while !stopped.load(Ordering::SeqCst) {
                for sql in [
                    "SELECT sum(page_views), uniqCombined64Merge(visitors) FROM stats WHERE dimension = 'site'",
                    "SELECT sum(page_views) FROM pages",
                    "SELECT toUnixTimestamp(max(complete_through)) FROM completeness WHERE origin = ''",
                ] {
                    asked += 1;
                    match ask(sql) {
                        Err(failed) => wrong.push(failed),
                        Ok(answer) if sql.ends_with("pages") => {
                            if answer == "0" {
                                wrong.push(format!("{sql}: nothing"));
                            }
                        }
                        Ok(answer) if sql.contains("completeness") => {
                            let now: u64 = answer.parse().unwrap();
                            if now < through {
                                wrong.push(format!("complete through {now} after {through}"));
                            }
                            through = through.max(now);
                        }
                        Ok(_) => {}
                    }
                }
            }
            (asked, wrong)
        });
        Analyst { stop, asks }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        self.asks.join().unwrap()
    }
}

fn generation_shown(place: &Place) -> String {
    let sql =
        "SELECT extract(as_select, 'stats_v[0-9]+') FROM system.tables WHERE database = 'weir' AND name = 'stats'";
    write(place, sql).trim().to_owned()
}

/// Until the shadow is as far as live, and its imports are done.
fn wait_filled(place: &Place) {
    wait_for("the shadow to catch up", || {
        let verified = place.weir(&["migrate", "verify"]);
        verified.status.success().then_some(())
    });
}

fn digest(place: &Place, generation: &str) -> Value {
    place.json(&["digest", "--generation", generation, "--json"])
}

#[test]
fn a_conversion_is_filled_proved_shown_reverted_shown_again_and_the_old_one_dropped_and_readers_notice_nothing() {
    let place = Place::new("");
    let mut serve: Serve = place.start();
    let mut sent = place.hits("/before", 5);
    place.wait_complete();
    place.import_line();
    let version = place.version(2, 2, 2, 2);
    let text_of = std::fs::read_to_string(&version).unwrap().replace("\"page\"", "\"page as path\"");
    std::fs::write(&version, text_of.replace("\"ad_clicks\"", "\"ad_clicks as sponsored_clicks\"")).unwrap();

    let none = refused(&place, &["migrate", "swap", "--reason", "r"]);
    assert!(none.contains("no conversion is under way"), "{none}");
    let plan = went_well(&place, &["migrate", "plan", "--file", &version]);
    for words in
        ["from generation 1 to 2", "width 1s becomes 2s", "rules 1 becomes 2", "the log reaches back to all", "events"]
            .into_iter()
            .chain(["dimension page becomes path", "ad_clicks is also sponsored_clicks"])
    {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    assert!(!text(&place.weir(&["log"])).contains("generation 2"), "a plan writes nothing");

    went_well(&place, &["migrate", "start", "--file", &version, "--reason", "newer channels"]);
    let second = refused(&place, &["migrate", "start", "--file", &place.version(2, 3, 1, 1), "--reason", "r"]);
    assert!(second.contains("a conversion to generation 2 is under way since "), "{second}");
    sent += place.hits("/meanwhile", 5);
    let unproved = refused(&place, &["migrate", "swap", "--reason", "r"]);
    let reasons = ["nothing proves yet that both generations agree", "has not caught up", "is not done"];
    assert!(reasons.iter().any(|reason| unproved.contains(reason)), "{unproved}");

    // The shadow is held and slowed as one; what was ordered lasts over a kill of everything.
    went_well(&place, &["pause", "shadow", "--reason", "a test"]);
    sent += place.hits("/paused", 2);
    serve.kill();
    serve = place.start();
    wait_for("ClickHouse", || place.live_views());
    let paused = refused(&place, &["migrate", "swap", "--reason", "r"]);
    assert!(paused.contains("shadow is paused by "), "{paused}");
    let analyst = Analyst::start(&place);
    went_well(&place, &["throttle", "shadow", "0.9", "--reason", "a test"]);
    went_well(&place, &["resume", "shadow", "--reason", "a test"]);
    place.wait_complete();
    wait_filled(&place);
    assert_eq!((generation_shown(&place).as_str(), place.live_views()), ("stats_v1", Some(sent)));

    let vetoed = refused(&place, &["migrate", "swap", "--when-ready", "--reason", "r", "--veto", "exit 3"]);
    assert!(vetoed.contains("vetoed"), "{vetoed}");
    let shown = went_well(&place, &["migrate", "swap", "--when-ready", "--reason", "it is proved", "--hold", "1h"]);
    assert!(shown.contains("shown: the public views are of generation 2"), "{shown}");
    assert_eq!((generation_shown(&place).as_str(), place.live_views()), ("stats_v2", Some(sent)));

    let number = |sql: &str| place.query(sql).unwrap_or_else(|| panic!("{sql}")).trim().to_owned();
    let of_one = |which: &str| number(&format!("SELECT sum(page_views) FROM {which} AND site = 'one.example'"));
    assert_eq!(of_one("pages WHERE page != ''"), sent.to_string(), "the view of a dimension that is called otherwise");
    assert_eq!(of_one("stats WHERE dimension = 'path'"), sent.to_string());
    assert_eq!(number("SELECT sum(ad_clicks) = sum(sponsored_clicks) FROM sites"), "1");

    // Both are written on, and `live` is now the new one's.
    sent += place.hits("/after", 3);
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));
    let status = place.status().unwrap();
    assert_eq!((&status["runs"][0]["run"], &status["runs"][0]["progress"]["generation"]), (&"live".into(), &2.into()));
    let paused = went_well(&place, &["pause", "live", "--reason", "a test"]);
    assert!(paused.contains("\npaused: complete through "), "{paused}");
    let held = refused(&place, &["migrate", "revert", "--reason", "r"]);
    assert!(held.contains("live is paused by "), "{held}");
    sent += place.hits("/held", 2);
    went_well(&place, &["resume", "live", "--live-first", "--reason", "a test"]);
    place.wait_complete();
    wait_for("the gap to be filled", || (place.live_views() == Some(sent)).then_some(()));

    // What it has left is filled, also when it is not the one in use any more.
    hold_gap(&place, "v2-gap");
    went_well(&place, &["pause", "live", "--reason", "a test"]);
    sent += place.hits("/left", 2);
    // What is left ends with the window before the one of the resume.
    let window = || jiff::Timestamp::now().as_millisecond() / 2_000;
    let of_hits = window();
    wait_for("a window to pass", || (window() > of_hits + 1).then_some(()));
    went_well(&place, &["resume", "live", "--live-first", "--reason", "a test"]);
    sent += place.hits("/first", 1);
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent - 2), "it is left");
    let back = wait_for("the way back", || {
        let back = place.weir(&["migrate", "revert", "--reason", "a test of the way back"]);
        back.status.success().then(|| text(&back))
    });
    assert!(back.contains("shown: the public views are of generation 1"), "{back}");
    assert_eq!((generation_shown(&place).as_str(), place.live_views()), ("stats_v1", Some(sent)));
    wait_filled(&place);
    went_well(&place, &["migrate", "swap", "--when-ready", "--reason", "again", "--hold", "1h"]);
    assert_eq!((generation_shown(&place).as_str(), place.live_views()), ("stats_v2", Some(sent)));

    // What is in use, or the way back, is not dropped.
    let kept = refused(&place, &["migrate", "drop", "--reason", "r"]);
    assert!(kept.contains("it is held until ") && kept.contains("`weir migrate revert`"), "{kept}");
    let (asked, wrong) = analyst.stop();
    assert!(asked > 100 && wrong.is_empty(), "{asked} queries: {wrong:?}");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_conversion_that_is_given_up_leaves_all_as_it_was() {
    let place = Place::new("");
    let serve = place.start();
    let sent = place.hits("/before", 5);
    place.wait_complete();
    let before = digest(&place, "1");
    went_well(&place, &["migrate", "start", "--file", &place.version(2, 2, 1, 1), "--reason", "newer channels"]);
    wait_filled(&place);
    went_well(&place, &["backup", "create", "both"]);
    let dropped = went_well(&place, &["migrate", "drop", "--reason", "not now"]);
    assert!(dropped.contains("dropped: generation 2"), "{dropped}");
    let left = write(&place, "SELECT count() FROM system.tables WHERE database = 'weir' AND name = 'stats_v2'");
    assert_eq!(left.trim(), "0");
    assert_eq!((digest(&place, "1"), place.live_views()), (before, Some(sent)));
    assert!(serve.children("run").len() <= 1, "the shadow's runs are gone");
    // A copy that has one more than there are is a copy of those that there are.
    went_well(&place, &["backup", "verify", "both"]);
    let restored = went_well(&place, &["backup", "restore", "both", "--reason", "a test"]);
    assert!(restored.contains("  live goes on from ") && !restored.contains("v2-live"), "{restored}");
    place.wait_complete();
    let rows = write(&place, "SELECT count() FROM weir.emissions WHERE generation = 2");
    assert_eq!((place.live_views(), rows.trim()), (Some(sent), "0"));
    let used = refused(&place, &["migrate", "start", "--file", &place.version(2, 2, 1, 1), "--reason", "again"]);
    assert!(used.contains("there is, or was, a generation 2"), "{used}");
    went_well(&place, &["migrate", "start", "--file", &place.version(2, 3, 1, 1), "--reason", "again"]);
    wait_filled(&place);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn what_differs_is_named_and_nothing_is_shown_before_it_is_right() {
    let place = Place::new("");
    let serve = place.start();
    place.hits("/before", 5);
    place.wait_complete();
    went_well(&place, &["migrate", "start", "--file", &place.version(2, 2, 1, 1), "--reason", "newer channels"]);
    wait_filled(&place);
    write(&place, "ALTER TABLE weir.stats_v2 DELETE WHERE dimension = 'page' SETTINGS mutations_sync = 1");
    let differs = place.weir(&["migrate", "verify"]);
    let said = text(&differs);
    assert!(!differs.status.success() && said.contains("DIFFERS: one.example on ") && said.contains(" page"), "{said}");
    let why = refused(&place, &["migrate", "swap", "--reason", "r"]);
    assert!(why.contains("differ in ") || why.contains("has stopped"), "{why}");
    assert_eq!(generation_shown(&place), "stats_v1");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn what_comes_between_the_order_to_show_and_its_instant_withdraws_it() {
    let place = Place::new("");
    let serve = place.start();
    let sent = place.hits("/before", 5);
    place.wait_complete();
    went_well(&place, &["migrate", "start", "--file", &place.version(2, 2, 1, 1), "--reason", "newer channels"]);
    wait_filled(&place);
    let swap = ["migrate", "swap", "--when-ready", "--reason", "r", "--hold", "0s"];
    let ordered = place.command(&swap).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let is_ordered = || text(&place.weir(&["migrate", "status"])).contains("is shown as soon as both are complete");
    wait_for("the order", || is_ordered().then_some(()));
    place.import_line();
    let ended = ordered.wait_with_output().unwrap();
    assert!(text(&ended).contains("not shown: all is as it was") && !ended.status.success(), "{}", text(&ended));
    assert_eq!(generation_shown(&place), "stats_v1");
    let why = text(&place.weir(&["log"]));
    assert!(why.contains("since the comparison import ") && why.contains(" has come"), "{why}");
    // It is compared anew, with the import, by itself.
    let shown = went_well(&place, &swap);
    assert!(shown.contains("since the last comparison import ") && shown.contains("both generations agree"), "{shown}");
    assert_eq!((generation_shown(&place).as_str(), place.live_views()), ("stats_v2", Some(sent)));
    let imported = "SELECT sum(page_views) FROM stats WHERE dimension = 'site' AND site = 'two.example'";
    assert_eq!(place.query(imported).unwrap().trim(), "1");
    assert_eq!(serve.stop(), Some(0));
}

/// `weir serve` that ends after this step.
fn start_failing(place: &Place, step: &str) -> Serve {
    let mut command = place.command(&["serve"]);
    Serve { child: command.env("WEIR_TEST_FAULT", step).spawn().unwrap() }
}

#[test]
fn whoever_is_cut_at_any_step_a_conversion_ends_shown_or_as_before_and_the_same_command_goes_on() {
    let place = Place::new("");
    let mut serve = place.start();
    let sent = place.hits("/before", 5);
    place.wait_complete();
    let version = place.version(2, 2, 1, 1);
    let failing = |step: &str, words: &[&str]| {
        let cut = place.command(words).env("WEIR_TEST_FAULT", step).output().unwrap();
        assert!(text(&cut).contains("ends here"), "{step}: {}", text(&cut));
    };
    // The verbs.
    failing("started", &["migrate", "start", "--file", &version, "--reason", "r"]);
    let again = refused(&place, &["migrate", "start", "--file", &version, "--reason", "r"]);
    assert!(again.contains("a conversion to generation 2 is under way since "), "{again}");
    wait_filled(&place);
    failing("compared", &["migrate", "verify"]);
    let gone_on = went_well(&place, &["migrate", "verify"]);
    assert!(gone_on.contains("goes on with the comparison of "), "{gone_on}");
    assert!(gone_on.contains("live: was compared, and agrees"), "{gone_on}");
    failing("verified", &["migrate", "verify"]);
    failing("show-ordered", &["migrate", "swap", "--when-ready", "--reason", "r", "--hold", "0s"]);
    went_well(&place, &["migrate", "swap", "--when-ready", "--reason", "r", "--hold", "0s"]);
    assert_eq!((generation_shown(&place).as_str(), place.live_views()), ("stats_v2", Some(sent)));
    // The supervisor, on the way there and on the way back.
    for (step, words, shown) in [
        ("views-bounded", ["migrate", "revert"], "stats_v1"),
        ("views-bounded", ["migrate", "swap"], "stats_v2"),
        ("shown", ["migrate", "revert"], "stats_v1"),
        ("shown", ["migrate", "swap"], "stats_v2"),
        ("views-bounded", ["migrate", "revert"], "stats_v1"),
        ("views-moved", ["migrate", "swap"], "stats_v2"),
    ] {
        serve.kill();
        let mut cut = start_failing(&place, step);
        wait_for("ClickHouse", || place.live_views());
        let order = || place.command(&[&words[..], &["--reason", "r"]].concat()).spawn().unwrap();
        let mut ordered = order();
        // It may be too early for the order: then it is refused, and given again.
        let ended = wait_for("the step", || {
            if ordered.try_wait().unwrap().is_some() {
                ordered = order();
            }
            cut.child.try_wait().unwrap()
        });
        assert_eq!(ended.code(), None, "{step} {words:?}: it was to end by a signal");
        serve = place.start();
        let _ = ordered.wait_with_output();
        // It has come to be, or is as before, and then the same command does it.
        wait_for(shown, || {
            let again = place.weir(&[&words[..], &["--reason", "r"]].concat());
            (again.status.success() && generation_shown(&place) == shown).then_some(())
        });
        place.wait_complete();
        assert_eq!(place.live_views(), Some(sent), "{step} {words:?}");
    }
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn whoever_is_cut_while_a_generation_is_made_or_taken_away_it_is_made_or_gone_in_the_end() {
    let place = Place::new("");
    let serve = place.start();
    let sent = place.hits("/before", 5);
    place.wait_complete();
    let before = digest(&place, "1");
    let drop = ["migrate", "drop", "--reason", "not now"];
    let tables = "SELECT arrayStringConcat(arraySort(groupArray(name))) FROM system.tables WHERE database = 'weir' AND name \
                  LIKE 'stats_v%'";
    let cut = |step: &str, words: &[&str]| {
        let mut cut = start_failing(&place, step);
        wait_for("ClickHouse", || place.live_views());
        let ordered = place.command(words).spawn().unwrap();
        assert_eq!(cut.child.wait().unwrap().code(), None, "{step}: it was to end by a signal");
        (place.start(), ordered)
    };
    // The supervisor has made the tables, and no run yet.
    serve.kill();
    let start = |number| ["migrate", "start", "--file", place.version(2, number, 1, 1).leak(), "--reason", "r"];
    let (serve, started) = cut("tables-made", &start(2));
    assert!(started.wait_with_output().unwrap().status.success());
    wait_filled(&place);
    // Who orders that it goes.
    let gone = place.command(&drop).env("WEIR_TEST_FAULT", "drop-ordered").output().unwrap();
    assert!(text(&gone).contains("ends here"), "{}", text(&gone));
    wait_for("generation 2 to go", || (write(&place, tables).trim() == "stats_v1").then_some(()));
    wait_for("its end to be told", || {
        text(&place.weir(&["migrate", "status"])).contains("no conversion").then_some(())
    });
    let again = went_well(&place, &drop);
    assert!(again.contains("dropped: generation 2"), "{again}");
    // The supervisor has taken it away, and not said so.
    went_well(&place, &start(3));
    wait_filled(&place);
    serve.kill();
    // And whoever starts the next one has put another version into the configuration: that makes no table, and shows none.
    let configured = place.dir.path().join("quick.toml");
    let other = std::fs::read_to_string(&configured).unwrap().replace("number = 1\n", "number = 7\n");
    assert!(other.contains("number = 7\n"));
    std::fs::write(&configured, other).unwrap();
    let looked = text(&place.weir(&["doctor"]));
    let not_used = "WRONG  schema: the configured schema version 7 is not used: at the first start it was version 1,";
    assert!(looked.contains(not_used), "{looked}");
    let (serve, dropped) = cut("dropped", &drop);
    assert!(dropped.wait_with_output().unwrap().status.success(), "who has ordered it hears of it");
    assert_eq!(write(&place, tables).trim(), "stats_v1");
    place.wait_complete();
    assert_eq!((digest(&place, "1"), place.live_views()), (before, Some(sent)));
    assert_eq!(serve.stop(), Some(0));
}
