//! How fast a log becomes closed rows: events per CPU-second of the whole process, over a log in memory.
//!
//! ```text
//! cargo run --release -p weir-pipeline --example closed_rows -- [SHAPE] [EVENTS] [WORKERS] [EVENTS A BATCH]
//! ```
//!
//! Shapes: `plain` (500 sites by Zipf, 200 pages each, 2 M visitors, 83,000 events a window), `ids` (the same, each event
//! with an id), `skew` (one site has nine of ten events), `blogs` (5,000 small sites), `flood` (random paths on one site,
//! all in one window).

#[path = "../tests/support/memory_log.rs"]
mod memory_log;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use memory_log::{MemoryLog, Stored};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Zipf};
use weir_log::{PartitionInUse, SystemClock};
use weir_pipeline::{RunSpec, SourceKind, Status, run};
use weir_schemas::{
    Closed, Event, Kind, SchemaVersion,
    wire::{BatchBuilder, batch_record, decode, tick_record},
};

const BEGIN_MS: i64 = 1_700_000_040_000;
const PARTITIONS: usize = 8;
const EVENTS_A_WINDOW: usize = 83_000;

const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 \
     Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
];
const COUNTRIES: [&str; 8] = ["US", "DE", "NZ", "FR", "IN", "BR", "JP", ""];

struct Shape {
    sites: u32,
    hot: bool,
    ids: bool,
    flood: bool,
    events_a_window: usize,
}

