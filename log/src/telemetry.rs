//! What the log counts, one function a fact.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::LogError;

/// An append was acknowledged, `took` after it was handed over.
pub(crate) fn appended(log: &'static str, took: Duration) {
    metrics::histogram!("weir_log_append_seconds", "log" => log).record(took.as_secs_f64());
}

/// An append was refused or failed.
pub(crate) fn append_failed(log: &'static str, error: &LogError) {
    let reason = match error {
        LogError::UnknownTopic(_) => "unknown_topic",
        LogError::WrongTopic { .. } => "wrong_topic",
        LogError::BelowStart { .. } => "below_start",
        LogError::Unclear { .. } => "unclear",
        LogError::Unavailable(_) => "unavailable",
        LogError::TooLarge { .. } => "too_large",
        LogError::Embedded { .. } => "embedded",
        LogError::Kafka(_) => "kafka",
    };
    metrics::counter!("weir_log_append_failures_total", "log" => log, "reason" => reason).increment(1);
}

/// So many records, with so many bytes of payload, became durable at once.
pub(crate) fn group(log: &'static str, records: u64, bytes: usize) {
    metrics::counter!("weir_log_appended_records_total", "log" => log).increment(records);
    metrics::counter!("weir_log_appended_bytes_total", "log" => log).increment(bytes as u64);
}

/// A record of the control topic was set aside: told once in this process, however often it is read.
pub(crate) fn control_unreadable(topic: &str, offset: i64, error: &serde_json::Error) {
    static TOLD: Mutex<BTreeSet<(String, i64)>> = Mutex::new(BTreeSet::new());
    if !TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert((topic.to_owned(), offset)) {
        return;
    }
    tracing::warn!(topic, offset, %error, "set aside a control record that cannot be read");
    metrics::counter!("weir_log_control_unreadable_total").increment(1);
}

/// The file of an embedded log or a spool was there and empty: killed while it was made, or somebody has emptied it.
pub(crate) fn store_made_anew(path: &Path) {
    tracing::error!(path = %path.display(), "the log's file is empty and is made anew: what it may have held is lost");
    metrics::counter!("weir_log_stores_made_anew_total").increment(1);
}
