//! Tables that somebody changed.

use crate::{
    OFTEN, audited, post, recover, recover_run,
    support::{Place, hold_gap, wait_for},
    text, wait_run_stopped, wait_stopped, write,
};

#[test]
fn a_table_that_somebody_changed_stops_its_run_and_is_made_right_again_from_the_log() {
    let place = Place::new(OFTEN);
    let mut serve = place.start();
    let mut sent = post(&place, "/a", 3) + post(&place, "/b", 2);
    place.wait_complete();
    let rows = write(&place, "SELECT count() FROM weir.stats_v1");
    let whole = |sent: u64, what: &str| {
        place.wait_complete();
        assert_eq!(place.page_views(), Some(sent), "{what}");
    };

    // Rows that are gone, while hits come in.
    write(&place, "ALTER TABLE weir.stats_v1 DELETE WHERE value = '/a' SETTINGS mutations_sync = 2");
    let said = wait_stopped(&place, "table_differs");
    assert!(said.contains("weir recover live"), "{said}");
    assert!(serve.children("run").is_empty(), "nothing runs beside what is wrong");
    sent += post(&place, "/c", 4);
    let status = place.weir(&["status"]);
    assert!(
        !status.status.success() && text(&status).contains("\nlive: STOPPED · the table is not"),
        "{}",
        text(&status)
    );
    let went_on = recover(&place, &[]);
    assert!(went_on.status.success() && text(&went_on).contains("live goes on from "), "{}", text(&went_on));
    whole(sent, "what was missing is there again");

    // Rows that are there twice.
    let columns = "site, dimension, value, window_start, emitted_in, origin, page_views, visitors, visitor_check";
    write(
        &place,
        &format!("INSERT INTO weir.stats_v1 ({columns}) SELECT {columns} FROM weir.stats_v1 WHERE value = '/b'"),
    );
    wait_stopped(&place, "table_differs");
    assert!(recover(&place, &[]).status.success());
    whole(sent, "what was doubled is there once");
    let b = "SELECT sum(page_views) FROM weir.stats_v1 WHERE dimension = 'page' AND value = '/b'";
    assert_eq!(write(&place, b).trim(), "2");

    // A table in which no row comes out as it was written.
    write(&place, "ALTER TABLE weir.stats_v1 MODIFY COLUMN visitor_check UInt64 DEFAULT 0");
    sent += post(&place, "/d", 1);
    let said = wait_stopped(&place, "table_altered");
    assert!(said.contains("column visitor_check has the default DEFAULT 0"), "{said}");
    let told = place.weir(&["recover", "live", "--dry-run"]);
    assert!(told.status.success() && text(&told).starts_with("would do: the tables are made"), "{}", text(&told));
    assert!(recover(&place, &[]).status.success());
    whole(sent, "and written again as it must be");

    // The record is emptied, with the rows in their place.
    write(&place, "TRUNCATE TABLE weir.emissions");
    wait_stopped(&place, "table_lost");
    assert!(recover(&place, &[]).status.success());
    whole(sent, "every batch was asked for again");
    audited(&place);

    // Another ClickHouse, which knows of nothing.
    assert_eq!(serve.stop(), Some(0));
    std::fs::remove_dir_all(place.dir.path().join("data/clickhouse")).unwrap();
    serve = place.start();
    let said = wait_stopped(&place, "table_lost");
    assert!(said.contains("this is another ClickHouse"), "{said}");
    let parts = "SELECT count() FROM system.parts WHERE database = 'weir' AND table = 'stats_v1' AND active";
    assert_eq!(write(&place, parts).trim(), "0", "nothing was begun afresh unsaid");
    sent += post(&place, "/e", 1);
    assert!(recover(&place, &[]).status.success());
    whole(sent, "all of it, from the log");
    assert!(
        write(&place, "SELECT count() FROM weir.stats_v1").trim().parse::<u64>().unwrap()
            > rows.trim().parse().unwrap()
    );
    audited(&place);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn rows_of_a_filled_gap_that_somebody_changed_stop_live_and_are_the_gap_runs_again_after_its_recovery() {
    let place = Place::new(OFTEN);
    let serve = place.start();
    let mut sent = post(&place, "/a", 3);
    place.wait_complete();
    let order = |args: &[&str]| {
        let output = place.weir(&[args, &["--reason", "of a test"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    };
    let leave = |page: &str| {
        order(&["pause", "live"]);
        let sent = post(&place, page, 2);
        std::thread::sleep(std::time::Duration::from_secs(3));
        order(&["resume", "live", "--live-first"]);
        sent
    };
    sent += leave("/gap");
    wait_for("the gap to be filled", || (place.page_views()? == sent).then_some(()));
    let filled = || {
        let maintenances = place.status()?["maintenances"].clone();
        maintenances.as_array()?.iter().all(|one| one["state"] == "over").then_some(())
    };
    wait_for("the catch-up", filled);
    hold_gap(&place, "gap");
    sent += leave("/later");

    write(&place, "ALTER TABLE weir.stats_v1 DELETE WHERE value = '/gap' SETTINGS mutations_sync = 2");
    let said = wait_stopped(&place, "table_differs");
    assert!(said.contains("live: the windows from 2") && said.contains(" UTC were recorded with "), "{said}");
    assert!(said.contains("`weir recover live` computes the windows from "), "{said}");
    assert!(recover(&place, &[]).status.success());
    sent += post(&place, "/b", 1);
    place.wait_complete();
    let of = |page: &str| {
        let sql = format!("SELECT sum(page_views) FROM weir.stats_v1 WHERE dimension = 'page' AND value = '{page}'");
        write(&place, &sql).trim().to_owned()
    };
    // What was left once is the gap run's again: it is held.
    assert_eq!((of("/gap"), of("/later")), ("0".to_owned(), "0".to_owned()));
    order(&["resume", "gap"]);
    wait_for("both gaps to be filled", || (place.page_views()? == sent).then_some(()));
    wait_for("the catch-up", filled);
    audited(&place);
    assert_eq!(serve.stop(), Some(0));
}

/// The lines of an access log: `views` of `/i`, one a second.
fn access_log(place: &Place, views: u32) -> String {
    let path = place.dir.path().join("access.log");
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let line = |second: u32| {
        format!(
            "192.0.2.{} - - [17/May/2015:10:{:02}:{:02} +0000] \"GET /i HTTP/1.1\" 200 5 \"-\" \"{agent}\"\n",
            second % 200,
            second / 60,
            second % 60
        )
    };
    std::fs::write(&path, (0..views).map(line).collect::<String>()).unwrap();
    path.display().to_string()
}

#[test]
fn a_table_that_was_made_otherwise_stops_its_run_alone_and_stays_so_over_a_restart() {
    let place = Place::new(OFTEN);
    let serve = place.start();
    let mut sent = post(&place, "/a", 3);
    place.wait_complete();
    let live = "SELECT sum(page_views) FROM weir.stats_v1 WHERE dimension = 'site' AND origin = ''";
    let whole = |sent: u64, what: &str| {
        place.wait_complete();
        assert_eq!(write(&place, live).trim(), sent.to_string(), "{what}");
    };

    // The record without its digests: it gets the column back, then all is compared, and computed again.
    write(&place, "ALTER TABLE weir.emissions DROP COLUMN digest");
    sent += post(&place, "/b", 1);
    let said = wait_stopped(&place, "table_altered");
    assert!(said.contains("weir.emissions is not as weir makes it: it has no column digest"), "{said}");
    let recovered = recover(&place, &[]);
    assert!(!recovered.status.success() && text(&recovered).contains("live has stopped again"), "{}", text(&recovered));
    wait_stopped(&place, "table_differs");
    let recovered = recover(&place, &[]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    whole(sent, "the digests are there again");
    audited(&place);

    // Nobody may write. An import is refused as live is, and both are told.
    write(&place, "DROP TABLE weir.owners SYNC");
    sent += post(&place, "/c", 2);
    let said = wait_stopped(&place, "owners_gone");
    assert!(said.contains("table weir.owners is not there") && said.contains("weir recover live"), "{said}");
    assert_eq!(serve.stop(), Some(0));
    let serve = place.start();
    wait_stopped(&place, "owners_gone");
    assert!(recover(&place, &[]).status.success());
    whole(sent, "with owners made anew");
    audited(&place);

    // An import is counted while live has stopped.
    write(&place, "ALTER TABLE weir.stats_v1 DELETE WHERE value = '/a' AND origin = '' SETTINGS mutations_sync = 2");
    wait_stopped(&place, "table_differs");
    let import = place.json(&["import", "--json", "--site", "one.example", &access_log(&place, 70)]);
    assert_eq!(import["page_views"], 70);
    wait_for("the import beside a run that has stopped", || {
        (place.status()?["imports"][0]["state"].as_str()? == "done").then_some(())
    });
    let status = place.status().unwrap();
    assert_eq!(status["runs"][0]["progress"]["fault"]["kind"], "table_differs", "live has not gone on: {status}");
    assert!(recover(&place, &[]).status.success());
    whole(sent, "after what another run did");

    // An import whose rows somebody took out: it alone stops, and is computed again.
    write(&place, "ALTER TABLE weir.stats_v1 DELETE WHERE value = '/i' SETTINGS mutations_sync = 2");
    assert_eq!(serve.stop(), Some(0));
    let serve = place.start();
    let run = format!("import-{}", import["id"].as_str().unwrap());
    let said = wait_run_stopped(&place, 1, "table_differs");
    assert!(said.contains(&format!("weir recover {run}")), "{said}");
    sent += post(&place, "/d", 1);
    whole(sent, "live goes on beside it");
    let recovered = recover_run(&place, &run, &[]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    let imported = "SELECT sum(page_views) FROM weir.stats_v1 WHERE dimension = 'page' AND value = '/i'";
    wait_for("the import's rows", || (write(&place, imported).trim() == "70").then_some(()));
    audited(&place);

    // An engine that folds rows cannot be changed in place: it is moved away, and everything is computed into a new one.
    let made = write(&place, "SHOW CREATE TABLE weir.stats_v1 FORMAT TSVRaw");
    write(&place, "RENAME TABLE weir.stats_v1 TO weir.stats_v1_before");
    let folding = made.replace("ENGINE = MergeTree", "ENGINE = ReplacingMergeTree");
    assert_ne!(folding, made);
    write(&place, &folding);
    // Its rows are gone, which is found first.
    wait_stopped(&place, "table_differs");
    let refused = recover(&place, &[]);
    let said = text(&refused);
    assert!(!refused.status.success() && said.contains("its engine is ReplacingMergeTree"), "{said}");
    let said = wait_stopped(&place, "table_altered");
    assert!(said.contains("RENAME TABLE"), "{said}");
    write(&place, "RENAME TABLE weir.stats_v1 TO weir.stats_v1_folding");
    let mut recovered = recover(&place, &[]);
    if !recovered.status.success() {
        // The audit had not come to the oldest batches yet: the whole comparison has.
        assert!(wait_stopped(&place, "table_differs").contains("the table holds 0"));
        recovered = recover(&place, &[]);
    }
    assert!(recovered.status.success(), "{}", text(&recovered));
    whole(sent, "all of live, in a new table");
    assert_eq!(serve.stop(), Some(0));
}
