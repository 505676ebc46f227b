//! Whether a copy holds what it must, without touching what it is a copy of.

use uuid::Uuid;
use weir_schemas::SchemaVersion;
use weir_schemas::control::RecordedDay;
use weir_schemas::tables::quote_name;

use crate::SinkError;
use crate::audit::{Audit, Finding};
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::error::Failure;
use crate::vault::bring_into;

/// What was found in a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Where its rows are not what its own record says.
    pub findings: Vec<Finding>,
    /// What it has recorded before the instant that was asked for, by generation and day.
    pub days: Vec<RecordedDay>,
}

/// All that was recorded as done before `before_ms` (the server's clock, ms since the Unix epoch), by generation and day.
pub async fn recorded_days(target: &Target, before_ms: i64) -> Result<Vec<RecordedDay>, SinkError> {
    days(target, before_ms).await.map_err(|failure| failure.into_error(&target.url, ""))
}

/// The server's clock, ms since the Unix epoch.
pub async fn server_ms(target: &Target) -> Result<i64, SinkError> {
    let now = Connection::to(target).row::<i64>("SELECT toUnixTimestamp64Milli(now64(3))", QUICK).await;
    now.map_err(|failure| failure.into_error(&target.url, ""))
}

/// Brings back what [`crate::copy()`] has put into `at` into a database of its own, compares its rows with its record,
/// and drops it again. Needs room for all of it on the server's disk.
pub async fn verify(
    target: &Target,
    versions: &[SchemaVersion],
    at: &str,
    before_ms: i64,
) -> Result<Verified, SinkError> {
    let prefix = format!("{}_verify_", target.database);
    let scratch = Target { database: format!("{prefix}{}", Uuid::new_v4().simple()), ..target.clone() };
    let clickhouse = Connection::to(target);
    let fail = |failure: Failure| failure.into_error(&target.url, "");
    // What one that was cut short has left.
    clickhouse.drop_databases(&prefix).await.map_err(fail)?;
    let made = format!("CREATE DATABASE {} ENGINE = Atomic", quote_name(&scratch.database));
    clickhouse.execute(&made, None, LONG).await.map_err(fail)?;
    let verified = look(target, &scratch, versions, at, before_ms).await;
    clickhouse.drop_databases(&scratch.database).await.map_err(fail)?;
    verified
}

async fn look(
    target: &Target,
    scratch: &Target,
    versions: &[SchemaVersion],
    at: &str,
    before_ms: i64,
) -> Result<Verified, SinkError> {
    bring_into(target, scratch, versions, at).await.map_err(|failure| failure.into_error(&target.url, ""))?;
    let mut findings = Vec::new();
    for version in versions {
        findings.extend(Audit::new(scratch, version).full().await?);
    }
    Ok(Verified { findings, days: recorded_days(scratch, before_ms).await? })
}

async fn days(target: &Target, before_ms: i64) -> Result<Vec<RecordedDay>, Failure> {
    let clickhouse = Connection::to(target);
    // A statement that arrived twice has left two equal rows.
    let sql = format!(
        "SELECT generation, toUInt32(toDate(window_from, 'UTC')) AS day, count(), sum(rows), sum(digest) FROM \
         (SELECT generation, origin, window_from, window_to, rows, digest, min(recorded) AS recorded FROM {}.emissions \
         WHERE state = 'done' GROUP BY ALL) \
         WHERE recorded < fromUnixTimestamp64Milli(toInt64({before_ms})) GROUP BY generation, day ORDER BY generation, day",
        clickhouse.database
    );
    let days: Vec<(u32, u32, u64, u64, u64)> = clickhouse.rows(&sql, LONG).await?;
    let day = |(generation, day, batches, rows, digest): (u32, u32, u64, u64, u64)| {
        let day = i64::from(day);
        RecordedDay { generation, day, batches, rows, digest }
    };
    Ok(days.into_iter().map(day).collect())
}
