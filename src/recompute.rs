//! Windows are computed again beside the table, by a run's process of its own, until all of them are there.

use std::{
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_log::{Clock, ControlLog, Log, SystemClock};
use weir_schemas::{
    Fault, World,
    control::{EVENTS_TOPIC, REPLAY_RUN},
    progress::{RunProgress, group_of},
};
use weir_sink::{Target, table::Windows};

use crate::{
    config::Config,
    exposition::OfRuns,
    generation::Generation,
    judge::at,
    report,
    run::{RunOrder, STOPPED_FOR_GOOD},
    supervisor,
};

/// Between looks at the process.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Between tries of a process that has ended early, doubling.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What is computed, and where to.
pub(crate) struct Recompute<'a> {
    pub config: &'a Config,
    pub log: &'a Arc<dyn Log>,
    pub control: &'a ControlLog,
    pub scratch: Target,
    pub windows: Windows,
    /// The share of the time that it works at most, in thousandths.
    pub permille: u16,
}

/// Ended when it is dropped: it finishes its batch first, or is killed, which loses nothing.
struct Process(Option<Child>);

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            supervisor::stop(REPLAY_RUN, child);
        }
    }
}

impl Recompute<'_> {
    /// Comes back when all the windows are in the scratch table. What passes by itself is waited for.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let mut again = AGAIN_MIN;
        loop {
            let began_ms = SystemClock.now_ms();
            let code = self.one(began_ms).await?;
            if code == Some(0) {
                return Ok(());
            }
            let told = self.told(began_ms).await?;
            if code == Some(STOPPED_FOR_GOOD) {
                let told = told.unwrap_or_default();
                anyhow::bail!("{}", told.fault.map_or_else(|| stopped(told.stopped), |fault| said(&fault)));
            }
            let reason = told.and_then(|told| told.waiting).map_or_else(String::new, |waiting| waiting.reason);
            eprintln!("weir: the replay's process has ended, and is started again: {reason}");
            tokio::time::sleep(again).await;
            again = (2 * again).min(AGAIN_MAX);
        }
    }

    /// One process, by what the control topic says now; its exit code.
    async fn one(&self, began_ms: i64) -> anyhow::Result<Option<i32>> {
        let control = self.control.clone();
        let records = tokio::task::spawn_blocking(move || control.read_all()).await??.records;
        let world = World::of(records.iter().map(|(_, record)| record));
        let generation = Generation::in_use(self.config, &world)?;
        let order = RunOrder::replay(self.config, &self.scratch, &world, &generation, self.windows, self.permille)?;
        let mut process = Process(Some(supervisor::spawn(&order)?));
        let child = process.0.as_mut().expect("it was just started");
        if let Some(told) = child.stdout.take() {
            // It ends when nobody takes what it tells.
            OfRuns::default().follow(REPLAY_RUN, told);
        }
        let mut said = (Instant::now(), String::new());
        loop {
            let child = process.0.as_mut().expect("it is taken below only");
            if let Some(status) = child.try_wait()? {
                process.0 = None;
                return Ok(status.code());
            }
            if said.0.elapsed() >= SAY_EVERY {
                let line = self.told(began_ms).await?.map(|told| self.how_far(&told)).unwrap_or_default();
                if !line.is_empty() && line != said.1 {
                    eprintln!("{line}");
                }
                said = (Instant::now(), line);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What the process has said, if it was after `began_ms`.
    async fn told(&self, began_ms: i64) -> anyhow::Result<Option<RunProgress>> {
        let log = self.log.clone();
        let committed =
            tokio::task::spawn_blocking(move || log.committed(&group_of(REPLAY_RUN), EVENTS_TOPIC)).await??;
        Ok(report::told(&committed).filter(|told| told.at_ms >= began_ms))
    }

    fn how_far(&self, told: &RunProgress) -> String {
        if let Some(waiting) = &told.waiting {
            return format!("the replay waits: {}", waiting.reason);
        }
        let (from_ms, to_ms) = (self.windows.from.ms(), self.windows.to.ms());
        let through_ms = told.complete_through_ms.unwrap_or(from_ms).clamp(from_ms, to_ms);
        format!("computed through {}, {} %", at(through_ms), 100 * (through_ms - from_ms) / (to_ms - from_ms))
    }
}

fn stopped(reason: Option<String>) -> String {
    let reason = reason.unwrap_or_else(|| "its process has stopped, and has not said why".to_owned());
    // What a run of the supervisor's is told to do is not to be done here.
    let reason = reason.split(" · then `weir recover").next().unwrap_or_default();
    format!("the replay has stopped: {reason}")
}

/// What stops a replay, and what is done about it: `weir recover` is for runs that go on.
fn said(fault: &Fault) -> String {
    match fault {
        Fault::LogCut { topic, partition, start, .. } => format!(
            "topic {topic} partition {partition} begins at offset {start}: retention has taken what these windows need \
             (begin later: `weir replay` says from when on the log has all)"
        ),
        Fault::TopicReplaced { topic, recorded, found, .. } => format!(
            "topic {topic} is another one than it was (id {found}, and {recorded} before): what the first one held is gone \
             (see `weir status` for what live does about it)"
        ),
        Fault::StrayRecords { topic, partition, records } => format!(
            "topic {topic} partition {partition} is not in use, and {records} records are in it (see `weir status`; \
             `weir recover live` takes it into use, or stop who writes there)"
        ),
        Fault::LogShrunk { topic, partition, read, end, .. } => format!(
            "topic {topic} partition {partition} ends at offset {end}, and was read up to {read}: the log has lost records \
             (see `weir status` for what live does about it)"
        ),
        Fault::TableLost { .. }
        | Fault::ControlLost { .. }
        | Fault::TableAltered { .. }
        | Fault::OwnersGone { .. }
        | Fault::TableDiffers { .. } => {
            "somebody has changed the tables that the replay writes to (begin it again: it makes them anew)".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_replay_is_said_without_a_command_for_runs_that_go_on() {
        let reason = "clickhouse refuses (check its grants) · then `weir recover replay` starts it again";
        assert_eq!(stopped(Some(reason.into())), "the replay has stopped: clickhouse refuses (check its grants)");
        let cut = said(&Fault::LogCut { topic: "t".into(), partition: 3, start: 50, from_ms: 0 });
        assert!(cut.contains("partition 3 begins at offset 50") && !cut.contains("recover"), "{cut}");
    }
}
