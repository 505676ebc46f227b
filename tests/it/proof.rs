//! Faults that a conversion must not overlook, planted in the new generation's table of a real weir.

use crate::support::{Place, refused, text, wait_for, went_well, write};

/// Distinct visitors of one second.
const VISITORS: u32 = 100_000;
/// All columns that a row keeps.
const COLUMNS: &str = "site, dimension, value, window_start, emitted_in, origin, page_views, outbound_clicks, ad_clicks, \
                       downloads, custom_events, bot_events, visitors, visitor_check";

/// An access log of two days: on the first [`VISITORS`] come in one second, on the second a few.
fn access_log(place: &Place) -> String {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let line = |visitor: u32, day: u32, page: &str| {
        let [_, b, c, d] = visitor.to_be_bytes();
        format!(
            "9.{b}.{c}.{d} - - [{day:02}/Mar/2020:10:00:00 +0000] \"GET {page} HTTP/1.1\" 200 5 \"-\" \"{agent}\"\n"
        )
    };
    let first = (0..VISITORS).map(|visitor| line(visitor, 1, "/first"));
    let all: String = first.chain((0..5).map(|visitor| line(visitor, 2, "/second"))).collect();
    let path = place.dir.path().join("access.log");
    std::fs::write(&path, all).unwrap();
    path.display().to_string()
}

#[test]
fn each_planted_fault_is_found_and_named_and_shown_is_only_what_is_whole() {
    let place = Place::new("");
    let serve = place.start();
    place.hits("/before", 5);
    place.wait_complete();
    went_well(&place, &["import", "--site", "two.example", &access_log(&place)]);
    wait_for("the import to be counted", || (place.status()?["imports"][0]["state"].as_str()? == "done").then_some(()));
    // The version that the place has, under another number: each number of either table must be alike.
    went_well(&place, &["migrate", "start", "--file", &place.version(1, 2, 1, 1), "--reason", "to be proved"]);
    let verify = || place.weir(&["migrate", "verify"]);
    wait_for("the shadow to catch up", || verify().status.success().then_some(()));

    for sql in [
        "CREATE TABLE weir.kept AS weir.stats_v2".to_owned(),
        format!("INSERT INTO weir.kept ({COLUMNS}) SELECT {COLUMNS} FROM weir.stats_v2"),
    ] {
        write(&place, &sql);
    }
    let plant = |rows: &str| {
        write(&place, "TRUNCATE TABLE weir.stats_v2");
        write(&place, &format!("INSERT INTO weir.stats_v2 ({COLUMNS}) {rows}"));
    };
    let (all, live, imported) = (
        format!("SELECT {COLUMNS} FROM weir.kept"),
        "site = 'one.example' AND dimension = 'page' AND value = '/before'",
        "site = 'two.example' AND dimension = 'site' AND toDate(window_start) = '2020-03-01'",
    );
    let replaced = |what: &str, by: &str| all.replacen(&format!("{what},"), &format!("{by} AS {what},"), 1);
    let mixed = "multiIf(dimension = 'os', 'browser', dimension = 'browser', 'os', toString(dimension))";
    let less = "(visitor_check - 123456789 * (site = 'two.example' AND dimension = 'site' AND toDate(window_start) = '2020-03-01'))";
    let faults = [
        (
            "a row is missing",
            format!("{all} WHERE NOT ({live})"),
            "one.example on ",
            "page \"/before\": page_views 5, 0",
        ),
        (
            "a row is doubled",
            format!("{all} UNION ALL {all} WHERE {live}"),
            "one.example on ",
            "\"/before\": page_views 5, 10",
        ),
        (
            "one visitor less",
            all.replacen("visitor_check FROM", &format!("{less} AS visitor_check FROM"), 1),
            "two.example on 2020-03-01, site: visitor_check ",
            "",
        ),
        (
            "a day is missing",
            format!("{all} WHERE toDate(window_start) != '2020-03-02'"),
            "two.example on 2020-03-02, ",
            "page_views 5, 0",
        ),
        (
            "two dimensions are mixed up",
            replaced("dimension", mixed),
            "two.example on 2020-03-01, browser",
            " 0, 100000",
        ),
    ];
    assert_ne!(write(&place, &format!("SELECT count() FROM weir.kept WHERE {imported}")).trim(), "0");
    for (fault, rows, of, numbers) in faults {
        plant(&rows);
        let found = verify();
        let said = text(&found);
        let is_named = |line: &str| line.contains(&format!("DIFFERS: {of}")) && line.contains(numbers);
        assert!(!found.status.success() && said.lines().any(is_named), "{fault}: {said}");
        let recorded = "DIFFERS: generation 2 is not what its runs have recorded";
        assert!(said.contains(recorded), "{fault} is seen also without the other table: {said}");
        let why = refused(&place, &["migrate", "swap", "--when-ready", "--reason", "r"]);
        assert!(why.contains("both generations differ in "), "{fault}: {why}");
    }
    plant(&all);
    let whole = verify();
    assert!(whole.status.success(), "{}", text(&whole));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_new_generation_that_has_no_room_or_no_memory_is_not_complete_and_not_shown_until_it_has_all() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = place.hits("/before", 5);
    place.wait_complete();
    went_well(&place, &["migrate", "start", "--file", &place.version(1, 2, 1, 1), "--reason", "more than fits"]);
    let verified =
        || wait_for("the shadow to have all", || place.weir(&["migrate", "verify"]).status.success().then_some(()));
    verified();
    let through = "SELECT toString(max(window_to)) FROM weir.emissions WHERE run = 'v2-live' AND state = 'done'";
    let room = "ALTER TABLE weir.stats_v2 MODIFY SETTING min_free_disk_bytes_to_perform_insert =";
    // To check a row takes 16 GB, of 8 that the server has at most.
    let eats = "ALTER TABLE weir.stats_v2 ADD CONSTRAINT eats CHECK notEmpty(arrayMap(x -> randomString(16000000), range(1000)))";
    // The server itself refuses either, of the new generation alone.
    let lacks = [
        ("MEMORY_LIMIT_EXCEEDED", eats.to_owned(), "ALTER TABLE weir.stats_v2 DROP CONSTRAINT eats".to_owned()),
        ("NOT_ENOUGH_SPACE", format!("{room} 1000000000000000"), format!("{room} 0")),
    ];
    for (said, lack, mend) in lacks {
        write(&place, &lack);
        sent += place.hits("/meanwhile", 7);
        place.wait_complete();
        let status = wait_for("the shadow to wait", || {
            let said = text(&place.weir(&["migrate", "status"]));
            said.contains("  WAITING for shadow: ").then_some(said)
        });
        assert!(status.contains(said), "{status}");
        let full = write(&place, through);
        sent += place.hits("/later", 3);
        place.wait_complete();
        assert_eq!(write(&place, through), full, "{said}: nothing is recorded that is not in the table");
        wait_for("live to be ahead", || {
            let why = refused(&place, &["migrate", "swap", "--reason", "r"]);
            why.contains("shadow has not caught up: it is complete through ").then_some(())
        });
        assert_eq!(place.page_views(), Some(sent), "{said}: live goes on");
        write(&place, &mend);
        verified();
    }
    went_well(&place, &["migrate", "swap", "--when-ready", "--reason", "it has room", "--hold", "0s"]);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(sent), "and the new one has all of it");
    assert_eq!(serve.stop(), Some(0));
}
