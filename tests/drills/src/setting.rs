//! What every drill of processes under load has: a folder, signals that end it, nothing left behind.

use std::path::Path;

use anyhow::ensure;
use tokio::runtime::Runtime;

use crate::{
    parts,
    patience::heed_signals,
    process::{Orphans, last_lines},
};

/// Flags of such a drill.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// The same seed draws the same again; drawn if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Leaves the folder with what the processes said
    #[arg(long)]
    keep: bool,
    /// The last line is one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs `drill` in a folder of its own, with the seed: whether all that was promised held.
pub(crate) fn play(
    name: &str,
    minutes: f64,
    flags: &Flags,
    drill: impl FnOnce(&Runtime, &Path, u64) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    ensure!(minutes > 0.0 && minutes <= 24.0 * 60.0, "--minutes {minutes} is not between 0 and 1440");
    parts::check()?;
    let seed = flags.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    eprintln!("drill: {name}, seed {seed}, {minutes} minutes");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    heed_signals(&runtime)?;
    let mut dir = tempfile::Builder::new().prefix("weir-drill-").tempdir()?;
    dir.disable_cleanup(flags.keep);
    let _orphans = Orphans::adopt();
    let drilled = drill(&runtime, dir.path(), seed);
    if flags.keep {
        eprintln!("drill: what the processes said is in {}", dir.path().display());
    } else if drilled.is_err() {
        for name in ["collector.log", "pipeline.log", "second.log", "replay/run.log", "broker.log"] {
            eprintln!("drill: the end of {name}:\n{}", last_lines(&dir.path().join(name)));
        }
    }
    drilled
}
