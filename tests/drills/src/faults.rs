//! What is done to weir while it works, drawn from a seed.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::runtime::Runtime;
use weir_log::{Clock as _, LogConfig, PartitionInUse, SystemClock};
use weir_schemas::{SchemaVersion, WindowStart, control::EVENTS_TOPIC};
use weir_sink::{Target, server::Server};

use crate::{
    load::Load,
    parts::{self, Broker},
    patience::{sleep, wait_for, wait_while_it_moves},
    process::{Process, signal},
    readers::Readers,
    site::Site,
};

/// Who is killed, and how many of a hundred kills are its.
const VICTIMS: [(u32, Victim); 5] = [
    (25, Victim::Collector),
    (30, Victim::Run),
    (20, Victim::ClickHouse),
    (15, Victim::Broker),
    (10, Victim::Pipeline),
];
/// Between the end of one fault and the next.
const PAUSE_MS: std::ops::Range<u64> = 200..2_500;
/// How long a broker or a ClickHouse is away, in a drill of five minutes or more; a shorter one has less.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// The file system that the spool has for itself.
const SPOOL_DISK_BYTES: u64 = 256 << 20;
/// What is left of it when it is filled up: some hundred batches.
const SPOOL_ROOM_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Collector,
    Run,
    ClickHouse,
    Broker,
    Pipeline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    BrokerAway,
    ClickHouseAway,
    RunStopped,
    DiskFull,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// SIGKILLs, all kinds together.
    pub(crate) kills: u64,
    pub(crate) of_collector: u64,
    pub(crate) of_run: u64,
    pub(crate) of_clickhouse: u64,
    pub(crate) of_broker: u64,
    pub(crate) of_pipeline: u64,
    /// Runs that were stopped until another had taken over, and went on then.
    pub(crate) takeovers: u64,
    /// Disks that were full.
    pub(crate) full_disks: u64,
}

/// Everything that can be hurt.
pub(crate) struct Stage<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) site: &'a Site,
    pub(crate) rng: StdRng,
    pub(crate) load: Load,
    pub(crate) readers: Readers,
    pub(crate) log: LogConfig,
    pub(crate) partitions: Vec<PartitionInUse>,
    /// Where the live run began.
    pub(crate) from: WindowStart,
    pub(crate) target: Target,
    pub(crate) clickhouse_dir: PathBuf,
    pub(crate) clickhouse_port: u16,
    pub(crate) clickhouse: Option<Server>,
    pub(crate) broker: Broker,
    pub(crate) collector: Process,
    pub(crate) pipeline: Process,
    pub(crate) disk: Option<Disk>,
    pub(crate) done: Done,
    pub(crate) begin: Instant,
}

