//! One fact, one function: it writes the log line and moves the counters.

use std::{fmt::Display, path::Path, time::Duration};

use metrics::{counter, gauge, histogram};
use weir_log::LogError;

use crate::{
    AppendError, Reason, SpoolUsage,
    collector::{Place, may_pass},
};

/// A batch of events reached the log or the spool, or was given up.
pub(crate) struct BatchAppended<'a> {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) partition: u32,
    pub(crate) seconds: Duration,
    pub(crate) answer: &'a Result<Place, AppendError>,
}

impl BatchAppended<'_> {
    pub(crate) fn emit(self) {
        let Self { events, bytes, partition, seconds, answer } = self;
        histogram!("weir_ingest_append_seconds").record(seconds);
        match answer {
            // Counted by the spool, and again when it reaches the log.
            Ok(Place::Spool) => {}
            Ok(Place::Log) => {
                counter!("weir_ingest_appended_events_total").increment(events as u64);
                counter!("weir_ingest_appended_bytes_total").increment(bytes as u64);
                counter!("weir_ingest_appended_batches_total").increment(1);
            }
            Err(error) => {
                counter!("weir_ingest_unappended_events_total").increment(events as u64);
                tracing::error!(events, bytes, partition, %error, "events are not known to be durable; their senders were told so");
            }
        }
    }
}

/// An append did not succeed and is tried again.
pub(crate) struct AppendTriedAgain<'a> {
    pub(crate) partition: u32,
    pub(crate) error: &'a LogError,
}

impl AppendTriedAgain<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_append_retries_total").increment(1);
        tracing::warn!(partition = self.partition, error = %self.error, "append is tried again");
    }
}

/// The log refused a batch for good; it goes into the spool.
pub(crate) struct BatchRefused<'a> {
    pub(crate) error: &'a LogError,
}

impl BatchRefused<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_refused_batches_total").increment(1);
        tracing::error!(error = %self.error, "the log refuses a batch, which waits in the spool until somebody has mended the log (see `weir doctor`)");
    }
}

/// A spool was opened. There is no torn end to cut: a batch that was not whole when a process died was never in it.
pub(crate) struct SpoolOpened<'a> {
    pub(crate) path: &'a Path,
    pub(crate) usage: &'a SpoolUsage,
    pub(crate) now_ms: i64,
}

impl SpoolOpened<'_> {
    pub(crate) fn emit(self) {
        let Self { path, usage: SpoolUsage { bytes, bytes_max, batches, .. }, now_ms } = self;
        let (path, age_s) = (path.display(), age_s(self.usage, now_ms));
        match batches {
            0 => tracing::info!(%path, bytes_max, "the spool is empty"),
            _ => {
                tracing::warn!(%path, batches, bytes, bytes_max, age_s, "the spool holds whole batches that an earlier collector took; they go into the log now")
            }
        }
    }
}

/// A batch became durable in the spool.
pub(crate) struct BatchSpooled {
    pub(crate) events: u32,
}

impl BatchSpooled {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_spooled_events_total").increment(self.events.into());
        counter!("weir_ingest_spooled_batches_total").increment(1);
    }
}

/// A batch of the spool is not what was written: it is lost.
pub(crate) struct BatchDamaged {
    pub(crate) offset: i64,
    pub(crate) bytes: usize,
}

impl BatchDamaged {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_spool_damaged_batches_total").increment(1);
        tracing::error!(
            offset = self.offset,
            bytes = self.bytes,
            "a batch of the spool is not what was written: it is left out, its events are lost (look at the disk)"
        );
    }
}

/// A batch found no room in the spool; its senders were told to come again.
pub(crate) struct SpoolRefused<'a> {
    pub(crate) events: u32,
    pub(crate) error: &'a LogError,
    /// None before it, since one was taken.
    pub(crate) first: bool,
}

impl SpoolRefused<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_spool_refused_events_total").increment(self.events.into());
        if self.first {
            tracing::error!(error = %self.error, "the log is away and the spool takes no more: events are answered 503 until the log is back (or ingest.spool.bytes_max is raised, or there is room on the disk)");
        }
    }
}

/// The log stopped answering.
pub(crate) struct LogAway<'a> {
    pub(crate) error: &'a dyn Display,
}

impl LogAway<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_log_away_total").increment(1);
        tracing::warn!(error = %self.error, "the log is away: events go into the spool until it is back");
    }
}

/// The log answers again.
pub(crate) struct LogBack;

impl LogBack {
    pub(crate) fn emit(self) {
        tracing::info!("the log is back: events go straight to it, and the spool is drained");
    }
}

/// A group of spooled batches could not all be appended, and is tried again.
pub(crate) struct DrainTriedAgain<'a> {
    pub(crate) error: &'a LogError,
    /// Whether the last one said something else.
    pub(crate) changed: bool,
}

impl DrainTriedAgain<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_spool_retries_total").increment(1);
        if self.changed && !may_pass(self.error) {
            tracing::error!(error = %self.error, "the log refuses spooled batches: they, and what waits behind them, stay in the spool until somebody has mended it (see `weir doctor`)");
        } else if self.changed {
            tracing::warn!(error = %self.error, "spooled batches are tried again until the log takes them");
        }
    }
}

