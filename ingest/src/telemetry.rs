//! One fact, one function: it writes the log line and moves the counters.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use weir_log::LogError;

use crate::{AppendError, Reason};

/// A batch of events reached the log, or was given up.
pub(crate) struct BatchAppended<'a> {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) partition: u32,
    pub(crate) seconds: Duration,
    pub(crate) answer: &'a Result<(), AppendError>,
}

impl BatchAppended<'_> {
    pub(crate) fn emit(self) {
        let Self { events, bytes, partition, seconds, answer } = self;
        histogram!("weir_ingest_append_seconds").record(seconds);
        match answer {
            Ok(()) => {
                counter!("weir_ingest_appended_events_total").increment(events as u64);
                counter!("weir_ingest_appended_bytes_total").increment(bytes as u64);
                counter!("weir_ingest_appended_batches_total").increment(1);
            }
            Err(error) => {
                counter!("weir_ingest_unappended_events_total").increment(events as u64);
                tracing::error!(events, bytes, partition, %error, "events are not known to be in the log; their senders were told so");
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
