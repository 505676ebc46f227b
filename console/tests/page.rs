//! What the console answers over HTTP, and the page in a real browser.

#[path = "../../tests/support/chromium.rs"]
mod chromium;
mod states;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use weir_console::{About, Desk, Eta, Health, ImportState, ImportStatus, RunStatus, Snapshot};
use weir_log::{EmbeddedLog, SystemClock};
use weir_schemas::SchemaVersion;

/// Shows what it is told to show.
struct Shown(Mutex<Result<Snapshot, String>>);

impl Health for Shown {
    fn snapshot(&self) -> Result<Snapshot, String> {
        self.0.lock().unwrap().clone()
    }

    fn metrics(&self) -> String {
        "# TYPE other counter\nother 1\n".to_owned()
    }

    fn unready(&self) -> Option<String> {
        None
    }
}

struct Console {
    address: std::net::SocketAddr,
    shown: Arc<Shown>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
    _log: tempfile::TempDir,
}

impl Console {
    async fn start(snapshot: Snapshot) -> Console {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::new(Shown(Mutex::new(Ok(snapshot))));
        let about = About {
            name: "Blogs & <b>co</b>".into(),
            url: "https://status.example.org/".into(),
            sites: vec!["one.example".into()],
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let health: Arc<dyn Health> = shown.clone();
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap());
        let v1 = SchemaVersion::parse(include_str!("../../schemas/versions/v1.toml"), "v1.toml").unwrap();
        // Nobody may order anything here.
        let desk = Arc::new(Desk::new(Vec::new(), log, Arc::new(SystemClock), v1));
        let served = tokio::spawn(weir_console::serve(listener, health, about, desk, async {
            let _ = stopped.await;
        }));
        Console { address, shown, stop, served, _log: dir }
    }

    fn show(&self, snapshot: Result<Snapshot, String>) {
        *self.shown.0.lock().unwrap() = snapshot;
    }

    /// The status, the head in small letters, the body.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        let (status, head, body) = self.get(path).await;
        // Only what names nobody may be read by any page.
        let is_for_all = head.contains("access-control-allow-origin: *");
        assert!(status == 200 && is_for_all == (path != "/status.json"), "{path}: {head}\n{body}");
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}"))
    }
}

#[tokio::test]
async fn the_status_says_everything_at_once_and_to_each_site() {
    let mut snapshot = states::filling();
    snapshot.imports =
        vec![ImportStatus { id: "i1".into(), site: "old.example".into(), state: ImportState::Done, events: 7 }];
    let console = Console::start(snapshot).await;
    let status = console.json("/status.json").await;
    assert_eq!((&status["status"], &status["troubles"][0]["kind"]), (&json!("yellow"), &json!("catching_up")));
    assert_eq!(status["complete_through_ms"], json!(states::NOW_MS - 20_000));
    assert_eq!(status["computing"][0]["run"], "gap");
    assert_eq!(status["runs"][1]["eta"]["is"], "between");
    assert_eq!(status["maintenances"][0]["state"], "catching_up");
    for site in ["one.example", "old.example"] {
        let of_site = console.json(&format!("/status/{site}.json")).await;
        assert_eq!((&of_site["site"], &of_site["sentence"]), (&json!(site), &status["sentence"]));
        assert_eq!(of_site["imports"].as_array().unwrap().len(), usize::from(site == "old.example"));
    }
    let of_site = console.json("/status/one.example.json").await;
    assert_eq!((&of_site["eta"]["is"], &of_site["backlog_records"]), (&json!("between"), &json!(2_912_345 + 6)));
    assert_eq!((&of_site["computing"][0]["run"], &of_site["missing"]), (&json!("gap"), &json!([])));
    for path in ["/status/two.example.json", "/status/one.example", "/status/.json"] {
        assert_eq!(console.get(path).await.0, 404, "{path}");
    }
    console.show(Err("the spool cannot be read".into()));
    tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while console.get("/status.json").await.0 != 503 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(console.get("/").await.2, "the spool cannot be read\n");
}