/// Spooled batches that might have been in the log already were looked up there.
pub(crate) struct SpoolLookedUp {
    pub(crate) batches: usize,
    pub(crate) found: usize,
}

impl SpoolLookedUp {
    pub(crate) fn emit(self) {
        tracing::info!(batches = self.batches, found = self.found, "spooled batches were looked up in the log");
    }
}

/// Spooled batches are in the log.
pub(crate) struct SpoolDrained {
    pub(crate) batches: usize,
    pub(crate) events: u64,
    pub(crate) left: i64,
}

impl SpoolDrained {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_spool_drained_events_total").increment(self.events);
        counter!("weir_ingest_spool_drained_batches_total").increment(self.batches as u64);
        if self.left <= 0 {
            tracing::info!("the spool is empty");
        }
    }
}

/// How full the spool is: sampled, not counted.
pub(crate) struct SpoolLevel<'a> {
    pub(crate) usage: &'a SpoolUsage,
    pub(crate) now_ms: i64,
    pub(crate) away: bool,
}

impl SpoolLevel<'_> {
    pub(crate) fn emit(self) {
        gauge!("weir_ingest_spool_bytes").set(self.usage.bytes as f64);
        gauge!("weir_ingest_spool_bytes_max").set(self.usage.bytes_max as f64);
        gauge!("weir_ingest_spool_batches").set(self.usage.batches as f64);
        gauge!("weir_ingest_spool_age_seconds").set(age_s(self.usage, self.now_ms) as f64);
        gauge!("weir_ingest_log_away").set(f64::from(u8::from(self.away)));
    }
}

fn age_s(usage: &SpoolUsage, now_ms: i64) -> i64 {
    usage.oldest_ms.map_or(0, |oldest_ms| (now_ms - oldest_ms).max(0) / 1000)
}

/// A request was answered.
pub(crate) struct RequestAnswered {
    pub(crate) route: &'static str,
    pub(crate) status: u16,
    pub(crate) seconds: Duration,
}

impl RequestAnswered {
    pub(crate) fn emit(self) {
        let class = match self.status {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        histogram!("weir_ingest_request_seconds", "route" => self.route, "status" => class).record(self.seconds);
    }
}

/// Events of one request were acknowledged.
pub(crate) struct EventsAccepted {
    pub(crate) route: &'static str,
    pub(crate) events: usize,
}

impl EventsAccepted {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_events_total", "route" => self.route).increment(self.events as u64);
    }
}

/// An event was not taken.
pub(crate) struct EventRejected {
    pub(crate) route: &'static str,
    pub(crate) reason: Reason,
}

impl EventRejected {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_rejected_total", "route" => self.route, "reason" => self.reason.as_str()).increment(1);
    }
}

/// What waits: sampled, not counted.
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) body_bytes: usize,
    pub(crate) bytes_in_flight: usize,
    pub(crate) limited_keys: usize,
}

impl Load {
    pub(crate) fn emit(self) {
        gauge!("weir_ingest_connections").set(self.connections as f64);
        gauge!("weir_ingest_body_bytes").set(self.body_bytes as f64);
        gauge!("weir_ingest_in_flight_bytes").set(self.bytes_in_flight as f64);
        gauge!("weir_ingest_limited_keys").set(self.limited_keys as f64);
    }
}

/// All collectors now use one salt for a day.
pub(crate) struct SaltAgreed {
    pub(crate) day: i64,
    pub(crate) written: bool,
}

impl SaltAgreed {
    pub(crate) fn emit(self) {
        tracing::info!(day = self.day, written_here = self.written, "salt of the day agreed on");
    }
}

/// Somebody wrote into the topic of salts what is none.
pub(crate) struct SaltUnreadable<'a> {
    pub(crate) offset: i64,
    pub(crate) error: &'a serde_json::Error,
}

impl SaltUnreadable<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_unreadable_salts_total").increment(1);
        tracing::warn!(offset = self.offset, error = %self.error, "record of the topic of salts passed over");
    }
}

/// The salts could not be tended; tried again soon.
pub(crate) struct SaltsUntended<'a> {
    pub(crate) error: &'a LogError,
}

impl SaltsUntended<'_> {
    pub(crate) fn emit(self) {
        tracing::warn!(error = %self.error, "the next day's salt could not be agreed on, trying again");
    }
}

/// No connection could be accepted.
pub(crate) struct AcceptFailed<'a> {
    pub(crate) error: &'a std::io::Error,
}

impl AcceptFailed<'_> {
    pub(crate) fn emit(self) {
        counter!("weir_ingest_accept_errors_total").increment(1);
        tracing::warn!(error = %self.error, "a connection could not be accepted (too many open files? see `ulimit -n`)");
    }
}

/// Requests did not end in time at a stop and were cut off.
pub(crate) struct CutOff {
    pub(crate) connections: usize,
}

impl CutOff {
    pub(crate) fn emit(self) {
        tracing::warn!(
            connections = self.connections,
            "connections did not end in time at the stop; their requests were not acknowledged"
        );
    }
}
