//! Copies of the statistics: made and proved while everything goes on, and the way back to one.

use crate::support::{self, Place, hold_gap, post, refused, text, wait_for, went_well, write};
use serde_json::Value;

fn whole(place: &Place, sent: u64, what: &str) {
    place.wait_complete();
    // Complete is said of live; an import that is computed again may take a moment more.
    wait_for(what, || (place.page_views()? == sent).then_some(()));
}

/// Rows and digest of all that left before `to`.
fn digest(place: &Place, to: &str) -> Value {
    place.json(&["digest", "--to", to, "--json"])["digest"].clone()
}

#[test]
fn a_clickhouse_that_is_lost_comes_back_from_a_copy_and_the_log_gives_the_rest() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = post(&place, "/a", 3);
    place.wait_complete();
    let made = went_well(&place, &["backup", "create", "one"]);
    assert!(made.contains("copy one was made (all of it): live complete through "), "{made}");
    assert!(made.contains("no day of it can be proved, nothing was recorded more than a minute before it"), "{made}");
    sent += post(&place, "/b", 2);
    place.wait_complete();
    let made = went_well(&place, &["backup", "create", "two"]);
    assert!(made.contains("copy two was made (what is not in one)"), "{made}");
    for name in ["one", "two"] {
        let said = went_well(&place, &["backup", "verify", name]);
        assert!(said.contains(&format!("copy {name} is whole")), "{said}");
    }
    let listed = went_well(&place, &["backup", "list"]);
    assert!(listed.lines().count() == 2 && listed.contains("on top of one"), "{listed}");

    // After the copies: hits, and an import.
    let log = support::repository().join("examples/blog-access.log");
    let import = place.json(&["import", "--json", "--site", "two.example", &log.display().to_string()]);
    sent += post(&place, "/c", 1) + import["page_views"].as_u64().unwrap();
    wait_for("the import", || (place.status()?["imports"][0]["state"].as_str()? == "done").then_some(()));
    whole(&place, sent, "all of it");
    let now = jiff::Timestamp::now().to_string();
    let before = digest(&place, &now);

    // The disk is gone.
    assert_eq!(serve.stop(), Some(0));
    std::fs::remove_dir_all(place.dir.path().join("data/clickhouse")).unwrap();
    let serve = place.start();
    wait_for("live to say that its table is lost", || {
        (place.status()?["runs"][0]["progress"]["fault"]["kind"].as_str()? == "table_lost").then_some(())
    });
    sent += post(&place, "/d", 4);
    let told = went_well(&place, &["backup", "restore", "two", "--dry-run"]);
    assert!(
        told.contains("would do: the tables become those of copy two") && told.contains("live goes on from"),
        "{told}"
    );
    let restored = went_well(&place, &["backup", "restore", "two", "--reason", "the disk is gone"]);
    assert!(restored.contains("the tables are those of copy two"), "{restored}");
    whole(&place, sent, "what came after the copy, import and all");
    assert_eq!(digest(&place, &now), before, "the table is what it would have been");

    // Back to an older copy while all is well, but for a view: it is the same table again, and can be queried.
    write(&place, "DROP VIEW weir.stats");
    went_well(&place, &["backup", "restore", "one", "--reason", "to see that it can be done"]);
    sent += post(&place, "/e", 1);
    whole(&place, sent, "from an older copy");
    assert_eq!(digest(&place, &now), before);

    // An import that was taken back stays so, and a pause holds at the copy's point.
    went_well(&place, &["backup", "create", "three"]);
    went_well(&place, &["import", "undo", import["id"].as_str().unwrap()]);
    sent -= import["page_views"].as_u64().unwrap();
    whole(&place, sent, "without the import");
    sent += post(&place, "/f", 2);
    place.wait_complete();
    went_well(&place, &["pause", "live", "--reason", "a new disk"]);
    let through = || place.status()?["runs"][0]["paused"]["through_ms"].as_i64();
    let paused_ms = wait_for("the pause", through);
    went_well(&place, &["backup", "restore", "three", "--reason", "it is there"]);
    wait_for("the pause to hold at the copy's point", || (through()? < paused_ms).then_some(()));
    went_well(&place, &["resume", "live", "--reason", "done"]);
    whole(&place, sent, "what was taken back is not there, what came after the copy is");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_copy_from_before_a_gap_was_filled_names_it_and_opens_its_maintenance_again() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = post(&place, "/a", 3);
    place.wait_complete();
    went_well(&place, &["pause", "live", "--reason", "a new disk"]);
    let paused_ms = wait_for("the pause", || place.status()?["runs"][0]["paused"]["through_ms"].as_i64());
    sent += post(&place, "/b", 2);
    wait_for("three windows to pass", || (place.status()?["at_ms"].as_i64()? > paused_ms + 3_000).then_some(()));
    hold_gap(&place, "gap");
    went_well(&place, &["resume", "live", "--live-first", "--reason", "the disk is there"]);
    let computing = || place.status()?["computing"][0]["to_ms"].as_i64();
    let left_to_ms = wait_for("the gap", computing);
    let (from, to) = (in_words(paused_ms), in_words(left_to_ms));
    let made = went_well(&place, &["backup", "create", "one"]);
    assert!(made.contains(&format!(" but for {from} to {to}, ")), "{made}");
    let listed = went_well(&place, &["backup", "list"]);
    assert!(listed.contains(&format!(" but for {from} to {to} ")), "{listed}");
    let told = went_well(&place, &["backup", "restore", "one", "--dry-run"]);
    let fills = format!("  gap fills {from} to {to}");
    assert!(told.contains(&fills), "{told}");

    went_well(&place, &["resume", "gap", "--reason", "it is made"]);
    let is_over = || {
        let status = place.status()?;
        let one = status["maintenances"].as_array()?.iter().find(|one| one["run"] == "live")?.clone();
        (one["state"] == "over" && status["computing"].as_array()?.is_empty()).then_some(one)
    };
    wait_for("the gap to be filled", is_over);
    whole(&place, sent, "all of it");
    let now = jiff::Timestamp::now().to_string();
    let before = digest(&place, &now);

    hold_gap(&place, "gap");
    let restored = went_well(&place, &["backup", "restore", "one", "--reason", "to see that it can be done"]);
    assert!(restored.contains(&fills), "{restored}");
    let status = wait_for("live to be complete", || {
        let status = place.status()?;
        let is_there = status["complete_through_ms"].as_i64()? > left_to_ms;
        (is_there && !status["computing"].as_array()?.is_empty()).then_some(status)
    });
    let range = &status["computing"][0];
    assert_eq!((&range["from_ms"], &range["to_ms"]), (&paused_ms.into(), &left_to_ms.into()), "{status}");
    // What it said when it had filled it is not so any more; its pause needs the log from there.
    let gap = status["runs"].as_array().unwrap().iter().find(|run| run["run"] == "gap").unwrap();
    assert_eq!((&gap["progress"]["ended"], &gap["paused"]["through_ms"]), (&false.into(), &paused_ms.into()), "{gap}");
    assert!(gap["lag_records"].as_i64().unwrap() > 0, "{gap}");
    let troubles = status["troubles"].as_array().unwrap();
    let told = |one: &Value| one["sentence"].as_str().is_some_and(|said| said.contains("are still being computed"));
    assert!(troubles.iter().any(|one| one["kind"] == "catching_up" && told(one)), "{status}");
    went_well(&place, &["resume", "gap", "--reason", "it was"]);
    let over = wait_for("the gap to be filled once more", is_over);
    assert!(over["again_ms"].is_array(), "{over}");
    whole(&place, sent, "with what was left in the copy");
    assert_eq!(digest(&place, &now), before, "the table is what it would have been");
    assert_eq!(serve.stop(), Some(0));
}

