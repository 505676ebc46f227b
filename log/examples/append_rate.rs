//! How fast a log takes and gives records: `append_rate (embedded DIR | kafka BOOTSTRAP) [key=value…]`.
//!
//! `records`, `bytes` (of one record) and `under_way` (appends not yet acknowledged) have defaults; any other key is a
//! property of librdkafka. Prints rates, CPU seconds of this process, and how long an acknowledgement took.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, executor::block_on, stream::FuturesUnordered};
use weir_log::{LogConfig, SystemClock, TopicKind, open};

const USAGE: &str =
    "append_rate (embedded DIR | kafka BOOTSTRAP) [records=N] [bytes=N] [under_way=N] [property=value…]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(kind), Some(place)) = (arguments.next(), arguments.next()) else { return Err(USAGE.into()) };
    let mut options: BTreeMap<String, String> = arguments
        .map(|argument| argument.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or(USAGE))
        .collect::<Result<_, _>>()?;
    let mut number =
        |key: &str, default: usize| options.remove(key).map_or(Ok(default), |value| value.parse::<usize>());
    let (records, bytes, under_way) = (number("records", 20_000)?, number("bytes", 10_000)?, number("under_way", 64)?);
    let config = match kind.as_str() {
        "embedded" => LogConfig::Embedded { path: place.into() },
        "kafka" => LogConfig::Kafka { bootstrap: place, options },
        _ => return Err(USAGE.into()),
    };

    let log = open(&config, Arc::new(SystemClock))?;
    let topic = format!("append_rate.{}", std::process::id());
    log.create_topic(&topic, &TopicKind::Events { partitions: 1, retention: Duration::from_secs(3600) })?;
    let payload = payload(bytes);

    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut took_ms = Vec::with_capacity(records);
    block_on(async {
        let mut appends = FuturesUnordered::new();
        for _ in 0..records {
            let (append, begun) = (log.append(&topic, 0, payload.clone(), None), Instant::now());
            appends.push(async move { append.await.map(|_| begun.elapsed()) });
            if appends.len() == under_way
                && let Some(took) = appends.next().await
            {
                took_ms.push(took?.as_secs_f64() * 1e3);
            }
        }
        while let Some(took) = appends.next().await {
            took_ms.push(took?.as_secs_f64() * 1e3);
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    print("append", records, bytes, begun.elapsed(), cpu_seconds() - cpu);
    took_ms.sort_by(f64::total_cmp);
    println!("acknowledged after p50 {:.2} ms, p99 {:.2} ms", took_ms[records / 2], took_ms[records * 99 / 100]);

    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut reader = log.reader(&topic)?;
    reader.assign(0, 0)?;
    let (mut seen, mut sum) = (0, 0_u64);
    while seen < records {
        seen += reader.poll(1_000, Duration::from_secs(10), &mut |record| {
            // Touches every page, as a decoder would.
            sum += record.payload.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>();
        })?;
    }
    print("read  ", records, bytes, begun.elapsed(), cpu_seconds() - cpu);
    assert!(sum > 0 || bytes == 0);
    drop(reader);
    log.delete_topic(&topic)?;
    Ok(())
}

fn print(what: &str, records: usize, bytes: usize, took: Duration, cpu_seconds: f64) {
    let seconds = took.as_secs_f64();
    let megabytes = (records * bytes) as f64 / 1e6;
    println!(
        "{what} {:>9.0} records/s  {:>7.1} MB/s  {cpu_seconds:.2} CPU s in {seconds:.2} s",
        records as f64 / seconds,
        megabytes / seconds
    );
}

/// Half noise, half text that repeats: compresses about as a batch of events does.
fn payload(bytes: usize) -> Bytes {
    let mut noise = 1_u64;
    let mut payload = Vec::with_capacity(bytes + 32);
    while payload.len() < bytes {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        payload.extend_from_slice(&noise.to_le_bytes());
        payload.extend_from_slice(b"/blog/po");
    }
    payload.truncate(bytes);
    payload.into()
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of Linux's /proc/self/stat, in ticks of 10 ms; elsewhere there is no such file, and this is 0.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
