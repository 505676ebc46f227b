//! How fast an access log is read: `cargo run --release -p weir-import --example lines_per_second -- FILE [REPEAT]`.
//!
//! Prints lines a second and per CPU second for: cutting bytes into lines, a rehearsal (read, classify, cut URLs, hash
//! visitors), and an import into an embedded log with an fsync for each group of batches.

use std::{fs, io::Write, path::Path, sync::Arc, time::Instant};

use anyhow::Context;
use clap::Parser;
use futures::{FutureExt, future::BoxFuture};
use jiff::civil::Date;
use weir_import::{Environment, ImportCommand, LiveDays, PATIENCE};
use weir_log::{EmbeddedLog, SystemClock};
use weir_schemas::rules::Rules;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    command: ImportCommand,
}

struct NoDays;

impl LiveDays for NoDays {
    fn live_days<'a>(&'a self, _: &'a str, _: Date, _: Date) -> BoxFuture<'a, anyhow::Result<Vec<Date>>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().context("give an access log")?;
    let repeat: usize = arguments.next().map_or(Ok(1), |repeat| repeat.parse())?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("access.log");
    let content = fs::read(&source).with_context(|| source.clone())?;
    let mut out = fs::File::create(&file)?;
    (0..repeat).try_for_each(|_| out.write_all(&content))?;
    drop((out, content));

    let lines = measure("lines alone", || {
        let bytes = fs::read(&file)?;
        Ok(memchr::memchr_iter(b'\n', &bytes).count() as u64)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for (what, dry_run) in [("rehearsal", true), ("import", false)] {
        let imported = measure(what, || runtime.block_on(import(dir.path(), &file, dry_run)))?;
        anyhow::ensure!(imported == lines, "{what}: {imported} of {lines} lines");
    }
    Ok(())
}

async fn import(dir: &Path, file: &Path, dry_run: bool) -> anyhow::Result<u64> {
    let clock = Arc::new(SystemClock);
    let environment = Environment {
        log: Arc::new(EmbeddedLog::open(dir.join("log"), clock.clone())?),
        clock,
        who: "example".to_owned(),
        sites: Vec::new(),
        accept_any_site: true,
        mmdb: None,
        rules: Rules::version(1).context("rules")?,
        live_days: Arc::new(NoDays),
        patience: PATIENCE,
    };
    let rejects = dir.join("rejects").display().to_string();
    let file = file.display().to_string();
    let mut arguments = vec!["import", "--site", "blog.example", "--rejects", &rejects, &file];
    if dry_run {
        arguments.push("--dry-run");
    }
    let args = Cli::try_parse_from(arguments)?.command.files.context("a file was given")?;
    Ok(weir_import::import(args, environment).await?.lines)
}

fn measure(what: &str, work: impl FnOnce() -> anyhow::Result<u64>) -> anyhow::Result<u64> {
    let (begun, cpu_begun) = (Instant::now(), cpu_seconds()?);
    let lines = work()?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu_begun);
    let per = |seconds: f64| (lines as f64 / seconds.max(0.01)) as u64;
    println!("{what:12} {lines} lines, {seconds:.2} s, {} lines/s, {} lines per CPU second", per(seconds), per(cpu));
    Ok(lines)
}

/// What this process has used of all cores: fields 14 and 15 of `/proc/self/stat`, in hundredths of a second.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit(')').next().context("a name")?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).context("a field").and_then(|field| Ok(field.parse::<f64>()?));
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
