//! An import is taken back as a whole.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{quote, stats_table};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::error::Failure;
use crate::owner;

/// Removes all rows of `origin`, and all record of them. May be repeated, also after it was cut short.
///
/// First the run `run` is raised above whoever owns it, and what it still runs is ended: a forgotten writer that wakes
/// afterwards is refused. Then the record goes, then the rows: cut in between, the origin is not complete any more, which
/// is the truth. Errors: [`SinkError::UndoLive`] for the empty origin.
pub async fn undo(target: &Target, run: &str, version: &SchemaVersion, origin: &str) -> Result<(), SinkError> {
    if origin.is_empty() {
        return Err(SinkError::UndoLive);
    }
    take_back(target, run, version, origin).await.map_err(|failure| failure.into_error(&target.url, run))
}

async fn take_back(target: &Target, run: &str, version: &SchemaVersion, origin: &str) -> Result<(), Failure> {
    let run = ClickHouse::new(target, run, version, origin);
    owner::raise(&run).await?;
    owner::end_running(&run).await?;
    let (clickhouse, table) = (Connection::to(target), stats_table(version));
    let database = &clickhouse.database;
    let origin = quote(origin);
    clickhouse
        .execute(
            &format!(
                "ALTER TABLE {database}.emissions DELETE WHERE generation = {} AND origin = {origin} SETTINGS mutations_sync = 2",
                version.number
            ),
            None,
            LONG,
        )
        .await?;
    let partitions: Vec<String> = clickhouse
        .rows(&format!("SELECT DISTINCT _partition_id FROM {database}.{table} WHERE origin = {origin}"), QUICK)
        .await?;
    for partition in partitions {
        clickhouse
            .execute(&format!("ALTER TABLE {database}.{table} DROP PARTITION ID {}", quote(&partition)), None, LONG)
            .await?;
    }
    Ok(())
}
