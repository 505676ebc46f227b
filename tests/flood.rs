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
/// Events a second at most; a sender that was held up does not hurry after it, so a window has at most
/// `RATE × WINDOW_S` paths on any machine, and fewer on a slow one.
const RATE: u64 = 125_000;
/// Width and lateness of the run's windows. A calm site's hit that takes less than this from its receipt into the log is on
/// time.
const WINDOW_S: u64 = 10;
/// As many paths come from one visitor.
const PATHS_A_VISITOR: u64 = 50;

/// `pipeline.memory_bytes_max` of the run: half for open windows, half for closed ones on their way into the table.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Windows as they leave that are in neither half: the oldest, which the pipeline merges although there is no room; one in
/// each of two channels to the sink, one in the hand of who moves them from one to the other, one that is being looked at by
/// the sink, and one that it takes while it still has some room.
const WINDOWS_BETWEEN: u64 = 6;
/// Rows of such a window: visitors in each of the ten dimensions that say something of every event, and `values_max` rows of
/// two dimensions, of 200 bytes.
const WINDOW_BYTES_MAX: u64 = RATE * WINDOW_S / PATHS_A_VISITOR * 8 * 10 + 2 * 1_001 * 200;
/// The process itself: 12 MB before the first event, 2 MB for a record of [`BATCH`] events and its columns, and what the
/// allocator has been given back and not yet given to the system.
const PROCESS_BYTES_MAX: u64 = 32 << 20;
/// All of it, 109 MB: neither how many paths there are is in it, nor how fast they come.
const BYTES_MAX: u64 = MEMORY_BYTES_MAX + WINDOWS_BETWEEN * WINDOW_BYTES_MAX + PROCESS_BYTES_MAX;
/// One window as rows in memory: in two dimensions a row of a path, its text, seven counts, and its visitor.
const WINDOW_HELD_BYTES: u64 = RATE * WINDOW_S * 2 * (28 + 17 + 8 + 7 * 8 + 8);
const _: () = assert!(BYTES_MAX < WINDOW_HELD_BYTES, "one window that is held in memory must be seen");

#[test]
fn five_million_random_paths_on_one_site_leave_as_other_in_bounded_memory_and_other_sites_are_on_time() {
    let place =
        Place::new(&format!("[log]\npartitions = 2\n[pipeline]\nworkers = 1\nmemory_bytes_max = {MEMORY_BYTES_MAX}"));
    place.set_windows(WINDOW_S, WINDOW_S);
    let serve = place.start();
    let run = wait_for("the live run", || serve.children("run").first().copied());
    let config = LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, Arc::new(SystemClock)).unwrap();
    let peak = watch(run);
    let mut sent = 0;
    let mut due = Instant::now();
    let begin = due;
    for first in (0..PATHS).step_by(BATCH as usize) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = due.max(Instant::now()) + Duration::from_secs_f64(BATCH as f64 / RATE as f64);
        flood(log.as_ref(), first);
        if first % (BATCH * 20) == 0 {
            sent += calm(&place, first);
        }
    }
    let took = begin.elapsed();
    place.wait_complete();

    let peak_bytes = peak.load(Ordering::Relaxed);
    let mb = |bytes: u64| bytes >> 20;
    eprintln!(
        "{} MB at most, {} MB allowed; one window held would be {} MB more; sent in {} s",
        mb(peak_bytes),
        mb(BYTES_MAX),
        mb(WINDOW_HELD_BYTES),
        took.as_secs()
    );
    assert!(peak_bytes > 0 && peak_bytes <= BYTES_MAX, "the run took {} of {} MB", mb(peak_bytes), mb(BYTES_MAX));
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
            visitor: (path / PATHS_A_VISITOR).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
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

/// The most memory that a process holds from now on, bytes, without pages of files (the log is mapped): `RssAnon` of its
/// status, looked at a hundred times a second until it is gone.
fn watch(pid: i32) -> Arc<AtomicU64> {
    let peak = Arc::new(AtomicU64::new(0));
    let seen = peak.clone();
    std::thread::spawn(move || {
        while let Some(bytes) = anonymous_bytes(pid) {
            seen.fetch_max(bytes, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    peak
}

fn anonymous_bytes(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kb = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(kb.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}
