//! Operators stop the processing and let it go on: nothing is computed meanwhile, no hit is refused, nothing is missing after.

use std::{
    io::{BufRead as _, Write as _},
    sync::Arc,
};

use crate::support::{Place, Serve, get, hold_gap, http, kafka, refused, signal, text, wait_for, went_well, write};
use futures::executor::block_on;
use serde_json::{Value, json};
use weir_log::{Clock, Committed, ControlLog, EmbeddedLog, Log, SystemClock, TopicKind};
use weir_schemas::{
    control::{Action, CONTROL_TOPIC, ControlRecord, EVENTS_TOPIC, GAP_RUN},
    progress::{Metadata, PartitionProgress, RunProgress, group_of},
};

#[test]
fn a_paused_run_stays_so_over_restarts_of_everything_and_both_ways_on_fill_the_table() {
    let place = Place::new("");
    let mut serve = place.start();
    let mut sent = place.hits("/before", 3);
    place.wait_complete();
    let paused = went_well(&place, &["pause", "live", "--reason", "a disk is exchanged", "--for", "2h"]);
    assert!(paused.contains("safe until ") && paused.contains("\npaused: complete through "), "{paused}");
    stands_still(&place, &serve, sent);
    let before = sent;
    sent += place.hits("/meanwhile", 4);

    serve.kill();
    serve = place.start();
    sent += place.hits("/meanwhile", 2);
    // A run that is not paused goes on; when it is done the supervisor has looked at all of them.
    place.import_line();
    stands_still(&place, &serve, before);
    let status = text(&place.weir(&["status"]));
    assert!(status.starts_with("YELLOW: Paused for maintenance since "), "{status}");
    assert!(status.contains("\nlive: PAUSED · complete through "), "{status}");
    assert!(status.contains("\"a disk is exchanged\""), "{status}");
    let again = refused(&place, &["pause", "live", "--reason", "again"]);
    assert!(again.contains("live is paused since ") && again.contains("\"a disk is exchanged\", until "), "{again}");

    let resumed = went_well(&place, &["resume", "live", "--reason", "the disk is in"]);
    assert!(resumed.contains("\nresumed: goes on from "), "{resumed}");
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));
    wait_for("the catch-up to be told", || said(&place, "caught_up").first().cloned());
    let again = refused(&place, &["resume", "live", "--reason", "again"]);
    assert!(again.contains("live is not paused"), "{again}");

    // Today first: all but the present is left to the run gap, over a kill of everything.
    went_well(&place, &["pause", "live", "--reason", "once more"]);
    sent += hits_over_windows(&place, "/gap");
    let resumed = went_well(&place, &["resume", "live", "--live-first", "--reason", "the disk is out"]);
    assert!(resumed.contains("is filled by the run gap"), "{resumed}");
    serve.kill();
    serve = place.start();
    sent += place.hits("/after", 2);
    place.wait_complete();
    wait_for("the gap to be filled", || (said(&place, "caught_up").len() == 2).then_some(()));
    assert_eq!(place.live_views(), Some(sent));
    let told: Vec<_> = ["pause", "paused", "resume", "resumed"].map(|verb| said(&place, verb).len()).into();
    assert_eq!(told, [2, 2, 2, 2], "each once");

    // A short pause leaves nothing, and ends by itself.
    let moment = went_well(&place, &["pause", "live", "--reason", "a moment", "--for", "6s"]);
    assert!(moment.contains("\npaused: complete through "), "{moment}");
    wait_for("the pause to end", || (said(&place, "resumed").len() == 3).then_some(()));
    let by = said(&place, "resume").pop().unwrap();
    assert_eq!(by["who"], "supervisor");
    assert!(by["reason"].as_str().unwrap().starts_with("it was paused until "), "{by}");
    sent += place.hits("/last", 1);
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_pause_before_the_last_one_was_caught_up_with_ends_with_it_when_both_gaps_are_filled() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = place.hits("/before", 2);
    place.wait_complete();
    // The gap run waits, so that live cannot have caught up between its pauses.
    order(&place, Action::Pause { run: GAP_RUN.into(), id: 1, until_ms: None, allow_loss: false });
    for page in ["/first", "/second"] {
        went_well(&place, &["pause", "live", "--reason", "a test"]);
        sent += hits_over_windows(&place, page);
        went_well(&place, &["resume", "live", "--live-first", "--reason", "a test"]);
        sent += place.hits("/between", 1);
        place.wait_complete();
    }
    let states = || -> Vec<String> {
        let status = place.status().unwrap();
        let all = status["maintenances"].as_array().unwrap().iter();
        all.map(|one| format!("{} {}", one["run"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
    };
    wait_for("both to be told", || {
        (states() == ["live catching_up", "live catching_up", "gap under_way"]).then_some(())
    });
    assert_eq!(place.status().unwrap()["computing"].as_array().unwrap().len(), 2);
    went_well(&place, &["resume", "gap", "--reason", "a test"]);
    wait_for("green", || (place.status()?["status"] == "green").then_some(()));
    assert_eq!(states(), ["live over", "live over", "gap over"]);
    let of_live = said(&place, "caught_up").into_iter().filter(|record| record["run"] == "live").count();
    assert_eq!((of_live, place.live_views()), (1, Some(sent)));

    // There is no gap any more, as if it had come to its end just before: a pause of its run takes effect and ends all the same.
    order(&place, Action::Pause { run: GAP_RUN.into(), id: 5, until_ms: None, allow_loss: false });
    wait_for("the pause to take effect", || {
        said(&place, "paused").iter().any(|record| record["id"] == 5 && record["run"] == "gap").then_some(())
    });
    wait_for("yellow", || (place.status()?["status"] == "yellow").then_some(()));
    went_well(&place, &["resume", "gap", "--reason", "a test"]);
    wait_for("green", || (place.status()?["status"] == "green").then_some(()));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn what_is_left_by_a_pause_that_nobody_had_to_stop_for_is_named_until_it_is_filled() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = place.hits("/before", 2);
    place.wait_complete();
    assert_eq!(serve.stop(), Some(0));

    let collector = place.start_part(&["ingest"]);
    wait_for("the collector", || {
        get(&format!("http://{}/readyz", place.collector)).filter(|(status, _)| *status == 200)
    });
    // The gap run waits, so that what it has to do is seen.
    order(&place, Action::Pause { run: GAP_RUN.into(), id: 1, until_ms: None, allow_loss: false });
    let before_ms = SystemClock.now_ms();
    sent += hits_over_windows(&place, "/nobody-computes");
    let left_to_ms = Some(SystemClock.now_ms() / 1_000 * 1_000);
    order(&place, Action::Pause { run: "live".into(), id: 2, until_ms: None, allow_loss: false });
    order(&place, Action::Resume { run: "live".into(), id: 3, left_to_ms });
    assert_eq!(collector.stop(), Some(0));
    let serve = place.start();
    place.wait_complete();
    let status = place.status().unwrap();
    let gap = &status["computing"][0];
    let (from_ms, to_ms) = (gap["from_ms"].as_i64().unwrap(), gap["to_ms"].as_i64().unwrap());
    assert!(from_ms <= before_ms && Some(to_ms) == left_to_ms && gap["run"] == "gap", "{status}");
    assert_eq!(said(&place, "paused")[0]["through_ms"].as_i64(), Some(from_ms));
    assert!(place.live_views() < Some(sent), "it is not there");
    went_well(&place, &["resume", "gap", "--reason", "a test"]);
    wait_for("green", || (place.status()?["status"] == "green").then_some(()));
    assert_eq!((place.status().unwrap()["computing"].clone(), place.live_views()), (json!([]), Some(sent)));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_maintenance_is_announced_ahead_and_withdrawn() {
    let place = Place::new("");
    let serve = place.start();
    let none = went_well(&place, &["maintenance", "list"]);
    assert!(none.contains("there was none, and none is announced"), "{none}");
    let planned = went_well(
        &place,
        &["maintenance", "plan", "--at", "2099-03-01T14:00:00Z", "--for", "2h", "--reason", "a disk"],
    );
    assert!(planned.contains("is announced, 2099-03-01 14:00:00 UTC to 2099-03-01 16:00:00 UTC"), "{planned}");
    let listed = went_well(&place, &["maintenance", "list"]);
    let said = ["maintenance", "plan", "--at", "2099-03-01 14:00:00 UTC", "--for", "2h", "--dry-run"];
    assert!(
        went_well(&place, &said).contains("2099-03-01 14:00:00 UTC to 2099-03-01 16:00:00 UTC"),
        "as it was printed"
    );
    let dry = ["maintenance", "plan", "--at", "2099-04-01T14:00:00Z", "--for", "2h", "--dry-run"];
    assert!(went_well(&place, &dry).starts_with("would be so: maintenance "));
    let id = listed.split_whitespace().next().unwrap();
    assert!(went_well(&place, &["maintenance", "cancel", id, "--dry-run"]).starts_with("would be so: maintenance "));
    assert_eq!(went_well(&place, &["maintenance", "list"]), listed, "nothing was written");
    assert!(listed.contains("planned") && listed.trim_end().ends_with("a disk"), "{listed}");
    let announced = |place: &Place| -> Option<usize> {
        let upcoming = get(&format!("http://{}/api/v2/scheduled-maintenances/upcoming.json", place.console))?.1;
        let upcoming: Value = serde_json::from_str(&upcoming).ok()?;
        Some(upcoming["scheduled_maintenances"].as_array()?.len())
    };
    wait_for("everybody to see it", || (announced(&place)? == 1).then_some(()));
    let id = listed.split_whitespace().next().unwrap().to_owned();
    assert!(refused(&place, &["maintenance", "cancel", "7", "--reason", "x"]).contains("there is no maintenance 7"));
    let elsewhere = format!("http://{}", place.collector);
    let elsewhere = refused(&place, &["maintenance", "cancel", &id, "--reason", "x", "--console", &elsewhere]);
    assert!(elsewhere.contains("that is no console of weir's (--console says where it is)"), "{elsewhere}");
    let past = ["maintenance", "plan", "--at", "2020-03-01T14:00:00Z", "--for", "2h", "--reason", "x"];
    assert!(refused(&place, &past).contains("is not ahead"));
    assert!(went_well(&place, &["maintenance", "cancel", &id, "--reason", "no disk"]).contains("is withdrawn"));
    wait_for("nobody to see it any more", || (announced(&place)? == 0).then_some(()));
    assert!(refused(&place, &["maintenance", "cancel", &id, "--reason", "x"]).contains("was withdrawn already"));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn all_processes_of_a_log_follow_and_a_run_works_for_its_share_of_the_time() {
    let Some(broker) = kafka() else { return };
    let place = Place::new(&format!(
        "[log]\nkind = \"kafka\"\npartitions = 2\n[kafka]\nbootstrap = \"{}\"",
        broker.bootstrap()
    ));
    let serve = place.start();
    let mut sent = place.hits("/a", 2);
    place.wait_complete();
    let password = weir_sink::server::writer_password(&place.dir.path().join("data/clickhouse")).unwrap();
    let set = [
        format!("clickhouse.url=http://127.0.0.1:{}", place.clickhouse),
        format!("clickhouse.password={password}"),
        format!("data_dir={}", place.dir.path().join("second").display()),
        "listen.console=127.0.0.1:0".to_owned(),
    ];
    let args: Vec<&str> = ["pipeline"].into_iter().chain(set.iter().flat_map(|set| ["--set", set])).collect();
    let second = place.start_part(&args);
    wait_for("the second run", || (!second.children("run").is_empty()).then_some(()));
    went_well(&place, &["pause", "live", "--reason", "a test"]);
    wait_for("all runs to be gone", || {
        (serve.children("run").is_empty() && second.children("run").is_empty()).then_some(())
    });
    sent += place.hits("/b", 3);
    assert_eq!(place.live_views(), Some(2));

    let slow = went_well(&place, &["throttle", "live", "0.25", "--reason", "a test"]);
    assert!(slow.contains("live works at most 25 % of the time (before: 100 %)"), "{slow}");
    assert!(slow.contains("live is paused: it works with that share from its resume on"), "{slow}");
    went_well(&place, &["resume", "live", "--reason", "a test"]);
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));
    assert_eq!(second.stop(), Some(0));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_forgotten_pause_ends_before_the_log_would_delete_what_the_run_needs() {
    let place = Place::new("");
    let serve = place.start();
    let sent = place.hits("/before", 3);
    place.wait_complete();
    // It needs 11 minutes, and a fifth of 14 is the margin: a pause is safe for 12 s.
    let log = EmbeddedLog::open(place.dir.path().join("data/log"), Arc::new(SystemClock)).unwrap();
    let retention = std::time::Duration::from_secs(14 * 60);
    let partitions = log.partitions(EVENTS_TOPIC).unwrap();
    log.create_topic(EVENTS_TOPIC, &TopicKind::Events { partitions, retention }).unwrap();

    let long = refused(&place, &["pause", "live", "--reason", "a test", "--for", "1m"]);
    assert!(long.contains("would lose data"), "{long}");
    let paused = went_well(&place, &["pause", "live", "--reason", "a test"]);
    assert!(paused.contains("it is resumed by itself then (it keeps 14m; 2m 48s before is the margin)"), "{paused}");
    let sent = sent + place.hits("/meanwhile", 2);
    wait_for("the pause to end", || said(&place, "resumed").first().cloned());
    let resume = said(&place, "resume").pop().unwrap();
    let reason = resume["reason"].as_str().unwrap().to_owned();
    assert!(resume["who"] == "supervisor" && reason.starts_with("the log would delete what live needs"), "{resume}");
    let through_ms = said(&place, "paused")[0]["through_ms"].as_i64().unwrap();
    assert_eq!(resume["id"].as_i64(), Some(through_ms + 12_000), "at the margin");
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));

    // With the word that something may be lost it stays.
    let lost = went_well(&place, &["pause", "live", "--reason", "a test", "--for", "15s", "--allow-loss"]);
    assert!(!lost.contains("it is resumed by itself then"), "{lost}");
    wait_for("the pause to end", || (said(&place, "resumed").len() == 2).then_some(()));
    let reason = said(&place, "resume").pop().unwrap()["reason"].clone();
    assert!(reason.as_str().unwrap().starts_with("it was paused until "), "{reason}");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn wrong_use_is_refused_with_the_way_out_and_writes_nothing() {
    let viewer = weir_console::Token::new("sees", weir_console::Role::Viewer, "weir_v");
    let operator = weir_console::Token::new("night", weir_console::Role::Operator, "weir_o");
    let entry = |token: &weir_console::Token| {
        let weir_console::Token { name, role, hash } = token;
        format!("[[console.tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nhash = \"{hash}\"\n")
    };
    let place = Place::new(&(entry(&viewer) + &entry(&operator)));
    let console = place.start_part(&["console"]);
    let at = |path: &str| format!("http://{}{path}", place.console);
    wait_for("the console", || get(&at("/healthz")).filter(|(status, _)| *status == 200));
    let log: Arc<dyn Log> =
        Arc::new(EmbeddedLog::open(place.dir.path().join("data/log"), Arc::new(SystemClock)).unwrap());
    wait_for("the topics", || log.partitions(EVENTS_TOPIC).ok());
    let pause = |token: Option<&str>, path: &str, body: Value| {
        let (status, text) = http("POST", &at(path), Some(&body.to_string()), token).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        (status, answer)
    };
    let end = log.bounds(CONTROL_TOPIC, 0).unwrap().end;
    let body = json!({ "reason": "a test", "user": "anna" });
    for (status, token, path, body, names) in [
        (401, None, "/api/runs/live/pause", &body, "weir token"),
        (401, Some("weir_x"), "/api/runs/live/pause", &body, "console.tokens"),
        (403, Some("weir_v"), "/api/runs/live/pause", &body, "has the role viewer, this takes operator"),
        (400, Some("weir_o"), "/api/runs/live/pause?token=weir_o", &body, "counts as seen"),
        (400, None, "/api/clock?access_token=weir_o", &body, "Authorization: Bearer"),
        (404, Some("weir_o"), "/api/runs/lvie/pause", &body, "there are: live"),
        (404, Some("weir_o"), "/api/runs/gap/pause", &body, "there are: live"),
        (400, Some("weir_o"), "/api/runs/live/stop", &body, "pause, resume, throttle"),
        (400, Some("weir_o"), "/api/runs/live/pause", &json!({}), "--reason"),
        (400, Some("weir_o"), "/api/runs/live/pause", &json!({ "reason": "a", "till": 3 }), "till"),
        (400, Some("weir_o"), "/api/runs/live/pause", &json!({ "reason": "a", "id": 7 }), "/api/clock"),
        (409, Some("weir_o"), "/api/runs/live/resume", &body, "is not paused"),
    ] {
        let method = if path.starts_with("/api/clock") { "GET" } else { "POST" };
        let (found, text) = http(method, &at(path), Some(&body.to_string()), token).unwrap();
        assert!(found == status && text.contains(names), "{path} {body}: {found} {text}");
    }
    assert_eq!(pause(Some("weir_v"), "/api/runs/live/pause", json!({ "dry_run": true })).0, 200, "a viewer may ask");
    assert_eq!(log.bounds(CONTROL_TOPIC, 0).unwrap().end, end, "nothing was written");

    // What the log keeps is known once the run has said how far it is.
    tell(log.as_ref(), SystemClock.now_ms());
    let long = refused(&place, &["pause", "live", "--reason", "a test", "--for", "40days"]);
    assert!(long.contains("would lose data") && long.contains("--allow-loss"), "{long}");
    let past = refused(&place, &["pause", "live", "--reason", "a test", "--until", "2020-01-01T00:00:00Z"]);
    assert!(past.contains("is not ahead"), "{past}");
    for name in ["", "..", "live/resume", "live?token=weir_o", "liv\u{e9}"] {
        let output = place.weir(&["pause", name, "--reason", "a test"]);
        assert!(!output.status.success() && text(&output).contains("it is no run's name"), "{}", text(&output));
    }
    for share in ["0", "-1", "1.5"] {
        let refused = refused(&place, &["throttle", "live", share, "--reason", "a test"]);
        assert!(refused.contains("above 0 and at most 1"), "{refused}");
    }
    assert_eq!(log.bounds(CONTROL_TOPIC, 0).unwrap().end, end, "nothing was written");

    // The same command again is the same; another of its id is not.
    let (_, clock) = http("GET", &at("/api/clock"), None, Some("weir_v")).unwrap();
    let id = serde_json::from_str::<Value>(&clock).unwrap()["at_ms"].clone();
    let body = json!({ "reason": "a test", "user": "anna", "id": id, "allow_loss": true });
    let (status, first) = pause(Some("weir_o"), "/api/runs/live/pause", body.clone());
    assert_eq!((status, first["who"].as_str()), (200, Some("night@anna")), "{first}");
    let (status, again) = pause(Some("weir_o"), "/api/runs/live/pause", body.clone());
    assert_eq!((status, &again["action"], &again["at_ms"]), (200, &first["action"], &first["at_ms"]));
    assert_eq!(pause(Some("weir_o"), "/api/runs/live/resume", body).0, 409);
    assert_eq!(log.bounds(CONTROL_TOPIC, 0).unwrap().end, end + 1, "written once");

    // What cannot be read is set aside, and verbs go on.
    block_on(log.append(CONTROL_TOPIC, 0, b"{\"do\": \"dance\"}".as_slice().into(), None)).unwrap();
    let second = refused(&place, &["pause", "live", "--reason", "a test"]);
    assert!(second.contains("by night@anna, \"a test\" (`weir resume live` first"), "{second}");
    let dry = went_well(&place, &["resume", "live", "--dry-run"]);
    assert!(dry.starts_with("would be so: live goes on from "), "{dry}");
    let history = text(&place.weir(&["log"]));
    assert!(history.contains("night@anna") && history.contains("pause live, loss allowed"), "{history}");
    assert!(history.contains("\n1 record was set aside"), "{history}");
    assert_eq!(console.stop(), Some(0));
}

#[test]
fn a_run_that_stops_for_good_while_it_is_paused_stays_known_and_goes_on_after_both_verbs() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = place.hits("/before", 3);
    place.wait_complete();
    // Nobody may write; the run looks for seconds when it begins before it says that it stops for that.
    write(&place, "DROP TABLE weir.owners SYNC");
    let killed = serve.children("run")[0];
    signal(killed, libc::SIGKILL);
    wait_for("the run to begin again", || serve.children("run").into_iter().find(|pid| *pid != killed));
    let paused = went_well(&place, &["pause", "live", "--reason", "a test"]);
    assert!(paused.contains("live stops at its next batch boundary"), "it had stopped before: {paused}");
    assert!(paused.contains("\npaused: complete through "), "{paused}");
    let stopped = || {
        let told = place.status()?["runs"][0].clone();
        (told["progress"]["fault"]["kind"] == "owners_gone" && told["paused"]["through_ms"].is_i64()).then_some(())
    };
    wait_for("the reason to be told", stopped);

    let log = EmbeddedLog::open(place.dir.path().join("data/log"), Arc::new(SystemClock)).unwrap();
    let group = group_of("live");
    let committed = log.committed(&group, EVENTS_TOPIC).unwrap();
    let moved: Vec<_> =
        committed.iter().map(|of| Committed { offset: 0, metadata: String::new(), ..of.clone() }).collect();
    // What the supervisor has looked at is put back when another tool has written over it.
    std::thread::sleep(std::time::Duration::from_secs(5));
    log.commit(&group, EVENTS_TOPIC, &moved).unwrap();
    wait_for("it to be put back", || (log.committed(&group, EVENTS_TOPIC).unwrap() == committed).then_some(()));

    let again = refused(&place, &["pause", "live", "--reason", "again"]);
    assert!(again.contains("live is paused since "), "{again}");
    let early = went_well(&place, &["resume", "live", "--dry-run"]);
    assert!(early.contains("it has STOPPED, and goes on only after `weir recover live`"), "{early}");
    let recovered = went_well(&place, &["recover", "live", "--reason", "a test"]);
    assert!(recovered.contains("live is paused since ") && recovered.contains("(`weir resume live`)"), "{recovered}");
    sent += place.hits("/meanwhile", 2);
    assert!(serve.children("run").is_empty());
    let resumed = went_well(&place, &["resume", "live", "--reason", "a test"]);
    assert!(!resumed.contains("STOPPED") && resumed.contains("\nresumed: goes on from "), "{resumed}");
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));

    // It goes on, and stops over what was broken while it was paused.
    went_well(&place, &["pause", "live", "--reason", "a test"]);
    write(&place, "DROP TABLE weir.owners SYNC");
    let begin = std::time::Instant::now();
    let stopped = refused(&place, &["resume", "live", "--reason", "a test"]);
    assert!(
        stopped.contains("live is not paused any more, and has stopped: table weir.owners is not there"),
        "{stopped}"
    );
    assert!(stopped.contains("weir recover live"), "{stopped}");
    assert!(begin.elapsed().as_secs() < 45, "it did not wait for what cannot come: {:?}", begin.elapsed());
    assert!(went_well(&place, &["recover", "live", "--reason", "a test"]).contains("live goes on from "));
    place.wait_complete();

    // The other way round: it stops, and is paused and resumed, which lets nothing go on by itself.
    write(&place, "DROP TABLE weir.owners SYNC");
    signal(serve.children("run")[0], libc::SIGKILL);
    let owners_gone = || (place.status()?["runs"][0]["progress"]["fault"]["kind"] == "owners_gone").then_some(());
    wait_for("the run to stop", owners_gone);
    let resume = refused(&place, &["resume", "live", "--reason", "a test"]);
    assert!(resume.contains("live is not paused: it has stopped"), "{resume}");
    let paused = went_well(&place, &["pause", "live", "--reason", "a test"]);
    assert!(paused.contains("live has STOPPED already"), "{paused}");
    let resumed = went_well(&place, &["resume", "live", "--reason", "a test"]);
    assert!(resumed.contains("it has STOPPED, and goes on only after `weir recover live`"), "{resumed}");
    assert!(went_well(&place, &["recover", "live", "--reason", "a test"]).contains("live goes on from "));
    sent += place.hits("/after", 1);
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn gaps_queue_over_a_restart_and_when_they_are_filled_the_ranges_are_one_again() {
    let place = Place::new("");
    let serve = place.start();
    let mut sent = place.hits("/before", 2);
    place.wait_complete();
    for gap in 1..=2 {
        went_well(&place, &["pause", "live", "--reason", "a test"]);
        if gap == 1 {
            // So that the second one finds it unfilled.
            hold_gap(&place, "gap");
        }
        let since_ms = SystemClock.now_ms();
        wait_for("some windows with hits to pass", || {
            sent += place.hits("/meanwhile", 1);
            (SystemClock.now_ms() > since_ms + 3_000).then_some(())
        });
        went_well(&place, &["resume", "live", "--live-first", "--reason", "a test"]);
        sent += place.hits("/after", 1);
        place.wait_complete();
    }
    let ranges = || place.query("SELECT state FROM completeness WHERE origin = '' ORDER BY range_from");
    assert_eq!(ranges().unwrap(), "complete\ncomputing\ncomplete\ncomputing\ncomplete\n");
    let two = wait_for("both to be told", || {
        let status = place.status()?;
        (status["computing"].as_array()?.len() == 2).then_some(status)
    });
    let states = |status: &Value| -> Vec<String> {
        let maintenances = status["maintenances"].as_array().unwrap();
        maintenances.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(&two), ["catching_up", "under_way", "catching_up"], "live, the gap run's own pause, live");

    serve.kill();
    let serve = place.start();
    place.wait_complete();
    went_well(&place, &["resume", "gap", "--reason", "a test"]);
    let over = wait_for("both to be filled", || {
        let status = place.status()?;
        states(&status).iter().all(|state| state == "over").then_some(status)
    });
    assert_eq!(over["computing"], json!([]), "{over}");
    assert_eq!(ranges().unwrap(), "complete\n");
    assert_eq!(place.live_views(), Some(sent));
    let slower = refused(&place, &["throttle", "gap", "0.5", "--reason", "a test"]);
    assert!(slower.contains("gap is done: there is nothing to slow down"), "{slower}");
    wait_for("the light", || (place.status()?["status"] == "green").then_some(()));
    assert_eq!(serve.stop(), Some(0));
}

