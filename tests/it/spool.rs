//! The log is away: a real broker is killed under load, the collector too, and what was acknowledged is counted once.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use crate::support::{Broker, Place, Serve, TOKEN, WEIR, free_port, get, kafka, wait_for};
use serde_json::{Value, json};

/// Events of one POST, all of the same page, which no other POST has.
const EVENTS: u64 = 10;

/// Hits of pages of their own, without ids, so that anything that is doubled shows.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    /// Answers other than 202.
    refused: Arc<Mutex<Vec<u16>>>,
    /// The pages that were acknowledged.
    sending: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(place: &Arc<Place>) -> Load {
        let (stop, acknowledged, refused) = (Arc::default(), Arc::default(), Arc::default());
        let load = (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&refused));
        let place = Arc::clone(place);
        let sending = std::thread::spawn(move || {
            let (stop, acknowledged, refused): (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<Mutex<Vec<u16>>>) = load;
            let mut pages = Vec::new();
            for post in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let page = format!("/p/{post}");
                match place.post(&hits(&page, EVENTS, "")) {
                    Ok((202, _)) => {
                        pages.push(page);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok((status, _)) => refused.lock().unwrap().push(status),
                    // Nobody was there to answer: nothing is known of this page.
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
                }
            }
            pages
        });
        Load { stop, acknowledged, refused, sending }
    }

    /// Waits for so many more acknowledgements.
    fn goes_on(&self, posts: usize) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        wait_for("acknowledgements", || (self.acknowledged.load(Ordering::Relaxed) >= before + posts).then_some(()));
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let pages = self.sending.join().unwrap();
        assert_eq!(*self.refused.lock().unwrap(), Vec::<u16>::new(), "every hit is answered 202, whatever is away");
        pages
    }
}

fn hits(page: &str, events: u64, title: &str) -> String {
    let hit = json!({
        "site": "one.example", "url": format!("https://one.example{page}"), "title": title, "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    });
    Value::Array((0..events).map(|_| hit.clone()).collect()).to_string()
}

fn place(broker: &Broker) -> Arc<Place> {
    // A write that takes its time, of a machine that has much to do, is not one onto a full disk.
    let place = Place::new(&format!(
        "[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"{}\"\n[ingest.collector]\nappend_timeout = \"1m\"",
        broker.bootstrap()
    ));
    // A quick machine answers more than a thousand POSTs, each of a page of its own, in a window of a second: the rest of
    // them would be `(other)`.
    let version = place.dir.path().join("quick.toml");
    let text = std::fs::read_to_string(&version).unwrap();
    assert!(text.contains("values_max = 1000\n"));
    std::fs::write(&version, text.replace("values_max = 1000\n", "values_max = 100000\n")).unwrap();
    Arc::new(place)
}

fn ready(place: &Place) {
    let url = format!("http://{}/readyz", place.collector);
    wait_for("the collector", || get(&url).filter(|(status, _)| *status == 200));
}

fn end(processes: [Serve; 2]) {
    for process in processes {
        assert_eq!(process.stop(), Some(0));
    }
}

/// Page views by page, as ClickHouse has them.
fn counted(place: &Place) -> BTreeMap<String, u64> {
    let sql = "SELECT value, sum(page_views) FROM stats WHERE dimension = 'page' GROUP BY value";
    let rows = place.query(sql).unwrap();
    let row = |line: &str| {
        let (page, views) = line.split_once('\t').unwrap();
        (page.to_owned(), views.parse().unwrap())
    };
    rows.lines().map(row).collect()
}

#[test]
fn a_dead_broker_and_a_killed_collector_cost_no_hit_its_202_and_none_is_lost_or_doubled() {
    let Some(mut broker) = kafka() else { return };
    let place = place(&broker);
    let console = format!("127.0.0.1:{}", free_port());
    let ingest = || place.start_part(&["ingest", "--set", &format!("listen.console={console}")]);
    let (mut collector, pipeline) = (ingest(), place.start_part(&["pipeline"]));
    ready(&place);
    let load = Load::start(&place);
    load.goes_on(50);

    broker.kill();
    load.goes_on(100);
    collector.kill();
    collector = ingest();
    ready(&place);
    load.goes_on(100);

    // While the log is away the spool is seen in all three places.
    let status: Value = serde_json::from_str(&get(&format!("http://{console}/status.json")).unwrap().1).unwrap();
    assert!(status["log_away"].is_string() && status["spool"]["batches"].as_u64() > Some(100), "{status}");
    assert!(status["spool"]["age_ms"].as_i64() > Some(0) && status["spool"]["bytes"].as_u64() > Some(0), "{status}");
    let metric = |name: &str| {
        let text = get(&format!("http://{console}/metrics")).unwrap().1;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))?.parse::<f64>().ok());
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))
    };
    wait_for("the gauges", || (metric("weir_ingest_spool_batches") > 100.0).then_some(()));
    assert!(metric("weir_ingest_spool_age_seconds") > 0.0 && metric("weir_ingest_spool_bytes") > 0.0);
    let shown = place.weir(&["status"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("LOG AWAY: ") && text.contains("batches to go into the log"), "{text}");
    assert_eq!(shown.status.code(), Some(1));

    broker.start_again();
    let drained = || {
        let status: Value = serde_json::from_str(&get(&format!("http://{console}/status.json"))?.1).ok()?;
        (status["spool"]["batches"] == 0 && status["log_away"].is_null()).then_some(())
    };
    wait_for("the spool to be drained", drained);
    load.goes_on(50);
    let acknowledged = load.end();
    // A broker that needed more than a second for an append, as on a busy machine, was away once more.
    wait_for("the spool to be drained again", drained);
    place.wait_complete();
    let mut counted = counted(&place);
    for page in &acknowledged {
        assert_eq!(counted.remove(page), Some(EVENTS), "{page} of {}", acknowledged.len());
    }
    // A POST that the kill left without an answer may have been taken, once.
    assert!(counted.len() <= 2 && counted.values().all(|views| *views == EVENTS), "{counted:?}");
    eprintln!("{} events acknowledged, each counted once", acknowledged.len() as u64 * EVENTS);
    end([collector, pipeline]);
}

