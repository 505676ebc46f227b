//! Somebody sends random paths, millions of them: the others notice nothing.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use support::{Place, wait_for};
use weir_log::{Log, LogConfig, SystemClock};
use weir_schemas::{
    Event,
    control::EVENTS_TOPIC,
    wire::{BatchBuilder, batch_record},
};

const PATHS: u64 = 5_000_000;
const BATCH: u64 = 10_000;
/// `pipeline.memory_bytes_max` of the run.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// What the paths would take if they were held: each path, and its visitor in every dimension that is said of all events.
const HELD_MB: u64 = PATHS * (20 + 24 + 10 * 8) / 1_000_000;
/// Events a second, so that a window is as large on any machine.
const RATE: u64 = 125_000;
/// What five times the paths may take of what the first fifth took: the windows are as large, and only there may be more of
/// them on their way.
const FLAT: f64 = 1.5;

#[test]
fn five_million_random_paths_on_one_site_leave_as_other_in_little_memory_and_other_sites_are_on_time() {
    let place =
        Place::new(&format!("[log]\npartitions = 2\n[pipeline]\nworkers = 1\nmemory_bytes_max = {MEMORY_BYTES_MAX}"));
    let serve = place.start();
    let run = wait_for("the live run", || serve.children("run").first().copied());
    let config = LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, Arc::new(SystemClock)).unwrap();
    let peak = watch(run);
    let (mut sent, mut of_a_fifth_mb) = (0, 0);
    let begin = Instant::now();
    for first in (0..PATHS).step_by(BATCH as usize) {
        let due = begin + Duration::from_secs_f64(first as f64 / RATE as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        flood(log.as_ref(), first);
        if first % (BATCH * 20) == 0 {
            sent += calm(&place, first);
        }
        if first == PATHS / 5 {
            of_a_fifth_mb = peak.load(Ordering::Relaxed);
        }
    }
    place.wait_complete();

    let peak_mb = peak.load(Ordering::Relaxed);
    eprintln!("{of_a_fifth_mb} MB for a fifth, {peak_mb} MB for all, {HELD_MB} MB more if all were held");
    assert!(
        of_a_fifth_mb > 0 && peak_mb as f64 <= FLAT * of_a_fifth_mb as f64,
        "{of_a_fifth_mb} MB, then {peak_mb} MB"
    );
    assert!(peak_mb < HELD_MB, "the run took {peak_mb} MB");
    let number = |sql: &str| place.query(sql).unwrap().trim().parse::<u64>().unwrap();
    let of = |site: &str, what: &str| {
        number(&format!("SELECT {what} FROM stats WHERE site = '{site}' AND dimension = 'page'"))
    };
    assert_eq!(of("one.example", "sum(page_views)"), PATHS);
    assert!(of("one.example", "sumIf(page_views, value = '(other)')") > PATHS * 9 / 10);
    assert_eq!(of("two.example", "sum(page_views)"), sent);
    assert_eq!(of("two.example", "countIf(window_start != emitted_in)"), 0, "a calm site's rows are late");
    assert_eq!(serve.stop(), Some(0));
}

/// A batch of page views of paths that nobody has seen.
fn flood(log: &dyn Log, first: u64) {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let mut batch = BatchBuilder::new([9; 16], first);
    for path in first..first + BATCH {
        let spread = path.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        batch.push(&Event {
            site: "one.example".into(),
            host: "one.example".into(),
            page: format!("/{spread:016x}"),
            visitor: spread | 1,
            received_ms: now_ms,
            user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into(),
            ..Event::default()
        });
    }
    let partition = (first / BATCH % 2) as u32;
    let append = log.append(EVENTS_TOPIC, partition, batch_record(now_ms, &batch.finish()).into(), None);
    futures::executor::block_on(append).unwrap();
}

/// Ten page views of another site, over HTTP; how many.
fn calm(place: &Place, number: u64) -> u64 {
    let hits: Vec<_> = (0..10)
        .map(|hit| serde_json::json!({"site": "two.example", "url": format!("https://two.example/{hit}"), "id": format!("{number}-{hit}"),
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}))
        .collect();
    let (status, answer) = place.post(&serde_json::json!(hits).to_string()).unwrap();
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(10)), "{answer}");
    10
}

/// The most memory that a process holds from now on, MB, without pages of files (the log is mapped): `RssAnon` of its status,
/// looked at twenty times a second until it is gone.
fn watch(pid: i32) -> Arc<AtomicU64> {
    let peak = Arc::new(AtomicU64::new(0));
    let seen = peak.clone();
    std::thread::spawn(move || {
        while let Some(mb) = anonymous_mb(pid) {
            seen.fetch_max(mb, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    peak
}

fn anonymous_mb(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kb = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(kb.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1_024)
}
