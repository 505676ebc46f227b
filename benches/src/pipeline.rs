//! `pipeline`: a backlog from real Kafka into real ClickHouse, and each stage before it alone.
//!
//! ```text
//!  Kafka ─▶ consume                             the records, nothing done with them
//!        ─▶ decode                              and their columns and strings
//!        ─▶ without sink                        and windows, and rows
//!        ─▶ whole job (weir run) ─▶ ClickHouse  and written, asked for, recorded
//!        ─▶ plain                               JSON, one event a record, one count: the reference
//! ```

use std::{
    io::Write as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weir_drills::{
    parts::{self, Broker},
    report::thousands,
};
use weir_log::{ControlLog, LogConfig, SystemClock, ensure_partitions_in_use};
use weir_schemas::{SchemaVersion, control::CONTROL_TOPIC};
use weir_sink::Target;

use crate::{
    args::{self, TrafficArgs},
    load::{Loaded, load},
    plain,
    report::{rounded, table},
    stage::{self, Done, Order, Stage},
    traffic::{BEGIN_MS, Traffic},
    usage::{self, Machine, Usage},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// How much event time the traffic covers
    #[arg(long, value_parser = args::span, default_value = "2h", value_name = "DURATION")]
    span: Duration,
    /// Events of the plain loop's topic; its figure is per event
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    plain_events: u64,
    /// Workers of a run
    #[arg(long, default_value_t = 1, value_name = "N")]
    workers: usize,
    /// Memory for open windows, bytes
    #[arg(long, default_value_t = 256 << 20, value_name = "BYTES")]
    memory_bytes_max: usize,
}

const TOPIC: &str = "bench.events";
const PLAIN_TOPIC: &str = "bench.plain";

/// More of the CPU than this stolen, and the figures are said to be disturbed.
const STOLEN_PERCENT_MAX: f64 = 5.0;

/// The whole job's figures.
struct Job {
    done: Done,
    clickhouse_cpu_seconds: f64,
    broker_cpu_seconds: f64,
    table_bytes: u64,
    page_views: u64,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    parts::check()?;
    let dir = tempfile::Builder::new().prefix("weir-bench-").tempdir()?;
    let version = SchemaVersion::builtin(1).context("this binary carries version 1")?;
    let broker = Broker::start(dir.path())?;
    let machine = Machine::now()?;
    let config = LogConfig::Kafka { bootstrap: broker.bootstrap(), options: Default::default() };
    let log = weir_log::open(&config, Arc::new(SystemClock))?;
    let TrafficArgs { events, shape, batch, partitions, json } = args.traffic;
    let width = Duration::from_millis(version.width.ms() as u64);
    eprintln!("bench: {} events into Kafka …", thousands(events as f64));
    let loaded = load(log.as_ref(), TOPIC, partitions, Traffic::new(shape, events, args.span), batch, width)?;
    let plain_bytes =
        plain::load(log.as_ref(), PLAIN_TOPIC, partitions, Traffic::new(shape, args.plain_events, args.span))?;
    // A run goes on only with the partitions that are in use by the control topic.
    let control = ControlLog::open_topics(log.clone(), CONTROL_TOPIC, TOPIC)?;
    ensure_partitions_in_use(&control, "bench", partitions, BEGIN_MS)?;
    drop((control, log));

    let (from, to) = loaded.windows(&version);
    let order = Order {
        stage: Stage::Consume,
        log: config.clone(),
        topic: TOPIC.to_owned(),
        partitions,
        events,
        from,
        to,
        width: version.width,
        workers: args.workers,
        memory_bytes_max: args.memory_bytes_max,
        spill_dir: dir.path().join("spill"),
    };
    let run = |stage| {
        eprintln!("bench: {stage:?} …");
        stage::run(&Order { stage, ..order.clone() })
    };
    // The reference before and after, so that a machine that grows slower meanwhile does not flatter either side.
    let plain = |order: &Order| {
        eprintln!("bench: Plain …");
        let (stage, topic, events) = (Stage::Plain, PLAIN_TOPIC.to_owned(), args.plain_events);
        stage::run(&Order { stage, topic, events, ..order.clone() })
    };
    let before = plain(&order)?;
    let (consume, decode, rows) = (run(Stage::Consume)?, run(Stage::Decode)?, run(Stage::Rows)?);
    eprintln!("bench: whole job …");
    let job = job(dir.path(), &order, &version, &broker)?;
    let after = plain(&order)?;
    let plain = Done {
        events: before.events + after.events,
        seconds: before.seconds + after.seconds,
        usage: Usage {
            cpu_seconds: before.usage.cpu_seconds + after.usage.cpu_seconds,
            peak_rss_mb: before.usage.peak_rss_mb.max(after.usage.peak_rss_mb),
        },
        ..Done::default()
    };
    let stolen = machine.stolen_percent_since()?;
    let stages =
        [("plain", plain), ("consume", consume), ("decode", decode), ("without_sink", rows), ("whole_job", job.done)];
    print_table(&stages, &job, &loaded, stolen);
    let counted = job.page_views == loaded.page_views;
    if !counted {
        eprintln!("bench: ClickHouse holds {} page views, {} were sent", job.page_views, loaded.page_views);
    }
    if json {
        println!("{}", report(args, &stages, &job, &loaded, stolen, plain_bytes));
    }
    Ok(if counted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The run as the supervisor would start it, over a fresh ClickHouse.
fn job(dir: &Path, order: &Order, version: &SchemaVersion, broker: &Broker) -> anyhow::Result<Job> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let server = parts::clickhouse(&dir.join("clickhouse"), 0).await?;
        let target = server.target();
        weir_sink::prepare(target, version).await?;
        let pid = server.pid().context("clickhouse has gone")?;
        let broker_pid = broker.pid().context("kafka has gone")?;
        let before = (usage::cpu_seconds_of(pid)?, usage::cpu_seconds_of(broker_pid)?);
        let begin = Instant::now();
        let usage = run_to_its_end(order, target)?;
        let seconds = begin.elapsed().as_secs_f64();
        let (clickhouse, kafka) = (usage::cpu_seconds_of(pid)?, usage::cpu_seconds_of(broker_pid)?);
        let sql = "SELECT count(), sumIf(page_views, dimension = 'site'), uniqExact(emitted_in) FROM weir.stats_v1";
        let (rows, page_views, windows) = target.client().query(sql).fetch_one::<(u64, u64, u64)>().await?;
        let sql =
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'weir' AND table = 'stats_v1' AND active";
        let table_bytes = target.client().query(sql).fetch_one::<u64>().await?;
        server.stop().await;
        Ok(Job {
            done: Done { events: order.events, windows, rows, seconds, usage },
            clickhouse_cpu_seconds: clickhouse - before.0,
            broker_cpu_seconds: kafka - before.1,
            table_bytes,
            page_views,
        })
    })
}