#[test]
fn a_disk_without_room_is_answered_503_with_retry_after_and_what_was_acknowledged_is_counted_once() {
    let Some(mut broker) = kafka() else { return };
    let place = place(&broker);
    // No file of the collector's grows beyond 4 MiB: for its spool the disk is full then, for its own log it always is.
    let own_log = std::fs::File::options().create(true).append(true).open(place.dir.path().join("log.txt")).unwrap();
    own_log.set_len(4 << 20).unwrap();
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"";
    let collector = Command::new("bash")
        .args(["-c", script, WEIR, "--config"])
        .arg(place.config())
        .args(["ingest", "--set", "listen.console=127.0.0.1:0"])
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stderr(own_log)
        .spawn()
        .unwrap();
    let collector = Serve { child: collector };
    let pipeline = place.start_part(&["pipeline"]);
    ready(&place);
    broker.kill();
    let mut acknowledged = Vec::new();
    let wait = loop {
        // Distinct titles: a batch holds each string once.
        let page = format!("/p/{}", acknowledged.len());
        let title = format!("{:x>2000}", acknowledged.len());
        match post(&place, &hits(&page, 1, &title)) {
            (202, None) => acknowledged.push(page),
            (503, Some(wait)) => break wait,
            other => panic!("{other:?}"),
        }
        assert!(acknowledged.len() < 10_000, "the disk is never full");
    };
    assert_eq!(wait, "30");
    assert!(acknowledged.len() > 100, "{} fitted", acknowledged.len());

    broker.start_again();
    wait_for("events to be taken again", || {
        let page = format!("/p/{}", acknowledged.len());
        (post(&place, &hits(&page, 1, "")).0 == 202).then(|| acknowledged.push(page))
    });
    let spool = || place.json(&["status", "--json"])["spool"]["batches"].as_u64();
    wait_for("the spool to be drained", || (spool() == Some(0)).then_some(()));
    place.wait_complete();
    let mut counted = counted(&place);
    for page in &acknowledged {
        let views = counted.remove(page);
        // The last one may have been in the log when it was answered 503, and was sent again.
        let at_most = if Some(page) == acknowledged.last() { 2 } else { 1 };
        assert!(views.is_some_and(|views| (1..=at_most).contains(&views)), "{page}: {views:?}");
    }
    assert_eq!(counted, BTreeMap::new());
    eprintln!("{} events acknowledged on a full disk, each counted once", acknowledged.len());
    end([collector, pipeline]);
}

#[test]
fn hits_that_find_no_room_turn_the_light_red_until_one_is_taken_again() {
    let Some(mut broker) = kafka() else { return };
    let bootstrap = broker.bootstrap();
    let place = Place::new(&format!(
        "[log]\nkind = \"kafka\"\n[kafka]\nbootstrap = \"{bootstrap}\"\n[ingest.spool]\nbytes_max = 1048576"
    ));
    let collector = place.start_part(&["ingest"]);
    ready(&place);
    broker.kill();
    let mut sent = 0;
    let mut answer = || {
        sent += 1;
        post(&place, &hits(&format!("/p/{sent}"), 1, &format!("{sent:x>2000}"))).0
    };
    while answer() == 202 {}
    let red = wait_for("the light", || {
        let full = answer() == 503;
        place.status().filter(|status| full && status["troubles"][0]["kind"] == "collection_fails")
    });
    assert_eq!(red["status"], "red");
    assert!(red["collector"]["reason"].as_str().unwrap().contains("the spool does not take the events"), "{red}");
    let collection = &red["components"][0];
    assert_eq!(collection, &json!({ "component": "collection", "status": "major_outage" }));
    let collected = |trouble: &Value| trouble["sentence"].as_str().unwrap().contains("are collected");
    assert!(!red["troubles"].as_array().unwrap().iter().any(collected), "{red}");
    let indicator = || {
        let text = get(&format!("http://{}/api/v2/status.json", place.console))?.1;
        Some(serde_json::from_str::<Value>(&text).ok()?["status"]["indicator"].clone())
    };
    assert_eq!(indicator(), Some(json!("critical")));

    broker.start_again();
    wait_for("hits to be taken", || (answer() == 202).then_some(()));
    wait_for("the light", || {
        let status = place.status()?;
        (status["collector"]["is"] == "up" && status["components"][0]["status"] == "operational").then_some(())
    });
    assert_eq!(collector.stop(), Some(0));
}

/// A POST's status, and its `Retry-After`.
fn post(place: &Place, body: &str) -> (u16, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("http://{}/v1/events", place.collector));
        let answer = request.bearer_auth(TOKEN).body(body.to_owned()).send().await.unwrap();
        let wait = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), wait)
    })
}