impl<'a> Stage<'a> {
    /// Everything is started, `rate` events a second come in, and the first windows are in the table.
    pub(crate) fn start(
        runtime: &'a Runtime,
        site: &'a Site,
        broker: Broker,
        rate: f64,
        seed: u64,
    ) -> anyhow::Result<Stage<'a>> {
        let begin = Instant::now();
        let (clickhouse_dir, clickhouse_port) = (site.dir.join("clickhouse"), parts::free_port()?);
        let clickhouse = runtime.block_on(parts::clickhouse(&clickhouse_dir, clickhouse_port))?;
        let target = clickhouse.target().clone();
        let disk = Disk::mount(&site.spool())?;
        if disk.is_none() {
            eprintln!("drill: no file system can be mounted here: of the spool its bound is full, not its disk");
        }
        let mut collector = site.start_collector(&[])?;
        ready(runtime, site, &mut collector)?;
        let pipeline = site.start_pipeline("pipeline", &target)?;
        let log = LogConfig::Kafka { bootstrap: broker.bootstrap(), options: Default::default() };
        let partitions = partitions_in_use(&log)?;
        let from = first_window(&partitions, &site.version)?;
        let readers = Readers::start(runtime, site, &target, from)?;
        let load = Load::start(runtime, site, rate, seed)?;
        let mut stage = Stage {
            runtime,
            site,
            rng: StdRng::seed_from_u64(seed),
            load,
            readers,
            log,
            partitions,
            from,
            target,
            clickhouse_dir,
            clickhouse_port,
            clickhouse: Some(clickhouse),
            broker,
            collector,
            pipeline,
            disk,
            done: Done::default(),
            begin,
        };
        wait_while_it_moves("the first windows", || {
            stage.collector.lives()?;
            stage.pipeline.lives()?;
            let through_ms = stage.readers.seen.complete_through_ms.load(Ordering::SeqCst);
            let acknowledged = stage.load.known(|known| known.acknowledged_events);
            Ok(if through_ms > from.ms() && acknowledged > 0 { Ok(()) } else { Err((through_ms, acknowledged)) })
        })?;
        Ok(stage)
    }

    /// Hurts it for so long, and until there were so many kills.
    pub(crate) fn hurt(&mut self, duration: Duration, kills_min: u64) -> anyhow::Result<()> {
        let away = AWAY_MAX.min(duration / 10);
        let mut faults = [Fault::BrokerAway, Fault::ClickHouseAway, Fault::RunStopped, Fault::DiskFull];
        faults.shuffle(&mut self.rng);
        let begin = Instant::now();
        let mut next = 0;
        loop {
            let due = duration.mul_f64((next as f64 + 0.5) / (faults.len() as f64 + 1.0));
            if next < faults.len() && begin.elapsed() >= due {
                self.inflict(faults[next], away)?;
                next += 1;
            } else if begin.elapsed() >= duration && self.done.kills >= kills_min {
                return Ok(());
            } else {
                sleep(Duration::from_millis(self.rng.random_range(PAUSE_MS)))?;
                let victim = self.draw_victim();
                self.kill(victim)?;
            }
            self.collector.lives()?;
            self.pipeline.lives()?;
        }
    }

    fn draw_victim(&mut self) -> Victim {
        let mut at = self.rng.random_range(0..VICTIMS.iter().map(|(share, _)| share).sum());
        for (share, victim) in VICTIMS {
            if at < share {
                return victim;
            }
            at -= share;
        }
        unreachable!("it is below the sum")
    }

    pub(crate) fn say(&self, what: &str) {
        let events = self.load.known(|known| known.acknowledged_events);
        eprintln!("drill: {:6.1} s  {events:>7} events  {what}", self.begin.elapsed().as_secs_f64());
    }

    fn inflict(&mut self, fault: Fault, away: Duration) -> anyhow::Result<()> {
        match fault {
            Fault::BrokerAway => self.broker_away(away),
            Fault::ClickHouseAway => self.clickhouse_away(away),
            Fault::RunStopped => self.run_stopped(),
            Fault::DiskFull => self.disk_full(),
        }
    }

    /// Kills one, and waits until it is there again.
    pub(crate) fn kill(&mut self, victim: Victim) -> anyhow::Result<()> {
        self.say(&format!("SIGKILL to {victim:?}"));
        match victim {
            Victim::Collector => {
                self.kill_collector()?;
            }
            Victim::Run => {
                let killed = self.kill_run()?;
                wait_for("another run", || {
                    self.pipeline.lives()?;
                    Ok(self.pipeline.children("run").into_iter().find(|pid| *pid != killed))
                })?;
            }
            Victim::ClickHouse => {
                self.readers.seen.away(true);
                let server = self.clickhouse.as_ref().context("clickhouse is away")?;
                let killed = wait_for("clickhouse", || Ok(server.pid()))?;
                signal(killed as i32, libc::SIGKILL);
                self.done.of_clickhouse += 1;
                wait_for("clickhouse to be there again", || Ok(server.pid().filter(|pid| *pid != killed)))?;
                self.readers.seen.away(false);
            }
            Victim::Broker => {
                self.end_broker()?;
                self.broker.start_again()?;
            }
            Victim::Pipeline => {
                self.kill_pipeline()?;
                wait_for("a run of the pipeline", || {
                    self.pipeline.lives()?;
                    Ok(self.pipeline.children("run").first().copied())
                })?;
            }
        }
        self.count();
        Ok(())
    }

    /// Kills the supervisor, with its runs, and starts another one.
    pub(crate) fn kill_pipeline(&mut self) -> anyhow::Result<()> {
        self.pipeline.kill()?;
        self.done.of_pipeline += 1;
        self.count();
        self.pipeline = self.site.start_pipeline("pipeline", &self.target)?;
        Ok(())
    }

    fn count(&mut self) {
        let Done { of_collector, of_run, of_clickhouse, of_broker, of_pipeline, .. } = self.done;
        self.done.kills = of_collector + of_run + of_clickhouse + of_broker + of_pipeline;
    }

    fn kill_collector(&mut self) -> anyhow::Result<()> {
        self.collector.kill()?;
        self.done.of_collector += 1;
        self.count();
        self.collector = self.site.start_collector(&[])?;
        ready(self.runtime, self.site, &mut self.collector)
    }

    /// Kills the live run, once there is one; its process id.
    fn kill_run(&mut self) -> anyhow::Result<i32> {
        let pid = wait_for("a run", || Ok(self.pipeline.children("run").first().copied()))?;
        signal(pid, libc::SIGKILL);
        self.done.of_run += 1;
        self.count();
        Ok(pid)
    }

    /// The broker is gone for a while, in which the collector is killed, and the run.
    fn broker_away(&mut self, away: Duration) -> anyhow::Result<()> {
        self.say(&format!("the broker is away for {} s; meanwhile SIGKILL to Collector and Run", away.as_secs()));
        let begin = Instant::now();
        self.end_broker()?;
        sleep(away / 3)?;
        self.kill_collector()?;
        self.kill_run()?;
        sleep(away.saturating_sub(begin.elapsed()))?;
        self.broker.start_again()
    }

    /// ClickHouse is gone for a while, in which the run is killed.
    fn clickhouse_away(&mut self, away: Duration) -> anyhow::Result<()> {
        self.say(&format!("ClickHouse is away for {} s; meanwhile SIGKILL to Run", away.as_secs()));
        self.readers.seen.away(true);
        self.end_clickhouse()?;
        sleep(away / 2)?;
        self.kill_run()?;
        sleep(away / 2)?;
        self.start_clickhouse()?;
        self.readers.seen.away(false);
        Ok(())
    }

    /// SIGKILL to ClickHouse, which nobody starts again.
    pub(crate) fn end_clickhouse(&mut self) -> anyhow::Result<()> {
        let server = self.clickhouse.take().context("clickhouse is away")?;
        self.runtime.block_on(server.stop());
        self.done.of_clickhouse += 1;
        self.count();
        Ok(())
    }

    /// On the same folder and port.
    pub(crate) fn start_clickhouse(&mut self) -> anyhow::Result<()> {
        let again = parts::clickhouse(&self.clickhouse_dir, self.clickhouse_port);
        self.clickhouse = Some(self.runtime.block_on(again)?);
        Ok(())
    }

    /// SIGKILL to the broker, which nobody starts again.
    pub(crate) fn end_broker(&mut self) -> anyhow::Result<()> {
        self.broker.kill()?;
        self.done.of_broker += 1;
        self.count();
        Ok(())
    }

    /// The run stands still until one of another pipeline has taken over, and then goes on, not knowing.
    fn run_stopped(&mut self) -> anyhow::Result<()> {
        self.say("SIGSTOP to Run, until a run of a second pipeline has taken over; then SIGCONT");
        let pid = wait_for("a run", || Ok(self.pipeline.children("run").first().copied()))?;
        signal(pid, libc::SIGSTOP);
        let mut second = self.site.start_pipeline("second", &self.target)?;
        self.windows_from_now_on("another run to take over", Some(&mut second))?;
        signal(pid, libc::SIGCONT);
        self.windows_from_now_on("windows after it", Some(&mut second))?;
        self.done.takeovers += 1;
        second.stop()
    }

    /// Waits until windows that have only begun now are in the table: through when it is complete then.
    pub(crate) fn windows_from_now_on(&mut self, what: &str, mut second: Option<&mut Process>) -> anyhow::Result<i64> {
        let (seen, now_ms) = (self.readers.seen.clone(), SystemClock.now_ms());
        wait_while_it_moves(what, || {
            self.pipeline.lives()?;
            second.as_mut().map_or(Ok(()), |second| second.lives())?;
            let through_ms = seen.complete_through_ms.load(Ordering::SeqCst);
            Ok(if through_ms > now_ms { Ok(through_ms) } else { Err(through_ms) })
        })
    }

    /// The broker is away, and the spool's disk has no room: clients are told to wait. Then the collector is killed on it.
    fn disk_full(&mut self) -> anyhow::Result<()> {
        self.say("the spool's disk is full while the broker is away; then SIGKILL to Collector");
        match &mut self.disk {
            Some(disk) => disk.fill()?,
            None => {
                // Without a disk of its own the spool's bound is what is full.
                self.collector.kill()?;
                self.done.of_collector += 1;
                let bound = format!("ingest.spool.bytes_max={}", 2 * SPOOL_ROOM_BYTES);
                self.collector = self.site.start_collector(&[bound])?;
                ready(self.runtime, self.site, &mut self.collector)?;
            }
        }
        let before = self.load.known(|known| known.told_to_wait);
        self.end_broker()?;
        let load = &self.load;
        wait_while_it_moves("clients to be told to wait", || {
            let (told, acknowledged) = load.known(|known| (known.told_to_wait, known.acknowledged_events));
            Ok(if told > before { Ok(()) } else { Err(acknowledged) })
        })?;
        self.done.full_disks += 1;
        self.kill_collector()?;
        self.broker.start_again()?;
        self.drained()?;
        if let Some(disk) = &mut self.disk {
            disk.clear()?;
        }
        Ok(())
    }

    /// Waits until nothing is left in the spool.
    pub(crate) fn drained(&mut self) -> anyhow::Result<()> {
        let seen = self.readers.seen.clone();
        wait_while_it_moves("the spool to be drained", || {
            self.collector.lives()?;
            let spooled = seen.spooled.load(Ordering::SeqCst);
            Ok(if spooled == 0 { Ok(()) } else { Err(spooled) })
        })
    }
}

