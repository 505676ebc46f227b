//! One fact, one function: the log line and the counter together.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tracing::{error, info, warn};

use crate::decide::Deed;

/// A batch was found equal in the table, and recorded.
pub(crate) struct BatchDone<'a> {
    pub(crate) run: &'a str,
    pub(crate) from_ms: i64,
    pub(crate) through_ms: i64,
    pub(crate) rows: u64,
    pub(crate) took: Duration,
}

impl BatchDone<'_> {
    pub(crate) fn emit(&self) {
        tracing::debug!(
            run = self.run,
            from_ms = self.from_ms,
            through_ms = self.through_ms,
            rows = self.rows,
            took_ms = self.took.as_millis() as u64,
            "batch done"
        );
        counter!("weir_sink_rows_total", "run" => self.run.to_owned()).increment(self.rows);
        counter!("weir_sink_batches_total", "run" => self.run.to_owned()).increment(1);
        histogram!("weir_sink_batch_seconds", "run" => self.run.to_owned()).record(self.took.as_secs_f64());
        gauge!("weir_sink_complete_through_seconds", "run" => self.run.to_owned()).set(self.through_ms as f64 / 1000.0);
    }
}

/// The table held something else of a batch: an INSERT that was cut between chunks, or arrived twice.
pub(crate) struct BatchDiffered<'a> {
    pub(crate) run: &'a str,
    pub(crate) from_ms: i64,
    pub(crate) held: u64,
    pub(crate) wanted: u64,
}

impl BatchDiffered<'_> {
    pub(crate) fn emit(&self) {
        warn!(
            run = self.run,
            from_ms = self.from_ms,
            held = self.held,
            wanted = self.wanted,
            "the table held other rows of this batch: they are taken out and written again"
        );
        counter!("weir_sink_batches_differed_total", "run" => self.run.to_owned()).increment(1);
    }
}

/// Live leaves windows to the gap run, to be with today's at once.
pub(crate) struct WindowsLeft<'a> {
    pub(crate) run: &'a str,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

impl WindowsLeft<'_> {
    pub(crate) fn emit(&self) {
        info!(run = self.run, from_ms = self.from_ms, to_ms = self.to_ms, "leaves windows to the gap run");
    }
}

/// ClickHouse did not do something, or did not say; it is tried again.
pub(crate) struct Waiting<'a> {
    pub(crate) run: &'a str,
    pub(crate) what: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) again_in: Duration,
}

impl Waiting<'_> {
    pub(crate) fn emit(&self) {
        warn!(
            run = self.run,
            what = self.what,
            reason = self.reason,
            again_in_ms = self.again_in.as_millis() as u64,
            "waiting for clickhouse"
        );
        counter!("weir_sink_retries_total", "run" => self.run.to_owned()).increment(1);
    }
}

/// This process became a run's owner.
pub(crate) struct Raised<'a> {
    pub(crate) run: &'a str,
}

impl Raised<'_> {
    pub(crate) fn emit(&self) {
        counter!("weir_sink_raises_total", "run" => self.run.to_owned()).increment(1);
    }
}

/// The audit found that the table is not what `emissions` says.
pub(crate) struct AuditFound<'a> {
    pub(crate) finding: &'a crate::audit::Finding,
}

impl AuditFound<'_> {
    pub(crate) fn emit(&self) {
        error!(finding = %self.finding, "the table is not what was recorded");
        counter!("weir_sink_audit_findings_total").increment(1);
    }
}

/// The server of our own answers.
pub(crate) struct ServerStarted<'a> {
    pub(crate) url: &'a str,
    pub(crate) pid: u32,
}

impl ServerStarted<'_> {
    pub(crate) fn emit(&self) {
        info!(url = self.url, pid = self.pid, "clickhouse started");
        counter!("weir_sink_server_starts_total").increment(1);
    }
}

/// The server of our own has ended, without being told to.
pub(crate) struct ServerDied<'a> {
    pub(crate) how: &'a str,
    pub(crate) last_words: &'a str,
    pub(crate) again_in: Duration,
}

impl ServerDied<'_> {
    pub(crate) fn emit(&self) {
        warn!(
            how = self.how,
            last_words = self.last_words,
            again_in_ms = self.again_in.as_millis() as u64,
            "clickhouse ended, and is started again"
        );
        counter!("weir_sink_server_deaths_total").increment(1);
    }
}

/// The kernel does not confine the server's process.
pub(crate) struct ServerUnconfined<'a> {
    pub(crate) reason: &'a str,
}

impl ServerUnconfined<'_> {
    pub(crate) fn emit(&self) {
        error!(
            reason = self.reason,
            "clickhouse runs unconfined: whoever may query it can read this user's files (use a `clickhouse` server, or a kernel with Landlock)"
        );
    }
}

/// The word for a deed in ids and logs.
pub(crate) fn word(deed: Deed) -> &'static str {
    match deed {
        Deed::Done => "done",
        Deed::Delete => "delete",
        Deed::Insert => "insert",
        Deed::Leave => "leave",
        Deed::Lose => "lose",
        Deed::Forget => "forget",
        Deed::Replace => "replace",
    }
}