fn run_to_its_end(order: &Order, target: &Target) -> anyhow::Result<Usage> {
    let mut child = Command::new(parts::weir()?)
        .arg("run")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::piped())
        // Its metrics, which nobody here asks for.
        .stdout(Stdio::null())
        .spawn()
        .context("`weir run` cannot be started")?;
    // What the supervisor says to a run: `RunOrder` of the `weir` command.
    let partitions: Vec<(u32, i64)> = (0..order.partitions).map(|partition| (partition, BEGIN_MS)).collect();
    let said = json!({
        "run": "live",
        "origin": "",
        "topic": order.topic,
        "import": false,
        "from": order.from,
        "to": order.to,
        "partitions": partitions,
        "log": order.log,
        "target": target,
        "schema_text": SchemaVersion::builtin_text(1),
        "workers": order.workers,
        "memory_bytes_max": order.memory_bytes_max,
        "spill_dir": order.spill_dir,
        "tick_after_ms": 3_600_000,
    });
    // Kept open: its end would ask the run to stop.
    let mut lifeline = child.stdin.take().context("the run has no standard input")?;
    writeln!(lifeline, "{said}")?;
    let (status, usage) = usage::wait(child)?;
    ensure!(status.success(), "the run failed: {status}");
    Ok(usage)
}

