//! `weir status`: one snapshot, from the log alone.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use weir_log::{Clock, ControlLog, SystemClock};

use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Prints the snapshot; exit code 1 when a run has stopped and needs a person.
pub(crate) fn main(config: &Config, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let log = weir_log::open(&config.log_config(), Arc::new(SystemClock)).context("the log cannot be opened")?;
    let control = ControlLog::open(log.clone())?.read_all()?;
    let control: Vec<_> = control.records.into_iter().map(|(_, record)| record).collect();
    let snapshot = weir_console::observe(log.as_ref(), &control, SystemClock.now_ms())?;
    if args.json {
        println!("{}", serde_json::to_string(&snapshot)?);
    } else {
        println!("{}", weir_console::render(&snapshot));
    }
    let stopped = snapshot.runs.iter().filter_map(|run| run.progress.as_ref()).any(|run| run.stopped.is_some());
    Ok(if stopped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
