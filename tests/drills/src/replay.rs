//! `./dev drill replay`: one log, replayed over and over, each time otherwise; the tables must all be the same, and the
//! oracle's.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::runtime::Runtime;
use weir_log::{ControlLog, Log, LogConfig, SystemClock, ensure_partitions_in_use};
use weir_schemas::{SchemaVersion, WindowStart, control::EVENTS_TOPIC};
use weir_sink::{Between, Content, Target};

use crate::{
    compare::differs_from_oracle,
    parts::{self, Broker},
    patience::{heed_signals, sleep, wait_while_it_moves},
    process::Orphans,
    report::{Report, seconds},
    runs::{Order, Run},
    traffic::{self, BEGIN_MS, Written},
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many replays
    #[arg(long, default_value_t = 50, value_name = "N")]
    runs: u64,
    /// How many events the log has, without copies
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    events: u64,
    /// How many windows they lie in
    #[arg(long, default_value_t = 200, value_name = "N")]
    windows: u64,
    #[arg(long, default_value_t = 8, value_name = "N")]
    partitions: u32,
    /// The same seed makes the same log, and draws the same replays; drawn if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// The last line is one JSON object
    #[arg(long)]
    json: bool,
}

const WORKERS_MAX: u64 = 4;
/// Memory of a run, MiB: with it the size of its batches, and whether windows are spilled.
const MEMORY_MIB: [usize; 5] = [16, 32, 64, 128, 512];
/// Interruptions of one replay.
const INTERRUPTIONS_MAX: u64 = 4;
/// How long a run that is paused stands still.
const PAUSE_MS: std::ops::Range<u64> = 100..1_500;
/// How long a replay takes, before one has told.
const FIRST_GUESS: Duration = Duration::from_secs(10);
/// A run is asked how far it is after so many looks at its process.
const LOOKS: u64 = 20;
/// Replays among which there are kills and stops, however they are drawn.
const RUNS_INTERRUPTED: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
    /// SIGKILL; it is started again.
    Kill,
    /// Its lifeline ends: it stops at its next batch boundary, and is started again.
    Stop,
    /// SIGSTOP, and after a while SIGCONT.
    Pause,
}

/// What one replay was like.
#[derive(Debug, Default)]
struct Replayed {
    workers: Vec<u64>,
    memory_mib: Vec<usize>,
    kills: u64,
    stops: u64,
    pauses: u64,
    content: Content,
    page_views: u64,
    /// Of the first replay alone: the others have the same digest.
    differs_from_oracle: Option<String>,
    took: Duration,
}

/// Where, and over what.
struct Stage<'a> {
    runtime: &'a Runtime,
    dir: &'a Path,
    version: SchemaVersion,
    log: Arc<dyn Log>,
    order: Order,
    /// How long the last replay took.
    guess: Duration,
}