/// The first window of this version's live run.
pub(crate) fn first_window(partitions: &[PartitionInUse], version: &SchemaVersion) -> anyhow::Result<WindowStart> {
    let first_ms = partitions.iter().map(|in_use| in_use.effective_ms).min().context("no partition is in use")?;
    Ok(version.width.window_of(first_ms - version.lateness_ms))
}

/// Partitions in use, once the control topic tells them.
fn partitions_in_use(log: &LogConfig) -> anyhow::Result<Vec<PartitionInUse>> {
    let log = weir_log::open(log, Arc::new(SystemClock))?;
    wait_for("the collector to make its topics", || {
        if log.partitions(EVENTS_TOPIC).is_err() {
            return Ok(None);
        }
        let Ok(all) = weir_log::ControlLog::open(log.clone()).and_then(|control| control.read_all()) else {
            return Ok(None);
        };
        let in_use = weir_log::partitions_in_use(all.records.iter().map(|(_, record)| record));
        Ok((!in_use.is_empty()).then_some(in_use))
    })
}

/// Waits until the collector takes requests.
fn ready(runtime: &Runtime, site: &Site, collector: &mut Process) -> anyhow::Result<()> {
    let url = format!("http://{}/readyz", site.collector);
    wait_for("the collector", || {
        collector.lives()?;
        Ok(answers(runtime, &url).then_some(()))
    })
}

