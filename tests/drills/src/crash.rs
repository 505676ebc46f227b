//! `./dev drill crash`: everything is killed, over and over, under load; then every event that was acknowledged is looked for.

use std::{path::Path, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    ending::{EVENTS_MIN, Ending},
    faults::{Done, Stage},
    parts::Broker,
    report::Report,
    setting::{Flags, play},
    site::Site,
};

/// Flags of the drill.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long weir is hurt; longer if there were too few kills, or too few events, by then
    #[arg(long, default_value_t = 5.0, value_name = "M")]
    minutes: f64,
    #[command(flatten)]
    flags: Flags,
}

/// Kills in a minute, at least.
const KILLS_A_MINUTE: f64 = 6.0;

/// Whether all that was promised held.
pub fn main(args: &Args) -> anyhow::Result<bool> {
    play("crash", args.minutes, &args.flags, |runtime, dir, seed| drill(args, seed, runtime, dir))
}

fn drill(args: &Args, seed: u64, runtime: &Runtime, dir: &Path) -> anyhow::Result<bool> {
    let duration = Duration::from_secs_f64(60.0 * args.minutes);
    let kills_min = (KILLS_A_MINUTE * args.minutes).ceil() as u64;
    let broker = Broker::start(dir)?;
    let site = Site::new(dir, &broker.bootstrap())?;
    // Half as many again as are needed, if all goes well.
    let rate = 1.5 * EVENTS_MIN as f64 / duration.as_secs_f64();
    let mut stage = Stage::start(runtime, &site, broker, rate, seed)?;
    stage.hurt(duration, kills_min)?;
    stage.say("nothing is hurt any more");
    let done = stage.done;
    let ending = Ending::reach(stage, |stage| Ok(stage.from))?;
    let mut report = Report::default();
    report.add("drill", "crash", "");
    report.add("seed", seed, "draws the same faults again");
    ending.add_to(&mut report);
    let Done { of_collector, of_run, of_clickhouse, of_broker, of_pipeline, takeovers, full_disks, kills } = done;
    report.add("kills_collector", of_collector, "");
    report.add("kills_run", of_run, "");
    report.add("kills_clickhouse", of_clickhouse, "");
    report.add("kills_broker", of_broker, "");
    report.add("kills_pipeline", of_pipeline, "");
    report.add("takeovers", takeovers, "runs stopped until another had taken over, then let go on");
    report.add("full_disks", full_disks, "");
    report.print(args.flags.json);
    Ok(ending.held() && kills >= kills_min)
}