/// Whether all replays gave the same table, the oracle's.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.runs > 0 && args.events > 0 && args.windows > 0, "--runs, --events and --windows are at least 1");
    ensure!(args.partitions > 1, "--partitions {} is not at least 2", args.partitions);
    parts::check()?;
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    eprintln!("drill: replay, seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    heed_signals(&runtime)?;
    let dir = tempfile::Builder::new().prefix("weir-drill-").tempdir()?;
    let _orphans = Orphans::adopt();
    drill(args, seed, &runtime, dir.path())
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let begin = Instant::now();
    let version = SchemaVersion::builtin(1).context("this binary carries version 1")?;
    let broker = Broker::start(dir)?;
    let server = runtime.block_on(parts::clickhouse(&dir.join("clickhouse"), 0))?;
    let log = LogConfig::Kafka { bootstrap: broker.bootstrap(), options: Default::default() };
    let opened = weir_log::open(&log, Arc::new(SystemClock))?;
    let written =
        traffic::write(opened.as_ref(), EVENTS_TOPIC, (args.events, args.partitions, args.windows), &version, seed)?;
    let control = ControlLog::open(opened.clone())?;
    let partitions = ensure_partitions_in_use(&control, "drill", args.partitions, BEGIN_MS)?;
    drop(control);
    let order = Order {
        run: "replay".to_owned(),
        origin: String::new(),
        topic: EVENTS_TOPIC.to_owned(),
        from: version.width.window_of(BEGIN_MS - version.lateness_ms),
        to: version.width.window_of(written.end_ms - version.lateness_ms),
        partitions,
        log,
        target: server.target().clone(),
        schema_text: SchemaVersion::builtin_text(1).context("version 1 is carried")?.to_owned(),
        workers: 1,
        memory_bytes_max: 0,
        dir: dir.to_owned(),
    };
    let Written { events, late, copies, records, .. } = written;
    eprintln!("drill: {events} events and {copies} copies in {records} records, {late} late, after {} s", {
        begin.elapsed().as_secs()
    });
    println!("{}", heading());
    let mut stage = Stage { runtime, dir, version, log: opened, order, guess: FIRST_GUESS };
    let mut replays = Vec::new();
    for number in 0..args.runs {
        let replayed = stage.replay(number, seed)?;
        println!("{}", line(number, &replayed));
        replays.push(replayed);
    }
    let sum = |of: fn(&Replayed) -> u64| replays.iter().map(of).sum::<u64>();
    let digests: BTreeSet<(u64, u64)> =
        replays.iter().map(|replayed| (replayed.content.rows, replayed.content.digest)).collect();
    let views: BTreeSet<u64> = replays.iter().map(|replayed| replayed.page_views).collect();
    let whole = views.iter().eq([&written.page_views]);
    let interrupted = args.runs < RUNS_INTERRUPTED || sum(|of| of.kills) > 0 && sum(|of| of.stops) > 0;
    let difference = replays.iter().find_map(|replayed| replayed.differs_from_oracle.as_deref());
    let (rows, digest) = digests.first().copied().unwrap_or_default();
    let mut report = Report::default();
    report.add("drill", "replay", "");
    report.add("seed", seed, "makes the same log, and draws the same replays again");
    report.add("runs", replays.len(), "replays");
    report.add("digests", digests.len(), "different tables");
    report.add("events", written.events, "in the log, without copies");
    report.add("copies", written.copies, "");
    report.add("late", written.late, "later than a window waits");
    report.add("windows", args.windows, "");
    report.add("partitions", args.partitions, "");
    report.add("kills", sum(|replayed| replayed.kills), "SIGKILLs");
    report.add("stops", sum(|replayed| replayed.stops), "at a batch boundary");
    report.add("pauses", sum(|replayed| replayed.pauses), "SIGSTOP, then SIGCONT");
    report.add("page_views_sent", written.page_views, "");
    report.add("page_views", views.first().copied().unwrap_or_default(), "in the table");
    report.add("rows", rows, "");
    report.add("digest", format!("{digest:016x}"), "");
    report.add("oracle_equal", difference.is_none(), "row by row with the plainest recomputation");
    report.add("seconds", seconds(begin.elapsed()), "");
    report.print(args.json);
    if let Some(difference) = difference {
        eprintln!("drill: not what the oracle says: {difference}");
    }
    if !interrupted {
        eprintln!("drill: {} replays, and none was killed, or none was stopped", args.runs);
    }
    Ok(digests.len() == 1 && whole && difference.is_none() && interrupted)
}

