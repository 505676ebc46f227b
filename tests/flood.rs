//! Somebody sends random paths, millions of them: the others notice nothing.

mod support;

use std::sync::Arc;

use futures::future::join_all;
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
/// What the process may take at its peak: the windows' bound; as much again for what is sorted and merged at the moment; the
/// log, mapped; 256 MB of closed windows on their way to ClickHouse, and their one body; code and threads.
const PEAK_MB_MAX: u64 = 1_024;
/// What 5 M paths would take if they were held: each path, and its visitor in every dimension that is said of all events.
const HELD_MB: u64 = PATHS * (20 + 24 + 10 * 8) / 1_000_000;

#[test]
fn five_million_random_paths_on_one_site_leave_as_other_in_little_memory_and_other_sites_are_on_time() {
    let place =
        Place::new(&format!("[log]\npartitions = 2\n[pipeline]\nworkers = 1\nmemory_bytes_max = {MEMORY_BYTES_MAX}"));
    let serve = place.start();
    let run = wait_for("the live run", || serve.children("run").first().copied());
    let config = LogConfig::Embedded { path: place.dir.path().join("data/log") };
    let log = weir_log::open(&config, Arc::new(SystemClock)).unwrap();
    let mut sent = 0;
    for first in (0..PATHS).step_by(BATCH as usize * 20) {
        flood(log.as_ref(), first);
        sent += calm(&place, first);
    }
    place.wait_complete();

    let peak_mb = peak_mb(run);
    assert!(peak_mb < PEAK_MB_MAX, "the run took {peak_mb} MB at its peak");
    eprintln!("peak {peak_mb} MB, {HELD_MB} MB if all were held");
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

/// 200,000 page views of paths that nobody has seen.
fn flood(log: &dyn Log, first: u64) {
    let appends = (first..first + BATCH * 20).step_by(BATCH as usize).map(|first| {
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
        log.append(EVENTS_TOPIC, (first / BATCH % 2) as u32, batch_record(now_ms, &batch.finish()).into(), None)
    });
    futures::executor::block_on(join_all(appends)).into_iter().for_each(|appended| assert!(appended.is_ok()));
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

/// Peak memory of a process, MB; `VmHWM` of its status.
fn peak_mb(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}
