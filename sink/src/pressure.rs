//! Whether ClickHouse has more to do than it gets done.

use weir_schemas::tables::quote;

use crate::SinkError;
use crate::connection::{Connection, QUICK, Target};

/// Active parts of one partition: from a thousand on ClickHouse itself slows INSERTs down, and refuses them at three thousand.
const PARTS_MAX: u64 = 500;
/// Of the memory that the server may take, so much in hundredths.
const MEMORY_PERCENT_MAX: u64 = 80;

/// What is too much, in words; `None`: nothing is. Errors: [`SinkError`] when ClickHouse does not answer.
pub async fn pressure(target: &Target) -> Result<Option<String>, SinkError> {
    let clickhouse = Connection::to(target);
    let parts = format!(
        "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active AND database = {} \
         GROUP BY table, partition_id)",
        quote(&clickhouse.database_name)
    );
    let memory = "SELECT toUInt64(greatest(0, (SELECT value FROM system.metrics WHERE metric = 'MemoryTracking'))), \
                  toUInt64((SELECT any(value) FROM system.server_settings WHERE name = 'max_server_memory_usage'))";
    let asked = async {
        let parts: u64 = clickhouse.row(&parts, QUICK).await?;
        Ok((parts, clickhouse.row::<(u64, u64)>(memory, QUICK).await?))
    };
    let (parts, (used, bound)) =
        asked.await.map_err(|failure: crate::error::Failure| failure.into_error(&target.url, ""))?;
    if parts > PARTS_MAX {
        return Ok(Some(format!("ClickHouse does not keep up with merging: {parts} parts in a partition")));
    }
    let percent = (used * 100).checked_div(bound).unwrap_or(0);
    Ok((percent > MEMORY_PERCENT_MAX)
        .then(|| format!("ClickHouse has taken {percent} % of the memory that it may take")))
}
