//! How much a generation's table holds, and how much room there is for another.

use weir_schemas::tables::{quote, stats_table};
use weir_schemas::{Dimension, SchemaVersion};

use crate::SinkError;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::digest::seconds;
use crate::error::Failure;

/// What [`room`] finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    pub rows: u64,
    /// Of the table's active parts, on disk.
    pub bytes: u64,
    /// On the fullest disk that the table is on.
    pub bytes_free: u64,
    /// By origin, how many events the table has counted, of live from `from_ms` on; empty when the version has no dimension
    /// that counts each event once.
    pub events: Vec<(String, u64)>,
}

/// Looks at the table of `version`. Errors: [`SinkError`] when ClickHouse does not answer, or has no such table.
pub async fn room(target: &Target, version: &SchemaVersion, from_ms: i64) -> Result<Room, SinkError> {
    look(target, version, from_ms).await.map_err(|failure| failure.into_error(&target.url, ""))
}

async fn look(target: &Target, version: &SchemaVersion, from_ms: i64) -> Result<Room, Failure> {
    let clickhouse = Connection::to(target);
    let (database, table) = (&clickhouse.database, stats_table(version));
    let parts = format!(
        "system.parts WHERE active AND database = {} AND table = {}",
        quote(&clickhouse.database_name),
        quote(&table)
    );
    let (rows, bytes) = clickhouse.row(&format!("SELECT sum(rows), sum(bytes_on_disk) FROM {parts}"), QUICK).await?;
    let bytes_free = clickhouse
        .row(
            &format!(
                "SELECT if(countIf(used) > 0, minIf(free_space, used), min(free_space)) FROM \
                 (SELECT free_space, name IN (SELECT disk_name FROM {parts}) AS used FROM system.disks)"
            ),
            QUICK,
        )
        .await?;
    let events = match version.dimensions.contains(&Dimension::Site) {
        true => {
            let counted = version.measures.iter().map(|measure| measure.name()).collect::<Vec<_>>().join(" + ");
            let sql = format!(
                "SELECT toString(origin), sum({counted}) FROM {database}.{table} WHERE dimension = 'site' AND \
                 (origin != '' OR emitted_in >= toDateTime({}, 'UTC')) GROUP BY origin ORDER BY origin",
                seconds(from_ms)
            );
            clickhouse.rows(&sql, LONG).await?
        }
        false => Vec::new(),
    };
    Ok(Room { rows, bytes, bytes_free, events })
}

/// The first window that is recorded as done of live, ms since the Unix epoch; `None`: none is. Errors: as of [`room`].
pub async fn first_ms(target: &Target, version: &SchemaVersion) -> Result<Option<i64>, SinkError> {
    let clickhouse = Connection::to(target);
    let sql = format!(
        "SELECT count(), toUnixTimestamp(min(window_from)) FROM {}.emissions WHERE generation = {} AND origin = '' AND \
         state = 'done'",
        clickhouse.database, version.number
    );
    let first: Result<(u64, u32), Failure> = clickhouse.row(&sql, QUICK).await;
    let (done, from_s) = first.map_err(|failure| failure.into_error(&target.url, ""))?;
    Ok((done > 0).then_some(i64::from(from_s) * 1000))
}
