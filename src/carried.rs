//! The run that carries rows over from another generation's table: those of days that the log does not have any more.
//!
//! It is a run like any other, held, slowed and recovered as they are; it reads nothing of the log.

use std::sync::Arc;

use tokio::sync::watch;
use weir_log::Log;
use weir_pipeline::{Pace, PartitionStatus};
use weir_schemas::{Fault, Number, SchemaVersion, WindowStart, World};
use weir_sink::Carry;

use crate::{
    begin,
    config::Config,
    generation::Generation,
    judge::at,
    report::Reporter,
    run::{Failure, Old, RunOrder, WATCH_EVERY, until},
};

/// The run, if there is one, that still needs the table of `number`: it has not carried all of it over, or is to compare it again.
pub(crate) async fn who_needs(
    config: &Config,
    target: &weir_sink::Target,
    world: &World,
    number: Number,
) -> anyhow::Result<Option<String>> {
    for other in world.generations.alive() {
        let generation = Generation::of(config, world, other)?;
        let from_it = generation.carried.as_ref().is_some_and(|carried| carried.old == number);
        let Some(order) = RunOrder::carried(config, target, world, &generation).filter(|_| from_it) else { continue };
        let order = order?;
        let through = begin::checkpoint(&order, &generation.version).await?;
        if !order.repairs.is_empty() || order.to.is_some_and(|to| through < to) {
            return Ok(Some(order.called().to_owned()));
        }
    }
    Ok(None)
}

/// As any tool sees a run that has nothing of the log left to read.
pub(crate) fn ends(log: &dyn Log, topic: &str) -> anyhow::Result<Vec<PartitionStatus>> {
    let at_end = |partition| {
        let next_offset = log.bounds(topic, partition)?.end;
        Ok(PartitionStatus { partition, next_offset, arrival_ms: None, ended: true })
    };
    (0..log.partitions(topic)?).map(at_end).collect()
}

/// Until all is carried over, or something fails. Nothing is done before `checkpoint`.
pub(crate) async fn go_on(
    order: &RunOrder,
    old: &Old,
    new: SchemaVersion,
    checkpoint: WindowStart,
    pace: Pace,
    reporter: &Arc<Reporter>,
    stopping: watch::Receiver<bool>,
) -> Result<weir_sink::End, Failure> {
    let to = order.to.unwrap_or(checkpoint);
    let old = match old {
        Old::There(text) => SchemaVersion::parse(text, "the old version").map_err(anyhow::Error::from)?,
        Old::Gone => {
            let (reported_ms, from_ms) = (to.ms(), checkpoint.ms());
            return Err(Failure::ForGood {
                reason: format!(
                    "the windows from {} to {} were carried over from a generation that was dropped since, and are not in \
                     the table any more (bring back a copy that has them; or `weir recover {}` with --accept-loss gives them \
                     up)",
                    at(from_ms),
                    at(reported_ms),
                    order.called()
                ),
                fault: Some(Fault::TableLost { reported_ms, from_ms }),
            });
        }
    };
    let carry = Carry { run: order.run.clone(), old, new, from: order.from, to };
    let tell = |news| reporter.hear(news);
    let carried = weir_sink::carry(&order.target, &carry, |worked| pace.rest(worked), tell, until(stopping));
    let watched = async {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            reporter.hear_ping(order.target.ping().await);
        }
    };
    tokio::select! {
        ended = carried => ended.map_err(|error| Failure::of_sink(error, order.called())),
        () = watched => unreachable!("it watches for ever"),
    }
}