#[tokio::test]
async fn a_site_is_told_what_is_missing_and_not_who_has_decided_so() {
    let console = Console::start(states::missing()).await;
    assert_eq!(console.json("/status.json").await["missing"][0]["who"], "ops@db1");
    let (_, _, of_site) = console.get("/status/one.example.json").await;
    assert!(of_site.contains("two disks were lost") && !of_site.contains("ops@db1"), "{of_site}");
}

#[tokio::test]
async fn what_is_not_known_of_a_site_while_the_log_is_away_is_null_and_not_empty() {
    let (_, spooling) = states::all().into_iter().find(|(state, _)| *state == "spooling").unwrap();
    let console = Console::start(spooling).await;
    let of_site = console.json("/status/one.example.json").await;
    assert_eq!(of_site["log_away"], true);
    for field in ["complete_through_ms", "backlog_records", "eta", "computing", "missing", "imports"] {
        assert!(of_site.as_object().unwrap()[field].is_null(), "{field}: {of_site}");
    }
    assert_eq!(console.get("/status/old.example.json").await.0, 503, "it may have an import");
}

/// Names and kinds of all fields, at any depth; of lists those of the first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(values) => json!(values.first().map(shape).into_iter().collect::<Vec<_>>()),
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
    }
}

#[tokio::test]
async fn statuspages_clients_find_every_field_that_statuspage_has() {
    let console = Console::start(states::missing()).await;
    let page = json!({
        "id": "string", "name": "string", "url": "string", "time_zone": "string", "updated_at": "string",
    });
    let component = json!({
        "id": "string", "name": "string", "status": "string", "created_at": "string", "updated_at": "string",
        "position": "number", "description": "null", "showcase": "boolean", "start_date": "null", "group_id": "null",
        "page_id": "string", "group": "boolean", "only_show_if_degraded": "boolean",
    });
    let update = json!({
        "id": "string", "status": "string", "body": "string", "incident_id": "string", "created_at": "string",
        "updated_at": "string", "display_at": "string", "affected_components": "null",
        "deliver_notifications": "boolean", "custom_tweet": "null", "tweet_id": "null",
    });
    let mut incident = json!({
        "id": "string", "name": "string", "status": "string", "created_at": "string", "updated_at": "string",
        "monitoring_at": "null", "resolved_at": "string", "impact": "string", "shortlink": "string",
        "started_at": "string", "page_id": "string", "incident_updates": [update], "components": [component],
        "reminder_intervals": "null",
    });
    let status = json!({ "indicator": "string", "description": "string" });
    let expect = [
        ("status.json", json!({ "page": page, "status": status })),
        ("components.json", json!({ "page": page, "components": [component] })),
        ("incidents.json", json!({ "page": page, "incidents": [incident] })),
        ("incidents/unresolved.json", json!({ "page": page, "incidents": [] })),
        ("scheduled-maintenances/upcoming.json", json!({ "page": page, "scheduled_maintenances": [] })),
        ("scheduled-maintenances/active.json", json!({ "page": page, "scheduled_maintenances": [] })),
        (
            "summary.json",
            json!({
                "page": page, "status": status, "components": [component], "incidents": [], "scheduled_maintenances": [],
            }),
        ),
    ];
    for (name, expect) in expect {
        assert_eq!(shape(&console.json(&format!("/api/v2/{name}")).await), expect, "{name}");
    }
    incident["scheduled_for"] = json!("string");
    incident["scheduled_until"] = json!("string");
    let all = console.json("/api/v2/scheduled-maintenances.json").await;
    assert_eq!(shape(&all), json!({ "page": page, "scheduled_maintenances": [incident] }));
}

#[tokio::test]
async fn an_hour_that_nobody_is_at_work_on_is_not_said_to_be_computed() {
    let state = |name: &str| states::all().into_iter().find(|(state, _)| *state == name).unwrap().1;
    for (name, class) in [
        ("late", "computing"),
        ("filling", "computing"),
        ("paused", "waiting"),
        ("silent", "waiting"),
        ("stopped", "waiting"),
        ("lost", "waiting"),
    ] {
        let (_, _, page) = Console::start(state(name)).await.get("/").await;
        let other = if class == "waiting" { "computing" } else { "waiting" };
        let hours = |class: &str| page.matches(&format!("<i class=\"{class}\" title=")).count();
        assert!(hours(class) > 0 && hours(other) == 0, "{name}: {page}");
    }
}