fn per_cpu_second(done: &Done) -> f64 {
    done.events as f64 / done.usage.cpu_seconds
}

fn print_table(stages: &[(&str, Done)], job: &Job, loaded: &Loaded, stolen: f64) {
    let plain = per_cpu_second(&stages[0].1);
    let rows = stages.iter().map(|(name, done)| {
        vec![
            name.replace('_', " "),
            thousands(rounded(per_cpu_second(done))),
            format!("{:.2}", per_cpu_second(done) / plain),
            thousands(rounded(done.events as f64 / done.seconds)),
            done.usage.peak_rss_mb.to_string(),
        ]
    });
    println!("{}", table(&["stage", "events/CPU-s", "× plain", "events/s", "peak MB"], rows.collect()));
    let events = loaded.events as f64;
    println!(
        "{} windows, {:.2} rows an event, {:.0} B an event in Kafka, {:.0} B in the table; beside the job, Kafka took \
         {:.1} CPU-s and ClickHouse {:.1}; {stolen:.1} % of the CPU was stolen{}",
        job.done.windows,
        job.done.rows as f64 / events,
        loaded.bytes as f64 / events,
        job.table_bytes as f64 / events,
        job.broker_cpu_seconds,
        job.clickhouse_cpu_seconds,
        if stolen > STOLEN_PERCENT_MAX { ": disturbed, run it again" } else { "" },
    );
}

fn report(args: &Args, stages: &[(&str, Done)], job: &Job, loaded: &Loaded, stolen: f64, plain_bytes: u64) -> Value {
    let events = loaded.events as f64;
    let plain = per_cpu_second(&stages[0].1);
    let decode = per_cpu_second(&stages[2].1);
    let each = stages.iter().map(|(name, done)| {
        let figures = json!({
            "events_per_cpu_second": rounded(per_cpu_second(done)),
            "events_per_second": rounded(done.events as f64 / done.seconds),
            "ratio_to_plain": rounded(per_cpu_second(done) / plain),
            "ratio_to_decode": rounded(per_cpu_second(done) / decode),
            "cpu_seconds": rounded(done.usage.cpu_seconds),
            "peak_rss_mb": done.usage.peak_rss_mb,
        });
        ((*name).to_owned(), figures)
    });
    json!({
        "bench": "pipeline",
        "shape": format!("{:?}", args.traffic.shape).to_lowercase(),
        "events": loaded.events,
        "span_s": args.span.as_secs(),
        "batch_events": args.traffic.batch,
        "workers": args.workers,
        "stages": each.collect::<serde_json::Map<_, _>>(),
        "events_per_cpu_second": rounded(per_cpu_second(&job.done)),
        "events_per_second": rounded(events / job.done.seconds),
        "ratio_to_plain": rounded(per_cpu_second(&job.done) / plain),
        "ratio_to_decode": rounded(per_cpu_second(&job.done) / decode),
        "windows": job.done.windows,
        "rows_per_event": rounded(job.done.rows as f64 / events),
        "log_bytes_per_event": rounded(loaded.bytes as f64 / events),
        "plain_bytes_per_event": rounded(plain_bytes as f64 / args.plain_events as f64),
        "table_bytes_per_event": rounded(job.table_bytes as f64 / events),
        "peak_rss_mb": job.done.usage.peak_rss_mb,
        "broker_cpu_seconds": rounded(job.broker_cpu_seconds),
        "clickhouse_cpu_seconds": rounded(job.clickhouse_cpu_seconds),
        "page_views": job.page_views,
        "page_views_sent": loaded.page_views,
        "steal_percent": rounded(stolen),
        "disturbed": stolen > STOLEN_PERCENT_MAX,
    })
}
