//! `weir run`, started as the supervisor starts it.

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use anyhow::{Context, bail};
use serde_json::json;
use weir_log::{LogConfig, PartitionInUse};
use weir_schemas::WindowStart;
use weir_sink::Target;

use crate::{
    parts::weir,
    process::{last_lines, signal, spawn},
};

/// Exit code of a run that needs a person.
const STOPPED_FOR_GOOD: i32 = 70;

/// A run over a range of windows, into a table.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) run: String,
    /// The import whose rows they are; empty: live traffic.
    pub(crate) origin: String,
    pub(crate) topic: String,
    pub(crate) from: WindowStart,
    pub(crate) to: WindowStart,
    pub(crate) partitions: Vec<PartitionInUse>,
    pub(crate) log: LogConfig,
    pub(crate) target: Target,
    /// The file of the schema version.
    pub(crate) schema_text: String,
    pub(crate) workers: usize,
    pub(crate) memory_bytes_max: usize,
    /// Of spilled windows, and of what the run says.
    pub(crate) dir: PathBuf,
}

/// A run's process; killed when dropped.
pub(crate) struct Run {
    child: Child,
    /// Its end asks the run to stop.
    lifeline: Option<ChildStdin>,
    said: PathBuf,
}

impl Run {
    pub(crate) fn start(order: &Order) -> anyhow::Result<Run> {
        std::fs::create_dir_all(&order.dir)?;
        let said = order.dir.join("run.log");
        let file = File::options().create(true).append(true).open(&said)?;
        let mut command = Command::new(weir()?);
        command.arg("run").env("RUST_LOG", "info").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
        let mut run = Run { child: spawn("a run", &mut command)?, lifeline: None, said };
        let mut lifeline = run.child.stdin.take().context("the run has no standard input")?;
        // `RunOrder` of the `weir` command.
        let partitions: Vec<(u32, i64)> =
            order.partitions.iter().map(|in_use| (in_use.partition, in_use.effective_ms)).collect();
        let said = json!({
            "run": order.run, "origin": order.origin, "topic": order.topic, "import": !order.origin.is_empty(),
            "from": order.from, "to": order.to, "partitions": partitions,
            "log": order.log, "target": order.target,
            "schema_text": order.schema_text,
            "workers": order.workers, "memory_bytes_max": order.memory_bytes_max,
            "spill_dir": order.dir.join("spill"), "tick_after_ms": 3_600_000,
        });
        writeln!(lifeline, "{said}")?;
        run.lifeline = Some(lifeline);
        Ok(run)
    }

    /// How it ended, if it has; an error if it needs a person.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.and_then(|status| status.code()) == Some(STOPPED_FOR_GOOD) {
            bail!("a run has stopped for good:\n{}", self.last_lines());
        }
        Ok(status)
    }

    /// Asks it to stop at its next batch boundary.
    pub(crate) fn ask_to_stop(&mut self) {
        self.lifeline = None;
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn signal(&self, number: i32) {
        signal(self.child.id() as i32, number);
    }

    pub(crate) fn last_lines(&self) -> String {
        last_lines(&self.said)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