fn event(rng: &mut StdRng, shape: &Shape, sites: &Zipf<f64>, pages: &Zipf<f64>, number: usize, now_ms: i64) -> Event {
    let site = match shape.hot && rng.random_bool(0.9) {
        true => 0,
        false => sites.sample(rng) as u32,
    };
    let host = format!("site-{site}.example");
    let page = match shape.flood {
        true => format!("/{:016x}", rng.random::<u64>()),
        false => format!("/articles/{}/page-{}", site % 50, pages.sample(rng) as u32),
    };
    let referrer = match rng.random_range(0..10) {
        0..5 => format!("https://{host}/articles/before"),
        5..7 => "https://www.google.com/".into(),
        7 => format!("https://other-{}.example/links", rng.random_range(0..300)),
        _ => String::new(),
    };
    let (kind, target) = match rng.random_range(0..100) {
        0..3 => (Kind::Outbound, format!("https://out-{}.example/", rng.random_range(0..50))),
        3 => (Kind::Download, "/paper.pdf".into()),
        _ => (Kind::PageView, String::new()),
    };
    Event {
        site: host.clone(),
        kind,
        received_ms: now_ms - rng.random_range(0..1_500),
        visitor: 1 + rng.random_range(0..2_000_000u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        id: if shape.ids { format!("c0ffee-{number}") } else { String::new() },
        host,
        page,
        query: if rng.random_range(0..20) == 0 { "utm_source=news&utm_medium=email".into() } else { String::new() },
        referrer,
        user_agent: AGENTS[rng.random_range(0..AGENTS.len())].into(),
        country: COUNTRIES[rng.random_range(0..COUNTRIES.len())].into(),
        target,
        ..Event::default()
    }
}

fn history(shape: &Shape, events: usize, batch_events: usize) -> (MemoryLog, i64) {
    let mut rng = StdRng::seed_from_u64(1);
    let sites = Zipf::new(f64::from(shape.sites), 1.0).unwrap();
    let pages = Zipf::new(200.0, 1.0).unwrap();
    let mut records: Vec<Vec<Stored>> = vec![Vec::new(); PARTITIONS];
    let mut now_ms = BEGIN_MS;
    for (sequence, first) in (0..events).step_by(batch_events).enumerate() {
        now_ms = BEGIN_MS + (first * 60_000 / shape.events_a_window) as i64;
        let mut batch = BatchBuilder::new([1; 16], sequence as u64);
        for number in first..(first + batch_events).min(events) {
            batch.push(&event(&mut rng, shape, &sites, &pages, number, now_ms));
        }
        let payload = batch_record(now_ms, &batch.finish()).into();
        records[sequence % PARTITIONS].push(Stored { stamp_ms: now_ms, payload });
    }
    let end_ms = now_ms + 3 * 60_000;
    let tick = || Stored { stamp_ms: end_ms, payload: tick_record(end_ms).into() };
    records.iter_mut().for_each(|partition| partition.push(tick()));
    let mut log = MemoryLog::new(records, 0);
    log.seed = None;
    (log, end_ms)
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Peak memory of the process, MB; `VmHWM` of `/proc/self/status`.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1_024
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, usual: usize| arguments.get(place).map_or(usual, |text| text.parse().expect("a number"));
    let name = arguments.first().map_or("plain", String::as_str);
    let (events, workers, batch_events) = (number(1, 2_000_000), number(2, 1), number(3, 4_096));
    let plain = Shape { sites: 500, hot: false, ids: false, flood: false, events_a_window: EVENTS_A_WINDOW };
    let shape = match name {
        "plain" => plain,
        "ids" => Shape { ids: true, ..plain },
        "skew" => Shape { hot: true, ..plain },
        "blogs" => Shape { sites: 5_000, ..plain },
        "flood" => Shape { sites: 1, flood: true, events_a_window: events * 2, ..plain },
        other => panic!("no shape {other} (plain, ids, skew, blogs, flood)"),
    };
    let (log, end_ms) = history(&shape, events, batch_events);
    let before_mb = peak_mb();
    let records: Vec<_> =
        log.partitions.lock().unwrap().iter().flatten().map(|record| record.payload.clone()).collect();
    let bytes: usize = records.iter().map(|payload| payload.len()).sum();
    let begin = cpu_seconds();
    records.iter().for_each(|payload| drop(std::hint::black_box(decode(payload).unwrap())));
    let decoding = cpu_seconds() - begin;

    let version = SchemaVersion::builtin(1).unwrap();
    let spec = RunSpec {
        run: "bench".into(),
        topic: "t".into(),
        kind: SourceKind::Live,
        from: version.width.window_of(BEGIN_MS - version.lateness_ms),
        to: Some(version.width.window_of(end_ms - version.lateness_ms)),
        partitions: (0..PARTITIONS as u32)
            .map(|partition| PartitionInUse { partition, effective_ms: BEGIN_MS })
            .collect(),
        workers,
        memory_bytes_max: 256 << 20,
        spill_dir: std::env::temp_dir(),
        tick_after: Duration::from_secs(3_600),
        version,
    };
    let (sender, mut closed) = tokio::sync::mpsc::channel(8);
    let status = Arc::new(Status::default());
    let (begin, wall) = (cpu_seconds(), Instant::now());
    let said = status.clone();
    let running = std::thread::spawn(move || {
        run(spec, Arc::new(log), Arc::new(SystemClock), sender, said, Arc::new(AtomicBool::new(false)))
    });
    let (mut rows, mut windows, mut views) = (0, 0, 0);
    while let Some(message) = closed.blocking_recv() {
        if let Closed::Window(emission) = message {
            windows += 1;
            rows += emission.rows();
            views += emission.blocks.iter().map(|block| block.counts.iter().sum::<u64>()).sum::<u64>();
        }
    }
    running.join().unwrap().unwrap();
    let (cpu, wall) = (cpu_seconds() - begin, wall.elapsed().as_secs_f64());
    println!(
        "{name}: {events} events, {:.0} B an event, {windows} windows, {rows} rows ({:.2} an event), sum {views}",
        bytes as f64 / events as f64,
        rows as f64 / events as f64
    );
    println!(
        "decode alone {:.0} ns an event; decode to rows {:.0} ns: {:.2} M events per CPU-second, {:.2} M/s with {workers} \
         workers",
        decoding * 1e9 / events as f64,
        cpu * 1e9 / events as f64,
        events as f64 / cpu / 1e6,
        events as f64 / wall / 1e6
    );
    let snapshot = status.snapshot();
    println!("peak memory {} MB, {before_mb} MB of it the log; {} runs spilled", peak_mb(), snapshot.runs_spilled);
}