#[tokio::test]
async fn days_that_are_being_replaced_are_named_as_such_to_all_and_not_by_whom_or_why() {
    let replacing = Console::start(states::replacing()).await;
    assert_eq!(replacing.json("/status.json").await["replacing"][0]["who"], "ops@db1");
    let (_, _, page) = replacing.get("/").await;
    let said = |days: &str| format!("<li>Being corrected: {days}. Until that is done their numbers may change.</li>");
    assert!(page.contains(&said("2026-11-18, 2026-11-24 to 2026-11-25")), "{page}");
    assert!(page.contains(&said("2026-11-22")), "{page}");
    assert!(page.contains("<p class=\"word\">All is well</p>"), "{page}");
    assert!(!page.contains("ops@db1") && !page.contains("rows deleted by hand"), "{page}");
    let (_, _, page) = Console::start(states::on_time()).await.get("/").await;
    assert!(!page.contains("Being corrected"), "{page}");
}

#[tokio::test]
async fn what_is_carried_over_is_at_work_on_the_page_by_its_time_and_not_by_records_and_stands_in_the_light() {
    let mut snapshot = states::on_time();
    let mut carried = RunStatus { run: "carried".into(), eta: Some(Eta::Unknown), ..RunStatus::default() };
    carried.progress = snapshot.runs[0].progress.clone();
    snapshot.runs.push(carried);
    let (_, _, page) = Console::start(snapshot.clone()).await.get("/").await;
    let said = "<strong>What is carried over from the version before</strong>: complete through <time";
    assert!(page.contains(said) && page.contains("All is well"), "{page}");
    snapshot.runs[1].progress = None;
    let (_, _, page) = Console::start(snapshot.clone()).await.get("/").await;
    assert!(page.contains("before</strong>: not begun yet, too early to say when it is ready."), "{page}");
    snapshot.runs[1].progress.get_or_insert_default().stopped = Some("rows differ".into());
    let (_, _, page) = Console::start(snapshot).await.get("/").await;
    let stands = "Statistics of earlier days, as the version before counted them, stand still until an operator has looked. \
                  New hits are collected.";
    assert!(page.contains(stands) && !page.contains("What is carried over"), "{page}");
}