impl Stage<'_> {
    /// One replay, into a database of its own, which goes afterwards.
    fn replay(&mut self, number: u64, seed: u64) -> anyhow::Result<Replayed> {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(1 + number));
        let target = Target { database: format!("replay_{number}"), ..self.order.target.clone() };
        self.runtime.block_on(weir_sink::prepare(&target, &self.version))?;
        let dir = self.dir.join(format!("replay-{number}"));
        let mut replayed = Replayed::default();
        let begin = Instant::now();
        let mut left = rng.random_range(0..=INTERRUPTIONS_MAX);
        loop {
            // Each number of workers is the first of some replay.
            let first = replayed.workers.is_empty();
            let workers = if first { 1 + number % WORKERS_MAX } else { rng.random_range(1..=WORKERS_MAX) };
            let memory_mib = MEMORY_MIB[rng.random_range(0..MEMORY_MIB.len())];
            replayed.workers.push(workers);
            replayed.memory_mib.push(memory_mib);
            let order = Order {
                // What another has reported of its tables is not held against this one's.
                run: format!("replay-{number}"),
                workers: workers as usize,
                memory_bytes_max: memory_mib << 20,
                target: target.clone(),
                dir: dir.clone(),
                ..self.order.clone()
            };
            let mut run = Run::start(&order)?;
            let mut over = false;
            while left > 0 && !over {
                left -= 1;
                let share = rng.random_range(0.02..0.6);
                over = self.lives_for(&mut run, self.guess.mul_f64(share))?;
                if over {
                    break;
                }
                match [Interruption::Kill, Interruption::Stop, Interruption::Pause][rng.random_range(0..3)] {
                    Interruption::Kill => {
                        run.kill()?;
                        replayed.kills += 1;
                        break;
                    }
                    Interruption::Stop => {
                        run.ask_to_stop();
                        replayed.stops += 1;
                        break;
                    }
                    Interruption::Pause => {
                        run.signal(libc::SIGSTOP);
                        sleep(Duration::from_millis(rng.random_range(PAUSE_MS)))?;
                        run.signal(libc::SIGCONT);
                        replayed.pauses += 1;
                    }
                }
            }
            self.ends(&mut run, &order)?;
            if self.through(&order)? >= self.order.to {
                break;
            }
        }
        replayed.took = begin.elapsed();
        self.guess = replayed.took;
        if number == 0 {
            let (log, order, to_ms) = (&self.log, &self.order, self.order.to.ms());
            let differs = differs_from_oracle(log, &order.topic, &order.partitions, &target, &self.version, to_ms);
            replayed.differs_from_oracle = self.runtime.block_on(differs)?;
        }
        self.read(&target, &mut replayed)?;
        std::fs::remove_dir_all(&dir)?;
        Ok(replayed)
    }

    /// Leaves it alone for so long; whether it has ended meanwhile.
    fn lives_for(&self, run: &mut Run, duration: Duration) -> anyhow::Result<bool> {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            if run.ended()?.is_some() {
                return Ok(true);
            }
            sleep(Duration::from_millis(20))?;
        }
        Ok(false)
    }

    /// Waits until its process has ended, however it was made to.
    fn ends(&self, run: &mut Run, order: &Order) -> anyhow::Result<()> {
        let (mut looks, mut through) = (0, self.order.from);
        wait_while_it_moves("a replay", || {
            looks += 1;
            if looks % LOOKS == 0 {
                through = self.through(order)?;
            }
            Ok(run.ended()?.map(drop).ok_or(through))
        })
        .with_context(|| format!("its run said last:\n{}", run.last_lines()))
    }

    fn through(&self, order: &Order) -> anyhow::Result<WindowStart> {
        let through = weir_sink::checkpoint(&order.target, &order.run, &self.version, "", order.from);
        Ok(self.runtime.block_on(through)?)
    }

    /// What the table holds; then it goes.
    fn read(&self, target: &Target, replayed: &mut Replayed) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            for (_, content) in weir_sink::contents(target, &self.version, Between::default()).await? {
                replayed.content += content;
            }
            let client = target.client();
            let sql = format!("SELECT sum(page_views) FROM {}.stats_v1 WHERE dimension = 'site'", target.database);
            replayed.page_views = client.query(&sql).fetch_one().await?;
            client.query(&format!("DROP DATABASE {} SYNC", target.database)).execute().await?;
            Ok(())
        })
    }
}

fn heading() -> String {
    format!(
        "{:>4}  {:<14} {:<22} {:>5} {:>5} {:>6} {:>8} {:>10}  digest",
        "run", "workers", "memory MiB", "kills", "stops", "pauses", "seconds", "rows"
    )
}

fn line(number: u64, replayed: &Replayed) -> String {
    let Replayed { workers, memory_mib, kills, stops, pauses, content, took, .. } = replayed;
    let join = |numbers: Vec<String>| numbers.join(" ");
    format!(
        "{:>4}  {:<14} {:<22} {kills:>5} {stops:>5} {pauses:>6} {:>8.1} {:>10}  {:016x}",
        number + 1,
        join(workers.iter().map(u64::to_string).collect()),
        join(memory_mib.iter().map(usize::to_string).collect()),
        took.as_secs_f64(),
        content.rows,
        content.digest
    )
}
