//! How a drill under load ends: every event has its last answer, all of it is counted, and the table is compared.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use anyhow::ensure;
use weir_log::SystemClock;
use weir_schemas::{
    WindowStart,
    control::{EVENTS_TOPIC, import_run, import_topic},
};

use crate::{
    compare::{self, Conserved},
    faults::Stage,
    load::Known,
    parts,
    patience::wait_while_it_moves,
    readers::Seen,
    report::{Report, seconds},
    runs::{Order, Run},
    site::Schema,
};

/// Events that are acknowledged, at least.
pub(crate) const EVENTS_MIN: u64 = 100_000;
/// Queries, where those who read matter.
const QUERIES_MIN: u64 = 1_000;
/// Workers of the replay: another number than those of the live run.
const REPLAY_WORKERS: usize = 3;

/// What came of it.
pub(crate) struct Ending {
    begin: Instant,
    pub(crate) known: Known,
    pub(crate) seen: Arc<Seen>,
    pub(crate) kills: u64,
    conserved: Conserved,
    digests: [String; 2],
    /// `None`: the log does not reach back to its beginning any more, or has too much for it.
    oracle: Option<Oracle>,
}

/// The first difference to the plainest recomputation, if there is one.
struct Oracle(Option<String>);

impl Ending {
    /// Ends the load, waits until all is counted, stops weir, and compares: with the oracle, and with a replay of the windows
    /// from `from` on, and of all imports, into a second ClickHouse.
    pub(crate) fn reach(
        stage: Stage<'_>,
        from: impl FnOnce(&Stage<'_>) -> anyhow::Result<WindowStart>,
    ) -> anyhow::Result<Ending> {
        let schema = stage.site.schema.clone();
        Ending::reach_by(stage, &schema, true, from)
    }

    /// The same of the table of another schema; `oracle`: also row by row, which takes as long as there are events.
    pub(crate) fn reach_by(
        mut stage: Stage<'_>,
        schema: &Schema,
        oracle: bool,
        from: impl FnOnce(&Stage<'_>) -> anyhow::Result<WindowStart>,
    ) -> anyhow::Result<Ending> {
        let Schema { version, file } = schema;
        let known = finish_load(&mut stage)?;
        stage.drained()?;
        // All that is in the log came before it.
        let through_ms = stage.windows_from_now_on("the table to be complete", None)?;
        let from = from(&stage)?;
        let Stage { runtime, site, target, begin, pipeline, collector, clickhouse, broker, disk, readers, .. } = stage;
        let (seen, kills) = (readers.seen.clone(), stage.done.kills);
        drop(readers);
        pipeline.stop()?;
        collector.stop()?;
        eprintln!(
            "drill: {:6.1} s  all is counted; the same log into a second ClickHouse",
            begin.elapsed().as_secs_f64()
        );
        let to = version.width.window_of(through_ms);
        let views = runtime.block_on(compare::views(&target, version))?;
        let conserved = compare::conserved(&known, &views);
        let second = runtime.block_on(parts::clickhouse(&site.dir.join("second-clickhouse"), 0))?;
        let replayed = second.target().clone();
        runtime.block_on(weir_sink::prepare(&replayed, version))?;
        let live = Order {
            run: "replay".to_owned(),
            origin: String::new(),
            topic: EVENTS_TOPIC.to_owned(),
            from,
            to,
            partitions: stage.partitions.clone(),
            log: stage.log.clone(),
            target: replayed.clone(),
            schema_text: std::fs::read_to_string(file)?,
            workers: REPLAY_WORKERS,
            memory_bytes_max: 64 << 20,
            dir: site.dir.join("replay"),
        };
        let mut orders = vec![live.clone()];
        for import in site.imports()? {
            let ((from, to), live) = (import.windows(version), live.clone());
            let (run, topic, origin) = (import_run(&import.id), import_topic(&import.id), import.id);
            orders.push(Order { run, topic, origin, from, to, partitions: Vec::new(), ..live });
        }
        for order in &orders {
            let mut run = Run::start(order)?;
            let status = wait_while_it_moves("the replay", || {
                let through = weir_sink::checkpoint(&replayed, &order.run, version, &order.origin, order.from);
                Ok(run.ended()?.ok_or(runtime.block_on(through).ok()))
            })?;
            ensure!(status.success(), "the replay ended with {status}:\n{}", run.last_lines());
        }
        let first_ms = orders.iter().map(|order| order.from.ms()).min().unwrap_or(from.ms());
        let windows = (first_ms, to.ms());
        let digests = [site.digest(schema, &target, windows)?, site.digest(schema, &replayed, windows)?];
        let oracle = match oracle && from == stage.from {
            true => {
                let log = weir_log::open(&stage.log, Arc::new(SystemClock))?;
                let differs =
                    compare::differs_from_oracle(&log, EVENTS_TOPIC, &stage.partitions, &target, version, to.ms());
                Some(Oracle(runtime.block_on(differs)?))
            }
            false => None,
        };
        drop((clickhouse, broker, disk));
        Ok(Ending { begin, known, seen, kills, conserved, digests, oracle })
    }

    /// What every drill under load prints.
    pub(crate) fn add_to(&self, report: &mut Report) {
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst);
        let Ending { known, seen, conserved, digests: [live, replayed], .. } = self;
        report.add("seconds", seconds(self.begin.elapsed()), "");
        report.add("acknowledged", known.acknowledged_events, "events that were answered 202");
        report.add("counted", conserved.counted, "events that are in the table");
        report.add("lost", conserved.lost, "acknowledged, and not in the table");
        report.add("twice", conserved.twice, "in the table more than once");
        report.add("strange", conserved.strange, "in the table, and never sent");
        report.add("kills", self.kills, "SIGKILLs");
        report.add("failed_requests", known.failed_requests, "events never acknowledged, however often they were sent");
        report.add("told_to_wait", known.told_to_wait, "answers 503 with Retry-After");
        report.add("unanswered_tries", known.unanswered_tries, "sent again after a connection broke");
        report.add("repeated_posts", known.repeated, "sent again although they were acknowledged");
        report.add("failed_queries", of(&seen.failed_queries), "while ClickHouse was there");
        report.add("queries", of(&seen.queries), "while ClickHouse was there");
        report.add("longest_wait_ms", of(&seen.longest_wait_ms), "between two answers, while ClickHouse was there");
        report.add("queries_while_away", of(&seen.queries_while_away), "");
        report.add("failed_while_away", of(&seen.failed_while_away), "of those");
        report.add("steps_back", self.steps_back(), "of complete-through, in the table and in the status");
        report.add("steps_back_in_status", of(&seen.steps_back_in_status), "");
        report.add("longest_gap_ms", known.longest_gap.as_millis() as u64, "between two acknowledgements");
        report.add("digest", live.as_str(), "of the live table");
        report.add("digest_of_replay", replayed.as_str(), "of the same log into a second ClickHouse");
        report.add("digests_equal", live == replayed, "");
        if let Some(Oracle(differs)) = &self.oracle {
            report.add("oracle_equal", differs.is_none(), "row by row with the plainest recomputation");
            if let Some(difference) = differs {
                eprintln!("drill: not what the oracle says: {difference}");
            }
        }
    }

    /// Whether every POST was answered 202 the first time it was sent.
    pub(crate) fn answered_at_once(&self) -> bool {
        let Known { failed_requests, told_to_wait, unanswered_tries, .. } = self.known;
        failed_requests + told_to_wait + unanswered_tries == 0
    }

    /// Whether those who read asked often enough for that to say anything.
    pub(crate) fn asked_enough(&self) -> bool {
        self.seen.queries.load(Ordering::SeqCst) >= QUERIES_MIN
    }

    pub(crate) fn digests_equal(&self) -> bool {
        self.digests[0] == self.digests[1]
    }

    fn steps_back(&self) -> u64 {
        let Seen { steps_back_in_table, steps_back_in_status, .. } = &*self.seen;
        steps_back_in_table.load(Ordering::SeqCst) + steps_back_in_status.load(Ordering::SeqCst)
    }

    /// Whether what every drill promises held.
    pub(crate) fn held(&self) -> bool {
        let Conserved { lost, twice, strange, .. } = self.conserved;
        lost + twice + strange == 0
            && self.known.acknowledged_events >= EVENTS_MIN
            && self.known.failed_requests == 0
            && self.seen.failed_queries.load(Ordering::SeqCst) == 0
            && self.steps_back() == 0
            && self.digests_equal()
            && self.oracle.as_ref().is_none_or(|oracle| oracle.0.is_none())
    }
}

/// Waits until enough is acknowledged, and every client has its last answer.
fn finish_load(stage: &mut Stage<'_>) -> anyhow::Result<Known> {
    wait_while_it_moves("enough events to be acknowledged", || {
        stage.collector.lives()?;
        let acknowledged = stage.load.known(|known| known.acknowledged_events);
        let wrong = stage.load.known(|known| known.wrong.first().cloned());
        ensure!(wrong.is_none(), "the collector answered {}", wrong.unwrap_or_default());
        Ok(if acknowledged >= EVENTS_MIN { Ok(()) } else { Err(acknowledged) })
    })?;
    stage.load.end();
    wait_while_it_moves("the last acknowledgements", || {
        let acknowledged = || stage.load.known(|known| known.acknowledged_events);
        Ok(if stage.load.has_ended() { Ok(()) } else { Err(acknowledged()) })
    })?;
    Ok(stage.load.known(Known::clone))
}
