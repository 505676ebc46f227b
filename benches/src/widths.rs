//! Rows per event, by the window's width and the traffic's span: what a schema version's width costs.

use std::{process::ExitCode, sync::Arc, time::Duration};

use serde_json::json;
use weir_log::{LogConfig, SystemClock};
use weir_schemas::WindowWidth;

use crate::{
    args::{self, TrafficArgs},
    load::load,
    report::{rounded, table},
    stage::{self, Order, Stage},
    traffic::Traffic,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// How much event time the traffic covers; more than once
    #[arg(long, value_parser = args::span, default_values = ["2h", "24h"], value_name = "DURATION")]
    span: Vec<Duration>,
    /// Widths of a window; more than once
    #[arg(long, value_parser = args::span, default_values = ["1m", "5m", "15m", "1h"], value_name = "DURATION")]
    width: Vec<Duration>,
}

const TOPIC: &str = "bench.events";

pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let mut measured = Vec::new();
    for &span in &args.span {
        let place = tempfile::Builder::new().prefix("weir-bench-").tempdir()?;
        let config = LogConfig::Embedded { path: place.path().join("log") };
        let log = weir_log::open(&config, Arc::new(SystemClock))?;
        let TrafficArgs { events, shape, batch, partitions, .. } = args.traffic;
        let width_max = args.width.iter().copied().max().unwrap_or_default();
        let loaded = load(log.as_ref(), TOPIC, partitions, Traffic::new(shape, events, span), batch, width_max)?;
        for &width in &args.width {
            let width_ms = WindowWidth::new(width.as_millis() as i64);
            let width_ms = width_ms.ok_or_else(|| anyhow::anyhow!("--width {width:?} does not divide a day"))?;
            let (from, to) = loaded.windows(&stage::version(width_ms));
            let done = stage::run(&Order {
                stage: Stage::Rows,
                log: config.clone(),
                topic: TOPIC.to_owned(),
                partitions,
                events,
                from,
                to,
                width: width_ms,
                workers: 1,
                memory_bytes_max: 256 << 20,
                spill_dir: place.path().join("spill"),
            })?;
            measured.push((span, width, done));
        }
    }
    let cells = measured.iter().map(|(span, width, done)| {
        vec![
            humantime::format_duration(*span).to_string(),
            humantime::format_duration(*width).to_string(),
            format!("{:.2}", done.rows as f64 / done.events as f64),
            done.windows.to_string(),
            format!("{:.2}", done.events as f64 / done.usage.cpu_seconds / 1e6),
        ]
    });
    let header = ["span", "width", "rows per event", "windows", "M events/CPU-s, log to rows"];
    println!("{}", table(&header, cells.collect()));
    if args.traffic.json {
        let rows = measured.iter().map(|(span, width, done)| {
            json!({
                "span_s": span.as_secs(),
                "width_s": width.as_secs(),
                "rows_per_event": rounded(done.rows as f64 / done.events as f64),
                "windows": done.windows,
                "events_per_cpu_second": rounded(done.events as f64 / done.usage.cpu_seconds),
            })
        });
        let shape = format!("{:?}", args.traffic.shape).to_lowercase();
        println!(
            "{}",
            json!({"bench": "widths", "shape": shape, "events": args.traffic.events, "measured": rows.collect::<Vec<_>>()})
        );
    }
    Ok(ExitCode::SUCCESS)
}