/// As `weir` writes times.
fn in_words(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).unwrap().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[test]
fn a_copy_that_is_damaged_is_said_to_be_and_wrong_names_are_refused() {
    let place = Place::new("");
    let serve = place.start();
    post(&place, "/a", 3);
    place.wait_complete();
    assert!(went_well(&place, &["backup", "list"]).contains("there is no copy yet"));
    went_well(&place, &["backup", "create", "one"]);
    assert!(refused(&place, &["backup", "create", "one"]).contains("there is a copy one already"));
    assert!(refused(&place, &["backup", "create", "../one"]).contains("is no name for a copy"));
    assert!(refused(&place, &["backup", "verify", "two"]).contains("there is no copy two"));
    assert!(refused(&place, &["backup", "restore", "two", "--reason", "x"]).contains("there is no copy two"));
    let bare = place.weir(&["backup", "restore", "one"]);
    assert!(!bare.status.success() && text(&bare).contains("--reason"), "{}", text(&bare));

    // Rows were gone when it was made.
    write(&place, "ALTER TABLE weir.stats_v1 DELETE WHERE dimension = 'page' SETTINGS mutations_sync = 2");
    went_well(&place, &["backup", "create", "bad", "--full"]);
    let said = refused(&place, &["backup", "verify", "bad"]);
    let differs = "live: the windows from ";
    assert!(said.contains(differs) && said.contains("copy bad is NOT what it must be"), "{said}");
    let said = refused(&place, &["backup", "restore", "bad", "--reason", "to see what it says"]);
    assert!(said.contains(differs) && said.contains("copy bad was NOT what it must be"), "{said}");
    went_well(&place, &["backup", "restore", "one", "--reason", "it is whole"]);
    place.wait_complete();
    assert_eq!(place.page_views(), Some(3));

    // A part of the copy is gone.
    let folder = place.dir.path().join("data/backups/one/stats_v1");
    std::fs::remove_dir_all(folder.join("data")).unwrap();
    let said = refused(&place, &["backup", "verify", "one"]);
    assert!(said.contains("copy one cannot be read"), "{said}");
    assert_eq!(place.page_views(), Some(3), "the table itself was not touched");
    let left = "SELECT count() FROM system.databases WHERE position(name, '_verify_') > 0";
    assert_eq!(write(&place, left).trim(), "0", "nothing is left behind");
    assert_eq!(serve.stop(), Some(0));
}