fn answers(runtime: &Runtime, url: &str) -> bool {
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(parts::ANSWER_WAIT).build();
        let Ok(client) = client else { return false };
        client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    })
}

/// A small file system for the spool alone.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// `None` for who may not mount one.
    pub(crate) fn mount(path: &Path) -> anyhow::Result<Option<Disk>> {
        std::fs::create_dir_all(path)?;
        let target = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        let size = std::ffi::CString::new(format!("size={SPOOL_DISK_BYTES}"))?;
        // SAFETY: all pointers are to strings that outlive the call.
        let mounted =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, size.as_ptr().cast()) };
        Ok((mounted == 0).then(|| Disk { path: path.to_owned() }))
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves some room, so that something is acknowledged before it is full.
    fn fill(&mut self) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast())?;
        let chunk = vec![1; 1 << 16];
        let mut left = self.free_bytes()?;
        ensure!(left > SPOOL_ROOM_BYTES, "the spool's disk has {left} bytes left");
        while left > SPOOL_ROOM_BYTES + chunk.len() as u64 {
            file.write_all(&chunk)?;
            left = self.free_bytes()?;
        }
        Ok(())
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn free_bytes(&self) -> anyhow::Result<u64> {
        let path = std::ffi::CString::new(self.path.as_os_str().as_encoded_bytes())?;
        let mut stat = std::mem::MaybeUninit::uninit();
        // SAFETY: both pointers are valid; `stat` is filled when the call gives 0.
        unsafe {
            ensure!(
                libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) == 0,
                "statvfs: {}",
                std::io::Error::last_os_error()
            );
            let stat: libc::statvfs = stat.assume_init();
            Ok(stat.f_bavail * stat.f_frsize)
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(path) = std::ffi::CString::new(self.path.as_os_str().as_encoded_bytes()) {
            // SAFETY: a plain call. Detached: it is gone for all, also while a killed process still holds a file.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