/// What `/metrics` says of a run.
fn metric(place: &Place, name: &str, run: &str) -> Option<f64> {
    let (_, text) = get(&format!("http://{}/metrics", place.console))?;
    let begin = format!("{name}{{run=\"{run}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok())
}

#[test]
fn a_throttled_run_rests_for_its_share_and_says_who_has_said_so() {
    let place = Place::new("");
    let serve = place.start();
    place.wait_complete();
    went_well(&place, &["pause", "live", "--reason", "a test"]);
    let mut sent = 0;
    for page in 0..60 {
        sent += place.hits(&format!("/{page}"), 500);
    }
    went_well(&place, &["throttle", "live", "0.5", "--reason", "a busy day"]);
    went_well(&place, &["resume", "live", "--reason", "a test"]);
    place.wait_complete();
    assert_eq!(place.live_views(), Some(sent));
    let shown = text(&place.weir(&["status"]));
    let line = shown.lines().find(|line| line.contains("THROTTLED to 50 % of the time since ")).unwrap_or(&shown);
    assert!(line.ends_with("\"a busy day\""), "{shown}");
    // By its own account: as long as it has worked it has rested, but for what each of its workers still owes.
    let of = |what: &str| metric(&place, &format!("weir_pipeline_{what}_milliseconds_total"), "live");
    let worked = wait_for("some work", || of("worked").filter(|worked_ms| *worked_ms >= 100.0));
    let rested = wait_for("as much rest", || of("rested").filter(|rested_ms| *rested_ms > 0.0));
    let workers = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(worked <= rested + workers * 40.0, "{worked} ms of work, {rested} ms of rest");
    let permille = || place.json(&["status", "--json"])["runs"][0]["progress"]["permille"].clone();
    assert_eq!(permille(), 500);
    // Who has waited for the command finds the run with that share, also when it has it already.
    let (all, quarter) = ("unhindered", "at most 25 % of the time");
    for (share, works, is) in [("1", all, 1000), ("0.25", quarter, 250), ("0.25", quarter, 250), ("1", all, 1000)] {
        let said = went_well(&place, &["throttle", "live", share, "--reason", "a quiet day"]);
        assert!(said.ends_with(&format!("\nthrottled: live works {works}\n")), "{said}");
        assert_eq!(permille(), is);
    }
    assert!(!text(&place.weir(&["status"])).contains("THROTTLED"));
    assert_eq!(serve.stop(), Some(0));

    // Nobody runs it: the share is kept, and who asked is told.
    let console = place.start_part(&["console"]);
    wait_for("the console", || get(&format!("http://{}/healthz", place.console)).filter(|(status, _)| *status == 200));
    wait_for("silence", || {
        place.status()?["troubles"].as_array()?.iter().find(|trouble| trouble["kind"] == "silent").cloned()
    });
    let said = refused(&place, &["throttle", "live", "0.5", "--reason", "a busy night"]);
    assert!(said.contains("nobody runs live now: it works with that share when `weir serve`"), "{said}");
    assert_eq!(console.stop(), Some(0));
    let serve = place.start();
    wait_for("the share", || (permille() == 500).then_some(()));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_clock_that_is_another_than_the_consoles_is_told_before_anything_is_done() {
    let place = Place::new("");
    let token = place.dir.path().join("token");
    std::fs::write(&token, "weir_t").unwrap();
    // A console that says that it is two hours later.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = std::io::BufReader::new(stream.unwrap());
            let mut request = String::new();
            stream.read_line(&mut request).unwrap();
            let (status, body) = match request.starts_with("GET /api/clock ") {
                true => ("200 OK", json!({ "at_ms": SystemClock.now_ms() + 7_200_000 })),
                false => ("409 Conflict", json!({ "error": "live is not paused, there is nothing to resume" })),
            };
            let body = body.to_string();
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            // What was asked is read to its end, so that the answer is.
            stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let args = ["--console", &url, "--token-file", token.to_str().unwrap(), "--reason", "a test"];
    let said = refused(&place, &[&["resume", "live"], &args[..]].concat());
    assert!(
        said.contains("this machine's clock is ") && said.contains(" behind the console's: all times are"),
        "{said}"
    );
    assert!(said.contains("live is not paused"), "{said}");
}

/// What a run says that is complete through now.
fn tell(log: &dyn Log, now_ms: i64) {
    let run = RunProgress { at_ms: now_ms, complete_through_ms: Some(now_ms), ..RunProgress::default() };
    let partition = PartitionProgress { arrival_ms: Some(now_ms), offset: Some(0) };
    let metadata = serde_json::to_string(&Metadata { partition, run: Some(run) }).unwrap();
    log.commit(&group_of("live"), EVENTS_TOPIC, &[Committed { partition: 0, offset: 0, metadata }]).unwrap();
}

/// No run is there, and nothing was counted.
fn stands_still(place: &Place, serve: &Serve, sent: u64) {
    wait_for("clickhouse", || place.live_views());
    assert!(serve.children("run").is_empty());
    assert_eq!(place.live_views(), Some(sent));
    // What the console shows may be a second old.
    wait_for("the pause to be shown", || place.status()?["runs"][0]["paused"]["through_ms"].as_i64());
}

/// A hit now and then while some windows pass; how many there were.
fn hits_over_windows(place: &Place, page: &str) -> u64 {
    let (mut sent, since_ms) = (0, SystemClock.now_ms());
    wait_for("some windows with hits to pass", || {
        sent += place.hits(page, 1);
        (SystemClock.now_ms() > since_ms + 4_000).then_some(())
    });
    sent
}

/// Writes to the control topic what no verb would.
fn order(place: &Place, action: Action) {
    let log = EmbeddedLog::open(place.dir.path().join("data/log"), Arc::new(SystemClock)).unwrap();
    let (at_ms, who, reason) = (SystemClock.now_ms(), "ops@test".into(), "a test".into());
    let record = ControlRecord { at_ms, who, reason, action };
    block_on(ControlLog::open(Arc::new(log)).unwrap().append(&record)).unwrap();
}

/// The records of the control topic that do this, oldest first.
fn said(place: &Place, what: &str) -> Vec<Value> {
    let records = place.json(&["log", "--json"])["records"].clone();
    let of = |record: &Value| {
        (record["action"]["do"] == what).then(|| {
            let mut all = record["action"].clone();
            (all["who"], all["reason"]) = (record["who"].clone(), record["reason"].clone());
            all
        })
    };
    records.as_array().unwrap().iter().filter_map(of).collect()
}