#[tokio::test]
async fn statuspages_words_are_those_of_the_state() {
    let words = |name: &'static str| async move {
        let (_, snapshot) = states::all().into_iter().find(|(state, _)| *state == name).unwrap();
        let summary = Console::start(snapshot).await.json("/api/v2/summary.json").await;
        let components: BTreeMap<String, String> = summary["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one["status"].as_str().unwrap().to_owned()))
            .collect();
        let maintenance = summary["scheduled_maintenances"][0]["status"].as_str().unwrap_or("none").to_owned();
        format!("{} {components:?} {maintenance}", summary["status"]["indicator"].as_str().unwrap())
    };
    let mut said = String::new();
    let paused_without = "paused and ClickHouse away";
    for name in [
        "on time",
        "planned",
        "paused",
        paused_without,
        "filling",
        "late",
        "lost",
        "queries fail",
        "collection fails",
        "converting",
        "held",
    ] {
        said.push_str(&format!("{name}: {}\n", words(name).await));
    }
    expect_test::expect![[r#"
        on time: none {"collection": "operational", "queries": "operational", "statistics": "operational"} none
        planned: none {"collection": "operational", "queries": "operational", "statistics": "operational"} scheduled
        paused: minor {"collection": "operational", "queries": "operational", "statistics": "under_maintenance"} in_progress
        paused and ClickHouse away: minor {"collection": "operational", "queries": "under_maintenance", "statistics": "under_maintenance"} in_progress
        filling: minor {"collection": "operational", "queries": "operational", "statistics": "degraded_performance"} verifying
        late: minor {"collection": "operational", "queries": "operational", "statistics": "degraded_performance"} none
        lost: major {"collection": "operational", "queries": "operational", "statistics": "major_outage"} none
        queries fail: minor {"collection": "operational", "queries": "major_outage", "statistics": "operational"} none
        collection fails: critical {"collection": "major_outage", "queries": "operational", "statistics": "operational"} none
        converting: none {"collection": "operational", "queries": "operational", "statistics": "operational"} in_progress
        held: none {"collection": "operational", "queries": "operational", "statistics": "operational"} in_progress
    "#]].assert_eq(&said);
}

#[tokio::test]
async fn what_operators_write_is_text_wherever_it_is_shown() {
    let console = Console::start(states::filling()).await;
    for path in ["/", "/feed.atom", "/badge.svg"] {
        let (status, _, body) = console.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(!body.contains("<script>") && !body.contains("<img") && !body.contains("<b>co"), "{path}: {body}");
    }
    let (_, _, page) = console.get("/").await;
    assert!(page.contains("&lt;script&gt;window.hurt = 1&lt;/script&gt;"), "{page}");
    assert!(page.contains("Blogs &amp; &lt;b&gt;co&lt;/b&gt;"), "{page}");
    // What XML cannot hold would make a feed none, for as long as the entry is in it.
    let mut paused = states::paused_until();
    paused.maintenances[0].reason = format!("{}\u{fffe}\u{ffff}", states::HOSTILE);
    let console = Console::start(paused).await;
    for path in ["/feed.atom", "/badge.svg"] {
        let (_, _, body) = console.get(path).await;
        let is_bad = |c: char| (c.is_control() && c != '\n') || c == '\u{fffe}' || c == '\u{ffff}';
        assert!(body.contains("window.hurt = 1") && !body.contains(is_bad), "{path}: {body:?}");
    }
}

#[tokio::test]
async fn the_page_lets_nothing_run_that_is_not_its_own_and_everything_that_listens_is_let_go() {
    let console = Console::start(states::filling()).await;
    for path in ["/", "/page.js", "/page.css"] {
        let (status, head, body) = console.get(path).await;
        assert!(
            status == 200 && head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        assert!(!body.contains("style=") && !body.contains("onclick"), "{path}");
    }
    // What listens gets the page, carriage returns of an operator's too, and ends with the console.
    let mut listening = TcpStream::connect(console.address).await.unwrap();
    listening.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    while !heard.contains("catching up") {
        let mut some = vec![0; 65_536];
        let read = listening.read(&mut some).await.unwrap();
        assert!(read > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    assert!(heard.contains("text/event-stream") && heard.contains("data: <section"), "{heard}");
    console.stop.send(()).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(30), console.served).await.unwrap().unwrap().unwrap();
    listening.read_to_string(&mut heard).await.unwrap();
}

#[tokio::test]
async fn the_feed_has_an_entry_a_maintenance_and_incident_that_ends_with_the_catch_up() {
    let (_, _, feed) = Console::start(states::missing()).await.get("/feed.atom").await;
    expect_test::expect![[r#"
        <?xml version="1.0" encoding="utf-8"?>
        <feed xmlns="http://www.w3.org/2005/Atom"><id>urn:weir:Blogs%20%26%20%3Cb%3Eco%3C%2Fb%3E:feed</id><title>Blogs &amp; &lt;b&gt;co&lt;/b&gt;: maintenances and incidents</title><author><name>Blogs &amp; &lt;b&gt;co&lt;/b&gt;</name></author><updated>2026-11-26T10:01:00.000Z</updated><link href="https://status.example.org/"></link><entry><id>urn:weir:Blogs%20%26%20%3Cb%3Eco%3C%2Fb%3E:recovery-live-1795687200000</id><title>Statistics are missing</title><published>2026-11-26T10:00:00.000Z</published><updated>2026-11-26T10:01:00.000Z</updated><content type="text">2026-11-26 10:00 UTC Statistics from 08:00 UTC to 09:00 UTC cannot be computed and stay missing (two disks were lost).
        2026-11-26 10:01 UTC Statistics go on.
        </content></entry><entry><id>urn:weir:Blogs%20%26%20%3Cb%3Eco%3C%2Fb%3E:maintenance-1795615200000</id><title>Maintenance: memory for the database</title><published>2026-11-24T14:00:00.000Z</published><updated>2026-11-25T16:10:00.000Z</updated><content type="text">2026-11-24 14:00 UTC Announced for 2026-11-25 14:00 UTC until 2026-11-25 16:00 UTC. Hits are collected meanwhile.
        2026-11-25 14:00 UTC Statistics are paused, collecting hits is not. They are complete through 14:00 UTC.
        2026-11-25 15:40 UTC Statistics are catching up.
        2026-11-25 16:10 UTC Everything is counted.
        </content></entry></feed>"#]].assert_eq(&feed);
}

#[tokio::test]
async fn the_badge_is_the_light() {
    let (_, head, badge) = Console::start(states::paused()).await.get("/badge.svg").await;
    assert!(head.contains("content-type: image/svg+xml"), "{head}");
    assert!(
        badge.contains(">maintenance</text>") && badge.contains("Paused for maintenance since 12:00 UTC"),
        "{badge}"
    );
    let console = Console::start(states::paused_without_clickhouse()).await;
    let (_, _, badge) = console.get("/badge.svg").await;
    assert!(badge.contains(">maintenance</text>"), "{badge}");
    let (_, _, page) = console.get("/").await;
    assert!(page.contains("<p class=\"word\">Maintenance</p>"), "{page}");
    assert_eq!(page.matches("cannot be queried").count(), 1, "{page}");
}

#[tokio::test]
async fn metrics_are_those_of_the_process_and_of_what_is_seen() {
    let (_, _, text) = Console::start(states::filling()).await.get("/metrics").await;
    let gap = 1_795_789_200_000 - states::NOW_MS;
    for line in [
        "other 1".to_owned(),
        "weir_status_colour 1".to_owned(),
        "weir_status_trouble{kind=\"catching_up\"} 1".to_owned(),
        "weir_status_trouble{kind=\"late\"} 0".to_owned(),
        "weir_status_computing_seconds 5400".to_owned(),
        "weir_pipeline_lag_records{run=\"gap\"} 2912345".to_owned(),
        "weir_pipeline_drain_records_per_second{run=\"gap\"} 52345".to_owned(),
        format!("weir_pipeline_eta_earliest_seconds{{run=\"gap\"}} {}", gap / 1_000),
        "weir_pipeline_paused{run=\"live\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|is| is == line), "{line}\n{text}");
    }
    let (_, _, text) = Console::start(states::paused()).await.get("/metrics").await;
    for line in ["weir_pipeline_paused{run=\"live\"} 1", "weir_pipeline_not_converging{run=\"live\"} 0"] {
        assert!(text.lines().any(|is| is == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_conversion_is_a_maintenance_that_touches_nothing_and_names_nobody_to_strangers() {
    let console = Console::start(states::converting()).await;
    let status = console.json("/status.json").await;
    assert_eq!((&status["status"], &status["conversion"]["who"]), (&json!("green"), &json!("ops@db1")));
    assert_eq!(status["conversion"]["state"], json!({ "is": "filling" }));
    let of_site = console.json("/status/one.example.json").await;
    assert_eq!(of_site["conversion"]["sentence"], status["conversion"]["sentence"]);
    assert_eq!(of_site["conversion"]["done"]["permille"], status["conversion"]["done"]["permille"]);
    let active = console.json("/api/v2/scheduled-maintenances/active.json").await;
    let one = &active["scheduled_maintenances"][0];
    assert_eq!((&one["status"], &one["impact"]), (&json!("in_progress"), &json!("none")));
    assert_eq!((&one["components"], &one["incident_updates"][0]["status"]), (&json!([]), &json!("in_progress")));
    let upcoming = console.json("/api/v2/scheduled-maintenances/upcoming.json").await;
    assert_eq!(upcoming["scheduled_maintenances"], json!([]));
    for path in ["/", "/feed.atom", "/status/one.example.json", "/api/v2/summary.json"] {
        let (_, _, body) = console.get(path).await;
        assert!(body.contains("newer lists of bots") && !body.contains("ops@db1"), "{path}: {body}");
    }
    let mut over = states::converting();
    (over.conversion, over.conversions[0].over_ms) = (None, Some(states::NOW_MS));
    let console = Console::start(over).await;
    for (which, statuses) in [("/active", vec![]), ("", vec!["completed"])] {
        let told = console.json(&format!("/api/v2/scheduled-maintenances{which}.json")).await;
        let told: Vec<_> =
            told["scheduled_maintenances"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
        assert_eq!(told, statuses, "{which}");
    }
}

#[tokio::test]
async fn the_page_shows_how_far_a_conversion_is_in_a_block_of_its_own() {
    let (_, _, page) = Console::start(states::converting()).await.get("/").await;
    let block = page.split("<section>").find(|section| section.contains("A better version ")).expect("a block");
    let (progress, _) = block.split_once("<progress value=\"").unwrap().1.split_once("\" max=\"1000\">").unwrap();
    assert_eq!(progress.parse::<u16>().unwrap(), states::converting().conversion.unwrap().done.unwrap().permille);
    assert!(!page.contains("At work"), "that is what is in use: {page}");
    let (_, _, page) = Console::start(states::on_time()).await.get("/").await;
    assert!(!page.contains("A better version"), "{page}");
}

#[tokio::test]
async fn a_conversions_metrics_are_there_while_it_lasts() {
    let conversion = states::converting().conversion.unwrap();
    let (_, _, text) = Console::start(states::converting()).await.get("/metrics").await;
    let Some(weir_console::Eta::Between { latest_ms, .. }) = conversion.eta else { panic!("{conversion:?}") };
    for line in [
        "weir_conversion_state{state=\"filling\"} 1".to_owned(),
        "weir_conversion_state{state=\"held\"} 0".to_owned(),
        format!("weir_conversion_progress_ratio {}", f64::from(conversion.done.unwrap().permille) / 1000.0),
        format!("weir_conversion_eta_latest_seconds {}", (latest_ms - states::NOW_MS) as f64 / 1000.0),
        "weir_conversion_share_ratio 0.5".to_owned(),
        "weir_conversion_stopped 0".to_owned(),
        "weir_pipeline_paused{run=\"shadow\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|is| is == line), "{line}\n{text}");
    }
    let (_, _, text) = Console::start(states::on_time()).await.get("/metrics").await;
    assert!(!text.lines().any(|line| line.starts_with("weir_conversion_")), "{text}");
}

/// The alerts of docker/alerts.yml of which the expression holds over these metrics, as Prometheus reads it: of the shape
/// `max(NAME{kind=~"A|B"}) == N` or `max by (run) (NAME{run!~"shadow.*"}) == N`, or with `>`; `unless on() LINE == N` after it.
fn firing(metrics: &str) -> Vec<String> {
    let rules = include_str!("../../docker/alerts.yml");
    let field = |line: &str, name: &str| line.trim().trim_start_matches("- ").strip_prefix(name).map(str::to_owned);
    let alerts = rules.lines().filter_map(|line| field(line, "alert: "));
    let exprs = rules.lines().filter_map(|line| field(line, "expr: "));
    let fires = |(_, expr): &(String, String)| {
        if expr.starts_with("absent") || expr.contains("delta") {
            return false;
        }
        let (expr, unless) =
            expr.split_once(" unless on() ").map_or((&expr[..], None), |(expr, unless)| (expr, Some(unless)));
        if unless.is_some_and(|unless| metrics.lines().any(|line| line == unless.replace(" == ", " "))) {
            return false;
        }
        let (left, right) = expr.split_once(" == ").or_else(|| expr.split_once(" > ")).expect("a comparison");
        let right: f64 = right.split(" * ").map(|number| number.parse::<f64>().unwrap()).product();
        let of =
            left.strip_prefix("max by (run) ").or_else(|| left.strip_prefix("max")).expect("one alert for all parts");
        let of = of.trim_start_matches('(').trim_end_matches(')');
        let (of, is_in_use) = match of.split_once("{run!~\"shadow.*\"") {
            Some((name, _)) => (name, true),
            None => (of, false),
        };
        let (name, kinds) = match of.split_once("{kind=") {
            Some((name, kinds)) => (name, Some(kinds.trim_start_matches('~').trim_end_matches('}').trim_matches('"'))),
            None => (of, None),
        };
        let values = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let mine = values.filter(|line| !(is_in_use && line.contains("{run=\"shadow"))).filter(|line| {
            kinds.is_none_or(|kinds| kinds.split('|').any(|kind| line.contains(&format!("{{kind=\"{kind}\"}}"))))
        });
        let value = mine.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).reduce(f64::max);
        value.is_some_and(|value| if expr.contains(" > ") { value > right } else { value == right })
    };
    alerts.zip(exprs).filter(fires).map(|(alert, _)| alert).collect()
}

#[tokio::test]
async fn each_alert_fires_in_the_states_that_it_is_meant_for() {
    let mut fired = String::new();
    for (name, snapshot) in states::all() {
        let (_, _, metrics) = Console::start(snapshot).await.get("/metrics").await;
        fired.push_str(&format!("{name}: {}\n", firing(&metrics).join(" ")));
    }
    expect_test::expect![[r#"
        on time: 
        nothing yet: 
        planned: 
        paused: WeirPausedForLong
        paused and told until when: WeirPausedForLong
        paused for the first time: WeirPausedForLong
        paused and ClickHouse away: WeirPausedForLong
        catching up: 
        filling: 
        not converging: WeirStatisticsLate WeirNotConverging
        late: WeirStatisticsLate
        silent: WeirStatisticsLate WeirNotConverging
        stopped: WeirRunStopped
        lost: WeirDataAtRisk WeirRunStopped
        topic gone: WeirDataAtRisk
        retention low: WeirDataAtRisk WeirPausedForLong WeirRetentionLow
        spooling: WeirSpooling
        spool full: WeirDataAtRisk WeirSpooling
        spool unreadable: WeirDataAtRisk
        log away: WeirDataAtRisk
        disk full: WeirDataAtRisk
        queries fail: WeirQueriesFail
        collection fails: WeirDataAtRisk
        missing: 
        replacing: 
        a control record set aside: WeirControlUnreadable
        an import is paused: WeirPausedForLong
        converting: 
        a conversion stands: WeirConversionStands
        held: 
    "#]]
    .assert_eq(&fired);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_right_in_a_browser_in_each_state() {
    let Some(chromium) = chromium::chromium() else { return };
    let mut consoles = Vec::new();
    let mut told = Vec::new();
    for (name, snapshot) in states::all() {
        let console = Console::start(snapshot).await;
        let status = console.json("/status.json").await;
        told.push(json!({ "name": name, "url": format!("http://{}/", console.address), "status": status }));
        consoles.push(console);
    }
    // One that changes all the time, to be seen without being loaded again.
    let changing = Console::start(states::on_time()).await;
    let url = format!("http://{}/", changing.address);
    let changes = tokio::spawn(async move {
        let none = || Err("nobody can look".to_owned());
        for snapshot in [Ok(states::paused()), Ok(states::filling()), none(), Ok(states::on_time())].iter().cycle() {
            tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
            changing.show(snapshot.clone());
        }
    });
    let pictures = std::env::var_os("WEIR_TEST_PICTURES").map(PathBuf::from);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/page.mjs");
    let looked = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("node");
        command.arg(script).env("WEIR_NODE_MODULES", node_modules()).env("WEIR_CHROMIUM", chromium);
        if let Some(pictures) = pictures {
            command.env("WEIR_TEST_PICTURES", pictures);
        }
        command.env("WEIR_PAGES", json!({ "states": told, "changing": url }).to_string());
        command.stdin(Stdio::null()).output().expect("node, version 20 or later")
    });
    let output = looked.await.unwrap();
    changes.abort();
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}{said}");
    assert_eq!(printed.trim(), format!("{} states looked at", states::all().len()));
}

fn node_modules() -> PathBuf {
    let ours = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.weir/node/node_modules");
    std::env::var_os("WEIR_NODE_MODULES").map_or_else(ours, PathBuf::from)
}
